//! The `oarlock` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    oarlock::cli::main(std::env::args_os().collect(), |_options| {
        eprintln!("error: this build has no agent");
        ExitCode::from(5)
    })
}
