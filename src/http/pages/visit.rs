//! Who visits: the link that one browser opens once, the cookie that it then holds, and what guards its forms and calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, LOCATION, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_extra::extract::CookieJar;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::screen::Message;
use crate::engine::{self, Caller, Opened};
use crate::http::body::{self, Body};
use crate::http::problem::{self, Refused};
use crate::http::{App, auth};
use crate::model::{Challenge, Id, Kind, MethodKind, PortalSession, Timestamp};

/// ux, S1: the fault is not the person's.
pub const OUTAGE: &str = "Something went wrong on our side";
/// A cookie outlives what it opens by this many seconds, so that its browser can be told how it ended.
const AFTERGLOW: i64 = 3600;
/// Set with the landing page and asked for when its form comes back: whether this browser keeps cookies at all.
const PROBE: &str = "cs_probe";
/// A browser that passed before is known by it: it is counted apart from strangers. Half a year after the last success.
const DEVICE: &str = "cs_device";
/// Which method was last right in this browser; a year.
const USUAL: &str = "cs_usual";

/// What a browser may have opened: a challenge or a portal session.
pub trait Subject: Sized {
    /// Of its id.
    const KIND: Kind;
    /// The first part of its path.
    const PLACE: &str;
    /// What the landing page says, and asks.
    const WORDS: (&str, &str);

    /// Out of what was opened.
    fn of(opened: Opened) -> Option<Self>;
    /// Its id.
    fn id(&self) -> &Id;
    /// Whether a change may still be asked for; of a challenge the engine itself says so.
    fn is_over(&self, now: Timestamp) -> bool;
}

impl Subject for Challenge {
    const KIND: Kind = Kind::Challenge;
    const PLACE: &str = "challenge";
    const WORDS: (&str, &str) = ("Confirm it's you", "asks you to confirm something. It takes a few seconds.");

    fn of(opened: Opened) -> Option<Challenge> {
        match opened {
            Opened::Challenge(challenge, _) => Some(*challenge),
            Opened::Portal(..) => None,
        }
    }

    fn id(&self) -> &Id {
        &self.id
    }

    fn is_over(&self, _: Timestamp) -> bool {
        false
    }
}

impl Subject for PortalSession {
    const KIND: Kind = Kind::Portal;
    const PLACE: &str = "portal";
    const WORDS: (&str, &str) =
        ("Your sign-in methods", "lets you look after them here. This page opens in one browser only.");

    fn of(opened: Opened) -> Option<PortalSession> {
        match opened {
            Opened::Portal(portal, _) => Some(*portal),
            Opened::Challenge(..) => None,
        }
    }

    fn id(&self) -> &Id {
        &self.id
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
}

/// A browser that holds the cookie of what its address names.
pub struct Visit<S> {
    /// The server.
    pub app: App,
    /// What is open.
    pub subject: S,
    /// The person behind the browser.
    pub caller: Caller,
    /// What its forms and calls carry against forgery.
    pub guard: String,
    /// When the request came.
    pub now: Timestamp,
    /// The method that was last right in this browser.
    pub usual: Option<MethodKind>,
    /// Cookies of others of its kind that this browser holds.
    pub beside: Vec<(Id, Zeroizing<String>)>,
    /// What the browser is known by once it passes.
    device: Zeroizing<String>,
}

impl<S: Subject> Visit<S> {
    /// A path below the subject's own.
    pub fn path(&self, below: &str) -> String {
        let slash = if below.is_empty() { "" } else { "/" };
        format!("/{}/{}{slash}{below}", S::PLACE, self.subject.id())
    }

    /// The relying party's name.
    pub fn party(&self) -> &str {
        &self.caller.rp.name
    }

    /// Refuses a form that this browser's own page did not make.
    pub fn check(&self, fields: &Fields) -> Result<(), Response> {
        match is_same(fields.text("guard"), &self.guard) {
            true => Ok(()),
            false => Err(foreign(self.party())),
        }
    }

    /// The answer to a proof that was right: from now on this browser is known.
    pub fn known(&self, response: Response) -> Response {
        with_cookie(response, &self.app, DEVICE, &self.device, Some(engine::DEVICE_LIFE))
    }

