//! `/v1/challenges`: asking a user for proof.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::answers;
use super::challenge_request::{AnswerRequest, CreateRequest};
use super::shapes::{MethodView, SentView, SessionView};
use crate::engine::{Caller, Created, Delivery, Ending, Issued, Named, NewChallenge, Offer, Open, Shown, Verdict};
use crate::http::App;
use crate::http::auth::Pass;
use crate::http::body::{Body, MaybeBody, Nothing, OfId, Text};
use crate::http::problem::{self, Refused};
use crate::model::{Challenge, ChallengeStatus, Id, Kind, MethodKind, Prompt, Scope};

/// A challenge as it stands; never its session.
#[derive(Serialize, ToSchema)]
pub struct ChallengeView {
    /// `chl_…`
    id: String,
    /// `pending`, `approved`, `denied`, `expired` or `cancelled`
    #[schema(example = "pending")]
    status: &'static str,
    /// Of whom proof is asked.
    user_id: String,
    /// What the session will allow.
    action: String,
    /// How it may be answered, strongest first.
    methods: Vec<MethodView>,
    /// Answers that it still takes.
    attempts_left: i64,
    /// When it runs out.
    #[schema(format = "date-time")]
    expires_at: String,
    /// The hosted page, once: when the challenge is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// For calls from a browser, once: when the challenge is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<String>,
}

impl ChallengeView {
    /// Once it has ended there is no method to answer by.
    fn new(challenge: &Challenge, status: ChallengeStatus, offers: &[Offer]) -> ChallengeView {
        let offers = if status == ChallengeStatus::Pending { offers } else { &[] };
        ChallengeView {
            id: challenge.id.to_string(),
            status: status.as_str(),
            user_id: challenge.user_id.clone(),
            action: challenge.terms.action.clone(),
            methods: offers.iter().map(MethodView::from).collect(),
            attempts_left: challenge.attempts_left,
            expires_at: challenge.expires_at.rfc3339(),
            url: None,
            client_token: None,
        }
    }

    /// As it is opened.
    pub fn opened(open: &Open, issuer: &str) -> ChallengeView {
        ChallengeView {
            url: Some(address(open, issuer)),
            client_token: Some(open.client_token.clone()),
            ..ChallengeView::new(&open.challenge, ChallengeStatus::Pending, &open.offers)
        }
    }

    /// Called off.
    pub fn cancelled(challenge: &Challenge) -> ChallengeView {
        ChallengeView::new(challenge, ChallengeStatus::Cancelled, &[])
    }
}

fn address(open: &Open, issuer: &str) -> String {
    format!("{issuer}/challenge/{}?token={}", open.challenge.id, open.link_token.as_str())
}

/// What came of it at once: approved, or nothing enrolled that would do.
#[derive(Default, Serialize, ToSchema)]
pub struct OutcomeView {
    /// `approved` or `enrolment_required`
    #[schema(example = "approved")]
    status: &'static str,
    /// `chl_…`, where it was approved, or is open while a factor is set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// `fresh_session` or `answer`
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The step-up session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionView>,
    /// Methods of which one would satisfy the demand; empty where none can.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Vec<&'static str>>,
    /// Where inline enrolment is allowed: the page on which the person sets up what is missing and then answers, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The same for calls from a browser: it may add a first factor of this user, and answer, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<String>,
    /// When both run out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    expires_at: Option<String>,
}

impl OutcomeView {
    /// Approved as it was made.
    pub fn approved(challenge: &Challenge, issued: Option<&Issued>, reason: &'static str) -> OutcomeView {
        OutcomeView {
            status: "approved",
            id: Some(challenge.id.to_string()),
            reason: Some(reason),
            session: issued.map(SessionView::from),
            ..OutcomeView::default()
        }
    }

    /// Nothing that would do.
    pub fn enrolment_required(missing: &[MethodKind], open: Option<&Open>, issuer: &str) -> OutcomeView {
        OutcomeView {
            status: "enrolment_required",
            id: open.map(|open| open.challenge.id.to_string()),
            missing: Some(missing.iter().map(|kind| kind.as_str()).collect()),
            url: open.map(|open| address(open, issuer)),
            client_token: open.map(|open| open.client_token.clone()),
            expires_at: open.map(|open| open.challenge.expires_at.rfc3339()),
            ..OutcomeView::default()
        }
    }
}

