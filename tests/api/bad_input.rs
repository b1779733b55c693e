//! Bad input (api.md, 3): thousands of distinct requests that no honest caller sends, on every route of a real process. Each is
//! refused or cut off; none is called the engine's own fault, none fells it, and its memory stays where it was.

mod corpus;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::app::{base32, totp};
use crate::support::child::{Client, Place, Serve};
use crate::support::database::Scratch;
use crate::support::document::{Document, is_of};
use crate::support::gateway::Gateway;
use crate::support::verbs::text;
use crate::support::{Authenticator, Value, json};
use corpus::{Bad, Call, Corpus, Dice};

/// How many are on their way at once.
const AT_ONCE: usize = 24;
/// No answer and no cut after this long is a hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections that say nothing.
const SILENT: usize = 2_000;

/// B-01, B-02, 3.34: whatever the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_and_does_no_harm() {
    let runs: Vec<_> = Scratch::all().await.into_iter().map(|scratch| tokio::spawn(torture(scratch))).collect();
    for run in runs {
        println!("{}", run.await.expect("no panic"));
    }
}

async fn torture(scratch: Scratch) -> String {
    let kind = if scratch.is_sqlite() { "SQLite" } else { "PostgreSQL" };
    let gateway = Gateway::start().await;
    let mut place = Place::on(scratch);
    place.set("COUNTERSIGN_SMS_HTTP_URL", gateway.url.as_str());
    let serve = place.serve().await;
    let bank = place.bank();
    let mut corpus = Corpus::new();
    let admin = place.answer(&["key", "create", "--rp", "Bank", "--scope", "admin", "--json"]);
    let admin = place.caller(&text(&admin["secret"]));
    prepare(&mut corpus, &bank, &admin, serve.port).await;
    let mut faults = Vec::new();
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    let mut sent = HashSet::new();
    let (mut bad, mut odd) = (0, 0);
    let all: Vec<Bad> = corpus.all.into_iter().filter(|b| sent.insert(b.bytes.clone())).collect();
    let half = all.len() / 2;
    let mut before = 0;
    let mut note = |one: &Bad, answers: Option<Vec<u16>>| {
        faults.extend(fault(one, answers.as_deref()));
        let status = answers.and_then(|all| all.first().copied());
        *told.entry(status.map_or("cut".to_owned(), |s| s.to_string())).or_default() += 1;
    };
    let mut under_way: JoinSet<(Bad, Option<Vec<u16>>)> = JoinSet::new();
    for (n, one) in all.into_iter().enumerate() {
        if n == half {
            before = memory(&serve).0;
        }
        if one.is_odd {
            odd += 1
        } else {
            bad += 1
        }
        let port = serve.port;
        under_way.spawn(async move {
            let answers = speak(port, &one).await;
            (one, answers)
        });
        if under_way.len() >= AT_ONCE {
            let (one, answers) = under_way.join_next().await.expect("there are some").expect("no panic");
            note(&one, answers);
        }
    }
    while let Some(done) = under_way.join_next().await {
        let (one, answers) = done.expect("no panic");
        note(&one, answers);
    }
    bad += passkeys(&bank, &mut sent, &mut faults).await;
    pipeline(serve.port).await;
    let log = serve.stderr();
    let panics: Vec<_> = log.lines().filter(|l| l.contains("panicked")).take(5).collect();
    assert!(panics.is_empty(), "{panics:#?}");
    faults.sort();
    assert!(faults.is_empty(), "{} of {bad} and {odd}:\n{}", faults.len(), faults[..faults.len().min(60)].join("\n"));
    assert!(bad >= 5_000, "only {bad}");
    let (after, highest) = memory(&serve);
    assert!(after <= before + 24 * 1024, "{before} KiB, then {after}");
    let crowded = patience(&serve, &bank).await;
    assert_eq!(bank.get("/v1/users/ann").await.0, 200);
    format!(
        "{kind}: {bad} bad and {odd} odd requests, all distinct: {told:?}; {before} KiB resident at half time, {after} at the end, {highest} at most, {crowded} with {SILENT} silent connections"
    )
}

