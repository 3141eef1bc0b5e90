//! What the brain sees and says: hung workers, stuck tasks, unclaimed ones, the MONITOR line; and
//! what it releases.

use queue::dir::presence::heartbeats::{self};
use queue::dir::presence::lease::Lease;
use queue::dir::presence::lease::this_process;
use queue::dir::signal::control::{self, ControlVerb, Message};
use queue::wire::heartbeat::Status;
use queue::wire::heartbeat::{Ability, ClaimReport, Heartbeat};
use queue::wire::lease_record::Record;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use shared::id::{Incarnation, TaskId};
use shared::task::Class;
use shared::time::Moment;
use tests::Pool;

use crate::kit::*;

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap()
}

/// Lines of one event that mention this.
fn said(pool: &Pool, event: &str, about: &str) -> Vec<Value> {
    let log = pool.news("brain").into_iter();
    log.filter(|line| line["event"] == event && line.to_string().contains(about)).collect()
}

#[track_caller]
fn until_said(pool: &Pool, event: &str, about: &str) -> Value {
    pool.until(&format!("{event} about {about}"), || said(pool, event, about).pop())
}

fn monitor(pool: &Pool, part: &str) -> Value {
    until_said(pool, "brain.monitor", part)
}

fn cpu_worker(pool: &Pool, name: &str) -> tests::Proc {
    pool.worker(&["--cpu", "--cpu-slots", "2", "--name", name])
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

// --- workers ---

/// 001-G6, first half (and 001-B9): a killed worker cannot say so; the brain does.
#[test]
fn seed_001_g6_a_worker_that_dies_is_reported_and_its_task_put_back() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--no-spawn"]);
    let victim = pool.worker(&["--gpu", "1"]);
    until_succeeded(&pool, submit(&pool, gpu_job(&["say=x"])));
    let id = submit(&pool, gpu_job(&["mark=runs", "hang"]));
    until_started(&pool, "runs", id, 1);
    victim.kill9();
    let died = pool.until_event("brain", "worker.died");
    assert!(message(&died).starts_with("Worker worker-1 died"), "{died}");
    let (status, counts) = ("(last status: ", " - completed 1 tasks, tasks to settle: 1");
    assert!(message(&died).contains(status) && message(&died).ends_with(counts), "{died}");
    let requeued = until_said(&pool, "task.requeued", &id.to_string());
    assert_eq!(
        message(&requeued),
        format!("Requeued task: {} after the death of worker-1 (deaths: 1)", id.short())
    );
    until_place(&pool, id, "pending a2f0d1");
    let settled = pool.until_event("brain", "worker.settled");
    assert!(message(&settled).contains("1 requeued, 0 ended"), "{settled}");
}

/// 001-G6, second half: a worker that stands still is not dead.
#[test]
fn seed_001_g6_a_stopped_worker_is_called_hung_and_nobody_is_declared_dead() {
    let pool = quick_pool("heartbeat_warn = \"1s\"\n");
    let worker = pool.worker(&["--gpu", "1"]);
    let gate = pool.fifo("gate");
    let id = submit(&pool, gpu_job(&["mark=runs", &gate.word()]));
    until_started(&pool, "runs", id, 1);
    let _brain = pool.brain(&["--no-spawn"]);
    monitor(&pool, "Processing: 1");
    worker.stop();
    let hung = pool.until_event("brain", "worker.hung");
    let text = message(&hung);
    let age = text.strip_prefix("Worker worker-1 last heartbeat ").unwrap();
    let age = age.strip_suffix("s ago (threshold: 1s)").unwrap();
    assert!(age.parse::<u64>().unwrap() >= 1, "{text}");
    assert_eq!(hung["level"], "WARNING");
    assert_eq!(hung["extra"]["evidence"]["process_state"], "T", "{hung}");
    let before = said(&pool, "brain.monitor", "").len();
    pool.until_true("two more lines", || said(&pool, "brain.monitor", "").len() > before + 1);
    assert_eq!(place(&pool, id), "processing a1f0d0", "nobody takes it away");
    assert!(said(&pool, "worker.died", "").is_empty());
    assert_eq!(said(&pool, "worker.hung", "").len(), 1, "once, not every cycle (001-B6)");
    worker.cont();
    let cleared = pool.until_event("brain", "worker.hung_cleared");
    assert!(message(&cleared).starts_with("Worker worker-1 sends heartbeats again"), "{cleared}");
    gate.release();
    until_succeeded(&pool, id);
    assert_eq!(story(&pool, id), ["succeeded - end"]);
}

