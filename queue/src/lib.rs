//! The pool: where tasks are, and who may move them.
//!
//! The directory a task is in is its state; every transition is one `rename(2)`; a lock held by
//! the kernel says who is alive. [`dir`] is the store that is a directory; [`store`] says what any
//! store means; [`wire`] is what processes write for each other.
//!
//! # What the directory store assumes
//!
//! - All of the pool is on one file system, so that `rename(2)` inside it is atomic.
//! - `flock(2)` works there and is freed when the holder dies.
//! - Nothing else writes there, but whatever it finds that it does not understand it keeps, in
//!   `rejected/`.

pub mod cli;
pub mod dir;
pub mod eligible;
pub mod error;
pub mod fence;
pub mod store;
pub mod umask;
pub mod uptime;
pub mod users;
pub mod view;
pub mod why;
pub mod wire;

pub use dir::Pool;
pub use error::Error;
