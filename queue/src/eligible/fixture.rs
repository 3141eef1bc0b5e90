//! A worker with a GPU of 8 GiB, lanes and runs, for the tables of the tests.

use shared::id::TaskId;
use shared::quantity::Bytes;
use shared::task::Class;

use crate::wire::heartbeat::gpu_state::GpuState;
use crate::wire::heartbeat::{Ability, Run};
use crate::wire::lane::Requirements;

pub(super) fn ability() -> Ability {
    Ability {
        classes: vec![Class::Script, Class::Cpu],
        gpu: Some(1),
        gpu_uuid: None,
        gpu_memory: Some(Bytes(8 << 30)),
        gpu_state: GpuState::default(),
        gpu_slots: 1,
        cpu_slots: 1,
        paused: None,
        draining: None,
        starved: None,
        backs_off: Vec::new(),
        server: None,
    }
}

pub(super) fn lane(class: Class) -> Requirements {
    Requirements {
        class,
        model: None,
        gpu_memory: None,
        limits: vec![],
        worker: None,
        max_wait: None,
    }
}

/// One that asked for 5 GiB.
pub(super) fn run(class: Class) -> Run {
    Run {
        task_id: TaskId::new(),
        attempt: 1,
        class,
        name: "train".into(),
        gpu_memory: Some(Bytes(5 << 30)),
        started_at: None,
        pgid: None,
        last_output_age_seconds: None,
        quiet_seconds: None,
        evidence: serde_json::Map::new(),
        peak_vram_bytes: None,
        kept: None,
        log: None,
    }
}
