//! What is counted and timed, each quantity by a name of its own. Labels are words of the program (methods, outcomes, route
//! templates), never what a caller sent, so that their number is bounded. It must not know what the numbers are good for.
//!
//! One recorder serves the process: engines that share a process share their counts.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock, PoisonError, RwLock};

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use crate::clock::Stopwatch;
use crate::model::MethodKind;

/// Upper bounds of durations, in seconds.
const SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];
/// Upper bounds of writes that share a commit.
const WRITES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

const REQUESTS: &str = "countersign_requests_total";
const REQUEST_SECONDS: &str = "countersign_request_duration_seconds";
const VERIFICATIONS: &str = "countersign_verifications_total";
const ENROLMENTS: &str = "countersign_enrolments_total";
const PAUSES: &str = "countersign_pauses_total";
const PAUSED: &str = "countersign_paused_users";
const DELIVERIES: &str = "countersign_deliveries_total";
const DELIVERY_SECONDS: &str = "countersign_delivery_duration_seconds";
const WEBHOOKS: &str = "countersign_webhook_attempts_total";
const WEBHOOK_SECONDS: &str = "countersign_webhook_duration_seconds";
const BATCH: &str = "countersign_commit_writes";
const POOL: &str = "countersign_pool_connections";

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Counts from now on; what happened before is not counted.
pub fn begin() {
    HANDLE.get_or_init(|| {
        let buckets = |builder: PrometheusBuilder, name: &str, bounds: &[f64]| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
        };
        let recorder = buckets(PrometheusBuilder::new(), REQUEST_SECONDS, &SECONDS)
            .and_then(|b| buckets(b, DELIVERY_SECONDS, &SECONDS))
            .and_then(|b| buckets(b, WEBHOOK_SECONDS, &SECONDS))
            .and_then(|b| buckets(b, BATCH, &WRITES))
            .expect("the bounds are not empty")
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        describe_counter!(REQUESTS, "Requests answered, by method, route template and status");
        describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "Time from a request's head to its answer");
        describe_counter!(VERIFICATIONS, "Answers to challenges, by method and outcome");
        describe_counter!(ENROLMENTS, "First proofs of pending factors, by method and outcome");
        describe_counter!(PAUSES, "Pauses of guessing that began, by method");
        describe_gauge!(PAUSED, "Users whose guessing pauses now, on all nodes together");
        describe_counter!(DELIVERIES, "Messages handed to gateways, by provider and outcome");
        describe_histogram!(DELIVERY_SECONDS, Unit::Seconds, "Time that a gateway took, by provider");
        describe_counter!(WEBHOOKS, "Attempts to tell a webhook endpoint of an event, by outcome");
        describe_histogram!(WEBHOOK_SECONDS, Unit::Seconds, "Time that such an attempt took");
        describe_histogram!(BATCH, Unit::Count, "Writes that shared one commit (SQLite)");
        describe_gauge!(POOL, Unit::Count, "Connections to the database, by state");
        // What grows from nothing has no rate at first: those that an alert watches begin with a value.
        for method in [MethodKind::Totp, MethodKind::Sms] {
            counter!(PAUSES, "method" => method.as_str()).increment(0);
        }
        Some(handle)
    });
}

/// All of it as Prometheus reads it (text format 0.0.4).
pub fn text() -> String {
    HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds gathered samples into their histograms, so that they take no memory until somebody reads them.
pub fn fold() {
    if let Some(handle) = HANDLE.get().and_then(Option::as_ref) {
        handle.run_upkeep();
    }
}

/// A request was answered; `route` is a template.
pub fn request(method: &'static str, route: &str, status: u16, seconds: f64) {
    let counts = |(counter, histogram): &(Counter, Histogram)| {
        counter.increment(1);
        histogram.record(seconds);
    };
    let known = |routes: &Routes| routes.get(route).and_then(|of| of.get(&(method, status))).map(counts).is_some();
    if known(&REQUESTED.read().unwrap_or_else(PoisonError::into_inner)) {
        return;
    }
    let both = (
        counter!(REQUESTS, "method" => method, "route" => route.to_owned(), "status" => status.to_string()),
        histogram!(REQUEST_SECONDS, "method" => method, "route" => route.to_owned()),
    );
    counts(&both);
    let mut routes = REQUESTED.write().unwrap_or_else(PoisonError::into_inner);
    routes.entry(route.to_owned()).or_default().insert((method, status), both);
}

/// What counts requests, by route, method and status: to look for it among all that is counted costs more than to count.
static REQUESTED: LazyLock<RwLock<Routes>> = LazyLock::new(RwLock::default);
type Routes = HashMap<String, HashMap<(&'static str, u16), (Counter, Histogram)>>;

/// An answer to a challenge was judged, or refused before that.
pub fn verification(method: MethodKind, outcome: &'static str) {
    counter!(VERIFICATIONS, "method" => method.as_str(), "outcome" => outcome).increment(1);
}

/// The first proof of a pending factor was judged.
pub fn enrolment(method: MethodKind, outcome: &'static str) {
    counter!(ENROLMENTS, "method" => method.as_str(), "outcome" => outcome).increment(1);
}

/// A user's guessing pauses from now on.
pub fn pause(method: MethodKind) {
    counter!(PAUSES, "method" => method.as_str()).increment(1);
}

/// How many users' guessing pauses.
pub fn paused(users: i64) {
    gauge!(PAUSED).set(users as f64);
}

/// A gateway took a message, or did not.
pub fn delivery(provider: &'static str, outcome: &'static str, seconds: f64) {
    counter!(DELIVERIES, "provider" => provider, "outcome" => outcome).increment(1);
    histogram!(DELIVERY_SECONDS, "provider" => provider).record(seconds);
}

/// An attempt to tell a webhook endpoint of an event: `delivered`, `retried`, `given_up`, `gone` or `dropped`.
pub fn webhook(outcome: &'static str, seconds: f64) {
    counter!(WEBHOOKS, "outcome" => outcome).increment(1);
    histogram!(WEBHOOK_SECONDS).record(seconds);
}

/// This many writes share a commit.
pub fn batch(writes: usize) {
    histogram!(BATCH).record(writes as f64);
}

/// How the pool of connections is used.
pub fn pool(used: usize, idle: usize) {
    gauge!(POOL, "state" => "used").set(used as f64);
    gauge!(POOL, "state" => "idle").set(idle as f64);
}
