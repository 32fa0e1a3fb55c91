//! Plans from canned facts.

use super::facts::{Facts, FactsError, Server};
use super::plan::{Node, OAR_CONF, Plan, Problem, Wish, plan};
use super::step::{Act, HEAD, Step};
use super::undo;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::Write as _;
use std::process::{Command, Stdio};

const DATE: &str = "20260321-120000";
const CONF: &str = "DB_TYPE=\"Pg\"\nDB_HOSTNAME=\"localhost\"\nDB_PORT=\"5432\"\nDB_BASE_NAME=\"oar\"\nDB_BASE_LOGIN=\"oar\"\n\
    DB_BASE_PASSWD=\"s3cret\"\nDB_BASE_LOGIN_RO=\"oar_ro\"\nSERVER_HOSTNAME=\"localhost\"\nSERVER_PORT=\"6666\"\n";

fn file(path: &str, text: &str) -> String {
    format!("file 640 postgres postgres {path} {}\n", STANDARD.encode(text))
}

/// A server with a database; `cluster` is what is special about that.
fn server(address: &str, cluster: &str, databases: &str) -> String {
    let dir = "/etc/postgresql/15/main";
    format!(
        "uid 0\nhost x\napt yes\noarlock {}\naddress {address}/24\n{}postgresql 15\n\
         cluster 15 main 5432 {cluster} 900000 /var/lib/postgresql/15/main\n{databases}{}{}{}oar-server yes\n{}oar-boot yes\nend\n",
        env!("CARGO_PKG_VERSION"),
        file("/etc/hosts", "127.0.0.1 localhost\n"),
        file(&format!("{dir}/pg_hba.conf"), "local all all peer\n"),
        file(&format!("{dir}/postgresql.conf"), "data_directory = '/var/lib/postgresql/15/main'\n"),
        file(&format!("{dir}/start.conf"), "auto\n"),
        file(OAR_CONF, CONF),
    )
}

fn machines() -> [String; 3] {
    let first = server("10.0.0.1", "running no 80000", "databases 15 main 1\n");
    let second = server("10.0.0.2", "running no 40000", "databases 15 main 0\n");
    let version = env!("CARGO_PKG_VERSION");
    let witness = format!(
        "uid 0\nhost f\noarlock {version}\naddress 10.0.0.10/24\n{}{}end\n",
        file("/etc/hosts", ""),
        file(OAR_CONF, CONF)
    );
    [first, second, witness]
}

fn wish() -> Wish {
    let node =
        |name: &str, link: &str, witness| Node { name: name.into(), links: vec![link.parse().unwrap()], witness };
    Wish {
        cluster: "genepi".into(),
        timing: "balanced".into(),
        nodes: vec![
            node("server1", "10.0.0.1", false),
            node("server2", "10.0.0.2", false),
            node("frontend", "10.0.0.10", true),
        ],
        clients: Vec::new(),
        address: "10.0.0.100".parse().unwrap(),
        prefix: 24,
        interface: None,
        service: "oar".into(),
        postgresql: None,
        version: env!("CARGO_PKG_VERSION").into(),
        package: None,
        set_aside: false,
        date: DATE.into(),
    }
}

fn planned(wish: &Wish, texts: &[String]) -> Result<Plan, Vec<Problem>> {
    let facts: Vec<Facts> = texts.iter().map(|text| Facts::parse(text).unwrap()).collect();
    plan(wish, &facts)
}

fn script(step: &Step) -> &str {
    match &step.act {
        Act::Script(script) => script,
        Act::Join { .. } => "",
    }
}

/// The problem that one change of the facts or the wish makes, alone.
fn problem(wish: &Wish, texts: &[String]) -> String {
    let problems = planned(wish, texts).err().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].text.clone()
}

#[test]
fn facts_are_read_past_a_greeting_and_refused_when_cut() {
    let [first, ..] = machines();
    let facts = Facts::parse(&format!("Welcome!\n{first}")).unwrap();
    assert_eq!((facts.clusters[0].server, facts.clusters[0].databases), (Server::Running, Some(1)));
    assert_eq!(facts.text("/etc/postgresql/15/main/start.conf").as_deref(), Some("auto\n"));
    assert_eq!(Facts::parse(first.trim_end_matches("end\n")), Err(FactsError::Cut));
    assert!(matches!(Facts::parse("uid 0\nnonsense\nend\n"), Err(FactsError::Line(_))));
    assert_eq!(Facts::parse("uid 0\nfile 644 root root /empty \nend\n").unwrap().text("/empty").as_deref(), Some(""));
}

