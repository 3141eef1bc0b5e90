//! `queue submit`: one task from the command line, or many from a file.

mod around;
mod batch;
mod known;
mod line_text;
mod plan;
mod prompt;
mod reading;
mod resume;
mod single;
mod source;
mod template;

use std::path::PathBuf;

use clap::Args;
use queue::Pool;
use queue::dir::signal::doorbell;
use queue::store::start::{Start, start_of};
use queue::wire::lane::Requirements;
use shared::event::Event;
use shared::id::{BatchId, TaskId, new_correlation_id};
use shared::log_cap::LogCap;
use shared::name::Name;
use shared::quantity::{Bytes, Span};
use shared::task::{BadSpec, BrakeUse, Class, Spec, Task};
use shared::time::Moment;

use super::{App, Stop};
use reading::{Maker, Reading};
use source::Source;

/// Submit a task, or many; prints the id of each
#[derive(Args, Debug)]
#[command(
    override_usage = "queue submit [OPTIONS] -- CMD [ARGS]...\n       \
                      queue submit [OPTIONS] --model MODEL --prompt TEXT\n       \
                      queue submit [--key KEY] [--model MODEL] --batch FILE.jsonl\n       \
                      queue submit [OPTIONS] --model MODEL --template TEXT --rows FILE",
    after_help = "A command runs in this directory, with a short list of the worker's variables and \
                  those given with --env.\n\n\
                  A line of --batch is a task object, or a request in the format of OpenAI's Batch \
                  API. With --key the same batch may be submitted again: tasks that have succeeded \
                  or have not ended are left alone, those that failed or are new are submitted; a \
                  task is known by its custom_id or, without one, by all that its line says."
)]
pub(crate) struct Submit {
    /// What it needs: cpu, or script (a GPU) [default: script]
    #[arg(long, value_name = "CLASS", conflicts_with = "batch")]
    class: Option<Class>,
    /// What people call it [default: the first words of the command]
    #[arg(long, conflicts_with = "batch")]
    name: Option<String>,
    /// 0 to 10, higher first [default: 5]
    #[arg(long, value_name = "N", conflicts_with = "batch")]
    priority: Option<u8>,
    /// End it when it runs longer, as in 30m
    #[arg(long, value_name = "DURATION", conflicts_with = "batch")]
    timeout: Option<Span>,
    /// End it when it makes no progress for so long
    #[arg(long, value_name = "DURATION", conflicts_with = "batch")]
    stall_timeout: Option<Span>,
    /// From TERM to KILL when it is ended [default: 10s]
    #[arg(long, value_name = "DURATION", conflicts_with = "batch")]
    grace: Option<Span>,
    /// How much of what it prints is kept, beginning and end; none: all [default: 100MB]
    #[arg(long, value_name = "SIZE", conflicts_with = "batch")]
    log_cap: Option<LogCap>,
    /// Failures of its own after which it is not tried again [default: 3]
    #[arg(long, value_name = "N", conflicts_with = "batch")]
    max_attempts: Option<u32>,
    /// off: many failures that are alike do not hold back the rest [default: on]
    #[arg(long, value_name = "on|off")]
    brake: Option<BrakeUse>,
    /// An answer that was cut, is empty or was filtered is a failure
    #[arg(long)]
    complete_only: bool,
    /// How much GPU memory it needs, as in 8GiB
    #[arg(long, value_name = "SIZE", conflicts_with = "batch")]
    gpu_mem: Option<Bytes>,
    /// A variable for it; without =VALUE the one set here. May be repeated
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "batch")]
    env: Vec<String>,
    /// Where it runs [default: here]
    #[arg(long, value_name = "DIR", conflicts_with = "batch")]
    cwd: Option<PathBuf>,
    /// A label, for limits and lists. May be repeated
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "batch")]
    label: Vec<String>,
    /// For whom it runs, for limits [default: you]
    #[arg(long, conflicts_with = "batch")]
    user: Option<String>,
    /// Only after this task has succeeded (ID:failure: failed, ID:any: ended). May be repeated
    #[arg(long, value_name = "ID[:ON]", conflicts_with = "batch")]
    after: Vec<String>,
    /// Not before this time: 2026-02-07T20:45:00Z, `2026-02-07 20:45` or 20:45
    #[arg(long, value_name = "TIME", conflicts_with_all = ["batch", "delay"])]
    at: Option<String>,
    /// Not before so long from now
    #[arg(long = "in", value_name = "DURATION", conflicts_with = "batch")]
    delay: Option<Span>,
    /// Submitting again under the same key finds the first task; of a batch, submits what is missing
    #[arg(long)]
    key: Option<String>,
    /// Hold it until `queue release`
    #[arg(long, conflicts_with = "batch")]
    hold: bool,
    /// What it reads from its stdin
    #[arg(long, value_name = "TEXT", conflicts_with = "batch")]
    stdin: Option<String>,
    /// The one worker that may take it
    #[arg(long, value_name = "NAME", conflicts_with = "batch")]
    worker: Option<Name>,
    /// Only check, and say whether it could run here
    #[arg(long)]
    dry_run: bool,
    /// Tasks, one per line of a file (- for stdin): all are submitted, or none
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "command")]
    batch: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, value_name = "CMD ARGS")]
    command: Vec<String>,
    #[command(flatten)]
    asking: prompt::Asking,
}

