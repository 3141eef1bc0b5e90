//! Tasks of /bin/true, from the ring of the doorbell to the last ledger line, beside spawning it without any queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queue::dir::signal::doorbell;
use queue::dir::submit::bulk::Bulk;
use queue::{Pool, dir};
use shared::task::Class;

use crate::args::Args;
use crate::measure::{self, Pair};
use crate::parts::daemon::{Daemon, Ends, Place, TRUE, task};
use crate::parts::idle::Use;
use crate::raw;
use crate::report::{Goal, Report, Row};

/// Whether a brain looks on.
#[derive(Clone, Copy)]
enum Beside {
    Nobody,
    Brain,
}

/// What is reached of spawning without any queue, as a step on the way to 0.8.
const STEPS: [(usize, f64); 2] = [(2, 0.50), (8, 0.72)];

pub(crate) fn measure(args: &Args, place: &Place, report: &mut Report) {
    for (slots, step) in STEPS {
        let pair = compare(args, place, slots);
        let name = format!("/bin/true end to end, {slots} slots");
        report.add(Row::beside(name, &pair, "tasks/s", Goal::Ratio(step)));
    }
    for (slots, _step) in STEPS {
        with_brain(args, place, slots, report);
    }
}

fn compare(args: &Args, place: &Place, slots: usize) -> Pair {
    let count = args.pick(200, 500);
    let mut stage = Stage::new(place, slots, Beside::Nobody);
    let mut round = 0;
    let raw = || {
        round += 1;
        let dir = place.room(&format!("raw-spawn-{slots}/{round}"));
        measure::rate(count, measure::timed(|| raw::spawn_all(&dir, slots, count)))
    };
    Pair::in_turn(args.pick(5, 11), || stage.rate(count), raw)
}

/// The same tasks in a pool with a brain and in one without, in turn: the speed, and the processor
/// time of worker and brain, which a busy machine hardly changes.
fn with_brain(args: &Args, place: &Place, slots: usize, report: &mut Report) {
    let count = args.pick(200, 2_000);
    let mut brain = Stage::new(place, slots, Beside::Brain);
    let mut alone = Stage::new(place, slots, Beside::Nobody);
    let (before_brain, before_alone) = (brain.used(), alone.used());
    let rounds = args.pick(3, 5);
    let pair = Pair::in_turn(rounds, || brain.rate(count), || alone.rate(count));
    let name = format!("/bin/true, {slots} slots, with a brain beside without");
    report.add(Row::beside(name, &pair, "tasks/s", Goal::Ratio(0.9)));
    let each = |used: Use, before: Use| Use {
        seconds: (used.seconds - before.seconds) * measure::rate(1, Duration::from_micros(1))
            / measure::rate(rounds * count, Duration::from_secs(1)),
        wakes: (used.wakes - before.wakes) / measure::rate(rounds * count, Duration::from_secs(1)),
    };
    let (brain, alone) = (each(brain.used(), before_brain), each(alone.used(), before_alone));
    let mut add = |what: &str, ours: f64, raw: f64, unit: &'static str| {
        let name = format!("the same, {what} a task");
        report.add(Row::beside(name, &Pair::of(&[ours], &[raw]), unit, Goal::Factor(1.1)));
    };
    add("processor time of worker and brain", brain.seconds, alone.seconds, "us");
    add("switches of worker and brain", brain.wakes, alone.wakes, "");
}

/// A pool with a worker, warm, and perhaps a brain.
struct Stage {
    pool: Pool,
    ends: Ends,
    daemons: Vec<Daemon>,
}

impl Stage {
    fn new(place: &Place, slots: usize, beside: Beside) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pool = place.pool(&format!("spawn-{slots}-{number}"));
        let mut daemons = vec![place.worker(&pool, slots)];
        if let Beside::Brain = beside {
            daemons.push(place.start("brain", &pool, &["--gpus", "0", "--no-spawn"]));
        }
        let mut ends = Ends::default();
        ends.count(&pool);
        let mut stage = Self { pool, ends, daemons };
        // Warm: files are open, directories made, programs in memory.
        let _warm = stage.rate(50);
        stage
    }

    fn rate(&mut self, count: usize) -> f64 {
        submit_all(&self.pool, count, TRUE);
        measure::rate(count, measure::timed(|| run(&self.pool, &mut self.ends, count)))
    }

    fn used(&self) -> Use {
        let each = self.daemons.iter().map(|daemon| Use::of(daemon.pid()));
        each.fold(Use { seconds: 0.0, wakes: 0.0 }, |all, one| Use {
            seconds: all.seconds + one.seconds,
            wakes: all.wakes + one.wakes,
        })
    }
}

/// From the ring to the last ledger line: what a submit costs is another row.
fn run(pool: &Pool, ends: &mut Ends, count: usize) {
    doorbell::ring_class(pool.layout(), Class::Script);
    ends.wait(pool, count);
}

/// One bulk submit.
pub(crate) fn submit_all(pool: &dir::Pool, count: usize, spec: &str) {
    let mut bulk = Bulk::new(pool).expect("a place in incoming/");
    for _ in 0..count {
        bulk.add(&task(spec)).expect("stage a task");
    }
    bulk.commit().expect("commit a batch");
}
