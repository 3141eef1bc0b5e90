//! Following the ledger: every line once, as it comes.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use shared::time::Moment;

use super::lines::{Damaged, each_line_from, open, read_line};
use super::search::files_since;
use crate::Error;
use crate::dir::layout::Layout;
use crate::error::At as _;
use crate::wire::ledger_line::Brief;

/// Up to where a file holds whole lines: its writer may be in the middle of one.
fn whole_lines(path: &Path) -> Result<u64, Error> {
    /// As most lines are shorter, this is looked through first; then twice as much, and so on.
    const USUAL: u64 = 1 << 16;
    let Some(mut file) = open(path)? else { return Ok(0) };
    let length = file.metadata().at("look at", path)?.len();
    let mut reach = USUAL;
    loop {
        let from = length.saturating_sub(reach);
        let mut text = Vec::new();
        let read = file.seek(SeekFrom::Start(from));
        let read = read.and_then(|_at| (&file).take(length - from).read_to_end(&mut text));
        read.at("read", path)?;
        match memchr::memrchr(b'\n', &text) {
            Some(newline) => return Ok(from + newline as u64 + 1),
            None if from == 0 => return Ok(0),
            None => reach *= 2,
        }
    }
}

/// Follows the ledger: every line once, from wherever one starts.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    offsets: BTreeMap<PathBuf, u64>,
    /// The first day that is still looked at: nobody writes into older ones.
    first_day: String,
    /// How many lines cannot be understood, and were passed over.
    pub unreadable: u64,
    /// Lines that broke off, so far: nothing is said by them.
    pub torn: u64,
    /// Lines that were passed over though they say something, until they are taken.
    damaged: Vec<Damaged>,
}

/// So many damaged lines are told one by one.
const MANY: usize = 100;

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

    /// Lines that cannot be understood and were passed over since this was asked last: at most 100.
    pub fn take_damaged(&mut self) -> Vec<Damaged> {
        std::mem::take(&mut self.damaged)
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
                each_line_from(&path, &mut offset, |at, line| match read_line(&path, at, line) {
                    Ok(Some(brief)) => see(brief),
                    Ok(None) if line == b"\n" => {}
                    Ok(None) => self.torn += 1,
                    Err(damaged) => {
                        self.unreadable += 1;
                        if self.damaged.len() < MANY {
                            self.damaged.push(damaged);
                        }
                    }
                });
            self.offsets.insert(path, offset);
            read?;
        }
        self.first_day = Moment::now().plus_millis(-WRITERS_CLOCKS_MILLIS).day();
        Ok(())
    }
}
