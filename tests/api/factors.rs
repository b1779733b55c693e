//! Factors: enrolled, shown, renamed, removed (api.md, 4).

use std::collections::HashSet;

use countersign::clock::Clock;
use countersign::model::Timestamp;

use crate::support::app::base32;
use crate::support::gateway::Mood;
use crate::support::verbs::text;
use crate::support::{Answer, Authenticator, Value, World, ann, at_once, json};

/// T-01, T-11, T-14, T-15: SHA-1, six digits, thirty seconds, 160 bits, in the form that apps read.
#[tokio::test]
async fn an_authenticator_app_is_pending_until_its_first_code() {
    let ann = ann().await;
    let world = ann.bank.world.clone();
    ann.bank.put(&ann.path(""), json!({"login_hint": "ann@bank.example"})).await.is(200);
    let begun = ann.begin(json!({"type": "totp", "name": "Old phone"})).await.is(201);
    assert_eq!(
        (&begun["status"], &begun["type"], &begun["name"]),
        (&json!("pending"), &json!("totp"), &json!("Old phone"))
    );
    assert_eq!(begun["expires_at"], Timestamp(world.clock.now().0).plus_seconds(900).rfc3339());
    let totp = &begun["totp"];
    assert_eq!((&totp["algorithm"], &totp["digits"], &totp["period"]), (&json!("SHA1"), &json!(6), &json!(30)));
    let secret = totp["secret"].as_str().expect("a secret");
    assert_eq!(base32(secret).len(), 20);
    let uri = url::Url::parse(totp["otpauth_uri"].as_str().expect("an address")).expect("an address");
    assert_eq!((uri.scheme(), uri.host_str(), uri.path()), ("otpauth", Some("totp"), "/Bank:ann%40bank.example"));
    let parameter = |name: &str| uri.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned());
    assert_eq!(parameter("secret").as_deref(), Some(secret));
    assert_eq!(parameter("issuer").as_deref(), Some("Bank"));
    assert_eq!(parameter("algorithm").unwrap_or("SHA1".to_owned()), "SHA1");
    assert_eq!(parameter("digits").unwrap_or("6".to_owned()), "6");
    assert_eq!(parameter("period").unwrap_or("30".to_owned()), "30");
    let svg = totp["qr_svg"].as_str().expect("a symbol");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>") && !svg.contains("<script"));

    let code = crate::support::app::totp(&base32(secret), world.now() / 30);
    ann.ask(json!({"answer": {"type": "totp", "code": code}})).await.is(200);
    let active = ann.activate(begun["id"].as_str().expect("an id"), json!({"code": code})).await.is(200);
    assert_eq!(active["status"], "active");
    assert!(active["activated_at"].is_string() && active["expires_at"].is_null() && active["totp"].is_null());
}

/// T-13, 3.24: no later answer holds it.
#[tokio::test]
async fn no_later_answer_holds_the_secret_of_an_app() {
    let ann = ann().await;
    let begun = ann.begin(json!({"type": "totp"})).await;
    assert_eq!(begun.header("cache-control"), Some("no-store"));
    let begun = begun.is(201);
    let (id, secret) = (text(&begun["id"]), text(&begun["totp"]["secret"]));
    let look = || async {
        let answers = [ann.factor(&id).await, json!(ann.factors().await), ann.shown().await];
        assert!(answers.iter().all(|a| !a.to_string().contains(&secret) && !a.to_string().contains("otpauth")));
    };
    look().await;
    let code = crate::support::app::totp(&base32(&secret), ann.bank.world.now() / 30);
    let active = ann.activate(&id, json!({"code": code})).await.is(200);
    assert!(!active.to_string().contains(&secret));
    look().await;
}

/// T-01, T-03: 160 bits each, and no part of one in another.
#[tokio::test]
async fn secrets_do_not_repeat() {
    let ann = ann().await;
    let secrets = at_once(100, |n| {
        let user = ann.bank.user(&format!("u-{n}"));
        async move { user.begin_totp().await.secret }
    })
    .await;
    assert_eq!(secrets.len(), 100);
    // Eight bytes in a row that occur a second time, wherever they stand, are no chance.
    let parts: HashSet<_> = secrets.iter().flat_map(|secret| secret.windows(8)).collect();
    assert_eq!(parts.len(), 100 * (20 - 7));
}

