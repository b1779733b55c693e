//! Refusals, times and names in the words of the pages: what happened, then what to do.

use super::views::Way;
use super::visit::Fields;
use crate::http::problem::{self, Code, Refused};
use crate::model::{Details, Factor, MethodKind, Timestamp, User, misleads};

/// A time as people read it: the clock, and how far away. A module turns the clock into the browser's own.
#[derive(Clone, Debug)]
pub struct When {
    /// RFC 3339.
    pub iso: String,
    /// `14:32 UTC`
    pub clock: String,
    /// `in about 10 minutes`
    pub away: String,
    /// Seconds from when the page was drawn: the browser's clock may be another.
    pub left: i64,
}

impl When {
    /// A time as seen from now.
    pub fn new(then: Timestamp, now: Timestamp) -> When {
        let seconds = then.seconds_after(now);
        let (count, unit) = match seconds {
            ..=59 => (seconds, "second"),
            60..=5400 => ((seconds + 30) / 60, "minute"),
            _ => ((seconds + 1800) / 3600, "hour"),
        };
        let about = if unit == "second" { "" } else { "about " };
        let plural = if count == 1 { "" } else { "s" };
        let iso = then.rfc3339();
        let clock = format!("{} UTC", iso.get(11..16).unwrap_or_default());
        When { clock, iso, away: format!("in {about}{count} {unit}{plural}"), left: seconds }
    }
}

/// The day of a time: `2 January 2026`.
pub fn day(at: Timestamp) -> String {
    const FORM: &[time::format_description::FormatItem<'_>] =
        time::macros::format_description!("[day padding:none] [month repr:long] [year]");
    let at = time::OffsetDateTime::from_unix_timestamp(at.seconds()).ok();
    at.and_then(|t| t.format(FORM).ok()).unwrap_or_default()
}

/// Of a number that every gateway has rejected for good.
const UNDELIVERABLE: (&str, &str) =
    ("We couldn't deliver to this number.", "It may be a landline or block our messages.");

/// The longest wait between two texts that is only a gap (api.md, 7), in seconds.
const LONGEST_GAP: i64 = 120;

/// Why a factor that is cooling off is not offered; the time follows.
pub const TOO_NEW: &str = "It's new, so for your safety it can't confirm this yet. You can use it here";

/// Why a phone that would do is not offered where nothing sends texts.
pub const NO_TEXTS: &str = "We can't send text messages right now.";

/// What was refused, and what to do.
#[derive(Clone, Debug, Default)]
pub struct Notice {
    /// What happened.
    pub title: String,
    /// What to do.
    pub text: String,
    /// When it can be done.
    pub until: Option<When>,
    /// It is about what was typed, and its field is marked.
    pub of_typed: bool,
}

impl Notice {
    /// Of finished words.
    pub fn new(title: impl Into<String>, text: impl Into<String>) -> Notice {
        Notice { title: title.into(), text: text.into(), until: None, of_typed: false }
    }

    /// The same, of what was typed.
    pub fn of_typed(title: impl Into<String>, text: impl Into<String>) -> Notice {
        Notice { of_typed: true, ..Notice::new(title, text) }
    }
}

/// The words for a refused code of this method, and what of the typed stays in the field.
pub fn refused_code(kind: MethodKind, refused: &Refused, typed: &str, app: &str, now: Timestamp) -> (Notice, String) {
    let is = |code: Code| refused.is(code);
    let until = refused.retry_after.map(|seconds| When::new(now.plus_seconds(seconds), now));
    if is(problem::CODE_MALFORMED) {
        return (malformed(kind, typed), typed.to_owned());
    }
    if is(problem::CODE_INCORRECT) {
        return (wrong(kind, refused.attempts_left, app), typed.to_owned());
    }
    if is(problem::METHOD_PAUSED) && refused.user_message() != problem::ON_HOLD {
        return (paused(until), String::new());
    }
    let (title, text, keep) = if is(problem::CODE_REUSED) {
        ("That code was already used.", "Wait for the next one.", true)
    } else if is(problem::CODE_EXPIRED) {
        ("That code has expired.", "Send a new one.", false)
    } else if refused.user_message() == problem::ON_HOLD {
        ("Your second step is on hold.", "Use another way, or contact support.", false)
    } else if is(problem::SEND_LIMITED) && refused.retry_after.is_some_and(|wait| wait <= LONGEST_GAP) {
        ("A code is on its way.", "You can ask for another", true)
    } else if is(problem::SEND_LIMITED) {
        ("We've sent several codes already.", "You can ask again", true)
    } else if refused.user_message() == problem::UNDELIVERABLE {
        (UNDELIVERABLE.0, UNDELIVERABLE.1, true)
    } else if is(problem::DELIVERY_UNAVAILABLE) {
        ("Text messages are delayed right now.", "Try again in a moment, or try another way.", true)
    } else {
        ("That didn't work.", refused.user_message(), is(problem::RATE_LIMITED))
    };
    let until = until.filter(|_| is(problem::SEND_LIMITED));
    let of_typed = is(problem::CODE_REUSED) || is(problem::CODE_EXPIRED);
    (Notice { until, of_typed, ..Notice::new(title, text) }, if keep { typed.to_owned() } else { String::new() })
}

/// Too many wrong codes, a moment ago.
pub fn paused(until: Option<When>) -> Notice {
    let text = "Your account isn't deleted or blocked for good. You can try again";
    Notice { until, ..Notice::new("Too many codes didn't match.", text) }
}

fn malformed(kind: MethodKind, typed: &str) -> Notice {
    let typed: Vec<char> = typed.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '#' | '＃')).collect();
    let (form, count) = match kind {
        MethodKind::RecoveryCode => ("16 characters", 16),
        _ => ("6 digits", 6),
    };
    let only_digits = typed.iter().all(|c| c.is_ascii_digit() || ('０'..='９').contains(c));
    match typed.len() {
        0 => Notice::of_typed("Enter the code.", format!("It has {form}.")),
        n if kind != MethodKind::RecoveryCode && (!only_digits || n == count) => {
            Notice::of_typed("That code has other characters in it.", "Use only the 6 digits.")
        }
        n if n == count => {
            Notice::of_typed("That code has other characters in it.", "Use only its letters and digits.")
        }
        n => Notice::of_typed(format!("The code has {form}."), format!("You entered {n}.")),
    }
}

