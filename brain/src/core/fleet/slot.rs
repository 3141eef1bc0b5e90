//! One place: what stands there, or why nothing does and until when.

use std::collections::VecDeque;
use std::time::Duration;

use shared::event::Event;
use shared::name::Name;
use shared::time::Moment;

use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::{Life, Snapshot};
use crate::core::words::worker_spec::{WorkerExit, WorkerKind, WorkerSpec};

/// A worker that lived longer did not fail to start.
const GOOD_LIFE: Duration = Duration::from_secs(60);
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) backoff_first: Duration,
    pub(super) backoff_max: Duration,
    pub(super) breaker_failures: usize,
    pub(super) breaker_window: Duration,
    /// From TERM to KILL when the brain ends.
    pub(super) patience: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) place: WorkerSpec,
    pub(super) state: State,
    /// Failures within the breaker's window.
    pub(super) failures: VecDeque<Duration>,
    /// Failures without a good life in between.
    pub(super) in_row: u32,
    /// Which one of how many started in the same cycle.
    pub(super) batch: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// Nothing stands there, or somebody else's worker.
    Vacant,
    /// Asked for; the answer is not in yet.
    Asked,
    Running {
        since: Duration,
    },
    /// Asked to finish and go, because fewer are wanted.
    Retiring {
        since: Duration,
        idle: Duration,
    },
    BackOff {
        until: Duration,
    },
    /// Failed too often: not before then.
    Broken {
        until: Duration,
        since: Moment,
    },
    /// It drained; not before that is taken back.
    Drained,
}

/// The end of a worker's process that the brain had not asked for.
pub(super) struct Unasked {
    pub(super) pid: u32,
    pub(super) lived: Duration,
    pub(super) exit: WorkerExit,
    /// Whether somebody had asked the worker to drain.
    pub(super) drained: bool,
}

impl Slot {
    pub(super) fn new(place: WorkerSpec) -> Self {
        let failures = VecDeque::new();
        Self { place, state: State::Vacant, failures, in_row: 0, batch: (1, 1) }
    }

    pub(super) fn is_ours(&self) -> bool {
        match self.state {
            State::Asked | State::Running { .. } | State::Retiring { .. } => true,
            State::Vacant | State::BackOff { .. } | State::Broken { .. } | State::Drained => false,
        }
    }

    pub(super) fn has_process(&self) -> bool {
        self.is_ours() && self.state != State::Asked
    }

    /// Whether somebody else's worker stands at the place.
    pub(super) fn is_taken(&self, seen: &Snapshot) -> bool {
        !self.is_ours() && self.stands(seen, Life::Alive)
    }

    /// Whether the worker that stands at the place takes nothing because its GPU is out of use.
    pub(super) fn is_quarantined(&self, seen: &Snapshot) -> bool {
        let worker = seen.workers.get(&self.place.worker);
        worker.is_some_and(|worker| worker.is_alive() && worker.is_quarantined())
    }

    /// Whether a worker of this name, or on this GPU, is in that state.
    pub(super) fn stands(&self, seen: &Snapshot, life: Life) -> bool {
        let here = |name: &Name, gpu: Option<u32>| {
            *name == self.place.worker
                || matches!(self.place.kind, WorkerKind::Gpu(ours) if gpu == Some(ours))
        };
        seen.workers.iter().any(|(name, worker)| worker.life == life && here(name, worker.gpu()))
    }
}

impl Slot {
    /// Its process ended while nobody had asked for that.
    pub(super) fn ended(&mut self, at: At, rules: Rules, end: Unasked, out: &mut Vec<Command>) {
        let Unasked { pid, lived, exit, drained } = end;
        if matches!(exit, WorkerExit::Code(0) | WorkerExit::Unknown) && drained {
            self.state = State::Drained;
            return;
        }
        let (exit_code, signal) = match exit {
            WorkerExit::Code(code) => (Some(code), None),
            WorkerExit::Signal(signal) => (None, Some(signal)),
            WorkerExit::Unknown => (None, None),
        };
        let (worker, seconds) = (self.place.worker.clone(), lived.as_secs_f64());
        say(out, Event::WorkerExited { worker, pid, exit_code, signal, seconds });
        if lived >= GOOD_LIFE {
            self.in_row = 0;
        }
        if exit == WorkerExit::Code(0) {
            // Told to by somebody: no failure, but no reason to hurry either.
            self.state = State::BackOff { until: at.now + rules.backoff_first };
        } else {
            self.failed(at, rules, out);
        }
    }

    pub(super) fn failed(&mut self, at: At, rules: Rules, out: &mut Vec<Command>) {
        self.in_row += 1;
        self.failures.push_back(at.now);
        let window = rules.breaker_window;
        while self.failures.front().is_some_and(|first| at.now.saturating_sub(*first) > window) {
            self.failures.pop_front();
        }
        let worker = self.place.worker.clone();
        if self.failures.len() >= rules.breaker_failures {
            self.state = State::Broken { until: at.now + window, since: at.wall };
            let failures = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
            let window_seconds = window.as_secs_f64();
            say(out, Event::BreakerOpen { worker, failures, window_seconds });
            return;
        }
        let factor = 1_u32 << (self.in_row - 1).min(16);
        let wait = rules.backoff_first.saturating_mul(factor).min(rules.backoff_max);
        self.state = State::BackOff { until: at.now + wait };
        let (failures, seconds) = (self.in_row, wait.as_secs_f64());
        say(out, Event::SpawnBackOff { worker, failures, seconds });
    }
}
