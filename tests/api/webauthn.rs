//! Passkeys, told the truth and lied to: every lie of the software authenticator is refused, every truth accepted
//! (standards WR-*, WA-*).

use crate::support::authenticator::{AssertionLie, RegistrationLie};
use crate::support::{Answer, Authenticator, Bank, Challenge, Passkey, Value, World, ann, json};

/// Each kind of device that a lie is tried on: single-device or synced, counting or not.
fn devices(bank: &Bank) -> Vec<(String, Authenticator)> {
    let mut devices = Vec::new();
    for backup_eligible in [false, true] {
        for counting in [false, true] {
            let device = Authenticator {
                backup_eligible,
                backed_up: backup_eligible,
                counting,
                ..Authenticator::new(bank.origin())
            };
            devices.push((format!("BE {backup_eligible}, counting {counting}"), device));
        }
    }
    devices
}

/// How a fault of a credential may be answered.
const FAULTS: [&str; 3] = ["credential_invalid", "credential_unknown", "user_verification_required"];

#[track_caller]
fn is_refused(answer: &Answer, told: &str) {
    let shape = matches!(answer.code(), "request_invalid" | "request_malformed" | "body_too_large");
    assert!(FAULTS.contains(&answer.code()) || shape, "{told}: {} {}", answer.status, answer.body);
}

/// The one that this kind of lie has (api.md, 3).
fn expected(name: &str) -> Option<&'static str> {
    match name {
        "flags: UV clear" => Some("user_verification_required"),
        _ => None,
    }
}

/// No lie is ever enrolled, and the truth is afterwards: WR-04, WR-05, WR-06, WR-07, WR-08, WR-09, WR-10, WR-11, WR-12, WR-13,
/// WR-19, 3.15 to 3.17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_of_a_registration_is_refused() {
    let bank = World::start().await.bank().await;
    let mut tried = (0, 0);
    for (n, (kind, device)) in devices(&bank).into_iter().enumerate() {
        let tasks: Vec<_> = RegistrationLie::all()
            .into_iter()
            .filter(|lie| !lie.needs_counter() || device.counting)
            .enumerate()
            .map(|(m, lie)| {
                let (user, mut device, kind) = (bank.user(&format!("u-{n}-{m}")), device.clone(), kind.clone());
                tokio::spawn(async move {
                    let told = format!("{} ({kind})", lie.name());
                    let (id, options) = user.begin_passkey().await;
                    let credential = device.create_lying(&options, &lie);
                    let answer = user.activate(&id, json!({"credential": credential})).await;
                    if lie.must_refuse() {
                        is_refused(&answer, &told);
                        if let Some(code) = expected(lie.name()) {
                            assert_eq!(answer.code(), code, "{told}");
                        }
                        assert_eq!(user.factor(&id).await["status"], "pending", "{told}");
                    } else {
                        assert!(
                            answer.is_success() || FAULTS.contains(&answer.code()) || answer.status == 413,
                            "{told}: {}",
                            answer.body
                        );
                    }
                    user.enrol_passkey().await;
                    lie.must_refuse()
                })
            })
            .collect();
        for task in tasks {
            let must = task.await.expect("no lie was taken");
            tried.0 += usize::from(must);
            tried.1 += usize::from(!must);
        }
    }
    println!("registration: {} lies refused, {} that may be refused answered cleanly", tried.0, tried.1);
    assert!(tried.0 >= 500, "{tried:?}");
}

/// No lie ever proves anything, and the truth does afterwards: WA-01, WA-02, WA-03, WA-04, WA-05, WA-06, WA-07, WA-08, WA-09,
/// WA-10.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_of_an_assertion_is_refused() {
    let bank = World::start().await.bank().await;
    let mut tried = (0, 0);
    for (n, (kind, device)) in devices(&bank).into_iter().enumerate() {
        let mut tasks = Vec::new();
        for (m, lie) in AssertionLie::all().into_iter().enumerate() {
            if lie.needs_counter() && !device.counting {
                continue;
            }
            let (user, device, kind) = (bank.user(&format!("u-{n}-{m}")), device.clone(), kind.clone());
            tasks.push(tokio::spawn(async move {
                let told = format!("{} ({kind})", lie.name());
                let mut passkey = user.enrol_passkey_on(device).await;
                let challenge = user.challenge(json!({})).await;
                let options = challenge.request_options().await;
                let credential = passkey.device.get_lying(&options, &lie);
                let answer = challenge.verify(json!({"type": "webauthn", "credential": credential})).await;
                if lie.must_refuse() {
                    is_refused(&answer, &told);
                    if let Some(code) = expected(lie.name()) {
                        assert_eq!(answer.code(), code, "{told}");
                    }
                    prove(&challenge, &mut passkey).await.is(200);
                } else {
                    assert!(
                        answer.is_success() || FAULTS.contains(&answer.code()) || answer.status == 413,
                        "{told}: {}",
                        answer.body
                    );
                }
                prove(&user.challenge(json!({})).await, &mut passkey).await.is(200);
                lie.must_refuse()
            }));
        }
        for task in tasks {
            let must = task.await.expect("no lie was taken");
            tried.0 += usize::from(must);
            tried.1 += usize::from(!must);
        }
    }
    println!("assertion: {} lies refused, {} that may be refused answered cleanly", tried.0, tried.1);
    assert!(tried.0 >= 500, "{tried:?}");
}

