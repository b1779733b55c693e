//! Two of everything, for two people of one relying party and for one of the same name at another: what is written of one row
//! reaches no other (K-03), and what is asked of one is answered of that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use countersign::config::Database;
use countersign::model::{
    ApiKey, Budget, BudgetKey, Challenge, ChallengeStatus, Delivery, Endpoint, Factor, Id, Kind, MethodKind,
    PortalSession, Prompt, RecoverySet, RecoveryStatus, Scope, Timestamp,
};
use countersign::store::{
    Activation, Attempted, BudgetChange, ChallengeChange, Contest, DeviceChange, EndpointChange, FactorChange, Keep,
    Leave, Names, NewSession, PromptChange, Removal, Reservation, Restoration, Result, SessionChange, Settlement,
    Standing, Store, ThrottleLane, Which,
};

use super::database::Scratch;
use super::{Fixture, throttle};

/// What somebody has.
struct Home {
    person: Fixture,
    factors: [Factor; 2],
    pending: [Factor; 2],
    /// Each awaits a text and a passkey.
    open: [(Challenge, [Prompt; 2]); 2],
    approved: [Challenge; 2],
    /// The second with its challenge.
    sessions: [Arc<NewSession>; 2],
    recovery: RecoverySet,
    unconfirmed: RecoverySet,
    visits: [PortalSession; 2],
    /// Places that are held for an answer.
    held: [String; 2],
}

/// What a relying party has.
struct Office {
    endpoints: [Endpoint; 2],
    /// The first two of either endpoint, of the same two events.
    deliveries: [[Delivery; 2]; 2],
    keys: [(ApiKey, Vec<u8>); 2],
}

const CODE: &[u8] = b"the code's hash";

impl Home {
    async fn of(person: Fixture) -> Home {
        let store = &person.store;
        let credential = |name: &str| Some(format!("{name} of {}", person.user_id));
        let factors = [
            person.factor("One", credential("one").as_deref()).await,
            person.factor("Two", credential("two").as_deref()).await,
        ];
        let pending = [person.pending("Three").await, person.pending("Four").await];
        let approve = async || {
            let challenge = person.challenge().await;
            let code = Some((CODE.to_vec(), person.now.plus_seconds(60)));
            let change = ChallengeChange::Approve(challenge.id.clone(), person.proof(&factors[0]), code);
            store.settle(Settlement { challenge: change, ..person.nothing() }).await.expect("approved");
            challenge
        };
        let open = async || {
            let linked = Challenge { link_hash: Some(b"link".to_vec()), ..person.new_challenge() };
            store.create_challenge(&linked, &person.event("x")).await.expect("a challenge");
            let text = Prompt { factor_id: Some(factors[1].id.clone()), ..person.new_prompt(&linked.id, 1) };
            let prompts = [text, Prompt { method: MethodKind::Webauthn, ..person.new_prompt(&linked.id, 1) }];
            for prompt in &prompts {
                store.replace_prompt(&person.rp, &person.user_id, prompt).await.expect("a prompt");
            }
            (linked, prompts)
        };
        let earn = async |new: Arc<NewSession>| {
            store.settle(Settlement { session: Some(new.clone()), ..person.nothing() }).await.expect("a session");
            new
        };
        let codes = async |first: u8, confirmed| {
            let set = RecoverySet { unused: vec![vec![first; 4], vec![first + 1; 4]], ..person.new_set() };
            let (event, stands) = (person.event("x"), Standing::default());
            store
                .create_recovery_set(&person.rp, &person.user_id, &stands, &set, confirmed, &event)
                .await
                .expect("a set");
            set
        };
        let hold = async |id: &str| {
            let id = format!("{id}-{}", person.user_id);
            store.keep(place(&person, &id)).await.expect("a place");
            id
        };
        for lane in [throttle(0, 1), ThrottleLane { lane: "device:1".to_owned(), ..throttle(0, 1) }] {
            store.settle(Settlement { throttle: Some(lane), ..person.nothing() }).await.expect("a lane");
        }
        let visits = [visit(&person).await, visit(&person).await];
        let (open, approved) = ([open().await, open().await], [approve().await, approve().await]);
        let sessions = [earn(person.session(&factors[0])).await, earn(person.answered_at_once(&factors[1])).await];
        let (recovery, unconfirmed) = (codes(0xa1, true).await, codes(0xb1, false).await);
        let held = [hold("first").await, hold("second").await];
        Home { factors, pending, open, approved, sessions, recovery, unconfirmed, visits, held, person }
    }
}

fn place(person: &Fixture, id: &str) -> Arc<Keep> {
    Arc::new(Keep {
        rp_id: person.rp.clone(),
        user_id: person.user_id.clone(),
        id: id.to_owned(),
        turn: "turn".to_owned(),
        body_hash: vec![1],
        answer: None,
        whole: None,
        at: person.now,
        expired: person.now.plus_seconds(-86_400),
        given_up: person.now.plus_seconds(-60),
        stands: AtomicBool::new(false),
    })
}

async fn visit(person: &Fixture) -> PortalSession {
    let id = person.visit().await;
    person.store.portal_session(&id).await.expect("it answers").expect("it is there")
}

