//! The database as a whole: moved to another, backed up under load, and an old backup put in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{AssertSqlSafe, Connection};

use crate::support::child::{Ended, run};
use crate::support::database::Scratch;
use crate::support::verbs::text;
use crate::support::{App, Bank, Passkey, Phone, Stopwatch, World, json};

/// Somebody with a factor of each kind, and what was used of them.
struct Ann {
    bank: Bank,
    app: App,
    passkey: Passkey,
    phone: Phone,
    codes: Vec<String>,
}

impl Ann {
    async fn enrol(bank: Bank) -> Ann {
        let ann = bank.user("ann");
        let (app, passkey, phone) =
            (ann.enrol_totp().await, ann.enrol_passkey().await, ann.enrol_phone("+14155550123").await);
        let codes = ann.recovery_codes().await;
        Ann { bank, app, passkey, phone, codes }
    }

    /// Every factor verifies, and the next recovery code does.
    async fn verifies(&mut self) {
        let ann = self.bank.user("ann");
        let challenge = ann.challenge(json!({})).await;
        let answer = self.passkey.answer(&challenge).await;
        assert_eq!(challenge.verify(answer).await.is(200)["session"]["acr"], "phr");
        ann.session(&self.app, json!({})).await;
        ann.bank.world.wait(120);
        let challenge = ann.challenge(json!({})).await;
        challenge.text().await.is(200);
        challenge.verify(self.phone.answer()).await.is(200);
        self.redeem(200).await;
        ann.bank.world.wait(600);
    }

    /// The next recovery code.
    async fn redeem(&mut self, status: u16) {
        let code = self.codes.remove(0);
        let answer = json!({"type": "recovery_code", "code": code});
        self.bank.user("ann").challenge(json!({})).await.verify(answer).await.is(status);
    }

    fn at(self, world: &Arc<World>) -> Ann {
        Ann { bank: Bank { server: self.bank.server.at(world), ..self.bank }, ..self }
    }
}

