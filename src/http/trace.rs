//! What is seen of a request from outside: a span that gives each of its log lines the request's id, one line when it is
//! answered, and its counts. Routes appear as templates: ids, and what a caller made up, stay out.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::response::Response;
use tracing::Span;

use crate::measure::{self, Stopwatch};

/// One request while it is answered.
pub struct Trace {
    method: &'static str,
    route: Option<MatchedPath>,
    watch: Stopwatch,
    /// Everything that the request does belongs into it.
    pub span: Span,
}

impl Trace {
    /// From the request's arrival.
    pub fn begin(request: &Request, id: &str) -> Trace {
        let (method, matched) = (word(request.method()), request.extensions().get::<MatchedPath>().cloned());
        let route = template(matched.as_ref());
        // At the highest level, so that a filter that lets only errors through still names their request.
        #[cfg(not(feature = "otlp"))]
        let span = tracing::error_span!("request", request_id = id, method, route);
        #[cfg(feature = "otlp")]
        let span = remote::span(request, id, method, route);
        Trace { method, route: matched, watch: Stopwatch::start(), span }
    }

    /// Until its answer.
    pub fn end(&self, response: &Response) {
        let (status, seconds) = (response.status(), self.watch.seconds());
        measure::request(self.method, template(self.route.as_ref()), status.as_u16(), seconds);
        #[cfg(feature = "otlp")]
        remote::end(&self.span, status);
        let duration_ms = (seconds * 1e6).round() / 1e3;
        tracing::info!(parent: &self.span, status = status.as_u16(), duration_ms, "answered");
    }
}

fn template(route: Option<&MatchedPath>) -> &str {
    route.map_or("unmatched", MatchedPath::as_str)
}

/// A method of HTTP that the engine knows; callers make up others.
fn word(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    known.into_iter().find(|known| method.as_str() == *known).unwrap_or("other")
}

/// The request as part of a trace that began elsewhere (W3C Trace Context).
#[cfg(feature = "otlp")]
mod remote {
    use axum::extract::Request;
    use axum::http::{HeaderMap, StatusCode};
    use opentelemetry::propagation::Extractor;
    use tracing::Span;
    use tracing::field::Empty;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    struct Headers<'a>(&'a HeaderMap);

    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).and_then(|value| value.to_str().ok())
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(|name| name.as_str()).collect()
        }
    }

    pub fn span(request: &Request, id: &str, method: &str, route: &str) -> Span {
        let span = tracing::error_span!("request", request_id = id, method, route,
            otel.kind = "server", otel.name = %format_args!("{method} {route}"), otel.status_code = Empty,
            http.request.method = method, http.route = route, http.response.status_code = Empty);
        let parent = opentelemetry::global::get_text_map_propagator(|p| p.extract(&Headers(request.headers())));
        // Without a trace layer there is nothing to attach to.
        let _ = span.set_parent(parent);
        span
    }

    pub fn end(span: &Span, status: StatusCode) {
        span.record("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
    }
}
