//! The audit: every security event once and in order, readable by its relying party alone, and a chain that shows what somebody
//! did to it in the database (design.md, the audit chain; issue: audit).

use std::sync::Arc;

use countersign::model::Scope;

use crate::support::app::{base32, totp};
use crate::support::authenticator::Authenticator;
use crate::support::child::Place;
use crate::support::verbs::text;
use crate::support::{Bank, Value, World, at_once, json};

/// All events of a relying party, page by page.
async fn events(bank: &Bank, filter: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = bank.get(&format!("/v1/events?limit=7{filter}{cursor}")).await.is(200);
        all.extend(page["data"].as_array().expect("a list").clone());
        if page["has_more"] == false {
            assert_eq!(page["next_cursor"], Value::Null);
            return all;
        }
        cursor = format!("&cursor={}", text(&page["next_cursor"]));
    }
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|e| e["type"].as_str().expect("a type")).collect()
}

/// L-01, L-02, L-03, L-07, A-10: one event for each thing that happened, in its order, and nothing secret in it.
#[tokio::test]
async fn a_whole_story_is_told_once_and_in_order() {
    let world = World::start().await;
    let began = countersign::clock::Clock::now(&*world.clock);
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.begin_totp().await;
    ann.activate(&app.id, json!({"code": app.wrong()})).await.refused(422, "code_incorrect");
    ann.activate(&app.id, json!({"code": app.code()})).await.is(200);
    world.wait(30);
    let mut passkey = ann.enrol_passkey().await;
    let phone = ann.enrol_phone("+14155550123").await;
    let codes = ann.recovery_codes().await;
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(app.miss()).await.refused(422, "code_incorrect");
    let session = challenge.verify(app.answer()).await.is(200)["session"].clone();
    challenge.verify(app.answer()).await.refused(409, "challenge_not_pending");
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(passkey.answer(&challenge).await).await.is(200);
    let challenge = ann.challenge(json!({})).await;
    world.wait(60);
    challenge.text().await.is(200);
    challenge.verify(json!({"type": "sms", "code": phone.code()})).await.is(200);
    let once = ann.ask(json!({"action": "pay", "single_use": true, "answer": app.answer()})).await.is(200);
    bank.introspect(json!({"token": once["session"]["token"], "action": "pay", "consume": true})).await;
    ann.ask(json!({"answer": app.miss()})).await.refused(422, "code_incorrect");
    ann.ask(json!({"session_token": session["token"]})).await.is(200);
    ann.challenge(json!({})).await.verify(json!({"type": "recovery_code", "code": codes[0]})).await.is(200);
    let cancelled = ann.challenge(json!({})).await;
    bank.ask(&cancelled.path("/cancel")).await.is(200);
    bank.delete(&format!("/v1/sessions/{}", text(&session["id"]))).await.is(204);
    bank.delete(&ann.path("/sessions")).await.is(204);
    bank.patch(&ann.path(&format!("/factors/{}", app.id)), json!({"name": "Work"})).await.is(200);
    ann.browser(None).await;
    ann.remove(&app.id).await.is(204);
    world.seal().await;

    let told = events(&bank, "").await;
    let sequences: Vec<_> = told.iter().map(|e| e["sequence"].as_i64().expect("a number")).collect();
    assert_eq!(sequences, (1..=told.len() as i64).collect::<Vec<_>>());
    assert_eq!(
        types(&told),
        [
            "relying_party.created",
            "api_key.created",
            "enrolment.started",
            "enrolment.failed",
            "factor.added",
            "enrolment.started",
            "factor.added",
            "enrolment.started",
            "message.sent",
            "factor.added",
            "recovery_codes.created",
            "challenge.created",
            "verification.failed",
            "verification.succeeded",
            "challenge.created",
            "verification.succeeded",
            "challenge.created",
            "message.sent",
            "verification.succeeded",
            "verification.succeeded",
            "session.consumed",
            "verification.failed",
            "session.inherited",
            "challenge.created",
            "verification.succeeded",
            "challenge.created",
            "challenge.cancelled",
            "session.revoked",
            "session.all_revoked",
            "factor.renamed",
            "portal_session.created",
            "factor.removed",
        ]
    );
    let of = |kind: &str, member: &str| -> Vec<&str> {
        let of_kind = told.iter().filter(|e| e["type"].as_str().is_some_and(|t| t.starts_with(kind)));
        of_kind.map(|e| e[member].as_str().unwrap_or_default()).collect()
    };
    assert_eq!(
        of("verification.", "method"),
        ["totp", "totp", "webauthn", "sms", "totp", "totp", "recovery_code"],
        "in the order of the list"
    );
    assert_eq!(of("enrolment.failed", "method"), ["totp"]);
    assert_eq!(of("factor.added", "method"), ["totp", "webauthn", "sms"]);
    assert_eq!(of("factor.added", "factor_id"), [&app.id, &passkey.id, &phone.id]);
    assert_eq!(of("factor.removed", "factor_id"), [&app.id]);
    let right = &told[13];
    assert_eq!(right["id"].as_str().expect("an id").split('_').next(), Some("evt"));
    assert_eq!(
        (&right["actor"], &right["user_id"], &right["method"]),
        (&json!("server"), &json!("ann"), &json!("totp"))
    );
    assert_eq!((&right["outcome"], &right["reason"]), (&json!("success"), &Value::Null));
    assert_eq!((&right["factor_id"], &right["session_id"]), (&json!(app.id), &session["id"]));
    assert!(text(&right["challenge_id"]).starts_with("chl_") && text(&right["request_id"]).starts_with("req_"));
    // When, and by which key; what a person does has the person's address.
    let ids: Vec<_> = world.operator.keys().await.expect("keys").into_iter().map(|key| key.id.to_string()).collect();
    let by_server: Vec<_> = told.iter().filter(|e| e["actor"] == "server").collect();
    assert!(by_server.len() == told.len() - 2 && ids.len() == 1, "{}", by_server.len());
    for event in by_server {
        assert_eq!((&event["api_key_id"], &event["client"]), (&json!(ids[0]), &Value::Null), "{event}");
    }
    let at = text(&told[2]["at"]);
    let (begin, end) = (began.rfc3339(), countersign::clock::Clock::now(&*world.clock).rfc3339());
    assert_eq!(at, begin);
    assert!(told.iter().all(|e| (&*begin..=&*end).contains(&e["at"].as_str().expect("a time"))), "{begin} {end}");
    let wrong = &told[12];
    assert_eq!((&wrong["outcome"], &wrong["reason"]), (&json!("failure"), &json!("code_incorrect")));
    assert_eq!(world.faults().await, []);

    // Whatever was secret in the story is in none of it.
    let all = json!(told).to_string();
    for secret in [&app.code(), &phone.code(), &phone.number, &codes[0], &text(&session["token"]), &bank.key] {
        assert!(!all.contains(secret.as_str()), "{secret}");
    }
}

