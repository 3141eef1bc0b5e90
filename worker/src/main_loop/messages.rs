//! What is asked of a worker: messages, standing conditions, signals.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use queue::dir::signal::control::{self, ControlVerb, Message, MessageFile};
use queue::wire::heartbeat::StandingOrder;
use queue::wire::lease_record::Record;
use shared::emit;
use shared::event::Event;
use shared::task::TaskName;
use shared::time::Moment;

use super::{MainLoop, Stopping};
use crate::job::Why;
use crate::worker_state::WayOut;

/// Whoever stops a service tells every process of it, and the brain tells its workers: two signals
/// that mean one.
const SAME_SIGNAL: Duration = Duration::from_secs(2);

impl MainLoop {
    pub(super) fn follow_messages(&mut self) -> Result<(), queue::Error> {
        let worker = self.context.worker_state.name().clone();
        for MessageFile { path, message } in control::messages(self.pool.layout(), &worker)? {
            match message {
                Ok(message) => self.follow(&path, &message)?,
                Err(err) => self.put_aside(path, &err.to_string())?,
            }
        }
        Ok(())
    }

    pub(super) fn follow(&mut self, path: &Path, message: &Message) -> Result<(), queue::Error> {
        let why = match message.verb {
            ControlVerb::Abandon => return self.let_go(path, message),
            ControlVerb::Cancel => Why::Cancelled,
            ControlVerb::Stall => Why::Stalled,
            ControlVerb::Stop => {
                received(message);
                self.begin_to_stop(Duration::ZERO);
                return control::done(path);
            }
            // These stand until they are withdrawn.
            ControlVerb::Drain | ControlVerb::Pause => return Ok(()),
        };
        let Some(name) = message.about() else { return control::done(path) };
        let stop = self.context.worker_state.look(|state| {
            state.jobs.iter().find(|job| job.name == name).map(|job| job.stop.clone())
        });
        match stop {
            // The file stays until the attempt has ended: if this worker dies before, whoever
            // settles its affairs honours it.
            Some(stop) if self.asked.insert(name) => {
                received(message);
                stop.ask(why);
                if why == Why::Cancelled {
                    self.show_way_out(name, WayOut::Cancelled);
                }
                Ok(())
            }
            Some(_asked_before) => Ok(()),
            // It ended, or was never ours: the message must not hit anything else.
            None => control::done(path),
        }
    }

    /// Of a job that runs nobody may say that nothing is left: then it is no message.
    fn let_go(&self, path: &Path, message: &Message) -> Result<(), queue::Error> {
        if let Some(name) = message.about() {
            received(message);
            self.show_way_out(name, WayOut::Abandoned { by: message.by.clone() });
        }
        control::done(path)
    }

    fn show_way_out(&self, name: TaskName, way: WayOut) {
        self.context.worker_state.update(name, |job| {
            if job.run.kept.is_some() {
                job.way_out = Some(way);
            }
        });
    }

    pub(super) fn follow_standing(&mut self) -> Result<(), queue::Error> {
        let (layout, worker) = (self.pool.layout(), self.context.worker_state.name().clone());
        let pool_pause = self.pool_pause()?.map(|message| ("pool".to_owned(), message));
        let own = control::standing(layout, &worker, ControlVerb::Pause)?;
        let paused = pool_pause.or_else(|| own.map(|message| (worker.to_string(), message)));
        let drain = control::standing(layout, &worker, ControlVerb::Drain)?;
        let standing = |(scope, message): (String, Message)| StandingOrder {
            by: message.by,
            since: message.at,
            scope,
        };
        let (paused, draining) =
            (paused.map(standing), drain.map(|m| standing((worker.to_string(), m))));
        let (was_paused, was_draining) = self
            .context
            .worker_state
            .look(|state| (state.ability.paused.clone(), state.ability.draining.clone()));
        if paused != was_paused {
            say_pause(was_paused.as_ref(), paused.as_ref());
            self.context.worker_state.change(|state| state.ability.paused = paused);
            self.search.lock().begin_anew();
        }
        if draining.is_some() && was_draining.is_none() {
            let running = self.context.worker_state.look(|state| state.jobs.len() as u64);
            emit!(Event::WorkerDraining { worker, running });
            self.context.worker_state.change(|state| state.ability.draining = draining);
        } else if draining.is_none() && was_draining.is_some() {
            self.context.worker_state.change(|state| state.ability.draining = None);
            self.search.lock().look_again();
        }
        Ok(())
    }

