//! From a wish to an active factor: pending first, active only once a first proof stands.

use std::sync::Arc;

use super::error::reason;
use super::inline;
use super::limits::enrolment_lane;
use super::pending::{LIFE, check_active, check_counts};
use super::portal::Manage;
use super::sending::Occasion;
use super::{Answered, Caller, Clash, Ending, Engine, Error, Gone, factor_row, unnamed};
use crate::methods::sms::number_of;
use crate::methods::{Answer, Enrolled, Exam, Fault, Refusal, Shown, Wish, totp, webauthn};
use crate::model::{Event, Factor, Id, Kind, MethodKind, Moment, Number, Prompt, User};
use crate::policy::requirement;
use crate::store::{self, Activation, ChallengeChange, Contest, FactorChange, Leave, SessionChange, Settlement};

/// How often a proof is judged anew because somebody else moved the throttle on.
const ROUNDS: usize = 64;

/// What a person wants to enrol.
pub struct Begin {
    /// Whose factor it will be.
    pub user_id: String,
    /// What.
    pub wish: Wish,
    /// Its name; a free one is found where there is none.
    pub name: Option<String>,
}

/// An enrolment that has begun.
pub struct Started {
    /// The pending factor.
    pub factor: Factor,
    /// What is shown once.
    pub shown: Shown,
    /// Of a phone: the code that was sent.
    pub prompt: Option<Prompt>,
}

impl Engine {
    /// Starts the enrolment of a new factor; an active one is never touched.
    pub async fn begin_enrolment(&self, caller: &Caller, begin: Begin) -> Result<Started, Error> {
        let at = self.moment();
        self.may_manage(&at, caller, &begin.user_id, Manage::Add).await?;
        let (rp, user_id, kind) = (&caller.rp.id, &begin.user_id, begin.wish.kind());
        // On the way to a challenge only what would do for it: another factor would close the way.
        if self.wanted(caller).await?.is_some_and(|wanted| !wanted.contains(&kind)) {
            return Err(Error::MethodNotAllowed);
        }
        if kind == MethodKind::Sms {
            self.take_place(&at, caller, user_id).await?;
        }
        let user = self.named_user(&at, rp, user_id).await?;
        let factors = self.store.factors(rp, user_id, at.now).await?;
        check_counts(&factors, kind, at.now)?;
        if let Wish::Sms(number) = &begin.wish
            && self.holds_number(&at, caller, &factors, number).await?
        {
            return Err(Error::Clash(Clash::FactorDuplicate));
        }
        let held = factors.into_iter().filter(|f| f.kind == kind && f.is_active()).collect();
        let held = self.open_factors(&at, caller, held).await?;
        let id = Id::new(Kind::Factor, &at);
        let parties = self.parties(&caller.rp, user, "add your phone".to_owned());
        let begun = self.methods.of(kind).begin_enrolment(&at, &*self.vault, &parties, &id, &begin.wish, &held)?;

        let secret = begun.secret.clone().unwrap_or_default();
        let sealed = self.vault.seal(&at, factor_row(rp, user_id, &id), &secret);
        let pending = Factor::new(id, user_id, kind, begun.details.clone(), at.now, at.now.plus_seconds(LIFE));
        let name = begin.name.clone().unwrap_or_else(|| pending.name.clone());
        let mut factor = Factor { name, sealed, ..pending };
        let end = at.now.plus_seconds(webauthn::CEREMONY);
        let ceremony = begun.state.as_ref().filter(|_| begun.text.is_none());
        let prompt = ceremony.map(|state| self.new_prompt(&at, caller, user_id, &factor.id, kind, state, end));
        let shown = begun.text.is_none().then_some(&begun.shown);
        self.create_pending(&at, caller, &mut factor, begin.name.is_none(), prompt, shown).await?;

        if begun.text.is_some() {
            let owner = factor.id.clone();
            return match self.send(&at, caller, Occasion::Enrolment, &owner, &factor, begun).await {
                Ok((shown, prompt)) => Ok(Started { factor, shown, prompt: Some(prompt) }),
                Err(error) => {
                    // Nothing was sent: nothing remains. Where nobody knows what was committed, a code that is there keeps it.
                    self.not_sent(&at, caller, &factor, &error).await?;
                    Err(error)
                }
            };
        }
        Ok(Started { factor, shown: begun.shown, prompt: None })
    }

