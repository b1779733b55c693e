//! `/v1/webhook-endpoints`: where a relying party is told of its events, and what became of each.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers;
use super::events::EventView;
use super::list::List;
use crate::engine::{Ending, EndpointChange, NewEndpoint, WithSecret};
use crate::http::App;
use crate::http::auth::Server;
use crate::http::body::{Body, MaybeBody, Nothing, OfId, Page, Text, given};
use crate::http::problem::Refused;
use crate::model::{Delivery, Endpoint, Kind, Recorded, Scope};

/// What an endpoint is sent, with the headers of Standard Webhooks 1.0.0.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookMessage)]
pub struct Message {
    /// The event's type, or `webhook.test`.
    #[serde(rename = "type")]
    #[schema(example = "factor.added")]
    kind: String,
    /// When it happened.
    #[schema(format = "date-time")]
    timestamp: String,
    /// The event, as `GET /v1/events` has it.
    data: EventView,
}

/// The body by which an endpoint is told of an event.
pub fn message(event: Recorded) -> Vec<u8> {
    let (kind, timestamp) = (event.kind.clone(), event.at.rfc3339());
    let message = Message { kind, timestamp, data: EventView::new(event).1 };
    serde_json::to_vec(&message).expect("views are JSON: text keys, no numbers that JSON lacks")
}

/// An endpoint; never with its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookEndpoint)]
pub struct EndpointView {
    /// `whk_…`
    id: String,
    /// The address.
    url: String,
    /// Types of events; `null` for all.
    events: Option<Vec<String>>,
    /// The relying party's own words.
    description: Option<String>,
    /// `enabled` or `disabled`
    #[schema(example = "enabled")]
    status: &'static str,
    /// Why it is disabled: `asked`, `gone` (it answered 410), `failing` (nothing but failures for five days), or what is wrong with
    /// its secret.
    disabled_reason: Option<String>,
    /// Since when every attempt fails.
    #[schema(format = "date-time")]
    failing_since: Option<String>,
    /// When it was made.
    #[schema(format = "date-time")]
    created_at: String,
}

impl From<&Endpoint> for EndpointView {
    fn from(endpoint: &Endpoint) -> EndpointView {
        EndpointView {
            id: endpoint.id.to_string(),
            url: endpoint.url.clone(),
            events: endpoint.kinds.clone(),
            description: endpoint.description.clone(),
            status: if endpoint.disabled.is_none() { "enabled" } else { "disabled" },
            disabled_reason: endpoint.disabled.as_ref().map(|(_, why)| why.clone()),
            failing_since: endpoint.failing_since.map(|t| t.rfc3339()),
            created_at: endpoint.created_at.rfc3339(),
        }
    }
}

/// An endpoint with its secret, once.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookEndpointWithSecret)]
pub struct SecretView {
    /// `whk_…`
    id: String,
    /// The address.
    url: String,
    /// Types of events; `null` for all.
    events: Option<Vec<String>>,
    /// The relying party's own words.
    description: Option<String>,
    /// `enabled` or `disabled`
    #[schema(example = "enabled")]
    status: &'static str,
    /// When it was made.
    #[schema(format = "date-time")]
    created_at: String,
    /// What signs from now on; verify with any library of Standard Webhooks.
    #[schema(nullable, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: String,
}

impl From<&WithSecret> for SecretView {
    fn from(made: &WithSecret) -> SecretView {
        let view = EndpointView::from(&made.endpoint);
        SecretView {
            id: view.id,
            url: view.url,
            events: view.events,
            description: view.description,
            status: view.status,
            created_at: view.created_at,
            secret: made.secret.to_string(),
        }
    }
}

/// One event on its way to one endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
pub struct DeliveryView {
    /// `evt_…`, the message's `webhook-id`
    event_id: String,
    /// The event's type.
    #[serde(rename = "type")]
    #[schema(example = "factor.added")]
    kind: String,
    /// `pending`, `delivered`, `failed` or `dropped` (the endpoint was disabled meanwhile)
    #[schema(example = "delivered")]
    status: String,
    /// Attempts so far.
    attempts: i64,
    /// When it was queued.
    #[schema(format = "date-time")]
    created_at: String,
    /// When the next attempt is due.
    #[schema(format = "date-time")]
    next_attempt_at: Option<String>,
    /// The last attempt.
    #[schema(format = "date-time")]
    last_attempt_at: Option<String>,
    /// The HTTP status of its answer.
    last_status: Option<i64>,
    /// Why there was none: `timeout`, `unreachable`, `no_answer`, `address_not_allowed` or `no_client`.
    last_error: Option<String>,
}

