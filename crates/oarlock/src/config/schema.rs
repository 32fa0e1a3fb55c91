//! Every key the configuration may have, once. The reader refuses others; the reference page and
//! the examples in problems are printed from here.

/// One kind of table in the file.
#[derive(Debug)]
pub struct SectionSchema {
    /// How problems call it: its header.
    pub title: &'static str,
    /// What it is for; Markdown.
    pub doc: &'static str,
    /// Its keys, in the order of the reference page.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// A value as it could stand in the file.
    pub example: &'static str,
    /// What holds without it; `None`: it is needed.
    pub default: Option<&'static str>,
    /// Its meaning, with the unit; Markdown.
    pub doc: &'static str,
}

impl Key {
    /// Whether the default could be written into the file as it stands.
    pub fn default_is_a_value(&self) -> bool {
        self.default.is_some_and(|default| format!("x = {default}").parse::<toml::Table>().is_ok())
    }
}

const fn needed(name: &'static str, example: &'static str, doc: &'static str) -> Key {
    Key { name, example, default: None, doc }
}

const fn optional(name: &'static str, example: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key { name, example, default: Some(default), doc }
}

/// The file itself.
pub const ROOT: SectionSchema = SectionSchema {
    title: "the file",
    doc: "The same file on every node. The running configuration is what the cluster has committed \
          (`oarlock apply`); a local edit is reported as drift, never obeyed.",
    keys: &[
        needed("cluster", "{ name = \"genepi\" }", "The cluster as a whole."),
        needed("node", "[[node]]", "One table per machine."),
        optional("group", "[[group]]", "none", "One table per group of resources that live on one node together."),
    ],
};

/// `[cluster]`.
pub const CLUSTER: SectionSchema = SectionSchema {
    title: "[cluster]",
    doc: "The cluster as a whole.",
    keys: &[
        needed("name", "\"genepi\"", "Its name. Nodes of clusters with other names do not understand each other."),
        optional("timing", "\"fast\"", "\"balanced\"", "Preset of times: `fast`, `balanced` or `relaxed`."),
        optional("port", "6700", "6700", "UDP port the nodes talk on, the same on every link."),
        optional(
            "arbitration",
            "\"fencing\"",
            "\"quorum\"",
            "`quorum`: a majority of the nodes decides. `fencing`: two servers without a third machine; no takeover \
             without a confirmed fence of the peer, so takeover is manual where there is no fence device.",
        ),
        optional("heartbeat_ms", "20", "from the preset", "How often a node renews its lease, in milliseconds."),
        optional("lease_ms", "250", "from the preset", "How long a renewal lasts, in milliseconds."),
        optional(
            "election_ms",
            "150",
            "from the preset",
            "Silence of the leading node before another is elected, in milliseconds.",
        ),
        optional(
            "stop_budget_ms",
            "50",
            "from the preset",
            "Within this time the sentinel silences a node whose lease lapsed, in milliseconds. Services without a \
             data guard start elsewhere only after it.",
        ),
        optional(
            "watchdog",
            "\"/dev/watchdog\"",
            "none",
            "Hardware watchdog of every server. The sentinel starts it with whatever is exclusive on its node, feeds it \
             while the lease lives, and stops it when the last of that is gone: a machine whose agent and sentinel stand still \
             is reset. Its timeout follows from `lease_ms`.",
        ),
    ],
};

/// `[[node]]`.
pub const NODE: SectionSchema = SectionSchema {
    title: "[[node]]",
    doc: "One machine. Each has a vote.",
    keys: &[
        needed("name", "\"server1\"", "Its name; by custom the host name."),
        optional(
            "id",
            "1",
            "its position, from 1",
            "Its number, 1 to 255. Never used again for another machine, nor for the same one after it lost its state.",
        ),
        needed(
            "links",
            "[\"10.0.0.1\", \"192.168.0.1\"]",
            "One address of this machine per link. With two links, losing one costs nothing.",
        ),
        needed("key", "\"3b6a27bc…\"", "Its public key, made by `oarlock init`."),
        optional("role", "\"witness\"", "\"server\"", "`server`, or `witness`: votes and remembers, runs nothing."),
    ],
};

