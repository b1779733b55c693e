//! Step-up sessions: made, looked up, ended.

use sqlx::FromRow;

use super::events::append;
use super::{Contest, Error, Result, Store, json, won};
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

/// A session to be made, with the hash of its token.
#[derive(Clone)]
pub struct NewSession {
    /// The session.
    pub session: Session,
    /// SHA-256 of the opaque token.
    pub token_hash: Vec<u8>,
}

/// Inserts a session on the connection of a writing body.
macro_rules! insert_session {
    ($conn:expr, $new:expr) => {{
        let new: &crate::store::NewSession = $new;
        let session = &new.session;
        sql! { $conn,
            "insert into sessions (rp_id, user_id, id, token_hash, granted, factor_id, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)",
            session.rp_id.as_str(), &session.user_id, session.id.as_str(), &new.token_hash,
            crate::store::text(&session.grant), session.factor_id.as_ref().map(|f| f.as_str()), session.created_at.0,
            session.expires_at.0
        };
    }};
}

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
            rp.as_str(), user_id, now.0, cursor.map_or("ses_~", |c| c.as_str()), limit
        };
        rows.into_iter().map(SessionRow::model).collect()
    }

    /// Keeps a session that was earned without a new proof. `Conflict(Session)` where the one that it inherits from has
    /// ended meanwhile.
    pub async fn inherit_session(
        &self,
        from: &Id,
        challenge: &Challenge,
        new: &NewSession,
        event: &Event,
    ) -> Result<()> {
        write!(self, (from, challenge, new, event) conn => {
            // A write, so that an end which commits at the same time is seen.
            let done = sql! { conn,
                "update sessions set expires_at = expires_at where id = $1 and ended_at is null and expires_at > $2",
                from.as_str(), event.at.0
            };
            won(done, Contest::Session)?;
            super::challenges::insert_challenge!(conn, &challenge);
            insert_session!(conn, &new);
            append!(conn, &event);
            Ok(())
        })
    }

    /// A challenge's one-time code as it is kept, and its end.
    pub async fn exchange_code(&self, challenge: &Challenge) -> Result<Option<(Vec<u8>, Timestamp)>> {
        let kept: Option<(Option<Vec<u8>>, Option<i64>)> = read_row! { self,
            "select code_hash, code_expires_at from challenges where rp_id = $1 and user_id = $2 and id = $3",
            challenge.rp_id.as_str(), &challenge.user_id, challenge.id.as_str()
        };
        Ok(kept.and_then(|(hash, end)| Some((hash?, Timestamp(end?)))))
    }

    /// Spends a challenge's one-time code for its session; `Conflict(Token)` where it was spent, ran out or never was.
    pub async fn exchange(
        &self,
        challenge: &Challenge,
        code_hash: &[u8],
        new: &NewSession,
        event: &Event,
    ) -> Result<()> {
        write!(self, (challenge, code_hash, new, event) conn => {
            let done = sql! { conn,
                "update challenges set exchanged_at = $1
                 where rp_id = $2 and user_id = $3 and id = $4 and status = 'approved' and exchanged_at is null
                 and code_hash = $5 and code_expires_at > $1",
                event.at.0, challenge.rp_id.as_str(), &challenge.user_id, challenge.id.as_str(), code_hash
            };
            won(done, Contest::Token)?;
            if let Some(factor) = &new.session.factor_id {
                // A factor removed between proof and exchange earns nothing.
                let held = sql! { conn,
                    "update factors set version = version where rp_id = $1 and user_id = $2 and id = $3 and
                     activated_at is not null",
                    challenge.rp_id.as_str(), &challenge.user_id, factor.as_str()
                };
                won(held, Contest::Factor)?;
            }
            insert_session!(conn, &new);
            append!(conn, &event);
            Ok(())
        })
    }

    /// Ends a session; `Conflict(Session)` where it has ended or run out. This is also how a single-use session is consumed.
    pub async fn end_session(&self, rp: &Id, id: &Id, event: &Event) -> Result<()> {
        write!(self, (rp, id, event) conn => {
            let done = sql! { conn,
                "update sessions set ended_at = $1 where id = $2 and rp_id = $3 and ended_at is null and expires_at
                 > $1",
                event.at.0, id.as_str(), rp.as_str()
            };
            won(done, Contest::Session)?;
            append!(conn, &event);
            Ok(())
        })
    }

    /// Ends all sessions of a user and tells how many.
    pub async fn end_sessions_of(&self, rp: &Id, user_id: &str, event: &Event) -> Result<u64> {
        write!(self, (rp, user_id, event) conn => {
            let done = sql! { conn,
                "update sessions set ended_at = $1 where rp_id = $2 and user_id = $3 and ended_at is null",
                event.at.0, rp.as_str(), &user_id
            };
            append!(conn, &event);
            Ok::<u64, Error>(done)
        })
    }
}
