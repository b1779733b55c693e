//! The demo application with its engine, and browsers without JavaScript that use both.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use countersign::config::{Database, Storage};
use countersign::{DemoOptions, Running, demo, run_demo};
use reqwest::header::{COOKIE, HeaderMap, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

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
        let storage = Storage { database: Database::Sqlite(folder.join("countersign.db")), pool: 2 };
        let operator = countersign::operator(&storage).await.expect("the demo's database");
        let rp = operator.relying_party("Harbour Bank (demo)").await.expect("the demo's relying party");
        let key = operator.create_key(&rp, Vec::new(), None).await.expect("a key").secret;
        let origins = [first, second].map(|address| format!("http://localhost:{}", address.port()));
        Bank { origins, key, api: client(), folder, _running: running }
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
        App { secret: base32(key) }
    }

    /// The code of the step before, which leaves the present one unspent.
    pub async fn earlier_code(&self) -> String {
        self.code_of(steady().await - 1)
    }

    /// The code of the present step.
    pub async fn code(&self) -> String {
        self.code_of(steady().await)
    }

    fn code_of(&self, step: i64) -> String {
        countersign::methods::totp::code_at(&self.secret, countersign::model::Timestamp::from_seconds(step * 30))
    }
}

/// A browser without JavaScript.
pub struct Guest {
    client: Client,
    origin: String,
}

/// What a browser was given.
pub struct Page {
    pub status: StatusCode,
    pub body: String,
    headers: HeaderMap,
    address: String,
    client: Client,
}

impl Guest {
    /// Opens a page of the application, or an address.
    pub async fn get(&self, path: &str) -> Page {
        get(&self.client, &self.absolute(path)).await
    }

    /// Opens a page with just this cookie.
    pub async fn get_with(&self, path: &str, cookie: &str) -> Page {
        let address = self.absolute(path);
        page(self.client.clone(), &address, self.client.get(&address).header(COOKIE, cookie)).await
    }

    /// Posts a form as it stands.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)], from: Option<&str>) -> Page {
        let address = self.absolute(path);
        let mut request = self.client.post(&address).form(fields);
        if let Some(from) = from {
            request = request.header(ORIGIN, from);
        }
        page(self.client.clone(), &address, request).await
    }

    /// Fills in the form of the account page that goes to this path.
    pub async fn press(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let shown = match self.get("/demo/account").await {
            shown if shown.status == StatusCode::OK => shown,
            _ => self.get("/demo").await,
        };
        self.post_from(&shown, path, fields).await
    }

    /// Fills in the form of one page that goes to a path.
    pub async fn press_on(&self, shown: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let shown = self.get(shown).await;
        self.post_from(&shown, path, fields).await
    }

    async fn post_from(&self, shown: &Page, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = shown.field("csrf");
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", csrf.as_str())]).collect();
        self.post(path, &fields, Some(&self.origin)).await
    }

    /// Name and password; where that leads.
    pub async fn log_in(&self, name: &str) -> Page {
        self.press_on("/demo", "/demo", &[("username", name), ("password", "harbour")]).await
    }

    /// Opens a hosted page by its link: the landing page, then the page itself.
    pub async fn open(&self, url: &str) -> Page {
        let landing = self.get(url).await;
        let token = landing.field("token");
        self.send(&landing, &[("token", &token), ("probe", "1")]).await.follow().await
    }

    /// Posts a form of a hosted page to that page, with its guard.
    pub async fn send(&self, shown: &Page, fields: &[(&str, &str)]) -> Page {
        let guard = if shown.body.contains("name=\"guard\"") { shown.field("guard") } else { String::new() };
        let address = url::Url::parse(&shown.address).expect("an address");
        let origin = address.origin().ascii_serialization();
        let fields: Vec<_> = fields.iter().copied().chain([("guard", guard.as_str())]).collect();
        self.post(&format!("{origin}{}", address.path()), &fields, Some(&origin)).await
    }

    /// Answers a challenge by its link; the address to which the hosted page returns.
    pub async fn answer(&self, url: &str, method: &str, code: &str) -> String {
        let shown = self.open(url).await;
        self.answer_shown(&shown, method, code).await
    }

    /// Answers a challenge that is shown.
    pub async fn answer_shown(&self, shown: &Page, method: &str, code: &str) -> String {
        let done = self.send(shown, &[("do", "answer"), ("method", method), ("code", code)]).await.follow().await;
        done.link("/demo/return?")
    }

    /// Cancels a challenge by its link; the address to which the hosted page returns.
    pub async fn cancel(&self, url: &str) -> String {
        let shown = self.open(url).await;
        self.send(&shown, &[("do", "cancel")]).await.follow().await.link("/demo/return?")
    }

    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => format!("{}{path}", self.origin),
            false => path.to_owned(),
        }
    }
}

