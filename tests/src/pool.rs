//! A pool in a house of its own: starts the programs, asks them, waits for what they do.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, io};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::Value;

use crate::evidence::{self, Mark};
use crate::house::{self, Alive, House};
use crate::process::{Proc, Ran};
use crate::{FakeGpu, fake_gpus, programs, wait};

/// A pool, and everything that a test starts in it. Programs see `$BRAINSTEM_POOL`, an empty
/// `$HOME` (their working folder), `$XDG_RUNTIME_DIR`, `$TMPDIR`, `$TZ`, `$LANG`, no GPU, and a
/// `$PATH` on which `fake-job` and the programs of the workspace are found; nothing else.
#[derive(Debug)]
pub struct Pool {
    house: House,
    environment: Mutex<Vec<(OsString, OsString)>>,
    started: AtomicU32,
    /// How many lines each log had when the last program that writes it was started.
    before: Mutex<BTreeMap<String, usize>>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Pool {
    /// An empty house. The pool itself is made by the first program that makes one.
    #[must_use]
    pub fn new() -> Self {
        Self::with_patience(wait::default_patience())
    }

    /// One in which waits end after this long. For tests that expect to wait in vain.
    #[must_use]
    pub fn with_patience(patience: Duration) -> Self {
        let house = House::new(patience);
        let mut path = programs::target().into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let environment = [
            ("PATH", path),
            ("HOME", house.room("home").into()),
            ("XDG_RUNTIME_DIR", house.room("run").into()),
            ("TMPDIR", house.room("tmp").into()),
            ("BRAINSTEM_POOL", house.room("pool").into()),
            // The machine's own GPUs are not this test's.
            ("BRAINSTEM_NVML", house.room("no-nvidia-library").into()),
            // Nor are its model servers.
            ("BRAINSTEM_OLLAMA_BASE_PORT", "off".into()),
            ("TZ", "UTC".into()),
            ("LANG", "C.UTF-8".into()),
        ];
        let environment = environment.map(|(key, value)| (key.into(), value)).into();
        let before = Mutex::default();
        Self { house, environment: Mutex::new(environment), started: AtomicU32::new(0), before }
    }

    /// The pool's folder.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.house.room("pool")
    }

