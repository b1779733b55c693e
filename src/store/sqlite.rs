//! SQLite: readers in parallel, and one writer that gathers what waits: settlements into one commit, other writes into another, each
//! of these in its own savepoint.

use std::future::Future;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::answerers::Answerers;
use super::pool::Pool;
use super::settlement::Settlement;
use super::verdicts::{Settler, Settling};
use super::{Chain, Error, Keep, Limits, Result, gathered};

/// A future that may borrow the connection.
pub type Borrowing<'c, T> = Pin<Box<dyn Future<Output = T> + Send + 'c>>;

/// Writes that share one commit at most.
const BATCH: usize = gathered::MOST;
/// Writes that may wait before callers do.
const QUEUE: usize = 4096;

/// How long somebody else may hold the file, and how long until a file that is held is asked for again.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(25);

/// A write that waits for its turn.
enum Job {
    /// Statements, in a savepoint of their own.
    Write(Run),
    /// A settlement, which may be settled with others; it writes all or nothing by itself.
    Settle(Settling),
}

type Run = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> Borrowing<'c, Done> + Send>;

/// A write that has run but is not committed.
struct Done {
    /// There is something to commit.
    keep: bool,
    tell: Box<dyn FnOnce(Result<()>) + Send>,
}

/// An open SQLite file.
#[derive(Clone)]
pub struct Sqlite {
    pub(super) readers: Pool<SqliteConnection>,
    /// What the verify path asks.
    pub(super) answerers: Answerers,
    jobs: mpsc::Sender<Job>,
    end: watch::Sender<bool>,
    /// How events are chained, once that is known.
    pub(super) chain: Arc<OnceLock<Arc<dyn Chain>>>,
}

/// Holds a SQLite file against a second `serve`; ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: std::fs::File,
}

impl Lock {
    /// Takes the lock beside the file.
    pub(super) fn take(path: &Path) -> Result<Lock> {
        let place = real(path).with_added_extension("lock");
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
        let path = &real(path);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .pragma("temp_store", "memory")
            // What was deleted is overwritten: who was erased is in no free page (V-05).
            .pragma("secure_delete", "on")
            .statement_cache_capacity(512)
            // A connection's thread need not stop in the middle until somebody has taken what it read.
            .row_buffer_size(1024)
            .disable_statement_logging();
        let mut writer = connect(&options, path).await?;
        migrate(&mut writer, path).await?;
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(false);
        let settling = here(path, PATIENCE)?;
        let chain = Arc::default();
        let (place, runtime, known) = (path.clone(), Handle::current(), Arc::clone(&chain));
        let (begins, begun) = oneshot::channel();
        let write = move || {
            match Settler::new(&settling, &place, known) {
                Ok(settler) => {
                    let _ = begins.send(Ok(()));
                    runtime.block_on(write_all(settler, writer, waiting, ended.clone()));
                }
                Err(error) => drop(begins.send(Err(error))),
            }
            drop(settling);
            // Whoever waits for this end may take the file.
            drop(ended);
        };
        let started = std::thread::Builder::new().name("sqlite-writer".to_owned()).spawn(write);
        started.map_err(|error| Error::Unavailable(format!("the writer's thread: {error}")))?;
        begun.await.map_err(|_| Error::Unavailable("the writer did not begin".to_owned()))??;
        Ok(Sqlite { readers: Pool::new(options, limits), answerers: Answerers::new(path), jobs, end, chain })
    }

    /// How many readers are in use, and how many idle.
    pub(super) fn size(&self) -> (usize, usize) {
        let (readers, answerers) = (self.readers.size(), self.answerers.size());
        (readers.0 + answerers.0, readers.1 + answerers.1)
    }