    /// The page for an error that has no words of its own.
    pub fn fault(&self, error: impl Into<Refused>) -> Response {
        fault(self.party(), &self.caller.request_id, error)
    }
}

impl<S: Subject> FromRequestParts<App> for Visit<S> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Visit<S>, Response> {
        let request_id = auth::request_id(parts);
        let closed = || no_such_link(&request_id);
        let id = named::<S>(parts).ok_or_else(closed)?;
        let cookies = CookieJar::from_headers(&parts.headers);
        let cookie = cookies.get(&host_name(app, &cookie_name(&id))).ok_or_else(closed)?.value();
        let found = app.engine.by_browser(&id, cookie).await;
        let opened = found.map_err(|error| fault("Countersign", &request_id, error))?.ok_or_else(closed)?;
        let at = app.engine.moment();
        let given = cookies.get(&host_name(app, DEVICE)).map(|cookie| cookie.value().to_owned());
        let device = Zeroizing::new(given.filter(|value| value.len() <= 64).unwrap_or_else(|| at.token()));
        let mut client = auth::client(parts, app);
        client.device = Some(app.engine.browser_lane(opened.rp(), opened.user_id(), &device));
        let caller = auth::browser(Arc::clone(opened.rp()), &opened, request_id.clone(), client);
        let guard = app.engine.form_guard(cookie);
        let subject = S::of(opened).ok_or_else(closed)?;
        let usual = cookies.get(&host_name(app, USUAL)).and_then(|cookie| MethodKind::parse(cookie.value()));
        let prefix = host_name(app, "cs_");
        let other = |name: &str| Id::parse(S::KIND, name.strip_prefix(&prefix)?).filter(|other| other != &id);
        let beside = cookies.iter().filter_map(|c| Some((other(c.name())?, Zeroizing::new(c.value().to_owned()))));
        let beside = beside.collect();
        Ok(Visit { app: app.clone(), subject, caller, guard, now: at.now, usual, beside, device })
    }
}

/// Text by name, of an address or a form.
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// The value, empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// An id of this kind, where the value is one.
    pub fn id(&self, name: &str, kind: Kind) -> Option<Id> {
        Id::parse(kind, self.text(name))
    }

    fn read(bytes: &[u8]) -> Fields {
        Fields(url::form_urlencoded::parse(bytes).into_owned().collect())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Fields {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Fields, Self::Rejection> {
        Ok(Fields::read(parts.uri.query().unwrap_or_default().as_bytes()))
    }
}

/// A form from one of our own pages.
pub struct Posted(pub Fields);

impl FromRequest<App> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Posted, Response> {
        if !is_own(request.headers(), app.engine.origin()) {
            return Err(foreign("Countersign"));
        }
        let (parts, body) = request.into_parts();
        let refused = |refused: Refused| fault("Countersign", &auth::request_id(&parts), refused);
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
        {
            return Err(refused(problem::MEDIA_TYPE_UNSUPPORTED.into()));
        }
        body::bytes(body).await.map(|bytes| Posted(Fields::read(&bytes))).map_err(refused)
    }
}

/// A call by a module of one of our own pages.
pub struct Called<S, T>(pub Visit<S>, pub T);

impl<S: Subject + Send, T: DeserializeOwned> FromRequest<App> for Called<S, T> {
    type Rejection = Refused;

    async fn from_request(request: Request, app: &App) -> Result<Called<S, T>, Refused> {
        let (mut parts, body) = request.into_parts();
        if !is_own(&parts.headers, app.engine.origin()) {
            return Err(problem::ORIGIN_NOT_ALLOWED.into());
        }
        let visit = Visit::<S>::from_request_parts(&mut parts, app).await;
        let closed = |answer: Response| match answer.status().is_server_error() {
            true => problem::STORE_UNAVAILABLE,
            false => problem::NOT_FOUND,
        };
        let visit = visit.map_err(|answer| Refused::from(closed(answer)))?;
        let guard = parts.headers.get(super::GUARD).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !is_same(guard, &visit.guard) {
            return Err(problem::ORIGIN_NOT_ALLOWED.into());
        }
        if visit.subject.is_over(visit.now) {
            return Err(problem::CLIENT_TOKEN_INVALID.into());
        }
        let Ok(body) = Body::from_request(Request::from_parts(parts, body), app).await;
        Ok(Called(visit, body.read()?))
    }
}

/// The first page behind a link. It only asks for a press: whatever follows links by itself burns nothing.
pub async fn land<S: Subject>(app: &App, parts: &Parts, token: &str) -> Response {
    let request_id = auth::request_id(parts);
    let Some(id) = named::<S>(parts) else { return no_such_link(&request_id) };
    let opened = match app.engine.is_link(&id, token).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return no_such_link(&request_id),
        Err(error) => return fault("Countersign", &request_id, error),
    };
    let taken = match &opened {
        Opened::Challenge(challenge, _) => challenge.link_opened_at.is_some(),
        Opened::Portal(portal, _) => portal.link_opened_at.is_some(),
    };
    if taken {
        return no_such_link(&request_id);
    }
    let party = &opened.rp().name;
    if S::KIND == Kind::Portal && app.engine.moment().now >= opened.expires_at() {
        return timed_out(party, None).respond(StatusCode::GONE);
    }
    let (heading, line) = S::WORDS;
    let fields = [("token", token), ("probe", "1")];
    let page = Message::new(party, heading).line(format!("{party} {line}"));
    let page = page.post("Continue", &format!("/{}/{id}", S::PLACE), &fields).respond(StatusCode::OK);
    with_cookie(page, app, PROBE, "1", None)
}

