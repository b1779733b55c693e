//! A set of recovery codes; the codes themselves only as hashes.

use super::{Id, Timestamp, named};

named! {
    /// Whether a set redeems anything.
    pub enum RecoveryStatus {
        /// There is no set.
        None = "none",
        /// Shown, but the person has not said that it is saved.
        Unconfirmed = "unconfirmed",
        /// In use.
        Active = "active",
    }
}

/// An active set with what is needed to judge a code.
#[derive(Clone, Debug)]
pub struct RecoverySet {
    /// `set_…`, internal.
    pub id: Id,
    /// One salt for the whole set: one evaluation judges a code.
    pub salt: Vec<u8>,
    /// The pepper that was current when it was made.
    pub pepper: i64,
    /// Hashes of the codes that are left.
    pub unused: Vec<Vec<u8>>,
}

/// What may be shown of a user's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverySummary {
    /// How many were made.
    pub total: i64,
    /// How many are left.
    pub remaining: i64,
    /// Whether they redeem anything.
    pub status: RecoveryStatus,
    /// When they were made.
    pub created_at: Option<Timestamp>,
}

impl RecoverySummary {
    /// Of a user without codes.
    pub const NONE: RecoverySummary =
        RecoverySummary { total: 0, remaining: 0, status: RecoveryStatus::None, created_at: None };
}
