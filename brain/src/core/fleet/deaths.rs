//! What is said about workers that died and about what became of their tasks. The settling itself
//! is done by a thread that holds the dead worker's lease.

use std::collections::BTreeMap;

use queue::wire::brain_state::Warning;
use queue::wire::fate::{Fate, Kept};
use shared::event::{Ending, Event};
use shared::name::Name;
use shared::outcome::Next;
use shared::reason::Code;
use shared::task::TaskName;

use crate::core::detect::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::death::{Death, Left, Settlement};

/// Remembers what was said.
#[derive(Clone, Debug, Default)]
pub struct Deaths {
    tallies: BTreeMap<Name, Tally>,
    kept: Conditions<(Name, TaskName)>,
    failing: Conditions<Name>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    requeued: u64,
    ended: u64,
}

/// What became of one task that a dead worker had.
struct TaskFate<'a> {
    worker: &'a Name,
    name: TaskName,
    fate: &'a Fate,
}

impl Deaths {
    /// Says that a worker died, and counts from now on what becomes of its tasks.
    pub fn died(&mut self, death: &Death, out: &mut Vec<Command>) {
        let Death { worker, pid, tasks, last_status, completed } = death.clone();
        self.tallies.insert(worker.clone(), Tally::default());
        let name = worker.clone();
        say(out, Event::WorkerDied { worker: name, pid, completed, tasks, last_status });
        if tasks > 0 {
            say(out, Event::WorkerSettling { worker, tasks });
        }
    }

    /// Its affairs were looked through.
    pub fn settled(&mut self, at: At, settlement: &Settlement, out: &mut Vec<Command>) {
        let worker = &settlement.worker;
        match &settlement.servers {
            Ok(0) => {}
            Ok(count) => {
                let what = format!("processes of the model server that {worker} left");
                say(out, Event::Cleaned { what, count: *count });
            }
            Err(err) => self.failed(at, worker, err.to_string(), out),
        }
        match &settlement.fates {
            Err(err) => self.failed(at, worker, err.to_string(), out),
            Ok(fates) => {
                for (name, fate) in fates {
                    match fate {
                        Ok(fate) => self.fate(at, TaskFate { worker, name: *name, fate }, out),
                        Err(err) => self.failed(at, worker, err.to_string(), out),
                    }
                }
            }
        }
        if settlement.left == Left::Nothing {
            self.kept.keep(at, |(of, _name)| of != worker);
            self.failing.ended(at, worker);
            let Some(Tally { requeued, ended }) = self.tallies.remove(worker) else { return };
            let (worker, seconds) = (worker.clone(), settlement.seconds);
            say(out, Event::WorkerSettled { worker, requeued, ended, seconds });
        }
    }

    fn failed(&mut self, at: At, worker: &Name, error: String, out: &mut Vec<Command>) {
        if let Some(count) = self.failing.holds(at, worker) {
            say(out, Event::WorkerSettlingFailed { worker: worker.clone(), error, count });
        }
    }

    fn fate(&mut self, at: At, task: TaskFate<'_>, out: &mut Vec<Command>) {
        let TaskFate { worker, name, fate } = task;
        let tally = self.tallies.entry(worker.clone()).or_default();
        let key = (worker.clone(), name);
        match fate {
            Fate::Kept(obstacle) => {
                let Some((count, seconds)) = self.kept.lasts(at, &key) else { return };
                let kept = Kept::of(name, obstacle.clone());
                say(out, kept.event(seconds, count));
            }
            Fate::Finished(_) | Fate::PutBack { .. } | Fate::Cancelled | Fate::Rejected(_) => {
                match is_requeue(fate) {
                    true => tally.requeued += 1,
                    false => tally.ended += 1,
                }
                out.extend(told(worker, name, fate).into_iter().map(Command::Say));
            }
        }
    }

    /// What somebody should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let kept = self.kept.all().map(|((worker, name), since)| Warning {
            code: Code::JobMayRun.as_str().into(),
            text: format!("the job of {} on dead {worker} may still run", name.id.short()),
            since,
        });
        let failing = self.failing.all().map(|(worker, since)| Warning {
            code: "worker.dead".into(),
            text: format!("the affairs of dead {worker} cannot be settled yet"),
            since,
        });
        kept.chain(failing).collect()
    }
}

fn is_requeue(fate: &Fate) -> bool {
    match fate {
        Fate::PutBack { next, .. } | Fate::Finished(next) => match next {
            Next::Pending | Next::Delayed(_) => true,
            Next::End | Next::Failed | Next::Rejected => false,
        },
        Fate::Cancelled | Fate::Rejected(_) | Fate::Kept(_) => false,
    }
}

fn told(worker: &Name, name: TaskName, fate: &Fate) -> Vec<Event> {
    let (task, attempt) = (name.id, name.attempt);
    match fate {
        Fate::PutBack { next, name: again, ended } => {
            let (worker, deaths) = (worker.clone(), again.deaths);
            let moved = match next {
                Next::Failed => Event::TaskPoison { task, attempt, worker, deaths },
                Next::Pending | Next::Delayed(_) | Next::End | Next::Rejected => {
                    Event::TaskRequeued { task, attempt, worker, deaths }
                }
            };
            let leaked = (!ended.is_empty()).then(|| Event::JobLeaked {
                task,
                attempt,
                pids: ended.clone(),
            });
            leaked.into_iter().chain([moved]).collect()
        }
        Fate::Cancelled => {
            let ending = Ending::cancelled();
            vec![Event::ended(task, attempt, format!("task: {}", task.short()), ending)]
        }
        Fate::Rejected(reason) => {
            let file = name.file_name().into();
            vec![Event::TaskRejected { file, reason: reason.clone() }]
        }
        Fate::Finished(_) | Fate::Kept(_) => Vec::new(),
    }
}
