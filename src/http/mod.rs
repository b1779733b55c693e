//! HTTP: a skin. A handler extracts, makes one engine call and shapes the answer; no rule lives here.

mod api;
mod auth;
mod body;
mod cross_origin;
mod flood;
mod idempotency;
mod outage;
mod pages;
pub mod problem;
mod scrape;
mod server;
mod trace;

pub use api::webhook_message;
pub use scrape::router as metrics_router;
pub use server::{CONNECTIONS, Gate, serve};

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::sync::watch;
use tracing::Instrument;

use crate::engine::Engine;
use crate::model::{Id, Kind};
use flood::Flood;
use outage::Reader;
use problem::Refused;

/// A request takes no longer than this; gateways have ten seconds of it.
const LONGEST: Duration = Duration::from_secs(30);

/// What handlers share; every layer of a request has it.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// What there is once.
pub struct Shared {
    /// The engine.
    pub engine: Arc<Engine>,
    settings: Settings,
    flood: Flood,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// What HTTP itself is told.
pub struct Settings {
    /// Browsers reach us by https.
    pub secure: bool,
    /// Trial aids are on: `/dev`.
    pub development: bool,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Metrics have a listener of their own.
    pub metrics_elsewhere: bool,
    /// Set when the process is about to end: it is no longer ready, though it still serves.
    pub draining: Arc<AtomicBool>,
    /// Watched by every request for as long as it is worked on, also after its caller hung up.
    pub working: watch::Sender<()>,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The id of one request, echoed in `Request-Id`.
#[derive(Clone)]
pub struct RequestId(pub String);

impl App {
    /// Around an engine.
    pub fn new(engine: Arc<Engine>, settings: Settings) -> App {
        let clock = Arc::clone(&engine);
        let flood = Flood::new(move || clock.moment().now);
        App(Arc::new(Shared { engine, settings, flood }))
    }

    /// Whether new work should come here.
    async fn is_ready(&self) -> bool {
        !self.settings.draining.load(Ordering::Relaxed) && self.engine.is_ready().await
    }

    /// Whether cookies are for https only.
    fn is_secure(&self) -> bool {
        self.settings.secure
    }

    /// Whether this is a proxy whose word counts.
    fn trusts(&self, ip: &IpAddr) -> bool {
        self.settings.trusted_proxies.iter().any(|net| net.contains(ip))
    }

    /// The address of the browser: the socket's, or what a trusted proxy says of it. Entries that a client wrote itself stand
    /// left of the proxy's own and are never reached; nor is what stands left of an entry that does not read.
    fn client_address(&self, parts: &Parts) -> Option<IpAddr> {
        let socket = parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip();
        let forwarded = parts.headers.get_all(HeaderName::from_static("x-forwarded-for"));
        Some(nearest(socket, forwarded.iter().map(HeaderValue::as_bytes), |ip| self.trusts(ip)))
    }
}

/// The first address, seen from the socket, that is none of a trusted proxy's; each of them named the one behind it.
fn nearest<'h>(socket: IpAddr, forwarded: impl Iterator<Item = &'h [u8]>, trusts: impl Fn(&IpAddr) -> bool) -> IpAddr {
    let hops: Vec<&[u8]> = forwarded.flat_map(|line| line.split(|byte| *byte == b',')).collect();
    let mut known = socket.to_canonical();
    for hop in hops.into_iter().rev() {
        let Some(said) = address(hop).filter(|_| trusts(&known)) else { break };
        known = said;
    }
    known
}

/// An address, as proxies write it: some with the port.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(bytes).ok()?.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    text.parse().ok().or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

/// The whole server but the demo.
pub fn router(app: App) -> Router {
    let (api, document) = api::router();
    let routes = api
        .route_layer(middleware::from_fn_with_state(app.clone(), idempotency::once))
        .merge(pages::router(&app, app.settings.development))
        .merge(api::around(document, app.settings.development))
        .fallback(pages::nowhere)
        .method_not_allowed_fallback(|| async { Refused::from(problem::HTTP_METHOD_UNSUPPORTED) });
    routes.layer(middleware::from_fn_with_state(app.clone(), frame)).with_state(app)
}

/// The one layer around all routes, since each copies the request once more: gives the request its id, completes refusals and
/// sets the headers that every answer has. A request that panics or takes too long is answered too.
async fn frame(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = own_id(request.headers()).unwrap_or_else(|| Id::new(Kind::Request, &app.engine.moment()).to_string());
    request.extensions_mut().insert(RequestId(id.clone()));
    let trace = trace::Trace::begin(&request, &id);
    let working = app.settings.working.subscribe();
    let reader = Reader::of(&request);
    let response = match app.engine.is_left_behind() && !is_probe(request.uri().path()) {
        true => reader.without_answer(&id, false),
        false => {
            let answer = cross_origin::answer(app.clone(), request, next, working).instrument(trace.span.clone());
            apart(answer).await.unwrap_or_else(|| reader.without_answer(&id, true))
        }
    };
    let response = problem::complete(response, app.engine.issuer(), &id);
    trace.end(&response);
    framed(response, &id, app.is_secure())
}

/// What tells of the engine itself.
fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

/// With the headers that every answer has.
fn framed(mut response: Response, id: &str, secure: bool) -> Response {
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::CACHE_CONTROL, "no-store");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    if secure {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains");
    }
    identified(response, id)
}

