//! Commands about many tasks cost as many listings, readings of history and flushes as those about
//! a few, and one that died in the middle is gone on with.

use shared::id::TaskId;
use shared::outcome::Outcome;
use shared::task::Task;
use shared::time::Moment;

use crate::dir::Pool;
use crate::dir::disk::place::Found;
use crate::dir::fault::{self, Done, count_looks};
use crate::dir::find::places;
use crate::dir::fixture::{ledger, pool_at, scratch, state};
use crate::dir::ledger::search;
use crate::dir::lookup::{self, Miss, Named};
use crate::dir::operate::{Change, Ender, Mover, Reason, ToEnd, finish_begun};
use crate::dir::recover::promote::{Promoter, Promotion};
use crate::dir::submit::bulk::Bulk;
use crate::store::contract::task;

/// A pool with so many tasks, submitted together.
fn pool_of(count: usize) -> (tempfile::TempDir, Pool, Vec<TaskId>) {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let tasks: Vec<Task> = (0..count).map(|_| task(r#"{"shell": "true"}"#)).collect();
    let mut bulk = Bulk::new(&pool).unwrap();
    tasks.iter().for_each(|task| bulk.add(task).unwrap());
    bulk.commit().unwrap();
    let ids = tasks.iter().map(|task| task.id).collect();
    (home, pool, ids)
}

/// How often `act` flushes something.
fn flushes(act: impl FnOnce()) -> usize {
    fault::record();
    act();
    let flushed = |done: &&Done| {
        matches!(done, Done::FlushedFile(_) | Done::FlushedDir(_) | Done::FlushedAll)
    };
    fault::recorded().iter().filter(flushed).count()
}

fn all(pool: &Pool, ids: &[TaskId]) -> Vec<Found> {
    let found = places::find_all(pool.layout(), &ids.iter().copied().collect()).unwrap();
    ids.iter().filter_map(|id| found.get(id).cloned()).collect()
}

fn cancel(pool: &Pool, found: &[Found]) -> Vec<Change> {
    let ledger = ledger(pool, "queue");
    let ender = Ender::wait(pool, &ledger).unwrap();
    let tasks = found.iter().map(|found| ToEnd { found, reason: Reason::Cancel });
    let changes = ender.end_group(&tasks.collect::<Vec<_>>(), &mut |_ended| {}).unwrap();
    changes.into_iter().map(Result::unwrap).collect()
}

/// Names all of them, by whole ids and by their ends; then cancels them, and names them again.
fn cost(count: usize) -> (u32, usize) {
    let (_home, pool, ids) = pool_of(count);
    let words: Vec<String> =
        ids.iter().map(ToString::to_string).flat_map(|id| [id[20..].to_owned(), id]).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let name_all = || {
        let named = lookup::find_all_named(pool.layout(), &words).unwrap();
        for (id, named) in ids.iter().zip(named.chunks(2)) {
            assert_eq!(named, [Ok(Named::Task(*id)), Ok(Named::Task(*id))]);
        }
    };
    let mut looks = count_looks(name_all);
    let found = all(&pool, &ids);
    let flushes = flushes(|| assert_eq!(cancel(&pool, &found), vec![Change::Done; count]));
    looks += count_looks(name_all);
    let last = search::last_of(pool.layout(), &ids.iter().copied().collect()).unwrap().last;
    assert!(last.len() == count && last.values().all(|last| last.outcome == Outcome::Cancelled));
    (looks, flushes)
}

#[test]
fn many_tasks_are_named_and_cancelled_with_as_many_looks_and_flushes_as_a_few() {
    assert_eq!(cost(300), cost(3));
}

#[test]
fn many_cancels_that_died_half_done_are_finished_with_one_reading_of_history() {
    let finish = |count: usize| {
        let (_home, pool, ids) = pool_of(count);
        let found = all(&pool, &ids);
        let recorded = count / 2;
        // The lines of the first half, and of the others only the move.
        cancel(&pool, &found[..recorded]);
        let ending = pool.layout().ending_task("cancel", found[0].name);
        crate::dir::disk::publish::make_dirs(ending.parent().unwrap()).unwrap();
        for (index, found) in found.iter().enumerate() {
            let path = pool.layout().ending_task("cancel", found.name);
            if index < recorded {
                let last = search::line_of(pool.layout(), found.name.id, 1, None).unwrap();
                std::fs::write(path, last.unwrap().task.to_bytes()).unwrap();
            } else {
                crate::dir::disk::publish::move_new(&found.path(pool.layout()), &path).unwrap();
            }
        }
        let ledger = ledger(&pool, "brain");
        let looks = count_looks(|| {
            assert_eq!(finish_begun(&pool, &ledger).unwrap() as usize, count);
        });
        for id in &ids {
            assert_eq!(state(&pool, *id), None);
            assert_eq!(search::lines_of(pool.layout(), *id).unwrap().len(), 1);
        }
        looks
    };
    assert_eq!(finish(60), finish(4));
}

#[test]
fn many_that_wait_for_what_failed_are_ended_with_as_many_flushes_as_a_few() {
    let cost = |count: usize| {
        let (_home, pool, ids) = pool_of(1);
        cancel(&pool, &all(&pool, &ids));
        let spec = format!(r#"{{"shell": "true", "after": ["{}"]}}"#, ids[0]);
        let mut bulk = Bulk::new(&pool).unwrap();
        (0..count).for_each(|_| bulk.add(&task(&spec)).unwrap());
        bulk.commit().unwrap();
        let ledger = ledger(&pool, "brain");
        flushes(|| {
            let done = Promoter::new(&pool).step(&ledger, Moment::now()).unwrap();
            let hopeless = done.iter().filter(|done| matches!(done, Promotion::Hopeless { .. }));
            assert_eq!(hopeless.count(), count);
        })
    };
    assert_eq!(cost(60), cost(3));
}

#[test]
fn many_are_held_and_released_and_who_was_stopped_in_the_middle_goes_on() {
    let (_home, pool, ids) = pool_of(40);
    let found = all(&pool, &ids);
    let mut mover = Mover::new(&pool);
    for found in &found[..25] {
        assert_eq!(mover.hold(found).unwrap(), Change::Done);
    }
    drop(mover);
    // The same command again.
    let mut mover = Mover::new(&pool);
    let again = all(&pool, &ids).iter().map(|found| mover.hold(found).unwrap()).collect::<Vec<_>>();
    assert_eq!(again[..25], vec![Change::NotThere { state: "held" }; 25]);
    assert_eq!(again[25..], vec![Change::Done; 15]);
    for found in all(&pool, &ids) {
        assert_eq!(mover.release(&found).unwrap(), Change::Done);
    }
    assert!(ids.iter().all(|id| state(&pool, *id).unwrap().0 == "pending"));
}

#[test]
fn each_text_that_names_nothing_or_several_says_so_beside_those_that_name_one() {
    let (_home, pool, ids) = pool_of(2);
    let (whole, common) = (ids[0].to_string(), ids[0].to_string()[..8].to_owned());
    let nobody = TaskId::new().to_string();
    let texts = [common.as_str(), &whole, "night", &nobody, &whole];
    let named = lookup::find_all_named(pool.layout(), &texts).unwrap();
    assert!(matches!(&named[0], Err(Miss::Ambiguous(text, _)) if *text == common), "{named:?}");
    assert_eq!((&named[1], &named[4]), (&Ok(Named::Task(ids[0])), &Ok(Named::Task(ids[0]))));
    assert_eq!(named[2], Err(Miss::NoId("night".to_owned())));
    assert_eq!(named[3], Err(Miss::Unknown(nobody)));
}
