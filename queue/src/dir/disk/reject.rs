//! Reading a task file that anybody may have put there, and putting aside what is none.
//!
//! Nothing is thrown away and nothing is overwritten: a file that cannot be understood goes to
//! `rejected/` with a reason beside it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use shared::id::TaskId;
use shared::task::{MAX_TASK_BYTES, Task};

use super::publish::{self, Durability, Moved};
use crate::Error;
use crate::dir::fault;
use crate::dir::layout::Layout;
use crate::error::At as _;

/// Reads the task file at `path`. `None` when it is gone; [`Error::Garbled`] when it is there and
/// cannot be what it should be; [`Error::NewerTask`] when it is one for newer programs.
pub fn read_task(layout: &Layout, path: &Path, id: TaskId) -> Result<Option<Task>, Error> {
    let garbled = |problem: String| Error::Garbled { path: path.to_owned(), problem };
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    fault::look("open task");
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) if is(&err, Errno::LOOP) => return Err(garbled("it is a symbolic link".into())),
        // A socket cannot be opened at all.
        Err(err) if is(&err, Errno::NXIO) => return Err(garbled("it is a socket".into())),
        // These are about this file, and will be the same next time.
        Err(err) if is(&err, Errno::ACCESS) || is(&err, Errno::PERM) || is(&err, Errno::IO) => {
            return Err(garbled(format!("it cannot be opened: {err}")));
        }
        Err(err) => return Err(err).at("open", path),
    };
    let meta = file.metadata().at("look at", path)?;
    if !meta.is_file() {
        return Err(garbled("it is not a plain file".into()));
    }
    if meta.len() > MAX_TASK_BYTES {
        return Err(garbled(format!("it has {} bytes; a task file has at most 1 MiB", meta.len())));
    }
    // With room for all of it and for the end: two reads, not one for every doubling.
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1);
    file.take(MAX_TASK_BYTES + 1).read_to_end(&mut bytes).at("read", path)?;
    let task = Task::parse(&bytes).map_err(|bad| match Task::newer_schema(&bytes) {
        Some(schema) => Error::NewerTask { path: path.to_owned(), schema },
        None => garbled(bad.to_string()),
    })?;
    task.spec.check().map_err(|bad| garbled(bad.to_string()))?;
    if task.id != id {
        return Err(garbled(format!("its content says that it is task {}", task.id)));
    }
    refuse_foreign_owner(layout.root(), path, &meta)?;
    Ok(Some(task))
}

fn is(err: &io::Error, errno: Errno) -> bool {
    err.raw_os_error() == Some(errno.raw_os_error())
}

/// Only the pool's owner, its group, root and we ourselves may have commands run.
fn refuse_foreign_owner(root: &Path, path: &Path, meta: &fs::Metadata) -> Result<(), Error> {
    if meta.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let pool = fs::metadata(root).at("look at", root)?;
    if meta.uid() == pool.uid() || meta.uid() == 0 || meta.gid() == pool.gid() {
        return Ok(());
    }
    let problem =
        format!("user {} owns it, who is neither the pool's owner nor in its group", meta.uid());
    Err(Error::Garbled { path: path.to_owned(), problem })
}

/// Well below the 255 bytes that a name may have.
const MAX_NAME_BYTES: usize = 200;

/// Puts the file or directory at `path` into `rejected/`, with the reason beside it. Returns where
/// it is now; `None` when it was gone.
///
/// Where there is no room for the reason that is no error: the file is out of the way. Where it
/// cannot be written for another cause, it is put aside too, and an [`Error::Garbled`] says why and
/// what the trouble was, for perhaps nobody else does.
pub fn reject(layout: &Layout, path: &Path, problem: &str) -> Result<Option<PathBuf>, Error> {
    reject_as(layout, path, &path.file_name().unwrap_or_default().to_string_lossy(), problem)
}

/// The same, under another name than it has.
pub(in crate::dir) fn reject_as(
    layout: &Layout,
    path: &Path,
    name: &str,
    problem: &str,
) -> Result<Option<PathBuf>, Error> {
    let mut name = name.to_owned();
    // With a number and `.reason` it must still be a name. The reason tells the whole path.
    while name.len() > MAX_NAME_BYTES {
        name.pop();
    }
    let dir = layout.rejected();
    for number in 0.. {
        let target = match number {
            0 => dir.join(&name),
            _ => dir.join(format!("{name}.{number}")),
        };
        let mut reason = target.clone().into_os_string();
        reason.push(".reason");
        let reason = PathBuf::from(reason);
        if publish::is_there(&reason)? {
            continue;
        }
        match publish::move_new(path, &target)? {
            Moved::Yes => {
                let text = format!("{}\n{problem}\n", path.display());
                let written = publish::replace(&reason, text.as_bytes(), Durability::Atomic);
                written.or_else(|err| unless_no_room(path, problem, err))?;
                return Ok(Some(target));
            }
            Moved::SourceGone => return Ok(None),
            Moved::TargetThere => {}
        }
    }
    Ok(None)
}

/// The file is put aside already; what is left to be told is why, and why that is not beside it.
fn unless_no_room(path: &Path, problem: &str, err: Error) -> Result<(), Error> {
    if err.is_disk_full() || err.io_kind() == Some(io::ErrorKind::InvalidFilename) {
        return Ok(());
    }
    let problem = format!("{problem}; it is in `rejected/`, but without this reason: {err}");
    Err(Error::Garbled { path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_cannot_be_written_is_told_unless_there_is_no_room() {
        for (errno, told) in [(Errno::NOSPC, false), (Errno::NAMETOOLONG, false), (Errno::IO, true)]
        {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(dir.path());
            fs::create_dir_all(layout.rejected()).unwrap();
            let path = dir.path().join("notes.txt");
            fs::write(&path, "x").unwrap();
            fault::fail_where("create", errno);
            let rejected = reject(&layout, &path, "it is no task");
            let kept = layout.rejected().join("notes.txt");
            assert_eq!(fs::read(&kept).unwrap(), b"x", "{errno}");
            assert!(!publish::is_there(&path).unwrap(), "{errno}");
            match rejected {
                Ok(target) => assert!(!told && target == Some(kept), "{errno}"),
                Err(err) => {
                    let text = err.to_string();
                    assert!(told && text.contains("it is no task; it is in `rejected/`"), "{text}");
                }
            }
        }
    }
}
