//! Events on their way to webhook endpoints, beside all requests: one engine hands them out and sends what is due.
//!
//! The audit chain is the outbox. An endpoint stands at a number of its relying party's chain; events behind it become deliveries
//! in the write that moves it on. A delivery is claimed by a conditional write before it is sent, so it is sent at least once, and in
//! normal operation once. An endpoint is told one event after the other, and others do not wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::keys::closed_reason;
use super::leases::Lease;
use super::webhooks::{MOST_UNDELIVERED, TEST, endpoint_row};
use super::{Engine, Error};
use crate::delivery::{Courier, Notice};
use crate::measure;
use crate::model::{Actor, Delivery, Endpoint, Event, Id, Moment, Recorded, Reply, Timestamp};
use crate::policy::redelivery::{self, FAILING, Next};
use crate::store::{self, Attempted, Due, EventQuery};
use crate::vault::WebhookSecrets;

/// Events that are handed out in one write.
const BATCH: i64 = 64;
/// Deliveries that are read at once.
const READ: i64 = 16;
/// Endpoints that are told something at once, of all relying parties and of one; and how many of them may be failing, so that
/// those which take their messages never wait for those which do not.
const AT_ONCE: [usize; 2] = [64, 32];
const AT_ONCE_OF_ONE: [usize; 2] = [5, 2];
/// How long a claimed delivery is left to who claimed it, in seconds: far longer than an attempt takes.
const CLAIM: i64 = 60;

/// How often, and how many times, attempts under way are looked at before the engine ends: five seconds together.
const LOOK: Duration = Duration::from_millis(50);
const ENDING: usize = 100;

/// How an event reads to a receiver: the body of its message.
pub type Write = fn(Recorded) -> Vec<u8>;

/// What carries webhooks, and what it does now.
pub struct Couriers {
    courier: Courier,
    lease: Lease,
    under_way: Arc<Mutex<Vec<Due>>>,
    /// Nothing more is begun.
    is_ending: AtomicBool,
}

impl Couriers {
    /// `private`: also to http and to addresses that are not public.
    pub fn new(private: bool) -> Couriers {
        Couriers {
            courier: Courier::new(private),
            lease: Lease::new("webhooks"),
            under_way: Arc::default(),
            is_ending: AtomicBool::new(false),
        }
    }

    /// Begins nothing more, and waits for attempts that are under way, though not for long: what is cut off is made again.
    pub async fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        for _ in 0..ENDING {
            if self.under_way.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether webhooks may go to this address.
    pub fn check(&self, url: &str) -> Result<(), Error> {
        self.courier.check(url).map_err(|why| Error::Invalid { param: "url", why })
    }

    /// A place for this endpoint, unless it has one or too many are taken.
    fn place(&self, due: Due) -> Option<Place> {
        let mut all = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |others: &mut dyn Iterator<Item = &Due>, [most, most_failing]: [usize; 2]| {
            let (count, failing) = others.fold((0, 0), |(n, f), o| (n + 1, f + usize::from(o.is_failing)));
            count >= most || (due.is_failing && failing >= most_failing)
        };
        let has_one = all.iter().any(|other| other.endpoint == due.endpoint);
        let of_one = &mut all.iter().filter(|other| other.rp == due.rp);
        if has_one || is_full(&mut all.iter(), AT_ONCE) || is_full(of_one, AT_ONCE_OF_ONE) {
            return None;
        }
        all.push(due.clone());
        Some(Place { due, all: Arc::clone(&self.under_way) })
    }
}

/// An endpoint that is told something now.
struct Place {
    due: Due,
    all: Arc<Mutex<Vec<Due>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other.endpoint != self.due.endpoint);
    }
}

/// What became of an attempt.
#[derive(PartialEq, Eq)]
enum Sent {
    /// Taken, or no longer ours to send.
    Done,
    /// Not taken.
    Failed,
}

