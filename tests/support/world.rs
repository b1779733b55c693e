//! An engine on a free port and a fresh database, under a clock that the test moves: in this process, put together as `serve`
//! does it, or as a process of its own. All that a test says to it goes over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use countersign::clock::{Clock, FileClock, ManualClock, SystemClock, SystemRng};
use countersign::config::{Config, DRAIN, Database, Secret, Sms};
use countersign::model::{RelyingParty, Scope, Timestamp};
use countersign::store::Store;
use countersign::vault::MasterKey;
use countersign::{Custodian, NewParty, Operator, Parts, Running};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use super::child::{IDLE, Serve, free_port};
use super::database::Scratch;
use super::document::Document;
use super::gateway::Gateway;
use super::speak::Caller;
use super::verbs::Bank;

static DOCUMENT: OnceCell<Document> = OnceCell::const_new();

/// The engine and everything around it.
pub struct World {
    pub clock: Arc<TestClock>,
    pub gateway: Gateway,
    pub operator: Operator,
    pub client: reqwest::Client,
    pub scratch: Arc<Scratch>,
    store: Store,
    config: Config,
    address: Mutex<SocketAddr>,
    running: Mutex<Option<Node>>,
    environment: Vec<(String, String)>,
}

enum Node {
    Here(Running),
    Process(Serve),
}

/// The time of a test.
pub enum TestClock {
    /// Stands still until it is moved.
    Still(ManualClock),
    /// The machine's, moved by the offset in a file, which processes read.
    Moving(FileClock, std::path::PathBuf),
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        match self {
            TestClock::Still(clock) => clock.now(),
            TestClock::Moving(clock, _) => clock.now(),
        }
    }
}

