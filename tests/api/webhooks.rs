//! Webhooks: every event told, signed, to those who asked, and to nobody inside (standards H-01 to H-11, WR-21, 3.28, 3.32). The
//! receiver is a server of the test's own; the clock is moved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use countersign::clock::Clock;
use countersign::http::webhook_message;
use countersign::model::{Scope, Timestamp};
use tokio::net::TcpListener;

use crate::secrets::in_base32;
use crate::support::child;
use crate::support::database::Scratch;
use crate::support::receiver::{Answering, Application, Message, Receiver, TlsReceiver};
use crate::support::verbs::text;
use crate::support::{Bank, Caller, Stopwatch, User, Value, World, at_once, json};

const HOOKS: &str = "/v1/webhook-endpoints";

/// A relying party with a key that may manage endpoints.
struct Shop {
    world: Arc<World>,
    bank: Bank,
    admin: Caller,
}

impl Shop {
    async fn open() -> Shop {
        Shop::on(World::start().await).await
    }

    async fn on(world: Arc<World>) -> Shop {
        let bank = world.bank().await;
        let shop = Shop { admin: world.caller(&world.key(&bank.rp, &[Scope::Admin], None).await), bank, world };
        // What was before is told to nobody.
        shop.world.seal().await;
        shop
    }

    /// An endpoint at this receiver: its path and its secret. Its own making is behind it.
    async fn hook(&self, receiver: &Receiver, more: Value) -> (String, String) {
        let mut body = more;
        body["url"] = json!(receiver.url);
        let made = self.admin.post(HOOKS, body).await.is(201);
        (format!("{HOOKS}/{}", text(&made["id"])), text(&made["secret"]))
    }

    /// For enrolments and their like alone.
    async fn hook_for(&self, receiver: &Receiver, kinds: &[&str]) -> (String, String) {
        self.hook(receiver, json!({"events": kinds})).await
    }

    fn user(&self, id: &str) -> User {
        self.bank.user(id)
    }

    /// Numbers what happened and sends until nothing is due or under way.
    async fn deliver(&self) {
        self.world.seal().await;
        self.send().await;
    }

    /// Sends until nothing is due or under way.
    async fn send(&self) {
        for _ in 0..1000 {
            for task in self.world.engine().deliver_webhooks(webhook_message).await.expect("it sends") {
                task.await.expect("no panic");
            }
            if self.left().await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("something stays due");
    }

    async fn left(&self) -> i64 {
        let now = self.world.clock.now().0;
        let busy = format!(
            "select count(*) from webhook_deliveries d join webhook_endpoints e on e.rp_id = d.rp_id and e.id = d.endpoint_id
             where e.disabled_at is null and d.next_at is not null and (
               (d.attempts > 0 and d.last_status is null and d.last_error is null)
               or (d.next_at <= {now} and coalesce(e.paused_until, 0) <= {now}))"
        );
        let lagging = "select count(*) from webhook_endpoints e join chain_heads h on h.rp_id = e.rp_id
             where e.disabled_at is null and e.handed_to < h.sequence";
        self.world.scratch.number(&busy).await + self.world.scratch.number(lagging).await
    }

    /// What became of what an endpoint was told, newest first.
    async fn deliveries(&self, hook: &str) -> Vec<Value> {
        let page = self.admin.get(&format!("{hook}/deliveries?limit=100")).await.is(200);
        page["data"].as_array().expect("a list").clone()
    }

    /// Holds back until this time what is due to anybody.
    async fn rests(&self, until: i64) {
        self.world.scratch.execute(&format!("update webhook_endpoints set paused_until = {until}")).await;
    }

    async fn events(&self) -> Vec<Value> {
        self.bank.get("/v1/events?limit=100").await.is(200)["data"].as_array().expect("a list").clone()
    }
}

/// H-01, H-02, H-03, H-06, H-07, WR-21, E-01: an enrolment is told with its event's own shape, signed.
#[tokio::test]
async fn an_enrolment_is_told_signed_and_as_the_list_of_events_has_it() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, secret) = shop.hook_for(&receiver, &["factor.added"]).await;
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").expect("its prefix")).expect("base64");
    assert_eq!(key.len(), 32);
    let (_, other) = shop.hook_for(&receiver, &["user.erased"]).await;
    assert_ne!(secret, other, "each has its own");
    shop.user("ann").enrol_totp().await;
    shop.deliver().await;

    let [message] = receiver.messages().try_into().expect("one message");
    let message: Message = message;
    assert!(message.signed_by(&secret) && !message.signed_by(&other));
    assert_eq!(message.signature.split(' ').count(), 1);
    assert_eq!(message.timestamp.parse(), Ok(shop.world.now()));
    assert!(message.id.starts_with("evt_") && !message.id.contains('.') && !message.timestamp.contains('.'));
    assert_eq!(message.headers["content-type"], "application/json");
    assert!(message.bytes.len() < 20_000);
    let told = shop.events().await.into_iter().find(|e| e["type"] == "factor.added").expect("the event");
    assert_eq!(message.body, json!({"type": "factor.added", "timestamp": told["at"], "data": told}));
    assert_eq!(message.id, text(&told["id"]));
    assert!(Timestamp::parse(&text(&message.body["timestamp"])).is_some());

    let [delivery] = shop.deliveries(&hook).await.try_into().expect("one delivery");
    assert_eq!((&delivery["event_id"], &delivery["type"]), (&told["id"], &json!("factor.added")));
    assert_eq!((&delivery["status"], &delivery["attempts"]), (&json!("delivered"), &json!(1)));
    assert_eq!((&delivery["last_status"], &delivery["next_attempt_at"]), (&json!(204), &Value::Null));
    // The secret was seen once.
    for path in [HOOKS, &hook, &format!("{hook}/deliveries")] {
        assert!(!shop.admin.get(path).await.is(200).to_string().contains("whsec_"), "{path}");
    }
    let cast = if shop.world.scratch.is_sqlite() { "hex(secrets)" } else { "encode(secrets, 'hex')" };
    let kept = shop.world.scratch.texts(&format!("select {cast} from webhook_endpoints")).await;
    assert_eq!(kept.len(), 2);
    // Neither as it was seen, nor without its prefix, nor the bytes that it stands for.
    for form in [secret.as_bytes(), secret.trim_start_matches("whsec_").as_bytes(), &key] {
        let hex: String = form.iter().map(|b| format!("{b:02X}")).collect();
        assert!(kept.iter().all(|k| !k.to_uppercase().contains(&hex)), "{hex}");
    }
}

