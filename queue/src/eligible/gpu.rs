//! What stands between a worker and its GPU: that the GPU is out of use, or that too little of its
//! memory is free.

use serde_json::json;
use shared::llm::Loads;
use shared::name::Name;
use shared::quantity::Bytes;
use shared::reason::{Code, Reason};

use super::Candidate;
use crate::wire::heartbeat::gpu_state::{Fitness, HeatLimit, MemoryHolder};
use crate::wire::heartbeat::{Ability, Run};
use crate::wire::lane::Requirements;

/// So many holders of memory are named.
const NAMED: usize = 3;
/// A longer command line is cut.
const COMMAND: usize = 40;

/// Why a worker is given nothing at all: its GPU is out of use, or too hot.
#[must_use]
pub fn unfit(name: &Name, ability: &Ability) -> Option<Reason> {
    let index = ability.gpu.map(|gpu| format!(" {gpu}")).unwrap_or_default();
    let gpu = format!("{name}'s GPU{index}");
    let reason = match &ability.gpu_state.fitness {
        Fitness::Fit => return None,
        Fitness::Quarantined(quarantine) => {
            let fault = quarantine.fault;
            let again = match quarantine.times {
                0 | 1 => String::new(),
                times => format!(" ({times} times so far)"),
            };
            let text = format!(
                "{gpu} is out of use: {fault}{again}; it is rechecked, and comes back by itself"
            );
            let number = ability.gpu.unwrap_or_default().to_string();
            let called = ability.gpu_uuid.as_ref().unwrap_or(&number);
            Reason::new(Code::GpuQuarantined, text)
                .since(quarantine.since)
                .evidence("fault", json!(fault))
                .evidence("until", quarantine.until.to_string())
                .evidence("times", quarantine.times)
                .fix(fault.fix(called))
        }
        Fitness::Hot(heat) => {
            let (celsius, resume) = (heat.celsius, heat.resume);
            let limit = match heat.limit {
                HeatLimit::Soft => "",
                HeatLimit::Hard => ", above the hard limit",
            };
            let text = format!(
                "{gpu} is at {celsius} °C{limit}: it is given nothing new until it is down to \
                 {resume} °C"
            );
            Reason::new(Code::Thermal, text)
                .since(heat.since)
                .evidence("limit", heat.limit.as_str())
                .evidence("celsius", celsius)
                .evidence("resume", resume)
        }
    };
    Some(reason.evidence("gpu", json!(ability.gpu)))
}

/// That too little of the GPU's memory is free, beside these runs on it.
pub(super) fn memory_short(
    candidate: Candidate<'_>,
    lane: &Requirements,
    runs: &[&Run],
) -> Option<Reason> {
    let (needed, total) = (lane.gpu_memory?, candidate.ability.gpu_memory?);
    let shares = Shares::of(candidate.ability, total, runs);
    // What is more than there will ever be is told as that, where nothing else is in the way.
    let told = needed > total && runs.is_empty();
    (needed.0 > shares.free() && !told).then(|| shares.reason(candidate, needed))
}

/// Whether what others hold of the GPU's memory leaves enough, when the worker's own runs and the
/// models of its server are out of it. Also where that is not known.
pub(super) fn leaves_enough(candidate: Candidate<'_>, lane: &Requirements) -> bool {
    let runs_unknown = candidate
        .ability
        .gpu_state
        .memory
        .as_ref()
        .is_some_and(|memory| memory.runs.is_none() && !candidate.current.is_empty());
    runs_unknown || memory_short(candidate, lane, &[]).is_none()
}

/// Who has how much of a GPU's memory, in bytes. What the models of the worker's own server hold is
/// nobody's: they are unloaded first.
struct Shares<'a> {
    total: u64,
    /// The driver's own.
    reserved: u64,
    /// Of the runs: what each asked for, or uses where that is more.
    runs: u64,
    /// Of all others; where the driver does not say who uses what, whatever is in use beyond what
    /// the runs asked for.
    foreign: u64,
    others: &'a [MemoryHolder],
}

impl<'a> Shares<'a> {
    fn of(ability: &'a Ability, total: Bytes, runs: &[&Run]) -> Self {
        let sum = |all: &mut dyn Iterator<Item = u64>| all.fold(0, u64::saturating_add);
        let asked = |run: &Run| run.gpu_memory.map_or(0, |bytes| bytes.0);
        let Some(memory) = &ability.gpu_state.memory else {
            let runs = sum(&mut runs.iter().map(|run| asked(run)));
            return Self { total: total.0, reserved: 0, runs, foreign: 0, others: &[] };
        };
        // Where it is not known what its models hold, all that is used may be theirs.
        let beside_models = models(ability).map_or(0, |held| memory.used.0.saturating_sub(held));
        let (runs, foreign) = match &memory.runs {
            Some(used) => {
                let all = sum(&mut used.values().map(|bytes| bytes.0));
                let share =
                    |run: &&Run| asked(run).max(used.get(&run.task_id).map_or(0, |bytes| bytes.0));
                (sum(&mut runs.iter().map(share)), beside_models.saturating_sub(all))
            }
            None => {
                let runs = sum(&mut runs.iter().map(|run| asked(run)));
                (runs, beside_models.saturating_sub(runs))
            }
        };
        let (reserved, others) = (memory.reserved.0, &memory.others[..]);
        Self { total: total.0, reserved, runs, foreign, others }
    }

