//! What needs a real browser: passkeys, the keyboard, history, tabs, and how a page is laid out.

use fantoccini::Locator;
use serde_json::json;

use crate::browser::Browser;
use crate::visitor::Visitor;
use crate::world::World;

const OPEN: &str = "main form button";
const START: &str = "[data-start]:not([hidden])";

/// Enrols a passkey on the portal's page.
async fn enrol(world: &World, browser: &Browser, user: &str) {
    browser.go(&world.portal(user, "add_passkey").await).await;
    browser.press(OPEN).await;
    browser.sees("Create a passkey").await;
    browser.press("[data-start=any]:not([hidden])").await;
    browser.sees("Passkey added").await;
}

/// Opens a challenge in the browser.
async fn open(world: &World, browser: &Browser, user: &str, action: &str) -> String {
    let (id, url) = world.challenge(user, action).await;
    browser.go(&url).await;
    browser.press(OPEN).await;
    browser.sees("You're about to").await;
    id
}

async fn brought_back(world: &World, browser: &Browser) -> String {
    browser.sees("Back at the bank").await;
    let returned = world.returned.lock().expect("no test panics with it");
    returned.last().expect("a query").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_created_and_passes_a_challenge_whose_code_is_exchanged() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let authenticator = browser.plug_in(json!({})).await;
    enrol(&world, &browser, "u").await;
    browser.sees("It works only on this device. Add another so you aren't locked out.").await;
    assert_eq!(browser.held_by(&authenticator).await.len(), 1);
    browser.run("document.getElementById('name').value = 'Laptop'").await;
    browser.press(".naming button").await;
    browser.sees("Renamed.").await;

    let id = open(&world, &browser, "u", "payout").await;
    browser.sees("Unlock it with your face, fingerprint, or screen lock.").await;
    browser.press(START).await;
    let query = brought_back(&world, &browser).await;
    let session = world.exchange(&id, &query).await;
    assert_eq!((&session["acr"], &session["user_id"]), (&json!("phr"), &json!("u")));
}

/// What was saved stays, in the browser too, where only the answer was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_whose_answer_was_lost_is_there() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let authenticator = browser.plug_in(json!({})).await;
    browser.go(&world.portal("u", "add_passkey").await).await;
    browser.press(OPEN).await;
    browser.sees("Create a passkey").await;
    let lost =
        "const real = window.fetch; window.fetch = async (path, body) => { const answer = await real(path, body);
        if (String(path).endsWith('/credential')) throw new TypeError('lost'); return answer; }";
    browser.run(lost).await;
    browser.press("[data-start=any]:not([hidden])").await;
    browser.sees("Passkey added").await;
    assert_eq!(browser.held_by(&authenticator).await.len(), 1);
}

/// Takes the answer to a passkey away, after it was judged or before it was sent.
fn losing(judged: bool) -> String {
    let real = if judged { "await real(path, call);" } else { "" };
    format!(
        "const real = window.fetch; window.fetch = async (path, call) => {{
        if (String(path).endsWith('/credential')) {{ {real} window.lost = true; throw new TypeError('lost'); }}
        if (window.lost && {}) throw new TypeError('lost'); return real(path, call); }}",
        !judged
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_whose_answer_was_lost_leads_on() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    browser.plug_in(json!({})).await;
    enrol(&world, &browser, "u").await;
    let id = open(&world, &browser, "u", "payout").await;
    browser.run(&losing(true)).await;
    browser.press(START).await;
    let query = brought_back(&world, &browser).await;
    assert_eq!(world.exchange(&id, &query).await["acr"], "phr");
}

