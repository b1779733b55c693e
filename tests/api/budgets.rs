//! Guess budgets that hold over months and that nobody can turn on the owner (issue 4.1; api.md, 7), under a moved clock.

use crate::support::child::IDLE;
use crate::support::verbs::text;
use crate::support::{Answer, App, User, Value, World, ann_with_app as ann, json};

const DAY: i64 = 86_400;

/// A code that none of these apps shows near the present.
fn wrong(apps: &[App]) -> Value {
    let near: Vec<_> = apps.iter().flat_map(|app| (-3..=3).map(|n| app.code_in(n))).collect();
    let code = (0..).map(|n| format!("{n:06}")).find(|c| !near.contains(c)).expect("most codes are wrong");
    json!({"type": "totp", "code": code})
}

/// An answer with the call that creates the challenge, from a device of this name, or from nobody that is known.
async fn try_from(user: &User, device: Option<&str>, answer: Value) -> Answer {
    let terms = match device {
        Some(device) => json!({"answer": answer, "client": {"device": device}}),
        None => json!({"answer": answer}),
    };
    user.ask(terms).await
}

/// As many wrong codes as get a verdict just now, with right ones between them so that no pause begins.
async fn spend(user: &User, device: Option<&str>, apps: &[App]) -> usize {
    for n in 0..100 {
        if n % 5 == 4 {
            try_from(user, device, apps[0].answer()).await.is(200);
        }
        let answer = try_from(user, device, wrong(apps)).await;
        if answer.code() == "method_paused" {
            return n;
        }
        answer.refused(422, "code_incorrect");
    }
    panic!("the bucket is never empty")
}

/// Ten wrong codes of a stranger.
async fn pause(user: &User, app: &App) {
    for _ in 0..10 {
        try_from(user, None, app.miss()).await.refused(422, "code_incorrect");
    }
    try_from(user, None, app.now()).await.refused(429, "method_paused");
}

/// A stranger who is as patient as can be, until waiting does not help; gives the number of verdicts.
async fn hold(user: &User, app: &App) -> usize {
    for n in 0.. {
        let answer = try_from(user, None, app.miss()).await;
        if answer.code() == "code_incorrect" {
            assert!(n < 1000, "there is no hold");
            continue;
        }
        let problem = answer.refused(429, "method_paused");
        let verdicts = n;
        if problem["retry_after"] == DAY {
            return verdicts;
        }
        user.bank.world.wait(problem["retry_after"].as_i64().expect("a number"));
        return verdicts + Box::pin(hold(user, app)).await;
    }
    unreachable!("it ends")
}

/// whoever is patient, and is helped by the owner's successes, gets 50 verdicts in the worst 24 hours.
#[tokio::test]
async fn fifty_wrong_codes_get_a_verdict_in_the_worst_day_and_not_one_more() {
    let (ann, app) = ann().await;
    let world = ann.bank.world.clone();
    let mut times = Vec::new();
    while times.len() < 80 {
        if times.len() % 5 == 4 {
            // The owner's success clears the pause, and fills nothing.
            let answer = try_from(&ann, None, app.answer()).await;
            if answer.code() == "method_paused" {
                world.wait(answer["retry_after"].as_i64().expect("a number"));
            }
        }
        let answer = try_from(&ann, None, app.miss()).await;
        match answer.code() {
            "code_incorrect" => times.push(world.now()),
            _ => world.wait(answer.refused(429, "method_paused")["retry_after"].as_i64().expect("a number")),
        }
    }
    let within = |first: &i64| times.iter().filter(|t| (*first..=first + DAY).contains(*t)).count();
    let worst = times.iter().map(within).max().expect("some");
    assert!((48..=50).contains(&worst), "{worst}");
}

/// a day brings 25 back, and never more than 25 wait.
#[tokio::test]
async fn a_day_brings_twenty_five_back() {
    let (ann, app) = ann().await;
    let apps = [app];
    assert_eq!(spend(&ann, None, &apps).await, 25);
    ann.bank.world.wait(DAY / 5);
    assert_eq!(spend(&ann, None, &apps).await, 5);
    ann.bank.world.wait(10 * DAY);
    assert_eq!(spend(&ann, None, &apps).await, 25);
}

