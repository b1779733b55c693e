//! `countersign keys`: the key ring and the signing keys, beside running engines.

use std::process::ExitCode;

use clap::Subcommand;
use countersign::config::Settings;
use serde_json::json;

use super::operate::print_all;
use super::{answer, log, say};

#[derive(Subcommand)]
pub enum Keys {
    /// List the keys; never a key itself
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put a new key in an old one's place
    #[command(subcommand)]
    Rotate(Rotate),
}

#[derive(Subcommand)]
pub enum Rotate {
    /// A new data key: everything that is sealed is sealed anew, or an earlier run is finished
    Data {
        /// At the end remove older data keys that nothing needs any more
        #[arg(long)]
        remove_old: bool,
    },
    /// The key ring under COUNTERSIGN_NEW_MASTER_KEY; then start the engines with it
    Master,
    /// A new pepper for recovery codes that are made from now on
    Pepper,
    /// A new signing key, published now and used later
    Signing,
}

impl Keys {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let _log = log::start(&settings.log()?)?;
        let new_master_key = match &self {
            Keys::Rotate(Rotate::Master) => Some(settings.new_master_key()?),
            _ => None,
        };
        let custodian = countersign::custodian(&settings.storage()?, &settings.master_key()?).await?;
        match self {
            Keys::List { json } => print_all(
                json,
                custodian.keys().await?.iter().map(|key| {
                    let time = |time: Option<countersign::model::Timestamp>| time.map(|t| t.rfc3339());
                    let object = json!({
                        "purpose": key.purpose, "id": key.id, "state": key.state, "active_from": time(key.active_from),
                        "retired_at": time(key.retired_at), "uses": key.uses,
                    });
                    let from = time(key.active_from).map(|t| format!("  from {t}")).unwrap_or_default();
                    let until = time(key.retired_at).map(|t| format!("  until {t}")).unwrap_or_default();
                    let uses = key.uses.map(|n| format!("  used by {n}")).unwrap_or_default();
                    (object, format!("{:<8} {}  {}{from}{until}{uses}", key.purpose, key.id, key.state))
                }),
            ),
            Keys::Rotate(Rotate::Data { remove_old }) => {
                let done = custodian.rotate_data(remove_old, &say).await?;
                for row in &done.closed {
                    say(&format!("does not open, left as it is: {row}"));
                }
                answer(&format!("{} values sealed anew, {} that do not open", done.values, done.closed.len()));
                if !done.closed.is_empty() {
                    return Ok(ExitCode::FAILURE);
                }
            }
            Keys::Rotate(Rotate::Master) => {
                countersign::rotate_master(&custodian, &new_master_key.expect("read above for this command")).await?;
                answer(
                    "The key ring is under the new master key. Start every engine with it before any other rotation.",
                );
            }
            Keys::Rotate(Rotate::Pepper) => {
                let id = custodian.rotate_pepper().await?;
                answer(&format!("Pepper {id} is published. Older recovery codes stay valid until they are replaced."));
            }
            Keys::Rotate(Rotate::Signing) => {
                let (kid, from, end) = custodian.rotate_signing().await?;
                answer(&format!(
                    "{kid} is published. It signs from {from}; the key before it is published until {end}."
                ));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
