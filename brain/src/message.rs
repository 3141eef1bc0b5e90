//! What threads tell the main loop.

use queue::dir::disk::freshness::Version;
use shared::gpu::GpuReading;
use shared::name::Name;

use crate::core::words::death::{Death, Settlement};
use crate::core::words::worker_spec::WorkerEnd;

/// What the threads report.
pub(crate) enum Message {
    /// About workers that died.
    Watch(Report),
    /// A worker that we had started ended.
    Exited(WorkerEnd),
    /// What the GPUs say.
    Gpus(Vec<GpuReading>),
    /// Nobody can ask the GPUs, and why.
    NoGpus(String),
}

/// What a thread has to say.
pub(crate) enum Report {
    /// The worker died and left something.
    Died(Death),
    /// Its affairs were looked through.
    Settled(Settlement),
    /// The thread is done with this worker.
    Over(Name, Option<Version>),
}
