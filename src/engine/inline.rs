//! Inline enrolment: a person who has nothing that would do sets it up on the way to the challenge, and answers with it.

use zeroize::Zeroizing;

use super::challenge::is_open;
use super::portal::LIFE;
use super::{Caller, Engine, Error};
use crate::model::{Acr, Challenge, Flow, Id, Kind, MethodKind, Moment, PortalSession, Terms};
use crate::policy::requirement;
use crate::vault::token_hash;

/// Where a visit leads back to that is on the way to a challenge: the challenge's own page, by its id.
const BACK: &str = "/challenge/";

impl Engine {
    /// The methods of which one would satisfy these terms, if the user had it; no phone where nothing sends texts.
    pub fn missing(&self, terms: &Terms) -> Vec<MethodKind> {
        let all = requirement::would_satisfy(&terms.action, &terms.require);
        all.into_iter().filter(|kind| *kind != MethodKind::Sms || self.sends_texts()).collect()
    }

    /// What somebody may set up who is on the way to a challenge, by its client token or in a visit that leads back to it; `None`
    /// for everybody else.
    pub async fn wanted(&self, caller: &Caller) -> Result<Option<Vec<MethodKind>>, Error> {
        if let Some(challenge) = &caller.enrols {
            return Ok(Some(self.missing(&challenge.terms)));
        }
        let Some(id) = caller.portal.as_ref().and_then(leads_back) else { return Ok(None) };
        let case = self.store.case(&caller.rp.id, &id, self.moment().now).await?;
        Ok(case.map(|(challenge, _)| self.missing(&challenge.terms)))
    }

    /// Whether a factor that is set up now would do: some method would, and a new one counts for enough.
    pub(super) fn would_do(&self, terms: &Terms, missing: &[MethodKind]) -> bool {
        let counts = self.cool_off == 0 || terms.least_of_factors().is_none_or(|acr| acr <= Acr::Aal2);
        counts && !missing.is_empty()
    }

    /// Opens the visit in which the person behind an open challenge sets up what would do, bound to the browser that asks. It
    /// leads back to the challenge, which is then answered like any other.
    pub async fn enrol_first(
        &self,
        caller: &Caller,
        challenge: &Challenge,
    ) -> Result<(PortalSession, Zeroizing<String>), Error> {
        let at = self.moment();
        is_open(challenge, at.now)?;
        if !challenge.terms.enrol {
            return Err(Error::MethodNotAllowed);
        }
        let flow = match self.missing(&challenge.terms)[..] {
            [MethodKind::Webauthn] => Flow::AddPasskey,
            [MethodKind::Totp] => Flow::AddAuthenticatorApp,
            [MethodKind::Sms] => Flow::AddPhone,
            _ => Flow::Settings,
        };
        let (cookie, unused) = (Zeroizing::new(at.token()), Zeroizing::new(at.token()));
        let portal = PortalSession {
            id: Id::new(Kind::Portal, &at),
            rp_id: challenge.rp_id.clone(),
            user_id: challenge.user_id.clone(),
            flow,
            return_url: Some(format!("{BACK}{}", challenge.id)),
            created_at: at.now,
            expires_at: at.now.plus_seconds(LIFE),
            link_hash: token_hash(&unused),
            // Nobody has its link: it is open from the start, to this browser.
            link_opened_at: Some(at.now),
            browser_hash: Some(token_hash(&cookie)),
            client_token_hash: token_hash(&at.token()),
            session_id: None,
            factor_id: None,
        };
        let mut event = self.event(&at, caller, "portal_session.created", Some(&portal.user_id));
        event.challenge_id = Some(challenge.id.clone());
        self.store.create_portal_session(&portal, &event).await?;
        Ok((portal, cookie))
    }

    /// Refuses, with how it ended, where a visit is on the way to a challenge that awaits no answer any more.
    pub(super) async fn way_is_open(&self, at: &Moment<'_>, portal: &PortalSession) -> Result<(), Error> {
        let Some(id) = leads_back(portal) else { return Ok(()) };
        let (challenge, _) = self.store.case(&portal.rp_id, &id, at.now).await?.ok_or(Error::NotFound)?;
        is_open(&challenge, at.now)
    }
}

/// The challenge on whose way the caller is.
pub(super) fn way(caller: &Caller) -> Option<Id> {
    let by_token = caller.enrols.as_ref().map(|challenge| challenge.id.clone());
    by_token.or_else(|| leads_back(caller.portal.as_ref()?))
}

fn leads_back(portal: &PortalSession) -> Option<Id> {
    Id::parse(Kind::Challenge, portal.return_url.as_deref()?.strip_prefix(BACK)?)
}
