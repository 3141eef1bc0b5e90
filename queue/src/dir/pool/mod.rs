//! Opening a pool: is this place one (by its marker), may it be one, may this process change it, and
//! has its history been compared with its places since the machine started.

pub mod audit;
pub mod default_acl;
mod make;
pub mod marker;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shared::log_cap::LogCap;
use shared::settings::{Origin, Settings};
use shared::task::Task;

use super::brake::Brakes;
use super::disk::lock::Lock;
use super::disk::owner;
use super::disk::publish;
use super::disk::reserve::{self, Shortage};
use super::layout::Layout;
use super::settings::current_limits::{Allowed, Limits, Source};
use crate::Error;
use crate::error::At as _;
use crate::wire::lane::Requirements;
use crate::wire::retry::Policy;
use make::Found;
use marker::Marked;

pub use super::disk::owner::Privacy;

/// An opened pool: paths and rules. Cheap to clone; holds no lock.
#[derive(Clone, Debug)]
pub struct Pool {
    layout: Layout,
    rules: Rules,
    limits: Arc<Limits>,
    brakes: Arc<Brakes>,
    marked: Marked,
}

/// The settings that decide what the pool does with tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// When a task is tried again.
    pub retry: Policy,
    /// How many tasks of a key, as `user=ann`, may run at once, when the pool is opened.
    pub limits: Allowed,
    /// What may change that.
    pub limits_from: Source,
    /// Whether failures that are alike hold back the rest.
    pub brake: shared::task::BrakeUse,
    /// Whether an answer that lacks something is a failure, where its task does not say.
    pub complete_only: bool,
    /// Submissions are refused when less than this is free.
    pub disk_low: shared::quantity::Bytes,
    /// How much is kept free by a file, for the ledger and heartbeats on a full disk.
    pub reserve_size: shared::quantity::Bytes,
    /// How much of a run log is kept, where its task does not say.
    pub log_cap: LogCap,
}

impl From<&Settings> for Rules {
    fn from(settings: &Settings) -> Self {
        Self {
            retry: Policy {
                max_attempts: settings.max_attempts,
                poison_deaths: settings.poison_deaths,
                backoff_first: settings.retry_backoff_first.0,
                backoff_max: settings.retry_backoff_max.0,
            },
            limits: settings.limits.0.clone(),
            limits_from: match settings.origin("limits") {
                Some(Origin::Flag | Origin::Environment(_)) => Source::Fixed,
                Some(Origin::File(..) | Origin::Default) | None => Source::PoolToml,
            },
            brake: settings.brake,
            complete_only: settings.complete_only,
            disk_low: settings.disk_low,
            reserve_size: settings.reserve_size,
            log_cap: settings.log_cap,
        }
    }
}

impl Pool {
    /// Opens the pool at `root`, which must be there. Reads only.
    pub fn open(root: &Path, rules: Rules) -> Result<Self, Error> {
        let root = absolute(root)?;
        let layout = Layout::new(&root);
        let marked = match make::look(&layout).map_err(|err| or_not_yours(&root, err))? {
            Found::Pool(marked) if publish::is_there(&layout.pending())? => marked,
            Found::Pool(_) | Found::Nothing | Found::Other(_) => return Err(Error::NoPool(root)),
        };
        refuse_unfit(&root)?;
        Ok(Self::new(layout, rules, marked))
    }

    /// Opens the pool at `root`, making it where it is missing. Refused, before anything is
    /// written, where somebody else's is there or a directory that holds other things.
    pub fn create(root: &Path, rules: Rules, privacy: Privacy) -> Result<Self, Error> {
        let root = absolute(root)?;
        owner::require(&root)?;
        let layout = Layout::new(&root);
        let marked = match make::look(&layout)? {
            Found::Pool(marked) => {
                refuse_unfit(&root)?;
                marked
            }
            Found::Nothing => {
                make::make_root(&layout, privacy)?;
                Marked::Yes
            }
            Found::Other(name) => {
                let name = name.escape_debug();
                let problem =
                    format!("it holds other things (`{name}`); name an empty or new directory");
                return Err(Error::Unfit { path: root, problem });
            }
        };
        make::make_places(&layout)?;
        Ok(Self::new(layout, rules, marked))
    }

