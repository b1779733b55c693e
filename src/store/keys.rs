//! The key ring and the signing keys, wrapped and sealed.

use sqlx::FromRow;

use super::events::append;
use super::sealed::SEALED;
use super::{Contest, Error, Result, Store, won};
use crate::model::{Event, Timestamp};

/// A signing key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct SigningKey {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// PKCS #8, sealed.
    pub sealed: Vec<u8>,
    /// When it begins to sign; `None` where that is not decided.
    pub active_at: Option<i64>,
    /// When it is no longer published.
    pub retired_at: Option<i64>,
}

/// A key of the ring as it is kept.
#[derive(Clone, Debug, FromRow)]
pub struct RingKey {
    /// Its number.
    pub id: i64,
    /// What it is for.
    pub purpose: String,
    /// The key under the master key.
    pub wrapped: Vec<u8>,
    /// From when it is used; `None` for always.
    pub active_from: Option<i64>,
}

/// One change of the ring, made on the ring as it was read.
#[derive(Clone, Default)]
pub struct RingChange {
    /// The ring's version when it was read.
    pub version: i64,
    /// A new key.
    pub add: Option<RingKey>,
    /// Keys whose wrapping is replaced.
    pub rewrap: Vec<RingKey>,
    /// A data key that goes, and the head of the values that it sealed: none may be left.
    pub remove: Option<(i64, Vec<u8>)>,
}

impl Store {
    /// The key ring, oldest first.
    pub async fn key_ring(&self) -> Result<Vec<RingKey>> {
        Ok(read_rows! { self, "select id, purpose, wrapped, active_from from key_ring order by id" })
    }

    /// Counts the changes of the ring.
    pub async fn key_ring_version(&self) -> Result<i64> {
        let version: Option<String> =
            read_scalar_if! { self, "select value from meta where name = 'key_ring_version'" };
        version.and_then(|v| v.parse().ok()).ok_or(Error::Corrupt("meta"))
    }

    /// Keeps a first key ring where there is none; of two that try at once, the second leaves what the first wrote.
    pub async fn create_key_ring(&self, ring: &[RingKey], now: Timestamp) -> Result<()> {
        write!(self, (ring) conn => {
            for key in &ring {
                sql! { conn,
                    "insert into key_ring (id, purpose, wrapped, created_at) values ($1, $2, $3, $4)",
                    key.id, &key.purpose, &key.wrapped, now.0
                };
            }
            Ok::<(), Error>(())
        })
    }

    /// Changes the ring. `Conflict(Row)` where another change was first, `Conflict(Limit)` where the key to be removed still seals
    /// something, `Conflict(Token)` where it is gone.
    pub async fn change_key_ring(&self, change: &RingChange, event: &Event) -> Result<()> {
        write!(self, (change, event) conn => {
            let done = sql! { conn,
                "update meta set value = $1 where name = 'key_ring_version' and value = $2",
                (change.version + 1).to_string(), change.version.to_string()
            };
            won(done, Contest::Row)?;
            if let Some(key) = &change.add {
                sql! { conn,
                    "insert into key_ring (id, purpose, wrapped, created_at, active_from) values ($1, $2, $3, $4, $5)",
                    key.id, &key.purpose, &key.wrapped, event.at.0, key.active_from
                };
            }
            for key in &change.rewrap {
                let done = sql! { conn, "update key_ring set wrapped = $1 where id = $2", &key.wrapped, key.id };
                won(done, Contest::Row)?;
            }
            if let Some((id, head)) = &change.remove {
                for table in &SEALED {
                    let left: i64 = scalar! { conn, table.count, head };
                    won(u64::from(left == 0), Contest::Limit)?;
                }
                let done = sql! { conn, "delete from key_ring where id = $1 and purpose = 'data'", id };
                won(done, Contest::Token)?;
            }
            append!(conn, &event);
            Ok(())
        })
    }

    /// Signing keys that are published at this time, oldest first.
    pub async fn signing_keys(&self, now: Timestamp) -> Result<Vec<SigningKey>> {
        Ok(read_rows! { self,
            "select kid, sealed, active_at, retired_at from signing_keys where retired_at is null or retired_at > $1
             order by created_at, kid",
            now.0
        })
    }

    /// Keeps a signing key where there is none yet; of two that try at once, one stands.
    pub async fn create_first_signing_key(&self, kid: &str, sealed: &[u8], now: Timestamp) -> Result<()> {
        write!(self, (kid, sealed) conn => {
            // The meta row is what two makers contend for: its key is unique, a signing key's is not known before.
            sql! { conn, "insert into meta (name, value) values ('first_signing_key', $1)", &kid };
            sql! { conn,
                "insert into signing_keys (kid, sealed, created_at, active_at) values ($1, $2, $3, $3)",
                &kid, &sealed, now.0
            };
            Ok::<(), Error>(())
        })
    }

    /// Publishes a key that signs from its `active_at` on, and says when those before it are no longer published. `Conflict(Row)`
    /// where one that awaits its time is there already.
    pub async fn add_signing_key(&self, key: &SigningKey, others_retire: Timestamp, event: &Event) -> Result<()> {
        write!(self, (key, event) conn => {
            // Two that try at once stand in line here.
            sql! { conn, "update meta set value = value where name = 'key_ring_version'" };
            let waiting: i64 = scalar! { conn,
                "select count(*) from signing_keys where active_at is null or active_at > $1",
                event.at.0
            };
            won(u64::from(waiting == 0), Contest::Row)?;
            sql! { conn, "update signing_keys set retired_at = $1 where retired_at is null", others_retire.0 };
            sql! { conn,
                "insert into signing_keys (kid, sealed, created_at, active_at) values ($1, $2, $3, $4)",
                &key.kid, &key.sealed, event.at.0, key.active_at
            };
            append!(conn, &event);
            Ok(())
        })
    }
}
