//! The table of settings: each one's place in the file and its name in the environment, and how both are read into text.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use zeroize::Zeroizing;

/// A setting's place in the file and its name in the environment.
pub struct Setting {
    /// `section.name`, or `name` at the top.
    pub file: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// Whether `NAME_FILE` may name a file that holds the value, and `NAME_COMMAND` a command that prints it.
    pub secret: bool,
    /// One line for people.
    pub about: &'static str,
}

macro_rules! settings {
    ($($kind:ident $file:literal $env:literal $about:literal;)*) => {
        /// Every setting. The example file is checked against it.
        pub const ENVIRONMENT: &[Setting] =
            &[$(Setting { file: $file, env: $env, secret: settings!($kind), about: $about }),*];
    };
    (open) => { false };
    (secret) => { true };
}

settings! {
    open "listen" "COUNTERSIGN_LISTEN" "address and port to listen on; 127.0.0.1:8080 if unset";
    open "database_url" "COUNTERSIGN_DATABASE_URL" "sqlite:PATH or postgres://…";
    open "public_url" "COUNTERSIGN_PUBLIC_URL" "the address by which browsers reach this engine; issuer of its JWTs";
    secret "master_key" "COUNTERSIGN_MASTER_KEY" "32 bytes in base64url, from countersign master-key generate";
    secret "new_master_key" "COUNTERSIGN_NEW_MASTER_KEY" "the master key to come; for countersign keys rotate master only";
    open "log" "COUNTERSIGN_LOG" "what is logged, as info or countersign=debug,info";
    open "log_format" "COUNTERSIGN_LOG_FORMAT" "text or json";
    open "metrics_listen" "COUNTERSIGN_METRICS_LISTEN" "address and port of a listener for /metrics alone; else loopback and trusted proxies may read it on listen";
    open "otlp_endpoint" "COUNTERSIGN_OTLP_ENDPOINT" "collector that traces are sent to by OTLP over HTTP; needs a build with the feature otlp";
    open "pool" "COUNTERSIGN_POOL" "database connections of this node; 16 if unset";
    open "acquire_timeout" "COUNTERSIGN_ACQUIRE_TIMEOUT" "longest wait for a database connection, as 5s; 5s if unset";
    open "statement_timeout" "COUNTERSIGN_STATEMENT_TIMEOUT" "longest that a statement of PostgreSQL may take, as 5s; 5s if unset";
    open "drain" "COUNTERSIGN_DRAIN" "how long a node that is told to end still takes connections while it is not ready, as 5s; 500ms if unset";
    open "trusted_proxies" "COUNTERSIGN_TRUSTED_PROXIES" "proxies whose X-Forwarded-For counts, as 10.0.0.0/8,192.0.2.1; none if unset";
    open "factor_cool_off" "COUNTERSIGN_FACTOR_COOL_OFF" "how long a new factor does not count as phishing-resistant, as 24h; 0s if unset";
    open "development" "COUNTERSIGN_DEVELOPMENT" "true: aids of development (test inbox, console provider, movable clock); loopback only";
    open "clock_file" "COUNTERSIGN_CLOCK_FILE" "file with an offset in seconds to the machine's clock; development only";
    open "sms.provider" "COUNTERSIGN_SMS_PROVIDER" "console or inbox, instead of a gateway; development only";
    open "sms.http_url" "COUNTERSIGN_SMS_HTTP_URL" "generic gateway: each text is POSTed there as JSON";
    open "sms.countries" "COUNTERSIGN_SMS_COUNTRIES" "countries that may be texted, as DE,FR; if unset all, but no premium, shared-cost or satellite numbers";
    open "sms.country_day" "COUNTERSIGN_SMS_COUNTRY_DAY" "texts of one relying party to one country a UTC day; 2000 if unset";
    open "sms.relying_party_day" "COUNTERSIGN_SMS_RELYING_PARTY_DAY" "texts of one relying party a UTC day; 10000 if unset";
    open "sms.twilio.account_sid" "COUNTERSIGN_SMS_TWILIO_ACCOUNT_SID" "Twilio account";
    secret "sms.twilio.auth_token" "COUNTERSIGN_SMS_TWILIO_AUTH_TOKEN" "its token";
    open "sms.twilio.from" "COUNTERSIGN_SMS_TWILIO_FROM" "sending number, or a messaging service as MG…";
    open "webhook.private" "COUNTERSIGN_WEBHOOK_PRIVATE" "true: webhooks may go to http and to addresses inside; false if unset";
    open "sms.twilio.url" "COUNTERSIGN_SMS_TWILIO_URL" "another address of Twilio's API, for trials";
}

