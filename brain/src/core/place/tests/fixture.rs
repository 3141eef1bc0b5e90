//! What the tables start from: workers with servers, and work that waits.

use std::sync::Arc;
use std::time::Duration;

use queue::wire::counts::{Counts, LaneCount};
use queue::wire::lane::Requirements;
use queue::wire::ledger_line::{About as Ended, Brief};
use shared::gpu::{GpuReading, Reading};
use shared::id::TaskId;
use shared::llm::{Health, HeldModel, HeldState, Loads, ModelServer, ModelVerb, ServerKind};
use shared::outcome::{Cause, Next, Outcome};
use shared::quantity::Bytes;
use shared::settings::Settings;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use crate::core::fixture::{Stage, name};
use crate::core::words::command::Command;
use crate::core::words::placement::ModelRequest;
use crate::core::words::snapshot::{About, Held, Lane};

/// An hour after the beginning of all time: tasks can be older than the stage.
pub(in crate::core::place) const START: Duration = Duration::from_secs(3_600);

pub(in crate::core::place) fn stage_with(settings: &Settings, workers: u32) -> Stage {
    let mut stage = Stage::new(settings);
    stage.now = START;
    for number in 1..=workers {
        let worker = format!("worker-{number}");
        stage.add_worker(&worker, Some(number));
        let now = stage.at().wall;
        stage.beat(&worker, |beat| {
            beat.at = now;
            beat.ability.classes = vec![Class::Resource, Class::Script, Class::Cpu, Class::Llm];
            beat.ability.server = Some(server(number));
        });
    }
    stage.look();
    stage
}

pub(in crate::core::place) fn stage(workers: u32) -> Stage {
    stage_with(&Settings::default(), workers)
}

pub(in crate::core::place) fn server(number: u32) -> ModelServer {
    ModelServer {
        kind: ServerKind::Ollama,
        address: format!("http://127.0.0.1:{}", 11_436 + number),
        loads: Loads::OnRequest,
        health: Health::Up,
        health_since: Moment::from_unix_millis(0),
        error: None,
        models: Vec::new(),
        known: None,
        failed_loads: Vec::new(),
        busy: Vec::new(),
        canary: None,
    }
}

pub(in crate::core::place) fn set(
    stage: &mut Stage,
    worker: &str,
    change: impl FnOnce(&mut ModelServer),
) {
    let now = stage.at().wall;
    stage.beat(worker, |beat| {
        beat.at = now;
        change(beat.ability.server.as_mut().unwrap());
    });
}

/// The worker holds this model, for so many seconds already.
pub(in crate::core::place) fn holds(stage: &mut Stage, worker: &str, model: &str, seconds: i64) {
    let since = stage.at().wall.plus_millis(-seconds * 1_000);
    let held = HeldModel {
        model: model.into(),
        state: HeldState::Loaded,
        since,
        size: None,
        vram: None,
        error: None,
    };
    set(stage, worker, |server| server.models = vec![held]);
}

/// Work that waits: class, model, tasks, seconds the oldest has waited, priority.
#[derive(Clone, Copy)]
pub(in crate::core::place) struct Work(
    pub(in crate::core::place) Class,
    pub(in crate::core::place) &'static str,
    pub(in crate::core::place) u64,
    pub(in crate::core::place) i64,
    pub(in crate::core::place) u8,
);

pub(in crate::core::place) fn llm(model: &'static str, tasks: u64) -> Work {
    Work(Class::Llm, model, tasks, 1, 5)
}

pub(in crate::core::place) fn scripts(tasks: u64) -> Work {
    Work(Class::Script, "", tasks, 1, 5)
}

pub(in crate::core::place) fn waits(stage: &mut Stage, all: &[Work]) {
    let now = stage.at().wall;
    let lanes: Vec<Lane> = all.iter().map(|work| lane(now, *work)).collect();
    let pending = all.iter().map(|work| work.2).sum();
    let counts = lanes.iter().map(|lane| lane.count.clone()).collect();
    stage.seen.counts = Some(Arc::new(Counts { pending, lanes: counts, ..Counts::default() }));
    stage.seen.lanes = lanes;
}

