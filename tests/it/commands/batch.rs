//! Many tasks at once: all or nothing, each exactly once, in order, and every end is told.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Mark, Moment, Pool};

use crate::kit::steps::{ids, lines_of, messages, quick, settings, submit_batch};

/// The marks that jobs made when they started, in the order in which they did.
fn starts(pool: &Pool) -> Vec<Mark> {
    let mut marks = pool.marks("marks");
    marks.retain(|mark| mark.moment == Moment::Start);
    marks.sort_by_key(|mark| mark.at);
    marks
}

/// A script task that leaves a mark, with more fields.
fn marking(pool: &Pool, more: &Value) -> Value {
    let mut task = json!({"command": ["fake-job", format!("mark={}", pool.at("marks"))]});
    for (key, value) in more.as_object().unwrap() {
        task[key] = value.clone();
    }
    task
}

/// How far from its place the one is that only one in a hundred is further from. A worker that the
/// kernel keeps waiting between claim and start may be overtaken by many; that is nobody's order.
fn disorder(seen: &[String], wanted: &[String]) -> usize {
    let place: BTreeMap<_, _> = wanted.iter().enumerate().map(|(n, id)| (id, n)).collect();
    let far = seen.iter().enumerate().map(|(n, id)| place[id].abs_diff(n));
    let mut far: Vec<_> = far.collect();
    far.sort_unstable();
    far[far.len() * 99 / 100]
}

#[test]
fn seed_001_b15_b16_two_thousand_tasks_run_once_each_and_in_order() {
    let pool = Pool::with_patience(Duration::from_secs(150));
    pool.write_toml(&settings(""));
    let task = marking(&pool, &json!({}));
    let answer = submit_batch(&pool, &vec![task; 2000]);
    let submitted = ids(&answer);
    assert!(submitted.is_sorted(), "ids tell the order in the file");
    let _workers = ["0", "1", "2"].map(|gpu| pool.worker(&["--gpu", gpu]));
    pool.queue(&["wait", answer["batch_id"].as_str().unwrap()]).success();

    let started: Vec<_> = starts(&pool).into_iter().map(|mark| mark.task).collect();
    assert_eq!(started.len(), 2000, "each one once");
    assert_eq!(started.iter().collect::<HashSet<_>>().len(), 2000);
    let far = disorder(&started, &submitted);
    // Whoever loses races reaches up to 32 places further on, so as not to lose the next.
    assert!(far <= 40, "{far}");
    let ledger = pool.ledger();
    let ended: HashSet<_> = ledger.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!((ledger.len(), ended.len()), (2000, 2000), "one line each");
    let mut share = BTreeMap::<_, usize>::new();
    for line in &ledger {
        assert_eq!(line["outcome"], "succeeded", "{line}");
        *share.entry(line["worker"].as_str().unwrap()).or_default() += 1;
    }
    assert!(share.len() == 3 && share.values().all(|tasks| *tasks >= 200), "{share:?}");
    for place in ["pending", "processing", "delayed", "failed", "publishing", "incoming"] {
        assert_eq!(pool.files_in(place), [] as [std::path::PathBuf; 0], "{place}");
    }
    // A task leaves no lock behind: workers, GPUs, the brain's, a few more.
    let locks = pool.files_in("locks");
    assert!(locks.len() < 12, "{locks:?}");
}

#[test]
fn seed_001_b14_priority_is_respected() {
    let pool = quick("");
    let priorities = [0, 10, 5].repeat(30);
    let tasks: Vec<_> =
        priorities.iter().map(|p| marking(&pool, &json!({"priority": p}))).collect();
    let answer = submit_batch(&pool, &tasks);
    let known: BTreeMap<_, _> = ids(&answer).into_iter().zip(priorities).collect();
    let _workers = ["0", "1", "2"].map(|gpu| pool.worker(&["--gpu", gpu]));
    pool.queue(&["wait", answer["batch_id"].as_str().unwrap()]).success();
    let seen: Vec<_> = starts(&pool).iter().map(|mark| known[&mark.task]).collect();
    // Between a claim and the start of its job another worker may be quicker.
    let near = |from: usize, to: usize, priority: i32| {
        let strangers = seen[from..to].iter().filter(|seen| **seen != priority).count();
        assert!(strangers <= 2, "{seen:?}");
    };
    near(0, 30, 10);
    near(30, 60, 5);
    near(60, 90, 0);
}

