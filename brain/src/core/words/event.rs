//! What the core is told.

use queue::wire::model_stats::ModelStats;
use shared::name::Name;

use super::death;
use super::snapshot::Snapshot;
use super::worker_spec::WorkerEnd;

/// Something that happened, told by the main loop; when, it says beside it.
#[derive(Debug)]
pub enum Event {
    /// The pool was looked at.
    Observed(Box<Snapshot>),
    /// A worker died with things to settle; somebody settles them now.
    Died(death::Death),
    /// A worker's affairs were settled, or as much of them as could be.
    Settled(death::Settlement),
    /// A worker that was asked for runs.
    Spawned {
        /// The worker that runs now.
        worker: Name,
        /// Its process.
        pid: u32,
    },
    /// A worker that an earlier brain had started is ours now.
    Adopted {
        /// The worker that was taken over.
        worker: Name,
    },
    /// A worker that was asked for could not be started.
    SpawnFailed {
        /// The worker that has no process.
        worker: Name,
        /// Why not, for the log.
        error: String,
    },
    /// A worker that we had started ended.
    Exited(WorkerEnd),
    /// What the last brain had measured.
    Remembered(Box<ModelStats>),
    /// A signal asks the brain to end. The second one asks to hurry.
    Shutdown {
        /// `SIGTERM`, `SIGINT`, `SIGHUP`; or, without one, why the brain has to end.
        signal: String,
    },
}
