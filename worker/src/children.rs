//! Who are this worker's children? Leaders of jobs, other programs that it started itself, and
//! orphans of jobs that came to it because it is a child subreaper.
//!
//! Several jobs run at once in different threads, and nobody may reap what another one waits for.
//! So nothing ever waits for "any child": leaders are entered in a registry, and an orphan is
//! whoever is not in it and is not in the worker's own process group (which programs that were
//! started in the ordinary way are). Spawns go on side by side; who must know of every child, or
//! must see nobody in the middle of a spawn, waits until none is (`stillness`), which is seldom
//! needed: a spawn takes as long as the machine takes to run the child for the first time.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use queue::fence;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Shared by those who spawn, from before a spawn until the child is in the registry. Taken before
/// the registry's lock.
static SPAWNING: RwLock<()> = RwLock::new(());
static REGISTRY: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// From now on the orphans of our jobs become our children, so that leaks are found without a
/// look at all processes of the machine. To be called once, before the first job.
///
/// # Errors
/// When the kernel refuses.
pub fn become_subreaper() -> std::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

pub(crate) fn is_subreaper() -> bool {
    rustix::process::child_subreaper().is_ok_and(|yes| yes.is_some())
}

/// The right to spawn.
pub(crate) struct Turn(RwLockReadGuard<'static, ()>);

pub(crate) fn turn() -> Turn {
    Turn(SPAWNING.read().unwrap_or_else(PoisonError::into_inner))
}

/// As long as this lives nobody is in the middle of a spawn: every child is in the registry, and
/// no child has copies of our handles that it loses when it becomes its program.
pub(crate) fn stillness() -> RwLockWriteGuard<'static, ()> {
    SPAWNING.write().unwrap_or_else(PoisonError::into_inner)
}

fn registry() -> MutexGuard<'static, BTreeSet<u32>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turn {
    /// Ends with the child in the registry.
    pub(crate) fn enter(self, pid: u32) -> Known {
        registry().insert(pid);
        drop(self.0);
        Known { pid }
    }
}

/// A child of this worker that somebody waits for: as long as this lives, it is nobody's leak.
#[derive(Debug)]
pub struct Known {
    pid: u32,
}

impl Known {
    /// Its process number, which nobody else gets before it is reaped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Reaps it, if it is over, and forgets it, in one step: afterwards the number may belong to
    /// the next child.
    pub(crate) fn reap(self, pidfd: BorrowedFd<'_>) {
        let mut registry = registry();
        let _not_over = waitid(WaitId::PidFd(pidfd), reaping());
        registry.remove(&self.pid);
        self.keep();
    }

    /// Leaves the registry as it is: for one that did not end, for good.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        registry().remove(&self.pid);
    }
}

/// Starts a program that is no job and has a process group of its own (a model server), so that
/// it is not taken for a leak. Keep the second value until the first was waited for.
///
/// # Errors
/// As `Command::spawn`.
pub fn spawn_known(command: &mut Command) -> std::io::Result<(Child, Known)> {
    let turn = turn();
    let child = command.spawn()?;
    let known = turn.enter(child.id());
    Ok((child, known))
}

/// Our children that are in no registry: orphans of jobs, and programs of our own group. Mostly
/// there is nobody but the `leader` whose job ends, and then nobody is waited for.
pub(crate) fn unknown(leader: u32) -> Vec<u32> {
    if all().iter().all(|pid| *pid == leader) {
        return Vec::new();
    }
    let _still = stillness();
    let registry = registry();
    all().into_iter().filter(|pid| !registry.contains(pid)).collect()
}

/// Reaps orphans that are over.
pub(crate) fn reap_orphans() {
    // Not by `getpgrp`, which has no value for the 0 of a group made outside our PID namespace.
    let Some(own_group) = fence::stat(std::process::id()).map(|own| own.group) else { return };
    let _still = stillness();
    let registry = registry();
    for pid in all() {
        let is_orphan = !registry.contains(&pid)
            && fence::stat(pid).is_some_and(|stat| stat.is_over() && stat.group != own_group);
        if is_orphan && let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _reaped_meanwhile = waitid(WaitId::Pid(pid), reaping());
        }
    }
}

fn reaping() -> WaitIdOptions {
    WaitIdOptions::EXITED | WaitIdOptions::NOHANG
}

/// All children that may be orphans or leaders of this thread's: those of our first thread, to
/// which the kernel gives orphans, and those of this one, to which a job can add siblings of its
/// leader. A look at the lists of all threads costs as much as the rest of a short job's end. By a
/// look at all processes where the kernel was built without such lists.
fn all() -> Vec<u32> {
    lists().unwrap_or_else(|_there_is_no_list| {
        let own = std::process::id();
        let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| fence::stat(*pid).is_some_and(|stat| stat.parent == own))
            .collect()
    })
}

fn lists() -> io::Result<Vec<u32>> {
    thread_local! {
        /// Kept open: to open one costs more than to read it. Each is filled when first read, and
        /// is of no use to another process.
        static LISTS: OnceCell<Vec<File>> = const { OnceCell::new() };
    }
    LISTS.with(|lists| {
        let lists = match lists.get() {
            Some(lists) => lists,
            None => {
                let opened = open_lists()?;
                lists.get_or_init(|| opened)
            }
        };
        let mut pids = Vec::new();
        for list in lists {
            let text = read_anew(list)?;
            pids.extend(text.split(u8::is_ascii_whitespace).filter_map(|word| {
                str::from_utf8(word).ok().and_then(|word| word.parse::<u32>().ok())
            }));
        }
        Ok(pids)
    })
}

fn open_lists() -> io::Result<Vec<File>> {
    let threads = [rustix::process::getpid(), rustix::thread::gettid()];
    let threads = if threads[0] == threads[1] { &threads[..1] } else { &threads[..] };
    threads.iter().map(|thread| File::open(format!("/proc/self/task/{thread}/children"))).collect()
}

/// From the beginning, where the kernel makes the text anew.
fn read_anew(list: &File) -> io::Result<Vec<u8>> {
    let (mut text, mut length) = (vec![0; 256], 0);
    loop {
        match list.read_at(&mut text[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
        if length == text.len() {
            text.resize(length * 2, 0);
        }
    }
    text.truncate(length);
    Ok(text)
}
