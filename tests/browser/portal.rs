//! The portal's forms, without any script.

use reqwest::StatusCode;
use serde_json::json;

use crate::app::base32;
use crate::visitor::{Page, Visitor, guard, unescaped};
use crate::world::World;

fn key(page: &Page) -> Vec<u8> {
    base32(key_text(page))
}

fn key_text(page: &Page) -> &str {
    let key = page.html.split("class=\"key\">").nth(1).and_then(|rest| rest.split('<').next()).expect("a setup key");
    assert!(key.split(' ').all(|group| group.len() == 4), "in groups of four: {key}");
    key
}

/// Answers the challenge that the portal puts before a change.
async fn confirm(world: &World, secret: &[u8], visitor: &Visitor, page: &Page) -> Page {
    page.says("Confirm it's you").says("change your sign-in methods");
    world.clock.advance(30);
    let done = visitor.send(page, "Confirm", &[("code", &world.code(secret))]).await;
    visitor.go(&done.says("Thanks, it's you").link("Continue")).await
}

/// T-13, Y-07, Y-08: what is pending is shown again, and what is active no more.
#[tokio::test]
async fn an_authenticator_app_is_set_up_and_a_reload_shows_the_same_key() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "add_authenticator_app").await).await;
    page.says("Scan this with your authenticator app");
    assert!(page.html.contains("role=\"img\" aria-label=") && page.html.contains("href=\"otpauth://totp/"));
    let secret = key(&page);
    assert_eq!(key(&visitor.go(&page.path).await), secret);

    let refused = visitor.send(&page, "Continue", &[("code", "1234")]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(key(refused.says("You entered 4.")), secret, "an error does not change it");
    let added = visitor.send(&refused, "Continue", &[("code", &world.code(&secret))]).await;
    added.says("Authenticator app added");
    let renamed = visitor.send(&added, "Rename", &[("name", "Work phone")]).await;
    renamed.says("Renamed.");
    let factors = world.says("GET", "/v1/users/new/factors", json!(null)).await;
    assert_eq!((&factors["data"][0]["name"], &factors["data"][0]["status"]), (&json!("Work phone"), &json!("active")));
    let (shown, again) = (key_text(&page), visitor.go(&page.path).await);
    for later in [&added, &renamed, &again, &visitor.go(&renamed.path).await] {
        assert!(!later.html.contains(shown) && !later.html.contains(&shown.replace(' ', "")), "{}", later.text());
    }
}

/// S-01: whoever holds the visit's client token may be somebody else than who proves themselves on its page.
#[tokio::test]
async fn a_step_up_on_the_page_lifts_no_client_token() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let wish = json!({"user_id": "u", "flow": "add_authenticator_app"});
    let made = world.says("POST", "/v1/portal-sessions", wish).await;
    let token = made["client_token"].as_str().expect("a token").to_owned();
    let visitor = Visitor::new(&world.base);
    let begin = async || {
        let call = visitor.client.post(format!("{}/v1/users/u/factors", world.base)).bearer_auth(&token);
        let answer = call.header("origin", &world.base).json(&json!({"type": "totp"})).send().await.expect("an answer");
        answer.json::<serde_json::Value>().await.expect("JSON")["code"].clone()
    };
    assert_eq!(begin().await, "step_up_required");
    let page = visitor.open(&format!("{}/{}", world.base, path(&made["url"]))).await;
    confirm(&world, &secret, &visitor, &page).await.says("Scan this with your authenticator app");
    assert_eq!(begin().await, "client_token_invalid");
}

fn path(url: &serde_json::Value) -> &str {
    url.as_str().and_then(|url| url.splitn(4, '/').nth(3)).expect("a path")
}

