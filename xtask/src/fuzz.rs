//! `cargo xtask fuzz`: bytes that nobody meant, for every decoder, guided by what a run covers.
//!
//! libFuzzer works with the stable compiler when the code is made to count what it passes. Only the
//! crates of this workspace are built so, through a wrapper of the compiler (this program again), so
//! that everything they depend on is shared with the ordinary build.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Tells this program that it is called in place of the compiler.
const WRAPPER: &str = "OARLOCK_FUZZ_WRAPPER";
/// What makes the code count.
const FLAGS: [&str; 5] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table -sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// What a run finds stays here, so that the next goes on from it.
const HOME: &str = "target/fuzz";
/// The few inputs that are kept with the source.
const SEEDS: &str = "crates/oarlock-fuzz/corpus";
/// A run that does not end by itself is ended this long after it should have.
const GRACE: Duration = Duration::from_secs(30);
/// One input may not take longer, in seconds.
const SLOWEST_S: u32 = 5;

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How long each target runs, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only this target
    #[arg(long)]
    target: Option<String>,
    /// Show the targets and how long each has run so far
    #[arg(long)]
    list: bool,
    /// Keep in the source the smallest inputs that reach what all those found so far reach
    #[arg(long)]
    keep: bool,
}

/// Stands in for the compiler when cargo calls this program as its wrapper; else gives `None`.
pub fn wrapped() -> Option<ExitCode> {
    std::env::var_os(WRAPPER)?;
    let mut arguments = std::env::args_os().skip(1);
    let compiler = arguments.next()?;
    let arguments: Vec<OsString> = arguments.collect();
    let named = arguments.iter().position(|argument| argument == "--crate-name");
    let name = named.and_then(|at| arguments.get(at + 1)).and_then(|name| name.to_str());
    // Neither questions to the compiler nor build scripts have anything to count.
    let counts = name.is_some_and(|name| !name.starts_with("build_script"));
    let flags: &[&str] = if counts { &FLAGS } else { &[] };
    let error = Command::new(compiler).args(arguments).args(flags).exec();
    eprintln!("cannot start the compiler: {error}");
    Some(ExitCode::FAILURE)
}

/// Fuzzes; the verdict is whether nothing was found.
///
/// # Errors
/// When the targets cannot be built or started.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let mut names = targets()?;
    if let Some(only) = &arguments.target {
        names.retain(|name| name == only);
        if names.is_empty() {
            bail!("no target \"{only}\"\nhint: cargo xtask fuzz --list");
        }
    }
    let mut spent = spent()?;
    if arguments.list {
        for name in &names {
            println!("{name:<16} {:>6.1} minutes", minutes(&spent, name));
        }
        return Ok(true);
    }
    let program = build()?;
    let mut good = true;
    for name in &names {
        if arguments.keep {
            keep(&program, name)?;
            continue;
        }
        let start = Instant::now();
        let fine = fuzz(&program, name, arguments.seconds)?;
        *spent.entry(name.clone()).or_default() += start.elapsed().as_secs();
        save(&spent)?;
        good &= fine;
    }
    Ok(good)
}

/// Every target has a directory of seeds.
fn targets() -> Result<Vec<String>> {
    let entries = fs::read_dir(SEEDS).with_context(|| format!("cannot read {SEEDS}"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let itself = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(cargo);
    command.env("CARGO_INCREMENTAL", "0");
    command.args(["build", "--quiet", "--release", "--package", "oarlock-fuzz", "--features", "libfuzzer"]);
    // No deadline: who started it may stop it.
    let status = command.env("RUSTC_WORKSPACE_WRAPPER", itself).env(WRAPPER, "1").status();
    if !status.context("cannot start cargo")?.success() {
        bail!("cannot build the targets\nhint: libFuzzer needs a C++ compiler (apt install g++)");
    }
    let program = Path::new(HOME).join("oarlock-fuzz");
    fs::create_dir_all(HOME)?;
    // An ordinary build would replace it while it runs.
    let _ = fs::remove_file(&program);
    fs::copy("target/release/oarlock-fuzz", &program).context("cannot copy the program")?;
    Ok(program)
}

fn fuzz(program: &Path, name: &str, seconds: u64) -> Result<bool> {
    let corpus = Path::new(HOME).join("corpus").join(name);
    let found = Path::new(HOME).join("found");
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    let log = Path::new(HOME).join(format!("{name}.log"));
    let mut child = Command::new(program)
        .env("OARLOCK_FUZZ_TARGET", name)
        .args([corpus.as_os_str(), Path::new(SEEDS).join(name).as_os_str()])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={SLOWEST_S}"))
        .arg(format!("-artifact_prefix={}/{name}-", found.display()))
        .args(["-rss_limit_mb=1024", "-print_final_stats=1", "-close_fd_mask=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()
        .context("cannot start the target")?;
    let deadline = Instant::now() + Duration::from_secs(seconds) + GRACE;
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break status.success();
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break false;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let stat = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("?").trim().to_owned();
    let (runs, rate) = (stat("stat::number_of_executed_units:"), stat("stat::average_exec_per_sec:"));
    if ended {
        println!("ok: {name}, {seconds} s, {runs} inputs, {rate} a second");
    } else {
        let end = said.lines().filter(|line| !line.starts_with("stat::") && !line.starts_with('#'));
        end.collect::<Vec<_>>().iter().rev().take(15).rev().for_each(|line| println!("  {line}"));
        println!("FAILED: {name}; the whole output: {}", log.display());
    }
    Ok(ended)
}

/// Replaces the seeds of a target by the least that reaches as much.
fn keep(program: &Path, name: &str) -> Result<()> {
    let (seeds, fresh) = (Path::new(SEEDS).join(name), Path::new(HOME).join("kept").join(name));
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh)?;
    let corpus = Path::new(HOME).join("corpus").join(name);
    let status = Command::new(program)
        .env("OARLOCK_FUZZ_TARGET", name)
        .args(["-merge=1", "-max_len=600"])
        .args([&fresh, &seeds, &corpus])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    println!("{name}: {} inputs in {} ({status})", fs::read_dir(&fresh)?.count(), fresh.display());
    Ok(())
}

fn spent() -> Result<BTreeMap<String, u64>> {
    let path = Path::new(HOME).join("seconds");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let line =
        |line: &str| line.split_once(' ').and_then(|(name, seconds)| Some((name.to_owned(), seconds.parse().ok()?)));
    Ok(text.lines().filter_map(line).collect())
}

fn save(spent: &BTreeMap<String, u64>) -> Result<()> {
    let text: String = spent.iter().map(|(name, seconds)| format!("{name} {seconds}\n")).collect();
    fs::write(Path::new(HOME).join("seconds"), text).context("cannot note the time spent")
}

fn minutes(spent: &BTreeMap<String, u64>, name: &str) -> f64 {
    spent.get(name).map_or(0.0, |seconds| *seconds as f64 / 60.0)
}
