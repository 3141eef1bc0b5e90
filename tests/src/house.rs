//! A test's own folder, and the certainty that nothing lives in it when the test is over.
//!
//! Killing the children is not enough: a worker that was killed leaves jobs, and jobs leave
//! daemons. Whoever has the house in its environment, as its working folder or among its open
//! files came from this test, however it was started.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::wait;

/// A folder that is removed at the end, unless the test failed.
#[derive(Debug)]
pub(crate) struct House {
    root: PathBuf,
    patience: Duration,
}

/// A process that came from this test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Its number.
    pub pid: u32,
    /// Its command line, words separated by spaces.
    pub command: String,
}

impl House {
    pub(crate) fn new(patience: Duration) -> Self {
        let test = thread::current().name().unwrap_or("test").replace("::", "-");
        let prefix = format!("brainstem-{test:.60}-");
        let root = tempfile::Builder::new().prefix(&prefix).tempdir().expect("make the house");
        // The kernel shows paths without links; so do we, or nothing would be recognised.
        let root = root.keep().canonicalize().expect("the house is there");
        let house = Self { root, patience };
        for room in ["home", "run", "tmp", "out"] {
            let mut builder = fs::DirBuilder::new();
            builder.mode(0o700).create(house.room(room)).expect("make a room of the house");
        }
        house
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn room(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Everybody who lives here.
    pub(crate) fn alive(&self) -> Vec<Alive> {
        let processes = fs::read_dir("/proc").expect("list the processes");
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|&pid| pid != std::process::id() && lives_in(&self.root, pid))
            .map(|pid| Alive { pid, command: command(pid) })
            .collect()
    }

    /// Ends everybody who lives here, and whoever they start meanwhile.
    fn clear(&self) -> Result<(), Vec<Alive>> {
        let empty = wait::until(wait::default_patience(), || {
            let alive = self.alive();
            alive.iter().for_each(|one| self.kill(one.pid));
            alive.is_empty().then_some(())
        });
        empty.ok_or_else(|| self.alive())
    }

    /// The number may be another's by now: looked at once more while a handle holds it.
    fn kill(&self, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if lives_in(&self.root, pid.as_raw_pid().unsigned_abs()) {
            // An error means that it is gone, which is what was wanted.
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let cleared = self.clear();
        if thread::panicking() {
            eprintln!("the house of this test is kept: {}", self.root.display());
            return;
        }
        if let Err(alive) = cleared {
            panic!("these processes could not be ended: {alive:?}");
        }
        fs::remove_dir_all(&self.root).expect("remove the house");
    }
}

/// What a process that is gone (or not ours to look at) shows is nothing, so it does not match.
fn lives_in(house: &Path, pid: u32) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    let inside = |link: &Path| fs::read_link(link).is_ok_and(|to| to.starts_with(house));
    contains(&environment, house.as_os_str())
        || inside(&process.join("cwd"))
        || fs::read_dir(process.join("fd"))
            .is_ok_and(|mut files| files.any(|file| file.is_ok_and(|file| inside(&file.path()))))
}

fn contains(bytes: &[u8], text: &OsStr) -> bool {
    let text = text.as_bytes();
    bytes.windows(text.len()).any(|window| window == text)
}

fn command(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned()
}

/// What a failed wait shows: where every process got to, and what the pool holds.
pub(crate) fn scene(root: &Path) -> String {
    let mut text = format!("house: {}\n", root.display());
    let outputs = files_below(&root.join("out"));
    for path in outputs.iter().filter(|path| path.extension().is_some_and(|ext| ext == "stderr")) {
        let _ = writeln!(text, "--- {}", path.strip_prefix(root).unwrap_or(path).display());
        text += &tail(path);
    }
    text += "--- the pool\n";
    for path in files_below(&root.join("pool")).iter().take(100) {
        let _ = writeln!(text, "{}", path.strip_prefix(root).unwrap_or(path).display());
    }
    text
}

fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let mut tail = lines[lines.len().saturating_sub(30)..].join("\n");
    tail.push('\n');
    tail
}

/// Every file below a folder, in order. Whatever moves meanwhile may be missed or seen twice.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_gone) => {}
        }
    }
    found.sort();
    found
}
