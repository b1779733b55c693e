//! A person's visit to our own pages on behalf of a relying party.

use serde::{Deserialize, Serialize};

use super::{Id, Timestamp};

/// What the visit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// The list of factors.
    Settings,
    /// A new passkey or security key.
    AddPasskey,
    /// A new authenticator app.
    AddAuthenticatorApp,
    /// A new phone.
    AddPhone,
    /// A new set of recovery codes.
    RecoveryCodes,
}

impl Flow {
    /// Every flow.
    pub const ALL: [Flow; 5] =
        [Flow::Settings, Flow::AddPasskey, Flow::AddAuthenticatorApp, Flow::AddPhone, Flow::RecoveryCodes];

    /// The value in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Flow::Settings => "settings",
            Flow::AddPasskey => "add_passkey",
            Flow::AddAuthenticatorApp => "add_authenticator_app",
            Flow::AddPhone => "add_phone",
            Flow::RecoveryCodes => "recovery_codes",
        }
    }

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

    /// Reads a value.
    pub fn parse(text: &str) -> Option<Flow> {
        Flow::ALL.into_iter().find(|f| f.as_str() == text)
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
