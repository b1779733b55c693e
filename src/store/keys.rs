//! The key ring and the signing keys, wrapped and sealed.

use sqlx::FromRow;

use super::{Error, Result, Store};
use crate::model::Timestamp;

/// A signing key as it is kept.
#[derive(Clone, Debug, FromRow)]
pub struct SigningKey {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// PKCS #8, sealed.
    pub sealed: Vec<u8>,
    /// When it began to sign; `None` where it is published ahead of its first use.
    pub active_at: Option<i64>,
}

impl Store {
    /// The key ring as `(id, purpose, wrapped)`.
    pub async fn key_ring(&self) -> Result<Vec<(i64, String, Vec<u8>)>> {
        Ok(read_rows! { self, "select id, purpose, wrapped from key_ring order by id" })
    }

    /// Keeps a first key ring where there is none; of two that try at once, the second leaves what the first wrote.
    pub async fn create_key_ring(&self, ring: &[(i64, String, Vec<u8>)], now: Timestamp) -> Result<()> {
        write!(self, (ring) conn => {
            for (id, purpose, wrapped) in &ring {
                sql! { conn,
                    "insert into key_ring (id, purpose, wrapped, created_at) values ($1, $2, $3, $4)",
                    id, purpose, wrapped, now.0
                };
            }
            Ok::<(), Error>(())
        })
    }

    /// Signing keys that verifiers must know, oldest first.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>> {
        Ok(read_rows! { self,
            "select kid, sealed, active_at from signing_keys where retired_at is null order by created_at, kid"
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
}