    /// The home folder, in which every program is started. Here tests put their own files.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.house.room("home")
    }

    /// A path in the home folder as text, for command lines.
    ///
    /// # Panics
    ///
    /// When the temporary folder is not UTF-8.
    #[must_use]
    pub fn at(&self, name: &str) -> String {
        self.home().join(name).into_os_string().into_string().expect("a UTF-8 path")
    }

    /// Sets a variable for every program started from now on.
    ///
    /// # Panics
    ///
    /// When a thread panicked while it did the same.
    pub fn env(&self, key: &str, value: impl Into<OsString>) {
        let mut environment = self.environment.lock().expect("nobody panics in here");
        environment.retain(|(known, _)| known != key);
        environment.push((key.into(), value.into()));
    }

    /// Gives the house these GPUs, or changes them under the programs that run.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    pub fn fake_gpus(&self, gpus: &[FakeGpu]) {
        let state = self.house.room("gpus");
        let text: String = gpus.iter().map(ToString::to_string).collect();
        replace(&state, &text);
        self.env("FAKE_NVML", state);
        self.env("BRAINSTEM_NVML", fake_gpus::library());
    }

    /// Writes the pool's settings, `pool.toml`.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write_toml(&self, text: &str) {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(self.dir());
        made.expect("make the pool's folder");
        replace(&self.dir().join("pool.toml"), text);
    }

    /// A program of the workspace, ready to be started in this house.
    ///
    /// # Panics
    ///
    /// When it is not built, or older than its sources.
    #[must_use]
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let program = programs::program(program);
        self.foreign(program.to_str().expect("a UTF-8 path"), args)
    }

    /// Starts a command made with [`Pool::command`], in a process group of its own.
    pub fn start(&self, command: &mut Command) -> Proc {
        use std::os::unix::process::CommandExt as _;
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let name = format!("{number:02}-{}", program.to_string_lossy());
        if let Some(log) = log_of(program, command.get_args()) {
            let lines = evidence::lines(&self.log_file(&log)).len();
            self.before.lock().expect("nobody panics in here").insert(log, lines);
        }
        Proc::start(&self.house, &name, command.process_group(0))
    }

    /// Starts a brain.
    pub fn brain(&self, args: &[&str]) -> Proc {
        self.start(&mut self.command("brain", args))
    }

    /// Starts a worker.
    pub fn worker(&self, args: &[&str]) -> Proc {
        self.start(&mut self.command("worker", args))
    }

    /// Another program of the machine, in this house.
    ///
    /// # Panics
    ///
    /// When a thread panicked while it changed the environment.
    #[must_use]
    pub fn foreign(&self, program: &str, args: &[&str]) -> Command {
        let environment = self.environment.lock().expect("nobody panics in here").clone();
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(environment);
        command.current_dir(self.home()).stdin(Stdio::null());
        command
    }

    /// Runs `queue` to its end. For one that goes on, [`Pool::start`] it.
    #[must_use = "look at it, or call .success()"]
    pub fn queue(&self, args: &[&str]) -> Ran {
        self.start(&mut self.command("queue", args)).end()
    }

    /// Runs `queue` to its end with this on its stdin.
    ///
    /// # Panics
    ///
    /// When the text cannot be handed over.
    #[must_use = "look at it, or call .success()"]
    pub fn queue_with_input(&self, args: &[&str], input: &str) -> Ran {
        let file = tempfile::NamedTempFile::new_in(self.house.room("tmp")).expect("make a file");
        fs::write(file.path(), input).expect("write the input");
        let input = File::open(file.path()).expect("open the input");
        self.start(self.command("queue", args).stdin(input)).end()
    }

    /// Looks until there is something to see. Every wait of a test is one of these.
    ///
    /// # Panics
    ///
    /// When there is nothing within 30 s (`$TEST_DEADLINE`): with `what` was waited for, what
    /// every program said last, and what is in the pool.
    #[track_caller]
    pub fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        match wait::until(self.house.patience(), look) {
            Some(seen) => seen,
            None => panic!("waited in vain: {what}\n{}", house::scene(self.house.root())),
        }
    }

    /// Looks until something is true.
    #[track_caller]
    pub fn until_true(&self, what: &str, mut look: impl FnMut() -> bool) {
        self.until(what, || look().then_some(()));
    }

    /// Waits for a line of `logs/NAME.jsonl`, as [`Pool::news`] shows it.
    #[track_caller]
    pub fn until_log(&self, name: &str, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        let what = format!("a line of logs/{name}.jsonl");
        self.until(&what, || self.news(name).into_iter().find(&mut is_it))
    }

    /// Waits for an event in `logs/NAME.jsonl`, as [`Pool::news`] shows it.
    #[track_caller]
    pub fn until_event(&self, name: &str, event: &str) -> Value {
        let what = format!("event {event} in logs/{name}.jsonl");
        let is_it = |line: &Value| line["event"] == event;
        self.until(&what, || self.news(name).into_iter().find(is_it))
    }

    /// The lines of `logs/NAME.jsonl` so far; a torn one in the middle fails the test.
    #[must_use]
    pub fn log(&self, name: &str) -> Vec<Value> {
        evidence::json_lines(&self.log_file(name))
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.dir().join("logs").join(format!("{name}.jsonl"))
    }

    /// The lines since the last program that writes this log was started: what a predecessor of
    /// its name said stands there too, and is not what anybody waits for.
    ///
    /// # Panics
    ///
    /// When a thread panicked while it started a program.
    #[must_use]
    pub fn news(&self, name: &str) -> Vec<Value> {
        let before = self.before.lock().expect("nobody panics in here").get(name).copied();
        let lines = evidence::lines(&self.log_file(name));
        // A log that was rotated since has fewer.
        let since = before.unwrap_or(0).min(lines.len());
        evidence::parsed(&self.log_file(name), &lines[since..])
    }

    /// The heartbeat of a worker, where there is one.
    #[must_use]
    pub fn heartbeat(&self, worker: &str) -> Option<Value> {
        let path = self.dir().join("workers").join(format!("{worker}.json"));
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// All ledger lines of all processes, by file.
    #[must_use]
    pub fn ledger(&self) -> Vec<Value> {
        let files = house::files_below(&self.dir().join("ledger"));
        files.iter().flat_map(|file| evidence::json_lines(file)).collect()
    }

    /// The files of a place of the pool (`pending`, `processing`, `failed`, …), however deep.
    #[must_use]
    pub fn files_in(&self, place: &str) -> Vec<PathBuf> {
        house::files_below(&self.dir().join(place))
    }

    /// What jobs marked in a file of the home folder (`mark=FILE`).
    #[must_use]
    pub fn marks(&self, name: &str) -> Vec<Mark> {
        evidence::marks(&self.home().join(name))
    }

    /// Makes a FIFO in the home folder, on which jobs wait (`fifo=FILE`).
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    #[must_use]
    pub fn fifo(&self, name: &str) -> Fifo<'_> {
        let path = self.home().join(name);
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &path, FileType::Fifo, mode, 0).expect("make the FIFO");
        Fifo { pool: self, path }
    }

    /// Every process that came from this test and still lives: its programs, their jobs, theirs.
    #[must_use]
    pub fn alive(&self) -> Vec<Alive> {
        self.house.alive()
    }
}

