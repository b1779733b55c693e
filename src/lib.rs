//! Countersign: a second factor beside any login.
//!
//! The code map, outside in: [`run`] puts an engine together and serves it. `http` is the skin that speaks JSON and pages, `demo` an
//! application of its own that uses only the public API. `engine` is the only place that acts; it asks `methods` (is this proof
//! right?) and `policy` (what is it worth, when does guessing pause?), which are pure, and writes through `store`, sends through
//! `delivery`, seals by `vault` and signs by `token`. `model` is the data that they all speak of. ARCHITECTURE.md walks one
//! verification through these rooms.

pub mod clock;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod engine;
pub mod http;
pub mod measure;
pub mod methods;
pub mod model;
pub mod policy;
pub mod store;
pub mod token;
pub mod vault;

mod demonstration;
mod upkeep;

pub use demonstration::{DemoError, DemoOptions, run_demo};
pub use engine::{Custodian, NewParty, Operator, odds};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use clock::{Clock, FileClock, SystemClock, SystemRng};
use config::{Config, Database, Secret, Storage};
use engine::{Engine, OperatorError, StartError};
use model::{Moment, Rng};
use store::{MoveError, Place, Restored, Store};

/// What names the address of the engine, where no socket is handed in.
const LISTEN: &str = "COUNTERSIGN_LISTEN";
/// Open files that the process asks for: one for each connection, and some for the database and those it calls.
const OPEN_FILES: u64 = 2 * http::CONNECTIONS as u64;
/// The longest wait between two tries to reach the database.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long a statement of an operator's may take that reads a whole table.
const LONGEST_READ: Duration = Duration::from_secs(3600);
/// How long all of the ending may take.
const LONGEST_END: Duration = Duration::from_secs(28);

/// Adds to the engine's routes.
pub type Around = Box<dyn FnOnce(axum::Router) -> axum::Router + Send>;

/// What an engine is put together from, beside its settings.
pub struct Parts {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Bring a PostgreSQL schema up to date first.
    pub migrate: bool,
    /// What stands around the engine's routes on the same port: the demo.
    pub around: Option<Around>,
    /// A socket that already listens, instead of the settings' address.
    pub listener: Option<TcpListener>,
    /// The sole right to serve the SQLite file, where it was taken before.
    pub lock: Option<store::Lock>,
}

impl Parts {
    /// Those of a real engine; in development the clock may be moved by a file.
    pub fn new(config: &Config) -> Parts {
        Parts {
            clock: clock(config.storage.clock_file.as_ref()),
            rng: Arc::new(SystemRng),
            migrate: false,
            around: None,
            listener: None,
            lock: None,
        }
    }
}

/// An engine that serves.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The engine.
    pub engine: Arc<Engine>,
    /// Where metrics have a listener of their own.
    pub metrics: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    draining: Arc<AtomicBool>,
    drain: Duration,
    working: watch::Sender<()>,
    server: AbortOnDrop,
    _metrics: Option<AbortOnDrop>,
    _lock: Option<store::Lock>,
}

impl Running {
    /// Fails readiness, lets requests in flight finish, and ends.
    pub async fn stop(mut self) {
        let ending = async {
            self.draining.store(true, Ordering::Relaxed);
            tokio::time::sleep(self.drain).await;
            let _ = self.stop.send(true);
            let _ = (&mut self.server.0).await;
            // Also what goes on without its caller, as a text that is on its way.
            self.working.closed().await;
            self.engine.close().await;
        };
        if tokio::time::timeout(LONGEST_END, ending).await.is_err() {
            tracing::warn!("what was under way did not end in time");
        }
    }

    /// Ends without any of that, as a crash would.
    pub fn abort(self) {
        drop(self.server);
    }
}

