//! Why a task is not running, or why a worker takes nothing: a closed list, with evidence.
//!
//! The worker's claim pass, the brain's checks and `queue why` build the same values, so that no
//! two of them can give different answers.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::name::Name;
use crate::outcome::words;
use crate::time::Moment;

words! {
    /// What stands in the way. The words are stable: scripts match on them.
    Code {
        /// Waits for a person's yes.
        HeldApproval = "held.approval",
        /// A person holds it.
        HeldPerson = "held.person",
        /// Tasks like it failed one after the other in the same way: one at a time is tried.
        HeldBrake = "held.brake",
        /// Waits for other tasks.
        WaitingDependency = "waiting.dependency",
        /// A task it needed did not end as needed.
        DependencyFailed = "dependency.failed",
        /// Not before a given time.
        DelayedUntil = "delayed.until",
        /// As many as allowed for its user, label or model run already.
        LimitReached = "limit.reached",
        /// The pool, or the worker, is paused by a person.
        Paused = "paused",
        /// No worker takes its class.
        ClassNoWorker = "class.no_worker",
        /// This worker does not take its class.
        ClassNotTaken = "class.not_taken",
        /// It is addressed to another worker.
        WorkerAddressed = "worker.addressed",
        /// No worker has a GPU.
        GpuNone = "gpu.none",
        /// All slots that could take it are in use.
        WorkerBusy = "worker.busy",
        /// The worker that could take it has died.
        WorkerDead = "worker.dead",
        /// The worker that could take it lives, and its heartbeat stands still.
        WorkerHung = "worker.hung",
        /// The worker that could take it finishes what it has and stops.
        WorkerDraining = "worker.draining",
        /// The machine gives the worker no thread, process or file to start a job with.
        WorkerStarved = "worker.starved",
        /// Such tasks fail at once on this worker, and not on others.
        WorkerBacksOff = "worker.backs_off",
        /// The worker was asked for and never came up.
        WorkerNeverStarted = "worker.never_started",
        /// No worker has its model loaded.
        ModelNotLoaded = "model.not_loaded",
        /// Its model is being loaded.
        ModelLoading = "model.loading",
        /// A server holds its model, and that does not answer.
        ModelSilent = "model.silent",
        /// No server knows its model.
        ModelMissing = "model.missing",
        /// Its model fits on no GPU here.
        ModelTooBig = "model.too_big",
        /// Not enough GPU memory is free.
        VramShort = "vram.short",
        /// No GPU here has the memory it asks for.
        VramNever = "vram.never",
        /// The GPU is kept out of use after errors.
        GpuQuarantined = "gpu.quarantined",
        /// The model server says that it is too busy for its model.
        ServerBusy = "server.busy",
        /// The model server answers pings, but not requests.
        ServerWedged = "server.wedged",
        /// The model server does not answer at all.
        ServerDown = "server.down",
        /// No brain is running.
        BrainAbsent = "brain.absent",
        /// The brain holds its lock and does nothing.
        BrainHung = "brain.hung",
        /// A worker could take it, and nobody does.
        ClaimStalled = "claim.stalled",
        /// The processes of an earlier attempt cannot be ended.
        JobUnkillable = "job.unkillable",
        /// An earlier attempt may still run, where nobody can look.
        JobMayRun = "job.may_run",
        /// The disk is full.
        DiskFull = "disk.full",
        /// A directory of tasks cannot be listed, so nobody takes what is in it.
        DirectoryUnlisted = "directory.unlisted",
        /// A job prints so much that its log is cut.
        LogCut = "log.cut",
        /// Nothing is waiting.
        QueueEmpty = "queue.empty",
        /// Tasks wait, but this worker may take none of their lane.
        LaneIneligible = "lane.ineligible",
        /// This worker finishes what it has and stops.
        Draining = "draining",
        /// The GPU is too hot.
        Thermal = "thermal",
        /// Other workers were faster each time.
        RacesLost = "races.lost",
        /// The worker lives, but its claim loop has not come round.
        ClaimLoopStalled = "claim.loop_stalled",
        /// Nothing known stands in its way.
        Unknown = "unknown",
    }
}

impl Code {
    /// Less is more decisive: what never changes by itself, what a person has set, what has to end,
    /// what is about one worker only.
    #[must_use]
    pub const fn weight(self) -> u8 {
        match self {
            Self::DependencyFailed | Self::ModelMissing | Self::ModelTooBig => 0,
            Self::ClassNoWorker | Self::GpuNone | Self::VramNever | Self::WorkerNeverStarted => 1,
            Self::HeldPerson | Self::HeldApproval | Self::HeldBrake => 2,
            Self::WaitingDependency | Self::DelayedUntil => 3,
            Self::DiskFull
            | Self::DirectoryUnlisted
            | Self::LogCut
            | Self::JobUnkillable
            | Self::JobMayRun => 4,
            Self::Paused | Self::LimitReached => 5,
            Self::ClaimStalled | Self::ClaimLoopStalled | Self::WorkerHung | Self::BrainHung => 6,
            Self::WorkerDead
            | Self::WorkerStarved
            | Self::WorkerBacksOff
            | Self::GpuQuarantined
            | Self::ServerBusy
            | Self::ServerWedged
            | Self::ServerDown
            | Self::Thermal
            | Self::VramShort
            | Self::ModelLoading
            | Self::ModelSilent
            | Self::ModelNotLoaded => 7,
            Self::WorkerBusy | Self::WorkerDraining | Self::Draining | Self::RacesLost => 8,
            Self::LaneIneligible | Self::QueueEmpty => 9,
            Self::ClassNotTaken | Self::WorkerAddressed => 10,
            Self::BrainAbsent | Self::Unknown => 11,
        }
    }

