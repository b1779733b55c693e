//! Pending factors: how many there may be, what they are called, and how they end without a proof.

use super::{Caller, Clash, Ending, Engine, Error, Gone};
use crate::methods::Shown;
use crate::model::{Factor, Id, MethodKind, Moment, Prompt, Timestamp};
use crate::policy::throttle;
use crate::store::{self, Contest, NewFactor};

/// How long a pending factor lives, in seconds.
pub const LIFE: i64 = 900;
/// Pending phones of a user at once (api.md, 7).
const PENDING_PHONES: usize = 3;
/// Pending factors of a user at once, of any kind.
const PENDING: usize = 10;
/// Active factors of a user, by kind.
const ACTIVE: usize = 20;
/// How often a write is tried anew because a parallel enrolment was first.
const ROUNDS: usize = 64;

impl Engine {
    /// Writes a pending factor, under a free name where the person gave none. `shown` is told with it, unless a text comes first.
    pub(super) async fn create_pending(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        factor: &mut Factor,
        free_name: bool,
        prompt: Option<Prompt>,
        shown: Option<&Shown>,
    ) -> Result<(), Error> {
        let event = self.factor_event(at, caller, "enrolment.started", factor);
        let of_kind = if factor.kind == MethodKind::Sms { PENDING_PHONES } else { PENDING };
        let mut new = NewFactor { factor: factor.clone(), prompt, beside: (PENDING - 1, of_kind - 1), event };
        for _ in 0..ROUNDS {
            if free_name {
                let taken = self.store.factors(&caller.rp.id, &factor.user_id, at.now).await?;
                factor.name = free(factor.kind.default_name(), &taken);
                new.factor.name.clone_from(&factor.name);
            }
            let store = match shown {
                Some(shown) => {
                    let begun = Ending::Begun { factor, shown, prompt: None };
                    self.keeping(at, caller, &factor.user_id, begun)
                }
                None => self.store.clone(),
            };
            match store.create_factor(&caller.rp.id, &new).await {
                Ok(()) => return Ok(()),
                Err(store::Error::Conflict(Contest::Row)) => {}
                Err(store::Error::Conflict(Contest::User)) => return Err(Error::Busy(1)),
                Err(store::Error::Conflict(Contest::Limit)) => {
                    let factors = self.store.factors(&caller.rp.id, &factor.user_id, at.now).await?;
                    check_counts(&factors, factor.kind, at.now)?;
                }
                Err(store::Error::Conflict(_)) if free_name => {}
                Err(store::Error::Conflict(_)) => return Err(Error::Clash(Clash::NameTaken)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy(1))
    }

    /// Takes a pending factor back whose first text was not sent.
    pub(super) async fn not_sent(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        factor: &Factor,
        why: &Error,
    ) -> Result<(), Error> {
        let reason = match why {
            Error::SendLimited(_) => "send_limited",
            Error::Undelivered(_) => "delivery_unavailable",
            _ => "not_sent",
        };
        self.drop_pending(at, caller, factor, Some(MethodKind::Sms), reason).await
    }

    /// Takes a passkey back that was begun and did not come about: another is begun in its place, under its name.
    pub async fn begin_anew(&self, caller: &Caller, user_id: &str, id: &Id) -> Result<(), Error> {
        let at = self.moment();
        let before = self.store.factor(&caller.rp.id, user_id, id).await?;
        match before.filter(|f| f.kind == MethodKind::Webauthn && f.is_pending(at.now)) {
            Some(factor) => self.drop_pending(&at, caller, &factor, None, "begun_anew").await,
            None => Ok(()),
        }
    }

    async fn drop_pending(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        factor: &Factor,
        unless_sent: Option<MethodKind>,
        reason: &'static str,
    ) -> Result<(), Error> {
        let event = self.factor_event(at, caller, "enrolment.failed", factor).failed(reason);
        let (rp, user_id) = (&caller.rp.id, &factor.user_id);
        store::stood(self.store.drop_pending_factor(rp, user_id, &factor.id, unless_sent, &event).await)?;
        Ok(())
    }

    /// The pending factor of this id.
    pub(super) async fn pending(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        user_id: &str,
        id: &Id,
    ) -> Result<Factor, Error> {
        let factor = self.store.factor(&caller.rp.id, user_id, id).await?.ok_or(Error::NotFound)?;
        match (factor.is_active(), factor.is_pending(at.now)) {
            (true, _) => Err(Error::Clash(Clash::FactorNotPending)),
            (false, true) => Ok(factor),
            (false, false) => Err(Error::Gone(Gone::Enrolment)),
        }
    }
}

/// The name itself, or the first of "name 2", "name 3" … that none of these has.
pub(super) fn free(name: &str, factors: &[Factor]) -> String {
    let is_free = |name: &String| factors.iter().all(|f| f.name != *name);
    let numbered = (2..).map(|n| format!("{name} {n}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).expect("numbers do not end")
}

/// Whether the user may have another pending factor of this kind.
pub(super) fn check_counts(factors: &[Factor], kind: MethodKind, now: Timestamp) -> Result<(), Error> {
    let first_end = |of: &dyn Fn(&Factor) -> bool, most: usize| {
        let ends: Vec<_> = factors.iter().filter(|f| !f.is_active() && of(f)).map(|f| f.expires_at).collect();
        ends.iter().min().filter(|_| ends.len() >= most).map(|end| end.seconds_after(now))
    };
    if let Some(wait) = first_end(&|f| kind == MethodKind::Sms && f.kind == kind, PENDING_PHONES) {
        return Err(Error::SendLimited(wait));
    }
    if let Some(wait) = first_end(&|_| true, PENDING) {
        return Err(Error::Busy(wait));
    }
    check_active(factors, kind)
}

/// How many active factors of this kind a user may have.
pub fn most_active(kind: MethodKind) -> usize {
    if kind == MethodKind::Totp { throttle::MOST_APPS } else { ACTIVE }
}

/// Whether another factor of this kind may become active. Of apps parallel proofs cannot each be the last: they write one lane.
pub(super) fn check_active(factors: &[Factor], kind: MethodKind) -> Result<(), Error> {
    if factors.iter().filter(|f| f.kind == kind && f.is_active()).count() >= most_active(kind) {
        return Err(Error::Invalid { param: "type", why: "the user has as many factors of this type as there may be" });
    }
    Ok(())
}
