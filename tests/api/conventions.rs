//! What holds for every call (api.md, 3).

use crate::support::{World, json};

#[tokio::test]
async fn a_story_in_a_few_lines() {
    let bank = World::start().await.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let mut passkey = ann.enrol_passkey().await;
    let phone = ann.enrol_phone("+14155550123").await;
    let codes = ann.recovery_codes().await;
    assert_eq!(codes.len(), 10);
    ann.session(&app, json!({})).await;
    let challenge = ann.challenge(json!({})).await;
    let answer = passkey.answer(&challenge).await;
    assert_eq!(challenge.verify(answer).await.is(200)["session"]["acr"], "phr");
    bank.world.wait(30);
    let challenge = ann.challenge(json!({})).await;
    challenge.text().await.is(200);
    challenge.verify(phone.answer()).await.is(200);
}
