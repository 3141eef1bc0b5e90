//! Whether a directory has changed since it was listed.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::Error;
use crate::error::{At as _, OrGone as _};

/// When a directory last changed, as far as that can be trusted: a change in the same tick of the
/// file system's clock as our listing would not show, so a stamp that young counts as unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::dir) struct Stamp(Option<SystemTime>);

const TICK: Duration = Duration::from_millis(20);

impl Stamp {
    /// Nothing is known of it.
    pub(in crate::dir) const UNKNOWN: Self = Self(None);

    pub(in crate::dir) fn of(dir: &Path) -> Result<Self, Error> {
        let Some(meta) = fs::metadata(dir).at("look at", dir).or_gone()? else {
            return Ok(Self(None));
        };
        let changed = meta.modified().at("look at", dir)?;
        let old = SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK);
        Ok(Self(old.then_some(changed)))
    }

    pub(in crate::dir) fn is_current(self, now: Self) -> bool {
        self.0.is_some() && self == now
    }
}
