//! Step-up sessions: introspected, revoked, verified by those who do not ask (api.md, 6).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use sha2::{Digest, Sha256};

use crate::support::verbs::text;
use crate::support::{Value, ann_with_app, json};

fn inactive() -> Value {
    json!({"active": false, "satisfied": false})
}

/// S-07: what a session is worth is told, by its token and by its JWT.
#[tokio::test]
async fn introspection_tells_what_a_session_is() {
    let (ann, app) = ann_with_app().await;
    let session = ann.session(&app, json!({"action": "payout"})).await;
    for token in [&session["token"], &session["jwt"]] {
        let told = ann.bank.introspect(json!({"token": token, "action": "payout"})).await;
        assert_eq!((&told["active"], &told["satisfied"], &told["missing"]), (&json!(true), &json!(true), &json!([])));
        for member in ["user_id", "action", "acr", "amr", "auth_time", "expires_at"] {
            assert_eq!(told[member], session[member], "{member}");
        }
        assert!(told["www_authenticate"].is_null());
    }
}

/// S-06, S-08, S-14: active, and of no use for what was asked.
#[tokio::test]
async fn introspection_names_what_is_missing() {
    let (ann, app) = ann_with_app().await;
    let session = ann.session(&app, json!({"action": "payout"})).await;
    let ask = |mut question: Value| {
        question["token"] = session["token"].clone();
        let bank = ann.bank.clone();
        async move { bank.introspect(question).await }
    };
    for (question, missing) in [
        (json!({"action": "login"}), json!(["action"])),
        (json!({"require": {"acr": "phr"}}), json!(["acr"])),
        (json!({"require": {"max_age": 0}}), json!(["max_age"])),
        (json!({"require": {"methods": ["webauthn", "sms"]}}), json!(["methods"])),
        (
            json!({"action": "x", "require": {"acr": "phrh", "max_age": 0, "methods": ["sms"]}}),
            json!(["action", "acr", "max_age", "methods"]),
        ),
    ] {
        let told = ask(question.clone()).await;
        assert_eq!((&told["active"], &told["satisfied"]), (&json!(true), &json!(false)), "{question}");
        assert_eq!(told["missing"], missing);
        // What a session for something else lacks is no stronger or newer proof (RFC 9470, 3).
        assert_eq!(told["www_authenticate"].is_string(), missing != json!(["action"]), "{question}");
    }
    let header = text(&ask(json!({"require": {"acr": "phr", "max_age": 60}})).await["www_authenticate"]);
    assert!(header.starts_with("Bearer error=\"insufficient_user_authentication\", error_description=\""), "{header}");
    assert!(header.contains("acr_values=\"phr phrh\"") && header.contains("max_age=\"60\""), "{header}");
    for good in [json!({}), json!({"require": {"acr": "aal2", "max_age": 60, "methods": ["totp"]}})] {
        assert_eq!(ask(good).await["satisfied"], true);
    }
    ann.bank.world.wait(60);
    assert_eq!(ask(json!({"require": {"max_age": 60}})).await["missing"], json!(["max_age"]));
}

/// K-04: an API key is no session either.
#[tokio::test]
async fn what_is_no_session_is_inactive_and_no_more_is_said() {
    let (ann, app) = ann_with_app().await;
    let session = ann.session(&app, json!({})).await;
    let (token, jwt) = (text(&session["token"]), text(&session["jwt"]));
    for odd in ["st_", "x", "a.b.c", "..", &format!("{token}x"), &token[3..], &format!("{jwt}x"), &ann.bank.key] {
        assert_eq!(ann.bank.introspect(json!({"token": odd})).await, inactive(), "{odd}");
    }
    ann.bank.world.wait(600);
    assert_eq!(ann.bank.introspect(json!({"token": token})).await, inactive());
    assert_eq!(ann.bank.introspect(json!({"token": jwt})).await, inactive());
    let id = text(&session["id"]);
    assert_eq!(ann.bank.get(&format!("/v1/sessions/{id}")).await.is(200)["active"], false);
}

