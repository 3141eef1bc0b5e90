//! Where a task goes first, whatever keeps it.

use shared::task::Task;
use shared::time::Moment;

/// The first place of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// Claimable at once.
    Pending,
    /// When what it depends on has ended.
    Waiting,
    /// When a person releases it.
    Held,
    /// When it is time.
    Delayed(Moment),
}

/// Where a task goes first: held before waiting before delayed before pending.
#[must_use]
pub fn start_of(task: &Task) -> Start {
    if task.spec.hold {
        Start::Held
    } else if !task.spec.after.is_empty() {
        Start::Waiting
    } else {
        released(task, task.submitted_at)
    }
}

/// Where a task goes when nothing holds it back but, perhaps, its time.
#[must_use]
pub fn released(task: &Task, now: Moment) -> Start {
    match task.spec.at {
        Some(at) if at > now => Start::Delayed(at),
        Some(_) | None => Start::Pending,
    }
}
