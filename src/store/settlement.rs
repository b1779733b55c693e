//! The one transaction that settles a verification or an enrolment's first proof, whatever its outcome, opens a challenge, or
//! makes or ends a session.
//!
//! It is put together from parts in one order (throttle, device, challenge, prompt, factor, sessions): each part is one conditional
//! write of one row, and all draw on the same numbered values. On SQLite the writer's thread takes one after the other, on
//! PostgreSQL they are one statement: one round trip and one commit. A part that touches no row was lost to somebody faster, and then
//! nothing of the whole stands.

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgArguments;

use super::parts::{Part, unencodable};
use super::postgres::{Postgres, RETRIES};
use super::{Activation, Contest, Db, DeviceChange, Error, Keep, NewSession, Result, Store, ThrottleLane, kept};
use crate::model::{Challenge, Details, Event, Id, MethodKind, Prompt, Proof, Timestamp};

/// What happens to the challenge.
#[derive(Clone)]
pub enum ChallengeChange {
    /// There is none of its own: an enrolment, or an answer in the call that makes it. A wrong one leaves none, a right one's lies
    /// with the session.
    None,
    /// It must still await its answer: what is set up on the way to it comes to nothing otherwise. A write, so that an end which
    /// commits at the same time is seen.
    Await(Id),
    /// A wrong answer: one attempt less than these, denied with the last.
    Charge(Id, i64),
    /// A right answer. The code's hash and end, where a code is to be exchanged for the session.
    Approve(Id, Proof, Option<(Vec<u8>, Timestamp)>),
    /// It is made and awaits its answer.
    Open(Box<Challenge>),
    /// Its one-time code, by this hash, is spent for a session.
    Exchange(Id, Vec<u8>),
}

/// What a right proof uses up, or rests on.
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
    /// It must still be there: what was proven by one that was removed meanwhile earns nothing.
    Held(Id),
    /// It must still be there and wait for its first proof: what was tried with one that is gone is told of nobody (V-05).
    Pending(Id),
}

/// What happens to a session that was there before.
#[derive(Clone)]
pub enum SessionChange {
    /// The right of a recovery-code session to add a factor is spent.
    Add(Id),
    /// It must still stand: another inherits from it. A write, so that an end which commits at the same time is seen.
    Stand(Id),
    /// It ends.
    End(Id),
}

/// Everything that one verdict writes, or that making, exchanging or ending a session does.
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
    /// What is awaited from now on, in the place of any before it; not together with a prompt that is burnt.
    pub awaited: Option<Prompt>,
    /// The factor.
    pub factor: Option<FactorChange>,
    /// The session that was there before.
    pub earlier: Option<SessionChange>,
    /// The session that it earns at once.
    pub session: Option<Arc<NewSession>>,
    /// The visit in whose browser the session was earned.
    pub visit: Option<Id>,
    /// What is written down.
    pub event: Option<Event>,
}

impl Settlement {
    /// What writes an event and nothing else: of the user whom it names, when it happened.
    pub fn telling(event: Event) -> Settlement {
        let silent = Settlement::silent(event.rp_id.clone(), event.user_id.clone().unwrap_or_default(), event.at);
        Settlement { event: Some(event), ..silent }
    }

    /// What writes nothing, yet.
    pub(super) fn silent(rp_id: Id, user_id: String, at: Timestamp) -> Settlement {
        Settlement {
            rp_id,
            user_id,
            at,
            throttle: None,
            device: None,
            challenge: ChallengeChange::None,
            prompt: None,
            awaited: None,
            factor: None,
            earlier: None,
            session: None,
            visit: None,
            event: None,
        }
    }
}

impl Store {
    /// Writes all of it or nothing. `Conflict` names the first row that was lost; nothing stands then, and the caller decides
    /// what the answer was worth.
    pub fn settle(&self, settlement: Settlement) -> impl Future<Output = Result<()>> + Send {
        // On the heap at once: every caller would carry its size, and copy it with every layer of a request.
        let settlement = Box::new(settlement);
        async move {
            let keep = self.keep.clone();
            let settled = match &self.db {
                Db::Sqlite(lite) => lite.settle(settlement, keep).await,
                Db::Postgres(_, gathers) if keep.is_none() => gathers.settles.ask(settlement).await,
                Db::Postgres(postgres, _) => {
                    Box::pin(on_postgres(postgres, &settlement, keep.as_deref(), RETRIES)).await
                }
            };
            kept::mark(self.keep.as_deref(), settled)
        }
    }
}

/// The parts as one statement. It fails as a whole, naming the first part that was lost, unless each touched its row.
pub(super) async fn on_postgres(
    postgres: &Postgres,
    settlement: &Settlement,
    keep: Option<&Keep>,
    retries: usize,
) -> Result<()> {
    let parts: Vec<Part> = keep.map(|_| kept::FIRST).into_iter().chain(settlement.parts()).collect();
    let mut writes = Vec::new();
    let mut losses = String::new();
    for (n, (_, sql)) in parts.iter().enumerate() {
        writes.push(format!("p{n} as ({sql} returning 1)"));
        losses.push_str(&format!(" when (select count(*) from p{n}) <> 1 then 'lost {n}'"));
    }
    let statement = format!("with {} select cast(case{losses} else '1' end as bigint)", writes.join(", "));
    for _ in 0..=retries {
        let mut conn = postgres.acquire().await?;
        let mut values = PgArguments::default();
        settlement.values().iter().try_for_each(|value| value.add_to(&mut values))?;
        if let Some(keep) = keep {
            keep.append_to(&mut values).map_err(unencodable)?;
        }
        let query = sqlx::query_with(AssertSqlSafe(statement.clone()), values);
        let written = postgres.answer(query.execute(&mut *conn)).await;
        conn.ended(&written);
        match written {
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
    parts.get(place(database.message())?).map(|(contest, _)| *contest)
}

/// The number behind what could not be cast. The rest of the message is in the server's language, quotation marks included.
fn place(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once("lost ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_read_in_every_language() {
        for (message, expected) in [
            ("invalid input syntax for type bigint: \"lost 3\"", Some(3)),
            ("ungültige Eingabesyntax für Typ bigint: »lost 12«", Some(12)),
            ("syntaxe en entrée invalide pour le type bigint : « lost 0 »", Some(0)),
            ("la sintaxis de entrada no es válida para tipo bigint: «lost 7»", Some(7)),
            ("\"bigint\"型の入力構文が不正です: \"lost 20\"", Some(20)),
            ("invalid input syntax for type bigint: \"1x\"", None),
        ] {
            assert_eq!(place(message), expected, "{message}");
        }
    }
}