/// WA-01: only a passkey that the ceremony asked for proves anything, though the user has others.
#[tokio::test]
async fn a_passkey_that_was_not_asked_for_is_refused() {
    let ann = ann().await;
    let (mut one, mut two) = (ann.enrol_passkey().await, ann.enrol_passkey().await);
    let challenge = ann.challenge(json!({})).await;
    let asked = json!({"type": "webauthn", "factor_id": one.id});
    let options = challenge.prepare(asked).await.is(200)["webauthn"]["request_options"].clone();
    assert_eq!(options["allowCredentials"].as_array().map(Vec::len), Some(1));
    let mut unlisted = options.clone();
    unlisted["allowCredentials"] = json!([]);
    let other = two.device.get(&unlisted).expect("no objection");
    challenge.verify(json!({"type": "webauthn", "credential": other})).await.refused(422, "credential_invalid");
    // Nor one that became the user's meanwhile.
    let options = challenge.request_options().await;
    let mut three = ann.enrol_passkey().await;
    let mut unlisted = options.clone();
    unlisted["allowCredentials"] = json!([]);
    let newer = three.device.get(&unlisted).expect("no objection");
    challenge.verify(json!({"type": "webauthn", "credential": newer})).await.refused(422, "credential_invalid");
    prove(&challenge, &mut one).await.is(200);
    prove(&ann.challenge(json!({})).await, &mut three).await.is(200);
}

/// WR-13, WR-18, WA-13: what is unusual and permitted is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_truth_is_accepted() {
    let bank = World::start().await.bank().await;
    let mut told = 0;
    for (n, (kind, device)) in devices(&bank).into_iter().enumerate() {
        for (m, truth) in RegistrationLie::truths().into_iter().enumerate() {
            let (user, mut device) = (bank.user(&format!("r-{n}-{m}")), device.clone());
            let (id, options) = user.begin_passkey().await;
            let credential = device.create_lying(&options, &truth);
            let answer = user.activate(&id, json!({"credential": credential})).await;
            assert_eq!(answer.status, 200, "{} ({kind}): {}", truth.name(), answer.body);
            prove(&user.challenge(json!({})).await, &mut Passkey { id, device }).await.is(200);
            told += 1;
        }
        for (m, truth) in AssertionLie::truths().into_iter().enumerate() {
            if truth.needs_counter() && !device.counting {
                continue;
            }
            let user = bank.user(&format!("a-{n}-{m}"));
            let mut passkey = user.enrol_passkey_on(device.clone()).await;
            let challenge = user.challenge(json!({})).await;
            let options = challenge.request_options().await;
            let credential = passkey.device.get_lying(&options, &truth);
            let answer = challenge.verify(json!({"type": "webauthn", "credential": credential})).await;
            assert_eq!(answer.status, 200, "{} ({kind}): {}", truth.name(), answer.body);
            prove(&user.challenge(json!({})).await, &mut passkey).await.is(200);
            told += 1;
        }
    }
    println!("{told} truths accepted");
    assert!(told >= 150, "{told}");
}

async fn prove(challenge: &Challenge, passkey: &mut Passkey) -> Answer {
    let answer = passkey.answer(challenge).await;
    challenge.verify(answer).await
}

