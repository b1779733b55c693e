//! The store's contract, on SQLite and, where `COUNTERSIGN_TEST_POSTGRES` names a server, on PostgreSQL: every statement
//! prepares, every verb writes all of it or nothing, and every consumption has one winner.

#![allow(clippy::expect_used, clippy::panic, reason = "in tests a panic is the report")]

#[path = "support/database.rs"]
mod database;
#[path = "store/lifecycles.rs"]
mod lifecycles;
#[path = "store/neighbours.rs"]
mod neighbours;
#[path = "store/restorations.rs"]
mod restorations;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign::clock::{Clock, SystemClock, SystemRng};
use countersign::config::Database;
use countersign::model::{
    Acr, Actor, ApiKey, Budget, BudgetKey, Challenge, ChallengeStatus, Channel, Delivery, Details, Endpoint, Event,
    Evidence, Factor, Flow, Grant, Id, Kind, Link, MethodKind, Mode, Moment, PortalSession, Prompt, Proof, RecoverySet,
    RecoveryStatus, RelyingParty, Scope, Session, Terms, Timestamp, User,
};
use countersign::policy::chain;
use countersign::policy::throttle::{Stop, Throttle};
use countersign::store::{
    Activation, Attempted, BudgetChange, ChallengeChange, Contest, DeviceChange, EndpointChange, Error, EventQuery,
    FactorChange, Keep, Leave, Limits, NewFactor, NewSession, PromptChange, Purge, Removal, Reservation, RingChange,
    RingKey, SEALED, SealedRow, SessionChange, Settlement, Standing, Store, ThrottleLane,
};
use countersign::vault::{MasterKey, Vault};
use database::Scratch;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor, SqlSafeStr};

// --- statements ---

/// A dump holds every table for as long as it takes: a change of the schema lets others in between its tries, and comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_waits_holds_nobody_up() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let store = scratch.store().await;
    scratch
        .execute(
            "alter table sessions drop column terms, drop column proof, drop column attempts_left, drop column answer_by;
             delete from _sqlx_migrations where version = 4",
        )
        .await;
    let mut held = scratch.hold("lock table sessions in access share mode").await;
    let here = tokio::runtime::Handle::current();
    let migrating = tokio::task::spawn_blocking(move || here.block_on(store.migrate()));
    for _ in 0..3 {
        held.is_waited_for().await;
        // Behind the one who waits, and not for as long as the dump takes.
        let count = scratch.number("select count(*) from sessions");
        tokio::time::timeout(std::time::Duration::from_secs(10), count).await.expect("it is let in");
    }
    assert!(!migrating.is_finished());
    held.let_go().await;
    migrating.await.expect("no panic").expect("migrated");
    scratch.number("select count(*) from sessions where terms is null").await;
}

/// A schema that has landed is out there: an edit of its text would keep every engine off the databases that it made.
#[test]
fn a_migration_that_has_landed_is_not_edited() {
    let landed = [
        ("0001_first.sql", "36cf49bab4f6077b09cb67d30d355c845b94c5aafd59ef0e27c02c47fb999fe6"),
        ("0002_second.sql", "823eb494ee92d624102d4d09d2a5b1f2fc28289b8fa9403d1fb808afbf120ba1"),
        ("0003_webhooks.sql", "675edc5a02df1f31eaf375bb58ae410c0cf24d2a901f0980a8d19a33cae52650"),
        ("0004_answered_at_once.sql", "6e4f6e4d8d8e49840ca5358af03708732456feabc14c5cead53604cc1eb494fc"),
    ];
    for (name, digest) in landed {
        let text = std::fs::read(format!("migrations/{name}")).expect("it is there");
        let found: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest, "{name}: write a new file instead");
    }
}

/// A database of the first schema is brought up to date, and what was counted there stays counted (X-09).
#[tokio::test]
async fn guesses_outlive_the_change_of_their_table() {
    let seed = "insert into throttles (rp_id, user_id, method, version, wrong, enrolment_wrong, paused_until) values
        ('rp', 'ann', 'totp', 3, 7, 4, 90000), ('rp', 'ann', 'sms', 1, 2, 0, null), ('rp', 'bob', 'sms', 1, 1, 0, null)";
    let migrations = sqlx::migrate!("./migrations");
    for scratch in Scratch::all().await {
        match &scratch.storage.database {
            Database::Sqlite(path) => {
                let address = format!("sqlite:{}?mode=rwc", path.display());
                let mut conn = sqlx::SqliteConnection::connect(&address).await.expect("it opens");
                migrations.run_to(1, &mut conn).await.expect("the first schema");
                conn.execute(seed).await.expect("rows");
                conn.close().await.expect("it closes");
            }
            Database::Postgres(url) => {
                let mut conn = sqlx::PgConnection::connect(url).await.expect("it opens");
                migrations.run_to(1, &mut conn).await.expect("the first schema");
                conn.execute(seed).await.expect("rows");
            }
        }
        let store = scratch.store().await;
        let lanes = |user| {
            let store = store.clone();
            async move { store.throttles(&Id::stored("rp".to_owned()), user).await.expect("it answers") }
        };
        let ann = lanes("ann").await;
        assert_eq!((ann.len(), ann[0].lane.as_str(), ann[0].paused_until), (1, "", Some(Timestamp(90_000))));
        let state: Throttle = serde_json::from_str(&ann[0].state).expect("a state");
        assert_eq!(state.stop(MethodKind::Totp, 1, Timestamp(89_999)), Some(Stop::Until(Timestamp(90_000))));
        assert_eq!(state.stop(MethodKind::Sms, 1, Timestamp(89_999)), None);
        // The eleventh wrong code is behind; the next pauses twice as long as the one before.
        let next = state.after_wrong(MethodKind::Totp, 1, Timestamp(90_000));
        assert_eq!(next.stop(MethodKind::Totp, 1, Timestamp(90_000)), Some(Stop::Until(Timestamp(210_000))));
        assert_eq!(lanes("bob").await.len(), 1);
        store.close().await;
    }
}

/// design.md: queries are checked by preparing every statement on both databases.
#[tokio::test]
async fn every_statement_prepares() {
    let statements = statements();
    assert!(statements.len() > 70, "{} statements", statements.len());
    for scratch in Scratch::all().await {
        scratch.store().await;
        let mut wrong = Vec::new();
        for statement in statements.iter().filter(|statement| belongs(statement, &scratch.storage.database)) {
            let text = AssertSqlSafe(statement.clone()).into_sql_str();
            let done = match &scratch.storage.database {
                Database::Sqlite(path) => {
                    let mut conn =
                        sqlx::SqliteConnection::connect(&path.display().to_string()).await.expect("it opens");
                    conn.prepare(text).await.map(drop)
                }
                Database::Postgres(url) => {
                    let mut conn = sqlx::PgConnection::connect(url).await.expect("it opens");
                    conn.prepare(text).await.map(drop)
                }
            };
            wrong.extend(done.err().map(|error| format!("{statement}\n  {error}")));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// Words that only one database knows. A statement with one of them is for that database alone; every other is for both.
const SQLITE_ONLY: [&str; 4] = ["sqlite_", "pragma_", "randomblob(", " = ?"];
const POSTGRES_ONLY: [&str; 2] = ["pg_", "unnest("];

fn belongs(statement: &str, database: &Database) -> bool {
    let foreign: &[&str] = match database {
        Database::Sqlite(_) => &POSTGRES_ONLY,
        Database::Postgres(_) => &SQLITE_ONLY,
    };
    !foreign.iter().any(|word| statement.contains(word))
}

/// The text literals in `src/store` that begin with a verb of SQL and are whole: with a `{` in it, one is put together when it
/// runs, and the tests that run it hold it.
fn statements() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = countersign::store::statements().into_iter().collect();
    for entry in std::fs::read_dir("src/store").expect("the store's folder") {
        let path = entry.expect("an entry").path();
        // These put their statements together: they hand them out above, and a settlement by itself runs in tests of its own.
        if ["asking.rs", "piecewise.rs", "settlement.rs", "gathered.rs", "parts.rs"]
            .iter()
            .any(|name| path.ends_with(name))
        {
            continue;
        }
        let text = std::fs::read_to_string(path).expect("UTF-8");
        for (at, _) in text.match_indices('"') {
            let rest = &text[at + 1..];
            let is_statement =
                ["select ", "insert into ", "update ", "delete from ", "with "].iter().any(|v| rest.starts_with(v));
            if is_statement
                && let Some(end) = rest.find('"')
                && !rest[..end].contains('{')
            {
                found.insert(rest[..end].to_owned());
            }
        }
    }
    found
}

/// What PostgreSQL plans, once for all values, while tables are small and it knows so, still finds each row by key when they are
/// full. Nothing but the questions themselves is walked: for reading even if a table is empty, for writing from fifty rows on.
#[tokio::test]
async fn no_plan_of_small_tables_walks_them() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let Database::Postgres(url) = &scratch.storage.database else { panic!("it is PostgreSQL") };
    scratch.store().await;
    let mut conn = sqlx::PgConnection::connect(url).await.expect("it opens");
    conn.execute(
        "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_hashjoin = off;
         set enable_mergejoin = off",
    )
    .await
    .expect("as the store does");
    let statements: Vec<_> =
        countersign::store::statements().into_iter().filter(|text| text.contains("unnest(")).collect();
    conn.execute("vacuum analyze").await.expect("it is known that all is empty");
    let mut planned = 0;
    for statement in statements.iter().filter(|text| !text.contains("gathered")) {
        planned += walks_nothing(&mut conn, statement).await;
    }
    conn.execute(
        "insert into throttle_lanes (rp_id, user_id, lane, version, state, seen_at) select 'r', n, '', 1, '{}', n from generate_series(1, 50) n;
         insert into challenges (rp_id, user_id, id, terms, status, attempts_left, created_at, expires_at)
           select 'r', n, n, '{}', 'pending', 5, 1, 2 from generate_series(1, 50) n;
         insert into prompts (rp_id, user_id, owner_id, method, id, sealed, sends, sent_at, expires_at)
           select 'r', n, n, 'sms', n, '', 1, 1, 1 from generate_series(1, 50) n;
         insert into factors (rp_id, user_id, id, kind, name, details, created_at, expires_at, last_step, version, sealed, credential_id)
           select 'r', n, n, 'webauthn', n, '{}', 1, 1, 1, 1, '', n from generate_series(1, 50) n;
         insert into recovery_codes (rp_id, user_id, set_id, hash) select 'r', n, n, '' from generate_series(1, 50) n;
         insert into sessions (rp_id, user_id, id, token_hash, granted, created_at, expires_at)
           select 'r', n, n, cast(n as text)::bytea, '{}', 1, 1 from generate_series(1, 50) n;
         insert into portal_sessions (rp_id, user_id, id, flow, created_at, expires_at, link_hash, client_token_hash)
           select 'r', n, n, 'settings', 1, 1, '', '' from generate_series(1, 50) n",
    )
    .await
    .expect("fifty of each");
    conn.execute("vacuum analyze").await.expect("it is known how many there are");
    for statement in &statements {
        planned += walks_nothing(&mut conn, statement).await;
    }
    assert!(planned > 50, "{planned} steps");
    // Housekeeping finds them so where there are many: not one row for each of hundreds.
    conn.execute(
        "insert into prompts (rp_id, user_id, owner_id, method, id, sealed, sends, sent_at, expires_at)
           select 'r', n, n, 'sms', n, '', 1, 1, n from generate_series(51, 5000) n;
         insert into factors (rp_id, user_id, id, kind, name, details, created_at, expires_at, last_step, version, sealed)
           select 'r', n, n, 'totp', n, '{}', 1, n, 1, 1, '' from generate_series(51, 5000) n;
         insert into messages (rp_id, user_id, id, number_hash, created_at)
           select 'r', n, n, n, n from generate_series(51, 5000) n;
         insert into send_budgets (rp_id, budget, version, day, sent, recent, used_at)
           select 'r', n, 1, 1, 1, '[]', n from generate_series(51, 5000) n;
         insert into throttle_lanes (rp_id, user_id, lane, version, state, seen_at)
           select 'r', n, 'd', 1, '{}', n from generate_series(51, 5000) n;
         insert into kept_answers (rp_id, id, user_id, turn, body_hash, whole, created_at)
           select 'r', n, n, n, '', '', n from generate_series(51, 5000) n;
         insert into webhook_deliveries (rp_id, endpoint_id, event_id, sequence, kind, created_at, attempts, last_at)
           select 'r', 'e', n, n, 'x', 1, 1, n from generate_series(51, 5000) n;
         insert into challenges (rp_id, user_id, id, terms, status, attempts_left, created_at, expires_at)
           select 'r', n, n, '{}', 'pending', 5, 1, n from generate_series(51, 5000) n;
         insert into sessions (rp_id, user_id, id, token_hash, granted, created_at, expires_at)
           select 'r', n, n, cast(n as text)::bytea, '{}', 1, n from generate_series(51, 5000) n;
         insert into portal_sessions (rp_id, user_id, id, flow, created_at, expires_at, link_hash, client_token_hash)
           select 'r', n, n, 'settings', 1, n, '', '' from generate_series(51, 5000) n",
    )
    .await
    .expect("many of each");
    conn.execute("vacuum analyze").await.expect("it is known how many there are");
    let purges: Vec<_> = self::statements().into_iter().filter(|text| text.contains("limit 500")).collect();
    assert_eq!(purges.len(), 11, "{purges:#?}");
    for statement in &purges {
        walks_nothing(&mut conn, statement).await;
    }
    // Whose events wait is told by one of them, not by all.
    conn.execute(
        "insert into events (rp_id, id, at, kind, actor, outcome) select 'r', n, n, 'x', 'server', 'success' from generate_series(1, 5000) n",
    )
    .await
    .expect("many that wait");
    conn.execute("vacuum analyze").await.expect("it is known how many there are");
    let realms = self::statements().into_iter().find(|text| text.starts_with("with recursive waiting"));
    let explain = format!("explain (analyze, timing off) {}", realms.expect("it is there"));
    let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut conn).await.expect("a plan");
    let rows = |step: &String| step.split("(actual rows=").nth(1)?.split([' ', '.']).next()?.parse::<u32>().ok();
    let rows: Vec<_> = plan.iter().filter_map(rows).collect();
    assert!(rows.len() > 5 && rows.iter().all(|rows| *rows <= 2), "{}", plan.join("\n"));
}

