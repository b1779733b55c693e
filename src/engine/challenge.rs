//! Opening a challenge, preparing a response to it, calling it off.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::limits::judged;
use super::sending::Occasion;
use super::session::may_be_exchanged;
use super::verification::EXCHANGE_LIFE;
use super::{Answered, Caller, Clash, Ending, Engine, Error, Given, Gone, Issued, Offer, unnamed};
use crate::methods::{Shown, webauthn};
use crate::model::{Challenge, ChallengeStatus, Factor, Id, MethodKind, Moment, Prompt, Terms, Timestamp};
use crate::policy::requirement;
use crate::store::{self, Dossier, Store};
use crate::token::ClientToken;
use crate::vault::token_hash;

/// How long a challenge is open, in seconds.
pub const LIFE: i64 = 600;
/// How many answers it takes.
pub const ATTEMPTS: i64 = 5;

/// Why a challenge was approved as it was made: by the answer that came with it.
pub(super) const BY_ANSWER: &str = "answer";
/// By an earlier session.
const BY_SESSION: &str = "fresh_session";

/// A challenge that a caller wants.
pub struct NewChallenge {
    /// Of whom the proof is asked.
    pub user_id: String,
    /// For what.
    pub terms: Terms,
    /// An earlier session that may let it through.
    pub session_token: Option<String>,
    /// The answer, where the caller has it already.
    pub answer: Option<Given>,
    /// The caller may let factors be added.
    pub may_enrol: bool,
}

/// A challenge that is open; its secrets leave once.
pub struct Open {
    /// The challenge.
    pub challenge: Challenge,
    /// How it may be answered.
    pub offers: Vec<Offer>,
    /// The secret of its page's address.
    pub link_token: Zeroizing<String>,
    /// For calls from a browser.
    pub client_token: String,
}

/// What became of the wish.
pub enum Created {
    /// It is open.
    Pending(Box<Open>),
    /// It was answered at once.
    Approved {
        /// The challenge.
        challenge: Arc<Challenge>,
        /// The session.
        issued: Box<Issued>,
        /// `fresh_session` or `answer`.
        reason: &'static str,
    },
    /// The user has nothing that would do.
    EnrolmentRequired {
        /// Methods of which one would.
        missing: Vec<MethodKind>,
        /// A challenge on whose way the person sets one up.
        open: Option<Box<Open>>,
    },
}

impl Engine {
    /// Opens a challenge, or lets it through on an earlier session, or judges the answer that came with it.
    pub async fn create_challenge(&self, caller: &Caller, new: NewChallenge) -> Result<Created, Answered> {
        let at = self.moment();
        let NewChallenge { user_id, mut terms, session_token, answer, may_enrol } = new;
        // The relying party's name for the device is kept nowhere: it would be good for another's budget.
        terms.client.device = terms.client.device.map(|d| self.device_lane("server", &caller.rp.id, &user_id, &d));
        check_return(caller, &terms)?;
        let end = at.now.plus_seconds(LIFE);
        let challenge = Challenge::new(&at, &caller.rp.id, &user_id, terms, ATTEMPTS, end);
        // An answer is judged whatever else would do: a wrong one is never let through.
        if let (Some(token), None) = (&session_token, &answer)
            // On the heap, as what opens one below: who answers at once would carry their room.
            && let Some(created) = Box::pin(self.let_through(&at, caller, &challenge, token)).await?
        {
            return Ok(created);
        }
        let dossier = self.dossier(&at, caller, &challenge.user_id).await?;
        let offers = self.offers_of(caller, &challenge, &dossier, at.now)?;
        if offers.is_empty() {
            let missing = self.missing(&challenge.terms);
            if answer.is_some() || !may_enrol || !self.would_do(&challenge.terms, &missing) {
                return Ok(Created::EnrolmentRequired { missing, open: None });
            }
            let mut open = open(&at, challenge, Vec::new());
            open.challenge.terms.enrol = true;
            let ending = Ending::EnrolmentRequired { missing: &missing, open: Some(&open) };
            self.save_open(&at, caller, &open, ending).await?;
            return Ok(Created::EnrolmentRequired { missing, open: Some(Box::new(open)) });
        }
        if let Some(given) = answer {
            let verdict = self.verify_at_once(&at, caller, &Arc::new(challenge), dossier, &given).await;
            let verdict = judged(given.kind, verdict)?;
            let issued = verdict.issued.expect("a server's verification issues a session");
            return Ok(Created::Approved { challenge: verdict.challenge, issued: Box::new(issued), reason: BY_ANSWER });
        }
        let open = open(&at, challenge, offers);
        self.save_open(&at, caller, &open, Ending::Opened(&open)).await?;
        Ok(Created::Pending(Box::new(open)))
    }

