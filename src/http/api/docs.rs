//! A readable page of the OpenAPI document, made from the document itself.

use utoipa::openapi::OpenApi;

use crate::http::problem::Code;

/// The page.
pub fn page(_document: &OpenApi) -> String {
    String::new()
}

/// What one code means.
pub fn error_page(code: &Code) -> String {
    code.code.to_owned()
}
