//! The machines as a whole: up, down, power, cables, status.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::image::{self, Image};
use super::machine::{self, Hardware};
use super::{Door, qmp, wires};
use crate::cgroup::{self, Hierarchy};
use crate::host::{self, Host};
use crate::layout::{Kind, Layout, Spec};
use crate::net::{self, Block, Cut, What};
use crate::paths::{Paths, write_atomically};
use crate::process::Process;
use crate::state::lock;
use crate::suite::Suite;
use crate::{apt, root};

/// How long a command waits for another one that changes the machines.
const TURN: Duration = Duration::from_secs(120);
/// How long the kernel may take to end processes.
const KILL: Duration = Duration::from_secs(10);

/// How machines were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Shape {
    /// How many machines: server1, server2, frontend
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub machines: u8,
    /// Memory of each
    #[arg(long, default_value_t = 384, value_parser = clap::value_parser!(u32).range(192..=8192))]
    pub memory_mib: u32,
    /// Size of the empty disk that each has beside its own, /dev/vdd
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=65536))]
    pub data_mib: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { machines: 3, memory_mib: 384, data_mib: 64 }
    }
}

impl Shape {
    /// The machines, in the order in which they are powered on.
    #[must_use]
    pub fn specs(self) -> &'static [Spec] {
        let hosts = Layout::Two.hosts();
        let all = hosts.iter().take_while(|host| host.kind != Kind::Node).count();
        &hosts[..all.min(self.machines.into())]
    }
}

/// Running machines, as remembered between two commands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) shape: Shape,
    image: Image,
    /// The process that holds the bridges' network namespace.
    wires: Process,
    /// The emulator of every machine that was powered on.
    hosts: BTreeMap<String, Process>,
    /// What does not pass the cables. Survives a power-off, as a pulled cable would.
    pub(super) blocks: BTreeSet<Block>,
}

/// What there is.
#[derive(Debug)]
pub(super) struct Overview {
    pub(super) state: State,
    /// Each machine, with its emulator's pid if it is on.
    pub(super) hosts: Vec<(&'static Spec, Option<i32>)>,
}

impl State {
    fn on(&self, name: &str) -> bool {
        self.hosts.get(name).is_some_and(Process::alive)
    }

    fn spec(&self, name: &str) -> Result<&'static Spec> {
        let specs = self.shape.specs();
        let names = || specs.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
        specs.iter().find(|spec| spec.name == name).with_context(|| format!("no machine {name}, only {}", names()))
    }
}

/// The virtual machines of this checkout.
#[derive(Debug, Clone)]
pub struct Lab {
    paths: Paths,
    dir: PathBuf,
    /// Only the one by which processes are found again.
    hierarchies: Vec<Hierarchy>,
    program: PathBuf,
}

