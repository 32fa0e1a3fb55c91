//! Two nodes with agents, and clients to try them with.

use oarlock::agents::launcher::Launcher;
use oarlock::agents::launcher::direct::DirectLauncher;
use oarlock::agents::postgresql::{
    Member, PgAgent, PgHandle, PgSettings, PgTiming, ServerUser, UserFiles, debian_bin_dir,
};
use oarlock::secrets::ClusterSecrets;
use oarlock_core::config::Timing;
use oarlock_core::ids::{CopyId, NodeId};
use oarlock_core::resource::Guard;
use oarlock_core::resource::database::{Data, DataCommand, DataObservation, DataStatus, Position};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// The client's role.
const APP: &str = "app";

/// Everything of one test; removed with it.
pub struct Bench {
    pub root: TempDir,
    pub members: Vec<Member>,
    user: ServerUser,
    secrets: ClusterSecrets,
}

/// One node.
pub struct Node {
    pub id: NodeId,
    pub settings: PgSettings,
    pub handle: PgHandle,
    pub launcher: DirectLauncher,
    events: mpsc::Receiver<DataObservation>,
    /// Whom the launcher's notices go to.
    route: Arc<Mutex<PgHandle>>,
    /// What was told beside the answers.
    pub notes: Vec<String>,
    pub status: Option<DataStatus>,
    pub exited: Option<String>,
}

impl Bench {
    /// A bench with `count` nodes; `None` where there is no PostgreSQL.
    pub fn new(count: u8) -> Option<Bench> {
        if !bin_dir().join("postgres").exists() {
            eprintln!("skipped: no PostgreSQL {} here", version());
            return None;
        }
        // Below /tmp: the path of a Unix socket must be short, and readable for the server's user.
        let root = tempfile::Builder::new().prefix("oarlock-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let secrets = ClusterSecrets::create(root.path()).unwrap();
        // All at once, so that no two get the same.
        let ports: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let members = ports.iter().zip(1..).map(|(listener, number)| Member {
            id: NodeId(number),
            name: format!("server{number}"),
            links: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            port: listener.local_addr().unwrap().port(),
        });
        Some(Bench { members: members.collect(), root, user: server_user(), secrets })
    }

    pub fn settings(&self, id: NodeId) -> PgSettings {
        let home = self.root.path().join(format!("n{}", id.0));
        let data_dir = home.join("data");
        if !home.exists() {
            fs::create_dir(&home).unwrap();
            if rustix::process::geteuid().is_root() {
                chown(&home, Some(self.user.uid), Some(self.user.gid)).unwrap();
            }
        }
        PgSettings {
            name: "db".into(),
            version: version(),
            bin_dir: bin_dir(),
            files: UserFiles::find(version(), &data_dir),
            data_dir,
            run_dir: home.join("run"),
            log_file: home.join("log"),
            port: self.members.iter().find(|member| member.id == id).unwrap().port,
            listen_addresses: "127.0.0.1".into(),
            user: self.user.clone(),
            node: id,
            members: self.members.clone(),
            secrets: self.secrets.clone(),
            admin_role: "postgres".into(),
            database: "postgres".into(),
            divergent_limit_mib: 1024,
            wal_keep_mib: 128,
            // Patient where a busy machine would make a test fail for nothing.
            timing: PgTiming {
                statement: Duration::from_secs(5),
                guard: Duration::from_secs(5),
                hand_over: Duration::from_secs(3),
                replication_timeout: Duration::from_secs(30),
                ..PgTiming::from_cluster(&Timing::FAST)
            },
        }
    }

    pub fn node(&self, id: u8) -> Node {
        self.node_with(self.settings(NodeId(id)))
    }

    /// An agent of its own, with a launcher of its own.
    pub fn node_with(&self, settings: PgSettings) -> Node {
        let (launcher, mut exits) = DirectLauncher::new();
        let (sender, events) = mpsc::channel(1000);
        let handle = PgAgent::spawn(settings.clone(), launcher.clone(), sender);
        let route = Arc::new(Mutex::new(handle.clone()));
        let current = route.clone();
        tokio::spawn(async move {
            while let Some(exit) = exits.recv().await {
                current.lock().unwrap().exited(exit);
            }
        });
        let id = settings.node;
        Node { id, settings, handle, launcher, events, route, notes: Vec::new(), status: None, exited: None }
    }
}

impl Node {
    /// The agent ends and another begins; what it started stays.
    pub fn restart_agent(&mut self) {
        let (sender, events) = mpsc::channel(1000);
        self.handle = PgAgent::spawn(self.settings.clone(), self.launcher.clone(), sender);
        *self.route.lock().unwrap() = self.handle.clone();
        self.events = events;
        self.forget();
    }

