//! `queue gpus`: what the GPUs say, and which worker and which tasks use them. Where this machine
//! has no GPU library, what workers on other machines last said is shown.

use std::collections::BTreeMap;

use clap::Args;
use queue::view::{self, Worker};
use serde_json::{Value, json};
use shared::exit;
use shared::gpu::{GpuReading, Gpus as Nvml, Reading};
use shared::quantity::Bytes;
use shared::time::Moment;

use crate::cmd::out::or_dash;
use crate::cmd::{App, Stop, note};

/// List the GPUs: memory, load, temperature, and who uses them
#[derive(Args, Debug)]
pub(crate) struct Gpus {}

impl Gpus {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, resolved) = app.open()?;
        let workers = view::workers(&pool, &resolved.settings, Moment::now())?;
        let (readings, trouble) = match Nvml::open(None) {
            Ok(gpus) => (gpus.list(), None),
            Err(err) => (Vec::new(), Some(err.to_string())),
        };
        let seen = join(readings, &workers);
        if app.json() {
            let gpus: Vec<_> = seen.iter().map(Seen::to_json).collect();
            app.out.json("gpus", &json!({"gpus": gpus, "error": trouble}))?;
            return Ok(exit::OK);
        }
        if let Some(trouble) = &trouble {
            note(format!("no GPU can be read on this machine: {trouble}"));
        }
        if seen.is_empty() {
            app.out.line("no GPUs")?;
        } else {
            let head = ["GPU", "NAME", "MEMORY", "LOAD", "TEMP", "POWER", "WORKER", "TASKS"];
            app.out.table(&head, seen.iter().map(Seen::row).collect())?;
        }
        Ok(exit::OK)
    }
}

/// One GPU, and the worker that has it.
struct Seen<'a> {
    reading: GpuReading,
    worker: Option<&'a Worker>,
}

fn join(mut readings: Vec<GpuReading>, workers: &[Worker]) -> Vec<Seen<'_>> {
    for worker in workers.iter().filter(|worker| worker.is_alive()) {
        let Some(said) = worker.heartbeat.as_ref().and_then(|b| b.gpu_reading.as_ref()) else {
            continue;
        };
        if !readings.iter().any(|gpu| is_same(gpu, worker)) {
            readings.push(said.clone());
        }
    }
    let owner =
        |gpu: &GpuReading| workers.iter().find(|worker| worker.is_alive() && is_same(gpu, worker));
    readings
        .into_iter()
        .map(|reading| {
            let worker = owner(&reading);
            Seen { reading, worker }
        })
        .collect()
}

fn is_same(gpu: &GpuReading, worker: &Worker) -> bool {
    let ability = worker.heartbeat.as_ref().map(|beat| &beat.ability);
    match (&gpu.uuid, ability.and_then(|ability| ability.gpu_uuid.as_ref())) {
        (Some(uuid), Some(theirs)) => uuid == theirs,
        (_, _) => ability.and_then(|ability| ability.gpu) == Some(gpu.index),
    }
}

/// The task that a process was started for, as its environment says.
fn task_of(pid: u32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let id = variables.find_map(|variable| variable.strip_prefix(b"BRAINSTEM_TASK_ID="))?;
    String::from_utf8(id.to_vec()).ok()
}

impl Seen<'_> {
    fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(&self.reading).unwrap_or_default();
        value["worker"] = json!(self.worker.map(|worker| &worker.name));
        for process in value["processes"].as_array_mut().into_iter().flatten() {
            let pid = process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            process["task_id"] = json!(pid.and_then(task_of));
        }
        value
    }

    fn tasks(&self) -> String {
        let mut users: BTreeMap<String, u64> = BTreeMap::new();
        if let Reading::Known(processes) = &self.reading.processes {
            for process in processes {
                let task = task_of(process.pid).and_then(|id| id.get(28..).map(str::to_owned));
                *users
                    .entry(task.unwrap_or_else(|| format!("pid {}", process.pid)))
                    .or_default() += 1;
            }
        }
        users.into_keys().collect::<Vec<_>>().join(", ")
    }

    fn row(&self) -> Vec<String> {
        let gpu = &self.reading;
        let memory = match (gpu.memory_used, gpu.memory_total) {
            (Reading::Known(used), Reading::Known(total)) => {
                format!("{} of {}", Bytes(used), Bytes(total))
            }
            (_, Reading::Known(total)) => format!("? of {}", Bytes(total)),
            (_, _) => "unknown".to_owned(),
        };
        let unit = |text: String, unit: &str| {
            let known = text.starts_with(|c: char| c.is_ascii_digit());
            if known { format!("{text}{unit}") } else { text }
        };
        let tasks = self.tasks();
        vec![
            gpu.index.to_string(),
            gpu.name.to_string(),
            memory,
            unit(gpu.utilization.to_string(), " %"),
            unit(gpu.temperature.to_string(), " C"),
            unit(gpu.power_watts.map(|watts| format!("{watts:.0}")).to_string(), " W"),
            or_dash(self.worker.map(|worker| worker.name.to_string())),
            if tasks.is_empty() { "-".to_owned() } else { tasks },
        ]
    }
}
