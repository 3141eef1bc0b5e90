//! Following the ledger: every line once, as it comes.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use shared::time::Moment;

use super::lines::each_line_from;
use super::lines::open;
use super::search::files_since;
use crate::Error;
use crate::dir::layout::Layout;
use crate::error::At as _;
use crate::wire::ledger_line::Brief;

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
