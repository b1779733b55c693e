//! Who may open a page, and what guards it.

use reqwest::header::{CONTENT_SECURITY_POLICY, COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Response, StatusCode};

use serde_json::json;

use crate::visitor::{Page, Visitor, guard};
use crate::world::World;

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn token(url: &str) -> String {
    url.split_once("token=").expect("a link token").1.to_owned()
}

/// Opens a link without its first page.
async fn opened(world: &World, url: &str) -> Response {
    let address = url.split('?').next().expect("an address");
    let call = Visitor::new(&world.base).client.post(address).form(&[("token", token(url))]);
    let answer = call.send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    answer
}

/// The cookies that an answer sets.
fn cookies(answer: &Response) -> Vec<String> {
    answer.headers().get_all(SET_COOKIE).iter().map(|value| value.to_str().expect("text").to_owned()).collect()
}

/// The name of a cookie that is set, and its value.
fn named(cookie: &str) -> (&str, &str) {
    cookie.split(';').next().and_then(|cookie| cookie.split_once('=')).expect("a name and a value")
}

/// C-06.
#[tokio::test]
async fn a_link_that_is_only_looked_at_burns_nothing() {
    let world = World::start().await;
    world.person("u").await;
    let (_, url) = world.challenge("u", "login").await;
    let scanner = Visitor::new(&world.base);
    for _ in 0..3 {
        scanner.go(&url).await.says("asks you to confirm something");
    }
    let page = Visitor::new(&world.base).open(&url).await;
    page.says("Enter the code from your authenticator app");
    assert!(!page.path.contains("token"), "the clean address");
}

#[tokio::test]
async fn a_second_browser_cannot_open_the_link() {
    let world = World::start().await;
    world.person("u").await;
    for (url, words) in [
        (world.challenge("u", "login").await.1, "Enter the code"),
        (world.portal("u", "settings").await, "Add a method"),
    ] {
        let (first, second) = (Visitor::new(&world.base), Visitor::new(&world.base));
        first.open(&url).await.says(words);

        let path = url.split('?').next().and_then(|url| url.strip_prefix(&world.base)).expect("a path");
        for page in [second.go(&url).await, second.go(path).await] {
            assert_eq!(page.status, StatusCode::NOT_FOUND);
            page.says("This link doesn't work");
        }
        let forced = second.post(path, &[pair("token", &token(&url))]).await;
        forced.says("This link doesn't work");

        first.go(&url).await.says(words);
    }
}

/// 3.13: a link of the portal ends with its visit, opened or not.
#[tokio::test]
async fn a_late_link_of_the_portal_opens_nothing() {
    let world = World::start().await;
    world.person("u").await;
    let (in_time, late) = (world.portal("u", "settings").await, world.portal("u", "settings").await);
    world.clock.advance(1799);
    Visitor::new(&world.base).open(&in_time).await.says("Add a method");
    world.clock.advance(1);
    let visitor = Visitor::new(&world.base);
    let page = visitor.go(&late).await;
    assert_eq!(page.status, StatusCode::GONE);
    page.says("This page timed out");
    let path = late.split('?').next().and_then(|url| url.strip_prefix(&world.base)).expect("a path");
    let forced = visitor.post(path, &[pair("token", &token(&late))]).await;
    assert_eq!(forced.status, StatusCode::NOT_FOUND);
    forced.says("This link doesn't work");
}

/// What another visit's cookie holds opens nothing, under this one's name neither.
#[tokio::test]
async fn a_cookie_opens_its_own_visit_and_no_other() {
    let world = World::start().await;
    world.person("u").await;
    for (below, mine, other) in [
        ("", world.challenge("u", "login").await.1, world.challenge("u", "login").await.1),
        ("/settings", world.portal("u", "settings").await, world.portal("u", "settings").await),
    ] {
        let (mine, other) = (opened(&world, &mine).await, opened(&world, &other).await);
        let path = mine.headers()[LOCATION].to_str().expect("a path");
        let (mine, other) = (cookies(&mine).remove(0), cookies(&other).remove(0));
        let ((name, own), (_, foreign)) = (named(&mine), named(&other));
        for (value, status) in [(foreign, StatusCode::NOT_FOUND), (own, StatusCode::OK)] {
            let call = Visitor::new(&world.base).client.get(format!("{}{path}{below}", world.base));
            let answer = call.header(COOKIE, format!("{name}={value}")).send().await.expect("an answer");
            assert_eq!(answer.status(), status, "{path}");
        }
    }
}

