//! `Idempotency-Key` (api.md, 3; issue 4, 2): whoever asks the same again gets the first answer, and nothing is done twice, least
//! of all a guess.

use std::time::Duration;

use base64::Engine as _;
use countersign::clock::Stopwatch;
use countersign::model::Scope;
use reqwest::Method;

use crate::support::app::{base32, totp};
use crate::support::child::Place;
use crate::support::database::Scratch;
use crate::support::document::is_of;
use crate::support::gateway::Mood;
use crate::support::verbs::{claims, text};
use crate::support::{Answer, Bank, Caller, Value, World, at_once, json, until};

/// One POST that has not been asked yet.
#[derive(Clone)]
struct Call {
    caller: Caller,
    path: String,
    body: Value,
    status: u16,
}

impl Call {
    fn new(caller: &Caller, path: impl Into<String>, body: Value, status: u16) -> Call {
        Call { caller: caller.clone(), path: path.into(), body, status }
    }

    async fn with_key(&self, key: &str) -> Answer {
        let caller = self.caller.with("idempotency-key", key);
        let body = if self.body.is_null() { None } else { Some(self.body.clone()) };
        caller.call(Method::POST, &self.path, body).await
    }
}

/// Every call that is tried, by the name of what it does.
const ALL: [&str; 28] = [
    "open",
    "open with an answer",
    "open with a wrong answer",
    "open on a session",
    "open for nobody",
    "prepare a passkey",
    "prepare a text",
    "answer with an app",
    "answer wrongly",
    "answer from a browser",
    "answer with a recovery code",
    "answer with a passkey",
    "exchange",
    "cancel",
    "add an app",
    "add a passkey",
    "add a phone",
    "add from a browser",
    "activate",
    "activate wrongly",
    "resend",
    "make recovery codes",
    "confirm recovery codes",
    "consume",
    "visit",
    "make an endpoint",
    "rotate its secret",
    "try an endpoint",
];

/// Members that are seen once.
const SECRETS: [&str; 9] = [
    "/session/token",
    "/session/jwt",
    "/totp/secret",
    "/totp/otpauth_uri",
    "/totp/qr_svg",
    "/codes",
    "/client_token",
    "/url",
    "/code",
];

