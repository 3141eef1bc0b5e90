//! What is read before it is claimed decides nothing: who claims what, and with which content, is as
//! if nobody had looked.

use std::fs;
use std::path::PathBuf;

use shared::id::TaskId;
use shared::task::Task;

use crate::dir::Pool;
use crate::dir::claim::cursor::Cursor;
use crate::dir::claim::note::Note;
use crate::dir::fixture::{ANY, claim, cursor, pool_at, scratch, submit};

const PLAIN: &str = r#"{"shell": "true"}"#;

/// A pool in which so many tasks wait.
fn pool_with<const N: usize>() -> (tempfile::TempDir, Pool, [TaskId; N]) {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let ids = [(); N].map(|()| submit(&pool, PLAIN));
    (home, pool, ids)
}

fn prefetch(cursor: &mut Cursor) {
    cursor.prefetch(&ANY, &mut |note: Note| panic!("{note:?}")).unwrap();
}

/// The files of pending tasks, oldest first.
fn pending(pool: &Pool) -> Vec<PathBuf> {
    let mut dirs = vec![pool.layout().pending()];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else if entry.file_name().to_string_lossy().ends_with(".a1f0d0.json") {
                files.push(entry.path());
            }
        }
    }
    files.sort_by(|one, other| one.file_name().cmp(&other.file_name()));
    files
}

#[test]
fn what_was_read_ahead_is_claimed_in_its_turn() {
    let (_home, pool, ids) = pool_with::<3>();
    let mut cursor = cursor(&pool, "worker-1");
    // Before anything is listed, while there is something, and after the last one.
    prefetch(&mut cursor);
    for id in ids {
        let claim = claim(&mut cursor).unwrap();
        assert_eq!((claim.name().id, claim.task().id), (id, id));
        prefetch(&mut cursor);
    }
    assert!(claim(&mut cursor).is_none());
}

#[test]
fn what_others_took_meanwhile_is_theirs() {
    let (_home, pool, ids) = pool_with::<4>();
    let (mut mine, mut theirs) = (cursor(&pool, "worker-1"), cursor(&pool, "worker-2"));
    assert_eq!(claim(&mut mine).unwrap().name().id, ids[0]);
    prefetch(&mut mine);
    assert_eq!(claim(&mut theirs).unwrap().name().id, ids[1]);
    let next = claim(&mut mine).unwrap();
    assert!(ids[2..].contains(&next.name().id));
    assert_eq!(next.task().id, next.name().id);
}

#[test]
fn a_file_that_was_changed_or_replaced_meanwhile_counts_as_it_is_now() {
    for replace in [false, true] {
        let (_home, pool, _ids) = pool_with::<2>();
        let mut cursor = cursor(&pool, "worker-1");
        let _first = claim(&mut cursor).unwrap();
        prefetch(&mut cursor);
        let [file] = &pending(&pool)[..] else { panic!("one is left") };
        let mut task = Task::parse(&fs::read(file).unwrap()).unwrap();
        task.spec.shell = Some("something else".into());
        if replace {
            fs::remove_file(file).unwrap();
        }
        fs::write(file, task.to_bytes()).unwrap();
        let claim = claim(&mut cursor).unwrap();
        assert_eq!(claim.task().spec.shell.as_deref(), Some("something else"), "{replace}");
    }
}

#[test]
fn what_is_no_task_is_left_to_whoever_claims_it() {
    let (_home, pool, ids) = pool_with::<3>();
    let mut cursor = cursor(&pool, "worker-1");
    let _first = claim(&mut cursor).unwrap();
    fs::write(&pending(&pool)[0], "no task").unwrap();
    prefetch(&mut cursor);
    assert_eq!(claim(&mut cursor).unwrap().name().id, ids[2]);
}
