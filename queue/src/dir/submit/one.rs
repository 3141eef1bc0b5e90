//! Submitting: from a checked task to a file that workers see, so that an id that was printed
//! survives a power cut.
//!
//! One task: write in `incoming/`, flush, rename, flush the directory and every ancestor that was
//! made. Many: stage directories, flush once, and commit with ONE rename into `publishing/`; from
//! there anyone rolls forward (see [`crate::dir::batch::roll_forward`]).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use shared::id::{BatchId, Incarnation, TaskId};
use shared::task::{MAX_TASK_BYTES, Task, TaskName};
use shared::time::Moment;

use crate::Error;
use crate::dir::Pool;
use crate::dir::batch::roll_forward;
use crate::dir::disk::lock::Lock;
use crate::dir::disk::publish::{self, Durability, Identity, Moved};
use crate::dir::disk::{plain_file, reject, reserve};
use crate::dir::layout::{Segment, Shelf, priority_dir};
use crate::dir::signal::doorbell;
use crate::error::OrGone as _;
use crate::wire::lane::{LaneName, Requirements};

/// At most so many names in a directory, so that listing and counting stay cheap.
pub const MAX_NAMES: u32 = 4_096;

/// The first place of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// Claimable at once.
    Pending,
    /// When what it depends on has ended.
    Waiting,
    /// When a person releases it.
    Held,
    /// When it is time.
    Delayed(Moment),
}

/// Where a task goes first: held before waiting before delayed before pending.
#[must_use]
pub fn start_of(task: &Task) -> Start {
    if task.spec.hold {
        Start::Held
    } else if !task.spec.after.is_empty() {
        Start::Waiting
    } else {
        released(task, task.submitted_at)
    }
}

/// Where a task goes when nothing holds it back but, perhaps, its time.
#[must_use]
pub fn released(task: &Task, now: Moment) -> Start {
    match task.spec.at {
        Some(at) if at > now => Start::Delayed(at),
        Some(_) | None => Start::Pending,
    }
}

/// A process that submits: it owns one directory in `incoming/` for as long as it lives.
#[derive(Debug)]
pub struct Submitter {
    pool: Pool,
    dir: PathBuf,
    _lock: Lock,
    lanes: HashSet<LaneName>,
    /// Directories whose names, up to the root, are on the disk.
    durable_dirs: HashMap<PathBuf, Identity>,
}

impl Submitter {
    /// Takes a place in `incoming/`. Refuses where the disk is nearly full.
    pub fn new(pool: &Pool) -> Result<Self, Error> {
        reserve::require_room(pool.layout(), pool.rules().disk_low)?;
        let (dir, lock) = take_place(&pool.layout().incoming())?;
        let (lanes, durable_dirs) = (HashSet::new(), HashMap::new());
        Ok(Self { pool: pool.clone(), dir, _lock: lock, lanes, durable_dirs })
    }

    /// Submits one task. When this returns, it is in the pool for good.
    pub fn submit(&mut self, task: &Task) -> Result<(), Error> {
        let layout = self.pool.layout().clone();
        let name = TaskName::first(task.id);
        let target = match start_of(task) {
            Start::Pending => {
                let lane = self.lane(task)?;
                let segment = Segment::single(task.id);
                layout.pending_segment(&lane, task.priority(), &segment).join(name.file_name())
            }
            Start::Waiting => layout.on_shelf(Shelf::Waiting, name),
            Start::Held => layout.on_shelf(Shelf::Held, name),
            Start::Delayed(at) => layout.delayed_task(at, name),
        };
        let staged = self.dir.join(name.file_name());
        publish::create_flushed(&staged, &bytes_of(task, &target)?)?;
        self.publish(&staged, &target)
    }

    fn publish(&mut self, staged: &Path, target: &Path) -> Result<(), Error> {
        let (moved, made) = publish::move_into(staged, target)?;
        match moved {
            Moved::Yes => {}
            Moved::SourceGone | Moved::TargetThere => {
                let path = target.to_owned();
                let problem = "a task of this id is already there".to_owned();
                return Err(Error::Garbled { path, problem });
            }
        }
        let Err(err) = self.flush(target, &made) else { return Ok(()) };
        // Nobody knows whether it would survive a power cut: so it is taken back, and was never
        // submitted. Where it was claimed meanwhile, the error is all that can be said.
        let _undone = publish::move_new(target, staged);
        Err(err)
    }