/// P-07, X-05: the bucket is one for apps and texts together.
#[tokio::test]
async fn texts_and_apps_draw_on_one_bucket() {
    let (ann, app) = ann().await;
    let phone = ann.enrol_phone("+14155550123").await;
    let apps = [app];
    assert_eq!(spend(&ann, None, &apps).await, 25);
    let challenge = ann.challenge(json!({})).await;
    ann.bank.world.wait(60);
    challenge.text().await.is(200);
    challenge.verify(phone.miss()).await.refused(429, "method_paused");
    challenge.verify(phone.answer()).await.refused(429, "method_paused");
}

/// with n apps a guess is right n times as often, so a wrong one costs n tokens.
#[tokio::test]
async fn with_more_apps_a_wrong_code_costs_as_many_tokens() {
    let (ann, app) = ann().await;
    let mut apps = vec![app];
    for verdicts in [25, 12, 8, 6, 5] {
        assert_eq!(spend(&ann, None, &apps).await, verdicts, "{} apps", apps.len());
        ann.bank.world.wait(DAY);
        if apps.len() < 5 {
            apps.push(ann.enrol_totp().await);
        }
    }
    // An app that is gone costs nothing.
    for app in apps.split_off(1) {
        ann.remove(&app.id).await.is(204);
    }
    assert_eq!(spend(&ann, None, &apps).await, 25);
}

/// after a hundred wrong codes waiting does not help; each of the three ways out does.
#[tokio::test]
async fn a_hold_begins_at_a_hundred_and_has_three_ways_out() {
    let (ann, app) = ann().await;
    let world = ann.bank.world.clone();
    let mut passkey = ann.enrol_passkey().await;
    assert_eq!(hold(&ann, &app).await, 100);
    world.wait(30 * DAY);
    let challenge = ann.challenge(json!({})).await;
    let problem = challenge.verify(app.now()).await.refused(429, "method_paused");
    assert_eq!((&problem["retry_after"], &problem["attempts_left"]), (&json!(DAY), &json!(5)));
    assert_eq!(ann.shown().await["paused"][0]["method"], "totp");
    // Another of the user's factors.
    let answer = passkey.answer(&challenge).await;
    challenge.verify(answer).await.is(200);
    ann.session(&app, json!({})).await;
    // A support unlock.
    assert_eq!(hold(&ann, &app).await, 100, "and it counts from the beginning");
    world.operator.unlock_user(&ann.bank.rp, "ann").await.expect("it is unlocked");
    ann.session(&app, json!({})).await;
    // A reset.
    assert_eq!(hold(&ann, &app).await, 100);
    world.operator.reset_user(&ann.bank.rp, "ann").await.expect("it is reset");
    assert_eq!(ann.factors().await, [] as [Value; 0]);
    let app = ann.enrol_totp().await;
    ann.session(&app, json!({})).await;
}

/// another factor ends the hold of strangers also where it is proved on a device whose own lane counts nothing.
#[tokio::test]
async fn a_passkey_on_a_known_device_ends_the_hold_of_strangers() {
    let (ann, app) = ann().await;
    let mut passkey = ann.enrol_passkey().await;
    let home = Some("home");
    try_from(&ann, home, app.answer()).await.is(200);
    hold(&ann, &app).await;
    ann.bank.world.wait(DAY);
    // Just now, so that the device has nothing else to write.
    try_from(&ann, home, app.answer()).await.is(200);
    let problem = try_from(&ann, None, app.answer()).await.refused(429, "method_paused");
    assert_eq!(problem["retry_after"], DAY);
    let challenge = ann.challenge(json!({"client": {"device": "home"}})).await;
    let answer = passkey.answer(&challenge).await;
    challenge.verify(answer).await.is(200);
    try_from(&ann, None, app.answer()).await.is(200);
}

