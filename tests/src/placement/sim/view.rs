//! What the brain sees of a pool that is only told of.

use std::sync::Arc;

use brain::core::words::snapshot::{About, Held, Lane, Life, Snapshot, Worker as SeenWorker};
use queue::wire::counts::{Counts, LaneCount};
use queue::wire::heartbeat::{Ability, ClaimReport, Heartbeat, SCHEMA, Status};
use queue::wire::lane::Requirements;
use queue::wire::lease_record::{Process, Record};
use queue::wire::ledger_line::{About as Ended, Brief};
use shared::gpu::{GpuReading, Reading};
use shared::id::Incarnation;
use shared::llm::{Health, HeldModel, HeldState, Loads, ModelServer, ServerKind};
use shared::name::Name;
use shared::outcome::{Next, Outcome};
use shared::quantity::Bytes;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use super::{Doing, Open, START, Sim, Worker, millis};

/// The n-th worker's name.
pub(in crate::placement) fn worker_name(index: usize) -> Name {
    format!("worker-{}", index + 1).parse().expect("it is a name")
}

fn wall(time: u64) -> Moment {
    Moment::from_unix_millis(START).plus_millis(millis(time))
}

/// An attempt that succeeded.
pub(in crate::placement) fn brief(
    index: usize,
    name: TaskName,
    task: Ended,
    began: u64,
    ended: u64,
) -> Brief {
    Brief {
        id: name.id,
        attempt: name.attempt,
        outcome: Outcome::Succeeded,
        cause: None,
        next: Next::End,
        next_name: name,
        worker: Some(worker_name(index)),
        started_at: Some(wall(began)),
        ended_at: wall(ended),
        answer: None,
        task,
    }
}

/// One look.
pub(in crate::placement) fn snapshot(sim: &Sim<'_>, cycle: u64) -> Snapshot {
    let lanes: Vec<Lane> = sim
        .lanes
        .iter()
        .zip(&sim.waiting)
        .filter_map(|(lane, waiting)| {
            let mut lane = lane.clone();
            lane.count.oldest = Some(wall(sim.set_up.prompts[*waiting.front()?].arrives));
            lane.count.pending = waiting.len() as u64;
            Some(lane)
        })
        .collect();
    let counts = Counts {
        pending: lanes.iter().map(|lane| lane.count.pending).sum(),
        lanes: lanes.iter().map(|lane| lane.count.clone()).collect(),
        ..Counts::default()
    };
    let workers = sim.workers.iter().enumerate();
    Snapshot {
        cycle,
        counts: Some(Arc::new(counts)),
        lanes,
        workers: workers
            .map(|(index, worker)| (worker_name(index), seen(sim, index, worker)))
            .collect(),
        processing: processing(sim),
        requests: sim.open.iter().map(request).collect(),
        ended: sim.ended.clone(),
        ..Snapshot::default()
    }
}

/// The lane of a model, without tasks. Its name is a hash, and so is made once.
pub(in crate::placement) fn lane(model: &str) -> Lane {
    let needs = Requirements {
        class: Class::Llm,
        model: Some(model.to_owned()),
        gpu_memory: None,
        limits: Vec::new(),
        worker: None,
        max_wait: None,
    };
    let count = LaneCount {
        lane: needs.lane(),
        class: Class::Llm,
        model: needs.model.clone(),
        priority_max: 5,
        pending: 0,
        head: None,
        oldest: None,
    };
    Lane { count, needs: Some(Arc::new(needs)), limited: None, most: None }
}

fn request(open: &Open) -> Held {
    let about = About {
        name: open.what.verb.to_string(),
        class: Class::Resource,
        stall_timeout: None,
        log_cap: None,
        model: Some(open.what.model.clone()),
        verb: Some(open.what.verb),
        goal: Some(open.what.goal.clone()),
    };
    Held { worker: open.what.worker.clone(), name: open.name, task: Some(Arc::new(about)) }
}

