//! The program to pack.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use oarlock_lab::deadline::check;
use oarlock_lab::paths::Paths;

/// What the program prints about itself is there at once.
const ASK: Duration = Duration::from_secs(30);
/// A link with everything in it, on a busy machine.
const BUILD: Duration = Duration::from_secs(3600);

/// A stripped program and what it says of itself.
pub(super) struct Program {
    pub(super) file: PathBuf,
    /// Its version: three numbers.
    pub(super) version: String,
}

impl Program {
    /// Builds it with the profile `dist`; `quick`: a stripped copy of the release build.
    pub(super) fn build(paths: &Paths, out: &Path, quick: bool) -> Result<Self> {
        let profile = if quick { "release" } else { "dist" };
        super::timed(&format!("program, profile {profile}"), || {
            let mut build = Command::new(cargo());
            build.args(["build", "--quiet", "--package", "oarlock", "--profile", profile]);
            check(build.current_dir(&paths.workspace), "cannot build the program", BUILD)
        })?;
        let built = paths.target.join(profile).join("oarlock");
        let file = out.join("program");
        fs::copy(&built, &file).with_context(|| format!("cannot copy {}", built.display()))?;
        check(Command::new("strip").arg(&file), "cannot strip the program", ASK)?;
        let said = Self { file, version: String::new() }.says(&["--version"])?;
        let version = said.trim().strip_prefix("oarlock ").unwrap_or_default().to_owned();
        if version.split('.').count() != 3 || !version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            bail!("the program says of its version: {said}");
        }
        Ok(Self { file: out.join("program"), version })
    }

    /// What it prints.
    pub(super) fn says(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.file);
        let text = check(command.args(arguments), &format!("oarlock {}", arguments.join(" ")), ASK)?;
        Ok(text + "\n")
    }
}

/// When the source was last committed, in seconds since 1970; 1 January 2026 outside of git.
pub(super) fn date_s(paths: &Paths) -> Result<u64> {
    const WITHOUT_GIT_S: u64 = 1_767_225_600;
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(&paths.workspace);
    match check(&mut git, "git log", ASK) {
        Ok(text) => text.trim().parse().with_context(|| format!("git says of the time of the last commit: {text}")),
        Err(_) => Ok(WITHOUT_GIT_S),
    }
}

/// The cargo that runs us.
pub(super) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
