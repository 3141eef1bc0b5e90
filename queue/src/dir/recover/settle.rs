//! Settling a dead worker's affairs. Whoever does it holds the worker's lease meanwhile, and says
//! so in it, so that nobody else moves anything in `processing/<worker>/`.
//!
//! For each task left there: if the ledger has a line about the attempt, what it says is carried
//! out. If not, the job may still run: its processes are found in the kernel and ended, and only
//! when none is left (`remains`) the line is written and the task put back. What may still
//! run stays where it is; the lease then says why, and whoever takes it next goes on. Every step can
//! be done again.
//!
//! The model server that the worker had started is ended beside that: no task waits for its end.

use std::path::Path;
use std::thread::Builder;

use shared::id::{Incarnation, TaskId};
use shared::name::Name;
use shared::outcome::{Cause, Next};
use shared::task::TaskName;
use shared::time::Moment;

use super::remains::{Left, Remains};
use crate::Error;
use crate::dir::disk::{listing, reject};
use crate::dir::ledger::append::Ledger;
use crate::dir::ledger::carry_out;
use crate::dir::ledger::rejection::{self, Unreadable};
use crate::dir::presence::lease::{Lease, reach, this_process};
use crate::dir::runs::cut;
use crate::dir::signal::control;
use crate::dir::{Pool, fault};
use crate::error::At as _;
use crate::fence;
use crate::uptime;
use crate::wire::fate::{Fate, Kept};
use crate::wire::lease_record::{Record, Role};
use crate::wire::ledger_line::{Line, Writer};
use crate::wire::reach::Reach;
use crate::wire::retry::{self, Verdict};

pub use super::remains::{Patience, may_go_on, obstacle_of};

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
            Ok(Fate::Kept(_)) | Err(_) => false,
            Ok(Fate::Finished(_) | Fate::PutBack { .. } | Fate::Cancelled | Fate::Rejected(_)) => {
                true
            }
        });
        tasks && self.servers.is_ok()
    }

    /// The tasks that stay, and why.
    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        let kept = |(name, fate): &(TaskName, Result<Fate, Error>)| match fate {
            Ok(Fate::Kept(obstacle)) => Some(Kept::of(*name, obstacle.clone())),
            Ok(_) | Err(_) => None,
        };
        self.fates.iter().filter_map(kept).collect()
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
    /// A person's word, where there is one.
    pub abandon: Option<Abandon<'a>>,
}

/// A person says that nothing of a task runs any more, whatever is in the way.
#[derive(Clone, Copy, Debug)]
pub struct Abandon<'a> {
    /// The task.
    pub task: TaskId,
    /// Who says so, as `user@host`.
    pub by: &'a str,
}

