//! What is written down of everything that matters to security.

use super::{Client, Id, MethodKind, Timestamp};

/// On whose word something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The relying party's server, by its API key.
    Server,
    /// The person, through a page or a client token.
    User,
    /// An operator at the command line.
    Operator,
    /// The engine itself.
    System,
}

impl Actor {
    /// The value that is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Actor::Server => "server",
            Actor::User => "user",
            Actor::Operator => "operator",
            Actor::System => "system",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Success,
    /// Refused.
    Failure,
}

impl Outcome {
    /// The value that is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
        }
    }
}

/// One security event. Holds no code, no secret, no full number (ASVS 16.2.5).
#[derive(Clone, Debug)]
pub struct Event {
    /// `evt_…`.
    pub id: Id,
    /// In whose realm.
    pub rp_id: Id,
    /// When.
    pub at: Timestamp,
    /// What, as `thing.happened`.
    pub kind: &'static str,
    /// On whose word.
    pub actor: Actor,
    /// Whose factors.
    pub user_id: Option<String>,
    /// By which method.
    pub method: Option<MethodKind>,
    /// Which factor.
    pub factor_id: Option<Id>,
    /// Which challenge.
    pub challenge_id: Option<Id>,
    /// Which session.
    pub session_id: Option<Id>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was refused: a stable code.
    pub reason: Option<&'static str>,
    /// The person's browser.
    pub client: Option<Client>,
    /// Which request.
    pub request_id: Option<String>,
}
