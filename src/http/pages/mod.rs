//! Pages.
use super::App;
use axum::Router;
pub fn router() -> Router<App> {
    Router::new()
}
