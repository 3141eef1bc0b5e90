//! The model server that a worker started: what is left of it when the worker is dead.
//!
//! It runs in a group of its own, so the worker's death does not end it, and it would keep the
//! GPU's memory until somebody looks. Its processes, and those that they started, carry a variable
//! that says whose they are; whoever settles the worker's affairs, or follows it, ends them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shared::name::Name;

use super::{environ, proc};

/// By this variable a server's processes are known, whoever their parent is by now.
pub const SERVER_MARK: &str = "BRAINSTEM_MODEL_SERVER";
/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(10);
/// The dying may start new ones, but not for ever.
const LOOKS: usize = 16;

/// What no other server on this machine has in that variable.
#[must_use]
pub fn server_mark(pool: &Path, worker: &Name) -> String {
    format!("{}:{worker}", pool.display())
}

/// What became of the processes of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Killed {
    /// How many were killed.
    pub killed: u64,
    /// How many of them were still there when they were given up.
    pub late: u64,
}

/// Kills what carries this mark, and returns when it is gone, or does not end even when killed.
///
/// # Errors
/// When the processes of this machine cannot be looked at, for lack of descriptors say.
pub fn end_server(mark: &str) -> io::Result<Killed> {
    let mut all = Killed::default();
    for _look in 0..LOOKS {
        let killed = kill_all(mark)?;
        all.killed += killed.len() as u64;
        all.late = until_gone(&killed);
        // Who does not even end when killed is not waited for again and again.
        if killed.is_empty() || all.late > 0 {
            return Ok(all);
        }
    }
    // They start new ones faster than these are ended.
    all.late = kill_all(mark)?.len() as u64;
    Ok(all)
}

fn kill_all(mark: &str) -> io::Result<Vec<OwnedFd>> {
    let wanted = format!("{SERVER_MARK}={mark}");
    let mut read = Vec::new();
    // Whom we may not look into we have not started either.
    let mut carries = |pid: u32| {
        let is_read = proc::unless_short(environ::read(pid, &mut read))?.is_some();
        Ok::<_, io::Error>(
            is_read && read.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes()),
        )
    };
    let mut killed = Vec::new();
    for pid in proc::all()?.filter(|pid| *pid != std::process::id()) {
        if !carries(pid)? {
            continue;
        }
        let Some(raw) = Pid::from_raw(pid.cast_signed()) else { continue };
        let handle = pidfd_open(raw, PidfdFlags::empty()).map_err(io::Error::from);
        let Some(handle) = proc::unless_short(handle)? else { continue };
        // Looked at once more, now that the number cannot become another's.
        if carries(pid)? && pidfd_send_signal(&handle, Signal::KILL).is_ok() {
            killed.push(handle);
        }
    }
    Ok(killed)
}

/// Waits for all of them, and for all together only so long. Says how many are still there.
fn until_gone(killed: &[OwnedFd]) -> u64 {
    let until = Instant::now() + GONE;
    let mut late = 0;
    for handle in killed {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        let gone = poll(&mut [PollFd::new(handle, PollFlags::IN)], left.as_ref());
        late += u64::from(gone == Ok(0));
    }
    late
}
