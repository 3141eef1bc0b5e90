//! The brain: watches, recovers, releases, spawns, and says what it sees.
//!
//! [`core`](mod@core) decides, as a pure function of what was observed; everything else here
//! gathers observations and carries out what was decided:
//!
//! - `start`: the command line, the pool, the lock (or standing by for it)
//! - `run`: the loop, and one cycle of it, step by step
//! - `observe`: what is in the pool now, without reading again what has not changed
//! - `watch`: who dies, by a thread per worker that waits for its lease, and settles what he left
//! - `recover`: half-finished transitions, and delays and dependencies that are over
//! - `children`: the workers that the brain starts
//! - `requests`: asking workers to load and unload models
//! - `act`: carrying out commands; `publish`: `brain/state.json`

pub mod core;
mod effects;
mod main_loop;
pub mod message;
mod observe;
mod start;

use std::process::ExitCode;

use clap::Parser as _;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    match start::start(start::cli::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Also where there is no log yet: this is the last word on stderr.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("error: {failure}\n"),
            );
            ExitCode::from(failure.code)
        }
    }
}
