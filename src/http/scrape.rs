//! `/metrics`: who may read it, and where. It needs no key, so it is for this machine, for trusted proxies' machines, and for
//! a listener of its own that the operator puts where only the monitoring reaches it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};

use super::App;
use super::problem::{self, Problem, Refused};
use crate::engine::Engine;

/// Metrics of this process in Prometheus's text format. Answered to this machine and to trusted proxies' own calls only; with
/// `COUNTERSIGN_METRICS_LISTEN` on that listener only.
#[utoipa::path(get, path = "/metrics", tag = "service", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn metrics(State(app): State<App>, parts: Parts) -> Result<Response, Refused> {
    match app.may_read_metrics(&parts) {
        true => Ok(answer(&app.engine)),
        false => Err(problem::NOT_FOUND.into()),
    }
}

/// The routes of the metrics' own listener: everybody who reaches it may read.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new().route("/metrics", routing::get(move || async move { answer(&engine) }))
}

fn answer(engine: &Engine) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], engine.metrics()).into_response()
}

impl App {
    /// What was forwarded comes from somewhere else, whoever forwarded it.
    fn may_read_metrics(&self, parts: &Parts) -> bool {
        let forwarded = ["x-forwarded-for", "forwarded", "via"].iter().any(|name| parts.headers.contains_key(*name));
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip().to_canonical());
        let near = peer.is_some_and(|ip| ip.is_loopback() || self.trusts(&ip));
        near && !forwarded && !self.settings.metrics_elsewhere
    }
}
