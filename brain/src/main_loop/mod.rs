//! The loop: one cycle per second, or when the doorbell rings; and whatever the threads report,
//! at once. Each step of a cycle stands alone: one that fails, or panics, is said, and the others
//! go on.

pub(super) mod act;
pub(super) mod health;
pub(super) mod signals;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use queue::cli::Failure;
use queue::dir::disk::lock::Lock;
use queue::dir::disk::reserve;
use queue::dir::ledger::append::Ledger;
use queue::dir::recover::settle::Patience;
use queue::dir::signal::control::{self, Verb};
use queue::dir::signal::doorbell::{Bells, Listener};
use queue::wire::brain_state::{BrainRecord, ChildProcess};
use queue::wire::model_stats::Measured;
use queue::{Error, Pool};
use shared::event::{Event as Said, Repeaters, Say};
use shared::gpu::GpuReading;
use shared::name::Name;
use shared::settings::Settings;
use shared::time::Moment;
use shared::{emit, log};

use crate::core::fleet::{Exit, Fleet};
use crate::core::words::snapshot::{Paused, Snapshot, Worker};
use crate::core::{At, Core, Event};
use crate::effects::children::{Children, Spawning};
use crate::effects::lease_watch::{Report, Watchers};
use crate::effects::publish::Publisher;
use crate::effects::recovery::Recovery;
use crate::main_loop::health::{Guard, Named};
use crate::main_loop::signals::Signal;
use crate::observe::gpu_readings;
use crate::observe::pool::{Observer, last_state};

/// A cycle at least this often.
const TICK: Duration = Duration::from_secs(1);
/// A cycle at most this often, however often the bell rings.
const BREATH: Duration = Duration::from_millis(100);
/// How long the first cycle waits for the GPUs.
const FIRST_READING: Duration = Duration::from_secs(1);
/// From KILL until the processes of a dead worker's job are called unkillable.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How long the end waits for affairs that are being settled.
const LAST_WAIT: Duration = Duration::from_secs(15);

/// What the threads report.
pub(crate) enum Message {
    /// About workers that died.
    Watch(Report),
    /// A worker that we had started ended.
    Exited { worker: Name, pid: u32, exit: Exit },
    /// What the GPUs say.
    Gpus(Vec<GpuReading>),
    /// Nobody can ask the GPUs, and why.
    NoGpus(String),
}

/// What the brain is made from.
pub(crate) struct Parts {
    pub(crate) pool: Pool,
    pub(crate) ledger: Ledger,
    pub(crate) settings: Settings,
    pub(crate) fleet: Fleet,
    pub(crate) gpus: Vec<u32>,
    pub(crate) record: BrainRecord,
    pub(crate) lock: Lock,
    pub(crate) log: log::Handle,
    pub(crate) signals: Receiver<Signal>,
    pub(crate) spawning: Spawning,
}

/// The running brain.
pub(crate) struct Brain {
    pub(crate) pool: Pool,
    pub(crate) core: Core,
    pub(crate) children: Children,
    pub(crate) publisher: Publisher,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) lock: Guard,
    pub(crate) log: log::Handle,
    /// When the last summary was said.
    pub(crate) summed_up: Duration,
    signals: Receiver<Signal>,
    messages: Receiver<Message>,
    pub(crate) bell: Listener,
    pub(crate) observer: Observer,
    recovery: Recovery,
    watchers: Watchers,
    places: Vec<Name>,
    /// What the last brain had started.
    orphans: Vec<ChildProcess>,
    /// What it had measured.
    remembered: Option<Measured>,
    named_gpus: Vec<u32>,
    gpus: Option<Vec<GpuReading>>,
    pub(crate) started: Instant,
    pub(crate) cycle: u64,
    failing: Repeaters<&'static str>,
    pub(crate) failed: BTreeSet<&'static str>,
    end: End,
    /// Dropped at the end: threads that wait for something else notice that.
    _alive: Sender<()>,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// All workers are gone; what they left may still be settled until then.
    By(Instant),
}

