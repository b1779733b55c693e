//! What stands around the API: keys, health, the document itself, and aids for trials.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;

use crate::http::App;
use crate::http::problem::{self, Problem, Refused};

/// A set of public keys (RFC 7517).
#[derive(Serialize, ToSchema)]
pub struct Jwks {
    /// The keys.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<serde_json::Value>,
}

/// The public keys of step-up JWTs.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "service", responses((status = 200, body = Jwks)))]
pub async fn jwks(State(app): State<App>) -> Response {
    let headers = [(CACHE_CONTROL, "public, max-age=300"), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (headers, Json(app.engine.jwks())).into_response()
}

/// How it is.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "service", responses((status = 200, body = Health)))]
pub async fn livez() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The process serves: its database answers with the schema that it knows.
#[utoipa::path(get, path = "/readyz", tag = "service",
    responses((status = 200, body = Health), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn readyz(State(app): State<App>) -> Result<Json<Health>, Refused> {
    match app.is_ready().await {
        true => Ok(Json(Health { status: "ok" })),
        false => Err(problem::STORE_UNAVAILABLE.into()),
    }
}

/// The document and its readable page; in development also the inbox of texts.
pub fn router(document: OpenApi, development: bool) -> Router<App> {
    let document = Arc::new(document);
    let page = Arc::new(super::docs::page(&document));
    let router = Router::new()
        .route("/openapi.json", get(move || async move { Json((*document).clone()) }))
        .route("/docs", get(move || async move { readable((*page).clone()) }))
        .route("/errors/{code}", get(error_page));
    match development {
        true => router.route("/dev/inbox", get(inbox)),
        false => router,
    }
}

async fn inbox(State(app): State<App>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "data": app.engine.inbox().texts() }))
}

async fn error_page(code: Result<Path<String>, PathRejection>) -> Result<Response, Refused> {
    let Path(code) = code.map_err(|_| problem::NOT_FOUND)?;
    let code = problem::CODES.iter().find(|c| c.code == code).ok_or(Refused::from(problem::NOT_FOUND))?;
    Ok(readable(super::docs::error_page(code)))
}

fn readable(page: String) -> Response {
    let policy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([(CONTENT_SECURITY_POLICY, policy)], Html(page)).into_response()
}
