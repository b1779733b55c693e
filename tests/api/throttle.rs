//! When guessing pauses (api.md, 7).

use crate::support::gateway::Mood;
use crate::support::{App, User, Value, World, ann_with_app as ann, json};

/// So many wrong codes, in challenges of five answers each.
async fn miss(user: &User, app: &App, times: usize) {
    for n in 0..times.div_ceil(5) {
        let challenge = user.challenge(json!({})).await;
        for _ in 0..(times - 5 * n).min(5) {
            challenge.verify(app.miss()).await.refused(422, "code_incorrect");
        }
    }
}

async fn paused(user: &User) -> Vec<Value> {
    user.shown().await["paused"].as_array().expect("a list").iter().map(|p| p["method"].clone()).collect()
}

/// who guesses very often at once would be right before the wrong ones are counted. A right code is one of the verdicts that a
/// pause lets through, and loses to a pause that begins while it is judged, whether its lane was ever written or not.
#[tokio::test]
async fn a_right_code_does_not_slip_past_a_pause_that_begins_while_it_is_judged() {
    let bank = World::start().await.bank().await;
    let (ann, bob) = (bank.user("ann"), bank.user("bob"));
    let (of_ann, of_bob) = (ann.enrol_totp().await, bob.enrol_totp().await);
    miss(&bob, &of_bob, 10).await;
    for round in 0..2 {
        let challenge = ann.challenge(json!({})).await;
        let pause = "delete from throttle_lanes where user_id = 'ann' and lane = '';
             insert into throttle_lanes (rp_id, user_id, lane, version, state, seen_at, paused_until)
             select rp_id, 'ann', lane, 1000, state, seen_at, paused_until from throttle_lanes where user_id = 'bob' and lane = ''";
        let mut held = bank.world.scratch.hold(pause).await;
        let verdict = tokio::spawn({
            let (challenge, answer) = (challenge.clone(), of_ann.now());
            async move { challenge.verify(answer).await }
        });
        held.is_waited_for().await;
        assert!(!verdict.is_finished(), "{round}: it is judged and not settled");
        held.let_go().await;
        verdict.await.expect("no panic").refused(429, "method_paused");
        bank.world.wait(30);
        challenge.verify(of_ann.now()).await.is(200);
        miss(&bob, &of_bob, 1).await;
        bank.world.wait(30);
    }
}

/// 3.1: over all challenges together, ten and then one a pause, each twice as long, up to an hour.
#[tokio::test]
async fn ten_wrong_codes_pause_a_method_and_each_further_one_doubles_the_pause() {
    let (ann, app) = ann().await;
    let world = ann.bank.world.clone();
    miss(&ann, &app, 9).await;
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
    miss(&ann, &app, 1).await;
    for pause in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
        assert_eq!(paused(&ann).await, ["totp"]);
        let challenge = ann.challenge(json!({})).await;
        let offered = &challenge.body["methods"][0];
        let until = countersign::model::Timestamp::from_seconds(world.now() + pause).rfc3339();
        assert_eq!((&offered["type"], &offered["paused_until"]), (&json!("totp"), &json!(until)));
        let problem = challenge.verify(app.now()).await.refused(429, "method_paused");
        assert_eq!((&problem["retry_after"], &problem["attempts_left"]), (&json!(pause), &json!(5)));
        world.wait(pause - 1);
        let challenge = ann.challenge(json!({})).await;
        assert_eq!(challenge.verify(app.now()).await.refused(429, "method_paused")["retry_after"], 1);
        world.wait(1);
        assert_eq!(paused(&ann).await, [] as [Value; 0]);
        challenge.verify(app.miss()).await.refused(422, "code_incorrect");
        challenge.verify(app.miss()).await.refused(429, "method_paused");
    }
}

/// a right code after the pause clears the count.
#[tokio::test]
async fn a_right_code_clears_the_count() {
    let (ann, app) = ann().await;
    miss(&ann, &app, 9).await;
    ann.session(&app, json!({})).await;
    miss(&ann, &app, 9).await;
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
    miss(&ann, &app, 1).await;
    assert_eq!(paused(&ann).await, ["totp"]);
    ann.bank.world.wait(6 * 3600);
    ann.session(&app, json!({})).await;
    miss(&ann, &app, 9).await;
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
}

/// 3.2: every call that answers a challenge counts on the same counter.
#[tokio::test]
async fn challenges_client_tokens_and_answers_at_creation_count_together() {
    let (ann, app) = ann().await;
    miss(&ann, &app, 5).await;
    for _ in 0..4 {
        ann.ask(json!({"answer": app.miss()})).await.refused(422, "code_incorrect");
    }
    let challenge = ann.challenge(json!({})).await;
    challenge.browser().post(&challenge.path("/verify"), app.miss()).await.refused(422, "code_incorrect");
    challenge.verify(app.now()).await.refused(429, "method_paused");
    challenge.browser().post(&challenge.path("/verify"), app.now()).await.refused(429, "method_paused");
    ann.ask(json!({"answer": app.now()})).await.refused(429, "method_paused");
}

