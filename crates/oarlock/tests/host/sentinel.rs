//! Lapse, adoption, refusal and leaving, with real processes, groups and addresses.

use std::fs;
use std::time::{Duration, Instant};

use oarlock::network::Snapshot;
use oarlock::process::clock::boot_us;
use oarlock_core::sentinel::{Address, Exit, Notice, Refusal, Reply, Request};
use rustix::process::Signal;

use super::rig::{self, Rig, SOON, guard, runs, service, signal};
use super::{Case, run};

pub const CASES: &[Case] = &[
    ("sentinel_lapse_silences_in_time_while_the_agent_is_stopped", lapse_silences),
    ("sentinel_is_not_held_up_by_a_disk_that_hangs", disk_hangs),
    ("sentinel_starts_nothing_after_a_lapse", starts_nothing_after_a_lapse),
    ("sentinel_reports_exits_and_kills_the_rest", reports_exits),
    ("sentinel_tells_why_a_start_failed", tells_why_a_start_failed),
    ("sentinel_respawns_a_killed_agent", respawns_a_killed_agent),
    ("sentinel_removes_an_address_that_no_record_has", removes_a_stray_address),
    ("sentinel_replaces_a_stopped_agent", replaces_a_stopped_agent),
    ("sentinel_is_not_held_up_by_a_child_that_is_reaped", reaps_without_delay),
    ("sentinel_killed_is_replaced_by_its_agent", killed_is_replaced_by_its_agent),
    ("sentinel_killed_still_lapses_in_time", killed_still_lapses_in_time),
    ("sentinel_stopped_is_replaced_and_lapses_in_time", stopped_is_replaced),
    ("sentinel_and_agent_killed_lapse_at_the_next_start", both_killed),
    ("sentinel_spare_takes_over", spare_takes_over),
    ("sentinel_works_without_cgroups", works_without_cgroups),
    ("sentinel_refuses_a_cgroup_that_another_uses", refuses_a_shared_cgroup),
    ("sentinel_promotes_under_a_guard", promotes_under_a_guard),
    ("sentinel_leaves_a_keeper", leaves_a_keeper),
    ("sentinel_keeper_hands_over", keeper_hands_over),
    ("sentinel_leaves_without_a_keeper_when_idle", leaves_when_idle),
];

const FOREVER: &str = "exec sleep 1000";
/// The stop budget, in microseconds. It is met with much to spare unless the machine is starved:
/// the times seen are printed.
const BUDGET_US: u64 = 200_000;
/// What `fast` allows for what the sentinel itself does at a lapse.
const FAST_BUDGET_US: u64 = 50_000;
const LONG: Duration = Duration::from_secs(60);

fn address() -> Address {
    Address { interface: "left".into(), ip: "10.9.0.100".parse().unwrap(), prefix_bits: 24 }
}

fn network() {
    run("ip link add left type veth peer name right");
    run("ip link set left up");
    run("ip link set right up");
    run("ip address add 10.9.0.1/24 dev left");
}

fn holds_address() -> bool {
    Snapshot::take_blocking().unwrap().holds(address().ip)
}

/// Waits for something and returns when it was, on the lease's clock.
fn moment(what: impl Fn() -> bool) -> u64 {
    let until = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < until, "too late");
        std::thread::sleep(Duration::from_micros(200));
    }
    boot_us()
}

/// How long killing and taking addresses away took, as the sentinel logged it.
fn own_work_us(rig: &Rig) -> u64 {
    let journal = rig.journal();
    let line = journal.lines().find(|line| line.contains("lease lapsed: ")).expect("a line about the lapse");
    line.split(' ').rev().nth(1).unwrap().parse().unwrap()
}

