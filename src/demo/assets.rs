//! Stylesheet, script and icon, inside the binary; their addresses change with their content.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

const CSS: &str = include_str!("../../web/demo/demo.css");
const JS: &str = include_str!("../../web/demo/demo.js");
const ICON: &str = include_str!("../../web/demo/icon.svg");

struct Names {
    css: String,
    js: String,
    icon: String,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let digest = |content: &str| Sha256::digest(content).iter().take(8).map(|b| format!("{b:02x}")).collect::<String>();
    Names {
        css: format!("demo-{}.css", digest(CSS)),
        js: format!("demo-{}.js", digest(JS)),
        icon: format!("icon-{}.svg", digest(ICON)),
    }
});

/// File names of stylesheet, script and icon, below `/demo/assets/`.
pub fn addresses() -> (&'static str, &'static str, &'static str) {
    (&NAMES.css, &NAMES.js, &NAMES.icon)
}

/// `GET /demo/assets/{file}`
pub async fn serve(Path(file): Path<String>) -> Response {
    let (kind, content) = match file {
        name if name == NAMES.css => ("text/css; charset=utf-8", CSS),
        name if name == NAMES.js => ("text/javascript; charset=utf-8", JS),
        name if name == NAMES.icon => ("image/svg+xml", ICON),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, content).into_response()
}
