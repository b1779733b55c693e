//! What the people of a test do: enrol, prove, open challenges. Each verb is one call, or the few that belong together, and
//! expects to succeed; what is to be refused is asked of the caller itself.

use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::model::RelyingParty;
use serde_json::{Value, json};

use super::app::{base32, totp};
use super::authenticator::Authenticator;
use super::speak::{Answer, Caller};

/// A relying party's server. It is a caller.
#[derive(Clone)]
pub struct Bank {
    pub rp: RelyingParty,
    pub server: Caller,
    pub key: String,
}

impl Deref for Bank {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.server
    }
}

impl Bank {
    pub fn user(&self, id: &str) -> User {
        User { bank: self.clone(), id: id.to_owned() }
    }

    pub fn origin(&self) -> &str {
        &self.rp.origins[0]
    }

    pub async fn introspect(&self, question: Value) -> Value {
        self.post("/v1/sessions/introspect", question).await.is(200)
    }

    /// Whether the session of this token counts.
    pub async fn is_active(&self, token: &Value) -> bool {
        self.introspect(json!({"token": token})).await["active"] == true
    }
}

/// A person, through the relying party's server.
#[derive(Clone)]
pub struct User {
    pub bank: Bank,
    pub id: String,
}

impl User {
    /// A path below the user's own.
    pub fn path(&self, rest: &str) -> String {
        let id: String = url::form_urlencoded::byte_serialize(self.id.as_bytes()).collect();
        format!("/v1/users/{}{rest}", id.replace('+', "%20"))
    }

    pub async fn shown(&self) -> Value {
        self.bank.get(&self.path("")).await.is(200)
    }

    pub async fn begin(&self, wish: Value) -> Answer {
        self.bank.post(&self.path("/factors"), wish).await
    }

    pub async fn activate(&self, factor: &str, proof: Value) -> Answer {
        self.bank.post(&self.path(&format!("/factors/{factor}/activate")), proof).await
    }

    pub async fn factor(&self, id: &str) -> Value {
        self.bank.get(&self.path(&format!("/factors/{id}"))).await.is(200)
    }

    pub async fn factors(&self) -> Vec<Value> {
        let list = self.bank.get(&self.path("/factors?limit=100")).await.is(200);
        list["data"].as_array().expect("a list").clone()
    }

    pub async fn remove(&self, factor: &str) -> Answer {
        self.bank.delete(&self.path(&format!("/factors/{factor}"))).await
    }

    /// A pending authenticator app.
    pub async fn begin_totp(&self) -> App {
        let factor = self.begin(json!({"type": "totp"})).await.is(201);
        App {
            id: text(&factor["id"]),
            secret: base32(factor["totp"]["secret"].as_str().expect("a secret")),
            world: self.bank.world.clone(),
        }
    }

    /// An active authenticator app. The clock moves on to the next step, because activation spends the present one.
    pub async fn enrol_totp(&self) -> App {
        let app = self.begin_totp().await;
        self.activate(&app.id, json!({"code": app.code()})).await.is(200);
        self.bank.world.wait(30);
        app
    }

    /// A browser and its authenticator on the relying party's own page.
    pub fn device(&self) -> Authenticator {
        Authenticator::new(self.bank.origin())
    }

    /// A pending passkey and the options for its browser.
    pub async fn begin_passkey(&self) -> (String, Value) {
        let factor = self.begin(json!({"type": "webauthn"})).await.is(201);
        (text(&factor["id"]), factor["webauthn"]["creation_options"].clone())
    }

    pub async fn enrol_passkey(&self) -> Passkey {
        self.enrol_passkey_on(self.device()).await
    }

    pub async fn enrol_passkey_on(&self, mut device: Authenticator) -> Passkey {
        let (id, options) = self.begin_passkey().await;
        let credential = device.create(&options).expect("the browser has no objection");
        self.activate(&id, json!({"credential": credential})).await.is(200);
        Passkey { id, device }
    }

    pub async fn begin_phone(&self, number: &str) -> Phone {
        let factor = self.begin(json!({"type": "sms", "phone": number})).await.is(201);
        Phone { id: text(&factor["id"]), number: number.to_owned(), world: self.bank.world.clone() }
    }

    pub async fn enrol_phone(&self, number: &str) -> Phone {
        let phone = self.begin_phone(number).await;
        self.activate(&phone.id, json!({"code": phone.code()})).await.is(200);
        phone
    }

    pub async fn recovery_codes(&self) -> Vec<String> {
        let made = self.bank.post(&self.path("/recovery-codes"), json!({})).await.is(201);
        made["codes"].as_array().expect("codes").iter().map(text).collect()
    }

    /// Opens a challenge; `terms` are its members beside the user.
    pub async fn ask(&self, terms: Value) -> Answer {
        let mut body = terms;
        body["user_id"] = json!(self.id);
        self.bank.post("/v1/challenges", body).await
    }

    /// An open challenge.
    pub async fn challenge(&self, terms: Value) -> Challenge {
        let body = self.ask(terms).await.is(201);
        Challenge { id: text(&body["id"]), body, bank: self.bank.clone() }
    }

