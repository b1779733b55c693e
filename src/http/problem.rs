//! From an error to what the caller sees: RFC 9457 with a stable code. One match; nothing the caller sent is echoed.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::{Answered, Clash, Error, Fault, Gone, Refusal, Undelivered};

/// `application/problem+json` (RFC 9457). `detail` is for the developer, `user_message` may be shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// An address that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// Stable; what programs decide by.
    pub code: &'static str,
    /// For the developer.
    pub detail: String,
    /// May be shown to the person.
    pub user_message: &'static str,
    /// The request member that does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// Seconds to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<i64>,
    /// Answers that the challenge still takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_left: Option<i64>,
    /// The request, as in the header `Request-Id`.
    pub request_id: String,
}

impl Problem {
    /// A refusal of this request.
    pub fn new(refused: &Refused, base: &str, request_id: &str) -> Problem {
        Problem {
            kind: format!("{base}/errors/{}", refused.code.code),
            title: refused.code.title,
            status: refused.code.status.as_u16(),
            code: refused.code.code,
            detail: refused.detail.to_owned(),
            user_message: refused.code.user_message,
            param: refused.param.clone(),
            retry_after: refused.retry_after,
            attempts_left: refused.attempts_left,
            request_id: request_id.to_owned(),
        }
    }
}

/// A code with its status and words.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// The stable code.
    pub code: &'static str,
    /// HTTP status.
    pub status: StatusCode,
    /// The kind in words.
    pub title: &'static str,
    /// May be shown to the person.
    pub user_message: &'static str,
}

const SOMETHING: &str = "Something went wrong. Go back and try again.";
/// What a hold says: the code is that of a pause.
pub const ON_HOLD: &str = "Your second step is on hold. Use another way, or contact support.";
/// Of a number that every gateway has rejected for good.
pub const UNDELIVERABLE: &str = "We couldn't deliver to this number. It may be a landline or block our messages.";
const OURS: &str = "Something went wrong on our side. Nothing was changed. Try again in a minute.";

