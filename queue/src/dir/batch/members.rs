//! Which tasks a batch has, in order. Listed in `batches/<batch>`, written before the batch is
//! committed, so that nobody has to read a million task files to find them.
//!
//! A batch that was submitted under a key lists beside each task what the submitter knows it by,
//! so that the same batch can be submitted again and only what is missing runs. Such a list holds
//! all that was ever submitted under the key, not only what was new.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use shared::id::{BatchId, TaskId};

use crate::Error;
use crate::dir::disk::plain_file;
use crate::dir::disk::publish::{self, Durability};
use crate::dir::layout::Layout;
use crate::error::At as _;

/// What the submitter of a batch knows one of its tasks by: a hash, so that a list of a million
/// stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineKey(u128);

impl LineKey {
    /// The key made of these parts, and of nothing else.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // With its length: `ab`, `c` is not `a`, `bc`.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        Self(digest.iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte)))
    }
}

impl fmt::Display for LineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for LineKey {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// One task of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The task.
    pub id: TaskId,
    /// What its submitter knows it by, in a batch that has a key.
    pub key: Option<LineKey>,
}

/// Writes down which tasks a batch has, in order. To be called before the batch is committed.
pub fn record(
    layout: &Layout,
    batch: BatchId,
    members: impl Iterator<Item = Member>,
) -> Result<(), Error> {
    publish::make_dirs_flushed(&layout.batches())?;
    let mut text = String::new();
    for member in members {
        text.push_str(&member.id.to_string());
        if let Some(key) = member.key {
            text.push(' ');
            text.push_str(&key.to_string());
        }
        text.push('\n');
    }
    publish::replace(&file(layout, batch), text.as_bytes(), Durability::Flushed)
}

/// The same for tasks that have no keys.
pub fn record_batch(layout: &Layout, batch: BatchId, ids: &[TaskId]) -> Result<(), Error> {
    record(layout, batch, ids.iter().map(|id| Member { id: *id, key: None }))
}

/// The tasks of a batch, in order. Empty where nothing is known of it.
pub fn of_batch(layout: &Layout, batch: BatchId) -> Result<Vec<Member>, Error> {
    let path = file(layout, batch);
    let mut text = String::new();
    if let Some((mut file, _meta)) = plain_file::open(&path)? {
        file.read_to_string(&mut text).at("read", &path)?;
    }
    let garbled = |problem: String| Error::Garbled { path: path.clone(), problem };
    let parse = |line: &str| {
        let (id, key) = line.split_once(' ').map_or((line, None), |(id, key)| (id, Some(key)));
        let id = id.parse().map_err(|err: shared::id::BadId| garbled(err.to_string()))?;
        let key = key.map(str::parse).transpose();
        let key = key.map_err(|_err: std::num::ParseIntError| {
            garbled(format!("`{}` is no list entry", line.escape_default()))
        })?;
        Ok(Member { id, key })
    };
    text.lines().map(parse).collect()
}

/// The ids of a batch's tasks, in order. Empty where nothing is known of it.
pub fn members(layout: &Layout, batch: BatchId) -> Result<Vec<TaskId>, Error> {
    Ok(of_batch(layout, batch)?.into_iter().map(|member| member.id).collect())
}

fn file(layout: &Layout, batch: BatchId) -> PathBuf {
    layout.batches().join(batch.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_as_it_was_written_with_keys_and_without() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let batch = BatchId::new();
        let list = [
            Member { id: TaskId::new(), key: None },
            Member { id: TaskId::new(), key: Some(LineKey::of(&[b"a"])) },
        ];
        record(&layout, batch, list.into_iter()).unwrap();
        assert_eq!(of_batch(&layout, batch).unwrap(), list);
        assert_eq!(members(&layout, batch).unwrap(), [list[0].id, list[1].id]);
        assert!(of_batch(&layout, BatchId::new()).unwrap().is_empty());
    }

    #[test]
    fn keys_tell_where_their_parts_begin() {
        assert_ne!(LineKey::of(&[b"ab", b"c"]), LineKey::of(&[b"a", b"bc"]));
        assert_eq!(LineKey::of(&[b"ab"]).to_string().parse(), Ok(LineKey::of(&[b"ab"])));
    }
}
