//! Where models go: the brain's own core in virtual time, beside first come first served with one
//! model per server, with Ollama's own rule (as many models as fit, the least recently used goes),
//! and beside what no rule can beat. Nothing here depends on the machine.

use tests::placement::{Arrivals, Keep, SetUp, Sim, Went, bound, first_come_first_served, mixed};

use crate::args::Args;
use crate::report::{Goal, Report, Row};

/// A batch is done long before.
const HOUR: u64 = 3_600_000;
/// In a stream the bound is tight.
const FIVE_MINUTES: u64 = 300_000;
/// Between two looks of the brain.
const TICK: u64 = 1_000;

pub(crate) fn measure(args: &Args, report: &mut Report) {
    let prompts = args.pick(2_000, 10_000);
    for (name, arrivals, max_wait) in
        [("batch", Arrivals::Batch, HOUR), ("stream at 75%", Arrivals::Stream(0.75), FIVE_MINUTES)]
    {
        for workers in [2, 4] {
            let set_up = mixed(workers, prompts, arrivals, max_wait);
            let name = format!("{name}, {prompts} prompts, {workers} workers");
            compare(&name, &set_up, report);
        }
    }
}

fn compare(name: &str, set_up: &SetUp, report: &mut Report) {
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
    report.add(Row {
        goal: Goal::Factor(1.0),
        ..seconds(
            &format!("{name}: longest wait, beside its bound"),
            went.longest_wait,
            longest(set_up),
        )
    });
    for (rule, other) in [("FIFO", &fifo), ("Ollama's LRU", &lru)] {
        let title = format!("{name}: longest wait, beside {rule}");
        report.add(seconds(&title, went.longest_wait, other.longest_wait));
    }
    assert_all_done(&went, set_up);
}

/// What it may wait, one load (with the unload before it), one run, and one look.
fn longest(set_up: &SetUp) -> u64 {
    let load = set_up.models.iter().map(|model| model.load).max().unwrap_or(0);
    let run = set_up.prompts.iter().map(|prompt| prompt.runs).max().unwrap_or(0);
    set_up.max_wait + load + run + TICK
}

fn assert_all_done(went: &Went, set_up: &SetUp) {
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
