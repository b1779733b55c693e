//! Judging one response to a challenge: one transaction and one commit whatever the outcome, and no verdict before it.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::challenge::is_open;
use super::error::reason;
use super::limits::{Lane, device_of, judged, lane_of};
use super::{Answered, Caller, Ending, Engine, Error, Issued, Known, unnamed};
use crate::methods::{Answer, Exam, Fault, Held, Parties, Proven, Refusal, Spent};
use crate::model::{
    Challenge, ChallengeStatus, Details, Event, Evidence, Factor, Id, MethodKind, Moment, Prompt, Proof, RecoverySet,
    RecoveryStatus,
};
use crate::policy::{assurance, requirement};
use crate::store::{self, ChallengeChange, Contest, Dossier, FactorChange, Settlement};
use crate::vault::token_hash;

/// How often a verdict is computed anew because somebody else moved the throttle or the credential on. Every round that is
/// lost is one that another request won, so a pause is reached long before.
const ROUNDS: usize = 64;
/// How long a one-time code may be exchanged, in seconds.
pub(super) const EXCHANGE_LIFE: i64 = 60;
/// A response to a challenge.
#[derive(Clone)]
pub struct Given {
    /// Of which method.
    pub kind: MethodKind,
    /// What came.
    pub answer: Answer,
    /// By which factor, where the caller says.
    pub factor_id: Option<Id>,
}

/// How the session reaches the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// At once: the relying party's server asked.
    Session,
    /// To the visit of the portal that asked for it, in this browser.
    Visit,
    /// By a one-time code that the answering browser carries back.
    Code,
    /// By a code that the hosted page asks for when it returns.
    Page,
}

/// A right answer.
pub struct Verdict {
    /// The challenge as it stands now.
    pub challenge: Arc<Challenge>,
    /// For [`Delivery::Session`] and [`Delivery::Visit`].
    pub issued: Option<Issued>,
    /// For [`Delivery::Code`].
    pub code: Option<String>,
}

/// What one verdict depends on, as read.
pub(super) struct Case {
    pub challenge: Arc<Challenge>,
    /// The challenge is only written with this verdict, if it is right.
    pub fresh: bool,
    pub parties: Arc<Parties>,
    pub factors: Vec<Factor>,
    /// An active factor of whatever kind: who is erased has none.
    pub holds: Option<Id>,
    pub lane: Lane,
    pub prompt: Option<Prompt>,
    pub recovery: Option<RecoverySet>,
}

impl Engine {
    /// Judges a response to an open challenge.
    pub async fn verify(
        &self,
        caller: &Caller,
        id: &Id,
        given: &Given,
        delivery: Delivery,
    ) -> Result<Verdict, Answered> {
        judged(given.kind, self.verify_in_rounds(caller, id, given, delivery).await)
    }

    async fn verify_in_rounds(
        &self,
        caller: &Caller,
        id: &Id,
        given: &Given,
        delivery: Delivery,
    ) -> Result<Verdict, Answered> {
        let at = self.moment();
        let mut attempts_left = None;
        for round in 0..ROUNDS {
            let found = self.case(&at, caller, id, round == 0).await;
            let found = found.map_err(|error| Answered { error, attempts_left })?;
            let (challenge, dossier) = found.ok_or(Error::NotFound)?;
            attempts_left = Some(challenge.attempts_left);
            let round = async {
                let case = self.read_case(&at, caller, Arc::new(challenge), dossier, given).await?;
                self.decide(&at, caller, case, given, delivery).await
            };
            match round.await {
                Err(Answered { error: Error::Store(store::Error::Conflict(_)), .. }) => {}
                Err(refused) => {
                    return Err(Answered { attempts_left: refused.attempts_left.or(attempts_left), ..refused });
                }
                verdict => return verdict,
            }
        }
        Err(Answered { error: Error::Busy(1), attempts_left })
    }

    /// The challenge that a call names and what is known of its user; in a first try as it was read with the caller's key.
    pub(super) async fn case(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        id: &Id,
        first: bool,
    ) -> Result<Option<(Challenge, Dossier)>, Error> {
        match &caller.known {
            Known::Case(case) if first && case.as_ref().as_ref().is_none_or(|(c, _)| c.id == *id) => {
                Ok((**case).clone())
            }
            _ => Ok(self.store.case(&caller.rp.id, id, at.now).await?),
        }
    }

