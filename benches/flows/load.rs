//! Load over loopback: requests in flight on many connections, and what became of them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign::methods::totp;
use countersign::model::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::population::{App, Apps, Passkey};

/// What one kind of flow did.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Flows a second.
    pub rate: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Microseconds of CPU a flow.
    pub engine_us: f64,
    /// Microseconds of CPU a flow.
    pub database_us: f64,
    /// MiB at the end.
    pub memory: f64,
    /// Answers that were not the expected ones.
    pub refused: usize,
}

impl Row {
    pub fn cost(&self) -> f64 {
        self.engine_us + self.database_us
    }
}

/// Which code is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Right,
    Wrong,
}

/// A request with the status that it should get.
pub struct Request {
    bytes: Vec<u8>,
    expect: u16,
}

pub fn post(address: &str, path: &str, key: &str, body: &str, expect: u16) -> Request {
    let text = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Request { bytes: text.into_bytes(), expect }
}

/// A connection that is kept.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    async fn open(address: String) -> Wire {
        let stream = TcpStream::connect(&address).await.expect("the engine listens");
        stream.set_nodelay(true).expect("a socket");
        Wire { stream, buffer: Vec::with_capacity(8192) }
    }

    /// Status and body.
    async fn send(&mut self, request: &Request) -> (u16, Vec<u8>) {
        self.stream.write_all(&request.bytes).await.expect("it is taken");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
            let Some(head) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.buffer[..head]).expect("headers are ASCII").to_ascii_lowercase();
            let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
            let length = length.expect("answers have a length");
            if self.buffer.len() >= head + 4 + length {
                let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
                return (status, self.buffer[head + 4..].to_vec());
            }
        }
    }
}

/// Runs single requests in a closed loop, or at a rate where flows are due at fixed times, until the time is up or there is no more
/// to ask.
pub async fn run(
    address: &str,
    connections: usize,
    rate: Option<f64>,
    span: Duration,
    cost: &(impl Fn() -> (f64, f64) + ?Sized),
    memory: &(impl Fn() -> f64 + ?Sized),
    request: impl Fn(usize) -> Option<Request> + Send + Sync + 'static,
) -> Row {
    let request = Arc::new(request);
    let open = || Wire::open(address.to_owned());
    measure(open, connections, rate, span, cost, memory, move |mut wire, n| {
        let request = Arc::clone(&request);
        async move {
            let Some(request) = request(n) else { return (wire, None) };
            let (status, _) = wire.send(&request).await;
            (wire, Some(status == request.expect))
        }
    })
    .await
}

/// Runs a worker on a thread of its own, which may sleep: more exactly than the runtime's timers, whose tick is a millisecond, and
/// with no other thread to be woken for each flow.
fn by_itself<T: Send + 'static>(worker: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
    tokio::task::spawn_blocking(move || runtime.block_on(worker))
}

/// Flows in a closed loop, or due at a rate, of as many workers as there are connections, each with what it opened. A flow tells
/// whether its answers were the expected ones; one that tells nothing was none, and ends its worker.
pub async fn measure<O, W, F, R>(
    open: impl Fn() -> O,
    connections: usize,
    rate: Option<f64>,
    span: Duration,
    cost: &(impl Fn() -> (f64, f64) + ?Sized),
    memory: &(impl Fn() -> f64 + ?Sized),
    flow: F,
) -> Row
where
    O: Future<Output = W> + Send + 'static,
    W: Send,
    F: Fn(W, usize) -> R + Send + Sync + 'static,
    R: Future<Output = (W, Option<bool>)> + Send,
{
    let (flow, count, refused) = (Arc::new(flow), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let before = cost();
    let start = Instant::now();
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (flow, count, refused, opening) = (Arc::clone(&flow), Arc::clone(&count), Arc::clone(&refused), open());
            let worker = async move {
                let mut wire = opening.await;
                let mut took = Vec::new();
                loop {
                    let n = count.fetch_add(1, Ordering::Relaxed);
                    let due = match rate {
                        None => Instant::now(),
                        Some(rate) => start + Duration::from_secs_f64(n as f64 / rate),
                    };
                    if due.duration_since(start) >= span {
                        return took;
                    }
                    if rate.is_some() {
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                    let (back, expected) = flow(wire, n).await;
                    let Some(expected) = expected else { return took };
                    wire = back;
                    took.push(due.elapsed().as_secs_f64() * 1000.0);
                    refused.fetch_add(usize::from(!expected), Ordering::Relaxed);
                }
            };
            if rate.is_some() { by_itself(worker) } else { tokio::spawn(worker) }
        })
        .collect();
    let mut took = Vec::new();
    for worker in workers {
        took.extend(worker.await.expect("a worker"));
    }
    let (seconds, after) = (start.elapsed().as_secs_f64(), cost());
    took.sort_by(f64::total_cmp);
    let flows = took.len().max(1) as f64;
    let quantile = |q: f64| took.get(((flows - 1.0) * q) as usize).copied().unwrap_or_default();
    Row {
        rate: flows / seconds,
        p50: quantile(0.5),
        p99: quantile(0.99),
        engine_us: (after.0 - before.0) * 1e6 / flows,
        database_us: (after.1 - before.1) * 1e6 / flows,
        memory: memory(),
        refused: refused.load(Ordering::Relaxed),
    }
}

