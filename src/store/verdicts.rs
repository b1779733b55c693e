//! Settlements on SQLite, on the writer's own thread: the parts one by one, each a statement that is prepared once, many users'
//! in one transaction. Who lost a race is settled by itself, in a savepoint of its own, and nobody else pays for it. What they tell
//! is numbered and chained in the same commit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, Statement, params};
use tokio::sync::oneshot;

use super::gathered::firsts;
use super::journal::{self, Note};
use super::kept::KEEP;
use super::parts::{PARTS, Value, draws_on, places};
use super::settlement::{FactorChange, Settlement};
use super::telling::Teller;
use super::{Chain, Contest, Error, Keep, Result, won};

/// A settlement, the answer that is kept with it, and who waits for the commit.
pub(super) struct Settling {
    pub(super) settlement: Box<Settlement>,
    pub(super) keep: Option<Arc<Keep>>,
    pub(super) tell: oneshot::Sender<Result<()>>,
}

/// Each part with its values as SQLite numbers them, and which these are.
static WRITES: LazyLock<Vec<(String, BTreeSet<usize>)>> =
    LazyLock::new(|| PARTS.iter().map(|part| (part.1.replace('$', "?"), draws_on(part))).collect());

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Value::Text(text) => text.as_deref().map(|text| ValueRef::Text(text.as_bytes())),
            Value::Number(number) => number.map(ValueRef::Integer),
            Value::Bytes(bytes) => bytes.map(ValueRef::Blob),
        };
        Ok(ToSqlOutput::Borrowed(value.unwrap_or(ValueRef::Null)))
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) if is_unique_violation(&error) => Error::Conflict(Contest::Row),
            _ => Error::Unavailable(error.to_string()),
        }
    }
}

fn is_unique_violation(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE))
}

/// The part that tells of the others is written behind them all, since only then is it known what stands.
const TELLING: usize = PARTS.len() - 1;

/// Writes settlements. Its statements live as long as the connection.
pub(super) struct Settler<'c> {
    conn: &'c Connection,
    journal: PathBuf,
    writes: Vec<Statement<'c>>,
    keep: Statement<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    teller: Teller<'c>,
}

impl<'c> Settler<'c> {
    /// Of the database at this place. What it writes is chained from when it is known how.
    pub(super) fn new(
        conn: &'c Connection,
        database: &Path,
        chain: Arc<OnceLock<Arc<dyn Chain>>>,
    ) -> Result<Settler<'c>> {
        let prepared = |sql: &str| conn.prepare(&sql.replace('$', "?"));
        Ok(Settler {
            conn,
            journal: journal::place(database),
            writes: WRITES.iter().map(|(sql, _)| conn.prepare(sql)).collect::<rusqlite::Result<_>>()?,
            keep: prepared(KEEP)?,
            begin: prepared("begin immediate")?,
            commit: prepared("commit")?,
            teller: Teller::new(conn, chain)?,
        })
    }

    /// Settles all in one transaction, and tells each of its own outcome once that stands.
    pub(super) fn settle_all(&mut self, all: Vec<Settling>) {
        let outcomes = self.outcomes(&all);
        for (n, settling) in all.into_iter().enumerate() {
            let outcome = match &outcomes {
                Ok(outcomes) => outcomes[n].as_ref().copied().map_err(Error::again),
                Err(error) => Err(error.again()),
            };
            // Whoever no longer waits is not told.
            let _ = settling.tell.send(outcome);
        }
    }

    /// What became of each, or of the commit.
    fn outcomes(&mut self, all: &[Settling]) -> Result<Vec<Result<()>>> {
        self.leave()?;
        self.begin.execute([]).inspect_err(|error| tracing::error!(%error, "cannot begin a write"))?;
        let outcomes = self.write_all(all).and_then(|outcomes| {
            let stands = || all.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
            let told = self.teller.tell_all(stands().filter_map(|(settling, _)| settling.settlement.event.as_ref()));
            // Not a race that anybody lost.
            told.map_err(|error| Error::Unavailable(error.to_string()))?;
            let notes: Vec<Note> = stands().filter_map(|(settling, _)| note(&settling.settlement)).collect();
            journal::append(&self.journal, &notes)?;
            if stands().next().is_some() {
                self.commit.execute([])?;
            }
            Ok(outcomes)
        });
        if let Err(error) = &outcomes {
            tracing::error!(%error, settlements = all.len(), "settlements did not commit");
        }
        self.leave()?;
        outcomes
    }

    /// Takes back what stands in a transaction that is still open.
    fn leave(&self) -> Result<()> {
        match self.conn.is_autocommit() {
            true => Ok(()),
            false => Ok(self.conn.execute_batch("rollback")?),
        }
    }

    /// Writes the first of each user without a way back. Where one of them lost a race, or something broke, all begins anew, and
    /// each has its own way back.
    fn write_all(&mut self, all: &[Settling]) -> Result<Vec<Result<()>>> {
        let firsts = firsts(all.iter().map(|settling| &*settling.settlement));
        let (together, mut alone): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(|n| firsts[*n]);
        let mut outcomes: Vec<Result<()>> = all.iter().map(|_| Ok(())).collect();
        for n in together {
            let Err(error) = self.write(&all[n]) else { continue };
            self.leave()?;
            if all.len() == 1 {
                return Ok(vec![Err(error)]);
            }
            self.begin.execute([])?;
            alone = (0..all.len()).collect();
            break;
        }
        for n in alone {
            self.conn.execute_batch("savepoint one")?;
            outcomes[n] = self.write(&all[n]);
            // What ends the transaction, as a full disk may, ends it for all.
            if let (Err(error), true) = (&outcomes[n], self.conn.is_autocommit()) {
                return Err(error.again());
            }
            self.conn.execute_batch(if outcomes[n].is_ok() {
                "release one"
            } else {
                "rollback to one; release one"
            })?;
        }
        Ok(outcomes)
    }

    /// The parts of one, up to the first that touches no row.
    fn write(&mut self, settling: &Settling) -> Result<()> {
        if let Some(keep) = &settling.keep {
            let done = self.keep.execute(params![
                keep.rp_id.as_str(),
                keep.id,
                keep.user_id,
                keep.turn,
                keep.body_hash,
                keep.answer,
                keep.whole,
                keep.at.0,
                keep.expired.0,
                keep.given_up.0
            ])?;
            won(done as u64, Contest::Kept)?;
        }
        let values = settling.settlement.values();
        for n in places(&settling.settlement).filter(|n| *n != TELLING) {
            let write = &mut self.writes[n];
            for value in &WRITES[n].1 {
                write.raw_bind_parameter(*value, &values[value - 1])?;
            }
            won(write.raw_execute()? as u64, PARTS[n].0)?;
        }
        Ok(())
    }
}