/// With the id of its request, unless it has one.
pub fn identified(mut response: Response, id: &str) -> Response {
    let headers = response.headers_mut();
    if let (false, Ok(value)) = (headers.contains_key(REQUEST_ID), HeaderValue::from_str(id)) {
        headers.insert(REQUEST_ID, value);
    }
    response
}

/// Answers in a task of its own, within its time: a caller that hangs up does not stop what it began, such as the settling of a text
/// that is on its way, and a panic ends that task alone. `None` where no answer came.
async fn apart(answer: impl Future<Output = Response> + Send + 'static) -> Option<Response> {
    let answered = tokio::spawn(tokio::time::timeout(LONGEST, answer)).await;
    answered.ok().and_then(Result::ok)
}

/// The id that the caller gave the request, if it is sane.
pub fn own_id(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(REQUEST_ID)?.to_str().ok()?;
    is_sane(given).then(|| given.to_owned())
}

/// A caller's own id is echoed if it is short and plain.
fn is_sane(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// How many cases `tests/torture.sh` asks for; few if it does not.
#[cfg(test)]
fn torture() -> proptest::prelude::ProptestConfig {
    let cases = std::env::var("COUNTERSIGN_TORTURE").ok().and_then(|n| n.parse().ok()).unwrap_or(64);
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse;

    use super::*;

    async fn broken() -> Response {
        std::panic::panic_any("it broke")
    }

    #[tokio::test]
    async fn a_request_that_panics_ends_without_an_answer() {
        assert!(apart(broken()).await.is_none());
        let response = apart(async { StatusCode::NO_CONTENT.into_response() }).await;
        assert_eq!(response.expect("an answer").status(), StatusCode::NO_CONTENT);
    }

    /// what stands left of what a trusted proxy saw is nobody's word, in whatever bytes it is written.
    #[test]
    fn the_nearest_address_that_is_no_proxy_counts() {
        let from = |socket: &str, lines: &[&[u8]]| {
            let trusts = |ip: &IpAddr| ip.to_string().starts_with("10.");
            nearest(socket.parse().expect("an address"), lines.iter().copied(), trusts).to_string()
        };
        assert_eq!(from("192.0.2.1", &[b"198.51.100.1"]), "192.0.2.1", "it is no proxy");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &[b"198.51.100.1, 192.0.2.7 ,10.0.0.2"]), "192.0.2.7");
        assert_eq!(from("10.0.0.1", &[b"198.51.100.1", b"192.0.2.7"]), "192.0.2.7");
        assert_eq!(from("10.0.0.1", &[b"198.51.100.1, 192.0.2.7:4711"]), "192.0.2.7");
        assert_eq!(from("10.0.0.1", &[b"[2001:db8::7]:4711"]), "2001:db8::7");
        assert_eq!(from("::ffff:10.0.0.1", &[b"::ffff:192.0.2.7"]), "192.0.2.7");
        assert_eq!(from("10.0.0.1", &[b"198.51.100.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(from("10.0.0.1", &[b"198.51.100.1, \xc3\xa9, 192.0.2.7"]), "192.0.2.7");
        assert_eq!(from("10.0.0.1", &[b"\xe9, 192.0.2.7"]), "192.0.2.7");
    }

    #[test]
    fn only_short_plain_request_ids_are_echoed() {
        assert!(is_sane("req_0199-aB.c"));
        for bad in ["", "a b", "a\r\nSet-Cookie: x", "é", &"a".repeat(65), "<b>"] {
            assert!(!is_sane(bad), "{bad}");
        }
    }
}
