//! What a verification earns.

use serde::{Deserialize, Serialize};

use super::{Acr, Id, MethodKind, Timestamp};

/// What a step-up session says; fixed when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The one action that it allows.
    pub action: String,
    /// How strong the proof was.
    pub acr: Acr,
    /// How the proof was given (RFC 8176).
    pub amr: Vec<String>,
    /// By which method.
    pub method: MethodKind,
    /// When the person last proved it.
    pub auth_time: Timestamp,
    /// Ends with its first use.
    pub single_use: bool,
    /// Services for which the JWT is meant.
    pub audience: Vec<String>,
    /// The caller's own thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// Digest of what the person saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The challenge that earned it.
    pub challenge_id: Id,
}

/// A step-up session as it is kept.
#[derive(Clone, Debug)]
pub struct Session {
    /// `ses_…`.
    pub id: Id,
    /// Who trusts it.
    pub rp_id: Id,
    /// Whose it is.
    pub user_id: String,
    /// What it says.
    pub grant: Grant,
    /// The factor that earned it.
    pub factor_id: Option<Id>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it runs out.
    pub expires_at: Timestamp,
    /// When it was revoked or consumed.
    pub ended_at: Option<Timestamp>,
    /// When a session of a recovery code spent its right to add a factor.
    pub added_at: Option<Timestamp>,
    /// When it spent its right to remove one.
    pub removed_at: Option<Timestamp>,
}

impl Session {
    /// Whether it still counts.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }

    /// Whether a recovery code earned it.
    pub fn is_recovery(&self) -> bool {
        self.grant.method == MethodKind::RecoveryCode
    }
}
