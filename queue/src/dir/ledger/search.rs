//! Finding lines again: all about one task, or the one about an attempt.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use memchr::memmem;
use shared::id::TaskId;
use shared::outcome::{Next, Outcome};
use shared::task::TaskName;
use shared::time::Moment;

use super::lines::{Damaged, each_line, read_line};
use crate::Error;
use crate::dir::disk::listing;
use crate::dir::disk::place::{Found, Place};
use crate::dir::fault::{self, Did};
use crate::dir::layout::Layout;
use crate::error::At as _;
use crate::wire::ledger_line::{Brief, Line, Writer, id_in};

/// Flushes a file that somebody else may have written.
pub(crate) fn flush_by_name(path: &Path) -> Result<(), Error> {
    fault::step("flush ledger").at("flush", path)?;
    File::open(path).and_then(|file| file.sync_data()).at("flush", path)?;
    fault::did(Did::FlushedFile(path));
    Ok(())
}

/// The ledger's files of `first_day` and later, oldest day first.
pub fn files_since(layout: &Layout, first_day: &str) -> Result<Vec<PathBuf>, Error> {
    let root = layout.ledger();
    let mut days = names(&root)?;
    days.retain(|day| day.as_str() >= first_day);
    days.sort();
    let mut files = Vec::new();
    for day in days {
        let dir = root.join(day);
        let mut inside = names(&dir)?;
        inside.retain(|name| name.ends_with(".jsonl"));
        inside.sort();
        files.extend(inside.into_iter().map(|name| dir.join(name)));
    }
    Ok(files)
}

fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let found = listing::entries(dir)?;
    Ok(found.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

/// What the ledger says about one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskHistory {
    /// A line for each attempt that ended, in order.
    pub lines: Vec<Line>,
    /// Lines that are, or may be, about it too.
    pub damaged: Vec<Damaged>,
}

impl TaskHistory {
    /// The last line. An error where another one, that cannot be understood, may come after it.
    pub fn last(mut self) -> Result<Option<Line>, Error> {
        let last = self.lines.pop();
        let is_later = |damaged: &&Damaged| {
            last.as_ref().is_none_or(|line| damaged.may_follow(line.attempt, line.next))
        };
        match self.damaged.iter().find(is_later) {
            Some(damaged) => Err(damaged.error("how the task ended")),
            None => Ok(last),
        }
    }
}

/// How many attempts a worker ended well in one of its lives, as far as the lines can be read.
pub fn completed_by(layout: &Layout, worker: &Writer) -> Result<u64, Error> {
    let own = format!("{}.{}.", worker.name, worker.life);
    let mut completed = 0;
    for path in files_since(layout, "")? {
        let name = path.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.starts_with(&own)) {
            continue;
        }
        each_line(&path, 0, |offset, line| {
            // One that is damaged is told by whoever follows the ledger.
            let brief = read_line::<Brief>(&path, offset, line).ok().flatten();
            completed += u64::from(brief.is_some_and(|brief| brief.outcome == Outcome::Succeeded));
        })?;
    }
    Ok(completed)
}

/// All that the ledger says about one task.
pub fn history_of(layout: &Layout, id: TaskId) -> Result<TaskHistory, Error> {
    let mut history = TaskHistory::default();
    for path in files_since(layout, &first_day(id))? {
        let mut found = lines_in(&path, id)?;
        history.lines.append(&mut found.lines);
        history.damaged.append(&mut found.damaged);
    }
    history.lines.sort_by_key(|line| line.attempt);
    history.lines.dedup_by_key(|line| line.attempt);
    Ok(history)
}

/// The lines about one task that can be read, in the order of their attempts. For those who do not
/// act upon there being none.
pub fn lines_of(layout: &Layout, id: TaskId) -> Result<Vec<Line>, Error> {
    Ok(history_of(layout, id)?.lines)
}

