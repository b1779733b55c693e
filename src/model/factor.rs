//! One enrolled instance of a method.

use serde::{Deserialize, Serialize};

use super::{Id, Timestamp, named};

named! {
    /// A kind of proof.
    #[derive(Hash, PartialOrd, Ord)]
    pub enum MethodKind {
        /// Passkeys and security keys.
        Webauthn = "webauthn",
        /// Codes of an authenticator app (RFC 6238).
        Totp = "totp",
        /// Codes sent as text messages.
        Sms = "sms",
        /// Single-use codes that the person keeps.
        RecoveryCode = "recovery_code",
    }
}

impl MethodKind {
    /// The name of a factor that was made without one.
    pub fn default_name(self) -> &'static str {
        match self {
            MethodKind::Webauthn => "Passkey",
            MethodKind::Totp => "Authenticator app",
            MethodKind::Sms => "Phone",
            MethodKind::RecoveryCode => "Recovery code",
        }
    }
}

/// What may be shown of a passkey or security key. Facts of the ceremony; nothing here is trusted for policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebauthnDetails {
    /// The authenticator's model in hyphenated hexadecimal; all zero where it does not say.
    pub aaguid: String,
    /// A plain name for the model, where we know one.
    pub provider_name: Option<String>,
    /// The credential may be synchronised (flag BE).
    pub backup_eligible: bool,
    /// The credential is synchronised at the time of its last use (flag BS).
    pub backed_up: bool,
    /// How the browser reached the authenticator when it was registered.
    pub transports: Vec<String>,
    /// The person was verified when it was registered (flag UV).
    pub user_verifying: bool,
}

impl WebauthnDetails {
    /// Whether it is a key to be plugged in or held near, as far as browser and key said.
    pub fn is_security_key(&self) -> bool {
        let roams = |transport: &String| matches!(transport.as_str(), "usb" | "nfc" | "ble" | "smart-card");
        !self.backup_eligible && !self.transports.is_empty() && self.transports.iter().all(roams)
    }
}

/// What may be shown of a phone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmsDetails {
    /// The number with all but its last two digits hidden.
    pub phone_masked: String,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
}

/// What may be shown of a factor, by kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Details {
    /// Nothing beyond the factor itself.
    Totp,
    /// Of a passkey or security key.
    Webauthn(WebauthnDetails),
    /// Of a phone.
    Sms(SmsDetails),
}

/// A factor as it is kept. The secret part is sealed; only the vault opens it.
#[derive(Clone, Debug)]
pub struct Factor {
    /// `fac_…`.
    pub id: Id,
    /// Its owner.
    pub user_id: String,
    /// Its method.
    pub kind: MethodKind,
    /// The person's name for it, unique among the user's factors.
    pub name: String,
    /// What may be shown.
    pub details: Details,
    /// When enrolment began.
    pub created_at: Timestamp,
    /// When a first proof made it active; `None` while pending.
    pub activated_at: Option<Timestamp>,
    /// When a pending one dies.
    pub expires_at: Timestamp,
    /// When it last proved anything.
    pub last_used_at: Option<Timestamp>,
    /// The last TOTP step that was spent (RFC 6238, 5.2); 0 before the first.
    pub last_step: i64,
    /// Rises with each change of the sealed part.
    pub version: i64,
    /// TOTP secret, phone number or credential, sealed for this row.
    pub sealed: Vec<u8>,
    /// The WebAuthn credential id in base64url, unique within the relying party.
    pub credential_id: Option<String>,
}

impl Factor {
    /// A pending one under its method's own name, with nothing sealed yet.
    pub fn new(
        id: Id,
        user_id: &str,
        kind: MethodKind,
        details: Details,
        created_at: Timestamp,
        expires_at: Timestamp,
    ) -> Factor {
        Factor {
            id,
            user_id: user_id.to_owned(),
            kind,
            name: kind.default_name().to_owned(),
            details,
            created_at,
            activated_at: None,
            expires_at,
            last_used_at: None,
            last_step: 0,
            version: 1,
            sealed: Vec::new(),
            credential_id: None,
        }
    }

    /// Whether it may answer challenges.
    pub fn is_active(&self) -> bool {
        self.activated_at.is_some()
    }

    /// Whether it awaits its first proof and still may get it.
    pub fn is_pending(&self, now: Timestamp) -> bool {
        self.activated_at.is_none() && now < self.expires_at
    }
}