/// S-04.
#[tokio::test]
async fn a_session_lasts_ten_minutes_and_does_not_slide() {
    let (ann, app) = ann_with_app().await;
    let session = ann.session(&app, json!({})).await;
    for _ in 0..5 {
        ann.bank.world.wait(119);
        assert!(ann.bank.is_active(&session["token"]).await);
    }
    ann.bank.world.wait(5);
    assert!(!ann.bank.is_active(&session["token"]).await);
}

/// S-14: consumed once, and only where it satisfies.
#[tokio::test]
async fn consuming_ends_a_session_that_satisfies_and_no_other() {
    let (ann, app) = ann_with_app().await;
    for single_use in [true, false] {
        let session = ann.session(&app, json!({"action": "pay", "single_use": single_use})).await;
        let ask = |action: &'static str, consume: bool| {
            let question = json!({"token": session["token"], "action": action, "consume": consume});
            let bank = ann.bank.clone();
            async move { bank.introspect(question).await }
        };
        assert_eq!(ask("other", true).await["satisfied"], false);
        let looked = ask("pay", false).await;
        assert_eq!((&looked["satisfied"], &looked["single_use"]), (&json!(true), &json!(single_use)));
        assert_eq!(ask("pay", false).await["satisfied"], true, "looking uses nothing up");
        let used = ask("pay", true).await;
        assert_eq!((&used["active"], &used["satisfied"]), (&json!(true), &json!(true)));
        assert_eq!(ask("pay", true).await, inactive());
        assert_eq!(ask("pay", false).await, inactive());
        if !single_use {
            assert!(!ann.bank.is_active(&session["jwt"]).await);
        }
    }
}

/// S-16: it ends at once, by its token and by its JWT.
#[tokio::test]
async fn a_session_can_be_looked_up_and_revoked() {
    let (ann, app) = ann_with_app().await;
    let session = ann.session(&app, json!({"action": "pay", "binding": "b", "audience": ["https://a.example"]})).await;
    let path = format!("/v1/sessions/{}", text(&session["id"]));
    let shown = ann.bank.get(&path).await.is(200);
    for member in
        ["id", "user_id", "action", "acr", "amr", "auth_time", "expires_at", "single_use", "audience", "binding"]
    {
        assert_eq!(shown[member], session[member], "{member}");
    }
    assert_eq!(shown["active"], true);
    assert!(shown["token"].is_null() && shown["jwt"].is_null());
    ann.bank.delete(&path).await.is(204);
    assert_eq!(ann.bank.get(&path).await.is(200)["active"], false);
    assert_eq!(ann.bank.introspect(json!({"token": session["token"]})).await, inactive());
    assert_eq!(ann.bank.introspect(json!({"token": session["jwt"]})).await, inactive());
    ann.bank.delete(&path).await.is(204);
    ann.bank.get("/v1/sessions/ses_00000000000070008000000000000000").await.refused(404, "not_found");
    ann.bank.delete("/v1/sessions/ses_00000000000070008000000000000000").await.refused(404, "not_found");
}

/// S-16: all of a user by one call, and nobody else's.
#[tokio::test]
async fn the_sessions_of_a_user_are_listed_by_pages_and_revoked_together() {
    let (ann, app) = ann_with_app().await;
    let bob = ann.bank.user("bob");
    let other = bob.enrol_totp().await;
    let of_bob = bob.session(&other, json!({})).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, ann.session(&app, json!({})).await);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ann.bank.get(&ann.path(&format!("/sessions?limit=2{cursor}"))).await.is(200);
        seen.extend(page["data"].as_array().expect("a list").iter().map(|s| s["id"].clone()));
        assert_eq!(page["has_more"], page["next_cursor"].is_string());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, made.iter().map(|s| s["id"].clone()).collect::<Vec<_>>(), "newest first");
    ann.bank.get(&ann.path("/sessions?limit=0")).await.invalid("limit");
    ann.bank.get(&ann.path("/sessions?cursor=fac_1")).await.invalid("cursor");
    ann.bank.delete(&ann.path("/sessions")).await.is(204);
    assert_eq!(ann.bank.get(&ann.path("/sessions")).await.is(200)["data"], json!([]));
    for session in &made {
        assert!(!ann.bank.is_active(&session["token"]).await);
    }
    assert!(ann.bank.is_active(&of_bob["token"]).await);
}