/// A file is replaced whole: whoever reads it sees the old text or the new one.
fn replace(path: &Path, text: &str) {
    let dir = path.parent().expect("a file in the house has a folder");
    let new = tempfile::NamedTempFile::new_in(dir).expect("make a file in the house");
    fs::write(new.path(), text).expect("write a file in the house");
    new.persist(path).expect("replace a file in the house");
}

/// A hand-over between a test and a job: the job's word `fifo=FILE` blocks until the test lets go.
#[derive(Debug)]
pub struct Fifo<'a> {
    pool: &'a Pool,
    path: PathBuf,
}

impl Fifo<'_> {
    /// The word for the fake job.
    #[must_use]
    pub fn word(&self) -> String {
        format!("fifo={}", self.path.display())
    }

    /// Waits until a job stands at it.
    #[track_caller]
    pub fn until_reached(&self) -> Held {
        // The kernel refuses a writer as long as nobody reads.
        let open = || {
            let mut options = OpenOptions::new();
            let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("a small number");
            let opened = options.write(true).custom_flags(nonblocking).open(&self.path);
            match opened {
                Ok(file) => Some(Held(file)),
                Err(error) if error.raw_os_error() == Some(NO_READER) => None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
                Err(error) => panic!("open {}: {error}", self.path.display()),
            }
        };
        self.pool.until(&format!("a job at {}", self.path.display()), open)
    }

    /// Waits until a job stands at it, and lets it go on.
    #[track_caller]
    pub fn release(&self) {
        self.until_reached().release();
    }
}

/// `ENXIO`
const NO_READER: i32 = rustix::io::Errno::NXIO.raw_os_error();

/// A job that stands at a FIFO until this is released (or dropped).
#[derive(Debug)]
#[must_use = "dropping it lets the job go on"]
pub struct Held(File);

impl Held {
    /// Writes a text that it reads.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("somebody reads it");
    }

    /// Lets the job go on.
    pub fn release(self) {
        drop(self.0);
    }
}

/// The log that a brain or a worker with these words on its command line writes.
fn log_of<'a>(program: &OsStr, args: impl Iterator<Item = &'a OsStr>) -> Option<String> {
    match program.to_str()? {
        "brain" => Some("brain".to_owned()),
        "worker" => {
            let words: Vec<_> = args.filter_map(OsStr::to_str).collect();
            let after = |word: &str| {
                let at = words.iter().position(|each| *each == word)?;
                words.get(at + 1).copied()
            };
            let number = || after("--gpu").map(|gpu| format!("worker-{gpu}"));
            let name = after("--name").map(str::to_owned).or_else(number);
            Some(format!("worker-{}", name?))
        }
        _other => None,
    }
}
