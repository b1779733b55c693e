//! The relying party's own name for a person, and what pages call them.

use super::Timestamp;

/// The longest user id, in bytes of UTF-8.
pub const MAX_USER_ID: usize = 255;

/// A user as far as the engine knows one.
#[derive(Clone, Debug)]
pub struct User {
    /// The relying party's opaque name for the person.
    pub user_id: String,
    /// The WebAuthn user handle: 16 random bytes, stable, without meaning (WebAuthn L3, 5.4.3).
    pub handle: [u8; 16],
    /// A name that pages and authenticators may show.
    pub display_name: Option<String>,
    /// What the person signs in with, shown masked.
    pub login_hint: Option<String>,
    /// BCP 47 tag.
    pub locale: Option<String>,
    /// When it was first named.
    pub created_at: Timestamp,
}

/// Whether a character has no place in what people are shown: control characters, and those that turn the direction of what
/// follows, by which a text reads as another (U+202A to U+202E, U+2067). The other isolates only keep a part by itself.
pub fn misleads(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2067}')
}

impl User {
    /// What a text that names no user is refused with.
    pub const ID_RULE: &str = "Expected 1 to 255 bytes without control characters, and neither . nor ..";

    /// Whether this text may name a user: 1 to 255 bytes of UTF-8 without control characters. Clients take `.` and `..` out of an
    /// address, also where they are encoded (WHATWG URL, 4.4): a call about such a user would be one about another.
    pub fn is_valid_id(text: &str) -> bool {
        let is_dots = matches!(text, "." | "..");
        !text.is_empty() && text.len() <= MAX_USER_ID && !text.chars().any(char::is_control) && !is_dots
    }

    /// One that was never named.
    pub fn unnamed(user_id: &str, handle: [u8; 16], created_at: Timestamp) -> User {
        User { user_id: user_id.to_owned(), handle, display_name: None, login_hint: None, locale: None, created_at }
    }

    /// The best name that is known for the person.
    pub fn shown_name(&self) -> &str {
        self.display_name.as_deref().or(self.login_hint.as_deref()).unwrap_or(&self.user_id)
    }
}
