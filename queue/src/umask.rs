//! The umask of a program in a group's pool without a default ACL: what it makes there its group must be able to change,
//! whatever umask its user has. What it starts (jobs, workers, model servers) gets the user's.
//!
//! Set once, at the start, so that nothing is ever there with other modes than it should have, and
//! nothing needs a second system call to get them. In a pool of one user it stays as it is.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::Mode;

/// The user's umask, and that of the program, in a group's pool.
static KNOWN: OnceLock<Known> = OnceLock::new();

struct Known {
    users: Mode,
    ours: Mode,
}

/// The same without another umask: where the pool has a default ACL the kernel does not look at it.
pub fn keep() {
    let users = rustix::process::umask(Mode::RWXO);
    rustix::process::umask(users);
    let _known = KNOWN.set(Known { users, ours: users });
}

/// From now on this process makes files that its group can read and change, as far as it says so
/// itself where it makes them. To be called before there are other threads.
pub fn open_to_group() {
    let users = rustix::process::umask(Mode::RWXO);
    let ours = users.difference(Mode::RWXU | Mode::RWXG);
    rustix::process::umask(ours);
    // Called twice, the first knew.
    let _known = KNOWN.set(Known { users, ours });
}

/// The mode of a file that nobody but its owner has to read, and in a group's pool the group.
#[must_use]
pub fn private_mode() -> u32 {
    if KNOWN.get().is_some() { 0o640 } else { 0o600 }
}

/// The user's umask, where the program has another one.
fn users() -> Option<Mode> {
    KNOWN.get().filter(|known| known.users != known.ours).map(|known| known.users)
}

/// Whether what is started must be given the user's umask back.
#[must_use]
pub fn is_changed() -> bool {
    users().is_some()
}

/// A program to be started with the user's umask, found in PATH where it has no slash. Nothing else
/// can set it for a child that is spawned and not forked, so where it differs a shell does, which
/// then becomes the program.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let Some(users) = users() else { return Command::new(program) };
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("umask {:04o}; exec \"$@\"", users.bits())).arg("sh");
    command.arg(program);
    command
}