/// A rare type among very many events is found stretch by stretch, and each page says where it goes on.
#[tokio::test]
async fn a_rare_type_is_found_page_by_page() {
    let world = World::start().await;
    let bank = world.bank().await;
    bank.user("ann").enrol_totp().await;
    world.seal().await;
    let told = events(&bank, "").await;
    let many = format!(
        "insert into events (rp_id, id, at, kind, actor, outcome, sequence, person, hash)
         with recursive n (i) as (select {} union all select i + 1 from n where i < 120000)
         select rp_id, 'evt_n' || i, at + i, case i when 110000 then 'rare.thing' else 'verification.failed' end, 'server',
           'failure', i, hash, hash from n join events e on e.sequence = 1 and e.rp_id = '{}'",
        told.len() + 1,
        bank.rp.id
    );
    world.scratch.execute(&many).await;
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = bank.get(&format!("/v1/events?type=rare.thing{cursor}")).await.is(200);
        pages.push(types(page["data"].as_array().expect("a list")).len());
        let Some(next) = page["next_cursor"].as_str() else { break };
        assert_eq!(page["has_more"], true);
        cursor = format!("&cursor={next}");
    }
    assert_eq!(pages, [0, 0, 1]);
    // By time it begins and ends where it should, and what is common fills its page at once.
    let first = text(&told[0]["at"]);
    assert_eq!(events(&bank, &format!("&type=rare.thing&before={first}")).await.len(), 0);
    let page = bank.get("/v1/events?type=verification.failed&limit=100").await.is(200);
    assert_eq!((page["data"].as_array().map(Vec::len), page["has_more"].as_bool()), (Some(100), Some(true)));
}

