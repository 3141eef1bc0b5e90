//! What events are made of: the values that several of them carry, and how they read.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::id::TaskId;
use crate::llm::Answer;
use crate::name::Name;
use crate::outcome::{Cause, Next, Outcome};
use crate::quantity::{Bytes, Span};
use crate::task::Class;

/// How an attempt ended and what follows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ending {
    /// The verdict on this attempt alone: a failed one may be tried again, which `next` says.
    pub outcome: Outcome,
    /// Why, unless it succeeded.
    pub cause: Option<Cause>,
    /// The job's exit status, if it exited.
    pub exit_code: Option<i32>,
    /// The signal that ended the job, if one did.
    pub signal: Option<i32>,
    /// How long the job ran, if it ran.
    pub seconds: Option<f64>,
    /// Where the task goes now.
    pub next: Next,
    /// What the model's answer took, where a model answered.
    #[serde(flatten)]
    pub answer: Option<AnswerFigures>,
}

/// What the answer of a model took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AnswerFigures {
    /// Tokens of the question, by the server's count; `None` where it gave none.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, counted by the server, too.
    pub completion_tokens: Option<u64>,
    /// Tokens written per second, from the first one on.
    pub tokens_per_second: Option<f64>,
    /// From the request to the first token.
    pub first_token_seconds: Option<f64>,
    /// Of that, the loading of the model.
    pub load_seconds: Option<f64>,
}

impl From<&Answer> for AnswerFigures {
    fn from(answer: &Answer) -> Self {
        Self {
            prompt_tokens: answer.prompt_tokens,
            completion_tokens: answer.completion_tokens,
            tokens_per_second: answer.tokens_per_second(),
            first_token_seconds: answer.first_token_seconds,
            load_seconds: answer.load_seconds,
        }
    }
}

impl Ending {
    /// A person ended it, and no job of it was there to end.
    #[must_use]
    pub const fn cancelled() -> Self {
        Self {
            outcome: Outcome::Cancelled,
            cause: Some(Cause::Cancelled),
            exit_code: None,
            signal: None,
            seconds: None,
            next: Next::End,
            answer: None,
        }
    }
}

impl fmt::Display for Ending {
    /// `exit code 3 after 2.1s, next: failed`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.exit_code, self.signal, self.cause) {
            (Some(code), _, Some(Cause::ExitCode) | None) => write!(f, "exit code {code}")?,
            (_, Some(signal), Some(Cause::Signal) | None) => write!(f, "signal {signal}")?,
            (_, _, Some(cause)) => f.write_str(&cause.as_str().replace('_', " "))?,
            (None, None, None) => f.write_str(self.outcome.as_str())?,
        }
        if let Some(seconds) = self.seconds {
            write!(f, " after {}", tenths(seconds))?;
        }
        match self.next {
            Next::End => Ok(()),
            Next::Rejected => f.write_str(", put aside"),
            Next::Failed => f.write_str(", not tried again"),
            Next::Pending => f.write_str(", back in the queue"),
            Next::Delayed(until) => write!(f, ", again at {}", until.local()),
        }
    }
}

crate::outcome::words! {
    /// Why a worker ends a job that would go on.
    Why {
        /// Its time limit is over.
        Timeout = "timeout",
        /// It made no progress for its stall limit.
        Stalled = "stalled",
        /// A person cancelled the task.
        Cancelled = "cancelled",
        /// The worker has to stop.
        Shutdown = "shutdown",
        /// Its worker has died.
        WorkerDied = "worker_died",
        /// Its log fills the disk, and may not, or cannot, be cut.
        DiskFull = "disk_full",
    }
}

/// A task that makes no progress.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StuckTask {
    /// The task that makes none.
    pub task_id: TaskId,
    /// The attempt that goes on.
    pub attempt: u32,
    /// The worker that has claimed it, and is alive.
    pub assigned_to: Name,
    /// Without progress; where its worker does not know of it, since the brain first saw it.
    pub seconds: f64,
    /// As the submitter named it, or what stands for a name; empty where it cannot be read.
    pub name: String,
    /// What was looked at, and since when it has not moved.
    pub evidence: Map<String, Value>,
}

/// The list as scripts of old read it: `[{'task_id': 'a1b2c3d4', …}]`.
pub(super) fn stuck_list(tasks: &[StuckTask]) -> String {
    let mut text = String::from("[");
    for (index, task) in tasks.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{comma}{{'task_id': '{}', 'assigned_to': '{}', 'elapsed_min': {:.0}, 'name': {}}}",
            task.task_id.short(),
            task.assigned_to,
            (task.seconds / 60.0).floor(),
            quoted(&task.name),
        );
    }
    text.push(']');
    text
}

