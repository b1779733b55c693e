//! Settlements of different users, settled as one: which may be, and the statement on PostgreSQL (that of SQLite is in
//! `trigger`). There every part is one statement over a table of their values, and each
//! must touch a row for each settlement that has the part. Where one of them lost a race, nothing of all stands, and each is
//! settled by itself: who wins, and what is said of it, is decided there alone.

use std::collections::HashSet;
use std::sync::LazyLock;

use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe};

use super::gather::{Waiting, tell};
use super::parts::{PARTS, Part, VALUES, Value, bits, columns, has, selecting};
use super::postgres::Postgres;
use super::settlement::{FactorChange, Settlement};
use super::{Error, settlement};

/// The most that are settled as one.
pub(super) const MOST: usize = 64;

/// The parts on PostgreSQL. A settlement that would have to wait for another's rows lets all be settled by themselves.
static STATEMENT: LazyLock<String> = LazyLock::new(|| {
    let arrays: Vec<String> = TYPES.iter().enumerate().map(|(n, kind)| format!("${}::{kind}[]", n + 1)).collect();
    let (mut writes, mut losses) = (String::new(), String::new());
    for (n, part) in PARTS.iter().enumerate() {
        writes.push_str(&format!(", p{n} as ({} returning 1)", together(n, part)));
        losses.push_str(&format!(
            " when (select count(*) from p{n}) <> (select count(*) from gathered s where {}) then 'lost {n}'",
            has("s", n)
        ));
    }
    format!(
        "with gathered ({}) as (
           select u.* from (select set_config('lock_timeout', '250ms', true)) c cross join unnest({}) u){writes}
         select cast(case{losses} else '1' end as bigint)",
        columns(),
        arrays.join(", ")
    )
});

/// The types of the table's columns, as PostgreSQL has to be told them: bits, then the values.
const TYPES: [&str; VALUES + 1] = {
    const T: &str = "text";
    const N: &str = "bigint";
    const B: &str = "bytea";
    [
        N, T, T, N, T, N, T, N, T, T, N, T, B, N, N, T, N, T, T, T, T, N, N, B, T, T, T, T, B, T, T, N, T, T, T, T, T,
        T, T, T, T, T, T, N,
    ]
};

/// A part for every settlement that has it.
fn together(n: usize, (_, sql): &Part) -> String {
    let (sql, has) = (of_row(sql), has("s", n));
    if let Some(insert) = selecting(&sql, &format!("from gathered s where {has}")) {
        return insert;
    }
    let (head, condition) = sql.split_once("where ").unwrap_or((&sql, "1 = 1"));
    if head.starts_with("update ") {
        return format!("{head}from gathered s where {has} and {condition}");
    }
    // A delete is by the columns of a key, each equal to a value.
    let (keys, values): (Vec<_>, Vec<_>) = condition.split(" and ").filter_map(|equal| equal.split_once(" = ")).unzip();
    format!("{head}where ({}) in (select {} from gathered s where {has})", keys.join(", "), values.join(", "))
}

/// A part whose values are a row of the table.
fn of_row(sql: &str) -> String {
    sql.replace('$', "s.v")
}

/// Whether a settlement can be settled with others: a recovery code is noted for restorations too.
pub(super) fn may_join(settlement: &Settlement) -> bool {
    !matches!(settlement.factor, Some(FactorChange::RecoveryCode(..)))
}

/// The first settlement of each user, and what has to wait for them.
pub(super) fn one_of_each<T>(all: Vec<T>, of: impl Fn(&T) -> &Settlement) -> (Vec<T>, Vec<T>) {
    let mut seen = HashSet::new();
    all.into_iter().partition(|item| {
        let settlement = of(item);
        seen.insert((settlement.rp_id.clone(), settlement.user_id.clone()))
    })
}

/// Settles all, as one where that can be. What has to be settled by itself is, and nobody waits for it but its own caller.
pub(super) async fn on_postgres(postgres: &Postgres, mut all: Vec<Waiting<Settlement, ()>>) {
    // In one order on every node, so that none waits for the other in a circle.
    all.sort_by(|(a, _), (b, _)| (&a.rp_id, &a.user_id).cmp(&(&b.rp_id, &b.user_id)));
    let (together, mut alone) = one_of_each(all, |(settlement, _)| settlement);
    if together.len() < 2 {
        alone.extend(together);
    } else {
        match as_one(postgres, together.iter().map(|(settlement, _)| settlement)).await {
            Ok(()) => together.into_iter().for_each(|(_, waits)| tell(waits, Ok(()))),
            Err(error) if took_nothing(&error) => alone.extend(together),
            // Nobody knows what it took: to try again could charge a guess twice.
            Err(error) => {
                let error = Error::from(error);
                together.into_iter().for_each(|(_, waits)| tell(waits, Err(error.again())));
            }
        }
    }
    for (settlement, waits) in alone {
        let postgres = postgres.clone();
        tokio::spawn(async move { tell(waits, settlement::on_postgres(&postgres, &settlement, None).await) });
    }
}

/// Whether the database says for sure that the transaction did not stand: a part was lost or met a row, rows were not to be had
/// in time or in order. A server that ends says so too, perhaps after the commit.
fn took_nothing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code());
    code.is_some_and(|c| c == "57014" || ["22", "23", "40", "55"].iter().any(|class| c.starts_with(class)))
}

async fn as_one<'s>(
    postgres: &Postgres,
    all: impl Iterator<Item = &'s Settlement>,
) -> std::result::Result<(), sqlx::Error> {
    let mut columns: Vec<Vec<Value>> = TYPES.iter().map(|_| Vec::new()).collect();
    for settlement in all {
        let row = std::iter::once(Value::Number(Some(bits(settlement)))).chain(settlement.values());
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let mut values = PgArguments::default();
    columns.into_iter().try_for_each(|column| add(&mut values, column)).map_err(sqlx::Error::Encode)?;
    let mut conn = postgres.acquire().await?;
    let query = sqlx::query_with(AssertSqlSafe(STATEMENT.as_str()), values);
    postgres.answer(query.execute(&mut *conn)).await.map(drop)
}

/// Adds a column as an array; its values are all of one type.
fn add(values: &mut PgArguments, column: Vec<Value>) -> std::result::Result<(), BoxDynError> {
    macro_rules! array {
        ($kind:path) => {
            values.add(column.into_iter().map(|v| if let $kind(v) = v { v } else { None }).collect::<Vec<_>>())
        };
    }
    match column.first() {
        Some(Value::Text(_)) => array!(Value::Text),
        Some(Value::Number(_)) => array!(Value::Number),
        Some(Value::Bytes(_)) => array!(Value::Bytes),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_draws_on_the_table_alone() {
        for (n, part) in PARTS.iter().enumerate() {
            let text = together(n, part);
            assert!(text.contains("from gathered s where") && !text.contains('$'), "{text}");
        }
        assert_eq!(together(7, &PARTS[7]).matches("s.v").count(), 5, "every column of a prompt's key");
    }
}
