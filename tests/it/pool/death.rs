//! Workers that die by `kill -9` in mid-task, or are told to end. What they leave is settled by a
//! brain, or by the next worker of the name or of the GPU. Deaths between two steps, made by hand,
//! are in `dying.rs`.

use std::fs;

use serde_json::json;
use tests::{Pool, Proc, Signal};

use crate::kit::*;

/// A worker for one cpu task at a time.
pub(crate) fn cpu_worker(pool: &Pool, name: &str) -> Proc {
    pool.worker(&["--cpu", "--cpu-slots", "1", "--name", name])
}

/// Whether any of these processes still runs.
fn any_alive(pids: &[u32]) -> bool {
    pids.iter()
        .any(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()))
}

// --- kill -9 in mid-task ---

/// 001-B9, B18, B27: the death of a worker leaves no process and no task behind; a task that a
/// neighbour runs is not touched.
#[test]
fn seed_001_b9_b18_b27_a_killed_workers_processes_end_and_its_task_runs_elsewhere() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--no-spawn"]);
    let victim = cpu_worker(&pool, "victim");
    let gate = pool.fifo("gate");
    let words = ["child", "daemon", "daemon=closed", "daemon=noenv", "mark=runs", &gate.word()];
    let id = submit(&pool, job(&words));
    until_started(&pool, "runs", id, 1);
    let (_near, _far) = (cpu_worker(&pool, "near"), cpu_worker(&pool, "far"));
    let other_gate = pool.fifo("other-gate");
    let other = submit(&pool, job(&["mark=other", &other_gate.word()]));
    let unmoved = until_started(&pool, "other", other, 1).pid;
    let theirs: Vec<u32> = jobs_alive(&pool).into_iter().filter(|pid| *pid != unmoved).collect();
    assert_eq!(theirs.len(), 5, "the job and four that it left: {:?}", pool.alive());
    let before = content(&pool, id);

    victim.kill9().signalled(Signal::KILL);
    until_started(&pool, "runs", id, 2);
    assert!(!any_alive(&theirs), "attempt 2 runs beside attempt 1: {:?}", pool.alive());
    assert_eq!(place(&pool, id), "processing a2f0d1");
    assert_eq!(content(&pool, id), before, "the task itself never changes (001-B19)");
    assert!(any_alive(&[unmoved]), "the neighbour's job runs on");

    gate.release();
    other_gate.release();
    until_succeeded(&pool, id);
    until_succeeded(&pool, other);
    assert_eq!(story(&pool, id), ["failed worker_died pending", "succeeded - end"]);
    assert_eq!(story(&pool, other), ["succeeded - end"]);
    let lines = history(&pool, id);
    assert_eq!(lines[0]["worker"], "victim");
    assert!(["near", "far"].contains(&lines[1]["worker"].as_str().unwrap()), "{}", lines[1]);
    let died = pool.until_event("brain", "worker.died");
    assert!(died["message"].as_str().unwrap().starts_with("Worker victim died"), "{died}");
    // Settled, it is still told from one that stopped by itself.
    pool.until("the dead worker in the list", || {
        let all = pool.queue(&["workers", "--json"]).success().stdout;
        let all: serde_json::Value = serde_json::from_str(&all).unwrap();
        let all = all["workers"].as_array().unwrap().clone();
        all.into_iter().find(|worker| worker["name"] == "victim" && worker["status"] == "dead")
    });
}

/// A job that redirected its output has freed the log's lock; it is found all the same.
#[test]
fn a_job_that_redirected_its_output_is_found_and_ended() {
    let pool = quick_pool("");
    let victim = cpu_worker(&pool, "dead");
    let gate = pool.fifo("gate");
    let line = format!("exec fake-job mark=runs {} >/dev/null 2>&1", gate.word());
    let id = submit(&pool, json!({"class": "cpu", "shell": line}));
    let first = until_started(&pool, "runs", id, 1).pid;
    victim.kill9().signalled(Signal::KILL);
    let _next = cpu_worker(&pool, "dead");
    until_started(&pool, "runs", id, 2);
    assert!(!any_alive(&[first]));
    gate.release();
    until_succeeded(&pool, id);
}

