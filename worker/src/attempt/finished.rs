//! An attempt of whose job nothing is left: what is to be recorded of it.

use std::time::Duration;

use queue::dir::claim::one::Claim;
use queue::wire::ledger_line::Line;
use queue::wire::retry;
use shared::event::Ending;
use shared::time::Moment;

use super::context::{Bench, Went, what};

/// An attempt of whose job nothing is left. It has not ended before that is recorded.
#[derive(Debug)]
pub struct Over {
    /// The right and the duty to end it.
    pub claim: Box<Claim>,
    /// What is to be recorded.
    pub line: Line,
    /// See [`Phase::Over`].
    pub cost: Duration,
    /// The same for the log.
    pub ending: Ending,
    /// The task, for people.
    pub what: String,
}

impl Over {
    /// Whether somebody asked for that end, and may wait to hear of it.
    pub fn was_asked(&self, bench: &Bench) -> bool {
        let name = self.claim.name();
        bench
            .desk
            .look(|state| state.jobs.iter().any(|job| job.name == name && job.stop.why().is_some()))
    }
}

/// How much worse it is to run a job again than to ask a model again for the same time.
const JOB: u32 = 4;

/// What is to be recorded. Limits do not count the task any more.
pub(crate) fn over(bench: &Bench, mut claim: Box<Claim>, went: Went) -> Over {
    let is_prompt = went.answer.is_some();
    let cost = went.wall.unwrap_or_default() * if is_prompt { 1 } else { JOB };
    let seconds = went.wall.map(|wall| wall.as_secs_f64());
    let line = line(bench, &claim, went);
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
    Over { claim, line, cost, ending, what }
}

pub(crate) fn line(bench: &Bench, claim: &Claim, went: Went) -> Line {
    let (name, task) = (claim.name(), claim.task());
    let pool = &bench.surroundings.pool;
    let policy = pool.rules().retry.of(task);
    let next = retry::next(name, went.verdict, &policy, Moment::now(), fastrand::f64());
    let mut line = Line::new(task.clone(), name, went.verdict, next);
    let log = pool.layout().run_log(name.id, name.attempt);
    line.worker = Some(bench.desk.name().clone());
    line.gpu_uuid.clone_from(&bench.gpu_uuid);
    line.started_at = went.started_at;
    line.exit_code = went.exit_code;
    line.signal = went.signal;
    line.error_message = went.message.as_ref().map(|text| text.chars().take(1000).collect());
    line.log_path = (went.logged || log.is_file()).then(|| log.display().to_string());
    line.leaked = went.leaked;
    line.answer = went.answer;
    line.peak_vram_bytes = bench.desk.look(|state| {
        state.jobs.iter().find(|job| job.name == name).and_then(|job| job.run.peak_vram_bytes)
    });
    line
}