fn lapse_silences() {
    network();
    let mut rig = Rig::leased(Duration::from_millis(3000));
    // Children that leave the session must die too.
    let db = rig.spawn("db", "setsid sleep 1001 & setsid sleep 1002 & exec sleep 1000", Some(guard()));
    let standby = rig.spawn("standby", FOREVER, None);
    rig.done(Request::AddressUp { address: address(), guard: Some(guard()) });
    assert!(holds_address());
    let agent = rig.agent_pid();
    let deadline_us = rig.renew(Duration::from_millis(300));
    signal(agent, Signal::STOP);
    let group = oarlock::process::cgroup::Groups::find(&rig.cgroup).open("db").unwrap();
    rig.wait_for("three processes", || (group.remaining().len() == 3).then_some(()));
    let gone_us = moment(|| !group.is_populated() && !holds_address());
    assert!(!runs(db) && runs(standby), "only what is guarded");
    assert!(gone_us >= deadline_us, "not before the deadline");
    let late_us = gone_us - deadline_us;
    println!("  silenced {late_us} us after the deadline");
    assert!(late_us <= BUDGET_US, "silenced only after {late_us} us");
    signal(agent, Signal::CONT);
    let told_us = rig.notice("the silence", |notice| match notice {
        Notice::Silenced { generation: 1, took_us } => Some(*took_us),
        _ => None,
    });
    println!("  the sentinel says {told_us} us, its own work {} us", own_work_us(&rig));
    assert!(told_us <= BUDGET_US && own_work_us(&rig) <= FAST_BUDGET_US);
    rig.notice("the exit", |notice| {
        matches!(notice, Notice::Exited { name, exit: Exit::Signal(9), .. } if name == "db").then_some(())
    });
}

fn disk_hangs() {
    network();
    let mut rig = Rig::new();
    let (image, mount) = (rig.directory.join("image"), rig.directory.join("mount"));
    fs::create_dir(&mount).unwrap();
    run(&format!("truncate -s 16M {}", image.display()));
    run(&format!("mkfs.ext4 -q {}", image.display()));
    run(&format!("mount -o loop {} {}", image.display(), mount.display()));
    rig.done(Request::NewGeneration { generation: 1 });
    rig.renew(Duration::from_millis(2500));
    rig.done(Request::AddressUp { address: address(), guard: Some(guard()) });
    run(&format!("fsfreeze -f {}", mount.display()));
    let db = rig.spawn("db", &format!("exec touch {}/file", mount.display()), Some(guard()));
    let state = || oarlock::process::identity::stat(db).map(|stat| stat.state);
    rig.wait_for("disk sleep", || state().is_ok_and(|state| state == 'D').then_some(()));
    let told_us = rig.notice("the silence", |notice| match notice {
        Notice::Silenced { took_us, .. } => Some(*took_us),
        _ => None,
    });
    let told_state = state();
    let answer = rig.ask(Request::KillGroup { name: "db".into() });
    run(&format!("fsfreeze -u {}", mount.display()));
    println!("  silent after {told_us} us");
    assert!(!holds_address());
    assert_eq!(told_state.unwrap(), 'D');
    assert!(matches!(answer, Reply::Killed { remaining } if remaining[0].pid == db && remaining[0].state == 'D'));
    rig.notice("the end", |notice| matches!(notice, Notice::Emptied { name } if name == "db").then_some(()));
    run(&format!("umount {}", mount.display()));
}

fn starts_nothing_after_a_lapse() {
    network();
    let mut rig = Rig::leased(Duration::from_millis(50));
    rig.notice("the lapse", |notice| matches!(notice, Notice::Lapsed { .. }).then_some(()));
    let lapsed = Refusal::Lapsed { lapsed: 1 };
    assert_eq!(rig.refused(service("db", FOREVER, Some(guard()))), lapsed);
    assert_eq!(rig.refused(Request::AddressUp { address: address(), guard: Some(guard()) }), lapsed);
    let deadline_us = boot_us() + 1_000_000;
    assert_eq!(rig.refused(Request::Lease { generation: 1, deadline_us }), lapsed);
    assert!(!holds_address());
    rig.done(Request::NewGeneration { generation: 2 });
    let _standby = rig.spawn("standby", FOREVER, None);
}

