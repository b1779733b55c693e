//! A message that a provider carries, and the budgets that sending draws on.

use std::fmt;

use serde::{Deserialize, Serialize};

use zeroize::Zeroizing;

use super::{Id, Timestamp};

/// A phone number in strict E.164: `+` and 7 to 15 digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(String);

impl Number {
    /// Takes `+`, a digit that is not 0, and 6 to 14 more digits; nothing else.
    pub fn parse(text: &str) -> Option<Number> {
        let digits = text.strip_prefix('+')?.as_bytes();
        let strict = (7..=15).contains(&digits.len()) && digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit);
        strict.then(|| Number(text.to_owned()))
    }

    /// The whole number; never for logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// All but the last two digits hidden.
    pub fn masked(&self) -> String {
        let (hidden, shown) = self.0.split_at(self.0.len() - 2);
        format!("{}{shown}", "•".repeat(hidden.len() - 1))
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Number(…)")
    }
}

/// One text on its way.
#[derive(Clone)]
pub struct Message {
    /// `msg_…`; the same over retries.
    pub id: Id,
    /// On whose behalf.
    pub rp_id: Id,
    /// To whom.
    pub to: Number,
    /// What it says, with the code in it.
    pub text: Zeroizing<String>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).field("rp_id", &self.rp_id).finish_non_exhaustive()
    }
}

/// What a send draws on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BudgetKey {
    /// One number, as a keyed hash, whoever asked.
    Number(String),
    /// One user, as a keyed hash, whatever the number.
    User(String),
    /// All numbers of one country.
    Country(String),
    /// The whole relying party.
    RelyingParty,
}

impl BudgetKey {
    /// The key of its row.
    pub fn stored(&self) -> String {
        match self {
            BudgetKey::Number(hash) => format!("number:{hash}"),
            BudgetKey::User(hash) => format!("user:{hash}"),
            BudgetKey::Country(code) => format!("country:{code}"),
            BudgetKey::RelyingParty => "relying_party".to_owned(),
        }
    }
}

/// What was drawn on a budget of late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Changes with each write; 0 where there is no row yet.
    pub version: i64,
    /// The UTC day of `sent`, in days since 1970.
    pub day: i64,
    /// Sends on that day.
    pub sent: i64,
    /// Times of the latest sends, oldest first, where single sends matter.
    pub recent: Vec<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strict_e164_is_a_number() {
        for good in ["+14155550123", "+4915112345678", "+1234567"] {
            assert!(Number::parse(good).is_some(), "{good}");
        }
        for bad in [
            "14155550123",
            "+0155550123",
            "+1 415 555 0123",
            "+1415555012a",
            "+123456",
            "+1234567890123456",
            "",
            "+",
            "+١٢٣٤٥٦٧٨",
        ] {
            assert!(Number::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_masked_number_shows_two_digits() {
        assert_eq!(Number::parse("+14155550123").map(|n| n.masked()).as_deref(), Some("•••••••••23"));
    }
}
