//! What the brain writes about itself for others, and for the next brain.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::gpu::GpuReading;
use shared::id::{Incarnation, TaskId};
use shared::name::Name;
use shared::task::Class;
use shared::time::Moment;

use super::completed_lately::CompletedLately;
use super::lane::LaneName;
use super::lease_record::Process;
use super::model_stats::ModelStats;
use super::uptime::Uptime;

/// The schema that the file names.
pub const SCHEMA: &str = "brainstem.brain-state/1";

/// The content of the brain's lock: who holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrainRecord {
    /// The process; in JSON its fields stand beside the others.
    #[serde(flatten)]
    pub process: Process,
    /// Which life of the brain.
    pub life: Incarnation,
    /// Since when it holds the lock.
    pub since: Moment,
}

/// What the brain last saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrainState {
    /// [`SCHEMA`].
    pub schema: String,
    /// When this was written.
    pub as_of: Moment,
    /// The same by the machine's clock, which nobody can set.
    #[serde(default)]
    pub uptime: Option<Uptime>,
    /// Grows with each writing: the sign of life.
    pub seq: u64,
    /// The number of the process that wrote this.
    pub pid: u32,
    /// Since when it is the brain.
    pub since: Moment,
    /// The cycle in which it saw this, from 1 for each life of a brain.
    pub cycle: u64,
    /// Tasks per state.
    pub counts: StateCounts,
    /// Lanes with pending tasks.
    pub lanes: Vec<StateLane>,
    /// Claimed tasks that have made no progress for at least the setting `stuck_after`.
    pub stuck: Vec<Stuck>,
    /// What somebody should know.
    pub warnings: Vec<Warning>,
    /// How far `complete` and `cancelled` are counted: per ledger file, by its path inside the
    /// pool, the offset of what comes next.
    pub ledger: BTreeMap<String, u64>,
    /// The GPUs, where they can be read.
    pub gpus: Vec<GpuReading>,
    /// The workers that the brain has started: the next brain takes them over.
    #[serde(default)]
    pub children: Vec<ChildProcess>,
    /// What was completed lately, up to where the ledger is counted.
    #[serde(default)]
    pub completions: CompletedLately,
    /// What was measured about models, up to where the ledger is counted.
    #[serde(default)]
    pub measured: ModelStats,
}

/// What says in a worker's environment that a brain has started it. Jobs do not get it.
pub mod started_by {
    /// The variable's name.
    pub const VARIABLE: &str = "BRAINSTEM_STARTED_BY";
    /// Its value.
    pub const BRAIN: &str = "brain";
}

/// A worker that the brain has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildProcess {
    /// Its name.
    pub worker: Name,
    /// Its process, by which the next brain knows it again.
    pub process: Process,
}

/// Tasks per state. `None` is unknown, which is not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as the states are")]
pub struct StateCounts {
    pub pending: Option<u64>,
    pub processing: Option<u64>,
    pub delayed: Option<u64>,
    pub waiting: Option<u64>,
    pub held: Option<u64>,
    pub failed: Option<u64>,
    pub complete: u64,
    pub cancelled: u64,
    pub rejected: Option<u64>,
}

/// One lane with pending tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in `queue status --json`")]
pub struct StateLane {
    pub lane: LaneName,
    pub class: Class,
    pub model: Option<String>,
    pub priority_max: u8,
    pub pending: u64,
    pub oldest_seconds: Option<f64>,
}

/// A task without progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in `queue status --json`")]
pub struct Stuck {
    pub task_id: TaskId,
    pub worker: Name,
    pub seconds: f64,
    pub evidence: serde_json::Map<String, serde_json::Value>,
}

/// Something somebody should know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in `queue status --json`")]
pub struct Warning {
    pub code: String,
    pub text: String,
    pub since: Moment,
}
