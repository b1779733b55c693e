//! The one transaction that settles a verification or an enrolment's first proof, whatever its outcome.
//!
//! It is put together from parts in one order (throttle, device, challenge, prompt, factor, session): each part is one conditional
//! write of one row, and all draw on the same numbered values. SQLite runs the parts as one script in the writer's
//! transaction; PostgreSQL runs them as one statement, which is one round trip and one commit. A part that touches no row
//! was lost to somebody faster, and then nothing of the whole stands.

use sqlx::postgres::PgArguments;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe};

use super::journal::{Note, Noting};
use super::postgres::{Postgres, RETRIES};
use super::{Activation, Contest, Db, DeviceChange, Error, Keep, NewSession, Result, Store, ThrottleLane, kept, text};
use crate::model::{Challenge, Details, Event, Id, MethodKind, Proof, Timestamp};

/// What happens to the challenge.
#[derive(Clone)]
pub enum ChallengeChange {
    /// There is none: an enrolment, or a wrong answer in the call that would have made it.
    None,
    /// A wrong answer: one attempt less than these, denied with the last.
    Charge(Id, i64),
    /// A right answer. The code's hash and end, where a code is to be exchanged for the session.
    Approve(Id, Proof, Option<(Vec<u8>, Timestamp)>),
    /// A right answer in the call that makes it: it is written approved.
    Create(Box<Challenge>),
}

/// What a right proof uses up.
#[derive(Clone)]
pub enum FactorChange {
    /// A TOTP step and all before it.
    Step(Id, i64),
    /// The credential moved on from this version.
    Credential {
        /// Which factor.
        id: Id,
        /// The version that was judged.
        version: i64,
        /// What replaces it.
        sealed: Vec<u8>,
        /// What may be shown from now on.
        details: Details,
    },
    /// Only its last use is noted; what is used up is the prompt.
    Used(Id),
    /// One recovery code of a set.
    RecoveryCode(Id, Vec<u8>),
    /// A pending factor becomes active.
    Activate(Activation),
}

/// Everything that one verdict writes.
#[derive(Clone)]
pub struct Settlement {
    /// Whose.
    pub rp_id: Id,
    /// Whose.
    pub user_id: String,
    /// When.
    pub at: Timestamp,
    /// The lane in which a guess is counted, or a success noted.
    pub throttle: Option<ThrottleLane>,
    /// The lane of a device that is known from now on.
    pub device: Option<(String, DeviceChange)>,
    /// The challenge.
    pub challenge: ChallengeChange,
    /// The prompt that was answered: `Some((owner, method, id))` must still be there, and is burnt.
    pub prompt: Option<(Id, MethodKind, Id)>,
    /// What a right proof uses up.
    pub factor: Option<FactorChange>,
    /// The right of a recovery-code session to add a factor, spent by this.
    pub right_of: Option<Id>,
    /// The session that it earns at once.
    pub session: Option<NewSession>,
    /// What is written down.
    pub event: Event,
}

