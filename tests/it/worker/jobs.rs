//! Jobs as they are: loud, deaf, leaky, not ready, impossible. And what a run leaves behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tests::{Pool, Signal};

use crate::kit::steps::{
    file_of, ids, lines_of, log_of, messages, quick, show, submit, submit_batch, until_over,
    until_running, until_said,
};

const MIB: u64 = 1 << 20;

#[test]
fn seed_001_b25_a_hundred_megabytes_of_output_hold_nobody_up() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &[], &["bytes=100000000", "err=the end"]);
    let line = until_over(&pool, &id);
    assert_eq!(line["outcome"], "succeeded", "{line}");
    let log = fs::metadata(line["log_path"].as_str().unwrap()).unwrap();
    assert_eq!(log.len(), 100_000_000 + 8);
}

#[test]
fn seed_001_b32_a_job_deaf_to_term_is_killed_at_its_time_limit_and_that_is_said() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let options = ["--timeout", "200ms", "--grace", "100ms", "--max-attempts", "1"];
    let id = submit(&pool, &options, &["ignore-term", "hang"]);
    let line = until_over(&pool, &id);
    assert_eq!((&line["outcome"], &line["cause"]), (&"failed".into(), &"timeout".into()), "{line}");
    assert_eq!(line["signal"], 9);
    assert!(line["error_message"].as_str().unwrap().contains("time limit"), "{line}");
    until_said(&pool, "worker-0", "(timeout); KILL follows in");
    until_said(&pool, "worker-0", "(timeout): it did not end in its grace period");
    let short = id[28..].to_owned();
    let warning = until_said(&pool, "worker-0", &format!("Failed script task: {short}"));
    assert!(warning["message"].as_str().unwrap().contains("timeout"), "{warning}");
}

#[test]
fn a_job_that_hears_term_is_not_killed() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let options = ["--timeout", "200ms", "--grace", "1h", "--max-attempts", "1"];
    let line = until_over(&pool, &submit(&pool, &options, &["child", "hang"]));
    assert_eq!((&line["cause"], &line["signal"]), (&"timeout".into(), &15.into()));
    assert!(messages(&pool, "worker-0", "job.killed").is_empty());
    assert_eq!(pool.alive().len(), 1, "the worker alone: {:?}", pool.alive());
}

#[test]
fn whatever_a_job_leaves_behind_is_ended_and_reported() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    for daemon in ["child", "daemon", "daemon=closed", "daemon=noenv"] {
        let id = submit(&pool, &[], &[daemon]);
        let line = until_over(&pool, &id);
        assert_eq!(
            (&line["outcome"], &line["leaked"]),
            (&"succeeded".into(), &1.into()),
            "{daemon}"
        );
        until_said(&pool, "worker-0", &format!("Job of {} left 1 process behind", &id[28..]));
        assert_eq!(pool.alive().len(), 1, "{daemon}: {:?}", pool.alive());
    }
}

#[test]
fn not_ready_three_times_costs_no_failure() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let again = format!("exit75-until={}:3", pool.at("count"));
    let id = submit(&pool, &["--max-attempts", "1"], &[&again]);
    assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
    let lines = lines_of(&pool, &id);
    let names: Vec<_> = lines.iter().map(|line| line["next_name"].as_str().unwrap()).collect();
    assert_eq!(names, [2, 3, 4, 4].map(|attempt| format!("{id}.a{attempt}f0d0")));
    assert!(lines[..3].iter().all(|line| line["outcome"] == "returned" && line["exit_code"] == 75));
    let next = |line: &Value| line["next"].as_str().unwrap().split(':').next().unwrap().to_owned();
    assert_eq!(
        lines.iter().map(next).collect::<Vec<_>>(),
        ["delayed", "delayed", "delayed", "end"]
    );
    let shown = show(&pool, &id);
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 4, "{shown}");
}

