//! Rows on SQLite or PostgreSQL, by the same statements. The only room that names sqlx.
//!
//! Every verb is one atomic step, and every consumption is one conditional write whose row count is the answer.
//! Absence is `Option`; a verb that lost a race says what it lost. No rule lives here: verbs are told what to write.

#[macro_use]
mod macros;
#[macro_use]
mod kept;

mod answerers;
mod asking;
mod backup;
mod chain;
mod challenges;
mod deliveries;
mod dossier;
mod events;
mod factors;
mod gather;
mod gathered;
mod housekeeping;
mod journal;
mod keys;
mod leases;
mod moving;
mod parties;
mod parts;
mod piecewise;
mod pool;
mod portal;
mod postgres;
mod recovery;
mod sealed;
mod sending;
mod sessions;
mod settlement;
mod sqlite;
mod telling;
mod throttles;
mod users;
mod verdicts;
mod webhooks;

pub use asking::Which;
pub use backup::{Restoration, Restored};
pub use chain::EventQuery;
pub use deliveries::{Attempted, Due};
pub use dossier::Dossier;
pub use factors::{Activation, Leave, NewFactor, Removal};
pub use housekeeping::Purge;
pub use kept::{Keep, Kept};
pub use keys::{RingChange, RingKey, SigningKey};
pub use moving::{MoveError, Place};
pub use recovery::Standing;
pub use sealed::{SEALED, SealedRow, SealedTable};
pub use sending::{BudgetChange, PromptChange, Reservation};
pub use sessions::NewSession;
pub use settlement::{ChallengeChange, FactorChange, SessionChange, Settlement};
pub use sqlite::Lock;
pub use throttles::{DeviceChange, ThrottleLane};
pub use users::Names;
pub use webhooks::EndpointChange;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::de::DeserializeOwned;
use sqlx::migrate::Migrator;

use crate::model::{ChainHead, Id, Recorded};
use gather::Gather;

/// A schema may be newer than this binary: releases run side by side while they are rolled out.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("./migrations");
    migrations.set_ignore_missing(true);
    migrations
});

/// How much of a database one node takes, and how long it waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections.
    pub pool: u32,
    /// The longest wait for a connection, a new one included.
    pub acquire: Duration,
    /// The longest that a statement of PostgreSQL may take.
    pub statement: Duration,
}

impl From<u32> for Limits {
    /// So many connections, and the usual waits.
    fn from(pool: u32) -> Limits {
        Limits { pool, acquire: Duration::from_secs(5), statement: Duration::from_secs(5) }
    }
}

/// The rows.
#[derive(Clone)]
pub struct Store {
    db: Db,
    /// What the next write keeps beside its effect.
    keep: Option<Arc<Keep>>,
}

/// How events are chained, for a writer that does it as it commits them.
pub trait Chain: Send + Sync {
    /// Gives each event its link behind this end of its relying party's chain, and tells the new end; `None`, and no links, where
    /// nothing may be added to it.
    fn extend(&self, head: Option<&ChainHead>, rp: &Id, events: &mut [Recorded]) -> Option<ChainHead>;
}

/// What hands on to PostgreSQL what comes while it is at work. On SQLite questions are answered where they are asked, and the writer
/// gathers all that is written.
#[derive(Clone)]
struct Gathers {
    asks: Gather<asking::Ask, Vec<dossier::PartRow>>,
    settles: Gather<Box<Settlement>, ()>,
}

impl Gathers {
    fn start(postgres: &postgres::Postgres) -> Gathers {
        let (asked, settled) = (postgres.clone(), postgres.clone());
        Gathers {
            asks: Gather::start(asking::MOST, move |asks| {
                let postgres = asked.clone();
                async move { asking::on_postgres(&postgres, asks).await }
            }),
            settles: Gather::start(gathered::MOST, move |all| {
                let postgres = settled.clone();
                async move { gathered::on_postgres(&postgres, all).await }
            }),
        }
    }
}

#[derive(Clone)]
enum Db {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres, Gathers),
}

