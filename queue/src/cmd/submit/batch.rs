//! Many tasks from a file: everything is checked first, then everything is staged, then all of it
//! is committed at once.
//!
//! The file is read twice (three times where tasks wait for each other by name), so that no more
//! than the ids is kept in memory; what is no plain file is copied to a nameless one first.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use queue::Pool;
use queue::cli::Failure;
use queue::dir::keys::Keys;
use queue::dir::submit::{Bulk, Submitter as Writer};
use queue::lookup;
use shared::event::Event;
use shared::id::{BatchId, TaskId};
use shared::quantity::counted;
use shared::task::{After, BadSpec, MAX_TASK_BYTES, Spec, parse_spec};

use super::super::{App, Stop, note};
use super::plan::{self, Links};
use super::{Answer, Submitter, check_size, ring, single};

/// So many mistakes are told at once.
const TOLD: usize = 10;

/// Submits all tasks of a file, or none.
pub(super) fn submit(
    app: &mut App,
    path: &Path,
    key: Option<&str>,
    dry_run: bool,
) -> Result<u8, Stop> {
    let mut source = Source::open(path)?;
    let me = Submitter::new();
    if dry_run {
        let checked = check(&mut source, &me)?;
        let count = checked.lines.len();
        if app.json() {
            app.out.json("check", &serde_json::json!({"tasks": count}))?;
            return Ok(shared::exit::OK);
        }
        app.out.line(format!("{} well formed; nothing was submitted", counted(count, "task")))?;
        return Ok(shared::exit::OK);
    }
    let (pool, _resolved) = app.create()?;
    let mut keys = key.map(|_key| Keys::wait(&pool)).transpose()?;
    if let (Some(key), Some(held)) = (key, &keys)
        && let Some(id) = held.find(key)?
    {
        let mut answer = single::existing(&pool, id)?;
        if let Some(batch) = answer.batch_id {
            let all = lookup::members(pool.layout(), batch)?;
            answer.ids = if all.is_empty() { answer.ids } else { all };
        }
        return answer.say(app);
    }
    // Made before the ids, so that the batch's own id is the oldest.
    let bulk = Writer::new(&pool)?.bulk();
    let checked = check(&mut source, &me)?;
    let mut plan = checked.plan(&mut source, &pool)?;
    if keys.is_none() && !plan.keys.is_empty() {
        keys = Some(Keys::wait(&pool)?);
    }
    if let Some(held) = &keys {
        plan.find_existing(held)?;
        // The batch's own key stands for its first new task, which knows its batch.
        let new = (0..plan.ids.len()).find(|index| !plan.existing.contains(index));
        plan.keys.extend(new.zip(key.map(str::to_owned)));
    }
    if plan.existing.len() == plan.ids.len() {
        return Answer { ids: plan.ids, batch_id: None, existing: true }.say(app);
    }
    let answer = stage(&mut source, &me, (&pool, bulk), &plan, keys.as_ref())?;
    if let Some(batch) = answer.batch_id.filter(|_| !app.json()) {
        note(format!("batch {batch}: {}", counted(answer.ids.len(), "task")));
    }
    answer.say(app)
}

/// The batch file, to be read several times.
struct Source {
    /// As messages name it.
    name: String,
    file: File,
    length: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self, Stop> {
        let stdin = path == Path::new("-");
        let name = if stdin { "stdin".to_owned() } else { path.display().to_string() };
        let failed = |err: io::Error| Stop::usage(format!("could not read `{name}`: {err}"));
        let file = if stdin {
            spool(&mut io::stdin().lock()).map_err(failed)?
        } else {
            let mut file = File::open(path).map_err(failed)?;
            let plain = file.metadata().map_err(failed)?.is_file();
            if plain { file } else { spool(&mut file).map_err(failed)? }
        };
        let length = file.metadata().map_err(failed)?.len();
        Ok(Self { name, file, length })
    }

