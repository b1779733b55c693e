//! Challenges: opened, answered, exchanged, called off (api.md, 5).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::Clock;
use countersign::model::Scope;
use sha2::{Digest, Sha256};

use crate::support::verbs::{claims, text};
use crate::support::{App, Bank, World, ann, ann_with_app, json};

/// P-08, P-16, T-11: the stronger ways first, no number whole, and nothing that is pending.
#[tokio::test]
async fn a_challenge_offers_all_methods_that_the_user_may_use() {
    let (ann, app) = ann_with_app().await;
    ann.begin_totp().await;
    let passkey = ann.enrol_passkey().await;
    let phone = ann.enrol_phone("+14155550123").await;
    ann.recovery_codes().await;
    let now = ann.bank.world.clock.now();
    let body = ann.ask(json!({})).await.is(201);
    assert_eq!(
        (&body["status"], &body["user_id"], &body["action"]),
        (&json!("pending"), &json!("ann"), &json!("login"))
    );
    assert_eq!(body["attempts_left"], 5);
    assert_eq!(body["expires_at"], now.plus_seconds(600).rfc3339());
    let id = text(&body["id"]);
    assert!(text(&body["url"]).starts_with(&format!("{}/challenge/{id}", ann.bank.world.issuer())));
    assert!(text(&body["client_token"]).starts_with("ct_"));
    let methods = body["methods"].as_array().expect("a list");
    let seen: Vec<_> = methods.iter().map(|m| (text(&m["type"]), m["factor_id"].clone())).collect();
    let expected = [
        ("webauthn".to_owned(), json!(passkey.id)),
        ("totp".to_owned(), json!(app.id)),
        ("sms".to_owned(), json!(phone.id)),
        ("recovery_code".to_owned(), json!(null)),
    ];
    assert_eq!(seen, expected, "strongest first, and nothing that is pending");
    // Never the number.
    assert!(!body.to_string().contains("4155550"));
    assert!(methods[2]["hint"].as_str().is_some_and(|h| h.ends_with("23")));
    assert!(ann.bank.world.gateway.texts().len() == 1, "nothing is sent when a challenge is created");
}

/// api.md, 5: never a silent downgrade. T-11: a pending factor is none.
#[tokio::test]
async fn what_the_user_has_nothing_for_needs_enrolment() {
    let ann = ann().await;
    let none = ann.ask(json!({})).await.is(200);
    assert_eq!(none["status"], "enrolment_required");
    assert_eq!(none["missing"], json!(["webauthn", "totp", "sms"]));
    assert!(none["session"].is_null());
    ann.enrol_totp().await;
    let phr = ann.ask(json!({"require": {"acr": "phr"}})).await.is(200);
    assert_eq!((&phr["status"], &phr["missing"]), (&json!("enrolment_required"), &json!(["webauthn"])));
    let phrh = ann.ask(json!({"require": {"acr": "phrh"}})).await.is(200);
    assert_eq!((&phrh["status"], &phrh["missing"]), (&json!("enrolment_required"), &json!([])));
    let sms = ann.ask(json!({"require": {"methods": ["sms", "webauthn"]}})).await.is(200);
    assert_eq!(sms["missing"], json!(["webauthn", "sms"]));
    let bob = ann.bank.user("bob");
    let pending = bob.begin_totp().await;
    assert_eq!(bob.ask(json!({})).await.is(200)["status"], "enrolment_required");
    assert_eq!(bob.ask(json!({"answer": pending.now()})).await.is(200)["status"], "enrolment_required");
}

/// api.md, 5: where inline enrolment is allowed the answer opens a challenge on whose way a first factor is set up, and no more.
#[tokio::test]
async fn a_first_factor_may_be_set_up_on_the_way_to_a_challenge() {
    let ann = ann().await;
    let world = ann.bank.world.clone();
    let asked = ann.ask(json!({})).await.is(200);
    let id = text(&asked["id"]);
    assert!(text(&asked["url"]).starts_with(&format!("{}/challenge/{id}?token=", world.issuer())));
    assert_eq!(asked["expires_at"], world.clock.now().plus_seconds(600).rfc3339());
    let browser = world.caller(&text(&asked["client_token"])).with("origin", ann.bank.origin());
    let path = |below: &str| format!("/v1/challenges/{id}{below}");
    let shown = browser.get(&path("")).await.is(200);
    assert_eq!((&shown["status"], &shown["methods"]), (&json!("pending"), &json!([])));
    browser.post(&path("/verify"), json!({"type": "totp", "code": "123456"})).await.refused(422, "method_not_allowed");
    // For its own person and for nothing else.
    let (foreign, totp) = (ann.bank.user("bob").path("/factors"), json!({"type": "totp"}));
    browser.post(&foreign, totp.clone()).await.refused(401, "client_token_invalid");
    browser.post(&ann.path("/recovery-codes"), json!({})).await.refused(401, "client_token_invalid");
    browser.get(&ann.path("/factors")).await.refused(401, "client_token_invalid");
    let elsewhere = world.caller(&text(&asked["client_token"])).with("origin", "https://evil.example");
    elsewhere.post(&ann.path("/factors"), totp.clone()).await.refused(403, "origin_not_allowed");

    let add = async || {
        let begun = browser.post(&ann.path("/factors"), totp.clone()).await.is(201);
        let secret = crate::support::app::base32(&text(&begun["totp"]["secret"]));
        let code = crate::support::app::totp(&secret, world.now() / 30);
        let activate = ann.path(&format!("/factors/{}/activate", text(&begun["id"])));
        (secret, activate, json!({"code": code}))
    };
    let ((secret, activate, proof), (_, second, late)) = (add().await, add().await);
    assert_eq!(browser.post(&activate, proof).await.is(200)["status"], "active");
    browser.post(&second, late).await.refused(403, "step_up_required");
    browser.post(&ann.path("/factors"), totp.clone()).await.refused(403, "step_up_required");
    browser.delete(activate.trim_end_matches("/activate")).await.refused(401, "client_token_invalid");
    world.wait(30);
    let code = crate::support::app::totp(&secret, world.now() / 30);
    let approved = browser.post(&path("/verify"), json!({"type": "totp", "code": code})).await.is(200);
    let session = ann.bank.post(&path("/exchange"), json!({"code": approved["code"]})).await.is(200)["session"].clone();
    assert_eq!((&session["user_id"], &session["acr"]), (&json!("ann"), &json!("aal2")));
    let kinds = world.scratch.texts("select kind from events where user_id = 'ann' order by id").await;
    assert!(kinds.contains(&"challenge.created".to_owned()) && kinds.contains(&"factor.added".to_owned()), "{kinds:?}");

    // A challenge that was opened for what is there lets nothing be added, nor does one that has ended.
    let usual = ann.challenge(json!({})).await.browser();
    usual.post(&ann.path("/factors"), totp.clone()).await.refused(401, "client_token_invalid");
    let asked = ann.bank.user("carol").ask(json!({})).await.is(200);
    let browser = world.caller(&text(&asked["client_token"])).with("origin", ann.bank.origin());
    world.wait(600);
    browser.post(&ann.bank.user("carol").path("/factors"), totp.clone()).await.refused(410, "challenge_expired");
    let asked = ann.bank.user("dave").ask(json!({})).await.is(200);
    let browser = world.caller(&text(&asked["client_token"])).with("origin", ann.bank.origin());
    browser.ask(&format!("/v1/challenges/{}/cancel", text(&asked["id"]))).await.is(200);
    browser.post(&ann.bank.user("dave").path("/factors"), totp).await.refused(409, "challenge_not_pending");
}

