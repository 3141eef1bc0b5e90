//! What the core is told and what it answers: events, commands, and all that they carry.

pub mod at;
pub mod command;
pub mod death;
pub mod event;
pub mod findings;
pub mod placement;
pub mod scaling;
pub mod snapshot;
pub mod worker_spec;