/// A code leads back the browser that answered, and no other that has the page open: not where the application's server
/// answered, nor where another browser did with the client token, whose code stays good.
#[tokio::test]
async fn a_page_whose_challenge_was_answered_elsewhere_gives_no_code() {
    let world = World::start().await;
    let secret = world.person("u").await;
    for by_client_token in [false, true] {
        let terms = json!({"user_id": "u", "action": "payout", "return_url": world.back, "state": "s",
            "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"});
        let made = world.says("POST", "/v1/challenges", terms).await;
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        let (id, visitor) = (text("id"), Visitor::new(&world.base));
        let page = visitor.open(&text("url")).await;
        world.clock.advance(30);
        let answer = json!({"type": "totp", "code": world.code(&secret)});
        let path = format!("/v1/challenges/{id}/verify");
        let code = match by_client_token {
            false => {
                let verdict = world.says("POST", &path, answer).await;
                assert!(verdict["session"].is_object(), "{verdict}");
                None
            }
            true => {
                let call = Visitor::new(&world.base).client.post(format!("{}{path}", world.base));
                let call =
                    call.bearer_auth(text("client_token")).header("origin", "http://localhost:3000").json(&answer);
                let verdict: serde_json::Value = call.send().await.expect("an answer").json().await.expect("JSON");
                Some(verdict["code"].as_str().unwrap_or_else(|| panic!("{verdict}")).to_owned())
            }
        };
        for path in [format!("{}/done", page.path), page.path.clone()] {
            let done = visitor.go(&path).await;
            done.says("You've already confirmed this");
            assert!(done.headers.get("set-cookie").is_none(), "what others answered with is not this browser's habit");
            let back = done.link("Continue to Harbour Bank");
            assert!(done.refresh().is_none() && !back.contains("code=") && !back.contains("/challenge/"), "{back}");
        }
        if let Some(code) = code {
            let verifier = json!({"code": code, "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"});
            let exchanged = world.says("POST", &format!("/v1/challenges/{id}/exchange"), verifier).await;
            assert!(exchanged["session"].is_object(), "{exchanged}");
        }
    }
}

/// ux: the newest wins for each user, action and browser; the older one is not answered, and not lost either.
#[tokio::test]
async fn a_newer_request_in_the_same_browser_is_finished_first() {
    let world = World::start().await;
    let secret = world.person("u").await;
    world.person("v").await;
    let visitor = Visitor::new(&world.base);
    let (first, url) = world.challenge("u", "payout").await;
    let old = visitor.open(&url).await;
    let state = async |id: &str| {
        let shown = world.says("GET", &format!("/v1/challenges/{id}"), json!(null)).await;
        (shown["status"].clone(), shown["attempts_left"].clone())
    };
    // Another action, another person and another browser are no rivals.
    visitor.open(&world.challenge("u", "login").await.1).await;
    visitor.open(&world.challenge("v", "payout").await.1).await;
    Visitor::new(&world.base).open(&world.challenge("u", "payout").await.1).await;
    visitor.go(&old.path).await.says("Enter the code");

    world.clock.advance(1);
    let (second, url) = world.challenge("u", "payout").await;
    visitor.open(&url).await.says("Enter the code");
    let told = visitor.go(&old.path).await;
    told.says("A newer request is open").says("Finish it in the other window, or start again here.");
    let answered = visitor.send(&old, "Confirm", &[("code", &world.code(&secret))]).await;
    answered.says("A newer request is open");
    let guard = guard(&old.html);
    for (path, body) in [("options", json!({})), ("credential", json!({"credential": {}}))] {
        let call = visitor.client.post(format!("{}{}/{path}", world.base, old.path)).header("form-guard", guard);
        let refused = call.json(&body).send().await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::CONFLICT, "{path}: the page is loaded anew");
    }
    assert_eq!(state(&first).await, (json!("pending"), json!(5)), "nothing was judged");

    let new = visitor.go(&told.link("Go to the newer request")).await;
    visitor.send(&new, "Confirm", &[("code", &world.code(&secret))]).await.says("Thanks, it's you");
    assert_eq!(state(&second).await.0, "approved");
    visitor.go(&old.path).await.says("Enter the code");

    world.clock.advance(1);
    visitor.open(&world.challenge("u", "payout").await.1).await;
    let told = visitor.go(&old.path).await;
    let again = visitor.send(&told, "Start again", &[]).await;
    assert!(again.says("This request was cancelled").refresh().expect("the way back").contains("error=access_denied"));
    assert_eq!(state(&first).await.0, "cancelled");
}

