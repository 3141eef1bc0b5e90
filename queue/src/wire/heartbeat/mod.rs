//! What a worker says about itself.

pub mod gpu_state;

use std::fmt;

use serde::{Deserialize, Serialize};
use shared::gpu::GpuReading;
use shared::id::{Incarnation, TaskId};
use shared::llm::ModelServer;
use shared::name::Name;
use shared::quantity::Bytes;
use shared::reason::Reason;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use super::fate::Obstacle;
use super::lane::Requirements;
use super::lease_record::Process;
use super::uptime::Uptime;
use gpu_state::GpuState;

/// The schema that a heartbeat names.
pub const SCHEMA: &str = "brainstem.heartbeat/1";

shared::words! {
    /// What a worker does, in one word.
    Status {
        /// It waits for work.
        Idle = "idle",
        /// At least one attempt runs, and none of class resource.
        Processing = "processing",
        /// A model is being loaded or unloaded.
        Loading = "loading",
        /// It finishes what runs and then stops.
        Draining = "draining",
        /// It takes nothing until resumed.
        Paused = "paused",
    }
}

/// What a worker says about itself: the content of `workers/<name>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// [`SCHEMA`].
    pub schema: String,
    /// The worker's name, which is also the file's.
    pub worker: Name,
    /// The worker's own process; those of its jobs are in `current`.
    pub process: Process,
    /// Which life of that worker.
    pub life: Incarnation,
    /// The program's version.
    pub version: String,
    /// When this life began.
    pub started_at: Moment,
    /// When this was written, by the worker's clock.
    pub at: Moment,
    /// The same by its machine's clock, which nobody can set.
    #[serde(default)]
    pub uptime: Option<Uptime>,
    /// Grows with each heartbeat: the only sign of progress that counts.
    pub seq: u64,
    /// What it does, in one word. Draining hides whether anything runs; `current` tells.
    pub status: Status,
    /// What it can do.
    pub ability: Ability,
    /// All attempts in its hands, each from its claim to its ledger line.
    pub current: Vec<Run>,
    /// Its GPU, where that can be read.
    pub gpu_reading: Option<GpuReading>,
    /// How its last look for work went.
    pub claim: ClaimReport,
    /// Attempts that succeeded in this life.
    pub completed: u64,
    /// Attempts that failed in this life.
    pub failed: u64,
    /// Races lost in this life.
    pub lost_races: u64,
    /// Since when nothing runs.
    pub idle_since: Option<Moment>,
    /// The number of the next log line: how many this life has written.
    pub log_seq: u64,
}

/// What a worker can do: all that eligibility depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ability {
    /// The classes it takes.
    pub classes: Vec<Class>,
    /// Its GPU, as an index.
    pub gpu: Option<u32>,
    /// That GPU's identity, where known.
    pub gpu_uuid: Option<String>,
    /// That GPU's memory, where known.
    pub gpu_memory: Option<Bytes>,
    /// Whether that GPU may be given work, and what is in its memory.
    #[serde(default)]
    pub gpu_state: GpuState,
    /// How many tasks may use the GPU at once.
    pub gpu_slots: u32,
    /// How many cpu tasks may run at once.
    pub cpu_slots: u32,
    /// Who paused it, or the pool, and when.
    pub paused: Option<StandingOrder>,
    /// Who drains it, and since when.
    pub draining: Option<StandingOrder>,
    /// What the machine does not give it to start jobs with: until it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starved: Option<Starved>,
    /// What it leaves to others for a while, because it goes wrong here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backs_off: Vec<BacksOff>,
    /// Its model server, if it has one.
    #[serde(default)]
    pub server: Option<ModelServer>,
}

/// What a worker could not have when it last tried to start a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Starved {
    /// What, in words, with the system's answer.
    pub error: String,
    /// When that was.
    pub since: Moment,
}

/// Tasks that fail at once on this worker, and not on others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BacksOff {
    /// What they need, without limits.
    pub needs: Requirements,
    /// How the last one failed.
    pub error: String,
    /// When that was.
    pub since: Moment,
}

/// A condition somebody has set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandingOrder {
    /// Who: a person as `user@host`, or `brain`.
    pub by: String,
    /// When the message that says so was written.
    pub since: Moment,
    /// What it is about: `pool`, or the worker's name.
    pub scope: String,
}

/// A job that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The task.
    pub task_id: TaskId,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// Its class.
    pub class: Class,
    /// The name it was given or, where it has none, one made from what it does.
    pub name: String,
    /// How much GPU memory it asked for.
    pub gpu_memory: Option<Bytes>,
    /// When the job started. `None` between claim and start.
    pub started_at: Option<Moment>,
    /// The job's process group.
    pub pgid: Option<u32>,
    /// Seconds since it last printed, by the worker's monotonic clock.
    pub last_output_age_seconds: Option<f64>,
    /// Seconds since it last made any progress (output, CPU, GPU, progress file), by the worker's
    /// monotonic clock; `None` while that cannot be told (stopped, or not readable).
    pub quiet_seconds: Option<f64>,
    /// What the progress was judged by.
    pub evidence: serde_json::Map<String, serde_json::Value>,
    /// The most GPU memory its processes were seen to use.
    pub peak_vram_bytes: Option<u64>,
    /// Its job has ended, and something of it may still run: what is in the way of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Obstacle>,
    /// Its job's log, where that is longer than a megabyte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<RunLog>,
}

/// A long run log, when it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLog {
    /// The file.
    pub path: String,
    /// Its length.
    pub bytes: Bytes,
    /// How much was cut out of it, where it grew beyond its cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Bytes>,
    /// How fast it grew since the look before.
    pub bytes_per_second: u64,
}

/// The log that has filled, or fills, a disk most.
#[derive(Clone, Copy, Debug)]
pub struct Hog<'a> {
    /// Whose it is.
    pub run: &'a Run,
    log: &'a RunLog,
}

/// The log that grows fastest; where none grows, the longest: on a full disk none does.
#[must_use]
pub fn hog<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Option<Hog<'a>> {
    let logs = runs.into_iter().filter_map(|run| Some(Hog { run, log: run.log.as_ref()? }));
    logs.max_by_key(|hog| (hog.log.bytes_per_second, hog.log.bytes))
}

impl Hog<'_> {
    /// The command that ends it.
    #[must_use]
    pub fn end(&self) -> String {
        format!("queue cancel {}", self.run.task_id.short())
    }
}

impl fmt::Display for Hog<'_> {
    /// `the log of d5de16d7 (train) has 400 MiB and grows by 3 MiB a second: /path`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, log } = self;
        write!(f, "the log of {} ({}) has {}", run.task_id.short(), run.name, log.bytes)?;
        if log.bytes_per_second > 0 {
            write!(f, " and grows by {} a second", Bytes(log.bytes_per_second))?;
        }
        write!(f, ": {}", log.path)
    }
}

/// How a look for work went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClaimReport {
    /// When the look ended. `None` before the first one.
    pub at: Option<Moment>,
    /// In the words of the log.
    pub result: String,
    /// Why nothing was taken.
    pub reasons: Vec<Reason>,
}

impl Heartbeat {
    /// What it says about one attempt, if that runs there.
    #[must_use]
    pub fn runs(&self, name: TaskName) -> Option<&Run> {
        self.current.iter().find(|run| (run.task_id, run.attempt) == (name.id, name.attempt))
    }
}
