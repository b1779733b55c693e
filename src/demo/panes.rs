//! What stands beside every page: the texts that were "sent", and the calls to the engine.

use askama::Template;
use axum::response::Response;

use super::api::Text;
use super::browsers::Browser;
use super::journal::Call;
use super::pages::html;
use super::visit::Visit;

/// Texts and calls, newest first.
#[derive(Template)]
#[template(path = "demo/panes.html")]
pub struct Panes {
    /// `None` where they cannot be read.
    pub texts: Option<Vec<Text>>,
    calls: Vec<Call>,
}

/// Calls that are in sight; the others unfold.
const LATEST: usize = 6;
/// Texts shown.
const TEXTS: usize = 10;

impl Panes {
    /// As they stand.
    pub async fn of(visit: &Visit) -> Panes {
        let texts = visit.bank.engine.texts().await;
        let texts = texts.map(|t| t.into_iter().take(TEXTS).collect());
        Panes { texts, calls: visit.with(|b: &mut Browser| b.calls()) }
    }
}

/// `GET /demo/panes`: for the script that keeps them up to date.
pub async fn fragment(visit: Visit) -> Response {
    html(&Panes::of(&visit).await)
}
