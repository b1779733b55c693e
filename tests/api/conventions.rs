//! What holds for every call (api.md, 3).

use reqwest::Method;

use countersign::model::Scope;
use sqlx::Connection;

use crate::support::database::Scratch;
use crate::support::document::GUARDS;
use crate::support::verbs::text;
use crate::support::{Caller, World, json};

const JSON: Option<&str> = Some("application/json");

#[tokio::test]
async fn an_unknown_member_is_refused_and_named() {
    let bank = World::start().await.bank().await;
    let ann = bank.user("ann");
    ann.ask(json!({"colour": "red"})).await.invalid("colour");
    ann.ask(json!({"require": {"acrs": "phr"}})).await.invalid("require.acrs");
    ann.ask(json!({"display": {"details": [{"label": "a", "value": "b", "more": 1}]}}))
        .await
        .invalid("display.details[0].more");
    ann.ask(json!({"answer": {"type": "totp", "code": "123456", "now": 1}})).await.invalid("answer.now");
    // A passkey says itself which it is.
    let by_factor = json!({"type": "webauthn", "credential": {}, "factor_id": "fac_1"});
    ann.ask(json!({"answer": by_factor})).await.invalid("answer.factor_id");
    ann.begin(json!({"type": "totp", "secret": "x"})).await.invalid("secret");
    bank.put(&ann.path(""), json!({"email": "x"})).await.invalid("email");
    bank.post(&ann.path("/recovery-codes"), json!({"count": 5})).await.invalid("count");
    bank.post("/v1/sessions/introspect", json!({"token": "x", "nonce": 1})).await.invalid("nonce");
    bank.post("/v1/portal-sessions", json!({"user_id": "ann", "flow": "settings", "x": 1})).await.invalid("x");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    let mut answer = app.now();
    answer["time"] = json!(1);
    challenge.verify(answer).await.invalid("time");
    challenge.prepare(json!({"type": "sms", "phone": "+1"})).await.invalid("phone");
    challenge.exchange(json!({"code": "x", "state": "y"})).await.invalid("state");
    bank.patch(&ann.path(&format!("/factors/{}", app.id)), json!({"name": "a", "type": "b"})).await.invalid("type");
    ann.activate(&app.id, json!({"code": "123456", "name": "x"})).await.invalid("name");
    assert_eq!(challenge.attempts_left().await, 5, "what was never judged costs nothing");
}

#[tokio::test]
async fn a_call_without_members_takes_none() {
    let bank = World::start().await.bank().await;
    let ann = bank.user("ann");
    ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    bank.post(&challenge.path("/cancel"), json!({"reason": "x"})).await.invalid("reason");
    bank.raw(Method::POST, &challenge.path("/cancel"), Some("text/plain"), b"{}".to_vec())
        .await
        .refused(415, "media_type_unsupported");
    assert_eq!(challenge.status().await, "pending");
    bank.post(&challenge.path("/cancel"), json!({})).await.is(200);
    bank.post(&ann.path("/recovery-codes/confirm"), json!({"all": true})).await.invalid("all");
    let phone = ann.begin_phone("+14155550123").await;
    bank.post(&ann.path(&format!("/factors/{}/resend", phone.id)), json!({"by": "voice"})).await.invalid("by");
    // And where all members are optional, none at all will do.
    assert_eq!(bank.ask(&ann.path("/recovery-codes")).await.is(201)["status"], "active");
}

