//! One parser of what comes from outside, for a coverage-guided fuzzer; `tests/fuzz.sh` builds and runs it. `COUNTERSIGN_FUZZ` names
//! the parser, and `COUNTERSIGN_FUZZ_SEEDS` a folder for true inputs to begin with.

#![no_main]
#![allow(clippy::expect_used, clippy::panic, reason = "a panic is the report")]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::SystemRng;
use countersign::methods::webauthn::Webauthn;
use countersign::methods::{
    Answer, Attachment, Begun, Exam, Held, Method, Parties, Shown, Wish, recovery_code, six_digits, sms, totp,
};
use countersign::model::{
    Acr, Factor, Grant, Id, Keyed, Kind, MethodKind, Mode, Moment, Number, RelyingParty, Session, Timestamp, User,
};
use countersign::token::{ClientToken, Signer, SigningKey, new_signing_key};
use libfuzzer_sys::fuzz_target;
use p256::ecdsa::signature::Signer as _;
use serde_cbor_2::Value as Cbor;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const CHALLENGE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const ORIGIN: &str = "https://bank.example";
const ID: [u8; 16] = [9; 16];

/// Tries one input, and panics where something passes that should not.
type Parser = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The parser that was asked for, once its true inputs are written.
static PARSER: LazyLock<Parser> = LazyLock::new(|| {
    let (seeds, parser): (Vec<Vec<u8>>, Parser) = match std::env::var("COUNTERSIGN_FUZZ").as_deref() {
        Ok("registration") => registrations(),
        Ok("assertion") => assertions(),
        Ok("code") => (vec![b"#123-456".to_vec(), "１２３４５６".into()], Box::new(code)),
        Ok("recovery_code") => (vec![b"0123-4567-89AB-CDEF".to_vec()], Box::new(recovery)),
        Ok("phone") => (vec![b"+14155550123".to_vec(), b"+442079460000".to_vec()], Box::new(phone)),
        Ok("otpauth") => (vec![b"\x04Bankann@mail.example?issuer=Evil&secret=A#/%3A".to_vec()], Box::new(otpauth)),
        Ok("jwt") => jwts(),
        Ok("client_token") => client_tokens(),
        other => panic!("COUNTERSIGN_FUZZ names no parser: {other:?}"),
    };
    if let Ok(folder) = std::env::var("COUNTERSIGN_FUZZ_SEEDS") {
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(format!("{folder}/{number}"), seed).expect("a folder for seeds");
        }
    }
    parser
});

fuzz_target!(
    init: { LazyLock::force(&PARSER); },
    |input: &[u8]| PARSER(input)
);

// --- ceremonies ---

struct NoKeys;

impl Keyed for NoKeys {
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

fn parties(name: &str, account: &str) -> Parties {
    let rp = RelyingParty {
        id: Id::from_bytes(Kind::RelyingParty, [1; 16]),
        name: name.to_owned(),
        host: "bank.example".to_owned(),
        mode: Mode::Live,
        origins: Vec::new(),
        return_urls: Vec::new(),
        created_at: NOW,
    };
    let user = User { login_hint: Some(account.to_owned()), ..User::unnamed("ann", [7; 16], NOW) };
    Parties { rp: Arc::new(rp), origins: vec![ORIGIN.to_owned()], user, purpose: String::new() }
}

/// The state of a ceremony, as if it had drawn our challenge.
fn state(begun: Begun) -> Zeroizing<Vec<u8>> {
    let Shown::Webauthn(options) = begun.shown else { panic!("options") };
    let state = String::from_utf8(begun.state.expect("a state").to_vec()).expect("JSON");
    Zeroizing::new(state.replace(options["challenge"].as_str().expect("text"), CHALLENGE).into_bytes())
}

fn exam(held: Vec<Held>, state: &Zeroizing<Vec<u8>>, response: Value) -> Exam {
    let id = URL_SAFE_NO_PAD.encode(ID);
    let credential =
        json!({"type": "public-key", "id": id, "rawId": id, "response": response, "clientExtensionResults": {}});
    Exam {
        now: NOW,
        parties: parties("Bank", "ann"),
        owner: Id::from_bytes(Kind::Challenge, [3; 16]),
        held,
        state: Some(state.clone()),
        recovery: None,
        answer: Answer::Credential(credential),
        keyed: Arc::new(NoKeys),
    }
}

fn client_data(kind: &str) -> Vec<u8> {
    json!({"type": kind, "challenge": CHALLENGE, "origin": ORIGIN, "crossOrigin": false}).to_string().into_bytes()
}

/// Parts in one input: each but the last behind its length in two bytes.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let (last, first) = parts.split_last().expect("some parts");
    let mut whole = Vec::new();
    for part in first {
        whole.extend(u16::try_from(part.len()).expect("a short part").to_be_bytes());
        whole.extend(*part);
    }
    [&whole[..], last].concat()
}

