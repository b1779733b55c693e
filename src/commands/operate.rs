//! Operations beside a running engine: relying parties, API keys, users, the master key.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use countersign::config::Settings;
use countersign::model::{RelyingParty, Scope};
use countersign::{NewParty, Operator};
use serde_json::{Value, json};

use super::{answer, log};

#[derive(Subcommand)]
pub enum MasterKey {
    /// Print a new master key: base64url of 32 random bytes
    Generate,
}

pub fn master_key(command: &MasterKey) -> anyhow::Result<ExitCode> {
    let MasterKey::Generate = command;
    answer(&countersign::new_master_key());
    Ok(ExitCode::SUCCESS)
}

#[derive(Subcommand)]
pub enum Rp {
    /// Make a relying party
    Create {
        /// What people read on pages, in authenticator apps and in texts
        #[arg(long)]
        name: String,
        /// WebAuthn RP ID: a domain, as example.com or localhost
        #[arg(long, value_name = "HOST")]
        rp_id: String,
        /// Origin of its pages, as https://example.com
        #[arg(long, value_name = "URL", required = true, num_args = 1..)]
        origin: Vec<String>,
        /// Address to which hosted pages may return, compared exactly
        #[arg(long, value_name = "URL", num_args = 1..)]
        return_url: Vec<String>,
        /// For trials: its keys begin with sk_test_
        #[arg(long)]
        test: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a relying party other addresses, on running engines at once
    Update {
        /// Its name or id
        #[arg(long, value_name = "NAME")]
        rp: String,
        /// All origins of its pages from now on
        #[arg(long, value_name = "URL", num_args = 1.., required_unless_present = "return_url")]
        origin: Vec<String>,
        /// All addresses to which hosted pages may return from now on
        #[arg(long, value_name = "URL", num_args = 1..)]
        return_url: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List relying parties
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Rp {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let operator = open(settings, matches!(self, Rp::Create { .. })).await?;
        match self {
            Rp::Create { name, rp_id, origin, return_url, test, json } => {
                let new = NewParty { name, host: rp_id, origins: origin, return_urls: return_url, test };
                let rp = operator.create_relying_party(new).await?;
                answer(&if json { party(&rp).to_string() } else { rp.id.to_string() });
            }
            Rp::Update { rp, origin, return_url, json } => {
                let rp = operator.readdress(operator.relying_party(&rp).await?, &origin, &return_url).await?;
                answer(&if json { party(&rp).to_string() } else { rp.id.to_string() });
            }
            Rp::List { json } => {
                let all = operator.relying_parties().await?;
                let line = |rp: &RelyingParty| {
                    format!("{}  {}  {}  {}  {}", rp.id, rp.mode.as_str(), rp.name, rp.host, rp.origins.join(" "))
                };
                print_all(json, all.iter().map(|rp| (party(rp), line(rp))));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn party(rp: &RelyingParty) -> Value {
    json!({
        "id": rp.id, "name": rp.name, "rp_id": rp.host, "mode": rp.mode.as_str(), "origins": rp.origins,
        "return_urls": rp.return_urls, "created_at": rp.created_at.rfc3339(),
    })
}

#[derive(Subcommand)]
pub enum Key {
    /// Make an API key; its secret is printed once
    Create {
        /// Name or id of the relying party
        #[arg(long, value_name = "NAME")]
        rp: String,
        /// What it may do: factors:write, challenges, sessions, users:read, events:read, admin; all but admin if unset
        #[arg(long, value_name = "SCOPE", num_args = 1.., value_delimiter = ',')]
        scope: Vec<String>,
        /// When it ends, as 90d or 12h; never if unset
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List API keys, never their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End an API key, on running engines at once
    Revoke {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
}

impl Key {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let operator = open(settings, false).await?;
        match self {
            Key::Create { rp, scope, expires_in, json } => {
                let scopes = scope.iter().map(|s| Scope::parse(s).with_context(|| format!("--scope: {s} is no scope")));
                let scopes = scopes.collect::<anyhow::Result<Vec<_>>>()?;
                let lifetime = expires_in.as_deref().map(seconds).transpose()?;
                let rp = operator.relying_party(&rp).await?;
                let new = operator.create_key(&rp, scopes, lifetime).await?;
                let object = json!({
                    "id": new.key.id, "secret": new.secret, "rp": rp.id, "scopes": new.key.scopes,
                    "expires_at": new.key.expires_at.map(|t| t.rfc3339()),
                });
                answer(&if json { object.to_string() } else { new.secret });
            }
            Key::List { json } => {
                let (all, now) = (operator.keys().await?, operator.now());
                print_all(json, all.iter().map(|key| {
                    let end = key.revoked_at.or(key.expires_at).map(|t| t.rfc3339());
                    let state = match (key.revoked_at, key.is_live(now)) {
                        (Some(_), _) => "revoked",
                        (None, true) => "live",
                        (None, false) => "expired",
                    };
                    let scopes: Vec<_> = key.scopes.iter().map(|s| s.as_str()).collect();
                    let object = json!({
                        "id": key.id, "rp": key.rp_id, "hint": key.hint, "scopes": key.scopes, "created_at": key.created_at.rfc3339(),
                        "expires_at": key.expires_at.map(|t| t.rfc3339()), "revoked_at": key.revoked_at.map(|t| t.rfc3339()),
                        "last_used_at": key.last_used_at.map(|t| t.rfc3339()),
                    });
                    let line = format!("{}  {}  {}  {state}  {}  {}", key.id, key.rp_id, key.hint, scopes.join(","), end.unwrap_or_else(|| "-".to_owned()));
                    (object, line)
                }));
            }
            Key::Revoke { id } => operator.revoke_key(&id).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Subcommand)]
pub enum User {
    /// Show a user's factors, recovery codes and pauses; never a secret
    Show {
        /// Name or id of the relying party
        #[arg(long, value_name = "NAME")]
        rp: String,
        /// The relying party's name for the person
        user: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End every pause and hold of a user and fill the guess budgets
    Unlock {
        /// Name or id of the relying party
        #[arg(long, value_name = "NAME")]
        rp: String,
        /// The relying party's name for the person
        user: String,
    },
    /// Remove all factors and recovery codes of a user, end the sessions and forget the devices
    Reset {
        /// Name or id of the relying party
        #[arg(long, value_name = "NAME")]
        rp: String,
        /// The relying party's name for the person
        user: String,
    },
}

impl User {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let operator = open(settings, false).await?;
        match self {
            User::Show { rp, user, json } => {
                let rp = operator.relying_party(&rp).await?;
                let state = operator.show_user(&rp, &user).await?;
                let factors: Vec<_> = state.factors.iter().map(|f| json!({
                    "id": f.id, "type": f.kind, "name": f.name, "status": if f.is_active() { "active" } else { "pending" },
                    "created_at": f.created_at.rfc3339(), "last_used_at": f.last_used_at.map(|t| t.rfc3339()),
                })).collect();
                let object = json!({
                    "user_id": user,
                    "display_name": state.user.and_then(|u| u.display_name),
                    "factors": factors,
                    "recovery_codes": {
                        "total": state.recovery.total, "remaining": state.recovery.remaining, "status": state.recovery.status.as_str(),
                    },
                    "paused": state.paused.iter().map(|p| json!({"method": p.method, "until": p.until.rfc3339(), "hold": p.hold})).collect::<Vec<_>>(),
                    "known_devices": state.devices,
                });
                if json {
                    answer(&object.to_string());
                    return Ok(ExitCode::SUCCESS);
                }
                for f in &state.factors {
                    let used = f.last_used_at.map_or_else(|| "never used".to_owned(), |t| format!("last used {t}"));
                    let pending = if f.is_active() { "" } else { " (pending)" };
                    answer(&format!("{}  {}  {}{pending}  {used}", f.id, f.kind.as_str(), f.name));
                }
                answer(&format!(
                    "recovery codes: {} of {} left ({})",
                    state.recovery.remaining,
                    state.recovery.total,
                    state.recovery.status.as_str()
                ));
                answer(&format!("known devices: {}", state.devices));
                for pause in &state.paused {
                    answer(&match pause.hold {
                        true => format!(
                            "on hold: {}, until another factor is right, or unlock or reset",
                            pause.method.as_str()
                        ),
                        false => format!("paused: {} until {}", pause.method.as_str(), pause.until),
                    });
                }
            }
            User::Unlock { rp, user } => {
                let rp = operator.relying_party(&rp).await?;
                let unlocked = operator.unlock_user(&rp, &user).await?;
                let names: Vec<_> = unlocked.iter().map(|k| k.as_str()).collect();
                answer(&if names.is_empty() {
                    "Nothing was counted against this user.".to_owned()
                } else {
                    format!("Unlocked: {}", names.join(", "))
                });
            }
            User::Reset { rp, user } => {
                let rp = operator.relying_party(&rp).await?;
                let gone = operator.reset_user(&rp, &user).await?;
                gone.iter().for_each(|f| answer(&format!("Removed: {}  {}  {}", f.id, f.kind.as_str(), f.name)));
                answer("The user has no factors, recovery codes, sessions or known devices now.");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Subcommand)]
pub enum Policy {
    /// Print the chance of a blind hit per day, per year and until the hold, for 1 to 5 authenticator apps
    Odds {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn policy(command: &Policy) -> anyhow::Result<ExitCode> {
    let Policy::Odds { json } = command;
    let all = countersign::odds();
    if *json {
        let part = |(guesses, chance): (i64, f64)| json!({"guesses": guesses, "chance": chance});
        answer(
            &json!({"odds": all.iter().map(|o| json!({
            "apps": o.apps, "guess": o.guess, "day": part(o.day), "year": part(o.year), "hold": part(o.hold),
        })).collect::<Vec<_>>()})
            .to_string(),
        );
        return Ok(ExitCode::SUCCESS);
    }
    answer(
        "The chance that blind guesses hit a code of an authenticator app, in the worst case, from browsers that never passed.",
    );
    answer(
        "A year: with an owner who succeeds so often that no hold begins. To the hold: between two successes of the owner.\n",
    );
    answer("apps  one guess   a day (guesses)    a year (guesses)    to the hold (guesses)");
    for o in &all {
        let cell = |(guesses, chance): (i64, f64)| format!("{chance:.1e} ({guesses})");
        answer(&format!("{:<5} {:<11.1e} {:<18} {:<19} {}", o.apps, o.guess, cell(o.day), cell(o.year), cell(o.hold)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(settings: &Settings, may_make: bool) -> anyhow::Result<Operator> {
    let _ended_at_once = log::start(&settings.log()?)?;
    Ok(countersign::operator(&settings.storage()?, may_make).await?)
}

/// A JSON array, or a line each.
pub fn print_all(as_json: bool, all: impl Iterator<Item = (Value, String)>) {
    let (objects, lines): (Vec<_>, Vec<_>) = all.unzip();
    if as_json {
        answer(&Value::Array(objects).to_string());
    } else {
        lines.iter().for_each(|line| answer(line));
    }
}

fn seconds(text: &str) -> anyhow::Result<i64> {
    let duration: Duration =
        humantime::parse_duration(text).map_err(|_| anyhow::anyhow!("--expires-in: expected as 90d or 12h"))?;
    let seconds = i64::try_from(duration.as_secs()).ok().filter(|s| (1..=3_153_600_000).contains(s));
    seconds.context("--expires-in: expected from one second to a hundred years")
}
