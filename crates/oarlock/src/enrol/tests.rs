//! Both ends against each other, on loopback.

use super::*;
use crate::keys::PrivateKey;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use template::{Plan, PlannedDatabase, PlannedNode, PlannedRole};

const DEADLINE: Duration = Duration::from_secs(20);

struct Inviter {
    directory: tempfile::TempDir,
    token: Token,
}

/// A first machine with three nodes, of which `server1` is itself.
fn inviter(expires_s: u64) -> Inviter {
    let directory = tempfile::tempdir().unwrap();
    let nodes = ["server1", "server2", "frontend"];
    let keys: Vec<PrivateKey> = nodes.iter().map(|_| PrivateKey::generate().unwrap()).collect();
    let planned = nodes.iter().zip(&keys).zip(1u8..).map(|((name, key), number)| PlannedNode {
        name: (*name).to_owned(),
        links: vec![IpAddr::from([10, 0, 0, number])],
        role: if *name == "frontend" { PlannedRole::Witness } else { PlannedRole::Server },
        key: key.public(),
    });
    let plan = Plan { nodes: planned.collect(), ..plan() };
    write_file(&directory.path().join(CONFIG_FILE), template::render(&plan).as_bytes(), 0o644).unwrap();
    write_file(&directory.path().join(SECRETS_DIR).join("replication.password"), b"secret", 0o600).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let token = Token::generate(&["127.0.0.1".parse().unwrap()], port).unwrap();
    let invited = nodes.iter().zip(&keys).skip(1).map(|(name, key)| {
        let path = directory.path().join(name);
        key.write_new(&path).unwrap();
        Invited { name: (*name).to_owned(), key: fs::read_to_string(path).unwrap() }
    });
    let invitation = Invitation::new(&token, expires_s, invited.collect());
    invitation.save(&directory.path().join(INVITATION_FILE)).unwrap();
    Inviter { directory, token }
}

fn plan() -> Plan {
    Plan {
        cluster: "genepi".to_owned(),
        timing: crate::config::Preset::Fast,
        port: 6700,
        arbitration: crate::config::Arbitration::Quorum,
        nodes: Vec::new(),
        group: "oar".to_owned(),
        address: Some("10.0.0.100/24".to_owned()),
        database_address: None,
        reader_address: Some("10.0.0.101/24".to_owned()),
        interface: Some("eth0".to_owned()),
        database: Some(PlannedDatabase {
            engine: crate::sql::Engine::Postgresql,
            version: "15".to_owned(),
            data_dir: "/var/lib/postgresql/15/main".to_owned(),
            port: None,
        }),
        oar: true,
    }
}

impl Inviter {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `work` while the invitation is served.
    fn serving<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = tokio::spawn(serve_invitations(self.path(CONFIG_FILE), self.token.addresses.clone()));
            let result = work.await;
            server.abort();
            result
        })
    }
}

fn later() -> u64 {
    now_s() + 60
}

#[test]
fn a_node_joins_once_and_its_key_is_forgotten() {
    let inviter = inviter(later());
    let own = tempfile::tempdir().unwrap();
    inviter.serving(async {
        let bundle = fetch(&inviter.token, "server2", DEADLINE, |bundle| bundle.write(own.path())).await.unwrap();
        assert_eq!(bundle.files.last().unwrap().path, CONFIG_FILE);
        let again = fetch(&inviter.token, "server2", DEADLINE, |_| Ok(())).await;
        assert!(matches!(again, Err(FetchError::Taken { from, .. }) if from == "127.0.0.1"));
    });
    let settings = crate::config::load(&own.path().join(CONFIG_FILE)).unwrap();
    let key = PrivateKey::read(&own.path().join(KEY_FILE)).unwrap();
    assert_eq!(settings.node_by_key(&key.public()).unwrap().name, "server2");
    let secret = own.path().join(SECRETS_DIR).join("replication.password");
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);

    let left = Invitation::load(&inviter.path(INVITATION_FILE)).unwrap().unwrap();
    assert_eq!(left.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["frontend"]);
    let text = fs::read_to_string(inviter.path(INVITATION_FILE)).unwrap();
    assert!(!text.contains(fs::read_to_string(inviter.path("server2")).unwrap().trim()));

    inviter.serving(async { fetch(&inviter.token, "frontend", DEADLINE, |_| Ok(())).await.unwrap() });
    assert!(!inviter.path(INVITATION_FILE).exists(), "nobody is left to join");
}

