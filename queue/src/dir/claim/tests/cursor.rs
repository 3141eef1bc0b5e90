//! What a worker's look at the pending tasks notices, and what it is not stopped by.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;
use shared::id::TaskId;
use shared::task::TaskName;

use crate::dir::claim::cursor::{Cursor, Pass, Wish};
use crate::dir::claim::note::Note;
use crate::dir::disk::listing;
use crate::dir::find::places;
use crate::dir::fixture::{ALL, ANY, claim, cursor, end, ledger, pool_at, scratch, submit};
use crate::dir::layout::Segment;
use crate::dir::submit::one::Submitter;
use crate::dir::{Pool, fault};
use crate::store::contract::task;
use crate::wire::retry::Verdict;

fn pool() -> (tempfile::TempDir, Pool) {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    (home, pool)
}

fn take(cursor: &mut Cursor) -> Option<TaskId> {
    claim(cursor).map(|claim| claim.task().id)
}

/// An id that was made so many milliseconds ago.
fn old_id(ago: u64) -> TaskId {
    let new = TaskId::new();
    let text = new.to_string();
    let hex = format!("{:012x}", new.unix_millis() - ago);
    format!("{}-{}{}", &hex[..8], &hex[8..], &text[13..]).parse().unwrap()
}

fn submit_as(pool: &Pool, id: TaskId, spec: &str) {
    let task = shared::task::Task { id, ..task(spec) };
    Submitter::new(pool).unwrap().submit(&task).unwrap();
}

/// The directory of a pending task.
fn dir_of(pool: &Pool, id: TaskId) -> PathBuf {
    places::find(pool.layout(), id).unwrap().unwrap().place.dir(pool.layout())
}

const PLAIN: &str = r#"{"shell": "true"}"#;

#[test]
fn an_older_directory_that_appears_comes_first() {
    let (_home, pool) = pool();
    let first = submit(&pool, PLAIN);
    let second = submit(&pool, PLAIN);
    let mut cursor = cursor(&pool, "worker-1");
    assert_eq!(take(&mut cursor), Some(first));
    let old = old_id(3_600_000);
    submit_as(&pool, old, PLAIN);
    assert_eq!(take(&mut cursor), Some(old));
    assert_eq!(take(&mut cursor), Some(second));
    assert_eq!(take(&mut cursor), None);
}

#[test]
fn among_lanes_of_one_class_the_oldest_task_comes_first() {
    let (_home, pool) = pool();
    let big = r#"{"shell": "true", "gpu_memory": "8GiB"}"#;
    let small = r#"{"shell": "true", "gpu_memory": "1GiB"}"#;
    let ids = [big, PLAIN, small, PLAIN, big, small].map(|spec| submit(&pool, spec));
    let mut cursor = cursor(&pool, "worker-1");
    assert_eq!(ids.map(|_| take(&mut cursor).unwrap()), ids);
}

