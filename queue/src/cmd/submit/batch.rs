//! Many tasks from a file: everything is checked first, then everything is staged, then all of it
//! is committed at once.
//!
//! The file is read twice (three times where tasks wait for each other by name), so that no more
//! than the ids is kept in memory.

use std::collections::{HashMap, HashSet};

use queue::Pool;
use queue::cli::Failure;
use queue::dir::batch::members::{self, LineKey, Member};
use queue::dir::lookup;
use queue::dir::submit::bulk::Bulk;
use queue::dir::submit::keys::Keys;
use shared::event::Event;
use shared::id::{BatchId, TaskId};
use shared::quantity::counted;
use shared::task::After;

use super::reading::{Checked, Ids, Reading, check, complete, names};
use super::source::Go;
use super::{Answer, known, plan, resume, ring};
use crate::cmd::{App, Stop, note};

/// What to do with it.
pub(super) struct Wish<'a> {
    /// The key of the whole batch.
    pub(super) key: Option<&'a str>,
    /// Only check the file: nothing is submitted, and no pool is made.
    pub(super) dry_run: bool,
}

/// Submits all tasks of a file, or none.
pub(super) fn submit(app: &mut App, mut reading: Reading, wish: &Wish<'_>) -> Result<u8, Stop> {
    if wish.dry_run {
        let checked = check(&mut reading, wish.key)?;
        checked.around.warn();
        return try_out(app, &checked);
    }
    let (pool, resolved) = app.create()?;
    let mut keys = wish.key.map(|_key| Keys::wait(&pool)).transpose()?;
    // Made before the ids, so that the batch's own id is the oldest.
    let bulk = Bulk::new(&pool)?;
    let checked = check(&mut reading, wish.key)?;
    known::warn_unknown(&pool, &resolved, checked.models.keys())?;
    checked.around.warn();
    let mut plan = checked.plan(&mut reading, &pool)?;
    if keys.is_none() && !plan.keys.is_empty() {
        keys = Some(Keys::wait(&pool)?);
    }
    let mut before = None;
    if let Some(held) = &keys {
        plan.find_existing(held)?;
        if let Some(key) = wish.key {
            before = plan.resume(&pool, held, key)?;
        }
    }
    if plan.existing.len() == plan.ids.len() {
        return Answer { ids: plan.ids, batch_id: before, existing: true, new: 0 }.say(app);
    }
    let held = keys.as_ref().map(|keys| Held { keys, batch_key: wish.key });
    let answer = stage(&mut reading, &pool, bulk, &plan, held.as_ref())?;
    if let Some(batch) = answer.batch_id.filter(|_| !app.json()) {
        let there = match plan.existing.len() {
            0 => String::new(),
            old => format!(", {old} more were there already"),
        };
        note(format!("batch {batch}: {}{there}", counted(answer.new, "task")));
    }
    answer.say(app)
}

fn try_out(app: &mut App, checked: &Checked) -> Result<u8, Stop> {
    let count = checked.lines.len();
    let unknown = match app.resolve()?.open() {
        Ok(pool) => known::unknown(&pool, &app.resolve()?, checked.models.keys())?,
        Err(failure) if failure.code == shared::exit::NO_POOL => None,
        Err(failure) => return Err(failure.into()),
    };
    if let Some(text) = unknown {
        return Err(Stop::Failure(Failure::new(shared::exit::IMPOSSIBLE, text)));
    }
    if app.json() {
        let fields = serde_json::json!({"tasks": count, "models": checked.models});
        app.out.json("check", &fields)?;
        return Ok(shared::exit::OK);
    }
    app.out.line(format!("{} well formed; nothing was submitted", counted(count, "task")))?;
    for (model, tasks) in &checked.models {
        app.out.line(format!("  {model}: {}", counted(tasks, "task")))?;
    }
    if let Some(first) = &checked.first {
        app.out.line(format!("the first one asks: {}", crate::cmd::out::cut(first, 200)))?;
    }
    Ok(shared::exit::OK)
}

impl Checked {
    /// Gives every task its id and finds out who waits for whom.
    fn plan(self, reading: &mut Reading, pool: &Pool) -> Result<Plan, Stop> {
        let ids: Vec<TaskId> = self.lines.iter().map(|_line| TaskId::new()).collect();
        let Self { lines, links, keys, line_keys, .. } = self;
        let mut seen = HashMap::new();
        for (index, key) in &keys {
            if let Some(first) = seen.insert(key, *index) {
                let text = format!("the key is that of line {} too", lines[first]);
                return Err(reading.source.wrong(lines[*index], "key", &text));
            }
        }
        let names = if links.is_empty() { HashMap::new() } else { names(reading, &links)? };
        let known = |text: &str| match lookup::find(pool.layout(), text) {
            Ok(Ok(lookup::Named::Task(id))) => Ok(id),
            Ok(Ok(lookup::Named::Batch(_, _))) => Err(format!("`{text}` is a batch; name tasks")),
            Ok(Err(_miss)) => Err(format!(
                "`{}` is neither a task's id nor a name in this batch",
                text.escape_default()
            )),
            Err(err) => Err(err.to_string()),
        };
        let after = plan::resolve(links, &names, &ids, known).map_err(|problem| {
            reading.source.wrong(lines[problem.index], "after", &problem.text)
        })?;
        let (existing, left_over) = (HashSet::new(), Vec::new());
        Ok(Plan { ids, after, keys, line_keys, existing, left_over })
    }
}

