//! The whole story in a real browser: every method, every level of proof, and the way back, on the engine's own origin and on another.

use serde_json::json;

use super::bank::{App, Bank, IBAN};
use crate::browser::Browser;

/// Starts a ceremony on a hosted page.
const START: &str = "[data-start]:not([hidden])";
/// Leads from a finished visit back to the bank.
const DONE: &str = ".actions a[href$='/leave']";

#[tokio::test(flavor = "multi_thread")]
async fn ann_on_the_engines_own_origin() {
    tell(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ann_on_another_origin() {
    tell(1).await;
}

async fn tell(origin: usize) {
    let Some(browser) = Browser::start().await else { return };
    let bank = Bank::start().await;
    let ann = Ann { browser, origin: bank.origins()[origin].clone() };
    ann.browser.plug_in(json!({})).await;
    ann.adds_a_passkey().await;
    ann.signs_in_with_it_and_looks_around().await;
    ann.changes_her_payout_account().await;
    let app = ann.adds_an_app().await;
    let code = ann.makes_recovery_codes().await;
    ann.adds_a_phone().await;
    ann.signs_in_otherwise(&app, &code).await;
    ann.removes_the_phone().await;
    ann.deletes_her_account().await;
}

struct Ann {
    browser: Browser,
    origin: String,
}

impl Ann {
    async fn adds_a_passkey(&self) {
        self.gives_her_password().await;
        self.browser.sees("You have no second step yet").await;
        self.goes("/demo/delete").await;
        self.presses("/demo/delete").await;
        self.browser.sees("A passkey is needed").await;
        self.browser.press(".notice .button").await;
        self.is_at("/demo/security").await;
        self.browser.press(".hero button").await;
        self.opens("lets you look after them here").await;
        self.browser.press("[data-start=any]:not([hidden])").await;
        self.browser.sees("Passkey added").await;
        self.browser.press(DONE).await;
        self.is_at("/demo/security").await;
        self.browser.sees("This device only").await;
    }

    async fn signs_in_with_it_and_looks_around(&self) {
        self.signs_out().await;
        self.gives_her_password().await;
        self.confirms_with_her_passkey("You're about to sign in").await;
        self.browser.sees("Signed in with a passkey").await;
        self.is_at("/demo/account").await;
        self.presses("/demo/balance").await;
        self.browser.sees("£4,210.17").await;
        self.presses("/demo/statement").await;
        self.browser.sees("Quay Street Bakery").await;
        self.browser.sees("statement.view → fresh_session").await;
    }

    async fn changes_her_payout_account(&self) {
        self.asks_for_another_payout_account().await;
        self.opens_the_challenge("DE89 3704 0044 0532 0130 00").await;
        self.browser.press(".foot button").await;
        self.browser.sees("The second step wasn't finished.").await;
        self.browser.sees("Nothing was changed.").await;
        self.browser.sees("Now GB33 BUKB").await;

        self.asks_for_another_payout_account().await;
        self.confirms_with_her_passkey("change payout account").await;
        self.browser.sees("Payout account changed").await;
        self.browser.sees("Now DE89 3704").await;
        self.browser.run("document.querySelectorAll('.call').forEach(call => call.open = true)").await;
        self.browser.sees("\"ctx\": ").await;
    }

    async fn adds_an_app(&self) -> App {
        self.visits("add_authenticator_app").await;
        self.browser.sees("Scan this").await;
        let key = self.browser.run("return document.getElementById('key').textContent").await;
        let app = App::new(&key.as_str().expect("a key").replace(' ', ""));
        self.browser.write("#code", &app.earlier_code().await).await;
        self.browser.press("main form .primary").await;
        self.browser.sees("Authenticator app added").await;
        self.browser.press(DONE).await;
        self.is_at("/demo/security").await;
        app
    }

    async fn makes_recovery_codes(&self) -> String {
        self.visits("recovery_codes").await;
        self.browser.sees("Get recovery codes").await;
        self.browser.press("main form .primary").await;
        self.browser.sees("I've saved them").await;
        let code = self.browser.run("return document.querySelector('#codes code').textContent").await;
        self.browser.press("[name=saved]").await;
        self.browser.press("[value=confirm]").await;
        self.browser.sees("Recovery codes saved").await;
        self.browser.press(DONE).await;
        self.is_at("/demo/security").await;
        self.browser.sees("10 of 10 are left.").await;
        code.as_str().expect("a code").to_owned()
    }

    async fn adds_a_phone(&self) {
        self.visits("add_phone").await;
        self.browser.sees("What number should we text?").await;
        self.browser.run("document.getElementById('country').value = 'US'").await;
        self.browser.write("#number", "415 555 0123").await;
        self.browser.press("[value=number]").await;
        self.types_the_code_that_was_texted("[value=answer]").await;
        self.browser.sees("Phone added").await;
        self.browser.press(DONE).await;
        self.is_at("/demo/security").await;
        self.browser.sees("Text message").await;
    }

    async fn signs_in_otherwise(&self, app: &App, recovery_code: &str) {
        self.signs_out().await;
        self.gives_her_password().await;
        self.chooses("sms").await;
        self.browser.press("[value=send]").await;
        self.types_the_code_that_was_texted("[value=answer]").await;
        self.browser.sees("Signed in with a text message").await;

        self.signs_out().await;
        self.gives_her_password().await;
        self.chooses("totp").await;
        self.browser.write("#code", &app.code()).await;
        self.browser.press("[value=answer]").await;
        self.browser.sees("Signed in with an authenticator app").await;

        self.signs_out().await;
        self.gives_her_password().await;
        self.chooses("recovery_code").await;
        self.browser.write("#code", recovery_code).await;
        self.browser.press("[value=answer]").await;
        self.browser.sees("9 recovery codes left").await;
        self.browser.press("a[href*='/demo/return']").await;
        self.browser.sees("Signed in with a recovery code").await;
    }

    async fn removes_the_phone(&self) {
        self.goes("/demo/security").await;
        self.browser.press(".factors li:last-child button").await;
        self.confirms_with_her_passkey("To be removed").await;
        self.browser.sees("Phone is removed").await;
        self.is_at("/demo/security").await;
    }

    async fn deletes_her_account(&self) {
        self.goes("/demo/delete").await;
        self.presses("/demo/delete").await;
        self.confirms_with_her_passkey("delete account").await;
        self.browser.sees("Your account is deleted").await;
        self.goes("/demo/account").await;
        self.browser.sees("Sign in").await;
        self.gives_her_password().await;
        self.browser.sees("You have no second step yet").await;
    }

    async fn gives_her_password(&self) {
        self.goes("/demo").await;
        self.browser.write("#username", "ann").await;
        self.browser.write("#password", "harbour").await;
        self.presses("/demo").await;
    }

    async fn signs_out(&self) {
        self.presses("/demo/sign-out").await;
        self.browser.sees("You are signed out").await;
    }

    async fn asks_for_another_payout_account(&self) {
        self.goes("/demo/payout").await;
        self.browser.write("#iban", IBAN).await;
        self.presses("/demo/payout").await;
    }

    /// Presses a button of the security page that leads to the hosted pages, and opens what it leads to. Who signed in a moment ago
    /// with the strongest of the factors is not asked again.
    async fn visits(&self, flow: &str) {
        self.goes("/demo/security").await;
        self.browser.press(&format!("form:has([value={flow}]) button")).await;
        self.opens("lets you look after them here").await;
    }

    /// Presses on from the page behind a link, which must say this.
    async fn opens(&self, words: &str) {
        self.browser.sees(words).await;
        self.browser.press("main form button").await;
    }

    async fn opens_the_challenge(&self, words: &str) {
        self.opens("asks you to confirm something").await;
        self.browser.sees(words).await;
    }

    async fn confirms_with_her_passkey(&self, words: &str) {
        self.opens_the_challenge(words).await;
        self.browser.press(START).await;
    }

    async fn chooses(&self, method: &str) {
        self.opens_the_challenge("Choose another way").await;
        self.browser.press("#chooser > summary").await;
        self.browser.press(&format!(".choice[href*='method={method}']")).await;
    }

    /// Looks at the demo's phone and comes back.
    async fn types_the_code_that_was_texted(&self, then: &str) {
        self.browser.sees("We've sent a code").await;
        let page = self.browser.url().await;
        self.goes("/demo/texts").await;
        let text = self.browser.run("return document.querySelector('.texts pre').textContent").await;
        let code = text.as_str().and_then(|text| text.split(' ').next()).expect("a code").to_owned();
        self.browser.go(page.as_str()).await;
        self.browser.write("#code", &code).await;
        self.browser.press(then).await;
    }

    async fn goes(&self, path: &str) {
        self.browser.go(&format!("{}{path}", self.origin)).await;
    }

    /// Presses the button of the form that goes to this path.
    async fn presses(&self, path: &str) {
        self.browser.press(&format!("form[action='{path}'] button")).await;
    }

    async fn is_at(&self, path: &str) {
        let expected = format!("{}{path}", self.origin);
        for _ in 0..300 {
            if self.browser.url().await.as_str() == expected {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("never came to {expected}, but is at {}", self.browser.url().await);
    }
}
