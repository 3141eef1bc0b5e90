//! What is left of an attempt whose worker is dead: its processes are ended, and it is said whether
//! any may still be there.
//!
//! *None found* is not *none left*: a setuid program, one that is not dumpable, another user's or
//! another process namespace's cannot be looked into. So the run log's lock is asked as well: it is
//! held for as long as any process can write there, whoever that is. Where neither can tell, that is
//! said, and nothing is put back.

use std::path::PathBuf;
use std::time::Duration;

use shared::name::Name;
use shared::task::{Payload, Task, TaskName};

use crate::Error;
use crate::dir::Pool;
use crate::dir::presence::heartbeats;
use crate::dir::presence::lease::reach;
use crate::error::At as _;
use crate::fence::{self, Ended, FoundProcess, LogLock, Mark, Suspicion};
use crate::uptime;
use crate::wire::fate::{Kept, Obstacle, Suspect};
use crate::wire::lease_record::Record;
use crate::wire::reach::Reach;

/// How long the processes of a dead worker's job are given.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From TERM to KILL, where the task does not say.
    pub grace: Duration,
    /// From KILL until they are called unkillable.
    pub give_up: Duration,
}

/// One attempt of a dead worker.
pub(super) struct Remains<'a> {
    pub(super) pool: &'a Pool,
    pub(super) worker: &'a Name,
    /// What the worker's lease says; `None` where that cannot be read.
    pub(super) record: Option<&'a Record>,
    pub(super) name: TaskName,
    /// `None` where it cannot be understood.
    pub(super) task: Option<&'a Task>,
}

/// What is left of an attempt.
pub(super) enum Left {
    /// Nothing; these had to be ended.
    Nothing { ended: Vec<u32> },
    /// Perhaps something: another attempt could run beside it.
    Perhaps(Obstacle),
}