/// How many steps of the statement's plan reach a table.
async fn walks_nothing(conn: &mut sqlx::PgConnection, statement: &str) -> usize {
    let values: Vec<_> = (1..).take_while(|n| statement.contains(&format!("${n}"))).map(|_| "null").collect();
    let prepare = format!("prepare one as {statement}");
    let explain = format!("explain execute one({})", values.join(", "));
    conn.execute(AssertSqlSafe(prepare)).await.expect("it prepares");
    let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut *conn).await.expect("a plan");
    conn.execute("deallocate one").await.expect("it is forgotten");
    let is_question =
        |step: &str| ["CTE Scan on ", "Function Scan on ", "Subquery Scan on "].iter().any(|s| step.contains(s));
    let steps = plan.iter().enumerate();
    let reaches = steps.filter(|(_, step)| step.contains("Scan") && step.contains(" on ") && !is_question(step));
    let reaches: Vec<_> = reaches.collect();
    for (n, step) in &reaches {
        let by_key = plan.get(n + 1).is_some_and(|next| next.contains("Index Cond:") || next.contains("Recheck Cond:"));
        assert!(by_key, "{step}\n{}\n{statement}", plan.join("\n"));
    }
    let compared = plan.iter().any(|step| step.contains("Join Filter"));
    assert!(!compared, "each with each: {}\n{statement}", plan.join("\n"));
    reaches.len()
}

// --- the schema ---

#[tokio::test]
async fn two_nodes_may_migrate_at_once() {
    for scratch in Scratch::all().await {
        let open = || async {
            match &scratch.storage.database {
                Database::Sqlite(path) => Store::sqlite(path, 2).await,
                Database::Postgres(url) => Store::postgres(url, 2).await,
            }
        };
        let migrate = || async {
            let store = open().await.expect("it opens");
            store.migrate().await.expect("it migrates");
            assert!(store.is_migrated().await.expect("it answers"));
            store.ping().await.expect("it answers");
        };
        tokio::join!(migrate(), migrate(), migrate(), migrate());
    }
}

/// Each may be told that the file is busy while another makes it one with a log; none may fail of it.
#[tokio::test]
async fn many_may_open_a_new_sqlite_file_at_once() {
    for _ in 0..20 {
        let scratch = Scratch::sqlite();
        let Database::Sqlite(path) = &scratch.storage.database else { unreachable!("a file") };
        let open = || async { Store::sqlite(path, 2).await.expect("it opens").close().await };
        tokio::join!(open(), open(), open(), open(), open(), open(), open(), open());
    }
}

/// A file that somebody holds for good is waited for, and then refused.
#[tokio::test]
async fn a_file_that_is_held_is_not_waited_for_without_end() {
    let scratch = Scratch::sqlite();
    let Database::Sqlite(path) = &scratch.storage.database else { unreachable!("a file") };
    let holder = rusqlite::Connection::open(path).expect("it opens");
    holder.execute_batch("create table held (n integer); begin exclusive").expect("it is held");
    let opened = tokio::time::timeout(std::time::Duration::from_secs(60), Store::sqlite(path, 2)).await;
    assert!(matches!(opened.expect("an end").map(drop), Err(Error::Unavailable(_))));
    holder.execute_batch("rollback").expect("it is free");
    Store::sqlite(path, 2).await.expect("it opens").close().await;
}

/// Whoever closes last takes the log away with it: a command that needs the file alone may begin at once.
#[tokio::test]
async fn a_closed_store_has_let_go_of_its_file() {
    for _ in 0..20 {
        let scratch = Scratch::sqlite();
        let Database::Sqlite(path) = &scratch.storage.database else { unreachable!("a file") };
        let store = Store::sqlite(path, 2).await.expect("it opens");
        store.ping().await.expect("it answers");
        let log = std::path::PathBuf::from(format!("{}-wal", path.display()));
        assert!(log.exists());
        store.close().await;
        assert!(!log.exists());
    }
}

#[tokio::test]
async fn a_sqlite_file_is_locked_for_one() {
    let scratch = Scratch::sqlite();
    let Database::Sqlite(path) = &scratch.storage.database else { unreachable!("a file") };
    let lock = Store::lock_sqlite(path).expect("the first");
    assert!(matches!(Store::lock_sqlite(path), Err(Error::InUse(_))));
    drop(lock);
    Store::lock_sqlite(path).expect("free again");
}

// --- settling ---

/// X-08, X-09, 3.4: whatever is lost, nothing of the settlement stands.
#[tokio::test]
async fn a_settlement_stands_as_a_whole_or_not_at_all() {
    for_each(|ann| async move {
        let (challenge, prompt) = (ann.challenge().await, ann.prompt().await);
        let factor = ann.factor("App", None).await;
        let other = ann.factor("Other", Some("taken")).await;
        let pending = ann.pending("Pending").await;
        let set = ann.recovery().await;
        let spent = ann.session(&factor);
        ann.store.settle(Settlement { session: Some(spent.clone()), ..ann.nothing() }).await.expect("a session");
        ann.store
            .settle(Settlement { earlier: Some(SessionChange::Add(spent.session.id.clone())), ..ann.nothing() })
            .await
            .expect("its right is spent once");
        let ended = ann.session(&factor);
        let over = ended.session.id.clone();
        ann.store.settle(Settlement { session: Some(ended.clone()), ..ann.nothing() }).await.expect("a session");
        ann.store.end_session(&ended.session, &ann.event("x")).await.expect("it ends");
        let activation = |credential: Option<&str>| Activation {
            id: pending.id.clone(),
            details: Details::Totp,
            sealed: None,
            credential_id: credential.map(str::to_owned),
            last_step: 0,
        };
        let credential = |id: &Id, version| FactorChange::Credential {
            id: id.clone(),
            version,
            sealed: vec![9],
            details: Details::Totp,
        };
        let step = |step| Some(FactorChange::Step(factor.id.clone(), step));
        let gone = Id::new(Kind::Factor, &ann.at());
        let lost: Vec<(Contest, Settlement)> = vec![
            (Contest::Throttle, Settlement { throttle: Some(throttle(3, 1)), ..ann.nothing() }),
            (
                Contest::Challenge,
                Settlement {
                    challenge: ChallengeChange::Charge(Id::new(Kind::Challenge, &ann.at()), 5),
                    ..ann.nothing()
                },
            ),
            (
                Contest::Prompt,
                Settlement {
                    prompt: Some((prompt.owner_id.clone(), prompt.method, Id::new(Kind::Prompt, &ann.at()))),
                    ..ann.nothing()
                },
            ),
            (Contest::Factor, Settlement { factor: step(5), ..ann.nothing() }),
            (Contest::Factor, Settlement { factor: step(4), ..ann.nothing() }),
            (Contest::Factor, Settlement { factor: Some(FactorChange::Step(pending.id.clone(), 99)), ..ann.nothing() }),
            (Contest::Factor, Settlement { factor: Some(FactorChange::Used(gone.clone())), ..ann.nothing() }),
            (Contest::Factor, Settlement { factor: Some(credential(&other.id, 7)), ..ann.nothing() }),
            (Contest::Factor, Settlement { factor: Some(credential(&gone, 1)), ..ann.nothing() }),
            (
                Contest::Factor,
                Settlement {
                    factor: Some(FactorChange::Activate(Activation { id: factor.id.clone(), ..activation(None) })),
                    ..ann.nothing()
                },
            ),
            (
                Contest::Factor,
                Settlement { factor: Some(FactorChange::Activate(activation(Some("taken")))), ..ann.nothing() },
            ),
            (
                Contest::RecoveryCode,
                Settlement { factor: Some(FactorChange::RecoveryCode(set.id.clone(), vec![42])), ..ann.nothing() },
            ),
            (Contest::Factor, Settlement { factor: Some(FactorChange::Held(gone.clone())), ..ann.nothing() }),
            (Contest::Factor, Settlement { factor: Some(FactorChange::Held(pending.id.clone())), ..ann.nothing() }),
            (Contest::Factor, Settlement { factor: Some(FactorChange::Pending(gone.clone())), ..ann.nothing() }),
            (Contest::Factor, Settlement { factor: Some(FactorChange::Pending(factor.id.clone())), ..ann.nothing() }),
            (
                Contest::Token,
                Settlement { challenge: ChallengeChange::Exchange(challenge.id.clone(), vec![9]), ..ann.nothing() },
            ),
            (
                Contest::Session,
                Settlement { earlier: Some(SessionChange::Add(spent.session.id.clone())), ..ann.nothing() },
            ),
            (Contest::Session, Settlement { earlier: Some(SessionChange::Add(over.clone())), ..ann.nothing() }),
            (Contest::Session, Settlement { earlier: Some(SessionChange::Stand(over.clone())), ..ann.nothing() }),
            (Contest::Session, Settlement { earlier: Some(SessionChange::End(over.clone())), ..ann.nothing() }),
        ];
        for change in [FactorChange::Activate(activation(None)), FactorChange::Pending(pending.id.clone())] {
            let late = Settlement { factor: Some(change), at: ann.now.plus_seconds(900), ..ann.nothing() };
            self::lost(ann.store.settle(late).await, Contest::Factor);
        }
        let tried = Settlement { factor: Some(FactorChange::Pending(pending.id.clone())), ..ann.nothing() };
        ann.store.settle(tried).await.expect("it waits for its first proof");
        let before = ann.state(&challenge, &prompt).await;
        for (contest, fault) in lost {
            let new = ann.session(&factor);
            // All the rest would be right.
            let settlement = Settlement {
                throttle: fault.throttle.clone().or(Some(throttle(0, 1))),
                challenge: match fault.challenge {
                    ChallengeChange::None => ChallengeChange::Approve(challenge.id.clone(), ann.proof(&factor), None),
                    other => other,
                },
                prompt: fault.prompt.or(Some((prompt.owner_id.clone(), prompt.method, prompt.id.clone()))),
                factor: fault.factor.or(step(6)),
                earlier: fault.earlier,
                session: Some(new.clone()),
                event: Some(ann.event("verification.succeeded")),
                ..ann.nothing()
            };
            match ann.store.settle(settlement).await {
                Err(Error::Conflict(lost)) => assert_eq!(lost, contest),
                other => panic!("{contest:?}: {other:?}"),
            }
            assert_eq!(ann.state(&challenge, &prompt).await, before, "{contest:?}");
            assert!(ann.store.session_by_token(&ann.rp, &new.token_hash).await.expect("it answers").is_none());
        }
        // And with nothing wrong, all of it.
        let new = ann.session(&factor);
        let left = ann.store.settle(Settlement {
            throttle: Some(throttle(0, 1)),
            challenge: ChallengeChange::Approve(challenge.id.clone(), ann.proof(&factor), None),
            prompt: Some((prompt.owner_id.clone(), prompt.method, prompt.id.clone())),
            factor: step(6),
            session: Some(new.clone()),
            event: Some(ann.event("verification.succeeded")),
            ..ann.nothing()
        });
        left.await.expect("it settles");
        assert_eq!(ann.found(&challenge.id).await.expect("it is there").status, ChallengeStatus::Approved);
        assert!(ann.store.prompt(&ann.rp, "ann", &prompt.owner_id, prompt.method).await.expect("it answers").is_none());
        assert!(ann.store.session_by_token(&ann.rp, &new.token_hash).await.expect("it answers").is_some());
        let moved = ann.store.factor(&ann.rp, "ann", &factor.id).await.expect("it answers").expect("it is there");
        assert_eq!(moved.last_step, 6);
    })
    .await;
}

/// The fifth charge denies, and the sixth finds nothing to charge.
#[tokio::test]
async fn charges_count_down_to_denial() {
    for_each(|ann| async move {
        let challenge = ann.challenge().await;
        let charge = |left| {
            let challenge = ChallengeChange::Charge(challenge.id.clone(), left);
            ann.store.settle(Settlement { challenge, ..ann.nothing() })
        };
        for left in [5, 4, 3, 2, 1] {
            lost(charge(left + 1).await, Contest::Challenge);
            charge(left).await.expect("a charge");
            let stands = ann.found(&challenge.id).await.expect("it is there");
            assert_eq!(stands.attempts_left, left - 1);
        }
        lost(charge(0).await, Contest::Challenge);
        assert_eq!(ann.found(&challenge.id).await.expect("it is there").status, ChallengeStatus::Denied);
        let late = ann.challenge().await;
        let at = late.expires_at;
        lost(
            ann.store.settle(Settlement { at, challenge: ChallengeChange::Charge(late.id, 5), ..ann.nothing() }).await,
            Contest::Challenge,
        );
    })
    .await;
}

/// X-08: of many writes from one state exactly one stands.
#[tokio::test]
async fn a_throttle_moves_on_from_the_state_that_was_read() {
    for_each(|ann| async move {
        for version in 0..3 {
            let tries = at_once(20, |_| {
                let (store, settlement) =
                    (ann.store.clone(), Settlement { throttle: Some(throttle(version, version + 1)), ..ann.nothing() });
                async move { store.settle(settlement).await }
            })
            .await;
            assert_eq!(tries.iter().filter(|t| t.is_ok()).count(), 1);
            assert!(tries.iter().all(|t| matches!(t, Ok(_) | Err(Error::Conflict(Contest::Throttle)))));
        }
        let kept = ann.store.throttles(&ann.rp, "ann").await.expect("it answers");
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].version, kept[0].state.as_str()), (3, "3"));
        let stale = Settlement { throttle: Some(throttle(1, 9)), ..ann.nothing() };
        lost(ann.store.settle(stale).await, Contest::Throttle);
        ann.store.clear_throttles(&ann.rp, "ann", &ann.event("x")).await.expect("they are cleared");
        let stale = Settlement { throttle: Some(throttle(3, 9)), ..ann.nothing() };
        lost(ann.store.settle(stale).await, Contest::Throttle);
        let kept = ann.store.throttles(&ann.rp, "ann").await.expect("it answers");
        assert_eq!((kept[0].version, kept[0].state.as_str()), (4, "{}"));
    })
    .await;
}