fn reports_exits() {
    let mut rig = Rig::new();
    for _ in 0..20 {
        // However short it is, it did start.
        rig.spawn("short", "exit 0", None);
        rig.wait_for("its end", || (!rig.record().services[0].is_alive()).then_some(()));
    }
    let pid = rig.spawn("oar", "setsid sleep 1000 & echo started; exit 7", None);
    let exit = rig.notice("the exit", |notice| match notice {
        Notice::Exited { name, pid: of, exit } if name == "oar" && *of == pid => Some(*exit),
        _ => None,
    });
    assert_eq!(exit, Exit::Code(7));
    rig.notice("the end", |notice| matches!(notice, Notice::Emptied { name } if name == "oar").then_some(()));
    let pid = rig.spawn("oar", FOREVER, None);
    rig.done(Request::Signal { name: "oar".into(), signal: 15 });
    rig.notice("the signal", |notice| {
        matches!(notice, Notice::Exited { pid: of, exit: Exit::Signal(15), .. } if *of == pid).then_some(())
    });
    let pid = rig.spawn("oar", "trap '' TERM; sleep 1000; sleep 1000", None);
    assert_eq!(rig.ask(Request::KillGroup { name: "oar".into() }), Reply::Killed { remaining: vec![] });
    assert!(!runs(pid));
}

fn tells_why_a_start_failed() {
    let mut rig = Rig::new();
    let mut failing = |change: &dyn Fn(&mut oarlock_core::sentinel::Command)| {
        let Request::Spawn { name, mut command, guard } = service("x", FOREVER, None) else { unreachable!() };
        change(&mut command);
        match rig.ask(Request::Spawn { name, command, guard }) {
            Reply::Failed { reason } => reason,
            other => panic!("did not fail: {other:?}"),
        }
    };
    let reason = failing(&|command| command.argv = vec!["/no/such/program".into()]);
    assert_eq!(reason, "executing its program: No such file or directory (os error 2)");
    let reason = failing(&|command| command.argv = vec!["sh".into()]);
    assert_eq!(reason, "starting x: program sh is no absolute path");
    let reason = failing(&|command| command.cwd = Some("/no/such/directory".into()));
    assert!(reason.starts_with("changing into its working directory: "), "{reason}");
    let reason = failing(&|command| command.stdout = Some("/no/such/log".into()));
    assert!(reason.starts_with("opening its standard output: "), "{reason}");
}

fn respawns_a_killed_agent() {
    let mut rig = Rig::leased(LONG);
    let db = rig.spawn("db", FOREVER, Some(guard()));
    for round in 1..=3 {
        let agent = rig.agent_pid();
        let start = Instant::now();
        signal(agent, Signal::KILL);
        rig.wait_for("another agent", || (rig.welcomes().len() == 1 + round).then_some(()));
        println!("  another agent after {} us", start.elapsed().as_micros());
    }
    let welcome = rig.welcomes().pop().unwrap();
    assert_eq!(welcome.generation, 1);
    assert!(!welcome.fresh && welcome.deadline_us.is_some());
    assert_eq!(welcome.services[0].process().unwrap().pid, db);
    assert!(runs(db));
}

/// Of a sentinel whose record was lost, say.
fn removes_a_stray_address() {
    network();
    let mut rig = Rig::leased(LONG);
    run("ip address add 10.9.0.100/24 dev left");
    assert!(holds_address());
    rig.done(Request::AddressDown { address: address() });
    assert!(!holds_address());
    assert!(rig.record().addresses.is_empty());
}

