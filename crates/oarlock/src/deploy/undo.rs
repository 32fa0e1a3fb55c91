//! Back to a plain single server, with the data as they are now.

use super::facts::{Facts, PgCluster, Server};
use super::plan::{Plan, Problem};
use super::step::{KEPT, SHORT_S, Step, quoted};

/// Says on the machine that goes on alone that it had the service when its agent was stopped.
const MARKER: &str = "/var/lib/oarlock/undeploying";

/// Makes the plan; `keep` is the number of the machine that goes on alone.
///
/// # Errors
/// With all problems at once.
pub fn undo(machines: &[String], facts: &[Facts], keep: usize, date: &str) -> Result<Plan, Vec<Problem>> {
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
    let Some(cluster) = cluster.filter(|_| problems.is_empty()) else { return Err(problems) };
    Ok(Plan {
        machines: machines.to_vec(),
        found: vec![format!("PostgreSQL {} \"{}\" in {}", cluster.version, cluster.name, cluster.data_dir)],
        steps: steps(machines, facts, keep, cluster, date),
        notes: vec![
            format!("the other copies in {} stay where they are; nothing starts them", cluster.data_dir),
            "the role oarlock_replication stays in the database; drop role removes it once no copy follows".to_owned(),
        ],
    })
}

fn steps(machines: &[String], facts: &[Facts], keep: usize, cluster: &PgCluster, date: &str) -> Vec<Step> {
    let mut steps = vec![owns(keep, &machines[keep])];
    let nodes: Vec<usize> = (0..facts.len()).filter(|number| facts[*number].oarlock.is_some()).collect();
    // The owner last: until then everything it acknowledges is where it will stay.
    let order = nodes.iter().copied().filter(|number| *number != keep).chain([keep]);
    let mut stops: Vec<Step> = order.map(|number| agent_stops(number, cluster)).collect();
    if let Some(first) = stops.first_mut() {
        first.stops = true;
    }
    steps.extend(stops);
    steps.extend((0..facts.len()).map(|number| restored(number, number == keep, date)));
    steps.push(database_starts(keep, cluster));
    if facts[keep].oar_server {
        steps.push(oar_starts(keep));
    }
    if let Some(last) = steps.last_mut() {
        last.serves = true;
    }
    steps.extend(nodes.into_iter().map(|number| aside(number, date)));
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
    let done = format!("{left}if systemctl --quiet is-active oarlock.service; then exit 1; fi\nif left; then exit 1; fi\n");
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

/// What deploy keeps beside files, put back; what was there is kept in turn.
fn restored(number: usize, keeps: bool, date: &str) -> Step {
    // Nothing shall start the copy that was left behind.
    let but = if keeps { "" } else { "*/start.conf) continue ;;\n" };
    let list = format!(
        "list() {{\nls -d /etc/hosts{KEPT}* /etc/oar/*{KEPT}* /etc/postgresql/*/*/*{KEPT}* \
         /etc/postgresql/*/*/conf.d/*{KEPT}* /var/lib/oar/.ssh/*{KEPT}* 2>/dev/null | grep -v '\\.restored$' | sort |\n\
         while read -r kept; do\ncase \"${{kept%%{KEPT}*}}\" in\n{but}*) echo \"$kept\" ;;\nesac\ndone\n}}\n"
    );
    // The oldest is the state before oarlock; those that came later are marked alone.
    let act = format!(
        "{list}last=\nlist | while read -r kept; do\npath=${{kept%%{KEPT}*}}\n\
         if [ \"$path\" != \"$last\" ]; then\nlast=$path\n\
         if [ -e \"$path\" ]; then cp -p \"$path\" \"$path.before-undeploy-{date}\"; fi\n\
         case \"$kept\" in\n*.absent) rm -f \"$path\" ;;\n\
         *) cp -p \"$kept\" \"$path.oarlock-new\"; mv \"$path.oarlock-new\" \"$path\" ;;\nesac\nfi\n\
         mv \"$kept\" \"$kept.restored\"\ndone\n"
    );
    Step::new(number, "the files that deploy changed are as they were")
        .tells(
            format!("each FILE{KEPT}DATE is FILE again; what was there is kept as FILE.before-undeploy-{date}"),
            format!("mv FILE.before-undeploy-{date} FILE"),
        )
        .scripts(format!("{list}[ -z \"$(list)\" ]\n"), act)
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