#[test]
fn the_service_is_touched_only_where_the_plan_says_so() {
    let plan = planned(&wish(), &machines()).unwrap();
    let stops = plan.steps.iter().position(|step| step.stops).unwrap();
    let serves = plan.steps.iter().position(|step| step.serves).unwrap();
    assert!(stops < serves);
    let touches = |step: &Step| {
        let script = script(step);
        step.machine == 0 && ["pg_ctlcluster", "kill", "stop", "mv '/var/lib"].iter().any(|word| script.contains(word))
    };
    let touching: Vec<usize> = (0..plan.steps.len()).filter(|number| touches(&plan.steps[*number])).collect();
    assert!(!touching.is_empty() && touching.iter().all(|number| (stops..=serves).contains(number)), "{touching:?}");
    // Nobody has a majority before the database is down: the witness's agent is the second to start.
    let starts = |step: &Step| script(step).contains("systemctl start oarlock");
    let agents: Vec<(usize, usize)> =
        plan.steps.iter().enumerate().filter(|(_, step)| starts(step)).map(|(at, step)| (step.machine, at)).collect();
    let down = plan.steps.iter().rposition(|step| script(step).contains("pg_ctlcluster")).unwrap();
    assert_eq!(agents.iter().map(|(machine, _)| *machine).collect::<Vec<_>>(), [0, 2, 1]);
    assert!(agents[0].1 < stops && agents[1].1 > down && agents[2].1 > serves);
}

#[test]
fn secrets_are_in_nothing_that_is_shown() {
    let plan = planned(&wish(), &machines()).unwrap();
    let all: String =
        plan.steps.iter().map(|step| format!("{}{}{}{}", step.title, step.changes, step.undo, step.done)).collect();
    assert!(!all.contains("s3cret") && !plan.notes.concat().contains("s3cret"));
}