fn wrong(kind: MethodKind, left: Option<i64>, app: &str) -> Notice {
    let mut notice = match kind {
        MethodKind::RecoveryCode => Notice::of_typed(
            "That code didn't work.",
            "It may be mistyped or already used. Try another from your list.",
        ),
        MethodKind::Sms => {
            Notice::of_typed("That code didn't match.", "Check that it's the latest message, or send another code.")
        }
        _ => Notice::of_typed(
            "That code didn't match.",
            format!("Check it's the entry for {app}, and wait for the next code."),
        ),
    };
    // A second wrong code of five: said always, whatever the code was, so that it tells a guesser nothing.
    // Where nothing is counted aloud, as when an app is set up, it is said at once: a wrong clock shows there first.
    let again = left.is_none_or(|left| left <= 3);
    if again && kind == MethodKind::Totp {
        notice.text.push_str(" If it keeps failing, turn on automatic date and time on your phone.");
    }
    if let Some(left) = left.filter(|_| again) {
        let tries = if left == 1 { "try" } else { "tries" };
        notice.text.push_str(&format!(" {left} {tries} left before this request closes."));
    }
    notice
}

/// Nothing says of which country a number is.
pub const NO_COUNTRY: &str = "Choose the country first.";

/// The words for a refused phone number, for which a country may not have been chosen.
pub fn refused_phone(refused: &Refused, lacks_country: bool, now: Timestamp) -> Notice {
    let is = |code: Code| refused.is(code);
    if is(problem::PHONE_INVALID) && lacks_country {
        return Notice::of_typed(NO_COUNTRY, "Or write the number with + and its country code.");
    }
    if is(problem::PHONE_INVALID) {
        return Notice::of_typed("Enter all digits of the number.", "Leave out the country code: it is chosen above.");
    }
    if is(problem::PHONE_NOT_ALLOWED) {
        return Notice::of_typed(
            "We can't text this number.",
            "Use a mobile number of a country that we can text, not a landline or internet number.",
        );
    }
    if refused.user_message() == problem::UNDELIVERABLE {
        return Notice::of_typed(UNDELIVERABLE.0, format!("{} Use another one.", UNDELIVERABLE.1));
    }
    if is(problem::FACTOR_DUPLICATE) {
        return Notice::of_typed("You already added this number.", "Use another one.");
    }
    refused_code(MethodKind::Sms, refused, "", "", now).0
}

