//! The second step, from the relying party's side: begin a challenge, believe its return, check the session, then act.
//!
//! A return is believed only in the browser that began the challenge (`state`), with the secret that never left the server (PKCE),
//! once, and only for the purpose, the person and the login that it was begun for.

use axum::extract::Query;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::api::{Session, Trouble};
use super::browsers::{Notice, Person, Stage};
use super::customers::Customer;
use super::purpose::Purpose;
use super::visit::Visit;
use super::{account, journal, pages, security, sign_in};

/// A step-up that is under way in a browser.
pub struct Pending {
    /// The guard of this browser.
    pub state: String,
    verifier: String,
    challenge: String,
    purpose: Purpose,
}

/// What came of the wish for a second step.
pub enum Begun {
    /// The person must prove it: there.
    Away(String),
    /// An earlier proof is fresh enough.
    Through(Session),
    /// The person has nothing enrolled that would do.
    EnrolmentRequired,
}

/// Asks the engine for a second step. An earlier session of the same login may spare the person the proof.
pub async fn begin(visit: &Visit, person: &Person, purpose: Purpose) -> Result<Begun, Trouble> {
    let (state, verifier) = (visit.secret(), visit.secret());
    let mut body = purpose.members(person.customer);
    body["user_id"] = json!(person.customer.user_id);
    body["binding"] = json!(person.binding);
    body["client"] = json!({ "ip": visit.address });
    if !visit.user_agent.is_empty() {
        body["client"]["user_agent"] = json!(visit.user_agent);
    }
    body["return_url"] = json!(format!("{}/demo/return", visit.bank.settings.origin));
    body["state"] = json!(state);
    body["code_challenge"] = json!(URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())));
    if let (Purpose::Statement, Stage::In(Some(step_up))) = (&purpose, &person.stage) {
        body["session_token"] = json!(step_up.token);
    }
    let answer = visit.bank.engine.post(visit, "/v1/challenges", body).await?;
    match answer.text("status") {
        "pending" => {
            let challenge = answer.text("id").to_owned();
            visit.with(|b| b.expect_return(Pending { state, verifier, challenge, purpose }));
            Ok(Begun::Away(answer.text("url").to_owned()))
        }
        "approved" => Ok(Begun::Through(answer.session()?)),
        "enrolment_required" => Ok(Begun::EnrolmentRequired),
        _ => Err(Trouble::Silent),
    }
}

/// Begins, and goes where that leads; `without` is what the bank does for who has nothing enrolled that would do.
pub async fn ask(
    visit: &Visit,
    person: &Person,
    purpose: Purpose,
    without: impl AsyncFnOnce() -> Response,
) -> Response {
    let begun = match begin(visit, person, purpose.clone()).await {
        Ok(begun) => begun,
        Err(trouble) => return pages::trouble(visit, &trouble).await,
    };
    match begun {
        Begun::Away(url) => Redirect::to(&url).into_response(),
        Begun::Through(session) => done(visit, person, purpose, session).await,
        Begun::EnrolmentRequired => without().await,
    }
}

/// What the hosted page brings back.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Return {
    code: String,
    error: String,
    challenge: String,
    state: String,
}

/// `GET /demo/return`
pub async fn returned(visit: Visit, Query(given): Query<Return>) -> Response {
    let found = visit.with(|b| b.take_pending(&given.state).zip(b.person.clone()));
    let Some((pending, person)) = found.filter(|(p, _)| p.challenge == given.challenge) else {
        return pages::not_yours(&visit).await;
    };
    if given.code.is_empty() {
        return called_off(&visit, &pending.purpose, &given.error);
    }
    let path = format!("/v1/challenges/{}/exchange", pending.challenge);
    let body = json!({ "code": given.code, "code_verifier": pending.verifier });
    let exchanged = visit.bank.engine.post(&visit, &path, body).await;
    match exchanged.and_then(|answer| answer.session()) {
        Ok(session) => {
            // Who is now known better gets another cookie (OWASP ASVS 7.2.4).
            visit.rotate();
            done(&visit, &person, pending.purpose, session).await
        }
        Err(Trouble::Refused(problem)) if is_about_the_code(&problem.code) => pages::not_yours(&visit).await,
        Err(trouble) => pages::trouble(&visit, &trouble).await,
    }
}

/// Wrong, spent or run out, rather than a fault of ours.
fn is_about_the_code(problem: &str) -> bool {
    matches!(problem, "code_incorrect" | "code_reused" | "code_expired" | "challenge_not_pending")
}

fn called_off(visit: &Visit, purpose: &Purpose, error: &str) -> Response {
    let text = match error {
        "expired" => "The request timed out. Start again when you're ready.",
        _ => "The second step wasn't finished.",
    };
    if *purpose == Purpose::SignIn {
        visit.with(|b| b.sign_out());
    }
    let notice = Notice { title: "Nothing was changed.".to_owned(), text: text.to_owned(), ..Notice::default() };
    visit.tell(notice, purpose.home())
}

