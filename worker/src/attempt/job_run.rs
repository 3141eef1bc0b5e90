//! An attempt that runs a job: it is started, waited for, and judged.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use queue::dir::claim::one::Claim;
use queue::dir::recover::settle::obstacle_of;
use queue::dir::runs::cut::{self, Cut};
use queue::fence::{self, LogLock, Mark};
use queue::wire::fate::{Kept, Obstacle};
use queue::wire::retry::Verdict;
use shared::emit;
use shared::event::{Event, Repeater, Say, Why as Reason};
use shared::log_cap::LogCap;
use shared::outcome::Cause;
use shared::quantity::Bytes;
use shared::task::TaskName;

use super::context::{AttemptContext, AttemptResult, is_hurried, what};
use crate::job::{self, End, EndedBy, Order, Sent, StartError, Status, Stop, Why};
use crate::models::Models;
use crate::oom_kills::Limit;
use crate::worker_state::WayOut;

pub(crate) fn order(context: &AttemptContext, claim: &Claim, argv: Vec<OsString>) -> Order {
    let (name, task) = (claim.name(), claim.task());
    let root = context.surroundings.pool.root();
    let ollama_host = context.models.as_ref().and_then(Models::ollama_host);
    Order {
        argv,
        cwd: task.spec.cwd.as_ref().map_or_else(|| root.to_owned(), Into::into),
        env: context.surroundings.of(claim, ollama_host),
        stdin: task.spec.stdin.as_ref().map(|text| text.as_bytes().to_vec()),
        log_path: context.surroundings.pool.layout().run_log(name.id, name.attempt),
        task: name.id,
        attempt: name.attempt,
        timeout: task.spec.timeout.map(|span| span.0),
        grace: task.spec.grace_period.map_or(context.grace, |span| span.0),
    }
}

/// `None` where something of it may still run when the worker must end: nothing may be recorded, and
/// whoever settles the worker's affairs goes on.
pub(crate) fn run(
    context: &AttemptContext,
    claim: &Claim,
    order: Order,
    stop: &Stop,
) -> Option<AttemptResult> {
    let name = claim.name();
    let (log, begun) = (order.log_path.clone(), Instant::now());
    let running = match job::start(order, stop) {
        Ok(running) => running,
        Err(err) => return Some(not_started(context, claim, &err)),
    };
    context.was_started();
    let (pid, started_at) = (running.pid(), running.started_at());
    let mark = running.mark().clone();
    let job_log = log.clone();
    context.worker_state.update(name, |job| {
        job.run.started_at = Some(started_at);
        job.run.pgid = Some(pid);
    });
    let (task, attempt, what) = (name.id, name.attempt, what(claim));
    emit!(Event::TaskStarted { task, attempt, what, pid, log });
    let tell = |sent, wall| say_what_was_sent(context, claim, sent, wall);
    let end = running.wait(&tell);
    say_what_leaked(claim, &end);
    if end.ended_by == Some(EndedBy::Asked(Why::DiskFull)) {
        make_room(context, claim, &job_log);
    }
    let mut result = killed_for_memory(judge(&end), || context.oom_kills.since(begun));
    match after(&end, result.verdict) {
        After::Nothing => {}
        After::LogHeld => emit!(Event::JobLogHeld { task, attempt, path: job_log }),
        After::MayRun => {
            let mark = match end.status {
                Status::Unkillable => mark,
                Status::Exited(_) | Status::Signaled(_) | Status::Lost => mark.without_group(),
            };
            let over = until_over(context, claim, &Remaining { mark, log: job_log });
            context.worker_state.update(name, |job| job.run.kept = None);
            result = of_over(result, over?);
        }
    }
    remove_progress(context, name);
    Some(AttemptResult { started_at: Some(started_at), ..result })
}

fn remove_progress(context: &AttemptContext, name: TaskName) {
    let progress = context.surroundings.pool.layout().progress_file(name.id, name.attempt);
    // Most jobs have none, and a look costs less than a removal in vain.
    if std::fs::symlink_metadata(&progress).is_ok() {
        let _gone = std::fs::remove_file(progress);
    }
}

/// Where the machine has no room for it now, it goes back at once, and this worker pauses.
fn not_started(context: &AttemptContext, claim: &Claim, err: &StartError) -> AttemptResult {
    let (task, attempt) = (claim.name().id, claim.name().attempt);
    emit!(Event::JobSpawnFailed { task, attempt, error: err.to_string() });
    let verdict = match err {
        StartError::NoCommand => Verdict::Refused(Cause::SpawnFailed),
        // What is missing or busy now (a disk that is mounted late) may be there later.
        StartError::Cwd { .. } | StartError::NotFound { .. } | StartError::NotExecutable { .. } => {
            Verdict::Failed(Cause::SpawnFailed)
        }
        StartError::LogHeld { .. } | StartError::File { .. } | StartError::Spawn { .. } => {
            if err.is_shortage() {
                context.starve(err.to_string());
                Verdict::Returned
            } else {
                // The machine or the pool is at fault, and the command may be fine.
                Verdict::NotReady(Cause::SpawnFailed)
            }
        }
    };
    AttemptResult {
        exit_code: err.exit_code(),
        message: Some(err.to_string()),
        ..AttemptResult::new(verdict)
    }
}

