//! Who is in memory, and who waits to be: Ollama's scheduler, as it was seen to behave.
//!
//! A request for a loaded model goes straight to it. One that needs a load (or another load, for
//! options that differ) stands in a queue of limited length; loads happen one after the other, and
//! wait for the requests that run in what they put out. Nothing but the end of its requests ends a
//! model that is to be unloaded.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, io};

use serde_json::{Map, Value};

use crate::settings::{Model, Settings};

/// Options that take a load to change.
const OF_THE_LOAD: [&str; 7] =
    ["num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "shift"];
const TICK: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(crate) struct Models {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<String, Held>,
    waiting: usize,
    is_loading: bool,
}

/// A model in memory.
#[derive(Debug)]
struct Held {
    model: Model,
    options: Map<String, Value>,
    runner: Child,
    busy: usize,
    used: Instant,
    keep: Keep,
    is_leaving: bool,
}

/// How long a model stays after its last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Ever,
    For(Duration),
}

/// What a request needs.
#[derive(Debug)]
pub(crate) struct Want<'a> {
    pub(crate) name: String,
    pub(crate) model: Model,
    pub(crate) options: Map<String, Value>,
    pub(crate) keep: Option<Keep>,
    pub(crate) settings: &'a Settings,
}

/// Why there is no turn.
#[derive(Debug)]
pub(crate) enum NoTurn {
    Refused(u16, String),
    /// The client went away.
    Gone,
}

/// The right to use a model for one request.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    models: &'a Models,
    name: String,
    pub(crate) loaded_in: Duration,
}

/// A model in memory, for `/api/ps`.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) model: Model,
    pub(crate) context: u64,
    /// `None`: never.
    pub(crate) left: Option<Duration>,
}

impl Models {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.put_out(|held| held.busy == 0 && held.is_over());
        state
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, TICK);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// A turn with a model, which is loaded first if need be.
    pub(crate) fn turn(
        &self,
        want: &Want<'_>,
        gone: impl Fn() -> bool,
    ) -> Result<Turn<'_>, NoTurn> {
        let mut state = self.state();
        let mut loaded_in = Duration::ZERO;
        if !state.has(want) {
            if state.waiting >= want.settings.max_queue() {
                let text = "server busy, please try again.  maximum pending requests exceeded";
                return Err(NoTurn::Refused(503, text.to_owned()));
            }
            state.waiting += 1;
            let start = Instant::now();
            let (after, loaded) = self.load(state, want, &gone);
            state = after;
            state.waiting -= 1;
            self.changed.notify_all();
            loaded?;
            loaded_in = start.elapsed();
        }
        while state.held.get(&want.name).is_some_and(|held| held.busy >= want.settings.parallel()) {
            if gone() {
                return Err(NoTurn::Gone);
            }
            state = self.wait(state);
        }
        let Some(held) = state.held.get_mut(&want.name) else {
            return Err(NoTurn::Refused(500, "the model was unloaded meanwhile".to_owned()));
        };
        held.busy += 1;
        held.used = Instant::now();
        held.is_leaving = false;
        held.keep = want.keep.unwrap_or(held.keep);
        Ok(Turn { models: self, name: want.name.clone(), loaded_in })
    }

    fn load<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        want: &Want<'_>,
        gone: &impl Fn() -> bool,
    ) -> (MutexGuard<'a, State>, Result<(), NoTurn>) {
        loop {
            if gone() {
                return (state, Err(NoTurn::Gone));
            }
            if state.has(want) {
                return (state, Ok(()));
            }
            if !state.is_loading && state.makes_room(want) {
                break;
            }
            state = self.wait(state);
        }
        state.is_loading = true;
        let end = Instant::now() + want.model.load();
        while Instant::now() < end && !gone() {
            state = self.wait(state);
        }
        state.is_loading = false;
        let loaded = if gone() { Err(NoTurn::Gone) } else { state.take_in(want) };
        (state, loaded)
    }

    /// Puts a model out, at once or when its requests have ended.
    pub(crate) fn unload(&self, name: &str) {
        let mut state = self.state();
        if let Some(held) = state.held.get_mut(name) {
            held.is_leaving = true;
        }
        state.put_out(|held| held.busy == 0 && held.is_leaving);
        self.changed.notify_all();
    }

    pub(crate) fn list(&self) -> Vec<Listed> {
        let state = self.state();
        let listed = |(name, held): (&String, &Held)| Listed {
            name: name.clone(),
            model: held.model.clone(),
            context: held.context(),
            left: held.left(),
        };
        state.held.iter().map(listed).collect()
    }

    pub(crate) fn end_all(&self) {
        self.state().put_out(|_all| true);
    }
}

