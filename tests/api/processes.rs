//! Several real `countersign serve` processes on one PostgreSQL: what one begins any other finishes, no limit is doubled, and
//! releases, roles and commands beside them behave (issue 3.2).

use std::sync::Arc;

use sqlx::{Connection, PgConnection};

use crate::support::child::{Ended, OWN, Place, Serve, run};
use crate::support::database::{Scratch, execute};
use crate::support::verbs::text;
use crate::support::{Answer, App, Bank, Stopwatch, User, World, at_once, json, one_wins};

const NODES: usize = 3;

/// The same relying party at each node; `None` where there is no server.
async fn banks() -> Option<[Bank; NODES]> {
    let world = World::process(Scratch::postgres().await?, &[]).await;
    let (second, third) = (world.second_process().await, world.second_process().await);
    let bank = world.bank().await;
    let at = |world: &Arc<World>| Bank { server: bank.server.at(world), ..bank.clone() };
    Some([at(&world), at(&second), at(&third)])
}

fn users(banks: &[Bank; NODES], id: &str) -> [User; NODES] {
    banks.each_ref().map(|bank| bank.user(id))
}

/// How many wrong codes may have been judged since then. Real time goes by: ten, and one more for each pause that ended meanwhile.
fn most_since(begun: Stopwatch) -> usize {
    let (mut most, mut pause, mut end) = (10, 30, 30);
    while begun.elapsed().as_secs() >= end {
        most += 1;
        pause *= 2;
        end += pause;
    }
    most
}