/// S-18, C-06: no form of the portal does anything without the guard of its page, and each does with it.
#[tokio::test]
async fn no_form_of_the_portal_does_anything_without_its_guard() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let state = async || {
        let user = world.says("GET", "/v1/users/new", json!(null)).await;
        let factors = world.says("GET", "/v1/users/new/factors", json!(null)).await;
        let codes = world.says("GET", "/v1/users/new/recovery-codes", json!(null)).await;
        (user, factors, codes, world.running.engine.inbox().texts().len())
    };
    let send = async |page: &Page, button: &str, filled: &[(&str, &str)]| {
        let before = state().await;
        for guard in ["", "0123456789abcdef0123456789abcdef"] {
            let refused = visitor.send(page, button, &[filled, &[("guard", guard)]].concat()).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{button} on {}: {guard:?}", page.path);
            refused.says("That didn't come from this page");
        }
        assert_eq!(state().await, before, "{button} on {}", page.path);
        visitor.send(page, button, filled).await
    };
    let page = visitor.open(&world.portal("new", "add_authenticator_app").await).await;
    let secret = key(&page);
    let added = send(&page, "Continue", &[("code", &world.code(&secret))]).await;
    send(added.says("Authenticator app added"), "Rename", &[("name", "Work")]).await.says("Renamed.");

    let phone = visitor.go(&page.path.replace("authenticator-app", "phone")).await;
    let page = confirm(&world, &secret, &visitor, &phone).await;
    let sent = send(&page, "Send code", &[("country", "US"), ("number", "(415) 555-0123")]).await;
    send(&sent, "Continue", &[("code", &world.texted())]).await.says("Phone added");

    let page = visitor.go(&page.path.replace("phone", "recovery-codes")).await;
    let codes = send(&page, "Get recovery codes", &[]).await;
    assert_eq!(send(&codes, "Download", &[]).await.headers["content-type"], "text/plain; charset=utf-8");
    send(&codes, "Continue", &[("saved", "1")]).await.says("Recovery codes saved");

    let list = visitor.go(&page.path.replace("recovery-codes", "settings")).await;
    let list = send(&list, "Save", &[("name", "Home")]).await;
    let ask = visitor.go(&list.says("Home").html_link("Remove<span class=\"out-of-sight\"> Phone")).await;
    send(&ask, "Remove", &[]).await.says("Add a second method so you aren't locked out.");
}

#[tokio::test]
async fn a_set_up_that_ran_out_begins_anew_and_says_so() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "add_authenticator_app").await).await;
    let secret = key(&page);
    world.clock.advance(901);
    let again = visitor.send(&page, "Continue", &[("code", &world.code(&secret))]).await;
    again.says("That QR code is no longer valid. Here's a new one – delete the old entry in your app.");
    assert_ne!(key(&again), secret);
}

/// Nobody is told of a QR code that was never shown.
#[tokio::test]
async fn what_ran_out_is_called_a_qr_code_only_where_it_was_one() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "add_passkey").await).await;
    let call = visitor.client.post(format!("{}{}/options", visitor.base, page.path));
    let call = call.header("form-guard", guard(&page.html)).json(&json!({"authenticator": "any"}));
    assert_eq!(call.send().await.expect("an answer").status(), StatusCode::OK);
    world.clock.advance(901);
    let app = visitor.go(&page.path.replace("passkey", "authenticator-app")).await;
    assert!(!app.says("Scan this").text().contains("no longer valid"), "{}", app.text());
}

/// P-08, Y-02, Y-04.
#[tokio::test]
async fn a_phone_is_added_as_people_write_its_number() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "add_phone").await).await;
    assert!(page.html.contains("type=\"tel\"") && page.html.contains("autocomplete=\"tel\""));
    let page = visitor.send(&page, "Send code", &[("country", "DE"), ("number", "12")]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("Enter all digits of the number.");
    assert!(page.html.contains("value=\"12\"") && page.html.contains("value=\"DE\" selected"), "what was typed stays");
    let page = visitor.send(&page, "Send code", &[("country", "DE"), ("number", "0900 1234567")]).await;
    page.says("We can't text this number.");
    let page = visitor.send(&page, "Send code", &[("country", "US"), ("number", "(415) 555-0123")]).await;
    page.says("We've sent a code to the number ending 23.");
    assert_eq!(world.running.engine.inbox().texts()[0].to, "+14155550123");
    let page = visitor.go(&page.path).await;
    let change = visitor.go(&page.says("We've sent a code").link("Change number")).await;
    let kept = ["value=\"+14155550123\"", "value=\"US\" selected"];
    assert!(kept.iter().all(|kept| unescaped(&change.html).contains(kept)), "what was typed stays: {}", change.html);
    let page = visitor.send(&page, "Continue", &[("code", &world.texted())]).await;
    page.says("Phone added").says("Texts can be intercepted. A passkey is safer.");
}

