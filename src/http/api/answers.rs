//! What a caller is told of each ending of a call: one status and one body, written here whether it is said for the first time, kept,
//! or said again.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::challenges::{ChallengeView, ExchangedView, OutcomeView, PreparedView, VerifiedView};
use super::portal_sessions::CreatedView;
use super::recovery_codes::CodesView;
use super::sessions::IntrospectionView;
use super::shapes::{FactorView, RecoveryView};
use super::webhooks::{DeliveryView, SecretView};
use crate::engine::{Ending, Told};
use crate::http::problem::{Problem, Refused};
use crate::model::{Id, Kind};

/// The only one of a webhook endpoint, whose address is none.
const OF_ENDPOINTS: [&str; 1] = ["/secret"];

/// Members that are seen once: an answer that is kept for longer than ten minutes has null there (api.md, 3).
const SECRETS: [&str; 9] = [
    "/session/token",
    "/session/jwt",
    "/totp/secret",
    "/totp/otpauth_uri",
    "/totp/qr_svg",
    "/codes",
    "/client_token",
    "/url",
    "/code",
];

/// The answer to a call that ended well.
pub fn of(ending: Ending<'_>, issuer: &str) -> Response {
    let (status, body) = written(ending, issuer, "");
    ready(status, body)
}

/// The answer to any call as it is kept.
pub fn told(ending: Ending<'_>, issuer: &str, request_id: &str) -> Told {
    let secrets = match ending {
        Ending::EndpointCreated(_) | Ending::SecretRotated(_) | Ending::TestQueued(_) => &OF_ENDPOINTS[..],
        _ => &SECRETS,
    };
    let (status, body) = written(ending, issuer, request_id);
    without(secrets, status, &body)
}

/// An answer as it is kept: its status before its body.
pub fn keepable(status: StatusCode, body: &[u8]) -> Told {
    without(&SECRETS, status, body)
}

fn without(secrets: &[&str], status: StatusCode, body: &[u8]) -> Told {
    let packed = |body: &[u8]| [&status.as_u16().to_be_bytes(), body].concat();
    let brief = || {
        let mut body: Value = serde_json::from_slice(body).ok().filter(|_| status.is_success())?;
        let mut has_any = false;
        for secret in secrets {
            if let Some(member) = body.pointer_mut(secret) {
                *member = Value::Null;
                has_any = true;
            }
        }
        has_any.then(|| packed(body.to_string().as_bytes()))
    };
    Told { whole: Zeroizing::new(packed(body)), brief: brief() }
}

/// The answer that was kept so.
pub fn again(kept: &[u8]) -> Option<Response> {
    let (status, body) = kept.split_first_chunk::<2>()?;
    Some(ready(StatusCode::from_u16(u16::from_be_bytes(*status)).ok()?, body.to_vec()))
}

/// The JWT in a kept answer, and its session.
pub fn jwt(kept: &[u8]) -> Option<(Id, Zeroizing<String>)> {
    let body: Value = serde_json::from_slice(kept.get(2..)?).ok()?;
    let session = Id::parse(Kind::Session, body.pointer("/session/id")?.as_str()?)?;
    Some((session, Zeroizing::new(body.pointer("/session/jwt")?.as_str()?.to_owned())))
}

/// The kept answer with another JWT in the place of its own, or none; every other byte stays.
pub fn with_jwt(kept: &[u8], old: &str, new: Option<String>) -> Zeroizing<Vec<u8>> {
    let quoted = |jwt: &str| format!("\"{jwt}\"").into_bytes();
    let (old, new) = (quoted(old), new.map_or(b"null".to_vec(), |jwt| quoted(&jwt)));
    let place = kept.windows(old.len()).position(|bytes| bytes == old).expect("the answer that the JWT was read from");
    Zeroizing::new([&kept[..place], &new, &kept[place + old.len()..]].concat())
}

/// The user whom an answer names: with that user what is kept of it goes.
pub fn user(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        user_id: Option<String>,
    }

    serde_json::from_slice::<Named>(body).ok()?.user_id
}

/// The request that a kept problem names.
pub fn request_id(kept: &[u8]) -> Option<HeaderValue> {
    let body: Value = serde_json::from_slice(kept.get(2..)?).ok()?;
    HeaderValue::from_str(body.get("request_id")?.as_str()?).ok()
}

fn ready(status: StatusCode, body: Vec<u8>) -> Response {
    let content_type = if status.is_success() { "application/json" } else { "application/problem+json" };
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

fn written(ending: Ending<'_>, issuer: &str, request_id: &str) -> (StatusCode, Vec<u8>) {
    match ending {
        Ending::Opened(open) => created(&ChallengeView::opened(open, issuer)),
        Ending::Approved { challenge, issued, reason } => ok(&OutcomeView::approved(challenge, issued, reason)),
        Ending::EnrolmentRequired { missing, open } => ok(&OutcomeView::enrolment_required(missing, open, issuer)),
        Ending::Prepared(shown, prompt) => ok(&PreparedView::new(shown, prompt)),
        Ending::Verified(verdict) => ok(&VerifiedView::from(verdict)),
        Ending::Exchanged(issued) => ok(&ExchangedView::from(issued)),
        Ending::Cancelled(challenge) => ok(&ChallengeView::cancelled(challenge)),
        Ending::Begun { factor, shown, prompt } => created(&FactorView::begun(factor, shown, prompt)),
        Ending::Resent { factor, shown, prompt } => ok(&FactorView::begun(factor, shown, prompt)),
        Ending::Activated(factor) => ok(&FactorView::from(factor)),
        Ending::Codes(codes, status) => created(&CodesView::new(codes, status)),
        Ending::Confirmed(summary) => ok(&RecoveryView::from(*summary)),
        Ending::Introspected(introspection) => ok(&IntrospectionView::from(introspection)),
        Ending::Visit(visit) => created(&CreatedView::new(visit, issuer)),
        Ending::EndpointCreated(made) => created(&SecretView::from(made)),
        Ending::SecretRotated(rotated) => ok(&SecretView::from(rotated)),
        Ending::TestQueued(delivery) => (StatusCode::ACCEPTED, bytes(&DeliveryView::from(delivery))),
        Ending::Refused(answered) => {
            let refused = Refused::from(answered);
            (refused.code.status, bytes(&Problem::new(&refused, issuer, request_id)))
        }
    }
}

fn ok(view: &impl Serialize) -> (StatusCode, Vec<u8>) {
    (StatusCode::OK, bytes(view))
}

fn created(view: &impl Serialize) -> (StatusCode, Vec<u8>) {
    (StatusCode::CREATED, bytes(view))
}

fn bytes(view: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(view).expect("views are JSON: text keys, no numbers that JSON lacks")
}
