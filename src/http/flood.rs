//! Flood control by client address, in front of what anybody can call: one address cannot keep a node busy with pages, client
//! tokens and wrong API keys. Each node counts for itself and forgets at its end. It guards no secret: guess budgets are the
//! engine's, by user and in the database.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::problem::{self, Refused};
use crate::model::Timestamp;

/// Calls to pages and by client tokens: at once, and a second. Many people may share an address.
const VISITS: (u32, u32) = (3000, 100);
/// Failed authentications: at once, and a second.
const DENIALS: (u32, u32) = (300, 5);
/// After so many checks, addresses whose calls are forgotten anyway make room.
const SWEEP: usize = 4096;

/// What each address has called lately.
pub struct Flood {
    visits: Limit,
    denials: Limit,
}

struct Limit {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, Time, NoOpMiddleware<Nanos>>,
    clock: Time,
    checks: AtomicUsize,
}

/// The engine's clock as the limiter reads it: how far it has gone forward. That it is set back makes nobody wait.
#[derive(Clone)]
pub struct Time {
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where the clock stood when it was read last, and the milliseconds that it had gone by then.
    read: Arc<Mutex<(Timestamp, i64)>>,
}

impl Clock for Time {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, gone) = *read;
        let now = (self.clock)();
        let gone = gone + now.0.saturating_sub(last.0).max(0);
        *read = (now, gone);
        Nanos::from(gone.unsigned_abs().saturating_mul(1_000_000))
    }
}

impl Flood {
    /// With nothing called yet.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Flood {
        let read = Arc::new(Mutex::new((now(), 0)));
        let clock = Time { clock: Arc::new(now), read };
        Flood { visits: Limit::new(VISITS, &clock), denials: Limit::new(DENIALS, &clock) }
    }

    /// A page is asked for, or a client token is shown.
    pub fn visit(&self, address: Option<IpAddr>) -> Result<(), Refused> {
        self.visits.check(address)
    }

    /// An authentication failed: what is to be said of it.
    pub fn denied(&self, address: Option<IpAddr>, refused: impl Into<Refused>) -> Refused {
        self.denials.check(address).err().unwrap_or_else(|| refused.into())
    }
}

impl Limit {
    fn new((burst, second): (u32, u32), clock: &Time) -> Limit {
        let some = |n| NonZeroU32::new(n).expect("the limits are not zero");
        let quota = Quota::per_second(some(second)).allow_burst(some(burst));
        Limit {
            limiter: RateLimiter::new(quota, DashMapStateStore::default(), clock.clone()),
            clock: clock.clone(),
            checks: AtomicUsize::new(0),
        }
    }

    fn check(&self, address: Option<IpAddr>) -> Result<(), Refused> {
        let Some(address) = address else { return Ok(()) };
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let now = self.clock.now();
        self.limiter.check_key(&neighbourhood(address)).map_err(|not_until| {
            let wait = not_until.earliest_possible().duration_since(now).as_u64().div_ceil(1_000_000_000);
            let wait = i64::try_from(wait).unwrap_or(i64::MAX).max(1);
            Refused { retry_after: Some(wait), ..problem::RATE_LIMITED.into() }
        })
    }
}

/// One subscriber's addresses: an IPv4 address, or the /64 of an IPv6 address.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;

    /// Under a clock in microseconds.
    fn flood() -> (Flood, Arc<AtomicI64>) {
        let clock = Arc::new(AtomicI64::new(1_000_000_000));
        let time = Arc::clone(&clock);
        (Flood::new(move || Timestamp(time.load(Ordering::Relaxed) / 1000)), clock)
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_is_let_in_again_when_it_was_told_so() {
        let (flood, clock) = flood();
        for _ in 0..DENIALS.0 {
            assert_eq!(flood.denied(ip("192.0.2.1"), problem::API_KEY_INVALID).code.code, "api_key_invalid");
        }
        let refused = flood.denied(ip("192.0.2.1"), problem::API_KEY_INVALID);
        assert_eq!((refused.code.code, refused.retry_after), ("rate_limited", Some(1)));
        assert_eq!(flood.denied(ip("192.0.2.2"), problem::API_KEY_INVALID).code.code, "api_key_invalid", "another");
        assert!(flood.visit(ip("192.0.2.1")).is_ok(), "pages are counted apart");
        clock.fetch_add(1_000_000, Ordering::Relaxed);
        assert_eq!(flood.denied(ip("192.0.2.1"), problem::API_KEY_INVALID).code.code, "api_key_invalid");
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_wait() {
        let (flood, clock) = flood();
        for _ in 0..VISITS.0 {
            assert!(flood.visit(ip("192.0.2.1")).is_ok());
        }
        assert!(flood.visit(ip("192.0.2.1")).is_err());
        clock.fetch_sub(900_000_000, Ordering::Relaxed);
        assert_eq!(flood.visit(ip("192.0.2.1")).expect_err("no time has gone").retry_after, Some(1));
        clock.fetch_add(1_000_000, Ordering::Relaxed);
        assert!(flood.visit(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_subscriber_is_one_address_of_ipv4_and_a_64_of_ipv6() {
        let same = |a: &str, b: &str| ip(a).map(neighbourhood) == ip(b).map(neighbourhood);
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
    }

    /// A crowd of addresses is forgotten as it goes.
    #[test]
    fn memory_stays_bounded() {
        let (flood, clock) = flood();
        let mut most = 0;
        for n in 0..200_000u128 {
            clock.fetch_add(100, Ordering::Relaxed);
            assert!(flood.visit(Some(IpAddr::V6(Ipv6Addr::from_bits(n << 64)))).is_ok());
            most = most.max(flood.visits.limiter.len());
        }
        assert!(most <= 2 * SWEEP, "{most}");
    }
}