fn replaces_a_stopped_agent() {
    let mut rig = Rig::leased(LONG);
    let db = rig.spawn("db", FOREVER, Some(guard()));
    let agent = rig.agent_pid();
    signal(agent, Signal::STOP);
    let start = Instant::now();
    // Ten seconds of silence, and some.
    while rig.welcomes().len() == 1 {
        assert!(start.elapsed() < Duration::from_secs(20), "no other agent; log:\n{}", rig.journal());
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("  another agent after {:.1?}", start.elapsed());
    assert!(start.elapsed() > Duration::from_secs(9), "a short pause is none");
    assert!(!runs(agent) && runs(db));
    assert_eq!(rig.welcomes()[1].generation, 1);
}

/// To reap a process whose threads were listed can keep a real-time process in the kernel for as long as the dying
/// threads get no processor; here they all share one.
fn reaps_without_delay() {
    let mut rig = Rig::leased(LONG);
    let (sentinel, _) = rig.holder();
    run(&format!("taskset -a -c -p 0 {sentinel}"));
    let script = format!("exec taskset -c 0 {} {}", std::env::current_exe().unwrap().display(), rig::CROWD);
    let mut worst_us = 0;
    for _ in 0..15 {
        let pid = rig.spawn("db", &script, Some(guard()));
        let threads = format!("/proc/{pid}/task");
        let is_full = || fs::read_dir(&threads).is_ok_and(|all| all.count() > 100);
        rig.wait_for("its threads", || is_full().then_some(()));
        for thread in fs::read_dir(&threads).unwrap() {
            for file in ["stat", "status", "comm", "cgroup"] {
                let _ = fs::read(thread.as_ref().unwrap().path().join(file));
            }
        }
        let start = Instant::now();
        signal(pid, Signal::KILL);
        rig.wait_for("its end", || (!rig.record().services[0].is_alive()).then_some(()));
        rig.renew(LONG);
        worst_us = worst_us.max(start.elapsed().as_micros());
    }
    println!("  at most {worst_us} us until an end was known and a lease renewed");
    assert!(worst_us < 500_000);
}

/// Kills the sentinel and returns its agent, once that has become the sentinel.
fn kill_sentinel(rig: &Rig) -> u32 {
    let (sentinel, _) = rig.holder();
    let agent = rig.agent_pid();
    let agents = rig.welcomes().len();
    let start = Instant::now();
    signal(sentinel, Signal::KILL);
    rig.wait_for("another agent", || (rig.welcomes().len() > agents).then_some(()));
    println!("  another sentinel and agent after {} us", start.elapsed().as_micros());
    assert_eq!(rig.holder(), (agent, "sentinel".to_owned()), "the same process");
    agent
}

fn killed_is_replaced_by_its_agent() {
    let mut rig = Rig::leased(LONG);
    let db = rig.spawn("db", FOREVER, Some(guard()));
    kill_sentinel(&rig);
    kill_sentinel(&rig);
    let welcome = rig.welcomes().pop().unwrap();
    assert_eq!(welcome.generation, 1);
    assert!(!welcome.fresh);
    assert_eq!(welcome.services[0].process().unwrap().pid, db);
    assert!(runs(db));
    rig.renew(LONG);
    // Adopted, and still watched.
    signal(db, Signal::KILL);
    rig.notice("the exit", |notice| matches!(notice, Notice::Exited { pid, .. } if *pid == db).then_some(()));
    rig.notice("the end", |notice| matches!(notice, Notice::Emptied { name } if name == "db").then_some(()));
    let again = rig.spawn("db", FOREVER, Some(guard()));
    assert!(runs(again));
}

fn killed_still_lapses_in_time() {
    let mut rig = Rig::leased(LONG);
    let db = rig.spawn("db", FOREVER, Some(guard()));
    // A deadline only extends: let a new generation have the shorter one.
    drop(rig);
    assert!(!runs(db));
    let mut rig = Rig::leased(Duration::from_millis(2500));
    let db = rig.spawn("db", FOREVER, Some(guard()));
    let deadline_us = rig.record().deadline_us.unwrap();
    kill_sentinel(&rig);
    signal(rig.agent_pid(), Signal::STOP);
    let gone_us = moment(|| !runs(db));
    assert!(gone_us >= deadline_us);
    println!("  silenced {} us after the deadline", gone_us - deadline_us);
    assert!(gone_us - deadline_us <= BUDGET_US);
}

fn stopped_is_replaced() {
    let mut rig = Rig::leased(Duration::from_millis(2500));
    let db = rig.spawn("db", FOREVER, Some(guard()));
    let deadline_us = rig.record().deadline_us.unwrap();
    let (sentinel, agent) = (rig.holder().0, rig.agent_pid());
    signal(sentinel, Signal::STOP);
    rig.wait_for("another agent", || (rig.welcomes().len() == 2).then_some(()));
    assert_eq!(rig.holder().0, agent);
    let gone_us = moment(|| !runs(db));
    println!("  silenced {} us after the deadline", gone_us.saturating_sub(deadline_us));
    assert!(gone_us >= deadline_us && gone_us - deadline_us <= BUDGET_US);
}

/// Hides the hierarchy; the case has a mount namespace of its own.
fn works_without_cgroups() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
        run(&format!("umount {}", line.split(' ').nth(4).unwrap()));
    }
    let mut rig = Rig::leased(Duration::from_millis(3000));
    assert!(!rig.welcomes()[0].platform.cgroup_kill);
    // One child leaves the session and keeps the mark, one keeps the session without the mark.
    // Lengths of their own, so that nobody else's are counted.
    let [marked, bare] = [1, 2].map(|kind| format!("{kind}{:08}", std::process::id()));
    let script = format!("setsid sleep {marked} & env -i /bin/sleep {bare} & exec sleep 1000");
    let db = rig.spawn("db", &script, Some(guard()));
    let standby = rig.spawn("standby", FOREVER, None);
    let sleeps = |seconds: &str| {
        let ours = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let wanted = format!("sleep\0{seconds}\0");
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.map(ours).filter(|line| String::from_utf8_lossy(line).ends_with(&wanted)).count()
    };
    rig.wait_for("its children", || (sleeps(&marked) == 1 && sleeps(&bare) == 1).then_some(()));
    kill_sentinel(&rig);
    // Finding them costs us more than it costs the sentinel, so its own word on the time counts.
    let told_us = rig.notice("the silence", |notice| match notice {
        Notice::Silenced { took_us, .. } => Some(*took_us),
        _ => None,
    });
    println!("  silenced {told_us} us after the deadline");
    assert!(told_us <= BUDGET_US && own_work_us(&rig) <= FAST_BUDGET_US);
    assert!(!runs(db) && sleeps(&marked) == 0 && sleeps(&bare) == 0);
    assert!(runs(standby));
    assert_eq!(rig.ask(Request::KillGroup { name: "standby".into() }), Reply::Killed { remaining: vec![] });
}

