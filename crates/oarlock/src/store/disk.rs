//! The files of a store: made, locked, read, written.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::format::{
    FIRST_RECORD, Layout, MARK_STRIDE, MARKS_BYTES, Mark, Stage, decode_identity, decode_mark, decode_slot,
    encode_identity, encode_mark, encode_slot, judge, place,
};
use super::{Owner, SaveError, StoreError, StoreId, writer};
use crate::keys::random_bytes;

const IDENTITY: &str = "identity";
const MARKS: &str = "marks";
const SLOTS: [&str; 2] = ["slot-0", "slot-1"];
/// All files, in the order in which they are moved aside: without the first, the others mean nothing.
const FILES: [&str; 4] = [IDENTITY, MARKS, SLOTS[0], SLOTS[1]];
const SET_ASIDE: &str = "set-aside";

/// A process that was just killed, or a child that it was just about to start, may hold the lock a moment longer.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// The open directory; whoever has it has the store.
#[derive(Debug)]
pub struct Lock {
    directory: File,
    path: PathBuf,
}

/// What was found in a directory.
pub enum Found {
    /// A store, and the record in it if one was ever saved.
    Usable(Disk, Option<Vec<u8>>),
    /// One that may have lost something; its identity if known; what was found.
    Doubtful(Lock, StoreId, String),
}

/// The files of a usable store.
#[derive(Debug)]
pub struct Disk {
    id: StoreId,
    /// Newest generation whose slot is on the disk.
    generation: u64,
    slots: [File; 2],
    marks: File,
    _lock: Lock,
}

