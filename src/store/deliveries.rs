//! Events on their way to webhook endpoints: handed out, claimed for an attempt, ended.

use sqlx::FromRow;

use super::events::append;
use super::webhooks::disable;
use super::{Contest, Error, Result, Store, won};
use crate::model::{Delivery, Endpoint, Event, Id, Recorded, Timestamp};

#[derive(FromRow)]
struct DeliveryRow {
    rp_id: String,
    endpoint_id: String,
    event_id: String,
    sequence: i64,
    kind: String,
    created_at: i64,
    attempts: i64,
    next_at: Option<i64>,
    outcome: Option<String>,
    last_at: Option<i64>,
    last_status: Option<i64>,
    last_error: Option<String>,
}

impl DeliveryRow {
    fn model(self) -> Delivery {
        Delivery {
            rp_id: Id::stored(self.rp_id),
            endpoint_id: Id::stored(self.endpoint_id),
            event_id: Id::stored(self.event_id),
            sequence: self.sequence,
            kind: self.kind,
            created_at: Timestamp(self.created_at),
            attempts: self.attempts,
            next_at: self.next_at.map(Timestamp),
            outcome: self.outcome,
            last_at: self.last_at.map(Timestamp),
            last_status: self.last_status,
            last_error: self.last_error,
        }
    }
}

fn models(rows: Vec<DeliveryRow>) -> Vec<Delivery> {
    rows.into_iter().map(DeliveryRow::model).collect()
}

/// An endpoint for which an attempt is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// Whose.
    pub rp: Id,
    /// Which.
    pub endpoint: Id,
    /// Every attempt has failed for some time.
    pub is_failing: bool,
}

/// What one attempt came to.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// When it ended.
    pub at: Timestamp,
    /// When the next one is due; `None` where there is none.
    pub next_at: Option<Timestamp>,
    /// How the delivery ended, where there is none.
    pub outcome: Option<&'static str>,
    /// What was answered.
    pub status: Option<i64>,
    /// Why nothing was.
    pub error: Option<&'static str>,
    /// Until when the endpoint is left alone.
    pub pause: Option<Timestamp>,
    /// The endpoint is disabled, for this reason.
    pub disable: Option<(&'static str, Event)>,
}

/// How many ended deliveries an endpoint keeps, about.
const KEPT: i64 = 2000;

impl Store {
    /// Turns events into deliveries of an endpoint and moves it on to the number `to`, if it still stands where it was read and
    /// is enabled; else `Conflict(Row)`.
    pub async fn hand_out(&self, endpoint: &Endpoint, to: i64, events: &[Recorded], now: Timestamp) -> Result<()> {
        let rows: Vec<(String, i64, String)> = events
            .iter()
            .map(|e| (e.id.as_str().to_owned(), e.link.as_ref().map_or(0, |link| link.sequence), e.kind.clone()))
            .collect();
        write!(self, (endpoint, rows) conn => {
            let done = sql! { conn,
                "update webhook_endpoints set handed_to = $3
                 where rp_id = $1 and id = $2 and handed_to = $4 and disabled_at is null",
                endpoint.rp_id.as_str(), endpoint.id.as_str(), to, endpoint.handed_to
            };
            won(done, Contest::Row)?;
            for (event, sequence, kind) in &rows {
                sql! { conn,
                    "insert into webhook_deliveries (rp_id, endpoint_id, event_id, sequence, kind, created_at, attempts, next_at)
                     values ($1, $2, $3, $4, $5, $6, 0, $6) on conflict do nothing",
                    endpoint.rp_id.as_str(), endpoint.id.as_str(), event, sequence, kind, now.0
                };
            }
            sql! { conn,
                "delete from webhook_deliveries where rp_id = $1 and endpoint_id = $2 and next_at is null and event_id <=
                   (select event_id from webhook_deliveries where rp_id = $1 and endpoint_id = $2
                    order by event_id desc limit 1 offset $3)",
                endpoint.rp_id.as_str(), endpoint.id.as_str(), KEPT
            };
            Ok::<(), Error>(())
        })
    }

    /// Queues an event of no chain, to try an endpoint; `Conflict(Row)` where it is gone or disabled, `Conflict(Limit)` where as many
    /// deliveries as may wait do.
    pub async fn queue_delivery(&self, delivery: &Delivery, most: i64) -> Result<()> {
        write!(self, (delivery) conn => {
            let done = sql! { conn,
                "update webhook_endpoints set id = id where rp_id = $1 and id = $2 and disabled_at is null",
                delivery.rp_id.as_str(), delivery.endpoint_id.as_str()
            };
            won(done, Contest::Row)?;
            let done = sql! { conn,
                "insert into webhook_deliveries (rp_id, endpoint_id, event_id, sequence, kind, created_at, attempts, next_at)
                 select $1, $2, $3, $4, $5, $6, 0, $6
                 where (select count(*) from webhook_deliveries
                        where rp_id = $1 and endpoint_id = $2 and next_at is not null) < $7",
                delivery.rp_id.as_str(), delivery.endpoint_id.as_str(), delivery.event_id.as_str(), delivery.sequence,
                &delivery.kind, delivery.created_at.0, most
            };
            won(done, Contest::Limit)
        })
    }

    /// How many deliveries of an endpoint have not ended.
    pub async fn count_undelivered(&self, endpoint: &Endpoint) -> Result<i64> {
        let count: Option<i64> = read_scalar_if! { self,
            "select count(*) from webhook_deliveries where rp_id = $1 and endpoint_id = $2 and next_at is not null",
            endpoint.rp_id.as_str(), endpoint.id.as_str()
        };
        Ok(count.unwrap_or_default())
    }

