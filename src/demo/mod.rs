//! The demo application: a small bank, a relying party of its own that uses only the public HTTP API of the engine.
//!
//! It owns its users, passwords and login sessions, as any application does; of the second step it knows what the API tells it.
//! `step_up` is the part worth reading: how a challenge is begun, how its return is believed, and what a session is checked for
//! before anything is done on its word.

mod account;
mod api;
mod assets;
mod browsers;
mod customers;
mod iban;
mod journal;
mod pages;
mod panes;
mod purpose;
mod security;
mod sign_in;
mod step_up;
mod visit;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::{get, post};

/// What the application is told.
pub struct Settings {
    /// The engine's public address, by which browsers reach it.
    pub engine: String,
    /// The socket at which the application's server reaches it.
    pub engine_address: std::net::SocketAddr,
    /// Its API key.
    pub api_key: String,
    /// Where browsers reach the application: its origin.
    pub origin: String,
    /// Unix time in seconds.
    pub now: fn() -> i64,
    /// Random bytes fit for keys.
    pub random: fn() -> [u8; 32],
}

/// Paths of the application to which hosted pages return.
pub const RETURN_PATHS: &[&str] = &["/demo/return", "/demo/security"];

/// What handlers share.
struct Bank {
    settings: Settings,
    engine: api::Client,
    browsers: browsers::Browsers,
    accounts: customers::Accounts,
}

type Shared = Arc<Bank>;

/// A form takes no more than this.
const LARGEST_FORM: usize = 16 * 1024;

/// The application's routes, below `/demo`.
pub fn router(settings: Settings) -> Router {
    let bank = Arc::new(Bank {
        engine: api::Client::new(&settings),
        browsers: browsers::Browsers::default(),
        accounts: customers::Accounts::default(),
        settings,
    });
    Router::new()
        .route("/", get(|| async { Redirect::to("/demo") }))
        .route("/demo", get(sign_in::page).post(sign_in::password))
        .route("/demo/sign-out", post(sign_in::sign_out))
        .route("/demo/return", get(step_up::returned))
        .route("/demo/account", get(account::page))
        .route("/demo/balance", post(account::balance))
        .route("/demo/statement", post(account::statement))
        .route("/demo/payout", get(account::payout_page).post(account::payout))
        .route("/demo/delete", get(account::delete_page).post(account::delete))
        .route("/demo/security", get(security::page))
        .route("/demo/security/visit", post(security::visit_portal))
        .route("/demo/security/remove", post(security::remove))
        .route("/demo/texts", get(pages::texts))
        .route("/demo/panes", get(panes::fragment))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&bank), visit::around))
        .route("/demo/assets/{file}", get(assets::serve))
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .with_state(bank)
}
