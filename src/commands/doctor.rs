//! `countersign doctor`: is this set up so that it can work?

use std::path::PathBuf;
use std::process::ExitCode;

use countersign::config::{Config, Database, Settings};
use serde_json::json;

use super::answer;

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
    let config = match Settings::read(file.as_deref(), std::env::vars()).and_then(|s| s.serve()) {
        Ok(config) => config,
        Err(error) => {
            note("settings", Finding::Bad, error.to_string());
            return checks;
        }
    };
    note(
        "settings",
        Finding::Good,
        format!("public address {}, database {:?}", config.issuer(), config.storage.database),
    );
    if let Database::Sqlite(path) = &config.storage.database
        && !path.exists()
    {
        note("database", Finding::Bad, format!("{} does not exist; countersign migrate makes it", path.display()));
        return checks;
    }
    match countersign::examine_keys(&config).await {
        Ok(()) => note(
            "database, keys",
            Finding::Good,
            "the schema is up to date, the master key opens the key ring".to_owned(),
        ),
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
    if config.development {
        note("development", Finding::Warning, "COUNTERSIGN_DEVELOPMENT is on: not for real users".to_owned());
    }
    checks
}

async fn relying_parties(config: &Config) -> anyhow::Result<Vec<(Finding, String)>> {
    let all = countersign::operator(&config.storage).await?.relying_parties().await?;
    if all.is_empty() {
        return Ok(vec![(Finding::Warning, "none yet: countersign rp create makes one".to_owned())]);
    }
    let host = config.public_url.host_str().unwrap_or_default();
    let judge = |rp: &countersign::model::RelyingParty| {
        let covered = host == rp.host || host.ends_with(&format!(".{}", rp.host));
        match covered {
            true => (Finding::Good, format!("{}: RP ID {} covers the hosted pages", rp.name, rp.host)),
            false => (
                Finding::Warning,
                format!(
                    "{}: RP ID {} doesn't cover {host}: passkeys work on its own pages only, not on the hosted ones",
                    rp.name, rp.host
                ),
            ),
        }
    };
    Ok(all.iter().map(judge).collect())
}
