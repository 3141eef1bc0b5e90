//! Where the benchmark lives, and the programs that it starts there.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use queue::dir::recover::reconcile::ready;
use queue::dir::{Pool, Privacy, Rules};
use shared::id::TaskId;
use shared::task::{Task, parse_spec};
use shared::time::Moment;
use tempfile::TempDir;

use crate::measure;

/// A folder that is removed at the end.
#[derive(Debug)]
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new(dir: &Path) -> Self {
        let made = tempfile::Builder::new().prefix("brainstem-bench-").tempdir_in(dir);
        Self(made.unwrap_or_else(|error| panic!("make a folder in {}: {error}", dir.display())))
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn room(&self, name: &str) -> PathBuf {
        let room = self.root().join(name);
        fs::create_dir_all(&room).expect("make a folder");
        room
    }

    /// A pool of this name, made where it is missing.
    pub(crate) fn pool(&self, name: &str) -> Pool {
        open_pool(&self.root().join(name))
    }

    /// A program of the workspace, with nothing of the caller's in its environment.
    pub(crate) fn program(&self, name: &str, pool: &Pool) -> Command {
        let mut command = Command::new(tests::program(name));
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.room("home"))
            .env("XDG_RUNTIME_DIR", self.room("run"))
            .env("BRAINSTEM_POOL", pool.root())
            // The machine's own GPUs are not the benchmark's.
            .env("BRAINSTEM_NVML", self.root().join("no-nvidia-library"))
            .current_dir(self.room("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts one that goes on until it is dropped.
    pub(crate) fn start(&self, name: &str, pool: &Pool, args: &[&str]) -> Daemon {
        let said = File::options().create(true).append(true).open(self.root().join("stderr"));
        let mut command = self.program(name, pool);
        command.args(args).stderr(said.expect("open the file for what the programs say"));
        Daemon(command.spawn().expect("start a program of the workspace"))
    }

    /// A worker that takes `script` tasks, ready to claim.
    pub(crate) fn worker(&self, pool: &Pool, slots: usize) -> Daemon {
        let slots = slots.to_string();
        let args = ["--gpu", "0", "--name", "bench", "--slots", &slots, "--cpu-slots", "0"];
        let worker = self.start("worker", pool, &args);
        let name = "bench".parse().expect("a good name");
        let heartbeat = pool.layout().heartbeat(&name);
        measure::until("the worker's heartbeat", || fs::metadata(&heartbeat).ok());
        worker
    }
}

pub(crate) fn open_pool(root: &Path) -> Pool {
    let pool = Pool::create(root, Rules::default(), Privacy::Owner).and_then(ready);
    pool.unwrap_or_else(|error| panic!("open the pool: {error}"))
}

/// A program that runs in the background.
#[derive(Debug)]
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A task as a submitter would make it.
pub(crate) fn task(spec: &str) -> Task {
    Task {
        id: TaskId::new(),
        batch_id: None,
        submitted_at: Moment::now(),
        submitted_by: "bench@here".into(),
        correlation_id: shared::id::new_correlation_id(),
        spec: parse_spec(spec.as_bytes()).expect("a good task"),
    }
}

pub(crate) const TRUE: &str = r#"{"class": "script", "command": ["/bin/true"]}"#;

/// From one look to the next, when something is about to happen.
const LOOK: Duration = Duration::from_millis(1);

/// Counts the lines that are added to a pool's ledger, at the cost of what is new.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    files: Vec<(PathBuf, u64)>,
    pub(crate) seen: usize,
}

impl Ends {
    pub(crate) fn count(&mut self, pool: &Pool) -> usize {
        let found =
            queue::dir::ledger::search::files_since(pool.layout(), "").expect("list the ledger");
        for path in found {
            if !self.files.iter().any(|(known, _)| *known == path) {
                self.files.push((path, 0));
            }
        }
        for (path, offset) in &mut self.files {
            let mut new = Vec::new();
            let mut file = File::open(&*path).expect("open the ledger");
            file.seek(SeekFrom::Start(*offset)).expect("seek in the ledger");
            file.read_to_end(&mut new).expect("read the ledger");
            *offset += new.len() as u64;
            self.seen += new.iter().filter(|byte| **byte == b'\n').count();
        }
        self.seen
    }

    /// Until so many lines were added since the last wait.
    pub(crate) fn wait(&mut self, pool: &Pool, more: usize) {
        let (begun, before) = (Instant::now(), self.seen);
        let target = before + more;
        measure::until_with("tasks to end", || match self.count(pool) {
            seen if seen >= target => ControlFlow::Break(()),
            // A look takes processor time from what is measured: few while the end is far.
            seen => {
                let (done, left) = (seen - before, target - seen);
                let each = begun.elapsed().checked_div(u32::try_from(done).unwrap_or(u32::MAX));
                let left = u32::try_from(left / 4).unwrap_or(u32::MAX);
                let until_near = each.map_or(LOOK, |each| each.saturating_mul(left));
                ControlFlow::Continue(until_near.clamp(LOOK, 100 * LOOK))
            }
        });
    }
}
