//! Reading requests: JSON bodies, path parts and pages of lists, each with a refusal that names what does not fit. That a body does
//! not fit is told by its `read`, once it is known who calls.

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::problem::{self, Refused};
use crate::model::{Id, Kind, User, misleads};

/// The largest body, in bytes.
const LARGEST: usize = 128 * 1024;
/// A body that has begun is there after this long, or will not be read.
const ARRIVES: Duration = Duration::from_secs(10);

/// A JSON body of this shape; unknown and duplicate members are refused.
pub struct Body<T>(Result<T, Refused>);

impl<T> Body<T> {
    /// What it says, if it fits.
    pub fn read(self) -> Result<T, Refused> {
        self.0
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Body<T>, Infallible> {
        if !has_json(&request) {
            return Ok(Body(Err(problem::MEDIA_TYPE_UNSUPPORTED.into())));
        }
        Ok(Body(bytes(request.into_body()).await.and_then(|bytes| read(&bytes))))
    }
}

/// A body that need not be there: none is an empty object.
pub struct MaybeBody<T>(pub Body<T>);

/// A body without members.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for MaybeBody<T> {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<MaybeBody<T>, Infallible> {
        let is_json = has_json(&request);
        let read = |bytes: axum::body::Bytes| match (bytes.is_empty(), is_json) {
            (true, _) => Ok(T::default()),
            (false, true) => read(&bytes),
            (false, false) => Err(problem::MEDIA_TYPE_UNSUPPORTED.into()),
        };
        Ok(MaybeBody(Body(bytes(request.into_body()).await.and_then(read))))
    }
}

fn has_json(request: &Request) -> bool {
    let mut all = request.headers().get_all(CONTENT_TYPE).iter();
    let (one, none) = (all.next().and_then(|v| v.to_str().ok()), all.next());
    let plain = request.headers().get_all(CONTENT_ENCODING).iter().all(|encoding| encoding == "identity");
    none.is_none() && one.is_some_and(is_json) && plain
}

/// A whole body, of bounded size and in bounded time.
pub async fn bytes(body: axum::body::Body) -> Result<axum::body::Bytes, Refused> {
    if body.size_hint().lower() > LARGEST as u64 {
        return Err(problem::BODY_TOO_LARGE.into());
    }
    let too_large = |error: &axum::Error| {
        std::error::Error::source(error).is_some_and(|e| e.is::<http_body_util::LengthLimitError>())
    };
    let late = |_| Refused { detail: "The body did not arrive in time.", ..problem::REQUEST_MALFORMED.into() };
    let arrived = tokio::time::timeout(ARRIVES, axum::body::to_bytes(body, LARGEST)).await.map_err(late)?;
    arrived.map_err(|error| match too_large(&error) {
        true => problem::BODY_TOO_LARGE.into(),
        false => problem::REQUEST_MALFORMED.into(),
    })
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Refused { detail: "The body must be an object.", ..problem::REQUEST_INVALID.into() });
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        // The first member that does not fit may stand before a fault of the syntax; and that a word is expected and something else
        // is there counts as one, too.
        let is_json = || str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        match (error.is_data() || error.to_string().starts_with("expected")) && is_json() {
            true => unfit(&path, &error.to_string()),
            false => Refused { detail: "The body is no JSON in UTF-8.", ..problem::REQUEST_MALFORMED.into() },
        }
    })?;
    reader.end().map_err(|_| Refused { detail: "Something follows the JSON.", ..problem::REQUEST_MALFORMED.into() })?;
    Ok(value)
}

/// What does not fit, and where; only names leave, never values.
fn unfit(path: &str, message: &str) -> Refused {
    let member = message.split('`').nth(1).unwrap_or_default();
    let (detail, member) = if message.starts_with("unknown field") {
        ("The member is unknown.", None)
    } else if message.starts_with("missing field") {
        ("The member is missing.", Some(member))
    } else if message.starts_with("duplicate field") {
        ("The member occurs twice.", Some(member))
    } else {
        ("The member has the wrong type or form.", None)
    };
    let path = if path == "." { "" } else { path };
    let param = match member {
        Some(member) if path.is_empty() => member.to_owned(),
        Some(member) if path.ends_with(member) => path.to_owned(),
        Some(member) => format!("{path}.{member}"),
        None => path.to_owned(),
    };
    let sane = !param.is_empty()
        && param.len() <= 100
        && param.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'[' | b']'));
    Refused { detail, param: sane.then_some(param), ..problem::REQUEST_INVALID.into() }
}

