//! A worker from its first line to its last: what it says, when it stops, who may be it.

use std::collections::BTreeSet;
use std::time::Duration;

use tests::{FakeGpu, Pool, Signal};

use crate::kit::lock_file;
use crate::kit::steps::{
    file_of, lines_of, messages, quick, submit, until_over, until_running, until_said, until_up,
};

#[test]
fn seed_001_w1_its_life_is_told_word_by_word() {
    let pool = quick("");
    pool.env("TZ", "America/New_York");
    let mut worker = pool.worker(&["--gpu", "1", "--ollama-port", "11437"]);
    let id = submit(&pool, &[], &["say=done"]);
    until_over(&pool, &id);
    worker.term();
    let ran = worker.end().success();
    let wanted = [
        "Worker initialized: worker-1 on GPU 1, Ollama port 11437",
        "Worker worker-1 starting main loop",
        "Worker worker-1 received shutdown signal",
        "Worker worker-1 shutting down - completed 1 tasks",
    ];
    let log = pool.log("worker-worker-1");
    let lives =
        log.iter().filter(|line| line["logger"] == "worker.main" && line["level"] == "INFO");
    let said: Vec<_> = lives.map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(said, wanted);
    for sentence in wanted {
        assert!(ran.stderr.contains(&format!("[worker-1] {sentence}")), "{ran}");
    }
    let claimed = format!("Claimed script task: {} (fake-job say=done)", &id[28..]);
    assert_eq!(messages(&pool, "worker-1", "claim.won"), [claimed]);
    // Its lease says when it stopped, not when it began.
    let lease = std::fs::read(lock_file(&pool, "worker-1")).unwrap();
    let lease: serde_json::Value = serde_json::from_slice(&lease).unwrap();
    let began = &pool.heartbeat("worker-1").unwrap()["started_at"];
    assert_eq!(lease["role"]["is"], "over");
    assert!(lease["since"].as_str() > began.as_str(), "{lease}, began {began}");
}

#[test]
fn a_gpu_that_the_machine_does_not_have_gets_no_worker() {
    let pool = quick("");
    pool.fake_gpus(&[FakeGpu::new("GPU-one"), FakeGpu::new("GPU-two")]);
    let ran = pool.worker(&["--gpu", "2"]).end().code(2);
    assert!(ran.stderr.contains("there is no GPU 2 here: the last one is 1"), "{ran}");
}

#[test]
fn seed_001_b10_times_are_utc_with_milliseconds_wherever_it_runs() {
    let pool = quick("");
    pool.env("TZ", "Asia/Kathmandu");
    let _worker = pool.worker(&["--cpu", "--name", "cpu"]);
    let line = pool.until_event("worker-cpu", "worker.starting");
    let said = line["timestamp"].as_str().unwrap();
    assert_eq!((said.len(), &said[19..20], &said[23..]), (24, ".", "Z"), "{said}");
    let said: jiff::Timestamp = said.parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(said).abs();
    assert!(age < jiff::SignedDuration::from_mins(5), "{age}");
}

#[test]
fn seed_001_b2_b6_an_idle_worker_says_so_once_and_not_at_every_look() {
    let pool = quick("idle_poll = \"20ms\"");
    let _worker = pool.worker(&["--gpu", "0", "--verbose"]);
    let again = || messages(&pool, "worker-0", "claim.report_again").len() >= 10;
    pool.until_true("ten more looks", again);
    assert_eq!(messages(&pool, "worker-0", "claim.report"), ["Queue empty"]);
    let line = until_said(&pool, "worker-0", "Queue empty");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["extra"]["reasons"][0]["code"], "queue.empty");
    let heartbeat = pool.heartbeat("worker-0").unwrap();
    assert_eq!(heartbeat["claim"]["result"], "Queue empty");
    until_said(&pool, "worker-0", "Heartbeat sent - status: idle, idle: ");
}

#[test]
fn seed_001_b3_what_it_may_not_take_is_named_with_the_reason() {
    let pool = quick("");
    let _worker = pool.worker(&["--cpu", "--name", "clerk"]);
    until_said(&pool, "clerk", "Queue empty");
    submit(&pool, &[], &["say=never"]);
    submit(&pool, &[], &["say=never"]);
    let sentence = "No suitable tasks - Queue: [script:1], Preferred: [cpu], Model loaded: false; \
                    clerk does not take script tasks (it takes cpu)";
    let line = until_said(&pool, "clerk", &sentence[..30]);
    let said = line["message"].as_str().unwrap().replace("script:2", "script:1");
    assert_eq!((said.as_str(), line["level"].as_str()), (sentence, Some("INFO")));
    assert_eq!(line["extra"]["reasons"][0]["code"], "class.not_taken");
}

