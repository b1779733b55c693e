//! What an operator sees from outside: metrics that count a story exactly with few labels, and log lines that a machine reads
//! and that name their request. In processes of their own, because metrics are a process's.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::Stopwatch;
use crate::support::app::{base32, early_step, step, totp};
use crate::support::authenticator::Authenticator;
use crate::support::child::{Client, Place, Serve, client, free_port};
use crate::support::gateway::{Gateway, Mood};
use crate::support::verbs::text;

/// One sample line: its name with labels, and its value.
struct Metrics(Vec<(String, f64)>);

impl Metrics {
    async fn read(url: &str) -> Metrics {
        let answer = client().get(url).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"].to_str().expect("ASCII");
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        let body = answer.text().await.expect("text");
        let lines = body.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Metrics(
            lines
                .map(|line| {
                    let (name, value) = line.rsplit_once(' ').expect("a sample");
                    (name.to_owned(), value.parse().expect("a number"))
                })
                .collect(),
        )
    }

    /// The sum of what has this name and all these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let fits =
            |sample: &str| sample.split('{').next() == Some(name) && labels.iter().all(|label| sample.contains(label));
        self.0.iter().filter(|(sample, _)| fits(sample)).map(|(_, value)| value).sum()
    }

    fn names(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn done((status, body): (u16, Value)) -> Value {
    assert!((200..300).contains(&status), "{status} {body}");
    body
}

/// Five wrong answers to a challenge of its own.
async fn guess_five_times(bank: &Client, wrong: &str) {
    let challenge = done(bank.post("/v1/challenges", json!({"user_id": "ann"})).await);
    let verify = format!("/v1/challenges/{}/verify", text(&challenge["id"]));
    for _ in 0..5 {
        assert_eq!(bank.post(&verify, json!({"type": "totp", "code": wrong})).await.0, 422);
    }
}

#[tokio::test]
async fn metrics_count_a_story_exactly() {
    let gateway = Gateway::start().await;
    let mut place = Place::new().await;
    place.set("COUNTERSIGN_SMS_HTTP_URL", gateway.url.as_str());
    let begun = Stopwatch::start();
    let serve = place.serve().await;
    let bank = place.bank();

    let app = done(bank.post("/v1/users/ann/factors", json!({"type": "totp"})).await);
    let secret = base32(&text(&app["totp"]["secret"]));
    let (wrong, activate) =
        (totp(&secret, step(0) + 1000), format!("/v1/users/ann/factors/{}/activate", text(&app["id"])));
    assert_eq!(bank.post(&activate, json!({"code": wrong})).await.0, 422);
    let spent = totp(&secret, early_step().await - 1);
    done(bank.post(&activate, json!({"code": spent})).await);
    let mut device = Authenticator::new("https://bank.example");
    let key = done(bank.post("/v1/users/ann/factors", json!({"type": "webauthn"})).await);
    let credential = device.create(&key["webauthn"]["creation_options"]).expect("no objection");
    done(
        bank.post(&format!("/v1/users/ann/factors/{}/activate", text(&key["id"])), json!({"credential": credential}))
            .await,
    );

    let answer = |code: &str| json!({"user_id": "ann", "answer": {"type": "totp", "code": code}});
    let code = totp(&secret, step(0));
    done(bank.post("/v1/challenges", answer(&code)).await);
    assert_eq!(bank.post("/v1/challenges", answer(&code)).await.0, 422, "a replay");
    assert_eq!(bank.post("/v1/challenges", answer("12")).await.0, 422, "malformed");
    guess_five_times(&bank, &wrong).await;
    guess_five_times(&bank, &wrong).await;
    assert_eq!(bank.post("/v1/challenges", answer(&wrong)).await.0, 429, "paused");

    let phone = |n: u8| json!({"type": "sms", "phone": format!("+1415555012{n}")});
    done(bank.post("/v1/users/ann/factors", phone(1)).await);
    done(bank.post("/v1/users/bob/factors", phone(2)).await);
    gateway.is(Mood::Broken);
    assert_eq!(bank.post("/v1/users/ann/factors", phone(3)).await.0, 503);
    gateway.is(Mood::Refusing);
    assert_eq!(bank.post("/v1/users/ann/factors", phone(4)).await.0, 503);

    let metrics = Metrics::read(&serve.url("/metrics")).await;
    let count = |name: &str, labels: &[&str]| metrics.sum(name, labels);
    let verified = |outcome: &str| count("countersign_verifications_total", &["method=\"totp\"", outcome]);
    assert_eq!(verified("outcome=\"right\""), 1.0);
    assert_eq!(verified("outcome=\"wrong\""), 10.0);
    assert_eq!(verified("outcome=\"replayed\""), 1.0);
    assert_eq!(verified("outcome=\"refused\""), 1.0);
    assert_eq!(verified("outcome=\"paused\""), 1.0);
    assert_eq!(count("countersign_verifications_total", &[]), 14.0);
    assert_eq!(count("countersign_enrolments_total", &["method=\"totp\"", "outcome=\"wrong\""]), 1.0);
    assert_eq!(count("countersign_enrolments_total", &["method=\"totp\"", "outcome=\"right\""]), 1.0);
    assert_eq!(count("countersign_enrolments_total", &["method=\"webauthn\"", "outcome=\"right\""]), 1.0);
    assert_eq!(count("countersign_pauses_total", &["method=\"totp\""]), 1.0);
    let delivered = |outcome: &str| count("countersign_deliveries_total", &["provider=\"http\"", outcome]);
    assert_eq!(delivered("outcome=\"accepted\""), 2.0);
    assert_eq!(delivered("outcome=\"failed\""), 1.0);
    assert_eq!(delivered("outcome=\"rejected\""), 1.0);
    assert_eq!(count("countersign_delivery_duration_seconds_count", &["provider=\"http\""]), 4.0);

    let made = ["method=\"POST\"", "route=\"/v1/challenges\""];
    let requests = |status: &str| count("countersign_requests_total", &[made[0], made[1], status]);
    assert_eq!(requests("status=\"200\""), 1.0);
    assert_eq!(requests("status=\"201\""), 2.0);
    assert_eq!(requests("status=\"422\""), 2.0);
    assert_eq!(requests("status=\"429\""), 1.0);
    assert_eq!(count("countersign_request_duration_seconds_count", &made), 6.0);
    assert_eq!(count("countersign_request_duration_seconds_bucket", &[made[0], made[1], "le=\"+Inf\""]), 6.0);
    assert!(count("countersign_request_duration_seconds_sum", &made) > 0.0);
    let verify = ["route=\"/v1/challenges/{id}/verify\"", "status=\"422\""];
    assert_eq!(count("countersign_requests_total", &verify), 10.0);

    assert!(count("countersign_pool_connections", &[]) >= 1.0);
    if begun.elapsed().as_secs() < 55 {
        assert_eq!(count("countersign_paused_users", &[]), 0.0, "counted once a minute");
    }
    if place.scratch.is_sqlite() {
        let (commits, writes) =
            (count("countersign_commit_writes_count", &[]), count("countersign_commit_writes_sum", &[]));
        assert!(commits >= 20.0 && writes >= commits, "{writes} writes in {commits} commits");
    }
    // Whoever starts afterwards finds the pause where it is kept.
    serve.terminate();
    place.scratch.execute("update throttle_lanes set paused_until = paused_until + 3600000").await;
    let serve = place.serve().await;
    for _ in 0..1000 {
        if Metrics::read(&serve.url("/metrics")).await.sum("countersign_paused_users", &[]) == 1.0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the paused user is not counted");
}

#[tokio::test]
async fn labels_stay_few_whatever_is_asked() {
    let place = Place::new().await;
    let serve = place.serve().await;
    let bank = place.bank();
    let mut known = BTreeSet::new();
    for round in 0..2 {
        for n in 0..500 {
            let n = round * 500 + n;
            bank.get(&format!("/v1/users/user-{n}")).await;
            bank.get(&format!("/nowhere/{n}")).await;
            bank.get(&format!("/v1/challenges/chl_{n}")).await;
            bank.send(&format!("METHOD{n}"), "/v1/challenges", None).await;
            bank.post("/v1/challenges", json!({"user_id": format!("user-{n}"), "action": format!("action-{n}")})).await;
        }
        let metrics = Metrics::read(&serve.url("/metrics")).await;
        let names: BTreeSet<String> = metrics.names().into_iter().map(str::to_owned).collect();
        let more: Vec<_> = names.difference(&known).filter(|_| round > 0).filter(|n| !n.contains("/metrics")).collect();
        assert!(more.is_empty(), "{more:?}");
        assert!(names.len() < 300, "{} series", names.len());
        known = names;
    }
    assert!(known.iter().any(|name| name.contains("method=\"other\"") && name.contains("route=\"/v1/challenges\"")));
    assert!(known.iter().any(|name| name.contains("route=\"unmatched\"") && name.contains("status=\"404\"")));
}

/// Metrics need no key, so only this machine reads them, and only what came straight from it.
#[tokio::test]
async fn metrics_are_for_this_machine_or_for_a_listener_of_their_own() {
    let mut place = Place::new().await;
    let status = async |url: String, header: Option<&str>| {
        let request = client().get(url);
        let request = header.into_iter().fold(request, |r, name| r.header(name, "127.0.0.1"));
        request.send().await.expect("an answer").status().as_u16()
    };
    let serve = place.serve().await;
    assert_eq!(status(serve.url("/metrics"), None).await, 200);
    for header in ["X-Forwarded-For", "Forwarded", "Via"] {
        assert_eq!(status(serve.url("/metrics"), Some(header)).await, 404, "{header}");
    }
    serve.terminate();

    let own = free_port();
    place.set("COUNTERSIGN_METRICS_LISTEN", &format!("127.0.0.1:{own}"));
    let serve = place.serve().await;
    assert_eq!(status(serve.url("/metrics"), None).await, 404);
    let own = |path: &str| format!("http://127.0.0.1:{own}{path}");
    assert_eq!(status(own("/metrics"), Some("X-Forwarded-For")).await, 200);
    assert_eq!(status(own("/livez"), None).await, 404, "nothing else is there");
}

/// What came from elsewhere by a socket that is not this machine's.
#[tokio::test]
async fn metrics_are_not_for_other_machines() {
    let mut place = Place::new().await;
    let Some(here) = address_of_this_machine() else { return };
    place.set("COUNTERSIGN_LISTEN", &format!("0.0.0.0:{}", place.port));
    let serve = place.serve().await;
    let elsewhere = format!("http://{here}:{}/metrics", place.port);
    assert_eq!(client().get(&elsewhere).send().await.expect("an answer").status(), 404);
    assert_eq!(client().get(serve.url("/metrics")).send().await.expect("an answer").status(), 200);
    serve.terminate();
    place.set("COUNTERSIGN_TRUSTED_PROXIES", &here.to_string());
    let _serve = place.serve().await;
    assert_eq!(client().get(&elsewhere).send().await.expect("an answer").status(), 200, "a proxy's own call");
}

/// The address by which others would reach it; `None` where it has none. Nothing is sent.
fn address_of_this_machine() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
}

/// L-03: each line of a request names it, the caller's own id included; what is logged with nothing but warnings does too.
#[tokio::test]
async fn log_lines_are_json_and_name_their_request() {
    let gateway = Gateway::start().await;
    let mut place = Place::new().await;
    place.set("COUNTERSIGN_LOG", "countersign=debug,info");
    place.set("COUNTERSIGN_LOG_FORMAT", "json");
    place.set("COUNTERSIGN_SMS_HTTP_URL", gateway.url.as_str());
    let (lines, id) = one_refused_text(&place, &gateway).await;
    let of_request: Vec<_> = lines.iter().filter(|line| line["span"]["request_id"] == id.as_str()).collect();
    let said = |line: &&&Value, message: &str| line["message"] == message;
    let gateway_line = of_request
        .iter()
        .find(|l| said(l, "a gateway did not take a text"))
        .unwrap_or_else(|| panic!("no line of the gateway: {lines:#?}"));
    assert_eq!(gateway_line["level"], "WARN");
    assert_eq!((&gateway_line["provider"], &gateway_line["outcome"]), (&json!("http"), &json!("failed")));
    let answered = of_request.iter().find(|line| said(line, "answered")).expect("the request's line");
    assert_eq!((&answered["status"], &answered["level"]), (&json!(503), &json!("INFO")));
    assert!(answered["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{answered}");
    assert_eq!(answered["span"]["route"], "/v1/users/{user_id}/factors");
    assert_eq!(answered["span"]["method"], "POST");
    let every = lines.iter().filter(|line| line["message"] == "answered");
    assert!(every.clone().count() >= 3);
    assert!(every.into_iter().all(|line| line["span"]["request_id"].as_str().is_some_and(|id| !id.is_empty())));

    place.set("COUNTERSIGN_LOG", "warn");
    let (lines, id) = one_refused_text(&place, &gateway).await;
    assert!(!lines.is_empty() && lines.iter().all(|line| line["level"] != "INFO"));
    assert!(lines.iter().any(|line| line["span"]["request_id"] == id.as_str()), "{lines:?}");
}

async fn one_refused_text(place: &Place, gateway: &Gateway) -> (Vec<Value>, String) {
    let serve = place.serve().await;
    let bank = match place.answer(&["rp", "list", "--json"]).as_array() {
        Some(all) if !all.is_empty() => place.caller(&place.key("Bank")),
        _ => place.bank(),
    };
    gateway.is(Mood::Broken);
    let (id, secret) = ("req-of-mine.1", "+14155550123");
    let answer = bank
        .client
        .post(format!("{}/v1/users/ann/factors", bank.base))
        .bearer_auth(&bank.token)
        .header("request-id", id)
        .json(&json!({"type": "sms", "phone": secret}))
        .send()
        .await
        .expect("an answer");
    assert_eq!((answer.status().as_u16(), &answer.headers()["request-id"]), (503, &id.parse().expect("a header")));
    bank.get("/v1/users/somebody@example.com").await;
    bank.get("/v1/users/somebody@example.com/sessions").await;
    let log = ended(serve);
    for hidden in [secret, "4155550123", "somebody@example.com", bank.token.as_str()] {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
    let json = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    // What the process says to the person who started it is no log line.
    let lines = log.lines().filter(|line| !line.starts_with("countersign ")).map(json).collect();
    (lines, id.to_owned())
}

fn ended(serve: Serve) -> String {
    let log = serve.log();
    serve.terminate();
    let log = log.lock().expect("no test panics with it");
    log.clone()
}