#[test]
fn wait_tells_by_its_code_whether_all_succeeded() {
    let pool = quick("");
    let good = json!({"command": ["fake-job"]});
    let bad = json!({"command": ["fake-job", "exit=3"], "max_attempts": 1});
    let first = submit_batch(&pool, &[good.clone(), good.clone()]);
    let second = submit_batch(&pool, &[good.clone(), bad, good]);
    let _worker = pool.worker(&["--gpu", "0"]);
    pool.queue(&["wait", first["batch_id"].as_str().unwrap()]).success();
    pool.queue(&["wait", second["batch_id"].as_str().unwrap()]).code(100);
    let ids = ids(&second);
    pool.queue(&["wait", &ids[1]]).code(100);
    pool.queue(&["wait", &ids[0], &ids[2]]).success();
    pool.queue_with_input(&["wait", "-"], &ids.join("\n")).code(100);
    let status = pool.queue(&["status", "--json"]).success().json();
    let counts = &status["counts"];
    assert_eq!((&counts["complete"], &counts["failed"]), (&4.into(), &1.into()), "{counts}");
}

#[test]
fn one_bad_line_and_nothing_is_submitted() {
    let pool = quick("");
    let good = r#"{"command": ["true"]}"#;
    for (bad, words) in [
        (
            r#"{"command": ["true"], "pirority": 3}"#,
            "pirority: there is no such field; did you mean `priority`?",
        ),
        (r#"{"command": ["true"], "priority": 11}"#, "priority: must be 0 to 10"),
        (r#"{"command": ["true"], "timeout": "soon"}"#, "timeout: `soon` is not a duration"),
        (r#"{"command": "true"}"#, "command: "),
        (r#"{"name": "nothing to do"}"#, "command: is missing"),
        (r#"{"command": ["true"], "after": ["nobody"]}"#, "nobody"),
        (r#"{"command": ["true"]"#, "not JSON"),
    ] {
        fs::write(pool.home().join("tasks.jsonl"), format!("{good}\n{bad}\n{good}\n")).unwrap();
        let ran = pool.queue(&["submit", "--batch", "tasks.jsonl"]).code(2);
        assert!(ran.stderr.contains("tasks.jsonl:2:") && ran.stderr.contains(words), "{ran}");
        assert_eq!(ran.stdout, "");
    }
    for place in ["pending", "waiting", "publishing", "incoming"] {
        assert!(pool.files_in(place).is_empty(), "{place}: {:?}", pool.files_in(place));
    }
}

#[test]
fn a_circle_of_dependencies_is_refused() {
    let pool = quick("");
    let task =
        |name: &str, after: &str| json!({"name": name, "command": ["true"], "after": [after]});
    let lines = [task("a", "c"), task("b", "a"), task("c", "b")].map(|task| format!("{task}\n"));
    fs::write(pool.home().join("tasks.jsonl"), lines.concat()).unwrap();
    let ran = pool.queue(&["submit", "--batch", "tasks.jsonl"]).code(2);
    assert!(ran.stderr.contains("tasks.jsonl:"), "{ran}");
    assert!(pool.files_in("waiting").is_empty());
}

#[test]
fn seed_001_b40_batches_of_the_same_second_are_different_batches() {
    let pool = quick("");
    let task = json!({"command": ["true"]});
    let answers: Vec<_> =
        (0..3).map(|_| submit_batch(&pool, &[task.clone(), task.clone()])).collect();
    let batches: HashSet<_> =
        answers.iter().map(|answer| answer["batch_id"].as_str().unwrap()).collect();
    assert_eq!(batches.len(), 3);
    let all: HashSet<_> = answers.iter().flat_map(ids).collect();
    assert_eq!(all.len(), 6);
    assert_eq!(pool.files_in("pending").len(), 6);
}

#[test]
fn fan_out_and_fan_in_by_names_within_the_batch() {
    let pool = quick("");
    let task = |name: &str, after: &[&str]| marking(&pool, &json!({"name": name, "after": after}));
    // The last one comes first in the file: order in the file is no order.
    let mut tasks = vec![task("join", &["part-1", "part-2", "part-3"])];
    tasks.extend(["part-1", "part-2", "part-3"].map(|name| task(name, &["split"])));
    tasks.push(task("split", &[]));
    let answer = submit_batch(&pool, &tasks);
    let ids = ids(&answer);
    let status = pool.queue(&["status", "--json"]).success().json();
    let counts = &status["counts"];
    assert_eq!((&counts["waiting"], &counts["pending"]), (&4.into(), &1.into()), "{counts}");
    let _workers = ["0", "1"].map(|gpu| pool.worker(&["--gpu", gpu]));
    pool.queue(&["wait", answer["batch_id"].as_str().unwrap()]).success();
    let mut marks = pool.marks("marks");
    marks.sort_by_key(|mark| mark.at);
    let order: Vec<_> = marks.iter().map(|mark| &mark.task).collect();
    assert_eq!(order.len(), 10);
    assert_eq!((order[0], order[1]), (&ids[4], &ids[4]), "split, alone");
    assert_eq!((order[8], order[9]), (&ids[0], &ids[0]), "join, when all parts have ended");
}

#[test]
fn seed_001_b34_what_waits_for_a_failed_task_is_cancelled_and_not_forgotten() {
    let pool = quick("");
    let task = |name: &str, after: Value| marking(&pool, &json!({"name": name, "after": after}));
    let fails = json!({"name": "fails", "command": ["fake-job", "exit=1"], "max_attempts": 1});
    let answer = submit_batch(
        &pool,
        &[
            fails,
            task("next", json!(["fails"])),
            task("after-next", json!(["next"])),
            task("cleanup", json!([{"id": "fails", "on": "failure"}])),
            task("anyway", json!([{"id": "after-next", "on": "any"}])),
        ],
    );
    let ids = ids(&answer);
    let _worker = pool.worker(&["--gpu", "0"]);
    pool.queue(&["wait", answer["batch_id"].as_str().unwrap()]).code(100);
    let ends = ids.iter().map(|id| {
        let lines = lines_of(&pool, id);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let text = |key: &str| lines[0][key].as_str().unwrap_or("-").to_owned();
        (text("outcome"), text("cause"))
    });
    let ends: Vec<_> = ends.collect();
    let ends: Vec<_> = ends.iter().map(|(outcome, cause)| (&**outcome, &**cause)).collect();
    let gone = ("cancelled", "dependency_failed");
    assert_eq!(ends, [("failed", "exit_code"), gone, gone, ("succeeded", "-"), ("succeeded", "-")]);
    let ran: Vec<_> = starts(&pool).into_iter().map(|mark| mark.task).collect();
    assert_eq!(ran.len(), 2, "cancelled ones never ran");
}

#[test]
fn seed_001_b33_the_end_of_a_task_is_said_once() {
    let pool = quick("idle_poll = \"20ms\"");
    let fails = json!({"name": "x", "command": ["fake-job", "exit=1"], "max_attempts": 1});
    let waits = json!({"command": ["fake-job"], "after": ["x"]});
    let answer = submit_batch(&pool, &[fails, waits]);
    let _worker = pool.worker(&["--gpu", "0", "--verbose"]);
    pool.queue(&["wait", answer["batch_id"].as_str().unwrap()]).code(100);
    let looks = || messages(&pool, "worker-0", "claim.report_again").len();
    let before = looks();
    pool.until_true("ten more looks", || looks() >= before + 10);
    for event in ["task.failed", "task.dependency_failed"] {
        assert_eq!(messages(&pool, "worker-0", event).len(), 1, "{event}");
    }
}

/// A place in memory with so much room, where there is one: it is the pool that is tried here, and
/// removing a hundred thousand files from some disks takes minutes.
fn in_memory(room: u64) -> Option<tempfile::TempDir> {
    let memory = rustix::fs::statvfs("/dev/shm").ok()?;
    let dir = (memory.f_bavail * memory.f_frsize > room)
        .then(|| tempfile::Builder::new().prefix("brainstem-batch-").tempdir_in("/dev/shm"));
    dir?.ok()
}

/// As large as a batch may well be: found, counted and worked on at once.
#[test]
fn a_hundred_thousand_tasks_in_one_file() {
    // Made first, so that it goes last.
    let memory = in_memory(1 << 30);
    let pool = Pool::with_patience(Duration::from_secs(120));
    if let Some(dir) = &memory {
        symlink(dir.path(), pool.dir()).unwrap();
    }
    pool.write_toml(&settings(""));
    let task = format!("{}\n", json!({"command": ["true"], "name": "one of many"}));
    fs::write(pool.home().join("many.jsonl"), task.repeat(100_000)).unwrap();
    let answer = pool.queue(&["submit", "--json", "--batch", "many.jsonl"]).success().json();
    assert_eq!(answer["ids"].as_array().unwrap().len(), 100_000);
    let counts = || pool.queue(&["status", "--json"]).success().json();
    let status = counts();
    assert_eq!(status["counts"]["pending"], 100_000, "{}", status["counts"]);
    assert_eq!(status["lanes"][0]["pending"], 100_000, "{}", status["lanes"]);
    let _workers = ["0", "1"].map(|gpu| pool.worker(&["--gpu", gpu]));
    pool.until_true("both are at work", || {
        ["worker-0", "worker-1"].iter().all(|name| {
            pool.heartbeat(name).is_some_and(|beat| beat["completed"].as_u64() >= Some(20))
        })
    });
    pool.queue(&["pause"]).success();
    pool.until_true("paused", || {
        ["worker-0", "worker-1"]
            .iter()
            .all(|name| pool.heartbeat(name).is_some_and(|beat| beat["status"] == "paused"))
    });
    let done = pool.ledger().len();
    let status = counts();
    assert_eq!(status["counts"]["pending"], 100_000 - done, "{}", status["counts"]);
    assert_eq!(status["counts"]["complete"], done, "{}", status["counts"]);
    let first: HashSet<_> = ids(&answer).into_iter().take(done + 64).collect();
    let ledger = pool.ledger();
    assert!(ledger.iter().all(|line| first.contains(line["id"].as_str().unwrap())), "the oldest");
}

/// What cannot be read is unknown and not missing: submitted again it would run a second time.
#[test]
fn a_batch_whose_history_is_damaged_is_not_submitted_again() {
    let pool = quick("");
    let file = pool.home().join("batch.jsonl");
    fs::write(&file, "{\"shell\": \"true\", \"class\": \"cpu\"}\n").unwrap();
    let submit = ["submit", "--json", "--key", "night", "--batch", file.to_str().unwrap()];
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    let id = ids(&pool.queue(&submit).success().json()).remove(0);
    pool.queue(&["wait", &id]).success();
    let days = fs::read_dir(pool.dir().join("ledger")).unwrap();
    let files = days.flat_map(|day| fs::read_dir(day.unwrap().path()).unwrap());
    let ledger = files.map(|file| file.unwrap().path()).next().unwrap();
    let whole = fs::read_to_string(&ledger).unwrap();
    fs::write(&ledger, whole.replace("\"succeeded\"", "\"succXeded\"")).unwrap();
    for command in [&submit[..], &["show", &id], &["wait", &id]] {
        let told = pool.queue(command).code(1).stderr;
        assert!(told.contains("the line at byte 0 (unknown variant"), "{told}");
    }
    let told = pool.queue(&["results", "night"]).code(100).stderr;
    assert!(told.contains("unknown ("), "{told}");
    let listed = pool.queue(&["ls", "--state", "succeeded"]).success();
    assert!(listed.stderr.contains("1 line of history cannot be understood"), "{listed}");
    let checks = pool.queue(&["doctor", "--json"]).code(1).json();
    let history = checks["checks"].as_array().unwrap().iter().find(|c| c["name"] == "history");
    assert_eq!(history.unwrap()["ok"], false);
    fs::write(&ledger, whole).unwrap();
    assert_eq!(ids(&pool.queue(&submit).success().json()), [id], "it is there already");
}