/// An object. Derived shapes would also read from an array, member by member.
#[derive(Debug, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// Tells a member that is null from one that is absent.
pub fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Text of bounded length in characters, without control characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Text<const MAX: usize>(pub String);

impl<const MAX: usize> Text<MAX> {
    /// The text.
    pub fn take(self) -> String {
        self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<MAX>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let fits = !text.is_empty() && text.chars().count() <= MAX && !text.chars().any(char::is_control);
        if fits { Ok(Text(text)) } else { Err(D::Error::custom("text of another length or form")) }
    }
}

/// The same of what people are shown: without what makes it read as another text.
pub struct Legible<const MAX: usize>(Text<MAX>);

impl<const MAX: usize> Legible<MAX> {
    /// The text.
    pub fn take(self) -> String {
        self.0.take()
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Legible<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Legible<MAX>, D::Error> {
        let text = Text::deserialize(deserializer)?;
        if text.0.chars().any(misleads) {
            Err(D::Error::custom("text that turns its direction"))
        } else {
            Ok(Legible(text))
        }
    }
}

/// What a browser said of itself, passed on: cut to its length in characters, without control characters, and nobody is turned away
/// for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Told<const MAX: usize>(String);

impl<const MAX: usize> Told<MAX> {
    /// The text, unless there is none.
    pub fn take(self) -> Option<String> {
        let text: String = self.0.chars().filter(|c| !c.is_control()).take(MAX).collect();
        Some(text).filter(|t| !t.is_empty())
    }
}

/// `{user_id}` of a path.
pub struct OfUser(pub String);

/// The user.
impl AsRef<str> for OfUser {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// `{user_id}` and `{id}` of a path.
pub struct OfFactor(pub String, pub Id);

/// The user.
impl AsRef<str> for OfFactor {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfUser {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<OfUser, Refused> {
        let Path(user_id) = Path::<String>::from_request_parts(parts, state).await.map_err(unreadable)?;
        user(user_id).map(OfUser)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfFactor {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<OfFactor, Refused> {
        let Path((user_id, id)) =
            Path::<(String, String)>::from_request_parts(parts, state).await.map_err(unreadable)?;
        let id = Id::parse(Kind::Factor, &id).ok_or(Refused::from(problem::NOT_FOUND))?;
        Ok(OfFactor(user(user_id)?, id))
    }
}

/// The one id of a path, of the kind that the handler names; `None` where it does not read, which is only told to who may call.
pub struct OfId(Option<String>);

impl OfId {
    /// The id, if it is of this kind; anything else is not found.
    pub fn of(&self, kind: Kind) -> Result<Id, Refused> {
        let text = self.0.as_ref().ok_or_else(not_utf8)?;
        Id::parse(kind, text).ok_or(problem::NOT_FOUND.into())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<OfId, Infallible> {
        Ok(OfId(Path::<String>::from_request_parts(parts, state).await.ok().map(|Path(id)| id)))
    }
}

fn unreadable(_: PathRejection) -> Refused {
    not_utf8()
}

fn not_utf8() -> Refused {
    Refused { detail: "The path is no UTF-8.", ..problem::REQUEST_MALFORMED.into() }
}

/// A user's id, if it is one.
pub fn user(user_id: String) -> Result<String, Refused> {
    match User::is_valid_id(&user_id) {
        true => Ok(user_id),
        false => Err(Refused::invalid("user_id", User::ID_RULE)),
    }
}

/// What the address asks for, each name once.
pub fn query(parts: &Parts) -> Result<Vec<(String, String)>, Refused> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
        if all.iter().any(|(known, _)| *known == name) {
            return Err(Refused::invalid("query", "A parameter occurs twice."));
        }
        all.push((name.into_owned(), value.into_owned()));
    }
    Ok(all)
}

/// How many a page holds.
pub fn limit(text: &str) -> Result<usize, Refused> {
    let number = text.parse().ok().filter(|n| (1..=100).contains(n));
    number.ok_or_else(|| Refused::invalid("limit", "Expected a number from 1 to 100."))
}

/// `?limit=1..100&cursor=` of a list.
pub struct Page {
    /// How many.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

impl Page {
    /// Behind what the list goes on.
    pub fn behind(&self, kind: Kind) -> Result<Option<Id>, Refused> {
        let read =
            |text: &String| Id::parse(kind, text).ok_or_else(|| Refused::invalid("cursor", "Expected a next_cursor."));
        self.cursor.as_ref().map(read).transpose()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Page, Refused> {
        let mut page = Page { limit: 20, cursor: None };
        for (name, value) in query(parts)? {
            match &*name {
                "limit" => page.limit = limit(&value)?,
                // As where there is none: the first page.
                "cursor" => page.cursor = Some(value).filter(|cursor| !cursor.is_empty()),
                _ => return Err(Refused::invalid("query", "Expected limit and cursor only.")),
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        _name: Text<5>,
        _inner: Option<Object<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        _number: i64,
    }

    fn refused(text: &str) -> (u16, Option<String>) {
        let refused = read::<Outer>(text.as_bytes()).expect_err(text);
        (refused.code.status.as_u16(), refused.param)
    }

    #[test]
    fn the_member_that_does_not_fit_is_named() {
        let named = |n: &str| (422, Some(n.to_owned()));
        assert_eq!(refused(r#"{"_name":"a","other":1}"#), named("other"));
        assert_eq!(refused(r#"{"_name":"a","_inner":{"_number":1,"deep":1}}"#), named("_inner.deep"));
        assert_eq!(refused(r#"{"_name":"a","_inner":{"_number":"x"}}"#), named("_inner._number"));
        assert_eq!(refused(r#"{"_name":"a","_inner":{}}"#), named("_inner._number"));
        assert_eq!(refused(r#"{"_name":"a","_inner":[1]}"#), named("_inner"));
        assert_eq!(refused(r#"{}"#), named("_name"));
        assert_eq!(refused(r#"{"_name":"abcdef"}"#), named("_name"));
        assert_eq!(refused(r#"{"_name":""}"#), named("_name"));
        assert_eq!(refused(r#"{"_name":"a\u0000"}"#), named("_name"));
        assert_eq!(refused(r#"{"_name":["a"]}"#), named("_name"));
        assert_eq!(refused(r#"{"_name":"a","_name":"b"}"#), named("_name"));
    }

    #[test]
    fn nothing_hostile_is_echoed_as_a_name() {
        assert_eq!(refused(r#"{"_name":"a","<script>alert(1)</script>":1}"#), (422, None));
        assert_eq!(refused(&format!(r#"{{"_name":"a","{}":1}}"#, "x".repeat(200))), (422, None));
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for (text, status) in [
            ("", 400),
            ("{", 400),
            ("[]", 422),
            ("[\"a\"]", 422),
            ("1", 422),
            ("null", 422),
            ("{}{}", 400),
            ("{\"_name\":\"a\"} x", 400),
            ("{\"unknown\":1", 400),
            ("{\"_name\":5,", 400),
            ("{\"_name\":5} x", 400),
            ("{\"unknown\":NaN}", 400),
            ("{\"_name\":5}", 422),
        ] {
            assert_eq!(refused(text).0, status, "{text}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(refused(&format!(r#"{{"_name":"a","_inner":{deep}}}"#)).0, 422);
        for bytes in [&b"{\xff}"[..], b"{\"_name\":\"\xff\"}", b"{\"_inner\":\"\xff\"}"] {
            assert_eq!(read::<Outer>(bytes).expect_err("no UTF-8").code.status.as_u16(), 400);
        }
    }
}
