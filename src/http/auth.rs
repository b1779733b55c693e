//! Who calls: a relying party's server by its API key, or a browser by its client token.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, ORIGIN, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};

use super::body::OfId;
use super::problem::{self, Refused};
use super::{App, RequestId};
use crate::engine::{Caller, Known, Named, Once, Opened};
use crate::model::{Actor, Client, Id, Kind, RelyingParty, Scope};

/// Every API key begins so.
const API_KEY: &str = "sk_";

/// A relying party's server.
pub struct Server {
    /// On whose behalf.
    pub caller: Caller,
    scopes: Vec<Scope>,
}

impl Server {
    /// Whether its key has the scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// The caller, if its key has the scope.
    pub fn with(self, scope: Scope) -> Result<Caller, Refused> {
        match self.may(scope) {
            true => Ok(self.caller),
            false => Err(Refused { detail: needed(scope), ..problem::SCOPE_MISSING.into() }),
        }
    }
}

fn needed(scope: Scope) -> &'static str {
    match scope {
        Scope::FactorsWrite => "The API key needs the scope factors:write.",
        Scope::Challenges => "The API key needs the scope challenges.",
        Scope::Sessions => "The API key needs the scope sessions.",
        Scope::UsersRead => "The API key needs the scope users:read.",
        Scope::EventsRead => "The API key needs the scope events:read.",
        Scope::Admin => "The API key needs the scope admin.",
    }
}

/// A server, or a browser that holds a client token.
pub enum Bearer {
    /// By API key.
    Server(Server),
    /// By client token.
    Browser(Caller, Opened),
}

impl Bearer {
    /// On whose behalf it acts.
    pub fn relying_party(&self) -> &Id {
        match self {
            Bearer::Server(server) => &server.caller.rp.id,
            Bearer::Browser(caller, _) => &caller.rp.id,
        }
    }

    /// The server; a browser shows no API key.
    pub fn server(self) -> Result<Server, Refused> {
        match self {
            Bearer::Server(server) => Ok(server),
            Bearer::Browser(..) => Err(problem::API_KEY_INVALID.into()),
        }
    }

    /// The caller that may do something with this challenge, and whether it is a browser.
    fn for_challenge(self, id: Option<&Id>, scope: Scope) -> Result<(Caller, bool), Refused> {
        match self {
            Bearer::Server(server) => Ok((server.with(scope)?, false)),
            Bearer::Browser(caller, Opened::Challenge(challenge, _)) if Some(&challenge.id) == id => Ok((caller, true)),
            Bearer::Browser(..) => Err(problem::CLIENT_TOKEN_INVALID.into()),
        }
    }

    /// The caller that may add a factor of this user: also from the browser of a challenge on whose way that is done.
    pub fn for_enrolment<P: AsRef<str>>(self, path: Result<P, Refused>) -> Result<(Caller, P), Refused> {
        match (self, &path) {
            (Bearer::Browser(caller, Opened::Challenge(challenge, _)), Ok(named))
                if challenge.terms.enrol && challenge.user_id == named.as_ref() =>
            {
                Ok((Caller { enrols: Some(challenge), ..caller }, path?))
            }
            (other, _) => other.for_user(path, Scope::FactorsWrite),
        }
    }

    /// The caller that may do something with the factors of the user whom the path names. That the path does not read is only told
    /// to who may call.
    pub fn for_user<P: AsRef<str>>(self, path: Result<P, Refused>, scope: Scope) -> Result<(Caller, P), Refused> {
        let caller = match (self, &path) {
            (Bearer::Server(server), _) => server.with(scope)?,
            (Bearer::Browser(caller, Opened::Portal(portal, _)), Ok(named)) if portal.user_id == named.as_ref() => {
                caller
            }
            (Bearer::Browser(..), _) => return Err(problem::CLIENT_TOKEN_INVALID.into()),
        };
        Ok((caller, path?))
    }
}

/// A caller whose token has been seen but not looked up: a handler that names a user, a challenge or a session looks both up at once.
pub struct Pass {
    token: String,
    origin: Option<HeaderValue>,
    address: Option<IpAddr>,
    user_agent: Option<HeaderValue>,
    request_id: String,
    once: Option<Arc<Once>>,
}

impl Pass {
    /// Looks up the token, and with a server's key what the call names.
    pub async fn enter(&self, app: &App, named: Named<'_>) -> Result<Bearer, Refused> {
        let request_id = self.request_id.clone();
        if self.token.starts_with("ct_") {
            // What names an origin was counted before that was looked up.
            if self.origin.is_none() {
                app.flood.visit(self.address)?;
            }
            let found = app.engine.by_client_token(&self.token).await?;
            let (opened, known) = found.ok_or(Refused::from(problem::CLIENT_TOKEN_INVALID))?;
            self.check_origin(&app.engine.origins(opened.rp()))?;
            let client = client_of(self.address, self.user_agent.as_ref());
            let caller = browser(Arc::clone(opened.rp()), &opened, request_id, client);
            let caller = Caller { once: self.once.clone(), known, ..caller };
            return Ok(Bearer::Browser(caller, opened));
        }
        if !self.token.starts_with(API_KEY) {
            return Err(denied(self.address, app));
        }
        let found = app.engine.by_api_key(&self.token, named).await?;
        let (key, rp, known) = found.ok_or_else(|| denied(self.address, app))?;
        let (rp, actor, key_id, once) = (Arc::new(rp), Actor::Server, Some(key.id), self.once.clone());
        let caller = Caller { rp, actor, portal: None, enrols: None, request_id, client: None, key_id, known, once };
        Ok(Bearer::Server(Server { caller, scopes: key.scopes }))
    }