/// Who may not add factors opens no way to it, and what would not do is not set up; then nothing is written either.
#[tokio::test]
async fn inline_enrolment_is_offered_where_it_is_allowed_and_would_do() {
    let world = World::start_with(|config| config.factor_cool_off = 60).await;
    let bank = world.bank().await;
    let narrow = world.caller(&world.key(&bank.rp, &[Scope::Challenges], None).await);
    let user = json!({"user_id": "ann"});
    let mut refused = vec![narrow.post("/v1/challenges", user.clone()).await];
    let ann = bank.user("ann");
    refused.push(ann.ask(json!({"answer": {"type": "totp", "code": "123456"}})).await);
    refused.push(ann.ask(json!({"require": {"acr": "phrh"}})).await);
    refused.push(ann.ask(json!({"require": {"acr": "phr"}})).await);
    for answer in refused {
        let body = answer.is(200);
        assert_eq!(body["status"], "enrolment_required");
        let told = ["id", "url", "client_token", "expires_at"].map(|member| body[member].is_null());
        assert_eq!(told, [true; 4], "{body}");
    }
    assert_eq!(world.scratch.number("select count(*) from challenges").await, 0);
    assert_eq!(world.scratch.number("select count(*) from sessions").await, 0);
    assert!(ann.ask(json!({})).await.is(200)["url"].is_string());
}

#[tokio::test]
async fn a_demand_narrows_what_is_offered_and_accepted() {
    let (ann, app) = ann_with_app().await;
    let mut passkey = ann.enrol_passkey().await;
    ann.recovery_codes().await;
    let strong = ann.challenge(json!({"require": {"acr": "phr"}})).await;
    assert_eq!(strong.methods(), ["webauthn"]);
    strong.verify(app.now()).await.refused(422, "method_not_allowed");
    assert_eq!(strong.attempts_left().await, 5);
    let answer = passkey.answer(&strong).await;
    let session = strong.verify(answer).await.is(200)["session"].clone();
    assert_eq!((&session["acr"], &session["amr"]), (&json!("phr"), &json!(["pop", "hwk", "user"])));

    let weak = ann.challenge(json!({"require": {"methods": ["totp"], "acr": "aal2"}})).await;
    assert_eq!(weak.methods(), ["totp"]);
    weak.prepare(json!({"type": "webauthn"})).await.refused(422, "method_not_allowed");
    weak.prepare(json!({"type": "totp"})).await.refused(422, "method_not_allowed");
    weak.prepare(json!({"type": "sms"})).await.refused(422, "method_not_allowed");
    weak.verify(app.now()).await.is(200);
}

/// api.md, 5: recovery codes serve `login` and factor management only, unless they are named.
#[tokio::test]
async fn recovery_codes_serve_login_and_factor_management_unless_named() {
    let (ann, _) = ann_with_app().await;
    let codes = ann.recovery_codes().await;
    let answer = |n: usize| json!({"type": "recovery_code", "code": codes[n]});
    let payout = ann.challenge(json!({"action": "payout.update"})).await;
    assert_eq!(payout.methods(), ["totp"]);
    payout.verify(answer(0)).await.refused(422, "method_not_allowed");
    let named = json!({"action": "payout.update", "require": {"methods": ["recovery_code"]}});
    let named = ann.challenge(named).await;
    assert_eq!(named.methods(), ["recovery_code"]);
    let session = named.verify(answer(0)).await.is(200)["session"].clone();
    assert_eq!((&session["acr"], &session["amr"]), (&json!("aal2"), &json!(["recovery"])));
    let login = ann.challenge(json!({})).await;
    assert_eq!(login.methods(), ["totp", "recovery_code"]);
    login.verify(answer(1)).await.is(200);
    let strong = ann.ask(json!({"require": {"acr": "phr"}})).await.is(200);
    assert_eq!(strong["status"], "enrolment_required");
}

