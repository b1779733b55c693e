//! `/v1/users/{user_id}/factors`: enrolling, renaming and removing factors.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::answers;
use super::list::List;
use super::shapes::FactorView;
use crate::engine::{Answer, Attachment, Begin, Ending, Error, LONGEST_FACTOR_NAME, Refusal, Started, Wish};
use crate::http::App;
use crate::http::auth::Bearer;
use crate::http::body::{Body, Legible, MaybeBody, Nothing, OfFactor, OfUser, Page};
use crate::http::problem::{self, Refused};
use crate::model::{Kind, Number, Scope};

/// A factor to be enrolled.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FactorRequest)]
pub struct CreateRequest {
    /// The method.
    #[serde(rename = "type")]
    kind: Enrollable,
    /// The person's name for it; a free one is found where there is none.
    #[schema(value_type = Option<String>, max_length = 50)]
    name: Option<Legible<200>>,
    /// Of `webauthn`: what the browser should offer.
    authenticator: Option<Authenticator>,
    /// Of `sms`: E.164.
    #[schema(example = "+14155550123")]
    phone: Option<String>,
}

/// Methods that are enrolled as factors.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Enrollable {
    Totp,
    Webauthn,
    Sms,
}

/// What the browser should offer.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Authenticator {
    Any,
    Platform,
    SecurityKey,
}

impl CreateRequest {
    fn model(self, user_id: String) -> Result<Begin, Refused> {
        let wish = match (self.kind, self.authenticator, self.phone) {
            (Enrollable::Totp, None, None) => Wish::Totp,
            (Enrollable::Webauthn, authenticator, None) => Wish::Webauthn(match authenticator {
                None | Some(Authenticator::Any) => Attachment::Any,
                Some(Authenticator::Platform) => Attachment::Platform,
                Some(Authenticator::SecurityKey) => Attachment::SecurityKey,
            }),
            (Enrollable::Sms, None, Some(phone)) => {
                Wish::Sms(Number::parse(&phone).ok_or_else(|| Refused::of("phone", problem::PHONE_INVALID))?)
            }
            (Enrollable::Sms, None, None) => return Err(Refused::invalid("phone", "The member is missing.")),
            (_, Some(_), _) => return Err(Refused::invalid("authenticator", "Only webauthn takes it.")),
            (_, _, Some(_)) => return Err(Refused::invalid("phone", "Only sms takes it.")),
        };
        Ok(Begin { user_id, wish, name: self.name.map(|n| name(n.take())).transpose()? })
    }
}

/// 1 to 50 characters, trimmed.
fn name(text: String) -> Result<String, Refused> {
    let name = text.trim();
    match (1..=LONGEST_FACTOR_NAME).contains(&name.chars().count()) {
        true => Ok(name.to_owned()),
        false => Err(Refused::invalid("name", "Expected 1 to 50 characters.")),
    }
}

/// Starts the enrolment of a factor. Secrets and options in the answer are shown once.
#[utoipa::path(post, path = "/v1/users/{user_id}/factors", tag = "factors", security(("api_key" = ["factors:write"]), ("client_token" = [])),
    params(("user_id" = String, Path)), request_body = CreateRequest,
    responses((status = 201, body = FactorView)))]
pub async fn create(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfUser, Refused>,
    body: Body<CreateRequest>,
) -> Result<Response, Refused> {
    let (caller, OfUser(user_id)) = bearer.for_enrolment(path)?;
    let wanted = body.read()?.model(user_id)?;
    let begun = app.engine.begin_enrolment(&caller, wanted).await;
    let Started { factor, shown, prompt } = begun.map_err(|error| match error {
        Error::Refused(Refusal::PhoneInvalid) => Refused::of("phone", problem::PHONE_INVALID),
        Error::Refused(Refusal::PhoneNotAllowed) => Refused::of("phone", problem::PHONE_NOT_ALLOWED),
        other => other.into(),
    })?;
    let begun = Ending::Begun { factor: &factor, shown: &shown, prompt: prompt.as_ref() };
    Ok(answers::of(begun, app.engine.issuer()))
}

/// The first proof of a pending factor: `code`, or `credential` for `webauthn`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivateRequest {
    /// What the app shows or the text says.
    #[schema(value_type = Option<String>)]
    code: Option<Zeroizing<String>>,
    /// What `credential.toJSON()` gave.
    #[schema(value_type = Option<Object>)]
    credential: Option<Map<String, Value>>,
}

/// Proves a pending factor, which is active from then on. The code is spent by it.
#[utoipa::path(post, path = "/v1/users/{user_id}/factors/{id}/activate", tag = "factors", security(("api_key" = ["factors:write"]), ("client_token" = [])),
    params(("user_id" = String, Path), ("id" = String, Path)), request_body = ActivateRequest,
    responses((status = 200, body = FactorView)))]
