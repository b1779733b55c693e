//! The OpenAPI document: its head, and what all operations have in common. The rest comes from the handlers.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    Content, Object, ObjectBuilder, OpenApi as Document, Ref, RefOr, Required, Response, ResponseBuilder, Type,
};
use utoipa::{Modify, OpenApi};

use super::webhooks;
use crate::http::problem::Problem;

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
    components(schemas(Problem, webhooks::Message)),
    modifiers(&Schemes)
)]
pub struct Head;

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

/// Adds what is the same for all: a name by which clients may be generated, the refusals, `Idempotency-Key` to every POST, the
/// bounds of `limit`.
pub fn complete(document: &mut Document) {
    for (path, item) in &mut document.paths.paths {
        if let Some(post) = &mut item.post {
            post.parameters.get_or_insert_default().push(idempotency_key().into());
        }
        for operation in operations(item) {
            name(operation);
            describe(operation);
            if path.starts_with("/v1/") {
                refuse(operation);
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// `challenges_create`: the resource and the handler.
fn name(operation: &mut Operation) {
    let resource = operation.tags.iter().flatten().next().map(|tag| tag.replace(' ', "_"));
    if let (Some(resource), Some(handler)) = (resource, &operation.operation_id) {
        operation.operation_id = Some(format!("{resource}_{handler}"));
    }
}

fn describe(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            response.description = match status.as_str() {
                "201" => "It was made.",
                "204" => "It was done.",
                "503" => "Not ready.",
                _ => "The answer.",
            }
            .to_owned();
        }
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && parameter.name == "limit"
        {
            let bounds = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
            let bounds = bounds.minimum(Some(1)).maximum(Some(100)).default(Some(20.into()));
            parameter.schema = Some(bounds.build().into());
        }
    }
}

fn refuse(operation: &mut Operation) {
    let mut add = |status: &str, response: Response| {
        operation.responses.responses.insert(status.to_owned(), response.into());
    };
    let wait = || {
        let seconds = Object::with_type(Type::Integer);
        HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds until it may be tried again.")).build()
    };
    let problem = |about: &str| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        ResponseBuilder::new().description(about).content("application/problem+json", content)
    };
    add("4XX", problem("Refused; `code` says why.").build());
    add("429", problem("Not now; `code` says why.").header("Retry-After", wait()).build());
    add("503", problem("Not possible at the moment; `code` says why.").header("Retry-After", wait()).build());
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
