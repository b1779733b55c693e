//! Two releases on one database (issue 3.2): what one has begun the other finishes, what was used on one is used on the other, and
//! a binary that the schema no longer lets run says so. `tests/rolling.sh` builds the older one and runs this.

use serde_json::{Value, json};

use crate::support::app::{base32, early_step, step, totp};
use crate::support::authenticator::Authenticator;
use crate::support::child::{Client, OWN, Place, Serve, client, free_port, run_of};
use crate::support::cluster::Cluster;
use crate::support::database::Scratch;
use crate::support::verbs::text;

/// The older binary is named by `COUNTERSIGN_OLDER`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs another binary: tests/rolling.sh"]
async fn two_releases_on_one_database() {
    let older = std::env::var("COUNTERSIGN_OLDER").expect("COUNTERSIGN_OLDER names the older binary");
    println!("SQLite, one after the other:");
    in_turn(&older).await;
    println!("PostgreSQL, side by side:");
    let cluster = Cluster::make("");
    cluster.up();
    side_by_side(&older, Scratch::on(&cluster.url(cluster.port))).await;
}

/// Older, newer, older, newer, each on what the one before has left.
async fn in_turn(older: &str) {
    let mut place = Place::on(Scratch::sqlite());
    let (names, binaries) = (["older", "newer"], [older, OWN]);
    let bank = {
        let serve = Serve::start_of(older, place.port, &place.pairs()).await;
        let bank = bank(older, &place);
        serve.terminate();
        bank
    };
    let (mut begun, mut used): (Option<Begun>, Option<Used>) = (None, None);
    for turn in 0..4 {
        let name = names[turn % 2];
        let serve = Serve::start_of(binaries[turn % 2], place.port, &place.pairs()).await;
        if let Some(used) = used.take() {
            used.is_refused(&bank, name).await;
        }
        if let Some(begun) = begun.take() {
            used = Some(begun.finish(&bank, name).await);
        }
        begun = Some(Begun::new(&bank, &format!("turn{turn}"), name).await);
        assert_eq!(serve.terminate().0, Some(0), "{name}");
    }
    refuses(older, &mut place).await;
}

/// Both at once; each begins what the other finishes.
async fn side_by_side(older: &str, scratch: Scratch) {
    let mut place = Place::on(scratch);
    let told = run_of(older, &["migrate"], &place.pairs());
    assert_eq!(told.status, Some(0), "{}", told.stderr);
    let first = Serve::start_of(older, place.port, &place.pairs()).await;
    let there = bank(older, &place);
    let before = Begun::new(&there, "before", "older, alone").await;
    assert_eq!(place.run(&["migrate"]).status, Some(0), "beside the older one, which serves on");
    let older_port = place.port;
    place.port = free_port();
    place.set("COUNTERSIGN_LISTEN", &format!("127.0.0.1:{}", place.port));
    let second = Serve::start(place.port, &place.pairs()).await;
    let here = Client { base: format!("http://127.0.0.1:{}", place.port), ..there.clone() };
    assert_ne!(there.base, here.base);
    before.finish(&here, "newer").await.is_refused(&there, "older").await;
    for round in 0..3 {
        for (from, to, names) in [(&there, &here, ["older", "newer"]), (&here, &there, ["newer", "older"])] {
            let begun = Begun::new(from, &format!("round{round}{}", names[0]), names[0]).await;
            let used = begun.finish(to, names[1]).await;
            used.is_refused(from, names[0]).await;
            used.is_refused(to, names[1]).await;
        }
    }
    assert_eq!((second.terminate().0, first.terminate().0), (Some(0), Some(0)));
    place.set("COUNTERSIGN_LISTEN", &format!("127.0.0.1:{older_port}"));
    refuses(older, &mut place).await;
}

