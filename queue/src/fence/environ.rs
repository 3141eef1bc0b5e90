//! Reading a process's environment, so that *none* is never said of one that is about to have one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::proc::{self, MemoryRange};

/// Between two looks at a process that has no environment yet.
const TICK: Duration = Duration::from_millis(1);
/// A program that is read from a dead disk may never have one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads the environment into the buffer: empty where there is none, as of a kernel thread.
///
/// Between two programs (`execve`) a process has none yet. That takes some microseconds, or as
/// long as it is kept from its processor meanwhile; it must not slip through just then, so it is
/// waited for.
///
/// # Errors
/// When the process is gone, another user's or hides its environment, or does not get one.
pub(super) fn read(pid: u32, environ: &mut Vec<u8>) -> io::Result<()> {
    let since = Instant::now();
    let (mut base, mut before) = (proc::process(pid), None);
    loop {
        read_at(&base, environ)?;
        let told = judge(&base, environ)?;
        // What comes out alike twice is all there is: parts of it may not be in memory any more.
        if told == Told::All || told != Told::NotYet && before.as_ref() == Some(&told) {
            return Ok(());
        }
        before = Some(told);
        if since.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        wait_for(pid)?;
        base = proc::base(pid)?.ok_or(io::ErrorKind::NotFound)?;
    }
}

/// What came of reading an environment.
#[derive(PartialEq, Eq)]
enum Told {
    /// All of it; nothing where the process has none.
    All,
    /// The program is changing.
    NotYet,
    /// So many bytes, and not as many as are said to be in this place: the program has changed
    /// meanwhile, or is as it is.
    Part { at: MemoryRange, bytes: usize },
}

/// A read is empty, or breaks off, where the program changes during it (there are several system
/// calls to a read), so it is the kernel's figures that count. They hold as soon as it says where
/// the program is, which it does last of all. Of a process whose first thread has ended it says
/// nothing: the other threads tell.
fn judge(base: &Path, environ: &[u8]) -> io::Result<Told> {
    /// What the kernel says instead of an address to who may not look.
    const CLOSED: u64 = 1;
    let Some(stat) = proc::look_at(base)? else { return Ok(Told::All) };
    if stat.is_kernel_thread() || stat.is_over() {
        return Ok(Told::All);
    }
    match stat.program {
        0 => Ok(Told::NotYet),
        CLOSED if environ.is_empty() => Err(io::ErrorKind::PermissionDenied.into()),
        // It was read, and its length is nobody's business.
        CLOSED => Ok(Told::All),
        _address if stat.environ.len() == environ.len() as u64 => Ok(Told::All),
        _address => Ok(Told::Part { at: stat.environ, bytes: environ.len() }),
    }
}

fn read_at(base: &Path, environ: &mut Vec<u8>) -> io::Result<()> {
    environ.clear();
    File::open(base.join("environ"))?.read_to_end(environ).map(drop)
}

/// A moment, or until the process is over.
fn wait_for(pid: u32) -> io::Result<()> {
    let pid = proc::raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let tick = Timespec::try_from(TICK).ok();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], tick.as_ref())?;
    Ok(())
}
