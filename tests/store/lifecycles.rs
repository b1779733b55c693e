//! Lives of a factor, a challenge, a throttle lane and a kept answer, dealt at random and compared step by step with a model in plain
//! Rust: what a step should come to, and what should stand afterwards. Steps that settle several of them at once stand as a
//! whole or not at all. `PROPTEST_CASES` says how many lives; 64 if not said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use countersign::clock::{Clock, SystemClock, SystemRng};
use countersign::model::{Details, Id, Kind, MethodKind, Moment};
use countersign::policy::throttle::Throttle;
use countersign::store::{
    Activation, ChallengeChange, Error, FactorChange, Keep, NewFactor, Removal, Settlement, ThrottleLane,
};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use super::Fixture;
use super::database::Scratch;

const STEPS: std::ops::Range<usize> = 1..60;
const CODE: &[u8] = b"code";

// --- the model ---

#[derive(Clone, Debug, Default)]
struct Life {
    /// Seconds since its start.
    now: i64,
    factors: Vec<FactorLife>,
    challenges: Vec<ChallengeLife>,
    lane: Option<(i64, Throttle)>,
    kept: Option<KeptLife>,
    sessions: usize,
    /// Whether the last step should have come to something.
    stands: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct FactorLife {
    active: bool,
    removed: bool,
    expires: i64,
    last_step: i64,
    version: i64,
}

#[derive(Clone, Debug, PartialEq)]
struct ChallengeLife {
    status: &'static str,
    attempts: i64,
    expires: i64,
    /// When its code runs out, while it is not exchanged.
    code: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
struct KeptLife {
    turn: u8,
    answered: bool,
    at: i64,
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Enrol,
    Open,
    Settle(Parts),
    Cancel(usize),
    Exchange { challenge: usize, code: bool },
    Remove(usize),
    Unlock,
    GiveWay(u8),
}

/// What one settlement writes; numbers beside the true ones stand for a reading that is old.
#[derive(Clone, Debug)]
struct Parts {
    /// Beside the lane's version, and whether the proof was wrong.
    lane: Option<(i64, bool)>,
    challenge: Option<(usize, Change)>,
    factor: Option<(usize, Use)>,
    /// The turn, and whether it has its answer.
    keep: Option<(u8, bool)>,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    /// Beside the attempts that are left.
    Charge(i64),
    Approve {
        code: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Use {
    Activate,
    /// Beyond the last step.
    Code(i64),
    /// Beside the version.
    Credential(i64),
    Text,
}

impl Life {
    fn factor(&self, place: usize) -> Option<&FactorLife> {
        self.factors.get(place).filter(|f| !f.removed)
    }

    /// What stands after a settlement, if it does.
    fn settled(&self, parts: &Parts) -> Option<Life> {
        let mut next = self.clone();
        if let Some((turn, answered)) = parts.keep {
            let free = self.kept.as_ref().is_none_or(|kept| {
                kept.at <= self.now - 86_400 || (!kept.answered && (kept.turn == turn || kept.at <= self.now - 60))
            });
            next.kept = free.then_some(KeptLife { turn, answered, at: self.now });
            next.kept.as_ref()?;
        }
        if let Some((beside, wrong)) = parts.lane {
            let (version, state) = self.lane.clone().unwrap_or_default();
            (beside == 0).then_some(())?;
            next.lane = Some((version + 1, judged(&state, wrong, self.now)));
        }
        if let Some((place, change)) = parts.challenge {
            let challenge = next.challenges.get_mut(place)?;
            (challenge.status == "pending" && self.now < challenge.expires).then_some(())?;
            match change {
                Change::Charge(beside) => {
                    (beside == 0).then_some(())?;
                    challenge.attempts -= 1;
                    challenge.status = if challenge.attempts == 0 { "denied" } else { "pending" };
                }
                Change::Approve { code } => {
                    challenge.status = "approved";
                    challenge.code = code.then_some(self.now + 60);
                }
            }
        }
        if let Some((place, used)) = parts.factor {
            self.factor(place)?;
            let factor = &mut next.factors[place];
            match used {
                Use::Activate => {
                    (!factor.active && self.now < factor.expires).then_some(())?;
                    (factor.active, factor.version) = (true, factor.version + 1);
                }
                Use::Code(beyond) => {
                    (factor.active && beyond > 0).then_some(())?;
                    factor.last_step += beyond;
                }
                Use::Credential(beside) => {
                    (factor.active && beside == 0).then_some(())?;
                    factor.version += 1;
                }
                Use::Text => factor.active.then_some(())?,
            }
        }
        Some(next)
    }

    /// What stands after a step, if it comes to anything.
    fn after(&self, step: &Step) -> Option<Life> {
        let mut next = self.clone();
        match step {
            Step::Wait(seconds) => next.now += seconds,
            Step::Enrol => {
                let expires = self.now + 900;
                next.factors.push(FactorLife { active: false, removed: false, expires, last_step: 0, version: 1 });
            }
            Step::Open => next.challenges.push(ChallengeLife {
                status: "pending",
                attempts: 5,
                expires: self.now + 600,
                code: None,
            }),
            Step::Settle(parts) => return self.settled(parts),
            Step::Cancel(place) => {
                let challenge = next.challenges.get_mut(*place)?;
                (challenge.status == "pending" && self.now < challenge.expires).then_some(())?;
                challenge.status = "cancelled";
            }
            Step::Exchange { challenge, code } => {
                let ends = next.challenges.get_mut(*challenge)?.code.take()?;
                (*code && self.now < ends).then_some(())?;
                next.sessions += 1;
            }
            Step::Remove(place) => {
                self.factor(*place)?;
                next.factors[*place].removed = true;
            }
            Step::Unlock => {
                if let Some((version, state)) = &mut next.lane {
                    (*version, *state) = (*version + 1, Throttle::default());
                }
            }
            Step::GiveWay(turn) => {
                self.kept.as_ref().filter(|kept| kept.turn == *turn && !kept.answered)?;
                next.kept = None;
            }
        }
        Some(next)
    }
}

/// The lane's state after a proof. Its times count from the start of the life.
fn judged(state: &Throttle, wrong: bool, now: i64) -> Throttle {
    let now = countersign::model::Timestamp::from_seconds(now);
    if wrong { state.after_wrong(MethodKind::Totp, 1, now) } else { state.after_right(MethodKind::Totp, now) }
}

/// A place among these, mostly one that is good.
fn places<T>(all: &[T], good: impl Fn(&T) -> bool) -> BoxedStrategy<usize> {
    let good: Vec<_> = (0..all.len()).filter(|place| good(&all[*place])).collect();
    let any = 0..all.len() + 1;
    if good.is_empty() { any.boxed() } else { prop_oneof![12 => prop::sample::select(good), 1 => any].boxed() }
}

impl ReferenceStateMachine for Life {
    type State = Life;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Life> {
        Just(Life::default()).boxed()
    }

    fn transitions(life: &Life) -> BoxedStrategy<Step> {
        let beside = || prop_oneof![8 => Just(0i64), 1 => Just(1), 1 => Just(-1)];
        // Mostly what is open and can come to something, at times what cannot; one place beyond all is an id that nobody has.
        let open = |c: &ChallengeLife| c.status == "pending" && life.now < c.expires;
        let challenge = places(&life.challenges, open);
        let change = prop_oneof![
            3 => beside().prop_map(Change::Charge),
            1 => any::<bool>().prop_map(|code| Change::Approve { code }),
        ];
        let factor = places(&life.factors, |f| !f.removed);
        let used = {
            let active = life.factors.iter().map(|f| f.active).collect::<Vec<_>>();
            factor.clone().prop_flat_map(move |place| {
                let (first, later) = if active.get(place) == Some(&true) { (1, 4) } else { (8, 1) };
                let used = prop_oneof![
                    first => Just(Use::Activate),
                    2 * later => prop_oneof![1 => Just(-1i64), 2 => Just(0), 2 => Just(1), 1 => 2i64..90].prop_map(Use::Code),
                    later => beside().prop_map(Use::Credential),
                    later => Just(Use::Text),
                ];
                used.prop_map(move |used| (place, used))
            })
        };
        let parts = (
            prop::option::weighted(0.4, (beside(), prop::bool::weighted(0.8))),
            prop::option::weighted(0.4, (challenge.clone(), change)),
            prop::option::weighted(0.5, used),
            prop::option::weighted(0.3, (0u8..3, any::<bool>())),
        );
        let few = |open: usize| if open < 3 { 3 } else { 0 };
        let coded = places(&life.challenges, |c| c.code.is_some());
        prop_oneof![
            2 => prop_oneof![6 => 1i64..61, 2 => Just(60), 1 => 600i64..901, 1 => Just(86_400)].prop_map(Step::Wait),
            1 + few(life.factors.iter().filter(|f| !f.removed).count()) => Just(Step::Enrol),
            1 + few(life.challenges.iter().filter(|c| open(c)).count()) => Just(Step::Open),
            24 => parts.prop_map(|(lane, challenge, factor, keep)| Step::Settle(Parts { lane, challenge, factor, keep })),
            1 => challenge.prop_map(Step::Cancel),
            4 => (coded, prop::bool::weighted(0.8)).prop_map(|(challenge, code)| Step::Exchange { challenge, code }),
            1 => factor.prop_map(Step::Remove),
            1 => Just(Step::Unlock),
            1 => (0u8..3).prop_map(Step::GiveWay),
        ]
        .boxed()
    }

    fn apply(life: Life, step: &Step) -> Life {
        match life.after(step) {
            Some(next) => Life { stands: true, ..next },
            None => Life { stands: false, ..life },
        }
    }
}

// --- the store ---

/// One database of each kind for all lives; each life is of a user of its own.
struct Place {
    runtime: tokio::runtime::Runtime,
    bank: Fixture,
    _scratch: Scratch,
}

/// A life in the store.
struct Lived {
    place: Arc<Place>,
    user: Fixture,
    factors: Vec<Id>,
    challenges: Vec<Id>,
}

static LIVES: AtomicUsize = AtomicUsize::new(0);

impl Place {
    /// `None` where there is no server.
    fn new(postgres: bool) -> Option<Arc<Place>> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (bank, _scratch) = runtime.block_on(async {
            let scratch = if postgres { Scratch::postgres().await? } else { Scratch::sqlite() };
            let now = SystemClock.now();
            let bank = Fixture {
                store: scratch.store().await,
                rp: Id::new(Kind::RelyingParty, &Moment::new(now, &SystemRng)),
                user_id: "bank".to_owned(),
                now,
            };
            bank.settle_in("Bank").await;
            Some((bank, scratch))
        })?;
        Some(Arc::new(Place { runtime, bank, _scratch }))
    }

    fn life(self: &Arc<Place>) -> Lived {
        let name = format!("u-{}", LIVES.fetch_add(1, Ordering::Relaxed));
        let user = self.runtime.block_on(self.bank.other_user(&name));
        Lived { place: Arc::clone(self), user, factors: Vec::new(), challenges: Vec::new() }
    }
}

impl Lived {
    fn factor(&self, place: usize) -> Id {
        self.factors.get(place).cloned().unwrap_or_else(|| Id::new(Kind::Factor, &self.user.at()))
    }