/// L-01, A-10: a wrong code is an event each, what a pause refuses is none, and a reset tells by one of all that it removes.
#[tokio::test]
async fn a_pause_leaves_no_event_and_a_reset_one() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    ann.enrol_passkey().await;
    for _ in 0..10 {
        ann.ask(json!({"answer": app.miss()})).await.refused(422, "code_incorrect");
    }
    ann.ask(json!({"answer": app.now()})).await.refused(429, "method_paused");
    world.wait(1);
    world.operator.unlock_user(&bank.rp, "ann").await.expect("it is unlocked");
    world.wait(1);
    world.operator.reset_user(&bank.rp, "ann").await.expect("it is reset");
    world.seal().await;
    let told = events(&bank, "&user_id=ann").await;
    let enrolled = ["enrolment.started", "factor.added", "enrolment.started", "factor.added"];
    let expected = [&enrolled[..], &["verification.failed"; 10], &["user.unlocked", "user.reset"]].concat();
    assert_eq!(types(&told), expected);
    for event in &told[told.len() - 2..] {
        assert_eq!((&event["actor"], &event["api_key_id"]), (&json!("operator"), &Value::Null), "{event}");
    }
}

/// L-02, L-07: what a person does on a visit is told as the person's, from their address, and by no key.
#[tokio::test]
async fn a_factor_that_a_person_adds_is_told_with_their_address() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let browser = ann.browser(None).await.with("user-agent", "Visit/1");
    let begun = browser.post(&ann.path("/factors"), json!({"type": "totp"})).await.is(201);
    let code = totp(&base32(&text(&begun["totp"]["secret"])), world.now() / 30);
    let activate = ann.path(&format!("/factors/{}/activate", text(&begun["id"])));
    browser.post(&activate, json!({"code": code})).await.is(200);
    world.seal().await;
    let [added]: [Value; 1] = events(&bank, "&type=factor.added").await.try_into().expect("one event");
    assert_eq!((&added["actor"], &added["user_id"]), (&json!("user"), &json!("ann")));
    assert_eq!((&added["factor_id"], &added["method"]), (&begun["id"], &json!("totp")));
    assert_eq!(added["client"], json!({"ip": "127.0.0.1", "user_agent": "Visit/1"}));
    assert_eq!(added["api_key_id"], Value::Null);
    let now = countersign::clock::Clock::now(&*world.clock).plus_seconds(-2);
    assert_eq!(added["at"], now.rfc3339(), "before it was sealed");
}

/// The filters and the cursor, each alone and together.
#[tokio::test]
async fn events_are_found_by_type_user_and_time() {
    let world = World::start().await;
    let bank = world.bank().await;
    let (ann, bob) = (bank.user("ann"), bank.user("bob"));
    ann.enrol_totp().await;
    world.seal().await;
    world.wait(7200);
    let middle = countersign::clock::Clock::now(&*world.clock).rfc3339();
    bob.enrol_totp().await;
    ann.challenge(json!({})).await;
    world.seal().await;
    assert_eq!(types(&events(&bank, "&user_id=bob").await), ["enrolment.started", "factor.added"]);
    assert_eq!(types(&events(&bank, "&type=factor.added").await), ["factor.added"; 2]);
    assert_eq!(types(&events(&bank, "&type=factor.added&user_id=ann").await), ["factor.added"]);
    assert_eq!(events(&bank, "&type=factor.added&user_id=cid").await.len(), 0);
    let later = events(&bank, &format!("&after={middle}")).await;
    assert_eq!(types(&later), ["enrolment.started", "factor.added", "challenge.created"]);
    let earlier = events(&bank, &format!("&before={middle}")).await;
    assert_eq!((earlier.len(), later[0]["sequence"].as_u64()), (4, Some(5)));
    assert_eq!(events(&bank, &format!("&after={middle}&user_id=ann")).await.len(), 1);
    // A reader who comes back goes on behind the last number that it saw.
    let last = later[2]["sequence"].as_i64().expect("a number");
    let page = bank.get(&format!("/v1/events?cursor={last}")).await.is(200);
    assert_eq!((&page["data"], &page["has_more"]), (&json!([]), &json!(false)));
    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("type=factor.added&type=factor.removed", "query"),
        ("cursor=-1", "cursor"),
        ("cursor=evt_1", "cursor"),
        ("cursor=99999999999999999999", "cursor"),
        // A number that the chain has not reached: an older database has taken the place of the one that was read.
        ("cursor=1000000", "cursor"),
        ("type=DROP%20TABLE", "type"),
        ("user_id=", "user_id"),
        ("user_id=a%00", "user_id"),
        ("after=yesterday", "after"),
        ("before=2026-01-02", "before"),
        ("order=desc", "query"),
    ] {
        bank.get(&format!("/v1/events?{query}")).await.invalid(param);
    }
}

