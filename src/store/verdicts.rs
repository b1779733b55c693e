//! Settlements on SQLite, on the writer's own thread: the parts one by one, each a statement that is prepared once, many users'
//! in one transaction. Who lost a race is settled by itself, in a savepoint of its own, and nobody else pays for it. What they tell
//! is numbered and chained in the same commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Statement, params};
use tokio::sync::oneshot;

use super::gathered::firsts;
use super::journal::{self, Note};
use super::kept::KEEP;
use super::parts::{PARTS, Value, draws_on, places};
use super::settlement::{FactorChange, Settlement};
use super::{Chain, Contest, Error, Keep, Result, text, won};
use crate::model::{ChainHead, Event, Id, Link, Recorded, Timestamp};

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

/// So many that have no number yet are read at once.
const YOUNGEST: usize = 64;
/// Events of a relying party that have no number yet: what other connections wrote.
const YOUNG: &str =
    "select rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason, client,
     request_id from events where sequence is null and rp_id = $1 order by at, id limit 64";
const NUMBER: &str = "update events set sequence = $3, salt = $4, person = $5, hash = $6 where rp_id = $1 and id = $2";
const TELL: &str = "insert into events (rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason,
     client, request_id, sequence, salt, person, hash)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
const HIGHEST: &str = "select coalesce(max(sequence), 0) from events where rp_id = $1 and sequence is not null";
const HEAD: &str = "select sequence, hash, sealed_at, mac from chain_heads where rp_id = $1";
const NEW_HEAD: &str = "insert into chain_heads (rp_id, sequence, hash, sealed_at, mac) values ($1, $2, $3, $4, $5)
     on conflict (rp_id) do update set sequence = excluded.sequence, hash = excluded.hash, sealed_at = excluded.sealed_at,
     mac = excluded.mac";

/// Writes settlements. Its statements live as long as the connection.
pub(super) struct Settler<'c> {
    conn: &'c Connection,
    journal: PathBuf,
    chain: Arc<OnceLock<Arc<dyn Chain>>>,
    writes: Vec<Statement<'c>>,
    keep: Statement<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    young: Statement<'c>,
    number: Statement<'c>,
    tell: Statement<'c>,
    highest: Statement<'c>,
    head: Statement<'c>,
    new_head: Statement<'c>,
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
            chain,
            writes: WRITES.iter().map(|(sql, _)| conn.prepare(sql)).collect::<rusqlite::Result<_>>()?,
            keep: prepared(KEEP)?,
            begin: prepared("begin immediate")?,
            commit: prepared("commit")?,
            young: prepared(YOUNG)?,
            number: prepared(NUMBER)?,
            tell: prepared(TELL)?,
            highest: prepared(HIGHEST)?,
            head: prepared(HEAD)?,
            new_head: prepared(NEW_HEAD)?,
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
            let told = self.tell_all(stands().filter_map(|(settling, _)| settling.settlement.event.as_ref()));
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

