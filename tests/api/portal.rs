//! What a person may change through a portal session's client token (api.md, 3, 4 and 8).

use crate::support::verbs::text;
use crate::support::{App, Caller, User, Value, ann, json};

/// A factor that is enrolled by this caller, through the user's own paths.
async fn enrol_totp(user: &User, caller: &Caller) -> u16 {
    let begun = caller.post(&user.path("/factors"), json!({"type": "totp"})).await;
    if begun.status != 201 {
        assert_eq!(begun.code(), "step_up_required");
        return begun.status;
    }
    let begun = begun.is(201);
    let secret = crate::support::app::base32(begun["totp"]["secret"].as_str().expect("a secret"));
    let code = crate::support::app::totp(&secret, user.bank.world.now() / 30);
    let path = user.path(&format!("/factors/{}/activate", text(&begun["id"])));
    caller.post(&path, json!({"code": code})).await.status
}

/// A session for factor management, earned by a recovery code.
async fn recovered(user: &User, code: &str) -> Value {
    let challenge = user.challenge(json!({"action": "factor.manage"})).await;
    challenge.verify(json!({"type": "recovery_code", "code": code})).await.is(200)["session"].clone()
}

/// C-11: it leads back to registered addresses alone.
#[tokio::test]
async fn a_portal_session_gives_an_address_and_a_token() {
    let ann = ann().await;
    let now = ann.bank.world.now();
    for flow in ["settings", "add_passkey", "recovery_codes"] {
        let body = json!({"user_id": "ann", "flow": flow, "return_url": "https://bank.example/back"});
        let portal = ann.bank.post("/v1/portal-sessions", body).await.is(201);
        assert!(text(&portal["url"]).starts_with(&format!("{}/portal/", ann.bank.world.issuer())));
        assert!(text(&portal["client_token"]).starts_with("ct_"));
        assert_eq!(portal["expires_at"], countersign::model::Timestamp::from_seconds(now + 1800).rfc3339());
    }
    let elsewhere = json!({"user_id": "ann", "flow": "settings", "return_url": "https://evil.example/"});
    ann.bank.post("/v1/portal-sessions", elsewhere).await.refused(403, "return_url_not_allowed");
}

#[tokio::test]
async fn the_first_factor_needs_no_step_up() {
    let ann = ann().await;
    let browser = ann.browser(None).await;
    assert_eq!(enrol_totp(&ann, &browser).await, 200);
    assert_eq!(enrol_totp(&ann, &browser).await, 403, "the second does");
}

/// WR-20: a session lifts a visit to the portal where it was earned for a login or for factors, and may be used more than once.
#[tokio::test]
async fn a_session_for_something_else_changes_no_factor() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    for terms in [json!({"action": "payout"}), json!({"single_use": true}), json!({"action": "factors"})] {
        let session = ann.session(&app, terms.clone()).await;
        let browser = ann.browser(Some(&session["token"])).await;
        assert_eq!(enrol_totp(&ann, &browser).await, 403, "{terms}");
        browser.delete(&ann.path(&format!("/factors/{}", app.id))).await.refused(403, "step_up_required");
    }
    let session = ann.session(&app, json!({"action": "login"})).await;
    assert_eq!(enrol_totp(&ann, &ann.browser(Some(&session["token"])).await).await, 200);
}

/// S-16, X-01: after a support reset nothing goes on that was begun before: no session, no visit, no challenge, no approval that waits
/// for its exchange, and no device is known.
#[tokio::test]
async fn a_reset_ends_what_was_under_way() {
    let ann = ann().await;
    ann.enrol_totp().await;
    let codes = ann.recovery_codes().await;
    let recovery = |n: usize| json!({"type": "recovery_code", "code": codes[n]});
    let device = json!({"client": {"device": "home"}});
    let session = ann.challenge(device).await.verify(recovery(0)).await.is(200)["session"].clone();
    let active = async || (ann.bank.is_active(&session["token"]).await, ann.bank.is_active(&session["jwt"]).await);
    assert_eq!(active().await, (true, true));
    let (visit, open) = (ann.browser(None).await, ann.challenge(json!({})).await);
    let approved = ann.challenge(json!({})).await;
    let code = approved.browser().post(&approved.path("/verify"), recovery(1)).await.is(200)["code"].clone();
    let operator = &ann.bank.world.operator;
    let devices = async || operator.show_user(&ann.bank.rp, "ann").await.expect("a user").devices;
    assert_eq!(devices().await, 1);

    operator.reset_user(&ann.bank.rp, "ann").await.expect("it is reset");
    assert_eq!(active().await, (false, false));
    visit.post(&ann.path("/factors"), json!({"type": "totp"})).await.refused(401, "client_token_invalid");
    assert_eq!(open.status().await, "cancelled");
    let exchange = approved.exchange(json!({"code": code})).await;
    assert!(!exchange.is_success(), "{}", exchange.body);
    assert_eq!((approved.status().await, devices().await), (json!("cancelled"), 0));
    assert_eq!(enrol_totp(&ann, &ann.browser(None).await).await, 200, "and all begins anew");
}

