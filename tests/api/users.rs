//! Users and their recovery codes (api.md, 4).

use crate::support::database::Scratch;
use crate::support::verbs::text;
use crate::support::{User, Value, World, ann, json};

#[tokio::test]
async fn an_unknown_user_looks_like_one_with_nothing_enrolled() {
    let ann = ann().await;
    let none = json!({"total": 0, "remaining": 0, "status": "none", "created_at": null});
    let expected = json!({
        "user_id": "ann", "display_name": null, "locale": null, "factors": [], "recovery_codes": none, "paused": [],
        "highest_acr": null,
    });
    assert_eq!(ann.shown().await, expected);
    ann.bank.put(&ann.path(""), json!({})).await.is(200);
    assert_eq!(ann.shown().await, expected);
    assert_eq!(ann.bank.get(&ann.path("/recovery-codes")).await.is(200), none);
    assert_eq!(ann.factors().await.len(), 0);
    ann.bank.delete(&ann.path("/sessions")).await.is(204);
}

#[tokio::test]
async fn what_is_put_stays_until_it_is_put_anew() {
    let ann = ann().await;
    let put = |body: Value| {
        let (bank, path) = (ann.bank.clone(), ann.path(""));
        async move { bank.put(&path, body).await.is(200) }
    };
    put(json!({"display_name": "Ann", "login_hint": "ann@bank.example", "locale": "en-GB"})).await;
    let shown = put(json!({"display_name": "Ann B."})).await;
    assert_eq!((&shown["display_name"], &shown["locale"]), (&json!("Ann B."), &json!("en-GB")));
    assert_eq!(ann.shown().await, shown);
    for odd in ["en GB", "d", "toolonglanguage", "en-", "1e"] {
        ann.bank.put(&ann.path(""), json!({"locale": odd})).await.invalid("locale");
    }
    let cleared = put(json!({"display_name": null})).await;
    assert_eq!((&cleared["display_name"], &cleared["locale"]), (&json!(null), &json!("en-GB")));
    ann.bank.put(&ann.path(""), json!({"display_name": ""})).await.invalid("display_name");
    // Characters count, not bytes: names are not ASCII everywhere.
    put(json!({"display_name": "日".repeat(100)})).await;
    ann.bank.put(&ann.path(""), json!({"display_name": "日".repeat(101)})).await.invalid("display_name");
}

/// api.md, 1: 1 to 255 bytes of UTF-8 without control characters. What clients take out of an address names nobody: to erase `.` would
/// be to erase somebody else.
#[tokio::test]
async fn any_text_of_255_bytes_may_name_a_user() {
    let bank = World::start().await.bank().await;
    for id in ["a/b", "a b", "ä@b", "%", "...", "a?b#c", "日本", "'; drop table users --", &"x".repeat(255), "+", "~"]
    {
        let user = bank.user(id);
        let app = user.enrol_totp().await;
        assert_eq!(user.shown().await["user_id"], id);
        user.session(&app, json!({})).await;
    }
    for id in ["x".repeat(256), "ä".repeat(128), "a\nb".to_owned(), "a\u{0}".to_owned(), "\u{85}".to_owned()] {
        bank.get(&bank.user(&id).path("")).await.invalid("user_id");
        bank.post("/v1/challenges", json!({"user_id": id})).await.invalid("user_id");
    }
    for id in ["", ".", ".."] {
        bank.post("/v1/challenges", json!({"user_id": id})).await.invalid("user_id");
        bank.post("/v1/portal-sessions", json!({"user_id": id, "flow": "settings"})).await.invalid("user_id");
    }
    bank.get("/v1/users/%ff").await.refused(400, "request_malformed");
}

#[tokio::test]
async fn the_highest_acr_is_what_the_user_can_prove() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    assert_eq!(ann.shown().await["highest_acr"], "aal2");
    let passkey = ann.enrol_passkey().await;
    assert_eq!(ann.shown().await["highest_acr"], "phr");
    ann.remove(&passkey.id).await.is(204);
    assert_eq!(ann.shown().await["highest_acr"], "aal2");
    ann.remove(&app.id).await.is(204);
    ann.begin_passkey().await;
    assert_eq!(ann.shown().await["highest_acr"], Value::Null);
}