#[test]
fn a_failing_task_is_tried_three_times_and_put_on_the_failed_shelf() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &[], &["say=trying", "exit=3"]);
    let line = until_over(&pool, &id);
    assert_eq!((&line["attempt"], &line["next"]), (&3.into(), &"failed".into()));
    let lines = lines_of(&pool, &id);
    let tried: Vec<_> =
        lines.iter().map(|line| (line["exit_code"].clone(), line["cause"].clone())).collect();
    assert_eq!(tried, vec![(3.into(), "exit_code".into()); 3]);
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for pair in lines.windows(2) {
        let pause = time(&pair[1]["started_at"]).duration_since(time(&pair[0]["ended_at"]));
        assert!(pause >= jiff::SignedDuration::from_millis(37), "no back-off: {pause}");
    }
    let file = file_of(&pool, "failed", &id).unwrap();
    assert!(file.ends_with(format!("{id}.a3f3d0.json")), "{}", file.display());
    let logs: Vec<_> = (1..=3).map(|attempt| log_of(&pool, &id, attempt)).collect();
    assert_eq!(logs, ["trying\n"; 3], "each attempt has its own log");
}

#[test]
fn seed_001_b19_a_retried_task_starts_afresh() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let gate = pool.fifo("gate");
    let flag = pool.at("flag");
    let line = format!("test -e {flag} || exit 1; cat {} > {flag}", pool.at("gate"));
    let object = json!({"shell": line, "max_attempts": 1});
    let id = ids(&submit_batch(&pool, &[object])).remove(0);
    until_over(&pool, &id);
    assert_eq!(show(&pool, &id)["state"], "failed");
    fs::write(&flag, "").unwrap();
    pool.queue(&["retry", &id]).success();
    let held = gate.until_reached();
    let shown = show(&pool, &id);
    assert_eq!((&shown["state"], &shown["attempt"]), (&"processing".into(), &2.into()), "{shown}");
    let file = file_of(&pool, "processing", &id).unwrap();
    assert!(file.ends_with(format!("{id}.a2f0d0.json")), "{}", file.display());
    assert!(file_of(&pool, "failed", &id).is_none());
    held.release();
    until_over_again(&pool, &id);
    let shown = show(&pool, &id);
    assert_eq!(shown["state"], "succeeded", "{shown}");
    let outcomes: Vec<_> =
        shown["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(outcomes, ["failed", "succeeded"]);
}

fn until_over_again(pool: &Pool, id: &str) {
    pool.until_true("the second attempt's end", || lines_of(pool, id).len() == 2);
}

#[test]
fn a_signal_is_told_as_one() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &["--max-attempts", "1"], &["signal=11"]);
    let line = until_over(&pool, &id);
    assert_eq!(
        (&line["cause"], &line["signal"]),
        (&"signal".into(), &Signal::SEGV.as_raw().into())
    );
    assert_eq!(line["exit_code"], Value::Null);
}