/// H-05, 3.32: what is forged, altered, old or repeated is refused by a receiver that does as README says.
#[tokio::test]
async fn a_receiver_refuses_what_is_forged_old_or_repeated() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (_, secret) = shop.hook_for(&receiver, &["factor.added"]).await;
    shop.user("ann").enrol_totp().await;
    shop.deliver().await;
    let good = receiver.messages().pop().expect("a message");
    let now = shop.world.now();
    let judge = |message: &Message, now| Application::new(&secret).takes(message, now);
    assert_eq!(judge(&good, now), Ok(()));
    assert_eq!(judge(&good, now + 300), Ok(()));
    assert_eq!((judge(&good, now + 301), judge(&good, now - 301)), (Err("too old"), Err("too old")));
    let mut application = Application::new(&secret);
    assert_eq!((application.takes(&good, now), application.takes(&good, now)), (Ok(()), Err("seen before")));
    let tag = good.signature.strip_prefix("v1,").expect("its version").to_owned();
    let change = |how: &dyn Fn(&mut Message)| {
        let mut changed = good.clone();
        how(&mut changed);
        judge(&changed, now)
    };
    assert_eq!(change(&|m| m.bytes[10] ^= 1), Err("forged"));
    assert_eq!(change(&|m| m.id.push('0')), Err("forged"));
    assert_eq!(change(&|m| m.timestamp = (now + 1).to_string()), Err("forged"));
    assert_eq!(change(&|m| m.signature = tag.clone()), Err("forged"), "without its version");
    assert_eq!(change(&|m| m.signature = format!("v2,{tag}")), Err("forged"));
    assert_eq!(change(&|m| m.signature = format!("v1,{} v1,{tag}", BASE64_STANDARD.encode([7; 32]))), Ok(()));
    assert_eq!(
        Application::new(&format!("whsec_{}", BASE64_STANDARD.encode([7; 32]))).takes(&good, now),
        Err("forged")
    );
}

/// H-06, H-08, H-09: ten attempts, each when the schedule says, all under one id and each signed anew; then no more.
#[tokio::test]
async fn a_message_is_tried_ten_times_over_three_days_under_one_id() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, secret) = shop.hook_for(&receiver, &["factor.added"]).await;
    receiver.answers(Answering::Status(500));
    shop.user("ann").enrol_totp().await;
    shop.deliver().await;
    let pauses = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
    for (n, pause) in pauses.into_iter().enumerate() {
        assert_eq!(receiver.count(), n + 1);
        let state = shop.deliveries(&hook).await.remove(0);
        assert_eq!((&state["status"], &state["last_status"]), (&json!("pending"), &json!(500)));
        assert_eq!(state["attempts"], n + 1);
        shop.world.wait(pause - 1);
        shop.send().await;
        assert_eq!(receiver.count(), n + 1, "not before its time");
        shop.world.wait(pause / 10 + 2);
        shop.send().await;
    }
    let state = shop.deliveries(&hook).await.remove(0);
    assert_eq!((&state["status"], &state["attempts"]), (&json!("failed"), &json!(10)));
    shop.world.wait(200_000);
    shop.send().await;
    let messages = receiver.messages();
    assert_eq!(messages.len(), 10);
    assert_eq!(messages.iter().map(|m| &m.id).collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(messages.iter().map(|m| &m.timestamp).collect::<BTreeSet<_>>().len(), 10);
    assert_eq!(messages.iter().map(|m| &m.bytes).collect::<BTreeSet<_>>().len(), 1);
    assert!(messages.iter().all(|m| m.signed_by(&secret)));
    assert!(shop.admin.get(&hook).await.is(200)["failing_since"].is_string());
    // What comes next is told, and what failed is forgotten.
    receiver.answers(Answering::Status(200));
    shop.user("bob").enrol_totp().await;
    shop.deliver().await;
    assert_eq!(receiver.taken().len(), 1);
    assert_eq!(shop.admin.get(&hook).await.is(200)["failing_since"], Value::Null);
}

/// H-08, H-10, 3.32: a redirect is a failure, wherever it leads, and nobody goes there.
#[tokio::test]
async fn no_redirect_is_followed() {
    let (shop, receiver, inside) = (Shop::open().await, Receiver::start().await, Receiver::start().await);
    let (hook, _) = shop.hook_for(&receiver, &["factor.added"]).await;
    for (n, status) in [301, 302, 303, 307, 308].into_iter().enumerate() {
        receiver.answers(Answering::With(status, "location", inside.url.clone()));
        if n == 0 {
            shop.user("ann").enrol_totp().await;
        }
        shop.deliver().await;
        let state = shop.deliveries(&hook).await.remove(0);
        assert_eq!((&state["attempts"], &state["last_status"]), (&json!(n + 1), &json!(status)));
        shop.world.wait(50_000);
    }
    assert_eq!(inside.count(), 0);
    receiver.answers(Answering::Status(299));
    shop.deliver().await;
    assert_eq!(shop.deliveries(&hook).await[0]["status"], "delivered");
}

