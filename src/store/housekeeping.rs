//! What has run out is removed in small steps.

use super::{Error, Result, Store};
use crate::model::{Id, Kind, Timestamp};

/// How many rows one step removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Of all tables together.
    pub rows: u64,
}

/// Rows that ran out before the time `$1` go, at most 500 a statement.
const BY_TIME: [&str; 4] = [
    "delete from prompts where id in (select id from prompts where expires_at < $1 order by expires_at limit 500)",
    "delete from factors where activated_at is null and id in
       (select id from factors where activated_at is null and expires_at < $1 order by expires_at limit 500)",
    "delete from messages where id in (select id from messages where created_at < $1 order by created_at limit 500)",
    "delete from kept_answers where (rp_id, id) in
       (select rp_id, id from kept_answers where created_at <= $1 order by created_at limit 500)",
];

/// The same by id, which sorts by time: `$2` is the id of the time before which everything has run out. So the tables that grow
/// with every verification need no index over their ends.
const BY_ID: [(Kind, &str); 3] = [
    (
        Kind::Challenge,
        "delete from challenges where id in (select id from challenges where id < $2 and expires_at < $1 order by id limit 500)",
    ),
    (
        Kind::Session,
        "delete from sessions where id in (select id from sessions where id < $2 and expires_at < $1 order by id limit 500)",
    ),
    (
        Kind::Portal,
        "delete from portal_sessions where id in
           (select id from portal_sessions where id < $2 and expires_at < $1 order by id limit 500)",
    ),
];

/// None of these lives longer, in seconds.
const LONGEST_LIFE: i64 = 1800;

impl Store {
    /// Removes a bounded number of rows that ran out before this time; some stay for half an hour more.
    /// Answers that were kept until the other lose their secrets.
    pub async fn purge(&self, before: Timestamp, secrets: Timestamp) -> Result<Purged> {
        write!(self, () conn => {
            let mut rows = 0;
            for statement in BY_TIME {
                rows += sql! { conn, statement, before.0 };
            }
            for (kind, statement) in BY_ID {
                let bound = Id::bound(kind, before.plus_seconds(-LONGEST_LIFE));
                rows += sql! { conn, statement, before.0, bound.as_str() };
            }
            rows += sql! { conn,
                "update kept_answers set whole = null where (rp_id, id) in
                   (select rp_id, id from kept_answers where whole is not null and created_at <= $1
                    order by created_at limit 500)",
                secrets.0
            };
            Ok::<Purged, Error>(Purged { rows })
        })
    }
}
