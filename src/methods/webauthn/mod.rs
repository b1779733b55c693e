//! Passkeys and security keys. The library checks what the standard asks of a verifier; `strict` checks what it leaves to us.
//! A ceremony's state is data for the engine to keep once; a credential is judged as it stands in its row at the finish.

#[cfg(test)]
mod authenticator;
mod strict;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use uuid::Uuid;
use webauthn_rs::WebauthnBuilder;
use webauthn_rs::prelude::{
    DiscoverableAuthentication, DiscoverableKey, Passkey, PasskeyRegistration, Url, Webauthn as Library, WebauthnError,
};
use webauthn_rs_proto::{PublicKeyCredential, RegisterPublicKeyCredential};
use zeroize::Zeroizing;

use super::{
    Answer, Attachment, Begun, Enrolled, Exam, Fault, Held, Method, Parties, Proven, Refusal, Shown, Spent, Wish,
    aaguid,
};
use crate::model::{Channel, Details, Evidence, Id, Keyed, Moment, WebauthnDetails};

/// How long a ceremony counts, in seconds (WebAuthn L3, 15.1).
pub const CEREMONY: i64 = 300;

/// The method.
pub struct Webauthn;

/// A ceremony under way: what the library remembers, and which factors were asked for (WA-01).
#[derive(Serialize, Deserialize)]
struct Asked {
    #[serde(flatten)]
    state: DiscoverableAuthentication,
    /// Of a release before there is no list, and none is read by it.
    #[serde(default)]
    allowed: Option<Vec<Id>>,
}

impl Method for Webauthn {
    fn begin_enrolment(
        &self,
        _at: &Moment<'_>,
        _keyed: &dyn Keyed,
        parties: &Parties,
        _owner: &Id,
        wish: &Wish,
        held: &[Held],
    ) -> Result<Begun, Refusal> {
        let Wish::Webauthn(attachment) = wish else { return Err(Refusal::NotAllowed) };
        let user = &parties.user;
        let name = user.login_hint.as_deref().unwrap_or_else(|| user.shown_name());
        // The library draws the challenge itself: the stated exception to randomness being passed in. It is not told what is
        // excluded: it would refuse the user's own credential like any fault, and the store tells it apart.
        let (options, state) = library(parties)?
            .start_passkey_registration(Uuid::from_bytes(user.handle), name, user.shown_name(), None)
            .map_err(|_| Refusal::NotAllowed)?;
        let mut options = serde_json::to_value(options.public_key).map_err(|_| Refusal::NotAllowed)?;
        prefer(&mut options, *attachment);
        options["excludeCredentials"] = descriptors(held);
        Ok(Begun {
            shown: Shown::Webauthn(options),
            secret: None,
            state: Some(serde_json::to_vec(&state).map(Zeroizing::new).map_err(|_| Refusal::NotAllowed)?),
            text: None,
            details: Details::Webauthn(WebauthnDetails::default()),
        })
    }

    fn finish_enrolment(&self, exam: &Exam) -> Result<Enrolled, Refusal> {
        let Answer::Credential(credential) = &exam.answer else { return Err(Refusal::Malformed) };
        let state: PasskeyRegistration = state(exam)?;
        let facts = strict::registration(credential)?;
        let response: RegisterPublicKeyCredential =
            serde_json::from_value(credential.clone()).map_err(|_| wrong("malformed"))?;
        let passkey = library(&exam.parties)?.finish_passkey_registration(&response, &state).map_err(refusal)?;
        if passkey.cred_id().as_slice() != facts.credential_id {
            return Err(wrong("id"));
        }
        let details = WebauthnDetails {
            provider_name: aaguid::provider_name(&facts.aaguid).map(str::to_owned),
            aaguid: facts.aaguid,
            backup_eligible: facts.flags.backup_eligible,
            backed_up: facts.flags.backed_up,
            transports: facts.transports,
            user_verifying: facts.flags.user_verified,
        };
        Ok(Enrolled {
            details: Details::Webauthn(details),
            secret: Some(serde_json::to_vec(&passkey).map(Zeroizing::new).map_err(|_| wrong("stored"))?),
            credential_id: Some(URL_SAFE_NO_PAD.encode(&facts.credential_id)),
            last_step: 0,
        })
    }

    fn begin_challenge(
        &self,
        _at: &Moment<'_>,
        _keyed: &dyn Keyed,
        parties: &Parties,
        _owner: &Id,
        held: &[Held],
    ) -> Result<Begun, Refusal> {
        if held.is_empty() {
            return Err(Refusal::NotAllowed);
        }
        // The discoverable ceremony keeps no copy of a credential in its state: the row at the finish is what is judged.
        let (options, state) =
            library(parties)?.start_discoverable_authentication().map_err(|_| Refusal::NotAllowed)?;
        let mut options = serde_json::to_value(options.public_key).map_err(|_| Refusal::NotAllowed)?;
        options["allowCredentials"] = descriptors(held);
        options["hints"] = hints(held);
        let allowed = Some(held.iter().map(|h| h.factor.id.clone()).collect());
        let state = serde_json::to_vec(&Asked { state, allowed });
        Ok(Begun {
            shown: Shown::Webauthn(options),
            secret: None,
            state: Some(state.map(Zeroizing::new).map_err(|_| Refusal::NotAllowed)?),
            text: None,
            details: Details::Webauthn(WebauthnDetails::default()),
        })
    }

