//! The account page and what can be done on it, each at its own level of proof.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::api::{Session, Trouble};
use super::browsers::{Notice, Person, Stage, StepUp};
use super::purpose::Purpose;
use super::visit::{Fields, Visit};
use super::{iban, pages, sign_in, step_up};

/// Who is in, or where to go instead.
pub fn person(visit: &Visit) -> Result<Person, Response> {
    let person = visit.with(|b| b.person.clone()).filter(|p| matches!(p.stage, Stage::In(_)));
    person.ok_or_else(|| Redirect::to("/demo").into_response())
}

/// `GET /demo/account`
pub async fn page(visit: Visit) -> Result<Response, Response> {
    let person = person(&visit)?;
    Ok(pages::account(&visit, &person).await)
}

/// `POST /demo/balance`: the proof of the login will do, as long as it lasts.
pub async fn balance(visit: Visit, _: Fields) -> Result<Response, Response> {
    let person = person(&visit)?;
    if let Stage::In(Some(kept)) = &person.stage {
        match step_up::vouched(&visit, person.customer, &Purpose::Balance, &kept.token, false).await {
            Ok(true) => return Ok(show_balance(&visit, &person, "")),
            Ok(false) => {}
            Err(trouble) => return Ok(pages::trouble(&visit, &trouble).await),
        }
    }
    Ok(step_up::ask(&visit, &person, Purpose::Balance, async || {
        show_balance(&visit, &person, "The bank lets you look without a second step until you have one.")
    })
    .await)
}

/// The proof of the login had run out and was given again.
pub fn proved_again(visit: &Visit, person: &Person, session: &Session) -> Response {
    sign_in::enter(visit, person, Some(StepUp::from(session)));
    show_balance(visit, person, "")
}

fn show_balance(visit: &Visit, person: &Person, text: &str) -> Response {
    let lines = vec![("Current account".to_owned(), person.customer.balance.to_owned())];
    let notice = Notice { good: true, title: "Your balance".to_owned(), text: text.to_owned(), lines, link: None };
    visit.tell(notice, "/demo/account")
}

/// `POST /demo/statement`: a proof of its own, which a fresh one of the login stands in for.
pub async fn statement(visit: Visit, _: Fields) -> Result<Response, Response> {
    let person = person(&visit)?;
    Ok(step_up::ask(&visit, &person, Purpose::Statement, async || {
        tell_statement(&visit, &person, "The bank lets you look without a second step until you have one.".to_owned())
    })
    .await)
}

/// Shows the statement on the word of a session.
pub async fn show_statement(visit: &Visit, person: &Person, session: &Session) -> Result<Response, Trouble> {
    if !step_up::vouched(visit, person.customer, &Purpose::Statement, &session.token, false).await? {
        return Ok(pages::not_yours(visit).await);
    }
    let step_up = StepUp::from(session);
    Ok(tell_statement(visit, person, format!("You confirmed it's you at {} UTC with {}.", step_up.at, step_up.with)))
}

fn tell_statement(visit: &Visit, person: &Person, text: String) -> Response {
    let lines = person.customer.statement.iter().map(|(what, amount)| (what.to_string(), amount.to_string())).collect();
    visit.tell(Notice { good: true, title: "Your statement".to_owned(), text, lines, link: None }, "/demo/account")
}

/// `GET /demo/payout`
pub async fn payout_page(visit: Visit) -> Result<Response, Response> {
    let person = person(&visit)?;
    Ok(pages::payout(&visit, &person, "", false).await)
}

/// `POST /demo/payout`: a proof for just this account.
pub async fn payout(visit: Visit, fields: Fields) -> Result<Response, Response> {
    let person = person(&visit)?;
    let Some(iban) = iban::parse(fields.text("iban")) else {
        let page = pages::payout(&visit, &person, fields.text("iban"), true).await;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    Ok(step_up::ask(&visit, &person, Purpose::Payout { iban }, async || {
        let text = "Changing where your money goes needs one. Nothing was changed.";
        needs(&visit, "Set up a second step first", text, "Set up a second step")
    })
    .await)
}

/// Changes the payout account, if the session is bound to this very change.
pub async fn change_payout(
    visit: &Visit,
    person: &Person,
    purpose: &Purpose,
    session: &Session,
) -> Result<Response, Trouble> {
    let customer = person.customer;
    let is_confirmed = step_up::confirmed(visit, customer, purpose, session).await?;
    let (true, Purpose::Payout { iban }) = (is_confirmed, purpose) else {
        return Ok(pages::not_yours(visit).await);
    };
    visit.bank.accounts.set_payout(customer, iban.clone());
    let lines = vec![("New payout account".to_owned(), iban::groups(iban))];
    let title = "Payout account changed".to_owned();
    let text = format!("You confirmed it with {}.", StepUp::from(session).with);
    Ok(visit.tell(Notice { good: true, title, text, lines, link: None }, "/demo/account"))
}

/// `GET /demo/delete`
pub async fn delete_page(visit: Visit) -> Result<Response, Response> {
    let person = person(&visit)?;
    Ok(pages::delete(&visit, &person).await)
}

/// `POST /demo/delete`: a passkey, for this once.
pub async fn delete(visit: Visit, _: Fields) -> Result<Response, Response> {
    let person = person(&visit)?;
    Ok(step_up::ask(&visit, &person, Purpose::Delete, async || {
        let text = "Deleting the account can be confirmed with a passkey or a security key only. Nothing was changed.";
        needs(&visit, "A passkey is needed", text, "Add a passkey")
    })
    .await)
}

/// Deletes the account, once, on the word of a session that ends with it.
pub async fn delete_now(
    visit: &Visit,
    person: &Person,
    purpose: &Purpose,
    session: &Session,
) -> Result<Response, Trouble> {
    let customer = person.customer;
    if !step_up::vouched(visit, customer, purpose, &session.token, true).await? {
        return Ok(pages::not_yours(visit).await);
    }
    visit.bank.engine.delete(visit, &format!("/v1/users/{}", customer.user_id)).await?;
    visit.bank.accounts.delete(customer);
    visit.bank.browsers.sign_out_everywhere(customer);
    visit.rotate();
    let title = "Your account is deleted".to_owned();
    let text = "The engine has erased your second step too. In this demo you may sign in again and begin afresh.";
    Ok(visit.tell(Notice { good: true, title, text: text.to_owned(), ..Notice::default() }, "/demo"))
}

fn needs(visit: &Visit, title: &str, text: &str, link: &'static str) -> Response {
    let link = Some((link, "/demo/security"));
    visit.tell(Notice { title: title.to_owned(), text: text.to_owned(), link, ..Notice::default() }, "/demo/account")
}
