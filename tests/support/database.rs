//! A fresh database for one test: a SQLite file in a folder of its own, or a new database on the PostgreSQL server of
//! `COUNTERSIGN_TEST_POSTGRES`. Both are gone afterwards, the latter with its server.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign::clock::{Clock, Stopwatch, SystemClock};
use countersign::config::{Database, Storage};
use countersign::store::{Limits, Store};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

static COUNT: AtomicUsize = AtomicUsize::new(0);
/// The engine's usual five seconds are short on a slow machine, where hundreds ask at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where one test keeps its rows and files.
pub struct Scratch {
    pub storage: Storage,
    folder: PathBuf,
}

/// The same as [`Scratch::execute`] by the address of a PostgreSQL database.
pub async fn execute(url: &str, statements: &str) -> u64 {
    let mut conn = PgConnection::connect(url).await.expect("it opens");
    let text = AssertSqlSafe(statements.to_owned());
    sqlx::raw_sql(text).execute(&mut conn).await.expect("it runs").rows_affected()
}

/// What was written and is not committed.
pub enum Held {
    /// With how long the holding itself took.
    Sqlite(sqlx::SqliteConnection, f64),
    Postgres(PgConnection),
}

impl Held {
    /// Until somebody waits for it. SQLite does not tell: there it is as long as a call takes that waits for nothing, many times
    /// over, and less than the ten seconds that a call waits for it.
    pub async fn is_waited_for(&mut self) {
        self.is_waited_for_by(1).await;
    }

    /// Until so many wait for it.
    pub async fn is_waited_for_by(&mut self, many: i64) {
        match self {
            Held::Sqlite(_, took) => tokio::time::sleep(Duration::from_secs_f64((*took * 50.0).clamp(0.3, 8.0))).await,
            Held::Postgres(conn) => {
                let count =
                    "select count(*) from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))";
                for _ in 0..2000 {
                    if sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *conn).await.expect("it counts") >= many {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                panic!("nobody waits for it");
            }
        }
    }

    /// Commits it.
    pub async fn let_go(self) {
        match self {
            Held::Sqlite(mut conn, _) => sqlx::raw_sql("commit").execute(&mut conn).await.map(drop),
            Held::Postgres(mut conn) => sqlx::raw_sql("commit").execute(&mut conn).await.map(drop),
        }
        .expect("it commits");
    }
}

impl Scratch {
    /// On PostgreSQL where `COUNTERSIGN_TEST_DATABASE` says so, else on SQLite.
    pub async fn new() -> Scratch {
        match std::env::var("COUNTERSIGN_TEST_DATABASE").as_deref() {
            Ok("postgres") => Scratch::postgres().await.expect("COUNTERSIGN_TEST_POSTGRES names a server"),
            _ => Scratch::sqlite(),
        }
    }

    pub fn sqlite() -> Scratch {
        let folder = folder();
        let database = Database::Sqlite(folder.join("countersign.db"));
        Scratch { storage: patient(database), folder }
    }

    /// A SQLite file in this folder, for settings that name a place of the test's choice.
    pub fn sqlite_in(place: &Path) -> Scratch {
        let database = Database::Sqlite(place.join("countersign.db"));
        Scratch { storage: patient(database), folder: folder() }
    }

    /// A database that is there, empty.
    pub fn on(url: &str) -> Scratch {
        Scratch { storage: patient(Database::Postgres(url.to_owned())), folder: folder() }
    }

    /// `None` where there is no server.
    pub async fn postgres() -> Option<Scratch> {
        let server = std::env::var("COUNTERSIGN_TEST_POSTGRES").ok()?;
        let name = unique("countersign_test").replace('-', "_");
        let mut conn = PgConnection::connect(&server).await.expect("the PostgreSQL server answers");
        let create = AssertSqlSafe(format!("create database {name}"));
        sqlx::raw_sql(create).execute(&mut conn).await.expect("the user may create databases");
        let mut url = url::Url::parse(&server).expect("an address");
        url.set_path(&name);
        Some(Scratch { storage: patient(Database::Postgres(url.into())), folder: folder() })
    }

    /// Both kinds, as far as they are there.
    pub async fn all() -> Vec<Scratch> {
        [Scratch::sqlite()].into_iter().chain(Scratch::postgres().await).collect()
    }