    fn free(&self) -> u64 {
        let taken = self.runs.saturating_add(self.foreign).saturating_add(self.reserved);
        self.total.saturating_sub(taken)
    }

    fn reason(&self, candidate: Candidate<'_>, needed: Bytes) -> Reason {
        let (name, free, total) = (candidate.name, Bytes(self.free()), Bytes(self.total));
        let mut who = self.who_else();
        if self.runs > 0 {
            who.push(format!("its tasks asked for, or use, {}", Bytes(self.runs)));
        }
        if self.reserved > 0 {
            who.push(format!("the driver keeps {}", Bytes(self.reserved)));
        }
        let who = if who.is_empty() { String::new() } else { format!(": {}", who.join(", ")) };
        let text = format!("it needs {needed}, and of {name}'s {total} only {free} are free{who}");
        Reason::new(Code::VramShort, text)
            .evidence("needed", needed.0)
            .evidence("free", free.0)
            .evidence("total", self.total)
            .evidence("taken", self.runs)
            .evidence("foreign", self.foreign)
            .evidence("reserved", self.reserved)
            .evidence("holders", json!(self.others))
    }

    fn who_else(&self) -> Vec<String> {
        if self.foreign == 0 {
            return Vec::new();
        }
        let named = self.others.iter().take(NAMED).map(|holder| {
            let command: String = holder.command.chars().take(COMMAND).collect();
            let task = holder.task.map(|id| format!(", task {}", id.short())).unwrap_or_default();
            let bytes = holder.bytes.map_or_else(|| "some".to_owned(), |bytes| bytes.to_string());
            format!("pid {} ({command}{task}) holds {bytes}", holder.pid)
        });
        let mut who: Vec<String> = named.collect();
        match self.others.len().saturating_sub(NAMED) {
            0 if who.is_empty() => who.push(format!("others hold {}", Bytes(self.foreign))),
            0 => {}
            more => who.push(format!("{more} more hold some")),
        }
        who
    }
}

