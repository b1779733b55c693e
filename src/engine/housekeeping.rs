//! What goes on beside requests: removing what has run out, in small steps, and counting for the metrics.

use super::Engine;
use crate::measure;
use crate::model::MethodKind;
use crate::store;

/// How long rows stay after they ran out, in seconds: a status can still be asked, a late answer still be told apart.
const KEPT: i64 = 86_400;

impl Engine {
    /// Counts the users whose guessing pauses now, for the metrics.
    pub async fn count_paused(&self) -> Result<(), store::Error> {
        let paused = self.store.paused(self.moment().now).await?;
        for method in MethodKind::ALL {
            measure::paused(method, paused.iter().find(|(m, _)| *m == method).map_or(0, |(_, users)| *users));
        }
        Ok(())
    }

    /// The metrics of this process, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let (used, idle) = self.store.pool();
        measure::pool(used, idle);
        measure::text()
    }

    /// One small step; tells how many rows went.
    pub async fn purge(&self) -> Result<u64, store::Error> {
        let before = self.moment().now.plus_seconds(-KEPT);
        Ok(self.store.purge(before).await?.rows)
    }
}
