//! Whatever lies among the pending tasks: it is put aside with a reason, and the good ones run.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Map, Value};
use shared::id::TaskId;
use shared::task::TaskName;
use tests::Pool;

use crate::kit::steps::{file_of, quick, submit, until_over, until_up};

/// A directory in which tasks are pending, and one of them.
fn pending(pool: &Pool) -> (PathBuf, PathBuf) {
    let id = submit(pool, &[], &["say=good"]);
    let file = file_of(pool, "pending", &id).unwrap();
    (file.parent().unwrap().to_owned(), file)
}

fn name() -> String {
    TaskName::first(TaskId::new()).file_name()
}

/// The name under which such a file is put aside: a task's attempt has ended with that.
fn aside(name: &str) -> String {
    TaskName::from_file_name(name)
        .map_or_else(|_no| name.to_owned(), |name| name.again().file_name())
}

/// Where a file of this name went, with the reason.
fn rejected(pool: &Pool, name: &str) -> (PathBuf, String) {
    let path = pool.dir().join("rejected").join(aside(name));
    let reason = pool.dir().join("rejected").join(format!("{}.reason", aside(name)));
    (path, pool.until(&format!("{}", reason.display()), || fs::read_to_string(&reason).ok()))
}

/// The good task under another name, changed.
fn edited(good: &Path, name: &str, change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let mut task: Map<String, Value> = serde_json::from_slice(&fs::read(good).unwrap()).unwrap();
    task.insert("id".into(), name[..36].into());
    change(&mut task);
    Value::Object(task).to_string()
}

#[test]
fn seed_001_b1_one_bad_file_never_stops_a_pass() {
    let pool = quick("");
    let (dir, good) = pending(&pool);
    let [json, field, wrong, big, link, fifo, folder, socket, other] = [(); 9].map(|()| name());
    fs::write(dir.join(&json), "{ \"id\": ").unwrap();
    let typo = |task: &mut Map<_, _>| drop(task.insert("nmae".into(), "x".into()));
    fs::write(dir.join(&field), edited(&good, &field, typo)).unwrap();
    let number = |task: &mut Map<_, _>| drop(task.insert("command".into(), 7.into()));
    fs::write(dir.join(&wrong), edited(&good, &wrong, number)).unwrap();
    fs::write(dir.join(&big), vec![b' '; 2 << 20]).unwrap();
    symlink(&good, dir.join(&link)).unwrap();
    mknodat(CWD, dir.join(&fifo), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::create_dir(dir.join(&folder)).unwrap();
    fs::write(dir.join(&folder).join("inside"), "kept").unwrap();
    let short = pool.home().join("s");
    let _listener = UnixListener::bind(&short).unwrap();
    fs::hard_link(&short, dir.join(&socket)).unwrap();
    fs::write(dir.join(&other), fs::read(&good).unwrap()).unwrap();
    fs::write(dir.join("README.txt"), "hello").unwrap();
    fs::write(dir.join(".hidden"), "being written").unwrap();
    let last = submit(&pool, &[], &["say=good"]);
    let worker = pool.worker(&["--gpu", "0"]);
    let good = good.file_name().unwrap().to_string_lossy()[..36].to_owned();
    for id in [&good, &last] {
        assert_eq!(until_over(&pool, id)["outcome"], "succeeded");
    }
    for (name, words) in [
        (&*json, "line 1"),
        (&*field, "field `nmae`: there is no such field; did you mean `name`?"),
        (&*wrong, "field `command`"),
        (&*big, "at most 1 MiB"),
        (&*link, "symbolic link"),
        (&*fifo, "not a plain file"),
        (&*folder, "not a plain file"),
        (&*socket, "socket"),
        (&*other, "its content says that it is task"),
        ("README.txt", "not that of a task file"),
    ] {
        let (path, reason) = rejected(&pool, name);
        assert!(reason.contains(words), "{name}: {reason}");
        assert!(fs::symlink_metadata(path).is_ok(), "{name} is kept");
    }
    assert!(pool.dir().join("rejected").join(aside(&folder)).join("inside").is_file());
    assert!(dir.join(".hidden").is_file(), "hidden files are somebody's and not looked at");
    let said = pool.log("worker-worker-0");
    let said = said.iter().filter(|line| line["event"] == "task.rejected");
    assert_eq!(said.count(), 10, "each is said once");
    assert!(!worker.stderr().contains("Claim pass failed"), "{}", worker.stderr());
    let status = pool.queue(&["status", "--json"]).success().json();
    assert_eq!(
        (&status["counts"]["rejected"], &status["counts"]["pending"]),
        (&10.into(), &0.into())
    );
}

#[test]
fn nothing_in_rejected_is_overwritten() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    until_up(&pool, "worker-0");
    let (name, rejected) = (name(), pool.dir().join("rejected"));
    let first = aside(&name);
    for (round, kept) in [&*first, &format!("{first}.1"), &format!("{first}.2")].iter().enumerate()
    {
        pool.queue(&["pause"]).success();
        pool.until_true("paused", || {
            pool.heartbeat("worker-0").is_some_and(|beat| beat["status"] == "paused")
        });
        let (dir, good) = pending(&pool);
        fs::write(dir.join(&name), format!("nonsense {round}")).unwrap();
        pool.queue(&["resume"]).success();
        let good = good.file_name().unwrap().to_string_lossy()[..36].to_owned();
        until_over(&pool, &good);
        pool.until_true("put aside", || rejected.join(format!("{kept}.reason")).is_file());
        let text = fs::read_to_string(rejected.join(kept)).unwrap();
        assert_eq!(text, format!("nonsense {round}"));
    }
}