/// The place of a device is taken by another, and that of strangers by none: what was counted of them stays.
#[tokio::test]
async fn no_lane_but_a_devices_gives_way_to_a_device() {
    for_each(|ann| async move {
        let device = |name: &str, change| Settlement { device: Some((name.to_owned(), change)), ..ann.nothing() };
        let lanes = || async {
            let lanes = ann.store.throttles(&ann.rp, "ann").await.expect("it answers");
            lanes.into_iter().map(|row| (row.lane, row.state)).collect::<Vec<_>>()
        };
        let row = |lane: &str, state: &str| (lane.to_owned(), state.to_owned());
        ann.store.settle(Settlement { throttle: Some(throttle(0, 7)), ..ann.nothing() }).await.expect("it is counted");
        lost(ann.store.settle(device("new", DeviceChange::Instead)).await, Contest::Throttle);
        assert_eq!(lanes().await, [row("", "7")]);
        ann.store.settle(device("old", DeviceChange::New)).await.expect("it becomes known");
        ann.store.settle(device("new", DeviceChange::Instead)).await.expect("in the place of the other");
        assert_eq!(lanes().await, [row("", "7"), row("new", "{}")]);
    })
    .await;
}

/// One failed write takes nothing of its neighbours with it (SQLite gathers them into one commit).
#[tokio::test]
async fn writes_that_are_gathered_fail_alone() {
    for_each(|ann| async move {
        let challenge = ann.challenge().await;
        let factor = ann.factor("App", None).await;
        let done = at_once(200, |n| {
            let (store, session) = (ann.store.clone(), ann.session(&factor));
            let bad = ChallengeChange::Charge(Id::new(Kind::Challenge, &ann.at()), 5);
            let challenge = if n % 2 == 0 { ChallengeChange::None } else { bad };
            let settlement = Settlement { session: Some(session.clone()), challenge, ..ann.nothing() };
            let rp = ann.rp.clone();
            async move {
                let done = store.settle(settlement).await.is_ok();
                let there = store.session_by_token(&rp, &session.token_hash).await.expect("it answers").is_some();
                (n % 2 == 0, done, there)
            }
        })
        .await;
        assert!(done.iter().all(|(good, done, there)| good == done && good == there));
        assert_eq!(ann.found(&challenge.id).await.expect("it is there").attempts_left, 5);
    })
    .await;
}

/// What ends a transaction of SQLite's in the middle, as a full disk may, takes all that was gathered in it: whoever is told so finds
/// nothing, an event least of all, and whoever is told that it stands finds it.
#[tokio::test]
async fn what_ends_a_transaction_takes_all_that_was_gathered_in_it() {
    let scratch = Scratch::sqlite();
    let ann = Fixture::on(&scratch).await;
    for (table, when) in [("events", "new.kind = 'fault'"), ("throttle_lanes", "new.user_id like 'fault%'")] {
        let fault = format!(
            "create trigger fault_in_{table} before insert on {table} when {when}
             begin select raise(rollback, 'it ends'); end"
        );
        scratch.execute(&fault).await;
    }
    let done = at_once(240, |n| {
        let word = if n % 24 == 5 { "fault" } else { "user" };
        let user = Fixture { user_id: format!("{word}-{n}"), ..ann.clone() };
        let event = user.event(if matches!(n % 24, 10 | 15) { "fault" } else { "x" });
        let settlement = Settlement { throttle: Some(throttle(0, 0)), event: Some(event.clone()), ..user.nothing() };
        async move {
            let settles = n % 2 == 1;
            let done = match settles {
                true => user.store.settle(settlement).await,
                false => user.store.record(&event).await,
            };
            (settles, event, user.user_id, done)
        }
    })
    .await;
    for (settles, event, user_id, done) in done {
        let stands = i64::from(done.is_ok());
        assert!(event.kind != "fault" || done.is_err());
        assert!(matches!(done, Ok(()) | Err(Error::Unavailable(_))), "{done:?}");
        let told = format!("select count(*) from events where id = '{}'", event.id);
        assert_eq!(scratch.number(&told).await, stands, "{user_id}: {done:?}");
        let lane = format!("select count(*) from throttle_lanes where user_id = '{user_id}'");
        assert_eq!(scratch.number(&lane).await, if settles { stands } else { 0 }, "{user_id}: {done:?}");
    }
    ann.store.record(&ann.event("x")).await.expect("it goes on");
}

/// What many users prove at once is written together, and what one of them lost takes nothing from the others: a replayed step,
/// and a second copy of the same proof. On PostgreSQL rows of one transaction carry its number, which shows that it was so.
#[tokio::test]
async fn settlements_of_many_users_at_once_have_each_their_own_outcome() {
    const USERS: usize = 40;
    for scratch in Scratch::all().await {
        let now = SystemClock.now();
        let (rp, store) = (Id::new(Kind::RelyingParty, &Moment::new(now, &SystemRng)), scratch.store().await);
        let ann = Fixture { store, rp, user_id: "ann".to_owned(), now };
        ann.settle_in("Bank").await;
        let mut proofs = Vec::new();
        for n in 0..USERS {
            let user = ann.other_user(&format!("user-{n}")).await;
            let (factor, challenge, prompt) =
                (user.factor("App", None).await, user.challenge().await, user.prompt().await);
            // Every tenth gives a code of the step that its activation used up.
            let step = if n % 10 == 9 { 5 } else { 6 };
            let settlement = Settlement {
                throttle: Some(throttle(0, 0)),
                challenge: ChallengeChange::Approve(challenge.id.clone(), user.proof(&factor), None),
                prompt: Some((prompt.owner_id.clone(), prompt.method, prompt.id.clone())),
                factor: Some(FactorChange::Step(factor.id.clone(), step)),
                session: Some(user.session(&factor)),
                ..user.nothing()
            };
            proofs.push((user, challenge, settlement));
        }
        let sent = Arc::new(proofs);
        // Of every fourth user there are two copies.
        let outcomes = at_once(USERS + USERS / 4, |n| {
            let (sent, place) = (Arc::clone(&sent), if n < USERS { n } else { (n - USERS) * 4 });
            async move {
                let (user, _, settlement) = &sent[place];
                let mut settlement = settlement.clone();
                settlement.event.as_mut().expect("it tells of it").id = Id::new(Kind::Event, &user.at());
                // Of every third user something else is written at that moment.
                let beside = async {
                    if n % 3 == 0 {
                        user.other_user(&format!("beside-{n}")).await;
                    }
                };
                (place, tokio::join!(user.store.settle(settlement), beside).0)
            }
        })
        .await;
        for (place, (user, challenge, settlement)) in sent.iter().enumerate() {
            let own: Vec<_> = outcomes.iter().filter(|(of, _)| *of == place).map(|(_, outcome)| outcome).collect();
            let (stood, replayed) = (own.iter().filter(|o| o.is_ok()).count(), place % 10 == 9);
            assert_eq!(stood, usize::from(!replayed), "user {place}: {own:?}");
            assert!(own.iter().all(|o| matches!(o, Ok(()) | Err(Error::Conflict(_)))), "user {place}: {own:?}");
            let after = user.found(&challenge.id).await.expect("it is there");
            assert_eq!(after.status, if replayed { ChallengeStatus::Pending } else { ChallengeStatus::Approved });
            let token = &settlement.session.as_ref().expect("a session").token_hash;
            let session = user.store.session_by_token(&user.rp, token).await.expect("it answers");
            assert_eq!(session.is_some(), !replayed);
            let dossier = user.store.dossier(&user.rp, &user.user_id, now).await.expect("it answers");
            assert_eq!(dossier.factors[0].last_step, if replayed { 5 } else { 6 });
            assert_eq!(dossier.throttles.len(), usize::from(!replayed));
        }
        if let Database::Postgres(url) = &scratch.storage.database {
            // Without a loser among them, so that none has to be settled by itself.
            at_once(USERS, |n| {
                let (user, _, _) = &sent[n];
                let settlement = Settlement {
                    throttle: Some(ThrottleLane { lane: "other".to_owned(), ..throttle(0, 0) }),
                    ..user.nothing()
                };
                let store = user.store.clone();
                async move { store.settle(settlement).await.expect("it stands") }
            })
            .await;
            let mut conn = sqlx::PgConnection::connect(url).await.expect("it opens");
            let count = "select count(distinct xmin::text) from throttle_lanes where lane = 'other'";
            let transactions: i64 = sqlx::query_scalar(count).fetch_one(&mut conn).await.expect("a count");
            assert!(transactions < USERS as i64 / 2, "{transactions} transactions for {USERS} settlements");
        }
    }
}

/// Challenges that are opened at once stand with all that they are found by, each with its event; the same one is not opened twice.
#[tokio::test]
async fn challenges_opened_at_once_read_as_they_were_written() {
    for scratch in Scratch::all().await {
        let now = SystemClock.now();
        let rp = Id::new(Kind::RelyingParty, &Moment::new(now, &SystemRng));
        let ann = Fixture { store: scratch.store().await, rp, user_id: "ann".to_owned(), now };
        ann.settle_in("Bank").await;
        let opened = at_once(30, |n| {
            let user = Fixture { user_id: format!("user-{}", n % 20), ..ann.clone() };
            async move {
                let hash = |kind: u8| Some(vec![kind, n as u8]);
                let seen = (n % 2 == 0).then_some(Timestamp(user.now.0 + 1));
                let challenge = Challenge {
                    link_hash: hash(1),
                    link_opened_at: seen,
                    browser_hash: hash(2),
                    client_token_hash: hash(3),
                    ..user.new_challenge()
                };
                let event = user.event("challenge.created");
                user.store.create_challenge(&challenge, &event).await.expect("a challenge");
                (challenge, event)
            }
        })
        .await;
        for (challenge, event) in &opened {
            let found = ann.found(&challenge.id).await.expect("it is there");
            assert_eq!(format!("{found:?}"), format!("{challenge:?}"));
            assert!(ann.store.event(&ann.rp, &event.id).await.expect("it answers").is_some());
        }
        let again = ann.event("challenge.created");
        lost(ann.store.create_challenge(&opened[0].0, &again).await, Contest::Row);
        assert!(ann.store.event(&ann.rp, &again.id).await.expect("it answers").is_none(), "nothing of it stands");
    }
}

/// Keys that are shown at once are asked for together, each once: every caller gets its own key and relying party and what is known
/// there of the user it names, also where both parties name theirs alike; a key that is not known opens nothing.
#[tokio::test]
async fn keys_that_are_shown_at_once_open_each_their_own() {
    for scratch in Scratch::all().await {
        let now = SystemClock.now();
        let (rp, store) = (Id::new(Kind::RelyingParty, &Moment::new(now, &SystemRng)), scratch.store().await);
        let bank = Fixture { store, rp, user_id: "ann".to_owned(), now };
        bank.settle_in("Bank").await;
        let shop = bank.other_party("Shop").await;
        let mut keys = Vec::new();
        for party in [&bank, &shop, &bank] {
            let id = Id::new(Kind::ApiKey, &party.at());
            let key = ApiKey {
                id: id.clone(),
                rp_id: party.rp.clone(),
                hint: "sk_live_…".to_owned(),
                scopes: vec![Scope::Challenges],
                created_at: now,
                expires_at: None,
                revoked_at: None,
                last_used_at: None,
            };
            let hash = Sha256::digest(id.as_str()).to_vec();
            party.store.create_api_key(&key, &hash, &party.event("key.created")).await.expect("a key");
            let factor = party.factor(&format!("App {}", keys.len()), None).await;
            keys.push((hash, Some((id, factor))));
        }
        keys.push((vec![0; 32], None));
        let shown = Arc::new((bank, keys));
        at_once(200, |n| {
            let shown = Arc::clone(&shown);
            async move {
                let (bank, keys) = &*shown;
                let (hash, own) = &keys[n % keys.len()];
                let found = bank.store.enter(hash, "ann", bank.now).await.expect("it answers");
                let Some((key, rp, dossier)) = found else {
                    assert!(own.is_none(), "a key of its own opens");
                    return;
                };
                let (id, factor) = own.as_ref().expect("an unknown key opens nothing");
                assert_eq!((&key.id, &key.rp_id), (id, &rp.id));
                assert!(dossier.factors.iter().any(|f| f.id == factor.id), "the factors of the key's own party");
                let others = keys.iter().filter_map(|(_, own)| own.as_ref()).filter(|(other, _)| other != id);
                let foreign = others.filter(|(_, f)| dossier.factors.iter().any(|known| known.id == f.id)).count();
                assert_eq!(foreign, if n % 4 == 1 { 0 } else { 1 }, "two keys of the bank share its user");
            }
        })
        .await;
    }
}

/// A row of somebody's that another process holds makes nobody else wait: what was gathered with it goes on without it.
#[tokio::test]
async fn a_row_that_is_held_keeps_nobody_else_waiting() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let Some(scratch) = Scratch::postgres().await else { return };
    let Database::Postgres(url) = &scratch.storage.database else { panic!("it is PostgreSQL") };
    scratch.store().await;
    let limits = Limits { pool: 16, acquire: PATIENCE * 3, statement: PATIENCE * 3 };
    let store = Store::postgres(url, limits).await.expect("it opens");
    let now = SystemClock.now();
    let rp = Id::new(Kind::RelyingParty, &Moment::new(now, &SystemRng));
    let ann = Fixture { store, rp, user_id: "ann".to_owned(), now };
    ann.settle_in("Bank").await;
    ann.store.settle(Settlement { throttle: Some(throttle(0, 1)), ..ann.nothing() }).await.expect("a lane");
    let mut conn = sqlx::PgConnection::connect(url).await.expect("it opens");
    conn.execute("begin; select 1 from throttle_lanes where user_id = 'ann' for update").await.expect("it is held");
    let users: Vec<_> = (0..30).map(|n| Fixture { user_id: format!("user-{n}"), ..ann.clone() }).collect();
    let held = tokio::spawn({
        let (store, settlement) = (ann.store.clone(), Settlement { throttle: Some(throttle(1, 2)), ..ann.nothing() });
        async move { store.settle(settlement).await }
    });
    let others = at_once(users.len(), |n| {
        let settlement = Settlement { throttle: Some(throttle(0, 1)), ..users[n].nothing() };
        let store = users[n].store.clone();
        async move { store.settle(settlement).await.expect("it stands") }
    });
    tokio::time::timeout(PATIENCE, others).await.expect("nobody waits for the row that is held");
    assert!(!held.is_finished(), "the row is held");
    conn.execute("commit").await.expect("it is let go");
    held.await.expect("no panic").expect("it stands");
}

