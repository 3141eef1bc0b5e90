//! Decisions, as they are written down.

use shared::event::Scaling;
use shared::name::Name;
use shared::time::Moment;

/// A decision, as it is written down.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ScalingDecision {
    /// When it was decided, by the wall clock.
    pub timestamp: Moment,
    /// The figures it was made from.
    #[serde(flatten)]
    pub scaling: Scaling,
    /// The fewest workers to keep.
    pub min: u64,
    /// Workers wanted per task.
    pub multiplier: f64,
    /// Workers that were started.
    pub spawn: Vec<Name>,
    /// Workers that were asked to go.
    pub retire: Vec<Name>,
}