    fn check_form(&self, answer: &Answer) -> Result<(), Refusal> {
        match answer {
            Answer::Credential(Json::Object(_)) => Ok(()),
            Answer::Credential(_) | Answer::Code(_) => Err(Refusal::Malformed),
        }
    }

    fn verify(&self, exam: &Exam) -> Result<Proven, Refusal> {
        let Answer::Credential(credential) = &exam.answer else { return Err(Refusal::Malformed) };
        // First, whose it is: all that is wrong with a credential of somebody else is that the user does not have it.
        let id = strict::credential_id(credential)?;
        let held = exam
            .held
            .iter()
            .find(|h| h.factor.credential_id.as_deref() == Some(id.as_str()))
            .ok_or(Refusal::Wrong(Fault::CredentialUnknown))?;
        let Asked { state, allowed } = state(exam)?;
        if allowed.is_some_and(|allowed| !allowed.contains(&held.factor.id)) {
            return Err(wrong("not_asked_for"));
        }
        let flags = strict::assertion(credential, &exam.parties.user.handle)?;
        let Details::Webauthn(known) = &held.factor.details else { return Err(wrong("stored")) };
        if flags.backup_eligible != known.backup_eligible {
            return Err(wrong("backup_eligibility_changed"));
        }
        let mut passkey = passkey(&held.secret).ok_or(wrong("stored"))?;
        let response: PublicKeyCredential =
            serde_json::from_value(credential.clone()).map_err(|_| wrong("malformed"))?;
        let result = library(&exam.parties)?
            .finish_discoverable_authentication_v2(&response, state, DiscoverableKey::from(&passkey))
            .map_err(refusal)?;
        passkey.update_credential(&result);
        let details = WebauthnDetails { backed_up: result.backup_state(), ..known.clone() };
        Ok(Proven {
            spent: Spent::Credential {
                factor: held.factor.id.clone(),
                version: held.factor.version,
                secret: serde_json::to_vec(&passkey).map(Zeroizing::new).map_err(|_| wrong("stored"))?,
                details: Details::Webauthn(details),
            },
            evidence: Evidence {
                cooling_off: false,
                channel: Channel::Webauthn,
                user_verified: result.user_verified(),
                backup_eligible: result.backup_eligible(),
                hardware_attested: false,
            },
        })
    }
}

/// A verifier for the relying party's RP ID and origins.
fn library(parties: &Parties) -> Result<Library, Refusal> {
    let origins: Vec<Url> = parties.origins.iter().filter_map(|o| Url::parse(o).ok()).collect();
    let covers = |origin: &&Url| origin.host_str().is_some_and(|host| parties.rp.covers(host));
    let first = origins.iter().find(covers).ok_or(Refusal::NotAllowed)?;
    let builder = WebauthnBuilder::new(&parties.rp.host, first).map_err(|_| Refusal::NotAllowed)?;
    origins
        .iter()
        .fold(builder, |b, origin| b.append_allowed_origin(origin))
        .rp_name(&parties.rp.name)
        .timeout(Duration::from_secs(CEREMONY as u64))
        .build()
        .map_err(|_| Refusal::NotAllowed)
}

fn state<T: serde::de::DeserializeOwned>(exam: &Exam) -> Result<T, Refusal> {
    let bytes = exam.state.as_ref().ok_or(wrong("no_ceremony"))?;
    serde_json::from_slice(bytes).map_err(|_| wrong("no_ceremony"))
}

fn passkey(secret: &[u8]) -> Option<Passkey> {
    serde_json::from_slice(secret).ok()
}

const fn wrong(reason: &'static str) -> Refusal {
    Refusal::Wrong(Fault::Credential(reason))
}

/// What the library refused, in a word for the audit; the caller learns only of missing user verification.
fn refusal(error: WebauthnError) -> Refusal {
    match error {
        WebauthnError::UserNotVerified => Refusal::Wrong(Fault::UserNotVerified),
        WebauthnError::CredentialPossibleCompromise => wrong("counter_regressed"),
        WebauthnError::CredentialBackupEligibilityInconsistent => wrong("backup_eligibility_changed"),
        WebauthnError::MismatchedChallenge => wrong("challenge"),
        WebauthnError::InvalidRPOrigin => wrong("origin"),
        WebauthnError::InvalidRPIDHash => wrong("rp_id"),
        WebauthnError::UserNotPresent => wrong("user_presence"),
        WebauthnError::InvalidClientDataType => wrong("client_data_type"),
        WebauthnError::AuthenticationFailure | WebauthnError::SignatureInvalid => wrong("signature"),
        WebauthnError::CredentialCrossOrigin => wrong("cross_origin"),
        WebauthnError::CredentialAlteredAlgFromRequest => wrong("algorithm"),
        _ => wrong("ceremony"),
    }
}

