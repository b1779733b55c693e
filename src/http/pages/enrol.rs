//! Enrolment on the portal's pages: a passkey or security key, an authenticator app, a phone.

use axum::http::StatusCode;
use axum::http::header::ACCEPT_LANGUAGE;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::naming;
use super::picture::{last_digits, sent_code};
use super::portal::AtPortal;
use super::screen::{Shell, show as render};
use super::views::{AppPage, Ceremony, PasskeyPage, PhonePage, SentCode};
use super::visit::{Called, Fields, Posted, see};
use super::words;
use crate::engine::{self, Answer, Attachment, Begin, Error, Shown, Started, Wish};
use crate::http::App;
use crate::http::problem::{self, Refused};
use crate::model::{Details, Factor, Flow, Id, Kind, MethodKind, Number, PortalSession};

/// Every country that can be dialled: ISO code, calling code, name.
const COUNTRIES: &str = include_str!("../../../web/countries.txt");

/// Routes below `/portal/{id}`.
pub fn router() -> Router<App> {
    Router::new()
        .route("/portal/{id}/passkey", get(passkey))
        .route("/portal/{id}/passkey/options", post(options))
        .route("/portal/{id}/passkey/credential", post(credential))
        .route("/portal/{id}/authenticator-app", get(app).post(activate_app))
        .route("/portal/{id}/phone", get(phone).post(change_phone))
}

impl AtPortal {
    async fn begin(&self, wish: Wish) -> Result<Started, Refused> {
        let begin = Begin { user_id: self.subject.user_id.clone(), wish, name: None };
        let started = self.app.engine.begin_enrolment(&self.caller, begin).await?;
        self.app.engine.set_portal_factor(&self.subject, &started.factor.id).await?;
        Ok(started)
    }

    async fn activate(&self, id: &Id, answer: Answer) -> Result<Factor, Error> {
        self.app.engine.activate(&self.caller, &self.subject.user_id, id, &answer).await
    }

    /// Judges the code for what is under way on this flow's page; gives back what the page itself must explain.
    async fn prove(&self, flow: Flow, kind: MethodKind, typed: &str) -> Result<Response, Refused> {
        let begun = match self.begun().await {
            Ok(begun) => begun.filter(|factor| factor.kind == kind),
            Err(response) => return Ok(response),
        };
        // In another window something else may have been begun since: this code is none of that.
        let Some(factor) = begun else { return Ok(see(&self.path(flow.page()))) };
        let answer = Answer::Code(Zeroizing::new(typed.to_owned()));
        match self.activate(&factor.id, answer).await.map_err(Refused::from) {
            Ok(_) => Ok(see(&self.path("added"))),
            Err(refused) if refused.is(problem::FACTOR_NOT_PENDING) => Ok(see(&self.path("added"))),
            Err(refused) if is_over(&refused) => Ok(see(&self.path(flow.page()))),
            Err(refused) if explains(&refused) => Err(refused),
            Err(refused) => Ok(self.refuse(refused, flow.page()).await),
        }
    }

    /// The enrolment of this kind that is under way.
    async fn under_way(&self, kind: MethodKind) -> Result<Option<Factor>, Response> {
        Ok(self.begun().await?.filter(|f| f.kind == kind && !f.is_active()))
    }

