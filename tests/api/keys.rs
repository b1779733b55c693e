//! Keys that take turns while engines serve: nothing that was sealed, signed or hashed before is lost, and no call fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use countersign::clock::Stopwatch;

use crate::support::app::{base32, step, totp};
use crate::support::child::{Client, Place};
use crate::support::verbs::text;
use crate::support::{Value, World, json, until};

/// The keys of a purpose, as `keys list` shows them.
fn keys(place: &Place, purpose: &str) -> Vec<Value> {
    let all = place.answer(&["keys", "list", "--json"]);
    all.as_array().expect("a list").iter().filter(|k| k["purpose"] == purpose).cloned().collect()
}

/// An installation whose clock a file moves.
async fn place_with_clock() -> (Place, std::path::PathBuf) {
    let mut place = Place::new().await;
    let clock = place.scratch.folder().join("clock");
    std::fs::write(&clock, "0").expect("a file");
    place.set("COUNTERSIGN_DEVELOPMENT", "true");
    place.set("COUNTERSIGN_CLOCK_FILE", &clock.display().to_string());
    (place, clock)
}

/// Somebody with an authenticator app that was enrolled over HTTP.
struct Holder {
    user: String,
    secret: Vec<u8>,
}

async fn enrol(bank: &Client, user: &str, step: i64) -> Holder {
    let path = format!("/v1/users/{user}/factors");
    let (status, made) = bank.post(&path, json!({"type": "totp"})).await;
    assert_eq!(status, 201, "{made}");
    let secret = base32(made["totp"]["secret"].as_str().expect("a secret"));
    let code = json!({"code": totp(&secret, step)});
    let (status, body) = bank.post(&format!("{path}/{}/activate", text(&made["id"])), code).await;
    assert_eq!(status, 200, "{body}");
    Holder { user: user.to_owned(), secret }
}

impl Holder {
    async fn prove(&self, bank: &Client, step: i64) -> (u16, Value) {
        let answer = json!({"type": "totp", "code": totp(&self.secret, step)});
        bank.post("/v1/challenges", json!({"user_id": self.user, "answer": answer})).await
    }
}

/// Runs a command beside the test.
fn beside(
    place: &Arc<Place>,
    arguments: &'static [&'static str],
) -> tokio::task::JoinHandle<crate::support::child::Ended> {
    let place = Arc::clone(place);
    tokio::task::spawn_blocking(move || place.run(arguments))
}