    /// Whether waiting alone, with the pool as it is now, cannot remove it.
    #[must_use]
    pub const fn is_impossible(self) -> bool {
        match self {
            Self::ClassNoWorker
            | Self::GpuNone
            | Self::ModelMissing
            | Self::ModelTooBig
            | Self::VramNever
            | Self::DependencyFailed => true,
            Self::HeldApproval
            | Self::HeldPerson
            | Self::HeldBrake
            | Self::WaitingDependency
            | Self::DelayedUntil
            | Self::LimitReached
            | Self::Paused
            | Self::ClassNotTaken
            | Self::WorkerAddressed
            | Self::WorkerBusy
            | Self::WorkerDead
            | Self::WorkerHung
            | Self::WorkerDraining
            | Self::WorkerStarved
            | Self::WorkerBacksOff
            | Self::WorkerNeverStarted
            | Self::ModelNotLoaded
            | Self::ModelLoading
            | Self::ModelSilent
            | Self::VramShort
            | Self::GpuQuarantined
            | Self::ServerBusy
            | Self::ServerWedged
            | Self::ServerDown
            | Self::BrainAbsent
            | Self::BrainHung
            | Self::ClaimStalled
            | Self::JobUnkillable
            | Self::JobMayRun
            | Self::DiskFull
            | Self::DirectoryUnlisted
            | Self::LogCut
            | Self::QueueEmpty
            | Self::LaneIneligible
            | Self::Draining
            | Self::Thermal
            | Self::RacesLost
            | Self::ClaimLoopStalled
            | Self::Unknown => false,
        }
    }
}

/// One thing that stands in the way: code for scripts, sentence for people, and the proof.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Which of the closed list.
    pub code: Code,
    /// One sentence for people; unlike `code` it may be reworded.
    pub text: String,
    /// Who, how many, which figures.
    #[serde(default)]
    pub evidence: Map<String, Value>,
    /// Since when it holds.
    #[serde(default)]
    pub since: Option<Moment>,
    /// The worker it is about.
    #[serde(default)]
    pub worker: Option<Name>,
    /// The lane it is about.
    #[serde(default)]
    pub lane: Option<String>,
    /// How many tasks or tries it stands for.
    #[serde(default)]
    pub count: Option<u64>,
    /// The command that would change it.
    #[serde(default)]
    pub fix: Option<String>,
}

impl Reason {
    /// A reason and its sentence; the rest is unknown until added.
    #[must_use]
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            evidence: Map::new(),
            since: None,
            worker: None,
            lane: None,
            count: None,
            fix: None,
        }
    }

    /// Adds one piece of evidence.
    #[must_use]
    pub fn evidence(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.evidence.insert(key.to_owned(), value.into());
        self
    }

    /// Since when it holds.
    #[must_use]
    pub fn since(mut self, since: Moment) -> Self {
        self.since = Some(since);
        self
    }

    /// The worker it is about.
    #[must_use]
    pub fn worker(mut self, worker: &Name) -> Self {
        self.worker = Some(worker.clone());
        self
    }

    /// The lane it is about.
    #[must_use]
    pub fn lane(mut self, lane: impl Into<String>) -> Self {
        self.lane = Some(lane.into());
        self
    }

    /// How many tasks or tries it stands for.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// The command that would change it.
    #[must_use]
    pub fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix = Some(command.into());
        self
    }
}

/// Puts what decides most first, and says nothing twice.
#[must_use]
pub fn in_order(mut reasons: Vec<Reason>) -> Vec<Reason> {
    let mut told = HashSet::new();
    reasons.retain(|reason| told.insert((reason.code, reason.worker.clone(), reason.text.clone())));
    reasons.sort_by_key(|reason| reason.code.weight());
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_written_as_null() {
        let json = serde_json::to_value(Reason::new(Code::DiskFull, "the disk is full")).unwrap();
        let expected = serde_json::json!({
            "code": "disk.full", "text": "the disk is full", "evidence": {},
            "since": null, "worker": null, "lane": null, "count": null, "fix": null,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_reason_reads_what_it_writes() {
        let reason = Reason::new(Code::WorkerBusy, "worker-1 runs something else")
            .worker(&"worker-1".parse().unwrap())
            .since(Moment::from_unix_millis(1_700_000_000_000))
            .lane("script-ab12")
            .count(3)
            .fix("queue cancel d5de16d7")
            .evidence("slots", 1);
        let text = serde_json::to_string(&reason).unwrap();
        assert_eq!(serde_json::from_str::<Reason>(&text).unwrap(), reason);
    }

    #[test]
    fn no_two_codes_share_a_word() {
        let mut words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
    }
}
