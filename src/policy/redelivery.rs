//! When a webhook is tried again, and when it is given up (Standard Webhooks 1.0.0, the schedule that it gives as an example).

use crate::model::{Moment, Reply};

/// From each failed attempt to the next, in seconds: ten attempts over three days.
const PAUSES: [i64; 9] = [5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600];
/// Attempts come up to a tenth later than that, so that what failed together does not come again together.
const JITTER: u32 = 10;
/// How long a receiver that has too much is left alone, where it does not say so itself, in seconds.
const OVERLOADED: i64 = 60;
/// The longest that a receiver may ask to be left alone, in seconds.
const LONGEST_REST: i64 = 86_400;
/// How long nothing but failures may come from an endpoint until it is disabled, in seconds.
pub const FAILING: i64 = 5 * 86_400;

/// What is to be done after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is delivered.
    Delivered,
    /// It is tried again after so many milliseconds.
    Again(i64),
    /// That was the last attempt.
    GivenUp,
    /// The receiver says that it is gone: nothing more is sent there.
    Gone,
}

/// What follows from an attempt, the nth, and for how many seconds its endpoint is left alone.
///
/// Only 2xx is success: a redirect is none, because nobody looked at where it leads.
pub fn after(at: &Moment<'_>, attempts: i64, reply: Reply) -> (Next, Option<i64>) {
    let rest = match reply {
        Reply::Status(200..=299, _) => return (Next::Delivered, None),
        Reply::Status(410, _) => return (Next::Gone, None),
        Reply::Status(_, Some(seconds)) => Some(seconds.clamp(1, LONGEST_REST)),
        Reply::Status(429 | 502 | 504, None) => Some(OVERLOADED),
        Reply::Status(..) | Reply::None(_) => None,
    };
    let pause = usize::try_from(attempts - 1).ok().and_then(|n| PAUSES.get(n));
    let next = pause.map_or(Next::GivenUp, |seconds| {
        let longest = u32::try_from(seconds * 1000).unwrap_or(u32::MAX) / JITTER;
        let pause = seconds * 1000 + i64::from(at.below(longest));
        Next::Again(pause.max(rest.unwrap_or_default() * 1000))
    });
    (next, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::model::Timestamp;
    use proptest::prelude::*;

    fn at() -> Moment<'static> {
        Moment::new(Timestamp(0), &SystemRng)
    }

    /// H-09: the pauses of the specification's example, each with up to a tenth more: of two hundred, one has half of that.
    #[test]
    fn the_schedule_is_that_of_the_specification() {
        for (n, seconds) in [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400].iter().enumerate() {
            let pauses = (0..200).map(|_| match after(&at(), n as i64 + 1, Reply::Status(500, None)) {
                (Next::Again(pause), None) => pause,
                _ => panic!("attempt {n} is not the last"),
            });
            let pauses: Vec<_> = pauses.collect();
            assert!(pauses.iter().all(|pause| (seconds * 1000..seconds * 1100).contains(pause)), "{n}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause > seconds * 1050), "{n}: {pauses:?}");
        }
        assert_eq!(FAILING, 432_000, "five days");
        assert_eq!(after(&at(), 10, Reply::None("timeout")), (Next::GivenUp, None));
    }

    /// H-08.
    #[test]
    fn success_is_2xx_alone() {
        for status in 100..600 {
            let (next, _) = after(&at(), 1, Reply::Status(status, None));
            assert_eq!(next == Next::Delivered, (200..300).contains(&status), "{status}");
            assert_eq!(next == Next::Gone, status == 410, "{status}");
        }
    }

    /// H-08: who says for how long is left alone so long, within bounds; who has too much, a minute.
    #[test]
    fn a_receiver_that_has_too_much_is_left_alone() {
        for status in [429, 502, 504] {
            assert_eq!(after(&at(), 1, Reply::Status(status, None)), (Next::Again(60_000), Some(60)));
        }
        assert_eq!(after(&at(), 1, Reply::Status(503, Some(120))), (Next::Again(120_000), Some(120)));
        assert_eq!(after(&at(), 1, Reply::Status(429, Some(i64::MAX))), (Next::Again(86_400_000), Some(86_400)));
        assert_eq!(after(&at(), 10, Reply::Status(429, Some(-1))), (Next::GivenUp, Some(1)));
    }

    proptest! {
        #[test]
        fn no_reply_and_no_number_of_attempts_is_too_much(attempts in any::<i64>(), status in any::<u16>(), rest in any::<Option<i64>>()) {
            let attempts = attempts.max(1);
            if let (Next::Again(pause), rest) = after(&at(), attempts, Reply::Status(status, rest)) {
                prop_assert!(attempts < 10 && (5_000..=95_040_000).contains(&pause));
                prop_assert!(rest.is_none_or(|r| (1..=86_400).contains(&r)));
            }
        }
    }
}
