//! Who dies: a thread per worker waits for that worker's lease. The kernel hands it over within
//! moments of the death, however the worker died, and with no timer to tune. The thread settles
//! what was left, holding the lease, so that the loop never waits for a job that will not end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use queue::dir::disk::freshness::Version;
use queue::dir::disk::listing;
use queue::dir::disk::lock::Holder;
use queue::dir::ledger::append::Ledger;
use queue::dir::ledger::search;
use queue::dir::presence::heartbeats;
use queue::dir::presence::lease::{self, Lease};
use queue::dir::recover::settle::{Patience, Settled, Settler, may_go_on};
use queue::error::At as _;
use queue::wire::fate::Kept;
use queue::wire::lease_record::Record;
use queue::wire::ledger_line::Writer;
use queue::{Error, Pool};
use shared::name::Name;

use crate::core::words::death::{Death, Left, Settlement};
use crate::core::words::snapshot::Life;
use crate::message::{Message, Report};

/// What could not be settled is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// Meanwhile a look at what was in the way, as often.
const GLANCE: Duration = Duration::from_millis(200);
/// A worker that is gone is looked at again after so many looks, whatever its file says.
const RECHECK: u64 = 10;
/// Tasks claimed by a worker that has no lease file are settled after so many looks.
const ORPHANED: u32 = 5;

enum State {
    /// A thread waits for the lease of this file.
    Armed(Version),
    /// A thread settles; no file: it was removed by hand.
    Settling(Option<Version>),
    /// Nothing to do as long as the file stays as it is.
    Over(Version),
}

/// What every thread needs.
#[derive(Clone)]
struct Means {
    pool: Pool,
    ledger: Arc<Ledger>,
    patience: Patience,
    tell: Sender<Message>,
    /// Closed when the brain ends.
    end: Receiver<()>,
}

/// A thread for each worker, and which state of which lease file it was made for.
pub(crate) struct Watchers {
    means: Means,
    workers: BTreeMap<Name, State>,
    /// Workers without a lease file that seem to hold tasks, and how often that was seen.
    orphaned: BTreeMap<Name, u32>,
    looks: u64,
}

impl Watchers {
    /// Nobody is watched yet.
    pub(crate) fn new(
        pool: &Pool,
        ledger: &Arc<Ledger>,
        patience: Patience,
        tell: Sender<Message>,
        end: Receiver<()>,
    ) -> Self {
        let means = Means { pool: pool.clone(), ledger: ledger.clone(), patience, tell, end };
        Self { means, workers: BTreeMap::new(), orphaned: BTreeMap::new(), looks: 0 }
    }

    /// Watches whoever is not watched yet. Says of each worker with a lease file how it stands.
    pub(crate) fn look(&mut self) -> Result<BTreeMap<Name, Life>, Error> {
        self.looks += 1;
        let mut lives = BTreeMap::new();
        for name in lease::workers(self.means.pool.layout())? {
            if let Some(life) = self.look_at(&name)? {
                lives.insert(name, life);
            }
        }
        self.workers.retain(|name, state| match state {
            State::Armed(_) | State::Settling(_) => true,
            State::Over(_) => lives.contains_key(name),
        });
        self.look_for_orphans(&mut lives)?;
        Ok(lives)
    }

    fn look_at(&mut self, name: &Name) -> Result<Option<Life>, Error> {
        let Some(now) = self.means.version(name)? else { return Ok(None) };
        match self.workers.get(name) {
            Some(State::Armed(file)) if file.is_same_file(&now) => return Ok(Some(Life::Alive)),
            Some(State::Settling(Some(file))) if file.is_same_file(&now) => {
                return Ok(Some(Life::Unsettled));
            }
            Some(State::Over(known)) => {
                let recheck = self.looks.is_multiple_of(RECHECK);
                if *known == now && !recheck && self.means.tasks(name)? == 0 {
                    return Ok(Some(Life::Over));
                }
            }
            // Another file has taken the name.
            Some(State::Armed(_) | State::Settling(_)) | None => {}
        }
        let life = match lease::probe(self.means.pool.layout(), name)? {
            Holder::Somebody => Life::Alive,
            Holder::NoFile => return Ok(None),
            Holder::Nobody => {
                let record = lease::read(self.means.pool.layout(), name)?;
                let left = is_open(record.as_ref(), self.means.tasks(name)?);
                if left { Life::Unsettled } else { Life::Over }
            }
        };
        match life {
            Life::Alive => self.arm(name, State::Armed(now), Take::Existing)?,
            Life::Unsettled => self.arm(name, State::Settling(Some(now)), Take::Existing)?,
            Life::Over | Life::NoLease => {
                self.workers.insert(name.clone(), State::Over(now));
            }
        }
        Ok(Some(life))
    }