#[test]
fn the_inviting_agent_may_start_later() {
    let inviter = inviter(later());
    let invitation = inviter.path(INVITATION_FILE);
    let hidden = inviter.path("hidden");
    fs::rename(&invitation, &hidden).unwrap();
    inviter.serving(async {
        let publish = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            fs::rename(&hidden, &invitation).unwrap();
        };
        let (_, joined) = tokio::join!(publish, fetch(&inviter.token, "server2", DEADLINE, |_| Ok(())));
        joined.unwrap();
    });
}

#[test]
fn a_wrong_token_is_refused_and_then_not_listened_to() {
    let inviter = inviter(later());
    let wrong = Token { secret: [7; SECRET_BYTES], ..inviter.token.clone() };
    inviter.serving(async {
        let result = fetch(&wrong, "server2", DEADLINE, |_| panic!("got a bundle")).await;
        assert!(matches!(result, Err(FetchError::Refused)), "{result:?}");
        let result = fetch(&wrong, "server2", DEADLINE, |_| panic!("got a bundle")).await;
        assert!(matches!(result, Err(FetchError::Refused)), "{result:?}");
        // Six wrong ones in a minute: the right one from there has to wait, too.
        let result = fetch(&inviter.token, "server2", DEADLINE, |_| panic!("got a bundle")).await;
        assert!(matches!(result, Err(FetchError::Refused)), "{result:?}");
    });
}

#[test]
fn garbage_does_no_harm() {
    let inviter = inviter(later());
    let address = std::net::SocketAddr::new(inviter.token.addresses[0], inviter.token.port);
    inviter.serving(async {
        let mut sent = 0;
        let began = std::time::Instant::now();
        while sent < 3 && began.elapsed() < DEADLINE {
            let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let bytes: &[u8] = [b"GET / HTTP/1.0\r\n\r\n".as_slice(), b"\0\0", b"\0\x04aaaa"][sent];
            tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await.unwrap();
            sent += 1;
        }
        fetch(&inviter.token, "server2", DEADLINE, |_| Ok(())).await.unwrap();
    });
}

#[test]
fn who_is_not_invited_is_told_who_is() {
    let inviter = inviter(later());
    inviter.serving(async {
        let result = fetch(&inviter.token, "server3", DEADLINE, |_| Ok(())).await;
        assert!(matches!(result, Err(FetchError::Unknown { invited, .. }) if invited == ["server2", "frontend"]));
    });
}

#[test]
fn a_token_expires_and_says_so() {
    let inviter = inviter(now_s() - 1);
    inviter.serving(async {
        let result = fetch(&inviter.token, "server2", DEADLINE, |_| panic!("got a bundle")).await;
        assert!(matches!(result, Err(FetchError::Expired { .. })), "{result:?}");
    });
}

#[test]
fn a_failed_write_keeps_the_invitation() {
    let inviter = inviter(later());
    inviter.serving(async {
        let full = |_: &Bundle| Err(std::io::Error::other("disk full"));
        let result = fetch(&inviter.token, "server2", DEADLINE, full).await;
        assert!(matches!(result, Err(FetchError::Store(_))), "{result:?}");
        fetch(&inviter.token, "server2", DEADLINE, |_| Ok(())).await.unwrap();
    });
}

#[test]
fn nobody_answers() {
    let inviter = inviter(later());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(fetch(&inviter.token, "server2", Duration::from_millis(300), |_| Ok(())));
    assert!(matches!(result, Err(FetchError::Silence { .. })), "{result:?}");
}