impl TestClock {
    pub fn advance(&self, seconds: i64) {
        match self {
            TestClock::Still(clock) => clock.advance(seconds),
            TestClock::Moving(_, file) => {
                let text = std::fs::read_to_string(file).unwrap_or_default();
                let offset = text.trim().parse().unwrap_or(0) + seconds;
                // Whole at once, whoever reads it now.
                let next = file.with_added_extension("next");
                std::fs::write(&next, offset.to_string()).expect("the clock moves");
                std::fs::rename(&next, file).expect("the clock moves");
            }
        }
    }
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
        let clock = Arc::new(TestClock::Still(ManualClock::new(Timestamp::from_seconds(now - now % 30 + 5))));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut config = Config {
            listen: address,
            public_url: format!("http://localhost:{}", address.port()).parse().expect("an address"),
            storage: scratch.storage.clone(),
            master_key: Secret(countersign::new_master_key()),
            sms: Sms { http_url: Some(gateway.url.clone()), ..Sms::default() },
            trusted_proxies: Vec::new(),
            factor_cool_off: 0,
            drain: DRAIN,
            metrics_listen: None,
            webhook_private: true,
            development: false,
        };
        change(&mut config);
        World::put_together(config, Arc::new(scratch), gateway, clock, listener).await
    }

    /// Another node on the same database, under the same clock.
    pub async fn second(&self) -> Arc<World> {
        self.second_with(|_| {}).await
    }

    /// The same, with other settings.
    pub async fn second_with(&self, change: impl FnOnce(&mut Config)) -> Arc<World> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (scratch, gateway, clock) = (Arc::clone(&self.scratch), self.gateway.clone(), Arc::clone(&self.clock));
        let mut config = self.config.clone();
        change(&mut config);
        World::put_together(config, scratch, gateway, clock, listener).await
    }

    /// A `countersign serve` of its own on this database, with these settings more.
    pub async fn process(scratch: Scratch, settings: &[(&str, &str)]) -> Arc<World> {
        let (gateway, file) = (Gateway::start().await, scratch.folder().join("clock"));
        let clock = Arc::new(TestClock::Moving(FileClock::new(file.clone()), file.clone()));
        let port = free_port();
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            public_url: format!("http://localhost:{port}").parse().expect("an address"),
            storage: scratch.storage.clone(),
            master_key: Secret(countersign::new_master_key()),
            sms: Sms { http_url: Some(gateway.url.clone()), ..Sms::default() },
            trusted_proxies: Vec::new(),
            factor_cool_off: 0,
            drain: DRAIN,
            metrics_listen: None,
            webhook_private: true,
            development: true,
        };
        let mut environment = vec![
            ("COUNTERSIGN_DATABASE_URL".to_owned(), scratch.url()),
            ("COUNTERSIGN_PUBLIC_URL".to_owned(), config.issuer()),
            ("COUNTERSIGN_MASTER_KEY".to_owned(), config.master_key.0.to_string()),
            ("COUNTERSIGN_SMS_HTTP_URL".to_owned(), gateway.url.to_string()),
            ("COUNTERSIGN_DEVELOPMENT".to_owned(), "true".to_owned()),
            ("COUNTERSIGN_CLOCK_FILE".to_owned(), file.display().to_string()),
        ];
        environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        scratch.store().await.close().await;
        let node = Node::Process(serve(port, &environment).await);
        World::around(config, Arc::new(scratch), gateway, clock, environment, node).await
    }

    /// Another process on the same database.
    pub async fn second_process(&self) -> Arc<World> {
        let port = free_port();
        let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], port)), ..self.config.clone() };
        let node = Node::Process(serve(port, &self.environment).await);
        let (scratch, gateway, clock) = (Arc::clone(&self.scratch), self.gateway.clone(), Arc::clone(&self.clock));
        World::around(config, scratch, gateway, clock, self.environment.clone(), node).await
    }

    /// The settings of the process, as a command takes them.
    pub fn command(&self, arguments: &[&str]) -> super::child::Ended {
        self.command_with(arguments, &[])
    }

    /// The same, with these settings instead.
    pub fn command_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> super::child::Ended {
        let mut pairs: Vec<_> = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // Any free port: the usual one may be taken on this machine.
        pairs.push(("COUNTERSIGN_LISTEN", "127.0.0.1:0"));
        pairs.extend(settings);
        super::child::run(arguments, &pairs)
    }

    /// kill -9; `start` starts it again.
    pub fn kill(&self) {
        self.take_process().kill();
    }

    /// The process, which the test ends in its own way.
    pub fn take_process(&self) -> Serve {
        match self.running.lock().expect("no test panics with it").take() {
            Some(Node::Process(serve)) => serve,
            _ => panic!("no process runs"),
        }
    }

    /// Starts the process again, at the same address.
    pub async fn start_again(&self) {
        let serve = serve(self.config.listen.port(), &self.environment).await;
        *self.running.lock().expect("no test panics with it") = Some(Node::Process(serve));
    }

    /// What the process has logged so far.
    pub fn log(&self) -> String {
        match &*self.running.lock().expect("no test panics with it") {
            Some(Node::Process(serve)) => serve.stderr(),
            _ => String::new(),
        }
    }

    /// Ends this engine in good order, and starts one with the same key and clock on another database.
    pub async fn moved_to(&self, scratch: Scratch) -> Arc<World> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let config = Config { storage: scratch.storage.clone(), ..self.config.clone() };
        let (gateway, clock) = (self.gateway.clone(), Arc::clone(&self.clock));
        World::put_together(config, Arc::new(scratch), gateway, clock, listener).await
    }

    /// Lets go of the database.
    pub async fn close_store(&self) {
        self.store.close().await;
    }

    /// Ends this engine in good order.
    pub async fn end(&self) {
        let node = self.running.lock().expect("no test panics with it").take();
        if let Some(Node::Here(running)) = node {
            running.stop().await;
        }
        self.store.close().await;
    }

    async fn put_together(
        config: Config,
        scratch: Arc<Scratch>,
        gateway: Gateway,
        clock: Arc<TestClock>,
        listener: TcpListener,
    ) -> Arc<World> {
        let config = Config { listen: listener.local_addr().expect("an address"), ..config };
        let node = Node::Here(run(&config, &clock, listener).await);
        World::around(config, scratch, gateway, clock, Vec::new(), node).await
    }

    async fn around(
        config: Config,
        scratch: Arc<Scratch>,
        gateway: Gateway,
        clock: Arc<TestClock>,
        environment: Vec<(String, String)>,
        node: Node,
    ) -> Arc<World> {
        let address = config.listen;
        let store = match &config.storage.database {
            Database::Sqlite(path) => Store::sqlite(path, 1).await,
            Database::Postgres(url) => Store::postgres(url, 1).await,
        };
        let store = store.expect("the database opens");
        let operator = Operator::new(store.clone(), Arc::clone(&clock) as _, Arc::new(SystemRng));
        let client = reqwest::Client::builder()
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(64)
            .pool_idle_timeout(IDLE)
            .build()
            .expect("a client");
        let world = World {
            clock,
            gateway,
            operator,
            client,
            scratch,
            store,
            config,
            address: Mutex::new(address),
            running: Mutex::new(Some(node)),
            environment,
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
        let node = self.running.lock().expect("no test panics with it").take().expect("it runs");
        let Node::Here(running) = node else { panic!("a process is killed") };
        running.abort();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        *self.address.lock().expect("no test panics with it") = listener.local_addr().expect("an address");
        let running = run(&self.config, &self.clock, listener).await;
        *self.running.lock().expect("no test panics with it") = Some(Node::Here(running));
    }

    /// The engine itself, where it runs in this process.
    pub fn engine(&self) -> Arc<countersign::engine::Engine> {
        match &*self.running.lock().expect("no test panics with it") {
            Some(Node::Here(running)) => Arc::clone(&running.engine),
            _ => panic!("it does not run in this process"),
        }
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

async fn serve(port: u16, environment: &[(String, String)]) -> Serve {
    let listen = format!("127.0.0.1:{port}");
    let mut pairs: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    pairs.push(("COUNTERSIGN_LISTEN", &listen));
    Serve::start(port, &pairs).await
}

async fn run(config: &Config, clock: &Arc<TestClock>, listener: TcpListener) -> Running {
    let parts = Parts {
        clock: Arc::clone(clock) as _,
        rng: Arc::new(SystemRng),
        migrate: true,
        around: None,
        listener: Some(listener),
        lock: None,
    };
    countersign::run(config, parts).await.expect("the engine starts")
}
