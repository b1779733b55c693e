//! The application that calls the engine, and the keys by which it does.

use serde::{Deserialize, Serialize};

use super::{Id, Timestamp};

/// Whether real people stand behind a relying party. Fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real users; keys begin with `sk_live_`.
    Live,
    /// Trials; keys begin with `sk_test_`.
    Test,
}

impl Mode {
    /// `live` or `test`.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Live => "live",
            Mode::Test => "test",
        }
    }

    /// Reads what [`Mode::as_str`] wrote; anything else is live, the stricter one.
    pub fn stored(text: &str) -> Mode {
        if text == "test" { Mode::Test } else { Mode::Live }
    }
}

/// A relying party: unit of isolation, and the WebAuthn relying party.
#[derive(Clone, Debug)]
pub struct RelyingParty {
    /// `rp_…`.
    pub id: Id,
    /// What people read: pages, authenticator apps and texts name it so. Unique.
    pub name: String,
    /// The WebAuthn RP ID: a domain, without scheme or port.
    pub host: String,
    /// Live or test, for ever.
    pub mode: Mode,
    /// Origins from which its pages may run ceremonies and call with a client token.
    pub origins: Vec<String>,
    /// Addresses to which a hosted page may return, compared exactly.
    pub return_urls: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Name and erase users; enrol, rename and remove factors; recovery codes, portal sessions.
    #[serde(rename = "factors:write")]
    FactorsWrite,
    /// Create and answer challenges.
    #[serde(rename = "challenges")]
    Challenges,
    /// Introspect, read and revoke step-up sessions.
    #[serde(rename = "sessions")]
    Sessions,
    /// Read users, their factors and recovery codes' counts.
    #[serde(rename = "users:read")]
    UsersRead,
    /// Read audit events.
    #[serde(rename = "events:read")]
    EventsRead,
    /// All of the others, and webhook endpoints.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope, in the order in which they are listed.
    pub const ALL: [Scope; 6] =
        [Scope::FactorsWrite, Scope::Challenges, Scope::Sessions, Scope::UsersRead, Scope::EventsRead, Scope::Admin];

    /// The name in the API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::FactorsWrite => "factors:write",
            Scope::Challenges => "challenges",
            Scope::Sessions => "sessions",
            Scope::UsersRead => "users:read",
            Scope::EventsRead => "events:read",
            Scope::Admin => "admin",
        }
    }

    /// Reads a scope's name.
    pub fn parse(text: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// An API key as it is kept: its secret only as a hash.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// `key_…`.
    pub id: Id,
    /// Whose key it is.
    pub rp_id: Id,
    /// The first and last characters, to tell keys apart in a list.
    pub hint: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether the key still opens anything.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}