impl From<&Delivery> for DeliveryView {
    fn from(delivery: &Delivery) -> DeliveryView {
        DeliveryView {
            event_id: delivery.event_id.to_string(),
            kind: delivery.kind.clone(),
            status: delivery.outcome.clone().unwrap_or_else(|| "pending".to_owned()),
            attempts: delivery.attempts,
            created_at: delivery.created_at.rfc3339(),
            next_attempt_at: delivery.next_at.map(|t| t.rfc3339()),
            last_attempt_at: delivery.last_at.filter(|_| delivery.attempts > 0).map(|t| t.rfc3339()),
            last_status: delivery.last_status,
            last_error: delivery.last_error.clone(),
        }
    }
}

/// An endpoint to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookEndpointRequest)]
pub struct CreateRequest {
    /// An https address of the public Internet.
    #[schema(value_type = String, max_length = 2048, example = "https://www.example.com/webhooks")]
    url: Text<2048>,
    /// Types of events, as `factor.added`; all if unset.
    #[schema(value_type = Option<Vec<String>>)]
    events: Option<Vec<Text<64>>>,
    /// Your own words.
    #[schema(value_type = Option<String>, max_length = 200)]
    description: Option<Text<200>>,
}

/// What is changed; absent members stay as they are.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookEndpointChange)]
pub struct ChangeRequest {
    /// An https address of the public Internet.
    #[schema(value_type = Option<String>, max_length = 2048)]
    url: Option<Text<2048>>,
    /// Types of events; `null` for all.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    events: Option<Option<Vec<Text<64>>>>,
    /// Your own words; `null` for none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 200)]
    description: Option<Option<Text<200>>>,
    /// `enabled`: it is told of what happens from now on. `disabled`: nothing is sent, and what waited is dropped.
    #[schema(value_type = Option<String>, example = "enabled")]
    status: Option<Status>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Status {
    Enabled,
    Disabled,
}

fn taken(kinds: Vec<Text<64>>) -> Vec<String> {
    kinds.into_iter().map(Text::take).collect()
}

/// Makes an endpoint, which is told of what happens from now on. At most 20.
#[utoipa::path(post, path = "/v1/webhook-endpoints", tag = "webhooks", security(("api_key" = ["admin"])),
    request_body = CreateRequest,
    responses((status = 201, body = SecretView)))]
pub async fn create(State(app): State<App>, server: Server, body: Body<CreateRequest>) -> Result<Response, Refused> {
    let caller = server.with(Scope::Admin)?;
    let request = body.read()?;
    let new = NewEndpoint {
        url: request.url.take(),
        kinds: request.events.map(taken),
        description: request.description.map(Text::take),
    };
    let made = app.engine.create_endpoint(&caller, new).await?;
    Ok(answers::of(Ending::EndpointCreated(&made), app.engine.issuer()))
}

/// Endpoints, oldest first.
#[utoipa::path(get, path = "/v1/webhook-endpoints", tag = "webhooks", security(("api_key" = ["admin"])),
    params(("limit" = Option<usize>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = List<EndpointView>)))]
pub async fn list(
    State(app): State<App>,
    server: Server,
    page: Result<Page, Refused>,
) -> Result<Json<List<EndpointView>>, Refused> {
    let caller = server.with(Scope::Admin)?;
    let page = page?;
    let behind = page.behind(Kind::Webhook)?;
    let found = app.engine.endpoints(&caller, behind.as_ref(), page.limit as i64 + 1).await?;
    let views = found.iter().map(|endpoint| (endpoint.id.to_string(), EndpointView::from(endpoint)));
    Ok(Json(List::of(views.collect(), page.limit)))
}

/// Shows an endpoint.
#[utoipa::path(get, path = "/v1/webhook-endpoints/{id}", tag = "webhooks", security(("api_key" = ["admin"])),
    params(("id" = String, Path)),
    responses((status = 200, body = EndpointView)))]
