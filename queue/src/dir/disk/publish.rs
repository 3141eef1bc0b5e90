//! The few ways in which anything in the pool changes. Every change to the disk is made here, so
//! that every one of them can be a place where a test pulls the plug.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, FallocateFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::Error;
use crate::dir::fault::{self, Did};
use crate::error::{At as _, OrGone as _};

/// What became of a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It was done.
    Yes,
    /// The source is not there (any more): somebody else was first.
    SourceGone,
    /// The target is there already; nothing was done.
    TargetThere,
}

/// Makes a file that must not exist yet, with this content; flushed to the disk.
pub(crate) fn create_flushed(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let file = create(path, bytes)?;
    flush(&file, path)
}

/// Flushes a file that was just written.
fn flush(file: &File, path: &Path) -> Result<(), Error> {
    fault::step("flush").at("flush", path)?;
    file.sync_all().at("flush", path)?;
    fault::did(Did::FlushedFile(path));
    Ok(())
}

/// Makes a file that must not exist yet, with this content. Somebody else flushes it.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<File, Error> {
    fault::step("create").at("create", path)?;
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o660).open(path).at("create", path)?;
    fault::did(Did::Made(path));
    let written = fault::step("write").and_then(|()| file.write_all(bytes)).at("write", path);
    if written.is_err() {
        // On a full disk this happens again and again: what is half there would pile up.
        let _ = fs::remove_file(path);
        fault::did(Did::Removed(path));
    }
    written?;
    fault::did(Did::Appended(path, bytes));
    Ok(file)
}

/// How much a replaced file matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It must survive a power cut.
    Flushed,
    /// After a power cut the old content is there or the new: what is there matters, and which of
    /// the two does not.
    Whole,
    /// It is rewritten soon anyway; readers only must never see half of it, but after a power cut.
    Atomic,
}

/// Puts `bytes` at `path` so that readers see the old content or the new, never half.
pub(crate) fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), Error> {
    let aside = aside(path);
    let file = create(&aside, bytes)?;
    let moved = (|| {
        match durability {
            Durability::Flushed | Durability::Whole => flush(&file, &aside)?,
            Durability::Atomic => {}
        }
        rename_over(&aside, path)
    })();
    if moved.is_err() {
        // The error that matters is the first; a leftover has a name that nobody reads.
        let _ = remove(&aside);
    }
    moved?;
    match durability {
        Durability::Flushed => flush_parent(path),
        Durability::Whole | Durability::Atomic => Ok(()),
    }
}

/// A name beside `path` that no other writer uses, that starts with a dot so that nobody reads it.
fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", shared::id::Incarnation::new()))
}

fn rename_over(from: &Path, to: &Path) -> Result<(), Error> {
    fault::step("rename").at("move", from)?;
    #[expect(clippy::disallowed_methods, reason = "this is that one place")]
    fs::rename(from, to).at("move into place", to)?;
    fault::did(Did::Moved(from, to));
    Ok(())
}

/// Whether a directory had to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetDirectory {
    /// It was there. Whoever made it has perhaps not flushed its name yet.
    Found,
    /// It was made, and this is the topmost one of its ancestors that was made with it, or itself.
    /// The names of all of them are on the disk.
    Made(PathBuf),
}

/// Renames without ever replacing. Makes the target's directory where it is missing, and flushes
/// its name first: a task that is moved into a directory which a power cut takes away is lost.
pub(crate) fn move_new(from: &Path, to: &Path) -> Result<Moved, Error> {
    move_into(from, to).map(|(moved, _made)| moved)
}

/// The same, and says whether the target's directory was made.
pub(crate) fn move_into(from: &Path, to: &Path) -> Result<(Moved, TargetDirectory), Error> {
    let mut made = TargetDirectory::Found;
    loop {
        fault::step("rename").at("move", from)?;
        let moved = match rename_noreplace(from, to) {
            Ok(()) => {
                fault::did(Did::Moved(from, to));
                Moved::Yes
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                if is_there(to)? {
                    // Over NFS a repeated request reports that the first one succeeded.
                    Moved::Yes
                } else if is_there(from)? {
                    // The target's directory was removed while it was empty, as anyone may.
                    if let Some(topmost) = make_dirs_flushed(parent(to))? {
                        made = TargetDirectory::Made(topmost);
                    }
                    continue;
                } else {
                    Moved::SourceGone
                }
            }
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Moved::TargetThere
            }
            // Somebody's file is where one of the target's directories belongs.
            Err(err) if err.kind() == io::ErrorKind::NotADirectory => {
                return Err(err).at("move into place", to);
            }
            Err(err) => return Err(err).at("move", from),
        };
        return Ok((moved, made));
    }
}

fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system without the flag (NFS): look first. Names in the pool are unique by
        // construction, so the gap between look and move is never the only guard.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            rustix::fs::rename(from, to).map_err(io::Error::from)
        }
        Err(err) => Err(err.into()),
    }
}

/// Whether there is anything of this name.
pub(crate) fn is_there(path: &Path) -> Result<bool, Error> {
    fault::look("look at");
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err).at("look at", path),
    }
}

/// Removes a file. `false` when it was gone already.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    fault::step("remove").at("remove", path)?;
    match fs::remove_file(path) {
        Ok(()) => {
            fault::did(Did::Removed(path));
            Ok(true)
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err).at("remove", path),
    }
}