    /// The pause of the pool. What cannot be understood is put aside, and pauses nobody.
    fn pool_pause(&self) -> Result<Option<Message>, queue::Error> {
        match control::pool_pause(self.pool.layout()) {
            Err(queue::Error::Garbled { path, problem }) => {
                self.put_aside(path, &problem)?;
                Ok(None)
            }
            pause => pause,
        }
    }

    fn put_aside(&self, path: PathBuf, error: &str) -> Result<(), queue::Error> {
        queue::dir::disk::reject::reject(self.pool.layout(), &path, error)?;
        emit!(Event::ControlUnreadable { path, error: error.to_owned() });
        Ok(())
    }

    pub(super) fn note_signal(&mut self, signal: Option<i32>) {
        let worker = self.context.worker_state.name().clone();
        let signal = match signal {
            Some(1) => "HUP",
            Some(2) => "INT",
            Some(15) => "TERM",
            Some(_) | None => "stop",
        };
        emit!(Event::WorkerSignal { worker, signal: signal.to_owned() });
        if self.told.is_some_and(|told| told.elapsed() < SAME_SIGNAL) {
            return;
        }
        if self.told.is_none() {
            self.say_that_it_stops();
        }
        if self.told.replace(Instant::now()).is_some() || self.stopping.is_some() {
            // A second one: now.
            self.hurry = None;
            self.context.worker_state.look(|state| {
                for job in &state.jobs {
                    job.stop.kill_now(Why::Returned);
                }
            });
        } else {
            self.begin_to_stop(self.settings.shutdown_grace.0);
        }
    }

    /// For whoever settles this worker's affairs if it ends before its jobs.
    fn say_that_it_stops(&mut self) {
        let written = self.lease.record().and_then(|record| match record {
            Some(record) => self.lease.write(&Record { stopping: Some(Moment::now()), ..record }),
            None => Ok(()),
        });
        if let Err(err) = written {
            let doing = "saying in the lease that it stops".to_owned();
            emit!(Event::ProcessFailed { doing, error: err.to_string() });
        }
    }

    pub(super) fn begin_to_stop(&mut self, grace: Duration) {
        if self.stopping.is_none() {
            self.stopping = Some(Stopping::Letting { until: Instant::now() + grace });
            self.context.worker_state.change(|state| state.stopping = true);
            self.hurry_up();
        }
    }

    /// When the time to finish is over, what still runs is given back.
    pub(super) fn hurry_up(&mut self) {
        let Some(Stopping::Letting { until }) = self.stopping else { return };
        if Instant::now() >= until {
            self.stopping = Some(Stopping::Returning);
            self.context.worker_state.look(|state| {
                for job in &state.jobs {
                    job.stop.ask(Why::Returned);
                }
            });
        }
    }
}

fn received(message: &Message) {
    let (verb, by) = (message.verb.to_string(), message.by.clone());
    let about = message.about().map(|name| name.id);
    emit!(Event::ControlReceived { verb, by, about, cause: None });
}

fn say_pause(before: Option<&StandingOrder>, now: Option<&StandingOrder>) {
    match (before, now) {
        (_, Some(StandingOrder { by, scope, .. })) => {
            emit!(Event::PoolPaused { by: by.clone(), scope: scope.clone(), until: None });
        }
        (Some(StandingOrder { scope, .. }), None) => {
            emit!(Event::PoolResumed { by: "a person".to_owned(), scope: scope.clone() });
        }
        (None, None) => {}
    }
}
