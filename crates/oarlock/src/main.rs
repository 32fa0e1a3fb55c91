//! The `oarlock` command.

use oarlock::causes::with_causes;
use oarlock::cli::AgentOptions;
use oarlock::runtime::Ended;
use oarlock::{cli, process, runtime, sentinel};
use std::process::ExitCode;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Exit codes of an agent that could not start; see `oarlock help`.
const INTERNAL: u8 = cli::Code::Internal as u8;
const USAGE: u8 = cli::Code::Usage as u8;

fn main() -> ExitCode {
    // Sentinel and agent start each other as /proc/self/exe; people look for the program's name.
    let _ = rustix::thread::set_name(c"oarlock");
    cli::main(std::env::args_os().collect(), |options| match options.under_sentinel {
        None => guard(&options),
        Some(socket) => serve(&options, socket),
    })
}

/// The parent: holds the deadline, starts and ends what is exclusive.
fn guard(options: &AgentOptions) -> ExitCode {
    let own = sentinel::Options {
        state_dir: options.run_dir.clone(),
        ..sentinel::Options::new(std::env::args_os().collect())
    };
    match sentinel::run(&own) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            ExitCode::from(INTERNAL)
        }
    }
}

/// The child: decides.
fn serve(options: &AgentOptions, socket: i32) -> ExitCode {
    // Targets and levels only ("info", "info,oarlock::transport=debug"): patterns would bring in an
    // engine for regular expressions that outweighs the sentinel.
    let wanted = std::env::var("OARLOCK_LOG").ok().and_then(|filter| filter.parse().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    if let Err(error) = process::realtime::lock_on_fault() {
        tracing::warn!(%error, "memory is not locked");
    }
    if let Err(error) = process::realtime::request_fifo(process::realtime::AGENT_PRIORITY) {
        tracing::warn!(%error, "no real-time scheduling");
    }
    match run(options, socket) {
        // The sentinel starts another.
        Ok(Ended::Restart) => return ExitCode::SUCCESS,
        Ok(Ended::SentinelGone) => {
            let error = sentinel::become_sentinel();
            tracing::error!(%error, "cannot become the sentinel");
        }
        Err(error) => {
            tracing::error!("{error:#}");
            if error.is::<runtime::Misconfigured>() {
                return ExitCode::from(USAGE);
            }
        }
    }
    ExitCode::from(INTERNAL)
}

fn run(options: &AgentOptions, socket: i32) -> anyhow::Result<Ended> {
    let socket = process::inherited(socket)?;
    let open = socket.try_clone()?;
    // An agent whose socket closes is killed at once; one that failed has yet to say its exit code.
    runtime::run(options, socket).inspect_err(|_| std::mem::forget(open))
}
