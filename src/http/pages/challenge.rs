//! The challenge page: a person answers in the browser that opened the link, and that browser carries the result back.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::views::{Message, show as render};
use super::visit::{Called, Fields, Posted, Visit, land, open, see};
use super::{picture, words};
use crate::engine::{Answer, Given, Shown};
use crate::http::App;
use crate::http::problem::{self, Refused};
use crate::model::{Challenge, ChallengeStatus, Id, Kind, MethodKind};

/// Routes below `/challenge/{id}`.
pub fn router() -> Router<App> {
    Router::new()
        .route("/challenge/{id}", get(show).post(act))
        .route("/challenge/{id}/done", get(done))
        .route("/challenge/{id}/options", post(options))
        .route("/challenge/{id}/credential", post(credential))
}

/// Which way to answer the person chose.
pub struct Chosen {
    /// The method.
    pub kind: Option<MethodKind>,
    /// The phone.
    pub factor: Option<Id>,
}

impl Chosen {
    fn of(fields: &Fields) -> Chosen {
        Chosen { kind: MethodKind::parse(fields.text("method")), factor: fields.id("factor", Kind::Factor) }
    }
}

async fn show(
    State(app): State<App>,
    visit: Result<Visit<Challenge>, Response>,
    query: Fields,
    parts: Parts,
) -> Result<Response, Response> {
    match (visit, query.text("token")) {
        (Ok(visit), "") => screen(&visit, &Chosen::of(&query), None).await,
        (Ok(visit), _) => Ok(see(&visit.path(""))),
        (Err(closed), "") => Err(closed),
        (Err(_), token) => Ok(land::<Challenge>(&app, &parts, token).await),
    }
}

async fn act(
    State(app): State<App>,
    visit: Result<Visit<Challenge>, Response>,
    parts: Parts,
    Posted(fields): Posted,
) -> Result<Response, Response> {
    if !fields.text("token").is_empty() {
        return match visit {
            Ok(visit) => Ok(see(&visit.path(""))),
            Err(_) => Ok(open::<Challenge>(&app, &parts, &fields).await),
        };
    }
    let visit = visit?;
    visit.check(&fields)?;
    match fields.text("do") {
        "answer" => answer(&visit, &fields).await,
        "send" => send(&visit, &fields).await,
        "cancel" => cancel(&visit).await,
        _ => Ok(see(&visit.path(""))),
    }
}

async fn answer(visit: &Visit<Challenge>, fields: &Fields) -> Result<Response, Response> {
    let chosen = Chosen::of(fields);
    let typed = fields.text("code");
    let given = Given {
        kind: chosen.kind.unwrap_or(MethodKind::Totp),
        answer: Answer::Code(Zeroizing::new(typed.to_owned())),
        factor_id: chosen.factor.clone(),
    };
    match visit.app.engine.verify_on_page(&visit.caller, &visit.subject, &given).await {
        Ok(_) => Ok(see(&visit.path("done"))),
        Err(refused) => screen(visit, &chosen, Some((refused.into(), typed))).await,
    }
}

async fn send(visit: &Visit<Challenge>, fields: &Fields) -> Result<Response, Response> {
    let chosen = Chosen { kind: Some(MethodKind::Sms), ..Chosen::of(fields) };
    let factor = chosen.factor.as_ref();
    match visit.app.engine.prepare(&visit.caller, &visit.subject.id, MethodKind::Sms, factor).await {
        Ok(_) => Ok(see(&picture::here(&visit.path(""), MethodKind::Sms, factor))),
        Err(refused) => screen(visit, &chosen, Some((refused.into(), ""))).await,
    }
}

async fn cancel(visit: &Visit<Challenge>) -> Result<Response, Response> {
    // Over already: the next page says how.
    match visit.app.engine.cancel(&visit.caller, &visit.subject.id).await.map_err(Refused::from) {
        Err(refused) if refused.code.status.is_server_error() => Err(visit.fault(refused)),
        _ => Ok(see(&visit.path("done"))),
    }
}

