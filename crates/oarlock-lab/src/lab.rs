//! The lab as a whole: up, down, power, cables, status.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cgroup::{self, Hierarchy};
use crate::disk::{Disk, Trouble};
use crate::host::{self, Door, Host, Machine};
use crate::layout::{Kind, Part, Spec};
use crate::net::{self, Block, Cut};
use crate::paths::Paths;
use crate::process::Process;
use crate::state::{Engine, Shape, State, lock};
use crate::suite::Suite;
use crate::{apt, deadline, disk, layer, root};

/// How long a command waits for another one that changes the lab.
const TURN: Duration = Duration::from_secs(60);

/// The running lab of this checkout.
#[derive(Debug, Clone)]
pub struct Lab {
    paths: Paths,
    hierarchies: Vec<Hierarchy>,
}

/// What `lab status --json` prints.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Whether a lab is up.
    pub up: bool,
    /// How it was asked for.
    pub shape: Option<Shape>,
    /// Where the database is reached.
    pub service: Service,
    /// The hosts in the order of the layout.
    pub hosts: Vec<HostStatus>,
    /// What does not pass the cables.
    pub blocks: BTreeSet<Block>,
}

/// Where the service is reached.
#[derive(Debug, Serialize)]
pub struct Service {
    /// Its name in every host's /etc/hosts.
    pub name: &'static str,
    /// The address that moves.
    pub address: Ipv4Addr,
    /// The database's port.
    pub port: u16,
}

/// One host in a [`Status`].
#[derive(Debug, Serialize)]
pub struct HostStatus {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// Whether it is powered on.
    pub on: bool,
    /// Its pid 1 as the machine sees it.
    pub pid: Option<i32>,
    /// Its own address on each link.
    pub addresses: BTreeMap<u8, Ipv4Addr>,
    /// Its real-time budget in microseconds per 100 ms.
    pub realtime_us: u32,
}

