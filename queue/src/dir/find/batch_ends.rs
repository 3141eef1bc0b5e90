//! Where the ends of a batch's tasks lie in the ledger: per task, which line of which file. The
//! answers themselves are never held in memory, however many and long they are; each is read when
//! it is written out.
//!
//! What has not ended is looked for in its place. Places come first, then history: a task that
//! ends in between is met in history. One that was put back, and so moved against the direction of
//! the look, is looked for again.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use memchr::memmem;
use shared::id::TaskId;
use shared::outcome::{Next, Outcome};
use shared::time::Moment;

use super::places;
use crate::Error;
use crate::dir::batch::roll_forward;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::place::Place;
use crate::dir::layout::{Layout, Shelf};
use crate::dir::ledger::lines::{Damaged, each_line, read_line};
use crate::error::At as _;
use crate::wire::ledger_line::{self, Brief, HEAD, Line, Unread};

/// How one task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nobody knows it: it was cleaned up, or never committed.
    Unknown,
    /// It has not ended.
    Open {
        /// The state's name, as in `queue show`.
        state: &'static str,
        /// The attempt that is next or going on.
        attempt: u32,
    },
    /// It has ended.
    Ended(End),
}

/// The end of a task, and where its line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub outcome: Outcome,
    /// The attempt that it ended with.
    pub attempt: u32,
    /// When that attempt ended, as its line says.
    pub at: Moment,
    file: u32,
    offset: u64,
    length: u32,
}

impl End {
    /// What fails for good can be given another chance.
    const fn next(self) -> Next {
        match self.outcome {
            Outcome::Failed | Outcome::Returned => Next::Failed,
            Outcome::Succeeded | Outcome::Cancelled => Next::End,
        }
    }
}

/// The tasks of a batch and how each stands.
#[derive(Debug)]
pub struct BatchEnds {
    ids: Vec<TaskId>,
    places: HashMap<TaskId, u32>,
    slots: Vec<Slot>,
    first_day: String,
    files: Vec<PathBuf>,
    /// How far each file was read, and its number.
    read: BTreeMap<PathBuf, (u32, u64)>,
    open: usize,
    /// Lines that cannot be understood: by the number of the task that each is about.
    damaged: HashMap<usize, Damaged>,
    /// One of which nobody can tell which task it is about.
    of_any: Option<Damaged>,
    passed_over: PassedOver,
}

/// So often an unknown task is looked for.
const LOOKS: u32 = 3;

impl BatchEnds {
    /// How these tasks stand now.
    pub fn of(layout: &Layout, ids: Vec<TaskId>) -> Result<Self, Error> {
        let mut places = HashMap::with_capacity(ids.len());
        for (number, id) in (0..).zip(&ids) {
            places.insert(*id, number);
        }
        let first_day = ids
            .iter()
            .min()
            .map_or_else(String::new, |id| crate::dir::ledger::search::first_day(*id));
        let slots = vec![Slot::Unknown; ids.len()];
        let open = ids.len();
        let (files, read) = (Vec::new(), BTreeMap::new());
        let (damaged, of_any, passed_over) = (HashMap::new(), None, PassedOver::default());
        let mut answers =
            Self { ids, places, slots, first_day, files, read, open, damaged, of_any, passed_over };
        for look in 0..LOOKS {
            answers.look_for_open(layout)?;
            answers.poll(layout)?;
            if !answers.slots.contains(&Slot::Unknown) {
                break;
            }
            if look == 0 {
                roll_forward::forward_all(layout)?;
            }
        }
        Ok(answers)
    }

    /// The tasks, in the batch's order.
    #[must_use]
    pub fn ids(&self) -> &[TaskId] {
        &self.ids
    }

    /// How task number `index` stands.
    #[must_use]
    pub fn slot(&self, index: usize) -> Slot {
        self.slots[index]
    }

    /// How many have not ended, as far as is known.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// An error where what became of a task is unknown, because something could not be read: a line
    /// of history that may be about it, or a place where it may be. Then it is not known either that
    /// there is nothing.
    pub fn all_was_read(&self) -> Result<(), Error> {
        let mut damaged = None;
        if self.slots.contains(&Slot::Unknown) {
            self.passed_over.none_was()?;
            damaged = self.of_any.as_ref();
        }
        let leaves_open = |(index, damaged): &(&usize, &Damaged)| match self.slots[**index] {
            Slot::Unknown => true,
            Slot::Open { .. } => false,
            Slot::Ended(end) => damaged.may_follow(end.attempt, end.next()),
        };
        let known = || self.damaged.iter().filter(leaves_open).min_by_key(|(index, _line)| **index);
        let damaged = damaged.or_else(|| known().map(|(_index, damaged)| damaged));
        let what = "what became of a task of the batch";
        damaged.map_or(Ok(()), |damaged| Err(damaged.error(what)))
    }