impl Remains<'_> {
    /// Ends what can be found, and says what is left.
    pub(super) fn end(&self, patience: Patience) -> Result<Left, Error> {
        let nothing = Left::Nothing { ended: Vec::new() };
        // Where the lease says nothing, its worker was of this machine as far as anybody knows.
        let process = self.record.map(|record| &record.process);
        match process.map_or(Reach::Processes, |process| reach(self.pool, process)) {
            Reach::Gone => Ok(nothing),
            Reach::Nothing => {
                let host = process.map(|process| process.host.clone()).unwrap_or_default();
                Ok(Left::Perhaps(Obstacle::Elsewhere { host }))
            }
            // The worker itself asked, and it is dead.
            Reach::Locks if !self.has_job() => Ok(nothing),
            Reach::Locks => match fence::log_lock(&self.log()).at("look at", &self.log())? {
                LogLock::Free => Ok(self.seen_from_outside()?.map_or(nothing, Left::Perhaps)),
                LogLock::Held => Ok(Left::Perhaps(Obstacle::LogHeld)),
                LogLock::Missing => Ok(Left::Perhaps(Obstacle::Unknown { why: self.no_log() })),
            },
            Reach::Processes => self.end_processes(patience),
        }
    }

    /// Processes of a container are to be seen from outside it, and what carries the task's mark is
    /// its own, also where its output goes elsewhere and its log is free. They are left alone: the
    /// numbers of their groups and sessions mean nothing here.
    fn seen_from_outside(&self) -> Result<Option<Obstacle>, Error> {
        let log = self.log();
        let mark = Mark::new(self.name.id, self.name.attempt, &log).at("look at", &log)?;
        let found = fence::processes(&mark).at("look for the processes of", &log)?;
        let processes: Vec<Suspect> = found.into_iter().map(suspect).collect();
        Ok((!processes.is_empty()).then_some(Obstacle::Suspected { processes }))
    }

    fn end_processes(&self, patience: Patience) -> Result<Left, Error> {
        let log = self.log();
        let mark = Mark::new(self.name.id, self.name.attempt, &log).at("look at", &log)?;
        let mark = mark.with_suspicion(self.suspicion());
        let ended = fence::end(&mark, patience.grace, patience.give_up);
        let ended = match obstacle_of(ended.at("look for the processes of", &log)?) {
            Ok(ended) => ended,
            Err(obstacle) => return Ok(Left::Perhaps(obstacle)),
        };
        match fence::log_lock(&log).at("look at", &log)? {
            LogLock::Free => Ok(Left::Nothing { ended }),
            LogLock::Held => Ok(Left::Perhaps(Obstacle::LogHeld)),
            // Its job had not begun, or all processes were looked at.
            LogLock::Missing if !self.has_job() || fence::sees_all() => Ok(Left::Nothing { ended }),
            LogLock::Missing => {
                let why = "its run log is not there, and other users' processes are hidden here";
                Ok(Left::Perhaps(Obstacle::Unknown { why: why.to_owned() }))
            }
        }
    }

    /// Whether a job of it may have begun: its run log comes first. A prompt's log comes late.
    pub(super) fn began(&self) -> bool {
        let log = fence::log_lock(&self.log());
        !self.has_job() || log.map_or(true, |lock| lock != LogLock::Missing)
    }

    /// Whether it runs a process of its own.
    fn has_job(&self) -> bool {
        match self.task.map(|task| task.spec.payload()) {
            Some(Ok(Payload::Llm { .. } | Payload::Model { .. })) => false,
            Some(Ok(Payload::Command(_) | Payload::Shell(_)) | Err(_)) | None => true,
        }
    }

    fn log(&self) -> PathBuf {
        self.pool.layout().run_log(self.name.id, self.name.attempt)
    }

    fn no_log(&self) -> String {
        "its worker had process numbers of its own (a container), and its run log, whose lock would \
         tell whether it still runs, is not there"
            .to_owned()
    }

    /// Where and when its processes began.
    fn suspicion(&self) -> Suspicion {
        let Some(record) = self.record else { return Suspicion::default() };
        let beat = heartbeats::read(self.pool, self.worker).unwrap_or_default();
        let beat = beat.filter(|beat| beat.life == record.life);
        let group = beat.and_then(|beat| beat.runs(self.name)?.pgid);
        let dead = record.dead_since.as_ref().filter(|since| since.boot == record.process.boot);
        let until = dead.map_or_else(|| uptime::now().seconds, |since| since.seconds);
        // Only the worker itself can have led a session of this number before it was dead.
        let session = Some(record.process.pid);
        Suspicion { group, session, from: self.log_made(), until }
    }

    /// When its log was made, in seconds since the machine started: its job began after that. From
    /// the start on, where nobody knows.
    fn log_made(&self) -> f64 {
        let made = std::fs::metadata(self.log()).and_then(|meta| meta.created());
        let ago = made.ok().and_then(|made| made.elapsed().ok());
        ago.map_or(0.0, |ago| uptime::now().seconds - ago.as_secs_f64())
    }
}

/// Whether it is worth a new try: somebody held its run log, and lets go.
#[must_use]
pub fn may_go_on(pool: &Pool, kept: &Kept) -> bool {
    let log = pool.layout().run_log(kept.task, kept.attempt);
    let was_held = kept.obstacle == Obstacle::LogHeld;
    was_held && fence::log_lock(&log).is_ok_and(|lock| lock != LogLock::Held)
}

/// The numbers of those that were ended, or what of the rest is in the way.
pub fn obstacle_of(ended: Ended) -> Result<Vec<u32>, Obstacle> {
    match ended {
        Ended::Gone { ended } => Ok(pids(&ended)),
        Ended::Unkillable(left) => Err(Obstacle::Unkillable { pids: pids(&left) }),
        Ended::Refused(left) => {
            let processes = left.into_iter().map(suspect).collect();
            Err(Obstacle::Suspected { processes })
        }
    }
}

fn pids(processes: &[FoundProcess]) -> Vec<u32> {
    processes.iter().map(|process| process.pid).collect()
}

fn suspect(found: FoundProcess) -> Suspect {
    Suspect { pid: found.pid, command: found.command }
}
