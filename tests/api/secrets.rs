//! Secrets stay where they belong: a whole story at the most talkative log, then a search for everything that was secret in
//! it; and sealed values that are moved to where they do not belong (standards E-01 to E-03, L-03, 3.28, 3.35).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use countersign::config::Database;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::app::{base32, totp};
use crate::support::authenticator::Authenticator;
use crate::support::child::{Client, Place};
use crate::support::gateway::{Gateway, Text};
use crate::support::verbs::text;
use crate::support::{User, World};

/// What was secret in the story, each with a name for the report.
#[derive(Default)]
struct Secrets(Vec<(&'static str, Vec<u8>)>);

impl Secrets {
    fn keep(&mut self, name: &'static str, value: impl AsRef<[u8]>) {
        self.0.push((name, value.as_ref().to_vec()));
    }

    /// A text: its code, each of its lines that holds the code, and the whole of it. Gives the code.
    fn keep_text(&mut self, text: &Text) -> String {
        let code = text.code();
        self.keep("a text's six digits", &code);
        self.keep("a text", &text.text);
        let lines: Vec<_> = text.text.lines().filter(|line| line.contains(&code)).collect();
        assert_eq!(lines.len(), 2, "{}", text.text);
        lines.into_iter().for_each(|line| self.keep("a line of a text", line));
        code
    }

    /// Those that occur in these bytes: as they are, in hexadecimal, or in any usual base.
    fn in_bytes(&self, haystack: &[u8]) -> Vec<String> {
        let haystack = letters(haystack);
        let mut all = Vec::new();
        for (name, secret) in &self.0 {
            if name.ends_with("six digits") {
                all.extend(is_word_in(&letters(secret), &haystack).then(|| (*name).to_owned()));
                continue;
            }
            let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
            let forms = [
                ("as it is", letters(secret)),
                ("in hexadecimal", hex.clone()),
                ("in upper hexadecimal", hex.to_uppercase()),
                ("in base64", STANDARD_NO_PAD.encode(secret)),
                ("in base64url", URL_SAFE_NO_PAD.encode(secret)),
                ("in base32", in_base32(secret)),
                ("as a list of numbers", format!("{secret:?}")),
            ];
            all.extend(
                forms.iter().find(|(_, form)| haystack.contains(form)).map(|(form, _)| format!("{name} {form}")),
            );
        }
        all
    }
}

/// Each byte as one letter, so that bytes can be searched like text.
fn letters(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// Six digits occur by chance within times, numbers and ids: they count where they stand alone.
fn is_word_in(digits: &str, text: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'));
    text.match_indices(digits).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + digits.len()..].chars().next());
        !joins(before) && !joins(after)
    })
}

/// E-01, L-03, T-13, P-18, R-02, K-01, 3.28.
#[tokio::test]
async fn no_secret_is_in_the_log_the_database_or_a_list() {
    let gateway = Gateway::start().await;
    let mut place = Place::new().await;
    place.set("COUNTERSIGN_LOG", "trace");
    place.set("COUNTERSIGN_SMS_HTTP_URL", gateway.url.as_str());
    let mut secrets = Secrets::default();
    let master = place.setting("COUNTERSIGN_MASTER_KEY").to_owned();
    secrets.keep("the master key", URL_SAFE_NO_PAD.decode(&master).expect("base64url"));
    secrets.keep("the master key's text", &master);
    let serve = place.serve().await;
    let bank = place.bank();
    secrets.keep("an API key", &bank.token);
    tell(&bank, &gateway, &mut secrets).await;
    let mut lists = lists(&bank, &place).await;
    let metrics = bank.client.get(serve.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains("countersign_verifications_total{method=\"sms\",outcome=\"right\"} 1"), "{metrics}");
    lists.push(metrics);
    let log = serve.log();
    serve.terminate();
    let stderr = log.lock().expect("no test panics with it").clone();
    assert!(stderr.len() > 10_000 && stderr.contains("TRACE"), "the log is at its most talkative");
    assert!(secrets.0.len() > 25, "{} secrets", secrets.0.len());

    assert_eq!(secrets.in_bytes(stderr.as_bytes()), [] as [String; 0], "in the log");
    for list in lists {
        assert_eq!(secrets.in_bytes(list.as_bytes()), [] as [String; 0], "in {list}");
    }
    let Database::Sqlite(path) = &place.scratch.storage.database else { return };
    // Six digits are in a file of this size by chance; the texts around them are not.
    secrets.0.retain(|(name, _)| !name.ends_with("six digits"));
    let mut bytes = std::fs::read(path).expect("the file reads");
    // An engine that ends in good order takes its log with it.
    let log = std::path::PathBuf::from(format!("{}-wal", path.display()));
    if log.exists() {
        bytes.extend(std::fs::read(log).expect("the log reads"));
    }
    assert_eq!(secrets.in_bytes(&bytes), [] as [String; 0], "in the file");
    let has = |word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
    assert!(!has(b"otpauth:") && has(b"https://bank.example"), "what is no secret is found");
}

