//! A sentinel as a real process with its own state directory and cgroup, and an agent that does
//! what the test tells it through files: it forwards requests written to `ask` and appends what it
//! is told to `told`.

use std::fs;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use oarlock::process::clock::boot_us;
use oarlock::sentinel::{AGENT_SOCKET, Options, Patience, SentinelHandle, UNDER_SENTINEL, become_sentinel};
use oarlock_core::sentinel::{
    Command as Service, FromSentinel, Guard, Notice, Record, Refusal, Reply, Request, ToSentinel, Welcome,
};
use rustix::process::{Pid, Signal, kill_process};

/// First argument of the program when it plays sentinel or agent.
pub const ROLE: &str = "agent";
/// First argument of the program when it plays a service with many threads.
pub const CROWD: &str = "crowd";
pub const SOON: Duration = Duration::from_secs(5);
/// What the agent's patience with its sentinel follows.
const LEASE: Duration = Duration::from_millis(300);
const ASK_EVERY: Duration = Duration::from_millis(2);

/// Sentinel or agent: `agent STATE_DIR CGROUP [--under-sentinel FD]`.
pub fn play(arguments: &[String]) -> ExitCode {
    let [_, state_dir, cgroup, ..] = arguments else {
        return ExitCode::from(2);
    };
    if arguments.iter().any(|argument| argument == UNDER_SENTINEL) {
        return play_agent(Path::new(state_dir));
    }
    let argv = std::env::args_os().collect();
    let options = Options { state_dir: state_dir.into(), cgroup: cgroup.clone(), argv };
    match oarlock::sentinel::run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            ExitCode::FAILURE
        }
    }
}

#[allow(unsafe_code)] // the descriptor is ours by agreement with the sentinel
fn play_agent(directory: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // SAFETY: nothing else in this process knows the descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(AGENT_SOCKET) };
    let stays = runtime.block_on(async {
        let (handle, mut notices) = SentinelHandle::new(socket).unwrap();
        append(directory, &FromSentinel::Reply { id: 0, reply: welcome(&handle).await });
        let mut asked = 0;
        loop {
            tokio::select! {
                notice = notices.recv() => match notice {
                    Some(notice) => append(directory, &FromSentinel::Notice(notice)),
                    None => return true,
                },
                () = tokio::time::sleep(ASK_EVERY) => {
                    let _ = handle.insist(Request::Hello, Patience::of_lease(LEASE)).await;
                    let text = fs::read_to_string(directory.join("ask")).unwrap_or_default();
                    let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
                    // What was asked before this agent was born was for its predecessor.
                    let before: usize = fs::read_to_string(directory.join("answered")).map_or(0, |n| n.parse().unwrap());
                    asked = asked.max(before);
                    for line in lines.iter().skip(asked) {
                        asked += 1;
                        fs::write(directory.join("answered"), asked.to_string()).unwrap();
                        let ToSentinel { id, request } = serde_json::from_str(line).unwrap();
                        let (handle, directory) = (handle.clone(), directory.to_owned());
                        tokio::spawn(async move {
                            if let Ok(reply) = handle.request(request, SOON).await {
                                append(&directory, &FromSentinel::Reply { id, reply });
                            }
                        });
                    }
                }
            }
        }
    });
    if stays {
        eprintln!("no sentinel: {}", become_sentinel());
    }
    ExitCode::FAILURE
}