    /// Judges the answer that came with the call that would create the challenge.
    pub(super) async fn verify_at_once(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        challenge: &Arc<Challenge>,
        mut dossier: Dossier,
        given: &Given,
    ) -> Result<Verdict, Answered> {
        for _ in 0..ROUNDS {
            let round = async {
                let mut case = self.read_case(at, caller, Arc::clone(challenge), dossier, given).await?;
                case.fresh = true;
                self.decide(at, caller, case, given, Delivery::Session).await
            };
            match round.await {
                Err(Answered { error: Error::Store(store::Error::Conflict(_)), .. }) => {
                    dossier = self.store.dossier(&caller.rp.id, &challenge.user_id, at.now).await?;
                }
                Err(refused) => return Err(refused.error.into()),
                verdict => return verdict,
            }
        }
        Err(Error::Busy(1).into())
    }

    /// Takes from what was read what the verdict depends on, and refuses early what is over, not offered, malformed or paused.
    async fn read_case(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        challenge: Arc<Challenge>,
        dossier: Dossier,
        given: &Given,
    ) -> Result<Box<Case>, Error> {
        let (terms, kind) = (&challenge.terms, given.kind);
        is_open(&challenge, at.now)?;
        let lane = lane_of(&dossier.throttles, &dossier.factors, device_of(caller, &challenge), at.now)?;
        let Dossier { user, mut factors, prompts, recovery, .. } = dossier;
        let holds = factors.iter().find(|f| f.is_active()).map(|f| f.id.clone());
        factors.retain(|f| f.kind == kind && self.suffices(f, terms, at.now));
        let has_codes =
            kind == MethodKind::RecoveryCode && recovery.is_some_and(|r| r.status == RecoveryStatus::Active);
        // A passkey that was removed since its ceremony began is judged, as one that nobody knows: a browser can be told so.
        let is_asked =
            kind == MethodKind::Webauthn && prompts.iter().any(|p| p.method == kind && at.now < p.expires_at);
        if (factors.is_empty() && !has_codes && !is_asked) || !requirement::admits(&terms.action, &terms.require, kind)
        {
            return Err(Error::MethodNotAllowed);
        }
        if let Some(wanted) = &given.factor_id {
            factors.retain(|f| f.id == *wanted);
            if factors.is_empty() {
                return Err(Error::MethodNotAllowed);
            }
        }
        self.methods.of(kind).check_form(&given.answer)?;
        lane.check(kind, at.now)?;
        let prompt = prompts.into_iter().find(|p| p.method == kind && at.now < p.expires_at);
        if let Some(sent_to) = prompt.as_ref().and_then(|p| p.factor_id.as_ref()) {
            factors.retain(|f| f.id == *sent_to);
        }
        let recovery = match has_codes {
            true => self.store.recovery_set(&caller.rp.id, &challenge.user_id).await?,
            false => None,
        };
        self.know_pepper(recovery.as_ref()).await?;
        let user = user.unwrap_or_else(|| unnamed(at, &challenge.user_id));
        let parties = Arc::new(self.parties(&caller.rp, user, String::new()));
        Ok(Box::new(Case { challenge, fresh: false, parties, factors, holds, lane, prompt, recovery }))
    }

    /// Judges, settles, and lets the verdict leave.
    async fn decide(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        case: Box<Case>,
        given: &Given,
        delivery: Delivery,
    ) -> Result<Verdict, Answered> {
        let user_id = &case.challenge.user_id;
        let state = self.open_prompt(at, caller, user_id, case.prompt.as_ref()).await?;
        let held = self.open_factors(at, caller, case.factors.clone()).await?;
        let closed = held.is_empty() && !case.factors.is_empty();
        let why = |refusal| if closed { "factor_unreadable" } else { reason(refusal) };
        let refusal = match self.judge(at, &case, given, held, state).await? {
            // On the heap, as what settles a refusal below: every round of every caller would carry them.
            Ok(proven) => match Box::pin(self.settle_right(at, caller, &case, given, proven, delivery)).await {
                Err(Error::Store(store::Error::Conflict(Contest::Prompt))) => Refusal::Replayed,
                Err(Error::Store(store::Error::Conflict(Contest::RecoveryCode))) => Refusal::Wrong(Fault::Code),
                settled => return Ok(settled?),
            },
            Err(refusal) => refusal,
        };
        Box::pin(self.settle_refused(at, caller, &case, given, refusal, why)).await
    }

