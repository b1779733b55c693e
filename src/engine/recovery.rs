//! Recovery codes: made, confirmed, counted.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::limits::enrolment_lane;
use super::portal::Manage;
use super::{Caller, Ending, Engine, Error};
use crate::methods::recovery_code;
use crate::model::{Id, Keyed, Kind, Moment, RecoverySet, RecoveryStatus, RecoverySummary};
use crate::store::{self, Contest, Leave, Standing};

/// How often a set is written anew because a parallel maker was first.
const ROUNDS: usize = 32;
const NEEDS_FACTOR: Error = Error::Invalid { param: "user_id", why: "recovery codes need another active factor first" };

/// A set that was just made.
pub struct NewCodes {
    /// Its id.
    pub set: Id,
    /// Its codes; they leave once.
    pub codes: Vec<Zeroizing<String>>,
    /// Whether it redeems already.
    pub status: RecoveryStatus,
}

impl Engine {
    /// Makes a new set, whose codes leave once. An old set dies when the new one is active.
    pub async fn create_recovery_codes(
        &self,
        caller: &Caller,
        user_id: &str,
        require_confirmation: bool,
    ) -> Result<NewCodes, Error> {
        let at = self.moment();
        let mut standing = self.may_make_codes(&at, caller, user_id).await?;
        let factors = self.store.factors(&caller.rp.id, user_id, at.now).await?;
        if !factors.iter().any(|f| f.is_active()) {
            return Err(NEEDS_FACTOR);
        }
        let codes = recovery_code::new_codes(&at);
        let salt = at.random::<{ recovery_code::SALT }>().to_vec();
        let pepper = self.vault.current_pepper(at.now);
        let unused = {
            let (vault, codes, salt) = (Arc::clone(&self.vault), codes.clone(), salt.clone());
            let hash =
                move |code: &Zeroizing<String>| recovery_code::hash(&*vault, pepper, &salt, code).map(|h| h.to_vec());
            self.costly(move || codes.iter().map(hash).collect::<Option<Vec<_>>>()).await?
        };
        let unused = unused.ok_or(Error::Store(store::Error::Corrupt("key_ring")))?;
        let set = RecoverySet { id: Id::new(Kind::RecoverySet, &at), salt, pepper, unused };
        let event = self.event(&at, caller, "recovery_codes.created", Some(user_id));
        let confirmed = !require_confirmation;
        let status = if confirmed { RecoveryStatus::Active } else { RecoveryStatus::Unconfirmed };
        let store = self.keeping(&at, caller, user_id, Ending::Codes(&codes, status));
        for _ in 0..ROUNDS {
            match store.create_recovery_set(&caller.rp.id, user_id, &standing, &set, confirmed, &event).await {
                Ok(()) => return Ok(NewCodes { set: set.id, codes, status }),
                Err(store::Error::Conflict(Contest::Row)) => {}
                Err(store::Error::Conflict(Contest::Throttle)) => {
                    standing = self.may_make_codes(&at, caller, user_id).await?;
                }
                Err(store::Error::Conflict(Contest::User | Contest::Factor)) => return Err(NEEDS_FACTOR),
                Err(store::Error::Conflict(Contest::Session)) => return Err(Error::StepUpRequired),
                Err(store::Error::Conflict(Contest::Visit)) => return Err(Error::NotFound),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy(1))
    }

    /// The person has saved the codes of this set, or of the one that waits: it redeems, the old one no longer.
    /// [`Error::NotFound`] where it was replaced meanwhile.
    pub async fn confirm_recovery_codes(
        &self,
        caller: &Caller,
        user_id: &str,
        set: Option<&Id>,
    ) -> Result<RecoverySummary, Error> {
        let at = self.moment();
        let event = self.event(&at, caller, "recovery_codes.confirmed", Some(user_id));
        let rp = &caller.rp.id;
        for _ in 0..ROUNDS {
            let standing = self.may_make_codes(&at, caller, user_id).await?;
            let waiting = self.store.recovery_summary(rp, user_id, RecoveryStatus::Unconfirmed).await?;
            let confirmed = RecoverySummary { status: RecoveryStatus::Active, ..waiting };
            let store = self.keeping(&at, caller, user_id, Ending::Confirmed(&confirmed));
            match store.confirm_recovery_set(rp, user_id, set, &standing, &event).await {
                Ok(()) => return Ok(confirmed),
                Err(store::Error::Conflict(Contest::Throttle)) => {}
                // Confirmed twice is confirmed.
                Err(store::Error::Conflict(Contest::Row)) => return self.confirmed_before(caller, user_id, set).await,
                Err(store::Error::Conflict(Contest::Session)) => return Err(Error::StepUpRequired),
                Err(store::Error::Conflict(_)) => return Err(Error::NotFound),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy(1))
    }

    async fn confirmed_before(
        &self,
        caller: &Caller,
        user_id: &str,
        set: Option<&Id>,
    ) -> Result<RecoverySummary, Error> {
        if let Some(set) = set {
            let active = self.store.recovery_set(&caller.rp.id, user_id).await?;
            active.filter(|active| active.id == *set).ok_or(Error::NotFound)?;
        }
        let summary = self.recovery_summary(caller, user_id).await?;
        if summary.status == RecoveryStatus::Active { Ok(summary) } else { Err(Error::NotFound) }
    }

    /// Whether the caller may, and what that rests on: read before it is asked, so that a factor that is added meanwhile is noticed.
    async fn may_make_codes(&self, at: &Moment<'_>, caller: &Caller, user_id: &str) -> Result<Standing, Error> {
        let mut standing = Standing::default();
        if let Some(portal) = &caller.portal {
            let lanes = self.store.throttles(&caller.rp.id, user_id).await?;
            let judged = Some(enrolment_lane(&lanes)?.version());
            standing = Standing { visit: Some(portal.id.clone()), judged, ..standing };
        }
        if let Some(Leave::Session(session) | Leave::Right(session)) =
            self.may_manage(at, caller, user_id, Manage::RecoveryCodes).await?
        {
            standing.session = Some(session);
        }
        Ok(standing)
    }

    /// How many codes there are and are left.
    pub async fn recovery_summary(&self, caller: &Caller, user_id: &str) -> Result<RecoverySummary, Error> {
        Ok(self.store.recovery_summary(&caller.rp.id, user_id, RecoveryStatus::Active).await?)
    }
}
