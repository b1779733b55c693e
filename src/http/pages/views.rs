//! What the templates are filled with. A view holds finished words and numbers and decides nothing, so that the gallery can show
//! any state from examples.

use askama::Template;

use super::screen::Shell;
use super::words::{self, Notice, When};
use crate::model::{Detail, MethodKind};

/// The browser's part of a ceremony: its blocks are shown by state.
#[derive(Clone)]
pub struct Ceremony {
    /// `get` or `create`
    pub kind: &'static str,
    /// The state that the server shows first.
    pub state: &'static str,
    /// Where options and credential are exchanged.
    pub base: String,
    pub guard: String,
    /// The RP ID, for the Signal API.
    pub host: String,
    /// Only security keys are enrolled.
    pub key_only: bool,
    /// Where passkeys are kept, as far as known.
    pub saved_in: String,
}

impl Ceremony {
    /// The attributes of a block that is shown in these states; `hidden` where that is not now.
    pub fn when(&self, states: &str) -> String {
        let hidden = if states.split(' ').any(|s| s == self.state) { "" } else { " hidden" };
        format!("data-when=\"{states}\"{hidden}")
    }
}

/// A code that is on its way.
#[derive(Clone)]
pub struct SentCode {
    /// When another may be asked for, if not yet.
    pub resend: Option<When>,
    /// How many more may be asked for.
    pub more: i64,
    /// It no longer counts.
    pub expired: bool,
}

/// One way to answer, as the page shows it.
#[derive(Clone)]
pub enum Way {
    /// Passkey or security key.
    Passkey(Ceremony),
    /// Authenticator app, with the names of several.
    App(String),
    /// Text message: the phone's factor, the last digits, and what was sent.
    Text(String, String, Option<SentCode>),
    /// Recovery code.
    RecoveryCode,
    /// Not for a while.
    Paused(When),
    /// Not before another way was right or support ended it; the request's reference.
    OnHold(String),
    /// Nothing is enrolled that would do: the heading, what is not enough, and the button that leads to setting it up.
    SetUp(&'static str, String, &'static str),
    /// Nothing is enrolled that would do, and nothing can be set up here.
    Nothing,
}

/// A line of the chooser.
#[derive(Clone)]
pub struct Choice {
    /// Its icon, by the method's name in the API or `key`.
    pub icon: &'static str,
    /// What it is.
    pub label: String,
    /// Which one.
    pub note: String,
    /// Where it leads; `None` where it cannot be used.
    pub href: Option<String>,
    /// Why not.
    pub why_not: Option<(String, Option<When>)>,
}

/// The challenge.
#[derive(Clone, Template)]
#[template(path = "challenge.html")]
pub struct ChallengePage {
    pub shell: Shell,
    /// The page's own path, with the chosen way.
    pub here: String,
    pub guard: String,
    /// What the person is about to do.
    pub why: String,
    /// What will be bound into the session.
    pub details: Vec<Detail>,
    /// Who is asked, masked.
    pub who: Option<String>,
    /// The visit to the portal that asks.
    pub visit: Option<String>,
    /// The chosen way.
    pub way: Way,
    /// The others.
    pub others: Vec<Choice>,
    pub notice: Option<Notice>,
    pub typed: String,
    /// When the challenge ends.
    pub ends: When,
}

impl ChallengePage {
    /// Whether the phone is being set up.
    fn sets_up(&self) -> bool {
        false
    }

    /// Whether there is no other way that can be used now.
    fn none_works(&self) -> bool {
        self.others.iter().all(|other| other.href.is_none())
    }

    /// Whether the way has no place of its own for what was refused: another way than the one that was tried.
    fn has_no_field(&self) -> bool {
        matches!(self.way, Way::Passkey(_) | Way::SetUp(..) | Way::Nothing)
    }
}

/// A field for a code, with what was refused above it.
#[derive(Clone, Template)]
#[template(path = "code.html")]
pub struct CodeField<'a> {
    /// Its label.
    pub label: &'a str,
    /// Six digits rather than a recovery code.
    pub digits: bool,
    pub notice: Option<&'a Notice>,
    pub typed: &'a str,
    /// Takes the focus.
    pub focus: bool,
    /// What the page says of the code's purpose, by its ids: who begins at the field hears it there.
    pub about: &'static str,
}

impl ChallengePage {
    /// The code's field with this label.
    pub fn field<'a>(&'a self, label: &'a str, digits: bool) -> CodeField<'a> {
        let about = if self.details.is_empty() { "why" } else { "why details" };
        CodeField { label, digits, notice: self.notice.as_ref(), typed: &self.typed, focus: true, about }
    }
}

