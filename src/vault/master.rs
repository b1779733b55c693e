//! The master key: given at start, never stored, only used to wrap the keys of the ring.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::model::Moment;

/// 256 bits that wrap the key ring.
pub struct MasterKey(pub(super) Zeroizing<[u8; 32]>);

/// Why a text is no master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 bytes in base64url (43 characters), as `countersign master-key generate` prints them")]
pub struct MasterKeyError;

impl MasterKey {
    /// A new key.
    pub fn generate(at: &Moment<'_>) -> MasterKey {
        MasterKey(Zeroizing::new(at.random()))
    }

    /// Reads what [`MasterKey::text`] wrote; white space around it and base64 padding are forgiven.
    pub fn parse(text: &str) -> Result<MasterKey, MasterKeyError> {
        let bytes =
            Zeroizing::new(URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).map_err(|_| MasterKeyError)?);
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| MasterKeyError)?;
        Ok(MasterKey(Zeroizing::new(key)))
    }

    /// Base64url without padding.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::model::Timestamp;

    #[test]
    fn a_key_is_43_characters_and_nothing_else() {
        let at = Moment::new(Timestamp(0), &SystemRng);
        let text = MasterKey::generate(&at).text();
        assert_eq!(text.len(), 43);
        assert!(MasterKey::parse(&format!(" {}\n", text.as_str())).is_ok());
        for bad in ["", "abc", &text[1..], &format!("{}A", text.as_str()), "not base64 url!"] {
            assert!(MasterKey::parse(bad).is_err(), "{bad}");
        }
    }
}
