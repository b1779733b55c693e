//! Webhook endpoints of relying parties.

use sqlx::FromRow;

use super::events::append;
use super::journal::{Note, Noting};
use super::{Contest, Error, Result, Store, json, text, won};
use crate::model::{Endpoint, Event, Id, Timestamp};

#[derive(FromRow)]
struct EndpointRow {
    rp_id: String,
    id: String,
    url: String,
    kinds: Option<String>,
    description: Option<String>,
    secrets: Vec<u8>,
    handed_to: i64,
    created_at: i64,
    disabled_at: Option<i64>,
    disabled_reason: Option<String>,
    failing_since: Option<i64>,
    paused_until: Option<i64>,
}

impl EndpointRow {
    fn model(self) -> Result<Endpoint> {
        Ok(Endpoint {
            id: Id::stored(self.id),
            rp_id: Id::stored(self.rp_id),
            url: self.url,
            kinds: self.kinds.map(|kinds| json("webhook_endpoints", &kinds)).transpose()?,
            description: self.description,
            secrets: self.secrets,
            handed_to: self.handed_to,
            created_at: Timestamp(self.created_at),
            disabled: self.disabled_at.map(|at| (Timestamp(at), self.disabled_reason.unwrap_or_default())),
            failing_since: self.failing_since.map(Timestamp),
            paused_until: self.paused_until.map(Timestamp),
        })
    }
}

fn models(rows: Vec<EndpointRow>) -> Result<Vec<Endpoint>> {
    rows.into_iter().map(EndpointRow::model).collect()
}

/// What is changed of an endpoint; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct EndpointChange {
    /// The address; what was known of the one before is forgotten.
    pub url: Option<String>,
    /// The types of events; `Some(None)` for all.
    pub kinds: Option<Option<Vec<String>>>,
    /// The relying party's own words.
    pub description: Option<Option<String>>,
    /// Whether anything is sent there.
    pub enabled: Option<bool>,
}

/// Disables an endpoint on the connection of a writing body, and drops what it was yet to be told; tells how many were enabled: one or none.
macro_rules! disable {
    ($conn:expr, $rp:expr, $id:expr, $reason:expr, $now:expr) => {{
        let done = sql! { $conn,
            "update webhook_endpoints set disabled_at = $3, disabled_reason = $4
        where rp_id = $1 and id = $2 and disabled_at is null",
            $rp, $id, $now, $reason
        };
        if done == 1 {
            sql! { $conn,
                "update webhook_deliveries set next_at = null, outcome = 'dropped', last_at = coalesce(last_at, $3)
            where rp_id = $1 and endpoint_id = $2 and next_at is not null",
                $rp, $id, $now
            };
        }
        done
    }};
}
pub(super) use disable;

/// Removes an endpoint and what it was told, on the connection of a writing body; tells how many were there: one or
/// none.
macro_rules! remove_endpoint {
    ($conn:expr, $rp:expr, $id:expr) => {{
        let done = sql! { $conn, "delete from webhook_endpoints where rp_id = $1 and id = $2", $rp, $id };
        sql! { $conn, "delete from webhook_deliveries where rp_id = $1 and endpoint_id = $2", $rp, $id };
        done
    }};
}
pub(super) use remove_endpoint;

impl Store {
    /// Keeps an endpoint, which is told of what gets its number from now on. `Conflict(Limit)` where there are as many as there may be.
    pub async fn create_webhook_endpoint(&self, endpoint: &Endpoint, most: i64, event: &Event) -> Result<()> {
        let kinds = endpoint.kinds.as_ref().map(text);
        write!(self, (endpoint, kinds, event) conn => {
            // Two that try at once stand in line here.
            sql! { conn, "update relying_parties set id = id where id = $1", endpoint.rp_id.as_str() };
            let done = sql! { conn,
                "insert into webhook_endpoints (rp_id, id, url, kinds, description, secrets, handed_to, created_at)
                 select $1, $2, $3, $4, $5, $6,
                   coalesce((select sequence from chain_heads where rp_id = $1), 0), $7
                 where (select count(*) from webhook_endpoints where rp_id = $1) < $8",
                endpoint.rp_id.as_str(), endpoint.id.as_str(), &endpoint.url, &kinds, &endpoint.description,
                &endpoint.secrets, endpoint.created_at.0, most
            };
            won(done, Contest::Limit)?;
            append!(conn, &event);
            Ok(())
        })
    }

