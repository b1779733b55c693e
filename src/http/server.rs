//! Connections: HTTP/1.1 with a time limit for headers, and an orderly end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::Service;

use super::outage::Reader;
use super::problem;

/// A client has this long to send a request's headers; a silent connection is closed after it.
const HEADERS: Duration = Duration::from_secs(15);
/// Requests in flight have this long to finish at the end.
const FINISH: Duration = Duration::from_secs(20);
/// Connections at once; more wait to be accepted.
pub const CONNECTIONS: usize = 8192;

/// Lets nothing through to the routes until they are there: the socket listens, the process lives, and it is not ready. No router
/// of its own: every request comes through here, and a router copies what it holds for each.
#[derive(Clone)]
pub struct Gate(Arc<Doors>);

struct Doors {
    routes: OnceLock<Router>,
    early: Box<dyn Fn(&Request) -> Response + Send + Sync>,
}

impl Gate {
    /// One that is closed; `request_id` names a request that comes too early and does not name itself.
    pub fn closed(issuer: String, request_id: impl Fn() -> String + Send + Sync + 'static) -> Gate {
        let secure = issuer.starts_with("https:");
        let early = move |request: &Request| {
            let id = super::own_id(request.headers()).unwrap_or_else(&request_id);
            let answer = match request.uri().path() {
                "/livez" => ([(CONTENT_TYPE, "application/json")], "{\"status\":\"ok\"}").into_response(),
                _ => problem::complete(Reader::of(request).without_answer(&id, false), &issuer, &id),
            };
            super::framed(answer, &id, secure)
        };
        Gate(Arc::new(Doors { routes: OnceLock::new(), early: Box::new(early) }))
    }

    /// The routes are there.
    pub fn open(&self, router: Router) {
        let _ = self.0.routes.set(router);
    }

    async fn answer(&self, request: Request) -> Response {
        match self.0.routes.get() {
            Some(router) => router.clone().call(request).await.into_response(),
            None => (self.0.early)(&request),
        }
    }
}

/// One that is open from the start.
impl From<Router> for Gate {
    fn from(router: Router) -> Gate {
        let early = |_: &Request| StatusCode::SERVICE_UNAVAILABLE.into_response();
        Gate(Arc::new(Doors { routes: router.into(), early: Box::new(early) }))
    }
}

/// Serves until `stop`, then finishes what is in flight.
pub async fn serve(listener: TcpListener, gate: impl Into<Gate>, stop: impl Future<Output = ()>) {
    let gate = gate.into();
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(64 * 1024);
    let mut stop = pin!(stop);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            listener.accept().await.map(|accepted| (place, accepted))
        };
        let (place, (stream, peer)): (_, (_, SocketAddr)) = tokio::select! {
            accepted = next => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let _ = stream.set_nodelay(true);
        let gate = gate.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (gate, mut request) = (gate.clone(), request.map(Body::new));
            request.extensions_mut().insert(ConnectInfo(peer));
            async move { Ok::<_, Infallible>(gate.answer(request).await) }
        });
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(FINISH, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not finish in time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_person_who_comes_too_early_gets_a_page() {
        let gate = Gate::closed("http://localhost".to_owned(), || "req_1".to_owned());
        let kind = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            let response = gate.answer(request).await;
            let kind = response.headers()[CONTENT_TYPE].to_str().expect("text").to_owned();
            (response.status().as_u16(), kind, response.headers().contains_key("content-security-policy"))
        };
        assert_eq!(kind("/challenge/chl_1").await, (503, "text/html; charset=utf-8".to_owned(), true));
        assert_eq!(kind("/v1/users/ann").await, (503, "application/problem+json".to_owned(), true));
        assert_eq!(kind("/livez").await, (200, "application/json".to_owned(), true));
    }
}
