//! Audit events: only ever inserted, in the transaction of what they tell of.

use super::{Error, Result, Store};
use crate::model::Event;

/// Inserts one event on the connection of a writing body.
macro_rules! append {
    ($conn:expr, $event:expr) => {{
        let event: &crate::model::Event = $event;
        sql! { $conn,
            "insert into events (rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id,
             outcome, reason, client, request_id)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            event.rp_id.as_str(), event.id.as_str(), event.at.0, event.kind, event.actor.as_str(),
            event.user_id.as_deref(), event.method.map(|m| m.as_str()), event.factor_id.as_ref().map(|i| i.as_str()),
            event.challenge_id.as_ref().map(|i| i.as_str()), event.session_id.as_ref().map(|i| i.as_str()),
            event.outcome.as_str(), event.reason, event.source().as_ref().map(crate::store::text),
            event.request_id.as_deref()
        };
    }};
}
pub(super) use append;

impl Store {
    /// Writes an event that belongs to no other write.
    pub async fn record(&self, event: &Event) -> Result<()> {
        write!(self, (event) conn => {
            append!(conn, &event);
            Ok::<(), Error>(())
        })
    }
}