/// 3.33: whatever is asked, nothing of another relying party comes back; and only a key with the scope asks.
#[tokio::test]
async fn events_of_another_relying_party_are_out_of_reach() {
    let world = World::start().await;
    let (bank, shop) = (world.bank().await, world.party("Shop", "shop.example", false).await);
    bank.user("ann").enrol_totp().await;
    shop.user("ann").enrol_totp().await;
    world.custodian().await.rotate_pepper().await.expect("published");
    world.seal().await;
    let of_shop: Vec<_> = events(&shop, "").await.iter().map(|e| text(&e["id"])).collect();
    for filter in ["", "&user_id=ann", "&type=factor.added", "&cursor=0"] {
        let seen = bank.get(&format!("/v1/events?limit=100{filter}")).await.is(200);
        assert!(!seen["data"].as_array().expect("a list").is_empty());
        assert!(of_shop.iter().all(|id| !seen.to_string().contains(id)), "{filter}");
        assert!(!seen.to_string().contains("pepper"), "the engine's own chain is nobody's");
    }
    let scopes = [Scope::Challenges, Scope::FactorsWrite, Scope::Sessions, Scope::UsersRead];
    let blind = world.key(&bank.rp, &scopes, None).await;
    world.caller(&blind).get("/v1/events").await.refused(403, "scope_missing");
    let reader = world.key(&bank.rp, &[Scope::EventsRead], None).await;
    world.caller(&reader).get("/v1/events").await.is(200);
    world.stranger().get("/v1/events").await.refused(401, "api_key_invalid");
}

/// L-05, 3.35: each way to bend the record is found.
#[tokio::test]
async fn what_somebody_does_to_the_record_is_found() {
    let world = World::start().await;
    let bank = world.bank().await;
    let app = bank.user("ann").enrol_totp().await;
    for _ in 0..3 {
        bank.user("ann").challenge(json!({})).await.verify(app.miss()).await.refused(422, "code_incorrect");
    }
    world.seal().await;
    assert_eq!(world.faults().await, []);
    // Copies to put back, so that each fault is the only one.
    let copy = "drop table if exists kept_events; drop table if exists kept_heads;
        create table kept_events as select * from events; create table kept_heads as select * from chain_heads";
    world.scratch.execute(copy).await;
    let restore = "delete from events; insert into events select * from kept_events;
        delete from chain_heads; insert into chain_heads select * from kept_heads";
    let cases: &[(&str, &[(&str, i64)])] = &[
        ("update events set outcome = 'success' where sequence = 6", &[("changed", 6)]),
        ("update events set reason = null where sequence = 6", &[("changed", 6)]),
        ("update events set user_id = 'eve' where sequence = 6", &[("changed", 6)]),
        ("update events set client = '{\"ip\":\"192.0.2.9\"}' where sequence = 6", &[("changed", 6)]),
        ("update events set at = at + 1 where sequence = 6", &[("changed", 6)]),
        ("update events set salt = null, client = null, user_id = 'erased_1' where sequence = 6", &[("disguised", 6)]),
        ("delete from events where sequence = 6", &[("missing", 6)]),
        ("delete from events where sequence in (6, 7)", &[("missing", 6)]),
        ("delete from events where sequence >= 6", &[("tail_cut", 6)]),
        ("delete from events", &[("tail_cut", 1)]),
        (
            "update events set sequence = 100 where sequence = 6; update events set sequence = 6 where sequence = 7;
             update events set sequence = 7 where sequence = 100",
            &[("changed", 6), ("changed", 7), ("changed", 8)],
        ),
        ("delete from chain_heads", &[("head_forged", 0)]),
        (
            "delete from events where sequence >= 6;
             update chain_heads set sequence = 5, hash = (select hash from events where sequence = 5)",
            &[("head_forged", 5)],
        ),
    ];
    for (statement, expected) in cases {
        assert!(world.scratch.execute(statement).await > 0, "{statement}");
        assert_eq!(world.faults().await, *expected, "{statement}");
        world.scratch.execute(restore).await;
        assert_eq!(world.faults().await, [], "put back");
    }
    // A bent end is not built upon: that would hide what was done.
    let cut = "delete from events where sequence >= 6;
        update chain_heads set sequence = 5, hash = (select hash from events where sequence = 5)";
    world.scratch.execute(cut).await;
    bank.user("ann").challenge(json!({})).await;
    world.wait(2);
    world.seal_once().await;
    assert_eq!(world.faults().await, [("head_forged", 5)]);
    assert_eq!(world.scratch.texts("select id from events where sequence is null").await.len(), 1);
}

