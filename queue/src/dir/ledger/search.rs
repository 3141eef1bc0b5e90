//! Finding lines again: all about one task, or the one about an attempt.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use memchr::memmem;
use shared::id::TaskId;
use shared::outcome::Next;
use shared::task::TaskName;
use shared::time::Moment;

use super::lines::{each_line, task_of};
use crate::Error;
use crate::dir::disk::listing;
use crate::dir::disk::place::{Found, Place};
use crate::dir::fault::{self, Did};
use crate::dir::layout::Layout;
use crate::error::At as _;
use crate::wire::ledger_line::{Brief, Line, Writer};

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

/// All lines about one task, in the order of their attempts.
pub fn lines_of(layout: &Layout, id: TaskId) -> Result<Vec<Line>, Error> {
    let mut found = Vec::new();
    for path in files_since(layout, &first_day(id))? {
        found.extend(lines_in::<Line>(&path, id)?);
    }
    found.sort_by_key(|line| line.attempt);
    found.dedup_by_key(|line| line.attempt);
    Ok(found)
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
    let ends = |line: &Line| match line.next {
        Next::End | Next::Failed => line.attempt >= found.name.attempt,
        Next::Pending | Next::Delayed(_) => false,
    };
    Ok(last.filter(ends))
}

/// The line about one attempt, in the files of these writers; in all files where none are known.
///
/// It is on the disk when this returns: whoever asks acts on it, and its writer may have died
/// between writing and flushing.
pub fn line_of(
    layout: &Layout,
    id: TaskId,
    attempt: u32,
    writers: Option<&[Writer]>,
) -> Result<Option<Line>, Error> {
    for path in files_since(layout, &first_day(id))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if writers.is_some_and(|writers| !writers.iter().any(|writer| writer.wrote(&name))) {
            continue;
        }
        let lines = lines_in::<Line>(&path, id)?;
        if let Some(line) = lines.into_iter().find(|line| line.attempt == attempt) {
            flush_by_name(&path)?;
            return Ok(Some(line));
        }
    }
    Ok(None)
}

/// Which of these attempts have their line, and what that says. Each is on the disk when this returns,
/// as with [`line_of`]; all of them take one reading of history.
pub(crate) fn recorded(
    layout: &Layout,
    attempts: &[TaskName],
) -> Result<HashMap<TaskId, Next>, Error> {
    let attempts: HashMap<TaskId, u32> = attempts.iter().map(|n| (n.id, n.attempt)).collect();
    let (mut found, mut unflushed) = (HashMap::new(), BTreeSet::new());
    let ids = attempts.keys().copied().collect();
    each_about(layout, &ids, |path, brief| {
        if attempts.get(&brief.id) == Some(&brief.attempt) {
            found.entry(brief.id).or_insert(brief.next);
            unflushed.insert(path.to_owned());
        }
    })?;
    unflushed.iter().try_for_each(|path| flush_by_name(path))?;
    Ok(found)
}

/// The last line about each of these tasks, by attempt; nothing about those that have none.
pub fn last_of(layout: &Layout, ids: &HashSet<TaskId>) -> Result<HashMap<TaskId, Brief>, Error> {
    let mut last: HashMap<TaskId, Brief> = HashMap::new();
    each_about(layout, ids, |_path, brief| {
        if last.get(&brief.id).is_none_or(|other| other.attempt <= brief.attempt) {
            last.insert(brief.id, brief);
        }
    })?;
    Ok(last)
}

/// Shows the lines about these tasks, and the file of each, with one reading of history.
fn each_about(
    layout: &Layout,
    ids: &HashSet<TaskId>,
    mut see: impl FnMut(&Path, Brief),
) -> Result<(), Error> {
    let Some(oldest) = ids.iter().min() else { return Ok(()) };
    for path in files_since(layout, &first_day(*oldest))? {
        each_line(&path, 0, |_at, line| {
            if task_of(line).is_some_and(|id| !ids.contains(&id)) {
                return;
            }
            // A torn line is none.
            let brief = serde_json::from_slice::<Brief>(line).ok();
            if let Some(brief) = brief.filter(|brief| ids.contains(&brief.id)) {
                see(&path, brief);
            }
        })?;
    }
    Ok(())
}

/// The lines of one file that are about one task.
fn lines_in<T: serde::de::DeserializeOwned>(path: &Path, id: TaskId) -> Result<Vec<T>, Error> {
    let key = format!("\"id\":\"{id}\"");
    let finder = memmem::Finder::new(&key);
    let mut found = Vec::new();
    each_line(path, 0, |_at, line| {
        if finder.find(line).is_none() {
            return;
        }
        // A torn line, or one that only mentions the id inside its task, is not about the task.
        let brief = serde_json::from_slice::<Brief>(line).ok().filter(|brief| brief.id == id);
        found.extend(brief.and_then(|_ours| serde_json::from_slice(line).ok()));
    })?;
    Ok(found)
}