/// 001-B16: the lock file that a dead worker leaves stops nobody.
#[test]
fn seed_001_b16_a_worker_restarted_at_once_under_its_name_settles_first() {
    let pool = quick_pool("");
    let victim = cpu_worker(&pool, "dead");
    let gate = pool.fifo("gate");
    let id = submit(&pool, job(&["child", "daemon", "mark=runs", &gate.word()]));
    until_started(&pool, "runs", id, 1);
    let theirs = jobs_alive(&pool);
    assert_eq!(theirs.len(), 3);
    victim.kill9().signalled(Signal::KILL);
    assert!(lock_file(&pool, "dead").is_file());
    let _next = cpu_worker(&pool, "dead");
    until_started(&pool, "runs", id, 2);
    assert!(!any_alive(&theirs));
    assert_eq!(place(&pool, id), "processing a2f0d1");
    gate.release();
    until_succeeded(&pool, id);
    let settled = pool.until_event("worker-dead", "worker.initialized");
    assert!(settled["incarnation"].is_string());
}

/// Whoever comes while the name is taken waits, says for whom, and is let in by the death.
#[test]
fn a_second_worker_of_a_name_waits_and_takes_over_when_the_first_dies() {
    let pool = quick_pool("");
    let first = cpu_worker(&pool, "w");
    let gate = pool.fifo("gate");
    let id = submit(&pool, job(&["mark=runs", &gate.word()]));
    until_started(&pool, "runs", id, 1);
    let second = cpu_worker(&pool, "w");
    let said = format!("held by a living w (pid {}", first.pid());
    pool.until_true("the second to wait", || second.stderr().contains(&said));
    assert_eq!(starts(&pool, "runs", id), ["1"]);
    first.kill9().signalled(Signal::KILL);
    until_started(&pool, "runs", id, 2);
    gate.release();
    until_succeeded(&pool, id);
}

#[test]
fn a_job_that_ignores_term_after_its_workers_death_is_killed_after_the_grace() {
    let pool = quick_pool("");
    let victim = cpu_worker(&pool, "dead");
    let deaf = with(job(&["ignore-term", "mark=runs", "hang"]), "grace_period", "600ms");
    let id = submit(&pool, deaf);
    let first = until_started(&pool, "runs", id, 1);
    victim.kill9().signalled(Signal::KILL);
    let asked = std::time::Instant::now();
    let _next = cpu_worker(&pool, "dead");
    until_started(&pool, "runs", id, 2);
    assert!(asked.elapsed().as_millis() >= 600, "KILL comes after the grace, not before");
    assert!(!any_alive(&[first.pid]));
    let settled =
        pool.until_log("worker-dead", |line| line["event"] == "claim.won" && line["attempt"] == 2);
    assert_eq!(settled["task_id"], id.to_string());
}

#[test]
fn a_worker_of_the_same_gpu_settles_its_predecessor_of_another_name() {
    for known in [false, true] {
        let pool = quick_pool("");
        if known {
            pool.fake_gpus(&[tests::FakeGpu::new("GPU-a"), tests::FakeGpu::new("GPU-b")]);
        }
        let old = pool.worker(&["--gpu", "1", "--name", "old"]);
        let gate = pool.fifo("gate");
        let id = submit(&pool, gpu_job(&["mark=runs", &gate.word()]));
        let first = until_started(&pool, "runs", id, 1).pid;
        old.kill9().signalled(Signal::KILL);
        // Another GPU's worker is not concerned, and does not take what old still holds.
        let _zero = pool.worker(&["--gpu", "0", "--name", "zero"]);
        until_alive(&pool, "zero");
        assert_eq!(place(&pool, id), "processing a1f0d0");
        let _new = pool.worker(&["--gpu", "1", "--name", "new"]);
        until_started(&pool, "runs", id, 2);
        assert!(!any_alive(&[first]));
        gate.release();
        until_succeeded(&pool, id);
        assert_eq!(story(&pool, id), ["failed worker_died pending", "succeeded - end"]);
    }
}