fn processing(sim: &Sim<'_>) -> Vec<Held> {
    let each = sim.workers.iter().enumerate().filter_map(|(index, worker)| match &worker.doing {
        Doing::Request { request: open, .. } => Some(request(open)),
        Doing::Prompt { prompt, .. } => {
            let model = sim.set_up.models[sim.set_up.prompts[*prompt].model].name.clone();
            let about = About {
                name: "prompt".to_owned(),
                class: Class::Llm,
                stall_timeout: None,
                log_cap: None,
                model: Some(model),
                verb: None,
                goal: None,
            };
            let name = TaskName::first(shared::id::TaskId::new());
            Some(Held { worker: worker_name(index), name, task: Some(Arc::new(about)) })
        }
        Doing::Nothing | Doing::Dead => None,
    });
    each.collect()
}

fn seen(sim: &Sim<'_>, index: usize, worker: &Worker) -> SeenWorker {
    let name = worker_name(index);
    let life = incarnation(worker.life);
    let process = Process { pid: 7, host: "host".to_owned(), ..Process::default() };
    let gpu = u32::try_from(index).ok();
    let record = Record { gpu, ..Record::of(name.clone(), process.clone(), life.clone(), wall(0)) };
    let dead = worker.doing == Doing::Dead;
    let heartbeat = Heartbeat {
        uptime: None,
        schema: SCHEMA.to_owned(),
        worker: name,
        process,
        life,
        version: String::new(),
        started_at: wall(0),
        at: wall(worker.changed),
        // The simulated ones never hang.
        seq: sim.now,
        status: Status::Idle,
        ability: ability(sim, index, worker),
        current: Vec::new(),
        gpu_reading: reading(sim, worker),
        claim: ClaimReport::default(),
        completed: worker.turn,
        failed: 0,
        lost_races: 0,
        idle_since: None,
        log_seq: 0,
    };
    SeenWorker {
        life: if dead { Life::Over } else { Life::Alive },
        record: Some(Arc::new(record)),
        heartbeat: Some(Arc::new(heartbeat)),
        process: Some('S'),
    }
}

fn incarnation(number: u32) -> Incarnation {
    let text = serde_json::Value::String(format!("{number:012x}"));
    serde_json::from_value(text).expect("it is written as a life is")
}

fn ability(sim: &Sim<'_>, index: usize, worker: &Worker) -> Ability {
    let held = worker.held.iter().map(|(model, since)| {
        let model = &sim.set_up.models[*model];
        let bytes = Some(Bytes(model.gib << 30));
        let vram = sim.set_up.gpu_gib.and(bytes);
        let (state, since) = (HeldState::Loaded, wall(*since));
        HeldModel { model: model.name.clone(), state, since, size: bytes, vram, error: None }
    });
    let server = ModelServer {
        kind: ServerKind::Ollama,
        address: format!("http://127.0.0.1:{}", 11_437 + index),
        loads: Loads::OnRequest,
        health: Health::Up,
        health_since: wall(0),
        error: None,
        models: held.collect(),
        known: None,
        failed_loads: Vec::new(),
        busy: Vec::new(),
        canary: None,
    };
    Ability {
        classes: vec![Class::Resource, Class::Llm],
        gpu: u32::try_from(index).ok(),
        gpu_uuid: None,
        gpu_memory: sim.set_up.gpu_gib.map(|gib| Bytes(gib << 30)),
        gpu_state: queue::wire::heartbeat::gpu_state::GpuState::default(),
        gpu_slots: 1,
        cpu_slots: 1,
        paused: None,
        draining: None,
        starved: None,
        backs_off: Vec::new(),
        server: Some(server),
    }
}

fn reading(sim: &Sim<'_>, worker: &Worker) -> Option<GpuReading> {
    sim.set_up.gpu_gib?;
    let mut reading = GpuReading::failed(0, None);
    let held = worker.held.iter().map(|(model, _since)| sim.set_up.models[*model].gib << 30);
    reading.memory_used = Reading::Known(held.sum());
    Some(reading)
}
