//! The key ring: data keys, peppers and the hashing key, each wrapped by the master key and kept in the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::{MasterKey, Row, key_of, open_with, seal_with};
use crate::model::{Moment, Timestamp, named};

named! {
    /// What a key of the ring is for.
    pub enum Purpose {
        /// Seals rows.
        Data = "data",
        /// The secret of slow hashes.
        Pepper = "pepper",
        /// Keyed hashes of codes and numbers.
        Hashing = "hashing",
    }
}

/// A key of the ring as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Its number; of a purpose the highest whose time has come is the current one.
    pub id: i64,
    /// What it is for.
    pub purpose: Purpose,
    /// The key, sealed by the master key.
    pub wrapped: Vec<u8>,
    /// From when it is used; `None` for always.
    pub active_from: Option<Timestamp>,
}

/// The keys in the clear, by number, each with the time from which it is used.
#[derive(Clone, Default)]
pub(super) struct Ring {
    pub data: BTreeMap<i64, (Option<Timestamp>, Arc<LessSafeKey>)>,
    pub peppers: BTreeMap<i64, (Option<Timestamp>, Zeroizing<[u8; 32]>)>,
    pub hashing: Option<hmac::Key>,
    /// Numbers of keys that the master key did not open.
    pub closed: Vec<i64>,
    /// The ring is under another master key by now, and has keys that came since.
    pub is_left_behind: bool,
}

impl Ring {
    /// Adds the keys that are new to it. What it knows already is not unwrapped again: it may be wrapped by another master key by now.
    /// A data key that was removed, and has a newer one in its place, is forgotten: by a clock that is behind it would still be the
    /// current one, and what it sealed would open nowhere else.
    pub fn learn(&mut self, master: &MasterKey, wrapped: &[WrappedKey]) {
        self.closed.clear();
        for key in wrapped {
            let known = match key.purpose {
                Purpose::Data => self.data.contains_key(&key.id),
                Purpose::Pepper => self.peppers.contains_key(&key.id),
                Purpose::Hashing => self.hashing.is_some(),
            };
            if known {
                continue;
            }
            let Ok(plain) = master.unwrap(key) else {
                self.closed.push(key.id);
                continue;
            };
            match key.purpose {
                Purpose::Data => drop(self.data.insert(key.id, (key.active_from, Arc::new(key_of(&plain))))),
                Purpose::Pepper => drop(self.peppers.insert(key.id, (key.active_from, plain))),
                Purpose::Hashing => self.hashing = Some(hmac::Key::new(hmac::HMAC_SHA256, plain.as_slice())),
            }
        }
        self.is_left_behind = !self.closed.is_empty() && wrapped.iter().all(|key| master.unwrap(key).is_err());
        let there: BTreeSet<i64> = wrapped.iter().filter(|k| k.purpose == Purpose::Data).map(|k| k.id).collect();
        let newest = there.last().filter(|id| self.data.contains_key(id)).copied().unwrap_or_default();
        self.data.retain(|id, _| *id >= newest || there.contains(id));
    }

    /// Whether each purpose has a key.
    pub fn check(&self) -> Result<(), RingError> {
        let complete = !self.data.is_empty() && !self.peppers.is_empty() && self.hashing.is_some();
        match (complete, self.closed.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => Err(RingError::Incomplete),
            (false, false) => Err(RingError::DoesNotOpen),
        }
    }
}

/// The newest key whose time has come; the oldest where none has.
pub(super) fn current<K>(keys: &BTreeMap<i64, (Option<Timestamp>, K)>, now: Timestamp) -> Option<(i64, &K)> {
    let active = |(_, (from, _)): &(&i64, &(Option<Timestamp>, K))| from.is_none_or(|from| from <= now);
    keys.iter().rev().find(active).or(keys.first_key_value()).map(|(id, (_, key))| (*id, key))
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

    /// A new key of a ring, to be used from this time on.
    pub fn new_key(&self, at: &Moment<'_>, id: i64, purpose: Purpose, active_from: Timestamp) -> WrappedKey {
        WrappedKey { active_from: Some(active_from), ..self.wrap(at, id, purpose, &Zeroizing::new(at.random())) }
    }

    /// The same keys under another master key.
    pub fn rewrap(&self, at: &Moment<'_>, new: &MasterKey, ring: &[WrappedKey]) -> Result<Vec<WrappedKey>, RingError> {
        let rewrapped = |key: &WrappedKey| {
            let plain = self.unwrap(key)?;
            Ok(WrappedKey { active_from: key.active_from, ..new.wrap(at, key.id, key.purpose, &plain) })
        };
        ring.iter().map(rewrapped).collect()
    }

    fn wrap(&self, at: &Moment<'_>, id: i64, purpose: Purpose, key: &[u8; 32]) -> WrappedKey {
        let name = id.to_string();
        let wrapped = seal_with(&key_of(&self.0), MASTER, at, row(purpose, &name), key);
        WrappedKey { id, purpose, wrapped, active_from: None }
    }

    fn unwrap(&self, key: &WrappedKey) -> Result<Zeroizing<[u8; 32]>, RingError> {
        let master = key_of(&self.0);
        let name = key.id.to_string();
        let plain = open_with(|id| (id == MASTER).then_some(&master), row(key.purpose, &name), &key.wrapped)
            .map_err(|_| RingError::DoesNotOpen)?;
        plain.as_slice().try_into().map(Zeroizing::new).map_err(|_| RingError::DoesNotOpen)
    }
}

