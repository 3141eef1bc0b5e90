//! What jobs do whose worker does not look after them: it is stopped, or hangs. Their logs and
//! /proc are looked at here, with the same figures that a worker goes by.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use queue::dir::layout::Layout;
use queue::dir::presence::lease::this_process;
use queue::fence;
use shared::name::Name;
use shared::task::{Class, TaskName};

use crate::core::words::snapshot::{Held, Signs, Worker};

/// When each worker's heartbeat was last seen to move.
pub(crate) struct Unattended {
    /// A heartbeat comes at least so often.
    interval: Duration,
    beats: HashMap<Name, Beat>,
}

struct Beat {
    seq: u64,
    moved: Instant,
}

impl Unattended {
    /// Nothing seen yet.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, beats: HashMap::new() }
    }

    /// What is to be seen of the claimed tasks of workers that live and do not look.
    pub(crate) fn look(
        &mut self,
        layout: &Layout,
        processing: &[Held],
        workers: &BTreeMap<Name, Worker>,
    ) -> BTreeMap<TaskName, Signs> {
        self.beats.retain(|name, _beat| workers.contains_key(name));
        let silent: BTreeMap<&Name, &Worker> =
            workers.iter().filter(|(name, worker)| self.is_silent(name, worker)).collect();
        let own = processing.iter().filter_map(|held| Some((held, *silent.get(&held.worker)?)));
        own.map(|(held, worker)| (held.name, signs(layout, held, worker))).collect()
    }

    /// Whether it lives, and its heartbeat is late.
    fn is_silent(&mut self, name: &Name, worker: &Worker) -> bool {
        let Some(seq) = worker.own_heartbeat().map(|own| own.seq) else { return false };
        let now = Instant::now();
        let beat = self.beats.entry(name.clone()).or_insert(Beat { seq, moved: now });
        if beat.seq != seq {
            *beat = Beat { seq, moved: now };
        }
        worker.is_alive() && (worker.is_stopped() || now - beat.moved > 2 * self.interval)
    }
}

/// What can be seen of one attempt.
fn signs(layout: &Layout, held: &Held, worker: &Worker) -> Signs {
    let path = layout.run_log(held.name.id, held.name.attempt);
    let output = match fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(err) if err.kind() == io::ErrorKind::NotFound => 0,
        Err(err) => return Signs::Unseen(format!("{}: {err}", path.display())),
    };
    let run = worker.own_heartbeat().and_then(|own| own.runs(held.name));
    let is_job =
        held.task.as_ref().is_none_or(|task| matches!(task.class, Class::Cpu | Class::Script));
    let Some(group) = run.and_then(|run| run.pgid) else {
        // What comes of a request is all there is to see of it; a job has not begun.
        return match is_job {
            true => Signs::Unseen("its worker has not said which processes it has".into()),
            false => Signs::Seen { output, cpu_ticks: None },
        };
    };
    let of = worker.record.as_ref().map(|record| &record.process);
    if !of.is_some_and(|process| process.is_visible_from(&this_process())) {
        return Signs::Unseen("its processes cannot be seen from here".into());
    }
    let members = match fence::members_of_group(group) {
        Ok(members) => members,
        Err(err) => return Signs::Unseen(format!("/proc: {err}")),
    };
    match fence::usage(&members) {
        Some(usage) if usage.stopped => Signs::Stopped,
        Some(usage) => Signs::Seen { output, cpu_ticks: Some(usage.cpu_ticks) },
        // It has ended, and its worker does not take note.
        None if members.is_empty() => Signs::Seen { output, cpu_ticks: None },
        None => Signs::Unseen("its processes cannot be looked into".into()),
    }
}
