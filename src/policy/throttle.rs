//! When guessing pauses, and when it stops. A state machine of one user and one lane; its row is in the store, its clock in the moment.
//!
//! Guesses are counted in lanes: one for everybody who never passed before, one for first proofs of pending factors, one for
//! each device that passed. So strangers pause strangers and never the owner's own browser. In each lane three bounds hold:
//! ten wrong proofs of a method in a row pause that method for 30 seconds, doubling up to an hour; a bucket of 25 wrong verdicts
//! over all methods refills 25 a day; and 100 wrong verdicts between two successes of the owner begin a hold. With several
//! authenticator apps a wrong verdict costs as many tokens as there are apps, because each of them makes one more code right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{MethodKind, Timestamp};

/// Wrong proofs in a row before the first pause (RFC 4226, 7.3; NIST SP 800-63B 3.2.2).
pub const FREE: i64 = 10;
/// The first pause, in seconds.
pub const FIRST_PAUSE: i64 = 30;
/// The longest pause, in seconds.
pub const LONGEST_PAUSE: i64 = 3600;
/// Tokens of the bucket, and how many come back in a day.
pub const DAILY: i64 = 25;
/// Tokens spent between two successes of the owner before the hold (NIST SP 800-63B 3.2.2: at most 100).
pub const HOLD: i64 = 100;
/// What a caller is told to wait while a hold is on, in seconds. Waiting does not end it.
pub const HOLD_WAIT: i64 = 86_400;
/// Active authenticator apps of a user.
pub const MOST_APPS: usize = 5;
/// How long a device stays known after its last success, in seconds.
pub const DEVICE_LIFE: i64 = 180 * 86_400;
/// Known devices of a user; the one unused for longest makes room.
pub const MOST_DEVICES: usize = 10;

/// The lane of everybody who never passed.
pub const STRANGERS: &str = "";
/// The lane of first proofs of pending factors.
pub const ENROLMENT: &str = "enrolment";

/// Milliseconds in which one token comes back.
const TOKEN: i64 = 86_400_000 / DAILY;

/// Why no verdict is given now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not before this time.
    Until(Timestamp),
    /// Not before another of the user's factors was right, or somebody let the user go.
    Hold,
}

/// The state of one user and lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttle {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pauses: BTreeMap<MethodKind, Pause>,
    /// When the bucket would be full again: all that needs to be known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    full_at: Option<Timestamp>,
    /// Tokens spent since the owner's last success.
    since: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_at: Option<Timestamp>,
    /// The owner's last success in this lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    succeeded_at: Option<Timestamp>,
    /// The last one by a factor whose codes are not guessed: it ends holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    freed_at: Option<Timestamp>,
    /// What counts towards this lane's pauses though it stands in another; see [`Throttle::together`].
    #[serde(skip)]
    elsewhere: BTreeMap<MethodKind, Pause>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pause {
    wrong: i64,
    until: Option<Timestamp>,
}

/// Whether guesses of this method are counted: a signature cannot be guessed, and neither can 80 random bits.
pub fn applies(kind: MethodKind) -> bool {
    matches!(kind, MethodKind::Totp | MethodKind::Sms)
}

/// What a wrong verdict costs with so many active authenticator apps.
pub fn cost(apps: usize) -> i64 {
    apps.clamp(1, MOST_APPS) as i64
}

/// Whether a device that last passed then is still known.
pub fn is_known(seen_at: Timestamp, now: Timestamp) -> bool {
    now < seen_at.plus_seconds(DEVICE_LIFE)
}

impl Throttle {
    /// What keeps a proof of this method from being judged.
    pub fn stop(&self, kind: MethodKind, cost: i64, now: Timestamp) -> Option<Stop> {
        if self.held_at.is_some() {
            return Some(Stop::Hold);
        }
        let until = |pauses: &BTreeMap<MethodKind, Pause>| pauses.get(&kind).and_then(|pause| pause.until);
        let pause = until(&self.pauses).max(until(&self.elsewhere));
        pause.max(self.token_at(cost)).filter(|until| now < *until).map(Stop::Until)
    }

