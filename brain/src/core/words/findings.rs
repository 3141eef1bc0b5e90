//! What the core thinks, as others may read it.

use queue::wire::brain_state::{Stuck, Warning};
use queue::wire::model_stats::ModelStats;

/// What the brain thinks, as others may read it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Tasks that made no progress for `stuck_after`.
    pub stuck: Vec<Stuck>,
    /// What somebody should know.
    pub warnings: Vec<Warning>,
    /// What was measured about models.
    pub measured: ModelStats,
}
