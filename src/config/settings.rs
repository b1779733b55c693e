//! What the settings mean: text becomes addresses, numbers and sections, or an error that names the setting.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use super::table::{Source, env_of, error, from_file, missing, named, value};
use super::{Config, ConfigError, Database, LocalProvider, Log, Secret, Sms, Storage, Twilio};

/// The countries that people choose from, each line beginning with its code; and those that have a code and are not in that list.
const COUNTRIES: &str = include_str!("../../web/countries.txt");
const OTHERS: [&str; 19] =
    ["AC", "AQ", "AX", "BL", "BV", "CC", "CX", "EH", "GS", "HM", "IO", "MF", "NF", "PN", "SJ", "TA", "TF", "TK", "UM"];

/// The environment's settings as text; what is none of ours may be anything.
pub fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let all = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value));
    let text = |(name, value): (String, OsString)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(error(&name, "is no UTF-8")),
    };
    all.filter(|(name, _)| is_setting(name)).map(text).collect()
}

/// What the project's own tests read, and an engine that they start does not.
const OF_TESTS: [&str; 4] =
    ["COUNTERSIGN_TEST_BROWSER", "COUNTERSIGN_TEST_DATABASE", "COUNTERSIGN_TEST_POSTGRES", "COUNTERSIGN_TEST_VECTORS"];

/// Whether the engine has to know this name.
fn is_setting(name: &str) -> bool {
    name.starts_with("COUNTERSIGN_") && !OF_TESTS.contains(&name)
}

