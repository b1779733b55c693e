//! The command line: what each command needs, and what it prints. The answer goes to stdout, everything else to stderr.

mod audit;
mod data;
mod demo;
mod doctor;
mod keys;
mod log;
mod operate;
mod serve;

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use countersign::config::{ENVIRONMENT, Settings, environment};

/// A second factor beside any login: TOTP, passkeys, SMS codes and recovery codes, and the step-up session that they earn.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = after_help())]
pub struct Arguments {
    /// Settings in TOML; the environment wins over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run engine, demo application and test inbox on http://localhost:8080; needs no settings
    Demo(demo::Demo),
    /// Run the engine
    Serve(serve::Serve),
    /// Bring the database's schema up to date
    Migrate,
    /// Relying parties: the applications that call the engine
    #[command(subcommand)]
    Rp(operate::Rp),
    /// API keys of relying parties
    #[command(subcommand)]
    Key(operate::Key),
    /// The key that opens the key ring
    #[command(subcommand)]
    MasterKey(operate::MasterKey),
    /// The keys in the database, under the master key
    #[command(subcommand)]
    Keys(keys::Keys),
    /// The audit chain
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Users, for support
    #[command(subcommand)]
    User(operate::User),
    /// What the engine's rules come to
    #[command(subcommand)]
    Policy(operate::Policy),
    /// Copy every row of one database into another that is empty
    Move(data::Move),
    /// Copy the SQLite file while it is served
    Backup(data::Backup),
    /// Put a backup in the SQLite file's place; what was used since does not come back
    Restore(data::Restore),
    /// Check the settings, the database and the keys
    Doctor(doctor::Doctor),
}

impl Arguments {
    /// Reads the command line. A file is refused where nothing is read from it: whoever names one believes that it counts.
    pub fn read() -> Arguments {
        let arguments = Arguments::parse();
        let reads_none = matches!(arguments.command, Command::Demo(_) | Command::MasterKey(_) | Command::Policy(_));
        if reads_none && arguments.config.is_some() {
            let word = "--config: this command reads no settings from a file";
            Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, word).exit();
        }
        arguments
    }
}

/// Runs one command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let file = arguments.config;
    match arguments.command {
        Command::MasterKey(command) => operate::master_key(&command),
        Command::Policy(command) => operate::policy(&command),
        Command::Demo(command) => command.run(Settings::of_demo(environment()?)?).await,
        Command::Serve(command) => command.run(read(file)?).await,
        Command::Migrate => {
            let settings = read(file)?;
            let log = log::start(&settings.log()?)?;
            countersign::migrate(&settings.storage()?).await?;
            log.end();
            say("The schema is up to date.");
            Ok(ExitCode::SUCCESS)
        }
        Command::Rp(command) => command.run(&read(file)?).await,
        Command::Key(command) => command.run(&read(file)?).await,
        Command::Keys(command) => command.run(&read(file)?).await,
        Command::Audit(command) => command.run(&read(file)?).await,
        Command::User(command) => command.run(&read(file)?).await,
        Command::Move(command) => command.run(&read(file)?).await,
        Command::Backup(command) => command.run(&read(file)?).await,
        Command::Restore(command) => command.run(&read(file)?).await,
        Command::Doctor(command) => command.run(file).await,
    }
}

fn read(file: Option<PathBuf>) -> anyhow::Result<Settings> {
    Ok(Settings::read(file.as_deref(), environment()?)?)
}

/// The answer of a command; whoever reads it may have enough before its end.
pub fn answer(text: &str) {
    let written = writeln!(std::io::stdout(), "{text}");
    if let Some(error) = written.err().filter(|error| error.kind() != ErrorKind::BrokenPipe) {
        say(&format!("The answer could not be written: {error}"));
        std::process::exit(1);
    }
}

/// A word to the person at the terminal: stderr carries everything but the answer. Where nobody can read it, what is done goes on.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn after_help() -> String {
    let mut text = String::from("Settings, from the environment or by the same name in the file:\n");
    for setting in ENVIRONMENT {
        let also = if setting.secret { " (or _FILE, _COMMAND)" } else { "" };
        text.push_str(&format!("  {}{also}\n      {}\n", setting.env, setting.about));
    }
    text.push_str("\nStart with: countersign demo");
    text
}
