//! Challenges answered by codes, without any script.

use countersign::clock::Clock;
use reqwest::StatusCode;
use serde_json::json;

use crate::visitor::Visitor;
use crate::world::{World, gateway};

/// P-13, Y-01, Y-02.
#[tokio::test]
async fn codes_are_taken_as_people_paste_them() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let wide = |code: &str| code.chars().map(|c| char::from_u32(c as u32 + 0xfee0).expect("a wide digit")).collect();
    let forms: [&dyn Fn(&str) -> String; 4] =
        [&|code| format!("{} {}", &code[..3], &code[3..]), &wide, &|code| format!("#{code}"), &|code| {
            format!(" {}-{} ", &code[..2], &code[2..])
        }];
    for form in forms {
        world.clock.advance(30);
        let (id, url) = world.challenge("u", "payout").await;
        let visitor = Visitor::new(&world.base);
        let page = visitor.open(&url).await;
        assert!(page.html.contains("inputmode=\"numeric\" autocomplete=\"one-time-code\""), "{}", page.html);
        assert!(!page.html.contains("maxlength"), "{}", page.html);
        let typed = form(&world.code(&secret));
        let done = visitor.send(&page, "Confirm", &[("code", &typed)]).await;
        done.says("Thanks, it's you").says("Taking you back to Harbour Bank");
        let target = done.link("Continue");
        assert_eq!(done.refresh().as_deref(), Some(target.as_str()));
        let (address, query) = target.split_once('?').expect("a query");
        assert_eq!(Some(address), world.back.split('?').next());
        assert!(query.starts_with("from=pages&code="), "{query}");
        assert_eq!(world.exchange(&id, query).await["amr"], json!(["otp"]), "{typed}");
    }
}

/// S-04: what was proven is exchanged within ten minutes, or as soon as was demanded, and not from then on, however often its page is
/// looked at. The way back has a minute in any case.
#[tokio::test]
async fn what_was_proven_long_ago_is_not_brought_back() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let visitor = Visitor::new(&world.base);
    for (require, seconds) in [
        (json!({}), 600),
        (json!({"max_age": 86_400}), 600),
        (json!({"max_age": 120}), 120),
        (json!({"max_age": 5}), 60),
    ] {
        let (id, url) = world.challenge_with("u", "payout", require).await;
        let page = visitor.open(&url).await;
        let done = visitor.send(&page, "Confirm", &[("code", &world.code(&secret))]).await;
        done.says("Thanks, it's you");
        world.clock.advance(seconds - 1);
        let again = visitor.go(&done.path).await;
        let late = again.says("Thanks, it's you").link("Continue");
        world.clock.advance(1);
        let over = visitor.go(&done.path).await;
        assert!(!over.html.contains("code="), "{}", over.html);
        over.says("You've already confirmed");
        let (_, query) = late.split_once('?').expect("a query");
        assert_eq!(world.exchange(&id, query).await, json!(null), "a challenge that ran out");
    }
    // What was answered at the last moment has the life of its code.
    world.clock.advance(30);
    let (id, url) = world.challenge("u", "payout").await;
    let page = visitor.open(&url).await;
    world.clock.advance(590);
    let done = visitor.send(&page, "Confirm", &[("code", &world.code(&secret))]).await;
    let target = done.link("Continue");
    world.clock.advance(59);
    let (_, query) = target.split_once('?').expect("a query");
    assert_eq!(world.exchange(&id, query).await["action"], "payout");
}

/// Y-04, Y-10.
#[tokio::test]
async fn a_refused_code_says_what_happened_and_what_to_do() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let (_, url) = world.challenge("u", "login").await;
    let visitor = Visitor::new(&world.base);
    let mut page = visitor.open(&url).await;
    page.says("6-digit code").says("Open the entry for Harbour Bank. It has 6 digits.");
    page.says("the file harbourbank-recovery-codes.txt in your downloads");
    let wrong = if world.code(&secret) == "000000" { "000001" } else { "000000" };
    for (typed, words) in [
        ("12345", vec!["The code has 6 digits. You entered 5."]),
        ("12345x", vec!["Use only the 6 digits."]),
        ("", vec!["Enter the code."]),
        (wrong, vec!["That code didn't match. Check it's the entry for Harbour Bank, and wait for the next code."]),
        (wrong, vec!["turn on automatic date and time on your phone", "3 tries left"]),
    ] {
        page = visitor.send(&page, "Confirm", &[("code", typed)]).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(page.title(), "Error: Confirm it's you – Harbour Bank");
        for words in words {
            page.says(words);
        }
        assert!(page.html.contains(&format!("value=\"{typed}\"")), "what was typed stays");
        assert!(page.html.contains("aria-invalid=\"true\" aria-describedby=\"notice why details\" autofocus"));
        assert!(page.html.contains("id=\"notice\" role=\"alert\""));
    }
}

