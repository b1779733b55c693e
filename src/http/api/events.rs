//! `/v1/events`: what happened, in the order of the audit chain.

use std::borrow::Cow;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::list::List;
use crate::engine::EventFilter;
use crate::http::App;
use crate::http::auth::Server;
use crate::http::body::{limit, query, user};
use crate::http::problem::Refused;
use crate::model::{Recorded, Scope, Source, Timestamp};

/// One security event. Holds no code, no secret and no number.
#[derive(Serialize, ToSchema)]
pub struct EventView {
    /// `evt_…`
    id: String,
    /// Its place in the relying party's chain: from 1, without gaps.
    sequence: i64,
    /// What happened, as `thing.happened`.
    #[serde(rename = "type")]
    #[schema(example = "verification.succeeded")]
    kind: String,
    /// When.
    #[schema(format = "date-time")]
    at: String,
    /// On whose word: `server`, `user`, `operator` or `system`.
    #[schema(example = "server")]
    actor: String,
    /// Whose factors; a pseudonym once the user is erased.
    user_id: Option<String>,
    /// By which method.
    #[schema(example = "totp")]
    method: Option<String>,
    /// `fac_…`
    factor_id: Option<String>,
    /// `chl_…`
    challenge_id: Option<String>,
    /// `ses_…`
    session_id: Option<String>,
    /// `success` or `failure`
    #[schema(example = "success")]
    outcome: String,
    /// Why it was refused, or what was noticed.
    #[schema(example = "code_incorrect")]
    reason: Option<String>,
    /// The person's browser, as far as it is known; gone once the user is erased.
    client: Option<EventClient>,
    /// `key_…`, where a server called; gone once the user is erased.
    api_key_id: Option<String>,
    /// `req_…`
    request_id: Option<String>,
}

/// A browser.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct EventClient {
    /// Address.
    ip: Option<String>,
    /// `User-Agent`.
    user_agent: Option<String>,
}

impl EventView {
    /// An event and its number.
    pub fn new(event: Recorded) -> (String, EventView) {
        let sequence = event.link.map_or(0, |link| link.sequence);
        // A device's name is its browser's own; it says nothing that a reader of the audit needs.
        let source = event.client.and_then(|text| serde_json::from_str::<Source<'static>>(&text).ok());
        let Source { ip, user_agent, key_id, .. } = source.unwrap_or_default();
        let is_known = ip.is_some() || user_agent.is_some();
        let client = EventClient { ip: ip.map(Cow::into_owned), user_agent: user_agent.map(Cow::into_owned) };
        let view = EventView {
            id: event.id.to_string(),
            sequence,
            kind: event.kind,
            at: event.at.rfc3339(),
            actor: event.actor,
            user_id: event.user_id,
            method: event.method,
            factor_id: event.factor_id,
            challenge_id: event.challenge_id,
            session_id: event.session_id,
            outcome: event.outcome,
            reason: event.reason,
            client: is_known.then_some(client),
            api_key_id: key_id.map(Cow::into_owned),
            request_id: event.request_id,
        };
        (sequence.to_string(), view)
    }
}

/// `?limit=1..100&cursor=&type=&user_id=&after=&before=`.
pub struct Wanted {
    filter: EventFilter,
    limit: usize,
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Wanted, Refused> {
        let mut wanted = Wanted { filter: EventFilter::default(), limit: 20 };
        let filter = &mut wanted.filter;
        for (name, value) in query(parts)? {
            match &*name {
                "limit" => wanted.limit = limit(&value)?,
                // As where there is none: the first page.
                "cursor" if value.is_empty() => {}
                "cursor" => {
                    let number = value.parse().ok().filter(|n| *n >= 0);
                    filter.behind =
                        number.ok_or_else(|| Refused::invalid("cursor", "Expected a next_cursor, or a sequence."))?;
                }
                "type" => {
                    let plain =
                        |t: &str| t.len() <= 64 && t.bytes().all(|b| b.is_ascii_lowercase() || b"._".contains(&b));
                    let kind = Some(value).filter(|t| plain(t));
                    filter.kind = Some(kind.ok_or_else(|| Refused::invalid("type", "Expected as factor.added."))?);
                }
                "user_id" => filter.user_id = Some(user(value)?),
                "after" => filter.after = Some(time("after", &value)?),
                "before" => filter.before = Some(time("before", &value)?),
                _ => {
                    let known = "Expected limit, cursor, type, user_id, after and before only.";
                    return Err(Refused::invalid("query", known));
                }
            }
        }
        Ok(wanted)
    }
}

fn time(name: &'static str, text: &str) -> Result<Timestamp, Refused> {
    Timestamp::parse(text).ok_or_else(|| Refused::invalid(name, "Expected RFC 3339, as 2026-01-02T03:04:05Z."))
}

/// Events of the relying party, oldest first. They appear a second or two after they happened; a `cursor` may be the `sequence` of
/// the last event that was seen, so a reader who comes back misses none. With a `type` and no `user_id` a page looks through 50,000
/// events at most: it may hold fewer than asked for, or none, and have more behind it.
#[utoipa::path(get, path = "/v1/events", tag = "events", security(("api_key" = ["events:read"])),
    params(("limit" = Option<usize>, Query), ("cursor" = Option<String>, Query), ("type" = Option<String>, Query),
        ("user_id" = Option<String>, Query), ("after" = Option<String>, Query, description = "RFC 3339; from this time on"),
        ("before" = Option<String>, Query, description = "RFC 3339; before this time")),
    responses((status = 200, body = List<EventView>)))]
pub async fn list(
    State(app): State<App>,
    server: Server,
    wanted: Result<Wanted, Refused>,
) -> Result<Json<List<EventView>>, Refused> {
    let caller = server.with(Scope::EventsRead)?;
    let wanted = wanted?;
    let (found, looked_up_to) = app.engine.events(&caller, wanted.filter, wanted.limit).await?;
    let page = List::of(found.into_iter().map(EventView::new).collect(), wanted.limit);
    Ok(Json(page.going_on_behind(looked_up_to.map(|number| number.to_string()))))
}
