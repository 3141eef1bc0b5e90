//! What outlives the leader of a job: found cheaply, ended thoroughly.
//!
//! Most jobs leave nothing behind, so the machine's processes are looked through only where
//! something hints at a leak: a child of ours that nobody knows (orphans come to us) and that is
//! of this job, or a log that somebody can still write to.

use std::time::{Duration, Instant};

use queue::fence::{self, Carries, EndPatience, Ended, FoundProcess, LogLock};
use rustix::event::{Timespec, poll};

use super::Running;
use crate::children;

/// What became of the processes that outlived the leader.
pub(super) struct Leaks {
    pub(super) ended: Vec<FoundProcess>,
    pub(super) unkillable: Vec<FoundProcess>,
    pub(super) unchecked: Option<std::io::Error>,
    /// Somebody who was not found can still write to the log.
    pub(super) log_held: bool,
    pub(super) others: Others,
}

/// Whether any child was seen that nobody waits for, and that may have to be reaped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Then nothing of this job lives or can come to us later: whatever outlives its parent has
    /// come by the time the leader is over.
    None,
    /// Perhaps: orphans are looked for once the leader is reaped.
    Some,
}

pub(super) fn end(job: &Running, patience: EndPatience<'_>) -> Leaks {
    let mut leaks = Leaks {
        ended: vec![],
        unkillable: vec![],
        unchecked: None,
        log_held: false,
        others: Others::None,
    };
    let unknown = children::unknown(job.pid());
    if !unknown.is_empty() {
        leaks.others = Others::Some;
    }
    if !is_suspected(job, &unknown) {
        return leaks;
    }
    leaks.others = Others::Some;
    match fence::end_patiently(job.mark(), patience) {
        Ok(Ended::Gone { ended }) => leaks.ended = ended,
        Ok(Ended::Unkillable(left) | Ended::Refused(left)) => leaks.unkillable = left,
        Err(error) => leaks.unchecked = Some(error),
    }
    leaks.log_held = is_log_held(job) && stays_held(job);
    leaks
}

fn is_suspected(job: &Running, unknown: &[u32]) -> bool {
    !children::is_subreaper()
        || unknown.iter().any(|pid| may_be_of(job, *pid))
        || (is_log_held(job) && stays_held(job))
}

/// How long a child of ours is given to let go of what it must not keep.
const LET_GO: Duration = Duration::from_millis(20);

/// Perhaps a child of ours that has only just begun holds it: it has copies of all our handles
/// until it is its program, and the kernel lets us go on a moment before it closes them.
fn stays_held(job: &Running) -> bool {
    drop(children::stillness());
    let begun = Instant::now();
    while is_log_held(job) {
        if begun.elapsed() > LET_GO {
            return true;
        }
        // Interrupted or not: the loop looks at the clock.
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 500_000 }));
    }
    false
}

fn is_log_held(job: &Running) -> bool {
    // Where the lock cannot be asked for, somebody might hold it.
    fence::log_lock(&job.log_path).map_or(true, |lock| lock == LogLock::Held)
}

fn may_be_of(job: &Running, pid: u32) -> bool {
    let Some(stat) = fence::stat(pid).filter(|stat| !stat.is_over()) else { return false };
    stat.group == job.pid()
        || match job.mark().carried_by(pid) {
            Carries::Yes | Carries::Unreadable => true,
            Carries::No => false,
        }
}