/// A user of each call's own, made ready for it.
async fn ready(bank: &Bank, name: &str, number: usize) -> Call {
    let user = bank.user(&format!("{name} {number}"));
    let phone = format!("+1415555{:04}", 100 + number);
    let call = |path: String, body: Value, status| Call::new(bank, path, body, status);
    let open = |terms: Value| {
        let mut body = terms;
        body["user_id"] = json!(user.id);
        body
    };
    let verify = |challenge: &crate::support::Challenge| challenge.path("/verify");
    match name {
        "open" => {
            user.enrol_totp().await;
            call("/v1/challenges".to_owned(), open(json!({})), 201)
        }
        "open with an answer" => {
            let app = user.enrol_totp().await;
            call("/v1/challenges".to_owned(), open(json!({"answer": app.now()})), 200)
        }
        "open with a wrong answer" => {
            let app = user.enrol_totp().await;
            call("/v1/challenges".to_owned(), open(json!({"answer": app.miss()})), 422)
        }
        "open on a session" => {
            let app = user.enrol_totp().await;
            let session = user.session(&app, json!({})).await;
            call("/v1/challenges".to_owned(), open(json!({"session_token": session["token"]})), 200)
        }
        "open for nobody" => call("/v1/challenges".to_owned(), open(json!({})), 200),
        "prepare a passkey" => {
            user.enrol_passkey().await;
            let challenge = user.challenge(json!({})).await;
            call(challenge.path("/prepare"), json!({"type": "webauthn"}), 200)
        }
        "prepare a text" => {
            user.enrol_phone(&phone).await;
            let challenge = user.challenge(json!({})).await;
            bank.world.wait(60);
            call(challenge.path("/prepare"), json!({"type": "sms"}), 200)
        }
        "answer with an app" => {
            let app = user.enrol_totp().await;
            let challenge = user.challenge(json!({})).await;
            call(verify(&challenge), app.now(), 200)
        }
        "answer wrongly" => {
            let app = user.enrol_totp().await;
            let challenge = user.challenge(json!({})).await;
            call(verify(&challenge), app.miss(), 422)
        }
        "answer from a browser" => {
            let app = user.enrol_totp().await;
            let challenge = user.challenge(json!({})).await;
            Call::new(&challenge.browser(), verify(&challenge), app.now(), 200)
        }
        "answer with a recovery code" => {
            user.enrol_totp().await;
            let code = user.recovery_codes().await.remove(0);
            let challenge = user.challenge(json!({})).await;
            call(verify(&challenge), json!({"type": "recovery_code", "code": code}), 200)
        }
        "answer with a passkey" => {
            let mut passkey = user.enrol_passkey().await;
            let challenge = user.challenge(json!({})).await;
            call(verify(&challenge), passkey.answer(&challenge).await, 200)
        }
        "exchange" => {
            let app = user.enrol_totp().await;
            let challenge = user.challenge(json!({})).await;
            let code = challenge.browser().post(&verify(&challenge), app.now()).await.is(200)["code"].clone();
            call(challenge.path("/exchange"), json!({"code": code}), 200)
        }
        "cancel" => {
            user.enrol_totp().await;
            let challenge = user.challenge(json!({})).await;
            call(challenge.path("/cancel"), Value::Null, 200)
        }
        "add an app" => call(user.path("/factors"), json!({"type": "totp"}), 201),
        "add a passkey" => call(user.path("/factors"), json!({"type": "webauthn"}), 201),
        "add a phone" => call(user.path("/factors"), json!({"type": "sms", "phone": phone}), 201),
        "add from a browser" => {
            let browser = user.browser(None).await;
            Call::new(&browser, user.path("/factors"), json!({"type": "totp"}), 201)
        }
        "activate" | "activate wrongly" => {
            let app = user.begin_totp().await;
            let path = user.path(&format!("/factors/{}/activate", app.id));
            match name {
                "activate" => call(path, json!({"code": app.code()}), 200),
                _ => call(path, json!({"code": app.wrong()}), 422),
            }
        }
        "resend" => {
            let begun = user.begin_phone(&phone).await;
            bank.world.wait(60);
            call(user.path(&format!("/factors/{}/resend", begun.id)), Value::Null, 200)
        }
        "make recovery codes" => {
            user.enrol_totp().await;
            call(user.path("/recovery-codes"), json!({}), 201)
        }
        "confirm recovery codes" => {
            user.enrol_totp().await;
            bank.post(&user.path("/recovery-codes"), json!({"require_confirmation": true})).await.is(201);
            call(user.path("/recovery-codes/confirm"), json!({}), 200)
        }
        "consume" => {
            let app = user.enrol_totp().await;
            let session = user.session(&app, json!({})).await;
            call("/v1/sessions/introspect".to_owned(), json!({"token": session["token"], "consume": true}), 200)
        }
        "visit" => call("/v1/portal-sessions".to_owned(), json!({"user_id": user.id, "flow": "settings"}), 201),
        "make an endpoint" | "rotate its secret" | "try an endpoint" => {
            let admin = bank.world.caller(&bank.world.key(&bank.rp, &[Scope::Admin], None).await);
            let hooks = "/v1/webhook-endpoints";
            let new = json!({"url": "https://hooks.invalid/", "events": ["database.restored"]});
            if name == "make an endpoint" {
                return Call::new(&admin, hooks.to_owned(), new, 201);
            }
            let id = text(&admin.post(hooks, new).await.is(201)["id"]);
            match name {
                "rotate its secret" => Call::new(&admin, format!("{hooks}/{id}/rotate-secret"), Value::Null, 200),
                _ => Call::new(&admin, format!("{hooks}/{id}/test"), Value::Null, 202),
            }
        }
        _ => panic!("{name} is not told apart"),
    }
}

/// A key of the call's own.
fn key(name: &str, what: &str) -> String {
    format!("{}-{what}", name.replace(' ', "-"))
}

/// How many rows there are of everything that a call can bring about.
async fn effects(world: &World) -> Vec<i64> {
    let tables = [
        "events",
        "factors",
        "challenges",
        "prompts",
        "sessions",
        "portal_sessions",
        "messages",
        "recovery_codes",
        "webhook_endpoints",
        "webhook_deliveries",
    ];
    let mut counts = Vec::new();
    for table in tables {
        counts.push(world.scratch.number(&format!("select count(*) from {table}")).await);
    }
    counts.push(world.gateway.asked() as i64);
    counts
}

