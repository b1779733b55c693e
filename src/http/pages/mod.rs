//! Hosted pages: forms first, modules where a browser must take part. A handler asks the engine and fills a view; the words are
//! those of the product, in templates and in `words`.

mod activity;
mod assets;
mod challenge;
mod ends;
mod enrol;
mod gallery;
mod naming;
mod picture;
mod portal;
mod recovery;
mod screen;
mod views;
mod visit;
mod words;

pub use assets::address as asset;
pub use screen::Message;
pub use words::codes_file;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::problem::{self, Refused};
use super::{App, auth};

/// What a call by a module of the pages carries against forgery.
const GUARD: &str = "form-guard";
/// Where programs and developers look: no person is led there.
const FOR_PROGRAMS: [&str; 6] = ["v1", "dev", "docs", "errors", "assets", ".well-known"];

/// The pages' routes; in development with the gallery.
pub fn router(app: &App, development: bool) -> Router<App> {
    let router = Router::new()
        .merge(challenge::router())
        .merge(portal::router())
        .merge(activity::router())
        .merge(enrol::router())
        .merge(recovery::router())
        .layer(middleware::from_fn_with_state(app.clone(), bounded))
        .route("/", get(start))
        .route("/assets/{version}/{name}", get(assets::serve));
    match development {
        true => router.merge(gallery::router()),
        false => router,
    }
}

/// Whether a request to this path with these headers is one by a person, who is answered by a page; the pages' modules call with
/// the guard in a header.
pub fn is_for_people(path: &str, headers: &HeaderMap) -> bool {
    (path.starts_with("/challenge/") || path.starts_with("/portal/")) && !headers.contains_key(GUARD)
}

/// The engine gave no answer. What it has `begun` to do may be done all the same; what was sent by a form is sent again by who goes
/// back to that.
pub fn without_answer(method: &Method, request_id: &str, begun: bool) -> Response {
    let is_look = matches!(*method, Method::GET | Method::HEAD);
    let known = if begun && !is_look { "It may have gone through all the same." } else { "Nothing was changed." };
    let refused = Refused::from(problem::STORE_UNAVAILABLE);
    let page = Message::new("Countersign", visit::OUTAGE).stopped().reference(request_id);
    let page = match is_look {
        true => page.line(format!("{known} Try again in a minute.")).link("Try again", ""),
        false => page.line(format!("{known} Go back and try again in a minute.")),
    };
    refused.tell_when(page.respond(refused.code.status))
}

/// An address that there is not. Who comes with a browser mistyped it, or follows an old link; programs get a problem.
pub async fn nowhere(parts: Parts) -> Response {
    let first = parts.uri.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    let accepts = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_look = matches!(parts.method, Method::GET | Method::HEAD);
    match is_look && accepts.contains("text/html") && !FOR_PROGRAMS.contains(&first) {
        true => visit::no_such_link(&auth::request_id(&parts)),
        false => Refused::from(problem::NOT_FOUND).into_response(),
    }
}

/// Lets no address flood the pages; modules are told so in JSON.
async fn bounded(State(app): State<App>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Err(refused) = app.flood.visit(app.client_address(&parts)) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    if parts.headers.contains_key(GUARD) {
        return refused.into_response();
    }
    let wait = refused.retry_after.unwrap_or(1);
    let page = Message::new("Countersign", "Too much at once").stopped().line(refused.user_message());
    let page = page.link("Try again", "").reference(&auth::request_id(&parts)).respond(refused.code.status);
    ([(RETRY_AFTER, wait.to_string())], page).into_response()
}

/// What stands at the root: this is an engine, not an application.
async fn start() -> Response {
    Message::new("Countersign", "This is an MFA engine")
        .line("It asks people for a second step on behalf of applications. There is nothing to sign in to here.")
        .line("If an app sent you here, go back to it and try again.")
        .link("Read the API documentation", "/docs")
        .respond(StatusCode::OK)
}
