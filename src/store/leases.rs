//! Work that one node at a time does. A lease is taken in the transaction that does the work, so that one which ran out meanwhile
//! harms nothing.

use super::{Error, Result, Store};
use crate::model::Timestamp;

/// Takes or keeps a lease on the connection of a writing body; tells whether it is held. One that lasts longer than ten of this
/// length was taken by a clock that is far ahead, and holds nobody up.
macro_rules! lease {
    ($conn:expr, $name:expr, $holder:expr, $now:expr, $until:expr) => {
        sql! { $conn,
            "insert into leases (name, holder, expires_at) values ($1, $2, $3)
             on conflict (name) do update set holder = excluded.holder, expires_at = excluded.expires_at
             where leases.holder = excluded.holder or leases.expires_at <= $4 or leases.expires_at > $5",
            $name, $holder, $until.0, $now.0, $now.0 + 10 * ($until.0 - $now.0)
        } == 1
    };
}

impl Store {
    /// Takes or keeps a lease; tells whether this holder has it now.
    pub async fn take_lease(&self, name: &str, holder: &str, now: Timestamp, until: Timestamp) -> Result<bool> {
        write!(self, (name, holder) conn => {
            Ok::<bool, Error>(lease!(conn, &name, &holder, now, until))
        })
    }
}