    /// Sends another code for a pending phone; the earlier one dies.
    pub async fn resend(&self, caller: &Caller, user_id: &str, id: &Id) -> Result<Started, Error> {
        let at = self.moment();
        self.may_manage(&at, caller, user_id, Manage::Add).await?;
        let factor = self.pending(&at, caller, user_id, id).await?;
        if factor.kind != MethodKind::Sms {
            return Err(Error::MethodNotAllowed);
        }
        let user = self.user_or_new(&at, &caller.rp.id, user_id).await?;
        let parties = self.parties(&caller.rp, user, "add your phone".to_owned());
        let held = self.open_factor(&at, caller, factor.clone()).await?;
        let begun = self.methods.of(MethodKind::Sms).begin_challenge(&at, &*self.vault, &parties, id, &[held])?;
        self.take_place(&at, caller, user_id).await?;
        let (shown, prompt) = self.send(&at, caller, Occasion::Resend, id, &factor, begun).await?;
        Ok(Started { factor, shown, prompt: Some(prompt) })
    }

    /// What a pending authenticator app was shown, once more: for the page on which it began. `None` for whatever else it is, and
    /// `Gone` where it ran out.
    pub async fn show_again(&self, caller: &Caller, user_id: &str, id: &Id) -> Result<Option<Started>, Error> {
        let at = self.moment();
        let found = self.store.factor(&caller.rp.id, user_id, id).await?;
        let Some(factor) = found.filter(|f| f.kind == MethodKind::Totp && !f.is_active()) else { return Ok(None) };
        if !factor.is_pending(at.now) {
            return Err(Error::Gone(Gone::Enrolment));
        }
        let user = self.user_or_new(&at, &caller.rp.id, user_id).await?;
        let parties = self.parties(&caller.rp, user, String::new());
        let held = self.open_factors(&at, caller, vec![factor.clone()]).await?.pop();
        Ok(held.map(|h| Started { shown: totp::set_up(&parties, &h.secret), factor, prompt: None }))
    }

    /// The number of a pending phone, in full: for the page on which it was typed.
    pub async fn typed_number(&self, caller: &Caller, factor: &Factor) -> Result<Option<Number>, Error> {
        let held = self.open_factors(&self.moment(), caller, vec![factor.clone()]).await?;
        Ok(held.first().and_then(number_of))
    }

    /// Judges the first proof of a pending factor.
    pub async fn activate(&self, caller: &Caller, user_id: &str, id: &Id, answer: &Answer) -> Result<Factor, Error> {
        let at = self.moment();
        for _ in 0..ROUNDS {
            match self.activate_once(&at, caller, user_id, id, answer).await {
                // The challenge on whose way it was set up awaits no answer any more.
                Err(Error::Store(store::Error::Conflict(Contest::Challenge))) => {
                    return Err(Error::Clash(Clash::ChallengeNotPending));
                }
                // A lost row of a unique credential is one of these too: the next round finds its holder.
                Err(Error::Store(store::Error::Conflict(_))) => {}
                settled => return settled,
            }
        }
        Err(Error::Busy(1))
    }

