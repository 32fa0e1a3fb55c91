//! Two nodes with agents, and clients to try them with.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use oarlock::agents::launcher::Launcher;
use oarlock::agents::launcher::direct::DirectLauncher;
use oarlock::agents::mariadb::{MariaAgent, MariaHandle, MariaMember, MariaSettings};
use oarlock::agents::postgresql::{PgTiming, ServerUser};
use oarlock::secrets::ClusterSecrets;
use oarlock_core::config::Timing;
use oarlock_core::ids::{CopyId, NodeId};
use oarlock_core::resource::Guard;
use oarlock_core::resource::database::{Data, DataCommand, DataObservation, DataStatus, Position};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Time enough for a commit that is acknowledged at all.
pub const SOON: Duration = Duration::from_secs(5);
const SERVER: &str = "/usr/sbin/mariadbd";
/// Small, so that a start is quick.
const OWN_SETTINGS: &str = "[mariadbd]\ninnodb_buffer_pool_size=16M\ninnodb_log_file_size=8M\n";

/// Everything of one test; removed with it.
pub struct Bench {
    pub root: TempDir,
    pub members: Vec<MariaMember>,
    user: ServerUser,
    secrets: ClusterSecrets,
}

/// One node.
pub struct Node {
    pub id: NodeId,
    pub settings: MariaSettings,
    pub handle: MariaHandle,
    pub launcher: DirectLauncher,
    events: mpsc::Receiver<DataObservation>,
    /// Whom the launcher's notices go to.
    route: Arc<Mutex<MariaHandle>>,
    /// What was told beside the answers.
    pub notes: Vec<String>,
    pub status: Option<DataStatus>,
    pub exited: Option<String>,
}

impl Bench {
    /// A bench with two nodes; `None` where there is no MariaDB.
    pub fn new() -> Option<Bench> {
        if !Path::new(SERVER).exists() || !rustix::process::geteuid().is_root() {
            eprintln!("skipped: no MariaDB here, or not root, as whom its administrator logs in");
            return None;
        }
        // Below /tmp: the path of a Unix socket must be short, and readable for the server's user.
        let root = tempfile::Builder::new().prefix("oarlock-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let secrets = ClusterSecrets::create(root.path()).unwrap();
        // All at once, so that no two get the same.
        let ports: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let members = ports.chunks(2).zip(1..).map(|(pair, number)| MariaMember {
            id: NodeId(number),
            name: format!("server{number}"),
            links: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            lost: Vec::new(),
            port: port(&pair[0]),
            copy_port: port(&pair[1]),
        });
        let members = members.collect();
        Some(Bench { members, root, user: server_user(), secrets })
    }

    fn settings(&self, id: NodeId) -> MariaSettings {
        let home = self.root.path().join(format!("n{}", id.0));
        if !home.exists() {
            fs::create_dir(&home).unwrap();
            chown(&home, Some(self.user.uid), Some(self.user.gid)).unwrap();
        }
        let include = home.join("own.cnf");
        fs::write(&include, OWN_SETTINGS).unwrap();
        MariaSettings {
            name: "db".into(),
            version: "10.11".into(),
            server: SERVER.into(),
            tools_dir: "/usr/bin".into(),
            data_dir: home.join("data"),
            include: Some(include),
            run_dir: home.join("run"),
            log_file: home.join("log"),
            port: self.members.iter().find(|member| member.id == id).unwrap().port,
            bind_address: "127.0.0.1".into(),
            user: self.user.clone(),
            node: id,
            members: self.members.clone(),
            secrets: self.secrets.clone(),
            admin: "root".into(),
            divergent_limit_mib: 1024,
            // Patient where a busy machine would make a test fail for nothing.
            timing: PgTiming {
                statement: Duration::from_secs(5),
                guard: Duration::from_secs(5),
                hand_over: Duration::from_secs(5),
                replication_timeout: Duration::from_secs(30),
                ..PgTiming::from_cluster(&Timing::FAST)
            },
        }
    }

    /// Makes a directory, and whatever settings lie in it, the server's user's.
    pub fn give(&self, home: &Path) {
        chown(home, Some(self.user.uid), Some(self.user.gid)).unwrap();
        fs::write(home.join("own.cnf"), OWN_SETTINGS).unwrap();
    }

    /// An agent of its own, with a launcher of its own.
    pub fn node(&self, id: u8) -> Node {
        let settings = self.settings(NodeId(id));
        let (launcher, mut exits) = DirectLauncher::new();
        let (sender, events) = mpsc::channel(1000);
        let handle = MariaAgent::spawn(settings.clone(), launcher.clone(), sender);
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
        self.handle = MariaAgent::spawn(self.settings.clone(), self.launcher.clone(), sender);
        *self.route.lock().unwrap() = self.handle.clone();
        self.events = events;
        self.forget();
    }

    /// The server's process.
    pub async fn server(&self) -> u32 {
        self.launcher.running("db").await.unwrap().expect("a running server")
    }

    pub fn sick(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.sick.is_some())
    }

