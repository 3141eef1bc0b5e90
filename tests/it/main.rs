//! One test program for everything that crosses a process boundary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod bad_files;
mod batch;
mod brain;
mod changes;
mod death;
mod disk;
mod dying;
mod exit_codes;
mod fuzz;
mod garbage;
mod gpu;
mod harness;
mod hostile;
mod job_environment;
mod jobs;
mod json;
mod kit;
mod layout;
mod llm_cli;
mod llm_results;
mod models;
mod night;
mod placement;
mod places;
mod server_families;
mod server_managed;
mod server_ollama;
mod server_openai;
mod shared_server;
mod steps;
mod traps;
mod watch;
mod worker_asked;
mod worker_life;