    /// Until when some method gets no verdict, where that is so now; of a hold, for ever.
    pub fn stopped_until(&self, cost: i64, now: Timestamp) -> Option<Timestamp> {
        if self.held_at.is_some() {
            return Some(Timestamp(i64::MAX));
        }
        let pause = self.pauses.values().filter_map(|pause| pause.until).max();
        pause.max(self.token_at(cost)).filter(|until| now < *until)
    }

    /// When the bucket holds what a wrong verdict costs.
    fn token_at(&self, cost: i64) -> Option<Timestamp> {
        self.full_at.map(|full| Timestamp(full.0 - (DAILY - cost) * TOKEN))
    }

    /// Methods of which wrong proofs are counted.
    pub fn counted(&self) -> impl Iterator<Item = MethodKind> {
        self.pauses.keys().copied()
    }

    /// Whether the owner's next success has something to end.
    pub fn is_counting(&self) -> bool {
        self.since > 0 || self.held_at.is_some()
    }

    /// The state after a wrong proof.
    pub fn after_wrong(&self, kind: MethodKind, cost: i64, now: Timestamp) -> Throttle {
        let mut next = self.clone();
        let elsewhere = self.elsewhere.get(&kind).map_or(0, |pause| pause.wrong);
        let pause = next.pauses.entry(kind).or_default();
        pause.wrong += 1;
        pause.until = seconds_of_pause(pause.wrong + elsewhere).map(|seconds| now.plus_seconds(seconds));
        next.full_at = Some(Timestamp(next.full_at.max(Some(now)).map_or(now.0, |t| t.0) + cost * TOKEN));
        next.since += cost;
        next.wrong_at = Some(now);
        next.held_at = (next.since + cost > HOLD).then_some(now);
        next
    }

    /// The state after a right proof of the owner: it clears the pause of its own method and ends what was counted since the last
    /// one, and never fills the bucket.
    pub fn after_right(&self, kind: MethodKind, now: Timestamp) -> Throttle {
        let mut next = self.after_enrolled(kind);
        next.succeeded_at = Some(now);
        if !applies(kind) {
            next.freed_at = Some(now);
        }
        next
    }

    /// The state of a device that was last seen at this time: by a success of the owner, which made it known and left nothing else.
    #[must_use]
    pub fn known_since(mut self, seen_at: Option<Timestamp>) -> Throttle {
        self.succeeded_at = self.succeeded_at.max(seen_at);
        self
    }

    /// The state after the first proof of a pending factor. It is no success of the owner: other lanes do not hear of it.
    pub fn after_enrolled(&self, kind: MethodKind) -> Throttle {
        let mut next = self.clone();
        next.pauses.remove(&kind);
        next.since = 0;
        next.held_at = None;
        next
    }

    /// The state with the pauses of another lane on top: guesses of challenges and of enrolments add up. What the owner's success in
    /// this lane has ended there, counts no more.
    #[must_use]
    pub fn together(mut self, other: &Throttle) -> Throttle {
        if other.wrong_at >= self.succeeded_at {
            self.elsewhere = other.pauses.clone();
        }
        self
    }

    /// The state in the light of what the owner proved in another lane. A hold is ended there by another factor alone.
    #[must_use]
    pub fn beside(mut self, other: &Throttle) -> Throttle {
        let over = match self.held_at {
            Some(held) => other.freed_at >= Some(held),
            None => other.succeeded_at > self.wrong_at,
        };
        if over {
            self.since = 0;
            self.held_at = None;
        }
        self
    }
}

