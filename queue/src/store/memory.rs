//! The smallest store: a map under a lock. It keeps the contract honest, and lets what is built on
//! the seam be tested without a disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::id::TaskId;
use shared::name::Name;
use shared::outcome::{Cause, Next, Outcome};
use shared::task::{Task, TaskName};
use shared::time::Moment;

use super::dependency::Dependency;
use super::start::{Start, released, start_of};
use super::{Answer, Claimed, SettleAnswer, State, Store, TaskVerb, Whereabouts, Wish};
use crate::Error;
use crate::wire::lane::Requirements;
use crate::wire::ledger_line::Line;
use crate::wire::retry::{self, AttemptEnd, Policy, Verdict};

/// A store that ends with the process.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    tasks: BTreeMap<TaskId, Entry>,
    /// When the delay of a delayed task is over.
    due: HashMap<TaskId, Moment>,
    history: Vec<Line>,
    seats: BTreeSet<Name>,
    /// Attempts that a worker was asked to cancel.
    cancels: BTreeSet<TaskName>,
}

#[derive(Debug)]
struct Entry {
    task: Task,
    name: TaskName,
    state: State,
}

/// A worker's life; it ends when this is dropped.
#[derive(Debug)]
pub struct Seat(MemoryStore, Name);

/// A claimed task: its store, the attempt's name and the task itself.
#[derive(Debug)]
pub struct MemoryClaim(MemoryStore, TaskName, Task);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.tables().seats.remove(&self.1);
    }
}

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn insert(&mut self, task: &Task) {
        let name = TaskName::first(task.id);
        self.tasks.insert(task.id, Entry { task: task.clone(), name, state: State::Pending });
        self.start(task.id, start_of(task));
    }

    fn set(&mut self, id: TaskId, state: State) {
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.state = state;
        }
    }

    fn start(&mut self, id: TaskId, start: Start) {
        let state = match start {
            Start::Pending => State::Pending,
            Start::Waiting => State::Waiting,
            Start::Held => State::Held,
            Start::Delayed(until) => {
                self.due.insert(id, until);
                State::Delayed
            }
        };
        self.set(id, state);
    }

    fn carry_out(&mut self, line: &Line) {
        let state = match line.next {
            Next::End | Next::Rejected => State::Ended(line.outcome),
            Next::Failed => State::Failed,
            Next::Pending => State::Pending,
            Next::Delayed(until) => {
                self.due.insert(line.id, until);
                State::Delayed
            }
        };
        if let Some(entry) = self.tasks.get_mut(&line.id) {
            (entry.state, entry.name) = (state, line.next_name);
        }
        self.history.push(line.clone());
    }

    fn cancel(&mut self, id: TaskId, cause: Cause) {
        let Some(entry) = self.tasks.get(&id) else { return };
        let verdict = Verdict::Cancelled(cause);
        let end = AttemptEnd::for_good(entry.name, Moment::now());
        let line = Line::new(entry.task.clone(), entry.name, verdict, end);
        self.carry_out(&line);
    }

    fn dependency(&self, id: TaskId) -> Dependency {
        let Some(entry) = self.tasks.get(&id) else { return Dependency::Open };
        match entry.state {
            State::Ended(outcome) => Dependency::Ended(outcome),
            State::Failed => Dependency::Ended(Outcome::Failed),
            State::Waiting
            | State::Held
            | State::Delayed
            | State::Pending
            | State::Processing { .. }
            | State::Ending => Dependency::Open,
        }
    }

    fn due(&self, now: Moment) -> Vec<TaskId> {
        let delayed = self.tasks.iter().filter(|(_id, entry)| entry.state == State::Delayed);
        let due = |id: &TaskId| self.due.get(id).is_none_or(|until| *until <= now);
        delayed.map(|(id, _entry)| *id).filter(due).collect()
    }

    fn decided(&self) -> Vec<(TaskId, crate::store::dependency::Readiness)> {
        let waiting = self.tasks.iter().filter(|(_id, entry)| entry.state == State::Waiting);
        let verdict = |entry: &Entry| {
            let after = entry.task.spec.after.iter();
            let after = after.filter_map(|a| a.id().parse().ok().map(|id| (id, a.on())));
            crate::store::dependency::verdict(&after.collect::<Vec<_>>(), |id| self.dependency(id))
        };
        waiting.map(|(id, entry)| (*id, verdict(entry))).collect()
    }
}

impl Store for MemoryStore {
    type Seat = Seat;
    type Claim = MemoryClaim;

    fn submit(&self, task: &Task) -> Result<(), Error> {
        self.submit_all(std::slice::from_ref(task))
    }

    fn submit_all(&self, tasks: &[Task]) -> Result<(), Error> {
        let mut tables = self.tables();
        tasks.iter().for_each(|task| tables.insert(task));
        Ok(())
    }

    fn join(&self, worker: &Name) -> Result<Option<Seat>, Error> {
        let mut tables = self.tables();
        let theirs = State::Processing { worker: worker.clone() };
        let unsettled = tables.tasks.values().any(|entry| entry.state == theirs);
        if unsettled || !tables.seats.insert(worker.clone()) {
            return Ok(None);
        }
        Ok(Some(Seat(self.clone(), worker.clone())))
    }