    fn look_for_open(&mut self, layout: &Layout) -> Result<(), Error> {
        let mut passed_over = PassedOver::default();
        for place in places::all(layout, &mut passed_over)? {
            if matches!(place, Place::Shelf { shelf: Shelf::Failed, .. }) {
                continue;
            }
            let state = match &place {
                Place::Ending { .. } => "processing",
                Place::Pending { .. }
                | Place::Processing { .. }
                | Place::Delayed { .. }
                | Place::Shelf { .. } => place.state(),
            };
            let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
            for name in names.unwrap_or_default().tasks {
                let Some(index) = self.places.get(&name.id) else { continue };
                let slot = &mut self.slots[*index as usize];
                if *slot == Slot::Unknown {
                    *slot = Slot::Open { state, attempt: name.attempt };
                }
            }
        }
        self.passed_over = passed_over;
        Ok(())
    }

    /// Reads what history has got since the last call. Returns the numbers of those that ended.
    pub fn poll(&mut self, layout: &Layout) -> Result<Vec<usize>, Error> {
        let mut ended = Vec::new();
        for path in crate::dir::ledger::search::files_since(layout, &self.first_day)? {
            let (number, from) = match self.read.get(&path) {
                Some(known) => *known,
                None => {
                    self.files.push(path.clone());
                    (u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX), 0)
                }
            };
            let until = self.read_file(&path, number, from, &mut ended)?;
            self.read.insert(path, (number, until));
        }
        Ok(ended)
    }

    fn read_file(
        &mut self,
        path: &Path,
        number: u32,
        from: u64,
        ended: &mut Vec<usize>,
    ) -> Result<u64, Error> {
        each_line(path, from, |offset, line| match Head::read(line) {
            Ok(head) => {
                let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
                ended.extend(self.take(head, LinePlace { file: number, offset, length }));
            }
            Err(Unread::Torn) => {}
            Err(Unread::Damaged(_)) => {
                let damaged = read_line::<Brief>(path, offset, line).err();
                damaged.into_iter().for_each(|damaged| self.take_damaged(damaged, line));
            }
        })
    }

    fn take_damaged(&mut self, damaged: Damaged, line: &[u8]) {
        if let Some(id) = damaged.task {
            let index = self.places.get(&id).map(|index| *index as usize);
            self.damaged.extend(index.map(|index| (index, damaged)));
            return;
        }
        let is_in = |id: &TaskId| memmem::find(line, id.to_string().as_bytes()).is_some();
        let named = self.ids.iter().enumerate().filter(|(_index, id)| is_in(id));
        self.damaged.extend(named.map(|(index, _id)| (index, damaged.clone())));
        self.of_any.get_or_insert(damaged);
    }

    /// Takes note of a line; the number of its task, if that has ended with it.
    fn take(&mut self, head: Head, place: LinePlace) -> Option<usize> {
        let index = *self.places.get(&head.id)? as usize;
        let newer = match self.slots[index] {
            Slot::Unknown => true,
            // It was put back since, or is being put where the line says.
            Slot::Open { attempt, .. } => attempt <= head.attempt,
            Slot::Ended(end) => end.attempt < head.attempt,
        };
        if !head.ends || !newer {
            return None;
        }
        let first = !matches!(self.slots[index], Slot::Ended(_));
        let (outcome, attempt, at) = (head.outcome, head.attempt, head.at);
        let LinePlace { file, offset, length } = place;
        self.slots[index] = Slot::Ended(End { outcome, attempt, at, file, offset, length });
        self.open -= usize::from(first);
        first.then_some(index)
    }
}

/// Where a line stands: in which file, from which byte on, how many bytes.
struct LinePlace {
    file: u32,
    offset: u64,
    length: u32,
}

/// Reads lines where [`BatchEnds`] says that they are; keeps the files open.
#[derive(Debug, Default)]
pub struct Reader {
    files: HashMap<u32, File>,
    buffer: Vec<u8>,
}