/// ten codes of 80 bits, shown once.
#[tokio::test]
async fn recovery_codes_are_shown_once() {
    let ann = ann().await;
    ann.bank.post(&ann.path("/recovery-codes"), json!({})).await.invalid("user_id");
    ann.enrol_totp().await;
    let made = ann.bank.post(&ann.path("/recovery-codes"), json!({})).await;
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.is(201);
    assert_eq!(made["status"], "active");
    let codes = made["codes"].as_array().expect("codes");
    assert_eq!(codes.len(), 10);
    for code in codes {
        let groups: Vec<_> = code.as_str().expect("a text").split('-').collect();
        assert_eq!(groups.iter().map(|g| g.len()).collect::<Vec<_>>(), [4, 4, 4, 4]);
        assert!(groups.concat().bytes().all(|b| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&b)));
    }
    let later = ann.bank.get(&ann.path("/recovery-codes")).await.is(200);
    assert_eq!((&later["total"], &later["remaining"], &later["status"]), (&json!(10), &json!(10), &json!("active")));
    ann.bank.world.seal().await;
    let told = ann.bank.get("/v1/events?limit=100").await.is(200);
    assert!(told.to_string().contains("recovery_codes.created"), "{told}");
    for shown in [later, ann.shown().await, told] {
        assert!(codes.iter().all(|c| !shown.to_string().contains(c.as_str().expect("a text"))));
    }
}

/// each set has a salt of its own, of 16 bytes.
#[tokio::test]
async fn no_two_sets_of_recovery_codes_share_a_salt() {
    let ann = ann().await;
    let bob = ann.bank.user("bob");
    for user in [&ann, &bob] {
        user.enrol_totp().await;
        user.recovery_codes().await;
    }
    let scratch = &ann.bank.world.scratch;
    let cast = if scratch.is_sqlite() { "hex(salt)" } else { "encode(salt, 'hex')" };
    let salts = async || scratch.texts(&format!("select {cast} from recovery_sets order by user_id")).await;
    let first = salts().await;
    ann.recovery_codes().await;
    let second = salts().await;
    let all: std::collections::BTreeSet<_> = [&first[..], &second[..1]].concat().into_iter().collect();
    assert_eq!((first.len(), second.len(), all.len()), (2, 2, 3), "{all:?}");
    assert!(all.iter().all(|salt| salt.len() == 2 * 16), "{all:?}");
}

/// A pending factor is no "other active factor".
#[tokio::test]
async fn recovery_codes_need_another_active_factor() {
    let ann = ann().await;
    ann.begin_totp().await;
    ann.bank.post(&ann.path("/recovery-codes"), json!({})).await.refused(422, "request_invalid");
    let problem = ann.bank.ask(&ann.path("/recovery-codes/confirm")).await;
    assert!(matches!(problem.status, 404 | 409 | 422), "{}", problem.body);
}

/// R-03, 3.8: each once, and a used one is told from a wrong one by nobody.
#[tokio::test]
async fn each_recovery_code_works_once() {
    let ann = ann().await;
    ann.enrol_totp().await;
    let codes = ann.recovery_codes().await;
    let answer = |code: &str| json!({"type": "recovery_code", "code": code});
    for (n, code) in codes.iter().enumerate() {
        ann.challenge(json!({})).await.verify(answer(code)).await.is(200);
        assert_eq!(ann.shown().await["recovery_codes"]["remaining"], 9 - n);
    }
    let challenge = ann.challenge(json!({})).await;
    assert_eq!(challenge.methods(), ["totp"]);
    let fresh = ann.recovery_codes().await;
    let challenge = ann.challenge(json!({})).await;
    let used = challenge.verify(answer(&codes[0])).await.refused(422, "code_incorrect");
    let wrong = challenge.verify(answer("0000-0000-0000-0000")).await.refused(422, "code_incorrect");
    assert_eq!((&used["attempts_left"], &wrong["attempts_left"]), (&json!(4), &json!(3)));
    assert_eq!(used["detail"], wrong["detail"]);
    challenge.verify(answer("0000-0000-0000-000")).await.refused(422, "code_malformed");
    challenge.verify(answer(&fresh[3])).await.is(200);
}

///
#[tokio::test]
async fn a_recovery_code_is_taken_as_people_write_it() {
    let ann = ann().await;
    ann.enrol_totp().await;
    let codes = ann.recovery_codes().await;
    let forms: [&dyn Fn(&str) -> String; 4] =
        [&|c| c.to_lowercase(), &|c| c.replace('-', ""), &|c| format!(" {} \n", c.replace('-', " ")), &|c| {
            c.replace('0', "O").replace('1', "l")
        }];
    for (form, code) in forms.iter().zip(&codes) {
        let answer = json!({"type": "recovery_code", "code": form(code)});
        ann.challenge(json!({})).await.verify(answer).await.is(200);
    }
}