/// What is noted for restorations.
fn note(settlement: &Settlement) -> Option<Note> {
    match &settlement.factor {
        Some(FactorChange::RecoveryCode(set, hash)) => Some(Note::Code(set.as_str().to_owned(), hash.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, Event, Id, Kind, Moment, Timestamp};
    use crate::store::sqlite::trial::{database, walks};
    use crate::store::{ChallengeChange, ThrottleLane};

    /// The cost of a settlement does not grow with the tables.
    #[test]
    fn every_part_finds_its_rows_by_key() {
        let conn = database();
        assert!(PARTS[TELLING].1.contains("into events ("), "the part that tells of the others is the last");
        for (sql, _) in WRITES.iter() {
            assert_eq!(walks(&conn, sql), [""; 0], "{sql}");
        }
    }

    /// Every row that it owes: beside one that lost its challenge two users' settlements stand, and nothing of the third; a second
    /// one of a user is judged by what the first left.
    #[test]
    fn each_settlement_stands_or_falls_by_itself() {
        let conn = database();
        let mut settler = Settler::new(&conn, Path::new("/nowhere"), Arc::default()).expect("statements");
        let at = Moment::new(Timestamp(1), &crate::clock::SystemRng);
        let rp = Id::new(Kind::RelyingParty, &at);
        let settling = |user: &str, challenge| {
            let event = Event::new(&at, &rp, "verification.failed", Actor::Server);
            let nothing = Settlement::telling(Event { user_id: Some(user.to_owned()), ..event });
            let settlement = Settlement { throttle: Some(ThrottleLane::default()), challenge, ..nothing };
            let (tell, told) = oneshot::channel();
            (Settling { settlement: Box::new(settlement), keep: None, tell }, told)
        };
        let lost = |user| settling(user, ChallengeChange::Charge(Id::new(Kind::Challenge, &at), 5));
        let mut settle = |all: Vec<(Settling, oneshot::Receiver<Result<()>>)>| {
            let (all, told): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            settler.settle_all(all);
            let told = told.into_iter().map(|mut told| match told.try_recv().expect("it was told") {
                Ok(()) => None,
                Err(Error::Conflict(contest)) => Some(contest),
                Err(error) => panic!("{error}"),
            });
            told.collect::<Vec<_>>()
        };
        let count = |table: &str| {
            let count = conn.query_row(&format!("select count(*) from {table}"), [], |row| row.get::<_, i64>(0));
            count.expect("a count")
        };

        let good = |user| settling(user, ChallengeChange::None);
        assert_eq!(settle(vec![good("ann"), lost("cat"), good("bob")]), [None, Some(Contest::Challenge), None]);
        assert_eq!((count("events"), count("throttle_lanes")), (2, 2), "nothing of the third stands");
        assert_eq!(settle(vec![lost("dan")]), [Some(Contest::Challenge)]);
        assert_eq!(settle(vec![good("eve"), good("eve")]), [None, Some(Contest::Throttle)], "the lane moved on");
        assert_eq!(settle(vec![good("ann")]), [Some(Contest::Throttle)]);
        assert_eq!((count("events"), count("throttle_lanes")), (3, 3));
        assert!(conn.is_autocommit(), "no transaction is left open");
    }
}
