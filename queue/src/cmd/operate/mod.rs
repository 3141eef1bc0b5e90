//! Commands for whoever runs the pool: workers, limits, settings, checks.

pub(super) mod config;
pub(super) mod control;
pub(super) mod doctor;
pub(super) mod limit;
pub(super) mod pages;
pub(super) mod settle;
