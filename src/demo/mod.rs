//! The demo application: a small bank, a relying party of its own that uses only the public HTTP API of the engine.

use axum::Router;

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
}

/// Paths of the application to which hosted pages return.
pub const RETURN_PATHS: &[&str] = &["/demo/return", "/demo/security"];

/// The application's routes, below `/demo`.
pub fn router(_settings: Settings) -> Router {
    Router::new()
}
