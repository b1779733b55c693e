//! What comes from outside, damaged at random: nothing panics, and nothing that was changed passes for what it was.
//! `bash tests/torture.sh CASES` runs as many cases of each; few if not said.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use countersign::methods::{Shown, recovery_code, six_digits, sms, totp};
use countersign::model::{Acr, Grant, Number, Session};
use countersign::token::{ClientToken, Signer, SigningKey, new_signing_key};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn config() -> ProptestConfig {
    let cases = std::env::var("COUNTERSIGN_TORTURE").ok().and_then(|n| n.parse().ok()).unwrap_or(64);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Some damage: at a place, of a kind, with a byte.
fn damage() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    prop::collection::vec((any::<Index>(), 0u8..7, any::<u8>()), 1..5)
}

fn damaged(bytes: &[u8], damage: &[(Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, kind, byte) in damage {
        let at = place.index(bytes.len() + 1);
        let behind = bytes.len() - at;
        match kind {
            0 if behind > 0 => bytes[at] ^= 1 << (byte % 8),
            1 if behind > 0 => bytes[at] = *byte,
            2 => bytes.truncate(at),
            3 if behind > 0 => drop(bytes.remove(at)),
            4 => bytes.extend_from_within(at..at + usize::from(*byte).min(behind)),
            _ => bytes.insert(at, *byte),
        }
    }
    bytes
}

/// The same of a text; what is no longer UTF-8 is read as well as it goes.
fn damaged_text(text: &str, damage: &[(Index, u8, u8)]) -> String {
    String::from_utf8_lossy(&damaged(text.as_bytes(), damage)).into_owned()
}

/// A true registration and a true assertion of one key.
fn truth() -> (Value, Value) {
    let random = SystemRandom::new();
    let kind = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(kind, document.as_ref()).expect("its own form");
    let point = key.public_key().as_ref();
    let cose = Cbor::Map(BTreeMap::from([
        (Cbor::Integer(1), Cbor::Integer(2)),
        (Cbor::Integer(3), Cbor::Integer(-7)),
        (Cbor::Integer(-1), Cbor::Integer(1)),
        (Cbor::Integer(-2), Cbor::Bytes(point[1..33].to_vec())),
        (Cbor::Integer(-3), Cbor::Bytes(point[33..].to_vec())),
    ]));
    let mut assertion = json!({"rpId": "bank.example", "origin": "https://bank.example",
        "credentialPublicKeyCose": URL_SAFE_NO_PAD.encode(serde_cbor_2::to_vec(&cose).expect("CBOR"))});
    let registration = registration_of_key(&assertion, &[9; 16], false, Verification::Required);
    let client_data = json!({"type": "webauthn.get", "challenge": "AAAA", "origin": assertion["origin"]}).to_string();
    let hash = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut data = hash(b"bank.example").as_ref().to_vec();
    data.extend([0x05, 0, 0, 0, 1]);
    let signed = [&data[..], hash(client_data.as_bytes()).as_ref()].concat();
    assertion["clientDataJSON"] = json!(URL_SAFE_NO_PAD.encode(client_data));
    assertion["authenticatorData"] = json!(URL_SAFE_NO_PAD.encode(data));
    assertion["signature"] = json!(URL_SAFE_NO_PAD.encode(key.sign(&random, &signed).expect("it signs")));
    (registration, assertion)
}

fn damage_member(of: &Value, member: &str, damage: &[(Index, u8, u8)]) -> Option<Value> {
    let (was, mut changed) = (bytes(of, member), of.clone());
    let is = damaged(&was, damage);
    changed[member] = json!(URL_SAFE_NO_PAD.encode(&is));
    (was != is).then_some(changed)
}

/// WR-05, WR-19, WA-08.
#[test]
fn torture_of_ceremonies() {
    let (registration, assertion) = truth();
    let of = Verification::Required;
    let held = register(&registration, "AAAA", of).expect("the truth");
    let id = text(&registration, "credentialId");
    assert(&assertion, id, "AAAA", held.clone(), of).expect("the truth");
    // What reads as the same address is not the same origin.
    for origin in ["Https://bank.example", "https://bank.example/", "https://bank.example:443", "https://BANK.example"]
    {
        let said = json!({"type": "webauthn.create", "challenge": "AAAA", "origin": origin}).to_string();
        let mut changed = registration.clone();
        changed["clientDataJSON"] = json!(URL_SAFE_NO_PAD.encode(said));
        assert_eq!(register(&changed, "AAAA", of).map(drop).map_err(word), Err("origin".to_owned()), "{origin}");
    }
    proptest!(config(), |(damage in damage())| {
        for member in ["clientDataJSON", "attestationObject"] {
            let Some(changed) = damage_member(&registration, member, &damage) else { continue };
            // An attestation of `none` signs nothing: a change may make another true registration, of the same site and id.
            if let Ok(held) = register(&changed, "AAAA", of) {
                prop_assert_eq!(held.factor.credential_id.as_deref(), Some(id));
                let said: Value = serde_json::from_slice(&bytes(&changed, "clientDataJSON")).expect("JSON");
                prop_assert_eq!(&said["type"], "webauthn.create");
                prop_assert_eq!(&said["challenge"], "AAAA");
                prop_assert_eq!(&said["origin"], "https://bank.example");
            }
        }
        for member in ["clientDataJSON", "authenticatorData", "signature"] {
            let Some(changed) = damage_member(&assertion, member, &damage) else { continue };
            prop_assert!(assert(&changed, id, "AAAA", held.clone(), of).is_err(), "{}", changed);
        }
    });
}

/// T-04, T-20.
#[test]
fn torture_of_codes() {
    proptest!(config(), |(damage in damage(), any in any::<String>())| {
        for text in [damaged_text("123456", &damage), damaged_text("#１２３-４５６", &damage), any.clone()] {
            if let Ok(code) = six_digits(&text) {
                prop_assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()));
            }
        }
        for text in [damaged_text("0123-4567-89AB-CDEF", &damage), any] {
            let answer = Answer::Code(Zeroizing::new(text.clone()));
            let formed = recovery_code::RecoveryCode.check_form(&answer).is_ok();
            prop_assert_eq!(formed, recovery_code::hash(&Echo, 1, b"", &text).is_some());
        }
    });
}

