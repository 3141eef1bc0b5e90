//! Reading directories of the pool. What is not named as it should be is handed out apart, so that
//! somebody can put it into `rejected/`; it never stops a listing.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
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
#[derive(Clone, Debug, Default)]
pub struct PassedOver(Vec<Refused>);

/// What the system said of one of them.
#[derive(Clone, Debug)]
struct Refused {
    what: &'static str,
    path: PathBuf,
    errno: i32,
}

impl Refused {
    fn error(&self) -> Error {
        let err = std::io::Error::from_raw_os_error(self.errno);
        Error::Io { what: self.what, path: self.path.clone(), err }
    }
}

impl PassedOver {
    /// What was read. `None` where it is to be passed over.
    ///
    /// # Errors
    /// Whatever is not about that one directory: all others would fail, too.
    pub fn or_pass_over<T>(&mut self, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Err(Error::Io { what, path, err }) if is_of_one_place(&err) => {
                let errno = err.raw_os_error().unwrap_or_default();
                self.0.push(Refused { what, path, errno });
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Whether all could be listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why each was passed over.
    #[must_use]
    pub fn errors(&self) -> Vec<Error> {
        self.0.iter().map(Refused::error).collect()
    }

    /// Those directories, in each of which are tasks of this state.
    #[must_use]
    pub fn unlisted(&self, state: &str) -> Vec<Unlisted> {
        let unlisted = self.0.iter().map(|refused| Unlisted {
            state: state.to_owned(),
            path: refused.path.display().to_string(),
            problem: std::io::Error::from_raw_os_error(refused.errno).to_string(),
        });
        unlisted.collect()
    }

    /// An error where any was, for whoever found nothing and cannot say that there is nothing.
    pub fn none_was(&self) -> Result<(), Error> {
        self.0.first().map_or(Ok(()), |refused| Err(refused.error()))
    }

    /// What another look passed over, too.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// Whether an error is about one file or directory only: its permissions, or bad sectors under it.
/// What lies beside it can be used as ever.
pub(in crate::dir) fn is_of_one_place(err: &std::io::Error) -> bool {
    let one = [Errno::ACCESS, Errno::PERM, Errno::IO];
    one.iter().any(|errno| err.raw_os_error() == Some(errno.raw_os_error()))
}

/// Names of entries, unsorted; none where the directory is not there, or is a file that somebody
/// put in its place. Hidden names are being written by somebody and do not exist yet.
pub fn entries(dir: &Path) -> Result<Vec<OsString>, Error> {
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
    let found = fault::listing(dir).and_then(|()| fs::read_dir(dir));
    let Some(found) = found.at("list", dir).or_gone()? else { return Ok(()) };
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