/// The challenge as it stands, with what was refused a moment ago and what was typed.
async fn screen(
    visit: &Visit<Challenge>,
    chosen: &Chosen,
    refused: Option<(Refused, &str)>,
) -> Result<Response, Response> {
    let (engine, challenge) = (&visit.app.engine, &visit.subject);
    let status = refused.as_ref().map_or(StatusCode::OK, |(r, _)| r.code.status);
    if let Some((refused, _)) = &refused {
        let over = [problem::CHALLENGE_NOT_PENDING.code, problem::CHALLENGE_EXPIRED.code].contains(&refused.code.code);
        if over {
            return Ok(see(&visit.path("")));
        }
        if refused.code.code == problem::STORE_UNAVAILABLE.code {
            return Err(visit.fault(refused.clone()));
        }
        if refused.attempts_left == Some(0) {
            return ended(visit, ChallengeStatus::Denied, false).await.map(|page| page.respond(status));
        }
    }
    let at = engine.moment();
    if challenge.status_at(at.now) != ChallengeStatus::Pending {
        return ended(visit, challenge.status_at(at.now), false).await.map(|page| page.respond(status));
    }
    let offers = engine.offers(&at, &visit.caller, challenge).await.map_err(|e| visit.fault(e))?;
    let view = engine.user_view(&visit.caller, &challenge.user_id).await.map_err(|e| visit.fault(e))?;
    let sent = engine.sent_code(&visit.caller, &challenge.user_id, &challenge.id).await.map_err(|e| visit.fault(e))?;
    let mut page = picture::challenge(visit, chosen, &offers, &view, sent.as_ref());
    if let Some((refused, typed)) = refused {
        let kind = chosen.kind.unwrap_or(MethodKind::Totp);
        let (notice, keep) = words::refused_code(kind, &refused, typed, visit.party(), visit.now);
        page.shell.is_error = true;
        page.notice = Some(notice);
        page.typed = if keep { typed.to_owned() } else { String::new() };
    }
    Ok(render(status, &page))
}

async fn done(visit: Visit<Challenge>) -> Result<Response, Response> {
    match visit.subject.status_at(visit.now) {
        ChallengeStatus::Pending => Ok(see(&visit.path(""))),
        status => ended(&visit, status, true).await.map(|page| page.respond(StatusCode::OK)),
    }
}

/// How it ended, and the way back. Only the page that follows the end itself (`now`) goes on by itself.
async fn ended(visit: &Visit<Challenge>, status: ChallengeStatus, now: bool) -> Result<Message, Response> {
    let party = visit.party();
    let (page, error, label) = match status {
        ChallengeStatus::Approved | ChallengeStatus::Pending => return approved(visit, now).await,
        ChallengeStatus::Cancelled => {
            let page = Message::new(party, "This request was cancelled").stopped();
            (page.line("Nothing was changed."), "access_denied", format!("Return to {party}"))
        }
        ChallengeStatus::Denied => {
            let page = Message::new(party, "This request is closed").stopped();
            let line = "Too many codes didn't match. Nothing was changed.";
            (page.line(line), "access_denied", format!("Return to {party}"))
        }
        ChallengeStatus::Expired => {
            let page = Message::new(party, "This request timed out").stopped();
            let line = "For your safety it was open for 10 minutes only. Nothing was changed.";
            (page.line(line), "expired", "Start again".to_owned())
        }
    };
    let Some(target) = way_back(&visit.subject, &[("error", error)]) else {
        return Ok(page.line(format!("Go back to {party} to start again. You can close this page.")));
    };
    let goes_on = now && status == ChallengeStatus::Cancelled;
    let page = page.link(&label, &target);
    Ok(if goes_on { page.refresh(&target) } else { page })
}

