//! The brain and the workers that it starts: who is started, what follows when anyone dies, and
//! that nothing is left when it is told to end. What it says about tasks is in `watch.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::{Pool, Proc};

use crate::kit::*;

fn pid_of(pool: &Pool, worker: &str) -> Option<i64> {
    pool.heartbeat(worker)?["process"]["pid"].as_i64()
}

fn kill9(pid: i64) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

fn worker_processes(pool: &Pool) -> usize {
    let alive = pool.alive().into_iter();
    alive.filter(|one| one.command.split(' ').next().unwrap().ends_with("/worker")).count()
}

/// The messages of one kind of event so far.
fn said(pool: &Pool, event: &str) -> Vec<String> {
    let log = pool.log("brain").into_iter();
    let ours = log.filter(|line| line["event"] == event);
    ours.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

fn until_workers(pool: &Pool, line: &str) {
    let what = format!("a MONITOR line with {line}");
    pool.until_true(&what, || said(pool, "brain.monitor").iter().any(|text| text.contains(line)));
}

/// Lets the brain go through two whole monitor intervals more.
fn a_while(pool: &Pool) {
    let before = said(pool, "brain.monitor").len();
    pool.until_true("two more MONITOR lines", || said(pool, "brain.monitor").len() >= before + 2);
}

#[test]
fn seed_001_b30_a_worker_per_gpu_is_started_and_one_that_dies_is_replaced() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--gpus", "0,1,2"]);
    for worker in ["worker-0", "worker-1", "worker-2"] {
        until_alive(&pool, worker);
    }
    let gate = pool.fifo("gate");
    let task = with(gpu_job(&["mark=runs", "child", &gate.word()]), "worker", "worker-1");
    let id = submit(&pool, task);
    until_started(&pool, "runs", id, 1);
    let (before, others) = (pid_of(&pool, "worker-1").unwrap(), pid_of(&pool, "worker-0"));
    kill9(before);
    let again = until_started(&pool, "runs", id, 2);
    assert_ne!(pid_of(&pool, "worker-1"), Some(before), "{again:?}");
    assert_eq!(pid_of(&pool, "worker-0"), others);
    assert_eq!(place(&pool, id), "processing a2f0d1");
    gate.release();
    until_succeeded(&pool, id);
    // Settled before it was started again: the order of the log.
    let log = pool.log("brain");
    let position = |is_it: &dyn Fn(&Value) -> bool| log.iter().position(is_it).unwrap();
    let settled = position(&|line| line["event"] == "worker.settled");
    let spawns = log.iter().enumerate().filter(|(_, line)| {
        line["event"] == "spawn.started" && line.to_string().contains("worker-1")
    });
    let spawns: Vec<_> = spawns.map(|(position, _)| position).collect();
    assert_eq!(spawns.len(), 2, "{:?}", said(&pool, "spawn.started"));
    assert!(settled < spawns[1], "settled at line {settled}, started at {spawns:?}");
    assert!(said(&pool, "spawn.exited").iter().any(|text| text.contains("signal 9")));
}

#[test]
fn a_worker_started_by_hand_counts_and_no_spawn_starts_none() {
    let pool = quick_pool("");
    let _hand = pool.worker(&["--gpu", "1"]);
    let before = until_alive(&pool, "worker-1");
    let brain = pool.brain(&["--gpus", "0,1"]);
    until_alive(&pool, "worker-0");
    until_workers(&pool, "Workers: 2/2");
    a_while(&pool);
    let spawned = said(&pool, "spawn.started");
    assert!(spawned.len() == 1 && spawned[0].contains("worker-0"), "{spawned:?}");
    assert_eq!(pid_of(&pool, "worker-1"), before["process"]["pid"].as_i64());
    // And what it did not start, it does not stop.
    stop(brain);
    assert_eq!(worker_processes(&pool), 1);

    let pool = quick_pool("");
    let _brain = pool.brain(&["--gpus", "0,1", "--no-spawn"]);
    pool.until_event("brain", "brain.monitor");
    a_while(&pool);
    assert_eq!(said(&pool, "spawn.started"), Vec::<String>::new());
    assert_eq!(worker_processes(&pool), 0);
}

fn stop(mut brain: Proc) -> tests::Ran {
    brain.term();
    brain.end().success()
}