impl Brain {
    /// Everything at hand, nothing done yet.
    pub(crate) fn new(parts: Parts) -> Result<Self, Failure> {
        let Parts { pool, ledger, settings, fleet, gpus, record, lock, log, signals, spawning } =
            parts;
        let (tell, messages) = unbounded();
        let (alive, end) = bounded(0);
        gpu_readings::start(tell.clone(), end.clone()).map_err(|err| {
            Failure::new(shared::exit::UNEXPECTED, format!("could not start a thread: {err}"))
        })?;
        let ledger = Arc::new(ledger);
        let patience = Patience { grace: settings.grace_period.0, give_up: GIVE_UP };
        let before = last_state(&pool);
        Ok(Self {
            watchers: Watchers::new(&pool, &ledger, patience, (tell.clone(), end)),
            children: Children::new(pool.clone(), spawning, tell),
            publisher: Publisher::new(&pool, record, before.as_ref()),
            observer: Observer::new(&pool, before.as_ref()),
            recovery: Recovery::new(&pool, settings.reserve_size),
            bell: Listener::new(pool.layout(), &Bells::Brain),
            places: fleet.places(),
            core: Core::new(&settings, fleet),
            ledger,
            lock: Guard { lock, named: Named::Yes },
            log,
            summed_up: Duration::ZERO,
            remembered: before.as_ref().map(|state| state.measured.clone()),
            orphans: before.map(|state| state.children).unwrap_or_default(),
            signals,
            messages,
            named_gpus: gpus,
            gpus: None,
            started: Instant::now(),
            cycle: 0,
            failing: Repeaters::default(),
            failed: BTreeSet::new(),
            end: End::NotYet,
            pool,
            _alive: alive,
        })
    }

    /// Now, on both clocks.
    pub(crate) fn at(&self) -> At {
        At { now: self.started.elapsed(), wall: Moment::now() }
    }