/// 3.34: a member of another type is named, never coerced and never an accident.
#[tokio::test]
async fn a_member_of_the_wrong_type_is_named() {
    let bank = World::start().await.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    for code in [json!(123456), json!(["123456"]), json!({"$ne": 1}), json!(true), json!(1.5)] {
        challenge.verify(json!({"type": "totp", "code": code})).await.invalid("code");
        ann.activate(&app.id, json!({"code": code})).await.invalid("code");
    }
    challenge.verify(json!({"type": "totp", "code": null})).await.invalid("code");
    challenge.verify(json!({"type": "totp"})).await.invalid("code");
    challenge.verify(json!({"code": "123456"})).await.invalid("type");
    challenge.verify(json!({"type": "password", "code": "123456"})).await.invalid("type");
    challenge.verify(json!({"type": "webauthn", "code": "123456"})).await.invalid("code");
    challenge.verify(json!({"type": "webauthn"})).await.invalid("credential");
    challenge.verify(json!({"type": "totp", "code": "123456", "factor_id": "x"})).await.invalid("factor_id");
    ann.ask(json!({"single_use": "yes"})).await.invalid("single_use");
    ann.ask(json!({"action": 5})).await.invalid("action");
    ann.ask(json!({"require": {"acr": "aal3"}})).await.invalid("require.acr");
    ann.ask(json!({"require": {"max_age": -1}})).await.invalid("require.max_age");
    ann.ask(json!({"require": {"max_age": "600"}})).await.invalid("require.max_age");
    ann.ask(json!({"require": {"methods": []}})).await.invalid("require.methods");
    ann.ask(json!({"require": {"methods": "totp"}})).await.invalid("require.methods");
    ann.ask(json!({"require": {"methods": ["email"]}})).await.invalid("require.methods[0]");
    ann.ask(json!({"audience": "https://api.example.com"})).await.invalid("audience");
    ann.ask(json!({"binding": "b".repeat(256)})).await.invalid("binding");
    ann.ask(json!({"binding": "ü".repeat(128)})).await.invalid("binding");
    ann.ask(json!({"code_challenge": "short"})).await.invalid("code_challenge");
    ann.begin(json!({"type": "push"})).await.invalid("type");
    ann.begin(json!({"type": "recovery_code"})).await.invalid("type");
    ann.begin(json!({})).await.invalid("type");
    ann.begin(json!({"type": "sms"})).await.invalid("phone");
    ann.begin(json!({"type": "totp", "phone": "+14155550123"})).await.invalid("phone");
    ann.begin(json!({"type": "sms", "phone": "+14155550123", "authenticator": "any"})).await.invalid("authenticator");
    ann.begin(json!({"type": "webauthn", "authenticator": "hybrid"})).await.invalid("authenticator");
    bank.post("/v1/sessions/introspect", json!({})).await.invalid("token");
    bank.post("/v1/portal-sessions", json!({"user_id": "ann", "flow": "delete_all"})).await.invalid("flow");
    bank.post("/v1/challenges", json!({})).await.invalid("user_id");
    assert_eq!(challenge.attempts_left().await, 5);
}

