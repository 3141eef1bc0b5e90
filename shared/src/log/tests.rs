//! The form of a line, and what becomes of the process when lines cannot be written.
//!
//! What concerns a whole process (stderr, panics, the facade) is tried in a child: this test
//! binary, started again for one test.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::*;
use crate::id::TaskId;

fn config(stderr: StderrForm) -> LogConfig {
    LogConfig {
        process: "worker-1".into(),
        worker_id: Some("worker-1".parse().unwrap()),
        incarnation: Incarnation::new(),
        stderr,
        level: Level::Info,
    }
}

fn starting() -> Event {
    Event::WorkerStarting { worker: "worker-1".parse().unwrap() }
}

fn place() -> Place {
    Place { file: "worker/src/claim.rs", line: 88, module: "worker::claim" }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let full = text.lines().filter(|line| !line.is_empty());
    full.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

const KEEP_ALL: Rotation = Rotation { size: 100_000_000, keep: 10, compress: Compress::Never };

#[test]
fn a_line_has_the_documented_form() {
    let dir = tempfile::tempdir().unwrap();
    let log = Handle::new(config(StderrForm::Off));
    log.attach_file(dir.path(), "worker-1", KEEP_ALL).unwrap();
    let task: TaskId = "0194c3f2-aaaa-7bbb-8ccc-ddddd5de16d7".parse().unwrap();
    let correlation_id = Some("abc123def456".to_owned());
    let _scope = scope(Context { task: Some(task), correlation_id, ..Context::default() });
    let event = Event::ClaimWon {
        task,
        attempt: 1,
        class: crate::task::Class::Llm,
        task_name: "x".into(),
        lane: "l".into(),
        waited_seconds: None,
    };
    log.emit(&event, place());
    let text = fs::read_to_string(dir.path().join("worker-1.jsonl")).unwrap();
    let (time, rest) = text.split_at(r#"{"timestamp": "2026-02-07T20:45:30.123Z"#.len());
    assert!(time.starts_with(r#"{"timestamp": "2"#) && time.ends_with('Z'), "{time}");
    let incarnation = &log.shared.config.incarnation;
    let expected = format!(
        r#"", "level": "INFO", "logger": "worker.claim", "message": "Claimed llm task: d5de16d7 (x)", "event": "claim.won", "correlation_id": "abc123def456", "worker_id": "worker-1", "task_id": "{task}", "attempt": 1, "source": {{"file": "worker/src/claim.rs", "line": 88, "function": "worker::claim"}}, "incarnation": "{incarnation}", "seq": 0, "extra": {{"class": "llm", "task_name": "x", "lane": "l", "waited_seconds": null}}}}
"#
    );
    assert_eq!(rest, expected);
}

#[test]
fn what_was_said_before_the_file_was_there_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = Handle::new(config(StderrForm::Off));
    log.emit(&starting(), place());
    log.attach_file(dir.path(), "brain", KEEP_ALL).unwrap();
    log.emit(&starting(), place());
    let seqs: Vec<_> =
        lines(&dir.path().join("brain.jsonl")).iter().map(|l| l["seq"].as_u64()).collect();
    assert_eq!(seqs, [Some(0), Some(1)]);
}

#[test]
fn rotation_loses_no_line_and_leaves_the_files_of_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("worker-10_r2020-01-01_00-00-00.jsonl");
    fs::write(&other, "theirs\n").unwrap();
    let log = Handle::new(config(StderrForm::Off));
    let rotation = Rotation { size: 2_000, keep: 1_000, compress: Compress::Never };
    log.attach_file(dir.path(), "worker-1", rotation).unwrap();
    for _ in 0..200 {
        log.emit(&starting(), place());
    }
    let mut seqs = BTreeSet::new();
    let mut files = 0;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        files += 1;
        seqs.extend(lines(&path).iter().map(|line| line["seq"].as_u64().unwrap()));
    }
    assert!(files > 10, "{files}");
    assert_eq!(seqs, (0..200).collect());
    assert_eq!(fs::read_to_string(other).unwrap(), "theirs\n");
}

#[test]
fn old_files_go_when_more_than_so_many_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = Handle::new(config(StderrForm::Off));
    let rotation = Rotation { size: 2_000, keep: 3, compress: Compress::Older };
    log.attach_file(dir.path(), "brain", rotation).unwrap();
    for _ in 0..200 {
        log.emit(&starting(), place());
    }
    // Closing the file waits for the thread that cleans up.
    log.state().sink = Sink::early();
    let count = fs::read_dir(dir.path()).unwrap().count();
    assert!(count <= 4, "{count}");
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_told_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("brain.jsonl");
    symlink("/dev/full", &path).unwrap();
    let log = Handle::new(config(StderrForm::Off));
    log.attach_file(dir.path(), "brain", KEEP_ALL).unwrap();
    for _ in 0..3 {
        log.emit(&starting(), place());
    }
    assert_eq!(log.lost(), 3);
    fs::remove_file(&path).unwrap();
    log.emit(&starting(), place());
    let written = lines(&path);
    assert_eq!(written[0]["seq"], 3);
    assert_eq!(written[1]["event"], "log.dropped");
    assert_eq!(written[1]["extra"]["lines"], 3);
    assert_eq!(written.len(), 2);
}

