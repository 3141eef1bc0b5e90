//! Lost power: a scene is played once and written down; then every state that the disk may be in
//! after a power cut at any moment is made real, the pool is opened in it as after a restart of
//! the machine, and what was promised until then must hold. See [`disk`] for what is modelled.

mod disk;
mod mutants;
mod recovery;
mod scenes;
mod tree;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use shared::id::TaskId;
use shared::outcome::{Next, Outcome};
use shared::task::TaskName;

use self::disk::{Ignored, State, Trace};
use self::tree::{Tree, materialise};
use super::plug::{Notes, ends, everything, goes_on, put_right, what_must_hold_but_for_copies};
use crate::dir::Pool;
use crate::dir::fault::{self, Done};
use crate::dir::fixture::{pool_at, scratch};
use crate::dir::presence::lease;
use crate::dir::recover::reconcile;
use crate::dir::submit::keys::Keys;
use crate::wire::ledger_line::Line;

/// What was said to somebody, and holds from then on.
#[derive(Clone, Debug)]
enum Promise {
    /// These are submitted.
    Submitted(Vec<TaskId>),
    /// This attempt has ended, and this follows.
    Ended(TaskName, Next, TaskName),
    /// A person's cancel was heard.
    CancelHeard(TaskId),
    /// This task was submitted under this key.
    Keyed(&'static str, TaskId),
}

/// Where a scene is played.
struct Stage {
    pool: Pool,
    promises: RefCell<Vec<Promise>>,
    together: RefCell<Vec<TaskId>>,
}

impl Stage {
    fn promise(&self, promise: Promise) {
        let mut promises = self.promises.borrow_mut();
        promises.push(promise);
        fault::mark(promises.len());
    }

    fn ended(&self, line: &Line, name: TaskName) {
        self.promise(Promise::Ended(name, line.next, line.next_name));
    }
}

/// What is there before, flushed, and what happens then.
struct Scene<'a, T> {
    prepare: &'a dyn Fn(&Stage) -> T,
    act: &'a dyn Fn(&Stage, T),
}

/// Plays the scene; checks every state that a power cut may leave. At least so many.
fn play<T>(at_least: usize, scene: &Scene<'_, T>) {
    match play_without(scene, &|_done| false) {
        Ok(states) => assert!(states >= at_least, "there were only {states}"),
        Err(panic) => resume_unwind(panic),
    }
}

/// The same, with some flushes taken out. How many states there are, or what does not hold.
fn play_without<T>(scene: &Scene<'_, T>, ignored: Ignored<'_>) -> Result<usize, Panic> {
    let home = scratch();
    let root = home.path().join("pool");
    let (promises, together) = (RefCell::default(), RefCell::default());
    let stage = Stage { pool: pool_at(&root), promises, together };
    let prepared = (scene.prepare)(&stage);
    let before = stage.promises.borrow().len();
    let tree = Tree::read(&root);
    fault::record();
    (scene.act)(&stage, prepared);
    let done = fault::recorded();
    let whole = Trace::new(&root, tree.clone(), &done, &|_done| false);
    assert!(whole.after.paths() == Tree::read(&root).paths(), "a change was not written down");
    let trace = Trace::new(&root, tree, &done, ignored);
    let states = trace.states();
    for state in &states {
        let told = catch_unwind(AssertUnwindSafe(|| check(&stage, before, state)));
        if let Err(panic) = told {
            eprintln!("{}\nin the state: {}", trace.story(), state.how);
            state.paths.keys().for_each(|path| eprintln!("  {path}"));
            return Err(panic);
        }
    }
    println!("{} states", states.len());
    Ok(states.len())
}

type Panic = Box<dyn std::any::Any + Send>;

fn check(stage: &Stage, before: usize, state: &State) {
    let home = scratch();
    let root = home.path().join("pool");
    materialise(&state.paths, &root, &lease::boot_id());
    let promises = stage.promises.borrow();
    let promises = &promises[..state.mark.unwrap_or(before)];
    let acknowledged = promises.iter().filter_map(|promise| match promise {
        Promise::Submitted(ids) => Some(ids.clone()),
        Promise::Ended(..) | Promise::CancelHeard(_) | Promise::Keyed(..) => None,
    });
    let notes = Notes {
        acknowledged: acknowledged.flatten().collect(),
        together: stage.together.borrow().clone(),
    };
    let pool = pool_at(&root);
    put_right(&pool).unwrap();
    what_must_hold_but_for_copies(&pool, &notes);
    promises.iter().for_each(|promise| keeps(&pool, promise));
    // Again: nothing is left to do.
    let found = snapshot(&pool);
    let again = reconcile::reconcile(&pool).unwrap();
    put_right(&pool).unwrap();
    assert_eq!((again.moved, snapshot(&pool)), (0, found), "recovery does not come to an end");
    goes_on(&pool);
}

/// Where everything is, and which attempts have ended.
fn snapshot(pool: &Pool) -> Snapshot {
    let there = everything(pool).into_iter().map(|found| (found.place.state(), found.name));
    let (mut there, mut ended): (Vec<_>, Vec<_>) = (there.collect(), ends(pool));
    there.sort();
    ended.sort();
    (there, ended)
}

type Snapshot = (Vec<(&'static str, TaskName)>, Vec<(TaskId, u32)>);

fn keeps(pool: &Pool, promise: &Promise) {
    match promise {
        Promise::Submitted(_) => {}
        Promise::Ended(name, next, next_name) => {
            let lines = crate::dir::ledger::search::lines_of(pool.layout(), name.id).unwrap();
            let line = lines.iter().find(|line| line.attempt == name.attempt);
            let line = line.unwrap_or_else(|| panic!("forgotten: the end of {name}"));
            assert_eq!((line.next, line.next_name), (*next, *next_name));
            let there = everything(pool).into_iter().find(|found| found.name.id == name.id);
            match there {
                Some(found) => {
                    assert!(*next != Next::End, "it has ended, and is {found:?}");
                    assert!(found.name.attempt >= next_name.attempt, "again: {found:?}");
                }
                None => assert!(*next == Next::End || lines.iter().any(|l| l.next == Next::End)),
            }
        }
        Promise::CancelHeard(id) => {
            let lines = crate::dir::ledger::search::lines_of(pool.layout(), *id).unwrap();
            let ends: Vec<_> = lines.iter().map(|line| line.outcome).collect();
            assert_eq!(ends, [Outcome::Cancelled], "its cancel was heard");
        }
        Promise::Keyed(key, id) => {
            assert_eq!(Keys::wait(pool).unwrap().find(key).unwrap(), Some(*id), "its key is free");
        }
    }
}

/// Whether it is a flush of such a path, or of all (`*`).
fn is_flush_of(done: &Done, part: &str) -> bool {
    match done {
        Done::FlushedFile(path) | Done::FlushedDir(path) => path.to_string_lossy().contains(part),
        Done::FlushedAll => part == "*",
        Done::MadeDir(_)
        | Done::Made(_)
        | Done::Appended(..)
        | Done::Rewrote(..)
        | Done::Moved(..)
        | Done::Removed(_)
        | Done::RemovedTree(_)
        | Done::Mark(_) => false,
    }
}
