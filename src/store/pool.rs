//! Connections that are used in turn. One whose use ended in good order comes back as it is, and any other does not come back: the
//! pool of sqlx would ask for a sign of life with every use, which is a round trip more.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{self, Manager, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use sqlx::Connection;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokio::time::{sleep, timeout};

use super::Limits;

/// A connection that was last taken longer ago is tried before it is used.
const STALE: Duration = Duration::from_secs(1);
/// How long a connection that is tried, or ended, may take to answer.
const TIDY: Duration = Duration::from_secs(2);
/// A connection that was last taken so long ago is ended, and so is one of such an age.
const IDLE: Duration = Duration::from_secs(600);
const OLD: Duration = Duration::from_secs(1800);
/// How often idle ones are looked for.
const LOOK: Duration = Duration::from_secs(60);
/// How long until a database that takes no connection for the moment is asked again.
const MOMENT: Duration = Duration::from_millis(100);
/// How long until connections in use are looked for again when all are to end.
const AGAIN: Duration = Duration::from_millis(5);

/// How many uses are tried beforehand after a connection broke: more than a pool holds.
const SUSPECTS: usize = 1024;
/// How many are still to be tried.
static SUSPECT: AtomicUsize = AtomicUsize::new(0);

/// How many uses are given a connection of now where theirs is older: one came upon a server that only reads (25006), as the former
/// primary does after a change of roles that leaves connections as they are.
static READS_ONLY: AtomicUsize = AtomicUsize::new(0);

/// Where a connection broke, others that were open at the same time are tried before they are used.
pub(super) fn suspect(error: &sqlx::Error) {
    if error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("25006")) {
        READS_ONLY.store(SUSPECTS, Ordering::Relaxed);
    }
    let broke = match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => hangs_up(&**error),
        _ => false,
    };
    if broke {
        SUSPECT.store(SUSPECTS, Ordering::Relaxed);
    }
}

/// Whether the server ends the connection with this error: class 57P says that it ends itself, and so does its severity.
fn hangs_up(error: &dyn DatabaseError) -> bool {
    let severity = error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
    matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic))
        || error.code().is_some_and(|code| code.starts_with("57P"))
}

/// Whether the database takes no connection for the moment: it starts or stops (57P03), or has no place left (53300).
fn not_now(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("57P03" | "53300"))
}

/// Connections to one database.
pub(super) struct Pool<C: Connection> {
    all: managed::Pool<Maker<C>>,
    acquire: Duration,
    closing: Arc<AtomicBool>,
}

// Not derived: a connection cannot be cloned, and need not be.
impl<C: Connection> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Pool { all: self.all.clone(), acquire: self.acquire, closing: Arc::clone(&self.closing) }
    }
}

/// Makes them, and says which may be used again.
struct Maker<C: Connection> {
    options: C::Options,
    /// How many there are at most.
    most: usize,
    /// How many more are given up without a try, if they were idle: one of them was silent, and each would be waited for.
    silent: AtomicUsize,
}

impl<C: Connection> Manager for Maker<C> {
    type Type = C;
    type Error = sqlx::Error;

    /// Whoever waits for a connection says for how long.
    async fn create(&self) -> Result<C, sqlx::Error> {
        loop {
            match C::connect_with(&self.options).await {
                Err(error) if not_now(&error) => sleep(MOMENT).await,
                made => return made,
            }
        }
    }

    async fn recycle(&self, conn: &mut C, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > OLD {
            return Err(RecycleError::message("it is old"));
        }
        let take_one = |left: usize| left.checked_sub(1);
        let one_of = |some: &AtomicUsize| some.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok();
        if metrics.age() > STALE && one_of(&READS_ONLY) {
            return Err(RecycleError::message("its server may have become one that only reads"));
        }
        let idle = metrics.last_used() > STALE;
        if idle && one_of(&self.silent) {
            return Err(RecycleError::message("another of its time is silent"));
        }
        if one_of(&SUSPECT) || idle {
            let Ok(answer) = timeout(TIDY, conn.ping()).await else {
                self.silent.store(self.most, Ordering::Relaxed);
                return Err(RecycleError::message("it is silent"));
            };
            answer?;
        }
        Ok(())
    }
}

