//! Removes what has run out, in small steps.

use super::Engine;
use crate::store;

/// How long rows stay after they ran out, in seconds: a status can still be asked, a late answer still be told apart.
const KEPT: i64 = 86_400;

impl Engine {
    /// One small step; tells how many rows went.
    pub async fn purge(&self) -> Result<u64, store::Error> {
        let before = self.moment().now.plus_seconds(-KEPT);
        Ok(self.store.purge(before).await?.rows)
    }
}