/// What a verb lost to somebody faster, or to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contest {
    /// The throttle moved on since it was read.
    Throttle,
    /// The challenge is no longer open.
    Challenge,
    /// The prompt was answered or replaced.
    Prompt,
    /// The factor moved on or is gone.
    Factor,
    /// The recovery code was used.
    RecoveryCode,
    /// Another factor has the name.
    Name,
    /// A budget moved on since it was read.
    Budget,
    /// The session ended or its right was spent.
    Session,
    /// A code or link was used, or its time is over.
    Token,
    /// There are as many as there may be.
    Limit,
    /// The user was erased.
    User,
    /// The visit is gone.
    Visit,
    /// Somebody else wrote the same row first.
    Row,
    /// Another copy of the request was first.
    Kept,
}

/// Why a verb did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It came too late; nothing was written.
    #[error("lost a race for the {0:?}")]
    Conflict(Contest),
    /// The database did not do it, or did not say so; a write may or may not stand.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The database does not do it however often it is asked: the address, the role or its rights are wrong.
    #[error("the database refuses: {0}")]
    Refused(String),
    /// Another engine serves this SQLite file.
    #[error("another countersign serves {0}; a SQLite file takes one, PostgreSQL takes many")]
    InUse(String),
    /// Engines or commands are connected to a PostgreSQL database that is to be changed as a whole.
    #[error("the database is in use: end every countersign on it first")]
    Served,
    /// PostgreSQL could not put parallel transactions in a line, even when they were run again; nothing was written.
    #[error("the transaction did not serialise")]
    Unserialised,
    /// A row does not read.
    #[error("a row of {0} does not read")]
    Corrupt(&'static str),
    /// Another copy of the request was first, and its answer is kept or on its way; nothing was written. No conflict: the
    /// effect is not to be tried again.
    #[error("another copy of the request was first")]
    Kept,
}

impl Error {
    /// The same for another of those who asked at once.
    fn again(&self) -> Error {
        match self {
            Error::Conflict(contest) => Error::Conflict(*contest),
            Error::Unserialised => Error::Unserialised,
            Error::Corrupt(table) => Error::Corrupt(table),
            Error::Kept => Error::Kept,
            Error::Served => Error::Served,
            Error::Refused(why) => Error::Refused(why.clone()),
            Error::Unavailable(why) | Error::InUse(why) => Error::Unavailable(why.clone()),
        }
    }
}