#[test]
fn a_log_directory_that_vanishes_costs_lines_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let log = Handle::new(config(StderrForm::Off));
    let rotation = Rotation { size: 500, keep: 10, compress: Compress::Never };
    fs::create_dir(&logs).unwrap();
    log.attach_file(&logs, "brain", rotation).unwrap();
    log.emit(&starting(), place());
    fs::remove_dir_all(&logs).unwrap();
    for _ in 0..10 {
        log.emit(&starting(), place());
    }
    fs::create_dir_all(&logs).unwrap();
    log.reopen();
    log.emit(&starting(), place());
    assert!(!lines(&logs.join("brain.jsonl")).is_empty());
}

#[test]
fn a_half_line_of_a_life_before_spoils_no_line_of_this_one() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["brain", "queue"] {
        let path = dir.path().join(format!("{name}.jsonl"));
        fs::write(&path, r#"{"timestamp": "20"#).unwrap();
        let log = Handle::new(config(StderrForm::Off));
        match name {
            "brain" => log.attach_file(dir.path(), "brain", KEEP_ALL).unwrap(),
            _ => log.append_to(&path, KEEP_ALL).unwrap(),
        }
        log.emit(&starting(), place());
        log.emit(&starting(), place());
        assert_eq!(lines(&path).len(), 2, "{name}");
    }
}

#[test]
fn processes_that_share_a_file_write_whole_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.jsonl");
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let log = Handle::new(config(StderrForm::Off));
                log.append_to(&path, KEEP_ALL).unwrap();
                (0..100).for_each(|_| log.emit(&starting(), place()));
            });
        }
    });
    assert_eq!(lines(&path).len(), 400);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 400);
}

#[test]
fn a_shared_file_is_moved_aside_as_the_settings_say_and_the_oldest_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.jsonl");
    let rotation = Rotation { size: 100, keep: 2, compress: Compress::Older };
    for _command in 0..6 {
        let log = Handle::new(config(StderrForm::Off));
        log.append_to(&path, rotation).unwrap();
        log.emit(&starting(), place());
        // No two are moved in one moment.
        let before = crate::time::Moment::now();
        while crate::time::Moment::now() == before {}
    }
    let names = || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(
        names().count(),
        3,
        "the file, and two before it: {:?}",
        names().collect::<Vec<_>>()
    );
    assert_eq!(lines(&path).len(), 1);
}

/// In the child: the directory for its log. Not set in the parent.
const CHILD: &str = "BRAINSTEM_TEST_LOG_CHILD";

/// Starts this test again, as a process of its own with `stderr`.
fn again(test: &str, dir: &Path, stderr: Stdio) -> Output {
    let name = format!("log::tests::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&name, "--exact", "--nocapture"]).env(CHILD, dir).stderr(stderr);
    command.output().unwrap()
}

fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}

