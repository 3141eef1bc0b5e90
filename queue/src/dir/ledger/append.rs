//! Appending to the ledger: one file per process and day, with flushes shared between threads.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::time::Moment;

use super::search::flush_by_name;
use crate::Error;
use crate::dir::disk::publish::{flush_up_to, make_dirs};
use crate::dir::disk::reserve;
use crate::dir::fault::{self, Did};
use crate::dir::layout::Layout;
use crate::error::At as _;
use crate::wire::ledger_line::{Line, Writer};

/// This process's ledger. Threads that append at the same time share one flush.
#[derive(Debug)]
pub struct Ledger {
    layout: Layout,
    writer: Writer,
    files: Mutex<Files>,
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Files {
    open: Option<Open>,
    /// Counts files that were given up; goes on when the next file could not be opened at once.
    part: u32,
    /// Given up after a failed flush: nothing in them is certain, and asking again does not tell.
    given_up: HashSet<PathBuf>,
}

#[derive(Debug)]
struct Open {
    day: String,
    path: PathBuf,
    file: std::sync::Arc<File>,
    tail: Tail,
    /// Lines written, and lines known to be on the disk.
    written: u64,
    flushed: u64,
}

/// A line that was written, and perhaps not flushed yet.
#[derive(Debug)]
pub(in crate::dir) struct Ticket {
    /// The file it is in.
    path: PathBuf,
    /// How many lines this process had written there, this one included.
    line: u64,
}

/// How the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// With a whole line, or it is empty.
    Whole,
    /// Perhaps in the middle of a line: what follows must not be glued to it.
    Torn,
}

impl Files {
    /// Has the next line begin another file. `false` where this one was just begun, too: the next
    /// would have no more room.
    fn begin_next(&mut self) -> bool {
        let is_used = self.open.as_ref().is_some_and(|open| open.written > 0);
        if is_used {
            self.open = None;
            self.part += 1;
        }
        is_used
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another thread leaves counters that are at worst too low: flush once more.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// The ledger of this process; files are made when the first line comes.
    #[must_use]
    pub fn new(layout: Layout, writer: Writer) -> Self {
        Self { layout, writer, files: Mutex::default(), flushing: Mutex::new(()) }
    }

    /// The process that writes it, and which life of it: what its files are named by.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Appends a line. When this returns it survives a power cut.
    pub fn append(&self, line: &Line) -> Result<(), Error> {
        match self.try_append(line) {
            Err(err) if err.is_disk_full() && reserve::give_up(&self.layout) => {
                self.try_append(line)
            }
            result => result,
        }
    }

    fn try_append(&self, line: &Line) -> Result<(), Error> {
        let ticket = self.write(line)?;
        self.flush(ticket)
    }

    /// Writes the line and says which one it is in which file.
    pub(in crate::dir) fn write(&self, line: &Line) -> Result<Ticket, Error> {
        let mut files = lock(&self.files);
        match self.write_into(&mut files, line) {
            // There is room on the disk, but not in this file.
            Err(err) if err.is_file_too_large() && files.begin_next() => {
                self.write_into(&mut files, line)
            }
            written => written,
        }
    }

    fn write_into(&self, files: &mut Files, line: &Line) -> Result<Ticket, Error> {
        let day = Moment::now().day();
        if files.open.as_ref().is_none_or(|open| open.day != day) {
            files.open = Some(self.open_file(day, files.part)?);
        }
        let open = files.open.as_mut().expect("it was opened just above");
        let mut bytes = line.to_bytes();
        if open.tail == Tail::Torn {
            bytes.insert(0, b'\n');
        }
        open.tail = Tail::Torn;
        fault::step("append ledger line").at("append to", &open.path)?;
        write_all(&open.file, &bytes).at("append to", &open.path)?;
        fault::did(Did::Appended(&open.path, &bytes));
        open.tail = Tail::Whole;
        open.written += 1;
        Ok(Ticket { path: open.path.clone(), line: open.written })
    }

    /// Makes sure that a line is on the disk: by waiting for the thread that
    /// flushes now, or by flushing for all that have written by now.
    pub(in crate::dir) fn flush(&self, ticket: Ticket) -> Result<(), Error> {
        let Ticket { path, line } = ticket;
        let _turn = lock(&self.flushing);
        let (file, written) = match &*lock(&self.files) {
            files if files.given_up.contains(&path) => return Err(given_up(&path)),
            Files { open: Some(open), .. } if open.path == path && open.flushed >= line => {
                return Ok(());
            }
            Files { open: Some(open), .. } if open.path == path => {
                (open.file.clone(), open.written)
            }
            // The day changed: flush the old file by its name.
            Files { .. } => return flush_by_name(&path),
        };
        let result = fault::step("flush ledger").and_then(|()| file.sync_data());
        let mut files = lock(&self.files);
        match &result {
            Ok(()) => {
                fault::did(Did::FlushedFile(&path));
                if let Some(open) = files.open.as_mut().filter(|open| open.path == path) {
                    open.flushed = open.flushed.max(written);
                }
            }
            // A second flush of the same file may report success for pages that were lost: who
            // waits for this one has failed too, and what comes goes into a new file.
            Err(_) => {
                files.given_up.insert(path.clone());
                files.open = None;
                files.part += 1;
            }
        }
        result.at("flush", &path)
    }

    fn open_file(&self, day: String, part: u32) -> Result<Open, Error> {
        let path = self.layout.ledger_file(&day, &self.writer.name, &self.writer.life, part);
        make_dirs(path.parent().unwrap_or(&path))?;
        fault::step("open ledger").at("open", &path)?;
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o660).open(&path).at("open", &path)?;
        fault::did(Did::Made(&path));
        let length = file.metadata().at("look at", &path)?.len();
        flush_up_to(self.layout.root(), &path)?;
        let tail = if length > 0 { Tail::Torn } else { Tail::Whole };
        Ok(Open { day, path, file: file.into(), tail, written: 0, flushed: 0 })
    }
}