/// Binds what the link names to this browser and goes to the clean address.
pub async fn open<S: Subject>(app: &App, parts: &Parts, fields: &Fields) -> Response {
    let request_id = auth::request_id(parts);
    let Some(id) = named::<S>(parts) else { return no_such_link(&request_id) };
    // The link was not used up: its first page asks again.
    let again = || {
        let token =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("token", fields.text("token")).finish();
        format!("/{}/{id}?{token}", S::PLACE)
    };
    let keeps = CookieJar::from_headers(&parts.headers).get(&host_name(app, PROBE)).is_some();
    if !fields.text("probe").is_empty() && !keeps {
        return cookies_blocked().link("Try again", &again()).respond(StatusCode::FORBIDDEN);
    }
    match app.engine.open_link(&id, fields.text("token")).await {
        Ok(Some((cookie, expires_at))) => bound(app, see(&format!("/{}/{id}", S::PLACE)), &id, &cookie, expires_at),
        Ok(None) => no_such_link(&request_id),
        Err(error) => fault_before("Countersign", &request_id, error, &again()),
    }
}

/// The answer with the cookie that opens this id.
pub fn bound(app: &App, response: Response, id: &Id, cookie: &str, expires_at: Timestamp) -> Response {
    let life = (expires_at.seconds() - app.engine.moment().now.seconds()).max(0) + AFTERGLOW;
    with_cookie(response, app, &cookie_name(id), cookie, Some(life))
}

/// The answer with a note of the method that was right, to be offered first next time.
pub fn remembered(app: &App, response: Response, kind: MethodKind) -> Response {
    with_cookie(response, app, USUAL, kind.as_str(), Some(31_536_000))
}

/// The answer with a cookie for so many seconds, or until the browser ends.
fn with_cookie(mut response: Response, app: &App, name: &str, value: &str, life: Option<i64>) -> Response {
    let name = host_name(app, name);
    let life = life.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
    let secure = if app.is_secure() { "; Secure" } else { "" };
    if let Ok(value) = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{life}{secure}").parse() {
        response.headers_mut().append(SET_COOKIE, value);
    }
    response
}

fn cookie_name(id: &Id) -> String {
    format!("cs_{id}")
}

/// `__Host-` needs https, which a trial on localhost does not have.
fn host_name(app: &App, name: &str) -> String {
    let host = if app.is_secure() { "__Host-" } else { "" };
    format!("{host}{name}")
}

fn named<S: Subject>(parts: &Parts) -> Option<Id> {
    Id::parse(S::KIND, parts.uri.path().split('/').nth(2)?)
}

/// Whether a request that changes something comes from our own page, as far as the browser says.
fn is_own(headers: &HeaderMap, origin: &str) -> bool {
    let said = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    let by_origin = said(ORIGIN.as_str()).is_none_or(|o| o == origin);
    by_origin && said("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"))
}

fn is_same(given: &str, expected: &str) -> bool {
    given.as_bytes().ct_eq(expected.as_bytes()).into()
}

/// After a form: look there.
pub fn see(path: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response()
}

/// One page for all that a link may lack: unknown, of another browser, opened before.
pub fn no_such_link(request_id: &str) -> Response {
    let page = Message::new("Countersign", "This link doesn't work").stopped();
    let page = page.line("Go back to the app that sent you here and try again.".to_owned());
    page.reference(request_id).respond(StatusCode::NOT_FOUND)
}

/// The browser keeps no cookies; the link was not used up.
pub fn cookies_blocked() -> Message {
    let line = "Your browser blocks the cookie that keeps this step safe. Allow cookies for this site, then try again.";
    Message::new("Countersign", "Cookies are blocked").stopped().line(line.to_owned())
}

/// The visit has run out.
pub fn timed_out(party: &str, back: Option<&str>) -> Message {
    let page = Message::new(party, "This page timed out").stopped();
    let page =
        page.line(format!("For your safety it was open for a limited time only. Go back to {party} and start again."));
    match back {
        Some(back) if back.starts_with('/') => page.link("Go back", back),
        Some(back) => page.link(&format!("Return to {party}"), back),
        None => page,
    }
}

fn foreign(party: &str) -> Response {
    let page = Message::new(party, "That didn't come from this page").stopped();
    page.line("Nothing was changed. Go back and try again.".to_owned()).respond(StatusCode::FORBIDDEN)
}

fn fault(party: &str, request_id: &str, refused: impl Into<Refused>) -> Response {
    fault_before(party, request_id, refused, "")
}

/// The same, with the page on which it can be tried again.
fn fault_before(party: &str, request_id: &str, refused: impl Into<Refused>, again: &str) -> Response {
    let refused = refused.into();
    let ours = refused.code.status.is_server_error();
    let heading = if ours { OUTAGE } else { "That didn't work" };
    let line = if ours { "Nothing was changed. Try again in a minute." } else { refused.user_message() };
    let page = Message::new(party, heading).stopped().line(line.to_owned()).link("Try again", again);
    refused.tell_when(page.reference(request_id).respond(refused.code.status))
}
