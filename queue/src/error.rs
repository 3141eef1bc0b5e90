//! What can go wrong with a pool. Every message names the file and what was being done.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on the pool failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("could not {what} `{}`: {err}", path.display())]
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
            | Self::Unfit { .. }
            | Self::Garbled { .. }
            | Self::DiskFull { .. }
            | Self::Held { .. } => None,
        }
    }

    /// Whether it is about one file or directory only: its permissions, or bad sectors under it.
    /// What lies beside it can be used as ever.
    #[must_use]
    pub fn is_of_one_place(&self) -> bool {
        use rustix::io::Errno;
        let Self::Io { err, .. } = self else { return false };
        let one = [Errno::ACCESS, Errno::PERM, Errno::IO];
        one.iter().any(|errno| err.raw_os_error() == Some(errno.raw_os_error()))
    }

    /// Whether the disk is full, or a quota is used up.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::DiskFull { .. })
            || matches!(self.io_kind(), Some(StorageFull | QuotaExceeded))
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
