//! From evidence to `acr` and `amr`. Computed from what happened, never from what is enrolled.

use crate::model::{Acr, Channel, Evidence, MethodKind};

/// How strong a proof was (OpenID EAP ACR values 1.0; NIST SP 800-63B 3.2.5: only WebAuthn binds the verifier's name).
pub fn acr(evidence: &Evidence) -> Acr {
    match evidence.channel {
        Channel::Webauthn if evidence.user_verified && evidence.hardware_attested => Acr::Phrh,
        Channel::Webauthn if evidence.user_verified => Acr::Phr,
        Channel::Webauthn | Channel::AuthenticatorApp | Channel::Sms | Channel::RecoveryCode => Acr::Aal2,
    }
}

/// How a proof was given (RFC 8176, 2; `recovery` is a private value).
///
/// A key counts as hardware-bound (`hwk`) only where the credential cannot be synchronised; a PIN is never told from a
/// fingerprint, so `user` is all that is said of the person.
pub fn amr(evidence: &Evidence) -> Vec<String> {
    let values: &[&str] = match evidence.channel {
        Channel::AuthenticatorApp => &["otp"],
        Channel::Sms => &["sms"],
        Channel::RecoveryCode => &["recovery"],
        Channel::Webauthn => match (evidence.backup_eligible, evidence.user_verified) {
            (true, true) => &["pop", "swk", "user"],
            (true, false) => &["pop", "swk"],
            (false, true) => &["pop", "hwk", "user"],
            (false, false) => &["pop", "hwk"],
        },
    };
    values.iter().map(|v| (*v).to_owned()).collect()
}

/// The most that a factor of this method can prove. Attestation is not asked for, so no passkey is known to reach `phrh`.
pub fn best(kind: MethodKind) -> Acr {
    match kind {
        MethodKind::Webauthn => Acr::Phr,
        MethodKind::Totp | MethodKind::Sms | MethodKind::RecoveryCode => Acr::Aal2,
    }
}

/// The strongest that these methods can prove; recovery codes are no method to rely on.
pub fn highest(kinds: impl IntoIterator<Item = MethodKind>) -> Option<Acr> {
    kinds.into_iter().filter(|k| *k != MethodKind::RecoveryCode).map(best).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passkey(user_verified: bool, backup_eligible: bool, hardware_attested: bool) -> Evidence {
        Evidence { channel: Channel::Webauthn, user_verified, backup_eligible, hardware_attested }
    }

    /// T-17, WA-15, S-05.
    #[test]
    fn only_a_verified_passkey_is_phishing_resistant() {
        for channel in [Channel::AuthenticatorApp, Channel::Sms, Channel::RecoveryCode] {
            let boasting = Evidence { channel, user_verified: true, backup_eligible: false, hardware_attested: true };
            assert_eq!(acr(&boasting), Acr::Aal2, "{channel:?}");
        }
        assert_eq!(acr(&passkey(true, true, false)), Acr::Phr);
        assert_eq!(acr(&passkey(false, true, false)), Acr::Aal2);
    }

    /// S-10: a hardware-bound key needs attestation, not a flag.
    #[test]
    fn only_an_attested_key_is_hardware_bound() {
        assert_eq!(acr(&passkey(true, false, false)), Acr::Phr);
        assert_eq!(acr(&passkey(true, false, true)), Acr::Phrh);
    }

    /// S-09, WA-16.
    #[test]
    fn amr_says_what_happened() {
        assert_eq!(amr(&Evidence::of_code(Channel::AuthenticatorApp)), ["otp"]);
        assert_eq!(amr(&Evidence::of_code(Channel::Sms)), ["sms"]);
        assert_eq!(amr(&Evidence::of_code(Channel::RecoveryCode)), ["recovery"]);
        assert_eq!(amr(&passkey(true, true, false)), ["pop", "swk", "user"]);
        assert_eq!(amr(&passkey(true, false, false)), ["pop", "hwk", "user"]);
        assert_eq!(amr(&passkey(false, false, false)), ["pop", "hwk"]);
        assert_eq!(amr(&passkey(false, true, false)), ["pop", "swk"]);
    }

    #[test]
    fn recovery_codes_do_not_raise_what_a_user_can_prove() {
        assert_eq!(highest([MethodKind::RecoveryCode]), None);
        assert_eq!(highest([MethodKind::Sms, MethodKind::Totp]), Some(Acr::Aal2));
        assert_eq!(highest([MethodKind::Totp, MethodKind::Webauthn]), Some(Acr::Phr));
    }
}