/// A service with many threads; never returns.
pub fn crowd() -> ! {
    for _ in 0..100 {
        std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(|| std::thread::sleep(Duration::from_secs(1000)))
            .unwrap();
    }
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

async fn welcome(handle: &SentinelHandle) -> Reply {
    Reply::Welcome(Box::new(handle.hello(SOON).await.unwrap()))
}

fn append(directory: &Path, message: &FromSentinel) {
    let mut line = serde_json::to_vec(message).unwrap();
    line.push(b'\n');
    let mut file = fs::File::options().create(true).append(true).open(directory.join("told")).unwrap();
    file.write_all(&line).unwrap();
}

/// A sentinel under test. Everything of it is killed and removed when it is dropped.
pub struct Rig {
    pub directory: PathBuf,
    pub cgroup: String,
    sentinels: Vec<Child>,
    asked: u64,
}

impl Rig {
    pub fn new() -> Self {
        let cgroup = format!("oarlock-test-{}", std::process::id());
        // In memory, as the state directory must be.
        let directory = PathBuf::from("/dev/shm").join(&cgroup);
        fs::create_dir_all(&directory).unwrap();
        let mut rig = Self { directory, cgroup, sentinels: Vec::new(), asked: 0 };
        rig.start();
        rig.wait_for("an agent", || (rig.welcomes().len() == 1).then_some(()));
        rig
    }

    /// With generation 1 and a lease.
    pub fn leased(lease: Duration) -> Self {
        let mut rig = Self::new();
        rig.done(Request::NewGeneration { generation: 1 });
        rig.renew(lease);
        rig
    }

    /// Starts a (further) sentinel.
    pub fn start(&mut self) -> u32 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([ROLE, self.directory.to_str().unwrap(), &self.cgroup])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.sentinels.push(child);
        self.sentinels.last().unwrap().id()
    }

    pub fn renew(&mut self, lease: Duration) -> u64 {
        let lease_us = u64::try_from(lease.as_micros()).unwrap();
        match self.ask(Request::Lease { generation: 1, deadline_us: boot_us() + lease_us }) {
            Reply::LeaseArmed { deadline_us, .. } => deadline_us,
            other => panic!("no lease: {other:?}"),
        }
    }

    pub fn send(&mut self, request: Request) -> u64 {
        self.asked += 1;
        let mut line = serde_json::to_vec(&ToSentinel { id: self.asked, request }).unwrap();
        line.push(b'\n');
        let path = self.directory.join("ask");
        fs::File::options().create(true).append(true).open(path).unwrap().write_all(&line).unwrap();
        self.asked
    }

    pub fn reply(&self, id: u64) -> Option<Reply> {
        self.told().into_iter().find_map(|message| match message {
            FromSentinel::Reply { id: of, reply } if of == id => Some(reply),
            _ => None,
        })
    }

    pub fn ask(&mut self, request: Request) -> Reply {
        let text = format!("{request:?}");
        let id = self.send(request);
        self.wait_for(&text, || self.reply(id))
    }

    pub fn done(&mut self, request: Request) {
        let text = format!("{request:?}");
        assert_eq!(self.ask(request), Reply::Done, "{text}");
    }

    pub fn refused(&mut self, request: Request) -> Refusal {
        match self.ask(request) {
            Reply::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub fn spawn(&mut self, name: &str, script: &str, guard: Option<Guard>) -> u32 {
        match self.ask(service(name, script, guard)) {
            Reply::Spawned { pid } => pid,
            other => panic!("not spawned: {other:?}"),
        }
    }

    pub fn told(&self) -> Vec<FromSentinel> {
        let text = fs::read_to_string(self.directory.join("told")).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn welcomes(&self) -> Vec<Welcome> {
        let welcome = |message| match message {
            FromSentinel::Reply { id: 0, reply: Reply::Welcome(welcome) } => Some(*welcome),
            _ => None,
        };
        self.told().into_iter().filter_map(welcome).collect()
    }

    pub fn notice<T>(&self, what: &str, pick: impl Fn(&Notice) -> Option<T>) -> T {
        self.wait_for(what, || {
            self.told().iter().find_map(|message| match message {
                FromSentinel::Notice(notice) => pick(notice),
                FromSentinel::Reply { .. } => None,
            })
        })
    }

    /// The record as the sentinel saved it.
    pub fn record(&self) -> Record {
        let bytes = fs::read(self.directory.join("sentinel.state")).unwrap();
        let slots = bytes.chunks(bytes.len() / 2).filter(|slot| slot.starts_with(b"oarlock1"));
        let number = |slot: &[u8], at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().unwrap());
        let newest = slots.max_by_key(|slot| number(slot, 8)).unwrap();
        let length = usize::try_from(number(newest, 16)).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&newest[32..32 + length]).unwrap();
        serde_json::from_value(document["record"].clone()).unwrap()
    }

    pub fn agent_pid(&self) -> u32 {
        self.record().agent.expect("an agent").pid
    }

    /// Process number of whoever holds the lock, and its role.
    pub fn holder(&self) -> (u32, String) {
        let line = fs::read_to_string(self.directory.join("sentinel.lock")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[0].parse().unwrap(), words[2].to_owned())
    }

    pub fn journal(&self) -> String {
        fs::read_to_string(self.directory.join("sentinel.log")).unwrap_or_default()
    }

    /// Waits until something is there, with a deadline.
    pub fn wait_for<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let until = Instant::now() + SOON;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < until, "{what} did not come; log:\n{}", self.journal());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for a sentinel we started to end.
    pub fn reap(&mut self, pid: u32) -> std::process::ExitStatus {
        let child = self.sentinels.iter_mut().find(|child| child.id() == pid).unwrap();
        let until = Instant::now() + SOON;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "sentinel {pid} does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.journal());
        }
        // The holder may be none of our children: an agent or keeper that took over. Killing the
        // sentinel makes its agent one, so both go, the agent stopped first.
        for _ in 0..10 {
            let (holder, _) = self.holder();
            let agent = self.record().agent.map(|agent| agent.pid);
            for pid in agent.into_iter().chain([holder]) {
                signal(pid, Signal::STOP);
            }
            for pid in agent.into_iter().chain([holder]) {
                signal(pid, Signal::KILL);
            }
            for child in &mut self.sentinels {
                let _ = child.kill();
                let _ = child.wait();
            }
            std::thread::sleep(Duration::from_millis(20));
            if self.holder().0 == holder {
                break;
            }
        }
        let groups = oarlock::process::cgroup::Groups::find(&self.cgroup);
        for name in groups.names() {
            if let Ok(group) = groups.open(&name) {
                group.kill();
                let until = Instant::now() + SOON;
                while group.is_populated() && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            groups.remove(&name);
        }
        groups.remove_all();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub fn guard() -> Guard {
    Guard { group: "oar".into(), generation: 1, epoch: 1 }
}

pub fn service(name: &str, script: &str, guard: Option<Guard>) -> Request {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let command = Service { argv, env, ..Service::default() };
    Request::Spawn { name: name.into(), command: Box::new(command), guard }
}

pub fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
}

/// Whether a process runs (a zombie does not).
pub fn runs(pid: u32) -> bool {
    oarlock::process::identity::stat(pid).is_ok_and(|stat| stat.state != 'Z')
}
