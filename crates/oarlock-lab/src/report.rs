//! Reading a client's log for people: the checker's findings in words, and the picture.

use crate::client::{RowsArgs, read_rows};
use crate::history::{History, check, gaps_above, refused_spans};
use crate::plot::{Mark, View, draw};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// How far before and after a mark the picture's close-up of it reaches, milliseconds.
const CLOSE_UP_MS: (i64, i64) = (500, 2_000);

/// What to check.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// The client's log.
    #[arg(long)]
    log: PathBuf,
    #[command(flatten)]
    rows: RowsArgs,
    /// Shortest gap between two acknowledgements to list, milliseconds.
    #[arg(long, default_value_t = 100.0)]
    gap_ms: f64,
}

/// Checks a client's log against the rows of its run and prints what it finds. Fails if a row
/// is lost, doubled, unexpected, or refused and present.
pub fn check_log(args: &CheckArgs) -> Result<()> {
    let history = History::read(&args.log)?;
    let verdict = check(&history, &read_rows(&args.rows)?);
    let seconds = |stamp: crate::history::Stamp| stamp.ms_since(history.start.at) / 1_000.0;
    for gap in gaps_above(&history, args.gap_ms) {
        let open = if gap.ended { "" } else { ", not ended" };
        println!("outage at {:.3} s: {:.0} ms{open}", seconds(gap.from), gap.ms());
    }
    for span in refused_spans(&history) {
        let (at, ms) = (seconds(span.from), span.ms());
        println!("refused at {at:.3} s: {ms:.0} ms, {} attempts", span.attempts);
    }
    println!("{verdict}");
    if !verdict.clean() {
        bail!(
            "rows lost {:?}, doubled {:?}, unexpected {:?}, refused but present {:?}",
            verdict.lost,
            verdict.doubled,
            verdict.unexpected,
            verdict.refused_present
        );
    }
    Ok(())
}

/// What to draw.
#[derive(Debug, Clone, clap::Args)]
pub struct PlotArgs {
    /// The client's log.
    #[arg(long)]
    log: PathBuf,
    /// The SVG to write.
    #[arg(long)]
    out: PathBuf,
    /// An event to mark and to show from near, as SECONDS=LABEL, counted from the log's start.
    #[arg(long, value_parser = parse_mark)]
    mark: Vec<(f64, String)>,
}

fn parse_mark(text: &str) -> Result<(f64, String)> {
    let (seconds, label) = text.split_once('=').context("not SECONDS=LABEL")?;
    let seconds: f64 = seconds.parse().with_context(|| format!("seconds {seconds:?}"))?;
    if !seconds.is_finite() {
        bail!("seconds {seconds}: not finite");
    }
    Ok((seconds, label.to_owned()))
}

/// Draws a client's log.
pub fn plot_log(args: &PlotArgs) -> Result<()> {
    let history = History::read(&args.log)?;
    let mark = |(seconds, label): &(f64, String)| Mark {
        at: history.start.at.shifted_ms((seconds * 1_000.0) as i64),
        label: label.clone(),
    };
    let marks: Vec<Mark> = args.mark.iter().map(mark).collect();
    let (before, after) = CLOSE_UP_MS;
    let mut views = vec![View::whole("the whole log", &history)];
    views.extend(marks.iter().map(|m| View::around(&m.label, m.at, before, after)));
    let svg = draw(&history, &marks, &views);
    std::fs::write(&args.out, svg).with_context(|| format!("write {}", args.out.display()))
}
