//! The one mouth of every process: events go in, lines come out, at once and whole.
//!
//! A log must never be the reason why work stops: a full disk, a closed stderr or a vanished
//! directory costs lines, which are counted and told later, and never ends the process. Each
//! process numbers its lines, so a reader can prove that none is missing.

mod context;
mod crash;
mod facade;
mod line;
mod sink;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::event::{Event, Level};
use crate::id::Incarnation;
use crate::name::Name;
use crate::time::Moment;
use line::Line;
use sink::{Sink, Stderr};

pub use context::{Context, Scope, current, scope};
pub use crash::panic_text;
pub use line::Place;
pub use sink::{Compress, Rotation};

/// What goes to stderr beside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StderrForm {
    /// Lines for people: local time, process, sentence.
    Text,
    /// The lines of the file.
    Json,
    /// Nothing.
    Off,
}

/// How a process logs.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// What stands in brackets before each line for people, as in `worker-1`.
    pub process: String,
    /// The worker that this process is, if it is one.
    pub worker_id: Option<Name>,
    /// This life of the process.
    pub incarnation: Incarnation,
    /// What goes to stderr.
    pub stderr: StderrForm,
    /// What matters less than this is not said.
    pub level: Level,
}

/// The process has a log already.
#[derive(Debug, thiserror::Error)]
#[error("the log of this process was started before")]
pub struct AlreadyStarted;

static LOG: OnceLock<Handle> = OnceLock::new();

/// Starts the log of this process: on stderr at once, in a file from [`Handle::attach_file`] on.
/// What was said before that goes to the file then. Panics become events from here on.
pub fn init(config: LogConfig) -> Result<Handle, AlreadyStarted> {
    let handle = Handle::new(config);
    LOG.set(handle.clone()).map_err(|_there_is_one| AlreadyStarted)?;
    facade::install(handle.clone());
    crash::install(handle.clone());
    Ok(handle)
}

/// Says one event. Use [`emit!`](crate::emit), which fills in the place. Without a log that was
/// started nothing is said: libraries may be used on their own.
pub fn emit(event: &Event, place: Place) {
    if let Some(log) = LOG.get() {
        log.emit(event, place);
    }
}

/// Says one event: `emit!(Event::WorkerStarting { worker })`.
#[macro_export]
macro_rules! emit {
    ($event:expr $(,)?) => {
        $crate::log::emit(
            &$event,
            $crate::log::Place { file: file!(), line: line!(), module: module_path!() },
        )
    };
}

/// The running log. Clones are the same log.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    config: LogConfig,
    stderr: Stderr,
    state: Mutex<State>,
}

struct State {
    /// The number of the next line.
    seq: u64,
    sink: Sink,
    /// Lines lost in all.
    lost: u64,
    /// Lines lost that nobody was told of.
    untold: u64,
    /// Why the last one was lost.
    error: String,
}

impl Handle {
    fn new(config: LogConfig) -> Self {
        let stderr = Stderr::default();
        let (lost, untold, error) = (0, 0, String::new());
        let state = Mutex::new(State { seq: 0, sink: Sink::early(), lost, untold, error });
        Self { shared: Arc::new(Shared { config, stderr, state }) }
    }

    /// From now on into `dir/basename.jsonl` as well, beginning with what was said so far.
    /// Only whoever holds the lock of that name may write there.
    pub fn attach_file(
        &self,
        dir: &Path,
        basename: &str,
        rotation: Rotation,
    ) -> std::io::Result<()> {
        self.attach(Sink::file(dir, basename, rotation)?);
        Ok(())
    }

    /// From now on into `path` as well, in whole lines beside those of other processes: for
    /// commands that live shortly and hold no lock.
    pub fn append_to(&self, path: &Path, rotation: Rotation) -> std::io::Result<()> {
        self.attach(Sink::append(path, rotation)?);
        Ok(())
    }

    fn attach(&self, sink: Sink) {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.sink, sink);
        for line in before.into_early() {
            state.write(&line);
        }
    }

    /// Opens the file again by its name, after somebody moved it away.
    pub fn reopen(&self) {
        let mut state = self.state();
        if let Err(error) = state.sink.reopen() {
            state.error = error.to_string();
        }
    }

    /// How many lines could not be written to the file.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.state().lost
    }

    /// How many lines could not be written to stderr.
    #[must_use]
    pub fn lost_on_stderr(&self) -> u64 {
        self.shared.stderr.lost()
    }

    /// The number of the next line, which is how many were said so far.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.state().seq
    }

    /// Whether events of this level are said.
    #[must_use]
    pub fn says(&self, level: Level) -> bool {
        level >= self.shared.config.level
    }

    /// Says one event, with the context of this thread, unless it matters too little.
    pub fn emit(&self, event: &Event, place: Place) {
        if self.says(event.level()) {
            self.say(Line::of(event, place, current(), &self.shared.config));
        }
    }

    fn say(&self, mut line: Line) {
        // A panic inside the file writer comes back here through the panic hook.
        let Some(_busy) = context::Busy::enter() else { return };
        let json = {
            let mut state = self.state();
            line.seq = state.seq;
            state.seq += 1;
            let json = line.json();
            if state.write(&json) && state.untold > 0 {
                self.tell_of_lost(&mut state);
            }
            json
        };
        match self.shared.config.stderr {
            StderrForm::Text => self.shared.stderr.write(&line.text(&self.shared.config.process)),
            StderrForm::Json => self.shared.stderr.write(&json),
            StderrForm::Off => {}
        }
    }

    fn tell_of_lost(&self, state: &mut State) {
        let lines = std::mem::take(&mut state.untold);
        let event = Event::LogDropped { lines, error: std::mem::take(&mut state.error) };
        let place = Place { file: file!(), line: line!(), module: module_path!() };
        let mut line = Line::of(&event, place, Context::default(), &self.shared.config);
        line.seq = state.seq;
        state.seq += 1;
        state.write(&line.json());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A line half written is better than no more lines at all.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the line is in the file, or kept for it.
    fn write(&mut self, line: &[u8]) -> bool {
        let written = self.sink.write(line);
        if let Err(error) = &written {
            self.lost += 1;
            self.untold += 1;
            self.error = error.to_string();
        }
        written.is_ok()
    }
}

/// Now, in one place, so that a line's two forms carry the same moment.
fn now() -> Moment {
    Moment::now()
}

#[cfg(test)]
mod tests;
