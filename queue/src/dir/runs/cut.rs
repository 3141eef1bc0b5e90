//! A run log longer than its cap loses its middle: the first tenth of the cap stays, and the rest of
//! it is for the end. The file's length and all offsets stay what they are, so who writes to it (at
//! its end, always) and who follows it go on as if nothing had happened.
//!
//! Anybody may cut, at any time, any number of times, also two at once: what is to go follows from
//! the length alone. One system call makes the hole, so there is nothing to be half done.

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use shared::log_cap::LogCap;
use shared::quantity::Bytes;

use super::super::Pool;
use super::super::disk::publish;
use crate::Error;
use crate::error::{At as _, OrGone as _};

/// What became of a log that may be too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is not, or it has no cap, or it is not there.
    Whole,
    /// So much of its middle is gone.
    Shortened {
        /// How much.
        missing: Bytes,
    },
    /// It is, and this file system cannot give back a part of a file.
    Refused {
        /// How long it is.
        bytes: Bytes,
    },
}

/// How much of a log is kept here: as its task says, or else as the pool's rules do, though never
/// more than a tenth of its disk.
pub fn cap(pool: &Pool, own: Option<LogCap>) -> Result<LogCap, Error> {
    match (own, pool.rules().log_cap) {
        (Some(own), _) => Ok(own),
        (None, LogCap::None) => Ok(LogCap::None),
        (None, rule @ LogCap::At(_)) => {
            let size = fs2::total_space(pool.root()).at("ask for the size of", pool.root())?;
            Ok(rule.on_disk(Bytes(size)))
        }
    }
}

/// Cuts a run's log where it is longer than its cap.
pub fn cut(path: &Path, cap: LogCap) -> Result<Cut, Error> {
    let LogCap::At(cap) = cap else { return Ok(Cut::Whole) };
    let Some(meta) = fs::symlink_metadata(path).at("look at", path).or_gone()? else {
        return Ok(Cut::Whole);
    };
    let Some(hole) = excess(meta.len(), cap, meta.blksize()).filter(|_| meta.is_file()) else {
        return Ok(Cut::Whole);
    };
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path);
    let Some(file) = file.at("open", path).or_gone()? else { return Ok(Cut::Whole) };
    let missing = Bytes(hole.end - hole.start);
    Ok(match publish::punch(&file, path, hole)? {
        true => Cut::Shortened { missing },
        false => Cut::Refused { bytes: Bytes(meta.len()) },
    })
}

/// What of a log of this length is to go. Whole blocks only: of others nothing is given back, and
/// what was printed there would read as zeros. Pure.
pub(super) fn excess(size: u64, cap: Bytes, block: u64) -> Option<Range<u64>> {
    let (block, head) = (block.max(1), cap.0 / 10);
    let start = head.next_multiple_of(block);
    let end = size.saturating_sub(cap.0 - head) / block * block;
    (start < end).then_some(start..end)
}
