//! What is written down of everything that matters to security.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Client, Id, Kind, MethodKind, Moment, Timestamp, named};

named! {
    /// On whose word something was done.
    pub enum Actor {
        /// The relying party's server, by its API key.
        Server = "server",
        /// The person, through a page or a client token.
        User = "user",
        /// An operator at the command line.
        Operator = "operator",
        /// The engine itself.
        System = "system",
    }
}

named! {
    /// How it ended.
    pub enum Outcome {
        /// As asked.
        Success = "success",
        /// Refused.
        Failure = "failure",
    }
}

/// Every type of event that a relying party may read.
pub const EVENT_TYPES: [&str; 35] = [
    "api_key.all_revoked",
    "api_key.created",
    "api_key.revoked",
    "challenge.cancelled",
    "challenge.created",
    "database.restored",
    "enrolment.failed",
    "enrolment.started",
    "factor.added",
    "factor.removed",
    "factor.renamed",
    "factor.unreadable",
    "message.failed",
    "message.sent",
    "portal_session.created",
    "prompt.unreadable",
    "recovery_codes.confirmed",
    "recovery_codes.created",
    "relying_party.changed",
    "relying_party.created",
    "session.all_revoked",
    "session.consumed",
    "session.created",
    "session.inherited",
    "session.revoked",
    "user.erased",
    "user.reset",
    "user.unlocked",
    "verification.failed",
    "verification.succeeded",
    "webhook_endpoint.changed",
    "webhook_endpoint.created",
    "webhook_endpoint.disabled",
    "webhook_endpoint.removed",
    "webhook_endpoint.secret_rotated",
];

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
    /// Why it was refused, or what was noticed: a stable code.
    pub reason: Option<&'static str>,
    /// The person's browser.
    pub client: Option<Client>,
    /// By which API key.
    pub key_id: Option<Id>,
    /// Which request.
    pub request_id: Option<String>,
}

/// Where an event came from, as it is kept: what is known of the browser, and by which API key. One text, so that a release that
/// knows nothing of keys chains and forgets it like any other.
#[derive(Default, Serialize, Deserialize)]
pub struct Source<'a> {
    /// The browser's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<Cow<'a, str>>,
    /// Its `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Cow<'a, str>>,
    /// An opaque name of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Cow<'a, str>>,
    /// `key_…`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Cow<'a, str>>,
}

impl Event {
    /// An event of a success that names nothing yet but when, in whose realm, what and on whose word.
    pub fn new(at: &Moment<'_>, rp_id: &Id, kind: &'static str, actor: Actor) -> Event {
        Event {
            id: Id::in_order(Kind::Event, at),
            rp_id: rp_id.clone(),
            at: at.now,
            kind,
            actor,
            user_id: None,
            method: None,
            factor_id: None,
            challenge_id: None,
            session_id: None,
            outcome: Outcome::Success,
            reason: None,
            client: None,
            key_id: None,
            request_id: None,
        }
    }

    /// The same of a failure, for this reason.
    pub fn failed(self, reason: &'static str) -> Event {
        Event { outcome: Outcome::Failure, reason: Some(reason), ..self }
    }

    /// Where it came from, if that is known.
    pub fn source(&self) -> Option<Source<'_>> {
        if self.client.is_none() && self.key_id.is_none() {
            return None;
        }
        let client = self.client.as_ref();
        fn known(text: Option<&String>) -> Option<Cow<'_, str>> {
            text.map(|text| Cow::Borrowed(text.as_str()))
        }
        Some(Source {
            ip: known(client.and_then(|c| c.ip.as_ref())),
            user_agent: known(client.and_then(|c| c.user_agent.as_ref())),
            device: known(client.and_then(|c| c.device.as_ref())),
            key_id: self.key_id.as_ref().map(|id| Cow::Borrowed(id.as_str())),
        })
    }
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// In whose realm.
    pub rp_id: Id,
    /// `evt_…`.
    pub id: Id,
    /// When.
    pub at: Timestamp,
    /// What, as `thing.happened`.
    pub kind: String,
    /// On whose word.
    pub actor: String,
    /// Whose factors; a pseudonym once the user is erased.
    pub user_id: Option<String>,
    /// By which method.
    pub method: Option<String>,
    /// Which factor.
    pub factor_id: Option<String>,
    /// Which challenge.
    pub challenge_id: Option<String>,
    /// Which session.
    pub session_id: Option<String>,
    /// How it ended.
    pub outcome: String,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The person's browser, as JSON; gone once the user is erased.
    pub client: Option<String>,
    /// Which request.
    pub request_id: Option<String>,
    /// Its place in the chain, once it has one.
    pub link: Option<Link>,
}

impl From<&Event> for Recorded {
    /// As it will be read, while it has no place yet.
    fn from(event: &Event) -> Recorded {
        let id = |id: &Option<Id>| id.as_ref().map(Id::to_string);
        Recorded {
            rp_id: event.rp_id.clone(),
            id: event.id.clone(),
            at: event.at,
            kind: event.kind.to_owned(),
            actor: event.actor.as_str().to_owned(),
            user_id: event.user_id.clone(),
            method: event.method.map(|method| method.as_str().to_owned()),
            factor_id: id(&event.factor_id),
            challenge_id: id(&event.challenge_id),
            session_id: id(&event.session_id),
            outcome: event.outcome.as_str().to_owned(),
            reason: event.reason.map(str::to_owned),
            client: event.source().map(|source| serde_json::to_string(&source).expect("texts are JSON")),
            request_id: event.request_id.clone(),
            link: None,
        }
    }
}

/// An event's place in its relying party's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// From 1, without gaps.
    pub sequence: i64,
    /// What the digest of the person was salted with; gone once the user is erased.
    pub salt: Option<Vec<u8>>,
    /// Digest of user and client.
    pub person: Vec<u8>,
    /// Digest of this event and the hash before it.
    pub hash: Vec<u8>,
}

/// Where a chain ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// Whose chain.
    pub rp_id: Id,
    /// The last number.
    pub sequence: i64,
    /// The last hash.
    pub hash: Vec<u8>,
    /// When it was written.
    pub sealed_at: Timestamp,
    /// Proof that an engine with this key ring wrote it.
    pub mac: Vec<u8>,
}