/// What cannot start is tried again like other failures, and from the first attempt on its run's log,
/// `show` and `why` say what is missing.
#[test]
fn commands_that_cannot_be_run_are_tried_again_and_say_what_is_missing() {
    // As long as usual: meanwhile they are looked at.
    let pool = quick("retry_backoff_max = \"5m\"");
    let plain = pool.at("plain");
    fs::write(&plain, "data").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let script = pool.at("script");
    fs::write(&script, "#!/no/such/interpreter\r\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let _worker = pool.worker(&["--gpu", "0"]);
    let missing = pool.at("nowhere");
    for (task, code, words) in [
        (json!({"command": ["no-such-program"]}), 127, "command not found: no-such-program"),
        (json!({"command": ["./no/such"]}), 127, "command not found: ./no/such"),
        (json!({"command": [plain]}), 126, "cannot execute"),
        (json!({"command": [script]}), 126, "interpreter `/no/such/interpreter\\r` does not exist"),
        (json!({"command": ["fake-job"], "cwd": missing}), 125, "cwd does not exist"),
    ] {
        let id = ids(&submit_batch(&pool, &[task])).remove(0);
        pool.until_true("its first attempt has ended", || !lines_of(&pool, &id).is_empty());
        let line = lines_of(&pool, &id).remove(0);
        assert_eq!((&line["cause"], &line["exit_code"]), (&"spawn_failed".into(), &code.into()));
        assert!(line["next"].as_str().unwrap().starts_with("delayed:"), "{line}");
        assert!(line["error_message"].as_str().unwrap().contains(words), "{line}");
        let log = log_of(&pool, &id, 1);
        assert!(log.contains(words), "{log}");
        for command in ["output", "show", "why"] {
            let shown = pool.queue(&[command, &id]);
            assert!(shown.stdout.contains(words), "{shown}");
        }
    }
}

#[test]
fn seed_001_b45_a_name_may_hold_anything_and_is_shown_safely() {
    let pool = quick("");
    let name = "it's \"quoted\" \\ `x`\n\u{1b}[31mred\u{7}\ttab\r \u{202e}desrever é 🦀";
    let object = json!({"command": ["fake-job", "say=x"], "name": name, "class": "cpu"});
    let id = ids(&submit_batch(&pool, &[object])).remove(0);
    let listed = pool.queue(&["ls"]).success();
    assert_eq!(listed.stdout.lines().filter(|line| line.contains(&id[28..])).count(), 1);
    let safe = |text: &str| {
        let bad = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "{text:?}");
    };
    safe(&listed.stdout);
    safe(&pool.queue(&["show", &id]).success().stdout);
    let shown = &pool.queue(&["ls", "--json"]).success().json_lines()[0];
    assert_eq!(shown["name"], name);
    assert_eq!(show(&pool, &id)["name"], name);
    let worker = pool.worker(&["--cpu", "--name", "clerk"]);
    until_over(&pool, &id);
    safe(&worker.stderr());
    let claimed = messages(&pool, "clerk", "claim.won");
    assert_eq!(claimed.len(), 1);
    safe(&claimed[0]);
    // A task without a name is called by its command: never blank.
    let plain = ids(&submit_batch(&pool, &[json!({"shell": "echo a  b | wc"})])).remove(0);
    let line = pool.queue(&["ls"]).success().stdout;
    let line = line.lines().find(|line| line.contains(&plain[28..])).unwrap().to_owned();
    assert!(line.contains("echo a b | wc"), "{line}");
}

#[test]
fn seed_001_b28_a_job_reads_its_text_and_it_is_on_no_command_line() {
    let pool = quick("");
    let gate = pool.fifo("gate");
    let text = "half a megabyte of text\n".repeat(20_000);
    let object = json!({"command": ["fake-job", "cat", gate.word()], "stdin": text});
    let id = ids(&submit_batch(&pool, &[object])).remove(0);
    let nothing = submit(&pool, &["--class", "cpu"], &["cat", "say=that was all"]);
    let _worker = pool.worker(&["--gpu", "0"]);
    let held = gate.until_reached();
    for one in pool.alive() {
        assert!(!one.command.contains("half a megabyte"), "{}", one.command);
        assert!(!one.command.contains(&id), "{}", one.command);
    }
    held.release();
    until_over(&pool, &id);
    assert_eq!(log_of(&pool, &id, 1), text);
    until_over(&pool, &nothing);
    assert_eq!(log_of(&pool, &nothing, 1), "that was all\n");
}

#[test]
fn output_is_shown_at_the_end_and_as_it_comes() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let (one, two) = (pool.fifo("one"), pool.fifo("two"));
    let words = ["say=first", &one.word(), "err=second", &two.word(), "say=third"];
    let id = submit(&pool, &[], &words);
    let held = one.until_reached();
    let mut following = pool.start(&mut pool.command("queue", &["output", "-f", &id]));
    pool.until_true("the first line, live", || following.stdout() == "first\n");
    held.release();
    let held = two.until_reached();
    pool.until_true("the second line, live", || following.stdout() == "first\nsecond\n");
    assert!(following.is_running());
    assert_eq!(pool.queue(&["output", &id]).success().stdout, "first\nsecond\n");
    held.release();
    assert_eq!(following.end().success().stdout, "first\nsecond\nthird\n");
    assert_eq!(pool.queue(&["output", &id]).success().stdout, "first\nsecond\nthird\n");
}