/// H-08: who says that it is gone is told nothing more, until it is enabled again, and then of what happens from then on.
#[tokio::test]
async fn who_is_gone_is_told_nothing_more() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, _) = shop.hook_for(&receiver, &["factor.added"]).await;
    receiver.answers(Answering::Status(410));
    // The engine sends by itself, too: not before both have happened.
    shop.rests(i64::MAX).await;
    for user in ["ann", "bob"] {
        shop.user(user).enrol_totp().await;
    }
    shop.world.seal().await;
    shop.rests(0).await;
    shop.deliver().await;
    assert_eq!(receiver.count(), 1);
    let state = shop.admin.get(&hook).await.is(200);
    assert_eq!((&state["status"], &state["disabled_reason"]), (&json!("disabled"), &json!("gone")));
    let outcomes: Vec<_> = shop.deliveries(&hook).await.iter().map(|d| text(&d["status"])).collect();
    assert_eq!(outcomes, ["dropped", "failed"]);
    shop.world.seal().await;
    let told = shop.events().await.pop().expect("an event");
    assert_eq!((&told["type"], &told["reason"]), (&json!("webhook_endpoint.disabled"), &json!("gone")));
    assert_eq!(told["actor"], "system");
    shop.admin.ask(&format!("{hook}/test")).await.refused(409, "endpoint_disabled");
    receiver.answers(Answering::Status(204));
    shop.world.wait(90_000);
    shop.user("cid").enrol_totp().await;
    shop.deliver().await;
    assert_eq!(receiver.count(), 1, "nothing, not even what is new");
    let state = shop.admin.patch(&hook, json!({"status": "enabled"})).await.is(200);
    assert_eq!((&state["status"], &state["disabled_reason"]), (&json!("enabled"), &Value::Null));
    shop.user("dan").enrol_totp().await;
    shop.deliver().await;
    assert_eq!(receiver.taken().iter().map(|m| text(&m.body["data"]["user_id"])).collect::<Vec<_>>(), ["dan"]);
}

/// H-08: `Retry-After` holds for the whole endpoint, as seconds and as a time; who says nothing of it gets a minute.
#[tokio::test]
async fn who_has_too_much_is_left_alone() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    shop.hook_for(&receiver, &["factor.added"]).await;
    let after = |seconds: i64| {
        let at = time_of(shop.world.now() + seconds);
        // Until it is sent, enrolling and sealing move the clock by 32 s.
        [(429, seconds.to_string(), seconds), (503, at, seconds - 32), (502, String::new(), 60)]
    };
    let mut expected = 0;
    for n in 0..3 {
        let (status, value, rest) = after(7200)[n].clone();
        receiver.answers(match value.is_empty() {
            true => Answering::Status(status),
            false => Answering::With(status, "retry-after", value),
        });
        shop.user(&format!("a{n}")).enrol_totp().await;
        shop.deliver().await;
        expected += 1;
        receiver.answers(Answering::Status(204));
        shop.user(&format!("b{n}")).enrol_totp().await;
        shop.deliver().await;
        assert_eq!(receiver.count(), expected, "{status}: others wait too");
        shop.world.wait(rest - 32 - 5);
        shop.send().await;
        assert_eq!(receiver.count(), expected, "{status}: not yet");
        shop.world.wait(600);
        shop.send().await;
        expected += 2;
        assert_eq!(receiver.count(), expected, "{status}: {rest}");
    }
}

fn time_of(seconds: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
    let form = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    at.format(form).expect("it is written")
}

/// H-04: during a rotation both secrets sign; after a day the new one alone; never more than two.
#[tokio::test]
async fn both_secrets_sign_for_a_day_after_a_rotation() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, first) = shop.hook_for(&receiver, &["factor.added"]).await;
    let rotated = shop.admin.ask(&format!("{hook}/rotate-secret")).await.is(200);
    let second = text(&rotated["secret"]);
    let signed = async |user: &str| {
        shop.user(user).enrol_totp().await;
        shop.deliver().await;
        receiver.messages().pop().expect("a message")
    };
    let message = signed("ann").await;
    assert_eq!(message.signature.split(' ').count(), 2);
    assert!(message.signed_by(&first) && message.signed_by(&second));
    shop.world.wait(86_400);
    let message = signed("bob").await;
    assert_eq!(message.signature.split(' ').count(), 1);
    assert!(!message.signed_by(&first) && message.signed_by(&second));
    let third = text(&shop.admin.ask(&format!("{hook}/rotate-secret")).await.is(200)["secret"]);
    let fourth = text(&shop.admin.ask(&format!("{hook}/rotate-secret")).await.is(200)["secret"]);
    let message = signed("cid").await;
    assert_eq!(message.signature.split(' ').count(), 2);
    assert!(message.signed_by(&third) && message.signed_by(&fourth) && !message.signed_by(&second));
}

/// H-10, 3.32: no address inside is taken, in whatever form; and one that got in is not connected to.
#[tokio::test]
async fn no_address_inside_is_ever_told_anything() {
    let shop = Shop::on(World::start_with(|config| config.webhook_private = false).await).await;
    let made = shop.admin.post(HOOKS, json!({"url": "https://hooks.invalid/x"})).await.is(201);
    let hook = format!("{HOOKS}/{}", text(&made["id"]));
    for url in [
        "http://hooks.invalid/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[fd00:ec2::254]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.1.2.3/",
        "https://172.16.0.1/",
        "https://192.168.0.1/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://localhost/",
        "https://a.localhost./",
        "https://user:secret@hooks.invalid/",
        "https://hooks.invalid/#part",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "hooks",
    ] {
        shop.admin.post(HOOKS, json!({"url": url})).await.invalid("url");
        shop.admin.patch(&hook, json!({"url": url})).await.invalid("url");
    }
    // As if it had been named in good time, or by a name that led elsewhere then.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let met = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&met);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    for url in
        [format!("https://localhost:{port}/"), format!("https://127.0.0.1:{port}/"), format!("http://[::1]:{port}/")]
    {
        shop.world.scratch.execute(&format!("update webhook_endpoints set url = '{url}'")).await;
        shop.admin.ask(&format!("{hook}/test")).await.is(202);
        shop.send().await;
        let state = shop.deliveries(&hook).await.remove(0);
        assert_eq!(
            (&state["last_error"], &state["last_status"]),
            (&json!("address_not_allowed"), &Value::Null),
            "{url}"
        );
    }
    assert_eq!(met.load(Ordering::Relaxed), 0);
}

