//! Many at once: workers, submitters, promoters and people in one pool.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use shared::id::TaskId;
use shared::outcome::{Cause, Outcome};
use shared::task::Task;
use shared::time::Moment;

use super::plug::{Notes, everything, lines, what_must_hold};
use crate::dir::Pool;
use crate::dir::batch::roll_forward;
use crate::dir::claim::one::Claim;
use crate::dir::find::places;
use crate::dir::fixture::{claim, cursor, end, end_all, ledger, pool_at, scratch};
use crate::dir::operate::{self, Change, Ender, Reason};
use crate::dir::recover::promote::Promoter;
use crate::dir::submit::bulk::Bulk;
use crate::dir::submit::one::Submitter;
use crate::store::contract::{line, task};
use crate::wire::retry::Verdict;

const WORKERS: usize = 8;

/// Everything that a worker takes, one by one, until there is nothing. Ends each with success.
fn work(pool: &Pool, worker: usize, go_on: &AtomicBool) -> Vec<TaskId> {
    let worker = format!("worker-{worker}");
    let (mut cursor, ledger) = (cursor(pool, &worker), ledger(pool, &worker));
    let mut mine = Vec::new();
    loop {
        // Asked before the look: what was there when it was told to stop is still taken.
        let last = !go_on.load(Ordering::SeqCst);
        while let Some(claim) = claim(&mut cursor) {
            mine.push(claim.task().id);
            end(*claim, &ledger, Verdict::Succeeded);
        }
        if last {
            return mine;
        }
        thread::yield_now();
    }
}

fn submit_all(pool: &Pool, tasks: &[Task]) {
    let mut bulk = Bulk::new(pool).unwrap();
    tasks.iter().for_each(|task| bulk.add(task).unwrap());
    bulk.commit().unwrap();
}

