//! What a pool costs in which nothing happens: processor time, wake-ups, memory.

use std::fs;
use std::time::Duration;

use queue::Pool;

use crate::args::Args;
use crate::measure::{self, median};
use crate::parts::backlog::{Large, memory};
use crate::parts::daemon::{Daemon, Place};
use crate::report::{Goal, Report, Row};

const WORKERS: usize = 8;

pub(crate) fn measure(args: &Args, place: &Place, large: &Large, report: &mut Report) {
    let empty = place.pool("idle");
    measure_one(args, place, &empty, "empty", report);
    measure_one(args, place, &large.pool, &format!("{} pending", large.count), report);
}

fn measure_one(args: &Args, place: &Place, pool: &Pool, what: &str, report: &mut Report) {
    // They take no script tasks, so the backlog stays.
    let workers = cpu_workers(place, pool, WORKERS);
    let brain = brain(place, pool);
    // The start is over when the brain has seen all of it a few times.
    measure::pause(Duration::from_secs(args.pick(2, 5)));
    let window = Duration::from_secs(args.pick(5, 20));
    let all = || workers.iter().chain([&brain]).map(Daemon::pid);
    let before: Vec<Use> = all().map(Use::of).collect();
    measure::pause(window);
    let after: Vec<Use> = all().map(Use::of).collect();
    let used = |from: usize, to: usize| {
        let pairs = || before[from..to].iter().zip(&after[from..to]);
        let seconds: f64 = pairs().map(|(a, b)| b.seconds - a.seconds).sum();
        let wakes: f64 = pairs().map(|(a, b)| b.wakes - a.wakes).sum();
        (seconds / window.as_secs_f64() * 100.0, wakes / window.as_secs_f64())
    };
    let ((brain_cpu, brain_wakes), (cpu, wakes)) = (used(WORKERS, WORKERS + 1), used(0, WORKERS));
    let rss: Vec<f64> = workers.iter().map(|one| memory(one.pid(), "VmRSS:")).collect();
    let brain_rss = memory(brain.pid(), "VmRSS:");
    let mut add = |name: &str, value: f64, unit: &'static str, goal: Goal| {
        report.add(Row::alone(format!("idle, {what}: {name}"), value, unit, goal));
    };
    add("8 workers' processor time", cpu, "% core", Goal::None);
    add("8 workers' wake-ups", wakes, "/s", Goal::None);
    add("brain's processor time", brain_cpu, "% core", Goal::None);
    add("brain's wake-ups", brain_wakes, "/s", Goal::None);
    add("memory of a worker", median(&rss), "MB", Goal::Under(15.0));
    add("memory of the brain", brain_rss, "MB", Goal::Under(40.0));
}

/// Workers that take cpu tasks only.
pub(crate) fn cpu_workers(place: &Place, pool: &Pool, count: usize) -> Vec<Daemon> {
    let start = |number| {
        let name = format!("cpu-{number}");
        place.start("worker", pool, &["--cpu", "--cpu-slots", "1", "--name", &name])
    };
    let workers = (0..count).map(start).collect();
    for number in 0..count {
        let name = format!("cpu-{number}").parse().expect("a good name");
        let heartbeat = pool.layout().heartbeat(&name);
        measure::until("a worker's heartbeat", || fs::metadata(&heartbeat).ok());
    }
    workers
}

pub(crate) fn brain(place: &Place, pool: &Pool) -> Daemon {
    let brain = place.start("brain", pool, &["--gpus", "0", "--no-spawn"]);
    let state = pool.layout().brain_state();
    measure::until("the brain's state", || fs::metadata(&state).ok());
    brain
}

/// What all threads of a process have used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) seconds: f64,
    pub(crate) wakes: f64,
}

impl Use {
    pub(crate) fn of(pid: u32) -> Self {
        let mut all = Self { seconds: 0.0, wakes: 0.0 };
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("list the threads");
        for thread in threads.flatten() {
            let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let nanos = read("schedstat");
            let nanos = nanos.split(' ').next().and_then(|text| text.parse::<f64>().ok());
            let status = read("status");
            let key = "voluntary_ctxt_switches:";
            let wakes = status.lines().find_map(|line| line.strip_prefix(key));
            all.seconds += nanos.unwrap_or(0.0) / 1e9;
            all.wakes += wakes.and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or(0.0);
        }
        all
    }
}
