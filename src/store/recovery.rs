//! Recovery codes: sets and the hashes of their codes.

use sqlx::FromRow;

use super::events::append;
use super::journal::{Note, Noting};
use super::sessions::stands;
use super::users::take_user;
use super::{Contest, Error, Result, Store, won};
use crate::model::{Event, Id, RecoverySet, RecoveryStatus, RecoverySummary, Timestamp};

#[derive(FromRow)]
struct SetRow {
    id: String,
    salt: Vec<u8>,
    pepper: i64,
    created_at: i64,
    activated_at: Option<i64>,
}

/// The notes of a user's active set, which this writing body is about to delete.
macro_rules! dying_sets {
    ($conn:expr, $rp:expr, $user:expr) => {{
        let sets: Vec<(String,)> = rows! { $conn,
            "select id from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is not null",
            $rp, $user
        };
        sets.into_iter().map(|(id,)| crate::store::journal::Note::Set(id))
    }};
}
pub(super) use dying_sets;

/// What the permission to make or confirm recovery codes rests on.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The portal session in which they are asked for.
    pub visit: Option<Id>,
    /// The step-up session by which it is allowed.
    pub session: Option<Id>,
    /// The state of the enrolments' lane before it was asked by which factors the person proved themselves.
    pub judged: Option<i64>,
}

/// Takes the user's row and sees that there is a factor that recovery codes can stand for, that the visit and the session go on by
/// which they are made, and that no factor was added since it was judged: what was allowed before a reset, an erasure, the removal of the last
/// factor or the first enrolment is not done after it.
macro_rules! still_standing {
    ($conn:expr, $rp:expr, $user:expr, $standing:expr, $now:expr) => {{
        if let Some(session) = &$standing.session {
            won(stands!($conn, $rp, $user, session.as_str(), $now), Contest::Session)?;
        }
        won(take_user!($conn, $rp, $user), Contest::User)?;
        let active: i64 = scalar! { $conn,
            "select count(*) from factors where rp_id = $1 and user_id = $2 and activated_at is not null",
            $rp, $user
        };
        won(active.min(1) as u64, Contest::Factor)?;
        if let Some(visit) = &$standing.visit {
            let open: i64 = scalar! { $conn,
                "select count(*) from portal_sessions where rp_id = $1 and user_id = $2 and id = $3",
                $rp, $user, visit.as_str()
            };
            won(open as u64, Contest::Visit)?;
        }
        // After the factors were counted: whatever made one of them active has moved the lane before.
        if let Some(judged) = $standing.judged {
            let version: i64 = scalar! { $conn,
                "select coalesce(max(version), 0) from throttle_lanes where rp_id = $1 and user_id = $2 and lane = 'enrolment'",
                $rp, $user
            };
            won(u64::from(version == judged), Contest::Throttle)?;
        }
    }};
}

impl Store {
    /// How many sets need this pepper.
    pub async fn count_recovery_sets(&self, pepper: i64) -> Result<i64> {
        let count: Option<i64> =
            read_scalar_if! { self, "select count(*) from recovery_sets where pepper = $1", pepper };
        Ok(count.unwrap_or_default())
    }

    /// The set that redeems, with the hashes of the codes that are left.
    pub async fn recovery_set(&self, rp: &Id, user_id: &str) -> Result<Option<RecoverySet>> {
        let Some(row) = self.sets(rp, user_id).await?.into_iter().find(|s| s.activated_at.is_some()) else {
            return Ok(None);
        };
        let unused: Vec<Vec<u8>> = read_scalars! { self,
            "select hash from recovery_codes where rp_id = $1 and user_id = $2 and set_id = $3 and used_at is null",
            rp.as_str(), user_id, &row.id
        };
        Ok(Some(RecoverySet { id: Id::stored(row.id), salt: row.salt, pepper: row.pepper, unused }))
    }

    /// What may be shown: of the set of this status, else of the other.
    pub async fn recovery_summary(&self, rp: &Id, user_id: &str, first: RecoveryStatus) -> Result<RecoverySummary> {
        let sets = self.sets(rp, user_id).await?;
        let wanted = first == RecoveryStatus::Active;
        let set = sets.iter().max_by_key(|s| s.activated_at.is_some() == wanted);
        let Some(set) = set else { return Ok(RecoverySummary::NONE) };
        let (total, remaining): (i64, i64) = read_one! { self,
            "select count(*), count(*) - count(used_at) from recovery_codes where rp_id = $1 and user_id = $2 and
             set_id = $3",
            rp.as_str(), user_id, &set.id
        };
        let status = if set.activated_at.is_some() { RecoveryStatus::Active } else { RecoveryStatus::Unconfirmed };
        Ok(RecoverySummary { total, remaining, status, created_at: Some(Timestamp(set.created_at)) })
    }