/// J-01, J-05, J-06, J-09, S-07, S-12: what a service sees that asks nobody.
#[tokio::test]
async fn a_jwt_verifies_against_the_published_keys() {
    let (ann, app) = ann_with_app().await;
    let jwks = ann.bank.world.stranger().get("/.well-known/jwks.json").await.is(200);
    for key in jwks["keys"].as_array().expect("keys") {
        assert_eq!((&key["use"], &key["alg"]), (&json!("sig"), &json!("ES256")));
        assert!(key["kid"].is_string() && key["x"].is_string() && key["y"].is_string());
        for private in ["d", "p", "q", "k", "dp", "dq", "qi"] {
            assert!(key[private].is_null(), "{private}");
        }
    }
    let details = json!([{"label": "New IBAN \"x\"", "value": "…1234\u{2028}é\\/"}, {"label": "b", "value": "a"}]);
    let terms = json!({"action": "pay", "display": {"details": details}});
    let session = ann.session(&app, terms).await;
    let jwt = text(&session["jwt"]);
    let claims = verified(&jwt, &jwks, ann.bank.rp.id.as_str());
    let header = jsonwebtoken::decode_header(&jwt).expect("a header");
    assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::ES256, Some("step-up+jwt")));
    let now = ann.bank.world.now();
    assert_eq!(claims["iss"], ann.bank.world.issuer());
    assert_eq!(claims["aud"], ann.bank.rp.id.as_str());
    assert_eq!(claims["sub"], "ann");
    assert_eq!(claims["sid"], session["id"]);
    assert!(claims["jti"].as_str().is_some_and(|j| !j.is_empty() && j != text(&session["id"])));
    for (claim, time) in [("iat", now), ("nbf", now), ("auth_time", now), ("exp", now + 600)] {
        assert_eq!(claims[claim], time, "{claim}");
    }
    assert_eq!((&claims["acr"], &claims["amr"], &claims["action"]), (&json!("aal2"), &json!(["otp"]), &json!("pay")));
    assert_eq!(claims["ctx"], URL_SAFE_NO_PAD.encode(Sha256::digest(canonical(&details))));

    let plain = ann.session(&app, json!({"audience": ["https://api.example.com"]})).await;
    let first = claims["jti"].clone();
    let claims = verified(&text(&plain["jwt"]), &jwks, "https://api.example.com");
    assert!(claims["jti"].is_string() && claims["jti"] != first, "{claims}");
    assert_eq!(claims["aud"], "https://api.example.com");
    assert!(claims["ctx"].is_null(), "nothing was shown");
    let several = ann.session(&app, json!({"audience": ["https://a.example", "https://b.example"]})).await;
    let claims = verified(&text(&several["jwt"]), &jwks, "https://b.example");
    assert_eq!(claims["aud"], json!(["https://a.example", "https://b.example"]));
    let asked = ann.bank.post("/v1/sessions/introspect", json!({"token": several["token"]})).await.is(200);
    assert_eq!(asked["audience"], claims["aud"], "who asks instead of verifying learns it too");
    let unnamed = ann.session(&app, json!({})).await;
    let asked = ann.bank.introspect(json!({"token": unnamed["token"]})).await;
    assert_eq!(asked["audience"], json!([ann.bank.rp.id]), "as the JWT says");
}

