//! Brakes on the disk: a file for each, there from the first failure to the next success. Who records
//! an end changes it, who claims looks at it.
//!
//! | died after | what happens |
//! |---|---|
//! | the ledger line, before the failure is counted | one failure is not counted |
//! | writing the file aside | a name that nobody reads |
//! | the rename | it counts, or holds: whoever looks next sees it, and says it |
//! | moving a task to the lane with the brake's key | it is claimed there, when the brake lets it |
//! | taking the slot of a probe | the kernel frees it: another one may try |
//! | claiming the probe, before it is noted | the worker's death puts it back; another one may try |
//! | noting the probe | the same, after the pause |
//! | removing the file | tasks in the lane with its key are claimed as any others |
//!
//! The lock saves counts and protects nothing: a brake that is lost is made again by the next eight
//! failures. So nobody waits for long for one who holds it and is stopped, nothing is flushed, and
//! what a power cut left of a file that cannot be read is no brake.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::task::{self, Task};
use shared::time::Moment;

use crate::Error;
use crate::dir::disk::freshness::Freshness;
use crate::dir::disk::lock::Lock;
use crate::dir::disk::publish::{self, Durability};
use crate::dir::disk::{listing, plain_file};
use crate::dir::layout::Layout;
use crate::wire::brake::{Brake, BrakeKey, Counted, FailedAtOnce, Gate, LONGEST_HOLD};

/// Brakes that others made are noticed so soon: to look before each claim would cost each one.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// So long one waits for another one who changes a brake.
const PATIENCE: Duration = Duration::from_millis(100);
/// Above so many brakes the forgotten ones are cleared away: of batches that never ended well.
const MANY: usize = 64;
/// A brake is forgotten so long after its first failure.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);

/// All brakes of a pool.
pub type All = BTreeMap<BrakeKey, Brake>;

/// The brakes of an opened pool.
#[derive(Debug)]
pub struct Brakes {
    layout: Layout,
    setting: task::BrakeUse,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    freshness: Freshness,
    all: Arc<All>,
}

/// What a claimed task is to the brake that counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrakeTurn {
    /// No brake holds it.
    Free,
    /// It is the one that is tried; if it fails it stays away for so long.
    Probe(Duration),
    /// It was held for too long, and ends.
    Over,
}

impl Brakes {
    pub(super) fn new(layout: &Layout, setting: task::BrakeUse) -> Self {
        Self { layout: layout.clone(), setting, known: Mutex::default() }
    }

    /// Those that count and hold, as of a moment ago: none where the pool uses none. What cannot be
    /// read is left out.
    pub fn all(&self) -> Result<Arc<All>, Error> {
        match self.setting {
            task::BrakeUse::Off => Ok(Arc::default()),
            task::BrakeUse::On => self.on_disk(),
        }
    }

