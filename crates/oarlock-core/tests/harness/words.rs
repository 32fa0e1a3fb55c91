//! Entries and commands in words.

use oarlock_core::config::Kind;
use oarlock_core::entry::{Entry, Moved, Proof, SetVersion};
use oarlock_core::resource::database::DataCommand;
use oarlock_core::resource::{AddressCommand, Command, Guard, ServiceCommand};

pub fn is_address(kind: Kind) -> bool {
    matches!(kind, Kind::Address | Kind::ReaderAddress)
}

/// An entry of the log.
pub fn entry(entry: &Entry) -> String {
    match entry {
        Entry::Alive { node, from, to, incarnation } => {
            format!("alive {node}: generation {from} -> {to}, incarnation {incarnation}")
        }
        Entry::Take { node, generation, proof, moves } => {
            let Proof::Promised { by, .. } = proof;
            let by: Vec<String> = by.iter().map(ToString::to_string).collect();
            let moves: Vec<String> = moves.iter().map(moved).collect();
            let moves = if moves.is_empty() { "nothing moves".to_owned() } else { moves.join("; ") };
            format!("take {node} (generation {generation}, promised by {}): {moves}", by.join(" "))
        }
        Entry::Own { moved: to, first } => {
            let first = first.map(|first| format!(", first copy {:?}", first.copy));
            format!("own {}{}", moved(to), first.unwrap_or_default())
        }
        Entry::Release { group, epoch, unwaited, prefer, reason, .. } => {
            let unwaited = if *unwaited { ", before its own wait was over" } else { "" };
            let prefer = prefer.map(|node| format!(", for {node}")).unwrap_or_default();
            format!("release {group:?} (epoch {epoch}{unwaited}){prefer}: {reason}")
        }
        Entry::Join { at, node, copy, .. } => format!("join {node} {copy:?} {}", version(at)),
        Entry::Leave { at, node, .. } if node.0 == 0 => {
            format!("leave nobody {}: a forgotten join is void", version(at))
        }
        Entry::Leave { at, node, .. } => format!("leave {node} {}", version(at)),
        Entry::Rejoin { group, epoch, node, .. } => {
            format!("rejoin {node} ({group:?} epoch {epoch}): its copy may be replaced")
        }
        Entry::Want { group, epoch, node } => match node {
            Some(node) => format!("want {group:?} (epoch {epoch}) on {node}"),
            None => format!("want {group:?} (epoch {epoch}) nowhere else"),
        },
        Entry::Standby { node, on } => format!("standby {node} {}", if *on { "on" } else { "off" }),
        Entry::Maintenance { on } => format!("maintenance {}", if *on { "on" } else { "off" }),
        Entry::Clear { resource } => format!("clear {resource:?}"),
        Entry::Configure(config) => format!("configuration {}", config.generation),
        #[allow(unreachable_patterns)] // what is new is shown as it is until somebody words it
        other => format!("{other:?}"),
    }
}

fn moved(moved: &Moved) -> String {
    format!("{:?} -> {} (epoch {} -> {})", moved.group, moved.to, moved.epoch, moved.epoch + 1)
}

fn version(at: &SetVersion) -> String {
    format!("({:?} epoch {}, version {})", at.group, at.epoch, at.version)
}

fn right(guard: &Guard) -> String {
    format!("(generation {}, epoch {})", guard.generation, guard.epoch)
}

/// The name a script gives a command when it shall fail.
pub fn verb(command: &Command) -> &'static str {
    match command {
        Command::Address(AddressCommand::Raise { .. }) => "raise",
        Command::Address(AddressCommand::Lower) => "lower",
        Command::Service(ServiceCommand::Start { .. }) => "start",
        Command::Service(ServiceCommand::Stop { .. }) => "stop",
        Command::Database(command) => match command {
            DataCommand::Inspect => "inspect",
            DataCommand::Initialize => "initialize",
            DataCommand::Clone { .. } => "clone",
            DataCommand::Rewind { .. } => "rewind",
            DataCommand::Follow { .. } => "follow",
            DataCommand::StartPrimary { .. } => "start-primary",
            DataCommand::Promote { .. } => "promote",
            DataCommand::SetGuard { .. } => "set-guard",
            DataCommand::Open => "open",
            DataCommand::HandOver { .. } => "hand-over",
            DataCommand::Kill => "kill",
            DataCommand::Stop => "stop",
        },
    }
}

/// A command in the imperative.
pub fn command(command: &Command) -> String {
    let more = match command {
        Command::Address(AddressCommand::Raise { guard }) | Command::Service(ServiceCommand::Start { guard, .. }) => {
            right(guard)
        }
        Command::Service(ServiceCommand::Stop { kill: true }) => "by force".into(),
        Command::Address(AddressCommand::Lower) | Command::Service(ServiceCommand::Stop { kill: false }) => {
            String::new()
        }
        Command::Database(command) => match command {
            DataCommand::Clone { from } | DataCommand::Rewind { from } => format!("from {from}"),
            DataCommand::Follow { upstream, epoch } => format!("{upstream} (epoch {epoch})"),
            DataCommand::StartPrimary { guard } | DataCommand::Promote { guard } => right(guard),
            DataCommand::SetGuard { members, epoch } if members.is_empty() => format!("off (epoch {epoch})"),
            DataCommand::SetGuard { members, epoch } => format!("{members:?} (epoch {epoch})"),
            DataCommand::HandOver { standby } => format!("to {standby}"),
            _ => String::new(),
        },
    };
    format!("{} {more}", verb(command)).trim_end().to_owned()
}
