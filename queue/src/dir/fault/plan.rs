//! What a test has planned for its thread, and for the threads that this one starts.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::Did;

#[derive(Debug, Default)]
enum Plan {
    #[default]
    Works,
    /// So many changes go through; after that nothing works.
    Pulled(u32),
    /// So many changes go through, then one fails with this error, then all work again.
    FailsOnce(u32, i32),
    /// The first change of this name fails with this error, all others work.
    FailsAt(&'static str, i32),
}

/// Where a gate stops whoever comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Before a change to the disk.
    Change(&'static str),
    /// Before a look at the disk.
    Look(&'static str),
    /// Somebody else has what is needed: nothing can be done until another has moved.
    Blocked(&'static str),
}

/// Lets an actor go on when it is its turn.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) Arc<dyn Fn(Stop) + Send + Sync>);

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// A [`Did`] that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    MadeDir(PathBuf),
    Made(PathBuf),
    Appended(PathBuf, Vec<u8>),
    Rewrote(PathBuf, Vec<u8>),
    Moved(PathBuf, PathBuf),
    Removed(PathBuf),
    RemovedTree(PathBuf),
    FlushedFile(PathBuf),
    FlushedDir(PathBuf),
    FlushedAll,
    /// The test has something to say at this point.
    Mark(usize),
}

impl From<Did<'_>> for Done {
    fn from(did: Did<'_>) -> Self {
        match did {
            Did::MadeDir(path) => Self::MadeDir(path.into()),
            Did::Made(path) => Self::Made(path.into()),
            Did::Appended(path, bytes) => Self::Appended(path.into(), bytes.into()),
            Did::Rewrote(path, bytes) => Self::Rewrote(path.into(), bytes.into()),
            Did::Moved(from, to) => Self::Moved(from.into(), to.into()),
            Did::Removed(path) => Self::Removed(path.into()),
            Did::RemovedTree(path) => Self::RemovedTree(path.into()),
            Did::FlushedFile(path) => Self::FlushedFile(path.into()),
            Did::FlushedDir(path) => Self::FlushedDir(path.into()),
            Did::FlushedAll => Self::FlushedAll,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    failed: Option<&'static str>,
    record: Option<Vec<Done>>,
    gate: Option<Gate>,
    refused: Option<PathBuf>,
}

/// What is planned for a thread, and for the threads that it starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Here(Arc<Mutex<State>>);

thread_local! {
    static HERE: RefCell<Here> = RefCell::default();
}

/// To be taken along into a new thread.
pub(crate) fn here() -> Here {
    HERE.with_borrow(Clone::clone)
}

impl Here {
    /// What is planned for the thread that it was taken from holds for this one too.
    pub(crate) fn adopt(self) {
        HERE.set(self);
    }
}

fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    act(&mut here().0.lock().unwrap())
}

/// Lets `n` more changes through; after that nothing works.
pub(crate) fn pull_after(n: u32) {
    with(|state| (state.plan, state.failed) = (Plan::Pulled(n), None));
}

/// Lets `n` more changes through; the next one fails with this error, those after it work.
pub(crate) fn fail_at(n: u32, errno: rustix::io::Errno) {
    let plan = Plan::FailsOnce(n, errno.raw_os_error());
    with(|state| (state.plan, state.failed) = (plan, None));
}

/// Lets the next change of this name fail with this error.
pub(crate) fn fail_where(what: &'static str, errno: rustix::io::Errno) {
    let plan = Plan::FailsAt(what, errno.raw_os_error());
    with(|state| (state.plan, state.failed) = (plan, None));
}

/// Lets nobody list this directory any more, as if it had no permission; all may again with `None`.
pub(crate) fn refuse(dir: Option<PathBuf>) {
    with(|state| state.refused = dir);
}

/// To be called before a directory is listed.
pub(crate) fn listing(dir: &Path) -> io::Result<()> {
    let refused = with(|state| state.refused.as_deref() == Some(dir));
    if refused { Err(rustix::io::Errno::ACCESS.into()) } else { Ok(()) }
}

/// Makes everything work again, like a restart.
pub(crate) fn plug_in() {
    with(|state| state.plan = Plan::Works);
}

/// The first change that did not work since the plan was made.
pub(crate) fn what_failed() -> Option<&'static str> {
    with(|state| state.failed)
}

/// Begins to write down what is changed and flushed.
pub(crate) fn record() {
    with(|state| state.record = Some(Vec::new()));
}

/// What was written down; nothing more is.
pub(crate) fn recorded() -> Vec<Done> {
    with(|state| state.record.take().unwrap_or_default())
}

/// Writes down a mark of the test's own.
pub(crate) fn mark(number: usize) {
    with(|state| state.record.iter_mut().for_each(|record| record.push(Done::Mark(number))));
}

/// To be called after each change and each flush that worked.
pub(crate) fn did(what: Did<'_>) {
    with(|state| state.record.iter_mut().for_each(|record| record.push(what.into())));
}

/// From here on this thread is an actor, as if it were a process of its own: it goes on only when
/// the gate lets it.
pub(crate) fn obey(gate: Gate) {
    HERE.set(Here::default());
    with(|state| state.gate = Some(gate));
}

/// How often `act` lists a directory or reads a file of history.
pub(crate) fn count_looks(act: impl FnOnce()) -> u32 {
    let (before, count) = (here(), Arc::new(AtomicU32::new(0)));
    let counted = count.clone();
    obey(Gate(Arc::new(move |stop| {
        if matches!(stop, Stop::Look("list" | "read ledger")) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    })));
    act();
    before.adopt();
    count.load(Ordering::Relaxed)
}

/// Whether this thread stands for a process of its own.
pub(crate) fn is_own_process() -> bool {
    with(|state| state.gate.is_some())
}

fn pass(stop: Stop) {
    // Not under the lock: others pass while this one stands there.
    let gate = with(|state| state.gate.clone());
    if let Some(gate) = gate {
        (gate.0)(stop);
    }
}

/// To be called before each look at what others may change.
pub(crate) fn look(what: &'static str) {
    pass(Stop::Look(what));
}

/// To be called before waiting for something that others let go of.
pub(crate) fn wait_until(what: &'static str, mut is_free: impl FnMut() -> bool) {
    if !is_own_process() {
        return;
    }
    pass(Stop::Look(what));
    while !is_free() {
        // Asked again and again whether it is free now; when it is, it stands there like any
        // other, and somebody else may still be first.
        while !is_free() {
            pass(Stop::Blocked(what));
        }
        pass(Stop::Look(what));
    }
}

/// To be called before each change to the disk.
pub(crate) fn step(what: &'static str) -> io::Result<()> {
    pass(Stop::Change(what));
    with(|state| {
        let error = match &mut state.plan {
            Plan::Works => return Ok(()),
            Plan::FailsAt(where_, _) if *where_ != what => return Ok(()),
            Plan::Pulled(left) | Plan::FailsOnce(left, _) if *left > 0 => {
                *left -= 1;
                return Ok(());
            }
            Plan::Pulled(_) => io::Error::other(format!("the plug was pulled before: {what}")),
            Plan::FailsOnce(_, errno) | Plan::FailsAt(_, errno) => {
                let error = io::Error::from_raw_os_error(*errno);
                state.plan = Plan::Works;
                error
            }
        };
        state.failed = state.failed.or(Some(what));
        Err(error)
    })
}
