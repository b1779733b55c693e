//! Codes that are sent as texts: what is sent, how often, and what a gateway's failure costs (api.md, 7).

use std::time::Duration;

use crate::support::database::Scratch;
use crate::support::gateway::Mood;
use crate::support::verbs::text;
use crate::support::{Challenge, Phone, User, World, at_once, json, until};

const NUMBER: &str = "+14155550123";

/// A user whose phone was enrolled long enough ago that nothing of it counts any more.
async fn ann() -> (User, Phone) {
    let ann = World::start().await.bank().await.user("ann");
    let phone = ann.enrol_phone(NUMBER).await;
    ann.bank.world.wait(86_400);
    (ann, phone)
}

/// P-12, V-04: the code first, the origin-bound line last; between them the service, and the action in the application's words.
/// Nothing of the person, of the number or of the details.
#[tokio::test]
async fn a_text_is_bound_to_the_site() {
    let (ann, phone) = ann().await;
    let person = json!({"display_name": "Jane Roe", "login_hint": "jane.roe"});
    ann.bank.put(&ann.path(""), person).await.is(200);
    let details = json!([{"label": "New IBAN", "value": "…CANARY"}]);
    let terms = json!({"action": "payout.update", "display": {"label": "Pay 250000 to Bob", "details": details}});
    let challenge = ann.challenge(terms).await;
    let sent = challenge.text().await.is(200)["sms"].clone();
    assert!(text(&sent["phone_masked"]).ends_with("23"));
    let texts = ann.bank.world.gateway.texts();
    assert_eq!(texts.len(), 2);
    for text in &texts {
        let code = text.code();
        assert!(text.text.starts_with(&code), "{}", text.text);
        assert_eq!(text.text.lines().last(), Some(format!("@bank.example #{code}").as_str()));
        assert!(text.text.contains("Bank"), "{}", text.text);
        for told in ["ann", "Jane", "Roe", "jane.roe", "New IBAN", "CANARY", "payout.update", "4155550", NUMBER] {
            assert!(!text.text.contains(told), "{told}: {}", text.text);
        }
    }
    assert!(texts[1].text.contains("pay 250000 to Bob"), "{}", texts[1].text);
    challenge.verify(phone.answer()).await.is(200);
}

/// P-04: a code counts for the challenge that it was sent for, also where both were sent one.
#[tokio::test]
async fn the_code_of_one_challenge_does_not_answer_another() {
    let (ann, phone) = ann().await;
    let (one, two) = (ann.challenge(json!({})).await, ann.challenge(json!({})).await);
    one.verify(json!({"type": "sms", "code": "123456"})).await.refused(422, "code_expired");
    one.text().await.is(200);
    let of_one = phone.answer();
    two.verify(of_one.clone()).await.refused(422, "code_expired");
    two.text().await.is(200);
    let of_two = phone.answer();
    if of_two != of_one {
        two.verify(of_one.clone()).await.refused(422, "code_incorrect");
        one.verify(of_two.clone()).await.refused(422, "code_incorrect");
    }
    one.verify(of_one).await.is(200);
    two.verify(of_two).await.is(200);
}

/// P-04: a code activates the phone that it was sent to, and answers no challenge.
#[tokio::test]
async fn the_code_of_one_phone_does_not_activate_another() {
    let (ann, phone) = ann().await;
    let (one, two) = (ann.begin_phone("+14155550124").await, ann.begin_phone("+14155550125").await);
    let challenge = ann.challenge(json!({})).await;
    challenge.text().await.is(200);
    let [of_one, of_two, of_challenge] = [&one, &two, &phone].map(Phone::code);
    for (at, other) in [(&one, &of_two), (&two, &of_one), (&one, &of_challenge)] {
        if at.code() != *other {
            ann.activate(&at.id, json!({"code": other})).await.refused(422, "code_incorrect");
        }
    }
    for other in [&of_one, &of_two] {
        if *other != of_challenge {
            challenge.verify(json!({"type": "sms", "code": other})).await.refused(422, "code_incorrect");
        }
    }
    ann.activate(&one.id, json!({"code": of_one})).await.is(200);
    ann.activate(&two.id, json!({"code": of_two})).await.is(200);
    challenge.verify(json!({"type": "sms", "code": of_challenge})).await.is(200);
}

