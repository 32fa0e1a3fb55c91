//! The two servers: which database and which OAR are taken over, and what that takes.

use super::edits::{self, Access};
use super::facts::{Facts, PgCluster, Server};
use super::plan::{OAR_CONF, Problem, Subject, Wish};
use super::step::{INSTALL_S, KEPT, SHORT_S, Step, Wanted, put, quoted};
use crate::profiles::oar::conf::OarConf;
use crate::sql::Engine;
use std::net::IpAddr;

/// Data of this size may be of a database that nobody has put anything into, in KiB.
const EMPTY_KIB: u64 = 64 * 1024;

/// Finds what the plan is about; `None` with problems said.
pub(super) fn subject<'a>(
    wish: &'a Wish,
    facts: &'a [Facts],
    names: &[String],
    problems: &mut Vec<Problem>,
) -> Option<Subject<'a>> {
    let numbers = |witness: bool| (0..wish.nodes.len()).filter(move |number| wish.nodes[*number].witness == witness);
    let mut problem = |text: String, hint: &str| problems.push(Problem { text, hint: hint.to_owned() });
    let servers: Vec<usize> = numbers(false).collect();
    let Ok(servers) = <[usize; 2]>::try_from(servers) else {
        problem("a deployment has two servers".into(), "--node twice; four servers: see oarlock init --help");
        return None;
    };
    let witnesses: Vec<usize> = numbers(true).collect();
    if witnesses.len() != 1 {
        problem("a deployment of two servers has one witness".into(), "--witness NAME=ADDRESS");
        return None;
    }
    let [first, second] = servers.map(|number| &facts[number]);
    let [first_name, second_name] = servers.map(|number| &names[number]);
    let database = database(wish, first, first_name, problems)?;
    backup_allows(wish, database, second, second_name, problems);
    let oar = oar(first, first_name, problems)?;
    if second.almighty_foreign && !first.almighty_foreign {
        problems.push(Problem {
            text: format!("OAR's server runs on {second_name}, the database is taken from {first_name}"),
            hint: format!("name the machine that has both first, or stop OAR on {second_name}"),
        });
    }
    let clients = (wish.nodes.len()..facts.len()).collect();
    Some(Subject { wish, facts, servers, witnesses, clients, database, oar })
}

fn database<'a>(wish: &Wish, facts: &'a Facts, name: &str, problems: &mut Vec<Problem>) -> Option<&'a PgCluster> {
    let asked = |cluster: &&PgCluster| match &wish.postgresql {
        Some((version, name)) => cluster.version == *version && cluster.name == *name,
        None => true,
    };
    let found: Vec<&PgCluster> = facts.clusters.iter().filter(asked).filter(|c| c.data_kib.is_some()).collect();
    match found.as_slice() {
        [one] => Some(one),
        [] => {
            problems.push(Problem {
                text: format!("{name} has no such database cluster below /etc/postgresql"),
                hint: "name the machine with the data first; for a new, empty database: oarlock init".into(),
            });
            None
        }
        several => {
            let names: Vec<String> = several.iter().map(|c| format!("{}/{}", c.version, c.name)).collect();
            problems.push(Problem {
                text: format!("{name} has several database clusters: {}", names.join(", ")),
                hint: "--postgresql VERSION/NAME says which".into(),
            });
            None
        }
    }
}

/// The other server gets a copy: nothing that somebody may miss is in its place.
fn backup_allows(wish: &Wish, database: &PgCluster, facts: &Facts, name: &str, problems: &mut Vec<Problem>) {
    let installed = facts.postgresql.contains(&database.version);
    if !installed && !facts.apt {
        problems.push(Problem {
            text: format!("{name} has no PostgreSQL {}", database.version),
            hint: "install its server there; packages are installed for you with apt alone".into(),
        });
    }
    let Some(there) = twin(facts, database) else { return };
    let may_hold = match (there.data_kib, there.databases) {
        (None, _) => false,
        _ if there.marked => false,
        (_, Some(databases)) => databases > 0,
        (Some(kib), None) => kib > EMPTY_KIB || there.server != Server::Down,
    };
    if may_hold && !wish.set_aside {
        problems.push(Problem {
            text: format!("{} on {name} may hold data of its own", there.data_dir),
            hint:
                "is the right machine named first? --set-aside moves it aside, with the date, and copies in its place"
                    .into(),
        });
    }
    let needed = database.data_kib.unwrap_or_default();
    if !there.marked && there.free_kib < needed + needed / 10 {
        problems.push(Problem {
            text: format!("{name} has {} MiB free for a copy of {} MiB", there.free_kib / 1024, needed / 1024),
            hint: "make room there".into(),
        });
    }
}