impl Submit {
    pub(super) fn run(self, app: &mut App) -> Result<u8, Stop> {
        if let Some(path) = &self.batch {
            let maker = Maker::Lines { model: self.asking.model.clone() };
            let me = Submitter::new(self.brake, self.complete_only);
            let reading = Reading { source: Source::lines(path)?, maker, me };
            let wish = batch::Wish { key: self.key.as_deref(), dry_run: self.dry_run };
            return batch::submit(app, reading, &wish);
        }
        if self.asking.template.is_some() {
            return self.rows(app);
        }
        match (self.command.is_empty(), self.asking.has_prompt(), self.asking.wants_prompt()) {
            (true, false, None) => Err(Stop::usage(
                "nothing to submit: give a command after `--`, a prompt with --prompt, or a file \
                 with --batch",
            )),
            (_, false, Some(flag)) => Err(Stop::usage(format!(
                "{flag} is for prompts: give --prompt, --prompt-file, --messages or --template"
            ))),
            (_, true, _) | (false, false, None) => single::submit(app, self),
        }
    }

    fn rows(mut self, app: &mut App) -> Result<u8, Stop> {
        let (text, path) = (self.asking.template.take(), self.asking.rows.take());
        let missing = || Stop::usage("--template and --rows belong together");
        let (text, path) = text.zip(path).ok_or_else(missing)?;
        let text = match text.strip_prefix('@') {
            Some(file) => prompt::text_of("--template", std::path::Path::new(file))?,
            None => text,
        };
        let wrong = |problem| Stop::usage(format!("--template: {problem}"));
        let template = template::Template::parse(&text).map_err(wrong)?;
        let source = Source::rows(&path)?;
        if let Some(columns) = source.columns() {
            template.check(columns).map_err(wrong)?;
        }
        let (key, dry_run) = (self.key.take(), self.dry_run);
        let me = Submitter::new(self.brake, self.complete_only);
        let base = Box::new(single::spec(app, self, &me)?);
        let maker = Maker::Rows { template, base };
        let wish = batch::Wish { key: key.as_deref(), dry_run };
        batch::submit(app, Reading { source, maker, me }, &wish)
    }
}

const NO_RESOURCE: &str = "`resource` tasks load and unload models, and the brain makes them by itself; submit \
     prompts for the model, and it will be loaded";

/// What is the same for all tasks of one submit.
struct Submitter {
    submitted_by: String,
    user: String,
    cwd: Option<String>,
    now: Moment,
    correlation_id: String,
    /// For tasks that do not say it themselves.
    brake: Option<BrakeUse>,
    /// What is asked of answers that does not stand with their tasks.
    complete_only: bool,
}

