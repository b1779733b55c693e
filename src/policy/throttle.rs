//! When guessing pauses. A state machine of one user and one code method; its row is in the store, its clock in the moment.
//!
//! Ten wrong proofs in a row pause the method for 30 seconds; after each pause one attempt, and a wrong one doubles the
//! pause, up to an hour. Wrong proofs of challenges and of enrolments add up. A right answer to a challenge clears both; the
//! first proof of a new factor clears only those of enrolments, so enrolling never wipes out guesses against what is there.

use crate::model::{MethodKind, Timestamp};

/// Wrong proofs in a row before the first pause (RFC 4226, 7.3; NIST SP 800-63B 3.2.2).
pub const FREE: i64 = 10;
/// The first pause, in seconds.
pub const FIRST_PAUSE: i64 = 30;
/// The longest pause, in seconds.
pub const LONGEST_PAUSE: i64 = 3600;

/// Where a guess was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In a challenge.
    Challenge,
    /// In the first proof of a pending factor.
    Enrolment,
}

/// The state of one user and method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Changes with each write; 0 where there is no row yet.
    pub version: i64,
    /// Wrong proofs in challenges since the last right one.
    pub wrong: i64,
    /// Wrong proofs in enrolments since the last right one.
    pub enrolment_wrong: i64,
    /// No verdict before this time.
    pub paused_until: Option<Timestamp>,
}

/// Whether guesses of this method are counted: a signature cannot be guessed, and neither can 80 random bits.
pub fn applies(kind: MethodKind) -> bool {
    matches!(kind, MethodKind::Totp | MethodKind::Sms)
}

impl Throttle {
    /// The end of the pause, if one is on.
    pub fn paused(&self, now: Timestamp) -> Option<Timestamp> {
        self.paused_until.filter(|until| now < *until)
    }

    /// The state after a wrong proof.
    pub fn after_wrong(&self, side: Side, now: Timestamp) -> Throttle {
        let mut next = self.clone();
        match side {
            Side::Challenge => next.wrong += 1,
            Side::Enrolment => next.enrolment_wrong += 1,
        }
        next.paused_until = pause(next.wrong + next.enrolment_wrong).map(|seconds| now.plus_seconds(seconds));
        next
    }

    /// The state after a right proof. The version still moves on, so a right proof cannot slip past a pause that began meanwhile.
    pub fn after_right(&self, side: Side) -> Throttle {
        let mut next = self.clone();
        next.enrolment_wrong = 0;
        if side == Side::Challenge {
            next.wrong = 0;
        }
        next.paused_until = None;
        next
    }

    /// The state after a support unlock.
    pub fn unlocked(&self) -> Throttle {
        Throttle { version: self.version, ..Throttle::default() }
    }
}

/// The pause in seconds after this many wrong proofs in a row.
fn pause(wrong: i64) -> Option<i64> {
    let doublings = u32::try_from(wrong - FREE).ok()?;
    Some(FIRST_PAUSE.checked_shl(doublings).filter(|s| (1..LONGEST_PAUSE).contains(s)).unwrap_or(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn after(wrong: usize) -> Throttle {
        (0..wrong).fold(Throttle::default(), |t, _| t.after_wrong(Side::Challenge, NOW))
    }

    ///
    #[test]
    fn the_tenth_wrong_proof_pauses_and_each_further_one_doubles_up_to_an_hour() {
        assert_eq!(after(9).paused(NOW), None);
        let pauses: Vec<_> = (10..=19).map(|n| after(n).paused(NOW).map(|until| (until.0 - NOW.0) / 1000)).collect();
        let expected = [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600].map(Some);
        assert_eq!(pauses, expected);
        assert_eq!(after(200).paused(NOW), Some(NOW.plus_seconds(3600)));
    }

    #[test]
    fn a_pause_ends_at_its_time_and_not_before() {
        let paused = after(10);
        assert!(paused.paused(Timestamp(NOW.0 + 29_999)).is_some());
        assert!(paused.paused(Timestamp(NOW.0 + 30_000)).is_none());
    }

    /// enrolments count too.
    #[test]
    fn guesses_in_challenges_and_enrolments_add_up() {
        let mixed = (0..5).fold(after(5), |t, _| t.after_wrong(Side::Enrolment, NOW));
        assert!(mixed.paused(NOW).is_some());
    }

    ///
    #[test]
    fn the_owner_clears_all_and_an_enrolment_only_its_own_side() {
        let mixed = (0..4).fold(after(4), |t, _| t.after_wrong(Side::Enrolment, NOW));
        assert_eq!(mixed.after_right(Side::Challenge), Throttle { version: mixed.version, ..Throttle::default() });
        assert_eq!(mixed.after_right(Side::Enrolment).wrong, 4);
        assert_eq!(mixed.after_right(Side::Enrolment).enrolment_wrong, 0);
    }

    #[test]
    fn methods_that_cannot_be_guessed_are_never_paused() {
        assert!(!applies(MethodKind::Webauthn));
        assert!(!applies(MethodKind::RecoveryCode));
    }

    proptest! {
        /// However the tries fall, an attacker without a right proof gets few verdicts: 10 at once, then one a pause.
        #[test]
        fn verdicts_in_a_day_stay_bounded(gaps in proptest::collection::vec(0i64..7200, 1..400)) {
            let mut now = NOW;
            let mut state = Throttle::default();
            let mut verdicts = 0;
            let end = NOW.plus_seconds(86_400);
            for gap in gaps.iter().cycle().take(20_000) {
                now = now.plus_seconds(*gap);
                if now >= end { break; }
                if state.paused(now).is_none() {
                    verdicts += 1;
                    state = state.after_wrong(Side::Challenge, now);
                }
            }
            prop_assert!(verdicts <= 10 + 7 + 24);
        }

        #[test]
        fn pauses_never_shrink_while_proofs_stay_wrong(n in 10usize..60) {
            prop_assert!(after(n + 1).paused_until >= after(n).paused_until);
        }
    }
}