/// S-01, S-02, S-09: how it was proved, under a token of 256 bits that is new with each proof.
#[tokio::test]
async fn the_session_says_what_happened() {
    let (ann, app) = ann_with_app().await;
    let terms = json!({
        "action": "payout.update", "binding": "login-7", "audience": ["https://api.example.com", "https://b.example"],
        "display": {"label": "Change payout account", "details": [{"label": "New IBAN", "value": "…1234"}]},
        "client": {"ip": "192.0.2.1", "user_agent": "Test/1", "device": "d"},
    });
    let now = ann.bank.world.clock.now().plus_seconds(30);
    let session = ann.session(&app, terms).await;
    assert_eq!(session["user_id"], "ann");
    assert_eq!(session["action"], "payout.update");
    assert_eq!(session["binding"], "login-7");
    assert_eq!(session["audience"], json!(["https://api.example.com", "https://b.example"]));
    assert_eq!((&session["acr"], &session["amr"]), (&json!("aal2"), &json!(["otp"])));
    assert_eq!(session["auth_time"], now.rfc3339());
    assert_eq!(session["expires_at"], now.plus_seconds(600).rfc3339());
    assert_eq!(session["single_use"], false);
    assert!(session["jwt"].is_string());
    let plain = ann.session(&app, json!({})).await;
    assert!(plain["binding"].is_null());
    assert_eq!(text(&plain["token"]).len(), 3 + 43);
    assert_ne!(plain["token"], session["token"]);
    let phone = ann.enrol_phone("+14155550123").await;
    let challenge = ann.challenge(json!({})).await;
    challenge.text().await.is(200);
    assert_eq!(challenge.verify(phone.answer()).await.is(200)["session"]["amr"], json!(["sms"]));
}

/// WA-16, S-09, S-10: hardware or software, by the flag that cannot be gained later; neither is called attested.
#[tokio::test]
async fn a_synced_passkey_is_a_software_key() {
    let ann = ann().await;
    let device = crate::support::Authenticator { backup_eligible: true, counting: false, ..ann.device() };
    let mut synced = ann.enrol_passkey_on(device).await;
    let challenge = ann.challenge(json!({})).await;
    let answer = synced.answer(&challenge).await;
    let session = challenge.verify(answer).await.is(200)["session"].clone();
    assert_eq!((&session["acr"], &session["amr"]), (&json!("phr"), &json!(["pop", "swk", "user"])));
    assert_eq!(ann.ask(json!({"require": {"acr": "phrh"}})).await.is(200)["status"], "enrolment_required");
}

/// T-08, T-09, 3.6: one code, one proof, whatever the challenge.
#[tokio::test]
async fn a_code_is_refused_the_second_time() {
    let (ann, app) = ann_with_app().await;
    let (one, two) = (ann.challenge(json!({})).await, ann.challenge(json!({"action": "other"})).await);
    one.verify(app.now()).await.is(200);
    let replay = two.verify(app.now()).await.refused(422, "code_reused");
    assert_eq!(replay["attempts_left"], 4);
    two.verify(json!({"type": "totp", "code": app.code_in(-1)})).await.refused(422, "code_reused");
    ann.ask(json!({"answer": app.now()})).await.refused(422, "code_reused");
    one.verify(app.now()).await.refused(409, "challenge_not_pending");
    two.verify(app.answer()).await.is(200);
}

/// T-06, T-07, T-10: the present step and the one before; no header turns the clock.
#[tokio::test]
async fn only_this_step_and_the_one_before_are_right() {
    let (ann, app) = ann_with_app().await;
    ann.bank.world.wait(300);
    let challenge = ann.challenge(json!({})).await;
    for (steps, expected) in [(-2, 4), (1, 3), (2, 2)] {
        let code = app.code_in(steps);
        let problem = challenge.verify(json!({"type": "totp", "code": code})).await.refused(422, "code_incorrect");
        assert_eq!(problem["attempts_left"], expected);
    }
    challenge.verify(json!({"type": "totp", "code": app.code_in(-1)})).await.is(200);
    // No header turns the clock: the code is right at the very time that both of them name.
    let challenge = ann.challenge(json!({})).await;
    let late = ann.bank.with("date", "Sun, 17 Mar 2030 17:46:40 GMT").with("x-time", "1900000000");
    let code = app.code_at(1_900_000_000 / 30);
    late.post(&challenge.path("/verify"), json!({"type": "totp", "code": code})).await.refused(422, "code_incorrect");
}

/// T-09, 3.36: a clock that goes back revives nothing.
#[tokio::test]
async fn a_spent_step_stays_spent_when_the_clock_goes_back() {
    let (ann, app) = ann_with_app().await;
    ann.bank.world.wait(60);
    ann.challenge(json!({})).await.verify(app.now()).await.is(200);
    ann.bank.world.wait(-30);
    ann.challenge(json!({})).await.verify(app.now()).await.refused(422, "code_reused");
}

///
#[tokio::test]
async fn five_wrong_answers_deny_a_challenge() {
    let (ann, app) = ann_with_app().await;
    let challenge = ann.challenge(json!({})).await;
    for left in [4, 3, 2, 1, 0] {
        let problem = challenge.verify(app.miss()).await.refused(422, "code_incorrect");
        assert_eq!(problem["attempts_left"], left);
    }
    assert_eq!(challenge.status().await, "denied");
    let over = challenge.verify(app.now()).await.refused(409, "challenge_not_pending");
    assert_eq!(over["attempts_left"], 0);
    challenge.prepare(json!({"type": "webauthn"})).await.refused(409, "challenge_not_pending");
    challenge.cancel().await.refused(409, "challenge_not_pending");
    challenge.exchange(json!({"code": "x"})).await.refused(409, "challenge_not_pending");
    // The other challenge knows nothing of it.
    ann.challenge(json!({})).await.verify(app.now()).await.is(200);
}

