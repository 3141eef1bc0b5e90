//! Which run logs take most of the disk: for whoever has to make room.

use std::cmp::Reverse;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use shared::quantity::Bytes;

use super::super::layout::Layout;
use crate::Error;
use crate::error::{At as _, OrGone as _};

/// A file of a run, by what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeFile {
    /// Where it is.
    pub path: PathBuf,
    /// How much of it is on the disk: what was cut out of it is not.
    pub kept: Bytes,
}

/// The largest files of runs, the largest first. Looks at all of them.
pub fn largest(layout: &Layout, count: usize) -> Result<Vec<LargeFile>, Error> {
    let runs = layout.runs();
    let mut found: Vec<LargeFile> = Vec::new();
    for segment in fs::read_dir(&runs).at("list", &runs).or_gone()?.into_iter().flatten().flatten()
    {
        // Gone, or not a directory: nothing in it takes any room.
        for file in fs::read_dir(segment.path()).into_iter().flatten().flatten() {
            let Ok(meta) = file.metadata() else { continue };
            if meta.is_file() {
                found.push(LargeFile { path: file.path(), kept: Bytes(meta.blocks() * 512) });
            }
        }
        found.sort_by_key(|file| Reverse(file.kept));
        found.truncate(count);
    }
    Ok(found)
}
