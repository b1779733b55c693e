//! PostgreSQL: one transaction a write, run again where the database says that it may be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

use super::sqlite::Borrowing;
use super::{ACQUIRE, Error, Result};

/// How often a transaction is run again after a serialisation failure or a deadlock.
pub(super) const RETRIES: usize = 3;

/// A connection that was idle for longer is tried before it is used.
const STALE: Duration = Duration::from_secs(1);
/// How many uses are tried beforehand after a connection broke: more than a pool holds.
const SUSPECTS: usize = 1024;
/// How many are still to be tried.
static SUSPECT: AtomicUsize = AtomicUsize::new(0);

pub(super) async fn open(url: &str, pool: u32) -> Result<PgPool> {
    let options: PgConnectOptions = url.parse()?;
    let options = options.statement_cache_capacity(512).disable_statement_logging();
    let pool = PgPoolOptions::new().max_connections(pool).acquire_timeout(ACQUIRE);
    // A ping before every use would be a round trip more. One after a pause, and some after any connection broke, find those
    // that the server has dropped.
    let pool = pool.test_before_acquire(false).before_acquire(|conn, use_| {
        Box::pin(async move {
            let take_one = |left: usize| left.checked_sub(1);
            let suspect = SUSPECT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok();
            if suspect || use_.idle_for > STALE { conn.ping().await.map(|()| true) } else { Ok(true) }
        })
    });
    Ok(pool.connect_with(options).await?)
}

/// A connection broke: others that were open at the same time are tried before they are used.
pub(super) fn suspect() {
    SUSPECT.store(SUSPECTS, Ordering::Relaxed);
}

/// Runs the body in a transaction; answers once the commit stands.
pub(super) async fn write<T, F>(pool: &PgPool, body: F) -> Result<T>
where
    F: for<'c> Fn(&'c mut PgConnection) -> Borrowing<'c, Result<T>>,
{
    for _ in 0..RETRIES {
        match attempt(pool, &body).await {
            Err(Error::Unserialised) => {}
            settled => return settled,
        }
    }
    attempt(pool, &body).await
}

async fn attempt<T, F>(pool: &PgPool, body: &F) -> Result<T>
where
    F: for<'c> Fn(&'c mut PgConnection) -> Borrowing<'c, Result<T>>,
{
    let mut transaction = pool.begin().await?;
    let value = body(&mut transaction).await?;
    transaction.commit().await?;
    Ok(value)
}
