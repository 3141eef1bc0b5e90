//! Where everything is inside a pool. The only place that spells these names.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use shared::id::{BatchId, Incarnation, TaskId};
use shared::name::Name;
use shared::task::TaskName;
use shared::time::Moment;

use crate::wire::brake::BrakeKey;
use crate::wire::lane::LaneName;

/// The lock's name inside a staging directory. Hidden: it is no task.
pub(super) const STAGING_LOCK: &str = ".lock";

/// The paths of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

/// A place where tasks rest in numbered directories, at most 4,096 names in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shelf {
    /// Something it depends on has not ended.
    Waiting,
    /// A person holds it.
    Held,
    /// It failed for good.
    Failed,
}

impl Shelf {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Held, Self::Failed];

    /// The directory's name, which is also the state's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }
}

/// A numbered directory: `<segment>.<k>`. Sorts by time, then by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment {
    /// First 9 hex digits of the ids in it.
    pub time: String,
    /// 0 for single submits, from 1 for bulk submits.
    pub number: u32,
}

impl Segment {
    /// Where a task goes that comes alone.
    #[must_use]
    pub fn single(id: TaskId) -> Self {
        Self { time: id.segment(), number: 0 }
    }

    /// The directory's name, as [`Segment::parse`] reads it.
    #[must_use]
    pub fn dir_name(&self) -> String {
        format!("{}.{}", self.time, self.number)
    }

    /// Reads a directory's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (time, number) = text.split_once('.')?;
        let segment = Self { time: time.to_owned(), number: number.parse().ok()? };
        let hex = time.len() == 9 && time.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (hex && segment.dir_name() == text).then_some(segment)
    }
}

/// How a priority is spelled in a path.
#[must_use]
pub fn priority_dir(priority: u8) -> String {
    format!("{priority:02}")
}

/// Reads the spelling of a priority.
#[must_use]
pub fn parse_priority(text: &str) -> Option<u8> {
    let priority = text.parse().ok().filter(|p| *p <= shared::task::MAX_PRIORITY)?;
    (priority_dir(priority) == text).then_some(priority)
}