/// Sidecars and leftovers among the claimed ones are no tasks, neither in counts nor anywhere.
#[test]
fn seed_001_b22_what_lies_beside_claimed_tasks_is_not_counted() {
    let pool = quick("");
    let gate = pool.fifo("gate");
    let _worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &[], &[&gate.word()]);
    let held = gate.until_reached();
    let dir = pool.dir().join("processing/worker-0");
    fs::write(dir.join(format!("{id}.heartbeat.json")), "{}").unwrap();
    fs::write(dir.join(format!("{id}.a1f0d0.json.lock")), "").unwrap();
    fs::write(pool.dir().join("processing/notes.txt"), "").unwrap();
    let status = pool.queue(&["status", "--json"]).success().json();
    assert_eq!(status["counts"]["processing"], 1, "{status}");
    held.release();
    assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
}

#[test]
fn lanes_that_cannot_be_understood_do_not_hide_the_others() {
    let pool = quick("");
    let (_dir, good) = pending(&pool);
    for name in ["nonsense", "script-0123456789abcdef", "cpu-"] {
        fs::create_dir_all(pool.dir().join("pending").join(name).join("05/0194c3f2a.0")).unwrap();
    }
    fs::write(pool.dir().join("pending/file"), "").unwrap();
    let _worker = pool.worker(&["--gpu", "0"]);
    let good = good.file_name().unwrap().to_string_lossy()[..36].to_owned();
    until_over(&pool, &good);
}

/// 001-B6: what was put straight into `pending/` is put aside, with a brain or without, and a lane
/// of which nobody knows what it requires is told once, not at every look.
#[test]
fn seed_001_b6_files_among_the_lanes_are_put_aside_and_said_once() {
    let pool = quick("");
    let (_dir, good) = pending(&pool);
    let lanes = pool.dir().join("pending");
    fs::write(lanes.join("task.json"), "{}").unwrap();
    fs::create_dir_all(lanes.join("cpu-0123456789ab/05/0194c3f2a.0")).unwrap();
    let _worker = pool.worker(&["--gpu", "0"]);
    let (kept, reason) = rejected(&pool, "task.json");
    assert!(reason.contains("only lanes belong there"), "{reason}");
    assert_eq!(fs::read_to_string(kept).unwrap(), "{}");
    let good = good.file_name().unwrap().to_string_lossy()[..36].to_owned();
    until_over(&pool, &good);
    let said = |about: &str| {
        let lines = pool.log("worker-worker-0");
        lines.iter().filter(|line| line["message"].as_str().unwrap().contains(about)).count()
    };
    pool.until_true("the lane is told", || said("lane cpu-0123456789ab") > 0);
    // Each of these makes the worker look at everything again.
    for _round in 0..2 {
        until_over(&pool, &submit(&pool, &[], &["say=more"]));
    }
    assert_eq!((said("task.json"), said("lane cpu-0123456789ab")), (1, 1));
    fs::write(lanes.join("other.json"), "{}").unwrap();
    let _brain = pool.brain(&["--no-spawn"]);
    rejected(&pool, "other.json");
    pool.until_event("brain", "task.rejected");
}

/// A task whose file is spoiled is not a hole into which whoever asks for it looks in vain.
#[test]
fn a_task_that_cannot_be_read_is_found_waited_for_and_taken_back_once_mended() {
    let pool = quick("");
    let id = submit(&pool, &[], &["say=mended"]);
    let dependent = submit(&pool, &["--after", &id], &["say=never"]);
    let file = file_of(&pool, "pending", &id).unwrap();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let _worker = pool.worker(&["--gpu", "0"]);
    let waited = pool.queue(&["wait", &id, &dependent, "--json"]).code(100).json();
    let causes: Vec<_> = [0, 1].map(|task| waited["tasks"][task]["cause"].clone()).into();
    assert_eq!(causes, ["rejected", "dependency_failed"]);
    let shown = pool.queue(&["show", &id, "--json"]).success().json();
    assert_eq!((&shown["state"], &shown["class"]), (&"failed".into(), &Value::Null));
    let problem = shown["attempts"][0]["error_message"].as_str().unwrap();
    assert!(problem.contains("line 1: not JSON"), "{problem}");
    assert!(pool.queue(&["show", &id]).success().stdout.contains("rejected"));
    for command in [&["ls"][..], &["ls", "--state", "failed"]] {
        let listed = pool.queue(command).success().stdout;
        let row = listed.lines().find(|row| row.starts_with(&id[id.len() - 8..])).expect("a row");
        assert!(row.contains("failed") && row.contains("unknown"), "{listed}");
    }
    let why = pool.queue(&["why", &id]).success().stdout;
    let name = TaskName::first(id.parse().unwrap()).again().file_name();
    let kept = pool.dir().join("rejected").join(&name);
    assert!(why.contains(&format!("mend `{}`", kept.display())), "{why}");
    let refused = pool.queue(&["retry", &id]).code(1);
    assert!(refused.stderr.contains("line 1: not JSON"), "{}", refused.stderr);
    fs::write(&kept, whole).unwrap();
    pool.queue(&["retry", &id]).success();
    assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
}