#[tokio::test]
async fn a_code_that_ran_out_is_not_said_to_work() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "add_phone").await).await;
    let page = visitor.send(&page, "Send code", &[("country", "US"), ("number", "(415) 555-0123")]).await;
    let code = world.texted();
    world.clock.advance(600);
    let page = visitor.go(&page.says("works for 10 minutes").path).await;
    page.says("The code to the number ending 23 has expired. Send a new one.");
    let refused = visitor.send(&page, "Continue", &[("code", &code)]).await;
    refused.says("That code has expired. Send a new one.");
    for page in [&page, &refused] {
        assert!(!page.text().contains("works for 10 minutes"), "{}", page.text());
    }
    let page = visitor.send(&refused, "Send another code", &[]).await;
    let page = visitor.send(page.says("works for 10 minutes"), "Continue", &[("code", &world.texted())]).await;
    page.says("Phone added");
}

#[tokio::test]
async fn only_countries_that_may_be_texted_are_offered() {
    let world = World::start_with(|config| config.sms.countries = Some(vec!["CH".to_owned(), "DE".to_owned()])).await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "add_phone").await).await;
    let offered = page.html.split("<option value=\"").skip(1).filter_map(|option| option.split('"').next());
    assert_eq!(offered.collect::<Vec<_>>(), ["", "DE", "CH"], "in the order of their names");
}

#[tokio::test]
async fn where_there_is_no_more_room_it_says_how_many_there_may_be() {
    let world = World::start().await;
    let mut secret = Vec::new();
    for _ in 0..5 {
        secret = world.person("u").await;
    }
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("u", "add_authenticator_app").await).await;
    let page = confirm(&world, &secret, &visitor, &page).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("You have 5 of 5 authenticator apps").says("Remove one first.");
    let page = visitor.go(&page.path.replace("authenticator-app", "passkey")).await;
    assert!(page.text().contains("You have 20 of 20 passkeys."), "{}", page.text());
}

/// A lost device is removed with the proof that the recovery code was.
#[tokio::test]
async fn who_used_a_recovery_code_is_led_to_the_list_and_may_remove_what_is_lost() {
    let world = World::start().await;
    world.person("u").await;
    world.phone("u").await;
    let codes = world.recovery_codes("u").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("u", "add_passkey").await).await;
    let page = visitor.go(&page.html_link("Recovery code")).await;
    let done = visitor.send(&page, "Confirm", &[("code", &codes[0])]).await;
    done.says("You're in. 9 recovery codes left.").says("Lost a device?");
    assert!(done.link("Continue").ends_with("/passkey"));
    let list = visitor.go(&done.link("Review sign-in methods")).await;
    let ask =
        visitor.go(&list.says("Your sign-in methods").html_link("Remove<span class=\"out-of-sight\"> Phone")).await;
    let list = visitor.send(&ask, "Remove", &[]).await;
    list.says("Your sign-in methods").says("Add a second method");
}