/// Guesses on, until the app is paused for long enough for whatever follows.
async fn is_paused_for_long(user: &User, app: &App) {
    loop {
        let answer = user.ask(json!({"answer": app.miss()})).await;
        if answer.code() == "code_incorrect" {
            continue;
        }
        let wait = answer.refused(429, "method_paused")["retry_after"].as_i64().expect("a number");
        if wait > 240 {
            break;
        }
        user.bank.world.wait(wait);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ceremony_is_finished_on_another_node() {
    let Some(banks) = banks().await else { return };
    let [ann, ben, cal] = users(&banks, "ann");
    // Enrolments of each kind.
    let app = ann.begin_totp().await;
    ben.activate(&app.id, json!({"code": app.code()})).await.is(200);
    let (id, options) = ben.begin_passkey().await;
    let mut device = ann.device();
    let credential = device.create(&options).expect("no objection");
    cal.activate(&id, json!({"credential": credential})).await.is(200);
    let phone = cal.begin_phone("+14155550123").await;
    banks[0].world.wait(31);
    ann.bank.ask(&ann.path(&format!("/factors/{}/resend", phone.id))).await.is(200);
    ben.activate(&phone.id, json!({"code": phone.code()})).await.is(200);
    let made = ann.bank.post(&ann.path("/recovery-codes"), json!({"require_confirmation": true})).await.is(201);
    ben.bank.ask(&ben.path("/recovery-codes/confirm")).await.is(200);
    assert_eq!(cal.bank.get(&cal.path("/recovery-codes")).await.is(200)["status"], "active");
    // A challenge: created, prepared and answered on three.
    let challenge = ann.challenge(json!({})).await;
    let options = ben.bank.post(&challenge.path("/prepare"), json!({"type": "webauthn"})).await.is(200);
    let credential = device.get(&options["webauthn"]["request_options"]).expect("no objection");
    let answer = json!({"type": "webauthn", "credential": credential});
    let session = cal.bank.post(&challenge.path("/verify"), answer.clone()).await.is(200)["session"].clone();
    ann.bank.post(&challenge.path("/verify"), answer).await.refused(409, "challenge_not_pending");
    banks[0].world.wait(600);
    let challenge = ben.challenge(json!({})).await;
    cal.bank.post(&challenge.path("/prepare"), json!({"type": "sms"})).await.is(200);
    ann.bank.post(&challenge.path("/verify"), phone.answer()).await.is(200);
    let redeem = json!({"type": "recovery_code", "code": made["codes"][0]});
    let challenge = cal.challenge(json!({})).await;
    ann.bank.post(&challenge.path("/verify"), redeem.clone()).await.is(200);
    ben.ask(json!({"answer": redeem})).await.refused(422, "code_incorrect");
    // A browser's answer on one, the exchange on another, once.
    let challenge = ann.challenge(json!({})).await;
    let browser = challenge.browser().at(&ben.bank.world);
    let code = browser.post(&challenge.path("/verify"), app.answer()).await.is(200)["code"].clone();
    let exchange = json!({"code": code});
    let exchanged = cal.bank.post(&challenge.path("/exchange"), exchange.clone()).await.is(200)["session"].clone();
    ann.bank.post(&challenge.path("/exchange"), exchange).await.refused(422, "code_reused");
    // Sessions: asked, consumed and revoked anywhere.
    assert!(!ann.bank.is_active(&session["token"]).await, "its ten minutes are over");
    let consume = json!({"token": exchanged["token"], "consume": true});
    assert_eq!(ben.bank.introspect(consume.clone()).await["satisfied"], true);
    assert_eq!(ann.bank.introspect(consume).await["satisfied"], false);
    let session = cal.session(&app, json!({})).await;
    assert!(ann.bank.is_active(&session["jwt"]).await, "J-02: signed there, known here");
    ben.bank.delete(&format!("/v1/sessions/{}", text(&session["id"]))).await.is(204);
    assert!(!ann.bank.is_active(&session["jwt"]).await && !cal.bank.is_active(&session["token"]).await);
    // A factor that one removes is gone on all.
    ann.remove(&id).await.is(204);
    assert!(!cal.factors().await.iter().any(|f| f["id"] == json!(id)));
}

/// A link that is opened on one node leads through pages of others, and opens once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_opened_on_one_node_and_shown_by_another() {
    let Some(banks) = banks().await else { return };
    let [ann, ..] = users(&banks, "ann");
    ann.enrol_totp().await;
    let portal = json!({"user_id": "ann", "flow": "settings"});
    let portal = text(&ann.bank.post("/v1/portal-sessions", portal).await.is(201)["url"]);
    let challenge = text(&ann.challenge(json!({})).await.body["url"]);
    for (url, says) in [(portal, "Authenticator app"), (challenge, "authenticator app")] {
        let url: url::Url = url.parse().expect("an address");
        let (_, token) = url.query_pairs().find(|(name, _)| name == "token").expect("a link token");
        let form = [("token", token.to_string())];
        let visitor = || reqwest::Client::builder().tls_certs_only([]).cookie_store(true).build().expect("a client");
        let at = |node: usize| banks[node].world.url(url.path());
        // A looker at one node, the opening at the second, the page at the third.
        let (first, other) = (visitor(), visitor());
        let landing =
            first.get(format!("{}?{}", at(0), url.query().unwrap_or_default())).send().await.expect("an answer");
        assert_eq!(landing.status(), 200);
        let opened = first.post(at(1)).form(&form).send().await.expect("an answer");
        assert_eq!(opened.status(), 200, "{}", opened.url());
        let page = first.get(at(2)).send().await.expect("an answer").text().await.expect("a page");
        assert!(page.contains(says), "{page}");
        other.get(format!("{}?{}", at(2), url.query().unwrap_or_default())).send().await.expect("an answer");
        assert_eq!(other.post(at(2)).form(&form).send().await.expect("an answer").status(), 404);
    }
}

/// Issue 3.2; standards X-08, 3.3, 3.5: fifty copies over three nodes, one success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_copies_over_three_nodes_one_succeeds() {
    let Some(banks) = banks().await else { return };
    let [ann, ..] = users(&banks, "ann");
    let app = ann.enrol_totp().await;
    let mut passkey = ann.enrol_passkey().await;
    let code = ann.recovery_codes().await.remove(0);
    let late = ["challenge_not_pending", "code_reused", "code_incorrect", "credential_invalid", "rate_limited"];
    let spread = |path: String, body: serde_json::Value| {
        let banks = banks.clone();
        async move {
            at_once(50, |n| {
                let (bank, path, body) = (banks[n % NODES].clone(), path.clone(), body.clone());
                async move { bank.post(&path, body).await }
            })
            .await
        }
    };
    // One code, on one challenge and by creation.
    let challenge = ann.challenge(json!({})).await;
    one_wins(&spread(challenge.path("/verify"), app.answer()).await, &late);
    let create = json!({"user_id": "ann", "answer": app.answer()});
    one_wins(&spread("/v1/challenges".to_owned(), create).await, &late);
    // One assertion, one recovery code, one exchange, one consumption.
    let challenge = ann.challenge(json!({})).await;
    let answer = passkey.answer(&challenge).await;
    one_wins(&spread(challenge.path("/verify"), answer).await, &late);
    let redeem = json!({"user_id": "ann", "answer": {"type": "recovery_code", "code": code}});
    one_wins(&spread("/v1/challenges".to_owned(), redeem).await, &late);
    let challenge = ann.challenge(json!({})).await;
    let code = challenge.browser().post(&challenge.path("/verify"), app.answer()).await.is(200)["code"].clone();
    let answers = spread(challenge.path("/exchange"), json!({"code": code})).await;
    one_wins(&answers, &late);
    let session = answers.iter().find(|a| a.is_success()).expect("one")["session"].clone();
    let consume = json!({"token": session["token"], "consume": true});
    let answers = spread("/v1/sessions/introspect".to_owned(), consume).await;
    assert_eq!(answers.iter().filter(|a| a["satisfied"] == true).count(), 1);
    // One activation.
    let app = ann.begin_totp().await;
    let path = ann.path(&format!("/factors/{}/activate", app.id));
    one_wins(&spread(path, json!({"code": app.code()})).await, &["factor_not_pending", "code_reused"]);
}

