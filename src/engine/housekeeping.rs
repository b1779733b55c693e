//! What goes on beside requests: removing what has run out, in small steps, and counting for the metrics.

use super::{Engine, idempotency};
use crate::measure;
use crate::store::{self, Purge};

/// How long rows stay after they ran out, in seconds: a status can still be asked, a late answer still be told apart.
const KEPT: i64 = 86_400;
/// How long a node that has begun keeps the others from it, in seconds: longer than its pauses, so that one does it until it ends.
const LEASE: i64 = 300;

impl Engine {
    /// Counts the users whose guessing pauses now, for the metrics.
    pub async fn count_paused(&self) -> Result<(), store::Error> {
        measure::paused(self.store.paused(self.moment().now).await?);
        Ok(())
    }

    /// The metrics of this process, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let (used, idle) = self.store.pool();
        measure::pool(used, idle);
        measure::text()
    }

    /// One small step, unless another node does it; tells how many rows went.
    pub async fn purge(&self) -> Result<u64, store::Error> {
        let now = self.moment().now;
        let (lease, before) = (now.plus_seconds(LEASE), now.plus_seconds(-KEPT));
        let secrets = now.plus_seconds(-idempotency::WHOLE);
        Ok(self.store.purge(Purge { node: &self.node, now, lease, before, secrets }).await?.unwrap_or_default())
    }
}
