//! What has run out is removed in small steps, by one node at a time.

use super::{Error, Result, Store};
use crate::model::Timestamp;

/// Who removes, and what.
#[derive(Clone, Copy, Debug)]
pub struct Purge<'a> {
    /// The node.
    pub node: &'a str,
    /// Now.
    pub now: Timestamp,
    /// Until when no other node does the same.
    pub lease: Timestamp,
    /// Rows that ran out before this time go, and budgets that were not drawn on since: a budget forgets within a day.
    pub before: Timestamp,
}

/// Each takes a time; rows that ran out before it go, at most 500 a statement.
const STATEMENTS: [&str; 7] = [
    "delete from challenges where id in (select id from challenges where expires_at < $1 order by expires_at limit 500)",
    "delete from sessions where id in (select id from sessions where expires_at < $1 order by expires_at limit 500)",
    "delete from portal_sessions where id in (select id from portal_sessions where expires_at < $1 order by expires_at limit 500)",
    "delete from prompts where id in (select id from prompts where expires_at < $1 order by expires_at limit 500)",
    "delete from factors where activated_at is null and id in (select id from factors where activated_at is null and expires_at < $1 order by expires_at limit 500)",
    "delete from messages where id in (select id from messages where created_at < $1 order by created_at limit 500)",
    "delete from send_budgets where used_at < $1 and (rp_id, budget) in (select rp_id, budget from send_budgets where used_at < $1 order by used_at limit 500)",
];

impl Store {
    /// Removes a bounded number of rows that ran out; tells how many, and `None` where another node does it.
    pub async fn purge(&self, purge: Purge<'_>) -> Result<Option<u64>> {
        let node = purge.node;
        write!(self, (node) conn => {
            if !lease!(conn, "housekeeping", &node, purge.now, purge.lease) {
                return Ok(None);
            }
            let mut rows = 0;
            for statement in STATEMENTS {
                rows += sql! { conn, statement, purge.before.0 };
            }
            Ok::<Option<u64>, Error>(Some(rows))
        })
    }
}