/// first proofs of pending factors have a counter of their own, over all of them, which counts towards the pause of
/// challenges as theirs does towards enrolments'.
#[tokio::test]
async fn enrolments_and_challenges_add_up_to_one_pause() {
    let (ann, app) = ann().await;
    let pending = ann.begin_totp().await;
    for n in 0..5 {
        let other = if n % 2 == 0 { &pending } else { &ann.begin_totp().await };
        ann.activate(&other.id, json!({"code": other.wrong()})).await.refused(422, "code_incorrect");
    }
    miss(&ann, &app, 5).await;
    assert_eq!(paused(&ann).await, ["totp"]);
    ann.activate(&pending.id, json!({"code": pending.code()})).await.refused(429, "method_paused");
    ann.activate(&ann.begin_totp().await.id, json!({"code": "123456"})).await.refused(429, "method_paused");
    ann.challenge(json!({})).await.verify(app.now()).await.refused(429, "method_paused");
    ann.bank.world.wait(30);
    ann.activate(&pending.id, json!({"code": pending.code()})).await.is(200);
    // The success cleared the enrolments' five, and none of the challenges': four more are free.
    miss(&ann, &app, 4).await;
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
    miss(&ann, &app, 1).await;
    assert_eq!(paused(&ann).await, ["totp"]);
}

/// what was guessed before the success that made a device known does not count against it.
#[tokio::test]
async fn a_device_that_becomes_known_begins_anew() {
    let (ann, app) = ann().await;
    let pending = ann.begin_totp().await;
    for _ in 0..9 {
        ann.activate(&pending.id, json!({"code": pending.wrong()})).await.refused(422, "code_incorrect");
    }
    ann.bank.world.wait(60);
    let at_home = |answer| json!({"client": {"device": "home"}, "answer": answer});
    ann.ask(at_home(app.now())).await.is(200);
    for _ in 0..9 {
        ann.ask(at_home(app.miss())).await.refused(422, "code_incorrect");
    }
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
    ann.ask(at_home(app.miss())).await.refused(422, "code_incorrect");
    ann.ask(at_home(app.miss())).await.refused(429, "method_paused");
}

/// enrolling a second app never wipes out guesses against the first.
#[tokio::test]
async fn a_new_enrolment_does_not_clear_guesses_against_the_old_factor() {
    let (ann, app) = ann().await;
    miss(&ann, &app, 9).await;
    let pending = ann.begin_totp().await;
    ann.activate(&pending.id, json!({"code": pending.code()})).await.is(200);
    miss(&ann, &app, 1).await;
    assert_eq!(paused(&ann).await, ["totp"]);
}

/// the other methods stay open, and a passkey always is.
#[tokio::test]
async fn a_pause_concerns_its_method_alone() {
    let (ann, app) = ann().await;
    let mut passkey = ann.enrol_passkey().await;
    let phone = ann.enrol_phone("+14155550123").await;
    let codes = ann.recovery_codes().await;
    ann.bank.world.wait(60);
    miss(&ann, &app, 10).await;
    let challenge = ann.challenge(json!({})).await;
    assert_eq!(challenge.methods(), ["webauthn", "totp", "sms", "recovery_code"], "it stays in the list");
    let answer = passkey.answer(&challenge).await;
    challenge.verify(answer).await.is(200);
    let challenge = ann.challenge(json!({})).await;
    challenge.text().await.is(200);
    challenge.verify(phone.answer()).await.is(200);
    let recovery = json!({"type": "recovery_code", "code": codes[0]});
    ann.challenge(json!({})).await.verify(recovery).await.is(200);
    assert_eq!(paused(&ann).await, ["totp"], "they cleared nothing of it");
    ann.bank.user("bob").enrol_totp().await;
}

/// P-07, R-07, X-05: wrong codes of texts add up over challenges, and pause texts alone.
#[tokio::test]
async fn a_paused_text_code_leaves_apps_open() {
    let (ann, app) = ann().await;
    let phone = ann.enrol_phone("+14155550123").await;
    for _ in 0..2 {
        ann.bank.world.wait(60);
        let challenge = ann.challenge(json!({})).await;
        challenge.text().await.is(200);
        for _ in 0..5 {
            challenge.verify(phone.miss()).await.refused(422, "code_incorrect");
        }
    }
    assert_eq!(paused(&ann).await, ["sms"]);
    ann.session(&app, json!({})).await;
}

