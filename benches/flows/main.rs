//! End to end: what a verification costs, beside what the database and the HTTP stack could do at best in the same minute.
//!
//!   cargo bench --bench flows -- [--users 20000] [--seconds 6] [--connections 16] [--rate N] [--postgres postgres://… [--postgres-only]] [--json FILE]
//!   cargo bench --bench flows -- --pieces 12 --users 120000 --seconds 28     a million flows: what does memory do?
//!
//! Starts the release binary on a fresh database, seeds users by the store's own verbs, and drives it over loopback. Prints
//! flows per second, latency, CPU and memory, and the ratios to limits taken in the same run: SQLite's one-row and 64-row
//! commits, pgbench with one guarded update a transaction, an empty route under the same load, and the library's own check of a
//! passkey. Last, what the writes of a right code cost by the store alone.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the time, prints, and stops where it cannot go on"
)]

#[path = "../../tests/support/authenticator.rs"]
mod authenticator;
mod engine;
mod limits;
mod load;
mod population;
mod watch;
mod writes;

use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};
use writes::Rows;

/// What is measured, and for how long.
#[derive(Clone, Parser)]
struct Options {
    /// Users with an authenticator app
    #[arg(long, default_value_t = 20_000)]
    users: usize,
    /// Users with a passkey
    #[arg(long, default_value_t = 500)]
    passkeys: usize,
    /// Seconds a row
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Connections of the closed loop
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Flows a second of the open loop; half of its own top rate where it is left out
    #[arg(long)]
    rate: Option<f64>,
    /// Right codes so many times over and nothing else: how does memory go?
    #[arg(long, default_value_t = 0)]
    pieces: usize,
    /// A PostgreSQL server whose user may create databases; SQLite alone where it is left out
    #[arg(long)]
    postgres: Option<String>,
    /// Leave SQLite out
    #[arg(long, requires = "postgres")]
    postgres_only: bool,
    /// Write the figures there too
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
    /// Serve an empty route, as the same program in another process
    #[arg(long, hide = true)]
    empty_route: bool,
}

/// Flows a second at which the empty route shows the generator's own share of a latency.
const EMPTY_RATE: f64 = 2000.0;

#[tokio::main]
async fn main() {
    let options = Options::parse();
    if options.empty_route {
        return limits::serve_empty_route().await;
    }
    let mut figures = Vec::new();
    println!("load averages before: {}", watch::load_averages());
    println!(
        "{:<34} {:>9} {:>8} {:>8} {:>10} {:>10} {:>9}",
        "what", "flows/s", "p50 ms", "p99 ms", "engine µs", "db µs", "PSS MiB"
    );
    if options.pieces > 0 {
        if !options.postgres_only {
            endure(&options, None, &mut figures).await;
        }
        if let Some(server) = &options.postgres {
            endure(&options, Some(server), &mut figures).await;
        }
        return written(&options, &figures);
    }
    let [closed, open] = limits::empty_route(&options, EMPTY_RATE).await;
    say(&mut figures, "empty route", &closed);
    say(&mut figures, &format!("empty route, open loop at {EMPTY_RATE}"), &open);
    let check = limits::passkey_check();
    println!("{:<34} {:>9} {:>8} {:>8} {:>10.0}", "a passkey's check by the library", "", "", "", check);
    figures.push(json!({"what": "a passkey's check by the library", "cost_us": check}));
    if !options.postgres_only {
        let lite = limits::sqlite();
        println!("{:<34} {:>9.0}", "SQLite FULL, 1 row a commit", lite.one_row);
        println!("{:<34} {:>9.0}", "SQLite FULL, 64 rows a commit", lite.group);
        let right = measure(&options, check, None, &mut figures).await;
        ratio("a right code, of SQLite's one-row rate", right, lite.one_row);
        ratio("a right code, of SQLite's 64-row rate", right, lite.group);
        writes_alone(&options, None, &mut figures).await;
        figures.push(json!({"what": "SQLite limits", "one_row": lite.one_row, "group": lite.group}));
    }
    if let Some(server) = &options.postgres {
        let pgbench = limits::pgbench(server, options.connections, options.seconds);
        println!("{:<34} {:>9.0}", "pgbench, 1 guarded row a commit", pgbench);
        let right = measure(&options, check, Some(server), &mut figures).await;
        ratio("a right code, of pgbench's rate", right, pgbench);
        writes_alone(&options, Some(server), &mut figures).await;
        figures.push(json!({"what": "pgbench", "rate": pgbench}));
    }
    written(&options, &figures);
}