/// What is wrong with how a request was taken.
fn fault(one: &Bad, answers: Option<&[u16]>) -> Option<String> {
    let how = match answers {
        None => "no answer and no cut".to_owned(),
        Some(statuses) => match statuses.iter().find(|s| **s >= 500 || (!one.is_odd && **s < 400)) {
            Some(status) => status.to_string(),
            None => return None,
        },
    };
    Some(format!("{how}: {}", one.what))
}

/// The statuses of all that comes back until the connection ends.
async fn speak(port: u16, one: &Bad) -> Option<Vec<u16>> {
    let mut stream = from_somewhere(port).await;
    let (mut reader, mut writer) = stream.split();
    let mut got = Vec::new();
    let write = async {
        // The engine may have hung up by now, which is an answer.
        let _ = writer.write_all(&one.bytes).await;
        if one.ends {
            let _ = writer.shutdown().await;
        }
    };
    let both = async { tokio::join!(write, reader.read_to_end(&mut got)).1 };
    tokio::time::timeout(PATIENCE, both).await.ok()?.ok();
    Some(statuses(&got))
}

/// A connection from an address of its own, so that no limit of addresses spares the engine the rest.
async fn from_somewhere(port: u16) -> TcpStream {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let [_, a, b, c] = (COUNT.fetch_add(1, Ordering::Relaxed) * 5 + 258).to_be_bytes();
    let socket = TcpSocket::new_v4().expect("a socket");
    // Where the loopback has one address only, the limit holds.
    let _ = socket.bind(SocketAddr::from(([127, a, b, c], 0)));
    socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.expect("it accepts")
}

fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    text.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// KiB that are resident now, and at most so far; zeros where the system does not say.
fn memory(serve: &Serve) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", serve.id())).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    (of("VmRSS:").unwrap_or(0), of("VmHWM:").unwrap_or(0))
}