/// Neither of a proof nor of a new passkey is anything claimed that nobody can know.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_answer_came_nothing_is_claimed() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let authenticator = browser.plug_in(json!({})).await;
    browser.go(&world.portal("u", "add_passkey").await).await;
    browser.press(OPEN).await;
    browser.sees("Create a passkey").await;
    browser.run(&losing(false)).await;
    browser.press("[data-start=any]:not([hidden])").await;
    browser.sees("No answer came back.").await;
    assert!(!browser.text().await.contains("Nothing was changed"), "{}", browser.text().await);
    assert_eq!(browser.held_by(&authenticator).await.len(), 1, "it may have been saved");
    browser.pull_out(&authenticator).await;
    browser.plug_in(json!({})).await;

    enrol(&world, &browser, "v").await;
    let id = open(&world, &browser, "v", "payout").await;
    browser.run(&losing(false)).await;
    browser.press(START).await;
    browser.sees("No answer came back.").await;
    assert!(!browser.text().await.contains("Nothing was changed"), "{}", browser.text().await);
    browser.client.refresh().await.expect("a reload asks nothing");
    browser.press(START).await;
    let query = brought_back(&world, &browser).await;
    assert_eq!(world.exchange(&id, &query).await["acr"], "phr");
}

/// ux, S7: `{provider} · {device}`, and a number where that is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_passkey_is_named_after_what_holds_it() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let first = browser.plug_in(json!({})).await;
    enrol(&world, &browser, "u").await;
    let name = "return document.getElementById('name').value";
    assert_eq!(browser.run(name).await, "Passkey · Linux");
    // Lists are in order of time, and two of the same millisecond in no order.
    world.clock.advance(1);
    browser.go(&world.portal("u", "add_passkey").await).await;
    browser.press(OPEN).await;
    browser.press(START).await;
    browser.sees("Create a passkey").await;
    browser.pull_out(&first).await;
    browser.plug_in(json!({})).await;
    browser.press("[data-start=any]:not([hidden])").await;
    browser.sees("Passkey added").await;
    assert_eq!(browser.run(name).await, "Passkey · Linux 2");
    let factors = world.says("GET", "/v1/users/u/factors", json!(null)).await;
    assert_eq!(
        (&factors["data"][0]["name"], &factors["data"][1]["name"]),
        (&json!("Passkey · Linux"), &json!("Passkey · Linux 2"))
    );
    world.clock.advance(5);
    world.running.engine.seal_events().await.expect("sealed");
    let told = world.says("GET", "/v1/events?user_id=u", json!(null)).await.to_string();
    assert_eq!((told.matches("factor.added").count(), told.matches("factor.renamed").count()), (2, 0));
}

/// Where a passkey works is told by its flags (WebAuthn Level 3, 6.1.3): one that may be synced is not yet one that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_called_synced_once_it_is() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    for (eligible, state, line, badge) in [
        (true, true, "You can use it on devices where your password manager is signed in.", "Synced"),
        (true, false, "It isn't synced yet: for now it works only on this device.", "Not synced yet"),
        (false, false, "It works only on this device.", "This device only"),
    ] {
        let flags = json!({"defaultBackupEligibility": eligible, "defaultBackupState": state});
        let device = browser.plug_in(flags).await;
        let user = badge.replace(' ', "-");
        enrol(&world, &browser, &user).await;
        browser.sees(line).await;
        browser.go(&world.portal(&user, "settings").await).await;
        browser.press(OPEN).await;
        browser.sees(badge).await;
        assert_eq!(browser.run("return document.querySelector('.badge').textContent").await, badge);
        browser.pull_out(&device).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_was_sent_offline_goes_out_when_the_network_is_back() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let secret = world.person("u").await;
    let id = open(&world, &browser, "u", "login").await;
    browser.online(false).await;
    browser.sees("You're offline.").await;
    browser.write("#code", &world.code(&secret)).await;
    browser.press("[value=answer]").await;
    browser.sees("We kept what you typed. We'll try again when you're back.").await;
    browser.press(".offline button").await;
    browser.sees("We'll try again when you're back.").await;
    assert_eq!(browser.run("return document.getElementById('code').value.length").await, 6);
    browser.online(true).await;
    let query = brought_back(&world, &browser).await;
    assert_eq!(world.exchange(&id, &query).await["amr"], json!(["otp"]));
}

