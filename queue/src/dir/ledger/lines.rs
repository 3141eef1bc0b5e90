//! Reading a ledger file line by line, however long it is: what is held of it at a time is a
//! quarter of a MiB, or its longest line.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use shared::id::TaskId;
use shared::outcome::Next;

use crate::Error;
use crate::dir::disk::plain_file;
use crate::dir::fault;
use crate::error::At as _;
use crate::wire::ledger_line::{self, Unread};

/// A line that cannot be understood: what it says is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The ledger file that it stands in.
    pub path: PathBuf,
    /// The byte of the file at which it begins.
    pub offset: u64,
    /// What is wrong with it.
    pub problem: String,
    /// The task that it is about, where that can still be read.
    pub task: Option<TaskId>,
    /// The attempt of that task, likewise.
    pub attempt: Option<u32>,
}

impl Damaged {
    /// Whether it may say how a task ended whose last line that can be read is of this attempt, and
    /// says what comes next.
    pub(crate) fn may_follow(&self, attempt: u32, next: Next) -> bool {
        // What has ended for good has no later attempt; nor does an earlier one change anything.
        next != Next::End && self.attempt.is_none_or(|it| it > attempt)
    }

    /// An error for whoever must know what the line says. `what` is unknown without it.
    #[must_use]
    pub fn error(&self, what: &str) -> Error {
        Error::Garbled { path: self.path.clone(), problem: format!("{self}, so {what} is unknown") }
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, problem, .. } = self;
        write!(f, "the line at byte {offset} ({problem}; mend it, or take it out)")
    }
}

/// Reads one line. `None` where it breaks off: its writer wrote it again, or what it was to say has
/// not happened.
pub fn read_line<T: DeserializeOwned>(
    path: &Path,
    offset: u64,
    line: &[u8],
) -> Result<Option<T>, Damaged> {
    match ledger_line::read(line) {
        Ok(value) => Ok(Some(value)),
        Err(Unread::Torn) => Ok(None),
        Err(Unread::Damaged(problem)) => {
            let (path, task) = (path.to_owned(), ledger_line::id_in(line));
            Err(Damaged { path, offset, problem, task, attempt: ledger_line::attempt_in(line) })
        }
    }
}

/// How much is read at a time.
const BUFFER: usize = 1 << 18;

/// Opens a ledger file. `None` where it is gone, or is no file at all: then no line is in it.
pub(in crate::dir) fn open(path: &Path) -> Result<Option<File>, Error> {
    match plain_file::open(path) {
        Err(Error::Garbled { .. }) => Ok(None),
        opened => Ok(opened?.map(|(file, _meta)| file)),
    }
}

/// Shows each whole line of a file from byte `from` on, with where it begins; its newline is a part
/// of it. Returns where the next look should begin: the writer may be in the middle of a line, and
/// that does not count yet. A file that is gone, or is none, has no lines.
///
/// # Errors
/// When it cannot be opened or read.
pub fn each_line(path: &Path, from: u64, see: impl FnMut(u64, &[u8])) -> Result<u64, Error> {
    let mut offset = from;
    each_line_from(path, &mut offset, see)?;
    Ok(offset)
}

/// The same, for those who go on after an error: `offset` is where the next look should begin
/// whatever happens, so that no line is shown twice.
pub fn each_line_from(
    path: &Path,
    offset: &mut u64,
    see: impl FnMut(u64, &[u8]),
) -> Result<(), Error> {
    fault::look("read ledger");
    let Some(mut file) = open(path)? else { return Ok(()) };
    if file.metadata().at("look at", path)?.len() <= *offset {
        return Ok(());
    }
    file.seek(SeekFrom::Start(*offset)).at("read", path)?;
    show(BufReader::with_capacity(BUFFER, file), offset, see).at("read", path)
}

fn show(
    mut reader: impl BufRead,
    offset: &mut u64,
    mut see: impl FnMut(u64, &[u8]),
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        see(*offset, &line);
        *offset += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Fails where the text ends.
    struct Bad<'a>(&'a [u8]);

    impl Read for Bad<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("a bad sector")),
                length => Ok(length),
            }
        }
    }

    #[test]
    fn after_an_error_in_the_middle_no_line_is_shown_again_and_none_is_left_out() {
        let text = b"one\ntwo\nthree\n";
        let (mut offset, mut seen) = (0, Vec::new());
        let mut see = |_at, line: &[u8]| seen.push(String::from_utf8(line.to_vec()).unwrap());
        // In the middle of the third line, then nowhere.
        show(BufReader::new(Bad(&text[..10])), &mut offset, &mut see).unwrap_err();
        assert_eq!(offset, 8);
        show(&text[8..], &mut offset, &mut see).unwrap();
        assert_eq!(seen, ["one\n", "two\n", "three\n"]);
        assert_eq!(offset, text.len() as u64);
    }
}
