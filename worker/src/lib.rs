//! A worker: claims tasks by itself, runs their jobs, says how it fares.
//!
//! - [`start`]: from the command line to the main loop; the lease, the GPU, the model server
//! - [`main_loop`]: the main thread listens and fills free slots; threads that run attempts take the
//!   next task themselves
//! - [`attempt`]: one attempt, from its claim to what is to be recorded: a job, a prompt, a load
//! - `recorder`: one thread that records behind them how attempts ended
//! - [`worker_state`]: what this worker knows about itself, shared by its threads
//! - [`gpu`]: how its GPU fares, and whether it may be given work
//! - [`heartbeat_thread`]: says that to others, and watches progress
//! - [`models`]: what is known of the model server; [`server`]: how it is spoken to
//! - [`job`]: one child process group: start, wait, end, leaks

pub mod attempt;
pub(crate) mod children;
pub mod gpu;
pub mod heartbeat_thread;
pub mod job;
pub mod main_loop;
pub mod models;
pub(crate) mod recorder;
pub mod server;
pub mod start;
pub mod worker_state;
