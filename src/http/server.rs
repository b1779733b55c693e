//! Connections: HTTP/1.1 with a time limit for headers, and an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::outage::Reader;
use super::problem;

/// A client has this long to send a request's headers; a silent connection is closed after it.
const HEADERS: Duration = Duration::from_secs(15);
/// Requests in flight have this long to finish at the end.
const FINISH: Duration = Duration::from_secs(20);
/// Connections at once; more wait to be accepted.
pub const CONNECTIONS: usize = 8192;

/// Lets nothing through to the engine's routes until they are there: the socket listens, the process lives, and it is not ready.
#[derive(Clone, Default)]
pub struct Gate(Arc<OnceLock<Router>>);

impl Gate {
    /// The routes are there.
    pub fn open(&self, router: Router) {
        let _ = self.0.set(router);
    }

    /// What stands in front; `request_id` names a request that comes too early and does not name itself.
    pub fn router(self, issuer: String, request_id: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
        let secure = issuer.starts_with("https:");
        let early = move |request: &Request| {
            let id = super::own_id(request.headers()).unwrap_or_else(&request_id);
            let answer = match request.uri().path() {
                "/livez" => ([(CONTENT_TYPE, "application/json")], "{\"status\":\"ok\"}").into_response(),
                _ => problem::complete(Reader::of(request).without_answer(&id, false), &issuer, &id),
            };
            super::framed(answer, &id, secure)
        };
        Router::new().fallback(move |request: Request| async move {
            match self.0.get() {
                Some(router) => router.clone().oneshot(request).await.into_response(),
                None => early(&request),
            }
        })
    }
}

/// Serves until `stop`, then finishes what is in flight.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
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
        let service = TowerToHyperService::new(router.clone().layer(axum::Extension(ConnectInfo(peer))));
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
    use axum::body::Body;

    use super::*;

    #[tokio::test]
    async fn a_person_who_comes_too_early_gets_a_page() {
        let router = Gate::default().router("http://localhost".to_owned(), || "req_1".to_owned());
        let kind = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            let Ok(response) = router.clone().oneshot(request).await;
            let kind = response.headers()[CONTENT_TYPE].to_str().expect("text").to_owned();
            (response.status().as_u16(), kind, response.headers().contains_key("content-security-policy"))
        };
        assert_eq!(kind("/challenge/chl_1").await, (503, "text/html; charset=utf-8".to_owned(), true));
        assert_eq!(kind("/v1/users/ann").await, (503, "application/problem+json".to_owned(), true));
        assert_eq!(kind("/livez").await, (200, "application/json".to_owned(), true));
    }
}