/// ux, S1, S2, S7: what only a script knows is said as it is, and once.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_page_says_what_the_browser_can_do_and_nothing_twice() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let seen = "return [...document.querySelectorAll('QUERY')].filter((e) => e.checkVisibility()).length";
    let count = async |query: &str| browser.run(&seen.replace("QUERY", query)).await;

    browser.go(&format!("{}/dev/gallery/create-unsaved", world.base)).await;
    browser.sees("We've asked your password manager to remove it.").await;
    assert_eq!(count("[data-asks=no]").await, 0);

    browser.go(&format!("{}/dev/gallery/passkey-ready", world.base)).await;
    assert_eq!(count("noscript .choices").await, 0);
    browser.run("document.querySelector('#chooser summary').click()").await;
    assert_ne!(count("#chooser .choice").await, 0);
    browser.run("document.documentElement.classList.remove('js')").await;
    assert_eq!(count("#chooser .choice").await, 0, "without scripts they stand in the passkey's place");
    browser.run("document.documentElement.classList.add('js')").await;
    browser.online(false).await;
    browser.sees("You're offline.").await;
    browser.press("[data-start]").await;
    browser.comes_to("return document.querySelector('[data-ceremony]').dataset.state", json!("offline")).await;
    assert_eq!((count(".offline").await, count("[data-when=offline]").await), (json!(0), json!(1)));
    browser.online(true).await;

    // On a machine with a mouse the code is there at once.
    browser.go(&format!("{}/dev/gallery/add-app", world.base)).await;
    assert_eq!((count(".qr svg").await, count(".qr-fold > summary").await), (json!(1), json!(0)));
}

/// ux, 7: double submit.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_submitted_twice_at_once_is_sent_once() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let secret = world.person("u").await;
    let id = open(&world, &browser, "u", "login").await;
    browser.write("#code", &world.code(&secret)).await;
    assert_eq!(browser.run(TWICE).await, 1);
    let query = brought_back(&world, &browser).await;
    assert_eq!(world.exchange(&id, &query).await["amr"], json!(["otp"]));
}

/// Presses the button twice in a row; gives how many times the form was let go.
const TWICE: &str = "
let sent = 0;
document.addEventListener('submit', (event) => { if (!event.defaultPrevented) sent += 1; });
const button = document.querySelector('[value=answer]');
button.click();
button.click();
return sent;
";

/// Y-05: the words are announced as a status, and the focus stays where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_waited_for_in_words_and_may_be_asked_for_again() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    world.person("u").await;
    open(&world, &browser, "u", "login").await;
    // The region is there before its words are: many readers miss one that comes with them.
    let region = "window.region = document.querySelector('[value=answer]').form.querySelector('.said');
        return [window.region.getAttribute('role'), window.region.textContent, window.region.offsetHeight];";
    assert_eq!(browser.run(region).await, json!(["status", "", 0]));
    browser.run("document.addEventListener('submit', (event) => event.preventDefault())").await;
    browser.press("[value=answer]").await;
    browser.sees("Still checking…").await;
    let busy = "document.querySelectorAll('.said .spinner, [value=answer][aria-busy=true]').length";
    let said = "document.querySelector('.said').getAttribute('role'), document.activeElement.value";
    // All of it at once: these words stand for eight seconds.
    let now = format!("return [window.region.isConnected && window.region.textContent, {busy}, {said}]");
    assert_eq!(browser.run(&now).await, json!(["Still checking…", 2, "status", "answer"]));
    browser.sees("This takes longer than usual. You can try again.").await;
    assert_eq!(browser.run(&format!("return [{busy}, {said}]")).await, json!([0, "status", "answer"]));
}

/// Y-03, Y-05: the end of a page's time is said before it comes, as a status, and whoever types goes on typing.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_that_it_closes_before_it_does() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    world.person("u").await;
    open(&world, &browser, "u", "login").await;
    world.clock.advance(569);
    browser.client.refresh().await.expect("a reload asks nothing");
    browser.sees("Open until").await;
    browser.write("#code", "12").await;
    browser.sees("This page closes in 30 seconds.").await;
    let said = "return [document.querySelector('.ends').getAttribute('role'), document.activeElement.id]";
    assert_eq!(browser.run(said).await, json!(["status", "code"]));
    assert_eq!(browser.run("return document.getElementById('code').value").await, "12");
}