/// X-08, P-14: pauses and limits on sending add up over nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_limit_is_multiplied_by_the_number_of_nodes() {
    let Some(banks) = banks().await else { return };
    let [ann, ben, cal] = users(&banks, "ann");
    let app = ann.enrol_totp().await;
    let mut challenges = Vec::new();
    for _ in 0..30 {
        challenges.push(ann.challenge(json!({})).await);
    }
    let begun = Stopwatch::start();
    let answers = at_once(120, |n| {
        let (bank, path, answer) = (banks[n % NODES].clone(), challenges[n % 30].path("/verify"), app.miss());
        async move { bank.post(&path, answer).await }
    })
    .await;
    let verdicts = answers.iter().filter(|a| a.code() == "code_incorrect").count();
    assert!((1..=most_since(begun)).contains(&verdicts), "{verdicts}");
    is_paused_for_long(&cal, &app).await;
    ben.challenge(json!({})).await.verify(app.now()).await.refused(429, "method_paused");

    let [dan, ..] = users(&banks, "dan");
    let phone = dan.enrol_phone("+14155550199").await;
    banks[0].world.wait(86_400);
    let mut challenges = Vec::new();
    for _ in 0..30 {
        challenges.push(dan.challenge(json!({})).await);
    }
    let answers = at_once(30, |n| {
        let (bank, path) = (banks[n % NODES].clone(), challenges[n].path("/prepare"));
        async move { bank.post(&path, json!({"type": "sms"})).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|a| a.is_success()).count(), 3, "three to a number in ten minutes");
    assert!(answers.iter().filter(|a| !a.is_success()).all(|a| a.code() == "send_limited"));
    let to_it = banks[0].world.gateway.texts().iter().filter(|t| t.to == phone.number).count();
    assert_eq!(to_it, 1 + 3);
}

