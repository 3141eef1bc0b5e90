//! One attempt, from claim to ledger line: start the job, wait for it, say how it ended.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use queue::dir::claim::one::Claim;
use queue::dir::ledger::append::Ledger;
use queue::fence::{self, Mark};
use queue::wire::ledger_line::Line;
use queue::wire::retry::{self, Verdict};
use shared::emit;
use shared::event::{Ending, Event, Why as Reason};
use shared::llm::{Answer, ModelVerb};
use shared::log::{Context, scope};
use shared::outcome::Cause;
use shared::task::{Payload, TaskName};
use shared::time::Moment;

use crate::ask::{self, Work};
use crate::close::Over;
use crate::desk::Desk;
use crate::environment::Surroundings;
use crate::job::{self, End, EndedBy, Order, Sent, StartError, Status, Stop, Why};
use crate::load;
use crate::models::Models;

/// What every attempt of this worker needs.
#[derive(Debug)]
pub struct Bench {
    /// What the worker knows about itself.
    pub desk: Desk,
    /// Its ledger.
    pub ledger: Ledger,
    /// What it tells jobs.
    pub surroundings: Surroundings,
    /// Its GPU's identity, where known.
    pub gpu_uuid: Option<String>,
    /// From TERM to KILL, where the task does not say.
    pub grace: Duration,
    /// Closed when the worker must end without waiting for anything.
    pub hurry: Receiver<()>,
    /// Its model server, where it has one.
    pub models: Option<Models>,
}

/// How much worse it is to run a job again than to ask a model again for the same time.
const JOB: u32 = 4;

/// How an attempt went, for the ledger.
pub(crate) struct Went {
    pub(crate) verdict: Verdict,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) message: Option<String>,
    pub(crate) leaked: u32,
    pub(crate) started_at: Option<Moment>,
    pub(crate) wall: Option<Duration>,
    pub(crate) answer: Option<Answer>,
    /// Its log is known to be there; otherwise somebody has to look.
    pub(crate) logged: bool,
}

impl Went {
    pub(crate) fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            exit_code: None,
            signal: None,
            message: None,
            leaked: 0,
            started_at: None,
            wall: None,
            answer: None,
            logged: false,
        }
    }
}

/// Runs a claimed task's job to its end. Calls `meanwhile` when it is about to wait for the rest of
/// a model's answer.
#[must_use = "its end must be recorded"]
pub fn attempt(
    bench: &Arc<Bench>,
    claim: Box<Claim>,
    (stop, meanwhile): (&Stop, &dyn Fn()),
) -> Over {
    let (name, task) = (claim.name(), claim.task());
    let _scope = scope(Context {
        task: Some(name.id),
        attempt: Some(name.attempt),
        correlation_id: Some(task.correlation_id.clone()),
        ..Context::default()
    });
    let went = match plan(bench, &claim) {
        Ok(Plan::Job(order)) => run(bench, &claim, order, stop),
        Ok(Plan::Ask { models, model }) => {
            ask::ask(Work { bench, models, claim: &claim, stop }, model, meanwhile)
        }
        Ok(Plan::Model { models, verb, model }) => {
            load::turn_over(Work { bench, models, claim: &claim, stop }, verb, model)
        }
        Err(message) => {
            Went { message: Some(message), ..Went::new(Verdict::Failed(Cause::SpawnFailed)) }
        }
    };
    over(bench, claim, went)
}

/// What an attempt does.
enum Plan<'a> {
    /// It runs a job.
    Job(Order),
    /// It asks a model.
    Ask { models: &'a Models, model: &'a str },
    /// It loads or unloads one.
    Model { models: &'a Models, verb: ModelVerb, model: &'a str },
}

fn plan<'a>(bench: &'a Bench, claim: &'a Claim) -> Result<Plan<'a>, String> {
    let models = || bench.models.as_ref().ok_or("this worker has no model server");
    let argv = match claim.task().spec.payload().map_err(|bad| bad.to_string())? {
        Payload::Command(words) => words.iter().map(Into::into).collect(),
        Payload::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.into()],
        Payload::Llm { model, .. } => return Ok(Plan::Ask { models: models()?, model }),
        Payload::Model { verb, model } => {
            return Ok(Plan::Model { models: models()?, verb, model });
        }
    };
    Ok(Plan::Job(order(bench, claim, argv)))
}

fn order(bench: &Bench, claim: &Claim, argv: Vec<OsString>) -> Order {
    let (name, task) = (claim.name(), claim.task());
    let root = bench.surroundings.pool.root();
    let ollama_host = bench.models.as_ref().and_then(Models::ollama_host);
    Order {
        argv,
        cwd: task.spec.cwd.as_ref().map_or_else(|| root.to_owned(), Into::into),
        env: bench.surroundings.of(claim, ollama_host),
        stdin: task.spec.stdin.as_ref().map(|text| text.as_bytes().to_vec()),
        log_path: bench.surroundings.pool.layout().run_log(name.id, name.attempt),
        task: name.id,
        attempt: name.attempt,
        timeout: task.spec.timeout.map(|span| span.0),
        grace: task.spec.grace_period.map_or(bench.grace, |span| span.0),
    }
}