/// The brain's program beside another `worker`, so that it finds that one wherever it looks.
fn brain_with_worker(pool: &Pool, script: &str, args: &[&str]) -> Proc {
    let bin = pool.home().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(tests::program("brain"), bin.join("brain")).unwrap();
    fs::write(bin.join("worker"), script).unwrap();
    fs::set_permissions(bin.join("worker"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let like = pool.command("brain", args);
    let mut command = Command::new(bin.join("brain"));
    command.args(args).env_clear().current_dir(pool.home());
    command.envs(like.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.env("PATH", path);
    pool.start(&mut command)
}

/// 003: 990 workers that failed in a loop. Here it waits longer each time, and stops.
#[test]
fn a_worker_that_cannot_start_is_given_up_after_a_while() {
    let pool = quick_pool("breaker_failures = 3\nbreaker_window = \"1h\"\n");
    let script = "#!/bin/sh\necho once >>\"$HOME/tries\"\nexit 9\n";
    let _brain = brain_with_worker(&pool, script, &["--gpus", "4"]);
    let open = pool.until_event("brain", "spawn.breaker_open");
    assert!(open["message"].as_str().unwrap().contains("worker-4"), "{open}");
    a_while(&pool);
    let tries = fs::read_to_string(pool.home().join("tries")).unwrap();
    assert_eq!(tries.lines().count(), 3);
    assert!(said(&pool, "spawn.exited").iter().all(|text| text.contains("exit code 9")));
    assert!(!said(&pool, "spawn.back_off").is_empty());
    assert_eq!(said(&pool, "spawn.breaker_open").len(), 1, "said once (001-B6)");
}

/// 003-B12: to be told to stop is no failure.
#[test]
fn seed_003_b12_a_worker_that_ends_in_order_is_no_failure() {
    let pool = quick_pool("breaker_failures = 1\n");
    let _brain = pool.brain(&["--gpus", "0"]);
    let before = pid_of_first(&pool);
    let pid = Pid::from_raw(i32::try_from(before).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    pool.until_true("another worker-0", || {
        pid_of(&pool, "worker-0").is_some_and(|now| now != before)
    });
    assert_eq!(said(&pool, "spawn.breaker_open"), Vec::<String>::new());
}

/// 003-B12: also for a brain that did not start it, and so cannot ask the kernel how it ended.
#[test]
fn seed_003_b12_a_worker_that_was_taken_over_and_ends_in_order_is_no_failure() {
    let pool = quick_pool("breaker_failures = 1\n");
    let first = pool.brain(&["--gpus", "0"]);
    let before = pid_of_first(&pool);
    first.kill9();
    let _second = pool.brain(&["--gpus", "0"]);
    pool.until_true("the second brain", || said(&pool, "brain.started").len() == 2);
    until_workers(&pool, "Workers: 1/1");
    let pid = Pid::from_raw(i32::try_from(before).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    pool.until_true("another worker-0", || {
        pid_of(&pool, "worker-0").is_some_and(|now| now != before)
    });
    assert_eq!(said(&pool, "spawn.breaker_open"), Vec::<String>::new());
}

fn pid_of_first(pool: &Pool) -> i64 {
    until_alive(pool, "worker-0")["process"]["pid"].as_i64().unwrap()
}

#[test]
fn a_task_that_kills_its_workers_is_taken_out_and_the_workers_come_back() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--gpus", "0"]);
    let id =
        submit(&pool, json!({"class": "script", "shell": "kill -9 $PPID; exec fake-job hang"}));
    until_place(&pool, id, "failed a3f0d3");
    let fine = submit(&pool, gpu_job(&["say=fine"]));
    until_succeeded(&pool, fine);
    assert_eq!(said(&pool, "task.poison").len(), 1);
}

/// Each task has started exactly once.
fn assert_once_each(pool: &Pool, ids: &[shared::id::TaskId]) {
    let mut counts = BTreeMap::new();
    for mark in pool.marks("runs") {
        *counts.entry((mark.task, mark.moment as u8)).or_insert(0) += 1;
    }
    for id in ids {
        for moment in [0, 1] {
            assert_eq!(counts.get(&(id.to_string(), moment)), Some(&1), "{id} {moment}");
        }
    }
}

#[test]
fn workers_go_on_without_the_brain_and_the_next_brain_doubles_nothing() {
    let pool = quick_pool("");
    let brain = pool.brain(&["--gpus", "0,1"]);
    let (zero, one) = (until_alive(&pool, "worker-0"), until_alive(&pool, "worker-1"));
    let gates = ["a", "b"].map(|name| pool.fifo(name));
    let words = gates.each_ref().map(|gate| gate.word());
    let held = words.map(|word| submit(&pool, gpu_job(&["mark=runs", &word])));
    for id in held {
        until_started(&pool, "runs", id, 1);
    }
    brain.kill9();
    gates[0].release();
    let later = submit_all(&pool, (0..20).map(|_| gpu_job(&["mark=runs"])));
    until_succeeded(&pool, *later.last().unwrap());
    let _next = pool.brain(&["--gpus", "0,1"]);
    until_workers(&pool, "Workers: 2/2");
    gates[1].release();
    for id in held.iter().chain(&later) {
        until_succeeded(&pool, *id);
    }
    a_while(&pool);
    let all: Vec<_> = held.into_iter().chain(later).collect();
    assert_once_each(&pool, &all);
    assert_eq!(worker_processes(&pool), 2);
    assert_eq!(pid_of(&pool, "worker-0"), zero["process"]["pid"].as_i64());
    assert_eq!(pid_of(&pool, "worker-1"), one["process"]["pid"].as_i64());
}

#[test]
fn a_second_brain_stands_by_and_takes_over() {
    let pool = quick_pool("");
    let first = pool.brain(&["--gpus", "0"]);
    let worker = pid_of_first(&pool);
    let second = pool.brain(&["--gpus", "0"]);
    let said_so = format!("Standing by: the brain's lock is held by pid {}", first.pid());
    pool.until_true("the second stands by", || second.stderr().contains(&said_so));
    let seen = || pool.queue(&["status", "--json"]).success().json()["brain"].clone();
    pool.until_true("both are in the status", || {
        let (brain, standby) = (seen()["pid"].clone(), seen()["standby"].clone());
        (brain, standby) == (first.pid().into(), second.pid().into())
    });
    first.kill9();
    pool.until_true("the second takes over", || second.stderr().contains("Brain took over after"));
    pool.until_true("nobody stands by", || seen()["standby"].is_null());
    assert_eq!(seen()["pid"], second.pid());
    // A worker dies under the new brain: it is missed there, too.
    kill9(worker);
    pool.until_true("a new worker-0", || {
        pid_of(&pool, "worker-0").is_some_and(|pid| pid != worker)
    });
    stop(second);
}

#[test]
fn a_brain_that_stands_by_can_be_told_to_end() {
    let pool = quick_pool("");
    let _first = pool.brain(&["--no-spawn"]);
    pool.until_event("brain", "brain.started");
    let second = pool.brain(&["--no-spawn"]);
    pool.until_true("the second stands by", || second.stderr().contains("Standing by"));
    stop(second);
}

/// Ctrl-C reaches the brain alone; it drains what it started, and nothing is left.
#[test]
fn ctrl_c_drains_and_leaves_nothing_running() {
    for signal in [Signal::INT, Signal::TERM] {
        let pool = quick_pool("");
        let mut brain = pool.brain(&["--gpus", "0,1"]);
        until_alive(&pool, "worker-0");
        until_alive(&pool, "worker-1");
        let gate = pool.fifo("gate");
        let id = submit(&pool, gpu_job(&["mark=runs", "child", "daemon", &gate.word()]));
        until_started(&pool, "runs", id, 1);
        let late = submit(&pool, gpu_job(&["mark=runs"]));
        until_succeeded(&pool, late);
        brain.signal_group(signal);
        let ran = brain.end().success();
        assert_eq!(pool.alive(), [], "{ran}");
        let scene = scene(&pool, id);
        assert_eq!(place(&pool, id), "pending a2f0d0", "given back, and nothing counted: {scene}");
        assert!(ran.stderr.contains("Brain stopping"), "{ran}");
    }
}

/// So no signal of a terminal reaches them: not Ctrl-C, not its hanging up.
#[test]
fn workers_of_the_brain_have_a_session_of_their_own() {
    // `man proc_pid_stat`: the sixth field; the second, in brackets, may hold blanks.
    let session = |pid: i64| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_name, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(3).unwrap().parse::<i64>().unwrap()
    };
    let pool = quick_pool("");
    let _brain = pool.brain(&["--gpus", "0"]);
    let by_hand = pool.worker(&["--cpu", "--name", "w"]);
    let by_hand_pid = i64::from(by_hand.pid());
    ["worker-0", "w"].iter().for_each(|worker| drop(until_alive(&pool, worker)));
    let by_brain = pid_of(&pool, "worker-0").unwrap();
    assert_eq!(session(by_brain), by_brain);
    assert_ne!(
        session(by_hand_pid),
        by_hand_pid,
        "a person's worker stays in the person's session"
    );
}

/// A mistyped variable would otherwise do nothing, and say nothing.
#[test]
fn a_variable_that_nothing_reads_is_told_of_once_by_each_program() {
    let pool = quick_pool("");
    pool.env("BRAINSTEM_STUCK_AFTR", "secret");
    let _brain = pool.brain(&["--gpus", "0"]);
    until_alive(&pool, "worker-0");
    let sentence = "BRAINSTEM_STUCK_AFTR is set and ignored: there is no such setting; did you \
                    mean `BRAINSTEM_STUCK_AFTER`?";
    for log in ["brain", "worker-worker-0"] {
        pool.until_event(log, "process.unknown_variable");
        let lines = pool.log(log);
        let told: Vec<_> =
            lines.iter().filter(|line| line["event"] == "process.unknown_variable").collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0]["message"], &told[0]["level"]), (&sentence.into(), &"WARNING".into()));
        assert!(!told[0].to_string().contains("secret"));
    }
    for command in ["config", "doctor"] {
        let ran = pool.queue(&[command, "--json"]).success();
        assert!(ran.stderr.contains(sentence) && ran.stdout.lines().count() == 1, "{ran}");
    }
    assert_eq!(pool.queue(&["status", "--json"]).success().stderr, "");
}

