//! The kinds of proof. A method decides and never acts: no async, no store, no network, no clock.
//!
//! # How to add a method
//!
//! 1. Give it a name in `model::MethodKind`, and its facts in `model::Details`.
//! 2. Write `methods/<name>.rs` with a type that implements [`Method`]; say in its header what it proves and to whom.
//! 3. Say in `policy::assurance` what its evidence is worth, and in `policy::throttle` whether it can be guessed.
//! 4. Add it to [`Methods::of`]; the engine, the store and the API need no change for a method that answers by code.

pub mod aaguid;
pub mod delivered;
pub mod recovery_code;
pub mod sms;
#[cfg(test)]
mod specimen;
pub mod totp;
pub mod webauthn;

use std::sync::Arc;

use serde_json::Value as Json;
use zeroize::Zeroizing;

use crate::model::{
    Details, Evidence, Factor, Id, Keyed, MethodKind, Moment, Number, RecoverySet, RelyingParty, Timestamp, User,
};

/// The relying party and the person whom a decision is about.
#[derive(Clone)]
pub struct Parties {
    /// Who asks.
    pub rp: Arc<RelyingParty>,
    /// Origins from which a ceremony may come: the relying party's own, and the engine's where the RP ID covers it.
    pub origins: Vec<String>,
    /// Who is asked.
    pub user: User,
    /// What the person is about to do, in words that follow "to".
    pub purpose: String,
}

/// A factor whose sealed part has been opened for this decision.
#[derive(Clone)]
pub struct Held {
    /// The factor.
    pub factor: Factor,
    /// TOTP secret, phone number, or credential.
    pub secret: Zeroizing<Vec<u8>>,
}

/// What a person wants to enrol.
#[derive(Clone, Debug)]
pub enum Wish {
    /// An authenticator app.
    Totp,
    /// A passkey or security key.
    Webauthn(Attachment),
    /// A phone.
    Sms(Number),
}

/// Which authenticators a browser should offer; a hint, never a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attachment {
    /// Whatever there is.
    #[default]
    Any,
    /// This device.
    Platform,
    /// A key that is plugged in or held near.
    SecurityKey,
}

impl Wish {
    /// The method of the wish.
    pub fn kind(&self) -> MethodKind {
        match self {
            Wish::Totp => MethodKind::Totp,
            Wish::Webauthn(_) => MethodKind::Webauthn,
            Wish::Sms(_) => MethodKind::Sms,
        }
    }
}

/// What the caller shows; holds secrets that leave once.
#[derive(Clone)]
pub enum Shown {
    /// An authenticator app's set-up.
    Totp {
        /// Base32 without padding.
        secret: Zeroizing<String>,
        /// Key URI.
        otpauth_uri: Zeroizing<String>,
        /// The address as a QR symbol.
        qr_svg: Zeroizing<String>,
    },
    /// Options for `navigator.credentials.create` or `.get`.
    Webauthn(Json),
    /// A text was written for this number.
    Sms {
        /// The number, masked.
        phone_masked: String,
    },
}

/// The start of an enrolment or of a challenge's prompt.
pub struct Begun {
    /// What the caller shows.
    pub shown: Shown,
    /// For an enrolment: what the pending factor keeps, to be sealed.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// What the prompt keeps until the response comes, to be sealed; `None` where nothing is awaited.
    pub state: Option<Zeroizing<Vec<u8>>>,
    /// A text to send: to whom and what.
    pub text: Option<(Number, Zeroizing<String>)>,
    /// What may be shown of the pending factor.
    pub details: Details,
}

/// A response that a person or a browser gave.
#[derive(Clone)]
pub enum Answer {
    /// A typed code.
    Code(Zeroizing<String>),
    /// What `credential.toJSON()` gave.
    Credential(Json),
}

impl Answer {
    fn code(&self) -> Result<&str, Refusal> {
        match self {
            Answer::Code(code) => Ok(code),
            Answer::Credential(_) => Err(Refusal::Malformed),
        }
    }
}

/// Everything that a verdict may depend on. Owned, so that a costly one can move to another thread.
#[derive(Clone)]
pub struct Exam {
    /// When.
    pub now: Timestamp,
    /// For whom and of whom.
    pub parties: Arc<Parties>,
    /// The challenge or pending factor that was asked for.
    pub owner: Id,
    /// The user's factors of this kind that may answer; the pending one alone in an enrolment.
    pub held: Vec<Held>,
    /// The prompt's state, if one is open.
    pub state: Option<Zeroizing<Vec<u8>>>,
    /// The user's active recovery codes.
    pub recovery: Option<RecoverySet>,
    /// What came.
    pub answer: Answer,
    /// Hashes that need a key.
    pub keyed: Arc<dyn Keyed>,
}

