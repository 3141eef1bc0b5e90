//! A worker: claims tasks by itself, runs their jobs, says how it fares.
//!
//! Threads: the main one listens and fills free slots ([`floor`]); one per running job starts it,
//! waits for it ([`run`]), and takes the next task itself; one records behind them how attempts
//! ended ([`close`]); one writes heartbeats and watches progress ([`heart`]). They share
//! [`worker_state::Desk`], where everything that is known about this worker lies. A worker that has a model
//! server talks to it through [`server::Server`].

pub mod attempt;
pub(crate) mod children;
pub mod heartbeat_thread;
pub mod job;
pub mod main_loop;
pub mod models;
pub(crate) mod recorder;
pub mod server;
pub mod start;
pub mod worker_state;
