//! Passkeys and security keys. The library checks what the standard asks of a verifier; `strict` checks what it leaves to us.
//! A ceremony's state is data for the engine to keep once; a credential is judged as it stands in its row at the finish.

mod strict;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
use crate::model::{Channel, Details, Evidence, Id, Keyed, MethodKind, Moment, WebauthnDetails};

/// How long a ceremony counts, in seconds (WebAuthn L3, 15.1).
pub const CEREMONY: i64 = 300;

/// The method.
pub struct Webauthn;

impl Method for Webauthn {
    fn kind(&self) -> MethodKind {
        MethodKind::Webauthn
    }

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
        Ok(Begun {
            shown: Shown::Webauthn(options),
            secret: None,
            state: Some(serde_json::to_vec(&state).map(Zeroizing::new).map_err(|_| Refusal::NotAllowed)?),
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
        let state: DiscoverableAuthentication = state(exam)?;
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
    let covers = |origin: &&Url| origin.host_str().is_some_and(|h| below(h, &parties.rp.host));
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

/// Whether a host is this domain or below it.
pub fn below(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
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
    let roams = |h: &Held| match &h.factor.details {
        Details::Webauthn(d) => {
            !d.transports.is_empty()
                && d.transports.iter().all(|t| matches!(t.as_str(), "usb" | "nfc" | "ble" | "smart-card"))
        }
        _ => false,
    };
    if held.iter().all(roams) { json!(["security-key"]) } else { json!([]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_below_its_domain_and_no_other() {
        assert!(below("example.com", "example.com"));
        assert!(below("mfa.example.com", "example.com"));
        assert!(!below("badexample.com", "example.com"));
        assert!(!below("example.com", "mfa.example.com"));
        assert!(!below("example.com.evil.org", "example.com"));
    }
}