/// T-16: names are data, and an over-long one is refused.
#[tokio::test]
async fn hostile_names_stay_data_in_address_and_symbol() {
    let ann = ann().await;
    for (n, name) in
        ["\"><script>alert(1)</script>", "&issuer=Evil", "a:b", "%0d%0a", "\u{202e}gnp.exe", "?secret=AAAA", "日本"]
            .iter()
            .enumerate()
    {
        let user = ann.bank.user(&format!("u-{n}"));
        ann.bank.put(&user.path(""), json!({"login_hint": name})).await.is(200);
        let begun = user.begin(json!({"type": "totp"})).await.is(201);
        let uri = url::Url::parse(begun["totp"]["otpauth_uri"].as_str().expect("an address")).expect("an address");
        for member in ["issuer", "secret"] {
            assert_eq!(uri.query_pairs().filter(|(k, _)| k == member).count(), 1, "{uri}");
        }
        assert!(!begun["totp"]["qr_svg"].as_str().expect("a symbol").contains("script"));
    }
    for member in ["display_name", "login_hint"] {
        ann.bank.put(&ann.path(""), json!({member: "x".repeat(10_000)})).await.invalid(member);
        ann.bank.put(&ann.path(""), json!({member: "a\r\nb"})).await.invalid(member);
    }
}

/// T-04, T-20: leading zeros count; what people paste is normalised; anything else is malformed and free.
#[tokio::test]
async fn a_code_is_taken_as_people_paste_it() {
    let ann = ann().await;
    let app = ann.begin_totp().await;
    let wide =
        |code: &str| -> String { code.chars().map(|c| char::from_u32(c as u32 + 0xfee0).expect("a digit")).collect() };
    for bad in ["", "12345", "1234567", "12345a", "+12345", "1e5000", "12.345", "١٢٣٤٥٦", "१२३४५६", "0x1234", " "]
    {
        ann.activate(&app.id, json!({"code": bad})).await.refused(422, "code_malformed");
    }
    let code = app.code();
    ann.activate(&app.id, json!({"code": format!("#{} {}", &code[..3], &code[3..])})).await.is(200);
    let forms: [&dyn Fn(&str) -> String; 4] =
        [&|c| format!(" {c}\n"), &|c| format!("{}-{}", &c[..3], &c[3..]), &wide, &|c| format!("#{c}")];
    for form in forms {
        ann.bank.world.wait(30);
        let code = form(&app.code());
        ann.challenge(json!({})).await.verify(json!({"type": "totp", "code": code})).await.is(200);
    }
    // A code to come that begins with a zero, without it.
    let mut steps = 1;
    while !app.code_in(steps).starts_with('0') {
        steps += 1;
    }
    ann.bank.world.wait(30 * steps);
    let challenge = ann.challenge(json!({})).await;
    let short = app.code()[1..].to_owned();
    challenge.verify(json!({"type": "totp", "code": short})).await.refused(422, "code_malformed");
    assert_eq!(challenge.attempts_left().await, 5);
    challenge.verify(app.now()).await.is(200);
}

#[tokio::test]
async fn a_pending_factor_dies_after_fifteen_minutes() {
    let ann = ann().await;
    let world = ann.bank.world.clone();
    let (in_time, late) = (ann.begin_totp().await, ann.begin_totp().await);
    world.wait(899);
    ann.activate(&in_time.id, json!({"code": in_time.code()})).await.is(200);
    assert_eq!(ann.factors().await.len(), 2);
    world.wait(1);
    ann.activate(&late.id, json!({"code": late.code()})).await.refused(410, "enrolment_expired");
    assert_eq!(ann.factors().await.len(), 1);
    ann.bank.get(&ann.path(&format!("/factors/{}", late.id))).await.refused(404, "not_found");
    ann.begin_totp().await;
    ann.activate(&late.id, json!({"code": late.code()})).await.refused(410, "enrolment_expired");
}

