//! Webhook endpoints: where a relying party is told of its events, and what became of each.

use super::{Id, Timestamp};

/// Where a relying party is told of its events.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `whk_…`.
    pub id: Id,
    /// Whose.
    pub rp_id: Id,
    /// The address.
    pub url: String,
    /// Which types of events; `None` for all.
    pub kinds: Option<Vec<String>>,
    /// The relying party's own words.
    pub description: Option<String>,
    /// The secrets that sign, sealed.
    pub secrets: Vec<u8>,
    /// Events up to this number have become deliveries.
    pub handed_to: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when nothing is sent there, and why: `asked`, `gone` or `failing`.
    pub disabled: Option<(Timestamp, String)>,
    /// Since when every attempt fails.
    pub failing_since: Option<Timestamp>,
    /// Until when it wants to be left alone.
    pub paused_until: Option<Timestamp>,
}

impl Endpoint {
    /// Whether it wants to be told of events of this type.
    pub fn wants(&self, kind: &str) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|k| k == kind))
    }

    /// Whether anything may be sent there now.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.disabled.is_none() && self.paused_until.is_none_or(|until| until <= now)
    }
}

/// One event on its way to one endpoint.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Whose.
    pub rp_id: Id,
    /// Where to.
    pub endpoint_id: Id,
    /// What: the event's id, which is that of the message too.
    pub event_id: Id,
    /// The event's number; 0 for a test.
    pub sequence: i64,
    /// The event's type.
    pub kind: String,
    /// When it was handed out.
    pub created_at: Timestamp,
    /// Attempts so far, with one that is under way.
    pub attempts: i64,
    /// When the next is due; `None` once nothing more is done.
    pub next_at: Option<Timestamp>,
    /// How it ended: `delivered`, `failed` or `dropped`.
    pub outcome: Option<String>,
    /// The last attempt.
    pub last_at: Option<Timestamp>,
    /// What was answered to it.
    pub last_status: Option<i64>,
    /// Why it was not answered.
    pub last_error: Option<String>,
}

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An HTTP status, and how many seconds the receiver wants to be left alone.
    Status(u16, Option<i64>),
    /// No answer, for this reason.
    None(&'static str),
}
