//! One attempt of an `llm` task: a request to the model server, its answer streamed into the run
//! log. [`super::job_run`] is the same for commands.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use queue::dir::claim::one::Claim;
use queue::wire::retry::Verdict;
use shared::emit;
use shared::event::Event;
use shared::id::TaskId;
use shared::llm::{Answer, Flaw};
use shared::outcome::Cause;
use shared::time::Moment;

use super::context::{AttemptContext, AttemptResult, what};
use crate::job::{self, Stop, Why};
use crate::models::Models;
use crate::server::{Again, Failure, Sink};

/// What an attempt that needs the model server works with.
#[derive(Clone, Copy)]
pub(crate) struct ModelAttempt<'a> {
    pub(crate) context: &'a AttemptContext,
    pub(crate) models: &'a Models,
    pub(crate) claim: &'a Claim,
    pub(crate) stop: &'a Stop,
}

/// Why we gave a request up, if we did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GaveUp {
    /// Its time limit was over.
    Timeout,
    /// Somebody asked for it, through the attempt's `Stop`.
    Asked(Why),
    /// We did not.
    No,
}

/// Asks the model, and says how that went. Calls `meanwhile` when the server begins to answer.
pub(crate) fn ask(work: ModelAttempt<'_>, model: &str, meanwhile: &dyn Fn()) -> AttemptResult {
    let begun = Begun::new(work);
    let ModelAttempt { context, models, claim, stop } = work;
    let (name, what) = (claim.name(), what(claim));
    let (task, attempt, log) = (name.id, name.attempt, begun.log.path.clone());
    let (model_name, server) = (model.to_owned(), models.server().address().to_owned());
    emit!(Event::ModelAsked { task, attempt, what, model: model_name, server, log });
    let spec = &claim.task().spec;
    let _asking = models.asking();
    let (asked, gave_up) = begun.within(spec.timeout.map(|span| span.0), stop, |log| {
        models.server().ask(spec, stop.cancel(), &mut Answered { log, meanwhile })
    });
    match asked {
        Ok(answer) => {
            models.answered(&context.worker_state, model, &answer);
            let complete_only = context.surroundings.pool.rules().complete_only;
            let wanted = spec.complete_only.unwrap_or(complete_only);
            let (verdict, message) = judge_answer(&answer, wanted);
            AttemptResult { answer: Some(answer), ..begun.result(verdict, message) }
        }
        // It was not asked. As a job that cannot be started.
        Err(failure) if failure.cause == Cause::SpawnFailed => {
            context.starve(failure.message.clone());
            begun.result(Verdict::Returned, Some(failure.message))
        }
        Err(failure) => {
            if gave_up == GaveUp::No && failure.again == Again::Later {
                models.busy(&context.worker_state, model, &failure);
            }
            if is_servers_fault(&failure, gave_up) {
                models.doubt(&context.worker_state, model);
            }
            begun.failed(&failure, gave_up)
        }
    }
}

/// What an answer that came means for its task, where only complete ones are wanted. What ran into
/// a limit, or was kept back, does so again; one that is empty may be luck.
fn judge_answer(answer: &Answer, complete_only: bool) -> (Verdict, Option<String>) {
    let said = answer.flaw.map(|flaw| flaw.sentence().to_owned());
    match (answer.flaw, complete_only) {
        (None, _) => (Verdict::Succeeded, None),
        (Some(_), false) => (Verdict::Succeeded, said),
        (Some(Flaw::Cut | Flaw::Filtered), true) => (Verdict::Refused(Cause::ServerError), said),
        (Some(Flaw::Empty), true) => (Verdict::Failed(Cause::ServerError), said),
    }
}

/// Where an answer goes as it comes.
struct Answered<'a> {
    log: &'a Log,
    meanwhile: &'a dyn Fn(),
}

impl Sink for Answered<'_> {
    fn begins(&mut self) {
        // What goes wrong goes wrong again with the first text, which says so.
        let _opened = self.log.file();
        (self.meanwhile)();
    }
}

