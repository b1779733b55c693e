//! The commands as api.md, 2, says, with the real binary in an environment of its own.

use serde_json::{Value, json};

use crate::support::app::{base32, totp};
use crate::support::child::{self, Place, Serve};
use crate::support::verbs::text;

#[tokio::test]
async fn a_master_key_is_43_characters_alone_on_a_line() {
    let one = child::run(&["master-key", "generate"], &[]);
    assert_eq!((one.status, one.stderr.as_str()), (Some(0), ""), "it needs no settings");
    let key = one.stdout.strip_suffix('\n').expect("a line");
    assert_eq!(key.len(), 43);
    assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')), "{key}");
    assert_ne!(child::run(&["master-key", "generate"], &[]).stdout, one.stdout);
    // Even where the settings are nonsense.
    assert_eq!(child::run(&["master-key", "generate"], &[("COUNTERSIGN_NONSENSE", "1")]).status, Some(0));
}

/// Whatever is wrong with a setting is said by its name, and nothing was opened before.
#[tokio::test]
async fn what_is_missing_or_malformed_is_named_before_anything_is_opened() {
    let fresh = || async {
        let mut place = Place::new().await;
        let database = place.scratch.folder().join("fresh.db");
        place.set("COUNTERSIGN_DATABASE_URL", &format!("sqlite:{}", database.display()));
        (place, database)
    };
    let refused = |place: &Place, command: &str, name: &str| {
        let ended = place.run(&[command]);
        assert_eq!(ended.status, Some(1), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(name), "{name}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    };
    for name in ["COUNTERSIGN_MASTER_KEY", "COUNTERSIGN_DATABASE_URL", "COUNTERSIGN_PUBLIC_URL"] {
        let (mut place, database) = fresh().await;
        place.unset(name);
        refused(&place, "serve", name);
        assert!(!database.exists(), "{name}");
    }
    for (name, value) in [
        ("COUNTERSIGN_MASTER_KEY", "too short"),
        ("COUNTERSIGN_MASTER_KEY", ""),
        ("COUNTERSIGN_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("COUNTERSIGN_LISTEN", "nowhere"),
        ("COUNTERSIGN_PUBLIC_URL", "http://mfa.example.com"),
        ("COUNTERSIGN_PUBLIC_URL", "https://mfa.example.com/path"),
        ("COUNTERSIGN_PUBLIC_URL", "https://mfa.example.com/?a=b"),
        ("COUNTERSIGN_PUBLIC_URL", "https://mfa.example.com/#a"),
        ("COUNTERSIGN_PUBLIC_URL", "https://somebody@mfa.example.com/"),
        ("COUNTERSIGN_SMS_COUNTRY_DAY", "-1"),
        ("COUNTERSIGN_DATABASE_URL", "mysql://x"),
        ("COUNTERSIGN_POOL", "0"),
        ("COUNTERSIGN_LOG", "nonsense=[["),
        ("COUNTERSIGN_SMS_HTTP_URL", "not an address"),
        ("COUNTERSIGN_TRUSTED_PROXIES", "everybody"),
        ("COUNTERSIGN_DEVELOPMENT", "maybe"),
        ("COUNTERSIGN_CLOCK_FILE", "clock"),
        ("COUNTERSIGN_TYPO", "1"),
        ("COUNTERSIGN_LISTENS", "127.0.0.1:1"),
        ("COUNTERSIGN_MASTER_KEY_FILE", "/nowhere/at/all"),
    ] {
        let (mut place, database) = fresh().await;
        if name == "COUNTERSIGN_MASTER_KEY_FILE" {
            place.unset("COUNTERSIGN_MASTER_KEY");
        }
        place.set(name, value);
        refused(&place, "serve", name);
        // What it does not need would be met at the next start; the key alone it never asks for.
        if !name.starts_with("COUNTERSIGN_MASTER_KEY") {
            refused(&place, "migrate", name);
        }
        assert!(!database.exists(), "{name}={value}");
    }
}

/// Whoever names a file believes that it counts.
#[tokio::test]
async fn a_file_is_refused_by_commands_that_read_none() {
    for command in [&["demo", "--listen", "127.0.0.1:0"][..], &["master-key", "generate"], &["policy", "odds"]] {
        for arguments in [[&["--config", "x.toml"], command].concat(), [command, &["--config", "x.toml"]].concat()] {
            let ended = child::run(&arguments, &[]);
            assert_eq!((ended.status, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", ended.stderr);
            let word = "--config: this command reads no settings from a file";
            assert!(ended.stderr.contains(word), "{arguments:?}: {}", ended.stderr);
        }
    }
}

/// An address that is taken is told by the name that it was given by.
#[tokio::test]
async fn what_names_an_address_that_is_taken_is_told() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("an address").to_string();
    let mut place = Place::new().await;
    let data = place.scratch.folder().join("demo");
    let data = data.to_str().expect("UTF-8").to_owned();
    place.set("COUNTERSIGN_METRICS_LISTEN", &taken);
    let of_metrics = place.run(&["serve"]);
    place.unset("COUNTERSIGN_METRICS_LISTEN");
    place.set("COUNTERSIGN_LISTEN", &taken);
    let of_engine = place.run(&["serve"]);
    let demo = |addresses: &[&str]| child::run(&[&["demo", "--data", &data], addresses].concat(), &[]);
    let second = demo(&["--listen", "127.0.0.1:0", "--second", &taken]);
    for (name, ended) in [
        ("COUNTERSIGN_METRICS_LISTEN", of_metrics),
        ("COUNTERSIGN_LISTEN", of_engine),
        ("--listen", demo(&["--listen", &taken])),
        ("--second", second),
    ] {
        assert_eq!(ended.status, Some(1), "{name}: {}", ended.stderr);
        let word = format!("countersign: {name}: cannot listen on {taken}");
        assert!(ended.stderr.contains(&word), "{name}: {}", ended.stderr);
    }
}

/// An unknown setting is an error of every command that reads any.
#[tokio::test]
async fn an_unknown_setting_is_refused_by_every_command() {
    let mut place = Place::new().await;
    place.set("COUNTERSIGN_TYPO", "1");
    for command in [
        &["rp", "list"][..],
        &["key", "list"],
        &["migrate"],
        &["user", "show", "--rp", "Bank", "ann"],
        &["doctor"],
        &["demo", "--listen", "127.0.0.1:0"],
    ] {
        let ended = place.run(command);
        assert_ne!(ended.status, Some(0), "{command:?}");
        assert!(
            format!("{}{}", ended.stdout, ended.stderr).contains("COUNTERSIGN_TYPO"),
            "{command:?}: {}",
            ended.stderr
        );
    }
}

/// E-07.
#[tokio::test]
async fn a_master_key_of_another_database_is_refused_and_named() {
    let mut place = Place::new().await;
    place.serve().await.terminate();
    place.set("COUNTERSIGN_MASTER_KEY", &countersign::new_master_key());
    let ended = place.run(&["serve"]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("COUNTERSIGN_MASTER_KEY"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_master_key_may_come_from_a_file_or_a_command() {
    let mut place = Place::new().await;
    let (key, file) = (place.setting("COUNTERSIGN_MASTER_KEY").to_owned(), place.scratch.folder().join("key"));
    std::fs::write(&file, format!("{key}\n")).expect("a file");
    place.unset("COUNTERSIGN_MASTER_KEY");
    place.set("COUNTERSIGN_MASTER_KEY_FILE", file.to_str().expect("UTF-8"));
    place.serve().await.terminate();
    place.unset("COUNTERSIGN_MASTER_KEY_FILE");
    place.set("PATH", "/usr/bin:/bin");
    place.set("COUNTERSIGN_MASTER_KEY_COMMAND", &format!("cat '{}'", file.display()));
    place.serve().await.terminate();
    // One that failed said nothing that counts.
    place.set("COUNTERSIGN_MASTER_KEY_COMMAND", &format!("cat '{}'; exit 1", file.display()));
    let ended = place.run(&["serve"]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("COUNTERSIGN_MASTER_KEY_COMMAND"), "{}", ended.stderr);
    // Nor does any run where something is wrong with a name.
    let trace = place.scratch.folder().join("ran");
    place.set("COUNTERSIGN_MASTER_KEY_COMMAND", &format!("touch '{}'", trace.display()));
    place.set("COUNTERSIGN_TYPO", "1");
    assert_eq!(place.run(&["serve"]).status, Some(1));
    assert!(!trace.exists());
}

/// A setting that is no text is named; what is none of ours may be anything.
#[tokio::test]
async fn the_environment_may_hold_what_is_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new().await;
    place.run(&["migrate"]);
    let no_text = std::ffi::OsStr::from_bytes(b"\xff");
    let run = |name: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(arguments).env_clear().envs(place.pairs()).env(name, no_text);
        let ended = command.output().expect("it runs");
        let said = [ended.stdout, ended.stderr].concat();
        (ended.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    assert_eq!(run("SOMETHING", &["rp", "list"]).0, Some(0));
    for arguments in [&["rp", "list"][..], &["serve"], &["doctor"], &["demo", "--listen", "127.0.0.1:0"]] {
        let (status, said) = run("COUNTERSIGN_LOG", arguments);
        assert_eq!(status, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("COUNTERSIGN_LOG") && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}

/// The demo knows everybody's password: it is for this machine alone, and makes nothing where it is asked for more.
#[tokio::test]
async fn the_demo_stays_on_loopback() {
    let folder = Place::new().await.scratch.folder().join("demo");
    let data = folder.to_str().expect("UTF-8");
    for addresses in [&["--listen", "0.0.0.0:0"][..], &["--listen", "127.0.0.1:0", "--second", "[::]:0"]] {
        let ended = child::run(&[&["demo", "--data", data][..], addresses].concat(), &[]);
        assert_eq!(ended.status, Some(1), "{addresses:?}");
        assert!(ended.stderr.contains("loopback"), "{}", ended.stderr);
        assert!(!folder.exists(), "{addresses:?}");
    }
}

/// What the demo keeps is its owner's alone, and each start ends the key of the one before (api.md, 2).
#[tokio::test]
async fn the_demo_keeps_its_secrets_and_ends_its_last_key() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new().await;
    let folder = place.scratch.folder().join("demo");
    for start in 1..=2 {
        let demo = Serve::demo(child::free_port(), folder.to_str().expect("UTF-8")).await;
        for path in [folder.clone(), folder.join("master.key"), folder.join("countersign.db")] {
            let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
        let database = format!("sqlite:{}", folder.join("countersign.db").display());
        let listed = child::run(&["key", "list", "--json"], &[("COUNTERSIGN_DATABASE_URL", &database)]);
        let keys: Value = serde_json::from_str(&listed.stdout).expect("JSON");
        let keys = keys.as_array().expect("a list");
        assert_eq!(keys.len(), start, "{keys:?}");
        assert_eq!(keys.iter().filter(|key| key["revoked_at"].is_null()).count(), 1, "{keys:?}");
        demo.kill();
    }
}

#[tokio::test]
async fn relying_parties_and_keys_are_made_and_listed() {
    let place = Place::new().await;
    if !place.scratch.is_sqlite() {
        place.run(&["migrate"]);
    }
    let mut make = vec!["rp", "create", "--name", "Bank", "--rp-id", "bank.example", "--json", "--origin"];
    make.extend(["https://bank.example", "https://www.bank.example", "--return-url", "https://bank.example/back"]);
    let rp = place.answer(&make);
    assert!(text(&rp["id"]).starts_with("rp_"));
    assert_eq!(rp["origins"], json!(["https://bank.example", "https://www.bank.example"]));
    let update = |name: &str, value: &str| place.answer(&["rp", "update", "--rp", "Bank", name, value, "--json"]);
    let changed = update("--return-url", "https://bank.example/other");
    assert_eq!((&changed["id"], &changed["origins"]), (&rp["id"], &rp["origins"]));
    assert_eq!(changed["return_urls"], json!(["https://bank.example/other"]));
    let changed = update("--origin", "https://new.bank.example");
    assert_eq!(changed["origins"], json!(["https://new.bank.example"]));
    assert_eq!(changed["return_urls"], json!(["https://bank.example/other"]));
    assert_eq!(place.answer(&["rp", "list", "--json"])[0], changed);
    // Another one may share RP ID and origin.
    let trial = [
        "rp",
        "create",
        "--name",
        "Trial",
        "--rp-id",
        "bank.example",
        "--origin",
        "https://bank.example",
        "--test",
        "--json",
    ];
    assert_eq!(place.answer(&trial)["mode"], "test");
    for bad in [
        &["rp", "create", "--name", "Bank", "--rp-id", "a.example", "--origin", "https://a.example"][..],
        &["rp", "create", "--name", "X", "--rp-id", "127.0.0.1", "--origin", "https://a.example"],
        &["rp", "create", "--name", "", "--rp-id", "a.example", "--origin", "https://a.example"],
        &["rp", "create", "--name", &"x".repeat(65), "--rp-id", "a.example", "--origin", "https://a.example"],
        &["rp", "create", "--name", "a\u{202e}b", "--rp-id", "a.example", "--origin", "https://a.example"],
        &["rp", "create", "--name", text(&rp["id"]).as_str(), "--rp-id", "a.example", "--origin", "https://a.example"],
        &["rp", "create", "--name", "X", "--rp-id", "a.example", "--origin", "http://a.example"],
        &["rp", "create", "--name", "X", "--rp-id", "a.example", "--origin", "https://*.a.example"],
        &["rp", "create", "--name", "X", "--rp-id", "a.example", "--origin", "https://a.example/path"],
        &["rp", "create", "--name", "X", "--rp-id", "a.example"],
        &["rp", "update", "--rp", "Bank"],
        &["rp", "update", "--rp", "Nobody", "--origin", "https://a.example"],
        &["rp", "update", "--rp", "Bank", "--origin", "https://a.example/path"],
        &["key", "create", "--rp", "Nobody"],
        &["key", "create", "--rp", "Bank", "--scope", "everything"],
        &["key", "create", "--rp", "Bank", "--expires-in", "soon"],
        &["key", "revoke", "key_00000000000070008000000000000000"],
        &["user", "show", "--rp", "Nobody", "ann"],
    ] {
        let ended = place.run(bad);
        assert!(ended.status.is_some_and(|s| s != 0), "{bad:?}");
        assert_eq!(ended.stdout, "", "{bad:?}");
        assert!(!ended.stderr.is_empty());
    }
    let (live, test) = (place.key("Bank"), place.key("Trial"));
    assert!(live.starts_with("sk_live_") && test.starts_with("sk_test_"));
    let by_id = place.answer(&[
        "key",
        "create",
        "--rp",
        &text(&rp["id"]),
        "--scope",
        "sessions",
        "users:read",
        "--expires-in",
        "90d",
        "--json",
    ]);
    assert_eq!(by_id["scopes"], json!(["sessions", "users:read"]));
    assert!(text(&by_id["id"]).starts_with("key_") && by_id["expires_at"].is_string());
    // Without --json the secret stands alone.
    let plain = place.run(&["key", "create", "--rp", "Bank"]);
    assert!(plain.stdout.starts_with("sk_live_") && plain.stdout.lines().count() == 1, "{}", plain.stdout);
    let keys = place.run(&["key", "list"]).stdout + &place.run(&["key", "list", "--json"]).stdout;
    for secret in [&live, &test, plain.stdout.trim(), by_id["secret"].as_str().expect("a secret")] {
        assert!(!keys.contains(secret), "K-01: a list holds no secret");
    }
    assert_eq!(place.answer(&["key", "list", "--json"]).as_array().map(Vec::len), Some(4));
    assert_eq!(place.answer(&["rp", "list", "--json"]).as_array().map(Vec::len), Some(2));
    assert!(place.run(&["rp", "list"]).stdout.contains("Bank"));
}

#[tokio::test]
async fn a_second_serve_on_one_sqlite_file_is_refused() {
    let place = Place::new().await;
    if !place.scratch.is_sqlite() {
        return;
    }
    let _serve = place.serve().await;
    let ended = place.run(&["serve"]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("another countersign serves"), "{}", ended.stderr);
}

/// Every command works beside a running `serve`, and what it makes or ends holds at once.
#[tokio::test]
async fn commands_beside_a_running_engine_take_effect_at_once() {
    let place = Place::new().await;
    let serve = place.serve().await;
    let bank = place.bank();
    assert_eq!(bank.get("/v1/users/ann").await.0, 200);
    let key = place.answer(&["key", "create", "--rp", "Bank", "--json"]);
    let other = place.caller(&text(&key["secret"]));
    assert_eq!(other.get("/v1/users/ann").await.0, 200);
    assert_eq!(place.run(&["key", "revoke", &text(&key["id"])]).status, Some(0));
    assert_eq!(other.get("/v1/users/ann").await.0, 401);
    assert_eq!(bank.get("/v1/users/ann").await.0, 200);

    let app = bank.post("/v1/users/ann/factors", json!({"type": "totp", "name": "Phone app"})).await.1;
    let secret = base32(app["totp"]["secret"].as_str().expect("a secret"));
    let now = || countersign::clock::Clock::now(&countersign::clock::SystemClock).seconds() / 30;
    let activate = format!("/v1/users/ann/factors/{}/activate", text(&app["id"]));
    assert_eq!(bank.post(&activate, json!({"code": totp(&secret, now())})).await.0, 200);
    for _ in 0..10 {
        let wrong = json!({"user_id": "ann", "answer": {"type": "totp", "code": totp(&secret, now() + 1000)}});
        assert_eq!(bank.post("/v1/challenges", wrong).await.0, 422);
    }
    let shown = place.answer(&["user", "show", "--rp", "Bank", "ann", "--json"]);
    assert_eq!((&shown["factors"][0]["name"], &shown["paused"][0]["method"]), (&json!("Phone app"), &json!("totp")));
    let plain = place.run(&["user", "show", "--rp", "Bank", "ann"]).stdout;
    assert!(plain.contains("Phone app") && plain.contains("paused: totp"), "{plain}");
    assert_eq!(bank.get("/v1/users/ann").await.1["paused"][0]["method"], "totp");
    assert_eq!(place.run(&["user", "unlock", "--rp", "Bank", "ann"]).status, Some(0));
    assert_eq!(bank.get("/v1/users/ann").await.1["paused"], json!([]));
    let doctor = place.answer(&["doctor", "--json"]);
    assert!(doctor["checks"].as_array().expect("a list").iter().all(|c| c["status"] != "failed"), "{doctor}");
    let (status, stdout) = serve.terminate();
    assert_eq!((status, stdout.as_str()), (Some(0), ""), "stdout carries the answer only");
}

#[tokio::test]
async fn doctor_fails_where_something_is_wrong() {
    let mut place = Place::new().await;
    place.set("COUNTERSIGN_MASTER_KEY", "nonsense");
    let ended = place.run(&["doctor"]);
    assert_eq!(ended.status, Some(1), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("COUNTERSIGN_MASTER_KEY") || ended.stdout.contains("does not exist"),
        "{}",
        ended.stdout
    );
}

/// What would travel in clear is warned of, before anything is asked of it.
#[tokio::test]
async fn doctor_warns_of_what_travels_in_clear() {
    let mut place = Place::new().await;
    place.serve().await.terminate();
    let warnings = |place: &Place| -> Vec<String> {
        let doctor: Value = serde_json::from_str(&place.run(&["doctor", "--json"]).stdout).expect("JSON");
        let checks = doctor["checks"].as_array().expect("a list").clone();
        checks.iter().filter(|c| c["status"] == "warning").map(|c| text(&c["detail"])).collect()
    };
    let clear = |all: &[String]| all.iter().filter(|w| w.contains("in clear")).count();
    assert_eq!(clear(&warnings(&place)), 0);
    place.set("COUNTERSIGN_SMS_HTTP_URL", "https://sms.example/send");
    assert_eq!(clear(&warnings(&place)), 0);
    place.set("COUNTERSIGN_SMS_HTTP_URL", "http://sms.example/send");
    let told = warnings(&place);
    assert!(clear(&told) == 1 && told.iter().any(|w| w.contains("COUNTERSIGN_SMS_HTTP_URL")), "{told:?}");
    place.set("COUNTERSIGN_WEBHOOK_PRIVATE", "true");
    let told = warnings(&place);
    assert!(clear(&told) == 2 && told.iter().any(|w| w.contains("COUNTERSIGN_WEBHOOK_PRIVATE")), "{told:?}");
    place.set("COUNTERSIGN_WEBHOOK_PRIVATE", "false");
    place.set("COUNTERSIGN_DATABASE_URL", "postgres://mfa:hidden@db.invalid/mfa");
    let told = warnings(&place);
    assert!(clear(&told) == 2 && told.iter().any(|w| w.contains("sslmode")), "{told:?}");
    assert!(!told.concat().contains("hidden"));
}

#[tokio::test]
async fn sigterm_ends_serve_with_status_0_after_what_is_under_way() {
    let place = Place::new().await;
    let serve = place.serve().await;
    let bank = place.bank();
    assert_eq!(bank.get("/v1/users/ann").await.0, 200);
    assert_eq!(serve.terminate(), (Some(0), String::new()));
}

/// PostgreSQL is brought up to date only where somebody says so; SQLite always.
#[tokio::test]
async fn a_missing_sqlite_file_is_made_by_those_that_may_make_it() {
    let mut make = vec!["rp", "create", "--name", "Bank", "--rp-id", "bank.example"];
    make.extend(["--origin", "https://bank.example"]);
    for command in [&["migrate"][..], &make] {
        let place = Place::new().await;
        if place.scratch.is_sqlite() {
            assert_eq!(place.run(command).status, Some(0), "{command:?}");
        }
    }
    let mut place = Place::new().await;
    let missing = place.scratch.folder().join("sub/missing.db");
    if place.scratch.is_sqlite() {
        place.set("COUNTERSIGN_DATABASE_URL", &format!("sqlite:{}", missing.display()));
    }
    for command in [
        &["rp", "list"][..],
        &["key", "list"],
        &["key", "create", "--rp", "Bank"],
        &["user", "show", "--rp", "Bank", "ann"],
        &["keys", "list"],
        &["audit", "verify"],
        &["doctor"],
    ] {
        let ended = place.run(command);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(ended.status == Some(1) && said.contains("migrate"), "{command:?}: {said}");
        assert!(!missing.parent().expect("a folder").exists(), "{command:?}");
    }
}

/// Who only looks makes no keys: else a doctor under a wrong master key would lock the right one out.
#[tokio::test]
async fn doctor_makes_no_keys() {
    let mut place = Place::new().await;
    place.run(&["migrate"]);
    let right = place.setting("COUNTERSIGN_MASTER_KEY").to_owned();
    place.set("COUNTERSIGN_MASTER_KEY", &countersign::new_master_key());
    let doctor = place.answer(&["doctor", "--json"]);
    assert!(doctor.to_string().contains("there are no keys yet"), "{doctor}");
    place.set("COUNTERSIGN_MASTER_KEY", &right);
    place.serve().await.terminate();
}

#[tokio::test]
async fn a_key_that_ran_out_is_listed_as_expired() {
    let mut place = Place::new().await;
    let clock = place.scratch.folder().join("clock");
    std::fs::write(&clock, "0").expect("a file");
    place.set("COUNTERSIGN_DEVELOPMENT", "true");
    place.set("COUNTERSIGN_CLOCK_FILE", clock.to_str().expect("UTF-8"));
    place.run(&["migrate"]);
    place.run(&["rp", "create", "--name", "Bank", "--rp-id", "bank.example", "--origin", "https://bank.example"]);
    place.answer(&["key", "create", "--rp", "Bank", "--expires-in", "1h", "--json"]);
    let state = || place.run(&["key", "list"]).stdout.split("  ").nth(3).map(str::to_owned);
    assert_eq!(state().as_deref(), Some("live"));
    std::fs::write(&clock, "3600").expect("a file");
    assert_eq!(state().as_deref(), Some("expired"));
}

/// The settings' file, and the environment over it.
#[tokio::test]
async fn a_settings_file_serves_and_the_environment_wins() {
    let mut place = Place::new().await;
    let file = place.scratch.folder().join("settings.toml");
    let port = child::free_port();
    let lines = format!(
        "listen = \"127.0.0.1:{port}\"\ndatabase_url = \"sqlite:{}\"\npublic_url = \"http://localhost:{port}\"\n",
        place.scratch.folder().join("from-file.db").display()
    );
    std::fs::write(&file, &lines).expect("a file");
    place.unset("COUNTERSIGN_DATABASE_URL");
    let rp = ["--config", file.to_str().expect("UTF-8"), "rp", "list", "--json"];
    place.run(&["--config", file.to_str().expect("UTF-8"), "migrate"]);
    assert!(place.scratch.folder().join("from-file.db").exists());
    assert_eq!(place.answer(&rp), json!([]) as Value);
    let other = place.scratch.folder().join("from-environment.db");
    place.set("COUNTERSIGN_DATABASE_URL", &format!("sqlite:{}", other.display()));
    place.run(&["--config", file.to_str().expect("UTF-8"), "migrate"]);
    assert!(other.exists());
    std::fs::write(&file, format!("{lines}colour = \"red\"\n")).expect("a file");
    let ended = place.run(&rp);
    assert!(ended.status == Some(1) && ended.stderr.contains("colour"), "{}", ended.stderr);
}

/// Trial aids are for development.
#[tokio::test]
async fn there_is_no_demo_and_no_inbox_in_a_real_engine() {
    let mut place = Place::new().await;
    let serve = place.serve().await;
    let nobody = place.caller("x");
    for path in ["/demo", "/dev/inbox", "/dev/gallery", "/dev"] {
        assert_eq!(nobody.get(path).await.0, 404, "{path}");
    }
    serve.terminate();
    place.set("COUNTERSIGN_DEVELOPMENT", "true");
    place.set("COUNTERSIGN_SMS_PROVIDER", "inbox");
    let _serve = place.serve().await;
    let bank = place.bank();
    let begun = bank.post("/v1/users/ann/factors", json!({"type": "sms", "phone": "+14155550123"})).await;
    assert_eq!(begun.0, 201, "{}", begun.1);
    let inbox = nobody.get("/dev/inbox").await.1;
    assert_eq!(inbox["data"][0]["to"], "+14155550123");
}

/// Whoever comes first makes the file, and the others find it made.
#[tokio::test]
async fn commands_at_once_on_a_missing_file_all_succeed() {
    let place = std::sync::Arc::new(Place::new().await);
    if !place.scratch.is_sqlite() {
        return;
    }
    let make = |n: usize| {
        let place = place.clone();
        std::thread::spawn(move || {
            let name = format!("Bank {n}");
            let rp = ["rp", "create", "--name", &name, "--rp-id", "bank.example", "--origin", "https://bank.example"];
            let ended = place.run(&rp);
            (ended.status, ended.stderr)
        })
    };
    let threads: Vec<_> = (0..8).map(make).collect();
    for thread in threads {
        let (status, stderr) = thread.join().expect("no panic");
        assert_eq!(status, Some(0), "{stderr}");
    }
    assert_eq!(place.answer(&["rp", "list", "--json"]).as_array().map(Vec::len), Some(8));
}

/// An answer that does not arrive is an error of the command; a reader who has seen enough is none.
#[tokio::test]
async fn an_answer_that_cannot_be_written_is_an_error_and_one_that_nobody_reads_to_its_end_is_none() {
    let place = Place::new().await;
    if !place.scratch.is_sqlite() {
        place.run(&["migrate"]);
    }
    let rp = ["rp", "create", "--name", "Bank", "--rp-id", "bank.example", "--origin", "https://bank.example"];
    assert_eq!(place.run(&rp).status, Some(0));
    for command in [
        &["master-key", "generate"][..],
        &["key", "create", "--rp", "Bank"],
        &["key", "list", "--json"],
        &["rp", "list"],
        &["policy", "odds"],
        &["doctor"],
    ] {
        let usual = place.run(command);
        match std::fs::File::options().write(true).open("/dev/full") {
            Ok(full) => {
                let ended = child::run_into(full, command, &place.pairs());
                assert_eq!(ended.status, Some(1), "{command:?}: {}", ended.stderr);
                assert!(ended.stderr.contains("The answer could not be written"), "{command:?}: {}", ended.stderr);
            }
            Err(error) => println!("not tried: /dev/full: {error}"),
        }
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = child::run_into(writer, command, &place.pairs());
        assert_eq!((ended.status, ended.stderr), (usual.status, usual.stderr), "{command:?}");
    }
}

/// An engine whose log nobody takes any more serves, and ends in good order.
#[tokio::test]
async fn words_that_nobody_can_read_hold_up_nothing() {
    let place = Place::new().await;
    if !place.scratch.is_sqlite() {
        place.run(&["migrate"]);
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let serve = child::Serve::spawn_into(writer, place.port, &place.pairs());
    serve.ready().await;
    let bank = place.bank();
    assert_eq!(bank.get("/v1/users/ann").await.0, 200);
    assert_eq!(serve.terminate().0, Some(0));
}
