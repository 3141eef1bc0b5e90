//! Limits of a process (`ulimit`) that are reached: as with a full disk it is said, nothing is lost, and
//! nobody crashes.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tests::{Pool, Proc, program};

use crate::kit::steps::{
    file_of, ids, lines_of, log_of, quick, submit, submit_batch, until_over, until_running,
    until_up,
};

/// A program of the workspace that may make files of so many KiB.
fn with_small_files(pool: &Pool, kib: u32, name: &str, args: &[&str]) -> Command {
    let mut command =
        pool.foreign("bash", &["-c", &format!("ulimit -f {kib}; exec \"$@\""), "bash"]);
    command.arg(program(name)).args(args);
    command
}

fn limit(process: &Proc, what: Resource, limit: Option<u64>) {
    let pid = Pid::from_raw(process.pid().cast_signed());
    let Rlimit { maximum, .. } = getrlimit(what);
    prlimit(pid, what, Rlimit { current: limit.or(maximum), maximum }).unwrap();
}

#[test]
fn files_that_may_not_grow_cost_nothing_and_jobs_are_ended_by_them_as_ever() {
    let pool = quick("");
    let command = serde_json::json!(["/bin/true"]);
    let task = serde_json::json!({"class": "cpu", "command": command});
    let all = ids(&submit_batch(&pool, &vec![task; 60]));
    let large = ["--class", "cpu", "--max-attempts", "1"];
    let large = pool.queue(&[&["submit"], &large[..], &["--", "sh", "-c", "yes"]].concat()).id();
    let args = ["--cpu", "--name", "cpu", "--cpu-slots", "2"];
    let _worker = pool.start(&mut with_small_files(&pool, 16, "worker", &args));
    let _brain = pool.start(&mut with_small_files(&pool, 16, "brain", &["--no-spawn"]));
    for id in &all {
        until_over(&pool, id);
        assert_eq!(lines_of(&pool, id).len(), 1, "{id}");
    }
    assert!(pool.files_in("ledger").len() > 2, "one file had room for all");
    let end = until_over(&pool, &large);
    assert_eq!(
        (end["cause"].as_str(), end["signal"].as_i64()),
        (Some("signal"), Some(25)),
        "{end}"
    );
    let log = log_of(&pool, &large, 1);
    assert_eq!(log.len(), 16 << 10, "nothing of ours beside it");
}

#[test]
fn what_cannot_be_submitted_for_its_size_is_there_not_even_in_part() {
    let pool = quick("");
    pool.queue(&["submit", "--class", "cpu", "--hold", "--", "true"]).success();
    let before = pool.files_in("");
    let long = "x".repeat(9000);
    let words = ["submit", "--class", "cpu", "--", "echo", &long];
    let ran = pool.start(&mut with_small_files(&pool, 8, "queue", &words)).end().code(75);
    assert!(ran.stderr.contains("File too large") && ran.stderr.contains("`ulimit -f`"), "{ran}");
    let after = pool.files_in("");
    let tasks = |files: &[std::path::PathBuf]| {
        files.iter().filter(|file| file.to_string_lossy().ends_with("f0d0.json")).count()
    };
    assert_eq!(tasks(&before), tasks(&after), "{after:?}");
}

#[test]
fn without_descriptors_nothing_is_lost_and_it_goes_on_when_there_are_some() {
    let pool = quick("");
    let worker = pool.worker(&["--cpu", "--name", "cpu"]);
    let brain = pool.brain(&["--no-spawn"]);
    until_up(&pool, "cpu");
    pool.until_event("brain", "brain.started");
    // What is open stays open.
    [&worker, &brain].iter().for_each(|process| limit(process, Resource::Nofile, Some(3)));
    let id = submit(&pool, &["--class", "cpu"], &["say=done"]);
    let worst = |process: &Proc| process.stderr().contains("Too many open files");
    pool.until_true("both say so", || worst(&worker) && worst(&brain));
    [&worker, &brain].iter().for_each(|process| limit(process, Resource::Nofile, None));
    assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
    let lines = lines_of(&pool, &id);
    assert!(lines.iter().all(|line| line["cause"] != "worker_died"), "{lines:?}");
}

/// More than anything but the stack of a thread takes.
const TOO_LITTLE: u64 = 3 << 19;

#[test]
fn without_threads_what_a_dead_worker_left_is_put_back_one_by_one() {
    let pool = quick("");
    let worker = pool.worker(&["--cpu", "--name", "cpu", "--cpu-slots", "3"]);
    let gates = ["one", "two", "three"].map(|name| pool.fifo(name));
    let tasks = gates.each_ref().map(|gate| submit(&pool, &["--class", "cpu"], &[&gate.word()]));
    for id in &tasks {
        until_running(&pool, "cpu", id);
    }
    let brain = pool.brain(&["--no-spawn"]);
    pool.until_event("brain", "brain.started");
    pool.until_true("it is watched", || pool.alive().len() > 4 && threads(&brain) > 4);
    let statm = fs::read_to_string(format!("/proc/{}/statm", brain.pid())).unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let memory = pages * rustix::param::page_size() as u64;
    limit(&brain, Resource::As, Some(memory + TOO_LITTLE));
    worker.kill9();
    for id in &tasks {
        pool.until(&format!("{id} is put back"), || file_of(&pool, "pending", id));
    }
    let said = brain.stderr();
    assert!(!said.contains("panicked"), "{said}");
}

fn threads(process: &Proc) -> usize {
    fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap().count()
}
