//! Attack classes of `docs/attacks.md` that no other module tells: what the engine gives away, what it may be talked into by
//! headers, and whose rows a name of another relying party reaches.

use countersign::clock::Stopwatch;

use crate::support::authenticator::AssertionLie;
use crate::support::{Answer, Challenge, User, Value, ann, at_once, json};

/// Calls of each kind, and how many are got ready at a time.
const CALLS: usize = 1000;
const BATCH: usize = 50;

/// What an answer says, without what is new in each.
fn said(answer: Answer) -> (u16, Value) {
    let mut body = answer.body;
    for member in ["request_id", "user_id", "attempts_left", "id", "expires_at", "url", "client_token"] {
        if let Some(object) = body.as_object_mut() {
            object.remove(member);
        }
    }
    (answer.status, body)
}

/// The difference of two kinds of calls that counts as none, as a part of what a call takes: a row that is there is read, one that
/// is not is not, and without optimisation that alone shows as a twentieth.
const ALIKE: f64 = 0.1;

/// Whether two kinds of calls take as long, measured in turn one by one. `make` gets some ready, which is not measured, and `call`
/// asks. They may differ by [`ALIKE`], or by what calls of one kind differ among themselves in the same run, where the machine is
/// busy; three runs in a row do not do more than that by chance.
async fn take_as_long<T, A, B>(make: impl AsyncFn(usize) -> Vec<T>, call: impl Fn(T) -> A) -> bool
where
    T: Send + 'static,
    A: Future<Output = B>,
{
    for _ in 0..3 {
        let mut blocks = Vec::new();
        for _ in 0..CALLS / BATCH {
            let mut ready = [make(0).await.into_iter(), make(1).await.into_iter()];
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..BATCH {
                for kind in [round % 2, (round + 1) % 2] {
                    let one = ready[kind].next().expect("as many as were asked for");
                    let begun = Stopwatch::start();
                    call(one).await;
                    times[kind].push(begun.seconds() * 1e3);
                }
            }
            blocks.push(times);
        }
        let (apart, spread, usual) = compared(&blocks);
        println!("{usual:.3} ms a call; kinds differ by {apart:.4} ms, calls of one kind by {spread:.4} ms");
        if apart.abs() <= spread.max(ALIKE * usual) {
            return true;
        }
    }
    false
}

/// How far two kinds are apart, how far halves of one kind are, and what a call takes: by medians of blocks.
fn compared(blocks: &[[Vec<f64>; 2]]) -> (f64, f64, f64) {
    let of_kind = |kind: usize| blocks.iter().map(move |block| &block[kind]);
    let apart = of_kind(0).zip(of_kind(1)).map(|(one, two)| median(one) - median(two));
    // Two and two, so that in each half as many calls came first in their round as second.
    let half = |times: &[f64], which: usize| {
        let half: Vec<f64> = times.chunks(2).skip(which).step_by(2).flatten().copied().collect();
        median(&half)
    };
    let halves = of_kind(0).chain(of_kind(1)).map(|times| (half(times, 0) - half(times, 1)).abs());
    let all: Vec<f64> = of_kind(0).chain(of_kind(1)).flatten().copied().collect();
    (median(&apart.collect::<Vec<_>>()), median(&halves.collect::<Vec<_>>()), median(&all))
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The measure itself: noise and outliers are no difference, nor is a twentieth; a seventh more for one kind is.
#[test]
fn a_difference_in_time_is_seen_through_noise() {
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 33) as f64 / f64::from(1_u32 << 31);
        if unit > 0.98 { 5.0 } else { unit * 0.2 }
    };
    for (slower, seen) in [(0.0, false), (0.05, false), (0.15, true), (-0.15, true)] {
        let mut block = || [0.0, slower].map(|more| (0..BATCH).map(|_| 1.0 + more + noise()).collect());
        let blocks: Vec<[Vec<f64>; 2]> = (0..CALLS / BATCH).map(|_| block()).collect();
        let (apart, spread, usual) = compared(&blocks);
        assert_eq!(apart.abs() > spread.max(ALIKE * usual), seen, "{slower}: {apart} {spread} {usual}");
    }
}