/// Waits until nobody's connections are left; the server may learn of their end later than whoever ended them.
async fn is_let_go(scratch: &Scratch) {
    let left = "select count(*) from pg_stat_activity
                where datname = current_database() and application_name = 'countersign'";
    let began = Stopwatch::start();
    while scratch.number(left).await > 0 {
        assert!(began.elapsed().as_secs() < 60, "somebody stays");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Where so much time has gone by since then that a code of then would no longer be looked at, the clock goes back.
fn back_to(world: &World, then: Stopwatch) {
    world.wait(-(then.elapsed().as_secs() as i64 - 15).max(0));
}

fn move_rows(from: &str, to: &str) -> Ended {
    run(&["move", "--from", from, "--to", to], &[])
}

/// What `move` says that it moved.
#[track_caller]
fn moved(ended: &Ended) -> Vec<(String, i64)> {
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let line = |line: &str| {
        let (rows, table) = line.trim().split_once("  ").expect("rows and a table");
        (table.to_owned(), rows.parse().expect("a number"))
    };
    ended.stdout.lines().map(line).collect()
}

/// The rows of each table, as the database itself counts them.
async fn counted(scratch: &Scratch, tables: &[(String, i64)]) -> Vec<(String, i64)> {
    let mut counted = Vec::new();
    for (table, _) in tables {
        let except = if table == "meta" { " where name <> 'journal'" } else { "" };
        counted.push((table.clone(), scratch.number(&format!("select count(*) from {table}{except}")).await));
    }
    counted
}

/// Issue 3.7: there and back, with every factor good afterwards and nothing good twice.
#[tokio::test]
async fn every_factor_verifies_after_a_move_and_after_the_way_back() {
    let Some(server) = Scratch::postgres().await else { return };
    let world = World::start_on(Scratch::sqlite(), |_| {}).await;
    let mut ann = Ann::enrol(world.bank().await).await;
    // More rows than are moved at once.
    for n in 0..250 {
        ann.bank.put(&format!("/v1/users/u{n}"), json!({"display_name": format!("Nº {n}")})).await.is(200);
    }
    ann.verifies().await;
    ann.redeem(200).await;
    let spent = json!({"type": "recovery_code", "code": ann.codes[0]});
    ann.redeem(200).await;
    let session = ann.bank.user("ann").session(&ann.app, json!({})).await;
    let open = ann.bank.user("ann").challenge(json!({})).await;

    let refused = move_rows(&world.scratch.url(), &server.url());
    assert!(refused.status == Some(1) && refused.stderr.contains("serves"), "{}", refused.stderr);
    world.end().await;
    let first = moved(&move_rows(&world.scratch.url(), &server.url()));
    assert_eq!(first, counted(&world.scratch, &first).await);
    assert_eq!(first, counted(&server, &first).await);
    assert!(first.contains(&("users".to_owned(), 251)), "{first:?}");
    // What is there already stays as it is.
    let again = move_rows(&world.scratch.url(), &server.url());
    assert!(again.status == Some(1) && again.stderr.contains("not empty"), "{}", again.stderr);

    let there = world.moved_to(server).await;
    let mut ann = ann.at(&there);
    assert!(ann.bank.is_active(&session["token"]).await && ann.bank.is_active(&session["jwt"]).await);
    let reused = ann.bank.post(&open.path("/verify"), ann.app.now()).await;
    reused.refused(422, "code_reused");
    ann.bank.post(&open.path("/verify"), ann.app.answer()).await.is(200);
    ann.bank.user("ann").challenge(json!({})).await.verify(spent.clone()).await.refused(422, "code_incorrect");
    ann.verifies().await;

    let back = Scratch::sqlite();
    let served = move_rows(&there.scratch.url(), &back.url());
    assert!(served.status == Some(1) && served.stderr.contains("end every countersign"), "{}", served.stderr);
    there.end().await;
    is_let_go(&there.scratch).await;
    let second = moved(&move_rows(&there.scratch.url(), &back.url()));
    assert_eq!(second, counted(&there.scratch, &second).await);
    assert_eq!(second, counted(&back, &second).await);
    let home = there.moved_to(back).await;
    let mut ann = ann.at(&home);
    ann.bank.user("ann").challenge(json!({})).await.verify(spent).await.refused(422, "code_incorrect");
    ann.verifies().await;
}

/// A database that another release may use is not brought up to date by naming it.
#[tokio::test]
async fn a_target_of_another_schema_is_left_as_it_is() {
    let from = Scratch::sqlite();
    from.store().await.close().await;
    for to in [Some(Scratch::sqlite()), Scratch::postgres().await].into_iter().flatten() {
        to.store().await.close().await;
        to.execute("delete from _sqlx_migrations where version > 3").await;
        let refused = move_rows(&from.url(), &to.url());
        assert_eq!(refused.status, Some(1));
        assert!(refused.stderr.contains("--to: the schema is not that of this release"), "{}", refused.stderr);
        assert_eq!(to.number("select count(*) from _sqlx_migrations").await, 3);
    }
}

/// A move that breaks off leaves the target empty, and can be done again.
#[tokio::test]
async fn a_move_that_fails_moves_nothing() {
    let Some(server) = Scratch::postgres().await else { return };
    let world = World::start_on(Scratch::sqlite(), |_| {}).await;
    Ann::enrol(world.bank().await).await;
    world.end().await;
    server.store().await.close().await;
    let mut conn = sqlx::PgConnection::connect(&server.url()).await.expect("it opens");
    let fault = |text: &'static str| sqlx::raw_sql(text);
    fault("alter table sessions add constraint fault check (false)").execute(&mut conn).await.expect("it is made");
    fault("alter table events add constraint fault check (kind <> 'factor.added')")
        .execute(&mut conn)
        .await
        .expect("it is made");
    let ended = move_rows(&world.scratch.url(), &server.url());
    assert_eq!(ended.status, Some(1), "{}", ended.stdout);
    let factors: i64 =
        sqlx::query_scalar("select count(*) from factors").fetch_one(&mut conn).await.expect("it counts");
    assert_eq!(factors, 0);
    for table in ["sessions", "events"] {
        let text = AssertSqlSafe(format!("alter table {table} drop constraint fault"));
        sqlx::raw_sql(text).execute(&mut conn).await.expect("it is dropped");
    }
    moved(&move_rows(&world.scratch.url(), &server.url()));
    let missing = move_rows("sqlite:/nowhere/at/all.db", &server.url());
    assert!(missing.status == Some(1) && missing.stderr.contains("does not exist"), "{}", missing.stderr);
}

/// Issue 3.7: a backup is made under load; what was used, taken back or begun after it does not come back with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_used_comes_back_with_an_old_backup() {
    let world = World::process(Scratch::sqlite(), &[]).await;
    let mut ann = Ann::enrol(world.bank().await).await;
    let (bob, eve) = (ann.bank.user("bob"), ann.bank.user("eve"));
    let (stolen, kept) = (bob.enrol_totp().await, bob.enrol_totp().await);
    let old_set = bob.recovery_codes().await;
    eve.enrol_totp().await;
    let leaked = text(&world_key(&world)["secret"]);
    ann.redeem(200).await;

    let file = world.scratch.folder().join("backup.db");
    let mallory = ann.bank.user("mallory");
    mallory.enrol_totp().await;
    mallory.recovery_codes().await;
    let name = file.to_str().expect("UTF-8").to_owned();
    let ended = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|n| {
            let (user, ended) = (ann.bank.user(&format!("load-{n}")), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut made = 0;
                while !ended.load(Ordering::Relaxed) {
                    user.begin_totp().await;
                    user.bank.delete(&user.path("")).await.is(204);
                    made += 1;
                }
                made
            })
        })
        .collect();
    let backup = {
        let (world, name) = (Arc::clone(&world), name.clone());
        tokio::task::spawn_blocking(move || world.command(&["backup", &name])).await.expect("no panic")
    };
    ended.store(true, Ordering::Relaxed);
    assert_eq!(backup.status, Some(0), "{}", backup.stderr);
    for load in load {
        assert!(load.await.expect("nothing failed") > 0);
    }
    assert_eq!(world.command(&["backup", &name]).status, Some(1), "a file that is there is never written over");
    assert!(!world.scratch.folder().join("backup.db.part").exists(), "no copy is left that nobody asked for");
    let nameless = world.command(&["restore"]);
    assert_eq!(nameless.status, Some(1));
    assert!(nameless.stderr.contains("name the backup's file"), "{}", nameless.stderr);
    assert!(!nameless.stderr.contains("unavailable"), "{}", nameless.stderr);

    // After the backup.
    let (used, unused) = (ann.codes[0].clone(), ann.codes[1].clone());
    ann.redeem(200).await;
    ann.codes.insert(0, used);
    let app = ann.app.clone();
    let session = ann.bank.user("ann").session(&app, json!({})).await;
    let open = ann.bank.user("ann").challenge(json!({})).await;
    let ceremony = ann.passkey.answer(&open).await;
    bob.remove(&stolen.id).await.is(204);
    bob.recovery_codes().await;
    eve.bank.delete(&eve.path("")).await.is(204);
    assert_eq!(world.command(&["user", "reset", "--rp", "Bank", "mallory"]).status, Some(0));
    let keys: Vec<serde_json::Value> =
        serde_json::from_str(&world.command(&["key", "list", "--json"]).stdout).expect("JSON");
    let leaked_id =
        keys.iter().find(|k| text(&k["hint"]).ends_with(&leaked[leaked.len() - 4..])).expect("it is listed");
    assert_eq!(world.command(&["key", "revoke", &text(&leaked_id["id"])]).status, Some(0));

    let served = world.command(&["restore", &name]);
    assert!(served.status == Some(1) && served.stderr.contains("serves"), "{}", served.stderr);
    world.take_process().terminate();
    world.close_store().await;
    // Of this moment: the next one is good.
    let (shown, taken) = (app.now(), Stopwatch::start());
    let restored = world.command(&["restore", &name]);
    assert_eq!(restored.status, Some(0), "{}", restored.stderr);
    assert!(restored.stderr.contains("Carried over"), "{}", restored.stderr);
    world.start_again().await;
    back_to(&world, taken);

    let stranger = world.caller(&leaked);
    stranger.get("/v1/users/ann").await.refused(401, "api_key_invalid");
    assert!(!ann.bank.is_active(&session["token"]).await && !ann.bank.is_active(&session["jwt"]).await);
    ann.bank.post(&open.path("/verify"), ceremony).await.refused(404, "not_found");
    let again = ann.bank.user("ann").challenge(json!({})).await;
    again.verify(shown).await.refused(422, "code_reused");
    ann.redeem(422).await;
    assert_eq!(ann.codes[0], unused);
    ann.verifies().await;
    assert_eq!((mallory.factors().await.len(), bob.factors().await.len()), (0, 1));
    assert_eq!(mallory.shown().await["recovery_codes"]["status"], "none", "who was reset stays so");
    bob.session(&kept, json!({})).await;
    let dead = json!({"type": "recovery_code", "code": old_set[0]});
    bob.ask(json!({"answer": dead})).await.refused(422, "method_not_allowed");
    assert!(eve.factors().await.is_empty(), "V-05: who was erased stays erased");
    // L-05: what the restoration did is no tampering.
    let verified = world.command(&["audit", "verify"]);
    assert_eq!(verified.status, Some(0), "{}{}", verified.stdout, verified.stderr);
}

