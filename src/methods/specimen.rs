//! People, factors and questions for the unit tests of the methods: each stands for what the engine would hand over.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Answer, Exam, Held, Parties};
use crate::model::{Details, Factor, Id, Keyed, Kind, MethodKind, Mode, RecoverySet, RelyingParty, Timestamp, User};

/// When everything happens.
pub const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// The person's user handle.
pub const HANDLE: [u8; 16] = [7; 16];

/// Hashes that tell apart what they are made of, and keep nothing secret.
pub struct OpenKeys;

impl Keyed for OpenKeys {
    fn keyed_hash(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new_with_prefix(label);
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn slow_hash(&self, pepper: i64, salt: &[u8], code: &[u8]) -> Option<[u8; 32]> {
        (pepper == 1).then(|| self.keyed_hash("slow", &[salt, code]))
    }

    fn current_pepper(&self, _now: Timestamp) -> i64 {
        1
    }
}

/// A person called `ann` at a bank.
pub fn parties() -> Parties {
    Parties {
        rp: Arc::new(RelyingParty {
            id: Id::from_bytes(Kind::RelyingParty, [1; 16]),
            name: "Bank".to_owned(),
            host: "bank.example".to_owned(),
            mode: Mode::Live,
            origins: Vec::new(),
            return_urls: Vec::new(),
            created_at: NOW,
        }),
        origins: vec!["https://www.bank.example".to_owned()],
        user: User {
            display_name: Some("Ann Other".to_owned()),
            login_hint: Some("ann@mail.example".to_owned()),
            ..User::unnamed("ann", HANDLE, NOW)
        },
        purpose: "pay 12 euros".to_owned(),
    }
}

/// A factor of hers; factors of different numbers have different ids.
pub fn held(number: u8, kind: MethodKind, details: Details, secret: &[u8]) -> Held {
    let pending = Factor::new(Id::from_bytes(Kind::Factor, [number; 16]), "ann", kind, details, NOW, NOW);
    Held { factor: Factor { activated_at: Some(NOW), version: 5, ..pending }, secret: Zeroizing::new(secret.to_vec()) }
}

/// The question whether this answer is right.
pub fn exam(held: Vec<Held>, state: Option<Zeroizing<Vec<u8>>>, answer: Answer) -> Exam {
    Exam {
        now: NOW,
        parties: Arc::new(parties()),
        owner: owner(),
        held,
        state,
        recovery: None,
        answer,
        keyed: Arc::new(OpenKeys),
    }
}

/// The challenge that asks.
pub fn owner() -> Id {
    Id::from_bytes(Kind::Challenge, [3; 16])
}

/// A typed code.
pub fn code(text: &str) -> Answer {
    Answer::Code(Zeroizing::new(text.to_owned()))
}

/// An answer of the kind that no code method takes.
pub fn credential() -> Answer {
    Answer::Credential(serde_json::json!({}))
}

/// A set of which these codes are left.
pub fn recovery_set(codes: &[&str]) -> RecoverySet {
    let unused = codes.iter().map(|code| OpenKeys.keyed_hash("slow", &[b"salt", code.as_bytes()]).to_vec());
    RecoverySet {
        id: Id::from_bytes(Kind::RecoverySet, [4; 16]),
        salt: b"salt".to_vec(),
        pepper: 1,
        unused: unused.collect(),
    }
}