    async fn activate_once(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        user_id: &str,
        id: &Id,
        answer: &Answer,
    ) -> Result<Factor, Error> {
        let rp = &caller.rp.id;
        // Before it is asked what the caller may do: whatever is added from now on moves the lane.
        let dossier = self.store.dossier(rp, user_id, at.now).await?;
        let leave = self.may_manage(at, caller, user_id, Manage::Add).await?;
        let factor = self.pending(at, caller, user_id, id).await?;
        let method = self.methods.of(factor.kind);
        match (factor.kind, answer) {
            (MethodKind::Webauthn, Answer::Code(_)) => {
                return Err(Error::Invalid { param: "code", why: "a passkey is proven by its credential" });
            }
            (MethodKind::Totp | MethodKind::Sms | MethodKind::RecoveryCode, Answer::Credential(_)) => {
                return Err(Error::Invalid { param: "credential", why: "this factor is proven by a code" });
            }
            _ => method.check_form(answer)?,
        }
        let lane = enrolment_lane(&dossier.throttles)?;
        lane.check(factor.kind, at.now)?;
        check_active(&dossier.factors, factor.kind)?;
        let prompt = self.store.prompt(rp, user_id, id, factor.kind).await?.filter(|p| at.now < p.expires_at);
        let held = self.open_factor(at, caller, factor.clone()).await?;
        if factor.kind == MethodKind::Sms {
            // Two pending factors may have had the same number; two active ones may not.
            let number = number_of(&held).ok_or(Error::NotFound)?;
            let others: Vec<_> = dossier.factors.iter().filter(|f| f.id != *id).cloned().collect();
            if self.holds_number(at, caller, &others, &number).await? {
                return Err(Error::Clash(Clash::FactorDuplicate));
            }
        }
        let user = dossier.user.unwrap_or_else(|| unnamed(at, user_id));
        let state = self.open_prompt(at, caller, user_id, prompt.as_ref()).await?;
        let exam = Exam {
            now: at.now,
            parties: Arc::new(self.parties(&caller.rp, user, String::new())),
            owner: id.clone(),
            held: vec![held],
            state,
            recovery: None,
            answer: answer.clone(),
            keyed: self.vault.clone(),
        };
        let settlement = Settlement {
            challenge: inline::way(caller).map_or(ChallengeChange::None, ChallengeChange::Await),
            prompt: prompt.map(|p| (p.owner_id, p.method, p.id)),
            factor: Some(FactorChange::Pending(id.clone())),
            ..Settlement::telling(self.factor_event(at, caller, "factor.added", &factor))
        };
        let enrolled = match method.finish_enrolment(&exam) {
            Ok(enrolled) => enrolled,
            Err(refusal @ Refusal::Wrong(_)) => {
                let throttle = lane.wrong(factor.kind, at.now);
                let prompt = settlement.prompt.filter(|_| factor.kind == MethodKind::Webauthn);
                let settlement = Settlement { throttle, prompt, ..settlement };
                return Err(self.settle_failed(at, caller, settlement, reason(refusal), refusal.into()).await);
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let holder = match &enrolled.credential_id {
            Some(credential) => self.store.credential_holder(rp, credential).await?,
            None => None,
        };
        if let Some(holder) = holder {
            let (reason, error) = known_credential(holder == user_id);
            return Err(self.settle_failed(at, caller, settlement, reason, error).await);
        }
        let earlier = leave.map(|leave| match leave {
            Leave::Right(session) => SessionChange::Add(session),
            Leave::Session(session) => SessionChange::Stand(session),
        });
        let throttle = Some(lane.enrolled(factor.kind, at.now));
        self.settle_activation(at, caller, factor, enrolled, Settlement { throttle, earlier, ..settlement }).await
    }

    /// What proved itself becomes active.
    async fn settle_activation(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        factor: Factor,
        enrolled: Enrolled,
        settlement: Settlement,
    ) -> Result<Factor, Error> {
        let row = factor_row(&caller.rp.id, &factor.user_id, &factor.id);
        let activation = Activation {
            id: factor.id.clone(),
            details: enrolled.details.clone(),
            sealed: enrolled.secret.map(|secret| self.vault.seal(at, row, &secret)),
            credential_id: enrolled.credential_id,
            last_step: enrolled.last_step,
        };
        let settlement = Settlement { factor: Some(FactorChange::Activate(activation)), ..settlement };
        let active = Factor { activated_at: Some(at.now), details: enrolled.details, ..factor };
        let store = self.keeping(at, caller, &active.user_id, Ending::Activated(&active));
        match self.settle(&store, settlement).await {
            Ok(()) => Ok(active),
            Err(store::Error::Conflict(Contest::Session)) => Err(Error::StepUpRequired),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what a refusal costs, and that no factor was added, and gives back what is to be said.
    async fn settle_failed(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        settlement: Settlement,
        reason: &'static str,
        error: Error,
    ) -> Error {
        let refused = Answered::from(error);
        let event = settlement.event.map(|event| Event { kind: "enrolment.failed", ..event.failed(reason) });
        let settlement = Settlement { event, ..settlement };
        let store = self.keeping(at, caller, &settlement.user_id, Ending::Refused(&refused));
        match self.settle(&store, settlement).await {
            Ok(()) => refused.error,
            Err(error) => error.into(),
        }
    }

    /// The user's row, made on first use.
    async fn named_user(&self, at: &Moment<'_>, rp: &Id, user_id: &str) -> Result<User, Error> {
        if let Some(user) = self.store.user(rp, user_id).await? {
            return Ok(user);
        }
        self.store.ensure_user(rp, &unnamed(at, user_id)).await?;
        // Another may have named it first, with a handle of its own.
        self.store.user(rp, user_id).await?.ok_or(Error::NotFound)
    }

    async fn holds_number(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        factors: &[Factor],
        number: &Number,
    ) -> Result<bool, Error> {
        let phones = factors.iter().filter(|f| f.kind == MethodKind::Sms && f.is_active());
        let held = self.open_factors(at, caller, phones.cloned().collect()).await?;
        Ok(held.iter().any(|h| h.secret.as_slice() == number.as_str().as_bytes()))
    }
}

/// The action of challenges that guard factor management on our own pages.
pub(super) fn manage_action() -> String {
    format!("{}manage", requirement::FACTOR_ACTIONS)
}

/// The user's own credential again is a duplicate; anybody else's looks like any other fault.
fn known_credential(own: bool) -> (&'static str, Error) {
    let refusal = Refusal::Wrong(Fault::Credential("credential_of_another_user"));
    match own {
        true => ("factor_duplicate", Error::Clash(Clash::FactorDuplicate)),
        false => (reason(refusal), refusal.into()),
    }
}
