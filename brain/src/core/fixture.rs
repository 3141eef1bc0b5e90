//! A pool that is only told of: snapshots for the tables of the tests.

use std::sync::Arc;
use std::time::Duration;

use queue::wire::counts::{Counts, LaneCount};
use queue::wire::heartbeat::{Ability, ClaimReport, Heartbeat, Run, SCHEMA, Status};
use queue::wire::lane::Requirements;
use queue::wire::lease_record::{Process, Record};
use queue::wire::ledger_line::{About as Ended, Brief};
use shared::id::{Incarnation, TaskId};
use shared::name::Name;
use shared::outcome::{Next, Outcome};
use shared::settings::Settings;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use super::Core;
use super::fleet::Fleet;
use super::words::at::At;
use super::words::command::Command;
use super::words::event::Event;
use super::words::snapshot::{About, Held, Lane, Life, Snapshot, Worker};
use super::words::worker_spec::{WorkerKind, WorkerSpec};

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A brain, what it sees, and the time.
pub(crate) struct Stage {
    pub(crate) core: Core,
    pub(crate) now: Duration,
    pub(crate) seen: Snapshot,
}

impl Stage {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self::with(settings, Vec::new())
    }

    pub(crate) fn with(settings: &Settings, places: Vec<WorkerSpec>) -> Self {
        let core = Core::new(settings, Fleet::new(places, settings));
        let seen = Snapshot { counts: Some(Arc::default()), ..Snapshot::default() };
        Self { core, now: Duration::ZERO, seen }
    }

    pub(crate) fn at(&self) -> At {
        let millis = i64::try_from(self.now.as_millis()).unwrap();
        At { now: self.now, wall: Moment::from_unix_millis(millis) }
    }

    pub(crate) fn tell(&mut self, event: Event) -> Vec<Command> {
        self.core.on(self.at(), event)
    }

    pub(crate) fn look(&mut self) -> Vec<Command> {
        self.seen.cycle += 1;
        let commands = self.tell(Event::Observed(Box::new(self.seen.clone())));
        self.seen.ended.clear();
        commands
    }

    /// Looks once a second; all that was commanded, except MONITOR lines.
    pub(crate) fn pass(&mut self, seconds: u64) -> Vec<Command> {
        let mut all = Vec::new();
        for _second in 0..seconds {
            self.now += Duration::from_secs(1);
            all.extend(self.look());
        }
        all
    }

    /// The same, as the names of the events that were said.
    pub(crate) fn said(&mut self, seconds: u64) -> Vec<&'static str> {
        names(&self.pass(seconds))
    }

    pub(crate) fn worker(&mut self, worker: &str) -> &mut Worker {
        self.seen.workers.get_mut(&name(worker)).unwrap()
    }

    pub(crate) fn beat(&mut self, worker: &str, change: impl FnOnce(&mut Heartbeat)) {
        let worker = self.worker(worker);
        let mut heartbeat = worker.heartbeat.as_deref().cloned().unwrap();
        heartbeat.seq += 1;
        change(&mut heartbeat);
        worker.heartbeat = Some(Arc::new(heartbeat));
    }

    pub(crate) fn add_worker(&mut self, worker: &str, gpu: Option<u32>) {
        self.seen.workers.insert(name(worker), alive(worker, gpu));
    }

    /// So many pending tasks of a class, in one lane; returns the first.
    pub(crate) fn lane(&mut self, class: Class, pending: u64) -> TaskId {
        let needs = Requirements {
            class,
            model: None,
            gpu_memory: None,
            limits: Vec::new(),
            worker: None,
            max_wait: None,
        };
        let head = TaskId::new();
        let count = LaneCount {
            lane: needs.lane(),
            class,
            model: None,
            priority_max: 5,
            pending,
            head: Some(head),
            oldest: None,
        };
        self.seen.lanes = vec![Lane {
            count: count.clone(),
            needs: Some(Arc::new(needs)),
            limited: None,
            most: None,
        }];
        self.seen.counts =
            Some(Arc::new(Counts { pending, lanes: vec![count], ..Counts::default() }));
        head
    }

    /// A task that `worker` has claimed and runs.
    pub(crate) fn runs(&mut self, worker: &str, quiet: Option<f64>) -> TaskName {
        let task = TaskName::first(TaskId::new());
        self.claimed(worker, task, None);
        self.beat(worker, |heartbeat| heartbeat.current = vec![run(task, quiet)]);
        task
    }

    pub(crate) fn claimed(&mut self, worker: &str, task: TaskName, stall: Option<u64>) {
        let stall_timeout = stall.map(Duration::from_secs);
        let about = About {
            name: "train".into(),
            class: Class::Script,
            stall_timeout,
            log_cap: None,
            model: None,
            verb: None,
            goal: None,
        };
        let worker = name(worker);
        self.seen.processing.push(Held { worker, name: task, task: Some(Arc::new(about)) });
    }

    pub(crate) fn ended(&mut self, worker: &str, class: Class, count: u32) {
        for _task in 0..count {
            let next_name = TaskName::first(TaskId::new());
            self.seen.ended.push(Brief {
                id: next_name.id,
                attempt: 1,
                outcome: Outcome::Succeeded,
                cause: None,
                next: Next::End,
                next_name,
                worker: Some(name(worker)),
                started_at: None,
                ended_at: Moment::from_unix_millis(0),
                answer: None,
                task: Ended { class: Some(class), model: None, verb: None },
            });
        }
    }
}

