//! Runs one job: a child process group whose stdout and stderr are the run's log.
//!
//! The log is locked before the spawn and every handle in this process is closed right after it,
//! so the lock lives exactly as long as some process of the job can still write there, whatever
//! becomes of the worker. One thread runs a job from `start` to the end of `wait`; nothing polls
//! and no helper threads are needed, because the job's end, its time limit and a command to stop
//! are all waited for in one place.
//!
//! The job's program is found by us (in the JOB's PATH) and given to the system as a full path:
//! the errors can then say what was looked for where, and spawning stays on `posix_spawn`, which
//! does not copy the worker's address space.

mod leak;
mod program;
mod stop;
#[cfg(test)]
mod tests;
mod wait;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use queue::error::is_shortage;
use queue::fence::{self, LogIdentity, Mark};
use queue::umask;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shared::id::TaskId;
use shared::time::Moment;

use stop::Bells;

pub use super::children::{Known, become_subreaper, spawn_known};
pub use stop::{Stop, Why};
pub use wait::{End, EndedBy, Sent, Status, Tell};

/// All that is needed to run a job.
#[derive(Clone, Debug)]
pub struct Order {
    /// Program and arguments. The program is looked for in the PATH of `env`.
    pub argv: Vec<OsString>,
    /// Where it runs. Absolute.
    pub cwd: PathBuf,
    /// Its whole environment; nothing of ours is added. Must carry the mark.
    pub env: Vec<(OsString, OsString)>,
    /// What it reads; without, nothing (`/dev/null`).
    pub stdin: Option<Vec<u8>>,
    /// Where its output goes.
    pub log_path: PathBuf,
    /// The task it is run for.
    pub task: TaskId,
    /// Which try it is.
    pub attempt: u32,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// From TERM to KILL.
    pub grace: Duration,
}

/// A job did not start. The same words are in its log, if there is one.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to run.
    #[error("the command is empty")]
    NoCommand,
    /// The directory to run in is not there, or is not one.
    #[error("cwd {what}: {}", cwd.display())]
    Cwd {
        /// The directory.
        cwd: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is no such program.
    #[error("command not found: {} ({looked})", program.display())]
    NotFound {
        /// As it was given.
        program: OsString,
        /// Where it was looked for.
        looked: String,
    },
    /// There is, but it cannot be run.
    #[error("cannot execute {}: {what}", program.display())]
    NotExecutable {
        /// The file that was found.
        program: PathBuf,
        /// Why not, as in `it is a directory`.
        what: String,
    },
    /// An earlier run's processes can still write to the log.
    #[error("log `{}` is still locked by {holders}", log.display())]
    LogHeld {
        /// The log.
        log: PathBuf,
        /// The processes, as far as they can be seen.
        holders: String,
    },
    /// The log cannot be made.
    #[error("could not {doing} `{}`: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file or directory it was done with.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no room for another process now.
    #[error("could not start {}: {source}", program.display())]
    Spawn {
        /// Its full path.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StartError {
    /// The exit code that a shell or env(1) would give; `None` where the machine or the pool is at
    /// fault and the command may be fine.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::NoCommand | Self::Cwd { .. } => Some(125),
            Self::NotExecutable { .. } => Some(126),
            Self::NotFound { .. } => Some(127),
            Self::LogHeld { .. } | Self::File { .. } | Self::Spawn { .. } => None,
        }
    }
}

impl StartError {
    /// Whether the machine has no room for a job now, whichever it is.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::File { source, .. } | Self::Spawn { source, .. } => is_shortage(source),
            Self::NoCommand
            | Self::Cwd { .. }
            | Self::NotFound { .. }
            | Self::NotExecutable { .. }
            | Self::LogHeld { .. } => false,
        }
    }
}

impl From<StartError> for io::Error {
    fn from(error: StartError) -> Self {
        use StartError::{Cwd, File, LogHeld, NoCommand, NotExecutable, NotFound, Spawn};
        let kind = match &error {
            File { source, .. } | Spawn { source, .. } => source.kind(),
            LogHeld { .. } => io::ErrorKind::ResourceBusy,
            NoCommand | Cwd { .. } | NotFound { .. } | NotExecutable { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error.to_string())
    }
}

/// A job that was started and has not been waited for. Dropping it leaves the job alone.
#[must_use = "a job must be waited for"]
#[derive(Debug)]
pub struct Running {
    known: Known,
    pidfd: OwnedFd,
    mark: Mark,
    log_path: PathBuf,
    timeout: Option<Duration>,
    grace: Duration,
    started: Instant,
    started_at: Moment,
    stop: Stop,
    bells: Arc<Bells>,
}

impl Running {
    /// The leader's number, which is also the group's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.known.pid()
    }

    /// By what the job's processes are known, its group included (so only while this lives).
    #[must_use]
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// When it was started.
    #[must_use]
    pub fn started_at(&self) -> Moment {
        self.started_at
    }
}