    /// Gives a command and returns its answer.
    pub async fn ask(&mut self, command: DataCommand) -> DataObservation {
        let what = format!("{command:?}");
        self.handle.send(command);
        let start = Instant::now();
        let answer = self.answer().await;
        println!("{} {what}: {answer:?} after {:.1?}", self.id, start.elapsed());
        answer
    }

    /// The answer of the command under way.
    pub async fn answer(&mut self) -> DataObservation {
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    if let Some(answer) = self.keep(event.expect("agent ended")) {
                        return answer;
                    }
                }
                () = &mut deadline => panic!("{}: no answer; log: {}", self.id, self.log()),
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

    /// Whether something was told that contains `text`.
    pub fn noted(&self, text: &str) -> bool {
        self.notes.iter().any(|note| note.contains(text))
    }

    /// Throws away what was told so far.
    pub fn forget(&mut self) {
        while self.events.try_recv().is_ok() {}
        self.notes.clear();
        self.status = None;
        self.exited = None;
    }

    pub async fn done(&mut self, command: DataCommand, expected: DataObservation) {
        let answer = self.ask(command.clone()).await;
        assert_eq!(answer, expected, "{}: {command:?}; log: {}", self.id, self.log());
    }

    /// Gives a command that ends in a look at the directory; the copy's number.
    pub async fn copy(&mut self, command: DataCommand) -> CopyId {
        match self.ask(command).await {
            DataObservation::Inspected(Data::Present { copy, .. }) => copy,
            other => panic!("{}: {other:?}; log: {}", self.id, self.log()),
        }
    }

    /// Sets the guard; once more, as the core would, when the server had to be helped to let go of the former one.
    pub async fn guard(&mut self, members: &[u8], epoch: u64) -> Position {
        let members: Vec<NodeId> = members.iter().map(|id| NodeId(*id)).collect();
        let mut helped = 0;
        loop {
            match self.ask(DataCommand::SetGuard { members: members.clone(), epoch }).await {
                DataObservation::GuardSet { position } => return position,
                DataObservation::Failed { reason } if helped < 3 && reason.contains("was cut off") => helped += 1,
                other => panic!("{}: {other:?}; log: {}", self.id, self.log()),
            }
        }
    }

    /// Gives a command that cannot be done; why.
    pub async fn failed(&mut self, command: DataCommand) -> String {
        self.handle.send(command);
        self.failure().await
    }

    /// Why the command under way cannot be done.
    pub async fn failure(&mut self) -> String {
        match self.answer().await {
            DataObservation::Failed { reason } => reason,
            other => panic!("{}: {other:?} instead of a failure", self.id),
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.settings.log_file).unwrap_or_default()
    }

    /// An administrator's session, let in at all times.
    pub async fn admin(&self) -> Conn {
        let socket = self.settings.run_dir.join("mariadb.sock").display().to_string();
        Conn::new(OptsBuilder::default().socket(Some(socket)).user(Some("root"))).await.unwrap()
    }

    /// A client over TCP that was let in.
    pub async fn client(&self) -> Result<Conn, mysql_async::Error> {
        let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(self.settings.port);
        let options = options.user(Some("app")).pass(Some("app")).prefer_socket(false);
        let mut client = Conn::new(options).await?;
        client.query_drop("select 1").await?;
        Ok(client)
    }

    /// Makes the client's account and table; needs a primary whose commits are acknowledged.
    pub async fn make_client(&self) {
        let mut admin = self.admin().await;
        for sql in [
            "create user app@'127.0.0.1' identified by 'app'",
            "create database app",
            "create table app.t (n int primary key) engine=innodb",
            "grant all on app.* to app@'127.0.0.1'",
        ] {
            admin.query_drop(sql).await.unwrap();
        }
    }
}

