//! `oarlock join`.

use super::args::{Global, JoinArguments};
use super::failure::{Code, Failure};
use super::output::{emit, emit_json};
use super::setup::{self, Places};
use super::time;
use crate::causes::with_causes;
use crate::config;
use crate::enrol::{Bundle, CONFIG_FILE, FetchError, KEY_FILE, Token, directory, fetch};
use crate::keys::PrivateKey;
use serde_json::json;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// Longer than any token, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Makes this machine a node of the cluster that the token leads to.
pub fn run(global: &Global, arguments: &JoinArguments) -> Result<Code, Failure> {
    let text = match arguments.token.as_slice() {
        [dash] if dash == "-" => io::read_to_string(io::stdin().take(MAX_TOKEN_BYTES))
            .map_err(|error| Failure::new(Code::Usage, format!("cannot read the token: {error}")))?,
        words => words.join(""),
    };
    let token: Token =
        text.split_whitespace().collect::<String>().parse().map_err(|error: crate::enrol::TokenError| {
            Failure::from_error(Code::Usage, &error).hint("copy all of it, dashes included or not, as init printed it")
        })?;
    let node = arguments.node.clone().unwrap_or_else(setup::host_name);
    let places = Places {
        config: global.config.clone(),
        run_dir: global.run_dir.clone(),
        state_dir: arguments.state_dir.clone(),
    };
    places.clear(arguments.force)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error(Code::Internal, &error))?;
    let deadline = Duration::from_secs(arguments.deadline_s);
    let store = |bundle: &Bundle| store(bundle, &global.config);
    runtime.block_on(fetch(&token, &node, deadline, store)).map_err(|error| failure(&error))?;
    let settings = config::load(&global.config).map_err(|error| super::apply::wrong(&error))?;
    if let Some(own) = settings.node(&node) {
        setup::warn_of_foreign_links(&node, &own.links);
    }
    if global.json {
        let config = global.config.display().to_string();
        emit_json(&json!({"schema": 1, "cluster": settings.cluster, "node": node, "config": config}))?;
    } else {
        emit(&format!("this machine is now node \"{node}\" of cluster \"{}\"\n", settings.cluster))?;
        if !arguments.start {
            eprintln!("now start the agent:    systemctl enable --now oarlock");
        }
    }
    setup::start(arguments.start)?;
    Ok(Code::Done)
}

/// Writes the bundle and makes sure that the key is that of the node.
fn store(bundle: &Bundle, config: &Path) -> io::Result<()> {
    let mut bundle = bundle.clone();
    if let Some(name) = config.file_name().and_then(|name| name.to_str()) {
        for file in bundle.files.iter_mut().filter(|file| file.path == CONFIG_FILE) {
            name.clone_into(&mut file.path);
        }
    }
    bundle.write(&directory(config))?;
    let key = PrivateKey::read(&directory(config).join(KEY_FILE)).map_err(io::Error::other)?;
    let settings = config::load(config).map_err(io::Error::other)?;
    match settings.node_by_key(&key.public()) {
        Some(node) if node.name == bundle.node => Ok(()),
        _ => Err(io::Error::other("the key that came is not the node's")),
    }
}

fn failure(error: &FetchError) -> Failure {
    let text = with_causes(error);
    match error {
        FetchError::Silence { .. } => Failure::new(Code::Negative, text)
            .hint("is the agent running on the machine that ran oarlock init, and its invite port reachable?"),
        FetchError::Refused => Failure::new(Code::Negative, text).hint(
            "it is wrong or was replaced: oarlock invite there makes a new one; after several wrong ones wait a minute",
        ),
        FetchError::Expired { since_s } => {
            Failure::new(Code::Negative, format!("{text}, {}", time::utc_minute(*since_s)))
                .hint("oarlock invite, on the machine that ran oarlock init, makes a new one")
        }
        FetchError::Unknown { invited, .. } => {
            Failure::new(Code::Negative, text).hint(format!("--node NAME, one of: {}", invited.join(", ")))
        }
        FetchError::Taken { at_s, .. } => {
            Failure::new(Code::Negative, format!("{text} at {}", time::utc_minute(*at_s)))
                .hint("if that was not you, somebody else holds the key of this node: make the cluster anew")
        }
        FetchError::Unusable { .. } => {
            Failure::new(Code::Internal, text).hint("are both machines of the same release of oarlock?")
        }
        FetchError::Store(_) => Failure::new(Code::Internal, text).hint("is this run as root?"),
    }
}