/// What lies where the copy will be.
fn twin<'a>(facts: &'a Facts, database: &PgCluster) -> Option<&'a PgCluster> {
    facts.clusters.iter().find(|cluster| cluster.data_dir == database.data_dir)
}

/// OAR's configuration, where OAR is; `None` with a problem said.
fn oar(facts: &Facts, name: &str, problems: &mut Vec<Problem>) -> Option<Option<OarConf>> {
    if !facts.oar_server {
        return Some(None);
    }
    let mut problem = |text: String, hint: &str| problems.push(Problem { text, hint: hint.to_owned() });
    let Some(text) = facts.text(OAR_CONF) else {
        problem(format!("{name} has OAR's server but no {OAR_CONF}"), "is oar-server installed completely there?");
        return None;
    };
    let conf = OarConf::parse(&text);
    match conf.database() {
        Ok(access) if access.engine != Engine::Postgresql => {
            problem(format!("OAR on {name} is on MariaDB"), "deploy knows PostgreSQL only: oarlock init --mariadb");
            return None;
        }
        Ok(access) if access.password.is_empty() => {
            problem(format!("DB_BASE_PASSWD is empty on {name}"), "set it there and in the database first");
            return None;
        }
        Ok(_) => {}
        Err(error) => {
            problem(format!("{name}: {error}"), "");
            return None;
        }
    }
    Some(Some(conf))
}

/// What the other server lacks of packages; nothing of them starts.
pub(super) fn backup_packages(subject: &Subject<'_>) -> Option<Step> {
    let version = &subject.database.version;
    let mut packages = vec![format!("postgresql-{version}")];
    let mut done = format!("[ -x /usr/lib/postgresql/{version}/bin/postgres ]\n");
    if subject.oar.is_some() {
        packages.extend(["oar-server".into(), "oar-server-pgsql".into()]);
        done.push_str("[ -x /usr/sbin/Almighty ]\n");
    }
    let act = format!(
        "mkdir -p /etc/postgresql-common\n\
         policy=/usr/sbin/policy-rc.d\n\
         if [ ! -e $policy ]; then\n\
         trap 'rm -f $policy' EXIT\nprintf '#!/bin/sh\\nexit 101\\n' >$policy\nchmod 755 $policy\nfi\n\
         apt-get update\napt-get --yes install {}\n",
        packages.join(" ")
    );
    Some(
        Step::new(subject.servers[1], format!("{} are installed and not started", packages.join(", ")))
            .tells(format!("packages {}", packages.join(", ")), format!("apt remove {}", packages.join(" ")))
            .scripts(done, act)
            .within(INSTALL_S),
    )
}

/// The two settings that make OAR follow its service address, and the one that keeps jobs alive.
fn oar_conf(subject: &Subject<'_>, text: &str) -> String {
    let service = subject.wish.service.as_str();
    edits::settings(text, &[("DB_HOSTNAME", service), ("SERVER_HOSTNAME", service), ("DETACH_JOB_FROM_SERVER", "1")])
}

const OAR_OWNER: &str = "oar:root";

/// The other server's OAR as the preferred one's: configuration, and keys that reach the nodes.
pub(super) fn backup_oar(subject: &Subject<'_>) -> Vec<Step> {
    let [first, second] = subject.servers;
    let facts = &subject.facts[first];
    let conf = oar_conf(subject, &facts.text(OAR_CONF).unwrap_or_default());
    let mut files = vec![Wanted { path: OAR_CONF, content: conf.as_bytes(), mode: "600", owner: OAR_OWNER }];
    for (path, file) in facts.files.iter().filter(|(path, _)| path.starts_with("/var/lib/oar/.ssh/")) {
        if !path.contains(KEPT) {
            files.push(Wanted { path, content: &file.content, mode: &file.mode, owner: "oar:oar" });
        }
    }
    vec![put(second, "OAR's configuration and keys are those of the preferred server", &files, &subject.wish.date)]
}

