//! Audit events after they were written: numbered and chained by a sealer where SQLite's writer did not do it at once (`verdicts`),
//! read back by number. How they are chained is not known here.

use std::sync::{Arc, OnceLock};

use sqlx::{AssertSqlSafe, ColumnIndex, Decode, FromRow, Row, Type};

use super::{Contest, Db, Error, Result, Store, won};
use crate::model::{ChainHead, Id, Link, Recorded, Timestamp};

struct EventRow {
    rp_id: String,
    id: String,
    at: i64,
    kind: String,
    actor: String,
    user_id: Option<String>,
    method: Option<String>,
    factor_id: Option<String>,
    challenge_id: Option<String>,
    session_id: Option<String>,
    outcome: String,
    reason: Option<String>,
    client: Option<String>,
    request_id: Option<String>,
    sequence: Option<i64>,
    salt: Option<Vec<u8>>,
    person: Option<Vec<u8>>,
    hash: Option<Vec<u8>>,
}

/// By place, as every statement here selects them: very many are read, and a name would be looked up for each column.
impl<'r, R: Row> FromRow<'r, R> for EventRow
where
    usize: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<EventRow> {
        Ok(EventRow {
            rp_id: row.try_get(0)?,
            id: row.try_get(1)?,
            at: row.try_get(2)?,
            kind: row.try_get(3)?,
            actor: row.try_get(4)?,
            user_id: row.try_get(5)?,
            method: row.try_get(6)?,
            factor_id: row.try_get(7)?,
            challenge_id: row.try_get(8)?,
            session_id: row.try_get(9)?,
            outcome: row.try_get(10)?,
            reason: row.try_get(11)?,
            client: row.try_get(12)?,
            request_id: row.try_get(13)?,
            sequence: row.try_get(14)?,
            salt: row.try_get(15)?,
            person: row.try_get(16)?,
            hash: row.try_get(17)?,
        })
    }
}

impl EventRow {
    fn model(self) -> Recorded {
        // A number without its hashes is a row that somebody else wrote: it is read as one that does not fit.
        let link = self.sequence.map(|sequence| Link {
            sequence,
            salt: self.salt,
            person: self.person.unwrap_or_default(),
            hash: self.hash.unwrap_or_default(),
        });
        Recorded {
            rp_id: Id::stored(self.rp_id),
            id: Id::stored(self.id),
            at: Timestamp(self.at),
            kind: self.kind,
            actor: self.actor,
            user_id: self.user_id,
            method: self.method,
            factor_id: self.factor_id,
            challenge_id: self.challenge_id,
            session_id: self.session_id,
            outcome: self.outcome,
            reason: self.reason,
            client: self.client,
            request_id: self.request_id,
            link,
        }
    }
}

/// What is farther ahead than this, in seconds, was told by a clock that was.
const AHEAD: i64 = 60;

/// The highest number of a relying party's events.
pub(super) const HIGHEST: &str =
    "select coalesce(max(sequence), 0) from events where rp_id = $1 and sequence is not null";

#[derive(FromRow)]
struct HeadRow {
    rp_id: String,
    sequence: i64,
    hash: Vec<u8>,
    sealed_at: i64,
    mac: Vec<u8>,
}

/// Which events are wanted.
#[derive(Clone, Debug)]
pub struct EventQuery {
    /// Only behind this number.
    pub behind: i64,
    /// Only up to this number.
    pub up_to: i64,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only of this user.
    pub user_id: Option<String>,
    /// Only from this time on.
    pub after: Timestamp,
    /// Only before this time.
    pub before: Timestamp,
    /// At most so many.
    pub limit: i64,
}

impl EventQuery {
    /// All behind this number.
    pub fn behind(behind: i64, limit: i64) -> EventQuery {
        let (after, before) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        EventQuery { behind, up_to: i64::MAX, kind: None, user_id: None, after, before, limit }
    }
}

/// How many events get their links by one statement.
const ROWS: usize = 64;
/// Values of each.
const LINK: usize = 11;

/// The statement that links so many events of a relying party, each still as it was read. Their rows are there, so that each is
/// found by its key, one by one: no planner can think of walking the table instead.
///
/// Numbered places, which PostgreSQL needs, are looked up by their names in SQLite's driver, each among all. Put together once where
/// it is for as many as there may be, which most are.
fn linking(rows: usize, numbered: bool) -> Arc<str> {
    static WHOLE: [OnceLock<Arc<str>>; 2] = [OnceLock::new(), OnceLock::new()];
    match rows {
        ROWS => Arc::clone(WHOLE[usize::from(numbered)].get_or_init(|| linking_some(rows, numbered))),
        fewer => linking_some(fewer, numbered),
    }
}

