//! The ends of attempts whose task is still where it ran: between a line and what it says lies a
//! flush, and a moment in which `queue wait` has returned already. Whoever shows such a task must
//! not say that it runs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use shared::id::TaskId;
use shared::name::Name;
use shared::task::TaskName;

use crate::Error;
use crate::dir::disk::listing;
use crate::dir::layout::Layout;
use crate::dir::ledger::lines::{open, read_line};
use crate::dir::presence::lease;
use crate::error::At as _;
use crate::wire::ledger_line::{Line, Writer, id_in};

/// A writer has no more lines than this that are not carried out yet.
const LINES: usize = 128;
/// So much is looked at first, and at most: an answer may be long.
const WINDOW: u64 = 1 << 16;
const MOST: u64 = 1 << 24;

/// The lines about these attempts, which are in a worker's hands, among the last ones of whoever
/// may have ended them. A line that cannot be read is none: then the task is shown where it is.
pub fn ends_of(
    layout: &Layout,
    worker: &Name,
    held: &[TaskName],
) -> Result<HashMap<TaskId, Line>, Error> {
    let mut ends = HashMap::new();
    if held.is_empty() {
        return Ok(ends);
    }
    let writers = lease::read(layout, worker)?.map(|record| record.writers).unwrap_or_default();
    let attempts: HashMap<TaskId, u32> = held.iter().map(|name| (name.id, name.attempt)).collect();
    for path in newest_files(layout, &writers)? {
        for Stored { offset, bytes } in last_lines(&path)? {
            let Some(attempt) = id_in(&bytes).and_then(|id| attempts.get(&id)) else { continue };
            let line = read_line::<Line>(&path, offset, &bytes).ok().flatten();
            ends.extend(line.filter(|line| line.attempt == *attempt).map(|line| (line.id, line)));
        }
    }
    Ok(ends)
}

/// The files of these writers of their last two days: midnight may have passed.
fn newest_files(layout: &Layout, writers: &[Writer]) -> Result<Vec<PathBuf>, Error> {
    let root = layout.ledger();
    let mut days = listing::entries(&root)?;
    days.sort();
    let (mut files, mut found) = (Vec::new(), 0);
    for day in days.into_iter().rev() {
        let dir = root.join(day);
        let own = listing::entries(&dir)?.into_iter().filter(|name| {
            name.to_str().is_some_and(|name| writers.iter().any(|writer| writer.wrote(name)))
        });
        let before = files.len();
        files.extend(own.map(|name| dir.join(name)));
        found += usize::from(files.len() > before);
        if found == 2 {
            break;
        }
    }
    Ok(files)
}

/// A line as it stands in its file, and where it begins.
struct Stored {
    offset: u64,
    bytes: Vec<u8>,
}

/// The last whole lines of a file.
fn last_lines(path: &Path) -> Result<Vec<Stored>, Error> {
    let Some(file) = open(path)? else { return Ok(Vec::new()) };
    tail(file).at("read", path)
}

fn tail(mut file: File) -> io::Result<Vec<Stored>> {
    let length = file.metadata()?.len();
    let mut window = WINDOW;
    loop {
        let from = length.saturating_sub(window);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&file).take(length - from).read_to_end(&mut bytes)?;
        let count = memchr::memchr_iter(b'\n', &bytes).count();
        if from == 0 || count > LINES || window >= MOST {
            return Ok(whole_lines(from, &bytes));
        }
        window *= 4;
    }
}

/// The first one may have begun before, unless the file begins there.
fn whole_lines(from: u64, bytes: &[u8]) -> Vec<Stored> {
    let mut lines = Vec::new();
    let mut offset = from;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_whole = line.ends_with(b"\n") && (offset > from || from == 0);
        if is_whole {
            lines.push(Stored { offset, bytes: line.to_vec() });
        }
        offset += line.len() as u64;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::claim::one;
    use crate::dir::fixture::{claim, cursor, ledger, name, pool_at, record, scratch, submit};
    use crate::dir::lookup;
    use crate::dir::presence::lease::Lease;
    use crate::store::contract::line;
    use crate::wire::retry::Verdict;

    /// The moment between a line and what it says, in which `queue wait` returns.
    #[test]
    fn what_has_its_line_has_ended_wherever_it_still_lies() {
        let root = scratch();
        let pool = pool_at(&root.path().join("p"));
        let (worker, own) = (name("worker-1"), ledger(&pool, "worker-1"));
        let lease = Lease::try_take(&pool, &worker).unwrap().unwrap();
        lease.write(&record(&lease, &own)).unwrap();
        let id = submit(&pool, r#"{"command": ["true"]}"#);
        let claim = claim(&mut cursor(&pool, "worker-1")).unwrap();
        let state = || lookup::standing(pool.layout(), id).unwrap().unwrap().state();
        assert_eq!(state(), "processing");
        let end = line(claim.task(), claim.name(), Verdict::Succeeded);
        let held = [claim.name()];
        let recorded = one::record_all(&own, vec![(claim, end)]).pop().unwrap().unwrap();
        assert_eq!(ends_of(pool.layout(), &worker, &held).unwrap().len(), 1);
        assert_eq!(state(), "succeeded");
        recorded.carry_out().unwrap();
        assert_eq!(state(), "succeeded");
    }

    #[test]
    fn only_whole_lines_at_the_end_are_looked_at_however_long_they_are() {
        let root = scratch();
        let path = root.path().join("lines");
        let long = "x".repeat(3 << 20) + "\n";
        let many = "short\n".repeat(2 * LINES);
        for (text, least) in [(format!("first\n{long}last\nbroken"), 3), (many.clone(), LINES)] {
            std::fs::write(&path, &text).unwrap();
            let lines = last_lines(&path).unwrap();
            assert!(lines.len() >= least, "{} of {least}", lines.len());
            for line in lines {
                let at = usize::try_from(line.offset).unwrap();
                assert!(text.as_bytes()[at..].starts_with(&line.bytes));
                assert!(at == 0 || text.as_bytes()[at - 1] == b'\n');
            }
        }
    }
}
