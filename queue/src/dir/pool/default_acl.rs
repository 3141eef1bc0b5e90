//! The default ACL of a group's pool. Where a directory has one, the kernel does not look at the umask
//! when something is made in it, and hands the ACL on to new directories: so all that any program
//! makes in the pool has the mode that we ask for, and jobs are started as everywhere, with their
//! user's umask. Where the file system has none, `umask` sees to both.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::getxattr_query;

use crate::dir::disk::publish;
use crate::error::{At as _, OrGone as _};
use crate::{Error, umask};

/// From now on what this process makes in this group's pool is the group's. To be called before there
/// are other threads.
pub fn share(root: &Path) {
    if is_ensured(root) { umask::keep() } else { umask::open_to_group() }
}

/// Whether what is made in it gets its mode from a default ACL. Its owner gives it one where it has
/// none: a pool that was made before, or copied without.
fn is_ensured(root: &Path) -> bool {
    let is_there = getxattr_query(root, publish::DEFAULT_ACL).is_ok_and(|length| length > 0);
    let is_ours = || {
        let me = rustix::process::geteuid().as_raw();
        fs::metadata(root).is_ok_and(|meta| meta.uid() == me)
    };
    is_there || is_ours() && give(root).is_ok()
}

/// To all directories that are ours, the pool's own last, which says that it was done. Others' give
/// way to newer ones by and by. An error where the file system has none.
fn give(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).at("list", dir).or_gone()?.into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            give(&entry.path())?;
        }
    }
    match publish::share_with_group(dir) {
        Err(err) if err.io_kind() == Some(io::ErrorKind::PermissionDenied) => Ok(()),
        given => given.or_gone().map(|_given| ()),
    }
}