/// a hold is ended by another factor, which an empty bucket keeps from nothing; the daily budget by the day alone.
#[tokio::test]
async fn the_success_of_another_factor_fills_no_bucket() {
    let (ann, app) = ann().await;
    let mut passkey = ann.enrol_passkey().await;
    let codes = ann.recovery_codes().await;
    assert_eq!(spend(&ann, None, std::slice::from_ref(&app)).await, 25);
    let challenge = ann.challenge(json!({})).await;
    let answer = passkey.answer(&challenge).await;
    challenge.verify(answer).await.is(200);
    try_from(&ann, None, json!({"type": "recovery_code", "code": codes[0]})).await.is(200);
    let wait = &try_from(&ann, None, app.now()).await.refused(429, "method_paused")["retry_after"];
    assert!((1..=DAY / 25).contains(&wait.as_i64().expect("a number")), "{wait}");
}

/// Whoever has only the password can pause strangers, and not the owner (server calls).
#[tokio::test]
async fn strangers_cannot_close_a_device_that_passed() {
    let (ann, app) = ann().await;
    let home = Some("home");
    try_from(&ann, home, app.answer()).await.is(200);
    pause(&ann, &app).await;
    try_from(&ann, Some("elsewhere"), app.now()).await.refused(429, "method_paused");
    try_from(&ann, home, app.answer()).await.is(200);
    hold(&ann, &app).await;
    try_from(&ann, home, app.answer()).await.is(200);
    let challenge = ann.challenge(json!({"client": {"device": "home"}})).await;
    assert!(challenge.body["methods"][0].get("paused_until").is_none(), "{}", challenge.body);
    challenge.verify(app.answer()).await.is(200);
    // The same method is no other factor: strangers stay on hold.
    try_from(&ann, None, app.answer()).await.refused(429, "method_paused");
    // Of that name, another user's device is a stranger.
    let bob = ann.bank.user("bob");
    let theirs = bob.enrol_totp().await;
    pause(&bob, &theirs).await;
    try_from(&bob, home, theirs.now()).await.refused(429, "method_paused");
}

/// A known device draws on a budget of its own, and not on that of strangers.
#[tokio::test]
async fn a_known_device_has_a_budget_of_its_own() {
    let (ann, app) = ann().await;
    let apps = [app];
    try_from(&ann, Some("home"), apps[0].answer()).await.is(200);
    assert_eq!(spend(&ann, Some("home"), &apps).await, 25);
    try_from(&ann, Some("home"), apps[0].answer()).await.refused(429, "method_paused");
    assert_eq!(spend(&ann, None, &apps).await, 25);
}

#[tokio::test]
async fn a_device_is_forgotten_after_180_days() {
    let (ann, app) = ann().await;
    let world = ann.bank.world.clone();
    try_from(&ann, Some("home"), app.answer()).await.is(200);
    world.wait(180 * DAY - 1);
    pause(&ann, &app).await;
    try_from(&ann, Some("home"), app.miss()).await.refused(422, "code_incorrect");
    world.wait(1);
    try_from(&ann, Some("home"), app.now()).await.refused(429, "method_paused");
}

/// Also where nothing is counted that its successes could end.
#[tokio::test]
async fn a_device_that_is_used_with_a_passkey_alone_stays_known() {
    let (ann, app) = ann().await;
    let mut passkey = ann.enrol_passkey().await;
    for _ in 0..2 {
        let challenge = ann.challenge(json!({"client": {"device": "home"}})).await;
        let answer = passkey.answer(&challenge).await;
        challenge.verify(answer).await.is(200);
        ann.bank.world.wait(100 * DAY);
        while ann.bank.world.engine().purge().await.expect("it purges") > 0 {}
    }
    pause(&ann, &app).await;
    try_from(&ann, Some("home"), app.miss()).await.refused(422, "code_incorrect");
}

#[tokio::test]
async fn the_eleventh_device_takes_the_place_of_the_one_unused_for_longest() {
    let (ann, app) = ann().await;
    let names: Vec<_> = (0..11).map(|n| format!("device {n}")).collect();
    for name in &names[..10] {
        try_from(&ann, Some(name), app.answer()).await.is(200);
    }
    // The first is used again, a day later: now the second is the oldest.
    ann.bank.world.wait(DAY);
    try_from(&ann, Some(&names[0]), app.answer()).await.is(200);
    try_from(&ann, Some(&names[10]), app.answer()).await.is(200);
    pause(&ann, &app).await;
    for (n, name) in names.iter().enumerate() {
        let answer = try_from(&ann, Some(name), app.miss()).await;
        assert_eq!(answer.code(), if n == 1 { "method_paused" } else { "code_incorrect" }, "{name}");
    }
    let state = ann.bank.world.operator.show_user(&ann.bank.rp, "ann").await.expect("a user");
    assert_eq!(state.devices, 10);
}