/// WR-14, 3.18: a credential id belongs to one user of a relying party.
#[tokio::test]
async fn a_credential_of_another_user_is_refused_without_a_hint() {
    let ann = ann().await;
    let bob = ann.bank.user("bob");
    let mut passkey = ann.enrol_passkey().await;
    let taken = RegistrationLie::with_credential_id(&passkey.device.credentials[0].id.clone());
    let (id, options) = bob.begin_passkey().await;
    let credential = bob.device().create_lying(&options, &taken);
    let theirs = bob.activate(&id, json!({"credential": credential})).await.refused(422, "credential_invalid");
    let (id, options) = bob.begin_passkey().await;
    let lie = RegistrationLie::with_challenge("AAAA");
    let credential = bob.device().create_lying(&options, &lie);
    let fault = bob.activate(&id, json!({"credential": credential})).await.refused(422, "credential_invalid");
    assert_eq!(theirs["detail"], fault["detail"]);
    assert!(bob.factors().await.iter().all(|f| f["status"] == "pending"));

    let (id, options) = ann.begin_passkey().await;
    let credential = ann.device().create_lying(&options, &taken);
    ann.activate(&id, json!({"credential": credential})).await.refused(409, "factor_duplicate");
    prove(&ann.challenge(json!({})).await, &mut passkey).await.is(200);

    // Within another relying party it is as good as any.
    let shop = ann.bank.world.party("Shop", "shop.example", false).await.user("bob");
    let (id, options) = shop.begin_passkey().await;
    let credential = shop.device().create_lying(&options, &taken);
    shop.activate(&id, json!({"credential": credential})).await.is(200);
}

/// api.md, 3: `credential_unknown` is no credential of that id for this user, whoever owns it.
#[tokio::test]
async fn a_credential_that_the_user_does_not_hold_is_unknown() {
    let ann = ann().await;
    let bob = ann.bank.user("bob");
    ann.enrol_passkey().await;
    let mut of_bob = bob.enrol_passkey().await;
    let challenge = ann.challenge(json!({})).await;
    let by_bob = |of_bob: &mut Passkey, options: &Value| {
        of_bob.device.get_lying(options, &AssertionLie::with_credential_id(&of_bob.device.credentials[0].id.clone()))
    };
    // Bob's device, which says that it is Bob's.
    let options = challenge.request_options().await;
    let credential = by_bob(&mut of_bob, &options);
    let foreign = challenge.verify(json!({"type": "webauthn", "credential": credential})).await;
    let foreign = foreign.refused(422, "credential_unknown");
    // One that nobody ever registered.
    let options = challenge.request_options().await;
    let stranger = ann.device().get_lying(&options, &AssertionLie::with_user_handle(b"x"));
    let unknown = challenge.verify(json!({"type": "webauthn", "credential": stranger})).await;
    let unknown = unknown.refused(422, "credential_unknown");
    assert_eq!(foreign["detail"], unknown["detail"]);
    assert_eq!((&foreign["attempts_left"], &unknown["attempts_left"]), (&json!(4), &json!(3)));
    prove(&bob.challenge(json!({})).await, &mut of_bob).await.is(200);
}

/// Also where it was the only one, and was held when its ceremony began: the browser is told to forget it.
#[tokio::test]
async fn a_passkey_that_is_removed_while_it_is_used_is_unknown() {
    let ann = ann().await;
    ann.enrol_totp().await;
    let mut passkey = ann.enrol_passkey().await;
    let challenge = ann.challenge(json!({})).await;
    let options = challenge.request_options().await;
    let credential = passkey.device.get(&options).expect("no objection");
    ann.bank.delete(&ann.path(&format!("/factors/{}", passkey.id))).await.is(204);
    let answer = json!({"type": "webauthn", "credential": credential});
    let refused = challenge.verify(answer.clone()).await;
    assert_eq!(refused.refused(422, "credential_unknown")["attempts_left"], 4);
    challenge.verify(answer).await.refused(422, "method_not_allowed");
}

/// WR-03, WA-11: any finish burns the ceremony.
#[tokio::test]
async fn a_ceremony_is_finished_once() {
    let ann = ann().await;
    let (id, options) = ann.begin_passkey().await;
    let mut device = ann.device();
    let wrong = device.create_lying(&options, &RegistrationLie::with_challenge("AAAA"));
    let right = device.create(&options).expect("no objection");
    ann.activate(&id, json!({"credential": wrong})).await.refused(422, "credential_invalid");
    ann.activate(&id, json!({"credential": right})).await.refused(422, "credential_invalid");

    let mut passkey = ann.enrol_passkey().await;
    let challenge = ann.challenge(json!({})).await;
    let options = challenge.request_options().await;
    let wrong = passkey.device.get_lying(&options, &AssertionLie::with_challenge("AAAA"));
    let right = passkey.device.get(&options).expect("no objection");
    challenge.verify(json!({"type": "webauthn", "credential": wrong})).await.refused(422, "credential_invalid");
    challenge.verify(json!({"type": "webauthn", "credential": right})).await.refused(422, "credential_invalid");
    let answer = passkey.answer(&challenge).await;
    challenge.verify(answer.clone()).await.is(200);
    challenge.verify(answer.clone()).await.refused(409, "challenge_not_pending");
    ann.challenge(json!({})).await.verify(answer).await.refused(422, "credential_invalid");
}

