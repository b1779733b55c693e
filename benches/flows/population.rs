//! Users to verify: authenticator apps by the store's own verbs, passkeys through the API as a browser would.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use countersign::clock::{Clock, SystemClock, SystemRng};
use countersign::engine::open_store;
use countersign::model::{Actor, Details, Event, Factor, Id, Kind, MethodKind, Moment, Timestamp, User};
use countersign::store::{Activation, FactorChange, NewFactor, RingKey, Settlement, Store};
use countersign::vault::{MasterKey, Purpose, Row, Vault, WrappedKey};
use serde_json::json;

use crate::authenticator::Authenticator;
use crate::engine::Engine;

/// A user with an authenticator app.
pub struct App {
    pub user: String,
    pub factor: Id,
    pub secret: Vec<u8>,
    /// The step of the last code that was sent.
    pub last: AtomicI64,
}

/// Users in turn, so that nobody is asked twice while others wait.
pub struct Apps {
    pub all: Vec<App>,
    next: AtomicUsize,
}

impl Apps {
    pub fn next(&self) -> &App {
        &self.all[self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }
}

/// A user with a passkey.
pub struct Passkey {
    pub user: String,
    pub device: Authenticator,
}

const AT_ONCE: usize = 512;

pub async fn apps(engine: &Engine, users: usize) -> Apps {
    let store = open_store(&engine.place.for_seeding(), false).await.expect("the database opens beside the engine");
    let vault = vault(engine, &store).await;
    let all = enrolled(&store, &engine.rp.id, users, move |at, row, secret| vault.seal(at, row, secret)).await;
    // The seeding's own events are linked first, so that their cost is not counted as that of flows.
    while !store.unsealed_realms().await.expect("it answers").is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    engine.place.tidy();
    Apps { all, next: AtomicUsize::new(0) }
}

/// Users with an active authenticator app, whose secret is sealed in this way.
pub async fn enrolled(
    store: &Store,
    rp: &Id,
    users: usize,
    seal: impl Fn(&Moment<'_>, Row<'_>, &[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> Vec<App> {
    let seal: Arc<Seal> = Arc::new(seal);
    let mut all = Vec::with_capacity(users);
    for start in (0..users).step_by(AT_ONCE) {
        let batch = (start..users.min(start + AT_ONCE)).map(|n| enrol(store, &seal, rp, n));
        let batch: Vec<_> = batch.map(tokio::spawn).collect();
        for app in batch {
            all.push(app.await.expect("the store takes it"));
        }
    }
    all
}

type Seal = dyn Fn(&Moment<'_>, Row<'_>, &[u8]) -> Vec<u8> + Send + Sync;

fn enrol(store: &Store, seal: &Arc<Seal>, rp: &Id, n: usize) -> impl Future<Output = App> + use<> {
    let (store, seal, rp) = (store.clone(), Arc::clone(seal), rp.clone());
    async move {
        let at = Moment::new(SystemClock.now(), &SystemRng);
        let (user_id, secret, id) = (format!("user-{n:08}"), at.random::<20>().to_vec(), Id::new(Kind::Factor, &at));
        store.ensure_user(&rp, &User::unnamed(&user_id, at.random(), at.now)).await.expect("a user");
        let row = Row { table: "factors", rp: rp.as_str(), user: &user_id, id: id.as_str() };
        let end = at.now.plus_seconds(900);
        let pending = Factor::new(id.clone(), &user_id, MethodKind::Totp, Details::Totp, at.now, end);
        let factor = Factor { name: "App".to_owned(), sealed: seal(&at, row, &secret), ..pending };
        let event = event(&at, &rp, &user_id);
        let new = NewFactor { factor, prompt: None, beside: (9, 9), event: event.clone() };
        store.create_factor(&rp, &new).await.expect("a factor");
        let factor = id.clone();
        let activation = Activation { id, details: Details::Totp, sealed: None, credential_id: None, last_step: 0 };
        let event = Event { id: Id::new(Kind::Event, &at), ..event };
        let activated = Some(FactorChange::Activate(activation));
        let settlement = Settlement { factor: activated, ..Settlement::telling(event) };
        store.settle(settlement).await.expect("an active factor");
        App { user: user_id, factor, secret, last: AtomicI64::new(0) }
    }
}

fn event(at: &Moment<'_>, rp: &Id, user_id: &str) -> Event {
    let of_user = Event::new(at, rp, "factor.added", Actor::Server);
    Event { user_id: Some(user_id.to_owned()), method: Some(MethodKind::Totp), ..of_user }
}

async fn vault(engine: &Engine, store: &Store) -> Vault {
    let ring = store.key_ring().await.expect("the engine has made its key ring");
    let wrapped = |key: RingKey| WrappedKey {
        id: key.id,
        purpose: Purpose::parse(&key.purpose).expect("a purpose"),
        wrapped: key.wrapped,
        active_from: key.active_from.map(Timestamp),
    };
    let ring: Vec<_> = ring.into_iter().map(wrapped).collect();
    Vault::new(&MasterKey::parse(&engine.master_key).expect("the key"), &ring).expect("the ring opens")
}

pub async fn passkeys(engine: &Engine, users: usize) -> Vec<Passkey> {
    let mut all = Vec::with_capacity(users);
    for n in 0..users {
        let user = format!("passkey-{n:06}");
        let mut device = Authenticator::new("http://localhost:1");
        let path = format!("/v1/users/{user}/factors");
        let factor = engine.call(&path, &json!({"type": "webauthn"})).await;
        let credential = device.create(&factor["webauthn"]["creation_options"]).expect("the browser has no objection");
        let id = factor["id"].as_str().expect("an id");
        let done = engine.call(&format!("{path}/{id}/activate"), &json!({"credential": credential})).await;
        assert_eq!(done["status"], "active", "{done}");
        all.push(Passkey { user, device });
    }
    all
}
