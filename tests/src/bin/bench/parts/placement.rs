//! Where models go: the brain's own core in virtual time, beside other rules and beside what no
//! rule can beat. Nothing here depends on the machine.
//!
//! The other rules never let a task pass another one: a worker that is free takes the oldest task,
//! one that holds its model before the others, and loads only where it does not hold it.
//! - FIFO: a server keeps one model.
//! - Ollama's LRU: a server keeps as many as fit, and the least recently used goes.
//!
//! The lower bound of the end: each model is loaded once, and no worker is idle while there is
//! work. The longest wait stands beside its bound (`max_wait`, one load and one run), and beside
//! what nobody stays below. In the tight rows a plain round over the models would not keep the
//! bound; the last rows have more to do than can be kept by any rule that we know, so they have no
//! goal there: they show that the pool does not swap itself to death.

use tests::placement::{
    Arrivals, Keep, SetUp, Sim, SimResult, bound, first_come_first_served, least_wait, mixed,
};

use crate::args::Args;
use crate::report::{Goal, Report, Row};

const CAPTION: &str = "\
placement, in virtual time. FIFO: a free worker takes the oldest task (one that holds its model
before the others), and loads only where it does not hold the model; one model a server.
Ollama's LRU: the same, with as many models as fit; the least recently used goes.
The bound of a wait: max_wait + one load (and unload) + one run + one look.";

/// A batch is done long before.
const HOUR: u64 = 3_600_000;

/// Which part of the time workers work, how long a task may wait in seconds, and whether that can
/// be kept.
const STREAMS: [(usize, f64, u64, Hope); 8] = [
    (2, 0.75, 300, Hope::Kept),
    (4, 0.75, 300, Hope::Kept),
    (2, 0.70, 120, Hope::Kept),
    (4, 0.75, 60, Hope::Kept),
    (2, 0.50, 90, Hope::Kept),
    (2, 0.70, 60, Hope::Open),
    (2, 0.85, 120, Hope::Open),
    (4, 0.85, 30, Hope::Open),
];

/// What is hoped of the longest wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hope {
    Kept,
    Open,
}

pub(crate) fn measure(args: &Args, report: &mut Report) {
    let prompts = args.pick(2_000, 10_000);
    report.caption(CAPTION);
    for workers in [2, 4] {
        let set_up = mixed(workers, prompts, Arrivals::Batch, HOUR);
        let name = format!("batch, {prompts} prompts, {workers} workers");
        compare(&name, &set_up, Hope::Kept, report);
    }
    for (workers, busy, seconds, hope) in STREAMS {
        let set_up = mixed(workers, prompts, Arrivals::Stream(busy), seconds * 1_000);
        let name =
            format!("{:.0} %, {seconds} s, {prompts} prompts, {workers} workers", busy * 100.0);
        compare(&name, &set_up, hope, report);
    }
}

fn compare(name: &str, set_up: &SetUp, hope: Hope, report: &mut Report) {
    let went = Sim::new(set_up, &[]).run();
    let fifo = first_come_first_served(set_up, Keep::One);
    let lru = first_come_first_served(set_up, Keep::WhatFits);
    report.add(Row {
        goal: Goal::Ratio(5.0),
        ..beside(&format!("{name}: loads, beside FIFO's"), went.loads, fifo.loads)
    });
    let title = format!("{name}: loads, beside Ollama's LRU");
    report.add(beside(&title, went.loads, lru.loads));
    report.add(Row {
        goal: Goal::Factor(1.2),
        ..seconds(&format!("{name}: end, beside the lower bound"), went.ended, bound(set_up))
    });
    for (rule, other) in [("FIFO", &fifo), ("Ollama's LRU", &lru)] {
        report.add(seconds(&format!("{name}: end, beside {rule}"), went.ended, other.ended));
    }
    let title = format!("{name}: longest wait, beside its bound");
    let goal = match hope {
        Hope::Kept => Goal::Factor(1.0),
        Hope::Open => Goal::None,
    };
    report.add(Row { goal, ..seconds(&title, went.longest_wait, set_up.longest()) });
    let least = least_wait(set_up);
    if least > 0 {
        let title = format!("{name}: longest wait, beside what nobody stays below");
        report.add(seconds(&title, went.longest_wait, least));
    }
    for (rule, other) in [("FIFO", &fifo), ("Ollama's LRU", &lru)] {
        let title = format!("{name}: longest wait, beside {rule}");
        report.add(seconds(&title, went.longest_wait, other.longest_wait));
    }
    assert_all_done(&went, set_up);
}

fn assert_all_done(went: &SimResult, set_up: &SetUp) {
    assert_eq!(went.tasks.iter().sum::<u64>(), set_up.prompts.len() as u64, "each ran once");
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn beside(name: &str, ours: u64, other: u64) -> Row {
    let ratio = other as f64 / ours as f64;
    let (limit, ratio) = (Some(other as f64), Some(ratio));
    Row { limit, ratio, ..Row::alone(name, ours as f64, "", Goal::None) }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a day are exact")]
fn seconds(name: &str, ours: u64, other: u64) -> Row {
    let (ours, other) = (ours as f64 / 1e3, other as f64 / 1e3);
    let (limit, ratio) = (Some(other), Some(ours / other));
    Row { limit, ratio, ..Row::alone(name, ours, "s", Goal::None) }
}