/// A pending factor proved itself.
pub struct Enrolled {
    /// What may be shown from now on.
    pub details: Details,
    /// What replaces the pending secret, to be sealed; `None` keeps it.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// The credential id, which must be new to the relying party.
    pub credential_id: Option<String>,
    /// The TOTP step that the first code spent; 0 for other methods.
    pub last_step: i64,
}

/// What a right answer used up. The engine spends it by one conditional write; where that fails, the answer came too late.
pub enum Spent {
    /// A TOTP step and all before it.
    Step {
        /// The app's factor.
        factor: Id,
        /// The step (RFC 6238, 4.2).
        step: i64,
    },
    /// The credential moved on: counter and flags.
    Credential {
        /// The credential's factor.
        factor: Id,
        /// The version that was judged.
        version: i64,
        /// What replaces it, to be sealed.
        secret: Zeroizing<Vec<u8>>,
        /// What may be shown from now on.
        details: Details,
    },
    /// The code that was sent: the prompt itself is what is used up.
    SentCode {
        /// The phone's factor.
        factor: Id,
    },
    /// One code of the set.
    RecoveryCode {
        /// The set.
        set: Id,
        /// The code's hash.
        hash: Vec<u8>,
    },
}

impl Spent {
    /// The factor that proved it; a recovery code is none.
    pub fn factor(&self) -> Option<&Id> {
        match self {
            Spent::Step { factor, .. } | Spent::Credential { factor, .. } | Spent::SentCode { factor } => Some(factor),
            Spent::RecoveryCode { .. } => None,
        }
    }
}

/// A right answer.
pub struct Proven {
    /// What it used up.
    pub spent: Spent,
    /// What was seen.
    pub evidence: Evidence,
}

/// What was wrong with a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The code does not match.
    Code,
    /// No credential of that id for this user, whoever owns it.
    CredentialUnknown,
    /// The authenticator did not verify the person.
    UserNotVerified,
    /// Any other fault of a credential; the word is for the audit, not for the caller.
    Credential(&'static str),
}

/// An ordinary "no".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not of the form of a code; nothing was guessed.
    Malformed,
    /// A wrong proof.
    Wrong(Fault),
    /// What was asked has run out, or was never asked.
    Expired,
    /// Right, but already used.
    Replayed,
    /// The number cannot be texted at all.
    PhoneInvalid,
    /// The number may not be texted.
    PhoneNotAllowed,
    /// The method does not do that.
    NotAllowed,
}

/// A kind of proof. Decides; never acts.
pub trait Method: Send + Sync {
    /// Starts the enrolment of a new factor beside those that the user holds.
    fn begin_enrolment(
        &self,
        at: &Moment<'_>,
        keyed: &dyn Keyed,
        parties: &Parties,
        owner: &Id,
        wish: &Wish,
        held: &[Held],
    ) -> Result<Begun, Refusal> {
        let _ = (at, keyed, parties, owner, wish, held);
        Err(Refusal::NotAllowed)
    }

    /// Judges the first proof of a pending factor: the only one held.
    fn finish_enrolment(&self, exam: &Exam) -> Result<Enrolled, Refusal> {
        let _ = exam;
        Err(Refusal::NotAllowed)
    }

    /// Asks for a response to a challenge, where the method has something to ask.
    fn begin_challenge(
        &self,
        at: &Moment<'_>,
        keyed: &dyn Keyed,
        parties: &Parties,
        owner: &Id,
        held: &[Held],
    ) -> Result<Begun, Refusal> {
        let _ = (at, keyed, parties, owner, held);
        Err(Refusal::NotAllowed)
    }

    /// Whether the answer has the form of one; a malformed answer costs nothing.
    fn check_form(&self, answer: &Answer) -> Result<(), Refusal>;

    /// Judges a response to a challenge.
    fn verify(&self, exam: &Exam) -> Result<Proven, Refusal>;

    /// Whether a verdict is costly enough to be kept off the threads that serve requests.
    fn is_costly(&self) -> bool {
        false
    }
}

/// The methods of this engine.
pub struct Methods {
    totp: totp::Totp,
    webauthn: webauthn::Webauthn,
    sms: sms::Sms,
    recovery_code: recovery_code::RecoveryCode,
}