#[tokio::test]
async fn a_code_is_refused_the_second_time_and_says_so() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let code = world.code(&secret);
    let visitor = Visitor::new(&world.base);
    let (_, first) = world.challenge("u", "login").await;
    let page = visitor.open(&first).await;
    visitor.send(&page, "Confirm", &[("code", &code)]).await.says("Thanks, it's you");
    let (_, second) = world.challenge("u", "login").await;
    let page = visitor.open(&second).await;
    let page = visitor.send(&page, "Confirm", &[("code", &code)]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("That code was already used. Wait for the next one.");
}

#[tokio::test]
async fn five_wrong_codes_close_the_request_and_ten_pause_the_method_alone() {
    let world = World::start().await;
    let secret = world.person("u").await;
    world.phone("u").await;
    let wrong = if world.code(&secret) == "000000" { "000001" } else { "000000" };
    for pauses in [false, true] {
        let (_, url) = world.challenge("u", "payout").await;
        let visitor = Visitor::new(&world.base);
        let mut page = visitor.open(&url).await;
        for _ in 0..5 {
            page = visitor.send(&page, "Confirm", &[("code", wrong)]).await;
            assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        }
        page.says("This request is closed").says("Nothing was changed.");
        assert!(page.link("Return to Harbour Bank").contains("error=access_denied"));
        let told = page.text();
        assert_eq!(told.contains("You can use codes again at"), pauses, "{told}");
        assert_eq!(told.contains("(in 30 seconds)"), pauses, "{told}");
    }
    let (_, url) = world.challenge("u", "payout").await;
    let page = Visitor::new(&world.base).open(&url).await;
    page.says("Get a code by text message").says("Authenticator app").says("You can use it again at");
}

#[tokio::test]
async fn a_paused_method_says_when_it_may_be_used_again() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let wrong = if world.code(&secret) == "000000" { "000001" } else { "000000" };
    for _ in 0..10 {
        let body = json!({"user_id": "u", "answer": {"type": "totp", "code": wrong}});
        assert_eq!(world.says("POST", "/v1/challenges", body).await["code"], "code_incorrect");
    }
    let (_, url) = world.challenge("u", "login").await;
    let page = Visitor::new(&world.base).open(&url).await;
    page.says("You can't use codes yet").says("(in 30 seconds)");
}

/// look-alikes, case and dashes do not matter; whoever used one learns how many are left.
#[tokio::test]
async fn a_recovery_code_is_redeemed_and_the_rest_counted() {
    let world = World::start().await;
    world.person("u").await;
    let codes = world.recovery_codes("u").await;
    let (id, url) = world.challenge("u", "login").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&url).await;
    let page = visitor.go(&page.html_link("Recovery code")).await;
    page.says("Enter a recovery code");
    let page = visitor.send(&page, "Confirm", &[("code", "0000-0000-0000-0000")]).await;
    page.says("That code didn't work. It may be mistyped or already used. Try another from your list.");
    let typed = codes[3].to_lowercase().replace('-', " ");
    let done = visitor.send(&page, "Confirm", &[("code", &typed)]).await;
    done.says("You're in. 9 recovery codes left.").says("Lost a device?");
    assert_eq!(done.refresh(), None, "there is something to read");
    let target = done.link("Continue to Harbour Bank");
    let session = world.exchange(&id, target.split_once('?').expect("a query").1).await;
    assert_eq!(session["amr"], json!(["recovery"]));
}

#[tokio::test]
async fn a_recovery_code_is_shown_as_unfit_where_it_may_not_confirm() {
    let world = World::start().await;
    world.person("u").await;
    world.recovery_codes("u").await;
    let (_, url) = world.challenge("u", "payout").await;
    let page = Visitor::new(&world.base).open(&url).await;
    page.says("Recovery codes can sign you in but can't confirm this action.");
}