    /// Makes sure that a task's name is on the disk, and those of the directories above it.
    fn flush(&mut self, target: &Path, made: &publish::Target) -> Result<(), Error> {
        let (root, dir) = (self.pool.root(), target.parent().unwrap_or(target));
        let known = self.durable_dirs.get(dir);
        let flushed = publish::flush_and_identify(dir).and_then(|identity| {
            match made {
                publish::Target::Found if known == Some(&identity) => {}
                publish::Target::Found => publish::flush_up_to(root, dir)?,
                publish::Target::Made(topmost) => {
                    publish::flush_up_to(root, topmost.parent().unwrap_or(topmost))?;
                }
            }
            Ok(identity)
        });
        if let Some(identity) = flushed.or_gone()? {
            self.durable_dirs.insert(dir.to_owned(), identity);
            return Ok(());
        }
        // A worker has taken the task already, and removed the directory that was empty then.
        // Where the task is now was flushed by nobody.
        self.durable_dirs.remove(dir);
        publish::flush_file_system(root)
    }

    /// The task's lane, with its file written before first use.
    fn lane(&mut self, task: &Task) -> Result<LaneName, Error> {
        let lane = ensure_lane(&self.pool, task, &mut self.lanes)?;
        Ok(lane)
    }

    /// Begins a bulk submit.
    pub fn bulk(self) -> Bulk {
        let batch = BatchId::new();
        Bulk { submitter: self, batch, rooms: HashMap::new(), count: 0 }
    }
}

/// What the file will hold; more than anyone would read is refused here, where it can be said.
fn bytes_of(task: &Task, path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = task.to_bytes();
    if bytes.len() as u64 <= MAX_TASK_BYTES {
        return Ok(bytes);
    }
    let problem = format!("it would have {} bytes; a task has at most 1 MiB", bytes.len());
    Err(Error::Garbled { path: path.to_owned(), problem })
}

impl Drop for Submitter {
    fn drop(&mut self) {
        // What is left in it was never acknowledged; if this fails, anyone cleans it up.
        let _ = publish::remove_tree(&self.dir);
    }
}

/// The lane of a task; writes the lane's file where this process has not seen it yet.
pub(in crate::dir) fn ensure_lane(
    pool: &Pool,
    task: &Task,
    known: &mut HashSet<LaneName>,
) -> Result<LaneName, Error> {
    let limits = pool.limit_keys();
    ensure_lane_of(pool, &Requirements::of(task, &limits), known)
}

/// The same for requirements.
pub(in crate::dir) fn ensure_lane_of(
    pool: &Pool,
    requirements: &Requirements,
    known: &mut HashSet<LaneName>,
) -> Result<LaneName, Error> {
    let lane = requirements.lane();
    if known.contains(&lane) {
        return Ok(lane);
    }
    let path = pool.layout().lane_file(&lane);
    let bytes = requirements.to_bytes();
    // Its name is a hash of its content: what differs was garbled, and nobody would take from the
    // lane.
    match plain_file::read(&path) {
        Ok(Some(found)) if found == bytes => {}
        Ok(_) => publish::replace(&path, &bytes, Durability::Flushed)?,
        Err(Error::Garbled { problem, .. }) => {
            reject::reject(pool.layout(), &path, &problem)?;
            publish::replace(&path, &bytes, Durability::Flushed)?;
        }
        Err(err) => return Err(err),
    }
    known.insert(lane.clone());
    Ok(lane)
}

/// A directory of one's own in `incoming/`, with a lock in it that says that its writer lives.
fn take_place(incoming: &Path) -> Result<(PathBuf, Lock), Error> {
    loop {
        let dir = incoming.join(Incarnation::new().as_str());
        publish::make_dirs(&dir)?;
        // Whoever tidies up may take the lock first, and then removes the directory.
        match Lock::try_take(&dir.join(LOCK)) {
            Ok(Some(lock)) => return Ok((dir, lock)),
            Ok(None) => {}
            Err(err) if err.io_kind() == Some(std::io::ErrorKind::NotFound) => {}
            Err(err) => return Err(err),
        }
    }
}

/// The lock's name inside a staging directory. Hidden: it is no task.
pub(in crate::dir) const LOCK: &str = ".lock";

/// A bulk submit that is being staged. Dropped before [`Bulk::commit`], nothing of it stays.
#[derive(Debug)]
pub struct Bulk {
    submitter: Submitter,
    batch: BatchId,
    /// The directory that is being filled, per kind of place.
    rooms: HashMap<PathBuf, Room>,
    count: u64,
}