/// One conditional write of one row, and what is lost where it touches none.
pub type Part = (Contest, &'static str);

const THROTTLE_NEW: Part = (
    Contest::Throttle,
    "insert into throttle_lanes (rp_id, user_id, lane, version, state, seen_at, paused_until)
     values ($1, $2, $4, $5 + 1, $6, $7, $43) on conflict do nothing",
);
const THROTTLE: Part = (
    Contest::Throttle,
    "update throttle_lanes set version = $5 + 1, state = $6, seen_at = $7, paused_until = $43
     where rp_id = $1 and user_id = $2 and lane = $4 and version = $5",
);
const DEVICE_NEW: Part = (
    Contest::Throttle,
    "insert into throttle_lanes (rp_id, user_id, lane, version, state, seen_at) values ($1, $2, $8, 1, '{}', $3)
     on conflict (rp_id, user_id, lane) do update set version = throttle_lanes.version + 1, seen_at = excluded.seen_at",
);
const DEVICE_INSTEAD: Part = (
    Contest::Throttle,
    "update throttle_lanes set lane = $8, version = version + 1, state = '{}', seen_at = $3, paused_until = null
     where rp_id = $1 and user_id = $2 and lane = (
       select lane from throttle_lanes where rp_id = $1 and user_id = $2 and seen_at is not null
       order by seen_at, lane limit 1)",
);
const CHARGE: Part = (
    Contest::Challenge,
    "update challenges set attempts_left = $10 - 1, status = case when $10 <= 1 then 'denied' else status end
     where rp_id = $1 and user_id = $2 and id = $9 and status = 'pending' and attempts_left = $10 and expires_at > $3",
);
const APPROVE: Part = (
    Contest::Challenge,
    "update challenges set status = 'approved', proof = $11, code_hash = $12, code_expires_at = $13, exchanged_at = $14
     where rp_id = $1 and user_id = $2 and id = $9 and status = 'pending' and attempts_left > 0 and expires_at > $3",
);
const CREATE: Part = (
    Contest::Challenge,
    "insert into challenges (rp_id, user_id, id, terms, status, attempts_left, created_at, expires_at, proof, exchanged_at)
     values ($1, $2, $9, $15, 'approved', $10, $3, $16, $11, $3)",
);
const BURN: Part = (
    Contest::Prompt,
    "delete from prompts where rp_id = $1 and user_id = $2 and owner_id = $17 and method = $18 and id = $19",
);
const STEP: Part = (
    Contest::Factor,
    "update factors set last_step = $21, last_used_at = $3
     where rp_id = $1 and user_id = $2 and id = $20 and last_step < $21 and activated_at is not null",
);
const CREDENTIAL: Part = (
    Contest::Factor,
    "update factors set sealed = $23, details = $24, version = $22 + 1, last_used_at = $3
     where rp_id = $1 and user_id = $2 and id = $20 and version = $22 and activated_at is not null",
);
const USED: Part = (
    Contest::Factor,
    "update factors set last_used_at = $3 where rp_id = $1 and user_id = $2 and id = $20 and activated_at is not null",
);
const RECOVERY_CODE: Part = (
    Contest::RecoveryCode,
    "update recovery_codes set used_at = $3
     where rp_id = $1 and user_id = $2 and set_id = $20 and hash = $23 and used_at is null",
);
const ACTIVATE: Part = (
    Contest::Factor,
    "update factors set activated_at = $3, details = $24, sealed = coalesce($23, sealed), credential_id = $25,
       last_step = $21, version = version + 1
     where rp_id = $1 and user_id = $2 and id = $20 and activated_at is null and expires_at > $3
       and not exists (select 1 from factors h where h.rp_id = $1 and h.credential_id = $25)",
);
const RIGHT: Part = (
    Contest::Session,
    "update sessions set added_at = $3
     where rp_id = $1 and user_id = $2 and id = $26 and added_at is null and ended_at is null and expires_at > $3",
);
const SESSION: Part = (
    Contest::Row,
    "insert into sessions (rp_id, user_id, id, token_hash, granted, factor_id, created_at, expires_at)
     values ($1, $2, $27, $28, $29, $30, $3, $31)",
);
const EVENT: Part = (
    Contest::Row,
    "insert into events (rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason, client, request_id)
     values ($1, $32, $3, $33, $34, $2, $35, $36, $37, $38, $39, $40, $41, $42)",
);

/// Every part, for the test that prepares every statement.
pub const PARTS: [Part; 16] = [
    THROTTLE_NEW,
    THROTTLE,
    DEVICE_NEW,
    DEVICE_INSTEAD,
    CHARGE,
    APPROVE,
    CREATE,
    BURN,
    STEP,
    CREDENTIAL,
    USED,
    RECOVERY_CODE,
    ACTIVATE,
    RIGHT,
    SESSION,
    EVENT,
];

impl Settlement {
    fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::with_capacity(6);
        parts.extend(self.throttle.as_ref().map(|t| if t.version == 0 { THROTTLE_NEW } else { THROTTLE }));
        parts.extend(self.device.as_ref().map(|(_, change)| match change {
            DeviceChange::New => DEVICE_NEW,
            DeviceChange::Instead => DEVICE_INSTEAD,
        }));
        parts.extend(match self.challenge {
            ChallengeChange::None => None,
            ChallengeChange::Charge(..) => Some(CHARGE),
            ChallengeChange::Approve(..) => Some(APPROVE),
            ChallengeChange::Create(_) => Some(CREATE),
        });
        parts.extend(self.prompt.as_ref().map(|_| BURN));
        parts.extend(self.factor.as_ref().map(|change| match change {
            FactorChange::Step(..) => STEP,
            FactorChange::Credential { .. } => CREDENTIAL,
            FactorChange::Used(_) => USED,
            FactorChange::RecoveryCode(..) => RECOVERY_CODE,
            FactorChange::Activate(_) => ACTIVATE,
        }));
        parts.extend(self.right_of.as_ref().map(|_| RIGHT));
        parts.extend(self.session.as_ref().map(|_| SESSION));
        parts.push(EVENT);
        parts
    }
}

