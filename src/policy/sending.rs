//! When a text may go out: gaps within one challenge or enrolment, and budgets of numbers, users, countries and relying parties.

use crate::model::{Budget, BudgetKey, Timestamp};

const DAY_SECONDS: i64 = 86_400;

/// Caps on sending.
#[derive(Clone, Debug)]
pub struct Caps {
    /// Texts to one number in ten minutes.
    pub number_ten_minutes: usize,
    /// Texts to one number in 24 hours.
    pub number_day: usize,
    /// Texts for one user a UTC day, to all numbers together: whoever begins one enrolment after the other stops there.
    pub user_day: i64,
    /// Texts to one country a UTC day.
    pub country_day: i64,
    /// Texts of one relying party a UTC day.
    pub relying_party_day: i64,
}

impl Default for Caps {
    fn default() -> Caps {
        Caps { number_ten_minutes: 3, number_day: 10, user_day: 50, country_day: 2_000, relying_party_day: 10_000 }
    }
}

/// When the next text of the same owner may follow: 30, 60, then 120 seconds after the last.
pub fn next_send(sends: i64, sent_at: Timestamp) -> Timestamp {
    let gap = match sends {
        ..=0 => 0,
        1 => 30,
        2 => 60,
        _ => 120,
    };
    sent_at.plus_seconds(gap)
}

/// The budget after one more send; otherwise when there may be one again.
pub fn draw(key: &BudgetKey, budget: &Budget, caps: &Caps, now: Timestamp) -> Result<Budget, Timestamp> {
    match key {
        BudgetKey::Number(_) => draw_recent(budget, caps, now),
        BudgetKey::User(_) => draw_daily(budget, caps.user_day, now),
        BudgetKey::Country(_) => draw_daily(budget, caps.country_day, now),
        BudgetKey::RelyingParty => draw_daily(budget, caps.relying_party_day, now),
    }
}

/// The budget as if the send at `at` had not been.
pub fn give_back(budget: &Budget, at: Timestamp) -> Budget {
    let mut next = budget.clone();
    if let Some(place) = next.recent.iter().position(|t| *t == at) {
        next.recent.remove(place);
    }
    if next.day == day(at) {
        next.sent = (next.sent - 1).max(0);
    }
    next
}

fn draw_recent(budget: &Budget, caps: &Caps, now: Timestamp) -> Result<Budget, Timestamp> {
    let mut recent: Vec<_> = budget.recent.iter().copied().filter(|t| now < t.plus_seconds(DAY_SECONDS)).collect();
    for (cap, seconds) in [(caps.number_day, DAY_SECONDS), (caps.number_ten_minutes, 600)] {
        let within: Vec<_> = recent.iter().filter(|t| now < t.plus_seconds(seconds)).collect();
        if within.len() >= cap {
            return Err(within[within.len() - cap].plus_seconds(seconds));
        }
    }
    recent.push(now);
    Ok(Budget { recent, ..budget.clone() })
}

fn draw_daily(budget: &Budget, cap: i64, now: Timestamp) -> Result<Budget, Timestamp> {
    // A clock that is a little behind another node's, or was set back over midnight, does not begin the day before anew.
    let today = if budget.day == day(now) + 1 { budget.day } else { day(now) };
    let sent = if budget.day == today { budget.sent } else { 0 };
    if sent >= cap {
        return Err(Timestamp::from_seconds((today + 1) * DAY_SECONDS));
    }
    Ok(Budget { day: today, sent: sent + 1, ..budget.clone() })
}

fn day(at: Timestamp) -> i64 {
    at.seconds().div_euclid(DAY_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn number() -> BudgetKey {
        BudgetKey::Number("h".to_owned())
    }

    /// P-14.
    #[test]
    fn a_number_gets_three_texts_in_ten_minutes() {
        let caps = Caps::default();
        let mut budget = Budget::default();
        for n in 0..3 {
            budget = draw(&number(), &budget, &caps, NOW.plus_seconds(n)).expect("one of the first three");
        }
        assert_eq!(draw(&number(), &budget, &caps, NOW.plus_seconds(10)), Err(NOW.plus_seconds(600)));
        assert!(draw(&number(), &budget, &caps, NOW.plus_seconds(600)).is_ok());
    }

    /// P-14.
    #[test]
    fn a_number_gets_ten_texts_in_a_day() {
        let caps = Caps::default();
        let mut budget = Budget::default();
        for n in 0..10 {
            budget = draw(&number(), &budget, &caps, NOW.plus_seconds(n * 601)).expect("one of the first ten");
        }
        assert_eq!(draw(&number(), &budget, &caps, NOW.plus_seconds(9_000)), Err(NOW.plus_seconds(DAY_SECONDS)));
        let next = draw(&number(), &budget, &caps, NOW.plus_seconds(DAY_SECONDS)).expect("the first has run out");
        assert_eq!(next.recent.len(), 10, "what has run out is not kept");
    }

    #[test]
    fn a_country_starts_anew_with_the_utc_day() {
        let caps = Caps { country_day: 1, ..Caps::default() };
        let key = BudgetKey::Country("LV".to_owned());
        let spent = draw(&key, &Budget::default(), &caps, NOW).expect("the first");
        let midnight = draw(&key, &spent, &caps, NOW).expect_err("the second");
        assert_eq!(midnight.seconds() % DAY_SECONDS, 0);
        assert!(midnight > NOW && midnight <= NOW.plus_seconds(DAY_SECONDS));
        let next = draw(&key, &spent, &caps, midnight).expect("the first of the next day");
        assert!(draw(&key, &next, &caps, midnight.plus_seconds(-1)).is_err(), "by a clock that is behind");
        assert!(
            draw(&key, &next, &caps, midnight.plus_seconds(-DAY_SECONDS - 1)).is_ok(),
            "one that was far ahead is forgotten"
        );
    }

    /// P-17: a gateway that fails costs nothing.
    #[test]
    fn a_send_given_back_leaves_no_trace() {
        let caps = Caps::default();
        let before = draw(&number(), &Budget::default(), &caps, NOW).expect("first");
        let after = draw(&number(), &before, &caps, NOW.plus_seconds(40)).expect("second");
        assert_eq!(give_back(&after, NOW.plus_seconds(40)).recent, before.recent);
        let day = draw(&BudgetKey::RelyingParty, &Budget::default(), &caps, NOW).expect("first");
        assert_eq!(give_back(&day, NOW).sent, 0);
        assert_eq!(give_back(&day, NOW.plus_seconds(-DAY_SECONDS)).sent, 1);
    }

    #[test]
    fn gaps_grow_within_one_challenge() {
        let gaps: Vec<_> = (0..5).map(|sends| (next_send(sends, NOW).0 - NOW.0) / 1000).collect();
        assert_eq!(gaps, [0, 30, 60, 120, 120]);
    }
}
