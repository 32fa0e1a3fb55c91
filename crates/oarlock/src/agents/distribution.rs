//! Where distributions put MariaDB's programs and its administrator's settings.

use crate::config::MariadbSettings;
use std::path::{Path, PathBuf};

/// The server: Debian's and Red Hat's place.
const SERVERS: [&str; 2] = ["usr/sbin/mariadbd", "usr/libexec/mariadbd"];
/// Its tools.
const TOOLS: &str = "usr/bin";
/// The administrator's settings: Debian's and Red Hat's place.
const SETTINGS: [&str; 2] = ["etc/mysql/mariadb.cnf", "etc/my.cnf"];

/// The tools that the agent runs.
pub const MARIADB_TOOLS: [&str; 3] = ["mariadb-install-db", "mariadb-backup", "mbstream"];

/// The server's program on the system below `root`; Debian's place when it is nowhere.
pub fn mariadb_server(settings: &MariadbSettings, root: &Path) -> PathBuf {
    match &settings.bin_dir {
        Some(directory) => directory.join("mariadbd"),
        None => first(root, &SERVERS).unwrap_or_else(|| root.join(SERVERS[0])),
    }
}

/// The directory of its tools.
pub fn mariadb_tools(settings: &MariadbSettings, root: &Path) -> PathBuf {
    settings.bin_dir.clone().unwrap_or_else(|| root.join(TOOLS))
}

/// The administrator's settings; `None` where there are none.
pub fn mariadb_config(settings: &MariadbSettings, root: &Path) -> Option<PathBuf> {
    settings.config_file.clone().or_else(|| first(root, &SETTINGS))
}

fn first(root: &Path, candidates: &[&str]) -> Option<PathBuf> {
    candidates.iter().map(|path| root.join(path)).find(|path| path.exists())
}