/// A person with everything, and all that can be asked about them, spoilt.
async fn prepare(corpus: &mut Corpus, bank: &Client, admin: &Client, port: u16) {
    let begun = async |body: Value| bank.post("/v1/users/ann/factors", body).await.1;
    let app = begun(json!({"type": "totp"})).await;
    let secret = base32(app["totp"]["secret"].as_str().expect("a secret"));
    let step = countersign::clock::Clock::now(&countersign::clock::SystemClock).seconds() / 30;
    let activate = format!("/v1/users/ann/factors/{}/activate", text(&app["id"]));
    assert_eq!(bank.post(&activate, json!({"code": totp(&secret, step)})).await.0, 200);
    let pending = text(&begun(json!({"type": "totp"})).await["id"]);
    let passkey = text(&begun(json!({"type": "webauthn"})).await["id"]);
    let phone = text(&begun(json!({"type": "sms", "phone": "+14155550123"})).await["id"]);
    let opened = async || bank.post("/v1/challenges", json!({"user_id": "ann"})).await.1;
    let challenge = format!("/v1/challenges/{}", text(&opened().await["id"]));
    let cancelled = format!("/v1/challenges/{}", text(&opened().await["id"]));
    let session = "ses_00000000000070008000000000000000";
    let hooks = "/v1/webhook-endpoints";
    let hook = {
        let made = admin.post(hooks, json!({"url": "https://hooks.invalid/hooks"})).await;
        assert_eq!(made.0, 201, "{}", made.1);
        format!("{hooks}/{}", text(&made.1["id"]))
    };
    let unknown = format!("{hooks}/whk_00000000000070008000000000000000");
    let factors = "/v1/users/ann/factors";
    let credential = json!({"id": "AAAA", "rawId": "AAAA", "type": "public-key", "clientExtensionResults": {}, "authenticatorAttachment": "platform",
        "response": {"clientDataJSON": "e30", "attestationObject": "oA", "authenticatorData": "AAAA", "signature": "AAAA", "userHandle": "AAAA", "transports": ["usb"]}});
    let of = |method: &str, path: String, body: Value| Call {
        method: method.to_owned(),
        path,
        token: bank.token.clone(),
        body,
    };
    let post = |path: String, body: Value| of("POST", path, body);
    let calls = [
        post(
            "/v1/challenges".to_owned(),
            json!({"user_id": "ann", "action": "pay", "require": {"acr": "aal2", "max_age": 600, "methods": ["totp"]},
            "display": {"label": "Pay", "details": [{"label": "IBAN", "value": "1234"}]}, "single_use": true, "audience": ["https://api.example.com"],
            "session_token": "st_x", "binding": "b", "client": {"ip": "1.1.1.1", "user_agent": "x", "device": "y"},
            "return_url": "https://bank.example/back", "state": "s", "code_challenge": "A".repeat(43),
            "answer": {"type": "totp", "code": "12", "factor_id": text(&app["id"])}}),
        ),
        post(format!("{challenge}/prepare"), json!({"type": "sms", "factor_id": phone})),
        post(format!("{challenge}/verify"), json!({"type": "totp", "code": "12", "factor_id": text(&app["id"])})),
        post(format!("{challenge}/verify"), json!({"type": "webauthn", "credential": credential})),
        post(format!("{challenge}/exchange"), json!({"code": "x", "code_verifier": "y"})),
        post(format!("{cancelled}/cancel"), Value::Null),
        of("GET", challenge.clone(), Value::Null),
        post(factors.to_owned(), json!({"type": "totp", "name": "App"})),
        post(factors.to_owned(), json!({"type": "webauthn", "name": "Key", "authenticator": "any"})),
        post(factors.to_owned(), json!({"type": "sms", "phone": "+14155550124", "name": "Phone"})),
        of("GET", factors.to_owned(), Value::Null),
        of("GET", format!("{factors}/{pending}"), Value::Null),
        of("PATCH", format!("{factors}/{pending}"), json!({"name": "New"})),
        of("DELETE", format!("/v1/users/zoe/factors/{pending}"), Value::Null),
        post(format!("{factors}/{pending}/activate"), json!({"code": "12"})),
        post(format!("{factors}/{passkey}/activate"), json!({"credential": credential})),
        post(format!("{factors}/{phone}/resend"), Value::Null),
        post("/v1/users/ann/recovery-codes".to_owned(), json!({"require_confirmation": true})),
        post("/v1/users/ann/recovery-codes/confirm".to_owned(), Value::Null),
        of("GET", "/v1/users/ann/recovery-codes".to_owned(), Value::Null),
        of("GET", "/v1/users/ann".to_owned(), Value::Null),
        of(
            "PUT",
            "/v1/users/ann".to_owned(),
            json!({"display_name": "Ann", "login_hint": "ann@bank.example", "locale": "en"}),
        ),
        of("DELETE", "/v1/users/zoe".to_owned(), Value::Null),
        of("GET", "/v1/users/ann/sessions".to_owned(), Value::Null),
        of("DELETE", "/v1/users/zoe/sessions".to_owned(), Value::Null),
        post(
            "/v1/sessions/introspect".to_owned(),
            json!({"token": "st_x", "action": "pay", "require": {"acr": "phr", "max_age": 5, "methods": ["sms"]}, "consume": true}),
        ),
        of("GET", "/v1/events".to_owned(), Value::Null),
        of("GET", format!("/v1/sessions/{session}"), Value::Null),
        of("DELETE", format!("/v1/sessions/{session}"), Value::Null),
        post(
            "/v1/portal-sessions".to_owned(),
            json!({"user_id": "ann", "flow": "settings", "return_url": "https://bank.example/back", "session_token": "st_x"}),
        ),
    ];
    let of = |method: &str, path: String, body: Value| Call { token: admin.token.clone(), ..of(method, path, body) };
    let webhooks = [
        of(
            "POST",
            hooks.to_owned(),
            json!({"url": "https://hooks.invalid/hooks", "events": ["factor.added"], "description": "x"}),
        ),
        of("GET", hooks.to_owned(), Value::Null),
        of("GET", hook.clone(), Value::Null),
        of(
            "PATCH",
            hook.clone(),
            json!({"url": "https://hooks.invalid/", "events": ["factor.added"], "description": "x", "status": "enabled"}),
        ),
        of("DELETE", unknown, Value::Null),
        of("POST", format!("{hook}/rotate-secret"), Value::Null),
        of("POST", format!("{hook}/test"), Value::Null),
        of("GET", format!("{hook}/deliveries"), Value::Null),
    ];
    let calls: Vec<Call> = calls.into_iter().chain(webhooks).collect();
    let document = Document::new(bank.get("/openapi.json").await.1);
    let mut dice = Dice(u64::from(port));
    for (method, template) in document.calls() {
        let of_this: Vec<_> = calls.iter().filter(|c| c.method == method && is_of(&c.path, &template)).collect();
        let is_public = !template.starts_with("/v1");
        assert!(is_public || !of_this.is_empty(), "no call of {method} {template}");
        let public = Call { token: String::new(), ..of(&method, template.clone(), Value::Null) };
        if is_public {
            corpus.heads(&public);
        }
        for call in of_this {
            if call.takes_body() {
                corpus.bodies(call, &mut dice);
            }
            corpus.heads(call);
            let is_list = method == "GET"
                && ["/factors", "/sessions", "/events", "/webhook-endpoints", "/deliveries"]
                    .iter()
                    .any(|end| template.ends_with(end));
            corpus.paths(call, &template, is_list);
        }
    }
    corpus.lines();
    pages(corpus, bank, &challenge).await;
}

