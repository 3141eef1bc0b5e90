//! A directory that nobody may list: it ends no look at the others, and what is in it is unknown,
//! which is neither nothing nor gone.

use std::path::PathBuf;

use shared::id::TaskId;
use shared::name::Name;
use shared::time::Moment;

use super::counts::Counter;
use super::{dependencies, load_requests, places};
use crate::dir::Pool;
use crate::dir::claim::cursor::Pass;
use crate::dir::claim::note::Note;
use crate::dir::disk::publish::{self, Moved};
use crate::dir::fault;
use crate::dir::fixture::{ANY, cursor, ledger, pool_at, scratch, submit};
use crate::dir::layout::Shelf;
use crate::dir::lookup;
use crate::dir::operate;
use crate::dir::recover::promote::{Promoter, Promotion};
use crate::dir::recover::{reconcile, strays};
use crate::store::dependency::Dependency;

/// Puts a pending task into a directory, and says which one is closed then, and its state.
type Hide = fn(&Pool, TaskId) -> (PathBuf, &'static str);

fn levels(pool: &Pool, id: TaskId, up: usize) -> PathBuf {
    let path = places::find(pool.layout(), id).unwrap().unwrap().path(pool.layout());
    path.ancestors().nth(up).unwrap().to_owned()
}

fn moved(pool: &Pool, id: TaskId, dir: PathBuf) -> PathBuf {
    let from = levels(pool, id, 0);
    let to = dir.join(from.file_name().unwrap());
    assert_eq!(publish::move_new(&from, &to).unwrap(), Moved::Yes);
    dir
}

const HIDDEN: [Hide; 8] = [
    |pool, id| (levels(pool, id, 1), "pending"),
    |pool, id| (levels(pool, id, 2), "pending"),
    |pool, id| (levels(pool, id, 3), "pending"),
    |pool, id| {
        let worker: Name = "dead".parse().unwrap();
        (moved(pool, id, pool.layout().processing_of(&worker)), "processing")
    },
    |pool, id| (moved(pool, id, pool.layout().delayed().join("1")), "delayed"),
    |pool, id| (shelved(pool, id, Shelf::Waiting), "waiting"),
    |pool, id| (shelved(pool, id, Shelf::Held), "held"),
    |pool, id| (shelved(pool, id, Shelf::Failed), "failed"),
];

fn shelved(pool: &Pool, id: TaskId, shelf: Shelf) -> PathBuf {
    moved(pool, id, pool.layout().shelf(shelf).join(format!("{}.0", id.segment())))
}

/// What each of those does who look at all places.
fn all_look(pool: &Pool, hidden: TaskId, state: &str) {
    let layout = pool.layout();
    let mut counts = Counter::default().take(pool).unwrap();
    let unlisted = counts.unlisted.pop().expect("one is named");
    assert_eq!((unlisted.state.as_str(), &counts.unlisted[..]), (state, &[][..]));
    counts.unlisted.push(unlisted);
    assert_eq!((counts.known(state, 0), counts.known("rejected", 0)), (None, Some(0)));
    strays::put_aside(layout).unwrap();
    load_requests::pending(layout).unwrap();
    assert_eq!(reconcile::reconcile(pool).unwrap().left, 1);
    places::find(layout, hidden).expect_err("it is unknown whether it is there");
    lookup::standing(layout, hidden).unwrap_err();
    lookup::find(layout, &hidden.short()).unwrap_err();
    let states = dependencies::states_of(pool, [hidden].into()).unwrap();
    assert_eq!(states[&hidden], Dependency::Open);
}

#[test]
fn a_directory_that_nobody_may_list_ends_no_look_and_is_not_empty() {
    for hide in HIDDEN {
        let home = scratch();
        let pool = pool_at(&home.path().join("pool"));
        let hidden = submit(&pool, r#"{"shell": "true", "class": "cpu"}"#);
        let (dir, state) = hide(&pool, hidden);
        let other = submit(&pool, r#"{"shell": "true"}"#);
        let due = submit(&pool, r#"{"shell": "true", "priority": 9}"#);
        let delayed = pool.layout().delayed().join("2");
        moved(&pool, due, delayed);
        fault::refuse(Some(dir.clone()));
        all_look(&pool, hidden, state);
        let ledger = ledger(&pool, "worker-1");
        let done = Promoter::new(&pool).step(&ledger, Moment::now()).unwrap();
        assert!(matches!(done[..], [Promotion::Due(name)] if name.id == due), "{dir:?}: {done:?}");
        let (mut cursor, mut told) = (cursor(&pool, "worker-1"), 0);
        let mut claimed = Vec::new();
        for _until_all_are_claimed in 0..4 {
            let mut see = |note| told += u32::from(matches!(note, Note::Unlisted(_)));
            if let Pass::Claimed { claim, .. } = cursor.pass(&ANY, &mut see).unwrap() {
                claimed.push(claim.name().id);
            }
        }
        assert_eq!(claimed, [due, other], "{dir:?}");
        assert_eq!(told, u32::from(state == "pending"), "{dir:?}: told once where it looks");
        fault::refuse(None);
        assert_eq!(places::find(pool.layout(), hidden).unwrap().unwrap().place.state(), state);
        if state == "pending" {
            let pass = cursor.pass(&ANY, &mut |_note| {}).unwrap();
            assert!(matches!(pass, Pass::Claimed { claim, .. } if claim.name().id == hidden));
        }
    }
}

/// It failed, was retried, and is where nobody may look: whoever waits for it goes on waiting.
#[test]
fn what_failed_and_may_have_been_retried_is_open() {
    use crate::dir::fixture::{claim, end};
    use crate::wire::retry::Verdict;
    use shared::outcome::Cause;

    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let id = submit(&pool, r#"{"shell": "true"}"#);
    let ledger = ledger(&pool, "worker-1");
    let failed = Verdict::Refused(Cause::ExitCode);
    end(*claim(&mut cursor(&pool, "worker-1")).unwrap(), &ledger, failed);
    let found = places::find(pool.layout(), id).unwrap().unwrap();
    operate::retry(&pool, &found).unwrap();
    fault::refuse(Some(levels(&pool, id, 1)));
    let states = dependencies::states_of(&pool, [id].into()).unwrap();
    assert_eq!(states[&id], Dependency::Open);
    lookup::standing(pool.layout(), id).unwrap_err();
}
