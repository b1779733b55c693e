//! `/v1/sessions`: step-up sessions, introspected, looked up, revoked.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers;
use super::challenge_request::RequireRequest;
use super::list::List;
use super::shapes::{SessionState, audience};
use crate::engine::{Ending, Introspection, Named, Question};
use crate::http::App;
use crate::http::auth::{Pass, Server};
use crate::http::body::{Body, Object, OfId, OfUser, Page, Text};
use crate::http::problem::Refused;
use crate::model::{Kind, Scope};

/// What a service asks of a token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectRequest {
    /// Opaque token or JWT.
    #[schema(value_type = String)]
    token: Text<20_000>,
    /// The action about to be done.
    #[schema(value_type = Option<String>)]
    action: Option<Text<100>>,
    /// What the action demands.
    #[schema(value_type = Option<RequireRequest>)]
    require: Option<Object<RequireRequest>>,
    /// Use the session up, if it satisfies.
    consume: Option<bool>,
}

impl IntrospectRequest {
    fn model(self) -> Result<Question, Refused> {
        Ok(Question {
            token: self.token.take(),
            action: self.action.map(Text::take),
            require: self.require.unwrap_or_default().0.model("require")?,
            consume: self.consume.unwrap_or(false),
        })
    }
}

/// What a service learns of a token.
#[derive(Default, Serialize, ToSchema)]
pub struct IntrospectionView {
    /// A session of this relying party that has not ended.
    active: bool,
    /// It serves the action and meets the demand.
    satisfied: bool,
    /// What it lacks: `action`, `acr`, `max_age`, `methods`.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Vec<&'static str>>,
    /// Whose proof it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// The one action that it allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    /// `aal2`, `phr` or `phrh`
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'static str>,
    /// RFC 8176
    #[serde(skip_serializing_if = "Option::is_none")]
    amr: Option<Vec<String>>,
    /// When the person last proved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    auth_time: Option<String>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    expires_at: Option<String>,
    /// It is for one use: whoever acts on it asks with `consume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    single_use: Option<bool>,
    /// The services that it is for; whoever asks should be one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<Vec<String>>,
    /// Digest of what the person saw: base64url SHA-256 of the canonical JSON of `display.details`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ctx: Option<String>,
    /// The caller's own thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    binding: Option<String>,
    /// RFC 9470: what to answer the caller, where a stronger or newer proof would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    www_authenticate: Option<String>,
}

impl From<&Introspection> for IntrospectionView {
    fn from(introspection: &Introspection) -> IntrospectionView {
        let Introspection::Active { session, missing, www_authenticate } = introspection else {
            return IntrospectionView::default();
        };
        let grant = &session.grant;
        IntrospectionView {
            active: true,
            satisfied: missing.is_empty(),
            missing: Some(missing.clone()),
            user_id: Some(session.user_id.clone()),
            action: Some(grant.action.clone()),
            acr: Some(grant.acr.as_str()),
            amr: Some(grant.amr.clone()),
            auth_time: Some(grant.auth_time.rfc3339()),
            expires_at: Some(session.expires_at.rfc3339()),
            single_use: Some(grant.single_use),
            audience: Some(audience(session)),
            ctx: grant.context.clone(),
            binding: grant.binding.clone(),
            www_authenticate: www_authenticate.clone(),
        }
    }
}

/// Judges a token for an action, and uses it up where that was asked and it satisfies.
#[utoipa::path(post, path = "/v1/sessions/introspect", tag = "sessions", security(("api_key" = ["sessions"])),
    request_body = IntrospectRequest,
    responses((status = 200, body = IntrospectionView)))]
pub async fn introspect(
    State(app): State<App>,
    pass: Pass,
    body: Body<IntrospectRequest>,
) -> Result<Response, Refused> {
    let question = body.read().and_then(IntrospectRequest::model);
    let named = question.as_ref().map_or(Named::Nothing, |question| Named::Token(&question.token));
    let caller = pass.server(&app, named).await?.with(Scope::Sessions)?;
    let question = question?;
    let introspection = app.engine.introspect(&caller, &question).await?;
    Ok(answers::of(Ending::Introspected(&introspection), app.engine.issuer()))
}

/// Shows a session, ended or not.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions", security(("api_key" = ["sessions"])),
    params(("id" = String, Path)),
    responses((status = 200, body = SessionState)))]
pub async fn show(State(app): State<App>, pass: Pass, id: OfId) -> Result<Json<SessionState>, Refused> {
    let (caller, id) = pass.at_session(&app, &id, Scope::Sessions).await?;
    let session = app.engine.session(&caller, &id).await?;
    let active = session.is_active(app.engine.moment().now);
    Ok(Json(SessionState::new(session, active)))
}

/// Revokes a session, at once and on every node.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions", security(("api_key" = ["sessions"])),
    params(("id" = String, Path)),
    responses((status = 204)))]
pub async fn revoke(State(app): State<App>, pass: Pass, id: OfId) -> Result<StatusCode, Refused> {
    let (caller, id) = pass.at_session(&app, &id, Scope::Sessions).await?;
    app.engine.revoke_session(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A user's active sessions, newest first.
#[utoipa::path(get, path = "/v1/users/{user_id}/sessions", tag = "sessions", security(("api_key" = ["sessions"])),
    params(("user_id" = String, Path), ("limit" = Option<usize>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = List<SessionState>)))]
pub async fn list_of_user(
    State(app): State<App>,
    server: Server,
    path: Result<OfUser, Refused>,
    page: Result<Page, Refused>,
) -> Result<Json<List<SessionState>>, Refused> {
    let caller = server.with(Scope::Sessions)?;
    let page = page?;
    let OfUser(user_id) = path?;
    let before = page.behind(Kind::Session)?;
    let found = app.engine.sessions_of(&caller, &user_id, before.as_ref(), page.limit as i64 + 1).await?;
    let found = found.into_iter().map(|s| (s.id.to_string(), SessionState::new(s, true))).collect();
    Ok(Json(List::of(found, page.limit)))
}

/// Revokes every session of a user.
#[utoipa::path(delete, path = "/v1/users/{user_id}/sessions", tag = "sessions", security(("api_key" = ["sessions"])),
    params(("user_id" = String, Path)),
    responses((status = 204)))]
pub async fn revoke_all_of_user(
    State(app): State<App>,
    server: Server,
    path: Result<OfUser, Refused>,
) -> Result<StatusCode, Refused> {
    let caller = server.with(Scope::Sessions)?;
    let OfUser(user_id) = path?;
    app.engine.revoke_sessions_of(&caller, &user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
