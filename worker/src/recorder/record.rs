//! Recording how attempts ended: ledger lines, one flush for all of a group, and then what the
//! lines say.

use std::time::{Duration, Instant};

use queue::dir::claim::one::{self, NotEnded};
use shared::emit;
use shared::event::{Ending, Event};
use shared::log::{Context, scope};
use shared::outcome::{Next, Outcome};
use shared::task::TaskName;

use super::brake::{self, Note};
use crate::attempt::context::{AttemptContext, is_hurried};
use crate::attempt::finished::Finished;
use crate::worker_state::backlog::Phase;
use crate::worker_state::retries::Retry;

/// How recording went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recording {
    /// At the first try.
    Smooth,
    /// Not at once: meanwhile nothing was taken.
    HeldUp,
}

/// What is to be said of an end once it is recorded.
struct Told {
    name: TaskName,
    correlation: String,
    ending: Ending,
    what: String,
    for_brake: Option<Note>,
    retry: Option<Retry>,
}

/// A failure that comes again: others should have it first.
fn retry(context: &AttemptContext, finished: &Finished) -> Option<Retry> {
    let (line, task) = (&finished.line, finished.claim.task());
    let Next::Delayed(until) = line.next else { return None };
    if line.outcome != Outcome::Failed {
        return None;
    }
    let pause = Duration::try_from_secs_f64(until.seconds_since(line.ended_at)).ok()?;
    // Delays are kept by whole seconds.
    let due = Instant::now() + pause + Duration::from_secs(1);
    let needs = context.surroundings.pool.requirements_of(task).without_limits();
    Some(Retry { task: task.id, needs, due })
}

/// Records the ends of attempts, with one flush for all: writes their ledger lines and carries
/// them out; tries again while the disk does not take them. What could not be recorded before the
/// worker had to go stays claimed.
pub(crate) fn record_group(context: &AttemptContext, group: Vec<Finished>) -> Recording {
    let split = |finished: Finished| {
        let for_brake = brake::note(context, &finished);
        let retry = retry(context, &finished);
        let Finished { claim, line, ending, what, cost: _ } = finished;
        let (name, correlation) = (claim.name(), claim.task().correlation_id.clone());
        ((claim, line), Told { name, correlation, ending, what, for_brake, retry })
    };
    let (ends, told): (Vec<_>, Vec<_>) = group.into_iter().map(split).unzip();
    let results = one::record_all(&context.ledger, ends);
    let held_up = results.iter().any(Result::is_err);
    context.worker_state.note(|state| {
        let recorded = results.iter().filter_map(|result| result.as_ref().ok());
        recorded.for_each(|end| state.enter(end.name(), Phase::Recorded));
    });
    for (result, told) in results.into_iter().zip(told) {
        let Told { name, correlation, ending, what, for_brake, retry } = told;
        let _scope = scope(Context {
            task: Some(name.id),
            attempt: Some(name.attempt),
            correlation_id: Some(correlation),
            ..Context::default()
        });
        let ended = result.and_then(one::Recorded::carry_out);
        let recorded = ended.or_else(|not_yet| end_patiently(context, not_yet)).is_ok();
        let outcome = ending.outcome;
        if recorded {
            emit!(Event::ended(name.id, name.attempt, what, ending));
            if let Some(note) = for_brake {
                brake::tell(context, note);
            }
        }
        context.worker_state.change(|state| {
            if let Some(retry) = retry {
                state.retries.add(retry);
            }
            match outcome {
                Outcome::Succeeded if recorded => state.completed += 1,
                Outcome::Failed if recorded => state.failed += 1,
                Outcome::Succeeded | Outcome::Failed => {}
                Outcome::Cancelled | Outcome::Returned => {}
            }
            state.clear(name)
        });
    }
    if held_up { Recording::HeldUp } else { Recording::Smooth }
}

/// An error when the worker had to go first: whoever settles its affairs finds the line, or the
/// job gone without one.
fn end_patiently(context: &AttemptContext, mut not_ended: NotEnded) -> Result<(), NotEnded> {
    let name = not_ended.claim.name();
    let mut wait = Duration::from_millis(100);
    context.worker_state.enter(name, Phase::Stuck);
    loop {
        let doing = format!("recording the end of {}", name.id.short());
        emit!(Event::ProcessFailed { doing, error: not_ended.error.to_string() });
        if is_hurried(context, wait) {
            return Err(not_ended);
        }
        match not_ended.try_again(&context.ledger) {
            Ok(()) => return Ok(()),
            Err(again) => not_ended = again,
        }
        wait = (wait * 2).min(Duration::from_secs(10));
    }
}
