//! A worker and its jobs.

pub(super) mod gpu;
pub(super) mod job_environment;
pub(super) mod jobs;
pub(super) mod life;
pub(super) mod limits;
pub(super) mod messages;
pub(super) mod shortage;
pub(super) mod slots;
pub(super) mod starved;
pub(super) mod stopping;
pub(super) mod unfit_gpu;