/// The day before which nothing can be written about a task. A day early: the ledger's days follow
/// the writers' clocks, the id the submitter's.
pub(crate) fn first_day(id: TaskId) -> String {
    let made = Moment::from_unix_millis(i64::try_from(id.unix_millis()).unwrap_or(0));
    made.plus_millis(-24 * 3_600_000).day()
}

/// The recorded end of a task whose file is still where the attempt ran: between the line and what
/// it says lies a flush, and may lie a crash. Whoever follows the ledger only from after the line
/// on would never hear of it.
pub fn recorded_end(layout: &Layout, found: &Found) -> Result<Option<Line>, Error> {
    let last = match found.place {
        Place::Processing { .. } | Place::Ending { .. } => lines_of(layout, found.name.id)?.pop(),
        Place::Pending { .. } | Place::Delayed { .. } | Place::Shelf { .. } => None,
    };
    Ok(last.filter(|line| line.next.ends_task() && line.attempt >= found.name.attempt))
}

/// The line about one attempt, in the files of these writers; in all files where none are known.
///
/// It is on the disk when this returns: whoever asks acts on it, and its writer may have died
/// between writing and flushing.
///
/// # Errors
/// Where there is none, and a line that cannot be understood may be it: the attempt has ended, and
/// nobody knows how, so it must be neither run again nor ended once more.
pub fn line_of(
    layout: &Layout,
    id: TaskId,
    attempt: u32,
    writers: Option<&[Writer]>,
) -> Result<Option<Line>, Error> {
    let mut perhaps = None;
    for path in files_since(layout, &first_day(id))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if writers.is_some_and(|writers| !writers.iter().any(|writer| writer.wrote(&name))) {
            continue;
        }
        let found = lines_in(&path, id)?;
        if let Some(line) = found.lines.into_iter().find(|line| line.attempt == attempt) {
            flush_by_name(&path)?;
            return Ok(Some(line));
        }
        let is_it = |damaged: &Damaged| damaged.attempt.is_none_or(|other| other == attempt);
        perhaps = perhaps.or(found.damaged.into_iter().find(is_it));
    }
    let what = || format!("how attempt {attempt} of task {id} ended");
    perhaps.map_or(Ok(None), |damaged| Err(damaged.error(&what())))
}

/// What history says of attempts that somebody may have ended.
#[derive(Debug, Default)]
pub(crate) struct RecordedEnds {
    /// Of those that have their line, what it says comes next.
    pub(crate) next: HashMap<TaskId, Next>,
    /// Those that have none, where a line that cannot be understood may be it.
    pub(crate) unknown: HashMap<TaskId, Damaged>,
}

/// Which of these attempts have their line, and what that says. Each is on the disk when this returns,
/// as with [`line_of`]; all of them take one reading of history.
pub(crate) fn recorded(layout: &Layout, attempts: &[TaskName]) -> Result<RecordedEnds, Error> {
    let attempts: HashMap<TaskId, u32> = attempts.iter().map(|n| (n.id, n.attempt)).collect();
    let (mut recorded, mut unflushed) = (RecordedEnds::default(), BTreeSet::new());
    let ids = attempts.keys().copied().collect();
    each_about(layout, &ids, |path, id, brief| match brief {
        Ok(brief) if attempts.get(&id) == Some(&brief.attempt) => {
            recorded.next.entry(id).or_insert(brief.next);
            unflushed.insert(path.to_owned());
        }
        Ok(_another_attempt) => {}
        Err(damaged) => {
            let attempt = attempts.get(&id).copied();
            if damaged.attempt.is_none() || damaged.attempt == attempt {
                recorded.unknown.insert(id, damaged);
            }
        }
    })?;
    unflushed.iter().try_for_each(|path| flush_by_name(path))?;
    let RecordedEnds { next, unknown } = &mut recorded;
    unknown.retain(|id, _damaged| !next.contains_key(id));
    Ok(recorded)
}