/// What the end of a job means for its task. Pure.
pub(crate) fn judge(end: &End) -> AttemptResult {
    let (verdict, message) = match (end.ended_by, end.status) {
        (Some(EndedBy::Timeout), _) => {
            let text = format!("ended at its time limit, after {:.0} s", end.wall.as_secs_f64());
            (Verdict::Failed(Cause::Timeout), Some(text))
        }
        (Some(EndedBy::Asked(Why::Cancelled)), _) => (Verdict::Cancelled(Cause::Cancelled), None),
        (Some(EndedBy::Asked(Why::Stalled)), _) => {
            let text = "ended because it made no progress for its stall limit".to_owned();
            (Verdict::Failed(Cause::Stalled), Some(text))
        }
        (Some(EndedBy::Asked(Why::Returned)), _) => (Verdict::Returned, None),
        (Some(EndedBy::Asked(Why::DiskFull)), _) => {
            let text = "ended because its log filled the disk, and may not, or cannot, be cut";
            (Verdict::Failed(Cause::DiskFull), Some(text.to_owned()))
        }
        (None, Status::Exited(0)) => (Verdict::Succeeded, None),
        (None, Status::Exited(code)) if code == i32::from(shared::exit::TRY_LATER) => {
            (Verdict::NotReady(Cause::ExitCode), Some("not ready: exit code 75".to_owned()))
        }
        (None, Status::Exited(code)) => {
            (Verdict::Failed(Cause::ExitCode), Some(format!("exit code {code}")))
        }
        (None, Status::Signaled(signal)) => {
            (Verdict::Failed(Cause::Signal), Some(format!("ended by signal {signal}")))
        }
        (None, Status::Unkillable | Status::Lost) => {
            let text = "its exit status could not be had".to_owned();
            (Verdict::Failed(Cause::Signal), Some(text))
        }
    };
    let (exit_code, signal) = match end.status {
        Status::Exited(code) => (Some(code), None),
        Status::Signaled(signal) => (None, Some(signal)),
        Status::Unkillable | Status::Lost => (None, None),
    };
    let leaked = u32::try_from(end.leaked.len()).unwrap_or(u32::MAX);
    let wall = Some(end.wall);
    AttemptResult { exit_code, signal, message, leaked, wall, ..AttemptResult::new(verdict) }
}

/// What a KILL means that we did not send, to the job or (by what a shell makes of that) to a part of
/// it: whether the kernel sent it for want of memory is looked at only then.
fn killed_for_memory(result: AttemptResult, met: impl FnOnce() -> Option<Limit>) -> AttemptResult {
    const KILL: i32 = 9;
    const BY_SIGNAL: i32 = 128;
    let is_killed = match result.verdict {
        Verdict::Failed(Cause::Signal) => result.signal == Some(KILL),
        Verdict::Failed(Cause::ExitCode) => result.exit_code == Some(BY_SIGNAL + KILL),
        Verdict::Failed(_)
        | Verdict::Succeeded
        | Verdict::Refused(_)
        | Verdict::Cancelled(_)
        | Verdict::NotReady(_)
        | Verdict::Busy(_)
        | Verdict::Returned
        | Verdict::ProbeFailed { .. }
        | Verdict::Rejected
        | Verdict::WorkerDied => false,
    };
    let Some(limit) = is_killed.then(met).flatten() else { return result };
    let how = result.message.unwrap_or_default();
    let message = Some(format!("{how}: killed by the kernel for want of memory; {limit}"));
    AttemptResult { verdict: Verdict::Failed(Cause::Oom), message, ..result }
}

/// Said when it is done, not when the job has ended: a person who waits sees why.
fn say_what_was_sent(context: &AttemptContext, claim: &Claim, sent: Sent, wall: Duration) {
    let (task, attempt) = (claim.name().id, claim.name().attempt);
    let (Sent::Term(by) | Sent::Kill(by)) = sent;
    let why = match by {
        EndedBy::Timeout => Reason::Timeout,
        EndedBy::Asked(Why::Cancelled) => Reason::Cancelled,
        EndedBy::Asked(Why::Stalled) => Reason::Stalled,
        EndedBy::Asked(Why::Returned) => Reason::Shutdown,
        EndedBy::Asked(Why::DiskFull) => Reason::DiskFull,
    };
    match sent {
        Sent::Term(_) => {
            let grace = claim.task().spec.grace_period.map_or(context.grace, |span| span.0);
            let (seconds, grace_seconds) = (wall.as_secs_f64(), grace.as_secs_f64());
            emit!(Event::JobTerminated { task, attempt, why, seconds, grace_seconds });
        }
        Sent::Kill(_) => emit!(Event::JobKilled { task, attempt, why }),
    }
}

