//! GPUs that cannot be worked on, or have no room: who takes nothing, who says so, and that all goes
//! on by itself when they are well again.

use std::process;

use serde_json::{Value, json};
use tests::{FakeGpu, Pool};

use crate::kit::steps::{
    file_of, lines_of, quick, show, submit, until_over, until_running, until_said, until_up,
};

/// Quarantines as short as a test can wait for.
const SHORT: &str = "gpu_quarantine_first = \"200ms\"\ngpu_quarantine_max = \"200ms\"";

fn two() -> [FakeGpu; 2] {
    ["GPU-a", "GPU-b"].map(FakeGpu::new)
}

/// What the worker says of its GPU's fitness.
fn fitness(pool: &Pool, worker: &str) -> Value {
    let beat = pool.heartbeat(worker).unwrap_or_default();
    beat["ability"]["gpu_state"]["fitness"].clone()
}

#[track_caller]
fn until_fault(pool: &Pool, worker: &str, fault: &Value) {
    let what = format!("{worker} in quarantine for {fault}");
    pool.until_true(&what, || fitness(pool, worker)["quarantined"]["fault"] == *fault);
}

#[track_caller]
fn until_fit(pool: &Pool, worker: &str) {
    pool.until_true(&format!("{worker} fit"), || fitness(pool, worker) == "fit");
}

/// `queue why`, which says that it is blocked.
#[track_caller]
fn why(pool: &Pool, words: &str) -> Value {
    pool.queue(&["why", "--json", words]).code(5).json()
}

/// Until worker-0 says that so many tasks run there: what has ended is over before it says so.
fn until_runs(pool: &Pool, count: usize) {
    let runs = |beat: Value| beat["current"].as_array().map(Vec::len) == Some(count);
    let what = format!("{count} tasks on worker-0");
    pool.until_true(&what, || pool.heartbeat("worker-0").is_some_and(runs));
}

#[track_caller]
fn has_code(reasons: &Value, code: &str) {
    let has = reasons.as_array().unwrap().iter().any(|reason| reason["code"] == code);
    assert!(has, "no {code} in {reasons}");
}

#[test]
fn a_worker_whose_gpu_is_lost_takes_nothing_says_why_and_works_on_when_it_is_back() {
    let pool = quick(SHORT);
    pool.fake_gpus(&two());
    let _workers = ["0", "1"].map(|gpu| pool.worker(&["--gpu", gpu]));
    ["worker-0", "worker-1"].into_iter().for_each(|worker| until_up(&pool, worker));
    let gate = pool.fifo("gate");
    let before = submit(&pool, &["--worker", "worker-0"], &["say=before", &gate.word()]);
    let held = gate.until_reached();

    // The other card has its number now.
    pool.fake_gpus(&[FakeGpu::new("GPU-b")]);
    until_fault(&pool, "worker-0", &json!("missing"));
    held.release();
    assert_eq!(until_over(&pool, &before)["outcome"], "succeeded", "what runs is left alone");
    let waits = submit(&pool, &["--worker", "worker-0"], &["say=x"]);
    let cpu = submit(&pool, &["--worker", "worker-0", "--class", "cpu"], &["say=x"]);
    for _task in 0..4 {
        let done = until_over(&pool, &submit(&pool, &[], &["say=x"]));
        assert_eq!((&done["outcome"], &done["worker"]), (&json!("succeeded"), &json!("worker-1")));
    }
    until_runs(&pool, 0);
    let state = until_said(&pool, "worker-0", "is out of use: the driver lists no such GPU");
    assert_eq!(state["level"], "ERROR");
    for words in [&*waits, &*cpu, "worker-0", "gpu:0", "GPU-a"] {
        has_code(&why(&pool, words)["reasons"], "gpu.quarantined");
    }
    let status = pool.queue(&["status", "--json"]).success().json();
    has_code(&status["warnings"], "gpu.quarantined");
    assert_eq!(status["workers"][0]["status"], "quarantined");
    let gpus = pool.queue(&["gpus", "--json"]).success().json();
    let lost = gpus["gpus"].as_array().unwrap().iter().find(|gpu| gpu["uuid"] == "GPU-a").unwrap();
    assert_eq!(lost["worker"], "worker-0");
    assert_eq!(lost["state"]["quarantined"]["fault"], "missing");
    let doctor = pool.queue(&["doctor", "--json"]).code(1).json();
    let check = doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "gpu");
    assert!(check.unwrap()["detail"].as_str().unwrap().contains("worker-0's GPU 0 is out of use"));

    pool.fake_gpus(&two());
    for id in [&waits, &cpu] {
        assert_eq!(until_over(&pool, id)["outcome"], "succeeded");
        assert_eq!(lines_of(&pool, id).len(), 1, "nobody tried it before");
    }
    until_said(&pool, "worker-0", "GPU 0 (GPU-a) of worker-0 is in use again after");
    pool.queue(&["doctor"]).success();
}

