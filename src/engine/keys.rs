//! The keys of a running engine: read at its start, again from time to time, and when one is met that is not known.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{Engine, Error};
use crate::model::{Actor, Event, Id, Keyed, Kind, Moment, Timestamp};
use crate::store::{self, RingKey, Store};
use crate::token::{Claims, SigningKey, TokenError};
use crate::vault::{Purpose, RingError, Row, SealBroken, Vault, WrappedKey};

/// The row of a signing key.
pub fn signing_row(kid: &str) -> Row<'_> {
    Row { table: "signing_keys", rp: "", user: "", id: kid }
}

/// The realm of events that concern no relying party. No API key reaches it.
pub fn own_realm() -> Id {
    Id::stored("engine".to_owned())
}

impl Engine {
    /// Learns what other nodes or an operator did to the keys.
    pub async fn refresh_keys(&self) -> Result<(), Error> {
        self.asked_for_keys.store(false, Ordering::Relaxed);
        self.learn_ring().await?;
        match self.is_left_behind() {
            // Those that do not read for this alone are not closed.
            true => Ok(()),
            false => self.learn_signing_keys(&self.moment()).await,
        }
    }

    /// Whether this engine has a master key that was replaced, and does not know all keys any more: it can judge nothing.
    pub fn is_left_behind(&self) -> bool {
        self.vault.is_left_behind()
    }

    pub(super) async fn learn_ring(&self) -> Result<(), Error> {
        let ring = wrapped(self.store.key_ring().await?).map_err(|_| store::Error::Corrupt("key_ring"))?;
        let before = self.vault.closed();
        self.vault.learn(&self.master, &ring);
        let closed = self.vault.closed();
        if closed != before && !closed.is_empty() {
            match self.is_left_behind() {
                true => tracing::error!(
                    keys = ?closed,
                    "COUNTERSIGN_MASTER_KEY was replaced, and these keys of the ring came since: nothing is answered until this \
                     engine is started with the new one"
                ),
                false => tracing::error!(keys = ?closed, "the master key does not open these keys of the ring"),
            }
        }
        Ok(())
    }

    async fn learn_signing_keys(&self, at: &Moment<'_>) -> Result<(), Error> {
        let rows = self.store.signing_keys(at.now).await?;
        if *self.signing_rows.lock().unwrap_or_else(PoisonError::into_inner) == rows {
            return Ok(());
        }
        let keys = read_signing_keys(&self.store, &self.vault, at, &rows).await?;
        // None that reads is no reason to forget those that did.
        if !keys.is_empty() {
            self.signer.replace(keys);
        }
        *self.signing_rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
        Ok(())
    }

    /// The claims of a JWT. A key that is not known may be a new one, but whoever makes keys up has the table read once at most
    /// between two refreshes.
    pub(super) async fn read_token(&self, at: &Moment<'_>, text: &str) -> Result<Option<Claims>, Error> {
        match self.signer.read(text, at.now) {
            Err(TokenError::KeyUnknown) if !self.asked_for_keys.swap(true, Ordering::Relaxed) => {
                self.learn_ring().await?;
                self.learn_signing_keys(at).await?;
                Ok(self.signer.read(text, at.now).ok())
            }
            read => Ok(read.ok()),
        }
    }
}

/// The ring as the vault takes it.
pub fn wrapped(ring: Vec<RingKey>) -> Result<Vec<WrappedKey>, RingError> {
    let one = |key: RingKey| {
        let purpose = Purpose::parse(&key.purpose)?;
        Some(WrappedKey { id: key.id, purpose, wrapped: key.wrapped, active_from: key.active_from.map(Timestamp) })
    };
    ring.into_iter().map(one).collect::<Option<_>>().ok_or(RingError::Incomplete)
}

/// A key as the store keeps it.
pub fn kept(key: WrappedKey) -> RingKey {
    let purpose = key.purpose.as_str().to_owned();
    RingKey { id: key.id, purpose, wrapped: key.wrapped, active_from: key.active_from.map(|t| t.0) }
}

/// The signing keys that read; one that does not is closed, left out and written down once.
pub async fn read_signing_keys(
    store: &Store,
    vault: &Vault,
    at: &Moment<'_>,
    rows: &[store::SigningKey],
) -> Result<Vec<SigningKey>, store::Error> {
    let mut keys = Vec::new();
    for row in rows {
        let (active_at, retired_at) = (row.active_at.map(Timestamp), row.retired_at.map(Timestamp));
        let read = match vault.open(signing_row(&row.kid), &row.sealed) {
            Ok(private) => SigningKey::read(&private, active_at, retired_at).map_err(|_| SealBroken::Altered),
            Err(why) => Err(why),
        };
        match read {
            Ok(key) => keys.push(key),
            Err(why) => {
                tracing::error!(kid = row.kid, %why, "a signing key is closed");
                let hash = vault.keyed_hash("unreadable", &[row.kid.as_bytes(), &row.sealed]);
                let event = Event::new(at, &own_realm(), "signing_key.unreadable", Actor::System);
                let id = Id::from_bytes(Kind::Event, std::array::from_fn(|n| hash[n]));
                let event = Event { id, ..event.failed(closed_reason(why)) };
                store::stood(store.record(&event).await)?;
            }
        }
    }
    Ok(keys)
}

/// Why a row is closed, in a word for the audit.
pub fn closed_reason(why: SealBroken) -> &'static str {
    match why {
        SealBroken::Altered => "seal_broken",
        SealBroken::KeyUnknown => "key_unknown",
    }
}