/// E-04: under load, with a `kill -9` in the middle, every value comes under the new key, no call fails, and the old key goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_data_key_is_replaced_under_load_and_after_a_kill() {
    const HOLDERS: usize = 150;
    const WORKERS: usize = 4;
    let (place, clock) = place_with_clock().await;
    let place = Arc::new(place);
    let serve = place.serve().await;
    let bank = place.bank();
    let mut holders = Vec::new();
    for n in 0..HOLDERS {
        holders.push(enrol(&bank, &format!("u{n}"), step(0)).await);
    }
    let holders = Arc::new(holders);

    // The load: proofs, wrong ones, enrolments and ceremonies, until it is told to stop. Every answer is one that it should be.
    let stop = Arc::new(AtomicBool::new(false));
    let turns: Arc<[AtomicUsize; WORKERS]> = Arc::default();
    let load: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (bank, holders, stop, turns) =
                (bank.clone(), Arc::clone(&holders), Arc::clone(&stop), Arc::clone(&turns));
            tokio::spawn(async move {
                let mut n = worker;
                while !stop.load(Ordering::Relaxed) {
                    let holder = &holders[n % HOLDERS];
                    n += WORKERS;
                    let (status, body) = bank.post("/v1/challenges", json!({"user_id": holder.user})).await;
                    assert_eq!(status, 201, "{body}");
                    let user = format!("load{worker}-{n}");
                    let (status, body) =
                        bank.post(&format!("/v1/users/{user}/factors"), json!({"type": "webauthn"})).await;
                    assert_eq!(status, 201, "{body}");
                    let wrong = json!({"type": "totp", "code": "000000"});
                    let path = format!("/v1/users/{user}/factors/{}/activate", text(&body["id"]));
                    let (status, body) = bank.post(&path, json!({"credential": {}})).await;
                    assert!(status < 500, "{body}");
                    let (status, body) =
                        bank.post("/v1/challenges", json!({"user_id": holder.user, "answer": wrong})).await;
                    assert!(matches!(status, 422 | 429), "{status} {body}");
                    turns[worker].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    // A run that is killed while it seals anew: the key is published, and some rows are under it.
    let mut first = place.start(&["keys", "rotate", "data"]);
    let begun = Stopwatch::start();
    let seen = loop {
        let seen = keys(&place, "data");
        if seen.len() == 2 {
            break seen;
        }
        assert!(begun.seconds() < 60.0, "no key is published");
    };
    let published = Stopwatch::start();
    assert_eq!(seen[1]["state"], "next", "known before it is used");
    std::fs::write(&clock, "11").expect("a file");
    let moved = || keys(&place, "data")[1]["uses"].as_i64().unwrap_or_default();
    while moved() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if first.try_wait().expect("it is known").is_some() {
        println!("the run had ended before it was killed");
    }
    first.kill().expect("it can be killed");
    first.wait().expect("it ends");

    // Another run goes on with the same key, and removes the old one when the time has come; however long it took until here, that
    // is a minute from now.
    let soon_after = || std::fs::write(&clock, (11 - published.seconds() as i64).to_string()).expect("a file");
    soon_after();
    let second = place.start_heard(&["keys", "rotate", "data", "--remove-old"]);
    until(|| second.stderr().contains("older keys are removed at")).await;
    soon_after();
    // The clock is quicker here than the calls: one of them may have sealed by the old key and be written only now. Two turns of
    // each worker, and all of those have ended.
    let now = || turns.each_ref().map(|turns| turns.load(Ordering::Relaxed));
    let before = now();
    until(|| now().iter().zip(before).all(|(now, before)| *now >= before + 2)).await;
    assert_eq!(keys(&place, "data").len(), 2, "not before every call that knew it has ended");
    std::fs::write(&clock, "120").expect("a file");
    let ended = tokio::task::spawn_blocking(|| second.ended()).await.expect("it is waited for");
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("data key 1 is removed"), "{}", ended.stderr);
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("every answer was right");
    }
    assert!(now().iter().sum::<usize>() > 12, "{turns:?}");
    let left = keys(&place, "data");
    assert_eq!((left.len(), &left[0]["id"], &left[0]["state"]), (1, &json!("4"), &json!("current")), "{left:?}");

    // All that was enrolled proves itself, now and after a restart without the old key.
    std::fs::write(&clock, "4000").expect("a file");
    for holder in &holders[..HOLDERS / 2] {
        let (status, body) = holder.prove(&bank, step(4000)).await;
        assert_eq!(status, 200, "{body}");
    }
    serve.kill();
    let serve = place.serve().await;
    for holder in &holders[HOLDERS / 2..] {
        let (status, body) = holder.prove(&bank, step(4000)).await;
        assert_eq!(status, 200, "{body}");
    }
    assert!(!serve.stderr().contains("does not open"), "{}", serve.stderr());
    assert_eq!(place.run(&["audit", "verify"]).status, Some(0));
}

/// E-04, R-02: in one process, by the moved clock: two nodes, of which one learns of a key only by meeting it.
#[tokio::test]
async fn a_node_learns_a_key_when_it_meets_one() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let kept = || async {
        let asked = json!({"user_id": "ann", "action": "pay"});
        bank.with("idempotency-key", "once").post("/v1/challenges", asked).await
    };
    let first = kept().await;
    let custodian = Arc::new(world.custodian().await);
    let rotation = {
        let custodian = Arc::clone(&custodian);
        tokio::spawn(async move { custodian.rotate_data(false, &|_| {}).await })
    };
    while custodian.keys().await.expect("it answers").iter().filter(|k| k.purpose == "data").count() == 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.wait(10);
    let done = rotation.await.expect("it ends").expect("it rotates");
    assert!(done.values >= 4 && done.closed.is_empty(), "{done:?}");
    let again = kept().await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &first.body));
    ann.session(&app, json!({})).await;
    assert_eq!(ann.shown().await["factors"].as_array().map(Vec::len), Some(1));
    // Nothing to finish: another run makes another key.
    let again = tokio::spawn(async move { custodian.rotate_data(true, &|_| {}).await.map(|done| done.values) });
    while !again.is_finished() {
        world.wait(30);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(again.await.expect("it ends").expect("it removes"), 0, "the older key needed nothing but to go");
    ann.session(&app, json!({})).await;
    assert_eq!(kept().await.header("idempotent-replayed"), Some("true"));
}