macro_rules! dirs {
    ($($(#[$doc:meta])* $name:ident = $path:literal,)+) => {
        $($(#[$doc])* #[must_use] pub fn $name(&self) -> PathBuf { self.root.join($path) })+
    };
}

impl Layout {
    /// The paths of the pool at `root`, which should be absolute.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The pool's own directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    dirs! {
        /// The pool's settings, written by people and by `queue limit`; often missing.
        settings_file = "pool.toml",
        /// The marker: that this is a pool, and of which format.
        format_file = "format",
        /// 64 MiB that really exist, given up when the disk is full.
        reserve = "reserve",
        /// Staged submits that are not committed yet: nobody counts or claims what is there.
        incoming = "incoming",
        /// Committed bulk submits on their way.
        publishing = "publishing",
        /// What each lane requires, a file per lane.
        lanes = "lanes",
        /// Claimable tasks, as `<lane>/<priority>/<segment>/<task>`.
        pending = "pending",
        /// Claimed tasks, a directory per worker.
        processing = "processing",
        /// Tasks for later, a directory per second since 1970 at which some are due.
        delayed = "delayed",
        /// Tasks that somebody is just ending: a person's command, or a failed dependency.
        ending = "ending",
        /// What could not be understood.
        rejected = "rejected",
        /// Idempotency keys, a file each: the task or batch that was submitted under it.
        keys = "keys",
        /// Which tasks a bulk submit has, a file each.
        batches = "batches",
        /// History: a directory per UTC day, in it a file per life of a process that writes.
        ledger = "ledger",
        /// What attempts left behind.
        runs = "runs",
        /// Everything that somebody holds for as long as it lives.
        locks = "locks",
        /// Leases of workers, a lock file each.
        worker_locks = "locks/workers",
        /// Slots of limits: a directory per key, in it a lock file per slot.
        limit_locks = "locks/limits",
        /// Failures in a row that are alike, a file for each batch that has them.
        brakes = "brakes",
        /// Held while one of these is changed.
        brakes_lock = "locks/brakes.lock",
        /// GPUs whose hardware identity is unknown.
        gpu_locks = "locks/gpus",
        /// Held by the pool's one brain for as long as it lives.
        brain_lock = "locks/brain.lock",
        /// Held by a brain that waits for the brain's lock, so that others can see it.
        standby_lock = "locks/standby.lock",
        /// Held, and touched, by the worker that looks after the pool while there is no brain.
        deputy_lock = "locks/deputy.lock",
        /// Held while history and places are compared after a power cut.
        reconcile_lock = "locks/reconcile.lock",
        /// Held while a keyed task is submitted.
        keys_lock = "locks/keys.lock",
        /// Heartbeats: a file per worker, replaced each time.
        workers = "workers",
        /// Messages to workers, a directory each, and the pause of the whole pool.
        control = "control",
        /// Files touched to wake whoever waits.
        doorbells = "doorbells",
        /// Logs of the programs as JSON lines, and what model servers print.
        logs = "logs",
        /// What commands did, a line each, written by all of them.
        commands_log = "logs/queue.jsonl",
        /// What the brain writes for others to read.
        brain = "brain",
        /// What the brain last saw.
        brain_state = "brain/state.json",
        /// What the brain decided, one line each.
        brain_decisions = "brain/decisions.jsonl",
    }

    /// The file that says what a lane requires.
    #[must_use]
    pub fn lane_file(&self, lane: &LaneName) -> PathBuf {
        self.lanes().join(format!("{lane}.json"))
    }

    /// One numbered directory of one priority of one lane.
    #[must_use]
    pub fn pending_segment(&self, lane: &LaneName, priority: u8, segment: &Segment) -> PathBuf {
        self.pending_priority(lane, priority).join(segment.dir_name())
    }

    /// One priority of one lane.
    #[must_use]
    pub fn pending_priority(&self, lane: &LaneName, priority: u8) -> PathBuf {
        self.pending().join(lane.as_str()).join(priority_dir(priority))
    }

    /// What one worker has claimed.
    #[must_use]
    pub fn processing_of(&self, worker: &Name) -> PathBuf {
        self.processing().join(worker.as_str())
    }

    /// The directory of a shelf, named as its state is.
    #[must_use]
    pub fn shelf(&self, shelf: Shelf) -> PathBuf {
        self.root.join(shelf.as_str())
    }

    /// Where a task that comes alone rests on a shelf.
    #[must_use]
    pub fn on_shelf(&self, shelf: Shelf, name: TaskName) -> PathBuf {
        self.shelf(shelf).join(Segment::single(name.id).dir_name()).join(name.file_name())
    }

    /// Where a task waits for a time. Rounded up: never early.
    #[must_use]
    pub fn delayed_task(&self, until: Moment, name: TaskName) -> PathBuf {
        let second = (until.unix_millis() + 999).div_euclid(1000);
        self.delayed().join(second.to_string()).join(name.file_name())
    }

    /// Where a person's command puts a task while it ends it.
    #[must_use]
    pub fn ending_task(&self, verb: &str, name: TaskName) -> PathBuf {
        self.ending().join(verb).join(name.file_name())
    }

    /// Where a task lies that could not be understood, unless something of its name lay there
    /// already, and what says why.
    #[must_use]
    pub fn rejected_task(&self, name: TaskName) -> (PathBuf, PathBuf) {
        let dir = self.rejected();
        (dir.join(name.file_name()), dir.join(format!("{}.reason", name.file_name())))
    }

    /// A committed bulk submit.
    #[must_use]
    pub fn publishing_batch(&self, batch: BatchId) -> PathBuf {
        self.publishing().join(batch.to_string())
    }

    /// What the job of an attempt printed.
    #[must_use]
    pub fn run_log(&self, id: TaskId, attempt: u32) -> PathBuf {
        self.runs().join(id.segment()).join(format!("{id}.a{attempt}.log"))
    }

    /// The file that a job may touch, or write into, to show that it gets on.
    #[must_use]
    pub fn progress_file(&self, id: TaskId, attempt: u32) -> PathBuf {
        self.runs().join(id.segment()).join(format!("{id}.a{attempt}.progress"))
    }

    /// What else is kept of an attempt.
    #[must_use]
    pub fn run_dir(&self, id: TaskId, attempt: u32) -> PathBuf {
        self.runs().join(id.segment()).join(format!("{id}.a{attempt}"))
    }

    /// The file of one brake.
    #[must_use]
    pub fn brake(&self, key: &BrakeKey) -> PathBuf {
        self.brakes().join(format!("{}.json", escape(key.as_str())))
    }

    /// The slots of one limit, a lock file each.
    #[must_use]
    pub fn limit_slots(&self, key: &str) -> PathBuf {
        self.limit_locks().join(escape(key))
    }

    /// A worker's lease: the file that it keeps locked for its whole life.
    #[must_use]
    pub fn worker_lock(&self, worker: &Name) -> PathBuf {
        self.worker_locks().join(format!("{worker}.lock"))
    }

    /// The file with a worker's last heartbeat.
    #[must_use]
    pub fn heartbeat(&self, worker: &Name) -> PathBuf {
        self.workers().join(format!("{worker}.json"))
    }

    /// Messages to one worker.
    #[must_use]
    pub fn control_of(&self, worker: &Name) -> PathBuf {
        self.control().join(worker.as_str())
    }

    /// A process's ledger file of one day; `part` counts files given up after a failed flush.
    #[must_use]
    pub fn ledger_file(&self, day: &str, writer: &Name, life: &Incarnation, part: u32) -> PathBuf {
        self.ledger().join(day).join(format!("{writer}.{life}.{part}.jsonl"))
    }
}

/// A limit's key as a name of a file: what is not safe in one becomes `+` and hex digits.
fn escape(key: &str) -> String {
    let mut name = String::new();
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'=' | b':' => {
                name.push(char::from(byte));
            }
            _ => name.push_str(&format!("+{byte:02x}")),
        }
    }
    if name.len() <= LONGEST {
        return name;
    }
    let hash = Sha256::digest(key.as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A longer name might not be one to the file system.
const LONGEST: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_sort_by_time_then_number_and_have_one_spelling() {
        let parse = |text| Segment::parse(text);
        assert!(parse("0194c3f2a.2") < parse("0194c3f2a.10"));
        assert!(parse("0194c3f2a.10") < parse("0194c3f2b.0"));
        for bad in ["0194c3f2a", "0194c3f2a.", "0194c3f2a.01", "0194C3f2a.1", "194c3f2a.1", ".x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn priorities_have_two_digits_and_an_end() {
        assert_eq!(parse_priority("05"), Some(5));
        assert_eq!(parse_priority("10"), Some(10));
        for bad in ["5", "11", "-1", "005", ""] {
            assert_eq!(parse_priority(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_delay_is_never_over_early() {
        let layout = Layout::new("/p");
        let name = TaskName::first(TaskId::new());
        let path = layout.delayed_task(Moment::from_unix_millis(5_001), name);
        assert!(path.starts_with("/p/delayed/6/"));
    }
}