    /// Claimed tasks whose worker has no lease file: it was removed by hand. As long as the
    /// process that sent the last heartbeat may live, that is a warning and not a death.
    fn look_for_orphans(&mut self, lives: &mut BTreeMap<Name, Life>) -> Result<(), Error> {
        let holders = listing::holders(self.means.pool.layout())?;
        self.orphaned.retain(|name, _count| holders.contains(name) && !lives.contains_key(name));
        for name in holders {
            let watched = lives.contains_key(&name) || self.workers.contains_key(&name);
            if watched || self.means.tasks(&name)? == 0 || self.means.may_live(&name)? {
                continue;
            }
            lives.insert(name.clone(), Life::Unsettled);
            let count = self.orphaned.entry(name.clone()).or_default();
            *count += 1;
            if *count >= ORPHANED {
                self.arm(&name, State::Settling(None), Take::New)?;
            }
        }
        Ok(())
    }

    fn arm(&mut self, name: &Name, state: State, take: Take) -> Result<(), Error> {
        let (means, worker) = (self.means.clone(), name.clone());
        let thread = std::thread::Builder::new().name(format!("watch-{name}"));
        let path = means.pool.layout().worker_lock(name);
        thread.spawn(move || means.watch(&worker, take)).at("start a thread for", &path)?;
        self.workers.insert(name.clone(), state);
        Ok(())
    }

    /// Takes note of what a thread said.
    pub(crate) fn note(&mut self, report: &Report) {
        match report {
            Report::Died(death) => {
                if let Some(state) = self.workers.get_mut(&death.worker)
                    && let State::Armed(file) = state
                {
                    *state = State::Settling(Some(*file));
                }
            }
            Report::Settled(_) => {}
            Report::Over(name, Some(version)) => {
                self.workers.insert(name.clone(), State::Over(*version));
            }
            Report::Over(name, None) => drop(self.workers.remove(name)),
        }
    }

    /// Whether affairs are being settled now.
    pub(crate) fn is_settling(&self) -> bool {
        self.workers.values().any(|state| matches!(state, State::Settling(_)))
    }
}

#[derive(Clone, Copy, Debug)]
enum Take {
    /// Wait for the lease of a file that is there.
    Existing,
    /// There is no file: make it.
    New,
}

/// How a pause between two tries ended.
#[derive(PartialEq, Eq)]
enum Pause {
    /// It is time.
    Over,
    /// The brain ends.
    Ended,
}

/// Whether there is something to settle.
fn is_open(record: Option<&Record>, tasks: u64) -> bool {
    let over = record.is_none_or(|record| record.role.is_over());
    tasks > 0 || !over
}

impl Means {
    /// Which state of which file the lease file is.
    fn version(&self, name: &Name) -> Result<Option<Version>, Error> {
        Version::of(&self.pool.layout().worker_lock(name))
    }

    fn tasks(&self, name: &Name) -> Result<u64, Error> {
        let names = listing::tasks_in(&self.pool.layout().processing_of(name))?;
        Ok(names.tasks.len() as u64)
    }

    /// Whether the process that sent a worker's last heartbeat may be alive.
    fn may_live(&self, name: &Name) -> Result<bool, Error> {
        let Ok(Some(heartbeat)) = heartbeats::read(&self.pool, name) else { return Ok(false) };
        Ok(lease::may_live(&self.pool, &heartbeat.process))
    }