    async fn judge(
        &self,
        at: &Moment<'_>,
        case: &Case,
        given: &Given,
        held: Vec<Held>,
        state: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Result<Proven, Refusal>, Error> {
        let exam = Exam {
            now: at.now,
            parties: Arc::clone(&case.parties),
            owner: case.challenge.id.clone(),
            held,
            state,
            recovery: case.recovery.clone(),
            answer: given.answer.clone(),
            keyed: self.vault.clone(),
        };
        let kind = given.kind;
        if !self.methods.of(kind).is_costly() {
            return Ok(self.methods.of(kind).verify(&exam));
        }
        let methods = Arc::clone(&self.methods);
        self.costly(move || methods.of(kind).verify(&exam)).await
    }

    async fn settle_right(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        case: &Case,
        given: &Given,
        proven: Proven,
        delivery: Delivery,
    ) -> Result<Verdict, Error> {
        let challenge = &case.challenge;
        let factor_id = proven.spent.factor().cloned();
        let factor = case.factors.iter().find(|f| Some(&f.id) == factor_id.as_ref());
        let cooling_off = factor.is_some_and(|f| assurance::is_cooling_off(f.activated_at, self.cool_off, at.now));
        let proof = Proof {
            method: given.kind,
            factor_id,
            evidence: Evidence { cooling_off, ..proven.evidence },
            at: at.now,
            by_client_token: delivery == Delivery::Code,
        };
        let (status, proven_by) = (ChallengeStatus::Approved, Some(proof.clone()));
        let approved = Arc::new(Challenge { status, proof: proven_by, ..Challenge::clone(challenge) });

        let mut issued = match delivery {
            Delivery::Session | Delivery::Visit => Some(self.new_session(at, &approved, &proof, case.fresh)),
            Delivery::Code | Delivery::Page => None,
        };
        // Signed before the commit where the answer is kept with it, otherwise while it is under way; what goes wrong is only said
        // after it.
        let kept = caller.once.is_some();
        let sign = |issued: Option<&mut Issued>| issued.map_or(Ok(()), |issued| self.sign(at, issued));
        let before = if kept { sign(issued.as_mut()) } else { Ok(()) };
        let code = (delivery == Delivery::Code).then(|| at.token());
        let code_kept = code.as_ref().map(|c| (token_hash(c), at.now.plus_seconds(EXCHANGE_LIFE)));

        let mut event = self.verdict_event(at, caller, case, given, "verification.succeeded");
        event.factor_id = proof.factor_id.clone();
        event.session_id = issued.as_ref().map(|i| i.new.session.id.clone());
        event.reason = moved_backup(&case.factors, &proven.spent).then_some("backup_state_changed");

        let settlement = Settlement {
            throttle: case.lane.right(given.kind, at.now),
            device: case.lane.device(),
            challenge: match case.fresh {
                true => ChallengeChange::None,
                false => ChallengeChange::Approve(challenge.id.clone(), proof, code_kept),
            },
            prompt: case.prompt.as_ref().map(|p| (challenge.id.clone(), p.method, p.id.clone())),
            factor: Some(self.spend(at, &caller.rp.id, &challenge.user_id, proven.spent)),
            session: issued.as_ref().map(|i| Arc::clone(&i.new)),
            visit: challenge.terms.portal.as_ref().filter(|_| delivery == Delivery::Visit).map(|p| p.id.clone()),
            ..Settlement::telling(event)
        };
        let mut verdict = Verdict { issued, code, challenge: approved };
        let ending = match case.fresh {
            true => Ending::Approved {
                challenge: &verdict.challenge,
                issued: verdict.issued.as_ref(),
                reason: super::challenge::BY_ANSWER,
            },
            false => Ending::Verified(&verdict),
        };
        let store = self.keeping(at, caller, &challenge.user_id, ending);
        let signing = async { if kept { before } else { sign(verdict.issued.as_mut()) } };
        let (settled, signed) = tokio::join!(biased; self.settle(&store, settlement), signing);
        match settled {
            Err(store::Error::Conflict(Contest::Visit)) => return Err(Error::NotFound),
            settled => settled?,
        }
        signed?;
        Ok(verdict)
    }

    /// Charges what the refusal costs, and only then says so: a wrong proof the throttle and the challenge, a replay the
    /// challenge alone, anything else nothing.
    async fn settle_refused(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        case: &Case,
        given: &Given,
        refusal: Refusal,
        why: impl Fn(Refusal) -> &'static str,
    ) -> Result<Verdict, Answered> {
        let wrong = matches!(refusal, Refusal::Wrong(_));
        if !wrong && refusal != Refusal::Replayed {
            return Err(Error::Refused(refusal).into());
        }
        let event = self.verdict_event(at, caller, case, given, "verification.failed").failed(why(refusal));
        let burns = given.kind == MethodKind::Webauthn;
        let throttle = case.lane.wrong(given.kind, at.now).filter(|_| wrong);
        // Where no row is charged that was there before, one has to say that the user was not erased meanwhile (V-05).
        let unguarded = case.fresh && throttle.as_ref().is_none_or(|lane| lane.version == 0);
        let mut settlement = Settlement {
            throttle,
            factor: case.holds.clone().filter(|_| unguarded).map(FactorChange::Held),
            challenge: match case.fresh {
                true => ChallengeChange::None,
                false => ChallengeChange::Charge(case.challenge.id.clone(), case.challenge.attempts_left),
            },
            prompt: case.prompt.as_ref().filter(|_| burns).map(|p| (case.challenge.id.clone(), p.method, p.id.clone())),
            ..Settlement::telling(event)
        };
        let left = case.challenge.attempts_left - 1;
        let refused = Answered { error: Error::Refused(refusal), attempts_left: (!case.fresh).then_some(left) };
        let store = self.keeping(at, caller, &case.challenge.user_id, Ending::Refused(&refused));
        match self.settle(&store, settlement.clone()).await {
            Err(store::Error::Conflict(Contest::Prompt)) => {
                settlement.prompt = None;
                self.settle(&store, settlement).await?;
            }
            settled => settled?,
        }
        Err(refused)
    }

    /// What a right proof uses up, sealed for its row.
    fn spend(&self, at: &Moment<'_>, rp: &Id, user_id: &str, spent: Spent) -> FactorChange {
        match spent {
            Spent::Step { factor, step } => FactorChange::Step(factor, step),
            Spent::Credential { factor, version, secret, details } => FactorChange::Credential {
                sealed: self.vault.seal(at, super::factor_row(rp, user_id, &factor), &secret),
                id: factor,
                version,
                details,
            },
            Spent::SentCode { factor } => FactorChange::Used(factor),
            Spent::RecoveryCode { set, hash } => FactorChange::RecoveryCode(set, hash),
        }
    }

    fn verdict_event(&self, at: &Moment<'_>, caller: &Caller, case: &Case, given: &Given, kind: &'static str) -> Event {
        let mut event = self.event(at, caller, kind, Some(&case.challenge.user_id));
        event.method = Some(given.kind);
        event.challenge_id = Some(case.challenge.id.clone());
        event.client = event.client.or_else(|| Some(case.challenge.terms.client.clone()));
        event
    }
}

/// Whether a passkey began or ceased to be backed up since it was last used (WebAuthn L3, 7.2).
fn moved_backup(factors: &[Factor], spent: &Spent) -> bool {
    let Spent::Credential { factor, details: Details::Webauthn(new), .. } = spent else { return false };
    let before = factors.iter().find(|f| f.id == *factor).map(|f| &f.details);
    matches!(before, Some(Details::Webauthn(old)) if old.backed_up != new.backed_up)
}