/// 3.1, 3.3; issue 4: a thousand wrong codes over two hundred challenges and three nodes at once get ten verdicts. No
/// restart and no kill -9 changes that; a passkey, the owner's known device and a support unlock pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_guesses_over_three_nodes_get_ten_verdicts() {
    let Some(banks) = banks().await else { return };
    let [ann, ben, cal] = users(&banks, "ann");
    let world = &banks[0].world;
    let app = ann.enrol_totp().await;
    let mut passkey = ann.enrol_passkey().await;
    let at_home = |answer| json!({"client": {"device": "home"}, "answer": answer});
    ben.ask(at_home(app.answer())).await.is(200);
    let mut challenges = Vec::new();
    for n in 0..200 {
        challenges.push([&ann, &ben, &cal][n % NODES].challenge(json!({})).await);
    }
    let begun = Stopwatch::start();
    let answers = at_once(1000, |n| {
        let (bank, path, answer) = (banks[n % NODES].clone(), challenges[n % 200].path("/verify"), app.miss());
        async move { bank.post(&path, answer).await }
    })
    .await;
    let most = most_since(begun);
    let verdicts = answers.iter().filter(|a| a.code() == "code_incorrect").count();
    assert!((1..=most).contains(&verdicts), "{verdicts}");
    for answer in &answers {
        let known = ["code_incorrect", "method_paused", "challenge_not_pending", "rate_limited", "store_unavailable"];
        assert!(known.contains(&answer.code()), "{} {}", answer.status, answer.body);
    }
    is_paused_for_long(&cal, &app).await;
    let refused = |answer: Answer| answer.refused(429, "method_paused");
    refused(ann.ask(json!({"answer": app.answer()})).await);
    ann.bank.world.kill();
    ann.bank.world.start_again().await;
    ben.bank.world.take_process().terminate();
    ben.bank.world.start_again().await;
    for user in [&ann, &ben, &cal] {
        refused(user.ask(json!({"answer": app.now()})).await);
    }
    let challenge = ann.challenge(json!({})).await;
    let answer = passkey.answer(&challenge).await;
    challenge.verify(answer).await.is(200);
    cal.ask(at_home(app.now())).await.is(200);
    refused(cal.ask(json!({"answer": app.now()})).await);
    assert_eq!(world.command(&["user", "unlock", "--rp", "Bank", "ann"]).status, Some(0));
    cal.ask(json!({"answer": app.answer()})).await.is(200);
}

/// K-03: a key that a command makes or ends counts at once on every node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_holds_at_once_on_every_node() {
    let Some(banks) = banks().await else { return };
    let made = banks[0].world.command(&["key", "create", "--rp", "Bank", "--json"]);
    let key: serde_json::Value = serde_json::from_str(&made.stdout).expect("JSON");
    let callers = banks.each_ref().map(|bank| bank.world.caller(&text(&key["secret"])));
    for caller in &callers {
        caller.get("/v1/users/ann").await.is(200);
    }
    assert_eq!(banks[0].world.command(&["key", "revoke", &text(&key["id"])]).status, Some(0));
    for caller in &callers {
        caller.get("/v1/users/ann").await.refused(401, "api_key_invalid");
    }
}

/// The node that a person was on is killed in the middle; another goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_takes_nothing_with_it() {
    let Some(banks) = banks().await else { return };
    let [ann, ben, _] = users(&banks, "ann");
    let mut passkey = ann.enrol_passkey().await;
    let challenge = ann.challenge(json!({})).await;
    let answer = passkey.answer(&challenge).await;
    ann.bank.world.kill();
    ben.bank.post(&challenge.path("/verify"), answer).await.is(200);
}

// --- schema and releases ---

fn refused(ended: &Ended, word: &str) {
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(word), "{}", ended.stderr);
}

/// Two processes that migrate at once: one does, the others wait, and all succeed.
#[tokio::test]
async fn processes_that_migrate_at_once_all_succeed() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let url = scratch.url();
    let migrate = || {
        let url = url.clone();
        std::thread::spawn(move || run(&["migrate"], &[("COUNTERSIGN_DATABASE_URL", url.as_str())]))
    };
    let threads: Vec<_> = (0..4).map(|_| migrate()).collect();
    for thread in threads {
        let ended = thread.join().expect("no panic");
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    }
    let mut conn = PgConnection::connect(&url).await.expect("it opens");
    let twice: i64 = sqlx::query_scalar("select count(*) - count(distinct version) from _sqlx_migrations")
        .fetch_one(&mut conn)
        .await
        .expect("a number");
    assert_eq!(twice, 0);
}

