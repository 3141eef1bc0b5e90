//! A pool in virtual time: the brain's own core decides about workers that are only told of, so
//! that a night of work takes a second, and what the core decides can be held against other rules.
//!
//! Workers claim as the real ones do (their own request first, then the oldest task of a model
//! that they hold); loads and answers take the time that the set-up says.

mod death;
mod feasible;
mod rules;
mod sim;
mod workload;

pub use feasible::{has_round, least_wait};
pub use rules::{Keep, bound, first_come_first_served};
pub use sim::Sim;
pub use workload::{Arrivals, batch_of, mixed, random};

/// One prompt. Times are in milliseconds from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Which model.
    pub model: usize,
    /// When it is submitted.
    pub arrives: u64,
    /// How long its answer takes.
    pub runs: u64,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// How long it takes to load, in milliseconds.
    pub load: u64,
    /// Its size, in GiB.
    pub gib: u64,
}

/// What there is to do, and who is there.
#[derive(Clone, Debug)]
pub struct SetUp {
    /// How many workers, each with a server and a GPU of its own.
    pub workers: usize,
    /// GPU memory of each, in GiB; `None`: nobody can read it.
    pub gpu_gib: Option<u64>,
    /// The models.
    pub models: Vec<Model>,
    /// The prompts, in the order in which they arrive.
    pub prompts: Vec<Prompt>,
    /// How long a task may wait for its model, in milliseconds.
    pub max_wait: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The worker is killed at this time, and is back two seconds later without its models.
    Kill {
        /// Its index among the workers, from 0.
        worker: usize,
        /// When it is killed, in milliseconds from the start.
        at: u64,
    },
    /// The worker's server refuses each load that begins before this time.
    Refuse {
        /// Its index among the workers, from 0.
        worker: usize,
        /// The time from which it loads again, in milliseconds from the start.
        until: u64,
    },
    /// The brain is killed, and another one takes over after this time.
    Brain {
        /// When it is killed, in milliseconds from the start.
        at: u64,
        /// For how long there is none, in milliseconds.
        gap: u64,
    },
}

/// What a simulated run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimResult {
    /// Loads that were begun.
    pub loads: u64,
    /// When the last answer was there, in milliseconds.
    pub ended: u64,
    /// The longest that a task waited until it ran, in milliseconds.
    pub longest_wait: u64,
    /// Tasks per worker.
    pub tasks: Vec<u64>,
    /// When the loads began.
    pub load_times: Vec<u64>,
    /// What was asked of whom and when.
    pub decisions: Vec<String>,
    /// All that the brain said, without the lines that come at intervals.
    pub said: Vec<String>,
}

impl SetUp {
    /// A task's longest wait: its `max_wait`, one load and one run. To that the largest of each
    /// are added, the unload before the load, and the look that asks for it, in milliseconds.
    #[must_use]
    pub fn longest(&self) -> u64 {
        let load = self.models.iter().map(|model| model.load).max().unwrap_or(0);
        let run = self.prompts.iter().map(|prompt| prompt.runs).max().unwrap_or(0);
        self.max_wait + load + run + UNLOAD + sim::TICK
    }
}

/// What an unload costs, in milliseconds.
pub(crate) const UNLOAD: u64 = 300;
