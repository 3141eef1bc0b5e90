//! Who may change a pool: its owner and, where it is a group's, that group. Nobody else, root
//! included: what root makes in it the owner could not move.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::dir::layout::Layout;
use crate::error::{At as _, OrGone as _};
use crate::{Error, users};

/// Who may use a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privacy {
    /// Its owner only: the directory gets the mode 700.
    #[default]
    Owner,
    /// Its owner and group: mode 2770, so that what is made in it belongs to the group too.
    Group,
}

impl Privacy {
    /// For whom a pool is whose directory is this.
    #[must_use]
    pub fn of(root: &Metadata) -> Self {
        if root.mode() & 0o020 == 0 { Self::Owner } else { Self::Group }
    }

    /// The mode of a pool's directory.
    #[must_use]
    pub const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o700,
            Self::Group => 0o2770,
        }
    }
}

/// Whether this process may change the pool whose directory is this.
fn may_change(root: &Metadata) -> bool {
    root.uid() == users::me() || Privacy::of(root) == Privacy::Group && users::am_in(root.gid())
}

/// Whether this process may change this pool.
pub fn may_change_pool(layout: &Layout) -> Result<bool, Error> {
    Ok(may_change(&fs::metadata(layout.root()).at("look at", layout.root())?))
}

/// Refuses who may not change the pool at `root`, before anything is written. Where there is
/// nothing yet, anybody may make one.
pub fn require(root: &Path) -> Result<(), Error> {
    let Some(meta) = fs::metadata(root).at("look at", root).or_gone()? else { return Ok(()) };
    if may_change(&meta) {
        return Ok(());
    }
    let group = (Privacy::of(&meta) == Privacy::Group).then_some(meta.gid());
    Err(Error::NotYours { path: root.to_owned(), owner: meta.uid(), group })
}
