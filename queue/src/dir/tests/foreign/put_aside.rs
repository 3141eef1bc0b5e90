//! Putting aside what is no task, cut off before every single change to the disk: nothing is
//! thrown away, nothing is there twice, and the tasks beside it run.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use shared::id::TaskId;
use shared::task::TaskName;

use super::super::plug::{self, Acted, Notes, Scene, play_where};
use crate::Error;
use crate::dir::Pool;
use crate::dir::batch::roll_forward;
use crate::dir::claim::cursor::Pass;
use crate::dir::claim::note::Note;
use crate::dir::fixture::{cursor, ledger, submit};
use crate::dir::layout::Layout;
use crate::dir::recover::promote::{self, Promotion};
use crate::dir::recover::strays;
use crate::store::contract::line;
use crate::wire::retry::Verdict;

const PLAIN: &str = r#"{"shell": "true"}"#;
const NONSENSE: &[u8] = b"{ \"id\": nonsense";

/// Where the nonsense is put.
type Place = fn(&Pool) -> PathBuf;

fn beside(pool: &Pool, name: &str) -> PathBuf {
    let dir = |found: &crate::dir::disk::place::Place| found.dir(pool.layout());
    let all = crate::dir::fixture::all_places(pool);
    let pending = all.iter().find(|place| place.state() == "pending").expect("one is pending");
    dir(pending).join(name)
}

/// Where it was met, and where it was put: both are to be found, and nothing else of it.
fn everywhere(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everywhere(&path));
        } else if fs::read(&path).unwrap() == NONSENSE {
            found.push(path);
        }
    }
    found
}

/// What a worker, a promoter and whoever tidies up do when they meet it. Returns why something was
/// put aside, as far as anybody was told.
fn look_everywhere(pool: &Pool, worker: &str) -> Result<Vec<String>, Error> {
    let ledger = ledger(pool, worker);
    let mut cursor = cursor(pool, worker);
    let mut told = Vec::new();
    let mut see = |note| {
        if let Note::Rejected(_path, why) = note {
            told.push(why);
        }
    };
    while let Pass::Claimed { claim, .. } = cursor.pass(&crate::dir::fixture::ANY, &mut see)? {
        let line = line(claim.task(), claim.name(), Verdict::Succeeded);
        claim.end(&ledger, &line).map_err(|not| not.error)?;
    }
    let now = shared::time::Moment::now();
    for promotion in promote::Promoter::new(pool).step(&ledger, now)? {
        match promotion {
            Promotion::Failed(_name, err) => return Err(err),
            Promotion::Rejected(_path, why) => told.push(why),
            Promotion::Due(_)
            | Promotion::Ready { .. }
            | Promotion::Hopeless { .. }
            | Promotion::Damaged(_) => {}
        }
    }
    told.extend(strays::put_aside(pool.layout())?.into_iter().map(|stray| stray.reason));
    roll_forward::forward_all(pool.layout())?;
    Ok(told)
}

/// It is met again, by those who live on, and all is as it should be.
fn holds(pool: &Pool, notes: &Notes) {
    look_everywhere(pool, "again").unwrap();
    plug::what_must_hold_but_for_copies(pool, notes);
    assert!(plug::everything(pool).is_empty(), "the good one has run");
}

/// The file itself, in `rejected/`, and where the reason for it would be.
fn put_aside(layout: &Layout) -> (PathBuf, PathBuf) {
    let found = everywhere(layout.root());
    let [only] = &found[..] else { panic!("not once: {found:?}") };
    assert_eq!(only.parent(), Some(&*layout.rejected()));
    let name = only.file_name().unwrap().to_str().unwrap();
    (only.clone(), only.with_file_name(format!("{name}.reason")))
}

#[test]
fn what_is_no_task_is_kept_once_whatever_happens_while_it_is_put_aside() {
    let places: [Place; 6] = [
        |pool| pool.layout().publishing().join("notes.txt"),
        |pool| beside(pool, &TaskName::first(TaskId::new()).file_name()),
        |pool| beside(pool, "notes.txt"),
        |pool| pool.layout().pending().join("notes.txt"),
        |pool| pool.layout().delayed().join("1").join("notes.txt"),
        |pool| {
            let name = TaskName::first(TaskId::new()).file_name();
            pool.layout().delayed().join("1").join(name)
        },
    ];
    for (number, place) in places.into_iter().enumerate() {
        let told = RefCell::new(Vec::new());
        play_where(
            &Scene {
                prepare: &|pool, notes| {
                    notes.acknowledged.push(submit(pool, PLAIN));
                    let path = place(pool);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, NONSENSE).unwrap();
                },
                act: &|pool, _ledger, (), _notes| {
                    told.replace(Vec::new());
                    let looked = look_everywhere(pool, "worker-1");
                    told.replace(match &looked {
                        Ok(told) => told.clone(),
                        Err(err) => vec![err.to_string()],
                    });
                    looked.map(drop)
                },
                check: &|pool, _notes, acted| {
                    let (_file, reason) = put_aside(pool.layout());
                    // On a full disk there may be no room for it; then it was told.
                    let known = fs::read_to_string(reason).is_ok() || !told.borrow().is_empty();
                    assert!(known || number == 0 || acted == Acted::Died, "no reason, {acted:?}");
                },
            },
            holds,
        );
    }
}

/// What is there already under that name stays what it is.
#[test]
fn nothing_that_was_put_aside_is_lost_to_the_next_one_of_its_name() {
    play_where(
        &Scene {
            prepare: &|pool, notes| {
                notes.acknowledged.push(submit(pool, PLAIN));
                let rejected = pool.layout().rejected();
                fs::create_dir_all(&rejected).unwrap();
                fs::write(rejected.join("notes.txt"), "the first").unwrap();
                fs::write(rejected.join("notes.txt.1.reason"), "of one that was taken away")
                    .unwrap();
                fs::write(beside(pool, "notes.txt"), NONSENSE).unwrap();
            },
            act: &|pool, _ledger, (), _notes| look_everywhere(pool, "worker-1").map(drop),
            check: &|pool, _notes, _acted| {
                let (file, _reason) = put_aside(pool.layout());
                assert_eq!(file, pool.layout().rejected().join("notes.txt.2"));
                let first = pool.layout().rejected().join("notes.txt");
                assert_eq!(fs::read_to_string(first).unwrap(), "the first");
            },
        },
        holds,
    );
}
