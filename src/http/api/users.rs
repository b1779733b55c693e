//! `/v1/users/{user_id}`: what the engine knows of a user.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shapes::{FactorView, RecoveryView};
use crate::engine::{Caller, Named, UserView as View};
use crate::http::App;
use crate::http::auth::{Pass, Server};
use crate::http::body::{Body, OfUser, Text};
use crate::http::problem::{Problem, Refused};
use crate::model::{Acr, Scope};

/// A user; an unknown one looks like one with nothing enrolled.
#[derive(Serialize, ToSchema)]
pub struct UserView {
    /// The relying party's own name for the person.
    user_id: String,
    /// What pages and authenticators show.
    display_name: Option<String>,
    /// BCP 47.
    locale: Option<String>,
    /// Active and pending factors.
    factors: Vec<FactorView>,
    /// Recovery codes.
    recovery_codes: RecoveryView,
    /// Methods whose guessing pauses.
    paused: Vec<PausedView>,
    /// The strongest that the user can prove; `null` with nothing enrolled.
    #[schema(example = "phr")]
    highest_acr: Option<&'static str>,
}

/// A pause.
#[derive(Serialize, ToSchema)]
pub struct PausedView {
    /// The method.
    method: &'static str,
    /// Its end.
    #[schema(format = "date-time")]
    until: String,
}

async fn view(app: &App, caller: &Caller, user_id: &str) -> Result<Json<UserView>, Refused> {
    let View { user, factors, recovery, paused, highest_acr } = app.engine.user_view(caller, user_id).await?;
    Ok(Json(UserView {
        user_id: user.user_id,
        display_name: user.display_name,
        locale: user.locale,
        factors: factors.iter().map(FactorView::from).collect(),
        recovery_codes: recovery.into(),
        paused: paused
            .iter()
            .map(|pause| PausedView { method: pause.method.as_str(), until: pause.until.rfc3339() })
            .collect(),
        highest_acr: highest_acr.map(Acr::as_str),
    }))
}

/// Shows a user.
#[utoipa::path(get, path = "/v1/users/{user_id}", tag = "users", security(("api_key" = ["users:read"]), ("client_token" = [])),
    params(("user_id" = String, Path)),
    responses((status = 200, body = UserView), (status = "4XX", body = Problem, content_type = "application/problem+json"), (status = "5XX", body = Problem, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<App>,
    pass: Pass,
    user: Result<OfUser, Refused>,
) -> Result<Json<UserView>, Refused> {
    let named = user.as_ref().map_or(Named::Nothing, |OfUser(user_id)| Named::User(user_id));
    let bearer = pass.enter(&app, named).await?;
    let OfUser(user_id) = user?;
    let caller = bearer.for_user(&user_id, Scope::UsersRead)?;
    view(&app, &caller, &user_id).await
}

/// What pages show of a user; absent members stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutRequest {
    /// A name.
    #[schema(value_type = Option<String>, max_length = 100)]
    display_name: Option<Text<100>>,
    /// What the person signs in with; pages show it masked.
    #[schema(value_type = Option<String>, max_length = 255)]
    login_hint: Option<Text<255>>,
    /// BCP 47.
    #[schema(value_type = Option<String>, max_length = 35)]
    locale: Option<Text<35>>,
}

/// Names a user, or names one anew.
#[utoipa::path(put, path = "/v1/users/{user_id}", tag = "users", security(("api_key" = ["factors:write"])),
    params(("user_id" = String, Path)), request_body = PutRequest,
    responses((status = 200, body = UserView), (status = "4XX", body = Problem, content_type = "application/problem+json"), (status = "5XX", body = Problem, content_type = "application/problem+json")))]
pub async fn put(
    State(app): State<App>,
    server: Server,
    OfUser(user_id): OfUser,
    body: Body<PutRequest>,
) -> Result<Json<UserView>, Refused> {
    let caller = server.with(Scope::FactorsWrite)?;
    let request = body.read()?;
    let locale = request.locale.map(Text::take);
    if locale.as_ref().is_some_and(|l| !l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')) {
        return Err(Refused::invalid("locale", "Expected a BCP 47 tag."));
    }
    app.engine
        .put_user(&caller, &user_id, request.display_name.map(Text::take), request.login_hint.map(Text::take), locale)
        .await?;
    view(&app, &caller, &user_id).await
}

/// Erases a user's personal data. Audit rows keep an irreversible pseudonym.
#[utoipa::path(delete, path = "/v1/users/{user_id}", tag = "users", security(("api_key" = ["factors:write"])),
    params(("user_id" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json"), (status = "5XX", body = Problem, content_type = "application/problem+json")))]
pub async fn erase(State(app): State<App>, server: Server, OfUser(user_id): OfUser) -> Result<StatusCode, Refused> {
    let caller = server.with(Scope::FactorsWrite)?;
    app.engine.erase_user(&caller, &user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