/// A row that does not read closes what it belongs to, not what was asked in the same moment.
#[tokio::test]
async fn a_row_that_does_not_read_closes_its_own_user_alone() {
    let scratch = Scratch::sqlite();
    let now = SystemClock.now();
    let rp = Id::new(Kind::RelyingParty, &Moment::new(now, &SystemRng));
    let ann = Fixture { store: scratch.store().await, rp, user_id: "ann".to_owned(), now };
    ann.settle_in("Bank").await;
    ann.factor("App", None).await;
    let bob = ann.other_user("bob").await;
    bob.factor("App", None).await;
    assert_eq!(scratch.execute("update factors set last_step = 'x' where user_id = 'ann'").await, 1);
    let read = at_once(60, |n| {
        let user = if n % 3 == 0 { ann.clone() } else { bob.clone() };
        async move { (n % 3 == 0, user.store.dossier(&user.rp, &user.user_id, user.now).await.is_err()) }
    })
    .await;
    assert!(read.iter().all(|(damaged, closed)| damaged == closed), "{read:?}");
}

// --- factors ---

/// WR-14: a credential id belongs to one factor of a relying party.
#[tokio::test]
async fn a_credential_is_unique_within_a_relying_party() {
    for_each(|ann| async move {
        let (bob, shop) = (ann.other_user("bob").await, ann.other_party("Shop").await);
        let tries = [ann.pending("A").await, ann.pending("B").await];
        let of_bob = bob.pending("C").await;
        let activate = |of: &Fixture, factor: &Factor| {
            let activation = Activation {
                id: factor.id.clone(),
                details: Details::Totp,
                sealed: Some(vec![1]),
                credential_id: Some("same".to_owned()),
                last_step: 0,
            };
            let settlement = Settlement { factor: Some(FactorChange::Activate(activation)), ..of.nothing() };
            let store = of.store.clone();
            async move { store.settle(settlement).await }
        };
        let (one, two, three) =
            tokio::join!(activate(&ann, &tries[0]), activate(&ann, &tries[1]), activate(&bob, &of_bob));
        let all = [one, two, three];
        assert_eq!(all.iter().filter(|t| t.is_ok()).count(), 1, "{all:?}");
        assert!(
            all.iter().all(|t| matches!(t, Ok(()) | Err(Error::Conflict(Contest::Factor | Contest::Row)))),
            "{all:?}"
        );
        let there = shop.pending("D").await;
        activate(&shop, &there).await.expect("another relying party is another world");
        let holder = ann.store.credential_holder(&ann.rp, "same").await.expect("it answers");
        assert!(matches!(holder.as_deref(), Some("ann" | "bob")));
    })
    .await;
}

#[tokio::test]
async fn names_and_limits_hold_for_writes_at_once() {
    for_each(|ann| async move {
        let make = |name: &str, beside: usize| {
            let (store, rp) = (ann.store.clone(), ann.rp.clone());
            let (factor, event) = (ann.new_factor(name), ann.event("enrolment.started"));
            let new = NewFactor { factor, prompt: None, beside: (beside, beside), event };
            async move { store.create_factor(&rp, &new).await }
        };
        let same = at_once(10, |_| make("Mine", 99)).await;
        assert_eq!(same.iter().filter(|t| t.is_ok()).count(), 1);
        assert!(same.iter().all(|t| matches!(t, Ok(_) | Err(Error::Conflict(Contest::Name | Contest::Row)))));
        let limited = at_once(10, |n| make(&format!("Some {n}"), 2)).await;
        assert_eq!(limited.iter().filter(|t| t.is_ok()).count(), 2, "with the one that was there, three");
        assert!(
            limited.iter().all(|t| matches!(t, Ok(_) | Err(Error::Conflict(Contest::Limit | Contest::Row)))),
            "{limited:?}"
        );
        assert_eq!(ann.store.factors(&ann.rp, "ann", ann.now).await.expect("it answers").len(), 3);
    })
    .await;
}

/// Where nobody knows whether a text was written down, what was sent keeps its phone.
#[tokio::test]
async fn what_was_sent_a_code_is_not_given_up() {
    for_each(|ann| async move {
        let (texted, forgotten) = (ann.pending("A").await, ann.pending("B").await);
        let (store, rp) = (&ann.store, &ann.rp);
        let sent = ann.new_prompt(&texted.id, 1);
        store.settle(Settlement { awaited: Some(sent), ..ann.nothing() }).await.expect("a code");
        let begun = Prompt { sealed: Vec::new(), ..ann.new_prompt(&forgotten.id, 1) };
        store.settle(Settlement { awaited: Some(begun), ..ann.nothing() }).await.expect("a text on its way");
        let give_up = async |id, unless_sent| {
            store.drop_pending_factor(rp, "ann", id, unless_sent, &ann.event("enrolment.failed")).await
        };
        lost(give_up(&texted.id, Some(MethodKind::Sms)).await, Contest::Factor);
        give_up(&forgotten.id, Some(MethodKind::Sms)).await.expect("nothing was sent");
        give_up(&texted.id, None).await.expect("another is begun in its place");
    })
    .await;
}

/// What was judged as pending and became active meanwhile is judged anew.
#[tokio::test]
async fn a_factor_that_became_active_is_not_removed_as_a_pending_one() {
    for_each(|ann| async move {
        let (active, pending) = (ann.factor("A", None).await, ann.pending("B").await);
        let (store, rp, event) = (&ann.store, &ann.rp, ann.event("factor.removed"));
        lost(store.remove_factor(rp, "ann", &active.id, Removal::WhilePending, None, &event).await, Contest::Factor);
        store.remove_factor(rp, "ann", &pending.id, Removal::WhilePending, None, &event).await.expect("it is pending");
        let left = store.factors(&ann.rp, "ann", ann.now).await.expect("it answers");
        assert_eq!(left.iter().map(|f| &f.id).collect::<Vec<_>>(), [&active.id]);
    })
    .await;
}

/// Two removals cannot each leave the other as the last.
#[tokio::test]
async fn the_last_factor_stays_where_one_must() {
    for_each(|ann| async move {
        for _ in 0..5 {
            let (one, two) = (ann.factor("A", None).await, ann.factor("B", None).await);
            let remove = |id: &Id| {
                let (store, rp, id, event) =
                    (ann.store.clone(), ann.rp.clone(), id.clone(), ann.event("factor.removed"));
                async move { store.remove_factor(&rp, "ann", &id, Removal::ButTheLast, None, &event).await }
            };
            let (first, second) = tokio::join!(remove(&one.id), remove(&two.id));
            assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
            assert_eq!(ann.store.factors(&ann.rp, "ann", ann.now).await.expect("it answers").len(), 1);
            ann.store.erase_user(&ann.rp, "ann", "erased_x", &ann.event("user.erased")).await.expect("erased");
            ann.store.ensure_user(&ann.rp, &ann.user()).await.expect("anew");
        }
    })
    .await;
}

/// A recovery session's one right to remove is spent once, and ends with the session; what another session allows is done as often as it
/// is asked for, and not after its end (S-16).
#[tokio::test]
async fn the_right_to_remove_a_factor_is_spent_once_and_ends_with_its_session() {
    for_each(|ann| async move {
        let (kept, removed) = (ann.factor("Kept", None).await, ann.factor("Removed", None).await);
        let (other, more) = (ann.factor("Other", None).await, ann.factor("More", None).await);
        let (spent, ended) = (ann.session(&kept), ann.session(&kept));
        for new in [&spent, &ended] {
            ann.store.settle(Settlement { session: Some(new.clone()), ..ann.nothing() }).await.expect("a session");
        }
        ann.store.end_session(&ended.session, &ann.event("x")).await.expect("it ends");
        let remove = |factor: &Factor, leave: Leave| {
            let (ann, factor) = (ann.clone(), factor.id.clone());
            async move {
                ann.store
                    .remove_factor(
                        &ann.rp,
                        "ann",
                        &factor,
                        Removal::ButTheLast,
                        Some(&leave),
                        &ann.event("factor.removed"),
                    )
                    .await
            }
        };
        let [right, over] = [&spent, &ended].map(|new| Leave::Right(new.session.id.clone()));
        remove(&removed, right.clone()).await.expect("its right");
        for leave in [right, over, Leave::Session(ended.session.id.clone())] {
            lost(remove(&other, leave).await, Contest::Session);
            assert!(ann.store.factor(&ann.rp, "ann", &other.id).await.expect("it answers").is_some());
        }
        for factor in [&other, &more] {
            remove(factor, Leave::Session(spent.session.id.clone())).await.expect("it stands");
        }
    })
    .await;
}

/// Nothing is begun for somebody who was erased.
#[tokio::test]
async fn no_factor_is_made_for_somebody_who_is_gone() {
    for_each(|ann| async move {
        ann.store.erase_user(&ann.rp, "ann", "erased_1", &ann.event("user.erased")).await.expect("erased");
        let (factor, event) = (ann.new_factor("App"), ann.event("enrolment.started"));
        let prompt = Some(ann.new_prompt(&factor.id, 1));
        let new = NewFactor { factor, prompt, beside: (99, 99), event };
        lost(ann.store.create_factor(&ann.rp, &new).await, Contest::User);
        assert!(ann.store.factors(&ann.rp, "ann", ann.now).await.expect("it answers").is_empty());
        let prompt = ann.store.prompt(&ann.rp, "ann", &new.factor.id, MethodKind::Sms).await.expect("it answers");
        assert!(prompt.is_none());
        assert!(ann.store.event(&ann.rp, &new.event.id).await.expect("it answers").is_none());
    })
    .await;
}

// --- recovery codes ---

#[tokio::test]
async fn there_is_one_active_set_of_recovery_codes_and_one_that_waits() {
    for_each(|ann| async move {
        ann.factor("App", None).await;
        let create = |confirmed: bool| {
            let (store, rp, event, set) = (ann.store.clone(), ann.rp.clone(), ann.event("x"), ann.new_set());
            async move {
                store.create_recovery_set(&rp, "ann", &Standing::default(), &set, confirmed, &event).await.map(|()| set)
            }
        };
        let summary =
            || async { ann.store.recovery_summary(&ann.rp, "ann", RecoveryStatus::Active).await.expect("it answers") };
        lost(
            ann.store.confirm_recovery_set(&ann.rp, "ann", None, &Standing::default(), &ann.event("x")).await,
            Contest::Row,
        );
        let waiting = create(false).await.expect("a set");
        assert_eq!(summary().await.status, RecoveryStatus::Unconfirmed);
        assert!(ann.store.recovery_set(&ann.rp, "ann").await.expect("it answers").is_none(), "it redeems nothing");
        let replaced = create(false).await.expect("another");
        ann.store
            .confirm_recovery_set(&ann.rp, "ann", None, &Standing::default(), &ann.event("x"))
            .await
            .expect("confirmed");
        let active = ann.store.recovery_set(&ann.rp, "ann").await.expect("it answers").expect("a set");
        assert!(active.id == replaced.id && active.id != waiting.id);
        let next = create(false).await.expect("another that waits");
        let still = ann.store.recovery_set(&ann.rp, "ann").await.expect("it answers").expect("a set");
        assert_eq!((still.id, summary().await.status), (replaced.id, RecoveryStatus::Active));
        let confirmations = at_once(10, |_| {
            let (store, rp, event) = (ann.store.clone(), ann.rp.clone(), ann.event("x"));
            async move { store.confirm_recovery_set(&rp, "ann", None, &Standing::default(), &event).await }
        })
        .await;
        assert_eq!(confirmations.iter().filter(|c| c.is_ok()).count(), 1, "{confirmations:?}");
        let active = ann.store.recovery_set(&ann.rp, "ann").await.expect("it answers").expect("a set");
        assert_eq!(active.id, next.id);
        let makers = at_once(10, |_| create(true)).await;
        assert!(makers.iter().any(Result::is_ok));
        assert!(makers.iter().all(|m| matches!(m, Ok(_) | Err(Error::Conflict(Contest::Row)))), "{makers:?}");
        assert_eq!((summary().await.total, summary().await.remaining), (2, 2));
    })
    .await;
}

/// A-07, S-16: codes that were asked for before a reset, an erasure, the removal of the last factor or the end of the session that allowed
/// them are not made after it.
#[tokio::test]
async fn recovery_codes_do_not_outlive_what_they_stand_for() {
    for_each(|ann| async move {
        let make = |ann: &Fixture, visit: Option<Id>, confirmed: bool| {
            let (ann, set, event) = (ann.clone(), ann.new_set(), ann.event("x"));
            async move {
                let standing = Standing { visit, ..Standing::default() };
                ann.store.create_recovery_set(&ann.rp, "ann", &standing, &set, confirmed, &event).await
            }
        };
        let app = ann.factor("App", None).await;
        make(&ann, None, false).await.expect("a set that waits");
        // Another visit of the same person is not the one that went on.
        let visit = ann.visit().await;
        lost(make(&ann, Some(Id::new(Kind::Portal, &ann.at())), true).await, Contest::Visit);
        make(&ann, Some(visit), false).await.expect("a set that waits");
        let session = ann.session(&app);
        ann.store.settle(Settlement { session: Some(session.clone()), ..ann.nothing() }).await.expect("a session");
        let standing = Standing { session: Some(session.session.id.clone()), ..Standing::default() };
        let by_session = async || {
            let (set, event) = (ann.new_set(), ann.event("x"));
            ann.store.create_recovery_set(&ann.rp, "ann", &standing, &set, false, &event).await?;
            ann.store.confirm_recovery_set(&ann.rp, "ann", Some(&set.id), &standing, &ann.event("x")).await
        };
        by_session().await.expect("it stands");
        ann.store.end_session(&session.session, &ann.event("x")).await.expect("it ends");
        lost(by_session().await, Contest::Session);
        lost(ann.store.confirm_recovery_set(&ann.rp, "ann", None, &standing, &ann.event("x")).await, Contest::Session);
        let all = at_once(16, |n| {
            let (ann, made) = (ann.clone(), make(&ann, None, true));
            async move {
                match n {
                    8 => ann.store.reset_user(&ann.rp, "ann", &ann.event("user.reset")).await,
                    _ => made.await,
                }
            }
        })
        .await;
        all[8].as_ref().expect("it is reset");
        let left = ann.store.recovery_summary(&ann.rp, "ann", RecoveryStatus::Active).await.expect("it answers");
        assert_eq!(left.status, RecoveryStatus::None, "{all:?}");
        ann.pending("Not active yet").await;
        lost(make(&ann, None, true).await, Contest::Factor);
        lost(
            ann.store.confirm_recovery_set(&ann.rp, "ann", None, &Standing::default(), &ann.event("x")).await,
            Contest::Factor,
        );
        ann.store.erase_user(&ann.rp, "ann", "erased_1", &ann.event("user.erased")).await.expect("erased");
        lost(make(&ann, None, true).await, Contest::User);
    })
    .await;
}

