//! `oarlock init` and `oarlock invite`.

use super::args::{Global, InitArguments, NodeSpec};
use super::failure::{Code, Failure};
use super::output::{emit, emit_json};
use super::setup::{self, Places};
use super::time;
use crate::causes::with_causes;
use crate::config::{self, Arbitration, Preset, Settings};
use crate::enrol::template::{self, Plan, PlannedDatabase, PlannedNode, PlannedRole};
use crate::enrol::{
    DEFAULT_INVITE_PORT, INVITATION_FILE, Invitation, Invited, KEY_FILE, TOKEN_LIFETIME, Token, write_file,
};
use crate::keys::PrivateKey;
use crate::secrets::ClusterSecrets;
use crate::sql::Engine;
use serde::Serialize;
use std::net::IpAddr;

/// Makes a cluster; this machine is its first node.
pub fn run(global: &Global, arguments: &InitArguments) -> Result<Code, Failure> {
    let this = arguments.this.clone().unwrap_or_else(setup::host_name);
    let keys: Vec<PrivateKey> = specs(arguments)
        .map(|_| PrivateKey::generate())
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::from_error(Code::Internal, &error))?;
    let plan = plan(arguments, &keys);
    let text = template::render(&plan);
    let settings = config::parse("init", &text).map_err(|problems| {
        // The lines are of a file that nobody has seen.
        let texts = problems.list().iter().map(|problem| match &problem.hint {
            Some(_) if problem.text == config::TWO_VOTES => {
                format!("{}\n  hint: --witness NAME=ADDRESS adds a third machine; or --without-witness", problem.text)
            }
            Some(hint) => format!("{}\n  hint: {hint}", problem.text),
            None => problem.text.clone(),
        });
        Failure::many(Code::Usage, texts.collect())
    })?;
    let Some(own) = settings.nodes.iter().position(|node| node.name == this) else {
        let names: Vec<&str> = settings.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(Failure::new(Code::Usage, format!("this machine is \"{this}\", which is no node of the cluster"))
            .hint(format!("--this NAME says which of {} it is", names.join(", "))));
    };
    let places = Places {
        config: global.config.clone(),
        run_dir: global.run_dir.clone(),
        state_dir: arguments.state_dir.clone(),
    };
    places.clear(arguments.force)?;
    setup::warn_of_foreign_links(&this, &settings.nodes[own].links);
    let token = write(&places, &settings, &keys, own, arguments.invite_port)?;
    report(global, &settings, &this, token.as_ref(), now_plus_lifetime_s())?;
    setup::start(arguments.start)?;
    Ok(Code::Done)
}

fn specs(arguments: &InitArguments) -> impl Iterator<Item = (&NodeSpec, PlannedRole)> {
    let servers = arguments.node.iter().map(|spec| (spec, PlannedRole::Server));
    let databases = arguments.database_node.iter().map(|spec| (spec, PlannedRole::Database));
    let witnesses = arguments.witness.iter().map(|spec| (spec, PlannedRole::Witness));
    servers.chain(databases).chain(witnesses)
}

fn plan(arguments: &InitArguments, keys: &[PrivateKey]) -> Plan {
    let nodes = specs(arguments).zip(keys).map(|((spec, role), key)| PlannedNode {
        name: spec.name.clone(),
        links: spec.links.clone(),
        role,
        key: key.public(),
    });
    let oar = arguments.profile.is_some();
    let postgresql = arguments.postgresql.as_ref().map(|version| (Engine::Postgresql, version));
    let mariadb = arguments.mariadb.as_ref().map(|version| (Engine::Mariadb, version));
    let database = postgresql.or(mariadb).map(|(engine, version)| PlannedDatabase {
        engine,
        version: version.clone(),
        data_dir: arguments.data_dir.clone().unwrap_or_else(|| setup::default_data_dir(engine, version)),
        port: arguments.postgresql_port.or(arguments.mariadb_port),
    });
    Plan {
        cluster: arguments.cluster.clone(),
        timing: arguments.timing.map_or(Preset::Balanced, super::args::Timing::preset),
        port: arguments.port,
        arbitration: if arguments.without_witness { Arbitration::Fencing } else { Arbitration::Quorum },
        nodes: nodes.collect(),
        group: arguments.group.clone().unwrap_or_else(|| if oar { "oar" } else { "main" }.to_owned()),
        address: arguments.address.clone(),
        database_address: arguments.database_address.clone(),
        reader_address: arguments.reader_address.clone(),
        interface: arguments.interface.clone(),
        database,
        oar,
    }
}