fn written(options: &Options, figures: &[Value]) {
    println!("load averages after: {}", watch::load_averages());
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(figures).expect("JSON")).expect("the file can be written");
    }
}

/// Pieces of right codes, each begun when every user has a new code; tells what memory gains over the later half of them.
async fn endure(options: &Options, postgres: Option<&str>, figures: &mut Vec<Value>) {
    let name = if postgres.is_some() { "PostgreSQL" } else { "SQLite" };
    let engine = engine::Engine::start(postgres).await;
    let apps = population::apps(&engine, options.users).await;
    println!("{:<34} {:.1} MiB", format!("{name}: memory before"), engine.memory());
    let span = Duration::from_secs(options.seconds);
    let mut flows = 0.0;
    let mut points = Vec::new();
    for piece in 1..=options.pieces {
        let row = load::closed(&engine, &apps, load::Kind::Right, options.connections, span).await;
        flows += row.rate * span.as_secs_f64();
        say(figures, &format!("{name}: {piece}, {:.0} flows so far", flows), &row);
        points.push((flows / 1e6, row.memory));
    }
    let later = &points[points.len() / 2..];
    println!("    memory, over the later half: {:+.1} MiB a million flows", slope(later));
}

/// By least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let (above, below) =
        points.iter().fold((0.0, 0.0), |(a, b), point| (a + (point.0 - x) * (point.1 - y), b + (point.0 - x).powi(2)));
    above / below
}

/// All rows on one database, beside what the library needs for a passkey; gives the rate of right codes.
async fn measure(options: &Options, check: f64, postgres: Option<&str>, figures: &mut Vec<Value>) -> f64 {
    let name = if postgres.is_some() { "PostgreSQL" } else { "SQLite" };
    let engine = engine::Engine::start(postgres).await;
    let apps = population::apps(&engine, options.users).await;
    let idle = engine.memory();
    let span = Duration::from_secs(options.seconds);
    let mut rows = Vec::new();
    for (what, kind) in [("right codes", load::Kind::Right), ("wrong codes", load::Kind::Wrong)] {
        let row = load::closed(&engine, &apps, kind, options.connections, span).await;
        say(figures, &format!("{name}: {what}"), &row);
        rows.push(row);
    }
    // Each flow is due at its time: waiting counts.
    let rate = options.rate.unwrap_or(rows[0].rate / 2.0);
    let row = load::open(&engine, &apps, options.connections, rate, span).await;
    let what = options.rate.map_or("half".to_owned(), |rate| rate.to_string());
    say(figures, &format!("{name}: right codes, open loop at {what}"), &row);
    let passkeys = population::passkeys(&engine, options.passkeys).await;
    let row = load::passkeys(&engine, passkeys, options.connections, span).await;
    say(figures, &format!("{name}: passkeys, three requests"), &row);
    println!("    cost of a passkey, beyond the library's check: {:.0} µs", row.cost() - check);
    println!("{:<34} idle {idle:.1} MiB, now {:.1} MiB", format!("{name}: memory"), engine.memory());
    ratio("cost of a wrong code, of a right one", rows[1].cost(), rows[0].cost());
    rows[0].rate
}

/// What the store alone makes of a right code's rows.
async fn writes_alone(options: &Options, postgres: Option<&str>, figures: &mut Vec<Value>) {
    let name = if postgres.is_some() { "PostgreSQL" } else { "SQLite" };
    for (what, rows) in [("its writes alone", Rows::All), ("without the event", Rows::Three)] {
        say(figures, &format!("{name}: {what}"), &writes::alone(options, postgres, rows).await);
    }
}

fn say(figures: &mut Vec<Value>, what: &str, row: &load::Row) {
    println!(
        "{what:<34} {:>9.0} {:>8.2} {:>8.2} {:>10.0} {:>10.0} {:>9.1}",
        row.rate, row.p50, row.p99, row.engine_us, row.database_us, row.memory
    );
    if row.refused > 0 {
        println!("{:<34} {} answers were not the expected ones", "", row.refused);
    }
    figures.push(json!({
        "what": what, "rate": row.rate, "p50_ms": row.p50, "p99_ms": row.p99, "engine_us": row.engine_us,
        "database_us": row.database_us, "memory_mib": row.memory, "refused": row.refused,
    }));
}

fn ratio(what: &str, part: f64, whole: f64) {
    println!("    {what}: {:.2}", part / whole);
}
