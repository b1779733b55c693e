//! A browser and its WebAuthn authenticator in software: it answers `creation_options` and `request_options` with the
//! JSON of `credential.toJSON()`, honestly, or with exactly one thing wrong (a lie), or with one thing unusual that the
//! standard permits (a truth). A lie is a row of a table: its name, the phase in which it is told, and what it changes.
//! It knows WebAuthn Level 3 (L3) and ES256, and nothing of the engine.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{marker::PhantomData, sync::Arc};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use p256::ecdsa::signature::{Signer, hazmat::PrehashSigner};
use p256::ecdsa::{DerSignature, Signature, SigningKey};
use p256::elliptic_curve::Generate;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use Phase::{Answered, Attested, Claimed, Encoded, Signed};

const UP: u8 = 0x01;
const UV: u8 = 0x04;
const BE: u8 = 0x08;
const BS: u8 = 0x10;
const AT: u8 = 0x40;
const ED: u8 = 0x80;
const ES256: i64 = -7;
/// Where a counting authenticator begins, so that there are lower counts.
const FIRST_COUNT: u32 = 100;
const EVIL: &str = "https://evil.example";
/// The order of P-256 with a zero before it, base64url.
const ORDER: &str = "AP____8AAAAA__________-85vqtpxeehPO5ysL8YyVR";

/// A device and the browser in front of it. Its members are knobs: set them as the test needs, also between ceremonies.
#[derive(Clone)]
pub struct Authenticator {
    /// The page's origin, as a browser writes it.
    pub origin: String,
    pub aaguid: [u8; 16],
    /// What `getTransports()` answers; `internal` makes it a platform authenticator.
    pub transports: Vec<String>,
    /// BE and BS of the credentials to come.
    pub backup_eligible: bool,
    pub backed_up: bool,
    pub user_verifying: bool,
    /// Whether it counts signatures, or sends 0 for ever like a synced passkey.
    pub counting: bool,
    /// Whether it attests itself (`packed`) or not at all (`none`).
    pub packed: bool,
    /// What it holds, the oldest first; all are discoverable.
    pub credentials: Vec<Credential>,
}

/// One key pair and what belongs to it.
#[derive(Clone)]
pub struct Credential {
    pub id: Vec<u8>,
    pub key: SigningKey,
    pub rp_id: String,
    pub user_handle: Vec<u8>,
    /// The signature counter that was told last.
    pub counter: u32,
    pub backup_eligible: bool,
    pub backed_up: bool,
}

/// Why an honest browser gives no answer: the names of its `DOMException`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrowserError {
    /// `excludeCredentials` names a credential that is here.
    InvalidState,
    /// No credential matches, or the user cannot be verified.
    NotAllowed,
    /// ES256 is not among `pubKeyCredParams`.
    NotSupported,
    /// The RP ID is neither the origin's host nor above it.
    Security,
}

impl Authenticator {
    /// A platform authenticator that verifies its user, counts, is not backed up and does not attest.
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            aaguid: [0; 16],
            transports: vec!["internal".to_owned()],
            backup_eligible: false,
            backed_up: false,
            user_verifying: true,
            counting: true,
            packed: false,
            credentials: Vec::new(),
        }
    }

    /// The answer to `creation_options`, as `navigator.credentials.create()` and `toJSON()` give it.
    pub fn create(&mut self, options: &Value) -> Result<Value, BrowserError> {
        self.permit(&options["rp"]["id"], &options["authenticatorSelection"]["userVerification"])?;
        if ids(&options["excludeCredentials"]).any(|id| self.credentials.iter().any(|held| held.id == id)) {
            return Err(BrowserError::InvalidState);
        }
        if !options["pubKeyCredParams"].as_array().is_some_and(|offer| offer.iter().any(|each| each["alg"] == ES256)) {
            return Err(BrowserError::NotSupported);
        }
        Ok(self.create_lying(options, &Lie::plain("none")))
    }

    /// The answer to `request_options` by the newest credential that matches.
    pub fn get(&mut self, options: &Value) -> Result<Value, BrowserError> {
        self.permit(&options["rpId"], &options["userVerification"])?;
        self.matching(options).ok_or(BrowserError::NotAllowed)?;
        Ok(self.get_lying(options, &Lie::plain("none")))
    }

    /// The answer to `creation_options` with one lie, passing over what a browser would refuse. A lie that must be refused
    /// leaves no credential behind; anything else leaves one that works.
    pub fn create_lying(&mut self, options: &Value, lie: &RegistrationLie) -> Value {
        let credential = Credential {
            id: <[u8; 32]>::generate().to_vec(),
            key: SigningKey::generate(),
            rp_id: self.rp_id(&options["rp"]["id"]),
            user_handle: decode(&options["user"]["id"]),
            counter: if self.counting { FIRST_COUNT } else { 0 },
            backup_eligible: self.backup_eligible,
            backed_up: self.backed_up,
        };
        let draft = Draft::new(self, credential, &options["challenge"], true).finish(lie);
        if !lie.must_refuse() {
            self.credentials.push(draft.credential);
        }
        draft.answer
    }

    /// The answer to `request_options` with one lie, by the newest credential that matches, else by the newest of the RP
    /// ID, else by one that nobody has registered. A lie that must be refused leaves the authenticator as it was.
    pub fn get_lying(&mut self, options: &Value, lie: &AssertionLie) -> Value {
        let Some(chosen) = self.matching(options).or_else(|| self.matching(&json!({ "rpId": options["rpId"] }))) else {
            let mut stranger = self.clone();
            let made_up = json!({ "rp": { "id": options["rpId"] }, "user": { "id": "c3RyYW5nZXI" }, "challenge": "" });
            stranger.create_lying(&made_up, &Lie::plain("none"));
            return stranger.get_lying(options, lie);
        };
        let draft = Draft::new(self, self.credentials[chosen].clone(), &options["challenge"], false).finish(lie);
        if !lie.must_refuse() {
            self.credentials[chosen].counter = draft.counter;
        }
        draft.answer
    }

    fn matching(&self, options: &Value) -> Option<usize> {
        let (rp_id, allowed) = (self.rp_id(&options["rpId"]), ids(&options["allowCredentials"]).collect::<Vec<_>>());
        let fits = |held: &Credential| held.rp_id == rp_id && (allowed.is_empty() || allowed.contains(&held.id));
        self.credentials.iter().rposition(fits)
    }

    fn rp_id(&self, asked: &Value) -> String {
        asked.as_str().unwrap_or_else(|| host_of(&self.origin)).to_owned()
    }

    fn permit(&self, rp_id: &Value, user_verification: &Value) -> Result<(), BrowserError> {
        let (host, rp_id) = (host_of(&self.origin), self.rp_id(rp_id));
        if host != rp_id && !host.ends_with(&format!(".{rp_id}")) {
            return Err(BrowserError::Security);
        }
        if user_verification == "required" && !self.user_verifying { Err(BrowserError::NotAllowed) } else { Ok(()) }
    }
}

