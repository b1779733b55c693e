//! How often each call asks PostgreSQL and waits: counted on the road between them, and compared with what `docs/scaling.md` says
//! (issue 3.5).

use std::collections::BTreeMap;

use countersign::config::Database;

use crate::support::cluster::Road;
use crate::support::database::Scratch;
use crate::support::{World, json};

/// How often each call is counted at most: the engine's own work goes by the same road, and so does a sign of life from a
/// connection that a busy machine left idle. The fewest are the call's own.
const TRIES: usize = 30;

/// What was counted.
struct Count<'r> {
    road: &'r Road,
    fewest: BTreeMap<&'static str, u64>,
}

impl Count<'_> {
    fn found(&self) -> BTreeMap<String, u64> {
        self.fewest.iter().map(|(what, trips)| ((*what).to_owned(), *trips)).collect()
    }

    async fn of<T>(&mut self, what: &'static str, call: impl Future<Output = T>) -> T {
        let before = self.road.round_trips();
        let answer = call.await;
        let trips = self.road.round_trips() - before;
        self.fewest.entry(what).and_modify(|fewest| *fewest = trips.min(*fewest)).or_insert(trips);
        answer
    }
}

/// The rows of the table: call and round trips.
fn documented() -> BTreeMap<String, u64> {
    let text = include_str!("../../docs/scaling.md");
    let table = text.lines().skip_while(|line| !line.starts_with("| call |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        (cells[1].to_owned(), cells[2].parse().expect("a number"))
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_makes_the_round_trips_that_are_documented() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let mut url: url::Url = scratch.url().parse().expect("an address");
    let road = Road::to(url.port().unwrap_or(5432)).await;
    url.set_port(Some(road.port)).expect("a port");
    url.set_query(Some("sslmode=disable"));
    let world = World::start_on(scratch, |c| c.storage.database = Database::Postgres(url.into())).await;
    let bank = world.bank().await;
    let mut count = Count { road: &road, fewest: BTreeMap::new() };
    // With the first call of a minute the use of the key is noted, by the same road.
    let half_a_minute = async || {
        world.wait(30);
        bank.get("/v1/users/nobody").await.is(200);
    };
    for n in 0..TRIES {
        let ann = bank.user(&format!("ann-{n}"));
        let begun = ann.begin(json!({"type": "totp"}));
        let factor = count.of("`POST …/factors` (TOTP)", begun).await.is(201)["id"].clone();
        ann.remove(factor.as_str().expect("an id")).await.is(204);
        let app = ann.begin_totp().await;
        let activated = ann.activate(&app.id, json!({"code": app.code()}));
        count.of("`POST …/activate` (TOTP)", activated).await.is(200);
        count.of("`GET /v1/users/{user_id}`", bank.get(&ann.path(""))).await.is(200);
        let mut passkey = ann.enrol_passkey().await;
        let codes = ann.recovery_codes().await;

        half_a_minute().await;
        let right = ann.ask(json!({"answer": app.now()}));
        count.of("`POST /v1/challenges` with `answer`", right).await.is(200);
        let wrong = ann.ask(json!({"answer": app.miss()}));
        count.of("the same with a wrong code", wrong).await.refused(422, "code_incorrect");
        let body = count.of("`POST /v1/challenges`", ann.ask(json!({}))).await.is(201);
        let path = format!("/v1/challenges/{}", body["id"].as_str().expect("an id"));
        count.of("`GET /v1/challenges/{id}`", bank.get(&path)).await.is(200);

        let challenge = ann.challenge(json!({})).await;
        half_a_minute().await;
        let verified = count.of("`POST …/verify` (TOTP)", challenge.verify(app.now())).await.is(200);
        let token = verified["session"]["token"].clone();
        let fresh = ann.ask(json!({"session_token": token}));
        count.of("`POST /v1/challenges` with `session_token`", fresh).await.is(200);
        let question = bank.introspect(json!({"token": token}));
        count.of("`POST /v1/sessions/introspect`", question).await;
        let question = bank.introspect(json!({"token": verified["session"]["jwt"]}));
        count.of("the same of a JWT", question).await;
        let question = bank.introspect(json!({"token": token, "consume": true}));
        count.of("the same with `consume`", question).await;

        let challenge = ann.challenge(json!({})).await;
        let prepared =
            count.of("`POST …/prepare` (passkey)", challenge.prepare(json!({"type": "webauthn"}))).await.is(200);
        let credential =
            passkey.device.get(&prepared["webauthn"]["request_options"]).expect("the browser has no objection");
        let answer = json!({"type": "webauthn", "credential": credential});
        let session = count.of("`POST …/verify` (passkey)", challenge.verify(answer)).await.is(200)["session"].clone();
        let path = format!("/v1/sessions/{}", session["id"].as_str().expect("an id"));
        count.of("`DELETE /v1/sessions/{id}`", bank.delete(&path)).await.is(204);

        let repeated = bank.server.with("idempotency-key", &format!("key-{n}"));
        let opened = repeated.post("/v1/challenges", json!({"user_id": ann.id}));
        let body = count.of("`POST /v1/challenges` with `Idempotency-Key`", opened).await.is(201);
        let path = format!("/v1/challenges/{}/prepare", body["id"].as_str().expect("an id"));
        let prepared = repeated.post(&path, json!({"type": "webauthn"}));
        count.of("`POST …/prepare` (passkey) with `Idempotency-Key`", prepared).await.is(200);

        let challenge = ann.challenge(json!({})).await;
        let answer = json!({"type": "recovery_code", "code": codes[0]});
        count.of("`POST …/verify` (recovery code)", challenge.verify(answer)).await.is(200);

        let challenge = ann.challenge(json!({})).await;
        half_a_minute().await;
        let browser = challenge.browser();
        let shown = count.of("`GET /v1/challenges/{id}` by client token", browser.get(&challenge.path(""))).await;
        shown.is(200);
        let path = challenge.path("/verify");
        let verified = browser.post(&path, app.now());
        let code = count.of("`POST …/verify` by client token", verified).await.is(200)["code"].clone();
        let wrong = challenge.exchange(json!({"code": "made-up"}));
        count.of("`POST …/exchange` with a wrong code", wrong).await.refused(422, "code_incorrect");
        let exchanged = challenge.exchange(json!({"code": code}));
        count.of("`POST …/exchange`", exchanged).await.is(200);
        count.of("`POST …/cancel`", ann.challenge(json!({})).await.cancel()).await.is(200);
        if count.found() == documented() {
            break;
        }
    }
    assert_eq!(count.found(), documented());
}
