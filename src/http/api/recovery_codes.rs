//! `/v1/users/{user_id}/recovery-codes`: single-use codes that a person keeps.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::answers;
use super::shapes::RecoveryView;
use crate::engine::Ending;
use crate::http::App;
use crate::http::auth::Bearer;
use crate::http::body::{MaybeBody, Nothing, OfUser};
use crate::http::problem::Refused;
use crate::model::{RecoveryStatus, Scope};

/// A set to be made.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RecoveryCodesRequest)]
pub struct CreateRequest {
    /// The set redeems nothing until it is confirmed; `false` if unset.
    require_confirmation: Option<bool>,
}

/// The codes, once.
#[derive(Serialize, ToSchema)]
pub struct CodesView {
    /// Ten codes, each good once, in any order.
    #[schema(nullable, example = json!(["7K3M-Q9XD-0VTB-2HPN"]))]
    codes: Vec<String>,
    /// `active` or `unconfirmed`
    #[schema(example = "active")]
    status: &'static str,
}

impl CodesView {
    /// Codes of a set in this state.
    pub fn new(codes: &[Zeroizing<String>], status: RecoveryStatus) -> CodesView {
        CodesView { codes: codes.iter().map(|c| c.to_string()).collect(), status: status.as_str() }
    }
}

/// Makes a new set. The old one dies when the new one is active.
#[utoipa::path(post, path = "/v1/users/{user_id}/recovery-codes", tag = "recovery codes", security(("api_key" = ["factors:write"]), ("client_token" = [])),
    params(("user_id" = String, Path)), request_body = Option<CreateRequest>,
    responses((status = 201, body = CodesView)))]
pub async fn create(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfUser, Refused>,
    MaybeBody(body): MaybeBody<CreateRequest>,
) -> Result<Response, Refused> {
    let (caller, OfUser(user_id)) = bearer.for_user(path, Scope::FactorsWrite)?;
    let confirm = body.read()?.require_confirmation.unwrap_or(false);
    let made = app.engine.create_recovery_codes(&caller, &user_id, confirm).await?;
    Ok(answers::of(Ending::Codes(&made.codes, made.status), app.engine.issuer()))
}

/// The person has saved the codes: the new set redeems, the old one no longer.
#[utoipa::path(post, path = "/v1/users/{user_id}/recovery-codes/confirm", tag = "recovery codes", security(("api_key" = ["factors:write"]), ("client_token" = [])),
    params(("user_id" = String, Path)),
    responses((status = 200, body = RecoveryView)))]
pub async fn confirm(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfUser, Refused>,
    MaybeBody(body): MaybeBody<Nothing>,
) -> Result<Response, Refused> {
    let (caller, OfUser(user_id)) = bearer.for_user(path, Scope::FactorsWrite)?;
    body.read()?;
    let summary = app.engine.confirm_recovery_codes(&caller, &user_id, None).await?;
    Ok(answers::of(Ending::Confirmed(&summary), app.engine.issuer()))
}

/// How many codes there are and are left; never the codes.
#[utoipa::path(get, path = "/v1/users/{user_id}/recovery-codes", tag = "recovery codes", security(("api_key" = ["users:read"]), ("client_token" = [])),
    params(("user_id" = String, Path)),
    responses((status = 200, body = RecoveryView)))]
pub async fn show(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfUser, Refused>,
) -> Result<Json<RecoveryView>, Refused> {
    let (caller, OfUser(user_id)) = bearer.for_user(path, Scope::UsersRead)?;
    Ok(Json(app.engine.recovery_summary(&caller, &user_id).await?.into()))
}
