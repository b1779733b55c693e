//! Events of settlements on SQLite, written behind them in the same commit: each gets its number and its place in its relying
//! party's audit chain.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use super::Chain;
use super::chain::HIGHEST;
use crate::model::{ChainHead, Event, Id, Link, Recorded, Timestamp};

/// So many that have no number yet are read at once.
const YOUNGEST: usize = 64;
/// Events of a relying party that have no number yet, [`YOUNGEST`] of them: what other connections wrote.
const YOUNG: &str =
    "select rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason, client,
     request_id from events where sequence is null and rp_id = $1 order by at, id limit 64";
const NUMBER: &str = "update events set sequence = $3, salt = $4, person = $5, hash = $6 where rp_id = $1 and id = $2";
const TELL: &str = "insert into events (rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason,
     client, request_id, sequence, salt, person, hash)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
const HEAD: &str = "select sequence, hash, sealed_at, mac from chain_heads where rp_id = $1";
const NEW_HEAD: &str = "insert into chain_heads (rp_id, sequence, hash, sealed_at, mac) values ($1, $2, $3, $4, $5)
     on conflict (rp_id) do update set sequence = excluded.sequence, hash = excluded.hash, sealed_at = excluded.sealed_at,
     mac = excluded.mac";

/// Writes events. Its statements live as long as the connection.
pub(super) struct Teller<'c> {
    conn: &'c Connection,
    chain: Arc<OnceLock<Arc<dyn Chain>>>,
    young: Statement<'c>,
    number: Statement<'c>,
    tell: Statement<'c>,
    highest: Statement<'c>,
    head: Statement<'c>,
    new_head: Statement<'c>,
}

impl<'c> Teller<'c> {
    /// What it writes is chained from when it is known how.
    pub(super) fn new(conn: &'c Connection, chain: Arc<OnceLock<Arc<dyn Chain>>>) -> rusqlite::Result<Teller<'c>> {
        let prepared = |sql: &str| conn.prepare(&sql.replace('$', "?"));
        Ok(Teller {
            conn,
            chain,
            young: prepared(YOUNG)?,
            number: prepared(NUMBER)?,
            tell: prepared(TELL)?,
            highest: prepared(HIGHEST)?,
            head: prepared(HEAD)?,
            new_head: prepared(NEW_HEAD)?,
        })
    }
}

impl Teller<'_> {
    /// Writes events, each with its place in its relying party's chain. Where a chain cannot go on its events get no place, and
    /// nobody's verdict waits for that.
    pub(super) fn tell_all<'e>(&mut self, events: impl Iterator<Item = &'e Event>) -> rusqlite::Result<()> {
        let mut of_parties: BTreeMap<&Id, Vec<Recorded>> = BTreeMap::new();
        for event in events {
            of_parties.entry(&event.rp_id).or_default().push(Recorded::from(event));
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