    /// The main process of the server.
    pub async fn postmaster(&self) -> u32 {
        self.launcher.running("db").await.unwrap().expect("a running server")
    }

    /// All processes of the server, the main one first.
    pub async fn processes(&self) -> Vec<u32> {
        let main = self.postmaster().await;
        let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        std::iter::once(main).chain(children).collect()
    }

    /// Appends to the administrator's configuration.
    pub fn configure(&self, file: &Path, lines: &str) {
        let text = fs::read_to_string(file).unwrap() + lines;
        fs::write(file, text).unwrap();
    }

    /// Waits for a file of the run directory.
    pub async fn until_file(&self, name: &str) {
        let start = Instant::now();
        while !self.settings.run_dir.join(name).exists() {
            assert!(start.elapsed() < PATIENCE, "no {name}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the standby's receiver streams over a connection made with `hosts`.
    pub async fn until_receiver_at(&self, hosts: &str) {
        let start = Instant::now();
        let admin = self.admin().await;
        loop {
            let rows = admin.query("select conninfo from pg_stat_wal_receiver where status = 'streaming'", &[]).await;
            if rows.unwrap().iter().any(|row| row.get::<_, Option<String>>(0).is_some_and(|told| told.contains(hosts)))
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{}: no receiver at {hosts}; log: {}", self.id, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn sick(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.sick.is_some())
    }

    /// Gives a command and returns its answer.
    pub async fn ask(&mut self, command: DataCommand) -> DataObservation {
        let what = format!("{command:?}");
        self.handle.send(command);
        self.answer(&what).await
    }

    /// The next answer; what comes beside it is kept.
    pub async fn answer(&mut self, what: &str) -> DataObservation {
        let start = Instant::now();
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    if let Some(answer) = self.keep(event.expect("agent ended")) {
                        println!("{} {what}: {answer:?} after {:.1?}", self.id, start.elapsed());
                        return answer;
                    }
                }
                () = &mut deadline => panic!("{}: {what} was not answered; log: {}", self.id, self.log()),
            }
        }
    }

    fn keep(&mut self, event: DataObservation) -> Option<DataObservation> {
        match event {
            DataObservation::Status(status) => self.status = Some(status),
            DataObservation::Note { text } => {
                println!("{} note: {text}", self.id);
                self.notes.push(text);
            }
            DataObservation::Exited { reason } => {
                println!("{} exited: {reason}", self.id);
                self.exited = Some(reason);
            }
            answer => return Some(answer),
        }
        None
    }

    /// Takes events until `good`, which looks at this node.
    pub async fn until(&mut self, what: &str, good: impl Fn(&Node) -> bool) {
        let start = Instant::now();
        while !good(self) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match timeout(left, self.events.recv()).await {
                Ok(event) => {
                    let answer = self.keep(event.expect("agent ended"));
                    assert_eq!(answer, None, "{}: unasked answer while waiting for {what}", self.id);
                }
                Err(_) => panic!("{}: not {what}: {:?}; log: {}", self.id, self.status, self.log()),
            }
        }
        println!("{} {what} after {:.1?}", self.id, start.elapsed());
    }

    /// Throws away what was told so far.
    pub fn forget(&mut self) {
        while self.events.try_recv().is_ok() {}
        self.status = None;
        self.exited = None;
    }

