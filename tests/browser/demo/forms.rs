//! The demo application without any script: what its cookies, forms and returns let pass, on both origins, against a real engine.
//! The hosted pages are used through their forms.

use super::bank::{Bank, IBAN, Login, OTHER_IBAN};
use super::guest::Page;
use reqwest::StatusCode;

/// A second demo in the folder is refused before it takes anything from the first one.
#[tokio::test]
async fn a_second_demo_leaves_the_first_one_its_key() {
    let bank = Bank::start().await;
    let refused = bank.start_again().await;
    assert!(refused.contains("another countersign serves"), "{refused}");
    let page = bank.guest(&bank.origins()[0]).log_in("ann").await.follow().await;
    assert!(page.says("You have no second step yet"), "{}", page.body);
}

#[tokio::test]
async fn a_password_alone_lets_in_who_has_no_second_step_and_says_so() {
    let bank = Bank::start().await;
    for origin in bank.origins() {
        let ann = bank.guest(origin);
        let page = ann.log_in("ann").await.follow().await;
        assert!(page.says("You have no second step yet"), "{}", page.body);
        let page = ann.press("/demo/balance", &[]).await.follow().await;
        assert!(page.says("£4,210.17"), "{}", page.body);
        let page = ann.press("/demo/payout", &[("iban", IBAN)]).await.follow().await;
        assert!(page.shows("Set up a second step first") && !page.shows("DE89"), "{}", page.body);
        let page = ann.press("/demo/delete", &[]).await.follow().await;
        assert!(page.says("A passkey is needed"), "{}", page.body);
    }
}

/// S-01.
#[tokio::test]
async fn the_cookie_is_for_the_server_alone_and_changes_at_every_step() {
    let bank = Bank::start().await;
    let codes = bank.recovery_codes("ann").await;
    for (origin, code) in bank.origins().iter().zip(&codes) {
        let ann = bank.guest(origin);
        let first = ann.get("/demo").await.cookie().expect("a first visit sets the cookie");
        let port = origin.rsplit(':').next().expect("a port");
        assert!(first.starts_with(&format!("harbour_bank_{port}=")), "{first}");
        for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(first.contains(attribute), "{first}");
        }
        assert!(!first.contains("Domain"), "{first}");
        let value = |cookie: &str| cookie.split(['=', ';']).nth(1).expect("a value").to_owned();
        assert_eq!(value(&first).len(), 43, "256 bits in base64url");

        let away = ann.log_in("ann").await;
        let second = away.cookie().expect("another cookie after the password");
        let back = ann.answer(&away.location(), "recovery_code", code).await;
        let inside = ann.get(&back).await;
        let third = inside.cookie().expect("another cookie after the second step");
        let values = [value(&first), value(&second), value(&third)];
        assert!(values[0] != values[1] && values[1] != values[2] && values[0] != values[2]);
        assert!(inside.follow().await.says("Signed in with a recovery code"));

        for old in &values[..2] {
            let page = bank.guest(origin).get_with("/demo/account", &format!("harbour_bank_{port}={old}")).await;
            assert_eq!(page.location(), "/demo", "an old cookie opens nothing");
        }
        ann.press("/demo/sign-out", &[]).await;
        let page = bank.guest(origin).get_with("/demo/account", &format!("harbour_bank_{port}={}", values[2])).await;
        assert_eq!(page.location(), "/demo", "nor does that of a session that was signed out");
    }
}

#[tokio::test]
async fn nobody_is_in_between_the_password_and_the_second_step() {
    let bank = Bank::start().await;
    bank.recovery_codes("ann").await;
    let ann = bank.guest(&bank.origins()[1]);
    let away = ann.log_in("ann").await;
    assert!(away.location().starts_with(&bank.origins()[0]), "{}", away.location());
    for path in ["/demo/account", "/demo/security", "/demo/payout", "/demo/delete"] {
        assert_eq!(ann.get(path).await.location(), "/demo", "{path}");
    }
    for path in ["/demo/balance", "/demo/statement", "/demo/payout", "/demo/delete", "/demo/security/visit"] {
        let page = ann.press(path, &[("iban", IBAN), ("flow", "add_passkey")]).await;
        assert_eq!(page.location(), "/demo", "{path}");
    }
}