impl Office {
    async fn of(boss: &Fixture) -> Office {
        let endpoints = [boss.endpoint().await, boss.endpoint().await];
        let told = async |endpoint: &Endpoint, number| {
            let delivery = super::tried(boss, endpoint, number);
            boss.store.queue_delivery(&delivery, 9).await.expect("queued");
            delivery
        };
        let mut deliveries = Vec::new();
        for endpoint in &endpoints {
            deliveries.push([told(endpoint, 1).await, told(endpoint, 2).await]);
        }
        let key = async |number: u8| {
            let key = ApiKey {
                id: Id::new(Kind::ApiKey, &boss.at()),
                rp_id: boss.rp.clone(),
                hint: "sk_live_…".to_owned(),
                scopes: vec![Scope::Challenges],
                created_at: boss.now,
                expires_at: None,
                revoked_at: None,
                last_used_at: None,
            };
            let hash = [boss.rp.as_str().as_bytes(), &[number]].concat();
            boss.store.create_api_key(&key, &hash, &boss.event("x")).await.expect("a key");
            (key, hash)
        };
        let keys = [key(1).await, key(2).await];
        Office { endpoints, deliveries: deliveries.try_into().expect("two"), keys }
    }
}

/// A database that is looked at from outside.
struct World {
    scratch: Scratch,
    /// Of whom everything is written; `kim` has the same at the same relying party, and another Zoe at another.
    zoe: Home,
    kim: Home,
    other: Home,
    office: Office,
    elsewhere: Office,
    /// The query of all rows as text.
    all: String,
}

/// The query of every row of every table as text.
async fn all_rows(scratch: &Scratch) -> String {
    let tables = match scratch.is_sqlite() {
        true => "select name from sqlite_master where type = 'table'",
        false => "select cast(tablename as text) from pg_tables where schemaname = 'public'",
    };
    let mut queries = Vec::new();
    for table in scratch.texts(tables).await {
        let row = match scratch.is_sqlite() {
            true => {
                let columns = format!("select 'quote(' || name || ')' from pragma_table_info('{table}')");
                scratch.texts(&columns).await.join(" || ' ' || ")
            }
            false => "cast(t as text)".to_owned(),
        };
        queries.push(format!("select '{table}: ' || {row} from {table} t"));
    }
    queries.join(" union all ")
}

impl World {
    async fn new(scratch: Scratch) -> World {
        let boss = Fixture::on(&scratch).await;
        let shop = boss.other_party("Shop").await;
        let (office, elsewhere) = (Office::of(&boss).await, Office::of(&shop).await);
        let zoe = Home::of(boss.other_user("zoe").await).await;
        let kim = Home::of(boss.other_user("kim").await).await;
        let other = Home::of(shop.other_user("zoe").await).await;
        let all = all_rows(&scratch).await;
        World { scratch, zoe, kim, other, office, elsewhere, all }
    }

    /// Every row of every table, in small letters.
    async fn rows(&self) -> BTreeSet<String> {
        self.scratch.texts(&self.all).await.into_iter().map(|row| row.to_lowercase()).collect()
    }

    /// A call writes, beside the event that it appends, only rows that hold all of one of these words.
    async fn reaches<T>(&self, what: &str, own: &[&[&str]], call: impl Future<Output = Result<T>>) {
        let before = self.rows().await;
        call.await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let after = self.rows().await;
        let changed: Vec<&String> = before.symmetric_difference(&after).collect();
        let appended = |row: &String| row.starts_with("events: ") && after.contains(row);
        assert!(changed.iter().any(|row| !row.starts_with("events: ")), "{what}: nothing was written");
        let is_own = |row: &String| own.iter().any(|words| words.iter().all(|word| row.contains(word)));
        let strange: Vec<_> = changed.iter().filter(|row| !is_own(row) && !appended(row)).collect();
        assert!(strange.is_empty(), "{what} reaches {strange:#?}");
        let idle: Vec<_> =
            own.iter().filter(|words| !changed.iter().any(|row| words.iter().all(|w| row.contains(w)))).collect();
        assert!(idle.is_empty(), "{what} does not reach {idle:?}");
    }
}

/// K-03, by the conditions of each statement.
#[tokio::test]
async fn what_is_written_of_one_reaches_no_other() {
    for scratch in Scratch::all().await {
        let world = World::new(scratch).await;
        challenges(&world).await;
        factors(&world).await;
        recovery_and_visits(&world).await;
        texts(&world).await;
        people(&world).await;
        offices(&world).await;
    }
}