/// A setting that is missing or does not read.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub struct ConfigError {
    /// The setting, by its name in the environment, or the file.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

pub(super) fn error(name: &str, why: impl Into<String>) -> ConfigError {
    ConfigError { name: name.to_owned(), why: why.into() }
}

pub(super) fn missing(name: &str) -> ConfigError {
    error(name, "is not set")
}

pub(super) fn env_of(file: &str) -> &'static str {
    ENVIRONMENT.iter().find(|s| s.file == file).map(|s| s.env).expect("every setting stands in the table")
}

/// Where the value of a setting stands.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Here,
    File,
    Command,
}

/// The setting that this name of the environment sets, and how.
pub(super) fn named(name: &str) -> Result<(&'static Setting, Source), ConfigError> {
    let of = |env: &str| ENVIRONMENT.iter().find(|s| s.env == env);
    let secret = |suffix| name.strip_suffix(suffix).and_then(of).filter(|s| s.secret);
    let found = of(name).map(|s| (s, Source::Here));
    let found = found.or_else(|| secret("_FILE").map(|s| (s, Source::File)));
    let found = found.or_else(|| secret("_COMMAND").map(|s| (s, Source::Command)));
    found.ok_or_else(|| error(name, "is not a setting; see countersign --help"))
}

/// The value of a setting of this name.
pub(super) fn value(name: &str, source: Source, text: String) -> Result<Zeroizing<String>, ConfigError> {
    let content = match source {
        Source::Here => return Ok(Zeroizing::new(text)),
        Source::File => {
            let read = std::fs::read_to_string(&text).map_err(|e| error(name, format!("cannot read {text}: {e}")));
            Zeroizing::new(read?)
        }
        Source::Command => output_of(name, &text)?,
    };
    Ok(Zeroizing::new(content.trim().to_owned()))
}

/// What a command prints: so any secret manager can hand over a secret.
fn output_of(name: &str, command: &str) -> Result<Zeroizing<String>, ConfigError> {
    let output = std::process::Command::new("sh")
        .args(["-c", command])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|e| error(name, format!("cannot run it: {e}")))?;
    if !output.status.success() {
        return Err(error(name, format!("the command ended with {}", output.status)));
    }
    String::from_utf8(output.stdout).map(Zeroizing::new).map_err(|_| error(name, "the command printed no text"))
}

pub(super) fn from_file(path: &Path) -> Result<BTreeMap<&'static str, Zeroizing<String>>, ConfigError> {
    let name = path.display().to_string();
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| error(&name, format!("cannot read it: {e}")))?);
    let table = toml::Table::deserialize(toml::de::Deserializer::parse(&text).map_err(|e| error(&name, e.message()))?)
        .map_err(|e| error(&name, e.message()))?;
    let mut values = BTreeMap::new();
    flatten(&name, "", &table, &mut values)?;
    Ok(values)
}

fn flatten(
    name: &str,
    above: &str,
    table: &toml::Table,
    values: &mut BTreeMap<&'static str, Zeroizing<String>>,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let place = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        let text = match value {
            toml::Value::Table(inner) => {
                flatten(name, &place, inner, values)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(n) => n.to_string(),
            toml::Value::Boolean(b) => b.to_string(),
            toml::Value::Array(list) => {
                let texts: Option<Vec<_>> = list.iter().map(toml::Value::as_str).collect();
                texts.ok_or_else(|| error(name, format!("{place} expects a list of texts")))?.join(",")
            }
            _ => return Err(error(name, format!("{place} has a type that no setting has"))),
        };
        let setting = ENVIRONMENT.iter().find(|s| s.file == place);
        let setting = setting.ok_or_else(|| error(name, format!("{place} is not a setting")))?;
        values.insert(setting.file, Zeroizing::new(text));
    }
    Ok(())
}
