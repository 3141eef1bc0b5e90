//! Reading a process's environment, so that *none* is never said of one that is about to have one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::proc;

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
    let mut base = proc::process(pid);
    loop {
        read_at(&base, environ)?;
        if !environ.is_empty() || has_none(&base)? {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        wait_for(pid)?;
        base = proc::base(pid)?.ok_or(io::ErrorKind::NotFound)?;
    }
}

/// A read is empty also where the program changed during it, so it is the kernel's figures that
/// count. They hold as soon as it says where the program is, which it does last of all. Of a process
/// whose first thread has ended it says nothing: the other threads tell.
fn has_none(base: &Path) -> io::Result<bool> {
    /// What the kernel says instead of an address to who may not look.
    const CLOSED: u64 = 1;
    let Some(stat) = proc::look_at(base)? else { return Ok(true) };
    if stat.is_kernel_thread() || stat.is_over() {
        return Ok(true);
    }
    match stat.program {
        0 => Ok(false),
        CLOSED => Err(io::ErrorKind::PermissionDenied.into()),
        _address => Ok(stat.environ == 0),
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
