//! Secrets at rest: sealing bound to a row, keyed hashes, and the key ring under the master key.
//! Knows no table and no method; whoever seals says which row it is for.

mod master;
mod ring;

pub use master::{MasterKey, MasterKeyError};
pub use ring::{Purpose, RingError, WrappedKey};

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::model::{Keyed, Moment};

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

/// A sealed value that does not open: altered, of another row, or of a key that is not in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value does not open for this row")]
pub struct SealBroken;

/// The unwrapped key ring.
pub struct Vault {
    data: BTreeMap<i64, LessSafeKey>,
    peppers: BTreeMap<i64, Zeroizing<[u8; 32]>>,
    hashing: hmac::Key,
}

const FORM: u8 = 1;
const NONCE: usize = 12;
const HEAD: usize = 1 + 8 + NONCE;

impl Vault {
    /// Seals for one row. The form: version byte, key id (8 bytes, big-endian), nonce (12), AES-256-GCM ciphertext and tag.
    pub fn seal(&self, at: &Moment<'_>, row: Row<'_>, plain: &[u8]) -> Vec<u8> {
        let (id, key) = self.data.last_key_value().expect("the ring has a data key: Vault::open checks");
        seal_with(key, *id, at, row, plain)
    }

    /// Opens what was sealed for this very row.
    pub fn open(&self, row: Row<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
        open_with(|id| self.data.get(&id), row, sealed)
    }
}

impl Keyed for Vault {
    fn keyed_hash(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.hashing);
        for part in std::iter::once(&label.as_bytes()).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
    }

    /// Argon2id with m = 4 MiB, t = 3, p = 1: small, because the codes are 80 random bits (ASVS 6.5.2, NIST SP 800-63B 3.1.2.2).
    fn slow_hash(&self, pepper: i64, salt: &[u8], code: &[u8]) -> Option<[u8; 32]> {
        let secret = self.peppers.get(&pepper)?;
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

    fn current_pepper(&self) -> i64 {
        self.peppers.last_key_value().map(|(id, _)| *id).unwrap_or_default()
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
    let mut bytes = vec![FORM];
    bytes.extend(key_id.to_be_bytes());
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
    sealed.push(FORM);
    sealed.extend(key_id.to_be_bytes());
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
    let (head, body) = sealed.split_at_checked(HEAD).ok_or(SealBroken)?;
    let key_id = i64::from_be_bytes(head[1..9].try_into().map_err(|_| SealBroken)?);
    let nonce: [u8; NONCE] = head[9..].try_into().map_err(|_| SealBroken)?;
    let key = key(key_id).filter(|_| head[0] == FORM).ok_or(SealBroken)?;
    let mut text = Zeroizing::new(body.to_vec());
    let length = key
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(associated(key_id, row)), &mut text)
        .map_err(|_| SealBroken)?
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
        master.open_ring(&ring).expect("its own ring")
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
        assert_eq!(vault().open(ROW, &sealed).unwrap_err(), SealBroken);
    }

    #[test]
    fn parts_of_a_keyed_hash_do_not_run_together() {
        let vault = vault();
        assert_ne!(vault.keyed_hash("l", &[b"ab", b"c"]), vault.keyed_hash("l", &[b"a", b"bc"]));
        assert_ne!(vault.keyed_hash("l", &[b"a"]), vault.keyed_hash("m", &[b"a"]));
        assert_eq!(vault.keyed_hash("l", &[b"a"]), vault.keyed_hash("l", &[b"a"]));
    }

    ///
    #[test]
    fn a_slow_hash_depends_on_code_salt_and_pepper() {
        let vault = vault();
        let pepper = vault.current_pepper();
        let base = vault.slow_hash(pepper, b"salt-salt-salt-1", b"code");
        assert!(base.is_some());
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
