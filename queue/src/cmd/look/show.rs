//! `queue show`: all that is known about one task.

use clap::Args;
use queue::Pool;
use queue::dir::disk::place::{Found, Place};
use queue::dir::layout::Shelf;
use queue::dir::ledger::search::{TaskHistory, history_of};
use queue::dir::lookup::{self, Standing};
use queue::view::{self, Worker};
use queue::wire::lane::Requirements;
use queue::wire::ledger_line::Line;
use serde_json::{Map, Value, json};
use shared::exit;
use shared::id::TaskId;
use shared::llm::Answer;
use shared::name::printable;
use shared::quantity::counted;
use shared::settings::Settings;
use shared::task::{On, Spec, Task};
use shared::text::shell_word;
use shared::time::Moment;

use crate::cmd::out::{ago, cut, span};
use crate::cmd::{App, Stop, warn};

/// Show all that is known about a task: what it is, where it is, and every attempt
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The task
    #[arg(value_name = "ID")]
    id: String,
}

impl Show {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, resolved) = app.open()?;
        let id = app.task(&pool, &self.id)?;
        let Some(shown) = look(&pool, &resolved.settings, id)? else {
            return Err(Stop::no_match(format!("no task `{id}`")));
        };
        if app.json() {
            app.out.json("show", &shown.to_json())?;
        } else {
            people(app, &shown)?;
        }
        Ok(exit::OK)
    }
}

/// One task, seen at one moment.
struct Shown {
    standing: Standing,
    state: &'static str,
    task: Task,
    lane: String,
    lines: Vec<Line>,
    running: Option<Value>,
}

fn look(pool: &Pool, settings: &Settings, id: TaskId) -> Result<Option<Shown>, Stop> {
    // The task may move between the look at it and the reading of it.
    for _look in 0..4 {
        let Some(standing) = lookup::standing(pool.layout(), id)? else { return Ok(None) };
        let Some(task) = standing.task(pool.layout())? else { continue };
        let lane = lane(pool, &standing, &task);
        let TaskHistory { lines, damaged } = history_of(pool.layout(), id)?;
        for damaged in damaged {
            warn(damaged.error("what one attempt came to").to_string());
        }
        let running = running(pool, settings, &standing)?;
        let state = state(pool, &standing, &task)?;
        return Ok(Some(Shown { standing, state, task, lane, lines, running }));
    }
    Ok(None)
}

/// The lane it is in, or belongs to.
pub(in crate::cmd) fn lane(pool: &Pool, standing: &Standing, task: &Task) -> String {
    match standing {
        Standing::There(Found { place: Place::Pending { lane, .. }, .. }) => lane.to_string(),
        Standing::There(_) | Standing::Ended(_) => {
            let limits = pool.limit_keys();
            Requirements::of(task, &limits).lane().to_string()
        }
    }
}

/// The state it is in: what a brake holds is held, though its file lies where it is claimed from.
pub(in crate::cmd) fn state(
    pool: &Pool,
    standing: &Standing,
    task: &Task,
) -> Result<&'static str, Stop> {
    Ok(match standing {
        Standing::There(Found { place: Place::Pending { .. }, .. })
            if pool.brakes().holding(task)?.is_some() =>
        {
            Shelf::Held.as_str()
        }
        Standing::There(_) | Standing::Ended(_) => standing.state(),
    })
}

/// The first eight fields, which `ls` shows too.
pub(in crate::cmd) fn summary(
    state: &str,
    attempt: u32,
    lane: &str,
    task: &Task,
) -> Map<String, Value> {
    // Of a task that nobody could read all that is known is its id.
    let known = |value: Value| if task.is_unreadable() { Value::Null } else { value };
    [
        ("id", json!(task.id)),
        ("state", json!(state)),
        ("class", known(json!(task.class()))),
        ("name", json!(task.name())),
        ("priority", known(json!(task.priority()))),
        ("lane", known(json!(lane))),
        ("submitted_at", json!(task.submitted_at)),
        ("attempt", json!(attempt)),
    ]
    .map(|(field, value)| (field.to_owned(), value))
    .into_iter()
    .collect()
}