/// One departure from the ordinary answer.
#[derive(Clone)]
pub struct Lie<Of> {
    name: String,
    must_refuse: bool,
    needs_counter: bool,
    steps: Vec<(Phase, Change)>,
    of: PhantomData<Of>,
}

/// A lie told at registration.
pub type RegistrationLie = Lie<Registration>;
/// A lie told at an assertion.
pub type AssertionLie = Lie<Assertion>;
/// Marks lies of registration.
#[derive(Clone)]
pub struct Registration;
/// Marks lies of assertion.
#[derive(Clone)]
pub struct Assertion;
type Change = Arc<dyn Fn(&mut Draft) + Send + Sync>;

/// When a lie is told.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// The parts are known, nothing is encoded.
    Claimed,
    /// `client_json` and `auth_data` are encoded, nothing is signed.
    Encoded,
    /// `signature` is made.
    Signed,
    /// `attestation` is filled, but not encoded.
    Attested,
    /// `answer` is ready to leave.
    Answered,
}

impl<Of> Lie<Of> {
    /// The lie that the challenge was this text.
    pub fn with_challenge(text: &str) -> Self {
        let text = text.to_owned();
        lie("challenge: a given one", Claimed, move |draft| draft.put("challenge", text.as_str()))
    }

    /// The lie that the credential has this id: at registration one that is taken, at an assertion another's.
    pub fn with_credential_id(id: &[u8]) -> Self {
        let id = id.to_vec();
        lie("credential id: a given one", Claimed, move |draft| draft.credential.id.clone_from(&id))
    }

    /// Its stable name, unique in its list.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a strict engine refuses it. What is left is the same meaning in a spelling that no browser uses, or a size
    /// that nobody need take: it may be accepted or refused, so long as the answer is clean.
    pub fn must_refuse(&self) -> bool {
        self.must_refuse
    }

    /// Whether it is a lie only where the authenticator counts.
    pub fn needs_counter(&self) -> bool {
        self.needs_counter
    }

    fn plain(name: &str) -> Self {
        Self { name: name.to_owned(), must_refuse: false, needs_counter: false, steps: Vec::new(), of: PhantomData }
    }

    fn then(mut self, phase: Phase, change: impl Fn(&mut Draft) + Send + Sync + 'static) -> Self {
        self.steps.push((phase, Arc::new(change)));
        self
    }

    fn may(self) -> Self {
        Self { must_refuse: false, ..self }
    }

    fn counted(self) -> Self {
        Self { needs_counter: true, ..self }
    }

    fn packed(self) -> Self {
        self.then(Claimed, |draft| draft.packed = true)
    }
}

impl RegistrationLie {
    /// Every lie of a registration; the one about UV is a lie where user verification was required.
    pub fn all() -> Vec<Self> {
        let packed = signature_lies().into_iter().map(Lie::packed).collect();
        let answer = answer_lies(&["clientDataJSON", "attestationObject"]);
        [client_lies(), data_lies(), registration_lies(), public_key_lies(), attestation_lies(), packed, answer]
            .concat()
    }

    /// Unusual registrations that must be accepted; `create_lying` tells them.
    pub fn truths() -> Vec<Self> {
        truths().into_iter().chain(registration_truths()).map(Lie::may).collect()
    }
}

impl AssertionLie {
    /// Every lie of an assertion; the one about UV is a lie where user verification was required.
    pub fn all() -> Vec<Self> {
        let answer = answer_lies(&["clientDataJSON", "authenticatorData", "signature"]);
        [client_lies(), data_lies(), assertion_lies(), signature_lies(), answer].concat()
    }

    /// Unusual assertions that must be accepted (without userHandle: where the user is known); `get_lying` tells them.
    pub fn truths() -> Vec<Self> {
        truths().into_iter().chain(assertion_truths()).map(Lie::may).collect()
    }

    /// The lie that the credential belongs to this user handle.
    pub fn with_user_handle(handle: &[u8]) -> Self {
        let handle = handle.to_vec();
        lie("userHandle: a given one", Claimed, move |draft| draft.credential.user_handle.clone_from(&handle))
    }
}

fn lie<Of>(name: &str, phase: Phase, change: impl Fn(&mut Draft) + Send + Sync + 'static) -> Lie<Of> {
    Lie { must_refuse: true, ..Lie::plain(name) }.then(phase, change)
}

