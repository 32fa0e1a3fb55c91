//! `apply` on a cluster of one server and two witnesses, which share this machine's loopback.

use oarlock::control::{Request, Response};
use oarlock::keys::PrivateKey;

use super::Case;
use super::solo::{Solo, hide_the_machine};

pub const CASES: &[Case] = &[
    ("apply_is_checked_everywhere_then_written_everywhere", checked_then_written),
    ("apply_reaches_a_node_that_was_away", reaches_who_was_away),
];

const NAMES: [&str; 3] = ["one", "two", "three"];
const SLEEPER: &str = "  [[group.resource]]\n  name = \"sleeper\"\n  kind = \"service\"\n  \
                       command = [\"/bin/sleep\", \"100000\"]\n";

struct Trio {
    text: String,
    nodes: Vec<Solo>,
}

impl Trio {
    fn started() -> Trio {
        hide_the_machine();
        let keys = NAMES.map(|_| PrivateKey::generate().unwrap());
        let mut text =
            "[cluster]\nname = \"trio\"\nheartbeat_ms = 150\nlease_ms = 3000\nelection_ms = 1000\n".to_owned();
        for (index, (name, key)) in NAMES.iter().zip(&keys).enumerate() {
            let role = if index == 0 { "server" } else { "witness" };
            let address = format!("127.0.0.{}", index + 1);
            let key = key.public();
            text += &format!(
                "\n[[node]]\nname = \"{name}\"\nlinks = [\"{address}\"]\nrole = \"{role}\"\nkey = \"{key}\"\n"
            );
        }
        text += &format!("\n[[group]]\nname = \"main\"\nnodes = [\"one\"]\n\n{SLEEPER}");
        let mut nodes: Vec<Solo> = NAMES.iter().zip(&keys).map(|(name, key)| Solo::member(name, &text, key)).collect();
        nodes.iter_mut().for_each(|node| node.start(&[]));
        nodes[0].wait_for("the service", || nodes[0].sleeper());
        let trio = Trio { text, nodes };
        trio.generation(1);
        trio
    }

    fn apply(&self, at: usize, text: &str, dry_run: bool) -> Response {
        self.nodes[at].ask(&Request::Apply { text: text.to_owned(), dry_run }).expect("an answer")
    }

    /// Waits until every node runs this generation.
    fn generation(&self, wanted: u64) {
        for node in &self.nodes {
            node.wait_for("the generation", || node.status().filter(|status| status.generation == wanted));
        }
    }
}

fn note(response: &Response) -> &str {
    match response {
        Response::Done { note: Some(note) } => note,
        other => panic!("not done: {other:?}"),
    }
}

fn problems(response: &Response) -> String {
    match response {
        Response::Usage { problems } => problems.join("\n"),
        other => panic!("not refused: {other:?}"),
    }
}

fn checked_then_written() {
    let trio = Trio::started();
    let one = &trio.nodes[0];
    let (sleeper, agents) = (one.sleeper(), trio.nodes.iter().map(Solo::agent).collect::<Vec<_>>());

    // What only the server can know is asked of a witness.
    let second = SLEEPER.replace("sleeper", "second");
    let missing = trio.text.clone() + &second.replace("/bin/sleep", "/no/such/program");
    for dry_run in [true, false] {
        let problems = problems(&trio.apply(1, &missing, dry_run));
        assert_eq!(problems, "one: resource \"second\": no program /no/such/program on this machine");
    }
    let removed = trio.text.replace("sleeper", "other");
    let refused = problems(&trio.apply(2, &removed, false));
    assert!(refused.contains("resource \"main/sleeper\" is not in its place"), "{refused}");

    let added = trio.text.clone() + &second;
    assert_eq!(note(&trio.apply(1, &added, true)), "valid; nothing was changed");
    trio.generation(1);
    assert!(trio.nodes.iter().all(|node| node.file() == trio.text));

    let said = trio.apply(1, &added, false);
    assert!(note(&said).starts_with("generation 2 is in force; the agents start anew"), "{said:?}");
    trio.generation(2);
    for (node, before) in trio.nodes.iter().zip(agents) {
        node.wait_for("its file", || (node.file() == added).then_some(()));
        node.wait_for("another agent", || node.agent().filter(|agent| Some(*agent) != before));
    }
    let runs = |name: &str| {
        let status = one.status()?;
        let resource = status.groups[0].resources.iter().find(|resource| resource.name == name)?;
        (resource.state == "running").then_some(())
    };
    one.wait_for("the new service", || runs("second"));
    one.wait_for("the old service", || runs("sleeper"));
    assert_eq!(one.sleeper(), sleeper, "{}", one.said());
    assert!(!one.said().contains("lapsed"), "{}", one.said());
}

fn reaches_who_was_away() {
    let mut trio = Trio::started();
    let agents = trio.nodes.iter().map(Solo::agent).collect::<Vec<_>>();
    trio.nodes[2].power_off();
    let two = &trio.nodes[1];
    two.wait_for("the silence of three", || {
        let status = two.status()?;
        status.nodes[2].links.iter().all(|link| !link.up).then_some(())
    });
    let preferred = trio.text.replace("nodes = [\"one\"]", "nodes = [\"one\"]\nfailback = \"auto\"");
    let said = trio.apply(0, &preferred, false);
    let expected = "generation 2 is in force; three is away: not checked there, taken over when it returns";
    assert_eq!(note(&said), expected);
    trio.nodes[2].start(&[]);
    trio.generation(2);
    for node in &trio.nodes {
        node.wait_for("its file", || (node.file() == preferred).then_some(()));
    }
    // Preferences are the core's: nobody starts anew for them.
    assert_eq!(trio.nodes.iter().take(2).map(Solo::agent).collect::<Vec<_>>(), agents[..2]);
}