/// Who reads for longer than a code lives comes back with a new one.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_on_after_a_recovery_code_is_brought_back_all_the_same() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    world.person("u").await;
    let codes = world.recovery_codes("u").await;
    let id = open(&world, &browser, "u", "login").await;
    let path = browser.url().await.path().to_owned();
    browser.go(&format!("{}{path}?method=recovery_code", world.base)).await;
    browser.write("#code", &codes[0]).await;
    browser.press("[value=answer]").await;
    browser.sees("9 recovery codes left").await;
    world.clock.advance(120);
    browser.run("performance.now = () => 1e9").await;
    browser.press(".actions a.primary").await;
    let query = brought_back(&world, &browser).await;
    assert_eq!(world.exchange(&id, &query).await["amr"], json!(["recovery"]));
}

/// api.md, 5: inline enrolment.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_set_up_on_the_way_to_a_challenge_and_passes_it() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    browser.plug_in(json!({})).await;
    let (id, url) = world.challenge("new", "payout").await;
    browser.go(&url).await;
    browser.press(OPEN).await;
    browser.sees("Set up a second step first").await;
    browser.press("button[value=enrol]").await;
    browser.sees("Sign in faster and safer with a passkey").await;
    browser.press(".hero a").await;
    browser.sees("Create a passkey").await;
    browser.press("[data-start=any]:not([hidden])").await;
    browser.sees("Passkey added").await;
    browser.press(".actions a").await;
    browser.sees("Unlock it with your face, fingerprint, or screen lock.").await;
    browser.press(START).await;
    let query = brought_back(&world, &browser).await;
    let session = world.exchange(&id, &query).await;
    assert_eq!((&session["acr"], &session["user_id"]), (&json!("phr"), &json!("new")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_that_is_already_there_is_no_error() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let authenticator = browser.plug_in(json!({})).await;
    enrol(&world, &browser, "u").await;
    browser.go(&world.portal("u", "add_passkey").await).await;
    browser.press(OPEN).await;
    browser.sees("Confirm it's you").await;
    browser.press(START).await;
    browser.sees("Create a passkey").await;
    browser.press("[data-start=any]:not([hidden])").await;
    browser.sees("This device already has a passkey for Harbour Bank. You're set.").await;
    assert_eq!(browser.held_by(&authenticator).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_that_was_stopped_costs_nothing_and_leaves_the_other_ways() {
    let Some(browser) = Browser::start().await else { return };
    let later = || tokio::time::sleep(std::time::Duration::from_millis(800));
    let world = World::start().await;
    let secret = world.person("u").await;
    let first = browser.plug_in(json!({})).await;
    browser.go(&world.portal("u", "add_passkey").await).await;
    browser.press(OPEN).await;
    browser.write("#code", &world.code(&secret)).await;
    browser.press("[value=answer]").await;
    browser.sees("Create a passkey").await;
    browser.press("[data-start=any]:not([hidden])").await;
    browser.sees("Passkey added").await;
    browser.pull_out(&first).await;
    browser.plug_in(json!({"isUserConsenting": false})).await;
    world.clock.advance(30);

    let id = open(&world, &browser, "u", "payout").await;
    browser.comes_to(&format!("return document.querySelector('{START}') !== null"), json!(true)).await;
    // The second press of a double click stops nothing.
    browser.run(&format!("for (const one of ['{START}', '[data-stop]']) document.querySelector(one).click();")).await;
    browser.sees("Follow the steps your browser shows.").await;
    later().await;
    browser.press("[data-stop]").await;
    browser.sees("That didn't finish.").await;
    assert!(browser.run("return document.title").await.as_str().is_some_and(|title| title.starts_with("Error: ")));
    browser.press(START).await;
    later().await;
    browser.press("[data-stop]:not([hidden])").await;
    browser.sees("Use a phone or another device").await;
    assert_eq!(world.says("GET", &format!("/v1/challenges/{id}"), json!(null)).await["attempts_left"], 5);

    browser.press("[data-choose]:not([hidden])").await;
    browser.press("a.choice[href*=totp]").await;
    browser.write("#code", &world.code(&secret)).await;
    browser.press("[value=answer]").await;
    let query = brought_back(&world, &browser).await;
    assert_eq!(world.exchange(&id, &query).await["amr"], json!(["otp"]));
}

/// ux, S2: where another dialog is open the page waits for another press, without a word and without counting.
#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_that_cannot_begin_yet_may_begin_again() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    browser.plug_in(json!({})).await;
    enrol(&world, &browser, "u").await;
    let id = open(&world, &browser, "u", "payout").await;
    let title = browser.run("return document.title").await;
    let failing = |name: &str| {
        format!(
            "navigator.credentials.get = async () => {{ window.asked = (window.asked ?? 0) + 1; throw new DOMException('', '{name}'); }};"
        )
    };
    browser.run(&failing("OperationError")).await;
    for asked in 1..=2 {
        browser.press(START).await;
        browser
            .comes_to(
                "return [window.asked, document.querySelector('[data-ceremony]').dataset.state]",
                json!([asked, "ready"]),
            )
            .await;
    }
    browser.sees("Unlock it with your face, fingerprint, or screen lock.").await;
    assert_eq!(browser.run("return document.title").await, title, "it is no error");
    assert_eq!(browser.run("return document.activeElement.matches('[data-start]')").await, true);
    // One that was closed after it is the first, and the passkey that is said to be there already is for who creates one.
    browser.run(&failing("NotAllowedError")).await;
    browser.press(START).await;
    browser.comes_to("return document.querySelector('[data-ceremony]').dataset.state", json!("cancelled")).await;
    browser.run(&failing("InvalidStateError")).await;
    browser.press(START).await;
    browser.sees("Something went wrong on our side.").await;
    browser.client.refresh().await.expect("a reload asks nothing");
    browser.press(START).await;
    let query = brought_back(&world, &browser).await;
    assert_eq!(world.exchange(&id, &query).await["acr"], "phr");
}

/// Whoever wanted a security key is asked for one again.
#[tokio::test(flavor = "multi_thread")]
async fn trying_again_asks_for_what_was_asked_for_last() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    browser.go(&world.portal("u", "add_passkey").await).await;
    browser.press(OPEN).await;
    browser.sees("Create a passkey").await;
    let closed = "navigator.credentials.create = async ({ publicKey }) => {
        (window.asked ??= []).push(publicKey.authenticatorSelection?.authenticatorAttachment ?? 'any');
        throw new DOMException('', 'NotAllowedError'); };";
    browser.run(closed).await;
    browser.press("[data-start=security_key]:not([hidden])").await;
    browser.comes_to("return window.asked", json!(["cross-platform"])).await;
    browser.sees("No passkey was created.").await;
    browser.press("[data-again]:not([hidden])").await;
    browser.comes_to("return window.asked", json!(["cross-platform", "cross-platform"])).await;
}