/// Resident key preferred, user verification required, no attestation, and what the person asked for as a hint.
fn prefer(options: &mut Json, attachment: Attachment) {
    options["authenticatorSelection"] =
        json!({"residentKey": "preferred", "requireResidentKey": false, "userVerification": "required"});
    options["attestation"] = json!("none");
    options["extensions"] = json!({"credProps": true});
    let (place, hint) = match attachment {
        Attachment::Any => return,
        Attachment::Platform => ("platform", "client-device"),
        Attachment::SecurityKey => ("cross-platform", "security-key"),
    };
    options["authenticatorSelection"]["authenticatorAttachment"] = json!(place);
    options["hints"] = json!([hint]);
}

/// The user's own credentials, each with how the browser reached it when it was registered.
fn descriptors(held: &[Held]) -> Json {
    let described = held.iter().filter_map(|h| {
        let mut entry = json!({"type": "public-key", "id": h.factor.credential_id.as_ref()?});
        if let Details::Webauthn(details) = &h.factor.details
            && !details.transports.is_empty()
        {
            entry["transports"] = json!(details.transports);
        }
        Some(entry)
    });
    Json::Array(described.collect())
}

/// A hint where only keys that roam are enrolled.
fn hints(held: &[Held]) -> Json {
    let roams = |h: &Held| matches!(&h.factor.details, Details::Webauthn(details) if details.is_security_key());
    if held.iter().all(roams) { json!(["security-key"]) } else { json!([]) }
}

#[cfg(test)]
mod tests {
    use super::authenticator::{ATTESTED, Authenticator, BACKED_UP, ELIGIBLE, EXTENDED, PRESENT, Said, VERIFIED, cbor};
    use super::*;
    use crate::clock::SystemRng;
    use crate::methods::specimen::{self, HANDLE, NOW, OpenKeys, code, exam, owner, parties};
    use crate::model::{MethodKind, RelyingParty};
    use serde_cbor_2::Value as Cbor;

    /// What a browser is asked, and what the ceremony keeps.
    struct Asked {
        options: Json,
        state: Option<Zeroizing<Vec<u8>>>,
    }

    fn asked(begun: Result<Begun, Refusal>) -> Asked {
        let begun = begun.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let Shown::Webauthn(options) = begun.shown else { unreachable!("options") };
        assert_eq!(begun.details, Details::Webauthn(WebauthnDetails::default()));
        assert!(begun.secret.is_none() && begun.text.is_none());
        Asked { options, state: begun.state }
    }

    fn enrolment(attachment: Attachment, held: &[Held]) -> Asked {
        let (at, wish) = (Moment::new(NOW, &SystemRng), Wish::Webauthn(attachment));
        asked(Webauthn.begin_enrolment(&at, &OpenKeys, &parties(), &owner(), &wish, held))
    }

    fn challenge(held: &[Held]) -> Asked {
        let at = Moment::new(NOW, &SystemRng);
        asked(Webauthn.begin_challenge(&at, &OpenKeys, &parties(), &owner(), held))
    }

    /// Registers what is said once this change is made.
    fn register(change: impl Fn(&Authenticator, &mut Said)) -> Result<Enrolled, Refusal> {
        let (key, asked) = (Authenticator::new(1), enrolment(Attachment::Any, &[]));
        let mut said = key.registers(&asked.options["challenge"]);
        change(&key, &mut said);
        Webauthn.finish_enrolment(&exam(Vec::new(), asked.state, Answer::Credential(key.registration(&said))))
    }

    fn truth(_: &Authenticator, _: &mut Said) {}

    /// A credential of this authenticator as the engine holds it, registered with this counter.
    fn held_of(number: u8, counter: u32, flags: u8) -> Held {
        let (key, asked) = (Authenticator::new(number), enrolment(Attachment::Any, &[]));
        let said = Said {
            counter,
            flags: PRESENT | VERIFIED | ATTESTED | flags,
            ..key.registers(&asked.options["challenge"])
        };
        let answer = Answer::Credential(key.registration(&said));
        let enrolled =
            Webauthn.finish_enrolment(&exam(Vec::new(), asked.state, answer)).unwrap_or_else(|e| panic!("{e:?}"));
        let mut held =
            specimen::held(number, MethodKind::Webauthn, enrolled.details, &enrolled.secret.expect("a credential"));
        held.factor.credential_id = enrolled.credential_id;
        held
    }

