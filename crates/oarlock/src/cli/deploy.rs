//! `oarlock deploy` and `undeploy`: brings facts from the machines and steps to them, over the system's ssh
//! or here.

use super::args::{DeployArguments, Global, NodeSpec, Reach, UndeployArguments};
use super::child::{self, Output};
use super::failure::{Code, Failure};
use super::output::emit;
use super::{setup, time};
use crate::causes::with_causes;
use crate::deploy::plan::{Node, Plan, Problem, Wish};
use crate::deploy::step::HEAD;
use crate::deploy::{self, Act, Facts, SCRIPT, Step};
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal};
use std::time::{Duration, Instant};

/// A look at a machine.
const LOOK: Duration = Duration::from_secs(60);
/// Most that is kept of what a machine prints, in bytes: its facts hold some of its files.
const PRINTED_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Lines of an error that are shown.
const ERROR_LINES: usize = 8;

/// Deploys.
pub fn run(_global: &Global, arguments: &DeployArguments) -> Result<Code, Failure> {
    let wish = wish(arguments)?;
    let machines = Machines { names: deploy::plan::machines(&wish), reach: &arguments.reach };
    let facts = machines.look()?;
    let plan = deploy::plan(&wish, &facts).map_err(|problems| refused(&problems))?;
    let again = "run the same command again to go on; oarlock undeploy goes back to a single server";
    let code = machines.carry_out(&plan, again)?;
    if !arguments.reach.dry_run && code == Code::Done {
        machines.check(wish.nodes.len())?;
    }
    Ok(code)
}

/// Undeploys.
pub fn back(_global: &Global, arguments: &UndeployArguments) -> Result<Code, Failure> {
    let machines = Machines { names: arguments.node.clone(), reach: &arguments.reach };
    let Some(keep) = machines.names.iter().position(|name| *name == arguments.keep) else {
        return Err(Failure::new(Code::Usage, format!("\"{}\" is not among the nodes", arguments.keep))
            .hint("--node NAME for each, the one to keep included"));
    };
    let facts = machines.look()?;
    let date = time::compact(time::now_ms() / 1000);
    let wish = deploy::undo::Wish { machines: &machines.names, keep, service: &arguments.service, date: &date };
    let plan = deploy::undo(&wish, &facts).map_err(|problems| refused(&problems))?;
    machines.carry_out(&plan, "run the same command again to go on")
}

fn wish(arguments: &DeployArguments) -> Result<Wish, Failure> {
    let package = match &arguments.package {
        None => None,
        Some(file) => Some(std::fs::read(file).map_err(|error| {
            Failure::new(Code::Usage, format!("cannot read the package {}: {error}", file.display()))
        })?),
    };
    let node = |spec: &NodeSpec, witness| Node { name: spec.name.clone(), links: spec.links.clone(), witness };
    let servers = arguments.node.iter().map(|spec| node(spec, false));
    let witnesses = arguments.witness.iter().map(|spec| node(spec, true));
    Ok(Wish {
        cluster: arguments.cluster.clone(),
        timing: arguments.timing.preset().name().to_owned(),
        nodes: servers.chain(witnesses).collect(),
        clients: arguments.client.clone(),
        address: arguments.address.0,
        prefix: arguments.address.1,
        interface: arguments.interface.clone(),
        service: arguments.service.clone(),
        postgresql: arguments.postgresql.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        package,
        set_aside: arguments.set_aside,
        date: time::compact(time::now_ms() / 1000),
    })
}

fn refused(problems: &[Problem]) -> Failure {
    let text = |problem: &Problem| match problem.hint.as_str() {
        "" => problem.text.clone(),
        hint => format!("{}\n  hint: {hint}", problem.text),
    };
    Failure::many(Code::Usage, problems.iter().map(text).collect())
}

/// The machines and the way to them.
struct Machines<'a> {
    names: Vec<String>,
    reach: &'a Reach,
}

