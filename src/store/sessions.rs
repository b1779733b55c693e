//! Step-up sessions: made, looked up, ended.

use std::sync::Arc;

use sqlx::FromRow;

use super::events::append;
use super::settlement::{ChallengeChange, FactorChange, SessionChange, Settlement};
use super::{Error, Result, Store, json};
use crate::model::{Challenge, Event, Id, Session, Timestamp};

#[derive(FromRow)]
struct SessionRow {
    rp_id: String,
    user_id: String,
    id: String,
    granted: String,
    factor_id: Option<String>,
    created_at: i64,
    expires_at: i64,
    ended_at: Option<i64>,
    added_at: Option<i64>,
    removed_at: Option<i64>,
}

impl SessionRow {
    fn model(self) -> Result<Session> {
        Ok(Session {
            id: Id::stored(self.id),
            rp_id: Id::stored(self.rp_id),
            user_id: self.user_id,
            grant: json("sessions", &self.granted)?,
            factor_id: self.factor_id.map(Id::stored),
            created_at: Timestamp(self.created_at),
            expires_at: Timestamp(self.expires_at),
            ended_at: self.ended_at.map(Timestamp),
            added_at: self.added_at.map(Timestamp),
            removed_at: self.removed_at.map(Timestamp),
        })
    }
}

/// Sorts behind every id of a session, in whatever language a database sorts: letters follow digits in all of them.
const BEHIND_ALL: &str = "ses_g";

/// A session to be made, with the hash of its token.
#[derive(Clone)]
pub struct NewSession {
    /// The session.
    pub session: Session,
    /// SHA-256 of the opaque token.
    pub token_hash: Vec<u8>,
    /// The approved challenge that is made in the same call, with an id that is the session's sibling.
    pub challenge: Option<Arc<Challenge>>,
}

/// Whether a session stands, on the connection of a writing body: 1 where it does. A write, so that an end which commits at the same time
/// is seen.
macro_rules! stands {
    ($conn:expr, $rp:expr, $user:expr, $id:expr, $now:expr) => {
        sql! { $conn,
            "update sessions set expires_at = expires_at
where rp_id = $1 and user_id = $2 and id = $3 and ended_at is null and expires_at > $4",
            $rp, $user, $id, $now
        }
    };
}
pub(super) use stands;

/// Runs a statement that ends or deletes sessions until it finds none, on the connection of a writing body; tells how many. One that
/// inherits from a session at this moment holds that session's row: the statement waits for the row and does not see what came
/// of it, and the next does.
macro_rules! until_none {
    ($conn:expr, $text:expr $(, $bind:expr)*) => {{
        let mut all = 0;
        loop {
            let done = sql! { $conn, $text $(, $bind)* };
            all += done;
            if done == 0 {
                break all;
            }
        }
    }};
}
pub(super) use until_none;

impl Store {
    /// The session with this token.
    pub async fn session_by_token(&self, rp: &Id, token_hash: &[u8]) -> Result<Option<Session>> {
        let row: Option<SessionRow> = read_row! { self,
            "select rp_id, user_id, id, granted, factor_id, created_at, expires_at, ended_at, added_at, removed_at
             from sessions where token_hash = $1 and rp_id = $2",
            token_hash, rp.as_str()
        };
        row.map(SessionRow::model).transpose()
    }

    /// The session with this id.
    pub async fn session(&self, rp: &Id, id: &Id) -> Result<Option<Session>> {
        let row: Option<SessionRow> = read_row! { self,
            "select rp_id, user_id, id, granted, factor_id, created_at, expires_at, ended_at, added_at, removed_at
             from sessions where id = $1 and rp_id = $2",
            id.as_str(), rp.as_str()
        };
        row.map(SessionRow::model).transpose()
    }

    /// A page of a user's active sessions, newest first, and those before `cursor` where one is given.
    pub async fn sessions_of(
        &self,
        rp: &Id,
        user_id: &str,
        now: Timestamp,
        cursor: Option<&Id>,
        limit: i64,
    ) -> Result<Vec<Session>> {
        let rows: Vec<SessionRow> = read_rows! { self,
            "select rp_id, user_id, id, granted, factor_id, created_at, expires_at, ended_at, added_at, removed_at
             from sessions where rp_id = $1 and user_id = $2 and ended_at is null and expires_at > $3 and id < $4
             order by id desc limit $5",
            rp.as_str(), user_id, now.0, cursor.map_or(BEHIND_ALL, |c| c.as_str()), limit
        };
        rows.into_iter().map(SessionRow::model).collect()
    }

    /// Keeps a session that was earned without a new proof, and with it its challenge as approved. `Conflict(Session)` where the one
    /// that it inherits from has ended meanwhile.
    pub fn inherit_session(
        &self,
        from: &Id,
        new: &Arc<NewSession>,
        event: &Event,
    ) -> impl Future<Output = Result<()>> + Send {
        self.settle(Settlement {
            earlier: Some(SessionChange::Stand(from.clone())),
            session: Some(Arc::clone(new)),
            ..Settlement::telling(event.clone())
        })
    }

    /// Spends a challenge's one-time code for its session; `Conflict(Token)` where it was spent, ran out or never was,
    /// `Conflict(Factor)` where the factor that proved it is gone.
    pub fn exchange(
        &self,
        challenge: &Challenge,
        code_hash: &[u8],
        new: &Arc<NewSession>,
        event: &Event,
    ) -> impl Future<Output = Result<()>> + Send {
        self.settle(Settlement {
            challenge: ChallengeChange::Exchange(challenge.id.clone(), code_hash.to_vec()),
            factor: new.session.factor_id.clone().map(FactorChange::Held),
            session: Some(Arc::clone(new)),
            ..Settlement::telling(event.clone())
        })
    }

    /// Ends a session; `Conflict(Session)` where it has ended or run out. This is also how a single-use session is consumed.
    pub fn end_session(&self, session: &Session, event: &Event) -> impl Future<Output = Result<()>> + Send {
        let end = Some(SessionChange::End(session.id.clone()));
        self.settle(Settlement { earlier: end, ..Settlement::telling(event.clone()) })
    }

    /// Ends all sessions of a user, and calls off what was approved and not exchanged for one yet; tells how many sessions.
    pub async fn end_sessions_of(&self, rp: &Id, user_id: &str, event: &Event) -> Result<u64> {
        write!(self, (rp, user_id, event) conn => {
            sql! { conn,
                "update challenges set status = 'cancelled'
                 where rp_id = $1 and user_id = $2 and status = 'approved' and exchanged_at is null",
                rp.as_str(), &user_id
            };
            let done = until_none! { conn,
                "update sessions set ended_at = $1 where rp_id = $2 and user_id = $3 and ended_at is null",
                event.at.0, rp.as_str(), &user_id
            };
            append!(conn, &event);
            Ok::<u64, Error>(done)
        })
    }
}