/// 3.25: a user that nobody ever named, and one that has nothing enrolled.
#[tokio::test]
async fn an_unknown_user_cannot_be_told_from_one_with_nothing_enrolled() {
    let ann = ann().await;
    let bank = ann.bank.clone();
    bank.put(&ann.path(""), json!({})).await.is(200);
    let app = ann.enrol_totp().await;
    ann.remove(&app.id).await.is(204);
    let bob = bank.user("bob");
    for terms in [
        json!({}),
        json!({"action": "payout", "require": {"acr": "phr"}}),
        json!({"answer": {"type": "totp", "code": "123456"}}),
        json!({"answer": {"type": "recovery_code", "code": "0000-0000-0000-0000"}}),
        json!({"session_token": "st_unknown"}),
    ] {
        let (known, unknown) = (said(ann.ask(terms.clone()).await), said(bob.ask(terms).await));
        assert_eq!(known, unknown);
    }
    for path in ["", "/factors", "/recovery-codes", "/sessions"] {
        let (known, unknown) = (said(bank.get(&ann.path(path)).await), said(bank.get(&bob.path(path)).await));
        assert_eq!(known, unknown, "{path}");
    }
    let make = async |kind: usize| vec![bank.user(["ann", "bob"][kind]); BATCH];
    let call = async |user: User| user.ask(json!({"answer": {"type": "totp", "code": "123456"}})).await.is(200);
    assert!(take_as_long(make, call).await, "they differ in time");
}

/// 3.18, 3.25: a credential id of somebody else's, and one that nobody ever registered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_credential_id_cannot_be_told_from_an_unknown_one() {
    let ann = ann().await;
    ann.enrol_passkey().await;
    let foreign = ann.bank.user("bob").enrol_passkey().await.device.credentials[0].id.clone();
    let unknown: Vec<u8> = foreign.iter().map(|b| b ^ 0x5a).collect();
    let make = async |kind: usize| {
        let id = if kind == 0 { foreign.clone() } else { unknown.clone() };
        at_once(BATCH, |_| {
            let (ann, id) = (ann.clone(), id.clone());
            async move {
                let challenge = ann.challenge(json!({})).await;
                let options = challenge.request_options().await;
                let mut device = ann.device();
                let credential = device.get_lying(&options, &AssertionLie::with_credential_id(&id));
                (challenge, json!({"type": "webauthn", "credential": credential}))
            }
        })
        .await
    };
    let call = async |(challenge, answer): (Challenge, Value)| challenge.verify(answer).await;
    let mut answers = Vec::new();
    for kind in 0..2 {
        let (challenge, answer) = make(kind).await.swap_remove(0);
        answers.push(said(call((challenge, answer)).await));
    }
    assert_eq!((answers[0].0, &answers[0].1["code"]), (422, &json!("credential_unknown")));
    assert_eq!(answers[0], answers[1]);
    assert!(take_as_long(make, call).await, "they differ in time");
}

/// T-11, 3.9: whoever began an enrolment proves nothing with it, beside an active app or alone.
#[tokio::test]
async fn a_pending_factor_answers_no_challenge() {
    let ann = ann().await;
    let alone = ann.begin_totp().await;
    assert_eq!(ann.ask(json!({"answer": alone.now()})).await.is(200)["status"], "enrolment_required");
    let app = ann.enrol_totp().await;
    let pending = ann.begin_totp().await;
    let challenge = ann.challenge(json!({})).await;
    assert_eq!(challenge.body["methods"].as_array().expect("a list").len(), 1);
    challenge.verify(pending.now()).await.refused(422, "code_incorrect");
    let named = json!({"type": "totp", "code": pending.code(), "factor_id": pending.id});
    challenge.verify(named).await.refused(422, "method_not_allowed");
    challenge.verify(app.now()).await.is(200);
}

/// 3.10: an answer is charged to whom it was asked of, whatever it names.
#[tokio::test]
async fn a_wrong_answer_moves_the_counter_of_who_was_asked_alone() {
    let ann = ann().await;
    let bob = ann.bank.user("bob");
    let (of_ann, of_bob) = (ann.enrol_totp().await, bob.enrol_totp().await);
    for _ in 0..2 {
        let challenge = ann.challenge(json!({})).await;
        let named = json!({"type": "totp", "code": of_bob.code(), "factor_id": of_bob.id});
        challenge.verify(named).await.refused(422, "method_not_allowed");
        for _ in 0..5 {
            challenge.verify(of_bob.now()).await.refused(422, "code_incorrect");
        }
    }
    ann.challenge(json!({})).await.verify(of_ann.now()).await.refused(429, "method_paused");
    assert_eq!(bob.shown().await["paused"], json!([]));
    bob.challenge(json!({})).await.verify(of_bob.now()).await.is(200);
}