    async fn sets(&self, rp: &Id, user_id: &str) -> Result<Vec<SetRow>> {
        Ok(read_rows! { self,
            "select id, salt, pepper, created_at, activated_at from recovery_sets where rp_id = $1 and user_id =
             $2",
            rp.as_str(), user_id
        })
    }

    /// Makes a set. A confirmed one replaces every other at once, an unconfirmed one only another unconfirmed one;
    /// `Conflict(Row)` where a parallel maker was first, `Conflict(User)` or `Conflict(Factor)` where the user has no active factor
    /// (any more), `Conflict(Session)` where the portal session is gone in which they were asked for, `Conflict(Throttle)` where a factor was
    /// added meanwhile.
    pub async fn create_recovery_set(
        &self,
        rp: &Id,
        user_id: &str,
        standing: &Standing,
        set: &RecoverySet,
        confirmed: bool,
        event: &Event,
    ) -> Result<()> {
        write!(self, (rp, user_id, standing, set, event) conn => {
            still_standing!(conn, rp.as_str(), &user_id, standing, event.at.0);
            let replaced: [&'static str; 2] = match confirmed {
                true => [
                    "delete from recovery_codes where rp_id = $1 and user_id = $2",
                    "delete from recovery_sets where rp_id = $1 and user_id = $2",
                ],
                false => [
                    "delete from recovery_codes where rp_id = $1 and user_id = $2 and set_id in
                       (select id from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is null)",
                    "delete from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is null",
                ],
            };
            let notes: Vec<Note> = match confirmed {
                true => dying_sets!(conn, rp.as_str(), &user_id).collect(),
                false => Vec::new(),
            };
            for statement in replaced {
                sql! { conn, statement, rp.as_str(), &user_id };
            }
            sql! { conn,
                "insert into recovery_sets (rp_id, user_id, id, salt, pepper, created_at, activated_at)
                 values ($1, $2, $3, $4, $5, $6, $7)",
                rp.as_str(), &user_id, set.id.as_str(), &set.salt, set.pepper, event.at.0,
                confirmed.then_some(event.at.0)
            };
            for hash in &set.unused {
                sql! { conn,
                    "insert into recovery_codes (rp_id, user_id, set_id, hash) values ($1, $2, $3, $4)",
                    rp.as_str(), &user_id, set.id.as_str(), hash
                };
            }
            append!(conn, &event);
            conn.note(notes).await
        })
    }

    /// Makes the unconfirmed set, or this one if it is that, the active one, in whose place the old one dies; `Conflict(Row)` where
    /// there is none or not the one that is meant, the others as above.
    pub async fn confirm_recovery_set(
        &self,
        rp: &Id,
        user_id: &str,
        set: Option<&Id>,
        standing: &Standing,
        event: &Event,
    ) -> Result<()> {
        let set = set.cloned();
        write!(self, (rp, user_id, set, standing, event) conn => {
            still_standing!(conn, rp.as_str(), &user_id, standing, event.at.0);
            let waiting: Option<String> = scalar_if! { conn,
                "select id from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is null",
                rp.as_str(), &user_id
            };
            let Some(waiting) = waiting.filter(|waiting| set.as_ref().is_none_or(|set| set.as_str() == waiting))
            else {
                return Err(Error::Conflict(Contest::Row));
            };
            let notes: Vec<Note> = dying_sets!(conn, rp.as_str(), &user_id).collect();
            for statement in [
                "delete from recovery_codes where rp_id = $1 and user_id = $2 and set_id in
                   (select id from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is not null)",
                "delete from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is not null",
            ] {
                sql! { conn, statement, rp.as_str(), &user_id };
            }
            let done = sql! { conn,
                "update recovery_sets set activated_at = $1 where rp_id = $2 and user_id = $3 and id = $4 and
                 activated_at is null",
                event.at.0, rp.as_str(), &user_id, &waiting
            };
            won(done, Contest::Row)?;
            append!(conn, &event);
            conn.note(notes).await
        })
    }
}