    /// Whether anybody is there who writes.
    pub(super) fn takes_writes(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Lets go of the file, after what is under way.
    pub(super) async fn close(&self) {
        self.end.send_replace(true);
        // The writer lets go of its end when its connection is closed.
        self.end.closed().await;
        self.readers.close().await;
        self.answerers.close().await;
    }

    /// Runs the body in a transaction, gathered with others, and in a savepoint of its own; answers once the commit stands.
    pub(super) async fn write<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Borrowing<'c, Result<T>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let run: Run = Box::new(move |conn| {
            Box::pin(async move {
                let outcome = body(conn).await;
                Done { keep: outcome.is_ok(), tell: Box::new(move |commit| answer(tell, outcome, commit)) }
            })
        });
        self.queue(Job::Write(run), told).await
    }

    /// Settles in a transaction, gathered with others; answers once the commit stands.
    pub(super) async fn settle(&self, settlement: Box<Settlement>, keep: Option<Arc<Keep>>) -> Result<()> {
        let (tell, told) = oneshot::channel();
        self.queue(Job::Settle(Settling { settlement, keep, tell }), told).await
    }

    async fn queue<T>(&self, job: Job, told: oneshot::Receiver<Result<T>>) -> Result<T> {
        let gone = || Error::Unavailable("the write could not begin".to_owned());
        self.jobs.send(job).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

/// The file itself where the path is a link to it: whatever lies beside it is looked for there, as SQLite does.
pub(super) fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A connection that runs where it is called, set like sqlx's.
pub(super) fn here(path: &Path, patience: Duration) -> Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(patience)?;
    conn.execute_batch(
        "pragma synchronous = full; pragma foreign_keys = on; pragma temp_store = memory; pragma secure_delete = on",
    )?;
    Ok(conn)
}

/// Of several who open a new file at once, SQLite lets none wait that would wait for each other: those ask again. All waiting
/// together, SQLite's own with it, ends after [`PATIENCE`].
async fn connect(options: &SqliteConnectOptions, path: &Path) -> Result<SqliteConnection> {
    let asking = async {
        loop {
            match SqliteConnection::connect_with(options).await {
                Err(sqlx::Error::Database(error)) if is_busy(&*error) => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(Error::Unavailable(format!("{}: {error}", path.display()))),
                Ok(conn) => return Ok(conn),
            }
        }
    };
    let held = || Error::Unavailable(format!("{}: somebody else holds the file", path.display()));
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(held()))
}

/// Whether somebody else holds the file: SQLITE_BUSY, in any of its extended forms.
pub(super) fn is_busy(error: &dyn DatabaseError) -> bool {
    error.code().and_then(|code| code.parse::<i64>().ok()).is_some_and(|code| code & 0xff == 5)
}

/// Tells what became of a write once it is known what became of its commit; whoever no longer waits is not told.
fn answer<T>(tell: oneshot::Sender<Result<T>>, outcome: Result<T>, commit: Result<()>) {
    let _ = tell.send(commit.and(outcome));
}

/// A database that is not there yet is made readable by its owner alone; SQLite gives its side files the same mode.
fn make_private(path: &Path) -> Result<()> {
    match std::fs::File::options().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::Unavailable(format!("{}: {error}", path.display()))),
    }
}

/// Brings the schema up to date inside one write: another process that does the same at this moment waits, and finds it done.
async fn migrate(conn: &mut SqliteConnection, path: &Path) -> Result<()> {
    let mut write = conn.begin_with("begin immediate").await?;
    super::MIGRATIONS.run(&mut *write).await.map_err(|e| Error::Unavailable(e.to_string()))?;
    super::journal::begin(&mut write, path).await?;
    Ok(write.commit().await?)
}