/// Unlike a code, the name of a device is no secret of the engine's: it is kept nowhere as it was sent.
#[tokio::test]
async fn the_name_of_a_device_is_not_kept() {
    let (ann, app) = ann().await;
    try_from(&ann, Some("canary-of-a-device"), app.answer()).await.is(200);
    ann.challenge(json!({"client": {"device": "canary-of-a-device"}})).await;
    for query in [
        "select lane || state from throttle_lanes",
        "select terms from challenges",
        "select coalesce(terms, '') from sessions",
        "select coalesce(client, '') from events",
    ] {
        for text in ann.bank.world.scratch.texts(query).await {
            assert!(!text.contains("canary"), "{query}: {text}");
        }
    }
}

// --- the hosted page ---

/// A browser without scripts at the engine's own pages.
struct Browser {
    client: reqwest::Client,
    user: User,
}

impl Browser {
    fn new(user: &User) -> Browser {
        let client = reqwest::Client::builder().tls_certs_only([]).cookie_store(true).pool_idle_timeout(IDLE);
        let client = client.build().expect("a client");
        Browser { client, user: user.clone() }
    }

    /// Opens a new challenge's link and answers it on its page; gives the status of what is shown then.
    async fn answer(&self, code: impl Fn() -> String) -> u16 {
        let challenge = self.user.challenge(json!({})).await;
        let url: url::Url = text(&challenge.body["url"]).parse().expect("an address");
        let (_, token) = url.query_pairs().find(|(name, _)| name == "token").expect("a link token");
        let here = self.user.bank.world.url(url.path());
        let landing = self.client.get(format!("{here}?{}", url.query().unwrap_or_default())).send().await;
        assert_eq!(landing.expect("an answer").status(), 200);
        let page = self.client.post(&here).form(&[("token", token.as_ref())]).send().await.expect("an answer");
        let page = page.text().await.expect("a page");
        let guard = page.split("name=\"guard\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        let code = code();
        let form = [("guard", guard.expect("a guard")), ("do", "answer"), ("method", "totp"), ("code", code.as_str())];
        let shown = self.client.post(&here).form(&form).send().await.expect("an answer").status().as_u16();
        assert_eq!(challenge.status().await == "approved", shown == 200);
        shown
    }
}

/// the browser in which the owner passed stays open while strangers are paused, and on hold. What its page judges counts too.
#[tokio::test]
async fn strangers_cannot_close_the_owners_browser() {
    let (ann, app) = ann().await;
    let world = ann.bank.world.clone();
    let (home, elsewhere) = (Browser::new(&ann), Browser::new(&ann));
    let right = || {
        world.wait(30);
        app.code()
    };
    assert_eq!(home.answer(right).await, 200);
    pause(&ann, &app).await;
    assert_eq!(elsewhere.answer(|| app.code()).await, 429);
    assert_eq!(home.answer(right).await, 200);
    hold(&ann, &app).await;
    assert_eq!(elsewhere.answer(right).await, 429);
    assert_eq!(home.answer(right).await, 200);
    // It has ten tries of its own before it is paused itself.
    for _ in 0..10 {
        assert_eq!(home.answer(|| app.wrong()).await, 422);
    }
    assert_eq!(home.answer(|| app.code()).await, 429);
}

// --- every path ---

/// X-09, 3.2: what guards a removal, an addition or a new set of recovery codes draws on the same budget as a login.
#[tokio::test]
async fn the_step_ups_for_removal_and_recovery_count_with_logins() {
    let (ann, app) = ann().await;
    ann.recovery_codes().await;
    for action in ["factor.remove", "factor.manage", "factor.add", "login", "payout.update"] {
        let challenge = ann.challenge(json!({"action": action})).await;
        challenge.verify(app.miss()).await.refused(422, "code_incorrect");
        challenge.browser().post(&challenge.path("/verify"), app.miss()).await.refused(422, "code_incorrect");
    }
    for action in ["factor.remove", "factor.manage", "factor.add", "login", "payout.update"] {
        let challenge = ann.challenge(json!({"action": action})).await;
        challenge.verify(app.now()).await.refused(429, "method_paused");
    }
}

/// R-07, 3.8: a challenge takes five answers, and a wrong code spends no right one; more is not needed against 80 bits.
#[tokio::test]
async fn wrong_recovery_codes_end_their_challenge_and_spend_nothing() {
    let (ann, _) = ann().await;
    let codes = ann.recovery_codes().await;
    let wrong = json!({"type": "recovery_code", "code": "0000-0000-0000-0000"});
    let challenge = ann.challenge(json!({})).await;
    for _ in 0..5 {
        challenge.verify(wrong.clone()).await.refused(422, "code_incorrect");
    }
    challenge.verify(json!({"type": "recovery_code", "code": codes[0]})).await.refused(409, "challenge_not_pending");
    assert_eq!(ann.shown().await["recovery_codes"]["remaining"], 10);
}

// --- the cool-off ---

/// Issue 4.5: a new factor does not count for `phr` until it has cooled off; what is proved with it until then is less.
#[tokio::test]
async fn a_new_factor_does_not_count_as_phishing_resistant_until_it_has_cooled_off() {
    let ann = World::start_with(|config| config.factor_cool_off = DAY).await.bank().await.user("ann");
    let world = ann.bank.world.clone();
    let mut old = ann.enrol_passkey().await;
    let strong = json!({"require": {"acr": "phr"}});
    assert_eq!(ann.ask(strong.clone()).await.is(200)["status"], "enrolment_required");
    assert_eq!(ann.shown().await["highest_acr"], "aal2");
    let challenge = ann.challenge(json!({})).await;
    let answer = old.answer(&challenge).await;
    let weak = challenge.verify(answer).await.is(200)["session"].clone();
    assert_eq!(weak["acr"], "aal2");
    world.wait(DAY - 1);
    assert_eq!(ann.ask(strong.clone()).await.is(200)["status"], "enrolment_required");
    world.wait(1);
    assert_eq!(ann.shown().await["highest_acr"], "phr");
    let challenge = ann.challenge(strong.clone()).await;
    let answer = old.answer(&challenge).await;
    assert_eq!(challenge.verify(answer).await.is(200)["session"]["acr"], "phr");

    // Beside an old one a new one is neither offered nor taken, and changes nothing of the portal's demand.
    let mut new = ann.enrol_passkey().await;
    let challenge = ann.challenge(strong.clone()).await;
    let offered = challenge.body["methods"].as_array().expect("a list");
    assert_eq!(offered.iter().map(|m| &m["factor_id"]).collect::<Vec<_>>(), [&json!(old.id)]);
    let options = challenge.request_options().await;
    assert_eq!(options["allowCredentials"].as_array().expect("a list").len(), 1);
    let mut both = options.clone();
    both["allowCredentials"] = json!([]);
    let credential = new.device.get(&both).expect("the browser has no objection");
    let refused = challenge.verify(json!({"type": "webauthn", "credential": credential})).await;
    refused.refused(422, "credential_unknown");
    let challenge = ann.challenge(json!({})).await;
    let answer = new.answer(&challenge).await;
    let weak = challenge.verify(answer).await.is(200)["session"].clone();
    let browser = ann.browser(Some(&weak["token"])).await;
    browser.delete(&ann.path(&format!("/factors/{}", old.id))).await.refused(403, "step_up_required");
    world.wait(DAY);
    assert_eq!(ann.challenge(strong).await.body["methods"].as_array().expect("a list").len(), 2);
}

#[tokio::test]
async fn without_the_setting_a_new_factor_counts_at_once() {
    let ann = World::start().await.bank().await.user("ann");
    let mut passkey = ann.enrol_passkey().await;
    let challenge = ann.challenge(json!({"require": {"acr": "phr"}})).await;
    let answer = passkey.answer(&challenge).await;
    assert_eq!(challenge.verify(answer).await.is(200)["session"]["acr"], "phr");
}
