//! Where time and randomness come from. Everything else is handed a `Moment`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime};

use crate::model::{Rng, Timestamp};

/// A source of the present time.
pub trait Clock: Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's time")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The machine's clock plus the seconds that stand in a file; for trials from outside, in development only.
pub struct FileClock {
    path: PathBuf,
}

impl FileClock {
    /// Reads the offset anew at each call; an absent or unreadable file counts as 0.
    pub fn new(path: PathBuf) -> FileClock {
        FileClock { path }
    }
}

impl Clock for FileClock {
    fn now(&self) -> Timestamp {
        let offset: f64 =
            std::fs::read_to_string(&self.path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        Timestamp(SystemClock.now().0 + (offset * 1000.0) as i64)
    }
}

/// A clock that stands still until it is moved.
pub struct ManualClock {
    now: AtomicI64,
}

impl ManualClock {
    /// Starts at this time.
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock { now: AtomicI64::new(now.0) }
    }

    /// Moves by this many seconds, back where negative.
    pub fn advance(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }
}

/// The operating system's random source.
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, out: &mut [u8]) {
        aws_lc_rs::rand::fill(out).expect("the operating system gives random bytes");
    }
}

/// How long something takes. For measurements only: no decision reads it, and no test can turn it.
#[derive(Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// From now on.
    #[expect(clippy::disallowed_methods, reason = "a duration for people and dashboards, never for a rule")]
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Since the start, in seconds.
    pub fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