/// P-02, P-03, A-08.
#[tokio::test]
async fn a_code_lives_ten_minutes_and_answers_once() {
    let (ann, phone) = ann().await;
    let challenge = ann.challenge(json!({})).await;
    ann.bank.world.wait(1);
    challenge.text().await.is(200);
    ann.bank.world.wait(598);
    challenge.verify(phone.answer()).await.is(200);
    challenge.verify(phone.answer()).await.refused(409, "challenge_not_pending");
    let next = ann.challenge(json!({})).await;
    next.verify(phone.answer()).await.refused(422, "code_expired");
    // Nor where the challenge would take one more answer: its first use ended the code.
    let reopen = format!("update challenges set status = 'pending', proof = null where id = '{}'", challenge.id);
    assert_eq!(ann.bank.world.scratch.execute(&reopen).await, 1);
    assert_eq!(challenge.status().await, "pending");
    challenge.verify(phone.answer()).await.refused(422, "code_expired");
}

/// The gaps of one challenge: 30, 60, 120 seconds. P-14: the fourth within ten minutes is one too many all the same.
#[tokio::test]
async fn the_gaps_between_texts_of_one_challenge_grow() {
    let (ann, _) = ann().await;
    let world = ann.bank.world.clone();
    let challenge = ann.challenge(json!({})).await;
    let limited = |wait: i64| {
        let challenge = challenge.clone();
        async move {
            let problem = challenge.text().await.refused(429, "send_limited");
            assert_eq!(problem["retry_after"], wait);
        }
    };
    challenge.text().await.is(200);
    limited(30).await;
    world.wait(29);
    limited(1).await;
    world.wait(1);
    challenge.text().await.is(200);
    limited(60).await;
    world.wait(59);
    limited(1).await;
    world.wait(1);
    challenge.text().await.is(200);
    limited(120).await;
    world.wait(120);
    // Three of this number in ten minutes: the first was 210 seconds ago.
    limited(390).await;
    assert_eq!(world.gateway.asked(), 4, "the enrolment's, and three");
}

/// P-14: whoever begins one enrolment after the other, each with another number, stops at fifty texts a day.
#[tokio::test]
async fn a_user_gets_fifty_texts_a_day_to_all_numbers_together() {
    let ann = World::start().await.bank().await.user("ann");
    let world = ann.bank.world.clone();
    let wish = |n: usize| json!({"type": "sms", "phone": format!("+1415555{:04}", 100 + n)});
    for n in 0..50 {
        let begun = ann.begin(wish(n)).await.is(201);
        ann.remove(&text(&begun["id"])).await.is(204);
    }
    let problem = ann.begin(wish(50)).await.refused(429, "send_limited");
    let seconds = problem["retry_after"].as_i64().expect("a number");
    assert!((1..=86_400).contains(&seconds), "{seconds}");
    assert_eq!(world.gateway.asked(), 50, "the gateway is not asked");
    ann.bank.user("bob").begin(wish(50)).await.is(201);
    world.wait(seconds);
    ann.begin(wish(51)).await.is(201);
}

#[tokio::test]
async fn the_gaps_between_texts_of_one_enrolment_grow_too() {
    let ann = World::start().await.bank().await.user("ann");
    let world = ann.bank.world.clone();
    let phone = ann.begin_phone(NUMBER).await;
    let resend = ann.path(&format!("/factors/{}/resend", phone.id));
    for (gap, next) in [(30, 60), (60, 120)] {
        world.wait(gap - 1);
        assert_eq!(ann.bank.ask(&resend).await.refused(429, "send_limited")["retry_after"], 1);
        world.wait(1);
        ann.bank.ask(&resend).await.is(200);
        assert_eq!(ann.bank.ask(&resend).await.refused(429, "send_limited")["retry_after"], next);
    }
    world.wait(120);
    assert_eq!(ann.bank.ask(&resend).await.refused(429, "send_limited")["retry_after"], 390);
    world.wait(390);
    ann.bank.ask(&resend).await.is(200);
    ann.activate(&phone.id, json!({"code": phone.code()})).await.is(200);
}