fn parted<const N: usize>(mut input: &[u8]) -> Option<[&[u8]; N]> {
    let mut parts = [&input[..0]; N];
    for part in &mut parts[..N - 1] {
        let (length, rest) = input.split_at_checked(2)?;
        (*part, input) = rest.split_at_checked(usize::from(u16::from_be_bytes([length[0], length[1]])))?;
    }
    parts[N - 1] = input;
    Some(parts)
}

fn key() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[1; 32]).expect("a scalar")
}

fn head(flags: u8, counter: u8) -> Vec<u8> {
    [&Sha256::digest("bank.example")[..], &[flags, 0, 0, 0, counter]].concat()
}

fn attestation_object() -> Vec<u8> {
    let point = key().verifying_key().to_sec1_point(false);
    let public = Cbor::Map(BTreeMap::from([
        (Cbor::Integer(1), Cbor::Integer(2)),
        (Cbor::Integer(3), Cbor::Integer(-7)),
        (Cbor::Integer(-1), Cbor::Integer(1)),
        (Cbor::Integer(-2), Cbor::Bytes(point.as_bytes()[1..33].to_vec())),
        (Cbor::Integer(-3), Cbor::Bytes(point.as_bytes()[33..].to_vec())),
    ]));
    let public = serde_cbor_2::to_vec(&public).expect("CBOR");
    let data = [&head(0x45, 0)[..], &[0; 16], &[0, 16], &ID, &public].concat();
    let object = Cbor::Map(BTreeMap::from([
        (Cbor::Text("fmt".to_owned()), Cbor::Text("none".to_owned())),
        (Cbor::Text("attStmt".to_owned()), Cbor::Map(BTreeMap::new())),
        (Cbor::Text("authData".to_owned()), Cbor::Bytes(data)),
    ]));
    serde_cbor_2::to_vec(&object).expect("CBOR")
}

fn enrolment() -> Zeroizing<Vec<u8>> {
    let (at, owner) = (Moment::new(NOW, &SystemRng), Id::from_bytes(Kind::Factor, [2; 16]));
    let wish = Wish::Webauthn(Attachment::Any);
    state(
        Webauthn
            .begin_enrolment(&at, &NoKeys, &parties("Bank", "ann"), &owner, &wish, &[])
            .unwrap_or_else(|e| panic!("{e:?}")),
    )
}

fn registration(client_data: &[u8], object: &[u8]) -> Value {
    json!({"clientDataJSON": URL_SAFE_NO_PAD.encode(client_data), "attestationObject": URL_SAFE_NO_PAD.encode(object)})
}

/// An attestation of `none` signs nothing: a change may make another true registration, of the same site and id.
fn registrations() -> (Vec<Vec<u8>>, Parser) {
    let state = enrolment();
    let truth = joined(&[&client_data("webauthn.create"), &attestation_object()]);
    let judge = move |input: &[u8]| {
        let Some([client_data, object]) = parted(input) else { return };
        let Ok(enrolled) = Webauthn.finish_enrolment(&exam(Vec::new(), &state, registration(client_data, object)))
        else {
            return;
        };
        assert_eq!(enrolled.credential_id, Some(URL_SAFE_NO_PAD.encode(ID)));
        let said: Value = serde_json::from_slice(client_data).expect("JSON");
        assert_eq!((&said["type"], &said["challenge"]), (&json!("webauthn.create"), &json!(CHALLENGE)));
        assert_eq!(said["origin"], ORIGIN);
    };
    judge(&truth);
    (vec![truth], Box::new(judge))
}