    fn new(layout: Layout, rules: Rules, marked: Marked) -> Self {
        let limits = Limits::new(layout.root(), &rules.limits, rules.limits_from).into();
        let brakes = Brakes::new(&layout, rules.brake).into();
        Self { layout, rules, limits, brakes, marked }
    }

    /// Gives a pool from before there were markers its own. Refused where this process may not
    /// change the pool.
    pub(super) fn mark(&mut self) -> Result<(), Error> {
        owner::require(self.root())?;
        if self.marked == Marked::No {
            let _nobody_else_does = self.reconcile_lock()?;
            if marker::read(&self.layout)? == Marked::No {
                marker::write(&self.layout)?;
            }
            self.marked = Marked::Yes;
        }
        Ok(())
    }

    /// The paths of all that is in it.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What it does with tasks.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Makes the reserve where it is missing and there is room for it.
    pub fn keep_reserve(&self) -> Result<(), Error> {
        reserve::keep(&self.layout, self.rules.reserve_size)
    }

    /// Whether too little is free on its disk to begin anything new.
    pub fn shortage(&self) -> Result<Option<Shortage>, Error> {
        reserve::shortage(&self.layout, self.rules.disk_low, self.rules.reserve_size)
    }

    /// The limits that hold now.
    #[must_use]
    pub fn limits(&self) -> Arc<Allowed> {
        self.limits.allowed()
    }

    /// What holds tasks after failures that were alike.
    #[must_use]
    pub fn brakes(&self) -> &Brakes {
        &self.brakes
    }

    /// What a task requires, under the limits that hold now.
    #[must_use]
    pub fn requirements_of(&self, task: &Task) -> Requirements {
        Requirements::of(task, &self.limit_keys())
    }

    /// The keys that have a limit now.
    #[must_use]
    pub fn limit_keys(&self) -> Vec<String> {
        self.limits().keys().cloned().collect()
    }

    /// Takes up other limits, where `pool.toml` says so by now. For whoever has the pool open for
    /// long.
    pub fn follow_limits(&self) -> Result<(), Error> {
        self.limits.follow()
    }

    /// The pool's own directory, as an absolute path.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Waits for the lock under which history and places are compared.
    pub(super) fn reconcile_lock(&self) -> Result<Lock, Error> {
        Lock::wait(&self.layout.reconcile_lock())
    }
}

fn absolute(root: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(root).at("find", root)
}

/// What cannot be looked at because it is somebody else's is said to be that.
fn or_not_yours(root: &Path, err: Error) -> Error {
    match owner::require(root) {
        Err(not_yours) if err.io_kind() == Some(io::ErrorKind::PermissionDenied) => not_yours,
        Ok(()) | Err(_) => err,
    }
}