/// The database's own files: access from the service's network; the other server's as the preferred one's.
pub(super) fn database_files(subject: &Subject<'_>) -> Vec<Step> {
    let [first, second] = subject.servers;
    let (facts, dir) = (&subject.facts[first], subject.database.conf_dir());
    let hba = format!("{dir}/pg_hba.conf");
    let text = facts.text(&hba).unwrap_or_default();
    let opened = match &subject.oar {
        Some(conf) => with_access(subject, conf, &text),
        None => text.clone(),
    };
    let mut steps = Vec::new();
    if opened != text || subject.oar.is_some() {
        let file = Wanted { path: &hba, content: opened.as_bytes(), mode: "640", owner: "postgres:postgres" };
        steps.push(put(first, "OAR may log in to its database by the service address", &[file], &subject.wish.date));
    }
    let start = format!("{dir}/start.conf");
    let below: Vec<(&String, &super::facts::File)> =
        facts.files.iter().filter(|(path, _)| path.starts_with(&format!("{dir}/")) && !path.contains(KEPT)).collect();
    let files: Vec<Wanted<'_>> = below
        .iter()
        .filter(|(path, _)| **path != start)
        .map(|(path, file)| Wanted {
            path,
            content: if **path == hba { opened.as_bytes() } else { &file.content },
            mode: &file.mode,
            owner: "postgres:postgres",
        })
        .collect();
    let title = format!("{dir} is that of the preferred server");
    let mut step = put(second, &title, &files, &subject.wish.date);
    if let super::Act::Script(act) = &mut step.act {
        act.push_str(&format!(
            "for each in {0} \"$(dirname {0})\"; do chown postgres:postgres \"$each\"; chmod 755 \"$each\"; done\n",
            quoted(&dir)
        ));
    }
    steps.push(step);
    steps
}

fn with_access(subject: &Subject<'_>, conf: &OarConf, text: &str) -> String {
    let database = conf.get("DB_BASE_NAME").unwrap_or("oar").trim().to_owned();
    let roles: Vec<&str> = ["DB_BASE_LOGIN", "DB_BASE_LOGIN_RO"].into_iter().filter_map(|key| conf.get(key)).collect();
    let roles: Vec<&str> = roles.into_iter().map(str::trim).collect();
    let mut from = vec![network(subject.wish.address, subject.wish.prefix)];
    for link in subject.wish.nodes.iter().flat_map(|node| &node.links) {
        if !within(*link, subject.wish.address, subject.wish.prefix) {
            from.push(format!("{link}/{}", if link.is_ipv4() { 32 } else { 128 }));
        }
    }
    edits::access(text, &Access { database: &database, roles: &roles, from: &from })
}

/// The network of an address, in the form that `pg_hba.conf` takes.
fn network(address: IpAddr, prefix: u8) -> String {
    let masked: IpAddr = match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - prefix.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    };
    format!("{masked}/{prefix}")
}

fn within(address: IpAddr, other: IpAddr, prefix: u8) -> bool {
    address.is_ipv4() == other.is_ipv4() && network(address, prefix) == network(other, prefix)
}

/// Nobody but oarlock starts the database or OAR on this machine any more, and neither runs.
fn stops(subject: &Subject<'_>, number: usize) -> Vec<Step> {
    let database = subject.database;
    let mut steps = Vec::new();
    if subject.oar.is_some() {
        steps.push(oar_stops(number));
    }
    let start = format!("{}/start.conf", database.conf_dir());
    let text = subject.facts[number].text(&start).unwrap_or_default();
    let content = edits::start(&text, "disabled");
    let file = Wanted { path: &start, content: content.as_bytes(), mode: "644", owner: "postgres:postgres" };
    let mut step = put(number, "", &[file], &subject.wish.date);
    let data = quoted(&database.data_dir);
    // A server that oarlock started is none of this step's business.
    let foreign = format!(
        "foreign() {{\npid=$(head -n1 {data}/postmaster.pid 2>/dev/null) || return 1\n\
         [ -n \"$pid\" ] && [ \"$(readlink \"/proc/$pid/cwd\")\" = \"$(readlink -f {data})\" ] && ! ours \"$pid\"\n}}\n"
    );
    step.done = format!("{foreign}if foreign; then exit 1; fi\n{}", step.done);
    if let super::Act::Script(put) = &step.act {
        let (version, name) = (quoted(&database.version), quoted(&database.name));
        step.act = super::Act::Script(format!(
            "{foreign}if foreign; then pg_ctlcluster {version} {name} stop -m fast; fi\n{put}"
        ));
    }
    step.title = format!("PostgreSQL {} \"{}\" is stopped and not started at boot", database.version, database.name);
    step.changes = format!("{start} says disabled; {}", step.changes);
    step.undo = format!("{}; pg_ctlcluster {} {} start", step.undo, database.version, database.name);
    step.deadline_s = 3 * SHORT_S;
    steps.push(step);
    steps
}

