//! Factors: enrolled, shown, renamed, removed (api.md, 4).

use crate::support::verbs::text;
use crate::support::{World, json};

/// T-01, T-13, T-14, T-15: shown once, in the form that apps read.
#[tokio::test]
async fn an_authenticator_app_is_pending_until_its_first_code() {
    let bank = World::start().await.bank().await;
    let ann = bank.user("ann");
    let begun = ann.begin(json!({"type": "totp"})).await.is(201);
    assert_eq!(begun["status"], "pending");
    assert_eq!(begun["totp"]["algorithm"], "SHA1");
    let id = text(&begun["id"]);
    assert!(id.starts_with("fac_"));
}
