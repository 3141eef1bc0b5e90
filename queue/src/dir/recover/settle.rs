//! Settling a dead worker's affairs. Whoever does it holds the worker's lease meanwhile, and says
//! so in it, so that nobody else moves anything in `processing/<worker>/`.
//!
//! For each task left there: if the ledger has a line about the attempt, what it says is carried
//! out. If not, the job may still run: its processes are found in the kernel and ended, and only
//! when none is left the line is written and the task put back. Every step can be done again.
//!
//! The model server that the worker had started is ended beside that: no task waits for its end.

use std::time::Duration;

use shared::id::Incarnation;
use shared::name::Name;
use shared::outcome::{Cause, Next};
use shared::task::TaskName;
use shared::time::Moment;

use crate::Error;
use crate::dir::disk::{listing, reject};
use crate::dir::ledger::append::Ledger;
use crate::dir::ledger::carry_out;
use crate::dir::ledger::rejection::{self, Unreadable};
use crate::dir::presence::lease::{Lease, this_process};
use crate::dir::signal::control;
use crate::dir::{Pool, fault};
use crate::error::At as _;
use crate::fence::{self, Mark};
use crate::wire::fate::Fate;
use crate::wire::lease_record::{Record, Role};
use crate::wire::ledger_line::{Line, Writer};
use crate::wire::retry::{self, Verdict};

/// How long the processes of a dead worker's job are given.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From TERM to KILL, where the task does not say.
    pub grace: Duration,
    /// From KILL until they are called unkillable.
    pub give_up: Duration,
}

/// What settling came to: the fate of each task, or the error that kept one where it is.
#[derive(Debug)]
pub struct Settled {
    /// Per task, in order.
    pub fates: Vec<(TaskName, Result<Fate, Error>)>,
    /// The worker's own record, where it could be read.
    pub record: Option<Record>,
    /// Processes of its model server that were ended, or why nobody could look for them.
    pub servers: Result<u64, Error>,
}

impl Settled {
    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let tasks = self.fates.iter().all(|(_name, fate)| match fate {
            Ok(Fate::Unkillable(_) | Fate::Elsewhere(_)) | Err(_) => false,
            Ok(Fate::Finished(_) | Fate::PutBack { .. } | Fate::Cancelled | Fate::Rejected(_)) => {
                true
            }
        });
        tasks && self.servers.is_ok()
    }
}

/// Settles the affairs of dead workers, one worker per call.
#[derive(Clone, Copy, Debug)]
pub struct Settler<'a> {
    /// The pool that the dead workers were of.
    pub pool: &'a Pool,
    /// The settler's own ledger: the ends that dead workers did not record go there.
    pub ledger: &'a Ledger,
    /// How long it waits.
    pub patience: Patience,
}

