//! `/v1/portal-sessions`: a person's visit to the hosted pages.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers;
use crate::engine::{Ending, NewPortal, PortalView};
use crate::http::App;
use crate::http::auth::Server;
use crate::http::body::{self, Body, Text};
use crate::http::problem::Refused;
use crate::model::{Flow, Scope};

/// A visit to be opened.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PortalRequest)]
pub struct CreateRequest {
    /// Whose factors.
    #[schema(value_type = String, max_length = 255)]
    user_id: Text<255>,
    /// `settings`, `add_passkey`, `add_authenticator_app`, `add_phone` or `recovery_codes`
    #[schema(value_type = String, example = "add_passkey")]
    flow: Flow,
    /// Where the person goes afterwards; registered.
    #[schema(value_type = Option<String>)]
    return_url: Option<Text<2048>>,
    /// A fresh step-up session, which spares the person a second proof.
    #[schema(value_type = Option<String>)]
    session_token: Option<Text<20_000>>,
}

/// The visit, once.
#[derive(Serialize, ToSchema)]
pub struct CreatedView {
    /// The page to send the browser to; it opens once.
    #[schema(nullable)]
    url: String,
    /// For calls from a browser: ten minutes.
    #[schema(nullable)]
    client_token: String,
    /// When the visit ends.
    #[schema(format = "date-time")]
    expires_at: String,
}

impl CreatedView {
    /// As it is opened.
    pub fn new(visit: &PortalView, issuer: &str) -> CreatedView {
        CreatedView {
            url: format!("{issuer}/portal/{}?token={}", visit.portal.id, visit.link_token.as_str()),
            client_token: visit.client_token.clone(),
            expires_at: visit.portal.expires_at.rfc3339(),
        }
    }
}

/// Opens a portal session.
#[utoipa::path(post, path = "/v1/portal-sessions", tag = "portal", security(("api_key" = ["factors:write"])),
    request_body = CreateRequest,
    responses((status = 201, body = CreatedView)))]
pub async fn create(State(app): State<App>, server: Server, body: Body<CreateRequest>) -> Result<Response, Refused> {
    let caller = server.with(Scope::FactorsWrite)?;
    let request = body.read()?;
    let new = NewPortal {
        user_id: body::user(request.user_id.take())?,
        flow: request.flow,
        return_url: request.return_url.map(Text::take),
        session_token: request.session_token.map(Text::take),
    };
    let opened = app.engine.create_portal(&caller, new).await?;
    Ok(answers::of(Ending::Visit(&opened), app.engine.issuer()))
}
