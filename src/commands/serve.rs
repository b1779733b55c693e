//! `countersign serve`: the engine, until it is told to end.

use std::process::ExitCode;

use countersign::Parts;
use countersign::config::Settings;
use tokio::signal::unix::{SignalKind, signal};

use super::{log, say};

/// Run the engine.
#[derive(clap::Args)]
pub struct Serve {
    /// Bring a PostgreSQL schema up to date first (SQLite always is)
    #[arg(long)]
    migrate: bool,
}

impl Serve {
    pub async fn run(self, settings: Settings) -> anyhow::Result<ExitCode> {
        let log = log::start(&settings.log()?)?;
        let config = settings.serve()?;
        let mut end = std::pin::pin!(told_to_end());
        // It may wait long for its database, and is told to end then too.
        let running = tokio::select! {
            running = countersign::run(&config, Parts { migrate: self.migrate, ..Parts::new(&config) }) => running?,
            told = &mut end => return told.map(|()| ExitCode::SUCCESS),
        };
        say(&format!("countersign serves {} on {}", config.issuer(), running.address));
        end.await?;
        say("countersign ends");
        running.stop().await;
        log.end();
        Ok(ExitCode::SUCCESS)
    }
}

/// SIGTERM or Ctrl-C.
pub async fn told_to_end() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
