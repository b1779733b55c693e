//! The application's client of the engine's HTTP API: every call has a time limit and leaves its record in the drawer.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::Settings;
use super::journal::Call;
use super::visit::Visit;

/// The engine has this long to answer.
const LONGEST: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is not used again: the engine closes it after 15 seconds.
const IDLE: Duration = Duration::from_secs(10);
/// The engine has this long to take the connection.
const CONNECT: Duration = Duration::from_secs(3);

/// The engine, from afar.
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

/// What the engine answered that is no refusal.
pub struct Answer {
    /// The body; `null` where there is none.
    pub body: Value,
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum Trouble {
    /// No answer, or none that can be read.
    Silent,
    /// A problem document (RFC 9457).
    Refused(Problem),
}

/// What the application reads of a problem document.
#[derive(Debug, Default, Deserialize)]
pub struct Problem {
    /// Stable; what programs decide by.
    #[serde(default)]
    pub code: String,
    /// May be shown to the person.
    #[serde(default)]
    pub user_message: String,
    /// What support needs to find the call.
    #[serde(default)]
    pub request_id: String,
}

/// A step-up session as it leaves the engine.
#[derive(Debug, Deserialize)]
pub struct Session {
    /// `ses_…`
    pub id: String,
    /// Opaque token.
    pub token: String,
    /// `None` for single-use sessions.
    pub jwt: Option<String>,
    /// Whose proof it was.
    pub user_id: String,
    /// The one action that it allows.
    pub action: String,
    /// `aal2`, `phr` or `phrh`
    pub acr: String,
    /// How it was given (RFC 8176).
    pub amr: Vec<String>,
    /// RFC 3339.
    pub auth_time: String,
    /// Our own thread, repeated.
    pub binding: Option<String>,
}

/// A text that was "sent".
#[derive(Clone, Deserialize)]
pub struct Text {
    /// The number.
    pub to: String,
    /// What it says.
    pub text: String,
}

impl Client {
    /// For these settings. The engine is on this machine: no certificates, no proxy.
    pub fn new(settings: &Settings) -> Client {
        let http = reqwest::Client::builder()
            .tls_certs_only([])
            .no_proxy()
            .resolve("localhost", settings.engine_address)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .timeout(LONGEST)
            .build()
            .expect("a client without certificates needs nothing of the machine");
        Client { http, base: settings.engine.clone(), key: settings.api_key.clone() }
    }

    /// `GET`.
    pub async fn get(&self, visit: &Visit, path: &str) -> Result<Answer, Trouble> {
        self.call(visit, Method::GET, "GET", path, None).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, visit: &Visit, path: &str, body: Value) -> Result<Answer, Trouble> {
        self.call(visit, Method::POST, "POST", path, Some(body)).await
    }

    /// `PUT` with a JSON body.
    pub async fn put(&self, visit: &Visit, path: &str, body: Value) -> Result<Answer, Trouble> {
        self.call(visit, Method::PUT, "PUT", path, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, visit: &Visit, path: &str) -> Result<Answer, Trouble> {
        self.call(visit, Method::DELETE, "DELETE", path, None).await
    }

    async fn call(
        &self,
        visit: &Visit,
        method: Method,
        name: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, Trouble> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let (status, answer) = match read(request).await {
            Ok(answered) => answered,
            Err(error) => {
                tracing::warn!(%error, path, "the engine does not answer");
                (0, Value::Null)
            }
        };
        let call = Call::new(name, path, &self.key, body.as_ref(), status, &answer);
        visit.with(|b| b.record(call));
        match status {
            0 => Err(Trouble::Silent),
            200..=299 => Ok(Answer { body: answer }),
            _ => Err(Trouble::Refused(serde_json::from_value(answer).unwrap_or_default())),
        }
    }

    /// The texts that were "sent", newest first; `None` where they cannot be read. No part of the API: an aid of the demo.
    pub async fn texts(&self) -> Option<Vec<Text>> {
        #[derive(Deserialize)]
        struct Inbox {
            data: Vec<Text>,
        }
        let request = self.http.get(format!("{}/dev/inbox", self.base)).timeout(CONNECT);
        let (_, body) = read(request).await.ok()?;
        serde_json::from_value::<Inbox>(body).ok().map(|inbox| inbox.data)
    }
}

impl Answer {
    /// A member as text; empty where it is missing.
    pub fn text(&self, member: &str) -> &str {
        self.body.get(member).and_then(Value::as_str).unwrap_or_default()
    }

    /// The step-up session in the answer.
    pub fn session(&self) -> Result<Session, Trouble> {
        self.read("/session")
    }

    /// The whole body or the part at a pointer, in our own terms.
    pub fn read<T: for<'a> Deserialize<'a>>(&self, pointer: &str) -> Result<T, Trouble> {
        let part = self.body.pointer(pointer).ok_or(Trouble::Silent)?;
        T::deserialize(part).map_err(|error| {
            tracing::warn!(%error, "the engine's answer cannot be read");
            Trouble::Silent
        })
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<(u16, Value), reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let body = response.bytes().await?;
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