/// After so many staged tasks it is looked again whether there is room for more: a large batch
/// must not use up what running work needs.
const LOOK_FOR_ROOM: u64 = 64;

#[derive(Debug)]
struct Room {
    time: String,
    number: u32,
    names: u32,
}

impl Bulk {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> BatchId {
        self.batch
    }

    /// Stages one more task. Ids must come in order, so that directories hold tasks in order.
    pub fn add(&mut self, task: &Task) -> Result<(), Error> {
        let name = TaskName::first(task.id);
        let dir = match start_of(task) {
            Start::Pending => {
                let lane = self.submitter.lane(task)?;
                let shelf =
                    Path::new("pending").join(lane.as_str()).join(priority_dir(task.priority()));
                self.room(&shelf, task.id)?
            }
            Start::Waiting => self.room(Path::new(Shelf::Waiting.as_str()), task.id)?,
            Start::Held => self.room(Path::new(Shelf::Held.as_str()), task.id)?,
            Start::Delayed(at) => {
                let target = self.submitter.pool.layout().delayed_task(at, name);
                let due = target.parent().and_then(Path::file_name).unwrap_or_default();
                let dir = self.submitter.dir.join("delayed").join(due);
                publish::make_dirs(&dir)?;
                dir
            }
        };
        let staged = dir.join(name.file_name());
        publish::create(&staged, &bytes_of(task, &staged)?)?;
        self.count += 1;
        if self.count.is_multiple_of(LOOK_FOR_ROOM) {
            let pool = &self.submitter.pool;
            reserve::require_room(pool.layout(), pool.rules().disk_low)?;
        }
        Ok(())
    }

    /// The directory that takes the next task of this place.
    fn room(&mut self, place: &Path, id: TaskId) -> Result<PathBuf, Error> {
        let time = id.segment();
        let room = self.rooms.entry(place.to_owned()).or_insert_with(|| Room {
            time: String::new(),
            number: 0,
            names: 0,
        });
        if room.time != time || room.names == MAX_NAMES {
            room.number += 1;
            room.time = time;
            room.names = 0;
        }
        room.names += 1;
        let segment = Segment { time: room.time.clone(), number: room.number };
        let dir = self.submitter.dir.join(place).join(segment.dir_name());
        if room.names == 1 {
            publish::make_dirs(&dir)?;
        }
        Ok(dir)
    }

    /// Commits: from here on all of it is in the pool, whatever dies. Returns how many tasks.
    pub fn commit(self) -> Result<u64, Error> {
        let layout = self.submitter.pool.layout();
        publish::flush_file_system(&self.submitter.dir)?;
        let target = layout.publishing_batch(self.batch);
        match publish::move_new(&self.submitter.dir, &target)? {
            Moved::Yes => {}
            Moved::SourceGone | Moved::TargetThere => {
                let problem = "the staged batch is gone, or one of this id is there".to_owned();
                return Err(Error::Garbled { path: target, problem });
            }
        }
        publish::flush_dir(&layout.publishing())?;
        // It is submitted now, whatever becomes of this: the next one who looks goes on with it.
        if roll_forward::forward_one(layout, &target).is_err() {
            doorbell::ring_brain(layout);
        }
        Ok(self.count)
    }
}

/// Removes staging directories whose writer is gone. By their lock, never by age. One that cannot
/// be removed does not save the others; its error comes last.
pub fn sweep_incoming(pool: &Pool) -> Result<u32, Error> {
    let (mut swept, mut last) = (0, Ok(()));
    let incoming = pool.layout().incoming();
    for name in crate::dir::disk::listing::entries(&incoming)? {
        let dir = incoming.join(name);
        // A plain file, or just gone: not ours to judge.
        let Ok(Some(_lock)) = Lock::try_take(&dir.join(LOCK)) else { continue };
        match sweep(&incoming, &dir) {
            Ok(()) => swept += 1,
            Err(err) => last = Err(err),
        }
    }
    last.map(|()| swept)
}

/// First under a name that no writer knows: one that has just made this directory, and not yet
/// locked it, would find its files removed under its hands. It finds the directory gone instead.
fn sweep(incoming: &Path, dir: &Path) -> Result<(), Error> {
    let doomed = incoming.join(Incarnation::new().as_str());
    match publish::move_new(dir, &doomed)? {
        Moved::Yes => publish::remove_tree(&doomed),
        Moved::SourceGone | Moved::TargetThere => Ok(()),
    }
}