/// The same on PostgreSQL, which other tools restore: nobody serves meanwhile, and all recovery codes are retired.
#[tokio::test]
async fn a_restored_postgresql_is_made_safe_while_nobody_serves() {
    let Some(server) = Scratch::postgres().await else { return };
    let world = World::process(server, &[]).await;
    let ann = Ann::enrol(world.bank().await).await;
    let session = ann.bank.user("ann").session(&ann.app, json!({})).await;
    let served = world.command(&["restore"]);
    assert!(served.status == Some(1) && served.stderr.contains("end every countersign"), "{}", served.stderr);
    assert!(ann.bank.is_active(&session["token"]).await, "nothing was done");
    world.take_process().terminate();
    world.close_store().await;
    // Of this moment: the next one is good.
    let (shown, taken) = (ann.app.now(), Stopwatch::start());
    is_let_go(&world.scratch).await;
    let restored = world.command(&["restore"]);
    assert_eq!(restored.status, Some(0), "{}", restored.stderr);
    assert!(restored.stderr.contains("Retired sets of recovery codes: 1"), "{}", restored.stderr);
    world.start_again().await;
    back_to(&world, taken);
    assert!(!ann.bank.is_active(&session["token"]).await);
    let user = ann.bank.user("ann");
    assert_eq!(user.shown().await["recovery_codes"]["total"], 0);
    user.challenge(json!({})).await.verify(shown).await.refused(422, "code_reused");
    user.session(&ann.app, json!({})).await;
}

