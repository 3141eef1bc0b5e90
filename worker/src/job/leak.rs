//! What outlives the leader of a job: found cheaply, ended thoroughly.
//!
//! Most jobs leave nothing behind, so the machine's processes are looked through only where
//! something hints at a leak: a child of ours that nobody knows (orphans come to us) and that is
//! of this job, or a log that somebody can still write to.

use queue::fence::{self, Carries, Ended, Found, LogLock, Patience};

use super::{Running, children};

/// What became of the processes that outlived the leader.
pub(super) struct Leaks {
    pub(super) ended: Vec<Found>,
    pub(super) unkillable: Vec<Found>,
    pub(super) unchecked: Option<std::io::Error>,
}

pub(super) fn end(job: &Running, patience: Patience<'_>) -> Leaks {
    let mut leaks = Leaks { ended: vec![], unkillable: vec![], unchecked: None };
    if !is_suspected(job) {
        return leaks;
    }
    match fence::end_patiently(job.mark(), patience) {
        Ok(Ended::Gone { ended }) => leaks.ended = ended,
        Ok(Ended::Unkillable(left)) => leaks.unkillable = left,
        Err(error) => leaks.unchecked = Some(error),
    }
    leaks
}

fn is_suspected(job: &Running) -> bool {
    !children::is_subreaper()
        || children::unknown(job.pid()).iter().any(|pid| may_be_of(job, *pid))
        // Where the lock cannot be asked for, somebody might hold it.
        || fence::log_lock(&job.log_path).map_or(true, |lock| lock == LogLock::Held)
}

fn may_be_of(job: &Running, pid: u32) -> bool {
    let Some(stat) = fence::stat(pid).filter(|stat| !stat.is_over()) else { return false };
    stat.group == job.pid()
        || match job.mark().carried_by(pid) {
            Carries::Yes | Carries::Unreadable => true,
            Carries::No => false,
        }
}
