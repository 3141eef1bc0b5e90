//! Reading directories of the pool. What is not named as it should be is handed out apart, so that
//! somebody can put it into `rejected/`; it never stops a listing.

use std::fs;
use std::path::{Path, PathBuf};

use shared::name::Name;
use shared::task::TaskName;

use crate::Error;
use crate::dir::fault;
use crate::dir::layout::{Layout, Segment, Shelf, parse_priority};
use crate::error::{At as _, OrGone as _};
use crate::wire::counts::Unlisted;
use crate::wire::lane::LaneName;

/// The names in one directory of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The tasks, oldest first.
    pub tasks: Vec<TaskName>,
    /// What does not belong there.
    pub foreign: Vec<PathBuf>,
}

/// Directories that a look at many of them passed over, because the system does not let us list
/// them: what is in them is unknown, and the others are looked at all the same.
#[derive(Debug, Default)]
pub struct PassedOver(Vec<Error>);

impl PassedOver {
    /// What was read. `None` where it is to be passed over.
    ///
    /// # Errors
    /// Whatever is not about that one directory: all others would fail, too.
    pub fn or_pass_over<T>(&mut self, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(err) if err.is_of_one_place() => {
                self.0.push(err);
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    /// Whether all could be listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why each was passed over.
    #[must_use]
    pub fn errors(&self) -> &[Error] {
        &self.0
    }

    /// Those directories, in each of which are tasks of this state.
    #[must_use]
    pub fn unlisted(&self, state: &str) -> Vec<Unlisted> {
        self.0.iter().filter_map(|err| unlisted(state, err)).collect()
    }

    /// An error where any was, for whoever found nothing and cannot say that there is nothing.
    pub fn none_was(self) -> Result<(), Error> {
        self.0.into_iter().next().map_or(Ok(()), Err)
    }
}

/// The directory that an error is about.
fn unlisted(state: &str, err: &Error) -> Option<Unlisted> {
    let Error::Io { path, err, .. } = err else { return None };
    let (path, problem) = (path.display().to_string(), err.to_string());
    Some(Unlisted { state: state.to_owned(), path, problem })
}

/// Names of entries, unsorted; none where the directory is not there, or is a file that somebody
/// put in its place. Hidden names are being written by somebody and do not exist yet.
pub(crate) fn entries(dir: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    fault::look("list");
    let found = fault::listing(dir).and_then(|()| fs::read_dir(dir));
    let Some(found) = found.at("list", dir).or_gone()? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in found {
        let name = entry.at("list", dir)?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    Ok(names)
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
    let found = entries(dir)?;
    let mut values: Vec<T> = found.iter().filter_map(|name| parse(name.to_str()?)).collect();
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
