//! Making a pool: which directories may become one, and what is made in which order.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::default_acl;
use super::marker::{self, Marked};
use crate::Error;
use crate::dir::disk::owner::Privacy;
use crate::dir::disk::publish;
use crate::dir::layout::{Layout, Shelf};
use crate::error::{At as _, OrGone as _};

/// What a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A pool, perhaps one whose maker died before all of its places were there.
    Pool(Marked),
    /// Nothing that is in the way: a pool can be made.
    Nothing,
    /// It holds other things, as the one of this name.
    Other(String),
}

/// Looks what is at the pool's root.
pub(super) fn look(layout: &Layout) -> Result<Found, Error> {
    if marker::read(layout)? == Marked::Yes {
        return Ok(Found::Pool(Marked::Yes));
    }
    if is_format_0(layout)? {
        return Ok(Found::Pool(Marked::No));
    }
    let Some(name) = other(layout.root())? else { return Ok(Found::Nothing) };
    // Somebody else may have made the pool between the two looks.
    match marker::read(layout)? {
        Marked::Yes => Ok(Found::Pool(Marked::Yes)),
        Marked::No => Ok(Found::Other(name)),
    }
}

/// Pools had no marker once. Of their places these were always there before a program went on.
fn is_format_0(layout: &Layout) -> Result<bool, Error> {
    for place in [layout.pending(), layout.lanes(), layout.locks()] {
        if !publish::is_there(&place)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The name of something in `root` that does not belong where a pool is to be made.
fn other(root: &Path) -> Result<Option<String>, Error> {
    let found = fs::read_dir(root).at("list", root).or_gone()?;
    let names = found.into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names = names.map(|name| name.to_string_lossy().into_owned());
    Ok(names.find(|name| {
        let may_stay = ["pool.toml", "lost+found"].contains(&name.as_str());
        !may_stay && !marker::is_half_written(name)
    }))
}

/// Makes the directory and its marker; its places come after that. Died in between, it is a pool
/// whose places the next one makes; died before the marker, it is an empty directory.
pub(super) fn make_root(layout: &Layout, privacy: Privacy) -> Result<(), Error> {
    let root = layout.root();
    publish::make_dirs(root)?;
    // Whoever may write there need not own it, where somebody else has prepared it.
    let meta = fs::metadata(root).at("look at", root)?;
    if meta.mode() & 0o7777 != privacy.mode() {
        let mode = fs::Permissions::from_mode(privacy.mode());
        fs::set_permissions(root, mode).at("set the permissions of", root)?;
    }
    match privacy {
        Privacy::Owner => {}
        Privacy::Group => default_acl::share(root),
    }
    spread(root);
    marker::write(layout)
}

/// Asks the file system to lay the pool's places far from each other, as it does with what lies in
/// its own root. Without a journal ext4 does not use a deleted file's inode again for minutes and
/// passes over each of them when it makes a file nearby: beside thousands of ended tasks it takes
/// longer to make a run's log than to run the job. A hint only: others know no such flag.
fn spread(root: &Path) {
    let set = || {
        let dir = fs::File::open(root)?;
        let flags = ioctl_getflags(&dir)?;
        ioctl_setflags(&dir, flags | IFlags::TOPDIR)?;
        std::io::Result::Ok(())
    };
    let _not_known_here = set();
}

/// Every place of a pool, the one that says that all are there last.
fn places(layout: &Layout) -> Vec<PathBuf> {
    let mut places = vec![
        layout.incoming(),
        layout.publishing(),
        layout.lanes(),
        layout.processing(),
        layout.delayed(),
        layout.ending(),
        layout.rejected(),
        layout.keys(),
        layout.ledger(),
        layout.runs(),
        layout.worker_locks(),
        layout.limit_locks(),
        layout.gpu_locks(),
        layout.workers(),
        layout.control(),
        layout.doorbells(),
        layout.logs(),
        layout.brain(),
    ];
    places.extend(Shelf::ALL.map(|shelf| layout.shelf(shelf)));
    places.push(layout.pending());
    places
}

/// Makes the places that are missing.
pub(super) fn make_places(layout: &Layout) -> Result<(), Error> {
    let mut new = false;
    for place in places(layout) {
        new |= publish::make_dirs(&place)?.is_some();
    }
    if new {
        publish::flush_up_to(layout.root(), &layout.worker_locks().join("x"))?;
        publish::flush_parent(layout.root())?;
    }
    Ok(())
}