/// What the ledger says last about some tasks.
#[derive(Debug, Default)]
pub struct LastLines {
    /// The last line about each, by attempt; nothing about those that have none.
    pub last: HashMap<TaskId, Brief>,
    /// Of those whose end is not among these lines, one that cannot be understood and may say it.
    pub damaged: HashMap<TaskId, Damaged>,
}

impl LastLines {
    /// An error where how one of them ended is unknown.
    pub fn all_was_read(&self) -> Result<(), Error> {
        let first = self.damaged.iter().min_by_key(|(id, _damaged)| **id);
        let error = |(id, damaged): (&TaskId, &Damaged)| damaged.error(&format!("how {id} ended"));
        first.map_or(Ok(()), |damaged| Err(error(damaged)))
    }
}

/// The last lines about these tasks, with one reading of history.
pub fn last_of(layout: &Layout, ids: &HashSet<TaskId>) -> Result<LastLines, Error> {
    let mut lines = LastLines::default();
    each_about(layout, ids, |_path, id, brief| match brief {
        Ok(brief) => {
            if lines.last.get(&id).is_none_or(|other| other.attempt <= brief.attempt) {
                lines.last.insert(id, brief);
            }
        }
        Err(damaged) => drop(lines.damaged.insert(id, damaged)),
    })?;
    let LastLines { last, damaged } = &mut lines;
    damaged.retain(|id, damaged| {
        last.get(id).is_none_or(|brief| damaged.may_follow(brief.attempt, brief.next))
    });
    Ok(lines)
}

/// Shows the lines that are, or may be, about these tasks, and the file of each, with one reading of
/// history.
fn each_about(
    layout: &Layout,
    ids: &HashSet<TaskId>,
    mut see: impl FnMut(&Path, TaskId, Result<Brief, Damaged>),
) -> Result<(), Error> {
    let Some(oldest) = ids.iter().min() else { return Ok(()) };
    for path in files_since(layout, &first_day(*oldest))? {
        each_line(&path, 0, |offset, line| {
            if id_in(line).is_some_and(|id| !ids.contains(&id)) {
                return;
            }
            match read_line::<Brief>(&path, offset, line) {
                Ok(Some(brief)) if ids.contains(&brief.id) => see(&path, brief.id, Ok(brief)),
                // One that breaks off is none.
                Ok(_) => {}
                Err(damaged) => {
                    let is_in =
                        |id: &&TaskId| memmem::find(line, id.to_string().as_bytes()).is_some();
                    match damaged.task {
                        Some(id) => see(&path, id, Err(damaged)),
                        None => {
                            for id in ids.iter().filter(is_in) {
                                see(&path, *id, Err(damaged.clone()));
                            }
                        }
                    }
                }
            }
        })?;
    }
    Ok(())
}

