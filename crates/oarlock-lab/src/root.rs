//! The Debian root that all hosts of a suite share, built once.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Source};
use crate::deadline::{kill_group, wait};
use crate::paths::{Paths, fnv1a, write_atomically};
use crate::state::lock;
use crate::suite::Suite;

const WIDEN: &str = include_str!("../assets/widen-root.sh");
const CONFIGURE: &str = include_str!("../assets/configure-root.sh");
/// How long one step of the build may take on a slow network.
const STEP: Duration = Duration::from_secs(1800);
/// How often a step reports when nobody watches a terminal.
const REPORT: Duration = Duration::from_secs(15);

/// The root of `suite`, built first when there is none or its recipe has changed.
pub fn ensure(paths: &Paths, suite: Suite) -> Result<PathBuf> {
    let dir = paths.roots.join(suite.to_string());
    let root = dir.join("root");
    let stamp = dir.join("stamp");
    let recipe = format!("{:016x}\n", fnv1a(format!("{CONFIGURE}{:?}", suite.packages()).as_bytes()));
    let current = || fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) && root.is_dir();
    if current() {
        return Ok(root);
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let _lock = lock(&dir.join("lock"), STEP)?;
    if current() {
        return Ok(root);
    }
    let started = Instant::now();
    let temporary = dir.join("root.tmp");
    remove(&temporary)?;
    build(suite, &temporary)?;
    remove(&stamp)?;
    remove(&root)?;
    fs::rename(&temporary, &root).context("cannot put the new root in place")?;
    write_atomically(&stamp, &recipe)?;
    eprintln!("{suite} root ready after {} s", started.elapsed().as_secs());
    Ok(root)
}

/// A root of `suite` with nothing in it but the minimal base system, systemd and, if there is one, the
/// package `more`; built first when there is none.
pub fn clean(paths: &Paths, suite: Suite, more: Option<&str>) -> Result<PathBuf> {
    let dir = paths.roots.join(suite.to_string());
    let name = more.map_or_else(|| "clean".to_owned(), |more| format!("clean-{more}"));
    let root = dir.join(&name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let _lock = lock(&dir.join("lock"), STEP)?;
    if root.is_dir() {
        return Ok(root);
    }
    let temporary = dir.join(format!("{name}.tmp"));
    remove(&temporary)?;
    let more = more.map(|more| format!(",{more}")).unwrap_or_default();
    bootstrap(suite, &format!("--include=ca-certificates,systemd{more}"), &temporary)?;
    fs::rename(&temporary, &root).context("cannot put the clean root in place")?;
    Ok(root)
}

/// A layer over the root of `suite` with more packages, built first when there is none, its recipe has
/// changed, or the root is another one. The root itself stays as it is.
pub fn widen(paths: &Paths, suite: Suite, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let dir = paths.roots.join(suite.to_string());
    let (layer, stamp) = (dir.join(name), dir.join(format!("{name}.stamp")));
    let below = fs::read_to_string(dir.join("stamp")).context("the root has no stamp")?;
    let recipe = format!("{:016x}\n", fnv1a(format!("{below}{WIDEN}{packages:?}").as_bytes()));
    let current = || fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) && layer.is_dir();
    if current() {
        return Ok(layer);
    }
    let _lock = lock(&dir.join("lock"), STEP)?;
    if current() {
        return Ok(layer);
    }
    let (temporary, work, merged) = (dir.join(format!("{name}.tmp")), dir.join("work"), dir.join("merged"));
    for path in [&temporary, &work, &merged] {
        remove(path)?;
        fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    let mut install = Command::new("unshare");
    install.args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]);
    install.args(["sh", "-c", WIDEN, "widen-root"]);
    install.arg(dir.join("root")).args([&temporary, &work, &merged]).args(packages);
    step(&format!("more packages of the lab hosts ({name})"), &mut install)?;
    remove(&stamp)?;
    for path in [&layer, &work, &merged] {
        remove(path)?;
    }
    fs::rename(&temporary, &layer).context("cannot put the new layer in place")?;
    write_atomically(&stamp, &recipe)?;
    Ok(layer)
}

