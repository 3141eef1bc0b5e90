//! A task whose file cannot be understood any more, wherever it is met and whatever dies meanwhile:
//! it ends, with a line that says so, whoever waits for it hears of it, and its file is kept.

use std::fs;
use std::path::{Path, PathBuf};

use shared::id::TaskId;
use shared::outcome::{Cause, Next, Outcome};
use shared::time::Moment;

use super::super::plug::{
    Notes, Scene, lease_of, play_where, put_right, what_must_hold_but_for_copies,
};
use crate::Error;
use crate::dir::Pool;
use crate::dir::claim::cursor::Pass;
use crate::dir::disk::publish::{self, Moved};
use crate::dir::find::places;
use crate::dir::fixture::{ANY, claim, cursor, ledger, pool_at, scratch, submit};
use crate::dir::layout::Layout;
use crate::dir::ledger::search::history_of;
use crate::dir::lookup::{self, Standing};
use crate::dir::operate::{self, Change, Ender, Reason};
use crate::dir::recover::promote::{Promoter, Promotion};
use crate::store::contract::line;
use crate::wire::ledger_line::Line;
use crate::wire::retry::Verdict;

const PLAIN: &str = r#"{"shell": "true"}"#;
const NONSENSE: &[u8] = b"{ \"id\": nonsense";

/// Puts the file of a pending task where it is to be met.
type Place = fn(&Pool, TaskId) -> PathBuf;

fn pending(pool: &Pool, id: TaskId) -> PathBuf {
    places::find(pool.layout(), id).unwrap().unwrap().path(pool.layout())
}

fn moved(from: &Path, dir: &Path) -> PathBuf {
    let to = dir.join(from.file_name().unwrap());
    assert_eq!(publish::move_new(from, &to).unwrap(), Moved::Yes);
    to
}

const PLACES: [Place; 5] = [
    pending,
    |pool, id| moved(&pending(pool, id), &pool.layout().delayed().join("1")),
    |pool, id| {
        let waiting = pool.layout().shelf(crate::dir::layout::Shelf::Waiting);
        moved(&pending(pool, id), &waiting.join(format!("{}.0", id.segment())))
    },
    // Its worker has died with it.
    |pool, id| {
        let _dies = lease_of(pool, "worker-1", &ledger(pool, "worker-1"));
        let claim = claim(&mut cursor(pool, "worker-1")).unwrap();
        assert_eq!(claim.name().id, id);
        pool.layout().processing_of(claim.worker()).join(claim.name().file_name())
    },
    // Somebody cancels it, and has died.
    |pool, id| moved(&pending(pool, id), &pool.layout().ending().join("cancel")),
];

/// What workers, promoters and whoever recovers do, until nothing more happens.
fn all_look(pool: &Pool) -> Result<(), Error> {
    put_right(pool)?;
    let ledger = ledger(pool, "worker-2");
    let mut cursor = cursor(pool, "worker-2");
    while let Pass::Claimed { claim, .. } = cursor.pass(&ANY, &mut |_note| {})? {
        let line = line(claim.task(), claim.name(), Verdict::Succeeded);
        claim.end(&ledger, &line).map_err(|not| not.error)?;
    }
    let mut promoter = Promoter::new(pool);
    for _until_nothing_moves in 0..3 {
        for promotion in promoter.step(&ledger, Moment::now())? {
            if let Promotion::Failed(_name, err) = promotion {
                return Err(err);
            }
        }
    }
    Ok(())
}

fn end_of(layout: &Layout, id: TaskId) -> Line {
    match lookup::standing(layout, id).unwrap() {
        Some(Standing::Ended(line)) => *line,
        other => panic!("{id} has not ended: {other:?}"),
    }
}

