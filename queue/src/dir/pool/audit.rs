//! Whether owners and modes of all that is in a pool are such that those who may use it can: what a
//! stray `sudo`, `cp` or `chmod` left behind is in nobody's way until a task has to pass there.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::dir::disk::listing::is_of_one_place;
use crate::dir::disk::owner::Privacy;
use crate::dir::layout::Layout;
use crate::error::{At as _, OrGone as _};
use crate::users;

/// So many files and directories are looked at: in a pool with more, what is wrong in one place is
/// mostly wrong in many.
const MANY: u64 = 200_000;

/// So many that are wrong are named.
const NAMED: usize = 3;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// For whom the pool is.
    pub privacy: Privacy,
    /// The number of its owner.
    pub owner: u32,
    /// The number of its group.
    pub group: u32,
    /// How many files and directories were looked at.
    pub looked: u64,
    /// Whether these are all.
    pub is_whole: bool,
    /// How many of them are wrong.
    pub wrong: u64,
    /// The first of those.
    pub first: Vec<Wrong>,
    /// What they need, all together.
    pub needed: Needed,
}

/// A file or directory whose owner or mode is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its path.
    pub path: PathBuf,
    /// The number of its owner.
    pub owner: u32,
    /// The number of its group.
    pub group: u32,
    /// Its permissions, with the bits for set-id and sticky.
    pub mode: u32,
}

/// What would make it right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Another owner: in a pool of one user all is that user's.
    pub owner: bool,
    /// Another group: in a group's pool all is that group's.
    pub group: bool,
    /// The owner, or the group, must be able to read, write or enter more.
    pub mode: bool,
    /// Not everybody may write.
    pub not_everybody: bool,
    /// Root: something that is wrong is another user's.
    pub root: bool,
}

impl Needed {
    const fn is_nothing(self) -> bool {
        !(self.owner || self.group || self.mode || self.not_everybody)
    }

    const fn and(self, other: Self) -> Self {
        Self {
            owner: self.owner || other.owner,
            group: self.group || other.group,
            mode: self.mode || other.mode,
            not_everybody: self.not_everybody || other.not_everybody,
            root: self.root || other.root,
        }
    }
}

/// Looks at all of the pool, or at as much as is looked at. Reads only.
pub fn audit(layout: &Layout) -> Result<Audit, Error> {
    let root = fs::metadata(layout.root()).at("look at", layout.root())?;
    let mut audit = Audit {
        privacy: Privacy::of(&root),
        owner: root.uid(),
        group: root.gid(),
        looked: 0,
        is_whole: true,
        wrong: 0,
        first: Vec::new(),
        needed: Needed::default(),
    };
    audit.look(layout, layout.root().to_owned(), &root);
    let mut dirs = vec![layout.root().to_owned()];
    while let Some(dir) = dirs.pop() {
        // One that cannot be listed was found wrong itself.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if audit.looked >= MANY {
                audit.is_whole = false;
                return Ok(audit);
            }
            let path = entry.path();
            let meta = match fs::symlink_metadata(&path).at("look at", &path).or_gone() {
                Ok(Some(meta)) => meta,
                Ok(None) => continue,
                // It is in a directory that may be listed and not entered, which was found wrong.
                Err(Error::Io { err, .. }) if is_of_one_place(&err) => continue,
                Err(err) => return Err(err),
            };
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            audit.look(layout, path, &meta);
        }
    }
    Ok(audit)
}

impl Audit {
    fn look(&mut self, layout: &Layout, path: PathBuf, meta: &Metadata) {
        self.looked += 1;
        let needed = self.needs(layout, &path, meta);
        if needed.is_nothing() {
            return;
        }
        self.wrong += 1;
        let root = needed.owner || meta.uid() != users::me();
        self.needed = self.needed.and(Needed { root, ..needed });
        if self.first.len() < NAMED {
            let (owner, group, mode) = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
            self.first.push(Wrong { path, owner, group, mode });
        }
    }

    fn needs(&self, layout: &Layout, path: &Path, meta: &Metadata) -> Needed {
        // A link has no mode of its own.
        let lacks = |bits: u32| !meta.is_symlink() && meta.mode() & bits != bits;
        let not_everybody = !meta.is_symlink() && meta.mode() & 0o002 != 0;
        match self.privacy {
            Privacy::Owner => Needed {
                owner: meta.uid() != self.owner,
                mode: lacks(if meta.is_dir() { 0o700 } else { 0o600 }),
                not_everybody,
                ..Needed::default()
            },
            Privacy::Group => Needed {
                group: meta.gid() != self.group,
                mode: lacks(match meta.is_dir() {
                    true => 0o2770,
                    false if is_written_by_all(layout, path) => 0o660,
                    false => 0o440,
                }),
                not_everybody,
                ..Needed::default()
            },
        }
    }
}

/// Most files are written once, or by one process: these by whoever comes.
fn is_written_by_all(layout: &Layout, path: &Path) -> bool {
    let is_shared_log = path == layout.commands_log() || path == layout.brain_decisions();
    is_shared_log || path.starts_with(layout.locks()) || path.starts_with(layout.doorbells())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::{Pool, Rules};
    use std::os::unix::fs::PermissionsExt as _;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn modes_that_are_wrong_are_found_anywhere_and_counted() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("pool");
        let pool = Pool::create(&root, Rules::default(), Privacy::Owner).unwrap();
        let layout = pool.layout();
        let right = audit(layout).unwrap();
        assert_eq!((right.wrong, right.is_whole), (0, true), "{right:?}");
        let deep = layout.worker_locks().join("a.lock");
        fs::write(&deep, "").unwrap();
        chmod(&deep, 0o400);
        chmod(&layout.pending(), 0o777);
        std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
        let found = audit(layout).unwrap();
        assert_eq!(found.wrong, 2, "{found:?}");
        let needed = Needed { mode: true, not_everybody: true, ..Needed::default() };
        assert_eq!(found.needed, needed);
        assert!(found.first.iter().any(|wrong| wrong.path == deep && wrong.mode == 0o400));
    }

    #[test]
    fn in_a_groups_pool_the_group_must_be_able_to_write_where_all_write() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("pool");
        crate::umask::open_to_group();
        let pool = Pool::create(&root, Rules::default(), Privacy::Group).unwrap();
        let layout = pool.layout();
        assert_eq!(audit(layout).unwrap().wrong, 0);
        for (path, is_wrong) in [
            (layout.runs().join("a.log"), false),
            (layout.worker_locks().join("a.lock"), true),
            (layout.doorbells().join("class-cpu"), true),
        ] {
            fs::write(&path, "").unwrap();
            chmod(&path, 0o640);
            assert_eq!(audit(layout).unwrap().wrong > 0, is_wrong, "{}", path.display());
            fs::remove_file(&path).unwrap();
        }
        // As a directory is that was made with the ordinary umask, or copied from elsewhere.
        for mode in [0o2750, 0o770] {
            chmod(&layout.pending(), mode);
            assert_eq!(audit(layout).unwrap().needed, Needed { mode: true, ..Needed::default() });
        }
    }
}
