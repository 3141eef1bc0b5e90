//! `queue ls`: tasks, one per line, as they are found; an `ls` of a million does not wait for the
//! last one to show the first.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use clap::Args;
use memchr::memmem;
use queue::Pool;
use queue::dir::disk::listing::{self, PassedOver};
use queue::dir::disk::place::{Found, Place};
use queue::dir::find::{places, recent_ends};
use queue::dir::layout::Shelf;
use queue::dir::ledger::lines::{each_line, read_line};
use queue::dir::ledger::search::files_since;
use queue::dir::lookup::{self, Standing, ended_state};
use queue::wire::ledger_line::{self, Brief, Line};
use serde_json::{Value, json};
use shared::exit;
use shared::id::{BatchId, TaskId};
use shared::llm::Answer;
use shared::outcome::{Next, Outcome};
use shared::quantity::counted;
use shared::task::{Class, Task, TaskName};
use shared::time::Moment;

use super::show;
use crate::cmd::out::{Tone, ago, cut};
use crate::cmd::{App, Stop, warn};

shared::words! {
    /// The states a task can be in.
    ListedState {
        /// A worker has claimed it.
        Processing = "processing",
        /// In a lane, for any eligible worker to claim.
        Pending = "pending",
        /// Its time has not come, or the pause before its next attempt is not over.
        Delayed = "delayed",
        /// For when others have ended.
        Waiting = "waiting",
        /// Held by a person.
        Held = "held",
        /// Failed for good; a person may retry it.
        Failed = "failed",
        /// History: it did what it should.
        Succeeded = "succeeded",
        /// History: it was ended for good.
        Cancelled = "cancelled",
    }
}

/// List tasks: by default all that have not ended, and those that failed
#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// Only tasks in these states
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<ListedState>,
    /// Only tasks of these classes
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    class: Vec<Class>,
    /// Only tasks of this batch: its id, or the key it was submitted under
    #[arg(long, value_name = "ID|KEY")]
    batch: Option<String>,
    /// Only tasks with this label
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Ls {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, _resolved) = app.open()?;
        let batch = self.batch.as_deref().map(|text| batch(app, &pool, text)).transpose()?;
        let left = self.limit;
        let shown = HashSet::new();
        let mut lister = Lister { pool, wanted: &self, batch, left, headed: false, shown };
        lister.places(app)?;
        lister.history(app)?;
        Ok(exit::OK)
    }

    fn states(&self) -> &[ListedState] {
        use ListedState::{Delayed, Failed, Held, Pending, Processing, Waiting};
        match (self.state.is_empty(), &self.batch) {
            (false, _) => &self.state,
            // Of a batch one wants to see all.
            (true, Some(_)) => ListedState::ALL,
            (true, None) => &[Processing, Pending, Delayed, Waiting, Held, Failed],
        }
    }
}

fn batch(app: &App, pool: &Pool, text: &str) -> Result<(BatchId, HashSet<TaskId>), Stop> {
    match app.named(pool, text)? {
        lookup::Named::Batch(batch, ids) => Ok((batch, ids.into_iter().collect())),
        lookup::Named::Task(id) => Err(Stop::no_match(format!("`{id}` is a task, not a batch"))),
    }
}

struct Lister<'a> {
    pool: Pool,
    wanted: &'a Ls,
    batch: Option<(BatchId, HashSet<TaskId>)>,
    left: Option<usize>,
    headed: bool,
    /// What is shown already: in history it is not shown again, whatever became of it since.
    shown: HashSet<TaskId>,
}

/// The state that a place means; none for tasks that are being ended just now.
const fn state_of(place: &Place) -> Option<ListedState> {
    match place {
        Place::Processing { .. } => Some(ListedState::Processing),
        Place::Pending { .. } => Some(ListedState::Pending),
        Place::Delayed { .. } => Some(ListedState::Delayed),
        Place::Shelf { shelf: Shelf::Waiting, .. } => Some(ListedState::Waiting),
        Place::Shelf { shelf: Shelf::Held, .. } => Some(ListedState::Held),
        Place::Shelf { shelf: Shelf::Failed, .. } => Some(ListedState::Failed),
        Place::Ending { .. } => None,
    }
}

