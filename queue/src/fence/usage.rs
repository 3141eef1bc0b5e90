//! Does a job still do something? What its processes have used so far, to be compared later.

use std::fs;

use super::proc;

/// What some processes have used since they started. Progress is a figure that CHANGED, not one
/// that grew: when a process ends, its share goes to whoever waits for it, and perhaps to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in clock ticks, with that of children they waited for.
    pub cpu_ticks: u64,
    /// Whether any of them is stopped (state T or t): then the quiet is not its own doing.
    pub stopped: bool,
    /// Bytes read from anything (files, pipes); `None` where it could not be read of each.
    pub read_bytes: Option<u64>,
    /// Bytes written to anything; `None` where it could not be read of each.
    pub write_bytes: Option<u64>,
}

/// What these processes have used; those that are gone are left out, and if all are, it is
/// unknown.
#[must_use]
pub fn usage(pids: &[u32]) -> Option<Usage> {
    pids.iter().filter_map(|pid| usage_of(*pid)).reduce(|all, one| Usage {
        cpu_ticks: all.cpu_ticks + one.cpu_ticks,
        stopped: all.stopped || one.stopped,
        read_bytes: all.read_bytes.zip(one.read_bytes).map(|(all, one)| all + one),
        write_bytes: all.write_bytes.zip(one.write_bytes).map(|(all, one)| all + one),
    })
}

fn usage_of(pid: u32) -> Option<Usage> {
    let stat = proc::stat(pid)?;
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok();
    let figure = |name: &str| {
        let line = io.as_ref()?.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    Some(Usage {
        cpu_ticks: stat.user + stat.system + stat.children_user + stat.children_system,
        stopped: matches!(stat.state, 'T' | 't'),
        read_bytes: figure("rchar:"),
        write_bytes: figure("wchar:"),
    })
}