impl Machines<'_> {
    /// Runs a script on one of them. It is the shell's standard input: no list of processes shows it.
    fn sh(&self, number: usize, script: &str, deadline: Duration) -> Result<Output, Failure> {
        let name = self.names.get(number).map(String::as_str).unwrap_or_default();
        if name.is_empty() || name.starts_with('-') {
            return Err(Failure::new(Code::Usage, format!("\"{name}\" is not the name of a machine")));
        }
        let mut argv: Vec<&str> = Vec::new();
        if name != setup::host_name() {
            argv.extend(self.reach.ssh.split_whitespace());
            argv.extend(["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]);
            argv.extend(["-T", "-l", &self.reach.user, "--", name]);
        }
        argv.extend(["sh", "-s"]);
        // Read to its end before it begins, and with nothing left to read for what it runs.
        let script = format!("{{\n{script}\n}} </dev/null\n");
        child::run_with(&argv, Some(&script), PRINTED_MAX_BYTES, deadline)
            .map_err(|error| Failure::new(Code::Internal, format!("{name}: {}", with_causes(&error))))
    }

    fn look(&self) -> Result<Vec<Facts>, Failure> {
        let look = |number: usize| {
            let name = &self.names[number];
            let output = self.sh(number, SCRIPT, LOOK)?;
            if !output.success {
                return Err(Failure::new(Code::Internal, format!("cannot look at {name}: {}", tail(&output.stderr)))
                    .hint("does ssh reach it, without a question?"));
            }
            Facts::parse(&output.stdout)
                .map_err(|error| Failure::new(Code::Internal, format!("{name}: {}", with_causes(&error))))
        };
        (0..self.names.len()).map(look).collect()
    }

    fn is_done(&self, step: &Step) -> Result<bool, Failure> {
        Ok(self.sh(step.machine, &format!("{HEAD}{}", step.done), LOOK)?.success)
    }

    /// Shows the plan, asks, and does what is not done.
    fn carry_out(&self, plan: &Plan, again: &str) -> Result<Code, Failure> {
        emit(&shown(plan))?;
        if self.reach.dry_run {
            emit("nothing was done (--dry-run)\n")?;
            return Ok(Code::Done);
        }
        if !self.reach.yes {
            confirm()?;
        }
        let mut away_since: Option<Instant> = None;
        for (number, step) in plan.steps.iter().enumerate() {
            let name = &self.names[step.machine];
            let label = format!("{:>2} {name}: {}", number + 1, step.title);
            if self.is_done(step)? {
                emit(&format!("is so:  {label}\n"))?;
                continue;
            }
            if step.stops {
                away_since = Some(Instant::now());
            }
            let began = Instant::now();
            self.act(step).map_err(|text| stuck(&label, &text, &plan.steps, number, away_since, again))?;
            if !self.is_done(step)? {
                let text = "it was done, but does not show";
                return Err(stuck(&label, text, &plan.steps, number, away_since, again));
            }
            emit(&format!("done:   {label}, {:.1} s\n", began.elapsed().as_secs_f64()))?;
            if step.serves
                && let Some(since) = away_since.take()
            {
                emit(&format!("        the service was away for {:.1} s\n", since.elapsed().as_secs_f64()))?;
            }
        }
        for note in &plan.notes {
            emit(&format!("note: {note}\n"))?;
        }
        Ok(Code::Done)
    }

    fn act(&self, step: &Step) -> Result<(), String> {
        let words = |failure: Failure| failure.words();
        let deadline = Duration::from_secs(step.deadline_s);
        let script = match &step.act {
            Act::Script(script) => format!("{HEAD}{script}"),
            Act::Join { inviter } => {
                let output = self.sh(*inviter, &format!("{HEAD}oarlock invite\n"), LOOK).map_err(words)?;
                if !output.success {
                    return Err(tail(&output.stderr));
                }
                let name = &self.names[step.machine];
                let token = output.stdout.trim();
                format!("{HEAD}oarlock join --node {} - <<'END'\n{token}\nEND\n", deploy::step::quoted(name))
            }
        };
        let output = self.sh(step.machine, &script, deadline).map_err(words)?;
        if output.success { Ok(()) } else { Err(tail(&format!("{}{}", output.stdout, output.stderr))) }
    }

    /// What `oarlock check` says on each node.
    fn check(&self, nodes: usize) -> Result<(), Failure> {
        for number in 0..nodes {
            let output = self.sh(number, &format!("{HEAD}oarlock check || true\n"), LOOK)?;
            emit(&format!("{}: {}\n", self.names[number], output.stdout.trim_end().replace('\n', "\n    ")))?;
        }
        Ok(())
    }
}

/// The plan, for people.
fn shown(plan: &Plan) -> String {
    let mut text = String::new();
    for found in &plan.found {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "found: {found}");
    }
    for (number, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(text, "{:>2} {}: {}", number + 1, plan.machines[step.machine], step.title);
        for (word, what) in [("changes", &step.changes), ("undone by", &step.undo)] {
            if !what.is_empty() {
                let _ = writeln!(text, "     {word}: {what}");
            }
        }
        if step.stops {
            let _ = writeln!(text, "     from here on the service is away");
        }
        if step.serves {
            let _ = writeln!(text, "     until here");
        }
    }
    text
}

fn confirm() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Code::Usage, "nobody is there to be asked").hint("--yes, after a look at --dry-run"));
    }
    emit("do it? [y/N] ")?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && ["y", "yes"].contains(&answer.trim()) {
        return Ok(());
    }
    Err(Failure::new(Code::Negative, "nothing was done"))
}

/// Where it stands, and both ways out.
fn stuck(label: &str, text: &str, steps: &[Step], at: usize, away: Option<Instant>, again: &str) -> Failure {
    let mut failure = Failure::new(Code::Negative, format!("{}: {text}", label.trim_start())).hint(again);
    if away.is_some() {
        let since = steps.iter().take(at + 1).rposition(|step| step.stops).unwrap_or(at);
        let undo = steps[since..=at].iter().rev().map(|step| step.undo.as_str());
        let undo: Vec<&str> = undo.filter(|undo| !undo.is_empty()).collect();
        failure = failure.hint(format!("{again}; the service is away; by hand: {}", undo.join("; ")));
    }
    failure
}

/// The end of what a program said.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(ERROR_LINES);
    lines[from..].join("\n    ")
}