#[tokio::test]
async fn a_malformed_answer_costs_nothing() {
    let (ann, app) = ann_with_app().await;
    let challenge = ann.challenge(json!({})).await;
    for code in ["12345", "abcdef", "", "1234567", "١٢٣٤٥٦"] {
        let problem = challenge.verify(json!({"type": "totp", "code": code})).await.refused(422, "code_malformed");
        assert_eq!(problem["attempts_left"], 5);
    }
    challenge.verify(app.now()).await.is(200);
}

#[tokio::test]
async fn a_challenge_is_open_for_ten_minutes() {
    let (ann, app) = ann_with_app().await;
    let (in_time, late) = (ann.challenge(json!({})).await, ann.challenge(json!({})).await);
    ann.bank.world.wait(599);
    in_time.verify(app.now()).await.is(200);
    ann.bank.world.wait(1);
    let problem = late.verify(app.now()).await.refused(410, "challenge_expired");
    assert!(problem["attempts_left"].is_i64());
    late.prepare(json!({"type": "webauthn"})).await.refused(410, "challenge_expired");
    late.exchange(json!({"code": "x"})).await.refused(410, "challenge_expired");
    late.cancel().await.refused(410, "challenge_expired");
    assert_eq!(late.status().await, "expired");
    assert_eq!(in_time.status().await, "approved");
}

/// S-15.
#[tokio::test]
async fn a_cancelled_challenge_takes_no_answer() {
    let (ann, app) = ann_with_app().await;
    let challenge = ann.challenge(json!({})).await;
    assert_eq!(challenge.cancel().await.is(200)["status"], "cancelled");
    assert_eq!(challenge.status().await, "cancelled");
    challenge.verify(app.now()).await.refused(409, "challenge_not_pending");
    challenge.cancel().await.refused(409, "challenge_not_pending");
}

/// S-15: a status is no proof.
#[tokio::test]
async fn a_status_never_holds_the_session() {
    let (ann, app) = ann_with_app().await;
    let challenge = ann.challenge(json!({})).await;
    let session = challenge.verify(app.now()).await.is(200)["session"].clone();
    let shown = ann.bank.get(&challenge.path("")).await.is(200);
    assert_eq!(shown["status"], "approved");
    assert!(shown["session"].is_null() && shown["client_token"].is_null() && shown["url"].is_null());
    assert!(!shown.to_string().contains(session["token"].as_str().expect("a token")));
}

#[tokio::test]
async fn an_answer_may_come_with_the_creation() {
    let (ann, app) = ann_with_app().await;
    let made = ann.ask(json!({"answer": app.now(), "action": "payout.update", "binding": "b"})).await.is(200);
    assert_eq!((&made["status"], &made["reason"]), (&json!("approved"), &json!("answer")));
    assert_eq!((&made["session"]["action"], &made["session"]["binding"]), (&json!("payout.update"), &json!("b")));
    assert!(ann.bank.is_active(&made["session"]["token"]).await);
    let shown = ann.bank.get(&format!("/v1/challenges/{}", text(&made["id"]))).await.is(200);
    assert_eq!(shown["status"], "approved");
    for (answer, code) in [
        (app.miss(), "code_incorrect"),
        (json!({"type": "totp", "code": "12"}), "code_malformed"),
        (json!({"type": "sms", "code": "123456"}), "method_not_allowed"),
    ] {
        ann.ask(json!({"answer": answer})).await.refused(422, code);
    }
    let strong = json!({"answer": app.answer(), "require": {"acr": "phr"}});
    assert_eq!(ann.ask(strong).await.is(200)["status"], "enrolment_required");
    let used =
        json!({"answer": {"type": "totp", "code": app.code(), "factor_id": "fac_00000000000070008000000000000000"}});
    ann.ask(used).await.refused(422, "method_not_allowed");
}

/// api.md, 5: of an earlier session comes what was proved, and nothing else: for whom it is, how often it may be used, what was seen
/// and how long it lives is the new challenge's own.
#[tokio::test]
async fn an_heir_is_what_its_own_challenge_says() {
    let (ann, app) = ann_with_app().await;
    let world = ann.bank.world.clone();
    let seen = json!({"details": [{"label": "To", "value": "Bob"}]});
    let first = ann.session(&app, json!({"action": "pay", "audience": ["https://a.example"], "display": seen})).await;
    assert!(!claims(&first["jwt"])["ctx"].is_null());
    let heir = async |more: serde_json::Value| {
        let mut terms = json!({"session_token": first["token"], "action": "pay"});
        for (name, value) in more.as_object().expect("members") {
            terms[name] = value.clone();
        }
        ann.ask(terms).await.is(200)["session"].clone()
    };
    let once = heir(json!({"single_use": true})).await;
    assert_eq!((&once["single_use"], &once["jwt"]), (&json!(true), &json!(null)));
    world.wait(100);
    let other = heir(json!({"audience": ["https://b.example"], "require": {"max_age": 86_400}})).await;
    assert_eq!(other["audience"], json!(["https://b.example"]));
    let claims = claims(&other["jwt"]);
    assert_eq!((&claims["aud"], &claims["ctx"]), (&json!("https://b.example"), &json!(null)));
    let end = countersign::model::Timestamp::from_seconds(world.now() + 600);
    assert_eq!((&other["expires_at"], claims["exp"].as_i64()), (&json!(end.rfc3339()), Some(end.seconds())));
    assert_eq!(heir(json!({})).await["audience"], json!([ann.bank.rp.id.as_str()]), "nobody's in particular");
}