/// S7: a passkey or security key is created.
#[derive(Template)]
#[template(path = "passkey.html")]
pub struct PasskeyPage {
    pub shell: Shell,
    /// The ceremony.
    pub ceremony: Ceremony,
    pub base: String,
    /// How many there may be.
    pub most: usize,
}

/// S8: an authenticator app is set up.
#[derive(Template)]
#[template(path = "app.html")]
pub struct AppPage {
    pub shell: Shell,
    pub base: String,
    pub guard: String,
    /// The symbol, from the engine.
    pub qr_svg: String,
    /// The secret in groups of four.
    pub key: String,
    /// For apps on this device.
    pub uri: String,
    /// An earlier symbol has run out.
    pub renewed: bool,
    pub notice: Option<Notice>,
    pub typed: String,
}

impl AppPage {
    /// The code's field.
    pub fn field(&self) -> CodeField<'_> {
        let focus = self.notice.is_some();
        CodeField {
            label: "6-digit code",
            digits: true,
            notice: self.notice.as_ref(),
            typed: &self.typed,
            focus,
            about: "",
        }
    }
}

/// S8: a phone is added.
#[derive(Template)]
#[template(path = "phone.html")]
pub struct PhonePage {
    pub shell: Shell,
    pub base: String,
    pub guard: String,
    /// The last digits and what was sent, once it was.
    pub sent: Option<(String, SentCode)>,
    /// ISO code, name and calling code, and whether it is chosen.
    pub countries: Vec<(&'static str, &'static str, &'static str, bool)>,
    pub notice: Option<Notice>,
    pub typed: String,
}

impl PhonePage {
    /// Whether the number was refused because nothing says of which country it is.
    pub fn lacks_country(&self) -> bool {
        self.notice.as_ref().is_some_and(|notice| notice.title == words::NO_COUNTRY)
    }

    /// Whether the phone is being set up.
    fn sets_up(&self) -> bool {
        true
    }

    /// Whether there is no other way than this page.
    fn none_works(&self) -> bool {
        true
    }

    /// The code's field.
    pub fn field(&self) -> CodeField<'_> {
        CodeField {
            label: "6-digit code",
            digits: true,
            notice: self.notice.as_ref(),
            typed: &self.typed,
            focus: true,
            about: "",
        }
    }
}

/// Something was added, and may be named.
#[derive(Template)]
#[template(path = "added.html")]
pub struct AddedPage {
    pub shell: Shell,
    pub base: String,
    pub guard: String,
    /// The factor.
    pub factor: String,
    /// Its name.
    pub name: String,
    /// What to know of it.
    pub line: String,
    /// What else to add: label and page.
    pub next: Option<(&'static str, &'static str)>,
    /// The way on.
    pub done: &'static str,
    pub notice: Option<Notice>,
    /// It has a new name.
    pub renamed: bool,
}

/// S9: new codes, once.
#[derive(Template)]
#[template(path = "codes.html")]
pub struct CodesPage {
    pub shell: Shell,
    pub base: String,
    pub guard: String,
    /// Their set.
    pub set: String,
    /// The codes.
    pub codes: Vec<String>,
    /// Whose, and made when.
    pub caption: String,
    pub notice: Option<Notice>,
    /// About to go without having saved them.
    pub leaving: bool,
}

/// One factor in the list.
#[derive(Clone)]
pub struct Card {
    /// `fac_…`
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its icon, by the method's name in the API or `key`.
    pub icon: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// When added and last used.
    pub dates: String,
    /// In words.
    pub badges: Vec<&'static str>,
}

/// S10: the list.
#[derive(Template)]
#[template(path = "settings.html")]
pub struct SettingsPage {
    pub shell: Shell,
    pub base: String,
    pub guard: String,
    /// Active factors.
    pub cards: Vec<Card>,
    /// What may be added.
    pub adds: Vec<Choice>,
    /// Recovery codes in a line.
    pub codes: String,
    /// They are few, gone or unconfirmed.
    pub codes_low: bool,
    pub notice: Option<Notice>,
    /// RP ID, user handle and credential ids, for the Signal API.
    pub accepted: (String, String, String),
    /// What was just done.
    pub said: Option<&'static str>,
    /// Which card is being renamed.
    pub open: String,
    /// The name that was typed for it.
    pub typed: String,
}

impl SettingsPage {
    /// Whether a passkey may be added here.
    fn adds_passkeys(&self) -> bool {
        self.adds.iter().any(|choice| choice.icon == MethodKind::Webauthn.as_str())
    }
}
