//! What a promoter notices, whatever the times of directories say, and when it looks again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use shared::task::TaskName;
use shared::time::Moment;

use crate::dir::Pool;
use crate::dir::fixture::{claim, cursor, end, ledger, pool_at, scratch, submit};
use crate::dir::layout::Shelf;
use crate::dir::ledger::search::files_since;
use crate::dir::recover::promote::{Promoter, Promotion};
use crate::store::contract::task;
use crate::wire::retry::Verdict;

fn pool() -> (tempfile::TempDir, Pool) {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    (home, pool)
}

fn put(dir: &Path, spec: &str) {
    let task = task(spec);
    fs::write(dir.join(TaskName::first(task.id).file_name()), task.to_bytes()).unwrap();
}

/// A directory of tasks that wait, which says that it last changed then.
fn waiting(pool: &Pool, changed: SystemTime) -> PathBuf {
    let dir = pool.layout().shelf(Shelf::Waiting).join("0194c3f2a.0");
    fs::create_dir_all(&dir).unwrap();
    put_at(&dir, changed);
    dir
}

/// One more task that waits, put there in the same tick of the file system's clock.
fn put_at(dir: &Path, changed: SystemTime) {
    put(dir, r#"{"shell": "true", "after": ["0194c3f2-aaaa-7bbb-8ccc-ddddeeeeffff"]}"#);
    File::open(dir).unwrap().set_modified(changed).unwrap();
}

/// The file system's clock may be another machine's, an hour ahead or back; and two changes may
/// fall into one tick of it, so that the second one does not show.
#[test]
fn a_task_that_came_in_the_same_tick_as_a_look_is_not_overlooked() {
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now();
    for clock in [now - hour, now, now + hour] {
        let (_home, pool) = pool();
        let dir = waiting(&pool, clock);
        let mut promoter = Promoter::new(&pool);
        let ledger = ledger(&pool, "brain");
        for count in 1..4 {
            assert!(promoter.step(&ledger, Moment::now()).unwrap().is_empty());
            assert_eq!(promoter.waiting(), count, "{clock:?}");
            // The second look may be long enough after the first: the third one is of a change
            // that shows.
            put_at(&dir, if count < 2 { clock } else { clock + Duration::from_secs(1) });
        }
    }
}

/// Else an idle worker that releases what is due would not rest at all.
#[test]
fn what_cannot_be_released_is_no_reason_to_look_again_at_once() {
    let (_home, pool) = pool();
    let delayed = pool.layout().delayed();
    let now = Moment::now();
    let soon = now.unix_seconds() + 60;
    fs::create_dir_all(delayed.join("1")).unwrap();
    fs::write(delayed.join("1/.somebodys"), "").unwrap();
    fs::write(delayed.join("2"), "a file in place of a directory").unwrap();
    fs::create_dir_all(delayed.join("3")).unwrap();
    put(&delayed.join("3"), r#"{"shell": "true"}"#);
    fs::create_dir_all(delayed.join(soon.to_string())).unwrap();
    put(&delayed.join(soon.to_string()), r#"{"shell": "true"}"#);
    let mut promoter = Promoter::new(&pool);
    assert_eq!(promoter.next_due().unwrap(), Some(1), "it has not looked yet");
    let done = promoter.step(&ledger(&pool, "brain"), now).unwrap();
    assert!(matches!(&done[..], [Promotion::Due(_)]), "{done:?}");
    assert_eq!(promoter.next_due().unwrap(), Some(soon));
}

/// It is tried again at every step, each second, and would fill the log.
#[test]
fn what_cannot_be_released_is_told_once() {
    let (_home, pool) = pool();
    let delayed = pool.layout().delayed().join("1");
    fs::create_dir_all(&delayed).unwrap();
    put(&delayed, r#"{"shell": "true"}"#);
    // Where its lane should be.
    fs::remove_dir(pool.layout().pending()).unwrap();
    fs::write(pool.layout().pending(), "somebody's").unwrap();
    let (mut promoter, ledger) = (Promoter::new(&pool), ledger(&pool, "brain"));
    let mut step = || promoter.step(&ledger, Moment::now()).unwrap();
    assert!(matches!(step()[..], [Promotion::Failed(..)]));
    assert!(step().is_empty(), "it was told");
    fs::remove_file(pool.layout().pending()).unwrap();
    fs::create_dir(pool.layout().pending()).unwrap();
    assert!(matches!(step()[..], [Promotion::Due(_)]), "and tried all the same");
}

/// What a damaged line says of a dependency is unknown until somebody mends it; then its dependents
/// go on, though nothing was written since.
#[test]
fn a_dependency_whose_line_was_mended_lets_its_dependents_go() {
    let (_home, pool) = pool();
    let needed = submit(&pool, r#"{"shell": "true"}"#);
    end(*claim(&mut cursor(&pool, "worker-1")).unwrap(), &ledger(&pool, "w"), Verdict::Succeeded);
    let file = files_since(pool.layout(), "").unwrap().pop().unwrap();
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("\"succeeded\"", "\"succXXded\"")).unwrap();
    let dependent = submit(&pool, &format!(r#"{{"shell": "true", "after": ["{needed}"]}}"#));
    let (mut promoter, ledger) = (Promoter::new(&pool), ledger(&pool, "brain"));
    let now = Moment::now();
    let done = promoter.step(&ledger, now).unwrap();
    assert!(matches!(&done[..], [Promotion::Damaged(it)] if it.task == Some(needed)), "{done:?}");
    let later = now.plus_millis(60_000);
    assert!(promoter.step(&ledger, later).unwrap().is_empty(), "told once");
    fs::write(&file, good).unwrap();
    let done = promoter.step(&ledger, later.plus_millis(60_000)).unwrap();
    assert!(matches!(&done[..], [Promotion::Ready { name, .. }] if name.id == dependent));
}