/// T-12: a new pending factor never touches an active one.
#[tokio::test]
async fn a_second_enrolment_leaves_the_active_app_as_it_is() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    let pending = ann.begin_totp().await;
    ann.challenge(json!({})).await.verify(pending.now()).await.refused(422, "code_incorrect");
    ann.session(&app, json!({})).await;
    ann.bank.world.wait(30);
    ann.activate(&pending.id, json!({"code": pending.wrong()})).await.refused(422, "code_incorrect");
    ann.session(&app, json!({})).await;
    ann.bank.world.wait(30);
    ann.activate(&pending.id, json!({"code": pending.code()})).await.is(200);
    // Both prove the user from now on.
    ann.session(&app, json!({})).await;
    ann.session(&pending, json!({})).await;
}

/// Also where all were begun while none was active, and are proved at once.
#[tokio::test]
async fn a_user_has_five_active_apps_at_most() {
    let ann = ann().await;
    let mut begun = Vec::new();
    for _ in 0..6 {
        begun.push(ann.begin_totp().await);
    }
    let answers = at_once(6, |n| {
        let (ann, app) = (ann.clone(), begun[n].clone());
        async move { ann.activate(&app.id, json!({"code": app.code()})).await }
    })
    .await;
    let (active, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Answer::is_success);
    assert_eq!(active.len(), 5, "{refused:?}");
    refused.into_iter().for_each(|answer| drop(answer.invalid("type")));
    assert_eq!(ann.factors().await.iter().filter(|factor| factor["status"] == "active").count(), 5);
    ann.begin(json!({"type": "totp"})).await.invalid("type");
}

/// Of whatever kind they are.
#[tokio::test]
async fn a_user_has_ten_pending_factors_at_most() {
    let ann = ann().await;
    let first = ann.begin_totp().await;
    for kind in ["totp", "webauthn"].into_iter().cycle().take(9) {
        ann.begin(json!({"type": kind})).await.is(201);
    }
    for kind in ["totp", "webauthn"] {
        let problem = ann.begin(json!({"type": kind})).await.refused(429, "rate_limited");
        assert_eq!(problem["retry_after"], 900);
    }
    ann.bank.user("bob").begin_totp().await;
    ann.activate(&first.id, json!({"code": first.code()})).await.is(200);
    ann.begin_totp().await;
    ann.begin(json!({"type": "totp"})).await.refused(429, "rate_limited");
}

/// also at once.
#[tokio::test]
async fn ten_pending_factors_are_ten_also_at_once() {
    let ann = ann().await;
    let answers = at_once(20, |n| {
        let (ann, kind) = (ann.clone(), ["totp", "webauthn"][n % 2]);
        async move { ann.begin(json!({"type": kind})).await.status }
    })
    .await;
    assert_eq!(answers.iter().filter(|s| **s == 201).count(), 10, "{answers:?}");
    assert!(answers.iter().all(|s| matches!(s, 201 | 429)), "{answers:?}");
    assert_eq!(ann.factors().await.len(), 10);
}

/// S-15.
#[tokio::test]
async fn an_active_factor_is_not_activated_again() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    ann.activate(&app.id, json!({"code": app.code()})).await.refused(409, "factor_not_pending");
    ann.activate(&app.id, json!({"credential": {}})).await.refused(409, "factor_not_pending");
    ann.activate(&app.id, json!({})).await.invalid("code");
    ann.activate(&app.id, json!({"code": "123456", "credential": {}})).await.invalid("credential");
    ann.bank.ask(&ann.path(&format!("/factors/{}/resend", app.id))).await.refused(409, "factor_not_pending");
}

/// T-08, T-09: activation spends its step.
#[tokio::test]
async fn the_code_of_activation_answers_no_challenge() {
    let ann = ann().await;
    let app = ann.begin_totp().await;
    ann.activate(&app.id, json!({"code": app.code()})).await.is(200);
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(app.now()).await.refused(422, "code_reused");
    let before = json!({"type": "totp", "code": app.code_in(-1)});
    challenge.verify(before).await.refused(422, "code_reused");
    challenge.verify(app.answer()).await.is(200);
}

