//! The machine stops, or the service: brain, worker and jobs are told at once, in any order, and no
//! task pays for it.

use tests::{Pool, Signal};

use crate::kit::steps::{file_of, lines_of, log_of, quick, submit, until_over, until_running};

/// One attempt is all there is, so that whatever counts is seen.
fn running(pool: &Pool, words: &[&str]) -> (String, u32) {
    let id = submit(pool, &["--max-attempts", "1"], words);
    let job = until_running(pool, "worker-0", &id);
    (id, job["pgid"].as_u64().unwrap().try_into().unwrap())
}

fn tell(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_job_that_is_told_to_stop_with_its_worker_is_given_back() {
    for (first, signal) in [("job", Signal::TERM), ("worker", Signal::TERM), ("job", Signal::KILL)]
    {
        let pool = quick("shutdown_grace = \"1h\"\n");
        let mut worker = pool.worker(&["--gpu", "0"]);
        let (id, job) = running(&pool, &["hang"]);
        if first == "job" {
            tell(job, signal);
            worker.term();
        } else {
            worker.term();
            pool.until_event("worker-worker-0", "worker.signal");
            tell(job, signal);
        }
        worker.end().success();
        let lines = lines_of(&pool, &id);
        let found = (&lines[0]["outcome"], lines[0]["signal"].as_i64());
        assert_eq!(found, (&"returned".into(), Some(signal.as_raw().into())), "{first} {lines:?}");
        assert!(file_of(&pool, "pending", &id).unwrap().ends_with(format!("{id}.a2f0d0.json")));
    }
}

#[test]
fn a_job_that_hears_it_and_says_otherwise_is_taken_at_its_word() {
    let pool = quick("shutdown_grace = \"1h\"\n");
    let mut worker = pool.worker(&["--gpu", "0"]);
    let hears = "trap 'exit 3' TERM; echo ready; sleep 1000 & wait";
    let args = ["submit", "--max-attempts", "1", "--grace", "1h", "--", "sh", "-c", hears];
    let id = pool.queue(&args).id();
    let job = until_running(&pool, "worker-0", &id)["pgid"].as_u64().unwrap();
    let job = u32::try_from(job).unwrap();
    pool.until_true("it is ready", || log_of(&pool, &id, 1) == "ready\n");
    worker.term();
    pool.until_event("worker-worker-0", "worker.signal");
    tell(job, Signal::TERM);
    worker.end().success();
    let last = until_over(&pool, &id);
    assert_eq!((&last["cause"], &last["exit_code"]), (&"exit_code".into(), &3.into()), "{last}");
}

#[test]
fn a_signal_to_a_job_alone_is_its_own_failure() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let (id, job) = running(&pool, &["hang"]);
    tell(job, Signal::TERM);
    assert_eq!(until_over(&pool, &id)["cause"], "signal");
}

/// Killed after it was told: as when a machine goes down before all have ended.
#[test]
fn a_worker_that_is_killed_after_it_was_told_to_stop_counts_as_no_death() {
    let pool = quick("shutdown_grace = \"1h\"\n");
    let worker = pool.worker(&["--gpu", "0"]);
    let (id, _job) = running(&pool, &["ignore-term", "hang"]);
    worker.term();
    pool.until_event("worker-worker-0", "worker.signal");
    pool.until_true("its lease says so", || {
        let lease = std::fs::read_to_string(crate::kit::lock_file(&pool, "worker-0"));
        lease.is_ok_and(|lease| lease.contains("\"stopping\""))
    });
    worker.kill9();
    let _brain = pool.brain(&["--no-spawn"]);
    pool.until_true("it is given back", || file_of(&pool, "pending", &id).is_some());
    let lines = lines_of(&pool, &id);
    assert_eq!(lines[0]["outcome"], "returned", "{lines:?}");
    assert!(file_of(&pool, "pending", &id).unwrap().ends_with(format!("{id}.a2f0d0.json")));
}

/// A terminal that is closed is no death.
#[test]
fn a_worker_whose_terminal_is_closed_gives_back_what_it_runs() {
    let pool = quick("");
    let mut worker = pool.worker(&["--gpu", "0"]);
    let (id, _job) = running(&pool, &["hang"]);
    worker.signal(Signal::HUP);
    worker.end().success();
    assert_eq!(lines_of(&pool, &id)[0]["outcome"], "returned");
}