/// The numbered values of all parts, for either driver. A value that no part of this settlement uses is null.
macro_rules! values {
    ($arguments:expr, $settlement:expr) => {{
        let (values, s): (_, &Settlement) = (&mut $arguments, $settlement);
        let throttle = s.throttle.as_ref();
        let (challenge, attempts, proof, code, terms, challenge_end) = match &s.challenge {
            ChallengeChange::None => (None, None, None, None, None, None),
            ChallengeChange::Charge(id, left) => (Some(id.as_str()), Some(*left), None, None, None, None),
            ChallengeChange::Approve(id, proof, code) => {
                (Some(id.as_str()), None, Some(text(proof)), code.as_ref(), None, None)
            }
            ChallengeChange::Create(c) => (
                Some(c.id.as_str()),
                Some(c.attempts_left),
                c.proof.as_ref().map(text),
                None,
                Some(text(&c.terms)),
                Some(c.expires_at.0),
            ),
        };
        let (factor, step, version, bytes, details, credential) = match &s.factor {
            None => (None, None, None, None, None, None),
            Some(FactorChange::Step(id, step)) => (Some(id.as_str()), Some(*step), None, None, None, None),
            Some(FactorChange::Credential { id, version, sealed, details }) => {
                (Some(id.as_str()), None, Some(*version), Some(sealed.clone()), Some(text(details)), None)
            }
            Some(FactorChange::Used(id)) => (Some(id.as_str()), None, None, None, None, None),
            Some(FactorChange::RecoveryCode(set, hash)) => {
                (Some(set.as_str()), None, None, Some(hash.clone()), None, None)
            }
            Some(FactorChange::Activate(a)) => (
                Some(a.id.as_str()),
                Some(a.last_step),
                None,
                a.sealed.clone(),
                Some(text(&a.details)),
                a.credential_id.clone(),
            ),
        };
        let session = s.session.as_ref();
        let event = &s.event;
        let id = |id: &Option<Id>| id.as_ref().map(|i| i.as_str().to_owned());
        values.add(s.rp_id.as_str().to_owned()).map_err(unencodable)?; // $1
        values.add(s.user_id.clone()).map_err(unencodable)?;
        values.add(s.at.0).map_err(unencodable)?;
        values.add(throttle.map(|t| t.lane.clone())).map_err(unencodable)?; // $4
        values.add(throttle.map(|t| t.version)).map_err(unencodable)?;
        values.add(throttle.map(|t| t.state.clone())).map_err(unencodable)?;
        values.add(throttle.and_then(|t| t.seen_at).map(|t| t.0)).map_err(unencodable)?;
        values.add(s.device.as_ref().map(|(lane, _)| lane.clone())).map_err(unencodable)?;
        values.add(challenge.map(str::to_owned)).map_err(unencodable)?; // $9
        values.add(attempts).map_err(unencodable)?;
        values.add(proof).map_err(unencodable)?;
        values.add(code.map(|(hash, _)| hash.clone())).map_err(unencodable)?;
        values.add(code.map(|(_, end)| end.0)).map_err(unencodable)?;
        values.add(session.map(|_| s.at.0)).map_err(unencodable)?;
        values.add(terms).map_err(unencodable)?; // $15
        values.add(challenge_end).map_err(unencodable)?;
        values.add(s.prompt.as_ref().map(|(owner, _, _)| owner.as_str().to_owned())).map_err(unencodable)?; // $17
        values.add(s.prompt.as_ref().map(|(_, method, _)| method.as_str().to_owned())).map_err(unencodable)?;
        values.add(s.prompt.as_ref().map(|(_, _, id)| id.as_str().to_owned())).map_err(unencodable)?;
        values.add(factor.map(str::to_owned)).map_err(unencodable)?; // $20
        values.add(step).map_err(unencodable)?;
        values.add(version).map_err(unencodable)?;
        values.add(bytes).map_err(unencodable)?;
        values.add(details).map_err(unencodable)?;
        values.add(credential).map_err(unencodable)?; // $25
        values.add(id(&s.right_of)).map_err(unencodable)?;
        values.add(session.map(|n| n.session.id.as_str().to_owned())).map_err(unencodable)?; // $27
        values.add(session.map(|n| n.token_hash.clone())).map_err(unencodable)?;
        values.add(session.map(|n| text(&n.session.grant))).map_err(unencodable)?;
        values.add(session.and_then(|n| id(&n.session.factor_id))).map_err(unencodable)?;
        values.add(session.map(|n| n.session.expires_at.0)).map_err(unencodable)?; // $31
        values.add(event.id.as_str().to_owned()).map_err(unencodable)?;
        values.add(event.kind.to_owned()).map_err(unencodable)?;
        values.add(event.actor.as_str().to_owned()).map_err(unencodable)?;
        values.add(event.method.map(|m| m.as_str().to_owned())).map_err(unencodable)?; // $35
        values.add(id(&event.factor_id)).map_err(unencodable)?;
        values.add(id(&event.challenge_id)).map_err(unencodable)?;
        values.add(id(&event.session_id)).map_err(unencodable)?;
        values.add(event.outcome.as_str().to_owned()).map_err(unencodable)?;
        values.add(event.reason.map(str::to_owned)).map_err(unencodable)?; // $40
        values.add(event.client.as_ref().map(text)).map_err(unencodable)?;
        values.add(event.request_id.clone()).map_err(unencodable)?;
        values.add(throttle.and_then(|t| t.paused_until).map(|t| t.0)).map_err(unencodable)?; // $43
    }};
}