#[tokio::test]
async fn a_factor_of_another_user_is_not_found() {
    let ann = ann().await;
    let bob = ann.bank.user("bob");
    let (app, pending) = (ann.enrol_totp().await, ann.begin_totp().await);
    bob.enrol_totp().await;
    for id in [&app.id, &pending.id] {
        let path = bob.path(&format!("/factors/{id}"));
        ann.bank.get(&path).await.refused(404, "not_found");
        ann.bank.patch(&path, json!({"name": "Mine"})).await.refused(404, "not_found");
        ann.bank.delete(&path).await.refused(404, "not_found");
        bob.activate(id, json!({"code": pending.code()})).await.refused(404, "not_found");
        ann.bank.ask(&format!("{path}/resend")).await.refused(404, "not_found");
    }
    let asked = json!({"type": "totp", "code": app.code(), "factor_id": app.id});
    bob.challenge(json!({})).await.verify(asked).await.refused(422, "method_not_allowed");
    ann.session(&app, json!({})).await;
}

#[tokio::test]
async fn a_factor_without_a_name_gets_a_free_one() {
    let ann = ann().await;
    for expected in ["Passkey", "Passkey 2", "Passkey 3"] {
        let begun = ann.begin(json!({"type": "webauthn"})).await.is(201);
        assert_eq!(begun["name"], expected);
    }
    ann.begin(json!({"type": "totp", "name": "Passkey 2"})).await.refused(409, "name_taken");
    ann.begin(json!({"type": "totp", "name": "Passkey 4"})).await.is(201);
    assert_eq!(ann.begin(json!({"type": "webauthn"})).await.is(201)["name"], "Passkey 5");
    // Another user has names of their own.
    assert_eq!(ann.bank.user("bob").begin(json!({"type": "webauthn"})).await.is(201)["name"], "Passkey");
}

#[tokio::test]
async fn a_factor_can_be_renamed_to_a_name_that_is_free() {
    let ann = ann().await;
    let (one, two) = (ann.enrol_totp().await, ann.enrol_totp().await);
    let rename = |id: &str, name: &str| {
        let (path, name) = (ann.path(&format!("/factors/{id}")), name.to_owned());
        let bank = ann.bank.clone();
        async move { bank.patch(&path, json!({"name": name})).await }
    };
    assert_eq!(rename(&one.id, "  Work phone ").await.is(200)["name"], "Work phone");
    assert_eq!(ann.factor(&one.id).await["name"], "Work phone");
    rename(&two.id, "Work phone").await.refused(409, "name_taken");
    rename(&one.id, "Work phone").await.is(200);
    rename(&one.id, &"é".repeat(50)).await.is(200);
    rename(&one.id, &"日".repeat(50)).await.is(200);
    for bad in ["", "   ", &"é".repeat(51), "a\nb", "a\u{0}b"] {
        rename(&one.id, bad).await.invalid("name");
        ann.begin(json!({"type": "totp", "name": bad})).await.invalid("name");
    }
    ann.bank.patch(&ann.path(&format!("/factors/{}", one.id)), json!({})).await.invalid("name");
}

/// The name of an enrolment that nobody can see any more is free.
#[tokio::test]
async fn the_name_of_an_enrolment_that_ran_out_is_free() {
    let ann = ann().await;
    let app = ann.enrol_totp().await;
    ann.begin(json!({"type": "totp", "name": "Spare"})).await.is(201);
    ann.bank.world.wait(901);
    let path = ann.path(&format!("/factors/{}", app.id));
    assert_eq!(ann.bank.patch(&path, json!({"name": "Spare"})).await.is(200)["name"], "Spare");
}