macro_rules! codes {
    ($($name:ident = $status:ident $code:literal $title:literal $message:expr;)*) => {
        $(#[doc = $title] pub const $name: Code = Code { code: $code, status: StatusCode::$status, title: $title, user_message: $message };)*
        /// Every code, for the documentation and its test.
        pub const CODES: &[Code] = &[$($name),*];
    };
}

codes! {
    REQUEST_MALFORMED = BAD_REQUEST "request_malformed" "The request cannot be read" SOMETHING;
    API_KEY_INVALID = UNAUTHORIZED "api_key_invalid" "The API key is missing, unknown, expired or revoked" SOMETHING;
    CLIENT_TOKEN_INVALID = UNAUTHORIZED "client_token_invalid" "The client token is unknown or expired" "This page has been open too long. Go back and try again.";
    SCOPE_MISSING = FORBIDDEN "scope_missing" "The API key may not do this" SOMETHING;
    ORIGIN_NOT_ALLOWED = FORBIDDEN "origin_not_allowed" "The origin is not registered" SOMETHING;
    RETURN_URL_NOT_ALLOWED = FORBIDDEN "return_url_not_allowed" "The return address is not registered" SOMETHING;
    STEP_UP_REQUIRED = FORBIDDEN "step_up_required" "A fresh proof is needed first" "Confirm it's you to continue.";
    NOT_FOUND = NOT_FOUND "not_found" "There is no such thing" SOMETHING;
    HTTP_METHOD_UNSUPPORTED = METHOD_NOT_ALLOWED "http_method_unsupported" "This address does not take this method" SOMETHING;
    FACTOR_NOT_PENDING = CONFLICT "factor_not_pending" "The factor is active already" "This is set up already.";
    CHALLENGE_NOT_PENDING = CONFLICT "challenge_not_pending" "The challenge takes no more answers" "This request is no longer open. Go back and try again.";
    LAST_FACTOR = CONFLICT "last_factor" "It is the only factor" "You can't remove your only method. Add another first.";
    FACTOR_DUPLICATE = CONFLICT "factor_duplicate" "The user has this factor already" "You already added this.";
    NAME_TAKEN = CONFLICT "name_taken" "The name is taken" "You already use that name.";
    IDEMPOTENCY_IN_PROGRESS = CONFLICT "idempotency_in_progress" "The first copy of this request is not answered yet" "One moment, this is on its way.";
    ENDPOINT_LIMIT = CONFLICT "endpoint_limit" "There are as many webhook endpoints as there may be" SOMETHING;
    ENDPOINT_DISABLED = CONFLICT "endpoint_disabled" "The webhook endpoint is disabled" SOMETHING;
    CHALLENGE_EXPIRED = GONE "challenge_expired" "The challenge has expired" "This request timed out. Nothing was changed. Start again.";
    ENROLMENT_EXPIRED = GONE "enrolment_expired" "The pending factor has expired" "This took too long. Start again.";
    BODY_TOO_LARGE = PAYLOAD_TOO_LARGE "body_too_large" "The body is too large" SOMETHING;
    MEDIA_TYPE_UNSUPPORTED = UNSUPPORTED_MEDIA_TYPE "media_type_unsupported" "The body must be application/json" SOMETHING;
    REQUEST_INVALID = UNPROCESSABLE_ENTITY "request_invalid" "A member of the request does not fit" SOMETHING;
    CODE_INCORRECT = UNPROCESSABLE_ENTITY "code_incorrect" "The code is wrong" "That code didn't match. Check it and try again.";
    CODE_MALFORMED = UNPROCESSABLE_ENTITY "code_malformed" "The code does not have the form of one" "Check the code: it isn't complete.";
    CODE_REUSED = UNPROCESSABLE_ENTITY "code_reused" "The code was used before" "That code was already used. Wait for the next one.";
    CODE_EXPIRED = UNPROCESSABLE_ENTITY "code_expired" "No code is awaited, or it has expired" "That code has expired. Send a new one.";
    CREDENTIAL_UNKNOWN = UNPROCESSABLE_ENTITY "credential_unknown" "No credential of that id for this user" "That passkey isn't one of yours here. Try another way.";
    CREDENTIAL_INVALID = UNPROCESSABLE_ENTITY "credential_invalid" "The credential was not accepted" "We couldn't accept that passkey. Try another way.";
    USER_VERIFICATION_REQUIRED = UNPROCESSABLE_ENTITY "user_verification_required" "The authenticator did not verify the user" "Turn on a screen lock, or use another way.";
    METHOD_NOT_ALLOWED = UNPROCESSABLE_ENTITY "method_not_allowed" "This method may not be used here" "This can't be used here. Try another way.";
    PHONE_INVALID = UNPROCESSABLE_ENTITY "phone_invalid" "Not a phone number in E.164" "Enter all digits of the number, with the country code.";
    PHONE_NOT_ALLOWED = UNPROCESSABLE_ENTITY "phone_not_allowed" "The number may not be texted" "We can't text this number.";
    IDEMPOTENCY_MISMATCH = UNPROCESSABLE_ENTITY "idempotency_mismatch" "The Idempotency-Key was used with another body" SOMETHING;
    METHOD_PAUSED = TOO_MANY_REQUESTS "method_paused" "Guessing of this method pauses" "Take a short break. Too many codes didn't match.";
    SEND_LIMITED = TOO_MANY_REQUESTS "send_limited" "No more texts for now" "We've sent several codes already. Wait a little before the next one.";
    RATE_LIMITED = TOO_MANY_REQUESTS "rate_limited" "Too much at once" "Wait a moment, then try again.";
    DELIVERY_UNAVAILABLE = SERVICE_UNAVAILABLE "delivery_unavailable" "No gateway took the text" "We couldn't send the text just now. Try again in a moment, or try another way.";
    STORE_UNAVAILABLE = SERVICE_UNAVAILABLE "store_unavailable" "The store does not answer" OURS;
}

/// Seconds that a caller waits for a gateway or the store to come back.
const OUTAGE: i64 = 5;

/// A problem before it knows its request; the outermost layer adds `type` and `request_id`.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Which.
    pub code: Code,
    /// For the developer.
    pub detail: &'static str,
    /// The member that does not fit.
    pub param: Option<String>,
    /// Seconds to wait.
    pub retry_after: Option<i64>,
    /// Answers left.
    pub attempts_left: Option<i64>,
}

impl From<Code> for Refused {
    fn from(code: Code) -> Refused {
        let retry_after = (code.status == StatusCode::SERVICE_UNAVAILABLE).then_some(OUTAGE);
        Refused { code, detail: code.title, param: None, retry_after, attempts_left: None }
    }
}

impl Refused {
    /// A member that does not fit.
    pub fn invalid(param: impl Into<String>, detail: &'static str) -> Refused {
        Refused { detail, param: Some(param.into()), ..REQUEST_INVALID.into() }
    }

