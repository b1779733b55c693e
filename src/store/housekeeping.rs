//! What has run out is removed in small steps, by one node at a time.

use super::{Error, Result, Store};
use crate::model::{Id, Kind, Timestamp};

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
    /// Answers that were kept until then lose their secrets.
    pub secrets: Timestamp,
}

/// Rows that ran out before the time `$1` go, at most 500 a statement. What may begin anew is looked at once more as it goes: on
/// PostgreSQL it may have done so since it was found.
const BY_TIME: [&str; 7] = [
    "delete from prompts where expires_at < $1 and (rp_id, user_id, owner_id, method) in
       (select rp_id, user_id, owner_id, method from prompts where expires_at < $1 order by expires_at limit 500)",
    "delete from factors where activated_at is null and (rp_id, user_id, id) in
       (select rp_id, user_id, id from factors where activated_at is null and expires_at < $1 order by expires_at limit 500)",
    "delete from messages where (rp_id, user_id, id) in
       (select rp_id, user_id, id from messages where created_at < $1 order by created_at limit 500)",
    "delete from send_budgets where used_at < $1 and (rp_id, budget) in (select rp_id, budget from send_budgets where used_at < $1 order by used_at limit 500)",
    // A device that was unused for 180 days is not known any more (policy::throttle::DEVICE_LIFE).
    "delete from throttle_lanes where seen_at < $1 - 15552000000 and (rp_id, user_id, lane) in (select rp_id, user_id, lane from throttle_lanes where seen_at < $1 - 15552000000 order by seen_at limit 500)",
    "delete from kept_answers where created_at <= $1 and (rp_id, id) in
       (select rp_id, id from kept_answers where created_at <= $1 order by created_at limit 500)",
    // What became of an event at an endpoint can be asked for a week: six days more.
    "delete from webhook_deliveries where next_at is null and (rp_id, endpoint_id, event_id) in
       (select rp_id, endpoint_id, event_id from webhook_deliveries where next_at is null and last_at < $1 - 518400000
        order by last_at limit 500)",
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

/// Answers that were kept until `$1` lose their secrets.
const SECRETS: &str = "update kept_answers set whole = null where created_at <= $1 and (rp_id, id) in
   (select rp_id, id from kept_answers where whole is not null and created_at <= $1 order by created_at limit 500)";

/// None of these lives longer, in seconds.
const LONGEST_LIFE: i64 = 1800;

impl Store {
    /// Removes a bounded number of rows that ran out, some half an hour later; tells how many, and `None` where another node does
    /// it. Each table by itself: one that cannot be cleaned keeps none of the others from it.
    pub async fn purge(&self, purge: Purge<'_>) -> Result<Option<u64>> {
        if !self.take_lease("housekeeping", purge.node, purge.now, purge.lease).await? {
            return Ok(None);
        }
        let mut all = 0;
        let mut add = |rows: Result<u64>| match rows {
            Ok(rows) => all += rows,
            Err(error) => tracing::warn!(%error, "what ran out was not removed"),
        };
        for statement in BY_TIME {
            add(self.purge_by(statement, purge.before, None).await);
        }
        for (kind, statement) in BY_ID {
            let bound = Id::bound(kind, purge.before.plus_seconds(-LONGEST_LIFE));
            add(self.purge_by(statement, purge.before, Some(bound)).await);
        }
        add(self.purge_by(SECRETS, purge.secrets, None).await);
        Ok(Some(all))
    }

    async fn purge_by(&self, statement: &'static str, before: Timestamp, bound: Option<Id>) -> Result<u64> {
        write_one!(self, (bound) conn => {
            Ok::<u64, Error>(match &bound {
                None => sql! { conn, statement, before.0 },
                Some(bound) => sql! { conn, statement, before.0, bound.as_str() },
            })
        })
    }
}
