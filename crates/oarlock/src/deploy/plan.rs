//! From what is found on the machines and what is wanted to the steps between them.

use super::edits;
use super::facts::{Facts, PgCluster};
use super::server;
use super::step::{Act, CLONE_S, INSTALL_S, SHORT_S, Step, Wanted, put, quoted};
use crate::profiles::oar::conf::OarConf;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Name of the cluster.
    pub cluster: String,
    /// Preset of times, as `init` takes it.
    pub timing: String,
    /// The servers, the preferred one first, then the witnesses.
    pub nodes: Vec<Node>,
    /// Machines that only have to know where the service is: frontends, compute nodes.
    pub clients: Vec<String>,
    /// The service address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Interface of the address, if it is not to be found by its network.
    pub interface: Option<String>,
    /// What the service address is called in /etc/hosts.
    pub service: String,
    /// Which of several database clusters: version and name.
    pub postgresql: Option<(String, String)>,
    /// The version of oarlock that all shall have.
    pub version: String,
    /// Its package, for machines that lack it.
    pub package: Option<Vec<u8>>,
    /// Whether a database on the other server that somebody may have put data into is set aside.
    pub set_aside: bool,
    /// Name of what is kept of former states: a date.
    pub date: String,
}

/// A machine that becomes a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, by which ssh reaches it too.
    pub name: String,
    /// Its addresses, one per link.
    pub links: Vec<IpAddr>,
    /// Whether it only votes.
    pub witness: bool,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub text: String,
    /// What can be done about it.
    pub hint: String,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    /// Names of the machines, by number.
    pub machines: Vec<String>,
    /// What was found and will be taken over.
    pub found: Vec<String>,
    /// In order.
    pub steps: Vec<Step>,
    /// What is left to the administrator.
    pub notes: Vec<String>,
}

/// What the plan is about, once the facts are known to allow it.
pub(super) struct Subject<'a> {
    pub wish: &'a Wish,
    pub facts: &'a [Facts],
    /// Numbers of the servers, the preferred one first.
    pub servers: [usize; 2],
    pub witnesses: Vec<usize>,
    pub clients: Vec<usize>,
    /// The database that is taken over.
    pub database: &'a PgCluster,
    /// OAR's configuration on the preferred server, where OAR is.
    pub oar: Option<OarConf>,
}

/// Makes the plan, or says everything that stands against it.
///
/// # Errors
/// With all problems at once.
pub fn plan(wish: &Wish, facts: &[Facts]) -> Result<Plan, Vec<Problem>> {
    let mut problems = Vec::new();
    let names: Vec<String> = machines(wish);
    machines_allow(wish, facts, &names, &mut problems);
    let subject = server::subject(wish, facts, &names, &mut problems);
    let Some(subject) = subject.filter(|_| problems.is_empty()) else { return Err(problems) };
    Ok(Plan { found: found(&subject), steps: steps(&subject), notes: notes(&subject), machines: names })
}

/// Names of all machines that are looked at: the nodes, then the others.
#[must_use]
pub fn machines(wish: &Wish) -> Vec<String> {
    wish.nodes.iter().map(|node| node.name.clone()).chain(wish.clients.iter().cloned()).collect()
}

fn machines_allow(wish: &Wish, facts: &[Facts], names: &[String], problems: &mut Vec<Problem>) {
    let mut problem = |text: String, hint: String| problems.push(Problem { text, hint });
    for (facts, name) in facts.iter().zip(names) {
        if facts.uid != Some(0) {
            problem(format!("commands on {name} do not run as root"), "--user root, or a configuration of ssh".into());
        }
        let ours = crate::config::parse("oarlock.toml", &facts.text(CONFIG).unwrap_or_default());
        let cluster = ours.map(|settings| settings.cluster).unwrap_or_default();
        if facts.text(CONFIG).is_some() && cluster != wish.cluster {
            problem(
                format!("{name} is a node of the cluster \"{cluster}\" already"),
                format!("another --cluster, or undeploy that one, or move {CONFIG} away there"),
            );
        } else if facts.text(CONFIG).is_none() && facts.addresses.contains(&wish.address) {
            problem(
                format!("{name} has the address {} already", wish.address),
                "it shall move: choose one that no machine has, or take it off there".into(),
            );
        }
    }
    for (node, facts) in wish.nodes.iter().zip(facts) {
        let name = &node.name;
        match &facts.oarlock {
            Some(version) if *version == wish.version => {}
            _ if wish.package.is_some() => {}
            Some(version) => problem(
                format!("{name} has oarlock {version}, this is {}", wish.version),
                "--package FILE installs it there".into(),
            ),
            None => problem(format!("{name} has no oarlock"), "--package FILE installs it there".into()),
        }
        for link in node.links.iter().filter(|link| !facts.addresses.contains(*link)) {
            problem(
                format!("{name} has not the address {link}"),
                "an address that the machine has on that network; is the name right?".into(),
            );
        }
        if !node.witness && node.links.contains(&wish.address) {
            problem(format!("{} is an address of {name}", wish.address), "the service needs one of its own".into());
        }
    }
}

