//! Waits for a job: its end, its time limit and commands to stop it, all in one place.
//!
//! The leader stays unreaped until its group was signalled for the last time, so its number, which
//! is the group's, cannot be somebody else's by then.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use queue::fence::{EndPatience, FoundProcess};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::leak::{self, Leaks, Others};
use super::{Running, Why};
use crate::children;

/// From KILL to saying that it cannot be killed.
const GIVE_UP: Duration = Duration::from_secs(60);
/// For what ends by itself right after the leader, as `tee` at the end of a pipe does.
const SETTLE: Duration = Duration::from_millis(500);

/// How the leader ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// Not at all, even when killed.
    Unkillable,
    /// Nobody knows: something else in this process reaped it.
    Lost,
}

/// What made us end a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Its time was over.
    Timeout,
    /// Somebody asked for it, through the job's `Stop`.
    Asked(Why),
}

/// How a job ended.
#[derive(Debug)]
pub struct End {
    /// What the leader left behind.
    pub status: Status,
    /// Why we ended it, if we did.
    pub ended_by: Option<EndedBy>,
    /// Processes that outlived the leader and had to be ended.
    pub leaked: Vec<FoundProcess>,
    /// Those that could not be.
    pub unkillable: Vec<FoundProcess>,
    /// Why nobody could look for such processes.
    pub unchecked: Option<std::io::Error>,
    /// Somebody who was not found can still write to its log.
    pub log_held: bool,
    /// From the spawn to the leader's end.
    pub wall: Duration,
}

/// What is done to a job so that it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// TERM: it may end in order.
    Term(EndedBy),
    /// KILL: its grace is over, or nobody wants to wait for that.
    Kill(EndedBy),
}

/// Whoever wants to know at once what is sent to a job, and how long it had run by then.
pub type Tell<'a> = &'a dyn Fn(Sent, Duration);

#[derive(Clone, Copy)]
enum Stage {
    Running,
    Asked { by: EndedBy, kill_at: Instant },
    Killed { by: EndedBy, give_up_at: Instant },
}

impl Running {
    /// Until the job is over and none of its processes is left, or cannot be ended. What is sent
    /// to it meanwhile is told at once.
    #[must_use]
    pub fn wait(self, tell: Tell<'_>) -> End {
        let stage = self.until_over(tell);
        let wall = self.started.elapsed();
        let status = self.status();
        let Leaks { ended, unkillable, unchecked, log_held, others } =
            leak::end(&self, self.patience(stage, status));
        self.signal(&[Signal::KILL]);
        match status {
            Status::Unkillable => self.known.keep(),
            Status::Exited(_) | Status::Signaled(_) | Status::Lost => {
                self.known.reap(self.pidfd.as_fd());
            }
        }
        if others == Others::Some {
            children::reap_orphans();
        }
        let ended_by = match stage {
            Stage::Running => None,
            Stage::Asked { by, .. } | Stage::Killed { by, .. } => Some(by),
        };
        End { status, ended_by, leaked: ended, unkillable, unchecked, log_held, wall }
    }

    /// Until the leader is over or given up.
    fn until_over(&self, tell: Tell<'_>) -> Stage {
        let timeout_at = self.timeout.and_then(|timeout| self.started.checked_add(timeout));
        let mut stage = Stage::Running;
        let (asked, hurried) = (&self.bells.asked, &self.bells.hurried);
        loop {
            let (until, bells) = match stage {
                Stage::Running => (timeout_at, vec![asked, hurried]),
                Stage::Asked { kill_at, .. } => (Some(kill_at), vec![hurried]),
                Stage::Killed { give_up_at, .. } => (Some(give_up_at), vec![]),
            };
            let mut fds: Vec<_> = std::iter::once(&self.pidfd)
                .chain(bells)
                .map(|fd| PollFd::new(fd, PollFlags::IN))
                .collect();
            wait_for(&mut fds, until);
            if !fds[0].revents().is_empty() {
                return stage;
            }
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            let hurried = !matches!(stage, Stage::Killed { .. })
                && fds.last().is_some_and(|bell| !bell.revents().is_empty());
            stage = match (stage, self.stop.why()) {
                (Stage::Running, Some(why)) => self.ask(EndedBy::Asked(why), tell),
                (Stage::Running, None) if is_late => self.ask(EndedBy::Timeout, tell),
                (Stage::Asked { by, .. }, _) if is_late || hurried => self.kill(by, tell),
                (Stage::Killed { .. }, _) if is_late => return stage,
                (Stage::Running | Stage::Asked { .. } | Stage::Killed { .. }, _) => stage,
            };
        }
    }

    fn ask(&self, by: EndedBy, tell: Tell<'_>) -> Stage {
        if self.grace.is_zero() {
            return self.kill(by, tell);
        }
        // A stopped process does not see TERM before it goes on.
        self.signal(&[Signal::TERM, Signal::CONT]);
        tell(Sent::Term(by), self.started.elapsed());
        let now = Instant::now();
        Stage::Asked { by, kill_at: now.checked_add(self.grace).unwrap_or(now + GIVE_UP) }
    }

    fn kill(&self, by: EndedBy, tell: Tell<'_>) -> Stage {
        self.signal(&[Signal::KILL]);
        tell(Sent::Kill(by), self.started.elapsed());
        Stage::Killed { by, give_up_at: Instant::now() + GIVE_UP }
    }

    /// To the whole group. That nobody of it is left, or may be signalled, shows elsewhere.
    fn signal(&self, signals: &[Signal]) {
        let Some(group) = Pid::from_raw(self.pid().cast_signed()) else { return };
        for signal in signals {
            let _nobody_left = kill_process_group(group, *signal);
        }
    }

    /// Without reaping it.
    fn status(&self) -> Status {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(Some(end)) => match (end.exit_status(), end.terminating_signal()) {
                (Some(code), _) => Status::Exited(code),
                (None, Some(signal)) => Status::Signaled(signal),
                (None, None) => Status::Lost,
            },
            Ok(None) => Status::Unkillable,
            Err(_no_such_child) => Status::Lost,
        }
    }

    /// What is left of the grace, for those that outlived the leader.
    fn patience(&self, stage: Stage, status: Status) -> EndPatience<'_> {
        let (settle, grace) = match stage {
            Stage::Running => (SETTLE, self.grace),
            Stage::Asked { kill_at, .. } => {
                (Duration::ZERO, kill_at.saturating_duration_since(Instant::now()))
            }
            Stage::Killed { .. } => (Duration::ZERO, Duration::ZERO),
        };
        let give_up = match status {
            // That long was waited already.
            Status::Unkillable => Duration::ZERO,
            Status::Exited(_) | Status::Signaled(_) | Status::Lost => GIVE_UP,
        };
        EndPatience { settle, grace, give_up, hurry: Some(self.bells.hurried.as_fd()) }
    }
}

/// Until one of them is readable or the time has come.
fn wait_for(fds: &mut [PollFd<'_>], until: Option<Instant>) {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // Longer than the system can count is as good as no limit.
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(fds, left.as_ref()) {
        // What is interrupted is looked at and waited for again by the caller.
        Ok(_) | Err(Errno::INTR | Errno::NOMEM) => {}
        Err(error) => panic!("poll on descriptors of our own cannot fail, but: {error}"),
    }
}
