//! Who uses the memory of the worker's GPU: its own runs, by their process group or by the task in
//! their environment, and all others. Where the driver's process numbers are not ours (as in a
//! container), or it does not say how much each uses, that stays unknown.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use queue::fence;
use queue::wire::heartbeat::gpu_state::{MemoryHolder, MemoryUse};
use shared::gpu::{GpuProcess, GpuReading, Reading};
use shared::id::TaskId;
use shared::quantity::Bytes;

/// No more holders than this are named.
const NAMED: usize = 8;

/// A run of this worker.
#[derive(Clone, Copy, Debug)]
pub struct OwnRun {
    /// Its task.
    pub task: TaskId,
    /// The process group of its job, once that has started.
    pub group: Option<u32>,
}

/// What is needed of a process on the GPU.
#[derive(Clone, Debug)]
pub struct ProcessOnGpu {
    /// Its process group.
    pub group: u32,
    /// The task in its environment.
    pub task: Option<TaskId>,
    /// Its command line.
    pub command: String,
}

/// Looks a process up. `None`: there is none of this number here, or it may not be seen.
#[must_use]
pub fn look_up(pid: u32) -> Option<ProcessOnGpu> {
    let group = fence::stat(pid)?.group;
    Some(ProcessOnGpu { group, task: fence::task_of(pid), command: fence::command_line(pid) })
}

/// Who uses what. `None` where not even the sum is known.
pub fn memory_use(
    reading: &GpuReading,
    runs: &[OwnRun],
    look_up: impl Fn(u32) -> Option<ProcessOnGpu>,
) -> Option<MemoryUse> {
    let used = Bytes(reading.memory_used.known()?);
    let reserved = Bytes(reading.memory_reserved.known().unwrap_or(0));
    let mut shares = Shares { runs: Some(BTreeMap::new()), others: Vec::new() };
    match &reading.processes {
        Reading::Known(processes) => {
            processes.iter().for_each(|process| shares.add(process, runs, look_up(process.pid)));
        }
        Reading::Unsupported | Reading::Failed => shares.runs = None,
    }
    let Shares { runs, mut others } = shares;
    others.sort_by_key(|holder| Reverse(holder.bytes));
    others.truncate(NAMED);
    Some(MemoryUse { used, reserved, runs, others })
}

/// What was found so far.
struct Shares {
    runs: Option<BTreeMap<TaskId, Bytes>>,
    others: Vec<MemoryHolder>,
}

impl Shares {
    fn add(&mut self, process: &GpuProcess, runs: &[OwnRun], found: Option<ProcessOnGpu>) {
        let bytes = process.memory.known().map(Bytes);
        let own = found.as_ref().and_then(|found| {
            let is_its =
                |run: &&OwnRun| run.group == Some(found.group) || found.task == Some(run.task);
            runs.iter().find(is_its)
        });
        // One that nobody knows may be anybody's, and one that uses nobody knows what, too.
        if found.is_none() || bytes.is_none() {
            self.runs = None;
        }
        match (own, &mut self.runs) {
            (Some(run), Some(all)) => {
                all.entry(run.task).or_default().0 += bytes.map_or(0, |bytes| bytes.0);
            }
            (Some(_run), None) => {}
            (None, _) => {
                let task = found.as_ref().and_then(|found| found.task);
                let command =
                    found.map_or_else(|| "not seen from here".to_owned(), |found| found.command);
                self.others.push(MemoryHolder { pid: process.pid, command, bytes, task });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(processes: &[(u32, Option<u64>)]) -> GpuReading {
        let mut reading = GpuReading::failed(0, None);
        reading.memory_used = Reading::Known(1_000);
        let process = |(pid, bytes): &(u32, Option<u64>)| {
            let memory = bytes.map_or(Reading::Unsupported, Reading::Known);
            GpuProcess { pid: *pid, memory }
        };
        reading.processes = Reading::Known(processes.iter().map(process).collect());
        reading
    }

    /// Process 1 is nobody's; all others lead their group, and number 9 carries a task.
    fn world(carried: TaskId) -> impl Fn(u32) -> Option<ProcessOnGpu> {
        move |pid| {
            let task = (pid == 9).then_some(carried);
            (pid != 1).then(|| ProcessOnGpu { group: pid, task, command: format!("job {pid}") })
        }
    }

    #[test]
    fn a_run_is_known_by_its_group_or_by_its_task() {
        let (one, two) = (TaskId::new(), TaskId::new());
        let runs = [OwnRun { task: one, group: Some(7) }, OwnRun { task: two, group: Some(8) }];
        let seen = reading(&[(7, Some(100)), (9, Some(20)), (5, Some(300)), (6, Some(400))]);
        let found = memory_use(&seen, &runs, world(two)).unwrap();
        let expected = BTreeMap::from([(one, Bytes(100)), (two, Bytes(20))]);
        assert_eq!(found.runs, Some(expected));
        let others: Vec<_> = found.others.iter().map(|holder| holder.pid).collect();
        assert_eq!(others, [6, 5], "most first");
    }

    #[test]
    fn who_cannot_be_told_apart_is_unknown_and_named_all_the_same() {
        let task = TaskId::new();
        let runs = [OwnRun { task, group: Some(7) }];
        let stranger = memory_use(&reading(&[(1, Some(100))]), &runs, world(task)).unwrap();
        assert_eq!((stranger.runs, stranger.others[0].pid), (None, 1));
        let untold = memory_use(&reading(&[(7, None)]), &runs, world(task)).unwrap();
        assert_eq!((untold.runs, untold.others), (None, vec![]));
        let mut silent = reading(&[]);
        silent.processes = Reading::Unsupported;
        assert_eq!(memory_use(&silent, &runs, world(task)).unwrap().runs, None);
        silent.memory_used = Reading::Failed;
        assert_eq!(memory_use(&silent, &runs, world(task)), None);
    }
}