impl Lab {
    /// The machines of the checkout we run in, up or not.
    pub fn open() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("virtual machines need root for their network and their file systems");
        }
        let paths = Paths::find()?;
        let hierarchies: Vec<Hierarchy> = cgroup::hierarchies()?.into_iter().filter(|h| h.name == "unified").collect();
        ensure!(
            !hierarchies.is_empty(),
            "control groups of version 2 are not mounted: strays could not be found again"
        );
        let (dir, program) = (paths.run.join("vm"), paths.release("oarlock-lab"));
        Ok(Self { paths, dir, hierarchies, program })
    }

    /// A name for what is visible machine-wide; differs between checkouts, and from the other lab's.
    fn id(&self) -> String {
        self.paths.lab_id().replacen("oarlab-", "oarvm-", 1)
    }

    /// The lab's directories.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Brings up the machines of `shape`, all powered on; what took how long, by machine. Up already in
    /// that shape: only what is powered off is powered on.
    pub fn up(&self, shape: Shape) -> Result<Vec<(&'static str, Duration)>> {
        let _turn = self.turn()?;
        let mut state = match self.state() {
            Ok(state) if state.wires.alive() && state.shape == shape => state,
            Ok(state) if state.wires.alive() => {
                bail!("machines of another shape are up\nhint: cargo xtask lab vm down")
            }
            _ => {
                self.clear()?;
                self.prepare(shape)?
            }
        };
        let names: Vec<&str> = shape.specs().iter().map(|spec| spec.name).collect();
        self.power_on(&mut state, &names)
    }

    /// Everything but the machines.
    fn prepare(&self, shape: Shape) -> Result<State> {
        ensure!(cfg!(target_arch = "x86_64"), "machines are emulated for x86_64 only");
        apt::ensure_tools()?;
        apt::ensure_machine_tools()?;
        let image = image::ensure(&self.paths, Suite::Bookworm)?;
        let wires = wires::start(&self.hierarchies, &self.id(), shape.specs())?;
        let state = State { shape, image, wires, hosts: BTreeMap::new(), blocks: BTreeSet::new() };
        self.save(&state)?;
        Ok(state)
    }

    /// Removes everything but the image: no process, interface, control group or disk remains. No machine
    /// is no error.
    pub fn down(&self) -> Result<()> {
        let _turn = self.turn()?;
        self.clear()
    }

    fn clear(&self) -> Result<()> {
        // Found by their control groups, whatever an interrupted command has remembered.
        for hierarchy in &self.hierarchies {
            let groups = fs::read_dir(hierarchy.mount.join(self.id())).into_iter().flatten().flatten();
            for group in groups {
                let text = fs::read_to_string(group.path().join("cgroup.procs")).unwrap_or_default();
                let pids = text.lines().filter_map(|line| line.parse().ok());
                for process in pids.filter_map(|pid| Process::of(pid).ok()) {
                    process.kill(KILL)?;
                }
            }
        }
        cgroup::remove(&self.hierarchies, &self.id(), None, KILL)?;
        root::remove(&self.dir.join("hosts"))?;
        for file in ["vm.json", "programs.ext4"] {
            root::remove(&self.dir.join(file))?;
        }
        Ok(())
    }

    /// The powered machine called `name`.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.host_in(&self.state()?, name)
    }

    fn host_in(&self, state: &State, name: &str) -> Result<Host> {
        let spec = state.spec(name)?;
        if !state.on(name) {
            bail!("{name} is powered off\nhint: cargo xtask lab vm poweron {name}");
        }
        let door = Door { spec, process: state.hosts[name], wires: state.wires, program: self.program.clone() };
        Ok(Host { spec, door: host::Door::Machine(door) })
    }

    /// Cuts the power of `names` in one instant. Off already is no error.
    pub fn poweroff(&self, names: &[&str]) -> Result<()> {
        let _turn = self.turn()?;
        let mut state = self.state()?;
        let mut machines = Vec::new();
        for name in names {
            let spec = state.spec(name)?;
            if let Some(process) = state.hosts.remove(*name) {
                machines.push((spec, process));
            }
        }
        machine::power_off(&self.hardware(&state, &self.id()), &machines)?;
        self.save(&state)
    }

    /// Powers `names` on with the disks they had; what took how long, by machine. On already is no error.
    pub fn poweron(&self, names: &[&str]) -> Result<Vec<(&'static str, Duration)>> {
        let _turn = self.turn()?;
        let mut state = self.state()?;
        self.power_on(&mut state, names)
    }

    fn power_on(&self, state: &mut State, names: &[&str]) -> Result<Vec<(&'static str, Duration)>> {
        let id = self.id();
        let specs: Vec<&Spec> = names.iter().map(|name| state.spec(name)).collect::<Result<_>>()?;
        let off: Vec<&'static Spec> = specs.into_iter().filter(|spec| !state.on(spec.name)).collect();
        if !off.is_empty() {
            image::programs(&self.paths, &self.dir)?;
        }
        let mut started = Vec::new();
        for spec in off {
            let now = Instant::now();
            let process = machine::power_on(&self.hardware(state, &id), spec)?;
            state.hosts.insert(spec.name.to_owned(), process);
            self.save(state)?;
            started.push((spec, process, now));
        }
        self.apply(state)?;
        let mut took = Vec::new();
        for (spec, process, at) in started {
            let host = self.host_in(state, spec.name);
            // One that has ended already is told of with its last words.
            let Ok(host) = host else {
                bail!("{} has ended:\n{}", spec.name, machine::last_words(&machine::host_dir(&self.dir, spec.name)));
            };
            took.push((spec.name, machine::await_ready(&self.hardware(state, &id), &host, process, at)?));
        }
        Ok(took)
    }

    /// Waits until `name` has ended by itself, as after a reset of its watchdog; says how long it took.
    pub fn await_end(&self, name: &str, deadline: Duration) -> Result<Duration> {
        let state = self.state()?;
        let started = Instant::now();
        while state.on(state.spec(name)?.name) {
            ensure!(started.elapsed() < deadline, "{name} still runs after {} ms", deadline.as_millis());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(started.elapsed())
    }

    /// Takes from the cables of `name` what `cut` says, in addition to what is cut already.
    pub fn cut(&self, name: &str, cut: &Cut) -> Result<()> {
        let _turn = self.turn()?;
        let mut state = self.state()?;
        if let Some(peer) = &cut.peer {
            state.spec(peer)?;
        }
        let blocks = cut.blocks(state.spec(name)?);
        ensure!(!blocks.is_empty(), "{name} has no link {}", cut.link.unwrap_or_default());
        state.blocks.extend(blocks);
        self.apply(&state)?;
        self.save(&state)
    }

    /// Undoes cuts of `name` on the link and in the direction of `cut`, all of them by default.
    pub fn heal(&self, name: &str, cut: &Cut) -> Result<()> {
        let _turn = self.turn()?;
        let mut state = self.state()?;
        state.spec(name)?;
        state.blocks.retain(|block| !cut.heals(name, block));
        self.apply(&state)?;
        self.save(&state)
    }

    /// Makes the cables of the powered machines behave as the blocks say: frames on this side, the carrier
    /// on the machine's.
    fn apply(&self, state: &State) -> Result<()> {
        let powered: Vec<&Spec> = state.shape.specs().iter().filter(|spec| state.on(spec.name)).collect();
        net::apply(state.wires, Layout::Two, &powered, &state.blocks)?;
        for spec in powered {
            let dir = machine::host_dir(&self.dir, spec.name);
            for link in spec.links() {
                let cut = |b: &Block| b.host == spec.name && b.link == *link && b.what == What::Carrier;
                qmp::set_link(&dir, &machine::card(*link), !state.blocks.iter().any(cut))
                    .with_context(|| format!("{}, link {link}", spec.name))?;
            }
        }
        Ok(())
    }

    /// What there is; `None` when nothing is up.
    pub(super) fn status(&self) -> Result<Option<Overview>> {
        let Some(state) = self.load()?.filter(|state| state.wires.alive()) else { return Ok(None) };
        let pid = |spec: &Spec| state.hosts.get(spec.name).filter(|p| p.alive()).map(|p| p.pid);
        let hosts = state.shape.specs().iter().map(|spec| (spec, pid(spec))).collect();
        Ok(Some(Overview { hosts, state }))
    }

    fn state(&self) -> Result<State> {
        self.load()?.context("no machines are up\nhint: cargo xtask lab vm up")
    }

    fn load(&self) -> Result<Option<State>> {
        let file = self.dir.join("vm.json");
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        let state = serde_json::from_str(&text)
            .with_context(|| format!("{} is no machines' state\nhint: cargo xtask lab vm down", file.display()))?;
        Ok(Some(state))
    }

    fn save(&self, state: &State) -> Result<()> {
        write_atomically(&self.dir.join("vm.json"), &serde_json::to_string_pretty(state)?)
    }

    fn turn(&self) -> Result<fs::File> {
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        lock(&self.dir.join("lock"), TURN)
    }

    fn hardware<'a>(&'a self, state: &'a State, id: &'a str) -> Hardware<'a> {
        Hardware {
            image: &state.image,
            dir: &self.dir,
            shape: state.shape,
            wires: state.wires,
            hierarchies: &self.hierarchies,
            lab: id,
        }
    }

    /// What a machine has written to its console, and where.
    #[must_use]
    pub fn console(&self, name: &str) -> PathBuf {
        machine::host_dir(&self.dir, name).join("console")
    }

    /// What machines could leave on the host: processes in control groups, and files.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let group = |h: &Hierarchy| h.mount.join(self.id());
        let groups = self.hierarchies.iter().map(group).filter(|path| path.exists());
        let files =
            ["hosts", "vm.json", "programs.ext4"].iter().map(|name| self.dir.join(name)).filter(|p| Path::exists(p));
        groups.chain(files).map(|path| path.display().to_string()).collect()
    }
}
