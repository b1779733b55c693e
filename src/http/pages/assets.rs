//! Stylesheet, modules and icon from the binary, under an address that changes with their content and may be kept for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

use crate::http::problem::{self, Refused};
use crate::model::hex;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/web/assets"]
struct Embedded;

/// One hash over all of them: modules import each other by name.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut names: Vec<_> = Embedded::iter().collect();
    names.sort_unstable();
    let mut hash = Sha256::new();
    for name in names {
        hash.update(name.as_bytes());
        hash.update(Embedded::get(&name).map(|file| file.metadata.sha256_hash()).unwrap_or_default());
    }
    hex(&hash.finalize()[..8])
});

/// The path of an asset of this name.
pub fn address(name: &str) -> String {
    format!("/assets/{}/{name}", *VERSION)
}

/// Serves one. An address of another release, as while two run behind one balancer, gives this one's own file, which nobody keeps:
/// nothing old stays under a new name.
pub async fn serve(path: Result<Path<(String, String)>, PathRejection>) -> Result<Response, Refused> {
    let Path((version, name)) = path.map_err(|_| problem::NOT_FOUND)?;
    let kind = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => return Err(problem::NOT_FOUND.into()),
    };
    let Some(file) = Embedded::get(&name) else { return Err(problem::NOT_FOUND.into()) };
    let keep = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    Ok(([(CONTENT_TYPE, kind), (CACHE_CONTROL, keep)], file.data.into_owned()).into_response())
}
