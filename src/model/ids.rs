//! Ids: a prefix that says what is named, and a part that sorts by the time of its making.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::{Moment, Timestamp};

/// What an id names; the prefix of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `rp_`, a relying party.
    RelyingParty,
    /// `key_`, an API key.
    ApiKey,
    /// `fac_`, a factor.
    Factor,
    /// `chl_`, a challenge.
    Challenge,
    /// `ses_`, a step-up session.
    Session,
    /// `evt_`, an audit event.
    Event,
    /// `msg_`, a message that a provider carries.
    Message,
    /// `req_`, one HTTP request.
    Request,
    /// `por_`, a portal session.
    Portal,
    /// `prm_`, a prompt that awaits its response (internal).
    Prompt,
    /// `set_`, a set of recovery codes (internal).
    RecoverySet,
    /// `whk_`, a webhook endpoint.
    Webhook,
}

impl Kind {
    /// The prefix with its underscore.
    pub fn prefix(self) -> &'static str {
        match self {
            Kind::RelyingParty => "rp_",
            Kind::ApiKey => "key_",
            Kind::Factor => "fac_",
            Kind::Challenge => "chl_",
            Kind::Session => "ses_",
            Kind::Event => "evt_",
            Kind::Message => "msg_",
            Kind::Request => "req_",
            Kind::Portal => "por_",
            Kind::Prompt => "prm_",
            Kind::RecoverySet => "set_",
            Kind::Webhook => "whk_",
        }
    }
}

/// A prefix and 32 hexadecimal digits of a UUID of version 7 (RFC 9562, 5.7).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// A new id whose time part is the moment's.
    pub fn new(kind: Kind, at: &Moment<'_>) -> Id {
        Id(format!("{}{}", kind.prefix(), at.uuid_v7().simple()))
    }

    /// A new id that sorts behind those that this process made before it in the same millisecond (RFC 9562, 6.2): a counter of 26
    /// bits stands where others have random ones.
    pub fn in_order(kind: Kind, at: &Moment<'_>) -> Id {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut bytes = at.uuid_v7().into_bytes();
        bytes[6..10].copy_from_slice(&[
            0x70 | (count >> 22 & 0x0f) as u8,
            (count >> 14) as u8,
            0x80 | (count >> 8 & 0x3f) as u8,
            count as u8,
        ]);
        Id::from_bytes(kind, bytes)
    }

    /// Reads an id of this kind; `None` for anything else.
    pub fn parse(kind: Kind, text: &str) -> Option<Id> {
        let digits = text.strip_prefix(kind.prefix())?;
        let canonical = digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        canonical.then(|| Id(text.to_owned()))
    }

    /// An id that the store gave back.
    pub fn stored(text: String) -> Id {
        Id(text)
    }

    /// The id of this kind with these 128 bits.
    pub fn from_bytes(kind: Kind, bytes: [u8; 16]) -> Id {
        Id(format!("{}{}", kind.prefix(), uuid::Uuid::from_bytes(bytes).simple()))
    }

    /// The id of another kind with the same digits: of what was made with this, in one call.
    pub fn sibling(&self, kind: Kind) -> Id {
        Id(format!("{}{}", kind.prefix(), self.digits().unwrap_or_default()))
    }

    /// The smallest id of this kind that could have been made at this time.
    pub fn bound(kind: Kind, at: Timestamp) -> Id {
        Id(format!("{}{:012x}{}", kind.prefix(), at.0.max(0), "0".repeat(20)))
    }

    /// The 128 bits behind the prefix.
    pub fn bytes(&self) -> [u8; 16] {
        self.digits().and_then(|d| uuid::Uuid::try_parse(d).ok()).map(|u| *u.as_bytes()).unwrap_or_default()
    }

    /// The text without its prefix.
    pub fn digits(&self) -> Option<&str> {
        self.0.split_once('_').map(|(_, digits)| digits)
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Rng, Timestamp};

    struct Zero;
    impl Rng for Zero {
        fn fill(&self, out: &mut [u8]) {
            out.fill(0);
        }
    }

    #[test]
    fn ids_sort_by_the_time_of_their_making() {
        let early = Id::new(Kind::Challenge, &Moment::new(Timestamp::from_seconds(1_000), &Zero));
        let late = Id::new(Kind::Challenge, &Moment::new(Timestamp::from_seconds(1_001), &Zero));
        assert!(early < late);
        let bound = Id::bound(Kind::Challenge, Timestamp::from_seconds(1_001));
        assert!(early < bound && bound < late);
        assert_eq!(Id::parse(Kind::Challenge, early.as_str()), Some(early.clone()));
        assert_eq!(Id::from_bytes(Kind::Challenge, early.bytes()), early);
    }

    #[test]
    fn ids_in_order_sort_by_their_making_within_a_millisecond() {
        let at = Moment::new(Timestamp::from_seconds(1_000), &Zero);
        let ids: Vec<_> = (0..70_000).map(|_| Id::in_order(Kind::Event, &at)).collect();
        assert!(ids.is_sorted() && ids.windows(2).all(|two| two[0] != two[1]));
        let versions: Vec<_> = ids.iter().map(|id| uuid::Uuid::from_bytes(id.bytes()).get_version_num()).collect();
        assert!(versions.iter().all(|version| *version == 7));
        assert!(Id::parse(Kind::Event, ids[0].as_str()).is_some());
    }

    #[test]
    fn an_id_of_another_kind_or_form_is_no_id() {
        let id = "chl_0199aaaabbbbccccddddeeeeffff0000";
        assert!(Id::parse(Kind::Challenge, id).is_some());
        assert!(Id::parse(Kind::Factor, id).is_none());
        assert!(Id::parse(Kind::Challenge, &id.to_uppercase()).is_none());
        assert!(Id::parse(Kind::Challenge, "chl_").is_none());
        assert!(Id::parse(Kind::Challenge, &format!("{id}0")).is_none());
    }
}
