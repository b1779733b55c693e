//! The OpenAPI document of the running engine, and what every answer must be by it and by api.md, 3. An answer that departs
//! from either fails the test that received it.

use std::collections::HashMap;

use jsonschema::Validator;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// Which codes belong to which status (api.md, 3); 405 has the one that HTTP itself needs.
const CODES: &[(u16, &[&str])] = &[
    (400, &["request_malformed"]),
    (401, &["api_key_invalid", "client_token_invalid"]),
    (403, &["scope_missing", "origin_not_allowed", "return_url_not_allowed", "step_up_required"]),
    (404, &["not_found"]),
    (405, &["http_method_unsupported"]),
    (
        409,
        &[
            "factor_not_pending",
            "challenge_not_pending",
            "last_factor",
            "factor_duplicate",
            "name_taken",
            "idempotency_in_progress",
            "endpoint_limit",
            "endpoint_disabled",
        ],
    ),
    (410, &["challenge_expired", "enrolment_expired"]),
    (413, &["body_too_large"]),
    (415, &["media_type_unsupported"]),
    (
        422,
        &[
            "request_invalid",
            "code_incorrect",
            "code_malformed",
            "code_reused",
            "code_expired",
            "credential_unknown",
            "credential_invalid",
            "user_verification_required",
            "method_not_allowed",
            "phone_invalid",
            "phone_not_allowed",
            "idempotency_mismatch",
        ],
    ),
    (429, &["method_paused", "send_limited", "rate_limited"]),
    (503, &["delivery_unavailable", "store_unavailable"]),
];

/// The document with a validator for each of its answers.
pub struct Document {
    answers: HashMap<(String, String, String), Option<Validator>>,
    problem: Validator,
    pub whole: Value,
}

/// What came, as far as it is judged.
pub struct Received<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub status: u16,
    pub headers: &'a HeaderMap,
    pub body: &'a Value,
}

impl Document {
    pub fn new(whole: Value) -> Document {
        let mut components = whole["components"].clone();
        close(&mut components["schemas"]);
        let validator = |schema: &Value| {
            let schema = json!({"allOf": [schema], "components": components});
            jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema of the document")
        };
        let mut answers = HashMap::new();
        for (template, methods) in whole["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
                    let media = answer["content"].as_object().and_then(|c| c.iter().next());
                    let schema = media.map(|(_, media)| validator(&media["schema"]));
                    answers.insert((template.clone(), method.to_uppercase(), status.clone()), schema);
                }
            }
        }
        Document { answers, problem: validator(&json!({"$ref": "#/components/schemas/Problem"})), whole }
    }

    /// Every call that the document describes, as method and path template.
    pub fn calls(&self) -> Vec<(String, String)> {
        let mut calls: Vec<_> =
            self.answers.keys().map(|(template, method, _)| (method.clone(), template.clone())).collect();
        calls.sort();
        calls.dedup();
        calls
    }

    /// What is wrong with an answer; nothing, mostly.
    pub fn faults(&self, received: &Received<'_>) -> Vec<String> {
        let mut faults = head_faults(received);
        match self.described(received) {
            Some(None) if received.body.is_null() => {}
            Some(None) => faults.push("a body where the document has none".to_owned()),
            Some(Some(validator)) => {
                faults.extend(validator.iter_errors(received.body).map(|e| format!("{e} at {}", e.instance_path())))
            }
            None if received.status < 400 => faults.push("the document does not describe this answer".to_owned()),
            None => faults.extend(self.problem.iter_errors(received.body).map(|e| e.to_string())),
        }
        if received.status >= 400 {
            faults.extend(problem_faults(received));
        }
        faults
    }

    fn described(&self, received: &Received<'_>) -> Option<Option<&Validator>> {
        let template = self.template(received.method, received.path)?;
        let of = |status: String| self.answers.get(&(template.clone(), received.method.to_owned(), status));
        let found = of(received.status.to_string()).or_else(|| of(format!("{}XX", received.status / 100)));
        found.map(Option::as_ref)
    }

    /// The most literal template of this method that fits.
    fn template(&self, method: &str, path: &str) -> Option<String> {
        let path = path.split('?').next().unwrap_or_default();
        let all = self.answers.keys().filter(|(t, m, _)| m == method && is_of(path, t)).map(|(t, _, _)| t);
        all.min_by_key(|t| t.matches('{').count()).cloned()
    }
}

/// Whether a path is one of this template.
pub fn is_of(path: &str, template: &str) -> bool {
    let (path, template): (Vec<_>, Vec<_>) = (path.split('/').collect(), template.split('/').collect());
    path.len() == template.len() && path.iter().zip(&template).all(|(p, t)| t.starts_with('{') || p == t)
}

/// What browsers are told with every answer.
pub const GUARDS: [(&str, &str); 3] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// C-09, C-12: what every answer of the API has in its head.
fn head_faults(received: &Received<'_>) -> Vec<String> {
    let header = |name: &str| received.headers.get(name).and_then(|v| v.to_str().ok());
    let mut faults = Vec::new();
    if header("request-id").is_none() {
        faults.push("no Request-Id".to_owned());
    }
    for (name, value) in GUARDS {
        if header(name) != Some(value) {
            faults.push(format!("{name} is {:?}", header(name)));
        }
    }
    if received.path.starts_with("/v1") && header("cache-control") != Some("no-store") {
        faults.push(format!("Cache-Control is {:?}", header("cache-control")));
    }
    if received.status == 500 || received.status == 501 || received.status == 502 {
        faults.push("a status that api.md does not have".to_owned());
    }
    faults
}

fn problem_faults(received: &Received<'_>) -> Vec<String> {
    let header = |name: &str| received.headers.get(name).and_then(|v| v.to_str().ok());
    let problem = received.body;
    let code = problem["code"].as_str().unwrap_or_default();
    let seconds = header("retry-after").and_then(|v| v.parse::<i64>().ok());
    let mut faults = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    must(header("content-type") == Some("application/problem+json"), "no application/problem+json");
    must(
        CODES.iter().any(|(status, codes)| *status == received.status && codes.contains(&code)),
        "the code does not belong to the status",
    );
    must(problem["status"] == received.status, "status in body and head differ");
    must(
        problem["type"].as_str().is_some_and(|t| t.ends_with(&format!("/errors/{code}"))),
        "type does not name the code",
    );
    let is_own = header("idempotent-replayed").is_none();
    must(!is_own || problem["request_id"].as_str() == header("request-id"), "request_id in body and head differ");
    if matches!(received.status, 429 | 503) {
        must(seconds.is_some_and(|s| s > 0), "no Retry-After");
        must(problem["retry_after"].as_i64() == seconds, "retry_after and Retry-After differ");
    }
    let is_verdict = received.path.ends_with("/verify") && !matches!(received.status, 400..=404 | 413 | 415 | 503);
    // What is refused for its key was not read as an answer.
    if is_verdict && code != "request_invalid" && !code.starts_with("idempotency_") {
        must(problem["attempts_left"].is_i64(), "a refused answer without attempts_left");
    }
    faults
}

/// Members that a schema does not name are faults: an answer says no more than it should.
fn close(schemas: &mut Value) {
    for schema in schemas.as_object_mut().into_iter().flat_map(|m| m.values_mut()) {
        if schema["properties"].is_object() && schema.get("additionalProperties").is_none() {
            schema["additionalProperties"] = json!(false);
        }
    }
}