    fn challenge(&self, place: usize) -> Id {
        self.challenges.get(place).cloned().unwrap_or_else(|| Id::new(Kind::Challenge, &self.user.at()))
    }

    /// The user's fixture at this time of the model.
    fn at(&self, life: &Life) -> Fixture {
        Fixture { now: self.place.bank.now.plus_seconds(life.now), ..self.user.clone() }
    }

    fn question(&self) -> String {
        format!("question of {}", self.user.user_id)
    }

    /// A step as the engine would take it, from what was read before it: what it came to.
    async fn step(&mut self, before: &Life, step: &Step) -> Result<(), Error> {
        let user = self.at(before);
        let (store, rp, name) = (&user.store, &user.rp, user.user_id.as_str());
        match step {
            Step::Wait(_) => Ok(()),
            Step::Enrol => {
                let factor = user.new_factor(&format!("App {}", self.factors.len()));
                self.factors.push(factor.id.clone());
                let event = user.event("enrolment.started");
                store.create_factor(rp, &NewFactor { factor, prompt: None, beside: (99, 99), event }).await
            }
            Step::Open => {
                let challenge = user.new_challenge();
                self.challenges.push(challenge.id.clone());
                store.create_challenge(&challenge, &user.event("challenge.created")).await
            }
            Step::Settle(parts) => {
                let (keep, settlement) = self.settlement(&user, before, parts);
                match keep {
                    Some(keep) => store.keeping(Arc::new(keep)).settle(settlement).await,
                    None => store.settle(settlement).await,
                }
            }
            Step::Cancel(place) => {
                let challenge = countersign::model::Challenge { id: self.challenge(*place), ..user.new_challenge() };
                store.cancel_challenge(&challenge, &user.event("challenge.cancelled")).await
            }
            Step::Exchange { challenge, code } => {
                let challenge =
                    countersign::model::Challenge { id: self.challenge(*challenge), ..user.new_challenge() };
                let mut new = user.session(&user.new_factor("none"));
                Arc::make_mut(&mut new).session.factor_id = None;
                let code: &[u8] = if *code { CODE } else { b"other" };
                store.exchange(&challenge, code, &new, &user.event("session.created")).await
            }
            Step::Remove(place) => {
                store
                    .remove_factor(rp, name, &self.factor(*place), Removal::Any, None, &user.event("factor.removed"))
                    .await
            }
            Step::Unlock => store.clear_throttles(rp, name, &user.event("user.unlocked")).await,
            Step::GiveWay(turn) => store.give_way(rp, &self.question(), &turn.to_string()).await,
        }
    }