#[tokio::test]
async fn a_wrong_or_unknown_link_says_nothing_about_what_there_is() {
    let world = World::start().await;
    world.person("u").await;
    let (id, _) = world.challenge("u", "login").await;
    let visitor = Visitor::new(&world.base);
    let unknown = format!("/challenge/chl_{}?token=x", "0".repeat(32));
    for path in [format!("/challenge/{id}?token=wrong"), unknown, "/challenge/por_1?token=x".to_owned()] {
        let page = visitor.go(&path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        assert!(!page.says("This link doesn't work").text().contains("Harbour"), "{path}");
        assert_eq!(page.title(), "Error: This link doesn't work – Countersign");
    }
}

#[tokio::test]
async fn a_browser_without_cookies_is_told_so_and_the_link_stays_good() {
    let world = World::start().await;
    world.person("u").await;
    let (id, url) = world.challenge("u", "login").await;
    let fields = [pair("token", &token(&url)), pair("probe", "1")];
    let page = Visitor::new(&world.base).post(&format!("/challenge/{id}"), &fields).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    page.says("Your browser blocks the cookie that keeps this step safe.");
    Visitor::new(&world.base).open(&url).await.says("Enter the code");
}

/// C-01, C-02, C-03, C-04, C-05, C-07.
#[tokio::test]
async fn the_cookie_is_for_this_browser_and_this_host_alone() {
    for public in [None, Some("https://mfa.localhost")] {
        let behind = |config: &mut countersign::config::Config| {
            config.public_url = public.map_or(config.public_url.clone(), |url| url.parse().expect("an address"));
        };
        let world = World::start_with(behind).await;
        let secret = world.person("u").await;
        let (_, url) = world.challenge("u", "login").await;
        let client = Visitor::new(&world.base).client;
        let landing = client.get(&url).send().await.expect("an answer");
        is_closed(&landing, "cs_probe=", public.is_some());
        let hsts = landing.headers().get("strict-transport-security").map(|value| value.to_str().expect("text"));
        assert_eq!(hsts, public.map(|_| "max-age=31536000; includeSubDomains"));
        let answer = opened(&world, &url).await;
        let address = format!("{}{}", world.base, answer.headers()[LOCATION].to_str().expect("a path"));
        let cookie = is_closed(&answer, "cs_chl_", public.is_some());
        let (name, value) = named(&cookie);
        assert!(!address.contains(value), "{address}");

        // What a right code leaves in the browser: by what it is known from then on, and what it is offered first.
        let held = format!("{name}={value}");
        let page = client.get(&address).header(COOKIE, &held).send().await.expect("an answer");
        let (page, code) = (page.text().await.expect("text"), world.code(&secret));
        let fields = [("do", "answer"), ("method", "totp"), ("guard", guard(&page)), ("code", &code)];
        let right = client.post(&address).header(COOKIE, &held).form(&fields).send().await.expect("an answer");
        let device = is_closed(&right, "cs_device=", public.is_some());
        for value in [value, named(&device).1] {
            assert_eq!(value.len(), 43, "256 bits and nothing else");
        }
        let done = client.get(format!("{address}/done")).header(COOKIE, &held).send().await.expect("an answer");
        assert_eq!(named(&is_closed(&done, "cs_usual=", public.is_some())).1, "totp");
        let done = done.text().await.expect("text");
        assert!(page.contains("<form") && done.contains("Thanks, it"), "{done}");
        for value in [value, named(&device).1] {
            assert!(!page.contains(value) && !done.contains(value), "it stands in its cookie alone");
        }
    }
}

/// The only cookie of an answer: of this name, for the server alone and this host alone.
#[track_caller]
fn is_closed(answer: &Response, name: &str, is_secure: bool) -> String {
    let set = cookies(answer);
    let [cookie] = &set[..] else { panic!("{name} is not the only cookie: {set:?}") };
    let name = if is_secure { format!("__Host-{name}") } else { name.to_owned() };
    assert!(cookie.starts_with(&name), "{cookie}");
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(cookie.contains("; Max-Age="), !name.ends_with("cs_probe="), "{cookie}");
    assert!(!cookie.contains("Domain"), "{cookie}");
    assert!(cookie.len() < 300, "{cookie}");
    assert_eq!(cookie.ends_with("; Secure"), is_secure, "{cookie}");
    cookie.clone()
}

/// C-03, C-06, S-18.
#[tokio::test]
async fn a_form_that_our_page_did_not_make_is_refused() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let (id, url) = world.challenge("u", "login").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&url).await;
    let guard = guard(&page.html);
    let fields = |guard: &str| {
        [
            ("do", "answer".to_owned()),
            ("method", "totp".to_owned()),
            ("guard", guard.to_owned()),
            ("code", world.code(&secret)),
        ]
    };
    let post = || visitor.client.post(format!("{}/challenge/{id}", world.base));

    let evil = [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    for (name, value) in evil {
        let answer = post().header(name, value).form(&fields(guard)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name}: {value}");
    }
    for guard in ["", "0123456789abcdef0123456789abcdef"] {
        let answer = post().header("origin", &world.base).form(&fields(guard)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "guard {guard:?}");
    }
    let plain = post().header("content-type", "text/plain").body("do=answer").send().await.expect("an answer");
    assert_eq!(plain.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let call = visitor.client.post(format!("{}/challenge/{id}/options", world.base)).json(&serde_json::json!({}));
    assert_eq!(call.send().await.expect("an answer").status(), StatusCode::FORBIDDEN);

    let answer = post().header("origin", &world.base).form(&fields(guard)).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SEE_OTHER, "the true form still passes");
}

