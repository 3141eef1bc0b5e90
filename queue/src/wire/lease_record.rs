//! What a lease file says about its holder.

use serde::{Deserialize, Serialize};
use shared::id::Incarnation;
use shared::name::Name;
use shared::time::Moment;

use super::ledger_line::Writer;

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
    /// Since when `role` is what it is.
    pub since: Moment,
}

/// What the holder of a lease does with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "by")]
pub enum Role {
    /// It is the worker.
    Working,
    /// It settles a dead worker's affairs: its name and process.
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

/// A process, told from another with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub start: Option<u64>,
    /// On which start of the machine.
    pub boot: String,
    /// The name of its machine; from another one the process cannot be seen.
    pub host: String,
}