    fn claim(&self, seat: &mut Seat, wish: &Wish<'_>) -> Result<Option<MemoryClaim>, Error> {
        let mut tables = self.tables();
        let rank = |entry: &Entry| {
            let class = wish.classes.iter().position(|class| *class == entry.task.class())?;
            let open =
                entry.state == State::Pending && (wish.open)(&Requirements::of(&entry.task, &[]));
            open.then_some((std::cmp::Reverse(entry.task.priority()), class, entry.name.id))
        };
        let first = tables
            .tasks
            .values()
            .filter_map(|entry| Some((rank(entry)?, entry)))
            .min_by_key(|(rank, _)| *rank);
        let Some((name, task)) = first.map(|(_rank, entry)| (entry.name, entry.task.clone()))
        else {
            return Ok(None);
        };
        tables.set(name.id, State::Processing { worker: seat.1.clone() });
        Ok(Some(MemoryClaim(self.clone(), name, task)))
    }

    fn find(&self, id: TaskId) -> Result<Option<Whereabouts>, Error> {
        let tables = self.tables();
        let found = tables.tasks.get(&id);
        Ok(found.map(|entry| Whereabouts { name: entry.name, state: entry.state.clone() }))
    }

    fn change(&self, id: TaskId, verb: TaskVerb) -> Result<Answer, Error> {
        let mut tables = self.tables();
        let Some(Entry { task, name, state }) = tables.tasks.get(&id) else {
            return Ok(Answer::Unknown);
        };
        let (task, name, state) = (task.clone(), *name, state.clone());
        match (verb, state) {
            (TaskVerb::Cancel, State::Processing { worker }) => {
                tables.cancels.insert(name);
                return Ok(Answer::Asked { worker });
            }
            (TaskVerb::Cancel, State::Waiting | State::Held | State::Delayed | State::Pending) => {
                tables.cancel(id, Cause::Cancelled);
            }
            (TaskVerb::Hold, State::Waiting | State::Delayed | State::Pending) => {
                tables.set(id, State::Held);
            }
            (TaskVerb::Release, State::Held) if !task.spec.after.is_empty() => {
                tables.set(id, State::Waiting);
            }
            (TaskVerb::Release, State::Held) => tables.start(id, released(&task, Moment::now())),
            (TaskVerb::Retry, State::Failed) => {
                tables.start(id, released(&task, Moment::now()));
                if let Some(entry) = tables.tasks.get_mut(&id) {
                    entry.name = name.retried();
                }
            }
            (TaskVerb::Cancel | TaskVerb::Hold | TaskVerb::Release | TaskVerb::Retry, state) => {
                return Ok(Answer::NotThere(state));
            }
        }
        Ok(Answer::Done)
    }

    fn settle(&self, worker: &Name) -> Result<SettleAnswer, Error> {
        let mut tables = self.tables();
        if tables.seats.contains(worker) {
            return Ok(SettleAnswer::Living);
        }
        let theirs = State::Processing { worker: worker.clone() };
        let left = tables.tasks.values().filter(|entry| entry.state == theirs);
        let left: Vec<_> = left.map(|entry| (entry.name, entry.task.clone())).collect();
        let settled = left.len() as u64;
        for (name, task) in left {
            let verdict = match tables.cancels.remove(&name) {
                true => Verdict::Cancelled(Cause::Cancelled),
                false => Verdict::WorkerDied,
            };
            let policy = Policy::default().of(&task);
            let end = retry::next(name, verdict, &policy, Moment::now(), fastrand::f64());
            tables.carry_out(&Line::new(task, name, verdict, end));
        }
        Ok(SettleAnswer::Dead { settled, left: 0 })
    }

    fn promote(&self, now: Moment) -> Result<u64, Error> {
        let mut tables = self.tables();
        let mut moved = 0;
        for id in tables.due(now) {
            tables.set(id, State::Pending);
            moved += 1;
        }
        for (id, verdict) in tables.decided() {
            let Some(task) = tables.tasks.get(&id).map(|entry| entry.task.clone()) else {
                continue;
            };
            match verdict {
                crate::store::dependency::Readiness::Wait => continue,
                crate::store::dependency::Readiness::Ready => {
                    tables.start(id, released(&task, Moment::now()))
                }
                crate::store::dependency::Readiness::Hopeless(_needed) => {
                    tables.cancel(id, Cause::DependencyFailed)
                }
            }
            moved += 1;
        }
        Ok(moved)
    }
}

impl Claimed for MemoryClaim {
    fn task(&self) -> &Task {
        &self.2
    }

    fn name(&self) -> TaskName {
        self.1
    }

    fn end(self, line: &Line) -> Result<(), (Self, Error)> {
        self.0.tables().carry_out(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::exercise;

    #[test]
    fn a_store_in_memory_keeps_the_contract() {
        exercise(MemoryStore::default);
    }
}
