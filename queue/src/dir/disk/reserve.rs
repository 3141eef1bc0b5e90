//! Room that really exists on the disk, given up when it is full, so that what must still be
//! written (ledger, heartbeats) can be.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use fs2::FileExt as _;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use shared::quantity::Bytes;
use shared::reason::{Code, Reason};

use super::publish;
use crate::Error;
use crate::dir::fault;
use crate::dir::layout::Layout;
use crate::error::At as _;

/// How much is free on the pool's file system for its user.
pub fn free_space(root: &Path) -> Result<Bytes, Error> {
    fs2::available_space(root).map(Bytes).at("ask for the free space of", root)
}

/// With less than this the disk counts as full: a heartbeat may not fit.
const FULL: Bytes = Bytes(1 << 20);

/// That too little is free to begin anything new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is free.
    pub free: Bytes,
    /// What would be enough.
    pub needed: Bytes,
}

/// Whether too little is free to begin anything new: nothing at all, or not more than what came of
/// the reserve, which is for the ledger and heartbeats. `None` where there is room.
pub(in crate::dir) fn shortage(
    layout: &Layout,
    disk_low: Bytes,
    size: Bytes,
) -> Result<Option<Shortage>, Error> {
    let free = free_space(layout.root())?;
    let with_reserve = Bytes(disk_low.0.saturating_add(size.0));
    let needed = match free >= with_reserve || is_there(layout)? {
        true => FULL,
        // What a reserve that was given up left free is no room for anything else.
        false => with_reserve.max(FULL),
    };
    Ok((free < needed).then_some(Shortage { free, needed }))
}

impl Shortage {
    /// The same as a reason.
    #[must_use]
    pub fn reason(self) -> Reason {
        let Self { free, needed } = self;
        let text = format!("the pool's disk is full ({free} left, {needed} needed)");
        Reason::new(Code::DiskFull, text).evidence("free", free.0).evidence("needed", needed.0)
    }
}

/// Refuses where less than `needed` is free.
pub fn require_room(layout: &Layout, needed: Bytes) -> Result<(), Error> {
    let free = free_space(layout.root())?;
    if free >= needed {
        return Ok(());
    }
    Err(Error::DiskFull { path: layout.root().to_owned(), free, needed })
}

/// Whether there is a reserve.
pub fn is_there(layout: &Layout) -> Result<bool, Error> {
    publish::is_there(&layout.reserve())
}

/// Makes the reserve where it is missing and there is room for it and as much again.
pub fn keep(layout: &Layout, size: Bytes) -> Result<(), Error> {
    let path = layout.reserve();
    if size.0 == 0 || is_there(layout)? {
        return Ok(());
    }
    if free_space(layout.root())?.0 < size.0.saturating_mul(2) {
        return Ok(());
    }
    fault::step("make reserve").at("make", &path)?;
    let mut options = OpenOptions::new();
    let file = match options.write(true).create_new(true).mode(0o660).open(&path) {
        Ok(file) => file,
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(err) => return Err(err).at("make", &path),
    };
    let allocated = match fallocate(&file, FallocateFlags::empty(), 0, size.0) {
        // Written out instead. Not asked for first: of what else is wrong it tells something else.
        Err(Errno::OPNOTSUPP) => file.allocate(size.0),
        allocated => allocated.map_err(std::io::Error::from),
    };
    if let Err(err) = allocated {
        // Half a reserve would be taken for a whole one later.
        publish::remove(&path)?;
        return Err(err).at("allocate", &path);
    }
    Ok(())
}

/// Gives the reserve up. `true` when there was one.
#[must_use]
pub fn give_up(layout: &Layout) -> bool {
    publish::remove(&layout.reserve()).unwrap_or(false)
}