/// P-13.
#[tokio::test]
async fn a_text_is_sent_on_request_only_and_its_code_passes() {
    let world = World::start().await;
    world.person("u").await;
    world.phone("u").await;
    let before = world.running.engine.inbox().texts().len();
    let (id, url) = world.challenge("u", "payout").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&url).await;
    let page = visitor.go(&page.html_link("Text to the number ending 23")).await;
    page.says("We'll text the number ending 23.");
    assert_eq!(world.running.engine.inbox().texts().len(), before, "nothing is sent by looking");
    world.clock.advance(60);
    let page = visitor.send(&page, "Send code", &[]).await;
    page.says("We've sent a code to the number ending 23.").says("You can ask for up to 2 more.");
    assert!(page.html.contains("inputmode=\"numeric\" autocomplete=\"one-time-code\""), "{}", page.html);
    let early = visitor.send(&page, "Send another code", &[]).await;
    assert_eq!(early.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: i64 = early.headers["retry-after"].to_str().expect("text").parse().expect("X-12: seconds");
    assert!((1..=30).contains(&wait), "{wait}");
    early.says("You can ask again at");
    let old = world.texted();
    world.clock.advance(30);
    let page = visitor.send(&early, "Send another code", &[]).await;
    if old != world.texted() {
        visitor.send(&page, "Confirm", &[("code", &old)]).await.says("That code didn't match.");
    }
    let done = visitor.send(&page, "Confirm", &[("code", &world.texted())]).await;
    let target = done.says("Thanks, it's you").link("Continue");
    assert_eq!(world.exchange(&id, target.split_once('?').expect("a query").1).await["amr"], json!(["sms"]));
}

/// What was refused is said also where the page goes on with another way than the one that was tried.
#[tokio::test]
async fn what_was_refused_is_said_on_whatever_block_follows() {
    let world = World::start().await;
    let words = "That didn't work. This can't be used here. Try another way.";
    for (user, heading) in [("with-passkey", "Use your passkey"), ("alone", "Set up a second step first")] {
        world.phone(user).await;
        if user == "with-passkey" {
            world.passkey(user).await;
        }
        let visitor = Visitor::new(&world.base);
        let page = visitor.open(&world.challenge(user, "payout").await.1).await;
        let page = visitor.go(&format!("{}?method=sms", page.path)).await;
        page.says("Get a code by text message");
        let factors = world.says("GET", &format!("/v1/users/{user}/factors"), json!(null)).await;
        let phone = factors["data"].as_array().expect("a list").iter().find(|factor| factor["type"] == "sms");
        let id = phone.expect("a phone")["id"].as_str().expect("an id");
        world.says("DELETE", &format!("/v1/users/{user}/factors/{id}"), json!(null)).await;
        let refused = visitor.send(&page, "Send code", &[]).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        refused.says(heading).says(words);
        assert!(refused.html.contains("id=\"notice\" role=\"alert\""), "{}", refused.html);
    }
    let visitor = Visitor::new(&world.base);
    for (state, told) in [("app-on-hold-now", true), ("app-on-hold", false)] {
        let page = visitor.go(&format!("/dev/gallery/{state}")).await;
        page.says("Your second step is on hold");
        assert_eq!(page.html.contains("id=\"notice\" role=\"alert\""), told, "{state}");
    }
}

/// "Try another way" leads to one: not where all there are cannot be used.
#[tokio::test]
async fn no_other_way_is_promised_where_there_is_none() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    for (state, promised) in [("passkey-ready", true), ("passkey-alone", false)] {
        let page = visitor.go(&format!("/dev/gallery/{state}")).await;
        assert_eq!(page.html.contains("data-choose"), promised, "{state}");
    }
}

/// What is wrong is the gateway, not what was typed.
#[tokio::test]
async fn only_a_code_that_was_judged_is_marked_as_wrong() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    for (state, marked) in [("text-undelivered-again", false), ("text-limit", false), ("text-wrong", true)] {
        let page = visitor.go(&format!("/dev/gallery/{state}")).await;
        assert!(page.html.contains("aria-describedby=\"notice why details\""), "{state}");
        assert_eq!(page.html.contains("aria-invalid"), marked, "{state}");
    }
}

/// P-08: a phone is not called too weak where only a gateway is missing.
#[tokio::test]
async fn a_phone_is_not_called_weak_where_nothing_sends_texts() {
    let world = World::start().await;
    world.person("u").await;
    world.phone("u").await;
    world.phone("v").await;
    let world = world.without_texts().await;
    let page = Visitor::new(&world.base).open(&world.challenge("u", "payout").await.1).await;
    page.says("Enter the code from your authenticator app").says("Phone We can't send text messages right now.");
    assert!(!page.text().contains("It isn't enough"), "{}", page.text());
    let wish = json!({"user_id": "v", "require": {"methods": ["webauthn", "sms"]}});
    let asked = world.says("POST", "/v1/challenges", wish).await;
    let page = Visitor::new(&world.base).open(asked["url"].as_str().expect("a page")).await;
    assert!(!page.says("Set up a second step first").text().contains("isn't enough"), "{}", page.text());
}