/// It has ended as what it is, and so has what waited for it.
fn holds(pool: &Pool, notes: &Notes) {
    all_look(pool).unwrap();
    what_must_hold_but_for_copies(pool, notes);
    let (bad, dependent) = (notes.acknowledged[0], notes.acknowledged[1]);
    let line = end_of(pool.layout(), bad);
    assert_eq!((line.outcome, line.cause), (Outcome::Failed, Some(Cause::Rejected)));
    assert_eq!((line.next, line.attempt, line.next_name.attempt), (Next::Rejected, 1, 2));
    assert!(line.error_message.unwrap().contains("not JSON"));
    let kept = pool.layout().rejected().join(line.next_name.file_name());
    assert_eq!(fs::read(kept).unwrap(), NONSENSE);
    assert_eq!(end_of(pool.layout(), dependent).cause, Some(Cause::DependencyFailed));
}

#[test]
fn a_task_that_cannot_be_read_has_an_end_whatever_dies_on_the_way() {
    for place in PLACES {
        play_where(
            &Scene {
                prepare: &|pool, notes| {
                    let bad = submit(pool, PLAIN);
                    fs::write(place(pool, bad), NONSENSE).unwrap();
                    let dependent = format!(r#"{{"shell": "true", "after": ["{bad}"]}}"#);
                    notes.acknowledged.extend([bad, submit(pool, &dependent)]);
                },
                act: &|pool, _ledger, (), _notes| all_look(pool),
                check: &|_pool, _notes, _acted| {},
            },
            holds,
        );
    }
}

/// Mended and put back it is a task again, whose next attempt ends like any other.
#[test]
fn what_somebody_mends_and_puts_back_runs() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let id = submit(&pool, PLAIN);
    let path = pending(&pool, id);
    let good = fs::read(&path).unwrap();
    fs::write(&path, NONSENSE).unwrap();
    all_look(&pool).unwrap();
    let name = end_of(pool.layout(), id).next_name.file_name();
    operate::Mover::new(&pool).take_back(&end_of(pool.layout(), id)).unwrap_err();
    fs::write(pool.layout().rejected().join(&name), good).unwrap();
    assert_eq!(
        operate::Mover::new(&pool).take_back(&end_of(pool.layout(), id)).unwrap(),
        Change::Done
    );
    assert!(fs::read_dir(pool.layout().rejected()).unwrap().next().is_none(), "nor its reason");
    assert_eq!(lookup::standing(pool.layout(), id).unwrap().unwrap().state(), "pending");
    all_look(&pool).unwrap();
    let ends = history_of(pool.layout(), id).unwrap().lines;
    let ends: Vec<_> = ends.iter().map(|line| (line.attempt, line.outcome)).collect();
    assert_eq!(ends, [(1, Outcome::Failed), (2, Outcome::Succeeded)]);
}

/// An attempt that has ended is not ended again because its file is spoiled since.
#[test]
fn an_end_that_was_recorded_stays_the_end_of_a_file_that_is_spoiled_since() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let id = submit(&pool, PLAIN);
    let writer = ledger(&pool, "worker-1");
    let lease = lease_of(&pool, "worker-1", &writer);
    let claim = claim(&mut cursor(&pool, "worker-1")).unwrap();
    writer.append(&line(claim.task(), claim.name(), Verdict::Succeeded)).unwrap();
    let path = pool.layout().processing_of(claim.worker()).join(claim.name().file_name());
    fs::write(path, NONSENSE).unwrap();
    drop(lease);
    put_right(&pool).unwrap();
    assert_eq!(end_of(pool.layout(), id).outcome, Outcome::Succeeded);
    assert_eq!(history_of(pool.layout(), id).unwrap().lines.len(), 1);
}

/// Who cancels what nobody can read is not told that it is still there.
#[test]
fn a_cancel_ends_what_cannot_be_read() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let id = submit(&pool, PLAIN);
    fs::write(pending(&pool, id), NONSENSE).unwrap();
    let found = places::find(pool.layout(), id).unwrap().unwrap();
    let ledger = ledger(&pool, "queue");
    Ender::wait(&pool, &ledger).unwrap().end(&found, Reason::Cancel).unwrap();
    assert_eq!(end_of(pool.layout(), id).cause, Some(Cause::Rejected));
}