    /// A browser says where a call comes from; what says nothing is no page of another site.
    fn check_origin(&self, allowed: &[String]) -> Result<(), Refused> {
        match self.origin.as_ref().map(|v| v.to_str().unwrap_or_default()) {
            Some(origin) if !allowed.iter().any(|a| a == origin) => Err(problem::ORIGIN_NOT_ALLOWED.into()),
            _ => Ok(()),
        }
    }

    /// The caller that may do something with the one challenge of the path, and whether it is a browser. That a text is no id is
    /// only told to who may call.
    pub async fn at_challenge(&self, app: &App, id: &OfId, scope: Scope) -> Result<(Caller, Id, bool), Refused> {
        let id = id.of(Kind::Challenge);
        let bearer = self.enter(app, id.as_ref().map_or(Named::Nothing, Named::Challenge)).await?;
        let (caller, is_browser) = bearer.for_challenge(id.as_ref().ok(), scope)?;
        Ok((caller, id?, is_browser))
    }

    /// The same for a server and the one session of the path.
    pub async fn at_session(&self, app: &App, id: &OfId, scope: Scope) -> Result<(Caller, Id), Refused> {
        let id = id.of(Kind::Session);
        let server = self.server(app, id.as_ref().map_or(Named::Nothing, Named::Session)).await?;
        Ok((server.with(scope)?, id?))
    }

    /// The server that calls.
    pub async fn server(&self, app: &App, named: Named<'_>) -> Result<Server, Refused> {
        self.enter(app, named).await?.server()
    }
}

impl FromRequestParts<App> for Pass {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Pass, Refused> {
        let address = app.client_address(parts);
        let token = token(&parts.headers).ok_or_else(|| denied(address, app))?.to_owned();
        let header = |name| parts.headers.get(name).cloned();
        Ok(Pass {
            token,
            origin: header(ORIGIN),
            address,
            user_agent: header(USER_AGENT),
            request_id: request_id(parts),
            once: once(parts),
        })
    }
}

impl FromRequestParts<App> for Server {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Server, Refused> {
        Bearer::from_request_parts(parts, app).await?.server()
    }
}

impl FromRequestParts<App> for Bearer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Bearer, Refused> {
        Pass::from_request_parts(parts, app).await?.enter(app, Named::Nothing).await
    }
}

/// Whether an API key is shown, or what looks like one.
pub fn shows_key(headers: &HeaderMap) -> bool {
    token(headers).is_some_and(|token| token.starts_with(API_KEY))
}

/// No key of ours; an address that shows such too often is told to wait.
fn denied(address: Option<IpAddr>, app: &App) -> Refused {
    app.flood.denied(address, problem::API_KEY_INVALID)
}

/// A person behind a browser.
pub fn browser(rp: Arc<RelyingParty>, opened: &Opened, request_id: String, client: Client) -> Caller {
    let portal = match opened {
        Opened::Portal(portal, _) => Some((**portal).clone()),
        Opened::Challenge(..) => None,
    };
    let (client, known) = (Some(client), Known::Nothing);
    Caller { rp, actor: Actor::User, portal, enrols: None, request_id, client, key_id: None, known, once: None }
}

/// What keeps the answer, where the request may be repeated.
fn once(parts: &Parts) -> Option<Arc<Once>> {
    parts.extensions.get().cloned()
}

/// The request's id, as the outermost layer set it.
pub fn request_id(parts: &Parts) -> String {
    parts.extensions.get::<RequestId>().map(|r| r.0.clone()).unwrap_or_default()
}

/// What is known of a browser that calls directly.
pub fn client(parts: &Parts, app: &App) -> Client {
    client_of(app.client_address(parts), parts.headers.get(USER_AGENT))
}

fn client_of(address: Option<IpAddr>, user_agent: Option<&HeaderValue>) -> Client {
    let user_agent = user_agent.and_then(|v| v.to_str().ok());
    Client {
        ip: address.map(|ip| ip.to_string()),
        user_agent: user_agent.map(|text| text.chars().filter(|c| !c.is_control()).take(256).collect()),
        device: None,
    }
}

/// One `Authorization: Bearer` header; several are none.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (one, none) = (all.next()?, all.next());
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    (none.is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::http::torture())]

        #[test]
        fn torture_of_the_bearer_header(
            values in prop::collection::vec(prop_oneof![any::<Vec<u8>>(), "[Bb]earer[ \\t]{0,3}\\PC{0,20}".prop_map(String::into_bytes)], 0..3)
        ) {
            let mut headers = HeaderMap::new();
            for value in values.iter().filter_map(|v| axum::http::HeaderValue::from_bytes(v).ok()) {
                headers.append(AUTHORIZATION, value);
            }
            let all: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
            if let Some(token) = token(&headers) {
                prop_assert_eq!(all.len(), 1);
                let text = all[0].to_str().expect("it was read");
                prop_assert!(text[..7].eq_ignore_ascii_case("bearer ") && text[7..].trim() == token);
            }
        }
    }
}
