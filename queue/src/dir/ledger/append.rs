//! The ledger's files: appending with flushes shared between threads, searching, following.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use shared::id::TaskId;
use shared::outcome::Next;
use shared::time::Moment;

use super::lines::{each_line, each_line_from};
use crate::Error;
use crate::dir::disk::publish::{flush_up_to, make_dirs};
use crate::dir::disk::{listing, plain_file, reserve};
use crate::dir::fault::{self, Did};
use crate::dir::find::places::{Found, Place};
use crate::dir::layout::Layout;
use crate::error::At as _;
use crate::wire::ledger_line::{Brief, Line, Writer};

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

/// A line that was written: the file it is in, and which one it is there.
pub(in crate::dir) type Ticket = (PathBuf, u64);

/// How the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// With a whole line, or it is empty.
    Whole,
    /// Perhaps in the middle of a line: what follows must not be glued to it.
    Torn,
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

    /// Who writes it.
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
        Ok((open.path.clone(), open.written))
    }

    /// Makes sure that line number `line` of `path` is on the disk: by waiting for the thread that
    /// flushes now, or by flushing for all that have written by now.
    pub(in crate::dir) fn flush(&self, (path, line): Ticket) -> Result<(), Error> {
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

/// Flushes a file that somebody else may have written.
fn flush_by_name(path: &Path) -> Result<(), Error> {
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

/// Opens a ledger file. `None` where it is gone, or is no file at all: then no line is in it.
pub(crate) fn open(path: &Path) -> Result<Option<File>, Error> {
    match plain_file::open(path) {
        Err(Error::Garbled { .. }) => Ok(None),
        opened => Ok(opened?.map(|(file, _meta)| file)),
    }
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

/// Up to where a file holds whole lines: its writer may be in the middle of one.
fn whole_lines(path: &Path) -> Result<u64, Error> {
    /// More than the longest line: a task of 1 MiB and what is said about it.
    const LONGEST: u64 = 4 << 20;
    let Some(mut file) = open(path)? else { return Ok(0) };
    let length = file.metadata().at("look at", path)?.len();
    let from = length.saturating_sub(LONGEST);
    let mut tail = [0];
    let last =
        file.seek(SeekFrom::Start(length.saturating_sub(1))).and_then(|_at| file.read(&mut tail));
    if last.at("read", path)? == 0 || tail == [b'\n'] {
        return Ok(length);
    }
    let mut text = Vec::new();
    let read =
        file.seek(SeekFrom::Start(from)).and_then(|_at| file.take(LONGEST).read_to_end(&mut text));
    read.at("read", path)?;
    Ok(memchr::memrchr(b'\n', &text).map_or(from, |newline| from + newline as u64 + 1))
}

/// Follows the ledger: every line once, from wherever one starts.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    offsets: BTreeMap<PathBuf, u64>,
    /// The first day that is still looked at: nobody writes into older ones.
    first_day: String,
    /// Lines that could not be read, so far.
    pub torn: u64,
}

/// Clocks of writers may differ by so much before lines of theirs are overlooked.
const WRITERS_CLOCKS_MILLIS: i64 = 2 * 24 * 3_600_000;

impl Follower {
    /// From the beginning of all history.
    #[must_use]
    pub fn from_start() -> Self {
        Self::default()
    }

    /// From here on: only what is written later.
    pub fn from_now(layout: &Layout) -> Result<Self, Error> {
        let mut follower = Self::default();
        for path in files_since(layout, "")? {
            let whole = whole_lines(&path)?;
            follower.offsets.insert(path, whole);
        }
        Ok(follower)
    }

    /// From where another follower had got to: per file, by its path inside the pool, the offset.
    #[must_use]
    pub fn resume(layout: &Layout, offsets: &BTreeMap<String, u64>) -> Self {
        let inside = |(path, offset): (&String, &u64)| (layout.root().join(path), *offset);
        Self { offsets: offsets.iter().map(inside).collect(), ..Self::default() }
    }

    /// How far this one has got, as [`Follower::resume`] takes it.
    #[must_use]
    pub fn offsets(&self, layout: &Layout) -> BTreeMap<String, u64> {
        let inside = |path: &Path| path.strip_prefix(layout.root()).map(Path::to_path_buf);
        let named = self.offsets.iter().filter_map(|(path, offset)| {
            let path = inside(path).ok()?.into_os_string().into_string().ok()?;
            Some((path, *offset))
        });
        named.collect()
    }

    /// The lines that came since the last call.
    pub fn poll(&mut self, layout: &Layout) -> Result<Vec<Brief>, Error> {
        let mut lines = Vec::new();
        self.follow(layout, |brief| lines.push(brief))?;
        Ok(lines)
    }

    /// Shows the lines that came since the last call, one by one: a long history fits nowhere. Each
    /// is shown once, also where a file cannot be read to its end: the next call goes on after the
    /// last one that was shown.
    pub fn follow(&mut self, layout: &Layout, mut see: impl FnMut(Brief)) -> Result<(), Error> {
        let files = files_since(layout, &self.first_day)?;
        if self.first_day.is_empty() {
            // All days were listed: what is not among them was cleaned up.
            self.offsets.retain(|path, _offset| files.contains(path));
        }
        for path in files {
            let mut offset = self.offsets.get(&path).copied().unwrap_or(0);
            let read =
                each_line_from(&path, &mut offset, |_at, line| {
                    match serde_json::from_slice(line) {
                        Ok(brief) => see(brief),
                        Err(_empty) if line == b"\n" => {}
                        Err(_torn) => self.torn += 1,
                    }
                });
            self.offsets.insert(path, offset);
            read?;
        }
        self.first_day = Moment::now().plus_millis(-WRITERS_CLOCKS_MILLIS).day();
        Ok(())
    }
}
