//! Settings: from a TOML file and from the environment, where the environment wins.
//!
//! Each setting has one name in the environment, from the table in [`ENVIRONMENT`]; an unknown `COUNTERSIGN_…` name, a missing
//! setting and a malformed one are errors that name it, before anything is opened.

mod settings;
mod table;

pub use settings::{Settings, environment};
pub use table::{ConfigError, ENVIRONMENT, Setting};

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

/// Where rows are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// One file.
    Sqlite(PathBuf),
    /// A server, by its address.
    Postgres(String),
}

impl Database {
    /// `sqlite:PATH` or `postgres://…`.
    pub fn parse(url: &str) -> Option<Database> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            // A database in memory would be another one for every connection; what other programs say behind a ? is not known here.
            let named = !matches!(path.trim_start_matches('/'), "" | ":memory:") && !path.contains('?');
            return named.then(|| Database::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path))));
        }
        let is_server = url.starts_with("postgres://") || url.starts_with("postgresql://");
        (is_server && Url::parse(url).is_ok()).then(|| Database::Postgres(url.to_owned()))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Database::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Database::Postgres(_) => f.write_str("postgres://…"),
        }
    }
}

/// A value that does not show itself.
#[derive(Clone)]
pub struct Secret(pub Zeroizing<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Twilio's Messages API.
#[derive(Clone, Debug)]
pub struct Twilio {
    /// `AC…`.
    pub account_sid: String,
    /// The account's token.
    pub auth_token: Secret,
    /// A number in E.164, or a messaging service `MG…`.
    pub from: String,
    /// The API's address.
    pub url: Url,
}

/// A provider that stays on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalProvider {
    /// Writes texts to stderr.
    Console,
    /// Keeps texts for `/dev/inbox`.
    Inbox,
}

/// How texts are sent.
#[derive(Clone, Debug, Default)]
pub struct Sms {
    /// Instead of a gateway.
    pub local: Option<LocalProvider>,
    /// The generic gateway.
    pub http_url: Option<Url>,
    /// Twilio.
    pub twilio: Option<Twilio>,
    /// ISO 3166-1 alpha-2 codes that may be texted; `None` for all, but for premium, shared-cost and satellite numbers.
    pub countries: Option<Vec<String>>,
    /// Texts to one country a UTC day.
    pub country_day: Option<i64>,
    /// Texts of one relying party a UTC day.
    pub relying_party_day: Option<i64>,
}

/// What every command that opens the database needs.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Where.
    pub database: Database,
    /// Connections of this node.
    pub pool: u32,
    /// The longest wait for a connection.
    pub acquire_timeout: Duration,
    /// The longest that a statement of PostgreSQL may take.
    pub statement_timeout: Duration,
    /// An offset to the machine's clock, in development.
    pub clock_file: Option<PathBuf>,
}

impl Storage {
    /// This database with the usual limits.
    pub fn new(database: Database) -> Storage {
        let wait = Duration::from_secs(5);
        Storage { database, pool: 16, acquire_timeout: wait, statement_timeout: wait, clock_file: None }
    }
}

/// How the process logs.
#[derive(Clone, Debug)]
pub struct Log {
    /// A filter as `tracing` reads it.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// Where traces go by OTLP, in a build with the feature `otlp`.
    pub otlp_endpoint: Option<Url>,
}

/// Everything that `serve` needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The address by which browsers reach the engine: scheme, host and port.
    pub public_url: Url,
    /// Rows.
    pub storage: Storage,
    /// The key that opens the key ring.
    pub master_key: Secret,
    /// Texts.
    pub sms: Sms,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// How long a new factor does not count as phishing-resistant, in seconds.
    pub factor_cool_off: i64,
    /// How long connections are still taken by a node that is to end and is not ready any more.
    pub drain: Duration,
    /// A listener of their own for metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// Webhooks may go to http and to addresses that are not public.
    pub webhook_private: bool,
    /// Trial aids are on.
    pub development: bool,
}

/// Between "not ready" and the end of accepting, so that a balancer sees it, where no setting says otherwise.
pub const DRAIN: Duration = Duration::from_millis(500);

impl Config {
    /// The public URL's origin, as browsers write it.
    pub fn origin(&self) -> String {
        self.public_url.origin().ascii_serialization()
    }

    /// The issuer: the public URL without a trailing slash.
    pub fn issuer(&self) -> String {
        self.public_url.as_str().trim_end_matches('/').to_owned()
    }
}