/// J-01, J-02, J-03, J-10: what is not ours is inactive, and nothing is fetched.
#[tokio::test]
async fn a_forged_jwt_is_inactive() {
    let (ann, app) = ann_with_app().await;
    let session = ann.session(&app, json!({})).await;
    let jwt = text(&session["jwt"]);
    let parts: Vec<_> = jwt.split('.').collect();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).expect("base64url")).expect("JSON");
    let kid = jsonwebtoken::decode_header(&jwt).expect("a header").kid.expect("a kid");
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = |alg: &str| format!("{}.{}.", encoded(&json!({"alg": alg, "typ": "step-up+jwt", "kid": kid})), parts[1]);
    let jwks = ann.bank.world.stranger().get("/.well-known/jwks.json").await.is(200);
    let mut hs = Header::new(Algorithm::HS256);
    (hs.typ, hs.kid) = (Some("step-up+jwt".to_owned()), Some(kid.clone()));
    let secret = EncodingKey::from_secret(jwks["keys"][0].to_string().as_bytes());
    let confused = jsonwebtoken::encode(&hs, &claims, &secret).expect("a token");
    // By a key of the forger's own, under the name of ours; the second brings its key along and says where more are.
    let own = EncodingKey::from_ec_der(&countersign::token::new_signing_key().private);
    let mut es = Header::new(Algorithm::ES256);
    (es.typ, es.kid) = (Some("step-up+jwt".to_owned()), Some(kid.clone()));
    let foreign = jsonwebtoken::encode(&es, &claims, &own).expect("a token");
    es.jwk = Some(Jwk::from_encoding_key(&own, Algorithm::ES256).expect("a key"));
    es.jku = Some(ann.bank.world.url("/nowhere/jwks.json"));
    let embedded = jsonwebtoken::encode(&es, &claims, &own).expect("a token");
    let zero = format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode([0; 64]));
    let mut longer = claims.clone();
    longer["exp"] = json!(claims["exp"].as_i64().expect("a time") + 3600);
    let altered = format!("{}.{}.{}", parts[0], encoded(&longer), parts[2]);
    let header = |value: Value| format!("{}.{}.{}", encoded(&value), parts[1], parts[2]);
    for forged in [
        none("none"),
        none("None"),
        none("nOnE"),
        confused,
        foreign,
        embedded,
        zero,
        altered,
        header(json!({"alg": "ES256", "typ": "JWT", "kid": kid})),
        header(json!({"alg": "ES256", "typ": "step-up+jwt", "kid": "../../etc/passwd"})),
        header(json!({"alg": "ES256", "typ": "step-up+jwt", "kid": "' or 1=1 --"})),
        header(json!({"alg": "ES256", "typ": "step-up+jwt", "jwk": jwks["keys"][0]})),
        format!("{}.{}.", parts[0], parts[1]),
    ] {
        assert_eq!(ann.bank.introspect(json!({"token": forged})).await, inactive(), "{forged}");
        ann.ask(json!({"session_token": forged})).await.is(201);
    }
    assert!(ann.bank.is_active(&json!(jwt)).await);
}

/// The claims of a JWT that this key set and audience verify.
fn verified(jwt: &str, jwks: &Value, audience: &str) -> Value {
    let set: JwkSet = serde_json::from_value(jwks.clone()).expect("a key set");
    let kid = jsonwebtoken::decode_header(jwt).expect("a header").kid.expect("a kid");
    let key = DecodingKey::from_jwk(set.find(&kid).expect("a published key")).expect("a key");
    let mut validation = Validation::new(Algorithm::ES256);
    // The engine's clock is the test's own.
    validation.validate_exp = false;
    validation.set_audience(&[audience]);
    jsonwebtoken::decode::<Value>(jwt, &key, &validation).expect("a token that verifies").claims
}

/// RFC 8785 of a list of labels and values, by hand.
fn canonical(details: &Value) -> String {
    let quoted = |text: &Value| {
        let letters = text.as_str().expect("a text").chars().map(|c| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            other => other.to_string(),
        });
        format!("\"{}\"", letters.collect::<String>())
    };
    let lines = details.as_array().expect("a list").iter();
    let lines = lines.map(|d| format!("{{\"label\":{},\"value\":{}}}", quoted(&d["label"]), quoted(&d["value"])));
    format!("[{}]", lines.collect::<Vec<_>>().join(","))
}
