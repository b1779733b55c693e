//! The JSON API: one file per resource, the router as its table of contents.

pub mod answers;
mod around;
mod challenge_request;
mod challenges;
mod docs;
mod events;
mod factors;
mod portal_sessions;
mod recovery_codes;
mod sessions;
mod shapes;
mod users;
mod webhooks;

pub use around::router as around;
pub use webhooks::message as webhook_message;

use axum::Router;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Object, Required, Type};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, scrape};

/// The document's head; paths and shapes come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Countersign",
        description = "Enrols and verifies second factors beside any login, and issues step-up sessions.\n\nErrors are `application/problem+json` with a stable `code`. A wrong code is never 2xx.",
        license(name = "Apache-2.0")
    ),
    tags(
        (name = "challenges", description = "Asking a user for proof"),
        (name = "factors", description = "Enrolling, renaming and removing factors"),
        (name = "recovery codes", description = "Single-use codes that a person keeps"),
        (name = "sessions", description = "Step-up sessions: introspect, look up, revoke"),
        (name = "users", description = "What the engine knows of a user"),
        (name = "events", description = "What happened, in order"),
        (name = "webhooks", description = "Endpoints that are told of events (Standard Webhooks 1.0.0)"),
        (name = "portal", description = "Hosted pages"),
        (name = "service", description = "Keys and health"),
    ),
    components(schemas(webhooks::Message)),
    modifiers(&Schemes)
)]
struct Head;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        let bearer = |about: &str| {
            let mut scheme = Http::new(HttpAuthScheme::Bearer);
            scheme.description = Some(about.to_owned());
            SecurityScheme::Http(scheme)
        };
        components.add_security_scheme(
            "api_key",
            bearer(
                "A relying party's API key: sk_live_… or sk_test_…, with the scope that the operation names, or admin",
            ),
        );
        components.add_security_scheme(
            "client_token",
            bearer("A browser's client token: ct_…, bound to one challenge or portal session"),
        );
    }
}

fn idempotency_key() -> Parameter {
    let about = "1 to 255 visible ASCII characters. The first answer is kept for 24 hours and given again to the same caller, path, key and body, with `Idempotent-Replayed: true`; after ten minutes its secrets are null.";
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(Object::with_type(Type::String)))
        .build()
}

/// The API's routes, and the document that describes them.
pub fn router() -> (Router<App>, utoipa::openapi::OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(Head::openapi())
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
    for call in document.paths.paths.values_mut().filter_map(|path| path.post.as_mut()) {
        call.parameters.get_or_insert_default().push(idempotency_key().into());
    }
    (router, document)
}