impl Submitter {
    fn new(brake: Option<BrakeUse>, complete_only: bool) -> Self {
        let cwd =
            std::env::current_dir().ok().and_then(|cwd| cwd.into_os_string().into_string().ok());
        Self {
            submitted_by: super::me(),
            user: super::user(),
            cwd,
            now: Moment::now(),
            correlation_id: new_correlation_id(),
            brake,
            complete_only,
        }
    }

    /// Fills in the defaults, so that the task means the same wherever it is read.
    fn complete(&self, spec: &mut Spec) -> Result<(), BadSpec> {
        let class = spec.class_or_default();
        match class {
            Class::Cpu | Class::Script | Class::Llm => {}
            Class::Resource => return Err(bad("class", NO_RESOURCE)),
        }
        if spec.name.as_ref().is_none_or(String::is_empty) {
            spec.name = Some(spec.default_name());
        }
        if spec.cwd.is_none() && class != Class::Llm {
            let unknown = || bad("cwd", "is missing, and the current directory cannot be told");
            spec.cwd = Some(self.cwd.clone().ok_or_else(unknown)?);
        }
        if let Some(delay) = spec.delay.take() {
            let millis = i64::try_from(delay.0.as_millis()).unwrap_or(i64::MAX);
            spec.at = Some(self.now.plus_millis(millis));
        }
        spec.class = Some(class);
        spec.brake = spec.brake.or(self.brake);
        if self.complete_only && spec.asks_a_model() {
            spec.complete_only.get_or_insert(true);
        }
        spec.priority.get_or_insert(shared::task::DEFAULT_PRIORITY);
        spec.user.get_or_insert_with(|| self.user.clone());
        spec.check()
    }

    fn task(&self, id: TaskId, batch_id: Option<BatchId>, spec: Spec) -> Task {
        Task {
            id,
            batch_id,
            submitted_at: self.now,
            submitted_by: self.submitted_by.clone(),
            correlation_id: self.correlation_id.clone(),
            spec,
        }
    }
}

fn bad(field: &str, problem: &str) -> BadSpec {
    BadSpec { line: None, field: Some(field.to_owned()), problem: problem.to_owned() }
}

/// Refuses what would be put aside when it is read.
fn check_size(task: &Task) -> Result<(), BadSpec> {
    let size = task.to_bytes().len() as u64;
    if size <= shared::task::MAX_TASK_BYTES {
        return Ok(());
    }
    let problem = format!("the task has {size} bytes; at most 1 MiB is carried");
    Err(BadSpec { line: None, field: None, problem })
}

/// The lane that a task goes to.
fn lane_of(pool: &Pool, task: &Task) -> Requirements {
    let limits = pool.limit_keys();
    Requirements::of(task, &limits)
}

/// Wakes whoever has to do with a new task.
fn ring(pool: &Pool, task: &Task) {
    match start_of(task) {
        Start::Pending => doorbell::ring_new(pool.layout(), task.class()),
        Start::Waiting | Start::Delayed(_) => doorbell::ring_brain(pool.layout()),
        Start::Held => {}
    }
}

fn say_submitted(pool: &Pool, task: &Task) {
    let _scope = shared::log::scope(shared::log::Context {
        correlation_id: Some(task.correlation_id.clone()),
        ..shared::log::Context::default()
    });
    shared::emit!(Event::TaskSubmitted {
        task: task.id,
        class: task.class(),
        task_name: task.name(),
        lane: lane_of(pool, task).lane().to_string(),
        user: task.spec.user.clone().unwrap_or_default(),
    });
}

/// What a submit came to.
struct Answer {
    ids: Vec<TaskId>,
    batch_id: Option<BatchId>,
    existing: bool,
    /// How many of the ids are new.
    new: u64,
}

impl Answer {
    fn say(&self, app: &mut App) -> Result<u8, Stop> {
        if app.json() {
            let fields = serde_json::json!({
                "ids": self.ids, "batch_id": self.batch_id, "existing": self.existing,
                "new": self.new,
            });
            app.out.json("submit", &fields)?;
        } else {
            for id in &self.ids {
                app.out.line(id.to_string())?;
            }
        }
        Ok(shared::exit::OK)
    }
}
