//! The challenge page: a person answers in the browser that opened the link, and that browser carries the result back.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::screen::{Message, show as render};
use super::views::Way;
use super::visit::{Called, Fields, Posted, Visit, bound, land, open, remembered, see};
use super::words::{self, When};
use super::{ends, picture};
use crate::engine::{Answer, Error, Given, Shown};
use crate::http::App;
use crate::http::body::Nothing;
use crate::http::problem::{self, Refused};
use crate::model::{Challenge, ChallengeStatus, Flow, Id, Kind, MethodKind};

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
    if matches!(fields.text("do"), "answer" | "send" | "enrol")
        && newer(&visit).await.map_err(|e| visit.fault(e))?.is_some()
    {
        // The page says why.
        return Ok(see(&visit.path("")));
    }
    match fields.text("do") {
        "answer" => answer(&visit, &fields).await,
        "send" => send(&visit, &fields).await,
        "enrol" => enrol(&visit).await,
        "cancel" => cancel(&visit).await,
        _ => Ok(see(&visit.path(""))),
    }
}

/// What this browser began since, for the same person and action.
async fn newer(visit: &Visit<Challenge>) -> Result<Option<Id>, Error> {
    visit.app.engine.newer(&visit.subject, &visit.beside).await
}

/// Whether the page's module may go on here; if not it loads the page anew, which says why.
async fn is_newest(visit: &Visit<Challenge>) -> Result<(), Refused> {
    match newer(visit).await? {
        Some(_) => Err(problem::CHALLENGE_NOT_PENDING.into()),
        None => Ok(()),
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
        Ok(_) => Ok(visit.known(see(&visit.path("done")))),
        Err(refused) => screen(visit, &chosen, Some((refused.into(), typed))).await,
    }
}

async fn send(visit: &Visit<Challenge>, fields: &Fields) -> Result<Response, Response> {
    let chosen = Chosen { kind: Some(MethodKind::Sms), ..Chosen::of(fields) };
    let factor = chosen.factor.as_ref();
    match visit.app.engine.prepare(&visit.caller, &visit.subject.id, MethodKind::Sms, factor).await {
        Ok(_) => Ok(see(&picture::here(&visit.path(""), MethodKind::Sms, factor))),
        Err(refused) => screen(visit, &chosen, Some((refused.into(), fields.text("code")))).await,
    }
}

