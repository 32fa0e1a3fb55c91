//! `cargo xtask dist`: the packages, and what happens to a machine that gets them.
//!
//! `dpkg-deb` and `rpmbuild` pack a tree that is made here: both are in Debian, and a package of one program
//! needs nothing of what debhelper or cargo's packagers do beside.

mod check;
mod deb;
mod needs;
mod notices;
mod program;
mod rpm;
mod tree;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use oarlock_lab::apt;
use oarlock_lab::paths::Paths;

use needs::Needs;
use program::Program;

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Revision of the packages, beside the program's version
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    revision: u32,
    /// Install, upgrade, remove and purge them in clean Debian 12 and 13 roots as well
    #[arg(long)]
    check: bool,
    /// Deploy the deb onto machines that run OAR and its database, let one die, and undeploy
    #[arg(long)]
    deploy: bool,
    /// Pack the release build, which takes less time to make and is larger
    #[arg(long)]
    quick: bool,
}

/// One set of packages.
struct Packages {
    deb: PathBuf,
    rpm: PathBuf,
}

/// What packages are made of, and where.
struct Job {
    paths: Paths,
    /// Directory of the packages.
    out: PathBuf,
    program: Program,
    needs: Needs,
    /// Time of the last commit, in seconds since 1970: the same source makes the same package.
    date_s: u64,
}

/// Makes the packages, and checks them.
///
/// # Errors
/// When something cannot be made, or is not as it must be.
pub fn run(arguments: &Arguments) -> Result<()> {
    let paths = Paths::find()?;
    apt::ensure_packagers()?;
    let out = if arguments.quick { paths.target.join("dist/quick") } else { paths.target.join("dist") };
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let program = Program::build(&paths, &out, arguments.quick)?;
    let needs = timed("libraries", || Needs::of(&program.file))?;
    println!("   {needs}");
    let date_s = program::date_s(&paths)?;
    let job = Job { paths, out, program, needs, date_s };
    let packages = job.make(arguments.revision)?;
    if arguments.check {
        let newer = job.make(arguments.revision + 1)?;
        check::run(&job, &packages, &newer)?;
    }
    if arguments.deploy {
        check::deploy(&job, &packages.deb)?;
    }
    Ok(())
}

impl Job {
    fn make(&self, revision: u32) -> Result<Packages> {
        let version = format!("{}-{revision}", self.program.version);
        let deb = timed(&format!("deb {version}"), || deb::make(self, &version))?;
        println!("   {}, {} KiB", deb.display(), fs::metadata(&deb)?.len() / 1024);
        timed("lintian: no error, no warning", || deb::lint(&deb))?;
        let rpm = timed(&format!("rpm {version}"), || rpm::make(self, revision))?;
        println!("   {}, {} KiB", rpm.display(), fs::metadata(&rpm)?.len() / 1024);
        Ok(Packages { deb, rpm })
    }
}

/// Runs one step and says how it went.
fn timed<T>(name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let done = step();
    let verdict = if done.is_ok() { "ok" } else { "FAILED" };
    println!("{verdict}: {name}, {:.1} s", start.elapsed().as_secs_f64());
    done.with_context(|| name.to_owned())
}
