//! Opening a pool: is this place one, may it be one, and has its history been compared with its
//! places since the machine started.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use shared::log_cap::LogCap;
use shared::settings::{Origin, Settings};
use shared::task::Task;

use super::brake::Brakes;
use super::disk::lock::Lock;
use super::disk::publish;
use super::disk::reserve::{self, Shortage};
use super::layout::{Layout, Shelf};
use super::settings::current_limits::{Allowed, Limits, Source};
use crate::Error;
use crate::error::{At as _, OrGone as _};
use crate::wire::lane::Requirements;
use crate::wire::retry::Policy;

/// An opened pool: paths and rules. Cheap to clone; holds no lock.
#[derive(Clone, Debug)]
pub struct Pool {
    layout: Layout,
    rules: Rules,
    limits: Arc<Limits>,
    brakes: Arc<Brakes>,
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
            disk_low: settings.disk_low,
            reserve_size: settings.reserve_size,
            log_cap: settings.log_cap,
        }
    }
}

/// Who may use a pool that is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privacy {
    /// Its owner only: the directory gets the mode 700.
    #[default]
    Owner,
    /// Its owner and group: mode 2770, so that what is made in it belongs to the group too.
    Group,
}

impl Pool {
    /// Opens the pool at `root`, which must be there. Reads only.
    pub fn open(root: &Path, rules: Rules) -> Result<Self, Error> {
        let root = absolute(root)?;
        let layout = Layout::new(&root);
        if !publish::is_there(&layout.pending())? {
            return Err(Error::NoPool(root));
        }
        refuse_unfit(&root)?;
        Ok(Self::new(layout, rules))
    }

    /// Opens the pool at `root`, making it where it is missing.
    pub fn create(root: &Path, rules: Rules, privacy: Privacy) -> Result<Self, Error> {
        let root = absolute(root)?;
        let layout = Layout::new(&root);
        if publish::is_there(&layout.pending())? {
            refuse_unfit(&root)?;
        } else {
            make_root(&layout, privacy)?;
        }
        make_places(&layout)?;
        Ok(Self::new(layout, rules))
    }

    fn new(layout: Layout, rules: Rules) -> Self {
        let limits = Limits::new(layout.root(), &rules.limits, rules.limits_from).into();
        let brakes = Brakes::new(&layout, rules.brake).into();
        Self { layout, rules, limits, brakes }
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

fn make_root(layout: &Layout, privacy: Privacy) -> Result<(), Error> {
    let root = layout.root();
    let found = fs::read_dir(root).at("list", root).or_gone()?;
    // Places of a pool that somebody else is making just now, or died making, are ours too.
    let ours: Vec<PathBuf> = places(layout);
    let is_ours = |path: &Path| ours.iter().any(|place| place.starts_with(path));
    let foreign = found.into_iter().flatten().flatten().find(|entry| {
        let name = entry.file_name();
        name != "pool.toml" && name != "lost+found" && !is_ours(&entry.path())
    });
    if let Some(entry) = foreign {
        let name = entry.file_name().to_string_lossy().into_owned();
        let problem = format!(
            "it holds other things (`{}`); name an empty or new directory",
            name.escape_debug()
        );
        return Err(Error::Unfit { path: root.to_owned(), problem });
    }
    publish::make_dirs(root)?;
    let mode = match privacy {
        Privacy::Owner => 0o700,
        Privacy::Group => 0o2770,
    };
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(root, permissions).at("set the permissions of", root)?;
    spread(root);
    Ok(())
}

/// Asks the file system to lay the pool's places far from each other, as it does with what lies in
/// its own root. Without a journal ext4 does not use a deleted file's inode again for minutes and
/// passes over each of them when it makes a file nearby: beside thousands of ended tasks it takes
/// longer to make a run's log than to run the job. A hint only: others know no such flag.
fn spread(root: &Path) {
    let set = || {
        let dir = fs::File::open(root)?;
        let flags = ioctl_getflags(&dir)?;
        ioctl_setflags(&dir, flags | IFlags::TOPDIR)?;
        std::io::Result::Ok(())
    };
    let _not_known_here = set();
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

/// Every place of a pool, the one that says that it is there last.
fn places(layout: &Layout) -> Vec<PathBuf> {
    let mut places = vec![
        layout.incoming(),
        layout.publishing(),
        layout.lanes(),
        layout.processing(),
        layout.delayed(),
        layout.ending(),
        layout.rejected(),
        layout.keys(),
        layout.ledger(),
        layout.runs(),
        layout.worker_locks(),
        layout.limit_locks(),
        layout.gpu_locks(),
        layout.workers(),
        layout.control(),
        layout.doorbells(),
        layout.logs(),
        layout.brain(),
    ];
    places.extend(Shelf::ALL.map(|shelf| layout.shelf(shelf)));
    places.push(layout.pending());
    places
}

fn make_places(layout: &Layout) -> Result<(), Error> {
    let mut new = false;
    for place in places(layout) {
        new |= publish::make_dirs(&place)?.is_some();
    }
    if new {
        publish::flush_up_to(layout.root(), &layout.worker_locks().join("x"))?
    }
    if new { publish::flush_parent(layout.root()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::recover::reconcile;
    use rustix::fs::statfs;
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
        Pool::create(&root, Rules::default(), Privacy::Owner).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
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