/// Codes as fast as the connections go.
pub async fn closed(engine: &Engine, apps: &Apps, kind: Kind, connections: usize, span: Duration) -> Row {
    codes(engine, apps, kind, connections, None, span).await
}

/// Right codes at a rate.
pub async fn open(engine: &Engine, apps: &Apps, connections: usize, rate: f64, span: Duration) -> Row {
    codes(engine, apps, Kind::Right, connections, Some(rate), span).await
}

async fn codes(engine: &Engine, apps: &Apps, kind: Kind, connections: usize, rate: Option<f64>, span: Duration) -> Row {
    // Codes are made ahead, so that the generator's own work stays small and every code is fresh for its user.
    fresh_codes(apps, kind).await;
    let (address, key) = (engine.address.clone(), engine.key.clone());
    let users: Vec<(String, Vec<u8>, i64)> =
        apps.all.iter().map(|a| (a.user.clone(), a.secret.clone(), a.last.load(Ordering::Relaxed))).collect();
    let turns: Vec<AtomicUsize> = users.iter().map(|_| AtomicUsize::new(0)).collect();
    let sent = Arc::new((users, turns));
    let shared = Arc::clone(&sent);
    let row = run(&address.clone(), connections, rate, span, &|| engine.cpu(), &|| engine.memory(), move |n| {
        let (user, secret, last) = &shared.0[n % shared.0.len()];
        let turn = shared.1[n % shared.0.len()].fetch_add(1, Ordering::Relaxed) as i64;
        if kind == Kind::Right && turn >= RIGHT_CODES {
            return None;
        }
        let (code, expect) = code(secret, kind, *last, turn);
        Some(post(
            &address,
            "/v1/challenges",
            &key,
            &format!(r#"{{"user_id":"{user}","answer":{{"type":"totp","code":"{code}"}}}}"#),
            expect,
        ))
    })
    .await;
    for (app, turn) in apps.all.iter().zip(&sent.1) {
        if kind == Kind::Right && turn.load(Ordering::Relaxed) > 0 {
            app.last.store(step(), Ordering::Relaxed);
        }
    }
    let _ = apps.next();
    row
}

/// How many right codes a user has at one time: of the step before, and of this one.
const RIGHT_CODES: i64 = 2;

/// The next code that this user has not sent: of the step before, then of this one.
fn code(secret: &[u8], kind: Kind, last: i64, turn: i64) -> (String, u16) {
    let now = step();
    let right = |step: i64| totp::code_at(secret, Timestamp::from_seconds(step * totp::PERIOD));
    match kind {
        Kind::Right => (right((last + 1).max(now - 1) + turn), 200),
        Kind::Wrong => {
            let near: Vec<u32> = [now - 1, now, now + 1].iter().filter_map(|s| right(*s).parse().ok()).collect();
            let wrong = (near[1]..).map(|n| (n + 500_000) % 1_000_000).find(|n| !near.contains(n)).unwrap_or_default();
            (format!("{wrong:06}"), 422)
        }
    }
}

/// Waits until every user has a code that was not sent.
async fn fresh_codes(apps: &Apps, kind: Kind) {
    if kind == Kind::Wrong {
        return;
    }
    let last = |app: &App| app.last.load(Ordering::Relaxed);
    while apps.all.iter().any(|a| last(a) >= step()) {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn step() -> i64 {
    use countersign::clock::{Clock, SystemClock};
    SystemClock.now().seconds() / totp::PERIOD
}

/// Passkey flows of three requests: create, prepare, verify.
pub async fn passkeys(engine: &Engine, passkeys: Vec<Passkey>, connections: usize, span: Duration) -> Row {
    let (address, key) = (engine.address.clone(), engine.key.clone());
    let devices: Arc<Vec<Mutex<Passkey>>> = Arc::new(passkeys.into_iter().map(Mutex::new).collect());
    let host = address.clone();
    let open = || Wire::open(host.clone());
    measure(open, connections, None, span, &|| engine.cpu(), &|| engine.memory(), move |mut wire, n| {
        let (devices, address, key) = (Arc::clone(&devices), address.clone(), key.clone());
        async move {
            let mut passkey = devices[n % devices.len()].lock().await;
            let body = json!({"user_id": passkey.user}).to_string();
            let (status, answer) = wire.send(&post(&address, "/v1/challenges", &key, &body, 201)).await;
            let id = member(&answer, "/id");
            let path = format!("/v1/challenges/{id}");
            let (prepared, answer) =
                wire.send(&post(&address, &format!("{path}/prepare"), &key, r#"{"type":"webauthn"}"#, 200)).await;
            let options: Value = serde_json::from_slice(&answer).unwrap_or_default();
            let Ok(credential) = passkey.device.get(&options["webauthn"]["request_options"]) else {
                return (wire, Some(false));
            };
            let body = json!({"type": "webauthn", "credential": credential}).to_string();
            let (verified, _) = wire.send(&post(&address, &format!("{path}/verify"), &key, &body, 200)).await;
            (wire, Some((status, prepared, verified) == (201, 200, 200)))
        }
    })
    .await
}

fn member(answer: &[u8], pointer: &str) -> String {
    let value: Value = serde_json::from_slice(answer).unwrap_or_default();
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
