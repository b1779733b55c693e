//! Twilio's Messages API as the engine speaks it, held against a server of the test's own, and the way from a gateway that is
//! broken to the next (issue 1, delivery; standards P-17).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use countersign::config::{Secret, Twilio};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::support::gateway::Mood;
use crate::support::verbs::text;
use crate::support::{User, World, json};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "a-token-of-twilio";
const NUMBER: &str = "+14155550123";
const QUEUED: &str = r#"{"sid": "SM0123456789abcdef", "status": "queued"}"#;

/// What Twilio's server was asked, and what it answers.
#[derive(Clone)]
struct Messages {
    url: url::Url,
    answer: Arc<Mutex<(StatusCode, &'static str)>>,
    asked: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
}

impl Messages {
    async fn start() -> Messages {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let url = format!("http://{address}").parse().expect("an address");
        let messages =
            Messages { url, answer: Arc::new(Mutex::new((StatusCode::CREATED, QUEUED))), asked: Arc::default() };
        let router =
            Router::new().route("/2010-04-01/Accounts/{account}/{resource}", post(take)).with_state(messages.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        messages
    }

    fn answers(&self, status: u16, body: &'static str) {
        *self.answer.lock().expect("no test panics with it") = (StatusCode::from_u16(status).expect("a status"), body);
    }

    fn asked(&self) -> Vec<BTreeMap<String, String>> {
        self.asked.lock().expect("no test panics with it").clone()
    }

    /// The code of the latest text.
    fn code(&self) -> String {
        let asked = self.asked();
        let text = &asked.last().expect("a text")["Body"];
        text.split(|c: char| !c.is_ascii_digit()).find(|run| run.len() == 6).expect("a code").to_owned()
    }
}

/// As the real one: another account, another token or another form is not served.
async fn take(
    State(messages): State<Messages>,
    Path((account, resource)): Path<(String, String)>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, &'static str) {
    if (account.as_str(), resource.as_str()) != (ACCOUNT, "Messages.json") {
        return (StatusCode::NOT_FOUND, r#"{"code": 20404, "status": 404}"#);
    }
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{ACCOUNT}:{TOKEN}")));
    if headers.get("authorization").is_none_or(|h| h != basic.as_str()) {
        return (StatusCode::UNAUTHORIZED, r#"{"code": 20003, "status": 401}"#);
    }
    if headers.get("content-type").is_none_or(|h| h != "application/x-www-form-urlencoded") {
        return (StatusCode::BAD_REQUEST, r#"{"code": 21602, "status": 400}"#);
    }
    let form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    messages.asked.lock().expect("no test panics with it").push(form);
    *messages.answer.lock().expect("no test panics with it")
}

/// An engine that has Twilio alone, or Twilio after the gateway of the test's world.
async fn ann(messages: &Messages, from: &str, token: &str, alone: bool) -> User {
    let twilio = Twilio {
        account_sid: ACCOUNT.to_owned(),
        auth_token: Secret(Zeroizing::new(token.to_owned())),
        from: from.to_owned(),
        url: messages.url.clone(),
    };
    let world = World::start_with(|config| {
        config.sms.twilio = Some(twilio);
        if alone {
            config.sms.http_url = None;
        }
    });
    world.await.bank().await.user("ann")
}

#[tokio::test]
async fn twilio_is_asked_as_its_interface_demands() {
    let messages = Messages::start().await;
    let ann = ann(&messages, "+15005550006", TOKEN, true).await;
    let phone = ann.begin_phone(NUMBER).await;
    ann.activate(&phone.id, json!({"code": messages.code()})).await.is(200);
    let asked = messages.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].keys().collect::<Vec<_>>(), ["Body", "From", "To"]);
    assert_eq!((asked[0]["From"].as_str(), asked[0]["To"].as_str()), ("+15005550006", NUMBER));
    assert!(asked[0]["Body"].ends_with(&format!("@bank.example #{}", messages.code())), "{}", asked[0]["Body"]);
}

#[tokio::test]
async fn a_messaging_service_of_twilio_is_named_as_one() {
    let messages = Messages::start().await;
    let ann = ann(&messages, "MG0123456789abcdef0123456789abcdef", TOKEN, true).await;
    ann.begin_phone(NUMBER).await;
    let asked = messages.asked();
    assert_eq!(asked[0].keys().collect::<Vec<_>>(), ["Body", "MessagingServiceSid", "To"]);
}

/// P-17: whatever Twilio has against it, nothing is charged and the caller is told.
#[tokio::test]
async fn what_twilio_refuses_was_not_sent() {
    let messages = Messages::start().await;
    let user = ann(&messages, "+15005550006", TOKEN, true).await;
    let of_number = r#"{"code": 21211, "message": "Invalid 'To' Phone Number", "status": 400}"#;
    let of_sender = r#"{"code": 21212, "message": "Invalid From Number", "status": 400}"#;
    let others = [401, 404, 429, 500, 503, 302].map(|status| (status, of_number, false));
    for (status, body, says_so) in
        [(400, of_number, true), (400, of_sender, false), (400, "no JSON", false)].into_iter().chain(others)
    {
        messages.answers(status, body);
        let told = user.begin(json!({"type": "sms", "phone": NUMBER})).await.refused(503, "delivery_unavailable");
        let is_the_number = text(&told["user_message"]).starts_with("We couldn't deliver to this number.");
        assert_eq!(is_the_number, says_so, "{status} {body}: {told}");
    }
    messages.answers(201, QUEUED);
    let phone = user.begin_phone(NUMBER).await;
    user.activate(&phone.id, json!({"code": messages.code()})).await.is(200);
    // With another token it is not let in at all.
    let stranger = ann(&messages, "+15005550006", "another", true).await;
    let before = messages.asked().len();
    stranger.begin(json!({"type": "sms", "phone": NUMBER})).await.refused(503, "delivery_unavailable");
    assert_eq!(messages.asked().len(), before);
}

/// P-17: a text goes the next way where the first is broken, once, and the first way again when it is well.
#[tokio::test]
async fn a_broken_gateway_is_passed_over() {
    let messages = Messages::start().await;
    let ann = ann(&messages, "+15005550006", TOKEN, false).await;
    let world = ann.bank.world.clone();
    let phone = ann.enrol_phone(NUMBER).await;
    assert!(messages.asked().is_empty(), "the first is well");
    for mood in [Mood::Broken, Mood::Refusing] {
        world.wait(1200);
        world.gateway.is(mood);
        let before = messages.asked().len();
        let challenge = ann.challenge(json!({})).await;
        challenge.text().await.is(200);
        assert_eq!(messages.asked().len(), before + 1, "{mood:?}");
        challenge.verify(json!({"type": "sms", "code": messages.code()})).await.is(200);
    }
    world.wait(1200);
    world.gateway.is(Mood::Well);
    let (before, challenge) = (messages.asked().len(), ann.challenge(json!({})).await);
    challenge.text().await.is(200);
    assert_eq!(messages.asked().len(), before);
    challenge.verify(phone.answer()).await.is(200);
    // Both broken: told, nothing charged, and the way is free as soon as one is well.
    world.wait(1200);
    world.gateway.is(Mood::Broken);
    messages.answers(500, "{}");
    let challenge = ann.challenge(json!({})).await;
    assert_eq!(text(&challenge.text().await.refused(503, "delivery_unavailable")["code"]), "delivery_unavailable");
    messages.answers(201, QUEUED);
    challenge.text().await.is(200);
    challenge.verify(json!({"type": "sms", "code": messages.code()})).await.is(200);
}
