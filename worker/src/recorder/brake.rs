//! What the end of an attempt means for the brake that counts its task: failures at once that are
//! alike put it on, a success takes it off. Costs nothing where all goes well.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use queue::dir::signal::doorbell;
use queue::wire::brake::{self, BrakeKey, Counted, FailedAtOnce, Signature};
use queue::wire::ledger_line::Line;
use shared::emit;
use shared::event::Event;
use shared::outcome::Outcome;
use shared::task::{self, Class};

use crate::attempt::context::AttemptContext;
use crate::attempt::finished::Finished;

/// So much of the end of an output is looked at for its last line.
const TAIL: u64 = 4096;

/// An end that a brake may be interested in.
#[derive(Debug)]
pub(super) struct Note {
    key: BrakeKey,
    class: Class,
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
    if !fails && pool.brakes().all().is_ok_and(|all| all.is_empty()) {
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
    Some(Note { key, class: task.class(), end })
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
    let pool = &context.surroundings.pool;
    let told = match note.end {
        End::Failed(failure) => count(context, *failure),
        End::Otherwise => pool.brakes().interrupt(&note.key),
        End::Succeeded => pool.brakes().end(&note.key).map(|held| {
            let Some(held) = held else { return };
            let by = "a task has succeeded".to_owned();
            emit!(Event::BrakeReleased { batch: held.batch, what: held.what(), by });
            doorbell::ring_class(pool.layout(), note.class);
        }),
    };
    if let Err(error) = told {
        let doing = "counting failures that are alike".to_owned();
        emit!(Event::ProcessFailed { doing, error: error.to_string() });
    }
}

fn count(context: &AttemptContext, failure: FailedAtOnce) -> Result<(), queue::Error> {
    let (counted, brake) = context.surroundings.pool.brakes().count(failure)?;
    match counted {
        Counted::NowHeld => emit!(Event::BrakeHeld {
            batch: brake.batch,
            what: brake.sentence(),
            tasks: brake.tasks.clone(),
            fix: brake.release_command(),
        }),
        Counted::Yes | Counted::Already => {}
    }
    Ok(())
}