pub(in crate::core::place) fn lane(
    now: Moment,
    Work(class, model, pending, age, priority_max): Work,
) -> Lane {
    let model = (class == Class::Llm).then(|| model.to_owned());
    let needs = Requirements {
        class,
        model: model.clone(),
        gpu_memory: None,
        limits: Vec::new(),
        worker: None,
        max_wait: None,
    };
    let oldest = Some(now.plus_millis(-age * 1_000));
    let (lane, head) = (needs.lane(), Some(TaskId::new()));
    let count = LaneCount { lane, class, model, priority_max, pending, head, oldest };
    Lane { count, needs: Some(Arc::new(needs)), limited: None, most: None }
}

/// Who is asked for what, as `worker-1 load_llm m`.
pub(in crate::core::place) fn asked(commands: &[Command]) -> Vec<String> {
    let requests = commands.iter().filter_map(|command| {
        if let Command::Request(request) = command { Some(request) } else { None }
    });
    let text = |ModelRequest { worker, verb, model, goal }: &ModelRequest| {
        let room = if goal == model { String::new() } else { format!(" for {goal}") };
        format!("{worker} {verb} {model}{room}")
    };
    requests.map(text).collect()
}

pub(in crate::core::place) fn all_load(model: &str, workers: u32) -> Vec<String> {
    (1..=workers).map(|number| format!("worker-{number} load_llm {model}")).collect()
}

pub(in crate::core::place) fn decide(stage: &mut Stage) -> Vec<String> {
    asked(&stage.look())
}

pub(in crate::core::place) fn request(
    worker: &str,
    verb: ModelVerb,
    model: &str,
    goal: &str,
) -> Held {
    let about = About {
        name: verb.to_string(),
        class: Class::Resource,
        stall_timeout: None,
        log_cap: None,
        model: Some(model.into()),
        verb: Some(verb),
        goal: Some(goal.into()),
    };
    let name_of = TaskName::first(TaskId::new());
    Held { worker: name(worker), name: name_of, task: Some(Arc::new(about)) }
}

/// A request of this worker ended, just now.
pub(in crate::core::place) fn request_ended(
    stage: &mut Stage,
    worker: &str,
    model: &str,
    cause: Option<Cause>,
) {
    let next_name = TaskName::first(TaskId::new());
    let outcome = if cause.is_some() { Outcome::Failed } else { Outcome::Succeeded };
    let at = stage.at().wall;
    stage.seen.ended.push(Brief {
        id: next_name.id,
        attempt: 1,
        outcome,
        cause,
        next: Next::End,
        next_name,
        worker: Some(name(worker)),
        started_at: Some(at.plus_millis(-5_000)),
        ended_at: at,
        answer: None,
        task: Ended {
            class: Some(Class::Resource),
            model: Some(model.into()),
            verb: Some(ModelVerb::Load),
        },
    });
}

pub(in crate::core::place) fn has_memory(stage: &mut Stage, worker: &str, total: u64, used: u64) {
    stage.beat(worker, |beat| {
        beat.ability.gpu_memory = Some(Bytes(total << 30));
        let mut reading = GpuReading::failed(1, None);
        reading.memory_used = Reading::Known(used << 30);
        beat.gpu_reading = Some(reading);
    });
}

/// A model of this size was loaded once.
pub(in crate::core::place) fn has_size(stage: &mut Stage, model: &str, gib: u64) {
    holds(stage, "worker-1", model, 1);
    set(stage, "worker-1", |server| {
        server.models[0].vram = Some(Bytes(gib << 30));
        server.models[0].size = Some(Bytes(gib << 30));
    });
    stage.look();
    set(stage, "worker-1", |server| server.models.clear());
}
