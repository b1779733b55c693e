//! An SMS gateway of its own: it keeps the texts that it is handed, and can refuse them, be slow or never answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router, routing::post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How the gateway behaves from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes every text.
    Well,
    /// Answers 500.
    Broken,
    /// Answers 400.
    Refusing,
    /// Keeps the connection and says nothing, until its mood changes.
    Hanging,
    /// Takes every text after this many milliseconds.
    Slow(u64),
}

/// The gateway, seen from the test.
#[derive(Clone)]
pub struct Gateway {
    pub url: url::Url,
    shared: Arc<Shared>,
}

struct Shared {
    mood: watch::Sender<Mood>,
    asked: Mutex<usize>,
    texts: Mutex<Vec<Text>>,
}

/// A text that was taken.
#[derive(Clone, Debug)]
pub struct Text {
    pub to: String,
    pub text: String,
    /// The whole request.
    pub body: Value,
}

impl Text {
    /// The first run of six digits (api.md, 7).
    pub fn code(&self) -> String {
        let mut runs = self.text.split(|c: char| !c.is_ascii_digit());
        runs.find(|run| run.len() == 6).expect("a text with a code").to_owned()
    }
}

impl Gateway {
    pub async fn start() -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared =
            Arc::new(Shared { mood: watch::Sender::new(Mood::Well), asked: Mutex::default(), texts: Mutex::default() });
        let router = Router::new().route("/sms", post(take)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Gateway { url: format!("http://{address}/sms").parse().expect("an address"), shared }
    }

    pub fn is(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// How often it was asked, whatever it answered.
    pub fn asked(&self) -> usize {
        *self.shared.asked.lock().expect("no test panics with it")
    }

    /// Every text that it took, oldest first.
    pub fn texts(&self) -> Vec<Text> {
        self.shared.texts.lock().expect("no test panics with it").clone()
    }

    /// The latest text to this number.
    pub fn last(&self, to: &str) -> Text {
        self.texts().into_iter().rfind(|t| t.to == to).expect("a text to that number")
    }
}

async fn take(State(shared): State<Arc<Shared>>, Json(body): Json<Value>) -> StatusCode {
    *shared.asked.lock().expect("no test panics with it") += 1;
    let mut mood = shared.mood.subscribe();
    if let Ok(now) = mood.wait_for(|m| *m != Mood::Hanging).await.map(|m| *m) {
        match now {
            Mood::Broken => return StatusCode::INTERNAL_SERVER_ERROR,
            Mood::Refusing => return StatusCode::BAD_REQUEST,
            Mood::Slow(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
            Mood::Well | Mood::Hanging => {}
        }
    }
    let member = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let text = Text { to: member("to"), text: member("text"), body: body.clone() };
    shared.texts.lock().expect("no test panics with it").push(text);
    StatusCode::ACCEPTED
}