/// P-14, P-15: three to a number in ten minutes, whichever user asked and by whichever call.
#[tokio::test]
async fn a_number_gets_three_texts_in_ten_minutes_whoever_asks() {
    let bank = World::start().await.bank().await;
    let world = bank.world.clone();
    for user in ["a", "b", "c"] {
        bank.user(user).begin_phone(NUMBER).await;
        world.wait(1);
    }
    let fourth = bank.user("d").begin(json!({"type": "sms", "phone": NUMBER})).await;
    assert_eq!(fourth.header("retry-after"), Some("597"));
    fourth.refused(429, "send_limited");
    assert_eq!(bank.user("d").factors().await.len(), 0, "what was not sent was not begun");
    bank.user("d").begin_phone("+14155550124").await;
    world.wait(596);
    bank.user("d").begin(json!({"type": "sms", "phone": NUMBER})).await.refused(429, "send_limited");
    world.wait(1);
    bank.user("d").begin_phone(NUMBER).await;
    assert_eq!(world.gateway.asked(), 5);
}

/// P-14.
#[tokio::test]
async fn a_number_gets_ten_texts_in_a_day() {
    let (ann, _) = ann().await;
    let world = ann.bank.world.clone();
    for _ in 0..10 {
        ann.challenge(json!({})).await.text().await.is(200);
        world.wait(601);
    }
    let problem = ann.challenge(json!({})).await.text().await.refused(429, "send_limited");
    assert_eq!(problem["retry_after"], 86_400 - 6_010);
    world.wait(86_400 - 6_010 - 1);
    ann.challenge(json!({})).await.text().await.refused(429, "send_limited");
    world.wait(1);
    ann.challenge(json!({})).await.text().await.is(200);
}

#[tokio::test]
async fn a_user_has_three_pending_phones_at_most() {
    let ann = World::start().await.bank().await.user("ann");
    let number = |n: usize| format!("+1415555010{n}");
    let first = ann.begin_phone(&number(0)).await;
    ann.begin_phone(&number(1)).await;
    ann.begin_phone(&number(2)).await;
    ann.begin(json!({"type": "sms", "phone": number(3)})).await.refused(429, "send_limited");
    ann.bank.user("bob").begin_phone(&number(4)).await;
    ann.activate(&first.id, json!({"code": first.code()})).await.is(200);
    ann.begin_phone(&number(6)).await;
    ann.begin(json!({"type": "sms", "phone": number(7)})).await.refused(429, "send_limited");
    ann.bank.world.wait(900);
    ann.begin_phone(&number(7)).await;
}

/// also at once.
#[tokio::test]
async fn three_pending_phones_are_three_also_at_once() {
    let ann = World::start().await.bank().await.user("ann");
    let answers = at_once(20, |n| {
        let ann = ann.clone();
        async move { ann.begin(json!({"type": "sms", "phone": format!("+141555501{n:02}")})).await.status }
    })
    .await;
    assert_eq!(answers.iter().filter(|s| **s == 201).count(), 3, "{answers:?}");
    assert_eq!(ann.factors().await.len(), 3);
    assert_eq!(ann.bank.world.gateway.asked(), 3);
}

/// V-05: whoever is erased while a text is on its way comes back by no event of it.
#[tokio::test]
async fn somebody_who_is_erased_while_a_text_is_on_its_way_stays_erased() {
    let world = World::start().await;
    let bank = world.bank().await;
    for mood in [Mood::Well, Mood::Broken] {
        let ann = bank.user(&format!("ann-{mood:?}"));
        world.gateway.is(Mood::Hanging);
        let asked = world.gateway.asked();
        let begun = tokio::spawn({
            let ann = ann.clone();
            async move { ann.begin(json!({"type": "sms", "phone": "+14155550123"})).await }
        });
        until(|| world.gateway.asked() > asked).await;
        ann.bank.delete(&ann.path("")).await.is(204);
        world.gateway.is(mood);
        let answer = begun.await.expect("no panic");
        assert_eq!(answer.status, if mood == Mood::Well { 404 } else { 503 }, "{}", answer.body);
        let named = format!("select kind from events where user_id = '{}'", ann.id);
        assert_eq!(world.scratch.texts(&named).await, [""; 0], "{mood:?}");
    }
}

