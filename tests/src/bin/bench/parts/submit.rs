//! Durable submits, one by one and in bulk, beside the writes and flushes they cannot do without.

use std::fs;
use std::process::Stdio;

use queue::dir::submit::bulk::Bulk;
use queue::dir::submit::one::Submitter;

use super::daemon::{Place, TRUE, task};
use crate::args::Args;
use crate::measure::{self, Pair};
use crate::raw;
use crate::report::{Goal, Report, Row};

pub(crate) fn measure(args: &Args, place: &Place, report: &mut Report) {
    let pair = single(args, place);
    report.add(Row::beside("durable submit, one by one", &pair, "tasks/s", Goal::Ratio(0.7)));
    let count = args.pick(2_000, 10_000);
    let pair = bulk(args, place, count);
    let name = format!("durable submit, {count} in bulk");
    report.add(Row::beside(name, &pair, "tasks/s", Goal::Ratio(0.7)));
    let pair = command(args, place);
    let name = "the command `queue submit`, beside /bin/true + raw";
    report.add(Row::beside(name, &pair, "tasks/s", Goal::None));
}

fn single(args: &Args, place: &Place) -> Pair {
    let count = args.pick(100, 400);
    let pool = place.pool("single");
    let mut submitter = Submitter::new(&pool).expect("a place in incoming/");
    let (staging, target) = (place.room("raw-single"), place.room("raw-single-target"));
    let mut from = 0;
    Pair::in_turn(
        args.pick(7, 15),
        || {
            let tasks: Vec<_> = (0..count).map(|_| task(TRUE)).collect();
            let all = || tasks.iter().for_each(|task| submitter.submit(task).expect("submit"));
            measure::rate(count, measure::timed(all))
        },
        || {
            let bodies = bodies(count);
            from += count;
            let all = || raw::publish_each(&staging, &target, &bodies, from);
            measure::rate(count, measure::timed(all))
        },
    )
}

fn bulk(args: &Args, place: &Place, count: usize) -> Pair {
    let pool = place.pool("bulk");
    let target = place.room("raw-bulk-target");
    let mut round = 0;
    Pair::in_turn(
        args.pick(5, 9),
        || {
            let tasks: Vec<_> = (0..count).map(|_| task(TRUE)).collect();
            let all = || {
                let mut bulk = Bulk::new(&pool).expect("a place in incoming/");
                tasks.iter().for_each(|task| bulk.add(task).expect("stage"));
                bulk.commit().expect("commit");
            };
            measure::rate(count, measure::timed(all))
        },
        || {
            let bodies = bodies(count);
            round += 1;
            let staging = place.root().join(format!("raw-bulk-{round}"));
            let all = || raw::publish_bulk(&staging, &target, &bodies);
            measure::rate(count, measure::timed(all))
        },
    )
}

/// With the start of a process on both sides.
fn command(args: &Args, place: &Place) -> Pair {
    let count = args.pick(10, 30);
    let pool = place.pool("command");
    let (staging, target, logs) =
        (place.room("raw-command"), place.room("raw-command-target"), place.room("raw-logs"));
    let mut from = 0;
    Pair::in_turn(
        args.pick(3, 7),
        || {
            let one = || {
                let mut queue = place.program("queue", &pool);
                queue.args(["submit", "--", "/bin/true"]).stderr(Stdio::null());
                assert!(queue.status().expect("start `queue`").success());
            };
            measure::rate(count, measure::timed(|| (0..count).for_each(|_| one())))
        },
        || {
            let body = bodies(1);
            let mut one = || {
                from += 1;
                let dir = logs.join(from.to_string());
                fs::create_dir(&dir).expect("make a directory");
                raw::spawn_all(&dir, 1, 1);
                raw::publish_each(&staging, &target, &body, from);
            };
            measure::rate(count, measure::timed(|| (0..count).for_each(|_| one())))
        },
    )
}

/// What task files hold.
pub(crate) fn bodies(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| task(TRUE).to_bytes()).collect()
}
