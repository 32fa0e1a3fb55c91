//! What the program needs of the machine it is installed on.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use oarlock_lab::deadline::check;

const READ: Duration = Duration::from_secs(60);
/// RHEL 9 has it; Debian 12 has 2.36.
const NEWEST_GLIBC: (u32, u32) = (2, 34);
/// The libraries that a Rust program may want: glibc's own, and gcc's for unwinding. No other.
const GLIBC: [&str; 3] = ["libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"];
const GCC: &str = "libgcc_s.so.1";

/// Versions as the dynamic linker will look for them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// The least version of glibc.
    glibc: (u32, u32),
    /// Whether gcc's library is wanted too.
    gcc: bool,
}

impl Needs {
    /// Reads them from the program; refuses one that would not start on the machines we name.
    pub(super) fn of(program: &Path) -> Result<Self> {
        let mut readelf = Command::new("readelf");
        readelf.args(["--dynamic", "--version-info", "--wide"]).arg(program);
        Self::read(&check(&mut readelf, "cannot read the program", READ)?)
    }

    fn read(text: &str) -> Result<Self> {
        let libraries: BTreeSet<&str> = text
            .lines()
            .filter(|line| line.contains("(NEEDED)"))
            .filter_map(|line| line.split_once('[')?.1.split(']').next())
            .collect();
        if let Some(other) = libraries.iter().find(|library| **library != GCC && !GLIBC.contains(library)) {
            bail!("the program wants {other}, which no dependency of the packages brings");
        }
        let versions = text.split("GLIBC_").skip(1).filter_map(version);
        let glibc = versions.max().context("no version of glibc is named in the program")?;
        if glibc > NEWEST_GLIBC {
            bail!(
                "the program needs glibc {}.{}, newer than {}.{}\nhint: readelf --version-info shows where",
                glibc.0,
                glibc.1,
                NEWEST_GLIBC.0,
                NEWEST_GLIBC.1
            );
        }
        Ok(Self { glibc, gcc: libraries.contains(GCC) })
    }

    /// In the words of a deb.
    pub(super) fn deb(&self) -> String {
        let gcc = if self.gcc { ", libgcc-s1 (>= 4.2)" } else { "" };
        format!("libc6 (>= {}.{}){gcc}", self.glibc.0, self.glibc.1)
    }

    /// In the words of an rpm.
    pub(super) fn rpm(&self) -> String {
        let gcc = if self.gcc { ", libgcc_s.so.1()(64bit)" } else { "" };
        format!("libc.so.6(GLIBC_{}.{})(64bit){gcc}", self.glibc.0, self.glibc.1)
    }
}

/// The two numbers that a text begins with.
fn version(text: &str) -> Option<(u32, u32)> {
    let word = text.split(|character: char| !character.is_ascii_digit() && character != '.').next()?;
    let mut numbers = word.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {} (at most {}.{} is allowed)", self.deb(), NEWEST_GLIBC.0, NEWEST_GLIBC.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = " 0x1 (NEEDED)  Shared library: [libgcc_s.so.1]\n 0x1 (NEEDED)  Shared library: [libc.so.6]\n\
        0x0010:   Name: GLIBC_2.9  Flags: none  Version: 5\n  0x0020:   Name: GLIBC_2.34  Flags: none\n\
        0x0030:   Name: GLIBC_2.2.5  Flags: none\n";

    #[test]
    fn the_newest_version_counts() {
        let needs = Needs::read(GOOD).unwrap();
        assert_eq!(needs, Needs { glibc: (2, 34), gcc: true });
        assert_eq!(needs.deb(), "libc6 (>= 2.34), libgcc-s1 (>= 4.2)");
    }

    #[test]
    fn what_would_not_start_elsewhere_is_refused() {
        let newer = GOOD.replace("GLIBC_2.9 ", "GLIBC_2.38 ");
        assert!(Needs::read(&newer).unwrap_err().to_string().contains("glibc 2.38"));
        let other = GOOD.replace("libgcc_s.so.1", "libssl.so.3");
        assert!(Needs::read(&other).unwrap_err().to_string().contains("libssl.so.3"));
        assert!(Needs::read("").is_err());
    }
}