/// the codes stand on the page that follows their making, in no address, and on no page that is fetched.
#[tokio::test]
async fn recovery_codes_count_only_when_the_person_says_they_are_saved() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let old = world.recovery_codes("u").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("u", "recovery_codes").await).await;
    assert!(!page.html.contains("method=recovery_code"), "its session could not make a new set");
    let page = confirm(&world, &secret, &visitor, &page).await;
    let page = visitor.send(page.says("10 of 10 left"), "Get new codes", &[]).await;
    page.says("Save your recovery codes").says("We won't show them again.");
    let status = || world.says("GET", "/v1/users/u/recovery-codes", json!(null));
    let codes: Vec<_> = page.html.split("<li><code>").skip(1).filter_map(|c| c.split('<').next()).collect();
    assert_eq!(codes.len(), 10);
    let holds = |text: &str| codes.iter().any(|code| text.contains(code));
    let again = visitor.go(&page.path).await;
    assert!(!holds(&again.html) && !holds(&page.path), "{}", again.text());
    for address in ["href=\"", "action=\""].into_iter().flat_map(|mark| page.html.split(mark).skip(1)) {
        assert!(!address.split('"').next().is_some_and(holds), "{address}");
    }

    let file = visitor.send(&page, "Download", &[]).await;
    assert_eq!(file.headers["content-type"], "text/plain; charset=utf-8");
    assert!(file.headers["content-disposition"].to_str().expect("text").contains("harbourbank-recovery-codes.txt"));
    assert!(codes.iter().all(|code| file.html.contains(code)) && !file.html.contains("http"));

    let leaving = visitor.send(&page, "Not now", &[]).await;
    leaving.says("Your codes aren't saved yet");
    let page = visitor.send(&leaving, "Go back", &[]).await;
    let refused = visitor.send(page.says(codes[9]), "Continue", &[]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    refused.says("Save your codes first.").says(codes[0]);

    let redeem = |code: &str| json!({"user_id": "u", "answer": {"type": "recovery_code", "code": code}});
    assert_eq!(world.says("POST", "/v1/challenges", redeem(codes[0])).await["code"], "code_incorrect");
    assert_eq!(
        world.says("POST", "/v1/challenges", redeem(&old[0])).await["status"],
        "approved",
        "the old set still counts"
    );

    let saved = visitor.send(&refused, "Continue", &[("saved", "1")]).await;
    saved.says("Recovery codes saved").says("10 of 10 left");
    for later in [&saved, &visitor.go(&page.path).await] {
        assert!(!holds(&later.html) && !holds(&later.path), "{}", later.text());
    }
    assert_eq!(status().await["status"], "active");
    assert_eq!(world.says("POST", "/v1/challenges", redeem(codes[0])).await["status"], "approved");
    assert_eq!(world.says("POST", "/v1/challenges", redeem(&old[1])).await["code"], "code_incorrect");
}

/// whoever says that codes are saved means those of the page: of two windows only the newer one's come to count, and the older
/// one says so.
#[tokio::test]
async fn codes_that_were_replaced_in_another_window_are_not_confirmed() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("u", "recovery_codes").await).await;
    let page = confirm(&world, &secret, &visitor, &page).await;
    let older = visitor.send(&page, "Get recovery codes", &[]).await;
    let newer = visitor.send(&visitor.go(&page.path).await, "Get recovery codes", &[]).await;
    let saved = [("saved", "1")];
    let told = visitor.send(&older, "Continue", &saved).await;
    assert_eq!(told.status, StatusCode::CONFLICT);
    told.says("These codes don't work").says("Throw them away");
    let status = || world.says("GET", "/v1/users/u/recovery-codes", json!(null));
    assert_eq!(status().await["status"], "unconfirmed");
    visitor.send(&newer, "Continue", &saved).await.says("Recovery codes saved");
    // Pressed twice; and the other window again.
    visitor.send(&newer, "Continue", &saved).await.says("Recovery codes saved");
    visitor.send(&older, "Continue", &saved).await.says("These codes don't work");
    let code = newer.html.split("<li><code>").nth(1).and_then(|c| c.split('<').next()).expect("a code");
    let redeem = json!({"user_id": "u", "answer": {"type": "recovery_code", "code": code}});
    assert_eq!(world.says("POST", "/v1/challenges", redeem).await["status"], "approved");
}

