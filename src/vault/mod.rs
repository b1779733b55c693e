//! Secrets at rest: sealing bound to a row, keyed hashes, the key ring under the master key, and the secrets that sign webhooks.
//! Knows no table and no method; whoever seals says which row it is for.

mod master;
mod ring;
mod webhook;

pub use master::{MasterKey, MasterKeyError};
pub use ring::{Purpose, RingError, WrappedKey};
pub use webhook::{WebhookSecrets, signature};

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::model::{Keyed, Moment, Timestamp};
use ring::{Ring, current};

/// Which row a sealed value belongs to; a value copied to another row does not open (requirement E-03).
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The table.
    pub table: &'static str,
    /// The relying party, or empty for rows of the engine's own.
    pub rp: &'a str,
    /// The user, or empty.
    pub user: &'a str,
    /// The row's own id.
    pub id: &'a str,
}

/// Why a sealed value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealBroken {
    /// It was altered, or belongs to another row.
    #[error("the sealed value does not open for this row")]
    Altered,
    /// Its key is not in the ring.
    #[error("the sealed value's key is not known")]
    KeyUnknown,
}

/// The unwrapped key ring. It may learn keys while it is used.
pub struct Vault(RwLock<Arc<Ring>>);

const FORM: u8 = 1;
const NONCE: usize = 12;
const HEAD: usize = 1 + 8 + NONCE;

impl Vault {
    /// Unwraps the keys of a ring; fails where a purpose has none that opens.
    pub fn new(master: &MasterKey, wrapped: &[WrappedKey]) -> Result<Vault, RingError> {
        let mut ring = Ring::default();
        ring.learn(master, wrapped);
        ring.check()?;
        Ok(Vault(RwLock::new(Arc::new(ring))))
    }

    /// Learns what was added to the ring; keys that it knows stay known.
    pub fn learn(&self, master: &MasterKey, wrapped: &[WrappedKey]) {
        // Held over the whole: of two who learn at once none may undo what the other learnt.
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut ring = Ring::clone(&known);
        ring.learn(master, wrapped);
        *known = Arc::new(ring);
    }

    /// Keys of the ring that the master key did not open when it was last read.
    pub fn closed(&self) -> Vec<i64> {
        self.ring().closed.clone()
    }

    /// Whether the ring came under another master key and has keys since then that this one cannot know: what is sealed by them
    /// would look closed, and what is sealed here may open nowhere else. A key that is merely damaged closes what it sealed.
    pub fn is_left_behind(&self) -> bool {
        self.ring().is_left_behind
    }

    /// Whether the pepper of a recovery set is known.
    pub fn knows_pepper(&self, id: i64) -> bool {
        self.ring().peppers.contains_key(&id)
    }

    fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Seals for one row. The form: version byte, key id (8 bytes, big-endian), nonce (12), AES-256-GCM ciphertext and tag.
    pub fn seal(&self, at: &Moment<'_>, row: Row<'_>, plain: &[u8]) -> Vec<u8> {
        let ring = self.ring();
        let (id, key) = current(&ring.data, at.now).expect("the ring has a data key: Vault::new checks");
        seal_with(key, id, at, row, plain)
    }

    /// Opens what was sealed for this very row.
    pub fn open(&self, row: Row<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
        let ring = self.ring();
        open_with(|id| ring.data.get(&id).map(|(_, key)| &**key), row, sealed)
    }
}

/// What every value begins with that this data key sealed.
pub fn seal_head(key_id: i64) -> Vec<u8> {
    let mut head = vec![FORM];
    head.extend(key_id.to_be_bytes());
    head
}

impl Keyed for Vault {
    fn keyed_hash(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let ring = self.ring();
        let key = ring.hashing.as_ref().expect("the ring has a hashing key: Vault::new checks");
        let mut context = hmac::Context::with_key(key);
        for part in std::iter::once(&label.as_bytes()).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
    }

    /// Argon2id with m = 4 MiB, t = 3, p = 1: small, because the codes are 80 random bits (ASVS 6.5.2, NIST SP 800-63B 3.1.2.2).
    fn slow_hash(&self, pepper: i64, salt: &[u8], code: &[u8]) -> Option<[u8; 32]> {
        let ring = self.ring();
        let (_, secret) = ring.peppers.get(&pepper)?;
        let parameters = argon2::Params::new(4096, 3, 1, Some(32)).expect("the parameters are within Argon2's bounds");
        let argon = argon2::Argon2::new_with_secret(
            secret.as_slice(),
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            parameters,
        )
        .ok()?;
        let mut out = [0; 32];
        argon.hash_password_into(code, salt, &mut out).ok()?;
        Some(out)
    }

    fn current_pepper(&self, now: Timestamp) -> i64 {
        current(&self.ring().peppers, now).map(|(id, _)| id).unwrap_or_default()
    }
}