/// A person with a passkey on an authenticator, whose portal is about to add another.
async fn about_to_add_another(world: &World, browser: &Browser) -> String {
    let first = browser.plug_in(json!({})).await;
    enrol(world, browser, "u").await;
    // Lists are in order of time, and two of the same millisecond in no order.
    world.clock.advance(1);
    browser.go(&world.portal("u", "add_passkey").await).await;
    browser.press(OPEN).await;
    browser.press(START).await;
    browser.sees("Create a passkey").await;
    first
}

/// WA-14.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_that_was_removed_meanwhile_is_told_and_forgotten_by_the_browser() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let first = about_to_add_another(&world, &browser).await;
    browser.pull_out(&first).await;
    world.clock.advance(1);
    let second = browser.plug_in(json!({})).await;
    browser.press("[data-start=any]:not([hidden])").await;
    browser.sees("Passkey added").await;

    open(&world, &browser, "u", "payout").await;
    browser.run(HOLD).await;
    browser.press(START).await;
    browser.sees("Checking…").await;
    let factors = world.says("GET", "/v1/users/u/factors", json!(null)).await;
    let newest = factors["data"][1]["id"].as_str().expect("an id");
    world.says("DELETE", &format!("/v1/users/u/factors/{newest}"), json!(null)).await;
    browser.run("window.released = true").await;
    browser.sees("That passkey was removed from your account.").await;
    browser.comes_to_hold(&second, &[]).await;
}