    /// Endpoints of a relying party, oldest first, behind this one.
    pub async fn webhook_endpoints(&self, rp: &Id, behind: &str, limit: i64) -> Result<Vec<Endpoint>> {
        models(read_rows! { self,
            "select rp_id, id, url, kinds, description, secrets, handed_to, created_at, disabled_at, disabled_reason,
             failing_since, paused_until
             from webhook_endpoints where rp_id = $1 and id > $2 order by id limit $3",
            rp.as_str(), behind, limit
        })
    }

    /// One endpoint of a relying party.
    pub async fn webhook_endpoint(&self, rp: &Id, id: &Id) -> Result<Option<Endpoint>> {
        let row: Option<EndpointRow> = read_row! { self,
            "select rp_id, id, url, kinds, description, secrets, handed_to, created_at, disabled_at, disabled_reason,
             failing_since, paused_until
             from webhook_endpoints where rp_id = $1 and id = $2",
            rp.as_str(), id.as_str()
        };
        row.map(EndpointRow::model).transpose()
    }

    /// Endpoints for which there are events that are not handed out yet. A row that does not read holds no other up.
    pub async fn lagging_endpoints(&self) -> Result<Vec<Endpoint>> {
        let rows: Vec<EndpointRow> = read_rows! { self,
            "select e.rp_id, e.id, e.url, e.kinds, e.description, e.secrets, e.handed_to, e.created_at, e.disabled_at,
             e.disabled_reason, e.failing_since, e.paused_until
             from webhook_endpoints e join chain_heads h on h.rp_id = e.rp_id
             where e.disabled_at is null and e.handed_to < h.sequence order by e.rp_id, e.id"
        };
        let read =
            |row: EndpointRow| row.model().inspect_err(|error| tracing::error!(%error, "an endpoint waits")).ok();
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Changes an endpoint. One that is enabled again is told of what gets its number from now on; one that is disabled, of
    /// nothing that waits. `Conflict(Row)` where there is no such.
    pub async fn change_webhook_endpoint(
        &self,
        rp: &Id,
        id: &Id,
        change: &EndpointChange,
        event: &Event,
    ) -> Result<()> {
        write!(self, (rp, id, change, event) conn => {
            let (rp, id) = (rp.as_str(), id.as_str());
            won(sql! { conn, "update webhook_endpoints set id = id where rp_id = $1 and id = $2", rp, id }, Contest::Row)?;
            if let Some(url) = &change.url {
                sql! { conn,
                    "update webhook_endpoints set url = $3, failing_since = null, paused_until = null
                     where rp_id = $1 and id = $2",
                    rp, id, url
                };
            }
            if let Some(kinds) = &change.kinds {
                let kinds = kinds.as_ref().map(text);
                sql! { conn, "update webhook_endpoints set kinds = $3 where rp_id = $1 and id = $2", rp, id, kinds };
            }
            if let Some(description) = &change.description {
                sql! { conn,
                    "update webhook_endpoints set description = $3 where rp_id = $1 and id = $2",
                    rp, id, description
                };
            }
            match change.enabled {
                Some(true) => {
                    sql! { conn,
                        "update webhook_endpoints set disabled_at = null, disabled_reason = null, failing_since = null,
                           paused_until = null, handed_to = coalesce((select sequence from chain_heads where rp_id = $1), 0)
                         where rp_id = $1 and id = $2 and disabled_at is not null",
                        rp, id
                    };
                }
                Some(false) => {
                    disable!(conn, rp, id, "asked", event.at.0);
                }
                None => {}
            }
            append!(conn, &event);
            Ok::<(), Error>(())
        })
    }

    /// Replaces an endpoint's secrets, which must still be what was read; else `Conflict(Row)`.
    pub async fn replace_webhook_secrets(&self, endpoint: &Endpoint, secrets: &[u8], event: &Event) -> Result<()> {
        write!(self, (endpoint, secrets, event) conn => {
            let done = sql! { conn,
                "update webhook_endpoints set secrets = $3 where rp_id = $1 and id = $2 and secrets = $4",
                endpoint.rp_id.as_str(), endpoint.id.as_str(), secrets, &endpoint.secrets
            };
            won(done, Contest::Row)?;
            append!(conn, &event);
            Ok(())
        })
    }

    /// Removes an endpoint and what it was told; an old backup does not bring it back. `Conflict(Row)` where there is no such.
    pub async fn remove_webhook_endpoint(&self, rp: &Id, id: &Id, event: &Event) -> Result<()> {
        write!(self, (rp, id, event) conn => {
            won(remove_endpoint!(conn, rp.as_str(), id.as_str()), Contest::Row)?;
            append!(conn, &event);
            conn.note(vec![Note::Webhook(rp.as_str().to_owned(), id.as_str().to_owned())]).await
        })
    }
}
