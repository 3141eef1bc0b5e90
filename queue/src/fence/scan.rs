//! Finds the processes of a run among all processes of the machine.
//!
//! The environment is read once per process; descriptors are looked at only where the log is
//! known, and without asking its file system (a dead network server must not hang us). Nobody who
//! only reads the log is of the run: people follow logs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use memchr::memmem;
use rustix::fs::{AtFlags, StatxFlags, makedev, statx};
use shared::id::TaskId;

use super::{FoundProcess, How, LogIdentity, Mark, environ, proc};

/// Whether a process's environment carries a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// It does.
    Yes,
    /// It was read, and does not.
    No,
    /// It is gone, another user's, or hides its environment.
    Unreadable,
}

/// Every living process of the run except ourselves. What cannot be read is skipped.
///
/// # Errors
/// When `/proc` cannot be listed, or there is no descriptor to look with.
pub fn processes(mark: &Mark) -> io::Result<Vec<FoundProcess>> {
    let mut search = Search::new(mark);
    proc::all()?.filter_map(|pid| search.look(pid).transpose()).collect()
}

impl Mark {
    /// Whether this process's environment carries the task and the attempt.
    #[must_use]
    pub fn carried_by(&self, pid: u32) -> Carries {
        Search::new(self).carried_by(pid).unwrap_or(Carries::Unreadable)
    }
}

/// The task that a process was started for, as its environment says. `None` also where that cannot
/// be read.
#[must_use]
pub fn task_of(pid: u32) -> Option<TaskId> {
    let mut read = Vec::new();
    environ::read(pid, &mut read).ok()?;
    let mut variables = read.split(|byte| *byte == 0);
    let id = variables.find_map(|variable| variable.strip_prefix(b"BRAINSTEM_TASK_ID="))?;
    std::str::from_utf8(id).ok()?.parse().ok()
}

/// A mark as it looks in memory, and a buffer for what is compared with it.
pub(super) struct Search<'a> {
    mark: &'a Mark,
    task: Vec<u8>,
    attempt: Vec<u8>,
    environ: Vec<u8>,
    own: u32,
    /// Where our own executable is, so that a sibling is recognised.
    home: Option<PathBuf>,
}

impl<'a> Search<'a> {
    pub(super) fn new(mark: &'a Mark) -> Self {
        Self {
            mark,
            task: format!("BRAINSTEM_TASK_ID={}", mark.task).into_bytes(),
            attempt: format!("BRAINSTEM_ATTEMPT={}", mark.attempt).into_bytes(),
            environ: Vec::new(),
            own: std::process::id(),
            home: executable(Path::new("/proc/self")),
        }
    }

    /// The process, if it is alive and of the run.
    pub(super) fn look(&mut self, pid: u32) -> io::Result<Option<FoundProcess>> {
        if pid == self.own {
            return Ok(None);
        }
        let Some(how) = self.how(pid)? else { return Ok(None) };
        let stat = proc::look_at(&proc::process(pid))?.filter(|stat| !stat.is_over());
        let Some(stat) = stat else { return Ok(None) };
        let command = proc::command_line(pid);
        Ok(Some(FoundProcess { pid, start_time: stat.start_time, command, how }))
    }

    fn how(&mut self, pid: u32) -> io::Result<Option<How>> {
        let carries = self.carried_by(pid)?;
        if carries == Carries::Yes {
            return Ok(Some(How::Environment));
        }
        let process = proc::process(pid);
        if let Some(group) = self.mark.group
            && proc::look_at(&process)?.is_some_and(|stat| stat.group == group)
        {
            return Ok(Some(How::Group));
        }
        if carries == Carries::Unreadable
            && proc::look_at(&process)?.is_some_and(|stat| self.mark.suspicion.is_on(&stat))
        {
            return Ok(Some(How::Suspicion));
        }
        // Whose environment is closed to us, his descriptors are too.
        let Some(log) = self.mark.log.filter(|_| carries == Carries::No) else { return Ok(None) };
        // Who has an environment has a living first thread, so that need not be asked.
        let base = if self.environ.is_empty() { proc::base(pid)? } else { Some(process) };
        let Some(base) = base else { return Ok(None) };
        Ok((writes_to(&base, log)? && !self.is_one_of_ours(&base)).then_some(How::Log))
    }

    fn carried_by(&mut self, pid: u32) -> io::Result<Carries> {
        match proc::unless_short(environ::read(pid, &mut self.environ))? {
            Some(()) if self.environ_matches() => Ok(Carries::Yes),
            Some(()) => Ok(Carries::No),
            None => Ok(Carries::Unreadable),
        }
    }

    fn environ_matches(&self) -> bool {
        memmem::find(&self.environ, &self.task).is_some()
            && [&self.task, &self.attempt].iter().all(|wanted| {
                self.environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_slice())
            })
    }

    /// Whether this is a brain, a worker or a `queue` beside our own executable: a brain that
    /// shortens a log, or a worker in the moment in which its next job is still a copy of it.
    fn is_one_of_ours(&self, base: &Path) -> bool {
        let (Some(home), Some(theirs)) = (&self.home, executable(base)) else { return false };
        let is_named = ["brain", "worker", "queue"].iter().any(|name| theirs.ends_with(name));
        theirs == *home || (is_named && theirs.parent() == home.parent())
    }
}

/// The path of a program, also if it has been replaced since.
fn executable(base: &Path) -> Option<PathBuf> {
    let link: OsString = fs::read_link(base.join("exe")).ok()?.into();
    let text = link.to_string_lossy();
    Some(PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text)))
}

/// Whether any of its descriptors is this file, open for writing.
fn writes_to(base: &Path, log: LogIdentity) -> io::Result<bool> {
    let folder = proc::unless_short(File::open(base.join("fd")))?;
    let entries = proc::unless_short(fs::read_dir(base.join("fd")))?;
    let (Some(folder), Some(entries)) = (folder, entries) else { return Ok(false) };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let same = statx(folder.as_fd(), &name, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)
            .is_ok_and(|file| {
                file.stx_ino == log.ino
                    && makedev(file.stx_dev_major, file.stx_dev_minor) == log.dev
            });
        if same && is_for_writing(&base.join("fdinfo").join(&name))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_for_writing(fdinfo: &Path) -> io::Result<bool> {
    const ACCESS_MODE: u32 = 0o3;
    const READ_ONLY: u32 = 0;
    let text = proc::unless_short(fs::read_to_string(fdinfo))?.unwrap_or_default();
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & ACCESS_MODE != READ_ONLY))
}