/// All that is to be submitted, but for the tasks themselves.
struct Plan {
    ids: Vec<TaskId>,
    after: HashMap<usize, Vec<After>>,
    keys: Vec<(usize, String)>,
    line_keys: Vec<LineKey>,
    /// Tasks that were submitted before.
    existing: HashSet<usize>,
    /// Tasks that were submitted under the batch's key and are not in this file.
    left_over: Vec<Member>,
}

impl Plan {
    /// Finds the lines whose own key is known.
    fn find_existing(&mut self, held: &Keys) -> Result<(), Stop> {
        let mut there = Vec::new();
        for (index, key) in &self.keys {
            if let Some(id) = held.find(key)? {
                there.push((*index, id));
            }
        }
        self.take_over(there);
        let existing = &self.existing;
        self.keys.retain(|(index, _key)| !existing.contains(index));
        Ok(())
    }

    /// Finds what was submitted under the batch's key before and need not run again. Returns the
    /// batch that it was last submitted as.
    fn resume(&mut self, pool: &Pool, held: &Keys, key: &str) -> Result<Option<BatchId>, Stop> {
        let Some(batch) = held.find_batch(key)? else {
            return match held.find(key)? {
                None => Ok(None),
                Some(id) => {
                    let key = key.escape_default();
                    Err(Stop::usage(format!("the key `{key}` is that of one task, {id}")))
                }
            };
        };
        let known = resume::known(pool.layout(), batch)?;
        let here = self.line_keys.iter().enumerate();
        let there: Vec<_> = here
            .filter(|(index, _key)| !self.existing.contains(index))
            .filter_map(|(index, key)| Some((index, known.done(*key)?)))
            .collect();
        self.take_over(there);
        self.left_over = known.others(&self.line_keys);
        Ok(Some(batch))
    }

    /// These tasks are there already, under these ids.
    fn take_over(&mut self, there: Vec<(usize, TaskId)>) {
        let mut moved = HashMap::with_capacity(there.len());
        for (index, id) in there {
            moved.insert(self.ids[index].to_string(), id);
            self.ids[index] = id;
            self.existing.insert(index);
        }
        // Whoever waits for one of them waits for the one that is there.
        for after in self.after.values_mut().flatten() {
            if let Some(id) = moved.get(after.id()) {
                *after = match after.on() {
                    shared::task::On::Success => After::Success(id.to_string()),
                    on @ (shared::task::On::Failure | shared::task::On::Any) => {
                        After::Ended { id: id.to_string(), on }
                    }
                };
            }
        }
    }

    fn members(&self) -> impl Iterator<Item = Member> {
        let own = self.ids.iter().enumerate();
        let own =
            own.map(|(index, id)| Member { id: *id, key: self.line_keys.get(index).copied() });
        own.chain(self.left_over.iter().copied())
    }
}

/// The right to submit under keys, and the batch's own.
struct Held<'a> {
    keys: &'a Keys,
    batch_key: Option<&'a str>,
}

impl Held<'_> {
    fn intend(&self, plan: &Plan, batch: BatchId) -> Result<(), Stop> {
        for (index, key) in &plan.keys {
            self.keys.intend(key, plan.ids[*index])?;
        }
        if let Some((key, first)) = self.batch_key.zip(plan.first_new()) {
            self.keys.intend_batch(key, batch, first)?;
        }
        Ok(())
    }

    fn submitted(&self, plan: &Plan, batch: BatchId) -> Result<(), Stop> {
        for (index, key) in &plan.keys {
            self.keys.submitted(key, plan.ids[*index])?;
        }
        if let Some((key, first)) = self.batch_key.zip(plan.first_new()) {
            self.keys.submitted_batch(key, batch, first)?;
        }
        Ok(())
    }
}

impl Plan {
    fn first_new(&self) -> Option<TaskId> {
        let mut new = (0..self.ids.len()).filter(|index| !self.existing.contains(index));
        new.next().map(|index| self.ids[index])
    }
}

fn stage(
    reading: &mut Reading,
    pool: &Pool,
    mut bulk: Bulk,
    plan: &Plan,
    held: Option<&Held<'_>>,
) -> Result<Answer, Stop> {
    let batch = bulk.id();
    let Reading { source, maker, me } = reading;
    let (mut index, mut bells) = (0, HashMap::new());
    let changed = || Stop::Failure(Failure::usage("the batch file changed while it was read"));
    source.each("staging", |_number, line| {
        let id = *plan.ids.get(index).ok_or_else(changed)?;
        if !plan.existing.contains(&index) {
            let spec =
                maker.spec(line).and_then(|spec| complete(me, Ids { task: id, batch }, spec));
            let mut spec = spec.map_err(|_was_good| changed())?;
            if !spec.after.is_empty() {
                spec.after = plan.after.get(&index).ok_or_else(changed)?.clone();
            }
            let task = me.task(id, Some(batch), spec);
            bulk.add(&task)?;
            bells
                .entry((
                    task.class(),
                    std::mem::discriminant(&queue::store::start::start_of(&task)),
                ))
                .or_insert(task);
        }
        index += 1;
        Ok(Go::On)
    })?;
    if index != plan.ids.len() {
        return Err(changed());
    }
    members::record(pool.layout(), batch, plan.members())?;
    held.map_or(Ok(()), |held| held.intend(plan, batch))?;
    let tasks = bulk.commit()?;
    held.map_or(Ok(()), |held| held.submitted(plan, batch))?;
    bells.values().for_each(|task| ring(pool, task));
    shared::emit!(Event::BatchSubmitted { batch, tasks, user: me.user.clone() });
    Ok(Answer { ids: plan.ids.clone(), batch_id: Some(batch), existing: false, new: tasks })
}