/// A client token is its portal session's by its secret: the id of one with the secret of another opens neither.
#[tokio::test]
async fn a_client_token_with_the_secret_of_another_opens_nothing() {
    let ann = ann().await;
    let token = async || {
        let made = ann.bank.post("/v1/portal-sessions", json!({"user_id": "ann", "flow": "settings"})).await.is(201);
        text(&made["client_token"]).split_once('.').map(|(id, s)| (id.to_owned(), s.to_owned())).expect("two parts")
    };
    let (one, two) = (token().await, token().await);
    let caller =
        |(id, secret): (&str, &str)| ann.bank.world.caller(&format!("{id}.{secret}")).with("origin", ann.bank.origin());
    caller((&one.0, &one.1)).get(&ann.path("")).await.is(200);
    for mixed in [(one.0.as_str(), two.1.as_str()), (&two.0, &one.1)] {
        caller(mixed).get(&ann.path("")).await.refused(401, "client_token_invalid");
    }
}

/// WR-20, A-01, A-02, P-09, 3.13, 3.14: nothing is changed on a mere visit, nor by the code of what is only begun.
#[tokio::test]
async fn changing_anything_needs_a_step_up() {
    let ann = ann().await;
    let (app, pending) = (ann.enrol_totp().await, ann.begin_totp().await);
    let browser = ann.browser(None).await;
    let factor = |app: &App| ann.path(&format!("/factors/{}", app.id));
    browser.get(&ann.path("")).await.is(200);
    browser.get(&ann.path("/factors")).await.is(200);
    browser.get(&factor(&app)).await.is(200);
    browser.get(&ann.path("/recovery-codes")).await.is(200);
    let refused = "step_up_required";
    browser.post(&ann.path("/factors"), json!({"type": "totp"})).await.refused(403, refused);
    browser.post(&ann.path("/factors"), json!({"type": "webauthn"})).await.refused(403, refused);
    browser.post(&ann.path("/factors"), json!({"type": "sms", "phone": "+14155550123"})).await.refused(403, refused);
    browser
        .post(&format!("{}/activate", factor(&pending)), json!({"code": pending.code()}))
        .await
        .refused(403, refused);
    browser.ask(&format!("{}/resend", factor(&pending))).await.refused(403, refused);
    browser.patch(&factor(&app), json!({"name": "Mine"})).await.refused(403, refused);
    browser.delete(&factor(&app)).await.refused(403, refused);
    browser.delete(&factor(&pending)).await.refused(403, refused);
    browser.post(&ann.path("/recovery-codes"), json!({})).await.refused(403, refused);
    browser.ask(&ann.path("/recovery-codes/confirm")).await.refused(403, refused);
    assert_eq!(ann.factors().await.len(), 2);
    assert_eq!(ann.bank.world.gateway.asked(), 0);
}