/// What can finish in the grace, does.
#[test]
fn a_stopping_brain_lets_jobs_finish() {
    let pool = quick_pool("shutdown_grace = \"20s\"\n");
    let brain = pool.brain(&["--gpus", "0"]);
    let gate = pool.fifo("gate");
    let id = submit(&pool, gpu_job(&["mark=runs", &gate.word()]));
    until_started(&pool, "runs", id, 1);
    brain.term();
    pool.until_event("brain", "brain.stopping");
    gate.release();
    let mut brain = brain;
    brain.end().success();
    until_succeeded(&pool, id);
    assert_once_each(&pool, &[id]);
}

#[test]
fn a_machine_without_the_nvidia_library_is_told_so_once() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--gpus", "0"]);
    pool.until_event("brain", "brain.monitor");
    a_while(&pool);
    let told = said(&pool, "gpu.no_library");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("no-nvidia-library"), "{told:?}");
}

/// 003-L3, S1, A1: the decision with its figures, and an alarm that does not block it.
#[test]
fn seed_003_l3_a1_a_scaling_decision_is_said_with_its_figures() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--gpus", "0,1,2"]);
    until_alive(&pool, "worker-2");
    let decision = pool.until_event("brain", "scaling.decision");
    let text = decision["message"].as_str().unwrap();
    assert!(text.starts_with("SCALING DECISION (Cycle #"), "{text}");
    assert!(
        text.ends_with(
            "Current=0+0, Desired=3, Decision=SCALE UP by 3 (0 queued + 0 active, max 3)"
        ),
        "{text}"
    );
    assert_eq!(decision["level"], "INFO", "003-B8: a routine line is not CRITICAL");
    assert!(said(&pool, "detect.anomaly").is_empty(), "a normal start is none");
    let decisions = fs::read_to_string(pool.dir().join("brain/decisions.jsonl")).unwrap();
    assert!(decisions.lines().count() > 0);
}