/// Login CSRF: somebody sends their own return address to another person's browser.
#[tokio::test]
async fn a_return_is_good_only_in_the_browser_that_began() {
    let bank = Bank::start().await;
    bank.recovery_codes("ann").await;
    let codes = bank.recovery_codes("ben").await;
    for (origin, code) in bank.origins().iter().zip(&codes) {
        let (mallory, victim) = (bank.guest(origin), bank.guest(origin));
        let away = mallory.log_in("ben").await;
        let back = mallory.answer(&away.location(), "recovery_code", code).await;
        victim.log_in("ann").await;
        let page = victim.get(&back).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(page.says("We can't use this confirmation"), "{}", page.body);
        assert_eq!(victim.get("/demo/account").await.location(), "/demo", "the victim is not in as somebody else");
        // Nor did the wrong browser spend it.
        assert!(mallory.get(&back).await.follow().await.says("Signed in with a recovery code"));
    }
}

#[tokio::test]
async fn a_return_is_good_once() {
    let bank = Bank::start().await;
    let codes = bank.recovery_codes("ann").await;
    let ann = bank.guest(&bank.origins()[1]);
    let away = ann.log_in("ann").await;
    let back = ann.answer(&away.location(), "recovery_code", &codes[0]).await;
    assert_eq!(ann.get(&back).await.location(), "/demo/account");
    let again = ann.get(&back).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST, "{}", again.body);
    assert_eq!(ann.get("/demo/account").await.status, StatusCode::OK, "who is in stays in");
}

#[tokio::test]
async fn a_return_with_another_state_challenge_or_code_changes_nothing() {
    let bank = Bank::start().await;
    let codes = bank.recovery_codes("ann").await;
    let ann = bank.guest(&bank.origins()[1]);
    let away = ann.log_in("ann").await;
    let back = ann.answer(&away.location(), "recovery_code", &codes[0]).await;
    for (name, code) in ["state", "challenge", "code"].into_iter().zip(&codes[1..]) {
        let away = ann.log_in("ann").await;
        let right = ann.answer(&away.location(), "recovery_code", code).await;
        let page = ann.get(&with_parameter(&right, name, &parameter(&back, name))).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{name}");
        assert_eq!(ann.get("/demo/account").await.location(), "/demo", "{name}");
    }
}

/// The token of payment A for payment B.
#[tokio::test]
async fn a_confirmation_of_one_payout_does_not_serve_another() {
    let bank = Bank::start().await;
    let Login { guest: ann, app } = bank.with_app("ann", &bank.origins()[1]).await;
    let one = ann.press("/demo/payout", &[("iban", IBAN)]).await.location();
    let other = ann.press("/demo/payout", &[("iban", OTHER_IBAN)]).await.location();
    let back = ann.answer(&one, "totp", &app.code()).await;
    // The return of one, dressed as that of the other, whose state is not known outside: the nearest is the other's challenge.
    let challenge =
        other.split("/challenge/").nth(1).and_then(|r| r.split('?').next()).expect("a challenge").to_owned();
    let page = ann.get(&with_parameter(&back, "challenge", &challenge)).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    let page = ann.get("/demo/account").await;
    assert!(page.shows("GB33 BUKB") && !page.shows("DE89") && !page.shows("FR14"), "{}", page.body);
}