    /// What is wrong with a member.
    pub fn of(param: &str, code: Code) -> Refused {
        Refused { param: Some(param.to_owned()), ..code.into() }
    }

    /// Whether it is this one.
    pub fn is(&self, code: Code) -> bool {
        self.code.code == code.code
    }

    /// Whether the challenge has ended.
    pub fn is_of_the_end(&self) -> bool {
        self.is(CHALLENGE_EXPIRED) || self.is(CHALLENGE_NOT_PENDING)
    }

    /// Says in a response when to try again, where that is known.
    pub fn tell_when(&self, mut response: Response) -> Response {
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The words that may be shown.
    pub fn user_message(&self) -> &'static str {
        self.code.user_message
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::from(&error)
    }
}

impl From<&Error> for Refused {
    fn from(error: &Error) -> Refused {
        match *error {
            Error::NotFound => NOT_FOUND.into(),
            Error::Invalid { param, why } => Refused::invalid(param, why),
            Error::Clash(Clash::FactorNotPending) => FACTOR_NOT_PENDING.into(),
            Error::Clash(Clash::ChallengeNotPending) => CHALLENGE_NOT_PENDING.into(),
            Error::Clash(Clash::LastFactor) => LAST_FACTOR.into(),
            Error::Clash(Clash::FactorDuplicate) => FACTOR_DUPLICATE.into(),
            Error::Clash(Clash::NameTaken) => NAME_TAKEN.into(),
            Error::Clash(Clash::InProgress) => IDEMPOTENCY_IN_PROGRESS.into(),
            Error::Clash(Clash::EndpointLimit) => ENDPOINT_LIMIT.into(),
            Error::Clash(Clash::EndpointDisabled) => ENDPOINT_DISABLED.into(),
            Error::KeyMismatch => IDEMPOTENCY_MISMATCH.into(),
            Error::Gone(Gone::Challenge) => CHALLENGE_EXPIRED.into(),
            Error::Gone(Gone::Enrolment) => ENROLMENT_EXPIRED.into(),
            Error::Refused(Refusal::Malformed) => CODE_MALFORMED.into(),
            Error::Refused(Refusal::Wrong(Fault::Code)) => CODE_INCORRECT.into(),
            Error::Refused(Refusal::Wrong(Fault::CredentialUnknown)) => CREDENTIAL_UNKNOWN.into(),
            Error::Refused(Refusal::Wrong(Fault::UserNotVerified)) => USER_VERIFICATION_REQUIRED.into(),
            Error::Refused(Refusal::Wrong(Fault::Credential(_))) => CREDENTIAL_INVALID.into(),
            Error::Refused(Refusal::Expired) => CODE_EXPIRED.into(),
            Error::Refused(Refusal::Replayed) | Error::CodeReused => CODE_REUSED.into(),
            Error::Refused(Refusal::PhoneInvalid) => PHONE_INVALID.into(),
            Error::Refused(Refusal::PhoneNotAllowed) => PHONE_NOT_ALLOWED.into(),
            Error::Refused(Refusal::NotAllowed) | Error::MethodNotAllowed => METHOD_NOT_ALLOWED.into(),
            Error::Paused(seconds) => Refused { retry_after: Some(seconds), ..METHOD_PAUSED.into() },
            Error::OnHold(seconds) => Refused {
                code: Code { user_message: ON_HOLD, ..METHOD_PAUSED },
                detail: "On hold until another of the user's factors is right, or support unlocks or resets the user",
                retry_after: Some(seconds),
                ..METHOD_PAUSED.into()
            },
            Error::SendLimited(seconds) => Refused { retry_after: Some(seconds), ..SEND_LIMITED.into() },
            Error::Busy(seconds) => Refused { retry_after: Some(seconds), ..RATE_LIMITED.into() },
            Error::Undelivered(Undelivered::Unavailable) => DELIVERY_UNAVAILABLE.into(),
            Error::Undelivered(Undelivered::Rejected) => Refused {
                detail: "Every gateway has rejected the text for good: nobody can text this number, most likely",
                ..Code { user_message: UNDELIVERABLE, ..DELIVERY_UNAVAILABLE }.into()
            },
            Error::StepUpRequired => STEP_UP_REQUIRED.into(),
            Error::ReturnUrlNotAllowed => RETURN_URL_NOT_ALLOWED.into(),
            Error::Store(ref error) => {
                tracing::error!(%error, "the store failed");
                STORE_UNAVAILABLE.into()
            }
        }
    }
}

