//! Loads that failed: when one is asked for again.

use queue::wire::ledger_line::Brief;
use queue::wire::model_stats::ModelStats;
use shared::event::Event;
use shared::llm::ModelVerb;
use shared::outcome::{Cause, Outcome};

/// The pause after the first failure, in seconds; doubles each time.
const FIRST: f64 = 30.0;
/// It grows no longer than this.
const LONGEST: f64 = 600.0;

/// For how long a load is not asked for again of a worker after so many failures in a row.
pub(crate) fn back_off(failures: u32) -> f64 {
    let doubled = 2f64.powi(i32::try_from(failures.saturating_sub(1).min(16)).unwrap_or(16));
    (FIRST * doubled).min(LONGEST)
}

/// What is to be said about an attempt that ended, once it is measured.
pub(crate) fn told(measured: &ModelStats, brief: &Brief) -> Option<Event> {
    let (cause, worker, model) = (brief.cause?, brief.worker.clone()?, brief.task.model.clone()?);
    if brief.task.verb != Some(ModelVerb::Load) || brief.outcome != Outcome::Failed {
        return None;
    }
    let failures = measured.of(&model)?.failures.get(&worker)?.count;
    let lasting = matches!(cause, Cause::ModelMissing | Cause::Oom);
    let again_seconds = (!lasting).then(|| back_off(failures));
    Some(Event::LoadFailed { worker, model, cause, failures, again_seconds })
}