/// S-08; api.md, 5: `session_token` and each of its conditions.
#[tokio::test]
async fn a_fresh_session_lets_a_challenge_through() {
    let (ann, app) = ann_with_app().await;
    let world = ann.bank.world.clone();
    let login = ann.session(&app, json!({"binding": "s-1"})).await;
    let again = |more: serde_json::Value| {
        let mut terms = json!({"session_token": login["token"], "binding": "s-1", "action": "payout"});
        for (name, value) in more.as_object().expect("members") {
            terms[name] = value.clone();
        }
        terms
    };
    world.wait(100);
    let through = ann.ask(again(json!({}))).await.is(200);
    assert_eq!((&through["status"], &through["reason"]), (&json!("approved"), &json!("fresh_session")));
    let session = &through["session"];
    for member in ["auth_time", "acr", "amr", "binding"] {
        assert_eq!(session[member], login[member], "{member} is inherited");
    }
    assert_eq!(session["action"], "payout");
    assert_eq!(session["expires_at"], login["expires_at"], "it ends no later than the proof's age allows");
    assert_ne!(session["token"], login["token"]);
    assert!(ann.bank.is_active(&session["token"]).await && ann.bank.is_active(&login["token"]).await);
    let by_jwt = ann.ask(again(json!({"session_token": login["jwt"]}))).await;
    assert_eq!(by_jwt.is(200)["reason"], "fresh_session");
    let shorter = ann.ask(again(json!({"require": {"max_age": 200}}))).await.is(200)["session"].clone();
    assert_eq!(shorter["expires_at"], countersign::model::Timestamp::from_seconds(world.now() + 100).rfc3339());

    for refused in [
        json!({"binding": "s-2"}),
        json!({"binding": null}),
        json!({"display": {"details": [{"label": "To", "value": "Bob"}]}}),
        json!({"require": {"acr": "aal2", "max_age": 100}}),
        json!({"require": {"max_age": 0}}),
        json!({"require": {"methods": ["totp"], "max_age": 60}}),
        json!({"session_token": format!("{}x", text(&login["token"]))}),
        json!({"session_token": "st_unknown"}),
    ] {
        ann.ask(again(refused)).await.is(201);
    }
    // A label alone shows nothing that must be seen.
    ann.ask(again(json!({"display": {"label": "Pay"}}))).await.is(200);
    // By a method that was not named.
    ann.enrol_passkey().await;
    ann.ask(again(json!({"require": {"methods": ["webauthn"]}}))).await.is(201);
    ann.ask(again(json!({"require": {"acr": "phr"}}))).await.is(201);
    // Of a session for another action, only that action.
    let payout = session.clone();
    let of_payout = |action: &str| json!({"session_token": payout["token"], "binding": "s-1", "action": action});
    ann.ask(of_payout("payout")).await.is(200);
    ann.ask(of_payout("transfer")).await.is(201);
    ann.ask(of_payout("login")).await.is(201);
    // Of another user's session, nothing.
    let bob = ann.bank.user("bob");
    bob.enrol_totp().await;
    bob.ask(again(json!({}))).await.is(201);
    // Of an old one or a revoked one, nothing.
    let fresh = ann.session(&app, json!({"binding": "s-1"})).await;
    ann.bank.delete(&format!("/v1/sessions/{}", text(&fresh["id"]))).await.is(204);
    ann.ask(again(json!({"session_token": fresh["token"]}))).await.is(201);
    world.wait(500);
    ann.ask(again(json!({}))).await.is(201);
}

/// what one recovery code proved is proved for one challenge.
#[tokio::test]
async fn a_single_use_session_and_one_of_a_recovery_code_let_nothing_through() {
    let (ann, app) = ann_with_app().await;
    let single = ann.session(&app, json!({"single_use": true})).await;
    assert_eq!((&single["single_use"], &single["jwt"]), (&json!(true), &json!(null)));
    ann.ask(json!({"session_token": single["token"]})).await.is(201);
    assert!(ann.bank.is_active(&single["token"]).await, "it is not used up by the attempt");
    let code = ann.recovery_codes().await.remove(0);
    let challenge = ann.challenge(json!({})).await;
    let recovered = challenge.verify(json!({"type": "recovery_code", "code": code})).await.is(200)["session"].clone();
    ann.ask(json!({"session_token": recovered["token"]})).await.is(201);
}

/// S-08: an inherited session is no newer than its proof, however often it is passed on.
#[tokio::test]
async fn inheriting_again_and_again_never_outlives_the_proof() {
    let (ann, app) = ann_with_app().await;
    let mut session = ann.session(&app, json!({})).await;
    let first = session["auth_time"].clone();
    for _ in 0..5 {
        ann.bank.world.wait(100);
        session = ann.ask(json!({"session_token": session["token"]})).await.is(200)["session"].clone();
        assert_eq!(session["auth_time"], first);
    }
    ann.bank.world.wait(100);
    ann.ask(json!({"session_token": session["token"]})).await.is(201);
    assert!(!ann.bank.is_active(&session["token"]).await);
}

/// S-16: what was inherited from a removed factor's proof ends with it too.
#[tokio::test]
async fn removing_a_factor_ends_what_was_inherited_from_it() {
    let (ann, app) = ann_with_app().await;
    ann.enrol_totp().await;
    let session = ann.session(&app, json!({})).await;
    let heir = ann.ask(json!({"session_token": session["token"], "action": "a"})).await.is(200)["session"].clone();
    ann.remove(&app.id).await.is(204);
    assert!(!ann.bank.is_active(&heir["token"]).await);
}