/// WR-20: and a weaker one nothing.
#[tokio::test]
async fn a_step_up_as_strong_as_the_strongest_factor_may_change_everything() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    let session = ann.session(&app, json!({})).await;
    let browser = ann.browser(Some(&session["token"])).await;
    assert_eq!(enrol_totp(&ann, &browser).await, 200);
    browser.patch(&ann.path(&format!("/factors/{}", app.id)), json!({"name": "Old"})).await.is(200);
    browser.post(&ann.path("/recovery-codes"), json!({})).await.is(201);

    // As soon as there is a stronger one, the session is too weak, also for what it began itself.
    let begun = browser.post(&ann.path("/factors"), json!({"type": "totp"})).await.is(201);
    let pending = ann.path(&format!("/factors/{}", text(&begun["id"])));
    let phone = browser.post(&ann.path("/factors"), json!({"type": "sms", "phone": "+14155550123"})).await.is(201);
    let unproven = ann.path(&format!("/factors/{}", text(&phone["id"])));
    ann.bank.world.wait(30);
    let mut passkey = ann.enrol_passkey().await;
    assert_eq!(enrol_totp(&ann, &browser).await, 403);
    let path = ann.path(&format!("/factors/{}", passkey.id));
    let secret = crate::support::app::base32(begun["totp"]["secret"].as_str().expect("a secret"));
    let code = crate::support::app::totp(&secret, ann.bank.world.now() / 30);
    let (factors, codes) = (ann.path("/factors"), ann.path("/recovery-codes"));
    let another = json!({"type": "sms", "phone": "+14155550124"});
    let refused = [
        browser.delete(&path).await,
        browser.patch(&path, json!({"name": "Mine"})).await,
        browser.post(&factors, another).await,
        browser.post(&format!("{pending}/activate"), json!({"code": code})).await,
        browser.ask(&format!("{unproven}/resend")).await,
        browser.post(&codes, json!({})).await,
        browser.ask(&format!("{codes}/confirm")).await,
    ];
    for answer in refused {
        answer.refused(403, "step_up_required");
    }
    assert_eq!(ann.bank.world.gateway.asked(), 1);
    let challenge = ann.challenge(json!({})).await;
    let answer = passkey.answer(&challenge).await;
    let strong = challenge.verify(answer).await.is(200)["session"].clone();
    let browser = ann.browser(Some(&strong["token"])).await;
    browser.delete(&ann.path(&format!("/factors/{}", app.id))).await.is(204);
    browser.delete(&path).await.is(204);
    browser.delete(&path).await.refused(403, "step_up_required");
}

#[tokio::test]
async fn a_step_up_that_ended_counts_no_longer() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    let session = ann.session(&app, json!({})).await;
    let browser = ann.browser(Some(&session["token"])).await;
    ann.bank.delete(&format!("/v1/sessions/{}", text(&session["id"]))).await.is(204);
    assert_eq!(enrol_totp(&ann, &browser).await, 403);
    let session = ann.session(&app, json!({})).await;
    ann.bank.world.wait(599);
    let browser = ann.browser(Some(&session["token"])).await;
    assert_eq!(enrol_totp(&ann, &browser).await, 200);
    ann.bank.world.wait(1);
    assert_eq!(enrol_totp(&ann, &browser).await, 403);
    // Another user's session is none.
    let bob = ann.bank.user("bob");
    let other = bob.enrol_totp().await;
    let of_bob = bob.session(&other, json!({})).await;
    let browser = ann.browser(Some(&of_bob["token"])).await;
    assert_eq!(enrol_totp(&ann, &browser).await, 403);
}

/// A session may be passed on for as long as its caller's `max_age` allows; factors are changed by a recent proof alone.
#[tokio::test]
async fn a_session_that_was_passed_on_from_an_old_proof_changes_no_factor() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    let mut session = ann.session(&app, json!({})).await;
    let pass_on = async |session: &Value| {
        let heir = json!({"session_token": session["token"], "require": {"max_age": 86_400}});
        ann.ask(heir).await.is(200)["session"].clone()
    };
    ann.bank.world.wait(300);
    session = pass_on(&session).await;
    let early = ann.browser(Some(&session["token"])).await;
    assert_eq!(enrol_totp(&ann, &early).await, 200);
    ann.bank.world.wait(300);
    assert_eq!(enrol_totp(&ann, &early).await, 403, "the proof is ten minutes old, the session five");
    session = pass_on(&session).await;
    let late = ann.browser(Some(&session["token"])).await;
    assert_eq!(enrol_totp(&ann, &late).await, 403);
    assert_eq!(ann.bank.introspect(json!({"token": session["token"]})).await["active"], true);
}

/// A-07; api.md, 4: 409 `last_factor` where policy demands one.
#[tokio::test]
async fn a_person_cannot_remove_the_last_factor() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    let pending = ann.begin_totp().await;
    let session = ann.session(&app, json!({})).await;
    let browser = ann.browser(Some(&session["token"])).await;
    browser.delete(&ann.path(&format!("/factors/{}", app.id))).await.refused(409, "last_factor");
    browser.delete(&ann.path(&format!("/factors/{}", pending.id))).await.is(204);
    assert_eq!(enrol_totp(&ann, &browser).await, 200);
    browser.delete(&ann.path(&format!("/factors/{}", app.id))).await.is(204);
}

