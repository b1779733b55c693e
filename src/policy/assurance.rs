//! From evidence to `acr` and `amr`. Computed from what happened, never from what is enrolled.

use crate::model::{Acr, Channel, Evidence, Factor, MethodKind, Timestamp};

/// How strong a proof was (OpenID EAP ACR values 1.0; NIST SP 800-63B 3.2.5: only WebAuthn binds the verifier's name).
pub fn acr(evidence: &Evidence) -> Acr {
    match evidence.channel {
        _ if evidence.cooling_off => Acr::Aal2,
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

/// Whether a factor that became active then is still cooling off: whoever got hold of a session for a moment gains no strong
/// factor by it, and the owner has that long to see and remove it.
pub fn is_cooling_off(activated_at: Option<Timestamp>, seconds: i64, now: Timestamp) -> bool {
    activated_at.is_none_or(|at| now < at.plus_seconds(seconds))
}

/// The most that this factor can prove now, where new ones cool off for so many seconds.
pub fn best_of(factor: &Factor, cool_off: i64, now: Timestamp) -> Acr {
    match is_cooling_off(factor.activated_at, cool_off, now) {
        true => Acr::Aal2,
        false => best(factor.kind),
    }
}

/// The strongest that the active ones of these factors can prove now; recovery codes are nothing to rely on.
pub fn highest(factors: &[Factor], cool_off: i64, now: Timestamp) -> Option<Acr> {
    factors.iter().filter(|f| f.is_active()).map(|f| best_of(f, cool_off, now)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passkey(user_verified: bool, backup_eligible: bool, hardware_attested: bool) -> Evidence {
        Evidence { channel: Channel::Webauthn, user_verified, backup_eligible, hardware_attested, cooling_off: false }
    }

    /// T-17, WA-15, S-05.
    #[test]
    fn only_a_verified_passkey_is_phishing_resistant() {
        for channel in [Channel::AuthenticatorApp, Channel::Sms, Channel::RecoveryCode] {
            let boasting = Evidence { channel, ..passkey(true, false, true) };
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
    fn a_new_factor_counts_for_less_until_it_has_cooled_off() {
        let now = Timestamp::from_seconds(1000);
        assert!(is_cooling_off(Some(now), 60, Timestamp(now.0 + 59_999)));
        assert!(!is_cooling_off(Some(now), 60, now.plus_seconds(60)));
        assert!(!is_cooling_off(Some(now), 0, now), "not by default");
        assert!(is_cooling_off(None, 0, now), "pending");
        let evidence = Evidence { cooling_off: true, ..passkey(true, false, true) };
        assert_eq!((acr(&evidence), amr(&evidence)), (Acr::Aal2, amr(&passkey(true, false, true))));
    }
}
