//! Removes what has run out, in small steps.

use super::{Engine, idempotency};
use crate::store;

/// How long rows stay after they ran out, in seconds: a status can still be asked, a late answer still be told apart.
const KEPT: i64 = 86_400;

impl Engine {
    /// One small step; tells how many rows went.
    pub async fn purge(&self) -> Result<u64, store::Error> {
        let now = self.moment().now;
        Ok(self.store.purge(now.plus_seconds(-KEPT), now.plus_seconds(-idempotency::WHOLE)).await?.rows)
    }
}