    fn settlement(&self, user: &Fixture, before: &Life, parts: &Parts) -> (Option<Keep>, Settlement) {
        let throttle = parts.lane.map(|(beside, wrong)| {
            let (version, state) = before.lane.clone().unwrap_or_default();
            let state = serde_json::to_string(&judged(&state, wrong, before.now)).expect("JSON");
            ThrottleLane { version: version + beside, state, ..ThrottleLane::default() }
        });
        let challenge = parts.challenge.map_or(ChallengeChange::None, |(place, change)| {
            let id = self.challenge(place);
            match change {
                Change::Charge(beside) => {
                    let left = before.challenges.get(place).map_or(5, |c| c.attempts);
                    ChallengeChange::Charge(id, left + beside)
                }
                Change::Approve { code } => {
                    let code = code.then(|| (CODE.to_vec(), user.now.plus_seconds(60)));
                    ChallengeChange::Approve(id, user.proof(&user.new_factor("none")), code)
                }
            }
        });
        let factor = parts.factor.map(|(place, used)| {
            let id = self.factor(place);
            let (last_step, version) = before.factors.get(place).map_or((0, 1), |f| (f.last_step, f.version));
            match used {
                Use::Activate => FactorChange::Activate(Activation {
                    id,
                    details: Details::Totp,
                    sealed: None,
                    credential_id: None,
                    last_step,
                }),
                Use::Code(beyond) => FactorChange::Step(id, last_step + beyond),
                Use::Credential(beside) => {
                    FactorChange::Credential { id, version: version + beside, sealed: vec![2], details: Details::Totp }
                }
                Use::Text => FactorChange::Used(id),
            }
        });
        let keep = parts.keep.map(|(turn, answered)| Keep {
            rp_id: user.rp.clone(),
            user_id: user.user_id.clone(),
            id: self.question(),
            turn: turn.to_string(),
            body_hash: vec![1],
            answer: answered.then(|| vec![turn]),
            whole: None,
            at: user.now,
            expired: user.now.plus_seconds(-86_400),
            given_up: user.now.plus_seconds(-60),
            stands: AtomicBool::new(false),
        });
        (keep, Settlement { throttle, challenge, factor, ..user.nothing() })
    }