#[test]
fn eight_workers_take_two_thousand_tasks_once_each_and_in_order() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let lanes = [r#""class": "cpu""#, r#""class": "script""#];
    let tasks: Vec<_> =
        (0..2000).map(|n| task(&format!(r#"{{"shell": "true", {}}}"#, lanes[n % 2]))).collect();
    submit_all(&pool, &tasks);
    let stop = AtomicBool::new(false);
    let taken: Vec<Vec<TaskId>> = thread::scope(|scope| {
        let (pool, stop) = (&pool, &stop);
        let threads: Vec<_> =
            (0..WORKERS).map(|worker| scope.spawn(move || work(pool, worker, stop))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let unique: HashSet<_> = taken.iter().flatten().collect();
    assert_eq!((unique.len(), taken.iter().map(Vec::len).sum::<usize>()), (2000, 2000));
    assert_eq!(everything(&pool), []);
    let by_end = lines(&pool);
    assert_eq!(by_end.len(), 2000);
    // Per worker and lane the order is that of the tasks, but for what a lost race made it pass
    // over: at most so many names further on.
    let place: BTreeMap<TaskId, usize> = tasks.iter().zip(0..).map(|(t, n)| (t.id, n)).collect();
    for mine in &taken {
        for lane in 0..2 {
            let order: Vec<_> = mine.iter().map(|id| place[id]).filter(|n| n % 2 == lane).collect();
            let mut furthest = 0;
            for n in order {
                assert!(n + 2 * 32 * WORKERS >= furthest, "{n} came after {furthest}");
                furthest = furthest.max(n);
            }
        }
    }
}

#[test]
fn threads_that_record_their_ends_in_groups_of_one_ledger_lose_and_double_none() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let tasks: Vec<_> = (0..600).map(|_| task(r#"{"shell": "true"}"#)).collect();
    submit_all(&pool, &tasks);
    let (pool, ledger) = (&pool, ledger(&pool, "worker"));
    let in_groups = |worker: String| {
        let mut cursor = cursor(pool, &worker);
        for size in (1..=7).cycle() {
            let group: Vec<_> = (0..size).map_while(|_| claim(&mut cursor)).collect();
            if group.is_empty() {
                return;
            }
            let ended = |claim: Box<Claim>| {
                let line = line(claim.task(), claim.name(), Verdict::Succeeded);
                (claim, line)
            };
            let results = end_all(&ledger, group.into_iter().map(ended).collect());
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
    };
    thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || in_groups(format!("worker-{number}")));
        }
    });
    assert_eq!(everything(pool), []);
    let ended: Vec<TaskId> = lines(pool).iter().map(|brief| brief.id).collect();
    assert_eq!(ended.len(), 600);
    assert_eq!(ended.iter().collect::<HashSet<_>>(), tasks.iter().map(|task| &task.id).collect());
}

#[test]
fn two_claimers_of_one_name_never_both_have_a_task() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let tasks: Vec<_> = (0..500).map(|_| task(r#"{"shell": "true"}"#)).collect();
    submit_all(&pool, &tasks);
    let taken: Vec<TaskId> = thread::scope(|scope| {
        let run = || {
            let mut cursor = cursor(&pool, "worker-1");
            std::iter::from_fn(|| claim(&mut cursor).map(|claim| claim.task().id)).collect()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| -> Vec<TaskId> { thread.join().unwrap() }).collect()
    });
    assert_eq!(taken.len(), 500);
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 500);
}

#[test]
fn workers_beside_submitters_promoters_and_cancellers_lose_nothing() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let go_on = AtomicBool::new(true);
    let batches: Vec<Vec<Task>> = (0..10).map(|_| mixed(40)).collect();
    let singles: Vec<Task> = (0..100).map(|_| task(r#"{"shell": "true"}"#)).collect();
    let all: Vec<TaskId> = batches.iter().flatten().chain(&singles).map(|task| task.id).collect();
    let (pool, go) = (&pool, &go_on);
    let (taken, cancelled) = thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|n| scope.spawn(move || work(pool, n, go))).collect();
        let helpers = [
            scope.spawn(move || promote_until(pool, "promoter-1", go)),
            scope.spawn(move || promote_until(pool, "promoter-2", go)),
            scope.spawn(move || {
                while go.load(Ordering::SeqCst) {
                    roll_forward::forward_all(pool.layout()).unwrap();
                }
            }),
        ];
        let bulk = scope.spawn(|| batches.iter().for_each(|batch| submit_all(pool, batch)));
        let single = scope.spawn(|| {
            let mut submitter = Submitter::new(pool).unwrap();
            singles.iter().for_each(|task| submitter.submit(task).unwrap());
        });
        bulk.join().unwrap();
        single.join().unwrap();
        let cancelled: HashSet<_> =
            all.iter().step_by(7).filter(|id| cancel(pool, **id)).copied().collect();
        let quiet = || everything(pool).is_empty() && lines(pool).len() == all.len();
        while !quiet() {
            thread::yield_now();
        }
        go.store(false, Ordering::SeqCst);
        helpers.into_iter().for_each(|helper| helper.join().unwrap());
        let taken = workers.into_iter().flat_map(|thread| thread.join().unwrap());
        (taken.collect::<Vec<_>>(), cancelled)
    });
    what_must_hold(pool, &Notes { acknowledged: all.clone(), together: Vec::new() });
    let run: HashSet<_> = taken.iter().copied().collect();
    assert_eq!(run.len(), taken.len());
    let ended = lines(pool);
    assert_eq!(ended.len(), all.len(), "one end each");
    for brief in ended {
        let expected =
            if run.contains(&brief.id) { Outcome::Succeeded } else { Outcome::Cancelled };
        assert_eq!(brief.outcome, expected);
        assert!(!(cancelled.contains(&brief.id) && run.contains(&brief.id)));
        assert!(
            run.contains(&brief.id)
                || brief.cause != Some(Cause::Cancelled)
                || cancelled.contains(&brief.id)
        );
    }
}

/// Pending ones, delayed ones that are due, and ones that wait for another.
fn mixed(count: usize) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    for n in 0..count {
        let at = Moment::now().plus_millis(200);
        let spec = match (n % 4, tasks.last()) {
            (1, Some(before)) => format!(r#"{{"shell": "true", "after": ["{}"]}}"#, before.id),
            (2, _) => format!(r#"{{"shell": "true", "at": "{at}"}}"#),
            _ => r#"{"shell": "true", "class": "cpu"}"#.to_owned(),
        };
        tasks.push(task(&spec));
    }
    tasks
}

fn promote_until(pool: &Pool, name: &str, go: &AtomicBool) {
    let ledger = ledger(pool, name);
    let mut promoter = Promoter::new(pool);
    while go.load(Ordering::SeqCst) {
        for promotion in promoter.step(&ledger, Moment::now()).unwrap() {
            let fine = !matches!(promotion, crate::dir::recover::promote::Promotion::Failed(..));
            assert!(fine, "{promotion:?}");
        }
    }
}

/// Whether it was cancelled; else it was running or over.
fn cancel(pool: &Pool, id: TaskId) -> bool {
    let ledger = ledger(pool, "canceller");
    loop {
        let Some(found) = places::find(pool.layout(), id).unwrap() else { return false };
        let ender = Ender::wait(pool, &ledger).unwrap();
        match ender.end(&found, Reason::Cancel).unwrap() {
            Change::Done => return true,
            Change::Moved => {}
            Change::Running { .. } | Change::NotThere { .. } => return false,
        }
    }
}

#[test]
fn a_task_that_is_held_and_released_all_the_time_is_found_and_run_once() {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    let id = crate::dir::fixture::submit(&pool, r#"{"shell": "true"}"#);
    let pool = &pool;
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..200 {
                for command in [operate::hold, operate::release] {
                    let found = places::find(pool.layout(), id).unwrap().expect("it is there");
                    assert_eq!(command(pool, &found).unwrap(), Change::Done);
                }
            }
        });
        for _ in 0..200 {
            assert!(places::find(pool.layout(), id).unwrap().is_some(), "missed in motion");
        }
    });
    let mut cursor = cursor(pool, "worker-1");
    assert_eq!(claim(&mut cursor).map(|claim| claim.task().id), Some(id));
    assert!(claim(&mut cursor).is_none());
}
