//! `kill -9` of the engine at random under load, again and again: what it has answered stands, and no code is taken twice
//! (issue 3.3). `tests/kill.sh` runs the long form.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::database::Scratch;
use crate::support::verbs::text;
use crate::support::{Answer, App, Bank, Stopwatch, User, Value, World, json};

const PEOPLE: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_kill_and_no_code_is_taken_twice() {
    for scratch in Scratch::all().await {
        println!("{}", kill(scratch, 3).await);
    }
}

/// As often as `COUNTERSIGN_KILL_ROUNDS` says, on each database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: tests/kill.sh"]
async fn killed_many_times() {
    let rounds = std::env::var("COUNTERSIGN_KILL_ROUNDS").map_or(200, |n| n.parse().expect("a number of rounds"));
    println!("SQLite: {}", kill(Scratch::sqlite(), rounds).await);
    let cluster = Cluster::make("");
    cluster.up();
    println!("PostgreSQL: {}", kill(Scratch::on(&cluster.url(cluster.port)), rounds).await);
}

/// What the engine said before it was killed, or left unsaid.
enum Said {
    /// This challenge was opened.
    Opened(String),
    /// A wrong guess left so many attempts.
    Charged(String, i64),
    /// A right answer to this challenge earned this session.
    Verified(Value, String, Value),
    /// The session was revoked.
    Revoked(Value),
    /// The session's right was used.
    Consumed(Value),
    /// Nothing came back when the session was to end: it may have.
    Ending(Value),
    /// The recovery code was taken.
    Redeemed(Value),
    /// The factor of this user is active.
    Activated(String, String),
    /// Nothing came back for this answer, at creation: it may stand or not.
    Unsaid(Value, Option<i64>),
}

#[derive(Default)]
struct Counts {
    rounds: usize,
    opened: usize,
    charged: usize,
    verified: usize,
    revoked: usize,
    consumed: usize,
    redeemed: usize,
    activated: usize,
    unsaid_stood: usize,
    unsaid_not: usize,
}

impl Counts {
    fn has_all(&self) -> bool {
        let all = [self.charged, self.verified, self.revoked, self.consumed, self.redeemed, self.activated];
        all.iter().all(|count| *count > 0)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills; of what was answered nothing was lost: {} challenges, {} wrong guesses, {} verifications, \
             {} revocations, {} consumptions, {} recovery codes, {} enrolments; of {} answers that were cut off {} stood \
             and {} did not; no code was taken twice",
            self.rounds,
            self.opened,
            self.charged,
            self.verified,
            self.revoked,
            self.consumed,
            self.redeemed,
            self.activated,
            self.unsaid_stood + self.unsaid_not,
            self.unsaid_stood,
            self.unsaid_not
        )
    }
}

/// Somebody who verifies, and what was said of it.
struct Person {
    user: User,
    app: App,
    /// Steps whose code was taken, ever.
    taken: HashSet<i64>,
    codes: Vec<Value>,
    said: Vec<Said>,
    turn: usize,
    /// Turns that have ended.
    ended: Arc<AtomicUsize>,
}

