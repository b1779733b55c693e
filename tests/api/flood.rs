//! Flood control by client address (issue 4.1): it holds off who has nothing to show, never a server with its key, and no header
//! of a caller's own names the address.

use std::sync::Arc;

use crate::support::app::{base32, totp};
use crate::support::child::Place;
use crate::support::verbs::text;
use crate::support::{Answer, Caller, Value, World, at_once, json};

/// Calls that are let through at once, by what is counted apart.
const VISITS: usize = 3000;
const DENIALS: usize = 300;

/// So many copies of a call at once; gives how many were told to wait, each of them for how long.
async fn refused(copies: usize, call: impl Fn(usize) -> Caller, path: &str) -> usize {
    let answers = at_once(copies, |n| {
        let (caller, path) = (call(n), path.to_owned());
        async move { caller.get(&path).await }
    })
    .await;
    let told: Vec<Answer> = answers.into_iter().filter(|a| a.status == 429).collect();
    for answer in &told {
        assert!(answer.header("retry-after").is_some_and(|v| v.parse::<i64>().is_ok_and(|s| s >= 1)), "{answer:?}");
    }
    told.len()
}

fn with_key(world: &Arc<World>, key: &str) -> Caller {
    world.caller(key)
}

/// whoever tries API keys is told to wait, whatever it says of its address, and a right key is never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_keys_are_limited_and_a_right_key_never_is() {
    let world = World::start().await;
    let bank = world.bank().await;
    let forged = |n: usize| {
        let address = format!("198.51.{}.{}", n / 250, n % 250);
        let caller = with_key(&world, &format!("sk_live_{n}")).with("x-forwarded-for", &address);
        caller.with("forwarded", &format!("for={address}")).with("x-real-ip", &address)
    };
    assert_eq!(refused(DENIALS + 30, forged, "/v1/users/ann").await, 30);
    let problem = forged(0).get("/v1/users/ann").await.refused(429, "rate_limited");
    assert_eq!(problem["retry_after"], 1);
    world.stranger().get("/v1/users/ann").await.refused(429, "rate_limited");
    assert_eq!(refused(300, |_| bank.server.clone(), "/v1/users/ann").await, 0);
    // Five a second come back.
    world.wait(1);
    assert_eq!(refused(10, forged, "/v1/users/ann").await, 5);
    with_key(&world, "sk_live_x").get("/v1/users/ann").await.refused(429, "rate_limited");
}

/// Pages and client tokens are counted together, by address; servers and what monitors the engine are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_client_tokens_are_limited() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    let guess = with_key(&world, "ct_chl_00000000000070008000000000000000.x");
    assert_eq!(refused(VISITS / 2, |_| guess.clone(), &challenge.path("")).await, 0);
    let page = async |path: &str| {
        let request = world.client.get(world.url(path)).header("x-forwarded-for", "198.51.100.7");
        request.send().await.expect("an answer")
    };
    for _ in 0..VISITS / 2 {
        assert_eq!(page("/challenge/chl_1?token=x").await.status(), 404);
    }
    let told = page("/portal/por_1").await;
    let header = |name: &str| told.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!((told.status().as_u16(), header("retry-after").as_str()), (429, "1"));
    assert!(header("content-type").starts_with("text/html"), "people get a page");
    assert_eq!(refused(20, |_| guess.clone(), &challenge.path("")).await, 20);
    challenge.browser().get(&challenge.path("")).await.refused(429, "rate_limited");
    // None of it concerns those who are not the public.
    bank.get(&challenge.path("")).await.is(200);
    bank.get("/readyz").await.is(200);
    with_key(&world, "sk_live_x").get("/v1/users/ann").await.refused(401, "api_key_invalid");
    world.wait(1);
    challenge.browser().get(&challenge.path("")).await.is(200);
}

/// C-10: where a call has its origin looked up, it is counted before: also one that shows nothing, and only once where it shows a client
/// token. A page can read for how long it has to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_from_pages_are_limited_before_their_origin_is_looked_up() {
    let world = World::start().await;
    let bank = world.bank().await;
    let guess = with_key(&world, "ct_chl_00000000000070008000000000000000.x").with("origin", bank.origin());
    assert_eq!(refused(VISITS / 2, |_| guess.clone(), "/v1/users/ann").await, 0);
    // What shows no token at all is counted as well, by what it may cost: a page of an origin that nobody registered.
    let nobody = world.stranger().with("origin", "https://evil.example");
    for caller in [&nobody, &guess] {
        assert_eq!(refused(VISITS / 4, |_| caller.clone(), "/v1/nothing").await, 0);
    }
    let told = nobody.get("/v1/nothing").await;
    assert_eq!(told.header("access-control-allow-origin"), Some("https://evil.example"));
    told.refused(429, "rate_limited");
    let ask = world.client.request(reqwest::Method::OPTIONS, world.url("/v1/challenges"));
    let told = ask.header("origin", bank.origin()).header("access-control-request-method", "POST").send().await;
    assert_eq!(told.expect("an answer").status(), 429);
    bank.with("origin", bank.origin()).get("/v1/users/ann").await.is(200);
}

