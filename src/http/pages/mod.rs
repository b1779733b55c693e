//! Hosted pages: forms first, modules where a browser must take part. A handler asks the engine and fills a view; the words are
//! those of the product, in templates and in `words`.

mod assets;
mod challenge;
mod ends;
mod enrol;
mod gallery;
mod picture;
mod portal;
mod recovery;
mod screen;
mod views;
mod visit;
mod words;

pub use assets::address as asset;
pub use screen::Message;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

use super::App;

/// The pages' routes; in development with the gallery.
pub fn router(development: bool) -> Router<App> {
    let router = Router::new()
        .route("/", get(start))
        .route("/assets/{version}/{name}", get(assets::serve))
        .merge(challenge::router())
        .merge(portal::router())
        .merge(enrol::router())
        .merge(recovery::router());
    match development {
        true => router.merge(gallery::router()),
        false => router,
    }
}

/// What stands at the root: this is an engine, not an application.
async fn start() -> Response {
    Message::new("Countersign", "This is an MFA engine")
        .line("It asks people for a second step on behalf of applications. There is nothing to sign in to here.")
        .line("If an app sent you here, go back to it and try again.")
        .link("Read the API documentation", "/docs")
        .respond(StatusCode::OK)
}