/// All of it, or an error with half of it written.
fn write_all(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    if let Err(err) = fault::step("write ledger line") {
        // In a test: the disk was full in the middle of the line.
        let _ = file.write_all(&bytes[..bytes.len() / 2]);
        return Err(err);
    }
    file.write_all(bytes)
}

fn given_up(path: &Path) -> Error {
    let err = io::Error::other("its last flush failed, so the line may be lost");
    Error::Io { what: "flush", path: path.to_owned(), err }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::disk::listing;
    use crate::dir::fixture::{ledger, pool_at, scratch};
    use crate::dir::ledger::search::lines_of;
    use crate::store::contract::{line, task};
    use crate::wire::retry::Verdict;
    use rustix::io::Errno;
    use shared::task::TaskName;

    #[test]
    fn a_file_that_may_not_grow_is_followed_by_another_one() {
        let home = scratch();
        let pool = pool_at(&home.path().join("pool"));
        let ledger = ledger(&pool, "worker-1");
        let end = || {
            let task = task(r#"{"shell": "true"}"#);
            line(&task, TaskName::first(task.id), Verdict::Succeeded)
        };
        let files = || {
            let days = listing::entries(&pool.layout().ledger()).unwrap();
            listing::entries(&pool.layout().ledger().join(&days[0])).unwrap().len()
        };
        // Where not even one line has room, no file after the other is made.
        for _try in 0..3 {
            fault::fail_where("write ledger line", Errno::FBIG);
            assert!(ledger.append(&end()).unwrap_err().is_file_too_large());
            assert_eq!(files(), 1);
        }
        let (first, second) = (end(), end());
        ledger.append(&first).unwrap();
        fault::fail_where("write ledger line", Errno::FBIG);
        let ticket = ledger.write(&second).unwrap();
        ledger.flush(ticket).unwrap();
        assert_eq!(files(), 2);
        for line in [first, second] {
            assert_eq!(lines_of(pool.layout(), line.id).unwrap(), [line]);
        }
    }
}