/// WA-14: with the list of methods the browser learns which passkeys are left, and drops no other.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_at_the_list_has_the_browser_forget_what_was_removed() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let first = about_to_add_another(&world, &browser).await;
    let second = browser.plug_in(json!({"transport": "usb"})).await;
    browser.press("[data-start=security_key]:not([hidden])").await;
    browser.sees("Security key added").await;
    let kept = browser.held_by(&second).await[0]["credentialId"].clone();
    assert_eq!(browser.held_by(&first).await.len(), 1);

    let factors = world.says("GET", "/v1/users/u/factors", json!(null)).await;
    let oldest = factors["data"][0]["id"].as_str().expect("an id");
    world.says("DELETE", &format!("/v1/users/u/factors/{oldest}"), json!(null)).await;
    browser.go(&world.portal("u", "settings").await).await;
    browser.press(OPEN).await;
    browser.sees("Your sign-in methods").await;
    browser.comes_to_hold(&first, &[]).await;
    browser.comes_to_hold(&second, &[kept]).await;
}

/// WA-14: a new passkey that is refused is dropped by the browser, unless it is refused because we hold it.
#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_that_was_not_saved_is_forgotten_and_one_that_is_there_stays() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let authenticator = browser.plug_in(json!({})).await;
    let mut held = Vec::new();
    for (user, code, words) in [
        ("u", "factor_duplicate", "This device already has a passkey"),
        ("v", "credential_invalid", "Your browser made a passkey, but we couldn't save it."),
    ] {
        browser.go(&world.portal(user, "add_passkey").await).await;
        browser.press(OPEN).await;
        browser.sees("Create a passkey").await;
        browser.run(&refusing(code)).await;
        browser.press("[data-start=any]:not([hidden])").await;
        browser.sees(words).await;
        if held.is_empty() {
            held = browser.held_by(&authenticator).await.iter().map(|held| held["credentialId"].clone()).collect();
        }
    }
    assert_eq!(held.len(), 1);
    browser.comes_to_hold(&authenticator, &held).await;
}

/// Answers a new passkey with a refusal, in the engine's place.
fn refusing(code: &str) -> String {
    format!(
        "const real = window.fetch; window.fetch = async (path, call) => String(path).endsWith('/credential')
        ? Response.json({{ code: '{code}' }}, {{ status: 409 }}) : real(path, call);"
    )
}

/// Keeps the page's answer back until the test lets it go.
const HOLD: &str = "
const real = window.fetch;
window.fetch = async (url, call) => {
  while (url.endsWith('/credential') && !window.released) await new Promise((go) => setTimeout(go, 50));
  return real(url, call);
};
";

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_new_recovery_codes_makes_no_other_set() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    browser.plug_in(json!({})).await;
    enrol(&world, &browser, "u").await;
    browser.press(".actions .primary").await;
    browser.sees("Confirm it's you").await;
    browser.press(START).await;
    browser.sees("If you lose your devices").await;
    browser.press("main form button").await;
    browser.sees("We won't show them again.").await;
    browser.client.refresh().await.expect("a reload asks nothing");
    browser.sees("Your codes aren't saved yet.").await;
}

