//! Step-up sessions: issued, inherited, exchanged, introspected, ended.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::verification::EXCHANGE_LIFE;
use super::{Caller, Clash, Ending, Engine, Error, Gone, Known};
use crate::methods::{Fault, Refusal};
use crate::model::{Challenge, ChallengeStatus, Grant, Id, Kind, Moment, Proof, Requirement, Session, Timestamp};
use crate::policy::{assurance, requirement};
use crate::store::{self, Contest, NewSession};
use crate::token;
use crate::vault::{same, token_hash};

/// How long a step-up session lasts, in seconds from its proof (S-04). It does not slide.
pub const LIFE: i64 = 600;
/// How an opaque token begins; any other text is read as a JWT.
pub(super) const OPAQUE: &str = "st_";

/// A session on its way out: its token is seen once.
pub struct Issued {
    /// What is kept.
    pub new: Arc<NewSession>,
    /// The opaque token.
    pub token: Zeroizing<String>,
    /// The JWT; `None` for single-use sessions, and until it is signed.
    pub jwt: Option<String>,
}

/// What a service asks of a token.
pub struct Question {
    /// Opaque token or JWT.
    pub token: String,
    /// The action about to be done.
    pub action: Option<String>,
    /// What the action demands.
    pub require: Requirement,
    /// Use it up, if it satisfies.
    pub consume: bool,
}

/// What a service learns of a token.
pub enum Introspection {
    /// Unknown, foreign, run out, revoked or consumed.
    Inactive,
    /// A session, and what it lacks for the question.
    Active {
        /// The session.
        session: Box<Session>,
        /// Empty where it satisfies.
        missing: Vec<&'static str>,
        /// RFC 9470, where a stronger or newer proof would help.
        www_authenticate: Option<String>,
    },
}

impl Engine {
    /// A session that this proof earns, `at_once` where the challenge is approved in the call that makes it; nothing is written yet.
    pub(super) fn new_session(
        &self,
        at: &Moment<'_>,
        challenge: &Arc<Challenge>,
        proof: &Proof,
        at_once: bool,
    ) -> Issued {
        let terms = &challenge.terms;
        let grant = Grant {
            action: terms.action.clone(),
            acr: assurance::acr(&proof.evidence),
            amr: assurance::amr(&proof.evidence),
            method: proof.method,
            auth_time: proof.at,
            single_use: terms.single_use,
            audience: terms.audience.clone(),
            binding: terms.binding.clone(),
            context: token::context(&terms.display.details),
            challenge_id: challenge.id.clone(),
        };
        let end = proof.at.plus_seconds(LIFE);
        self.unsaved(at, challenge, grant, proof.factor_id.clone(), end, at_once)
    }

    /// A session that inherits an earlier proof; it ends no later than the proof's age allows.
    pub(super) fn inherited_session(&self, at: &Moment<'_>, challenge: &Arc<Challenge>, from: &Session) -> Issued {
        let terms = &challenge.terms;
        let grant = Grant {
            action: terms.action.clone(),
            single_use: terms.single_use,
            audience: terms.audience.clone(),
            binding: terms.binding.clone(),
            context: None,
            challenge_id: challenge.id.clone(),
            ..from.grant.clone()
        };
        let age = terms.require.max_age.unwrap_or(requirement::DEFAULT_MAX_AGE);
        let end = at.now.plus_seconds(LIFE).min(grant.auth_time.plus_seconds(age));
        self.unsaved(at, challenge, grant, from.factor_id.clone(), end, true)
    }

    fn unsaved(
        &self,
        at: &Moment<'_>,
        challenge: &Arc<Challenge>,
        grant: Grant,
        factor_id: Option<Id>,
        end: Timestamp,
        at_once: bool,
    ) -> Issued {
        let token = token::opaque(OPAQUE, at);
        let session = Session {
            id: if at_once { challenge.id.sibling(Kind::Session) } else { Id::new(Kind::Session, at) },
            rp_id: challenge.rp_id.clone(),
            user_id: challenge.user_id.clone(),
            grant,
            factor_id,
            created_at: at.now,
            expires_at: end,
            ended_at: None,
            added_at: None,
            removed_at: None,
        };
        let challenge = at_once.then(|| Arc::clone(challenge));
        let new = Arc::new(NewSession { session, token_hash: token_hash(&token), challenge });
        Issued { new, token, jwt: None }
    }

