//! One test program for everything that crosses a process boundary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod brain;
mod commands;
mod kit;
mod pool;
mod real;
mod servers;
mod source;
mod users;
mod worker;
