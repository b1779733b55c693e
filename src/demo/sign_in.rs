//! Signing in: the password here, the second step at the engine.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;

use super::api::{Session, Trouble};
use super::browsers::{Notice, Person, Stage, StepUp};
use super::customers;
use super::pages;
use super::purpose::Purpose;
use super::step_up;
use super::visit::{Fields, Visit};

/// `GET /demo`
pub async fn page(visit: Visit) -> Response {
    match visit.with(|b| b.signed_in().is_some()) {
        true => Redirect::to("/demo/account").into_response(),
        false => pages::sign_in(&visit, "", false).await,
    }
}

/// `POST /demo`: the password.
pub async fn password(visit: Visit, fields: Fields) -> Response {
    let name = fields.text("username");
    let Some(customer) = customers::sign_in(name, fields.text("password")) else {
        return (StatusCode::UNPROCESSABLE_ENTITY, pages::sign_in(&visit, name, true).await).into_response();
    };
    // Another id than before the password, so that nobody can have planted it; and a name for this login.
    visit.rotate();
    let person = Person { customer, binding: format!("login-{}", visit.secret()), stage: Stage::Password };
    let csrf = visit.secret();
    visit.with(|b| {
        b.sign_out();
        b.csrf = csrf;
        b.person = Some(person.clone());
    });
    if let Err(trouble) = introduce(&visit, &person).await {
        return pages::trouble(&visit, &trouble).await;
    }
    step_up::ask(&visit, &person, Purpose::SignIn, async || {
        enter(&visit, &person, None);
        let notice = Notice {
            title: "You have no second step yet".to_owned(),
            text: "Anybody who learns your password can get in. A passkey takes about a minute.".to_owned(),
            link: Some(("Set up a second step", "/demo/security")),
            ..Notice::default()
        };
        visit.tell(notice, "/demo/account")
    })
    .await
}

/// Tells the engine how pages may call the person.
async fn introduce(visit: &Visit, person: &Person) -> Result<(), Trouble> {
    let customer = person.customer;
    let body = json!({ "display_name": customer.full_name, "login_hint": customer.name });
    visit.bank.engine.put(visit, &format!("/v1/users/{}", customer.user_id), body).await.map(drop)
}

/// The second step of a login is done.
pub fn entered(visit: &Visit, person: &Person, session: &Session) -> Response {
    let step_up = StepUp::from(session);
    let is_recovery = session.amr.iter().any(|how| how == "recovery");
    let mut notice = Notice { good: true, title: format!("Signed in with {}", step_up.with), ..Notice::default() };
    if is_recovery {
        notice.text = "Lost a device? Remove it, so that nobody else can use it, and add a new one.".to_owned();
        notice.link = Some(("Review your ways to sign in", "/demo/security"));
    }
    enter(visit, person, Some(step_up));
    visit.tell(notice, "/demo/account")
}

/// Lets a person in, with the step-up session that they earned.
pub fn enter(visit: &Visit, person: &Person, step_up: Option<StepUp>) {
    visit.with(|b| b.person = Some(Person { stage: Stage::In(step_up), ..person.clone() }));
}

/// `POST /demo/sign-out`: ends the login here and the step-up session at the engine.
pub async fn sign_out(visit: Visit, _: Fields) -> Response {
    let id = visit.with(|b| b.signed_in().and_then(|(_, step_up)| step_up.map(|s| s.id.clone())));
    let csrf = visit.secret();
    visit.with(|b| {
        b.sign_out();
        b.csrf = csrf;
    });
    visit.rotate();
    if let Some(id) = id {
        // It runs out by itself where the engine does not answer.
        let _ = visit.bank.engine.delete(&visit, &format!("/v1/sessions/{id}")).await;
    }
    visit.tell(Notice { good: true, title: "You are signed out".to_owned(), ..Notice::default() }, "/demo")
}

impl From<&Session> for StepUp {
    fn from(session: &Session) -> StepUp {
        let knows = |how: &str| session.amr.iter().any(|a| a == how);
        let with = match () {
            () if knows("pop") => "a passkey",
            () if knows("otp") => "an authenticator app",
            () if knows("sms") => "a text message",
            () if knows("recovery") => "a recovery code",
            () => "a second step",
        };
        StepUp {
            id: session.id.clone(),
            token: session.token.clone(),
            with: with.to_owned(),
            acr: session.acr.clone(),
            at: session.auth_time.get(11..16).unwrap_or_default().to_owned(),
        }
    }
}
