//! What became of a task whose worker died, and what keeps one where it is.

use serde::{Deserialize, Serialize};
use shared::event::Event;
use shared::id::TaskId;
use shared::outcome::Next;
use shared::reason::Code;
use shared::task::TaskName;

/// What became of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its end had been recorded; the rest of it was done now.
    Finished(Next),
    /// It was put back, or counted out, after its processes were ended.
    PutBack {
        /// Back to `pending/` or, after too many deaths, to `failed/`.
        next: Next,
        /// Its file's name there, in which this death is counted.
        name: TaskName,
        /// Processes that were ended.
        ended: Vec<u32>,
    },
    /// A person had asked to cancel it; so it is.
    Cancelled,
    /// It could not be understood; it is in `rejected/`.
    Rejected(String),
    /// It may still run; it stays where it is.
    Kept(Obstacle),
}

/// Why nobody may say that an attempt is over: another one could run beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Obstacle {
    /// Its processes do not end, even when killed.
    Unkillable {
        /// Their numbers.
        pids: Vec<u32>,
    },
    /// These may be its processes: nobody here may look into them, nor end them.
    Suspected {
        /// Who they are.
        processes: Vec<Suspect>,
    },
    /// Somebody can still write to its run log, and cannot be found from here.
    LogHeld,
    /// It ran on another machine, which may still be up.
    Elsewhere {
        /// By the name that it had there.
        host: String,
    },
    /// What would tell is not there.
    Unknown {
        /// What, and why.
        why: String,
    },
}

/// A process that may be of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its number.
    pub pid: u32,
    /// Its command line, shortened.
    pub command: String,
}

/// A task that stays with a dead worker, as that worker's lease says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The task.
    pub task: TaskId,
    /// The attempt that may still run.
    pub attempt: u32,
    /// Why it is not put back.
    pub obstacle: Obstacle,
}

impl Obstacle {
    /// As a reason for the task.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Unkillable { .. } => Code::JobUnkillable,
            Self::Suspected { .. }
            | Self::LogHeld
            | Self::Elsewhere { .. }
            | Self::Unknown { .. } => Code::JobMayRun,
        }
    }
}

impl Kept {
    /// An attempt that may still run.
    #[must_use]
    pub fn of(name: TaskName, obstacle: Obstacle) -> Self {
        Self { task: name.id, attempt: name.attempt, obstacle }
    }

    /// How it is said: for the `count`th time, after so many seconds.
    #[must_use]
    pub fn event(self, seconds: f64, count: u64) -> Event {
        let Self { task, attempt, obstacle } = self;
        match obstacle {
            Obstacle::Unkillable { pids } => {
                Event::JobUnkillable { task, attempt, pids, seconds, count }
            }
            Obstacle::Suspected { .. }
            | Obstacle::LogHeld
            | Obstacle::Elsewhere { .. }
            | Obstacle::Unknown { .. } => {
                Event::JobMayRun { task, attempt, why: obstacle.to_string(), count }
            }
        }
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unkillable { pids } => {
                write!(f, "its processes {} do not end, even when killed", list(pids))
            }
            Self::Suspected { processes } => {
                let each: Vec<_> =
                    processes.iter().map(|one| format!("{} ({})", one.pid, one.command)).collect();
                let each = list(&each);
                write!(f, "{each} may be its own, and may not be looked into or ended from here")
            }
            Self::LogHeld => {
                f.write_str("its run log is still locked by a process that cannot be found here")
            }
            Self::Elsewhere { host } => write!(f, "it may still run on {host}"),
            Self::Unknown { why } => f.write_str(why),
        }
    }
}

fn list<T: std::fmt::Display>(each: &[T]) -> String {
    each.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
