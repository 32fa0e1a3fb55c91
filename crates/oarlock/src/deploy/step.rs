//! One step: a script that looks whether it is done, and one that does it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Put before each script: what fails ends it, and nothing of what it writes is readable by others.
pub const HEAD: &str = "set -eu\numask 077\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
    export PATH LC_ALL=C DEBIAN_FRONTEND=noninteractive\n\
    ours() {\n\
    if grep -q ':/oarlock/' \"/proc/$1/cgroup\" 2>/dev/null; then return 0; fi\n\
    for process in \"$1\" $(sed 's/.*) //' \"/proc/$1/stat\" 2>/dev/null | cut -d' ' -f4); do\n\
    if tr '\\0' '\\n' <\"/proc/$process/environ\" 2>/dev/null | grep -q '^OARLOCK_SERVICE='; then return 0; fi\n\
    done\nreturn 1\n}\n";

/// What follows the name of a file of which the former state is kept; the date comes after it.
pub const KEPT: &str = ".before-oarlock-";

/// How a step is carried out.
#[derive(Clone, PartialEq, Eq)]
pub enum Act {
    /// A script for the machine's shell; it may hold secrets and is never an argument.
    Script(String),
    /// Has the machine with this number print a new token, and joins with it here.
    Join {
        /// The machine that invites.
        inviter: usize,
    },
}

/// One step on one machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Step {
    /// Number of the machine in the plan.
    pub machine: usize,
    /// What it does.
    pub title: String,
    /// What is different afterwards.
    pub changes: String,
    /// How that is undone.
    pub undo: String,
    /// A script that succeeds when it is done.
    pub done: String,
    /// What does it.
    pub act: Act,
    /// Whether the service is away from here on until [`Step::serves`].
    pub stops: bool,
    /// Whether the service is back after it.
    pub serves: bool,
    /// How long it may take, in seconds.
    pub deadline_s: u64,
}

/// Most steps.
pub const SHORT_S: u64 = 60;
/// Installing packages.
pub const INSTALL_S: u64 = 900;
/// Copying a database.
pub const CLONE_S: u64 = 6 * 3600;

impl Step {
    /// A step that neither stops nor brings back anything.
    #[must_use]
    pub fn new(machine: usize, title: impl Into<String>) -> Step {
        Step {
            machine,
            title: title.into(),
            changes: String::new(),
            undo: String::new(),
            done: "false\n".to_owned(),
            act: Act::Script(String::new()),
            stops: false,
            serves: false,
            deadline_s: SHORT_S,
        }
    }

    /// Says what changes and how that is undone.
    #[must_use]
    pub fn tells(mut self, changes: impl Into<String>, undo: impl Into<String>) -> Step {
        self.changes = changes.into();
        self.undo = undo.into();
        self
    }

    /// The two scripts.
    #[must_use]
    pub fn scripts(mut self, done: impl Into<String>, act: impl Into<String>) -> Step {
        self.done = done.into();
        self.act = Act::Script(act.into());
        self
    }

    /// Another deadline, in seconds.
    #[must_use]
    pub fn within(mut self, deadline_s: u64) -> Step {
        self.deadline_s = deadline_s;
        self
    }
}

/// A file as it shall be.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Where.
    pub path: &'a str,
    /// What is in it.
    pub content: &'a [u8],
    /// Permissions in octal, for one that is new.
    pub mode: &'a str,
    /// Owner and group, `owner:group`, for one that is new.
    pub owner: &'a str,
}

/// Puts files in place, each at one blow; what was there is kept beside it, with the date.
#[must_use]
pub fn put(machine: usize, title: &str, files: &[Wanted<'_>], date: &str) -> Step {
    let (mut done, mut act) = (String::new(), String::new());
    for file in files {
        let path = quoted(file.path);
        let mut sum = String::new();
        for byte in Sha256::digest(file.content) {
            let _ = write!(sum, "{byte:02x}");
        }
        let _ = writeln!(done, "[ \"$(sha256sum <{path} | cut -c1-64)\" = {sum} ]");
        let kept = quoted(&format!("{}{KEPT}{date}", file.path));
        let fresh = quoted(&format!("{}.oarlock-new", file.path));
        let _ = writeln!(
            act,
            "dir=$(dirname {path})\n\
             [ -d \"$dir\" ] || {{ install -d -m 755 \"$dir\"; chown {} \"$dir\"; }}\n\
             base64 -d >{fresh} <<'END'\n{}\nEND\n\
             if [ -e {path} ]; then\n\
             cp -p {path} {kept}\n\
             chown --reference={path} {fresh}\nchmod --reference={path} {fresh}\n\
             else\nchown {} {fresh}\nchmod {} {fresh}\n: >{kept}.absent\nfi\n\
             sync {fresh}\nmv {fresh} {path}",
            quoted(file.owner),
            STANDARD.encode(file.content),
            quoted(file.owner),
            quoted(file.mode),
        );
    }
    let names: Vec<&str> = files.iter().map(|file| file.path).collect();
    let names = names.join(", ");
    Step::new(machine, title)
        .tells(
            format!("{names}; what was there is kept beside it as FILE{KEPT}{date}"),
            format!("mv FILE{KEPT}{date} FILE"),
        )
        .scripts(done, act)
}

/// One word for a shell.
#[must_use]
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
