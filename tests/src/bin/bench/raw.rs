//! The limits: the same system calls with the same flush rule, and none of our code.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// As many names as we put into a directory.
pub(crate) const NAMES: usize = 4096;

#[expect(clippy::disallowed_methods, reason = "the raw limit is made of raw calls")]
pub(crate) fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("rename");
}

/// Spawns and waits for /bin/true, its output to a new file, in as many threads as there are slots.
pub(crate) fn spawn_all(dir: &Path, slots: usize, count: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..slots {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let log = File::create_new(dir.join(number.to_string())).expect("make a log");
                    let copy = log.try_clone().expect("duplicate");
                    let mut command = Command::new("/bin/true");
                    command.stdin(Stdio::null()).stdout(log).stderr(copy);
                    assert!(command.status().expect("spawn /bin/true").success());
                }
            });
        }
    });
}

/// Write, flush, rename, flush the directory: what one durable submit cannot do without.
pub(crate) fn publish_each(staging: &Path, target: &Path, bodies: &[Vec<u8>], from: usize) {
    let directory = File::open(target).expect("open the directory");
    for (number, body) in bodies.iter().enumerate() {
        let name = (from + number).to_string();
        let staged = staging.join(&name);
        let mut file = File::create_new(&staged).expect("create");
        file.write_all(body).expect("write");
        file.sync_all().expect("flush");
        rename(&staged, &target.join(&name));
        directory.sync_all().expect("flush the directory");
    }
}

/// Directories of files, one flush of the file system, one rename, one flush.
pub(crate) fn publish_bulk(staging: &Path, target: &Path, bodies: &[Vec<u8>]) {
    fs::create_dir(staging).expect("make a directory");
    fill(staging, bodies);
    let parent = File::open(target).expect("open the directory");
    rustix::fs::syncfs(&parent).expect("flush the file system");
    let name = staging.file_name().expect("it has a name");
    rename(staging, &target.join(name));
    parent.sync_all().expect("flush the directory");
}

/// Fills numbered directories with at most so many files each. Names are made to go on.
pub(crate) fn fill(root: &Path, bodies: &[Vec<u8>]) {
    static SEGMENT: AtomicUsize = AtomicUsize::new(0);
    for chunk in bodies.chunks(NAMES) {
        let number = SEGMENT.fetch_add(1, Ordering::Relaxed);
        let dir = root.join(format!("{number:09}"));
        fs::create_dir(&dir).expect("make a directory");
        for (number, body) in chunk.iter().enumerate() {
            fs::write(dir.join(number.to_string()), body).expect("write");
        }
    }
}

/// A worker made of raw calls: the oldest directory's names, used up before it is listed again.
#[derive(Debug)]
pub(crate) struct RawWorker {
    pending: PathBuf,
    mine: PathBuf,
    ledger: File,
    line: Vec<u8>,
    names: Vec<PathBuf>,
}

impl RawWorker {
    pub(crate) fn new(root: &Path, name: &str, line: Vec<u8>) -> Self {
        let mine = root.join("processing").join(name);
        fs::create_dir_all(&mine).expect("make a directory");
        let path = root.join(format!("{name}.jsonl"));
        let ledger = File::options().create(true).append(true).open(path).expect("open a ledger");
        Self { pending: root.join("pending"), mine, ledger, line, names: Vec::new() }
    }

    /// rename + append + flush + unlink. Losing a race is a rename in vain.
    pub(crate) fn claim_and_finish(&mut self) {
        loop {
            let from = self.next();
            let to = self.mine.join(from.file_name().expect("it has a name"));
            #[expect(clippy::disallowed_methods, reason = "the raw limit is made of raw calls")]
            if fs::rename(&from, &to).is_err() {
                continue;
            }
            self.ledger.write_all(&self.line).expect("append");
            self.ledger.sync_data().expect("flush");
            fs::remove_file(&to).expect("unlink");
            return;
        }
    }

    fn next(&mut self) -> PathBuf {
        loop {
            if let Some(path) = self.names.pop() {
                return path;
            }
            let oldest = list(&self.pending).into_iter().min().expect("there is work left");
            self.names = list(&oldest);
            if self.names.is_empty() {
                // Another worker may have been first, or may be filling it.
                let _ = fs::remove_dir(&oldest);
            }
        }
    }
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}