/// Releases run side by side as long as the schema allows: a newer schema that this release may run on is no obstacle, an
/// older one and one that names a newer release are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_runs_on_a_newer_schema_until_that_names_a_newer_release() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let url = scratch.url();
    let setting = [("COUNTERSIGN_DATABASE_URL", url.as_str())];
    refused(&run(&["rp", "list"], &setting), "run countersign migrate");
    let world = World::process(scratch, &[]).await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    // The next release has expanded the schema.
    execute(
        &url,
        "alter table factors add column novelty text; create table novelties (id text primary key);
         insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9000, 'next release', true, '', 0)",
    )
    .await;
    ann.session(&app, json!({})).await;
    bank.get("/readyz").await.is(200);
    let beside = world.second_process().await;
    let there = Bank { server: bank.server.at(&beside), ..bank.clone() };
    there.user("ann").session(&app, json!({})).await;
    // A later one still has contracted it.
    execute(&url, "update meta set value = '99.0.0' where name = 'oldest_release'").await;
    refused(&run(&["rp", "list"], &setting), "needs countersign 99.0.0 or newer");
    beside.take_process().terminate();
    refused(&beside.command(&["serve"]), "needs countersign 99.0.0 or newer");
}

/// `serve` needs no right to change the schema, and `migrate` does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_only_read_and_write_rows_serves() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let (_, name) = scratch.server();
    let role = format!("{name}_app");
    scratch.store().await.close().await;
    execute(
        &scratch.url(),
        &format!(
            "create role {role} login; grant usage on schema public to {role}; revoke create on schema public from public;
             grant select, insert, update, delete on all tables in schema public to {role}"
        ),
    )
    .await;
    let mut url: url::Url = scratch.url().parse().expect("an address");
    url.set_username(&role).expect("a user");
    let world = World::process(scratch, &[("COUNTERSIGN_DATABASE_URL", url.as_str())]).await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    ann.session(&app, json!({})).await;
    ann.enrol_phone("+14155550123").await;
    ann.recovery_codes().await;
    bank.delete(&ann.path("")).await.is(204);
    // Up to date, so there is nothing to change.
    assert_eq!(world.command(&["migrate"]).status, Some(0));
    assert_eq!(world.command(&["doctor"]).status, Some(0));
    // As where a later migrate made a table, and nobody granted it.
    execute(&world.scratch.url(), &format!("revoke insert on webhook_endpoints from {role}")).await;
    let told = world.command(&["doctor"]);
    assert_eq!(told.status, Some(1));
    assert!(told.stdout.contains("rows of webhook_endpoints"), "{}", told.stdout);
    execute(&world.scratch.url(), "delete from _sqlx_migrations").await;
    assert_eq!(world.command(&["migrate"]).status, Some(1));
}

/// Each connection is an open file, of which many systems allow a process 1,024 unless it asks for more.
#[tokio::test]
async fn a_node_asks_for_as_many_open_files_as_it_may_need() {
    let place = Place::on(Scratch::sqlite());
    let script = ["-c", "ulimit -Sn 256; exec \"$0\" serve", OWN];
    let serve = Serve::spawn_of("/bin/sh", &script, place.port, &place.pairs());
    serve.ready().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", serve.id())).expect("it runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let number = |word: &str| word.parse().unwrap_or(u64::MAX);
    let [soft, hard] = [3, 4].map(|n| number(files.split_whitespace().nth(n).expect("a limit")));
    assert_eq!(soft, hard.min(16_384), "{files}");
}

#[tokio::test]
async fn serve_says_what_to_do_where_there_is_no_schema() {
    let place = Place::new().await;
    if place.scratch.is_sqlite() {
        return;
    }
    refused(&place.run(&["serve"]), "run countersign migrate, or start with --migrate");
}