#[test]
fn a_shell_understands_every_script() {
    let plan = planned(&wish(), &machines()).unwrap();
    let back = undone("server1", &deployed()).unwrap();
    for step in plan.steps.iter().chain(&back.steps) {
        for text in [step.done.as_str(), script(step)] {
            let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            shell.stdin.take().unwrap().write_all(format!("{HEAD}{text}").as_bytes()).unwrap();
            let output = shell.wait_with_output().unwrap();
            assert!(output.status.success(), "{}: {}", step.title, String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn every_step_says_what_it_changes_and_how_that_is_undone() {
    for step in planned(&wish(), &machines()).unwrap().steps {
        assert!(!step.changes.is_empty() && !step.done.is_empty(), "{}", step.title);
        assert!(!step.undo.is_empty() || step.changes == "nothing", "{}", step.title);
    }
}

#[test]
fn data_that_somebody_may_miss_are_not_moved() {
    let [first, _, witness] = machines();
    let with =
        |cluster: &str, databases: &str| [first.clone(), server("10.0.0.2", cluster, databases), witness.clone()];
    for (cluster, databases) in [
        ("running no 40000", "databases 15 main 1\n"),
        ("running no 40000", "databases 15 main unknown\n"),
        ("running no 40000", ""),
        ("down no 400000", ""),
    ] {
        let said = problem(&wish(), &with(cluster, databases));
        assert!(said.contains("may hold data of its own"), "{said}");
        let allowed = Wish { set_aside: true, ..wish() };
        assert!(planned(&allowed, &with(cluster, databases)).is_ok());
    }
    // Empty, absent, or a copy of ours.
    for cluster in ["down no 40000", "down no absent", "ours yes 900000"] {
        assert!(planned(&wish(), &with(cluster, "")).is_ok(), "{cluster}");
    }
    assert!(problem(&wish(), &with("down no 1", "").map(|text| text.replace(" 900000 ", " 50000 "))).contains("free"));
}

#[test]
fn what_stands_against_a_plan_is_said() {
    let [first, second, witness] = machines();
    let swap = |from: &str, to: &str| [first.replace(from, to), second.clone(), witness.clone()];
    for (texts, expected) in [
        (swap("uid 0", "uid 1000"), "commands on server1 do not run as root"),
        (swap("address 10.0.0.1/24", "address 10.0.0.7/24"), "server1 has not the address 10.0.0.1"),
        (
            swap("address 10.0.0.1/24", "address 10.0.0.1/24\naddress 10.0.0.100/24"),
            "server1 has the address 10.0.0.100 already",
        ),
    ] {
        assert_eq!(problem(&wish(), &texts), expected);
    }
    let lacks = swap(&format!("oarlock {}\n", env!("CARGO_PKG_VERSION")), "");
    assert_eq!(problem(&wish(), &lacks), "server1 has no oarlock");
    let elsewhere = Wish { nodes: wish().nodes[..2].to_vec(), ..wish() };
    assert_eq!(problem(&elsewhere, &machines()[..2]), "a deployment of two servers has one witness");
    let other = Wish { postgresql: Some(("17".into(), "main".into())), ..wish() };
    assert!(problem(&other, &machines()).contains("has no such database cluster"));
}

/// The three machines once everything is done.
fn deployed() -> [String; 3] {
    let config = "[cluster]\nname = \"genepi\"\n\n";
    let mut nodes = String::new();
    for (id, (name, link)) in
        [("server1", "10.0.0.1"), ("server2", "10.0.0.2"), ("frontend", "10.0.0.10")].iter().enumerate()
    {
        let key = crate::keys::PrivateKey::generate().unwrap().public();
        let role = if *name == "frontend" { "role = \"witness\"\n" } else { "" };
        nodes +=
            &format!("[[node]]\nname = \"{name}\"\nid = {}\nlinks = [\"{link}\"]\n{role}key = \"{key}\"\n\n", id + 1);
    }
    let config = file("/etc/oarlock/oarlock.toml", &format!("{config}{nodes}"));
    machines().map(|text| {
        let hosts = file("/etc/hosts", "127.0.0.1 localhost\n10.0.0.100\toar\n");
        let text = text.replace("running no", "ours yes").replace("end\n", &format!("joined yes\n{config}end\n"));
        text.replace(&file("/etc/hosts", "127.0.0.1 localhost\n"), &hosts)
    })
}

fn undone(keep: &str, texts: &[String]) -> Result<Plan, Vec<Problem>> {
    let names = ["server1", "server2", "frontend"].map(str::to_owned);
    let facts: Vec<Facts> = texts.iter().map(|text| Facts::parse(text).unwrap()).collect();
    let keep = names.iter().position(|name| name == keep).unwrap();
    undo::undo(&undo::Wish { machines: &names, keep, service: "oar", date: DATE }, &facts)
}

#[test]
fn a_second_plan_changes_no_file_that_is_right() {
    let texts = deployed();
    let plan = planned(&wish(), &texts).unwrap();
    let step = plan.steps.iter().find(|step| step.machine == 0 && step.title.contains("/etc/hosts")).unwrap();
    let sum: String = {
        use sha2::{Digest, Sha256};
        Sha256::digest("127.0.0.1 localhost\n10.0.0.100\toar\n").iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert!(step.done.contains(&sum), "{}", step.done);
}

#[test]
fn undeploying_keeps_the_owner_to_the_last_and_starts_one_alone() {
    let plan = undone("server2", &deployed()).unwrap();
    let stops: Vec<usize> = plan
        .steps
        .iter()
        .filter(|step| script(step).contains("systemctl stop oarlock"))
        .map(|step| step.machine)
        .collect();
    assert_eq!(stops, [0, 2, 1]);
    let starts: Vec<usize> =
        plan.steps.iter().filter(|step| script(step).contains("pg_ctlcluster")).map(|step| step.machine).collect();
    assert_eq!(starts, [1]);
    // Before anything stops, it is made sure that this copy is the one to keep.
    assert!(script(&plan.steps[0]).contains("\"owner\":\"server2\"") && plan.steps[0].machine == 1);
    assert_eq!(plan.steps.last().map(|step| step.machine), Some(1));
}

#[test]
fn undeploying_twice_to_different_servers_is_refused() {
    let mut texts = deployed();
    texts[0] = texts[0].replace("ours yes", "running yes");
    let problems = undone("server2", &texts).err().unwrap();
    assert!(problems[0].text.contains("server1 runs the service already"), "{problems:?}");
    assert!(undone("frontend", &deployed()).is_err());
}