/// What the models hold that its server can be told to unload. `None`: that is not known.
fn models(ability: &Ability) -> Option<u64> {
    let Some(server) = ability.server.as_ref().filter(|s| s.loads == Loads::OnRequest) else {
        return Some(0);
    };
    server.models.iter().map(|held| held.vram.map(|vram| vram.0)).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shared::gpu::GpuFault;
    use shared::id::TaskId;
    use shared::task::Class;
    use shared::time::Moment;

    use super::*;
    use crate::eligible::fixture::{ability, lane, run};
    use crate::eligible::reasons;
    use crate::wire::heartbeat::gpu_state::{GpuState, Heat, MemoryUse, Quarantine};

    const GIB: u64 = 1 << 30;

    fn with(fitness: Fitness, memory: Option<MemoryUse>) -> Ability {
        Ability { gpu_state: GpuState { fitness, memory }, gpu_slots: 3, ..ability() }
    }

    fn used(gib: u64, runs: Option<&[(TaskId, u64)]>) -> Option<MemoryUse> {
        let runs = runs.map(|all| all.iter().map(|(id, gib)| (*id, Bytes(gib * GIB))).collect());
        let runs: Option<BTreeMap<_, _>> = runs;
        let (used, reserved) = (Bytes(gib * GIB), Bytes(0));
        Some(MemoryUse { used, reserved, runs, others: Vec::new() })
    }

    fn needs(gib: u64) -> Requirements {
        Requirements { gpu_memory: Some(Bytes(gib * GIB)), ..lane(Class::Script) }
    }

    fn why(ability: &Ability, current: &[Run], lane: &Requirements) -> Vec<Reason> {
        let name: Name = "worker-1".parse().unwrap();
        reasons(Candidate { name: &name, ability, current }, lane)
    }

    fn codes(ability: &Ability, current: &[Run], lane: &Requirements) -> Vec<Code> {
        why(ability, current, lane).into_iter().map(|reason| reason.code).collect()
    }

    #[test]
    fn a_worker_whose_gpu_is_out_of_use_takes_nothing_and_says_why() {
        let since = Moment::from_unix_millis(0);
        let quarantine = Quarantine { fault: GpuFault::Lost, since, until: since, times: 2 };
        let lost = with(Fitness::Quarantined(quarantine), None);
        for class in [Class::Script, Class::Cpu] {
            let said = why(&lost, &[], &lane(class));
            assert_eq!(said.len(), 1);
            assert_eq!(said[0].code, Code::GpuQuarantined);
            let text = "worker-1's GPU 1 is out of use: it has fallen off the bus (2 times so far); \
                        it is rechecked, and comes back by itself";
            assert_eq!((&*said[0].text, said[0].fix.as_deref()), (text, Some("sudo reboot")));
        }
        let heat = Heat { limit: HeatLimit::Hard, celsius: 93, resume: 76, since };
        let hot = why(&with(Fitness::Hot(heat), None), &[], &lane(Class::Script));
        assert_eq!((hot.len(), hot[0].code), (1, Code::Thermal));
        assert!(hot[0].text.contains("93 °C, above the hard limit"), "{}", hot[0].text);
    }

    #[test]
    fn what_others_hold_is_not_free() {
        let foreign = |gib| with(Fitness::Fit, used(gib, Some(&[])));
        assert_eq!(codes(&foreign(3), &[], &needs(5)), []);
        assert_eq!(codes(&foreign(4), &[], &needs(5)), [Code::VramShort]);
        assert_eq!(codes(&foreign(4), &[], &lane(Class::Script)), [], "it asks for none");
        assert_eq!(codes(&foreign(4), &[], &needs(9)), [Code::VramNever]);
    }

    #[test]
    fn who_holds_it_is_named() {
        let holder = MemoryHolder {
            pid: 77,
            command: "python train.py".into(),
            bytes: Some(Bytes(6 * GIB)),
            task: None,
        };
        let reserved = Bytes(GIB);
        let memory = used(6, Some(&[]));
        let memory = memory.map(|memory| MemoryUse { reserved, others: vec![holder], ..memory });
        let said = why(&with(Fitness::Fit, memory), &[], &needs(2));
        let text = "it needs 2 GiB, and of worker-1's 8 GiB only 1 GiB are free: pid 77 (python \
                    train.py) holds 6 GiB, the driver keeps 1 GiB";
        assert_eq!(said[0].text, text);
        assert_eq!(said[0].evidence["holders"][0]["pid"], 77);
    }

    #[test]
    fn a_run_counts_with_what_it_asked_for_or_uses_whichever_is_more() {
        // It asks for 5 GiB.
        let train = run(Class::Script);
        let uses = |gib| with(Fitness::Fit, used(gib, Some(&[(train.task_id, gib)])));
        let runs = [train.clone()];
        assert_eq!(codes(&uses(1), &runs, &needs(3)), []);
        assert_eq!(codes(&uses(1), &runs, &needs(4)), [Code::VramShort], "it may grow");
        assert_eq!(codes(&uses(6), &runs, &needs(3)), [Code::VramShort], "it has grown");
        // What a run has that has just ended is free in a moment, and nobody else's.
        assert_eq!(codes(&uses(6), &[], &needs(8)), []);
    }

    #[test]
    fn where_nobody_says_who_uses_what_the_whole_use_counts() {
        let uses = |gib| with(Fitness::Fit, used(gib, None));
        let runs = [run(Class::Script)];
        assert_eq!(codes(&uses(6), &[], &needs(3)), [Code::VramShort]);
        // Of the 6 GiB 5 may be the run's own: they are not counted twice.
        assert_eq!(codes(&uses(6), &runs, &needs(2)), []);
        assert_eq!(codes(&uses(1), &runs, &needs(4)), [Code::VramShort]);
    }

    #[test]
    fn above_what_the_driver_leaves_is_short_and_not_never() {
        let memory = used(0, Some(&[])).map(|m| MemoryUse { reserved: Bytes(GIB / 2), ..m });
        assert_eq!(codes(&with(Fitness::Fit, memory), &[], &needs(8)), [Code::VramShort]);
    }

    #[test]
    fn a_brain_does_not_clear_a_gpu_for_what_others_leave_no_room_for() {
        let name: Name = "worker-1".parse().unwrap();
        let enough = |ability: &Ability, current: &[Run], gib| {
            leaves_enough(Candidate { name: &name, ability, current }, &needs(gib))
        };
        let train = run(Class::Script);
        let own = with(Fitness::Fit, used(6, Some(&[(train.task_id, 6)])));
        assert!(enough(&own, std::slice::from_ref(&train), 8), "the run ends");
        assert!(!enough(&with(Fitness::Fit, used(6, Some(&[]))), &[], 3));
        assert!(
            enough(&with(Fitness::Fit, used(6, None)), &[train], 3),
            "whose that is, who knows"
        );
        assert!(enough(&with(Fitness::Fit, None), &[], 3));
    }
}