/// Codes that were allowed before a factor was added are neither made nor confirmed after it.
#[tokio::test]
async fn recovery_codes_are_lost_to_a_factor_that_was_added_since_they_were_judged() {
    for_each(|ann| async move {
        ann.factor("App", None).await;
        let standing = |judged: i64| Standing { judged: Some(judged), ..Standing::default() };
        let make = |judged: i64| {
            let (ann, set) = (ann.clone(), ann.new_set());
            async move {
                ann.store.create_recovery_set(&ann.rp, "ann", &standing(judged), &set, false, &ann.event("x")).await
            }
        };
        let confirm = |judged: i64| {
            let (ann, standing) = (ann.clone(), standing(judged));
            async move { ann.store.confirm_recovery_set(&ann.rp, "ann", None, &standing, &ann.event("x")).await }
        };
        let status = || async {
            let shown = ann.store.recovery_summary(&ann.rp, "ann", RecoveryStatus::Active).await;
            shown.expect("it answers").status
        };
        let added = ThrottleLane { lane: "enrolment".to_owned(), ..throttle(0, 0) };
        // What happens in another lane adds no factor.
        for lane in [added, throttle(0, 1), throttle(1, 2)] {
            ann.store.settle(Settlement { throttle: Some(lane), ..ann.nothing() }).await.expect("it is written");
        }
        lost(make(0).await, Contest::Throttle);
        assert_eq!(status().await, RecoveryStatus::None);
        make(1).await.expect("a set that waits");
        lost(confirm(0).await, Contest::Throttle);
        assert_eq!(status().await, RecoveryStatus::Unconfirmed);
        confirm(1).await.expect("confirmed");
        assert_eq!(status().await, RecoveryStatus::Active);
    })
    .await;
}

/// Events of ann's, far more than are erased in one write.
async fn many_events_of(ann: &Fixture, scratch: &Scratch) {
    let many = format!(
        "insert into events (rp_id, id, at, kind, actor, user_id, outcome, sequence, salt, person, hash, client)
         with recursive numbers (n) as (select 10 union all select n + 1 from numbers where n < 30009)
         select '{}', 'evt_' || n, 1, 'x', 'server', 'ann', 'success', n, salt, salt, salt, 'c'
         from numbers, (select handle as salt from users) salted",
        ann.rp
    );
    assert_eq!(scratch.execute(&many).await, 30_000);
}

fn erasing(ann: &Fixture, pseudonym: &'static str) -> tokio::task::JoinHandle<Result<(), Error>> {
    let ann = ann.clone();
    tokio::spawn(async move { ann.store.erase_user(&ann.rp, "ann", pseudonym, &ann.event("user.erased")).await })
}

/// V-05: an erasure that breaks off between two steps leaves nobody who could come back, and goes on when it is asked for again.
#[tokio::test]
async fn an_erasure_that_broke_off_goes_on_when_it_is_asked_for_again() {
    for scratch in Scratch::all().await {
        let ann = Fixture::on(&scratch).await;
        many_events_of(&ann, &scratch).await;
        let first = erasing(&ann, "erased_x");
        while ann.store.user(&ann.rp, "ann").await.expect("it answers").is_some() {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.is_err_and(|ended| ended.is_cancelled()), "it was under way");
        let under = async |condition: &str| {
            scratch.number(&format!("select count(*) from events where kind = 'x' and {condition}")).await
        };
        // A step that was under way may still come to its end.
        assert!(under("user_id = 'ann'").await > 0, "it was done before it broke off");
        assert!(under("user_id = 'erased_x'").await > 0, "it had not begun");

        erasing(&ann, "erased_y").await.expect("it ends").expect("erased");
        assert_eq!(under("user_id = 'ann'").await, 0);
        assert_eq!(under("(client is not null or salt is not null)").await, 0);
    }
}

/// V-05: somebody with very many events is erased in steps, and whoever writes meanwhile on SQLite, where one writes at a time, does
/// not wait for all of them.
#[tokio::test]
async fn somebody_with_many_events_is_erased_beside_others() {
    for scratch in Scratch::all().await {
        let ann = Fixture::on(&scratch).await;
        many_events_of(&ann, &scratch).await;
        let erasing = erasing(&ann, "erased_x");
        let (mut meanwhile, mut is_gone) = (0, false);
        let bob = ann.other_user("bob").await;
        while !erasing.is_finished() {
            bob.store.record(&bob.event("x")).await.expect("recorded");
            meanwhile += 1;
            // On SQLite whoever writes past the engine comes last.
            if !scratch.is_sqlite() && !is_gone && ann.store.user(&ann.rp, "ann").await.expect("it answers").is_none() {
                is_gone = true;
                let later = "insert into events (rp_id, id, at, kind, actor, user_id, outcome, sequence)
                    select id, 'evt_later', 1, 'later', 'server', 'ann', 'success', 90000 from relying_parties";
                assert_eq!(scratch.execute(later).await, 1);
            }
        }
        erasing.await.expect("it ends").expect("erased");
        assert!(meanwhile > 20, "{meanwhile} writes while 30,000 events changed their name");
        let left = "select count(*) from events where user_id = 'ann' and kind <> 'user.erased'
            or user_id = 'erased_x' and (client is not null or salt is not null)";
        assert_eq!(scratch.number(left).await, i64::from(is_gone), "but who came after under the same id");
        assert!(ann.store.user(&ann.rp, "ann").await.expect("it answers").is_none());
    }
}

#[tokio::test]
async fn a_recovery_code_is_used_once() {
    for_each(|ann| async move {
        let set = ann.recovery().await;
        let uses = at_once(20, |_| {
            let factor = Some(FactorChange::RecoveryCode(set.id.clone(), set.unused[0].clone()));
            let (store, settlement) = (ann.store.clone(), Settlement { factor, ..ann.nothing() });
            async move { store.settle(settlement).await }
        })
        .await;
        assert_eq!(uses.iter().filter(|u| u.is_ok()).count(), 1);
        assert!(uses.iter().all(|u| matches!(u, Ok(_) | Err(Error::Conflict(Contest::RecoveryCode)))));
        let left = ann.store.recovery_set(&ann.rp, "ann").await.expect("it answers").expect("a set");
        assert_eq!(left.unused, set.unused[1..]);
    })
    .await;
}

// --- sessions and challenges ---

#[tokio::test]
async fn a_session_ends_once_and_lets_nothing_through_afterwards() {
    for_each(|ann| async move {
        let factor = ann.factor("App", None).await;
        let new = ann.session(&factor);
        ann.store.settle(Settlement { session: Some(new.clone()), ..ann.nothing() }).await.expect("a session");
        let ends = at_once(20, |_| {
            let (store, session, event) = (ann.store.clone(), new.session.clone(), ann.event("x"));
            async move { store.end_session(&session, &event).await }
        })
        .await;
        assert_eq!(ends.iter().filter(|e| e.is_ok()).count(), 1);
        let heir = ann.answered_at_once(&factor);
        lost(ann.store.inherit_session(&new.session.id, &heir, &ann.event("x")).await, Contest::Session);
        assert!(ann.found(&heir.session.grant.challenge_id).await.is_none());
    })
    .await;
}

/// It is found as every challenge, says what it said, and takes nothing more; a session that came later is no challenge.
#[tokio::test]
async fn a_challenge_that_is_answered_in_the_call_that_makes_it_lies_with_its_session() {
    for_each(|ann| async move {
        let store = &ann.store;
        let factor = ann.factor("App", None).await;
        let (new, later) = (ann.answered_at_once(&factor), ann.session(&factor));
        for new in [&new, &later] {
            store.settle(Settlement { session: Some(new.clone()), ..ann.nothing() }).await.expect("a session");
        }
        let made = Challenge::clone(new.challenge.as_ref().expect("its challenge"));
        let found = ann.found(&made.id).await.expect("it is there");
        let expected = Challenge { exchanged_at: Some(ann.now), ..made.clone() };
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        assert!(ann.found(&later.session.id.sibling(Kind::Challenge)).await.is_none(), "a session alone");
        assert_eq!(
            store.session(&ann.rp, &new.session.id).await.expect("it answers").map(|s| s.id),
            Some(new.session.id.clone())
        );

        let charge = ChallengeChange::Charge(made.id.clone(), made.attempts_left);
        lost(store.settle(Settlement { challenge: charge, ..ann.nothing() }).await, Contest::Challenge);
        let approve = ChallengeChange::Approve(made.id.clone(), ann.proof(&factor), None);
        lost(store.settle(Settlement { challenge: approve, ..ann.nothing() }).await, Contest::Challenge);
        lost(store.cancel_challenge(&made, &ann.event("x")).await, Contest::Challenge);
        lost(store.set_exchange_code(&made, b"code", ann.now.plus_seconds(60)).await, Contest::Token);
        let twice = Settlement {
            session: Some(Arc::new(NewSession { token_hash: vec![9], ..NewSession::clone(&new) })),
            ..ann.nothing()
        };
        lost(store.settle(twice).await, Contest::Row);

        store.end_session(&new.session, &ann.event("x")).await.expect("it ends");
        let found = ann.found(&made.id).await.expect("it is there");
        assert_eq!(found.status, ChallengeStatus::Approved, "what was proven was proven");
        store.erase_user(&ann.rp, &ann.user_id, "erased_1", &ann.event("x")).await.expect("erased");
        assert!(ann.found(&made.id).await.is_none());
    })
    .await;
}

/// S-16, A-05: what inherits from a session at the moment in which all of a user's end, ends too.
#[tokio::test]
async fn no_heir_of_a_session_outlives_the_end_of_all() {
    for_each(|ann| async move {
        for end in ["revoked", "reset", "removed", "erased"] {
            ann.store.ensure_user(&ann.rp, &ann.user()).await.expect("a user");
            let factor = ann.factor(&format!("App, {end}"), None).await;
            let first = ann.session(&factor);
            ann.store.settle(Settlement { session: Some(first.clone()), ..ann.nothing() }).await.expect("a session");
            let ends = at_once(24, |n| {
                let heir = ann.answered_at_once(&factor);
                let (ann, from, factor) = (ann.clone(), first.clone(), factor.clone());
                async move {
                    let (store, rp, event) = (&ann.store, &ann.rp, ann.event("x"));
                    if n != 12 {
                        return store.inherit_session(&from.session.id, &heir, &event).await;
                    }
                    match end {
                        "revoked" => store.end_sessions_of(rp, "ann", &event).await.map(drop),
                        "reset" => store.reset_user(rp, "ann", &event).await,
                        "removed" => store.remove_factor(rp, "ann", &factor.id, Removal::Any, None, &event).await,
                        _ => store.erase_user(rp, "ann", "erased_1", &event).await,
                    }
                }
            })
            .await;
            ends[12].as_ref().expect("they end");
            let left = ann.store.sessions_of(&ann.rp, "ann", ann.now, None, 100).await.expect("it answers");
            assert!(left.is_empty(), "{end}: {} are left; {ends:?}", left.len());
        }
    })
    .await;
}

/// S-16: what was approved and awaits its exchange is called off with the sessions.
#[tokio::test]
async fn an_approval_is_called_off_with_the_sessions() {
    for_each(|ann| async move {
        let (waiting, other) = (ann.challenge().await, ann.challenge().await);
        let factor = ann.factor("App", None).await;
        let code = Some((vec![9], ann.now.plus_seconds(60)));
        let approve = ChallengeChange::Approve(waiting.id.clone(), ann.proof(&factor), code);
        ann.store.settle(Settlement { challenge: approve, ..ann.nothing() }).await.expect("approved");
        ann.store.end_sessions_of(&ann.rp, "ann", &ann.event("x")).await.expect("they end");
        let status = async |id: &Id| ann.found(id).await.map(|challenge| challenge.status);
        assert_eq!(status(&waiting.id).await, Some(ChallengeStatus::Cancelled));
        assert_eq!(status(&other.id).await, Some(ChallengeStatus::Pending));
        let late = ann.store.exchange(&waiting, &[9], &ann.session(&factor), &ann.event("x")).await;
        lost(late, Contest::Token);
    })
    .await;
}

#[tokio::test]
async fn a_code_is_exchanged_once_within_its_time() {
    for_each(|ann| async move {
        let factor = ann.factor("App", None).await;
        let approved = || async {
            let challenge = ann.challenge().await;
            let code = Some((vec![1, 2, 3], ann.now.plus_seconds(60)));
            let change = ChallengeChange::Approve(challenge.id.clone(), ann.proof(&factor), code);
            ann.store.settle(Settlement { challenge: change, ..ann.nothing() }).await.expect("approved");
            challenge
        };
        let exchange = |challenge: &Challenge, code: &[u8], at: Timestamp| {
            let (store, challenge, code) = (ann.store.clone(), challenge.clone(), code.to_vec());
            let (new, event) = (ann.session(&factor), Event { at, ..ann.event("session.created") });
            async move { store.exchange(&challenge, &code, &new, &event).await }
        };
        let challenge = approved().await;
        lost(exchange(&challenge, &[9], ann.now).await, Contest::Token);
        lost(exchange(&challenge, &[1, 2, 3], ann.now.plus_seconds(60)).await, Contest::Token);
        let tries = at_once(20, |_| exchange(&challenge, &[1, 2, 3], ann.now)).await;
        assert_eq!(tries.iter().filter(|t| t.is_ok()).count(), 1);
        let challenge = approved().await;
        ann.store
            .remove_factor(&ann.rp, "ann", &factor.id, Removal::Any, None, &ann.event("x"))
            .await
            .expect("removed");
        lost(exchange(&challenge, &[1, 2, 3], ann.now).await, Contest::Factor);
    })
    .await;
}

