//! 3,000 lanes that nobody can take from: what `queue why` takes, and what a worker that may take
//! none of them holds in memory.

use std::fs;
use std::time::Duration;

use queue::Pool;
use queue::dir::disk::lane_files::read_requirements;
use queue::dir::submit::bulk::Bulk;

use crate::args::Args;
use crate::measure::{self, Pair};
use crate::parts::backlog::memory;
use crate::parts::daemon::{Place, task};
use crate::parts::idle::cpu_workers;
use crate::report::{Goal, Report, Row};

pub(crate) fn measure(args: &Args, place: &Place, report: &mut Report) {
    let count = args.pick(300, 3_000);
    let pool = place.pool("lanes");
    let mut bulk = Bulk::new(&pool).expect("a place in incoming/");
    for number in 0..count {
        let spec = format!(r#"{{"model": "model-{number}", "prompt": "x"}}"#);
        bulk.add(&task(&spec)).expect("stage a task");
    }
    bulk.commit().expect("commit a batch");
    let workers = cpu_workers(place, &pool, 1);
    // It has looked a few times.
    measure::pause(Duration::from_secs(args.pick(2, 12)));
    let used = memory(workers[0].pid(), "VmHWM:");
    let name = format!("memory of a worker, {count} lanes it cannot take");
    report.add(Row::alone(name, used, "MB", Goal::Under(12.0)));
    for about in ["", "cpu-0"] {
        let why = || {
            let mut queue = place.program("queue", &pool);
            queue.arg("why").args(Some(about).filter(|about| !about.is_empty()));
            // Not 0: they cannot run.
            measure::timed(|| _ = queue.status().expect("start `queue`")).as_secs_f64()
        };
        let pair = Pair::in_turn(args.pick(3, 5), why, || raw_look(&pool));
        let (limit, ratio) = (Some(pair.raw), Some(pair.ratio));
        let name = format!("queue why {about}, {count} lanes");
        report.add(Row { limit, ratio, ..Row::alone(name, pair.ours, "s", Goal::Under(0.5)) });
    }
}

/// The seconds that reading each lane's file and task takes.
fn raw_look(pool: &Pool) -> f64 {
    let lanes = queue::dir::disk::listing::lanes(pool.layout()).expect("list the lanes");
    let look = || {
        for lane in &lanes {
            let _needs = read_requirements(pool.layout(), lane).expect("read a lane");
            let dir = pool.layout().pending().join(lane.as_str());
            for priority in fs::read_dir(dir).expect("list a lane").flatten() {
                for segment in fs::read_dir(priority.path()).expect("list a priority").flatten() {
                    for task in fs::read_dir(segment.path()).expect("list tasks").flatten() {
                        drop(fs::read(task.path()).expect("read a task"));
                    }
                }
            }
        }
    };
    measure::timed(look).as_secs_f64()
}
