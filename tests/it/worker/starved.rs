//! A worker to which the machine gives no thread or process: it takes nothing, says so, and goes on
//! by itself. What it takes somebody runs. A job that the machine gives no memory: that is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tests::{Pool, Proc};

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
    assert!(lines[0]["next_name"].as_str().unwrap().contains(".a2f0d0"), "{lines:?}");
}

/// A cgroup whose processes may have so much memory; gone with this value, after them.
struct MemoryGroup {
    dir: PathBuf,
}

impl MemoryGroup {
    /// `None`, with a word about it, where this process may not make one.
    fn new(limit: &str) -> Option<Self> {
        let name = format!("brainstem-test-{}", std::process::id());
        let kinds =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let made = kinds.into_iter().find_map(|(root, file)| {
            let group = Self { dir: Path::new(root).join(&name) };
            fs::create_dir(&group.dir).ok()?;
            fs::write(group.dir.join(file), limit).ok().map(|()| group)
        });
        if made.is_none() {
            tests::skip("needs a cgroup with a limit of memory");
        }
        made
    }

    fn worker(&self, pool: &Pool, words: &[&str]) -> Proc {
        let worker = pool.command("worker", words);
        let script = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"";
        let mut command = pool.foreign("sh", &["-c", script, self.dir.to_str().unwrap()]);
        pool.start(command.arg(worker.get_program()).args(words))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Never made, or somebody is in it: nobody's harm.
        let _ = fs::remove_dir(&self.dir);
    }
}

#[test]
fn a_job_that_the_kernel_ends_for_memory_says_so_and_another_kill_does_not() {
    let Some(group) = MemoryGroup::new("100M") else { return };
    let pool = quick("");
    let mut worker = group.worker(&pool, &["--cpu", "--name", "w"]);
    let failed = |command: &[&str]| {
        let words = ["submit", "--class", "cpu", "--max-attempts", "1", "--"];
        let id = pool.queue(&[&words, command].concat()).id();
        until_over(&pool, &id)
    };
    for (command, how) in [
        (&["tail", "/dev/zero"][..], "ended by signal 9"),
        (&["sh", "-c", "tail /dev/zero; exit $?"][..], "exit code 137"),
    ] {
        let line = failed(command);
        assert_eq!(line["cause"], "oom", "{line}");
        let message = line["error_message"].as_str().unwrap();
        assert!(message.starts_with(how) && message.contains(" of 100 MiB ("), "{message}");
        assert!(message.contains(group.dir.to_str().unwrap()), "{message}");
    }
    let line = failed(&["sh", "-c", "kill -9 $$"]);
    assert_eq!((&line["cause"], &line["signal"]), (&"signal".into(), &9.into()), "{line}");
    worker.term();
    worker.wait_exit();
}