async fn challenges(world: &World) {
    let Home { person, factors, open: [(first, prompts), (second, others)], approved, sessions, .. } = &world.zoe;
    let (store, rp, user) = (&person.store, &person.rp, person.user_id.as_str());
    let nothing = || person.nothing();
    let settle = async |what: &str, own: &[&[&str]], settlement| {
        world.reaches(what, own, store.settle(settlement)).await;
    };
    let id = first.id.as_str();
    world.reaches("a link", &[&[id]], store.open_challenge_link(first, b"browser", person.now)).await;
    let charge = ChallengeChange::Charge(first.id.clone(), 5);
    settle("a charge", &[&[id]], Settlement { challenge: charge, ..nothing() }).await;
    let awaited = Settlement { challenge: ChallengeChange::Await(first.id.clone()), ..nothing() };
    store.settle(awaited).await.expect("it awaits its answer");
    let [text, passkey] = prompts;
    let again = Prompt { id: person.new_prompt(&first.id, 2).id, sends: 2, ..text.clone() };
    let own: &[&[&str]] = &[&[text.id.as_str()], &[again.id.as_str()]];
    world.reaches("another text", own, store.replace_prompt(rp, user, &again)).await;
    let burnt = Some((first.id.clone(), passkey.method, passkey.id.clone()));
    settle("an answered prompt", &[&[passkey.id.as_str()]], Settlement { prompt: burnt, ..nothing() }).await;
    let approval = ChallengeChange::Approve(first.id.clone(), person.proof(&factors[0]), None);
    settle("an approval", &[&[id]], Settlement { challenge: approval, ..nothing() }).await;
    let end = person.now.plus_seconds(60);
    world.reaches("a code", &[&[id]], store.set_exchange_code(first, b"another", end)).await;
    let new = person.session(&factors[0]);
    let spent = [approved[0].id.as_str(), new.session.id.as_str()];
    let event = person.event("x");
    let exchanged = store.exchange(&approved[0], CODE, &new, &event);
    world.reaches("an exchange", &[&[spent[0]], &[spent[1]]], exchanged).await;
    let own: &[&[&str]] = &[&[second.id.as_str()], &[others[0].id.as_str()], &[others[1].id.as_str()]];
    world.reaches("a challenge called off", own, store.cancel_challenge(second, &person.event("x"))).await;
    let over = Settlement { challenge: ChallengeChange::Await(second.id.clone()), ..nothing() };
    super::lost(store.settle(over).await, Contest::Challenge);

    let ended = &sessions[1].session;
    let own: &[&[&str]] = &[&[ended.id.as_str()]];
    let right = Some(SessionChange::Add(ended.id.clone()));
    settle("a right to add", own, Settlement { earlier: right, ..nothing() }).await;
    world.reaches("the end of a session", own, store.end_session(ended, &person.event("x"))).await;
    let lane = ThrottleLane { lane: "device:1".to_owned(), ..throttle(1, 2) };
    settle("a lane", &[&[rp.as_str(), "zoe", "device:1"]], Settlement { throttle: Some(lane), ..nothing() }).await;
    let device = Some(("device:2".to_owned(), DeviceChange::New));
    settle("a device", &[&[rp.as_str(), "zoe", "device:2"]], Settlement { device, ..nothing() }).await;
    let device = Some(("device:3".to_owned(), DeviceChange::Instead));
    let own: &[&[&str]] = &[&[rp.as_str(), "zoe", "device:3"], &[rp.as_str(), "zoe", "device:2"]];
    settle("another device", own, Settlement { device, ..nothing() }).await;
}

async fn factors(world: &World) {
    let Home { person, factors: [first, second], pending: [activated, dropped], open, sessions, .. } = &world.zoe;
    let (store, rp, user) = (&person.store, &person.rp, person.user_id.as_str());
    let own: &[&[&str]] = &[&[first.id.as_str()]];
    let version = store.factor(rp, user, &first.id).await.expect("it answers").expect("it is there").version;
    let moved =
        FactorChange::Credential { id: first.id.clone(), version, sealed: vec![2], details: first.details.clone() };
    let used = FactorChange::Used(first.id.clone());
    let later = || Settlement { at: person.now.plus_seconds(1), ..person.nothing() };
    for change in [FactorChange::Step(first.id.clone(), 9), moved] {
        let settlement = Settlement { factor: Some(change), ..person.nothing() };
        world.reaches("a proof", own, store.settle(settlement)).await;
    }
    world.reaches("a use", own, store.settle(Settlement { factor: Some(used), ..later() })).await;
    let activation = Activation {
        id: activated.id.clone(),
        details: activated.details.clone(),
        sealed: None,
        credential_id: None,
        last_step: 1,
    };
    let settlement = Settlement { factor: Some(FactorChange::Activate(activation)), ..person.nothing() };
    world.reaches("an activation", &[&[activated.id.as_str()]], store.settle(settlement)).await;
    let (name, event) = ("Five", person.event("x"));
    world.reaches("a name", own, store.rename_factor(rp, user, &first.id, name, person.now, Some(&event))).await;
    let (id, event) = (&dropped.id, person.event("x"));
    world
        .reaches("an enrolment given up", &[&[id.as_str()]], store.drop_pending_factor(rp, user, id, None, &event))
        .await;
    // The second sent the texts and earned the second session; the right to remove it is the first session's.
    let right = Leave::Right(sessions[0].session.id.clone());
    let own: &[&[&str]] = &[&[second.id.as_str()], &[sessions[0].session.id.as_str()]];
    assert_eq!(open[0].1[0].factor_id.as_ref(), Some(&second.id));
    let event = person.event("x");
    let removal = store.remove_factor(rp, user, &second.id, Removal::ButTheLast, Some(&right), &event);
    world.reaches("a removal", own, removal).await;
}

