//! How a challenge may be answered: by which of the user's factors, strongest first, and which not yet.

use super::limits::{Pause, device_of, lane_of};
use super::{Caller, Engine, Error, UserView};
use crate::model::{Challenge, Details, Factor, Id, MethodKind, Moment, Prompt, RecoveryStatus, Terms, Timestamp};
use crate::policy::{assurance, requirement};
use crate::store::Dossier;

/// One way to answer.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The method.
    pub kind: MethodKind,
    /// The factor; recovery codes are none.
    pub factor_id: Option<Id>,
    /// The person's name for it.
    pub name: String,
    /// What helps to recognise it.
    pub hint: Option<String>,
    /// The method's pause.
    pub pause: Option<Pause>,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
}

/// What the page of a challenge shows.
pub struct OnPage {
    /// How it may be answered.
    pub offers: Vec<Offer>,
    /// By whom.
    pub user: UserView,
    /// The code that was sent for it, while it counts.
    pub sent: Option<Prompt>,
}

impl Engine {
    /// What the page of a challenge shows, as it is now.
    pub async fn on_page(&self, at: &Moment<'_>, caller: &Caller, id: &Id) -> Result<OnPage, Error> {
        let (challenge, mut dossier) = self.store.case(&caller.rp.id, id, at.now).await?.ok_or(Error::NotFound)?;
        let sent = dossier.prompts.iter().position(|p| p.method == MethodKind::Sms && at.now < p.expires_at);
        Ok(OnPage {
            offers: self.offers_of(caller, &challenge, &dossier, at.now)?,
            sent: sent.map(|place| dossier.prompts.swap_remove(place)),
            user: self.view_of(at, &challenge.user_id, dossier)?,
        })
    }

    /// How a challenge may be answered, strongest first.
    pub(super) fn offers_of(
        &self,
        caller: &Caller,
        challenge: &Challenge,
        dossier: &Dossier,
        now: Timestamp,
    ) -> Result<Vec<Offer>, Error> {
        let terms = &challenge.terms;
        let paused = lane_of(&dossier.throttles, &dossier.factors, device_of(caller, challenge), now)?.paused(now);
        let mut offers = Vec::new();
        let usable = |kind: &MethodKind| {
            // Where nothing sends texts any more, nobody is led to one (P-08).
            requirement::admits(&terms.action, &terms.require, *kind)
                && (*kind != MethodKind::Sms || self.sends_texts())
        };
        for kind in MethodKind::ALL.into_iter().filter(usable) {
            let pause = paused.iter().find(|pause| pause.method == kind).copied();
            if kind == MethodKind::RecoveryCode {
                let codes = dossier.recovery.filter(|r| r.status == RecoveryStatus::Active && r.remaining > 0);
                offers.extend(codes.map(|codes| Offer {
                    kind,
                    factor_id: None,
                    name: kind.default_name().to_owned(),
                    hint: Some(format!("{} left", codes.remaining)),
                    pause,
                    last_used_at: None,
                }));
                continue;
            }
            let suits = |f: &&Factor| f.kind == kind && self.suffices(f, terms, now);
            offers.extend(dossier.factors.iter().filter(suits).map(|f| Offer {
                kind,
                factor_id: Some(f.id.clone()),
                name: f.name.clone(),
                hint: hint(f),
                pause,
                last_used_at: f.last_used_at,
            }));
        }
        Ok(offers)
    }

    /// Whether this factor may answer a challenge of these terms, now: it is active, and strong enough.
    pub(super) fn suffices(&self, factor: &Factor, terms: &Terms, now: Timestamp) -> bool {
        factor.is_active()
            && terms.least_of_factors().is_none_or(|acr| assurance::best_of(factor, self.cool_off, now) >= acr)
    }

    /// Whether this is a phone that would do for these terms, if only something sent texts.
    pub fn lacks_gateway(&self, factor: &Factor, terms: &Terms, now: Timestamp) -> bool {
        factor.kind == MethodKind::Sms
            && !self.sends_texts()
            && requirement::admits(&terms.action, &terms.require, factor.kind)
            && self.suffices(factor, terms, now)
    }

    /// When a factor that is too new for these terms will do for them; `None` where it does already or never will.
    pub fn cools_off_at(&self, factor: &Factor, terms: &Terms, now: Timestamp) -> Option<Timestamp> {
        let will_do = requirement::admits(&terms.action, &terms.require, factor.kind)
            && terms.least_of_factors().is_none_or(|acr| assurance::best(factor.kind) >= acr);
        let is_new = factor.is_active() && !self.suffices(factor, terms, now);
        factor.activated_at.filter(|_| will_do && is_new).map(|at| at.plus_seconds(self.cool_off))
    }
}

/// What helps to recognise a factor.
fn hint(factor: &Factor) -> Option<String> {
    match &factor.details {
        Details::Totp => None,
        Details::Webauthn(details) => details.provider_name.clone(),
        Details::Sms(details) => Some(details.phone_masked.clone()),
    }
}
