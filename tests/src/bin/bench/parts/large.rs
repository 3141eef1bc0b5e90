//! The brain's cycle, and `queue status`, in a large pool with many workers.

use std::time::Duration;

use crate::args::Args;
use crate::measure::{self, Pair};
use crate::parts::backlog::Large;
use crate::parts::daemon::Place;
use crate::parts::idle::{Use, brain, cpu_workers};
use crate::raw;
use crate::report::{Goal, Report, Row};

const WORKERS: usize = 64;

pub(crate) fn measure(args: &Args, place: &Place, large: &Large, report: &mut Report) {
    let pool = &large.pool;
    let brain = brain(place, pool);
    let workers = cpu_workers(place, pool, WORKERS);
    measure::pause(Duration::from_secs(args.pick(2, 5)));
    let what = format!("{} pending, {WORKERS} workers", large.count);
    // One cycle a second while no bell rings: what the brain uses in a second is its cycle, and a
    // little more for what its other threads do.
    let window = Duration::from_secs(args.pick(5, 15));
    let before = Use::of(brain.pid());
    measure::pause(window);
    let after = Use::of(brain.pid());
    let cycle = (after.seconds - before.seconds) * 1e3 / window.as_secs_f64();
    let name = format!("brain's cycle (processor time), {what}");
    report.add(Row::alone(name, cycle, "ms", Goal::Under(50.0)));

    let mut round = 0;
    let mut spawn = || {
        round += 1;
        let dir = place.room(&format!("raw-status/{round}"));
        measure::timed(|| raw::spawn_all(&dir, 1, 1)).as_secs_f64() * 1e3
    };
    let status = || {
        let mut queue = place.program("queue", pool);
        queue.args(["status", "--json"]);
        let took = measure::timed(|| {
            assert!(queue.status().expect("start `queue`").success());
        });
        took.as_secs_f64() * 1e3
    };
    let pair = Pair::in_turn(args.pick(7, 15), status, &mut spawn);
    report.add(Row::beside(format!("queue status, {what}"), &pair, "ms", Goal::Under(200.0)));
    drop(brain);
    let pair = Pair::in_turn(args.pick(3, 7), status, spawn);
    let name = format!("queue status without a brain, {what}");
    report.add(Row::beside(name, &pair, "ms", Goal::None));
    drop(workers);
}