fn unencodable(error: sqlx::error::BoxDynError) -> Error {
    Error::Unavailable(error.to_string())
}

impl Store {
    /// Writes all of it or nothing. `Conflict` names the first row that was lost; nothing stands then, and the caller decides
    /// what the answer was worth.
    pub async fn settle(&self, settlement: Settlement) -> Result<()> {
        let keep = self.keep.clone();
        let settled = match (&self.db, keep) {
            (Db::Sqlite(lite), None) => {
                lite.write_whole(move |conn| Box::pin(async move { on_sqlite(conn, &settlement).await })).await
            }
            (Db::Sqlite(lite), keep) => {
                lite.write(move |conn| {
                    Box::pin(async move {
                        keep!(conn, keep);
                        on_sqlite(conn, &settlement).await
                    })
                })
                .await
            }
            (Db::Postgres(postgres), keep) => on_postgres(postgres, &settlement, keep.as_deref()).await,
        };
        kept::mark(self.keep.as_deref(), settled)
    }
}

/// The parts as one script that keeps itself whole: the first part writes only where every later one can, and each later one
/// only where the one before did. The writer's transaction has no rival, so nothing changes between them.
async fn on_sqlite(conn: &mut SqliteConnection, settlement: &Settlement) -> Result<()> {
    let parts = settlement.parts();
    let done = sqlx::query_with(AssertSqlSafe(script(&parts)), sqlite_values(settlement)?).execute(&mut *conn).await?;
    if done.rows_affected() == parts.len() as u64 {
        return match &settlement.factor {
            Some(FactorChange::RecoveryCode(set, hash)) => {
                conn.note(vec![Note::Code(set.as_str().to_owned(), hash.clone())]).await
            }
            _ => Ok(()),
        };
    }
    for (contest, sql) in &parts {
        let Some(guard) = guard(sql) else { continue };
        let statement = format!("select {guard}");
        let stands: i64 =
            sqlx::query_scalar_with(AssertSqlSafe(statement), sqlite_values(settlement)?).fetch_one(&mut *conn).await?;
        if stands == 0 {
            return Err(Error::Conflict(*contest));
        }
    }
    // All that is needed is there: an insert met a row.
    let insert = parts.iter().find(|(_, sql)| guard(sql).is_none());
    Err(Error::Conflict(insert.map_or(Contest::Row, |(contest, _)| *contest)))
}