    pub async fn done(&mut self, command: DataCommand, expected: DataObservation) {
        let answer = self.ask(command.clone()).await;
        assert_eq!(answer, expected, "{}: {command:?}; log: {}", self.id, self.log());
    }

    pub async fn kill(&mut self) {
        self.done(DataCommand::Kill, DataObservation::Stopped).await;
    }

    pub async fn stop(&mut self) {
        self.done(DataCommand::Stop, DataObservation::Stopped).await;
    }

    pub async fn copy(&mut self, command: DataCommand) -> CopyId {
        match self.ask(command).await {
            DataObservation::Inspected(Data::Present { copy, .. }) => copy,
            other => panic!("{}: {other:?}; log: {}", self.id, self.log()),
        }
    }

    pub async fn guard(&mut self, members: &[u8], epoch: u64) -> Position {
        let members = members.iter().map(|id| NodeId(*id)).collect();
        match self.ask(DataCommand::SetGuard { members, epoch }).await {
            DataObservation::GuardSet { position } => position,
            other => panic!("{}: {other:?}; log: {}", self.id, self.log()),
        }
    }

    pub async fn failed(&mut self, command: DataCommand) -> String {
        match self.ask(command).await {
            DataObservation::Failed { reason } => reason,
            other => panic!("{}: {other:?} instead of a failure", self.id),
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.settings.log_file).unwrap_or_default()
    }

    /// Our own kind of session, let in at all times.
    pub async fn admin(&self) -> Client {
        let mut config = Config::new();
        config.host_path(&self.settings.run_dir).port(self.settings.port).user("oarlock").dbname("postgres");
        connect(&config).await.unwrap()
    }

    /// A client over TCP.
    pub async fn client(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.settings.port).user(APP).password("app").dbname("postgres");
        connect(&config).await
    }

    /// Makes the client's role and table; needs a primary whose commits are acknowledged.
    pub async fn make_client_role(&self) {
        let sql = format!("create role {APP} login password 'app'; create table t (n int); grant all on t to {APP}");
        self.admin().await.batch_execute(&sql).await.unwrap();
    }
}

async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Inserts a row; whether it was acknowledged within `after`.
pub async fn insert(client: &Client, number: i32, after: Duration) -> bool {
    let sql = format!("insert into t values ({number})");
    matches!(timeout(after, client.batch_execute(&sql)).await, Ok(Ok(())))
}

/// All rows, in order.
pub async fn rows(client: &Client) -> Vec<i32> {
    let rows = client.query("select n from t order by n", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

pub fn right(epoch: u64) -> Guard {
    Guard { generation: epoch, epoch }
}

/// The version that is tried: `OARLOCK_TEST_PG_VERSION`, else 15.
pub fn version() -> u32 {
    std::env::var("OARLOCK_TEST_PG_VERSION").ok().and_then(|text| text.parse().ok()).unwrap_or(15)
}

fn bin_dir() -> PathBuf {
    debian_bin_dir(version())
}

/// PostgreSQL refuses to run as root.
fn server_user() -> ServerUser {
    if !rustix::process::geteuid().is_root() {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        return ServerUser { name: "self".into(), uid, gid, groups: Vec::new() };
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let entry = |name: &str| passwd.lines().find(|line| line.split(':').next() == Some(name)).map(str::to_owned);
    let entry = entry("postgres").or_else(|| entry("nobody")).expect("a user that is not root");
    let fields: Vec<&str> = entry.split(':').collect();
    let (uid, gid) = (fields[2].parse().unwrap(), fields[3].parse().unwrap());
    ServerUser { name: fields[0].to_owned(), uid, gid, groups: Vec::new() }
}

/// Sends a signal to processes of the test's own.
pub fn signal(pids: &[u32], signal: Signal) {
    for pid in pids {
        let pid = Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        // One that just ended does not matter.
        let _ = kill_process(pid, signal);
    }
}