// --- texts ---

/// P-14, P-17: what is drawn is drawn by one, and what failed is given back whole.
#[tokio::test]
async fn budgets_move_on_from_the_state_that_was_read() {
    for_each(|ann| async move {
        let (key, owner) = (BudgetKey::Number("hash".to_owned()), Id::new(Kind::Challenge, &ann.at()));
        let reservation = |owner: &Id, version: i64, sends: i64, before: Option<Prompt>| Reservation {
            rp_id: ann.rp.clone(),
            user_id: "ann".to_owned(),
            message: Id::new(Kind::Message, &ann.at()),
            number_hash: "hash".to_owned(),
            country: Some("US".to_owned()),
            at: ann.now,
            budgets: vec![BudgetChange {
                key: key.clone(),
                budget: Budget { version, day: 1, sent: version + 1, recent: vec![ann.now] },
            }],
            prompt: PromptChange { next: ann.new_prompt(owner, sends), before },
        };
        let others: Vec<_> = (0..20).map(|_| Id::new(Kind::Challenge, &ann.at())).collect();
        let tries = at_once(20, |n| {
            let (store, reservation) = (ann.store.clone(), reservation(&others[n], 0, 1, None));
            async move { store.reserve_send(&reservation).await }
        })
        .await;
        assert_eq!(tries.iter().filter(|t| t.is_ok()).count(), 1);
        assert!(tries.iter().all(|t| matches!(t, Ok(()) | Err(Error::Conflict(Contest::Budget)))));

        let first = reservation(&owner, 1, 1, None);
        ann.store.reserve_send(&first).await.expect("reserved");
        lost(ann.store.reserve_send(&reservation(&owner, 2, 1, None)).await, Contest::Prompt);
        let awaited = || async { ann.store.prompt(&ann.rp, "ann", &owner, MethodKind::Sms).await.expect("it answers") };
        assert!(awaited().await.is_some_and(|p| p.expires_at <= ann.now), "no code counts before a gateway took it");
        let event = ann.event("message.sent");
        assert!(ann.store.accept_send(&first, "http", ann.now, &event).await.expect("accepted"));
        let before = awaited().await.expect("a prompt");
        assert!(before.expires_at > ann.now && before.id == first.prompt.next.id);

        let second = reservation(&owner, 2, 2, Some(before.clone()));
        ann.store.reserve_send(&second).await.expect("reserved");
        lost(ann.store.reserve_send(&reservation(&owner, 3, 2, Some(before.clone()))).await, Contest::Prompt);
        let back = [BudgetChange { key: key.clone(), budget: Budget { version: 3, day: 1, sent: 2, recent: vec![] } }];
        ann.store.release_send(&second, &back, ann.now, &ann.event("message.failed")).await.expect("given back");
        let after = awaited().await.expect("a prompt");
        assert_eq!((after.id, after.sends, after.sent_at), (before.id, before.sends, before.sent_at));
        let kept = ann.store.budget(&ann.rp, &key).await.expect("it answers");
        assert_eq!((kept.version, kept.sent, kept.recent.len()), (4, 2, 0));
        let late = ann.store.accept_send(&second, "http", ann.now, &ann.event("message.sent")).await;
        assert!(!late.expect("it answers"), "the code that was answered meanwhile stands");
        // V-05: whoever was erased since it was judged is sent nothing.
        ann.store.erase_user(&ann.rp, "ann", "erased_x", &ann.event("user.erased")).await.expect("erased");
        lost(ann.store.reserve_send(&reservation(&owner, 4, 1, None)).await, Contest::User);
        assert!(awaited().await.is_none());
    })
    .await;
}

// --- kept answers ---

/// I-01, I-03, I-07: a place has one holder until it is filled or given up, an answer stands for a day, and what goes with it that was
/// lost leaves nothing behind.
#[tokio::test]
async fn an_answer_is_kept_once_and_with_its_effect() {
    for_each(|ann| async move {
        let keep = |turn: &str, answer: Option<u8>, at: i64| {
            let at = ann.now.plus_seconds(at);
            Arc::new(Keep {
                rp_id: ann.rp.clone(),
                user_id: ann.user_id.clone(),
                id: "question".to_owned(),
                turn: turn.to_owned(),
                body_hash: vec![1],
                answer: answer.map(|a| vec![a]),
                whole: answer.map(|_| vec![9]),
                at,
                expired: at.plus_seconds(-86_400),
                given_up: at.plus_seconds(-60),
                stands: AtomicBool::new(false),
            })
        };
        let kept = || async {
            let kept = ann.store.kept(&ann.rp, "question", Timestamp(0)).await.expect("it answers");
            kept.map(|k| (k.answer, k.whole))
        };
        // A place, its holder, and the minute after which it is given up.
        ann.store.keep(keep("one", None, 0)).await.expect("free");
        assert!(matches!(ann.store.keep(keep("two", None, 59)).await, Err(Error::Kept)));
        ann.store.keep(keep("two", None, 60)).await.expect("given up");
        assert!(matches!(ann.store.keep(keep("one", Some(1), 61)).await, Err(Error::Kept)));
        ann.store.keep(keep("two", Some(2), 61)).await.expect("its own place");
        assert_eq!(kept().await, Some((Some(vec![2]), Some(vec![9]))));
        assert!(matches!(ann.store.keep(keep("two", Some(3), 62)).await, Err(Error::Kept)), "filled is filled");
        lost(ann.store.give_way(&ann.rp, "question", "two").await, Contest::Row);
        // With an effect, both or neither: in a settlement and in any other write.
        let factor = ann.factor("App", None).await;
        let settle = |late: &Arc<Keep>| {
            let session = Some(ann.session(&factor));
            let (store, settlement) = (ann.store.keeping(late.clone()), Settlement { session, ..ann.nothing() });
            async move { store.settle(settlement).await }
        };
        let sessions =
            || async { ann.store.sessions_of(&ann.rp, "ann", ann.now, None, 100).await.expect("it answers").len() };
        let late = keep("three", Some(3), 63);
        assert!(matches!(settle(&late).await, Err(Error::Kept)));
        let event = ann.event("x");
        assert!(matches!(
            ann.store
                .keeping(late.clone())
                .create_recovery_set(&ann.rp, "ann", &Standing::default(), &ann.new_set(), true, &event)
                .await,
            Err(Error::Kept)
        ));
        assert!(!late.stands.load(Ordering::Acquire));
        assert_eq!(
            (sessions().await, ann.store.recovery_set(&ann.rp, "ann").await.expect("it answers").is_some()),
            (0, false)
        );
        let next_day = keep("four", Some(4), 61 + 86_400);
        settle(&next_day).await.expect("the answer ran out");
        assert!(next_day.stands.load(Ordering::Acquire));
        assert_eq!((sessions().await, kept().await), (1, Some((Some(vec![4]), Some(vec![9])))));
        // An effect that is lost takes the answer with it.
        let lost_one =
            Arc::new(Keep { id: "other".to_owned(), ..Arc::into_inner(keep("five", Some(5), 0)).expect("mine") });
        let gone = Settlement { factor: Some(FactorChange::Step(factor.id.clone(), 1)), ..ann.nothing() };
        lost(ann.store.keeping(lost_one.clone()).settle(gone).await, Contest::Factor);
        assert!(ann.store.kept(&ann.rp, "other", Timestamp(0)).await.expect("it answers").is_none());
        assert!(!lost_one.stands.load(Ordering::Acquire));
        // Secrets go first, then the answer, and all of it with the user.
        let at = ann.now.plus_seconds(61 + 86_400);
        let purge =
            |before, secrets| ann.store.purge(Purge { node: "one", now: ann.now, lease: ann.now, before, secrets });
        purge(at.plus_seconds(-1), at.plus_seconds(-1)).await.expect("it purges");
        assert_eq!(kept().await, Some((Some(vec![4]), Some(vec![9]))));
        purge(ann.now, at).await.expect("it purges");
        assert_eq!(kept().await, Some((Some(vec![4]), None)));
        purge(at, at).await.expect("it purges");
        assert_eq!(kept().await, None);
        ann.store.keep(keep("six", Some(6), 0)).await.expect("free");
        ann.store.erase_user(&ann.rp, "ann", "erased_x", &ann.event("user.erased")).await.expect("erased");
        assert_eq!(kept().await, None);
        ann.store.keep(keep("seven", None, 0)).await.expect("free");
        ann.store.give_way(&ann.rp, "question", "seven").await.expect("its own place");
        assert_eq!(kept().await, None);
    })
    .await;
}

/// ASVS 13.3.1: a database that the engine makes is its owner's alone, with the files beside it.
#[tokio::test]
async fn a_new_sqlite_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::sqlite();
    let store = scratch.store().await;
    let mut seen = 0;
    for file in std::fs::read_dir(scratch.folder()).expect("a folder") {
        let file = file.expect("a file");
        let mode = file.metadata().expect("it is there").permissions().mode() & 0o777;
        if file.file_name().to_string_lossy().contains(".db") {
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", file.path().display());
            seen += 1;
        }
    }
    assert!(seen >= 2, "the database and its log");
    store.close().await;
}

// --- housekeeping ---

/// On PostgreSQL what began anew while its purge waited for it stays as it is.
#[tokio::test]
async fn what_begins_anew_is_not_purged() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let ann = Fixture::on(&scratch).await;
    let (now, day_old) = (ann.now, ann.now.plus_seconds(-86_400));
    let kept = "kept_answers (user_id, turn, rp_id, id, body_hash, whole, created_at)";
    for (table, values, began) in [
        (
            "prompts (rp_id, user_id, owner_id, method, id, sealed, sends, sent_at, expires_at)",
            "'r', 'u', 'o', 'sms', 'p', '', 1, 1",
            1,
        ),
        ("throttle_lanes (rp_id, user_id, lane, version, state, seen_at)", "'r', 'u', 'd', 1, '{}'", 1),
        (kept, "'u', 't', 'r', 'all of it goes', '', 'w'", day_old.0),
        (kept, "'u', 't', 'r', 'its secrets go', '', 'w'", day_old.0 + 1),
    ] {
        scratch.execute(&format!("insert into {table} values ({values}, {began})")).await;
        let (name, columns) = table.split_once(" (").expect("a table and its columns");
        let begins = columns.trim_end_matches(')').rsplit(", ").next().expect("the last column");
        let mut held = scratch.hold(&format!("update {name} set {begins} = {} where {begins} = {began}", now.0)).await;
        let store = ann.store.clone();
        let purging = tokio::spawn(async move {
            let secrets = day_old.plus_seconds(1);
            store.purge(Purge { node: "one", now, lease: now, before: day_old, secrets }).await
        });
        held.is_waited_for().await;
        held.let_go().await;
        purging.await.expect("no panic").expect("it purges").expect("by nobody else");
        let whole = if table == kept { " and whole is not null" } else { "" };
        let stays = format!("select count(*) from {name} where rp_id = 'r' and {begins} = {}{whole}", now.0);
        assert_eq!(scratch.number(&stays).await, 1, "{table}: {values}");
        scratch.execute(&format!("delete from {name} where rp_id = 'r'")).await;
    }
}

#[tokio::test]
async fn what_ran_out_is_purged_and_nothing_else() {
    for_each(|ann| async move {
        let (challenge, prompt) = (ann.challenge().await, ann.prompt().await);
        let (active, pending) = (ann.factor("App", None).await, ann.pending("Pending").await);
        let new = ann.session(&active);
        ann.store.settle(Settlement { session: Some(new.clone()), ..ann.nothing() }).await.expect("a session");
        let purge = |before| {
            let lease = ann.now.plus_seconds(300);
            Purge { node: "one", now: ann.now, lease, before, secrets: before }
        };
        assert_eq!(ann.store.purge(purge(ann.now)).await.expect("it purges"), Some(0));
        ann.state(&challenge, &prompt).await;
        let rows = ann.store.purge(purge(ann.now.plus_seconds(86_400))).await.expect("it purges");
        assert_eq!(rows, Some(4), "challenge, prompt, session, pending factor");
        assert!(ann.found(&challenge.id).await.is_none());
        assert!(ann.store.session(&ann.rp, &new.session.id).await.expect("it answers").is_none());
        assert!(ann.store.factor(&ann.rp, "ann", &pending.id).await.expect("it answers").is_none());
        assert!(ann.store.factor(&ann.rp, "ann", &active.id).await.expect("it answers").is_some());
        assert!(ann.store.user(&ann.rp, "ann").await.expect("it answers").is_some());
    })
    .await;
}

/// A table that cannot be cleaned keeps no other from it.
#[tokio::test]
async fn what_cannot_be_purged_holds_up_nothing_else() {
    for scratch in Scratch::all().await {
        let ann = Fixture::on(&scratch).await;
        let (challenge, _) = (ann.challenge().await, ann.prompt().await);
        scratch.execute("alter table prompts rename to elsewhere").await;
        let (now, before) = (ann.now, ann.now.plus_seconds(86_400));
        let purge = Purge { node: "one", now, lease: now.plus_seconds(300), before, secrets: before };
        assert_eq!(ann.store.purge(purge).await.expect("it purges"), Some(1));
        scratch.execute("alter table elsewhere rename to prompts").await;
        assert!(ann.found(&challenge.id).await.is_none());
    }
}

