//! What the core is told and what it answers: events, commands, and all that they carry.

pub mod snapshot;
