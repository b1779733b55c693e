//! The one transaction that settles a verification or an enrolment's first proof, whatever its outcome.
//! Rows are taken in one order: throttle, challenge or pending factor, prompt, factor, recovery code.

use super::challenges::insert_challenge;
use super::events::append;
use super::sessions::insert_session;
use super::throttles::charge;
use super::{Activation, Contest, Error, NewSession, Result, Store, ThrottleChange, text, won};
use crate::model::{Challenge, Details, Event, Id, MethodKind, Proof, Timestamp};

/// What happens to the challenge.
#[derive(Clone)]
pub enum ChallengeChange {
    /// There is none: an enrolment, or a wrong answer in the call that would have made it.
    None,
    /// A wrong answer: one attempt less, denied with the last.
    Charge(Id),
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
    /// The throttle of a method that can be guessed.
    pub throttle: Option<ThrottleChange>,
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
    pub events: Vec<Event>,
}

impl Store {
    /// Writes all of it or nothing, and tells how many attempts the challenge has left.
    /// `Conflict` names the first row that was lost; nothing stands then, and the caller decides what the answer was worth.
    pub async fn settle(&self, settlement: Settlement) -> Result<i64> {
        let settlement = std::sync::Arc::new(settlement);
        write!(self, (settlement) conn => {
            let s: &Settlement = &settlement;
            if let Some(change) = &s.throttle {
                charge!(conn, s.rp_id, &s.user_id, change);
            }
            let attempts_left: i64 = match &s.challenge {
                ChallengeChange::None => 0,
                ChallengeChange::Charge(id) => {
                    let left: Option<i64> = scalar_if! { conn,
                        "update challenges set attempts_left = attempts_left - 1,
                         status = case when attempts_left <= 1 then 'denied' else status end
                         where rp_id = $1 and user_id = $2 and id = $3 and status = 'pending' and attempts_left > 0
                         and expires_at > $4
                         returning attempts_left",
                        s.rp_id.as_str(), &s.user_id, id.as_str(), s.at.0
                    };
                    left.ok_or(Error::Conflict(Contest::Challenge))?
                }
                ChallengeChange::Approve(id, proof, code) => {
                    let left: Option<i64> = scalar_if! { conn,
                        "update challenges set status = 'approved', proof = $5, code_hash = $6, code_expires_at =
                         $7, exchanged_at = $8
                         where rp_id = $1 and user_id = $2 and id = $3 and status = 'pending' and attempts_left > 0
                         and expires_at > $4
                         returning attempts_left",
                        s.rp_id.as_str(), &s.user_id, id.as_str(), s.at.0, text(proof),
                        code.as_ref().map(|(hash, _)| hash.clone()), code.as_ref().map(|(_, end)| end.0),
                        s.session.as_ref().map(|_| s.at.0)
                    };
                    left.ok_or(Error::Conflict(Contest::Challenge))?
                }
                ChallengeChange::Create(challenge) => {
                    insert_challenge!(conn, challenge);
                    challenge.attempts_left
                }
            };
            if let Some((owner, method, id)) = &s.prompt {
                let done = sql! { conn,
                    "delete from prompts where rp_id = $1 and user_id = $2 and owner_id = $3 and method = $4 and id
                     = $5",
                    s.rp_id.as_str(), &s.user_id, owner.as_str(), method.as_str(), id.as_str()
                };
                won(done, Contest::Prompt)?;
            }
            match &s.factor {
                None => {}
                Some(FactorChange::Step(id, step)) => {
                    let done = sql! { conn,
                        "update factors set last_step = $4, last_used_at = $5
                         where rp_id = $1 and user_id = $2 and id = $3 and last_step < $4 and activated_at is not
                         null",
                        s.rp_id.as_str(), &s.user_id, id.as_str(), step, s.at.0
                    };
                    won(done, Contest::Factor)?;
                }
                Some(FactorChange::Credential { id, version, sealed, details }) => {
                    let done = sql! { conn,
                        "update factors set sealed = $5, details = $6, version = $4 + 1, last_used_at = $7
                         where rp_id = $1 and user_id = $2 and id = $3 and version = $4 and activated_at is not null",
                        s.rp_id.as_str(), &s.user_id, id.as_str(), version, sealed, text(details), s.at.0
                    };
                    won(done, Contest::Factor)?;
                }
                Some(FactorChange::Used(id)) => {
                    let done = sql! { conn,
                        "update factors set last_used_at = $4
                         where rp_id = $1 and user_id = $2 and id = $3 and activated_at is not null",
                        s.rp_id.as_str(), &s.user_id, id.as_str(), s.at.0
                    };
                    won(done, Contest::Factor)?;
                }
                Some(FactorChange::RecoveryCode(set, hash)) => {
                    let done = sql! { conn,
                        "update recovery_codes set used_at = $5
                         where rp_id = $1 and user_id = $2 and set_id = $3 and hash = $4 and used_at is null",
                        s.rp_id.as_str(), &s.user_id, set.as_str(), hash, s.at.0
                    };
                    won(done, Contest::RecoveryCode)?;
                }
                Some(FactorChange::Activate(a)) => {
                    if let Some(credential) = &a.credential_id {
                        let holders: i64 = scalar! { conn,
                            "select count(*) from factors where rp_id = $1 and credential_id = $2",
                            s.rp_id.as_str(), credential
                        };
                        if holders > 0 {
                            return Err(Error::Conflict(Contest::Credential));
                        }
                    }
                    let done = sqlx::query(
                        "update factors set activated_at = $4, details = $5, sealed = coalesce($6, sealed), credential_id = $7,
                           last_step = $8, version = version + 1
                         where rp_id = $1 and user_id = $2 and id = $3 and activated_at is null and expires_at > $4",
                    )
                    .bind(s.rp_id.as_str())
                    .bind(&s.user_id)
                    .bind(a.id.as_str())
                    .bind(a.at.0)
                    .bind(text(&a.details))
                    .bind(&a.sealed)
                    .bind(&a.credential_id)
                    .bind(a.last_step)
                    .execute(&mut *conn)
                    .await
                    .map_err(|error| match Error::from(error) {
                        // The only unique column that this writes.
                        Error::Conflict(Contest::Row) => Error::Conflict(Contest::Credential),
                        other => other,
                    })?;
                    won(done.rows_affected(), Contest::Factor)?;
                }
            }
            if let Some(session) = &s.right_of {
                let done = sql! { conn,
                    "update sessions set added_at = $1 where id = $2 and added_at is null and ended_at is null and
                     expires_at > $1",
                    s.at.0, session.as_str()
                };
                won(done, Contest::Session)?;
            }
            if let Some(session) = &s.session {
                insert_session!(conn, session);
            }
            for event in &s.events {
                append!(conn, event);
            }
            Ok(attempts_left)
        })
    }
}