fn build(suite: Suite, root: &Path) -> Result<()> {
    let sources = bootstrap(suite, "--include=ca-certificates", root)?;
    prepare(root, &sources)?;
    let mut configure = Command::new("unshare");
    configure.args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]);
    configure.arg(format!("--mount-proc={}", root.join("proc").display()));
    configure.arg("chroot").arg(root).args(["/bin/sh", "-c", CONFIGURE, "configure-root"]);
    configure.args(suite.packages());
    step("packages of the lab hosts", &mut configure)?;
    fs::write(root.join("etc/resolv.conf"), "").context("cannot empty resolv.conf")
}

/// The minimal base system and what `include` names; returns the archives of the suite.
fn bootstrap(suite: Suite, include: &str, root: &Path) -> Result<Vec<Source>> {
    let sources = apt::sources(suite)?;
    let base = sources.first().context("no archive")?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", include]);
    debootstrap.arg(format!("--keyring={}", base.keyring.display()));
    debootstrap.arg(suite.to_string()).arg(root).arg(&base.uri);
    step(&format!("Debian {suite} base system"), &mut debootstrap)?;
    Ok(sources)
}

/// Lets the root's own apt reach what the machine's apt reaches.
fn prepare(root: &Path, sources: &[Source]) -> Result<()> {
    let lines: String = sources.iter().map(|source| source.line() + "\n").collect();
    fs::write(root.join("etc/apt/sources.list"), lines)?;
    fs::write(root.join("etc/apt/apt.conf.d/90lab"), apt::settings()?)?;
    for source in sources {
        let keyring = root.join(source.keyring.strip_prefix("/").unwrap_or(&source.keyring));
        if let Some(dir) = keyring.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::copy(&source.keyring, &keyring)
            .with_context(|| format!("cannot copy the keyring {}", source.keyring.display()))?;
    }
    for file in ["etc/resolv.conf", "etc/hosts"] {
        fs::copy(Path::new("/").join(file), root.join(file)).with_context(|| format!("cannot copy /{file}"))?;
    }
    Ok(())
}

/// Removes a file or a directory with all in it; none is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Runs one step of the build, showing that it moves.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    let terminal = std::io::stderr().is_terminal();
    if !terminal {
        eprintln!("{title} …");
    }
    let started = Instant::now();
    let (log, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    // Our copies of the writing end would keep the pipe open after the child's end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let tail = follow(log, title, terminal, started);
    if terminal {
        eprint!("\r\x1b[K");
    }
    match wait(&mut child, STEP.saturating_sub(started.elapsed()))? {
        Some(status) if status.success() => {
            eprintln!("{title}: {} s", started.elapsed().as_secs());
            Ok(())
        }
        Some(status) => bail!("{title} failed ({status}):\n{}", tail.join("\n")),
        None => {
            kill_group(&mut child);
            bail!("{title} did not end within {} s", STEP.as_secs())
        }
    }
}

/// Shows the step's output as it comes; returns its last lines when it ends or is too late.
fn follow(log: impl std::io::Read + Send + 'static, title: &str, terminal: bool, started: Instant) -> Vec<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let mut tail: Vec<String> = Vec::new();
    let mut reported = started;
    while started.elapsed() < STEP {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => {
                tail.push(line);
                if tail.len() > 20 {
                    tail.remove(0);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let last = tail.last().map_or("", String::as_str);
        let shown: String = last.chars().take(60).collect();
        let elapsed = started.elapsed().as_secs();
        if terminal {
            eprint!("\r\x1b[K{title}: {elapsed} s  {shown}");
            let _ = std::io::stderr().flush();
        } else if reported.elapsed() >= REPORT {
            reported = Instant::now();
            eprintln!("  {elapsed} s  {shown}");
        }
    }
    tail
}
