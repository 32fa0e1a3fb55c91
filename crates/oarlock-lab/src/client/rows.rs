//! The client's table, and what it holds in the end.

use super::session::{Session, Target};
use crate::history::Rows;
use anyhow::{Context, Result, anyhow, bail};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The table has no unique index on purpose: a row written twice must be able to show.
const CREATE: &str = "CREATE SCHEMA IF NOT EXISTS bench; \
    CREATE TABLE IF NOT EXISTS bench.rows \
    (run text NOT NULL, id bigint NOT NULL, writer integer NOT NULL, sent_us bigint NOT NULL)";

/// Which rows to read.
#[derive(Debug, Clone, clap::Args)]
pub struct RowsArgs {
    #[command(flatten)]
    target: Target,
    /// The run whose rows are read.
    #[arg(long)]
    run: String,
}

/// Creates the client's table if it is missing, trying again until `within` has passed.
pub async fn create_table(target: &Target, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let error = match try_create(target).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            let what = format!("create the table bench.rows within {} ms", within.as_millis());
            return Err(error.context(what));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn try_create(target: &Target) -> Result<()> {
    let mut session = Session::open(target).await?;
    let created = session.run(CREATE).await;
    created.map(drop).map_err(|failure| anyhow!(failure.reason))
}

/// Reads how often each id of a run stands in the table, within the statement deadline.
pub async fn fetch_rows(target: &Target, run: &str) -> Result<Rows> {
    let mut session = Session::open(target).await?;
    let run = run.replace('\'', "''");
    let sql = format!("SELECT id, count(*) FROM bench.rows WHERE run = '{run}' GROUP BY id");
    let answer = session.run(&sql).await;
    let answer = answer.map_err(|failure| anyhow!(failure.reason).context("read bench.rows"))?;
    let mut rows = Rows::new();
    for row in answer.rows {
        let [Some(id), Some(count)] = &row[..] else {
            bail!("bench.rows holds a row without an id");
        };
        let id = id.parse().with_context(|| format!("row id {id:?}"))?;
        let count = count.parse().with_context(|| format!("count {count:?}"))?;
        rows.insert(id, count);
    }
    Ok(rows)
}

/// Reads the rows of a run, as [`fetch_rows`] does, for a caller without a runtime.
pub fn read_rows(args: &RowsArgs) -> Result<Rows> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let rows = runtime.block_on(fetch_rows(&args.target, &args.run));
    // As for the client: a name look-up that hangs must not keep us.
    runtime.shutdown_background();
    rows
}

/// Prints the rows of a run as JSON, from each id to how often it stands there, so that a
/// checker outside the host can read them.
pub fn print_rows(args: &RowsArgs) -> Result<()> {
    let rows = read_rows(args)?;
    let text = serde_json::to_string(&rows).context("encode the rows")?;
    println!("{text}");
    Ok(())
}
