//! A receiver of webhooks of its own: it keeps what it is told, and answers as the test wants. How it takes a message is how README
//! says that receivers should.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tokio::net::TcpListener;

/// How it answers.
#[derive(Clone, Debug)]
pub enum Answering {
    /// With this status.
    Status(u16),
    /// With this status and header.
    With(u16, &'static str, String),
    /// Not at all, for longer than anybody waits.
    Never,
    /// 204, after this many milliseconds.
    Slowly(u64),
}

/// The receiver, seen from the test.
#[derive(Clone)]
pub struct Receiver {
    pub port: u16,
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    always: Answering,
    next: VecDeque<Answering>,
    messages: Vec<Message>,
}

/// What it was told once.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    pub body: Value,
    /// It was answered with 2xx.
    pub taken: bool,
}

impl Message {
    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }

    pub fn sequence(&self) -> i64 {
        self.body["data"]["sequence"].as_i64().unwrap_or_default()
    }

    /// The signatures by which this secret vouches for the message, computed anew.
    pub fn signed_by(&self, secret: &str) -> bool {
        let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64");
        let content = [format!("{}.{}.", self.id, self.timestamp).as_bytes(), &self.bytes].concat();
        self.signature.split(' ').filter_map(|one| one.strip_prefix("v1,")).any(|one| {
            let tag = BASE64_STANDARD.decode(one).unwrap_or_default();
            // In constant time.
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
            aws_lc_rs::hmac::verify(&key, &content, &tag).is_ok()
        })
    }
}

/// What an application does with a message: signature, age, then its id, once (H-05).
pub struct Application {
    pub secret: String,
    seen: HashSet<String>,
}

impl Application {
    pub fn new(secret: &str) -> Application {
        Application { secret: secret.to_owned(), seen: HashSet::new() }
    }

    pub fn takes(&mut self, message: &Message, now: i64) -> Result<(), &'static str> {
        let sent = message.timestamp.parse::<i64>().map_err(|_| "no time")?;
        if !message.signed_by(&self.secret) {
            return Err("forged");
        }
        if (now - sent).abs() > 300 {
            return Err("too old");
        }
        if self.seen.insert(message.id.clone()) { Ok(()) } else { Err("seen before") }
    }
}

impl Receiver {
    pub async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Shared { always: Answering::Status(204), next: VecDeque::new(), messages: Vec::new() };
        let receiver =
            Receiver { port, url: format!("http://127.0.0.1:{port}/hooks?a=1"), shared: Arc::new(Mutex::new(shared)) };
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    /// From now on.
    pub fn answers(&self, how: Answering) {
        self.shared.lock().expect("no test panics with it").always = how;
    }

    /// Once, before it goes on as it does.
    pub fn answers_next(&self, how: Answering) {
        self.shared.lock().expect("no test panics with it").next.push_back(how);
    }

    /// Everything that it was told, oldest first.
    pub fn messages(&self) -> Vec<Message> {
        self.shared.lock().expect("no test panics with it").messages.clone()
    }

    /// What it took.
    pub fn taken(&self) -> Vec<Message> {
        self.messages().into_iter().filter(|m| m.taken).collect()
    }

    pub fn count(&self) -> usize {
        self.shared.lock().expect("no test panics with it").messages.len()
    }

    /// The types of what it was told.
    pub fn kinds(&self) -> Vec<String> {
        self.messages().iter().map(|m| m.kind().to_owned()).collect()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, bytes: Bytes) -> Response {
    let how = {
        let mut shared = receiver.shared.lock().expect("no test panics with it");
        let how = shared.next.pop_front().unwrap_or_else(|| shared.always.clone());
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let message = Message {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
            headers: headers.clone(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            bytes: bytes.to_vec(),
            taken: matches!(how, Answering::Status(200..=299) | Answering::Slowly(_)),
        };
        shared.messages.push(message);
        how
    };
    let status = |status: u16| StatusCode::from_u16(status).expect("a status");
    match how {
        Answering::Status(code) => status(code).into_response(),
        Answering::With(code, name, value) => (status(code), [(name, value)]).into_response(),
        Answering::Never => std::future::pending().await,
        Answering::Slowly(milliseconds) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

/// A receiver that speaks TLS, made of `openssl s_server`: it answers one message.
pub struct TlsReceiver {
    pub url: String,
    child: std::process::Child,
}

impl TlsReceiver {
    /// For the name `localhost`, with a certificate by an authority that is made in this folder: `ca.pem`. `None` without openssl.
    pub fn start(folder: &std::path::Path, authority: &str) -> Option<TlsReceiver> {
        let openssl = |arguments: &str| {
            let mut command = std::process::Command::new("openssl");
            command.args(arguments.split(' ')).current_dir(folder);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            command
        };
        std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n").expect("a file");
        let (key, ca) = ("-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes", authority);
        let sign = format!(
            "x509 -req -in {ca}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 2 -extfile names -out {ca}.crt"
        );
        for step in [
            format!("req -x509 {key} -keyout {ca}.key -out {ca}.pem -days 2 -subj /CN={ca}"),
            format!("req {key} -keyout {ca}-server.key -out {ca}.csr -subj /CN=localhost"),
            sign,
        ] {
            openssl(&step).status().ok().filter(std::process::ExitStatus::success)?;
        }
        let port = super::port::free_port();
        let mut child = openssl(&format!("s_server -quiet -accept {port} -cert {ca}.crt -key {ca}-server.key"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .ok()?;
        let (mut said, mut answer) = (child.stdout.take()?, child.stdin.take()?);
        std::thread::spawn(move || {
            let (mut got, mut some) = (Vec::new(), [0; 4096]);
            while let Ok(read) = std::io::Read::read(&mut said, &mut some) {
                got.extend_from_slice(&some[..read]);
                if read == 0 || got.ends_with(b"}") {
                    break;
                }
            }
            let _ = std::io::Write::write_all(&mut answer, b"HTTP/1.1 204 No Content\r\n\r\n");
            std::thread::park();
        });
        // Before it listens it is unreachable, whatever its certificate.
        let mut tries = 0;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            tries += 1;
            assert!(tries < 1200, "openssl does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(TlsReceiver { url: format!("https://localhost:{port}/hooks"), child })
    }
}

impl Drop for TlsReceiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