/// H-09: who is down for a while misses nothing, and is not called more than once a turn while it is.
#[tokio::test]
async fn a_receiver_that_was_down_misses_nothing() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, secret) = shop.hook(&receiver, json!({})).await;
    receiver.answers(Answering::Status(500));
    for n in 0..10 {
        shop.user(&format!("u{n}")).enrol_totp().await;
    }
    shop.deliver().await;
    shop.world.wait(10);
    shop.send().await;
    receiver.answers(Answering::Status(204));
    shop.world.wait(400);
    shop.deliver().await;
    let taken = receiver.taken();
    let told: BTreeSet<i64> = taken.iter().map(Message::sequence).collect();
    let all: BTreeSet<i64> =
        shop.events().await.iter().filter_map(|e| e["sequence"].as_i64()).filter(|n| *n > 3).collect();
    assert_eq!(told, all, "each event from the endpoint's own making on");
    assert_eq!(taken.len(), all.len(), "and each once");
    let mut application = Application::new(&secret);
    assert!(taken.iter().all(|m| application.takes(m, m.timestamp.parse().expect("a number")).is_ok()));
    assert!(shop.deliveries(&hook).await.iter().all(|d| d["status"] == "delivered"));
}

/// Messages are begun in the order of the chain.
#[tokio::test]
async fn messages_come_in_the_order_of_the_chain() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    shop.hook(&receiver, json!({})).await;
    for n in 0..40 {
        shop.user(&format!("u{n}")).enrol_totp().await;
    }
    shop.deliver().await;
    let told: Vec<i64> = receiver.messages().iter().map(Message::sequence).collect();
    assert!(told.len() > 80 && told.windows(2).all(|two| two[0] + 1 == two[1]), "{told:?}");
}

/// Every event from its own making on, but only of the types that it asks for.
#[tokio::test]
async fn an_endpoint_is_told_what_it_asked_for() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    shop.user("ann").enrol_totp().await;
    shop.world.seal().await;
    let (hook, _) = shop.hook(&receiver, json!({"events": ["factor.removed", "factor.added", "factor.added"]})).await;
    assert_eq!(shop.admin.get(&hook).await.is(200)["events"], json!(["factor.added", "factor.removed"]));
    let app = shop.user("bob").enrol_totp().await;
    shop.user("bob").remove(&app.id).await.is(204);
    shop.deliver().await;
    assert_eq!(receiver.kinds(), ["factor.added", "factor.removed"]);
    for events in [json!([]), json!(["factor.vanished"]), json!(["webhook.test"]), json!("factor.added"), json!([""])] {
        let refused = shop.admin.post(HOOKS, json!({"url": receiver.url, "events": events})).await;
        assert_eq!((refused.status, refused.code()), (422, "request_invalid"), "{events}");
        assert_eq!(shop.admin.patch(&hook, json!({"events": events})).await.status, 422);
    }
    shop.admin.patch(&hook, json!({"description": "ours", "events": null})).await.is(200);
    let state = shop.admin.patch(&hook, json!({})).await.is(200);
    assert_eq!((&state["events"], &state["description"]), (&Value::Null, &json!("ours")));
    shop.deliver().await;
    assert_eq!(receiver.kinds()[2..], ["webhook_endpoint.changed"; 2]);
    assert_eq!(shop.admin.patch(&hook, json!({"description": null})).await.is(200)["description"], Value::Null);
}

/// V-05: a message is written when it is sent; whoever was erased by then is in none.
#[tokio::test]
async fn an_erased_user_is_in_no_message() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    shop.hook_for(&receiver, &["factor.added", "user.erased"]).await;
    receiver.answers(Answering::Status(500));
    shop.user("ann-of-the-lake").enrol_totp().await;
    shop.deliver().await;
    assert!(String::from_utf8_lossy(&receiver.messages()[0].bytes).contains("ann-of-the-lake"));
    shop.bank.delete("/v1/users/ann-of-the-lake").await.is(204);
    receiver.answers(Answering::Status(204));
    shop.world.wait(60);
    shop.deliver().await;
    let taken = receiver.taken();
    assert_eq!(
        taken.iter().map(Message::kind).collect::<BTreeSet<_>>(),
        BTreeSet::from(["factor.added", "user.erased"])
    );
    for message in taken {
        assert!(!String::from_utf8_lossy(&message.bytes).contains("ann-of-the-lake"), "{}", message.body);
        assert!(text(&message.body["data"]["user_id"]).starts_with("erased_"));
        assert_eq!(message.body["data"]["client"], Value::Null);
    }
}

/// H-11, L-03, 3.28: a whole story, and none of its secrets in any message.
#[tokio::test]
async fn no_message_holds_a_code_a_secret_or_a_number() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, secret) = shop.hook(&receiver, json!({})).await;
    let ann = shop.user("ann");
    let app = ann.enrol_totp().await;
    let mut passkey = ann.enrol_passkey().await;
    let phone = ann.enrol_phone("+14155550123").await;
    let codes = ann.recovery_codes().await;
    let mut secrets = vec![secret, shop.bank.key.clone(), phone.number.clone(), "4155550123".to_owned(), phone.code()];
    let session = ann.session(&app, json!({})).await;
    secrets.extend([text(&session["token"]), text(&session["jwt"]), app.code(), in_base32(&app.secret)]);
    let challenge = ann.challenge(json!({})).await;
    secrets.extend([text(&challenge.body["client_token"]), text(&challenge.body["url"])]);
    challenge.verify(app.miss()).await.refused(422, "code_incorrect");
    secrets.push(app.wrong());
    challenge.verify(passkey.answer(&challenge).await).await.is(200);
    ann.challenge(json!({})).await.verify(json!({"type": "recovery_code", "code": codes[0]})).await.is(200);
    shop.world.wait(120);
    let challenge = ann.challenge(json!({})).await;
    challenge.text().await.is(200);
    secrets.push(phone.code());
    challenge.verify(phone.answer()).await.is(200);
    secrets.push(text(&shop.admin.ask(&format!("{hook}/rotate-secret")).await.is(200)["secret"]));
    ann.browser(None).await;
    shop.deliver().await;
    secrets.extend(codes);
    let messages = receiver.messages();
    assert!(messages.len() > 15 && secrets.len() > 20);
    for message in &messages {
        assert!(message.bytes.len() < 20_000, "H-07");
        let text = message.body.to_string();
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
        for secret in &secrets {
            let is_in =
                if secret.len() == 6 { words.contains(&secret.as_str()) } else { text.contains(secret.as_str()) };
            assert!(!is_in, "{secret} in {text}");
        }
    }
}