/// C-06.
#[tokio::test]
async fn a_method_is_removed_after_a_proof_and_a_question_and_never_the_last_one() {
    let world = World::start().await;
    let secret = world.person("u").await;
    world.phone("u").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("u", "settings").await).await;
    page.says("Your sign-in methods").says("Authenticator app").says("You have none.");

    let ask = visitor.go(&page.html_link("Remove<span class=\"out-of-sight\"> Phone")).await;
    assert!(!ask.says("Remove Phone?").text().contains("You used this"), "{}", ask.text());
    let challenge = visitor.send(&ask, "Remove", &[]).await;
    let ask = confirm(&world, &secret, &visitor, &challenge).await;
    assert_eq!(world.says("GET", "/v1/users/u/factors", json!(null)).await["data"].as_array().map(Vec::len), Some(2));
    let list = visitor.send(ask.says("Remove Phone?"), "Remove", &[]).await;
    list.says("Add a second method so you aren't locked out.");
    assert!(!list.html.contains("Remove<span class=\"out-of-sight\"> Phone"), "{}", list.text());

    let ask = visitor.go(&list.html_link("Remove<span")).await;
    ask.says("You used this a moment ago to confirm it's you. Remove it anyway?");
    assert_eq!(ask.title(), "Remove Authenticator app? – Harbour Bank");
    let refused = visitor.send(&ask, "Remove", &[]).await;
    assert_eq!(refused.title(), "Error: You can't remove your only method – Harbour Bank");
    assert_eq!(refused.status, StatusCode::CONFLICT);
    refused.says("You can't remove your only method").says("Add another first.");

    // An address that names no factor, or does not read, is told so by the page.
    for mistyped in ["settings/fac_1/remove", "settings/%ff/remove"] {
        let gone = visitor.go(&list.path.replace("settings", mistyped)).await;
        assert_eq!(gone.says("This list changed in another window").status, StatusCode::NOT_FOUND);
    }

    // What it was proven with no longer counts.
    visitor.go(&list.path).await.says("Used now");
    world.says("DELETE", "/v1/users/u/sessions", json!(null)).await;
    assert!(!visitor.go(&list.path).await.text().contains("Used now"));
    assert!(!visitor.go(&list.html_link("Remove<span")).await.text().contains("You used this"));
}

#[tokio::test]
async fn a_name_is_given_once_and_kept_as_text() {
    let world = World::start().await;
    let secret = world.person("u").await;
    world.phone("u").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("u", "settings").await).await;
    let challenge = visitor.send(&page, "Save", &[("name", "x")]).await;
    let page = confirm(&world, &secret, &visitor, &challenge).await;
    let refused = visitor.send(&page, "Save", &[("name", "Phone")]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    refused.says("You already use that name.");
    let refused = visitor.send(&page, "Save", &[("name", &"x".repeat(51))]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    refused.says("It has 1 to 50 characters.");
    let page = visitor.send(&page, "Save", &[("name", " <i>Work</i> ")]).await;
    page.says("<i>Work</i>");
}

/// Y-11.
#[tokio::test]
async fn what_was_typed_is_kept_over_the_proof() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("u", "settings").await).await;
    let challenge = visitor.send(&page, "Save", &[("name", "Work & home")]).await;
    let page = confirm(&world, &secret, &visitor, &challenge).await;
    let page = visitor.send(&page, "Save", &[]).await;
    page.says("Work & home");
}

#[tokio::test]
async fn a_proof_that_was_called_off_leads_to_the_list_and_not_round_in_circles() {
    let world = World::start().await;
    world.person("u").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("u", "add_phone").await).await;
    let page = visitor.send(page.says("Confirm it's you"), "Cancel and go back", &[]).await;
    let list = visitor.go(&page.link("Back to your sign-in methods")).await;
    list.says("Your sign-in methods");
}

#[tokio::test]
async fn a_visit_that_ran_out_changes_nothing() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "add_phone").await).await;
    let guard = guard(&page.html);
    let portal = page.path.trim_end_matches("/phone").to_owned();
    world.clock.advance(1801);
    let refused = visitor.send(&page, "Send code", &[("country", "US"), ("number", "4155550123")]).await;
    assert_eq!(refused.status, StatusCode::GONE);
    let call = visitor.client.post(format!("{}{portal}/passkey/options", world.base)).header("form-guard", guard);
    let answer = call.json(&json!({"authenticator": "any"})).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.says("GET", "/v1/users/new/factors", json!(null)).await["data"], json!([]));
}

#[tokio::test]
async fn a_visit_ends_and_leads_back() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "settings").await).await;
    page.says("Sign in faster and safer with a passkey");
    let done = visitor.go(&page.link("Done")).await;
    assert_eq!(done.says("Back to Harbour Bank").link("Continue"), world.back);
    world.clock.advance(1801);
    let page = visitor.go(&page.path).await;
    assert_eq!(page.status, StatusCode::GONE);
    page.says("This page timed out");
}

