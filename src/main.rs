//! The commands. Errors become words here, and nowhere else.

mod commands;

use std::process::ExitCode;

use clap::Parser;

/// The system's own allocator takes more of a verification's CPU (decision 32).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = commands::Arguments::parse();
    match commands::run(arguments).await {
        Ok(code) => code,
        Err(error) => {
            commands::say(&format!("countersign: {error}"));
            ExitCode::FAILURE
        }
    }
}
