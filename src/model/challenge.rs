//! One pending request for proof. It spans all the methods that the user may use.

use serde::{Deserialize, Serialize};

use super::{Acr, Evidence, Id, Kind, MethodKind, Moment, Timestamp, named};

/// What says nothing is not written down.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What the caller demands of the proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// At least this strong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<Acr>,
    /// Not older than this many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// By one of these methods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<MethodKind>>,
}

/// One line of what the person is asked to confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// What the value is. Declared before `value`: the digest of RFC 8785 relies on sorted members.
    pub label: String,
    /// The value itself.
    pub value: String,
}

/// What the page shows of the action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Display {
    /// The action in the person's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What is bound into the session.
    #[serde(default, skip_serializing_if = "is_default")]
    pub details: Vec<Detail>,
}

/// What the caller knows of the person's browser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// An opaque name of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// Why the portal opened a challenge of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portal {
    /// The portal session that awaits the proof.
    pub id: Id,
    /// The page to go on with, below the portal session's path.
    pub page: String,
    /// How strong a factor must be that answers; recovery codes have powers of their own.
    #[serde(default)]
    pub acr: Option<Acr>,
}

/// What a challenge was opened for; fixed when it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The action that the session will allow.
    pub action: String,
    /// Demands on the proof.
    #[serde(default, skip_serializing_if = "is_default")]
    pub require: Requirement,
    /// What the page shows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub display: Display,
    /// The session ends with its first use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub single_use: bool,
    /// Services for which the JWT is meant.
    #[serde(default, skip_serializing_if = "is_default")]
    pub audience: Vec<String>,
    /// The caller's own thread through the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// The person's browser as the caller sees it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub client: Client,
    /// Where the hosted page returns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_url: Option<String>,
    /// The caller's guard against a forged return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// PKCE, S256 (RFC 7636).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_challenge: Option<String>,
    /// Set where our own portal asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portal: Option<Portal>,
    /// Nothing would do when it was made: its person may set up a first factor on the way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enrol: bool,
}

impl Terms {
    /// How strong a factor must be that answers.
    pub fn least_of_factors(&self) -> Option<Acr> {
        self.require.acr.max(self.portal.as_ref().and_then(|portal| portal.acr))
    }
}

/// What approved a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// By which method.
    pub method: MethodKind,
    /// By which factor; a recovery code is none.
    pub factor_id: Option<Id>,
    /// What was seen.
    pub evidence: Evidence,
    /// When it was given.
    pub at: Timestamp,
    /// It came by a client token: that browser has the code, and the hosted page gives none to another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_client_token: bool,
}

named! {
    /// Where a challenge stands.
    pub enum ChallengeStatus {
        /// Open.
        Pending = "pending",
        /// Answered rightly.
        Approved = "approved",
        /// Answered wrongly too often.
        Denied = "denied",
        /// Ran out of time.
        Expired = "expired",
        /// Called off.
        Cancelled = "cancelled",
    }
}

impl ChallengeStatus {
    /// Reads what was written; expiry never is.
    pub fn stored(text: &str) -> Option<ChallengeStatus> {
        ChallengeStatus::parse(text).filter(|status| *status != ChallengeStatus::Expired)
    }
}

/// A challenge as it is kept.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// `chl_…`.
    pub id: Id,
    /// The relying party that opened it.
    pub rp_id: Id,
    /// Of whom the proof is asked.
    pub user_id: String,
    /// For what.
    pub terms: Terms,
    /// Where it stood when it was last written; expiry is not.
    pub status: ChallengeStatus,
    /// How many answers are left.
    pub attempts_left: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it runs out.
    pub expires_at: Timestamp,
    /// What approved it.
    pub proof: Option<Proof>,
    /// Hash of the link token.
    pub link_hash: Option<Vec<u8>>,
    /// When a browser opened the link.
    pub link_opened_at: Option<Timestamp>,
    /// Hash of that browser's cookie.
    pub browser_hash: Option<Vec<u8>>,
    /// Hash of the client token's secret.
    pub client_token_hash: Option<Vec<u8>>,
    /// Hash of the one-time code for the session, and when the code runs out.
    pub code: Option<(Vec<u8>, Timestamp)>,
    /// When its code was exchanged for the session.
    pub exchanged_at: Option<Timestamp>,
}

impl Challenge {
    /// A new one that no browser has opened yet.
    pub fn new(
        at: &Moment<'_>,
        rp_id: &Id,
        user_id: &str,
        terms: Terms,
        attempts_left: i64,
        expires_at: Timestamp,
    ) -> Challenge {
        Challenge {
            id: Id::new(Kind::Challenge, at),
            rp_id: rp_id.clone(),
            user_id: user_id.to_owned(),
            terms,
            status: ChallengeStatus::Pending,
            attempts_left,
            created_at: at.now,
            expires_at,
            proof: None,
            link_hash: None,
            link_opened_at: None,
            browser_hash: None,
            client_token_hash: None,
            code: None,
            exchanged_at: None,
        }
    }

    /// Where it stands at this time.
    pub fn status_at(&self, now: Timestamp) -> ChallengeStatus {
        match self.status {
            ChallengeStatus::Pending if now >= self.expires_at => ChallengeStatus::Expired,
            status => status,
        }
    }

    /// Whether its page may lead back with a one-time code: it was answered there, and no session was given for it yet.
    pub fn may_lead_back(&self) -> bool {
        self.exchanged_at.is_none() && self.proof.as_ref().is_some_and(|proof| !proof.by_client_token)
    }
}

/// Something that was asked and awaits its response: a WebAuthn ceremony or a code that was sent. One per owner and method.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Changes with each new prompt; a response is judged against exactly this one.
    pub id: Id,
    /// The challenge or the pending factor that it belongs to.
    pub owner_id: Id,
    /// Its method.
    pub method: MethodKind,
    /// The factor to which a code was sent.
    pub factor_id: Option<Id>,
    /// The method's own state, sealed for this row.
    pub sealed: Vec<u8>,
    /// How many codes were sent for this owner.
    pub sends: i64,
    /// When the last one was sent.
    pub sent_at: Timestamp,
    /// When it no longer counts.
    pub expires_at: Timestamp,
}