/// The composition root: listens, opens the store, brings the engine up, lets requests through to it.
///
/// A PostgreSQL that cannot be reached is tried again, for as long as it takes; meanwhile the process lives and is not ready.
pub async fn run(config: &Config, parts: Parts) -> Result<Running, StartError> {
    // A setting that does not read is an error before anything is opened.
    vault::MasterKey::parse(&config.master_key.0)?;
    let lock = match (parts.lock, &config.storage.database) {
        (None, Database::Sqlite(path)) => Some(Store::lock_sqlite(path)?),
        (lock, _) => lock,
    };
    let listener = match parts.listener {
        Some(listener) => listener,
        None => bind(LISTEN, config.listen).await?,
    };
    let address = listener.local_addr().map_err(|e| StartError::Listen(LISTEN, config.listen, e))?;
    match rlimit::increase_nofile_limit(OPEN_FILES) {
        Ok(allowed) if allowed < OPEN_FILES => {
            tracing::warn!(
                allowed,
                "fewer open files are allowed than connections may need: raise the limit (ulimit -Hn)"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
    measure::begin();
    let metrics_listener = match config.metrics_listen {
        Some(address) => Some(bind("COUNTERSIGN_METRICS_LISTEN", address).await?),
        None => None,
    };
    let (stop, stopped) = watch::channel(false);
    let (clock, rng) = (Arc::clone(&parts.clock), Arc::clone(&parts.rng));
    let request_id = move || model::Id::new(model::Kind::Request, &Moment::new(clock.now(), &*rng)).to_string();
    let gate = http::Gate::closed(config.issuer(), request_id);
    let server = AbortOnDrop(tokio::spawn(http::serve(listener, gate.clone(), ended(stopped.clone()))));

    let engine = Arc::new(reach(config, &parts.clock, &parts.rng, parts.migrate).await?);
    let draining = Arc::new(AtomicBool::new(false));
    let working = watch::Sender::new(());
    let settings = http::Settings {
        secure: config.public_url.scheme() == "https",
        development: config.development,
        trusted_proxies: config.trusted_proxies.clone(),
        metrics_elsewhere: metrics_listener.is_some(),
        draining: Arc::clone(&draining),
        working: working.clone(),
    };
    let router = http::router(http::App::new(Arc::clone(&engine), settings));
    gate.open(match parts.around {
        Some(around) => around(router),
        None => router,
    });
    let metrics = metrics_listener.as_ref().and_then(|l| l.local_addr().ok());
    let of_metrics = metrics_listener.map(|listener| {
        let router = http::metrics_router(Arc::clone(&engine));
        AbortOnDrop(tokio::spawn(http::serve(listener, router, std::future::pending())))
    });
    upkeep::begin(&engine, &stopped);
    let drain = config.drain;
    Ok(Running { address, engine, metrics, stop, draining, drain, working, server, _metrics: of_metrics, _lock: lock })
}

/// Listens on what this setting or option names.
async fn bind(name: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|e| StartError::Listen(name, address, e))
}

/// Opens the store and starts the engine on it, and tries again where a database server does not answer yet, or no longer.
async fn reach(
    config: &Config,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
    migrate: bool,
) -> Result<Engine, StartError> {
    let mut wait = Duration::from_millis(500);
    loop {
        let started = async {
            let master = vault::MasterKey::parse(&config.master_key.0)?;
            let store = engine::open_store(&config.storage, migrate).await?;
            Engine::start(config, master, store, Arc::clone(clock), Arc::clone(rng)).await
        };
        match started.await {
            Err(StartError::Store(store::Error::Unavailable(why)))
                if matches!(config.storage.database, Database::Postgres(_)) =>
            {
                tracing::error!(
                    why,
                    wait_seconds = wait.as_secs_f32(),
                    "COUNTERSIGN_DATABASE_URL: the database does not answer; trying again"
                );
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            settled => return settled,
        }
    }
}

/// A task that ends with the one who holds it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// That there is a SQLite file where these settings name one: only what makes one opens what is not there.
fn is_there(storage: &Storage) -> Result<(), StartError> {
    let Database::Sqlite(path) = &storage.database else { return Ok(()) };
    let why = match path.try_exists() {
        Ok(true) => return Ok(()),
        Ok(false) => format!("{} does not exist; countersign migrate makes it", path.display()),
        Err(error) => format!("{}: {error}", path.display()),
    };
    Err(store::Error::Unavailable(why).into())
}

/// The operator's hands on the database of these settings. SQLite is brought up to date, and made where `may_make` says so;
/// PostgreSQL must be up to date.
pub async fn operator(storage: &Storage, may_make: bool) -> Result<Operator, StartError> {
    if !may_make {
        is_there(storage)?;
    }
    let store = engine::open_store(storage, false).await?;
    Ok(Operator::new(store, clock(storage.clock_file.as_ref()), Arc::new(SystemRng)))
}

/// The operator's hands on the keys of these settings.
pub async fn custodian(storage: &Storage, master_key: &Secret) -> Result<Custodian, StartError> {
    let master = vault::MasterKey::parse(&master_key.0)?;
    is_there(storage)?;
    // It reads whole tables.
    let storage = Storage { statement_timeout: LONGEST_READ, ..storage.clone() };
    let store = engine::open_store(&storage, false).await?;
    Custodian::open(store, master, clock(storage.clock_file.as_ref()), Arc::new(SystemRng)).await
}

/// Puts the key ring under another master key.
pub async fn rotate_master(custodian: &Custodian, new: &Secret) -> Result<(), OperatorError> {
    let new = vault::MasterKey::parse(&new.0)
        .map_err(|why| OperatorError::Refused(format!("COUNTERSIGN_NEW_MASTER_KEY: {why}")))?;
    custodian.rotate_master(&new).await
}

/// The machine's clock; in development it may be moved by a file.
fn clock(file: Option<&PathBuf>) -> Arc<dyn Clock> {
    match file {
        Some(path) => Arc::new(FileClock::new(path.clone())),
        None => Arc::new(SystemClock),
    }
}

/// Brings the schema of these settings up to date.
pub async fn migrate(storage: &Storage) -> Result<(), StartError> {
    engine::open_store(storage, true).await.map(drop)
}

/// Writes a copy of the SQLite file of these settings, while others write it.
pub async fn backup(storage: &Storage, file: &Path) -> Result<(), StartError> {
    if let Database::Postgres(_) = &storage.database {
        return Err(StartError::Unfit("PostgreSQL is backed up by its own tools"));
    }
    is_there(storage)?;
    Ok(engine::open_store(storage, false).await?.backup(file).await?)
}

/// Puts a backup in the place of the SQLite file of these settings; without one, makes safe what another tool has put in the
/// place of a PostgreSQL database. Nothing that may have been used comes back.
pub async fn restore(storage: &Storage, backup: Option<&Path>) -> Result<Restored, StartError> {
    let restoration = engine::restoration(clock(storage.clock_file.as_ref()).now());
    let restored = match (&storage.database, backup) {
        (Database::Sqlite(path), Some(backup)) => Store::restore(path, backup, restoration).await?,
        (Database::Postgres(url), None) => {
            // A schema that is not this release's is not touched.
            engine::open_store(storage, false).await?.close().await;
            Store::make_safe(url, restoration).await?
        }
        (Database::Sqlite(_), None) => return Err(StartError::Unfit("name the backup's file")),
        (Database::Postgres(_), Some(_)) => {
            return Err(StartError::Unfit("PostgreSQL is restored by its own tools: name no file"));
        }
    };
    operator(storage, false).await?.note_restoration(&restored.erased).await?;
    Ok(restored)
}

/// Copies every row of one database into another that is empty; tells how many of each table.
pub async fn move_rows(from: &Database, to: &Database) -> Result<Vec<(String, i64)>, MoveError> {
    fn place(database: &Database) -> Place<'_> {
        match database {
            Database::Sqlite(path) => Place::Sqlite(path),
            Database::Postgres(url) => Place::Postgres(url),
        }
    }
    Store::move_all(place(from), place(to)).await
}

/// A new master key, as the settings take it.
pub fn new_master_key() -> zeroize::Zeroizing<String> {
    let at = Moment::new(SystemClock.now(), &SystemRng);
    vault::MasterKey::generate(&at).text()
}

/// Whether the database of these settings has a key ring; an error where it is not there, may not be used, or the master key does not
/// open the ring.
pub async fn examine_keys(config: &Config) -> Result<bool, StartError> {
    let master = vault::MasterKey::parse(&config.master_key.0)?;
    is_there(&config.storage)?;
    let parts = Parts::new(config);
    let store = engine::open_store(&config.storage, false).await?;
    let barred = store.barred_tables().await?;
    if !barred.is_empty() {
        let why = format!("this role may not read and write all rows of {}", barred.join(", "));
        return Err(store::Error::Refused(why).into());
    }
    let found = engine::examine_keys(&store, &master, &Moment::new(parts.clock.now(), &*parts.rng)).await;
    store.close().await;
    found
}