/// 3.34: of two readers each might take another of two members.
#[tokio::test]
async fn a_member_that_occurs_twice_is_refused() {
    let bank = World::start().await.bank().await;
    let app = bank.user("ann").enrol_totp().await;
    let challenge = bank.user("ann").challenge(json!({})).await;
    let twice = format!(r#"{{"type":"totp","code":"{}","code":"{}"}}"#, app.wrong(), app.code());
    bank.raw(Method::POST, &challenge.path("/verify"), JSON, twice.into_bytes()).await.invalid("code");
    bank.raw(Method::POST, "/v1/challenges", JSON, br#"{"user_id":"ann","user_id":"bob"}"#.to_vec())
        .await
        .invalid("user_id");
    assert_eq!(challenge.attempts_left().await, 5);
}

#[tokio::test]
async fn what_is_no_json_object_is_malformed_or_invalid() {
    let bank = World::start().await.bank().await;
    for body in
        ["", "{", "{\"user_id\":\"ann\"", "user_id=ann", "{'user_id':'ann'}", "{\"user_id\":\"ann\"} x", "\u{feff}{}"]
    {
        bank.raw(Method::POST, "/v1/challenges", JSON, body.into()).await.refused(400, "request_malformed");
    }
    bank.raw(Method::POST, "/v1/challenges", JSON, b"{\"user_id\":\"\xff\"}".to_vec())
        .await
        .refused(400, "request_malformed");
    // A word of another JSON type is a member that does not fit.
    for (path, before, member) in
        [("/v1/users/ann/factors", "", "type"), ("/v1/portal-sessions", "\"user_id\":\"ann\",", "flow")]
    {
        for odd in ["null", "1", "true", "{}"] {
            let body = format!("{{{before}\"{member}\":{odd}}}");
            bank.raw(Method::POST, path, JSON, body.into()).await.invalid(member);
        }
    }
    for body in ["[]", "[\"ann\"]", "null", "1", "\"ann\""] {
        bank.raw(Method::POST, "/v1/challenges", JSON, body.into()).await.refused(422, "request_invalid");
    }
    let deep = format!("{{\"user_id\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let answer = bank.raw(Method::POST, "/v1/challenges", JSON, deep.into_bytes()).await;
    assert!(matches!(answer.status, 400 | 422), "{}", answer.status);
}

/// C-06: what a form of another site could send is no JSON.
#[tokio::test]
async fn a_body_that_is_too_large_or_of_another_type_is_refused() {
    let bank = World::start().await.bank().await;
    let large = json!({"user_id": "x".repeat(2_000_000)}).to_string().into_bytes();
    bank.raw(Method::POST, "/v1/challenges", JSON, large).await.refused(413, "body_too_large");
    for media in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp"), Some("")]
    {
        let body = b"{\"user_id\":\"ann\"}".to_vec();
        bank.raw(Method::POST, "/v1/challenges", media, body).await.refused(415, "media_type_unsupported");
    }
    let packed = bank.with("content-encoding", "gzip");
    let body = b"{\"user_id\":\"ann\"}".to_vec();
    packed.raw(Method::POST, "/v1/challenges", JSON, body).await.refused(415, "media_type_unsupported");
    let repeated = bank.with("idempotency-key", "a-type-was-forgotten");
    for (media, status) in [(None, 415), (JSON, 200)] {
        let body = b"{\"user_id\":\"ann\"}".to_vec();
        assert_eq!(repeated.raw(Method::POST, "/v1/challenges", media, body).await.status, status, "its key is free");
    }
    for media in ["application/json; charset=utf-8", "Application/JSON"] {
        bank.raw(Method::POST, "/v1/challenges", Some(media), b"{\"user_id\":\"ann\"}".to_vec()).await.is(200);
    }
}

/// C-06: what changes nothing has no other way in.
#[tokio::test]
async fn unknown_addresses_and_methods_are_problems_too() {
    let bank = World::start().await.bank().await;
    for path in ["/v1", "/v1/", "/v1/nothing", "/v2/challenges", "/v1/challenges/", "/nothing", "/v1/users"] {
        bank.get(path).await.refused(404, "not_found");
    }
    for (method, path) in [
        (Method::GET, "/v1/challenges"),
        (Method::DELETE, "/v1/challenges"),
        (Method::PUT, "/v1/users/ann/factors"),
        (Method::GET, "/v1/sessions/introspect/x"),
        (Method::POST, "/.well-known/jwks.json"),
    ] {
        let answer = bank.call(method.clone(), path, None).await;
        assert!(matches!(answer.status, 404 | 405), "{method} {path}: {}", answer.status);
    }
    let answer = bank.call(Method::DELETE, "/v1/challenges", None).await;
    assert_eq!(answer.header("allow"), Some("POST"), "RFC 9110, 15.5.6");
    answer.refused(405, "http_method_unsupported");
}

#[tokio::test]
async fn a_request_id_is_echoed_if_it_is_sane() {
    let bank = World::start().await.bank().await;
    let answer = bank.with("request-id", "req_my-own.1").get("/v1/users/ann").await;
    assert_eq!(answer.header("request-id"), Some("req_my-own.1"));
    for odd in ["a b", "<script>", &"x".repeat(200), "é"] {
        let answer = bank.with("request-id", odd).get("/v1/users/ann").await;
        let id = answer.header("request-id").expect("an id").to_owned();
        assert!(id.starts_with("req_"), "{id}");
    }
    let (one, two) = (bank.get("/v1/users/ann").await, bank.get("/v1/users/ann").await);
    assert_ne!(one.header("request-id"), two.header("request-id"));
    // A kept problem names the request that met it; the answer still names the one that asks again, if that names itself.
    let kept = bank.with("idempotency-key", "k");
    let first = kept.post("/v1/challenges/chl_x/verify", json!({})).await;
    let again = kept.post("/v1/challenges/chl_x/verify", json!({})).await;
    let named = kept.with("request-id", "mine").post("/v1/challenges/chl_x/verify", json!({})).await;
    assert_eq!((&again.body, &named.body), (&first.body, &first.body));
    assert_eq!(again.header("request-id"), first["request_id"].as_str());
    assert_eq!(named.header("request-id"), Some("mine"));
}

/// What names nothing is not found, and no more is told to who may not ask.
#[tokio::test]
async fn a_path_that_does_not_read_is_a_problem_like_any_other() {
    let world = World::start().await;
    let bank = world.bank().await;
    for path in ["/v1/challenges/%ff", "/v1/sessions/%ff"] {
        world.caller("sk_live_unknown").get(path).await.refused(401, "api_key_invalid");
        bank.get(path).await.refused(400, "request_malformed");
    }
    for path in ["/errors/%ff", "/errors/none", "/assets/%ff/x", "/assets/x/none.css", "/assets/x/none"] {
        let answer = bank.get(path).await;
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        answer.refused(404, "not_found");
    }
}

/// An empty cursor is none: the first page.
#[tokio::test]
async fn a_list_begins_where_the_cursor_is_empty() {
    let bank = World::start().await.bank().await;
    let ann = bank.user("ann");
    ann.begin_totp().await;
    for path in [ann.path("/factors"), "/v1/events".to_owned()] {
        let page = bank.get(&path).await.is(200);
        assert_eq!(bank.get(&format!("{path}?limit=20&cursor=")).await.is(200), page, "{path}");
    }
}

/// L-06.
#[tokio::test]
async fn nothing_that_the_caller_sent_is_echoed_in_a_problem() {
    let bank = World::start().await.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    let canary = "CANARY-7f3a";
    let problems = [
        ann.ask(json!({"require": {"acr": canary}})).await,
        ann.ask(json!({"action": {canary: canary}})).await,
        ann.ask(json!({"return_url": format!("https://{canary}.example")})).await,
        challenge.verify(json!({"type": "totp", "code": canary})).await,
        challenge.verify(json!({"type": canary, "code": "1"})).await,
        challenge.verify(json!({"type": "webauthn", "credential": {"id": canary}})).await,
        ann.begin(json!({"type": "sms", "phone": canary})).await,
        ann.activate(&app.id, json!({"code": canary})).await,
        bank.get(&format!("/v1/sessions/{canary}")).await,
        bank.get(&format!("/v1/{canary}")).await,
        bank.world.caller(canary).get("/v1/users/ann").await,
    ];
    for problem in problems {
        assert!(problem.status >= 400);
        assert!(!problem.body.to_string().contains(canary), "{}", problem.body);
    }
}

/// L-06: what the database says of a table that is gone stays inside.
#[tokio::test]
async fn an_outage_says_nothing_of_the_inside() {
    let bank = World::start().await.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    let scratch = &bank.world.scratch;
    scratch.execute("alter table factors rename to canary_factors").await;
    let outages = [
        bank.get(&ann.path("/factors")).await,
        bank.get(&ann.path("")).await,
        ann.begin(json!({"type": "totp"})).await,
        challenge.verify(app.now()).await,
        ann.ask(json!({"answer": app.now()})).await,
        ann.remove(&app.id).await,
    ];
    for outage in outages {
        let text = outage.refused(503, "store_unavailable").to_string().to_lowercase();
        for inside in ["canary", "factors", "sql", "postgres", "no such table", "relation", "select", "src/", ".rs"] {
            assert!(!text.contains(inside), "{inside}: {text}");
        }
    }
    scratch.execute("alter table canary_factors rename to factors").await;
    challenge.verify(app.now()).await.is(200);
}

#[tokio::test]
async fn problems_carry_words_for_developers_and_for_people() {
    let bank = World::start().await.bank().await;
    let problem = bank.get("/v1/sessions/ses_x").await.refused(404, "not_found");
    assert_eq!(problem["type"], format!("{}/errors/not_found", bank.world.issuer()));
    for member in ["title", "detail", "user_message"] {
        assert!(problem[member].as_str().is_some_and(|words| words.len() > 5), "{member}");
    }
}

/// K-02: a key is taken from the header only, and whole.
#[tokio::test]
async fn a_call_without_a_good_key_is_unauthorised() {
    let world = World::start().await;
    let bank = world.bank().await;
    let key = &bank.key;
    let stranger = world.stranger();
    let headers = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {key}"),
        format!("Bearer {}", &key[..key.len() - 1]),
        format!("Bearer {key}x"),
        format!("Bearer {}", key.to_uppercase()),
        format!("Bearer {}", key.replace("sk_live_", "sk_test_")),
        format!("Bearer x {key}"),
        format!("Bearer {key},{key}"),
        "Bearer sk_live_".to_owned(),
        "Bearer st_something".to_owned(),
        key.clone(),
    ];
    for header in &headers {
        let answer = stranger.with("authorization", header).get("/v1/users/ann").await;
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "RFC 9110, 15.5.2");
        answer.refused(401, "api_key_invalid");
    }
    stranger.get("/v1/users/ann").await.refused(401, "api_key_invalid");
    stranger.get(&format!("/v1/users/ann?api_key={key}")).await.refused(401, "api_key_invalid");
    stranger.with("x-api-key", key).get("/v1/users/ann").await.refused(401, "api_key_invalid");
    bank.with("authorization", &format!("Bearer {key}")).get("/v1/users/ann").await.refused(401, "api_key_invalid");
    stranger.with("authorization", &format!("bearer {key}")).get("/v1/users/ann").await.is(200);
}

/// What OpenAPI 3.1 demands of a document beyond its shape, and what clients that are generated from it need.
#[tokio::test]
async fn the_document_names_each_operation_once_and_describes_each_answer() {
    let document = World::start().await.document().await;
    let mut names = std::collections::HashSet::new();
    for (method, template) in document.calls() {
        let operation = &document.whole["paths"][&template][method.to_lowercase()];
        let name = text(&operation["operationId"]);
        assert!(names.insert(name.clone()), "{method} {template}: {name} again");
        let answers = operation["responses"].as_object().expect("answers");
        for (status, answer) in answers {
            assert!(answer["description"].as_str().is_some_and(|d| !d.is_empty()), "{method} {template}: {status}");
        }
        if template.starts_with("/v1/") {
            for status in ["429", "503"] {
                assert!(answers[status]["headers"]["Retry-After"].is_object(), "{method} {template}: {status}");
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|p| p["name"] == "limit") {
            assert_eq!((&parameter["schema"]["minimum"], &parameter["schema"]["maximum"]), (&json!(1), &json!(100)));
        }
    }
}

/// Every call that the document describes, tried by somebody whom nobody knows: whatever else is wrong with it, that comes first.
#[tokio::test]
async fn every_call_but_the_public_ones_needs_a_key() {
    let world = World::start().await;
    world.bank().await;
    let stranger = world.stranger();
    let forger = stranger.with("authorization", &format!("Bearer sk_live_{}", "x".repeat(43)));
    let public = ["/livez", "/readyz", "/metrics", "/.well-known/jwks.json"];
    let mut tried = 0;
    for (method, template) in world.document().await.calls() {
        if public.contains(&template.as_str()) {
            continue;
        }
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let (good, bad) = (filled(&template, "ann"), template.replace("{user_id}", "a%0Ab").replace("{id}", "x"));
        for caller in [&stranger, &forger] {
            caller.call(method.clone(), &good, Some(json!({}))).await.refused(401, "api_key_invalid");
            caller.raw(method.clone(), &good, None, b"[".to_vec()).await.refused(401, "api_key_invalid");
            caller.call(method.clone(), &bad, Some(json!([]))).await.refused(401, "api_key_invalid");
        }
        tried += 1;
    }
    assert!(tried >= 20, "{tried} calls");
}

/// K-01: a list tells when a key was last used, and an unused one shows itself.
#[tokio::test]
async fn the_last_use_of_a_key_is_noted() {
    let world = World::start().await;
    let bank = world.bank().await;
    let spare = world.key(&bank.rp, &[Scope::UsersRead], None).await;
    let uses = || world.scratch.texts("select hint from api_keys where last_used_at is not null");
    for _ in 0..3 {
        bank.get("/v1/users/ann").await.is(200);
    }
    for _ in 0..100 {
        if !uses().await.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let used = uses().await;
    assert_eq!(used.len(), 1);
    assert!(!spare.ends_with(used[0].rsplit('…').next().expect("its last characters")));
}

/// K-03: least scope. Each call names the one that it needs, and is tried with it, with each other, and with all others.
#[tokio::test]
async fn a_key_does_only_what_its_scopes_say() {
    let world = World::start().await;
    let bank = world.bank().await;
    let mut callers: Vec<(Scope, Caller)> = Vec::new();
    for scope in Scope::ALL {
        callers.push((scope, world.caller(&world.key(&bank.rp, &[scope], None).await)));
    }
    let mut lacking: Vec<(Scope, Caller)> = Vec::new();
    for scope in Scope::ALL {
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|s| *s != scope && *s != Scope::Admin).collect();
        lacking.push((scope, world.caller(&world.key(&bank.rp, &others, None).await)));
    }
    let needs = |method: &str, template: &str| match (method, template) {
        (_, t) if t.starts_with("/v1/challenges") => Scope::Challenges,
        (_, t) if t.starts_with("/v1/sessions") || t.ends_with("/sessions") => Scope::Sessions,
        (_, "/v1/events") => Scope::EventsRead,
        (_, t) if t.starts_with("/v1/webhook-endpoints") => Scope::Admin,
        ("GET", _) => Scope::UsersRead,
        _ => Scope::FactorsWrite,
    };
    let document = world.document().await;
    for (method, template) in document.calls() {
        if !template.starts_with("/v1/") {
            continue;
        }
        let security = &document.whole["paths"][&template][method.to_lowercase()]["security"];
        let named = security.as_array().expect("a list").iter().find_map(|one| one.get("api_key"));
        let need = needs(&method, &template);
        assert_eq!(named, Some(&json!([need.as_str()])), "{method} {template}");
        let verb = Method::from_bytes(method.as_bytes()).expect("a method");
        let (_, without) = lacking.iter().find(|(scope, _)| *scope == need).expect("one of them");
        let body = Some(sample(&method, &template)).filter(|b| !b.is_null());
        without.call(verb.clone(), &filled(&template, "ann"), body).await.refused(403, "scope_missing");
        without.raw(verb.clone(), &filled(&template, "ann"), None, b"[".to_vec()).await.refused(403, "scope_missing");
        let odd = template.replace("{user_id}", "a%0Ab").replace("{id}", "x") + "?limit=0";
        let told = without.call(verb.clone(), &odd, None).await.refused(403, "scope_missing");
        assert!(told["detail"].as_str().is_some_and(|detail| detail.contains(need.as_str())), "{told}");
        for (scope, caller) in &callers {
            let body = Some(sample(&method, &template)).filter(|b| !b.is_null());
            let answer = caller.call(verb.clone(), &filled(&template, "ann"), body).await;
            let may = *scope == need || *scope == Scope::Admin;
            assert_eq!(
                answer.code() != "scope_missing",
                may,
                "{method} {template} with {}: {}",
                scope.as_str(),
                answer.body
            );
        }
    }
}

/// K-03.
#[tokio::test]
async fn a_key_ends_at_once_when_it_is_revoked_and_at_its_time() {
    let world = World::start().await;
    let bank = world.bank().await;
    let new = world.operator.create_key(&bank.rp, Vec::new(), None).await.expect("a key");
    let caller = world.caller(&new.secret);
    caller.get("/v1/users/ann").await.is(200);
    world.operator.revoke_key(new.key.id.as_str()).await.expect("it is revoked");
    caller.get("/v1/users/ann").await.refused(401, "api_key_invalid");
    bank.get("/v1/users/ann").await.is(200);

    let caller = world.caller(&world.key(&bank.rp, &[], Some(3600)).await);
    world.wait(3599);
    caller.get("/v1/users/ann").await.is(200);
    world.wait(1);
    caller.get("/v1/users/ann").await.refused(401, "api_key_invalid");
}

/// K-01: 256 bits, and the prefix tells trials from real people.
#[tokio::test]
async fn keys_of_live_and_test_parties_differ_in_their_prefix() {
    let world = World::start().await;
    let (live, test) = (world.bank().await, world.party("Trial", "trial.example", true).await);
    assert!(live.key.starts_with("sk_live_") && live.key.len() == 8 + 43, "{}", live.key);
    assert!(test.key.starts_with("sk_test_") && test.key.len() == 8 + 43, "{}", test.key);
    test.get("/v1/users/ann").await.is(200);
}

/// K-03, 3.33: an id of another relying party looks exactly like an unknown one, for every call.
#[tokio::test]
async fn nothing_of_another_relying_party_is_reachable() {
    let world = World::start().await;
    let (bank, shop) = (world.bank().await, world.party("Shop", "shop.example", false).await);
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let pending = ann.begin_totp().await;
    ann.recovery_codes().await;
    let session = ann.session(&app, json!({})).await;
    let challenge = ann.challenge(json!({})).await;
    let ids = [
        ("/v1/challenges/{id}", challenge.id.as_str(), "chl_00000000000070008000000000000000"),
        ("/v1/sessions/{id}", session["id"].as_str().expect("an id"), "ses_00000000000070008000000000000000"),
        ("/v1/users/{user_id}/factors/{id}", app.id.as_str(), "fac_00000000000070008000000000000000"),
        ("/v1/users/{user_id}/factors/{id}", pending.id.as_str(), "fac_00000000000070008000000000000000"),
    ];
    let mut tried = 0;
    for (method, template) in world.document().await.calls() {
        for (prefix, theirs, unknown) in ids.iter().filter(|(prefix, ..)| template.starts_with(prefix)) {
            let verb = Method::from_bytes(method.as_bytes()).expect("a method");
            let body = || Some(sample(&method, &template)).filter(|b| !b.is_null());
            let at = |id: &str| template.replace("{user_id}", "ann").replace("{id}", id);
            let mut foreign = shop.call(verb.clone(), &at(theirs), body()).await.refused(404, "not_found");
            let mut nothing = shop.call(verb, &at(unknown), body()).await.refused(404, "not_found");
            foreign["request_id"] = json!(null);
            nothing["request_id"] = json!(null);
            assert_eq!(foreign, nothing, "{method} {template} {prefix}");
            tried += 1;
        }
    }
    assert!(tried >= 13, "{tried} calls");
    assert_eq!(shop.introspect(json!({"token": session["token"]})).await, json!({"active": false, "satisfied": false}));
    assert_eq!(shop.introspect(json!({"token": session["jwt"]})).await, json!({"active": false, "satisfied": false}));
    let there = shop.user("ann").shown().await;
    assert_eq!(there["factors"], json!([]));
    assert_eq!(there["recovery_codes"]["status"], "none");
    shop.delete("/v1/users/ann").await.is(204);
    shop.delete("/v1/users/ann/sessions").await.is(204);

    assert!(bank.is_active(&session["token"]).await);
    assert_eq!(challenge.attempts_left().await, 5);
    challenge.verify(app.answer()).await.is(200);
    assert_eq!(ann.factors().await.len(), 2);
    // Of one name, and strangers to each other.
    let there = shop.user("ann").enrol_totp().await;
    shop.user("ann").session(&there, json!({})).await;
}

#[tokio::test]
async fn ids_are_a_prefix_and_a_part_that_sorts_by_time() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ann = bank.user("ann");
    let app = ann.enrol_totp().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(ann.challenge(json!({})).await.id);
        world.wait(1);
    }
    assert!(ids.is_sorted() && ids.iter().all(|id| id.starts_with("chl_")), "{ids:?}");
    assert!(bank.rp.id.as_str().starts_with("rp_") && app.id.starts_with("fac_"));
    let session = ann.session(&app, json!({})).await;
    assert!(text(&session["id"]).starts_with("ses_") && text(&session["token"]).starts_with("st_"));
}

