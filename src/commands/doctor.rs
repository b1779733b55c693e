//! `countersign doctor`: is this set up so that it can work?

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use countersign::config::{Config, Database, Settings, environment};
use serde_json::json;
use url::Url;

use super::{answer, log};

/// Check the settings, the database and the keys.
#[derive(clap::Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finding {
    Good,
    Warning,
    Bad,
}

struct Check {
    name: &'static str,
    finding: Finding,
    detail: String,
}

impl Doctor {
    pub async fn run(self, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
        let checks = examine(file).await;
        let word = |f: Finding| match f {
            Finding::Good => "ok",
            Finding::Warning => "warning",
            Finding::Bad => "failed",
        };
        if self.json {
            let list: Vec<_> = checks
                .iter()
                .map(|c| json!({"check": c.name, "status": word(c.finding), "detail": c.detail}))
                .collect();
            answer(&json!({ "checks": list }).to_string());
        } else {
            checks.iter().for_each(|c| answer(&format!("{:<8} {:<16} {}", word(c.finding), c.name, c.detail)));
        }
        let bad = checks.iter().any(|c| c.finding == Finding::Bad);
        Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

async fn examine(file: Option<PathBuf>) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut note = |name, finding, detail: String| checks.push(Check { name, finding, detail });
    let config = match settings(file.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            note("settings", Finding::Bad, format!("{error:#}"));
            return checks;
        }
    };
    note(
        "settings",
        Finding::Good,
        format!("public address {}, database {:?}", config.issuer(), config.storage.database),
    );
    if let Database::Postgres(url) = &config.storage.database
        && let Some(detail) = clear_database(url, std::env::var("PGSSLMODE").ok().as_deref())
    {
        note("transport", Finding::Warning, detail);
    }
    if let Some(detail) = config.sms.http_url.as_ref().and_then(clear_gateway) {
        note("transport", Finding::Warning, detail);
    }
    match countersign::examine_keys(&config).await {
        Ok(has_ring) => {
            let keys =
                if has_ring { "the master key opens the key ring" } else { "there are no keys yet: serve makes them" };
            note("database, keys", Finding::Good, format!("the schema is up to date, {keys}"));
        }
        Err(error) => {
            note("database, keys", Finding::Bad, error.to_string());
            return checks;
        }
    }
    match relying_parties(&config).await {
        Ok(found) => found.into_iter().for_each(|(finding, detail)| note("relying parties", finding, detail)),
        Err(error) => note("relying parties", Finding::Bad, error.to_string()),
    }
    let (finding, detail) = match (&config.sms.local, &config.sms.http_url, &config.sms.twilio) {
        (None, None, None) => (Finding::Warning, "no SMS provider: phones cannot be enrolled"),
        (Some(_), None, None) => (Finding::Warning, "texts stay on this machine"),
        _ => (Finding::Good, "a gateway is configured (nothing was sent)"),
    };
    note("sms", finding, detail.to_owned());
    if config.webhook_private {
        let detail = "COUNTERSIGN_WEBHOOK_PRIVATE is on: an admin key can have any address inside called, and events may travel in clear";
        note("webhooks", Finding::Warning, detail.to_owned());
    }
    if config.development {
        note("development", Finding::Warning, "COUNTERSIGN_DEVELOPMENT is on: not for real users".to_owned());
    }
    checks
}

/// All that `serve` reads before it opens anything.
fn settings(file: Option<&Path>) -> anyhow::Result<Config> {
    let settings = Settings::read(file, environment()?)?;
    log::filter(&settings.log()?)?;
    Ok(settings.serve()?)
}

/// What is wrong with a gateway to which texts travel in clear.
fn clear_gateway(url: &Url) -> Option<String> {
    (url.scheme() == "http" && !is_here(url.host_str())).then(|| {
        let host = url.host_str().unwrap_or_default();
        format!("COUNTERSIGN_SMS_HTTP_URL is http:// to {host}: numbers and codes travel in clear; use https://")
    })
}

