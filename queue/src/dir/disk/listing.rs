//! Reading directories of the pool. What is not named as it should be is handed out apart, so that
//! somebody can put it into `rejected/`; it never stops a listing.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use shared::name::Name;
use shared::task::TaskName;

use crate::Error;
use crate::dir::fault;
use crate::dir::layout::{Layout, Segment, Shelf, parse_priority};
use crate::error::{At as _, OrGone as _};
use crate::wire::lane::LaneName;

/// The names in one directory of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The tasks, oldest first.
    pub tasks: Vec<TaskName>,
    /// What does not belong there.
    pub foreign: Vec<PathBuf>,
}

/// Names of entries, unsorted; none where the directory is not there, or is a file that somebody
/// put in its place. Hidden names are being written by somebody and do not exist yet.
pub(crate) fn entries(dir: &Path) -> Result<Vec<OsString>, Error> {
    let mut names = Vec::new();
    each_entry(dir, |name| {
        names.push(name);
        Ok(())
    })?;
    Ok(names)
}

/// The same, one by one: a directory may have many.
pub(crate) fn each_entry(
    dir: &Path,
    mut see: impl FnMut(OsString) -> Result<(), Error>,
) -> Result<(), Error> {
    fault::look("list");
    let Some(found) = fs::read_dir(dir).at("list", dir).or_gone()? else { return Ok(()) };
    for entry in found {
        let name = entry.at("list", dir)?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            see(name)?;
        }
    }
    Ok(())
}

/// The tasks in one directory.
pub fn tasks_in(dir: &Path) -> Result<Names, Error> {
    let mut names = Names::default();
    for entry in entries(dir)? {
        match entry.to_str().and_then(|text| TaskName::from_file_name(text).ok()) {
            Some(name) => names.tasks.push(name),
            None => names.foreign.push(dir.join(entry)),
        }
    }
    names.tasks.sort_unstable();
    Ok(names)
}

fn parsed<T: Ord>(dir: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    each_entry(dir, |name| {
        values.extend(name.to_str().and_then(&parse));
        Ok(())
    })?;
    values.sort_unstable();
    Ok(values)
}

/// The lanes that have, or lately had, pending tasks.
pub fn lanes(layout: &Layout) -> Result<Vec<LaneName>, Error> {
    parsed(&layout.pending(), |text| text.parse().ok())
}

/// The priorities of a lane, highest first.
pub fn priorities(layout: &Layout, lane: &LaneName) -> Result<Vec<u8>, Error> {
    let mut found = parsed(&layout.pending().join(lane.as_str()), parse_priority)?;
    found.reverse();
    Ok(found)
}

/// The numbered directories in `dir`, oldest first.
pub fn segments(dir: &Path) -> Result<Vec<Segment>, Error> {
    parsed(dir, Segment::parse)
}

/// The workers that have, or lately had, claimed tasks.
pub fn holders(layout: &Layout) -> Result<Vec<Name>, Error> {
    parsed(&layout.processing(), |text| text.parse().ok())
}

/// The seconds at which delayed tasks are due, earliest first.
pub fn due_times(layout: &Layout) -> Result<Vec<i64>, Error> {
    parsed(&layout.delayed(), |text| text.parse().ok())
}

/// All tasks on a shelf, with the directories they are in.
pub fn on_shelf(layout: &Layout, shelf: Shelf) -> Result<Vec<(Segment, Names)>, Error> {
    let dir = layout.shelf(shelf);
    segments(&dir)?
        .into_iter()
        .map(|segment| Ok((segment.clone(), tasks_in(&dir.join(segment.dir_name()))?)))
        .collect()
}
