//! A worker to which the machine gives no thread or process: it takes nothing, says so, and goes on
//! by itself. What it takes somebody runs.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tests::Proc;

use crate::kit::steps::{file_of, lines_of, quick, submit, until_over, until_running, until_up};

/// More than anything but the stack of a thread takes.
const TOO_LITTLE: u64 = 3 << 19;

fn limit_memory(worker: &Proc, limit: Option<u64>) {
    let pid = Pid::from_raw(worker.pid().cast_signed());
    let Rlimit { maximum, .. } = getrlimit(Resource::As);
    prlimit(pid, Resource::As, Rlimit { current: limit, maximum }).unwrap();
}

/// Bytes of address space.
fn memory(worker: &Proc) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/statm", worker.pid())).unwrap();
    let pages: u64 = text.split(' ').next().unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

#[test]
fn without_a_thread_nothing_is_claimed_and_it_says_so_and_goes_on() {
    let pool = quick("");
    let worker = pool.worker(&["--cpu", "--name", "cpu", "--cpu-slots", "3"]);
    let (one, other) = (pool.fifo("one"), pool.fifo("other"));
    let first = submit(&pool, &["--class", "cpu"], &[&one.word()]);
    until_running(&pool, "cpu", &first);
    // A thread for the next one is there already; for one more there is none.
    limit_memory(&worker, Some(memory(&worker) + TOO_LITTLE));
    let second = submit(&pool, &["--class", "cpu"], &[&other.word()]);
    let line = pool.until_event("worker-cpu", "worker.starved");
    assert!(line["message"].to_string().contains("could not start a thread"), "{line}");
    let third = submit(&pool, &["--class", "cpu"], &["say=done"]);
    pool.until_true("the reason is the worker's", || {
        pool.queue(&["why", &third, "--json"]).stdout.contains("worker.starved")
    });
    limit_memory(&worker, None);
    until_over(&pool, &third);
    one.release();
    other.release();
    for id in [first, second, third] {
        until_over(&pool, &id);
        let lines = lines_of(&pool, &id);
        assert_eq!(lines.len(), 1, "nothing was claimed and given back: {lines:?}");
        assert_eq!(lines[0]["outcome"], "succeeded");
    }
}

/// As what a thread that panicked has left.
#[test]
fn what_it_has_and_nobody_runs_is_given_back_and_counts_as_nothing() {
    let pool = quick("");
    let _worker = pool.worker(&["--cpu", "--name", "cpu"]);
    until_up(&pool, "cpu");
    let id = submit(&pool, &["--class", "cpu", "--hold"], &["say=done"]);
    let file = file_of(&pool, "held", &id).unwrap();
    let place = pool.dir().join("processing/cpu").join(file.file_name().unwrap());
    let moved = Command::new("mv").args([&file, &place]).status().unwrap();
    assert!(moved.success());
    pool.until_event("worker-cpu", "task.dropped");
    until_over(&pool, &id);
    let lines = lines_of(&pool, &id);
    let story: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(story, ["returned", "succeeded"], "{lines:?}");
    assert_eq!(lines[0]["next_name"]["deaths"], lines[1]["next_name"]["deaths"], "{lines:?}");
}
