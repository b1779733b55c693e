//! What the engine knows of a user: shown, written, erased.

use super::{Caller, Engine, Error};
use crate::model::{Acr, Factor, MethodKind, RecoverySummary, Timestamp, User};
use crate::policy::assurance;

/// A user with everything that may be shown.
pub struct UserView {
    /// The user.
    pub user: User,
    /// Active and pending factors.
    pub factors: Vec<Factor>,
    /// Recovery codes.
    pub recovery: RecoverySummary,
    /// Methods whose guessing pauses, and until when.
    pub paused: Vec<(MethodKind, Timestamp)>,
    /// The strongest that the user can prove.
    pub highest_acr: Option<Acr>,
}

impl Engine {
    /// Everything that may be shown; an unknown user looks like one with nothing enrolled.
    pub async fn user_view(&self, caller: &Caller, user_id: &str) -> Result<UserView, Error> {
        let at = self.moment();
        let rp = &caller.rp.id;
        let factors = self.store.factors(rp, user_id, at.now).await?;
        Ok(UserView {
            user: self.user_or_new(&at, rp, user_id).await?,
            recovery: self.store.recovery_summary(rp, user_id).await?,
            paused: self.paused(&at, rp, user_id).await?,
            highest_acr: assurance::highest(factors.iter().filter(|f| f.is_active()).map(|f| f.kind)),
            factors,
        })
    }

    /// Writes what pages show of a user; absent members stay as they are.
    pub async fn put_user(
        &self,
        caller: &Caller,
        user_id: &str,
        display_name: Option<String>,
        login_hint: Option<String>,
        locale: Option<String>,
    ) -> Result<(), Error> {
        let at = self.moment();
        let user = User {
            user_id: user_id.to_owned(),
            handle: at.random(),
            display_name,
            login_hint,
            locale,
            created_at: at.now,
        };
        Ok(self.store.put_user(&caller.rp.id, &user).await?)
    }

    /// Erases a user's personal data. Audit rows keep a random pseudonym in the name's place, which nothing leads back.
    pub async fn erase_user(&self, caller: &Caller, user_id: &str) -> Result<(), Error> {
        let at = self.moment();
        let pseudonym = format!("erased_{}", uuid::Builder::from_random_bytes(at.random()).into_uuid().simple());
        let event = self.event(&at, caller, "user.erased", Some(&pseudonym));
        Ok(self.store.erase_user(&caller.rp.id, user_id, &pseudonym, &event).await?)
    }
}
