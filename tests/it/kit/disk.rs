//! File systems of a test's own, where the machine lets it mount one.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::Pool;

/// Runs `mount`, or whatever prepares it. `false`, and the test counts as skipped, where this
/// process may not.
fn run(command: &mut Command) -> bool {
    let why = match command.output() {
        Ok(ran) if ran.status.success() => return true,
        Ok(ran) => String::from_utf8_lossy(&ran.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    tests::skip(&format!("needs `{command:?}`: {why}"));
    false
}

/// A file system of its own in place of the pool's folder; gone with this value.
pub(crate) struct Disk {
    at: PathBuf,
}

impl Disk {
    /// `None`, with a word about it, where this process may not mount.
    pub(crate) fn new(pool: &Pool, size: &str) -> Option<Self> {
        pool.write_toml("");
        fs::remove_file(pool.dir().join("pool.toml")).unwrap();
        let options = format!("size={size},mode=700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(pool.dir());
        run(&mut mount).then(|| Self { at: pool.dir() })
    }

    pub(crate) fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Fills the disk until only so much is left.
    pub(crate) fn fill(&self, leave: u64) {
        let mut ballast =
            File::options().append(true).create(true).open(self.at.join("ballast")).unwrap();
        while self.free() > leave {
            let more = (self.free() - leave).min(64 << 10);
            if ballast.write_all(&vec![0; usize::try_from(more).unwrap()]).is_err() {
                return;
            }
        }
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.at.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: programs of the test may still stand in it.
        let done = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(done.is_ok_and(|status| status.success()), "unmount {}", self.at.display());
    }
}

/// Another name for a directory: a mount of its own, gone with this value.
pub(crate) struct Bind {
    at: PathBuf,
}

/// What may be done through it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    Write,
    Read,
}

impl Bind {
    /// Makes `from` visible at `to`, which must be there. `None`, with a word about it, where this
    /// process may not mount.
    pub(crate) fn new(from: &Path, to: &Path, may: May) -> Option<Self> {
        let mut bind = Command::new("mount");
        bind.arg("--bind").arg(from).arg(to);
        let bound = run(&mut bind).then(|| Self { at: to.to_owned() })?;
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,bind,ro"]).arg(to);
        (may == May::Write || run(&mut remount)).then_some(bound)
    }

    /// A file system in memory, no part of whose files can be given back.
    pub(crate) fn ramfs(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ramfs", "-o", "mode=700", "ramfs"]).arg(at);
        run(&mut mount).then(|| Self { at: at.to_owned() })
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(done.is_ok_and(|status| status.success()), "unmount {}", self.at.display());
    }
}
