//! Settlements on SQLite: each is a row that is put into a view, whose trigger writes the parts one by one. One statement settles
//! one user or many. A part that touches no row was lost to somebody faster: the trigger says which, and then nothing of the
//! whole statement stands.

use std::sync::LazyLock;

use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};

use super::gathered::MOST;
use super::journal::{Note, Noting};
use super::parts::{PARTS, Part, VALUES, Value, bits, selecting};
use super::settlement::{FactorChange, Settlement};
use super::{Contest, Error, Result};

/// What the writer's connection is told once: the view and its trigger, which live as long as the connection does.
pub(super) static VIEW: LazyLock<String> = LazyLock::new(|| {
    let nothing = vec!["null"; VALUES + 1].join(", ");
    let parts: String =
        PARTS.iter().enumerate().map(|(n, part)| format!("{};\n{};\n", of_row(n, part), check(n))).collect();
    format!(
        "create temp view settle ({}) as select {nothing};
         create temp trigger settled instead of insert on settle when new.parts <> 0 begin\n{parts}end",
        columns()
    )
});

/// Settles 1, 2, 4 … at once; rows that are left over have no part. Alone, and as a transaction of its own.
static SETTLE: LazyLock<Vec<[String; 2]>> = LazyLock::new(|| {
    // Numbered places would be looked up by their names, each among all.
    let row = format!("({})", ["?"; VALUES + 1].join(", "));
    let sizes = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size <= MOST);
    let text = |size| format!("insert into settle values {}", vec![row.as_str(); size].join(", "));
    sizes.map(text).map(|one| [format!("begin immediate;\n{one};\ncommit"), one]).collect()
});

/// The columns of the view: which parts each has as bits, then its values in their order.
fn columns() -> String {
    std::iter::once("parts".to_owned()).chain((1..=VALUES).map(|n| format!("v{n}"))).collect::<Vec<_>>().join(", ")
}

/// Whether the row that is put in has the part with this number.
fn has(n: usize) -> String {
    format!("(new.parts & {}) <> 0", 1 << n)
}

/// A part for the row that is put in, if it has it.
fn of_row(n: usize, (_, sql): &Part) -> String {
    let (sql, has) = (sql.replace('$', "new.v"), has(n));
    selecting(&sql, &format!("where {has}")).unwrap_or_else(|| sql.replacen("where ", &format!("where {has} and "), 1))
}

/// Whether the part before touched its row.
fn check(n: usize) -> String {
    format!("select raise(abort, 'lost {n}') where {} and changes() <> 1", has(n))
}

/// How settling went that did not stand.
pub(super) enum Lost {
    /// One of them lost this to somebody faster.
    To(Contest),
    /// The database.
    Broken(sqlx::Error),
}

impl From<Lost> for Error {
    fn from(lost: Lost) -> Error {
        match lost {
            Lost::To(contest) => contest.into(),
            Lost::Broken(error) => error.into(),
        }
    }
}

/// Settles all, or nothing of all. With `whole` in a transaction of its own, which is still open where it fails; otherwise in
/// that of the writer.
pub(super) async fn settle<'s>(
    conn: &mut SqliteConnection,
    all: impl ExactSizeIterator<Item = &'s Settlement>,
    whole: bool,
) -> std::result::Result<(), Lost> {
    let size = all.len().next_power_of_two();
    let left = size - all.len();
    let values = values(all, left).map_err(|error| Lost::Broken(sqlx::Error::Encode(error.into())))?;
    let [transaction, alone] = &SETTLE[size.trailing_zeros() as usize];
    let statement = if whole { transaction } else { alone };
    let done = sqlx::query_with(AssertSqlSafe(statement.as_str()), values).execute(conn).await;
    done.map(drop).map_err(lost)
}

fn values<'s>(all: impl Iterator<Item = &'s Settlement>, left: usize) -> Result<SqliteArguments> {
    let mut values = SqliteArguments::default();
    for settlement in all {
        Value::Number(Some(bits(settlement))).add_to(&mut values)?;
        settlement.values().into_iter().try_for_each(|value| value.add_to(&mut values))?;
    }
    for _ in 0..left {
        Value::Number(Some(0)).add_to(&mut values)?;
        (0..VALUES).try_for_each(|_| Value::Number(None).add_to(&mut values))?;
    }
    Ok(values)
}