async fn kill(scratch: Scratch, rounds: usize) -> Counts {
    let world = World::process(scratch, &[]).await;
    let bank = world.bank().await;
    let (mut people, set_up) = (Vec::new(), Stopwatch::start());
    for n in 0..PEOPLE {
        let user = bank.user(&format!("person-{n}"));
        let app = user.enrol_totp().await;
        let (taken, codes, said, ended) = (HashSet::new(), Vec::new(), Vec::new(), Arc::default());
        people.push(Person { user, app, taken, codes, said, turn: 0, ended });
    }
    let turns: Vec<Arc<AtomicUsize>> = people.iter().map(|person| Arc::clone(&person.ended)).collect();
    // A life is some calls long, however slow they are.
    let longest = 500.max(3 * set_up.elapsed().as_millis() as u64);
    let mut counts = Counts::default();
    while counts.rounds < rounds || !counts.has_all() {
        counts.rounds += 1;
        assert!(counts.rounds < rounds + 50, "too little was answered to judge by: {counts}");
        let tasks: Vec<_> = people.drain(..).map(|person| tokio::spawn(person.lives())).collect();
        let clock = {
            let (world, turns) = (Arc::clone(&world), turns.clone());
            tokio::spawn(async move {
                let ended = || turns.iter().map(|turns| turns.load(Ordering::Relaxed)).collect::<Vec<_>>();
                loop {
                    world.wait(30);
                    // A code counts for two steps only, however long a call takes: the next step comes when everybody has had a
                    // turn in this.
                    let before = ended();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    while !ended().iter().zip(&before).all(|(now, before)| now > before) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            })
        };
        tokio::time::sleep(Duration::from_millis(20 + random() % longest)).await;
        world.kill();
        clock.abort();
        for task in tasks {
            people.push(task.await.expect("no rule was broken"));
        }
        world.start_again().await;
        for person in &mut people {
            person.judges(&mut counts).await;
        }
    }
    whole(&world).await;
    counts
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// A SQLite file is in order by SQLite's own check; PostgreSQL was not the one that was killed.
async fn whole(world: &World) {
    if world.scratch.is_sqlite() {
        let copy = world.scratch.folder().join("copy.db");
        let ended = world.command(&["backup", copy.to_str().expect("UTF-8")]);
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        let mut conn =
            <sqlx::SqliteConnection as sqlx::Connection>::connect(&copy.display().to_string()).await.expect("it opens");
        let check: String = sqlx::query_scalar("pragma integrity_check").fetch_one(&mut conn).await.expect("an answer");
        assert_eq!(check, "ok");
    }
}

impl Person {
    fn bank(&self) -> &Bank {
        &self.user.bank
    }

    /// Uses the engine until it is killed.
    async fn lives(mut self) -> Person {
        while self.turns().await.is_some() {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        self
    }

    /// `None` once an answer fails to come.
    async fn turns(&mut self) -> Option<()> {
        let bank = self.bank().clone();
        // However short a life is, the next one does something else.
        self.turn += 1;
        match self.turn % 4 {
            0 => self.enrols(&bank).await,
            1 => self.redeems(&bank).await,
            _ => self.verifies(&bank).await,
        }
    }

    async fn verifies(&mut self, bank: &Bank) -> Option<()> {
        let step = bank.world.now() / 30;
        if self.taken.contains(&step) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            return Some(());
        }
        let opened = bank.attempt("/v1/challenges", Some(json!({"user_id": self.user.id}))).await?.is(201);
        let path = format!("/v1/challenges/{}", text(&opened["id"]));
        self.said.push(Said::Opened(path.clone()));
        let verify = format!("{path}/verify");
        if self.turn.is_multiple_of(2) {
            let missed = bank.attempt(&verify, Some(self.app.miss())).await?;
            if is_late(&missed) {
                self.said.push(Said::Charged(path.clone(), missed["attempts_left"].as_i64().expect("a number")));
            }
        }
        let answer = json!({"type": "totp", "code": self.app.code_at(step)});
        let Some(verdict) = bank.attempt(&verify, Some(answer.clone())).await else {
            self.said.push(Said::Unsaid(answer, Some(step)));
            return None;
        };
        if !verdict.is_success() {
            is_late(&verdict);
            return Some(());
        }
        assert!(self.taken.insert(step), "a code was taken twice");
        let token = verdict["session"]["token"].clone();
        self.said.push(Said::Verified(answer, path, token.clone()));
        let (path, body) = match self.turn % 3 {
            0 => ("/v1/sessions/introspect".to_owned(), Some(json!({"token": token, "consume": true}))),
            1 => (format!("/v1/sessions/{}", text(&verdict["session"]["id"])), None),
            _ => return Some(()),
        };
        let consumes = body.is_some();
        let Some(done) = bank.attempt(&path, body).await else {
            self.said.push(Said::Ending(token));
            return None;
        };
        assert!(done.is_success(), "{}", done.code());
        self.said.push(if consumes { Said::Consumed(token) } else { Said::Revoked(token) });
        Some(())
    }

    async fn redeems(&mut self, bank: &Bank) -> Option<()> {
        let Some(code) = self.codes.pop() else {
            let made = bank.attempt(&self.user.path("/recovery-codes"), Some(json!({}))).await?.is(201);
            self.codes = made["codes"].as_array().expect("codes").clone();
            // The former set is gone, and what was said of it.
            self.said.retain(|said| !matches!(said, Said::Redeemed(_)));
            return Some(());
        };
        let answer = json!({"type": "recovery_code", "code": code});
        match bank.attempt("/v1/challenges", Some(json!({"user_id": self.user.id, "answer": answer}))).await {
            None => {
                self.said.push(Said::Unsaid(answer, None));
                None
            }
            Some(verdict) => {
                verdict.is(200);
                self.said.push(Said::Redeemed(answer));
                Some(())
            }
        }
    }

    async fn enrols(&mut self, bank: &Bank) -> Option<()> {
        let user = bank.user(&format!("{}-{}", self.user.id, self.turn));
        let begun = bank.attempt(&user.path("/factors"), Some(json!({"type": "totp"}))).await?.is(201);
        let secret = crate::support::app::base32(begun["totp"]["secret"].as_str().expect("a secret"));
        let code = crate::support::app::totp(&secret, bank.world.now() / 30);
        let id = text(&begun["id"]);
        let activate = user.path(&format!("/factors/{id}/activate"));
        let done = bank.attempt(&activate, Some(json!({"code": code}))).await?;
        if !done.is_success() {
            is_late(&done);
            return Some(());
        }
        self.said.push(Said::Activated(user.id, id));
        Some(())
    }

    /// Holds the engine that came back to what the one before it has said.
    async fn judges(&mut self, counts: &mut Counts) {
        let bank = self.bank().clone();
        let mut ended = HashSet::new();
        let mut redeemed = 0;
        for said in std::mem::take(&mut self.said).into_iter().rev() {
            match said {
                Said::Opened(path) => {
                    bank.get(&path).await.is(200);
                    counts.opened += 1;
                }
                Said::Charged(path, left) => {
                    let now = bank.get(&path).await.is(200);
                    assert!(now["attempts_left"].as_i64().is_none_or(|n| n <= left), "a guess was forgotten: {now}");
                    counts.charged += 1;
                }
                Said::Revoked(token) => {
                    assert!(!bank.is_active(&token).await, "a revoked session came back");
                    ended.insert(token.to_string());
                    counts.revoked += 1;
                }
                Said::Consumed(token) => {
                    let again = bank.introspect(json!({"token": token, "consume": true})).await;
                    assert_eq!(again["satisfied"], false, "a right was used twice");
                    ended.insert(token.to_string());
                    counts.consumed += 1;
                }
                Said::Ending(token) => {
                    ended.insert(token.to_string());
                }
                Said::Verified(answer, path, token) => {
                    assert_eq!(bank.get(&path).await.is(200)["status"], "approved");
                    assert!(ended.contains(&token.to_string()) || bank.is_active(&token).await, "a session was lost");
                    bank.post(&format!("{path}/verify"), answer.clone()).await.refused(409, "challenge_not_pending");
                    self.is_spent(&answer).await;
                    counts.verified += 1;
                }
                Said::Redeemed(answer) => {
                    // A few, lest the method be paused.
                    if redeemed < 2 {
                        self.is_spent(&answer).await;
                    }
                    redeemed += 1;
                    counts.redeemed += 1;
                }
                Said::Activated(user, factor) => {
                    assert_eq!(bank.user(&user).factor(&factor).await["status"], "active", "an enrolment was lost");
                    counts.activated += 1;
                }
                Said::Unsaid(answer, step) => {
                    let again = self.user.ask(json!({"answer": answer})).await;
                    if again.is_success() {
                        assert!(step.is_none_or(|step| self.taken.insert(step)), "a code was taken twice");
                        self.is_spent(&answer).await;
                        counts.unsaid_not += 1;
                    } else {
                        self.taken.extend(step);
                        counts.unsaid_stood += usize::from(is_late(&again));
                    }
                }
            }
        }
    }

    async fn is_spent(&self, answer: &Value) {
        is_late(&self.user.ask(json!({"answer": answer})).await);
    }
}

/// Refused as wrong or used. `false` where it was not looked at: the clock goes fast, a right code that comes too late is a wrong
/// one, and ten of them pause the method.
#[track_caller]
fn is_late(answer: &Answer) -> bool {
    match (answer.status, answer.code()) {
        (422, "code_incorrect" | "code_reused") => true,
        (429, "method_paused") => false,
        (status, code) => panic!("{status} {code}"),
    }
}