/// K-03: what another relying party has looks like what nobody has, and what it does is told to it alone.
#[tokio::test]
async fn another_relying_partys_endpoints_look_unknown() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, _) = shop.hook(&receiver, json!({})).await;
    let other = shop.world.party("Other", "other.example", false).await;
    let admin = shop.world.caller(&shop.world.key(&other.rp, &[Scope::Admin], None).await);
    let unknown = format!("{HOOKS}/whk_00000000000070008000000000000000");
    for path in [&hook, &unknown, &format!("{HOOKS}/whk_1"), &hook.replace("whk_", "fac_")] {
        admin.get(path).await.refused(404, "not_found");
        admin.patch(path, json!({"status": "disabled"})).await.refused(404, "not_found");
        admin.delete(path).await.refused(404, "not_found");
        admin.get(&format!("{path}/deliveries")).await.refused(404, "not_found");
        admin.ask(&format!("{path}/test")).await.refused(404, "not_found");
        admin.ask(&format!("{path}/rotate-secret")).await.refused(404, "not_found");
    }
    assert_eq!(admin.get(HOOKS).await.is(200)["data"], json!([]));
    // Every scope but the one.
    shop.bank.get(HOOKS).await.refused(403, "scope_missing");
    shop.bank.post(HOOKS, json!({"url": receiver.url})).await.refused(403, "scope_missing");
    other.user("ann").enrol_totp().await;
    shop.deliver().await;
    assert!(receiver.messages().iter().all(|m| m.kind() == "webhook_endpoint.created"), "{:?}", receiver.kinds());
}

/// A bounded number, whoever asks at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relying_party_has_twenty_endpoints_at_most() {
    let shop = Shop::open().await;
    let answers = at_once(40, |n| {
        let admin = shop.admin.clone();
        async move { admin.post(HOOKS, json!({"url": format!("https://hooks.invalid/{n}")})).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|a| a.status == 201).count(), 20);
    assert_eq!(answers.iter().filter(|a| a.code() == "endpoint_limit").count(), 20);
    let first = shop.admin.get(&format!("{HOOKS}?limit=15")).await.is(200);
    let rest = shop.admin.get(&format!("{HOOKS}?limit=15&cursor={}", text(&first["next_cursor"]))).await.is(200);
    assert_eq!((first["data"].as_array().map(Vec::len), rest["data"].as_array().map(Vec::len)), (Some(15), Some(5)));
    shop.admin.get(&format!("{HOOKS}?cursor=x")).await.invalid("cursor");
    shop.admin.delete(&format!("{HOOKS}/{}", text(&first["data"][0]["id"]))).await.is(204);
    shop.admin.post(HOOKS, json!({"url": "https://hooks.invalid/new"})).await.is(201);
}

/// api.md 3: one endpoint for one key, whose secret is shown again for ten minutes.
#[tokio::test]
async fn what_is_repeated_under_a_key_is_done_once() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let once = |key: &str| shop.admin.with("idempotency-key", key);
    let body = json!({"url": receiver.url, "events": ["factor.added"]});
    let made = once("a").post(HOOKS, body.clone()).await.is(201);
    assert_eq!(once("a").post(HOOKS, body.clone()).await.is(201), made);
    let hook = format!("{HOOKS}/{}", text(&made["id"]));
    let rotate = format!("{hook}/rotate-secret");
    let rotated = once("b").ask(&rotate).await.is(200);
    assert_eq!(once("b").ask(&rotate).await.is(200), rotated);
    let test = format!("{hook}/test");
    let queued = once("c").ask(&test).await.is(202);
    assert_eq!(once("c").ask(&test).await.is(202), queued);
    shop.send().await;
    let [message] = receiver.messages().try_into().expect("one test");
    assert_eq!(message.id, text(&queued["event_id"]));
    assert!(message.signed_by(&text(&rotated["secret"])) && message.signed_by(&text(&made["secret"])));
    shop.world.wait(601);
    for (again, first) in
        [(once("a").post(HOOKS, body).await.is(201), &made), (once("b").ask(&rotate).await.is(200), &rotated)]
    {
        assert_eq!((&again["secret"], &again["url"], &again["id"]), (&Value::Null, &first["url"], &first["id"]));
    }
    assert_eq!(shop.world.scratch.number("select count(*) from webhook_endpoints").await, 1);
}

/// A test is sent like an event, and is none.
#[tokio::test]
async fn an_endpoint_can_be_tried() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, secret) = shop.hook_for(&receiver, &["user.erased"]).await;
    let queued = shop.admin.ask(&format!("{hook}/test")).await.is(202);
    assert_eq!((&queued["type"], &queued["status"]), (&json!("webhook.test"), &json!("pending")));
    shop.deliver().await;
    let [message] = receiver.messages().try_into().expect("one message");
    let message: Message = message;
    assert!(message.signed_by(&secret));
    assert_eq!((message.kind(), &message.body["data"]["sequence"]), ("webhook.test", &json!(0)));
    assert_eq!(message.body["data"]["id"], queued["event_id"]);
    assert!(shop.events().await.iter().all(|e| e["type"] != "webhook.test"));
    for _ in 0..3 {
        shop.admin.ask(&format!("{hook}/test")).await.is(202);
    }
    shop.send().await;
    let page = shop.admin.get(&format!("{hook}/deliveries?limit=3")).await.is(200);
    let rest =
        shop.admin.get(&format!("{hook}/deliveries?limit=3&cursor={}", text(&page["next_cursor"]))).await.is(200);
    assert_eq!((&page["has_more"], &rest["has_more"]), (&json!(true), &json!(false)));
    assert_eq!(rest["data"][0]["event_id"], queued["event_id"], "newest first");
    shop.admin.get(&format!("{hook}/deliveries?cursor=0")).await.invalid("cursor");
}