pub(crate) fn run(task: TaskName, quiet: Option<f64>) -> Run {
    Run {
        task_id: task.id,
        attempt: task.attempt,
        class: Class::Script,
        name: "train".into(),
        gpu_memory: None,
        started_at: Some(Moment::from_unix_millis(0)),
        pgid: None,
        last_output_age_seconds: quiet,
        quiet_seconds: quiet,
        evidence: serde_json::Map::new(),
        peak_vram_bytes: None,
        kept: None,
        log: None,
    }
}

fn alive(worker: &str, gpu: Option<u32>) -> Worker {
    let (life, worker) = (Incarnation::new(), name(worker));
    let process = Process { pid: 7, ..Process::default() };
    let since = Moment::from_unix_millis(0);
    let record = Record { gpu, ..Record::of(worker.clone(), process.clone(), life.clone(), since) };
    let ability = Ability {
        classes: vec![Class::Script, Class::Cpu],
        gpu,
        gpu_uuid: None,
        gpu_memory: None,
        gpu_state: queue::wire::heartbeat::gpu_state::GpuState::default(),
        gpu_slots: 1,
        cpu_slots: 1,
        paused: None,
        draining: None,
        starved: None,
        backs_off: Vec::new(),
        server: None,
    };
    let heartbeat = Heartbeat {
        schema: SCHEMA.into(),
        worker,
        process,
        life,
        version: String::new(),
        started_at: Moment::from_unix_millis(0),
        at: Moment::from_unix_millis(0),
        uptime: None,
        seq: 1,
        status: Status::Idle,
        ability,
        current: Vec::new(),
        gpu_reading: None,
        claim: ClaimReport::default(),
        completed: 0,
        failed: 0,
        lost_races: 0,
        idle_since: None,
        log_seq: 0,
    };
    Worker {
        life: Life::Alive,
        record: Some(Arc::new(record)),
        heartbeat: Some(Arc::new(heartbeat)),
        process: Some('S'),
    }
}

pub(crate) fn gpus(count: u32) -> Vec<WorkerSpec> {
    let place =
        |gpu| WorkerSpec { worker: name(&format!("worker-{gpu}")), kind: WorkerKind::Gpu(gpu) };
    (0..count).map(place).collect()
}

fn said(commands: &[Command]) -> impl Iterator<Item = &shared::event::Event> {
    commands.iter().filter_map(
        |command| {
            if let Command::Say(event) = command { Some(event) } else { None }
        },
    )
}

/// The events that were said, without MONITOR lines and scaling decisions.
pub(crate) fn names(commands: &[Command]) -> Vec<&'static str> {
    let names = said(commands).map(shared::event::Event::name);
    let routine = ["brain.monitor", "brain.statistics", "models.no_load", "scaling.decision"];
    names.filter(|name| !routine.contains(name)).collect()
}

/// What was said in words, of one kind.
pub(crate) fn words(commands: &[Command], name: &str) -> Vec<String> {
    said(commands).filter(|event| event.name() == name).map(|event| event.message()).collect()
}
