//! A real browser over WebDriver, with authenticators that it only pretends to have (WebDriver extension of WebAuthn L3, 11).
//! COUNTERSIGN_TEST_BROWSER: `0` leaves it out, `1` demands it, unset takes it where it is installed.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::Method;
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use url::{ParseError, Url};

/// How long a test waits for a page to get somewhere.
const PATIENCE: Duration = Duration::from_secs(20);
static PROFILES: AtomicU32 = AtomicU32::new(0);

/// One browser with a profile of its own.
pub struct Browser {
    pub client: Client,
    driver: Child,
    port: u16,
    session: String,
    profile: PathBuf,
}

/// A call that the client has no method for.
#[derive(Debug)]
struct Call {
    method: Method,
    path: String,
    body: Value,
}

impl WebDriverCompatibleCommand for Call {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (self.method.clone(), Some(self.body.to_string()))
    }
}

impl Browser {
    /// A browser, or `None` where the tests go without one.
    pub async fn start() -> Option<Browser> {
        let wanted = std::env::var("COUNTERSIGN_TEST_BROWSER").unwrap_or_default();
        let (chromium, driver) = (program("chromium"), program("chromedriver"));
        let installed = chromium.is_some() && driver.is_some();
        if wanted == "0" || (wanted != "1" && !installed) {
            say("left out: no browser");
            return None;
        }
        assert!(installed, "COUNTERSIGN_TEST_BROWSER=1, and chromium or chromedriver is missing");
        let (chromium, driver) = (chromium?, driver?);
        let port = crate::port::free_port();
        let number = PROFILES.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("countersign-browser-{}-{number}", std::process::id()));
        let driver = Command::new(driver)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        for _ in 0..1200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = ClientBuilder::new(connector)
            .capabilities(capabilities(&chromium, &profile))
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("the browser starts");
        let session = client.session_id().await.expect("a session").expect("its id");
        Some(Browser { client, driver, port, session, profile })
    }

    /// Goes to an address.
    pub async fn go(&self, url: &str) {
        self.client.goto(url).await.expect(url);
    }

    /// Presses what the selector finds, once it is there.
    pub async fn press(&self, css: &str) {
        let wait = self.client.wait().at_most(PATIENCE);
        let element = wait.for_element(Locator::Css(css)).await.unwrap_or_else(|e| panic!("{css}: {e}"));
        element.click().await.unwrap_or_else(|e| panic!("{css}: {e}"));
    }

    /// Types into what the selector finds.
    pub async fn write(&self, css: &str, text: &str) {
        let wait = self.client.wait().at_most(PATIENCE);
        let element = wait.for_element(Locator::Css(css)).await.unwrap_or_else(|e| panic!("{css}: {e}"));
        element.send_keys(text).await.unwrap_or_else(|e| panic!("{css}: {e}"));
    }

    /// Types where the focus is.
    pub async fn keys(&self, text: &str) {
        let element = self.client.active_element().await.expect("something has the focus");
        element.send_keys(text).await.expect("keys are taken");
    }

    /// The Tab key.
    pub async fn tab(&self) {
        self.keys(&Key::Tab.to_string()).await;
    }

    /// Waits until the page's text holds these words.
    pub async fn sees(&self, words: &str) {
        for _ in 0..200 {
            if self.text().await.contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never saw {words:?} at {}, but:\n{}", self.url().await, self.text().await);
    }

    /// What a person can read, if the page is there yet.
    pub async fn text(&self) -> String {
        let read = self.client.execute("return document.body ? document.body.innerText : ''", Vec::new()).await;
        read.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// What a script gives.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// Waits until a script gives this.
    pub async fn comes_to(&self, script: &str, value: Value) {
        let mut given = Value::Null;
        for _ in 0..600 {
            given = self.run(script).await;
            if given == value {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{script}: {given}, not {value}");
    }

    /// Where it is.
    pub async fn url(&self) -> Url {
        self.client.current_url().await.expect("an address")
    }

    /// Plugs an authenticator in; `changes` to one that is built in, keeps passkeys, verifies the person and consents.
    pub async fn plug_in(&self, changes: Value) -> String {
        let mut kind = json!({"protocol": "ctap2", "transport": "internal", "hasResidentKey": true,
            "hasUserVerification": true, "isUserVerified": true, "isUserConsenting": true});
        for (name, value) in changes.as_object().into_iter().flatten() {
            kind[name] = value.clone();
        }
        let id = self.call(Method::POST, "webauthn/authenticator", kind).await;
        id.as_str().expect("its id").to_owned()
    }

    /// Pulls an authenticator out.
    pub async fn pull_out(&self, authenticator: &str) {
        self.call(Method::DELETE, &format!("webauthn/authenticator/{authenticator}"), json!({})).await;
    }

    /// What an authenticator holds.
    pub async fn held_by(&self, authenticator: &str) -> Vec<Value> {
        let path = format!("webauthn/authenticator/{authenticator}/credentials");
        self.call(Method::GET, &path, json!({})).await.as_array().cloned().unwrap_or_default()
    }

    /// Waits until an authenticator holds these credentials and no others.
    pub async fn comes_to_hold(&self, authenticator: &str, ids: &[Value]) {
        let mut held = Vec::new();
        for _ in 0..300 {
            held = self.held_by(authenticator).await.iter().map(|held| held["credentialId"].clone()).collect();
            if held == ids {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it holds {held:?}, not {ids:?}");
    }

    /// Sets the width of the page in CSS pixels; a window cannot be made so narrow.
    pub async fn width(&self, pixels: u32) {
        let metrics = json!({"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        let body = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.call(Method::POST, "goog/cdp/execute", body).await;
    }

    /// Takes the network away, or gives it back.
    pub async fn online(&self, is: bool) {
        let conditions = json!({"offline": !is, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        for (cmd, params) in [("Network.enable", json!({})), ("Network.emulateNetworkConditions", conditions)] {
            self.call(Method::POST, "goog/cdp/execute", json!({"cmd": cmd, "params": params})).await;
        }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let call = Call { method, path: path.to_owned(), body };
        self.client.issue_cmd(call).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }
}

impl Drop for Browser {
    /// The session's end closes the browser; the driver alone would leave it behind.
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = write!(
                stream,
                "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
                self.session
            );
            let _ = stream.read(&mut [0; 256]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

#[expect(clippy::print_stdout, reason = "a test that is left out says so")]
fn say(words: &str) {
    println!("{words}");
}

fn capabilities(chromium: &std::path::Path, profile: &std::path::Path) -> serde_json::Map<String, Value> {
    let profile = format!("--user-data-dir={}", profile.display());
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,900",
        &profile,
    ];
    let options = json!({
        "goog:chromeOptions": {"binary": chromium, "args": arguments},
        "webauthn:virtualAuthenticators": true,
    });
    options.as_object().cloned().unwrap_or_default()
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