/// So a line says that its task could not be understood.
const REJECTED: &[u8] = br#""next":"rejected""#;

/// In the order in which people look: what runs, then what comes next; inside it the oldest first.
fn rank(place: &Place, names: &[TaskName]) -> (Option<ListedState>, u8, String) {
    let (priority, time) = match place {
        Place::Pending { priority, segment, .. } => (u8::MAX - priority, segment.dir_name()),
        Place::Shelf { segment, .. } => (0, segment.dir_name()),
        Place::Delayed { due } => (0, format!("{due:020}")),
        Place::Processing { .. } => (0, names.first().map(TaskName::to_string).unwrap_or_default()),
        Place::Ending { verb } => (0, verb.clone()),
    };
    (state_of(place), priority, time)
}

/// A task that is to be listed, unless it does not fit what was asked for.
struct Listed<'a> {
    attempt: u32,
    standing: &'a Standing,
    task: &'a Task,
}

impl Lister<'_> {
    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn places(&mut self, app: &mut App) -> Result<(), Stop> {
        let layout = self.pool.layout().clone();
        let states = self.wanted.states();
        // Names first, in the order in which tasks move, so that none is missed; a task that
        // moved meanwhile is met twice, and where it was met last counts.
        let mut listed: Vec<(Place, Vec<TaskName>)> = Vec::new();
        let mut passed_over = PassedOver::default();
        for place in places::all(&layout, &mut passed_over)? {
            let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(&layout)))?;
            listed.push((place, names.unwrap_or_default().tasks));
        }
        for err in passed_over.errors() {
            warn(format!("{err}; the tasks in it are unknown, and missing here"));
        }
        let mut seen = HashSet::new();
        for (_place, names) in listed.iter_mut().rev() {
            names.retain(|name| seen.insert(name.id) && self.is_of_batch(name.id));
        }
        listed.retain(|(place, names)| {
            !names.is_empty() && state_of(place).is_some_and(|state| states.contains(&state))
        });
        listed.sort_by_cached_key(|(place, names)| rank(place, names));
        for (place, names) in listed {
            let mut ends = match &place {
                Place::Processing { worker } => recent_ends::ends_of(&layout, worker, &names)?,
                Place::Pending { .. }
                | Place::Delayed { .. }
                | Place::Shelf { .. }
                | Place::Ending { .. } => HashMap::new(),
            };
            for name in names {
                if self.is_full() {
                    return Ok(());
                }
                match ends.remove(&name.id).filter(|line| line.next.ends_task()) {
                    // History tells of it, or it is on its way to those that failed.
                    Some(line)
                        if line.next == Next::Failed && states.contains(&ListedState::Failed) =>
                    {
                        self.ended(app, line)?;
                        continue;
                    }
                    Some(_ended) => continue,
                    None => {}
                }
                self.found(app, Found { place: place.clone(), name })?;
            }
        }
        Ok(())
    }

    fn found(&mut self, app: &mut App, found: Found) -> Result<(), Stop> {
        let task = match found.read(self.pool.layout()) {
            Ok(Some(task)) => task,
            // It moved on; the list is of the moment when names were read.
            Ok(None) => return Ok(()),
            Err(err) => {
                warn(err.to_string());
                return Ok(());
            }
        };
        let attempt = found.name.attempt;
        let standing = Standing::There(found);
        let state = show::state(&self.pool, &standing, &task)?;
        self.show(app, state, Listed { attempt, standing: &standing, task: &task })
    }

    fn history(&mut self, app: &mut App) -> Result<(), Stop> {
        let states = self.wanted.states();
        let ended = [ListedState::Succeeded, ListedState::Cancelled];
        let all = ended.iter().any(|state| states.contains(state));
        // Those that could not be understood are in no place either; their files are put aside.
        let rejected = states.contains(&ListedState::Failed)
            && !listing::entries(&self.pool.layout().rejected())?.is_empty();
        if !all && !rejected {
            return Ok(());
        }
        let is_rejected = memmem::Finder::new(REJECTED);
        let files = files_since(self.pool.layout(), "")?;
        let last = last_ends(&files)?;
        let mut damaged = 0_u64;
        for path in files {
            let mut shown = Ok(());
            each_line(&path, 0, |offset, line| {
                if shown.is_err() || self.is_full() {
                    return;
                }
                if !all && is_rejected.find(line).is_none() {
                    return;
                }
                match read_line::<Brief>(&path, offset, line) {
                    Ok(brief) => {
                        let is_last = |brief: &Brief| {
                            last.get(&brief.id).is_none_or(|last| brief.attempt >= *last)
                        };
                        let brief = brief.filter(is_last);
                        if let Some(line) = brief.and_then(|b| self.wanted_line(&b, line, states)) {
                            shown = self.ended(app, line);
                        }
                    }
                    Err(_damaged) => damaged += 1,
                }
            })?;
            shown?;
        }
        if damaged > 0 {
            let lines = counted(damaged, "line");
            warn(format!(
                "{lines} of history cannot be understood, and what they tell of may be missing \
                 here; `queue doctor` shows where they are"
            ));
        }
        Ok(())
    }

    fn ended(&mut self, app: &mut App, line: Line) -> Result<(), Stop> {
        let (state, attempt) = (ended_state(line.outcome), line.attempt);
        let task = line.task.clone();
        let standing = Standing::Ended(Box::new(line));
        self.show(app, state, Listed { attempt, standing: &standing, task: &task })
    }

    fn wanted_line(&self, brief: &Brief, line: &[u8], states: &[ListedState]) -> Option<Line> {
        let state = match (brief.next, brief.outcome) {
            (Next::End, Outcome::Succeeded) => ListedState::Succeeded,
            (Next::End, Outcome::Cancelled) => ListedState::Cancelled,
            (Next::Rejected, _) => ListedState::Failed,
            (Next::End | Next::Failed | Next::Pending | Next::Delayed(_), _) => return None,
        };
        let wanted = states.contains(&state)
            && self.is_of_batch(brief.id)
            && !self.shown.contains(&brief.id);
        wanted.then(|| ledger_line::read(line).ok()).flatten()
    }

    fn is_of_batch(&self, id: TaskId) -> bool {
        self.batch.as_ref().is_none_or(|(_batch, ids)| ids.contains(&id))
    }

    fn fits(&self, task: &Task) -> bool {
        let class = self.wanted.class.is_empty() || self.wanted.class.contains(&task.class());
        class && self.wanted.label.iter().all(|label| has_label(task, label))
    }

    fn show(&mut self, app: &mut App, state: &str, listed: Listed<'_>) -> Result<(), Stop> {
        let Listed { attempt, standing, task } = listed;
        if !self.fits(task) {
            return Ok(());
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.shown.insert(task.id);
        let answer = match standing {
            Standing::Ended(line) => line.answer.as_ref(),
            Standing::There(_) => None,
        };
        if app.json() {
            let lane = show::lane(&self.pool, standing, task);
            let mut fields = show::summary(state, attempt, &lane, task);
            fields.extend(about_model(task, answer));
            return app.out.json("ls", &fields);
        }
        if !self.headed {
            self.headed = true;
            let head = line(["ID", "STATE", "CLASS", "PRI", "TRY", "AGE", "NAME"]);
            let head = app.out.paint(Tone::Head, &head);
            app.out.line(head)?;
        }
        let (priority, attempt) = (task.priority().to_string(), attempt.to_string());
        let age = ago(Some(task.submitted_at), Moment::now());
        let row = line([
            &task.id.short(),
            state,
            if task.is_unreadable() { "unknown" } else { task.class().as_str() },
            &priority,
            &attempt,
            &age,
            &(cut(&task.name(), 60) + &model_words(task, answer)),
        ]);
        let row = row.replacen(state, &app.out.state(state), 1);
        app.out.line(row)
    }
}