/// Does what the step-up was for.
async fn done(visit: &Visit, person: &Person, purpose: Purpose, session: Session) -> Response {
    if !is_for(&session, person, &purpose) {
        return pages::not_yours(visit).await;
    }
    let done = match purpose {
        Purpose::SignIn => Ok(sign_in::entered(visit, person, &session)),
        Purpose::Balance => Ok(account::proved_again(visit, person, &session)),
        Purpose::Statement => account::show_statement(visit, person, &session).await,
        Purpose::Payout { .. } => account::change_payout(visit, person, &purpose, &session).await,
        Purpose::Delete => account::delete_now(visit, person, &purpose, &session).await,
        Purpose::Remove { .. } => security::remove_now(visit, person, &purpose, &session).await,
    };
    match done {
        Ok(response) => response,
        Err(trouble) => pages::trouble(visit, &trouble).await,
    }
}

/// Whether a session was earned by this person, in this login, for this purpose.
fn is_for(session: &Session, person: &Person, purpose: &Purpose) -> bool {
    session.user_id == person.customer.user_id
        && session.binding.as_deref() == Some(person.binding.as_str())
        && session.action == purpose.action()
}

/// Asks the engine to vouch for a token before something is done on its word, and uses it up where `consume`.
pub async fn vouched(
    visit: &Visit,
    customer: &Customer,
    purpose: &Purpose,
    token: &str,
    consume: bool,
) -> Result<bool, Trouble> {
    let mut body = json!({ "token": token, "action": purpose.action(), "consume": consume });
    if !purpose.require().is_null() {
        body["require"] = purpose.require();
    }
    let answer = visit.bank.engine.post(visit, "/v1/sessions/introspect", body).await?;
    Ok(answer.body["satisfied"] == Value::Bool(true) && answer.text("user_id") == customer.user_id)
}

/// Whether a session is for just this change: the engine vouches for its JWT, which carries the digest of what was shown, and uses
/// it up, because it was for this once.
pub async fn confirmed(
    visit: &Visit,
    customer: &Customer,
    purpose: &Purpose,
    session: &Session,
) -> Result<bool, Trouble> {
    let jwt = session.jwt.as_deref().unwrap_or_default();
    Ok(vouched(visit, customer, purpose, jwt, true).await? && is_bound_to(session, purpose, customer))
}

/// Whether a session's JWT is bound to just these details. To be asked of a token that the engine has vouched for.
fn is_bound_to(session: &Session, purpose: &Purpose, customer: &Customer) -> bool {
    let claims = session.jwt.as_deref().and_then(journal::claims);
    let bound = claims.as_ref().and_then(|c| c["ctx"].as_str());
    bound == Some(context(&purpose.details(customer)).as_str())
}

/// Base64url SHA-256 of the canonical JSON (RFC 8785): strings only, and members in sorted order, as they are written.
fn context(details: &[Value]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(Value::from(details).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::customers::CUSTOMERS;

    fn session(details: &[Value]) -> Session {
        let claims = json!({ "ctx": context(details) }).to_string();
        Session {
            id: "ses_1".to_owned(),
            token: "st_1".to_owned(),
            jwt: Some(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))),
            user_id: "harbour-1001".to_owned(),
            action: "payout.update".to_owned(),
            acr: "aal2".to_owned(),
            amr: vec!["otp".to_owned()],
            auth_time: "2026-01-01T00:00:00.000Z".to_owned(),
            binding: Some("login-1".to_owned()),
        }
    }

    fn payout(iban: &str) -> Purpose {
        Purpose::Payout { iban: iban.to_owned() }
    }

    #[test]
    fn a_session_for_one_payout_is_refused_for_another() {
        let ann = &CUSTOMERS[0];
        let earned = session(&payout("DE89370400440532013000").details(ann));
        assert!(is_bound_to(&earned, &payout("DE89370400440532013000"), ann));
        assert!(!is_bound_to(&earned, &payout("GB33BUKB20201555555555"), ann));
        assert!(!is_bound_to(&Session { jwt: None, ..earned }, &payout("DE89370400440532013000"), ann));
    }

    #[test]
    fn a_session_of_another_person_login_or_action_is_refused() {
        let person = Person { customer: &CUSTOMERS[0], binding: "login-1".to_owned(), stage: Stage::Password };
        let change = payout("DE89370400440532013000");
        assert!(is_for(&session(&[]), &person, &change));
        assert!(!is_for(&session(&[]), &person, &Purpose::Delete));
        assert!(!is_for(&session(&[]), &Person { binding: "login-2".to_owned(), ..person.clone() }, &change));
        assert!(!is_for(&session(&[]), &Person { customer: &CUSTOMERS[1], ..person.clone() }, &change));
        assert!(!is_for(&Session { binding: None, ..session(&[]) }, &person, &change));
    }

    /// The example of api.md: members in sorted order, no spaces.
    #[test]
    fn the_context_is_the_digest_of_canonical_json() {
        let details = [json!({ "value": "…1234", "label": "New IBAN" })];
        assert_eq!(Value::from(&details[..]).to_string(), r#"[{"label":"New IBAN","value":"…1234"}]"#);
    }
}
