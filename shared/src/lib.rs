//! The words the whole system speaks: ids, tasks, outcomes, events, reasons, settings, readings.

pub mod address;
pub mod event;
pub mod exit;
pub mod gpu;
pub mod id;
pub mod llm;
pub mod log;
pub mod log_cap;
pub mod name;
pub mod outcome;
pub mod quantity;
pub mod reason;
pub mod settings;
pub mod task;
pub mod text;
pub mod time;