/// A name that its owner recognises and a passer-by does not: the first letter and what follows the @.
pub fn masked(user: &User) -> Option<String> {
    let Some(hint) = &user.login_hint else { return user.display_name.clone() };
    let first = hint.chars().next()?;
    if first == '+' || (first.is_ascii_digit() && hint.chars().all(|c| c.is_ascii_digit() || c == ' ')) {
        let last: String = hint.chars().skip(hint.chars().count().saturating_sub(2)).collect();
        return Some(format!("•••{last}"));
    }
    let domain = hint.rsplit_once('@').map(|(_, domain)| format!("@{domain}")).unwrap_or_default();
    Some(format!("{first}•••{domain}"))
}

/// A name as a person gave it: trimmed, of bounded length, without what misleads.
pub fn name_of(fields: &Fields) -> Option<String> {
    let name = fields.text("name").trim();
    let fits = (1..=crate::engine::LONGEST_FACTOR_NAME).contains(&name.chars().count());
    (fits && !name.chars().any(misleads)).then(|| name.to_owned())
}

/// The file in which a person saves recovery codes, and looks for them later.
pub fn codes_file(app: &str) -> String {
    let plain: String = app.chars().filter(char::is_ascii_alphanumeric).collect();
    let dash = if plain.is_empty() { "" } else { "-" };
    format!("{}{dash}recovery-codes.txt", plain.to_lowercase())
}

/// What to do where nothing is enrolled that would do, by what would, and what the person holds.
pub fn set_up(missing: &[MethodKind], held: Option<&str>) -> Way {
    match held {
        Some(held) if *missing == [MethodKind::Webauthn] => {
            let line = format!("Your {} isn't enough here. It takes about a minute.", held.to_lowercase());
            Way::SetUp("This action needs a passkey or security key", line, "Add a passkey")
        }
        _ => {
            let line = "This action needs it. It takes about a minute.".to_owned();
            Way::SetUp("Set up a second step first", line, "Set up now")
        }
    }
}

/// What was added, and what to know of it; whether it is the only one.
pub fn added(factor: &Factor, only: bool) -> (&'static str, String) {
    match &factor.details {
        Details::Totp => {
            let line = "From now on it shows you a new code every 30 seconds. The one you typed is used up: wait for the next.";
            ("Authenticator app added", line.to_owned())
        }
        Details::Sms(_) => ("Phone added", "Texts can be intercepted. A passkey is safer.".to_owned()),
        Details::Webauthn(details) => {
            let is_key = details.is_security_key();
            let more = if only { " Add another so you aren't locked out." } else { "" };
            let line = match (&details.provider_name, details.backed_up) {
                (Some(name), true) => {
                    format!("Saved in {name}. You can use it on devices where {name} is signed in.")
                }
                (None, true) => "You can use it on devices where your password manager is signed in.".to_owned(),
                // It may be synced one day; whoever relied on that today could be locked out.
                (_, false) if details.backup_eligible => {
                    format!("It isn't synced yet: for now it works only on this device.{more}")
                }
                (_, false) => {
                    format!("It works only {}.{more}", if is_key { "with this key" } else { "on this device" })
                }
            };
            (if is_key { "Security key added" } else { "Passkey added" }, line)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_hint_is_masked() {
        let nobody = User::unnamed("u-42", [0; 16], Timestamp(0));
        let user = |hint: &str| User { login_hint: Some(hint.to_owned()), ..nobody.clone() };
        for (hint, shown) in [("jane@example.com", "j•••@example.com"), ("jane", "j•••"), ("+4915155501234", "•••34")]
        {
            assert_eq!(masked(&user(hint)).as_deref(), Some(shown));
        }
    }

    #[test]
    fn a_malformed_code_is_told_by_its_digits() {
        let text = |typed: &str| malformed(MethodKind::Totp, typed).text;
        assert_eq!(text("12345"), "You entered 5.");
        assert_eq!(text("123 4567"), "You entered 7.");
        assert_eq!(text("12345a"), "Use only the 6 digits.");
        assert_eq!(text(""), "It has 6 digits.");
    }

    #[test]
    fn recovery_codes_have_a_file_whatever_the_name_of_the_application() {
        assert_eq!(codes_file("Harbour Bank"), "harbourbank-recovery-codes.txt");
        assert_eq!(codes_file("銀行"), "recovery-codes.txt");
    }

    #[test]
    fn times_are_said_with_their_distance() {
        let when = When::new(Timestamp::from_seconds(1_767_323_600), Timestamp::from_seconds(1_767_323_000));
        assert_eq!((when.clock.as_str(), when.away.as_str()), ("03:13 UTC", "in about 10 minutes"));
    }
}
