//! What is measured: a file per part.

pub(super) mod backlog;
pub(super) mod claim;
pub(super) mod claimer;
pub(super) mod daemon;
pub(super) mod idle;
pub(super) mod large;
pub(super) mod llm;
pub(super) mod many;
pub(super) mod placement;
pub(super) mod spawn;
pub(super) mod submit;
pub(super) mod wake;
