//! Back to a plain single server, with the data as they are now.

use super::edits;
use super::facts::{Facts, PgCluster, Server};
use super::plan::{CONFIG, HOSTS, Plan, Problem};
use super::step::{KEPT, SHORT_S, Step, Wanted, put, quoted};
use std::net::IpAddr;

/// Says on the machine that goes on alone that it had the service when its agent was stopped.
const MARKER: &str = "/var/lib/oarlock/undeploying";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Names of the machines.
    pub machines: &'a [String],
    /// Number of the one that goes on alone.
    pub keep: usize,
    /// What the service is called.
    pub service: &'a str,
    /// Name of what is kept of former states: a date.
    pub date: &'a str,
}

/// Makes the plan.
///
/// # Errors
/// With all problems at once.
pub fn undo(wish: &Wish<'_>, facts: &[Facts]) -> Result<Plan, Vec<Problem>> {
    let Wish { machines, keep, .. } = *wish;
    let mut problems = Vec::new();
    for (facts, name) in facts.iter().zip(machines) {
        if facts.uid != Some(0) {
            let text = format!("commands on {name} do not run as root");
            problems.push(Problem { text, hint: "--user root, or a configuration of ssh".into() });
        }
    }
    let cluster = facts.get(keep).and_then(|facts| facts.clusters.iter().find(|cluster| cluster.marked));
    let name = machines.get(keep).map(String::as_str).unwrap_or_default();
    if cluster.is_none() {
        let text = format!("{name} has no database that oarlock ran");
        problems.push(Problem { text, hint: "--keep names the server that has the service now".into() });
    }
    for (number, (facts, other)) in facts.iter().zip(machines).enumerate() {
        let plain = facts.clusters.iter().any(|cluster| cluster.marked && cluster.server == Server::Running);
        if number != keep && (plain || facts.almighty_foreign) {
            let text = format!("{other} runs the service already, not under oarlock");
            problems.push(Problem { text, hint: "has undeploy been run with another --keep?".into() });
        }
    }
    let settings =
        facts.get(keep).and_then(|facts| facts.text(CONFIG)).and_then(|text| crate::config::parse(CONFIG, &text).ok());
    let address = settings.as_ref().and_then(|settings| settings.node(name)?.links.first().copied());
    if address.is_none() {
        let text = format!("{name} is no node of a cluster");
        problems.push(Problem { text, hint: "is it undeployed already? is it called otherwise there?".into() });
    }
    let (Some(cluster), Some(address), true) = (cluster, address, problems.is_empty()) else { return Err(problems) };
    Ok(Plan {
        machines: machines.to_vec(),
        found: vec![format!("PostgreSQL {} \"{}\" in {}", cluster.version, cluster.name, cluster.data_dir)],
        steps: steps(wish, facts, cluster, address),
        notes: vec![
            format!("the other copies in {} stay where they are; nothing starts them", cluster.data_dir),
            format!("what deploy changed beside and stays harmless is as it was in FILE{KEPT}DATE, beside each file"),
            "the role oarlock_replication stays in the database; drop role removes it once no copy follows".to_owned(),
        ],
    })
}

fn steps(wish: &Wish<'_>, facts: &[Facts], cluster: &PgCluster, address: IpAddr) -> Vec<Step> {
    let Wish { machines, keep, date, .. } = *wish;
    let mut steps = vec![owns(keep, &machines[keep])];
    let nodes: Vec<usize> = (0..facts.len()).filter(|number| facts[*number].oarlock.is_some()).collect();
    // The owner last: until then everything it acknowledges is where it will stay.
    let order = nodes.iter().copied().filter(|number| *number != keep).chain([keep]);
    let mut stops: Vec<Step> = order.map(|number| agent_stops(number, cluster)).collect();
    if let Some(first) = stops.first_mut() {
        first.stops = true;
    }
    steps.extend(stops);
    steps.extend((0..facts.len()).map(|number| named(number, &facts[number], wish, address)));
    steps.push(database_files(keep, &facts[keep], cluster, date));
    steps.push(database_starts(keep, cluster));
    if facts[keep].oar_server {
        steps.push(oar_starts(keep));
    }
    if let Some(last) = steps.last_mut() {
        last.serves = true;
    }
    // Its configuration is what a second attempt plans from.
    let (own, others): (Vec<usize>, Vec<usize>) = nodes.into_iter().partition(|number| *number == keep);
    steps.extend(others.into_iter().chain(own).map(|number| aside(number, date)));
    steps
}

/// Only the owner's copy surely holds everything that was acknowledged.
fn owns(keep: usize, name: &str) -> Step {
    let owner = quoted(&format!("\"owner\":\"{name}\""));
    let marked = format!("[ -e {MARKER} ]\n");
    let act = format!(
        "status=$(oarlock status --json)\n\
         if ! printf '%s' \"$status\" | grep -qF {owner} || printf '%s' \"$status\" | grep -oE '\"owner\":(null|\"[^\"]*\")' \
         | grep -vqF {owner}; then\n\
         echo 'it has not the service: its copy may lack what others hold' >&2\n\
         echo 'hint: oarlock move GROUP NODE brings it there, or --keep the one that has it' >&2\nexit 1\nfi\n\
         : >{MARKER}\n"
    );
    Step::new(keep, "it has the service: its copy of the data holds everything")
        .tells(format!("{MARKER} is written"), format!("rm {MARKER}"))
        .scripts(marked, act)
}