    /// A session earned by the app's next code.
    pub async fn session(&self, app: &App, terms: Value) -> Value {
        self.challenge(terms).await.verify(app.answer()).await.is(200)["session"].clone()
    }

    /// A portal session's client token, in the browser on the relying party's own page.
    pub async fn browser(&self, session_token: Option<&Value>) -> Caller {
        let mut body = json!({"user_id": self.id, "flow": "settings"});
        if let Some(token) = session_token {
            body["session_token"] = token.clone();
        }
        let portal = self.bank.post("/v1/portal-sessions", body).await.is(201);
        let token = portal["client_token"].as_str().expect("a token");
        self.bank.world.caller(token).with("origin", self.bank.origin())
    }
}

/// An authenticator app.
#[derive(Clone)]
pub struct App {
    pub id: String,
    pub secret: Vec<u8>,
    world: std::sync::Arc<super::World>,
}

impl App {
    /// The code of the present step.
    pub fn code(&self) -> String {
        self.code_at(self.world.now() / 30)
    }

    /// The code of a step.
    pub fn code_at(&self, step: i64) -> String {
        totp(&self.secret, step)
    }

    /// The code of the step that lies so many ahead (or, negative, back).
    pub fn code_in(&self, steps: i64) -> String {
        self.code_at(self.world.now() / 30 + steps)
    }

    /// A code that is right at none of the steps near the present.
    pub fn wrong(&self) -> String {
        let near: Vec<_> = (-3..=3).map(|n| self.code_in(n)).collect();
        (0..).map(|n| format!("{n:06}")).find(|c| !near.contains(c)).expect("most codes are wrong")
    }

    /// The answer of the present step.
    pub fn now(&self) -> Value {
        json!({"type": "totp", "code": self.code()})
    }

    /// A wrong answer.
    pub fn miss(&self) -> Value {
        json!({"type": "totp", "code": self.wrong()})
    }

    /// The answer of the next step, to which the clock moves.
    pub fn answer(&self) -> Value {
        self.world.wait(30);
        self.now()
    }
}

/// A passkey and where it lives.
pub struct Passkey {
    pub id: String,
    pub device: Authenticator,
}

impl Passkey {
    /// The device's answer to the challenge's options.
    pub async fn answer(&mut self, challenge: &Challenge) -> Value {
        let options = challenge.request_options().await;
        json!({"type": "webauthn", "credential": self.device.get(&options).expect("the browser has no objection")})
    }
}

/// A phone that takes texts from the gateway.
#[derive(Clone)]
pub struct Phone {
    pub id: String,
    pub number: String,
    world: std::sync::Arc<super::World>,
}

impl Phone {
    /// The code of the latest text.
    pub fn code(&self) -> String {
        self.world.gateway.last(&self.number).code()
    }

    pub fn answer(&self) -> Value {
        json!({"type": "sms", "code": self.code()})
    }

    pub fn wrong(&self) -> String {
        let right = self.code();
        if right == "000000" { "000001".to_owned() } else { "000000".to_owned() }
    }

    pub fn miss(&self) -> Value {
        json!({"type": "sms", "code": self.wrong()})
    }
}

/// An open challenge, through the relying party's server.
#[derive(Clone)]
pub struct Challenge {
    pub id: String,
    /// As it was created.
    pub body: Value,
    pub bank: Bank,
}

impl Challenge {
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/challenges/{}{rest}", self.id)
    }

    pub async fn verify(&self, answer: Value) -> Answer {
        self.bank.post(&self.path("/verify"), answer).await
    }

    pub async fn prepare(&self, what: Value) -> Answer {
        self.bank.post(&self.path("/prepare"), what).await
    }

    pub async fn text(&self) -> Answer {
        self.prepare(json!({"type": "sms"})).await
    }

    pub async fn request_options(&self) -> Value {
        self.prepare(json!({"type": "webauthn"})).await.is(200)["webauthn"]["request_options"].clone()
    }

    pub async fn cancel(&self) -> Answer {
        self.bank.ask(&self.path("/cancel")).await
    }

    pub async fn exchange(&self, body: Value) -> Answer {
        self.bank.post(&self.path("/exchange"), body).await
    }

    pub async fn status(&self) -> Value {
        self.bank.get(&self.path("")).await.is(200)["status"].clone()
    }

    pub async fn attempts_left(&self) -> i64 {
        self.bank.get(&self.path("")).await.is(200)["attempts_left"].as_i64().expect("a number")
    }

    /// The types of the methods that it offers.
    pub fn methods(&self) -> Vec<String> {
        self.body["methods"].as_array().expect("a list").iter().map(|m| text(&m["type"])).collect()
    }

    /// The browser that answers on the relying party's own page, by the client token.
    pub fn browser(&self) -> Caller {
        let token = self.body["client_token"].as_str().expect("a token");
        self.bank.world.caller(token).with("origin", self.bank.origin())
    }
}

/// The words of a JSON text.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The claims of a JWT, unverified.
#[track_caller]
pub fn claims(jwt: &Value) -> Value {
    let part = text(jwt).split('.').nth(1).expect("three parts").to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}
