//! Every row of one database into another that is empty, in one transaction. The tables and their columns are those that the
//! migrations make; what they mean is not known here.

use std::path::Path;

use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::{Error, Lock, MIGRATIONS, Store, postgres};

/// Rows that are read and written at once.
const PAGE: usize = 200;
/// Tables of which the target makes its own rows.
const OWN: [&str; 2] = ["meta", "leases"];

/// Where rows are moved from or to.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A file.
    Sqlite(&'a Path),
    /// A server's database.
    Postgres(&'a str),
}

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Rows written meanwhile would be left behind.
    #[error("{0}: end every countersign on it first")]
    Served(&'static str),
    /// A schema is there, and is another.
    #[error("{0}: the schema is not that of this release: run countersign migrate on it with this release")]
    OtherSchema(&'static str),
    /// The target holds rows.
    #[error("--to: the database is not empty: there are rows in {0}")]
    NotEmpty(String),
    /// Rows are missing.
    #[error("{table}: {read} rows were read and {written} are there; nothing was moved")]
    Incomplete {
        /// Where.
        table: String,
        /// In the source.
        read: i64,
        /// In the target.
        written: i64,
    },
    /// A database.
    #[error("{0}: {1}")]
    Store(&'static str, Error),
}

enum Side {
    Sqlite { conn: SqliteConnection, _lock: Lock },
    Postgres { conn: PgConnection },
}

/// Runs a body on the connection of either side.
macro_rules! on {
    ($side:expr, $conn:ident => $body:expr) => {
        match $side {
            Side::Sqlite { conn: $conn, .. } => $body,
            Side::Postgres { conn: $conn } => $body,
        }
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Number,
    Bytes,
}

#[derive(Clone)]
enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Bytes(Option<Vec<u8>>),
}

struct Table {
    name: String,
    columns: Vec<(String, Type)>,
    /// Places of the primary key's columns.
    key: Vec<usize>,
}

impl Store {
    /// Copies every row; tells how many of each table. The target's schema is made where there is none. Where anything
    /// fails, the target is as empty as it was.
    pub async fn move_all(from: Place<'_>, to: Place<'_>) -> Result<Vec<(String, i64)>, MoveError> {
        let (from_failed, to_failed) = (|e| MoveError::Store("--from", e), |e| MoveError::Store("--to", e));
        let tables = tables().await.map_err(to_failed)?;
        let mut source = Side::open(from, false).await.map_err(from_failed)?;
        if source.is_served().await.map_err(from_failed)? {
            return Err(MoveError::Served("--from"));
        }
        if !source.is_of_this_release().await {
            return Err(MoveError::OtherSchema("--from"));
        }
        may_be_made(to).await?;
        let mut target = Side::open(to, true).await.map_err(to_failed)?;
        on!(&mut target, conn => MIGRATIONS.run(conn).await)
            .map_err(|e| to_failed(Error::Unavailable(e.to_string())))?;
        source.run("begin").await.map_err(from_failed)?;
        if let Side::Postgres { .. } = source {
            source.run("set transaction isolation level repeatable read, read only").await.map_err(from_failed)?;
        }
        target
            .run(if let Side::Sqlite { .. } = target { "begin immediate" } else { "begin" })
            .await
            .map_err(to_failed)?;
        if target.is_served().await.map_err(to_failed)? {
            return Err(MoveError::Served("--to"));
        }
        for table in tables.iter().filter(|t| !OWN.contains(&t.name.as_str())) {
            if target.count(&table.name).await.map_err(to_failed)? > 0 {
                return Err(MoveError::NotEmpty(table.name.clone()));
            }
        }
        target.run("delete from meta where name <> 'journal'").await.map_err(to_failed)?;
        let mut moved = Vec::with_capacity(tables.len());
        for table in tables.iter().filter(|t| t.name != "leases") {
            let mut after = None;
            loop {
                let mut rows = source.page(table, after).await.map_err(from_failed)?;
                let Some(last) = rows.last() else { break };
                after = Some(table.key.iter().map(|place| last[*place].clone()).collect());
                if table.name == "meta" {
                    // Each SQLite file has a journal of its own.
                    rows.retain(|row| !matches!(&row[0], Value::Text(Some(name)) if name == "journal"));
                }
                target.insert(table, rows).await.map_err(to_failed)?;
            }
            let (read, written) = if table.name == "meta" {
                let except = "meta where name <> 'journal'";
                (source.count(except).await.map_err(from_failed)?, target.count(except).await.map_err(to_failed)?)
            } else {
                let name = &table.name;
                (source.count(name).await.map_err(from_failed)?, target.count(name).await.map_err(to_failed)?)
            };
            if read != written {
                return Err(MoveError::Incomplete { table: table.name.clone(), read, written });
            }
            moved.push((table.name.clone(), written));
        }
        target.run("commit").await.map_err(to_failed)?;
        on!(target, conn => conn.close().await).map_err(|e| to_failed(e.into()))?;
        Ok(moved)
    }
}

/// Refuses a target that somebody may use, before its schema is touched.
async fn may_be_made(to: Place<'_>) -> Result<(), MoveError> {
    if matches!(to, Place::Sqlite(path) if !path.exists()) {
        return Ok(());
    }
    let failed = |e| MoveError::Store("--to", e);
    let mut target = Side::open(to, false).await.map_err(failed)?;
    if target.is_served().await.map_err(failed)? {
        return Err(MoveError::Served("--to"));
    }
    if target.versions().await.is_ok() && !target.is_of_this_release().await {
        return Err(MoveError::OtherSchema("--to"));
    }
    on!(target, conn => conn.close().await).map_err(|e| failed(e.into()))
}

/// What the migrations make, in the order in which they make it: what is referred to comes first.
async fn tables() -> Result<Vec<Table>, Error> {
    let mut conn = SqliteConnection::connect("sqlite::memory:").await?;
    MIGRATIONS.run(&mut conn).await.map_err(|e| Error::Unavailable(e.to_string()))?;
    let names: Vec<String> = sqlx::query_scalar(
        "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' and name <> '_sqlx_migrations'
         order by rowid",
    )
    .fetch_all(&mut conn)
    .await?;
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let found: Vec<(String, String, i64)> =
            sqlx::query_as("select name, lower(type), pk from pragma_table_info($1) order by cid")
                .bind(&name)
                .fetch_all(&mut conn)
                .await?;
        let mut key: Vec<(i64, usize)> = found
            .iter()
            .enumerate()
            .filter(|(_, (_, _, pk))| *pk > 0)
            .map(|(place, (_, _, pk))| (*pk, place))
            .collect();
        key.sort_unstable();
        let columns = found.into_iter().map(|(name, kind, _)| {
            let kind = match kind.as_str() {
                "text" => Type::Text,
                "bigint" => Type::Number,
                "bytea" => Type::Bytes,
                _ => return Err(Error::Corrupt("the schema")),
            };
            Ok((name, kind))
        });
        let columns = columns.collect::<Result<_, _>>()?;
        tables.push(Table { name, columns, key: key.into_iter().map(|(_, place)| place).collect() });
    }
    Ok(tables)
}

impl Side {
    async fn open(place: Place<'_>, make: bool) -> Result<Side, Error> {
        match place {
            Place::Sqlite(path) if !make && !path.exists() => {
                Err(Error::Unavailable(format!("{} does not exist", path.display())))
            }
            Place::Sqlite(path) => {
                let lock = Lock::take(path)?;
                if make {
                    // With all that belongs to it.
                    Store::sqlite(path, 1).await?.close().await;
                }
                let options = SqliteConnectOptions::new().filename(path).foreign_keys(true);
                let options = options.busy_timeout(std::time::Duration::from_secs(10)).disable_statement_logging();
                Ok(Side::Sqlite { conn: SqliteConnection::connect_with(&options).await?, _lock: lock })
            }
            Place::Postgres(url) => Ok(Side::Postgres { conn: postgres::without_limits(url).await? }),
        }
    }

    /// Whether an engine or another command is connected; a SQLite file's lock has told already.
    async fn is_served(&mut self) -> Result<bool, Error> {
        let Side::Postgres { conn } = self else { return Ok(false) };
        postgres::is_served(conn).await
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), Error> {
        on!(self, conn => sqlx::query(statement).execute(conn).await.map(drop))?;
        Ok(())
    }

    /// The steps of its schema; an error where there is none.
    async fn versions(&mut self) -> Result<Vec<i64>, Error> {
        let all = "select version from _sqlx_migrations order by version";
        Ok(on!(self, conn => sqlx::query_scalar(all).fetch_all(conn).await)?)
    }

    async fn is_of_this_release(&mut self) -> bool {
        self.versions().await.ok() == Some(MIGRATIONS.iter().map(|m| m.version).collect())
    }

    async fn count(&mut self, of: &str) -> Result<i64, Error> {
        let text = AssertSqlSafe(format!("select count(*) from {of}"));
        Ok(on!(self, conn => sqlx::query_scalar(text).fetch_one(conn).await)?)
    }

    /// The rows that follow this key in the key's order.
    async fn page(&mut self, table: &Table, after: Option<Vec<Value>>) -> Result<Vec<Vec<Value>>, Error> {
        let columns: Vec<_> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        let key = table.key.iter().map(|place| columns[*place]).collect::<Vec<_>>().join(", ");
        let beyond = match &after {
            None => String::new(),
            Some(after) => format!(" where ({key}) > ({})", numbers(1, after.len())),
        };
        let text = format!("select {} from {}{beyond} order by {key} limit {PAGE}", columns.join(", "), table.name);
        on!(self, conn => {
            let mut query = sqlx::query(AssertSqlSafe(text));
            for value in after.into_iter().flatten() {
                query = match value {
                    Value::Text(text) => query.bind(text),
                    Value::Number(number) => query.bind(number),
                    Value::Bytes(bytes) => query.bind(bytes),
                };
            }
            let rows = query.fetch_all(conn).await?;
            let mut page = Vec::with_capacity(rows.len());
            for row in rows {
                let value = |(place, (_, kind)): (usize, &(String, Type))| {
                    Ok(match kind {
                        Type::Text => Value::Text(row.try_get(place)?),
                        Type::Number => Value::Number(row.try_get(place)?),
                        Type::Bytes => Value::Bytes(row.try_get(place)?),
                    })
                };
                page.push(table.columns.iter().enumerate().map(value).collect::<Result<_, Error>>()?);
            }
            Ok(page)
        })
    }

    async fn insert(&mut self, table: &Table, rows: Vec<Vec<Value>>) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let columns: Vec<_> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        let width = columns.len();
        let places: Vec<_> = (0..rows.len()).map(|n| format!("({})", numbers(n * width + 1, width))).collect();
        let text = format!("insert into {} ({}) values {}", table.name, columns.join(", "), places.join(", "));
        on!(self, conn => {
            let mut query = sqlx::query(AssertSqlSafe(text));
            for value in rows.into_iter().flatten() {
                query = match value {
                    Value::Text(text) => query.bind(text),
                    Value::Number(number) => query.bind(number),
                    Value::Bytes(bytes) => query.bind(bytes),
                };
            }
            query.execute(conn).await.map(drop)
        })?;
        Ok(())
    }
}

/// `$3, $4, $5`.
fn numbers(first: usize, count: usize) -> String {
    (first..first + count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}