/// A chain whose end does not read keeps nobody else's events from being chained.
#[tokio::test]
async fn a_chain_that_does_not_read_holds_up_no_other() {
    let world = World::start().await;
    let (bank, shop) = (world.bank().await, world.party("Shop", "shop.example", false).await);
    for of in [&bank, &shop] {
        of.user("ann").enrol_totp().await;
    }
    world.seal().await;
    let unsealed = |of: String| {
        let world = &world;
        async move {
            let young = format!("select id from events where sequence is null and rp_id = '{of}'");
            world.scratch.texts(&young).await.len()
        }
    };
    let mut parties = [bank.rp.id.to_string(), shop.rp.id.to_string()];
    parties.sort();
    let [first, last] = parties;
    if !world.scratch.is_sqlite() {
        return;
    }
    world.scratch.execute(&format!("update chain_heads set sequence = 'x' where rp_id = '{first}'")).await;
    for of in [&bank, &shop] {
        of.user("ben").enrol_totp().await;
    }
    world.wait(2);
    world.seal_once().await;
    assert_ne!(unsealed(first).await, 0);
    assert_eq!(unsealed(last).await, 0);
}

/// An old end that was true once is found by whoever remembers a later one; the command says so by its status.
#[tokio::test]
async fn the_command_tells_a_whole_chain_from_a_broken_one() {
    let mut place = Place::new().await;
    let serve = place.serve().await;
    let bank = place.bank();
    let (status, _) = bank.post("/v1/users/ann/factors", json!({"type": "totp"})).await;
    assert_eq!(status, 201);
    let report = wait_for(&place, 3).await;
    assert_eq!((&report["whole"], &report["name"], &report["findings"]), (&json!(true), &json!("Bank"), &json!([])));
    let checkpoint = text(&report["checkpoint"]);
    let verify = ["audit", "verify", "--rp", "Bank", "--checkpoint", &checkpoint];
    let ended = place.run(&verify);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("whole") && ended.stdout.contains(&checkpoint), "{}", ended.stdout);
    bank.post("/v1/users/ann/factors", json!({"type": "totp"})).await;
    wait_for(&place, 4).await;
    assert_eq!(place.run(&verify).status, Some(0), "what came later does no harm");
    place.scratch.execute("delete from events; delete from chain_heads").await;
    bank.post("/v1/users/ann/factors", json!({"type": "totp"})).await;
    wait_for(&place, 1).await;
    assert_eq!(place.run(&["audit", "verify"]).status, Some(0), "a new chain alone looks whole");
    let ended = place.run(&verify);
    assert_eq!(ended.status, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("checkpoint_lost"), "{}", ended.stdout);
    place.scratch.execute("update events set outcome = 'failure'").await;
    let ended = place.run(&["audit", "verify", "--json"]);
    assert_eq!(ended.status, Some(1));
    let reports: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(reports[0]["findings"][0]["fault"], "changed", "{reports}");
    for wrong in [&["audit", "verify", "--rp", "Nobody"][..], &["audit", "verify", "--rp", "Bank", "--checkpoint", "x"]]
    {
        let ended = place.run(wrong);
        assert_eq!((ended.status, ended.stdout.as_str()), (Some(1), ""), "{wrong:?}");
    }
    drop(serve);
    place.set("COUNTERSIGN_MASTER_KEY", &countersign::new_master_key());
    assert_eq!(place.run(&["audit", "verify"]).status, Some(1), "another master key proves nothing");
}