#[tokio::test]
async fn a_payout_is_changed_to_what_was_shown() {
    let bank = Bank::start().await;
    for origin in bank.origins() {
        let Login { guest: ann, app } = bank.with_app("ann", origin).await;
        let away = ann.press("/demo/payout", &[("iban", "de89 3704 0044 0532 0130 00")]).await.location();
        let shown = ann.open(&away).await;
        assert!(shown.says("DE89 3704 0044 0532 0130 00") && shown.says("Ann Keller"), "{}", shown.body);
        assert!(!shown.body.contains("recovery_code"), "recovery codes confirm no payout");
        let back = ann.answer_shown(&shown, "totp", &app.code()).await;
        let page = ann.get(&back).await.follow().await;
        assert!(
            page.shows("Payout account changed") && page.shows("Now <span class=\"iban\">DE89 3704"),
            "{}",
            page.body
        );
        assert!(page.says("payout.update → satisfied: true"), "the drawer shows it: {}", page.body);
        bank.erase("ann").await;
    }
}

#[tokio::test]
async fn a_fresh_sign_in_lets_the_statement_through_and_a_passkey_is_asked_for_where_only_that_will_do() {
    let bank = Bank::start().await;
    let Login { guest: ann, .. } = bank.with_app("ann", &bank.origins()[1]).await;
    let page = ann.press("/demo/balance", &[]).await.follow().await;
    assert!(page.says("£4,210.17") && page.says("login → satisfied: true"), "{}", page.body);
    let page = ann.press("/demo/statement", &[]).await;
    assert_eq!(page.location(), "/demo/account");
    let page = page.follow().await;
    assert!(page.says("Quay Street Bakery") && page.says("statement.view → fresh_session"), "{}", page.body);
    let page = ann.press("/demo/delete", &[]).await.follow().await;
    assert!(page.says("A passkey is needed") && page.says("account.delete → enrolment_required"), "{}", page.body);
}

#[tokio::test]
async fn a_proof_that_no_longer_counts_is_asked_for_again() {
    let bank = Bank::start().await;
    let Login { guest: ann, app } = bank.with_app("ann", &bank.origins()[1]).await;
    bank.end_sessions("ann").await;
    let away = ann.press("/demo/statement", &[]).await.location();
    assert!(away.contains("/challenge/"), "{away}");
    let away = ann.press("/demo/balance", &[]).await.location();
    assert!(away.contains("/challenge/"), "{away}");
    assert!(!ann.get("/demo/account").await.shows("£4,210.17"));
    let back = ann.answer(&away, "totp", &app.code()).await;
    assert!(ann.get(&back).await.follow().await.shows("£4,210.17"));
}

#[tokio::test]
async fn nothing_is_left_of_a_confirmation_that_was_used_and_of_a_login_that_was_ended() {
    let bank = Bank::start().await;
    let Login { guest: ann, app } = bank.with_app("ann", &bank.origins()[1]).await;
    assert_eq!(bank.sessions("ann").await, 1);
    let away = ann.press("/demo/payout", &[("iban", IBAN)]).await.location();
    let back = ann.answer(&away, "totp", &app.code()).await;
    assert!(ann.get(&back).await.follow().await.shows("Payout account changed"));
    assert_eq!(bank.sessions("ann").await, 1, "that of the payout is used up");
    ann.press("/demo/sign-out", &[]).await;
    assert_eq!(bank.sessions("ann").await, 0);
}

#[tokio::test]
async fn who_cancels_has_changed_nothing() {
    let bank = Bank::start().await;
    for origin in bank.origins() {
        let Login { guest: ann, .. } = bank.with_app("ann", origin).await;
        let away = ann.press("/demo/payout", &[("iban", IBAN)]).await.location();
        let page = ann.get(&ann.cancel(&away).await).await.follow().await;
        assert!(page.shows("Nothing was changed.") && page.shows("GB33 BUKB"), "{}", page.body);

        ann.press("/demo/sign-out", &[]).await;
        let away = ann.log_in("ann").await.location();
        let page = ann.get(&ann.cancel(&away).await).await.follow().await;
        assert!(page.says("Nothing was changed."), "{}", page.body);
        assert_eq!(ann.get("/demo/account").await.location(), "/demo");
        bank.erase("ann").await;
    }
}