fn assertions() -> (Vec<Vec<u8>>, Parser) {
    let response = registration(&client_data("webauthn.create"), &attestation_object());
    let enrolled =
        Webauthn.finish_enrolment(&exam(Vec::new(), &enrolment(), response)).unwrap_or_else(|e| panic!("{e:?}"));
    let id = Id::from_bytes(Kind::Factor, [2; 16]);
    let pending = Factor::new(id, "ann", MethodKind::Webauthn, enrolled.details, NOW, NOW);
    let held = vec![Held {
        factor: Factor { activated_at: Some(NOW), credential_id: enrolled.credential_id, ..pending },
        secret: enrolled.secret.expect("a credential"),
    }];
    let at = Moment::new(NOW, &SystemRng);
    let owner = Id::from_bytes(Kind::Challenge, [3; 16]);
    let begun = Webauthn.begin_challenge(&at, &NoKeys, &parties("Bank", "ann"), &owner, &held);
    let state = state(begun.unwrap_or_else(|e| panic!("{e:?}")));
    let (said, data) = (client_data("webauthn.get"), head(0x05, 1));
    let signature: p256::ecdsa::Signature = key().sign(&[&data[..], &Sha256::digest(&said)].concat());
    let truth = joined(&[&said, &data, signature.to_der().as_bytes()]);
    let judge = move |input: &[u8]| {
        let Some([client_data, authenticator_data, signature]) = parted(input) else { return false };
        let response = json!({"clientDataJSON": URL_SAFE_NO_PAD.encode(client_data),
            "authenticatorData": URL_SAFE_NO_PAD.encode(authenticator_data),
            "signature": URL_SAFE_NO_PAD.encode(signature)});
        let accepted = Webauthn.verify(&exam(held.clone(), &state, response)).is_ok();
        assert!(!accepted || (client_data, authenticator_data) == (&said[..], &data[..]), "nobody signed that");
        accepted
    };
    assert!(judge(&truth), "the truth");
    (
        vec![truth],
        Box::new(move |input| {
            judge(input);
        }),
    )
}

// --- codes, numbers, names ---

fn code(input: &[u8]) {
    if let Ok(code) = six_digits(&String::from_utf8_lossy(input)) {
        assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()));
    }
}

fn recovery(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    let formed = recovery_code::RecoveryCode.check_form(&Answer::Code(Zeroizing::new(text.clone()))).is_ok();
    assert_eq!(formed, recovery_code::hash(&NoKeys, 1, b"", &text).is_some());
}

fn phone(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Some(number) = Number::parse(&text) else { return };
    assert!((8..=16).contains(&text.len()) && text[1..].bytes().all(|b| b.is_ascii_digit()));
    let _ = sms::Sms::new(None).country(&number);
    assert_eq!(number.masked().bytes().filter(u8::is_ascii_digit).count(), 2);
}

/// The first byte says how long the issuer's name is.
fn otpauth(input: &[u8]) {
    let Some((length, names)) = input.split_first() else { return };
    let Some((issuer, account)) = names.split_at_checked(usize::from(*length)) else { return };
    let (issuer, account) = (String::from_utf8_lossy(issuer), String::from_utf8_lossy(account));
    let Shown::Totp { otpauth_uri, .. } = totp::set_up(&parties(&issuer, &account), &[7; 20]) else { panic!("an app") };
    let url = url::Url::parse(&otpauth_uri).expect("an address");
    let named = |name: &str| url.query_pairs().filter(|(k, _)| k == name).count();
    assert_eq!((url.scheme(), named("issuer"), named("secret")), ("otpauth", 1, 1));
    assert!(url.fragment().is_none() && url.path().matches(':').count() == 1);
}

// --- tokens ---

fn jwts() -> (Vec<Vec<u8>>, Parser) {
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
    let seed = jwt.clone().into_bytes();
    let judge = move |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        assert_eq!(signer.read(&text, NOW).is_ok(), text == jwt.as_str(), "{text}");
    };
    judge(&seed);
    (vec![seed], Box::new(judge))
}

fn client_tokens() -> (Vec<Vec<u8>>, Parser) {
    let at = Moment::new(NOW, &SystemRng);
    let token = ClientToken { id: Id::new(Kind::Challenge, &at), secret: Zeroizing::new(at.token()) };
    let judge = |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        if let Some(token) = ClientToken::parse(&text) {
            assert_eq!(token.text().as_str(), text);
        }
    };
    (vec![token.text().as_bytes().to_vec()], Box::new(judge))
}