    /// Asserts with the key of this number what is said once this change is made; counters go from 5 to 6.
    fn assert_by(number: u8, held: Vec<Held>, change: impl Fn(&Authenticator, &mut Said)) -> Result<Proven, Refusal> {
        let (key, asked) = (Authenticator::new(number), challenge(&held));
        let mut said = key.asserts(&asked.options["challenge"], 6);
        change(&key, &mut said);
        Webauthn.verify(&exam(held, asked.state, Answer::Credential(key.assertion(&said))))
    }

    fn word<T>(outcome: Result<T, Refusal>) -> String {
        match outcome {
            Ok(_) => "accepted".to_owned(),
            Err(Refusal::Wrong(Fault::Credential(reason))) => reason.to_owned(),
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn a_host_is_below_its_domain_and_no_other() {
        let rp = |host: &str| RelyingParty { host: host.to_owned(), ..RelyingParty::clone(&parties().rp) };
        let domain = rp("example.com");
        assert!(domain.covers("example.com") && domain.covers("mfa.example.com"));
        assert!(!domain.covers("badexample.com") && !domain.covers("example.com.evil.org"));
        assert!(!rp("mfa.example.com").covers("example.com"));
    }

    /// WR-01, WR-02, WR-11, WR-15, WR-17.
    #[test]
    fn a_browser_is_asked_to_make_a_verified_credential_of_its_own() {
        let mut phone = held_of(2, 0, 0);
        let Details::Webauthn(details) = &mut phone.factor.details else { unreachable!("a passkey's") };
        details.transports = vec!["hybrid".to_owned(), "internal".to_owned()];
        let options = enrolment(Attachment::Any, &[phone.clone(), held_of(3, 0, 0)]).options;
        assert_eq!(options["rp"], json!({"id": "bank.example", "name": "Bank"}));
        assert_eq!(
            options["user"],
            json!({"id": URL_SAFE_NO_PAD.encode(HANDLE), "name": "ann@mail.example", "displayName": "Ann Other"})
        );
        assert_eq!((&options["timeout"], &options["attestation"]), (&json!(300_000), &json!("none")));
        let selection =
            json!({"residentKey": "preferred", "requireResidentKey": false, "userVerification": "required"});
        assert_eq!(options["authenticatorSelection"], selection);
        assert_eq!(
            (options.get("hints").filter(|h| !h.is_null()), &options["extensions"]),
            (None, &json!({"credProps": true}))
        );
        let (one, other) = (Authenticator::new(2).id_text(), Authenticator::new(3).id_text());
        let excluded = json!([{"type": "public-key", "id": one, "transports": ["hybrid", "internal"]},
            {"type": "public-key", "id": other}]);
        assert_eq!(options["excludeCredentials"], excluded);
        let challenge = options["challenge"].as_str().expect("text");
        assert!(URL_SAFE_NO_PAD.decode(challenge).expect("base64url").len() >= 16);
        assert_ne!(options["challenge"], enrolment(Attachment::Any, &[]).options["challenge"]);
        for (attachment, place, hint) in [
            (Attachment::Platform, "platform", "client-device"),
            (Attachment::SecurityKey, "cross-platform", "security-key"),
        ] {
            let options = enrolment(attachment, &[]).options;
            assert_eq!(options["authenticatorSelection"]["authenticatorAttachment"], json!(place));
            assert_eq!(options["hints"], json!([hint]));
        }

        let at = Moment::new(NOW, &SystemRng);
        let other = Webauthn.begin_enrolment(&at, &OpenKeys, &parties(), &owner(), &Wish::Totp, &[]);
        assert_eq!(other.err(), Some(Refusal::NotAllowed));
    }

    /// WR-13, WR-16.
    #[test]
    fn a_true_registration_is_kept_as_it_said() {
        let enrolled = register(|_, said| {
            said.flags |= ELIGIBLE | BACKED_UP;
            said.response["transports"] = json!([
                "internal",
                "",
                "USB",
                "a-word-of-17-char",
                "smart-card",
                "a",
                "b",
                "c",
                "d",
                "e",
                "f",
                "too-many"
            ]);
        });
        let enrolled = enrolled.unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!((enrolled.credential_id, enrolled.last_step), (Some(Authenticator::new(1).id_text()), 0));
        let details = WebauthnDetails {
            aaguid: "d548826e-79b4-db40-a3d8-11116f7e8349".to_owned(),
            provider_name: Some("Bitwarden".to_owned()),
            backup_eligible: true,
            backed_up: true,
            transports: ["internal", "smart-card", "a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec(),
            user_verifying: true,
        };
        assert_eq!(enrolled.details, Details::Webauthn(details));
        let Details::Webauthn(plain) = register(truth).unwrap_or_else(|e| panic!("{e:?}")).details else {
            unreachable!("a passkey's")
        };
        assert_eq!((plain.backup_eligible, plain.backed_up, plain.transports.len()), (false, false, 0));
    }

    /// A change, and what it is refused for.
    type Lie = (&'static str, fn(&Authenticator, &mut Said));

    /// Lies that registrations and assertions have in common. WR-04 to WR-10, WR-19; WA-03 to WA-07.
    const EITHER: &[Lie] = &[
        ("type", |_, said| said.outer["type"] = json!("public_key")),
        ("id", |_, said| said.outer["rawId"] = json!("AAAA")),
        ("id", |_, said| said.outer["id"] = json!(1)),
        ("id", |_, said| said.outer["rawId"] = Json::Null),
        ("malformed", |_, said| said.response["clientDataJSON"] = Json::Null),
        ("base64url", |_, said| said.response["clientDataJSON"] = json!("e30=")),
        ("client_data", |_, said| said.response["clientDataJSON"] = json!("e30")),
        ("client_data", |_, said| said.client["challenge"] = Json::Null),
        ("base64url", |_, said| said.client["challenge"] = json!("AAAA==")),
        ("challenge", |_, said| said.client["challenge"] = json!("AAAA")),
        ("origin", |_, said| said.client["origin"] = json!("https://bank.example.evil.example")),
        ("origin", |_, said| said.client["origin"] = json!("https://other.bank.example")),
        ("origin", |_, said| said.client["origin"] = json!("https://www.bank.example/")),
        ("origin", |_, said| said.client["origin"] = json!("http://www.bank.example")),
        ("cross_origin", |_, said| said.client["crossOrigin"] = json!(true)),
        ("cross_origin", |_, said| said.client["crossOrigin"] = json!("false")),
        ("cross_origin", |_, said| said.client["topOrigin"] = json!("https://www.bank.example")),
        ("client_data_type", |_, said| said.client["type"] = json!("payment.get")),
        ("rp_id", |_, said| said.domain = "www.bank.example".to_owned()),
        ("user_presence", |_, said| said.flags &= !PRESENT),
        ("Wrong(UserNotVerified)", |_, said| said.flags &= !VERIFIED),
        ("backup_state", |_, said| said.flags |= BACKED_UP),
        ("cbor", |_, said| said.flags |= EXTENDED),
        ("authenticator_data", |_, said| said.rest.push(0)),
        ("authenticator_data", |_, said| {
            said.flags |= EXTENDED;
            said.rest.push(0x80); // a list
        }),
        ("authenticator_data", |_, said| {
            said.flags |= EXTENDED;
            said.rest.extend([0xa0, 0]); // a map, and one byte more
        }),
    ];

    /// WR-11, WR-12, WR-13, WR-19.
    const REGISTRATIONS: &[Lie] = &[
        ("malformed", |_, said| said.response["attestationObject"] = json!([])),
        ("cbor", |_, said| said.response["attestationObject"] = json!("")),
        ("cbor", |_, said| said.response["attestationObject"] = json!("uQAA")), // an empty map in a longer form
        ("attestation", |_, said| said.response["attestationObject"] = json!("gA")), // a list
        ("attestation", |_, said| said.tail.push(0)),
        ("attestation", |_, said| drop(said.object.insert(Cbor::Text("more".to_owned()), Cbor::Null))),
        ("attestation", |_, said| drop(said.object.remove(&Cbor::Text("fmt".to_owned())))),
        ("attestation", |_, said| drop(said.object.insert(Cbor::Text("authData".to_owned()), Cbor::Null))),
        ("attestation", |_, said| {
            let statement = std::collections::BTreeMap::from([(Cbor::Integer(1), Cbor::Null)]);
            said.object.insert(Cbor::Text("attStmt".to_owned()), Cbor::Map(statement));
        }),
        ("authenticator_data", |_, said| {
            said.object.insert(Cbor::Text("authData".to_owned()), Cbor::Bytes(vec![0; 36]));
        }),
        ("authenticator_data", |_, said| said.flags &= !ATTESTED),
        ("authenticator_data", |_, said| said.rest.truncate(15)),
        ("authenticator_data", |_, said| said.rest.truncate(17)),
        ("authenticator_data", |key, said| said.rest = key.attested(999, &key.id, &Cbor::Map(key.public_key()))),
        ("cbor", |key, said| said.rest.truncate(18 + key.id.len())),
        ("id", |key, said| said.rest = key.attested(20, &[9; 20], &Cbor::Map(key.public_key()))),
        ("id", |key, said| said.rest = key.attested(0, &[], &Cbor::Map(key.public_key()))),
        ("id", |key, said| {
            let id = [8; 1024];
            said.rest = key.attested(id.len(), &id, &Cbor::Map(key.public_key()));
            said.outer["id"] = json!(URL_SAFE_NO_PAD.encode(id));
            said.outer["rawId"] = said.outer["id"].clone();
        }),
        ("id", |_, said| {
            said.outer["id"] = json!("");
            said.outer["rawId"] = json!("");
        }),
        ("public_key", |key, said| said.rest = key.attested(20, &key.id, &Cbor::Null)),
        ("algorithm", |key, said| {
            let mut members = key.public_key();
            members.insert(Cbor::Integer(3), Cbor::Integer(-8));
            said.rest = key.attested(20, &key.id, &Cbor::Map(members));
        }),
    ];

    /// WA-01, WA-02, WA-07, WA-08, WA-09.
    const ASSERTIONS: &[Lie] = &[
        ("Wrong(CredentialUnknown)", |_, said| {
            said.outer["id"] = json!("AAAA");
            said.outer["rawId"] = json!("AAAA");
        }),
        ("malformed", |_, said| said.response["authenticatorData"] = Json::Null),
        ("authenticator_data", |_, said| said.response["authenticatorData"] = json!("AAAA")),
        ("authenticator_data", |_, said| said.flags |= ATTESTED),
        ("backup_eligibility_changed", |_, said| said.flags |= ELIGIBLE),
        ("user_handle", |_, said| said.response["userHandle"] = json!(URL_SAFE_NO_PAD.encode([8; 16]))),
        ("user_handle", |_, said| said.response["userHandle"] = json!(URL_SAFE_NO_PAD.encode([7; 65]))),
        ("user_handle", |_, said| said.response["userHandle"] = json!(7)),
        ("base64url", |_, said| said.response["userHandle"] = json!("BwcHBwcHBwcHBwcHBwcHBw==")),
        ("malformed", |_, said| said.response["signature"] = json!(7)),
        ("signature", |_, said| said.tail.push(0)),
        ("counter_regressed", |_, said| said.counter = 5),
        ("counter_regressed", |_, said| said.counter = 4),
        ("counter_regressed", |_, said| said.counter = 0),
        ("client_data_type", |_, said| said.client["type"] = json!("webauthn.create")),
    ];

    /// WR-04, WR-05, WR-06, WR-07, WR-08, WR-09, WR-10, WR-11, WR-12, WR-13, WR-19: each is refused, and for itself.
    #[test]
    fn a_registration_with_one_fault_is_refused_for_that_fault() {
        assert_eq!(word(register(truth)), "accepted");
        for (number, (reason, lie)) in EITHER.iter().chain(REGISTRATIONS).enumerate() {
            assert_eq!(word(register(lie)), *reason, "lie {number}");
        }
        assert_eq!(word(register(|_, said| said.client["type"] = json!("webauthn.get"))), "client_data_type");
    }

    /// WA-01, WA-02, WA-03, WA-04, WA-05, WA-06, WA-07, WA-08, WA-09: each is refused, and for itself.
    #[test]
    fn an_assertion_with_one_fault_is_refused_for_that_fault() {
        let held = held_of(1, 5, 0);
        assert_eq!(word(assert_by(1, vec![held.clone()], truth)), "accepted");
        for (number, (reason, lie)) in EITHER.iter().chain(ASSERTIONS).enumerate() {
            assert_eq!(word(assert_by(1, vec![held.clone()], lie)), *reason, "lie {number}");
        }
    }

    /// WR-13, WR-19, WA-13: what is unusual and no fault.
    #[test]
    fn what_is_allowed_is_accepted() {
        let long = |key: &Authenticator, said: &mut Said| {
            let id = [8; 1023];
            said.rest = key.attested(id.len(), &id, &Cbor::Map(key.public_key()));
            said.outer["id"] = json!(URL_SAFE_NO_PAD.encode(id));
            said.outer["rawId"] = said.outer["id"].clone();
        };
        assert_eq!(word(register(long)), "accepted");
        let spoken = |_: &Authenticator, said: &mut Said| {
            said.client["crossOrigin"] = json!(false);
            said.client["unknown"] = json!({"any": "thing"});
        };
        assert_eq!(word(register(spoken)), "accepted");
        let extended = |_: &Authenticator, said: &mut Said| {
            said.flags |= EXTENDED;
            said.rest.push(0xa0); // an empty map
        };
        assert_eq!(word(register(extended)), "accepted");
        let held = || vec![held_of(1, 5, 0)];
        assert_eq!(word(assert_by(1, held(), spoken)), "accepted");
        assert_eq!(word(assert_by(1, held(), extended)), "accepted");
        let of_ann =
            |_: &Authenticator, said: &mut Said| said.response["userHandle"] = json!(URL_SAFE_NO_PAD.encode(HANDLE));
        assert_eq!(word(assert_by(1, held(), of_ann)), "accepted");
        let without_counter = |_: &Authenticator, said: &mut Said| said.counter = 0;
        assert_eq!(word(assert_by(1, vec![held_of(1, 0, 0)], without_counter)), "accepted");
    }

    /// WA-07, WA-09, WA-10: the credential that was asserted moves on, and the next assertion is judged by what it became.
    #[test]
    fn a_true_assertion_moves_its_own_credential_on() {
        let held = || vec![held_of(2, 5, 0), held_of(1, 5, ELIGIBLE)];
        let synchronised = |_: &Authenticator, said: &mut Said| said.flags |= ELIGIBLE | BACKED_UP;
        let proven = assert_by(1, held(), synchronised).unwrap_or_else(|e| panic!("{e:?}"));
        let meant = Evidence {
            cooling_off: false,
            channel: Channel::Webauthn,
            user_verified: true,
            backup_eligible: true,
            hardware_attested: false,
        };
        assert_eq!(proven.evidence, meant);
        let Spent::Credential { factor, version, secret, details } = proven.spent else {
            unreachable!("a credential is what moves on")
        };
        let [other, mut mine] = <[Held; 2]>::try_from(held()).unwrap_or_else(|_| unreachable!("two"));
        assert_eq!((&factor, version), (&mine.factor.id, mine.factor.version));
        let Details::Webauthn(was) = &mine.factor.details else { unreachable!("a passkey's") };
        assert_eq!(details, Details::Webauthn(WebauthnDetails { backed_up: true, ..was.clone() }));
        mine.secret = secret;
        assert_eq!(word(assert_by(1, vec![other, mine], synchronised)), "counter_regressed");
        let not_now = assert_by(2, held(), truth).unwrap_or_else(|e| panic!("{e:?}"));
        assert!(!not_now.evidence.backup_eligible);
    }

    /// WA-08: another key under the same id.
    #[test]
    fn a_signature_of_another_key_is_no_signature() {
        let stranger = Authenticator::new(9);
        let mut said = None;
        let held = vec![held_of(1, 5, 0)];
        let asked = challenge(&held);
        let honest = Authenticator::new(1).asserts(&asked.options["challenge"], 6);
        let answer = Answer::Credential(stranger.assertion(said.get_or_insert(honest)));
        assert_eq!(word(Webauthn.verify(&exam(held, asked.state, answer))), "signature");
    }

    /// WR-03, WA-11: without a ceremony there is nothing to answer.
    #[test]
    fn an_answer_needs_its_ceremony_and_its_row() {
        let garbage = || Some(Zeroizing::new(b"{}".to_vec()));
        let key = Authenticator::new(1);
        for state in [None, garbage()] {
            let answer = Answer::Credential(key.registration(&key.registers(&json!("AAAA"))));
            assert_eq!(word(Webauthn.finish_enrolment(&exam(Vec::new(), state.clone(), answer))), "no_ceremony");
            let answer = Answer::Credential(key.assertion(&key.asserts(&json!("AAAA"), 6)));
            assert_eq!(word(Webauthn.verify(&exam(vec![held_of(1, 5, 0)], state, answer))), "no_ceremony");
        }
        let mut broken = held_of(1, 5, 0);
        broken.secret = Zeroizing::new(b"{}".to_vec());
        assert_eq!(word(assert_by(1, vec![broken], truth)), "stored");
        let mut other = held_of(1, 5, 0);
        other.factor.details = Details::Totp;
        assert_eq!(word(assert_by(1, vec![other], truth)), "stored");
        let mut nameless = held_of(1, 5, 0);
        nameless.factor.credential_id = None;
        assert_eq!(word(assert_by(1, vec![nameless, held_of(2, 0, 0)], truth)), "Wrong(CredentialUnknown)");
        assert_eq!(word(Webauthn.finish_enrolment(&exam(Vec::new(), None, code("123456")))), "Malformed");
        assert_eq!(word(Webauthn.verify(&exam(Vec::new(), None, code("123456")))), "Malformed");
    }

    /// WA-01.
    #[test]
    fn a_browser_is_asked_for_the_persons_own_credentials() {
        let transports = |number, list: &[&str]| {
            let mut held = held_of(number, 0, 0);
            let Details::Webauthn(details) = &mut held.factor.details else { unreachable!("a passkey's") };
            details.transports = list.iter().map(|t| (*t).to_owned()).collect();
            held
        };
        let roaming = transports(1, &["usb", "nfc", "ble", "smart-card"]);
        let options = challenge(&[roaming.clone(), transports(2, &["usb"])]).options;
        assert_eq!(options["hints"], json!(["security-key"]));
        assert_eq!(options["rpId"], json!("bank.example"));
        assert_eq!((&options["timeout"], &options["userVerification"]), (&json!(300_000), &json!("required")));
        let allowed = json!([{"type": "public-key", "id": Authenticator::new(1).id_text(),
                "transports": ["usb", "nfc", "ble", "smart-card"]},
            {"type": "public-key", "id": Authenticator::new(2).id_text(), "transports": ["usb"]}]);
        assert_eq!(options["allowCredentials"], allowed);
        for at_home in [transports(2, &["usb", "internal"]), transports(2, &[])] {
            assert_eq!(challenge(&[roaming.clone(), at_home]).options["hints"], json!([]));
        }
        let other = specimen::held(3, MethodKind::Totp, Details::Totp, b"");
        assert_eq!(hints(&[other]), json!([]));

        let at = Moment::new(NOW, &SystemRng);
        let none = Webauthn.begin_challenge(&at, &OpenKeys, &parties(), &owner(), &[]);
        assert_eq!(none.err(), Some(Refusal::NotAllowed));
    }

    /// WR-05: any of the origins that were named, and one of them below the domain.
    #[test]
    fn ceremonies_come_from_the_origins_that_were_named() {
        let from =
            |origins: &[&str]| Parties { origins: origins.iter().map(|o| (*o).to_owned()).collect(), ..parties() };
        assert!(library(&from(&["https://mfa.example", "https://bank.example"])).is_ok());
        assert_eq!(library(&from(&["https://mfa.example"])).err(), Some(Refusal::NotAllowed));
        assert_eq!(library(&from(&["nonsense"])).err(), Some(Refusal::NotAllowed));

        let held = vec![held_of(1, 5, 0)];
        let asked = challenge(&held);
        let key = Authenticator::new(1);
        let mut said = key.asserts(&asked.options["challenge"], 6);
        said.client["origin"] = json!("https://pay.bank.example");
        let exam = exam(held, asked.state, Answer::Credential(key.assertion(&said)));
        assert_eq!(word(Webauthn.verify(&exam)), "origin");
        let parties = from(&["https://www.bank.example", "https://pay.bank.example"]);
        assert_eq!(word(Webauthn.verify(&Exam { parties: parties.into(), ..exam })), "accepted");
    }

    #[test]
    fn an_object_has_the_form_of_a_credential() {
        assert_eq!(Webauthn.check_form(&Answer::Credential(json!({}))), Ok(()));
        assert_eq!(Webauthn.check_form(&Answer::Credential(json!([]))), Err(Refusal::Malformed));
        assert_eq!(Webauthn.check_form(&code("123456")), Err(Refusal::Malformed));
    }

    /// WR-11: an algorithm that is offered, over a key of its own kind.
    #[test]
    fn a_key_has_the_kind_of_its_algorithm() {
        let key = |algorithm: i128, kind: i128, curve: Option<i128>| {
            let mut members = std::collections::BTreeMap::from([
                (Cbor::Integer(1), Cbor::Integer(kind)),
                (Cbor::Integer(3), Cbor::Integer(algorithm)),
            ]);
            members.extend(curve.map(|curve| (Cbor::Integer(-1), Cbor::Integer(curve))));
            word(strict::public_key(&Cbor::Map(members)))
        };
        for (algorithm, kind, curve) in [(-7, 2, Some(1)), (-35, 2, Some(2)), (-257, 3, None)] {
            assert_eq!(key(algorithm, kind, curve), "accepted", "{algorithm}");
        }
        for (algorithm, kind, curve) in [
            (-7, 2, Some(2)),
            (-7, 3, Some(1)),
            (-7, 2, None),
            (-35, 2, Some(1)),
            (-35, 3, Some(2)),
            (-257, 2, None),
            (-257, 3, Some(1)),
            (-8, 1, Some(6)),
            (-65535, 3, None),
            (7, 2, Some(1)),
        ] {
            assert_eq!(key(algorithm, kind, curve), "algorithm", "{algorithm} {kind} {curve:?}");
        }
    }

    /// What the library refuses has a word of its own in the audit.
    #[test]
    fn faults_that_the_library_finds_have_their_own_words() {
        for (error, said) in [
            (WebauthnError::CredentialBackupEligibilityInconsistent, "backup_eligibility_changed"),
            (WebauthnError::SignatureInvalid, "signature"),
            (WebauthnError::CredentialCrossOrigin, "cross_origin"),
            (WebauthnError::CredentialAlteredAlgFromRequest, "algorithm"),
            (WebauthnError::ParseNOMFailure, "ceremony"),
        ] {
            assert_eq!(word::<()>(Err(refusal(error))), said);
        }
    }

    /// The shortest form and nothing behind it: two readers cannot differ.
    #[test]
    fn an_item_is_as_long_as_its_shortest_form() {
        let two = [cbor(&Cbor::Integer(1)), cbor(&Cbor::Integer(2))].concat();
        assert_eq!(strict::cbor_item(&two), Ok((Cbor::Integer(1), &two[1..])));
        for bad in [&[0x18, 0x01][..], &[0xa2, 0x01, 0x02, 0x01, 0x03], &[0x81], &[]] {
            assert_eq!(word(strict::cbor_item(bad)), "cbor", "{bad:?}");
        }
    }
}