///
#[tokio::test]
async fn a_recovery_code_of_another_user_is_wrong_and_stays_unspent() {
    let ann = ann().await;
    let bob = ann.bank.user("bob");
    ann.enrol_totp().await;
    bob.enrol_totp().await;
    let (of_ann, _) = (ann.recovery_codes().await, bob.recovery_codes().await);
    let answer = json!({"type": "recovery_code", "code": of_ann[0]});
    bob.challenge(json!({})).await.verify(answer.clone()).await.refused(422, "code_incorrect");
    ann.challenge(json!({})).await.verify(answer).await.is(200);
}

/// the whole old set dies at once.
#[tokio::test]
async fn a_new_set_voids_the_old_one() {
    let ann = ann().await;
    ann.enrol_totp().await;
    let (old, new) = (ann.recovery_codes().await, ann.recovery_codes().await);
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(json!({"type": "recovery_code", "code": old[0]})).await.refused(422, "code_incorrect");
    challenge.verify(json!({"type": "recovery_code", "code": new[0]})).await.is(200);
    assert_eq!(ann.shown().await["recovery_codes"]["remaining"], 9);
}

#[tokio::test]
async fn an_unconfirmed_set_redeems_nothing_and_leaves_the_old_one() {
    let ann = ann().await;
    ann.enrol_totp().await;
    let made = ann.bank.post(&ann.path("/recovery-codes"), json!({"require_confirmation": true})).await.is(201);
    assert_eq!(made["status"], "unconfirmed");
    assert_eq!(ann.shown().await["recovery_codes"]["status"], "unconfirmed");
    let first = text(&made["codes"][0]);
    let challenge = ann.challenge(json!({})).await;
    assert_eq!(challenge.methods(), ["totp"], "it is not offered");
    challenge.verify(json!({"type": "recovery_code", "code": first})).await.refused(422, "method_not_allowed");
    let confirmed = ann.bank.ask(&ann.path("/recovery-codes/confirm")).await.is(200);
    assert_eq!(
        (&confirmed["status"], &confirmed["total"], &confirmed["remaining"]),
        (&json!("active"), &json!(10), &json!(10))
    );
    challenge.verify(json!({"type": "recovery_code", "code": first})).await.is(200);

    // The old set lives until the new one is active.
    let next = ann.bank.post(&ann.path("/recovery-codes"), json!({"require_confirmation": true})).await.is(201);
    assert_eq!(ann.shown().await["recovery_codes"]["remaining"], 9, "of the set that redeems");
    let old = json!({"type": "recovery_code", "code": made["codes"][1]});
    ann.challenge(json!({})).await.verify(old).await.is(200);
    ann.bank.ask(&ann.path("/recovery-codes/confirm")).await.is(200);
    let challenge = ann.challenge(json!({})).await;
    let old = json!({"type": "recovery_code", "code": made["codes"][2]});
    challenge.verify(old).await.refused(422, "code_incorrect");
    challenge.verify(json!({"type": "recovery_code", "code": next["codes"][0]})).await.is(200);
}

///
#[tokio::test]
async fn recovery_codes_die_with_the_last_factor() {
    let ann = ann().await;
    let (one, two) = (ann.enrol_totp().await, ann.enrol_totp().await);
    let codes = ann.recovery_codes().await;
    ann.remove(&one.id).await.is(204);
    assert_eq!(ann.shown().await["recovery_codes"]["status"], "active");
    ann.remove(&two.id).await.is(204);
    assert_eq!(ann.shown().await["recovery_codes"]["status"], "none");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    let void = json!({"type": "recovery_code", "code": codes[0]});
    challenge.verify(void).await.refused(422, "method_not_allowed");
    ann.session(&app, json!({})).await;
}

/// V-05: nor in a page of the file that is free now. Others come and go around, so that pages are split, joined and given back.
#[tokio::test]
async fn an_erased_user_is_not_in_the_file() {
    let world = World::start_on(Scratch::sqlite(), |_| {}).await;
    let bank = world.bank().await;
    let live = async |user: &User| {
        bank.put(&user.path(""), json!({"display_name": "Canary of a name", "login_hint": "canary@bank.example"}))
            .await
            .is(200);
        let app = user.enrol_totp().await;
        let client = json!({"ip": "198.51.100.77", "user_agent": "Canary of a browser"});
        let asked = json!({"client": client, "binding": "canary-of-a-binding",
            "display": {"details": [{"label": "Payee", "value": "Canary of a payee".repeat(20)}]}});
        user.challenge(asked).await.verify(app.answer()).await.is(200);
    };
    let all: Vec<User> = (0..40).map(|n| bank.user(&format!("canary-of-a-user-{n}"))).collect();
    for user in &all {
        live(user).await;
    }
    world.seal().await;
    for user in all.iter().rev() {
        bank.delete(&user.path("")).await.is(204);
    }
    world.end().await;
    let file = std::fs::read(world.scratch.folder().join("countersign.db")).expect("the file");
    let file = String::from_utf8_lossy(&file).to_lowercase();
    for canary in ["canary", "198.51.100.77"] {
        assert!(!file.contains(canary), "{canary}: {}", file.matches(canary).count());
    }
}