/// H-09: one that never answers is given up in time, and keeps nobody else waiting.
#[tokio::test]
async fn a_receiver_that_hangs_holds_no_other_back() {
    let (shop, hanging, receiver) = (Shop::open().await, Receiver::start().await, Receiver::start().await);
    hanging.answers(Answering::Never);
    let mut stuck = Vec::new();
    for _ in 0..4 {
        stuck.push(shop.hook_for(&hanging, &["factor.added"]).await.0);
    }
    shop.hook_for(&receiver, &["factor.added"]).await;
    shop.user("ann").enrol_totp().await;
    shop.world.seal().await;
    let started = Stopwatch::start();
    let begun = shop.world.engine().deliver_webhooks(webhook_message).await.expect("it begins");
    crate::support::until(|| receiver.count() == 1 && hanging.count() == 4).await;
    shop.bank.get("/v1/users/ann").await.is(200);
    for task in begun {
        task.await.expect("no panic");
    }
    // The background may have begun some of them.
    for hook in stuck {
        for _ in 0..200 {
            if shop.deliveries(&hook).await[0]["last_error"] == "timeout" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(shop.deliveries(&hook).await[0]["last_error"], "timeout");
    }
    // 15 seconds, and what a busy machine needs beside them.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    // What failed is asked again, but two at a time: whoever takes its messages comes first, and never waits.
    shop.user("bob").enrol_totp().await;
    shop.world.seal().await;
    drop(shop.world.engine().deliver_webhooks(webhook_message).await.expect("it begins"));
    crate::support::until(|| receiver.count() == 2 && hanging.count() >= 6).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(hanging.count(), 6);
    // A row that does not read holds nobody up either.
    shop.world.scratch.execute("update webhook_endpoints set kinds = 'x' where failing_since is not null").await;
    shop.user("cid").enrol_totp().await;
    shop.world.seal().await;
    drop(shop.world.engine().deliver_webhooks(webhook_message).await.expect("it begins"));
    crate::support::until(|| receiver.count() == 3).await;
}

/// Nothing but failures for five days, and one event given up after them: the endpoint is disabled, with an event.
#[tokio::test]
async fn an_endpoint_that_only_fails_is_disabled_after_days() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, _) = shop.hook_for(&receiver, &["factor.added"]).await;
    receiver.answers(Answering::Status(404));
    let mut days = 0.0;
    for n in 0..3 {
        shop.user(&format!("u{n}")).enrol_totp().await;
        for pause in [0, 6, 330, 1980, 7920, 19_800, 39_600, 55_440, 79_200, 95_040] {
            shop.world.wait(pause);
            shop.deliver().await;
            days += pause as f64 / 86_400.0;
        }
        let state = shop.admin.get(&hook).await.is(200);
        assert_eq!(state["status"] == "disabled", days > 5.0, "after {days} days: {state}");
        if days > 5.0 {
            assert_eq!(state["disabled_reason"], "failing");
            break;
        }
    }
    shop.world.seal().await;
    let told = shop.events().await.pop().expect("an event");
    assert_eq!((&told["type"], &told["reason"]), (&json!("webhook_endpoint.disabled"), &json!("failing")));
}

/// What is removed goes with all that it was told; what has ended goes after a week; what is disabled drops what waits.
#[tokio::test]
async fn deliveries_go_with_their_endpoint_or_after_a_week() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, _) = shop.hook(&receiver, json!({})).await;
    let (other, _) = shop.hook(&receiver, json!({})).await;
    shop.user("ann").enrol_totp().await;
    shop.deliver().await;
    let rows = async || shop.world.scratch.number("select count(*) from webhook_deliveries").await;
    let before = rows().await;
    assert!(before >= 6);
    shop.admin.delete(&hook).await.is(204);
    shop.admin.get(&hook).await.refused(404, "not_found");
    shop.admin.delete(&hook).await.refused(404, "not_found");
    assert!(rows().await < before && rows().await > 0);
    // The removal is told now, not when the clock has moved.
    shop.deliver().await;
    let purge = async || while shop.world.engine().purge().await.expect("it purges") > 0 {};
    shop.world.wait(6 * 86_400);
    purge().await;
    assert!(rows().await > 0);
    shop.world.wait(2 * 86_400);
    purge().await;
    assert_eq!(rows().await, 0);
    receiver.answers(Answering::Status(500));
    shop.user("bob").enrol_totp().await;
    shop.deliver().await;
    shop.admin.patch(&other, json!({"status": "disabled"})).await.is(200);
    let told = shop.deliveries(&other).await;
    assert!(!told.is_empty() && told.iter().all(|d| d["status"] == "dropped"), "{told:?}");
}

/// Two nodes, one of which is always about to send too: each message is sent once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_send_each_message_once() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let (shop, receiver) = (Shop::on(World::start_on(scratch, |_| {}).await).await, Receiver::start().await);
    let second = shop.world.second().await;
    shop.hook(&receiver, json!({})).await;
    receiver.answers(Answering::Slowly(5));
    for n in 0..20 {
        shop.user(&format!("u{n}")).enrol_totp().await;
    }
    shop.world.seal().await;
    let mut tasks = Vec::new();
    for turn in 0..20 {
        let world = if turn % 2 == 0 { &shop.world } else { &second };
        tasks.extend(world.engine().deliver_webhooks(webhook_message).await.expect("it sends"));
        // The lease changes hands in the middle of it, but no attempt, however slow this machine, outlives its claim by the clock.
        if turn % 5 == 4 {
            world.wait(11);
        }
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    shop.send().await;
    let told: Vec<i64> = receiver.messages().iter().map(Message::sequence).collect();
    let once: BTreeSet<i64> = told.iter().copied().collect();
    assert!(told.len() > 40 && told.len() == once.len(), "{told:?}");
}