    /// That the store holds what the model does, and nothing else.
    async fn compare(&self, life: &Life) {
        let user = self.at(life);
        let (store, rp, name) = (&user.store, &user.rp, user.user_id.as_str());
        for (id, model) in self.factors.iter().zip(&life.factors) {
            let kept = store.factor(rp, name, id).await.expect("it answers").map(|f| FactorLife {
                active: f.is_active(),
                removed: false,
                expires: (f.expires_at.0 - self.place.bank.now.0) / 1000,
                last_step: f.last_step,
                version: f.version,
            });
            assert_eq!(kept.as_ref(), Some(model).filter(|m| !m.removed));
        }
        for (id, model) in self.challenges.iter().zip(&life.challenges) {
            let (kept, _) = store.case(rp, id, user.now).await.expect("it answers").expect("challenges stay");
            assert_eq!((kept.status.as_str(), kept.attempts_left), (model.status, model.attempts));
        }
        let lanes = store.throttles(rp, name).await.expect("it answers");
        let lanes = lanes.iter().map(|l| (l.version, serde_json::from_str(&l.state).expect("a state")));
        assert_eq!(lanes.collect::<Vec<_>>(), life.lane.clone().into_iter().collect::<Vec<_>>());
        let kept = store.kept(rp, &self.question(), countersign::model::Timestamp(0)).await.expect("it answers");
        let model = life.kept.as_ref().map(|k| (k.answered.then(|| vec![k.turn]), k.at));
        assert_eq!(kept.map(|k| (k.answer.clone(), (k.at().0 - self.place.bank.now.0) / 1000)), model);
        let all = store.sessions_of(rp, name, countersign::model::Timestamp(0), None, 100).await.expect("it answers");
        assert_eq!(all.len(), life.sessions);
    }
}

/// A machine over one kind of database; the step's starting point is what the model was before it.
struct Machine<const POSTGRES: bool>(Lived, Life);

impl<const POSTGRES: bool> StateMachineTest for Machine<POSTGRES> {
    type SystemUnderTest = Machine<POSTGRES>;
    type Reference = Life;