/// Opens a challenge over all the methods that the user may use. Where nothing is enrolled that would do, inline enrolment is allowed
/// to a key that may also write factors, unless an `answer` came along or a new factor would not do yet.
#[utoipa::path(post, path = "/v1/challenges", tag = "challenges", security(("api_key" = ["challenges"])),
    request_body = CreateRequest,
    responses((status = 201, body = ChallengeView), (status = 200, body = OutcomeView)))]
pub async fn create(State(app): State<App>, pass: Pass, body: Body<CreateRequest>) -> Result<Response, Refused> {
    let wanted = body.read().and_then(CreateRequest::model);
    let named = wanted.as_ref().map_or(Named::Nothing, |wanted| Named::User(&wanted.user_id));
    let server = pass.server(&app, named).await?;
    let may_enrol = server.may(Scope::FactorsWrite);
    let caller = server.with(Scope::Challenges)?;
    let wanted = NewChallenge { may_enrol, ..wanted? };
    // On the heap, as `verify` below: the layers of a request would each copy it.
    let created = Box::pin(app.engine.create_challenge(&caller, wanted)).await?;
    let ending = match &created {
        Created::Pending(open) => Ending::Opened(open),
        Created::Approved { challenge, issued, reason } => Ending::Approved { challenge, issued: Some(issued), reason },
        Created::EnrolmentRequired { missing, open } => Ending::EnrolmentRequired { missing, open: open.as_deref() },
    };
    Ok(answers::of(ending, app.engine.issuer()))
}

/// Shows where a challenge stands. A status is no proof: the session leaves by `verify` or `exchange` only.
#[utoipa::path(get, path = "/v1/challenges/{id}", tag = "challenges", security(("api_key" = ["challenges"]), ("client_token" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = ChallengeView)))]
pub async fn show(State(app): State<App>, pass: Pass, id: OfId) -> Result<Json<ChallengeView>, Refused> {
    let (caller, id, _) = pass.at_challenge(&app, &id, Scope::Challenges).await?;
    let at = app.engine.moment();
    let (challenge, offers) = app.engine.shown(&at, &caller, &id).await?;
    Ok(Json(ChallengeView::new(&challenge, challenge.status_at(at.now), &offers)))
}

/// What to prepare.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrepareRequest {
    /// `webauthn` or `sms`
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "webauthn")]
    kind: MethodKind,
    /// The phone to text, where there are several.
    factor_id: Option<String>,
}

impl PrepareRequest {
    fn model(self) -> Result<(MethodKind, Option<Id>), Refused> {
        let refused = || Refused::invalid("factor_id", "Expected fac_…");
        let factor = self.factor_id.map(|text| Id::parse(Kind::Factor, &text).ok_or_else(refused)).transpose()?;
        Ok((self.kind, factor))
    }
}

/// An answer that does not fit costs nothing, and says so.
fn counted(refused: Refused, caller: &Caller) -> Refused {
    Refused { attempts_left: caller.attempts_left(), ..refused }
}

/// What was prepared: one of the two.
#[derive(Default, Serialize, ToSchema)]
pub struct PreparedView {
    /// A ceremony has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    webauthn: Option<CeremonyView>,
    /// A code was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    sms: Option<SentView>,
}

/// A ceremony for the browser.
#[derive(Serialize, ToSchema)]
pub struct CeremonyView {
    /// For `PublicKeyCredential.parseRequestOptionsFromJSON`.
    #[schema(value_type = Object)]
    request_options: Value,
}

impl PreparedView {
    /// What is shown, and what is awaited.
    pub fn new(shown: &Shown, prompt: Option<&Prompt>) -> PreparedView {
        match (shown, prompt) {
            (Shown::Sms { phone_masked }, Some(prompt)) => {
                PreparedView { sms: Some(SentView::new(phone_masked.clone(), prompt)), webauthn: None }
            }
            (Shown::Webauthn(options), _) => {
                let ceremony = CeremonyView { request_options: options.clone() };
                PreparedView { webauthn: Some(ceremony), sms: None }
            }
            (Shown::Sms { .. } | Shown::Totp { .. }, _) => PreparedView::default(),
        }
    }
}

/// Begins a WebAuthn ceremony, or sends a code. Nothing is ever sent when a challenge is created.
#[utoipa::path(post, path = "/v1/challenges/{id}/prepare", tag = "challenges", security(("api_key" = ["challenges"]), ("client_token" = [])),
    params(("id" = String, Path)), request_body = PrepareRequest,
    responses((status = 200, body = PreparedView)))]