/// a signature cannot be guessed, so a passkey is never paused, however often it fails.
#[tokio::test]
async fn a_passkey_is_never_paused() {
    let (ann, _) = ann().await;
    let mut passkey = ann.enrol_passkey().await;
    let mut forged = ann.device();
    for _ in 0..4 {
        let challenge = ann.challenge(json!({})).await;
        for _ in 0..5 {
            let options = challenge.request_options().await;
            let lie = crate::support::authenticator::AssertionLie::with_challenge("AAAA");
            let credential = forged.get_lying(&options, &lie);
            assert_eq!(challenge.verify(json!({"type": "webauthn", "credential": credential})).await.status, 422);
        }
    }
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
    let challenge = ann.challenge(json!({})).await;
    let answer = passkey.answer(&challenge).await;
    challenge.verify(answer).await.is(200);
}

/// 80 bits are not guessed; recovery codes are limited for CPU only.
#[tokio::test]
async fn recovery_codes_are_never_paused() {
    let (ann, _) = ann().await;
    let codes = ann.recovery_codes().await;
    for _ in 0..4 {
        let challenge = ann.challenge(json!({})).await;
        for _ in 0..5 {
            let wrong = json!({"type": "recovery_code", "code": "0000-0000-0000-0000"});
            challenge.verify(wrong).await.refused(422, "code_incorrect");
        }
    }
    let right = json!({"type": "recovery_code", "code": codes[0]});
    ann.challenge(json!({})).await.verify(right).await.is(200);
}

/// Only wrong proofs count: a replay and a malformed code are no guess.
#[tokio::test]
async fn replays_and_malformed_codes_are_no_guesses() {
    let (ann, app) = ann().await;
    ann.challenge(json!({})).await.verify(app.now()).await.is(200);
    for _ in 0..4 {
        let challenge = ann.challenge(json!({})).await;
        for left in [4, 3, 2] {
            let replay = challenge.verify(app.now()).await.refused(422, "code_reused");
            assert_eq!(replay["attempts_left"], left, "it may cost the challenge an attempt");
            challenge.verify(json!({"type": "totp", "code": "12345"})).await.refused(422, "code_malformed");
        }
    }
    miss(&ann, &app, 9).await;
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
    ann.session(&app, json!({})).await;
}

/// nobody picks a counter by a header.
#[tokio::test]
async fn another_address_gives_no_extra_tries() {
    let (ann, app) = ann().await;
    for n in 0..10 {
        let caller = ann.bank.with("x-forwarded-for", &format!("192.0.2.{n}"));
        let challenge = ann.challenge(json!({"client": {"ip": format!("198.51.100.{n}")}})).await;
        caller.post(&challenge.path("/verify"), app.miss()).await.refused(422, "code_incorrect");
    }
    ann.challenge(json!({})).await.verify(app.now()).await.refused(429, "method_paused");
}

#[tokio::test]
async fn a_pause_survives_a_restart() {
    let (ann, app) = ann().await;
    miss(&ann, &app, 10).await;
    ann.bank.world.restart().await;
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(app.now()).await.refused(429, "method_paused");
    ann.bank.world.wait(30);
    challenge.verify(app.now()).await.is(200);
}

#[tokio::test]
async fn an_operator_can_end_a_pause() {
    let (ann, app) = ann().await;
    let world = ann.bank.world.clone();
    miss(&ann, &app, 10).await;
    world.wait(30);
    miss(&ann, &app, 1).await;
    let state = world.operator.show_user(&ann.bank.rp, "ann").await.expect("a user");
    assert_eq!(state.paused.len(), 1);
    world.operator.unlock_user(&ann.bank.rp, "ann").await.expect("it is unlocked");
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
    ann.session(&app, json!({})).await;
    // From the beginning again.
    miss(&ann, &app, 9).await;
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
}

/// An unlock also forgets what had been counted short of a pause.
#[tokio::test]
async fn an_unlock_clears_the_count_of_all_methods() {
    let (ann, app) = ann().await;
    miss(&ann, &app, 9).await;
    ann.bank.world.operator.unlock_user(&ann.bank.rp, "ann").await.expect("it is unlocked");
    miss(&ann, &app, 9).await;
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
}

/// P-17.
#[tokio::test]
async fn a_gateway_that_fails_counts_no_guess() {
    let ann = World::start().await.bank().await.user("ann");
    ann.bank.world.gateway.is(Mood::Broken);
    for n in 0..12 {
        let wish = json!({"type": "sms", "phone": format!("+141555501{n:02}")});
        ann.begin(wish).await.refused(503, "delivery_unavailable");
    }
    assert_eq!(paused(&ann).await, [] as [Value; 0]);
}