/// api.md, 5: one live ceremony a challenge; a new one replaces it.
#[tokio::test]
async fn a_new_ceremony_replaces_the_one_before() {
    let ann = ann().await;
    let mut passkey = ann.enrol_passkey().await;
    let challenge = ann.challenge(json!({})).await;
    let old = passkey.answer(&challenge).await;
    let new = passkey.answer(&challenge).await;
    challenge.verify(old).await.refused(422, "credential_invalid");
    challenge.verify(new).await.refused(422, "credential_invalid");
    prove(&challenge, &mut passkey).await.is(200);
}

/// WR-02: five minutes.
#[tokio::test]
async fn a_ceremony_lives_five_minutes() {
    let ann = ann().await;
    let world = ann.bank.world.clone();
    for (wait, good) in [(299, true), (300, false)] {
        let (id, options) = ann.begin_passkey().await;
        let credential = ann.device().create(&options).expect("no objection");
        world.wait(wait);
        let answer = ann.activate(&id, json!({"credential": credential})).await;
        assert_eq!(answer.status, if good { 200 } else { 422 }, "{}", answer.body);
    }
    let mut passkey = ann.enrol_passkey().await;
    for (wait, good) in [(299, true), (300, false)] {
        let challenge = ann.challenge(json!({})).await;
        let answer = passkey.answer(&challenge).await;
        world.wait(wait);
        let answer = challenge.verify(answer).await;
        assert_eq!(answer.status, if good { 200 } else { 422 }, "{}", answer.body);
    }
}

/// WR-03, 3.16: a ceremony belongs to one pending factor, one challenge, one purpose.
#[tokio::test]
async fn an_answer_to_one_ceremony_is_refused_at_another() {
    let ann = ann().await;
    let bob = ann.bank.user("bob");
    let (one, options) = ann.begin_passkey().await;
    let (two, _) = ann.begin_passkey().await;
    let (of_bob, _) = bob.begin_passkey().await;
    let credential = ann.device().create(&options).expect("no objection");
    ann.activate(&two, json!({"credential": credential})).await.refused(422, "credential_invalid");
    bob.activate(&of_bob, json!({"credential": credential})).await.refused(422, "credential_invalid");
    ann.activate(&one, json!({"code": "123456"})).await.invalid("code");
    ann.activate(&one, json!({"credential": credential})).await.is(200);

    let mut passkey = ann.enrol_passkey().await;
    let challenge = ann.challenge(json!({})).await;
    let (_, creation) = ann.begin_passkey().await;
    challenge.request_options().await;
    let lie = AssertionLie::with_challenge(creation["challenge"].as_str().expect("a text"));
    let options = challenge.request_options().await;
    let credential = passkey.device.get_lying(&options, &lie);
    challenge.verify(json!({"type": "webauthn", "credential": credential})).await.refused(422, "credential_invalid");
    for odd in [json!("x"), json!([credential]), json!(7)] {
        challenge.verify(json!({"type": "webauthn", "credential": odd})).await.invalid("credential");
        ann.activate(&two, json!({"credential": odd})).await.invalid("credential");
    }
}

/// WA-09, WA-10, 3.19: a counter that goes back is refused, and lowers nothing.
#[tokio::test]
async fn a_counter_that_goes_back_is_refused() {
    let ann = ann().await;
    let mut passkey = ann.enrol_passkey().await;
    prove(&ann.challenge(json!({})).await, &mut passkey).await.is(200);
    let mut clone = Passkey { id: passkey.id.clone(), device: passkey.device.clone() };
    for _ in 0..3 {
        prove(&ann.challenge(json!({})).await, &mut passkey).await.is(200);
    }
    let challenge = ann.challenge(json!({})).await;
    for _ in 0..3 {
        prove(&challenge, &mut clone).await.refused(422, "credential_invalid");
    }
    prove(&challenge, &mut passkey).await.is(200);
}

#[tokio::test]
async fn one_passkey_answers_two_challenges_at_once() {
    let ann = ann().await;
    let synced = Authenticator { counting: false, backup_eligible: true, backed_up: true, ..ann.device() };
    let mut passkey = ann.enrol_passkey_on(synced).await;
    let (one, two) = (ann.challenge(json!({})).await, ann.challenge(json!({})).await);
    let (first, second) = (passkey.answer(&one).await, passkey.answer(&two).await);
    let (first, second) = tokio::join!(one.verify(first), two.verify(second));
    first.is(200);
    second.is(200);
}

