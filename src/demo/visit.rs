//! One request of one browser: its session, its cookie, and the guards that stand before every page.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Form;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use subtle::ConstantTimeEq;

use super::browsers::{Browser, Notice, secret};
use super::{Bank, Shared, pages};

/// A browser's visit.
#[derive(Clone)]
pub struct Visit {
    /// The bank.
    pub bank: Shared,
    /// The browser's address.
    pub address: String,
    /// What the browser says it is.
    pub user_agent: String,
    cookie: Arc<Mutex<String>>,
}

impl Visit {
    /// Works on the browser's session. Nothing may wait while it does.
    pub fn with<T>(&self, work: impl FnOnce(&mut Browser) -> T) -> T {
        let settings = &self.bank.settings;
        self.bank.browsers.with(&self.cookie(), (settings.now)(), settings.random, work)
    }

    /// Gives the session a new id; the old cookie is worth nothing from now on.
    pub fn rotate(&self) {
        let fresh = self.secret();
        self.bank.browsers.rename(&self.cookie(), &fresh);
        self.set_cookie(fresh);
    }

    /// 256 random bits as text.
    pub fn secret(&self) -> String {
        secret(self.bank.settings.random)
    }

    /// Goes to a page of the bank, which says what happened.
    pub fn tell(&self, notice: Notice, path: &str) -> Response {
        self.with(|b| b.notice = Some(notice));
        Redirect::to(path).into_response()
    }

    fn cookie(&self) -> String {
        self.cookie.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_cookie(&self, cookie: String) {
        *self.cookie.lock().unwrap_or_else(PoisonError::into_inner) = cookie;
    }
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Visit, StatusCode> {
        parts.extensions.get::<Visit>().cloned().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// The fields of a form that was made for this browser.
pub struct Fields(HashMap<String, String>);

impl Fields {
    /// A field, trimmed; empty where it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |v| v.trim())
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Fields, Response> {
        let Some(visit) = request.extensions().get::<Visit>().cloned() else {
            return Err(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        };
        let Form(fields) =
            Form::<HashMap<String, String>>::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        let given = fields.get("csrf").map_or("", String::as_str);
        match visit.with(|b| bool::from(b.csrf.as_bytes().ct_eq(given.as_bytes()))) {
            true => Ok(Fields(fields)),
            false => Err(pages::out_of_date(&visit).await),
        }
    }
}

/// Stands before every page: the name by which it was reached, the origin of forms, the session, the headers.
pub async fn around(State(bank): State<Shared>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !is_at_home(&bank, headers) {
        let rest = request.uri().path_and_query().map_or("/", |p| p.as_str());
        return Redirect::temporary(&format!("{}{rest}", bank.settings.origin)).into_response();
    }
    let name = cookie_name(&bank.settings.origin);
    let given = CookieJar::from_headers(headers).get(&name).map(|c| c.value().to_owned());
    let now = (bank.settings.now)();
    let known = given.filter(|cookie| bank.browsers.knows(cookie, now));
    // The panes are read in the background: that keeps no session alive, and an answer that comes late must not undo a rotation.
    let is_quiet = request.uri().path() == "/demo/panes";
    if is_quiet && known.is_none() {
        return StatusCode::NO_CONTENT.into_response();
    }
    let cookie = known.clone().unwrap_or_else(|| secret(bank.settings.random));
    if !is_quiet {
        bank.browsers.touch(&cookie, now);
    }
    let visit = Visit {
        address: request
            .extensions()
            .get::<ConnectInfo<SocketAddr>>()
            .map_or_else(String::new, |peer| peer.0.ip().to_string()),
        user_agent: text(headers, header::USER_AGENT).chars().take(300).collect(),
        cookie: Arc::new(Mutex::new(cookie)),
        bank,
    };
    let is_foreign = request.method() == Method::POST && text(headers, header::ORIGIN) != visit.bank.settings.origin;
    let mut response = match is_foreign {
        true => pages::foreign_form(&visit).await,
        false => {
            request.extensions_mut().insert(visit.clone());
            next.run(request).await
        }
    };
    set_headers(&visit.bank, response.headers_mut());
    let cookie = visit.cookie();
    if known.as_ref() != Some(&cookie) && !is_quiet && !is_foreign {
        // For https it would be `__Host-…` and `Secure`; the demo is http on this machine alone.
        let cookie = Cookie::build((name, cookie)).path("/").http_only(true).same_site(SameSite::Lax).build();
        if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    response
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

fn is_at_home(bank: &Bank, headers: &HeaderMap) -> bool {
    bank.settings.origin.strip_prefix("http://") == Some(text(headers, header::HOST))
}

/// Cookies know no ports: two copies of the bank on one machine keep apart by name.
fn cookie_name(origin: &str) -> String {
    let port = origin.rsplit(':').next().unwrap_or_default();
    format!("harbour_bank_{port}")
}

fn set_headers(bank: &Bank, headers: &mut HeaderMap) {
    // A form that begins a step-up is redirected to the engine, which `form-action` must allow (CSP 3, 6.4.1).
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self' {}; base-uri 'none'; frame-ancestors 'none'",
        bank.settings.engine
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
}
