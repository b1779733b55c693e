//! `Idempotency-Key`: whoever asks the same again is given the first answer (api.md, 3). The engine keeps answers with their
//! effects; what had none is kept here afterwards. Costs nothing where no key is sent.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use zeroize::Zeroizing;

use super::api::answers::{self, again, keepable, told};
use super::auth::{Bearer, Pass, request_id, token};
use super::body::OfId;
use super::problem::{self, Refused};
use super::{App, REQUEST_ID, body, own_id};
use crate::engine::{Asked, Clash, Ending, Error, Once, Turn};
use crate::model::{Id, Scope};

const KEY: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Lets the first copy of a request through, and gives every other its answer.
pub async fn once(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    decide(&app, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn decide(app: &App, request: Request, next: Next) -> Result<Response, Refused> {
    let (mut parts, body) = request.into_parts();
    let bearer = Bearer::from_request_parts(&mut parts, app).await?;
    let rp = bearer.relying_party();
    let (turn, body) = match turn(app, rp, &parts, body).await {
        Ok(turn) => turn,
        Err(refused) => return Err(counted(app, &mut parts, refused).await),
    };
    let once = match turn {
        Turn::Again(kept) => return replay(app, rp, own_id(&parts.headers), kept).await,
        Turn::First(once) => once,
    };
    let (issuer, id, own) = (app.engine.issuer(), request_id(&parts), own_id(&parts.headers));
    parts.extensions.insert(Arc::clone(&once));
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    // Nothing of it is left once the answer is complete.
    let refused = response.extensions().get::<Refused>().cloned();
    let settled = settle(app, rp, &once, own, refused.as_ref(), problem::complete(response, issuer, &id)).await;
    let attempts_left = refused.and_then(|refused| refused.attempts_left);
    settled.map_err(|refused| Refused { attempts_left: refused.attempts_left.or(attempts_left), ..refused })
}

/// Whether it is the first of its kind; with its body.
async fn turn(app: &App, rp: &Id, parts: &Parts, body: Body) -> Result<(Turn, Bytes), Refused> {
    let key = key(&parts.headers)
        .ok_or_else(|| Refused::invalid(KEY, "Expected one of 1 to 255 visible ASCII characters."))?;
    let body = body::bytes(body).await?;
    let asked = Asked {
        token: token(&parts.headers).unwrap_or_default(),
        method: parts.method.as_str(),
        path: parts.uri.path(),
        key,
        body: &body,
    };
    let (issuer, id) = (app.engine.issuer().to_owned(), request_id(parts));
    let tell = Box::new(move |ending: Ending<'_>| told(ending, &issuer, &id));
    Ok((app.engine.turn(rp, &asked, tell).await?, body))
}

/// With what the challenge still takes, where an answer to one was refused before it was looked at (api.md, 3).
async fn counted(app: &App, parts: &mut Parts, refused: Refused) -> Refused {
    let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let is_answer = matches!(route, Some("/v1/challenges/{id}/verify" | "/v1/challenges/{id}/prepare"));
    if !is_answer || refused.code.status.is_server_error() {
        return refused;
    }
    let attempts_left = async {
        let pass = Pass::from_request_parts(parts, app).await?;
        let Ok(id) = OfId::from_request_parts(parts, app).await;
        let (caller, ..) = pass.at_challenge(app, &id, Scope::Challenges).await?;
        Ok::<_, Refused>(caller.attempts_left())
    };
    // Who may not see the challenge hears nothing of it.
    Refused { attempts_left: attempts_left.await.unwrap_or_default(), ..refused }
}

/// Keeps what is not kept yet, and gives way where the answer is none that is kept.
async fn settle(
    app: &App,
    rp: &Id,
    once: &Once,
    own: Option<String>,
    refused: Option<&Refused>,
    response: Response,
) -> Result<Response, Refused> {
    let status = response.status();
    if refused.is_some_and(|refused| refused.is(problem::IDEMPOTENCY_IN_PROGRESS)) {
        return match app.engine.recall(once).await? {
            Some(kept) => replay(app, rp, own, kept).await,
            None => Ok(response),
        };
    }
    // The type of the body is no part of what a repetition is compared by: the right one may come under the same key.
    let is_of_the_moment =
        matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED | StatusCode::UNSUPPORTED_MEDIA_TYPE);
    if status.is_server_error() || is_of_the_moment {
        if let Err(error) = app.engine.free(once).await {
            tracing::warn!(?error, "a key stays taken until its request is given up");
        }
        return Ok(response);
    }
    if let Some(told) = once.told() {
        return Ok(again(&told.whole).unwrap_or(response));
    }
    let (head, body) = response.into_parts();
    let body = body::bytes(body).await?;
    let user_id = answers::user(&body).unwrap_or_default();
    match app.engine.keep_afterwards(once, &user_id, &keepable(status, &body)).await {
        Err(Error::Clash(Clash::InProgress)) => match app.engine.recall(once).await? {
            Some(kept) => replay(app, rp, own, kept).await,
            None => Err(problem::IDEMPOTENCY_IN_PROGRESS.into()),
        },
        // What was done is done: better told and not kept than done twice.
        Ok(()) | Err(_) => Ok(Response::from_parts(head, Body::from(body))),
    }
}

async fn replay(app: &App, rp: &Id, own: Option<String>, kept: Zeroizing<Vec<u8>>) -> Result<Response, Refused> {
    let kept = match answers::jwt(&kept) {
        Some((session, jwt)) => answers::with_jwt(&kept, &jwt, app.engine.signed_again(rp, &session).await?),
        None => kept,
    };
    let mut response = again(&kept).ok_or(Refused::from(problem::STORE_UNAVAILABLE))?;
    // A problem names the request that met it, in its body and so in its head; but who gave this one an id is given that.
    if let (None, Some(id)) = (own, answers::request_id(&kept)) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

fn key(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(KEY).iter();
    let (one, none) = (all.next()?, all.next());
    let text = one.to_str().ok()?;
    let is_key = none.is_none() && (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    is_key.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::http::torture())]

        #[test]
        fn torture_of_the_idempotency_key(
            values in prop::collection::vec(prop_oneof![any::<Vec<u8>>(), "[!-~]{0,300}".prop_map(String::into_bytes)], 0..3)
        ) {
            let mut headers = HeaderMap::new();
            for value in values.iter().filter_map(|v| HeaderValue::from_bytes(v).ok()) {
                headers.append(KEY, value);
            }
            let all: Vec<_> = headers.get_all(KEY).iter().collect();
            let good = all.len() == 1
                && (1..=255).contains(&all[0].len())
                && all[0].as_bytes().iter().all(u8::is_ascii_graphic);
            prop_assert_eq!(key(&headers).map(str::as_bytes), good.then(|| all[0].as_bytes()));
        }
    }
}
