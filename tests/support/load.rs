//! People who verify as fast as they can while something breaks, and what may never come of it: a code that is taken twice, a
//! wrong one that is taken, an answer that is neither a verdict nor a plain 503.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use super::app::totp;
use super::{App, Bank, Stopwatch};

/// Under way until it is ended.
pub struct Load {
    bank: Bank,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
    turns: Arc<[AtomicUsize]>,
    people: Vec<JoinHandle<()>>,
    apps: Vec<(String, App)>,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Counts {
    pub right: AtomicUsize,
    pub refused: AtomicUsize,
    pub unavailable: AtomicUsize,
}

/// How many turns each has ended.
fn ended(turns: &[AtomicUsize]) -> Vec<usize> {
    turns.iter().map(|turns| turns.load(Ordering::Relaxed)).collect()
}

fn have_ended(turns: &[AtomicUsize], before: &[usize], more: usize) -> bool {
    ended(turns).iter().zip(before).all(|(now, before)| *now >= before + more)
}

impl Load {
    /// So many people, each with an app, on the clock that the load moves.
    pub async fn start(bank: &Bank, people: usize) -> Load {
        let mut apps = Vec::new();
        for n in 0..people {
            let id = format!("load-{n}");
            apps.push((id.clone(), bank.user(&id).begin_totp().await));
        }
        for (id, app) in &apps {
            bank.user(id).activate(&app.id, json!({"code": app.code()})).await.is(200);
        }
        let (over, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let turns: Arc<[AtomicUsize]> = (0..people).map(|_| AtomicUsize::new(0)).collect();
        let mut tasks = Vec::new();
        for (n, (id, app)) in apps.iter().enumerate() {
            let (bank, id, app, turns) = (bank.clone(), id.clone(), app.clone(), Arc::clone(&turns));
            let (over, counts) = (Arc::clone(&over), Arc::clone(&counts));
            tasks.push(tokio::spawn(async move { verify(bank, id, app, &over, &counts, &turns[n]).await }));
        }
        let (world, end, all) = (Arc::clone(&bank.world), Arc::clone(&over), Arc::clone(&turns));
        tasks.push(tokio::spawn(async move {
            while !end.load(Ordering::Relaxed) {
                world.wait(30);
                // A code counts for two steps only, however long a call takes: the next step comes when everybody has asked in this.
                let before = ended(&all);
                tokio::time::sleep(Duration::from_millis(200)).await;
                while !have_ended(&all, &before, 2) && !end.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }));
        Load { bank: bank.clone(), over, counts, turns, people: tasks, apps }
    }

    pub fn right(&self) -> usize {
        self.counts.right.load(Ordering::Relaxed)
    }

    pub fn unavailable(&self) -> usize {
        self.counts.unavailable.load(Ordering::Relaxed)
    }

    /// Waits until so many more were verified.
    pub async fn goes_on(&self) {
        let before = self.right();
        let people = self.apps.len();
        super::until(|| self.right() >= before + 2 * people).await;
    }

    /// Waits until somebody is told that the store does not answer.
    pub async fn suffers(&self) {
        let before = self.unavailable();
        super::until(|| self.unavailable() > before).await;
    }

    /// Waits until whatever is under way now has been answered.
    pub async fn settles(&self) {
        let before = ended(&self.turns);
        super::until(|| have_ended(&self.turns, &before, 1)).await;
    }

    /// The engine is ready again within this many seconds, and verifies as soon as people come to it.
    #[track_caller]
    pub fn is_back_within(&self, seconds: u64) -> impl Future<Output = ()> {
        let started = Stopwatch::start();
        async move {
            let before = self.right();
            while self.bank.get("/readyz").await.status != 200 {
                assert!(started.elapsed().as_secs() < seconds, "not ready within {seconds} s: {:?}", self.counts);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while self.right() == before {
                assert!(started.elapsed().as_secs() < 60, "nobody verifies: {:?}", self.counts);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Ends it. Whoever broke a rule has panicked, and the panic comes out here.
    pub async fn end(self) -> Arc<Counts> {
        self.over.store(true, Ordering::Relaxed);
        for person in self.people {
            person.await.expect("nobody saw a rule broken");
        }
        // Everybody can still verify: nobody was paused or lost a factor.
        self.bank.world.wait(3600);
        for (id, app) in &self.apps {
            let answer = json!({"answer": app.now()});
            assert_eq!(self.bank.user(id).ask(answer.clone()).await.is(200)["status"], "approved");
            self.bank.user(id).ask(answer).await.refused(422, "code_reused");
        }
        self.counts
    }
}

async fn verify(bank: Bank, id: String, app: App, over: &AtomicBool, counts: &Counts, turns: &AtomicUsize) {
    let (user, mut taken) = (bank.user(&id), HashSet::new());
    for turn in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let step = bank.world.now() / 30;
        let wrong = turn % 9 == 8;
        let code = if wrong { app.wrong() } else { totp(&app.secret, step) };
        let answer = user.ask(json!({"answer": {"type": "totp", "code": code}})).await;
        match (answer.status, answer.code()) {
            (200, _) => {
                assert!(!wrong, "a wrong code was taken");
                assert!(taken.insert(step), "a code was taken twice");
                counts.right.fetch_add(1, Ordering::Relaxed);
            }
            (503, "store_unavailable") => {
                assert_eq!(answer.header("retry-after"), Some("5"));
                counts.unavailable.fetch_add(1, Ordering::Relaxed);
            }
            // Late, because the clock goes fast, or used before an answer that never came.
            (422, "code_reused" | "code_incorrect") | (429, "method_paused") => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            _ => panic!("{} {}", answer.status, answer.code()),
        }
        turns.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