/// S-16, A-05: a factor takes the sessions with it that it earned, and no others.
#[tokio::test]
async fn removing_a_factor_ends_its_sessions() {
    let ann = ann().await;
    let (lost, kept) = (ann.enrol_totp().await, ann.enrol_totp().await);
    let of_lost = ann.session(&lost, json!({})).await;
    let of_kept = ann.session(&kept, json!({})).await;
    ann.remove(&lost.id).await.is(204);
    assert!(!ann.bank.is_active(&of_lost["token"]).await);
    assert!(!ann.bank.is_active(&of_lost["jwt"]).await);
    assert!(ann.bank.is_active(&of_kept["token"]).await);
    ann.remove(&lost.id).await.refused(404, "not_found");
    ann.bank.get(&ann.path(&format!("/factors/{}", lost.id))).await.refused(404, "not_found");
    ann.challenge(json!({})).await.verify(lost.answer()).await.refused(422, "code_incorrect");
}

/// what is under way with a factor ends with it.
#[tokio::test]
async fn an_open_challenge_does_not_take_a_factor_that_was_removed_meanwhile() {
    let ann = ann().await;
    ann.enrol_totp().await;
    let mut passkey = ann.enrol_passkey().await;
    let phone = ann.enrol_phone("+14155550123").await;
    ann.bank.world.wait(60);
    let challenge = ann.challenge(json!({})).await;
    let answer = passkey.answer(&challenge).await;
    challenge.text().await.is(200);
    ann.remove(&passkey.id).await.is(204);
    ann.remove(&phone.id).await.is(204);
    challenge.verify(answer).await.refused(422, "credential_unknown");
    challenge.verify(phone.answer()).await.refused(422, "method_not_allowed");
}

/// also between the proof and the exchange of its code.
#[tokio::test]
async fn the_code_of_a_factor_that_was_removed_is_not_exchanged() {
    let ann = ann().await;
    let (lost, _kept) = (ann.enrol_totp().await, ann.enrol_totp().await);
    let challenge = ann.challenge(json!({})).await;
    let code = challenge.browser().post(&challenge.path("/verify"), lost.answer()).await.is(200)["code"].clone();
    ann.remove(&lost.id).await.is(204);
    let answer = challenge.exchange(json!({"code": code})).await;
    assert_eq!(answer.status, 409, "{}", answer.body);
}

/// a person may not; the relying party's word does.
#[tokio::test]
async fn a_server_may_remove_the_last_factor_and_a_pending_one() {
    let ann = ann().await;
    let (app, pending) = (ann.enrol_totp().await, ann.begin_totp().await);
    ann.remove(&pending.id).await.is(204);
    ann.activate(&pending.id, json!({"code": pending.code()})).await.refused(404, "not_found");
    ann.remove(&app.id).await.is(204);
    assert_eq!(ann.shown().await["highest_acr"], Value::Null);
    assert_eq!(ann.ask(json!({})).await.is(200)["status"], "enrolment_required");
}

#[tokio::test]
async fn factors_are_listed_by_pages_oldest_first() {
    let ann = ann().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(ann.begin_totp().await.id);
        ann.bank.world.wait(1);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ann.bank.get(&ann.path(&format!("/factors?limit=2{cursor}"))).await.is(200);
        let ids = page["data"].as_array().expect("a list").iter().map(|f| text(&f["id"]));
        seen.extend(ids);
        assert_eq!(page["has_more"], page["next_cursor"].is_string());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, made);
    for bad in ["limit=0", "limit=101", "limit=x", "limit=-1", "limit="] {
        ann.bank.get(&ann.path(&format!("/factors?{bad}"))).await.invalid("limit");
    }
    ann.bank.get(&ann.path("/factors?cursor=x")).await.invalid("cursor");
    ann.bank.get(&ann.path("/factors?limit=1&limit=2")).await.invalid("query");
    ann.bank.get(&ann.path("/factors?limit=100")).await.is(200);
}