/// Issue 4.5: what is too new for a request is not offered for it, and says from when on it will be.
#[tokio::test]
async fn a_passkey_that_is_cooling_off_is_not_offered_and_says_until_when() {
    let hours = 3600 * 3;
    let world = World::start_with(|config| config.factor_cool_off = hours).await;
    let visitor = Visitor::new(&world.base);
    let why = "Passkey 2 It's new, so for your safety it can't confirm this yet. You can use it here at";
    let strong = json!({"user_id": "u", "require": {"acr": "phr"}});
    world.passkey("u").await;
    assert_eq!(world.says("POST", "/v1/challenges", strong.clone()).await["status"], "enrolment_required");
    // The only one there is may look after itself.
    let page = visitor.open(&world.portal("u", "add_phone").await).await;
    assert_eq!(offered(&visitor, &page).await, 1);
    world.clock.advance(hours);
    world.passkey("u").await;

    let step_up = visitor.open(&world.portal("u", "add_phone").await).await;
    let url = world.says("POST", "/v1/challenges", strong).await["url"].as_str().expect("a page").to_owned();
    for page in [step_up, visitor.open(&url).await] {
        page.says("Use your passkey").says(why).says("in about 3 hours.");
        assert_eq!(offered(&visitor, &page).await, 1);
    }
    // Where it is strong enough it is offered.
    world.clock.advance(1);
    let page = visitor.open(&world.challenge("u", "login").await.1).await;
    assert!(!page.text().contains("It's new"), "{}", page.text());
    assert_eq!(offered(&visitor, &page).await, 2);
    world.clock.advance(hours);
    let page = visitor.open(&world.portal("u", "add_phone").await).await;
    assert!(!page.says("Use your passkey").text().contains("It's new"), "{}", page.text());
    assert_eq!(offered(&visitor, &page).await, 2);
}

/// A passkey that did not come about leaves its name to the one that is begun in its place.
#[tokio::test]
async fn a_passkey_that_is_begun_again_keeps_its_name() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "add_passkey").await).await;
    let guard = guard(&page.html);
    for _ in 0..3 {
        let call = visitor.client.post(format!("{}{}/options", visitor.base, page.path)).header("form-guard", guard);
        let answer = call.json(&json!({"authenticator": "any"})).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let factors = world.says("GET", "/v1/users/new/factors", json!(null)).await["data"].clone();
        assert_eq!(factors.as_array().map(Vec::len), Some(1), "{factors}");
        assert_eq!((&factors[0]["name"], &factors[0]["status"]), (&json!("Passkey"), &json!("pending")));
    }
}

/// How many passkeys the browser is asked for on a challenge's page.
async fn offered(visitor: &Visitor, page: &Page) -> usize {
    let guard = guard(&page.html);
    let call = visitor.client.post(format!("{}{}/options", visitor.base, page.path)).header("form-guard", guard);
    let options: serde_json::Value = call.json(&json!({})).send().await.expect("an answer").json().await.expect("JSON");
    options["options"]["allowCredentials"].as_array().unwrap_or_else(|| panic!("{options}")).len()
}

/// api.md, 5: a person who has nothing that would do sets it up on the way, answers with it, and is brought back with the code.
#[tokio::test]
async fn what_is_missing_is_set_up_on_the_way_and_then_answered() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let (id, url) = world.challenge("new", "login").await;
    let page = visitor.open(&url).await;
    page.says("Set up a second step first").says("This action needs it. It takes about a minute.");
    let page = visitor.send(&page, "Set up now", &[]).await;
    page.says("Sign in faster and safer with a passkey");
    let page = visitor.go(&page.html_link("Authenticator app")).await;
    let secret = key(&page);
    let added = visitor.send(&page, "Continue", &[("code", &world.code(&secret))]).await;
    let page = visitor.go(&added.says("Authenticator app added").link("Continue")).await;
    page.says("Enter the code from your authenticator app").says("You're about to change payout account");
    // What was shown to set it up is spent: the proof is a code of its own.
    let refused = visitor.send(&page, "Confirm", &[("code", &world.code(&secret))]).await;
    let page = refused.says("That code was already used.");
    world.clock.advance(30);
    let done = visitor.send(page, "Confirm", &[("code", &world.code(&secret))]).await;
    let back = done.says("Thanks, it's you").refresh().expect("the way back");
    let session = world.exchange(&id, back.split_once('?').expect("a query").1).await;
    assert_eq!((&session["user_id"], &session["acr"]), (&json!("new"), &json!("aal2")));
}

