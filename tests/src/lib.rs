//! The harness: a house per test, with nothing of the machine in it, in which the real programs
//! run a real pool.
//!
//! A test makes a [`Pool`], starts [`Proc`]s in it, asks it with [`Pool::queue`], and waits for
//! things with [`Pool::until`]; never for time. When it ends, everything that it started, and
//! everything that *that* started, is gone; after a failure the house stays, and its path is said.
//!
//! ```text
//! let pool = Pool::new();
//! let worker = pool.worker(&["--cpu"]);
//! let id = pool.queue(&["submit", "--class", "cpu", "--", "fake-job", "say=hello"]).id();
//! pool.queue(&["wait", &id]).success();
//! pool.until_event("worker-1", "claim.won");
//! worker.kill9();
//! ```

mod evidence;
mod fake_gpus;
mod house;
pub mod placement;
mod pool;
mod process;
mod programs;
mod scripted;
mod servers;
mod skip;
pub mod source;
mod wait;

pub use evidence::{Mark, Moment};
pub use fake_gpus::{FakeGpu, library as fake_nvml};
pub use house::Alive;
pub use pool::{Fifo, Held, Pool};
pub use process::{Proc, Ran};
pub use programs::program;
pub use rustix::process::Signal;
pub use scripted::{Asked, Scripted};
pub use servers::{
    FakeOllama, Llama, Ollama, client_python, free_port, free_port_pair, llama_models, llama_router,
};
pub use skip::skip;
