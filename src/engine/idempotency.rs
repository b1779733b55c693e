//! Answers to requests that may be repeated: kept with their effect, in one commit, and given again.
//!
//! The caller's side says how an ending reads; the engine seals that and lets the store write it in the transaction of the effect.
//! So whoever asks again after a crash gets the first answer, and a guess that was judged is not judged again. What the bytes of an
//! answer mean is not known here.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::{Answered, Caller, Clash, Engine, Error, Introspection, Issued, Open, PortalView, Verdict, WithSecret};
use crate::methods::Shown;
use crate::model::{
    Challenge, Delivery, Factor, Id, Keyed, Kind, MethodKind, Moment, Prompt, RecoveryStatus, RecoverySummary, hex,
};
use crate::store::{self, Keep, Store};
use crate::vault::Row;

/// How long an answer is kept, in seconds.
pub const KEPT: i64 = 86_400;
/// How long it is kept with its secrets, in seconds.
pub const WHOLE: i64 = 600;
/// How long a text may be on its way, in seconds; a request takes no longer than half of that.
const ON_ITS_WAY: i64 = 60;

/// What a request ended in, to be told to its caller.
#[expect(missing_docs, reason = "the types of the members say what they are")]
pub enum Ending<'a> {
    /// A challenge is open.
    Opened(&'a Open),
    /// A challenge was approved as it was made; why.
    Approved { challenge: &'a Challenge, issued: Option<&'a Issued>, reason: &'static str },
    /// The user has nothing that would do, but one of these would; on the way to this challenge, where there is one.
    EnrolmentRequired { missing: &'a [MethodKind], open: Option<&'a Open> },
    /// A response is awaited.
    Prepared(&'a Shown, Option<&'a Prompt>),
    /// A right answer.
    Verified(&'a Verdict),
    /// A one-time code was exchanged.
    Exchanged(&'a Issued),
    /// A challenge was called off.
    Cancelled(&'a Challenge),
    /// An enrolment has begun.
    Begun { factor: &'a Factor, shown: &'a Shown, prompt: Option<&'a Prompt> },
    /// Another code was sent to a pending phone.
    Resent { factor: &'a Factor, shown: &'a Shown, prompt: Option<&'a Prompt> },
    /// A factor is active.
    Activated(&'a Factor),
    /// Recovery codes were made.
    Codes(&'a [Zeroizing<String>], RecoveryStatus),
    /// Recovery codes were confirmed.
    Confirmed(&'a RecoverySummary),
    /// A token was judged.
    Introspected(&'a Introspection),
    /// A portal session is open.
    Visit(&'a PortalView),
    /// A webhook endpoint was made.
    EndpointCreated(&'a WithSecret),
    /// A webhook endpoint has a new secret.
    SecretRotated(&'a WithSecret),
    /// A webhook endpoint is about to be tried.
    TestQueued(&'a Delivery),
    /// Refused, and charged.
    Refused(&'a Answered),
}

/// An answer as the caller's side writes it.
#[derive(Clone)]
pub struct Told {
    /// All of it.
    pub whole: Zeroizing<Vec<u8>>,
    /// Without its secrets, where it has any.
    pub brief: Option<Vec<u8>>,
}

/// How an ending reads.
pub type Tell = Box<dyn Fn(Ending<'_>) -> Told + Send + Sync>;

/// What is asked, and by whom.
pub struct Asked<'a> {
    /// The caller's API key or client token.
    pub token: &'a str,
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The caller's key for it.
    pub key: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// A request whose answer is kept.
pub struct Once {
    rp_id: Id,
    id: String,
    turn: String,
    body_hash: Vec<u8>,
    tell: Tell,
    /// The answer that was last about to be kept.
    last: Mutex<Option<(Arc<Keep>, Told)>>,
    has_place: AtomicBool,
    running: Running,
}

impl Once {
    /// The answer that was kept with an effect.
    pub fn told(&self) -> Option<Told> {
        let last = open(&self.last);
        last.as_ref().filter(|(keep, _)| keep.stands.load(Ordering::Acquire)).map(|(_, told)| told.clone())
    }
}

/// What this node is about to answer; another copy of it is told to wait. Between nodes the unique row decides.
pub(super) type Running = Arc<Mutex<HashSet<String>>>;

impl Drop for Once {
    fn drop(&mut self) {
        open(&self.running).remove(&self.id);
    }
}

/// What is to be done with a request that may be a repetition.
pub enum Turn {
    /// It is the first: do it.
    First(Arc<Once>),
    /// It was answered so.
    Again(Zeroizing<Vec<u8>>),
}

impl Engine {
    /// Whether a request is the first of its kind. [`Error::KeyMismatch`] where its key was used with another body, and
    /// [`Clash::InProgress`] where the first is not answered yet.
    pub async fn turn(&self, rp: &Id, asked: &Asked<'_>, tell: Tell) -> Result<Turn, Error> {
        let at = self.moment();
        let parts = [asked.token, asked.method, asked.path, asked.key].map(str::as_bytes);
        let id = hex(&self.vault.keyed_hash("idempotency", &parts));
        if !open(&self.running).insert(id.clone()) {
            return Err(Error::Clash(Clash::InProgress));
        }
        let once = Once {
            rp_id: rp.clone(),
            id,
            turn: Id::new(Kind::Request, &at).to_string(),
            body_hash: self.vault.keyed_hash("idempotency-body", &[asked.body]).to_vec(),
            tell,
            last: Mutex::default(),
            has_place: AtomicBool::new(false),
            running: Arc::clone(&self.running),
        };
        match self.recall(&once).await? {
            Some(again) => Ok(Turn::Again(again)),
            None => Ok(Turn::First(Arc::new(once))),
        }
    }

    /// The first answer, if it is kept.
    pub async fn recall(&self, once: &Once) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let now = self.moment().now;
        let kept = self.store.kept(&once.rp_id, &once.id, now.plus_seconds(-KEPT)).await?;
        let Some(kept) = kept.filter(|k| k.answer.is_some() || now < k.at().plus_seconds(ON_ITS_WAY)) else {
            return Ok(None);
        };
        if kept.body_hash != once.body_hash {
            return Err(Error::KeyMismatch);
        }
        let answer = kept.answer.as_ref().ok_or(Error::Clash(Clash::InProgress))?;
        let (table, sealed) = match kept.whole.as_ref().filter(|_| now < kept.at().plus_seconds(WHOLE)) {
            Some(whole) => ("kept_answers.whole", whole),
            None => ("kept_answers.answer", answer),
        };
        let row = Row { table, rp: once.rp_id.as_str(), user: &kept.user_id, id: &once.id };
        let opened = self.open_row(row, sealed).await?.map_err(|_| store::Error::Corrupt("kept_answers"))?;
        Ok(Some(opened))
    }

    /// Keeps the answer of a request that had no effect of its own; of whom it tells, if of anybody.
    pub async fn keep_afterwards(&self, once: &Once, user_id: &str, told: &Told) -> Result<(), Error> {
        let keep = self.sealed(&self.moment(), once, user_id, Some(told));
        Ok(self.store.keep(Arc::new(keep)).await?)
    }

    /// Frees the key of a request that came to nothing.
    pub async fn free(&self, once: &Once) -> Result<(), Error> {
        if !once.has_place.load(Ordering::Acquire) {
            return Ok(());
        }
        store::stood(self.store.give_way(&once.rp_id, &once.id, &once.turn).await)?;
        Ok(())
    }

    /// The store by which an effect is written, together with what the caller is told of it where that is kept.
    pub(super) fn keeping(&self, at: &Moment<'_>, caller: &Caller, user_id: &str, ending: Ending<'_>) -> Store {
        let Some(once) = &caller.once else { return self.store.clone() };
        let told = (once.tell)(ending);
        let keep = Arc::new(self.sealed(at, once, user_id, Some(&told)));
        *open(&once.last) = Some((Arc::clone(&keep), told));
        self.store.keeping(keep)
    }

    /// Takes the place of the answer before something is done that no transaction takes back: a text that is sent.
    pub(super) async fn take_place(&self, at: &Moment<'_>, caller: &Caller, user_id: &str) -> Result<(), Error> {
        let Some(once) = &caller.once else { return Ok(()) };
        self.store.keep(Arc::new(self.sealed(at, once, user_id, None))).await?;
        once.has_place.store(true, Ordering::Release);
        Ok(())
    }

    fn sealed(&self, at: &Moment<'_>, once: &Once, user_id: &str, told: Option<&Told>) -> Keep {
        let seal = |table: &'static str, plain: &[u8]| {
            let row = Row { table, rp: once.rp_id.as_str(), user: user_id, id: &once.id };
            self.vault.seal(at, row, plain)
        };
        let brief = |told: &Told| seal("kept_answers.answer", told.brief.as_ref().unwrap_or(&told.whole));
        let whole = |told: &Told| told.brief.as_ref().map(|_| seal("kept_answers.whole", &told.whole));
        Keep {
            rp_id: once.rp_id.clone(),
            user_id: user_id.to_owned(),
            id: once.id.clone(),
            turn: once.turn.clone(),
            body_hash: once.body_hash.clone(),
            answer: told.map(brief),
            whole: told.and_then(whole),
            at: at.now,
            expired: at.now.plus_seconds(-KEPT),
            given_up: at.now.plus_seconds(-ON_ITS_WAY),
            stands: AtomicBool::new(false),
        }
    }
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
