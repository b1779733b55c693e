//! Where guessing stands, per user and lane. A lane's name is a text and its state another; what they mean is not known here.

use sqlx::FromRow;

use super::events::append;
use super::{Result, Store};
use crate::model::{Event, Id, Timestamp};

/// A lane's row, or, on the condition that `version` is still the one that was read, what it becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThrottleLane {
    /// Whose guesses are counted in it; empty for those of strangers.
    pub lane: String,
    /// Changes with each write; 0 where there is no row yet.
    pub version: i64,
    /// The state, as JSON.
    pub state: String,
    /// Of a device's lane: its last success.
    pub seen_at: Option<Timestamp>,
    /// Until when some method gets no verdict.
    pub paused_until: Option<Timestamp>,
}

/// How a device becomes known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// By a row of its own.
    New,
    /// By the row of the device that was unused for longest.
    Instead,
}

#[derive(FromRow)]
struct LaneRow {
    lane: String,
    version: i64,
    state: String,
    seen_at: Option<i64>,
    paused_until: Option<i64>,
}

impl Store {
    /// The lanes of a user that were ever written.
    pub async fn throttles(&self, rp: &Id, user_id: &str) -> Result<Vec<ThrottleLane>> {
        let rows: Vec<LaneRow> = read_rows! { self,
            "select lane, version, state, seen_at, paused_until from throttle_lanes where rp_id = $1 and user_id = $2 order by lane",
            rp.as_str(), user_id
        };
        let lane = |row: LaneRow| ThrottleLane {
            lane: row.lane,
            version: row.version,
            state: row.state,
            seen_at: row.seen_at.map(Timestamp),
            paused_until: row.paused_until.map(Timestamp),
        };
        Ok(rows.into_iter().map(lane).collect())
    }

    /// How many users' guessing pauses.
    pub async fn paused(&self, now: Timestamp) -> Result<i64> {
        let (users,): (i64,) = read_one! { self,
            "select count(*) from (select distinct rp_id, user_id from throttle_lanes where paused_until > $1) as paused",
            now.0
        };
        Ok(users)
    }

    /// Empties every lane of a user: a support unlock. Devices stay known.
    pub async fn clear_throttles(&self, rp: &Id, user_id: &str, event: &Event) -> Result<()> {
        write!(self, (rp, user_id, event) conn => {
            sql! { conn,
                "update throttle_lanes set version = version + 1, state = '{}', paused_until = null where rp_id = $1 and user_id = $2",
                rp.as_str(), &user_id
            };
            append!(conn, &event);
            Ok(())
        })
    }
}
