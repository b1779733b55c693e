//! The limits beside which the engine is measured: an empty route, SQLite alone, PostgreSQL alone, a passkey's check alone.

use std::process::{Command, Stdio};
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use rusqlite::Connection;
use serde_json::Value;
use webauthn_rs::prelude::{
    DiscoverableKey, PublicKeyCredential, RegisterPublicKeyCredential, Url, Uuid, WebauthnBuilder,
};

use crate::authenticator::Authenticator;
use crate::engine::{free_address, until_ready};
use crate::{Options, load, watch};

/// Serves an empty route in this process: JSON in, JSON out.
pub async fn serve_empty_route() {
    let address = std::env::var("EMPTY_ROUTE").expect("an address to listen on");
    let listener = tokio::net::TcpListener::bind(address).await.expect("it is free");
    let router = Router::new().route("/readyz", axum::routing::get(|| async { "ok" })).route(
        "/v1/challenges",
        post(|Json(_): Json<Value>| async { Json(serde_json::json!({"status": "approved"})) }),
    );
    axum::serve(listener, router).await.expect("it serves");
}

/// The empty route under the load that the engine gets: in a closed loop, and with flows due at a rate, which shows what the
/// generator itself adds to a latency.
pub async fn empty_route(options: &Options, rate: f64) -> [load::Row; 2] {
    let address = free_address();
    let mut process = Command::new(std::env::current_exe().expect("this program"))
        .arg("--empty-route")
        .env("EMPTY_ROUTE", &address)
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the empty route starts");
    until_ready(&address).await;
    let id = process.id();
    let cost = || (watch::cpu(id), 0.0);
    let span = Duration::from_secs(options.seconds);
    let body = r#"{"user_id":"u","answer":{"type":"totp","code":"123456"}}"#;
    let mut rows = Vec::new();
    for rate in [None, Some(rate)] {
        let host = address.clone();
        let request = move |_| Some(load::post(&host, "/v1/challenges", "none", body, 200));
        let memory = || watch::memory(id);
        rows.push(load::run(&address, options.connections, rate, span, &cost, &memory, request).await);
    }
    let _ = process.kill();
    let _ = process.wait();
    rows.try_into().expect("two rows")
}

/// Guarded one-row updates a second.
pub struct Sqlite {
    /// One a commit.
    pub one_row: f64,
    /// 64 a commit.
    pub group: f64,
}

/// SQLite alone, WAL and `synchronous=FULL`, one connection.
pub fn sqlite() -> Sqlite {
    let path = std::env::temp_dir().join(format!("countersign-limit-{}.db", std::process::id()));
    let conn = Connection::open(&path).expect("a database");
    conn.execute_batch("pragma journal_mode=wal; pragma synchronous=full; create table f (id integer primary key, step integer not null);")
        .expect("a table");
    conn.execute_batch("begin").expect("begin");
    for id in 0..20_000 {
        conn.execute("insert into f values (?1, 0)", [id]).expect("a row");
    }
    conn.execute_batch("commit").expect("commit");
    let rate = |rows: i64| {
        let mut update = conn.prepare("update f set step = ?2 where id = ?1 and step < ?2").expect("a statement");
        let start = std::time::Instant::now();
        let mut done = 0;
        while start.elapsed() < Duration::from_secs(2) {
            conn.execute_batch("begin immediate").expect("begin");
            for _ in 0..rows {
                update.execute([done * 7919 % 20_000, done + 1]).expect("an update");
                done += 1;
            }
            conn.execute_batch("commit").expect("commit");
        }
        done as f64 / start.elapsed().as_secs_f64()
    };
    let limits = Sqlite { one_row: rate(1), group: rate(64) };
    drop(conn);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    limits
}

/// What the library alone needs to check a passkey's answer (ES256), in microseconds of CPU.
pub fn passkey_check() -> f64 {
    let origin = "http://localhost:1";
    let library = WebauthnBuilder::new("localhost", &Url::parse(origin).expect("an origin")).and_then(|b| b.build());
    let library = library.expect("its own settings");
    let mut device = Authenticator::new(origin);
    let begun = library.start_passkey_registration(Uuid::from_bytes([7; 16]), "u", "u", None);
    let (options, state) = begun.expect("a registration");
    let options = serde_json::to_value(options.public_key).expect("JSON");
    let made = device.create(&options).expect("the browser has no objection");
    let made: RegisterPublicKeyCredential = serde_json::from_value(made).expect("a credential");
    let passkey = library.finish_passkey_registration(&made, &state).expect("an honest device");
    let (options, state) = library.start_discoverable_authentication().expect("a challenge");
    let options = serde_json::to_value(options.public_key).expect("JSON");
    let answer = device.get(&options).expect("the browser has no objection");
    let answer: PublicKeyCredential = serde_json::from_value(answer).expect("an assertion");
    let process = std::process::id();
    let (start, before) = (std::time::Instant::now(), watch::cpu(process));
    let mut done = 0;
    while start.elapsed() < Duration::from_secs(2) {
        let key = DiscoverableKey::from(&passkey);
        library.finish_discoverable_authentication_v2(&answer, state.clone(), key).expect("it is right each time");
        done += 1;
    }
    (watch::cpu(process) - before) * 1e6 / f64::from(done)
}

/// One guarded update a transaction by pgbench, with as many clients as the engine has connections.
pub fn pgbench(server: &str, clients: usize, seconds: u64) -> f64 {
    let sql =
        "drop table if exists bench_limit; create table bench_limit (id bigint primary key, step bigint not null);
               insert into bench_limit select n, 0 from generate_series(1, 20000) n; vacuum analyze bench_limit";
    let done =
        Command::new("psql").args(["-q", "-c", sql.replace('\n', " ").as_str(), server]).stderr(Stdio::null()).status();
    if !done.is_ok_and(|d| d.success()) {
        // `vacuum` may not run beside other statements.
        for part in sql.split(';') {
            Command::new("psql").args(["-q", "-c", part, server]).stderr(Stdio::null()).status().expect("psql runs");
        }
    }
    let script = std::env::temp_dir().join("countersign-limit.sql");
    std::fs::write(
        &script,
        "\\set id random(1, 20000)\nupdate bench_limit set step = step + 1 where id = :id and step < 1000000000;\n",
    )
    .expect("a script");
    let out = Command::new("pgbench")
        .args([
            "-n",
            "-M",
            "prepared",
            "-f",
            script.to_str().expect("a path"),
            "-c",
            &clients.to_string(),
            "-j",
            "2",
            "-T",
            &seconds.to_string(),
            server,
        ])
        .stderr(Stdio::null())
        .output()
        .expect("pgbench runs (Debian: postgresql-contrib or the server package)");
    let text = String::from_utf8_lossy(&out.stdout);
    let line = text.lines().find(|l| l.starts_with("tps = ")).unwrap_or_else(|| panic!("pgbench said: {text}"));
    line.split_whitespace().nth(2).and_then(|n| n.parse().ok()).expect("a number")
}