/// `[[group]]`.
pub const GROUP: SectionSchema = SectionSchema {
    title: "[[group]]",
    doc: "Resources that live on one node together. They start in order and stop in reverse.",
    keys: &[
        needed("name", "\"oar\"", "Its name."),
        needed("nodes", "[\"server1\", \"server2\"]", "Nodes that may own it, most preferred first."),
        optional(
            "failback",
            "\"auto\"",
            "\"never\"",
            "`never`: it stays where it is. `auto`: it returns to a more preferred node once that is fully redundant.",
        ),
        optional(
            "depends",
            "[\"db\"]",
            "[]",
            "Groups that must be up before services of this one are started, on whatever node each of them runs. A \
             service that runs already is left alone when such a group moves or goes.",
        ),
        needed("resource", "[[group.resource]]", "One table per resource, in start order."),
    ],
};

/// `[[group.resource]]` before its kind is known: only for the kind and the name.
pub const RESOURCE_TITLE: &str = "[[group.resource]]";

/// Values of `kind`.
pub const KINDS: [&str; 4] = ["address", "postgresql", "mariadb", "service"];

const NAME: Key = needed("name", "\"vip\"", "Its name.");

/// `kind = "address"`.
pub const ADDRESS: SectionSchema = SectionSchema {
    title: "[[group.resource]] of kind \"address\"",
    doc: "A service address: up where the group runs, announced to the neighbours when it moves.",
    keys: &[
        NAME,
        needed("kind", "\"address\"", "`address`."),
        needed("address", "\"10.0.0.100/24\"", "The address and the length of its network's prefix."),
        optional(
            "interface",
            "\"eth1\"",
            "the one that has an address of the same network",
            "Network interface, by name, the same on every node.",
        ),
        optional(
            "follows",
            "\"standby\"",
            "\"owner\"",
            "`standby`: a read-only address, on an in-sync copy of the group's database, on its owner when there is none.",
        ),
    ],
};

/// `kind = "postgresql"`.
pub const POSTGRESQL: SectionSchema = SectionSchema {
    title: "[[group.resource]] of kind \"postgresql\"",
    doc: "A PostgreSQL server with one synchronously replicated copy per node of the group. At most one database in a group.",
    keys: &[
        NAME,
        needed("kind", "\"postgresql\"", "`postgresql`."),
        needed("version", "\"15\"", "Major version: 13 to 18."),
        needed("data_dir", "\"/var/lib/postgresql/15/main\"", "Data directory, the same on every node."),
        optional("port", "5432", "5432", "TCP port clients use."),
        optional("listen_addresses", "\"*\"", "\"*\"", "As in postgresql.conf."),
        optional("bin_dir", "\"/usr/lib/postgresql/15/bin\"", "found by the version", "Where its programs are."),
        optional(
            "config_file",
            "\"/etc/postgresql/15/main/postgresql.conf\"",
            "found in Debian's place or in the data directory",
            "The administrator's own settings; never edited, read before ours.",
        ),
        optional(
            "hba_file",
            "\"/etc/postgresql/15/main/pg_hba.conf\"",
            "found beside config_file",
            "Who may connect; never edited, ours is read before it.",
        ),
        optional("user", "\"postgres\"", "\"postgres\"", "System user the server runs as."),
        optional(
            "divergent_limit_mib",
            "1024",
            "1024",
            "How much of the histories that were set aside before a rewind or a clone is kept, in MiB. The newest is \
             always kept.",
        ),
        optional(
            "probe_deadline_ms",
            "3000",
            "by the timing: 1000, 3000 or 15000",
            "A database that does not answer the deep probe within this is sick, in milliseconds.",
        ),
    ],
};