#[test]
fn every_word_of_the_driver_against_a_gpu_begins_a_quarantine() {
    let pool = quick(SHORT);
    let well = FakeGpu::new("GPU-a");
    pool.fake_gpus(std::slice::from_ref(&well));
    let _worker = pool.worker(&["--gpu", "0"]);
    until_up(&pool, "worker-0");
    let with = |change: fn(&mut FakeGpu)| {
        let mut ill = well.clone();
        change(&mut ill);
        ill
    };
    let silent = with(|gpu| {
        gpu.used_mib = "!".into();
        gpu.utilization = "!".into();
        gpu.temperature = "!".into();
        gpu.milliwatts = "!".into();
        gpu.throttle = "!".into();
    });
    for (ill, fault) in [
        (with(|gpu| gpu.temperature = "lost".into()), json!("lost")),
        (with(|gpu| gpu.utilization = "reset".into()), json!("reset_required")),
        (with(|gpu| gpu.recovery = 2), json!({"recovery": "reboot"})),
        (with(|gpu| gpu.xid = 79), json!({"xid": 79})),
        (silent, json!("unreadable")),
    ] {
        pool.fake_gpus(&[ill]);
        until_fault(&pool, "worker-0", &fault);
        pool.fake_gpus(std::slice::from_ref(&well));
        until_fit(&pool, "worker-0");
    }
    // One sensor that fails, or a job's own mistake, speaks against nobody.
    let half = with(|gpu| {
        gpu.temperature = "!".into();
        gpu.xid = 31;
    });
    pool.fake_gpus(&[half]);
    pool.until_true("the look at it", || {
        let beat = pool.heartbeat("worker-0").unwrap_or_default();
        beat["gpu_reading"]["temperature"] == Value::Null
    });
    assert_eq!(fitness(&pool, "worker-0"), "fit");
}

#[test]
fn a_gpu_that_is_missing_from_the_start_is_waited_for_and_worked_on_when_it_comes() {
    let pool = quick(&format!("{SHORT}\nollama_base_port = \"off\"\nmonitor_interval = \"1s\""));
    pool.fake_gpus(&two());
    let _brain = pool.brain(&["--gpus", "0,1,2"]);
    ["worker-0", "worker-1", "worker-2"].into_iter().for_each(|worker| until_up(&pool, worker));
    until_fault(&pool, "worker-2", &json!("missing"));
    for words in ["worker-2", "gpu:2"] {
        has_code(&why(&pool, words)["reasons"], "gpu.quarantined");
    }
    let gpus = pool.queue(&["gpus", "--json"]).success().json();
    assert_eq!(
        (&gpus["gpus"][2]["index"], &gpus["gpus"][2]["worker"]),
        (&json!(2), &json!("worker-2"))
    );
    has_code(&pool.queue(&["status", "--json"]).success().json()["warnings"], "gpu.quarantined");
    pool.queue(&["doctor"]).code(1);
    let two_of_three = |line: &Value| {
        line["event"] == "brain.monitor" && line["message"].as_str().unwrap().contains("GPUs: 0/3")
    };
    pool.until_log("brain", two_of_three);
    let waits = submit(&pool, &["--worker", "worker-2"], &["env=CUDA_VISIBLE_DEVICES"]);
    let pid = pool.heartbeat("worker-2").unwrap()["process"]["pid"].clone();

    pool.fake_gpus(&["GPU-a", "GPU-b", "GPU-c"].map(FakeGpu::new));
    assert_eq!(until_over(&pool, &waits)["outcome"], "succeeded");
    assert_eq!(show(&pool, &waits)["attempts"][0]["gpu_uuid"], "GPU-c");
    // The same process, in a new life: nobody had to start it again.
    assert_eq!(pool.heartbeat("worker-2").unwrap()["process"]["pid"], pid);
    let exits = pool.log("brain").iter().filter(|line| line["event"] == "spawn.exited").count();
    assert_eq!(exits, 0);
}