/// Several idle workers and one task at a time: sooner or later they reach for the same one.
#[test]
fn seed_001_b4_lost_races_are_told_as_such() {
    let pool = quick("");
    let workers = ["a", "b", "c", "d"];
    for name in workers {
        let _ = pool.worker(&["--cpu", "--name", name, "--verbose"]);
    }
    workers.iter().for_each(|name| until_up(&pool, name));
    let mut submitted = 0;
    let loser = pool.until("a worker that lost a race", || {
        let ids = (0..4).map(|_| submit(&pool, &["--class", "cpu"], &["say=x"]));
        submitted += ids.count();
        let lost = |name: &&&str| !messages(&pool, name, "claim.lost_race").is_empty();
        workers.iter().find(lost).copied()
    });
    let lost = messages(&pool, loser, "claim.lost_race").remove(0);
    let task = lost.strip_prefix("Lost race: ").unwrap();
    let task = task.strip_suffix(" (claimed by another worker)").unwrap();
    until_said(&pool, loser, &format!("Attempting claim: {task}"));
    until_said(&pool, loser, "Claim attempt: 1 tasks available in [cpu], all claimed by others");
    pool.until_true("all done", || pool.ledger().len() == submitted);
    assert!(pool.ledger().iter().all(|line| line["outcome"] == "succeeded"));
}

#[test]
fn a_bell_wakes_it_from_any_sleep() {
    let pool = Pool::new();
    pool.write_toml("idle_poll = \"1h\"\nreserve_size = \"1MiB\"\n");
    let _worker = pool.worker(&["--gpu", "0"]);
    until_said(&pool, "worker-0", "Queue empty");
    until_over(&pool, &submit(&pool, &[], &["say=one"]));
    // Without the directory there is no bell; that it went away is one.
    std::fs::remove_dir_all(pool.dir().join("doorbells")).unwrap();
    pool.until_true("it listens again", || pool.dir().join("doorbells").is_dir());
    until_over(&pool, &submit(&pool, &["--class", "cpu"], &["say=two"]));
}

#[test]
fn without_notification_it_looks_by_itself() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    until_said(&pool, "worker-0", "Queue empty");
    let bells = pool.dir().join("doorbells");
    pool.until_true("a file where the bells were", || {
        let _ = std::fs::remove_dir_all(&bells); // it may have been made again meanwhile
        std::fs::write(&bells, "no bells here").is_ok()
    });
    for _ in 0..3 {
        until_over(&pool, &submit(&pool, &[], &["say=heard"]));
    }
}

// --- how it stops ---

#[test]
fn seed_001_b24_asked_to_stop_it_finishes_a_short_job_and_takes_no_other() {
    let pool = quick("shutdown_grace = \"1h\"\n");
    let gate = pool.fifo("gate");
    let mut worker = pool.worker(&["--gpu", "0"]);
    let short = submit(&pool, &[], &[&gate.word()]);
    let held = gate.until_reached();
    let next = submit(&pool, &[], &["say=later"]);
    worker.term();
    pool.until_event("worker-worker-0", "worker.signal");
    pool.until_true("draining", || {
        pool.heartbeat("worker-0").is_some_and(|heartbeat| heartbeat["status"] == "draining")
    });
    held.release();
    worker.end().success();
    assert_eq!(until_over(&pool, &short)["outcome"], "succeeded");
    assert!(file_of(&pool, "pending", &next).is_some(), "it waits for somebody else");
    assert_eq!(pool.ledger().len(), 1);
}

#[test]
fn seed_001_b26_a_long_job_is_given_back_once_and_costs_no_attempt() {
    let pool = quick("shutdown_grace = \"100ms\"\n");
    let mut worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &["--max-attempts", "1"], &["child", "hang"]);
    until_running(&pool, "worker-0", &id);
    worker.term();
    worker.end().success();
    let lines = lines_of(&pool, &id);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["outcome"], &lines[0]["next"]), (&"returned".into(), &"pending".into()));
    let file = file_of(&pool, "pending", &id).unwrap();
    assert!(file.ends_with(format!("{id}.a2f0d0.json")), "{}", file.display());
    assert!(pool.files_in("processing").is_empty());
    assert_eq!(pool.alive(), [], "its job is gone, and what that had started");
    // It has said goodbye: there is nothing to settle for the next one.
    let _next = pool.worker(&["--gpu", "0"]);
    until_running(&pool, "worker-0", &id);
    assert!(messages(&pool, "worker-0", "worker.died").is_empty());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let pool = quick("shutdown_grace = \"1h\"\n");
    let mut worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &["--grace", "1h"], &["ignore-term", "say=deaf", "hang"]);
    until_running(&pool, "worker-0", &id);
    worker.term();
    pool.until_event("worker-worker-0", "worker.signal");
    // Two that come together are one: a service manager's and the brain's.
    pool.until_true("it has ended", || {
        worker.signal(Signal::INT);
        !worker.is_running()
    });
    worker.end().success();
    assert_eq!(lines_of(&pool, &id)[0]["outcome"], "returned");
    assert_eq!(pool.alive(), []);
}

