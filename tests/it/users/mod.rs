//! Several users and one pool: who may use it, and who is told what to do instead. Only root can become
//! somebody else: run by others, these tests are left out, which is said.

pub(super) mod group;
pub(super) mod leftover;
pub(super) mod strangers;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use tests::{Pool, Ran, program};

use crate::kit::steps::quick;

/// Two users and the group that both are in, by numbers that no machine gives to anybody.
pub(super) const ANN: User = User { uid: 64_201, umask: "022" };
pub(super) const BOB: User = User { uid: 64_202, umask: "022" };
const GROUP: u32 = 64_203;

/// A user, and what is taken from the modes of files that the user makes.
#[derive(Clone, Copy)]
pub(super) struct User {
    uid: u32,
    umask: &'static str,
}

impl User {
    /// A program of the workspace, run by this user.
    pub(super) fn command(self, pool: &Pool, name: &str, args: &[&str]) -> Command {
        let program = program(name);
        let umask = format!("umask {}; exec \"$@\"", self.umask);
        let (uid, group) = (self.uid.to_string(), GROUP.to_string());
        let become_user =
            ["--reuid", &uid, "--regid", &uid, "--groups", &group, "sh", "-c", &umask, "sh"];
        let mut command = pool.foreign("setpriv", &become_user);
        command.arg(program).args(args);
        command
    }

    pub(super) fn queue(self, pool: &Pool, args: &[&str]) -> Ran {
        pool.start(&mut self.command(pool, "queue", args)).end()
    }
}

/// A house that both users may enter, with an empty directory of Ann's for the pool and these settings.
/// `None`, with a word about it, where this process cannot become somebody else.
pub(super) fn anns(toml: &str) -> Option<Pool> {
    let pool = quick(toml);
    let (house, root) = (pool.home().parent().unwrap().to_owned(), pool.dir());
    for dir in [house, pool.home()] {
        chmod(&dir, 0o755);
    }
    for path in [root.clone(), root.join("pool.toml")] {
        if chown(path, Some(ANN.uid), Some(GROUP)).is_err() {
            tests::skip("needs root, who can become another user");
            return None;
        }
    }
    // As `mkdir` and an editor leave them, below a directory of the group.
    chmod(&root, 0o2755);
    chmod(&root.join("pool.toml"), 0o644);
    let ran = pool.start(&mut ANN.command(&pool, "queue", &["--version"])).end();
    if !ran.status.success() {
        tests::skip(&format!("another user cannot run the programs that were built: {ran}"));
        return None;
    }
    Some(pool)
}

pub(super) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
