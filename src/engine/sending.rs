//! Sending a code: budgets are drawn and the message written down before a gateway is asked, and given back where none takes it.

use zeroize::Zeroizing;

use super::{Caller, Ending, Engine, Error};
use crate::delivery::Undelivered;
use crate::methods::{Begun, Shown, delivered, sms};
use crate::model::{
    BudgetKey, Details, Event, Factor, Id, Keyed, Kind, Message, MethodKind, Moment, Number, Prompt, Timestamp, hex,
};
use crate::policy::sending;
use crate::store::{self, BudgetChange, Contest, PromptChange, Reservation};

/// How often a reservation is computed anew because somebody else drew on the same budgets.
const ROUNDS: usize = 128;

/// What a text is sent for.
#[derive(Clone, Copy)]
pub(super) enum Occasion {
    Challenge,
    Enrolment,
    Resend,
}

impl Engine {
    /// Whether there is a gateway for texts.
    pub fn sends_texts(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether numbers of this country may be texted at all.
    pub fn may_text(&self, country: &str) -> bool {
        self.methods.may_text(country)
    }

    /// The code that was sent for a pending phone, while it counts.
    pub async fn sent_code(&self, caller: &Caller, user_id: &str, owner: &Id) -> Result<Option<Prompt>, Error> {
        let now = self.moment().now;
        let prompt = self.store.prompt(&caller.rp.id, user_id, owner, MethodKind::Sms).await?;
        Ok(prompt.filter(|p| now < p.expires_at))
    }

    /// Sends the text of a prompt that has begun, and keeps its code where a gateway has accepted it.
    pub(super) async fn send(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        occasion: Occasion,
        owner: &Id,
        factor: &Factor,
        begun: Begun,
    ) -> Result<(Shown, Prompt), Error> {
        let user_id = &factor.user_id;
        if !self.sends_texts() {
            tracing::warn!("a text was asked for, but no SMS provider is configured");
            return Err(Error::Undelivered(Undelivered::Unavailable));
        }
        let (Some((to, text)), Some(state)) = (begun.text, begun.state) else { return Err(Error::MethodNotAllowed) };
        let reservation = self.reserve(at, caller, user_id, owner, factor, &to, &state).await?;
        let message = Message { id: reservation.message.clone(), rp_id: caller.rp.id.clone(), to, text };
        let sent = self.outbox.send(&message).await;
        // The gateway took its time: what follows is dated when it answered.
        let now = self.moment().now;
        let mut event = self.factor_event(at, caller, "message.sent", factor);
        event.challenge_id = Some(owner.clone()).filter(|owner| *owner != factor.id);
        let provider = match sent {
            Ok(provider) => provider,
            Err(why) => {
                let event = Event { kind: "message.failed", ..event.failed("delivery_unavailable") };
                self.give_back(&reservation, now, &event).await?;
                return Err(Error::Undelivered(why));
            }
        };
        let (shown, prompt) = (&begun.shown, Some(&reservation.prompt.next));
        let ending = match occasion {
            Occasion::Challenge => Ending::Prepared(shown, prompt),
            Occasion::Enrolment => Ending::Begun { factor, shown, prompt },
            Occasion::Resend => Ending::Resent { factor, shown, prompt },
        };
        // Where it was answered with the earlier code while the new one was on its way, that answer stands.
        match self.keeping(at, caller, user_id, ending).accept_send(&reservation, provider, now, &event).await {
            Err(store::Error::Conflict(Contest::User)) => return Err(Error::NotFound),
            stands => stands?,
        };
        Ok((begun.shown, reservation.prompt.next))
    }

    async fn reserve(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        user_id: &str,
        owner: &Id,
        factor: &Factor,
        to: &Number,
        state: &Zeroizing<Vec<u8>>,
    ) -> Result<Reservation, Error> {
        let rp = &caller.rp.id;
        let number_hash = self.hash("phone-number", rp, to.as_str());
        let user_hash = self.hash("texted-user", rp, user_id);
        let country = match &factor.details {
            Details::Sms(details) => details.country.clone(),
            _ => None,
        };
        let budgeted = country.clone().or_else(|| sms::main_country(to));
        let keys = budgets(&number_hash, user_hash, budgeted.as_deref());
        for _ in 0..ROUNDS {
            let before = self.store.prompt(rp, user_id, owner, MethodKind::Sms).await?;
            let sends = before.as_ref().map_or(0, |p| p.sends);
            let earliest = before.as_ref().map_or(at.now, |p| sending::next_send(p.sends, p.sent_at));
            if at.now < earliest {
                return Err(Error::SendLimited(earliest.seconds_after(at.now)));
            }
            let mut changes = Vec::new();
            for key in &keys {
                let budget = self.store.budget(rp, key).await?;
                let drawn = sending::draw(key, &budget, &self.caps, at.now)
                    .map_err(|until| Error::SendLimited(until.seconds_after(at.now)))?;
                changes.push(BudgetChange { key: key.clone(), budget: drawn });
            }
            let end = at.now.plus_seconds(delivered::LIFE);
            let prompt = self.new_prompt(at, caller, user_id, owner, MethodKind::Sms, state, end);
            let next = Prompt { factor_id: Some(factor.id.clone()), sends: sends + 1, ..prompt };
            let reservation = Reservation {
                rp_id: rp.clone(),
                user_id: user_id.to_owned(),
                message: Id::new(Kind::Message, at),
                number_hash: number_hash.clone(),
                country: country.clone(),
                at: at.now,
                budgets: changes,
                prompt: PromptChange { next, before },
            };
            match self.store.reserve_send(&reservation).await {
                Ok(()) => return Ok(reservation),
                Err(store::Error::Conflict(Contest::User)) => return Err(Error::NotFound),
                Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Busy(1))
    }

    /// Nothing is charged for a text that nobody took (api.md, 7).
    async fn give_back(&self, reservation: &Reservation, now: Timestamp, event: &Event) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let mut changes = Vec::new();
            for drawn in &reservation.budgets {
                let budget = self.store.budget(&reservation.rp_id, &drawn.key).await?;
                changes
                    .push(BudgetChange { key: drawn.key.clone(), budget: sending::give_back(&budget, reservation.at) });
            }
            if store::stood(self.store.release_send(reservation, &changes, now, event).await)? {
                return Ok(());
            }
        }
        Err(Error::Busy(1))
    }

    fn hash(&self, purpose: &'static str, rp: &Id, text: &str) -> String {
        hex(&self.vault.keyed_hash(purpose, &[rp.as_str().as_bytes(), text.as_bytes()])[..16])
    }
}

fn budgets(number_hash: &str, user_hash: String, country: Option<&str>) -> Vec<BudgetKey> {
    let mut keys = vec![BudgetKey::Number(number_hash.to_owned()), BudgetKey::User(user_hash), BudgetKey::RelyingParty];
    keys.extend(country.map(|c| BudgetKey::Country(c.to_owned())));
    keys
}
