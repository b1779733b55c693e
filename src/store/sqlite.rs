//! SQLite: readers in parallel, and one writer that gathers waiting writes into one commit, each write in its own savepoint.

use std::future::Future;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlitePool};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Error, Limits, Result};

/// A future that may borrow the connection.
pub type Borrowing<'c, T> = Pin<Box<dyn Future<Output = T> + Send + 'c>>;

/// Writes that share one commit at most.
const BATCH: usize = 64;
/// Writes that may wait before callers do.
const QUEUE: usize = 4096;

/// A write that waits for its turn.
struct Job {
    /// It writes all or nothing by itself, and needs no savepoint.
    whole: bool,
    run: Run,
}

type Run = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> Borrowing<'c, Done> + Send>;

/// A write that has run but is not committed.
struct Done {
    /// There is something to commit.
    keep: bool,
    /// It failed other than by a lost race: it may have left something behind.
    broken: bool,
    tell: Box<dyn FnOnce(Result<()>) + Send>,
}

/// An open SQLite file.
#[derive(Clone)]
pub struct Sqlite {
    pub(super) readers: SqlitePool,
    jobs: mpsc::Sender<Job>,
    end: watch::Sender<bool>,
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
    pub(super) async fn open(path: &Path, limits: Limits) -> Result<Sqlite> {
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| Error::Unavailable(format!("{}: {e}", folder.display())))?;
        }
        make_private(path)?;
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
        migrate(&mut writer, path).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(limits.pool)
            .acquire_timeout(limits.acquire)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(false);
        tokio::spawn(write_all(writer, waiting, ended));
        Ok(Sqlite { readers, jobs, end })
    }

    /// Lets go of the file, after what is under way.
    pub(super) async fn close(&self) {
        self.end.send_replace(true);
        self.jobs.closed().await;
        self.readers.close().await;
    }

    /// Runs the body in a transaction, gathered with others, and in a savepoint of its own; answers once the commit stands.
    pub(super) async fn write<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Borrowing<'c, Result<T>> + Send + 'static,
    {
        self.queue(false, body).await
    }

    /// The same for a body that leaves nothing behind where it fails with a conflict.
    pub(super) async fn write_whole<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Borrowing<'c, Result<T>> + Send + 'static,
    {
        self.queue(true, body).await
    }

    async fn queue<T, F>(&self, whole: bool, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Borrowing<'c, Result<T>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let run: Run = Box::new(move |conn| {
            Box::pin(async move {
                let outcome = body(conn).await;
                Done {
                    keep: outcome.is_ok(),
                    broken: matches!(&outcome, Err(error) if !matches!(error, Error::Conflict(_))),
                    tell: Box::new(move |commit| drop(tell.send(outcome.and_then(|value| commit.map(|()| value))))),
                }
            })
        });
        let gone = || Error::Unavailable("the write could not begin".to_owned());
        self.jobs.send(Job { whole, run }).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

/// Brings the schema up to date inside one write: another process that does the same at this moment waits, and finds it done.
/// A database that is not there yet is made readable by its owner alone; SQLite gives its side files the same mode.
fn make_private(path: &Path) -> Result<()> {
    match std::fs::File::options().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::Unavailable(format!("{}: {error}", path.display()))),
    }
}

async fn migrate(conn: &mut SqliteConnection, path: &Path) -> Result<()> {
    let mut write = conn.begin_with("begin immediate").await?;
    super::MIGRATIONS.run(&mut *write).await.map_err(|e| Error::Unavailable(e.to_string()))?;
    super::journal::begin(&mut write, path).await?;
    Ok(write.commit().await?)
}

async fn write_all(mut conn: SqliteConnection, mut waiting: mpsc::Receiver<Job>, mut end: watch::Receiver<bool>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let found = tokio::select! {
            found = waiting.recv_many(&mut batch, BATCH) => found,
            Ok(_) = end.wait_for(|end| *end), if !waiting.is_closed() => {
                // What waits is still written; nothing more is taken.
                waiting.close();
                continue;
            }
        };
        if found == 0 {
            break;
        }
        crate::measure::batch(batch.len());
        commit(&mut conn, std::mem::take(&mut batch)).await;
    }
    if let Err(error) = conn.close().await {
        tracing::warn!(%error, "the database did not close in good order");
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
    let mut broken = Ok(());
    for job in batch {
        if broken.is_err() {
            break;
        }
        let ran = match job.whole {
            true => (job.run)(conn).await,
            false => in_savepoint(conn, job.run, &mut broken).await,
        };
        if job.whole && ran.broken {
            broken = Err(sqlx::Error::Protocol("a write of the same commit broke off".to_owned()));
        }
        done.push(ran);
    }
    let keep = done.iter().any(|d| d.keep);
    let end = match broken {
        Err(error) => Err(error),
        Ok(()) if keep => run(conn, "commit").await,
        Ok(()) => run(conn, "rollback").await,
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

/// Takes back what a write did that failed.
async fn in_savepoint(
    conn: &mut SqliteConnection,
    job: Run,
    broken: &mut std::result::Result<(), sqlx::Error>,
) -> Done {
    *broken = run(conn, "savepoint one").await;
    let ran = job(conn).await;
    if broken.is_ok() {
        *broken = run(conn, if ran.keep { "release one" } else { "rollback to one; release one" }).await;
    }
    ran
}

async fn run(conn: &mut SqliteConnection, statements: &'static str) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(statements).execute(conn).await.map(drop)
}
