//! The only place that acts: it reads the clock once a request, asks methods and policy, and writes by one store verb.

mod audit;
mod challenge;
mod courier;
mod custodian;
mod enrolment;
mod error;
mod factors;
mod housekeeping;
mod idempotency;
mod inline;
mod keys;
mod leases;
mod limits;
mod offers;
mod opening;
mod operator;
mod pending;
mod portal;
mod recovery;
mod sending;
mod session;
mod start;
mod users;
mod verification;
mod webhooks;

pub use audit::{ChainReport, EventFilter};
pub use challenge::{Created, NewChallenge, Open, purpose};
pub use courier::Write;
pub use custodian::{Custodian, KeyState};
pub use enrolment::{Begin, Started};
pub use error::{Answered, Clash, Error, Gone};
pub use idempotency::{Asked, Ending, Once, Tell, Told, Turn};
pub use limits::{Pause, odds};
pub use offers::{Offer, OnPage};
pub use operator::{NewKey, NewParty, Operator, OperatorError, UserState};
pub use pending::most_active;
pub use portal::{NewPortal, Opened, PortalView};
pub use session::{Introspection, Issued, Question};
pub use start::{StartError, examine_keys, open_store, restoration};
pub use users::UserView;
pub use verification::{Delivery, Given, Verdict};
pub use webhooks::{NewEndpoint, WithSecret};

pub use crate::delivery::Undelivered;
pub use crate::methods::sms::dialled;
pub use crate::methods::{Answer, Attachment, Fault, Refusal, Shown, Wish};
pub use crate::store::{EndpointChange, Error as StoreError, Names};

/// The action of a challenge that does not name one.
pub const DEFAULT_ACTION: &str = crate::policy::requirement::LOGIN;
/// Seconds of a TOTP step.
pub const TOTP_PERIOD: i64 = crate::methods::totp::PERIOD;
/// Digits of a TOTP code.
pub const TOTP_DIGITS: u8 = crate::methods::totp::DIGITS;
/// How long a device stays known after its last success, in seconds.
pub const DEVICE_LIFE: i64 = crate::policy::throttle::DEVICE_LIFE;
/// The longest name of a factor, in characters.
pub const LONGEST_FACTOR_NAME: usize = factors::LONGEST_NAME;

/// When another code may be sent for the owner of this prompt.
pub fn resend_after(prompt: &Prompt) -> Timestamp {
    crate::policy::sending::next_send(prompt.sends, prompt.sent_at)
}

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::delivery::{Inbox, Outbox};
use crate::methods::{Methods, Parties};
use crate::model::{
    Actor, ApiKey, Challenge, Client, Event, Factor, Id, Keyed, Moment, PortalSession, Prompt, RelyingParty, Rng,
    Session, Timestamp, User, hex,
};
use crate::policy::sending::Caps;
use crate::store::{self, Dossier, Store, Which};
use crate::token::Signer;
use crate::vault::{MasterKey, Vault, token_hash};
use opening::factor_row;

/// How often the use of an API key is noted, in seconds.
const KEY_USE: i64 = 60;

/// The engine of one node. It keeps no state of its own beyond keys: any node finishes what another began.
pub struct Engine {
    /// This node among those of the database.
    node: String,
    store: Store,
    master: MasterKey,
    vault: Arc<Vault>,
    signer: Signer,
    methods: Arc<Methods>,
    outbox: Outbox,
    inbox: Arc<Inbox>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    caps: Caps,
    /// How long a new factor does not count as phishing-resistant, in seconds.
    cool_off: i64,
    /// The public URL without a trailing slash.
    issuer: String,
    origin: String,
    host: String,
    /// Costly verdicts that may run at once.
    costly: Arc<Semaphore>,
    /// Repeatable requests that this node is about to answer.
    running: idempotency::Running,
    /// The right to number and chain events.
    sealer: leases::Lease,
    /// What carries webhooks.
    couriers: courier::Couriers,
    /// A key was asked for out of turn since the keys were last read.
    asked_for_keys: AtomicBool,
    /// The signing keys as they were last read.
    signing_rows: Mutex<Vec<store::SigningKey>>,
}

