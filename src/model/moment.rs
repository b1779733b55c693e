//! What a request may know of the outside while it decides: the time, randomness, and keyed hashes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A point in time in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From whole seconds since 1970.
    pub const fn from_seconds(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This many seconds later (earlier where negative).
    pub const fn plus_seconds(self, seconds: i64) -> Timestamp {
        Timestamp(self.0 + seconds * 1000)
    }

    /// Whole seconds from `now` until this point, rounded up, never below one: the value of `Retry-After`.
    pub fn seconds_after(self, now: Timestamp) -> i64 {
        ((self.0 - now.0 + 999) / 1000).max(1)
    }

    /// Reads RFC 3339, in any time zone.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Timestamp)
    }

    /// RFC 3339 in UTC with milliseconds.
    pub fn rfc3339(self) -> String {
        const FORM: &[time::format_description::FormatItem<'_>] =
            time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let nanoseconds = i128::from(self.0) * 1_000_000;
        time::OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
            .ok()
            .and_then(|t| t.format(FORM).ok())
            .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// A source of random bytes fit for keys.
pub trait Rng: Send + Sync {
    /// Fills the slice.
    fn fill(&self, out: &mut [u8]);
}

/// The time and the randomness of one request, read once at its start.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// The request's only notion of now.
    pub now: Timestamp,
    rng: &'a dyn Rng,
}

impl<'a> Moment<'a> {
    /// Binds a time to a source of randomness.
    pub fn new(now: Timestamp, rng: &'a dyn Rng) -> Moment<'a> {
        Moment { now, rng }
    }

    /// `N` random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill(&mut bytes);
        bytes
    }

    /// 256 random bits in base64url, 43 characters.
    pub fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.random::<32>())
    }

    /// A uniform number below `limit`, by rejection.
    pub fn below(&self, limit: u32) -> u32 {
        let zone = u32::MAX - u32::MAX % limit;
        loop {
            let drawn = u32::from_le_bytes(self.random());
            if drawn < zone {
                return drawn % limit;
            }
        }
    }

    /// A UUID of version 7 of this time.
    pub fn uuid_v7(&self) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis(self.now.0.max(0) as u64, &self.random()).into_uuid()
    }
}

/// Hashes that need a key of the engine's; the vault holds the keys.
pub trait Keyed: Send + Sync {
    /// HMAC-SHA-256 over the labelled, length-prefixed parts.
    fn keyed_hash(&self, label: &str, parts: &[&[u8]]) -> [u8; 32];

    /// Argon2id of a recovery code with the set's salt and the pepper of that id; `None` where that pepper is gone.
    fn slow_hash(&self, pepper: i64, salt: &[u8], code: &[u8]) -> Option<[u8; 32]>;

    /// The pepper that sets use which are made now.
    fn current_pepper(&self, now: Timestamp) -> i64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        assert_eq!(Timestamp(1_767_323_045_006).rfc3339(), "2026-01-02T03:04:05.006Z");
        assert_eq!(Timestamp(-1).rfc3339(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::parse("2026-01-02T04:04:05.006+01:00"), Some(Timestamp(1_767_323_045_006)));
        assert_eq!(Timestamp::parse("2026-01-02"), None);
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        let now = Timestamp(10_000);
        assert_eq!(Timestamp(10_001).seconds_after(now), 1);
        assert_eq!(Timestamp(12_001).seconds_after(now), 3);
        assert_eq!(Timestamp(9_000).seconds_after(now), 1);
    }
}
