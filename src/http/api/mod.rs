//! The JSON API: one file per resource, the router as its table of contents.

pub mod answers;
mod around;
mod challenge_request;
mod challenges;
mod docs;
mod document;
mod events;
mod factors;
mod list;
mod portal_sessions;
mod recovery_codes;
mod sessions;
mod shapes;
mod users;
mod webhooks;

pub use around::router as around;
pub use webhooks::message as webhook_message;

use axum::Router;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, scrape};

/// The API's routes, and the document that describes them.
pub fn router() -> (Router<App>, utoipa::openapi::OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(document::Head::openapi())
        .routes(routes!(challenges::create))
        .routes(routes!(challenges::show))
        .routes(routes!(challenges::prepare))
        .routes(routes!(challenges::verify))
        .routes(routes!(challenges::exchange))
        .routes(routes!(challenges::cancel))
        .routes(routes!(users::show, users::put, users::erase))
        .routes(routes!(factors::list, factors::create))
        .routes(routes!(factors::show, factors::rename, factors::remove))
        .routes(routes!(factors::activate))
        .routes(routes!(factors::resend))
        .routes(routes!(recovery_codes::show, recovery_codes::create))
        .routes(routes!(recovery_codes::confirm))
        .routes(routes!(sessions::introspect))
        .routes(routes!(sessions::show, sessions::revoke))
        .routes(routes!(sessions::list_of_user, sessions::revoke_all_of_user))
        .routes(routes!(events::list))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::show, webhooks::change, webhooks::remove))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(portal_sessions::create))
        .routes(routes!(around::jwks))
        .routes(routes!(around::livez))
        .routes(routes!(around::readyz))
        .routes(routes!(scrape::metrics))
        .split_for_parts();
    document::complete(&mut document);
    (router, document)
}
