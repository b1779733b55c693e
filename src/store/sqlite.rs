//! SQLite: readers in parallel, and one writer that gathers waiting writes into one commit, each write in its own savepoint.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use super::{ACQUIRE, Error, Result};

/// A future that may borrow the connection.
pub type Borrowing<'c, T> = Pin<Box<dyn Future<Output = T> + Send + 'c>>;

/// Writes that share one commit at most.
const BATCH: usize = 64;
/// Writes that may wait before callers do.
const QUEUE: usize = 4096;

type Job = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> Borrowing<'c, Done> + Send>;

/// A write that has run but is not committed.
struct Done {
    keep: bool,
    tell: Box<dyn FnOnce(Result<()>) + Send>,
}

/// An open SQLite file.
#[derive(Clone)]
pub struct Sqlite {
    pub(super) readers: SqlitePool,
    jobs: mpsc::Sender<Job>,
}

/// Holds a SQLite file against a second `serve`; ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: std::fs::File,
}

impl Lock {
    /// Takes the lock beside the file.
    pub(super) fn take(path: &Path) -> Result<Lock> {
        let place = path.with_added_extension("lock");
        let named = |error: std::io::Error| Error::Unavailable(format!("{}: {error}", place.display()));
        if let Some(folder) = place.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(named)?;
        }
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(&place).map_err(named)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse(path.display().to_string())),
            Err(std::fs::TryLockError::Error(error)) => Err(named(error)),
        }
    }
}

impl Sqlite {
    pub(super) async fn open(path: &Path, pool: u32) -> Result<Sqlite> {
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| Error::Unavailable(format!("{}: {e}", folder.display())))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .statement_cache_capacity(512)
            .disable_statement_logging();
        let mut writer = SqliteConnection::connect_with(&options).await?;
        migrate(&mut writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(pool)
            .acquire_timeout(ACQUIRE)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let (jobs, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(writer, waiting));
        Ok(Sqlite { readers, jobs })
    }

    /// Runs the body in a transaction, gathered with others; answers once the commit stands.
    pub(super) async fn write<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Borrowing<'c, Result<T>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            Box::pin(async move {
                let outcome = body(conn).await;
                Done {
                    keep: outcome.is_ok(),
                    tell: Box::new(move |commit| drop(tell.send(outcome.and_then(|value| commit.map(|()| value))))),
                }
            })
        });
        let gone = || Error::Unavailable("the write could not begin".to_owned());
        self.jobs.send(job).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

/// Brings the schema up to date inside one write: another process that does the same at this moment waits, and finds it done.
async fn migrate(conn: &mut SqliteConnection) -> Result<()> {
    let mut write = conn.begin_with("begin immediate").await?;
    super::MIGRATIONS.run(&mut *write).await.map_err(|e| Error::Unavailable(e.to_string()))?;
    Ok(write.commit().await?)
}

async fn write_all(mut conn: SqliteConnection, mut waiting: mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        crate::measure::batch(batch.len());
        commit(&mut conn, std::mem::take(&mut batch)).await;
    }
}

/// One transaction for these writes. A write that fails takes back its own statements only.
async fn commit(conn: &mut SqliteConnection, batch: Vec<Job>) {
    if let Err(error) = run(conn, "begin immediate").await {
        // Dropping a write drops its answer, which its caller reads as unavailable; its body never runs outside a transaction.
        tracing::error!(%error, "cannot begin a write");
        return;
    }
    let mut done: Vec<Done> = Vec::with_capacity(batch.len());
    let mut broken = None;
    for job in batch {
        let between = match done.last() {
            None => "savepoint one",
            Some(last) if last.keep => "release one; savepoint one",
            Some(_) => "rollback to one",
        };
        if broken.is_none() {
            broken = run(conn, between).await.err();
        }
        done.push(job(conn).await);
    }
    let keep = done.iter().any(|d| d.keep);
    let end = match broken {
        Some(error) => Err(error),
        None if keep && done.last().is_some_and(|d| d.keep) => run(conn, "commit").await,
        None if keep => run(conn, "rollback to one; commit").await,
        None => run(conn, "rollback").await,
    };
    if let Err(error) = &end {
        tracing::error!(%error, "a write did not commit");
        let _ = run(conn, "rollback").await;
    }
    let failure = end.err().map(|e| e.to_string());
    for d in done {
        (d.tell)(failure.clone().map_or(Ok(()), |reason| Err(Error::Unavailable(reason))));
    }
}

async fn run(conn: &mut SqliteConnection, statements: &'static str) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(statements).execute(conn).await.map(drop)
}