/// What is wrong with a PostgreSQL elsewhere that may be spoken to in clear; `by_default` is libpq's own setting.
fn clear_database(url: &str, by_default: Option<&str>) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let said = |names: &[&str]| url.query_pairs().find(|(n, _)| names.contains(&&**n)).map(|(_, v)| v.into_owned());
    let (host, mode) = (said(&["host", "hostaddr"]), said(&["sslmode", "ssl-mode"]));
    let host = host.as_deref().or(url.host_str());
    let mode = mode.as_deref().or(by_default).unwrap_or("prefer").to_ascii_lowercase();
    if is_here(host) || matches!(&*mode, "require" | "verify-ca" | "verify-full") {
        return None;
    }
    let host = host.unwrap_or_default();
    Some(format!("sslmode is {mode} to {host}: what is kept may travel in clear; add ?sslmode=verify-full"))
}

/// This machine, by name, loopback address or socket.
fn is_here(host: Option<&str>) -> bool {
    let host = host.unwrap_or_default().trim_matches(['[', ']']);
    let by_address = || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let by_name = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    host.is_empty() || host.starts_with('/') || host.to_ascii_lowercase().starts_with("%2f") || by_name || by_address()
}

async fn relying_parties(config: &Config) -> anyhow::Result<Vec<(Finding, String)>> {
    let all = countersign::operator(&config.storage, false).await?.relying_parties().await?;
    if all.is_empty() {
        return Ok(vec![(Finding::Warning, "none yet: countersign rp create makes one".to_owned())]);
    }
    let host = config.public_url.host_str().unwrap_or_default();
    let judge = |rp: &countersign::model::RelyingParty| match rp.covers(host) {
        true => (Finding::Good, format!("{}: RP ID {} covers the hosted pages", rp.name, rp.host)),
        false => (
            Finding::Warning,
            format!(
                "{}: RP ID {} doesn't cover {host}: passkeys work on its own pages only, not on the hosted ones",
                rp.name, rp.host
            ),
        ),
    };
    Ok(all.iter().map(judge).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_elsewhere_is_spoken_to_under_tls() {
        let warns = |url: &str| clear_gateway(&url.parse().expect("an address")).is_some();
        for clear in ["http://sms.example/send", "http://10.0.0.7:8080/", "http://localhost.example/"] {
            assert!(warns(clear), "{clear}");
        }
        for good in ["https://sms.example/", "http://localhost:9000/", "http://127.0.0.9/", "http://[::1]:9000/x"] {
            assert!(!warns(good), "{good}");
        }
    }

    #[test]
    fn a_postgresql_elsewhere_is_spoken_to_under_tls() {
        let warns = |url: &str| clear_database(url, None).is_some();
        for clear in [
            "postgres://u:p@db.example/mfa",
            "postgres://u@10.0.0.7:5433/mfa?sslmode=prefer",
            "postgresql://u@db.example/mfa?application_name=x&sslmode=disable",
            "postgres://u@localhost/mfa?host=db.example",
        ] {
            assert!(warns(clear), "{clear}");
        }
        for good in [
            "postgres://u@db.example/mfa?sslmode=require",
            "postgres://u@db.example/mfa?sslmode=verify-full",
            "postgres://u@localhost/mfa",
            "postgres://u@[::1]:5433/mfa",
            "postgres:///mfa?host=/run/postgresql",
            "postgres://u@%2Frun%2Fpostgresql/mfa",
        ] {
            assert!(!warns(good), "{good}");
        }
        assert!(clear_database("postgres://u@db.example/mfa", Some("verify-full")).is_none());
        let told = clear_database("postgres://u:secret@db.example/mfa", None).expect("a warning");
        assert!(told.contains("sslmode=verify-full") && !told.contains("secret"), "{told}");
    }
}
