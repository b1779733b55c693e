//! Everything that a call can end in other than its answer.

use crate::delivery::Undelivered;
use crate::methods::{Fault, Refusal};
use crate::store;

/// A state that does not allow what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// The factor is active already.
    FactorNotPending,
    /// The challenge was answered, denied or called off.
    ChallengeNotPending,
    /// It is the user's only factor.
    LastFactor,
    /// The user holds this credential already.
    FactorDuplicate,
    /// The user has a factor of that name, or a relying party has it.
    NameTaken,
    /// The first copy of a request is not answered yet.
    InProgress,
    /// There are as many webhook endpoints as there may be.
    EndpointLimit,
    /// Nothing is sent to the webhook endpoint.
    EndpointDisabled,
}

/// What ran out of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// A challenge.
    Challenge,
    /// A pending factor.
    Enrolment,
}

/// Why a call did not get its answer.
#[derive(Debug)]
pub enum Error {
    /// No such thing, or none of this relying party's.
    NotFound,
    /// A member of the request does not fit.
    Invalid {
        /// Which.
        param: &'static str,
        /// What is wrong, for the developer.
        why: &'static str,
    },
    /// The state does not allow it.
    Clash(Clash),
    /// Too late.
    Gone(Gone),
    /// The method said no.
    Refused(Refusal),
    /// A one-time code was spent.
    CodeReused,
    /// This method may not answer this challenge.
    MethodNotAllowed,
    /// Guessing pauses, for this many seconds more.
    Paused(i64),
    /// Guessing is on hold; asking again before so many seconds is of no use.
    OnHold(i64),
    /// Texts pause, for this many seconds more.
    SendLimited(i64),
    /// Too much at once; try again after this many seconds.
    Busy(i64),
    /// No gateway took the text.
    Undelivered(Undelivered),
    /// A step-up at the strength of the user's strongest factor is needed first.
    StepUpRequired,
    /// The return address is not registered.
    ReturnUrlNotAllowed,
    /// The key of a repeatable request was used with another body.
    KeyMismatch,
    /// The store did not do it.
    Store(store::Error),
}

impl Error {
    /// What became of a proof that ends in this, in a word for the metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Error::Refused(Refusal::Wrong(_)) => "wrong",
            Error::Refused(Refusal::Replayed) => "replayed",
            Error::Paused(_) | Error::OnHold(_) => "paused",
            Error::Store(_) | Error::Busy(_) => "unavailable",
            _ => "refused",
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        match error {
            store::Error::Kept => Error::Clash(Clash::InProgress),
            error => Error::Store(error),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}

/// A refused answer to a challenge, and how many are left.
#[derive(Debug)]
pub struct Answered {
    /// Why.
    pub error: Error,
    /// `None` where there is no challenge that could be answered again.
    pub attempts_left: Option<i64>,
}

impl<E: Into<Error>> From<E> for Answered {
    fn from(error: E) -> Answered {
        Answered { error: error.into(), attempts_left: None }
    }
}

/// The refusal in a word for the audit.
pub(super) fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed => "malformed",
        Refusal::Wrong(Fault::Code) => "code_incorrect",
        Refusal::Wrong(Fault::CredentialUnknown) => "credential_unknown",
        Refusal::Wrong(Fault::UserNotVerified) => "user_not_verified",
        Refusal::Wrong(Fault::Credential(reason)) => reason,
        Refusal::Expired => "expired",
        Refusal::Replayed => "replayed",
        Refusal::PhoneInvalid => "phone_invalid",
        Refusal::PhoneNotAllowed => "phone_not_allowed",
        Refusal::NotAllowed => "not_allowed",
    }
}