/// P-14: caps of a relying party and of a country, a UTC day.
#[tokio::test]
async fn a_country_and_a_relying_party_have_caps_a_day() {
    let world = World::start_with(|c| {
        c.sms.country_day = Some(2);
        c.sms.relying_party_day = Some(3);
    })
    .await;
    let bank = world.bank().await;
    bank.user("a").begin_phone("+14155550101").await;
    bank.user("b").begin_phone("+14155550102").await;
    bank.user("c").begin(json!({"type": "sms", "phone": "+14155550103"})).await.refused(429, "send_limited");
    bank.user("c").begin_phone("+4915112345678").await;
    bank.user("d").begin(json!({"type": "sms", "phone": "+4915112345679"})).await.refused(429, "send_limited");
    world.party("Shop", "shop.example", false).await.user("d").begin_phone("+14155550104").await;
    world.wait(86_400);
    bank.user("d").begin_phone("+14155550103").await;
    // A number that no country's plan knows draws on what the main country of its calling code has.
    let shop = world.party("Kiosk", "kiosk.example", false).await;
    let unplanned = shop.user("a").begin(json!({"type": "sms", "phone": "+396123450"})).await.is(201);
    assert_eq!(unplanned["sms"]["country"], json!(null));
    shop.user("b").begin_phone("+390612345670").await;
    for more in ["+396123451", "+390612345671"] {
        shop.user("c").begin(json!({"type": "sms", "phone": more})).await.refused(429, "send_limited");
    }
}

/// P-05, P-06, X-07: a resend makes a new code, kills the old one, and resets nothing.
#[tokio::test]
async fn a_resend_resets_neither_attempts_nor_the_throttle() {
    let (ann, phone) = ann().await;
    let world = ann.bank.world.clone();
    let challenge = ann.challenge(json!({})).await;
    challenge.text().await.is(200);
    let old = phone.answer();
    for left in [4, 3] {
        assert_eq!(challenge.verify(phone.miss()).await.refused(422, "code_incorrect")["attempts_left"], left);
    }
    world.wait(30);
    challenge.text().await.is(200);
    if phone.answer() != old {
        assert_eq!(challenge.verify(old).await.refused(422, "code_incorrect")["attempts_left"], 2);
    } else {
        challenge.verify(phone.miss()).await.refused(422, "code_incorrect");
    }
    challenge.verify(phone.miss()).await.refused(422, "code_incorrect");
    assert_eq!(challenge.verify(phone.miss()).await.refused(422, "code_incorrect")["attempts_left"], 0);
    // Five wrong so far; five more in another challenge pause the method.
    world.wait(600);
    let next = ann.challenge(json!({})).await;
    next.text().await.is(200);
    for _ in 0..5 {
        next.verify(phone.miss()).await.refused(422, "code_incorrect");
    }
    let paused = ann.shown().await["paused"].clone();
    assert_eq!(paused[0]["method"], "sms");
}

/// P-17: a failing gateway charges nothing, neither gap nor budget, and leaves the earlier code.
#[tokio::test]
async fn a_gateway_that_fails_charges_nothing() {
    let (ann, phone) = ann().await;
    let world = ann.bank.world.clone();
    let challenge = ann.challenge(json!({})).await;
    challenge.text().await.is(200);
    let earlier = phone.answer();
    world.wait(30);
    world.gateway.is(Mood::Broken);
    for _ in 0..6 {
        let problem = challenge.text().await;
        assert!(problem.header("retry-after").is_some());
        let problem = problem.refused(503, "delivery_unavailable");
        assert_eq!(problem["attempts_left"], 5);
    }
    world.gateway.is(Mood::Well);
    let other = ann.challenge(json!({})).await;
    other.text().await.is(200);
    challenge.verify(earlier).await.is(200);
    ann.challenge(json!({})).await.text().await.is(200);
    ann.challenge(json!({})).await.text().await.refused(429, "send_limited");
}

