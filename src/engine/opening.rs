//! Opening what is sealed for a row, and sealing what is awaited. What does not open closes its own row and no other, and is
//! written down once.

use zeroize::Zeroizing;

use super::keys::closed_reason;
use super::{Caller, Engine, Error};
use crate::methods::Held;
use crate::model::{Actor, Event, Factor, Id, Keyed, Kind, MethodKind, Moment, Prompt, RecoverySet, Timestamp};
use crate::store;
use crate::vault::{Row, SealBroken};

/// The row of a factor.
pub fn factor_row<'a>(rp: &'a Id, user_id: &'a str, id: &'a Id) -> Row<'a> {
    Row { table: "factors", rp: rp.as_str(), user: user_id, id: id.as_str() }
}

/// The row of a prompt.
fn prompt_row<'a>(rp: &'a Id, user_id: &'a str, id: &'a Id) -> Row<'a> {
    Row { table: "prompts", rp: rp.as_str(), user: user_id, id: id.as_str() }
}

impl Engine {
    /// Opens the sealed parts of factors. One that does not open is left out: it is closed, and the others stay open.
    pub(super) async fn open_factors(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        factors: Vec<Factor>,
    ) -> Result<Vec<Held>, Error> {
        let mut held = Vec::new();
        for factor in factors {
            match self.open_row(factor_row(&caller.rp.id, &factor.user_id, &factor.id), &factor.sealed).await? {
                Ok(secret) => held.push(Held { factor, secret }),
                Err(why) => {
                    let mut event = Event::new(at, &caller.rp.id, "factor.unreadable", Actor::System);
                    event.method = Some(factor.kind);
                    event.factor_id = Some(factor.id.clone());
                    self.report(event, caller, &factor.user_id, &factor.id, &factor.sealed, why).await?;
                }
            }
        }
        Ok(held)
    }

    /// Opens the sealed part of a factor; `NotFound` where it is closed.
    pub(super) async fn open_factor(&self, at: &Moment<'_>, caller: &Caller, factor: Factor) -> Result<Held, Error> {
        self.open_factors(at, caller, vec![factor]).await?.pop().ok_or(Error::NotFound)
    }

    /// Opens the sealed part of a prompt, if it opens.
    pub(super) async fn open_prompt(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        user_id: &str,
        prompt: Option<&Prompt>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let Some(prompt) = prompt else { return Ok(None) };
        match self.open_row(prompt_row(&caller.rp.id, user_id, &prompt.id), &prompt.sealed).await? {
            Ok(state) => Ok(Some(state)),
            Err(why) => {
                let mut event = Event::new(at, &caller.rp.id, "prompt.unreadable", Actor::System);
                event.method = Some(prompt.method);
                event.factor_id = prompt.factor_id.clone();
                self.report(event, caller, user_id, &prompt.id, &prompt.sealed, why).await?;
                Ok(None)
            }
        }
    }

    /// What is awaited from now on of a challenge or a pending factor, its state sealed for a row of its own.
    pub(super) fn new_prompt(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        user_id: &str,
        owner: &Id,
        method: MethodKind,
        state: &[u8],
        expires_at: Timestamp,
    ) -> Prompt {
        let id = Id::new(Kind::Prompt, at);
        Prompt {
            sealed: self.vault.seal(at, prompt_row(&caller.rp.id, user_id, &id), state),
            id,
            owner_id: owner.clone(),
            method,
            factor_id: None,
            sends: 0,
            sent_at: at.now,
            expires_at,
        }
    }

    /// Learns the pepper of a set that was made under a newer one than this node knew.
    pub(super) async fn know_pepper(&self, set: Option<&RecoverySet>) -> Result<(), Error> {
        match set {
            Some(set) if !self.vault.knows_pepper(set.pepper) => self.learn_ring().await,
            _ => Ok(()),
        }
    }

    /// A key that is not known may be a new one: the ring is read anew before the value counts as closed.
    pub(super) async fn open_row(
        &self,
        row: Row<'_>,
        sealed: &[u8],
    ) -> Result<Result<Zeroizing<Vec<u8>>, SealBroken>, Error> {
        match self.vault.open(row, sealed) {
            Err(SealBroken::KeyUnknown) => {
                self.learn_ring().await?;
                match self.is_left_behind() {
                    true => Err(store::Error::Unavailable("the master key was replaced".to_owned()).into()),
                    false => Ok(self.vault.open(row, sealed)),
                }
            }
            opened => Ok(opened),
        }
    }

    /// Writes it down once for each value that does not open: the event's id is made from the value, so a second one has no place.
    async fn report(
        &self,
        event: Event,
        caller: &Caller,
        user_id: &str,
        id: &Id,
        sealed: &[u8],
        why: SealBroken,
    ) -> Result<(), Error> {
        tracing::error!(rp = %caller.rp.id, row = %id, %why, "a sealed value does not open: its row is closed");
        let hash =
            self.vault.keyed_hash("unreadable", &[caller.rp.id.as_str().as_bytes(), id.as_str().as_bytes(), sealed]);
        let mut bytes = id.bytes();
        bytes[6..].copy_from_slice(&hash[..10]);
        let event = Event {
            id: Id::from_bytes(Kind::Event, bytes),
            user_id: Some(user_id.to_owned()),
            request_id: Some(caller.request_id.clone()),
            ..event.failed(closed_reason(why))
        };
        store::stood(self.store.record(&event).await)?;
        Ok(())
    }
}