/// An answer to the byte, but for the signature of its JWT, which is another each time.
fn unsigned(answer: &Answer) -> String {
    let body = String::from_utf8(answer.bytes.to_vec()).expect("UTF-8");
    match answer.body.pointer("/session/jwt").and_then(Value::as_str) {
        Some(jwt) => body.replace(jwt, &claims(&json!(jwt)).to_string()),
        None => body,
    }
}

/// The same answer, said to be one that was given before.
#[track_caller]
fn same(again: &Answer, first: &Answer) {
    assert_eq!((again.status, unsigned(again)), (first.status, unsigned(first)));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.header("idempotent-replayed"), None);
}

/// I-01: status and body are the first, and nothing is done a second time.
#[tokio::test]
async fn every_post_gives_its_first_answer_again() {
    let world = World::start().await;
    let bank = world.bank().await;
    let mut covered = Vec::new();
    for (number, name) in ALL.into_iter().enumerate() {
        let call = ready(&bank, name, number).await;
        let first = call.with_key(&key(name, "again")).await;
        assert_eq!(first.status, call.status, "{name}: {}", first.body);
        let done = effects(&world).await;
        for _ in 0..3 {
            let again = call.with_key(&key(name, "again")).await;
            same(&again, &first);
        }
        assert_eq!(effects(&world).await, done, "{name}");
        covered.push(call.path);
    }
    let calls = world.document().await.calls();
    let missed: Vec<_> = calls.iter().filter(|(m, t)| m == "POST" && !covered.iter().any(|p| is_of(p, t))).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

/// I-02, X-08: of fifty copies one does it; the others get its answer, or are told to wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_parallel_copies_one_has_an_effect() {
    let world = World::start().await;
    let bank = world.bank().await;
    for (number, name) in ALL.into_iter().enumerate() {
        // What one of them does.
        let alone = ready(&bank, name, number).await;
        let before = effects(&world).await;
        alone.with_key(&key(name, "alone")).await.is(alone.status);
        let once: Vec<_> = effects(&world).await.iter().zip(before).map(|(after, before)| after - before).collect();

        let call = ready(&bank, name, ALL.len() + number).await;
        let before = effects(&world).await;
        let answers = at_once(50, |_| {
            let call = call.clone();
            async move { call.with_key(&key(name, "together")).await }
        })
        .await;
        let told: Vec<_> = answers.iter().filter(|a| a.code() != "idempotency_in_progress").collect();
        assert!(!told.is_empty(), "{name}");
        for answer in &told {
            assert_eq!((answer.status, unsigned(answer)), (call.status, unsigned(told[0])), "{name}: {}", answer.body);
        }
        let all: Vec<_> = effects(&world).await.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(all, once, "{name}");
        same(
            &call.with_key(&key(name, "together")).await,
            told.iter().find(|a| a.header("idempotent-replayed").is_none()).expect("one did it"),
        );
    }
}

/// I-02: also where the copies reach different nodes, which know nothing of each other but the row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_at_two_nodes_have_one_effect() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let world = World::start_on(scratch, |_| {}).await;
    let second = world.second().await;
    let bank = world.bank().await;
    for (number, name) in ALL.into_iter().enumerate() {
        let alone = ready(&bank, name, number).await;
        let before = effects(&world).await;
        alone.with_key(&key(name, "alone")).await.is(alone.status);
        let once: Vec<_> = effects(&world).await.iter().zip(before).map(|(after, before)| after - before).collect();
        let call = ready(&bank, name, ALL.len() + number).await;
        let before = effects(&world).await;
        let answers = at_once(2, |n| {
            let mut call = call.clone();
            call.caller = call.caller.at([&world, &second][n]);
            async move { call.with_key(&key(name, "together")).await }
        })
        .await;
        let told: Vec<_> = answers.iter().filter(|a| a.code() != "idempotency_in_progress").collect();
        assert!(!told.is_empty() && told.iter().all(|a| unsigned(a) == unsigned(told[0])), "{name}: {answers:?}");
        let all: Vec<_> = effects(&world).await.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(all, once, "{name}");
    }
}