/// P-17: an answer within ten seconds, nothing charged, and nobody else waits.
#[tokio::test]
async fn a_gateway_that_hangs_blocks_nobody_else() {
    let (ann, phone) = ann().await;
    let world = ann.bank.world.clone();
    let bob = ann.bank.user("bob");
    let app = bob.enrol_totp().await;
    world.gateway.is(Mood::Hanging);
    let challenge = ann.challenge(json!({})).await;
    // On a slow machine what the others do may take these ten seconds by itself, once.
    for turn in 0.. {
        let asked = world.gateway.asked();
        let hanging = tokio::spawn({
            let challenge = challenge.clone();
            async move { challenge.text().await }
        });
        until(|| world.gateway.asked() > asked).await;
        bob.session(&app, json!({})).await;
        bob.enrol_passkey().await;
        ann.shown().await;
        assert_eq!(challenge.status().await, "pending");
        let are_first = !hanging.is_finished();
        let answer = tokio::time::timeout(Duration::from_secs(20), hanging).await.expect("in time");
        answer.expect("no panic").refused(503, "delivery_unavailable");
        if are_first {
            break;
        }
        assert!(turn < 3, "the others wait");
    }
    world.gateway.is(Mood::Well);
    challenge.text().await.is(200);
    challenge.verify(phone.answer()).await.is(200);
}

/// Asks for a text, and does not wait for the answer.
async fn hangs_up(challenge: &Challenge) {
    let gateway = &challenge.bank.world.gateway;
    let asked = gateway.asked();
    let call = tokio::spawn({
        let challenge = challenge.clone();
        async move { challenge.text().await }
    });
    until(|| gateway.asked() > asked).await;
    call.abort();
}

/// A text whose caller hung up is waited for when the engine is told to end: its code counts afterwards.
#[tokio::test]
async fn a_text_that_is_on_its_way_is_waited_for_at_the_end() {
    let world = World::process(Scratch::sqlite(), &[]).await;
    let ann = world.bank().await.user("ann");
    let phone = ann.enrol_phone("+14155550123").await;
    world.wait(60);
    let challenge = ann.challenge(json!({})).await;
    world.gateway.is(Mood::Slow(6000));
    hangs_up(&challenge).await;
    assert_eq!((world.gateway.asked(), world.gateway.texts().len()), (2, 1), "the gateway was asked and thinks");
    let serve = world.take_process();
    let (status, _) = tokio::task::spawn_blocking(move || serve.terminate()).await.expect("no panic");
    assert_eq!((status, world.gateway.texts().len()), (Some(0), 2));
    world.close_store().await;
    world.gateway.is(Mood::Well);
    world.start_again().await;
    challenge.verify(phone.answer()).await.is(200);
}

/// A caller that hangs up while the gateway is slow leaves nothing half done: the code that arrives is the one that counts.
#[tokio::test]
async fn a_caller_that_hangs_up_leaves_nothing_half_done() {
    let (ann, phone) = ann().await;
    let world = ann.bank.world.clone();
    let challenge = ann.challenge(json!({})).await;
    world.gateway.is(Mood::Slow(300));
    hangs_up(&challenge).await;
    until(|| world.gateway.texts().len() == 2).await;
    // The code counts when its text is on record.
    while world.scratch.number("select count(*) from events where kind = 'message.sent'").await < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    challenge.verify(phone.answer()).await.is(200);
}

/// A slow gateway is no reason to forget the code.
#[tokio::test]
async fn a_slow_gateway_delivers() {
    let (ann, phone) = ann().await;
    ann.bank.world.gateway.is(Mood::Slow(200));
    let challenge = ann.challenge(json!({})).await;
    challenge.text().await.is(200);
    challenge.verify(phone.answer()).await.is(200);
}

#[tokio::test]
async fn a_challenge_may_name_the_phone() {
    let (ann, one) = ann().await;
    let two = ann.enrol_phone("+14155550124").await;
    let challenge = ann.challenge(json!({})).await;
    challenge.prepare(json!({"type": "sms", "factor_id": one.id})).await.is(200);
    assert_eq!(ann.bank.world.gateway.texts().last().map(|t| t.to.clone()).as_deref(), Some(NUMBER));
    let by_two = json!({"type": "sms", "code": one.code(), "factor_id": two.id});
    let refused = challenge.verify(by_two).await;
    assert!(refused.status == 422, "{}", refused.body);
    challenge.verify(json!({"type": "sms", "code": one.code(), "factor_id": one.id})).await.is(200);
    let other = json!({"type": "sms", "factor_id": "fac_00000000000070008000000000000000"});
    ann.challenge(json!({})).await.prepare(other).await.refused(422, "method_not_allowed");
    ann.challenge(json!({})).await.prepare(json!({"type": "sms", "factor_id": "x"})).await.invalid("factor_id");
    ann.challenge(json!({})).await.prepare(json!({"type": "recovery_code"})).await.refused(422, "method_not_allowed");
}
