//! Which worker is to be started with what, and how one ended.

use shared::name::Name;

/// Where a worker can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSpec {
    /// Its name (`--name`), the same at each restart.
    pub worker: Name,
    /// What it works with.
    pub kind: WorkerKind,
}

/// What a worker works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerKind {
    /// The GPU of this index (`--gpu`).
    Gpu(u32),
    /// No GPU (`--cpu`).
    Cpu,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerExit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody could tell: it was adopted and said no goodbye, or waiting for it failed.
    Unknown,
}

/// A worker that we had started, and that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerEnd {
    /// Its name.
    pub worker: Name,
    /// The number of the process that ended.
    pub pid: u32,
    /// How it ended; of an adopted worker only whether it said goodbye is known.
    pub exit: WorkerExit,
}