    /// Those whose files are there, whether the pool uses them or not.
    fn on_disk(&self) -> Result<Arc<All>, Error> {
        let mut known = self.known();
        if known.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(known.all.clone());
        }
        let now = known.freshness.look(&self.layout.brakes())?;
        if !now.is_current() {
            known.all = if now.is_absent() { Arc::default() } else { self.read_all()?.into() };
        }
        (known.freshness, known.looked) = (now, Some(Instant::now()));
        Ok(known.all.clone())
    }

    /// The brake that holds a task, as of a moment ago.
    pub fn holding(&self, task: &Task) -> Result<Option<Brake>, Error> {
        let all = self.all()?;
        if all.is_empty() {
            return Ok(None);
        }
        let brake = BrakeKey::of(task).and_then(|key| all.get(&key).cloned());
        Ok(brake.filter(|brake| brake.held.is_some()))
    }

    /// Whether a brake lets a task that it counts be claimed now. Looks at the file.
    pub fn gate(&self, key: &BrakeKey, now: Moment) -> Result<Gate, Error> {
        if self.setting == task::BrakeUse::Off {
            return Ok(Gate::Open);
        }
        Ok(self.read(key)?.map_or(Gate::Open, |brake| brake.gate(now)))
    }

    /// Whether tasks that a brake of this key counts are held. Looks at the file.
    pub fn holds(&self, key: &BrakeKey) -> Result<bool, Error> {
        Ok(self.gate(key, Moment::now())? != Gate::Open)
    }

    /// Takes note of a task that was claimed from a lane with these limits, whose slots are held.
    pub(super) fn begin(&self, limits: &[String], task: &Task) -> Result<BrakeTurn, Error> {
        let Some(key) = limits.iter().find_map(|key| BrakeKey::of_limit(key)) else {
            return Ok(BrakeTurn::Free);
        };
        let now = Moment::now();
        match self.gate(&key, now)? {
            Gate::Open => return Ok(BrakeTurn::Free),
            Gate::Over if now.seconds_since(task.submitted_at) >= LONGEST_HOLD.as_secs_f64() => {
                return Ok(BrakeTurn::Over);
            }
            // It was not there when the others were held: with it all begins anew.
            Gate::Over => {
                let is_over = |brake: &Brake| brake.gate(now) == Gate::Over;
                return self.remove_if(&key, is_over).map(|_brake| BrakeTurn::Free);
            }
            Gate::Probe | Gate::Wait(_) => {}
        }
        let _lock = self.lock()?;
        // It may have been taken off while this waited for the lock.
        let brake = self.read(&key)?.filter(|brake| brake.held.is_some());
        let Some(mut brake) = brake else { return Ok(BrakeTurn::Free) };
        let pause = brake.begin_probe(now);
        self.write(&brake)?;
        Ok(BrakeTurn::Probe(pause))
    }

    /// Counts an attempt that failed at once; with what came of it the brake as it is now.
    pub fn count(&self, failure: FailedAtOnce) -> Result<(Counted, Brake), Error> {
        let _lock = self.lock()?;
        let (counted, brake) = match self.read(&failure.key)? {
            Some(mut brake) => (brake.count(failure), brake),
            None => {
                self.clear_forgotten(failure.at)?;
                (Counted::First, Brake::new(failure))
            }
        };
        if counted != Counted::Already {
            self.write(&brake)?;
        }
        Ok((counted, brake))
    }

    /// A task that the brake counts has succeeded, or a person lets all go on. Returns the brake if
    /// there was one that held.
    pub fn end(&self, key: &BrakeKey) -> Result<Option<Brake>, Error> {
        // Also where the pool uses none: what is left of one is cleared away.
        if !self.on_disk()?.contains_key(key) {
            return Ok(None);
        }
        let brake = self.remove_if(key, |_brake| true)?;
        Ok(brake.filter(|brake| brake.held.is_some()))
    }

    /// What failed in another way, or after a while, is no row any more.
    pub fn interrupt(&self, key: &BrakeKey) -> Result<(), Error> {
        let counts = |brake: &Brake| brake.held.is_none();
        if self.all()?.get(key).is_some_and(counts) {
            self.remove_if(key, counts)?;
        }
        Ok(())
    }

    /// Removes a brake that is still as it was seen to be; returns it.
    fn remove_if(
        &self,
        key: &BrakeKey,
        is_as_seen: impl Fn(&Brake) -> bool,
    ) -> Result<Option<Brake>, Error> {
        let _lock = self.lock()?;
        let brake = self.read(key)?.filter(is_as_seen);
        if brake.is_some() {
            publish::remove(&self.path(key))?;
            self.known().looked = None;
        }
        Ok(brake)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where somebody keeps it for too long.
    fn lock(&self) -> Result<Option<Lock>, Error> {
        let (path, begun) = (self.layout.brakes_lock(), Instant::now());
        loop {
            let lock = Lock::try_take(&path)?;
            if lock.is_some() || begun.elapsed() > PATIENCE {
                return Ok(lock);
            }
            std::thread::yield_now();
        }
    }

    fn path(&self, key: &BrakeKey) -> std::path::PathBuf {
        self.layout.brake(key)
    }

    fn read(&self, key: &BrakeKey) -> Result<Option<Brake>, Error> {
        read(&self.path(key))
    }

    fn write(&self, brake: &Brake) -> Result<(), Error> {
        let bytes = serde_json::to_vec(brake).expect("a brake has only string keys");
        publish::make_dirs(&self.layout.brakes())?;
        publish::replace(&self.path(&brake.key), &bytes, Durability::Atomic)?;
        self.known().looked = None;
        Ok(())
    }

    fn read_all(&self) -> Result<All, Error> {
        let mut all = All::new();
        for name in listing::entries(&self.layout.brakes())? {
            // What is being written has a name with a dot in front.
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if let Some(brake) = read(&self.layout.brakes().join(name))? {
                all.insert(brake.key.clone(), brake);
            }
        }
        Ok(all)
    }

    fn clear_forgotten(&self, now: Moment) -> Result<(), Error> {
        let all = self.on_disk()?;
        let old = |brake: &&Brake| now.seconds_since(brake.since) > FORGOTTEN.as_secs_f64();
        for brake in all.values().filter(|_brake| all.len() > MANY).filter(old) {
            publish::remove(&self.path(&brake.key))?;
        }
        Ok(())
    }
}

/// `None` also where it is nothing that can be understood, or that nobody here may read: a brake
/// that is lost is made again, and one file stops no claim.
fn read(path: &std::path::Path) -> Result<Option<Brake>, Error> {
    let text = match plain_file::read(path) {
        Err(Error::Garbled { .. }) => None,
        Err(Error::Io { err, .. }) if listing::is_of_one_place(&err) => None,
        text => text?,
    };
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}
