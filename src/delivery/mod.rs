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
    /// It will never take this message: most likely nobody can text this number.
    Rejected,
    /// It takes none of ours, because of its settings or ours: the number has nothing to do with it.
    Barred,
}

/// A gateway.
#[async_trait::async_trait]
pub trait Provider: Send + Sync {
    /// Its name in settings, logs and events.
    fn name(&self) -> &'static str;

    /// Hands over one message.
    async fn send(&self, message: &Message) -> Result<(), Refused>;
}

/// Why no gateway took the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// None did in time; later one may.
    Unavailable,
    /// Every one has rejected it for good.
    Rejected,
}

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
            let mut rejected = 0;
            for (n, provider) in self.providers.iter().enumerate() {
                let (name, watch) = (provider.name(), Stopwatch::start());
                let longest = if n == last { TOGETHER } else { EACH };
                let outcome = match tokio::time::timeout(longest, provider.send(message)).await {
                    Ok(Ok(())) => "accepted",
                    Ok(Err(Refused::Transient)) => "failed",
                    Ok(Err(Refused::Rejected)) => {
                        rejected += 1;
                        "rejected"
                    }
                    Ok(Err(Refused::Barred)) => "rejected",
                    Err(_) => "late",
                };
                measure::delivery(name, outcome, watch.seconds());
                if outcome == "accepted" {
                    return Ok(name);
                }
                tracing::warn!(provider = name, message_id = %message.id, outcome, "a gateway did not take a text");
            }
            let by_all = rejected > 0 && rejected == self.providers.len();
            Err(if by_all { Undelivered::Rejected } else { Undelivered::Unavailable })
        };
        tokio::time::timeout(TOGETHER, all).await.unwrap_or(Err(Undelivered::Unavailable))
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

/// 2xx is accepted; a client error other than 408 and 429 will not pass, and 400 and 422 are about the message itself.
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
        400 | 422 => Err(Refused::Rejected),
        400..=499 => Err(Refused::Barred),
        _ => Err(Refused::Transient),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::model::{Id, Kind, Moment, Number, Timestamp};

    struct Gateway(Result<(), Refused>);

    #[async_trait::async_trait]
    impl Provider for Gateway {
        fn name(&self) -> &'static str {
            "test"
        }

        async fn send(&self, _: &Message) -> Result<(), Refused> {
            self.0
        }
    }

    /// Only what all have rejected says something of the number.
    #[tokio::test]
    async fn a_message_is_rejected_where_every_gateway_rejects_it() {
        let at = Moment::new(Timestamp(0), &SystemRng);
        let message = Message {
            id: Id::new(Kind::Message, &at),
            rp_id: Id::new(Kind::RelyingParty, &at),
            to: Number::parse("+14155550123").expect("E.164"),
            text: "a text".to_owned().into(),
        };
        let (transient, rejected, barred) = (Err(Refused::Transient), Err(Refused::Rejected), Err(Refused::Barred));
        for (answers, outcome) in [
            (vec![], Err(Undelivered::Unavailable)),
            (vec![rejected], Err(Undelivered::Rejected)),
            (vec![rejected, rejected], Err(Undelivered::Rejected)),
            (vec![rejected, transient], Err(Undelivered::Unavailable)),
            (vec![barred, rejected], Err(Undelivered::Unavailable)),
            (vec![barred], Err(Undelivered::Unavailable)),
            (vec![rejected, Ok(())], Ok("test")),
        ] {
            let providers = answers.iter().map(|answer| Box::new(Gateway(*answer)) as Box<dyn Provider>).collect();
            assert_eq!(Outbox { providers }.send(&message).await, outcome, "{answers:?}");
        }
    }
}