/// Enrols and proves by every method, wrongly too, and keeps all that nobody else may learn.
async fn tell(bank: &Client, gateway: &Gateway, secrets: &mut Secrets) {
    let now = || countersign::clock::Clock::now(&countersign::clock::SystemClock).seconds() / 30;
    let user = "/v1/users/ann";
    let done = |(status, body): (u16, Value)| {
        assert!((200..300).contains(&status), "{status} {body}");
        body
    };
    let app = done(bank.post(&format!("{user}/factors"), json!({"type": "totp"})).await);
    let secret = base32(app["totp"]["secret"].as_str().expect("a secret"));
    secrets.keep("a seed", &secret);
    secrets.keep("a seed's text", text(&app["totp"]["secret"]));
    let activate = |factor: &Value| format!("{user}/factors/{}/activate", text(&factor["id"]));
    let wrong = totp(&secret, now() + 1000);
    bank.post(&activate(&app), json!({"code": wrong})).await;
    let code = totp(&secret, now());
    secrets.keep("an app's six digits", &code);
    secrets.keep("a wrong app's six digits", &wrong);
    done(bank.post(&activate(&app), json!({"code": code})).await);

    let phone = done(bank.post(&format!("{user}/factors"), json!({"type": "sms", "phone": "+14155550123"})).await);
    secrets.keep("a phone number", "+14155550123");
    secrets.keep("a phone number without its plus", "14155550123");
    secrets.keep("a phone number without its country", "4155550123");
    let code = secrets.keep_text(&gateway.last("+14155550123"));
    done(bank.post(&activate(&phone), json!({"code": code})).await);

    let passkey = done(bank.post(&format!("{user}/factors"), json!({"type": "webauthn"})).await);
    let options = &passkey["webauthn"]["creation_options"];
    secrets.keep("a ceremony's challenge", text(&options["challenge"]));
    let mut device = Authenticator::new("https://bank.example");
    let credential = device.create(options).expect("no objection");
    done(bank.post(&activate(&passkey), json!({"credential": credential})).await);

    let codes = done(bank.post(&format!("{user}/recovery-codes"), json!({})).await);
    for code in codes["codes"].as_array().expect("codes") {
        secrets.keep("a recovery code", text(code));
        secrets.keep("a recovery code without dashes", text(code).replace('-', ""));
    }
    let mut challenges = Vec::new();
    for _ in 0..4 {
        let challenge = done(bank.post("/v1/challenges", json!({"user_id": "ann"})).await);
        secrets.keep("a client token", text(&challenge["client_token"]));
        let link = text(&challenge["url"]);
        secrets.keep("a link token", link.split("token=").last().expect("a token"));
        challenges.push(text(&challenge["id"]));
    }
    let path = |n: usize, verb: &str| format!("/v1/challenges/{}/{verb}", challenges[n]);
    let options = done(bank.post(&path(0, "prepare"), json!({"type": "webauthn"})).await);
    let options = &options["webauthn"]["request_options"];
    let answer = json!({"type": "webauthn", "credential": device.get(options).expect("no objection")});
    let mut proven = vec![done(bank.post(&path(0, "verify"), answer).await)];
    // The text's own gap keeps a second one from being sent at once, but another challenge has a gap of its own.
    done(bank.post(&path(1, "prepare"), json!({"type": "sms"})).await);
    let code = secrets.keep_text(&gateway.last("+14155550123"));
    bank.post(&path(1, "verify"), json!({"type": "sms", "code": "x1"})).await;
    proven.push(done(bank.post(&path(1, "verify"), json!({"type": "sms", "code": code})).await));
    let recovery = json!({"type": "recovery_code", "code": codes["codes"][0]});
    proven.push(done(bank.post(&path(2, "verify"), recovery).await));
    bank.post(&path(3, "verify"), json!({"type": "recovery_code", "code": codes["codes"][0]})).await;
    bank.send("POST", &path(3, "verify"), Some(json!({"type": "totp", "code": ["CANARY-in-a-list"]}))).await;
    secrets.keep("what was malformed", "CANARY-in-a-list");
    for answer in &proven {
        let session = &answer["session"];
        secrets.keep("a session token", text(&session["token"]));
        secrets.keep("a JWT", text(&session["jwt"]));
        done(bank.post("/v1/sessions/introspect", json!({"token": session["token"]})).await);
        done(bank.post("/v1/sessions/introspect", json!({"token": session["jwt"]})).await);
    }
    let portal = done(bank.post("/v1/portal-sessions", json!({"user_id": "ann", "flow": "settings"})).await);
    secrets.keep("a portal's client token", text(&portal["client_token"]));
    secrets.keep("a portal's link token", text(&portal["url"]).split("token=").last().expect("a token"));
    // By the browser, and the code that it carries back.
    let challenge = done(bank.post("/v1/challenges", json!({"user_id": "ann"})).await);
    let browser = Client { token: text(&challenge["client_token"]), ..bank.clone() };
    let verify = format!("/v1/challenges/{}/verify", text(&challenge["id"]));
    let recovery = json!({"type": "recovery_code", "code": codes["codes"][1]});
    let code = done(browser.post(&verify, recovery).await);
    secrets.keep("a code for exchange", text(&code["code"]));
    done(bank.post(&verify.replace("verify", "exchange"), json!({"code": code["code"]})).await);
    let stranger = Client { token: format!("{}x", bank.token), ..bank.clone() };
    stranger.get(user).await;
}

