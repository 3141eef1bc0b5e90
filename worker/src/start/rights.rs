//! Coming to life: the lease, the GPU's lock, and the affairs of whoever had them before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use queue::cli::Failure;
use queue::dir::Pool;
use queue::dir::disk::lock::{self, Lock};
use queue::dir::disk::publish;
use queue::dir::layout::Layout;
use queue::dir::ledger::search;
use queue::dir::presence::lease::{self, Lease};
use queue::dir::recover::settle::{Settled, Settler};
use queue::wire::fate::{Fate, Kept};
use queue::wire::lease_record::{Process, Record, Role};
use queue::wire::ledger_line::Writer;
use serde::{Deserialize, Serialize};
use shared::event::Event;
use shared::name::Name;
use shared::outcome::Next;
use shared::time::Moment;
use shared::{emit, exit};

/// How long a starting worker waits for its lease, or its GPU.
const WAIT: Duration = Duration::from_secs(10);

/// What the lock of a GPU says about its holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GpuHolder {
    pool: PathBuf,
    worker: Name,
    pid: u32,
    since: Moment,
}

/// A worker's right to its name and to its GPU, with nothing left over from before.
#[derive(Debug)]
pub struct Rights {
    /// The lease of its name: its predecessor's affairs are settled.
    pub lease: Lease,
    /// The lock of its GPU (see [`gpu_lock_file`]); `None` where it has none.
    pub gpu: Option<Lock>,
}

/// What is needed to come to life.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    /// Who settles, and where.
    pub settler: Settler<'a>,
    /// The worker's name.
    pub name: &'a Name,
    /// Closed, or sent to, when a signal says to stop.
    pub signals: &'a Receiver<i32>,
}

impl Beginning<'_> {
    /// Takes the lease and the GPU, waiting a little for both, and settles what predecessors left.
    pub fn rights(&self, gpu: Option<&Path>) -> Result<Rights, Failure> {
        let pool = self.settler.pool;
        let lease = self.lease(self.name)?;
        self.settle(&lease)?;
        let gpu = match gpu {
            Some(path) => Some(self.gpu(pool, path)?),
            None => None,
        };
        Ok(Rights { lease, gpu })
    }

    fn lease(&self, name: &Name) -> Result<Lease, Failure> {
        let pool = self.settler.pool;
        if let Some(lease) = Lease::try_take(pool, name)? {
            return Ok(lease);
        }
        let record = lease::read(pool.layout(), name)?;
        let holder = record.as_ref().map_or_else(|| "somebody".to_owned(), describe);
        let (pool, name) = (pool.clone(), name.clone());
        let worker = name.clone();
        self.wait_for(&worker, &holder, move || Lease::wait(&pool, &name))
    }

    fn gpu(&self, pool: &Pool, path: &Path) -> Result<Lock, Failure> {
        let lock = match Lock::try_take(path)? {
            Some(lock) => lock,
            None => {
                let holder = lock::read_record::<GpuHolder>(path)?;
                let holder = holder.map_or_else(
                    || "somebody".to_owned(),
                    |h| format!("{} (pid {}) of pool {}", h.worker, h.pid, h.pool.display()),
                );
                let wanted = path.to_owned();
                self.wait_for(self.name, &format!("the GPU: {holder}"), move || {
                    Lock::wait(&wanted)
                })?
            }
        };
        // The GPU's last worker may have died with a job still on it, under another name.
        let before = lock.record::<GpuHolder>()?;
        if let Some(before) = before.filter(|b| b.pool == pool.root() && b.worker != *self.name) {
            let lease = self.lease(&before.worker)?;
            self.settle(&lease)?;
        }
        let (worker, since) = (self.name.clone(), Moment::now());
        let holder =
            GpuHolder { pool: pool.root().to_owned(), worker, pid: std::process::id(), since };
        lock.write_record(&holder)?;
        Ok(lock)
    }

    /// Blocks on a lock in a thread of its own, so that a signal or the time limit can end the
    /// wait. A thread that still waits then ends with the process.
    fn wait_for<T: Send + 'static>(
        &self,
        worker: &Name,
        holder: &str,
        take: impl FnOnce() -> Result<T, queue::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        emit!(Event::WorkerLockWait { worker: worker.clone(), holder: holder.to_owned() });
        let (send, taken) = bounded(1);
        let waiting = std::thread::Builder::new().name("lock".to_owned());
        waiting
            .spawn(move || send.send(take()))
            .map_err(|err| Failure::at_start("start a thread", &err))?;
        select! {
            recv(taken) -> lock => Ok(lock.expect("the thread sends before it ends")?),
            recv(self.signals) -> _signal => {
                Err(Failure::new(exit::TRY_LATER, "stopped while waiting for its lock"))
            }
            default(WAIT) => {
                let (worker, holder) = (worker.clone(), holder.to_owned());
                let text = format!("worker {worker} cannot start: its lock is held by {holder}");
                emit!(Event::WorkerLockHeld { worker, holder });
                Err(Failure::new(exit::TRY_LATER, text))
            }
        }
    }

    fn settle(&self, lease: &Lease) -> Result<(), Failure> {
        let begun = std::time::Instant::now();
        let settled = self.settler.settle(lease)?;
        say(self.settler.pool.layout(), lease.worker(), &settled, begun.elapsed());
        if settled.is_complete() {
            return Ok(());
        }
        let mut left: Vec<String> = settled
            .fates
            .iter()
            .filter_map(|(name, fate)| match fate {
                Ok(Fate::Kept(obstacle)) => Some(format!("{}: {obstacle}", name.id.short())),
                Ok(_settled) => None,
                Err(err) => Some(format!("{}: {err}", name.id.short())),
            })
            .collect();
        left.extend(settled.servers.err().map(|err| err.to_string()));
        let text = format!("{} left what cannot be settled: {}", lease.worker(), left.join("; "));
        Err(Failure::new(exit::TRY_LATER, text))
    }
}

