//! How many tasks are in each place, and the lanes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::id::TaskId;
use shared::task::Class;
use shared::text::shell_word;
use shared::time::Moment;

use super::lane::LaneName;

/// How many tasks are in each place, and the lanes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as the states are")]
pub struct Counts {
    pub pending: u64,
    pub processing: u64,
    pub delayed: u64,
    pub waiting: u64,
    pub held: u64,
    pub failed: u64,
    pub rejected: u64,
    pub lanes: Vec<LaneCount>,
    /// Directories that could not be listed. What is in them is missing in the numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlisted: Vec<Unlisted>,
}

/// A directory of tasks that could not be listed: what is in it is unknown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unlisted {
    /// The state in which the tasks there are.
    pub state: String,
    /// The directory.
    pub path: String,
    /// What the system said.
    pub problem: String,
}

impl Unlisted {
    /// The command that lets its owner list it.
    #[must_use]
    pub fn fix(&self) -> String {
        format!("chmod u+rwx {}", shell_word(&self.path))
    }
}

/// One lane with pending tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneCount {
    /// Its name.
    pub lane: LaneName,
    /// Its class; taken from the lane's name where the lane's file cannot be read.
    pub class: Class,
    /// The model it needs.
    pub model: Option<String>,
    /// The highest priority in it.
    pub priority_max: u8,
    /// How many tasks can be claimed in it; never 0.
    pub pending: u64,
    /// The oldest task in it.
    pub head: Option<TaskId>,
    /// Since when that one exists.
    pub oldest: Option<Moment>,
}

impl Counts {
    /// How many tasks are in the state of this name, `at_least` of which were counted. `None` where
    /// a directory of theirs could not be listed: that is not 0.
    #[must_use]
    pub fn known(&self, state: &str, at_least: u64) -> Option<u64> {
        let is_whole = self.unlisted.iter().all(|unlisted| unlisted.state != state);
        is_whole.then_some(at_least)
    }

    /// Pending tasks per class.
    #[must_use]
    pub fn by_class(&self) -> BTreeMap<Class, u64> {
        let mut classes = BTreeMap::new();
        for lane in &self.lanes {
            *classes.entry(lane.class).or_default() += lane.pending;
        }
        classes
    }
}
