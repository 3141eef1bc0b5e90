//! GPUs that cannot be worked on, or that others have filled, are no places.

use std::collections::BTreeMap;
use std::sync::Arc;

use queue::wire::heartbeat::gpu_state::{Fitness, GpuState, MemoryUse, Quarantine};
use shared::gpu::GpuFault;
use shared::quantity::Bytes;
use shared::time::Moment;

use super::fixture::*;
use crate::core::fixture::Stage;

const GIB: u64 = 1 << 30;

fn quarantined() -> GpuState {
    let since = Moment::from_unix_millis(0);
    let quarantine = Quarantine { fault: GpuFault::Lost, since, until: since, times: 1 };
    GpuState { fitness: Fitness::Quarantined(quarantine), memory: None }
}

/// Of a GPU of 8 GiB of which others hold so much.
fn filled(stage: &mut Stage, worker: &str, gib: u64) {
    let (used, reserved) = (Bytes(gib * GIB), Bytes(0));
    let runs = Some(BTreeMap::new());
    let memory = Some(MemoryUse { used, reserved, runs, others: Vec::new() });
    stage.beat(worker, |beat| {
        beat.ability.gpu_memory = Some(Bytes(8 * GIB));
        beat.ability.gpu_state = GpuState { fitness: Fitness::Fit, memory };
    });
}

/// Scripts that wait ask for so much memory.
fn need(stage: &mut Stage, gib: u64) {
    let mut needs = stage.seen.lanes[0].needs.as_deref().cloned().unwrap();
    needs.gpu_memory = Some(Bytes(gib * GIB));
    stage.seen.lanes[0].needs = Some(Arc::new(needs));
}

#[test]
fn the_server_of_a_quarantined_worker_is_asked_for_nothing() {
    let mut stage = stage(2);
    stage.beat("worker-1", |beat| beat.ability.gpu_state = quarantined());
    waits(&mut stage, &[llm("m", 125)]);
    assert_eq!(decide(&mut stage), ["worker-2 load_llm m"]);
    stage.beat("worker-1", |beat| beat.ability.gpu_state = GpuState::default());
    assert_eq!(decide(&mut stage).first().map(String::as_str), Some("worker-1 load_llm m"));
}

#[test]
fn a_model_is_unloaded_for_scripts_only_where_they_would_fit() {
    for (others, expected) in [(0, vec!["worker-1 unload_llm a for script"]), (4, Vec::new())] {
        let mut stage = stage(1);
        holds(&mut stage, "worker-1", "a", 100);
        filled(&mut stage, "worker-1", others);
        set(&mut stage, "worker-1", |server| server.models[0].vram = Some(Bytes(0)));
        waits(&mut stage, &[scripts(1)]);
        need(&mut stage, 5);
        assert_eq!(decide(&mut stage), expected, "others hold {others} GiB");
    }
}

#[test]
fn a_cold_gpu_that_others_have_filled_does_not_count_as_one_for_scripts() {
    let mut stage = stage(2);
    filled(&mut stage, "worker-1", 4);
    filled(&mut stage, "worker-2", 0);
    holds(&mut stage, "worker-2", "a", 100);
    waits(&mut stage, &[scripts(1)]);
    need(&mut stage, 5);
    assert_eq!(decide(&mut stage), ["worker-2 unload_llm a for script"]);
}
