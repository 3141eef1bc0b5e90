//! Tasks of /bin/true, from the ring of the doorbell to the last ledger line, beside spawning it without any queue.

use queue::dir::signal::doorbell;
use queue::dir::submit::bulk::Bulk;
use queue::{Pool, dir};
use shared::task::Class;

use crate::args::Args;
use crate::measure::{self, Pair};
use crate::parts::daemon::{Ends, Place, TRUE, task};
use crate::raw;
use crate::report::{Goal, Report, Row};

/// Whether a brain looks on.
#[derive(Clone, Copy)]
enum Beside {
    Nobody,
    Brain,
}

pub(crate) fn measure(args: &Args, place: &Place, report: &mut Report) {
    for (slots, beside) in [(2, Beside::Nobody), (8, Beside::Nobody), (2, Beside::Brain)] {
        let (pair, with) = match beside {
            Beside::Nobody => (compare(args, place, slots, beside), ""),
            Beside::Brain => (compare(args, place, slots, beside), ", with a brain"),
        };
        let name = format!("/bin/true end to end, {slots} slots{with}");
        report.add(Row::beside(name, &pair, "tasks/s", Goal::Ratio(0.8)));
    }
}

fn compare(args: &Args, place: &Place, slots: usize, beside: Beside) -> Pair {
    let count = args.pick(200, 500);
    let with = match beside {
        Beside::Nobody => "alone",
        Beside::Brain => "brain",
    };
    let pool = place.pool(&format!("spawn-{slots}-{with}"));
    let _worker = place.worker(&pool, slots);
    let _brain = match beside {
        Beside::Nobody => None,
        Beside::Brain => Some(place.start("brain", &pool, &["--gpus", "0", "--no-spawn"])),
    };
    let mut ends = Ends::default();
    ends.count(&pool);
    // Warm: files are open, directories made, programs in memory.
    submit_all(&pool, 50, TRUE);
    run(&pool, &mut ends, 50);
    let mut round = 0;
    let raw = || {
        round += 1;
        let dir = place.room(&format!("raw-spawn-{slots}-{with}/{round}"));
        measure::rate(count, measure::timed(|| raw::spawn_all(&dir, slots, count)))
    };
    let ours = || {
        submit_all(&pool, count, TRUE);
        measure::rate(count, measure::timed(|| run(&pool, &mut ends, count)))
    };
    Pair::in_turn(args.pick(5, 11), ours, raw)
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
