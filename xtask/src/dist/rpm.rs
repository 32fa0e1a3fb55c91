//! The package for Red Hat's and SUSE's kin.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use oarlock_lab::deadline::check;

use super::Job;
use super::tree::{DOC, Places, Tree};

const SPEC: &str = include_str!("../../../packaging/rpm/oarlock.spec");
const LICENCES: [(&str, &str); 2] = [
    ("LICENSE-MIT", include_str!("../../../LICENSE-MIT")),
    ("LICENSE-APACHE", include_str!("../../../LICENSE-APACHE")),
];
const PACK: Duration = Duration::from_secs(300);

/// Packs it; returns the package.
pub(super) fn make(job: &Job, revision: u32) -> Result<PathBuf> {
    let places = Places {
        settings: "etc/sysconfig/oarlock",
        zsh: "usr/share/zsh/site-functions/_oarlock",
        readme: "README.package",
    };
    let tree = Tree::make(job, job.out.join("tree-rpm"), &places)?;
    for (name, text) in LICENCES {
        tree.text(&format!("usr/share/licenses/oarlock/{name}"), text)?;
    }
    let kind = |file: &String| {
        if file.starts_with("/etc/") {
            format!("%config(noreplace) {file}")
        } else if file.starts_with("/usr/share/licenses/") {
            format!("%license {file}")
        } else if file.starts_with(&format!("/{DOC}/")) || file.starts_with("/usr/share/man/") {
            format!("%doc {file}")
        } else {
            file.clone()
        }
    };
    let files = tree.files()?;
    let mut lines = vec!["%defattr(-,root,root,-)".to_owned()];
    lines.extend([format!("%dir /{DOC}"), format!("%dir /{DOC}/examples"), "%dir /usr/share/licenses/oarlock".into()]);
    lines.extend(files.iter().map(kind));
    let architecture = std::env::consts::ARCH;
    let spec = SPEC
        .replace("@VERSION@", &job.program.version)
        .replace("@RELEASE@", &revision.to_string())
        .replace("@ARCHITECTURE@", architecture)
        .replace("@LIBRARIES@", &job.needs.rpm())
        .replace("@TREE@", &tree.root.display().to_string())
        .replace("@FILES@", &lines.join("\n"));
    let top = job.out.join("rpmbuild");
    std::fs::create_dir_all(&top)?;
    let file = top.join("oarlock.spec");
    std::fs::write(&file, spec).with_context(|| format!("cannot write {}", file.display()))?;
    let mut pack = Command::new("rpmbuild");
    pack.args(["-bb", "--quiet", "--target", architecture])
        .args(["--define", &format!("_topdir {}", top.display())])
        .args(["--define", &format!("_rpmdir {}", job.out.display())])
        .args(["--define", "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"])
        .args(["--define", "use_source_date_epoch_as_buildtime 1"])
        .args(["--define", "clamp_mtime_to_source_date_epoch 1"])
        .args(["--define", "_buildhost localhost"])
        .arg(&file)
        .env("SOURCE_DATE_EPOCH", job.date_s.to_string());
    check(&mut pack, "cannot pack", PACK)?;
    Ok(job.out.join(format!("oarlock-{}-{revision}.{architecture}.rpm", job.program.version)))
}