    /// Shows each line that is not blank, with its number from 1, until `see` says stop.
    fn each(
        &mut self,
        doing: &'static str,
        mut see: impl FnMut(u32, &[u8]) -> Result<Go, Stop>,
    ) -> Result<(), Stop> {
        let name = self.name.clone();
        let failed = |err: io::Error| Stop::usage(format!("could not read `{name}`: {err}"));
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let bar = progress(self.length, doing);
        let mut reader = BufReader::with_capacity(1 << 17, &self.file);
        let (mut line, mut number, mut read) = (Vec::new(), 0, 0);
        loop {
            line.clear();
            let longest = MAX_TASK_BYTES + 2;
            let got = reader.by_ref().take(longest).read_until(b'\n', &mut line).map_err(failed)?;
            if got == 0 {
                bar.finish_and_clear();
                return Ok(());
            }
            number += 1;
            read += got as u64;
            if number % 512 == 0 {
                bar.set_position(read);
            }
            if got as u64 == longest && line.last() != Some(&b'\n') {
                return Err(Stop::usage(format!(
                    "{name}:{number}: longer than 1 MiB; nothing was submitted"
                )));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match see(number, &line)? {
                Go::On => {}
                Go::Stop => {
                    bar.finish_and_clear();
                    return Ok(());
                }
            }
        }
    }

    /// `file:line:field: what is wrong`
    fn place(&self, number: u32, bad: &BadSpec) -> String {
        let field = bad.field.as_ref().map(|field| format!("{field}:")).unwrap_or_default();
        format!("{}:{number}:{field} {}", self.name, bad.problem)
    }

    fn wrong(&self, number: u32, field: &str, problem: &str) -> Stop {
        let place = self.place(number, &super::bad(field, problem));
        Stop::usage(format!("{place}\nnothing was submitted"))
    }
}

/// Whether to go on with the next line.
enum Go {
    On,
    Stop,
}

/// A copy of what can be read only once, in a file that has no name any more.
fn spool(from: &mut dyn io::Read) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("queue-batch-{}", shared::id::Incarnation::new()));
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(from, &mut file)?;
    Ok(file)
}

/// A bar on stderr, if that is a terminal.
fn progress(length: u64, doing: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {percent}% ({eta})");
    let bar = ProgressBar::new(length).with_message(doing);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_default_is_fine) => bar,
    }
}

/// What the first reading found out.
struct Checked {
    /// The line of each task.
    lines: Vec<u32>,
    links: Links,
    keys: Vec<(usize, String)>,
}

fn check(source: &mut Source, me: &Submitter) -> Result<Checked, Stop> {
    let mut checked = Checked { lines: Vec::new(), links: Vec::new(), keys: Vec::new() };
    let mut wrong: Vec<(u32, BadSpec)> = Vec::new();
    let stand_in = (TaskId::new(), BatchId::new());
    source.each("checking", |number, line| {
        match read_line(me, stand_in, line) {
            Ok(mut spec) => {
                let index = checked.lines.len();
                checked.lines.push(number);
                if !spec.after.is_empty() {
                    checked.links.push((index, std::mem::take(&mut spec.after)));
                }
                checked.keys.extend(spec.key.map(|key| (index, key)));
            }
            Err(bad) => wrong.push((number, bad)),
        }
        Ok(if wrong.len() < TOLD { Go::On } else { Go::Stop })
    })?;
    if !wrong.is_empty() {
        let mut lines: Vec<_> =
            wrong.iter().map(|(number, bad)| source.place(*number, bad)).collect();
        lines.push("nothing was submitted".to_owned());
        return Err(Stop::usage(lines.join("\n")));
    }
    if checked.lines.is_empty() {
        return Err(Stop::usage(format!("{}: holds no task", source.name)));
    }
    Ok(checked)
}

/// Ids in place of those that a task will have: all are equally long.
type StandIn = (TaskId, BatchId);

fn read_line(me: &Submitter, stand_in: StandIn, line: &[u8]) -> Result<Spec, BadSpec> {
    let mut spec = parse_spec(line)?;
    me.complete(&mut spec)?;
    let task = me.task(stand_in.0, Some(stand_in.1), spec);
    check_size(&task)?;
    Ok(task.spec)
}