    fn init_test(life: &Life) -> Self {
        thread_local! {
            static PLACES: [Option<Arc<Place>>; 2] = [Place::new(false), Place::new(true)];
        }
        Machine(PLACES.with(|p| p[usize::from(POSTGRES)].as_ref().expect("a database").life()), life.clone())
    }

    fn apply(mut machine: Self, life: &Life, step: Step) -> Self {
        let place = Arc::clone(&machine.0.place);
        place.runtime.block_on(async {
            let outcome = machine.0.step(&machine.1, &step).await;
            assert_eq!(outcome.is_ok(), life.stands, "{step:?}: {outcome:?}");
            assert!(matches!(outcome, Ok(()) | Err(Error::Conflict(_) | Error::Kept)), "{outcome:?}");
            machine.0.compare(life).await;
        });
        machine.1 = life.clone();
        machine
    }
}

fn live<const POSTGRES: bool>() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64);
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() };
    proptest!(config.clone(), |((life, steps, seen) in Life::sequential_strategy(STEPS))| {
        Machine::<POSTGRES>::test_sequential(config.clone(), life, steps, seen);
    });
}

/// X-08, I-03.
#[test]
fn lives_are_as_the_model_says_on_sqlite() {
    live::<false>();
}

#[test]
fn lives_are_as_the_model_says_on_postgres() {
    if std::env::var_os("COUNTERSIGN_TEST_POSTGRES").is_some() {
        live::<true>();
    }
}