impl Reader {
    /// The whole line about the end of a task.
    pub fn line(&mut self, answers: &BatchEnds, end: &End) -> Result<Line, Error> {
        let path = &answers.files[end.file as usize];
        let file = match self.files.entry(end.file) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(File::open(path).at("open", path)?)
            }
        };
        self.buffer.resize(end.length as usize, 0);
        file.read_exact_at(&mut self.buffer, end.offset).at("read", path)?;
        let line = read_line(path, end.offset, &self.buffer);
        let line = line.map_err(|damaged| damaged.error("what the task came to"))?;
        let changed = "a line of it has changed since it was looked for".to_owned();
        line.ok_or_else(|| Error::Garbled { path: path.clone(), problem: changed })
    }
}

/// The beginning of a line: what must be known of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    id: TaskId,
    attempt: u32,
    outcome: Outcome,
    /// Whether the task has ended with this attempt.
    ends: bool,
    at: Moment,
}

/// What is looked for stands within so many bytes.
const WINDOW: usize = 700;

impl Head {
    fn read(line: &[u8]) -> Result<Self, Unread> {
        let whole = line.ends_with(b"}\n");
        whole.then(|| Self::quick(line)).flatten().map_or_else(|| Self::slow(line), Ok)
    }

    fn quick(line: &[u8]) -> Option<Self> {
        let rest = line.strip_prefix(HEAD)?;
        let window = std::str::from_utf8(rest.get(..36)?).ok()?;
        let id = window.parse().ok()?;
        let rest = &rest[36..rest.len().min(WINDOW)];
        let (attempt, rest) = field(rest, br#""attempt":"#, b',')?;
        let (outcome, rest) = field(rest, br#""outcome":""#, b'"')?;
        let (next, rest) = field(rest, br#""next":""#, b'"')?;
        let (at, _rest) = field(rest, br#""ended_at":""#, b'"')?;
        Some(Self {
            id,
            attempt: attempt.parse().ok()?,
            outcome: outcome.parse().ok()?,
            ends: next.parse::<Next>().ok()?.ends_task(),
            at: at.parse().ok()?,
        })
    }

    fn slow(line: &[u8]) -> Result<Self, Unread> {
        let brief: Brief = ledger_line::read(line)?;
        let ends = brief.end_of_task().is_some();
        let Brief { id, attempt, outcome, ended_at, .. } = brief;
        Ok(Self { id, attempt, outcome, ends, at: ended_at })
    }
}

/// The text between `name` and `end`, and what comes after it.
fn field<'a>(text: &'a [u8], name: &[u8], end: u8) -> Option<(&'a str, &'a [u8])> {
    let rest = &text[memmem::find(text, name)? + name.len()..];
    let length = memchr::memchr(end, rest)?;
    Some((std::str::from_utf8(&rest[..length]).ok()?, &rest[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::ledger::append::Ledger;
    use crate::dir::submit::one::Submitter;
    use crate::dir::{Pool, Privacy, Rules};
    use crate::wire::ledger_line::Writer;
    use crate::wire::retry::{Policy, Verdict, next};
    use shared::outcome::Cause;
    use shared::task::{Task, TaskName, parse_spec};

    fn task() -> Task {
        Task {
            id: TaskId::new(),
            batch_id: None,
            submitted_at: Moment::now(),
            submitted_by: "ann@host".into(),
            correlation_id: "c".into(),
            spec: parse_spec(br#"{"shell": "echo '\"next\":\"end\"'"}"#).unwrap(),
        }
    }

    fn line(task: &Task, name: TaskName, verdict: Verdict) -> Line {
        let follows = next(name, verdict, &Policy::default(), Moment::now(), 0.0);
        Line::new(task.clone(), name, verdict, follows)
    }

    fn pool() -> (tempfile::TempDir, Pool) {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::create(&dir.path().join("p"), Rules::default(), Privacy::Owner).unwrap();
        (dir, pool)
    }

    #[test]
    fn the_quick_look_sees_what_the_slow_one_sees() {
        let task = task();
        let name = TaskName::first(task.id);
        for verdict in [
            Verdict::Succeeded,
            Verdict::Failed(Cause::ExitCode),
            Verdict::Refused(Cause::ModelMissing),
            Verdict::Returned,
            Verdict::Cancelled(Cause::Cancelled),
        ] {
            let mut line = line(&task, name, verdict);
            line.worker = Some("worker-1".parse().unwrap());
            line.started_at = Some(Moment::now());
            let bytes = line.to_bytes();
            assert!(Head::quick(&bytes).is_some());
            assert_eq!(Head::quick(&bytes), Head::slow(&bytes).ok());
        }
    }

    #[test]
    fn ends_are_found_in_history_and_the_rest_in_its_place() {
        let (_dir, pool) = pool();
        let layout = pool.layout();
        let ledger = Ledger::new(layout.clone(), Writer::new("worker-1".parse().unwrap()));
        let tasks = [task(), task(), task()];
        let mut submitter = Submitter::new(&pool).unwrap();
        submitter.submit(&tasks[2]).unwrap();
        for (task, verdict) in
            tasks.iter().zip([Verdict::Succeeded, Verdict::Refused(Cause::ModelMissing)])
        {
            ledger.append(&line(task, TaskName::first(task.id), verdict)).unwrap();
        }
        let ids: Vec<_> = tasks.iter().map(|task| task.id).chain([TaskId::new()]).collect();
        let mut answers = BatchEnds::of(layout, ids).unwrap();
        let outcome = |answers: &BatchEnds, index| match answers.slot(index) {
            Slot::Ended(end) => Some(end.outcome),
            Slot::Unknown | Slot::Open { .. } => None,
        };
        assert_eq!(outcome(&answers, 0), Some(Outcome::Succeeded));
        assert_eq!(outcome(&answers, 1), Some(Outcome::Failed));
        assert_eq!(answers.slot(2), Slot::Open { state: "pending", attempt: 1 });
        assert_eq!((answers.slot(3), answers.open()), (Slot::Unknown, 2));
        let Slot::Ended(end) = answers.slot(0) else { panic!("it has ended") };
        let read = Reader::default().line(&answers, &end).unwrap();
        assert_eq!(read.id, tasks[0].id);

        let first = TaskName::first(tasks[2].id);
        ledger.append(&line(&tasks[2], first, Verdict::Failed(Cause::Timeout))).unwrap();
        assert_eq!(answers.poll(layout).unwrap(), [] as [usize; 0], "it comes again");
        ledger.append(&line(&tasks[2], first.again(), Verdict::Succeeded)).unwrap();
        assert_eq!(answers.poll(layout).unwrap(), [2]);
        assert_eq!(answers.open(), 1);
    }

    #[test]
    fn what_failed_and_was_retried_since_is_open() {
        let (_dir, pool) = pool();
        let task = task();
        let name = TaskName::first(task.id);
        let ledger = Ledger::new(pool.layout().clone(), Writer::new("w".parse().unwrap()));
        ledger.append(&line(&task, name, Verdict::Refused(Cause::Oom))).unwrap();
        Submitter::new(&pool).unwrap().submit(&task).unwrap();
        let found = places::find(pool.layout(), task.id).unwrap().unwrap();
        let next = found.place.dir(pool.layout()).join(name.retried().file_name());
        let moved = crate::dir::disk::publish::move_new(&found.path(pool.layout()), &next).unwrap();
        assert_eq!(moved, crate::dir::disk::publish::Moved::Yes);
        let answers = BatchEnds::of(pool.layout(), vec![task.id]).unwrap();
        assert_eq!(answers.slot(0), Slot::Open { state: "pending", attempt: 2 });
    }

    #[test]
    fn an_end_after_which_a_line_cannot_be_understood_is_not_known_to_be_the_last() {
        let (_dir, pool) = pool();
        let layout = pool.layout();
        let ledger = Ledger::new(layout.clone(), Writer::new("worker-1".parse().unwrap()));
        let (task, first) = (task(), TaskName::first);
        let name = first(task.id);
        ledger.append(&line(&task, name, Verdict::Refused(Cause::Oom))).unwrap();
        let known = || BatchEnds::of(layout, vec![task.id]).unwrap().all_was_read();
        known().unwrap();
        ledger.append(&line(&task, name.retried(), Verdict::Succeeded)).unwrap();
        let file = crate::dir::ledger::search::files_since(layout, "").unwrap().pop().unwrap();
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, good.replace("\"succeeded\"", "\"succXXded\"")).unwrap();
        let told = known().unwrap_err().to_string();
        assert!(told.contains("cannot be understood") || told.contains("unknown"), "{told}");
        let history = crate::dir::ledger::search::history_of(layout, task.id).unwrap();
        history.last().unwrap_err();
        std::fs::write(&file, good).unwrap();
        known().unwrap();
    }
}