impl Settler<'_> {
    /// Settles the affairs of the worker whose lease is held.
    pub fn settle(&self, lease: &Lease) -> Result<Settled, Error> {
        let record = lease.record()?;
        let worker = lease.worker();
        let tasks = listing::tasks_in(&self.pool.layout().processing_of(worker))?.tasks;
        // Where nobody knows who has written about these tasks, all of the ledger is searched. Our
        // own record would say that only we have: whoever goes on after us would find nothing.
        if !tasks.is_empty() && record.is_some() {
            lease.write(&self.settling(worker, record.as_ref()))?;
        }
        let (fates, server) = self.settle_all(worker, tasks, record.as_ref());
        let (servers, left) = match server {
            Ok(Server { ended, left }) => (Ok(ended), left),
            Err(err) => (Err(err), None),
        };
        let mut settled = Settled { fates, record: None, servers };
        if settled.is_complete() {
            control::clear_tasks(self.pool.layout(), worker)?;
            let over = Record { server: left, ..self.settled(worker, record.as_ref()) };
            lease.write(&over)?;
        }
        settled.record = record;
        Ok(settled)
    }

    /// All at the same time: a task must not wait for another one's processes, nor for the model
    /// server's. The attempt that comes next has another worker's.
    fn settle_all(
        &self,
        worker: &Name,
        tasks: Vec<TaskName>,
        record: Option<&Record>,
    ) -> (Fates, Result<Server, Error>) {
        std::thread::scope(|scope| {
            let here = fault::here();
            let server = scope.spawn({
                let here = here.clone();
                move || {
                    here.adopt();
                    self.end_server(worker, record)
                }
            });
            let fate = |name| {
                let here = here.clone();
                move || {
                    here.adopt();
                    (name, self.settle_task(worker, name, record))
                }
            };
            let threads: Vec<_> = tasks.into_iter().map(|name| scope.spawn(fate(name))).collect();
            let fates = threads.into_iter().map(|thread| thread.join().expect(NO_PANIC)).collect();
            (fates, server.join().expect(NO_PANIC))
        })
    }

    /// The process stays the worker's: on which machine, and on which start of it, the jobs ran
    /// must be known to whoever goes on with this after us.
    fn settling(&self, worker: &Name, before: Option<&Record>) -> Record {
        let me = self.ledger.writer().clone();
        let here = this_process();
        let by = format!("{} (pid {} on {})", me.name, here.pid, here.host);
        let mut writers = before.map(|record| record.writers.clone()).unwrap_or_default();
        if !writers.contains(&me) {
            writers.push(me.clone());
        }
        Record {
            worker: worker.clone(),
            role: Role::Settling(by),
            process: before.map_or(here, |record| record.process.clone()),
            life: before.map_or_else(Incarnation::default, |record| record.life.clone()),
            gpu: before.and_then(|record| record.gpu),
            writers,
            server: before.and_then(|record| record.server.clone()),
            since: Moment::now(),
        }
    }

    /// Nothing is left to do but what is said of a server. Who said goodbye did not die because
    /// somebody looked after it.
    fn settled(&self, worker: &Name, before: Option<&Record>) -> Record {
        let settling = self.settling(worker, before);
        let role = match (before.map(|record| &record.role), &settling.role) {
            (Some(Role::Over), _) => Role::Over,
            (_, Role::Settling(by)) => Role::Settled(by.clone()),
            (_, role @ (Role::Working | Role::Settled(_) | Role::Over)) => role.clone(),
        };
        Record { role, writers: Vec::new(), ..settling }
    }

    fn settle_task(
        &self,
        worker: &Name,
        name: TaskName,
        record: Option<&Record>,
    ) -> Result<Fate, Error> {
        let layout = self.pool.layout();
        let path = layout.processing_of(worker).join(name.file_name());
        let read = match reject::read_task(layout, &path, name.id) {
            Ok(Some(task)) => Ok(task),
            Ok(None) => return Ok(Fate::Finished(Next::End)),
            // It may have been a task when it was claimed: it may run, or have ended.
            Err(Error::Garbled { problem, .. }) => Err(problem),
            Err(err) => return Err(err),
        };
        if let Some(line) = self.recorded(name, record)? {
            carry_out::carry_out(self.pool, &path, &line.task, &line)?;
            return Ok(Fate::Finished(line.next));
        }
        let own_grace = read.as_ref().ok().and_then(|task| task.spec.grace_period);
        let grace = own_grace.map_or(self.patience.grace, |span| span.0);
        let ended = match self.fence(name, record, grace)? {
            Fenced::Gone(pids) => pids,
            Fenced::Unkillable(pids) => return Ok(Fate::Unkillable(pids)),
            Fenced::Elsewhere(host) => return Ok(Fate::Elsewhere(host)),
        };
        let task = match read {
            Ok(task) => task,
            Err(problem) => {
                let unreadable = Unreadable { path: &path, name, problem: &problem };
                rejection::end(self.pool, self.ledger, unreadable)?;
                return Ok(Fate::Rejected(problem));
            }
        };
        let cancel = control::has_cancel(layout, worker, name)?;
        let verdict =
            if cancel { Verdict::Cancelled(Cause::Cancelled) } else { Verdict::WorkerDied };
        let policy = self.pool.rules().retry.of(&task);
        let end = retry::next(name, verdict, &policy, Moment::now(), fastrand::f64());
        let mut line = Line::new(task, name, verdict, end);
        line.worker = Some(worker.clone());
        line.error_message = (!cancel).then(|| format!("worker {worker} died"));
        line.leaked = u32::try_from(ended.len()).unwrap_or(u32::MAX);
        line.written_by = Some(self.ledger.writer().name.to_string());
        let log = layout.run_log(name.id, name.attempt);
        if let Ok(meta) = std::fs::metadata(&log) {
            line.log_path = Some(log.display().to_string());
            line.started_at = born(&meta);
        }
        self.ledger.append(&line)?;
        carry_out::carry_out(self.pool, &path, &line.task, &line)?;
        Ok(match cancel {
            true => Fate::Cancelled,
            false => Fate::PutBack { next: line.next, name: line.next_name, ended },
        })
    }

    /// Ends the model server that the worker started: nobody else would, and the GPU's memory would
    /// stay its own.
    fn end_server(&self, worker: &Name, record: Option<&Record>) -> Result<Server, Error> {
        let (root, here) = (self.pool.root(), this_process());
        let mark = match record {
            Some(record) => record.server.clone(),
            None => Some(fence::server_mark(root, worker)),
        };
        let Some(mark) = mark else { return Ok(Server::default()) };
        if let Some(process) = record.map(|record| &record.process) {
            if process.host != here.host {
                return Ok(Server { ended: 0, left: Some(mark) });
            }
            if process.boot != here.boot {
                return Ok(Server::default());
            }
        }
        const DOING: &str = "look for the model server of a worker of";
        fault::step("end server").at(DOING, root)?;
        let fence::Killed { killed, late } = fence::end_server(&mark).at(DOING, root)?;
        Ok(Server { ended: killed, left: (late > 0).then_some(mark) })
    }

    /// The line about this attempt, if its end was recorded: by the worker, or by an earlier
    /// settler that died.
    fn recorded(&self, name: TaskName, record: Option<&Record>) -> Result<Option<Line>, Error> {
        let writers: Option<&[Writer]> = record.map(|record| record.writers.as_slice());
        crate::dir::ledger::search::line_of(self.pool.layout(), name.id, name.attempt, writers)
    }

    fn fence(
        &self,
        name: TaskName,
        record: Option<&Record>,
        grace: Duration,
    ) -> Result<Fenced, Error> {
        let here = this_process();
        if let Some(process) = record.map(|record| &record.process) {
            if process.host != here.host {
                return Ok(Fenced::Elsewhere(process.host.clone()));
            }
            if process.boot != here.boot {
                return Ok(Fenced::Gone(Vec::new()));
            }
        }
        let log = self.pool.layout().run_log(name.id, name.attempt);
        let mark = Mark::new(name.id, name.attempt, &log).at("look at", &log)?;
        let pids =
            |found: Vec<fence::FoundProcess>| found.iter().map(|process| process.pid).collect();
        let ended = fence::end(&mark, grace, self.patience.give_up);
        Ok(match ended.at("look for the processes of", &log)? {
            fence::Ended::Gone { ended } => Fenced::Gone(pids(ended)),
            fence::Ended::Unkillable(left) => Fenced::Unkillable(pids(left)),
        })
    }
}

/// What became of each task, or the error that kept it where it is.
type Fates = Vec<(TaskName, Result<Fate, Error>)>;

const NO_PANIC: &str = "settling does not panic";

/// What became of the model server of a dead worker.
#[derive(Default)]
struct Server {
    ended: u64,
    /// By what it is known, where it was not ended: it is another machine's, or cannot be killed.
    left: Option<String>,
}

enum Fenced {
    Gone(Vec<u32>),
    Unkillable(Vec<u32>),
    Elsewhere(String),
}

/// When a run log was made: the nearest thing to the start of a run whose worker cannot be asked.
fn born(meta: &std::fs::Metadata) -> Option<Moment> {
    let since = meta.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Moment::from_unix_millis)
}