/// I-03, T-13: after ten minutes exactly the secrets are gone, after a day the answer is.
#[tokio::test]
async fn secrets_are_kept_ten_minutes_and_answers_a_day() {
    let world = World::start().await;
    let bank = world.bank().await;
    for (number, name) in ALL.into_iter().enumerate() {
        let call = ready(&bank, name, number).await;
        let first = call.with_key(&key(name, "kept")).await;
        world.wait(599);
        same(&call.with_key(&key(name, "kept")).await, &first);
        world.wait(1);
        // A client token of a visit lasts ten minutes, one of a challenge twenty.
        if name == "add from a browser" {
            continue;
        }
        let mut brief = first.body.clone();
        let secrets = if call.path.starts_with("/v1/webhook-endpoints") { &["/secret"][..] } else { &SECRETS };
        for secret in secrets.iter().filter(|_| first.is_success()) {
            if let Some(member) = brief.pointer_mut(secret) {
                *member = Value::Null;
            }
        }
        assert_eq!(call.with_key(&key(name, "kept")).await.is(call.status), brief, "{name}");
        if name == "answer from a browser" {
            continue;
        }
        world.wait(85_799);
        assert_eq!(call.with_key(&key(name, "kept")).await.is(call.status), brief, "{name}");
        world.wait(1);
        assert_eq!(call.with_key(&key(name, "kept")).await.header("idempotent-replayed"), None, "{name}");
    }
}

/// I-10, J-07: a JWT that is given again is the same token (its `jti`, its `exp` and every other claim) under a new signature, by the
/// key of that moment; of a session that has ended there is none.
#[tokio::test]
async fn a_jwt_given_again_is_signed_anew_and_lasts_no_longer() {
    let world = World::start().await;
    let ann = world.bank().await.user("ann");
    let (next, from, _) = world.custodian().await.rotate_signing().await.expect("published");
    world.refresh_keys().await;
    let app = ann.enrol_totp().await;
    world.wait(from.seconds() - world.now() - 60);
    let kid = |answer: &Answer| {
        let jwt = text(&answer["session"]["jwt"]);
        let head = jwt.split('.').next().expect("three parts").to_owned();
        let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).expect("base64url");
        text(&serde_json::from_slice::<Value>(&head).expect("JSON")["kid"])
    };
    let open = |answer: Value| Call::new(&ann.bank, "/v1/challenges", json!({"user_id": "ann", "answer": answer}), 200);
    let call = open(app.now());
    let first = call.with_key("k").await;
    assert_ne!(kid(&first), next);
    let at_once = call.with_key("k").await;
    same(&at_once, &first);
    assert_eq!(kid(&at_once), kid(&first));
    assert_ne!(at_once["session"]["jwt"], first["session"]["jwt"], "signed anew");

    world.wait(90);
    let again = call.with_key("k").await;
    same(&again, &first);
    assert_eq!(kid(&again), next, "by the key that signs now");
    let (old, new) = (claims(&first["session"]["jwt"]), claims(&again["session"]["jwt"]));
    assert_eq!((&old, &new["sid"], new["jti"].is_string()), (&new, &first["session"]["id"], true));
    assert!(new["exp"].as_i64() <= Some(world.now() + 510), "{new}");
    for jwt in [&first["session"]["jwt"], &again["session"]["jwt"]] {
        assert!(ann.bank.is_active(jwt).await);
    }

    // Revoked, and consumed: whoever asks again learns what was answered, and gets no token of it.
    let other = open(app.now());
    let consumed = other.with_key("c").await.is(200)["session"].clone();
    ann.bank.post("/v1/sessions/introspect", json!({"token": consumed["token"], "consume": true})).await.is(200);
    ann.bank.delete(&format!("/v1/sessions/{}", text(&first["session"]["id"]))).await.is(204);
    for (call, key, session) in [(&call, "k", &first["session"]), (&other, "c", &consumed)] {
        let again = call.with_key(key).await.is(200);
        assert_eq!((&again["session"]["jwt"], &again["session"]["id"]), (&Value::Null, &session["id"]));
        assert!(!ann.bank.is_active(&session["jwt"]).await);
    }
}