impl Methods {
    /// All methods, with the countries that may be texted (`None`: all but premium, shared-cost and satellite numbers).
    pub fn new(countries: Option<Vec<String>>) -> Methods {
        Methods {
            totp: totp::Totp,
            webauthn: webauthn::Webauthn,
            sms: sms::Sms::new(countries),
            recovery_code: recovery_code::RecoveryCode,
        }
    }

    /// Whether numbers of this country may be texted at all.
    pub fn may_text(&self, country: &str) -> bool {
        self.sms.lists(country)
    }

    /// The method of this kind.
    pub fn of(&self, kind: MethodKind) -> &dyn Method {
        match kind {
            MethodKind::Totp => &self.totp,
            MethodKind::Webauthn => &self.webauthn,
            MethodKind::Sms => &self.sms,
            MethodKind::RecoveryCode => &self.recovery_code,
        }
    }
}

/// Six ASCII digits of what a person typed or pasted (requirement T-20); anything else, other digits included, is malformed.
pub fn six_digits(text: &str) -> Result<String, Refusal> {
    let digits: String = loosened(text).collect();
    let good = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit());
    good.then_some(digits).ok_or(Refusal::Malformed)
}

/// What codes are freed of, whatever their kind (api.md, 3): white space, dashes, invisible separators and a leading `#` go,
/// full-width digits become ASCII.
fn loosened(text: &str) -> impl Iterator<Item = char> + '_ {
    let text = text.trim_start();
    let between = |c: &char| {
        c.is_whitespace()
            || matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ff0d}')
    };
    text.strip_prefix(['#', '＃']).unwrap_or(text).chars().filter(move |c| !between(c)).map(|c| match c {
        '０'..='９' => char::from(b'0' + (u32::from(c) - u32::from('０')) as u8),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use proptest::prelude::*;

    #[test]
    fn only_a_slow_hash_is_costly_and_a_wish_knows_its_method() {
        let methods = Methods::new(None);
        for kind in MethodKind::ALL {
            assert_eq!(methods.of(kind).is_costly(), kind == MethodKind::RecoveryCode);
        }
        let number = Number::parse("+14155550123").expect("E.164");
        for (wish, kind) in [
            (Wish::Totp, MethodKind::Totp),
            (Wish::Webauthn(Attachment::Any), MethodKind::Webauthn),
            (Wish::Sms(number), MethodKind::Sms),
        ] {
            assert_eq!(wish.kind(), kind);
        }
    }

    #[test]
    fn all_but_a_recovery_code_belongs_to_a_factor() {
        let (factor, details) = (Id::from_bytes(Kind::Factor, [2; 16]), Details::Totp);
        for spent in [
            Spent::Step { factor: factor.clone(), step: 1 },
            Spent::Credential { factor: factor.clone(), version: 1, secret: Zeroizing::new(Vec::new()), details },
            Spent::SentCode { factor: factor.clone() },
        ] {
            assert_eq!(spent.factor(), Some(&factor));
        }
        let set = Id::from_bytes(Kind::RecoverySet, [4; 16]);
        assert_eq!(Spent::RecoveryCode { set, hash: Vec::new() }.factor(), None);
    }

    /// T-20, and the forms that people paste.
    #[test]
    fn codes_are_taken_as_people_paste_them() {
        for good in [
            "123456",
            " 123 456 ",
            "123-456",
            "#123456",
            "# 123456",
            "１２３４５６",
            "123\u{a0}456",
            "12–34–56",
            "＃123456",
        ] {
            assert_eq!(six_digits(good).as_deref(), Ok("123456"), "{good}");
        }
    }

    /// T-04, T-20.
    #[test]
    fn anything_but_six_digits_is_malformed() {
        for bad in [
            "",
            "12345",
            "1234567",
            "12345a",
            "١٢٣٤٥٦",
            "+12345",
            "1e5",
            "12.345",
            "##123456",
            "123456#",
            "१२३४५६",
            "0x1234",
            "null",
        ] {
            assert_eq!(six_digits(bad), Err(Refusal::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn normalising_never_panics_and_gives_six_digits_or_nothing(text in "\\PC{0,40}") {
            if let Ok(code) = six_digits(&text) {
                prop_assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()));
            }
        }

        #[test]
        fn a_leading_zero_is_a_digit_like_any_other(n in 0u32..1_000_000) {
            let code = format!("{n:06}");
            prop_assert_eq!(six_digits(&code), Ok(code));
        }
    }
}
