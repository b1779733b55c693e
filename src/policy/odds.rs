//! What blind guessing comes to under the budgets: the chance that somebody who knows nothing of the codes hits one.

use super::throttle::{DAILY, HOLD, cost};

/// The chances against one lane of a user with so many authenticator apps.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    /// Active authenticator apps.
    pub apps: usize,
    /// Of one guess.
    pub guess: f64,
    /// Verdicts in the worst 24 hours, and the chance that one of them is right.
    pub day: (i64, f64),
    /// In the worst year, with an owner who succeeds often enough that no hold ever begins.
    pub year: (i64, f64),
    /// Between two successes of the owner.
    pub hold: (i64, f64),
}

/// The odds where `right` of `all` codes of an app are right at a time.
pub fn odds(apps: usize, right: i64, all: i64) -> Odds {
    let guess = right as f64 * apps as f64 / all as f64;
    let over = |tokens: i64| {
        let guesses = tokens / cost(apps);
        (guesses, 1.0 - (1.0 - guess).powi(i32::try_from(guesses).unwrap_or(i32::MAX)))
    };
    Odds { apps, guess, day: over(2 * DAILY), year: over(DAILY + 365 * DAILY), hold: over(HOLD) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::throttle::MOST_APPS;

    /// at most 1e-4 a day and 3e-4 between two successes of the owner, whatever the number of apps.
    #[test]
    fn a_blind_hit_stays_as_unlikely_as_promised() {
        for apps in 1..=MOST_APPS {
            let odds = odds(apps, 2, 1_000_000);
            assert!(odds.day.1 <= 1e-4, "{odds:?}");
            assert!(odds.hold.1 <= 3e-4, "{odds:?}");
            assert!(odds.year.1 <= 0.02, "{odds:?}");
            assert!(odds.day.0 * apps as i64 <= 50 && odds.hold.0 * apps as i64 <= 100);
        }
    }

    #[test]
    fn the_figures_of_one_app_are_those_that_are_worked_out_by_hand() {
        let one = odds(1, 2, 1_000_000);
        assert_eq!((one.day.0, one.year.0, one.hold.0), (50, 9150, 100));
        assert!((one.hold.1 - 2e-4).abs() < 1e-7 && (one.guess - 2e-6).abs() < 1e-12);
        assert!((odds(3, 2, 1_000_000).guess - 6e-6).abs() < 1e-12, "each app makes one more code right");
    }
}