    /// The factor that was begun last in this visit, if it is there still.
    async fn begun(&self) -> Result<Option<Factor>, Response> {
        let Some(id) = &self.subject.factor_id else { return Ok(None) };
        match self.app.engine.factor(&self.caller, &self.subject.user_id, id).await {
            Ok(factor) => Ok(Some(factor)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(self.fault(error)),
        }
    }
}

// --- passkey ---

async fn passkey(visit: AtPortal) -> Result<Response, Response> {
    visit.admit(Flow::AddPasskey).await?;
    let ceremony = Ceremony {
        kind: "create",
        state: "ready",
        base: visit.path("passkey"),
        guard: visit.guard.clone(),
        host: visit.caller.rp.host.clone(),
        key_only: false,
        saved_in: String::new(),
    };
    let shell = Shell::new(visit.party(), "Create a passkey");
    let most = engine::most_active(MethodKind::Webauthn);
    Ok(render(StatusCode::OK, &PasskeyPage { shell, ceremony, base: visit.path(""), most }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    authenticator: String,
}

async fn options(Called(visit, wanted): Called<PortalSession, Wanted>) -> Result<Json<Value>, Refused> {
    let attachment = match wanted.authenticator.as_str() {
        "security_key" => Attachment::SecurityKey,
        _ => Attachment::Any,
    };
    if let Some(before) = &visit.subject.factor_id {
        visit.app.engine.begin_anew(&visit.caller, &visit.subject.user_id, before).await?;
    }
    let started = visit.begin(Wish::Webauthn(attachment)).await?;
    let Shown::Webauthn(options) = started.shown else { return Err(problem::METHOD_NOT_ALLOWED.into()) };
    Ok(Json(json!({ "options": options, "extra": { "factor": started.factor.id } })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    factor: String,
    credential: Value,
}

async fn credential(Called(visit, made): Called<PortalSession, Made>) -> Result<Json<Value>, Refused> {
    let id = Id::parse(Kind::Factor, &made.factor).ok_or(Refused::from(problem::NOT_FOUND))?;
    let attachment = made.credential["authenticatorAttachment"].as_str().map(str::to_owned);
    let factor = visit.activate(&id, Answer::Credential(made.credential)).await?;
    name_anew(&visit, &factor, attachment.as_deref()).await;
    Ok(Json(json!({ "next": visit.path("added") })))
}

/// Names a new passkey after what holds it, as far as that is known. It has a name already: where this cannot be had, that one
/// stays, and the person may give another.
async fn name_anew(visit: &AtPortal, factor: &Factor, attachment: Option<&str>) {
    let agent = visit.caller.client.as_ref().and_then(|c| c.user_agent.as_deref()).unwrap_or_default();
    let Some(name) = naming::first_name(factor, attachment, agent) else { return };
    let _ = visit.app.engine.name_new_factor(&visit.caller, factor, &name).await;
}

// --- authenticator app ---

async fn app(visit: AtPortal) -> Result<Response, Response> {
    visit.admit(Flow::AddAuthenticatorApp).await?;
    app_page(&visit, None).await
}

/// The same secret as long as it counts, then a new one with a word about it.
async fn app_page(visit: &AtPortal, refused: Option<(Refused, &str)>) -> Result<Response, Response> {
    let (engine, user_id) = (&visit.app.engine, &visit.subject.user_id);
    let mut renewed = false;
    let mut shown = None;
    if let Some(id) = &visit.subject.factor_id {
        match engine.show_again(&visit.caller, user_id, id).await {
            Ok(again) => shown = again,
            Err(Error::Gone(_)) => renewed = true,
            Err(error) => return Err(visit.fault(error)),
        }
    }
    let started = match shown {
        Some(started) => started,
        None => match visit.begin(Wish::Totp).await {
            Ok(started) => started,
            Err(refused) => return Err(visit.refuse(refused, Flow::AddAuthenticatorApp.page()).await),
        },
    };
    let Shown::Totp { secret, otpauth_uri, qr_svg } = started.shown else {
        return Err(visit.fault(problem::METHOD_NOT_ALLOWED));
    };
    let told = refused.as_ref().map(|(refused, _)| refused.clone());
    let words = refused.map(|(refused, typed)| {
        let (mut notice, kept) = words::refused_code(MethodKind::Totp, &refused, typed, visit.party(), visit.now);
        if refused.is(problem::CODE_INCORRECT) {
            notice.text.push_str(" Or scan the code again.");
        }
        (notice, kept)
    });
    let mut shell = Shell::new(visit.party(), "Set up your authenticator app");
    shell.is_error = words.is_some();
    let (notice, typed) = words.map_or((None, String::new()), |(n, t)| (Some(n), t));
    let page = AppPage {
        shell,
        base: visit.path(""),
        guard: visit.guard.clone(),
        qr_svg: qr_svg.to_string(),
        key: grouped(&secret),
        uri: otpauth_uri.to_string(),
        renewed,
        notice,
        typed,
    };
    Ok(refusing(told.as_ref(), &page))
}

/// A page that tells of what was refused, if anything was: its status, and when to try again.
fn refusing(refused: Option<&Refused>, page: &impl askama::Template) -> Response {
    match refused {
        Some(refused) => refused.tell_when(render(refused.code.status, page)),
        None => render(StatusCode::OK, page),
    }
}

/// In groups of four.
fn grouped(secret: &str) -> String {
    let letters: Vec<char> = secret.chars().collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

async fn activate_app(visit: AtPortal, Posted(fields): Posted) -> Result<Response, Response> {
    visit.check(&fields)?;
    visit.in_time()?;
    match visit.prove(Flow::AddAuthenticatorApp, MethodKind::Totp, fields.text("code")).await {
        Ok(response) => Ok(response),
        Err(refused) => app_page(&visit, Some((refused, fields.text("code")))).await,
    }
}

/// Whether what was begun is there no more.
fn is_over(refused: &Refused) -> bool {
    refused.is(problem::ENROLMENT_EXPIRED) || refused.is(problem::NOT_FOUND)
}

/// Whether the form has words for it.
fn explains(refused: &Refused) -> bool {
    let elsewhere = [problem::STEP_UP_REQUIRED, problem::STORE_UNAVAILABLE, problem::REQUEST_INVALID];
    !refused.is_of_the_end() && !elsewhere.into_iter().any(|code| refused.is(code))
}

// --- phone ---

async fn phone(visit: AtPortal, query: Fields, parts: Parts) -> Result<Response, Response> {
    visit.admit(Flow::AddPhone).await?;
    let languages = parts.headers.get(ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let Some(phone) = visit.under_way(MethodKind::Sms).await? else {
        return Ok(number_page(&visit, region(languages), "", None));
    };
    if query.text("change").is_empty() {
        return code_page(&visit, None).await;
    }
    // A digit may be wrong: the others stay.
    let number = visit.app.engine.typed_number(&visit.caller, &phone).await.map_err(|e| visit.fault(e))?;
    let country = match &phone.details {
        Details::Sms(details) => details.country.as_deref(),
        Details::Totp | Details::Webauthn(_) => None,
    };
    let typed = number.as_ref().map(Number::as_str).unwrap_or_default();
    Ok(number_page(&visit, country.unwrap_or(region(languages)), typed, None))
}

async fn change_phone(visit: AtPortal, Posted(fields): Posted) -> Result<Response, Response> {
    visit.check(&fields)?;
    visit.in_time()?;
    match fields.text("do") {
        "number" => take_number(&visit, &fields).await,
        "send" => send_again(&visit, fields.text("code")).await,
        _ => match visit.prove(Flow::AddPhone, MethodKind::Sms, fields.text("code")).await {
            Ok(response) => Ok(response),
            Err(refused) => code_page(&visit, Some((refused, fields.text("code")))).await,
        },
    }
}

async fn take_number(visit: &AtPortal, fields: &Fields) -> Result<Response, Response> {
    let (country, typed) = (fields.text("country"), fields.text("number"));
    let begun = match composed(country, typed) {
        Some(number) => visit.begin(Wish::Sms(number)).await,
        None => Err(problem::PHONE_INVALID.into()),
    };
    match begun {
        Ok(_) => Ok(see(&visit.path(Flow::AddPhone.page()))),
        Err(refused) if explains(&refused) => Ok(number_page(visit, country, typed, Some(refused))),
        Err(refused) => Err(visit.refuse(refused, Flow::AddPhone.page()).await),
    }
}

fn number_page(visit: &AtPortal, country: &str, typed: &str, refused: Option<Refused>) -> Response {
    let lacks_country = !countries(country).any(|c| c.3) && !typed.trim_start().starts_with(['+', '＋']);
    let mut shell = Shell::new(visit.party(), "Add your phone");
    shell.is_error = refused.is_some();
    let page = PhonePage {
        shell,
        base: visit.path(""),
        guard: visit.guard.clone(),
        sent: None,
        countries: countries(country).filter(|(code, ..)| visit.app.engine.may_text(code)).collect(),
        notice: refused.as_ref().map(|refused| words::refused_phone(refused, lacks_country, visit.now)),
        typed: typed.to_owned(),
    };
    refusing(refused.as_ref(), &page)
}

async fn send_again(visit: &AtPortal, typed: &str) -> Result<Response, Response> {
    let page = visit.path(Flow::AddPhone.page());
    let Some(factor) = visit.under_way(MethodKind::Sms).await? else { return Ok(see(&page)) };
    let sent = visit.app.engine.resend(&visit.caller, &visit.subject.user_id, &factor.id).await;
    match sent.map_err(Refused::from) {
        Ok(_) => Ok(see(&page)),
        Err(refused) if explains(&refused) => code_page(visit, Some((refused, typed))).await,
        Err(refused) => Err(visit.refuse(refused, Flow::AddPhone.page()).await),
    }
}

async fn code_page(visit: &AtPortal, refused: Option<(Refused, &str)>) -> Result<Response, Response> {
    let Some(factor) = visit.under_way(MethodKind::Sms).await? else {
        return Ok(see(&visit.path(Flow::AddPhone.page())));
    };
    let prompt = visit.app.engine.sent_code(&visit.caller, &visit.subject.user_id, &factor.id).await;
    let prompt = prompt.map_err(|e| visit.fault(e))?;
    let masked = match &factor.details {
        Details::Sms(details) => last_digits(Some(&details.phone_masked)),
        Details::Totp | Details::Webauthn(_) => String::new(),
    };
    let sent = prompt.map_or(SentCode { resend: None, more: 0, expired: true }, |p| sent_code(&p, visit.now));
    let told = refused.as_ref().map(|(refused, _)| refused.clone());
    let (notice, typed) = match refused {
        None => (None, String::new()),
        Some((refused, typed)) => {
            let (notice, kept) = words::refused_code(MethodKind::Sms, &refused, typed, visit.party(), visit.now);
            (Some(notice), kept)
        }
    };
    let mut shell = Shell::new(visit.party(), "Enter the code we sent");
    shell.is_error = notice.is_some();
    let (base, guard) = (visit.path(""), visit.guard.clone());
    let page = PhonePage { shell, base, guard, sent: Some((masked, sent)), countries: Vec::new(), notice, typed };
    Ok(refusing(told.as_ref(), &page))
}

/// All countries, with the chosen one marked.
pub fn countries(chosen: &str) -> impl Iterator<Item = (&'static str, &'static str, &'static str, bool)> + '_ {
    COUNTRIES.lines().filter_map(move |line| {
        let mut parts = line.splitn(3, ' ');
        let (code, dial, name) = (parts.next()?, parts.next()?, parts.next()?);
        Some((code, name, dial, code.eq_ignore_ascii_case(chosen)))
    })
}

/// The region that the browser's languages name first: `de-CH,de;q=0.9` says `CH`.
fn region(languages: &str) -> &str {
    let tags = languages.split(',').map(|tag| tag.split(';').next().unwrap_or_default().trim());
    tags.filter_map(|tag| tag.split('-').skip(1).find(|part| part.len() == 2)).next().unwrap_or_default()
}

/// The number in E.164: as typed where it begins with `+` or `00`, else as it is dialled within the chosen country. Digits of other
/// scripts are not passed over: what is left would be another number.
fn composed(country: &str, typed: &str) -> Option<Number> {
    let typed: String = typed
        .chars()
        .map(|c| match c {
            '０'..='９' => char::from_digit(u32::from(c) - u32::from('０'), 10).unwrap_or(c),
            other => other,
        })
        .collect();
    if typed.chars().any(|c| c.is_numeric() && !c.is_ascii_digit()) {
        return None;
    }
    let digits: String = typed.chars().filter(char::is_ascii_digit).collect();
    let written_out = typed.trim_start().starts_with(['+', '＋']).then_some(&*digits).or(digits.strip_prefix("00"));
    if let Some(digits) = written_out {
        return Number::parse(&format!("+{digits}"));
    }
    let (code, ..) = countries(country).find(|c| c.3)?;
    engine::dialled(code, &digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_composed_as_people_write_them() {
        let number = |country, typed| composed(country, typed).map(|n| n.as_str().to_owned());
        for (country, typed, whole) in [
            ("DE", "0151 55501234", "+4915155501234"),
            ("DE", "+49 151 55501234", "+4915155501234"),
            ("US", "00 49 151 55501234", "+4915155501234"),
            ("DE", "００49 (151) 55501234", "+4915155501234"),
            ("US", "(415) 555-0123", "+14155550123"),
            ("IT", "06 1234 5678", "+390612345678"),
            ("GB", "07700 900123", "+447700900123"),
            ("hu", "06 20 123 4567", "+36201234567"),
            ("BY", "8 029 123-45-67", "+375291234567"),
        ] {
            assert_eq!(number(country, typed).as_deref(), Some(whole), "{country} {typed}");
        }
        assert_eq!(number("", "0151 55501234"), None);
        assert_eq!(number("DE", "12"), None);
    }

    #[test]
    fn the_region_of_a_browser_is_read() {
        assert_eq!(region("de-CH,de;q=0.9,en"), "CH");
        assert_eq!(region("zh-Hant-TW"), "TW");
        assert_eq!(region("en"), "");
    }

    #[test]
    fn each_country_is_listed_once() {
        let mut codes: Vec<_> = countries("").map(|c| c.0).collect();
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert!(all > 200 && all == codes.len());
    }
}