/// Where the settings name a link to the file, what lies beside the file is found all the same.
#[tokio::test]
async fn a_file_behind_a_link_has_one_journal_and_one_lock() {
    let world = World::process(Scratch::sqlite(), &[]).await;
    let mut ann = Ann::enrol(world.bank().await).await;
    world.take_process().terminate();
    world.close_store().await;
    let folder = world.scratch.folder();
    let (link, backup) = (folder.join("link.db"), folder.join("backup.db").display().to_string());
    std::os::unix::fs::symlink(folder.join("countersign.db"), &link).expect("a link");
    let url = format!("sqlite:{}", link.display());
    let by_link = |arguments: &[&str]| world.command_with(arguments, &[("COUNTERSIGN_DATABASE_URL", &url)]);
    assert_eq!(by_link(&["backup", &backup]).status, Some(0));
    world.start_again().await;
    let served = by_link(&["restore", &backup]);
    assert!(served.status == Some(1) && served.stderr.contains("another countersign serves"), "{}", served.stderr);
    let used = ann.codes[0].clone();
    ann.redeem(200).await;
    world.take_process().terminate();
    world.close_store().await;
    let restored = by_link(&["restore", &backup]);
    assert!(restored.stderr.contains("Carried over from the journal: 1 notes"), "{}", restored.stderr);
    assert!(link.is_symlink(), "the file was replaced, not the link");
    world.start_again().await;
    ann.codes.insert(0, used);
    ann.redeem(422).await;
}

/// Where the journal is lost too, nothing tells which recovery codes were used: all are retired, and the other factors stay.
#[tokio::test]
async fn without_the_journal_recovery_codes_are_retired() {
    let world = World::process(Scratch::sqlite(), &[]).await;
    let ann = Ann::enrol(world.bank().await).await;
    let file = world.scratch.folder().join("backup.db").display().to_string();
    assert_eq!(world.command(&["backup", &file]).status, Some(0));
    world.take_process().terminate();
    world.close_store().await;
    for lost in ["countersign.db", "countersign.db-wal", "countersign.db-shm", "countersign.db.used"] {
        let _ = std::fs::remove_file(world.scratch.folder().join(lost));
    }
    let restored = world.command(&["restore", &file]);
    assert_eq!(restored.status, Some(0), "{}", restored.stderr);
    assert!(restored.stderr.contains("Retired sets of recovery codes: 1"), "{}", restored.stderr);
    world.start_again().await;
    let user = ann.bank.user("ann");
    assert_eq!(user.shown().await["recovery_codes"]["total"], 0);
    user.session(&ann.app, json!({})).await;
    // From now on there is a journal again.
    let codes = user.recovery_codes().await;
    assert_eq!(world.command(&["backup", &format!("{file}.2")]).status, Some(0));
    let used = json!({"type": "recovery_code", "code": codes[0]});
    user.challenge(json!({})).await.verify(used.clone()).await.is(200);
    world.take_process().terminate();
    world.close_store().await;
    let restored = world.command(&["restore", &format!("{file}.2")]);
    assert!(restored.stderr.contains("Carried over"), "{}", restored.stderr);
    world.start_again().await;
    user.challenge(json!({})).await.verify(used).await.refused(422, "code_incorrect");
    user.challenge(json!({})).await.verify(json!({"type": "recovery_code", "code": codes[1]})).await.is(200);
}

