//! What is seen: the pool as it is now, and what the GPUs say.

pub(super) mod gpu_readings;
pub(super) mod pool;
pub(super) mod unattended;
