//! The application's pages: what each template is given.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

use super::api::Trouble;
use super::browsers::{Notice, Person, Stage, StepUp};
use super::customers::{CUSTOMERS, Customer, PASSWORD};
use super::panes::Panes;
use super::security::{Factor, User};
use super::visit::Visit;
use super::{assets, iban};

/// What every page has around it.
struct Frame {
    csrf: String,
    who: Option<&'static Customer>,
    notice: Option<Notice>,
    panes: Panes,
    css: &'static str,
    js: &'static str,
    icon: &'static str,
}

impl Frame {
    async fn of(visit: &Visit) -> Frame {
        let notice = visit.with(|b| b.notice.take());
        Frame { notice, ..Frame::without_notice(visit).await }
    }

    async fn without_notice(visit: &Visit) -> Frame {
        let panes = Panes::of(visit).await;
        let (css, js, icon) = assets::addresses();
        visit.with(|b| Frame {
            csrf: b.csrf.clone(),
            who: b.signed_in().map(|(customer, _)| customer),
            notice: None,
            panes,
            css,
            js,
            icon,
        })
    }
}

/// Writes a page.
pub fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(page) => Html(page).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "demo/sign_in.html")]
struct SignIn<'a> {
    frame: Frame,
    customers: &'static [Customer],
    password: &'static str,
    username: &'a str,
    wrong: bool,
}

/// Name and password.
pub async fn sign_in(visit: &Visit, username: &str, wrong: bool) -> Response {
    html(&SignIn { frame: Frame::of(visit).await, customers: CUSTOMERS, password: PASSWORD, username, wrong })
}

#[derive(Template)]
#[template(path = "demo/account.html")]
struct Account<'a> {
    frame: Frame,
    customer: &'static Customer,
    step_up: Option<&'a StepUp>,
    payout: String,
}

/// What somebody can do.
pub async fn account(visit: &Visit, person: &Person) -> Response {
    let step_up = match &person.stage {
        Stage::In(step_up) => step_up.as_ref(),
        Stage::Password => None,
    };
    let payout = iban::groups(&visit.bank.accounts.payout(person.customer));
    html(&Account { frame: Frame::of(visit).await, customer: person.customer, step_up, payout })
}

#[derive(Template)]
#[template(path = "demo/payout.html")]
struct Payout<'a> {
    frame: Frame,
    payout: String,
    given: &'a str,
    wrong: bool,
}

/// Where money goes.
pub async fn payout(visit: &Visit, person: &Person, given: &str, wrong: bool) -> Response {
    let payout = iban::groups(&visit.bank.accounts.payout(person.customer));
    html(&Payout { frame: Frame::of(visit).await, payout, given, wrong })
}

#[derive(Template)]
#[template(path = "demo/delete.html")]
struct Delete {
    frame: Frame,
    customer: &'static Customer,
}

/// The end of it all.
pub async fn delete(visit: &Visit, person: &Person) -> Response {
    html(&Delete { frame: Frame::of(visit).await, customer: person.customer })
}

#[derive(Template)]
#[template(path = "demo/security.html")]
struct Security<'a> {
    frame: Frame,
    factors: Vec<&'a Factor>,
    user: &'a User,
}

/// Ways to sign in.
pub async fn security(visit: &Visit, user: &User) -> Response {
    html(&Security { frame: Frame::of(visit).await, factors: user.active(), user })
}

#[derive(Template)]
#[template(path = "demo/stopped.html")]
struct Stopped<'a> {
    frame: Frame,
    title: &'a str,
    text: &'a str,
    reference: &'a str,
}

async fn stopped(visit: &Visit, status: StatusCode, title: &str, text: &str, reference: &str) -> Response {
    let page = html(&Stopped { frame: Frame::of(visit).await, title, text, reference });
    (status, page).into_response()
}

#[derive(Template)]
#[template(path = "demo/texts.html")]
struct Texts {
    frame: Frame,
}

/// `GET /demo/texts`: a phone, for a window of its own; what happened is for the page beside it.
pub async fn texts(visit: Visit) -> Response {
    html(&Texts { frame: Frame::without_notice(&visit).await })
}

/// A call to the engine came to nothing.
pub async fn trouble(visit: &Visit, trouble: &Trouble) -> Response {
    match trouble {
        Trouble::Silent => {
            let text =
                "Harbour Bank could not reach the engine that guards it. Nothing was changed. Try again in a minute.";
            stopped(visit, StatusCode::BAD_GATEWAY, "The second step doesn't answer", text, "").await
        }
        Trouble::Refused(problem) => {
            let text = match problem.user_message.as_str() {
                "" => "Something went wrong. Go back and try again.",
                message => message,
            };
            tracing::warn!(code = problem.code, request_id = problem.request_id, "the engine refused");
            stopped(visit, StatusCode::BAD_GATEWAY, "That didn't work", text, &problem.request_id).await
        }
    }
}

/// A return, or a session, that this browser did not ask for.
pub async fn not_yours(visit: &Visit) -> Response {
    let text =
        "This confirmation was used before, or belongs to another browser, person or request. Nothing was changed.";
    stopped(visit, StatusCode::BAD_REQUEST, "We can't use this confirmation", text, "").await
}

/// A form that another session of this browser was given.
pub async fn out_of_date(visit: &Visit) -> Response {
    let text = "It was open for too long, or you signed in or out meanwhile. Nothing was changed.";
    stopped(visit, StatusCode::FORBIDDEN, "This page is out of date", text, "").await
}

/// A form of another site.
pub async fn foreign_form(visit: &Visit) -> Response {
    let text = "This request came from another site. Nothing was changed.";
    stopped(visit, StatusCode::FORBIDDEN, "We can't take this from there", text, "").await
}