/// The lines of one file that are, or may be, about one task, as they stand there.
fn lines_in(path: &Path, id: TaskId) -> Result<TaskHistory, Error> {
    let key = format!("\"id\":\"{id}\"");
    let finder = memmem::Finder::new(&key);
    let mut found = TaskHistory::default();
    each_line(path, 0, |offset, line| {
        // One that only mentions the id inside its task is not about the task.
        if finder.find(line).is_none() || id_in(line).is_some_and(|other| other != id) {
            return;
        }
        match read_line::<Line>(path, offset, line) {
            Ok(line) => found.lines.extend(line.filter(|line| line.id == id)),
            Err(damaged) => found.damaged.push(damaged),
        }
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::Pool;
    use crate::dir::fixture::{ledger, pool_at, scratch};
    use crate::dir::ledger::follow::Follower;
    use crate::store::contract::{line, task};
    use crate::wire::retry::Verdict;
    use shared::outcome::Outcome;
    use shared::task::TaskName;

    fn the_file(pool: &Pool) -> PathBuf {
        files_since(pool.layout(), "").unwrap().pop().unwrap()
    }

    /// A pool in whose ledger is one line, changed in this way, about the task that is returned.
    fn recorded(change: impl Fn(Vec<u8>) -> Vec<u8>) -> (tempfile::TempDir, Pool, TaskId) {
        let home = scratch();
        let pool = pool_at(&home.path().join("pool"));
        let task = task(r#"{"shell": "true"}"#);
        let line = line(&task, TaskName::first(task.id), Verdict::Succeeded);
        ledger(&pool, "worker-1").append(&line).unwrap();
        let path = the_file(&pool);
        std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
        (home, pool, task.id)
    }

    /// Wherever a writer stopped, it wrote the line again, or the attempt has not ended.
    #[test]
    fn a_line_that_breaks_off_says_nothing_wherever_it_does() {
        let whole = std::fs::read(the_file(&recorded(|line| line).1)).unwrap();
        for length in 0..whole.len() - 2 {
            let torn = |line: Vec<u8>| [&line[..length], b"\n"].concat();
            let (_home, pool, id) = recorded(torn);
            let history = history_of(pool.layout(), id).unwrap();
            assert_eq!(history, TaskHistory::default(), "{length}");
            assert_eq!(line_of(pool.layout(), id, 1, None).unwrap(), None);
        }
    }

    #[test]
    fn what_a_damaged_line_says_is_unknown_and_not_nothing() {
        let spoil = |line: Vec<u8>| {
            let text = String::from_utf8(line).unwrap();
            text.replace("\"succeeded\"", "\"succXXded\"").into_bytes()
        };
        let (_home, pool, id) = recorded(spoil);
        let layout = pool.layout();
        let unknown = line_of(layout, id, 1, None).unwrap_err().to_string();
        assert!(unknown.contains("the line at byte 0 (unknown variant `succXXded`"), "{unknown}");
        assert!(unknown.contains("how attempt 1 of task"), "{unknown}");
        assert_eq!(line_of(layout, id, 2, None).unwrap(), None, "that one is another attempt's");
        assert_eq!(line_of(layout, TaskId::new(), 1, None).unwrap(), None);
        let history = history_of(layout, id).unwrap();
        let damaged = &history.damaged[0];
        assert_eq!((damaged.task, damaged.attempt, history.lines.len()), (Some(id), Some(1), 0));
        assert!(history.last().is_err());
        crate::dir::lookup::standing(layout, id).unwrap_err();
        let mut follower = Follower::from_start();
        assert_eq!(follower.poll(layout).unwrap(), []);
        assert_eq!((follower.torn, follower.take_damaged().len()), (0, 1));
    }

    /// What became of an attempt before is not needed to know how the task ended.
    #[test]
    fn a_damaged_line_hides_no_end_that_can_be_read() {
        let (_home, pool, id) = recorded(|mut line| {
            let at = memmem::find(&line, b"\"task\":").unwrap();
            line[at] = b'!';
            line
        });
        let again = TaskName::first(id).again();
        let mut task = task(r#"{"shell": "true"}"#);
        task.id = id;
        ledger(&pool, "worker-2").append(&line(&task, again, Verdict::Succeeded)).unwrap();
        let last = history_of(pool.layout(), id).unwrap().last().unwrap().unwrap();
        assert_eq!((last.attempt, last.outcome), (2, Outcome::Succeeded));
    }

    /// Versions before this one took tasks that they could not read again from here.
    #[test]
    fn a_line_that_is_deeper_than_readers_go_is_read_all_the_same() {
        let deep = |line: Vec<u8>| {
            let text = String::from_utf8(line).unwrap();
            let format = "{\"a\":".repeat(126) + "1" + &"}".repeat(126);
            text.replace("\"shell\":", &format!("\"format\":{format},\"shell\":")).into_bytes()
        };
        let (_home, pool, id) = recorded(deep);
        let line = line_of(pool.layout(), id, 1, None).unwrap().unwrap();
        assert_eq!(line.outcome, Outcome::Succeeded);
        assert_eq!(shared::task::depth_of(line.task.spec.format.as_ref().unwrap()), 126);
    }
}
