//! May this worker take from this lane now, and if not, why not: the one function that the
//! worker's claim pass, the brain's checks and `queue why` all call, so that no two of them can
//! give different answers.

#[cfg(test)]
mod fixture;
mod gpu;
mod model;

use shared::name::Name;
use shared::reason::{Code, Reason};
use shared::task::Class;

use crate::wire::heartbeat::{Ability, Heartbeat, Run};
use crate::wire::lane::Requirements;

pub use gpu::unfit;
pub use model::preferred;

/// A worker, as far as eligibility goes.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a Name,
    /// What it can do.
    pub ability: &'a Ability,
    /// What it does now.
    pub current: &'a [Run],
}

impl<'a> From<&'a Heartbeat> for Candidate<'a> {
    fn from(heartbeat: &'a Heartbeat) -> Self {
        Self { name: &heartbeat.worker, ability: &heartbeat.ability, current: &heartbeat.current }
    }
}

/// Which of a worker's two kinds of slot a class uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// One of `gpu_slots`: for script, llm and resource tasks.
    Gpu,
    /// One of `cpu_slots`: for cpu tasks.
    Cpu,
}

impl SlotKind {
    /// The kind that tasks of a class use.
    #[must_use]
    pub const fn of(class: Class) -> Self {
        match class {
            Class::Cpu => Self::Cpu,
            Class::Script | Class::Llm | Class::Resource => Self::Gpu,
        }
    }
}

/// Why this worker may not take from this lane now, most decisive first. Empty: it may.
#[must_use]
pub fn reasons(candidate: Candidate<'_>, lane: &Requirements) -> Vec<Reason> {
    let mut reasons = never(candidate, lane);
    reasons.extend(not_now(candidate, lane));
    for reason in &mut reasons {
        reason.worker = Some(candidate.name.clone());
    }
    reasons
}

/// Whether the worker could take from this lane once what it runs has ended and its models are
/// unloaded. Whether it holds the model that the lane needs is not asked.
#[must_use]
pub fn could_take(candidate: Candidate<'_>, lane: &Requirements) -> bool {
    never(candidate, lane).is_empty()
        && unfit(candidate.name, candidate.ability).is_none()
        && gpu::leaves_enough(candidate, lane)
}

/// What no waiting changes.
fn never(candidate: Candidate<'_>, lane: &Requirements) -> Vec<Reason> {
    let (name, ability) = (candidate.name, candidate.ability);
    let mut reasons = Vec::new();
    if let Some(other) = lane.worker.as_ref().filter(|worker| *worker != name) {
        let text = format!("it is addressed to {other}");
        reasons.push(
            Reason::new(Code::WorkerAddressed, text).evidence("addressed_to", other.as_str()),
        );
    }
    if !ability.classes.contains(&lane.class) {
        let takes: Vec<_> = ability.classes.iter().map(|class| class.as_str()).collect();
        let text =
            format!("{name} does not take {} tasks (it takes {})", lane.class, takes.join(", "));
        reasons.push(Reason::new(Code::ClassNotTaken, text).evidence("takes", takes));
    } else if lane.class == Class::Script && ability.gpu.is_none() {
        reasons.push(Reason::new(Code::GpuNone, format!("{name} has no GPU")));
    }
    if let (Some(needed), Some(total)) = (lane.gpu_memory, ability.gpu_memory)
        && needed > total
    {
        let text = format!("it needs {needed} of GPU memory and {name}'s GPU has {total}");
        let reason = Reason::new(Code::VramNever, text);
        reasons.push(reason.evidence("needed", needed.0).evidence("total", total.0));
    }
    reasons
}

/// What may be over soon.
fn not_now(candidate: Candidate<'_>, lane: &Requirements) -> Vec<Reason> {
    let mut reasons = of_worker(candidate.name, candidate.ability);
    reasons.extend(backs_off(candidate, lane));
    reasons.extend(busy(candidate, lane));
    reasons.extend(model::reasons(candidate, lane));
    reasons
}

/// What keeps a worker from tasks of any lane.
#[must_use]
pub fn of_worker(name: &Name, ability: &Ability) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = unfit(name, ability).into_iter().collect();
    if let Some(paused) = &ability.paused {
        let (what, fix) = match paused.scope.as_str() {
            "pool" => ("the pool".to_owned(), "queue resume".to_owned()),
            _ => (name.to_string(), format!("queue resume {name}")),
        };
        let reason = Reason::new(Code::Paused, format!("{what} is paused by {}", paused.by));
        reasons.push(reason.since(paused.since).evidence("by", paused.by.clone()).fix(fix));
    }
    if let Some(draining) = &ability.draining {
        let reason =
            Reason::new(Code::WorkerDraining, format!("{name} is draining, by {}", draining.by));
        reasons.push(reason.since(draining.since).fix(format!("queue resume {name}")));
    }
    if let Some(starved) = &ability.starved {
        let text = format!("{name} cannot start jobs now: {}", starved.error);
        let reason = Reason::new(Code::WorkerStarved, text).since(starved.since);
        reasons.push(reason.evidence("error", starved.error.clone()));
    }
    reasons
}

fn backs_off(candidate: Candidate<'_>, lane: &Requirements) -> Option<Reason> {
    let (name, ability) = (candidate.name, candidate.ability);
    if ability.backs_off.is_empty() {
        return None;
    }
    let needs = lane.without_limits();
    let found = ability.backs_off.iter().find(|one| one.needs == needs)?;
    let text = format!("{name} leaves such tasks to others, several failed here: {}", found.error);
    let reason = Reason::new(Code::WorkerBacksOff, text).since(found.since);
    Some(reason.evidence("error", found.error.clone()))
}