/// The job has filled the disk, the reserve perhaps too, and its end must be recorded: so much of
/// its log is cut out of the middle that a new reserve has room.
fn make_room(context: &AttemptContext, claim: &Claim, log: &Path) {
    let rules = context.surroundings.pool.rules();
    let needed = rules.disk_low.0.saturating_add(rules.reserve_size.0.saturating_mul(2));
    let length = std::fs::metadata(log).map_or(0, |meta| meta.len());
    let left = Bytes(length.saturating_sub(needed)).max(LogCap::LEAST);
    let (task, attempt, path) = (claim.name().id, claim.name().attempt, log.to_owned());
    match cut::cut(log, LogCap::At(left)) {
        Ok(Cut::Shortened { missing }) => {
            emit!(Event::JobLogCut { task, attempt, path, cap: left.to_string(), missing });
        }
        // Then there is nothing to be had from it.
        Ok(Cut::Whole | Cut::Refused { .. }) => {}
        Err(err) => emit!(Event::JobLogFailed { task, attempt, path, error: err.to_string() }),
    }
}

fn say_what_leaked(claim: &Claim, end: &End) {
    let (task, attempt) = (claim.name().id, claim.name().attempt);
    if !end.leaked.is_empty() {
        let pids = end.leaked.iter().map(|process| process.pid).collect();
        emit!(Event::JobLeaked { task, attempt, pids });
    }
}

/// What is to be done about what may be left of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Nothing is left.
    Nothing,
    /// Somebody who was not found holds its log. It is not tried again, so that is only said.
    LogHeld,
    /// Another attempt could run beside it: the task stays put until it is over.
    MayRun,
}

/// Pure.
fn after(end: &End, verdict: Verdict) -> After {
    if !end.unkillable.is_empty() || end.unchecked.is_some() {
        return After::MayRun;
    }
    match (end.log_held, verdict) {
        (false, _) => After::Nothing,
        (true, Verdict::Succeeded | Verdict::Cancelled(_)) => After::LogHeld,
        (true, _) => After::MayRun,
    }
}

/// By what is known whether anything of a job is left.
struct Remaining {
    mark: Mark,
    log: PathBuf,
}

impl Remaining {
    /// Ends what can be found. What is in the way, where something is left.
    fn end(&self, patience: Duration) -> Result<Option<Obstacle>, std::io::Error> {
        let ended = fence::end(&self.mark, Duration::ZERO, patience)?;
        Ok(match obstacle_of(ended) {
            Ok(_ended) => self.is_log_held().then_some(Obstacle::LogHeld),
            Err(obstacle) => Some(obstacle),
        })
    }

    fn is_log_held(&self) -> bool {
        fence::log_lock(&self.log).map_or(true, |lock| lock == LogLock::Held)
    }
}

/// Why there is no more waiting for what may be left of a job.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    /// Nothing is left.
    Gone,
    /// A person said so, or cancelled the task, though this was in the way.
    Said(WayOut, Obstacle),
}

/// What that means for the attempt.
fn of_over(result: AttemptResult, over: Over) -> AttemptResult {
    match over {
        Over::Gone => result,
        Over::Said(WayOut::Cancelled, _obstacle) => {
            AttemptResult { verdict: Verdict::Cancelled(Cause::Cancelled), ..result }
        }
        Over::Said(WayOut::Abandoned { by }, obstacle) => {
            let how = result.message.map(|how| format!("{how}; ")).unwrap_or_default();
            let message = format!("{how}{by} says that its job is over, though {obstacle}");
            AttemptResult { message: Some(message), ..result }
        }
    }
}

