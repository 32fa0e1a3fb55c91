//! The writing client: what an application with one connection and sensible deadlines sees.
//!
//! It writes rows, each its own autocommitted INSERT of an id never used before, and logs every
//! attempt. It trusts nothing but its own clock: every connect and every statement has a
//! deadline here, because libraries round theirs or leave them out.

mod idle;
mod log;
mod mariadb;
mod postgresql;
mod reader;
mod rows;
mod session;
mod writer;

pub use rows::{RowsArgs, create_table, fetch_rows, print_rows, read_rows};
pub use session::{Answer, Session, Target};

use crate::history::{Line, Stamp, Start};
use anyhow::{Context, Result};
use log::Log;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How the client behaves.
#[derive(Debug, Clone, clap::Args)]
pub struct ClientArgs {
    #[command(flatten)]
    target: Target,
    /// Tells this client's rows from those of other runs; made from the time if absent.
    #[arg(long)]
    run: Option<String>,
    /// How many writers, each with a connection of its own.
    #[arg(long, default_value_t = 1)]
    writers: u32,
    /// How many readers, each with a connection of its own.
    #[arg(long, default_value_t = 0)]
    readers: u32,
    /// One more reader for each of these servers, asked by name, whatever it is: standby or not.
    #[arg(long)]
    reader_host: Vec<String>,
    /// Time between the beginnings of two of a writer's attempts, in milliseconds.
    #[arg(long, default_value_t = 10)]
    interval_ms: u64,
    /// Longest time between the beginnings of a failed attempt and the next, in milliseconds;
    /// an attempt that took longer is followed at once.
    #[arg(long, default_value_t = 20)]
    retry_ms: u64,
    /// Idle connections to hold, which log when they notice a loss.
    #[arg(long, default_value_t = 0)]
    connections: u32,
    /// The log, appended to; `-` is standard output.
    #[arg(long, default_value = "-")]
    log: PathBuf,
    /// Stop after this many milliseconds; without it, on SIGTERM or SIGINT.
    #[arg(long)]
    duration_ms: Option<u64>,
    /// Create the table first, trying for so many milliseconds until the service answers.
    #[arg(long)]
    create_within_ms: Option<u64>,
}

/// Runs the client until its time is up or it is told to stop.
///
/// Only what the client itself needs can fail it (its log, its table where it shall create it):
/// a service that refuses or hangs is what it is there to record.
pub fn run(args: &ClientArgs) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the client's runtime")?;
    let done = runtime.block_on(run_until_stopped(args));
    // A name look-up that hangs sits in a thread that nothing can cancel; it must not keep us.
    runtime.shutdown_background();
    done
}

async fn run_until_stopped(args: &ClientArgs) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    if let Some(within_ms) = args.create_within_ms {
        create_table(&args.target, Duration::from_millis(within_ms)).await?;
    }
    let log = Log::open(&args.log)?;
    let at = Stamp::now();
    let run = args.run.clone().unwrap_or_else(|| format!("run-{}", at.wall_us));
    log.write(&Line::Start(Start { run: run.clone(), host: args.target.host.clone(), writers: args.writers, at }))?;
    let (stop, stopped) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..args.writers {
        let pace = writer::Pace {
            interval: Duration::from_millis(args.interval_ms),
            retry: Duration::from_millis(args.retry_ms.min(args.interval_ms)),
        };
        let writer = writer::Writer::new(number, &run, args.target.clone(), pace, log.clone());
        tasks.spawn(writer.run(stopped.clone()));
    }
    for reader in readers(args, &run) {
        tasks.spawn(reader::read(reader, log.clone(), stopped.clone()));
    }
    for number in 0..args.connections {
        tasks.spawn(idle::hold(number, args.target.clone(), log.clone(), stopped.clone()));
    }
    drop(stopped);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = elapsed(args.duration_ms) => {}
        // A task ends by itself only if it could not write its log.
        Some(ended) = tasks.join_next() => return ended.context("a task of the client ended")?,
    }
    // Every task ends within one connect and one statement, each under its deadline.
    stop.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the client ended")??;
    }
    log.write(&Line::End { at: Stamp::now() })
}

/// Those of the service, then those of the servers that are asked by name.
fn readers(args: &ClientArgs, run: &str) -> Vec<reader::Reader> {
    let hosts = (0..args.readers).map(|_| None).chain(args.reader_host.iter().map(Some));
    let reader = |(number, host): (u32, Option<&String>)| {
        let by_name = host.is_some();
        let target = Target { host: host.unwrap_or(&args.target.host).clone(), ..args.target.clone() };
        reader::Reader { number, run: run.to_owned(), target, by_name }
    };
    (0..).zip(hosts).map(reader).collect()
}

async fn elapsed(duration_ms: Option<u64>) {
    match duration_ms {
        Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        None => std::future::pending().await,
    }
}
