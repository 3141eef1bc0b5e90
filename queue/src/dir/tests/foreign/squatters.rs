//! A plain file, or somebody's directory, where the pool needs a directory of its own: who needs it
//! says so and loses nothing, and when the thing is put aside all goes on.

use std::fs;
use std::path::Path;

use shared::outcome::Cause;
use shared::task::Task;

use super::super::plug::{Notes, goes_on, what_must_hold_but_for_copies};
use crate::dir::Pool;
use crate::dir::batch::roll_forward;
use crate::dir::disk::lane_files::ensure_lane;
use crate::dir::find::places;
use crate::dir::fixture::{claim, cursor, ledger, pool_at, scratch, state};
use crate::dir::layout::{Segment, Shelf, priority_dir};
use crate::dir::operate::{self, Change};
use crate::dir::recover::strays;
use crate::dir::submit::bulk::Bulk;
use crate::dir::submit::one::Submitter;
use crate::store::contract::{line, task};
use crate::wire::retry::Verdict;

const PLAIN: &str = r#"{"shell": "true"}"#;

fn pool() -> (tempfile::TempDir, Pool) {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    (home, pool)
}

/// A file in this place, and nothing below it any more.
fn squat(path: &Path) {
    let _not_there = fs::remove_dir_all(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "somebody's").unwrap();
}

/// It is in `rejected/` now, whole.
#[track_caller]
fn evict(pool: &Pool, path: &Path) {
    let aside = strays::put_aside(pool.layout()).unwrap();
    assert_eq!(aside.iter().map(|stray| stray.path.as_path()).collect::<Vec<_>>(), [path]);
    let kept = pool.layout().rejected().join(path.file_name().unwrap());
    assert_eq!(fs::read_to_string(kept).unwrap(), "somebody's");
}

/// The pool's directory for a task, level by level.
fn levels(pool: &Pool, task: &Task) -> [std::path::PathBuf; 3] {
    let lane =
        ensure_lane(pool.layout(), &pool.requirements_of(task), &mut Default::default()).unwrap();
    let lane = pool.layout().pending().join(lane.as_str());
    let priority = lane.join(priority_dir(task.priority()));
    let segment = priority.join(Segment::single(task.id).dir_name());
    [lane, priority, segment]
}

#[test]
fn a_submit_says_that_a_file_is_in_its_way_and_works_when_it_is_gone() {
    for level in 0..3 {
        let (_home, pool) = pool();
        let task = task(PLAIN);
        let path = &levels(&pool, &task)[level];
        squat(path);
        let err = Submitter::new(&pool).unwrap().submit(&task).unwrap_err();
        assert!(err.to_string().contains("Not a directory"), "{err}");
        assert!(err.to_string().contains(path.to_str().unwrap()), "{err}");
        assert_eq!(state(&pool, task.id), None);
        evict(&pool, path);
        Submitter::new(&pool).unwrap().submit(&task).unwrap();
        goes_on(&pool);
    }
}

/// It is committed: it waits in `publishing/`, and the rest of it is not held up for ever.
#[test]
fn a_batch_waits_for_what_is_in_its_way() {
    let (_home, pool) = pool();
    let tasks = [task(PLAIN), task(r#"{"shell": "true", "class": "cpu"}"#)];
    let path = &levels(&pool, &tasks[0])[0];
    squat(path);
    let mut bulk = Bulk::new(&pool).unwrap();
    tasks.iter().for_each(|task| bulk.add(task).unwrap());
    bulk.commit().unwrap();
    roll_forward::forward_all(pool.layout()).unwrap_err();
    evict(&pool, path);
    assert_eq!(roll_forward::forward_all(pool.layout()).unwrap(), 1);
    let acknowledged = tasks.iter().map(|task| task.id).collect();
    what_must_hold_but_for_copies(&pool, &Notes { acknowledged, together: Vec::new() });
    goes_on(&pool);
}

/// The end is recorded; where it leads is in the way. It is tried again, and said once.
#[test]
fn an_end_waits_for_what_is_in_its_way() {
    for verdict in
        [Verdict::Failed(Cause::ExitCode), Verdict::Refused(Cause::SpawnFailed), Verdict::Returned]
    {
        let (_home, pool) = pool();
        let id = crate::dir::fixture::submit(&pool, PLAIN);
        let ledger = ledger(&pool, "worker-1");
        let claim = claim(&mut cursor(&pool, "worker-1")).unwrap();
        let line = line(claim.task(), claim.name(), verdict);
        let path = match line.next {
            shared::outcome::Next::Delayed(until) => {
                let file = pool.layout().delayed_task(until, line.next_name);
                file.parent().unwrap().to_owned()
            }
            shared::outcome::Next::Failed => {
                let file = pool.layout().on_shelf(Shelf::Failed, line.next_name);
                file.parent().unwrap().to_owned()
            }
            shared::outcome::Next::Pending
            | shared::outcome::Next::End
            | shared::outcome::Next::Rejected => levels(&pool, claim.task())[0].clone(),
        };
        squat(&path);
        let not = claim.end(&ledger, &line).unwrap_err();
        assert!(not.error.to_string().contains("Not a directory"), "{}", not.error);
        assert_eq!(state(&pool, id).unwrap().0, "processing");
        evict(&pool, &path);
        not.try_again(&ledger).unwrap();
        let acknowledged = vec![id];
        what_must_hold_but_for_copies(&pool, &Notes { acknowledged, together: Vec::new() });
        assert_eq!(super::super::plug::ends(&pool), [(id, 1)]);
        goes_on(&pool);
    }
}

#[test]
fn a_delayed_and_a_held_task_find_a_file_in_their_place() {
    let (_home, pool) = pool();
    let later = task(r#"{"shell": "true", "at": "2100-01-01T00:00:00Z"}"#);
    let second = pool.layout().delayed().join("4102444800");
    squat(&second);
    let err = Submitter::new(&pool).unwrap().submit(&later).unwrap_err();
    assert!(err.to_string().contains("Not a directory"), "{err}");
    evict(&pool, &second);
    Submitter::new(&pool).unwrap().submit(&later).unwrap();
    assert_eq!(state(&pool, later.id).unwrap().0, "delayed");
    let id = crate::dir::fixture::submit(&pool, PLAIN);
    let shelf = pool.layout().shelf(Shelf::Held).join(Segment::single(id).dir_name());
    squat(&shelf);
    let found = places::find(pool.layout(), id).unwrap().unwrap();
    operate::hold(&pool, &found).unwrap_err();
    assert_eq!(state(&pool, id).unwrap().0, "pending");
    evict(&pool, &shelf);
    assert_eq!(operate::hold(&pool, &found).unwrap(), Change::Done);
}