/// E-03, 3.35: a value that does not open stays as it is, holds the old key, and is named.
#[tokio::test]
async fn a_closed_value_keeps_the_old_key_and_is_named() {
    let world = World::start().await;
    let bank = world.bank().await;
    let (ann, bob) = (bank.user("ann"), bank.user("bob"));
    let (of_ann, of_bob) = (ann.enrol_totp().await, bob.enrol_totp().await);
    let cut = format!("update factors set sealed = substr(sealed, 1, 40) where id = '{}'", of_bob.id);
    world.scratch.execute(&cut).await;
    let custodian = Arc::new(world.custodian().await);
    let run = {
        let custodian = Arc::clone(&custodian);
        tokio::spawn(async move { custodian.rotate_data(true, &|_| {}).await })
    };
    while !run.is_finished() {
        world.wait(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = run.await.expect("it ends").expect_err("the old key stays").to_string();
    assert!(error.contains(&of_bob.id) && !error.contains(&of_ann.id), "{error}");
    ann.session(&of_ann, json!({})).await;
    bob.challenge(json!({})).await.verify(of_bob.answer()).await.refused(422, "code_incorrect");
    bob.remove(&of_bob.id).await.is(204);
    let done = custodian.rotate_data(true, &|_| {}).await.expect("nothing holds it any more");
    assert!(done.closed.is_empty());
    assert_eq!(custodian.keys().await.expect("it answers").iter().filter(|k| k.purpose == "data").count(), 1);
    ann.session(&of_ann, json!({})).await;
}

/// A script that rotates learns that not all of it went well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_leaves_a_closed_value_behind_ends_with_status_1() {
    let (place, clock) = place_with_clock().await;
    let place = Arc::new(place);
    let _serve = place.serve().await;
    enrol(&place.bank(), "ann", step(0)).await;
    place.scratch.execute("update factors set sealed = substr(sealed, 1, 40)").await;
    let run = beside(&place, &["keys", "rotate", "data"]);
    until(|| keys(&place, "data").len() == 2).await;
    std::fs::write(&clock, "11").expect("a file");
    let ended = run.await.expect("it ends");
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("1 that do not open"), "{}", ended.stdout);
}