/// I-04: a key stands for one body of one caller at one path.
#[tokio::test]
async fn a_key_is_bound_to_caller_path_and_body() {
    let world = World::start().await;
    let bank = world.bank().await;
    let shop = world.party("Shop", "shop.example", false).await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let call = Call::new(&bank, "/v1/challenges", json!({"user_id": "ann"}), 201);
    let first = call.with_key("k").await.is(201);
    let other_body = Call { body: json!({"user_id": "ann", "action": "pay"}), ..call.clone() };
    other_body.with_key("k").await.refused(422, "idempotency_mismatch");
    let spaced = bank.with("idempotency-key", "k");
    let raw =
        spaced.raw(Method::POST, "/v1/challenges", Some("application/json"), br#"{ "user_id":"ann"}"#.to_vec()).await;
    raw.refused(422, "idempotency_mismatch");
    // Another key of the same relying party, and another relying party.
    let other_key = world.caller(&world.key(&bank.rp, &[], None).await);
    for caller in [&other_key, &shop.server] {
        let other = Call { caller: caller.clone(), ..call.clone() }.with_key("k").await;
        assert_eq!(other.header("idempotent-replayed"), None);
        assert_ne!(other["id"], first["id"]);
    }
    // Another path, with the same body.
    let (one, two) = (ann.challenge(json!({})).await, ann.challenge(json!({})).await);
    let answer = app.now();
    Call::new(&bank, one.path("/verify"), answer.clone(), 200).with_key("v").await.is(200);
    Call::new(&bank, two.path("/verify"), answer, 422).with_key("v").await.refused(422, "code_reused");
    // Another client token of the same user.
    let challenge = ann.challenge(json!({})).await;
    let wrong = Call::new(&challenge.browser(), challenge.path("/verify"), app.miss(), 422);
    wrong.with_key("b").await.refused(422, "code_incorrect");
    Call { caller: bank.server.clone(), ..wrong.clone() }.with_key("b").await.refused(422, "code_incorrect");
    assert_eq!(challenge.attempts_left().await, 3);
    // A key that no longer opens anything opens no answer either.
    world
        .caller("sk_live_unknown")
        .with("idempotency-key", "k")
        .post("/v1/challenges", json!({"user_id": "ann"}))
        .await
        .is(401);
    assert_eq!(call.with_key("k").await.is(201), first);
}

/// I-04: every refused answer to a challenge says how many it still takes (api.md, 3), also where its key refuses it; to whoever may
/// not answer it nothing is said.
#[tokio::test]
async fn an_answer_that_its_key_refuses_says_what_is_left() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let (challenge, other) = (ann.challenge(json!({})).await, ann.challenge(json!({})).await);
    for caller in [bank.server.clone(), challenge.browser()] {
        let left = challenge.attempts_left().await;
        let wrong = Call::new(&caller, challenge.path("/verify"), app.miss(), 422);
        assert_eq!(wrong.with_key("k").await.refused(422, "code_incorrect")["attempts_left"], left - 1);
        let another = Call { body: app.now(), ..wrong.clone() };
        assert_eq!(another.with_key("k").await.refused(422, "idempotency_mismatch")["attempts_left"], left - 1);
        assert_eq!(another.with_key("no key").await.invalid("idempotency-key")["attempts_left"], left - 1);
        let huge = caller.with("idempotency-key", "huge");
        let (path, body) = (challenge.path("/verify"), vec![b' '; 200_000]);
        let huge = huge.raw(Method::POST, &path, Some("application/json"), body).await;
        assert_eq!(huge.refused(413, "body_too_large")["attempts_left"], left - 1);
    }
    let foreign = Call::new(&other.browser(), challenge.path("/verify"), app.now(), 401);
    assert_eq!(foreign.with_key("no key").await.invalid("idempotency-key")["attempts_left"], Value::Null);
    let elsewhere = Call::new(&bank.server, ann.path("/factors"), json!({"type": "totp"}), 422);
    assert_eq!(elsewhere.with_key("no key").await.invalid("idempotency-key")["attempts_left"], Value::Null);
}

#[tokio::test]
async fn a_key_is_1_to_255_visible_characters() {
    let world = World::start().await;
    let bank = world.bank().await;
    let call = Call::new(&bank, "/v1/challenges", json!({"user_id": "ann"}), 200);
    for bad in ["", "a b", "a\tb", "ä", &"k".repeat(256)] {
        call.with_key(bad).await.invalid("idempotency-key");
    }
    bank.with("idempotency-key", "a")
        .with("idempotency-key", "b")
        .post("/v1/challenges", json!({}))
        .await
        .invalid("idempotency-key");
    call.with_key(&"k".repeat(255)).await.is(200);
    call.with_key("\"~!#\\").await.is(200);
    // It is a matter of POST alone.
    bank.with("idempotency-key", "").get("/v1/users/ann").await.is(200);
}