#[test]
fn an_stderr_that_cannot_be_written_ends_nothing() {
    if let Some(dir) = child_dir() {
        let log = init(config(StderrForm::Text)).unwrap();
        log.attach_file(&dir, "brain", KEEP_ALL).unwrap();
        for _ in 0..10 {
            crate::emit!(starting());
        }
        ::log::warn!(target: "notify", answer = 42; "a foreign warning");
        ::log::info!(target: "notify", "foreign chatter");
        assert_eq!(log.lost(), 0);
        std::process::exit(i32::try_from(log.lost_on_stderr()).unwrap());
    }
    let test = "an_stderr_that_cannot_be_written_ends_nothing";
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (closed_reader, closed) = std::io::pipe().unwrap();
    drop(closed_reader);
    for stderr in [Stdio::from(full), Stdio::from(closed)] {
        let dir = tempfile::tempdir().unwrap();
        let child = again(test, dir.path(), stderr);
        assert_eq!(child.status.code(), Some(11), "{child:?}");
        let written = lines(&dir.path().join("brain.jsonl"));
        assert_eq!(written.len(), 11);
        let foreign = &written[10];
        assert_eq!(foreign["event"], Value::Null);
        assert_eq!(foreign["level"], "WARNING");
        assert_eq!(foreign["message"], "a foreign warning");
        assert_eq!(foreign["extra"]["answer"], "42");
    }
}

#[test]
fn a_panic_is_an_event_with_its_backtrace_before_the_process_ends() {
    if let Some(dir) = child_dir() {
        let log = init(config(StderrForm::Text)).unwrap();
        log.attach_file(&dir, "worker-1", KEEP_ALL).unwrap();
        panic!("on purpose");
    }
    let test = "a_panic_is_an_event_with_its_backtrace_before_the_process_ends";
    let dir = tempfile::tempdir().unwrap();
    let child = again(test, dir.path(), Stdio::piped());
    assert!(!child.status.success());
    let stderr = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(stderr.contains("] [worker-1] Panic in thread "), "{stderr}");
    let written = lines(&dir.path().join("worker-1.jsonl"));
    assert_eq!(written[0]["event"], "process.panic");
    assert_eq!(written[0]["level"], "CRITICAL");
    assert!(written[0]["message"].as_str().unwrap().contains("on purpose at shared/src/log"));
    assert!(written[0]["extra"]["backtrace"].as_str().unwrap().contains("shared::log"));
}

#[test]
fn text_for_people_is_one_line_with_local_time_and_the_process() {
    let line = Line::of(&starting(), place(), Context::default(), &config(StderrForm::Text));
    let text = String::from_utf8(line.text("worker-gpu1")).unwrap();
    let (time, rest) = text.split_at("[2026-02-07 21:45:30.123]".len());
    assert!(time.ends_with(']'), "{time}");
    assert_eq!(rest, " [worker-gpu1] Worker worker-1 starting main loop\n");
}

#[test]
fn what_matters_less_than_the_level_is_not_said_and_not_counted() {
    let log = Handle::new(config(StderrForm::Off));
    let heartbeat = Event::WorkerHeartbeat {
        worker: "worker-1".parse().unwrap(),
        status: "idle",
        idle_seconds: None,
    };
    log.emit(&heartbeat, place());
    assert_eq!(log.seq(), 0);
}

/// Unmounts when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// 64 KiB, or `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(dir.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_disk_that_fills_up_and_empties_again_every_line_is_there_whole_or_told_as_lost() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: this user cannot mount a small disk");
        return;
    };
    let dir = disk.0.path();
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![0; 40 << 10]).unwrap();
    let log = Handle::new(config(StderrForm::Off));
    let rotation = Rotation { size: 8_000, keep: 100, compress: Compress::Never };
    log.attach_file(dir, "brain", rotation).unwrap();
    while log.lost() < 20 {
        log.emit(&starting(), place());
    }
    fs::remove_file(&ballast).unwrap();
    for _ in 0..20 {
        log.emit(&starting(), place());
    }
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let all: Vec<_> = files.flat_map(|path| lines(&path)).collect();
    let told: u64 = all.iter().filter_map(|line| line["extra"]["lines"].as_u64()).sum();
    assert_eq!(told, log.lost());
    assert_eq!(all.len() as u64 + log.lost(), log.seq());
}