/// Of tasks that ended with a later attempt than their first, the last of those: one that was
/// ended and then given another chance has ended more than once.
fn last_ends(files: &[PathBuf]) -> Result<HashMap<TaskId, u32>, Stop> {
    let mut last = HashMap::new();
    for path in files {
        each_line(path, 0, |offset, line| {
            if ledger_line::attempt_in(line).is_none_or(|attempt| attempt <= 1) {
                return;
            }
            let brief = read_line::<Brief>(path, offset, line).ok().flatten();
            if let Some(brief) = brief.filter(|brief| brief.end_of_task().is_some()) {
                let attempt = last.entry(brief.id).or_insert(brief.attempt);
                *attempt = brief.attempt.max(*attempt);
            }
        })?;
    }
    Ok(last)
}

/// The model a task asks for, and what came of it, for programs.
fn about_model(task: &Task, answer: Option<&Answer>) -> Vec<(String, Value)> {
    let fields = [
        ("model", json!(task.spec.model)),
        ("custom_id", json!(task.spec.custom_id)),
        ("prompt_tokens", json!(answer.and_then(|answer| answer.prompt_tokens))),
        ("completion_tokens", json!(answer.and_then(|answer| answer.completion_tokens))),
        ("flaw", json!(answer.and_then(|answer| answer.flaw))),
        ("answer_seconds", json!(answer.map(|answer| answer.seconds))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The same for people: ` [tiny: 12 tokens in 0.4s]`.
fn model_words(task: &Task, answer: Option<&Answer>) -> String {
    let Some(model) = task.spec.model.as_ref().filter(|_| task.spec.asks_a_model()) else {
        return String::new();
    };
    let model = cut(model, 30);
    let came = answer.map(|answer| match answer.completion_tokens {
        Some(tokens) => format!(": {} in {:.1}s", counted(tokens, "token"), answer.seconds),
        None => format!(": {:.1}s", answer.seconds),
    });
    let flaw = answer.and_then(|answer| answer.flaw).map(|flaw| format!(", {flaw}"));
    format!(" [{model}{}{}]", came.unwrap_or_default(), flaw.unwrap_or_default())
}

fn line([id, state, class, priority, attempt, age, name]: [&str; 7]) -> String {
    format!("{id:<9} {state:<10} {class:<7} {priority:>3} {attempt:>3} {age:>8}  {name}")
}

fn has_label(task: &Task, label: &str) -> bool {
    let labels: &std::collections::BTreeMap<String, String> = &task.spec.labels;
    match label.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
        None => labels.contains_key(label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_comes_first_then_what_is_next() {
        let segment = queue::dir::layout::Segment { time: "0194c3f2a".into(), number: 0 };
        let lane: queue::wire::lane::LaneName = "cpu-1".parse().unwrap();
        let pending =
            |priority| Place::Pending { lane: lane.clone(), priority, segment: segment.clone() };
        let on = |worker: &str| Place::Processing { worker: worker.parse().unwrap() };
        let (first, second) = (TaskName::first(TaskId::new()), TaskName::first(TaskId::new()));
        let mut listed = [
            (Place::Delayed { due: 3 }, vec![]),
            (pending(5), vec![]),
            (on("worker-0"), vec![second]),
            (on("worker-1"), vec![first]),
            (pending(9), vec![]),
        ];
        listed.sort_by_cached_key(|(place, names)| rank(place, names));
        let states: Vec<_> = listed.iter().map(|(place, _names)| place.state()).collect();
        assert_eq!(states, ["processing", "processing", "pending", "pending", "delayed"]);
        assert_eq!(listed[0], (on("worker-1"), vec![first]), "the oldest task, whoever has it");
        assert_eq!(listed[2].0, pending(9));
    }
}
