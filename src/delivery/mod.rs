//! Messages on their way to gateways, and webhooks to relying parties. The only room that talks to them; it learns what is sent and
//! to whom, and nothing else.
//!
//! # How to add a provider
//!
//! Implement [`Provider`]: hand one message to one gateway, and say whether a refusal may pass. Add it in [`Outbox::new`].
//! Trying the next gateway and the time limit live here, once.

mod http;
mod local;
mod twilio;
mod webhook;

pub use local::{Inbox, Kept};
pub use webhook::{Courier, Notice};

use std::sync::Arc;
use std::time::Duration;

use crate::config::{LocalProvider, Sms};
use crate::measure::{self, Stopwatch};
use crate::model::Message;

/// The gateways have this long together (api.md, 7).
const TOGETHER: Duration = Duration::from_secs(10);
/// One gateway has at most this share of it while others wait; the last one has what is left.
const EACH: Duration = Duration::from_secs(6);

/// Why a gateway did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It may take it later, or another may.
    Transient,
    /// It will never take this message.
    Rejected,
}

/// A gateway.
#[async_trait::async_trait]
pub trait Provider: Send + Sync {
    /// Its name in settings, logs and events.
    fn name(&self) -> &'static str;

    /// Hands over one message.
    async fn send(&self, message: &Message) -> Result<(), Refused>;
}

/// No gateway took the message in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered;

/// A gateway's client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}: {1}")]
pub struct ProviderError(pub &'static str, pub String);

/// The gateways in the order in which they are tried.
pub struct Outbox {
    providers: Vec<Box<dyn Provider>>,
}

impl Outbox {
    /// The gateways of the settings; `inbox` takes the texts where the settings name it.
    pub fn new(settings: &Sms, inbox: &Arc<Inbox>) -> Result<Outbox, ProviderError> {
        let mut providers: Vec<Box<dyn Provider>> = Vec::new();
        match settings.local {
            Some(LocalProvider::Console) => providers.push(Box::new(local::Console)),
            Some(LocalProvider::Inbox) => providers.push(Box::new(Arc::clone(inbox))),
            None => {}
        }
        if let Some(url) = &settings.http_url {
            providers.push(Box::new(http::Http::new(url.clone())?));
        }
        if let Some(twilio) = &settings.twilio {
            providers.push(Box::new(twilio::Twilio::new(twilio.clone())?));
        }
        Ok(Outbox { providers })
    }

    /// Whether there is any gateway.
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }

    /// Tries the gateways in turn; answers with the name of the one that accepted.
    pub async fn send(&self, message: &Message) -> Result<&'static str, Undelivered> {
        let all = async {
            let last = self.providers.len().saturating_sub(1);
            for (n, provider) in self.providers.iter().enumerate() {
                let (name, watch) = (provider.name(), Stopwatch::start());
                let longest = if n == last { TOGETHER } else { EACH };
                let outcome = match tokio::time::timeout(longest, provider.send(message)).await {
                    Ok(Ok(())) => "accepted",
                    Ok(Err(Refused::Transient)) => "failed",
                    Ok(Err(Refused::Rejected)) => "rejected",
                    Err(_) => "late",
                };
                measure::delivery(name, outcome, watch.seconds());
                if outcome == "accepted" {
                    return Ok(name);
                }
                tracing::warn!(provider = name, message_id = %message.id, outcome, "a gateway did not take a text");
            }
            Err(Undelivered)
        };
        tokio::time::timeout(TOGETHER, all).await.unwrap_or(Err(Undelivered))
    }
}

/// A client that follows no redirect. A machine without a CA bundle can still reach a gateway over plain HTTP.
fn client(provider: &'static str, url: &url::Url) -> Result<reqwest::Client, ProviderError> {
    let builder =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).connect_timeout(Duration::from_secs(5));
    let builder = if url.scheme() == "http" { builder.tls_certs_only([]) } else { builder };
    builder.build().map_err(|e| ProviderError(provider, format!("cannot make an HTTP client: {e}")))
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// 2xx is accepted; a client error other than 408 and 429 will not pass.
fn judge(answer: Result<reqwest::Response, reqwest::Error>) -> Result<(), Refused> {
    let answer = answer.map_err(|error| {
        // Without its address: that may hold a key.
        let error = chain(&error.without_url());
        tracing::warn!(error, "a gateway could not be asked");
        Refused::Transient
    })?;
    let status = answer.status();
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 429 => Err(Refused::Transient),
        400..=499 => Err(Refused::Rejected),
        _ => Err(Refused::Transient),
    }
}
