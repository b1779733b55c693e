//! Looking at factors, renaming and removing them.

use super::pending::free;
use super::portal::Manage;
use super::{Caller, Clash, Engine, Error};
use crate::model::{Event, Factor, Id, Moment};
use crate::store::{self, Contest, Removal};

/// The longest name of a factor, in characters.
pub const LONGEST_NAME: usize = 50;

impl Engine {
    /// A user's factors, pending and active, oldest first.
    pub async fn factors(&self, caller: &Caller, user_id: &str) -> Result<Vec<Factor>, Error> {
        Ok(self.store.factors(&caller.rp.id, user_id, self.moment().now).await?)
    }

    /// One factor of a user.
    pub async fn factor(&self, caller: &Caller, user_id: &str, id: &Id) -> Result<Factor, Error> {
        let factor = self.store.factor(&caller.rp.id, user_id, id).await?;
        let now = self.moment().now;
        factor.filter(|f| f.is_active() || f.is_pending(now)).ok_or(Error::NotFound)
    }

    /// Gives a factor another name. The one that was added in this visit needs no further proof.
    pub async fn rename_factor(&self, caller: &Caller, user_id: &str, id: &Id, name: &str) -> Result<Factor, Error> {
        let at = self.moment();
        let just_added = caller
            .portal
            .as_ref()
            .is_some_and(|p| p.factor_id.as_ref() == Some(id) && p.user_id == user_id && at.now < p.expires_at);
        if !just_added {
            self.may_manage(&at, caller, user_id, Manage::Rename).await?;
        }
        let factor = self.factor(caller, user_id, id).await?;
        let event = self.factor_event(&at, caller, "factor.renamed", &factor);
        self.give_name(&at, caller, &factor, name, Some(&event)).await?;
        Ok(Factor { name: name.to_owned(), ..factor })
    }

    /// Names a factor that the caller has just added, with a number behind the name where another has it: part of its adding, of
    /// which there is an event already. Who takes the name at the same moment keeps it.
    pub async fn name_new_factor(&self, caller: &Caller, factor: &Factor, name: &str) -> Result<(), Error> {
        let mut others = self.factors(caller, &factor.user_id).await?;
        others.retain(|other| other.id != factor.id);
        self.give_name(&self.moment(), caller, factor, &free(name, &others), None).await
    }

    async fn give_name(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        factor: &Factor,
        name: &str,
        event: Option<&Event>,
    ) -> Result<(), Error> {
        match self.store.rename_factor(&caller.rp.id, &factor.user_id, &factor.id, name, at.now, event).await {
            Ok(()) => Ok(()),
            Err(store::Error::Conflict(Contest::Factor)) => Err(Error::NotFound),
            Err(store::Error::Conflict(_)) => Err(Error::Clash(Clash::NameTaken)),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a factor and ends the sessions that it earned. A person cannot remove the only one; the relying party's word can.
    pub async fn remove_factor(&self, caller: &Caller, user_id: &str, id: &Id) -> Result<(), Error> {
        loop {
            let at = self.moment();
            // Before it is asked what the caller may do: one that becomes active meanwhile is judged anew.
            let factor = self.factor(caller, user_id, id).await;
            let leave = self.may_manage(&at, caller, user_id, Manage::Remove).await?;
            let factor = factor?;
            let event = self.factor_event(&at, caller, "factor.removed", &factor);
            let removal = match (factor.is_active(), caller.portal.is_some()) {
                (false, _) => Removal::WhilePending,
                (true, true) => Removal::ButTheLast,
                (true, false) => Removal::Any,
            };
            match self.store.remove_factor(&caller.rp.id, user_id, id, removal, leave.as_ref(), &event).await {
                Ok(()) => return Ok(()),
                // It became active, which is judged otherwise, or it is gone, which is found now.
                Err(store::Error::Conflict(Contest::Factor)) => {}
                Err(store::Error::Conflict(Contest::Session)) => return Err(Error::StepUpRequired),
                Err(store::Error::Conflict(_)) => return Err(Error::Clash(Clash::LastFactor)),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