pub async fn show(State(app): State<App>, server: Server, id: OfId) -> Result<Json<EndpointView>, Refused> {
    let caller = server.with(Scope::Admin)?;
    let endpoint = app.engine.endpoint(&caller, &id.of(Kind::Webhook)?).await?;
    Ok(Json(EndpointView::from(&endpoint)))
}

/// Changes an endpoint, disables it, or enables it again.
#[utoipa::path(patch, path = "/v1/webhook-endpoints/{id}", tag = "webhooks", security(("api_key" = ["admin"])),
    params(("id" = String, Path)), request_body = ChangeRequest,
    responses((status = 200, body = EndpointView)))]
pub async fn change(
    State(app): State<App>,
    server: Server,
    id: OfId,
    body: Body<ChangeRequest>,
) -> Result<Json<EndpointView>, Refused> {
    let caller = server.with(Scope::Admin)?;
    let request = body.read()?;
    let change = EndpointChange {
        url: request.url.map(Text::take),
        kinds: request.events.map(|kinds| kinds.map(taken)),
        description: request.description.map(|text| text.map(Text::take)),
        enabled: request.status.map(|status| status == Status::Enabled),
    };
    let endpoint = app.engine.change_endpoint(&caller, &id.of(Kind::Webhook)?, change).await?;
    Ok(Json(EndpointView::from(&endpoint)))
}

/// Removes an endpoint and what is known of its deliveries.
#[utoipa::path(delete, path = "/v1/webhook-endpoints/{id}", tag = "webhooks", security(("api_key" = ["admin"])),
    params(("id" = String, Path)),
    responses((status = 204)))]
pub async fn remove(State(app): State<App>, server: Server, id: OfId) -> Result<StatusCode, Refused> {
    let caller = server.with(Scope::Admin)?;
    app.engine.remove_endpoint(&caller, &id.of(Kind::Webhook)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a new secret, which signs at once. The one before signs along for 24 hours; one that was older signs no more.
#[utoipa::path(post, path = "/v1/webhook-endpoints/{id}/rotate-secret", tag = "webhooks", security(("api_key" = ["admin"])),
    params(("id" = String, Path)),
    responses((status = 200, body = SecretView)))]
pub async fn rotate(
    State(app): State<App>,
    server: Server,
    id: OfId,
    MaybeBody(body): MaybeBody<Nothing>,
) -> Result<Response, Refused> {
    let caller = server.with(Scope::Admin)?;
    body.read()?;
    let rotated = app.engine.rotate_endpoint_secret(&caller, &id.of(Kind::Webhook)?).await?;
    Ok(answers::of(Ending::SecretRotated(&rotated), app.engine.issuer()))
}

/// Sends an event of the type `webhook.test`, within a second or two.
#[utoipa::path(post, path = "/v1/webhook-endpoints/{id}/test", tag = "webhooks", security(("api_key" = ["admin"])),
    params(("id" = String, Path)),
    responses((status = 202, body = DeliveryView)))]
pub async fn test(
    State(app): State<App>,
    server: Server,
    id: OfId,
    MaybeBody(body): MaybeBody<Nothing>,
) -> Result<Response, Refused> {
    let caller = server.with(Scope::Admin)?;
    body.read()?;
    let delivery = app.engine.test_endpoint(&caller, &id.of(Kind::Webhook)?).await?;
    Ok(answers::of(Ending::TestQueued(&delivery), app.engine.issuer()))
}

/// What an endpoint was told, newest first: some 2,000 deliveries, of the last seven days.
#[utoipa::path(get, path = "/v1/webhook-endpoints/{id}/deliveries", tag = "webhooks", security(("api_key" = ["admin"])),
    params(("id" = String, Path), ("limit" = Option<usize>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = List<DeliveryView>)))]
pub async fn deliveries(
    State(app): State<App>,
    server: Server,
    id: OfId,
    page: Result<Page, Refused>,
) -> Result<Json<List<DeliveryView>>, Refused> {
    let caller = server.with(Scope::Admin)?;
    let page = page?;
    let (id, before) = (id.of(Kind::Webhook)?, page.behind(Kind::Event)?);
    let found = app.engine.deliveries(&caller, &id, before.as_ref(), page.limit as i64 + 1).await?;
    let views = found.iter().map(|delivery| (delivery.event_id.to_string(), DeliveryView::from(delivery)));
    Ok(Json(List::of(views.collect(), page.limit)))
}