impl<'a> Settler<'a> {
    /// One that goes by what it finds.
    #[must_use]
    pub fn new(pool: &'a Pool, ledger: &'a Ledger, patience: Patience) -> Self {
        Self { pool, ledger, patience, abandon: None }
    }

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
        } else if record.is_some() {
            let kept = settled.kept();
            lease.write(&Record { kept, ..self.settling(worker, record.as_ref()) })?;
        }
        settled.record = record;
        Ok(settled)
    }

    /// Settles a task that its own living worker has and nobody runs. Only for the holder of that
    /// worker's lease. What never began counts as no death.
    pub fn take_up(&self, worker: &Name, name: TaskName) -> Result<Fate, Error> {
        self.settle_task(worker, name, LeftBy::Living)
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
            let end_server = || {
                let here = here.clone();
                move || {
                    here.adopt();
                    self.end_server(worker, record)
                }
            };
            let server = Builder::new().spawn_scoped(scope, end_server());
            let fate = |name| {
                let here = here.clone();
                move || {
                    here.adopt();
                    (name, self.settle_task(worker, name, LeftBy::Dead(record)))
                }
            };
            let begun = tasks.into_iter().map(|name| {
                let thread = Builder::new().spawn_scoped(scope, fate(name));
                (name, thread)
            });
            let begun: Vec<_> = begun.collect();
            // Where there is no thread for one, it comes when those that have one are through.
            let (going, left): (Vec<_>, Vec<_>) =
                begun.into_iter().partition(|(_name, thread)| thread.is_ok());
            let going = going.into_iter().filter_map(|(_name, thread)| thread.ok());
            let mut fates: Fates = going.map(|thread| thread.join().expect(NO_PANIC)).collect();
            fates.extend(left.into_iter().map(|(name, _no_thread)| fate(name)()));
            let server = server.map_or_else(|_| end_server()(), |s| s.join().expect(NO_PANIC));
            (fates, server)
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
            stopping: before.and_then(|record| record.stopping),
            dead_since: before
                .and_then(|record| record.dead_since.clone())
                .or_else(|| Some(uptime::now())),
            kept: Vec::new(),
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
        Record { role, writers: Vec::new(), dead_since: None, ..settling }
    }

    fn settle_task(
        &self,
        worker: &Name,
        name: TaskName,
        left_by: LeftBy<'_>,
    ) -> Result<Fate, Error> {
        let layout = self.pool.layout();
        let record = left_by.record();
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
        let patience = Patience { grace, ..self.patience };
        let remains = Remains { pool: self.pool, worker, record, name, task: read.as_ref().ok() };
        let word = self.abandon.filter(|word| word.task == name.id);
        let began = remains.began();
        let mut died = left_by.told(worker);
        let ended = match (remains.end(patience)?, word) {
            (Left::Nothing { ended }, _) => ended,
            (Left::Perhaps(obstacle), None) => return Ok(Fate::Kept(obstacle)),
            (Left::Perhaps(obstacle), Some(Abandon { by, .. })) => {
                died.push_str(&format!("; {by} says that its job is over, though {obstacle}"));
                Vec::new()
            }
        };
        let task = match read {
            Ok(task) => task,
            Err(problem) => return self.reject(&path, name, problem),
        };
        let cancel = control::has_cancel(layout, worker, name)?;
        let verdict = match cancel {
            true => Verdict::Cancelled(Cause::Cancelled),
            false => left_by.verdict(began),
        };
        let policy = self.pool.rules().retry.of(&task);
        let end = retry::next(name, verdict, &policy, Moment::now(), fastrand::f64());
        let mut line = Line::new(task, name, verdict, end);
        line.worker = Some(worker.clone());
        line.error_message = (!cancel || word.is_some()).then_some(died);
        line.leaked = u32::try_from(ended.len()).unwrap_or(u32::MAX);
        line.written_by = Some(self.ledger.writer().name.to_string());
        let log = layout.run_log(name.id, name.attempt);
        if let Ok(meta) = std::fs::metadata(&log) {
            line.log_path = Some(log.display().to_string());
            line.started_at = born(&meta);
            // What its job printed since somebody last looked. A log that stays too long hinders
            // nobody from running the task again.
            let cap = cut::cap(self.pool, line.task.spec.log_cap);
            let _left_long = cap.and_then(|cap| cut::cut(&log, cap));
        }
        self.ledger.append(&line)?;
        carry_out::carry_out(self.pool, &path, &line.task, &line)?;
        Ok(match cancel {
            true => Fate::Cancelled,
            false => Fate::PutBack { next: line.next, name: line.next_name, ended },
        })
    }

    /// Ends a task that cannot be understood.
    fn reject(&self, path: &Path, name: TaskName, problem: String) -> Result<Fate, Error> {
        let unreadable = Unreadable { path, name, problem: &problem };
        rejection::end(self.pool, self.ledger, unreadable)?;
        Ok(Fate::Rejected(problem))
    }

    /// Ends the model server that the worker started: nobody else would, and the GPU's memory would
    /// stay its own.
    fn end_server(&self, worker: &Name, record: Option<&Record>) -> Result<Server, Error> {
        let root = self.pool.root();
        let mark = match record {
            Some(record) => record.server.clone(),
            None => Some(fence::server_mark(root, worker)),
        };
        let Some(mark) = mark else { return Ok(Server::default()) };
        if let Some(process) = record.map(|record| &record.process) {
            match reach(self.pool, process) {
                Reach::Processes => {}
                Reach::Locks | Reach::Nothing => return Ok(Server { ended: 0, left: Some(mark) }),
                Reach::Gone => return Ok(Server::default()),
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
}

/// By whom a task was left that nobody runs.
#[derive(Clone, Copy)]
enum LeftBy<'a> {
    /// A worker that is dead, and what its lease says.
    Dead(Option<&'a Record>),
    /// A thread of the worker that settles it.
    Living,
}

impl<'a> LeftBy<'a> {
    fn record(self) -> Option<&'a Record> {
        match self {
            Self::Dead(record) => record,
            Self::Living => None,
        }
    }

    /// What the end of an attempt is whose job may have begun, or had not.
    fn verdict(self, began: bool) -> Verdict {
        match self {
            Self::Living if !began => Verdict::Returned,
            // Whoever stops a machine, or a pool, blames no task.
            Self::Dead(Some(record)) if record.stopping.is_some() => Verdict::Returned,
            Self::Living | Self::Dead(_) => Verdict::WorkerDied,
        }
    }

    fn told(self, worker: &Name) -> String {
        match self {
            Self::Dead(Some(record)) if record.stopping.is_some() => {
                format!("worker {worker} was told to stop, and ended before its job")
            }
            Self::Dead(_) => format!("worker {worker} died"),
            Self::Living => format!("no thread of worker {worker} ran it"),
        }
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

/// When a run log was made: the nearest thing to the start of a run whose worker cannot be asked.
fn born(meta: &std::fs::Metadata) -> Option<Moment> {
    let since = meta.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Moment::from_unix_millis)
}