impl State {
    fn put_out(&mut self, which: impl Fn(&Held) -> bool) {
        self.held.retain(|_, held| {
            let stays = !which(held);
            if !stays {
                held.end();
            }
            stays
        });
    }

    /// Whether the model is there, alive, with these options.
    fn has(&mut self, want: &Want<'_>) -> bool {
        let wanted = of_the_load(&want.options);
        let held = self.held.get_mut(&want.name);
        held.is_some_and(|held| held.options == wanted && held.is_alive())
    }

    /// Puts out what is in the way, if nobody uses it.
    fn makes_room(&mut self, want: &Want<'_>) -> bool {
        let in_the_way = self.held.contains_key(&want.name);
        if in_the_way {
            self.put_out_idle(&want.name.clone());
            return !self.held.contains_key(&want.name);
        }
        if self.held.len() < want.settings.max_loaded() {
            return true;
        }
        let idle = self.held.iter().filter(|(_, held)| held.busy == 0);
        let oldest = idle.min_by_key(|(_, held)| held.used).map(|(name, _)| name.clone());
        oldest.is_some_and(|name| {
            self.put_out_idle(&name);
            true
        })
    }

    fn put_out_idle(&mut self, name: &str) {
        if let Some(held) = self.held.get_mut(name).filter(|held| held.busy == 0) {
            held.end();
            self.held.remove(name);
        }
    }

    fn take_in(&mut self, want: &Want<'_>) -> Result<(), NoTurn> {
        let refused = |text: &str| Err(NoTurn::Refused(500, text.to_owned()));
        match want.model.load_fault() {
            Some("die") => {
                return refused(
                    "llama-server process has terminated: exit status 1: gguf_init_from_file: \
                     failed to read tensor info\nerror loading model: failed to load model",
                );
            }
            Some("oom") => {
                return refused(
                    "llama-server process has terminated: exit status 1: ggml_backend_cuda_buffer: \
                     cudaMalloc failed: out of memory\nerror loading model: unable to allocate \
                     CUDA0 buffer",
                );
            }
            Some("stall") => return refused("timed out waiting for llama-server to start - "),
            Some(_) | None => {}
        }
        let not_started = |error: io::Error| format!("could not start the runner: {error}");
        let runner = runner().map_err(|error| NoTurn::Refused(500, not_started(error)))?;
        let held = Held {
            model: want.model.clone(),
            options: of_the_load(&want.options),
            runner,
            busy: 0,
            used: Instant::now(),
            keep: Keep::For(Duration::from_secs(300)),
            is_leaving: false,
        };
        self.held.insert(want.name.clone(), held);
        Ok(())
    }
}

fn runner() -> io::Result<Child> {
    Command::new(env::current_exe()?).arg("runner").stdin(Stdio::null()).spawn()
}

fn of_the_load(options: &Map<String, Value>) -> Map<String, Value> {
    let ours = options.iter().filter(|(name, _)| OF_THE_LOAD.contains(&name.as_str()));
    ours.map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Held {
    fn is_alive(&mut self) -> bool {
        self.runner.try_wait().is_ok_and(|ended| ended.is_none())
    }

    fn is_over(&self) -> bool {
        self.is_leaving || self.left() == Some(Duration::ZERO)
    }

    fn left(&self) -> Option<Duration> {
        match self.keep {
            _ if self.is_leaving => Some(Duration::ZERO),
            Keep::Ever => None,
            Keep::For(length) => Some(length.saturating_sub(self.used.elapsed())),
        }
    }

    fn context(&self) -> u64 {
        let asked = self.options.get("num_ctx").and_then(Value::as_u64);
        asked.unwrap_or_else(|| self.model.context())
    }

    fn end(&mut self) {
        let _ = self.runner.kill(); // it may be dead already
        let _ = self.runner.wait();
    }
}

impl Turn<'_> {
    /// Whether the model's process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.models.state().held.get_mut(&self.name).is_some_and(Held::is_alive)
    }

    pub(crate) fn context(&self) -> u64 {
        self.models.state().held.get(&self.name).map_or(0, Held::context)
    }

    /// What a fault does to the model's process.
    pub(crate) fn kill_runner(&self) {
        if let Some(held) = self.models.state().held.get_mut(&self.name) {
            held.end();
        }
    }

    /// Takes as long as a token does.
    pub(crate) fn pass(&self, length: Duration, gone: impl Fn() -> bool) -> bool {
        let end = Instant::now() + length;
        while Instant::now() < end && !gone() {
            let _state = self.models.wait(self.models.state());
        }
        !gone()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.models.state();
        if let Some(held) = state.held.get_mut(&self.name) {
            held.busy -= 1;
            held.used = Instant::now();
        }
        state.put_out(|held| held.busy == 0 && held.is_leaving);
        drop(state);
        self.models.changed.notify_all();
    }
}
