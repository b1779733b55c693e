//! PostgreSQL: one transaction a write, run again where the database says that it may be; nothing waits without an end.

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use super::pool::{Pool, Used};
use super::sqlite::Borrowing;
use super::{Error, Limits, Result};

/// How often a transaction is run again after a serialisation failure or a deadlock.
pub(super) const RETRIES: usize = 3;

/// The server ends a statement itself; only where it does not say so within this, the connection is given up.
const GRACE: Duration = Duration::from_secs(1);

/// How long others come first where a change of the schema had to wait.
const GIVEN_WAY: Duration = Duration::from_secs(2);

/// A connection on which a statement takes as long as it takes, and which does not count as one that serves.
pub(super) async fn without_limits(url: &str) -> Result<PgConnection> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.disable_statement_logging().connect().await?)
}

/// Whether an engine or another command is connected.
pub(super) async fn is_served(conn: &mut PgConnection) -> Result<bool> {
    let others: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and application_name = 'countersign' and pid <> pg_backend_pid()",
    )
    .fetch_one(conn)
    .await?;
    Ok(others > 0)
}

/// That the files which an address names are there: the driver's own word for one that is not names none.
fn files_read(url: &str) -> Result<()> {
    let named = url::Url::parse(url).map_err(|error| Error::Refused(error.to_string()))?;
    for (name, path) in named.query_pairs() {
        if matches!(&*name, "sslrootcert" | "sslcert" | "sslkey") {
            std::fs::File::open(&*path).map_err(|error| Error::Refused(format!("{name}: {path}: {error}")))?;
        }
    }
    Ok(())
}

/// An open database.
#[derive(Clone)]
pub struct Postgres {
    pub(super) pool: Pool<PgConnection>,
    options: Arc<PgConnectOptions>,
    patience: Duration,
}

impl Postgres {
    pub(super) async fn open(url: &str, limits: Limits) -> Result<Postgres> {
        files_read(url)?;
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
        let pool = Pool::new(options.clone(), limits);
        let postgres = Postgres { pool, options: Arc::new(options), patience: limits.statement + GRACE };
        // An address that does not do is told of at once.
        postgres.connect(limits.acquire).await?.close().await?;
        Ok(postgres)
    }

    /// Tables of the schema of which this role may not read and write all rows.
    pub(super) async fn barred_tables(&self) -> Result<Vec<String>> {
        let mut conn = self.acquire().await?;
        let barred = sqlx::query_scalar(
            "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = current_schema() and c.relkind in ('r', 'p') and c.relname <> '_sqlx_migrations' and not (
               has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
               and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete'))
             order by c.relname",
        );
        let barred = barred.fetch_all(&mut *conn).await;
        conn.ended(&barred);
        Ok(barred?)
    }

    async fn connect(&self, patience: Duration) -> Result<PgConnection> {
        let silent = || Error::Unavailable(format!("no answer within {} s", patience.as_secs_f32()));
        let connected = tokio::time::timeout(patience, self.options.connect()).await.map_err(|_| silent())?;
        connected.map_err(|error| match &error {
            // A certificate that is not the right one comes as data that do not read.
            sqlx::Error::Tls(_) => Error::Refused(error.to_string()),
            sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => Error::Refused(error.to_string()),
            _ => error.into(),
        })
    }

    /// Brings the schema up to date, for as long as it takes; waits for another that does the same, and for who holds a table, as a
    /// dump does. Whoever comes behind a change that waits, waits too: so it gives way after a second, and comes again.
    pub(super) async fn migrate(&self) -> Result<()> {
        loop {
            let mut conn = self.connect(self.patience).await?;
            sqlx::query("set statement_timeout = 0").execute(&mut conn).await?;
            sqlx::query("set lock_timeout = 1000").execute(&mut conn).await?;
            let done = super::MIGRATIONS.run(&mut conn).await;
            conn.close().await?;
            match done {
                Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                    let code = error.as_database_error().and_then(|e| e.code());
                    if code.as_deref() != Some("55P03") {
                        return Err(error.into());
                    }
                    tracing::warn!("the schema waits for a table that others hold; trying again");
                    tokio::time::sleep(GIVEN_WAY).await;
                }
                done => return done.map_err(|e| Error::Refused(e.to_string())),
            }
        }
    }

    pub(super) async fn acquire(&self) -> std::result::Result<Used<PgConnection>, sqlx::Error> {
        self.pool.acquire().await
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
        let ended = async {
            if !several {
                let outcome = body(&mut conn).await;
                let whole = !matches!(outcome, Err(Error::Unavailable(_))) || conn.ping().await.is_ok();
                return (whole, outcome);
            }
            let mut transaction = match conn.begin().await {
                Ok(transaction) => transaction,
                Err(error) => return (false, Err(error.into())),
            };
            match body(&mut transaction).await {
                Ok(value) => {
                    let committed = transaction.commit().await;
                    (committed.is_ok(), committed.map(|()| value).map_err(Error::from))
                }
                Err(error) => (transaction.rollback().await.is_ok(), Err(error)),
            }
        };
        match tokio::time::timeout(self.patience, ended).await {
            Ok((whole, outcome)) => {
                conn.is_whole(whole);
                outcome
            }
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into()),
        }
    }
}