/// A first binding is for ever: once the challenge on whose way it was begun is called off or over, it comes to nothing, and the
/// challenge's own page says so.
#[tokio::test]
async fn nothing_is_set_up_on_the_way_to_a_challenge_that_is_over() {
    let world = World::start().await;
    for (called_off, words, code) in [
        (true, "This request was cancelled", "challenge_not_pending"),
        (false, "This request timed out", "challenge_expired"),
    ] {
        let visitor = Visitor::new(&world.base);
        let (id, url) = world.challenge("new", "login").await;
        let list = visitor.send(&visitor.open(&url).await, "Set up now", &[]).await;
        let passkey = visitor.go(&list.html_link("Passkey or security key")).await;
        let phone = visitor.go(&list.html_link("Codes by text message")).await;
        let app = visitor.go(&list.html_link("Authenticator app")).await;
        let secret = key(&app);
        match called_off {
            true => drop(world.says("POST", &format!("/v1/challenges/{id}/cancel"), json!({})).await),
            false => world.clock.advance(600),
        }
        let number = [("country", "US"), ("number", "415 555 0123")];
        let led = [
            visitor.send(&app, "Continue", &[("code", &world.code(&secret))]).await,
            visitor.send(&phone, "Send code", &number).await,
            visitor.go(&passkey.path).await,
        ];
        for page in led {
            assert_eq!((page.status, &page.path), (StatusCode::OK, &format!("/challenge/{id}")), "{}", page.text());
            page.says(words);
        }
        // The page's module loads the page anew, which leads there too.
        let call = visitor.client.post(format!("{}{}/options", visitor.base, passkey.path));
        let call = call.header("form-guard", guard(&passkey.html)).json(&json!({"authenticator": "any"}));
        let told: serde_json::Value = call.send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!(told["code"], code);
        assert!(world.running.engine.inbox().texts().is_empty(), "nothing was sent");
        let factors = world.says("GET", "/v1/users/new/factors", json!(null)).await;
        assert!(
            factors["data"].as_array().is_some_and(|all| all.iter().all(|f| f["status"] == "pending")),
            "{factors}"
        );
    }
}

