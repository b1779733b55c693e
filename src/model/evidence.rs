//! What a verification saw. Assurance is computed from this and from nothing else.

use serde::{Deserialize, Serialize};

use super::named;

/// The way by which a proof came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A code computed by an app from a shared secret.
    AuthenticatorApp,
    /// A signature bound to the site by the browser.
    Webauthn,
    /// A code sent over the telephone network.
    Sms,
    /// A code that was kept.
    RecoveryCode,
}

/// The facts of one proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// How it came.
    pub channel: Channel,
    /// The authenticator verified the person in this very ceremony (flag UV).
    pub user_verified: bool,
    /// The credential may live on several devices (flag BE).
    pub backup_eligible: bool,
    /// An attestation that we trust says that the key cannot leave its hardware.
    pub hardware_attested: bool,
    /// The factor is so new that it does not count as phishing-resistant yet.
    #[serde(default)]
    pub cooling_off: bool,
}

impl Evidence {
    /// Evidence of a code: nothing but its channel.
    pub fn of_code(channel: Channel) -> Evidence {
        Evidence { channel, user_verified: false, backup_eligible: false, hardware_attested: false, cooling_off: false }
    }
}

named! {
    /// Authentication context class: how strong the proof is, weakest first.
    #[derive(PartialOrd, Ord)]
    pub enum Acr {
        /// A second factor.
        Aal2 = "aal2",
        /// Phishing-resistant (OpenID EAP ACR values).
        Phr = "phr",
        /// Phishing-resistant with an attested hardware key.
        Phrh = "phrh",
    }
}