fn run(bench: &Bench, claim: &Claim, order: Order, stop: &Stop) -> Went {
    let name = claim.name();
    let log = order.log_path.clone();
    let running = match job::start(order, stop) {
        Ok(running) => running,
        Err(err) => return not_started(claim, &err),
    };
    let (pid, started_at) = (running.pid(), running.started_at());
    let mark = running.mark().clone();
    bench.desk.update(name, |job| {
        job.run.started_at = Some(started_at);
        job.run.pgid = Some(pid);
    });
    let (task, attempt, what) = (name.id, name.attempt, what(claim));
    emit!(Event::TaskStarted { task, attempt, what, pid, log });
    let tell = |sent, wall| say_what_was_sent(bench, claim, sent, wall);
    let end = running.wait(&tell);
    say_what_leaked(claim, &end);
    if !end.unkillable.is_empty() {
        wait_for_the_unkillable(bench, claim, &mark, &end);
    }
    remove_progress(bench, name);
    Went { started_at: Some(started_at), ..judge(&end) }
}

fn remove_progress(bench: &Bench, name: TaskName) {
    let progress = bench.surroundings.pool.layout().progress_file(name.id, name.attempt);
    // Most jobs have none, and a look costs less than a removal in vain.
    if std::fs::symlink_metadata(&progress).is_ok() {
        let _gone = std::fs::remove_file(progress);
    }
}

fn not_started(claim: &Claim, err: &StartError) -> Went {
    let (task, attempt) = (claim.name().id, claim.name().attempt);
    emit!(Event::JobSpawnFailed { task, attempt, error: err.to_string() });
    // Where the machine is at fault the command may be fine later.
    let verdict = match err.exit_code() {
        Some(_) => Verdict::Failed(Cause::SpawnFailed),
        None => Verdict::NotReady(Cause::SpawnFailed),
    };
    Went { exit_code: err.exit_code(), message: Some(err.to_string()), ..Went::new(verdict) }
}

/// What the end of a job means for its task. Pure.
fn judge(end: &End) -> Went {
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
    Went { exit_code, signal, message, leaked, wall, ..Went::new(verdict) }
}

/// Said when it is done, not when the job has ended: a person who waits sees why.
fn say_what_was_sent(bench: &Bench, claim: &Claim, sent: Sent, wall: Duration) {
    let (task, attempt) = (claim.name().id, claim.name().attempt);
    let (Sent::Term(by) | Sent::Kill(by)) = sent;
    let why = match by {
        EndedBy::Timeout => Reason::Timeout,
        EndedBy::Asked(Why::Cancelled) => Reason::Cancelled,
        EndedBy::Asked(Why::Stalled) => Reason::Stalled,
        EndedBy::Asked(Why::Returned) => Reason::Shutdown,
    };
    match sent {
        Sent::Term(_) => {
            let grace = claim.task().spec.grace_period.map_or(bench.grace, |span| span.0);
            let (seconds, grace_seconds) = (wall.as_secs_f64(), grace.as_secs_f64());
            emit!(Event::JobTerminated { task, attempt, why, seconds, grace_seconds });
        }
        Sent::Kill(_) => emit!(Event::JobKilled { task, attempt, why }),
    }
}

fn say_what_leaked(claim: &Claim, end: &End) {
    let (task, attempt) = (claim.name().id, claim.name().attempt);
    if !end.leaked.is_empty() {
        let pids = end.leaked.iter().map(|process| process.pid).collect();
        emit!(Event::JobLeaked { task, attempt, pids });
    }
}

/// While a process of the job lives, the task stays put: another attempt would run beside it.
fn wait_for_the_unkillable(bench: &Bench, claim: &Claim, mark: &Mark, end: &End) {
    let (task, attempt) = (claim.name().id, claim.name().attempt);
    let mut pids: Vec<u32> = end.unkillable.iter().map(|process| process.pid).collect();
    let (mut count, mut seconds) = (1, 60.0);
    let patience = Duration::from_secs(60);
    loop {
        emit!(Event::JobUnkillable { task, attempt, pids: pids.clone(), seconds, count });
        match fence::end(mark, Duration::ZERO, patience) {
            Ok(fence::Ended::Gone { .. }) => return,
            Ok(fence::Ended::Unkillable(left)) => {
                pids = left.iter().map(|process| process.pid).collect();
            }
            Err(error) => {
                let (doing, error) = ("looking for a job's processes".into(), error.to_string());
                emit!(Event::ProcessFailed { doing, error });
                if is_hurried(bench, patience) {
                    return;
                }
            }
        }
        count += 1;
        seconds += patience.as_secs_f64();
    }
}

/// What is to be recorded. Limits do not count the task any more.
fn over(bench: &Bench, mut claim: Box<Claim>, went: Went) -> Over {
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

fn line(bench: &Bench, claim: &Claim, went: Went) -> Line {
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

/// Waits; `true` at once when the worker must end.
pub fn is_hurried(bench: &Bench, wait: Duration) -> bool {
    // Nothing is ever sent: the channel is closed to say that.
    bench.hurry.recv_timeout(wait) == Err(crossbeam_channel::RecvTimeoutError::Disconnected)
}

pub(crate) fn what(claim: &Claim) -> String {
    let task = claim.task();
    format!("{} task: {} ({})", task.class(), task.id.short(), task.name())
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
        ] {
            assert_eq!(verdict(status, ended_by), expected, "{status:?} {ended_by:?}");
        }
    }
}