async fn recovery_and_visits(world: &World) {
    let Home { person, recovery, unconfirmed, visits, factors, held, .. } = &world.zoe;
    let (store, rp, user) = (&person.store, &person.rp, person.user_id.as_str());
    let code = FactorChange::RecoveryCode(recovery.id.clone(), recovery.unused[0].clone());
    let own: &[&[&str]] = &[&[recovery.id.as_str(), "a1a1a1a1"]];
    world.reaches("a recovery code", own, store.settle(Settlement { factor: Some(code), ..person.nothing() })).await;
    let left = store.dossier(rp, user, person.now).await.expect("it answers").recovery.expect("codes");
    assert_eq!((left.total, left.remaining), (2, 1));
    let next = RecoverySet { unused: vec![vec![0xc1; 4]], ..person.new_set() };
    let own: &[&[&str]] = &[&[unconfirmed.id.as_str()], &[next.id.as_str()]];
    let (event, stands) = (person.event("x"), Standing { visit: Some(visits[0].id.clone()), ..Standing::default() });
    world.reaches("other codes", own, store.create_recovery_set(rp, user, &stands, &next, false, &event)).await;
    let own: &[&[&str]] = &[&[recovery.id.as_str()], &[next.id.as_str()]];
    let event = person.event("x");
    world.reaches("codes saved", own, store.confirm_recovery_set(rp, user, Some(&next.id), &stands, &event)).await;
    let redeems = store.recovery_set(rp, user).await.expect("it answers").expect("a set");
    assert_eq!((redeems.id, redeems.unused), (next.id, next.unused), "and its own codes with it");

    let own: &[&[&str]] = &[&[visits[0].id.as_str()]];
    world.reaches("a visit begun", own, store.open_portal_link(&visits[0], b"browser", person.now)).await;
    let new = person.session(&factors[0]);
    let proven = Settlement { session: Some(new.clone()), visit: Some(visits[0].id.clone()), ..person.nothing() };
    let (visit, session) = (visits[0].id.as_str(), new.session.id.as_str());
    world.reaches("a visit proven", &[&[visit], &[session]], store.settle(proven)).await;
    let gone = Id::new(Kind::Portal, &person.at());
    let lost = Settlement { session: Some(person.session(&factors[0])), visit: Some(gone), ..person.nothing() };
    let before = world.rows().await;
    super::lost(store.settle(lost).await, Contest::Visit);
    assert_eq!(world.rows().await, before, "nobody would know of the session");
    world.reaches("a visit's factor", own, store.set_portal_factor(&visits[0], &factors[0].id)).await;

    let own: &[&[&str]] = &[&[rp.as_str(), held[0].as_str()]];
    world.reaches("a place given back", own, store.give_way(rp, &held[0], "turn")).await;
    let filled =
        Keep { answer: Some(vec![1]), ..Arc::into_inner(place(person, &held[1])).expect("nobody else has it") };
    let own: &[&[&str]] = &[&[rp.as_str(), held[1].as_str()]];
    world.reaches("a place filled", own, store.keep(Arc::new(filled))).await;
}

/// A text that is reserved and given back, and one that is accepted.
async fn texts(world: &World) {
    let person = &world.zoe.person;
    let store = &person.store;
    let owner = Id::new(Kind::Challenge, &person.at());
    let neighbour = person.new_prompt(&Id::new(Kind::Challenge, &person.at()), 1);
    store.replace_prompt(&person.rp, &person.user_id, &neighbour).await.expect("a prompt");
    let (key, other) = (BudgetKey::Number("number-one".to_owned()), BudgetKey::Number("number-two".to_owned()));
    let draw = |key: &BudgetKey, version| BudgetChange {
        key: key.clone(),
        budget: Budget { version, day: 1, sent: version, recent: Vec::new() },
    };
    let reservation = |budget: BudgetChange, owner: &Id, sends, before: Option<Prompt>| Reservation {
        rp_id: person.rp.clone(),
        user_id: person.user_id.clone(),
        message: Id::new(Kind::Message, &person.at()),
        number_hash: "hash".to_owned(),
        country: None,
        at: person.now,
        budgets: vec![budget],
        prompt: PromptChange { next: person.new_prompt(owner, sends), before },
    };
    let away = Id::new(Kind::Challenge, &person.at());
    store.reserve_send(&reservation(draw(&other, 0), &away, 1, None)).await.expect("another's text");

    let first = reservation(draw(&key, 0), &owner, 1, None);
    let own: &[&[&str]] = &[&[owner.as_str()], &[first.message.as_str()], &[person.rp.as_str(), "number-one"]];
    world.reaches("a text", own, store.reserve_send(&first)).await;
    let own: &[&[&str]] = &[&[owner.as_str()], &[first.message.as_str()]];
    let event = person.event("x");
    world.reaches("a text that left", own, store.accept_send(&first, "http", person.now, &event)).await;
    let kept = store.prompt(&person.rp, &person.user_id, &owner, MethodKind::Sms).await.expect("it answers");
    let second = reservation(draw(&key, 1), &owner, 2, kept);
    let own: &[&[&str]] = &[&[owner.as_str()], &[second.message.as_str()], &[person.rp.as_str(), "number-one"]];
    world.reaches("another text", own, store.reserve_send(&second)).await;
    let (back, event) = ([draw(&key, 2)], person.event("x"));
    world.reaches("a text given back", own, store.release_send(&second, &back, person.now, &event)).await;
    let third = reservation(draw(&key, 3), &Id::new(Kind::Challenge, &person.at()), 1, None);
    store.reserve_send(&third).await.expect("reserved");
    let owner = third.prompt.next.owner_id.as_str();
    let own: &[&[&str]] = &[&[owner], &[third.message.as_str()], &[person.rp.as_str(), "number-one"]];
    let (back, event) = ([draw(&key, 4)], person.event("x"));
    world.reaches("a first text given back", own, store.release_send(&third, &back, person.now, &event)).await;
}

