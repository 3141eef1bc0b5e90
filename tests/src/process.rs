//! A program that a test started, and what became of it.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
use serde_json::Value;

use crate::house::{self, House};
use crate::wait;

/// A running program. Dropping it leaves it running: the end of its [`Pool`](crate::Pool) ends it.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    what: String,
    house: PathBuf,
    patience: Duration,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Proc {
    /// Starts `command` with its output in the files `out/NAME.stdout` and `out/NAME.stderr`.
    pub(crate) fn start(house: &House, name: &str, command: &mut Command) -> Self {
        let file = |kind: &str| house.room("out").join(format!("{name}.{kind}"));
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let create = |path: &Path| Stdio::from(File::create(path).expect("create an output file"));
        command.stdout(create(&stdout)).stderr(create(&stderr));
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let what = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let child = command.spawn().unwrap_or_else(|error| panic!("start {what}: {error}"));
        let (house, patience) = (house.root().to_owned(), house.patience());
        Self { child, what, house, patience, stdout, stderr }
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn raw(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to this process alone.
    ///
    /// # Panics
    ///
    /// When it has ended and its end was already taken.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.raw(), signal)
            .unwrap_or_else(|error| panic!("signal {}: {error}", self.what));
    }

    /// Sends a signal to its whole process group, as a terminal does at Ctrl-C.
    ///
    /// # Panics
    ///
    /// When nobody is left of the group.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.raw(), signal)
            .unwrap_or_else(|error| panic!("signal the group of {}: {error}", self.what));
    }

    /// Kills it, as by a power cut of this one process, and takes its end.
    pub fn kill9(mut self) -> Ran {
        self.signal(Signal::KILL);
        self.end()
    }

    /// Asks it to end.
    pub fn term(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops it, and returns when it really stands still.
    ///
    /// # Panics
    ///
    /// When it ends instead.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = waitid(WaitId::Pid(self.raw()), WaitIdOptions::STOPPED);
        assert!(stopped.is_ok(), "{} did not stop: {stopped:?}", self.what);
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it still runs (or stands still).
    ///
    /// # Panics
    ///
    /// When the kernel does not know it.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("ask for the end of a child").is_none()
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let ended = wait::until(self.patience, || {
            self.child.try_wait().expect("ask for the end of a child")
        });
        ended.unwrap_or_else(|| {
            panic!("{} did not end\n{}", self.what, house::scene(&self.house));
        })
    }

    /// Waits for its end and takes what it printed.
    #[must_use = "look at it, or call .success()"]
    pub fn end(&mut self) -> Ran {
        let status = self.wait_exit();
        Ran { what: self.what.clone(), status, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has said so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).expect("read an output file");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a program printed and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    /// Insists that it succeeded.
    ///
    /// # Panics
    ///
    /// When it did not.
    #[track_caller]
    pub fn success(self) -> Self {
        self.code(0)
    }

    /// Insists on an exit code.
    ///
    /// # Panics
    ///
    /// When it is another.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Insists that a signal ended it.
    ///
    /// # Panics
    ///
    /// When something else did.
    #[track_caller]
    pub fn signalled(self, signal: Signal) -> Self {
        assert_eq!(self.status.signal(), Some(signal.as_raw()), "{self}");
        self
    }

    /// The one JSON value that it printed, whatever its exit code.
    ///
    /// # Panics
    ///
    /// When it printed anything else.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// The JSON values that it printed, one a line.
    ///
    /// # Panics
    ///
    /// When a line is no JSON.
    #[track_caller]
    #[must_use]
    pub fn json_lines(&self) -> Vec<Value> {
        let value = |line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{self}"))
        };
        self.stdout.lines().map(value).collect()
    }

    /// The one word that it printed: the id of what was submitted.
    ///
    /// # Panics
    ///
    /// When it failed or printed more.
    #[track_caller]
    #[must_use]
    pub fn id(self) -> String {
        let ran = self.code(0);
        let mut words = ran.stdout.split_whitespace();
        match (words.next(), words.next()) {
            (Some(id), None) => id.to_owned(),
            (_, _) => panic!("not one id\n{ran}"),
        }
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}\n{}", self.what, self.stdout)?;
        if !self.stderr.is_empty() {
            writeln!(f, "--- stderr\n{}", self.stderr)?;
        }
        write!(f, "--- {}", self.status)
    }
}