/// An engine that ends in good order notes what is under way, and begins nothing more: no message comes twice.
#[tokio::test]
async fn what_is_under_way_is_noted_before_the_engine_ends() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    shop.hook_for(&receiver, &["factor.added"]).await;
    receiver.answers(Answering::Slowly(700));
    shop.rests(i64::MAX).await;
    for n in 0..3 {
        shop.user(&format!("u{n}")).enrol_totp().await;
    }
    shop.world.seal().await;
    shop.rests(0).await;
    drop(shop.world.engine().deliver_webhooks(webhook_message).await.expect("it begins"));
    crate::support::until(|| receiver.count() >= 1).await;
    shop.world.end().await;
    let scratch = &shop.world.scratch;
    let same = if scratch.is_sqlite() { Scratch::sqlite_in(scratch.folder()) } else { Scratch::on(&scratch.url()) };
    let there = shop.world.moved_to(same).await;
    let shop = Shop { admin: shop.admin.at(&there), bank: shop.bank.clone(), world: there };
    shop.world.wait(100);
    shop.send().await;
    let told: Vec<_> = receiver.messages().iter().map(|m| text(&m.body["data"]["user_id"])).collect();
    assert_eq!(told, ["u0", "u1", "u2"]);
}

/// `kill -9` while an attempt is under way: it is made again by who comes next, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_an_attempt_loses_nothing() {
    let settings = [("COUNTERSIGN_WEBHOOK_PRIVATE", "true"), ("COUNTERSIGN_LOG", "trace")];
    let world = World::process(Scratch::new().await, &settings).await;
    let (bank, receiver) = (world.bank().await, Receiver::start().await);
    let admin = world.caller(&world.key(&bank.rp, &[Scope::Admin], None).await);
    let made = admin.post(HOOKS, json!({"url": receiver.url, "events": ["factor.added"]})).await.is(201);
    let hook = format!("{HOOKS}/{}", text(&made["id"]));
    receiver.answers(Answering::Never);
    for n in 0..5 {
        bank.user(&format!("u{n}")).enrol_totp().await;
    }
    crate::support::until(|| receiver.count() >= 1).await;
    world.kill();
    receiver.answers(Answering::Status(204));
    world.start_again().await;
    // Past the claim of the one who is gone, and its lease.
    world.wait(61);
    for _ in 0..1200 {
        if receiver.taken().len() >= 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let taken: BTreeSet<String> = receiver.taken().iter().map(|m| text(&m.body["data"]["user_id"])).collect();
    assert_eq!(taken.len(), 5);
    let first = receiver.messages().remove(0);
    assert!(receiver.taken().iter().any(|m| m.id == first.id && m.timestamp != first.timestamp), "H-06");
    let mut left = 5;
    for _ in 0..1200 {
        let page = admin.get(&format!("{hook}/deliveries")).await.is(200);
        left = 5 - page["data"].as_array().expect("a list").iter().filter(|d| d["status"] == "delivered").count();
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(left, 0);
    // 3.28: at the most talkative log, which knows the endpoint by its id; and the metrics know outcomes alone.
    let log = world.log();
    let secret = text(&made["secret"]);
    assert!(log.len() > 2_000 && log.contains("TRACE"));
    for secret in [&secret[6..], "hooks?a=1", &receiver.messages()[1].signature[3..], "\"factor.added\",\"timestamp"] {
        assert!(!log.contains(secret), "{secret}");
    }
    let metrics = world.client.get(world.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
    let told: Vec<_> = metrics.lines().filter(|l| l.starts_with("countersign_webhook_attempts_total")).collect();
    assert_eq!(told, ["countersign_webhook_attempts_total{outcome=\"delivered\"} 5"]);
}

/// Over TLS a receiver is told by whose certificate the machine vouches for, and by no other (ASVS 12.3.2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_is_known_by_its_certificate() {
    let scratch = Scratch::sqlite();
    let folder = scratch.folder().to_owned();
    let (Some(known), Some(other)) = (TlsReceiver::start(&folder, "known"), TlsReceiver::start(&folder, "other"))
    else {
        println!("not tried: there is no openssl");
        return;
    };
    let authority = folder.join("known.pem").display().to_string();
    let settings = [("COUNTERSIGN_WEBHOOK_PRIVATE", "true"), ("SSL_CERT_FILE", authority.as_str())];
    let world = World::process(scratch, &settings).await;
    let bank = world.bank().await;
    let admin = world.caller(&world.key(&bank.rp, &[Scope::Admin], None).await);
    for (receiver, expected) in [(&known, "delivered"), (&other, "unreachable")] {
        let made = admin.post(HOOKS, json!({"url": receiver.url, "events": ["user.erased"]})).await.is(201);
        let hook = format!("{HOOKS}/{}", text(&made["id"]));
        admin.ask(&format!("{hook}/test")).await.is(202);
        let mut state = Value::Null;
        for _ in 0..1200 {
            state = admin.get(&format!("{hook}/deliveries")).await.is(200)["data"][0].clone();
            if state["last_status"] == 204 || !state["last_error"].is_null() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(state["status"] == expected || state["last_error"] == expected, "{expected}: {state}");
    }
}

/// A thousand messages may wait for an endpoint; what happened beyond that waits in the chain, and comes in its turn.
#[tokio::test]
async fn what_does_not_fit_waits_in_the_chain() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, _) = shop.hook(&receiver, json!({})).await;
    let now = shop.world.clock.now().0;
    let many = format!(
        "insert into events (rp_id, id, at, kind, actor, outcome)
         with recursive n (i) as (select 1 union all select i + 1 from n where i < 1200)
         select '{}', 'evt_01a0000000007000800000000000' || cast(1000 + i as text), {now}, 'factor.added', 'server', 'success'
         from n",
        shop.bank.rp.id
    );
    shop.world.scratch.execute(&many).await;
    receiver.answers(Answering::With(429, "retry-after", "60".to_owned()));
    shop.world.seal().await;
    let (mut waiting, mut turns) = (0, 0);
    // The engine hands out by itself, too; whoever comes second gives way.
    while waiting < 900 && turns < 1000 {
        for task in shop.world.engine().deliver_webhooks(webhook_message).await.expect("it hands out") {
            task.await.expect("no panic");
        }
        waiting = shop.world.scratch.number("select count(*) from webhook_deliveries where next_at is not null").await;
        turns += 1;
    }
    assert!((900..=1000).contains(&waiting), "{waiting}");
    assert_eq!(shop.admin.get(&hook).await.is(200)["status"], "enabled");
    receiver.answers(Answering::Status(204));
    shop.world.wait(61);
    for _ in 0..3 {
        shop.send().await;
        shop.world.wait(61);
    }
    let told: BTreeSet<i64> = receiver.taken().iter().map(Message::sequence).filter(|n| *n > 0).collect();
    assert_eq!(told.len(), 1201, "all of them, and the endpoint's own");
}