#[test]
fn seed_001_b14_a_higher_priority_that_appears_comes_first() {
    let (_home, pool) = pool();
    let ids = [submit(&pool, PLAIN), submit(&pool, PLAIN)];
    let mut cursor = cursor(&pool, "worker-1");
    assert_eq!(take(&mut cursor), Some(ids[0]));
    let high = submit(&pool, r#"{"shell": "true", "priority": 9}"#);
    assert_eq!(take(&mut cursor), Some(high));
    assert_eq!(take(&mut cursor), Some(ids[1]));
}

#[test]
fn a_directory_that_is_filled_again_is_used_again() {
    let (_home, pool) = pool();
    let mut cursor = cursor(&pool, "worker-1");
    let id = old_id(10_000);
    for round in 0_u64..5 {
        let id = old_id(10_000);
        submit_as(&pool, id, PLAIN);
        assert_eq!(take(&mut cursor), Some(id), "round {round}");
        assert_eq!(take(&mut cursor), None);
    }
    assert!(
        fs::symlink_metadata(pool.layout().pending().join(Segment::single(id).dir_name())).is_err()
    );
}

#[test]
fn a_returned_task_is_taken_again_by_the_worker_that_passed_its_directory() {
    let (_home, pool) = pool();
    let (old, new) = (old_id(60_000), TaskId::new());
    submit_as(&pool, old, PLAIN);
    submit_as(&pool, new, PLAIN);
    let (mut first, mut second) = (cursor(&pool, "worker-1"), cursor(&pool, "worker-2"));
    let returned = claim(&mut first).unwrap();
    assert_eq!(take(&mut second), Some(new));
    end(*returned, &ledger(&pool, "worker-1"), Verdict::Returned);
    assert_eq!(take(&mut second), Some(old));
}

/// Puts `make` where a task could be, under a task's name or another, beside real tasks.
fn is_put_aside(name: Option<&str>, make: impl Fn(&Path), reason: &str) {
    let (_home, pool) = pool();
    let first = submit(&pool, PLAIN);
    let bad = TaskName::first(old_id(5)).file_name();
    let path = dir_of(&pool, first).join(name.unwrap_or(&bad));
    make(&path);
    let last = submit(&pool, PLAIN);
    let mut cursor = cursor(&pool, "worker-1");
    let (mut taken, mut notes) = (Vec::new(), Vec::new());
    while let Pass::Claimed { claim, .. } = cursor.pass(&ANY, &mut |note| notes.push(note)).unwrap()
    {
        taken.push(claim.task().id);
    }
    assert_eq!(taken, [first, last], "{reason}");
    let told =
        notes.iter().any(|note| matches!(note, Note::Rejected(_, why) if why.contains(reason)));
    assert!(told, "{reason}: {notes:?}");
    let rejected = listing::entries(&pool.layout().rejected()).unwrap();
    assert_eq!(rejected.len(), 2, "the file and its reason: {rejected:?}");
    let reasons = rejected.iter().find(|name| name.as_encoded_bytes().ends_with(b".reason"));
    let text = fs::read_to_string(pool.layout().rejected().join(reasons.unwrap())).unwrap();
    assert!(text.contains(reason), "{text}");
    assert!(
        listing::entries(&pool.layout().processing_of(&crate::dir::fixture::name("worker-1")))
            .unwrap()
            .len()
            == 2
    );
}

#[test]
fn seed_001_b1_a_half_written_file_among_the_tasks_stops_nobody() {
    is_put_aside(None, |path| fs::write(path, "").unwrap(), "EOF");
    is_put_aside(None, |path| fs::write(path, r#"{"id": "#).unwrap(), "EOF");
    is_put_aside(None, |path| fs::write(path, "[1, 2]").unwrap(), "");
    is_put_aside(None, |path| fs::write(path, task(PLAIN).to_bytes()).unwrap(), "its content says");
}

#[test]
fn what_is_no_task_is_put_aside_and_the_others_are_claimed() {
    is_put_aside(None, |path| symlink("/etc/passwd", path).unwrap(), "symbolic link");
    is_put_aside(None, |path| symlink(path, path).unwrap(), "symbolic link");
    is_put_aside(None, |path| fs::create_dir(path).unwrap(), "not a plain file");
    for (kind, reason) in [(FileType::Fifo, "not a plain file"), (FileType::Socket, "a socket")] {
        let make = |path: &Path| rustix::fs::mknodat(CWD, path, kind, Mode::RUSR, 0).unwrap();
        is_put_aside(None, make, reason);
    }
    is_put_aside(None, |path| fs::write(path, vec![b' '; 2 << 20]).unwrap(), "1 MiB");
    // 001-B22: sidecars, editors' copies, somebody's notes.
    let sidecar = format!("{}.heartbeat.json", TaskId::new());
    let long = "x".repeat(250);
    for name in [&sidecar, "notes.txt", "a.json~", &long, "a\nb"] {
        is_put_aside(Some(name), |path| fs::write(path, "{}").unwrap(), "its name is not");
    }
    is_put_aside(
        Some("dir"),
        |path| fs::create_dir_all(path.join("inside")).unwrap(),
        "its name is not",
    );
}

#[test]
fn a_second_copy_of_what_this_worker_runs_is_put_aside() {
    let (_home, pool) = pool();
    let id = submit(&pool, PLAIN);
    let dir = dir_of(&pool, id);
    let bytes = fs::read(dir.join(TaskName::first(id).file_name())).unwrap();
    let mut cursor = cursor(&pool, "worker-1");
    let claim = claim(&mut cursor).unwrap();
    // Somebody restores a backup.
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(TaskName::first(id).file_name()), bytes).unwrap();
    let next = submit(&pool, PLAIN);
    assert_eq!(take(&mut cursor), Some(next));
    assert_eq!(listing::entries(&pool.layout().rejected()).unwrap().len(), 2);
    end(*claim, &ledger(&pool, "worker-1"), Verdict::Succeeded);
}

#[test]
fn what_may_not_be_moved_is_passed_over() {
    let (_home, pool) = pool();
    let ids = [submit(&pool, PLAIN), submit(&pool, PLAIN)];
    let mut cursor = cursor(&pool, "worker-1");
    // Another user's directory of a task's name cannot be moved: that is what rename says then.
    fault::fail_at(0, Errno::ACCESS);
    let claimed = take(&mut cursor);
    fault::plug_in();
    assert_eq!(claimed, Some(ids[1]));
    assert_eq!(take(&mut cursor), Some(ids[0]), "and tried again");
}

#[test]
fn files_in_place_of_directories_stop_no_look() {
    let (_home, pool) = pool();
    let id = submit(&pool, PLAIN);
    let layout = pool.layout();
    let priority = dir_of(&pool, id).parent().unwrap().to_owned();
    for path in [
        layout.pending().join("README"),
        priority.join("0194c3f2a.0"),
        priority.parent().unwrap().join("07"),
        layout.delayed().join("12"),
        layout.processing().join("worker-9"),
        layout.ending().join("cancel"),
        layout.publishing().join("notes"),
        layout.incoming().join("notes"),
        layout.shelf(crate::dir::layout::Shelf::Held).join("0194c3f2a.0"),
        layout.ledger().join("notes"),
    ] {
        fs::write(path, "somebody's notes").unwrap();
    }
    assert!(crate::dir::fixture::state(&pool, id).is_some());
    assert_eq!(crate::dir::fixture::state(&pool, TaskId::new()), None);
    crate::dir::find::counts::Counter::default().take(&pool).unwrap();
    crate::dir::recover::reconcile::reconcile(&pool).unwrap();
    assert_eq!(take(&mut cursor(&pool, "worker-1")), Some(id));
}

#[test]
fn seed_001_b6_a_lane_without_its_file_is_told_once_and_the_next_submit_mends_it() {
    let (_home, pool) = pool();
    let id = submit(&pool, PLAIN);
    let lane = listing::lanes(pool.layout()).unwrap().remove(0);
    for broken in ["", "{}", r#"{"class": "cpu"}"#] {
        fs::write(pool.layout().lane_file(&lane), broken).unwrap();
        let mut cursor = cursor(&pool, "worker-1");
        let mut notes = Vec::new();
        let pass = cursor.pass(&ANY, &mut |note| notes.push(note)).unwrap();
        assert!(matches!(pass, Pass::Nothing { .. }));
        assert!(matches!(&notes[..], [Note::Obscure(told, _why)] if *told == lane), "{notes:?}");
        cursor.pass(&ANY, &mut |note| panic!("001-B6: told once: {note:?}")).unwrap();
    }
    let second = submit(&pool, PLAIN);
    let mut cursor = cursor(&pool, "worker-1");
    assert_eq!([take(&mut cursor), take(&mut cursor)], [Some(id), Some(second)]);
}

#[test]
fn a_task_for_newer_programs_is_left_alone_and_told_once() {
    let (_home, pool) = pool();
    let (newer, known) = (submit(&pool, PLAIN), submit(&pool, PLAIN));
    let file = dir_of(&pool, newer).join(TaskName::first(newer).file_name());
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replacen('{', r#"{"schema": "brainstem.task/2", "planet": "mars", "#, 1);
    fs::write(&file, &text).unwrap();
    let mut cursor = cursor(&pool, "worker-1");
    let mut told = Vec::new();
    for expected in [Some(known), None, None] {
        let pass = cursor.pass(&ANY, &mut |note| told.push(format!("{note:?}"))).unwrap();
        let claimed = match pass {
            Pass::Claimed { claim, .. } => Some(claim.task().id),
            Pass::Nothing { .. } => None,
        };
        assert_eq!(claimed, expected);
    }
    let named: Vec<_> = told.iter().filter(|note| note.contains("brainstem.task/2")).collect();
    assert_eq!(named.len(), 1, "{told:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert_eq!(listing::entries(&pool.layout().rejected()).unwrap().len(), 0);
}

#[test]
fn a_lane_with_a_requirement_of_newer_programs_is_closed_and_stays_as_it_is() {
    let (_home, pool) = pool();
    let id = submit(&pool, PLAIN);
    let lane = listing::lanes(pool.layout()).unwrap().remove(0);
    let newer = r#"{"class": "script", "planet": "mars"}"#;
    fs::write(pool.layout().lane_file(&lane), newer).unwrap();
    let before = dir_of(&pool, id);
    crate::dir::recover::reconcile::reconcile(&pool).unwrap();
    assert_eq!(take(&mut cursor(&pool, "worker-1")), None);
    assert_eq!(dir_of(&pool, id), before);
    assert_eq!(fs::read_to_string(pool.layout().lane_file(&lane)).unwrap(), newer);
}

#[test]
fn a_closed_lane_is_reported_with_what_it_requires_and_hides_no_other() {
    let (_home, pool) = pool();
    submit(&pool, r#"{"shell": "true", "gpu_memory": "8GiB", "priority": 10}"#);
    let cpu = submit(&pool, r#"{"shell": "true", "class": "cpu"}"#);
    let wish = Wish { classes: ALL, open: &|lane| lane.gpu_memory.is_none() };
    let mut cursor = cursor(&pool, "worker-1");
    let Pass::Claimed { claim, .. } = cursor.pass(&wish, &mut |_note| {}).unwrap() else {
        panic!("the other lane is open");
    };
    assert_eq!(claim.task().id, cpu);
    let Pass::Nothing { closed, lost, limited } = cursor.pass(&wish, &mut |_note| {}).unwrap()
    else {
        panic!("nothing is left that is open");
    };
    assert_eq!((closed.len(), lost, limited.len()), (1, 0, 0));
    assert_eq!(closed[0].1.gpu_memory, Some(shared::quantity::Bytes(8 << 30)));
}