    fn watch(&self, worker: &Name, take: Take) {
        let taken = match take {
            Take::Existing => Lease::wait_existing(&self.pool, worker),
            Take::New => Lease::try_take(&self.pool, worker),
        };
        let version = match taken {
            Ok(Some(lease)) => self.settle(worker, lease),
            Ok(None) => None,
            Err(err) => {
                self.report(Report::Settled(failed(worker, err, 0.0)));
                None
            }
        };
        self.report(Report::Over(worker.clone(), version));
    }

    /// Settles until nothing is left, or somebody else has the lease. Between two tries it is let
    /// go: the worker itself may come back where it can do more, and goes on. When all is done the
    /// lease is let go after the file was looked at.
    fn settle(&self, worker: &Name, mut lease: Lease) -> Option<Version> {
        let since = Instant::now();
        let record = lease.record().unwrap_or_default();
        let tasks = self.tasks(worker).unwrap_or_default();
        if !is_open(record.as_ref(), tasks) {
            return self.version(worker).unwrap_or_default();
        }
        // What could not be put back was told by whoever tried.
        if record.as_ref().is_none_or(|record| record.kept.is_empty()) {
            self.report(Report::Died(self.death(worker, record.as_ref(), tasks)));
        }
        let (pool, ledger) = (&self.pool, &*self.ledger);
        let settler = Settler::new(pool, ledger, self.patience);
        loop {
            let settled = settler.settle(&lease);
            let seconds = since.elapsed().as_secs_f64();
            let kept = settled.as_ref().map(Settled::kept).unwrap_or_default();
            let settlement = match settled {
                Ok(settled) => {
                    let left = if settled.is_complete() { Left::Nothing } else { Left::Something };
                    let (fates, servers) = (Ok(settled.fates), settled.servers);
                    Settlement { worker: worker.clone(), fates, servers, left, seconds }
                }
                Err(err) => failed(worker, err, seconds),
            };
            let left = settlement.left;
            self.report(Report::Settled(settlement));
            if left == Left::Nothing {
                return self.version(worker).unwrap_or_default();
            }
            drop(lease);
            if self.pause(&kept) == Pause::Ended {
                return None;
            }
            lease = Lease::try_take(pool, worker).ok().flatten()?;
            let record = lease.record().unwrap_or_default();
            if !is_open(record.as_ref(), self.tasks(worker).unwrap_or_default()) {
                return self.version(worker).unwrap_or_default();
            }
        }
    }

    /// Until it is time to try again: sooner where what was in the way has gone.
    fn pause(&self, kept: &[Kept]) -> Pause {
        let begun = Instant::now();
        while begun.elapsed() < AGAIN && !kept.iter().any(|kept| may_go_on(&self.pool, kept)) {
            match self.end.recv_timeout(GLANCE) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Pause::Ended,
            }
        }
        Pause::Over
    }

    fn death(&self, worker: &Name, record: Option<&Record>, tasks: u64) -> Death {
        let last = heartbeats::read(&self.pool, worker).unwrap_or_default();
        // One of another life is not about this one.
        let last = last.filter(|last| record.is_some_and(|record| record.life == last.life));
        let last_status = last.map(|last| format!("last status: {}, at {}", last.status, last.at));
        let pid = record.map(|record| record.process.pid);
        let life = record.map(|record| record.life.clone());
        let completed = life.and_then(|life| {
            let writer = Writer { name: worker.clone(), life };
            search::completed_by(self.pool.layout(), &writer).ok()
        });
        Death { worker: worker.clone(), pid, tasks, last_status, completed }
    }

    fn report(&self, report: Report) {
        // Nobody listens any more: the brain has ended.
        let _ = self.tell.send(Message::Watch(report));
    }
}

fn failed(worker: &Name, err: Error, seconds: f64) -> Settlement {
    let (fates, left) = (Err(err), Left::Something);
    Settlement { worker: worker.clone(), fates, servers: Ok(0), left, seconds }
}

#[cfg(test)]
mod tests;