#[test]
fn a_hot_gpu_is_given_nothing_new_until_it_has_cooled_down() {
    let pool = quick("");
    let at = |degrees: &str| {
        let mut gpu = FakeGpu::new("GPU-a");
        gpu.temperature = degrees.into();
        pool.fake_gpus(&[gpu]);
    };
    at("70");
    let _worker = pool.worker(&["--gpu", "0"]);
    until_up(&pool, "worker-0");
    let gate = pool.fifo("gate");
    let runs = submit(&pool, &[], &[&gate.word()]);
    let held = gate.until_reached();
    at("83");
    pool.until_true("too hot", || fitness(&pool, "worker-0")["hot"]["limit"] == "soft");
    held.release();
    assert_eq!(until_over(&pool, &runs)["outcome"], "succeeded");
    let waits = submit(&pool, &[], &["say=x"]);
    let reasons = why(&pool, &waits)["reasons"].clone();
    has_code(&reasons, "thermal");
    at("92");
    let loud = until_said(&pool, "worker-0", "is at 92 °C, above its hard limit");
    assert_eq!(loud["level"], "CRITICAL");
    at("77");
    pool.until_true("below 86", || fitness(&pool, "worker-0")["hot"]["limit"] == "soft");
    assert!(file_of(&pool, "pending", &waits).is_some(), "it must cool down to 76");
    at("76");
    assert_eq!(until_over(&pool, &waits)["outcome"], "succeeded");
    until_said(&pool, "worker-0", "is cool again after");
}

#[test]
fn a_task_that_asks_for_more_memory_than_others_leave_waits_for_it_and_names_them() {
    let pool = quick("");
    let mut full = FakeGpu::new("GPU-a");
    full.used_mib = "8500".into();
    full.processes = vec![(process::id(), 8_000)];
    pool.fake_gpus(std::slice::from_ref(&full));
    let _worker = pool.worker(&["--gpu", "0", "--slots", "2"]);
    until_up(&pool, "worker-0");
    let waits = submit(&pool, &["--gpu-mem", "4GiB"], &["say=x"]);
    let fits = submit(&pool, &["--gpu-mem", "3GiB"], &["say=x"]);
    assert_eq!(until_over(&pool, &fits)["outcome"], "succeeded");
    until_runs(&pool, 0);
    let answer = why(&pool, &waits);
    has_code(&answer["reasons"], "vram.short");
    let text = answer["text"].as_str().unwrap();
    assert!(text.contains("of worker-0's 12 GiB only 3.7 GiB are free"), "{text}");
    assert!(text.contains(&format!("pid {} (", process::id())), "{text}");
    assert!(text.contains("holds 7.8 GiB"), "{text}");
    pool.fake_gpus(&[FakeGpu::new("GPU-a")]);
    assert_eq!(until_over(&pool, &waits)["outcome"], "succeeded");
    assert_eq!(lines_of(&pool, &waits).len(), 1);

    // What the driver keeps is never free, and its own run counts once, with what it uses or asked
    // for, whichever is more.
    let gate = pool.fifo("gate");
    let runs = submit(&pool, &["--gpu-mem", "2GiB"], &[&gate.word()]);
    let held = gate.until_reached();
    let run = until_running(&pool, "worker-0", &runs);
    let mut own = FakeGpu::new("GPU-a");
    own.used_mib = "6144".into();
    own.reserved_mib = 1_024;
    own.processes = vec![(u32::try_from(run["pgid"].as_u64().unwrap()).unwrap(), 6_144)];
    pool.fake_gpus(&[own]);
    pool.until_true("the run's own memory", || {
        let beat = pool.heartbeat("worker-0").unwrap_or_default();
        beat["ability"]["gpu_state"]["memory"]["runs"][&runs] == 6_144_u64 << 20
    });
    let beside = submit(&pool, &["--gpu-mem", "5GiB"], &["say=x"]);
    assert_eq!(until_over(&pool, &beside)["outcome"], "succeeded");
    until_runs(&pool, 1);
    let more = submit(&pool, &["--gpu-mem", "6GiB"], &["say=x"]);
    has_code(&why(&pool, &more)["reasons"], "vram.short");
    held.release();
    pool.fake_gpus(&[FakeGpu::new("GPU-a")]);
    assert_eq!(until_over(&pool, &more)["outcome"], "succeeded");
}
