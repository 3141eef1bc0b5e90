//! What is decided about models: asked of a worker, and written down.

use shared::event::Placement;
use shared::llm::ModelVerb;
use shared::name::Name;
use shared::time::Moment;

/// A load or an unload to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRequest {
    /// The worker that the `resource` task is addressed to.
    pub worker: Name,
    /// Whether the model is to be loaded or unloaded.
    pub verb: ModelVerb,
    /// With which model.
    pub model: String,
    /// For which work: a model, or `script`.
    pub goal: String,
}

/// A decision, as it is written down.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PlacementDecision {
    /// When it was decided, by the wall clock.
    pub timestamp: Moment,
    /// In which cycle of this brain; each brain counts from 1.
    pub cycle: u64,
    /// What, with its sums.
    #[serde(flatten)]
    pub placement: Placement,
}
