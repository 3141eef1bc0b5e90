//! The loop: one cycle per second, or when the doorbell rings; and whatever the threads report,
//! at once. Each step of a cycle stands alone: one that fails, or panics, is said, and the others
//! go on.

pub(super) mod act;
mod cycle;
pub(super) mod health;
pub(super) mod signals;
mod step;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use queue::Pool;
use queue::cli::Failure;
use queue::dir::disk::lock::Lock;
use queue::dir::ledger::append::Ledger;
use queue::dir::recover::settle::Patience;
use queue::dir::signal::doorbell::{Bells, Listener};
use queue::wire::brain_state::{BrainRecord, ChildProcess};
use queue::wire::model_stats::ModelStats;
use shared::event::{Event as Said, Repeaters};
use shared::gpu::GpuReading;
use shared::name::Name;
use shared::settings::Settings;
use shared::time::Moment;
use shared::{emit, log};

use crate::core::Core;
use crate::core::fleet::Fleet;
use crate::core::words::at::At;
use crate::core::words::event::Event;
use crate::effects::children::{Children, Spawning};
use crate::effects::lease_watch::Watchers;
use crate::effects::log_caps::LogCaps;
use crate::effects::publish::Publisher;
use crate::effects::recovery::Recovery;
use crate::message::{Message, Report};
use crate::observe::gpu_readings;
use crate::observe::pool::{Observer, last_state};
use crate::observe::unattended::Unattended;
use health::{Guard, Named};
use signals::Signal;

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

/// The core, what is observed for it, and what carries out its commands.
pub(crate) struct Brain {
    pool: Pool,
    core: Core,
    children: Children,
    publisher: Publisher,
    ledger: Arc<Ledger>,
    lock: Guard,
    log: log::Handle,
    /// When the last summary was said.
    summed_up: Duration,
    signals: Receiver<Signal>,
    messages: Receiver<Message>,
    bell: Listener,
    observer: Observer,
    recovery: Recovery,
    log_caps: LogCaps,
    unattended: Unattended,
    watchers: Watchers,
    places: Vec<Name>,
    /// What the last brain had started.
    orphans: Vec<ChildProcess>,
    /// What it had measured.
    remembered: Option<ModelStats>,
    named_gpus: Vec<u32>,
    gpus: Option<Vec<GpuReading>>,
    started: Instant,
    cycle: u64,
    failing: Repeaters<&'static str>,
    failed: BTreeSet<&'static str>,
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
        gpu_readings::start(tell.clone(), end.clone())
            .map_err(|err| Failure::at_start("start a thread", &err))?;
        let ledger = Arc::new(ledger);
        let patience = Patience { grace: settings.grace_period.0, give_up: GIVE_UP };
        let before = last_state(&pool);
        Ok(Self {
            watchers: Watchers::new(&pool, &ledger, patience, tell.clone(), end),
            children: Children::new(pool.clone(), spawning, tell),
            publisher: Publisher::new(&pool, record, log::Rotation::of(&settings), before.as_ref()),
            observer: Observer::new(&pool, before.as_ref()),
            recovery: Recovery::new(&pool, settings.reserve_size),
            log_caps: LogCaps::new(&pool),
            unattended: Unattended::new(settings.heartbeat_interval.0),
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
                    Report::Over(_worker, _version) => {}
                }
            }
            Message::Exited(end) => {
                self.children.ended(&end.worker);
                self.tell(Event::Exited(end));
            }
            Message::Gpus(readings) => self.gpus = Some(readings),
            Message::NoGpus(error) => emit!(Said::NoGpuLibrary { error }),
        }
    }
}
