//! Published and recorded vectors, judged by the methods themselves: each vector's own challenge is put into the state of a
//! ceremony. The vectors are not part of the repository; where they are not beside it, the tests say so and pass, unless
//! `COUNTERSIGN_TEST_VECTORS` demands them.
//! `cargo test --test vectors -- --nocapture` prints what was accepted, and what was refused and why.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "in tests a panic is the report")]

#[path = "vectors/torture.rs"]
mod torture;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::SystemRng;
use countersign::methods::{
    Answer, Attachment, Exam, Fault, Held, Method, Parties, Proven, Refusal, Wish, totp, webauthn,
};
use countersign::model::{Details, Factor, Id, Keyed, Kind, MethodKind, Mode, Moment, RelyingParty, Timestamp, User};
use serde_cbor_2::Value as Cbor;
use serde_json::{Value, json};
use zeroize::Zeroizing;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/vectors");
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const HANDLE: [u8; 16] = [7; 16];
// Flags of authenticator data (WebAuthn L3, 6.1).
const PRESENT_AND_ATTESTED: u8 = 0x41;
const VERIFIED: u8 = 0x04;
const ELIGIBLE: u8 = 0x08;

/// The vectors of a file, if they are at hand.
fn vectors(file: &str) -> Option<Value> {
    match std::fs::read(format!("{VECTORS}/{file}")) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).expect("vectors are JSON")),
        Err(error) => {
            let demanded = std::env::var_os("COUNTERSIGN_TEST_VECTORS").is_some();
            assert!(!demanded, "{file} is not at hand, and COUNTERSIGN_TEST_VECTORS demands it: {error}");
            println!("{file} is not at hand: nothing was tried");
            None
        }
    }
}

fn list<'a>(of: &'a Value, member: &str) -> &'a [Value] {
    of[member].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(of: &'a Value, member: &str) -> &'a str {
    of[member].as_str().unwrap_or_default()
}

fn bytes(of: &Value, member: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text(of, member)).expect("base64url")
}

// --- ceremonies ---

/// Whether the person must have been verified: as the engine demands it, or left out to see what else there is to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verification {
    Required,
    Preferred,
}

struct NoKeys;

impl Keyed for NoKeys {
    fn keyed_hash(&self, _label: &str, _parts: &[&[u8]]) -> [u8; 32] {
        [0; 32]
    }

    fn slow_hash(&self, _pepper: i64, _salt: &[u8], _code: &[u8]) -> Option<[u8; 32]> {
        None
    }

    fn current_pepper(&self, _now: Timestamp) -> i64 {
        0
    }
}

fn parties(vector: &Value) -> Parties {
    Parties {
        rp: Arc::new(RelyingParty {
            id: Id::from_bytes(Kind::RelyingParty, [1; 16]),
            name: "Bank".to_owned(),
            host: text(vector, "rpId").to_owned(),
            mode: Mode::Live,
            origins: Vec::new(),
            return_urls: Vec::new(),
            created_at: NOW,
        }),
        origins: vec![text(vector, "origin").to_owned()],
        user: User::unnamed("ann", HANDLE, NOW),
        purpose: String::new(),
    }
}

/// What the engine keeps of a credential: the factor, and what is sealed in it.
fn held(credential_id: Option<String>, details: Details, secret: Zeroizing<Vec<u8>>) -> Held {
    let id = Id::from_bytes(Kind::Factor, [2; 16]);
    let pending = Factor::new(id, "ann", MethodKind::Webauthn, details, NOW, NOW);
    Held { factor: Factor { activated_at: Some(NOW), credential_id, ..pending }, secret }
}

/// The state that a ceremony began with, but for its challenge.
fn with_challenge(state: &[u8], challenge: &str, verification: Verification) -> Zeroizing<Vec<u8>> {
    fn put(value: &mut Value, challenge: &str, verification: Verification) -> usize {
        match value {
            Value::Object(members) => members
                .iter_mut()
                .map(|(name, value)| match name.as_str() {
                    "challenge" => {
                        *value = json!(challenge);
                        1
                    }
                    "policy" if verification == Verification::Preferred => {
                        *value = json!("preferred");
                        0
                    }
                    _ => put(value, challenge, verification),
                })
                .sum(),
            Value::Array(values) => values.iter_mut().map(|value| put(value, challenge, verification)).sum(),
            _ => 0,
        }
    }
    let mut state: Value = serde_json::from_slice(state).expect("a state is JSON");
    assert_eq!(put(&mut state, challenge, verification), 1, "a state has one challenge");
    Zeroizing::new(serde_json::to_vec(&state).expect("JSON"))
}