/// The attempt that is going on, if one is.
fn running(pool: &Pool, settings: &Settings, standing: &Standing) -> Result<Option<Value>, Stop> {
    let Standing::There(Found { place: Place::Processing { worker }, name }) = standing else {
        return Ok(None);
    };
    let seen = view::worker(pool, settings, Moment::now(), worker.clone())?;
    let beat = seen.as_ref().and_then(|worker| worker.heartbeat.as_ref());
    let run = seen.iter().flat_map(Worker::current).find(|run| run.task_id == name.id);
    let log = pool.layout().run_log(name.id, name.attempt);
    let log = std::fs::symlink_metadata(&log).is_ok().then_some(log);
    Ok(Some(json!({
        "attempt": name.attempt,
        "worker": worker,
        "gpu_uuid": beat.and_then(|beat| beat.ability.gpu_uuid.as_ref()),
        "started_at": run.and_then(|run| run.started_at),
        "ended_at": null,
        "outcome": null,
        "cause": null,
        "exit_code": null,
        "signal": null,
        "error_message": null,
        "log_path": log,
        "peak_vram_bytes": run.and_then(|run| run.peak_vram_bytes),
        "diagnostics_path": null,
        "answer": null,
    })))
}

fn attempt(line: &Line) -> Value {
    json!({
        "attempt": line.attempt,
        "worker": line.worker,
        "gpu_uuid": line.gpu_uuid,
        "started_at": line.started_at,
        "ended_at": line.ended_at,
        "outcome": line.outcome,
        "cause": line.cause,
        "exit_code": line.exit_code,
        "signal": line.signal,
        "error_message": line.error_message,
        "log_path": line.log_path,
        "peak_vram_bytes": line.peak_vram_bytes,
        "diagnostics_path": line.diagnostics_path,
        "answer": line.answer,
    })
}

impl Shown {
    fn attempts(&self) -> Vec<Value> {
        let going_on = self.running.as_ref().and_then(|run| run["attempt"].as_u64());
        let ended = self.lines.iter().filter(|line| Some(u64::from(line.attempt)) != going_on);
        ended.map(attempt).chain(self.running.clone()).collect()
    }

    fn to_json(&self) -> Map<String, Value> {
        let mut fields = summary(self.state, self.standing.attempt(), &self.lane, &self.task);
        fields.insert("batch_id".into(), json!(self.task.batch_id));
        fields.insert("submitted_by".into(), json!(self.task.submitted_by));
        fields.insert("correlation_id".into(), json!(self.task.correlation_id));
        fields.insert("spec".into(), json!(self.task.spec));
        fields.insert("attempts".into(), self.attempts().into());
        fields
    }
}

fn people(app: &mut App, shown: &Shown) -> Result<(), Stop> {
    let (task, now) = (&shown.task, Moment::now());
    let state = app.out.state(shown.state);
    let place = match &shown.standing {
        Standing::There(Found { place: Place::Processing { worker }, .. }) => {
            format!(" on {worker}")
        }
        Standing::There(Found { place: Place::Delayed { due }, .. }) => {
            format!(" until {}", Moment::from_unix_millis(due * 1000).local())
        }
        Standing::There(_) | Standing::Ended(_) => String::new(),
    };
    let submitted = format!("{} ago by {}", ago(Some(task.submitted_at), now), task.submitted_by);
    let mut rows = vec![
        ("id", task.id.to_string()),
        ("name", task.name()),
        ("state", String::new()),
        ("class", class_of(shown)),
        ("submitted", submitted),
    ];
    rows.extend(task.batch_id.map(|batch| ("batch", batch.to_string())));
    rows.extend(task.spec.command.as_ref().map(|command| ("command", words(command))));
    rows.extend(task.spec.shell.as_ref().map(|line| ("shell", line.clone())));
    rows.extend(asked(&task.spec));
    rows.extend(task.spec.cwd.as_ref().map(|cwd| ("cwd", cwd.clone())));
    rows.extend(wishes(&task.spec));
    for (name, text) in rows {
        // The colours of the state are ours; all else is shown, not sent.
        let text = if name == "state" { format!("{state}{place}") } else { printable(&text) };
        app.out.line(format!("{name:<10} {text}"))?;
    }
    attempts(app, shown)?;
    shown.lines.last().and_then(|line| line.answer.as_ref()).map_or(Ok(()), |answer| {
        app.out.line("")?;
        app.out.line(format!("answer     {}", measured(answer)))?;
        let text = answer.text().map(|text| cut(text.trim(), 1000));
        text.map_or(Ok(()), |text| app.out.line(format!("           {text}")))
    })
}

fn class_of(Shown { task, lane, .. }: &Shown) -> String {
    if task.is_unreadable() {
        return "unknown".to_owned();
    }
    format!("{}, priority {}, lane {lane}", task.class(), task.priority())
}