/// All that somebody has; what they are called; that they are gone.
async fn people(world: &World) {
    let person = &world.zoe.person;
    let (store, rp, user) = (&person.store, &person.rp, person.user_id.as_str());
    let own: &[&[&str]] = &[&[rp.as_str(), "zoe"]];
    let names = Names { display_name: Some(Some("Z.".to_owned())), ..Names::default() };
    world.reaches("a name", own, store.put_user(rp, &person.user(), &names)).await;
    world.reaches("an unlock", own, store.clear_throttles(rp, user, &person.event("x"))).await;
    world.reaches("the end of all sessions", own, store.end_sessions_of(rp, user, &person.event("x"))).await;
    let [exchanged, approved] = &world.zoe.approved;
    for (challenge, status) in [(exchanged, ChallengeStatus::Approved), (approved, ChallengeStatus::Cancelled)] {
        assert_eq!(person.found(&challenge.id).await.expect("it is there").status, status);
    }
    world.reaches("a reset", own, store.reset_user(rp, user, &person.event("x"))).await;
    let lanes = store.throttles(rp, user).await.expect("it answers");
    let lanes: Vec<_> = lanes.iter().map(|lane| (lane.lane.as_str(), lane.state.as_str())).collect();
    assert_eq!(lanes, [("", "{}"), ("device:1", "{}")], "the device that is known goes, the others are emptied");
    let own: &[&[&str]] = &[&[rp.as_str(), "kim"], &[rp.as_str(), "usr_gone"]];
    let event = world.kim.person.event("x");
    world.reaches("an erasure", own, store.erase_user(rp, "kim", "usr_gone", &event)).await;
}