impl Write for Answered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.log.file()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the next request may well fail the same way: only a canary tells.
fn is_servers_fault(failure: &Failure, gave_up: GaveUp) -> bool {
    let server = matches!(failure.cause, Cause::ServerError | Cause::Oom | Cause::GpuError);
    match (gave_up, failure.again) {
        (GaveUp::Asked(Why::Stalled), _) => true,
        // A key that is refused once is refused to all who come after: they wait instead.
        (GaveUp::No, _) if failure.cause == Cause::Unauthorized => true,
        (GaveUp::Timeout | GaveUp::Asked(Why::Cancelled | Why::Returned | Why::DiskFull), _) => {
            false
        }
        (GaveUp::No, Again::Maybe) => server,
        (GaveUp::No, Again::Later | Again::Never | Again::GivenUp) => false,
    }
}

/// An attempt that has begun.
pub(crate) struct Begun {
    log: Log,
    at: Moment,
    since: Instant,
}

/// The run log, made when the server begins to answer, or there is something to say before: while
/// the server works nobody waits for a file to be made.
pub(crate) struct Log {
    path: PathBuf,
    task: TaskId,
    attempt: u32,
    file: OnceCell<File>,
}

impl Log {
    fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = job::run_log(&self.path, self.task, self.attempt).map_err(io::Error::from)?;
        Ok(self.file.get_or_init(|| file))
    }
}

impl Begun {
    /// Says that the attempt runs.
    pub(crate) fn new(work: ModelAttempt<'_>) -> Self {
        let ModelAttempt { context, claim, .. } = work;
        let name = claim.name();
        let path = context.surroundings.pool.layout().run_log(name.id, name.attempt);
        let log = Log { path, task: name.id, attempt: name.attempt, file: OnceCell::new() };
        let begun = Self { log, at: Moment::now(), since: Instant::now() };
        context.worker_state.update(name, |job| job.run.started_at = Some(begun.at));
        begun
    }

    /// A line in the run log, for people.
    pub(crate) fn say(&self, text: &str) {
        // That it could not be written is less than what it says, which the ledger says too.
        let _unwritten = self.log.file().and_then(|mut file| writeln!(file, "{text}"));
    }

    /// How long it has run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Does something that is given up when it is asked, or takes longer than `limit`.
    pub(crate) fn within<T>(
        &self,
        limit: Option<Duration>,
        stop: &Stop,
        work: impl FnOnce(&Log) -> Result<T, Failure>,
    ) -> (Result<T, Failure>, GaveUp) {
        let late = AtomicBool::new(false);
        let give_up = || {
            late.store(true, Ordering::Release);
            stop.cancel().give_up();
        };
        let result = watched(limit, give_up, || work(&self.log)).unwrap_or_else(|err| {
            let message = format!("could not start a thread that keeps the time limit: {err}");
            Err(Failure { cause: Cause::SpawnFailed, again: Again::Later, message, refused: None })
        });
        let gave_up = match (stop.why(), late.load(Ordering::Acquire)) {
            (Some(why), _) => GaveUp::Asked(why),
            (None, true) => GaveUp::Timeout,
            (None, false) => GaveUp::No,
        };
        (result, gave_up)
    }

    /// How it went, with its times.
    pub(crate) fn result(&self, verdict: Verdict, message: Option<String>) -> AttemptResult {
        let (started_at, wall) = (Some(self.at), Some(self.elapsed()));
        AttemptResult {
            message,
            started_at,
            wall,
            logged: self.log.file.get().is_some(),
            ..AttemptResult::new(verdict)
        }
    }

    /// That it failed, in its log too.
    pub(crate) fn failed(&self, failure: &Failure, gave_up: GaveUp) -> AttemptResult {
        let (verdict, message) = judge(failure, gave_up, self.elapsed());
        if let Some(message) = &message {
            self.say(&format!("\nbrainstem: {message}"));
        }
        let refused = failure.refused.as_deref().cloned();
        AttemptResult { refused, ..self.result(verdict, message) }
    }
}

