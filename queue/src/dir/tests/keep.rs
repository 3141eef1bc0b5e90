//! What must be kept and found again: history, keys, counts, leases.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use rustix::io::Errno;
use shared::id::TaskId;
use shared::outcome::{Cause, Outcome};
use shared::quantity::Bytes;
use shared::task::{Task, TaskName};

use crate::dir::find::counts::Counter;
use crate::dir::find::places;
use crate::dir::fixture::{claim, cursor, end, ledger, name, pool_at, record, scratch, submit};
use crate::dir::ledger::append::Ledger;
use crate::dir::ledger::follow::Follower;
use crate::dir::operate::{Change, Ender, Reason};
use crate::dir::presence::lease::Lease;
use crate::dir::submit::keys::Keys;
use crate::dir::submit::one::Submitter;
use crate::dir::{Pool, Rules, fault, layout};
use crate::store::contract::{line, task};
use crate::wire::ledger_line::Line;
use crate::wire::retry::Verdict;

fn pool() -> (tempfile::TempDir, Pool) {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    (home, pool)
}

fn some_line() -> Line {
    let task = task(r#"{"shell": "true"}"#);
    let name = TaskName::first(task.id);
    line(&task, name, Verdict::Succeeded)
}

fn files(pool: &Pool) -> Vec<PathBuf> {
    crate::dir::ledger::search::files_since(pool.layout(), "").unwrap()
}

#[test]
fn a_line_after_a_short_write_is_not_glued_to_it() {
    let (_home, pool) = pool();
    let ledger = ledger(&pool, "worker-1");
    let lines = [some_line(), some_line(), some_line()];
    ledger.append(&lines[0]).unwrap();
    // Opened already: the second change of an append is the write itself.
    fault::fail_at(1, Errno::IO);
    assert!(ledger.append(&lines[1]).is_err());
    fault::plug_in();
    assert_eq!(fault::what_failed(), Some("write ledger line"));
    ledger.append(&lines[2]).unwrap();
    let mut follower = Follower::from_start();
    let read: Vec<_> = follower.poll(pool.layout()).unwrap().iter().map(|brief| brief.id).collect();
    assert_eq!(read, [lines[0].id, lines[2].id]);
    assert_eq!(follower.torn, 1);
    assert_eq!(crate::dir::ledger::search::lines_of(pool.layout(), lines[2].id).unwrap().len(), 1);
    assert_eq!(crate::dir::ledger::search::lines_of(pool.layout(), lines[1].id).unwrap(), []);
}

#[test]
fn a_full_disk_takes_the_reserve_and_the_line_is_kept() {
    let (_home, pool) = pool();
    fs::write(pool.layout().reserve(), "room").unwrap();
    let ledger = ledger(&pool, "worker-1");
    ledger.append(&some_line()).unwrap();
    fault::fail_at(1, Errno::NOSPC);
    let line = some_line();
    ledger.append(&line).unwrap();
    fault::plug_in();
    assert!(fs::symlink_metadata(pool.layout().reserve()).is_err());
    assert_eq!(crate::dir::ledger::search::lines_of(pool.layout(), line.id).unwrap().len(), 1);
}

/// Whatever is free: a reserve that is missing may be what is free.
#[test]
fn what_a_reserve_left_is_no_room_to_begin_anything_with() {
    let (_home, pool) = pool();
    let rules = |size| Rules { reserve_size: Bytes(size), ..Rules::default() };
    let open = |size| Pool::open(pool.root(), rules(size)).unwrap();
    assert_eq!(open(0).shortage().unwrap(), None, "no reserve is asked for");
    let huge = open(u64::MAX);
    let shortage = huge.shortage().unwrap().expect("less is free than the reserve that is missing");
    let text = shortage.reason().text;
    assert!(text.contains("disk is full (") && text.contains(" needed)"), "{text}");
    fs::write(pool.layout().reserve(), "room").unwrap();
    assert_eq!(huge.shortage().unwrap(), None, "what is free is not the reserve");
}

#[test]
fn after_a_failed_flush_a_new_file_is_begun_and_never_the_old_one_again() {
    let (_home, pool) = pool();
    let ledger = ledger(&pool, "worker-1");
    ledger.append(&some_line()).unwrap();
    for round in 1..4 {
        fault::fail_at(2, Errno::IO);
        assert!(ledger.append(&some_line()).is_err());
        assert_eq!(fault::what_failed(), Some("flush ledger"));
        // Nor when the new file could not be opened at first.
        fault::pull_after(0);
        assert!(ledger.append(&some_line()).is_err());
        fault::plug_in();
        let old: Vec<_> =
            files(&pool).iter().map(|path| fs::metadata(path).unwrap().len()).collect();
        let line = some_line();
        ledger.append(&line).unwrap();
        let now: Vec<_> =
            files(&pool).iter().map(|path| fs::metadata(path).unwrap().len()).collect();
        assert_eq!(now.len(), round + 1);
        assert_eq!(now[..round], old[..]);
    }
}

#[test]
fn followers_read_whole_lines_only_and_each_once() {
    let (_home, pool) = pool();
    let ledger = ledger(&pool, "worker-1");
    let (first, second) = (some_line(), some_line());
    ledger.append(&first).unwrap();
    let mut follower = Follower::from_start();
    assert_eq!(follower.poll(pool.layout()).unwrap().len(), 1);
    let path = files(&pool).remove(0);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    let bytes = second.to_bytes();
    let (half, rest) = bytes.split_at(bytes.len() - 1);
    file.write_all(half).unwrap();
    assert_eq!(follower.poll(pool.layout()).unwrap(), []);
    let mut late = Follower::from_now(pool.layout()).unwrap();
    assert_eq!(
        crate::dir::ledger::search::lines_of(pool.layout(), second.id).unwrap(),
        [],
        "all agree about it"
    );
    file.write_all(rest).unwrap();
    for follower in [&mut follower, &mut late] {
        let lines = follower.poll(pool.layout()).unwrap();
        assert_eq!(lines.iter().map(|brief| brief.id).collect::<Vec<_>>(), [second.id]);
        assert_eq!(follower.poll(pool.layout()).unwrap(), []);
    }
    assert_eq!(follower.torn, 0);
}

#[test]
fn a_line_is_looked_for_in_the_files_of_those_who_may_have_written_it() {
    let (_home, pool) = pool();
    let (one, other) = (ledger(&pool, "worker-1"), ledger(&pool, "worker-11"));
    let line = some_line();
    one.append(&line).unwrap();
    other.append(&some_line()).unwrap();
    let find = |writers: Option<&[crate::wire::ledger_line::Writer]>| {
        crate::dir::ledger::search::line_of(pool.layout(), line.id, 1, writers).unwrap().is_some()
    };
    assert!(find(None));
    assert!(find(Some(&[one.writer().clone()])));
    assert!(!find(Some(&[other.writer().clone()])));
    assert!(!find(Some(&[])));
    assert!(
        crate::dir::ledger::search::line_of(pool.layout(), line.id, 2, None).unwrap().is_none()
    );
    assert!(
        crate::dir::ledger::search::line_of(pool.layout(), TaskId::new(), 1, None)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_task_that_only_mentions_another_is_not_its_history() {
    let (_home, pool) = pool();
    let id = TaskId::new();
    let spec = format!(
        r#"{{"shell": "true", "env": {{"X": "\"id\":\"{id}\""}}, "name": "\"id\":\"{id}\""}}"#
    );
    let task = task(&spec);
    let text = line(&task, TaskName::first(task.id), Verdict::Succeeded);
    ledger(&pool, "worker-1").append(&text).unwrap();
    assert_eq!(crate::dir::ledger::search::lines_of(pool.layout(), id).unwrap(), []);
}

#[test]
fn threads_that_end_tasks_together_lose_no_line() {
    let (_home, pool) = pool();
    let ledger = ledger(&pool, "worker-1");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|_| ledger.append(&some_line()).unwrap()));
        }
    });
    let mut follower = Follower::from_start();
    assert_eq!(follower.poll(pool.layout()).unwrap().len(), 400);
    assert_eq!(follower.torn, 0);
}

