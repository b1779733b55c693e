//! Browsers: links that are opened once, cookies and client tokens bound to what they open, and what a person may change.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::Answered;
use super::challenge::{self, is_open};
use super::enrolment::manage_action;
use super::verification::Delivery;
use super::{Caller, Ending, Engine, Error, Given, Known, Verdict};
use crate::model::{
    Challenge, ChallengeStatus, Flow, Id, Kind, MethodKind, Moment, Portal, PortalSession, RelyingParty, Requirement,
    Session, Terms, Timestamp,
};
use crate::policy::{assurance, requirement};
use crate::store::{self, Leave};
use crate::token::ClientToken;
use crate::vault::{same, token_hash};

/// How long a portal session lasts, in seconds.
pub const LIFE: i64 = 1800;
/// How many of a browser's cookies are looked behind at most, for a newer challenge.
const MOST_LOOKED_AT: usize = 8;
/// How long a client token of a portal session lasts, in seconds.
pub const CLIENT_TOKEN_LIFE: i64 = 600;

/// A portal session that a caller wants.
pub struct NewPortal {
    /// Whose factors.
    pub user_id: String,
    /// What for.
    pub flow: Flow,
    /// Where the person goes afterwards.
    pub return_url: Option<String>,
    /// A step-up session that spares the person a second proof.
    pub session_token: Option<String>,
}

/// A portal session that was opened; its secrets leave once.
pub struct PortalView {
    /// The portal session.
    pub portal: PortalSession,
    /// The secret of its page's address.
    pub link_token: Zeroizing<String>,
    /// For calls from a browser.
    pub client_token: String,
}

/// What a browser's cookie or client token opens.
#[derive(Clone)]
pub enum Opened {
    /// One challenge.
    Challenge(Box<Challenge>, Arc<RelyingParty>),
    /// One portal session.
    Portal(Box<PortalSession>, Arc<RelyingParty>),
}

/// What a person wants to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manage {
    Add,
    Remove,
    Rename,
    RecoveryCodes,
}

impl Engine {
    /// Opens a portal session.
    pub async fn create_portal(&self, caller: &Caller, new: NewPortal) -> Result<PortalView, Error> {
        let at = self.moment();
        if new.return_url.as_ref().is_some_and(|url| !caller.rp.return_urls.contains(url)) {
            return Err(Error::ReturnUrlNotAllowed);
        }
        let session = match &new.session_token {
            Some(token) => self.session_of_token(&at, caller, token).await?.filter(|s| {
                let serves =
                    s.grant.action == requirement::LOGIN || s.grant.action.starts_with(requirement::FACTOR_ACTIONS);
                s.user_id == new.user_id && serves && !s.grant.single_use && is_recent(s, at.now)
            }),
            None => None,
        };
        let id = Id::new(Kind::Portal, &at);
        let link_token = Zeroizing::new(at.token());
        let client_token = ClientToken { id: id.clone(), secret: Zeroizing::new(at.token()) };
        let portal = PortalSession {
            id,
            rp_id: caller.rp.id.clone(),
            user_id: new.user_id,
            flow: new.flow,
            return_url: new.return_url,
            created_at: at.now,
            expires_at: at.now.plus_seconds(LIFE),
            link_hash: token_hash(&link_token),
            link_opened_at: None,
            browser_hash: None,
            client_token_hash: token_hash(&client_token.secret),
            session_id: session.map(|s| s.id),
            factor_id: None,
        };
        let view = PortalView { portal, link_token, client_token: client_token.text() };
        let mut event = self.event(&at, caller, "portal_session.created", Some(&view.portal.user_id));
        event.session_id = view.portal.session_id.clone();
        let store = self.keeping(&at, caller, &view.portal.user_id, Ending::Visit(&view));
        store.create_portal_session(&view.portal, &event).await?;
        Ok(view)
    }

    /// What a client token opens. For as long again as it opens a challenge it is good for reading how that ended.
    pub async fn by_client_token(&self, text: &str) -> Result<Option<(Opened, Known)>, Error> {
        let Some(token) = ClientToken::parse(text) else { return Ok(None) };
        let hash = token_hash(&token.secret);
        let now = self.moment().now;
        let opened = self.opened(&token.id).await?;
        Ok(opened.filter(|(opened, _)| match opened {
            Opened::Challenge(c, _) => {
                let is_its = c.client_token_hash.as_ref().is_some_and(|kept| same(kept, &hash));
                is_its && now < c.expires_at.plus_seconds(CLIENT_TOKEN_LIFE)
            }
            Opened::Portal(p, _) => {
                same(&p.client_token_hash, &hash) && now < p.created_at.plus_seconds(CLIENT_TOKEN_LIFE)
            }
        }))
    }

    /// What a browser's cookie opens.
    pub async fn by_browser(&self, id: &Id, cookie: &str) -> Result<Option<Opened>, Error> {
        let hash = token_hash(cookie);
        let opened = self.opened(id).await?.map(|(opened, _)| opened);
        Ok(opened.filter(|opened| opened.browser_hash().is_some_and(|kept| same(kept, &hash))))
    }