/// api.md, 4: a session of a recovery code may, once, add one factor and remove one.
#[tokio::test]
async fn a_recovery_session_adds_one_factor_and_removes_one() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    let lost = ann.enrol_passkey().await;
    let codes = ann.recovery_codes().await;
    let session = recovered(&ann, &codes[0]).await;
    let browser = ann.browser(Some(&session["token"])).await;
    browser
        .patch(&ann.path(&format!("/factors/{}", app.id)), json!({"name": "x"}))
        .await
        .refused(403, "step_up_required");
    browser.post(&ann.path("/recovery-codes"), json!({})).await.refused(403, "step_up_required");

    // A failed activation does not spend the right; two enrolments at once do not double it.
    let begin = || async {
        let begun = browser.post(&ann.path("/factors"), json!({"type": "webauthn"})).await.is(201);
        (text(&begun["id"]), begun["webauthn"]["creation_options"].clone())
    };
    let (one, two, three) = (begin().await, begin().await, begin().await);
    let activate = |id: &str, credential: Value| {
        let path = ann.path(&format!("/factors/{id}/activate"));
        let browser = browser.clone();
        async move { browser.post(&path, json!({"credential": credential})).await }
    };
    activate(&one.0, json!({"id": "x"})).await.refused(422, "credential_invalid");
    let credential = ann.device().create(&two.1).expect("no objection");
    activate(&two.0, credential).await.is(200);
    let credential = ann.device().create(&three.1).expect("no objection");
    activate(&three.0, credential).await.refused(403, "step_up_required");
    browser.post(&ann.path("/factors"), json!({"type": "totp"})).await.refused(403, "step_up_required");

    browser.delete(&ann.path(&format!("/factors/{}", lost.id))).await.is(204);
    browser.delete(&ann.path(&format!("/factors/{}", app.id))).await.refused(403, "step_up_required");
    // A second visit with the same session has no second right.
    let again = ann.browser(Some(&session["token"])).await;
    again.post(&ann.path("/factors"), json!({"type": "totp"})).await.refused(403, "step_up_required");
    again.delete(&ann.path(&format!("/factors/{}", app.id))).await.refused(403, "step_up_required");
}

#[tokio::test]
async fn a_client_token_of_a_portal_session_serves_its_user_for_ten_minutes() {
    let ann = ann().await;
    ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    let browser = ann.browser(None).await;
    browser.get("/v1/users/bob").await.refused(401, "client_token_invalid");
    browser.post("/v1/users/bob/factors", json!({"type": "totp"})).await.refused(401, "client_token_invalid");
    browser.get(&challenge.path("")).await.refused(401, "client_token_invalid");
    browser.put(&ann.path(""), json!({})).await.refused(401, "api_key_invalid");
    browser.delete(&ann.path("")).await.refused(401, "api_key_invalid");
    browser.get(&ann.path("/sessions")).await.refused(401, "api_key_invalid");
    browser
        .post("/v1/portal-sessions", json!({"user_id": "ann", "flow": "settings"}))
        .await
        .refused(401, "api_key_invalid");
    ann.bank.world.wait(599);
    browser.get(&ann.path("")).await.is(200);
    ann.bank.world.wait(1);
    browser.get(&ann.path("")).await.refused(401, "client_token_invalid");
}

#[tokio::test]
async fn a_portal_token_from_another_origin_is_refused() {
    let ann = ann().await;
    let portal = ann.bank.post("/v1/portal-sessions", json!({"user_id": "ann", "flow": "settings"})).await.is(201);
    let token = text(&portal["client_token"]);
    let at = |origin: &str| ann.bank.world.caller(&token).with("origin", origin);
    for origin in ["https://evil.example", "null", "http://bank.example", "https://bank.example.evil.example"] {
        at(origin).get(&ann.path("")).await.refused(403, "origin_not_allowed");
        at(origin).post(&ann.path("/factors"), json!({"type": "totp"})).await.refused(403, "origin_not_allowed");
    }
    at("https://bank.example").get(&ann.path("")).await.is(200);
}