/// I-05: the one wrong guess is charged once, however often and however much at once it is repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_answer_repeated_costs_one_attempt() {
    let world = World::start().await;
    let ann = world.bank().await.user("ann");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    let call = Call::new(&ann.bank, challenge.path("/verify"), app.miss(), 422);
    let answers = at_once(50, |_| {
        let call = call.clone();
        async move { call.with_key("guess").await }
    })
    .await;
    assert!(answers.iter().all(|a| matches!(a.code(), "code_incorrect" | "idempotency_in_progress")));
    for _ in 0..20 {
        let again = call.with_key("guess").await.refused(422, "code_incorrect");
        assert_eq!(again["attempts_left"], 4);
    }
    assert_eq!(challenge.attempts_left().await, 4);
    assert_eq!(world.scratch.number(r#"select count(*) from throttle_lanes where state like '%"since":1,%'"#).await, 1);
    // The code itself is not spent: without the key, or under another, it is judged anew.
    challenge.verify(app.miss()).await.refused(422, "code_incorrect");
    assert_eq!(challenge.attempts_left().await, 3);
    ann.session(&app, json!({})).await;
}

/// I-06: what may be different a moment later is not kept.
#[tokio::test]
async fn pauses_and_outages_are_not_kept() {
    let world = World::start().await;
    let ann = world.bank().await.user("ann");
    let app = ann.enrol_totp().await;
    for _ in 0..2 {
        let challenge = ann.challenge(json!({})).await;
        for _ in 0..5 {
            challenge.verify(app.miss()).await.refused(422, "code_incorrect");
        }
    }
    let challenge = ann.challenge(json!({})).await;
    let call = Call::new(&ann.bank, challenge.path("/verify"), app.miss(), 429);
    call.with_key("p").await.refused(429, "method_paused");
    world.wait(31);
    let judged = call.with_key("p").await;
    judged.refused(422, "code_incorrect");

    let bob = ann.bank.user("bob");
    let add = Call::new(&ann.bank, bob.path("/factors"), json!({"type": "sms", "phone": "+14155550123"}), 201);
    world.gateway.is(Mood::Broken);
    add.with_key("s").await.refused(503, "delivery_unavailable");
    assert_eq!(bob.factors().await.len(), 0);
    world.gateway.is(Mood::Well);
    let first = add.with_key("s").await;
    same(&add.with_key("s").await, &first);
    assert_eq!((bob.factors().await.len(), world.gateway.texts().len()), (1, 1));
}

/// I-07: a text is sent once; while it is on its way the key waits, on every node and after a crash.
#[tokio::test]
async fn a_text_is_sent_once_and_its_key_waits_for_it() {
    let world = World::start().await;
    let ann = world.bank().await.user("ann");
    let phone = ann.enrol_phone("+14155550123").await;
    let challenge = ann.challenge(json!({})).await;
    world.wait(60);
    let call = Call::new(&ann.bank, challenge.path("/prepare"), json!({"type": "sms"}), 200);
    // It starts before the gateway hangs, which is not for long.
    let second = if world.scratch.is_sqlite() { None } else { Some(world.second().await) };
    world.gateway.is(Mood::Hanging);
    let asked = world.gateway.asked();
    let under_way = tokio::spawn({
        let call = call.clone();
        async move { call.with_key("t").await }
    });
    until(|| world.gateway.asked() > asked).await;
    let waits = call.with_key("t").await.refused(409, "idempotency_in_progress");
    assert_eq!(waits["attempts_left"], challenge.attempts_left().await);
    if let Some(second) = second {
        let elsewhere = Call { caller: call.caller.at(&second), ..call.clone() };
        let waits = elsewhere.with_key("t").await.refused(409, "idempotency_in_progress");
        assert_eq!(waits["attempts_left"], challenge.attempts_left().await);
    }
    world.gateway.is(Mood::Well);
    let first = under_way.await.expect("no panic");
    assert_eq!(first.status, 200);
    same(&call.with_key("t").await, &first);
    assert_eq!(world.gateway.texts().len(), 2);
    challenge.verify(phone.answer()).await.is(200);

    // The engine dies while the gateway thinks: nobody knows whether the text left, so the key waits a minute. The number's own
    // limit stays out of it.
    world.wait(600);
    let challenge = ann.challenge(json!({})).await;
    let call = Call { path: challenge.path("/prepare"), ..call };
    world.gateway.is(Mood::Hanging);
    let asked = world.gateway.asked();
    let lost = tokio::spawn({
        let call = call.clone();
        async move { call.with_key("u").await }
    });
    until(|| world.gateway.asked() > asked).await;
    lost.abort();
    world.restart().await;
    world.gateway.is(Mood::Well);
    let waits = call.with_key("u").await;
    assert!(matches!(waits.code(), "idempotency_in_progress") || waits.status == 200, "{}", waits.body);
    world.wait(60);
    call.with_key("u").await.is(200);
}

/// I-02, I-07: two nodes looked for a kept answer before either had taken its place. Who comes second hears that the first is under
/// way, with what the challenge still takes (api.md, 3), and that is kept for nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_its_place_second_is_told_to_wait() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let world = World::start_on(scratch, |_| {}).await;
    let second = world.second().await;
    let ann = world.bank().await.user("ann");
    ann.enrol_phone("+14155550123").await;
    let challenge = ann.challenge(json!({})).await;
    world.wait(60);
    world.gateway.is(Mood::Hanging);
    let asked = world.gateway.asked();
    let call = Call::new(&ann.bank, challenge.path("/prepare"), json!({"type": "sms"}), 200);
    let mut held = world.scratch.hold("lock table kept_answers in share mode").await;
    let copies = [&world, &second].map(|node| {
        let call = Call { caller: call.caller.at(node), ..call.clone() };
        tokio::spawn(async move { call.with_key("t").await })
    });
    held.is_waited_for_by(2).await;
    held.let_go().await;
    until(|| world.gateway.asked() > asked && copies.iter().any(|copy| copy.is_finished())).await;
    world.gateway.is(Mood::Well);
    let mut answers = Vec::new();
    for copy in copies {
        answers.push(copy.await.expect("no panic"));
    }
    answers.sort_by_key(|answer| answer.status);
    answers[0].clone().is(200);
    let late = answers[1].clone().refused(409, "idempotency_in_progress");
    assert_eq!(late["attempts_left"], challenge.attempts_left().await);
    same(&call.with_key("t").await, &answers[0]);
}

