//! A person's visit to our own pages on behalf of a relying party.

use super::{Id, Timestamp, named};

named! {
    /// What the visit is for.
    pub enum Flow {
        /// The list of factors.
        Settings = "settings",
        /// A new passkey or security key.
        AddPasskey = "add_passkey",
        /// A new authenticator app.
        AddAuthenticatorApp = "add_authenticator_app",
        /// A new phone.
        AddPhone = "add_phone",
        /// A new set of recovery codes.
        RecoveryCodes = "recovery_codes",
    }
}

impl Flow {
    /// The page below the portal session's path.
    pub fn page(self) -> &'static str {
        match self {
            Flow::Settings => "settings",
            Flow::AddPasskey => "passkey",
            Flow::AddAuthenticatorApp => "authenticator-app",
            Flow::AddPhone => "phone",
            Flow::RecoveryCodes => "recovery-codes",
        }
    }
}

/// A portal session as it is kept.
#[derive(Clone, Debug)]
pub struct PortalSession {
    /// `por_…`.
    pub id: Id,
    /// On whose behalf.
    pub rp_id: Id,
    /// Whose factors.
    pub user_id: String,
    /// What for.
    pub flow: Flow,
    /// Where the person goes afterwards.
    pub return_url: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it runs out.
    pub expires_at: Timestamp,
    /// Hash of the link token.
    pub link_hash: Vec<u8>,
    /// When a browser opened the link.
    pub link_opened_at: Option<Timestamp>,
    /// Hash of that browser's cookie.
    pub browser_hash: Option<Vec<u8>>,
    /// Hash of the client token's secret.
    pub client_token_hash: Vec<u8>,
    /// The step-up session that the person earned for it.
    pub session_id: Option<Id>,
    /// The enrolment that is under way on its page.
    pub factor_id: Option<Id>,
}
