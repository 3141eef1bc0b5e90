//! Keeps a server running as long as it is wanted: starts it, starts it again when it ended by
//! itself (after a pause that grows), and ends it.
//!
//! One thread does all of it; whoever wants something tells it, and waits until it is done.

use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};

use super::process::{Process, Start};

/// The first pause before another start, which doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Who ran so long starts with the first pause again.
const STEADY: Duration = Duration::from_secs(60);

/// What a server is started with besides what it is always started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(&'static str, String)>,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody wants it.
    Resting,
    /// Its process runs, whether or not it answers yet.
    Running { pid: u32 },
    /// It ended by itself, or could not be started, and will be started again.
    Ended { why: String },
}

enum Wish {
    Run(Words),
    Rest,
    Restart,
    /// For good.
    End,
}

/// The thread that keeps a server, and what it says of it.
#[derive(Debug)]
pub(super) struct Keeper {
    wishes: Sender<(Wish, Sender<()>)>,
    standing: Arc<Mutex<Standing>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    pub(super) fn new(start: Start) -> io::Result<Self> {
        let (wishes, wished) = bounded(0);
        let standing = Arc::new(Mutex::new(Standing::Resting));
        let keeping = Keeping {
            start,
            standing: Arc::clone(&standing),
            words: None,
            process: None,
            pause: FIRST_PAUSE,
            again: None,
            since: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name("model-server-keeper".into())
            .spawn(move || keeping.run(&wished))?;
        Ok(Self { wishes, standing, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// Returns when it was started (which does not mean that it answers already).
    pub(super) fn run(&self, words: Words) {
        self.tell(Wish::Run(words));
    }

    /// Returns when it is gone.
    pub(super) fn rest(&self) {
        self.tell(Wish::Rest);
    }

    /// Ends it, if it runs, and starts it at once, if it is wanted.
    pub(super) fn restart(&self) {
        self.tell(Wish::Restart);
    }

    /// Ends it for good. Later wishes are not heard.
    pub(super) fn end(&self) {
        self.tell(Wish::End);
        if let Some(thread) = lock(&self.thread).take() {
            // It panicked, or it ended: nothing is left to do.
            let _ended = thread.join();
        }
    }

    fn tell(&self, wish: Wish) {
        let (done, is_done) = bounded(1);
        if self.wishes.send((wish, done)).is_ok() {
            let _done = is_done.recv();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread knows.
struct Keeping {
    start: Start,
    standing: Arc<Mutex<Standing>>,
    /// `None`: it is not wanted.
    words: Option<Words>,
    process: Option<Process>,
    /// Before the next start that nobody asked for.
    pause: Duration,
    again: Option<Instant>,
    since: Instant,
}

impl Keeping {
    fn run(mut self, wished: &Receiver<(Wish, Sender<()>)>) {
        loop {
            let over = self.process.as_ref().map_or_else(never, |process| process.over.clone());
            let pause = self.again.map(|at| at.saturating_duration_since(Instant::now()));
            let again = pause.map_or_else(never, after);
            select! {
                recv(wished) -> wish => {
                    let Ok((wish, done)) = wish else { return self.stop() };
                    let is_end = matches!(wish, Wish::End);
                    self.obey(wish);
                    // Who asked may have gone.
                    let _told = done.send(());
                    if is_end {
                        return;
                    }
                }
                recv(over) -> _over => self.ended(),
                recv(again) -> _now => self.begin(),
            }
        }
    }

    fn obey(&mut self, wish: Wish) {
        match wish {
            Wish::Run(words) if self.process.is_some() && self.words.as_ref() == Some(&words) => {}
            Wish::Run(words) => {
                self.stop();
                self.words = Some(words);
                self.pause = FIRST_PAUSE;
                self.begin();
            }
            Wish::Restart => {
                self.stop();
                self.begin();
            }
            Wish::Rest | Wish::End => {
                self.words = None;
                self.stop();
                self.set(Standing::Resting);
            }
        }
    }

    fn begin(&mut self) {
        self.again = None;
        let Some(words) = &self.words else { return };
        self.since = Instant::now();
        match Process::start(&self.start, &words.args, &words.env) {
            Ok(process) => {
                self.set(Standing::Running { pid: process.pid() });
                self.process = Some(process);
            }
            Err(error) => {
                let program = self.start.program.display();
                self.later(format!("could not start `{program}`: {error}"));
            }
        }
    }

    fn stop(&mut self) {
        self.again = None;
        if let Some(process) = self.process.take() {
            process.end(self.start.grace);
        }
    }

    /// It ended by itself.
    fn ended(&mut self) {
        let Some(process) = self.process.take() else { return };
        let words = process.last_words();
        process.reap();
        if self.since.elapsed() > STEADY {
            self.pause = FIRST_PAUSE;
        }
        self.later(format!("`{}` ended: {words}", self.start.program.display()));
    }

    fn later(&mut self, why: String) {
        self.again = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.set(Standing::Ended { why });
    }

    fn set(&self, standing: Standing) {
        *lock(&self.standing) = standing;
    }
}