/// `['worker-1', 'worker-3']`
pub(super) fn name_list(names: &[Name]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| quoted(name.as_str())).collect();
    format!("[{}]", quoted.join(", "))
}

fn quoted(text: &str) -> String {
    let safe = text.replace('\\', "\\\\");
    if safe.contains('\'') && !safe.contains('"') {
        format!("\"{safe}\"")
    } else {
        format!("'{}'", safe.replace('\'', "\\'"))
    }
}

/// The figures of the monitor line. `None` is unknown, which is not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Monitor {
    /// GPUs that use more than 1 GB, or are busy for more than 10 percent of the time. Where
    /// nobody can read them: workers with a GPU that run something on it.
    pub gpus_active: Option<u64>,
    /// The GPUs that the brain was told of, else all. Where nobody can read them, also those
    /// that living workers have.
    pub gpus: Option<u64>,
    /// Workers whose lease is held.
    pub workers_alive: u64,
    /// Workers there should be.
    pub workers: u64,
    /// Pending tasks per class; `None` if they could not be counted.
    pub queue: Option<BTreeMap<Class, u64>>,
    /// Tasks in `processing/`.
    pub processing: Option<u64>,
    /// Tasks that made no progress for `stuck_after`, as in `detect.stuck`.
    pub stuck: u64,
    /// Models that answer. A server that several workers share counts once.
    pub models: Option<u64>,
}

/// What is in the queue and what was done lately. `None` where it could not be counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// Tasks in all lanes.
    pub total_pending: Option<u64>,
    /// Per class those that are pending.
    pub by_class: Option<BTreeMap<Class, u64>>,
    /// What the workers have before them, in their hands, and behind them.
    pub by_worker: Throughput,
    /// Tasks that made no progress for `stuck_after`.
    pub stuck_tasks: u64,
    /// Tasks that are claimed.
    pub processing_count: Option<u64>,
}

/// Before all workers, in their hands, and behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Throughput {
    /// Tasks in all lanes.
    pub pending: Option<u64>,
    /// Tasks that are claimed.
    pub processing: Option<u64>,
    /// Tasks that succeeded in the last five minutes.
    pub completed_last_5min: u64,
}

impl Statistics {
    /// From what was counted.
    #[must_use]
    pub fn new(monitor: &Monitor, completed_last_5min: u64) -> Self {
        let by_class = monitor.queue.clone();
        let pending = by_class.as_ref().map(|classes| classes.values().sum());
        let processing = monitor.processing;
        Self {
            total_pending: pending,
            by_class,
            by_worker: Throughput { pending, processing, completed_last_5min },
            stuck_tasks: monitor.stuck,
            processing_count: processing,
        }
    }
}

impl fmt::Display for Statistics {
    /// `123 pending (llm:123), 2 processing, 0 stuck, 40 completed in the last 5 minutes`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pending{}", known(self.total_pending), per_class(self.by_class.as_ref()))?;
        write!(f, ", {} processing, {} stuck", known(self.processing_count), self.stuck_tasks)?;
        write!(f, ", {} completed in the last 5 minutes", self.by_worker.completed_last_5min)
    }
}

/// ` (llm:123, cpu:2)`, or nothing where nothing is pending.
fn per_class(queue: Option<&BTreeMap<Class, u64>>) -> String {
    let classes = queue.into_iter().flatten().filter(|(_, count)| **count > 0);
    let classes: Vec<_> = classes.map(|(class, count)| format!("{class}:{count}")).collect();
    if classes.is_empty() { String::new() } else { format!(" ({})", classes.join(", ")) }
}

impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.queue.as_ref().map(|queue| queue.values().sum());
        let (active, gpus) = (known(self.gpus_active), known(self.gpus));
        write!(f, "GPUs: {active}/{gpus}, Workers: {}/{}", self.workers_alive, self.workers)?;
        write!(f, ", Queue: {}{}", known(total), per_class(self.queue.as_ref()))?;
        let (processing, models) = (known(self.processing), known(self.models));
        write!(f, ", Processing: {processing}, Stuck: {}, Models loaded: {models}", self.stuck)
    }
}

/// What a scaling decision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Start so many workers.
    Up(u64),
    /// Ask so many idle workers to drain.
    Down(u64),
    /// Leave it as it is.
    Maintain,
    /// More are wanted, but starting them keeps failing.
    Blocked,
}

