//! What the end of an attempt means for the brake that counts its task: failures at once that are
//! alike put it on, a success takes it off. Costs nothing where all goes well.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use queue::dir::signal::doorbell;
use queue::wire::brake::{self, BrakeKey, Counted, FailedAtOnce, Signature};
use queue::wire::lane::Requirements;
use queue::wire::ledger_line::Line;
use shared::emit;
use shared::event::Event;
use shared::outcome::Outcome;
use shared::task;

use crate::attempt::context::AttemptContext;
use crate::attempt::finished::Finished;
use crate::worker_state::back_off::FailedHere;

/// So much of the end of an output is looked at for its last line.
const TAIL: u64 = 4096;

/// An end that a brake may be interested in.
#[derive(Debug)]
pub(super) struct Note {
    key: BrakeKey,
    /// What the task needs of a worker.
    needs: Requirements,
    end: End,
}

#[derive(Debug)]
enum End {
    Succeeded,
    Failed(Box<FailedAtOnce>),
    /// It ended otherwise, or had done something before it failed.
    Otherwise,
}

/// What is to be told once the end is recorded. `None` where no brake can be concerned.
pub(super) fn note(context: &AttemptContext, finished: &Finished) -> Option<Note> {
    let (pool, line) = (&context.surroundings.pool, &finished.line);
    if pool.rules().brake == task::BrakeUse::Off {
        return None;
    }
    let wall = Duration::try_from_secs_f64(finished.ending.seconds.unwrap_or(0.0));
    let fails = brake::counts(line.outcome, line.cause, wall.unwrap_or(Duration::MAX));
    // An error when looking is one when telling, too.
    let is_quiet = pool.brakes().all().is_ok_and(|all| all.is_empty())
        && context.worker_state.look(|state| state.back_offs.is_empty());
    if !fails && is_quiet {
        return None;
    }
    let task = finished.claim.task();
    let key = BrakeKey::of(task)?;
    let end = match line.outcome {
        _ if fails => End::Failed(Box::new(failure(context, key.clone(), line)?)),
        Outcome::Succeeded => End::Succeeded,
        Outcome::Failed => End::Otherwise,
        Outcome::Cancelled | Outcome::Returned => return None,
    };
    Some(Note { key, needs: pool.requirements_of(task).without_limits(), end })
}

fn failure(context: &AttemptContext, key: BrakeKey, line: &Line) -> Option<FailedAtOnce> {
    let log = context.surroundings.pool.layout().run_log(line.id, line.attempt);
    let said = tail(&log).and_then(|tail| brake::last_line(&tail));
    let said = said.or_else(|| line.error_message.as_deref().and_then(brake::last_line));
    let said = said.unwrap_or_default();
    Some(FailedAtOnce {
        key,
        batch: line.task.batch_id,
        task: line.id,
        worker: context.worker_state.name().clone(),
        at: line.ended_at,
        signature: Signature::new(line.cause?, line.exit_code, line.signal, &said),
        line: said,
    })
}

fn tail(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Tells the brake. What cannot be told is said, and costs some attempts more.
pub(super) fn tell(context: &AttemptContext, note: Note) {
    let (pool, Note { key, needs, end }) = (&context.surroundings.pool, note);
    let class = needs.class;
    if !matches!(end, End::Failed(_)) {
        went_well(context, &needs);
    }
    let told = match end {
        End::Failed(failure) => count(context, *failure, needs),
        End::Otherwise => pool.brakes().interrupt(&key),
        End::Succeeded => pool.brakes().end(&key).map(|held| {
            let Some(held) = held else { return };
            let by = "a task has succeeded".to_owned();
            emit!(Event::BrakeReleased { batch: held.batch, what: held.what(), by });
            doorbell::ring_class(pool.layout(), class);
        }),
    };
    if let Err(error) = told {
        let doing = "counting failures that are alike".to_owned();
        emit!(Event::ProcessFailed { doing, error: error.to_string() });
    }
}

fn went_well(context: &AttemptContext, needs: &Requirements) {
    let state = &context.worker_state;
    if state.look(|state| !state.back_offs.is_empty())
        && state.change(|state| state.went_well(needs))
    {
        let (worker, class) = (state.name().clone(), needs.class);
        emit!(Event::WorkerTakesAgain { worker, class });
    }
}

fn count(
    context: &AttemptContext,
    failure: FailedAtOnce,
    needs: Requirements,
) -> Result<(), queue::Error> {
    let (task, key, cause) = (failure.task, failure.key.clone(), failure.signature.cause);
    let (counted, brake) = context.surroundings.pool.brakes().count(failure)?;
    let is_first = counted == Counted::First;
    let class = needs.class;
    let failed = FailedHere { needs, task, key, cause, is_first };
    let pause = context.worker_state.change(|state| state.failed_here(failed, &brake.line));
    if let Some(pause) = pause {
        let (worker, seconds) = (context.worker_state.name().clone(), pause.as_secs_f64());
        emit!(Event::WorkerBacksOff { worker, class, error: brake.line.clone(), seconds });
    }
    match counted {
        Counted::NowHeld => emit!(Event::BrakeHeld {
            batch: brake.batch,
            what: brake.sentence(),
            tasks: brake.tasks.clone(),
            advice: brake.advice(),
        }),
        Counted::First | Counted::Yes | Counted::Already => {}
    }
    Ok(())
}
