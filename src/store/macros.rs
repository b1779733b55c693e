//! One body, two drivers: the statements of a verb are written once and compiled for SQLite and for PostgreSQL.
//!
//! What runs them is put on the heap: a future holds room for everything it may wait for, and whoever calls a verb would carry
//! both drivers' share, some kilobytes, and copy it with every layer of a request. It goes there at once: what has a name before
//! keeps its room in the future that it was moved out of.

/// Runs a reading body on a pool of either database.
macro_rules! read {
    ($store:expr, $db:ident => $body:expr) => {
        match &$store.db {
            crate::store::Db::Sqlite(lite) => {
                Box::pin(async {
                    let mut conn = lite.readers.acquire().await?;
                    let $db = &mut *conn;
                    let outcome = async { $body }.await;
                    conn.ended(&outcome);
                    outcome
                })
                .await
            }
            crate::store::Db::Postgres(postgres, _) => {
                Box::pin(async {
                    let mut conn = postgres.acquire().await?;
                    let $db = &mut *conn;
                    let outcome = postgres.answer(async { $body }).await;
                    conn.ended(&outcome);
                    outcome
                })
                .await
            }
        }
    };
}

/// Runs a writing body in one transaction of either database: `write!(self, (arguments) conn => { … Ok(value) })`.
///
/// The arguments are cloned into the body, because the transaction may be run again. An `Err` rolls back; `Ok` is only
/// seen by the caller once the commit stands. The answer that the store keeps with this write, if any, is written first.
macro_rules! write {
    ($store:expr, ($($argument:ident),*) $conn:ident => $body:block) => {
        written!($store, true, ($($argument),*) $conn => $body)
    };
}

/// The same for a body of one statement, which PostgreSQL commits by itself.
macro_rules! write_one {
    ($store:expr, ($($argument:ident),*) $conn:ident => $body:block) => {
        written!($store, false, ($($argument),*) $conn => $body)
    };
}

/// A writing body that is, or is not, several statements.
macro_rules! written {
    ($store:expr, $several:literal, ($($argument:ident),*) $conn:ident => $body:block) => {{
        let kept = $store.keep.clone();
        let settled = match &$store.db {
            crate::store::Db::Sqlite(lite) => {
                let keep = kept.clone();
                $(let $argument = $argument.to_owned();)*
                Box::pin(lite.write(move |$conn| Box::pin(async move { keep!($conn, keep); $body }))).await
            }
            crate::store::Db::Postgres(postgres, _) => {
                let kept = kept.clone();
                let several = $several || kept.is_some();
                Box::pin(postgres.write(several, move |$conn| {
                    let keep = kept.clone();
                    $(let $argument = $argument.to_owned();)*
                    Box::pin(async move { keep!($conn, keep); $body })
                }))
                .await
            }
        };
        crate::store::kept::mark(kept.as_deref(), settled)
    }};
}

/// Runs a statement on the connection of a writing body and tells how many rows it touched: `sql! { conn, "…", bind, … }`.
/// Written with braces, as its sisters below: the statement stays as it is laid out.
macro_rules! sql {
    ($conn:expr, $text:expr $(, $bind:expr)*) => {
        sqlx::query($text)$(.bind($bind))*.execute(&mut *$conn).await?.rows_affected()
    };
}

/// The one value that a statement gives, on the connection of a writing body.
macro_rules! scalar {
    ($conn:expr, $text:expr $(, $bind:expr)*) => {
        sqlx::query_scalar($text)$(.bind($bind))*.fetch_one(&mut *$conn).await?
    };
}

/// The value that a statement gives, if it gives one, on the connection of a writing body.
macro_rules! scalar_if {
    ($conn:expr, $text:expr $(, $bind:expr)*) => {
        sqlx::query_scalar($text)$(.bind($bind))*.fetch_optional(&mut *$conn).await?
    };
}

/// Rows, on the connection of a writing body.
macro_rules! rows {
    ($conn:expr, $text:expr $(, $bind:expr)*) => {
        sqlx::query_as($text)$(.bind($bind))*.fetch_all(&mut *$conn).await?
    };
}

/// The row that a reading statement finds, if any.
macro_rules! read_row {
    ($store:expr, $text:expr $(, $bind:expr)*) => {
        read!($store, db => sqlx::query_as($text)$(.bind($bind))*.fetch_optional(db).await)?
    };
}

/// The one row that a reading statement gives.
macro_rules! read_one {
    ($store:expr, $text:expr $(, $bind:expr)*) => {
        read!($store, db => sqlx::query_as($text)$(.bind($bind))*.fetch_one(db).await)?
    };
}

/// The rows that a reading statement finds.
macro_rules! read_rows {
    ($store:expr, $text:expr $(, $bind:expr)*) => {
        read!($store, db => sqlx::query_as($text)$(.bind($bind))*.fetch_all(db).await)?
    };
}

/// The values that a reading statement finds.
macro_rules! read_scalars {
    ($store:expr, $text:expr $(, $bind:expr)*) => {
        read!($store, db => sqlx::query_scalar($text)$(.bind($bind))*.fetch_all(db).await)?
    };
}

/// The value that a reading statement finds, if any.
macro_rules! read_scalar_if {
    ($store:expr, $text:expr $(, $bind:expr)*) => {
        read!($store, db => sqlx::query_scalar($text)$(.bind($bind))*.fetch_optional(db).await)?
    };
}
