//! An engine in this process, put together as `serve` does it, on a free port and a fresh database, under a clock that the
//! test moves. All that a test says to it goes over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use countersign::clock::{Clock, ManualClock, SystemClock, SystemRng};
use countersign::config::{Config, Database, Secret, Sms};
use countersign::model::{RelyingParty, Scope, Timestamp};
use countersign::store::Store;
use countersign::vault::MasterKey;
use countersign::{Custodian, NewParty, Operator, Parts, Running};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use super::database::Scratch;
use super::document::Document;
use super::gateway::Gateway;
use super::speak::Caller;
use super::verbs::Bank;

static DOCUMENT: OnceCell<Document> = OnceCell::const_new();

/// The engine and everything around it.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub gateway: Gateway,
    pub operator: Operator,
    pub client: reqwest::Client,
    pub scratch: Arc<Scratch>,
    config: Config,
    address: Mutex<SocketAddr>,
    running: Mutex<Option<Running>>,
}

impl World {
    pub async fn start() -> Arc<World> {
        World::start_with(|_| {}).await
    }

    /// With other settings.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Arc<World> {
        World::start_on(Scratch::new().await, change).await
    }

    /// On this database.
    pub async fn start_on(scratch: Scratch, change: impl FnOnce(&mut Config)) -> Arc<World> {
        let gateway = Gateway::start().await;
        // Five seconds into a step of authenticator apps, so that a test knows where the next one begins.
        let now = SystemClock.now().seconds();
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(now - now % 30 + 5)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut config = Config {
            listen: address,
            public_url: format!("http://localhost:{}", address.port()).parse().expect("an address"),
            storage: scratch.storage.clone(),
            master_key: Secret(countersign::new_master_key()),
            sms: Sms { http_url: Some(gateway.url.clone()), ..Sms::default() },
            trusted_proxies: Vec::new(),
            development: false,
        };
        change(&mut config);
        World::put_together(config, Arc::new(scratch), gateway, clock, listener).await
    }

    /// Another node on the same database, under the same clock.
    pub async fn second(&self) -> Arc<World> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (scratch, gateway, clock) = (Arc::clone(&self.scratch), self.gateway.clone(), Arc::clone(&self.clock));
        World::put_together(self.config.clone(), scratch, gateway, clock, listener).await
    }

    async fn put_together(
        config: Config,
        scratch: Arc<Scratch>,
        gateway: Gateway,
        clock: Arc<ManualClock>,
        listener: TcpListener,
    ) -> Arc<World> {
        let address = listener.local_addr().expect("an address");
        let running = run(&config, &clock, listener).await;
        let store = match &config.storage.database {
            Database::Sqlite(path) => Store::sqlite(path, 1).await,
            Database::Postgres(url) => Store::postgres(url, 1).await,
        };
        let operator = Operator::new(store.expect("the database opens"), Arc::clone(&clock) as _, Arc::new(SystemRng));
        let client = reqwest::Client::builder()
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(64)
            .build()
            .expect("a client");
        let world = World {
            clock,
            gateway,
            operator,
            client,
            scratch,
            config,
            address: Mutex::new(address),
            running: Mutex::new(Some(running)),
        };
        world.document().await;
        Arc::new(world)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address.lock().expect("no test panics with it"))
    }

    /// The engine's public address, issuer of its JWTs.
    pub fn issuer(&self) -> String {
        self.config.issuer()
    }

    pub fn master_key(&self) -> String {
        self.config.master_key.0.to_string()
    }

    pub async fn document(&self) -> &'static Document {
        DOCUMENT
            .get_or_init(|| async {
                let answer = self.client.get(self.url("/openapi.json")).send().await.expect("the document");
                Document::new(answer.json().await.expect("JSON"))
            })
            .await
    }

    /// Moves the clock on.
    pub fn wait(&self, seconds: i64) {
        self.clock.advance(seconds);
    }

    pub fn now(&self) -> i64 {
        self.clock.now().seconds()
    }

    fn engine(&self) -> Arc<countersign::engine::Engine> {
        let running = self.running.lock().expect("no test panics with it");
        Arc::clone(&running.as_ref().expect("it runs").engine)
    }

    /// Moves the clock two seconds on, and waits until every event has its number.
    pub async fn seal(&self) {
        self.wait(2);
        for _ in 0..200 {
            self.engine().seal_events().await.expect("it seals");
            if self.scratch.texts("select id from events where sequence is null").await.is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("events are left without a number");
    }

    /// Seals whatever there is to seal just now.
    pub async fn seal_once(&self) {
        self.engine().seal_events().await.expect("it seals");
    }

    /// Learns of new keys, as the engine does from time to time.
    pub async fn refresh_keys(&self) {
        self.engine().refresh_keys().await.expect("the keys are read");
    }

    /// Hands that hold the master key.
    pub async fn custodian(&self) -> Custodian {
        let master = MasterKey::parse(&self.master_key()).expect("a master key");
        let store = self.scratch.store().await;
        Custodian::open(store, master, Arc::clone(&self.clock) as _, Arc::new(SystemRng)).await.expect("it opens")
    }

    /// What `audit verify` finds, over all chains: faults and their numbers.
    pub async fn faults(&self) -> Vec<(&'static str, i64)> {
        let reports = self.custodian().await.verify_audit(None, None).await.expect("it reads");
        reports.iter().flat_map(|r| r.findings.iter().map(|f| (f.fault.as_str(), f.sequence))).collect()
    }

    /// Ends the engine as a crash would, and starts another on the same database.
    pub async fn restart(&self) {
        let running = self.running.lock().expect("no test panics with it").take().expect("it runs");
        running.abort();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        *self.address.lock().expect("no test panics with it") = listener.local_addr().expect("an address");
        let running = run(&self.config, &self.clock, listener).await;
        *self.running.lock().expect("no test panics with it") = Some(running);
    }

    /// The relying party that most tests act for.
    pub async fn bank(self: &Arc<World>) -> Bank {
        self.party("Bank", "bank.example", false).await
    }

    /// A relying party with one key and one return address.
    pub async fn party(self: &Arc<World>, name: &str, host: &str, test: bool) -> Bank {
        let new = NewParty {
            name: name.to_owned(),
            host: host.to_owned(),
            origins: vec![format!("https://{host}")],
            return_urls: vec![format!("https://{host}/back")],
            test,
        };
        let rp = self.operator.create_relying_party(new).await.expect("a relying party");
        let key = self.key(&rp, &[], None).await;
        Bank { server: self.caller(&key), rp, key }
    }

    /// A new API key of these scopes; of all but `admin` where none is named.
    pub async fn key(&self, rp: &RelyingParty, scopes: &[Scope], lifetime: Option<i64>) -> String {
        self.operator.create_key(rp, scopes.to_vec(), lifetime).await.expect("a key").secret
    }

    /// Somebody who calls with this token.
    pub fn caller(self: &Arc<World>, token: &str) -> Caller {
        Caller::new(Arc::clone(self)).with("authorization", &format!("Bearer {token}"))
    }

    /// Somebody who calls with nothing.
    pub fn stranger(self: &Arc<World>) -> Caller {
        Caller::new(Arc::clone(self))
    }
}

async fn run(config: &Config, clock: &Arc<ManualClock>, listener: TcpListener) -> Running {
    let parts = Parts {
        clock: Arc::clone(clock) as _,
        rng: Arc::new(SystemRng),
        migrate: true,
        around: None,
        listener: Some(listener),
    };
    countersign::run(config, parts).await.expect("the engine starts")
}