/// SHA-256: how tokens of 256 random bits are kept (requirement K-01).
pub fn token_hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// Compares without telling how far the two agree.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(a, b).into()
}

fn key_of(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("32 bytes are a key of AES-256"))
}

fn associated(key_id: i64, row: Row<'_>) -> Vec<u8> {
    let mut bytes = seal_head(key_id);
    for part in [row.table, row.rp, row.user, row.id] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

fn seal_with(key: &LessSafeKey, key_id: i64, at: &Moment<'_>, row: Row<'_>, plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE] = at.random();
    let mut text = Zeroizing::new(plain.to_vec());
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated(key_id, row)), &mut text)
        .expect("a row is far below AES-GCM's limit of length");
    let mut sealed = Vec::with_capacity(HEAD + text.len() + tag.as_ref().len());
    sealed.extend(seal_head(key_id));
    sealed.extend(nonce);
    sealed.extend(text.iter());
    sealed.extend(tag.as_ref());
    sealed
}

fn open_with<'k>(
    key: impl Fn(i64) -> Option<&'k LessSafeKey>,
    row: Row<'_>,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
    let (head, body) = sealed.split_at_checked(HEAD).filter(|(head, _)| head[0] == FORM).ok_or(SealBroken::Altered)?;
    let key_id = i64::from_be_bytes(head[1..9].try_into().map_err(|_| SealBroken::Altered)?);
    let nonce: [u8; NONCE] = head[9..].try_into().map_err(|_| SealBroken::Altered)?;
    let key = key(key_id).ok_or(SealBroken::KeyUnknown)?;
    let mut text = Zeroizing::new(body.to_vec());
    let length = key
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(associated(key_id, row)), &mut text)
        .map_err(|_| SealBroken::Altered)?
        .len();
    text.truncate(length);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::model::Timestamp;
    use proptest::prelude::*;

    const ROW: Row<'static> = Row { table: "factors", rp: "rp_1", user: "u", id: "fac_1" };

    fn at() -> Moment<'static> {
        Moment::new(Timestamp(0), &SystemRng)
    }

    fn vault() -> Vault {
        let master = MasterKey::generate(&at());
        let ring = master.new_ring(&at());
        Vault::new(&master, &ring).expect("its own ring")
    }

    /// K-01, by the example of FIPS 180-2, B.1.
    #[test]
    fn a_token_is_kept_as_its_sha_256() {
        assert_eq!(
            crate::model::hex(&token_hash("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(same(&token_hash("abc"), &token_hash("abc")));
        assert!(!same(&token_hash("abc"), &token_hash("abd")) && !same(b"abc", b"ab"));
    }

    #[test]
    fn a_pepper_that_is_not_in_the_ring_is_not_known() {
        let vault = vault();
        let pepper = vault.current_pepper(at().now);
        assert!(vault.knows_pepper(pepper) && !vault.knows_pepper(pepper + 100));
    }

    /// E-03: table, relying party, user and row are all part of the seal.
    #[test]
    fn a_value_opens_for_its_own_row_only() {
        let vault = vault();
        let sealed = vault.seal(&at(), ROW, b"seed");
        assert_eq!(vault.open(ROW, &sealed).expect("own row").as_slice(), b"seed");
        for other in [
            Row { table: "prompts", ..ROW },
            Row { rp: "rp_2", ..ROW },
            Row { user: "v", ..ROW },
            Row { id: "fac_2", ..ROW },
            Row { rp: "rp_1u", user: "", ..ROW },
        ] {
            assert!(vault.open(other, &sealed).is_err(), "{other:?}");
        }
    }

    /// E-02.
    #[test]
    fn the_same_value_never_looks_the_same_twice() {
        let vault = vault();
        assert_ne!(vault.seal(&at(), ROW, b"seed"), vault.seal(&at(), ROW, b"seed"));
    }

    #[test]
    fn a_value_of_another_ring_does_not_open() {
        let sealed = vault().seal(&at(), ROW, b"seed");
        assert_eq!(vault().open(ROW, &sealed).unwrap_err(), SealBroken::Altered);
        let mut unknown = sealed.clone();
        unknown[8] = 9;
        assert_eq!(vault().open(ROW, &unknown).unwrap_err(), SealBroken::KeyUnknown);
    }

    #[test]
    fn parts_of_a_keyed_hash_do_not_run_together() {
        let vault = vault();
        assert_ne!(vault.keyed_hash("l", &[b"ab", b"c"]), vault.keyed_hash("l", &[b"a", b"bc"]));
        assert_ne!(vault.keyed_hash("l", &[b"a"]), vault.keyed_hash("m", &[b"a"]));
        assert_eq!(vault.keyed_hash("l", &[b"a"]), vault.keyed_hash("l", &[b"a"]));
    }

    /// E-04: a new key is known first and used later; what the old one sealed stays open.
    #[test]
    fn a_new_key_is_known_before_it_is_used() {
        let master = MasterKey::generate(&at());
        let mut ring = master.new_ring(&at());
        let vault = Vault::new(&master, &ring).expect("its own ring");
        let before = vault.seal(&at(), ROW, b"seed");
        ring.push(master.new_key(&at(), 4, Purpose::Data, Timestamp(1000)));
        ring.push(master.new_key(&at(), 5, Purpose::Pepper, Timestamp(1000)));
        vault.learn(&master, &ring);
        let sealed_at = |now| vault.seal(&Moment::new(Timestamp(now), &SystemRng), ROW, b"seed");
        let (early, late) = (sealed_at(999), sealed_at(1000));
        assert_eq!((&early[..9], &late[..9]), (seal_head(1).as_slice(), seal_head(4).as_slice()));
        assert!([before, early, late].iter().all(|sealed| vault.open(ROW, sealed).is_ok()));
        assert_eq!((vault.current_pepper(Timestamp(999)), vault.current_pepper(Timestamp(1000))), (2, 5));
        // The ring may be under another master key by now: what is known stays so.
        vault.learn(&MasterKey::generate(&at()), &ring);
        assert!(vault.closed().is_empty() && vault.open(ROW, &sealed_at(1000)).is_ok());
    }

    /// E-03, E-04: told apart from a ring of which one key is damaged.
    #[test]
    fn who_has_the_master_key_of_before_is_left_behind_by_the_next_key_of_the_ring() {
        let (old, new) = (MasterKey::generate(&at()), MasterKey::generate(&at()));
        let ring = old.new_ring(&at());
        let vault = Vault::new(&old, &ring).expect("its own ring");
        let mut moved = old.rewrap(&at(), &new, &ring).expect("the old key opens it");
        vault.learn(&old, &moved);
        assert!(!vault.is_left_behind(), "it knows all there is");
        moved.push(new.new_key(&at(), 4, Purpose::Pepper, Timestamp(1000)));
        vault.learn(&old, &moved);
        assert!(vault.is_left_behind());
        let mut damaged = ring;
        damaged.push(new.new_key(&at(), 5, Purpose::Data, Timestamp(0)));
        vault.learn(&old, &damaged);
        assert!(!vault.is_left_behind() && vault.closed() == [5]);
    }

    /// Argon2id over 4 MiB in three passes, with the pepper as its secret.
    #[test]
    fn a_slow_hash_depends_on_code_salt_and_pepper() {
        let (vault, other) = (vault(), vault());
        let pepper = vault.current_pepper(Timestamp(0));
        let base = vault.slow_hash(pepper, b"salt-salt-salt-1", b"code");
        let secret = vault.ring().peppers[&pepper].1.to_vec();
        let by_hand = |algorithm, passes, secret: &[u8]| {
            let mut parameters = argon2::ParamsBuilder::new();
            let parameters =
                parameters.m_cost(4 * 1024).t_cost(passes).p_cost(1).output_len(32).build().expect("bounds");
            let argon = argon2::Argon2::new_with_secret(secret, algorithm, argon2::Version::V0x13, parameters);
            let mut out = [0; 32];
            argon.expect("a secret").hash_password_into(b"code", b"salt-salt-salt-1", &mut out).expect("it hashes");
            Some(out)
        };
        assert_eq!(base, by_hand(argon2::Algorithm::Argon2id, 3, &secret));
        assert_ne!(base, by_hand(argon2::Algorithm::Argon2id, 3, b""), "the pepper counts");
        assert_ne!(base, by_hand(argon2::Algorithm::Argon2id, 2, &secret));
        assert_ne!(base, by_hand(argon2::Algorithm::Argon2i, 3, &secret));
        assert_eq!(pepper, other.current_pepper(Timestamp(0)), "of one number, and another value");
        assert_ne!(base, other.slow_hash(pepper, b"salt-salt-salt-1", b"code"));
        assert_ne!(base, vault.slow_hash(pepper, b"salt-salt-salt-2", b"code"));
        assert_ne!(base, vault.slow_hash(pepper, b"salt-salt-salt-1", b"cod3"));
        assert_eq!(vault.slow_hash(pepper + 1, b"salt-salt-salt-1", b"code"), None);
    }

    proptest! {
        /// E-02: a flipped bit or a cut tail is an error, never garbage.
        #[test]
        fn a_damaged_value_never_opens(plain in proptest::collection::vec(any::<u8>(), 0..64), bit in 0usize..4096, cut in 1usize..40) {
            let vault = vault();
            let sealed = vault.seal(&at(), ROW, &plain);
            let mut flipped = sealed.clone();
            let bit = bit % (sealed.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(vault.open(ROW, &flipped).is_err());
            prop_assert!(vault.open(ROW, &sealed[..sealed.len().saturating_sub(cut)]).is_err());
        }
    }
}