/// The configuration on each node.
pub(super) const CONFIG: &str = "/etc/oarlock/oarlock.toml";
/// Names that need no server.
pub(super) const HOSTS: &str = "/etc/hosts";
/// OAR's configuration.
pub(super) const OAR_CONF: &str = "/etc/oar/oar.conf";

fn found(subject: &Subject<'_>) -> Vec<String> {
    let database = subject.database;
    let first = &subject.wish.nodes[subject.servers[0]].name;
    let mut found = vec![format!(
        "PostgreSQL {} \"{}\" on {first}: {} MiB in {}, port {}",
        database.version,
        database.name,
        database.data_kib.unwrap_or_default() / 1024,
        database.data_dir,
        database.port
    )];
    if subject.oar.is_some() {
        found.push(format!("OAR's server on {first}, configured in {OAR_CONF}"));
    }
    found
}

fn notes(subject: &Subject<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if subject.oar.is_some() {
        let service = &subject.wish.service;
        notes.push(format!(
            "machines that use OAR and were not named with --client still look for the server where it was: set \
             DB_HOSTNAME and SERVER_HOSTNAME to {service} in their {OAR_CONF}"
        ));
        notes.push(
            "compute nodes that start OAR's ssh server by asking the server over ssh (/etc/default/oar-node) meet \
             another host key under its name after a takeover, until both servers have the same host keys"
                .to_owned(),
        );
    }
    notes
}

fn steps(subject: &Subject<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let wish = subject.wish;
    for number in 0..wish.nodes.len() {
        steps.extend(package(wish, number));
    }
    steps.extend(server::backup_packages(subject));
    if subject.oar.is_some() {
        steps.extend((0..subject.facts.len()).map(|number| hosts(subject, number)));
        steps.extend(server::backup_oar(subject));
    }
    steps.extend(server::database_files(subject));
    steps.extend(server::backup_stops(subject));
    let [first, second] = subject.servers;
    steps.push(init(subject, first));
    steps.push(agent(first, "the agent runs; alone it has no majority and touches nothing"));
    for node in subject.witnesses.iter().copied().chain([second]) {
        steps.push(join(node, first));
    }
    steps.extend(server::preferred_stops(subject));
    for witness in &subject.witnesses {
        let text = format!("the agent votes: {} becomes the owner", wish.nodes[first].name);
        steps.push(agent(*witness, &text));
    }
    steps.push(serves(first));
    steps.extend(server::clients(subject));
    steps.push(agent(second, "the agent copies the database and follows it"));
    steps.push(in_sync(first));
    steps
}

fn package(wish: &Wish, number: usize) -> Option<Step> {
    let package = wish.package.as_ref()?;
    let act = format!(
        "file=$(mktemp --tmpdir=/var/tmp --suffix=.deb)\nbase64 -d >\"$file\" <<'END'\n{}\nEND\n\
         dpkg --install \"$file\" || apt-get --yes --fix-broken install\nrm -f \"$file\"\n",
        STANDARD.encode(package)
    );
    let done = format!("[ \"$(oarlock --version)\" = {} ]\n", quoted(&format!("oarlock {}", wish.version)));
    Some(
        Step::new(number, format!("oarlock {} is installed", wish.version))
            .tells("the package oarlock", "apt remove oarlock")
            .scripts(done, act)
            .within(INSTALL_S),
    )
}

