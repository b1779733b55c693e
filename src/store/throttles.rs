//! Where guessing stands, per user and method.

use sqlx::FromRow;

use super::events::append;
use super::{Error, Result, Store};
use crate::model::{Event, Id, MethodKind, Timestamp};

/// A throttle's row; what its numbers mean is not known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThrottleState {
    /// Changes with each write; 0 where there is no row yet.
    pub version: i64,
    /// Wrong proofs in challenges.
    pub wrong: i64,
    /// Wrong proofs in enrolments.
    pub enrolment_wrong: i64,
    /// The end of the pause.
    pub paused_until: Option<Timestamp>,
}

/// A write of one throttle, conditional on the version that it was computed from.
#[derive(Clone, Debug)]
pub struct ThrottleChange {
    /// Which.
    pub method: MethodKind,
    /// What it becomes; `version` is that which was read.
    pub state: ThrottleState,
}

#[derive(FromRow)]
struct ThrottleRow {
    method: String,
    version: i64,
    wrong: i64,
    enrolment_wrong: i64,
    paused_until: Option<i64>,
}

/// Writes a throttle on the connection of a writing body; `Conflict(Throttle)` where it moved on since it was read.
macro_rules! charge {
    ($conn:expr, $rp:expr, $user:expr, $change:expr) => {{
        let change: &crate::store::ThrottleChange = $change;
        let state = &change.state;
        let statement = match state.version {
            0 => {
                "insert into throttles (rp_id, user_id, method, version, wrong, enrolment_wrong, paused_until)
                  values ($1, $2, $3, $4 + 1, $5, $6, $7) on conflict do nothing"
            }
            _ => {
                "update throttles set version = $4 + 1, wrong = $5, enrolment_wrong = $6, paused_until = $7
                  where rp_id = $1 and user_id = $2 and method = $3 and version = $4"
            }
        };
        let done = sql! { $conn,
            statement,
            $rp.as_str(), $user, change.method.as_str(), state.version, state.wrong, state.enrolment_wrong,
            state.paused_until.map(|t| t.0)
        };
        crate::store::won(done, crate::store::Contest::Throttle)?;
    }};
}

impl Store {
    /// The throttles of a user that were ever charged.
    pub async fn throttles(&self, rp: &Id, user_id: &str) -> Result<Vec<(MethodKind, ThrottleState)>> {
        let rows: Vec<ThrottleRow> = read_rows! { self,
            "select method, version, wrong, enrolment_wrong, paused_until from throttles where rp_id = $1 and
             user_id = $2",
            rp.as_str(), user_id
        };
        rows.into_iter()
            .map(|row| {
                let method = MethodKind::parse(&row.method).ok_or(Error::Corrupt("throttles"))?;
                let state = ThrottleState {
                    version: row.version,
                    wrong: row.wrong,
                    enrolment_wrong: row.enrolment_wrong,
                    paused_until: row.paused_until.map(Timestamp),
                };
                Ok((method, state))
            })
            .collect()
    }

    /// How many users' guessing pauses, by method.
    pub async fn paused(&self, now: Timestamp) -> Result<Vec<(MethodKind, i64)>> {
        let rows: Vec<(String, i64)> = read_rows! { self,
            "select method, count(*) from throttles where paused_until > $1 group by method",
            now.0
        };
        Ok(rows.into_iter().filter_map(|(method, users)| Some((MethodKind::parse(&method)?, users))).collect())
    }

    /// Writes throttles outside of a verification: a support unlock.
    pub async fn set_throttles(&self, rp: &Id, user_id: &str, changes: &[ThrottleChange], event: &Event) -> Result<()> {
        write!(self, (rp, user_id, changes, event) conn => {
            for change in &changes {
                charge!(conn, rp, &user_id, change);
            }
            append!(conn, &event);
            Ok(())
        })
    }
}