/// What a person is asked to confirm, and what things are called, cannot be made to read as another text. The languages' own marks of
/// direction are no part of that.
#[tokio::test]
async fn what_reads_as_another_text_is_not_shown() {
    let (ann, app) = ann_with_app().await;
    for turn in ['\u{202a}', '\u{202e}', '\u{2067}'] {
        let bad = format!("{turn}gro.elpmaxe");
        let detail = |label: &str, value: &str| json!({"display": {"details": [{"label": label, "value": value}]}});
        ann.ask(detail("Payee", &bad)).await.refused(422, "request_invalid");
        ann.ask(detail(&bad, "x")).await.refused(422, "request_invalid");
        ann.ask(json!({"display": {"label": bad}})).await.refused(422, "request_invalid");
        ann.begin(json!({"type": "totp", "name": bad})).await.invalid("name");
        ann.bank.patch(&ann.path(&format!("/factors/{}", app.id)), json!({"name": bad})).await.invalid("name");
    }
    let marked = "\u{200f}שלום\u{200e} \u{2068}1\u{2069}";
    ann.challenge(json!({"display": {"details": [{"label": "Payee", "value": marked}]}})).await;
}

/// C-11, 3.26: registered, to the byte.
#[tokio::test]
async fn a_return_address_is_registered_and_guarded() {
    let (ann, _) = ann_with_app().await;
    let back = "https://bank.example/back";
    let challenge = s256("verifier-verifier-verifier-verifier-verifier");
    ann.ask(json!({"return_url": back, "state": "s", "code_challenge": challenge})).await.is(201);
    ann.ask(json!({"return_url": back, "code_challenge": challenge})).await.invalid("state");
    ann.ask(json!({"return_url": back, "state": "s"})).await.invalid("code_challenge");
    for other in [
        "https://bank.example/back/",
        "https://bank.example/back?x=1",
        "https://bank.example/back#x",
        "https://bank.example/Back",
        "https://bank.example",
        "https://bank.example.evil.example/back",
        "https://bank.example@evil.example/back",
        "http://bank.example/back",
        "//bank.example/back",
        "/back",
        "https:bank.example/back",
        "javascript:alert(1)",
        "https://bank.example/%62ack",
        "https://bank.example\\@evil.example/back",
    ] {
        let terms = json!({"return_url": other, "state": "s", "code_challenge": challenge});
        ann.ask(terms).await.refused(403, "return_url_not_allowed");
    }
    for bad in ["plain", &"a".repeat(42), &"a".repeat(44), &format!("{}+", "a".repeat(42))] {
        ann.ask(json!({"return_url": back, "state": "s", "code_challenge": bad})).await.invalid("code_challenge");
    }
    // `rp update` holds at once.
    let other = "https://bank.example/other";
    let terms = |url: &str| json!({"return_url": url, "state": "s", "code_challenge": challenge});
    let rp = ann.bank.rp.clone();
    ann.bank.world.operator.readdress(rp, &[], &[other.to_owned()]).await.expect("it is changed");
    ann.ask(terms(other)).await.is(201);
    ann.ask(terms(back)).await.refused(403, "return_url_not_allowed");
}

/// Whoever opens a challenge is not always whoever answers it: the browser gets a code, never the session.
#[tokio::test]
async fn a_browser_gets_a_code_that_the_server_exchanges_once() {
    let (ann, app) = ann_with_app().await;
    let challenge = ann.challenge(json!({"action": "payout", "binding": "b"})).await;
    let browser = challenge.browser();
    let answer = browser.post(&challenge.path("/verify"), app.now()).await.is(200);
    assert_eq!(answer["status"], "approved");
    assert!(answer["session"].is_null());
    let code = answer["code"].clone();
    assert_eq!(ann.bank.get(&ann.path("/sessions")).await.is(200)["data"], json!([]), "no session before the exchange");
    browser.post(&challenge.path("/exchange"), json!({"code": code})).await.refused(401, "api_key_invalid");
    challenge.exchange(json!({"code": "nonsense"})).await.refused(422, "code_incorrect");
    let session = challenge.exchange(json!({"code": code})).await.is(200)["session"].clone();
    assert_eq!(
        (&session["action"], &session["binding"], &session["acr"]),
        (&json!("payout"), &json!("b"), &json!("aal2"))
    );
    assert!(ann.bank.is_active(&session["token"]).await);
    challenge.exchange(json!({"code": code})).await.refused(422, "code_reused");
    challenge.exchange(json!({"code": code})).await.refused(422, "code_reused");
}

#[tokio::test]
async fn a_code_for_exchange_lives_sixty_seconds() {
    let (ann, app) = ann_with_app().await;
    let world = ann.bank.world.clone();
    for (wait, good) in [(59, true), (60, false)] {
        let challenge = ann.challenge(json!({})).await;
        let code = challenge.browser().post(&challenge.path("/verify"), app.answer()).await.is(200)["code"].clone();
        world.wait(wait);
        let answer = challenge.exchange(json!({"code": code})).await;
        if good {
            let session = answer.is(200)["session"].clone();
            let after_proof =
                |seconds| countersign::model::Timestamp::from_seconds(world.now() - wait + seconds).rfc3339();
            assert_eq!(session["auth_time"], after_proof(0), "the proof's time, not the exchange's");
            assert_eq!(session["expires_at"], after_proof(600), "S-04: ten minutes from the proof");
        } else {
            answer.refused(422, "code_expired");
        }
    }
}

