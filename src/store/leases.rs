//! Work that one node at a time does. What is done under a lease that ran out meanwhile harms nothing: it is conditional itself, or
//! may be done twice.

use super::{Error, Result, Store};
use crate::model::Timestamp;

impl Store {
    /// Takes or keeps a lease; tells whether this holder has it now. One that lasts longer than ten of this length was taken by a
    /// clock that is far ahead, and holds nobody up.
    pub async fn take_lease(&self, name: &str, holder: &str, now: Timestamp, until: Timestamp) -> Result<bool> {
        let far_ahead = now.0 + 10 * (until.0 - now.0);
        write_one!(self, (name, holder) conn => {
            let taken = sql! { conn,
                "insert into leases (name, holder, expires_at) values ($1, $2, $3)
                 on conflict (name) do update set holder = excluded.holder, expires_at = excluded.expires_at
                 where leases.holder = excluded.holder or leases.expires_at <= $4 or leases.expires_at > $5",
                &name, &holder, until.0, now.0, far_ahead
            };
            Ok::<bool, Error>(taken == 1)
        })
    }
}