/// Waits until nothing of the job is left, and says meanwhile what is in the way. `None` when the
/// worker stops before that.
fn until_over(context: &AttemptContext, claim: &Claim, remaining: &Remaining) -> Option<Over> {
    /// What was killed may take a moment to go.
    const PATIENCE: Duration = Duration::from_secs(1);
    /// Between two tries, where no lock tells that it is worth one.
    const AGAIN: Duration = Duration::from_secs(5);
    const GLANCE: Duration = Duration::from_millis(200);
    let (since, mut said) = (Instant::now(), Repeater::default());
    loop {
        let obstacle = match remaining.end(PATIENCE) {
            Ok(None) => return Some(Over::Gone),
            Ok(Some(obstacle)) => obstacle,
            Err(error) => {
                Obstacle::Unknown { why: format!("its processes cannot be looked for: {error}") }
            }
        };
        context.worker_state.update(claim.name(), |job| job.run.kept = Some(obstacle.clone()));
        let count = match said.seen(since.elapsed()) {
            Some(Say::First) => Some(1),
            Some(Say::Again { count, .. }) => Some(count),
            Some(Say::Cleared { .. }) | None => None,
        };
        if let Some(count) = count {
            let kept = Kept::of(claim.name(), obstacle.clone());
            emit!(kept.event(since.elapsed().as_secs_f64(), count));
        }
        let (begun, was_held) = (Instant::now(), remaining.is_log_held());
        while begun.elapsed() < AGAIN && (!was_held || remaining.is_log_held()) {
            if is_hurried(context, GLANCE) || context.is_told_to_stop() {
                return None;
            }
            if let Some(way) = way_out(context, claim.name()) {
                return Some(Over::Said(way, obstacle));
            }
        }
    }
}

fn way_out(context: &AttemptContext, name: TaskName) -> Option<WayOut> {
    context.worker_state.look(|state| {
        state.jobs.iter().find(|job| job.name == name).and_then(|job| job.way_out.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: Status, ended_by: Option<EndedBy>) -> Verdict {
        let end = End {
            status,
            ended_by,
            leaked: vec![],
            unkillable: vec![],
            unchecked: None,
            log_held: false,
            wall: Duration::from_secs(1),
        };
        judge(&end).verdict
    }

    #[test]
    fn what_the_end_of_a_job_means() {
        let asked = |why| Some(EndedBy::Asked(why));
        for (status, ended_by, expected) in [
            (Status::Exited(0), None, Verdict::Succeeded),
            (Status::Exited(3), None, Verdict::Failed(Cause::ExitCode)),
            (Status::Exited(75), None, Verdict::NotReady(Cause::ExitCode)),
            (Status::Signaled(11), None, Verdict::Failed(Cause::Signal)),
            (Status::Exited(0), Some(EndedBy::Timeout), Verdict::Failed(Cause::Timeout)),
            (Status::Signaled(15), asked(Why::Cancelled), Verdict::Cancelled(Cause::Cancelled)),
            (Status::Signaled(15), asked(Why::Stalled), Verdict::Failed(Cause::Stalled)),
            (Status::Exited(0), asked(Why::Returned), Verdict::Returned),
            (Status::Signaled(15), asked(Why::DiskFull), Verdict::Failed(Cause::DiskFull)),
        ] {
            assert_eq!(verdict(status, ended_by), expected, "{status:?} {ended_by:?}");
        }
    }

    #[test]
    fn a_kill_that_we_did_not_send_is_the_kernels_where_it_counted_one() {
        let judged = |verdict, exit_code, signal, met| {
            let result = AttemptResult { exit_code, signal, ..AttemptResult::new(verdict) };
            killed_for_memory(result, || met).verdict
        };
        let failed = Verdict::Failed;
        let limit = || Some(Limit::Machine(None));
        assert_eq!(judged(failed(Cause::Signal), None, Some(9), limit()), failed(Cause::Oom));
        assert_eq!(judged(failed(Cause::ExitCode), Some(137), None, limit()), failed(Cause::Oom));
        for (verdict, exit_code, signal, met) in [
            (failed(Cause::Signal), None, Some(9), None),
            (failed(Cause::Signal), None, Some(11), limit()),
            (failed(Cause::ExitCode), Some(1), None, limit()),
            (failed(Cause::Timeout), None, Some(9), limit()),
            (Verdict::Cancelled(Cause::Cancelled), None, Some(9), limit()),
            (Verdict::Returned, None, Some(9), limit()),
        ] {
            assert_eq!(judged(verdict, exit_code, signal, met), verdict);
        }
    }

    #[test]
    fn what_is_tried_again_waits_while_somebody_holds_its_log() {
        let end = |log_held| End {
            status: Status::Exited(0),
            ended_by: None,
            leaked: vec![],
            unkillable: vec![],
            unchecked: None,
            log_held,
            wall: Duration::from_secs(1),
        };
        for (verdict, expected) in [
            (Verdict::Succeeded, After::LogHeld),
            (Verdict::Cancelled(Cause::Cancelled), After::LogHeld),
            (Verdict::Failed(Cause::ExitCode), After::MayRun),
            (Verdict::NotReady(Cause::ExitCode), After::MayRun),
            (Verdict::Returned, After::MayRun),
        ] {
            assert_eq!(after(&end(true), verdict), expected, "{verdict:?}");
            assert_eq!(after(&end(false), verdict), After::Nothing, "{verdict:?}");
        }
        let unchecked = End { unchecked: Some(std::io::ErrorKind::Other.into()), ..end(false) };
        assert_eq!(after(&unchecked, Verdict::Succeeded), After::MayRun);
    }
}
