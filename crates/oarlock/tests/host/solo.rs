//! A whole agent, as a cluster of one: the real program with its own configuration, run and state
//! directories, in namespaces of its own and without cgroups, so that the machine's are not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oarlock::control::{ControlClient, Request, Response, StatusReport, socket_path};
use oarlock::keys::PrivateKey;
use rustix::process::Signal;

use super::rig::{runs, signal};
use super::run;

const SOON: Duration = Duration::from_secs(20);

/// A sentinel and its agent. All of it is killed and removed when it is dropped.
pub struct Solo {
    pub directory: PathBuf,
    pub state_dir: PathBuf,
    sentinel: Option<Child>,
}

/// A cluster of one that runs one service, with a lease of so many milliseconds.
pub fn config(key: &str, lease_ms: u64) -> String {
    let (heartbeat_ms, election_ms) = (lease_ms / 20, lease_ms / 2);
    format!(
        "[cluster]\nname = \"solo\"\nheartbeat_ms = {heartbeat_ms}\nlease_ms = {lease_ms}\n\
         election_ms = {election_ms}\n\n[[node]]\nname = \"one\"\nlinks = [\"127.0.0.1\"]\nkey = \"{key}\"\n\n\
         [[group]]\nname = \"main\"\nnodes = [\"one\"]\n\n  [[group.resource]]\n  name = \"sleeper\"\n  \
         kind = \"service\"\n  command = [\"/bin/sleep\", \"100000\"]\n"
    )
}

/// What the machine would otherwise share with the agent.
pub fn hide_the_machine() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
        run(&format!("umount {}", line.split(' ').nth(4).unwrap()));
    }
    run("mount -t tmpfs tmpfs /var/log");
    run("ip link set lo up");
}

impl Solo {
    /// Prepared, not started. `state_dir` is made here unless given.
    pub fn new(state_dir: Option<&Path>, lease_ms: u64) -> Solo {
        hide_the_machine();
        let key = PrivateKey::generate().unwrap();
        let mut solo = Solo::member("one", &config(&key.public().to_string(), lease_ms), &key);
        if let Some(state_dir) = state_dir {
            solo.state_dir = state_dir.to_owned();
        }
        solo
    }

    /// One node of several, prepared and not started; the machine is hidden already.
    pub fn member(name: &str, config: &str, key: &PrivateKey) -> Solo {
        let directory = PathBuf::from(format!("/dev/shm/oarlock-solo-{}-{name}", std::process::id()));
        fs::create_dir_all(directory.join("etc")).unwrap();
        key.write_new(&directory.join("etc/node.key")).unwrap();
        fs::write(directory.join("etc/oarlock.toml"), config).unwrap();
        Solo { state_dir: directory.join("state"), directory, sentinel: None }
    }

    /// Ends it without giving anybody a chance to say so.
    pub fn power_off(&mut self) {
        for _ in 0..5 {
            // Stopped first, the agent before the sentinel: either alone would be replaced by the other.
            let pids: Vec<u32> = self.agent().into_iter().chain(self.holder()).collect();
            for how in [Signal::STOP, Signal::KILL] {
                pids.iter().for_each(|pid| signal(*pid, how));
            }
            std::thread::sleep(Duration::from_millis(20));
            if !pids.iter().any(|pid| runs(*pid)) {
                break;
            }
        }
        if let Some(mut sentinel) = self.sentinel.take() {
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
        let services = self.record()["services"].as_array().cloned().unwrap_or_default();
        for pid in services.iter().filter_map(|service| service["main"]["Running"]["pid"].as_u64()) {
            signal(u32::try_from(pid).unwrap(), Signal::KILL);
        }
    }

    /// The configuration as it stands in the file.
    pub fn file(&self) -> String {
        fs::read_to_string(self.directory.join("etc/oarlock.toml")).unwrap()
    }

    /// Started, and the service runs.
    pub fn started(state_dir: Option<&Path>, lease_ms: u64) -> Solo {
        let mut solo = Solo::new(state_dir, lease_ms);
        solo.start(&[]);
        solo.wait_for("the service", || solo.sleeper());
        solo
    }

    pub fn start(&mut self, environment: &[(&str, &str)]) {
        let log = fs::File::create(self.directory.join("stderr")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_oarlock"))
            .args(self.arguments())
            .args(["agent", "--state-dir"])
            .arg(&self.state_dir)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.sentinel = Some(child);
    }

    pub fn arguments(&self) -> [PathBuf; 4] {
        let own = |name: &str| self.directory.join(name);
        ["--config".into(), own("etc/oarlock.toml"), "--run-dir".into(), own("run")]
    }

    /// Waits for the sentinel that was started to end.
    pub fn end(&mut self) -> ExitStatus {
        let mut sentinel = self.sentinel.take().unwrap();
        let until = Instant::now() + SOON;
        loop {
            if let Some(status) = sentinel.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the sentinel does not end; it says:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The process number of the service, once the cluster says that it runs.
    pub fn sleeper(&self) -> Option<u32> {
        let status = self.status()?;
        let group = status.groups.first().filter(|group| group.state == "started")?;
        group.owner.as_ref()?;
        let record = self.record();
        let service = record["services"].as_array()?.first()?;
        let pid = service["main"]["Running"]["pid"].as_u64()?;
        u32::try_from(pid).ok().filter(|pid| runs(*pid))
    }

    pub fn status(&self) -> Option<StatusReport> {
        match self.ask(&Request::Status)? {
            Response::Status { status } => Some(status),
            _ => None,
        }
    }

    pub fn ask(&self, request: &Request) -> Option<Response> {
        let path = socket_path(&self.directory.join("run"));
        ControlClient::connect(&path, SOON).ok()?.ask(request).ok()
    }

    /// The sentinel's record, as JSON.
    pub fn record(&self) -> serde_json::Value {
        let bytes = fs::read(self.directory.join("run/sentinel.state")).unwrap_or_default();
        let number = |slot: &[u8], at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().unwrap());
        let slots = bytes.chunks((bytes.len() / 2).max(1)).filter(|slot| slot.starts_with(b"oarlock1"));
        let newest = slots.max_by_key(|slot| number(slot, 8));
        let document = newest.and_then(|slot| {
            let length = usize::try_from(number(slot, 16)).unwrap();
            serde_json::from_slice::<serde_json::Value>(&slot[32..32 + length]).ok()
        });
        document.map(|document| document["record"].clone()).unwrap_or_default()
    }

    /// Who holds the sentinel's lock.
    pub fn holder(&self) -> Option<u32> {
        let line = fs::read_to_string(self.directory.join("run/sentinel.lock")).ok()?;
        line.split_whitespace().next()?.parse().ok()
    }

    pub fn agent(&self) -> Option<u32> {
        u32::try_from(self.record()["agent"]["pid"].as_u64()?).ok()
    }

    /// What sentinel and agents wrote.
    pub fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        read("run/sentinel.log") + &read("stderr")
    }

    /// Waits until something is there, with a deadline.
    pub fn wait_for<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let until = Instant::now() + SOON;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < until, "{what} did not come; they say:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Solo {
    fn drop(&mut self) {
        self.power_off();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
