//! The demo application with its engine, and what its customers have enrolled.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use countersign::config::{Database, Storage};
use countersign::{DemoOptions, Running, demo, run_demo};
use reqwest::Client;
use serde_json::{Value, json};

use super::guest::{Guest, client};
use crate::app::{early_step, step};

/// An account that is nobody's yet.
pub const IBAN: &str = "DE89370400440532013000";
/// Another.
pub const OTHER_IBAN: &str = "FR1420041010050500013M02606";

/// Engine and application on two ports, with a key of our own beside the application's.
pub struct Bank {
    origins: [String; 2],
    key: String,
    api: Client,
    folder: PathBuf,
    _running: Running,
}

/// A browser that is signed in with an authenticator app.
pub struct Login {
    pub guest: Guest,
    pub app: App,
}

/// An authenticator app whose code of the present step is unspent.
pub struct App {
    secret: Vec<u8>,
}

impl Bank {
    /// With nobody enrolled.
    pub async fn start() -> Bank {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("countersign-demo-{}-{number}", std::process::id()));
        let [first, second] = free_addresses();
        let options = DemoOptions { listen: first, data: folder.clone(), second: Some(second) };
        let running = run_demo(options).await.expect("the demo starts");
        let storage = Storage { pool: 2, ..Storage::new(Database::Sqlite(folder.join("countersign.db"))) };
        let operator = countersign::operator(&storage, false).await.expect("the demo's database");
        let rp = operator.relying_party("Harbour Bank").await.expect("the demo's relying party");
        let key = operator.create_key(&rp, Vec::new(), None).await.expect("a key").secret;
        let origins = [first, second].map(|address| format!("http://localhost:{}", address.port()));
        Bank { origins, key, api: client(), folder, _running: running }
    }

    /// Another demo in the same folder, which is refused.
    pub async fn start_again(&self) -> String {
        let [listen, _] = free_addresses();
        let options = DemoOptions { listen, data: self.folder.clone(), second: None };
        run_demo(options).await.err().expect("one serves the folder").to_string()
    }

    /// The application alone, whose engine's address nobody listens on.
    pub async fn without_engine() -> (Guest, tokio::task::JoinHandle<()>) {
        let [silent, address] = free_addresses();
        let origin = format!("http://localhost:{}", address.port());
        let router = demo::router(demo::Settings {
            engine: format!("http://localhost:{}", silent.port()),
            engine_address: silent,
            api_key: "sk_test_none".to_owned(),
            origin: origin.clone(),
            now: || 1_800_000_000,
            random: || [7; 32],
        });
        let listener = tokio::net::TcpListener::bind(address).await.expect("a free port");
        let serving = tokio::spawn(countersign::http::serve(listener, router, std::future::pending()));
        (Guest { client: client(), origin }, serving)
    }

    /// The engine's own origin, where the application is too, and the application's second one.
    pub fn origins(&self) -> &[String; 2] {
        &self.origins
    }

    /// One that has been nowhere.
    pub fn guest(&self, origin: &str) -> Guest {
        Guest { client: client(), origin: origin.to_owned() }
    }

    /// Gives a customer an authenticator app and ten recovery codes; the codes.
    pub async fn recovery_codes(&self, name: &str) -> Vec<String> {
        self.enrol_app(name).await;
        let codes = self.call("POST", &format!("/v1/users/{}/recovery-codes", user(name)), json!({})).await;
        serde_json::from_value(codes["codes"].clone()).expect("codes")
    }

    /// A customer with an authenticator app and a phone, who signed in by text: the app's code is left for what comes next.
    pub async fn with_app(&self, name: &str, origin: &str) -> Login {
        let app = self.enrol_app(name).await;
        let factors = format!("/v1/users/{}/factors", user(name));
        let phone = format!("+1415555{:04}", 100 + self.texts().await.len());
        let factor = self.call("POST", &factors, json!({ "type": "sms", "phone": phone })).await;
        let path = format!("{factors}/{}/activate", factor["id"].as_str().expect("an id"));
        self.call("POST", &path, json!({ "code": self.last_code().await })).await;

        let guest = self.guest(origin);
        let away = guest.log_in(name).await;
        let shown = guest.open(&away.location()).await;
        let choice = shown.link("method=sms");
        let shown = guest.get(&choice).await;
        let sent = guest.send(&shown, &[("do", "send"), ("factor", &shown.field("factor"))]).await.follow().await;
        let back = guest.answer_shown(&sent, "sms", &self.last_code().await).await;
        let inside = guest.get(&back).await.follow().await;
        assert!(inside.says("Signed in with a text message"), "{}", inside.body);
        Login { guest, app }
    }

    /// Forgets a customer.
    pub async fn erase(&self, name: &str) {
        self.call("DELETE", &format!("/v1/users/{}", user(name)), Value::Null).await;
    }

    /// How many step-up sessions of a customer count.
    pub async fn sessions(&self, name: &str) -> usize {
        let answer = self.call("GET", &format!("/v1/users/{}/sessions", user(name)), Value::Null).await;
        answer["data"].as_array().expect("sessions").len()
    }

    /// Ends every step-up session of a customer.
    pub async fn end_sessions(&self, name: &str) {
        self.call("DELETE", &format!("/v1/users/{}/sessions", user(name)), Value::Null).await;
    }

    async fn enrol_app(&self, name: &str) -> App {
        let path = format!("/v1/users/{}/factors", user(name));
        let factor = self.call("POST", &path, json!({ "type": "totp" })).await;
        let app = App::new(factor["totp"]["secret"].as_str().expect("a secret"));
        let path = format!("{path}/{}/activate", factor["id"].as_str().expect("an id"));
        self.call("POST", &path, json!({ "code": app.earlier_code().await })).await;
        app
    }

    async fn last_code(&self) -> String {
        let texts = self.texts().await;
        let text = texts[0]["text"].as_str().expect("a text");
        text.split(' ')
            .find(|word| word.len() == 6 && word.bytes().all(|b| b.is_ascii_digit()))
            .expect("a code")
            .to_owned()
    }

    async fn texts(&self) -> Vec<Value> {
        let answer = self.call("GET", "/dev/inbox", Value::Null).await;
        answer["data"].as_array().expect("texts").clone()
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let method = method.parse().expect("a method");
        let mut request = self.api.request(method, format!("{}{path}", self.origins[0])).bearer_auth(&self.key);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let text = response.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl App {
    /// Set up with this key, in base32.
    pub fn new(key: &str) -> App {
        App { secret: crate::app::base32(key) }
    }

    /// The code of the step before, which leaves the present one unspent.
    pub async fn earlier_code(&self) -> String {
        self.code_of(early_step().await - 1)
    }

    /// The code of the present step.
    pub fn code(&self) -> String {
        self.code_of(step(0))
    }

    fn code_of(&self, step: i64) -> String {
        countersign::methods::totp::code_at(&self.secret, countersign::model::Timestamp::from_seconds(step * 30))
    }
}

/// Two that were free a moment ago.
fn free_addresses() -> [SocketAddr; 2] {
    [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], crate::port::free_port())))
}

fn user(name: &str) -> &'static str {
    match name {
        "ann" => "harbour-1001",
        _ => "harbour-1002",
    }
}