impl Lock {
    fn take(path: &Path) -> Result<Self, StoreError> {
        let fail = |action| move |source| StoreError::File { action, path: path.to_owned(), source };
        make_directories(path).map_err(fail("make directory"))?;
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(path)
            .map_err(fail("open directory"))?;
        let begun = Instant::now();
        loop {
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { directory, path: path.to_owned() }),
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_PATIENCE / 20);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::Locked { directory: path.to_owned() }),
                Err(error) => return Err(fail("lock")(error.into())),
            }
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A step on one of the files, with an error that names it.
    fn step<T>(
        &self,
        action: &'static str,
        name: &str,
        step: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let path = self.file(name);
        step(&path).map_err(|source| StoreError::File { action, path, source })
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.directory.sync_all().map_err(|source| StoreError::File {
            action: "sync directory",
            path: self.path.clone(),
            source,
        })
    }

    /// Opens an existing file; `None` if it is not there.
    fn existing(&self, name: &str) -> Result<Option<File>, StoreError> {
        self.step("open", name, |path| match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<File, StoreError> {
        self.step("make", name, |path| {
            let mut options = OpenOptions::new();
            let mut file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
            // Written, not only reserved: the first save must not need a single new block.
            file.write_all(content)?;
            file.sync_all()?;
            Ok(file)
        })
    }

    /// Replaces a file by one with this content, all or nothing.
    fn replace(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let temporary = format!("{name}.new");
        drop(self.create(&temporary, content)?);
        self.step("replace", name, |path| std::fs::rename(self.file(&temporary), path))?;
        self.sync()
    }
}

/// Opens the store in a directory, or makes one.
pub fn open(path: &Path, owner: &Owner, layout: &Layout) -> Result<Found, StoreError> {
    for name in [&owner.cluster, &owner.node] {
        if name.chars().any(char::is_control) {
            return Err(StoreError::Name { name: name.clone() });
        }
    }
    let lock = Lock::take(path)?;
    let unknown = StoreId([0; 16]);
    let Some(mut file) = lock.existing(IDENTITY)? else {
        let mut others = FILES.iter().filter(|name| lock.file(name).exists());
        return match others.next() {
            None => make(lock, owner, layout),
            Some(name) => Ok(Found::Doubtful(lock, unknown, format!("file {IDENTITY} is missing, {name} is there"))),
        };
    };
    let mut text = String::new();
    let identity = file.read_to_string(&mut text).ok().and_then(|_| decode_identity(&text));
    match identity {
        None => Ok(Found::Doubtful(lock, unknown, format!("file {IDENTITY} is damaged"))),
        Some((_, id, found)) if found != *owner => {
            let Owner { cluster, node } = found;
            Ok(Found::Doubtful(lock, id, format!("it belongs to node {node:?} of cluster {cluster:?}")))
        }
        // The making was cut short, so that nothing was ever acknowledged.
        Some((Stage::Making, ..)) => make(lock, owner, layout),
        Some((Stage::Ready, id, _)) => load(lock, id, layout),
    }
}

fn make(lock: Lock, owner: &Owner, layout: &Layout) -> Result<Found, StoreError> {
    let mut id = StoreId([0; 16]);
    random_bytes(&mut id.0).map_err(StoreError::Randomness)?;
    lock.replace(IDENTITY, encode_identity(Stage::Making, id, owner).as_bytes())?;
    let mut marks = vec![0; MARKS_BYTES];
    let mut slots = Vec::with_capacity(SLOTS.len());
    for (generation, name) in (0..FIRST_RECORD).zip(SLOTS) {
        let (mut slot, hash) = encode_slot(id, generation, &[]);
        slot.resize(layout.slot_bytes, 0);
        slots.push(lock.create(name, &slot)?);
        let mark = encode_mark(id, Mark { generation, hash });
        marks[place(generation) * MARK_STRIDE..][..mark.len()].copy_from_slice(&mark);
    }
    let marks = lock.create(MARKS, &marks)?;
    lock.sync()?;
    lock.replace(IDENTITY, encode_identity(Stage::Ready, id, owner).as_bytes())?;
    let slots = slots.try_into().map_err(|_| StoreError::File {
        action: "open",
        path: lock.path.clone(),
        source: io::ErrorKind::Other.into(),
    })?;
    Ok(Found::Usable(Disk { id, generation: FIRST_RECORD - 1, slots, marks, _lock: lock }, None))
}

fn load(lock: Lock, id: StoreId, layout: &Layout) -> Result<Found, StoreError> {
    let mut files = Vec::with_capacity(3);
    let mut contents = Vec::with_capacity(3);
    for (name, length) in [(SLOTS[0], layout.slot_bytes), (SLOTS[1], layout.slot_bytes), (MARKS, MARKS_BYTES)] {
        let Some(mut file) = lock.existing(name)? else {
            return Ok(Found::Doubtful(lock, id, format!("file {name} is missing")));
        };
        let mut content = Vec::with_capacity(length);
        // Bytes after the end are not ours to explain; one more than expected is enough to notice.
        if let Err(error) = (&mut file).take(length as u64 + 1).read_to_end(&mut content) {
            return Ok(Found::Doubtful(lock, id, format!("file {name} cannot be read: {error}")));
        }
        if content.len() != length {
            let found = content.len();
            return Ok(Found::Doubtful(lock, id, format!("file {name} has {found} bytes, expected {length}")));
        }
        files.push(file);
        contents.push(content);
    }
    let (Ok([slot_0, slot_1, marks]), [content_0, content_1, mark_bytes]) =
        (<[File; 3]>::try_from(files), contents.as_slice())
    else {
        return Ok(Found::Doubtful(lock, id, "files are missing".to_owned()));
    };
    let found = [decode_mark(id, mark_bytes), mark_bytes.get(MARK_STRIDE..).and_then(|bytes| decode_mark(id, bytes))];
    let newest = match judge([decode_slot(id, content_0), decode_slot(id, content_1)], found) {
        Ok(newest) => newest,
        Err(reason) => return Ok(Found::Doubtful(lock, id, reason)),
    };
    let mut disk = Disk { id, generation: newest.generation, slots: [slot_0, slot_1], marks, _lock: lock };
    // What we read may so far only be in the kernel's memory, and may lack its mark: settle both before anyone relies
    // on it, so that the next crash starts from a clean state.
    disk.settle(Mark { generation: newest.generation, hash: newest.hash }, found).map_err(|error| {
        let source = io::Error::other(error);
        StoreError::File { action: "settle", path: disk._lock.path.clone(), source }
    })?;
    Ok(Found::Usable(disk, (newest.generation >= FIRST_RECORD).then_some(newest.record)))
}

impl Disk {
    /// Name of the store.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Newest generation whose slot is on the disk, for tests.
    #[cfg(test)]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The files that the next save writes, for tests that put broken ones in their place.
    #[cfg(test)]
    pub fn next_files(&mut self) -> [&mut File; 2] {
        [&mut self.slots[place(self.generation + 1)], &mut self.marks]
    }

    fn settle(&mut self, newest: Mark, found: [Option<Mark>; 2]) -> Result<(), SaveError> {
        let sync = |file: &File| file.sync_data().map_err(failed("sync a slot"));
        self.slots.iter().try_for_each(sync)?;
        if found[place(newest.generation)] == Some(newest) {
            return self.marks.sync_data().map_err(failed("sync the commit mark"));
        }
        self.write_mark(newest)
    }

    fn write_mark(&mut self, mark: Mark) -> Result<(), SaveError> {
        let bytes = encode_mark(self.id, mark);
        let offset = (place(mark.generation) * MARK_STRIDE) as u64;
        self.marks.write_all_at(&bytes, offset).map_err(failed("write the commit mark"))?;
        self.marks.sync_data().map_err(failed("sync the commit mark"))
    }
}

impl writer::Write for Disk {
    /// After an error it is unknown which of the two records, old or new, will be found; the next call writes a whole
    /// record again.
    fn write(&mut self, record: &[u8], synced: &mut dyn FnMut(Duration)) -> Result<(), SaveError> {
        let generation = self.generation + 1;
        let (bytes, hash) = encode_slot(self.id, generation, record);
        let slot = &self.slots[place(generation)];
        slot.write_all_at(&bytes, 0).map_err(failed("write a slot"))?;
        let begun = Instant::now();
        slot.sync_data().map_err(failed("sync a slot"))?;
        synced(begun.elapsed());
        // From here on this slot is the one to keep, whatever becomes of its mark.
        self.generation = generation;
        let begun = Instant::now();
        self.write_mark(Mark { generation, hash })?;
        synced(begun.elapsed());
        Ok(())
    }
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> SaveError {
    move |source| SaveError::Disk { action, source: Arc::new(source) }
}

/// Makes a directory and those above it, so that they, with all that is then synced in them, survive a crash.
fn make_directories(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    if !missing.is_empty() {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    }
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Moves the files of a store into a directory of their own beside them.
pub fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let lock = Lock::take(path)?;
    let mut number = 1;
    let aside = loop {
        let name = format!("{SET_ASIDE}-{number}");
        match lock.step("make directory", &name, |path| match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        })? {
            true => break lock.file(&name),
            false => number += 1,
        }
    };
    for name in FILES {
        lock.step("move aside", name, |path| match std::fs::rename(path, aside.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => moved,
        })?;
    }
    lock.sync()?;
    Ok(aside)
}
