//! The application that calls the engine, and the keys by which it does.

use super::{Id, Timestamp, named};

named! {
    /// Whether real people stand behind a relying party. Fixed when it is made.
    pub enum Mode {
        /// Real users; keys begin with `sk_live_`.
        Live = "live",
        /// Trials; keys begin with `sk_test_`.
        Test = "test",
    }
}

impl Mode {
    /// Reads what [`Mode::as_str`] wrote; anything else is live, the stricter one.
    pub fn stored(text: &str) -> Mode {
        Mode::parse(text).unwrap_or(Mode::Live)
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

impl RelyingParty {
    /// Whether a host is the domain of its RP ID or below it.
    pub fn covers(&self, host: &str) -> bool {
        host.strip_suffix(self.host.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

named! {
    /// What an API key may do.
    pub enum Scope {
        /// Name and erase users; enrol, rename and remove factors; recovery codes, portal sessions.
        FactorsWrite = "factors:write",
        /// Create and answer challenges.
        Challenges = "challenges",
        /// Introspect, read and revoke step-up sessions.
        Sessions = "sessions",
        /// Read users, their factors and recovery codes' counts.
        UsersRead = "users:read",
        /// Read audit events.
        EventsRead = "events:read",
        /// All of the others, and webhook endpoints.
        Admin = "admin",
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