/// A scaling decision with the figures it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Scaling {
    /// The cycle of the brain that decides; each brain counts from 1.
    pub cycle: u64,
    /// Workers at work or ready.
    pub active_workers: u64,
    /// Workers that were started and are not yet up.
    pub spawning: u64,
    /// Workers wanted, within the limits; what was wanted last, where tasks were not counted.
    pub desired: u64,
    /// What is done about it.
    pub step: Step,
    /// Tasks that could run now; `None` if they could not be counted.
    pub queued: Option<u64>,
    /// Tasks that are claimed; `None` if they could not be counted.
    pub active: Option<u64>,
    /// The most workers allowed.
    pub max: u64,
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cycle, active_workers, spawning, desired, step, max, .. } = self;
        let step = match step {
            Step::Up(count) => format!("SCALE UP by {count}"),
            Step::Down(count) => format!("SCALE DOWN by {count}"),
            Step::Maintain => "MAINTAIN".to_owned(),
            Step::Blocked => "BLOCKED".to_owned(),
        };
        let (queued, active) = (known(self.queued), known(self.active));
        write!(
            f,
            "(Cycle #{cycle}): Current={active_workers}+{spawning}, Desired={desired}, \
             Decision={step} ({queued} queued + {active} active, max {max})"
        )
    }
}

/// A count, or `?` where it is unknown.
pub(super) fn known(count: Option<u64>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
}

/// `on GPU 1, Ollama port 11437`; `with 8 cpu slots` for a worker without a GPU.
pub(super) fn place(gpu: Option<u32>, port: Option<u16>, cpu_slots: u32) -> String {
    match (gpu, port) {
        (Some(gpu), Some(port)) => format!("on GPU {gpu}, Ollama port {port}"),
        (Some(gpu), None) => format!("on GPU {gpu}"),
        (None, _) => format!("without a GPU, cpu slots: {cpu_slots}"),
    }
}

/// `, idle: 34s`; none for a worker that is not idle.
pub(super) fn idle(seconds: Option<f64>) -> String {
    format!(", idle: {:.0}s", seconds.unwrap_or(0.0))
}

/// Seconds as people read them: `1h 5m`, `42s`.
pub(super) fn span(seconds: f64) -> String {
    Span::rounded(seconds).to_string()
}

/// Like [`span`], with tenths of a second where it is short.
pub(super) fn tenths(seconds: f64) -> String {
    if seconds < 60.0 { format!("{:.1}s", seconds.max(0.0)) } else { span(seconds) }
}

/// ` in 5.2s`, or nothing where it is unknown.
pub(super) fn within(seconds: Option<f64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!(" in {}", tenths(seconds)))
}

/// ` after 42s`, or nothing where it was never silent.
pub(super) fn after_silence(seconds: Option<f64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!(" again after {}", span(seconds)))
}

/// How much memory a model takes, and how much of that is the GPU's.
pub(super) fn share(size: Option<Bytes>, vram: Option<Bytes>) -> String {
    match (size, vram) {
        (Some(size), Some(vram)) if size == vram => format!("{size}, all of it in GPU memory"),
        (Some(size), Some(vram)) => format!("{size}, {vram} of it in GPU memory"),
        (Some(size), None) => format!("{size}"),
        (None, _) => "size unknown".to_owned(),
    }
}

/// ` (holder)`, or nothing where it is unknown.
pub(super) fn aside(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!(" ({text})"))
}

/// Puts one field of an event into its JSON. Structures are laid open; the task and its attempt
/// have places of their own in a log line, and a text is the message itself.
pub(super) fn add<T: Serialize>(extra: &mut Map<String, Value>, field: &str, value: &T) {
    if matches!(field, "task" | "attempt" | "text") {
        return;
    }
    let mut value = serde_json::to_value(value).unwrap_or_else(|error| error.to_string().into());
    let open = matches!(field, "ending" | "monitor" | "statistics" | "placement" | "scaling");
    match value.as_object_mut().filter(|_structure| open) {
        Some(inner) => extra.append(inner),
        None => {
            extra.insert(field.to_owned(), value);
        }
    }
}

/// A variable that nothing reads. Its value is nobody's business: it may be a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{} is set and ignored: there is no such setting{}", .name.escape_default(), crate::name::suggest(*.nearest))]
pub struct UnknownVariable {
    /// With `BRAINSTEM_` in front, as it stands in the environment.
    pub name: String,
    /// What may have been meant.
    pub nearest: Option<&'static str>,
}
