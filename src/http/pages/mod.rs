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
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{App, auth};

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

/// Lets no address flood the pages; modules are told so in JSON.
async fn bounded(State(app): State<App>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Err(refused) = app.flood.visit(app.client_address(&parts)) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    if parts.headers.contains_key("form-guard") {
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
