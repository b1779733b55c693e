//! The application's own login sessions: in memory, known by the hash of a random cookie, ended by age and idleness.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::customers::Customer;
use super::journal::Call;
use super::step_up::Pending;

/// A session ends after this many seconds whatever happens.
const LONGEST: i64 = 12 * 3600;
/// A session that nobody uses ends after this many seconds.
const IDLE: i64 = 30 * 60;
/// Sessions at once; the idlest goes first.
const MOST: usize = 1000;
/// Calls kept for the drawer.
const CALLS: usize = 30;
/// Step-ups under way at once, in several tabs.
const PENDING: usize = 8;

/// What the application knows of one browser.
pub struct Browser {
    began: i64,
    seen: i64,
    /// What its forms carry.
    pub csrf: String,
    /// Who gave a right password in it.
    pub person: Option<Person>,
    /// Shown once, on the next page.
    pub notice: Option<Notice>,
    pending: VecDeque<Pending>,
    calls: VecDeque<Call>,
    counted: u64,
}

/// Somebody whose password was right.
#[derive(Clone)]
pub struct Person {
    /// Who.
    pub customer: &'static Customer,
    /// Names this login to the engine, so that what is proved here counts here only; no secret, and never the cookie.
    pub binding: String,
    /// How far they are in.
    pub stage: Stage,
}

/// How far somebody is in.
#[derive(Clone)]
pub enum Stage {
    /// The second step is awaited: they may do nothing yet.
    Password,
    /// They are in.
    In(Option<StepUp>),
}

/// The step-up session of a login. The token never leaves the server.
#[derive(Clone)]
pub struct StepUp {
    /// `ses_…`
    pub id: String,
    /// Opaque token.
    pub token: String,
    /// In words: with what they signed in.
    pub with: String,
    /// `aal2`, `phr` or `phrh`
    pub acr: String,
    /// The clock time of the proof, in UTC.
    pub at: String,
}

/// What happened, for the next page.
#[derive(Clone, Default)]
pub struct Notice {
    /// Something went well.
    pub good: bool,
    /// What happened.
    pub title: String,
    /// What to know of it.
    pub text: String,
    /// Values that were asked for.
    pub lines: Vec<(String, String)>,
    /// A link to what helps: words and path.
    pub link: Option<(&'static str, &'static str)>,
}

impl Browser {
    fn new(now: i64, csrf: String) -> Browser {
        let (pending, calls) = (VecDeque::new(), VecDeque::new());
        Browser { began: now, seen: now, csrf, person: None, notice: None, pending, calls, counted: 0 }
    }

    fn lives(&self, now: i64) -> bool {
        now < self.began + LONGEST && now < self.seen + IDLE
    }

    /// Keeps a step-up that is under way.
    pub fn expect_return(&mut self, pending: Pending) {
        if self.pending.len() == PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(pending);
    }

    /// The step-up that was begun in this browser with this `state`, once.
    pub fn take_pending(&mut self, state: &str) -> Option<Pending> {
        let place = self.pending.iter().position(|p| bool::from(p.state.as_bytes().ct_eq(state.as_bytes())))?;
        self.pending.remove(place)
    }

    /// Nobody is in, and nothing is under way.
    pub fn sign_out(&mut self) {
        self.person = None;
        self.pending.clear();
    }

    /// Keeps a call for the drawer.
    pub fn record(&mut self, call: Call) {
        self.counted += 1;
        if self.calls.len() == CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(Call { number: self.counted, ..call });
    }

    /// The calls, newest first.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.iter().rev().cloned().collect()
    }

    /// Who is in, past every step.
    pub fn signed_in(&self) -> Option<(&'static Customer, Option<&StepUp>)> {
        match &self.person {
            Some(Person { customer, stage: Stage::In(step_up), .. }) => Some((customer, step_up.as_ref())),
            _ => None,
        }
    }
}

/// Every browser.
#[derive(Default)]
pub struct Browsers {
    kept: Mutex<HashMap<[u8; 32], Browser>>,
}

impl Browsers {
    /// Whether a cookie names a session that has not ended.
    pub fn knows(&self, cookie: &str, now: i64) -> bool {
        self.lock().get(&hash(cookie)).is_some_and(|b| b.lives(now))
    }

    /// Works on a browser's session, which is begun where there is none.
    pub fn with<T>(&self, cookie: &str, now: i64, random: fn() -> [u8; 32], work: impl FnOnce(&mut Browser) -> T) -> T {
        let mut kept = self.lock();
        let key = hash(cookie);
        if !kept.contains_key(&key) {
            kept.retain(|_, b| b.lives(now));
            if kept.len() >= MOST
                && let Some(idlest) = kept.iter().min_by_key(|(_, b)| b.seen).map(|(key, _)| *key)
            {
                kept.remove(&idlest);
            }
        }
        let browser = kept.entry(key).or_insert_with(|| Browser::new(now, secret(random)));
        work(browser)
    }

    /// Notes that somebody is there: the session is not idle.
    pub fn touch(&self, cookie: &str, now: i64) {
        if let Some(browser) = self.lock().get_mut(&hash(cookie)) {
            browser.seen = now;
        }
    }

    /// Gives a session another cookie: the old one is worth nothing from now on.
    pub fn rename(&self, from: &str, to: &str) {
        let mut kept = self.lock();
        if let Some(browser) = kept.remove(&hash(from)) {
            kept.insert(hash(to), browser);
        }
    }

    /// Signs a customer out of every browser.
    pub fn sign_out_everywhere(&self, customer: &Customer) {
        for browser in self.lock().values_mut() {
            if browser.person.as_ref().is_some_and(|p| p.customer.user_id == customer.user_id) {
                browser.sign_out();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Browser>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 256 random bits as text.
pub fn secret(random: fn() -> [u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(random())
}

fn hash(cookie: &str) -> [u8; 32] {
    Sha256::digest(cookie.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Browsers {
        let browsers = Browsers::default();
        browsers.with("a", 0, || [1; 32], |_| ());
        browsers
    }

    #[test]
    fn a_session_ends_by_idleness_and_by_age() {
        let browsers = begun();
        assert!(browsers.knows("a", IDLE - 1) && !browsers.knows("a", IDLE));
        for minute in 0..LONGEST / 60 {
            browsers.touch("a", minute * 60);
        }
        assert!(browsers.knows("a", LONGEST - 1) && !browsers.knows("a", LONGEST));
    }

    #[test]
    fn a_renamed_session_is_not_known_by_its_old_cookie() {
        let browsers = begun();
        browsers.rename("a", "b");
        assert!(browsers.knows("b", 1) && !browsers.knows("a", 1) && !browsers.knows("", 1));
    }
}