    async fn save_open(&self, at: &Moment<'_>, caller: &Caller, open: &Open, ending: Ending<'_>) -> Result<(), Error> {
        let store = self.keeping(at, caller, &open.challenge.user_id, ending);
        self.save_challenge(at, caller, &store, &open.challenge).await
    }

    pub(super) async fn save_challenge(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        store: &Store,
        challenge: &Challenge,
    ) -> Result<(), Error> {
        let mut event = self.event(at, caller, "challenge.created", Some(&challenge.user_id));
        event.challenge_id = Some(challenge.id.clone());
        event.client = event.client.or_else(|| Some(challenge.terms.client.clone()));
        Ok(store.create_challenge(challenge, &event).await?)
    }

    /// Approves on an earlier session, where that is the same user's, strong and young enough, and nothing needs to be seen.
    async fn let_through(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        challenge: &Challenge,
        token: &str,
    ) -> Result<Option<Created>, Error> {
        let terms = &challenge.terms;
        let Some(session) = self.session_of_token(at, caller, token).await? else { return Ok(None) };
        let same_user = session.user_id == challenge.user_id && terms.display.details.is_empty();
        let fresh =
            requirement::is_fresh(&session.grant, &terms.action, terms.binding.as_deref(), &terms.require, at.now);
        if !same_user || !fresh {
            return Ok(None);
        }
        let mut approved = challenge.clone();
        approved.status = ChallengeStatus::Approved;
        let approved = Arc::new(approved);
        let mut issued = self.inherited_session(at, &approved, &session);
        self.sign(at, &mut issued)?;
        let mut event = self.event(at, caller, "session.inherited", Some(&challenge.user_id));
        event.challenge_id = Some(challenge.id.clone());
        event.session_id = Some(issued.new.session.id.clone());
        let ending = Ending::Approved { challenge: &approved, issued: Some(&issued), reason: BY_SESSION };
        let store = self.keeping(at, caller, &challenge.user_id, ending);
        if !store::stood(store.inherit_session(&session.id, &issued.new, &event).await)? {
            return Ok(None);
        }
        Ok(Some(Created::Approved { challenge: approved, issued: Box::new(issued), reason: BY_SESSION }))
    }

    /// A challenge of this relying party, and how it may be answered.
    pub async fn shown(&self, at: &Moment<'_>, caller: &Caller, id: &Id) -> Result<(Challenge, Vec<Offer>), Error> {
        let (challenge, dossier) = self.case(at, caller, id, true).await?.ok_or(Error::NotFound)?;
        let offers = self.offers_of(caller, &challenge, &dossier, at.now)?;
        Ok((challenge, offers))
    }

    /// Asks for a response: a ceremony's options, or a text that is sent.
    pub async fn prepare(
        &self,
        caller: &Caller,
        id: &Id,
        kind: MethodKind,
        factor_id: Option<&Id>,
    ) -> Result<(Shown, Option<Prompt>), Answered> {
        let at = self.moment();
        let (challenge, dossier) = self.case(&at, caller, id, true).await?.ok_or(Error::NotFound)?;
        let left = challenge.attempts_left;
        let prepared = self.prepare_open(&at, caller, challenge, dossier, kind, factor_id).await;
        prepared.map_err(|error| Answered { error, attempts_left: Some(left) })
    }

    async fn prepare_open(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        challenge: Challenge,
        dossier: Dossier,
        kind: MethodKind,
        factor_id: Option<&Id>,
    ) -> Result<(Shown, Option<Prompt>), Error> {
        let (rp, user_id) = (&caller.rp.id, &challenge.user_id);
        is_open(&challenge, at.now)?;
        if !requirement::admits(&challenge.terms.action, &challenge.terms.require, kind) {
            return Err(Error::MethodNotAllowed);
        }
        let suits = |f: &Factor| {
            let asked = f.kind == kind && factor_id.is_none_or(|id| *id == f.id);
            asked && self.suffices(f, &challenge.terms, at.now)
        };
        let mut held = self.open_factors(at, caller, dossier.factors.into_iter().filter(suits).collect()).await?;
        if held.is_empty() {
            return Err(Error::MethodNotAllowed);
        }
        if kind == MethodKind::Sms {
            // Without a choice, the phone that was used last.
            held.sort_by_key(|h| std::cmp::Reverse(h.factor.last_used_at));
            held.truncate(1);
        }
        let user = dossier.user.unwrap_or_else(|| unnamed(at, user_id));
        let parties = self.parties(&caller.rp, user, purpose(&challenge.terms));
        let begun = self.methods.of(kind).begin_challenge(at, &*self.vault, &parties, &challenge.id, &held);
        let begun = begun.map_err(|refusal| match refusal {
            crate::methods::Refusal::NotAllowed => Error::MethodNotAllowed,
            other => Error::Refused(other),
        })?;
        if begun.text.is_some() {
            let factor = held.swap_remove(0).factor;
            self.take_place(at, caller, user_id).await?;
            let sent = self.send(at, caller, Occasion::Challenge, &challenge.id, &factor, begun).await;
            return sent.map(|(shown, prompt)| (shown, Some(prompt)));
        }
        let state = begun.state.as_ref().ok_or(Error::MethodNotAllowed)?;
        let end = at.now.plus_seconds(webauthn::CEREMONY).min(challenge.expires_at);
        let prompt = self.new_prompt(at, caller, user_id, &challenge.id, kind, state, end);
        let store = self.keeping(at, caller, user_id, Ending::Prepared(&begun.shown, Some(&prompt)));
        store.replace_prompt(rp, user_id, &prompt).await?;
        Ok((begun.shown, Some(prompt)))
    }

