//! What others may read: `brain/state.json` on change, at most once a second, and every ten
//! seconds as a sign of life; `brain/decisions.jsonl` line by line.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use queue::dir::presence::brain_state;
use queue::error::At as _;
use queue::wire::brain_state::{BrainRecord, BrainState, SCHEMA, StateCounts, StateLane};
use queue::{Error, Pool, uptime};
use serde::Serialize;
use shared::log::Rotation;
use shared::time::Moment;

use super::children::Children;
use crate::core::words::findings::Findings;
use crate::core::words::snapshot::Snapshot;
use crate::observe::pool::Observer;

/// At most so often.
const SHORTEST: Duration = Duration::from_millis(950);
/// At least so often.
const LONGEST: Duration = Duration::from_secs(10);

/// Writes what others may read.
pub(crate) struct Publisher {
    pool: Pool,
    record: BrainRecord,
    rotation: Rotation,
    seq: u64,
    last: Option<(Instant, BrainState)>,
}

impl Publisher {
    /// Goes on with the numbers of the last brain.
    pub(crate) fn new(
        pool: &Pool,
        record: BrainRecord,
        rotation: Rotation,
        before: Option<&BrainState>,
    ) -> Self {
        let seq = before.map_or(0, |state| state.seq);
        Self { pool: pool.clone(), record, rotation, seq, last: None }
    }

    /// Writes what was seen, where it is time to.
    pub(crate) fn publish(
        &mut self,
        seen: &Snapshot,
        view: &Findings,
        observer: &Observer,
        children: &Children,
    ) -> Result<(), Error> {
        let passed = self.last.as_ref().map(|(when, _state)| when.elapsed());
        let children = children.list();
        // Whom we have started the next brain must know at once: a worker that it does not know to
        // be ours would live on when that one is told to end.
        let as_known = self.last.as_ref().is_some_and(|(_when, last)| last.children == children);
        if as_known && passed.is_some_and(|passed| passed < SHORTEST) {
            return Ok(());
        }
        let state = BrainState { children, ..self.state(seen, view, observer) };
        let same = self.last.as_ref().is_some_and(|(_when, last)| is_same(last, &state));
        if same && passed.is_some_and(|passed| passed < LONGEST) {
            return Ok(());
        }
        brain_state::write(self.pool.layout(), &state)?;
        self.seq = state.seq;
        self.last = Some((Instant::now(), state));
        Ok(())
    }

    /// The next one is written whenever the last was.
    pub(crate) fn hurry(&mut self) {
        self.last = None;
    }

    fn state(&self, seen: &Snapshot, view: &Findings, observer: &Observer) -> BrainState {
        let now = Moment::now();
        let lane = |lane: &crate::core::words::snapshot::Lane| StateLane {
            lane: lane.count.lane.clone(),
            class: lane.count.class,
            model: lane.count.model.clone(),
            priority_max: lane.count.priority_max,
            pending: lane.count.pending,
            oldest_seconds: lane.count.oldest.map(|oldest| now.seconds_since(oldest)),
        };
        BrainState {
            schema: SCHEMA.to_owned(),
            as_of: now,
            uptime: Some(uptime::now()),
            seq: self.seq + 1,
            pid: self.record.process.pid,
            since: self.record.since,
            cycle: seen.cycle,
            counts: counts(seen, observer),
            lanes: seen.lanes.iter().map(lane).collect(),
            stuck: view.stuck.clone(),
            warnings: view.warnings.clone(),
            ledger: observer.ledger_offsets(),
            gpus: seen.gpus.clone().unwrap_or_default(),
            children: Vec::new(),
            completions: observer.completions.clone(),
            measured: view.measured.clone(),
        }
    }

    /// Writes a decision down.
    pub(crate) fn decided<T: Serialize>(&self, decision: &T) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Line<'a, T> {
            schema: &'static str,
            #[serde(flatten)]
            decision: &'a T,
        }
        let line = Line { schema: "brainstem.decision/1", decision };
        let mut text = serde_json::to_vec(&line).expect("a decision has only string keys");
        text.push(b'\n');
        let path = self.pool.layout().brain_decisions();
        self.rotation.set_aside(&path);
        let mut options = std::fs::File::options();
        let file = options.append(true).create(true).mode(0o660).open(&path).at("open", &path)?;
        (&file).write_all(&text).at("append to", &path)
    }
}

fn counts(seen: &Snapshot, observer: &Observer) -> StateCounts {
    let counts = seen.counts.as_deref();
    StateCounts {
        pending: counts.and_then(|counts| counts.known("pending", counts.pending)),
        processing: counts.and_then(|counts| counts.known("processing", counts.processing)),
        delayed: counts.and_then(|counts| counts.known("delayed", counts.delayed)),
        waiting: counts.and_then(|counts| counts.known("waiting", counts.waiting)),
        held: counts.and_then(|counts| counts.known("held", counts.held)),
        failed: counts.and_then(|counts| counts.known("failed", counts.failed)),
        complete: observer.complete,
        cancelled: observer.cancelled,
        rejected: counts.and_then(|counts| counts.known("rejected", counts.rejected)),
    }
}

/// Whether nothing changed but what changes by itself: ages, readings, numbers.
fn is_same(one: &BrainState, other: &BrainState) -> bool {
    let lanes = |state: &BrainState| -> Vec<_> {
        state
            .lanes
            .iter()
            .map(|lane| (lane.lane.clone(), lane.pending, lane.priority_max))
            .collect()
    };
    let stuck = |state: &BrainState| -> Vec<_> {
        state.stuck.iter().map(|stuck| (stuck.task_id, stuck.worker.clone())).collect()
    };
    one.counts == other.counts
        && one.warnings == other.warnings
        && one.ledger == other.ledger
        && one.children == other.children
        && lanes(one) == lanes(other)
        && stuck(one) == stuck(other)
}
