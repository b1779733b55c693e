//! An engine in this process, an application on another port to which its pages return, and a person with an app and codes.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Html;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::{Clock, ManualClock, SystemClock, SystemRng};
use countersign::config::{Config, DRAIN, Database, LocalProvider, Secret, Sms, Storage};
use countersign::methods::totp;
use countersign::model::Timestamp;
use countersign::{NewParty, Parts, Running};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::authenticator::Authenticator;
use crate::visitor::IDLE;

/// Guards that the application keeps for its browser.
const STATE: &str = "st&ate=1";
const VERIFIER: &str = "a verifier of forty-three characters or more, yes";

/// The engine and the application.
pub struct World {
    pub base: String,
    pub clock: Arc<ManualClock>,
    pub running: Running,
    /// Where hosted pages return.
    pub back: String,
    /// Queries with which browsers came back.
    pub returned: Arc<Mutex<Vec<String>>>,
    client: reqwest::Client,
    key: String,
    config: Config,
    _folder: Folder,
}

/// What is gone when a test ends.
struct Folder(std::path::PathBuf);

impl World {
    pub async fn start() -> World {
        World::start_with(|_| {}).await
    }

    /// With other settings.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let base = format!("http://localhost:{}", address.port());
        let now = SystemClock.now().seconds();
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(now - now % 30 + 5)));
        let folder = std::env::temp_dir().join(format!("countersign-pages-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut config = Config {
            listen: address,
            public_url: base.parse().expect("an address"),
            storage: Storage { pool: 4, ..Storage::new(Database::Sqlite(folder.join("pages.db"))) },
            master_key: Secret(countersign::new_master_key()),
            sms: Sms { local: Some(LocalProvider::Inbox), ..Sms::default() },
            trusted_proxies: Vec::new(),
            factor_cool_off: 0,
            drain: DRAIN,
            metrics_listen: None,
            webhook_private: true,
            development: true,
        };
        change(&mut config);
        let (back, returned) = application().await;
        let operator = countersign::operator(&config.storage, true).await.expect("the database opens");
        let party = NewParty {
            name: "Harbour Bank".to_owned(),
            host: "localhost".to_owned(),
            origins: vec!["http://localhost:3000".to_owned()],
            return_urls: vec![back.clone()],
            test: false,
        };
        let party = operator.create_relying_party(party).await.expect("a relying party");
        let key = operator.create_key(&party, Vec::new(), None).await.expect("a key").secret;
        let running = run(&config, &clock, listener).await;
        let client = reqwest::Client::builder().tls_certs_only([]).pool_idle_timeout(IDLE).build().expect("a client");
        World { base, clock, running, back, returned, client, key, config, _folder: Folder(folder) }
    }

    /// The same one day later, when nothing sends texts any more.
    pub async fn without_texts(self) -> World {
        self.clock.advance(86_400);
        self.again(|config| config.sms.local = None).await
    }

    /// The same, started anew with other settings.
    pub async fn again(mut self, change: impl FnOnce(&mut Config)) -> World {
        self.running.stop().await;
        change(&mut self.config);
        let listener = TcpListener::bind(self.config.listen).await.expect("its own port");
        self.running = run(&self.config, &self.clock, listener).await;
        self
    }

    /// Says something as the application's server.
    pub async fn says(&self, method: &str, path: &str, body: Value) -> Value {
        let method = method.parse().expect("a method");
        let call = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key).json(&body);
        call.send().await.expect("an answer").json().await.unwrap_or_default()
    }

    /// A person with an authenticator app: its secret.
    pub async fn person(&self, user: &str) -> Vec<u8> {
        self.says("PUT", &format!("/v1/users/{user}"), json!({"login_hint": "jane@example.com"})).await;
        let factor = self.says("POST", &format!("/v1/users/{user}/factors"), json!({"type": "totp"})).await;
        let secret = crate::app::base32(factor["totp"]["secret"].as_str().expect("a secret"));
        let path = format!("/v1/users/{user}/factors/{}/activate", factor["id"].as_str().expect("an id"));
        let active = self.says("POST", &path, json!({"code": self.code(&secret)})).await;
        assert_eq!(active["status"], "active");
        self.clock.advance(30);
        secret
    }

    /// Adds a passkey: the device that holds it.
    pub async fn passkey(&self, user: &str) -> Authenticator {
        let mut device = Authenticator::new("http://localhost:3000");
        let factor = self.says("POST", &format!("/v1/users/{user}/factors"), json!({"type": "webauthn"})).await;
        let credential = device.create(&factor["webauthn"]["creation_options"]).expect("the browser has no objection");
        let path = format!("/v1/users/{user}/factors/{}/activate", factor["id"].as_str().expect("an id"));
        assert_eq!(self.says("POST", &path, json!({"credential": credential})).await["status"], "active");
        device
    }

    /// Adds a phone.
    pub async fn phone(&self, user: &str) {
        let wish = json!({"type": "sms", "phone": "+14155550123"});
        let factor = self.says("POST", &format!("/v1/users/{user}/factors"), wish).await;
        let path = format!("/v1/users/{user}/factors/{}/activate", factor["id"].as_str().expect("an id"));
        self.says("POST", &path, json!({"code": self.texted()})).await;
    }

    /// Makes recovery codes.
    pub async fn recovery_codes(&self, user: &str) -> Vec<String> {
        let made = self.says("POST", &format!("/v1/users/{user}/recovery-codes"), json!({})).await;
        let codes = made["codes"].as_array().expect("codes").iter();
        codes.map(|c| c.as_str().expect("a code").to_owned()).collect()
    }

    /// What an app with this secret shows now.
    pub fn code(&self, secret: &[u8]) -> String {
        totp::code_at(secret, self.clock.now())
    }

    /// The code of the latest text.
    pub fn texted(&self) -> String {
        let texts = self.running.engine.inbox().texts();
        texts[0].text.chars().take_while(char::is_ascii_digit).collect()
    }

    /// A challenge that returns to the application: its id and the address of its page.
    pub async fn challenge(&self, user: &str, action: &str) -> (String, String) {
        self.challenge_with(user, action, json!({})).await
    }

    /// The same with a demand.
    pub async fn challenge_with(&self, user: &str, action: &str, require: Value) -> (String, String) {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let body = json!({"user_id": user, "action": action, "return_url": self.back, "state": STATE,
            "code_challenge": challenge, "require": require, "display": {"label": "Change payout account",
            "details": [{"label": "New <b>IBAN</b>", "value": "…1234"}]}});
        let made = self.says("POST", "/v1/challenges", body).await;
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        (text("id"), self.reachable(&text("url")))
    }

    /// A visit to the portal: the address of its page.
    pub async fn portal(&self, user: &str, flow: &str) -> String {
        let body = json!({"user_id": user, "flow": flow, "return_url": self.back});
        let made = self.says("POST", "/v1/portal-sessions", body).await;
        self.reachable(made["url"].as_str().unwrap_or_else(|| panic!("{made}")))
    }

    fn reachable(&self, url: &str) -> String {
        let path = url.splitn(4, '/').nth(3).expect("a path");
        format!("{}/{path}", self.base)
    }

    /// The session for the query with which a browser came back.
    pub async fn exchange(&self, id: &str, query: &str) -> Value {
        let told: std::collections::HashMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        assert_eq!(told.get("state").map(String::as_str), Some(STATE), "{query}");
        assert_eq!(told.get("challenge").map(String::as_str), Some(id), "{query}");
        let body = json!({"code": told["code"], "code_verifier": VERIFIER});
        self.says("POST", &format!("/v1/challenges/{id}/exchange"), body).await["session"].clone()
    }
}

async fn run(config: &Config, clock: &Arc<ManualClock>, listener: TcpListener) -> Running {
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

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A gateway that answers every text with this status: its address.
pub async fn gateway(status: u16) -> url::Url {
    let status = axum::http::StatusCode::from_u16(status).expect("a status");
    let router = Router::new().route("/sms", axum::routing::post(move || async move { status }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/sms").parse().expect("an address")
}

/// Keeps what browsers bring back; its address has a query already.
async fn application() -> (String, Arc<Mutex<Vec<String>>>) {
    let returned: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = |State(kept): State<Arc<Mutex<Vec<String>>>>, RawQuery(query): RawQuery| async move {
        kept.lock().expect("no test panics with it").push(query.unwrap_or_default());
        Html("<h1>Back at the bank</h1>")
    };
    let router = Router::new().route("/back", get(keep)).with_state(Arc::clone(&returned));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://localhost:{port}/back?from=pages"), returned)
}