/// What it asks a model.
fn asked(spec: &Spec) -> Vec<(&'static str, String)> {
    let short = |text: &str| cut(text, 400);
    let list = |messages: &Vec<shared::task::Message>| {
        let all = messages.iter().map(|message| format!("{}: {}", message.role, message.content));
        short(&all.collect::<Vec<_>>().join(" / "))
    };
    let options = |options: &Map<String, Value>| {
        let all = options.iter().map(|(name, value)| format!("{name}={value}"));
        all.collect::<Vec<_>>().join(", ")
    };
    let asked = [
        ("model", spec.model.clone()),
        ("custom id", spec.custom_id.clone()),
        ("system", spec.system.as_deref().map(short)),
        ("prompt", spec.prompt.as_deref().map(short)),
        ("messages", spec.messages.as_ref().map(list)),
        ("request", spec.request.as_ref().map(|request| request.url.clone())),
        ("options", spec.options.as_ref().map(options)),
        ("format", spec.format.as_ref().map(|format| short(&format.to_string()))),
        ("max wait", spec.max_wait.map(|span| span.to_string())),
    ];
    asked.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
}

/// Tokens and times of an answer, as far as they are known.
pub(in crate::cmd) fn measured(answer: &Answer) -> String {
    let mut parts = Vec::new();
    parts.extend(answer.prompt_tokens.map(|tokens| format!("{} read", counted(tokens, "token"))));
    if let Some(tokens) = answer.completion_tokens {
        parts.push(format!("{tokens} written"));
    }
    parts.push(format!("{:.1}s", answer.seconds));
    parts.extend(answer.tokens_per_second().map(|rate| format!("{rate:.1} tokens/s")));
    parts.extend(answer.first_token_seconds.map(|s| format!("first token after {s:.1}s")));
    parts.extend(answer.flaw.map(|flaw| flaw.to_string()));
    parts.extend(answer.load_seconds.filter(|s| *s >= 0.05).map(|s| format!("loaded for {s:.1}s")));
    parts.join(", ")
}

/// What was asked for beyond the usual, as one may ask for it again.
fn wishes(spec: &Spec) -> Vec<(&'static str, String)> {
    let after = spec.after.iter().map(|after| match after.on() {
        On::Success => after.id().to_owned(),
        On::Failure | On::Any => format!("{}:{}", after.id(), after.on()),
    });
    let labels = spec.labels.iter().map(|(name, value)| format!("{name}={value}"));
    let list = |words: Vec<String>| (!words.is_empty()).then(|| words.join(", "));
    // Values may be secrets.
    let env = list(spec.env.keys().cloned().collect());
    let wishes = [
        ("after", list(after.collect())),
        ("timeout", spec.timeout.map(|span| span.to_string())),
        ("gpu memory", spec.gpu_memory.map(|bytes| bytes.to_string())),
        ("worker", spec.worker.as_ref().map(ToString::to_string)),
        ("labels", list(labels.collect())),
        ("env", env),
        ("key", spec.key.clone()),
    ];
    wishes.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
}

/// So much of an attempt's error stands in its row.
const SHOWN_OF_AN_ERROR: usize = 80;

fn attempts(app: &mut App, shown: &Shown) -> Result<(), Stop> {
    let all = shown.attempts();
    if all.is_empty() {
        return Ok(());
    }
    let moment = |value: &Value| value.as_str().and_then(|text| text.parse::<Moment>().ok());
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let number = |value: &Value| value.as_i64().map_or_else(|| "-".to_owned(), |n| n.to_string());
    let rows = all.iter().map(|run| {
        let started = moment(&run["started_at"]);
        let end = moment(&run["ended_at"]).unwrap_or_else(Moment::now);
        vec![
            number(&run["attempt"]),
            text(&run["worker"]),
            started.map_or_else(|| "-".to_owned(), Moment::local),
            started.map_or_else(|| "-".to_owned(), |started| span(end.seconds_since(started))),
            run["outcome"].as_str().unwrap_or("running").to_owned(),
            text(&run["cause"]),
            number(&run["exit_code"]),
            number(&run["signal"]),
            cut(run["error_message"].as_str().unwrap_or("-"), SHOWN_OF_AN_ERROR),
        ]
    });
    let head =
        ["ATTEMPT", "WORKER", "STARTED", "TOOK", "OUTCOME", "CAUSE", "EXIT", "SIGNAL", "ERROR"];
    let rows = rows.collect();
    app.out.line("")?;
    app.out.table(&head, rows)?;
    // What the table cut off is mostly the part that helps.
    let last = all.last().and_then(|run| run["error_message"].as_str());
    match last.filter(|text| text.chars().count() > SHOWN_OF_AN_ERROR) {
        Some(text) => app.out.line(format!("\nlast error {}", printable(text))),
        None => Ok(()),
    }
}

fn words(command: &[String]) -> String {
    command.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}
