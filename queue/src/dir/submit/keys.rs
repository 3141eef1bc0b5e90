//! Idempotency keys: the same `--key` submitted again finds the first task.
//!
//! A key's file says first which task is about to be submitted under it, then that it was. Only
//! one process at a time submits under keys. So after a crash between the two, the next one looks
//! whether that task is in the pool.
//!
//! A key may stand for a whole batch. Submitted again, such a batch becomes a new one that knows
//! also the tasks of the old one; until the new one is there, the key means the old one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::id::{BatchId, TaskId};

use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::lock::Lock;
use crate::dir::disk::plain_file;
use crate::dir::disk::publish::{self, Durability};
use crate::dir::find::places;
use crate::dir::layout::Layout;
use crate::dir::ledger::search::{TaskHistory, history_of};

/// What a key's file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    key: String,
    id: TaskId,
    stage: Stage,
    /// The batch that the task is the first new one of, where the key stands for a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<BatchId>,
    /// The batch that the key stood for before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<BatchId>,
}

impl Entry {
    fn new(key: &str, id: TaskId, stage: Stage) -> Self {
        Self { key: key.to_owned(), id, stage, batch: None, before: None }
    }

    fn of_batch(self, batch: BatchId, before: Option<BatchId>) -> Self {
        Self { batch: Some(batch), before, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    Intended,
    Submitted,
}

/// The right to submit under keys.
#[derive(Debug)]
pub struct Keys {
    pool: Pool,
    _lock: Lock,
}

impl Keys {
    /// Waits for the right.
    pub fn wait(pool: &Pool) -> Result<Self, Error> {
        let lock = Lock::wait(&pool.layout().keys_lock())?;
        Ok(Self { pool: pool.clone(), _lock: lock })
    }

    /// The task that was submitted under a key.
    pub fn find(&self, key: &str) -> Result<Option<TaskId>, Error> {
        let layout = self.pool.layout();
        let Some(entry) = read(layout, key)? else { return Ok(None) };
        is_there(layout, &entry).map(|there| there.then_some(entry.id))
    }

    /// The batch that was last submitted under a key.
    pub fn find_batch(&self, key: &str) -> Result<Option<BatchId>, Error> {
        batch_of(self.pool.layout(), key)
    }

    /// Says which task is about to be submitted under a key.
    pub fn intend(&self, key: &str, id: TaskId) -> Result<(), Error> {
        self.write(&Entry::new(key, id, Stage::Intended), Durability::Flushed)
    }

    /// Says that it was. If this is lost, [`Keys::find`] looks for the task itself; but it must not
    /// be there in half, for then nobody would know for which task to look.
    pub fn submitted(&self, key: &str, id: TaskId) -> Result<(), Error> {
        self.write(&Entry::new(key, id, Stage::Submitted), Durability::Whole)
    }

    /// Says which batch is about to be submitted under a key, by the first task that is new in it.
    pub fn intend_batch(&self, key: &str, batch: BatchId, first: TaskId) -> Result<(), Error> {
        let before = self.find_batch(key)?;
        self.write(
            &Entry::new(key, first, Stage::Intended).of_batch(batch, before),
            Durability::Flushed,
        )
    }

    /// Says that it was.
    pub fn submitted_batch(&self, key: &str, batch: BatchId, first: TaskId) -> Result<(), Error> {
        self.write(
            &Entry::new(key, first, Stage::Submitted).of_batch(batch, None),
            Durability::Whole,
        )
    }

    fn write(&self, entry: &Entry, how: Durability) -> Result<(), Error> {
        let text = serde_json::to_vec(entry).expect("an entry has only string keys");
        publish::replace(&path(self.pool.layout(), &entry.key), &text, how)
    }
}

/// The batch that a key stands for: for looking only, as another process may be submitting.
pub fn batch_of(layout: &Layout, key: &str) -> Result<Option<BatchId>, Error> {
    let Some(entry) = read(layout, key)? else { return Ok(None) };
    if entry.batch.is_none() {
        return Ok(None);
    }
    Ok(if is_there(layout, &entry)? { entry.batch } else { entry.before })
}

fn read(layout: &Layout, key: &str) -> Result<Option<Entry>, Error> {
    let path = path(layout, key);
    let Some(text) = plain_file::read(&path)? else { return Ok(None) };
    // Nobody of ours leaves such a file behind, whatever dies: it says nothing.
    Ok(serde_json::from_slice::<Entry>(&text).ok())
}

fn is_there(layout: &Layout, entry: &Entry) -> Result<bool, Error> {
    Ok(match entry.stage {
        Stage::Submitted => true,
        Stage::Intended => {
            places::find(layout, entry.id)?.is_some()
                || history_of(layout, entry.id)? != TaskHistory::default()
        }
    })
}

fn path(layout: &Layout, key: &str) -> PathBuf {
    let hash = Sha256::digest(key.as_bytes());
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    layout.keys().join(hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::{Privacy, Rules};

    #[test]
    fn until_a_batch_is_there_its_key_means_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::create(&dir.path().join("p"), Rules::default(), Privacy::Owner).unwrap();
        let keys = Keys::wait(&pool).unwrap();
        let (first, second) = (BatchId::new(), BatchId::new());
        keys.intend_batch("night", first, TaskId::new()).unwrap();
        assert_eq!(keys.find_batch("night").unwrap(), None, "it was never committed");
        keys.submitted_batch("night", first, TaskId::new()).unwrap();
        assert_eq!(keys.find_batch("night").unwrap(), Some(first));
        keys.intend_batch("night", second, TaskId::new()).unwrap();
        assert_eq!(batch_of(pool.layout(), "night").unwrap(), Some(first));
        keys.submitted_batch("night", second, TaskId::new()).unwrap();
        assert_eq!(batch_of(pool.layout(), "night").unwrap(), Some(second));
        keys.submitted("one", TaskId::new()).unwrap();
        assert_eq!(keys.find_batch("one").unwrap(), None, "it stands for one task");
    }
}