#[test]
fn an_attempt_has_one_end_whatever_is_said_the_second_time() {
    let (_home, pool) = pool();
    let id = submit(&pool, r#"{"shell": "true"}"#);
    let ledger = ledger(&pool, "worker-1");
    ledger.append(&some_line()).unwrap();
    let claim = claim(&mut cursor(&pool, "worker-1")).unwrap();
    let (task, name) = (claim.task().clone(), claim.name());
    // The line goes out; the rename into `delayed/` does not.
    fault::fail_at(3, Errno::NOSPC);
    let failed = line(&task, name, Verdict::Failed(Cause::ExitCode));
    let not = claim.end(&ledger, &failed).unwrap_err();
    assert_eq!(fault::what_failed(), Some("rename"));
    fault::plug_in();
    not.claim.end(&ledger, &line(&task, name, Verdict::Succeeded)).unwrap();
    let lines = crate::dir::ledger::search::lines_of(pool.layout(), id).unwrap();
    assert_eq!(lines.iter().map(|line| line.outcome).collect::<Vec<_>>(), [Outcome::Failed]);
    assert_eq!(crate::dir::fixture::state(&pool, id), Some(("delayed", failed.next_name)));
}

#[test]
fn seed_001_b16_a_key_survives_its_submitter_between_intent_and_submit() {
    let (_home, pool) = pool();
    let (first, second) = (task(r#"{"shell": "true"}"#), task(r#"{"shell": "true"}"#));
    let keys = Keys::wait(&pool).unwrap();
    keys.intend("nightly", first.id).unwrap();
    assert_eq!(keys.find("nightly").unwrap(), None, "intended is not submitted");
    keys.intend("nightly", second.id).unwrap();
    Submitter::new(&pool).unwrap().submit(&second).unwrap();
    drop(keys);
    let keys = Keys::wait(&pool).unwrap();
    assert_eq!(keys.find("nightly").unwrap(), Some(second.id));
    assert_eq!(keys.find("weekly").unwrap(), None);
    // Also when it has run meanwhile.
    end(
        *claim(&mut cursor(&pool, "worker-1")).unwrap(),
        &ledger(&pool, "worker-1"),
        Verdict::Succeeded,
    );
    assert_eq!(keys.find("nightly").unwrap(), Some(second.id));
}

#[test]
fn counting_counts_again_only_what_has_changed_and_is_never_wrong() {
    let (_home, pool) = pool();
    let mut counter = Counter::default();
    let mut count = || {
        let counts = counter.take(&pool).unwrap();
        (counts.pending, counts.processing, counts.held, counts.delayed)
    };
    assert_eq!(count(), (0, 0, 0, 0));
    let id = submit(&pool, r#"{"shell": "true"}"#);
    submit(&pool, r#"{"shell": "true", "hold": true}"#);
    submit(&pool, r#"{"shell": "true", "at": "2100-01-01T00:00:00Z"}"#);
    assert_eq!(count(), (1, 0, 1, 1));
    // Long ago, so that the count of it is remembered.
    let dir = places::find(pool.layout(), id).unwrap().unwrap().place.dir(pool.layout());
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    fs::File::open(&dir).unwrap().set_modified(old).unwrap();
    assert_eq!([count(), count()], [(1, 0, 1, 1); 2]);
    submit(&pool, r#"{"shell": "true"}"#);
    assert_eq!(count(), (2, 0, 1, 1));
    let claim = claim(&mut cursor(&pool, "worker-1"));
    assert_eq!(count(), (1, 1, 1, 1));
    end(*claim.unwrap(), &ledger(&pool, "worker-1"), Verdict::Succeeded);
    assert_eq!(count(), (1, 0, 1, 1));
}

#[test]
fn seed_001_b42_settling_twice_remembers_on_which_machine_the_jobs_ran() {
    let (_home, pool) = pool();
    submit(&pool, r#"{"shell": "true"}"#);
    let worker = ledger(&pool, "worker-1");
    let lease = Lease::try_take(&pool, &name("worker-1")).unwrap().unwrap();
    let mut there = record(&lease, &worker);
    there.process.boot = String::new();
    there.process.host = "another-host".into();
    lease.write(&there).unwrap();
    drop(claim(&mut cursor(&pool, "worker-1")));
    let settler = ledger(&pool, "brain");
    for _ in 0..3 {
        super::plug::settle(&pool, &settler, &lease).unwrap();
        let record = lease.record().unwrap().unwrap();
        assert_eq!(record.process, there.process);
        assert_eq!(record.writers.len(), 2);
    }
    let left = crate::dir::fixture::all_places(&pool);
    assert!(left.iter().any(|place| place.state() == "processing"), "its job may still run there");
}

#[test]
fn whoever_cancels_goes_on_with_a_cancel_that_died() {
    let (_home, pool) = pool();
    let id = submit(&pool, r#"{"shell": "true"}"#);
    let ledger = ledger(&pool, "queue");
    let find = || places::find(pool.layout(), id).unwrap();
    fault::pull_after(5);
    let died =
        Ender::wait(&pool, &ledger).and_then(|ender| ender.end(&find().unwrap(), Reason::Cancel));
    fault::plug_in();
    died.unwrap_err();
    let found = find().expect("it is in `ending/`");
    assert_eq!(found.place.state(), "ending");
    let ender = Ender::wait(&pool, &ledger).unwrap();
    assert_eq!(ender.end(&found, Reason::Cancel).unwrap(), Change::Done);
    assert_eq!(find(), None);
}

#[test]
fn something_of_a_tasks_name_where_it_belongs_makes_nobody_throw_it_away() {
    let (_home, pool) = pool();
    let id = submit(&pool, r#"{"shell": "false", "max_attempts": 1}"#);
    let claim = claim(&mut cursor(&pool, "worker-1")).unwrap();
    let line = line(claim.task(), claim.name(), Verdict::Failed(Cause::ExitCode));
    let there = pool.layout().on_shelf(layout::Shelf::Failed, line.next_name);
    fs::create_dir_all(&there).unwrap();
    claim.end(&ledger(&pool, "worker-1"), &line).unwrap();
    assert_eq!(
        Task::parse(&fs::read(&there).unwrap()).unwrap().id,
        id,
        "the task is where it belongs"
    );
    let aside = pool.layout().rejected().join(there.file_name().unwrap());
    assert!(aside.is_dir(), "what was in its way is put aside");
}

/// A ledger is shared by threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Ledger>();
};