/// A place where anybody may put files is a place where anybody may run commands as the worker.
fn refuse_unfit(root: &Path) -> Result<(), Error> {
    let meta = fs::metadata(root).at("look at", root)?;
    if meta.mode() & 0o002 == 0 {
        return Ok(());
    }
    let problem = format!(
        "everybody may write there, so everybody could run commands as you; `chmod o-w {}` mends it",
        root.display()
    );
    Err(Error::Unfit { path: root.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::recover::reconcile;
    use rustix::fs::{IFlags, ioctl_getflags, statfs};
    use std::os::unix::fs::PermissionsExt as _;

    /// Of ext2, ext3 and ext4: see statfs(2).
    const EXT_SUPER_MAGIC: rustix::fs::FsWord = 0xEF53;

    #[test]
    fn a_pool_is_private_and_a_world_writable_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pool");
        Pool::create(&root, Rules::default(), Privacy::Owner).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Pool::open(&root, Rules::default()).unwrap_err().to_string();
        assert!(refused.contains("chmod o-w"), "{refused}");
    }

    #[test]
    fn the_places_of_a_pool_are_spread_where_the_file_system_can() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pool");
        Pool::create(&root, Rules::default(), Privacy::Owner).unwrap();
        let flags = |path: &Path| ioctl_getflags(fs::File::open(path).unwrap());
        match flags(&root) {
            // Not all know it, and those that do not are pools as well.
            Ok(flags) if flags.contains(IFlags::TOPDIR) => {}
            Ok(_) | Err(_) => assert_ne!(statfs(&root).unwrap().f_type, EXT_SUPER_MAGIC),
        }
    }

    #[test]
    fn a_pool_that_was_half_made_when_its_maker_died_is_made_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pool");
        for n in 0.. {
            crate::dir::fault::pull_after(n);
            let made = Pool::create(&root, Rules::default(), Privacy::Owner);
            crate::dir::fault::plug_in();
            let whole = Pool::create(&root, Rules::default(), Privacy::Owner).unwrap();
            reconcile::ready(whole).unwrap();
            if made.is_ok() {
                assert!(n > 20);
                return;
            }
            fs::remove_dir_all(&root).unwrap();
        }
    }

    #[test]
    fn a_pool_that_was_half_made_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pool");
        for made in ["incoming", "locks/workers"] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        let refused = Pool::create(&root, Rules::default(), Privacy::Owner).unwrap_err();
        assert!(refused.to_string().contains("holds other things"), "{refused}");
        fs::write(root.join("format"), r#"{"format": 1}"#).unwrap();
        assert!(matches!(Pool::open(&root, Rules::default()), Err(Error::NoPool(_))));
        Pool::create(&root, Rules::default(), Privacy::Owner).unwrap();
        Pool::open(&root, Rules::default()).unwrap();
    }

    #[test]
    fn a_pool_without_a_marker_works_on_and_gets_one_from_who_may_change_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pool");
        Pool::create(&root, Rules::default(), Privacy::Owner).unwrap();
        let marker = root.join("format");
        fs::remove_file(&marker).unwrap();
        let pool = Pool::open(&root, Rules::default()).unwrap();
        assert!(!publish::is_there(&marker).unwrap(), "looking writes nothing");
        reconcile::ready(pool).unwrap();
        assert!(publish::is_there(&marker).unwrap());
    }

    #[test]
    fn a_newer_pool_is_refused_in_words_and_a_marker_of_nothing_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pool");
        Pool::create(&root, Rules::default(), Privacy::Owner).unwrap();
        let newer = r#"{"format": 2, "made_by": "0.9.0", "more": ["than", "we know"]}"#;
        for (marker, words) in [
            (newer, "has format 2, made by Brainstem 0.9.0; this is Brainstem"),
            (newer, "knows formats up to 1"),
            ("", "cannot be understood"),
        ] {
            fs::write(root.join("format"), marker).unwrap();
            let opened = Pool::open(&root, Rules::default()).unwrap_err().to_string();
            let made = Pool::create(&root, Rules::default(), Privacy::Owner).unwrap_err();
            assert!(opened.contains(words), "{opened}");
            assert_eq!(opened, made.to_string());
        }
    }

    #[test]
    fn what_may_lie_where_a_pool_is_made() {
        for (name, may_stay) in [
            ("pool.toml", true),
            ("lost+found", true),
            (".format.01jd", true),
            ("runs", false),
            ("logs", false),
            (".hidden", false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), "").unwrap();
            let made = Pool::create(dir.path(), Rules::default(), Privacy::Owner);
            assert_eq!(made.is_ok(), may_stay, "{name}");
        }
    }

    #[test]
    fn a_directory_with_other_things_in_it_does_not_become_a_pool() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let refused = Pool::create(dir.path(), Rules::default(), Privacy::Owner).unwrap_err();
        assert!(refused.to_string().contains("thesis.tex"));
        assert!(matches!(Pool::open(dir.path(), Rules::default()), Err(Error::NoPool(_))));
    }
}
