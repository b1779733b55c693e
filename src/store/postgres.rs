//! PostgreSQL: one transaction a write, run again where the database says that it may be; nothing waits without an end.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

use super::sqlite::Borrowing;
use super::{Error, Limits, Result};

/// How often a transaction is run again after a serialisation failure or a deadlock.
pub(super) const RETRIES: usize = 3;

/// The server ends a statement itself; only where it does not say so within this, the connection is given up.
const GRACE: Duration = Duration::from_secs(1);
/// A connection that goes back to the pool proves within this that it is whole.
const TIDY: Duration = Duration::from_secs(2);
/// A connection that was idle for longer is tried before it is used.
const STALE: Duration = Duration::from_secs(1);
/// How many uses are tried beforehand after a connection broke: more than a pool holds.
const SUSPECTS: usize = 1024;
/// How many are still to be tried.
static SUSPECT: AtomicUsize = AtomicUsize::new(0);

/// An open database.
#[derive(Clone)]
pub struct Postgres {
    pub(super) pool: PgPool,
    options: Arc<PgConnectOptions>,
    patience: Duration,
}

/// A connection in use. However its use ends, by an answer, by an error, or because nobody waits any more, it goes back only
/// if it is whole, and a network that swallows every byte cannot keep its place in the pool.
pub(super) struct Used(Option<PoolConnection<sqlx::Postgres>>);

impl Postgres {
    pub(super) async fn open(url: &str, limits: Limits) -> Result<Postgres> {
        let options: PgConnectOptions = url.parse()?;
        let options = options
            .application_name("countersign")
            .options([
                ("statement_timeout", limits.statement.as_millis().to_string()),
                // Every statement finds its rows by key, whatever its values: to plan it anew each time would cost more than it.
                ("plan_cache_mode", "force_generic_plan".to_owned()),
                // For the same reason it may not take a table for small and walk it, as before its first statistics.
                ("enable_seqscan", "off".to_owned()),
                ("enable_hashjoin", "off".to_owned()),
                ("enable_mergejoin", "off".to_owned()),
                ("jit", "off".to_owned()),
            ])
            .statement_cache_capacity(512)
            .disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(limits.pool).acquire_timeout(limits.acquire);
        // A ping before every use would be a round trip more. One after a pause, and some after any connection broke, find those
        // that the server has dropped.
        let pool = pool.test_before_acquire(false).before_acquire(|conn, use_| {
            Box::pin(async move {
                let take_one = |left: usize| left.checked_sub(1);
                let suspect = SUSPECT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok();
                if suspect || use_.idle_for > STALE { conn.ping().await.map(|()| true) } else { Ok(true) }
            })
        });
        let pool = pool.connect_lazy_with(options.clone());
        let postgres = Postgres { pool, options: Arc::new(options), patience: limits.statement + GRACE };
        // A pool would only say that it timed out; one connection says why.
        postgres.connect(limits.acquire).await?.close().await?;
        Ok(postgres)
    }

    async fn connect(&self, patience: Duration) -> Result<PgConnection> {
        let silent = || Error::Unavailable(format!("no answer within {} s", patience.as_secs_f32()));
        Ok(tokio::time::timeout(patience, self.options.connect()).await.map_err(|_| silent())??)
    }

    /// Brings the schema up to date, for as long as it takes; waits for another that does the same.
    pub(super) async fn migrate(&self) -> Result<()> {
        let mut conn = self.connect(self.patience).await?;
        sqlx::query("set statement_timeout = 0").execute(&mut conn).await?;
        super::MIGRATIONS.run(&mut conn).await.map_err(|e| Error::Unavailable(e.to_string()))?;
        Ok(conn.close().await?)
    }

    pub(super) async fn acquire(&self) -> std::result::Result<Used, sqlx::Error> {
        Ok(Used(Some(self.pool.acquire().await?)))
    }

    /// Waits for an answer as long as the server may take for it, and no longer.
    pub(super) async fn answer<T>(
        &self,
        asked: impl Future<Output = std::result::Result<T, sqlx::Error>>,
    ) -> std::result::Result<T, sqlx::Error> {
        match tokio::time::timeout(self.patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Runs the body in a transaction, which a body of one statement is by itself; answers once the commit stands.
    pub(super) async fn write<T, F>(&self, several: bool, body: F) -> Result<T>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> Borrowing<'c, Result<T>>,
    {
        for _ in 0..RETRIES {
            match self.attempt(several, &body).await {
                Err(Error::Unserialised) => {}
                settled => return settled,
            }
        }
        self.attempt(several, &body).await
    }

    async fn attempt<T, F>(&self, several: bool, body: &F) -> Result<T>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> Borrowing<'c, Result<T>>,
    {
        let mut conn = self.acquire().await?;
        let whole = async {
            if !several {
                return body(&mut conn).await;
            }
            let mut transaction = conn.begin().await?;
            let value = body(&mut transaction).await?;
            transaction.commit().await?;
            Ok(value)
        };
        match tokio::time::timeout(self.patience, whole).await {
            Ok(settled) => settled,
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into()),
        }
    }
}

impl Deref for Used {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("it is held until it is dropped")
    }
}

impl DerefMut for Used {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is held until it is dropped")
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        if let Some(mut conn) = self.0.take() {
            // Dropping the pool's own guard would do the same, and wait for ever.
            tokio::spawn(tokio::time::timeout(TIDY, async move { conn.return_to_pool().await }));
        }
    }
}

/// A connection broke: others that were open at the same time are tried before they are used.
pub(super) fn suspect() {
    SUSPECT.store(SUSPECTS, Ordering::Relaxed);
}
