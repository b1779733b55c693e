//! An authenticator for the unit tests of this room. What it says is honest until a test changes a part of it; it signs what it
//! says then, so that nothing but the change is wrong.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_cbor_2::Value as Cbor;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

// Flags of authenticator data (WebAuthn L3, 6.1).
pub const PRESENT: u8 = 0x01;
pub const VERIFIED: u8 = 0x04;
pub const ELIGIBLE: u8 = 0x08;
pub const BACKED_UP: u8 = 0x10;
pub const ATTESTED: u8 = 0x40;
pub const EXTENDED: u8 = 0x80;

/// The AAGUID of Bitwarden.
pub const AAGUID: [u8; 16] = 0xd548826e_79b4_db40_a3d8_11116f7e8349_u128.to_be_bytes();

/// One key pair.
pub struct Authenticator {
    key: SigningKey,
    pub id: Vec<u8>,
}

/// What is said, part by part.
pub struct Said {
    /// The members of the client data.
    pub client: Json,
    /// The domain that is hashed into the authenticator data.
    pub domain: String,
    pub flags: u8,
    pub counter: u32,
    /// What follows the counter: the attested credential, extensions, or what does not belong there.
    pub rest: Vec<u8>,
    /// The members around the response.
    pub outer: Json,
    /// The members of the response, beside those that are made of the parts above.
    pub response: Json,
    /// The attestation object without its `authData`.
    pub object: BTreeMap<Cbor, Cbor>,
    /// Bytes behind the attestation object or, in an assertion, behind the signature.
    pub tail: Vec<u8>,
}

impl Authenticator {
    /// A pair of its own; pairs of different numbers have different keys and ids.
    pub fn new(number: u8) -> Authenticator {
        let key = SigningKey::from_slice(&[number; 32]).expect("a scalar");
        Authenticator { key, id: vec![number; 20] }
    }

    pub fn id_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.id)
    }

    /// The members of the public key (RFC 9053, 7.1).
    pub fn public_key(&self) -> BTreeMap<Cbor, Cbor> {
        // SEC 1, 2.3.3: 04, then both coordinates of 32 bytes
        let point = self.key.verifying_key().to_sec1_point(false);
        let coordinate = |place| Cbor::Bytes(point.as_bytes()[place..place + 32].to_vec());
        BTreeMap::from([
            (Cbor::Integer(1), Cbor::Integer(2)),
            (Cbor::Integer(3), Cbor::Integer(-7)),
            (Cbor::Integer(-1), Cbor::Integer(1)),
            (Cbor::Integer(-2), coordinate(1)),
            (Cbor::Integer(-3), coordinate(33)),
        ])
    }

    /// Attested credential data (WebAuthn L3, 6.5.1) around this length, id and key.
    pub fn attested(&self, length: usize, id: &[u8], key: &Cbor) -> Vec<u8> {
        let length = u16::try_from(length).expect("a length of two bytes").to_be_bytes();
        [&AAGUID[..], &length, id, &cbor(key)].concat()
    }

    /// The truth of a registration.
    pub fn registers(&self, challenge: &Json) -> Said {
        let text = |text: &str| Cbor::Text(text.to_owned());
        Said {
            rest: self.attested(self.id.len(), &self.id, &Cbor::Map(self.public_key())),
            flags: PRESENT | VERIFIED | ATTESTED,
            counter: 0,
            object: BTreeMap::from([(text("fmt"), text("none")), (text("attStmt"), Cbor::Map(BTreeMap::new()))]),
            ..self.says("webauthn.create", challenge)
        }
    }

    /// The truth of an assertion with this counter.
    pub fn asserts(&self, challenge: &Json, counter: u32) -> Said {
        Said { counter, ..self.says("webauthn.get", challenge) }
    }

    fn says(&self, kind: &str, challenge: &Json) -> Said {
        Said {
            client: json!({"type": kind, "challenge": challenge, "origin": "https://www.bank.example"}),
            domain: "bank.example".to_owned(),
            flags: PRESENT | VERIFIED,
            counter: 0,
            rest: Vec::new(),
            outer: json!({"type": "public-key", "id": self.id_text(), "rawId": self.id_text(),
                "clientExtensionResults": {}}),
            response: json!({}),
            object: BTreeMap::new(),
            tail: Vec::new(),
        }
    }

    /// The credential of a registration, as a browser gives it.
    pub fn registration(&self, said: &Said) -> Json {
        let mut object = said.object.clone();
        object.entry(Cbor::Text("authData".to_owned())).or_insert_with(|| Cbor::Bytes(said.data()));
        let bytes = [cbor(&Cbor::Map(object)), said.tail.clone()].concat();
        said.credential(json!({"attestationObject": URL_SAFE_NO_PAD.encode(bytes)}))
    }

    /// The credential of an assertion, as a browser gives it.
    pub fn assertion(&self, said: &Said) -> Json {
        let signed = [&said.data()[..], &Sha256::digest(said.client.to_string())].concat();
        let signature: Signature = self.key.sign(&signed);
        let signature = [signature.to_der().as_bytes(), &said.tail].concat();
        said.credential(json!({"authenticatorData": URL_SAFE_NO_PAD.encode(said.data()),
            "signature": URL_SAFE_NO_PAD.encode(signature)}))
    }
}

impl Said {
    fn data(&self) -> Vec<u8> {
        let domain = Sha256::digest(&self.domain);
        [&domain[..], &[self.flags], &self.counter.to_be_bytes(), &self.rest].concat()
    }

    fn credential(&self, made: Json) -> Json {
        let mut credential = self.outer.clone();
        credential["response"] = made;
        credential["response"]["clientDataJSON"] = json!(URL_SAFE_NO_PAD.encode(self.client.to_string()));
        for (name, value) in self.response.as_object().expect("members") {
            credential["response"][name] = value.clone();
        }
        credential
    }
}

pub fn cbor(value: &Cbor) -> Vec<u8> {
    serde_cbor_2::to_vec(value).expect("CBOR")
}