async fn offices(world: &World) {
    let Office { endpoints: [first, second], deliveries: [of_first, of_second], keys } = &world.office;
    let boss = Fixture { user_id: "ann".to_owned(), ..world.zoe.person.clone() };
    let (store, rp) = (&boss.store, &boss.rp);
    let (id, event_id) = (first.id.as_str(), of_first[0].event_id.as_str());
    let told: &[&[&str]] = &[&[id, event_id]];
    let until = boss.now.plus_seconds(60);
    let due = async |at, all: &[&Endpoint]| {
        let due = store.due_endpoints(at).await.expect("it answers");
        let due: BTreeSet<Id> = due.into_iter().map(|due| due.endpoint).collect();
        assert_eq!(due, all.iter().map(|endpoint| endpoint.id.clone()).collect());
    };
    let [third, fourth] = &world.elsewhere.endpoints;
    due(boss.now, &[first, second, third, fourth]).await;
    for delivery in &world.elsewhere.deliveries[0] {
        store.claim_delivery(third, delivery, boss.now, until).await.expect("claimed");
    }
    due(boss.now, &[first, second, fourth]).await;
    world.reaches("an attempt", told, store.claim_delivery(first, &of_first[0], boss.now, until)).await;
    let ended = |outcome, pause| Attempted {
        at: boss.now,
        next_at: None,
        outcome: Some(outcome),
        status: Some(204),
        error: None,
        pause,
        disable: None,
    };
    let failed = ended("failed", Some(until));
    for (endpoint, delivery) in [(first, &of_first[1]), (second, &of_second[0])] {
        store.claim_delivery(endpoint, delivery, boss.now, until).await.expect("claimed");
    }
    due(boss.now, &[second, fourth]).await;
    // Another attempt is under way: what the one before came to is nobody's any more, though others are at their first.
    let again = store.due_deliveries(first, until, 1).await.expect("it answers").remove(0);
    store.claim_delivery(first, &again, until, until.plus_seconds(60)).await.expect("claimed");
    let before = world.rows().await;
    store.note_attempt(first, &again, 1, &failed).await.expect("it answers");
    assert_eq!(world.rows().await, before);
    let own: &[&[&str]] = &[&[id, event_id], &[id, "webhook_endpoints"]];
    world.reaches("a failure", own, store.note_attempt(first, &again, 2, &failed)).await;
    let before = world.rows().await;
    store.note_attempt(first, &again, 2, &ended("failed", Some(until.plus_seconds(60)))).await.expect("it answers");
    assert_eq!(world.rows().await, before, "it has ended");
    due(until, &[first, second, third, fourth]).await;
    let (id, event_id) = (first.id.as_str(), of_first[1].event_id.as_str());
    let own: &[&[&str]] = &[&[id, event_id], &[id, "webhook_endpoints"]];
    world.reaches("a success", own, store.note_attempt(first, &of_first[1], 1, &ended("delivered", None))).await;
    due(until, &[second, third, fourth]).await;
    let own: &[&[&str]] = &[&[id, "webhook_endpoints"]];
    world.reaches("events handed out", own, store.hand_out(first, 7, &[], boss.now)).await;
    for change in [
        EndpointChange { url: Some("https://new.invalid/".to_owned()), ..EndpointChange::default() },
        EndpointChange { kinds: Some(Some(Vec::new())), ..EndpointChange::default() },
        EndpointChange { description: Some(Some("ours".to_owned())), ..EndpointChange::default() },
    ] {
        let event = boss.event("x");
        world.reaches("a change", own, store.change_webhook_endpoint(rp, &first.id, &change, &event)).await;
    }
    let event = boss.event("x");
    world.reaches("new secrets", own, store.replace_webhook_secrets(first, &[2], &event)).await;
    let another = super::tried(&boss, first, 3);
    let third = another.event_id.as_str();
    world.reaches("a trial", &[&[id, third]], store.queue_delivery(&another, 1)).await;
    // What failed under the secrets before says nothing of the endpoint.
    super::lost(store.claim_delivery(first, &another, boss.now, until).await, Contest::Row);
    let now = store.webhook_endpoint(rp, &first.id).await.expect("it answers").expect("it is there");
    store.claim_delivery(&now, &another, boss.now, until).await.expect("claimed");
    let former = Endpoint { url: "https://new.invalid/".to_owned(), ..first.clone() };
    world.reaches("an old failure", &[&[id, third]], store.note_attempt(&former, &another, 1, &failed)).await;
    let enabled = |on| EndpointChange { enabled: Some(on), ..EndpointChange::default() };
    let (event, off, on) = (boss.event("x"), enabled(false), enabled(true));
    let dropped: &[&[&str]] = &[&[id, "webhook_endpoints"], &[id, third]];
    world.reaches("a pause", dropped, store.change_webhook_endpoint(rp, &first.id, &off, &event)).await;
    super::lost(store.queue_delivery(&super::tried(&boss, first, 4), 9).await, Contest::Row);
    let event = boss.event("x");
    store.change_webhook_endpoint(rp, &second.id, &off, &event).await.expect("both are disabled");
    let event = boss.event("x");
    world.reaches("an end of it", own, store.change_webhook_endpoint(rp, &first.id, &on, &event)).await;
    let own: &[&[&str]] = &[&[id, "webhook_endpoints"], &[id, "webhook_deliveries"]];
    let event = boss.event("x");
    world.reaches("a removal", own, store.remove_webhook_endpoint(rp, &first.id, &event)).await;
    assert_eq!(store.deliveries(rp, &second.id, None, 9).await.expect("it answers").len(), of_second.len());

    let (key, event) = (&keys[0].0, boss.event("x"));
    let own: &[&[&str]] = &[&[key.id.as_str()]];
    world.reaches("a key's use", own, store.note_key_use(&key.id, boss.now, boss.now)).await;
    world.reaches("a key's end", own, store.revoke_api_key(&key.id, &event)).await;
    let (own, event): (&[&[&str]], _) = (&[&[keys[1].0.id.as_str()]], boss.event("x"));
    world.reaches("the end of all keys", own, store.revoke_api_keys_of(rp, &event)).await;
    let (own, event): (&[&[&str]], _) = (&[&["relying_parties", rp.as_str()]], boss.event("x"));
    world.reaches("addresses", own, store.set_addresses(rp, &[], &[], &event)).await;
}

/// What is asked by an id, a hash or a name is answered of that row and its own.
#[tokio::test]
async fn what_is_asked_of_one_is_answered_of_no_other() {
    for scratch in Scratch::all().await {
        let world = World::new(scratch).await;
        for home in [&world.zoe, &world.kim, &world.other] {
            asked(home).await;
        }
        entered(&world).await;
        for office in [&world.office, &world.elsewhere] {
            asked_of_office(&world.zoe.person.store, office, world.zoe.person.now).await;
        }
    }
}

