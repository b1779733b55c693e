//! The bodies of calls about challenges, and what they mean.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::engine::{Answer, DEFAULT_ACTION, Given, NewChallenge};
use crate::http::body::{self, Legible, Object, Text, Told};
use crate::http::problem::Refused;
use crate::model::{Acr, Client, Detail, Display, Id, Kind, MethodKind, Requirement, Terms};

/// The longest binding, in bytes.
const LONGEST_BINDING: usize = 255;

/// A challenge to be opened.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChallengeRequest)]
pub struct CreateRequest {
    /// Of whom proof is asked.
    #[schema(value_type = String, max_length = 255, example = "u-42")]
    user_id: Text<255>,
    /// What the session will allow; `login` if unset.
    #[schema(value_type = Option<String>, max_length = 100, example = "payout.update")]
    action: Option<Text<100>>,
    /// Demands on the proof.
    #[schema(value_type = Option<RequireRequest>)]
    require: Option<Object<RequireRequest>>,
    /// What the page shows; the details are bound into the session.
    #[schema(value_type = Option<DisplayRequest>)]
    display: Option<Object<DisplayRequest>>,
    /// The session ends with its first use.
    single_use: Option<bool>,
    /// Services for which the JWT is meant.
    #[schema(value_type = Option<Vec<String>>)]
    audience: Option<Vec<Text<255>>>,
    /// An earlier step-up session that may let this through.
    #[schema(value_type = Option<String>)]
    session_token: Option<Text<20_000>>,
    /// The caller's own thread, repeated in the result.
    #[schema(value_type = Option<String>, max_length = 255)]
    binding: Option<Text<255>>,
    /// The person's browser.
    #[schema(value_type = Option<ClientRequest>)]
    client: Option<Object<ClientRequest>>,
    /// Where the hosted page returns; registered, and with `state` and `code_challenge`.
    #[schema(value_type = Option<String>)]
    return_url: Option<Text<2048>>,
    /// The guard of the browser that starts.
    #[schema(value_type = Option<String>)]
    state: Option<Text<512>>,
    /// PKCE S256 (RFC 7636).
    #[schema(value_type = Option<String>, min_length = 43, max_length = 43)]
    code_challenge: Option<Text<43>>,
    /// Create and verify in one call.
    #[schema(value_type = Option<AnswerRequest>)]
    answer: Option<Object<AnswerRequest>>,
}

/// Demands on a proof.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequireRequest {
    /// `aal2`, `phr` or `phrh`
    #[schema(value_type = Option<String>, example = "phr")]
    acr: Option<Acr>,
    /// Seconds since the proof, at most.
    #[schema(minimum = 0, maximum = 31_536_000)]
    max_age: Option<i64>,
    /// One of these methods.
    #[schema(value_type = Option<Vec<String>>)]
    methods: Option<Vec<MethodKind>>,
}

impl RequireRequest {
    /// The demand; `place` is where it stands in the request.
    pub fn model(self, place: &str) -> Result<Requirement, Refused> {
        if self.max_age.is_some_and(|age| !(0..=31_536_000).contains(&age)) {
            return Err(Refused::invalid(format!("{place}.max_age"), "Expected seconds from 0 to 31536000."));
        }
        if self.methods.as_ref().is_some_and(Vec::is_empty) {
            return Err(Refused::invalid(format!("{place}.methods"), "Expected at least one method."));
        }
        Ok(Requirement { acr: self.acr, max_age: self.max_age, methods: self.methods })
    }
}

/// What the page shows of the action.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DisplayRequest {
    /// The action in the person's words.
    #[schema(value_type = Option<String>, max_length = 100)]
    label: Option<Legible<100>>,
    /// What the person confirms.
    #[schema(value_type = Option<Vec<DetailRequest>>)]
    details: Option<Vec<Object<DetailRequest>>>,
}

/// One line of what the person confirms.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DetailRequest {
    /// What the value is.
    #[schema(value_type = String, max_length = 100)]
    label: Legible<100>,
    /// The value.
    #[schema(value_type = String, max_length = 500)]
    value: Legible<500>,
}

/// The person's browser as the caller sees it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ClientRequest {
    /// Its address.
    #[schema(value_type = Option<String>)]
    ip: Option<Told<64>>,
    /// Its `User-Agent`.
    #[schema(value_type = Option<String>)]
    user_agent: Option<Told<256>>,
    /// An opaque name of the device.
    #[schema(value_type = Option<String>)]
    device: Option<Told<255>>,
}

