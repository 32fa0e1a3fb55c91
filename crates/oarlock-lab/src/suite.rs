//! What the lab knows about each Debian release.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A Debian release that lab hosts can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Debian 12: PostgreSQL 15, MariaDB 10.11, OAR 2.5.9.
    #[default]
    Bookworm,
    /// Debian 13: PostgreSQL 17, MariaDB 11.8, OAR 2.6.1.
    Trixie,
}

impl Suite {
    /// The major version of the suite's PostgreSQL.
    #[must_use]
    pub fn postgresql(self) -> &'static str {
        match self {
            Self::Bookworm => "15",
            Self::Trixie => "17",
        }
    }

    /// The version of the suite's MariaDB, up to the second number.
    #[must_use]
    pub fn mariadb(self) -> &'static str {
        match self {
            Self::Bookworm => "10.11",
            Self::Trixie => "11.8",
        }
    }

    /// What a lab host has in addition where its database is MariaDB.
    #[must_use]
    pub fn mariadb_packages() -> [&'static str; 4] {
        ["mariadb-server", "mariadb-backup", "oar-server-mysql", "oar-user-mysql"]
    }

    /// The packages of a lab host beside the minimal base system.
    #[must_use]
    pub fn packages(self) -> Vec<String> {
        let common = [
            "ca-certificates curl iproute2 iputils-ping less lsof nftables openssh-client",
            "openssh-server openssl procps psmisc strace sudo tini",
            "oar-node oar-server oar-server-pgsql oar-user oar-user-pgsql",
        ];
        let mut packages: Vec<String> = common.iter().flat_map(|line| line.split(' ')).map(str::to_owned).collect();
        packages.push(format!("postgresql-{}", self.postgresql()));
        packages
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        })
    }
}
