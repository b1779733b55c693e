//! Work that one engine at a time does, as one of them sees it: a lease that is held is written anew only when half of it is over.

use std::sync::atomic::{AtomicI64, Ordering};

use super::Engine;
use crate::model::Timestamp;
use crate::store;

/// How long the one who does the work may be silent before another takes its place, in seconds.
const LIFE: i64 = 10;

/// A lease, as far as this engine knows.
pub struct Lease {
    name: &'static str,
    /// Until when this engine holds it.
    until: AtomicI64,
}

impl Lease {
    pub const fn new(name: &'static str) -> Lease {
        Lease { name, until: AtomicI64::new(0) }
    }
}

impl Engine {
    /// Whether this engine is the one that does the work of this lease.
    pub(super) async fn holds(&self, lease: &Lease) -> Result<bool, store::Error> {
        let now = self.clock.now();
        let until = Timestamp(lease.until.load(Ordering::Relaxed));
        if (now..now.plus_seconds(LIFE)).contains(&until.plus_seconds(-LIFE / 2)) {
            return Ok(true);
        }
        let until = now.plus_seconds(LIFE);
        let taken = self.store.take_lease(lease.name, &self.node, now, until).await?;
        lease.until.store(if taken { until.0 } else { 0 }, Ordering::Relaxed);
        Ok(taken)
    }
}
