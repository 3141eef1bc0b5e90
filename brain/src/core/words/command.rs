//! What the core answers: what is to be done.

use shared::event;
use shared::name::Name;
use shared::task::TaskName;

use super::placement;
use super::scaling::ScalingDecision;
use super::worker_spec::WorkerSpec;

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Write this event to the log.
    Say(event::Event),
    /// Start this worker, and report back.
    Spawn(WorkerSpec),
    /// Ask a worker to end a task's job because it makes no progress.
    Stall {
        /// The worker that has claimed it.
        worker: Name,
        /// Task and attempt: no other attempt is ended.
        name: TaskName,
        /// For how long it has made none.
        seconds: f64,
    },
    /// Ask a worker to finish what it does, take nothing new, and exit.
    Drain(Name),
    /// Take that back: the worker is gone.
    Undrain(Name),
    /// Write a decision down.
    Record(ScalingDecision),
    /// Write down a decision about a model.
    RecordPlacement(placement::PlacementDecision),
    /// Ask a worker to load or unload a model.
    Request(placement::ModelRequest),
    /// Take back such a request that nobody has taken.
    Withdraw(TaskName),
    /// Tell a worker that we started to end.
    Terminate(Name),
    /// End a worker that we started.
    Kill(Name),
    /// All is done: end.
    Finish,
}

/// Puts an event among the commands.
pub(crate) fn say(out: &mut Vec<Command>, event: event::Event) {
    out.push(Command::Say(event));
}