/// api.md, 3: every refused answer to a challenge says how many are left, also one that nobody could judge.
#[tokio::test]
async fn what_is_no_answer_costs_none_and_says_how_many_are_left() {
    let (ann, app) = ann_with_app().await;
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(app.miss()).await.refused(422, "code_incorrect");
    let long = json!({"type": "totp", "code": "1".repeat(10_000)});
    for (answer, code) in [
        (json!({}), "request_invalid"),
        (json!({"type": "totp"}), "request_invalid"),
        (json!({"type": "totp", "code": "123456", "more": 1}), "request_invalid"),
        (json!({"type": "totp", "code": "123456", "factor_id": "x"}), "request_invalid"),
        (json!({"type": "webauthn", "code": "123456"}), "request_invalid"),
        (long, "code_malformed"),
    ] {
        let problem = challenge.verify(answer.clone()).await.refused(422, code);
        assert_eq!(problem["attempts_left"], 4, "{answer}");
        let problem = challenge.browser().post(&challenge.path("/verify"), answer).await.refused(422, code);
        assert_eq!(problem["attempts_left"], 4);
    }
    let problem = challenge.prepare(json!({"type": "sms", "factor_id": "x"})).await.invalid("factor_id");
    assert_eq!(problem["attempts_left"], 4);
    challenge.verify(app.now()).await.is(200);
}

