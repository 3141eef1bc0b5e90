//! Ends the processes of a run: wait a little, ask, insist, and say who is still there.
//!
//! Each is held by a pidfd and looked at again after that was opened, so no signal reaches
//! somebody else who was given the number since. Whenever one ends, or a stage's time is over,
//! all of `/proc` is looked through again, because the dying start new ones; and only two empty
//! looks in a row mean that nobody is left, because a process can move from a number not yet
//! looked at to one already passed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::scan::{Search, processes};
use super::{FoundProcess, Mark, proc};

/// What became of the processes of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// None is left: two looks in a row found none.
    Gone {
        /// Those that had to be told.
        ended: Vec<FoundProcess>,
    },
    /// These did not end even when killed.
    Unkillable(Vec<FoundProcess>),
    /// All others are gone; these may not be signalled from here.
    Refused(Vec<FoundProcess>),
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct EndPatience<'a> {
    /// For processes that are about to end by themselves, as `tee` at the end of a pipe.
    pub settle: Duration,
    /// From TERM to KILL.
    pub grace: Duration,
    /// From KILL to giving up.
    pub give_up: Duration,
    /// Readable as soon as there is no time for any of that but `give_up`.
    pub hurry: Option<BorrowedFd<'a>>,
}

/// Ends every process of the run: TERM at once, KILL after `grace`, and gives up after `give_up`
/// more.
///
/// # Errors
/// When `/proc` cannot be listed, or the kernel refuses to be waited on.
pub fn end(mark: &Mark, grace: Duration, give_up: Duration) -> io::Result<Ended> {
    end_patiently(mark, EndPatience { settle: Duration::ZERO, grace, give_up, hurry: None })
}

/// The same, with time to settle first and a way to hurry.
///
/// # Errors
/// When `/proc` cannot be listed, or the kernel refuses to be waited on.
pub fn end_patiently(mark: &Mark, patience: EndPatience<'_>) -> io::Result<Ended> {
    let mut hunt = Hunt::new(mark, patience);
    let mut empty_looks = 0;
    while empty_looks < 2 {
        hunt.look()?;
        if hunt.held.is_empty() {
            empty_looks += 1;
            continue;
        }
        empty_looks = 0;
        if hunt.held.iter().all(|held| held.refused) {
            return Ok(Ended::Refused(hunt.left()));
        }
        if hunt.wait()? == Waited::InVain {
            return Ok(Ended::Unkillable(hunt.left()));
        }
    }
    Ok(Ended::Gone { ended: hunt.ended })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Settling,
    Asking,
    Killing,
}

#[derive(PartialEq, Eq)]
enum Waited {
    LookAgain,
    InVain,
}

struct Held {
    found: FoundProcess,
    pidfd: OwnedFd,
    /// It is not ours to signal.
    refused: bool,
}

struct Hunt<'a> {
    mark: &'a Mark,
    patience: EndPatience<'a>,
    stage: Stage,
    /// When the stage is over.
    until: Instant,
    held: Vec<Held>,
    ended: Vec<FoundProcess>,
}

impl<'a> Hunt<'a> {
    fn new(mark: &'a Mark, patience: EndPatience<'a>) -> Self {
        let until = after(patience.settle);
        let mut hunt =
            Self { mark, patience, stage: Stage::Settling, until, held: vec![], ended: vec![] };
        if patience.settle.is_zero() {
            hunt.next_stage();
        }
        hunt
    }

    /// Takes hold of those not held yet and tells them what the others were told.
    fn look(&mut self) -> io::Result<()> {
        for found in processes(self.mark)? {
            let is_held = |held: &Held| {
                held.found.pid == found.pid && held.found.start_time == found.start_time
            };
            if self.held.iter().any(is_held) {
                continue;
            }
            if let Some(mut held) = take_hold(self.mark, found)? {
                tell(self.stage, &mut held);
                self.held.push(held);
            }
        }
        Ok(())
    }

    /// Until one of them ends, the stage's time is over or somebody hurries us.
    fn wait(&mut self) -> io::Result<Waited> {
        let (over, hurried) = self.poll()?;
        let mut still = Vec::new();
        for (held, over) in std::mem::take(&mut self.held).into_iter().zip(&over) {
            if !over {
                still.push(held);
            } else if self.stage != Stage::Settling {
                self.ended.push(held.found);
            }
        }
        self.held = still;
        if hurried {
            self.patience = EndPatience { grace: Duration::ZERO, hurry: None, ..self.patience };
            self.stage = Stage::Asking;
            self.next_stage();
        } else if Instant::now() >= self.until {
            if self.stage == Stage::Killing && !self.held.is_empty() {
                return Ok(Waited::InVain);
            }
            self.next_stage();
        }
        Ok(Waited::LookAgain)
    }

    /// Which of the held are over, and whether we are to hurry.
    fn poll(&self) -> io::Result<(Vec<bool>, bool)> {
        let hurry = self.patience.hurry.filter(|_| self.stage != Stage::Killing);
        let mut fds: Vec<_> =
            self.held.iter().map(|held| PollFd::new(&held.pidfd, PollFlags::IN)).collect();
        fds.extend(hurry.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let left = self.until.saturating_duration_since(Instant::now());
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok((vec![false; self.held.len()], false)),
            Err(error) => return Err(error.into()),
        }
        let mut ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let hurried = ready.len() > self.held.len() && ready.pop() == Some(true);
        Ok((ready, hurried))
    }

    fn next_stage(&mut self) {
        (self.stage, self.until) = match self.stage {
            Stage::Settling if self.patience.grace.is_zero() => {
                (Stage::Killing, after(self.patience.give_up))
            }
            Stage::Settling => (Stage::Asking, after(self.patience.grace)),
            Stage::Asking | Stage::Killing => (Stage::Killing, after(self.patience.give_up)),
        };
        for held in &mut self.held {
            tell(self.stage, held);
        }
    }

    fn left(self) -> Vec<FoundProcess> {
        self.held.into_iter().map(|held| held.found).collect()
    }
}

/// A pidfd for it, unless it is over or another process by now.
fn take_hold(mark: &Mark, found: FoundProcess) -> io::Result<Option<Held>> {
    let Some(pid) = proc::raw(found.pid) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let same = Search::new(mark).look(found.pid)?.filter(|now| now.start_time == found.start_time);
    Ok(same.map(|found| Held { found, pidfd, refused: false }))
}

/// Whom we may not signal we need not wait for. That it is over just now shows in the waiting.
fn tell(stage: Stage, held: &mut Held) {
    let signals: &[Signal] = match stage {
        Stage::Settling => &[],
        // A stopped process does not see TERM before it goes on.
        Stage::Asking => &[Signal::TERM, Signal::CONT],
        Stage::Killing => &[Signal::KILL],
    };
    for signal in signals {
        held.refused |= pidfd_send_signal(held.pidfd.as_fd(), *signal) == Err(Errno::PERM);
    }
}

/// Far enough away for durations that no clock can hold.
fn after(wait: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + wait.min(LONGEST)
}