async fn approved(visit: &Visit<Challenge>, now: bool) -> Result<Message, Response> {
    let (challenge, party) = (&visit.subject, visit.party());
    let again = Message::new(party, "You've already confirmed this").done();
    let onwards = format!("Continue to {party}");
    let by_recovery = challenge.proof.as_ref().is_some_and(|p| p.method == MethodKind::RecoveryCode);
    let thanks = match by_recovery && now {
        true => after_recovery(visit).await?,
        false => Message::new(party, "Thanks, it's you").done(),
    };
    if let Some(portal) = &challenge.terms.portal {
        let target = format!("/portal/{}/{}", portal.id, portal.page);
        let page = if now { thanks } else { again };
        return Ok(if by_recovery {
            page.link("Continue", &target)
        } else {
            page.link("Continue", &target).refresh(&target)
        });
    }
    if challenge.terms.return_url.is_none() {
        let page = if now { thanks } else { again };
        return Ok(page.line(format!("{party} knows. You can close this page.")));
    }
    if !now {
        return Ok(match challenge.exchanged_at {
            None => again.link(&onwards, &visit.path("done")),
            Some(_) => again.line(format!("{party} knows. You can close this page.")),
        });
    }
    let code = visit.app.engine.return_code(challenge).await.map_err(|e| visit.fault(e))?;
    let target = code.and_then(|code| way_back(challenge, &[("code", &code)]));
    Ok(match target {
        None => again.line(format!("{party} knows. You can close this page.")),
        Some(target) if by_recovery => thanks.link(&onwards, &target),
        Some(target) => thanks.line(format!("Taking you back to {party}…")).link("Continue", &target).refresh(&target),
    })
}

/// What a person should know who has just used a recovery code.
async fn after_recovery(visit: &Visit<Challenge>) -> Result<Message, Response> {
    let summary = visit.app.engine.recovery_summary(&visit.caller, &visit.subject.user_id).await;
    let left = summary.map_err(|e| visit.fault(e))?.remaining;
    let party = visit.party();
    let page = match left {
        0 => Message::new(party, "That was your last recovery code")
            .line(format!("You're in. Save a new set in {party} next.")),
        _ => {
            let codes = if left == 1 { "recovery code" } else { "recovery codes" };
            let page = Message::new(party, "Thanks, it's you").line(format!("You're in. {left} {codes} left."));
            if left <= 3 { page.line("Get a new set soon, before they run out.") } else { page }
        }
    };
    Ok(page.done().line("Lost a device? Remove it from your sign-in methods now, so nobody else can use it."))
}

/// The registered address with what the application is told; `None` where there is none.
fn way_back(challenge: &Challenge, told: &[(&str, &str)]) -> Option<String> {
    let terms = &challenge.terms;
    if let (Some(portal), None) = (&terms.portal, &terms.return_url) {
        return Some(format!("/portal/{}/{}", portal.id, portal.page));
    }
    let mut url = url::Url::parse(terms.return_url.as_deref()?).ok()?;
    url.query_pairs_mut()
        .extend_pairs(told)
        .append_pair("challenge", challenge.id.as_str())
        .extend_pairs(terms.state.iter().map(|state| ("state", state)));
    Some(url.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn options(Called(visit, _): Called<Challenge, Nothing>) -> Result<Json<Value>, Refused> {
    let engine = &visit.app.engine;
    match engine.prepare(&visit.caller, &visit.subject.id, MethodKind::Webauthn, None).await? {
        (Shown::Webauthn(options), _) => Ok(Json(json!({ "options": options }))),
        _ => Err(problem::METHOD_NOT_ALLOWED.into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    credential: Value,
}

async fn credential(Called(visit, body): Called<Challenge, Credential>) -> Result<Json<Value>, Refused> {
    let given = Given { kind: MethodKind::Webauthn, answer: Answer::Credential(body.credential), factor_id: None };
    visit.app.engine.verify_on_page(&visit.caller, &visit.subject, &given).await?;
    Ok(Json(json!({ "next": visit.path("done") })))
}