/// What a request that failed means for its task. Pure.
pub(crate) fn judge(
    failure: &Failure,
    gave_up: GaveUp,
    wall: Duration,
) -> (Verdict, Option<String>) {
    let said = Some(failure.message.clone());
    match (gave_up, failure.again) {
        (GaveUp::Asked(Why::Cancelled), _) => (Verdict::Cancelled(Cause::Cancelled), None),
        (GaveUp::Asked(Why::Returned), _) => (Verdict::Returned, None),
        (GaveUp::Asked(Why::Stalled), _) => {
            let text = "ended because it made no progress for its stall limit".to_owned();
            (Verdict::Failed(Cause::Stalled), Some(text))
        }
        // Only jobs are ended for their logs.
        (GaveUp::Asked(Why::DiskFull), _) => (Verdict::Failed(Cause::DiskFull), said),
        (GaveUp::Timeout, _) => {
            let text = format!("ended at its time limit, after {:.0} s", wall.as_secs_f64());
            (Verdict::Failed(Cause::Timeout), Some(text))
        }
        // The task is as good as it was: it waits for a better key.
        (GaveUp::No, Again::Never) if failure.cause == Cause::Unauthorized => {
            (Verdict::NotReady(failure.cause), said)
        }
        (GaveUp::No, Again::Never) => (Verdict::Refused(failure.cause), said),
        (GaveUp::No, Again::Later) if failure.cause == Cause::SpawnFailed => {
            (Verdict::NotReady(failure.cause), said)
        }
        (GaveUp::No, Again::Later) => (Verdict::Busy(failure.cause), said),
        (GaveUp::No, Again::Maybe | Again::GivenUp) => (Verdict::Failed(failure.cause), said),
    }
}

/// Works, and has `late` called from another thread when that takes longer than `limit`. Where no
/// thread can be had nothing is begun.
fn watched<T>(
    limit: Option<Duration>,
    late: impl FnOnce() + Send,
    work: impl FnOnce() -> T,
) -> io::Result<T> {
    let Some(limit) = limit else { return Ok(work()) };
    std::thread::scope(|scope| {
        let (done, over) = bounded::<()>(0);
        Builder::new().spawn_scoped(scope, move || {
            if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                late();
            }
        })?;
        let result = work();
        drop(done);
        Ok(result)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_request_means() {
        let failure = |again| Failure {
            cause: Cause::ServerError,
            again,
            message: "no".into(),
            refused: None,
        };
        let verdict = |gave_up, again| judge(&failure(again), gave_up, Duration::from_secs(1)).0;
        for (gave_up, again, expected) in [
            (GaveUp::No, Again::Maybe, Verdict::Failed(Cause::ServerError)),
            (GaveUp::No, Again::Later, Verdict::Busy(Cause::ServerError)),
            (GaveUp::No, Again::Never, Verdict::Refused(Cause::ServerError)),
            (GaveUp::Timeout, Again::GivenUp, Verdict::Failed(Cause::Timeout)),
            (GaveUp::Asked(Why::Cancelled), Again::GivenUp, Verdict::Cancelled(Cause::Cancelled)),
            (GaveUp::Asked(Why::Stalled), Again::GivenUp, Verdict::Failed(Cause::Stalled)),
            (GaveUp::Asked(Why::Returned), Again::Maybe, Verdict::Returned),
        ] {
            assert_eq!(verdict(gave_up, again), expected, "{gave_up:?} {again:?}");
        }
        let no_key = Failure { cause: Cause::Unauthorized, ..failure(Again::Never) };
        let waits = judge(&no_key, GaveUp::No, Duration::from_secs(1)).0;
        assert_eq!(waits, Verdict::NotReady(Cause::Unauthorized));
    }

    #[test]
    fn what_may_well_befall_the_next_request_too() {
        let failure = |cause, again| Failure { cause, again, message: "no".into(), refused: None };
        for (cause, again, fault) in [
            (Cause::ServerError, Again::Maybe, true),
            (Cause::ServerError, Again::Later, false),
            (Cause::ModelMissing, Again::Never, false),
            (Cause::Unauthorized, Again::Never, true),
        ] {
            assert_eq!(is_servers_fault(&failure(cause, again), GaveUp::No), fault, "{cause}");
        }
    }

    #[test]
    fn work_that_takes_too_long_is_told_so() {
        let (late, told) = bounded(1);
        let work = || told.recv().is_ok();
        let soon = Some(Duration::from_millis(1));
        assert!(watched(soon, || late.send(()).unwrap(), work).unwrap());
        assert_eq!(watched(Some(Duration::from_secs(3600)), || panic!("late"), || 3).unwrap(), 3);
    }
}
