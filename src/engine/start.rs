//! Bringing an engine up: the store, the key ring under the master key, the signing keys, the gateways.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::Engine;
use super::audit::Chainer;
use super::courier::Couriers;
use super::keys::{kept, read_signing_keys, signing_row, wrapped};
use super::leases::Lease;
use crate::clock::Clock;
use crate::config::{Config, Database, Storage};
use crate::delivery::{Inbox, Outbox, ProviderError};
use crate::methods::{Methods, totp};
use crate::model::{MethodKind, Moment, Rng, Timestamp, hex};
use crate::policy::sending::Caps;
use crate::store::{self, Limits, Restoration, Store};
use crate::token::{Signer, new_signing_key};
use crate::vault::{MasterKey, MasterKeyError, RingError, Vault};

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The master key does not read.
    #[error("COUNTERSIGN_MASTER_KEY: {0}")]
    MasterKey(#[from] MasterKeyError),
    /// The master key does not open the ring.
    #[error("COUNTERSIGN_MASTER_KEY: {0}")]
    Ring(#[from] RingError),
    /// There are no keys yet.
    #[error("there are no keys yet: countersign serve makes them when it starts")]
    NoKeys,
    /// A signing key does not open or read.
    #[error("a signing key of this database does not open")]
    SigningKey,
    /// A gateway's client cannot be made.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The database.
    #[error("COUNTERSIGN_DATABASE_URL: {0}")]
    Store(#[from] store::Error),
    /// Another tool's work, or not enough to go by, with this kind of database.
    #[error("{0}")]
    Unfit(&'static str),
    /// The address cannot be listened on: the setting or option that named it comes first.
    #[error("{0}: cannot listen on {1}: {2}")]
    Listen(&'static str, std::net::SocketAddr, std::io::Error),
    /// A later release has changed the schema so that this one may no longer run on it.
    #[error("the database's schema needs countersign {0} or newer; this is {version}", version = env!("CARGO_PKG_VERSION"))]
    TooOld(String),
    /// The schema is not this binary's.
    #[error("the database's schema is not up to date: run countersign migrate, or start with --migrate")]
    NotMigrated,
}

/// Opens the database of the settings. SQLite is brought up to date, PostgreSQL only where `migrate` says so.
pub async fn open_store(storage: &Storage, migrate: bool) -> Result<Store, StartError> {
    let limits = Limits { pool: storage.pool, acquire: storage.acquire_timeout, statement: storage.statement_timeout };
    let store = match &storage.database {
        Database::Sqlite(path) => Store::sqlite(path, limits).await?,
        Database::Postgres(url) => Store::postgres(url, limits).await?,
    };
    if migrate {
        store.migrate().await?;
    }
    let oldest = store.oldest_release().await?;
    if !suits(&oldest) {
        return Err(StartError::TooOld(oldest));
    }
    if store.is_migrated().await? { Ok(store) } else { Err(StartError::NotMigrated) }
}

/// What a restoration at this time has to take for used.
pub fn restoration(now: Timestamp) -> Restoration<'static> {
    Restoration { now, steps: (MethodKind::Totp.as_str(), now.seconds().div_euclid(totp::PERIOD)), suits }
}

/// Whether this release is the oldest that a schema names, or newer.
fn suits(oldest: &str) -> bool {
    release(oldest) <= release(env!("CARGO_PKG_VERSION"))
}

/// A release's numbers, to be compared.
fn release(text: &str) -> Vec<u32> {
    text.split('.').map(|n| n.parse().unwrap_or(u32::MAX)).collect()
}

impl Engine {
    /// An engine on an open store.
    pub async fn start(
        config: &Config,
        master: MasterKey,
        store: Store,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Engine, StartError> {
        let at = Moment::new(clock.now(), &*rng);
        let vault = Arc::new(open_vault(&store, &master, &at).await?);
        store.chain_by(Arc::new(Chainer {
            vault: Arc::clone(&vault),
            clock: Arc::clone(&clock),
            rng: Arc::clone(&rng),
        }));
        let signer = open_signer(&store, &vault, &config.issuer(), &at).await?;
        let inbox = Arc::new(Inbox::default());
        let caps = Caps::default();
        let caps = Caps {
            country_day: config.sms.country_day.unwrap_or(caps.country_day),
            relying_party_day: config.sms.relying_party_day.unwrap_or(caps.relying_party_day),
            ..caps
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Ok(Engine {
            node: hex(&at.random::<16>()),
            outbox: Outbox::new(&config.sms, &inbox)?,
            methods: Arc::new(Methods::new(config.sms.countries.clone())),
            issuer: config.issuer(),
            origin: config.origin(),
            host: config.public_url.host_str().unwrap_or_default().to_owned(),
            costly: Arc::new(Semaphore::new(cores)),
            running: Arc::default(),
            sealer: Lease::new("audit-sealer"),
            couriers: Couriers::new(config.webhook_private),
            asked_for_keys: AtomicBool::new(false),
            signing_rows: Mutex::default(),
            store,
            master,
            vault,
            signer,
            inbox,
            caps,
            cool_off: config.factor_cool_off,
            clock,
            rng,
        })
    }
}

/// The ring of the database, made on first use.
async fn open_vault(store: &Store, master: &MasterKey, at: &Moment<'_>) -> Result<Vault, StartError> {
    if store.key_ring().await?.is_empty() {
        let ring: Vec<_> = master.new_ring(at).into_iter().map(kept).collect();
        store::stood(store.create_key_ring(&ring, at.now).await)?;
    }
    open_ring(store, master).await
}

/// The ring of the database. A key that does not open closes what it sealed; where none opens, the master key is another one's.
pub async fn open_ring(store: &Store, master: &MasterKey) -> Result<Vault, StartError> {
    let ring = store.key_ring().await?;
    if ring.is_empty() {
        return Err(StartError::NoKeys);
    }
    let vault = Vault::new(master, &wrapped(ring)?)?;
    let closed = vault.closed();
    if !closed.is_empty() {
        tracing::error!(keys = ?closed, "the master key does not open these keys of the ring: what they sealed is closed");
    }
    Ok(vault)
}

/// Whether there is a ring, and the master key opens it and a signing key; makes none.
pub async fn examine_keys(store: &Store, master: &MasterKey, at: &Moment<'_>) -> Result<bool, StartError> {
    if store.key_ring().await?.is_empty() {
        return Ok(false);
    }
    let vault = open_ring(store, master).await?;
    let rows = store.signing_keys(at.now).await?;
    match read_signing_keys(store, &vault, at, &rows).await?.is_empty() && !rows.is_empty() {
        true => Err(StartError::SigningKey),
        false => Ok(true),
    }
}

/// The signing keys of the database; the first is made on first use.
async fn open_signer(store: &Store, vault: &Vault, issuer: &str, at: &Moment<'_>) -> Result<Signer, StartError> {
    if store.signing_keys(at.now).await?.is_empty() {
        let new = new_signing_key();
        let sealed = vault.seal(at, signing_row(&new.kid), &new.private);
        store::stood(store.create_first_signing_key(&new.kid, &sealed, at.now).await)?;
    }
    let signer = Signer::new(issuer);
    let keys = read_signing_keys(store, vault, at, &store.signing_keys(at.now).await?).await?;
    if keys.is_empty() {
        return Err(StartError::SigningKey);
    }
    signer.replace(keys);
    Ok(signer)
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn releases_are_compared_by_number_and_what_does_not_read_is_newest() {
        assert!(release("0.10.0") > release("0.9.3"));
        assert!(release("1.0.0") > release("0.10.0"));
        assert!(release("0.1.0") == release("0.1.0"));
        assert!(release("next") > release("99.0.0"));
    }
}
