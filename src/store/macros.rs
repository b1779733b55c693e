//! One body, two drivers: the statements of a verb are written once and compiled for SQLite and for PostgreSQL.

/// Runs a reading body on a pool of either database.
macro_rules! read {
    ($store:expr, $db:ident => $body:expr) => {
        match &$store.db {
            crate::store::Db::Sqlite(lite) => {
                let $db = &lite.readers;
                $body
            }
            crate::store::Db::Postgres(pool) => {
                let $db = pool;
                $body
            }
        }
    };
}

/// Runs a writing body in one transaction of either database: `write!(self, (arguments) conn => { … Ok(value) })`.
///
/// The arguments are cloned into the body, because the transaction may be run again. An `Err` rolls back; `Ok` is only
/// seen by the caller once the commit stands.
macro_rules! write {
    ($store:expr, ($($argument:ident),*) $conn:ident => $body:block) => {
        match &$store.db {
            crate::store::Db::Sqlite(lite) => {
                $(let $argument = $argument.to_owned();)*
                lite.write(move |$conn| Box::pin(async move $body)).await
            }
            crate::store::Db::Postgres(pool) => {
                crate::store::postgres::write(pool, move |$conn| {
                    $(let $argument = $argument.to_owned();)*
                    Box::pin(async move $body)
                })
                .await
            }
        }
    };
}