/// 001-G8: all workers busy.
#[test]
fn seed_001_g8_two_hundred_tasks_and_three_workers_in_one_line() {
    let pool = quick_pool("");
    let gate = pool.fifo("gate");
    let _brain = pool.brain(&["--gpus", "0,1,2"]);
    until_alive(&pool, "worker-2");
    monitor(&pool, "Workers: 3/3");
    // All at once, in one commit: no look falls in between.
    let line = gpu_job(&["mark=runs", &gate.word()]).to_string() + "\n";
    pool.queue_with_input(&["submit", "--batch", "-"], &line.repeat(200)).success();
    let line = monitor(&pool, "Queue: 197 (script:197), Processing: 3, Stuck: 0");
    assert!(message(&line).contains("Workers: 3/3"), "{line}");
    assert!(message(&line).starts_with("MONITOR: GPUs: "), "{line}");
    assert_eq!(line["extra"]["queue"]["script"], 197);
    // What is claimed has started a moment later.
    pool.until_true("three jobs", || pool.marks("runs").len() == 3);
    // 003-A3, B5, B7: the jump is told, with the age of what is behind it.
    let jump = until_said(&pool, "detect.anomaly", "Task count jumped from");
    assert!(jump["extra"]["figures"]["oldest"].is_string(), "{jump}");
}

// --- tasks that do not get on ---

fn stuck_pool(more: &str) -> Pool {
    quick_pool(&format!("stuck_after = \"1s\"\n{more}"))
}

#[test]
fn a_task_without_progress_is_reported_with_evidence_and_left_alone() {
    let pool = stuck_pool("");
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = cpu_worker(&pool, "w");
    let gate = pool.fifo("gate");
    let id = submit(&pool, with(job(&["mark=runs", &gate.word()]), "name", "add_topics"));
    let stuck = pool.until_event("brain", "detect.stuck");
    assert_eq!(
        message(&stuck),
        format!(
            "Stuck tasks detected: [{{'task_id': '{}', 'assigned_to': 'w', 'elapsed_min': 0, \
             'name': 'add_topics'}}]",
            id.short()
        )
    );
    assert_eq!(stuck["level"], "WARNING");
    let evidence = &stuck["extra"]["tasks"][0]["evidence"];
    assert!(evidence.as_object().is_some_and(|map| !map.is_empty()), "{stuck}");
    monitor(&pool, "Stuck: 1");
    let before = said(&pool, "brain.monitor", "").len();
    pool.until_true("two more lines", || said(&pool, "brain.monitor", "").len() > before + 1);
    assert_eq!(said(&pool, "detect.stuck", "").len(), 1, "001-B6: once, not every cycle");
    assert_eq!(place(&pool, id), "processing a1f0d0", "without a limit it is left alone");
    gate.release();
    until_succeeded(&pool, id);
    // It may be over before anybody sees it get on.
    pool.until_log("brain", |line| {
        let over = ["detect.stuck_cleared", "detect.stuck_over"];
        over.iter().any(|name| line["event"] == *name) && line["task_id"] == id.to_string()
    });
}

/// A worker that is stopped says nothing of its job: the brain looks for itself.
#[test]
fn a_quiet_task_of_a_stopped_worker_is_stuck_and_so_says_why() {
    let pool = stuck_pool("");
    let _brain = pool.brain(&["--no-spawn"]);
    let worker = cpu_worker(&pool, "w");
    let gate = pool.fifo("gate");
    let id = submit(&pool, job(&["mark=runs", &gate.word()]));
    let held = gate.until_reached();
    pool.until_true("the worker to know its job's processes", || {
        pool.heartbeat("w").is_some_and(|beat| beat["current"][0]["pgid"].is_u64())
    });
    worker.stop();
    let stuck = pool.until_event("brain", "detect.stuck");
    assert_eq!(stuck["extra"]["tasks"][0]["evidence"]["seen_by"], "brain", "{stuck}");
    pool.until_true("queue why to say so", || {
        let why = pool.queue(&["why", &id.to_string()]).stdout;
        why.contains("it is stuck: no progress for ")
    });
    worker.cont();
    held.release();
    until_succeeded(&pool, id);
}