impl Engine {
    /// Hands out new events and begins to send what is due, unless another engine does. What it begins goes on by itself; the
    /// tasks are given back for those who want to wait.
    pub async fn deliver_webhooks(self: &Arc<Engine>, write: Write) -> Result<Vec<JoinHandle<()>>, store::Error> {
        let lagging = self.store.lagging_endpoints().await?;
        if !lagging.is_empty() && self.holds(&self.couriers.lease).await? {
            for endpoint in lagging {
                let id = endpoint.id.clone();
                if let Err(error) = self.hand_out(endpoint).await {
                    tracing::warn!(%error, endpoint = %id, "events wait to be handed out");
                }
            }
        }
        let at = self.moment();
        let mut due = self.store.due_endpoints(at.now).await?;
        if due.is_empty() || !self.holds(&self.couriers.lease).await? {
            return Ok(Vec::new());
        }
        // Where there are more than places, another one comes first each time, and who takes its messages before who does not.
        let first = at.below(u32::try_from(due.len()).unwrap_or(u32::MAX)) as usize;
        due.rotate_left(first);
        due.sort_by_key(|due| due.is_failing);
        let begun = due.into_iter().filter_map(|due| {
            let place = self.couriers.place(due)?;
            let engine = Arc::clone(self);
            Some(tokio::spawn(async move {
                let Due { rp, endpoint, .. } = &place.due;
                if let Err(error) = engine.serve_endpoint(rp, endpoint, write).await {
                    tracing::warn!(?error, %rp, %endpoint, "webhooks wait");
                }
            }))
        });
        Ok(begun.collect())
    }

    /// Turns events behind an endpoint into deliveries, as many as may wait for it.
    async fn hand_out(&self, mut endpoint: Endpoint) -> Result<(), store::Error> {
        let mut room = MOST_UNDELIVERED - self.store.count_undelivered(&endpoint).await?;
        while room >= BATCH {
            let query = EventQuery::behind(endpoint.handed_to, BATCH);
            let mut events = self.store.sealed_events(&endpoint.rp_id, &query).await?;
            let Some(to) = events.last().and_then(|e| e.link.as_ref()).map(|link| link.sequence) else { break };
            events.retain(|event| endpoint.wants(&event.kind));
            // Else it was another engine, or the endpoint was disabled or removed: the next turn reads anew.
            if !store::stood(self.store.hand_out(&endpoint, to, &events, self.clock.now()).await)? {
                break;
            }
            (endpoint.handed_to, room) = (to, room - events.len() as i64);
        }
        Ok(())
    }

    /// Sends what is due to an endpoint, in order, until nothing is or an attempt fails: who is down or busy is asked once a turn.
    async fn serve_endpoint(&self, rp: &Id, id: &Id, write: Write) -> Result<(), Error> {
        loop {
            let endpoint = self.store.webhook_endpoint(rp, id).await?;
            let now = self.clock.now();
            let Some(endpoint) = endpoint.filter(|e| e.is_open(now)) else { return Ok(()) };
            let due = self.store.due_deliveries(&endpoint, now, READ).await?;
            if due.is_empty() {
                return Ok(());
            }
            for delivery in due {
                if self.couriers.is_ending.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if self.attempt(&endpoint, &delivery, write).await? == Sent::Failed {
                    return Ok(());
                }
            }
        }
    }

