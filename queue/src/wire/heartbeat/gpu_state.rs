//! How a worker's GPU fares, as the worker judges it: whether it may be given work, and what is in
//! its memory. Part of the heartbeat, so that everybody decides by the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::gpu::GpuFault;
use shared::id::TaskId;
use shared::quantity::Bytes;
use shared::time::Moment;

/// How a worker's GPU fares. By default nothing is known against it, and nothing of its memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuState {
    /// Whether it may be given work.
    pub fitness: Fitness,
    /// What is in its memory, where that can be read.
    pub memory: Option<MemoryUse>,
}

/// Whether a GPU may be given work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fitness {
    /// Nothing is known against it.
    #[default]
    Fit,
    /// It is given nothing new until it has cooled down.
    Hot(Heat),
    /// It is kept out of use.
    Quarantined(Quarantine),
}

/// Why a GPU is kept out of use, and for how long at least.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quarantine {
    /// What was found last.
    pub fault: GpuFault,
    /// When it was first found.
    pub since: Moment,
    /// Not before this it is given work again.
    pub until: Moment,
    /// How often it was quarantined in this life of its worker, this time included.
    pub times: u32,
}

/// How hot a GPU is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heat {
    /// Which limit it has reached.
    pub limit: HeatLimit,
    /// Degrees Celsius, as last read.
    pub celsius: u32,
    /// At this many it is given work again.
    pub resume: u32,
    /// Since when it is too hot.
    pub since: Moment,
}

shared::words! {
    /// The limits of a GPU's temperature. The lower one comes first.
    HeatLimit {
        /// Nothing new is begun.
        Soft = "soft",
        /// Somebody has to look after it.
        Hard = "hard",
    }
}

/// What is in the memory of a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// What anybody uses.
    pub used: Bytes,
    /// What the driver keeps for itself.
    pub reserved: Bytes,
    /// What each of the worker's own runs uses. `None`: the driver does not say who uses what.
    pub runs: Option<BTreeMap<TaskId, Bytes>>,
    /// Who else uses it, most first; not all of them where they are many.
    pub others: Vec<MemoryHolder>,
}

/// A process that is no run of this worker, and uses memory of its GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryHolder {
    /// Its number.
    pub pid: u32,
    /// Its command line, cut.
    pub command: String,
    /// How much it uses, where the driver says that.
    pub bytes: Option<Bytes>,
    /// The task that it was started for, if it was.
    pub task: Option<TaskId>,
}

impl GpuState {
    /// Whether nothing is known against giving it work.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        matches!(self.fitness, Fitness::Fit)
    }
}