/// E-04, E-07: the ring under another master key: who runs goes on, who starts needs the new one.
#[tokio::test]
async fn a_master_key_is_replaced_beside_a_running_engine() {
    let mut place = Place::new().await;
    let serve = place.serve().await;
    let bank = place.bank();
    let holder = enrol(&bank, "ann", step(0)).await;
    let refused = place.run(&["keys", "rotate", "master"]);
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("COUNTERSIGN_NEW_MASTER_KEY"), "{}", refused.stderr);
    place.set("COUNTERSIGN_NEW_MASTER_KEY", "too short");
    let refused = place.run(&["keys", "rotate", "master"]);
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("COUNTERSIGN_NEW_MASTER_KEY"), "{}", refused.stderr);
    let (old, new) = (place.setting("COUNTERSIGN_MASTER_KEY").to_owned(), countersign::new_master_key());
    let file = place.scratch.folder().join("new.key");
    std::fs::write(&file, new.as_str()).expect("a file");
    place.unset("COUNTERSIGN_NEW_MASTER_KEY");
    place.set("COUNTERSIGN_NEW_MASTER_KEY_FILE", &file.display().to_string());
    let ended = place.run(&["keys", "rotate", "master"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    place.unset("COUNTERSIGN_NEW_MASTER_KEY_FILE");

    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (status, body) = holder.prove(&bank, step(0) + 5).await;
    assert_eq!(status, 422, "steps ahead of time, but judged: {body}");
    enrol(&bank, "bob", step(0)).await;
    serve.terminate();
    let old_key = place.run(&["keys", "list"]);
    assert_eq!(old_key.status, Some(1));
    assert!(old_key.stderr.contains("COUNTERSIGN_MASTER_KEY"), "{}", old_key.stderr);
    place.set("COUNTERSIGN_MASTER_KEY", &new);
    place.set("COUNTERSIGN_NEW_MASTER_KEY", &old);
    let serve = place.serve().await;
    let (status, body) = bank.get("/v1/users/ann/factors").await;
    assert_eq!((status, body["data"].as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!(place.run(&["audit", "verify"]).status, Some(0));
    serve.terminate();
}

/// E-04: an engine that still has the master key of before calls no right code wrong, and seals nothing by a key that may go.
#[tokio::test]
async fn an_engine_with_a_replaced_master_key_answers_nothing_once_there_is_a_newer_key() {
    let mut place = Place::new().await;
    let serve = place.serve().await;
    let bank = place.bank();
    let holder = enrol(&bank, "ann", step(0)).await;
    let new = countersign::new_master_key();
    place.set("COUNTERSIGN_NEW_MASTER_KEY", &new);
    assert_eq!(place.run(&["keys", "rotate", "master"]).status, Some(0));
    place.unset("COUNTERSIGN_NEW_MASTER_KEY");
    place.set("COUNTERSIGN_MASTER_KEY", &new);
    assert_eq!(bank.get("/readyz").await.0, 200, "it knows all keys that there are");
    assert_eq!(place.run(&["keys", "rotate", "pepper"]).status, Some(0));
    until(|| serve.stderr().contains("COUNTERSIGN_MASTER_KEY was replaced")).await;
    let (status, body) = holder.prove(&bank, step(0) + 5).await;
    assert_eq!((status, &body["code"]), (503, &json!("store_unavailable")), "{body}");
    assert_eq!(bank.get("/readyz").await.0, 503);
    assert_eq!(bank.get("/livez").await.0, 200);
    assert_eq!(bank.get("/metrics").await.0, 200);
    serve.terminate();
    let serve = place.serve().await;
    let (status, body) = holder.prove(&bank, step(0) + 5).await;
    assert_eq!(status, 422, "steps ahead of time, but judged: {body}");
    assert_eq!(bank.get("/v1/users/ann/factors").await.0, 200);
    assert!(!serve.stderr().contains("was replaced"), "{}", serve.stderr());
}

/// A command that began before the ring was put under a new master key adds nothing to it under the old one.
#[tokio::test]
async fn no_key_is_published_under_a_master_key_that_was_replaced() {
    let world = World::start().await;
    let (late, other) = (world.custodian().await, world.custodian().await);
    let new = countersign::vault::MasterKey::parse(&countersign::new_master_key()).expect("a key");
    other.rotate_master(&new).await.expect("rotated");
    let count = "select count(*) from key_ring";
    let before = world.scratch.number(count).await;
    let error = late.rotate_pepper().await.expect_err("another master key");
    assert!(error.to_string().contains("COUNTERSIGN_MASTER_KEY"), "{error}");
    late.rotate_data(false, &|_| {}).await.map(drop).expect_err("another master key");
    assert_eq!(world.scratch.number(count).await, before);
}

/// new sets use the new pepper, old codes stay valid until they are replaced.
#[tokio::test]
async fn old_recovery_codes_outlive_their_pepper() {
    let world = World::start().await;
    let bank = world.bank().await;
    let (ann, bob) = (bank.user("ann"), bank.user("bob"));
    ann.enrol_totp().await;
    bob.enrol_totp().await;
    let old = ann.recovery_codes().await;
    let custodian = world.custodian().await;
    custodian.rotate_pepper().await.expect("published");
    world.wait(11);
    world.refresh_keys().await;
    let new = bob.recovery_codes().await;
    let uses: Vec<_> = custodian
        .keys()
        .await
        .expect("it answers")
        .iter()
        .filter(|k| k.purpose == "pepper")
        .map(|k| (k.state, k.uses))
        .collect();
    assert_eq!(uses, [("old", Some(1)), ("current", Some(1))]);
    let prove = |code: &str| json!({"type": "recovery_code", "code": code});
    ann.challenge(json!({})).await.verify(prove(&old[0])).await.is(200);
    bob.challenge(json!({})).await.verify(prove(&new[0])).await.is(200);
    world.restart().await;
    ann.challenge(json!({})).await.verify(prove(&old[1])).await.is(200);
    ann.challenge(json!({})).await.verify(prove(&old[1])).await.refused(422, "code_incorrect");
    let replaced = ann.recovery_codes().await;
    ann.challenge(json!({})).await.verify(prove(&old[2])).await.refused(422, "code_incorrect");
    ann.challenge(json!({})).await.verify(prove(&replaced[0])).await.is(200);
}

/// J-07: the next key is published before it signs, the last one until its last token has run out; a node that has not read the
/// keys lately still knows a token of the new one.
#[tokio::test]
async fn signing_keys_take_turns_and_no_token_is_lost() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let kids = async || -> Vec<String> {
        let set = bank.get("/.well-known/jwks.json").await.is(200);
        set["keys"].as_array().expect("keys").iter().map(|k| text(&k["kid"])).collect()
    };
    let first = kids().await;
    let custodian = world.custodian().await;
    let (next, from, _) = custodian.rotate_signing().await.expect("published");
    assert!(from.seconds() - world.now() >= 600, "twice as long as anybody may keep the set");
    assert!(custodian.rotate_signing().await.is_err(), "one waits already");
    world.refresh_keys().await;
    let mut both = kids().await;
    both.sort();
    let mut expected = vec![first[0].clone(), next.clone()];
    expected.sort();
    assert_eq!(both, expected, "published before its first use");
    let kid_of = |session: &Value| {
        let jwt = text(&session["jwt"]);
        let head = base64::Engine::decode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            jwt.split('.').next().expect("a head"),
        );
        text(&serde_json::from_slice::<Value>(&head.expect("base64url")).expect("JSON")["kid"])
    };
    world.wait(from.seconds() - world.now() - 31);
    let last = ann.session(&app, json!({})).await;
    assert_eq!(kid_of(&last), first[0], "signed a moment before");
    world.wait(60);
    let new = ann.session(&app, json!({})).await;
    assert_eq!(kid_of(&new), next);
    assert!(bank.is_active(&last["jwt"]).await && bank.is_active(&new["jwt"]).await);
    world.wait(480);
    assert!(bank.is_active(&last["jwt"]).await, "in its last half minute");
    assert_eq!(kids().await.len(), 2);
    world.wait(400);
    assert_eq!(kids().await, [next]);
    assert!(!bank.is_active(&last["jwt"]).await);
    ann.session(&app, json!({})).await;
}

/// J-02: a token of a key that this node has not read yet is known at once.
#[tokio::test]
async fn a_node_learns_a_signing_key_by_a_token_of_it() {
    let Some(scratch) = crate::support::database::Scratch::postgres().await else { return };
    let world = World::start_on(scratch, |_| {}).await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let custodian = world.custodian().await;
    let (kid, from, _) = custodian.rotate_signing().await.expect("published");
    world.wait(from.seconds() - world.now());
    let second = world.second().await;
    let there = crate::support::Bank { server: bank.server.at(&second), ..bank.clone() };
    let session = there.user("ann").session(&app, json!({})).await;
    assert!(there.get("/.well-known/jwks.json").await.is(200).to_string().contains(&kid));
    assert!(bank.is_active(&session["jwt"]).await);
}

/// E-03: a signing key that does not open closes itself; the other goes on, and it is written down once.
#[tokio::test]
async fn a_damaged_signing_key_closes_itself_alone() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let (kid, from, _) = world.custodian().await.rotate_signing().await.expect("published");
    let damage = format!("update signing_keys set sealed = substr(sealed, 1, length(sealed) - 2) where kid = '{kid}'");
    world.scratch.execute(&damage).await;
    world.restart().await;
    world.wait(from.seconds() - world.now() + 1);
    let session = ann.session(&app, json!({})).await;
    assert!(bank.is_active(&session["jwt"]).await);
    assert!(!bank.get("/.well-known/jwks.json").await.is(200).to_string().contains(&kid));
    world.restart().await;
    let told = world.scratch.texts("select reason from events where kind = 'signing_key.unreadable'").await;
    assert_eq!(told, ["seal_broken"]);
}