/// 3.38: no header moves the RP ID, the origin, the addresses that the engine gives out, or the user.
#[tokio::test]
async fn no_header_says_who_the_engine_is_or_who_is_asked() {
    let ann = ann().await;
    let issuer = ann.bank.world.issuer();
    let mut caller = ann.bank.server.clone();
    for (name, value) in [
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "host=evil.example;proto=https"),
        ("x-original-url", "/v1/users/bob"),
        ("x-rewrite-url", "/v1/users/bob"),
        ("x-http-method-override", "DELETE"),
        ("x-user-id", "bob"),
        ("host", "evil.example"),
    ] {
        caller = caller.with(name, value);
    }
    let begun = caller.post(&ann.path("/factors"), json!({"type": "webauthn"})).await.is(201);
    assert_eq!(begun["webauthn"]["creation_options"]["rp"]["id"], "bank.example");
    ann.enrol_totp().await;
    let challenge = caller.post("/v1/challenges", json!({"user_id": "ann"})).await.is(201);
    assert_eq!(challenge["user_id"], "ann");
    assert!(challenge["url"].as_str().is_some_and(|url| url.starts_with(&issuer)), "{challenge}");
    assert_eq!(caller.get(&ann.path("")).await.is(200)["user_id"], "ann");
    let problem = caller.get("/v1/users/ann/factors/fac_1").await.refused(404, "not_found");
    assert!(!problem.to_string().contains("evil.example"), "{problem}");
}

/// 3.33; issue 4.5: no row of another relying party is reachable by any id, cursor, idempotency key or event. (By ids on every
/// call: `conventions::nothing_of_another_relying_party_is_reachable`.)
#[tokio::test]
async fn no_row_of_another_relying_party_is_reachable() {
    let ann = ann().await;
    let world = ann.bank.world.clone();
    let shop = world.party("Shop", "shop.example", false).await;
    let there = shop.user("ann");
    let (app, other) = (ann.enrol_totp().await, there.enrol_totp().await);
    let session = ann.session(&app, json!({})).await;
    let of_shop = there.session(&other, json!({})).await;
    // Cursors: an id of theirs is a place in one's own list.
    for (list, theirs, own) in
        [("factors", &json!(app.id), &json!(other.id)), ("sessions", &session["id"], &of_shop["id"])]
    {
        for cursor in [String::new(), format!("&cursor={}", theirs.as_str().expect("an id"))] {
            let page = shop.get(&there.path(&format!("/{list}?limit=100{cursor}"))).await.is(200);
            for row in page["data"].as_array().expect("a list") {
                assert_eq!(&row["id"], own, "{list} {cursor}");
            }
        }
    }
    // Idempotency keys: the same key, path and body is another call.
    let body = json!({"user_id": "ann"});
    let first = ann.bank.with("idempotency-key", "one").post("/v1/challenges", body.clone()).await;
    let second = shop.with("idempotency-key", "one").post("/v1/challenges", body).await;
    assert_eq!(second.header("idempotent-replayed"), None);
    let (first, second) = (first.is(201), second.is(201));
    assert_ne!(first["id"], second["id"]);
    // A session of theirs lets nothing through, and their client token opens nothing of ours.
    let through = json!({"user_id": "ann", "session_token": session["token"]});
    assert_eq!(shop.post("/v1/challenges", through).await.is(201)["status"], "pending");
    let token = first["client_token"].as_str().expect("a token");
    let browser = world.caller(token).with("origin", shop.origin());
    browser
        .get(&format!("/v1/challenges/{}", second["id"].as_str().expect("an id")))
        .await
        .refused(403, "origin_not_allowed");
    let browser = world.caller(token).with("origin", ann.bank.origin());
    browser
        .get(&format!("/v1/challenges/{}", second["id"].as_str().expect("an id")))
        .await
        .refused(401, "client_token_invalid");
    // Events, by any filter.
    world.seal().await;
    let ours = ann.bank.get("/v1/events?limit=100").await.is(200);
    let last = ours["data"].as_array().expect("a list").last().expect("some")["sequence"].clone();
    for filter in [String::new(), "&user_id=ann".to_owned(), "&cursor=0".to_owned(), format!("&cursor={last}")] {
        let seen = shop.get(&format!("/v1/events?limit=100{filter}")).await.is(200).to_string();
        for event in ours["data"].as_array().expect("a list") {
            assert!(!seen.contains(event["id"].as_str().expect("an id")), "{filter}");
        }
    }
}
