//! A database that is away, cut off, restarted, read-only, full or narrow, and an engine that is told to end: nothing wrong is
//! accepted, callers are told plainly, and it serves again by itself (issue 3.3).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use countersign::store::{Limits, Store};
use sqlx::{Connection, PgConnection};

use crate::support::child::{Place, Serve, client};
use crate::support::cluster::{Cluster, Road, State};
use crate::support::database::{Scratch, execute};
use crate::support::gateway::Mood;
use crate::support::load::Load;
use crate::support::{Stopwatch, World, at_once, json, until};

/// A process whose road to its database the test holds; `None` where there is no server.
async fn on_a_road() -> Option<(Arc<World>, Road)> {
    let scratch = Scratch::postgres().await?;
    let mut url: url::Url = scratch.url().parse().expect("an address");
    let road = Road::to(url.port().unwrap_or(5432)).await;
    url.set_port(Some(road.port)).expect("a port");
    Some((World::process(scratch, &[("COUNTERSIGN_DATABASE_URL", url.as_str())]).await, road))
}

// --- a database that is away ---

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_without_its_database_lives_says_so_and_serves_as_soon_as_it_is_there() {
    let Some(scratch) = Scratch::postgres().await else { return };
    scratch.store().await.close().await;
    let mut url: url::Url = scratch.url().parse().expect("an address");
    let road = Road::to(url.port().unwrap_or(5432)).await;
    road.is(State::Cut);
    url.set_port(Some(road.port)).expect("a port");
    url.set_password(Some("a-word-for-nobody")).expect("a password");
    let mut place = Place::new().await;
    place.set("COUNTERSIGN_DATABASE_URL", url.as_str());
    let start = || {
        let pairs: Vec<_> = place.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        Serve::spawn(place.port, &pairs)
    };
    let serve = start();
    let get = |path: &'static str| client().get(serve.url(path)).send();
    let started = Stopwatch::start();
    while get("/livez").await.map_or(0, |a| a.status().as_u16()) != 200 {
        assert!(started.elapsed().as_secs() < 60, "it does not live: {}", serve.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for path in ["/readyz", "/v1/users/ann", "/portal", "/nowhere"] {
        let answer = client().get(serve.url(path)).header("request-id", "mine-1").send().await.expect("an answer");
        assert_eq!(answer.status(), 503, "{path}");
        assert!(answer.headers().contains_key("retry-after"), "{path}");
        for (name, value) in [("request-id", "mine-1"), ("cache-control", "no-store")] {
            assert_eq!(answer.headers().get(name).map(|v| v.as_bytes()), Some(value.as_bytes()), "{path}");
        }
        let problem: serde_json::Value = answer.json().await.expect("a problem");
        assert_eq!(problem["code"], "store_unavailable", "{path}");
    }
    until(|| serve.stderr().matches("trying again").count() >= 4).await;
    let log = serve.stderr();
    assert!(log.contains("COUNTERSIGN_DATABASE_URL: the database does not answer; trying again"), "{log}");
    let tries = log.matches("trying again").count();
    // It waits half a second, one, and then two each time.
    let most = 2 + started.elapsed().as_secs().div_ceil(2) as usize;
    assert!(tries <= most, "it waits longer each time: {log}");
    assert!(!log.contains("a-word-for-nobody"), "{log}");
    road.is(State::Open);
    let back = Stopwatch::start();
    serve.ready().await;
    assert!(back.elapsed().as_secs() < 10, "{:?}", back.elapsed());
    assert_eq!(serve.terminate().0, Some(0));
    // It ends when it is told to, though it still waits.
    road.is(State::Cut);
    let waiting = start();
    until(|| waiting.stderr().contains("trying again")).await;
    assert_eq!(waiting.terminate().0, Some(0));
}

/// What no waiting mends ends the start, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_refuses_is_not_waited_for() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let place = Place::on(scratch);
    let good: url::Url = place.scratch.url().parse().expect("an address");
    let (mut nobody, mut nowhere, mut odd) = (good.clone(), good.clone(), good.clone());
    nobody.set_username("nobody_of_that_name").expect("a name");
    nowhere.set_path("/no_database_of_that_name");
    odd.set_query(Some("sslmode=perhaps"));
    for url in [nobody, nowhere, odd] {
        let mut place = Place { scratch: Scratch::sqlite(), port: place.port, environment: place.environment.clone() };
        place.set("COUNTERSIGN_DATABASE_URL", url.as_str());
        let ended = place.run(&["serve"]);
        assert_eq!(ended.status, Some(1), "{url}: {}", ended.stderr);
        assert!(ended.stderr.contains("COUNTERSIGN_DATABASE_URL: the database refuses"), "{url}: {}", ended.stderr);
    }
}

/// A database that goes away between its opening and the reading of the keys is waited for like one that was never there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_during_the_start_is_tried_again() {
    let Some(scratch) = Scratch::postgres().await else { return };
    scratch.store().await.close().await;
    let mut url: url::Url = scratch.url().parse().expect("an address");
    let road = Road::to(url.port().unwrap_or(5432)).await;
    url.set_port(Some(road.port)).expect("a port");
    let mut place = Place::on(scratch);
    place.set("COUNTERSIGN_DATABASE_URL", url.as_str());
    place.set("COUNTERSIGN_STATEMENT_TIMEOUT", "60s");
    // Whoever reads the keys is held there.
    let mut holder = PgConnection::connect(&place.scratch.url()).await.expect("it opens");
    let hold = "begin; lock table key_ring in access exclusive mode";
    sqlx::raw_sql(hold).execute(&mut holder).await.expect("it is held");
    let serve = Serve::spawn(place.port, &place.pairs());
    let held = "select count(*) from pg_locks where relation = 'key_ring'::regclass and not granted";
    let started = Stopwatch::start();
    while place.scratch.number(held).await == 0 {
        assert!(started.elapsed().as_secs() < 60, "it never comes to its keys: {}", serve.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!serve.stderr().contains("trying again"), "it has opened its database: {}", serve.stderr());
    road.is(State::Cut);
    until(|| serve.stderr().contains("trying again")).await;
    sqlx::raw_sql("rollback").execute(&mut holder).await.expect("it is let go");
    road.is(State::Open);
    serve.ready().await;
    assert_eq!(serve.terminate().0, Some(0));
}

/// Cut off under load for so many seconds, and ready again within five of its return.
async fn is_cut_off(how: State, seconds: u64) {
    let Some((world, road)) = on_a_road().await else { return };
    let bank = world.bank().await;
    let load = Load::start(&bank, 6).await;
    load.goes_on().await;
    road.is(how);
    load.suffers().await;
    assert_ne!(bank.get("/readyz").await.status, 200);
    assert_eq!(bank.get("/livez").await.status, 200);
    // Whoever was answered before the cut has counted it.
    load.settles().await;
    let right = load.right();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(load.right(), right, "nobody is accepted meanwhile");
    road.is(State::Open);
    load.is_back_within(5).await;
    load.goes_on().await;
    let counts = load.end().await;
    println!("{how:?} for {seconds} s: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_are_made_anew() {
    is_cut_off(State::Cut, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything_is_no_trap() {
    is_cut_off(State::Silent, 3).await;
}

/// The same for thirty seconds; `cargo test --test api thirty_seconds -- --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute and more"]
async fn thirty_seconds_without_the_database() {
    is_cut_off(State::Cut, 30).await;
    is_cut_off(State::Silent, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_or_crashes_loses_nothing_that_was_answered() {
    let Some(cluster) = Cluster::start("-c max_connections=50") else { return };
    cluster.up();
    let world = World::process(Scratch::on(&cluster.url(cluster.port)), &[]).await;
    let bank = world.bank().await;
    let load = Load::start(&bank, 6).await;
    for how in ["fast", "immediate"] {
        load.goes_on().await;
        cluster.down(how);
        load.suffers().await;
        cluster.up();
        load.is_back_within(5).await;
    }
    load.goes_on().await;
    load.end().await;
}

/// A server that has no place left for the moment is asked again for as long as a caller waits for a connection.
#[tokio::test]
async fn a_server_without_room_is_waited_for() {
    let Some(cluster) = Cluster::start("-c max_connections=5 -c superuser_reserved_connections=0 -c max_wal_senders=0")
    else {
        return;
    };
    cluster.up();
    let url = cluster.url(cluster.port);
    let limits = Limits { acquire: Duration::from_secs(60), ..Limits::from(2) };
    let store = Store::postgres(&url, limits).await.expect("there is room");
    let mut guests = Vec::new();
    let full = loop {
        match PgConnection::connect(&url).await {
            Ok(guest) => guests.push(guest),
            Err(error) => break error,
        }
    };
    assert_eq!(full.as_database_error().and_then(|e| e.code()).as_deref(), Some("53300"), "{full}");
    let asking = tokio::spawn({
        let store = store.clone();
        async move { store.oldest_release().await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asking.is_finished());
    guests.pop().expect("a guest").close().await.expect("it leaves");
    assert_eq!(asking.await.expect("it ends").expect("there is room again"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_kills_are_a_short_trouble() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let (server, name) = scratch.server();
    let world = World::process(scratch, &[]).await;
    let bank = world.bank().await;
    let load = Load::start(&bank, 6).await;
    for _ in 0..8 {
        load.goes_on().await;
        let kill = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = '{name}' and application_name = 'countersign'"
        );
        execute(&server, &kill).await;
        load.is_back_within(5).await;
    }
    load.end().await;
}

///
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_may_not_be_written_accepts_nothing() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let (server, name) = scratch.server();
    let world = World::process(scratch, &[]).await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let codes = ann.recovery_codes().await;
    let challenge = ann.challenge(json!({})).await;
    let only_read = |on: &'static str| {
        let text = format!(
            "alter database {name} set default_transaction_read_only = {on};
             select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
        );
        let server = server.clone();
        async move { execute(&server, &text).await }
    };
    only_read("on").await;
    let answer = app.answer();
    let redeem = json!({"answer": {"type": "recovery_code", "code": codes[0]}});
    // The first may still meet a connection that was killed.
    for _ in 0..3 {
        challenge.verify(answer.clone()).await.refused(503, "store_unavailable");
        ann.ask(redeem.clone()).await.refused(503, "store_unavailable");
        ann.begin(json!({"type": "totp"})).await.refused(503, "store_unavailable");
    }
    assert_eq!(challenge.status().await, "pending");
    assert_eq!(bank.get(&ann.path("/sessions")).await.is(200)["data"], json!([]));
    only_read("off").await;
    while bank.get("/readyz").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nothing was used up by what was not answered.
    challenge.verify(answer).await.is(200);
    ann.ask(redeem.clone()).await.is(200);
    ann.ask(redeem).await.refused(422, "code_incorrect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_is_enough() {
    for scratch in Scratch::all().await {
        let settings = [("COUNTERSIGN_POOL", "1"), ("COUNTERSIGN_ACQUIRE_TIMEOUT", "60s")];
        let world = World::process(scratch, &settings).await;
        let bank = world.bank().await;
        let mut people = Vec::new();
        for n in 0..20 {
            let user = bank.user(&format!("user-{n}"));
            let app = user.begin_totp().await;
            user.activate(&app.id, json!({"code": app.code()})).await.is(200);
            people.push((user, app));
        }
        world.wait(30);
        // One answer of each, though another step may begin meanwhile.
        let people: Vec<_> = people.into_iter().map(|(user, app)| (user, app.now())).collect();
        let answers = at_once(100, |n| {
            let (user, answer) = people[n % 20].clone();
            async move { user.ask(json!({"answer": answer})).await }
        })
        .await;
        assert_eq!(answers.iter().filter(|a| a.is_success()).count(), 20);
        assert!(answers.iter().all(|a| a.status < 500), "{answers:?}");
    }
}

/// Nobody waits behind a lock for longer than the settings say, and what is given up was not done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_costs_a_second_and_nothing_else() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let url = scratch.url();
    let world = World::process(scratch, &[("COUNTERSIGN_STATEMENT_TIMEOUT", "2s"), ("COUNTERSIGN_POOL", "2")]).await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let mut holder = PgConnection::connect(&url).await.expect("it opens");
    sqlx::raw_sql("begin; lock table sessions in access exclusive mode")
        .execute(&mut holder)
        .await
        .expect("it is held");
    let (answer, started) = (app.answer(), Stopwatch::start());
    let answers = at_once(2, |_| {
        let (ann, answer) = (ann.clone(), answer.clone());
        async move { ann.ask(json!({"answer": answer})).await }
    })
    .await;
    answers.into_iter().for_each(|a| drop(a.refused(503, "store_unavailable")));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    sqlx::raw_sql("rollback").execute(&mut holder).await.expect("it is let go");
    ann.ask(json!({"answer": answer})).await.is(200);
}

/// A transaction that does not serialise is run again three times, and what still fails is told as an outage: nothing of it
/// stands.
#[tokio::test]
async fn a_serialisation_failure_is_retried_three_times_and_never_surfaces_as_a_verdict() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let url = scratch.url();
    let world = World::start_on(scratch, |_| {}).await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    // A sequence counts what is rolled back, too.
    let fails = |times: i64, code: &str| {
        let text = format!(
            "drop sequence if exists tries; create sequence tries;
             create or replace function fail() returns trigger language plpgsql as $$ begin
               if nextval('tries') <= {times} then raise exception 'fault' using errcode = '{code}'; end if;
               return new;
             end $$;
             create or replace trigger fault before insert on events for each row execute function fail()"
        );
        let url = url.clone();
        async move { execute(&url, &text).await }
    };
    let tries = || async {
        let mut conn = PgConnection::connect(&url).await.expect("it opens");
        sqlx::query_scalar::<_, i64>("select last_value from tries").fetch_one(&mut conn).await.expect("a number")
    };
    for code in ["40001", "40P01"] {
        fails(3, code).await;
        assert_eq!(ann.ask(json!({"answer": app.answer()})).await.is(200)["status"], "approved");
        assert_eq!(tries().await, 4);
        fails(3, code).await;
        ann.recovery_codes().await;
        fails(4, code).await;
        let answer = app.answer();
        ann.ask(json!({"answer": answer})).await.refused(503, "store_unavailable");
        assert_eq!(tries().await, 4, "three times again, and no more");
        ann.ask(json!({"answer": answer})).await.is(200);
        ann.ask(json!({"answer": answer})).await.refused(422, "code_reused");
        // A wrong one is no less wrong, and is counted once.
        fails(2, code).await;
        let challenge = ann.challenge(json!({})).await;
        fails(2, code).await;
        assert_eq!(challenge.verify(app.miss()).await.refused(422, "code_incorrect")["attempts_left"], 4);
        fails(0, code).await;
    }
}

/// Issue 3.2: TLS to PostgreSQL as the URL's `sslmode` demands it.
#[tokio::test]
async fn postgresql_is_reached_by_tls_and_its_name_is_checked_where_the_url_says_so() {
    let Some(cluster) = Cluster::start("-c ssl=on") else { return };
    let Some(authority) = cluster.certify() else {
        println!("not tried: there is no openssl");
        return;
    };
    cluster.up();
    let url = cluster.url(cluster.port);
    let mut place = Place::new().await;
    let mut migrates = |parameters: &str| {
        place.set("COUNTERSIGN_DATABASE_URL", &format!("{url}?{parameters}"));
        place.run(&["migrate"])
    };
    for good in ["sslmode=require".to_owned(), format!("sslmode=verify-full&sslrootcert={authority}")] {
        let ended = migrates(&good);
        assert_eq!(ended.status, Some(0), "{good}: {}", ended.stderr);
    }
    let stranger = Cluster::make("");
    let other = stranger.certify().expect("as before");
    for bad in ["sslmode=disable".to_owned(), format!("sslmode=verify-full&sslrootcert={other}")] {
        let ended = migrates(&bad);
        assert_eq!(ended.status, Some(1), "{bad}");
        assert!(ended.stderr.contains("COUNTERSIGN_DATABASE_URL"), "{}", ended.stderr);
    }
    let named_else = url.replace("127.0.0.1", "localhost");
    place.set("COUNTERSIGN_DATABASE_URL", &format!("{named_else}?sslmode=verify-full&sslrootcert={authority}"));
    assert_eq!(place.run(&["migrate"]).status, Some(1), "the certificate is for another name");
    place.set("COUNTERSIGN_DATABASE_URL", &format!("{url}?sslmode=verify-full&sslrootcert={authority}"));
    let serve = place.serve().await;
    assert_eq!(place.bank().get("/v1/users/ann").await.0, 200);
    assert_eq!(serve.terminate().0, Some(0));
}

// --- SQLite ---

/// Issue 3.4: two hundred people at once, twenty times each; never "database is locked".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_people_verify_twenty_times_at_once_on_sqlite() {
    let world = World::start_on(Scratch::sqlite(), |_| {}).await;
    let bank = world.bank().await;
    let mut people = Vec::new();
    for n in 0..200 {
        let user = bank.user(&format!("user-{n}"));
        let app = user.begin_totp().await;
        user.activate(&app.id, json!({"code": app.code()})).await.is(200);
        people.push((user, app));
    }
    for _ in 0..20 {
        world.wait(30);
        let answers = at_once(200, |n| {
            let (user, app) = people[n].clone();
            async move { user.ask(json!({"answer": app.now()})).await }
        })
        .await;
        for answer in answers {
            assert_eq!(answer.is(200)["status"], "approved");
        }
    }
}

/// A small filesystem of its own, which only root may make.
struct Small(std::path::PathBuf);

impl Small {
    fn make() -> Option<Small> {
        let place = std::env::temp_dir().join(format!("countersign-small-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "none"]).arg(&place).output();
        if mounted.is_ok_and(|m| m.status.success()) {
            return Some(Small(place));
        }
        println!("not tried: only root may make a small filesystem");
        let _ = std::fs::remove_dir(&place);
        None
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0; 1]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_accepts_nothing_and_works_again_when_there_is_room() {
    let Some(small) = Small::make() else { return };
    let world = World::process(Scratch::sqlite_in(&small.0), &[]).await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    ann.enrol_totp().await;
    let codes = ann.recovery_codes().await;
    let load = Load::start(&bank, 4).await;
    for code in codes.iter().take(3) {
        load.goes_on().await;
        small.fill();
        load.suffers().await;
        let redeem = json!({"answer": {"type": "recovery_code", "code": code}});
        let redeemed = ann.ask(redeem.clone()).await;
        let taken = match redeemed.status {
            // A last page was free.
            200 => true,
            _ => {
                redeemed.refused(503, "store_unavailable");
                false
            }
        };
        assert_eq!(bank.get("/livez").await.status, 200);
        bank.get(&ann.path("/factors")).await.is(200);
        small.make_room();
        load.is_back_within(5).await;
        if !taken {
            ann.ask(redeem.clone()).await.is(200);
        }
        ann.ask(redeem).await.refused(422, "code_incorrect");
    }
    load.goes_on().await;
    load.end().await;
    // And what is on the disk reads, and tells of nothing that does not stand (L-05).
    world.kill();
    world.start_again().await;
    bank.get(&ann.path("/factors")).await.is(200);
    assert_eq!(world.scratch.number(WITHOUT_VERDICT).await, 0);
    let verified = world.command(&["audit", "verify"]);
    assert_eq!(verified.status, Some(0), "{}{}", verified.stdout, verified.stderr);
}

/// How many events tell of an approval whose session is not there.
const WITHOUT_VERDICT: &str = "select count(*) from events e where e.kind = 'verification.succeeded'
    and not exists (select 1 from sessions s where s.id = e.session_id)";

/// L-05, X-13: where the end of the audit chain cannot be read because the disk fails, SQLite ends the transaction in the middle of it.
/// Nothing is judged, no event outlives the verdict that it tells of, and once the disk reads again the chain is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_does_not_outlive_the_transaction_of_its_verdict() {
    let world = World::start_on(Scratch::sqlite(), |_| {}).await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    world.seal().await;
    // The end of the chain, written anew, is all that stands in the log, and the log is lost: whatever else is read or written
    // meets no fault.
    let log = world.scratch.folder().join("countersign.db-wal");
    let alone = "update chain_heads set sequence = sequence + 1; update chain_heads set sequence = sequence - 1";
    let mut turns = 0;
    let lost = loop {
        world.scratch.execute("pragma wal_checkpoint(truncate)").await;
        world.scratch.execute(alone).await;
        let bytes = std::fs::read(&log).expect("a log");
        // Nobody else has written meanwhile: a header, and a page for each of the two.
        if bytes.len() == 32 + 2 * (24 + 4096) {
            break bytes;
        }
        turns += 1;
        assert!(turns < 100, "{} bytes", bytes.len());
    };
    let file = std::fs::File::options().write(true).open(&log).expect("a log");
    file.set_len(0).expect("it is lost");
    challenge.verify(app.now()).await.refused(503, "store_unavailable");
    challenge.verify(app.miss()).await.refused(503, "store_unavailable");
    file.write_all_at(&lost, 0).expect("it is there again");
    let verdicts = "select kind from events where kind like 'verification.%'";
    assert_eq!(world.scratch.texts(verdicts).await, [""; 0]);
    challenge.verify(app.now()).await.is(200);
    world.seal().await;
    assert_eq!(world.scratch.texts(verdicts).await, ["verification.succeeded"]);
    assert_eq!(world.scratch.number(WITHOUT_VERDICT).await, 0);
    assert_eq!(world.faults().await, []);
}

// --- the end ---

/// SIGTERM: readiness fails first, requests under way finish, and neither a silent connection nor one that dawdles holds it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_fails_readiness_finishes_what_is_under_way_and_ends_whoever_holds_on() {
    let world = World::process(Scratch::new().await, &[("COUNTERSIGN_DRAIN", "5s")]).await;
    let bank = world.bank().await;
    world.gateway.is(Mood::Slow(2500));
    let serve = world.take_process();
    let connect = || TcpStream::connect(("127.0.0.1", serve.port)).expect("it listens");
    let _silent = connect();
    let mut slow = connect();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n").expect("it takes it");
    let dawdles = std::thread::spawn(move || {
        while slow.write_all(b"x: y\r\n").is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let ann = bank.user("ann");
    let asked = world.gateway.asked();
    let under_way = tokio::spawn(async move { ann.begin(json!({"type": "sms", "phone": "+14155550123"})).await });
    until(|| world.gateway.asked() > asked).await;
    let ready = serve.url("/readyz");
    let told = Stopwatch::start();
    let ended = tokio::task::spawn_blocking(move || serve.terminate());
    // A new connection each time, as a balancer's, which learns it while they are still taken.
    while client().get(&ready).send().await.expect("it is taken").status() != 503 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(under_way.await.expect("it is answered").status, 201);
    assert_eq!(ended.await.expect("it ends").0, Some(0));
    assert!(told.elapsed() < Duration::from_secs(30), "{:?}", told.elapsed());
    dawdles.join().expect("it is let go");
}

/// How many files this process may open, and those that it starts.
fn files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    files.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(256)
}

/// Thousands who hold a connection and ask nothing are let go, whether they asked before or never, and hold up nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_in_good_order_while_thousands_hold_idle_connections() {
    let many = (files() / 2).min(4000);
    if many < 1000 {
        println!("not tried: too few files may be open");
        return;
    }
    let mut place = Place::new().await;
    place.set("COUNTERSIGN_LOG", "warn");
    let serve = place.serve().await;
    let port = serve.port;
    let opens = move |n| {
        let mut guest = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        if n % 2 == 0 {
            guest.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it takes it");
            let mut begin = [0; 12];
            guest.read_exact(&mut begin).expect("it answers");
            assert_eq!(begin, *b"HTTP/1.1 200");
        }
        guest
    };
    // Several at a time: who was idle for 15 seconds is let go, and all are to be there at the end.
    let openers: Vec<_> =
        (0..8).map(|_| std::thread::spawn(move || (0..many / 8).map(opens).collect::<Vec<_>>())).collect();
    let idle: Vec<_> = openers.into_iter().flat_map(|opener| opener.join().expect("all are open")).collect();
    let (log, told) = (serve.log(), Stopwatch::start());
    assert_eq!(tokio::task::spawn_blocking(move || serve.terminate()).await.expect("it ends").0, Some(0));
    assert!(told.elapsed() < Duration::from_secs(30), "{:?}", told.elapsed());
    let log = log.lock().expect("no test panics with it").clone();
    assert!(!log.contains("in time"), "{log}");
    drop(idle);
}