#[test]
fn a_limit_lets_one_of_anns_tasks_run_at_a_time() {
    let pool = quick("[limits]\n\"user=ann\" = 1");
    let marks = format!("mark={}", pool.at("marks"));
    let _workers = ["0", "1"].map(|gpu| pool.worker(&["--gpu", gpu, "--verbose"]));
    let gate = pool.fifo("gate");
    let first = submit(&pool, &["--user", "ann"], &[&marks, &gate.word()]);
    let held = gate.until_reached();
    let more: Vec<_> = (0..4).map(|_| submit(&pool, &["--user", "ann"], &[&marks])).collect();
    let idle = if file_of(&pool, "processing/worker-0", &first).is_some() {
        "worker-1"
    } else {
        "worker-0"
    };
    until_said(&pool, idle, "Lock timeout: limit user=ann (1 of 1 in use)");
    let why = pool.queue(&["why", "--json", &more[0]]).code(5).json();
    let codes: Vec<_> = why["reasons"].as_array().unwrap().iter().map(|r| &r["code"]).collect();
    assert!(codes.contains(&&"limit.reached".into()), "{why}");
    // Others are not held up by it.
    let bob = until_over(&pool, &submit(&pool, &["--user", "bob"], &["say=x"]));
    assert_eq!(bob["worker"], idle);
    held.release();
    more.iter().for_each(|id| assert_eq!(until_over(&pool, id)["outcome"], "succeeded"));
    let mut marks = pool.marks("marks");
    marks.sort_by_key(|mark| mark.at);
    assert!(marks.chunks(2).all(|pair| pair[0].task == pair[1].task), "one at a time: {marks:?}");
    assert_eq!(marks.len(), 10);
}

#[test]
fn seed_001_b27_b41_what_a_job_uses_of_its_gpu_is_seen_and_unknown_is_not_zero() {
    let pool = quick("stuck_after = \"1s\"");
    pool.fake_gpus(&[tests::FakeGpu::new("GPU-a")]);
    let _worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &[], &["child", "hang"]);
    let run = until_running(&pool, "worker-0", &id);
    let pgid = u32::try_from(run["pgid"].as_u64().unwrap()).unwrap();
    let child = |one: &&tests::Alive| one.pid != pgid && one.command.contains("fake-job");
    let child =
        pool.until("the job's child", || pool.alive().iter().find(child).map(|one| one.pid));
    let mut gpu = tests::FakeGpu::new("GPU-a");
    gpu.temperature = "!".into();
    gpu.used_mib = "3100".into();
    gpu.processes = vec![(pgid, 1000), (child, 2000), (1, 100)];
    pool.fake_gpus(&[gpu.clone()]);
    let beat = pool.until("the card and both the job's processes on it", || {
        let beat = pool.heartbeat("worker-0")?;
        let seen = beat["current"][0]["peak_vram_bytes"] == 3000 * MIB
            && beat["gpu_reading"]["memory_used"] == 3100 * MIB;
        seen.then_some(beat)
    });
    assert_eq!(beat["gpu_reading"]["temperature"], Value::Null);
    assert_eq!(beat["ability"]["gpu_uuid"], "GPU-a");
    gpu.processes = Vec::new();
    pool.fake_gpus(&[gpu]);
    pool.queue(&["cancel", &id]).success();
    let line = until_over(&pool, &id);
    assert_eq!(line["peak_vram_bytes"], 3000 * MIB, "the peak, not the last: {line}");
    assert_eq!(line["gpu_uuid"], "GPU-a");
}