    async fn attempt(&self, endpoint: &Endpoint, delivery: &Delivery, write: Write) -> Result<Sent, Error> {
        let at = self.moment();
        let end = at.now.plus_seconds(CLAIM);
        if !store::stood(self.store.claim_delivery(endpoint, delivery, at.now, end).await)? {
            return Ok(Sent::Done);
        }
        let attempts = delivery.attempts + 1;
        let row = endpoint_row(&endpoint.rp_id, &endpoint.id);
        let opened = self.open_row(row, &endpoint.secrets).await?.map_err(closed_reason);
        let secrets = match opened.and_then(|bytes| WebhookSecrets::read(&bytes).ok_or("seal_broken")) {
            Ok(secrets) => secrets,
            Err(why) => {
                tracing::error!(rp = %endpoint.rp_id, endpoint = %endpoint.id, why, "the secrets do not open: the endpoint is disabled");
                let mut done = ended(at.now, "failed");
                done.disable = Some((why, self.disabled(endpoint, why)));
                self.store.note_attempt(endpoint, delivery, attempts, &done).await?;
                return Ok(Sent::Failed);
            }
        };
        // Read now, so that a user who was erased meanwhile is in no message.
        let event = match delivery.kind == TEST {
            true => Some(test_event(&at, delivery)),
            false => self.store.event(&delivery.rp_id, &delivery.event_id).await?,
        };
        let Some(event) = event else {
            self.store.note_attempt(endpoint, delivery, attempts, &ended(at.now, "dropped")).await?;
            measure::webhook("dropped", 0.0);
            return Ok(Sent::Done);
        };
        let (id, timestamp, body) = (delivery.event_id.as_str(), at.now.seconds(), write(event));
        let signature = secrets.sign(at.now, id, timestamp, &body);
        let notice = Notice { url: &endpoint.url, id, timestamp, signature, body };
        let (reply, seconds) = self.couriers.courier.send(notice, at.now).await;
        self.settle_attempt(endpoint, delivery, attempts, reply, seconds).await
    }

    async fn settle_attempt(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        attempts: i64,
        reply: Reply,
        seconds: f64,
    ) -> Result<Sent, Error> {
        let at = self.moment();
        let (next, rest) = redelivery::after(&at, attempts, reply);
        let (status, error) = match reply {
            Reply::Status(status, _) => (Some(i64::from(status)), None),
            Reply::None(why) => (None, Some(why)),
        };
        let (word, outcome) = match next {
            Next::Delivered => ("delivered", Some("delivered")),
            Next::Again(_) => ("retried", None),
            Next::GivenUp => ("given_up", Some("failed")),
            Next::Gone => ("gone", Some("failed")),
        };
        let is_failing = || endpoint.failing_since.is_some_and(|since| since.plus_seconds(FAILING) <= at.now);
        let disable = match next {
            Next::Gone => Some("gone"),
            Next::GivenUp => is_failing().then_some("failing"),
            Next::Delivered | Next::Again(_) => None,
        };
        let done = Attempted {
            at: at.now,
            next_at: if let Next::Again(pause) = next { Some(Timestamp(at.now.0 + pause)) } else { None },
            outcome,
            status,
            error,
            pause: rest.map(|seconds| at.now.plus_seconds(seconds)),
            disable: disable.map(|why| (why, self.disabled(endpoint, why))),
        };
        measure::webhook(word, seconds);
        if next != Next::Delivered {
            let (rp, id, event) = (&endpoint.rp_id, &endpoint.id, &delivery.event_id);
            tracing::info!(%rp, endpoint = %id, %event, attempts, status, error, disable, "a webhook was not taken");
        }
        self.store.note_attempt(endpoint, delivery, attempts, &done).await?;
        Ok(if next == Next::Delivered { Sent::Done } else { Sent::Failed })
    }

    /// That an endpoint was disabled by the engine itself.
    fn disabled(&self, endpoint: &Endpoint, reason: &'static str) -> Event {
        let at = self.moment();
        Event::new(&at, &endpoint.rp_id, "webhook_endpoint.disabled", Actor::System).failed(reason)
    }
}

fn ended(at: Timestamp, outcome: &'static str) -> Attempted {
    Attempted { at, next_at: None, outcome: Some(outcome), status: None, error: None, pause: None, disable: None }
}

/// A test, as an event would be.
fn test_event(at: &Moment<'_>, delivery: &Delivery) -> Recorded {
    let event = Event::new(at, &delivery.rp_id, TEST, Actor::Server);
    Recorded::from(&Event { id: delivery.event_id.clone(), at: delivery.created_at, ..event })
}