/// 003-A1: three at once, beyond what a start fills up.
#[test]
fn many_workers_at_once_are_an_anomaly_unless_the_brain_has_just_started() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--gpus", "0,1,2", "--min-workers", "0"]);
    pool.until_event("brain", "brain.monitor");
    let jobs: Vec<Value> = (0..3).map(|_| gpu_job(&["mark=runs"])).collect();
    submit_all(&pool, jobs);
    let jump = pool.until_event("brain", "detect.anomaly");
    assert!(jump["message"].as_str().unwrap().contains("Rapid scale-up of 3 workers"), "{jump}");
}

/// One worker per task at most where a smaller number is asked for: the cap is what counts.
#[test]
fn the_brain_starts_as_many_as_it_may() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--gpus", "0,1,2", "--min-workers", "0", "--max-workers", "2"]);
    pool.until_event("brain", "brain.monitor");
    a_while(&pool);
    assert_eq!(worker_processes(&pool), 0, "no work, no workers");
    let gates = ["a", "b", "c", "d", "e"].map(|name| pool.fifo(name));
    let jobs = gates.each_ref().map(|gate| gpu_job(&["mark=runs", &gate.word()]));
    let ids = submit_all(&pool, jobs);
    until_workers(&pool, "Workers: 2/2");
    until_workers(&pool, "Queue: 3 (script:3), Processing: 2");
    a_while(&pool);
    assert_eq!(worker_processes(&pool), 2, "{:?}", said(&pool, "scaling.decision"));
    for (gate, id) in gates.iter().zip(ids) {
        gate.release();
        until_succeeded(&pool, id);
    }
}