impl<C: Connection + 'static> Pool<C> {
    /// None is made before it is needed.
    pub(super) fn new(options: C::Options, limits: Limits) -> Pool<C> {
        let most = limits.pool as usize;
        let maker = Maker { options, most, silent: AtomicUsize::new(0) };
        let all = managed::Pool::builder(maker).max_size(most).queue_mode(QueueMode::Lifo);
        let all = all.build().expect("a pool without timeouts of its own needs no runtime");
        let watched = all.weak();
        tokio::spawn(async move {
            loop {
                sleep(LOOK).await;
                let Some(all) = watched.upgrade() else { break };
                all.retain(|_, metrics| metrics.last_used() < IDLE);
            }
        });
        Pool { all, acquire: limits.acquire, closing: Arc::default() }
    }

    /// A connection, a new one where there may be one more; waits for it as long as was set.
    pub(super) async fn acquire(&self) -> Result<Used<C>, sqlx::Error> {
        if self.closing.load(Ordering::Acquire) {
            return Err(sqlx::Error::PoolClosed);
        }
        match timeout(self.acquire, self.all.get()).await {
            Ok(Ok(conn)) => Ok(Used { conn: Some(conn), whole: false }),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(_)) | Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// How many are in use, and how many idle.
    pub(super) fn size(&self) -> (usize, usize) {
        let status = self.all.status();
        (status.size.saturating_sub(status.available), status.available)
    }

    /// Gives none out any more, and ends all in good order, those in use when they come back.
    pub(super) async fn close(&self) {
        self.closing.store(true, Ordering::Release);
        loop {
            for conn in self.all.retain(|_, _| false).removed {
                let _ = timeout(TIDY, conn.close()).await;
            }
            if self.all.status().size == 0 {
                break;
            }
            sleep(AGAIN).await;
        }
        self.all.close();
    }
}

/// A connection in use. However its use ends, by an answer, by an error, or because nobody waits any more, it comes back only if it
/// is known to be whole.
pub(super) struct Used<C: Connection> {
    conn: Option<Object<Maker<C>>>,
    whole: bool,
}

impl<C: Connection> Used<C> {
    /// Notes how a use ended that left no transaction open: after an answer, and after an error that the database sent without
    /// hanging up, it is whole.
    pub(super) fn ended<T>(&mut self, outcome: &Result<T, sqlx::Error>) {
        self.whole = match outcome {
            Ok(_) => true,
            Err(sqlx::Error::Database(error)) => !hangs_up(&**error),
            Err(_) => false,
        };
    }

    /// Notes whether a use left it as it was before.
    pub(super) fn is_whole(&mut self, whole: bool) {
        self.whole = whole;
    }
}

impl<C: Connection> Deref for Used<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.conn.as_ref().expect("it is held until it is dropped")
    }
}

impl<C: Connection> DerefMut for Used<C> {
    fn deref_mut(&mut self) -> &mut C {
        self.conn.as_mut().expect("it is held until it is dropped")
    }
}

impl<C: Connection> Drop for Used<C> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take().filter(|_| !self.whole) {
            drop(Object::take(conn));
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::SqliteConnection;

    use super::*;

    fn pool() -> Pool<SqliteConnection> {
        Pool::new(
            "sqlite::memory:".parse().expect("options"),
            Limits { acquire: Duration::from_secs(2), ..Limits::from(1) },
        )
    }

    #[tokio::test]
    async fn only_a_connection_whose_use_ended_in_good_order_comes_back() {
        let pool = pool();
        for outcome in [None, Some(Err(sqlx::Error::PoolTimedOut)), Some(Ok(())), Some(Err(sqlx::Error::WorkerCrashed))]
        {
            let mut conn = pool.acquire().await.expect("a connection");
            assert_eq!(pool.size(), (1, 0));
            let good = matches!(outcome, Some(Ok(())));
            if let Some(outcome) = outcome {
                conn.ended(&outcome);
            }
            drop(conn);
            assert_eq!(pool.size(), (0, usize::from(good)));
        }
        let mut conn = pool.acquire().await.expect("a connection");
        let broken = sqlx::query("no statement").execute(&mut *conn).await;
        assert!(matches!(broken, Err(sqlx::Error::Database(_))));
        conn.ended(&broken);
        drop(conn);
        assert_eq!(pool.size(), (0, 1), "the database said what was wrong");
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_and_all_end_at_the_end() {
        let pool = pool();
        let mut only = pool.acquire().await.expect("a connection");
        assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolTimedOut)));
        let closing = tokio::spawn({
            let pool = pool.clone();
            async move { pool.close().await }
        });
        tokio::task::yield_now().await;
        assert!(!closing.is_finished(), "it waits for the one that is in use");
        assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolClosed)), "nobody else gets it meanwhile");
        only.is_whole(true);
        drop(only);
        closing.await.expect("it ends");
        assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolClosed)));
    }
}