pub async fn activate(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfFactor, Refused>,
    body: Body<ActivateRequest>,
) -> Result<Response, Refused> {
    let (caller, OfFactor(user_id, id)) = bearer.for_enrolment(path)?;
    let request = body.read()?;
    let answer = match (request.code, request.credential) {
        (Some(code), None) => Answer::Code(code),
        (None, Some(credential)) => Answer::Credential(Value::Object(credential)),
        (Some(_), Some(_)) => return Err(Refused::invalid("credential", "Expected code or credential, not both.")),
        (None, None) => return Err(Refused::invalid("code", "The member is missing.")),
    };
    let factor = app.engine.activate(&caller, &user_id, &id, &answer).await?;
    Ok(answers::of(Ending::Activated(&factor), app.engine.issuer()))
}

/// Sends another code for a pending phone; the earlier one dies.
#[utoipa::path(post, path = "/v1/users/{user_id}/factors/{id}/resend", tag = "factors", security(("api_key" = ["factors:write"]), ("client_token" = [])),
    params(("user_id" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = FactorView)))]
pub async fn resend(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfFactor, Refused>,
    MaybeBody(body): MaybeBody<Nothing>,
) -> Result<Response, Refused> {
    let (caller, OfFactor(user_id, id)) = bearer.for_enrolment(path)?;
    body.read()?;
    let Started { factor, shown, prompt } = app.engine.resend(&caller, &user_id, &id).await?;
    let resent = Ending::Resent { factor: &factor, shown: &shown, prompt: prompt.as_ref() };
    Ok(answers::of(resent, app.engine.issuer()))
}

/// A user's factors, oldest first.
#[utoipa::path(get, path = "/v1/users/{user_id}/factors", tag = "factors", security(("api_key" = ["users:read"]), ("client_token" = [])),
    params(("user_id" = String, Path), ("limit" = Option<usize>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = List<FactorView>)))]
pub async fn list(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfUser, Refused>,
    page: Result<Page, Refused>,
) -> Result<Json<List<FactorView>>, Refused> {
    let (caller, OfUser(user_id)) = bearer.for_user(path, Scope::UsersRead)?;
    let page = page?;
    let after = page.behind(Kind::Factor)?;
    let factors = app.engine.factors(&caller, &user_id).await?;
    let rest = factors.iter().filter(|f| after.as_ref().is_none_or(|a| f.id > *a)).take(page.limit + 1);
    Ok(Json(List::of(rest.map(|f| (f.id.to_string(), f.into())).collect(), page.limit)))
}

/// One factor.
#[utoipa::path(get, path = "/v1/users/{user_id}/factors/{id}", tag = "factors", security(("api_key" = ["users:read"]), ("client_token" = [])),
    params(("user_id" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = FactorView)))]
pub async fn show(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfFactor, Refused>,
) -> Result<Json<FactorView>, Refused> {
    let (caller, OfFactor(user_id, id)) = bearer.for_user(path, Scope::UsersRead)?;
    Ok(Json(FactorView::from(&app.engine.factor(&caller, &user_id, &id).await?)))
}

/// Another name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameRequest {
    /// 1 to 50 characters.
    #[schema(value_type = String, max_length = 50)]
    name: Legible<200>,
}

/// Renames a factor.
#[utoipa::path(patch, path = "/v1/users/{user_id}/factors/{id}", tag = "factors", security(("api_key" = ["factors:write"]), ("client_token" = [])),
    params(("user_id" = String, Path), ("id" = String, Path)), request_body = RenameRequest,
    responses((status = 200, body = FactorView)))]
pub async fn rename(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfFactor, Refused>,
    body: Body<RenameRequest>,
) -> Result<Json<FactorView>, Refused> {
    let (caller, OfFactor(user_id, id)) = bearer.for_user(path, Scope::FactorsWrite)?;
    let name = name(body.read()?.name.take())?;
    let factor = app.engine.rename_factor(&caller, &user_id, &id, &name).await?;
    Ok(Json(FactorView::from(&factor)))
}

/// Removes a factor and ends the sessions that it earned.
#[utoipa::path(delete, path = "/v1/users/{user_id}/factors/{id}", tag = "factors", security(("api_key" = ["factors:write"]), ("client_token" = [])),
    params(("user_id" = String, Path), ("id" = String, Path)),
    responses((status = 204)))]
pub async fn remove(
    State(app): State<App>,
    bearer: Bearer,
    path: Result<OfFactor, Refused>,
) -> Result<StatusCode, Refused> {
    let (caller, OfFactor(user_id, id)) = bearer.for_user(path, Scope::FactorsWrite)?;
    app.engine.remove_factor(&caller, &user_id, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