/// Y-09.
#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_passed_by_the_keyboard_alone() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let secret = world.person("u").await;
    let (id, url) = world.challenge("u", "login").await;
    browser.go(&url).await;
    browser.run("document.body.focus()").await;
    browser.tab().await;
    let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle").await;
    assert_eq!(outline, "solid", "the focus is seen");
    browser.keys("\u{e007}").await;
    browser.sees("Enter the code from your authenticator app").await;
    browser.keys(&format!("{}\u{e007}", world.code(&secret))).await;
    let query = brought_back(&world, &browser).await;
    assert_eq!(world.exchange(&id, &query).await["amr"], json!(["otp"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_back_button_after_approval_says_it_is_confirmed() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let secret = world.person("u").await;
    let id = open(&world, &browser, "u", "login").await;
    browser.write("#code", &world.code(&secret)).await;
    browser.press("[value=answer]").await;
    let query = brought_back(&world, &browser).await;
    assert!(!world.exchange(&id, &query).await.is_null());
    browser.client.back().await.expect("back");
    browser.sees("You've already confirmed this").await;
    browser.client.refresh().await.expect("a reload asks nothing");
    browser.sees("You've already confirmed this").await;
    // What there was to bring back has been: the way on leads to the application's first page.
    let on = browser.run("return document.querySelector('.actions a').href").await;
    assert_eq!(on, world.back.replace("/back?from=pages", "/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_tabs_one_answers_and_the_other_learns_of_it() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let secret = world.person("u").await;
    let id = open(&world, &browser, "u", "login").await;
    let first = browser.client.window().await.expect("a tab");
    let second = browser.client.new_window(true).await.expect("another tab").handle;
    browser.client.switch_to_window(second).await.expect("it opens");
    browser.go(&format!("{}/challenge/{id}", world.base)).await;
    browser.write("#code", &world.code(&secret)).await;
    browser.press("[value=answer]").await;
    let query = brought_back(&world, &browser).await;
    assert!(!world.exchange(&id, &query).await.is_null());

    browser.client.switch_to_window(first).await.expect("it is still there");
    browser.write("#code", "123456").await;
    browser.press("[value=answer]").await;
    browser.sees("You've already confirmed this").await;
}

/// Y-05, Y-06, and reflow (WCAG 1.4.10).
#[tokio::test(flavor = "multi_thread")]
async fn every_state_fits_320_pixels_and_its_targets_a_finger() {
    let Some(browser) = Browser::start().await else { return };
    let world = World::start().await;
    let index = Visitor::new(&world.base).go("/dev/gallery").await;
    let states: Vec<&str> =
        index.html.split("href=\"/dev/gallery/").skip(1).filter_map(|s| s.split('"').next()).collect();
    assert!(states.len() > 60, "{states:?}");
    browser.width(320).await;
    let mut looked_at = [0, 0];
    for state in states {
        browser.go(&format!("{}/dev/gallery/{state}", world.base)).await;
        let layout = browser.run(LAYOUT).await;
        assert_eq!(layout["faults"], json!([]), "{state}");
        for (sum, name) in looked_at.iter_mut().zip(["targets", "notices"]) {
            *sum += layout[name].as_i64().expect("a number");
        }
        assert!(browser.client.find(Locator::Css("h1")).await.is_ok(), "{state}");
    }
    let [targets, notices] = looked_at;
    assert!(targets > 100 && notices > 10, "{targets} targets, {notices} notices");
}

/// What does not fit, what is too small to press, what has no name, and errors that are not announced; and how much there was to
/// press and to be announced.
const LAYOUT: &str = "
const faults = [];
let [targets, notices] = [0, 0];
const seen = (e) => e.checkVisibility() && !e.closest('.out-of-sight');
if (document.documentElement.scrollWidth > 320) faults.push('scrolls sideways');
if (document.querySelectorAll('h1').length !== 1 || document.documentElement.lang !== 'en') faults.push('h1 or lang');
for (const e of document.querySelectorAll('a, button, summary, input:not([type=hidden]):not([type=checkbox]), select, .check')) {
  // What stands in the middle of a sentence is as high as its line.
  const inside = getComputedStyle(e).display === 'inline' && e.parentElement.innerText.trim() !== e.innerText.trim();
  if (!seen(e) || inside) continue;
  targets += 1;
  const { width, height } = e.getBoundingClientRect();
  if (width < 44 || height < 44) faults.push('small: ' + e.outerHTML.slice(0, 80));
}
for (const e of document.querySelectorAll('input:not([type=hidden]), select')) {
  if (seen(e) && !e.labels.length) faults.push('no label: ' + e.name);
}
for (const e of document.querySelectorAll('.notice:not(noscript *)')) {
  if (!seen(e)) continue;
  notices += 1;
  if (!['alert', 'status'].includes(e.getAttribute('role'))) faults.push('silent: ' + e.textContent);
}
return { faults, targets, notices };
";