/// The limit of the class, from pool.toml, or the task's own: ended, counted, tried again.
#[test]
fn a_stalled_task_with_a_limit_is_ended_and_tried_again() {
    for (settings, own) in [("[stall_timeout]\ncpu = \"1s\"\n", None), ("", Some("1s"))] {
        let pool = stuck_pool(settings);
        let _brain = pool.brain(&["--no-spawn"]);
        let _worker = cpu_worker(&pool, "w");
        // The first attempt hangs, the second finds the file and ends.
        let line = "test -e seen && exit 0; : >seen; exec fake-job mark=runs hang";
        let mut spec = json!({"class": "cpu", "shell": line});
        if let Some(own) = own {
            spec = with(spec, "stall_timeout", own);
        }
        let id = submit(&pool, spec);
        let asked = until_said(&pool, "detect.stall_stop", &id.to_string());
        assert!(message(&asked).starts_with("Asked w to end stalled task"), "{asked}");
        until_succeeded(&pool, id);
        assert_eq!(story(&pool, id), ["failed stalled delayed", "succeeded - end"], "{settings}");
    }
}

/// 001-B5: long is not stuck.
#[test]
fn seed_001_b5_a_task_that_works_is_slow_and_not_stuck() {
    let pool = stuck_pool("[stall_timeout]\ncpu = \"1500ms\"\n");
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = cpu_worker(&pool, "w");
    let id = submit(&pool, job(&["mark=runs", "spin=3"]));
    let slow = until_said(&pool, "detect.slow", &id.to_string());
    assert!(message(&slow).starts_with(&format!("Slow task: {} on w", id.short())), "{slow}");
    until_succeeded(&pool, id);
    assert_eq!(said(&pool, "detect.slow", "").len(), 1);
    assert!(said(&pool, "detect.stuck", &id.short()).is_empty());
    assert_eq!(story(&pool, id), ["succeeded - end"]);
}

/// One that is stopped (for cooling, or by a person) does not count, however long.
#[test]
fn a_stopped_job_is_not_stuck() {
    let pool = stuck_pool("[stall_timeout]\ncpu = \"1s\"\n");
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = cpu_worker(&pool, "w");
    let stopped = submit(&pool, job(&["mark=runs", "hang"]));
    let pid = until_started(&pool, "runs", stopped, 1).pid;
    signal(pid, Signal::STOP);
    // One that really hangs, begun later, is ended first.
    let hangs = submit(&pool, with(job(&["mark=runs", "hang"]), "max_attempts", 1));
    until_place(&pool, hangs, "failed a1f1d0");
    assert_eq!(story(&pool, hangs), ["failed stalled failed"]);
    assert_eq!(place(&pool, stopped), "processing a1f0d0");
    assert!(said(&pool, "detect.stuck", &stopped.short()).is_empty());
    signal(pid, Signal::KILL);
}

/// 001-B1: one bad file does not end a pass, and no start is not "just now".
#[test]
fn seed_001_b1_what_cannot_be_read_hides_nothing_else() {
    let pool = stuck_pool("");
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = cpu_worker(&pool, "w");
    let id = submit(&pool, job(&["mark=runs", "hang"]));
    until_started(&pool, "runs", id, 1);
    let root = pool.dir();
    std::fs::write(root.join("workers/bad.json"), "{\"half\": ").unwrap();
    std::fs::write(root.join("processing/w/half.json"), "{").unwrap();
    std::fs::create_dir(root.join("processing/empty")).unwrap();
    std::fs::create_dir_all(root.join("pending/cpu-nonsense/05/xyz")).unwrap();
    let unreadable = format!("processing/w/{}.a1f0d0.json", TaskId::new());
    std::fs::write(root.join(&unreadable), "not a task").unwrap();
    until_said(&pool, "detect.stuck", &id.short());
    let after = submit(&pool, job(&["say=fine"]));
    until_succeeded(&pool, after);
}