/// Takes what waits until it is told to end: settlements by the connection that runs on this thread, then whatever else is written
/// by sqlx's. Only one of the two writes at a time.
async fn write_all(
    mut settler: Settler<'_>,
    mut conn: SqliteConnection,
    mut waiting: mpsc::Receiver<Job>,
    mut end: watch::Receiver<bool>,
) {
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
        let (mut settles, mut writes) = (Vec::with_capacity(found), Vec::new());
        for job in batch.drain(..) {
            match job {
                Job::Settle(settling) => settles.push(settling),
                Job::Write(run) => writes.push(run),
            }
        }
        if !settles.is_empty() {
            crate::measure::batch(settles.len());
            settler.settle_all(settles);
        }
        if !writes.is_empty() {
            crate::measure::batch(writes.len());
            commit(&mut conn, writes).await;
        }
    }
    if let Err(error) = conn.close().await {
        tracing::warn!(%error, "the database did not close in good order");
    }
}

/// One transaction for these writes. A write that fails takes back its own statements only.
async fn commit(conn: &mut SqliteConnection, writes: Vec<Run>) {
    // Where it does not begin, dropping the writes drops their answers, which callers read as unavailable: nothing of them ever
    // runs outside a transaction.
    if let Err(error) = run(conn, "begin immediate").await {
        return tracing::error!(%error, "cannot begin a write");
    }
    let mut done: Vec<Done> = Vec::with_capacity(writes.len());
    let mut broken = Ok(());
    for job in writes {
        if broken.is_err() {
            break;
        }
        done.extend(in_savepoint(conn, job, &mut broken).await);
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

/// Takes back what a write did that failed. One that could not be taken back does not run: where the transaction has ended, each of
/// its statements would stand.
async fn in_savepoint(
    conn: &mut SqliteConnection,
    job: Run,
    broken: &mut std::result::Result<(), sqlx::Error>,
) -> Option<Done> {
    *broken = run(conn, "savepoint one").await;
    if broken.is_err() {
        return None;
    }
    let ran = job(conn).await;
    *broken = run(conn, if ran.keep { "release one" } else { "rollback to one; release one" }).await;
    Some(ran)
}

async fn run(conn: &mut SqliteConnection, statements: &'static str) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(statements).execute(conn).await.map(drop)
}

/// What tests of statements need.
#[cfg(test)]
pub(super) mod trial {
    use rusqlite::Connection;

    /// A database with the schema, in memory.
    pub fn database() -> Connection {
        let conn = Connection::open_in_memory().expect("it opens");
        crate::store::MIGRATIONS.iter().for_each(|part| conn.execute_batch(part.sql.as_str()).expect("the schema"));
        conn
    }

    /// The steps in which a statement walks a table.
    pub fn walks(conn: &Connection, sql: &str) -> Vec<String> {
        let mut plan = conn.prepare(&format!("explain query plan {sql}")).expect("a plan");
        let steps = plan.raw_query().mapped(|row| row.get(3)).collect::<rusqlite::Result<Vec<String>>>();
        let mut steps = steps.expect("its steps");
        steps.retain(|step| step.starts_with("SCAN") && step != "SCAN CONSTANT ROW");
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Id, Kind, Moment, Timestamp};
    use crate::store::{Db, Store};

    /// A node that can only read is not ready.
    #[tokio::test]
    async fn a_store_whose_writer_has_ended_does_not_answer() {
        let at = Moment::new(Timestamp(1), &crate::clock::SystemRng);
        let folder = std::env::temp_dir().join(format!("countersign-writer-{}", Id::new(Kind::Event, &at)));
        let store = Store::sqlite(&folder.join("a.db"), 1).await.expect("a database");
        store.ping().await.expect("it answers");
        let Db::Sqlite(lite) = &store.db else { panic!("it is SQLite") };
        let written: Result<()> = lite.write(|_| Box::pin(async { panic!("a fault ends the writer") })).await;
        assert!(matches!(written, Err(Error::Unavailable(_))));
        lite.end.closed().await;
        store.oldest_release().await.expect("readers go on");
        assert!(matches!(store.ping().await, Err(Error::Unavailable(_))));
        store.close().await;
        std::fs::remove_dir_all(&folder).expect("it is there");
    }
}
