//! What the engine knows of a user: shown, written, erased.

use super::limits::{Pause, lane_of};
use super::{Caller, Engine, Error, unnamed};
use crate::model::{Acr, Factor, Moment, RecoverySummary, User};
use crate::policy::assurance;
use crate::store::{Dossier, Names};

/// A user with everything that may be shown.
pub struct UserView {
    /// The user.
    pub user: User,
    /// Active and pending factors.
    pub factors: Vec<Factor>,
    /// Recovery codes.
    pub recovery: RecoverySummary,
    /// Methods whose guessing pauses for browsers that never passed.
    pub paused: Vec<Pause>,
    /// The strongest that the user can prove.
    pub highest_acr: Option<Acr>,
}

impl Engine {
    /// Everything that may be shown; an unknown user looks like one with nothing enrolled.
    pub async fn user_view(&self, caller: &Caller, user_id: &str) -> Result<UserView, Error> {
        let at = self.moment();
        let dossier = self.dossier(&at, caller, user_id).await?;
        self.view_of(&at, user_id, dossier)
    }

    pub(super) fn view_of(&self, at: &Moment<'_>, user_id: &str, dossier: Dossier) -> Result<UserView, Error> {
        Ok(UserView {
            recovery: dossier.recovery.unwrap_or(RecoverySummary::NONE),
            paused: lane_of(&dossier.throttles, &dossier.factors, None, at.now)?.paused(at.now),
            highest_acr: assurance::highest(&dossier.factors, self.cool_off, at.now),
            user: dossier.user.unwrap_or_else(|| unnamed(at, user_id)),
            factors: dossier.factors,
        })
    }

    /// Writes what pages show of a user.
    pub async fn put_user(&self, caller: &Caller, user_id: &str, names: Names) -> Result<(), Error> {
        let at = self.moment();
        let user = unnamed(&at, user_id);
        Ok(self.store.put_user(&caller.rp.id, &user, &names).await?)
    }

    /// Erases a user's personal data. Audit rows keep a random pseudonym in the name's place, which nothing leads back.
    pub async fn erase_user(&self, caller: &Caller, user_id: &str) -> Result<(), Error> {
        let at = self.moment();
        let pseudonym = format!("erased_{}", uuid::Builder::from_random_bytes(at.random()).into_uuid().simple());
        let event = self.event(&at, caller, "user.erased", Some(&pseudonym));
        Ok(self.store.erase_user(&caller.rp.id, user_id, &pseudonym, &event).await?)
    }
}