/// V-05: an answer that is judged while its user is erased leaves no trace of the user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_erased_while_answers_are_judged_is_in_no_event() {
    let ann = ann().await;
    ann.enrol_totp().await;
    ann.recovery_codes().await;
    let answer = json!({"type": "recovery_code", "code": "0000-0000-0000-0000"});
    let asking: Vec<_> = (0..40)
        .map(|_| {
            let (ann, asked) = (ann.clone(), json!({"answer": answer, "client": {"ip": "203.0.113.7"}}));
            tokio::spawn(async move { ann.ask(asked).await })
        })
        .collect();
    // Each takes a slow hash, some at once: the others have read what they need, and wait.
    while !asking.iter().any(|asked| asked.is_finished()) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    ann.bank.delete(&ann.path("")).await.is(204);
    let mut late = 0;
    for asked in asking {
        let answer = asked.await.expect("an answer");
        late += usize::from(!(answer.status == 422 && answer.code() == "code_incorrect"));
    }
    assert!(late > 0, "all were judged before");
    for table in ["events", "throttle_lanes"] {
        let left = ann.bank.world.scratch.number(&format!("select count(*) from {table} where user_id = 'ann'")).await;
        assert_eq!(left, 0, "{table}");
    }
}

/// S-16, V-05: nothing of the person is left, and the name is free for another.
#[tokio::test]
async fn an_erased_user_is_unknown_again() {
    let ann = ann().await;
    let untouched = ann.bank.user("nobody").shown().await;
    ann.bank.put(&ann.path(""), json!({"display_name": "Ann", "login_hint": "ann@bank.example"})).await.is(200);
    let app = ann.enrol_totp().await;
    let passkey = ann.enrol_passkey().await;
    let codes = ann.recovery_codes().await;
    let session = ann.session(&app, json!({})).await;
    let challenge = ann.challenge(json!({})).await;
    let browser = ann.browser(None).await;
    for _ in 0..3 {
        challenge.verify(app.miss()).await.refused(422, "code_incorrect");
    }
    let (_, options) = ann.begin_passkey().await;
    let again = ann.bank.server.with("idempotency-key", "asked");
    let question = json!({"token": session["token"]});
    assert_eq!(again.post("/v1/sessions/introspect", question.clone()).await.is(200)["user_id"], "ann");
    ann.bank.delete(&ann.path("")).await.is(204);

    // Nor is an answer that was kept.
    assert_eq!(again.post("/v1/sessions/introspect", question).await.is(200)["active"], false);
    let mut shown = ann.shown().await;
    shown["user_id"] = json!("nobody");
    assert_eq!(shown, untouched);
    assert!(!ann.bank.is_active(&session["token"]).await && !ann.bank.is_active(&session["jwt"]).await);
    challenge.verify(app.answer()).await.refused(404, "not_found");
    browser.get(&ann.path("")).await.refused(401, "client_token_invalid");
    ann.bank.get(&format!("/v1/sessions/{}", text(&session["id"]))).await.refused(404, "not_found");
    ann.bank.get(&ann.path(&format!("/factors/{}", app.id))).await.refused(404, "not_found");
    assert_eq!(ann.ask(json!({"answer": app.answer()})).await.is(200)["status"], "enrolment_required");
    ann.bank.delete(&ann.path("")).await.is(204);

    // Somebody of the same name begins anew: another handle, no old codes, and the credential is free.
    let (id, anew) = ann.begin_passkey().await;
    assert_ne!(anew["user"]["id"], options["user"]["id"]);
    let mut device = passkey.device;
    device.credentials[0].user_handle.clear();
    assert!(anew["excludeCredentials"].as_array().is_none_or(Vec::is_empty));
    let credential = device.create(&anew).expect("the browser has no objection");
    ann.activate(&id, json!({"credential": credential})).await.is(200);
    let challenge = ann.challenge(json!({})).await;
    let old = json!({"type": "recovery_code", "code": codes[0]});
    challenge.verify(old).await.refused(422, "method_not_allowed");
}