/// P-15, P-16: strict E.164 in, a masked number out.
#[tokio::test]
async fn a_phone_is_enrolled_by_the_code_that_was_sent() {
    let ann = ann().await;
    let world = ann.bank.world.clone();
    let begun = ann.begin(json!({"type": "sms", "phone": "+14155550123"})).await.is(201);
    assert_eq!(begun["status"], "pending");
    assert_eq!(begun["name"], "Phone");
    assert_eq!(begun["sms"]["resend_after"], Timestamp(world.clock.now().0).plus_seconds(30).rfc3339());
    assert_eq!(begun["sms"]["expires_at"], Timestamp(world.clock.now().0).plus_seconds(600).rfc3339());
    let masked = begun["sms"]["phone_masked"].as_str().expect("a number");
    assert!(masked.ends_with("23") && !masked.contains("41555501"), "{masked}");
    let texts = world.gateway.texts();
    assert_eq!(texts.len(), 1);
    assert_eq!(texts[0].to, "+14155550123");
    assert_eq!(texts[0].body["rp"], ann.bank.rp.id.as_str());
    assert!(texts[0].body["id"].as_str().is_some_and(|id| id.starts_with("msg_")));
    let id = text(&begun["id"]);
    ann.activate(&id, json!({"code": "abc"})).await.refused(422, "code_malformed");
    let active = ann.activate(&id, json!({"code": texts[0].code()})).await.is(200);
    assert_eq!(active["sms"], json!({"phone_masked": masked, "country": "US"}));
    assert_eq!(active["status"], "active");
    assert_eq!(ann.factor(&id).await["sms"], active["sms"]);
    ann.begin(json!({"type": "sms", "phone": "+14155550123"})).await.refused(409, "factor_duplicate");
    assert_eq!(world.gateway.texts().len(), 1);
}

/// P-08, P-14, P-15.
#[tokio::test]
async fn a_number_that_is_none_or_costly_is_refused_before_anything_is_sent() {
    let ann = ann().await;
    for bad in [
        "14155550123",
        "+1 (415) 555-0100",
        "0014155550100",
        "+1415555010a",
        "+١٤١٥٥٥٥٠١٢٣",
        "",
        "+",
        "+999999999999999999",
    ] {
        let problem = ann.begin(json!({"type": "sms", "phone": bad})).await.refused(422, "phone_invalid");
        assert_eq!(problem["param"], "phone");
    }
    for costly in ["+19005550123", "+449098790123", "+870773111632", "+8816123456789", "+491805123456"] {
        ann.begin(json!({"type": "sms", "phone": costly})).await.refused(422, "phone_not_allowed");
    }
    assert_eq!(ann.bank.world.gateway.asked(), 0);
    assert_eq!(ann.factors().await.len(), 0);
}

/// P-14: a list of countries as a setting.
#[tokio::test]
async fn only_listed_countries_are_texted_where_there_is_a_list() {
    let world = World::start_with(|c| c.sms.countries = Some(vec!["DE".to_owned()])).await;
    let ann = world.bank().await.user("ann");
    ann.begin(json!({"type": "sms", "phone": "+14155550123"})).await.refused(422, "phone_not_allowed");
    ann.enrol_phone("+4915112345678").await;
    assert_eq!(world.gateway.asked(), 1);
}

#[tokio::test]
async fn a_phone_cannot_be_enrolled_where_there_is_no_gateway() {
    let world = World::start_with(|c| c.sms.http_url = None).await;
    let ann = world.bank().await.user("ann");
    ann.begin(json!({"type": "sms", "phone": "+14155550123"})).await.refused(503, "delivery_unavailable");
    assert_eq!(ann.factors().await.len(), 0);
}

/// P-02, P-03, A-08.
#[tokio::test]
async fn the_code_of_an_enrolment_counts_ten_minutes() {
    let ann = ann().await;
    let phone = ann.begin_phone("+14155550123").await;
    ann.bank.world.wait(600);
    ann.activate(&phone.id, json!({"code": phone.code()})).await.refused(422, "code_expired");
    ann.bank.ask(&ann.path(&format!("/factors/{}/resend", phone.id))).await.is(200);
    ann.activate(&phone.id, json!({"code": phone.code()})).await.is(200);
    ann.activate(&phone.id, json!({"code": phone.code()})).await.refused(409, "factor_not_pending");
    let other = ann.begin_phone("+14155550124").await;
    ann.bank.world.wait(599);
    ann.activate(&other.id, json!({"code": other.code()})).await.is(200);
}