/// Every answer that shows something again.
async fn lists(bank: &Client, place: &Place) -> Vec<String> {
    let mut all = Vec::new();
    for path in ["", "/factors", "/recovery-codes", "/sessions"] {
        let (status, body) = bank.get(&format!("/v1/users/ann{path}")).await;
        assert_eq!(status, 200);
        for factor in body["data"].as_array().into_iter().flatten().filter(|f| f["type"].is_string()) {
            all.push(bank.get(&format!("/v1/users/ann/factors/{}", text(&factor["id"]))).await.1.to_string());
        }
        for session in body["data"].as_array().into_iter().flatten().filter(|s| s["amr"].is_array()) {
            all.push(bank.get(&format!("/v1/sessions/{}", text(&session["id"]))).await.1.to_string());
        }
        all.push(body.to_string());
    }
    // The events come by themselves, once they are a second old.
    let mut told = String::new();
    for _ in 0..100 {
        let (status, body) = bank.get("/v1/events?limit=100").await;
        assert_eq!(status, 200);
        told = body.to_string();
        if told.contains("portal_session.created") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(told.contains("portal_session.created") && told.contains("verification.failed"), "{told}");
    all.push(told);
    for command in [&["rp", "list"][..], &["key", "list"], &["user", "show", "--rp", "Bank", "ann"], &["doctor"]] {
        all.push(place.run(command).stdout);
        all.push(place.run(&[command, &["--json"]].concat()).stdout);
    }
    all
}

/// E-03, 3.35: what was sealed for one row does not open in another.
#[tokio::test]
async fn sealed_values_that_were_swapped_prove_nothing() {
    let world = World::start().await;
    let bank = world.bank().await;
    let (ann, bob) = (bank.user("ann"), bank.user("bob"));
    let (of_ann, of_bob) = (ann.enrol_totp().await, bob.enrol_totp().await);
    let (mut key_of_ann, key_of_bob) = (ann.enrol_passkey().await, bob.enrol_passkey().await);
    let phone_of_ann = ann.enrol_phone("+14155550123").await;
    let phone_of_bob = bob.enrol_phone("+14155550124").await;
    let open = |user: &User| {
        let user = user.clone();
        async move { user.challenge(json!({})).await }
    };
    let before = open(&ann).await;
    let prepared = key_of_ann.answer(&before).await;
    for (one, two) in [(&of_ann.id, &of_bob.id), (&key_of_ann.id, &key_of_bob.id), (&phone_of_ann.id, &phone_of_bob.id)]
    {
        swap(&world, one, two).await;
    }
    world.wait(60);
    // Neither by the own code nor by that of the one whose seed lies there now.
    for code in [of_ann.code(), of_bob.code()] {
        open(&ann).await.verify(json!({"type": "totp", "code": code})).await.refused(422, "code_incorrect");
    }
    let refused = before.verify(prepared).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let refused = open(&ann).await.prepare(json!({"type": "webauthn"})).await;
    assert!(matches!(refused.status, 200 | 422), "{}", refused.body);
    let sent = world.gateway.asked();
    let refused = open(&ann).await.text().await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_eq!(world.gateway.asked(), sent, "nothing went to another's phone");
    ann.shown().await;
    // Put right again, all is well.
    swap(&world, &of_ann.id, &of_bob.id).await;
    ann.session(&of_ann, json!({})).await;
    bob.session(&of_bob, json!({})).await;
}

/// E-02: one altered bit closes a factor, and nothing else.
#[tokio::test]
async fn an_altered_bit_closes_the_factor_and_no_other() {
    let world = World::start().await;
    let ann = world.bank().await.user("ann");
    let (closed, open) = (ann.enrol_totp().await, ann.enrol_totp().await);
    let mut sealed = sealed(&world, &closed.id).await;
    let last = sealed.len() - 1;
    sealed[last] ^= 1;
    put(&world, &closed.id, &sealed).await;
    world.wait(30);
    ann.challenge(json!({})).await.verify(closed.now()).await.refused(422, "code_incorrect");
    ann.session(&open, json!({})).await;
    put(&world, &closed.id, b"").await;
    ann.challenge(json!({})).await.verify(closed.answer()).await.refused(422, "code_incorrect");
    ann.session(&open, json!({})).await;
    ann.remove(&closed.id).await.is(204);
}

async fn swap(world: &World, one: &str, two: &str) {
    let (first, second) = (sealed(world, one).await, sealed(world, two).await);
    put(world, one, &second).await;
    put(world, two, &first).await;
}

async fn sealed(world: &World, factor: &str) -> Vec<u8> {
    const TEXT: &str = "select sealed from factors where id = $1";
    match &world.scratch.storage.database {
        Database::Sqlite(path) => {
            let mut conn = sqlx::SqliteConnection::connect(&path.display().to_string()).await.expect("it opens");
            sqlx::query_scalar(TEXT).bind(factor).fetch_one(&mut conn).await.expect("a row")
        }
        Database::Postgres(url) => {
            let mut conn = sqlx::PgConnection::connect(url).await.expect("it opens");
            sqlx::query_scalar(TEXT).bind(factor).fetch_one(&mut conn).await.expect("a row")
        }
    }
}

async fn put(world: &World, factor: &str, sealed: &[u8]) {
    const TEXT: &str = "update factors set sealed = $2 where id = $1";
    match &world.scratch.storage.database {
        Database::Sqlite(path) => {
            let mut conn = sqlx::SqliteConnection::connect(&path.display().to_string()).await.expect("it opens");
            sqlx::query(TEXT).bind(factor).bind(sealed).execute(&mut conn).await.expect("a row");
        }
        Database::Postgres(url) => {
            let mut conn = sqlx::PgConnection::connect(url).await.expect("it opens");
            sqlx::query(TEXT).bind(factor).bind(sealed).execute(&mut conn).await.expect("a row");
        }
    }
}

/// RFC 4648, 6, without padding.
pub fn in_base32(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|b| (0..8).rev().map(move |n| b >> n & 1)).collect();
    let letter = |five: &[u8]| {
        let value = five.iter().fold(0, |v, bit| v << 1 | bit) << (5 - five.len());
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(value)])
    };
    bits.chunks(5).map(letter).collect()
}

#[test]
fn the_search_finds_what_is_there() {
    let mut secrets = Secrets::default();
    secrets.keep("a seed", b"12345678901234567890");
    assert_eq!(in_base32(b"12345678901234567890"), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    for text in
        ["x12345678901234567890x", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", &STANDARD_NO_PAD.encode(b"12345678901234567890")]
    {
        assert_eq!(secrets.in_bytes(text.as_bytes()).len(), 1, "{text}");
    }
    assert!(secrets.in_bytes(b"1234567890123456789").is_empty());
    assert!(is_word_in("123456", "code=\"123456\"") && !is_word_in("123456", "at 0.123456s, id a123456"));
}