/// An answer to a challenge: `code`, or `credential` for `webauthn`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequest {
    /// The method.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "totp")]
    kind: MethodKind,
    /// What the person typed.
    #[schema(value_type = Option<String>)]
    code: Option<Zeroizing<String>>,
    /// What `credential.toJSON()` gave.
    #[schema(value_type = Option<Object>)]
    credential: Option<Map<String, Value>>,
    /// Of a code: by this factor and no other.
    factor_id: Option<String>,
}

impl AnswerRequest {
    /// The answer; `place` is where it stands in the request, with its dot.
    pub fn model(self, place: &str) -> Result<Given, Refused> {
        let answer = match (self.kind, self.code, self.credential) {
            (MethodKind::Webauthn, None, Some(credential)) => Answer::Credential(Value::Object(credential)),
            (MethodKind::Webauthn, Some(_), _) => {
                return Err(Refused::invalid(format!("{place}code"), "webauthn takes a credential."));
            }
            (MethodKind::Webauthn, None, None) => {
                return Err(Refused::invalid(format!("{place}credential"), "The member is missing."));
            }
            (_, _, Some(_)) => return Err(Refused::invalid(format!("{place}credential"), "This method takes a code.")),
            (_, None, None) => return Err(Refused::invalid(format!("{place}code"), "The member is missing.")),
            (_, Some(code), None) => Answer::Code(code),
        };
        let factor_id = match self.factor_id {
            None => None,
            Some(_) if self.kind == MethodKind::Webauthn => {
                return Err(Refused::invalid(format!("{place}factor_id"), "A credential says itself which it is."));
            }
            Some(text) => Some(
                Id::parse(Kind::Factor, &text)
                    .ok_or_else(|| Refused::invalid(format!("{place}factor_id"), "Expected fac_…"))?,
            ),
        };
        Ok(Given { kind: self.kind, answer, factor_id })
    }
}

impl CreateRequest {
    /// The challenge that is wanted.
    pub fn model(self) -> Result<NewChallenge, Refused> {
        let user_id = body::user(self.user_id.take())?;
        if self.binding.as_ref().is_some_and(|b| b.0.len() > LONGEST_BINDING) {
            return Err(Refused::invalid("binding", "Expected at most 255 bytes."));
        }
        if self.audience.as_ref().is_some_and(|a| a.is_empty() || a.len() > 10) {
            return Err(Refused::invalid("audience", "Expected 1 to 10 services."));
        }
        let is_s256 =
            |c: &str| c.len() == 43 && c.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if self.code_challenge.as_ref().is_some_and(|c| !is_s256(&c.0)) {
            return Err(Refused::invalid(
                "code_challenge",
                "Expected the S256 transformation: 43 characters of base64url.",
            ));
        }
        let display = match self.display {
            None => Display::default(),
            Some(Object(display)) => {
                let details = display.details.unwrap_or_default();
                if details.len() > 20 {
                    return Err(Refused::invalid("display.details", "Expected at most 20 details."));
                }
                let detail = |Object(d): Object<DetailRequest>| Detail { label: d.label.take(), value: d.value.take() };
                Display { label: display.label.map(Legible::take), details: details.into_iter().map(detail).collect() }
            }
        };
        let client = self.client.map_or_else(Client::default, |Object(c)| Client {
            // What is no address is not passed on for one.
            ip: c.ip.and_then(Told::take).filter(|ip| ip.parse::<IpAddr>().is_ok()),
            user_agent: c.user_agent.and_then(Told::take),
            device: c.device.and_then(Told::take),
        });
        let terms = Terms {
            action: self.action.map_or_else(|| DEFAULT_ACTION.to_owned(), Text::take),
            require: self.require.unwrap_or_default().0.model("require")?,
            display,
            single_use: self.single_use.unwrap_or(false),
            audience: self.audience.unwrap_or_default().into_iter().map(Text::take).collect(),
            binding: self.binding.map(Text::take),
            client,
            return_url: self.return_url.map(Text::take),
            state: self.state.map(Text::take),
            code_challenge: self.code_challenge.map(Text::take),
            ..Terms::default()
        };
        let answer = self.answer.map(|Object(a)| a.model("answer.")).transpose()?;
        let session_token = self.session_token.map(Text::take);
        Ok(NewChallenge { user_id, terms, session_token, answer, may_enrol: false })
    }
}