/// One node does it; another takes over once the first has not been heard of for as long as its lease.
#[tokio::test]
async fn one_node_at_a_time_purges() {
    for_each(|ann| async move {
        let purge = |node: &'static str, seconds| {
            let (store, now) = (ann.store.clone(), ann.now.plus_seconds(seconds));
            let lease = now.plus_seconds(300);
            let purge = Purge { node, now, lease, before: ann.now, secrets: ann.now };
            async move { store.purge(purge).await.expect("it purges").is_some() }
        };
        const NODES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let done = at_once(8, |n| purge(NODES[n], 0)).await;
        assert_eq!(done.iter().filter(|did| **did).count(), 1);
        let first = NODES[done.iter().position(|did| *did).expect("one did")];
        assert!(purge(first, 200).await, "it keeps the lease by its work");
        assert!(!purge("other", 499).await);
        assert!(purge("other", 500).await);
        assert!(!purge(first, 501).await);
    })
    .await;
}

#[tokio::test]
async fn of_two_first_key_rings_one_stands() {
    for scratch in Scratch::all().await {
        let store = scratch.store().await;
        let now = SystemClock.now();
        let rings = at_once(8, |n| {
            let store = store.clone();
            let key = RingKey { id: 1, purpose: "data".to_owned(), wrapped: vec![n as u8], active_from: None };
            async move { store.create_key_ring(&[key], now).await }
        })
        .await;
        assert_eq!(rings.iter().filter(|r| r.is_ok()).count(), 1);
        assert_eq!(store.key_ring().await.expect("it answers").len(), 1);
        let keys = at_once(8, |n| {
            let store = store.clone();
            async move { store.create_first_signing_key(&format!("k{n}"), &[n as u8], now).await }
        })
        .await;
        assert_eq!(keys.iter().filter(|r| r.is_ok()).count(), 1);
        assert_eq!(store.signing_keys(now).await.expect("it answers").len(), 1);
    }
}

/// E-04: of two changes of the ring that were made on the same reading one stands.
#[tokio::test]
async fn of_two_changes_of_the_key_ring_one_stands() {
    for_each(|ann| async move {
        let version = ann.store.key_ring_version().await.expect("it answers");
        let changes = at_once(8, |n| {
            let (store, event) = (ann.store.clone(), ann.event("data_key.published"));
            let key = RingKey { id: 100 + n as i64, purpose: "data".to_owned(), wrapped: vec![1], active_from: None };
            let change = RingChange { version, add: Some(key), ..RingChange::default() };
            async move { store.change_key_ring(&change, &event).await }
        })
        .await;
        assert_eq!(changes.iter().filter(|c| c.is_ok()).count(), 1);
        assert_eq!(ann.store.key_ring().await.expect("it answers").len(), 1);
    })
    .await;
}

/// E-04: a value that moved on since it was read is not replaced, and a data key goes only when nothing is left under it.
#[tokio::test]
async fn a_value_is_sealed_anew_only_as_it_was_read() {
    for_each(|ann| async move {
        let (head, other) = (countersign::vault::seal_head(7), countersign::vault::seal_head(8));
        let (table, nothing) = (&SEALED[0], SealedRow::default());
        for name in ["One", "Two", "Three"] {
            ann.factor(name, None).await;
        }
        let stale = ann.store.stale_rows(table, &head, &nothing, 2).await.expect("it answers");
        assert_eq!(stale.len(), 2);
        let rest = ann.store.stale_rows(table, &head, &stale[1], 50).await.expect("it answers");
        assert_eq!(rest.len(), 1, "the next page begins behind the last row");
        let moved = SealedRow { sealed: b"what it was before".to_vec(), ..rest[0].clone() };
        let step = [(stale[0].clone(), head.clone()), (stale[1].clone(), head.clone()), (moved, head.clone())];
        assert_eq!(ann.store.replace_sealed(table, &step).await.expect("it answers"), 2);
        let left = ann.store.stale_rows(table, &head, &nothing, 50).await.expect("it answers");
        assert_eq!(left.iter().map(|r| &r.id).collect::<Vec<_>>(), [&rest[0].id]);
        assert_eq!(ann.store.count_sealed(table, &head).await.expect("it answers"), 2);
        let ring = [7, 8].map(|id| RingKey { id, purpose: "data".to_owned(), wrapped: vec![1], active_from: None });
        ann.store.create_key_ring(&ring, ann.now).await.expect("a ring");
        let version = ann.store.key_ring_version().await.expect("it answers");
        let remove =
            |id, head: &Vec<u8>| RingChange { version, remove: Some((id, head.clone())), ..RingChange::default() };
        let event = ann.event("data_key.removed");
        lost(ann.store.change_key_ring(&remove(7, &head), &event).await, Contest::Limit);
        ann.store.change_key_ring(&remove(8, &other), &event).await.expect("nothing is left under it");
        assert_eq!(ann.store.key_ring().await.expect("it answers").len(), 1);
        // Whoever comes second is told so, and tells of nothing.
        let version = ann.store.key_ring_version().await.expect("it answers");
        lost(ann.store.change_key_ring(&RingChange { version, ..remove(8, &other) }, &event).await, Contest::Token);
        assert_eq!(ann.store.key_ring_version().await.expect("it answers"), version);
    })
    .await;
}

// --- the audit chain ---

/// L-05: what many sealers do at once is one chain, and an erasure between reading and writing stops them.
#[tokio::test]
async fn of_many_sealers_at_once_one_extends_the_chain() {
    for_each(|ann| async move {
        let master = MasterKey::generate(&ann.at());
        let vault = Arc::new(Vault::new(&master, &master.new_ring(&ann.at())).expect("its own ring"));
        for round in 0..5 {
            for _ in 0..3 {
                ann.store.record(&ann.event("x")).await.expect("recorded");
            }
            let head = ann.store.chain_head(&ann.rp).await.expect("it answers");
            let events = ann.store.unsealed_events(&ann.rp, Timestamp(0), ann.now, 100).await.expect("it answers");
            let sealed = at_once(8, |_| {
                let (ann, vault, head, mut events) = (ann.clone(), Arc::clone(&vault), head.clone(), events.clone());
                async move {
                    let new = chain::extend(&ann.at(), &*vault, head.as_ref(), &ann.rp, &mut events);
                    ann.store.seal_events(head.as_ref(), &new, &events).await
                }
            })
            .await;
            assert_eq!(sealed.iter().filter(|s| s.is_ok()).count(), 1, "round {round}");
            assert!(sealed.iter().all(|s| matches!(s, Ok(()) | Err(Error::Conflict(Contest::Row)))));
        }
        ann.store.record(&ann.event("x")).await.expect("recorded");
        let head = ann.store.chain_head(&ann.rp).await.expect("it answers");
        let mut events = ann.store.unsealed_events(&ann.rp, Timestamp(0), ann.now, 100).await.expect("it answers");
        ann.store.erase_user(&ann.rp, "ann", "erased_x", &ann.event("user.erased")).await.expect("erased");
        let new = chain::extend(&ann.at(), &*vault, head.as_ref(), &ann.rp, &mut events);
        lost(ann.store.seal_events(head.as_ref(), &new, &events).await, Contest::Row);
        assert_eq!(ann.store.chain_head(&ann.rp).await.expect("it answers"), head);
        let query = EventQuery::behind(0, 100);
        let all = ann.store.sealed_events(&ann.rp, &query).await.expect("it answers");
        let numbers: Vec<_> = all.iter().filter_map(|e| Some(e.link.as_ref()?.sequence)).collect();
        assert_eq!(numbers, (1..=16).collect::<Vec<_>>(), "15 and the relying party's own");
        assert!(all.iter().all(|e| e.user_id.as_deref() == Some("erased_x")));
    })
    .await;
}

/// Every relying party that has an event without a number is found, once.
#[tokio::test]
async fn whose_events_wait_is_found() {
    for_each(|ann| async move {
        let found = || async { ann.store.unsealed_realms().await.expect("it answers") };
        let before = found().await;
        let realm = |n: usize| Id::stored(format!("rp_{n}"));
        for n in [3, 1, 2, 3] {
            ann.store.record(&Event { rp_id: realm(n), ..ann.event("x") }).await.expect("recorded");
        }
        let mut now = found().await;
        now.sort();
        let mut expected: Vec<_> = before.into_iter().chain((1..=3).map(realm)).collect();
        expected.sort();
        assert_eq!(now, expected);
    })
    .await;
}

/// What was told by a clock that was far ahead does not wait for that time; what is from a moment ago does, and a little ahead.
#[tokio::test]
async fn events_do_not_wait_for_a_time_far_ahead() {
    for_each(|ann| async move {
        let rp = Id::stored("rp_ahead".to_owned());
        for after in [-2, 0, 30, 86_400] {
            let event = Event { rp_id: rp.clone(), at: ann.now.plus_seconds(after), ..ann.event("x") };
            ann.store.record(&event).await.expect("recorded");
        }
        let before = ann.now.plus_seconds(-1);
        let found = ann.store.unsealed_events(&rp, Timestamp(i64::MIN), before, 9).await.expect("it answers");
        let times: Vec<_> = found.iter().map(|event| event.at).collect();
        assert_eq!(times, [-2, 86_400].map(|after| ann.now.plus_seconds(after)));
    })
    .await;
}

// --- webhooks ---

/// 3.32: of many who would send it at once one claims a delivery; what that one notes stands, and what came too late does not.
#[tokio::test]
async fn a_delivery_is_claimed_once() {
    for_each(|ann| async move {
        let endpoint = ann.endpoint().await;
        for round in 0..5 {
            let queued = at_once(4, |n| {
                let (ann, delivery) = (ann.clone(), tried(&ann, &endpoint, round * 4 + n as u128));
                async move { ann.store.queue_delivery(&delivery, 1).await }
            })
            .await;
            assert_eq!(queued.iter().filter(|q| q.is_ok()).count(), 1, "round {round}");
            assert!(queued.iter().all(|q| matches!(q, Ok(()) | Err(Error::Conflict(Contest::Limit)))));
            let due = ann.store.due_deliveries(&endpoint, ann.now, 9).await.expect("it answers");
            assert_eq!(due.len(), 1, "round {round}");
            let until = ann.now.plus_seconds(60);
            let claims = at_once(8, |_| {
                let (ann, endpoint, delivery) = (ann.clone(), endpoint.clone(), due[0].clone());
                async move { ann.store.claim_delivery(&endpoint, &delivery, ann.now, until).await }
            })
            .await;
            assert_eq!(claims.iter().filter(|c| c.is_ok()).count(), 1, "round {round}");
            assert!(claims.iter().all(|c| matches!(c, Ok(()) | Err(Error::Conflict(Contest::Row)))));
            assert!(ann.store.due_deliveries(&endpoint, ann.now, 9).await.expect("it answers").is_empty());
            // Whoever claimed it is not heard of again: another does, and the first comes too late.
            let again = ann.store.due_deliveries(&endpoint, until, 9).await.expect("it answers").remove(0);
            assert_eq!(again.attempts, 1);
            ann.store.claim_delivery(&endpoint, &again, until, until.plus_seconds(60)).await.expect("claimed");
            let ended = |outcome| Attempted {
                at: until,
                next_at: None,
                outcome: Some(outcome),
                status: Some(204),
                error: None,
                pause: None,
                disable: None,
            };
            ann.store.note_attempt(&endpoint, &again, 1, &ended("failed")).await.expect("it answers");
            ann.store.note_attempt(&endpoint, &again, 2, &ended("delivered")).await.expect("noted");
            ann.store.note_attempt(&endpoint, &again, 2, &ended("failed")).await.expect("it answers");
            let last = ann.store.deliveries(&ann.rp, &endpoint.id, None, 1).await.expect("it answers").remove(0);
            assert_eq!((last.outcome.as_deref(), last.attempts), (Some("delivered"), 2));
        }
        // What the address before has answered is nothing of the new one.
        ann.store.queue_delivery(&tried(&ann, &endpoint, 99), 1).await.expect("queued");
        let due = ann.store.due_deliveries(&endpoint, ann.now, 9).await.expect("it answers").remove(0);
        let later = ann.now.plus_seconds(60);
        ann.store.claim_delivery(&endpoint, &due, ann.now, later).await.expect("claimed");
        let change = EndpointChange { url: Some("https://new.example/hooks".to_owned()), ..EndpointChange::default() };
        ann.store.change_webhook_endpoint(&ann.rp, &endpoint.id, &change, &ann.event("x")).await.expect("changed");
        let gone = Attempted {
            at: later,
            next_at: None,
            outcome: Some("failed"),
            status: Some(410),
            error: None,
            pause: Some(later.plus_seconds(3600)),
            disable: Some(("gone", ann.event("webhook_endpoint.disabled"))),
        };
        ann.store.note_attempt(&endpoint, &due, 1, &gone).await.expect("noted");
        let changed =
            ann.store.webhook_endpoint(&ann.rp, &endpoint.id).await.expect("it answers").expect("it is there");
        assert_eq!((changed.disabled, changed.failing_since, changed.paused_until), (None, None, None));
        let last = ann.store.deliveries(&ann.rp, &endpoint.id, None, 1).await.expect("it answers").remove(0);
        assert_eq!((last.outcome, last.next_at), (None, Some(later)), "it is due at the new address");
    })
    .await;
}

fn tried(ann: &Fixture, endpoint: &Endpoint, number: u128) -> Delivery {
    Delivery {
        rp_id: ann.rp.clone(),
        endpoint_id: endpoint.id.clone(),
        event_id: Id::from_bytes(Kind::Event, number.to_be_bytes()),
        sequence: 0,
        kind: "webhook.test".to_owned(),
        created_at: ann.now,
        attempts: 0,
        next_at: Some(ann.now),
        outcome: None,
        last_at: None,
        last_status: None,
        last_error: None,
    }
}

