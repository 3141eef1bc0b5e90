//! Leases: who is alive. A worker holds its lock file for its whole life; only the holder of that
//! lock moves or removes anything in `processing/<worker>/`.

use serde::{Deserialize, Serialize};
use shared::id::Incarnation;
use shared::name::Name;
use shared::time::Moment;

use crate::dir::Pool;
use crate::dir::disk::listing;
use crate::dir::disk::lock::{self, Holder, Lock};
use crate::dir::layout::Layout;
use crate::wire::ledger_line::Writer;
use crate::{Error, fence};

/// What a lease file says about its holder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The worker whose lease it is.
    pub worker: Name,
    /// What the holder does.
    pub role: Role,
    /// The worker's process, also while somebody else settles its affairs: whose jobs they are.
    pub process: Process,
    /// The worker's life.
    pub life: Incarnation,
    /// The GPU the worker had, as an index.
    pub gpu: Option<u32>,
    /// Whose ledger files may speak of tasks that are still in `processing/<worker>/`.
    pub writers: Vec<Writer>,
    /// What the processes of the model server carry that the worker started itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Since when.
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
    /// On which machine.
    pub host: String,
}

impl Process {
    /// The one that asks.
    #[must_use]
    pub fn current() -> Self {
        let pid = std::process::id();
        let start = fence::process_identity(pid).map(|identity| identity.start_time);
        Self { pid, start, boot: boot_id(), host: host_name() }
    }
}

/// This start of the machine. Empty where the kernel does not say.
#[must_use]
pub fn boot_id() -> String {
    fence::boot_id().unwrap_or_default()
}

/// This machine's name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A held lease.
#[derive(Debug)]
pub struct Lease {
    lock: Lock,
    worker: Name,
}

impl Lease {
    /// Takes a worker's lease. `None` when somebody holds it.
    pub fn try_take(pool: &Pool, worker: &Name) -> Result<Option<Self>, Error> {
        let lock = Lock::try_take(&pool.layout().worker_lock(worker))?;
        Ok(lock.map(|lock| Self { lock, worker: worker.clone() }))
    }

    /// Waits for a worker's lease.
    pub fn wait(pool: &Pool, worker: &Name) -> Result<Self, Error> {
        let lock = Lock::wait(&pool.layout().worker_lock(worker))?;
        Ok(Self { lock, worker: worker.clone() })
    }

    /// Waits until the holder of a lease that is there lets go or dies. `None` when the file is
    /// gone.
    pub fn wait_existing(pool: &Pool, worker: &Name) -> Result<Option<Self>, Error> {
        let lock = Lock::wait_existing(&pool.layout().worker_lock(worker))?;
        Ok(lock.map(|lock| Self { lock, worker: worker.clone() }))
    }

    /// Whose it is.
    #[must_use]
    pub fn worker(&self) -> &Name {
        &self.worker
    }

    /// What the last holder wrote. `None` where that cannot be understood.
    pub fn record(&self) -> Result<Option<Record>, Error> {
        self.lock.record()
    }

    /// Says who holds it now.
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        self.lock.write_record(record)
    }

    /// Whether the file that is locked is still the one that others look at.
    pub fn is_intact(&self) -> Result<bool, Error> {
        self.lock.is_still_named()
    }
}

/// Whether a worker lives.
pub fn probe(layout: &Layout, worker: &Name) -> Result<Holder, Error> {
    Lock::probe(&layout.worker_lock(worker))
}

/// What a worker's lease file says, without taking it.
pub fn read(layout: &Layout, worker: &Name) -> Result<Option<Record>, Error> {
    lock::read_record(&layout.worker_lock(worker))
}

/// All workers that have a lease file, living or not.
pub fn workers(layout: &Layout) -> Result<Vec<Name>, Error> {
    let mut found = Vec::new();
    for entry in listing::entries(&layout.worker_locks())? {
        let name = entry.to_str().and_then(|text| text.strip_suffix(".lock"));
        found.extend(name.and_then(|name| name.parse().ok()));
    }
    found.sort();
    Ok(found)
}
