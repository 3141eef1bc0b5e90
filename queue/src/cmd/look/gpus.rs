//! `queue gpus`: what the GPUs say, and which worker and which tasks use them. Where this machine
//! has no GPU library, what workers on other machines last said is shown.

use std::collections::BTreeMap;

use clap::Args;
use queue::fence;
use queue::view::{self, Worker};
use queue::wire::heartbeat::gpu_state::Fitness;
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
            let head =
                ["GPU", "NAME", "MEMORY", "LOAD", "TEMP", "POWER", "WORKER", "STATE", "TASKS"];
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
        let Some(beat) = &worker.heartbeat else { continue };
        // One that was never there is not read either, and has a worker that waits for it.
        let waits = || {
            let index = beat.ability.gpu.filter(|_index| !beat.ability.gpu_state.is_fit())?;
            Some(GpuReading::failed(index, beat.ability.gpu_uuid.clone()))
        };
        let Some(said) = beat.gpu_reading.clone().or_else(waits) else { continue };
        if !readings.iter().any(|gpu| is_same(gpu, worker)) {
            readings.push(said);
        }
    }
    readings.sort_by_key(|gpu| gpu.index);
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

impl Seen<'_> {
    fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(&self.reading).unwrap_or_default();
        value["worker"] = json!(self.worker.map(|worker| &worker.name));
        let beat = self.worker.and_then(|worker| worker.heartbeat.as_ref());
        value["state"] = json!(beat.map(|beat| &beat.ability.gpu_state.fitness));
        for process in value["processes"].as_array_mut().into_iter().flatten() {
            let pid = process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            process["task_id"] = json!(pid.and_then(fence::task_of));
        }
        value
    }

    fn tasks(&self) -> String {
        let mut users: BTreeMap<String, u64> = BTreeMap::new();
        if let Reading::Known(processes) = &self.reading.processes {
            for process in processes {
                let task = fence::task_of(process.pid).map(|id| id.short());
                *users
                    .entry(task.unwrap_or_else(|| format!("pid {}", process.pid)))
                    .or_default() += 1;
            }
        }
        users.into_keys().collect::<Vec<_>>().join(", ")
    }

    /// Whether it may be given work, in a word, and why not.
    fn state(&self) -> String {
        let beat = self.worker.and_then(|worker| worker.heartbeat.as_ref());
        match beat.map(|beat| &beat.ability.gpu_state.fitness) {
            None => "-".to_owned(),
            Some(Fitness::Fit) => "ok".to_owned(),
            Some(Fitness::Hot(_)) => "hot".to_owned(),
            Some(Fitness::Quarantined(quarantine)) => format!("quarantined: {}", quarantine.fault),
        }
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
            self.state(),
            if tasks.is_empty() { "-".to_owned() } else { tasks },
        ]
    }
}