/// Starts a job, which `stop` ends.
///
/// # Errors
/// Says in words what is missing, and writes it into the log too.
pub fn start(order: Order, stop: &Stop) -> Result<Running, StartError> {
    let prepared = prepare(&order, stop);
    // Until the child is known and our handles of the log are closed: another job that is spawned
    // meanwhile has copies of them, and with them the lock, for the moment before it becomes its
    // program.
    let turn = super::children::turn();
    let mut log = open_log(&order.log_path, order.task, order.attempt)?;
    let log_identity = LogIdentity::of_file(&log).map_err(file("look at", &order.log_path))?;
    let started = (Instant::now(), Moment::now());
    let spawned = prepared.and_then(|prepared| spawn(&order, prepared, &log));
    let (pid, pidfd, bells) = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            // The log is for people; that it could not be written is less than the error itself.
            let _unwritten = writeln!(log, "brainstem: could not start the job: {error}");
            return Err(error);
        }
    };
    drop(log);
    let known = turn.enter(pid);
    Ok(Running {
        known,
        pidfd,
        mark: Mark::of_log(order.task, order.attempt, Some(log_identity)).with_group(pid),
        log_path: order.log_path,
        timeout: order.timeout,
        grace: order.grace,
        started: started.0,
        started_at: started.1,
        stop: stop.clone(),
        bells,
    })
}

/// What can be made ready before the log is open.
struct Prepared {
    program: PathBuf,
    stdin: Stdio,
    bells: Arc<Bells>,
}

/// Whether directory and program are fit is only looked at when the start has failed, to say why.
fn prepare(order: &Order, stop: &Stop) -> Result<Prepared, StartError> {
    let program = order.argv.first().ok_or(StartError::NoCommand)?;
    let path = order.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path);
    let program = program::find(program, path.map(OsString::as_os_str), &order.cwd)?;
    let stdin = match &order.stdin {
        None => nothing_to_read().map_err(file("open", Path::new("/dev/null")))?,
        Some(text) => Stdio::from(file_holding(text).map_err(file("fill", Path::new("stdin")))?),
    };
    match stop.bells() {
        Ok(bells) => Ok(Prepared { program, stdin, bells }),
        // No descriptors.
        Err(source) => Err(StartError::Spawn { program, source }),
    }
}

/// `/dev/null`, opened once.
fn nothing_to_read() -> io::Result<Stdio> {
    static NULL: OnceLock<File> = OnceLock::new();
    let null = match NULL.get() {
        Some(null) => null,
        None => {
            let opened = File::open("/dev/null")?;
            NULL.get_or_init(|| opened)
        }
    };
    null.try_clone().map(Stdio::from)
}

/// A file without a name: unlike a pipe it never fills up and nobody has to feed it.
fn file_holding(text: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(text)?;
    file.rewind()?;
    Ok(file)
}

fn make_parents(log_path: &Path) -> Result<(), StartError> {
    let Some(parent) = log_path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(file("make directory", parent))
}

/// Opens a run's log, with its directory, and locks it for as long as the file is open.
///
/// # Errors
/// Also when an earlier run's processes can still write there.
pub fn run_log(path: &Path, task: TaskId, attempt: u32) -> Result<File, StartError> {
    open_log(path, task, attempt)
}

fn open_log(path: &Path, task: TaskId, attempt: u32) -> Result<File, StartError> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let options = options.append(true).create(true).mode(umask::private_mode()).custom_flags(flags);
    let log = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_parents(path)?;
            options.open(path)
        }
        opened => opened,
    };
    let log = log.map_err(file("open log", path))?;
    match log.try_lock() {
        Ok(()) => Ok(log),
        Err(TryLockError::Error(source)) => Err(file("lock log", path)(source)),
        Err(TryLockError::WouldBlock) => {
            Err(StartError::LogHeld { log: path.to_owned(), holders: holders(path, task, attempt) })
        }
    }
}

fn holders(path: &Path, task: TaskId, attempt: u32) -> String {
    let found = Mark::new(task, attempt, path).and_then(|m| fence::processes(&m));
    let names: Vec<_> = found.into_iter().flatten().map(|found| found.to_string()).collect();
    if names.is_empty() { "a process that cannot be seen".to_owned() } else { names.join(", ") }
}

/// The child's number, and a descriptor that stays its own whoever gets the number later; and what
/// is waited for beside it.
fn spawn(
    order: &Order,
    prepared: Prepared,
    log: &File,
) -> Result<(u32, OwnedFd, Arc<Bells>), StartError> {
    let name = order.argv.first().ok_or(StartError::NoCommand)?;
    let program = prepared.program;
    let log = || log.try_clone().map_err(file("duplicate log", &order.log_path));
    let mut command = command(order, name, &program)?;
    command
        .args(order.argv.iter().skip(1))
        .env_clear()
        .envs(order.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&order.cwd)
        .process_group(0)
        .stdin(prepared.stdin)
        .stdout(log()?)
        .stderr(log()?);
    let child = command.spawn().map_err(|source| {
        let why = program::check_cwd(&order.cwd).and_then(|()| program::recheck(name, &program));
        why.err().unwrap_or_else(|| program::explain(program.clone(), source))
    })?;
    // The number is the child's own as long as we have not reaped it.
    let pidfd = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(error) => return Err(abandon(child, program, error)),
    };
    Ok((child.id(), pidfd, prepared.bells))
}

/// The job has its user's umask, also where the worker needs another one: then a shell sets it. What
/// would be wrong with a start is looked for before, because the shell finds it too late.
fn command(order: &Order, name: &OsString, program: &Path) -> Result<Command, StartError> {
    if umask::is_changed() {
        program::check_cwd(&order.cwd)?;
        program::recheck(name, program)?;
        return Ok(umask::command(name));
    }
    let mut command = Command::new(program);
    command.arg0(name);
    Ok(command)
}

/// Without a descriptor (none is left) the job cannot be watched, so it must not run.
fn abandon(mut child: std::process::Child, program: PathBuf, error: Errno) -> StartError {
    let _already_over = child.kill();
    let _nothing_to_learn = child.wait();
    StartError::Spawn { program, source: error.into() }
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::File { doing, path, source }
}