/// X-11, 3.38: of a proxy that is listed the address counts that it saw itself; what stands left of it was written by anybody. A
/// subscriber of IPv6 is a /64.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_proxy_only_its_own_word_counts() {
    let trusted = vec!["127.0.0.0/8".parse().expect("a network"), "10.0.0.0/8".parse().expect("a network")];
    let world = World::start_with(|config| config.trusted_proxies = trusted).await;
    let from = |chain: String| with_key(&world, "sk_live_x").with("x-forwarded-for", &chain);
    let one = |n: usize| from(format!("198.51.100.{}, 192.0.2.1, 10.0.0.{}", n % 250, n % 9));
    assert_eq!(refused(DENIALS + 10, one, "/v1/users/ann").await, 10);
    let other = from("192.0.2.1, 192.0.2.2".to_owned());
    other.get("/v1/users/ann").await.refused(401, "api_key_invalid");
    let v6 = |n: usize| from(format!("2001:db8:1:2:{n:x}::{n:x}"));
    assert_eq!(refused(DENIALS + 10, v6, "/v1/users/ann").await, 10);
    from("2001:db8:1:3::1".to_owned()).get("/v1/users/ann").await.refused(401, "api_key_invalid");
    // An entry with a port is an address; what does not read hides what stands left of it.
    let ported = |n: usize| from(format!("198.51.100.{}, 203.0.113.5:{}", n % 250, 40_000 + n));
    assert_eq!(refused(DENIALS + 10, ported, "/v1/users/ann").await, 10);
    let odd = |n: usize| from(format!("198.51.100.{}, unknown, 10.0.0.7", n % 250));
    assert_eq!(refused(DENIALS + 10, odd, "/v1/users/ann").await, 10);
    // The record names the address that counts.
    let ann = world.bank().await.user("ann");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    let browser = challenge.browser().with("x-forwarded-for", "203.0.113.66, 192.0.2.9");
    browser.post(&challenge.path("/verify"), app.miss()).await.refused(422, "code_incorrect");
    world.seal().await;
    let told = ann.bank.get("/v1/events?limit=100&type=verification.failed").await.is(200);
    let event: &Value = &told["data"][0];
    assert_eq!(text(&event["client"]["ip"]), "192.0.2.9", "{event}");
}

/// Hashes that are slow on purpose are computed a core's worth at once, however many ask; the others wait for their turn.
#[tokio::test]
async fn slow_hashes_take_turns() {
    let place = Place::new().await;
    let serve = place.serve().await;
    let bank = place.bank();
    let app = bank.post("/v1/users/ann/factors", json!({"type": "totp"})).await.1;
    let secret = base32(app["totp"]["secret"].as_str().expect("a secret"));
    let code = totp(&secret, countersign::clock::Clock::now(&countersign::clock::SystemClock).seconds() / 30);
    let path = format!("/v1/users/ann/factors/{}/activate", text(&app["id"]));
    assert_eq!(bank.post(&path, json!({"code": code})).await.0, 200);
    assert_eq!(bank.post("/v1/users/ann/recovery-codes", json!({})).await.0, 201);
    let mut challenges = Vec::new();
    for _ in 0..8 {
        challenges.push(text(&bank.post("/v1/challenges", json!({"user_id": "ann"})).await.1["id"]));
    }
    // The runtime's own; what reads SQLite has others.
    let threads = || {
        let all = std::fs::read_dir(format!("/proc/{}/task", serve.id())).expect("it runs").flatten();
        let names = all.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("tokio")).count()
    };
    let before = threads();
    let guesses: Vec<_> = (0..40)
        .map(|n| {
            let (bank, path) = (bank.clone(), format!("/v1/challenges/{}/verify", challenges[n % 8]));
            let wrong = json!({"type": "recovery_code", "code": "0000-0000-0000-0000"});
            tokio::spawn(async move { bank.post(&path, wrong).await.0 })
        })
        .collect();
    let mut most = 0;
    while guesses.iter().any(|guess| !guess.is_finished()) {
        most = most.max(threads());
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    for guess in guesses {
        assert!(matches!(guess.await.expect("no panic"), 422 | 429));
    }
    // A thread that has given its turn away may not be idle yet when the next begins, and another is started: some more than turns,
    // and far from one a guess.
    let cores = std::thread::available_parallelism().expect("cores").get();
    assert!(most <= before + cores + 16, "{before} threads, then {most}");
}