/// ux, S4, S8: where every gateway has rejected a text for good it is no delay, and where a gateway lets nothing of ours in it is not
/// the number.
#[tokio::test]
async fn a_number_that_nobody_can_text_is_told_from_a_gateway_that_is_down() {
    let mut world = World::start().await;
    world.phone("u").await;
    let rejected = "We couldn't deliver to this number. It may be a landline or block our messages.";
    let delayed = "Text messages are delayed right now.";
    for (status, words) in [(422, rejected), (400, rejected), (401, delayed), (503, delayed)] {
        let gateway = gateway(status).await;
        world = world.again(|config| (config.sms.local, config.sms.http_url) = (None, Some(gateway))).await;
        world.clock.advance(3600);
        let visitor = Visitor::new(&world.base);
        let page = visitor.open(&world.challenge("u", "payout").await.1).await;
        let page = visitor.send(&page, "Send code", &[]).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        page.says(words);
        let page = visitor.open(&world.portal("new", "add_phone").await).await;
        let page = visitor.send(&page, "Send code", &[("country", "US"), ("number", "415 555 0123")]).await;
        page.says(words);
        assert_eq!(page.html.contains("aria-invalid"), words == rejected, "{status}");
    }
}

#[tokio::test]
async fn the_chooser_says_when_a_passkey_was_last_used() {
    let world = World::start().await;
    world.person("u").await;
    let mut device = world.passkey("u").await;
    let visitor = Visitor::new(&world.base);
    let shown = async || {
        let (id, url) = world.challenge("u", "payout").await;
        let page = visitor.open(&url).await;
        (visitor.go(&format!("{}?method=totp", page.path)).await, id)
    };
    let (page, id) = shown().await;
    assert!(!page.says("Passkey").text().contains("Last used"), "{}", page.text());
    let path = format!("/v1/challenges/{id}");
    let asked = world.says("POST", &format!("{path}/prepare"), json!({"type": "webauthn"})).await;
    let credential = device.get(&asked["webauthn"]["request_options"]).expect("the browser has no objection");
    let proof = json!({"type": "webauthn", "credential": credential});
    assert_eq!(world.says("POST", &format!("{path}/verify"), proof).await["status"], "approved");
    let today = &world.clock.now().rfc3339()[..4];
    let (page, _) = shown().await;
    let said = page.text();
    let said = said.split("Passkey Last used ").nth(1).unwrap_or_else(|| panic!("{said}"));
    assert!(said.split_whitespace().nth(2).is_some_and(|year| year == today), "{said}");
}

#[tokio::test]
async fn the_method_that_was_last_right_in_this_browser_is_offered_first() {
    let world = World::start().await;
    world.person("u").await;
    world.phone("u").await;
    world.clock.advance(60);
    let visitor = Visitor::new(&world.base);
    let (_, url) = world.challenge("u", "payout").await;
    let page = visitor.open(&url).await;
    let page = visitor.go(&page.says("authenticator app").html_link("Text to the number")).await;
    let page = visitor.send(&page, "Send code", &[]).await;
    visitor.send(&page, "Confirm", &[("code", &world.texted())]).await.says("Thanks, it's you");
    let (_, url) = world.challenge("u", "payout").await;
    visitor.open(&url).await.says("Get a code by text message");
    let (_, url) = world.challenge("u", "payout").await;
    Visitor::new(&world.base).open(&url).await.says("Enter the code from your authenticator app");
}

/// Y-03.
#[tokio::test]
async fn what_runs_out_while_a_person_types_says_so_and_leads_back() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let (id, url) = world.challenge("u", "login").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&url).await;
    page.says("Open until");
    world.clock.advance(601);
    let page = visitor.send(&page, "Confirm", &[("code", &world.code(&secret))]).await;
    page.says("This request timed out").says("Nothing was changed.");
    let target = page.link("Start again");
    assert!(target.contains("error=expired") && target.contains(&id) && target.contains("state=st%26ate%3D1"));
}

#[tokio::test]
async fn a_cancelled_request_leads_back_without_a_code() {
    let world = World::start().await;
    world.person("u").await;
    let (id, url) = world.challenge("u", "login").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&url).await;
    let page = visitor.send(&page, "Cancel and return", &[]).await;
    let target = page.says("This request was cancelled").link("Return to Harbour Bank");
    assert!(target.contains("error=access_denied") && !target.contains("code="), "{target}");
    visitor.go(&format!("/challenge/{id}")).await.says("This request was cancelled");
    assert_eq!(world.says("GET", &format!("/v1/challenges/{id}"), json!(null)).await["status"], "cancelled");
}

#[tokio::test]
async fn without_scripts_the_page_of_a_passkey_names_the_other_ways() {
    let world = World::start().await;
    let page = Visitor::new(&world.base).go("/dev/gallery/passkey-ready").await;
    let without = page.html.split("<noscript>").nth(1).and_then(|rest| rest.split("</noscript>").next());
    let without = without.expect("something for browsers without scripts");
    assert!(without.contains("Use one of these instead:") && without.contains("href=\"?method=totp\""), "{without}");
    assert!(page.html.contains("<div class=\"needs-script\">"), "the button is for scripts only");
}