    /// A store on it, with its schema up to date.
    pub async fn store(&self) -> Store {
        let limits = Limits { pool: 4, acquire: PATIENCE, statement: PATIENCE };
        let store = match &self.storage.database {
            Database::Sqlite(path) => Store::sqlite(path, limits).await,
            Database::Postgres(url) => Store::postgres(url, limits).await,
        };
        let store = store.expect("the database opens");
        store.migrate().await.expect("the schema is brought up to date");
        store
    }

    /// The server, and the database's name on it.
    pub fn server(&self) -> (String, String) {
        let url = url::Url::parse(&self.url()).expect("an address");
        let server = std::env::var("COUNTERSIGN_TEST_POSTGRES").expect("a server");
        (server, url.path().trim_start_matches('/').to_owned())
    }

    /// Runs statements as somebody would who writes in the database past the engine; tells how many rows the last one touched.
    pub async fn execute(&self, statements: &str) -> u64 {
        match &self.storage.database {
            Database::Sqlite(path) => {
                let mut conn = sqlx::SqliteConnection::connect(&path.display().to_string()).await.expect("it opens");
                sqlx::query("pragma busy_timeout = 10000").execute(&mut conn).await.expect("it waits");
                let text = AssertSqlSafe(statements.to_owned());
                sqlx::raw_sql(text).execute(&mut conn).await.expect("it runs").rows_affected()
            }
            Database::Postgres(url) => execute(url, statements).await,
        }
    }

    /// Runs statements and does not commit them: whoever writes the same rows waits until they are let go.
    pub async fn hold(&self, statements: &str) -> Held {
        let text = AssertSqlSafe(statements.to_owned());
        match &self.storage.database {
            Database::Sqlite(path) => {
                let began = Stopwatch::start();
                let mut conn = sqlx::SqliteConnection::connect(&path.display().to_string()).await.expect("it opens");
                sqlx::raw_sql("begin immediate").execute(&mut conn).await.expect("nobody writes");
                sqlx::raw_sql(text).execute(&mut conn).await.expect("it runs");
                Held::Sqlite(conn, began.seconds())
            }
            Database::Postgres(url) => {
                let mut conn = PgConnection::connect(url).await.expect("it opens");
                sqlx::raw_sql("begin").execute(&mut conn).await.expect("it begins");
                sqlx::raw_sql(text).execute(&mut conn).await.expect("it runs");
                Held::Postgres(conn)
            }
        }
    }

    /// The number that a statement gives, as the database itself counts.
    pub async fn number(&self, statement: &str) -> i64 {
        let text = AssertSqlSafe(statement.to_owned());
        let counted = match &self.storage.database {
            Database::Sqlite(path) => {
                let mut conn = sqlx::SqliteConnection::connect(&path.display().to_string()).await.expect("it opens");
                sqlx::query_scalar(text).fetch_one(&mut conn).await
            }
            Database::Postgres(url) => {
                let mut conn = sqlx::PgConnection::connect(url).await.expect("it opens");
                sqlx::query_scalar(text).fetch_one(&mut conn).await
            }
        };
        counted.expect("it counts")
    }

    /// The texts that a query gives, cast to text by it.
    pub async fn texts(&self, query: &str) -> Vec<String> {
        let text = AssertSqlSafe(query.to_owned());
        match &self.storage.database {
            Database::Sqlite(path) => {
                let mut conn = sqlx::SqliteConnection::connect(&path.display().to_string()).await.expect("it opens");
                sqlx::query_scalar(text).fetch_all(&mut conn).await.expect("it runs")
            }
            Database::Postgres(url) => {
                let mut conn = PgConnection::connect(url).await.expect("it opens");
                sqlx::query_scalar(text).fetch_all(&mut conn).await.expect("it runs")
            }
        }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.storage.database, Database::Sqlite(_))
    }

    /// A folder of this test's own.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// As the setting `database_url` takes it.
    pub fn url(&self) -> String {
        match &self.storage.database {
            Database::Sqlite(path) => format!("sqlite:{}", path.display()),
            Database::Postgres(url) => url.clone(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn patient(database: Database) -> Storage {
    Storage { pool: 8, acquire_timeout: PATIENCE, statement_timeout: PATIENCE, ..Storage::new(database) }
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(unique("countersign"));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}

fn unique(prefix: &str) -> String {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{}-{number}", std::process::id(), SystemClock.now().0)
}
