//! The model server that a worker started: what is left of it when the worker is dead.
//!
//! It runs in a group of its own, so the worker's death does not end it, and it would keep the
//! GPU's memory until somebody looks. Its processes, and those that they started, carry a variable
//! that says whose they are; whoever settles the worker's affairs, or follows it, ends them.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shared::name::Name;

use super::proc;

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

/// Kills what carries this mark, and returns when it is gone. Says how many processes that were.
///
/// # Errors
/// When the processes of this machine cannot be looked at.
pub fn end_server(mark: &str) -> io::Result<u64> {
    let mut ended = 0;
    for _look in 0..LOOKS {
        match kill_all(mark)? {
            0 => break,
            killed => ended += killed,
        }
    }
    Ok(ended)
}

fn kill_all(mark: &str) -> io::Result<u64> {
    let wanted = format!("{SERVER_MARK}={mark}");
    let carries = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
    };
    let mut killed = 0;
    for pid in proc::all()?.filter(|pid| *pid != std::process::id()) {
        if !carries(pid) {
            continue;
        }
        let Some(raw) = Pid::from_raw(pid.cast_signed()) else { continue };
        let Ok(handle) = pidfd_open(raw, PidfdFlags::empty()) else { continue };
        // Looked at once more, now that the number cannot become another's.
        if carries(pid) && pidfd_send_signal(&handle, Signal::KILL).is_ok() {
            let patience = Timespec::try_from(GONE).ok();
            let _late = poll(&mut [PollFd::new(&handle, PollFlags::IN)], patience.as_ref());
            killed += 1;
        }
    }
    Ok(killed)
}