// --- who may be it ---

#[test]
fn a_second_one_of_its_name_waits_and_takes_over() {
    let pool = quick("");
    let mut first = pool.worker(&["--gpu", "0"]);
    until_up(&pool, "worker-0");
    let second = pool.worker(&["--gpu", "0"]);
    let waits = format!("waits for its lock: held by a living worker-0 (pid {}", first.pid());
    pool.until_true("the second says for whom it waits", || second.stderr().contains(&waits));
    first.term();
    first.end().success();
    pool.until_true("the second works", || second.stderr().contains("starting main loop"));
    until_over(&pool, &submit(&pool, &[], &["say=x"]));
}

#[test]
fn whoever_waits_in_vain_for_a_name_or_a_gpu_gives_up() {
    let pool = quick("");
    pool.fake_gpus(&[tests::FakeGpu::new("GPU-a")]);
    let mut first = pool.worker(&["--gpu", "0"]);
    until_up(&pool, "worker-0");
    let elsewhere = pool.at("another-pool");
    let mut waiting = [
        pool.worker(&["--gpu", "0"]),
        pool.worker(&["--gpu", "0", "--name", "other"]),
        pool.worker(&["--gpu", "0", "--pool", &elsewhere]),
    ];
    let [name, gpu, two_pools] = waiting.each_mut().map(|worker| worker.end().code(75));
    let pid = first.pid();
    let holder = format!("cannot start: its lock is held by a living worker-0 (pid {pid}");
    assert!(name.stderr.contains(&holder), "{name}");
    let holder = format!("the GPU: worker-0 (pid {pid}) of pool {}", pool.dir().display());
    assert!(gpu.stderr.contains(&holder), "{gpu}");
    assert!(two_pools.stderr.contains(&holder), "{two_pools}");
    assert!(first.is_running());
}

#[test]
fn a_stopped_wait_for_a_name_ends_soon() {
    let pool = quick("");
    let _first = pool.worker(&["--gpu", "0"]);
    until_up(&pool, "worker-0");
    let mut second = pool.worker(&["--gpu", "0"]);
    pool.until_true("the second waits", || second.stderr().contains("waits for its lock"));
    second.term();
    second.end().code(75);
}

/// The wait for a GPU must not keep what its last user left.
#[test]
fn seed_001_b18_the_next_worker_on_a_gpu_settles_what_the_last_one_left() {
    let pool = quick("");
    let first = pool.worker(&["--gpu", "0", "--name", "first"]);
    let id = submit(&pool, &[], &["child", "hang"]);
    until_running(&pool, "first", &id);
    let jobs = || -> BTreeSet<u32> {
        let all = pool.alive().into_iter().filter(|one| one.command.contains("fake-job"));
        all.map(|one| one.pid).collect()
    };
    pool.until_true("the job and its child", || jobs().len() == 2);
    let old = jobs();
    let _dead = first.kill9();
    let _second = pool.worker(&["--gpu", "0", "--name", "second"]);
    until_running(&pool, "second", &id);
    assert!(jobs().is_disjoint(&old), "the old ones are gone: {:?}", pool.alive());
    pool.until_true("the new job and its child", || jobs().len() == 2);
    let line = lines_of(&pool, &id).remove(0);
    assert_eq!((&line["outcome"], &line["cause"]), (&"failed".into(), &"worker_died".into()));
    let file = file_of(&pool, "processing", &id).unwrap();
    assert!(file.ends_with(format!("second/{id}.a2f0d1.json")), "{}", file.display());
    until_said(&pool, "second", &format!("Requeued task: {} after the death of first", &id[28..]));
}

#[test]
fn it_says_what_it_needs_when_started_wrongly() {
    let pool = Pool::with_patience(Duration::from_secs(30));
    for (args, words) in [
        (&[][..], "--gpu N"),
        (&["--gpu", "x"], "--gpu"),
        (&["--gpu", "0", "--cpu"], "--cpu"),
        (&["--gpu", "0", "--name", "../x"], "--name"),
        (&["--cpu", "--classes", "llm"], "can take cpu"),
    ] {
        let ran = pool.worker(args).end().code(2);
        assert!(ran.stderr.contains(words), "{ran}");
    }
    assert!(!pool.dir().is_dir(), "nothing is made before the words are understood");
}