    /// The newest open challenge of the same person for the same action that the browser with these cookies began after this one:
    /// it is finished there, not here.
    pub async fn newer(&self, challenge: &Challenge, beside: &[(Id, Zeroizing<String>)]) -> Result<Option<Id>, Error> {
        let now = self.moment().now;
        let mut later: Vec<_> = beside.iter().filter(|(id, _)| *id > challenge.id).collect();
        later.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        for (id, cookie) in later.into_iter().take(MOST_LOOKED_AT) {
            let Some(Opened::Challenge(other, _)) = self.by_browser(id, cookie).await? else { continue };
            let same = (&other.rp_id, &other.user_id, &other.terms.action)
                == (&challenge.rp_id, &challenge.user_id, &challenge.terms.action);
            let is_later = other.created_at > challenge.created_at;
            if same && is_later && other.status_at(now) == ChallengeStatus::Pending {
                return Ok(Some(other.id));
            }
        }
        Ok(None)
    }

    /// Whether a link's secret is right, used or not; opens nothing.
    pub async fn is_link(&self, id: &Id, link_token: &str) -> Result<Option<Opened>, Error> {
        let hash = token_hash(link_token);
        let opened = self.opened(id).await?.map(|(opened, _)| opened);
        Ok(opened.filter(|opened| opened.link_hash().is_some_and(|kept| same(kept, &hash))))
    }

    /// Binds what a link names to this browser, once, and gives the secret of its cookie and when what it opens ends; `None` where the
    /// link is none, or another was first.
    pub async fn open_link(&self, id: &Id, link_token: &str) -> Result<Option<(Zeroizing<String>, Timestamp)>, Error> {
        let at = self.moment();
        let Some(opened) = self.is_link(id, link_token).await? else { return Ok(None) };
        let cookie = Zeroizing::new(at.token());
        let hash = token_hash(&cookie);
        let done = match &opened {
            Opened::Challenge(challenge, _) => self.store.open_challenge_link(challenge, &hash, at.now).await,
            Opened::Portal(portal, _) => self.store.open_portal_link(portal, &hash, at.now).await,
        };
        Ok(store::stood(done)?.then(|| (cookie, opened.expires_at())))
    }

    async fn opened(&self, id: &Id) -> Result<Option<(Opened, Known)>, Error> {
        let is_portal = Id::parse(Kind::Portal, id.as_str()).is_some();
        if is_portal {
            let Some(portal) = self.store.portal_session(id).await? else { return Ok(None) };
            let rp = self.store.find_relying_party(portal.rp_id.as_str()).await?;
            return Ok(rp.map(|rp| (Opened::Portal(Box::new(portal), Arc::new(rp)), Known::Nothing)));
        }
        let Some((rp, challenge, dossier)) = self.store.any_case(id, self.clock.now()).await? else { return Ok(None) };
        let opened = Opened::Challenge(Box::new(challenge.clone()), Arc::new(rp));
        Ok(Some((opened, Known::Case(Arc::new(Some((challenge, dossier)))))))
    }

    /// Notes the enrolment that is under way on the portal's page.
    pub async fn set_portal_factor(&self, portal: &PortalSession, factor: &Id) -> Result<(), Error> {
        match self.store.set_portal_factor(portal, factor).await {
            Err(store::Error::Conflict(_)) => Err(Error::NotFound),
            noted => Ok(noted?),
        }
    }

