//! Settlements of different users, settled as one on PostgreSQL (SQLite's writer is in `verdicts`). Settlements that write the
//! same parts share one statement, in which every part is one write over a table of their values, and each must touch a row for
//! each settlement. Where one of them lost a race, nothing of all stands, and each is
//! settled by itself: who wins, and what is said of it, is decided there alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe};
use tokio::task::JoinSet;

use super::gather::{Waiting, tell};
use super::parts::{PARTS, Part, VALUES, Value, bits, draws_on};
use super::postgres::{Postgres, RETRIES};
use super::settlement::Settlement;
use super::{Error, settlement};

/// The most that are settled as one.
pub(super) const MOST: usize = 64;

/// The statement for settlements that write these parts, and the numbers of the values that it draws on.
struct Statement {
    text: Arc<str>,
    values: Vec<usize>,
}

/// The statement for these parts, as bits. There are as many as verdicts differ in what they write.
fn statement(bits: i64) -> Arc<Statement> {
    static KNOWN: LazyLock<Mutex<HashMap<i64, Arc<Statement>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(known.entry(bits).or_insert_with(|| Arc::new(put_together(bits))))
}

/// Every value is an array with a place for each settlement. Only the first array is read as a table: PostgreSQL keeps a store for
/// each that is. It takes such a table for a short one, so that no plan walks another table to meet it.
///
/// Settlements that would have to wait for another's rows are settled by themselves.
fn put_together(bits: i64) -> Statement {
    let parts: Vec<(usize, &Part)> = PARTS.iter().enumerate().filter(|(n, _)| bits & 1 << n != 0).collect();
    let values: BTreeSet<usize> = parts.iter().flat_map(|(_, part)| draws_on(part)).collect();
    let values: Vec<usize> = values.into_iter().collect();
    let others = values.iter().enumerate().skip(1);
    let others: String =
        others.map(|(place, n)| format!(", (${}::{}[])[u.place] as v{n}", place + 1, TYPES[n - 1])).collect();
    let writes: String = parts.iter().map(|(n, part)| format!(", p{n} as ({} returning 1)", together(part))).collect();
    let done: Vec<String> = parts.iter().map(|(n, _)| format!("select 1 from p{n}")).collect();
    let text = format!(
        "with gathered as (
           select u.v1{others} from (select set_config('lock_timeout', '250ms', true)) c
           cross join unnest($1::text[]) with ordinality u (v1, place) where u.place > 0 and u.v1 > ''){writes}
         select cast(case when (select count(*) from ({}) d) <> {} * cardinality($1) then 'lost' else '1' end as bigint)",
        done.join(" union all "),
        parts.len()
    );
    Statement { text: text.into(), values }
}

/// A statement for each part by itself.
pub(super) fn statements() -> impl Iterator<Item = String> {
    (0..PARTS.len()).map(|n| put_together(1 << n).text.to_string())
}

/// The types of the values, as PostgreSQL has to be told them.
const TYPES: [&str; VALUES] = {
    const T: &str = "text";
    const N: &str = "bigint";
    const B: &str = "bytea";
    [
        T, T, N, T, N, T, N, T, T, N, T, B, N, N, T, N, T, T, T, T, N, N, B, T, T, T, T, B, T, T, N, T, T, T, T, T, T,
        T, T, T, T, T, N, B, N, B, B, T, B, N, N, T, B,
    ]
};

/// A part for every settlement.
fn together((_, sql): &Part) -> String {
    let sql = sql.replace('$', "s.v");
    if let Some(insert) = selecting(&sql, "from gathered s") {
        return insert;
    }
    let table = if sql.starts_with("delete ") { "using" } else { "from" };
    sql.replacen("where ", &format!("{table} gathered s where "), 1)
}

/// A part that inserts values, as one that inserts what is selected, where `rest` says from what; `None` for any other part.
fn selecting(sql: &str, rest: &str) -> Option<String> {
    let (head, values) = sql.split_once("values (")?;
    // The values hold no parenthesis.
    let (values, tail) = values.split_once(')')?;
    Some(format!("{head}select {values} {rest}{tail}"))
}

/// Which settlements are the first of their user: the others have to wait for them.
pub(super) fn firsts<'s>(all: impl Iterator<Item = &'s Settlement>) -> Vec<bool> {
    let mut seen = HashSet::new();
    all.map(|settlement| seen.insert((settlement.rp_id.as_str(), settlement.user_id.as_str()))).collect()
}

