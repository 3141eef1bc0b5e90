//! What can go wrong with a pool. Every message names the file and what was being done.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::users;

/// An operation on the pool failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("could not {what} `{}`: {err}{}", path.display(), help(err))]
    Io {
        /// What was being done, as it follows "could not".
        what: &'static str,
        /// The file or directory that it was being done to.
        path: PathBuf,
        /// What the operating system answered.
        err: io::Error,
    },
    /// There is no pool.
    #[error("there is no pool at `{}`; `queue submit`, `brain` and `worker` make one, or name another with --pool", .0.display())]
    NoPool(PathBuf),
    /// It is somebody else's, and nothing may be written there.
    #[error("the pool `{}` belongs to {}, and you are {}: nothing was written", path.display(),
            whose(*owner, *group), users::name_of(users::me()))]
    NotYours {
        /// The pool's own directory.
        path: PathBuf,
        /// The number of the user whose it is.
        owner: u32,
        /// The number of the group whose it is, too.
        group: Option<u32>,
    },
    /// It was made by newer programs.
    #[error("the pool `{}` has format {format}, made by Brainstem {made_by}; this is Brainstem {}, \
             which knows formats up to {known}: use the programs that made it (nothing was changed)",
            path.display(), env!("CARGO_PKG_VERSION"))]
    Newer {
        /// The pool's own directory.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The newest format that is known here.
        known: u32,
        /// The version of the programs that made it.
        made_by: String,
    },
    /// A task was written by newer programs. It is left where it is, for them.
    #[error("`{}` is a task for newer programs ({schema}; known here is brainstem.task/1): it is left \
             alone", path.display())]
    NewerTask {
        /// Its file.
        path: PathBuf,
        /// What it says it is.
        schema: String,
    },
    /// The place is not fit to be a pool.
    #[error("`{}` cannot be a pool: {problem}", path.display())]
    Unfit {
        /// The directory that was to be the pool's.
        path: PathBuf,
        /// Why not, and what would help.
        problem: String,
    },
    /// A file of the pool holds something that cannot be understood.
    #[error("`{}` cannot be understood: {problem}", path.display())]
    Garbled {
        /// The file, or what is in the place of one.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// New tasks would fill the disk.
    #[error("the disk of `{}` is nearly full ({free} left, {needed} are kept free): nothing was submitted; make room and try again", path.display())]
    DiskFull {
        /// The pool's own directory.
        path: PathBuf,
        /// How much is free.
        free: shared::quantity::Bytes,
        /// How much must stay free.
        needed: shared::quantity::Bytes,
    },
    /// Somebody holds the lock that is needed.
    #[error("{what} is held by {holder}")]
    Held {
        /// What is locked.
        what: String,
        /// By whom, as the lock file says.
        holder: String,
    },
}

impl Error {
    /// The kind of the underlying I/O error, where there is one.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { err, .. } => Some(err.kind()),
            Self::NoPool(_)
            | Self::NotYours { .. }
            | Self::Newer { .. }
            | Self::NewerTask { .. }
            | Self::Unfit { .. }
            | Self::Garbled { .. }
            | Self::DiskFull { .. }
            | Self::Held { .. } => None,
        }
    }

    /// Whether a file has become as large as this process may make one.
    #[must_use]
    pub fn is_file_too_large(&self) -> bool {
        self.io_kind() == Some(io::ErrorKind::FileTooLarge)
    }

    /// Whether the disk is full, or a quota is used up.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::DiskFull { .. })
            || matches!(self.io_kind(), Some(StorageFull | QuotaExceeded))
    }
}

/// Whether the machine has no room for what was asked of it: processes, threads, descriptors,
/// memory, disk, or a limit of one of these. What was asked for may be fine later.
#[must_use]
pub fn is_shortage(err: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull, WouldBlock};
    matches!(err.kind(), FileTooLarge | OutOfMemory | QuotaExceeded | StorageFull | WouldBlock)
        || matches!(Errno::from_io_error(err), Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN))
}

fn whose(owner: u32, group: Option<u32>) -> String {
    let owner = users::name_of(owner);
    match group {
        None => owner,
        Some(group) => format!("{owner} and the group {}", users::group_name_of(group)),
    }
}

/// What says more of the limit that was reached, to follow the words of the error. Empty where none was.
#[must_use]
pub fn help(err: &io::Error) -> &'static str {
    match Errno::from_io_error(err) {
        Some(Errno::FBIG) => {
            "; `ulimit -f` says how large a file may get (LimitFSIZE= of a service)"
        }
        Some(Errno::MFILE) => {
            "; `ulimit -n` says how many files may be open (LimitNOFILE= of a service)"
        }
        Some(Errno::NFILE) => "; `sysctl fs.file-max` says how many files may be open here",
        Some(Errno::AGAIN) => {
            "; `ulimit -u` says how many processes and threads a user may have (TasksMax= of a \
             service, pids.max of a container)"
        }
        Some(_) | None => "",
    }
}

/// Puts the verb and the path on an [`io::Error`] where both are still known.
pub trait At<T> {
    /// `what` follows "could not".
    fn at(self, what: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|err| Error::Io { what, path: path.to_owned(), err })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(io::Error::from).at(what, path)
    }
}

fn is_absence(err: &io::Error) -> bool {
    let looped = err.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    looped || matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Turns "it is not there" into `None`.
pub trait OrGone<T> {
    /// `Ok(None)` where the file or directory does not exist: also where what it should be in is a
    /// file, or a link that leads to itself.
    fn or_gone(self) -> Result<Option<T>, Error>;
}

impl<T> OrGone<T> for Result<T, Error> {
    fn or_gone(self) -> Result<Option<T>, Error> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Error::Io { err, .. }) if is_absence(&err) => Ok(None),
            Err(err) => Err(err),
        }
    }
}