/// Leads to the pages on which the person sets up what would do; they lead back here.
async fn enrol(visit: &Visit<Challenge>) -> Result<Response, Response> {
    match visit.app.engine.enrol_first(&visit.caller, &visit.subject).await.map_err(Refused::from) {
        Ok((portal, cookie)) => {
            let response = see(&format!("/portal/{}/{}", portal.id, portal.flow.page()));
            Ok(bound(&visit.app, response, &portal.id, &cookie, portal.expires_at))
        }
        Err(refused) if refused.code.status.is_server_error() => Err(visit.fault(refused)),
        Err(_) => Ok(see(&visit.path(""))),
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
    let told = refused.as_ref().map(|(refused, _)| refused.clone());
    let page = drawn(visit, chosen, refused).await?;
    Ok(match told {
        Some(refused) => refused.tell_when(page),
        None => page,
    })
}

async fn drawn(
    visit: &Visit<Challenge>,
    chosen: &Chosen,
    refused: Option<(Refused, &str)>,
) -> Result<Response, Response> {
    let (engine, challenge) = (&visit.app.engine, &visit.subject);
    let status = refused.as_ref().map_or(StatusCode::OK, |(r, _)| r.code.status);
    if let Some((refused, _)) = &refused {
        if refused.is_of_the_end() {
            return Ok(see(&visit.path("")));
        }
        if refused.is(problem::STORE_UNAVAILABLE) {
            return Err(visit.fault(refused.clone()));
        }
        if refused.attempts_left == Some(0) {
            return closed(visit, chosen).await.map(|page| page.respond(status));
        }
    }
    let at = engine.moment();
    if challenge.status_at(at.now) != ChallengeStatus::Pending {
        return ended(visit, challenge.status_at(at.now), false).await.map(|page| page.respond(status));
    }
    if let Some(newer) = newer(visit).await.map_err(|e| visit.fault(e))? {
        let (target, own) = (format!("/challenge/{newer}"), visit.path(""));
        let again = (own.as_str(), &[("guard", visit.guard.as_str()), ("do", "cancel")][..]);
        return Ok(ends::newer(visit.party(), &target, again).respond(status));
    }
    // Anew: an answer that was refused may have changed it.
    let shown = engine.on_page(&at, &visit.caller, &challenge.id).await.map_err(|e| visit.fault(e))?;
    let mut page = picture::challenge(visit, chosen, &shown);
    if let Some((refused, typed)) = refused {
        let kind = chosen.kind.unwrap_or(MethodKind::Totp);
        let (mut notice, kept) = words::refused_code(kind, &refused, typed, visit.party(), visit.now);
        // The answer that was refused may be the one that brought the pause.
        if let Way::Paused(until) = &page.way {
            notice = words::paused(Some(until.clone()));
        }
        page.shell.is_error = true;
        page.notice = Some(notice);
        page.typed = kept;
    }
    Ok(render(status, &page))
}

async fn done(visit: Visit<Challenge>) -> Result<Response, Response> {
    match visit.subject.status_at(visit.now) {
        ChallengeStatus::Pending => Ok(see(&visit.path(""))),
        status => {
            let page = ended(&visit, status, true).await?.respond(StatusCode::OK);
            // What another browser or a server answered is not this one's habit.
            let proof = visit.subject.proof.as_ref().filter(|_| visit.subject.may_lead_back());
            let usual = proof.map(|p| p.method).filter(|m| *m != MethodKind::RecoveryCode);
            Ok(match usual {
                Some(kind) => remembered(&visit.app, page, kind),
                None => page,
            })
        }
    }
}

/// The last wrong answer closed it, and may have brought a pause, too.
async fn closed(visit: &Visit<Challenge>, chosen: &Chosen) -> Result<Message, Response> {
    let (engine, at) = (&visit.app.engine, visit.app.engine.moment());
    let page = ended(visit, ChallengeStatus::Denied, false).await?;
    // How it ended is known; where the pause cannot be read, only that is said.
    let shown = engine.on_page(&at, &visit.caller, &visit.subject.id).await.ok();
    let offers = shown.iter().flat_map(|shown| &shown.offers);
    let pause = offers.filter(|offer| Some(offer.kind) == chosen.kind).find_map(|offer| offer.pause);
    Ok(match pause {
        Some(pause) if pause.hold => page.line("Codes are closed until you confirm it's you by another way."),
        Some(pause) => page.until("You can use codes again", When::new(pause.until, at.now)),
        None => page,
    })
}

/// How it ended, and the way back; `now` on the page that follows the end itself.
async fn ended(visit: &Visit<Challenge>, status: ChallengeStatus, now: bool) -> Result<Message, Response> {
    let told = match status {
        ChallengeStatus::Approved => return approved(visit, now).await,
        ChallengeStatus::Cancelled | ChallengeStatus::Denied => "access_denied",
        ChallengeStatus::Expired | ChallengeStatus::Pending => "expired",
    };
    let target = way_back(&visit.subject, &[("error", told)]);
    Ok(ends::without_proof(visit.party(), status, target.as_deref(), now))
}

async fn approved(visit: &Visit<Challenge>, now: bool) -> Result<Message, Response> {
    let (challenge, party) = (&visit.subject, visit.party());
    let own = challenge.terms.portal.is_some();
    if !now {
        let open = own || (challenge.terms.return_url.is_some() && challenge.may_lead_back());
        let target = if open { Some(visit.path("done")) } else { home(challenge) };
        return Ok(ends::already(party, target.as_deref()));
    }
    let target = match own || challenge.terms.return_url.is_none() {
        true => way_back(challenge, &[]),
        false => match visit.app.engine.return_code(challenge).await.map_err(|e| visit.fault(e))? {
            Some(code) => way_back(challenge, &[("code", &code)]),
            None => return Ok(ends::already(party, home(challenge).as_deref())),
        },
    };
    if challenge.proof.as_ref().is_some_and(|p| p.method == MethodKind::RecoveryCode) {
        let summary = visit.app.engine.recovery_summary(&visit.caller, &challenge.user_id).await;
        let left = summary.map_err(|e| visit.fault(e))?.remaining;
        let methods = challenge.terms.portal.as_ref().map(|p| format!("/portal/{}/{}", p.id, Flow::Settings.page()));
        return Ok(ends::by_recovery_code(party, left, target.as_deref(), methods.as_deref()));
    }
    Ok(ends::thanks(party, target.as_deref()))
}

/// The registered address with what the application is told; `None` where there is none.
fn way_back(challenge: &Challenge, told: &[(&str, &str)]) -> Option<String> {
    let terms = &challenge.terms;
    if let Some(portal) = &terms.portal {
        // Without a proof the page itself would only ask again.
        let page = if told.is_empty() { portal.page.as_str() } else { Flow::Settings.page() };
        return Some(format!("/portal/{}/{page}", portal.id));
    }
    let mut url = url::Url::parse(terms.return_url.as_deref()?).ok()?;
    url.query_pairs_mut()
        .extend_pairs(told)
        .append_pair("challenge", challenge.id.as_str())
        .extend_pairs(terms.state.iter().map(|state| ("state", state)));
    Some(url.into())
}

/// The first page of the application's origin, where there is nothing more to bring back; what else is there we do not know.
fn home(challenge: &Challenge) -> Option<String> {
    let back = url::Url::parse(challenge.terms.return_url.as_deref()?).ok()?;
    back.join("/").ok().map(String::from)
}

async fn options(Called(visit, _): Called<Challenge, Nothing>) -> Result<Json<Value>, Refused> {
    is_newest(&visit).await?;
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

async fn credential(Called(visit, body): Called<Challenge, Credential>) -> Result<Response, Refused> {
    let given = Given { kind: MethodKind::Webauthn, answer: Answer::Credential(body.credential), factor_id: None };
    is_newest(&visit).await?;
    visit.app.engine.verify_on_page(&visit.caller, &visit.subject, &given).await?;
    Ok(visit.known(Json(json!({ "next": visit.path("done") })).into_response()))
}
