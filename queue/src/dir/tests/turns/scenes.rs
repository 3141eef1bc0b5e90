//! Who meets whom.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shared::outcome::Cause;
use shared::task::TaskName;

use super::schedule::is_unseen;
use super::*;
use crate::dir::batch::roll_forward;
use crate::dir::find::places;
use crate::dir::fixture::ledger;
use crate::dir::operate;
use crate::dir::recover::reconcile::ready;
use crate::dir::submit::bulk::Bulk;
use crate::store::contract::{line, task};

const FAILED: Verdict = Verdict::Failed(Cause::ExitCode);
const PLAIN: &str = r#"{"shell": "true"}"#;

fn as_it_is(_record: Option<Record>) -> Option<Record> {
    None
}

fn two_workers_and_a_canceller(world: &World) -> Vec<Act> {
    let id = world.submit(PLAIN);
    let worker = |worker: &'static str| {
        world.actor(move |world| {
            let ledger = ledger(&world.pool, worker);
            world.work(worker, &ledger, Verdict::Succeeded).unwrap();
        })
    };
    vec![worker("worker-1"), worker("worker-2"), world.actor(move |world| world.cancel(id))]
}

#[test]
fn one_of_two_workers_or_a_canceller_gets_the_task() {
    let explored = play(2, Grain::Changes, &two_workers_and_a_canceller);
    assert!(explored.orders > 100, "{explored:?}");
    let explored = play(1, Grain::Looks, &two_workers_and_a_canceller);
    assert!(explored.orders > 100, "{explored:?}");
}

/// A worker that dies at this change, the brain that settles its affairs, a new worker of the
/// same name, and somebody who cancels.
fn a_death(world: &World, dies_at: u32, cancels: bool) -> Vec<Act> {
    let id = world.submit(PLAIN);
    drop(Lease::try_take(&world.pool, &name("worker-1")).unwrap());
    let mut acts = vec![
        world.actor(move |world| world.live("worker-1", Some(dies_at), FAILED)),
        world.actor(|world| world.watch("worker-1", as_it_is)),
    ];
    acts.push(match cancels {
        true => world.actor(move |world| world.cancel(id)),
        false => world.actor(|world| world.live("worker-1", None, Verdict::Succeeded)),
    });
    acts
}

/// At which changes a worker can die, from its lease to the end of its task. Before one that
/// nobody can see is not other than before the next.
fn deaths() -> Vec<u32> {
    let dies = |dies_at: &u32| {
        let world = World::new();
        world.submit(PLAIN);
        world.live("worker-1", Some(*dies_at), FAILED);
        let died = fault::what_failed();
        fault::plug_in();
        died
    };
    let all = (0..).map_while(|dies_at| dies(&dies_at).map(|what| (dies_at, what)));
    all.filter(|(_dies_at, what)| !is_unseen(what)).map(|(dies_at, _what)| dies_at).collect()
}

#[test]
fn a_worker_that_dies_anywhere_is_settled_once_and_followed_by_the_next() {
    let (mut orders, mut died) = (0, 0);
    for dies_at in deaths() {
        died += 1;
        for cancels in [false, true] {
            orders += play(1, Grain::Changes, &|world| a_death(world, dies_at, cancels)).orders;
        }
    }
    println!("{orders} in all, for {died} deaths");
    assert!(died > 8 && orders > 500, "{orders} for {died}");
}