/// Inserts a row; whether it was acknowledged within `after`.
pub async fn insert(client: &mut Conn, number: i32, after: Duration) -> bool {
    let sql = format!("insert into app.t values ({number})");
    matches!(timeout(after, client.query_drop(sql)).await, Ok(Ok(())))
}

/// All rows, in order.
pub async fn rows(client: &mut Conn) -> Vec<i32> {
    client.query("select n from app.t order by n").await.unwrap()
}

pub fn right(epoch: u64) -> Guard {
    Guard { generation: epoch, epoch }
}

/// A new primary in service, alone, on a database made by the agent.
pub async fn serve_new(node: &mut Node, epoch: u64) {
    node.copy(DataCommand::Initialize).await;
    serve(node, epoch).await;
}

/// A new primary in service, alone, on a database as a package leaves it: made once for all tests.
pub async fn serve_alone(node: &mut Node, epoch: u64) {
    node.settings.copy_template();
    node.copy(DataCommand::Inspect).await;
    serve(node, epoch).await;
}

async fn serve(node: &mut Node, epoch: u64) {
    node.done(DataCommand::StartPrimary { guard: right(epoch) }, DataObservation::Started).await;
    node.guard(&[], epoch).await;
    node.done(DataCommand::Open, DataObservation::Opened).await;
    node.make_client().await;
}

/// Two copies, and commits wait for the second.
pub async fn serve_both(a: &mut Node, b: &mut Node, epoch: u64) {
    serve_alone(a, epoch).await;
    join(b, a, epoch).await;
    a.guard(&[b.id.0], epoch).await;
}

trait Template {
    fn copy_template(&self);
    fn install(&self, dir: &Path);
}

impl Template for MariaSettings {
    fn copy_template(&self) {
        static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
        let template = TEMPLATE.get_or_init(|| {
            // Of this build of the server, and for later runs too.
            let version = fs::metadata(SERVER).unwrap().mtime();
            let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mariadb-{version}"));
            if !place.exists() {
                let dir = TempDir::with_prefix_in("mariadb-", env!("CARGO_TARGET_TMPDIR")).unwrap();
                self.install(dir.path());
                // Unless another run was quicker.
                let _ = fs::rename(dir.path(), &place);
            }
            place
        });
        let copied = Command::new("cp").arg("-r").arg(template).arg(&self.data_dir).status().unwrap();
        let owner = format!("{}:{}", self.user.uid, self.user.gid);
        let given = Command::new("chown").arg("-R").arg(owner).arg(&self.data_dir).status().unwrap();
        assert!(copied.success() && given.success());
    }

    fn install(&self, dir: &Path) {
        let options = ["--no-defaults", "--auth-root-authentication-method=socket", "--skip-test-db"];
        let (data, own) = (format!("--datadir={}", dir.display()), format!("--tmpdir={}", dir.display()));
        let mut tool = Command::new(self.tools_dir.join("mariadb-install-db"));
        assert!(tool.args(options).args([data, own]).stdout(Stdio::null()).status().unwrap().success());
    }
}

/// A clone of `from` that streams.
pub async fn join(node: &mut Node, from: &mut Node, epoch: u64) {
    node.copy(DataCommand::Clone { from: from.id }).await;
    node.done(DataCommand::Follow { upstream: from.id, epoch }, DataObservation::Started).await;
    let id = node.id;
    from.until("standby streams", |from| streams(from, id)).await;
}

pub fn streams(from: &Node, id: NodeId) -> bool {
    let Some(status) = &from.status else { return false };
    status.standbys.iter().any(|standby| standby.node == id && standby.streaming)
}

/// MariaDB's own user, who comes with the package.
fn server_user() -> ServerUser {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let entry = passwd.lines().find(|line| line.starts_with("mysql:")).expect("a user mysql");
    let fields: Vec<&str> = entry.split(':').collect();
    let (uid, gid) = (fields[2].parse().unwrap(), fields[3].parse().unwrap());
    ServerUser { name: fields[0].to_owned(), uid, gid, groups: Vec::new() }
}

/// Sends a signal to a process of the test's own.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // One that just ended does not matter.
    let _ = kill_process(pid, signal);
}