impl Settler<'_> {
    /// Writes events, each with its place in its relying party's chain. Where a chain cannot go on its events get no place, and
    /// nobody's verdict waits for that.
    fn tell_all<'e>(&mut self, events: impl Iterator<Item = &'e Event>) -> rusqlite::Result<()> {
        let mut of_parties: BTreeMap<&Id, Vec<Recorded>> = BTreeMap::new();
        for event in events {
            of_parties.entry(&event.rp_id).or_default().push(recorded(event));
        }
        for (rp, new) in of_parties {
            let Some((chain, (head, mut events))) = self.end_of(rp)? else {
                new.iter().try_for_each(|event| self.tell(event))?;
                continue;
            };
            // What was committed before comes before: where more than this waits, the new ones wait, too.
            let waited = events.len();
            let (now, later) = if waited < YOUNGEST { (new, Vec::new()) } else { (Vec::new(), new) };
            events.extend(now);
            let end = chain.extend(head.as_ref(), rp, &mut events);
            for event in events.iter().take(waited) {
                let Some(Link { sequence, salt, person, hash }) = &event.link else { continue };
                self.number.execute(params![rp.as_str(), event.id.as_str(), sequence, salt, person, hash])?;
            }
            events.iter().skip(waited).chain(&later).try_for_each(|event| self.tell(event))?;
            if let Some(end) = end {
                self.new_head.execute(params![rp.as_str(), end.sequence, end.hash, end.sealed_at.0, end.mac])?;
            }
        }
        Ok(())
    }

    /// Where a relying party's chain ends, and what waits behind it; `None` where it is not known how to go on, or the end does not
    /// read or stands before events that have a number: who seals in the background tells of that. What ends the transaction, as a
    /// broken disk may, is an error: events would stand that tell of nothing.
    fn end_of(&mut self, rp: &Id) -> rusqlite::Result<Option<(Arc<dyn Chain>, End)>> {
        let Some(chain) = self.chain.get().cloned() else { return Ok(None) };
        let mut read = || {
            let head = self.head.query_row([rp.as_str()], |row| head(rp, row)).optional()?;
            let highest: i64 = self.highest.query_row([rp.as_str()], |row| row.get(0))?;
            if highest > head.as_ref().map_or(0, |head| head.sequence) {
                return Ok(None);
            }
            let young = self.young.query_map([rp.as_str()], young)?.collect::<rusqlite::Result<_>>()?;
            Ok(Some((head, young)))
        };
        let found: rusqlite::Result<Option<End>> = read();
        match found {
            Err(error) if self.conn.is_autocommit() => Err(error),
            Err(error) => {
                tracing::error!(%error, %rp, "the audit chain's end does not read");
                Ok(None)
            }
            Ok(end) => Ok(end.map(|end| (chain, end))),
        }
    }

    fn tell(&mut self, event: &Recorded) -> rusqlite::Result<()> {
        let link = event.link.as_ref();
        self.tell.execute(params![
            event.rp_id.as_str(),
            event.id.as_str(),
            event.at.0,
            event.kind,
            event.actor,
            event.user_id,
            event.method,
            event.factor_id,
            event.challenge_id,
            event.session_id,
            event.outcome,
            event.reason,
            event.client,
            event.request_id,
            link.map(|l| l.sequence),
            link.map(|l| &l.salt),
            link.map(|l| &l.person),
            link.map(|l| &l.hash),
        ])?;
        Ok(())
    }
}

/// Where a chain ends, if it has begun, and what waits behind it.
type End = (Option<ChainHead>, Vec<Recorded>);

/// An event as it will be read.
fn recorded(event: &Event) -> Recorded {
    let id = |id: &Option<Id>| id.as_ref().map(Id::to_string);
    Recorded {
        rp_id: event.rp_id.clone(),
        id: event.id.clone(),
        at: event.at,
        kind: event.kind.to_owned(),
        actor: event.actor.as_str().to_owned(),
        user_id: event.user_id.clone(),
        method: event.method.map(|method| method.as_str().to_owned()),
        factor_id: id(&event.factor_id),
        challenge_id: id(&event.challenge_id),
        session_id: id(&event.session_id),
        outcome: event.outcome.as_str().to_owned(),
        reason: event.reason.map(str::to_owned),
        client: event.source().as_ref().map(text),
        request_id: event.request_id.clone(),
        link: None,
    }
}

fn young(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    Ok(Recorded {
        rp_id: Id::stored(row.get(0)?),
        id: Id::stored(row.get(1)?),
        at: Timestamp(row.get(2)?),
        kind: row.get(3)?,
        actor: row.get(4)?,
        user_id: row.get(5)?,
        method: row.get(6)?,
        factor_id: row.get(7)?,
        challenge_id: row.get(8)?,
        session_id: row.get(9)?,
        outcome: row.get(10)?,
        reason: row.get(11)?,
        client: row.get(12)?,
        request_id: row.get(13)?,
        link: None,
    })
}

fn head(rp: &Id, row: &Row<'_>) -> rusqlite::Result<ChainHead> {
    Ok(ChainHead {
        rp_id: rp.clone(),
        sequence: row.get(0)?,
        hash: row.get(1)?,
        sealed_at: Timestamp(row.get(2)?),
        mac: row.get(3)?,
    })
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
            let nothing = Settlement::nothing(rp.clone(), user.to_owned(), at.now, event);
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