fn both_killed() {
    network();
    let mut rig = Rig::leased(Duration::from_millis(2000));
    let db = rig.spawn("db", FOREVER, Some(guard()));
    let standby = rig.spawn("standby", FOREVER, None);
    rig.done(Request::AddressUp { address: address(), guard: Some(guard()) });
    let deadline_us = rig.record().deadline_us.unwrap();
    let (sentinel, agent) = (rig.holder().0, rig.agent_pid());
    for signal_ in [Signal::STOP, Signal::KILL] {
        signal(agent, signal_);
        signal(sentinel, signal_);
    }
    moment(|| boot_us() > deadline_us + 100_000);
    assert!(runs(db) && holds_address(), "nobody was there");
    rig.start();
    rig.wait_for("another agent", || (rig.welcomes().len() == 2).then_some(()));
    moment(|| !runs(db) && !holds_address());
    assert!(runs(standby));
    assert_eq!(rig.record().lapsed_generation, 1);
}

fn spare_takes_over() {
    let mut rig = Rig::leased(LONG);
    let db = rig.spawn("db", FOREVER, Some(guard()));
    let spare = rig.start();
    let sleeping = || oarlock::process::identity::stat(spare).is_ok_and(|stat| stat.state == 'S');
    rig.wait_for("the spare to wait", || sleeping().then_some(()));
    let (sentinel, _) = rig.holder();
    // The agent cannot: it is stopped. So the spare does, and ends that agent.
    let agent = rig.agent_pid();
    signal(agent, Signal::STOP);
    signal(sentinel, Signal::KILL);
    rig.wait_for("another agent", || (rig.welcomes().len() == 2).then_some(()));
    assert_eq!(rig.holder(), (spare, "sentinel".to_owned()));
    rig.wait_for("the old agent's end", || (!runs(agent)).then_some(()));
    assert!(runs(db));
}

fn refuses_a_shared_cgroup() {
    let mut rig = Rig::leased(LONG);
    let db = rig.spawn("db", FOREVER, Some(guard()));
    let elsewhere = rig.directory.join("elsewhere");
    let other = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["agent", elsewhere.to_str().unwrap(), &rig.cgroup])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(!other.status.success() && said.starts_with("sentinel: claiming the cgroup"), "{said}");
    assert!(runs(db));
}