fn describe(record: &Record) -> String {
    let Process { pid, host, .. } = &record.process;
    match &record.role {
        Role::Working => format!("a living {} (pid {pid} on {host})", record.worker),
        Role::Settling(by) => format!("{by}, which settles its affairs"),
        Role::Settled(_) | Role::Over => format!("pid {pid} on {host}"),
    }
}

/// Says what was settled. Nothing where there was nothing.
fn say(layout: &Layout, worker: &Name, settled: &Settled, took: Duration) {
    if settled.fates.is_empty() {
        return;
    }
    let tasks = settled.fates.len() as u64;
    let pid = settled.record.as_ref().map(|record| record.process.pid);
    let completed = settled.record.as_ref().and_then(|record| {
        let writer = Writer { name: worker.clone(), life: record.life.clone() };
        search::completed_by(layout, &writer).ok()
    });
    let name = worker.clone();
    emit!(Event::WorkerDied { worker: name, pid, completed, tasks, last_status: None });
    let (mut requeued, mut ended) = (0, 0);
    for (name, fate) in &settled.fates {
        match fate {
            Ok(Fate::PutBack { next, name, .. }) => {
                let (task, attempt, deaths) = (name.id, name.attempt, name.deaths);
                let worker = worker.clone();
                if *next == Next::Failed {
                    ended += 1;
                    emit!(Event::TaskPoison { task, attempt, worker, deaths });
                } else {
                    requeued += 1;
                    emit!(Event::TaskRequeued { task, attempt, worker, deaths });
                }
            }
            Ok(Fate::Finished(_) | Fate::Cancelled | Fate::Rejected(_)) => ended += 1,
            Ok(Fate::Kept(obstacle)) => {
                emit!(Kept::of(*name, obstacle.clone()).event(took.as_secs_f64(), 1));
            }
            Err(err) => {
                let doing = format!("settling {}", name.id.short());
                emit!(Event::ProcessFailed { doing, error: err.to_string() });
            }
        }
    }
    if settled.is_complete() {
        let (worker, seconds) = (worker.clone(), took.as_secs_f64());
        emit!(Event::WorkerSettled { worker, requeued, ended, seconds });
    }
}

/// Where a GPU's lock is: in the user's runtime directory where the hardware is known, so that two
/// pools of one user do not share a card unseen; else in the pool.
pub fn gpu_lock_file(pool: &Pool, gpu: u32, uuid: Option<&str>) -> Result<PathBuf, Failure> {
    let Some(uuid) = uuid else {
        return Ok(pool.layout().gpu_locks().join(format!("gpu-{gpu}.lock")));
    };
    let dir = runtime_dir().join("brainstem").join("gpus");
    publish::make_dirs(&dir)?;
    let safe: String =
        uuid.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    Ok(dir.join(format!("{safe}.lock")))
}

fn runtime_dir() -> PathBuf {
    let set =
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    set.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("brainstem-{}", rustix::process::getuid().as_raw()))
    })
}
