//! `/v1/users/{user_id}`: what the engine knows of a user.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shapes::{FactorView, RecoveryView};
use crate::engine::{Caller, Named, Names, UserView as View};
use crate::http::App;
use crate::http::auth::{Pass, Server};
use crate::http::body::{Body, OfUser, Text, given};
use crate::http::problem::Refused;
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
    responses((status = 200, body = UserView)))]
pub async fn show(
    State(app): State<App>,
    pass: Pass,
    path: Result<OfUser, Refused>,
) -> Result<Json<UserView>, Refused> {
    let named = path.as_ref().map_or(Named::Nothing, |OfUser(user_id)| Named::User(user_id));
    let (caller, OfUser(user_id)) = pass.enter(&app, named).await?.for_user(path, Scope::UsersRead)?;
    view(&app, &caller, &user_id).await
}

/// What pages show of a user. Members that are absent stay as they are; `null` clears.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutRequest {
    /// A name.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 100)]
    display_name: Option<Option<Text<100>>>,
    /// What the person signs in with; pages show it masked.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 255)]
    login_hint: Option<Option<Text<255>>>,
    /// BCP 47.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 35)]
    locale: Option<Option<Text<35>>>,
}

/// Names a user, or names one anew.
#[utoipa::path(put, path = "/v1/users/{user_id}", tag = "users", security(("api_key" = ["factors:write"])),
    params(("user_id" = String, Path)), request_body = PutRequest,
    responses((status = 200, body = UserView)))]
pub async fn put(
    State(app): State<App>,
    server: Server,
    path: Result<OfUser, Refused>,
    body: Body<PutRequest>,
) -> Result<Json<UserView>, Refused> {
    let caller = server.with(Scope::FactorsWrite)?;
    let OfUser(user_id) = path?;
    let request = body.read()?;
    if request.locale.as_ref().is_some_and(|l| l.as_ref().is_some_and(|l| !is_language(&l.0))) {
        return Err(Refused::invalid("locale", "Expected a BCP 47 tag."));
    }
    let names = Names {
        display_name: request.display_name.map(|name| name.map(Text::take)),
        login_hint: request.login_hint.map(|hint| hint.map(Text::take)),
        locale: request.locale.map(|locale| locale.map(Text::take)),
    };
    app.engine.put_user(&caller, &user_id, names).await?;
    view(&app, &caller, &user_id).await
}

/// Whether it has the form of a BCP 47 tag: subtags of one to eight letters and digits, first a language of letters.
fn is_language(text: &str) -> bool {
    let subtag = |s: &str| (1..=8).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric());
    let language = text.split('-').next().unwrap_or_default();
    text.split('-').all(subtag) && language.len() >= 2 && language.bytes().all(|b| b.is_ascii_alphabetic())
}

/// Erases a user's personal data. Audit rows keep an irreversible pseudonym.
#[utoipa::path(delete, path = "/v1/users/{user_id}", tag = "users", security(("api_key" = ["factors:write"])),
    params(("user_id" = String, Path)),
    responses((status = 204)))]
pub async fn erase(
    State(app): State<App>,
    server: Server,
    path: Result<OfUser, Refused>,
) -> Result<StatusCode, Refused> {
    let caller = server.with(Scope::FactorsWrite)?;
    let OfUser(user_id) = path?;
    app.engine.erase_user(&caller, &user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