#[tokio::test]
async fn a_form_of_another_site_session_or_method_is_refused() {
    let bank = Bank::start().await;
    let origin = &bank.origins()[1];
    let ann = bank.guest(origin);
    ann.log_in("ann").await;
    let csrf = ann.get("/demo/account").await.field("csrf");
    let others = bank.guest(origin).get("/demo").await.field("csrf");
    let elsewhere = [Some("https://evil.example"), Some(bank.origins()[0].as_str()), Some("null"), None];
    for (csrf, from) in elsewhere.into_iter().map(|from| (csrf.as_str(), from)).chain([
        ("", Some(origin.as_str())),
        ("x", Some(origin.as_str())),
        (others.as_str(), Some(origin.as_str())),
    ]) {
        let page = ann.post("/demo/balance", &[("csrf", csrf)], from).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{csrf} from {from:?}");
    }
    for path in ["/demo/balance", "/demo/sign-out", "/demo/security/remove"] {
        assert_eq!(ann.get(path).await.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert!(!ann.get("/demo/account").await.says("£4,210.17"));
}

#[tokio::test]
async fn no_page_shows_a_key_a_token_or_a_code() {
    let bank = Bank::start().await;
    let Login { guest: ann, .. } = bank.with_app("ann", &bank.origins()[1]).await;
    ann.press("/demo/statement", &[]).await;
    ann.press("/demo/payout", &[("iban", IBAN)]).await;
    for path in ["/demo/account", "/demo/security", "/demo/panes"] {
        let page = ann.get(path).await;
        assert!(page.body.contains("sk_test_•"), "{path}");
        for kind in ["sk_test_", "st_", "ct_", "token="] {
            for (place, _) in page.body.match_indices(kind) {
                let next = page.body[place + kind.len()..].chars().next();
                let is_name = page.body[..place].ends_with(|sign: char| sign.is_alphanumeric());
                assert!(next == Some('•') || next == Some('c') && kind == "ct_" || is_name, "{path}: {kind}");
            }
        }
        assert!(!page.body.contains("eyJ"), "{path}: no JWT but its claims");
    }
}

#[tokio::test]
async fn every_page_has_its_headers_and_other_names_lead_home() {
    let bank = Bank::start().await;
    for origin in bank.origins() {
        let page = bank.guest(origin).get("/demo").await;
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(
            !policy.contains("unsafe") && !page.body.contains("style=") && !page.body.contains("<style"),
            "{policy}"
        );
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "same-origin");
        let numbered = origin.replace("localhost", "127.0.0.1");
        assert!(page.header("request-id").starts_with("req_"));
        let page = bank.guest(&numbered).get("/demo?x=1").await;
        assert_eq!(page.location(), format!("{origin}/demo?x=1"));
        assert!(page.header("request-id").starts_with("req_"));
        assert_eq!(bank.guest(origin).get("/").await.location(), "/demo");
    }
}

#[tokio::test]
async fn a_silent_engine_gives_a_page_that_says_so() {
    let (guest, _stop) = Bank::without_engine().await;
    let page: Page = guest.log_in("ann").await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(page.says("The second step doesn't answer") && page.says("Nothing was changed"), "{}", page.body);
    assert_eq!(guest.get("/demo/account").await.location(), "/demo", "no answer is no approval");
}

#[tokio::test]
async fn a_wrong_password_is_told_in_one_way_whatever_was_wrong() {
    let bank = Bank::start().await;
    let ann = bank.guest(&bank.origins()[0]);
    for (name, password) in [("ann", "wrong"), ("nobody", "harbour")] {
        let page = ann.press_on("/demo", "/demo", &[("username", name), ("password", password)]).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.says("That name and password don't match."), "{}", page.body);
    }
    assert!(!ann.get("/demo").await.says("Sign out"));
}

fn parameter(address: &str, name: &str) -> String {
    let url = url::Url::parse(address).expect("an address");
    url.query_pairs().find(|(key, _)| key == name).expect("the parameter").1.into_owned()
}

fn with_parameter(address: &str, name: &str, value: &str) -> String {
    let mut url = url::Url::parse(address).expect("an address");
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(pairs.iter().map(|(key, old)| (key.as_str(), if key == name { value } else { old.as_str() })));
    url.into()
}