impl From<Answered> for Refused {
    fn from(answered: Answered) -> Refused {
        Refused::from(&answered)
    }
}

impl From<&Answered> for Refused {
    fn from(answered: &Answered) -> Refused {
        Refused { attempts_left: answered.attempts_left, ..Refused::from(&answered.error) }
    }
}

impl IntoResponse for Refused {
    /// The body is written by [`complete`], which knows the request.
    fn into_response(self) -> Response {
        let mut response = self.code.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of a refusal, now that the request is known.
pub fn complete(response: Response, base: &str, request_id: &str) -> Response {
    let Some(refused) = response.extensions().get::<Refused>().cloned() else { return response };
    let problem = Problem::new(&refused, base, request_id);
    let mut written = refused.tell_when((refused.code.status, Json(problem)).into_response());
    let headers = written.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if refused.code.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH && name != HeaderName::from_static("content-type") {
            headers.insert(name, value.clone());
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::StoreError;

    /// Every way in which the engine refuses, with the status and the code that api.md gives it.
    #[test]
    fn every_error_has_its_status_and_code() {
        let wrong = |fault| Error::Refused(Refusal::Wrong(fault));
        let table: Vec<(Error, u16, &str)> = vec![
            (Error::NotFound, 404, "not_found"),
            (Error::Invalid { param: "x", why: "y" }, 422, "request_invalid"),
            (Error::Clash(Clash::FactorNotPending), 409, "factor_not_pending"),
            (Error::Clash(Clash::ChallengeNotPending), 409, "challenge_not_pending"),
            (Error::Clash(Clash::LastFactor), 409, "last_factor"),
            (Error::Clash(Clash::FactorDuplicate), 409, "factor_duplicate"),
            (Error::Clash(Clash::NameTaken), 409, "name_taken"),
            (Error::Clash(Clash::InProgress), 409, "idempotency_in_progress"),
            (Error::Clash(Clash::EndpointLimit), 409, "endpoint_limit"),
            (Error::Clash(Clash::EndpointDisabled), 409, "endpoint_disabled"),
            (Error::KeyMismatch, 422, "idempotency_mismatch"),
            (Error::Gone(Gone::Challenge), 410, "challenge_expired"),
            (Error::Gone(Gone::Enrolment), 410, "enrolment_expired"),
            (Error::Refused(Refusal::Malformed), 422, "code_malformed"),
            (wrong(Fault::Code), 422, "code_incorrect"),
            (wrong(Fault::CredentialUnknown), 422, "credential_unknown"),
            (wrong(Fault::Credential("signature")), 422, "credential_invalid"),
            (wrong(Fault::UserNotVerified), 422, "user_verification_required"),
            (Error::Refused(Refusal::Expired), 422, "code_expired"),
            (Error::Refused(Refusal::Replayed), 422, "code_reused"),
            (Error::CodeReused, 422, "code_reused"),
            (Error::Refused(Refusal::PhoneInvalid), 422, "phone_invalid"),
            (Error::Refused(Refusal::PhoneNotAllowed), 422, "phone_not_allowed"),
            (Error::Refused(Refusal::NotAllowed), 422, "method_not_allowed"),
            (Error::MethodNotAllowed, 422, "method_not_allowed"),
            (Error::Paused(30), 429, "method_paused"),
            (Error::OnHold(86_400), 429, "method_paused"),
            (Error::SendLimited(30), 429, "send_limited"),
            (Error::Busy(1), 429, "rate_limited"),
            (Error::Undelivered(Undelivered::Unavailable), 503, "delivery_unavailable"),
            (Error::Undelivered(Undelivered::Rejected), 503, "delivery_unavailable"),
            (Error::StepUpRequired, 403, "step_up_required"),
            (Error::ReturnUrlNotAllowed, 403, "return_url_not_allowed"),
            (Error::Store(StoreError::Unavailable("secret".to_owned())), 503, "store_unavailable"),
        ];
        for (error, status, code) in table {
            let refused = Refused::from(error);
            assert_eq!((refused.code.status.as_u16(), refused.code.code), (status, code));
            assert_eq!(refused.retry_after.is_some(), matches!(status, 429 | 503), "{code}");
        }
    }

    #[test]
    fn codes_are_unique_and_a_wrong_answer_is_never_a_success() {
        let mut names: Vec<_> = CODES.iter().map(|c| c.code).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CODES.len());
        assert!(CODES.iter().all(|c| c.status.is_client_error() || c.status.is_server_error()));
    }
}