/// Gives a part of a file back to the disk: it reads as zeros from then on, and all that follows
/// stays where it is. `false` where the file system cannot do that.
pub(crate) fn punch(file: &File, path: &Path, hole: Range<u64>) -> Result<bool, Error> {
    fault::step("punch").at("shorten", path)?;
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, how, hole.start, hole.end - hole.start) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(err) => Err(err).at("shorten", path),
    }
}

/// Removes a directory if it is empty; fails safely where it is not. Returns whether it is gone.
pub(crate) fn remove_empty_dir(path: &Path) -> bool {
    let removed = fault::step("remove directory").and_then(|()| fs::remove_dir(path));
    if removed.is_ok() {
        fault::did(Did::Removed(path));
    }
    removed.map_or_else(|err| err.kind() == io::ErrorKind::NotFound, |()| true)
}

/// Removes a directory and all that is in it.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    fault::step("remove tree").at("remove", path)?;
    fs::remove_dir_all(path).at("remove", path)?;
    fault::did(Did::RemovedTree(path));
    Ok(())
}

/// The attribute with a directory's default ACL: see acl(5).
pub(in crate::dir) const DEFAULT_ACL: &str = "system.posix_acl_default";

/// Owner and group may do everything, others nothing. Version 2 (`linux/posix_acl_xattr.h`), then
/// tag, rights, and an id that these have not.
const OWNER_AND_GROUP: &[u8; 28] = b"\x02\0\0\0\
    \x01\0\x07\0\xff\xff\xff\xff\
    \x04\0\x07\0\xff\xff\xff\xff\
    \x20\0\0\0\xff\xff\xff\xff";

/// Gives a directory a default ACL: what is made in it has the mode that is asked for, whatever the
/// umask, for the group too.
pub(in crate::dir) fn share_with_group(dir: &Path) -> Result<(), Error> {
    fault::step("set default ACL").at("set the default ACL of", dir)?;
    rustix::fs::setxattr(dir, DEFAULT_ACL, OWNER_AND_GROUP, XattrFlags::empty())
        .at("set the default ACL of", dir)
}

/// Makes a directory and its missing ancestors. Returns the topmost one whose entry is new.
pub fn make_dirs(path: &Path) -> Result<Option<PathBuf>, Error> {
    // A parent that was just made may have been removed again, empty as it was: then once more.
    // But not for ever: in some places (`/proc`) nothing that was made is ever there.
    let mut topmost = None;
    for _try in 0..16 {
        fault::step("make directory").at("make directory", path)?;
        match fs::DirBuilder::new().mode(0o770).create(path) {
            Ok(()) => {
                fault::did(Did::MadeDir(path));
                return Ok(topmost.or_else(|| Some(path.to_owned())));
            }
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Ok(topmost),
            Err(err) if err.kind() == io::ErrorKind::NotFound && parent(path) != path => {
                topmost = make_dirs(parent(path))?.or(topmost);
            }
            Err(err) => return Err(err).at("make directory", path),
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound)).at("make directory", path)
}

/// The same, and the names of all that were made are on the disk when it returns. To be used for
/// every directory into which something is moved that must not be lost.
pub fn make_dirs_flushed(path: &Path) -> Result<Option<PathBuf>, Error> {
    let mut topmost: Option<PathBuf> = None;
    for _try in 0..16 {
        let higher = |a: &PathBuf, b: &PathBuf| a.as_os_str().len().cmp(&b.as_os_str().len());
        topmost = topmost.into_iter().chain(make_dirs(path)?).min_by(higher);
        let Some(top) = &topmost else { return Ok(None) };
        let mut made = path.ancestors().take_while(|dir| dir.starts_with(top));
        // Gone: one of them was removed again, empty as it was.
        if made.try_for_each(flush_parent).or_gone()?.is_some() {
            return Ok(topmost);
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound)).at("make directory", path)
}

/// Which directory has a name: an emptied one may have been removed and made again since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryIdentity {
    file: (u64, u64),
    made: Option<SystemTime>,
}

/// Flushes a directory, and with it the names in it. Says which directory that was.
pub(crate) fn flush_and_identify(path: &Path) -> Result<DirectoryIdentity, Error> {
    let dir = open_and_flush(path)?;
    let meta = dir.metadata().at("look at", path)?;
    Ok(DirectoryIdentity { file: (meta.dev(), meta.ino()), made: meta.created().ok() })
}

/// Flushes a directory, and with it the names in it.
pub(crate) fn flush_dir(path: &Path) -> Result<(), Error> {
    open_and_flush(path).map(drop)
}

fn open_and_flush(path: &Path) -> Result<File, Error> {
    fault::step("flush directory").at("flush directory", path)?;
    let dir = File::open(path).at("flush directory", path)?;
    dir.sync_all().at("flush directory", path)?;
    fault::did(Did::FlushedDir(path));
    Ok(dir)
}

/// Flushes the directory that holds `path`.
pub(crate) fn flush_parent(path: &Path) -> Result<(), Error> {
    flush_dir(parent(path))
}

/// Flushes the directory that holds `path` and all above it up to, not including, `root`'s parent.
pub(crate) fn flush_up_to(root: &Path, path: &Path) -> Result<(), Error> {
    path.ancestors().skip(1).take_while(|dir| dir.starts_with(root)).try_for_each(flush_dir)
}

/// Flushes the whole file system on which `path` is: one call for a thousand files.
pub(crate) fn flush_file_system(path: &Path) -> Result<(), Error> {
    fault::step("flush file system").at("flush the file system of", path)?;
    let dir = File::open(path).at("open", path)?;
    rustix::fs::syncfs(&dir).at("flush the file system of", path)?;
    fault::did(Did::FlushedAll);
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