/// A worker that lives, is idle and may take a task, and does not.
fn sleepy(pool: &Pool) -> Lease {
    let inside = inside(pool);
    let worker: shared::name::Name = "sleepy".parse().unwrap();
    let (life, process, now) = (Incarnation::new(), this_process(), Moment::now());
    let lease = Lease::try_take(&inside, &worker).unwrap().unwrap();
    lease.write(&Record::of(worker.clone(), process.clone(), life.clone(), now)).unwrap();
    let ability = Ability {
        classes: vec![Class::Cpu],
        gpu: None,
        gpu_uuid: None,
        gpu_memory: None,
        gpu_state: queue::wire::heartbeat::gpu_state::GpuState::default(),
        gpu_slots: 0,
        cpu_slots: 1,
        paused: None,
        draining: None,
        starved: None,
        backs_off: Vec::new(),
        server: None,
    };
    let beat = Heartbeat {
        schema: queue::wire::heartbeat::SCHEMA.into(),
        worker,
        process,
        life,
        version: "0".into(),
        started_at: now,
        at: now,
        uptime: None,
        seq: 1,
        status: Status::Idle,
        ability,
        current: vec![],
        gpu_reading: None,
        claim: ClaimReport::default(),
        completed: 0,
        failed: 0,
        lost_races: 0,
        idle_since: Some(now),
        log_seq: 0,
    };
    heartbeats::write(&inside, &beat).unwrap();
    lease
}

#[test]
fn a_task_that_an_idle_worker_could_take_and_nobody_takes_is_reported() {
    let pool = quick_pool("unclaimed_after = \"1s\"\n");
    inside(&pool);
    let _lease = sleepy(&pool);
    let _brain = pool.brain(&["--no-spawn"]);
    let id = submit(&pool, job(&["mark=runs"]));
    // 001-B5: nobody can take this one, so nobody is to blame for it.
    let impossible = submit(&pool, gpu_job(&["mark=runs"]));
    let line = pool.until_event("brain", "detect.unclaimed");
    let text = message(&line);
    assert!(
        text.starts_with(&format!("Unclaimed cpu task: {} is available for ", id.short())),
        "{text}"
    );
    assert!(text.ends_with("s but workers ['sleepy'] do not take it"), "{text}");
    let _worker = cpu_worker(&pool, "w");
    until_succeeded(&pool, id);
    until_said(&pool, "detect.unclaimed_cleared", &id.to_string());
    assert!(said(&pool, "detect.unclaimed", &impossible.to_string()).is_empty());
}

/// The incident of 7 Feb 2026: one worker does it all while another is idle.
#[test]
fn seed_001_b11_one_worker_doing_everything_is_reported() {
    let pool = quick_pool("unclaimed_after = \"500ms\"\n");
    inside(&pool);
    let _lease = sleepy(&pool);
    let _brain = pool.brain(&["--no-spawn"]);
    pool.until_event("brain", "brain.monitor");
    let gate = pool.fifo("gate");
    let quick = (0..40).map(|_| job(&["say=x"]));
    let slow = (0..4).map(|_| job(&["mark=runs", &gate.word()]));
    submit_all(&pool, quick.chain(slow));
    let _worker = cpu_worker(&pool, "w");
    let line = pool.until_event("brain", "detect.imbalance");
    assert!(message(&line).starts_with("Imbalance: w took "), "{line}");
    assert!(message(&line).ends_with("while ['sleepy'] are idle"), "{line}");
}

// --- what waits ---