/// What an error says was lost: a part that the trigger names, or a row that was there already.
fn lost(error: sqlx::Error) -> Lost {
    let Some(database) = error.as_database_error() else { return Lost::Broken(error) };
    let place = database.message().strip_prefix("lost ").and_then(|place| place.parse::<usize>().ok());
    match place.and_then(|place| PARTS.get(place)) {
        Some((contest, _)) => Lost::To(*contest),
        None if database.is_unique_violation() => Lost::To(Contest::Row),
        None => Lost::Broken(error),
    }
}

/// Settles one in the writer's transaction. A recovery code is noted for restorations too.
pub(super) async fn settle_one(conn: &mut SqliteConnection, settlement: &Settlement) -> Result<()> {
    settle(conn, std::iter::once(settlement), false).await?;
    match &settlement.factor {
        Some(FactorChange::RecoveryCode(set, hash)) => {
            conn.note(vec![Note::Code(set.as_str().to_owned(), hash.clone())]).await
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;
    use crate::model::{Actor, Event, Id, Kind, Moment, Timestamp};
    use crate::store::{ChallengeChange, ThrottleLane};

    async fn writer() -> SqliteConnection {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.expect("it opens");
        crate::store::MIGRATIONS.run(&mut conn).await.expect("the schema");
        sqlx::query(AssertSqlSafe(VIEW.as_str())).execute(&mut conn).await.expect("the view");
        conn
    }

    /// Nothing is walked: the cost of a settlement does not grow with the tables.
    #[tokio::test]
    async fn every_part_finds_its_rows_by_key() {
        let mut conn = writer().await;
        for (n, part) in PARTS.iter().enumerate() {
            let alone = of_row(n, part).replace("new.parts", "?99").replace("new.v", "?");
            let plan = format!("explain query plan {alone}");
            let steps: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(AssertSqlSafe(plan)).fetch_all(&mut conn).await.expect("a plan");
            let walked = |step: &str| step.starts_with("SCAN") && step != "SCAN CONSTANT ROW";
            assert!(!steps.iter().any(|(_, _, _, step)| walked(step)), "{alone}\n{steps:?}");
        }
    }

    /// Every row that it owes: two users' settlements stand as one; with a third that lost its challenge none of them does, it is
    /// said what was lost, and the transaction goes on.
    #[tokio::test]
    async fn settlements_stand_together_or_not_at_all() {
        let mut conn = writer().await;
        let at = Moment::new(Timestamp(1), &crate::clock::SystemRng);
        let rp = Id::new(Kind::RelyingParty, &at);
        let settlement = |user: &str, challenge| {
            let event = Event::new(&at, &rp, "verification.failed", Actor::Server);
            let nothing = Settlement::nothing(rp.clone(), user.to_owned(), at.now, event);
            Settlement { throttle: Some(ThrottleLane::default()), challenge, ..nothing }
        };
        let good = || vec![settlement("ann", ChallengeChange::None), settlement("bob", ChallengeChange::None)];
        let lost = settlement("cat", ChallengeChange::Charge(Id::new(Kind::Challenge, &at), 5));
        let count = "select count(*) from events";

        sqlx::query("begin").execute(&mut conn).await.expect("begun");
        let all = [good(), vec![lost]].concat();
        let outcome = settle(&mut conn, all.iter(), false).await;
        assert!(matches!(outcome, Err(Lost::To(Contest::Challenge))));
        let found: i64 = sqlx::query_scalar(count).fetch_one(&mut conn).await.expect("a count");
        assert_eq!(found, 0, "nothing of all stands");
        assert!(settle(&mut conn, good().iter(), false).await.is_ok());
        sqlx::query("commit").execute(&mut conn).await.expect("the transaction is still open");
        let found: i64 = sqlx::query_scalar(count).fetch_one(&mut conn).await.expect("a count");
        assert_eq!(found, 2);
        let again = settle(&mut conn, good().iter(), true).await;
        assert!(matches!(again, Err(Lost::To(Contest::Throttle))), "the lanes moved on");
        sqlx::query("rollback").execute(&mut conn).await.expect("a transaction of its own is still open");
    }
}