/// The pause in seconds after this many wrong proofs in a row.
fn seconds_of_pause(wrong: i64) -> Option<i64> {
    let doublings = u32::try_from(wrong - FREE).ok()?;
    Some(FIRST_PAUSE.checked_shl(doublings).filter(|s| (1..LONGEST_PAUSE).contains(s)).unwrap_or(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const DAY: i64 = 86_400;
    use MethodKind::{RecoveryCode, Sms, Totp, Webauthn};

    fn after(wrong: usize) -> Throttle {
        (0..wrong).fold(Throttle::default(), |t, _| t.after_wrong(Totp, 1, NOW))
    }

    fn wait(state: &Throttle, kind: MethodKind, now: Timestamp) -> Option<i64> {
        match state.stop(kind, 1, now)? {
            Stop::Until(until) => Some((until.0 - now.0) / 1000),
            Stop::Hold => Some(i64::MAX),
        }
    }

    /// As patient as can be: a guess at each first moment at which there is a verdict. Gives the times of all verdicts.
    fn patient(mut now: Timestamp, cost: i64, most: usize) -> (Vec<Timestamp>, Throttle) {
        let (mut state, mut times) = (Throttle::default(), Vec::new());
        while times.len() < most {
            match state.stop(Totp, cost, now) {
                None => {
                    times.push(now);
                    state = state.after_wrong(Totp, cost, now);
                }
                Some(Stop::Until(until)) => now = until,
                Some(Stop::Hold) => break,
            }
        }
        (times, state)
    }

    ///
    #[test]
    fn the_tenth_wrong_proof_pauses_and_each_further_one_doubles_up_to_an_hour() {
        assert_eq!(wait(&after(9), Totp, NOW), None);
        assert_eq!(wait(&after(9), Totp, Timestamp(NOW.0 - 1000)), None, "nor for one whose request began before");
        let pauses: Vec<_> = (10..=19).map(|n| after(n).pauses[&Totp].until.map(|t| t.0 - NOW.0)).collect();
        let expected = [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600].map(|s| Some(s * 1000));
        assert_eq!(pauses, expected);
        assert_eq!(seconds_of_pause(200), Some(3600));
    }

    #[test]
    fn a_pause_ends_at_its_time_and_not_before() {
        assert!(wait(&after(10), Totp, Timestamp(NOW.0 + 29_999)).is_some());
        assert!(wait(&after(10), Totp, Timestamp(NOW.0 + 30_000)).is_none());
    }

    /// a pause is of its method alone, the bucket of all.
    #[test]
    fn a_pause_concerns_its_method_and_the_bucket_all() {
        assert_eq!(wait(&after(10), Sms, NOW), None);
        let spent = (0..15).fold(after(10), |t, _| t.after_wrong(Sms, 1, NOW));
        let token = TOKEN / 1000;
        assert_eq!(wait(&spent, Sms, NOW), Some(token));
        assert_eq!(wait(&spent, Sms, NOW.plus_seconds(token)), None);
        let cleared = spent.after_right(Totp, NOW).after_right(Sms, NOW).after_right(Webauthn, NOW);
        assert_eq!(wait(&cleared, Totp, NOW), Some(token), "no success fills the bucket");
    }

    ///
    #[test]
    fn a_right_proof_clears_the_pause_of_its_own_method_alone() {
        let both = (0..10).fold(after(10), |t, _| t.after_wrong(Sms, 1, NOW));
        let cleared = both.after_right(Totp, NOW);
        assert_eq!((wait(&cleared, Totp, NOW), wait(&cleared, Sms, NOW)), (None, Some(30)));
    }

    /// the hold, and the three things that end it.
    #[test]
    fn a_hold_begins_at_a_hundred_and_ends_by_another_factor_alone() {
        let (times, held) = patient(NOW, 1, 1000);
        assert_eq!(times.len() as i64, HOLD);
        let late = NOW.plus_seconds(1000 * DAY);
        assert_eq!(held.stop(Totp, 1, late), Some(Stop::Hold));
        assert_eq!(held.stop(Sms, 1, late), Some(Stop::Hold));
        let elsewhere = |kind, at| Throttle::default().after_right(kind, at);
        assert_eq!(held.clone().beside(&elsewhere(Totp, late)).stop(Totp, 1, late), Some(Stop::Hold));
        assert_eq!(held.clone().beside(&elsewhere(Webauthn, NOW)).stop(Totp, 1, late), Some(Stop::Hold), "before it");
        for kind in [Webauthn, RecoveryCode] {
            assert_eq!(held.after_right(kind, late).stop(Totp, 1, late), None);
            assert_eq!(held.clone().beside(&elsewhere(kind, late)).stop(Totp, 1, late), None);
        }
        assert_eq!(held.after_right(Webauthn, late).full_at, held.full_at, "not the daily budget");
    }

    /// A success of the owner in any lane begins the count to the hold anew; an enrolment does so in its own alone.
    #[test]
    fn what_is_counted_towards_the_hold_ends_with_the_owners_next_success() {
        let counted = after(7);
        let later = NOW.plus_seconds(1);
        assert_eq!(counted.clone().beside(&Throttle::default().after_right(Totp, later)).since, 0);
        assert_eq!(
            counted.clone().beside(&Throttle::default().after_right(Totp, NOW)).since,
            7,
            "not certainly after it"
        );
        assert_eq!(counted.clone().beside(&Throttle::default().after_enrolled(Totp)).since, 7);
        assert_eq!(counted.after_right(Sms, NOW).since, 0);
    }

    /// guesses of challenges and of enrolments add up to one pause, and each side clears its own.
    #[test]
    fn pauses_of_two_lanes_add_up() {
        let (later, beginning) = (NOW.plus_seconds(1), Throttle::default());
        let sixth = after(5).together(&after(4)).after_wrong(Totp, 1, NOW);
        assert_eq!(wait(&sixth, Totp, NOW), Some(30), "six here and four there");
        assert_eq!(wait(&after(5).together(&after(4)), Totp, NOW), None);
        assert_eq!(
            wait(&beginning.clone().together(&after(10)), Totp, NOW),
            Some(30),
            "the pause that began there holds here"
        );
        assert_eq!(wait(&beginning.clone().together(&after(10)), Sms, NOW), None);
        let enrolled = after(10).after_enrolled(Totp).together(&after(9));
        assert_eq!(
            wait(&enrolled.after_wrong(Totp, 1, NOW), Totp, NOW),
            Some(30),
            "an enrolment clears only its own side"
        );
        let proved = after(9).after_right(Totp, later).together(&after(9));
        assert_eq!(wait(&proved.after_wrong(Totp, 1, later), Totp, later), None, "the owner's success ends both");
        let text = serde_json::to_string(&beginning.together(&after(10))).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Throttle>(&text).expect("it reads"),
            Throttle::default(),
            "kept in one lane only"
        );
    }

    #[test]
    fn methods_that_cannot_be_guessed_are_never_paused() {
        assert!(!applies(Webauthn));
        assert!(!applies(RecoveryCode));
    }

    /// What `paused_until` of a lane says: the last pause of any method, or the bucket's next token, or for ever.
    #[test]
    fn a_lane_is_stopped_until_its_last_pause_or_next_token() {
        assert_eq!(Throttle::default().stopped_until(1, NOW), None);
        assert_eq!(after(9).stopped_until(1, NOW), None, "nine are free");
        let later = NOW.plus_seconds(7);
        let both = (0..10).fold(after(10), |t, _| t.after_wrong(Sms, 1, later));
        let end = later.plus_seconds(FIRST_PAUSE);
        assert_eq!(both.stopped_until(1, later), Some(end));
        assert_eq!(both.stopped_until(1, Timestamp(end.0 - 1)), Some(end));
        assert_eq!(both.stopped_until(1, end), None, "a pause that is over is none");
        let spent = (0..15).fold(after(10), |t, _| t.after_wrong(Sms, 1, NOW));
        assert_eq!(spent.stopped_until(1, NOW), Some(Timestamp(NOW.0 + TOKEN)));
        assert_eq!(spent.stopped_until(5, NOW), Some(Timestamp(NOW.0 + 5 * TOKEN)));
        let held = (0..HOLD).fold(Throttle::default(), |t, _| t.after_wrong(Totp, 1, NOW));
        assert_eq!(held.stopped_until(1, NOW), Some(Timestamp(i64::MAX)));
    }

    #[test]
    fn a_lane_counts_from_the_first_wrong_proof_to_the_next_right_one() {
        let state = after(1).after_wrong(Sms, 1, NOW);
        assert_eq!(state.counted().collect::<Vec<_>>(), [Totp, Sms]);
        assert!(!Throttle::default().is_counting() && state.is_counting());
        assert!(!state.after_right(Totp, NOW).is_counting());
        // A hold counts too, also one that is read without what was counted.
        let held = Throttle { held_at: Some(NOW), ..Throttle::default() };
        assert!(held.is_counting());
    }

    #[test]
    fn a_device_is_known_for_half_a_year() {
        assert!(is_known(NOW, NOW.plus_seconds(DEVICE_LIFE - 1)));
        assert!(!is_known(NOW, NOW.plus_seconds(DEVICE_LIFE)));
        assert_eq!(DEVICE_LIFE, 15_552_000);
    }

    #[test]
    fn a_state_reads_as_it_was_written_and_nothing_reads_as_untouched() {
        let state = after(11).after_right(Webauthn, NOW);
        let text = serde_json::to_string(&state).expect("JSON");
        assert_eq!(serde_json::from_str::<Throttle>(&text).expect("it reads"), state);
        assert_eq!(serde_json::from_str::<Throttle>("{}").expect("it reads"), Throttle::default());
    }

    /// with more apps a guess is right more often, and there are as many fewer of it.
    #[test]
    fn apps_divide_the_budget() {
        for (apps, daily, hold) in [(0, 25, 100), (1, 25, 100), (2, 12, 50), (3, 8, 33), (5, 5, 20), (9, 5, 20)] {
            let cost = cost(apps);
            let at_once = (0..).map_while(|n| {
                let state =
                    (0..n).fold(Throttle::default(), |t, k| t.after_wrong(if k < 9 { Totp } else { Sms }, cost, NOW));
                let open = [Totp, Sms].iter().any(|kind| match state.stop(*kind, cost, NOW) {
                    None => true,
                    Some(Stop::Until(until)) => until <= NOW.plus_seconds(LONGEST_PAUSE / 2),
                    Some(Stop::Hold) => false,
                });
                open.then_some(n)
            });
            assert_eq!(at_once.count() as i64, daily, "{apps}");
            assert_eq!(patient(NOW, cost, 1000).0.len(), hold, "{apps}");
        }
    }

    proptest! {
        /// However guesses fall and whatever the owner does between them: at most 50 verdicts in any 24 hours, fewer with more
        /// apps, and never more than 100 between two successes of the owner.
        #[test]
        fn no_schedule_of_guesses_gets_more(
            steps in proptest::collection::vec((0i64..7200, 0u8..100), 1..400),
            apps in 0usize..7,
            rounds in 1usize..20,
        ) {
            let (cost, mut now) = (cost(apps), NOW);
            let (mut strangers, mut known) = (Throttle::default(), Throttle::default());
            let (mut verdicts, mut since): (Vec<Timestamp>, i64) = (Vec::new(), 0);
            for (gap, dice) in steps.iter().cycle().take(steps.len() * rounds) {
                now = now.plus_seconds(*gap);
                strangers = strangers.beside(&known);
                match dice {
                    // The owner, now and then, by any method in either lane.
                    0 => { strangers = strangers.after_right(Webauthn, now); since = 0; }
                    1 => { known = known.after_right(RecoveryCode, now); since = 0; }
                    2 if strangers.stop(Totp, cost, now).is_none() => { strangers = strangers.after_right(Totp, now); since = 0; }
                    3 => { known = known.after_right(Sms, now); since = 0; }
                    _ => {
                        let kind = if dice % 2 == 0 { Totp } else { Sms };
                        if strangers.stop(kind, cost, now).is_none() {
                            strangers = strangers.after_wrong(kind, cost, now);
                            verdicts.push(now);
                            since += 1;
                        }
                    }
                }
                prop_assert!(since * cost <= HOLD, "{since}");
            }
            for (n, first) in verdicts.iter().enumerate() {
                let within = verdicts[n..].iter().take_while(|t| **t < first.plus_seconds(DAY)).count() as i64;
                prop_assert!(within * cost <= 2 * DAILY, "{within} in a day");
            }
        }

        /// The worst that patience reaches, from any start.
        #[test]
        fn patience_gets_no_more_than_fifty_a_day(start in 0i64..10 * DAY, apps in 1usize..6) {
            let cost = cost(apps);
            let (times, _) = patient(NOW.plus_seconds(start), cost, 400);
            for (n, first) in times.iter().enumerate() {
                let within = times[n..].iter().take_while(|t| **t < first.plus_seconds(DAY)).count() as i64;
                prop_assert!(within * cost <= 2 * DAILY);
            }
        }

        #[test]
        fn pauses_never_shrink_while_proofs_stay_wrong(n in 10usize..60) {
            prop_assert!(after(n + 1).pauses[&Totp].until >= after(n).pauses[&Totp].until);
        }
    }
}