/// The hosted pages, as a stranger and as the browser that opened the link.
async fn pages(corpus: &mut Corpus, bank: &Client, challenge: &str) {
    let challenge = challenge.replace("/v1/challenges", "/challenge");
    for below in ["", "/options", "/credential"] {
        corpus.pages(&format!("{challenge}{below}"), None, "");
    }
    let opened = bank.post("/v1/challenges", json!({"user_id": "ann"})).await.1;
    let visit = bank.post("/v1/portal-sessions", json!({"user_id": "pat", "flow": "settings"})).await.1;
    let portal = [
        "",
        "/settings",
        "/authenticator-app",
        "/phone",
        "/recovery-codes",
        "/recovery-codes/file",
        "/added",
        "/passkey/options",
        "/passkey/credential",
    ];
    for (opened, below) in [(opened, &["", "/options", "/credential"][..]), (visit, &portal[..])] {
        let url: url::Url = opened["url"].as_str().expect("a link").parse().expect("an address");
        let base = url.path().to_owned();
        let token = url.query_pairs().find(|(name, _)| name == "token").expect("a token").1.into_owned();
        let browser = reqwest::Client::builder().tls_certs_only([]).redirect(reqwest::redirect::Policy::none()).build();
        let browser = browser.expect("a client");
        let form = browser.post(format!("{}{base}", bank.base)).form(&[("token", token)]);
        let opened = form.send().await.expect("an answer");
        let cookie =
            opened.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a cookie").to_owned();
        // Some of its pages hold no form.
        let mut guard = String::new();
        for below in below {
            let page = browser.get(format!("{}{base}{below}", bank.base)).header("cookie", &cookie).send().await;
            let page = page.expect("an answer").text().await.expect("text");
            let rest = page.split("name=\"guard\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
            guard = rest.map_or(guard, str::to_owned);
        }
        assert!(!guard.is_empty(), "no form of {base}");
        for below in below {
            corpus.pages(&format!("{base}{below}"), Some(&cookie), &guard);
        }
    }
}

// --- passkeys ---

/// Answers of authenticators, cut, torn and swollen.
async fn passkeys(bank: &Client, sent: &mut HashSet<Vec<u8>>, faults: &mut Vec<String>) -> usize {
    let mut dice = Dice(7);
    let mut device = Authenticator::new("https://bank.example");
    let begin = async |user: &str| bank.post(&format!("/v1/users/{user}/factors"), json!({"type": "webauthn"})).await.1;
    let mut count = 0;
    let mut tried = async |path: String, body: Value, is_odd: bool, what: &str| {
        sent.insert(format!("{path} {body}").into_bytes());
        let (status, answer) = bank.post(&path, body).await;
        if status >= 500 || (!is_odd && status < 400) {
            faults.push(format!("{status}: {what}: {answer}"));
        }
        status
    };
    for field in ["/response/attestationObject", "/response/clientDataJSON", "/rawId", "/id"] {
        for n in 0..60 {
            let user = format!("w{count}-{n}");
            let begun = begin(&user).await;
            let whole = device.create(&begun["webauthn"]["creation_options"]).expect("the browser has no objection");
            device.credentials.pop();
            let (spoilt, is_bit) = spoil(&whole, field, n, &mut dice);
            // Without attestation nobody vouches for the model, nor for members that are unknown.
            let is_odd = is_bit && field.starts_with("/response");
            let path = format!("/v1/users/{user}/factors/{}/activate", text(&begun["id"]));
            tried(path, json!({"credential": spoilt}), is_odd, field).await;
            count += usize::from(!is_odd);
        }
    }
    let begun = begin("wanda").await;
    let whole = device.create(&begun["webauthn"]["creation_options"]).expect("the browser has no objection");
    let path = format!("/v1/users/wanda/factors/{}/activate", text(&begun["id"]));
    assert_eq!(bank.post(&path, json!({"credential": whole})).await.0, 200);
    let asked = async || {
        let opened = bank.post("/v1/challenges", json!({"user_id": "wanda"})).await.1;
        let path = format!("/v1/challenges/{}", text(&opened["id"]));
        let options = bank.post(&format!("{path}/prepare"), json!({"type": "webauthn"})).await.1;
        (format!("{path}/verify"), options["webauthn"]["request_options"].clone())
    };
    for field in ["/response/authenticatorData", "/response/clientDataJSON", "/response/signature", "/rawId"] {
        for n in 0..60 {
            let (path, options) = asked().await;
            let whole = device.get(&options).expect("the browser has no objection");
            let spoilt = spoil(&whole, field, n, &mut dice).0;
            tried(path, json!({"type": "webauthn", "credential": spoilt}), false, field).await;
            count += 1;
        }
    }
    let (path, options) = asked().await;
    let whole = device.get(&options).expect("the browser has no objection");
    assert_eq!(
        bank.post(&path, json!({"type": "webauthn", "credential": whole})).await.0,
        200,
        "the truth is told apart"
    );
    count
}

/// One member of a credential spoilt in the nth way; whether a single bit is all that changed.
fn spoil(whole: &Value, field: &str, n: usize, dice: &mut Dice) -> (Value, bool) {
    let mut spoilt = whole.clone();
    let member = spoilt.pointer_mut(field).expect("it stands there");
    let good = text(member);
    let mut bytes = URL_SAFE_NO_PAD.decode(&good).expect("base64url");
    let bombs: [&[u8]; 12] = [
        b"",
        b"\xa0",
        b"\xf6",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff\x00",
        b"\xbf\xff",
        b"\x5f\x41\x00\xff",
        b"\xa2\x61\x61\x01\x61\x61\x02",
        b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
        b"\xc2\x49\x01",
        b"{\"type\":\"webauthn.get\"}",
    ];
    let (text, is_bit) = match n {
        0..12 => (URL_SAFE_NO_PAD.encode(bombs[n]), false),
        12 => (URL_SAFE_NO_PAD.encode(vec![0x81; 20_000]), false),
        13 => (URL_SAFE_NO_PAD.encode(b"\xa1\x61a".repeat(10_000)), false),
        14 => (URL_SAFE_NO_PAD.encode(vec![0x41; 60_000]), false),
        15..20 => (["=", "%%%", "A", "\u{e9}", "a b"][n - 15].to_owned(), false),
        20 => (format!("{good}===="), false),
        21 => (good[..good.len() - 1].to_owned(), false),
        22 => (format!("{good}AAAA"), false),
        23 => (format!("+/{good}"), false),
        24..42 => {
            bytes.truncate(dice.below(bytes.len()));
            (URL_SAFE_NO_PAD.encode(&bytes), false)
        }
        _ => {
            let place = dice.below(bytes.len());
            bytes[place] ^= 1 << dice.below(8);
            (URL_SAFE_NO_PAD.encode(&bytes), true)
        }
    };
    *member = json!(text);
    (spoilt, is_bit)
}

// --- connections ---

/// Requests that do not wait for each other are answered in turn, and what is bad among them ends it.
async fn pipeline(port: u16) {
    let good = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let ask = async |bytes: String| {
        let one = Bad { what: String::new(), bytes: bytes.into_bytes(), is_odd: true, ends: false };
        speak(port, &one).await.expect("it ends")
    };
    assert_eq!(ask(good.repeat(500) + last).await, vec![200; 501]);
    assert_eq!(ask(format!("{good}{good}GET /\0 HTTP/1.1\r\n\r\n{good}")).await, [200, 200, 400]);
    let smuggled =
        "POST /v1/challenges HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n";
    let statuses = ask(format!("{smuggled}{last}")).await;
    assert!(statuses.len() == 1 && statuses[0] / 100 == 4, "{statuses:?}");
}

/// Those who say nothing, or say it slowly, keep nobody else from being answered, and are cut off. How much memory they took.
async fn patience(serve: &Serve, bank: &Client) -> u64 {
    let port = serve.port;
    let slow = |start: String, every: u64, drop: &'static [u8]| async move {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it accepts");
        let (mut reader, mut writer) = stream.split();
        let mut got = Vec::new();
        let write = async {
            let _ = writer.write_all(start.as_bytes()).await;
            loop {
                tokio::time::sleep(Duration::from_millis(every)).await;
                if writer.write_all(drop).await.is_err() {
                    return std::future::pending::<()>().await;
                }
            }
        };
        let ended = async {
            tokio::select! {
                () = write => {}
                _ = reader.read_to_end(&mut got) => {}
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, ended).await.is_ok();
        (in_time, statuses(&got))
    };
    let head = format!(
        "POST /v1/challenges HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n",
        bank.token
    );
    let mut slow_ones = JoinSet::new();
    for every in [100, 400, 900] {
        slow_ones.spawn(slow("GET /livez HTTP/1.1\r\nx: ".to_owned(), every, b"y"));
        slow_ones.spawn(slow("GE".to_owned(), every, b"T"));
        slow_ones.spawn(slow(format!("{head}content-length: 100000\r\n\r\n{{"), every, b" "));
        slow_ones.spawn(slow(format!("{head}transfer-encoding: chunked\r\n\r\n"), every, b"1\r\n \r\n"));
        slow_ones.spawn(slow(format!("{head}idempotency-key: k\r\ncontent-length: 100000\r\n\r\n{{"), every, b" "));
        let form = "POST /challenge/chl_00000000000070008000000000000000 HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 9999\r\n\r\n";
        slow_ones.spawn(slow(form.to_owned(), every, b"a"));
    }
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.expect("2,000 files may be open: ulimit -n"));
    }
    for _ in 0..50 {
        // Before they are cut off, which is after 15 seconds.
        let answer = tokio::time::timeout(Duration::from_secs(8), bank.get("/v1/users/ann")).await;
        assert_eq!(answer.expect("it answers others meanwhile").0, 200);
    }
    let crowded = memory(serve).0;
    for mut stream in silent {
        let mut got = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await;
        assert!(ended.is_ok() && got.is_empty(), "a silent connection is cut off");
    }
    while let Some(slow) = slow_ones.join_next().await {
        let (in_time, statuses) = slow.expect("no panic");
        assert!(in_time && statuses.iter().all(|s| s / 100 == 4), "{in_time}: {statuses:?}");
    }
    crowded
}
