//! The whole program: what befalls its sentinel, its disk and its configuration.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oarlock::control::Request;
use rustix::process::Signal;

use super::rig::{runs, signal};
use super::solo::Solo;
use super::{Case, run};

pub const CASES: &[Case] = &[
    ("agent_replaces_a_stopped_sentinel_before_the_lease_lapses", stopped_sentinel_is_replaced),
    ("agent_becomes_the_sentinel_although_its_disk_hangs", becomes_sentinel_despite_a_dead_disk),
    ("agent_with_a_wrong_configuration_ends_with_2", wrong_configuration),
    ("sentinel_pets_the_watchdog_of_the_service_manager", pets_the_watchdog),
];

fn stopped_sentinel_is_replaced() {
    let solo = Solo::started(None, 4000);
    let (sentinel, sleeper) = (solo.holder().unwrap(), solo.sleeper().unwrap());
    let generation = solo.record()["generation"].clone();
    signal(sentinel, Signal::STOP);
    solo.wait_for("another sentinel", || solo.holder().filter(|holder| *holder != sentinel));
    solo.wait_for("the service under it", || solo.sleeper().filter(|_| !runs(sentinel)));
    assert_eq!(solo.sleeper(), Some(sleeper), "{}", solo.said());
    assert_eq!(solo.record()["generation"], generation, "{}", solo.said());
    assert!(!solo.said().contains("lapsed"), "{}", solo.said());
}

/// A file system of its own that can be made to stand still; gone when dropped.
struct Disk {
    directory: String,
    mount: String,
}

impl Disk {
    fn new() -> Disk {
        let directory = format!("/dev/shm/oarlock-disk-{}", std::process::id());
        let (image, mount) = (format!("{directory}/image"), format!("{directory}/mount"));
        fs::create_dir_all(&mount).unwrap();
        run(&format!("truncate -s 16M {image}"));
        run(&format!("mkfs.ext4 -q {image}"));
        run(&format!("mount -o loop {image} {mount}"));
        Disk { directory, mount }
    }

    fn freeze(&self) {
        run(&format!("fsfreeze -f {}", self.mount));
    }

    fn thaw(&self) {
        // One that is not frozen is as good.
        let _ = Command::new("fsfreeze").args(["-u", &self.mount]).stderr(Stdio::null()).status();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        let until = Instant::now() + Duration::from_secs(5);
        let unmounted = || Command::new("umount").arg(&self.mount).status().is_ok_and(|status| status.success());
        while !unmounted() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn becomes_sentinel_despite_a_dead_disk() {
    let disk = Disk::new();
    let solo = Solo::started(Some(disk.mount.as_ref()), 4000);
    let sentinel = solo.holder().unwrap();
    disk.freeze();
    // Something to be written down, which now hangs in the kernel.
    let agent = solo.agent().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| solo.ask(&Request::Maintenance { on: true }));
        let stuck = |path: fs::DirEntry| fs::read_to_string(path.path().join("stat")).is_ok_and(|s| s.contains(") D "));
        let threads = || fs::read_dir(format!("/proc/{agent}/task")).unwrap().flatten();
        solo.wait_for("a thread that hangs", || threads().any(stuck).then_some(()));
        signal(sentinel, Signal::KILL);
        solo.wait_for("another sentinel", || solo.holder().filter(|holder| *holder != sentinel && runs(*holder)));
        disk.thaw();
        solo.wait_for("the service", || solo.sleeper());
    });
}

fn wrong_configuration() {
    let mut solo = Solo::new(None, 4000);
    let path = solo.directory.join("etc/oarlock.toml");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("sleeper", "sle eper")).unwrap();
    solo.start(&[]);
    assert_eq!(solo.end().code(), Some(2), "{}", solo.said());
    assert!(solo.said().contains("sle eper"), "{}", solo.said());
    // For another machine.
    fs::write(&path, good).unwrap();
    fs::remove_file(solo.directory.join("etc/node.key")).unwrap();
    solo.start(&[]);
    assert_eq!(solo.end().code(), Some(2), "{}", solo.said());
    // Not the configuration's fault: trying again may help.
    fs::write(&solo.state_dir, "a file where a directory should be").unwrap();
    let key = oarlock::keys::PrivateKey::generate().unwrap();
    key.write_new(&solo.directory.join("etc/node.key")).unwrap();
    fs::write(&path, super::solo::config(&key.public().to_string(), 4000)).unwrap();
    solo.start(&[]);
    assert_eq!(solo.end().code(), Some(5), "{}", solo.said());
}

fn pets_the_watchdog() {
    let mut solo = Solo::new(None, 4000);
    let path = solo.directory.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // No WATCHDOG_PID: it is for whoever reads it.
    solo.start(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000")]);
    let mut alive = 0;
    let mut ready = false;
    while alive < 5 || !ready {
        let mut buffer = [0; 256];
        let bytes = socket.recv(&mut buffer).expect("a sign of life");
        let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
        alive += i32::from(text == "WATCHDOG=1");
        ready |= text.starts_with("READY=1");
    }
    let sentinel = solo.holder().unwrap();
    signal(sentinel, Signal::STOP);
    signal(solo.agent().unwrap(), Signal::STOP);
    // What was on its way before it stopped.
    socket.set_nonblocking(true).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    while socket.recv(&mut [0; 256]).is_ok() {}
    std::thread::sleep(Duration::from_millis(500));
    assert!(socket.recv(&mut [0; 256]).is_err(), "a stopped sentinel says that it is alive");
}
