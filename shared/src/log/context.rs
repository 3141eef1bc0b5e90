//! What a thread works on: said once, carried by every line, never by another thread's lines.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;

use crate::id::TaskId;
use crate::name::Name;

/// What the lines of a piece of work have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The task worked on.
    pub task: Option<TaskId>,
    /// Which attempt at that task, from 1.
    pub attempt: Option<u32>,
    /// What the request is known by everywhere.
    pub correlation_id: Option<String>,
    /// The worker it is done for, where that is not the process itself.
    pub worker: Option<Name>,
    /// The part of the work.
    pub step: Option<String>,
}

impl Context {
    /// `self`, and from `outer` what it leaves open. Another task inherits nothing of the outer
    /// task.
    fn within(self, outer: &Self) -> Self {
        let other = self.task.is_some() && outer.task.is_some() && self.task != outer.task;
        if other {
            return Self { worker: self.worker.or_else(|| outer.worker.clone()), ..self };
        }
        Self {
            task: self.task.or(outer.task),
            attempt: self.attempt.or(outer.attempt),
            correlation_id: self.correlation_id.or_else(|| outer.correlation_id.clone()),
            worker: self.worker.or_else(|| outer.worker.clone()),
            step: self.step.or_else(|| outer.step.clone()),
        }
    }

    /// This context for a line about `task`: of another task nothing is taken over.
    pub(super) fn about(self, task: Option<(TaskId, Option<u32>)>) -> Self {
        let Some((task, attempt)) = task else { return self };
        Self { task: Some(task), attempt, ..Self::default() }.within(&self)
    }
}

thread_local! {
    static STACK: RefCell<Vec<Context>> = const { RefCell::new(Vec::new()) };
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Lines of this thread carry `context`, until the guard is dropped. Scopes nest.
#[must_use = "the scope ends when the guard is dropped"]
pub fn scope(context: Context) -> Scope {
    STACK.with_borrow_mut(|stack| {
        let context = match stack.last() {
            Some(outer) => context.within(outer),
            None => context,
        };
        stack.push(context);
        Scope { depth: stack.len() - 1, stays_on_its_thread: PhantomData }
    })
}

/// What lines of this thread carry now. A thread that goes on with this work takes it with it:
/// `let _scope = scope(context)`.
#[must_use]
pub fn current() -> Context {
    STACK.with_borrow(|stack| stack.last().cloned().unwrap_or_default())
}

/// Ends its scope, and all inside it, when dropped.
#[derive(Debug)]
pub struct Scope {
    depth: usize,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        STACK.with_borrow_mut(|stack| stack.truncate(self.depth));
    }
}

/// This thread is writing a line: what the writing itself would say is not said.
pub(super) struct Busy;

impl Busy {
    pub(super) fn enter() -> Option<Self> {
        (!BUSY.replace(true)).then_some(Self)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: &str) -> Context {
        Context { step: Some(step.into()), ..Context::default() }
    }

    #[test]
    fn scopes_nest_and_leaving_one_restores_the_outer() {
        let task = Some(TaskId::new());
        let outer = scope(Context { task, attempt: Some(2), ..Context::default() });
        {
            let _inner = scope(step("spawn"));
            assert_eq!(current(), Context { task, attempt: Some(2), ..step("spawn") });
        }
        assert_eq!(current().step, None);
        drop(outer);
        assert_eq!(current(), Context::default());
    }

    #[test]
    fn another_thread_and_another_task_inherit_nothing() {
        let (task, correlation_id) = (Some(TaskId::new()), Some("abc".to_owned()));
        let _outer = scope(Context { task, correlation_id, ..step("run") });
        let there = std::thread::spawn(current).join().unwrap();
        assert_eq!(there, Context::default());
        let other = TaskId::new();
        let about = current().about(Some((other, None)));
        assert_eq!(about, Context { task: Some(other), ..Context::default() });
        assert_eq!(current().about(None), current());
    }
}
