//! Is a run really over? The kernel is asked, never the heartbeat.
//!
//! A lock can be freed too early (a job that redirects its output) and held by processes outside
//! the job's group (`setsid`), and a heartbeat is only what somebody wrote some time ago. So the
//! processes of a run are those whose environment carries the task and the attempt, or that hold
//! its log open for writing, and whoever settles a run ends them before anybody else starts it.
//!
//! What this cannot find: a process that cleared its environment AND redirected its output AND
//! left its group. Nor can it look into other users' processes, setuid programs, and those that are
//! not dumpable: who of them may be of the run is suspected ([`Suspicion`]), and a log that is still
//! locked when nobody is left here tells of the others ([`log_lock`]).

mod end;
mod environ;
mod proc;
mod scan;
mod server;
mod suspicion;
#[cfg(test)]
mod tests;
mod usage;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use shared::id::TaskId;

pub use end::{EndPatience, Ended, end, end_patiently};
pub use proc::{
    ProcessIdentity, Stat, boot_id, command_line, members_of_group, pid_namespace,
    process_identity, sees_all, stat, state_of,
};
pub use scan::{Carries, processes, task_of};
pub use server::{Killed, SERVER_MARK, end_server, server_mark};
pub use suspicion::Suspicion;
pub use usage::{Usage, usage};

/// Which file a log is, whatever its name is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogIdentity {
    /// The device.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
}

impl LogIdentity {
    /// Of the file at this path; `None` where there is none.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(Self { dev: meta.dev(), ino: meta.ino() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("look at", path, &error)),
        }
    }

    /// Of an open file.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|meta| Self { dev: meta.dev(), ino: meta.ino() })
    }
}

/// By what the processes of one attempt are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    task: TaskId,
    attempt: u32,
    log: Option<LogIdentity>,
    group: Option<u32>,
    suspicion: Suspicion,
}

impl Mark {
    /// An attempt at a task, and its log if there is one.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub fn new(task: TaskId, attempt: u32, log: &Path) -> io::Result<Self> {
        Ok(Self::of_log(task, attempt, LogIdentity::of(log)?))
    }

    /// The same, for those who have the log open.
    #[must_use]
    pub fn of_log(task: TaskId, attempt: u32, log: Option<LogIdentity>) -> Self {
        Self { task, attempt, log, group: None, suspicion: Suspicion::default() }
    }

    /// Also every process of this group. Only for the parent of the group's leader, while it has
    /// not reaped it: afterwards the number may be somebody else's.
    #[must_use]
    pub fn with_group(self, leader: u32) -> Self {
        Self { group: Some(leader), ..self }
    }

    /// Not by its group any more: its leader is reaped.
    #[must_use]
    pub fn without_group(self) -> Self {
        Self { group: None, ..self }
    }

    /// Also those who may be of the run, where nobody can look into them.
    #[must_use]
    pub fn with_suspicion(self, suspicion: Suspicion) -> Self {
        Self { suspicion, ..self }
    }

    /// The task.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The log's identity. `None` where there was no log: then descriptors are not looked at.
    #[must_use]
    pub fn log(&self) -> Option<LogIdentity> {
        self.log
    }
}

/// What gave a process away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its environment carries the task and the attempt.
    Environment,
    /// It can still write to the log.
    Log,
    /// It is in the job's process group.
    Group,
    /// It cannot be looked into, and began where and when the job's processes did.
    Suspicion,
}

/// A process of the run that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundProcess {
    /// Its number.
    pub pid: u32,
    /// Clock ticks between boot and its start; with the number, it is this process and no other.
    pub start_time: u64,
    /// Its command line, shortened.
    pub command: String,
    /// What gave it away.
    pub how: How,
}

impl std::fmt::Display for FoundProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.pid, self.command)
    }
}

/// Whether somebody can still write to a run's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLock {
    /// Nobody holds its lock.
    Free,
    /// Some process does, perhaps another user's, which cannot be looked into.
    Held,
    /// There is no such file.
    Missing,
}

/// Asks for the log's lock: shared, without waiting, without creating the file.
///
/// # Errors
/// When the file cannot be opened or the file system has no locks.
pub fn log_lock(path: &Path) -> io::Result<LogLock> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LogLock::Missing),
        Err(error) => return Err(at("open", path, &error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(LogLock::Free),
        Err(std::fs::TryLockError::WouldBlock) => Ok(LogLock::Held),
        Err(std::fs::TryLockError::Error(error)) => Err(at("lock", path, &error)),
    }
}

fn at(doing: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("could not {doing} `{}`: {error}", path.display()))
}