/// Settles all that write the same as one. Who has to be settled by itself is, and nobody waits for that but its own caller.
pub(super) async fn on_postgres(postgres: &Postgres, mut all: Vec<Waiting<Box<Settlement>, ()>>) {
    // In one order on every node, so that none waits for the other in a circle.
    all.sort_by(|(a, _), (b, _)| (&a.rp_id, &a.user_id).cmp(&(&b.rp_id, &b.user_id)));
    let firsts = firsts(all.iter().map(|(settlement, _)| &**settlement));
    let mut alike: BTreeMap<i64, Vec<_>> = BTreeMap::new();
    for (one, first) in all.into_iter().zip(firsts) {
        match first {
            true => alike.entry(bits(&one.0)).or_default().push(one),
            false => drop(tokio::spawn(alone(postgres.clone(), one, RETRIES))),
        }
    }
    // Each kind on a connection of its own, since its commit is its own too.
    let kinds = alike.into_iter().map(|(bits, some)| as_one(postgres.clone(), bits, some));
    kinds.collect::<JoinSet<()>>().join_all().await;
}

async fn alone(postgres: Postgres, (settlement, waits): Waiting<Box<Settlement>, ()>, retries: usize) {
    tell(waits, settlement::on_postgres(&postgres, &settlement, None, retries).await);
}

/// Settles those that write the same parts.
async fn as_one(postgres: Postgres, bits: i64, alike: Vec<Waiting<Box<Settlement>, ()>>) {
    match write(&postgres, bits, &alike).await {
        Ok(()) => alike.into_iter().for_each(|(_, waits)| tell(waits, Ok(()))),
        Err(error) if took_nothing(&error) => {
            let retries = RETRIES - usize::from(matches!(Error::from(error), Error::Unserialised));
            for one in alike {
                tokio::spawn(alone(postgres.clone(), one, retries));
            }
        }
        // Nobody knows what it took: to try again could charge a guess twice.
        Err(error) => {
            let error = Error::from(error);
            alike.into_iter().for_each(|(_, waits)| tell(waits, Err(error.again())));
        }
    }
}

/// Whether the database says for sure that the transaction did not stand: a part was lost or met a row, rows were not to be had
/// in time or in order. A server that ends says so too, perhaps after the commit.
fn took_nothing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code());
    code.is_some_and(|c| c == "57014" || ["22", "23", "40", "55"].iter().any(|class| c.starts_with(class)))
}

async fn write(
    postgres: &Postgres,
    bits: i64,
    alike: &[Waiting<Box<Settlement>, ()>],
) -> std::result::Result<(), sqlx::Error> {
    let statement = statement(bits);
    let mut columns: Vec<Vec<Value<'_>>> = statement.values.iter().map(|_| Vec::with_capacity(alike.len())).collect();
    for (settlement, _) in alike {
        let mut row = settlement.values();
        for (column, n) in columns.iter_mut().zip(&statement.values) {
            column.push(std::mem::replace(&mut row[n - 1], Value::Number(None)));
        }
    }
    let mut values = PgArguments::default();
    columns.into_iter().try_for_each(|column| add(&mut values, column)).map_err(sqlx::Error::Encode)?;
    let mut conn = postgres.acquire().await?;
    let query = sqlx::query_with(AssertSqlSafe(Arc::clone(&statement.text)), values);
    let written = postgres.answer(query.execute(&mut *conn)).await;
    conn.ended(&written);
    written.map(drop)
}

/// Adds a column as an array; its values are all of one type.
fn add(values: &mut PgArguments, column: Vec<Value<'_>>) -> std::result::Result<(), BoxDynError> {
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
        for part in PARTS {
            let text = together(part);
            assert!(text.contains(" gathered s") && !text.contains('$'), "{text}");
        }
    }

    /// A value that no part needs is not sent, and one whose number begins like another's is not taken for it.
    #[test]
    fn only_values_that_are_drawn_on_are_sent() {
        let bit = |part: &str| 1 << PARTS.iter().position(|(_, sql)| sql.starts_with(part)).expect("a part");
        assert_eq!(put_together(bit("delete from prompts")).values, [1, 2, 17, 18, 19]);
        let statement = put_together(bit("update throttle_lanes set version = $5"));
        assert_eq!(statement.values, [1, 2, 4, 5, 6, 7, 43]);
        assert!(statement.text.contains("($7::bigint[])[u.place] as v43"), "{}", statement.text);
    }
}
