//! The database as a whole: moved, backed up, restored.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use countersign::config::{Database, Settings};

use super::{answer, log, say};

/// Copy every row of one database into another that is empty.
#[derive(clap::Args)]
pub struct Move {
    /// Where the rows are, as sqlite:PATH or postgres://…; no engine may run on it
    #[arg(long, value_name = "URL")]
    from: String,
    /// Where they shall be; its schema is made
    #[arg(long, value_name = "URL")]
    to: String,
}

impl Move {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let _log = log::start(&settings.log()?)?;
        let read = |name: &str, url: &str| {
            Database::parse(url).with_context(|| format!("{name}: expected sqlite:PATH or postgres://USER@HOST/NAME"))
        };
        let (from, to) = (read("--from", &self.from)?, read("--to", &self.to)?);
        let moved = countersign::move_rows(&from, &to).await?;
        moved.iter().for_each(|(table, rows)| answer(&format!("{rows:>10}  {table}")));
        say("Every row is there. Start engines on the new database with the same master key, and none on the old one.");
        Ok(ExitCode::SUCCESS)
    }
}

/// Copy the SQLite file while it is served.
#[derive(clap::Args)]
pub struct Backup {
    /// The copy to be made
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Backup {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let _log = log::start(&settings.log()?)?;
        countersign::backup(&settings.storage()?, &self.file).await?;
        say(&format!("The backup is in {}.", self.file.display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// Put a backup in the SQLite file's place; what was used since does not come back.
#[derive(clap::Args)]
pub struct Restore {
    /// The backup; none on PostgreSQL, after its own tools have put a backup in place
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Restore {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let _log = log::start(&settings.log()?)?;
        let restored = countersign::restore(&settings.storage()?, self.file.as_deref()).await?;
        if let Some(aside) = &restored.aside {
            say(&format!("The former database is in {}.", aside.display()));
        }
        match restored.notes {
            Some(notes) => {
                say(&format!("Carried over from the journal: {notes} notes of what was used up or taken back."))
            }
            None => say(&format!(
                "No journal reaches back to this backup. Retired sets of recovery codes: {}. Factors that were removed and API \
                 keys that were revoked after the backup are there again: see docs/operations.md.",
                restored.retired
            )),
        }
        say("Open challenges, enrolments and sessions have ended.");
        Ok(ExitCode::SUCCESS)
    }
}
