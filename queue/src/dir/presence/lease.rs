//! Leases: who is alive. A worker holds its lock file for its whole life; only the holder of that
//! lock moves or removes anything in `processing/<worker>/`.

use shared::name::Name;

use crate::dir::Pool;
use crate::dir::disk::listing;
use crate::dir::disk::lock::{self, Holder, Lock};
use crate::dir::disk::network::network_of;
use crate::dir::layout::Layout;
use crate::wire::lease_record::{Process, Record};
use crate::wire::reach::{Disk, Reach};
use crate::{Error, fence};

/// The process that asks.
#[must_use]
pub fn this_process() -> Process {
    let pid = std::process::id();
    let start = fence::process_identity(pid).map(|identity| identity.start_time);
    Process {
        pid,
        start,
        boot: boot_id(),
        host: host_name(),
        pid_namespace: fence::pid_namespace(),
        machine: machine_id(),
    }
}

/// What can be known here of what a dead process of this pool left.
#[must_use]
pub fn reach(pool: &Pool, process: &Process) -> Reach {
    let disk = match network_of(pool.root()) {
        Some(_kind) => Disk::Network,
        None => Disk::Local,
    };
    process.reach(&this_process(), disk)
}

/// Whether a process that wrote down who it is may be alive.
#[must_use]
pub fn may_live(pool: &Pool, process: &Process) -> bool {
    match reach(pool, process) {
        Reach::Processes => {
            let now = fence::process_identity(process.pid);
            now.is_some_and(|now| Some(now.start_time) == process.start)
        }
        Reach::Gone => false,
        Reach::Locks | Reach::Nothing => true,
    }
}

/// Which machine this is. Empty where nobody has said so.
fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}

/// This start of the machine. Empty where the kernel does not say.
#[must_use]
pub fn boot_id() -> String {
    fence::boot_id().unwrap_or_default()
}

/// This machine's name, as `uname -n` says it.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A held lease: as long as this lives, nobody else settles or is that worker.
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

    /// The worker that the lease is for: another one, where the holder settles its affairs.
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