/// I-08: an answer that had no effect is kept as well, and the key is bound to it.
#[tokio::test]
async fn a_refusal_that_costs_nothing_is_kept_too() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.begin_totp().await;
    let malformed = Call::new(&bank, ann.path(&format!("/factors/{}/activate", app.id)), json!({"code": "12"}), 422);
    let first = malformed.with_key("m").await;
    same(&malformed.with_key("m").await, &first);
    let right = Call { body: json!({"code": app.code()}), ..malformed };
    right.with_key("m").await.refused(422, "idempotency_mismatch");
    right.with_key("n").await.is(200);
    let unknown = Call::new(&bank, "/v1/challenges/chl_00000000000000000000000000000000/cancel", Value::Null, 404);
    let first = unknown.with_key("m").await;
    assert_eq!(first.status, 404);
    same(&unknown.with_key("m").await, &first);
    let invalid = Call::new(&bank, "/v1/challenges", json!({"user": "ann"}), 422);
    let first = invalid.with_key("m").await;
    same(&invalid.with_key("m").await, &first);
}

/// E-01, E-03: what is kept is sealed, and an answer that was moved to another row opens nothing.
#[tokio::test]
async fn kept_answers_are_sealed_for_their_row() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let (one, two) = (
        Call::new(&bank, ann.path("/factors"), json!({"type": "totp"}), 201),
        Call::new(&bank, bank.user("bob").path("/factors"), json!({"type": "totp"}), 201),
    );
    one.with_key("k").await.is(201);
    two.with_key("k").await.is(201);
    // One of the two takes the other's.
    let copy = "update kept_answers set whole = (select o.whole from kept_answers o where o.id <> kept_answers.id),
                answer = (select o.answer from kept_answers o where o.id <> kept_answers.id)
                where id = (select min(id) from kept_answers)";
    world.scratch.execute(copy).await;
    let mut statuses = [one.with_key("k").await.status, two.with_key("k").await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 503]);
    assert_eq!(
        (ann.factors().await.len(), bank.user("bob").factors().await.len()),
        (1, 1),
        "closed, and not done anew"
    );
}