fn script(parts: &[Part]) -> String {
    let guards: Vec<String> = parts.iter().skip(1).filter_map(|(_, sql)| guard(sql)).collect();
    let first = match guards.is_empty() {
        true => "1 = 1".to_owned(),
        false => guards.join(" and "),
    };
    let conditions = std::iter::once(first.as_str()).chain(std::iter::repeat("changes() = 1"));
    parts.iter().zip(conditions).map(|((_, sql), condition)| only_where(sql, condition)).collect::<Vec<_>>().join(";\n")
}

/// Whether the row is there that an update or a delete needs; an insert needs none.
fn guard(sql: &str) -> Option<String> {
    let rest = sql.strip_prefix("update ").or_else(|| sql.strip_prefix("delete from "))?;
    let (table, _) = rest.split_once(' ')?;
    let (_, condition) = sql.split_once("where ")?;
    Some(format!("exists (select 1 from {table} where {condition})"))
}

/// The statement on one more condition.
fn only_where(sql: &str, condition: &str) -> String {
    let Some((head, values)) = sql.split_once("values (") else { return format!("{sql} and {condition}") };
    // The values hold no parenthesis.
    let (values, tail) = values.split_once(')').unwrap_or((values, ""));
    format!("{head}select {values} where {condition}{tail}")
}

fn sqlite_values(settlement: &Settlement) -> Result<SqliteArguments> {
    let mut values = SqliteArguments::default();
    values!(values, settlement);
    Ok(values)
}

/// The parts as one statement. It fails as a whole, naming the first part that was lost, unless each touched its row.
async fn on_postgres(postgres: &Postgres, settlement: &Settlement, keep: Option<&Keep>) -> Result<()> {
    let parts: Vec<Part> = keep.map(|_| kept::FIRST).into_iter().chain(settlement.parts()).collect();
    let mut writes = Vec::new();
    let mut losses = String::new();
    for (n, (_, sql)) in parts.iter().enumerate() {
        writes.push(format!("p{n} as ({sql} returning 1)"));
        losses.push_str(&format!(" when (select count(*) from p{n}) <> 1 then 'lost {n}'"));
    }
    let statement = format!("with {} select cast(case{losses} else '1' end as bigint)", writes.join(", "));
    for _ in 0..=RETRIES {
        let mut conn = postgres.acquire().await?;
        let mut values = PgArguments::default();
        values!(values, settlement);
        if let Some(keep) = keep {
            keep.append_to(&mut values).map_err(unencodable)?;
        }
        let query = sqlx::query_with(AssertSqlSafe(statement.clone()), values);
        match postgres.answer(query.execute(&mut *conn)).await {
            Ok(_) => return Ok(()),
            Err(error) => match lost(&error, &parts) {
                Some(contest) => return Err(contest.into()),
                None => match Error::from(error) {
                    Error::Unserialised => {}
                    other => return Err(other),
                },
            },
        }
    }
    Err(Error::Unserialised)
}

/// The part that an error of the final cast names.
fn lost(error: &sqlx::Error, parts: &[Part]) -> Option<Contest> {
    let database = error.as_database_error().filter(|e| e.code().as_deref() == Some("22P02"))?;
    let (_, rest) = database.message().split_once("\"lost ")?;
    let place: usize = rest.trim_end_matches('"').parse().ok()?;
    parts.get(place).map(|(contest, _)| *contest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_writes_all_of_its_parts_or_none() {
        let script = script(&[THROTTLE_NEW, CREATE, STEP, EVENT]);
        let statements: Vec<&str> = script.split(";\n").collect();
        assert!(
            statements[0].contains(
                "select $1, $2, $4, $5 + 1, $6, $7, $43 where exists (select 1 from factors where rp_id = $1"
            )
        );
        assert!(statements[0].ends_with("activated_at is not null) on conflict do nothing"), "{}", statements[0]);
        assert!(
            statements[1].ends_with("select $1, $2, $9, $15, 'approved', $10, $3, $16, $11, $3 where changes() = 1")
        );
        assert!(statements[2].ends_with("activated_at is not null and changes() = 1"));
        assert!(statements[3].ends_with("$42 where changes() = 1"));
        assert!(script_of_one().ends_with("where 1 = 1"));
    }

    fn script_of_one() -> String {
        script(&[EVENT])
    }
}