/// Everything to the disk, the configuration last: it stands only where the rest does.
fn write(
    places: &Places,
    settings: &Settings,
    keys: &[PrivateKey],
    own: usize,
    invite_port: u16,
) -> Result<Option<Token>, Failure> {
    let directory = places.directory();
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(Code::Internal, with_causes(error)).hint("is this run as root?")
    };
    ClusterSecrets::create(&directory).map_err(|error| failed(&error))?;
    keys[own].write_replacing(&directory.join(KEY_FILE)).map_err(|error| failed(&error))?;
    let invited = others(settings, own).map(|(node, position)| Invited::new(&node.name, &keys[position]));
    let invited: Vec<Invited> = invited.collect();
    let token = if invited.is_empty() {
        None
    } else {
        let token = Token::generate(&settings.nodes[own].links, invite_port).map_err(|error| failed(&error))?;
        Invitation::new(&token, now_plus_lifetime_s(), invited)
            .save(&directory.join(INVITATION_FILE))
            .map_err(|error| failed(&error))?;
        Some(token)
    };
    write_file(&places.config, settings.text.as_bytes(), 0o644).map_err(|error| failed(&error))?;
    Ok(token)
}

fn others(settings: &Settings, own: usize) -> impl Iterator<Item = (&config::NodeSettings, usize)> {
    settings.nodes.iter().zip(0..).filter(move |(_, position)| *position != own)
}

fn now_plus_lifetime_s() -> u64 {
    time::now_ms() / 1000 + TOKEN_LIFETIME.as_secs()
}

#[derive(Serialize)]
struct Made<'a> {
    schema: u32,
    cluster: &'a str,
    node: &'a str,
    config: String,
    token: Option<String>,
    expires: Option<u64>,
}

/// The token alone goes to standard output, so that a script can take it; words go beside it.
fn report(
    global: &Global,
    settings: &Settings,
    this: &str,
    token: Option<&Token>,
    expires_s: u64,
) -> Result<(), Failure> {
    if global.json {
        return emit_json(&Made {
            schema: 1,
            cluster: &settings.cluster,
            node: this,
            config: global.config.display().to_string(),
            token: token.map(ToString::to_string),
            expires: token.map(|_| expires_s),
        });
    }
    for warning in &settings.warnings {
        eprintln!("warning: {}", warning.text);
        if let Some(hint) = &warning.hint {
            eprintln!("  hint: {hint}");
        }
    }
    eprintln!("cluster \"{}\" is configured in {}", settings.cluster, global.config.display());
    let Some(token) = token else { return Ok(()) };
    let others: Vec<&str> = settings.nodes.iter().map(|node| node.name.as_str()).filter(|name| *name != this).collect();
    eprintln!("\nnow start the agent here:    systemctl enable --now oarlock");
    eprintln!("then on {}:", others.join(" and "));
    eprintln!("    oarlock join {token}");
    eprintln!("    systemctl enable --now oarlock");
    eprintln!("the token is good once for each of them, until {}\n", time::utc_minute(expires_s));
    emit(&format!("{token}\n"))
}

/// Makes a new token for those that have not joined yet.
pub fn invite(global: &Global) -> Result<Code, Failure> {
    let settings = config::load(&global.config).map_err(|error| super::apply::wrong(&error))?;
    let directory = crate::enrol::directory(&global.config);
    let path = directory.join(INVITATION_FILE);
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::new(Code::Internal, with_causes(error));
    let invitation = Invitation::load(&path).map_err(|error| failed(&error))?;
    let Some(mut invitation) = invitation else {
        return Err(Failure::new(Code::Negative, "nobody is left to join")
            .hint("invitations are kept on the machine that ran oarlock init, until everybody has joined"));
    };
    let key = PrivateKey::read(&directory.join(KEY_FILE)).map_err(|error| failed(&error))?;
    let links: Vec<IpAddr> = settings.node_by_key(&key.public()).map(|node| node.links.clone()).unwrap_or_default();
    if links.is_empty() {
        return Err(Failure::new(Code::Usage, "the key of this machine belongs to no node of its configuration"));
    }
    let port = if invitation.port == 0 { DEFAULT_INVITE_PORT } else { invitation.port };
    let token = Token::generate(&links, port).map_err(|error| failed(&error))?;
    let expires_s = now_plus_lifetime_s();
    invitation.renew(&token, expires_s);
    invitation.save(&path).map_err(|error| failed(&error))?;
    if !global.json {
        let names: Vec<&str> = invitation.nodes.iter().map(|node| node.name.as_str()).collect();
        eprintln!("on {}: oarlock join {token}", names.join(" and "));
        eprintln!("good until {}; tokens made before are worth nothing now", time::utc_minute(expires_s));
        emit(&format!("{token}\n"))?;
        return Ok(Code::Done);
    }
    let made = Made {
        schema: 1,
        cluster: &settings.cluster,
        node: settings.node_by_key(&key.public()).map_or("", |node| node.name.as_str()),
        config: global.config.display().to_string(),
        token: Some(token.to_string()),
        expires: Some(expires_s),
    };
    emit_json(&made)?;
    Ok(Code::Done)
}