    /// Until it is told to end.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        if let Ok(first) = self.messages.recv_timeout(FIRST_READING) {
            self.heed(first);
        }
        if let Some(measured) = self.remembered.take() {
            self.tell(Event::Remembered(Box::new(measured)));
        }
        self.adopt();
        let mut next = Instant::now();
        while !self.is_over() {
            let messages = self.messages.clone();
            let wait = next.saturating_duration_since(Instant::now());
            select! {
                recv(self.signals) -> signal => self.signalled(signal.ok()),
                recv(messages) -> message => message.into_iter().for_each(|m| self.heed(m)),
                recv(self.bell.rung()) -> _rung => next = next.min(Instant::now() + BREATH),
                default(wait) => {}
            }
            for message in messages.try_iter() {
                self.heed(message);
            }
            if Instant::now() >= next {
                self.cycle();
                next = Instant::now() + TICK;
            }
        }
        // What is left behind is as it is now, not as it was a second ago.
        if let Some(snapshot) = self.observe() {
            self.publisher.hurry();
            self.publish(&snapshot);
        }
        emit!(Said::BrainStopped { cycles: self.cycle });
        match self.lock.named {
            Named::Yes => Ok(()),
            Named::No => {
                Err(Failure::new(shared::exit::UNEXPECTED, "the brain's lock was taken away"))
            }
        }
    }

    /// Takes over the workers that the last brain had started and that live on.
    fn adopt(&mut self) {
        for child in std::mem::take(&mut self.orphans) {
            if self.places.contains(&child.worker) && self.children.adopt(&child) {
                self.tell(Event::Adopted { worker: child.worker });
            }
        }
    }

    /// Takes over those that the last brain had started and not yet written down when it died.
    fn adopt_orphans(&mut self, seen: &Snapshot) -> Result<(), Error> {
        let orphan = |(name, worker): (&Name, &Worker)| {
            let process = worker.record.as_ref()?.process.clone();
            let ours = self.places.contains(name) && self.children.is_orphan(name, &process);
            ours.then(|| ChildProcess { worker: name.clone(), process })
        };
        let orphans: Vec<_> = seen.alive().filter_map(orphan).collect();
        for child in orphans {
            if self.children.adopt(&child) {
                self.tell(Event::Adopted { worker: child.worker.clone() });
                // Too late to be told with the others.
                if self.core.is_stopping() {
                    self.children.terminate(&child.worker);
                }
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        match self.end {
            End::NotYet => false,
            End::By(until) => Instant::now() >= until || !self.watchers.is_settling(),
        }
    }

    /// Ends when all affairs are settled. Told twice: now.
    pub(crate) fn finish(&mut self) {
        let now = Instant::now();
        self.end = End::By(match self.end {
            End::NotYet => now + LAST_WAIT,
            End::By(_) => now,
        });
    }

    fn signalled(&mut self, signal: Option<Signal>) {
        match signal {
            Some(Signal::Reopen) => self.log.reopen(),
            Some(Signal::End(name)) => self.tell(Event::Shutdown { signal: name.to_owned() }),
            None => self.tell(Event::Shutdown { signal: "nobody listens for signals".into() }),
        }
    }

    fn heed(&mut self, message: Message) {
        self.step("heed", |brain| {
            brain.hear(message);
            Ok(())
        });
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Watch(report) => {
                self.watchers.note(&report);
                match report {
                    Report::Died(death) => self.tell(Event::Died(death)),
                    Report::Settled(settlement) => self.tell(Event::Settled(settlement)),
                    Report::Over(_worker, _stamp) => {}
                }
            }
            Message::Exited { worker, pid, exit } => {
                self.children.ended(&worker);
                self.tell(Event::Exited { worker, pid, exit });
            }
            Message::Gpus(readings) => self.gpus = Some(readings),
            Message::NoGpus(error) => emit!(Said::NoGpuLibrary { error }),
        }
    }

    fn cycle(&mut self) {
        self.cycle += 1;
        self.bell.arm();
        self.step("check the lock", Self::check_lock);
        if self.cycle == 1 {
            self.step("take back drains", Self::take_back_drains);
        }
        self.recover();
        // What could not be seen must not look as if it were gone: then nothing is decided.
        let Some(snapshot) = self.observe() else { return };
        self.step("take over workers", |brain| brain.adopt_orphans(&snapshot));
        self.step("decide", |brain| {
            brain.tell(Event::Observed(Box::new(snapshot.clone())));
            Ok(())
        });
        self.publish(&snapshot);
        self.sum_up();
    }

    fn publish(&mut self, snapshot: &Snapshot) {
        self.step("publish", |brain| {
            let Brain { core, observer, publisher, children, .. } = brain;
            publisher.publish(snapshot, core.view(), (observer, children))
        });
    }

    /// Drains that a brain asked for which did not live to see them end.
    fn take_back_drains(&mut self) -> Result<(), Error> {
        for (worker, by) in self.observer.drains(&self.places)? {
            if by == "brain" {
                control::withdraw(self.pool.layout(), &worker, Verb::Drain)?;
            }
        }
        Ok(())
    }

    fn recover(&mut self) {
        let ledger = self.ledger.clone();
        self.recovery_step("roll forward", |recovery| recovery.roll_forward());
        self.recovery_step("finish cancels", |recovery| recovery.finish_ends(&ledger));
        self.recovery_step("promote", |recovery| recovery.promote(&ledger));
        self.recovery_step("keep the reserve", |recovery| recovery.keep_reserve());
        self.recovery_step("tidy", |recovery| recovery.tidy());
        self.recovery_step("sweep", |recovery| recovery.sweep());
    }

    fn recovery_step(
        &mut self,
        name: &'static str,
        step: impl FnOnce(&mut Recovery) -> Result<Vec<Said>, Error>,
    ) {
        let events = self.step(name, |brain| step(&mut brain.recovery));
        for event in events.into_iter().flatten() {
            emit!(event);
        }
    }

    fn observe(&mut self) -> Option<Snapshot> {
        let lives = self.step("watch workers", |brain| brain.watchers.look())?;
        self.step("follow the limits", |brain| brain.pool.follow_limits());
        let counts = self.step("count", |brain| brain.observer.counts());
        let lanes = counts.as_ref().and_then(|counts| {
            self.step("read lanes", |brain| brain.observer.lanes(&counts.lanes))
        });
        // A task is counted before it is claimed, listed while it runs, and in the ledger and in its
        // worker's heartbeat when it has ended: looked at in this order, none is overlooked.
        let requests = lanes
            .as_ref()
            .and_then(|lanes| self.step("read requests", |brain| brain.observer.requests(lanes)));
        let processing = self.step("list what runs", |brain| brain.observer.processing())?;
        let workers = self.step("read heartbeats", |brain| brain.observer.workers(&lives))?;
        self.step("follow the ledger", |brain| brain.observer.follow());
        let ended = self.observer.ended();
        let pause = self.step("read the pause", |brain| control::pool_pause(brain.pool.layout()));
        let drains = self.step("read drains", |brain| brain.observer.drains(&brain.places));
        let free = self.step("measure the disk", |brain| reserve::free_space(brain.pool.root()));
        Some(Snapshot {
            cycle: self.cycle,
            counts: counts.map(Arc::new),
            lanes: lanes.unwrap_or_default(),
            workers,
            processing,
            requests: requests.unwrap_or_default(),
            past: ended.past,
            ended: ended.news,
            gpus: self.gpus.clone(),
            named_gpus: self.named_gpus.clone(),
            pool: if pause.flatten().is_some() { Paused::Pool } else { Paused::No },
            drains: drains.unwrap_or_default(),
            free,
        })
    }

    /// One step of a cycle. What goes wrong in it is said and goes no further.
    fn step<T>(
        &mut self,
        name: &'static str,
        step: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Option<T> {
        let now = self.started.elapsed();
        let error = match catch_unwind(AssertUnwindSafe(|| step(self))) {
            Ok(Ok(value)) => {
                self.failing.cleared(&name, now);
                self.failed.remove(name);
                return Some(value);
            }
            Ok(Err(err)) => err.to_string(),
            Err(_said_by_the_panic_hook) => "it panicked".to_owned(),
        };
        self.failed.insert(name);
        let count = match self.failing.seen(name, now) {
            Some(Say::First) => 1,
            Some(Say::Again { count, .. }) => count,
            Some(Say::Cleared { .. }) | None => return None,
        };
        emit!(Said::BrainStepFailed { step: name.to_owned(), error, count });
        None
    }
}