/// WA-07, WA-10: the state of a backup is shown as an accepted assertion last told it; a refused one tells nothing.
#[tokio::test]
async fn a_backup_that_begins_later_is_noticed() {
    let ann = ann().await;
    let device = Authenticator { backup_eligible: true, backed_up: false, ..ann.device() };
    let mut passkey = ann.enrol_passkey_on(device).await;
    assert_eq!(ann.factor(&passkey.id).await["webauthn"]["backed_up"], false);
    passkey.device.credentials[0].backed_up = true;
    // Of another challenge, and by a counter that goes back.
    let challenge = ann.challenge(json!({})).await;
    let options = challenge.request_options().await;
    let credential = passkey.device.get_lying(&options, &AssertionLie::with_challenge("AAAA"));
    challenge.verify(json!({"type": "webauthn", "credential": credential})).await.refused(422, "credential_invalid");
    let mut clone = Passkey { id: passkey.id.clone(), device: passkey.device.clone() };
    clone.device.credentials[0].counter = 0;
    prove(&challenge, &mut clone).await.refused(422, "credential_invalid");
    let shown = ann.factor(&passkey.id).await;
    assert_eq!((&shown["webauthn"]["backed_up"], &shown["last_used_at"]), (&json!(false), &Value::Null));
    prove(&challenge, &mut passkey).await.is(200);
    let shown = ann.factor(&passkey.id).await;
    assert_eq!(shown["webauthn"]["backed_up"], true);
    assert!(shown["last_used_at"].is_string());
}

/// WA-06: the request asks for verification, and lists the user's own with their transports.
#[tokio::test]
async fn request_options_ask_for_verification() {
    let ann = ann().await;
    let key = Authenticator { transports: vec!["usb".to_owned()], ..ann.device() };
    ann.enrol_passkey_on(key).await;
    ann.bank.user("bob").enrol_passkey().await;
    let options = ann.challenge(json!({})).await.request_options().await;
    assert_eq!((&options["rpId"], &options["userVerification"]), (&json!("bank.example"), &json!("required")));
    assert_eq!(options["allowCredentials"].as_array().map(Vec::len), Some(1));
    assert_eq!(options["allowCredentials"][0]["transports"], json!(["usb"]));
    assert!((300_000..=600_000).contains(&options["timeout"].as_i64().expect("a number")));
    assert!(options["publicKey"].is_null());
    ann.ask(json!({"require": {"userVerification": "discouraged"}})).await.invalid("require.userVerification");
}

/// api.md, 2: the origin of `public_url` is accepted where its host is the RP ID or below it, and nowhere else.
#[tokio::test]
async fn the_engines_own_origin_counts_where_the_rp_id_covers_it() {
    let world = World::start().await;
    let (local, bank) = (world.party("Local", "localhost", true).await, world.bank().await);
    let ann = local.user("ann");
    let port = world.issuer().rsplit(':').next().expect("a port").to_owned();
    let mut passkey = ann.enrol_passkey_on(Authenticator::new(&world.issuer())).await;
    prove(&ann.challenge(json!({})).await, &mut passkey).await.is(200);
    for origin in [
        "http://localhost",
        "http://localhost:1",
        &format!("https://localhost:{port}"),
        &format!("http://x.localhost:{port}"),
    ] {
        let (id, options) = ann.begin_passkey().await;
        let credential = Authenticator::new(origin).create(&options).expect("a host below the RP ID");
        ann.activate(&id, json!({"credential": credential})).await.refused(422, "credential_invalid");
    }
    let (id, options) = bank.user("ann").begin_passkey().await;
    let mut device = Authenticator::new(&world.issuer());
    let credential =
        device.create_lying(&options, &RegistrationLie::with_challenge(options["challenge"].as_str().expect("a text")));
    bank.user("ann").activate(&id, json!({"credential": credential})).await.refused(422, "credential_invalid");
}

/// `parseCreationOptionsFromJSON` and `parseRequestOptionsFromJSON` take absent members, not `null`.
#[tokio::test]
async fn options_hold_no_null() {
    fn has_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(list) => list.iter().any(has_null),
            Value::Object(members) => members.values().any(has_null),
            _ => false,
        }
    }
    let ann = ann().await;
    ann.enrol_passkey().await;
    for kind in ["any", "platform", "security_key"] {
        let begun = ann.begin(json!({"type": "webauthn", "authenticator": kind})).await.is(201);
        let options = &begun["webauthn"]["creation_options"];
        assert!(!has_null(options), "{options}");
    }
    let options = ann.challenge(json!({})).await.request_options().await;
    assert!(!has_null(&options), "{options}");
}