#[test]
fn a_damaged_invitation_is_told_without_its_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(INVITATION_FILE);
    assert_eq!(Invitation::load(&path).unwrap(), None);
    fs::write(&path, "port = 1\nsecret = \"private:abc\"\nexpires_s = ").unwrap();
    let error = crate::causes::with_causes(&Invitation::load(&path).unwrap_err());
    assert!(error.contains("damaged") && !error.contains("private"), "{error}");
}

#[test]
fn what_init_writes_is_a_good_configuration() {
    let key = |number: u8| crate::keys::PublicKey::from_bytes([number; 32]);
    let node = |name: &str, number: u8, role| PlannedNode {
        name: name.to_owned(),
        links: vec![IpAddr::from([10, 0, 0, number]), IpAddr::from([192, 168, 0, number])],
        role,
        key: key(number),
    };
    let nodes = vec![
        node("server1", 1, PlannedRole::Server),
        node("server2", 2, PlannedRole::Server),
        node("frontend", 10, PlannedRole::Witness),
    ];
    let text = template::render(&Plan { nodes, ..plan() });
    let settings = crate::config::parse("oarlock.toml", &text).unwrap();
    assert_eq!(settings.warnings, vec![]);
    assert_eq!(settings.groups[0].resources.len(), 4);
    insta::assert_snapshot!(text);
}

#[test]
fn what_init_writes_for_mariadb_is_a_good_configuration() {
    let node = |name: &str, number: u8, role| PlannedNode {
        name: name.to_owned(),
        links: vec![IpAddr::from([10, 0, 0, number])],
        role,
        key: crate::keys::PublicKey::from_bytes([number; 32]),
    };
    let nodes = vec![
        node("server1", 1, PlannedRole::Server),
        node("server2", 2, PlannedRole::Server),
        node("frontend", 10, PlannedRole::Witness),
    ];
    let database = PlannedDatabase {
        engine: crate::sql::Engine::Mariadb,
        version: "10.11".to_owned(),
        data_dir: "/var/lib/mysql".to_owned(),
        port: None,
    };
    let text = template::render(&Plan { nodes, database: Some(database), reader_address: None, ..plan() });
    let settings = crate::config::parse("oarlock.toml", &text).unwrap();
    assert_eq!(settings.warnings, vec![]);
    assert!(!text.to_lowercase().contains("postgres"), "{text}");
    let group = text.split_once("# What runs together").unwrap().1;
    insta::assert_snapshot!(group);
}

#[test]
fn what_init_writes_for_four_servers_is_a_good_configuration() {
    let node = |name: &str, number: u8, role| PlannedNode {
        name: name.to_owned(),
        links: vec![IpAddr::from([10, 0, 0, number])],
        role,
        key: crate::keys::PublicKey::from_bytes([number; 32]),
    };
    let servers = [
        node("oar1", 1, PlannedRole::Server),
        node("oar2", 2, PlannedRole::Server),
        node("db1", 3, PlannedRole::Database),
        node("db2", 4, PlannedRole::Database),
    ];
    let database_address = Some("10.0.0.200/24".to_owned());
    let four = Plan { nodes: servers.to_vec(), database_address, ..plan() };
    // Four voters need no arbitration; a witness makes five of them.
    crate::config::parse("oarlock.toml", &template::render(&four)).unwrap();
    let nodes = [&servers[..], &[node("frontend", 10, PlannedRole::Witness)]].concat();
    let text = template::render(&Plan { nodes, ..four });
    let settings = crate::config::parse("oarlock.toml", &text).unwrap();
    assert_eq!(settings.warnings, vec![]);
    let core = settings.core(1);
    assert_eq!(core.groups[1].depends, [oarlock_core::ids::GroupId(0)]);
    let ids = |ids: [u8; 2]| ids.map(oarlock_core::ids::NodeId).to_vec();
    assert_eq!((&core.groups[0].nodes, &core.groups[1].nodes), (&ids([3, 4]), &ids([1, 2])));
    let groups = text.split_once("# What runs together").unwrap().1;
    insta::assert_snapshot!(groups);
}
