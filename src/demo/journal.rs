//! The drawer's record of one call: what was asked, what was answered, with secrets masked and JWT claims read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// One call to the engine.
#[derive(Clone)]
pub struct Call {
    /// Counts up within a browser.
    pub number: u64,
    /// `POST`
    pub method: &'static str,
    /// With its query.
    pub path: String,
    /// HTTP status; 0 where no answer came.
    pub status: u16,
    /// What it was about and what came of it, in the API's words.
    pub gist: String,
    /// Headers and body.
    pub request: String,
    /// The body, or what went wrong.
    pub answer: String,
    /// Claims of the JWT in the answer; empty where there is none.
    pub claims: String,
}

/// Members whose values open something.
const SECRETS: &[&str] = &["token", "client_token", "session_token", "jwt", "code_verifier", "state"];

impl Call {
    /// Of a call and its answer.
    pub fn new(method: &'static str, path: &str, key: &str, body: Option<&Value>, status: u16, answer: &Value) -> Call {
        let mut request = format!("Authorization: Bearer {}\n", masked(key));
        if let Some(body) = body {
            let mut body = body.clone();
            mask(&mut body);
            // In an answer `code` is the name of a problem, in a request a one-time code.
            if let Some(Value::String(code)) = body.get_mut("code") {
                *code = masked(code);
            }
            request.push_str(&format!("\n{body:#}"));
        }
        let claims = answer.pointer("/session/jwt").and_then(Value::as_str).and_then(claims);
        let mut answer = answer.clone();
        mask(&mut answer);
        Call {
            number: 0,
            method,
            path: path.to_owned(),
            status,
            gist: gist(body, &answer),
            request,
            answer: if answer.is_null() { String::new() } else { format!("{answer:#}") },
            claims: claims.map_or_else(String::new, |c| format!("{c:#}")),
        }
    }

    /// `ok`, or how it fell short: for the eye.
    pub fn tone(&self) -> &'static str {
        match self.status {
            200..=299 => "good",
            _ => "bad",
        }
    }

    /// The status in words.
    pub fn status_text(&self) -> String {
        match self.status {
            0 => "no answer".to_owned(),
            status => status.to_string(),
        }
    }
}

/// `payout.update → pending`
fn gist(body: Option<&Value>, answer: &Value) -> String {
    let about = ["action", "flow"].into_iter().find_map(|name| body?.get(name)?.as_str());
    let came = ["reason", "status", "code"].into_iter().find_map(|name| answer.get(name)?.as_str().map(str::to_owned));
    let came = came.or_else(|| answer.get("satisfied").map(|satisfied| format!("satisfied: {satisfied}")));
    let earned = || answer.pointer("/session/acr")?.as_str().map(|acr| format!("session: {acr}"));
    [about.map(str::to_owned), came.or_else(earned)].into_iter().flatten().collect::<Vec<_>>().join(" → ")
}

/// The claims of a JWT, unverified: for reading, and for comparing once the engine has vouched for the token.
pub fn claims(jwt: &str) -> Option<Value> {
    let payload = jwt.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if SECRETS.contains(&name.as_str()) => *text = masked(text),
                    Value::String(text) if name == "url" => {
                        if let Some((address, token)) = text.split_once("token=") {
                            *text = format!("{address}token={}", masked(token));
                        }
                    }
                    other => mask(other),
                }
            }
        }
        Value::Array(members) => members.iter_mut().for_each(mask),
        _ => {}
    }
}

/// The beginning, which tells the kind, and no more.
fn masked(secret: &str) -> String {
    const KINDS: &[&str] = &["sk_test_", "sk_live_", "st_", "ct_"];
    let kind = KINDS.iter().find(|kind| secret.starts_with(**kind)).unwrap_or(&"");
    format!("{kind}••••••")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_secret_of_a_call_is_kept() {
        let jwt = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"sub":"harbour-1001"}"#));
        let body =
            json!({ "code": "SECRET", "code_verifier": "SECRET", "state": "SECRET", "session_token": "st_SECRET" });
        let answer = json!({ "url": "http://localhost/challenge/chl_1?token=SECRET", "client_token": "ct_SECRET",
            "session": { "token": "st_SECRET", "jwt": jwt }, "data": [{ "token": "st_SECRET" }] });
        let call = Call::new("POST", "/v1/x", "sk_test_SECRET", Some(&body), 200, &answer);
        let all = format!("{}{}{}", call.request, call.answer, call.claims);
        assert!(!all.contains("SECRET") && !all.contains("c2ln"), "{all}");
        assert!(call.request.starts_with("Authorization: Bearer sk_test_•"), "{}", call.request);
        assert!(call.claims.contains("harbour-1001"), "{}", call.claims);
    }

    #[test]
    fn the_code_of_a_problem_is_no_secret() {
        let call = Call::new("POST", "/v1/x", "sk_test_1", None, 409, &json!({ "code": "challenge_not_pending" }));
        assert!(call.answer.contains("challenge_not_pending"));
    }
}
