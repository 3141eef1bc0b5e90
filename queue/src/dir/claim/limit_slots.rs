//! Limits: at most n tasks of a key at once. A slot is a lock held for as long as the run lasts,
//! and freed by the kernel, whatever dies.

use std::path::PathBuf;

use shared::task::Task;
use shared::time::Moment;

use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::lock::{Holder, Lock};
use crate::wire::brake::{BrakeKey, Gate};
use crate::wire::lane::Requirements;

/// One slot of every limit that counts a task.
#[derive(Debug, Default)]
pub struct Slots {
    _held: Vec<Lock>,
}

/// A limit with no slot free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedUp {
    /// Which one, as `user=ann`.
    pub key: String,
    /// How many may run at once.
    pub limit: u32,
}

/// Takes a slot of each, or none at all.
pub fn take(pool: &Pool, keys: &[String]) -> Result<Result<Slots, UsedUp>, Error> {
    let mut slots = Slots::default();
    if keys.is_empty() {
        return Ok(Ok(slots));
    }
    let limits = pool.limits();
    for key in keys {
        // A limit that was taken out of pool.toml since the task was submitted counts no more.
        let allowed = match limits.get(key) {
            Some(&limit) => Some(limit),
            None => let_through(pool, key)?,
        };
        let Some(limit) = allowed else { continue };
        match take_one(pool, key, limit)? {
            Some(lock) => slots._held.push(lock),
            None => return Ok(Err(UsedUp { key: key.clone(), limit })),
        }
    }
    Ok(Ok(slots))
}

/// How many tasks a brake of this key lets through at once; `None` where it does not hold.
fn let_through(pool: &Pool, key: &str) -> Result<Option<u32>, Error> {
    let Some(key) = BrakeKey::of_limit(key) else { return Ok(None) };
    Ok(match pool.brakes().gate(&key, Moment::now())? {
        Gate::Open | Gate::Over => None,
        Gate::Probe => Some(1),
        Gate::Wait(_) => Some(0),
    })
}

fn take_one(pool: &Pool, key: &str, limit: u32) -> Result<Option<Lock>, Error> {
    for slot in 0..limit {
        let Some(lock) = Lock::try_take(&slot_file(pool, key, slot))? else { continue };
        // Runs that began before the limit was lowered hold slots above it, and count too. Two who
        // take the last one at once may both give it back: then the next look decides.
        let above = held_from(pool, key, limit)?;
        let fits = above == 0 || held_from(pool, key, 0)? <= limit;
        return Ok(fits.then_some(lock));
    }
    Ok(None)
}

/// How many slots of a limit are in use. Those above it are, too, after it was lowered.
pub fn in_use(pool: &Pool, key: &str) -> Result<u32, Error> {
    held_from(pool, key, 0)
}

/// How many slots from this one on are held. Slots are used from the first one on and their files
/// stay, so the first that was never there is the end.
fn held_from(pool: &Pool, key: &str, first: u32) -> Result<u32, Error> {
    let mut held = 0;
    for slot in first.. {
        match Lock::probe(&slot_file(pool, key, slot))? {
            Holder::Somebody => held += 1,
            Holder::Nobody => {}
            Holder::NoFile => break,
        }
    }
    Ok(held)
}

/// Whether a limit counts this task that its lane, made before there was that limit, does not
/// know of. Then the requirements that say so, for a lane in which it is counted.
///
/// Keys are only added: workers for which other limits hold (a variable) would otherwise move a
/// task to and fro for ever.
pub(in crate::dir) fn counted_anew(
    pool: &Pool,
    lane: &Requirements,
    task: &Task,
) -> Option<Requirements> {
    let limits = pool.limits();
    // What cannot be read now holds nothing.
    let brake = pool.brakes().holding(task).unwrap_or_default();
    if limits.is_empty() && brake.is_none() {
        return None;
    }
    let keys: Vec<String> = limits.keys().cloned().collect();
    let mut now = Requirements::of(task, &keys);
    now.limits.extend(brake.map(|brake| brake.key.as_str().to_owned()));
    if now.limits.iter().all(|key| lane.limits.contains(key)) {
        return None;
    }
    now.limits.extend(lane.limits.iter().cloned());
    now.limits.sort();
    now.limits.dedup();
    Some(now)
}

fn slot_file(pool: &Pool, key: &str, slot: u32) -> PathBuf {
    pool.layout().limit_slots(key).join(format!("{slot}.lock"))
}