/// S-18: it depends on the cookie of the browser that holds the page.
#[tokio::test]
async fn the_guard_of_another_browser_is_refused() {
    let world = World::start().await;
    let secret = world.person("u").await;
    let (visitor, other) = (Visitor::new(&world.base), Visitor::new(&world.base));
    let page = visitor.open(&world.challenge("u", "login").await.1).await;
    let foreign = other.open(&world.challenge("u", "login").await.1).await;
    let code = world.code(&secret);
    for (guard, status) in [(guard(&foreign.html), StatusCode::FORBIDDEN), (guard(&page.html), StatusCode::OK)] {
        let answer = visitor.send(&page, "Confirm", &[("guard", guard), ("code", &code)]).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}

/// C-03, S-18: a call of a page's module comes from our own origin, whatever guard it carries.
#[tokio::test]
async fn a_call_from_elsewhere_is_refused_with_the_right_guard_too() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&world.portal("new", "add_passkey").await).await;
    for (name, value, status) in [
        ("origin", "https://evil.example", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "cross-site", StatusCode::FORBIDDEN),
        ("origin", &world.base, StatusCode::OK),
    ] {
        let call = visitor.client.post(format!("{}{}/options", world.base, page.path)).header(name, value);
        let call = call.header("form-guard", guard(&page.html)).json(&json!({"authenticator": "any"}));
        assert_eq!(call.send().await.expect("an answer").status(), status, "{name}: {value}");
        let begun = world.says("GET", "/v1/users/new/factors", json!(null)).await["data"].clone();
        assert_eq!(begun != json!([]), status == StatusCode::OK, "{name}: {value}");
    }
}