async fn asked(home: &Home) {
    let Home { person, factors, pending, open, approved, sessions, recovery, unconfirmed, visits, held } = home;
    let (store, rp, user, now) = (&person.store, &person.rp, person.user_id.as_str(), person.now);
    let mut all: Vec<&Id> = factors.iter().chain(pending).map(|factor| &factor.id).collect();
    all.sort();
    for (challenge, prompts) in open {
        let (found, dossier) = store.case(rp, &challenge.id, now).await.expect("it answers").expect("it is there");
        assert_eq!((&found.id, found.user_id.as_str()), (&challenge.id, user));
        let awaited: BTreeSet<&Id> = dossier.prompts.iter().map(|prompt| &prompt.id).collect();
        assert_eq!(awaited, prompts.iter().map(|prompt| &prompt.id).collect());
        assert_eq!(dossier.factors.iter().map(|factor| &factor.id).collect::<Vec<_>>(), all);
        assert_eq!(dossier.throttles.len(), 2);
        let codes = dossier.recovery.expect("codes");
        assert_eq!((codes.total, codes.remaining, codes.status), (2, 2, RecoveryStatus::Active));
        let (party, found, _) = store.any_case(&challenge.id, now).await.expect("it answers").expect("it is there");
        assert_eq!((&party.id, &found.id), (rp, &challenge.id));
        for prompt in prompts {
            let found = store.prompt(rp, user, &challenge.id, prompt.method).await.expect("it answers");
            assert_eq!(found.map(|found| found.id), Some(prompt.id.clone()));
        }
    }
    for challenge in approved {
        let (found, dossier) = store.case(rp, &challenge.id, now).await.expect("it answers").expect("it is there");
        assert_eq!((&found.id, dossier.prompts.len()), (&challenge.id, 0));
    }
    for factor in factors.iter().chain(pending) {
        let found = store.factor(rp, user, &factor.id).await.expect("it answers").expect("it is there");
        assert_eq!((&found.id, &found.name), (&factor.id, &factor.name));
    }
    let holder = store.credential_holder(rp, &format!("two of {user}")).await.expect("it answers");
    assert_eq!(holder.as_deref(), Some(user));
    for new in sessions {
        let by_id = store.session(rp, &new.session.id).await.expect("it answers").expect("it is there");
        let by_token = store.session_by_token(rp, &new.token_hash).await.expect("it answers").expect("it is there");
        assert_eq!((&by_id.id, &by_token.id), (&new.session.id, &new.session.id));
        let id = new.session.id.sibling(Kind::Challenge);
        let case = store.case(rp, &id, now).await.expect("it answers");
        let any = store.any_case(&id, now).await.expect("it answers");
        let expected = new.challenge.as_ref().map(|challenge| (challenge.id.clone(), user.to_owned(), all.len()));
        assert_eq!(case.map(|(found, dossier)| (found.id, found.user_id, dossier.factors.len())), expected);
        assert_eq!(any.map(|(_, found, dossier)| (found.id, found.user_id, dossier.factors.len())), expected);
    }
    let mut ids = sessions.each_ref().map(|new| &new.session.id);
    // Both are of one moment: the greater id counts as the newer.
    ids.sort();
    let [older, newer] = ids;
    let listed = async |at: Timestamp, behind: Option<&Id>, ids: &[&Id]| {
        let page = store.sessions_of(rp, user, at, behind, 9).await.expect("it answers");
        assert_eq!(page.iter().map(|session| &session.id).collect::<Vec<_>>(), ids);
    };
    listed(now, None, &[newer, older]).await;
    listed(now, Some(newer), &[older]).await;
    listed(now.plus_seconds(600), None, &[]).await;
    let redeems = store.recovery_set(rp, user).await.expect("it answers").expect("a set");
    assert_eq!((&redeems.id, BTreeSet::from_iter(&redeems.unused)), (&recovery.id, recovery.unused.iter().collect()));
    let summary = store.recovery_summary(rp, user, RecoveryStatus::Unconfirmed).await.expect("it answers");
    assert_eq!((summary.total, summary.status), (unconfirmed.unused.len() as i64, RecoveryStatus::Unconfirmed));
    for visit in visits {
        let found = store.portal_session(&visit.id).await.expect("it answers").expect("it is there");
        assert_eq!((&found.id, &found.user_id, &found.rp_id), (&visit.id, &person.user_id, rp));
    }
    let elsewhere = now.plus_seconds(-60);
    for id in held {
        assert_eq!(
            store.kept(rp, id, elsewhere).await.expect("it answers").map(|kept| kept.user_id),
            Some(user.to_owned())
        );
    }
    assert!(store.kept(rp, "nobody's", elsewhere).await.expect("it answers").is_none());
}

/// A key opens what is its relying party's, and of that what is named.
async fn entered(world: &World) {
    let (own, foreign) = (&world.office.keys[1].1, &world.elsewhere.keys[1].1);
    let Home { person, open, sessions, .. } = &world.zoe;
    let (store, now) = (&person.store, person.now);
    for (challenge, _) in open {
        let (_, rp, case) = store.enter_case(own, &challenge.id, now).await.expect("it answers").expect("it opens");
        assert_eq!((&rp.id, case.map(|(found, _)| found.id)), (&person.rp, Some(challenge.id.clone())));
        let (_, _, case) = store.enter_case(foreign, &challenge.id, now).await.expect("it answers").expect("it opens");
        assert!(case.is_none(), "it is another relying party's");
        assert!(store.enter_case(b"no key", &challenge.id, now).await.expect("it answers").is_none());
    }
    for new in sessions {
        for which in [Which::Id(&new.session.id), Which::Token(&new.token_hash)] {
            let (.., found) = store.enter_session(own, which, now).await.expect("it answers").expect("it opens");
            assert_eq!(found.map(|found| found.id), Some(new.session.id.clone()));
            let (.., found) = store.enter_session(foreign, which, now).await.expect("it answers").expect("it opens");
            assert!(found.is_none(), "it is another relying party's");
        }
        let id = new.session.id.sibling(Kind::Challenge);
        let (.., case) = store.enter_case(own, &id, now).await.expect("it answers").expect("it opens");
        assert_eq!(case.map(|(found, _)| found.id), new.challenge.as_ref().map(|challenge| challenge.id.clone()));
        let (.., case) = store.enter_case(foreign, &id, now).await.expect("it answers").expect("it opens");
        assert!(case.is_none(), "it is another relying party's");
    }
}