    /// Signs a session that is about to stand.
    pub(super) fn sign(&self, at: &Moment<'_>, issued: &mut Issued) -> Result<(), Error> {
        issued.jwt = self.signed(at, &issued.new.session)?;
        Ok(())
    }

    /// The JWT of a session of which an answer was kept, signed anew; `None` once the session has ended.
    pub async fn signed_again(&self, rp: &Id, id: &Id) -> Result<Option<String>, Error> {
        let at = self.moment();
        match self.store.session(rp, id).await?.filter(|s| s.is_active(at.now)) {
            Some(session) => self.signed(&at, &session),
            None => Ok(None),
        }
    }

    fn signed(&self, at: &Moment<'_>, session: &Session) -> Result<Option<String>, Error> {
        self.signer.sign(session, at.now).map_err(|error| {
            tracing::error!(%error, "cannot sign");
            Error::Store(store::Error::Unavailable("no signing key".to_owned()))
        })
    }

    /// Spends the one-time code that the answering browser carried back.
    pub async fn exchange(
        &self,
        caller: &Caller,
        id: &Id,
        code: &str,
        verifier: Option<&str>,
    ) -> Result<Issued, Error> {
        let at = self.moment();
        let (challenge, _) = self.case(&at, caller, id, true).await?.ok_or(Error::NotFound)?;
        let challenge = Arc::new(challenge);
        let proof = match (challenge.status_at(at.now), &challenge.proof) {
            (ChallengeStatus::Approved, Some(proof)) => proof,
            (ChallengeStatus::Expired, _) => return Err(Error::Gone(Gone::Challenge)),
            (ChallengeStatus::Pending, _) => return Err(Refusal::Wrong(Fault::Code).into()),
            _ => return Err(Error::Clash(Clash::ChallengeNotPending)),
        };
        let unfit = |why| Error::Invalid { param: "code_verifier", why };
        match (&challenge.terms.code_challenge, verifier) {
            (None, None) => {}
            (Some(_), None) => return Err(unfit("the challenge was created with a code_challenge")),
            // RFC 9700, 2.1.1: else whoever took the code_challenge away would not be noticed.
            (None, Some(_)) => return Err(unfit("the challenge was created without a code_challenge")),
            (Some(expected), Some(verifier)) => {
                if !same(token::code_challenge(verifier).as_bytes(), expected.as_bytes()) {
                    return Err(Refusal::Wrong(Fault::Code).into());
                }
            }
        }
        match refused_code(&challenge, code, at.now) {
            Some(wrong @ Refusal::Wrong(_)) => return Err(wrong.into()),
            _ if challenge.exchanged_at.is_some() => return Err(Error::CodeReused),
            _ if !may_be_exchanged(&challenge, at.now) => return Err(Error::Gone(Gone::Challenge)),
            Some(refusal) => return Err(refusal.into()),
            None => {}
        }
        let mut issued = self.new_session(&at, &challenge, proof, false);
        self.sign(&at, &mut issued)?;
        let mut event = self.event(&at, caller, "session.created", Some(&challenge.user_id));
        event.challenge_id = Some(challenge.id.clone());
        event.session_id = Some(issued.new.session.id.clone());
        event.method = Some(proof.method);
        let store = self.keeping(&at, caller, &challenge.user_id, Ending::Exchanged(&issued));
        match store.exchange(&challenge, &token_hash(code), &issued.new, &event).await {
            Ok(()) => Ok(issued),
            Err(store::Error::Conflict(Contest::Factor)) => Err(Error::Clash(Clash::ChallengeNotPending)),
            Err(store::Error::Conflict(_)) => Err(self.why_not_exchanged(&at, caller, id, code).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Of a code that was good when it was read.
    async fn why_not_exchanged(&self, at: &Moment<'_>, caller: &Caller, id: &Id, code: &str) -> Result<Error, Error> {
        let (challenge, _) = self.case(at, caller, id, false).await?.ok_or(Error::NotFound)?;
        if challenge.status != ChallengeStatus::Approved {
            return Ok(Error::Clash(Clash::ChallengeNotPending));
        }
        if challenge.exchanged_at.is_some() {
            return Ok(Error::CodeReused);
        }
        Ok(refused_code(&challenge, code, at.now).map_or(Error::Busy(1), Error::Refused))
    }

    /// Judges a token for an action, and uses it up where that was asked and it satisfies.
    pub async fn introspect(&self, caller: &Caller, question: &Question) -> Result<Introspection, Error> {
        let at = self.moment();
        let Some(session) = self.session_of_token(&at, caller, &question.token).await? else {
            return Ok(Introspection::Inactive);
        };
        let missing = requirement::missing(&session.grant, question.action.as_deref(), &question.require, at.now);
        if missing.is_empty() && question.consume {
            let mut event = self.event(&at, caller, "session.consumed", Some(&session.user_id));
            event.session_id = Some(session.id.clone());
            let ended = session.clone();
            let consumed = Introspection::Active { session: Box::new(session), missing, www_authenticate: None };
            let store = self.keeping(&at, caller, &ended.user_id, Ending::Introspected(&consumed));
            let stood = store::stood(store.end_session(&ended, &event).await)?;
            return Ok(if stood { consumed } else { Introspection::Inactive });
        }
        let would_help = missing.iter().any(|missing| *missing != requirement::ACTION);
        let www_authenticate = would_help.then(|| requirement::www_authenticate(&question.require));
        Ok(Introspection::Active { session: Box::new(session), missing, www_authenticate })
    }

    /// The active session behind an opaque token or a JWT of this relying party.
    pub(super) async fn session_of_token(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        text: &str,
    ) -> Result<Option<Session>, Error> {
        let rp = &caller.rp.id;
        let session = if let Known::Session(session) = &caller.known {
            (**session).clone()
        } else if text.starts_with(OPAQUE) {
            self.store.session_by_token(rp, &token_hash(text)).await?
        } else {
            let claims = self.read_token(at, text).await?;
            match claims.and_then(|c| Id::parse(Kind::Session, &c.sid)) {
                Some(id) => self.store.session(rp, &id).await?,
                None => None,
            }
        };
        Ok(session.filter(|s| s.is_active(at.now)))
    }

    /// One session of this relying party, active or not.
    pub async fn session(&self, caller: &Caller, id: &Id) -> Result<Session, Error> {
        if let Known::Session(known) = &caller.known
            && let Some(session) = known.as_ref().as_ref().filter(|session| session.id == *id)
        {
            return Ok(session.clone());
        }
        self.store.session(&caller.rp.id, id).await?.ok_or(Error::NotFound)
    }

    /// A user's active sessions, newest first.
    pub async fn sessions_of(
        &self,
        caller: &Caller,
        user_id: &str,
        cursor: Option<&Id>,
        limit: i64,
    ) -> Result<Vec<Session>, Error> {
        Ok(self.store.sessions_of(&caller.rp.id, user_id, self.moment().now, cursor, limit).await?)
    }

    /// Ends a session. One that has ended already stays so.
    pub async fn revoke_session(&self, caller: &Caller, id: &Id) -> Result<(), Error> {
        let at = self.moment();
        let session = self.session(caller, id).await?;
        let mut event = self.event(&at, caller, "session.revoked", Some(&session.user_id));
        event.session_id = Some(id.clone());
        store::stood(self.store.end_session(&session, &event).await)?;
        Ok(())
    }

    /// Ends every session of a user.
    pub async fn revoke_sessions_of(&self, caller: &Caller, user_id: &str) -> Result<(), Error> {
        let at = self.moment();
        let event = self.event(&at, caller, "session.all_revoked", Some(user_id));
        self.store.end_sessions_of(&caller.rp.id, user_id, &event).await?;
        Ok(())
    }
}

/// Whether a session may still come of an approved challenge: while one that began with its proof would last, and the proof is as new
/// as was demanded, if only the time that the way back takes. What was proven longer ago is proven anew.
pub(super) fn may_be_exchanged(challenge: &Challenge, now: Timestamp) -> bool {
    let demanded = challenge.terms.require.max_age.map_or(LIFE, |age| age.max(EXCHANGE_LIFE));
    challenge.proof.as_ref().is_some_and(|proof| now < proof.at.plus_seconds(demanded.min(LIFE)))
}

/// Why a code is not the challenge's, or no longer.
fn refused_code(challenge: &Challenge, code: &str, now: Timestamp) -> Option<Refusal> {
    match &challenge.code {
        Some((hash, end)) if same(hash, &token_hash(code)) => (now >= *end).then_some(Refusal::Expired),
        _ => Some(Refusal::Wrong(Fault::Code)),
    }
}
