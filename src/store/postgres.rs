//! PostgreSQL: one transaction a write, run again where the database says that it may be.

use sqlx::PgPool;
use sqlx::postgres::{PgConnection, PgPoolOptions};

use super::sqlite::Borrowing;
use super::{ACQUIRE, Error, Result};

/// How often a transaction is run again after a serialisation failure or a deadlock.
const RETRIES: usize = 3;

pub(super) async fn open(url: &str, pool: u32) -> Result<PgPool> {
    Ok(PgPoolOptions::new().max_connections(pool).acquire_timeout(ACQUIRE).connect(url).await?)
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
