//! One test program for everything that crosses a process boundary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod bad_files;
mod batch;
mod brain;
mod changes;
mod death;
mod dying;
mod exit_codes;
mod gpu;
mod harness;
mod job_environment;
mod jobs;
mod json;
mod kit;
mod layout;
mod placement;
mod places;
mod steps;
mod watch;
mod worker_asked;
mod worker_life;