/// The report of `Bank` once it has this many events.
async fn wait_for(place: &Place, events: i64) -> Value {
    for _ in 0..100 {
        let reports = serde_json::from_str::<Value>(&place.run(&["audit", "verify", "--json"]).stdout).expect("JSON");
        let found = reports.as_array().expect("a list").iter().find(|r| r["name"] == "Bank").cloned();
        if let Some(found) = found.filter(|r| r["events"] == events && r["unsealed"] == 0) {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the engine seals its events by itself");
}

/// What a server passes on as a browser's address is one, or is not recorded as one.
#[tokio::test]
async fn what_is_no_address_is_not_recorded_for_one() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    ann.enrol_totp().await;
    for (given, kept) in [("2001:db8::1", json!("2001:db8::1")), ("of no address", json!(null))] {
        ann.challenge(json!({"client": {"ip": given, "user_agent": "Test/1"}})).await;
        world.seal().await;
        let told = events(&bank, "&type=challenge.created").await;
        let client = &told.last().expect("an event")["client"];
        assert_eq!((&client["ip"], &client["user_agent"]), (&kept, &json!("Test/1")));
    }
}

/// L-05: on SQLite what a verdict tells is chained by the commit that wrote it, behind what other connections wrote before: nobody can
/// take it away unnoticed, not even before the next sealing.
#[tokio::test]
async fn on_sqlite_a_verdict_is_chained_as_it_is_committed() {
    let world = World::start().await;
    if !world.scratch.is_sqlite() {
        return;
    }
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    ann.challenge(json!({})).await.verify(app.answer()).await.is(200);
    assert_eq!(world.scratch.texts("select id from events where sequence is null").await, [""; 0]);
    let told: Vec<_> = events(&bank, "&user_id=ann").await.iter().map(|e| e["type"].clone()).collect();
    assert_eq!(told, ["enrolment.started", "factor.added", "challenge.created", "verification.succeeded"]);
    world.scratch.execute("delete from events where kind = 'verification.succeeded'").await;
    let faults: Vec<_> = world.faults().await.into_iter().map(|(fault, _)| fault).collect();
    assert_eq!(faults, ["tail_cut"]);
}

/// L-05: a verdict gets its number behind all that was committed before it, also where more waits for a number than is read at once.
#[tokio::test]
async fn on_sqlite_what_was_committed_before_a_verdict_is_numbered_before_it() {
    let world = World::start().await;
    if !world.scratch.is_sqlite() {
        return;
    }
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    world.seal().await;
    // Of this second, so that only the writer numbers them while the clock stands still.
    let before = format!(
        "insert into events (rp_id, id, at, kind, actor, outcome)
         with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < 150)
         select '{}', printf('evt_%032x', n), {}, 'x.before', 'server', 'success' from numbers",
        bank.rp.id,
        countersign::clock::Clock::now(&*world.clock).0
    );
    assert_eq!(world.scratch.execute(&before).await, 150);
    let unnumbered = || async {
        let young = "select kind from events where sequence is null order by kind";
        let mut kinds = world.scratch.texts(young).await;
        let count = kinds.len();
        kinds.dedup();
        (count, kinds)
    };
    challenge.verify(app.miss()).await.refused(422, "code_incorrect");
    assert_eq!(unnumbered().await, (87, vec!["verification.failed".to_owned(), "x.before".to_owned()]));
    challenge.verify(app.miss()).await.refused(422, "code_incorrect");
    challenge.verify(app.answer()).await.is(200);
    assert_eq!(unnumbered().await, (0, Vec::new()));
    let told = events(&bank, "").await;
    let kinds = types(&told);
    let (verdicts, before) = (&kinds[kinds.len() - 3..], &kinds[kinds.len() - 153..kinds.len() - 3]);
    assert_eq!(verdicts, ["verification.failed", "verification.failed", "verification.succeeded"]);
    assert!(before.iter().all(|kind| *kind == "x.before"), "{kinds:?}");
    assert_eq!(world.faults().await, []);
}