fn oar_stops(number: usize) -> Step {
    // The package's own script stops nothing: the main process ends with TERM, in a moment its children too.
    let list = "list() {\nfor each in /proc/[0-9]*; do\npid=${each#/proc/}\n\
        case \"$(tr '\\0' ' ' <\"$each/cmdline\" 2>/dev/null)\" in\n\
        *perl*/Almighty* | Almighty:*) if ! ours \"$pid\"; then echo \"$pid\"; fi ;;\nesac\ndone\n}\n";
    let boot = "boot() { ls /etc/rc[2345].d/S*oar-server >/dev/null 2>&1; }\n\
        masked() { [ ! -d /run/systemd/system ] || [ \"$(readlink /etc/systemd/system/oar-server.service)\" = /dev/null ]; }\n";
    // Where the cluster runs the service, what runs is none of this step's business, whatever it looks like.
    let started = "started() { oarlock status --json 2>/dev/null | grep -q '\"state\":\"started\"'; }\n";
    let done = format!("{list}{boot}{started}{{ started || [ -z \"$(list)\" ]; }} && masked && ! boot\n");
    let act = format!(
        "{list}{boot}{started}if ! started; then\n\
         for pid in $(list); do kill -TERM \"$pid\" 2>/dev/null || true; done\n\
         for _ in $(seq 100); do [ -n \"$(list)\" ] || break; sleep 0.1; done\n\
         for pid in $(list); do kill -KILL \"$pid\" 2>/dev/null || true; done\nfi\n\
         update-rc.d oar-server disable\n\
         if [ -d /run/systemd/system ]; then systemctl mask oar-server.service; fi\n"
    );
    Step::new(number, "OAR's server is stopped and not started at boot, nor by its package")
        .tells(
            "oar-server is disabled (update-rc.d) and masked (systemd)",
            "systemctl unmask oar-server; update-rc.d oar-server enable; systemctl start oar-server",
        )
        .scripts(done, act)
}

/// The other server's own database and OAR, before it joins.
pub(super) fn backup_stops(subject: &Subject<'_>) -> Vec<Step> {
    let second = subject.servers[1];
    let mut steps = stops(subject, second);
    let (path, data) = (&subject.database.data_dir, quoted(&subject.database.data_dir));
    let aside = quoted(&format!("{path}{KEPT}{}", subject.wish.date));
    // A copy that oarlock has marked is its own, whatever state it is in.
    let done = format!(
        "[ ! -e {data} ] || [ -z \"$(ls -A {data})\" ] || [ -e {data}/oarlock-copy-id ]\n[ -d \"$(dirname {data})\" ]\n"
    );
    let act = format!(
        "[ -d \"$(dirname {data})\" ] || install -d -o postgres -g postgres -m 755 \"$(dirname {data})\"\n\
         if [ -e {data} ]; then mv {data} {aside}; fi\n"
    );
    steps.push(
        Step::new(second, "there is room for a copy of the data")
            .tells(format!("{path}, if there was one, is kept as {path}{KEPT}{}", subject.wish.date), "mv it back")
            .scripts(done, act),
    );
    steps
}

/// The outage begins: the preferred server's OAR and database are put down, in this order.
pub(super) fn preferred_stops(subject: &Subject<'_>) -> Vec<Step> {
    let first = subject.servers[0];
    let mut steps = stops(subject, first);
    if subject.oar.is_some() {
        let conf = oar_conf(subject, &subject.facts[first].text(OAR_CONF).unwrap_or_default());
        let file = Wanted { path: OAR_CONF, content: conf.as_bytes(), mode: "600", owner: OAR_OWNER };
        let title = format!("OAR's database and server are {}", subject.wish.service);
        steps.push(put(first, &title, &[file], &subject.wish.date));
    }
    if let Some(step) = steps.first_mut() {
        step.stops = true;
    }
    steps
}

/// Frontends and compute nodes.
pub(super) fn clients(subject: &Subject<'_>) -> Vec<Step> {
    if subject.oar.is_none() {
        return Vec::new();
    }
    let others = subject.witnesses.iter().chain(&subject.clients).copied();
    let client = |number: usize| {
        let conf = oar_conf(subject, &subject.facts[number].text(OAR_CONF)?);
        let file = Wanted { path: OAR_CONF, content: conf.as_bytes(), mode: "600", owner: OAR_OWNER };
        let title = format!("OAR's database and server are {}", subject.wish.service);
        Some(put(number, &title, &[file], &subject.wish.date))
    };
    others.filter_map(client).collect()
}
