//! The brain: watches, recovers, releases, spawns, and says what it sees.
//!
//! [`core`](mod@core) decides, as a pure function of what was observed; everything else here
//! gathers observations and carries out what was decided:
//!
//! - `start`: the command line, the pool, the lock (or standing by for it)
//! - `main_loop`: the loop, and one cycle of it, step by step; carrying out commands
//! - `observe`: what is in the pool now, without reading again what has not changed; the GPUs
//! - `effects`: who dies (`lease_watch`: a thread per worker waits for its lease, and settles what
//!   it left), half-finished transitions and releases (`recovery`), the workers that the brain starts
//!   (`children`), asking for loads (`load_requests`), `brain/state.json` (`publish`)
//! - `message`: what the threads report

pub mod core;
mod effects;
mod main_loop;
pub mod message;
mod observe;
mod start;

use std::process::ExitCode;

use clap::Parser as _;

/// The program `brain`, from its command line to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    queue::cli::size_limit::survive();
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
