//! From the checked configuration of a database to what its agent must know.

use super::resources::{Surroundings, user};
use crate::agents::distribution;
use crate::agents::mariadb::{MariaMember, MariaSettings};
use crate::agents::postgresql::{Member, PgSettings, PgTiming, ServerUser, UserFiles, debian_bin_dir};
use crate::causes::with_causes;
use crate::config::{MariadbSettings, NodeSettings, PostgresqlSettings, Settings};
use crate::secrets::ClusterSecrets;
use oarlock_core::ids::ResourceId;
use std::path::Path;
use std::time::Duration;

/// The account of MariaDB that root may use over the server's socket.
const MARIADB_ADMIN: &str = "root";

/// What the agent of a PostgreSQL server must know; an error, in words, when it cannot run here.
pub(super) async fn postgresql_settings(
    name: &str,
    settings: &PostgresqlSettings,
    all: &Settings,
    id: ResourceId,
    around: &Surroundings,
) -> Result<PgSettings, String> {
    let version = u32::from(settings.version);
    let found = UserFiles::find(version, &settings.data_dir);
    let files = UserFiles {
        config: settings.config_file.clone().unwrap_or(found.config),
        hba: settings.hba_file.clone().unwrap_or(found.hba),
        ident: found.ident,
    };
    Ok(PgSettings {
        name: name.to_owned(),
        version,
        bin_dir: settings.bin_dir.clone().unwrap_or_else(|| debian_bin_dir(version)),
        data_dir: settings.data_dir.clone(),
        files,
        run_dir: around.run_dir.join(name),
        log_file: around.log_dir.join(format!("{name}.log")),
        port: settings.port,
        listen_addresses: settings.listen_addresses.clone(),
        user: server_user(&settings.user).await?,
        node: around.me,
        members: postgresql_members(all, id, settings.port),
        secrets: secrets(around)?,
        admin_role: "postgres".to_owned(),
        database: "postgres".to_owned(),
        divergent_limit_mib: settings.divergent_limit_bytes / (1024 * 1024),
        wal_keep_mib: 512,
        timing: timing(all, settings.probe_deadline),
    })
}

/// What the agent of a MariaDB server must know; an error, in words, when it cannot run here.
pub(super) async fn mariadb_settings(
    name: &str,
    settings: &MariadbSettings,
    all: &Settings,
    id: ResourceId,
    around: &Surroundings,
) -> Result<MariaSettings, String> {
    let root = Path::new("/");
    Ok(MariaSettings {
        name: name.to_owned(),
        version: settings.version.to_string(),
        server: distribution::mariadb_server(settings, root),
        tools_dir: distribution::mariadb_tools(settings, root),
        data_dir: settings.data_dir.clone(),
        include: distribution::mariadb_config(settings, root),
        run_dir: around.run_dir.join(name),
        log_file: around.log_dir.join(format!("{name}.log")),
        port: settings.port,
        bind_address: settings.listen_addresses.clone(),
        user: server_user(&settings.user).await?,
        node: around.me,
        members: mariadb_members(all, id, settings),
        secrets: secrets(around)?,
        admin: MARIADB_ADMIN.to_owned(),
        divergent_limit_mib: settings.divergent_limit_bytes / (1024 * 1024),
        timing: timing(all, settings.probe_deadline),
    })
}

/// Who has a copy of a PostgreSQL server.
pub(super) fn postgresql_members(all: &Settings, id: ResourceId, port: u16) -> Vec<Member> {
    let member = |node: &NodeSettings| Member { id: node.id, name: node.name.clone(), links: node.links.clone(), port };
    nodes(all, id).map(member).collect()
}

/// Who has a copy of a MariaDB server.
pub(super) fn mariadb_members(all: &Settings, id: ResourceId, settings: &MariadbSettings) -> Vec<MariaMember> {
    let member = |node: &NodeSettings| MariaMember {
        id: node.id,
        name: node.name.clone(),
        links: node.links.clone(),
        lost: Vec::new(),
        port: settings.port,
        copy_port: settings.copy_port,
    };
    nodes(all, id).map(member).collect()
}

fn nodes(all: &Settings, id: ResourceId) -> impl Iterator<Item = &NodeSettings> {
    let nodes = all.groups.get(usize::from(id.group.0)).map(|group| group.nodes.as_slice()).unwrap_or_default();
    nodes.iter().filter_map(|id| all.node_by_id(*id))
}

fn timing(all: &Settings, probe_deadline: Duration) -> PgTiming {
    PgTiming { probe_deadline, ..PgTiming::from_cluster(&all.timing) }
}

async fn server_user(name: &str) -> Result<ServerUser, String> {
    let owner = user(name).await?;
    Ok(ServerUser { name: owner.name, uid: owner.uid, gid: owner.gid, groups: owner.groups })
}

fn secrets(around: &Surroundings) -> Result<ClusterSecrets, String> {
    ClusterSecrets::load(&around.config_dir).map_err(|error| with_causes(&error))
}