fn row(purpose: Purpose, name: &str) -> Row<'_> {
    Row { table: "key_ring", rp: "", user: purpose.as_str(), id: name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::vault::{Vault, seal_head};

    fn at() -> Moment<'static> {
        Moment::new(Timestamp(0), &SystemRng)
    }

    /// E-07.
    #[test]
    fn another_master_key_opens_nothing() {
        let ring = MasterKey::generate(&at()).new_ring(&at());
        assert_eq!(Vault::new(&MasterKey::generate(&at()), &ring).err(), Some(RingError::DoesNotOpen));
    }

    #[test]
    fn a_purpose_reads_as_it_was_written_and_nothing_else_does() {
        for key in MasterKey::generate(&at()).new_ring(&at()) {
            assert_eq!(Purpose::parse(key.purpose.as_str()), Some(key.purpose));
        }
        assert_eq!(Purpose::parse("other"), None);
    }

    /// E-04: a key that is not used yet is not used earlier under the new master key.
    #[test]
    fn rewrapping_leaves_the_first_use_of_a_key_as_it_was() {
        let (old, new) = (MasterKey::generate(&at()), MasterKey::generate(&at()));
        let mut ring = old.new_ring(&at());
        ring.push(old.new_key(&at(), 9, Purpose::Data, Timestamp(77)));
        let rewrapped = old.rewrap(&at(), &new, &ring).expect("its own ring");
        let from = |ring: &[WrappedKey]| ring.iter().map(|key| (key.id, key.active_from)).collect::<Vec<_>>();
        assert_eq!(from(&rewrapped), from(&ring));
        assert!(Vault::new(&new, &rewrapped).is_ok() && Vault::new(&old, &rewrapped).is_err());
    }

    #[test]
    fn a_ring_without_one_of_its_purposes_does_not_open() {
        let master = MasterKey::generate(&at());
        let ring = master.new_ring(&at());
        for missing in 0..ring.len() {
            let mut part = ring.clone();
            part.remove(missing);
            assert_eq!(Vault::new(&master, &part).err(), Some(RingError::Incomplete));
        }
    }

    #[test]
    fn a_key_moved_to_another_purpose_or_number_does_not_open() {
        let master = MasterKey::generate(&at());
        let ring = master.new_ring(&at());
        let mut moved = ring.clone();
        moved[0].purpose = Purpose::Pepper;
        assert_eq!(Vault::new(&master, &moved).err(), Some(RingError::DoesNotOpen));
        let mut renumbered = ring;
        renumbered[0].id = 9;
        assert_eq!(Vault::new(&master, &renumbered).err(), Some(RingError::DoesNotOpen));
    }

    /// E-04: whatever the clock says, nothing more is sealed by a data key that was removed. A list that is older than what is known,
    /// or whose newest key does not open, is no reason to forget.
    #[test]
    fn a_removed_data_key_is_forgotten() {
        let master = MasterKey::generate(&at());
        let mut old = master.new_ring(&at());
        let vault = Vault::new(&master, &old).expect("it opens");
        let place = Row { table: "t", rp: "r", user: "u", id: "1" };
        let sealed_by = |vault: &Vault| vault.seal(&at(), place, b"x")[..9].to_vec();
        let mut new = old.clone();
        new.push(master.new_key(&at(), 9, Purpose::Data, Timestamp(1_000)));
        vault.learn(&master, &new);
        assert_eq!(sealed_by(&vault), seal_head(old[0].id), "its time has not come");
        new.retain(|key| key.purpose != Purpose::Data || key.id == 9);
        vault.learn(&master, &new);
        assert_eq!(sealed_by(&vault), seal_head(9));
        vault.learn(&master, &old);
        assert_eq!(sealed_by(&vault), seal_head(old[0].id), "both are known, and the first is the current one");
        assert!(vault.open(place, &vault.seal(&at(), place, b"x")).is_ok());
        old.retain(|key| key.purpose != Purpose::Data);
        old.push(MasterKey::generate(&at()).new_key(&at(), 12, Purpose::Data, Timestamp(0)));
        vault.learn(&master, &old);
        assert!(sealed_by(&vault) != seal_head(12), "what does not open takes nobody's place");
    }

    /// E-03: one damaged key closes what it sealed, and nothing else.
    #[test]
    fn a_ring_opens_without_the_key_that_is_damaged() {
        let master = MasterKey::generate(&at());
        let mut ring = master.new_ring(&at());
        let mut damaged = master.new_key(&at(), 4, Purpose::Data, Timestamp(0));
        damaged.wrapped[30] ^= 1;
        ring.push(damaged);
        let vault = Vault::new(&master, &ring).expect("the others open");
        assert_eq!(vault.closed(), [4]);
    }

    /// E-04.
    #[test]
    fn a_ring_opens_under_the_new_master_key_alone() {
        let (old, new) = (MasterKey::generate(&at()), MasterKey::generate(&at()));
        let ring = old.new_ring(&at());
        let rewrapped = old.rewrap(&at(), &new, &ring).expect("the old key opens it");
        assert!(Vault::new(&new, &rewrapped).is_ok());
        assert_eq!(Vault::new(&old, &rewrapped).err(), Some(RingError::DoesNotOpen));
        assert_eq!(new.rewrap(&at(), &old, &ring).err(), Some(RingError::DoesNotOpen));
    }
}
