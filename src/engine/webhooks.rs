//! Webhook endpoints as their relying party manages them. What is sent to them, and when: `courier`.

use zeroize::Zeroizing;

use super::{Caller, Clash, Ending, Engine, Error};
use crate::model::{Delivery, EVENT_TYPES, Endpoint, Id, Kind};
use crate::store::{self, Contest, EndpointChange};
use crate::vault::{Row, WebhookSecrets};

/// Endpoints of one relying party.
const MOST: i64 = 20;
/// Deliveries of one endpoint that have not ended; events beyond that wait to be handed out.
pub const MOST_UNDELIVERED: i64 = 1000;
/// The type of a test, which is no event of the chain.
pub const TEST: &str = "webhook.test";

/// An endpoint to be made.
pub struct NewEndpoint {
    /// The address.
    pub url: String,
    /// Which types of events; `None` for all.
    pub kinds: Option<Vec<String>>,
    /// The relying party's own words.
    pub description: Option<String>,
}

/// An endpoint with the secret that signs from now on, which is seen once.
pub struct WithSecret {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// `whsec_…`
    pub secret: Zeroizing<String>,
}

/// The row of an endpoint's secrets.
pub fn endpoint_row<'a>(rp: &'a Id, id: &'a Id) -> Row<'a> {
    Row { table: "webhook_endpoints", rp: rp.as_str(), user: "", id: id.as_str() }
}

impl Engine {
    /// Makes an endpoint and its secret. [`Clash::EndpointLimit`] where there are 20.
    pub async fn create_endpoint(&self, caller: &Caller, new: NewEndpoint) -> Result<WithSecret, Error> {
        let at = self.moment();
        self.couriers.check(&new.url)?;
        let (id, secrets) = (Id::new(Kind::Webhook, &at), WebhookSecrets::first(&at));
        let endpoint = Endpoint {
            secrets: self.vault.seal(&at, endpoint_row(&caller.rp.id, &id), &secrets.to_bytes()),
            id,
            rp_id: caller.rp.id.clone(),
            url: new.url,
            kinds: new.kinds.map(known).transpose()?,
            description: new.description,
            handed_to: 0,
            created_at: at.now,
            disabled: None,
            failing_since: None,
            paused_until: None,
        };
        let made = WithSecret { endpoint, secret: Zeroizing::new(secrets.text().to_owned()) };
        let event = self.event(&at, caller, "webhook_endpoint.created", None);
        let store = self.keeping(&at, caller, "", Ending::EndpointCreated(&made));
        match store.create_webhook_endpoint(&made.endpoint, MOST, &event).await {
            Ok(()) => Ok(made),
            Err(store::Error::Conflict(Contest::Limit)) => Err(Error::Clash(Clash::EndpointLimit)),
            Err(error) => Err(error.into()),
        }
    }

    /// The relying party's endpoints, oldest first, behind this one.
    pub async fn endpoints(&self, caller: &Caller, behind: Option<&Id>, limit: i64) -> Result<Vec<Endpoint>, Error> {
        Ok(self.store.webhook_endpoints(&caller.rp.id, behind.map_or("", Id::as_str), limit).await?)
    }

    /// One of them.
    pub async fn endpoint(&self, caller: &Caller, id: &Id) -> Result<Endpoint, Error> {
        self.store.webhook_endpoint(&caller.rp.id, id).await?.ok_or(Error::NotFound)
    }

    /// Changes an endpoint; what is absent stays.
    pub async fn change_endpoint(&self, caller: &Caller, id: &Id, change: EndpointChange) -> Result<Endpoint, Error> {
        let at = self.moment();
        if let Some(url) = &change.url {
            self.couriers.check(url)?;
        }
        let kinds = match change.kinds {
            Some(Some(kinds)) => Some(Some(known(kinds)?)),
            other => other,
        };
        let change = EndpointChange { kinds, ..change };
        let event = self.event(&at, caller, "webhook_endpoint.changed", None);
        found(self.store.change_webhook_endpoint(&caller.rp.id, id, &change, &event).await)?;
        self.endpoint(caller, id).await
    }

    /// Removes an endpoint and what it was told.
    pub async fn remove_endpoint(&self, caller: &Caller, id: &Id) -> Result<(), Error> {
        let event = self.event(&self.moment(), caller, "webhook_endpoint.removed", None);
        found(self.store.remove_webhook_endpoint(&caller.rp.id, id, &event).await)
    }

