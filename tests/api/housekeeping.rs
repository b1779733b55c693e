//! What runs out goes: after thirty days of use the database is as large as after three, but for what is kept on purpose
//! (issue 3.6).

use crate::support::database::Scratch;
use crate::support::{Bank, World, json};

/// What one day brings: every kind of row that runs out, some of it left open.
async fn day(bank: &Bank, day: usize) {
    for name in ["ann", "ben"] {
        let user = bank.user(name);
        let app = user.enrol_totp().await;
        let phone = user.enrol_phone(if name == "ann" { "+14155550101" } else { "+14155550102" }).await;
        for _ in 0..4 {
            user.session(&app, json!({})).await;
            user.challenge(json!({})).await;
        }
        user.challenge(json!({})).await.text().await.is(200);
        let once = bank.with("idempotency-key", &format!("{name}-{day}"));
        once.post(&user.path("/factors"), json!({"type": "totp"})).await.is(201);
        bank.world.wait(4000);
        user.begin_phone(&format!("+1415555{:04}", 200 + day)).await;
        user.browser(None).await;
        user.recovery_codes().await;
        for factor in [&app.id, &phone.id] {
            user.remove(factor).await;
        }
    }
}

/// The rows of each table.
async fn sizes(scratch: &Scratch) -> Vec<(&'static str, i64)> {
    const TABLES: [&str; 13] = [
        "kept_answers",
        "challenges",
        "sessions",
        "portal_sessions",
        "prompts",
        "messages",
        "factors",
        "send_budgets",
        "throttle_lanes",
        "recovery_sets",
        "recovery_codes",
        "users",
        "leases",
    ];
    let mut sizes = Vec::new();
    for table in TABLES {
        sizes.push((table, scratch.number(&format!("select count(*) from {table}")).await));
    }
    sizes
}

#[tokio::test]
async fn thirty_days_of_use_leave_no_more_than_three() {
    for scratch in Scratch::all().await {
        let world = World::start_on(scratch, |_| {}).await;
        let bank = world.bank().await;
        let engine = world.engine();
        let mut after_three = Vec::new();
        for n in 1..=30 {
            let started = world.now();
            day(&bank, n).await;
            world.wait(86_400 - (world.now() - started));
            engine.seal_events().await.expect("it seals");
            while engine.purge().await.expect("it purges") > 0 {}
            if n == 3 {
                after_three = sizes(&world.scratch).await;
            }
        }
        let after_thirty = sizes(&world.scratch).await;
        for ((table, three), (_, thirty)) in after_three.iter().zip(&after_thirty) {
            assert!(thirty <= three, "{table}: {three} rows after three days, {thirty} after thirty");
        }
        println!("{after_thirty:?}");
    }
}