/// An answer in the making.
struct Draft {
    credential: Credential,
    aaguid: [u8; 16],
    transports: Vec<String>,
    packed: bool,
    registration: bool,
    /// Whether attested credential data is included; the flag is told apart.
    attested: bool,
    flags: u8,
    counter: u32,
    rp_id_hash: Vec<u8>,
    /// COSE key: labels and encoded values.
    key: Vec<(i64, Vec<u8>)>,
    extensions: Vec<u8>,
    auth_data: Vec<u8>,
    /// The members of the client data in the browser's order, as told and as they were before any lie.
    client: Vec<(&'static str, Value)>,
    honest_client: Vec<(&'static str, Value)>,
    client_json: Vec<u8>,
    signature: Vec<u8>,
    /// Attestation object: names and encoded values.
    attestation: Vec<(&'static str, Vec<u8>)>,
    answer: Value,
}

impl Draft {
    fn new(device: &Authenticator, credential: Credential, challenge: &Value, registration: bool) -> Self {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let point = credential.key.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        let kind = ("type", json!(if registration { "webauthn.create" } else { "webauthn.get" }));
        let origin = ("origin", json!(device.origin));
        let client = vec![kind, ("challenge", challenge.clone()), origin, ("crossOrigin", json!(false))];
        let backup = flag(credential.backup_eligible, BE) | flag(credential.backed_up, BS);
        Self {
            aaguid: device.aaguid,
            transports: device.transports.clone(),
            packed: device.packed,
            registration,
            attested: registration,
            flags: UP | flag(device.user_verifying, UV) | backup | flag(registration, AT),
            counter: credential.counter + u32::from(device.counting && !registration),
            rp_id_hash: hash(&credential.rp_id),
            key: vec![(1, int(2)), (3, int(ES256)), (-1, int(1)), (-2, bytes(x)), (-3, bytes(y))],
            extensions: Vec::new(),
            auth_data: Vec::new(),
            honest_client: client.clone(),
            client,
            client_json: Vec::new(),
            signature: Vec::new(),
            attestation: Vec::new(),
            answer: Value::Null,
            credential,
        }
    }

    fn finish<Of>(mut self, lie: &Lie<Of>) -> Self {
        let tell = |phase, draft: &mut Self| {
            lie.steps.iter().filter(|step| step.0 == phase).for_each(|(_, change)| change(draft));
        };
        tell(Claimed, &mut self);
        self.client_json = object(&self.client);
        self.auth_data = [&self.rp_id_hash[..], &[self.flags], &self.counter.to_be_bytes()].concat();
        if self.attested {
            let length = u16::try_from(self.credential.id.len()).expect("credential ids of tests are short");
            let key: Vec<_> = self.key.iter().map(|(label, value)| (int(*label), value.clone())).collect();
            let parts = [&self.aaguid[..], &length.to_be_bytes(), &self.credential.id, &map(&key)].concat();
            self.auth_data.extend(parts);
        }
        self.auth_data.extend(&self.extensions);
        tell(Encoded, &mut self);
        self.signature = self.sign(&self.message());
        tell(Signed, &mut self);
        let statement = if self.packed { statement(ES256, &self.signature) } else { map(&[]) };
        let format = text(if self.packed { "packed" } else { "none" });
        self.attestation = vec![("fmt", format), ("attStmt", statement), ("authData", bytes(&self.auth_data))];
        tell(Attested, &mut self);
        self.answer = self.compose();
        tell(Answered, &mut self);
        self
    }

    fn compose(&self) -> Value {
        let id = encode(&self.credential.id);
        let (client_json, auth_data) = (encode(&self.client_json), encode(&self.auth_data));
        let response = if self.registration {
            let object: Vec<_> = self.attestation.iter().map(|(name, value)| (text(name), value.clone())).collect();
            let public_key = encode(&public_key_info(&self.credential.key));
            json!({ "clientDataJSON": client_json, "authenticatorData": auth_data, "attestationObject": encode(&map(&object)),
                "transports": self.transports, "publicKey": public_key, "publicKeyAlgorithm": ES256 })
        } else {
            json!({ "clientDataJSON": client_json, "authenticatorData": auth_data, "signature": encode(&self.signature),
                "userHandle": encode(&self.credential.user_handle) })
        };
        let platform = self.transports.iter().any(|transport| transport == "internal");
        json!({ "id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": {},
            "authenticatorAttachment": if platform { "platform" } else { "cross-platform" } })
    }

    /// What is signed: authenticator data and the hash of the client data (L3 6.3.3).
    fn message(&self) -> Vec<u8> {
        [&self.auth_data[..], &hash(&self.client_json)].concat()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&self.credential.key, message)
    }

    fn raw_signature(&self) -> Signature {
        Signature::from_der(&self.signature).expect("an honest signature")
    }

    /// Puts a member of the client data.
    fn put(&mut self, member: &'static str, value: impl Into<Value>) {
        put(&mut self.client, member, value.into());
    }

    fn alter(&mut self, member: &'static str, change: impl FnOnce(&str) -> String) {
        let old = self.client.iter().find(|entry| entry.0 == member).and_then(|entry| entry.1.as_str());
        self.put(member, change(old.expect("a member that is text")));
    }

    fn alter_host(&mut self, change: impl FnOnce(&str) -> String) {
        self.alter("origin", |origin| origin.replacen(host_of(origin), &change(host_of(origin)), 1));
    }

    fn challenge(&self) -> Vec<u8> {
        decode(&self.honest_client[1].1)
    }

    fn edit_client(&mut self, change: impl FnOnce(&str) -> String) {
        self.client_json = change(std::str::from_utf8(&self.client_json).expect("text")).into_bytes();
    }

    fn restore_client(&mut self) {
        self.client_json = object(&self.honest_client);
    }

    /// Where the encoded public key begins in the authenticator data.
    fn key_offset(&self) -> usize {
        55 + self.credential.id.len()
    }

    /// Puts an entry of the attestation object.
    fn attest(&mut self, name: &'static str, value: Vec<u8>) {
        put(&mut self.attestation, name, value);
    }

    fn edit_attestation(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut raw = decode(&self.answer["response"]["attestationObject"]);
        change(&mut raw);
        self.answer["response"]["attestationObject"] = json!(encode(&raw));
    }

    fn edit_ids(&mut self, change: impl Fn(&str) -> String) {
        ["id", "rawId"].iter().for_each(|member| self.answer[member] = json!(change(&encode(&self.credential.id))));
    }
}

// The tables: one lie a line. `may()` ends a lie that need not be refused.

#[rustfmt::skip]
fn client_lies<Of>() -> Vec<Lie<Of>> {
    vec![
        lie("type: of the other ceremony", Claimed, |draft| draft.put("type", if draft.registration { "webauthn.get" } else { "webauthn.create" })),
        lie("type: of a payment", Claimed, |draft| draft.put("type", "payment.get")),
        lie("type: empty", Claimed, |draft| draft.put("type", "")),
        lie("type: missing", Claimed, |draft| cut(&mut draft.client, "type")),
        lie("type: upper case", Claimed, |draft| draft.alter("type", str::to_uppercase)),

        lie("challenge: another", Claimed, |draft| draft.put("challenge", random())),
        lie("challenge: empty", Claimed, |draft| draft.put("challenge", "")),
        lie("challenge: missing", Claimed, |draft| cut(&mut draft.client, "challenge")),
        lie("challenge: null", Claimed, |draft| draft.put("challenge", Value::Null)),
        lie("challenge: truncated", Claimed, |draft| draft.put("challenge", encode(&draft.challenge()[..16]))),
        lie("challenge: a byte more", Claimed, |draft| draft.put("challenge", encode(&[&draft.challenge()[..], &[0]].concat()))),
        lie("challenge: upper case", Claimed, |draft| draft.alter("challenge", str::to_uppercase)),
        lie("challenge: encoded twice", Claimed, |draft| draft.alter("challenge", |old| encode(old.as_bytes()))),
        lie("challenge: in hexadecimal", Claimed, |draft| draft.put("challenge", hexadecimal(&draft.challenge()))),
        lie("challenge: padded", Claimed, |draft| draft.alter("challenge", |old| format!("{old}="))).may(),
        lie("challenge: in standard base64", Claimed, |draft| draft.put("challenge", STANDARD.encode(draft.challenge()))).may(),
        lie("challenge: a list of bytes", Claimed, |draft| draft.put("challenge", draft.challenge())).may(),

        lie("origin: another host", Claimed, |draft| draft.put("origin", EVIL)),
        lie("origin: another port", Claimed, |draft| draft.alter("origin", |old| format!("{}:1", old.trim_end_matches(|end: char| end == ':' || end.is_ascii_digit())))),
        lie("origin: http and https swapped", Claimed, |draft| draft.alter("origin", swap_scheme)),
        lie("origin: a subdomain", Claimed, |draft| draft.alter_host(|host| format!("sub.{host}"))),
        lie("origin: host with a trailing dot", Claimed, |draft| draft.alter_host(|host| format!("{host}."))),
        lie("origin: host as a prefix", Claimed, |draft| draft.alter_host(|host| format!("{host}.evil.example"))),
        lie("origin: host as a suffix", Claimed, |draft| draft.alter_host(|host| format!("evil{host}"))),
        lie("origin: host as user name", Claimed, |draft| draft.alter_host(|host| format!("{host}@evil.example"))),
        lie("origin: host with a look-alike letter", Claimed, |draft| draft.alter_host(|host| host.replacen(['o', 'a', 'e'], "\u{43e}", 1))),
        lie("origin: the loopback address", Claimed, |draft| draft.alter_host(|_| "127.0.0.1".to_owned())),
        lie("origin: the bare host", Claimed, |draft| draft.alter("origin", |origin| host_of(origin).to_owned())),
        lie("origin: of an application", Claimed, |draft| draft.put("origin", "android:apk-key-hash:pNiP5iKyQ8JwgGOaKA1zGPUPJIS-0H1xKCQcfIoGLck")),
        lie("origin: the text null", Claimed, |draft| draft.put("origin", "null")),
        lie("origin: null", Claimed, |draft| draft.put("origin", Value::Null)),
        lie("origin: empty", Claimed, |draft| draft.put("origin", "")),
        lie("origin: missing", Claimed, |draft| cut(&mut draft.client, "origin")),
        lie("origin: in a list", Claimed, |draft| draft.put("origin", json!([draft.client[2].1, EVIL]))),
        lie("origin: upper case", Claimed, |draft| draft.alter("origin", str::to_uppercase)).may(),
        lie("origin: with a slash behind", Claimed, |draft| draft.alter("origin", |old| format!("{old}/"))).may(),
        lie("origin: with a path", Claimed, |draft| draft.alter("origin", |old| format!("{old}/login"))).may(),
        lie("origin: with a user name", Claimed, |draft| draft.alter_host(|host| format!("user@{host}"))).may(),

        lie("crossOrigin: true", Claimed, |draft| draft.put("crossOrigin", true)),
        lie("crossOrigin: the text true", Claimed, |draft| draft.put("crossOrigin", "true")),
        lie("crossOrigin: true and topOrigin", Claimed, |draft| { draft.put("crossOrigin", true); draft.put("topOrigin", EVIL); }),
        lie("topOrigin: another site", Claimed, |draft| draft.put("topOrigin", EVIL)),
        lie("topOrigin: the own origin", Claimed, |draft| draft.put("topOrigin", draft.client[2].1.clone())),

        lie("client data: not JSON", Encoded, |draft| draft.client_json = b"type=webauthn".to_vec()),
        lie("client data: cut short", Encoded, |draft| shorten(&mut draft.client_json)),
        lie("client data: null", Encoded, |draft| draft.client_json = b"null".to_vec()),
        lie("client data: in a list", Encoded, |draft| draft.edit_client(|old| format!("[{old}]"))),
        lie("client data: a list of its values", Encoded, |draft| draft.client_json = json!(draft.client.iter().map(|entry| &entry.1).collect::<Vec<_>>()).to_string().into()),
        lie("client data: a JSON text of JSON", Encoded, |draft| draft.edit_client(|old| json!(old).to_string())),
        lie("client data: an object behind", Encoded, |draft| draft.edit_client(|old| format!("{old}{{}}"))),
        lie("client data: with a trailing comma", Encoded, |draft| draft.edit_client(|old| old.replace('}', ",}"))),
        lie("client data: in single quotes", Encoded, |draft| draft.edit_client(|old| old.replace('"', "'"))),
        lie("client data: members in upper case", Encoded, |draft| draft.edit_client(|old| old.replace("type\"", "TYPE\"").replace("challenge\"", "CHALLENGE\"").replace("origin\"", "ORIGIN\""))),
        lie("client data: not UTF-8 in the origin", Encoded, |draft| { let end = draft.client_json.iter().rposition(|byte| *byte == b',').expect("members"); draft.client_json.insert(end - 1, 0xff); }),
        lie("client data: UTF-16", Encoded, |draft| draft.client_json = draft.client_json.iter().flat_map(|byte| [*byte, 0]).collect()),
        lie("client data: a wrong type behind the right one", Claimed, |draft| draft.client.push(("type", json!("payment.get")))),
        lie("client data: a wrong challenge behind the right one", Claimed, |draft| draft.client.push(("challenge", random()))),
        lie("client data: a wrong origin behind the right one", Claimed, |draft| draft.client.push(("origin", json!(EVIL)))),
        lie("client data: a wrong challenge before the right one", Claimed, |draft| draft.client.insert(0, ("challenge", random()))).may(),
        lie("client data: with a byte order mark", Encoded, |draft| draft.edit_client(|old| format!("\u{feff}{old}"))).may(),
        lie("client data: one MiB long", Claimed, |draft| draft.put("long", "x".repeat(1 << 20))).may(),
        lie("client data: nested ten thousand deep", Encoded, |draft| draft.edit_client(|old| old.replacen('{', &format!("{{\"deep\":{}{},", "[".repeat(10_000), "]".repeat(10_000)), 1))).may(),
    ]
}

#[rustfmt::skip]
fn data_lies<Of>() -> Vec<Lie<Of>> {
    vec![
        lie("RP ID hash: of another RP ID", Claimed, |draft| draft.rp_id_hash = hash("evil.example")),
        lie("RP ID hash: of a subdomain", Claimed, |draft| draft.rp_id_hash = hash(format!("sub.{}", draft.credential.rp_id))),
        lie("RP ID hash: of the origin", Claimed, |draft| draft.rp_id_hash = hash(draft.client[2].1.as_str().expect("an origin"))),
        lie("RP ID hash: all zero", Claimed, |draft| draft.rp_id_hash.fill(0)),
        lie("RP ID hash: last bit changed", Claimed, |draft| draft.rp_id_hash[31] ^= 1),
        lie("flags: UP clear", Claimed, |draft| draft.flags &= !UP),
        lie("flags: UV clear", Claimed, |draft| draft.flags &= !UV),
        lie("flags: BS without BE", Claimed, |draft| draft.flags = draft.flags & !BE | BS),
        lie("flags: ED without extension data", Claimed, |draft| draft.flags |= ED),
        lie("flags: extension data without ED", Claimed, |draft| draft.extensions = map(&[(text("credProtect"), int(2))])),
        lie("extension data: a number", Claimed, |draft| { draft.flags |= ED; draft.extensions = int(1); }),
        lie("extension data: cut short", Claimed, |draft| { draft.flags |= ED; draft.extensions = vec![0xa1]; }),
        lie("extension data: bytes behind", Claimed, |draft| { draft.flags |= ED; draft.extensions = [map(&[]), vec![0; 4]].concat(); }),
        lie("authenticator data: bytes behind", Encoded, |draft| draft.auth_data.extend([0; 4])),
        lie("authenticator data: twice", Encoded, |draft| draft.auth_data = draft.auth_data.repeat(2)),
        lie("authenticator data: 36 bytes", Encoded, |draft| draft.auth_data.truncate(36)),
        lie("authenticator data: empty", Encoded, |draft| draft.auth_data.clear()),
    ]
}

/// Lies of the signature of an assertion or of a self attestation. What is changed after signing is the way of a thief who
/// relays an honest signature.
#[rustfmt::skip]
fn signature_lies<Of>() -> Vec<Lie<Of>> {
    vec![
        lie("signature: empty", Signed, |draft| draft.signature.clear()),
        lie("signature: zero bytes", Signed, |draft| draft.signature.fill(0)),
        lie("signature: r and s zero", Signed, |draft| draft.signature = der(&[0], &[0])),
        lie("signature: r zero", Signed, |draft| draft.signature = der(&[0], &[1])),
        lie("signature: s zero", Signed, |draft| draft.signature = der(&[1], &[0])),
        lie("signature: r and s one", Signed, |draft| draft.signature = der(&[1], &[1])),
        lie("signature: r and s the order of the curve", Signed, |draft| draft.signature = der(&decode(&json!(ORDER)), &decode(&json!(ORDER)))),
        lie("signature: r and s swapped", Signed, |draft| { let (r, s) = draft.raw_signature().split_bytes(); draft.signature = der_of(Signature::from_scalars(s, r)); }),
        lie("signature: raw r and s instead of DER", Signed, |draft| draft.signature = draft.raw_signature().to_vec()),
        lie("signature: truncated", Signed, |draft| shorten(&mut draft.signature)),
        lie("signature: a byte behind", Signed, |draft| draft.signature.push(0)),
        lie("signature: high bit of r changed", Signed, |draft| draft.signature[4] ^= 0x80),
        lie("signature: last bit of s changed", Signed, |draft| *draft.signature.last_mut().expect("a signature") ^= 1),
        lie("signature: by another key", Signed, |draft| draft.signature = sign(&SigningKey::generate(), &draft.message())),
        lie("signature: over nothing", Signed, |draft| draft.signature = draft.sign(b"")),
        lie("signature: over the authenticator data alone", Signed, |draft| draft.signature = draft.sign(&draft.auth_data)),
        lie("signature: over the client data's hash alone", Signed, |draft| draft.signature = draft.sign(&hash(&draft.client_json))),
        lie("signature: over the parts in the wrong order", Signed, |draft| draft.signature = draft.sign(&[&hash(&draft.client_json), &draft.auth_data[..]].concat())),
        lie("signature: over the client data unhashed", Signed, |draft| draft.signature = draft.sign(&[&draft.auth_data[..], &draft.client_json].concat())),
        lie("signature: over the message hashed twice", Signed, |draft| draft.signature = draft.sign(&hash(draft.message()))),
        lie("signature: over the message hashed by SHA-512", Signed, |draft| draft.signature = der_of(draft.credential.key.sign_prehash(&Sha512::digest(draft.message())))),
        lie("signature: over another challenge", Claimed, |draft| draft.put("challenge", random())).then(Signed, Draft::restore_client),
        lie("signature: over another origin", Claimed, |draft| draft.put("origin", EVIL)).then(Signed, Draft::restore_client),
        lie("signature: over another type", Claimed, |draft| draft.put("type", "payment.get")).then(Signed, Draft::restore_client),
        lie("signature: over crossOrigin true", Claimed, |draft| draft.put("crossOrigin", true)).then(Signed, Draft::restore_client),
        lie("signature: over another RP ID", Claimed, |draft| draft.rp_id_hash = hash("evil.example")).then(Signed, |draft| draft.auth_data[..32].copy_from_slice(&hash(&draft.credential.rp_id))),
        lie("signature: before UP was set", Claimed, |draft| draft.flags &= !UP).then(Signed, |draft| draft.auth_data[32] |= UP),
        lie("signature: before UV was set", Claimed, |draft| draft.flags &= !UV).then(Signed, |draft| draft.auth_data[32] |= UV),
        lie("signature: before the counter was raised", Signed, |draft| draft.auth_data[34] ^= 1),
        lie("signature: before a member was added", Signed, |draft| draft.edit_client(|old| old.replace('}', ",\"more\":1}"))),
        lie("signature: before a space was added", Signed, |draft| draft.edit_client(|old| old.replacen('{', "{ ", 1))),
        lie("signature: long form of the DER length", Signed, |draft| draft.signature.insert(1, 0x81)).may(),
        lie("signature: a needless zero before r", Signed, |draft| { draft.signature[1] += 1; draft.signature[3] += 1; draft.signature.insert(4, 0); }).may(),
    ]
}

/// Lies of the JSON around the bytes; `required` are the members of `response`.
#[rustfmt::skip]
fn answer_lies<Of>(required: &[&'static str]) -> Vec<Lie<Of>> {
    let mut lies = vec![
        lie("answer: null", Answered, |draft| draft.answer = Value::Null),
        lie("answer: in a list", Answered, |draft| draft.answer = json!([draft.answer])),
        lie("answer: below publicKey", Answered, |draft| draft.answer = json!({ "publicKey": draft.answer })),
        lie("answer: type of another credential", Answered, |draft| draft.answer["type"] = json!("password")),
        lie("answer: type in upper case", Answered, |draft| draft.answer["type"] = json!("PUBLIC-KEY")),
        lie("answer: type empty", Answered, |draft| draft.answer["type"] = json!("")),
        lie("answer: id unlike rawId", Answered, |draft| draft.answer["id"] = random()),
        lie("answer: rawId unlike id", Answered, |draft| draft.answer["rawId"] = random()),
        lie("answer: id and rawId of an unknown credential", Answered, |draft| draft.edit_ids(|_| encode(&[7; 32]))),
        lie("answer: id and rawId a byte shorter", Answered, |draft| draft.edit_ids(|id| { let raw = decode(&json!(id)); encode(&raw[..raw.len() - 1]) })),
        lie("answer: id and rawId a byte longer", Answered, |draft| draft.edit_ids(|id| encode(&[&decode(&json!(id))[..], &[0]].concat()))),
        lie("answer: id and rawId in upper case", Answered, |draft| draft.edit_ids(|id| id[..40].to_uppercase() + &id[40..])),
        lie("answer: id and rawId empty", Answered, |draft| draft.edit_ids(|_| String::new())),
        lie("answer: id empty", Answered, |draft| draft.answer["id"] = json!("")),
        lie("answer: rawId empty", Answered, |draft| draft.answer["rawId"] = json!("")),
        lie("answer: id padded", Answered, |draft| draft.answer["id"] = json!(URL_SAFE.encode(&draft.credential.id))).may(),
        lie("answer: rawId padded", Answered, |draft| draft.answer["rawId"] = json!(URL_SAFE.encode(&draft.credential.id))).may(),
        lie("answer: rawId a list of bytes", Answered, |draft| draft.answer["rawId"] = json!(draft.credential.id)).may(),
    ];
    for member in ["id", "rawId", "type", "response"] {
        lies.push(lie(&format!("answer: {member} missing"), Answered, move |draft| remove(&mut draft.answer, member)));
        lies.push(lie(&format!("answer: {member} a number"), Answered, move |draft| draft.answer[member] = json!(7)));
    }
    for member in required.iter().copied() {
        lies.push(lie(&format!("response: {member} missing"), Answered, move |draft| remove(&mut draft.answer["response"], member)));
        lies.push(lie(&format!("response: {member} null"), Answered, move |draft| draft.answer["response"][member] = Value::Null));
        lies.push(lie(&format!("response: {member} empty"), Answered, move |draft| draft.answer["response"][member] = json!("")));
        lies.push(lie(&format!("response: {member} not base64url"), Answered, move |draft| draft.answer["response"][member] = json!("*not base64url*")));
        lies.push(lie(&format!("response: {member} in standard base64"), Answered, move |draft| draft.answer["response"][member] = json!(STANDARD.encode(decode(&draft.answer["response"][member])))).may());
    }
    lies
}

#[rustfmt::skip]
fn registration_lies() -> Vec<RegistrationLie> {
    vec![
        lie("flags: AT clear", Claimed, |draft| draft.flags &= !AT),
        lie("flags: AT clear and no credential data", Claimed, |draft| { draft.flags &= !AT; draft.attested = false; }),
        lie("flags: AT without credential data", Claimed, |draft| draft.attested = false),
        lie("credential id: empty", Claimed, |draft| draft.credential.id.clear()),
        lie("credential id: 1024 bytes", Claimed, |draft| draft.credential.id.resize(1024, 7)),
        lie("credential id: said to be a byte longer", Encoded, |draft| draft.auth_data[54] += 1),
        lie("credential id: said to be a byte shorter", Claimed, |draft| draft.credential.id[31] = 0).then(Encoded, |draft| draft.auth_data[54] -= 1),
        lie("credential id: said to be empty", Encoded, |draft| draft.auth_data[54] = 0),
        lie("credential id: said to be 65535 bytes", Encoded, |draft| draft.auth_data[53..55].fill(0xff)),
        lie("authenticator data: cut in the AAGUID", Encoded, |draft| draft.auth_data.truncate(45)),
        lie("authenticator data: cut in the credential id", Encoded, |draft| draft.auth_data.truncate(60)),
        lie("authenticator data: cut before the public key", Encoded, |draft| draft.auth_data.truncate(draft.key_offset())),
        lie("authenticator data: cut in the public key", Encoded, |draft| shorten(&mut draft.auth_data)),
        lie("response: publicKey of another key", Answered, |draft| draft.answer["response"]["publicKey"] = json!(encode(&public_key_info(&SigningKey::generate())))).may(),
        lie("response: publicKeyAlgorithm of another key", Answered, |draft| draft.answer["response"]["publicKeyAlgorithm"] = json!(-257)).may(),
        lie("response: authenticatorData of another", Answered, |draft| draft.answer["response"]["authenticatorData"] = json!(encode(&[0; 37]))).may(),
        lie("response: transports a number", Answered, |draft| draft.answer["response"]["transports"] = json!(7)).may(),
        lie("response: ten thousand transports", Answered, |draft| draft.answer["response"]["transports"] = json!(vec!["x".repeat(40); 10_000])).may(),
    ]
}

#[rustfmt::skip]
fn public_key_lies() -> Vec<RegistrationLie> {
    vec![
        lie("public key: algorithm ES384", Claimed, |draft| put(&mut draft.key, 3, int(-35))),
        lie("public key: algorithm EdDSA", Claimed, |draft| put(&mut draft.key, 3, int(-8))),
        lie("public key: algorithm RS256", Claimed, |draft| put(&mut draft.key, 3, int(-257))),
        lie("public key: algorithm RS1", Claimed, |draft| put(&mut draft.key, 3, int(-65535))),
        lie("public key: algorithm as text", Claimed, |draft| put(&mut draft.key, 3, text("ES256"))),
        lie("public key: no algorithm", Claimed, |draft| cut(&mut draft.key, 3)),
        lie("public key: type OKP", Claimed, |draft| put(&mut draft.key, 1, int(1))),
        lie("public key: type RSA", Claimed, |draft| put(&mut draft.key, 1, int(3))),
        lie("public key: no type", Claimed, |draft| cut(&mut draft.key, 1)),
        lie("public key: curve P-384", Claimed, |draft| put(&mut draft.key, -1, int(2))),
        lie("public key: curve secp256k1", Claimed, |draft| put(&mut draft.key, -1, int(8))),
        lie("public key: no curve", Claimed, |draft| cut(&mut draft.key, -1)),
        lie("public key: no x", Claimed, |draft| cut(&mut draft.key, -2)),
        lie("public key: no y", Claimed, |draft| cut(&mut draft.key, -3)),
        lie("public key: y a sign", Claimed, |draft| put(&mut draft.key, -3, vec![0xf5])),
        lie("public key: off the curve", Encoded, |draft| *draft.auth_data.last_mut().expect("y") ^= 1),
        lie("public key: all zero", Claimed, |draft| { put(&mut draft.key, -2, bytes(&[0; 32])); put(&mut draft.key, -3, bytes(&[0; 32])); }),
        lie("public key: x above the field", Claimed, |draft| put(&mut draft.key, -2, bytes(&[0xff; 32]))),
        lie("public key: x a byte shorter", Claimed, |draft| { let x = draft.key[3].1[3..].to_vec(); put(&mut draft.key, -2, bytes(&x)); }),
        lie("public key: x with a zero before", Claimed, |draft| { let x = draft.key[3].1[2..].to_vec(); put(&mut draft.key, -2, bytes(&[&[0], &x[..]].concat())); }),
        lie("public key: x as text", Claimed, |draft| put(&mut draft.key, -2, text(&"x".repeat(32)))),
        lie("public key: an empty map", Claimed, |draft| draft.key.clear()),
        lie("public key: algorithm twice", Claimed, |draft| draft.key.insert(2, (3, int(-35)))),
        lie("public key: y twice", Claimed, |draft| draft.key.push((-3, bytes(&[1; 32])))),
        lie("public key: a list", Encoded, |draft| { let at = draft.key_offset(); draft.auth_data[at] = 0x8a; }),
        lie("public key: a bare point", Encoded, |draft| { draft.auth_data.truncate(draft.key_offset()); draft.auth_data.extend(draft.credential.key.verifying_key().to_sec1_point(false).as_bytes()); }),
        lie("public key: of indefinite length", Encoded, |draft| { let at = draft.key_offset(); draft.auth_data[at] = 0xbf; draft.auth_data.push(0xff); }).may(),
        lie("public key: with a CBOR tag", Encoded, |draft| draft.auth_data.insert(draft.key_offset(), 0xc1)).may(),
        lie("public key: labels in another order", Claimed, |draft| draft.key.reverse()).may(),
        lie("public key: with its private part", Claimed, |draft| put(&mut draft.key, -4, bytes(&draft.credential.key.to_bytes()))).may(),
    ]
}

#[rustfmt::skip]
fn attestation_lies() -> Vec<RegistrationLie> {
    vec![
        lie("none: a statement that is not empty", Attested, |draft| { draft.attest("fmt", text("none")); draft.attest("attStmt", statement(ES256, &draft.signature)); }),
        lie("none: a list as statement", Attested, |draft| { draft.attest("fmt", text("none")); draft.attest("attStmt", vec![0x80]); }),
        lie("none: null as statement", Attested, |draft| { draft.attest("fmt", text("none")); draft.attest("attStmt", vec![0xf6]); }),
        lie("none: a statement nested ten thousand deep", Attested, |draft| { draft.attest("fmt", text("none")); draft.attest("attStmt", [vec![0x81; 10_000], map(&[])].concat()); }),
        lie("format: unknown", Attested, |draft| draft.attest("fmt", text("unheard-of"))),
        lie("format: upper case", Attested, |draft| draft.attest("fmt", text(if draft.packed { "PACKED" } else { "NONE" }))),
        lie("format: empty", Attested, |draft| draft.attest("fmt", text(""))),
        lie("format: a number", Attested, |draft| draft.attest("fmt", int(0))),
        lie("format: packed over an empty statement", Attested, |draft| { draft.attest("fmt", text("packed")); draft.attest("attStmt", map(&[])); }),
        lie("format: fido-u2f over a self attestation", Attested, |draft| { draft.attest("fmt", text("fido-u2f")); draft.attest("attStmt", statement(ES256, &draft.signature)); }),
        lie("format: tpm over a self attestation", Attested, |draft| { draft.attest("fmt", text("tpm")); draft.attest("attStmt", statement(ES256, &draft.signature)); }),
        lie("format: apple over an empty statement", Attested, |draft| { draft.attest("fmt", text("apple")); draft.attest("attStmt", map(&[])); }),
        lie("packed: algorithm RS256", Attested, |draft| draft.attest("attStmt", statement(-257, &draft.signature))).packed(),
        lie("packed: algorithm ES384", Attested, |draft| draft.attest("attStmt", statement(-35, &draft.signature))).packed(),
        lie("packed: no algorithm", Attested, |draft| draft.attest("attStmt", map(&[(text("sig"), bytes(&draft.signature))]))).packed(),
        lie("packed: no signature", Attested, |draft| draft.attest("attStmt", map(&[(text("alg"), int(ES256))]))).packed(),
        lie("packed: signature as text", Attested, |draft| draft.attest("attStmt", map(&[(text("alg"), int(ES256)), (text("sig"), text(&encode(&draft.signature)))]))).packed(),
        lie("packed: an empty chain of certificates", Attested, |draft| draft.attest("attStmt", statement_with_chain(&draft.signature, &[0x80]))).packed(),
        lie("packed: a certificate that is none", Attested, |draft| draft.attest("attStmt", statement_with_chain(&draft.signature, &[0x81, 0x42, 0x30, 0x00]))).packed(),
        lie("packed: another AAGUID after signing", Attested, |draft| { draft.auth_data[37] ^= 1; draft.attest("authData", bytes(&draft.auth_data)); }).packed(),
        lie("packed: another credential id after signing", Attested, |draft| { draft.auth_data[55] ^= 1; draft.credential.id[0] ^= 1; draft.attest("authData", bytes(&draft.auth_data)); }).packed(),
        lie("attestation: no fmt", Attested, |draft| cut(&mut draft.attestation, "fmt")),
        lie("attestation: no attStmt", Attested, |draft| cut(&mut draft.attestation, "attStmt")),
        lie("attestation: no authData", Attested, |draft| cut(&mut draft.attestation, "authData")),
        lie("attestation: authData as text", Attested, |draft| draft.attest("authData", text(&encode(&draft.auth_data)))),
        lie("attestation: authData said to be 2 GiB", Attested, |draft| draft.attest("authData", [&[0x5a, 0x7f, 0xff, 0xff, 0xff], &draft.auth_data[..]].concat())),
        lie("attestation: fmt twice", Attested, |draft| draft.attestation.push(("fmt", text("packed")))),
        lie("attestation: authData twice", Attested, |draft| draft.attestation.push(("authData", bytes(&[0; 37])))),
        lie("attestation: a byte behind", Answered, |draft| draft.edit_attestation(|raw| raw.push(0))),
        lie("attestation: cut short", Answered, |draft| draft.edit_attestation(shorten)),
        lie("attestation: a list", Answered, |draft| draft.edit_attestation(|raw| raw[0] = 0x86)),
        lie("attestation: a member said too many", Answered, |draft| draft.edit_attestation(|raw| raw[0] = 0xa4)),
        lie("attestation: the bare authenticator data", Answered, |draft| draft.answer["response"]["attestationObject"] = json!(encode(&draft.auth_data))),
        lie("attestation: JSON instead of CBOR", Answered, |draft| draft.edit_attestation(|raw| *raw = b"{\"fmt\":\"none\",\"attStmt\":{}}".to_vec())),
        lie("attestation: of indefinite length", Answered, |draft| draft.edit_attestation(|raw| { raw[0] = 0xbf; raw.push(0xff); })).may(),
        lie("attestation: with a CBOR tag", Answered, |draft| draft.edit_attestation(|raw| *raw = [&[0xd9, 0xd9, 0xf7], &raw[..]].concat())).may(),
    ]
}

#[rustfmt::skip]
fn assertion_lies() -> Vec<AssertionLie> {
    vec![
        lie("flags: BE unlike the registered one", Claimed, |draft| draft.flags = if draft.flags & BE == 0 { draft.flags | BE } else { draft.flags & !(BE | BS) }),
        lie("flags: AT with credential data", Claimed, |draft| { draft.flags |= AT; draft.attested = true; }),
        lie("flags: AT without credential data", Claimed, |draft| draft.flags |= AT),
        lie("flags: credential data without AT", Claimed, |draft| draft.attested = true),
        lie("counter: the same as before", Claimed, |draft| draft.counter = draft.credential.counter).counted(),
        lie("counter: lower than before", Claimed, |draft| draft.counter = FIRST_COUNT / 2).counted(),
        lie("counter: zero after more", Claimed, |draft| draft.counter = 0).counted(),
        lie("userHandle: of another user", Claimed, |draft| draft.credential.user_handle = <[u8; 16]>::generate().to_vec()),
        lie("userHandle: the credential id", Claimed, |draft| draft.credential.user_handle.clone_from(&draft.credential.id)),
        lie("userHandle: a byte more", Claimed, |draft| draft.credential.user_handle.push(0)),
        lie("userHandle: a byte less", Claimed, |draft| shorten(&mut draft.credential.user_handle)),
        lie("userHandle: empty", Claimed, |draft| draft.credential.user_handle.clear()),
        lie("userHandle: 65 bytes", Claimed, |draft| draft.credential.user_handle.resize(65, 0)),
        lie("userHandle: a number", Answered, |draft| draft.answer["response"]["userHandle"] = json!(7)),
        lie("userHandle: not base64url", Answered, |draft| draft.answer["response"]["userHandle"] = json!("*not base64url*")),
        lie("userHandle: padded", Answered, |draft| draft.answer["response"]["userHandle"] = json!(URL_SAFE.encode(&draft.credential.user_handle))).may(),
    ]
}

#[rustfmt::skip]
fn truths<Of>() -> Vec<Lie<Of>> {
    vec![
        lie("client data: an unknown member", Claimed, |draft| draft.put("other_keys_can_be_added_here", json!({ "more": [1, "\u{e4}"] }))),
        lie("client data: members in another order", Claimed, |draft| draft.client.reverse()),
        lie("client data: spaces between", Encoded, |draft| draft.edit_client(|old| old.replace("\":", "\" :\n "))),
        lie("client data: escaped slashes", Encoded, |draft| draft.edit_client(|old| old.replace('/', "\\/"))),
        lie("client data: without crossOrigin", Claimed, |draft| cut(&mut draft.client, "crossOrigin")),
        lie("client data: tokenBinding of Level 1", Claimed, |draft| draft.put("tokenBinding", json!({ "status": "supported" }))),
        lie("extensions: an unknown output of the client", Answered, |draft| draft.answer["clientExtensionResults"]["unheard"] = json!({ "of": true })),
        lie("extensions: an unknown output of the authenticator", Claimed, |draft| { draft.flags |= ED; draft.extensions = map(&[(text("unheard"), text("of"))]); }),
        lie("flags: reserved bits set", Claimed, |draft| draft.flags |= 0x22),
        lie("answer: an unknown member", Answered, |draft| draft.answer["unheard"] = json!("of")),
        lie("response: an unknown member", Answered, |draft| draft.answer["response"]["unheard"] = json!("of")),
        lie("authenticatorAttachment: an unknown one", Answered, |draft| draft.answer["authenticatorAttachment"] = json!("implanted")),
        lie("authenticatorAttachment: absent", Answered, |draft| remove(&mut draft.answer, "authenticatorAttachment")),
    ]
}

#[rustfmt::skip]
fn registration_truths() -> Vec<RegistrationLie> {
    vec![
        lie("credential id: 16 bytes", Claimed, |draft| draft.credential.id.truncate(16)),
        lie("credential id: 1023 bytes", Claimed, |draft| draft.credential.id.resize(1023, 7)),
        lie("extensions: credProtect", Claimed, |draft| { draft.flags |= ED; draft.extensions = map(&[(text("credProtect"), int(2))]); }),
        lie("extensions: credProps", Answered, |draft| draft.answer["clientExtensionResults"]["credProps"] = json!({ "rk": true })),
        lie("transports: an unknown one", Answered, |draft| draft.answer["response"]["transports"] = json!(["internal", "telepathy"])),
        lie("transports: none", Answered, |draft| draft.answer["response"]["transports"] = json!([])),
        lie("response: the members of Level 1 only", Answered, |draft| draft.answer["response"] = json!({ "clientDataJSON": draft.answer["response"]["clientDataJSON"], "attestationObject": draft.answer["response"]["attestationObject"] })),
        lie("packed: self attestation", Claimed, |draft| draft.packed = true),
    ]
}

#[rustfmt::skip]
fn assertion_truths() -> Vec<AssertionLie> {
    vec![
        lie("userHandle: absent", Answered, |draft| remove(&mut draft.answer["response"], "userHandle")),
        lie("userHandle: null", Answered, |draft| draft.answer["response"]["userHandle"] = Value::Null),
        lie("signature: with the high s", Signed, |draft| { let (r, s) = draft.raw_signature().normalize_s().split_scalars(); draft.signature = der_of(Signature::from_scalars(r, -s)); }),
        lie("signature: with the low s", Signed, |draft| draft.signature = der_of(Ok(draft.raw_signature().normalize_s()))),
        lie("counter: far ahead", Claimed, |draft| draft.counter += 1000).counted(),
        lie("flags: BS changed where BE is set", Claimed, |draft| draft.flags ^= (draft.flags & BE) << 1),
    ]
}

fn encode(raw: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(raw)
}

fn decode(text: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.as_str().expect("a string")).expect("base64url")
}

fn hexadecimal(raw: &[u8]) -> String {
    raw.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random() -> Value {
    json!(encode(&<[u8; 32]>::generate()))
}

fn hash(data: impl AsRef<[u8]>) -> Vec<u8> {
    Sha256::digest(data).to_vec()
}

fn ids(descriptors: &Value) -> impl Iterator<Item = Vec<u8>> {
    descriptors.as_array().into_iter().flatten().map(|descriptor| decode(&descriptor["id"]))
}

fn host_of(origin: &str) -> &str {
    let rest = origin.split_once("://").map_or(origin, |parts| parts.1);
    rest.split([':', '/']).next().unwrap_or(rest)
}

fn swap_scheme(origin: &str) -> String {
    origin.strip_prefix("https").map_or_else(|| origin.replacen("http", "https", 1), |rest| format!("http{rest}"))
}

fn put<Name: PartialEq, Part>(entries: &mut Vec<(Name, Part)>, name: Name, value: Part) {
    match entries.iter_mut().find(|entry| entry.0 == name) {
        Some(entry) => entry.1 = value,
        None => entries.push((name, value)),
    }
}

fn cut<Name: PartialEq, Part>(entries: &mut Vec<(Name, Part)>, name: Name) {
    entries.retain(|entry| entry.0 != name);
}

fn shorten(raw: &mut Vec<u8>) {
    raw.truncate(raw.len() - 1);
}

fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().expect("an object").remove(member);
}

/// JSON by hand: the order of the members is the browser's, and a member may come twice.
fn object(members: &[(&'static str, Value)]) -> Vec<u8> {
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

fn head(major: u8, length: usize) -> Vec<u8> {
    let major = major << 5;
    match u16::try_from(length).expect("test data is short") {
        short @ 0..24 => vec![major | short as u8],
        byte @ 24..256 => vec![major | 24, byte as u8],
        long => [&[major | 25][..], &long.to_be_bytes()].concat(),
    }
}

fn int(value: i64) -> Vec<u8> {
    let (major, value) = if value < 0 { (1, -1 - value) } else { (0, value) };
    head(major, usize::try_from(value).expect("not negative"))
}

fn bytes(raw: &[u8]) -> Vec<u8> {
    [head(2, raw.len()), raw.to_vec()].concat()
}

fn text(value: &str) -> Vec<u8> {
    [head(3, value.len()), value.as_bytes().to_vec()].concat()
}

/// A CBOR map of encoded entries, in their order.
fn map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let body = entries.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect::<Vec<_>>().concat();
    [head(5, entries.len()), body].concat()
}

fn statement(algorithm: i64, signature: &[u8]) -> Vec<u8> {
    map(&[(text("alg"), int(algorithm)), (text("sig"), bytes(signature))])
}

fn statement_with_chain(signature: &[u8], chain: &[u8]) -> Vec<u8> {
    map(&[(text("alg"), int(ES256)), (text("sig"), bytes(signature)), (text("x5c"), chain.to_vec())])
}

/// SubjectPublicKeyInfo of a P-256 key (RFC 5480), as `getPublicKey()` gives it.
fn public_key_info(key: &SigningKey) -> Vec<u8> {
    let prefix = URL_SAFE_NO_PAD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgA").expect("base64url");
    [&prefix[..], key.verifying_key().to_sec1_point(false).as_bytes()].concat()
}

fn sign(key: &SigningKey, message: &[u8]) -> Vec<u8> {
    let signature: DerSignature = key.sign(message);
    signature.as_bytes().to_vec()
}

fn der_of(signature: Result<Signature, p256::ecdsa::Error>) -> Vec<u8> {
    signature.expect("a signature").to_der().as_bytes().to_vec()
}

/// A DER signature of two integers that are encoded as given.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let part = |value: &[u8]| [&[0x02, value.len() as u8], value].concat();
    let body = [part(r), part(s)].concat();
    [&[0x30, body.len() as u8], &body[..]].concat()
}