fn exam(vector: &Value, held: Vec<Held>, state: Zeroizing<Vec<u8>>, credential: Value) -> Exam {
    Exam {
        now: NOW,
        parties: parties(vector).into(),
        owner: Id::from_bytes(Kind::Challenge, [3; 16]),
        held,
        state: Some(state),
        recovery: None,
        answer: Answer::Credential(credential),
        keyed: Arc::new(NoKeys),
    }
}

fn credential(id: &str, response: Value) -> Value {
    json!({"type": "public-key", "id": id, "rawId": id, "response": response, "clientExtensionResults": {}})
}

/// Registers the vector's credential, and gives what the engine would keep of it.
fn register(vector: &Value, challenge: &str, verification: Verification) -> Result<Held, Refusal> {
    let owner = Id::from_bytes(Kind::Factor, [2; 16]);
    let wish = Wish::Webauthn(Attachment::Any);
    let at = Moment::new(NOW, &SystemRng);
    let begun = webauthn::Webauthn.begin_enrolment(&at, &NoKeys, &parties(vector), &owner, &wish, &[])?;
    let state = with_challenge(&begun.state.expect("a ceremony has a state"), challenge, verification);
    let response =
        json!({"clientDataJSON": vector["clientDataJSON"], "attestationObject": vector["attestationObject"]});
    let credential = credential(text(vector, "credentialId"), response);
    let enrolled = webauthn::Webauthn.finish_enrolment(&exam(vector, Vec::new(), state, credential))?;
    Ok(held(enrolled.credential_id, enrolled.details, enrolled.secret.expect("a credential")))
}

/// Judges the vector's assertion against this credential.
fn assert(vector: &Value, id: &str, challenge: &str, held: Held, of: Verification) -> Result<Proven, Refusal> {
    let owner = Id::from_bytes(Kind::Challenge, [3; 16]);
    let (at, held) = (Moment::new(NOW, &SystemRng), vec![held]);
    let begun = webauthn::Webauthn.begin_challenge(&at, &NoKeys, &parties(vector), &owner, &held)?;
    let state = with_challenge(&begun.state.expect("a ceremony has a state"), challenge, of);
    let mut response = json!({"clientDataJSON": vector["clientDataJSON"],
        "authenticatorData": vector["authenticatorData"], "signature": vector["signature"]});
    if vector["userHandle"].is_string() {
        response["userHandle"] = vector["userHandle"].clone();
    }
    webauthn::Webauthn.verify(&exam(vector, held, state, credential(id, response)))
}

/// A registration that we make ourselves around a public key of which only assertions are known; its counter is 0.
fn registration_of_key(vector: &Value, id: &[u8], backup_eligible: bool, of: Verification) -> Value {
    let key = bytes(vector, "credentialPublicKeyCose");
    let mut data =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text(vector, "rpId").as_bytes()).as_ref().to_vec();
    let verified = if of == Verification::Required { VERIFIED } else { 0 };
    data.push(PRESENT_AND_ATTESTED | verified | if backup_eligible { ELIGIBLE } else { 0 });
    data.extend([0; 4 + 16]);
    data.extend(u16::try_from(id.len()).expect("a short id").to_be_bytes());
    data.extend(id);
    data.extend(key);
    let object = Cbor::Map(BTreeMap::from([
        (Cbor::Text("fmt".to_owned()), Cbor::Text("none".to_owned())),
        (Cbor::Text("attStmt".to_owned()), Cbor::Map(BTreeMap::new())),
        (Cbor::Text("authData".to_owned()), Cbor::Bytes(data)),
    ]));
    let client_data = json!({"type": "webauthn.create", "challenge": "AAAA", "origin": vector["origin"]});
    json!({
        "rpId": vector["rpId"],
        "origin": vector["origin"],
        "credentialId": URL_SAFE_NO_PAD.encode(id),
        "clientDataJSON": URL_SAFE_NO_PAD.encode(client_data.to_string()),
        "attestationObject": URL_SAFE_NO_PAD.encode(serde_cbor_2::to_vec(&object).expect("CBOR")),
    })
}

// --- tables ---

