//! What has run out is removed in small steps.

use super::{Error, Result, Store};
use crate::model::Timestamp;

/// How many rows one step removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Of all tables together.
    pub rows: u64,
}

/// Each takes a time; rows that ran out before it go, at most 500 a statement.
const STATEMENTS: [&str; 7] = [
    "delete from challenges where id in (select id from challenges where expires_at < $1 order by expires_at limit 500)",
    "delete from sessions where id in (select id from sessions where expires_at < $1 order by expires_at limit 500)",
    "delete from portal_sessions where id in (select id from portal_sessions where expires_at < $1 order by expires_at limit 500)",
    "delete from prompts where id in (select id from prompts where expires_at < $1 order by expires_at limit 500)",
    "delete from factors where activated_at is null and id in (select id from factors where activated_at is null and expires_at < $1 order by expires_at limit 500)",
    "delete from messages where id in (select id from messages where created_at < $1 order by created_at limit 500)",
    "delete from kept_answers where (rp_id, id) in (select rp_id, id from kept_answers where created_at <= $1 order by created_at limit 500)",
];

impl Store {
    /// Removes a bounded number of rows that ran out before this time, and the secrets of answers kept until the other.
    pub async fn purge(&self, before: Timestamp, secrets: Timestamp) -> Result<Purged> {
        write!(self, () conn => {
            let mut rows = 0;
            for statement in STATEMENTS {
                rows += sql! { conn, statement, before.0 };
            }
            rows += sql! { conn,
                "update kept_answers set whole = null where (rp_id, id) in
                   (select rp_id, id from kept_answers where whole is not null and created_at <= $1 order by created_at limit 500)",
                secrets.0
            };
            Ok::<Purged, Error>(Purged { rows })
        })
    }
}