pub async fn prepare(
    State(app): State<App>,
    pass: Pass,
    id: OfId,
    body: Body<PrepareRequest>,
) -> Result<Response, Refused> {
    let (caller, id, _) = pass.at_challenge(&app, &id, Scope::Challenges).await?;
    let (kind, factor) = body.read().and_then(PrepareRequest::model).map_err(|refused| counted(refused, &caller))?;
    let (shown, prompt) = app.engine.prepare(&caller, &id, kind, factor.as_ref()).await?;
    Ok(answers::of(Ending::Prepared(&shown, prompt.as_ref()), app.engine.issuer()))
}

/// A right answer.
#[derive(Serialize, ToSchema)]
pub struct VerifiedView {
    /// `approved`
    #[schema(example = "approved")]
    status: &'static str,
    /// To a server: the step-up session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionView>,
    /// To a browser: a one-time code, good for 60 seconds, for the server's `exchange`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

impl From<&Verdict> for VerifiedView {
    fn from(verdict: &Verdict) -> VerifiedView {
        let session = verdict.issued.as_ref().map(SessionView::from);
        VerifiedView { status: "approved", session, code: verdict.code.clone() }
    }
}

/// Judges one answer. A server gets the session, a browser a one-time code. A wrong answer is never 2xx.
#[utoipa::path(post, path = "/v1/challenges/{id}/verify", tag = "challenges", security(("api_key" = ["challenges"]), ("client_token" = [])),
    params(("id" = String, Path)), request_body = AnswerRequest,
    responses((status = 200, body = VerifiedView)))]
pub async fn verify(
    State(app): State<App>,
    pass: Pass,
    id: OfId,
    body: Body<AnswerRequest>,
) -> Result<Response, Refused> {
    let (caller, id, is_browser) = pass.at_challenge(&app, &id, Scope::Challenges).await?;
    let delivery = if is_browser { Delivery::Code } else { Delivery::Session };
    let given = body.read().and_then(|answer| answer.model("")).map_err(|refused| counted(refused, &caller))?;
    let verdict = Box::pin(app.engine.verify(&caller, &id, &given, delivery)).await?;
    Ok(answers::of(Ending::Verified(&verdict), app.engine.issuer()))
}

/// The code that the answering browser carried back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeRequest {
    /// The one-time code.
    #[schema(value_type = String)]
    code: Text<200>,
    /// PKCE, where the challenge was created with a `code_challenge`.
    #[schema(value_type = Option<String>)]
    code_verifier: Option<Text<128>>,
}

/// The session, once.
#[derive(Serialize, ToSchema)]
pub struct ExchangedView {
    /// The step-up session.
    session: SessionView,
}

impl From<&Issued> for ExchangedView {
    fn from(issued: &Issued) -> ExchangedView {
        ExchangedView { session: issued.into() }
    }
}

/// Exchanges a one-time code for the session, once.
#[utoipa::path(post, path = "/v1/challenges/{id}/exchange", tag = "challenges", security(("api_key" = ["challenges"])),
    params(("id" = String, Path)), request_body = ExchangeRequest,
    responses((status = 200, body = ExchangedView)))]
pub async fn exchange(
    State(app): State<App>,
    pass: Pass,
    id: OfId,
    body: Body<ExchangeRequest>,
) -> Result<Response, Refused> {
    let (caller, id, is_browser) = pass.at_challenge(&app, &id, Scope::Challenges).await?;
    if is_browser {
        return Err(problem::API_KEY_INVALID.into());
    }
    let request = body.read()?;
    let verifier = request.code_verifier.as_ref().map(|v| v.0.as_str());
    let issued = app.engine.exchange(&caller, &id, &request.code.0, verifier).await?;
    Ok(answers::of(Ending::Exchanged(&issued), app.engine.issuer()))
}

/// Calls a challenge off.
#[utoipa::path(post, path = "/v1/challenges/{id}/cancel", tag = "challenges", security(("api_key" = ["challenges"]), ("client_token" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = ChallengeView)))]
pub async fn cancel(
    State(app): State<App>,
    pass: Pass,
    id: OfId,
    MaybeBody(body): MaybeBody<Nothing>,
) -> Result<Response, Refused> {
    let (caller, id, _) = pass.at_challenge(&app, &id, Scope::Challenges).await?;
    body.read()?;
    let challenge = app.engine.cancel(&caller, &id).await?;
    Ok(answers::of(Ending::Cancelled(&challenge), app.engine.issuer()))
}