/// I-09: killed at any moment, one effect stands, and whoever asks again is told of it.
#[tokio::test]
async fn after_kill_9_a_repetition_finds_one_effect_and_its_answer() {
    let place = Place::new().await;
    let mut serve = place.serve().await;
    let bank = place.bank();
    let (mut cut, mut answered) = (0, 0);
    // How long a call takes here, so that it is killed in its middle, and before and after.
    let (challenge, step, secret) = enrolled(&bank, "measured").await;
    let (path, answer) =
        (format!("/v1/challenges/{challenge}/verify"), json!({"type": "totp", "code": totp(&secret, step)}));
    let measured = Stopwatch::start();
    assert_eq!(bank.post(&path, answer).await.0, 200);
    let call = measured.seconds();
    for round in 0..24u32 {
        let user = format!("u{round}");
        let (challenge, step, secret) = enrolled(&bank, &user).await;
        let is_right = round % 2 == 0;
        let code = if is_right { totp(&secret, step) } else { wrong(&secret, step) };
        let path = format!("/v1/challenges/{challenge}/verify");
        let ask = || {
            let (bank, path) = (bank.clone(), path.clone());
            let body = json!({"type": "totp", "code": code});
            async move {
                let request = bank.client.post(format!("{}{path}", bank.base)).bearer_auth(&bank.token);
                let response = request.header("idempotency-key", "k").json(&body).send().await.ok()?;
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                Some((status, headers.contains_key("idempotent-replayed"), response.json::<Value>().await.ok()?))
            }
        };
        let first = tokio::spawn(ask());
        tokio::time::sleep(Duration::from_secs_f64(call * f64::from(round) / 16.0)).await;
        serve.kill();
        let first = first.await.expect("no panic");
        serve = place.serve().await;
        let (status, was_kept, body) = ask().await.expect("an answer");
        assert_eq!(status, if is_right { 200 } else { 422 }, "{body}");
        match &first {
            Some((before, _, told)) => {
                let mut again = body.clone();
                if is_right {
                    let jwts = [told, &body].map(|answer| claims(&answer["session"]["jwt"]));
                    assert_eq!(jwts[0], jwts[1]);
                    again["session"]["jwt"] = told["session"]["jwt"].clone();
                }
                assert_eq!((*before, told), (status, &again), "the answer that came is the one that is kept");
                assert!(was_kept);
                answered += 1;
            }
            None => cut += usize::from(was_kept),
        }
        let sessions = bank.get(&format!("/v1/users/{user}/sessions")).await.1;
        let ids: Vec<_> = sessions["data"].as_array().expect("a list").iter().map(|s| text(&s["id"])).collect();
        let shown = bank.get(&format!("/v1/challenges/{challenge}")).await.1;
        match is_right {
            true => assert_eq!(ids, [text(&body["session"]["id"])]),
            false => assert_eq!((ids.len(), &shown["attempts_left"]), (0, &json!(4)), "{shown}"),
        }
    }
    println!("{cut} committed before the kill and told only by the repetition, {answered} answered before it");
}

/// An open challenge of a user with an app whose present step is unspent.
async fn enrolled(bank: &crate::support::child::Client, user: &str) -> (String, i64, Vec<u8>) {
    loop {
        let factor = bank.post(&format!("/v1/users/{user}/factors"), json!({"type": "totp"})).await.1;
        let secret = base32(factor["totp"]["secret"].as_str().expect("a secret"));
        let step = countersign::clock::Clock::now(&countersign::clock::SystemClock).seconds() / 30;
        let path = format!("/v1/users/{user}/factors/{}/activate", text(&factor["id"]));
        if bank.post(&path, json!({"code": totp(&secret, step - 1)})).await.0 == 200 {
            let opened = bank.post("/v1/challenges", json!({"user_id": user})).await.1;
            return (text(&opened["id"]), step, secret);
        }
    }
}

fn wrong(secret: &[u8], step: i64) -> String {
    let near: Vec<_> = (-3..=3).map(|n| totp(secret, step + n)).collect();
    (0..).map(|n| format!("{n:06}")).find(|c| !near.contains(c)).expect("most codes are wrong")
}
