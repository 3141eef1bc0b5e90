//! A worker: claims tasks by itself, runs their jobs, says how it fares.
//!
//! Threads: the main one listens and fills free slots ([`floor`]); one per running job starts it,
//! waits for it ([`run`]), and takes the next task itself; one records behind them how attempts
//! ended ([`close`]); one writes heartbeats and watches progress ([`heart`]). They share
//! [`desk::Desk`], where everything that is known about this worker lies. A worker that has a model
//! server talks to it through [`server::Server`].

mod ask;
pub mod backlog;
pub mod cli;
pub mod close;
pub mod desk;
pub mod engine;
pub mod entry;
pub mod environment;
pub mod floor;
pub mod heart;
pub mod job;
mod load;
pub mod models;
pub mod progress;
pub mod report;
pub mod run;
pub mod server;
pub mod start;