impl Lab {
    /// The lab of the checkout we run in, up or not.
    pub fn open() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("the lab needs root for namespaces, mounts and control groups");
        }
        Ok(Self { paths: Paths::find()?, hierarchies: cgroup::hierarchies()? })
    }

    /// The lab's directories.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Brings up the hosts of `shape`, all powered on. Up already in that shape: only what is
    /// powered off is powered on.
    pub fn up(&self, shape: Shape) -> Result<()> {
        let _turn = self.turn()?;
        let mut state = match self.state() {
            Ok(state) if state.wires.alive() => {
                if state.shape != shape {
                    bail!("a lab of another shape is up\nhint: cargo xtask lab down");
                }
                state
            }
            _ => {
                self.clear()?;
                self.prepare(shape)?
            }
        };
        self.install_programs()?;
        let off: Vec<&str> = shape.layout.hosts().iter().map(|h| h.name).filter(|n| !on(&state, n)).collect();
        self.power_on(&mut state, &off)
    }

    /// Everything of a new lab but its hosts.
    fn prepare(&self, shape: Shape) -> Result<State> {
        apt::ensure_tools()?;
        let root = root::ensure(&self.paths, shape.suite)?;
        let packages = match shape.db {
            Engine::Postgresql => Vec::new(),
            Engine::Mariadb => vec![root::widen(&self.paths, shape.suite, "mariadb", &Suite::mariadb_packages())?],
        };
        for dir in [self.paths.layer(), self.paths.bin()] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        share_home(&root, &self.paths.home())?;
        layer::write(&self.paths.layer(), &root, shape, &self.hierarchies)?;
        let state = State {
            shape,
            root,
            packages,
            wires: net::start(&self.hierarchies, &self.paths.lab_id())?,
            hosts: BTreeMap::new(),
            realtime_us: BTreeMap::new(),
            blocks: BTreeSet::new(),
        };
        state.save(&self.paths)?;
        Ok(state)
    }

    /// Makes the programs of the release build, where there is one, visible in the hosts. A
    /// program that runs keeps its old file.
    pub fn install_programs(&self) -> Result<()> {
        for program in ["oarlock", "oarlock-lab"] {
            let source = self.paths.release(program);
            let target = self.paths.bin().join(program);
            if source.is_file() {
                let temporary = target.with_extension("new");
                fs::copy(&source, &temporary)
                    .and_then(|_| fs::rename(&temporary, &target))
                    .with_context(|| format!("cannot install {}", source.display()))?;
            }
        }
        Ok(())
    }

    /// Removes the lab: no process, namespace, mount, interface, control group or file of it
    /// remains, except the Debian root. No lab is no error.
    pub fn down(&self) -> Result<()> {
        let _turn = self.turn()?;
        self.clear()
    }

    fn clear(&self) -> Result<()> {
        self.processes().into_iter().for_each(disk::thaw_all);
        if let Ok(Some(state)) = State::load(&self.paths) {
            for process in state.hosts.values().chain([&state.wires]) {
                process.kill(Duration::from_secs(10))?;
            }
        }
        self.kill_strays()?;
        cgroup::remove(&self.hierarchies, &self.paths.lab_id(), None, Duration::from_secs(10))?;
        disk::await_release(&self.host_dirs(), Duration::from_secs(10))?;
        for dir in ["hosts", "layer", "bin", "home"] {
            let dir = self.paths.run.join(dir);
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
                }
                _ => {}
            }
        }
        match fs::remove_file(self.paths.run.join("lab.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot remove lab.json"),
            _ => Ok(()),
        }
    }

    /// Kills what is in the lab's control groups although no state names it: a power-on that was
    /// interrupted, or a state file that was lost.
    fn kill_strays(&self) -> Result<()> {
        self.processes().iter().try_for_each(|process| process.kill(Duration::from_secs(10)))
    }

    /// Everything that is in the lab's control groups.
    fn processes(&self) -> Vec<Process> {
        let lab = self.paths.lab_id();
        let mut pids: BTreeSet<i32> = BTreeSet::new();
        for hierarchy in &self.hierarchies {
            let Ok(groups) = fs::read_dir(hierarchy.mount.join(&lab)) else {
                continue;
            };
            for group in groups.flatten() {
                let text = fs::read_to_string(group.path().join("cgroup.procs")).unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            }
        }
        pids.into_iter().filter_map(|pid| Process::of(pid).ok()).collect()
    }

    /// The directories of all hosts there are, whatever the state says.
    fn host_dirs(&self) -> Vec<PathBuf> {
        let hosts = fs::read_dir(self.paths.run.join("hosts")).into_iter().flatten();
        hosts.flatten().map(|host| host.path()).collect()
    }

    /// The powered host called `name`.
    pub fn host(&self, name: &str) -> Result<Host> {
        let state = self.state()?;
        let spec = spec(&state, name)?;
        if !on(&state, name) {
            bail!("{name} is powered off\nhint: cargo xtask lab poweron {name}");
        }
        let door = Door::Namespaces {
            process: state.hosts[name],
            lab: self.paths.lab_id(),
            hierarchies: self.hierarchies.clone(),
        };
        Ok(Host { spec, door })
    }

    /// Cuts the power of `names` in one instant. Off already is no error.
    pub fn poweroff(&self, names: &[&str]) -> Result<()> {
        let _turn = self.turn()?;
        let mut state = self.state()?;
        let mut hosts = Vec::new();
        for name in names {
            let spec = spec(&state, name)?;
            if on(&state, name) {
                hosts.push((spec, state.hosts[*name]));
            }
        }
        host::power_off(&self.machine(&state), &hosts)?;
        for name in names {
            state.hosts.remove(*name);
            state.realtime_us.remove(*name);
        }
        state.save(&self.paths)
    }

    /// Powers `names` on with the disks they had. On already is no error.
    pub fn poweron(&self, names: &[&str]) -> Result<()> {
        let _turn = self.turn()?;
        let mut state = self.state()?;
        for name in names {
            spec(&state, name)?;
        }
        self.install_programs()?;
        self.power_on(&mut state, names)
    }

    fn power_on(&self, state: &mut State, names: &[&str]) -> Result<()> {
        for name in names.iter().filter(|name| !on(state, name)).copied().collect::<Vec<_>>() {
            let (process, realtime) = host::power_on(&self.machine(state), spec(state, name)?)?;
            state.hosts.insert(name.to_owned(), process);
            state.realtime_us.insert(name.to_owned(), realtime);
            state.save(&self.paths)?;
        }
        self.apply(state)
    }

    /// Takes from the cables of `name` what `cut` says, in addition to what is cut already.
    pub fn cut(&self, name: &str, cut: &Cut) -> Result<()> {
        let _turn = self.turn()?;
        let mut state = self.state()?;
        if let Some(peer) = &cut.peer {
            spec(&state, peer)?;
        }
        let blocks = cut.blocks(spec(&state, name)?);
        if blocks.is_empty() {
            bail!("{name} has no link {}", cut.link.unwrap_or_default());
        }
        state.blocks.extend(blocks);
        self.apply(&state)?;
        state.save(&self.paths)
    }

    /// Undoes cuts of `name` on the link and in the direction of `cut`, all of them by default.
    pub fn heal(&self, name: &str, cut: &Cut) -> Result<()> {
        let _turn = self.turn()?;
        let mut state = self.state()?;
        spec(&state, name)?;
        state.blocks.retain(|block| !cut.heals(name, block));
        self.apply(&state)?;
        state.save(&self.paths)
    }

    /// Gives the cables of `name` a capacity in the direction to it, in Mbit/s; `None` takes it away.
    pub fn limit(&self, name: &str, mbit: Option<u32>) -> Result<()> {
        let _turn = self.turn()?;
        let state = self.state()?;
        net::limit(state.wires, spec(&state, name)?, mbit)
    }

    /// Begins a trouble of a disk of `name`, a powered host.
    pub fn trouble(&self, name: &str, disk: Disk, trouble: Trouble) -> Result<()> {
        self.on_disk(name, disk, |host, place| disk::begin(host, place, trouble))
    }

    /// Ends a trouble of a disk of `name`, a powered host. One that is not there is no error.
    pub fn relieve(&self, name: &str, disk: Disk, trouble: Trouble) -> Result<()> {
        self.on_disk(name, disk, |host, place| disk::end(host, place, trouble))
    }

    /// Ends all troubles of all disks of powered hosts.
    pub fn relieve_all(&self) -> Result<()> {
        let shape = self.state()?.shape;
        for host in shape.layout.hosts().iter().filter(|_| shape.disks) {
            for disk in Disk::of(host.kind) {
                // Thawed first: making room is a write.
                self.relieve(host.name, *disk, Trouble::Frozen)?;
                self.relieve(host.name, *disk, Trouble::Full)?;
            }
        }
        Ok(())
    }

    fn on_disk(&self, name: &str, disk: Disk, act: impl FnOnce(Process, &str) -> Result<()>) -> Result<()> {
        // Not while its power is cut: a disk frozen then would stay for ever.
        let _turn = self.turn()?;
        let host = self.host(name)?;
        let place = disk.place(self.state()?.shape.db);
        let Door::Namespaces { process, .. } = host.door else { bail!("{name} is no host of namespaces") };
        act(process, place).with_context(|| format!("on {name}"))
    }

    /// Copies the programs of a layer of packages into a powered host, for as long as the lab is up.
    pub fn install(&self, name: &str, layer: &Path) -> Result<()> {
        let mut pack = Command::new("tar");
        pack.arg("-C").arg(layer).args(["-c", "usr"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut packing = pack.spawn().context("cannot start tar")?;
        let mut unpack = self.host(name)?.command(&["tar", "-x", "-C", "/"]);
        unpack.stdin(packing.stdout.take().context("no pipe from tar")?).stdout(Stdio::null());
        let mut unpacking = unpack.spawn().context("cannot start tar in a host")?;
        for child in [&mut packing, &mut unpacking] {
            match deadline::wait(child, TURN)? {
                Some(status) if status.success() => {}
                Some(status) => bail!("copying {} to {name}: {status}", layer.display()),
                None => {
                    child.kill().context("kill tar")?;
                    bail!("copying {} to {name} did not end within {} s", layer.display(), TURN.as_secs());
                }
            }
        }
        Ok(())
    }

    fn apply(&self, state: &State) -> Result<()> {
        let layout = state.shape.layout;
        let powered: Vec<&Spec> = layout.hosts().iter().filter(|h| on(state, h.name)).collect();
        net::apply(state.wires, layout, &powered, &state.blocks)
    }

    /// What there is.
    pub fn status(&self) -> Result<Status> {
        let state = State::load(&self.paths)?.filter(|state| state.wires.alive());
        let engine = state.as_ref().map(|state| state.shape.db).unwrap_or_default();
        let layout = state.as_ref().map(|state| state.shape.layout).unwrap_or_default();
        let database = layout.group(Part::Database);
        let service = Service { name: database.service, address: database.address, port: engine.port() };
        let Some(state) = state else {
            return Ok(Status { up: false, shape: None, service, hosts: Vec::new(), blocks: BTreeSet::new() });
        };
        let hosts = state.shape.layout.hosts().iter().map(|host| HostStatus {
            name: host.name,
            kind: host.kind,
            on: on(&state, host.name),
            pid: state.hosts.get(host.name).filter(|p| p.alive()).map(|p| p.pid),
            addresses: host.links().iter().map(|link| (*link, host.address(*link))).collect(),
            realtime_us: state.realtime_us.get(host.name).copied().unwrap_or(0),
        });
        Ok(Status { up: true, shape: Some(state.shape), service, hosts: hosts.collect(), blocks: state.blocks })
    }

    /// The running lab's state; an error when there is none.
    pub fn state(&self) -> Result<State> {
        State::load(&self.paths)?.context("no lab is up\nhint: cargo xtask lab up")
    }

    fn turn(&self) -> Result<fs::File> {
        fs::create_dir_all(&self.paths.run).with_context(|| format!("cannot create {}", self.paths.run.display()))?;
        lock(&self.paths.run.join("lock"), TURN)
    }

    fn machine<'a>(&'a self, state: &'a State) -> Machine<'a> {
        Machine {
            paths: &self.paths,
            root: &state.root,
            packages: &state.packages,
            hierarchies: &self.hierarchies,
            wires: state.wires,
            disks: state.shape.disks.then_some(state.shape.db),
        }
    }

    /// The console log of a host, for a message about a failure.
    #[must_use]
    pub fn console(&self, name: &str) -> PathBuf {
        self.paths.host(name).join("upper/var/log/console")
    }
}

/// Copies the root's home directories to where all hosts share them, as a cluster does over NFS.
fn share_home(root: &Path, home: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.args(["-a", "--"]).arg(root.join("home")).arg(home);
    deadline::check(&mut copy, "cannot copy the home directories", TURN).map(drop)
}

fn on(state: &State, name: &str) -> bool {
    state.hosts.get(name).is_some_and(Process::alive)
}

fn spec(state: &State, name: &str) -> Result<&'static Spec> {
    let layout = state.shape.layout;
    layout.host(name).with_context(|| {
        let names: Vec<&str> = layout.hosts().iter().map(|h| h.name).collect();
        format!("no host {name} in this lab\nhint: one of {}", names.join(", "))
    })
}