fn busy(candidate: Candidate<'_>, lane: &Requirements) -> Vec<Reason> {
    let (name, ability) = (candidate.name, candidate.ability);
    let kind = SlotKind::of(lane.class);
    let holders: Vec<&Run> =
        candidate.current.iter().filter(|run| SlotKind::of(run.class) == kind).collect();
    let slots = match kind {
        SlotKind::Gpu => ability.gpu_slots,
        SlotKind::Cpu => ability.cpu_slots,
    };
    // Whatever a load or an unload does to the GPU's memory, it does it alone.
    let turns_over = holders.iter().any(|run| run.class == Class::Resource);
    if holders.len() >= slots as usize || turns_over {
        // A kind of slot the worker has none of is no business of `busy`: `never` tells.
        return holders.iter().map(|run| held_by(name, run)).collect();
    }
    match kind {
        SlotKind::Gpu => gpu::memory_short(candidate, lane, &holders).into_iter().collect(),
        SlotKind::Cpu => Vec::new(),
    }
}

fn held_by(name: &Name, run: &Run) -> Reason {
    let text = format!("{name} runs {} ({})", run.task_id.short(), run.name);
    let mut reason = Reason::new(Code::WorkerBusy, text)
        .evidence("task_id", run.task_id.to_string())
        .evidence("attempt", run.attempt)
        .fix(format!("queue cancel {}", run.task_id.short()));
    reason.since = run.started_at;
    reason
}

#[cfg(test)]
mod tests {
    use super::fixture::{ability, lane, run};
    use super::*;
    use crate::wire::heartbeat::{BacksOff, StandingOrder};
    use shared::quantity::Bytes;
    use shared::time::Moment;

    fn codes(ability: &Ability, current: &[Run], lane: &Requirements) -> Vec<Code> {
        let name: Name = "worker-1".parse().unwrap();
        let candidate = Candidate { name: &name, ability, current };
        reasons(candidate, lane).into_iter().map(|reason| reason.code).collect()
    }

    #[test]
    fn an_idle_worker_takes_what_it_can() {
        assert_eq!(codes(&ability(), &[], &lane(Class::Script)), []);
        assert_eq!(codes(&ability(), &[], &lane(Class::Cpu)), []);
        assert_eq!(codes(&ability(), &[], &lane(Class::Resource)), [Code::ClassNotTaken]);
    }

    #[test]
    fn a_load_has_the_gpu_to_itself() {
        let two = Ability { gpu_slots: 2, ..ability() };
        let current = [run(Class::Resource)];
        assert_eq!(codes(&two, &current, &lane(Class::Script)), [Code::WorkerBusy]);
        assert_eq!(codes(&two, &current, &lane(Class::Cpu)), []);
    }

    #[test]
    fn what_goes_wrong_on_one_worker_is_left_to_others() {
        let (needs, error) = (lane(Class::Script), "no libcuda.so".to_owned());
        let shut = BacksOff { needs, error, since: Moment::now() };
        let ability = Ability { backs_off: vec![shut], ..ability() };
        let limited = Requirements { limits: vec!["user=ann".into()], ..lane(Class::Script) };
        assert_eq!(codes(&ability, &[], &limited), [Code::WorkerBacksOff]);
        assert_eq!(codes(&ability, &[], &lane(Class::Cpu)), []);
    }

    #[test]
    fn a_long_cpu_task_never_idles_the_gpu() {
        let current = [run(Class::Cpu)];
        assert_eq!(codes(&ability(), &current, &lane(Class::Script)), []);
        assert_eq!(codes(&ability(), &current, &lane(Class::Cpu)), [Code::WorkerBusy]);
    }

    #[test]
    fn a_gpu_is_shared_as_far_as_its_memory_goes() {
        let two = Ability { gpu_slots: 2, ..ability() };
        let needs =
            |gib: u64| Requirements { gpu_memory: Some(Bytes(gib << 30)), ..lane(Class::Script) };
        assert_eq!(codes(&two, &[run(Class::Script)], &needs(3)), []);
        assert_eq!(codes(&two, &[run(Class::Script)], &needs(4)), [Code::VramShort]);
        assert_eq!(codes(&two, &[], &needs(9)), [Code::VramNever]);
        // Anybody may ask for more than there is in the world.
        let all = || Run { gpu_memory: Some(Bytes(u64::MAX)), ..run(Class::Script) };
        let three = Ability { gpu_slots: 3, ..two.clone() };
        assert_eq!(codes(&three, &[all(), all()], &needs(1)), [Code::VramShort]);
        let most = Requirements { gpu_memory: Some(Bytes(u64::MAX)), ..needs(1) };
        assert_eq!(codes(&three, &[all()], &most), [Code::VramNever, Code::VramShort]);
        let unknown = Ability { gpu_memory: None, ..two };
        assert_eq!(codes(&unknown, &[], &needs(9)), [], "unknown is not zero");
    }

    #[test]
    fn all_reasons_are_given_the_decisive_ones_first() {
        let standing =
            StandingOrder { by: "ann".into(), since: Moment::now(), scope: "pool".into() };
        let paused = Ability { paused: Some(standing), gpu: None, ..ability() };
        let addressed =
            Requirements { worker: Some("worker-2".parse().unwrap()), ..lane(Class::Script) };
        assert_eq!(
            codes(&paused, &[run(Class::Script)], &addressed),
            [Code::WorkerAddressed, Code::GpuNone, Code::Paused, Code::WorkerBusy]
        );
    }
}