/// Hashes to something wherever it is asked.
struct Echo;

impl Keyed for Echo {
    fn keyed_hash(&self, _label: &str, _parts: &[&[u8]]) -> [u8; 32] {
        [0; 32]
    }

    fn slow_hash(&self, _pepper: i64, _salt: &[u8], code: &[u8]) -> Option<[u8; 32]> {
        assert_eq!((code.len(), code.is_ascii()), (16, true));
        Some([0; 32])
    }

    fn current_pepper(&self, _now: Timestamp) -> i64 {
        0
    }
}

/// P-14.
#[test]
fn torture_of_phone_numbers() {
    let sms = sms::Sms::new(None);
    proptest!(config(), |(damage in damage(), any in any::<String>(), digits in "\\+[0-9]{1,17}")| {
        for text in [damaged_text("+14155550123", &damage), any, digits] {
            let Some(number) = Number::parse(&text) else { continue };
            prop_assert!((8..=16).contains(&text.len()) && text[1..].bytes().all(|b| b.is_ascii_digit()));
            let _ = sms.country(&number);
            let shown = number.masked();
            prop_assert!(shown.ends_with(&text[text.len() - 2..]) && shown.bytes().filter(u8::is_ascii_digit).count() == 2);
        }
    });
}

/// T-16.
#[test]
fn torture_of_otpauth_names() {
    proptest!(config(), |(issuer in any::<String>(), account in any::<String>(), damage in damage())| {
        let account = damaged_text(&format!("{account}?issuer=Evil&secret=AAAA#/%3A:%00"), &damage);
        let mut parties = parties(&json!({"rpId": "bank.example", "origin": "https://bank.example"}));
        let rp = RelyingParty { name: issuer, ..(*parties.rp).clone() };
        (parties.rp, parties.user.login_hint) = (Arc::new(rp), Some(account));
        let Shown::Totp { otpauth_uri, .. } = totp::set_up(&parties, &[7; 20]) else { panic!("a TOTP set-up") };
        let url = url::Url::parse(&otpauth_uri).expect("an address");
        let named = |name: &str| url.query_pairs().filter(|(k, _)| k == name).count();
        prop_assert_eq!((url.scheme(), named("issuer"), named("secret")), ("otpauth", 1, 1));
        prop_assert!(url.fragment().is_none() && url.path().matches(':').count() == 1);
    });
}

/// J-01.
#[test]
fn torture_of_tokens() {
    let at = Moment::new(NOW, &SystemRng);
    let signer = Signer::new("https://mfa.example");
    signer.replace(vec![SigningKey::read(&new_signing_key().private, Some(NOW), None).expect("a key")]);
    let grant = Grant {
        action: "login".to_owned(),
        acr: Acr::Aal2,
        amr: vec!["otp".to_owned()],
        method: MethodKind::Totp,
        auth_time: NOW,
        single_use: false,
        audience: Vec::new(),
        binding: None,
        context: None,
        challenge_id: Id::new(Kind::Challenge, &at),
    };
    let session = Session {
        id: Id::new(Kind::Session, &at),
        rp_id: Id::new(Kind::RelyingParty, &at),
        user_id: "ann".to_owned(),
        grant,
        factor_id: None,
        created_at: NOW,
        expires_at: NOW.plus_seconds(600),
        ended_at: None,
        added_at: None,
        removed_at: None,
    };
    let jwt = signer.sign(&session, NOW).expect("it signs").expect("a JWT");
    let opens = ClientToken { id: Id::new(Kind::Challenge, &at), secret: Zeroizing::new(at.token()) }.text();
    proptest!(config(), |(damage in damage(), any in any::<String>())| {
        let changed = damaged_text(&jwt, &damage);
        prop_assert_eq!(signer.read(&changed, NOW).is_ok(), changed == jwt, "{}", changed);
        prop_assert!(signer.read(&any, NOW).is_err());
        for text in [damaged_text(&opens, &damage), any] {
            if let Some(token) = ClientToken::parse(&text) {
                prop_assert_eq!(token.text(), text);
            }
        }
    });
}