/// RFC 7636.
#[tokio::test]
async fn the_verifier_is_required_where_there_was_a_code_challenge() {
    let (ann, app) = ann_with_app().await;
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(s256(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "RFC 7636, appendix B");
    let challenge = ann.challenge(json!({"code_challenge": s256(verifier)})).await;
    let code = challenge.browser().post(&challenge.path("/verify"), app.now()).await.is(200)["code"].clone();
    challenge.exchange(json!({"code": code})).await.invalid("code_verifier");
    let wrong = json!({"code": code, "code_verifier": "x".repeat(43)});
    challenge.exchange(wrong).await.refused(422, "code_incorrect");
    let plain = json!({"code": code, "code_verifier": s256(verifier)});
    challenge.exchange(plain).await.refused(422, "code_incorrect");
    challenge.exchange(json!({"code": code, "code_verifier": verifier})).await.is(200);
}

#[tokio::test]
async fn the_code_of_one_challenge_is_not_exchanged_at_another() {
    let (ann, app) = ann_with_app().await;
    let (one, two) = (ann.challenge(json!({})).await, ann.challenge(json!({})).await);
    let code = one.browser().post(&one.path("/verify"), app.answer()).await.is(200)["code"].clone();
    two.exchange(json!({"code": code})).await.refused(422, "code_incorrect");
    two.browser().post(&two.path("/verify"), app.answer()).await.is(200);
    two.exchange(json!({"code": code})).await.refused(422, "code_incorrect");
    one.exchange(json!({"code": code})).await.is(200);
}

/// api.md, 5 and 3: an answer is judged though an earlier session would do: a wrong code is never 2xx.
#[tokio::test]
async fn a_wrong_answer_beside_a_fresh_session_is_refused_and_counted() {
    let (ann, app) = ann_with_app().await;
    let session = ann.session(&app, json!({})).await;
    let ask = |answer| json!({"session_token": session["token"], "answer": answer});
    ann.ask(ask(app.miss())).await.refused(422, "code_incorrect");
    ann.ask(ask(json!({"type": "totp", "code": "abc"}))).await.refused(422, "code_malformed");
    ann.bank.world.wait(30);
    let right = ann.ask(ask(app.now())).await.is(200);
    assert_eq!((&right["status"], &right["reason"]), (&json!("approved"), &json!("answer")));
    let fresh = ann.ask(json!({"session_token": session["token"]})).await.is(200);
    assert_eq!(fresh["reason"], "fresh_session");
}

/// RFC 9700, 2.1.1: a verifier without a challenge to verify is refused.
#[tokio::test]
async fn a_code_verifier_needs_a_code_challenge() {
    let (ann, app) = ann_with_app().await;
    let challenge = ann.challenge(json!({})).await;
    challenge.exchange(json!({"code": "made-up"})).await.refused(422, "code_incorrect");
    let code = challenge.browser().post(&challenge.path("/verify"), app.now()).await.is(200)["code"].clone();
    let verifier = "v".repeat(43);
    challenge.exchange(json!({"code": code, "code_verifier": verifier})).await.invalid("code_verifier");
    challenge.exchange(json!({"code": code})).await.is(200);
}

/// api.md, 3: ten minutes, and as long again to read how it ended; what ended has no methods.
#[tokio::test]
async fn a_client_token_of_a_challenge_ends() {
    let (ann, _) = ann_with_app().await;
    let challenge = ann.challenge(json!({})).await;
    let browser = challenge.browser();
    assert_eq!(browser.get(&challenge.path("")).await.is(200)["methods"].as_array().map(Vec::len), Some(1));
    ann.bank.world.wait(1199);
    let over = browser.get(&challenge.path("")).await.is(200);
    assert_eq!((&over["status"], &over["methods"]), (&json!("expired"), &json!([])));
    ann.bank.world.wait(1);
    browser.get(&challenge.path("")).await.refused(401, "client_token_invalid");
}

/// api.md, 5: on the way to a challenge only that is set up which would do for it.
#[tokio::test]
async fn a_first_factor_that_would_not_do_is_not_set_up_on_the_way() {
    let ann = ann().await;
    let asked = ann.ask(json!({"require": {"acr": "phr"}})).await.is(200);
    assert_eq!(asked["missing"], json!(["webauthn"]));
    let browser = ann.bank.world.caller(&text(&asked["client_token"])).with("origin", ann.bank.origin());
    browser.post(&ann.path("/factors"), json!({"type": "totp"})).await.refused(422, "method_not_allowed");
    browser.post(&ann.path("/factors"), json!({"type": "webauthn"})).await.is(201);
}

/// P-08: without a gateway nobody is told to set up a phone.
#[tokio::test]
async fn no_phone_is_missing_where_nothing_sends_texts() {
    let world = World::start_with(|c| c.sms.http_url = None).await;
    let ann = world.bank().await.user("ann");
    assert_eq!(ann.ask(json!({})).await.is(200)["missing"], json!(["webauthn", "totp"]));
}

/// P-08: nor led to one that was set up before.
#[tokio::test]
async fn no_phone_is_offered_where_nothing_sends_texts_any_more() {
    let world = World::start().await;
    let ann = world.bank().await.user("ann");
    ann.enrol_phone("+14155550123").await;
    assert_eq!(ann.challenge(json!({})).await.methods(), ["sms"]);
    world.end().await;
    let quiet = world.second_with(|c| c.sms.http_url = None).await;
    let bank = Bank { server: ann.bank.server.at(&quiet), ..ann.bank.clone() };
    let ann = bank.user("ann");
    let missing = ann.ask(json!({})).await.is(200);
    assert_eq!((&missing["status"], &missing["missing"]), (&json!("enrolment_required"), &json!(["webauthn", "totp"])));
    let app = ann.enrol_totp().await;
    assert_eq!(ann.challenge(json!({})).await.methods(), ["totp"]);
    ann.session(&app, json!({})).await;
}

/// S-15: a server's own verification already gave the session.
#[tokio::test]
async fn there_is_nothing_to_exchange_after_a_server_verified() {
    let (ann, app) = ann_with_app().await;
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(app.now()).await.is(200);
    let answer = challenge.exchange(json!({"code": "x"})).await;
    assert!(matches!(answer.status, 409 | 422), "{}", answer.body);
}

#[tokio::test]
async fn a_client_token_opens_one_challenge_from_its_origin() {
    let (ann, app) = ann_with_app().await;
    let (one, two) = (ann.challenge(json!({})).await, ann.challenge(json!({})).await);
    let browser = one.browser();
    browser.get(&one.path("")).await.is(200);
    browser.get(&two.path("")).await.refused(401, "client_token_invalid");
    browser.post(&two.path("/verify"), app.now()).await.refused(401, "client_token_invalid");
    browser.get(&ann.path("")).await.refused(401, "client_token_invalid");
    browser.post("/v1/challenges", json!({"user_id": "ann"})).await.refused(401, "api_key_invalid");
    browser.post("/v1/sessions/introspect", json!({"token": "x"})).await.refused(401, "api_key_invalid");
    let token = text(&one.body["client_token"]);
    let world = &ann.bank.world;
    for origin in
        ["https://evil.example", "http://bank.example", "https://bank.example:8443", "null", "https://www.bank.example"]
    {
        let stranger = world.caller(&token).with("origin", origin);
        stranger.get(&one.path("")).await.refused(403, "origin_not_allowed");
        stranger.post(&one.path("/verify"), app.now()).await.refused(403, "origin_not_allowed");
    }
    let of_two = text(&two.body["client_token"]);
    let parts =
        |token: &str| token.split_once('.').map(|(id, secret)| (id.to_owned(), secret.to_owned())).expect("two");
    for bad in [
        format!("{}.{}", parts(&token).0, parts(&of_two).1),
        format!("{token}x"),
        token[..token.len() - 1].to_owned(),
        "ct_".to_owned(),
        "ct_x.y".to_owned(),
        token.replace("ct_", "ct_A"),
    ] {
        world.caller(&bad).get(&one.path("")).await.refused(401, "client_token_invalid");
    }
    assert_eq!(one.attempts_left().await, 5);
    browser.post(&one.path("/verify"), app.now()).await.is(200);
    assert_eq!(browser.get(&one.path("")).await.is(200)["status"], "approved");
}

#[tokio::test]
async fn a_browser_may_cancel_its_challenge() {
    let (ann, _) = ann_with_app().await;
    let challenge = ann.challenge(json!({})).await;
    challenge.browser().ask(&challenge.path("/cancel")).await.is(200);
    assert_eq!(challenge.status().await, "cancelled");
}

/// As many as a JWT and a page can hold.
#[tokio::test]
async fn audience_and_details_are_bounded() {
    let (ann, _) = ann_with_app().await;
    let services = |n: usize| (0..n).map(|n| format!("https://{n}.example")).collect::<Vec<_>>();
    let details = |n: usize| vec![json!({"label": "To", "value": "Bob"}); n];
    ann.ask(json!({"audience": services(10), "display": {"details": details(20)}})).await.is(201);
    for none in [services(0), services(11)] {
        ann.ask(json!({"audience": none})).await.invalid("audience");
    }
    ann.ask(json!({"display": {"details": details(21)}})).await.invalid("display.details");
}

/// T-08 with several apps: each has its own steps; `factor_id` says which is meant.
#[tokio::test]
async fn an_answer_may_name_its_factor() {
    let (ann, one) = ann_with_app().await;
    let two = ann.enrol_totp().await;
    let of = |app: &App, factor: &str| json!({"type": "totp", "code": app.code(), "factor_id": factor});
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(of(&one, &two.id)).await.refused(422, "code_incorrect");
    challenge.verify(of(&one, "fac_00000000000070008000000000000000")).await.refused(422, "method_not_allowed");
    challenge.verify(of(&one, &one.id)).await.is(200);
    ann.challenge(json!({})).await.verify(of(&two, &two.id)).await.is(200);
}

/// 3.10: the code of one user proves no other.
#[tokio::test]
async fn a_code_of_another_user_is_wrong_and_stays_unspent() {
    let (ann, app) = ann_with_app().await;
    let bob = ann.bank.user("bob");
    bob.enrol_totp().await;
    bob.challenge(json!({})).await.verify(app.now()).await.refused(422, "code_incorrect");
    ann.challenge(json!({})).await.verify(app.now()).await.is(200);
}

fn s256(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}
