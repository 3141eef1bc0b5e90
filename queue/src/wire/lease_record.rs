//! What a lease file says about its holder.

use serde::{Deserialize, Serialize};
use shared::id::Incarnation;
use shared::name::Name;
use shared::time::Moment;

use super::fate::Kept;
use super::ledger_line::Writer;
use super::uptime::Uptime;

/// What a lease file says about its holder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The worker whose lease it is.
    pub worker: Name,
    /// What the holder does.
    pub role: Role,
    /// The worker's process, also while somebody else settles its affairs: whose jobs they are.
    pub process: Process,
    /// The worker's life: a heartbeat of another life is not about this one.
    pub life: Incarnation,
    /// The GPU the worker had, as an index.
    pub gpu: Option<u32>,
    /// Whose ledger files may speak of tasks that are still in `processing/<worker>/`.
    pub writers: Vec<Writer>,
    /// What the processes of the model server carry that the worker started itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When a signal told the worker to stop: its death after that counts for no task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Moment>,
    /// No later than this the worker was dead: when somebody first found its lease free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_since: Option<Uptime>,
    /// What could not be put back, and why, when somebody last tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Kept>,
    /// Since when `role` is what it is.
    pub since: Moment,
}

impl Record {
    /// A worker in its life, which began at that moment; without a GPU, a server, or writers.
    #[must_use]
    pub fn of(worker: Name, process: Process, life: Incarnation, since: Moment) -> Self {
        Self {
            worker,
            role: Role::Working,
            process,
            life,
            gpu: None,
            writers: Vec::new(),
            server: None,
            stopping: None,
            dead_since: None,
            kept: Vec::new(),
            since,
        }
    }
}

/// What the holder of a lease does with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "by")]
pub enum Role {
    /// It is the worker.
    Working,
    /// It settles a dead worker's affairs: its name and process. Where nobody holds the lock, it
    /// could not finish and tries again: [`Record::kept`] says what is in the way.
    Settling(String),
    /// The worker died, and its affairs were settled, by whom: there is nothing left to do.
    Settled(String),
    /// The worker said goodbye: there is nothing left to do.
    Over,
}

impl Role {
    /// Whether there is nothing left to do.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Settled(_) | Self::Over => true,
            Self::Working | Self::Settling(_) => false,
        }
    }
}

/// A process, told from another with the same number. By default one of which nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub start: Option<u64>,
    /// On which start of the machine.
    pub boot: String,
    /// The name of its machine, for people: several may have the same, and one may have several.
    pub host: String,
    /// Whose numbers `pid` is one of: the PID namespace, by its inode. `None` where the kernel does
    /// not say, and in what older programs wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<u64>,
    /// Which machine, by `/etc/machine-id`; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
}
