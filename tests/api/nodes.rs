//! Two nodes on one PostgreSQL database: all state is in the database, so any node finishes what another began, and no limit is
//! doubled (design.md, two databases).

use std::sync::Arc;

use crate::support::database::Scratch;
use crate::support::verbs::text;
use crate::support::{Bank, World, at_once, json};

/// The same relying party at two nodes; `None` where there is no server.
async fn two() -> Option<(Bank, Bank, Arc<World>)> {
    let world = World::start_on(Scratch::postgres().await?, |_| {}).await;
    let second = world.second().await;
    let one = world.bank().await;
    let two = Bank { server: one.server.at(&second), ..one.clone() };
    Some((one, two, second))
}

/// J-02: under one set of keys.
#[tokio::test]
async fn any_node_finishes_what_another_began() {
    let Some((one, two, _second)) = two().await else { return };
    let (ann, there) = (one.user("ann"), two.user("ann"));
    let app = ann.begin_totp().await;
    there.activate(&app.id, json!({"code": app.code()})).await.is(200);
    let (id, options) = ann.begin_passkey().await;
    let mut device = ann.device();
    let credential = device.create(&options).expect("no objection");
    there.activate(&id, json!({"credential": credential})).await.is(200);
    let phone = ann.begin_phone("+14155550123").await;
    there.activate(&phone.id, json!({"code": phone.code()})).await.is(200);
    let codes = there.recovery_codes().await;
    one.world.wait(60);
    let challenge = ann.challenge(json!({})).await;
    let options = challenge.request_options().await;
    let credential = device.get(&options).expect("no objection");
    let verify = challenge.path("/verify");
    let session =
        two.post(&verify, json!({"type": "webauthn", "credential": credential})).await.is(200)["session"].clone();
    // One set of keys.
    assert_eq!(one.get("/.well-known/jwks.json").await.is(200), two.get("/.well-known/jwks.json").await.is(200));
    assert!(one.is_active(&session["jwt"]).await && two.is_active(&session["token"]).await);
    one.delete(&format!("/v1/sessions/{}", text(&session["id"]))).await.is(204);
    assert!(!two.is_active(&session["jwt"]).await && !two.is_active(&session["token"]).await);
    let recovery = json!({"type": "recovery_code", "code": codes[0]});
    ann.challenge(json!({})).await.verify(recovery.clone()).await.is(200);
    there.challenge(json!({})).await.verify(recovery).await.refused(422, "code_incorrect");
}

/// X-08, 3.1: also over two nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_give_no_more_verdicts_than_one() {
    let Some((one, two, _second)) = two().await else { return };
    let ann = one.user("ann");
    let app = ann.enrol_totp().await;
    let mut challenges = Vec::new();
    for _ in 0..50 {
        challenges.push(ann.challenge(json!({})).await);
    }
    let answers = at_once(400, |n| {
        let (bank, path, answer) = ([&one, &two][n % 2].clone(), challenges[n % 50].path("/verify"), app.miss());
        async move { bank.post(&path, answer).await }
    })
    .await;
    let verdicts = answers.iter().filter(|a| a.code() == "code_incorrect").count();
    assert!(verdicts <= 10, "{verdicts}");
    // On a machine that is busy, some may run out of their time: that is no verdict either.
    let expected = ["code_incorrect", "method_paused", "challenge_not_pending", "rate_limited", "store_unavailable"];
    assert!(answers.iter().all(|a| expected.contains(&a.code())));
    for _ in verdicts..10 {
        ann.ask(json!({"answer": app.miss()})).await;
    }
    ann.ask(json!({"answer": app.now()})).await.refused(429, "method_paused");
    one.world.wait(30);
    let fresh = ann.challenge(json!({})).await;
    let answers = at_once(50, |n| {
        let (bank, path, answer) = ([&one, &two][n % 2].clone(), fresh.path("/verify"), app.now());
        async move { bank.post(&path, answer).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|a| a.is_success()).count(), 1, "3.5");
}