/// P-06: the earlier code dies with the resend.
#[tokio::test]
async fn a_resend_makes_a_new_code_and_kills_the_old() {
    let ann = ann().await;
    let phone = ann.begin_phone("+14155550123").await;
    let resend = ann.path(&format!("/factors/{}/resend", phone.id));
    let old = phone.code();
    let early = ann.bank.ask(&resend).await.refused(429, "send_limited");
    assert_eq!(early["retry_after"], 30);
    ann.bank.world.wait(30);
    let again = ann.bank.ask(&resend).await.is(200);
    assert!(again["sms"]["resend_after"].is_string() && again["sms"]["expires_at"].is_string());
    if phone.code() != old {
        ann.activate(&phone.id, json!({"code": old})).await.refused(422, "code_incorrect");
    }
    ann.activate(&phone.id, json!({"code": phone.code()})).await.is(200);
    ann.bank.ask(&resend).await.refused(409, "factor_not_pending");
}

/// Begun twice, a number is still enrolled once.
#[tokio::test]
async fn a_number_is_enrolled_once() {
    let ann = ann().await;
    let one = ann.begin_phone("+14155550123").await;
    let first = one.code();
    let two = ann.begin_phone("+14155550123").await;
    ann.activate(&one.id, json!({"code": first})).await.is(200);
    ann.activate(&two.id, json!({"code": two.code()})).await.refused(409, "factor_duplicate");
    ann.remove(&one.id).await.is(204);
    ann.activate(&two.id, json!({"code": two.code()})).await.is(200);
}

#[tokio::test]
async fn only_a_phone_is_texted_again() {
    let ann = ann().await;
    let app = ann.begin_totp().await;
    ann.bank.ask(&ann.path(&format!("/factors/{}/resend", app.id))).await.refused(422, "method_not_allowed");
}

/// P-17: what no gateway took was never begun.
#[tokio::test]
async fn a_gateway_that_fails_leaves_no_factor_and_charges_nothing() {
    let ann = ann().await;
    let world = ann.bank.world.clone();
    for mood in [Mood::Broken, Mood::Refusing] {
        world.gateway.is(mood);
        for _ in 0..5 {
            ann.begin(json!({"type": "sms", "phone": "+14155550123"})).await.refused(503, "delivery_unavailable");
        }
    }
    assert_eq!(ann.factors().await.len(), 0);
    world.gateway.is(Mood::Well);
    ann.enrol_phone("+14155550123").await;
}

/// WR-02, WR-15, V-06: what a browser is asked.
#[tokio::test]
async fn creation_options_ask_for_verification_and_no_attestation() {
    let ann = ann().await;
    ann.bank.put(&ann.path(""), json!({"display_name": "Ann", "login_hint": "ann@bank.example"})).await.is(200);
    let (_, options) = ann.begin_passkey().await;
    assert_eq!(options["rp"], json!({"id": "bank.example", "name": "Bank"}));
    assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
    assert_eq!(options["authenticatorSelection"]["residentKey"], "preferred");
    assert!(options["authenticatorSelection"]["authenticatorAttachment"].is_null());
    assert_eq!(options["attestation"], "none");
    assert_eq!(
        (&options["user"]["name"], &options["user"]["displayName"]),
        (&json!("ann@bank.example"), &json!("Ann"))
    );
    assert!((300_000..=600_000).contains(&options["timeout"].as_i64().expect("a number")));
    let bytes = |value: &Value| base64url(value.as_str().expect("a text"));
    assert!(bytes(&options["challenge"]).len() >= 16);
    let handle = bytes(&options["user"]["id"]);
    assert!((1..=64).contains(&handle.len()) && !handle.windows(3).any(|part| part == b"ann"), "{handle:?}");
    let offered: Vec<_> =
        options["pubKeyCredParams"].as_array().expect("a list").iter().map(|p| p["alg"].clone()).collect();
    assert!(offered.contains(&json!(-7)) && offered.contains(&json!(-257)), "{offered:?}");
    assert!(options["publicKey"].is_null(), "the members themselves, no wrapper");
    let (_, again) = ann.begin_passkey().await;
    assert_eq!(again["user"]["id"], options["user"]["id"], "one handle a user");
    assert_ne!(again["challenge"], options["challenge"]);
    let (_, other) = ann.bank.user("bob").begin_passkey().await;
    assert_ne!(other["user"]["id"], options["user"]["id"]);
    let shop = ann.bank.world.party("Shop", "shop.example", false).await;
    let (_, elsewhere) = shop.user("ann").begin_passkey().await;
    assert_ne!(elsewhere["user"]["id"], options["user"]["id"], "nor is it known elsewhere");
}