/// An endpoint, its secret and what waits for it go with the database to another.
#[tokio::test]
async fn an_endpoint_moves_with_its_database() {
    let Some(server) = Scratch::postgres().await else { return };
    let shop = Shop::on(World::start_on(Scratch::sqlite(), |_| {}).await).await;
    let receiver = Receiver::start().await;
    let (hook, secret) = shop.hook_for(&receiver, &["factor.added"]).await;
    receiver.answers(Answering::Status(500));
    shop.user("ann").enrol_totp().await;
    shop.deliver().await;
    shop.world.end().await;
    let moved = child::run(&["move", "--from", &shop.world.scratch.url(), "--to", &server.url()], &[]);
    assert_eq!(moved.status, Some(0), "{}", moved.stderr);
    assert!(moved.stdout.contains("1  webhook_endpoints") && moved.stdout.contains("1  webhook_deliveries"));
    let there = shop.world.moved_to(server).await;
    let shop = Shop { admin: shop.admin.at(&there), bank: shop.bank, world: there };
    receiver.answers(Answering::Status(204));
    // The lease of the engine that has ended runs out.
    shop.world.wait(20);
    shop.send().await;
    let [taken] = receiver.taken().try_into().expect("one message");
    assert!(taken.signed_by(&secret) && taken.id == receiver.messages()[0].id);
    assert_eq!(shop.deliveries(&hook).await[0]["status"], "delivered");
}

/// E-04: secrets come under a new data key, and sign as before; E-03: what does not open disables its endpoint alone.
#[tokio::test]
async fn secrets_outlive_their_data_key_and_close_alone() {
    let (shop, receiver) = (Shop::open().await, Receiver::start().await);
    let (hook, secret) = shop.hook_for(&receiver, &["factor.added"]).await;
    let custodian = shop.world.custodian().await;
    let rotation = tokio::spawn(async move { custodian.rotate_data(true, &|_| ()).await.map_err(|e| e.to_string()) });
    while !rotation.is_finished() {
        shop.world.wait(20);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rotation.await.expect("no panic").expect("the old key is removed");
    shop.world.refresh_keys().await;
    shop.user("ann").enrol_totp().await;
    shop.deliver().await;
    assert!(receiver.messages().pop().expect("a message").signed_by(&secret));

    let (broken, _) = shop.hook_for(&receiver, &["factor.added"]).await;
    let id = broken.rsplit('/').next().expect("an id");
    let cut = "substr(secrets, 1, length(secrets) - 1)";
    shop.world.scratch.execute(&format!("update webhook_endpoints set secrets = {cut} where id = '{id}'")).await;
    shop.user("bob").enrol_totp().await;
    shop.deliver().await;
    assert_eq!(receiver.count(), 2, "the other is told");
    let state = shop.admin.get(&broken).await.is(200);
    assert_eq!((&state["status"], &state["disabled_reason"]), (&json!("disabled"), &json!("seal_broken")));
    // A new secret makes it whole.
    let new = text(&shop.admin.ask(&format!("{broken}/rotate-secret")).await.is(200)["secret"]);
    shop.admin.patch(&broken, json!({"status": "enabled"})).await.is(200);
    shop.user("cid").enrol_totp().await;
    shop.deliver().await;
    assert!(receiver.messages().iter().any(|m| m.signed_by(&new)));
    assert_eq!(shop.admin.get(&hook).await.is(200)["status"], "enabled");
}

/// An old backup brings no endpoint back that was removed since, and what it does bring back works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_endpoint_stays_so_after_a_restoration() {
    let world = World::process(Scratch::sqlite(), &[("COUNTERSIGN_WEBHOOK_PRIVATE", "true")]).await;
    let (bank, receiver) = (world.bank().await, Receiver::start().await);
    let admin = world.caller(&world.key(&bank.rp, &[Scope::Admin], None).await);
    let hook = async || {
        let made = admin.post(HOOKS, json!({"url": receiver.url, "events": ["factor.added"]})).await.is(201);
        (format!("{HOOKS}/{}", text(&made["id"])), text(&made["secret"]))
    };
    let ((removed, _), (kept, secret)) = (hook().await, hook().await);
    let file = world.scratch.folder().join("backup.db").display().to_string();
    assert_eq!(world.command(&["backup", &file]).status, Some(0));
    admin.delete(&removed).await.is(204);
    world.take_process().terminate();
    world.close_store().await;
    let restored = world.command(&["restore", &file]);
    assert_eq!(restored.status, Some(0), "{}", restored.stderr);
    world.start_again().await;
    admin.get(&removed).await.refused(404, "not_found");
    admin.get(&kept).await.is(200);
    world.wait(20);
    bank.user("ann").enrol_totp().await;
    crate::support::until(|| receiver.count() == 1).await;
    assert!(receiver.messages()[0].signed_by(&secret));
}