fn word(refusal: Refusal) -> String {
    match refusal {
        Refusal::Wrong(Fault::Credential(reason)) => reason.to_owned(),
        Refusal::Wrong(Fault::UserNotVerified) => "user_verification_required".to_owned(),
        Refusal::Wrong(Fault::CredentialUnknown) => "credential_unknown".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What came out, by a heading and a reason; with the vectors that it came out for.
#[derive(Default)]
struct Table(BTreeMap<(String, String), Vec<String>>);

impl Table {
    fn note<T>(&mut self, heading: &str, id: &str, outcome: &Result<T, Refusal>) {
        let word =
            outcome.as_ref().map_or_else(|refusal| format!("refused: {}", word(*refusal)), |_| "accepted".to_owned());
        self.0.entry((heading.to_owned(), word)).or_default().push(id.to_owned());
    }

    fn print(&self, title: &str) {
        println!("\n{title}");
        for ((heading, word), ids) in &self.0 {
            let some = ids.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(" ");
            println!("{:>5}  {heading:<44} {word:<40} {some}{}", ids.len(), if ids.len() > 4 { " …" } else { "" });
        }
    }
}

/// What a vector is, in the words of its table: format and algorithm.
fn kind(vector: &Value) -> String {
    format!("{} {}", text(vector, "attestation_fmt"), vector["cose_alg"])
}

// --- WebAuthn ---

/// A vector's registration and assertions, each with the members that the file keeps beside it.
fn pairs(of: &Value) -> (Value, Vec<Value>) {
    let Value::Object(_) = of["registration"] else { return (of.clone(), list(of, "authentications").to_vec()) };
    let beside = |ceremony: &str| {
        let mut one = of[ceremony].clone();
        for member in ["id", "rpId", "origin", "credentialId", "credentialPublicKeyCose", "attestation_fmt", "cose_alg"]
        {
            one[member] = of[member].clone();
        }
        one
    };
    (beside("registration"), vec![beside("authentication")])
}

/// The credential on which an assertion is judged: the registered one, else one made around its public key.
fn credential_of(assertion: &Value, registered: Option<Held>, of: Verification) -> Result<Held, Refusal> {
    if let Some(held) = registered {
        return Ok(held);
    }
    let id = bytes(assertion, "credentialId");
    let id = if id.is_empty() { vec![9; 16] } else { id };
    let eligible = assertion["flags"]["BE"] == true;
    register(&registration_of_key(assertion, &id, eligible, of), "AAAA", of)
}

/// Runs valid registrations and assertions with this verification, and prints the outcomes; tells how many of each are accepted.
fn run_valid(title: &str, all: &[Value], keys_only: &[Value], of: Verification) -> [usize; 2] {
    let (mut registrations, mut assertions) = (Table::default(), Table::default());
    let mut accepted = [0; 2];
    let judge = |assertion: &Value, registered: Option<Held>| {
        credential_of(assertion, registered, of).and_then(|held| {
            let id = held.factor.credential_id.clone().expect("a credential has an id");
            assert(assertion, &id, text(assertion, "challenge"), held, of)
        })
    };
    for vector in all {
        let (registration, following) = pairs(vector);
        let registered = register(&registration, text(&registration, "challenge"), of);
        registrations.note(&kind(&registration), text(&registration, "id"), &registered);
        accepted[0] += usize::from(registered.is_ok());
        for mut assertion in following {
            assertion["credentialId"] = registration["credentialId"].clone();
            let outcome = judge(&assertion, registered.as_ref().ok().cloned());
            assertions.note(&kind(&registration), text(&assertion, "id"), &outcome);
            accepted[1] += usize::from(outcome.is_ok());
        }
    }
    for assertion in keys_only {
        let outcome = judge(assertion, None);
        assertions.note(&format!("key alone {}", assertion["cose_alg"]), text(assertion, "id"), &outcome);
        accepted[1] += usize::from(outcome.is_ok());
    }
    registrations.print(&format!("{title}: registrations, user verification {of:?}"));
    assertions.print(&format!("{title}: assertions, user verification {of:?}"));
    accepted
}

/// WR-11, WR-13: what the standard's own examples come to. The reason of each refusal stands in docs/webauthn-vectors.md.
#[test]
fn the_examples_of_the_standard() {
    let Some(file) = vectors("webauthn-l3.json") else { return };
    let run = |of| run_valid("WebAuthn Level 3, section 16", list(&file, "vectors"), &[], of);
    assert_eq!([run(Verification::Required), run(Verification::Preferred)], [[2, 4], [7, 8]]);
}

/// WR-12.
#[test]
fn what_authenticators_and_libraries_recorded() {
    let Some(file) = vectors("webauthn-recorded.json") else { return };
    let run = |of| run_valid("recorded", list(&file, "registrations"), list(&file, "assertionsWithKeyOnly"), of);
    assert_eq!([run(Verification::Required), run(Verification::Preferred)], [[50, 17], [101, 38]]);
}

/// What does not hold together is refused, also where user verification is not asked for.
#[test]
fn what_does_not_hold_together_is_refused() {
    let Some(file) = vectors("webauthn-recorded-rejected.json") else { return };
    assert_eq!(list(&file, "registrations").len(), 13);
    for verification in [Verification::Required, Verification::Preferred] {
        let mut table = Table::default();
        for vector in list(&file, "registrations") {
            let outcome = register(vector, text(vector, "challenge"), verification);
            table.note(vector["problems"][0].as_str().unwrap_or_default(), text(vector, "id"), &outcome);
            assert!(outcome.is_err(), "{} {}", text(vector, "id"), vector["problems"]);
        }
        table.print("recorded, and not holding together");
    }
}

/// Every single fault is refused, and every control passes: WR-04, WR-05, WR-06, WR-07, WR-08, WR-09, WR-10, WR-11, WR-12,
/// WR-13, WR-19, WA-02, WA-03, WA-04, WA-05, WA-06, WA-07, WA-08, WA-09, WA-13.
#[test]
fn single_faults_are_refused_and_controls_pass() {
    let Some(file) = vectors("webauthn-negative.json") else { return };
    let mut table = Table::default();
    let (mut accepted, mut wrong) = (0, Vec::new());
    let all = list(&file, "vectors");
    for vector in all {
        let challenge = text(vector, "expectedChallenge");
        let verification = match text(vector, "userVerification") {
            "required" => Verification::Required,
            _ => Verification::Preferred,
        };
        let outcome = if text(vector, "ceremony") == "registration" {
            register(vector, challenge, verification).map(drop)
        } else {
            stored(vector)
                .and_then(|held| assert(vector, text(vector, "credentialId"), challenge, held, verification).map(drop))
        };
        table.note(text(vector, "strength"), text(vector, "id"), &outcome);
        accepted += usize::from(outcome.is_ok());
        if outcome.is_ok() != (text(vector, "expect") == "accept") {
            wrong.push(format!("{}: {} ({:?})", text(vector, "id"), text(vector, "fault"), outcome.map_err(word)));
        }
    }
    table.print("single faults");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((all.len() - accepted, accepted), (67, 4));
}

/// The credential that a single-fault assertion names, with the counter and the eligibility for backup that it was kept with.
fn stored(vector: &Value) -> Result<Held, Refusal> {
    let eligible = vector["storedBackupEligible"] == true;
    let id = match text(vector, "id") {
        "auth-cred-unknown" => vec![5; 32],
        _ => bytes(vector, "credentialId"),
    };
    let of = Verification::Required;
    let held = register(&registration_of_key(vector, &id, eligible, of), "AAAA", of)?;
    let mut passkey: Value = serde_json::from_slice(&held.secret).expect("JSON");
    passkey["cred"]["counter"] = vector["storedSignCount"].clone();
    Ok(Held { secret: Zeroizing::new(serde_json::to_vec(&passkey).expect("JSON")), ..held })
}

// --- one-time codes ---

/// T-05: RFC 4226, appendix D, and RFC 6238, appendix B, SHA-1, by the method's own six digits.
#[test]
fn the_codes_of_the_rfcs_come_out() {
    if let Some(file) = vectors("hotp-rfc4226.json") {
        let secret = text(&file, "secretAscii").as_bytes();
        let all = list(&file, "vectors");
        assert_eq!(all.len(), 10);
        for vector in all {
            let counter = vector["counter"].as_i64().expect("a counter");
            assert_eq!(totp::code_at(secret, Timestamp::from_seconds(counter * totp::PERIOD)), text(vector, "code"));
        }
    }
    if let Some(file) = vectors("totp-rfc6238.json") {
        let secret = text(&file["keysAscii"], "SHA1").as_bytes();
        let all: Vec<_> = list(&file, "vectors").iter().filter(|v| v["algorithm"] == "SHA1").collect();
        assert_eq!(all.len(), 6);
        for vector in all {
            let at = Timestamp::from_seconds(vector["time"].as_i64().expect("a time"));
            assert_eq!(totp::code_at(secret, at), text(vector, "code6"));
        }
    }
}

/// H-02, H-05, 3.32: what Standard Webhooks publishes is signed alike, and what it says is to be refused is not.
#[test]
fn the_published_webhooks_are_signed_alike() {
    let Some(file) = vectors("standard-webhooks.json") else { return };
    let all = list(&file, "vectors");
    let mut counted = (0, 0);
    for vector in all {
        let first = vector["derivedFrom"].as_u64().map_or(vector, |n| &all[n as usize]);
        let of = |member: &str| if vector[member].is_null() { &first[member] } else { &vector[member] };
        let signature = countersign::vault::signature(
            text(first, "secret"),
            text(first, "webhook-id"),
            of("webhook-timestamp").as_i64().expect("a number"),
            of("payload").as_str().expect("a text").as_bytes(),
        );
        let signature = signature.expect("the secret reads");
        let accepted = of("webhook-signature").as_str().expect("a text").split(' ').any(|one| one == signature);
        let expected = text(vector, "expect");
        assert_eq!(accepted, expected.starts_with("accept"), "{vector}: {expected}");
        if accepted { counted.0 += 1 } else { counted.1 += 1 }
    }
    assert_eq!(counted, (2, 3));
}
