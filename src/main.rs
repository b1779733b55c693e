//! The commands. Errors become words here, and nowhere else.

mod commands;

use std::process::ExitCode;
use std::time::Duration;

/// The system's own allocator takes more of a verification's CPU (decision 32).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long what blocks a thread, such as the look-up of a name, is waited for at the end.
const LAST_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = commands::Arguments::read();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let code = runtime.block_on(commands::run(arguments)).unwrap_or_else(|error| failed(&error));
    runtime.shutdown_timeout(LAST_WAIT);
    code
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    commands::say(&format!("countersign: {error}"));
    ExitCode::FAILURE
}