/// `kind = "mariadb"`.
pub const MARIADB: SectionSchema = SectionSchema {
    title: "[[group.resource]] of kind \"mariadb\"",
    doc: "A MariaDB server with one copy on each of two nodes, replicated semi-synchronously by GTID. At most one \
          database in a group, and two nodes in that group: the server takes the confirmation of any standby, so with \
          more copies nobody could say which of them has an acknowledged row.",
    keys: &[
        NAME,
        needed("kind", "\"mariadb\"", "`mariadb`."),
        needed("version", "\"10.11\"", "Version up to the second number: 10.6 or newer."),
        needed(
            "data_dir",
            "\"/var/lib/mysql\"",
            "Data directory, the same on every node. It is replaced by renaming, so it is no mount point itself, and its \
             parent directory has room for a second copy.",
        ),
        optional("port", "3306", "3306", "TCP port clients use."),
        optional(
            "copy_port",
            "4444",
            "4444",
            "TCP port on which the agents of this resource give each other copies, encrypted, on their links only.",
        ),
        optional("listen_addresses", "\"*\"", "\"*\"", "As `bind_address` of the server."),
        optional(
            "bin_dir",
            "\"/opt/mariadb/bin\"",
            "found in the distribution's places",
            "Where `mariadbd`, `mariadb-install-db`, `mariadb-backup` and `mbstream` are.",
        ),
        optional(
            "config_file",
            "\"/etc/mysql/mariadb.cnf\"",
            "found in the distribution's place",
            "The administrator's own settings; never edited, read before ours.",
        ),
        optional("user", "\"mysql\"", "\"mysql\"", "System user the server runs as."),
        optional(
            "divergent_limit_mib",
            "1024",
            "1024",
            "How much of the histories that were set aside before a clone is kept, in MiB. The newest is always kept.",
        ),
        optional(
            "probe_deadline_ms",
            "3000",
            "by the timing: 1000, 3000 or 15000",
            "A database that does not answer the deep probe within this is sick, in milliseconds.",
        ),
    ],
};

/// `kind = "service"`.
pub const SERVICE: SectionSchema = SectionSchema {
    title: "[[group.resource]] of kind \"service\"",
    doc: "A program without replicated data of its own: one supervised `command`, or `start`, `stop` and `status` \
          commands, or a `profile` that knows the program.",
    keys: &[
        NAME,
        needed("kind", "\"service\"", "`service`."),
        optional(
            "profile",
            "\"oar\"",
            "none",
            "`oar`: the OAR batch server, its checks and its repair after a takeover.",
        ),
        optional(
            "config_file",
            "\"/etc/oar/oar.conf\"",
            "the profile's",
            "Configuration of the program, for a profile that reads it.",
        ),
        optional(
            "command",
            "[\"/usr/sbin/Almighty\"]",
            "the profile's",
            "Program with its arguments; stays in the foreground.",
        ),
        optional(
            "start",
            "[\"/etc/init.d/x\", \"start\"]",
            "none",
            "Command that starts it; with `stop` and `status`.",
        ),
        optional("stop", "[\"/etc/init.d/x\", \"stop\"]", "none", "Command that stops it."),
        optional(
            "status",
            "[\"/etc/init.d/x\", \"status\"]",
            "none",
            "Command that exits with 0 while it runs, with 3 when it does not.",
        ),
        optional("user", "\"oar\"", "\"root\", or the profile's", "System user it runs as."),
        optional("environment", "{ LANG = \"C\" }", "{}", "Variables added to its environment."),
        optional("working_dir", "\"/\"", "\"/\"", "Directory it runs in."),
        optional("check", "{ tcp = \"127.0.0.1:80\" }", "it runs", "How its health is seen; see below."),
        optional("check_interval_ms", "1000", "1000", "Time between two checks, in milliseconds."),
        optional("check_timeout_ms", "3000", "3000", "A check that takes longer has failed, in milliseconds."),
        optional("check_failures", "2", "2", "So many failed checks in a row are a failure."),
        optional("start_timeout_ms", "30000", "30000", "Until its check is good for the first time, in milliseconds."),
        optional("stop_timeout_ms", "10000", "10000", "Between the request to stop and its killing, in milliseconds."),
    ],
};

/// `check = { … }`.
pub const CHECK: SectionSchema = SectionSchema {
    title: "check",
    doc: "How the health of a service is seen: exactly one of `command`, `tcp`, `http`, `sql`.",
    keys: &[
        optional("command", "[\"/usr/local/bin/probe\"]", "none", "Healthy when it exits with 0."),
        optional("tcp", "\"127.0.0.1:80\"", "none", "Healthy when a connection to host:port opens."),
        optional("http", "\"http://127.0.0.1/health\"", "none", "Healthy when a GET is answered with 2xx or 3xx."),
        optional("sql", "\"SELECT 1\"", "none", "Healthy when the query succeeds over `connection`."),
        optional(
            "connection",
            "\"host=10.0.0.100 user=probe dbname=probe\"",
            "none",
            "PostgreSQL connection string for `sql`.",
        ),
    ],
};

/// All sections in the order of the reference page.
pub const SECTIONS: [&SectionSchema; 9] =
    [&ROOT, &CLUSTER, &NODE, &GROUP, &ADDRESS, &POSTGRESQL, &MARIADB, &SERVICE, &CHECK];