/// C-10, J-06: also for pages of any origin.
#[tokio::test]
async fn health_and_keys_are_public() {
    let world = World::start().await;
    let stranger = world.stranger();
    for path in ["/livez", "/readyz"] {
        assert_eq!(stranger.get(path).await.is(200)["status"], "ok");
    }
    let jwks = stranger.get("/.well-known/jwks.json").await;
    assert_eq!(jwks.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(jwks.header("access-control-allow-origin"), Some("*"));
    jwks.is(200);
}

/// C-09, C-10: no origin but a registered one is let in by a browser, and nothing is sniffed.
#[tokio::test]
async fn only_registered_origins_get_cors_headers() {
    let world = World::start().await;
    let bank = world.bank().await;
    let known = bank.with("origin", bank.origin()).get("/v1/users/ann").await;
    assert_eq!(known.header("access-control-allow-origin"), Some("https://bank.example"));
    assert_eq!(known.header("access-control-allow-credentials"), None);
    assert_eq!(known.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(known.header("cross-origin-resource-policy"), Some("same-origin"));
    for origin in ["https://evil.example", "null", "https://bank.example.evil.example", "http://bank.example"] {
        let unknown = bank.with("origin", origin).get("/v1/users/ann").await;
        assert_eq!(unknown.header("access-control-allow-origin"), None, "{origin}");
    }
    let guess = world.caller("sk_live_x").with("origin", bank.origin()).get("/v1/users/ann").await;
    assert_eq!((guess.status, guess.header("access-control-allow-origin")), (401, None), "nothing is looked up for it");
    let guess = world.caller("sk_live_x").with("origin", bank.origin()).get("/v1/nothing").await;
    assert_eq!(
        (guess.status, guess.header("access-control-allow-origin")),
        (404, None),
        "nor where no key is asked for"
    );
}

/// C-10: a browser that asks first is told what a page of a registered origin may send, to the API alone, and never with cookies.
#[tokio::test]
async fn only_registered_origins_pass_a_preflight() {
    let world = World::start().await;
    let bank = world.bank().await;
    let ask = |path: &str, origin: &str| {
        let request = world.client.request(Method::OPTIONS, world.url(path)).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization, content-type").send()
    };
    let told = |answer: &reqwest::Response| {
        let names = ["allow-origin", "allow-methods", "allow-headers", "max-age", "allow-credentials"];
        names.map(|name| {
            let value = answer.headers().get(format!("access-control-{name}"));
            value.map(|value| value.to_str().expect("text").to_owned())
        })
    };
    for path in ["/v1/challenges", "/v1/users/ann/factors", "/v1/nothing"] {
        let known = ask(path, bank.origin()).await.expect("an answer");
        assert_eq!(known.status(), 204, "{path}");
        let expected = [
            Some("https://bank.example"),
            Some("GET, POST, PATCH, DELETE"),
            Some("authorization, content-type, idempotency-key, request-id"),
            Some("600"),
            None,
        ];
        assert_eq!(told(&known), expected.map(|value| value.map(str::to_owned)), "{path}");
        assert_eq!(known.headers()["vary"], "origin", "{path}");
    }
    for origin in ["https://evil.example", "null", "https://bank.example.evil.example", "http://bank.example"] {
        let unknown = ask("/v1/challenges", origin).await.expect("an answer");
        assert_eq!(unknown.status(), 405, "{origin}");
        assert!(told(&unknown).iter().all(Option::is_none), "{origin}");
        assert_eq!(unknown.headers()["vary"], "origin", "{origin}");
    }
    for path in ["/", "/challenge/none", "/livez"] {
        let page = ask(path, bank.origin()).await.expect("an answer");
        assert_eq!(page.status(), 405, "{path}");
        assert!(told(&page).iter().all(Option::is_none), "{path}");
    }
}

/// C-10: where nobody can look an origin up, a page of any learns that it is to come again, and a browser that asks first lets it.
#[tokio::test]
async fn an_outage_may_be_read_from_any_origin() {
    let world = World::start().await;
    let bank = world.bank().await;
    let page = world.stranger().with("origin", bank.origin());
    world.scratch.execute("alter table relying_parties rename to lost_parties").await;
    let told = page.post("/v1/challenges/chl_1/verify", json!({})).await;
    assert_eq!(told.header("access-control-allow-origin"), Some(bank.origin()));
    assert!(told.header("access-control-expose-headers").is_some_and(|names| names.contains("retry-after")));
    told.refused(503, "store_unavailable");
    let ask = world.client.request(Method::OPTIONS, world.url("/v1/challenges/chl_1/verify"));
    let ask = ask.header("origin", bank.origin()).header("access-control-request-method", "POST");
    let let_go = ask.send().await.expect("an answer");
    assert_eq!(let_go.status(), 204);
    let told = |name: &str| let_go.headers().get(name).and_then(|value| value.to_str().ok());
    assert_eq!(told("access-control-allow-origin"), Some(bank.origin()));
    assert_eq!(told("access-control-allow-methods"), Some("GET, POST, PATCH, DELETE"));
    assert_eq!(told("access-control-max-age"), None, "it asks again next time");
    world.scratch.execute("alter table lost_parties rename to relying_parties").await;
    let unknown = world.stranger().with("origin", "https://evil.example").get("/v1/users/ann").await;
    assert_eq!((unknown.status, unknown.header("access-control-allow-origin")), (401, None));
}

/// C-07: whatever is answered, where browsers reach the engine by https; where they do not, nothing. C-09: the others in any case.
#[tokio::test]
async fn where_the_public_address_is_https_every_answer_says_to_stay_with_it() {
    for (public, expected) in
        [(None, None), (Some("https://mfa.bank.example"), Some("max-age=31536000; includeSubDomains"))]
    {
        let world = World::start_with(|c| {
            if let Some(public) = public {
                c.public_url = public.parse().expect("an address");
            }
        })
        .await;
        let bank = world.bank().await;
        let start = world.client.get(world.url("/")).send().await.expect("an answer").text().await.expect("a page");
        let asset = start.split("href=\"").find(|rest| rest.starts_with("/assets/")).expect("a style sheet");
        for (path, status) in [
            ("/", 200),
            (asset.split('"').next().expect("its address"), 200),
            ("/challenge/none", 404),
            ("/docs", 200),
            ("/openapi.json", 200),
            ("/.well-known/jwks.json", 200),
            ("/livez", 200),
            ("/v1/users/ann", 200),
            ("/v1/users/ann/factors?limit=0", 422),
            ("/v1/nothing", 404),
            ("/nothing", 404),
        ] {
            let answer = world.client.get(world.url(path)).bearer_auth(&bank.key).send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), status, "{path}");
            let hsts = answer.headers().get("strict-transport-security").map(|value| value.to_str().expect("text"));
            assert_eq!(hsts, expected, "{path}");
            for (name, value) in GUARDS {
                assert_eq!(answer.headers().get(name).map(|v| v.as_bytes()), Some(value.as_bytes()), "{name} {path}");
            }
        }
        let stranger = world.client.get(world.url("/v1/users/ann")).send().await.expect("an answer");
        assert_eq!(stranger.status(), 401);
        assert_eq!(stranger.headers().contains_key("strict-transport-security"), expected.is_some());
    }
}