/// Settings by their place in the file, as text.
#[derive(Debug)]
pub struct Settings(BTreeMap<&'static str, Zeroizing<String>>);

impl Settings {
    /// Reads the file, if one is named, then what [`environment`] gives over it.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Settings, ConfigError> {
        let mut values = match file {
            Some(path) => from_file(path)?,
            None => BTreeMap::new(),
        };
        let mut set: BTreeMap<&str, (String, Source, String)> = BTreeMap::new();
        for (name, text) in environment {
            let (setting, source) = named(&name)?;
            let earlier = set.insert(setting.file, (name.clone(), source, text));
            if let Some((other, ..)) = earlier.filter(|(other, ..)| *other != name) {
                return Err(error(&name, format!("{other} is set, too")));
            }
        }
        // Only now, so that nothing is read or run where something is wrong with a name.
        for (file, (name, source, text)) in set {
            values.insert(file, value(&name, source, text)?);
        }
        let settings = Settings(values);
        settings.check()?;
        Ok(settings)
    }

    /// Whether all that is set reads, also what a command does not need: it would be met at the next start of the engine. How to log
    /// is what every command reads.
    fn check(&self) -> Result<(), ConfigError> {
        if self.0.contains_key("database_url") {
            self.storage()?;
        }
        if self.0.contains_key("public_url") {
            self.public_url()?;
        }
        self.address("listen")?;
        self.address("metrics_listen")?;
        self.trusted_proxies()?;
        self.cool_off()?;
        self.drain()?;
        self.truth("webhook.private")?;
        self.sms(self.development()?).map(drop)
    }

    /// How to log, for the demo, which sets everything else itself; a name that is no setting is refused there too.
    pub fn of_demo(environment: impl IntoIterator<Item = (String, String)>) -> Result<Settings, ConfigError> {
        let mut log = Vec::new();
        for (name, text) in environment {
            if named(&name)?.0.file.starts_with("log") {
                log.push((name, text));
            }
        }
        Settings::read(None, log)
    }

    /// Sets what neither file nor environment said.
    pub fn or_default(mut self, file: &'static str, value: &str) -> Settings {
        self.0.entry(file).or_insert_with(|| Zeroizing::new(value.to_owned()));
        self
    }

    /// What the database commands need.
    pub fn storage(&self) -> Result<Storage, ConfigError> {
        let database = Database::parse(self.required("database_url")?)
            .ok_or_else(|| error(env_of("database_url"), "expected sqlite:PATH or postgres://USER@HOST/NAME"))?;
        let mut storage = Storage::new(database);
        if let Some(pool) = self.number("pool")? {
            let pool = u32::try_from(pool).ok().filter(|n| (1..=1000).contains(n));
            storage.pool = pool.ok_or_else(|| error(env_of("pool"), "expected a number from 1 to 1000"))?;
        }
        for (name, wait) in
            [("acquire_timeout", &mut storage.acquire_timeout), ("statement_timeout", &mut storage.statement_timeout)]
        {
            let bounds = Duration::from_millis(100)..=Duration::from_secs(60);
            *wait = self.span(name, bounds, "expected from 100ms to 60s, as 5s")?.unwrap_or(*wait);
        }
        storage.clock_file = self.optional("clock_file").map(PathBuf::from);
        if storage.clock_file.is_some() && !self.development()? {
            return Err(error(env_of("clock_file"), "needs COUNTERSIGN_DEVELOPMENT=true"));
        }
        Ok(storage)
    }

    /// How to log; needs nothing.
    pub fn log(&self) -> Result<Log, ConfigError> {
        let json = match self.optional("log_format") {
            None | Some("text") => false,
            Some("json") => true,
            Some(_) => return Err(error(env_of("log_format"), "expected text or json")),
        };
        let otlp_endpoint = self.url("otlp_endpoint")?;
        if otlp_endpoint.is_some() && cfg!(not(feature = "otlp")) {
            return Err(error(env_of("otlp_endpoint"), "needs a build with the feature otlp"));
        }
        Ok(Log { filter: self.optional("log").unwrap_or("info").to_owned(), json, otlp_endpoint })
    }

    /// The master key alone.
    pub fn master_key(&self) -> Result<Secret, ConfigError> {
        Ok(Secret(Zeroizing::new(self.required("master_key")?.to_owned())))
    }

    /// The master key to come.
    pub fn new_master_key(&self) -> Result<Secret, ConfigError> {
        Ok(Secret(Zeroizing::new(self.required("new_master_key")?.to_owned())))
    }

    /// Everything that `serve` needs.
    pub fn serve(&self) -> Result<Config, ConfigError> {
        let listen = self.address("listen")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let public_url = self.public_url()?;
        let development = self.development()?;
        if development && !listen.ip().is_loopback() {
            return Err(error(env_of("development"), "needs a loopback address in COUNTERSIGN_LISTEN"));
        }
        Ok(Config {
            listen,
            public_url,
            storage: self.storage()?,
            master_key: self.master_key()?,
            sms: self.sms(development)?,
            trusted_proxies: self.trusted_proxies()?,
            factor_cool_off: self.cool_off()?,
            drain: self.drain()?,
            metrics_listen: self.address("metrics_listen")?,
            webhook_private: self.truth("webhook.private")?,
            development,
        })
    }

    fn public_url(&self) -> Result<Url, ConfigError> {
        let name = env_of("public_url");
        let url = self.url("public_url")?.ok_or_else(|| missing(name))?;
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
            || url.host_str().is_some_and(|h| h.ends_with(".localhost"));
        if url.scheme() == "http" && !local {
            return Err(error(name, "must be https, except on localhost: passkeys and cookies need it"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
            return Err(error(name, "expected scheme, host and port only, as https://mfa.example.com"));
        }
        Ok(url)
    }

    fn trusted_proxies(&self) -> Result<Vec<ipnet::IpNet>, ConfigError> {
        let network = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Into::into));
        self.optional("trusted_proxies")
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(|t| {
                network(t).ok_or_else(|| {
                    error(env_of("trusted_proxies"), "expected addresses or networks, as 10.0.0.0/8,192.0.2.1")
                })
            })
            .collect()
    }

    fn cool_off(&self) -> Result<i64, ConfigError> {
        let bounds = Duration::ZERO..=Duration::from_secs(30 * 86_400);
        let span = self.span("factor_cool_off", bounds, "expected from 0s to 30days, as 24h")?;
        Ok(span.map_or(0, |span| span.as_secs() as i64))
    }

    fn drain(&self) -> Result<Duration, ConfigError> {
        let bounds = Duration::ZERO..=Duration::from_secs(20);
        Ok(self.span("drain", bounds, "expected from 0s to 20s, as 5s")?.unwrap_or(super::DRAIN))
    }

    /// A span of time, where it is set; it has to lie within these bounds.
    fn span(
        &self,
        name: &str,
        bounds: RangeInclusive<Duration>,
        expected: &str,
    ) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        let read = humantime::parse_duration(text).ok().filter(|span| bounds.contains(span));
        read.map(Some).ok_or_else(|| error(env_of(name), expected))
    }

    fn development(&self) -> Result<bool, ConfigError> {
        self.truth("development")
    }

    fn truth(&self, file: &str) -> Result<bool, ConfigError> {
        match self.optional(file) {
            None | Some("false" | "0" | "") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(error(env_of(file), "expected true or false")),
        }
    }

    fn sms(&self, development: bool) -> Result<Sms, ConfigError> {
        let local = match self.optional("sms.provider") {
            None => None,
            Some("console") => Some(LocalProvider::Console),
            Some("inbox") => Some(LocalProvider::Inbox),
            Some(_) => return Err(error(env_of("sms.provider"), "expected console or inbox")),
        };
        if local.is_some() && !development {
            return Err(error(env_of("sms.provider"), "console and inbox need COUNTERSIGN_DEVELOPMENT=true"));
        }
        let countries = self.optional("sms.countries").map(|text| {
            text.split(',').map(|c| c.trim().to_ascii_uppercase()).filter(|c| !c.is_empty()).collect::<Vec<_>>()
        });
        let is_known = |code: &String| {
            OTHERS.contains(&code.as_str()) || COUNTRIES.lines().any(|line| line.split(' ').next() == Some(code))
        };
        if countries.as_ref().is_some_and(|countries| countries.is_empty() || !countries.iter().all(is_known)) {
            return Err(error(
                env_of("sms.countries"),
                "expected two-letter country codes, as DE,FR; to let all through, leave it out",
            ));
        }
        Ok(Sms {
            local,
            http_url: self.url("sms.http_url")?,
            twilio: self.twilio()?,
            countries,
            country_day: self.number("sms.country_day")?,
            relying_party_day: self.number("sms.relying_party_day")?,
        })
    }

    fn twilio(&self) -> Result<Option<Twilio>, ConfigError> {
        // First, so that it is named where it does not read, whatever else is there.
        let url = self.url("sms.twilio.url")?;
        let parts = ["sms.twilio.account_sid", "sms.twilio.auth_token", "sms.twilio.from"];
        if parts.iter().all(|p| self.optional(p).is_none()) {
            return Ok(None);
        }
        let url = url.unwrap_or_else(|| Url::parse("https://api.twilio.com").expect("a constant address"));
        Ok(Some(Twilio {
            account_sid: self.required(parts[0])?.to_owned(),
            auth_token: Secret(Zeroizing::new(self.required(parts[1])?.to_owned())),
            from: self.required(parts[2])?.to_owned(),
            url,
        }))
    }

    fn optional(&self, file: &str) -> Option<&str> {
        self.0.get(file).map(|v| v.as_str())
    }

    fn required(&self, file: &str) -> Result<&str, ConfigError> {
        self.optional(file).filter(|v| !v.is_empty()).ok_or_else(|| missing(env_of(file)))
    }

    fn number(&self, file: &str) -> Result<Option<i64>, ConfigError> {
        let read = |text: &str| text.parse().ok().filter(|n| *n >= 0);
        self.optional(file).map(|t| read(t).ok_or_else(|| error(env_of(file), "expected a whole number"))).transpose()
    }

    fn address(&self, file: &str) -> Result<Option<SocketAddr>, ConfigError> {
        let read = |t: &str| t.parse().map_err(|_| error(env_of(file), "expected ADDRESS:PORT, as 127.0.0.1:8080"));
        self.optional(file).map(read).transpose()
    }

    fn url(&self, file: &str) -> Result<Option<Url>, ConfigError> {
        let read =
            |text: &str| Url::parse(text).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        self.optional(file)
            .map(|t| read(t).ok_or_else(|| error(env_of(file), "expected an http or https address")))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ENVIRONMENT;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::read(None, pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
    }

    const BASE: [(&str, &str); 3] = [
        ("COUNTERSIGN_DATABASE_URL", "sqlite:data.db"),
        ("COUNTERSIGN_PUBLIC_URL", "https://mfa.example.com"),
        ("COUNTERSIGN_MASTER_KEY", "k"),
    ];

    fn with(extra: &[(&str, &str)]) -> Result<Config, ConfigError> {
        read(&[&BASE[..], extra].concat())?.serve()
    }

    #[test]
    fn environment_alone_is_enough() {
        let config = with(&[]).expect("complete");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.storage.database, Database::Sqlite("data.db".into()));
        assert_eq!(config.issuer(), "https://mfa.example.com");
        let drains =
            ["0s", "20s"].map(|span| with(&[("COUNTERSIGN_DRAIN", span)]).expect("complete").drain.as_millis());
        assert_eq!((config.drain.as_millis(), drains), (500, [0, 20_000]));
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        for left_out in 0..BASE.len() {
            let mut rest = BASE.to_vec();
            let (name, _) = rest.remove(left_out);
            let error = read(&rest).and_then(|s| s.serve()).expect_err(name);
            assert_eq!(error.name, name);
        }
        for (name, value) in [
            ("COUNTERSIGN_LISTEN", "8080"),
            ("COUNTERSIGN_METRICS_LISTEN", "localhost"),
            ("COUNTERSIGN_DATABASE_URL", "mysql://x"),
            ("COUNTERSIGN_DATABASE_URL", "sqlite:"),
            ("COUNTERSIGN_DATABASE_URL", "sqlite::memory:"),
            ("COUNTERSIGN_DATABASE_URL", "sqlite://:memory:"),
            ("COUNTERSIGN_DATABASE_URL", "sqlite:data.db?mode=rwc"),
            ("COUNTERSIGN_PUBLIC_URL", "http://mfa.example.com"),
            ("COUNTERSIGN_PUBLIC_URL", "https://mfa.example.com/path"),
            ("COUNTERSIGN_POOL", "0"),
            ("COUNTERSIGN_POOL", "many"),
            ("COUNTERSIGN_ACQUIRE_TIMEOUT", "5"),
            ("COUNTERSIGN_STATEMENT_TIMEOUT", "2h"),
            ("COUNTERSIGN_DEVELOPMENT", "perhaps"),
            ("COUNTERSIGN_WEBHOOK_PRIVATE", "perhaps"),
            ("COUNTERSIGN_CLOCK_FILE", "offset"),
            ("COUNTERSIGN_TRUSTED_PROXIES", "10.0.0.0/8, everybody"),
            ("COUNTERSIGN_FACTOR_COOL_OFF", "24"),
            ("COUNTERSIGN_FACTOR_COOL_OFF", "1year"),
            ("COUNTERSIGN_DRAIN", "5"),
            ("COUNTERSIGN_DRAIN", "21s"),
            ("COUNTERSIGN_SMS_PROVIDER", "inbox"),
            ("COUNTERSIGN_SMS_HTTP_URL", "ftp://x"),
            ("COUNTERSIGN_SMS_TWILIO_URL", "ftp://x"),
            ("COUNTERSIGN_SMS_COUNTRIES", "Germany"),
            ("COUNTERSIGN_SMS_COUNTRIES", "DE,XX"),
            ("COUNTERSIGN_SMS_COUNTRIES", ","),
            ("COUNTERSIGN_SMS_COUNTRIES", ""),
            ("COUNTERSIGN_TYPO", "1"),
            ("COUNTERSIGN_TEST_TYPO", "1"),
            ("COUNTERSIGN_LISTEN_FILE", "x"),
            // Beside the key itself.
            ("COUNTERSIGN_MASTER_KEY_COMMAND", "echo x"),
        ] {
            let error = with(&[(name, value)]).expect_err(name);
            assert_eq!(error.name, name, "{error}");
        }
    }

    #[test]
    fn development_stays_on_loopback() {
        assert!(with(&[("COUNTERSIGN_DEVELOPMENT", "true")]).is_ok());
        let open = with(&[("COUNTERSIGN_DEVELOPMENT", "true"), ("COUNTERSIGN_LISTEN", "0.0.0.0:80")]);
        assert_eq!(open.expect_err("open to all").name, "COUNTERSIGN_DEVELOPMENT");
    }

    #[test]
    fn a_half_configured_gateway_is_an_error() {
        let error = with(&[("COUNTERSIGN_SMS_TWILIO_ACCOUNT_SID", "AC1")]).expect_err("no token");
        assert_eq!(error.name, "COUNTERSIGN_SMS_TWILIO_AUTH_TOKEN");
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let config =
            with(&[("COUNTERSIGN_MASTER_KEY", "canary"), ("COUNTERSIGN_DATABASE_URL", "postgres://u:canary@h/n")]);
        assert!(!format!("{:?}", config.expect("complete")).contains("canary"));
    }

    /// As it stands the example needs the master key alone; what is commented out reads too, and names every setting that may stand
    /// in a file, but for secrets and aids of development.
    #[test]
    fn the_example_file_reads_and_leaves_nothing_out() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("countersign.example.toml");
        let text = std::fs::read_to_string(&path).expect("the example is there");
        let key = [("COUNTERSIGN_MASTER_KEY".to_owned(), "k".to_owned())];
        Settings::read(Some(&path), key.clone()).and_then(|s| s.serve()).expect("the example reads");

        let is_setting = |line: &str| line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '));
        let all = text.lines().map(|line| line.strip_prefix("# ").filter(|line| is_setting(line)).unwrap_or(line));
        let all: Vec<&str> = all.collect();
        let scratch = std::env::temp_dir().join(format!("countersign-example-{}.toml", std::process::id()));
        std::fs::write(&scratch, all.join("\n")).expect("a file");
        let token = [("COUNTERSIGN_SMS_TWILIO_AUTH_TOKEN".to_owned(), "t".to_owned())];
        let settings = Settings::read(Some(&scratch), key.into_iter().chain(token));
        std::fs::remove_file(&scratch).expect("it is there");
        settings.and_then(|s| s.serve()).expect("what is commented out reads");
        for setting in
            ENVIRONMENT.iter().filter(|s| !s.secret && !s.about.contains("development") && !s.about.contains("trials"))
        {
            let name = setting.file.rsplit('.').next().expect("a name");
            assert!(all.iter().any(|line| line.starts_with(&format!("{name} = "))), "{} is left out", setting.file);
        }
    }

    #[test]
    fn every_name_is_used_once() {
        let mut names: Vec<_> = ENVIRONMENT.iter().flat_map(|s| [s.env, s.file]).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