    /// Calls a challenge off.
    pub async fn cancel(&self, caller: &Caller, id: &Id) -> Result<Challenge, Error> {
        let at = self.moment();
        let (challenge, _) = self.case(&at, caller, id, true).await?.ok_or(Error::NotFound)?;
        is_open(&challenge, at.now)?;
        let mut event = self.event(&at, caller, "challenge.cancelled", Some(&challenge.user_id));
        event.challenge_id = Some(challenge.id.clone());
        let cancelled = Challenge { status: ChallengeStatus::Cancelled, ..challenge };
        let store = self.keeping(&at, caller, &cancelled.user_id, Ending::Cancelled(&cancelled));
        match store::stood(store.cancel_challenge(&cancelled, &event).await)? {
            true => Ok(cancelled),
            false => Err(Error::Clash(Clash::ChallengeNotPending)),
        }
    }

    /// A new one-time code for the browser that answered on the hosted page; `None` where another did, once it was exchanged, or
    /// where it may not be any more.
    pub async fn return_code(&self, challenge: &Challenge) -> Result<Option<String>, Error> {
        let at = self.moment();
        if !challenge.may_lead_back() || !may_be_exchanged(challenge, at.now) {
            return Ok(None);
        }
        let code = at.token();
        let end = at.now.plus_seconds(EXCHANGE_LIFE);
        let stood = store::stood(self.store.set_exchange_code(challenge, &token_hash(&code), end).await)?;
        Ok(stood.then_some(code))
    }
}

fn open(at: &Moment<'_>, challenge: Challenge, offers: Vec<Offer>) -> Open {
    let link_token = Zeroizing::new(at.token());
    let client_token = ClientToken { id: challenge.id.clone(), secret: Zeroizing::new(at.token()) };
    let challenge = Challenge {
        link_hash: Some(token_hash(&link_token)),
        client_token_hash: Some(token_hash(&client_token.secret)),
        ..challenge
    };
    Open { challenge, offers, link_token, client_token: client_token.text() }
}

/// A return address is registered, exactly, and comes with the guards of whoever opens the challenge.
fn check_return(caller: &Caller, terms: &Terms) -> Result<(), Error> {
    let Some(url) = &terms.return_url else { return Ok(()) };
    if !caller.rp.return_urls.contains(url) {
        return Err(Error::ReturnUrlNotAllowed);
    }
    if terms.state.is_none() {
        return Err(Error::Invalid { param: "state", why: "a return_url needs the state of the browser that starts" });
    }
    if terms.code_challenge.is_none() {
        return Err(Error::Invalid { param: "code_challenge", why: "a return_url needs an S256 code_challenge" });
    }
    Ok(())
}

/// What the person is about to do, in words that follow "to".
pub fn purpose(terms: &Terms) -> String {
    match terms.display.label.as_deref().map(str::trim).filter(|label| !label.is_empty()) {
        Some(label) => {
            let mut letters = label.chars();
            match (letters.next(), letters.next()) {
                // No abbreviation.
                (Some(first), second) if !second.is_some_and(char::is_uppercase) => {
                    first.to_lowercase().chain(label.chars().skip(1)).collect()
                }
                _ => label.to_owned(),
            }
        }
        None if terms.action == requirement::LOGIN => "sign in".to_owned(),
        None if terms.action.starts_with(requirement::FACTOR_ACTIONS) => "change your sign-in methods".to_owned(),
        None => "continue".to_owned(),
    }
}

/// Whether a challenge may still be answered.
pub(super) fn is_open(challenge: &Challenge, now: Timestamp) -> Result<(), Error> {
    match challenge.status_at(now) {
        ChallengeStatus::Pending => Ok(()),
        ChallengeStatus::Expired => Err(Error::Gone(Gone::Challenge)),
        ChallengeStatus::Approved | ChallengeStatus::Denied | ChallengeStatus::Cancelled => {
            Err(Error::Clash(Clash::ChallengeNotPending))
        }
    }
}
