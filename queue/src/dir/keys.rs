//! Idempotency keys: the same `--key` submitted again finds the first task.
//!
//! A key's file says first which task is about to be submitted under it, then that it was. Only
//! one process at a time submits under keys. So after a crash between the two, the next one looks
//! whether that task is in the pool.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::id::TaskId;

use super::lock::Lock;
use super::publish::{self, Durability};
use super::{Pool, history, places, plain};
use crate::Error;

/// What a key's file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    key: String,
    id: TaskId,
    stage: Stage,
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
        let path = self.path(key);
        let Some(text) = plain::read(&path)? else { return Ok(None) };
        // Nobody of ours leaves such a file behind, whatever dies: it says nothing.
        let Ok(entry) = serde_json::from_slice::<Entry>(&text) else { return Ok(None) };
        match entry.stage {
            Stage::Submitted => Ok(Some(entry.id)),
            Stage::Intended => self.was_submitted(entry.id).map(|was| was.then_some(entry.id)),
        }
    }

    fn was_submitted(&self, id: TaskId) -> Result<bool, Error> {
        let layout = self.pool.layout();
        Ok(places::find(layout, id)?.is_some() || !history::lines_of(layout, id)?.is_empty())
    }

    /// Says which task is about to be submitted under a key.
    pub fn intend(&self, key: &str, id: TaskId) -> Result<(), Error> {
        self.write(key, id, Stage::Intended, Durability::Flushed)
    }

    /// Says that it was. If this is lost, [`Keys::find`] looks for the task itself; but it must not
    /// be there in half, for then nobody would know for which task to look.
    pub fn submitted(&self, key: &str, id: TaskId) -> Result<(), Error> {
        self.write(key, id, Stage::Submitted, Durability::Whole)
    }

    fn write(&self, key: &str, id: TaskId, stage: Stage, how: Durability) -> Result<(), Error> {
        let entry = Entry { key: key.to_owned(), id, stage };
        let text = serde_json::to_vec(&entry).expect("an entry has only string keys");
        publish::replace(&self.path(key), &text, how)
    }

    fn path(&self, key: &str) -> PathBuf {
        let hash = Sha256::digest(key.as_bytes());
        let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.pool.layout().keys().join(hex)
    }
}
