//! Which limits hold now. Where `pool.toml` says it, a change of that file counts for programs
//! that run already: workers look at it before each look for work, the brain once a cycle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use shared::settings::{Flags, Settings};

use crate::Error;
use crate::dir::disk::freshness::Freshness;

/// How many tasks of a key, as `user=ann`, may run at once.
pub type Allowed = BTreeMap<String, u32>;

/// What decides which limits hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Whoever opened the pool, for as long as it is open: a variable, a test.
    #[default]
    Fixed,
    /// `pool.toml`, also when it changes.
    PoolToml,
}

/// The limits of an opened pool.
#[derive(Debug)]
pub(in crate::dir) struct Limits {
    /// The file that is followed, if one is.
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    freshness: Freshness,
    allowed: Arc<Allowed>,
}

impl Limits {
    /// Those that were read when the pool at `root` was opened.
    pub(in crate::dir) fn new(root: &Path, allowed: &Allowed, source: Source) -> Self {
        let file = match source {
            Source::Fixed => None,
            Source::PoolToml => Some(root.join("pool.toml")),
        };
        let known = Known { freshness: Freshness::UNKNOWN, allowed: Arc::new(allowed.clone()) };
        Self { file, known: Mutex::new(known) }
    }

    pub(in crate::dir) fn allowed(&self) -> Arc<Allowed> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).allowed.clone()
    }

    /// Looks whether the file says something else now. Where it cannot be read, or is wrong (a
    /// person is writing it), what held before goes on.
    pub(in crate::dir) fn follow(&self) -> Result<(), Error> {
        let Some(path) = &self.file else { return Ok(()) };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = known.freshness.look(path)?;
        if now.is_current() {
            return Ok(());
        }
        // What comes just after the look is read at the next one.
        let settings = if now.is_absent() {
            Settings::read(path, "", |_variable| None, &Flags::new())
        } else {
            Settings::load(path, |_variable| None, &Flags::new())
        };
        let settings = settings.map_err(|error| {
            let problem = format!("{error}; the limits stay as they were");
            Error::Garbled { path: path.clone(), problem }
        })?;
        known.freshness = now;
        if *known.allowed != settings.limits.0 {
            known.allowed = Arc::new(settings.limits.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_changed_file_is_followed_and_a_wrong_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.toml");
        let limits = Limits::new(dir.path(), &Allowed::new(), Source::PoolToml);
        let fixed = Limits::new(dir.path(), &Allowed::new(), Source::Fixed);
        let ann = |limits: &Limits| limits.allowed().get("user=ann").copied();
        limits.follow().unwrap();
        assert_eq!(ann(&limits), None);
        for n in [2, 3, 4] {
            fs::write(&path, format!("[limits]\n\"user=ann\" = {n}\n")).unwrap();
            limits.follow().unwrap();
            assert_eq!(ann(&limits), Some(n), "also within one tick, at the same size");
        }
        fs::write(&path, "[limits\n").unwrap();
        let said = limits.follow().unwrap_err().to_string();
        assert!(said.contains("the limits stay as they were"), "{said}");
        assert_eq!(ann(&limits), Some(4));
        fs::remove_file(&path).unwrap();
        limits.follow().unwrap();
        fixed.follow().unwrap();
        assert_eq!((ann(&limits), ann(&fixed)), (None, None));
    }
}
