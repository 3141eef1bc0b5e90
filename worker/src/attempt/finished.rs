//! An attempt of whose job nothing is left: what is to be recorded of it.

use std::fs::{self, Metadata};
use std::path::PathBuf;
use std::time::Duration;

use queue::dir::brake::BrakeTurn;
use queue::dir::claim::one::Claim;
use queue::dir::runs::cut::{self, Cut};
use queue::wire::ledger_line::Line;
use queue::wire::retry::{self, Verdict};
use shared::emit;
use shared::event::{Ending, Event};
use shared::log_cap::LogCap;
use shared::outcome::Outcome;
use shared::quantity::Bytes;
use shared::task::TaskName;
use shared::time::Moment;

use super::context::{AttemptContext, AttemptResult, what};

/// An attempt of whose job nothing is left. It has not ended before that is recorded.
#[derive(Debug)]
pub struct Finished {
    /// The right and the duty to end it.
    pub claim: Box<Claim>,
    /// What is to be recorded.
    pub line: Line,
    /// What running it again would cost: its time, and four times that where no model answered; of
    /// a failure never nothing.
    pub cost: Duration,
    /// The same for the log.
    pub ending: Ending,
    /// The task, for people.
    pub what: String,
}

impl Finished {
    /// Whether somebody asked for that end, and may wait to hear of it.
    pub fn was_asked(&self, context: &AttemptContext) -> bool {
        let name = self.claim.name();
        context
            .worker_state
            .look(|state| state.jobs.iter().any(|job| job.name == name && job.stop.why().is_some()))
    }
}

/// How much worse it is to run a job again than to ask a model again for the same time.
const JOB: u32 = 4;

/// A failure is recorded before much more is begun: it may be one of many, and put on the brake.
const FAILURE: Duration = Duration::from_millis(20);

/// What is to be recorded. Limits do not count the task any more.
pub(crate) fn finish(
    context: &AttemptContext,
    mut claim: Box<Claim>,
    result: AttemptResult,
) -> Finished {
    let result = AttemptResult { verdict: as_probe(claim.turn(), result.verdict), ..result };
    let is_prompt = result.answer.is_some();
    let cost = result.wall.unwrap_or_default() * if is_prompt { 1 } else { JOB };
    let seconds = result.wall.map(|wall| wall.as_secs_f64());
    let line = line(context, &claim, result);
    let cost = if line.outcome == Outcome::Failed { cost.max(FAILURE) } else { cost };
    let ending = Ending {
        outcome: line.outcome,
        cause: line.cause,
        exit_code: line.exit_code,
        signal: line.signal,
        seconds,
        next: line.next,
        answer: line.answer.as_ref().map(Into::into),
    };
    let what = what(&claim);
    claim.free_slots();
    Finished { claim, line, cost, ending, what }
}

/// The failure of a probe is none of its task.
fn as_probe(turn: BrakeTurn, verdict: Verdict) -> Verdict {
    match (turn, verdict) {
        (BrakeTurn::Probe(pause), Verdict::Failed(cause)) => Verdict::ProbeFailed { cause, pause },
        (BrakeTurn::Free | BrakeTurn::Probe(_) | BrakeTurn::Over, verdict) => verdict,
    }
}

/// Cuts what the job printed last, after the last look at its log. How much of it is missing.
fn cut_log(context: &AttemptContext, claim: &Claim, path: PathBuf) -> Option<Bytes> {
    let (name, pool) = (claim.name(), &context.surroundings.pool);
    let (task, attempt) = (name.id, name.attempt);
    let cap = cut::cap(pool, claim.task().spec.log_cap);
    match cap.and_then(|cap| Ok((cap, cut::cut(&path, cap)?))) {
        Ok((cap, Cut::Shortened { missing })) => {
            // Said while it ran, or now that it ends.
            if !is_known_to_be_cut(context, name) {
                emit!(Event::JobLogCut { task, attempt, path, cap: cap.to_string(), missing });
            }
            Some(missing)
        }
        // That it cannot be cut was said while it ran, where that took any time.
        Ok((_, Cut::Whole | Cut::Refused { .. })) => None,
        Err(err) => {
            emit!(Event::JobLogFailed { task, attempt, path, error: err.to_string() });
            None
        }
    }
}

fn is_known_to_be_cut(context: &AttemptContext, name: TaskName) -> bool {
    context.worker_state.look(|state| {
        let job = state.jobs.iter().find(|job| job.name == name);
        job.and_then(|job| job.run.log.as_ref()?.missing).is_some()
    })
}

pub(crate) fn line(context: &AttemptContext, claim: &Claim, result: AttemptResult) -> Line {
    let (name, task) = (claim.name(), claim.task());
    let pool = &context.surroundings.pool;
    let policy = pool.rules().retry.of(task);
    let end = retry::next(name, result.verdict, &policy, Moment::now(), fastrand::f64());
    let mut line = Line::new(task.clone(), name, result.verdict, end);
    let log = pool.layout().run_log(name.id, name.attempt);
    line.worker = Some(context.worker_state.name().clone());
    line.gpu_uuid.clone_from(&context.gpu_uuid);
    line.started_at = result.started_at;
    line.exit_code = result.exit_code;
    line.signal = result.signal;
    line.error_message = result.message.as_ref().map(|text| text.chars().take(1000).collect());
    let printed = || fs::metadata(&log).ok().filter(Metadata::is_file).map(|meta| meta.len());
    let bytes = if result.logged { Some(0) } else { printed() };
    line.log_path = bytes.is_some().then(|| log.display().to_string());
    if bytes.is_some_and(|bytes| bytes > LogCap::LEAST.0)
        && let Some(missing) = cut_log(context, claim, log)
        && let Some(message) = &mut line.error_message
    {
        message.push_str(&format!("; its log grew beyond its cap, {missing} of it are missing"));
    }
    line.leaked = result.leaked;
    line.answer = result.answer;
    line.refused = result.refused;
    line.peak_vram_bytes = context.worker_state.look(|state| {
        state.jobs.iter().find(|job| job.name == name).and_then(|job| job.run.peak_vram_bytes)
    });
    line
}