/// L-05: whoever takes a chain's end away, or puts an older one back, stops no verdict, neither there nor beside it: what follows gets
/// no number, and the loss is told.
#[tokio::test]
async fn a_chain_that_cannot_go_on_holds_up_no_verdict() {
    let world = World::start().await;
    let bank = world.bank().await;
    let shop = world.party("Shop", "shop.example", false).await;
    let (ann, bob) = (bank.user("ann"), shop.user("bob"));
    let (app, other) = (ann.enrol_totp().await, bob.enrol_totp().await);
    world.seal().await;
    let of_bank = format!("from chain_heads where rp_id = '{}'", bank.rp.id);
    world.scratch.execute(&format!("create table old_heads as select * {of_bank}")).await;
    ann.challenge(json!({})).await.verify(app.answer()).await.is(200);
    world.seal().await;
    let unnumbered = |bank: &Bank| format!("select id from events where sequence is null and rp_id = '{}'", bank.rp.id);
    for damage in
        [format!("delete {of_bank}; insert into chain_heads select * from old_heads"), format!("delete {of_bank}")]
    {
        world.scratch.execute(&damage).await;
        ann.challenge(json!({})).await.verify(app.answer()).await.is(200);
        bob.challenge(json!({})).await.verify(other.answer()).await.is(200);
        world.wait(2);
        for _ in 0..200 {
            world.seal_once().await;
            if world.scratch.texts(&unnumbered(&shop)).await.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(world.faults().await.iter().any(|(fault, _)| *fault == "head_forged"), "{damage}");
    }
    assert_eq!(world.scratch.texts(&unnumbered(&bank)).await.len(), 4, "nothing is added");
    assert_eq!(world.scratch.texts(&unnumbered(&shop)).await, [""; 0]);
}

/// V-05: what is erased is gone from the record, and the record still proves itself.
#[tokio::test]
async fn an_erased_user_leaves_the_chain_whole() {
    let world = World::start().await;
    let bank = world.bank().await;
    let (ann, bob) = (bank.user("ann"), bank.user("bob"));
    let client = json!({"ip": "192.0.2.77", "user_agent": "Ann's browser"});
    ann.enrol_totp().await;
    bob.enrol_totp().await;
    ann.challenge(json!({"client": client})).await;
    world.seal().await;
    // One event has its number, another one none, when the user is erased; SQLite's writer gives each its number at once.
    ann.challenge(json!({"client": client})).await;
    bank.delete(&ann.path("")).await.is(204);
    assert_eq!(world.faults().await, [], "before the rest is sealed");
    world.seal().await;
    assert_eq!(world.faults().await, []);
    let told = events(&bank, "").await;
    let all = json!(told).to_string();
    assert!(!all.contains("ann") && !all.contains("192.0.2.77") && !all.contains("Ann's"), "{all}");
    let pseudonyms: std::collections::BTreeSet<_> =
        told.iter().filter_map(|e| e["user_id"].as_str()).filter(|u| *u != "bob").collect();
    assert_eq!(pseudonyms.len(), 1, "one pseudonym over all of it");
    assert!(pseudonyms.iter().all(|p| p.starts_with("erased_")));
    assert_eq!(told.iter().filter(|e| e["type"] == "user.erased").count(), 1);
    assert_eq!(events(&bank, "&user_id=ann").await.len(), 0);
    let salts = "select id from events where salt is not null and user_id like 'erased_%'";
    let nameless = if world.scratch.is_sqlite() { 1 } else { 2 };
    assert_eq!(
        world.scratch.texts(salts).await.len(),
        nameless,
        "those that never held a name: the erasure's own, and one that had no number"
    );
}

/// Two engines that seal at once, each believing that the other is gone, make one chain; no event is lost or told twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sealers_at_once_make_one_chain() {
    let Some(scratch) = crate::support::database::Scratch::postgres().await else { return };
    let world = World::start_on(scratch, |_| {}).await;
    let second = world.second().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    ann.enrol_totp().await;
    for _ in 0..10 {
        at_once(20, |_| {
            let ann = ann.clone();
            async move { ann.ask(json!({"action": "pay"})).await.is(201) }
        })
        .await;
        for n in 0..5 {
            ann.bank.user(&format!("u{n}")).begin_totp().await;
        }
        // The lease of either has run out.
        world.wait(11);
        at_once(6, |n| {
            let world = [Arc::clone(&world), Arc::clone(&second)][n % 2].clone();
            async move { world.seal_once().await }
        })
        .await;
    }
    world.wait(11);
    world.seal().await;
    assert_eq!(world.faults().await, []);
    let told = events(&bank, "").await;
    assert_eq!(told.len(), 2 + 2 + 10 * (20 + 5));
    let ids: std::collections::BTreeSet<_> = told.iter().map(|e| text(&e["id"])).collect();
    assert_eq!(ids.len(), told.len());
}

