//! What is said where the engine gives no answer: it is not up yet, took too long, or broke off. People get a page, programs a
//! problem, which a page of any origin may read.

use axum::extract::Request;
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};

use super::problem::{self, Refused};
use super::{cross_origin, pages};

/// Who waits for an answer, as far as the request tells.
pub struct Reader {
    is_person: bool,
    method: Method,
    origin: Option<HeaderValue>,
}

impl Reader {
    /// Of a request that is about to be handed on.
    pub fn of(request: &Request) -> Reader {
        let is_person = pages::is_for_people(request.uri().path(), request.headers());
        Reader { is_person, method: request.method().clone(), origin: cross_origin::of(request) }
    }

    /// What stands in the place of the answer. Whether what was asked for was done nobody can say where it was `begun`.
    pub fn without_answer(&self, request_id: &str, begun: bool) -> Response {
        let refused = Refused::from(problem::STORE_UNAVAILABLE);
        match &self.origin {
            _ if self.is_person => pages::without_answer(&self.method, request_id, begun),
            Some(origin) => cross_origin::despite(refused, origin.clone(), self.method == Method::OPTIONS),
            None => refused.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, CONTENT_TYPE, RETRY_AFTER,
    };

    use super::*;

    async fn told(method: &str, path: &str, name: &'static str, begun: bool) -> (u16, Response, String) {
        let request = Request::builder().method(method).uri(path).header(name, "https://bank.example");
        let request = request.body(Body::empty()).expect("a request");
        let response = Reader::of(&request).without_answer("req_1", begun);
        let response = problem::complete(response, "https://mfa.example", "req_1");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        (parts.status.as_u16(), Response::from_parts(parts, Body::empty()), text)
    }

    /// ux, S1: a person is told in words, and a module of the same pages in JSON.
    #[tokio::test]
    async fn people_get_a_page_and_programs_a_problem() {
        let unchanged = "Nothing was changed. Try again in a minute.";
        let unsent = "Nothing was changed. Go back and try again in a minute.";
        let unknown = "It may have gone through all the same. Go back and try again in a minute.";
        for (method, path, begun, words) in [
            ("GET", "/challenge/chl_1", true, unchanged),
            ("POST", "/challenge/chl_1", true, unknown),
            ("POST", "/portal/por_1/phone", false, unsent),
        ] {
            let (status, response, text) = told(method, path, "accept", begun).await;
            assert_eq!(status, 503);
            assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
            assert!(response.headers().contains_key(RETRY_AFTER));
            assert!(text.contains("Something went wrong on our side") && text.contains(words), "{path}: {text}");
            assert!(text.contains("req_1"), "{text}");
            assert_eq!(text.contains("Try again</a>"), method == "GET", "what was sent is not asked for: {text}");
        }
        for (path, name) in [("/challenge/chl_1/options", "form-guard"), ("/v1/challenges", "accept"), ("/x", "accept")]
        {
            let (status, response, text) = told("POST", path, name, true).await;
            assert_eq!(status, 503, "{path}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json", "{path}");
            assert!(text.contains("store_unavailable"), "{path}: {text}");
        }
    }

    /// C-10: a component on another origin learns that it is to come again, whoever could have looked its origin up.
    #[tokio::test]
    async fn a_page_of_any_origin_may_read_that_there_is_no_answer() {
        let (status, response, _) = told("POST", "/v1/challenges/chl_1/verify", "origin", true).await;
        assert_eq!(status, 503);
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://bank.example");
        let (status, response, _) = told("OPTIONS", "/v1/challenges/chl_1/verify", "origin", false).await;
        assert_eq!(status, 204, "the browser goes on to the request itself");
        let headers = response.headers();
        assert!(
            headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) && headers.contains_key(ACCESS_CONTROL_ALLOW_HEADERS)
        );
        assert!(!headers.contains_key(ACCESS_CONTROL_MAX_AGE), "and asks again next time");
        let (_, response, _) = told("GET", "/livez", "origin", true).await;
        assert!(!response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "on the API alone");
    }
}