fn hosts(subject: &Subject<'_>, number: usize) -> Step {
    let wish = subject.wish;
    let text = subject.facts[number].text(HOSTS).unwrap_or_default();
    let content = edits::hosts(&text, &wish.service, wish.address);
    let file = Wanted { path: HOSTS, content: content.as_bytes(), mode: "644", owner: "root:root" };
    put(number, &format!("{} is {} in {HOSTS}", wish.service, wish.address), &[file], &wish.date)
}

fn init(subject: &Subject<'_>, first: usize) -> Step {
    let wish = subject.wish;
    let mut arguments = vec!["--cluster".to_owned(), wish.cluster.clone(), "--timing".into(), wish.timing.clone()];
    for node in &wish.nodes {
        let links: Vec<String> = node.links.iter().map(ToString::to_string).collect();
        arguments.push(if node.witness { "--witness" } else { "--node" }.to_owned());
        arguments.push(format!("{}={}", node.name, links.join(",")));
    }
    arguments.extend(["--address".into(), format!("{}/{}", wish.address, wish.prefix)]);
    if let Some(interface) = &wish.interface {
        arguments.extend(["--interface".into(), interface.clone()]);
    }
    let database = subject.database;
    arguments.extend(["--postgresql".into(), database.version.clone()]);
    arguments.extend(["--postgresql-port".into(), database.port.to_string()]);
    arguments.extend(["--data-dir".into(), database.data_dir.clone()]);
    if subject.oar.is_some() {
        arguments.extend(["--profile".into(), "oar".into()]);
    }
    arguments.extend(["--this".into(), wish.nodes[first].name.clone()]);
    let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    Step::new(first, format!("the cluster \"{}\" is configured", wish.cluster))
        .tells(
            format!("{CONFIG}, key and secrets beside it"),
            format!("mv /etc/oarlock /etc/oarlock{}{}", super::step::KEPT, wish.date),
        )
        // The token goes nowhere: each machine gets a new one when it joins.
        .scripts(format!("[ -e {CONFIG} ]\n"), format!("oarlock init {} >/dev/null\n", words.join(" ")))
}

fn join(number: usize, inviter: usize) -> Step {
    let mut step =
        Step::new(number, "it has its key and the cluster's secrets, fetched with a token that is good once")
            .tells(format!("{CONFIG}, key and secrets beside it"), "mv /etc/oarlock away")
            .scripts(format!("[ -e {CONFIG} ] && [ -e /etc/oarlock/node.key ]\n"), "")
            .within(2 * SHORT_S);
    step.act = Act::Join { inviter };
    step
}

fn agent(number: usize, text: &str) -> Step {
    Step::new(number, text)
        .tells("the service oarlock is started, now and at boot", "systemctl disable --now oarlock")
        .scripts(
            "systemctl --quiet is-active oarlock.service\n",
            "systemctl enable oarlock.service\nsystemctl start oarlock.service\n",
        )
        .within(2 * SHORT_S)
}

fn serves(first: usize) -> Step {
    let done = "oarlock status --json | grep -q '\"state\":\"started\"'\n";
    // The agent saw the system's own server on the data when it started, and does not look again by itself.
    let look_again = "if oarlock status --json 2>/dev/null | grep -q '\"state\":\"foreign\"'; then\n\
        systemctl restart oarlock.service\nfi\n";
    let mut step = Step::new(first, "the service is back, under oarlock")
        .tells("nothing", "oarlock undeploy")
        .scripts(done, wait_for(done, look_again, 2 * SHORT_S))
        .within(3 * SHORT_S);
    step.serves = true;
    step
}

fn in_sync(first: usize) -> Step {
    let done = "[ \"$(oarlock status --json | grep -o '\"in_sync\":true' | wc -l)\" -ge 2 ]\n";
    Step::new(first, "both copies hold everything: either server may fail from here on")
        .tells("nothing", "")
        .scripts(done, wait_for(done, "", CLONE_S - SHORT_S))
        .within(CLONE_S)
}

/// Looks again and again. In a condition no failure ends `done` by itself: each must say `exit 1` or be the last.
fn wait_for(done: &str, meanwhile: &str, seconds: u64) -> String {
    format!(
        "seen() (\n{done})\nend=$(($(date +%s) + {seconds}))\n\
         until seen; do\nif [ \"$(date +%s)\" -ge \"$end\" ]; then\necho 'not in time' >&2\noarlock status >&2 || true\n\
         exit 1\nfi\n{meanwhile}sleep 0.3\ndone\n"
    )
}
