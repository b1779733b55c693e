//! CORS, on the API alone: client tokens are used by pages of the relying party's own. It must not know what is asked.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::problem::Refused;
use super::{App, auth};

/// The origin of a page that calls the API.
pub fn of(request: &Request) -> Option<HeaderValue> {
    request.headers().get(header::ORIGIN).filter(|_| request.uri().path().starts_with("/v1/")).cloned()
}

/// Answers, with what a page of a registered origin needs to read it. The origin is looked up first, so that a page can read a
/// refusal too, and each such call is a visit; whoever is told to wait or to come again may read it from any origin. Whoever ends
/// the engine waits until `_working` is dropped, with the request.
pub async fn answer(app: App, request: Request, next: Next, _working: watch::Receiver<()>) -> Response {
    let Some(origin) = of(&request) else { return next.run(request).await };
    let name = String::from_utf8_lossy(origin.as_bytes()).into_owned();
    let is_preflight = request.method() == Method::OPTIONS;
    let (parts, body) = request.into_parts();
    let visit = if auth::shows_key(&parts.headers) { None } else { Some(app.flood.visit(app.client_address(&parts))) };
    let request = Request::from_parts(parts, body);
    let (known, mut response) = match visit {
        Some(Err(refused)) => (true, refused.into_response()),
        Some(Ok(())) => match app.engine.knows_origin(&name).await {
            Err(error) => return despite(error.into(), origin, is_preflight),
            Ok(true) if is_preflight => (true, StatusCode::NO_CONTENT.into_response()),
            Ok(known) => (known, next.run(request).await),
        },
        // A server. Only who shows a key that is one has anything looked up: no other is told that all is well.
        None => {
            let response = next.run(request).await;
            let is_well = response.status().is_success();
            (is_well && app.engine.knows_origin(&name).await.unwrap_or_default(), response)
        }
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if known {
        let_read(headers, origin);
        if is_preflight {
            let_send(headers);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
    response
}

/// Refuses a page whose origin nobody can look up now, so that it can read that it is to come again. A browser that asks first goes
/// on and is told so: what it asks for is refused, or judged by an engine that looks the origin up.
pub fn despite(refused: Refused, origin: HeaderValue, is_preflight: bool) -> Response {
    let mut response = match is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => refused.into_response(),
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let_read(headers, origin);
    if is_preflight {
        let_send(headers);
    }
    response
}

/// The page may read the answer.
fn let_read(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("request-id, retry-after, idempotent-replayed"),
    );
}

/// The page may send what it has asked about.
fn let_send(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PATCH, DELETE"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, idempotency-key, request-id"),
    );
}
