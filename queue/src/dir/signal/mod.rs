//! Waking whoever waits, and messages to workers.

pub mod control;
pub mod doorbell;
pub mod notice;