fn linking_some(rows: usize, numbered: bool) -> Arc<str> {
    let place = |n: usize| if numbered { format!("${n}") } else { "?".to_owned() };
    let row = |n: usize| (1..=LINK).map(|value| place(value + LINK * n)).collect::<Vec<_>>().join(", ");
    let rows: Vec<String> = (0..rows).map(|n| format!("({})", row(n))).collect();
    format!(
        "insert into events (rp_id, id, at, kind, actor, outcome, user_id, sequence, salt, person, hash) values {}
         on conflict (rp_id, id) do update set sequence = excluded.sequence, salt = excluded.salt, person = excluded.person,
           hash = excluded.hash
         where events.sequence is null and coalesce(events.user_id, '') = coalesce(excluded.user_id, '')",
        rows.join(", ")
    )
    .into()
}

impl Store {
    /// Whose events have no number yet. From one relying party to the next, by the index: to ask for the distinct ones reads all
    /// that wait, and on PostgreSQL all that waited since the last vacuum.
    pub async fn unsealed_realms(&self) -> Result<Vec<Id>> {
        let ids: Vec<String> = read_scalars! { self,
            "with recursive waiting (rp_id) as (
               select (select rp_id from events where sequence is null order by rp_id limit 1)
               union all
               select (select e.rp_id from events e where e.sequence is null and e.rp_id > w.rp_id order by e.rp_id limit 1)
               from waiting w where w.rp_id is not null)
             select rp_id from waiting where rp_id is not null"
        };
        Ok(ids.into_iter().map(Id::stored).collect())
    }

    /// Events of a relying party from this time on that have no number yet and are older than that, in the order of their times; and
    /// those that are from far behind it, by a clock that was ahead: nobody waits for that time.
    pub async fn unsealed_events(
        &self,
        rp: &Id,
        from: Timestamp,
        before: Timestamp,
        limit: i64,
    ) -> Result<Vec<Recorded>> {
        let rows: Vec<EventRow> = read_rows! { self,
            "select rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason, client,
             request_id, sequence, salt, person, hash
             from events where sequence is null and rp_id = $1 and at >= $2 and (at <= $3 or at > $5)
             order by at, id limit $4",
            rp.as_str(), from.0, before.0, limit, before.plus_seconds(AHEAD).0
        };
        Ok(rows.into_iter().map(EventRow::model).collect())
    }

    /// Where a chain ends, if it has begun.
    pub async fn chain_head(&self, rp: &Id) -> Result<Option<ChainHead>> {
        let row: Option<HeadRow> = read_row! { self,
            "select rp_id, sequence, hash, sealed_at, mac from chain_heads where rp_id = $1",
            rp.as_str()
        };
        Ok(row.map(|row| ChainHead {
            rp_id: Id::stored(row.rp_id),
            sequence: row.sequence,
            hash: row.hash,
            sealed_at: Timestamp(row.sealed_at),
            mac: row.mac,
        }))
    }

    /// Writes the links of these events and the chain's new end. `Conflict(Row)` where another sealer was faster, or an event is
    /// not what was read: then nothing stands, and all of it is read anew.
    pub async fn seal_events(&self, old: Option<&ChainHead>, new: &ChainHead, events: &[Recorded]) -> Result<()> {
        let old = old.map(|head| (head.sequence, head.hash.clone()));
        let numbered = matches!(self.db, Db::Postgres(..));
        write!(self, (old, new, events) conn => {
            let done = match &old {
                None => sql! { conn,
                    "insert into chain_heads (rp_id, sequence, hash, sealed_at, mac) values ($1, $2, $3, $4, $5) on conflict do nothing",
                    new.rp_id.as_str(), new.sequence, &new.hash, new.sealed_at.0, &new.mac
                },
                Some((sequence, hash)) => sql! { conn,
                    "update chain_heads set sequence = $2, hash = $3, sealed_at = $4, mac = $5
                     where rp_id = $1 and sequence = $6 and hash = $7",
                    new.rp_id.as_str(), new.sequence, &new.hash, new.sealed_at.0, &new.mac, sequence, hash
                },
            };
            won(done, Contest::Row)?;
            for some in events.chunks(ROWS) {
                let mut query = sqlx::query(AssertSqlSafe(linking(some.len(), numbered)));
                for event in some {
                    let link = event.link.as_ref().ok_or(Error::Corrupt("events"))?;
                    query = query
                        .bind(new.rp_id.as_str())
                        .bind(event.id.as_str())
                        .bind(event.at.0)
                        .bind(&event.kind)
                        .bind(&event.actor)
                        .bind(&event.outcome)
                        .bind(event.user_id.as_deref())
                        .bind(link.sequence)
                        .bind(link.salt.as_deref())
                        .bind(&link.person)
                        .bind(&link.hash);
                }
                let done = query.execute(&mut *conn).await?.rows_affected();
                if done != some.len() as u64 {
                    return Err(Contest::Row.into());
                }
            }
            Ok::<(), Error>(())
        })
    }

    /// Events of a relying party's chain, in the order of their numbers.
    pub async fn sealed_events(&self, rp: &Id, query: &EventQuery) -> Result<Vec<Recorded>> {
        let EventQuery { behind, up_to, kind, user_id, after, before, limit } = query;
        let rows: Vec<EventRow> = match user_id {
            None => read_rows! { self,
                "select rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason, client,
                 request_id, sequence, salt, person, hash
                 from events where rp_id = $1 and sequence > $2 and sequence <= $3 and kind = coalesce($4, kind)
                 and at >= $5 and at < $6 order by sequence limit $7",
                rp.as_str(), behind, up_to, kind, after.0, before.0, limit
            },
            Some(user_id) => read_rows! { self,
                "select rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason, client,
                 request_id, sequence, salt, person, hash
                 from events where rp_id = $1 and sequence > $2 and sequence <= $3 and kind = coalesce($4, kind)
                 and at >= $5 and at < $6 and user_id = $8 order by sequence limit $7",
                rp.as_str(), behind, up_to, kind, after.0, before.0, limit, user_id
            },
        };
        Ok(rows.into_iter().map(EventRow::model).collect())
    }

    /// A user's latest events in the chain that are of these kinds, the newest first.
    pub async fn latest_events(&self, rp: &Id, user_id: &str, kinds: &[&str; 11], limit: i64) -> Result<Vec<Recorded>> {
        let [a, b, c, d, e, f, g, h, i, j, k] = kinds;
        let rows: Vec<EventRow> = read_rows! { self,
            "select rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason, client,
             request_id, sequence, salt, person, hash
             from events where rp_id = $1 and user_id = $2 and sequence is not null
             and kind in ($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) order by sequence desc limit $3",
            rp.as_str(), user_id, limit, a, b, c, d, e, f, g, h, i, j, k
        };
        Ok(rows.into_iter().map(EventRow::model).collect())
    }

    /// An event by its id.
    pub async fn event(&self, rp: &Id, id: &Id) -> Result<Option<Recorded>> {
        let row: Option<EventRow> = read_row! { self,
            "select rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason, client,
             request_id, sequence, salt, person, hash
             from events where rp_id = $1 and id = $2",
            rp.as_str(), id.as_str()
        };
        Ok(row.map(EventRow::model))
    }

    /// When the event of this number happened.
    pub async fn time_of_event(&self, rp: &Id, sequence: i64) -> Result<Option<Timestamp>> {
        let at: Option<i64> = read_scalar_if! { self,
            "select at from events where rp_id = $1 and sequence = $2",
            rp.as_str(), sequence
        };
        Ok(at.map(Timestamp))
    }

    /// The highest number that any event of a relying party has; 0 where none has one.
    pub async fn highest_event(&self, rp: &Id) -> Result<i64> {
        let highest: Option<i64> = read_scalar_if! { self,
            HIGHEST,
            rp.as_str()
        };
        Ok(highest.unwrap_or_default())
    }

    /// Events of a relying party that have no number yet: kind and user.
    pub async fn young_events(&self, rp: &Id) -> Result<Vec<(String, Option<String>)>> {
        Ok(read_rows! { self, "select kind, user_id from events where sequence is null and rp_id = $1", rp.as_str() })
    }

    /// Whose chains there are.
    pub async fn chains(&self) -> Result<Vec<Id>> {
        let ids: Vec<String> = read_scalars! { self,
            "select rp_id from chain_heads union select id from relying_parties order by 1"
        };
        Ok(ids.into_iter().map(Id::stored).collect())
    }
}
