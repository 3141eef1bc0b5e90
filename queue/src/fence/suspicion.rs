//! Who may be of a run though nobody here can look into it.

use super::proc::Stat;

/// Where and when a dead worker's job had processes. Nobody is suspected by default.
///
/// Process numbers that a living process has as its group or session are given to nobody else, so
/// who is in the job's group or in the worker's session, and began in its time, is hardly another's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Suspicion {
    /// The job's process group, as the worker's last heartbeat says.
    pub group: Option<u32>,
    /// The worker's session, where it led one: else it shares a terminal's, with an ssh-agent or a
    /// `sudo` that cannot be looked into either.
    pub session: Option<u32>,
    /// From when on its processes may have begun, in seconds since the machine started.
    pub from: f64,
    /// Until when: the worker was dead by then.
    pub until: f64,
}

impl Suspicion {
    /// Whether a process that cannot be looked into may be of the run.
    pub(super) fn is_on(&self, stat: &Stat) -> bool {
        /// Clocks are read one after the other.
        const SLACK: f64 = 1.0;
        let (from, until) = (self.from - SLACK, self.until + SLACK);
        let near = self.group == Some(stat.group) || self.session == Some(stat.session);
        near && (from..=until).contains(&stat.started())
    }
}