/// What has ended is kept for two thousand deliveries, the newest; what has not stays whatever its age.
#[tokio::test]
async fn an_endpoint_keeps_its_last_deliveries() {
    for_each(|ann| async move {
        let endpoint = ann.endpoint().await;
        for first in (1..=2_050).step_by(50) {
            at_once(50, |n| {
                let (ann, delivery) = (ann.clone(), tried(&ann, &endpoint, first + n as u128));
                async move { ann.store.queue_delivery(&delivery, 3_000).await.expect("queued") }
            })
            .await;
        }
        // Of another endpoint the oldest and the newest have ended too: they neither go nor count.
        let other = ann.endpoint().await;
        for number in [1, 2_060] {
            ann.store.queue_delivery(&tried(&ann, &other, number), 3_000).await.expect("queued");
        }
        let enabled = async |endpoint: &Endpoint, on| {
            let change = EndpointChange { enabled: Some(on), ..EndpointChange::default() };
            ann.store.change_webhook_endpoint(&ann.rp, &endpoint.id, &change, &ann.event("x")).await.expect("changed");
            ann.store.webhook_endpoint(&ann.rp, &endpoint.id).await.expect("it answers").expect("it is there")
        };
        enabled(&other, false).await;
        enabled(&endpoint, false).await;
        let moved = enabled(&endpoint, true).await;
        ann.store.queue_delivery(&tried(&ann, &endpoint, 0), 1).await.expect("queued");
        ann.store.hand_out(&moved, moved.handed_to + 1, &[], ann.now).await.expect("handed out");
        let kept = ann.store.deliveries(&ann.rp, &endpoint.id, None, 3_000).await.expect("it answers");
        let ids: Vec<_> = kept.iter().map(|delivery| delivery.event_id.clone()).collect();
        let meant = (51..=2_050).rev().chain([0]).map(|n: u128| Id::from_bytes(Kind::Event, n.to_be_bytes()));
        assert_eq!(ids, meant.collect::<Vec<_>>());
        assert_eq!(ann.store.deliveries(&ann.rp, &other.id, None, 9).await.expect("it answers").len(), 2);
    })
    .await;
}

/// An endpoint moves on once for each batch, with its deliveries or not at all.
#[tokio::test]
async fn of_many_who_hand_events_out_at_once_one_does() {
    for_each(|ann| async move {
        let endpoint = ann.endpoint().await;
        for _ in 0..3 {
            ann.store.record(&ann.event("factor.added")).await.expect("recorded");
        }
        let mut events = ann.store.unsealed_events(&ann.rp, Timestamp(0), ann.now, 100).await.expect("it answers");
        for (n, event) in events.iter_mut().enumerate() {
            let sequence = endpoint.handed_to + 1 + n as i64;
            event.link = Some(Link { sequence, salt: None, person: Vec::new(), hash: Vec::new() });
        }
        let to = endpoint.handed_to + events.len() as i64;
        let done = at_once(8, |_| {
            let (ann, endpoint, events) = (ann.clone(), endpoint.clone(), events.clone());
            async move { ann.store.hand_out(&endpoint, to, &events, ann.now).await }
        })
        .await;
        assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 1);
        assert!(done.iter().all(|d| matches!(d, Ok(()) | Err(Error::Conflict(Contest::Row)))));
        assert_eq!(ann.store.count_undelivered(&endpoint).await.expect("it answers"), events.len() as i64);
        let moved = ann.store.webhook_endpoint(&ann.rp, &endpoint.id).await.expect("it answers").expect("it is there");
        assert_eq!(moved.handed_to, to);
        let off = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
        ann.store.change_webhook_endpoint(&ann.rp, &endpoint.id, &off, &ann.event("x")).await.expect("disabled");
        lost(ann.store.hand_out(&moved, to + 1, &[], ann.now).await, Contest::Row);
        assert_eq!(ann.store.count_undelivered(&endpoint).await.expect("it answers"), 0, "what waited is dropped");
    })
    .await;
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_runs_out() {
    for_each(|ann| async move {
        let take = async |holder: &str, now: i64| {
            let (now, until) = (ann.now.plus_seconds(now), ann.now.plus_seconds(now + 10));
            ann.store.take_lease("work", holder, now, until).await.expect("it answers")
        };
        let first = at_once(8, |n| {
            let ann = ann.clone();
            let until = ann.now.plus_seconds(10);
            async move { ann.store.take_lease("work", &format!("h{n}"), ann.now, until).await.expect("it answers") }
        })
        .await;
        let holder = first.iter().position(|taken| *taken).expect("one has it");
        assert_eq!(first.iter().filter(|taken| **taken).count(), 1);
        let holder = format!("h{holder}");
        assert!(take(&holder, 5).await && !take("other", 14).await);
        assert!(take("other", 15).await && !take(&holder, 16).await);
        // One whose clock is a little ahead is waited for, one that is far ahead is not.
        assert!(take("ahead", 60).await && !take(&holder, 16).await);
        assert!(take("far ahead", 3600).await && take(&holder, 16).await);
    })
    .await;
}

// --- what the tests stand on ---

/// A user of a relying party on an open store.
#[derive(Clone)]
struct Fixture {
    store: Store,
    rp: Id,
    user_id: String,
    now: Timestamp,
}

/// Runs a test on a fresh database of each kind.
async fn for_each<F: Future<Output = ()>>(test: impl Fn(Fixture) -> F) {
    for scratch in Scratch::all().await {
        test(Fixture::on(&scratch).await).await;
    }
}

async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    copies: usize,
    call: impl Fn(usize) -> F,
) -> Vec<T> {
    let tasks: Vec<_> = (0..copies).map(|n| tokio::spawn(call(n))).collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.expect("a copy that does not panic"));
    }
    all
}

#[track_caller]
fn lost<T: std::fmt::Debug>(outcome: Result<T, Error>, contest: Contest) {
    match outcome {
        Err(Error::Conflict(lost)) => assert_eq!(lost, contest),
        other => panic!("{other:?} instead of a lost {contest:?}"),
    }
}

/// The strangers' lane: the version that was read, and the count that it becomes.
fn throttle(version: i64, wrong: i64) -> ThrottleLane {
    ThrottleLane { version, state: wrong.to_string(), ..ThrottleLane::default() }
}

impl Fixture {
    async fn on(scratch: &Scratch) -> Fixture {
        let now = SystemClock.now();
        let ann = Fixture {
            store: scratch.store().await,
            rp: Id::new(Kind::RelyingParty, &Moment::new(now, &SystemRng)),
            user_id: "ann".to_owned(),
            now,
        };
        ann.settle_in("Bank").await;
        ann
    }

    async fn settle_in(&self, name: &str) {
        let rp = RelyingParty {
            id: self.rp.clone(),
            name: name.to_owned(),
            host: "bank.example".to_owned(),
            mode: Mode::Live,
            origins: vec!["https://bank.example".to_owned()],
            return_urls: Vec::new(),
            created_at: self.now,
        };
        self.store.create_relying_party(&rp, &self.event("relying_party.created")).await.expect("a relying party");
        self.store.ensure_user(&self.rp, &self.user()).await.expect("a user");
    }

    async fn other_user(&self, user_id: &str) -> Fixture {
        let other = Fixture { user_id: user_id.to_owned(), ..self.clone() };
        self.store.ensure_user(&self.rp, &other.user()).await.expect("a user");
        other
    }

    async fn other_party(&self, name: &str) -> Fixture {
        let other = Fixture { rp: Id::new(Kind::RelyingParty, &self.at()), ..self.clone() };
        other.settle_in(name).await;
        other
    }

    fn at(&self) -> Moment<'_> {
        Moment::new(self.now, &SystemRng)
    }

    fn user(&self) -> User {
        User::unnamed(&self.user_id, self.at().random(), self.now)
    }

    /// A webhook endpoint of the relying party.
    async fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint {
            id: Id::new(Kind::Webhook, &self.at()),
            rp_id: self.rp.clone(),
            url: "https://hooks.invalid/".to_owned(),
            kinds: None,
            description: None,
            secrets: vec![1],
            handed_to: 0,
            created_at: self.now,
            disabled: None,
            failing_since: None,
            paused_until: None,
        };
        self.store.create_webhook_endpoint(&endpoint, 20, &self.event("x")).await.expect("made");
        endpoint
    }

    fn event(&self, kind: &'static str) -> Event {
        Event { user_id: Some(self.user_id.clone()), ..Event::new(&self.at(), &self.rp, kind, Actor::Server) }
    }

    fn nothing(&self) -> Settlement {
        Settlement::telling(self.event("verification.failed"))
    }

    fn new_factor(&self, name: &str) -> Factor {
        let (id, end) = (Id::new(Kind::Factor, &self.at()), self.now.plus_seconds(900));
        let pending = Factor::new(id, &self.user_id, MethodKind::Totp, Details::Totp, self.now, end);
        Factor { name: name.to_owned(), sealed: vec![1], ..pending }
    }

    async fn pending(&self, name: &str) -> Factor {
        let factor = self.new_factor(name);
        let new = NewFactor {
            factor: factor.clone(),
            prompt: None,
            beside: (99, 99),
            event: self.event("enrolment.started"),
        };
        self.store.create_factor(&self.rp, &new).await.expect("a factor");
        factor
    }

    /// An active factor whose step 5 is spent.
    async fn factor(&self, name: &str, credential: Option<&str>) -> Factor {
        let factor = self.pending(name).await;
        let activation = Activation {
            id: factor.id.clone(),
            details: Details::Totp,
            sealed: None,
            credential_id: credential.map(str::to_owned),
            last_step: 5,
        };
        let settlement = Settlement { factor: Some(FactorChange::Activate(activation)), ..self.nothing() };
        self.store.settle(settlement).await.expect("it is activated");
        factor
    }

    fn new_challenge(&self) -> Challenge {
        let terms = Terms { action: "login".to_owned(), ..Terms::default() };
        Challenge::new(&self.at(), &self.rp, &self.user_id, terms, 5, self.now.plus_seconds(600))
    }

    /// The challenge as it stands.
    async fn found(&self, id: &Id) -> Option<Challenge> {
        let case = self.store.case(&self.rp, id, self.now).await.expect("it answers");
        case.map(|(challenge, _)| challenge)
    }

    async fn challenge(&self) -> Challenge {
        let challenge = self.new_challenge();
        self.store.create_challenge(&challenge, &self.event("challenge.created")).await.expect("a challenge");
        challenge
    }

    fn new_prompt(&self, owner: &Id, sends: i64) -> Prompt {
        Prompt {
            id: Id::new(Kind::Prompt, &self.at()),
            owner_id: owner.clone(),
            method: MethodKind::Sms,
            factor_id: None,
            sealed: vec![7],
            sends,
            sent_at: self.now,
            expires_at: self.now.plus_seconds(600),
        }
    }

    async fn prompt(&self) -> Prompt {
        let prompt = self.new_prompt(&Id::new(Kind::Challenge, &self.at()), 1);
        self.store.replace_prompt(&self.rp, &self.user_id, &prompt).await.expect("a prompt");
        prompt
    }

    fn new_set(&self) -> RecoverySet {
        RecoverySet {
            id: Id::new(Kind::RecoverySet, &self.at()),
            salt: vec![1],
            pepper: 1,
            unused: vec![vec![1], vec![2]],
        }
    }

    async fn recovery(&self) -> RecoverySet {
        self.factor("What they stand for", None).await;
        let set = self.new_set();
        self.store
            .create_recovery_set(&self.rp, &self.user_id, &Standing::default(), &set, true, &self.event("x"))
            .await
            .expect("a set");
        set
    }

    /// A visit to the portal.
    async fn visit(&self) -> Id {
        let visit = PortalSession {
            id: Id::new(Kind::Portal, &self.at()),
            rp_id: self.rp.clone(),
            user_id: self.user_id.clone(),
            flow: Flow::Settings,
            return_url: None,
            created_at: self.now,
            expires_at: self.now.plus_seconds(1800),
            link_hash: vec![1],
            link_opened_at: None,
            browser_hash: None,
            client_token_hash: vec![2],
            session_id: None,
            factor_id: None,
        };
        self.store.create_portal_session(&visit, &self.event("x")).await.expect("a visit");
        visit.id
    }

    fn proof(&self, factor: &Factor) -> Proof {
        Proof {
            method: MethodKind::Totp,
            factor_id: Some(factor.id.clone()),
            evidence: Evidence::of_code(Channel::AuthenticatorApp),
            at: self.now,
            by_client_token: false,
        }
    }

    fn session(&self, factor: &Factor) -> Arc<NewSession> {
        let session = Session {
            id: Id::new(Kind::Session, &self.at()),
            rp_id: self.rp.clone(),
            user_id: self.user_id.clone(),
            grant: Grant {
                action: "login".to_owned(),
                acr: Acr::Aal2,
                amr: Vec::new(),
                method: MethodKind::Totp,
                auth_time: self.now,
                single_use: false,
                audience: Vec::new(),
                binding: None,
                context: None,
                challenge_id: Id::new(Kind::Challenge, &self.at()),
            },
            factor_id: Some(factor.id.clone()),
            created_at: self.now,
            expires_at: self.now.plus_seconds(600),
            ended_at: None,
            added_at: None,
            removed_at: None,
        };
        Arc::new(NewSession { session, token_hash: self.at().random::<32>().to_vec(), challenge: None })
    }

    /// A session and its challenge, of one call.
    fn answered_at_once(&self, factor: &Factor) -> Arc<NewSession> {
        let proof = Some(self.proof(factor));
        let challenge = Challenge { status: ChallengeStatus::Approved, proof, ..self.new_challenge() };
        let mut new = self.session(factor);
        let own = Arc::make_mut(&mut new);
        own.session.id = challenge.id.sibling(Kind::Session);
        own.session.grant.challenge_id = challenge.id.clone();
        own.challenge = Some(Arc::new(challenge));
        new
    }

    /// Everything that a settlement may have touched, as text.
    async fn state(&self, challenge: &Challenge, prompt: &Prompt) -> String {
        let store = &self.store;
        let challenge = self.found(&challenge.id).await.expect("it is there");
        let kept = store.prompt(&self.rp, &self.user_id, &prompt.owner_id, prompt.method).await.expect("it answers");
        let throttles = store.throttles(&self.rp, &self.user_id).await.expect("it answers");
        let factors = store.factors(&self.rp, &self.user_id, self.now).await.expect("it answers");
        let recovery = store.recovery_set(&self.rp, &self.user_id).await.expect("it answers");
        let sessions = store.sessions_of(&self.rp, &self.user_id, self.now, None, 100).await.expect("it answers");
        format!("{challenge:?} {kept:?} {throttles:?} {factors:?} {recovery:?} {}", sessions.len())
    }
}