#[tokio::test]
async fn a_hint_says_which_authenticator_a_browser_offers() {
    let ann = ann().await;
    let options = |kind: &'static str| {
        let ann = ann.clone();
        async move {
            ann.begin(json!({"type": "webauthn", "authenticator": kind})).await.is(201)["webauthn"]["creation_options"]
                .clone()
        }
    };
    assert!(options("any").await["authenticatorSelection"]["authenticatorAttachment"].is_null());
    assert_eq!(options("platform").await["authenticatorSelection"]["authenticatorAttachment"], "platform");
    let roaming = options("security_key").await;
    assert_eq!(roaming["authenticatorSelection"]["authenticatorAttachment"], "cross-platform");
    assert_eq!(roaming["hints"], json!(["security-key"]));
    assert_eq!(roaming["authenticatorSelection"]["userVerification"], "required", "the same ceremony");
}

/// WR-16: what is known of a passkey.
#[tokio::test]
async fn a_passkey_shows_model_transports_and_backup() {
    let ann = ann().await;
    let aaguid = [0xfb, 0xfc, 0x30, 0x07, 0x15, 0x4e, 0x4e, 0xcc, 0x8c, 0x0b, 0x6e, 0x02, 0x05, 0x57, 0xd7, 0xbd];
    let synced = Authenticator {
        aaguid,
        backup_eligible: true,
        backed_up: true,
        counting: false,
        transports: vec!["hybrid".to_owned(), "internal".to_owned()],
        ..ann.device()
    };
    let synced = ann.enrol_passkey_on(synced).await;
    let key = Authenticator { transports: vec!["usb".to_owned(), "nfc".to_owned()], ..ann.device() };
    let key = ann.enrol_passkey_on(key).await;
    let shown = ann.factor(&synced.id).await;
    let facts = &shown["webauthn"];
    assert_eq!(facts["aaguid"], "fbfc3007-154e-4ecc-8c0b-6e020557d7bd");
    assert_eq!(facts["provider_name"], "iCloud Keychain");
    assert_eq!((&facts["backup_eligible"], &facts["backed_up"]), (&json!(true), &json!(true)));
    assert_eq!(facts["transports"], json!(["hybrid", "internal"]));
    assert_eq!(facts["user_verifying"], true);
    assert!(facts["creation_options"].is_null());
    let shown = ann.factor(&key.id).await;
    assert_eq!(shown["webauthn"]["backup_eligible"], false);
    assert_eq!(shown["webauthn"]["transports"], json!(["usb", "nfc"]));
}

/// WR-17: the user's own are excluded, and several are possible.
#[tokio::test]
async fn five_passkeys_are_possible_and_each_is_excluded_from_the_next() {
    let ann = ann().await;
    for n in 0..5 {
        let (_, options) = ann.begin_passkey().await;
        assert_eq!(options["excludeCredentials"].as_array().map_or(0, Vec::len), n);
        ann.enrol_passkey().await;
    }
    let challenge = ann.challenge(json!({})).await;
    let options = challenge.request_options().await;
    assert_eq!(options["allowCredentials"].as_array().map(Vec::len), Some(5));
    let (_, other) = ann.bank.user("bob").begin_passkey().await;
    assert!(other["excludeCredentials"].as_array().is_none_or(Vec::is_empty), "none of another user's");
}

fn base64url(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).expect("base64url")
}
