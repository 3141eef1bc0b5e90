//! Limits: at most n tasks of a key at once. A slot is a lock held for as long as the run lasts.
//!
//! The kernel frees the lock when the worker dies, and the job may live on. So a slot's file names
//! the claimed task before that is claimed, and is emptied when its job is over: a slot that nobody
//! holds is in use for as long as the task it names lies in `processing/`, that is until somebody
//! has made sure that its job is over.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shared::name::Name;
use shared::task::{Task, TaskName};
use shared::time::Moment;

use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::lock::{self, Holder, Lock};
use crate::dir::disk::publish;
use crate::wire::brake::{BrakeKey, Gate};
use crate::wire::lane::Requirements;

/// One slot of every limit that counts a task. Dropped without being freed they count for as long as
/// the task lies in `processing/`.
#[derive(Debug, Default)]
pub struct Slots {
    held: Vec<Lock>,
}

impl Slots {
    /// Nothing of the task's job is left, or it was not claimed.
    pub(super) fn free(&mut self) {
        for lock in self.held.drain(..) {
            // What cannot be emptied counts until the task's end is carried out.
            let _counts_on = lock.empty();
        }
    }
}

/// For which claim a slot is used, as its file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotUse {
    /// The worker that claims it.
    pub worker: Name,
    /// The task's file in `processing/<worker>/`.
    pub file: String,
}

impl SlotUse {
    /// Of a task that a worker is about to claim.
    #[must_use]
    pub fn of(worker: &Name, name: TaskName) -> Self {
        Self { worker: worker.clone(), file: name.file_name() }
    }

    /// The task that was claimed, where the file's name is that of one.
    #[must_use]
    pub fn task(&self) -> Option<TaskName> {
        TaskName::from_file_name(&self.file).ok()
    }

    /// Whether the task is still where its job may run.
    fn lasts(&self, pool: &Pool) -> Result<bool, Error> {
        // What is no task's name is nobody's.
        let Some(name) = self.task() else { return Ok(false) };
        publish::is_there(&pool.layout().processing_of(&self.worker).join(name.file_name()))
    }
}

/// A limit with no slot free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedUp {
    /// Which one, as `user=ann`.
    pub key: String,
    /// How many may run at once.
    pub limit: u32,
}

/// Takes a slot of each for a task that is claimed next, or none at all.
pub fn take(pool: &Pool, keys: &[String], by: &SlotUse) -> Result<Result<Slots, UsedUp>, Error> {
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
            Some(lock) => slots.held.push(lock),
            None => return Ok(Err(UsedUp { key: key.clone(), limit })),
        }
    }
    for lock in &slots.held {
        lock.write_record(by)?;
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
        if is_used(pool, lock.record()?.as_ref())? {
            continue;
        }
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

/// For which claims the slots of a limit are in use, as far as their files say.
pub fn holders(pool: &Pool, key: &str) -> Result<Vec<SlotUse>, Error> {
    let mut holders = Vec::new();
    for slot in 0.. {
        let path = slot_file(pool, key, slot);
        if Lock::probe(&path)? == Holder::NoFile {
            break;
        }
        let by = lock::read_record::<SlotUse>(&path)?;
        if is_used(pool, by.as_ref())? {
            holders.extend(by);
        }
    }
    Ok(holders)
}

/// Whether a slot that nobody holds is in use: its worker is dead, and its job perhaps not.
fn is_used(pool: &Pool, by: Option<&SlotUse>) -> Result<bool, Error> {
    by.map_or(Ok(false), |by| by.lasts(pool))
}

/// How many slots from this one on are held. Slots are used from the first one on and their files
/// stay, so the first that was never there is the end.
fn held_from(pool: &Pool, key: &str, first: u32) -> Result<u32, Error> {
    let mut held = 0;
    for slot in first.. {
        let path = slot_file(pool, key, slot);
        match Lock::probe(&path)? {
            Holder::Somebody => held += 1,
            Holder::Nobody => held += u32::from(is_used(pool, lock::read_record(&path)?.as_ref())?),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shared::id::TaskId;

    use super::*;
    use crate::dir::fixture::{claim, cursor, name, scratch, submit};
    use crate::dir::pool::Privacy;
    use crate::dir::pool::Rules;

    const TASK: &str = r#"{"shell": "true", "user": "ann"}"#;

    fn pool_with(limit: u32) -> (tempfile::TempDir, Pool) {
        let home = scratch();
        let limits = BTreeMap::from([("user=ann".to_owned(), limit)]);
        let rules = Rules { limits, ..Rules::default() };
        let pool = Pool::create(&home.path().join("pool"), rules, Privacy::Owner).unwrap();
        (home, pool)
    }

    fn used(pool: &Pool) -> u32 {
        in_use(pool, "user=ann").unwrap()
    }

    fn some_use() -> SlotUse {
        SlotUse::of(&name("other"), TaskName::first(TaskId::new()))
    }

    fn take_another(pool: &Pool) -> Result<Slots, UsedUp> {
        take(pool, &["user=ann".to_owned()], &some_use()).unwrap()
    }

    #[test]
    fn a_slot_is_used_until_the_job_is_over_also_when_its_worker_is_dead() {
        let (_home, pool) = pool_with(1);
        submit(&pool, TASK);
        let claimed = claim(&mut cursor(&pool, "worker-1")).unwrap();
        let file = pool.layout().processing_of(claimed.worker()).join(claimed.name().file_name());
        assert_eq!(used(&pool), 1);
        drop(claimed);
        assert_eq!(used(&pool), 1, "its job may live");
        assert!(take_another(&pool).is_err());
        std::fs::remove_file(file).unwrap();
        assert_eq!(used(&pool), 0);
        drop(take_another(&pool).unwrap());
        assert_eq!(used(&pool), 0, "it was not claimed");
    }

    #[test]
    fn it_is_free_when_the_job_is_over_and_its_end_is_not_carried_out_yet() {
        let (_home, pool) = pool_with(1);
        submit(&pool, TASK);
        let mut claimed = claim(&mut cursor(&pool, "worker-1")).unwrap();
        claimed.free_slots();
        assert_eq!(used(&pool), 0);
        let mut next = take_another(&pool).unwrap();
        assert_eq!(used(&pool), 1);
        next.free();
        assert_eq!(used(&pool), 0);
    }

    #[test]
    fn the_dead_above_a_limit_that_was_lowered_count_too() {
        let (home, pool) = pool_with(2);
        let dead: Vec<_> = (0..2)
            .map(|_| {
                submit(&pool, TASK);
                drop(claim(&mut cursor(&pool, "worker-1")).unwrap());
            })
            .collect();
        assert_eq!(used(&pool), dead.len() as u32);
        let limits = BTreeMap::from([("user=ann".to_owned(), 1)]);
        let lowered = Rules { limits, ..Rules::default() };
        let pool = Pool::create(&home.path().join("pool"), lowered, Privacy::Owner).unwrap();
        assert!(take_another(&pool).is_err());
    }

    #[test]
    fn a_file_that_says_nothing_that_can_be_understood_is_no_use() {
        let (_home, pool) = pool_with(1);
        let path = slot_file(&pool, "user=ann", 0);
        drop(Lock::try_take(&path).unwrap().unwrap());
        for text in ["", "{", r#"{"worker": "worker-1", "file": "../../pool.toml"}"#] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(used(&pool), 0, "{text}");
            drop(take_another(&pool).unwrap());
        }
    }
}
