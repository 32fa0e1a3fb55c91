//! The package for Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use oarlock_lab::deadline::check;

use super::Job;
use super::tree::{DOC, Places, Tree};

const CONTROL: &str = include_str!("../../../packaging/deb/control");
const COPYRIGHT: &str = include_str!("../../../packaging/deb/copyright");
const OVERRIDES: &str = include_str!("../../../packaging/deb/lintian-overrides");
const MIT: &str = include_str!("../../../LICENSE-MIT");
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("../../../packaging/deb/postinst")),
    ("prerm", include_str!("../../../packaging/deb/prerm")),
    ("postrm", include_str!("../../../packaging/deb/postrm")),
];
const PACK: Duration = Duration::from_secs(300);
const SETTINGS: &str = "etc/default/oarlock";

/// Packs it; returns the package.
pub(super) fn make(job: &Job, version: &str) -> Result<PathBuf> {
    let places =
        Places { settings: SETTINGS, zsh: "usr/share/zsh/vendor-completions/_oarlock", readme: "README.Debian" };
    let tree = Tree::make(job, job.out.join("tree-deb"), &places)?;
    tree.text(&format!("{DOC}/copyright"), &copyright())?;
    tree.compressed(&format!("{DOC}/changelog.Debian"), &changelog(job, version)?)?;
    tree.text("usr/share/lintian/overrides/oarlock", OVERRIDES)?;
    let (sums, bytes) = sums(&tree)?;
    let architecture = check(Command::new("dpkg").arg("--print-architecture"), "dpkg", PACK)?;
    let control = CONTROL
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", &architecture)
        .replace("@SIZE_KIB@", &bytes.div_ceil(1024).to_string())
        .replace("@LIBRARIES@", &job.needs.deb());
    tree.text("DEBIAN/control", &control)?;
    tree.text("DEBIAN/conffiles", &format!("/{SETTINGS}\n"))?;
    tree.text("DEBIAN/md5sums", &sums)?;
    for (name, script) in SCRIPTS {
        tree.put(&format!("DEBIAN/{name}"), script.as_bytes(), 0o755)?;
    }
    let package = job.out.join(format!("oarlock_{version}_{architecture}.deb"));
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--build", "--root-owner-group", "-Zxz"]).arg(&tree.root).arg(&package);
    check(pack.env("SOURCE_DATE_EPOCH", job.date_s.to_string()), "cannot pack", PACK)?;
    Ok(package)
}

/// Debian's own look at it: neither an error nor a warning may be left.
pub(super) fn lint(package: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--tag-display-limit", "0", "--fail-on", "error,warning"]);
    let said = check(lintian.arg(package), "lintian is not content", PACK)?;
    said.lines().filter(|line| !line.is_empty()).for_each(|line| println!("   {line}"));
    Ok(())
}

/// The licence's text as a paragraph of Debian's format.
fn copyright() -> String {
    let text: Vec<String> =
        MIT.lines().map(|line| if line.is_empty() { " .".to_owned() } else { format!(" {line}") }).collect();
    COPYRIGHT.replace("@MIT@", &text.join("\n"))
}

/// Debian's changelog tells of the packaging; the program's own is beside it.
fn changelog(job: &Job, version: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email", &format!("--date=@{}", job.date_s)]).env("LC_ALL", "C");
    let date = check(&mut date, "date", PACK)?;
    Ok(format!(
        "oarlock ({version}) unstable; urgency=medium\n\n  * Version {}; what changed is in changelog.gz.\n\n \
         -- The Oarlock developers <oarlock@example.org>  {date}\n",
        job.program.version
    ))
}

/// The checksums that dpkg verifies, and the size of it all in bytes.
fn sums(tree: &Tree) -> Result<(String, u64)> {
    let files = tree.files()?;
    let relative: Vec<&str> = files.iter().filter_map(|file| file.strip_prefix('/')).collect();
    let mut bytes = 0;
    for file in &relative {
        bytes += fs::metadata(tree.root.join(file)).with_context(|| format!("cannot look at {file}"))?.len();
    }
    let packed: Vec<&&str> = relative.iter().filter(|file| !file.starts_with("etc/")).collect();
    let mut md5sum = Command::new("md5sum");
    md5sum.args(packed).current_dir(&tree.root);
    Ok((check(&mut md5sum, "md5sum", PACK)? + "\n", bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_licence_is_a_paragraph_of_debians_format() {
        let text = copyright();
        let licence = text.split("License: MIT\n").nth(1).unwrap().split("\n\n").next().unwrap();
        assert!(licence.contains("\n .\n Permission is hereby granted"), "{licence}");
        assert!(licence.lines().all(|line| line.starts_with(' ')), "{licence}");
    }
}
