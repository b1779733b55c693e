//! Relying parties and their API keys.

use sqlx::FromRow;

use super::events::append;
use super::journal::{Note, Noting};
use super::{Contest, Error, Result, Store, json, text, won};
use crate::model::{ApiKey, Event, Id, Mode, RelyingParty, Scope, Timestamp};

const PARTY: &str = "relying_parties";

#[derive(FromRow)]
struct PartyRow {
    id: String,
    name: String,
    host: String,
    mode: String,
    origins: String,
    return_urls: String,
    created_at: i64,
}

impl PartyRow {
    fn model(self) -> Result<RelyingParty> {
        Ok(RelyingParty {
            id: Id::stored(self.id),
            name: self.name,
            host: self.host,
            mode: Mode::stored(&self.mode),
            origins: json(PARTY, &self.origins)?,
            return_urls: json(PARTY, &self.return_urls)?,
            created_at: Timestamp(self.created_at),
        })
    }
}

#[derive(FromRow)]
struct KeyRow {
    rp_id: String,
    id: String,
    hint: String,
    scopes: String,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl KeyRow {
    fn model(self) -> Result<ApiKey> {
        Ok(ApiKey {
            id: Id::stored(self.id),
            rp_id: Id::stored(self.rp_id),
            hint: self.hint,
            scopes: json::<Vec<Scope>>("api_keys", &self.scopes)?,
            created_at: Timestamp(self.created_at),
            expires_at: self.expires_at.map(Timestamp),
            revoked_at: self.revoked_at.map(Timestamp),
            last_used_at: self.last_used_at.map(Timestamp),
        })
    }
}

impl Store {
    /// Makes a relying party; `Conflict(Name)` where the name is taken.
    pub async fn create_relying_party(&self, rp: &RelyingParty, event: &Event) -> Result<()> {
        write!(self, (rp, event) conn => {
            let done = sql! { conn,
                "insert into relying_parties (id, name, host, mode, origins, return_urls, created_at)
                 values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
                rp.id.as_str(), &rp.name, &rp.host, rp.mode.as_str(), text(&rp.origins), text(&rp.return_urls),
                rp.created_at.0
            };
            won(done, Contest::Name)?;
            append!(conn, &event);
            Ok(())
        })
    }

    /// Replaces the addresses of a relying party.
    pub async fn set_addresses(
        &self,
        id: &Id,
        origins: &[String],
        return_urls: &[String],
        event: &Event,
    ) -> Result<()> {
        let (origins, return_urls) = (text(&origins), text(&return_urls));
        write!(self, (id, origins, return_urls, event) conn => {
            let done = sql! { conn,
                "update relying_parties set origins = $1, return_urls = $2 where id = $3",
                origins, return_urls, id.as_str()
            };
            won(done, Contest::Row)?;
            append!(conn, &event);
            Ok(())
        })
    }

    /// All relying parties, oldest first.
    pub async fn relying_parties(&self) -> Result<Vec<RelyingParty>> {
        let rows: Vec<PartyRow> = read_rows! { self,
            "select id, name, host, mode, origins, return_urls, created_at from relying_parties order by id"
        };
        rows.into_iter().map(PartyRow::model).collect()
    }

    /// Whether any relying party has this origin among its own: the list is JSON, in which each stands in quotation marks.
    pub async fn has_origin(&self, origin: &str) -> Result<bool> {
        let quoted = text(&origin);
        let found: Option<i64> = read_scalar_if! { self,
            "select cast(1 as bigint) from relying_parties where replace(origins, $1, '') <> origins limit 1",
            quoted
        };
        Ok(found.is_some())
    }

    /// A relying party by its name or its id.
    pub async fn find_relying_party(&self, name_or_id: &str) -> Result<Option<RelyingParty>> {
        let row: Option<PartyRow> = read_row! { self,
            "select id, name, host, mode, origins, return_urls, created_at from relying_parties
             where name = $1 or id = $1",
            name_or_id
        };
        row.map(PartyRow::model).transpose()
    }

    /// Keeps a new API key by the hash of its secret.
    pub async fn create_api_key(&self, key: &ApiKey, hash: &[u8], event: &Event) -> Result<()> {
        write!(self, (key, hash, event) conn => {
            sql! { conn,
                "insert into api_keys (rp_id, id, hash, hint, scopes, created_at, expires_at)
                 values ($1, $2, $3, $4, $5, $6, $7)",
                key.rp_id.as_str(), key.id.as_str(), hash, &key.hint, text(&key.scopes), key.created_at.0,
                key.expires_at.map(|t| t.0)
            };
            append!(conn, &event);
            Ok(())
        })
    }

    /// All keys, oldest first.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        let rows: Vec<KeyRow> = read_rows! { self,
            "select rp_id, id, hint, scopes, created_at, expires_at, revoked_at, last_used_at from api_keys order by id"
        };
        rows.into_iter().map(KeyRow::model).collect()
    }

    /// Notes that a key was used, unless that was noted after `noted`.
    pub async fn note_key_use(&self, id: &Id, now: Timestamp, noted: Timestamp) -> Result<()> {
        write_one!(self, (id) conn => {
            sql! { conn,
                "update api_keys set last_used_at = $1 where id = $2 and (last_used_at is null or last_used_at < $3)",
                now.0, id.as_str(), noted.0
            };
            Ok(())
        })
    }

    /// Ends a key; `Conflict(Row)` where there is none, or it ended before.
    pub async fn revoke_api_key(&self, id: &Id, event: &Event) -> Result<()> {
        write!(self, (id, event) conn => {
            let done = sql! { conn,
                "update api_keys set revoked_at = $1 where id = $2 and revoked_at is null",
                event.at.0, id.as_str()
            };
            won(done, Contest::Row)?;
            append!(conn, &event);
            conn.note(vec![Note::Key(id.as_str().to_owned())]).await
        })
    }

    /// Ends every key of a relying party.
    pub async fn revoke_api_keys_of(&self, rp: &Id, event: &Event) -> Result<u64> {
        write!(self, (rp, event) conn => {
            let live: Vec<(String,)> = rows! { conn,
                "select id from api_keys where rp_id = $1 and revoked_at is null",
                rp.as_str()
            };
            let done = sql! { conn,
                "update api_keys set revoked_at = $1 where rp_id = $2 and revoked_at is null",
                event.at.0, rp.as_str()
            };
            append!(conn, &event);
            conn.note(live.into_iter().map(|(id,)| Note::Key(id)).collect()).await?;
            Ok::<u64, Error>(done)
        })
    }
}