/// On whose behalf a call is made.
#[derive(Clone)]
pub struct Caller {
    /// The relying party; nothing of another is reachable.
    pub rp: Arc<RelyingParty>,
    /// On whose word.
    pub actor: Actor,
    /// The portal session, where a person acts through one.
    pub portal: Option<PortalSession>,
    /// The challenge, where a person sets up a first factor on the way to it.
    pub enrols: Option<Box<Challenge>>,
    /// The request.
    pub request_id: String,
    /// The person's browser, as far as it is known.
    pub client: Option<Client>,
    /// The API key by which a server calls.
    pub key_id: Option<Id>,
    /// What was read together with the caller's key.
    pub known: Known,
    /// The answer is kept, for a request that may be repeated.
    pub once: Option<Arc<Once>>,
}

/// What one round trip brought beside the caller's key or client token; good for a first try, and read anew for every other.
#[derive(Clone, Default)]
pub enum Known {
    /// Nothing.
    #[default]
    Nothing,
    /// What is known of the user whom the call names.
    User(Arc<Dossier>),
    /// The challenge that the call names, if there is one, and what is known of its user.
    Case(Arc<Option<(Challenge, Dossier)>>),
    /// The session that the call names, if there is one.
    Session(Arc<Option<Session>>),
}

impl Caller {
    /// How many answers the challenge that the call names still takes.
    pub fn attempts_left(&self) -> Option<i64> {
        match &self.known {
            Known::Case(case) => case.as_ref().as_ref().map(|(challenge, _)| challenge.attempts_left),
            Known::Nothing | Known::User(_) | Known::Session(_) => None,
        }
    }
}