impl From<Contest> for Error {
    fn from(contest: Contest) -> Error {
        match contest {
            Contest::Kept => Error::Kept,
            other => Error::Conflict(other),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Error {
        pool::suspect(&error);
        let Some(database) = error.as_database_error() else {
            return match error {
                sqlx::Error::Configuration(_) => Error::Refused(error.to_string()),
                _ => Error::Unavailable(error.to_string()),
            };
        };
        if database.is_unique_violation() {
            return Error::Conflict(Contest::Row);
        }
        match database.code().as_deref() {
            Some("40001" | "40P01") => Error::Unserialised,
            // PostgreSQL: who it is, which database, what it may, and what it does not understand.
            Some(code) if code.starts_with("28") || code == "3D000" || code.starts_with("42") => {
                Error::Refused(error.to_string())
            }
            _ => Error::Unavailable(error.to_string()),
        }
    }
}

/// The result of a verb.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether a verb did what it was told; `false` where somebody faster, or time, was first.
pub fn stood(done: Result<()>) -> Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(Error::Conflict(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Store {
    /// Opens a SQLite file, made if absent, and brings its schema up to date.
    pub async fn sqlite(path: &std::path::Path, limits: impl Into<Limits>) -> Result<Store> {
        Ok(Store::on(Db::Sqlite(sqlite::Sqlite::open(path, limits.into()).await?)))
    }

    /// Takes the sole right to serve a SQLite file.
    pub fn lock_sqlite(path: &std::path::Path) -> Result<Lock> {
        Lock::take(path)
    }

    /// Opens a PostgreSQL database; its schema stays as it is.
    pub async fn postgres(url: &str, limits: impl Into<Limits>) -> Result<Store> {
        let postgres = postgres::Postgres::open(url, limits.into()).await?;
        let gathers = Gathers::start(&postgres);
        Ok(Store::on(Db::Postgres(postgres, gathers)))
    }

    fn on(db: Db) -> Store {
        Store { db, keep: None }
    }

    /// From now on SQLite's writer chains the events of settlements as it commits them. PostgreSQL has many writers: there all is
    /// chained afterwards.
    pub fn chain_by(&self, chain: Arc<dyn Chain>) {
        if let Db::Sqlite(lite) = &self.db {
            // The first engine on a store stays its only one.
            let _ = lite.chain.set(chain);
        }
    }

    /// Brings the schema up to date; waits for another node that does the same. Where there is nothing to do, no right to change
    /// the schema is needed.
    pub async fn migrate(&self) -> Result<()> {
        match &self.db {
            Db::Postgres(..) if self.is_migrated().await? => Ok(()),
            // Opening it did so.
            Db::Sqlite(_) => Ok(()),
            Db::Postgres(postgres, _) => postgres.migrate().await,
        }
    }

    /// Tables that the engine may not use; whoever opens a SQLite file may use all.
    pub async fn barred_tables(&self) -> Result<Vec<String>> {
        match &self.db {
            Db::Sqlite(_) => Ok(Vec::new()),
            Db::Postgres(postgres, _) => postgres.barred_tables().await,
        }
    }

    /// Whether every migration of this binary has been applied.
    pub async fn is_migrated(&self) -> Result<bool> {
        let applied: std::result::Result<i64, _> =
            read!(self, db => sqlx::query_scalar("select count(*) from _sqlx_migrations").fetch_one(db).await);
        match applied {
            Ok(applied) => Ok(applied >= MIGRATIONS.iter().count() as i64),
            Err(error) if is_without_table(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The oldest release that may run on this schema; `0` where there is no schema yet.
    pub async fn oldest_release(&self) -> Result<String> {
        let oldest: std::result::Result<Option<String>, sqlx::Error> = read!(self, db => {
            sqlx::query_scalar("select value from meta where name = 'oldest_release'").fetch_optional(db).await
        });
        match oldest {
            Ok(oldest) => Ok(oldest.unwrap_or_default()),
            Err(error) if is_without_table(&error) => Ok("0".to_owned()),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers if the database does, and those who hand work to it are there.
    pub async fn ping(&self) -> Result<()> {
        let there = match &self.db {
            Db::Sqlite(lite) => lite.takes_writes(),
            Db::Postgres(_, gathers) => gathers.asks.takes() && gathers.settles.takes(),
        };
        if !there {
            return Err(Error::Unavailable("what hands work to the database has ended".to_owned()));
        }
        let one: Option<i64> = read_scalar_if! { self, "select count(*) from meta" };
        one.is_some_and(|n| n > 0).then_some(()).ok_or(Error::Corrupt("meta"))
    }

    /// Connections of this node that are used and idle; on SQLite those of readers.
    pub fn pool(&self) -> (usize, usize) {
        match &self.db {
            Db::Sqlite(lite) => lite.size(),
            Db::Postgres(postgres, _) => postgres.pool.size(),
        }
    }

    /// Ends all connections, after what is under way.
    pub async fn close(&self) {
        match &self.db {
            Db::Sqlite(lite) => lite.close().await,
            Db::Postgres(postgres, _) => postgres.pool.close().await,
        }
    }
}

/// Whether a statement met no table of its name: nothing else says that there is no schema.
fn is_without_table(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table"))
}

fn json<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| Error::Corrupt(table))
}

/// The statements that are put together when the program runs, for the tests that prepare every statement.
pub fn statements() -> Vec<String> {
    asking::statements()
        .chain(piecewise::statements())
        .chain(gathered::statements())
        .chain([kept::KEEP.to_owned()])
        .collect()
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("model data is JSON")
}

/// A consumption's verdict: exactly one row, or the contest was lost.
fn won(rows: u64, contest: Contest) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(contest.into()) }
}