/// C-08, C-09, C-12, C-13.
#[tokio::test]
async fn pages_allow_nothing_inline_foreign_framed_or_kept() {
    let world = World::start().await;
    world.person("u").await;
    let (_, url) = world.challenge("u", "login").await;
    let visitor = Visitor::new(&world.base);
    let mut pages = vec![visitor.go(&url).await, visitor.open(&url).await, visitor.go("/challenge/none").await];
    let states = visitor.go("/dev/gallery").await;
    for state in states.html.split("href=\"/dev/gallery/").skip(1).filter_map(|s| s.split('"').next()) {
        pages.push(visitor.go(&format!("/dev/gallery/{state}")).await);
    }
    assert!(pages.len() > 60, "{} pages", pages.len());
    let mut assets = std::collections::BTreeSet::new();
    for page in pages {
        let policy = page.headers[CONTENT_SECURITY_POLICY].to_str().expect("text");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "object-src 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        let permissions = page.headers["permissions-policy"].to_str().expect("text");
        assert!(permissions.contains("publickey-credentials-get=(self), publickey-credentials-create=(self)"));
        is_strict(&page);
        assets.extend(page.html.split("\"/assets/").skip(1).filter_map(|a| a.split('"').next()).map(str::to_owned));
    }
    // What developers read runs nothing at all.
    for path in ["/docs", "/errors/not_found"] {
        let page = visitor.go(path).await;
        let policy = page.headers[CONTENT_SECURITY_POLICY].to_str().expect("text");
        for part in ["default-src 'none'", "form-action 'none'", "base-uri 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("script-src") && !page.html.contains("<script"), "{path}: {policy}");
        is_strict(&page);
    }
    for asset in assets {
        let answer = visitor.client.get(format!("{}/assets/{asset}", world.base)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{asset}");
        assert_eq!(answer.headers()["cache-control"], "public, max-age=31536000, immutable");
    }
}

/// What holds for every page, of whatever kind.
#[track_caller]
fn is_strict(page: &Page) {
    let path = &page.path;
    assert!(!page.headers[CONTENT_SECURITY_POLICY].to_str().expect("text").contains("unsafe"), "{path}");
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(page.headers[name], value, "{name} of {path}");
    }
    for inline in [" style=", "<style", " onclick", " onload", "javascript:"] {
        assert!(!page.html.contains(inline), "{inline} on {path}");
    }
    for script in page.html.split("<script").skip(1) {
        assert!(script.contains("src=\"/assets/") && script.contains("></script>"), "{path}: {script}");
    }
}

/// While two releases run behind one balancer, a page of one may ask the other for its style sheet and modules.
#[tokio::test]
async fn a_page_of_another_release_has_its_assets_and_nobody_keeps_them_under_its_name() {
    let world = World::start().await;
    let visitor = Visitor::new(&world.base);
    let get = async |path: &str| {
        let answer = visitor.client.get(format!("{}{path}", world.base)).send().await.expect("an answer");
        let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
        let told = (answer.status(), header("content-type"), header("cache-control"));
        (told, answer.bytes().await.expect("a body"))
    };
    let page = visitor.go("/").await;
    let own =
        page.html.split("href=\"").find(|rest| rest.contains("app.css\"")).and_then(|rest| rest.split('"').next());
    let (own, content) = get(own.expect("a style sheet")).await;
    assert_eq!(own.2, "public, max-age=31536000, immutable");
    let (other, same) = get("/assets/0123456789abcdef/app.css").await;
    assert_eq!((other.0, other.1.as_str(), other.2.as_str()), (StatusCode::OK, own.1.as_str(), "no-store"));
    assert_eq!(same, content);
    assert_eq!(get("/assets/0123456789abcdef/webauthn.js").await.0.1, "text/javascript; charset=utf-8");
}

/// ux, S1: whoever mistypes an address reads words; programs read a problem, whatever they say that they take.
#[tokio::test]
async fn a_person_at_an_address_that_is_none_gets_a_page() {
    let world = World::start().await;
    let client = Visitor::new(&world.base).client;
    let ask = async |method: &str, path: &str, accept: &str| {
        let call = client.request(method.parse().expect("a method"), format!("{}{path}", world.base));
        let answer = call.header("accept", accept).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{method} {path}");
        answer.text().await.expect("text")
    };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for path in ["/nothing", "/challenges/chl_1", "/portal/por_1/nothing", "/favicon"] {
        let page = ask("GET", path, browser).await;
        assert!(
            page.contains("This link doesn't work") || page.contains("This link doesn&#39;t work"),
            "{path}: {page}"
        );
        assert!(page.contains("Reference <code>req_"), "{path}: {page}");
    }
    for (method, path, accept) in [
        ("GET", "/nothing", "*/*"),
        ("POST", "/nothing", browser),
        ("GET", "/v1/nothing", browser),
        ("GET", "/.well-known/nothing", browser),
        ("GET", "/assets/nothing", browser),
    ] {
        assert!(ask(method, path, accept).await.contains("\"code\":\"not_found\""), "{method} {path}");
    }
}

#[tokio::test]
async fn what_the_application_and_the_person_wrote_is_shown_as_text() {
    let world = World::start().await;
    world.person("u").await;
    let (_, url) = world.challenge("u", "login").await;
    let visitor = Visitor::new(&world.base);
    let page = visitor.open(&url).await;
    page.says("New <b>IBAN</b>");
    let page = visitor.send(&page, "Confirm", &[("code", "\"><script>alert(1)</script>")]).await;
    assert!(!page.html.contains("<b>IBAN") && !page.html.contains("<script>alert"), "{}", page.html);
}