fn promotes_under_a_guard() {
    let mut rig = Rig::leased(LONG);
    let trigger = rig.directory.join("promote");
    let trigger_file = trigger.to_str().unwrap().to_owned();
    let script = format!(
        "trap 'test -e {trigger_file} && echo yes >{trigger_file}ed' USR1; echo up >{trigger_file}-up; while :; do sleep 0.01; done"
    );
    let pid = rig.spawn("db", &script, None);
    rig.wait_for("the trap", || fs::exists(format!("{trigger_file}-up")).unwrap().then_some(()));
    let promote = |pid, guard| Request::Promote {
        name: "db".into(),
        pid,
        trigger_file: trigger_file.clone(),
        signal: Signal::USR1.as_raw(),
        guard,
    };
    let stale = oarlock_core::sentinel::Guard { generation: 0, ..guard() };
    assert_eq!(rig.refused(promote(pid, stale)), Refusal::Lapsed { lapsed: 0 });
    assert!(!trigger.exists());
    rig.done(promote(pid, guard()));
    rig.wait_for("the promotion", || fs::exists(format!("{trigger_file}ed")).unwrap().then_some(()));
    assert_eq!(rig.record().services[0].guard, Some(guard()));
    rig.done(Request::Unguarded { name: "db".into() });
    assert_eq!(rig.record().services[0].guard, None);
}

/// Asks the sentinel to end, as a supervisor does, and answers for the agent.
fn terminate(rig: &mut Rig, grace: Option<Duration>) -> u32 {
    let (sentinel, _) = rig.holder();
    signal(sentinel, Signal::TERM);
    rig.notice("the question", |notice| (*notice == Notice::Terminate).then_some(()));
    let until_us = grace.map(|grace| boot_us() + u64::try_from(grace.as_micros()).unwrap());
    rig.send(Request::MayLeave { generation: 1, until_us });
    assert!(rig.reap(sentinel).success());
    sentinel
}

fn leaves_a_keeper() {
    network();
    let mut rig = Rig::leased(Duration::from_millis(2500));
    let db = rig.spawn("db", FOREVER, Some(guard()));
    let standby = rig.spawn("standby", FOREVER, None);
    rig.done(Request::AddressUp { address: address(), guard: Some(guard()) });
    let agent = rig.agent_pid();
    terminate(&mut rig, Some(Duration::from_millis(2500)));
    let (keeper, role) = rig.holder();
    assert_eq!(role, "keeper");
    assert!(!runs(agent) && runs(keeper) && runs(db) && holds_address());
    let deadline_us = rig.record().deadline_us.unwrap();
    let gone_us = moment(|| !runs(db) && !holds_address());
    println!("  silenced {} us after the end of the grace", gone_us - deadline_us);
    assert!(gone_us >= deadline_us && gone_us - deadline_us <= BUDGET_US);
    rig.wait_for("the keeper's end", || (!runs(keeper)).then_some(()));
    assert!(runs(standby));
    assert_eq!(rig.record().lapsed_generation, 1);
}

fn keeper_hands_over() {
    let mut rig = Rig::leased(LONG);
    let db = rig.spawn("db", FOREVER, Some(guard()));
    terminate(&mut rig, Some(LONG));
    let (keeper, _) = rig.holder();
    let start = Instant::now();
    let next = rig.start();
    rig.wait_for("another agent", || (rig.welcomes().len() == 2).then_some(()));
    println!("  another sentinel and agent after {} us", start.elapsed().as_micros());
    assert_eq!(rig.holder(), (next, "sentinel".to_owned()));
    assert!(!runs(keeper) && runs(db));
    let welcome = rig.welcomes().pop().unwrap();
    assert_eq!((welcome.fresh, welcome.generation), (false, 1));
    rig.renew(LONG);
    signal(db, Signal::KILL);
    rig.notice("the exit", |notice| matches!(notice, Notice::Exited { pid, .. } if *pid == db).then_some(()));
}

fn leaves_when_idle() {
    let mut rig = Rig::leased(LONG);
    let standby = rig.spawn("standby", FOREVER, None);
    let agent = rig.agent_pid();
    let sentinel = terminate(&mut rig, None);
    assert_eq!(rig.holder(), (sentinel, "sentinel".to_owned()));
    assert!(!runs(agent) && runs(standby));
    rig.start();
    rig.wait_for("another agent", || (rig.welcomes().len() == 2).then_some(()));
    assert!(rig.welcomes()[1].services[0].process().is_some());
}