impl Checked {
    /// Gives every task its id and finds out who waits for whom.
    fn plan(self, source: &mut Source, pool: &Pool) -> Result<Plan, Stop> {
        let ids: Vec<TaskId> = self.lines.iter().map(|_line| TaskId::new()).collect();
        let Self { lines, links, keys } = self;
        let mut seen = HashMap::new();
        for (index, key) in &keys {
            if let Some(first) = seen.insert(key, *index) {
                let text = format!("the key is that of line {} too", lines[first]);
                return Err(source.wrong(lines[*index], "key", &text));
            }
        }
        let names = if links.is_empty() { HashMap::new() } else { names(source, &links)? };
        let known = |text: &str| match lookup::find(pool.layout(), text) {
            Ok(Ok(lookup::Named::Task(id))) => Ok(id),
            Ok(Ok(lookup::Named::Batch(_, _))) => Err(format!("`{text}` is a batch; name tasks")),
            Ok(Err(_miss)) => Err(format!(
                "`{}` is neither a task's id nor a name in this batch",
                text.escape_default()
            )),
            Err(err) => Err(err.to_string()),
        };
        let after = plan::resolve(links, &names, &ids, known)
            .map_err(|problem| source.wrong(lines[problem.index], "after", &problem.text))?;
        Ok(Plan { ids, after, keys, existing: HashSet::new() })
    }
}

/// The tasks whose names are waited for.
fn names(source: &mut Source, links: &Links) -> Result<HashMap<String, Vec<usize>>, Stop> {
    let wanted = plan::wanted(links);
    let (mut names, mut index) = (HashMap::<String, Vec<usize>>::new(), 0);
    source.each("naming", |_number, line| {
        let name = parse_spec(line).ok().and_then(|spec| spec.name);
        if let Some(name) = name.filter(|name| wanted.contains(name)) {
            names.entry(name).or_default().push(index);
        }
        index += 1;
        Ok(Go::On)
    })?;
    Ok(names)
}

/// All that is to be submitted, but for the tasks themselves.
struct Plan {
    ids: Vec<TaskId>,
    after: HashMap<usize, Vec<After>>,
    keys: Vec<(usize, String)>,
    /// Tasks that were submitted before, under their key.
    existing: HashSet<usize>,
}

impl Plan {
    fn find_existing(&mut self, held: &Keys) -> Result<(), Stop> {
        let mut moved = HashMap::new();
        for (index, key) in &self.keys {
            if let Some(id) = held.find(key)? {
                moved.insert(self.ids[*index].to_string(), id);
                self.ids[*index] = id;
                self.existing.insert(*index);
            }
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
        let existing = &self.existing;
        self.keys.retain(|(index, _key)| !existing.contains(index));
        Ok(())
    }
}

fn stage(
    source: &mut Source,
    me: &Submitter,
    (pool, mut bulk): (&Pool, Bulk),
    plan: &Plan,
    keys: Option<&Keys>,
) -> Result<Answer, Stop> {
    let batch = bulk.id();
    let (mut index, mut bells) = (0, HashMap::new());
    let changed = || Stop::Failure(Failure::usage("the batch file changed while it was read"));
    source.each("staging", |_number, line| {
        let id = *plan.ids.get(index).ok_or_else(changed)?;
        if !plan.existing.contains(&index) {
            let mut spec = read_line(me, (id, batch), line).map_err(|_was_good| changed())?;
            if !spec.after.is_empty() {
                spec.after = plan.after.get(&index).ok_or_else(changed)?.clone();
            }
            let task = me.task(id, Some(batch), spec);
            bulk.add(&task)?;
            bells
                .entry((task.class(), std::mem::discriminant(&queue::dir::submit::start_of(&task))))
                .or_insert(task);
        }
        index += 1;
        Ok(Go::On)
    })?;
    if index != plan.ids.len() {
        return Err(changed());
    }
    lookup::record_batch(pool.layout(), batch, &plan.ids)?;
    for (index, key) in &plan.keys {
        keys.map_or(Ok(()), |keys| keys.intend(key, plan.ids[*index]))?;
    }
    let tasks = bulk.commit()?;
    for (index, key) in &plan.keys {
        keys.map_or(Ok(()), |keys| keys.submitted(key, plan.ids[*index]))?;
    }
    bells.values().for_each(|task| ring(pool, task));
    shared::emit!(Event::BatchSubmitted { batch, tasks, user: me.user.clone() });
    Ok(Answer { ids: plan.ids.clone(), batch_id: Some(batch), existing: false })
}