/// Once a later release has raised the bar, neither runs, and both say which one does.
async fn refuses(older: &str, place: &mut Place) {
    place.scratch.execute("update meta set value = '99.0.0' where name = 'oldest_release'").await;
    for (name, binary) in [("older", older), ("newer", OWN)] {
        for command in [&["serve"][..], &["rp", "list"]] {
            let ended = run_of(binary, command, &place.pairs());
            assert_eq!(ended.status, Some(1), "{name}");
            assert!(ended.stderr.contains("99.0.0"), "{name}: {}", ended.stderr);
        }
        println!("  {name}: refuses a schema that needs 99.0.0");
    }
}

/// A relying party, and somebody who calls with a key of it.
fn bank(binary: &str, place: &Place) -> Client {
    let rp =
        ["rp", "create", "--name", "Bank", "--rp-id", "bank.example", "--origin", "https://bank.example", "--json"];
    let answer = |arguments: &[&str]| -> Value {
        let ended = run_of(binary, arguments, &place.pairs());
        assert_eq!(ended.status, Some(0), "{arguments:?}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    answer(&rp);
    let token = text(&answer(&["key", "create", "--rp", "Bank", "--json"])["secret"]);
    Client { client: client(), base: format!("http://127.0.0.1:{}", place.port), token }
}

#[track_caller]
fn good((status, body): (u16, Value)) -> Value {
    assert!((200..300).contains(&status), "{status}: {body}");
    body
}

/// A person for whom one release has begun everything.
struct Begun {
    user: String,
    secret: Vec<u8>,
    device: Authenticator,
    /// An app that is shown, and not active yet.
    pending: (String, Vec<u8>),
    /// A passkey that is about to be made.
    making: (String, Value),
    recovery: Vec<Value>,
    challenges: Vec<(String, Value)>,
    /// A ceremony that is under way for the second challenge.
    options: Value,
    session: Value,
}

impl Begun {
    async fn new(at: &Client, user: &str, name: &str) -> Begun {
        let path = |below: &str| format!("/v1/users/{user}{below}");
        let app = async |code: bool| {
            let factor = good(at.post(&path("/factors"), json!({"type": "totp"})).await);
            let (id, secret) = (text(&factor["id"]), base32(&text(&factor["totp"]["secret"])));
            if code {
                let proof = json!({"code": totp(&secret, early_step().await - 1)});
                good(at.post(&path(&format!("/factors/{id}/activate")), proof).await);
            }
            (id, secret)
        };
        let passkey = async || {
            let factor = good(at.post(&path("/factors"), json!({"type": "webauthn"})).await);
            (text(&factor["id"]), factor["webauthn"]["creation_options"].clone())
        };
        let (_, secret) = app(true).await;
        let mut device = Authenticator::new("https://bank.example");
        let (id, options) = passkey().await;
        let credential = device.create(&options).expect("the browser has no objection");
        good(at.post(&path(&format!("/factors/{id}/activate")), json!({"credential": credential})).await);
        let recovery = good(at.post(&path("/recovery-codes"), json!({})).await)["codes"].clone();
        let (pending, making) = (app(false).await, passkey().await);
        let mut challenges = Vec::new();
        for _ in 0..4 {
            let opened = good(at.post("/v1/challenges", json!({"user_id": user})).await);
            challenges.push((text(&opened["id"]), opened["client_token"].clone()));
        }
        let prepare = format!("/v1/challenges/{}/prepare", challenges[1].0);
        let prepared = good(at.post(&prepare, json!({"type": "webauthn"})).await);
        let answer = json!({"type": "recovery_code", "code": recovery[9]});
        let session =
            good(at.post("/v1/challenges", json!({"user_id": user, "answer": answer})).await)["session"].clone();
        println!("  {name}: began two enrolments, four challenges, a ceremony and a session");
        Begun {
            user: user.to_owned(),
            secret,
            device,
            pending,
            making,
            recovery: recovery.as_array().expect("codes").clone(),
            challenges,
            options: prepared["webauthn"]["request_options"].clone(),
            session,
        }
    }

    /// Another release finishes it.
    async fn finish(mut self, at: &Client, name: &str) -> Used {
        let path = |below: &str| format!("/v1/users/{}{below}", self.user);
        let verify = |n: usize| format!("/v1/challenges/{}/verify", self.challenges[n].0);
        let mut spent = Vec::new();

        let code = totp(&self.secret, step(0));
        let answer = json!({"type": "totp", "code": code});
        good(at.post(&verify(0), answer.clone()).await);
        spent.push(("a code of an app", answer));
        let answer = json!({"type": "recovery_code", "code": self.recovery[0]});
        // From the person's browser, by a client token of the other release.
        let browser = Client { token: text(&self.challenges[2].1), ..at.clone() };
        let code = good(browser.post(&verify(2), answer.clone()).await)["code"].clone();
        spent.push(("a recovery code", answer));
        let credential = self.device.get(&self.options).expect("the browser has no objection");
        let signed = json!({"type": "webauthn", "credential": credential});
        good(at.post(&verify(1), signed.clone()).await);

        let (id, secret) = &self.pending;
        let proof = json!({"code": totp(secret, early_step().await - 1)});
        good(at.post(&path(&format!("/factors/{id}/activate")), proof).await);
        let answer = json!({"type": "totp", "code": totp(secret, step(0)), "factor_id": id});
        good(at.post(&verify(3), answer.clone()).await);
        spent.push(("a code of an app that was shown by the other", answer));
        let (id, options) = &self.making;
        let mut other = Authenticator::new("https://bank.example");
        let credential = other.create(options).expect("the browser has no objection");
        good(at.post(&path(&format!("/factors/{id}/activate")), json!({"credential": credential})).await);

        for token in [&self.session["token"], &self.session["jwt"]] {
            let told = good(at.post("/v1/sessions/introspect", json!({"token": token})).await);
            assert_eq!(told["active"], true, "{name}: {told}");
        }
        let consume = json!({"token": self.session["token"], "consume": true});
        assert_eq!(good(at.post("/v1/sessions/introspect", consume).await)["satisfied"], true);
        println!("  {name}: finished them, and used codes, a passkey and the session");
        let exchange = (self.challenges[2].0.clone(), json!({"code": code}));
        Used {
            user: self.user,
            spent,
            signed: (verify_path(&self.challenges[1].0), signed),
            exchange,
            session: self.session,
        }
    }
}

fn verify_path(id: &str) -> String {
    format!("/v1/challenges/{id}/verify")
}

/// What one release has taken.
struct Used {
    user: String,
    spent: Vec<(&'static str, Value)>,
    signed: (String, Value),
    exchange: (String, Value),
    session: Value,
}

impl Used {
    /// The other takes none of it again.
    async fn is_refused(&self, at: &Client, name: &str) {
        for (what, answer) in &self.spent {
            let opened = good(at.post("/v1/challenges", json!({"user_id": self.user})).await);
            let (status, body) = at.post(&verify_path(&text(&opened["id"])), answer.clone()).await;
            assert_eq!(status, 422, "{name} takes {what} again: {body}");
            let at_once = json!({"user_id": self.user, "answer": answer});
            assert_eq!(at.post("/v1/challenges", at_once).await.0, 422, "{name} takes {what} again, at once");
        }
        let (path, signed) = &self.signed;
        assert_eq!(at.post(path, signed.clone()).await.0, 409, "{name} takes a passkey's answer again");
        for token in [&self.session["token"], &self.session["jwt"]] {
            let told = good(at.post("/v1/sessions/introspect", json!({"token": token})).await);
            assert_eq!(told["active"], false, "{name}: the session was used");
        }
        let (id, code) = &self.exchange;
        let path = format!("/v1/challenges/{id}/exchange");
        let (first, second) = (at.post(&path, code.clone()).await, at.post(&path, code.clone()).await);
        assert_eq!(second.0, 422, "{name} gives a session for a code twice: {}", second.1);
        println!("  {name}: refuses all of it (the one-time code: {}, then {})", first.0, second.0);
    }
}