/// Delays, dependencies met before the brain started and after, and hopeless ones.
fn what_waits_is_released(pool: &Pool, start: impl Fn(&Pool) -> Vec<tests::Proc>) {
    let mut early = cpu_worker(pool, "early");
    let good = submit(pool, job(&["mark=runs"]));
    let bad = submit(pool, with(job(&["exit=1"]), "max_attempts", 1));
    until_succeeded(pool, good);
    until_place(pool, bad, "failed a1f1d0");
    early.term();
    early.end().success();
    let after = |id: TaskId, on: &str| json!([{"id": id.to_string(), "on": on}]);
    let runs = |on: Value| with(job(&["mark=runs"]), "after", on);
    let ended_before = submit(pool, runs(json!([good.to_string()])));
    let on_failure = submit(pool, runs(after(bad, "failure")));
    let hopeless = submit(pool, runs(after(bad, "success")));
    let of_hopeless = submit(pool, runs(after(hopeless, "success")));
    let late = submit(pool, with(job(&["mark=runs"]), "in", "1s"));
    let any = submit(pool, runs(json!([{"id": late.to_string(), "on": "any"}, good.to_string()])));
    assert_eq!(place(pool, late), "delayed a1f0d0");
    assert_eq!(place(pool, any), "waiting a1f0d0");
    let _programs = start(pool);
    for id in [ended_before, on_failure, late, any] {
        until_succeeded(pool, id);
    }
    for id in [hopeless, of_hopeless] {
        until_place(pool, id, "gone");
        assert_eq!(story(pool, id), ["cancelled dependency_failed end"]);
        assert!(starts(pool, "runs", id).is_empty());
    }
    let at = |id: TaskId| until_started(pool, "runs", id, 1).at;
    assert!(at(any) > at(late), "what waits for a delayed one comes after it");
}

#[test]
fn a_brain_releases_what_waits_also_what_became_ready_before_it_started() {
    let pool = quick_pool("");
    what_waits_is_released(&pool, |pool| vec![pool.brain(&["--no-spawn"]), cpu_worker(pool, "w")]);
    assert_eq!(said(&pool, "task.dependency_failed", "").len(), 2);
    assert_eq!(said(&pool, "task.due", "").len(), 1);
    assert_eq!(said(&pool, "task.promoted", "").len(), 3);
}

#[test]
fn without_a_brain_an_idle_worker_releases_what_waits() {
    let pool = quick_pool("");
    what_waits_is_released(&pool, |pool| vec![cpu_worker(pool, "w")]);
}

#[test]
fn a_paused_pool_takes_nothing_and_goes_on_when_resumed() {
    let pool = quick_pool("unclaimed_after = \"1s\"\n");
    control::pause_pool(inside(&pool).layout(), &Message::new(ControlVerb::Pause, "ann")).unwrap();
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = cpu_worker(&pool, "w");
    let id = submit(&pool, job(&["mark=runs"]));
    monitor(&pool, "Queue: 1 (cpu:1), Processing: 0");
    let paused = pool
        .until("a paused worker", || pool.heartbeat("w").filter(|beat| beat["status"] == "paused"));
    assert_eq!(paused["claim"]["reasons"][0]["code"], "paused", "{paused}");
    let before = said(&pool, "brain.monitor", "").len();
    pool.until_true("two more lines", || said(&pool, "brain.monitor", "").len() > before + 1);
    assert!(said(&pool, "detect.unclaimed", "").is_empty(), "a pause is no neglect");
    assert_eq!(place(&pool, id), "pending a1f0d0");
    assert!(control::resume_pool(inside(&pool).layout()).unwrap());
    until_succeeded(&pool, id);
}

// --- the MONITOR line ---

#[test]
fn the_monitor_line_comes_at_its_interval_also_when_nothing_changes() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--no-spawn"]);
    let lines = pool.until("three quiet MONITOR lines", || {
        let lines = said(&pool, "brain.monitor", "Queue: 0, Processing: 0, Stuck: 0");
        (lines.len() >= 4).then_some(lines)
    });
    let time = |line: &Value| line["timestamp"].as_str().unwrap().parse::<Moment>().unwrap();
    for pair in lines[1..].windows(2) {
        let gap = time(&pair[1]).seconds_since(time(&pair[0]));
        assert!((0.8..5.0).contains(&gap), "{gap} s between two lines at an interval of 1 s");
    }
    // What `queue status` reads.
    let state = std::fs::read(pool.dir().join("brain/state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    assert!(state["as_of"].is_string(), "{state}");
}