/// A journal that lay alone when a command made an empty database beside it is found, and is the restored file's again.
#[tokio::test]
async fn a_journal_that_was_put_aside_comes_back_with_its_database() {
    let world = World::process(Scratch::sqlite(), &[]).await;
    let mut ann = Ann::enrol(world.bank().await).await;
    let folder = world.scratch.folder();
    let file = folder.join("backup.db").display().to_string();
    assert_eq!(world.command(&["backup", &file]).status, Some(0));
    let first_line = || {
        let journal = std::fs::read_to_string(folder.join("countersign.db.used")).expect("a journal");
        journal.lines().next().expect("its name").to_owned()
    };
    let (name, all) = (first_line(), ann.codes.clone());
    ann.redeem(200).await;
    world.take_process().terminate();
    world.close_store().await;
    for lost in ["countersign.db", "countersign.db-wal", "countersign.db-shm"] {
        let _ = std::fs::remove_file(folder.join(lost));
    }
    assert_eq!(world.command(&["migrate"]).status, Some(0));
    assert_ne!(first_line(), name, "the empty file has another");
    for used in 1..=2 {
        let restored = world.command(&["restore", &file]);
        assert!(restored.stderr.contains("Carried over from the journal"), "{}", restored.stderr);
        assert_eq!(first_line(), name);
        world.start_again().await;
        ann.codes = all.clone();
        for _ in 0..used {
            ann.redeem(422).await;
        }
        ann.redeem(200).await;
        world.take_process().terminate();
        world.close_store().await;
    }
}

/// What SQLite left beside a file that is gone, or beside the copy of a restoration that was cut off, gets into no restored file.
#[tokio::test]
async fn a_log_that_was_left_is_not_taken_for_the_restored_files() {
    let world = World::process(Scratch::sqlite(), &[]).await;
    let bank = world.bank().await;
    bank.user("ann").enrol_totp().await;
    let folder = world.scratch.folder();
    let (database, file) = (folder.join("countersign.db"), folder.join("backup.db"));
    assert_eq!(world.command(&["backup", &file.display().to_string()]).status, Some(0));
    bank.user("bob").enrol_totp().await;
    let log = std::fs::read(folder.join("countersign.db-wal")).expect("the log of what came after the backup");
    assert!(log.len() > 4096, "there is something in it");
    world.take_process().terminate();
    world.close_store().await;
    for place in ["countersign.db-wal", "countersign.db.restoring-wal"] {
        std::fs::remove_file(&database).expect("it is there");
        std::fs::write(folder.join(place), &log).expect("a log that was left");
        let restored = world.command(&["restore", &file.display().to_string()]);
        assert_eq!(restored.status, Some(0), "{place}: {}", restored.stderr);
        // It may be all that is left of what came last: where it is put is said.
        assert_eq!(restored.stderr.contains("replaced-"), place == "countersign.db-wal", "{}", restored.stderr);
        world.start_again().await;
        assert_eq!(bank.user("ann").factors().await.len(), 1, "{place}");
        assert_eq!(bank.user("bob").factors().await.len(), 0, "{place}: what came after the backup is not in it");
        world.take_process().terminate();
        world.close_store().await;
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&database).expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600, "for its owner alone, whatever the backup's mode was");
}

/// A file that is none of ours, or is broken, takes nobody's place.
#[tokio::test]
async fn a_backup_that_is_none_is_refused() {
    let world = World::process(Scratch::sqlite(), &[]).await;
    let bank = world.bank().await;
    world.take_process().terminate();
    world.close_store().await;
    let (folder, text) = (world.scratch.folder(), |path: &std::path::Path| path.display().to_string());
    let (other, noise) = (folder.join("other.db"), folder.join("noise.db"));
    let mut conn =
        sqlx::SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", other.display())).await.expect("it opens");
    sqlx::raw_sql("create table t (x text)").execute(&mut conn).await.expect("it is made");
    conn.close().await.expect("it closes");
    std::fs::write(&noise, [42; 100_000]).expect("a file");
    for file in [&other, &noise, &folder.join("missing.db")] {
        let ended = world.command(&["restore", &text(file)]);
        assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    }
    world.start_again().await;
    bank.get("/v1/users/ann").await.is(200);
    let left: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("a file").file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains("restoring")), "{left:?}");
}

/// A new key by the command, beside the running engine.
fn world_key(world: &World) -> serde_json::Value {
    let ended = world.command(&["key", "create", "--rp", "Bank", "--json"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}