    /// Whether the person must prove themselves before the portal may change anything.
    pub async fn needs_step_up(&self, caller: &Caller, user_id: &str, flow: Flow) -> Result<bool, Error> {
        let what = match flow {
            Flow::RecoveryCodes => Manage::RecoveryCodes,
            Flow::Settings => Manage::Rename,
            Flow::AddPasskey | Flow::AddAuthenticatorApp | Flow::AddPhone => Manage::Add,
        };
        match self.may_manage(&self.moment(), caller, user_id, what).await {
            Ok(_) => Ok(false),
            Err(Error::StepUpRequired) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Opens the challenge by which a person proves themselves to the portal, bound to the browser that asks.
    pub async fn portal_challenge(
        &self,
        caller: &Caller,
        portal: &PortalSession,
        page: &str,
    ) -> Result<(Challenge, Zeroizing<String>), Error> {
        let at = self.moment();
        let factors = self.store.factors(&caller.rp.id, &portal.user_id, at.now).await?;
        let highest = assurance::highest(&factors, self.cool_off, at.now);
        // As strong as the strongest factor, or a recovery code, whose session can do less (api.md, 4): it is not asked for
        // where it would not do.
        let by_recovery =
            ![Flow::RecoveryCodes.page(), Flow::Settings.page()].contains(&page.split('?').next().unwrap_or_default());
        let methods = MethodKind::ALL.into_iter().filter(|kind| by_recovery || *kind != MethodKind::RecoveryCode);
        let cookie = Zeroizing::new(at.token());
        let terms = Terms {
            action: manage_action(),
            require: Requirement { methods: Some(methods.collect()), ..Requirement::default() },
            client: caller.client.clone().unwrap_or_default(),
            portal: Some(Portal { id: portal.id.clone(), page: page.to_owned(), acr: highest }),
            ..Terms::default()
        };
        let end = at.now.plus_seconds(challenge::LIFE).min(portal.expires_at);
        let challenge = Challenge {
            link_opened_at: Some(at.now),
            browser_hash: Some(token_hash(&cookie)),
            ..Challenge::new(&at, &caller.rp.id, &portal.user_id, terms, challenge::ATTEMPTS, end)
        };
        self.save_challenge(&at, caller, &self.store, &challenge).await?;
        Ok((challenge, cookie))
    }

    /// Judges an answer that came through our own page.
    pub async fn verify_on_page(
        &self,
        caller: &Caller,
        challenge: &Challenge,
        given: &Given,
    ) -> Result<Verdict, Answered> {
        let delivery = if challenge.terms.portal.is_some() { Delivery::Visit } else { Delivery::Page };
        self.verify(caller, &challenge.id, given, delivery).await
    }

    /// Whether the caller may change the user's factors. The relying party's server may; a person needs a step-up at the
    /// strength of the strongest factor, unless there is none yet. Gives the recovery-code session whose one right this would spend.
    pub(super) async fn may_manage(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        user_id: &str,
        what: Manage,
    ) -> Result<Option<Leave>, Error> {
        let session_id = match (&caller.portal, &caller.enrols) {
            (Some(portal), _) if portal.user_id == user_id && at.now < portal.expires_at => {
                if what == Manage::Add {
                    self.way_is_open(at, portal).await?;
                }
                portal.session_id.as_ref()
            }
            // On the way to a challenge a first factor is set up, and nothing else is done.
            (None, Some(challenge)) if challenge.user_id == user_id && what == Manage::Add => {
                is_open(challenge, at.now)?;
                None
            }
            (None, None) => return Ok(None),
            _ => return Err(Error::NotFound),
        };
        let factors = self.store.factors(&caller.rp.id, user_id, at.now).await?;
        let Some(highest) = assurance::highest(&factors, self.cool_off, at.now) else {
            return Ok(None);
        };
        let session = self.step_up(at, caller, user_id, session_id).await?.ok_or(Error::StepUpRequired)?;
        if !session.is_recovery() {
            let suffices = session.grant.acr >= highest;
            return suffices.then_some(Some(Leave::Session(session.id))).ok_or(Error::StepUpRequired);
        }
        let unspent = match what {
            Manage::Add => session.added_at.is_none(),
            Manage::Remove => session.removed_at.is_none(),
            Manage::Rename | Manage::RecoveryCodes => false,
        };
        if unspent { Ok(Some(Leave::Right(session.id))) } else { Err(Error::StepUpRequired) }
    }

    /// Whether the person proved who they are to this portal session, and the proof counts still.
    pub async fn is_proven(&self, caller: &Caller, portal: &PortalSession) -> Result<bool, Error> {
        let session = self.step_up(&self.moment(), caller, &portal.user_id, portal.session_id.as_ref()).await?;
        Ok(session.is_some())
    }

    /// The user's step-up session of this id, while it counts.
    async fn step_up(
        &self,
        at: &Moment<'_>,
        caller: &Caller,
        user_id: &str,
        id: Option<&Id>,
    ) -> Result<Option<Session>, Error> {
        let Some(id) = id else { return Ok(None) };
        let session = self.store.session(&caller.rp.id, id).await?;
        Ok(session.filter(|s| s.is_active(at.now) && s.user_id == user_id && is_recent(s, at.now)))
    }
}

/// Whether the proof behind a session is recent enough to change factors, whatever age the session was passed on at.
fn is_recent(session: &Session, now: Timestamp) -> bool {
    now < session.grant.auth_time.plus_seconds(requirement::DEFAULT_MAX_AGE)
}

impl Opened {
    /// The relying party.
    pub fn rp(&self) -> &Arc<RelyingParty> {
        match self {
            Opened::Challenge(_, rp) | Opened::Portal(_, rp) => rp,
        }
    }

    /// When it runs out.
    pub fn expires_at(&self) -> Timestamp {
        match self {
            Opened::Challenge(c, _) => c.expires_at,
            Opened::Portal(p, _) => p.expires_at,
        }
    }

    /// Whose it is.
    pub fn user_id(&self) -> &str {
        match self {
            Opened::Challenge(c, _) => &c.user_id,
            Opened::Portal(p, _) => &p.user_id,
        }
    }

    fn browser_hash(&self) -> Option<&[u8]> {
        match self {
            Opened::Challenge(c, _) => c.browser_hash.as_deref(),
            Opened::Portal(p, _) => p.browser_hash.as_deref(),
        }
    }

    fn link_hash(&self) -> Option<&[u8]> {
        match self {
            Opened::Challenge(c, _) => c.link_hash.as_deref(),
            Opened::Portal(p, _) => Some(&p.link_hash),
        }
    }
}