    /// Endpoints for which an attempt is due now.
    pub async fn due_endpoints(&self, now: Timestamp) -> Result<Vec<Due>> {
        let rows: Vec<(String, String, Option<i64>)> = read_rows! { self,
            "select e.rp_id, e.id, e.failing_since from webhook_endpoints e
             where e.disabled_at is null and coalesce(e.paused_until, 0) <= $1 and exists
               (select 1 from webhook_deliveries d
                where d.rp_id = e.rp_id and d.endpoint_id = e.id and d.next_at is not null and d.next_at <= $1)
             order by e.rp_id, e.id",
            now.0
        };
        let due = |(rp, id, since): (String, String, Option<i64>)| Due {
            rp: Id::stored(rp),
            endpoint: Id::stored(id),
            is_failing: since.is_some(),
        };
        Ok(rows.into_iter().map(due).collect())
    }

    /// Deliveries of an endpoint that are due now, in the order of their events.
    pub async fn due_deliveries(&self, endpoint: &Endpoint, now: Timestamp, limit: i64) -> Result<Vec<Delivery>> {
        Ok(models(read_rows! { self,
            "select rp_id, endpoint_id, event_id, sequence, kind, created_at, attempts, next_at, outcome, last_at, last_status,
             last_error
             from webhook_deliveries where rp_id = $1 and endpoint_id = $2 and next_at is not null and next_at <= $3
             order by sequence, event_id limit $4",
            endpoint.rp_id.as_str(), endpoint.id.as_str(), now.0, limit
        }))
    }

    /// Takes a delivery for one attempt at an endpoint, which is counted now; nobody else takes it before `until`. `Conflict(Row)`
    /// where somebody has, or the endpoint has another address or secret since.
    pub async fn claim_delivery(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<()> {
        let next_at = delivery.next_at.map(|t| t.0);
        write_one!(self, (endpoint, delivery) conn => {
            let done = sql! { conn,
                "update webhook_deliveries set attempts = attempts + 1, next_at = $4, last_at = $5, last_status = null, last_error = null
                 where rp_id = $1 and endpoint_id = $2 and event_id = $3 and attempts = $6 and next_at = $7
                   and exists (select 1 from webhook_endpoints where rp_id = $1 and id = $2 and url = $8 and secrets = $9)",
                delivery.rp_id.as_str(), delivery.endpoint_id.as_str(), delivery.event_id.as_str(), until.0, now.0,
                delivery.attempts, next_at, &endpoint.url, &endpoint.secrets
            };
            won(done, Contest::Row)
        })
    }

    /// Writes what the nth attempt at an endpoint came to. Nothing is written where another has been begun meanwhile, or the delivery
    /// has ended; and nothing of the endpoint, where it has another address or secret since.
    pub async fn note_attempt(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        attempts: i64,
        done: &Attempted,
    ) -> Result<()> {
        write!(self, (endpoint, delivery, done) conn => {
            let (rp, id, event_id) = (endpoint.rp_id.as_str(), endpoint.id.as_str(), delivery.event_id.as_str());
            // The endpoint's row first, as everybody does who writes both.
            let failed = !matches!(done.outcome, Some("delivered" | "dropped"));
            let noted = match done.outcome {
                Some("dropped") => 1,
                _ => sql! { conn,
                    "update webhook_endpoints set failing_since = case when $7 = 1 then coalesce(failing_since, $8) end,
                       paused_until = case when $7 = 1 then coalesce($9, paused_until) end
                     where rp_id = $1 and id = $2 and url = $3 and secrets = $4
                       and ($7 = 1 or failing_since is not null or paused_until is not null)
                       and exists (select 1 from webhook_deliveries where rp_id = $1 and endpoint_id = $2 and event_id = $5
                         and attempts = $6 and next_at is not null)",
                    rp, id, &endpoint.url, &endpoint.secrets, event_id, attempts, i64::from(failed), done.at.0,
                    done.pause.map(|t| t.0)
                },
            };
            // What its address before did not take is due at once at the new one.
            let (next_at, outcome) = match failed && noted == 0 {
                true => (Some(done.at), None),
                false => (done.next_at, done.outcome),
            };
            sql! { conn,
                "update webhook_deliveries set next_at = $5, outcome = $6, last_status = $7, last_error = $8
                 where rp_id = $1 and endpoint_id = $2 and event_id = $3 and attempts = $4 and next_at is not null",
                rp, id, event_id, attempts, next_at.map(|t| t.0), outcome, done.status, done.error
            };
            if let Some((reason, event)) = done.disable.as_ref().filter(|_| noted == 1)
                && disable!(conn, rp, id, reason, done.at.0) == 1
            {
                append!(conn, event);
            }
            Ok::<(), Error>(())
        })
    }

    /// What an endpoint was told, newest first, before this event.
    pub async fn deliveries(&self, rp: &Id, endpoint: &Id, before: Option<&Id>, limit: i64) -> Result<Vec<Delivery>> {
        Ok(models(read_rows! { self,
            "select rp_id, endpoint_id, event_id, sequence, kind, created_at, attempts, next_at, outcome, last_at, last_status,
             last_error
             from webhook_deliveries where rp_id = $1 and endpoint_id = $2 and event_id < $3 order by event_id desc limit $4",
            rp.as_str(), endpoint.as_str(), before.map_or("evt_g", |id| id.as_str()), limit
        }))
    }
}