#[test]
fn two_who_promote_a_worker_and_a_canceller_agree() {
    let scene = |world: &World| {
        let before = world.submit(PLAIN);
        let ledger = ledger(&world.pool, "before");
        world.work("before", &ledger, Verdict::Succeeded).unwrap();
        let after = world.submit(&format!(r#"{{"shell": "true", "after": ["{before}"]}}"#));
        vec![
            world.actor(|world| world.promote("brain")),
            world.actor(|world| {
                world.promote("worker-1");
                let ledger = crate::dir::fixture::ledger(&world.pool, "worker-1");
                world.work("worker-1", &ledger, Verdict::Succeeded).unwrap();
            }),
            world.actor(move |world| world.cancel(after)),
        ]
    };
    let explored = play(2, Grain::Changes, &scene);
    assert!(explored.orders > 100, "{explored:?}");
}

#[test]
fn hold_and_release_beside_a_worker_and_a_promoter_lose_nothing() {
    let scene = |world: &World| {
        let id = world.submit(PLAIN);
        let at = Moment::now().plus_millis(2);
        world.submit(&format!(r#"{{"shell": "true", "at": "{at}"}}"#));
        while Moment::now() <= at {
            std::thread::yield_now();
        }
        vec![
            world.actor(move |world| {
                for command in [operate::hold, operate::release] {
                    let found = places::find(world.pool.layout(), id).unwrap();
                    let _change = found.map(|found| command(&world.pool, &found).unwrap());
                }
            }),
            world.actor(|world| {
                let ledger = crate::dir::fixture::ledger(&world.pool, "worker-1");
                world.work("worker-1", &ledger, FAILED).unwrap();
            }),
            world.actor(|world| world.promote("brain")),
        ]
    };
    let explored = play(2, Grain::Changes, &scene);
    assert!(explored.orders > 100, "{explored:?}");
}

#[test]
fn after_a_power_cut_nobody_claims_what_has_ended() {
    let scene = |world: &World| {
        let over = world.submit(PLAIN);
        world.submit(PLAIN);
        let found = places::find(world.pool.layout(), over).unwrap().unwrap();
        let task = found.read(world.pool.layout()).unwrap().unwrap();
        let line = line(&task, TaskName::first(over), Verdict::Succeeded);
        ledger(&world.pool, "before").append(&line).unwrap();
        world.saw(Seen::Began(found.name));
        world.saw(Seen::Over(found.name));
        std::fs::remove_file(world.pool.layout().reconcile_lock()).unwrap();
        let opener = |worker: &'static str| {
            world.actor(move |world| {
                let pool = ready(world.pool.clone()).unwrap();
                let ledger = crate::dir::fixture::ledger(&pool, worker);
                world.work(worker, &ledger, Verdict::Succeeded).unwrap();
            })
        };
        vec![opener("worker-1"), opener("worker-2")]
    };
    let explored = play(3, Grain::Changes, &scene);
    assert!(explored.orders > 100, "{explored:?}");
}

#[test]
fn a_batch_is_rolled_forward_by_several_while_its_tasks_are_taken() {
    let scene = |world: &World| {
        let tasks = [task(PLAIN)];
        let mut bulk = Bulk::new(&world.pool).unwrap();
        tasks.iter().for_each(|task| bulk.add(task).unwrap());
        // Committed; its submitter dies before anything is in place.
        fault::pull_after(3);
        bulk.commit().unwrap();
        fault::plug_in();
        let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
        world.tasks.lock().unwrap().extend(ids);
        vec![
            world.actor(|world| _ = roll_forward::forward_all(world.pool.layout()).unwrap()),
            world.actor(|world| {
                roll_forward::forward_all(world.pool.layout()).unwrap();
                let ledger = crate::dir::fixture::ledger(&world.pool, "worker-1");
                world.work("worker-1", &ledger, Verdict::Succeeded).unwrap();
            }),
        ]
    };
    let explored = play(2, Grain::Changes, &scene);
    assert!(explored.orders > 100, "{explored:?}");
}

/// The check of the check: a settler that does not look for a recorded end, because it is told
/// that nobody can have written one, must be found out.
#[test]
fn a_settler_that_does_not_look_for_recorded_ends_is_found_out() {
    let forgetful =
        |record: Option<Record>| record.map(|record| Record { writers: Vec::new(), ..record });
    let mut found = 0;
    for dies_at in deaths() {
        let scene = |world: &World| {
            world.submit(PLAIN);
            drop(Lease::try_take(&world.pool, &name("worker-1")).unwrap());
            vec![
                world.actor(move |world| world.live("worker-1", Some(dies_at), FAILED)),
                world.actor(move |world| world.watch("worker-1", forgetful)),
            ]
        };
        let told = catch_unwind(AssertUnwindSafe(|| play(1, Grain::Changes, &scene)));
        found += u32::from(told.is_err());
    }
    assert!(found > 0, "nobody noticed");
}
