//! GPUs that were read and cannot be read any more.

use queue::wire::brain_state::Warning;
use shared::event::Event;
use shared::gpu::{GpuReading, Reading};

use super::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::Snapshot;

/// GPUs of which neither memory nor utilization can be read, and since when.
#[derive(Clone, Debug, Default)]
pub struct MissingGpus {
    lost: Conditions<String>,
}

impl MissingGpus {
    /// Takes in a look.
    pub fn look(&mut self, at: At, seen: &Snapshot, out: &mut Vec<Command>) {
        // Nobody asks the GPUs: that is said once, elsewhere.
        let Some(gpus) = &seen.gpus else { return };
        let lost: Vec<String> = gpus.iter().filter(|gpu| is_lost(gpu)).map(label).collect();
        for gpu in &lost {
            if let Some(count) = self.lost.holds(at, gpu) {
                let error = "neither its memory nor its utilization can be read".to_owned();
                say(out, Event::GpuReadingLost { gpu: gpu.clone(), error, count });
            }
        }
        for (gpu, seconds) in self.lost.keep(at, |gpu| lost.contains(gpu)) {
            say(out, Event::GpuReadingBack { gpu, seconds });
        }
    }

    /// What somebody should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let each = self.lost.all().map(|(gpu, since)| Warning {
            code: "gpu.reading_lost".into(),
            text: format!("GPU {gpu} cannot be read"),
            since,
        });
        each.collect()
    }
}

/// A question that a GPU never answers is no loss.
fn is_lost(gpu: &GpuReading) -> bool {
    gpu.memory_used == Reading::Failed && gpu.utilization == Reading::Failed
}

fn label(gpu: &GpuReading) -> String {
    match &gpu.uuid {
        Some(uuid) => format!("{} ({uuid})", gpu.index),
        None => gpu.index.to_string(),
    }
}