    /// A new secret, which signs at once; the one before signs along for a day. Secrets that do not open any more are left behind.
    pub async fn rotate_endpoint_secret(&self, caller: &Caller, id: &Id) -> Result<WithSecret, Error> {
        loop {
            let at = self.moment();
            let endpoint = self.endpoint(caller, id).await?;
            let row = endpoint_row(&caller.rp.id, id);
            let opened = self.open_row(row, &endpoint.secrets).await?.ok();
            let secrets = match opened.and_then(|bytes| WebhookSecrets::read(&bytes)) {
                Some(secrets) => secrets.rotated(&at),
                None => WebhookSecrets::first(&at),
            };
            let sealed = self.vault.seal(&at, row, &secrets.to_bytes());
            let event = self.event(&at, caller, "webhook_endpoint.secret_rotated", None);
            let rotated = WithSecret { endpoint, secret: Zeroizing::new(secrets.text().to_owned()) };
            let store = self.keeping(&at, caller, "", Ending::SecretRotated(&rotated));
            // Else it was sealed anew or rotated meanwhile, or removed: the next turn sees.
            if store::stood(store.replace_webhook_secrets(&rotated.endpoint, &sealed, &event).await)? {
                return Ok(rotated);
            }
        }
    }

    /// Queues an event that tells of nothing, to try an endpoint. [`Clash::EndpointDisabled`] where nothing is sent there.
    pub async fn test_endpoint(&self, caller: &Caller, id: &Id) -> Result<Delivery, Error> {
        let at = self.moment();
        let endpoint = self.endpoint(caller, id).await?;
        let delivery = Delivery {
            rp_id: endpoint.rp_id,
            endpoint_id: endpoint.id,
            event_id: Id::in_order(Kind::Event, &at),
            sequence: 0,
            kind: TEST.to_owned(),
            created_at: at.now,
            attempts: 0,
            next_at: Some(at.now),
            outcome: None,
            last_at: None,
            last_status: None,
            last_error: None,
        };
        let store = self.keeping(&at, caller, "", Ending::TestQueued(&delivery));
        match store.queue_delivery(&delivery, MOST_UNDELIVERED).await {
            Ok(()) => Ok(delivery),
            Err(store::Error::Conflict(Contest::Limit)) => Err(Error::Busy(60)),
            Err(store::Error::Conflict(_)) => Err(Error::Clash(Clash::EndpointDisabled)),
            Err(error) => Err(error.into()),
        }
    }

    /// What an endpoint was told, newest first, before this event.
    pub async fn deliveries(
        &self,
        caller: &Caller,
        id: &Id,
        before: Option<&Id>,
        limit: i64,
    ) -> Result<Vec<Delivery>, Error> {
        self.endpoint(caller, id).await?;
        Ok(self.store.deliveries(&caller.rp.id, id, before, limit).await?)
    }
}

/// Types of events that there are, each once.
fn known(mut kinds: Vec<String>) -> Result<Vec<String>, Error> {
    kinds.sort_unstable();
    kinds.dedup();
    match !kinds.is_empty() && kinds.iter().all(|kind| EVENT_TYPES.contains(&kind.as_str())) {
        true => Ok(kinds),
        false => {
            Err(Error::Invalid { param: "events", why: "Expected types of events, as factor.added; null for all." })
        }
    }
}

fn found(done: Result<(), store::Error>) -> Result<(), Error> {
    match done {
        Err(store::Error::Conflict(Contest::Row)) => Err(Error::NotFound),
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the engine writes down of a relying party is what an endpoint can ask for; what it writes of itself is not.
    #[test]
    fn every_type_that_is_written_is_known() {
        const OWN: [&str; 9] = [
            "data_key.published",
            "data_key.removed",
            "example.com",
            "kept_answers.answer",
            "kept_answers.whole",
            "master_key.rotated",
            "pepper.published",
            "signing_key.published",
            "signing_key.unreadable",
        ];
        let mut found = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/engine")).expect("the folder") {
            let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("UTF-8");
            for word in text.split('"').filter(|w| w.split('.').count() == 2 && w.len() < 64) {
                if word.bytes().all(|b| b.is_ascii_lowercase() || b"._".contains(&b)) && !word.starts_with('.') {
                    found.insert(word.to_owned());
                }
            }
        }
        found.retain(|kind| !OWN.contains(&kind.as_str()) && kind != TEST);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), EVENT_TYPES);
        let guide =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/webhooks.md")).expect("the guide");
        let list = guide.split("## Types of events").nth(1).expect("its list").split("CAEP").next().unwrap_or_default();
        let told: Vec<&str> = list.split('`').filter(|w| w.contains('.') && !w.contains(' ')).collect();
        assert_eq!(told, EVENT_TYPES);
    }
}