async fn asked_of_office(store: &Store, office: &Office, now: Timestamp) {
    for (endpoint, told) in office.endpoints.iter().zip(&office.deliveries) {
        let rp = &endpoint.rp_id;
        let found = store.webhook_endpoint(rp, &endpoint.id).await.expect("it answers").expect("it is there");
        assert_eq!(found.id, endpoint.id);
        assert_eq!(store.count_undelivered(endpoint).await.expect("it answers"), 2);
        let own = |deliveries: Vec<Delivery>| {
            let its = |d: &Delivery| (d.endpoint_id.clone(), d.event_id.clone());
            assert_eq!(BTreeSet::from_iter(deliveries.iter().map(its)), BTreeSet::from_iter(told.iter().map(its)));
        };
        own(store.deliveries(rp, &endpoint.id, None, 9).await.expect("it answers"));
        own(store.due_deliveries(endpoint, now, 9).await.expect("it answers"));
        let page = store.deliveries(rp, &endpoint.id, Some(&told[1].event_id), 9).await.expect("it answers");
        assert_eq!(page.iter().map(|d| &d.event_id).collect::<Vec<_>>(), [&told[0].event_id]);
        // As many as may wait do, of this endpoint alone.
        super::lost(
            store.queue_delivery(&Delivery { event_id: Id::bound(Kind::Event, now), ..told[0].clone() }, 2).await,
            Contest::Limit,
        );
    }
    for (key, hash) in &office.keys {
        let (found, party) = store.api_key(hash, now).await.expect("it answers").expect("it opens");
        assert_eq!((&found.id, &party.id), (&key.id, &key.rp_id));
    }
}

/// What was used up, removed or erased since a backup stays so when that is restored, and its neighbours are as they were.
#[tokio::test]
async fn what_a_restoration_takes_back_is_nobody_elses() {
    let world = World::new(Scratch::sqlite()).await;
    let Database::Sqlite(file) = world.scratch.storage.database.clone() else { panic!("it is SQLite") };
    let backup = file.with_file_name("backup.db");
    let (Home { person, factors, recovery, .. }, other) = (&world.zoe, &world.other);
    let (store, rp, user) = (&person.store, &person.rp, person.user_id.as_str());
    let then = world.rows().await;
    store.backup(&backup).await.expect("a backup");

    let code = FactorChange::RecoveryCode(recovery.id.clone(), recovery.unused[0].clone());
    store.settle(Settlement { factor: Some(code), ..person.nothing() }).await.expect("a code");
    store
        .remove_factor(rp, user, &factors[1].id, Removal::ButTheLast, None, &person.event("x"))
        .await
        .expect("removed");
    let (stands, event) = (Standing::default(), other.person.event("x"));
    store.confirm_recovery_set(&other.person.rp, user, None, &stands, &event).await.expect("the set before is gone");
    let (key, endpoint) = (&world.office.keys[0].0.id, &world.office.endpoints[0].id);
    store.revoke_api_key(key, &person.event("x")).await.expect("revoked");
    store.remove_webhook_endpoint(rp, endpoint, &person.event("x")).await.expect("removed");
    store.erase_user(rp, "kim", "usr_gone", &world.kim.person.event("x")).await.expect("erased");
    store.close().await;

    let own: [&[&str]; 7] = [
        &[recovery.id.as_str(), "a1a1a1a1"],
        &[factors[1].id.as_str()],
        &[other.recovery.id.as_str()],
        &[key.as_str()],
        &[endpoint.as_str()],
        &[rp.as_str(), "kim"],
        &[rp.as_str(), "usr_gone"],
    ];
    // What is open ends for everybody, as the factors that were not active and the codes that were not confirmed.
    let open = ["prompts: ", "challenges: ", "sessions: ", "portal_sessions: "];
    let pending = [&world.zoe, &world.kim, other].map(|home| &home.pending);
    let pending: Vec<&Factor> = pending.into_iter().flatten().collect();
    let unconfirmed = [&world.zoe, &world.kim, other].map(|home| home.unconfirmed.id.as_str());
    let ends = |row: &str| {
        open.iter().any(|table| row.starts_with(table))
            || pending.iter().any(|f| row.contains(f.id.as_str()))
            || unconfirmed.iter().any(|id| row.contains(id))
    };
    // Every app's last step is 5: none is set back to 4, and none is another method's.
    for (turn, steps) in [("totp", 4), ("webauthn", 7)].into_iter().enumerate() {
        let restoration = Restoration { now: person.now.plus_seconds(turn as i64), steps, suits: |_| true };
        Store::restore(&file, &backup, restoration).await.expect("restored");
        let now = world.rows().await;
        let changed: Vec<&String> = then.symmetric_difference(&now).filter(|row| !ends(row)).collect();
        let is_own = |row: &str| own.iter().any(|words| words.iter().all(|word| row.contains(word)));
        let strange: Vec<_> = changed.iter().filter(|row| !is_own(row)).collect();
        assert!(strange.is_empty(), "{steps:?}: {strange:#?}");
        assert!(!now.iter().any(|row| unconfirmed.iter().any(|id| row.contains(id))), "nobody confirms them any more");
        for words in own {
            assert!(changed.iter().any(|row| words.iter().all(|word| row.contains(word))), "{words:?} came back");
        }
    }
}