impl Page {
    /// Whether it says this, as a person reads it.
    pub fn says(&self, words: &str) -> bool {
        unescaped(&self.body).contains(words)
    }

    /// Whether its main part says this, whatever stands beside.
    pub fn shows(&self, words: &str) -> bool {
        let main = self.body.split("<main").nth(1).and_then(|rest| rest.split("</main>").next());
        unescaped(main.unwrap_or_default()).contains(words)
    }

    /// The value of a hidden field.
    pub fn field(&self, name: &str) -> String {
        let (_, rest) = self
            .body
            .split_once(&format!("name=\"{name}\" value=\""))
            .unwrap_or_else(|| panic!("no field {name} at {} ({}):\n{}", self.address, self.status, self.body));
        rest.split('"').next().unwrap_or_default().to_owned()
    }

    /// Where its first link goes that has this in it.
    pub fn link(&self, part: &str) -> String {
        let links =
            self.body.split("href=\"").skip(1).map(|rest| unescaped(rest.split('"').next().unwrap_or_default()));
        let found = links.into_iter().find(|link| link.contains(part));
        let link = found
            .unwrap_or_else(|| panic!("no link with {part} at {} ({}):\n{}", self.address, self.status, self.body));
        url::Url::parse(&self.address).and_then(|base| base.join(&link)).expect("a link").into()
    }

    /// Where it redirects; empty where it does not.
    pub fn location(&self) -> String {
        self.header(LOCATION.as_str())
    }

    /// The cookie that it sets.
    pub fn cookie(&self) -> Option<String> {
        let text = self.header(SET_COOKIE.as_str());
        (!text.is_empty()).then_some(text)
    }

    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    }

    /// Goes where it redirects.
    pub async fn follow(&self) -> Page {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}:\n{}", self.address, self.body);
        let target = url::Url::parse(&self.address).and_then(|base| base.join(&self.location())).expect("an address");
        get(&self.client, target.as_str()).await
    }
}

async fn get(client: &Client, address: &str) -> Page {
    page(client.clone(), address, client.get(address)).await
}

async fn page(client: Client, address: &str, request: reqwest::RequestBuilder) -> Page {
    let response = request.send().await.unwrap_or_else(|error| panic!("{address}: {error}"));
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.text().await.expect("a body");
    Page { status, body, headers, address: address.to_owned(), client }
}

fn client() -> Client {
    let builder = Client::builder().tls_certs_only([]).no_proxy().cookie_store(true);
    builder.redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

/// Two that were free a moment ago.
fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|l| l.local_addr().expect("an address"))
}

/// The present step of 30 seconds, with some of it left.
async fn steady() -> i64 {
    loop {
        let seconds = seconds();
        if seconds % 30 < 26 {
            return seconds / 30;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the demo runs by the machine's clock")]
fn seconds() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn user(name: &str) -> &'static str {
    match name {
        "ann" => "harbour-1001",
        _ => "harbour-1002",
    }
}

fn unescaped(text: &str) -> String {
    text.replace("&#38;", "&").replace("&#34;", "\"").replace("&#39;", "'").replace("&amp;", "&")
}

fn base32(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for sign in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|s| *s == sign).expect("base32");
        bits = bits << 5 | value as u32;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
