//! Hosted pages: forms first, modules where a browser must take part. A handler asks the engine and fills a view; the words are
//! those of the product, in templates and in `words`.

mod assets;
mod challenge;
mod enrol;
mod picture;
mod portal;
mod recovery;
mod views;
mod visit;
mod words;

pub use assets::address as asset;
pub use views::Message;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

use super::App;

/// The pages' routes.
pub fn router() -> Router<App> {
    Router::new()
        .route("/", get(start))
        .route("/assets/{version}/{name}", get(assets::serve))
        .merge(challenge::router())
        .merge(portal::router())
        .merge(enrol::router())
        .merge(recovery::router())
}

/// What stands at the root: this is an engine, not an application.
async fn start() -> Response {
    Message::new("Countersign", "This is an MFA engine")
        .line("It asks people for a second step on behalf of applications. There is nothing to sign in to here.")
        .line("If an app sent you here, go back to it and try again.")
        .link("Read the API documentation", "/docs")
        .respond(StatusCode::OK)
}
