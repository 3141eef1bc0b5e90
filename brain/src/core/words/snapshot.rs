//! One look at the pool: all that the core decides from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use queue::wire::counts::{Counts, LaneCount};
use queue::wire::heartbeat::gpu_state::Fitness;
use queue::wire::heartbeat::{Heartbeat, Run};
use queue::wire::lane::Requirements;
use queue::wire::lease_record::Record;
use queue::wire::ledger_line::Brief;
use shared::gpu::GpuReading;
use shared::llm::ModelVerb;
use shared::log_cap::LogCap;
use shared::name::Name;
use shared::quantity::Bytes;
use shared::task::{Class, TaskName};

/// What was seen in one look.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Which look of this brain.
    pub cycle: u64,
    /// How many tasks are where; `None` if they could not be counted, which is not 0.
    pub counts: Option<Arc<Counts>>,
    /// Lanes with pending tasks.
    pub lanes: Vec<Lane>,
    /// The workers that have a lease file or a heartbeat.
    pub workers: BTreeMap<Name, Worker>,
    /// What is claimed, and by whom.
    pub processing: Vec<Held>,
    /// What was seen of claimed tasks whose worker lives and does not look after them.
    pub unattended: BTreeMap<TaskName, Signs>,
    /// Loads and unloads that were asked for and that nobody has taken.
    pub requests: Vec<Held>,
    /// Attempts that ended since the last look.
    pub ended: Vec<Brief>,
    /// Tasks that succeeded in the last five minutes.
    pub completed_lately: u64,
    /// In the first look: attempts that ended before, which are no news. Of those only what says
    /// something about models.
    pub past: Vec<Brief>,
    /// The GPUs; `None` where nobody can read them.
    pub gpus: Option<Vec<GpuReading>>,
    /// The GPUs that the brain was told of.
    pub named_gpus: Vec<u32>,
    /// Whether the whole pool is paused.
    pub pool: Paused,
    /// Workers that are asked to drain, and by whom.
    pub drains: BTreeMap<Name, String>,
    /// What is free on the pool's disk.
    pub free: Option<Bytes>,
}

/// Whether the whole pool is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paused {
    /// It may, as far as the whole pool goes: a worker may be paused for itself.
    #[default]
    No,
    /// The pool is paused.
    Pool,
}

/// A lane with pending tasks.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its name, class and model, and how many of its tasks are pending.
    pub count: LaneCount,
    /// What its tasks need; `None` where its file cannot be read.
    pub needs: Option<Arc<Requirements>>,
    /// A limit that lets no more of its tasks run now.
    pub limited: Option<String>,
    /// How many of its tasks the limits let run at once.
    pub most: Option<u32>,
}

/// A task that somebody has claimed, or a request of the brain that nobody has taken yet.
#[derive(Clone, Debug)]
pub struct Held {
    /// Who has claimed it; for a request that nobody has taken, who is asked.
    pub worker: Name,
    /// Task and attempt, by the file's name.
    pub name: TaskName,
    /// What is needed of the task itself; `None` if it could not be read when it was first seen.
    pub task: Option<Arc<About>>,
}

/// What is to be seen of an attempt from outside its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signs {
    /// It does something for as long as this changes.
    Seen {
        /// Bytes in its log.
        output: u64,
        /// Processor time of its processes; `None` where it has none: it is a request, or has
        /// ended.
        cpu_ticks: Option<u64>,
    },
    /// A signal has stopped it.
    Stopped,
    /// It cannot be seen, for this reason.
    Unseen(String),
}

/// What is needed of a task that runs.
#[derive(Clone, Debug)]
pub struct About {
    /// As the submitter named it, or what stands for a name.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// How long it may make no progress, where it says so itself.
    pub stall_timeout: Option<Duration>,
    /// How much of its log is kept, where it says so itself.
    pub log_cap: Option<LogCap>,
    /// The model that it asks, loads or unloads.
    pub model: Option<String>,
    /// What it does with that model, where it is a request of the brain.
    pub verb: Option<ModelVerb>,
    /// The work that such a request is for.
    pub goal: Option<String>,
}

/// One worker, by its lease file, its heartbeat and its process.
#[derive(Clone, Debug)]
pub struct Worker {
    /// By its lease alone: a worker whose heartbeat stands still is alive.
    pub life: Life,
    /// What its lease file says.
    pub record: Option<Arc<Record>>,
    /// The last heartbeat under its name, perhaps a predecessor's; `None` if it cannot be read.
    pub heartbeat: Option<Arc<Heartbeat>>,
    /// What its process does, in the kernel's letter.
    pub process: Option<char>,
}

/// Whether a worker lives, as its lease says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// A process holds its lease.
    Alive,
    /// It died, and what it left is not settled yet.
    Unsettled,
    /// It said goodbye, or all it left is settled.
    Over,
    /// There is no lease file.
    NoLease,
}

impl Worker {
    /// The GPU it has.
    #[must_use]
    pub fn gpu(&self) -> Option<u32> {
        let recorded = self.record.as_ref().and_then(|record| record.gpu);
        recorded.or_else(|| self.heartbeat.as_ref().and_then(|heartbeat| heartbeat.ability.gpu))
    }

    /// The heartbeat of the process that holds the lease now; not one that a predecessor left.
    #[must_use]
    pub fn own_heartbeat(&self) -> Option<&Heartbeat> {
        let heartbeat = self.heartbeat.as_deref()?;
        match &self.record {
            Some(record) if record.life != heartbeat.life => None,
            Some(_) | None => Some(heartbeat),
        }
    }

    /// Whether a signal has stopped it.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.process, Some('T' | 't'))
    }

    /// Whether its GPU is out of use: it lives, and takes nothing.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        let own = self.own_heartbeat().map(|heartbeat| &heartbeat.ability.gpu_state.fitness);
        matches!(own, Some(Fitness::Quarantined(_)))
    }

    /// Whether a process holds its lease, however quiet it is.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }
}

impl Snapshot {
    /// The workers that live.
    pub fn alive(&self) -> impl Iterator<Item = (&Name, &Worker)> {
        self.workers.iter().filter(|(_name, worker)| worker.is_alive())
    }

    /// The names of those that live.
    #[must_use]
    pub fn alive_names(&self) -> BTreeSet<Name> {
        self.alive().map(|(name, _worker)| name.clone()).collect()
    }

    /// What a living worker says about an attempt that it has claimed.
    #[must_use]
    pub fn run_of(&self, held: &Held) -> Option<&Run> {
        self.workers.get(&held.worker)?.own_heartbeat()?.runs(held.name)
    }
}