/// What a call names, to be read together with the caller's key.
#[derive(Clone, Copy)]
pub enum Named<'a> {
    /// Nothing that is read ahead.
    Nothing,
    /// A user.
    User(&'a str),
    /// A challenge.
    Challenge(&'a Id),
    /// A session.
    Session(&'a Id),
    /// A session by its token. A JWT is not read before the caller is known.
    Token(&'a str),
}

impl Engine {
    /// Now and randomness for one request.
    pub fn moment(&self) -> Moment<'_> {
        Moment::new(self.clock.now(), &*self.rng)
    }

    /// The public URL without a trailing slash.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The engine's own origin.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The texts that were kept instead of sent.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// The public keys of step-up JWTs.
    pub fn jwks(&self) -> serde_json::Value {
        serde_json::to_value(self.signer.jwks(self.clock.now())).expect("public keys are JSON")
    }

    /// Whether the database answers, its schema is this binary's and its keys are known.
    pub async fn is_ready(&self) -> bool {
        !self.is_left_behind() && self.store.ping().await.is_ok() && self.store.is_migrated().await.unwrap_or(false)
    }

    /// The key with this secret, if it still opens anything, its relying party, and what the call names: one round trip.
    pub async fn by_api_key(
        &self,
        secret: &str,
        named: Named<'_>,
    ) -> Result<Option<(ApiKey, RelyingParty, Known)>, Error> {
        let (hash, now) = (token_hash(secret), self.clock.now());
        let found = match named {
            Named::Token(text) if text.starts_with(session::OPAQUE) => {
                let token = token_hash(text);
                self.enter_session(&hash, Which::Token(&token), now).await?
            }
            Named::Session(id) => self.enter_session(&hash, Which::Id(id), now).await?,
            Named::Nothing | Named::Token(_) => {
                self.store.api_key(&hash, now).await?.map(|(key, rp)| (key, rp, Known::Nothing))
            }
            Named::User(user_id) => {
                let found = self.store.enter(&hash, user_id, now).await?;
                found.map(|(key, rp, dossier)| (key, rp, Known::User(Arc::new(dossier))))
            }
            Named::Challenge(id) => {
                let found = self.store.enter_case(&hash, id, now).await?;
                found.map(|(key, rp, case)| (key, rp, Known::Case(Arc::new(case))))
            }
        };
        let found = found.filter(|(key, _, _)| key.is_live(now));
        if let Some((key, _, _)) = &found {
            self.note_use(key, now);
        }
        Ok(found)
    }

    async fn enter_session(
        &self,
        hash: &[u8],
        which: Which<'_>,
        now: Timestamp,
    ) -> Result<Option<(ApiKey, RelyingParty, Known)>, Error> {
        let found = self.store.enter_session(hash, which, now).await?;
        Ok(found.map(|(key, rp, session)| (key, rp, Known::Session(Arc::new(session)))))
    }

    /// Notes the use of a key beside the call, once a minute. Nothing depends on it.
    fn note_use(&self, key: &ApiKey, now: Timestamp) {
        let noted = now.plus_seconds(-KEY_USE);
        if key.last_used_at.is_some_and(|at| at >= noted) {
            return;
        }
        let (store, id) = (self.store.clone(), key.id.clone());
        tokio::spawn(async move {
            if let Err(error) = store.note_key_use(&id, now, noted).await {
                tracing::debug!(%error, key = %id, "the use of a key was not noted");
            }
        });
    }

    /// Whether any relying party registered this origin.
    pub async fn knows_origin(&self, origin: &str) -> Result<bool, Error> {
        Ok(self.store.has_origin(origin).await?)
    }

    /// A value that only this engine can derive from a browser's cookie: what its forms carry against forgery.
    pub fn form_guard(&self, cookie: &str) -> String {
        hex(&self.vault.keyed_hash("form-guard", &[cookie.as_bytes()])[..16])
    }

    /// Ends all connections, after what is under way.
    pub async fn close(&self) {
        self.couriers.end().await;
        self.store.close().await;
    }

    /// Origins from which a ceremony of this relying party may come: its own, and the engine's where the RP ID covers it.
    pub fn origins(&self, rp: &RelyingParty) -> Vec<String> {
        let mut origins = rp.origins.clone();
        if rp.covers(&self.host) && !origins.contains(&self.origin) {
            origins.push(self.origin.clone());
        }
        origins
    }

    fn parties(&self, rp: &Arc<RelyingParty>, user: User, purpose: String) -> Parties {
        Parties { rp: Arc::clone(rp), origins: self.origins(rp), user, purpose }
    }

    /// What is known of the user whom a call names; as it was read with the caller's key, where it was.
    async fn dossier(&self, at: &Moment<'_>, caller: &Caller, user_id: &str) -> Result<Dossier, Error> {
        match &caller.known {
            Known::User(dossier) => Ok((**dossier).clone()),
            _ => Ok(self.store.dossier(&caller.rp.id, user_id, at.now).await?),
        }
    }

    /// The user as known, or as one would be who was never named: nothing tells the two apart.
    async fn user_or_new(&self, at: &Moment<'_>, rp: &Id, user_id: &str) -> Result<User, Error> {
        Ok(self.store.user(rp, user_id).await?.unwrap_or_else(|| unnamed(at, user_id)))
    }

    fn event(&self, at: &Moment<'_>, caller: &Caller, kind: &'static str, user_id: Option<&str>) -> Event {
        Event {
            user_id: user_id.map(str::to_owned),
            client: caller.client.clone(),
            key_id: caller.key_id.clone(),
            request_id: Some(caller.request_id.clone()),
            ..Event::new(at, &caller.rp.id, kind, caller.actor)
        }
    }

    fn factor_event(&self, at: &Moment<'_>, caller: &Caller, kind: &'static str, factor: &Factor) -> Event {
        Event {
            method: Some(factor.kind),
            factor_id: Some(factor.id.clone()),
            ..self.event(at, caller, kind, Some(&factor.user_id))
        }
    }
}

/// A user as one would be who was never named.
fn unnamed(at: &Moment<'_>, user_id: &str) -> User {
    User::unnamed(user_id, at.random(), at.now)
}