/// A message that is committed late, with an older time, is numbered when it is seen; nobody who reads by number misses it.
#[tokio::test]
async fn an_event_that_is_committed_late_gets_the_next_number() {
    let world = World::start().await;
    let bank = world.bank().await;
    bank.user("ann").begin_totp().await;
    world.seal().await;
    let late = format!(
        "insert into events (rp_id, id, at, kind, actor, outcome)
         select rp_id, 'evt_{:032x}', at - 60000, 'x.late', 'server', 'success' from events where sequence = 1",
        1
    );
    world.scratch.execute(&late).await;
    world.seal().await;
    let page = bank.get("/v1/events?cursor=3").await.is(200);
    assert_eq!(page["data"][0]["type"], "x.late", "{page}");
    assert_eq!(page["data"][0]["sequence"], 4);
    assert_eq!(world.faults().await, []);
}

/// WA-07, WA-09, E-03: what a passkey or a sealed value shows of an attack has a reason of its own.
#[tokio::test]
async fn what_looks_like_an_attack_has_a_reason_of_its_own() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let device = Authenticator { backup_eligible: true, backed_up: false, counting: true, ..ann.device() };
    let mut passkey = ann.enrol_passkey_on(device).await;
    let app = ann.enrol_totp().await;
    let damage = format!("update factors set sealed = substr(sealed, 1, length(sealed) - 1) where id = '{}'", app.id);
    world.scratch.execute(&damage).await;
    for _ in 0..3 {
        ann.challenge(json!({})).await.verify(app.answer()).await.refused(422, "code_incorrect");
    }
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(passkey.answer(&challenge).await).await.is(200);
    passkey.device.credentials[0].backed_up = true;
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(passkey.answer(&challenge).await).await.is(200);
    passkey.device.credentials[0].counter = 0;
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(passkey.answer(&challenge).await).await.refused(422, "credential_invalid");
    let mut stranger = bank.user("bob").enrol_passkey().await;
    let challenge = ann.challenge(json!({})).await;
    let mut options = challenge.request_options().await;
    options["allowCredentials"] = json!([]);
    let credential = stranger.device.get(&options).expect("no objection");
    challenge.verify(json!({"type": "webauthn", "credential": credential})).await.refused(422, "credential_unknown");
    world.seal().await;
    let told = events(&bank, "&user_id=ann").await;
    let reasons = |kind: &str| -> Vec<_> {
        told.iter().filter(|e| e["type"] == kind).map(|e| e["reason"].as_str().unwrap_or("-")).collect()
    };
    assert_eq!(reasons("factor.unreadable"), ["seal_broken"], "once, however often it is met");
    assert_eq!(reasons("verification.succeeded"), ["-", "backup_state_changed"]);
    assert_eq!(
        reasons("verification.failed"),
        ["factor_unreadable", "factor_unreadable", "factor_unreadable", "counter_regressed", "credential_unknown"]
    );
    // A key that is nowhere in the ring.
    let unknown = format!(
        "update factors set sealed = {} where id = '{}'",
        if world.scratch.is_sqlite() {
            "x'010000000000000063' || substr(sealed, 10)"
        } else {
            "'\\x010000000000000063'::bytea || substr(sealed, 10)"
        },
        app.id
    );
    world.scratch.execute(&unknown).await;
    ann.challenge(json!({})).await.verify(app.answer()).await.refused(422, "code_incorrect");
    world.seal().await;
    let told = events(&bank, "&type=factor.unreadable").await;
    assert_eq!(told[1]["reason"], "key_unknown", "{told:?}");
}
