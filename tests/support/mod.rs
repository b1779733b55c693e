//! What tests share: a fresh database, a real engine on it, a way to speak to it over HTTP, a gateway that takes its texts, and
//! verbs that read like the story that a test tells.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::expect_used, clippy::panic, reason = "in tests a panic is the report")]

pub mod app;
pub mod authenticator;
pub mod child;
pub mod cluster;
pub mod database;
pub mod document;
pub mod gateway;
pub mod load;
pub mod port;
pub mod receiver;
pub mod speak;
pub mod verbs;
pub mod world;

pub use authenticator::Authenticator;
pub use serde_json::{Value, json};
pub use speak::{Answer, Caller};
pub use verbs::{App, Bank, Challenge, Passkey, Phone, User};
pub use world::World;

/// A user of a bank in a world of her own, who has enrolled nothing.
pub async fn ann() -> User {
    World::start().await.bank().await.user("ann")
}

/// The same, with an authenticator app.
pub async fn ann_with_app() -> (User, App) {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    (ann, app)
}

/// Exactly one success, and each other one of these codes.
#[track_caller]
pub fn one_wins(answers: &[Answer], losers: &[&str]) {
    let won = answers.iter().filter(|a| a.is_success()).count();
    assert_eq!(won, 1, "{:?}", answers.iter().map(|a| (a.status, a.code())).collect::<Vec<_>>());
    for answer in answers.iter().filter(|a| !a.is_success()) {
        assert!(losers.contains(&answer.code()), "{} {}", answer.status, answer.body);
    }
}

/// Runs the same call this many times at once, each from its own copy, and gives all answers.
pub async fn at_once<T, F>(copies: usize, call: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..copies).map(|n| tokio::spawn(call(n))).collect();
    let mut answers = Vec::with_capacity(copies);
    for task in tasks {
        answers.push(task.await.expect("a copy that does not panic"));
    }
    answers
}

/// Real time that goes by.
#[derive(Clone, Copy)]
pub struct Stopwatch(countersign::model::Timestamp);

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch(countersign::clock::Clock::now(&countersign::clock::SystemClock))
    }

    pub fn elapsed(self) -> std::time::Duration {
        let milliseconds = Stopwatch::start().0.0 - self.0.0;
        std::time::Duration::from_millis(milliseconds.try_into().unwrap_or_default())
    }
}

/// Waits until this holds, in real time; a minute is longer than a slow machine takes for anything.
pub async fn until(holds: impl Fn() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it never came about");
}