/// Another factor would only have to be proven before the one that is needed may be added.
#[tokio::test]
async fn on_the_way_only_what_would_do_is_offered_and_taken() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let terms = json!({"user_id": "new", "action": "pay", "require": {"methods": ["webauthn", "totp"]}});
    let asked = world.says("POST", "/v1/challenges", terms).await;
    assert_eq!(asked["missing"], json!(["webauthn", "totp"]));
    let page = visitor.open(asked["url"].as_str().expect("a page")).await;
    let page = visitor.send(&page, "Set up now", &[]).await;
    page.says("Passkey or security key").says("Authenticator app");
    assert!(!page.html.contains("Codes by text message"));
    let phone = visitor.go(&page.html_link("Authenticator app").replace("authenticator-app", "phone")).await;
    let number = [("country", "US"), ("number", "415 555 0123")];
    let refused = visitor.send(&phone, "Send code", &number).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text());
    assert!(world.running.engine.inbox().texts().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn setting_up_may_be_put_off_and_what_is_there_is_asked_for_first() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let (id, url) = world.challenge("new", "login").await;
    let page = visitor.open(&url).await;
    let cancelled = visitor.send(&page, "Not now", &[]).await.refresh().expect("the way back");
    assert!(cancelled.contains("error=access_denied") && cancelled.contains(&id));

    // Something weaker is there: it guards what is added.
    let secret = world.person("u").await;
    let strong = json!({"user_id": "u", "action": "pay", "require": {"acr": "phr"}});
    let asked = world.says("POST", "/v1/challenges", strong).await;
    assert_eq!((&asked["status"], &asked["missing"]), (&json!("enrolment_required"), &json!(["webauthn"])));
    let page = visitor.open(asked["url"].as_str().expect("a page")).await;
    page.says("This action needs a passkey or security key").says("Your authenticator app isn't enough here.");
    let page = visitor.send(&page, "Add a passkey", &[]).await;
    let page = confirm(&world, &secret, &visitor, &page).await;
    page.says("Create a passkey");
    world.passkey("u").await;
    let portal = page.path.trim_end_matches("/passkey").to_owned();
    let page = visitor.go(&format!("{portal}/done")).await;
    page.says("Use your passkey").says("You're about to continue");

    // Once it has ended, nothing is set up for it.
    let (_, url) = world.challenge("other", "login").await;
    let page = visitor.open(&url).await;
    world.clock.advance(600);
    visitor.send(&page, "Set up now", &[]).await.says("This request timed out");
    // What vanished meanwhile is no leave to add another.
    world.person("v").await;
    let page = visitor.open(&world.challenge("v", "login").await.1).await;
    let factors = world.says("GET", "/v1/users/v/factors", json!(null)).await;
    let factor = factors["data"][0]["id"].as_str().expect("an id").to_owned();
    world.says("DELETE", &format!("/v1/users/v/factors/{factor}"), json!(null)).await;
    visitor.go(&page.path).await.says("Ask your administrator to set this up.");
    let guard = guard(&page.html);
    let fields = [("guard", guard), ("do", "enrol")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    visitor.post(&page.path, &fields).await.says("Ask your administrator to set this up.");
}

/// The newest first, in words; nobody else's, and nothing of what only led there. Addresses are for who proved who they are.
#[tokio::test]
async fn a_person_sees_what_happened_of_late() {
    let world = World::start().await;
    world.person("other").await;
    let secret = world.person("u").await;
    let challenge = async |user: &str, code: &str| {
        let answer = json!({"type": "totp", "code": code});
        let client = json!({"ip": "203.0.113.7"});
        world
            .says(
                "POST",
                "/v1/challenges",
                json!({"user_id": user, "action": "pay", "answer": answer, "client": client}),
            )
            .await
    };
    let right = world.code(&secret);
    let wrong = if right == "000000" { "111111" } else { "000000" };
    assert_eq!(challenge("u", wrong).await["code"], "code_incorrect");
    world.clock.advance(60);
    assert_eq!(challenge("u", &world.code(&secret)).await["status"], "approved");
    world.clock.advance(5);
    world.says("POST", "/v1/users/u/recovery-codes", json!({})).await;
    // Whoever has the password alone can make much that nobody is told of: it pushes nothing out of the list.
    for _ in 0..120 {
        world.says("POST", "/v1/challenges", json!({"user_id": "u", "action": "pay"})).await;
    }
    world.clock.advance(5);
    world.running.engine.seal_events().await.expect("sealed");

    let visitor = Visitor::new(&world.base);
    let list = visitor.open(&world.portal("u", "settings").await).await;
    let page = visitor.go(&list.link("See recent activity")).await;
    let told: Vec<_> =
        page.html.split("class=\"factor-name\">").skip(1).filter_map(|s| s.split("</p>").next()).collect();
    let expected = [
        "New recovery codes made",
        "Confirmed with a code from an authenticator app",
        "Tried with a code from an authenticator app <span class=\"badge\">Refused</span>",
        "Authenticator app added",
    ];
    assert_eq!(told, expected);
    assert!(!page.html.contains("203.0.113.7"), "nothing was proven in this visit");
    let list = visitor.go(&page.link("Your sign-in methods")).await;
    confirm(&world, &secret, &visitor, &visitor.go(&list.html_link("Passkey or security key")).await).await;
    let proven = visitor.go(&page.path).await;
    assert_eq!(proven.html.matches("from 203.0.113.7").count(), 2);
    let strange = Visitor::new(&world.base).go(&page.path).await;
    assert_eq!(strange.status, StatusCode::NOT_FOUND);

    // As long as the proof counts, and no longer.
    let shown = async || visitor.go(&page.path).await.html.contains("from 203.0.113.7");
    world.clock.advance(599);
    assert!(shown().await);
    world.clock.advance(1);
    assert!(!shown().await, "it has run out");
    confirm(&world, &secret, &visitor, &visitor.go(&list.html_link("Passkey or security key")).await).await;
    assert!(shown().await);
    world.says("DELETE", "/v1/users/u/sessions", json!(null)).await;
    assert!(!shown().await, "it was ended");
}