/// X-13: a store that is gone is an outage, never a verdict; and nothing was lost when it is back.
#[tokio::test]
async fn without_its_database_the_engine_says_so() {
    let Some(scratch) = Scratch::postgres().await else { return };
    let (server, name) = scratch.server();
    let world = World::start_on(scratch, |_| {}).await;
    let ann = world.bank().await.user("ann");
    let app = ann.enrol_totp().await;
    let challenge = ann.challenge(json!({})).await;
    let run = |text: String| {
        let server = server.clone();
        async move {
            let mut conn = sqlx::PgConnection::connect(&server).await.expect("the server answers");
            sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut conn).await.expect("it does so");
        }
    };
    run(format!("alter database {name} allow_connections false")).await;
    run(format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")).await;
    world.stranger().get("/livez").await.is(200);
    world.stranger().get("/readyz").await.refused(503, "store_unavailable");
    challenge.verify(app.now()).await.refused(503, "store_unavailable");
    run(format!("alter database {name} allow_connections true")).await;
    world.stranger().get("/readyz").await.is(200);
    challenge.verify(app.now()).await.is(200);
}

/// A path of this template for this user, with ids that nobody has.
fn filled(template: &str, user: &str) -> String {
    let kind = if template.contains("/factors/") {
        "fac"
    } else if template.contains("/sessions/") {
        "ses"
    } else if template.contains("/webhook-endpoints/") {
        "whk"
    } else {
        "chl"
    };
    template.replace("{user_id}", user).replace("{id}", &format!("{kind}_00000000000070008000000000000000"))
}

/// A body that fits the call, so that it is refused for no other reason.
fn sample(method: &str, template: &str) -> serde_json::Value {
    match (method, template.rsplit('/').next().unwrap_or_default()) {
        ("POST", "challenges") => json!({"user_id": "ann"}),
        ("POST", "prepare") => json!({"type": "webauthn"}),
        ("POST", "verify") => json!({"type": "totp", "code": "123456"}),
        ("POST", "exchange" | "activate") => json!({"code": "123456"}),
        ("POST", "factors") => json!({"type": "totp"}),
        ("POST", "introspect") => json!({"token": "st_x"}),
        ("POST", "portal-sessions") => json!({"user_id": "ann", "flow": "settings"}),
        ("POST", "recovery-codes") | ("PUT", _) => json!({}),
        ("POST", "webhook-endpoints") => json!({"url": "https://hooks.invalid/"}),
        ("PATCH", _) if template.starts_with("/v1/webhook-endpoints") => json!({"status": "enabled"}),
        ("PATCH", _) => json!({"name": "New"}),
        _ => serde_json::Value::Null,
    }
}