/// Killed again and again, at whatever moment it is in: every task ends once, and no two attempts
/// of one ever run at the same time.
#[test]
fn a_worker_killed_at_any_moment_loses_nothing_and_doubles_nothing() {
    let pool = quick_pool("poison_deaths = 100\n");
    let ids = submit_all(&pool, (0..24).map(|_| job(&["mark=runs", "spin=0.005"])));
    for life in 1..=6 {
        let worker = cpu_worker(&pool, "dead");
        pool.until_true("some more jobs", || pool.marks("runs").len() >= life * 4);
        worker.kill9().signalled(Signal::KILL);
    }
    let _last = cpu_worker(&pool, "dead");
    let mut deaths = 0;
    for id in ids {
        until_succeeded(&pool, id);
        let story = story(&pool, id);
        let ends = story.iter().filter(|line| line.ends_with(" end")).count();
        assert_eq!(ends, 1, "{story:?}");
        deaths += story.len() - 1;
        let attempts: Vec<_> = history(&pool, id).iter().map(|l| l["attempt"].as_u64()).collect();
        let expected: Vec<_> = (1..=attempts.len() as u64).map(Some).collect();
        assert_eq!(attempts, expected, "each attempt is in the ledger once");
    }
    // At each death one may run, and one may have ended and not be recorded.
    assert!(deaths <= 12, "one slot, six deaths: {deaths} attempts lost");
}

// --- poison ---

/// A job that takes its worker with it is not tried for ever.
#[test]
fn a_task_that_kills_three_workers_lands_in_failed() {
    let pool = quick_pool("");
    let bomb = json!({"class": "cpu", "shell": "kill -9 $PPID; exec fake-job mark=runs hang"});
    let id = submit(&pool, bomb);
    for _life in 1..=3 {
        cpu_worker(&pool, "dead").end().signalled(Signal::KILL);
    }
    assert_eq!(place(&pool, id), "processing a3f0d2");
    let fine = submit(&pool, job(&["say=fine"]));
    let next = cpu_worker(&pool, "dead");
    until_place(&pool, id, "failed a3f0d3");
    until_succeeded(&pool, fine);
    assert_eq!(
        story(&pool, id),
        ["failed worker_died pending", "failed worker_died pending", "failed worker_died failed"]
    );
    let said = next.stderr();
    assert!(said.contains("was running at 3 worker deaths"), "{said}");
}

// --- stopping in order ---

/// 001-B24, B26: told to stop, it claims nothing more, gives back what runs, and ends once.
#[test]
fn seed_001_b24_b26_a_worker_told_to_stop_gives_back_what_runs() {
    let pool = quick_pool("");
    let mut worker = cpu_worker(&pool, "w");
    let gate = pool.fifo("gate");
    let id = submit(&pool, job(&["mark=runs", &gate.word()]));
    until_started(&pool, "runs", id, 1);
    let next = submit(&pool, job(&["mark=runs"]));
    worker.term();
    let ran = worker.end().success();
    assert_eq!(place(&pool, id), "pending a2f0d0", "given back, and nothing counted");
    assert_eq!(place(&pool, next), "pending a1f0d0");
    assert_eq!(story(&pool, id), ["returned - pending"]);
    for said in ["Worker w received shutdown signal", "Worker w shutting down - completed 0 tasks"]
    {
        assert_eq!(ran.stderr.matches(said).count(), 1, "{ran}");
    }
    assert!(jobs_alive(&pool).is_empty(), "{:?}", pool.alive());
}
