//! Where what is submitted is written first: a directory in `incoming/`, with a lock in it that says
//! that its writer lives.

use std::path::{Path, PathBuf};

use shared::id::Incarnation;
use shared::task::{MAX_TASK_BYTES, Task};

use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::lock::Lock;
use crate::dir::disk::publish::{self, Moved};
use crate::dir::layout::STAGING_LOCK;

/// A directory of one's own in `incoming/`, with a lock in it that says that its writer lives.
pub(crate) fn take_place(incoming: &Path) -> Result<(PathBuf, Lock), Error> {
    loop {
        let dir = incoming.join(Incarnation::new().as_str());
        publish::make_dirs(&dir)?;
        // Whoever tidies up may take the lock first, and then removes the directory.
        match Lock::try_take(&dir.join(STAGING_LOCK)) {
            Ok(Some(lock)) => return Ok((dir, lock)),
            Ok(None) => {}
            Err(err) if err.io_kind() == Some(std::io::ErrorKind::NotFound) => {}
            Err(err) => return Err(err),
        }
    }
}

/// Removes staging directories whose writer is gone. By their lock, never by age. One that cannot
/// be removed does not save the others; its error comes last.
pub fn sweep_incoming(pool: &Pool) -> Result<u32, Error> {
    let (mut swept, mut last) = (0, Ok(()));
    let incoming = pool.layout().incoming();
    for name in crate::dir::disk::listing::entries(&incoming)? {
        let dir = incoming.join(name);
        // A plain file, or just gone: not ours to judge.
        let Ok(Some(_lock)) = Lock::try_take(&dir.join(STAGING_LOCK)) else { continue };
        match sweep(&incoming, &dir) {
            Ok(()) => swept += 1,
            Err(err) => last = Err(err),
        }
    }
    last.map(|()| swept)
}

/// First under a name that no writer knows: one that has just made this directory, and not yet
/// locked it, would find its files removed under its hands. It finds the directory gone instead.
fn sweep(incoming: &Path, dir: &Path) -> Result<(), Error> {
    let doomed = incoming.join(Incarnation::new().as_str());
    match publish::move_new(dir, &doomed)? {
        Moved::Yes => publish::remove_tree(&doomed),
        Moved::SourceGone | Moved::TargetThere => Ok(()),
    }
}

/// What the file will hold; more than anyone would read is refused here, where it can be said.
pub(super) fn bytes_of(task: &Task, path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = task.to_bytes();
    if bytes.len() as u64 <= MAX_TASK_BYTES {
        return Ok(bytes);
    }
    let problem = format!("it would have {} bytes; a task has at most 1 MiB", bytes.len());
    Err(Error::Garbled { path: path.to_owned(), problem })
}
