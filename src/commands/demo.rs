//! `countersign demo`: everything at once on this machine, without settings.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use countersign::config::Settings;

use super::serve::told_to_end;
use super::{log, say};

/// Run engine, demo application and test inbox.
#[derive(clap::Args)]
pub struct Demo {
    /// Loopback address to listen on
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Folder for the database and the master key, made on first use
    #[arg(long, default_value = "./countersign-data", value_name = "FOLDER")]
    data: PathBuf,
    /// Serve the demo application on this loopback address too, as another origin
    #[arg(long, value_name = "ADDRESS")]
    second: Option<SocketAddr>,
}

impl Demo {
    pub async fn run(self, settings: Settings) -> anyhow::Result<ExitCode> {
        let log = log::start(&settings.or_default("log", "warn").log()?)?;
        let options = countersign::DemoOptions { listen: self.listen, data: self.data.clone(), second: self.second };
        let running = countersign::run_demo(options).await?;
        say(&format!("countersign demo: open http://localhost:{}/demo", running.address.port()));
        say(&format!(
            "Data and master key are in {}. Demo only: test keys, no real texts. Ctrl-C ends it.",
            self.data.display()
        ));
        told_to_end().await?;
        running.stop().await;
        log.end();
        Ok(ExitCode::SUCCESS)
    }
}
