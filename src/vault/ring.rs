//! The key ring: data keys, peppers and the hashing key, each wrapped by the master key and kept in the database.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::{MasterKey, Row, Vault, key_of, open_with, seal_with};
use crate::model::Moment;

/// What a key of the ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Seals rows.
    Data,
    /// The secret of slow hashes.
    Pepper,
    /// Keyed hashes of codes and numbers.
    Hashing,
}

impl Purpose {
    /// The value that is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Data => "data",
            Purpose::Pepper => "pepper",
            Purpose::Hashing => "hashing",
        }
    }

    /// Reads the value.
    pub fn stored(text: &str) -> Option<Purpose> {
        [Purpose::Data, Purpose::Pepper, Purpose::Hashing].into_iter().find(|p| p.as_str() == text)
    }
}

/// A key of the ring as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Its number; the highest of a purpose is the current one.
    pub id: i64,
    /// What it is for.
    pub purpose: Purpose,
    /// The key, sealed by the master key.
    pub wrapped: Vec<u8>,
}

/// Why a ring does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The master key is not the one that wrapped the ring.
    #[error("the master key does not open the key ring of this database: it is another key, or the ring was altered")]
    DoesNotOpen,
    /// A purpose has no key.
    #[error("the key ring of this database is incomplete")]
    Incomplete,
}

/// Wrapped keys name no key of the ring; the master key has the number 0.
const MASTER: i64 = 0;

impl MasterKey {
    /// A first ring: one key of each purpose.
    pub fn new_ring(&self, at: &Moment<'_>) -> Vec<WrappedKey> {
        [Purpose::Data, Purpose::Pepper, Purpose::Hashing]
            .into_iter()
            .zip(1..)
            .map(|(purpose, id)| self.wrap(at, id, purpose, &Zeroizing::new(at.random())))
            .collect()
    }

    fn wrap(&self, at: &Moment<'_>, id: i64, purpose: Purpose, key: &[u8; 32]) -> WrappedKey {
        let name = id.to_string();
        WrappedKey { id, purpose, wrapped: seal_with(&key_of(&self.0), MASTER, at, row(purpose, &name), key) }
    }

    fn unwrap(&self, key: &WrappedKey) -> Result<Zeroizing<[u8; 32]>, RingError> {
        let master = key_of(&self.0);
        let name = key.id.to_string();
        let plain = open_with(|id| (id == MASTER).then_some(&master), row(key.purpose, &name), &key.wrapped)
            .map_err(|_| RingError::DoesNotOpen)?;
        plain.as_slice().try_into().map(Zeroizing::new).map_err(|_| RingError::DoesNotOpen)
    }

    /// Unwraps every key; fails where one does not open or a purpose has none.
    pub fn open_ring(&self, ring: &[WrappedKey]) -> Result<Vault, RingError> {
        let mut data = std::collections::BTreeMap::new();
        let mut peppers = std::collections::BTreeMap::new();
        let mut hashing = None;
        for key in ring {
            let plain = self.unwrap(key)?;
            match key.purpose {
                Purpose::Data => drop(data.insert(key.id, key_of(&plain))),
                Purpose::Pepper => drop(peppers.insert(key.id, plain)),
                Purpose::Hashing => hashing = Some(hmac::Key::new(hmac::HMAC_SHA256, plain.as_slice())),
            }
        }
        let hashing = hashing.ok_or(RingError::Incomplete)?;
        if data.is_empty() || peppers.is_empty() {
            return Err(RingError::Incomplete);
        }
        Ok(Vault { data, peppers, hashing })
    }
}

fn row(purpose: Purpose, name: &str) -> Row<'_> {
    Row { table: "key_ring", rp: "", user: purpose.as_str(), id: name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::model::Timestamp;

    fn at() -> Moment<'static> {
        Moment::new(Timestamp(0), &SystemRng)
    }

    /// E-07.
    #[test]
    fn another_master_key_opens_nothing() {
        let ring = MasterKey::generate(&at()).new_ring(&at());
        assert_eq!(MasterKey::generate(&at()).open_ring(&ring).err(), Some(RingError::DoesNotOpen));
    }

    #[test]
    fn a_ring_without_one_of_its_purposes_does_not_open() {
        let master = MasterKey::generate(&at());
        let ring = master.new_ring(&at());
        for missing in 0..ring.len() {
            let mut part = ring.clone();
            part.remove(missing);
            assert_eq!(master.open_ring(&part).err(), Some(RingError::Incomplete));
        }
    }

    #[test]
    fn a_key_moved_to_another_purpose_or_number_does_not_open() {
        let master = MasterKey::generate(&at());
        let ring = master.new_ring(&at());
        let mut moved = ring.clone();
        moved[0].purpose = Purpose::Pepper;
        assert_eq!(master.open_ring(&moved).err(), Some(RingError::DoesNotOpen));
        let mut renumbered = ring;
        renumbered[0].id = 9;
        assert_eq!(master.open_ring(&renumbered).err(), Some(RingError::DoesNotOpen));
    }
}