fn agent_stops(number: usize, cluster: &PgCluster) -> Step {
    let data = quoted(&cluster.data_dir);
    let left = format!(
        "left() {{\npid=$(head -n1 {data}/postmaster.pid 2>/dev/null) || return 1\n\
         [ -n \"$pid\" ] && [ \"$(readlink \"/proc/$pid/cwd\")\" = \"$(readlink -f {data})\" ] && ours \"$pid\"\n}}\n"
    );
    let done =
        format!("{left}if systemctl --quiet is-active oarlock.service; then exit 1; fi\nif left; then exit 1; fi\n");
    // Without a majority, or when the grace ends, the sentinel ends all that runs; a standby may stay.
    let act = format!(
        "{left}systemctl disable oarlock.service\nsystemctl stop oarlock.service\n\
         for _ in $(seq 300); do left || break; sleep 0.1; done\n\
         if left; then kill -INT \"$pid\"; fi\n\
         for _ in $(seq 300); do left || break; sleep 0.1; done\n"
    );
    Step::new(number, "the agent is stopped, and what it ran")
        .tells("the service oarlock is disabled", "systemctl enable --now oarlock")
        .scripts(done, act)
        .within(3 * SHORT_S)
}

/// The service's name means the machine that goes on; what says so to OAR's programs stays.
fn named(number: usize, facts: &Facts, wish: &Wish<'_>, address: IpAddr) -> Step {
    let content = edits::hosts(&facts.text(HOSTS).unwrap_or_default(), wish.service, address);
    let file = Wanted { path: HOSTS, content: content.as_bytes(), mode: "644", owner: "root:root" };
    put(number, &format!("{} is {address} in {HOSTS}", wish.service), &[file], wish.date)
}

/// The system starts the database at boot, and it listens where OAR's programs look for it.
fn database_files(keep: usize, facts: &Facts, cluster: &PgCluster, date: &str) -> Step {
    let dir = cluster.conf_dir();
    let (start, listen) = (format!("{dir}/start.conf"), format!("{dir}/conf.d/listen.conf"));
    let content = edits::start(&facts.text(&start).unwrap_or_default(), "auto");
    let owner = "postgres:postgres";
    let mut files = vec![Wanted { path: &start, content: content.as_bytes(), mode: "644", owner }];
    let own = |path: &String| path.starts_with(&dir) && *path != listen && !path.contains(KEPT);
    let told = facts
        .files
        .iter()
        .filter(|(path, _)| own(path))
        .any(|(_, file)| file.text().lines().any(|line| line.trim_start().starts_with("listen_addresses")));
    if !told {
        // Under oarlock it listened everywhere, whatever its file said.
        files.push(Wanted { path: &listen, content: b"listen_addresses = '*'\n", mode: "644", owner });
    }
    put(keep, "the system starts the database at boot, and it listens as it did", &files, date)
}

fn database_starts(keep: usize, cluster: &PgCluster) -> Step {
    let (data, version, name) = (quoted(&cluster.data_dir), quoted(&cluster.version), quoted(&cluster.name));
    let done = format!(
        "pid=$(head -n1 {data}/postmaster.pid)\n[ \"$(readlink \"/proc/$pid/cwd\")\" = \"$(readlink -f {data})\" ]\n\
         if ours \"$pid\"; then exit 1; fi\npg_lsclusters -h | grep -Eq \"^\"{version}\" +\"{name}\" .* online \"\n"
    );
    let act = format!("pg_ctlcluster {version} {name} start\n");
    Step::new(keep, format!("PostgreSQL {} \"{}\" runs as the system's own", cluster.version, cluster.name))
        .tells("it is started", "pg_ctlcluster … stop")
        .scripts(done, act)
        .within(5 * SHORT_S)
}

fn oar_starts(keep: usize) -> Step {
    let done = "ls /etc/rc[2345].d/S*oar-server >/dev/null\nfor each in /proc/[0-9]*; do\n\
        case \"$(tr '\\0' ' ' <\"$each/cmdline\" 2>/dev/null)\" in\n'Almighty: appendice'*) exit 0 ;;\nesac\ndone\nexit 1\n";
    let act = format!(
        "update-rc.d oar-server enable\n\
         if [ -d /run/systemd/system ]; then systemctl unmask oar-server.service; systemctl start oar-server.service\n\
         else /etc/init.d/oar-server start; fi\n\
         seen() {{ ({done}) }}\nfor _ in $(seq 200); do if seen; then exit 0; fi; sleep 0.1; done\n\
         echo 'no Almighty after 20 s' >&2\nexit 1\n"
    );
    Step::new(keep, "OAR's server runs as the system's own")
        .tells("oar-server is enabled, unmasked and started", "update-rc.d oar-server disable")
        .scripts(done, act)
        .within(2 * SHORT_S)
}

fn aside(number: usize, date: &str) -> Step {
    let act = format!(
        "for each in /etc/oarlock /var/lib/oarlock; do\n\
         if [ -e \"$each\" ]; then mv \"$each\" \"$each.before-undeploy-{date}\"; fi\ndone\n"
    );
    Step::new(number, "it is no node any more")
        .tells(format!("/etc/oarlock and /var/lib/oarlock are kept as ….before-undeploy-{date}"), "mv them back")
        .scripts("[ ! -e /etc/oarlock/oarlock.toml ] && [ ! -e /var/lib/oarlock ]\n", act)
}
