//! What a dead worker left and nobody can be sure of: none found is not none left. No attempt runs
//! beside an earlier one, and the pool goes on by itself as soon as that is over.

use queue::dir::presence::lease::this_process;
use queue::wire::lease_record::Process;
use shared::id::TaskId;
use tests::Pool;

use super::death::cpu_worker;
use super::dying::{Dying, Rescuer};
use crate::kit::*;

/// Until the brain, or the worker that has ended, has said why the task stays where it is.
fn until_kept(pool: &Pool, id: TaskId) {
    pool.until_true("somebody says why it waits", || {
        let answer = pool.queue(&["why", &id.to_string(), "--json"]);
        answer.stdout.contains("job.may_run")
    });
}

#[test]
fn while_its_run_log_is_locked_no_other_attempt_begins() {
    for rescuer in Rescuer::BOTH {
        let pool = quick_pool("");
        let id = submit(&pool, job(&["mark=runs"]));
        let dying = Dying::claims(&pool);
        let held = dying.locks_log();
        dying.dies();
        let mut rescue = rescuer.start(&pool);
        if let Rescuer::SameName = rescuer {
            let ran = rescue.remove(0).end().code(75);
            assert!(ran.stderr.contains("its run log is still locked"), "{ran}");
        }
        until_kept(&pool, id);
        let shown = pool.queue(&["why", &id.to_string()]).code(5);
        assert!(
            shown.stdout.contains(&format!("queue settle {} --abandon", id.short())),
            "{shown}"
        );
        assert_eq!(place(&pool, id), "processing a1f0d0", "{rescuer:?}");
        assert_eq!(starts(&pool, "runs", id), Vec::<String>::new(), "{rescuer:?}");
        drop(held);
        if let Rescuer::SameName = rescuer {
            rescue = rescuer.start(&pool);
        }
        until_succeeded(&pool, id);
        assert_eq!(starts(&pool, "runs", id), ["2"], "{rescuer:?}");
        drop(rescue);
    }
}

/// As with a brain in a container: the process numbers in the lease are not its own.
#[test]
fn what_ran_among_other_process_numbers_is_left_alone_and_waited_for() {
    let pool = quick_pool("");
    let id = submit(&pool, job(&["mark=runs"]));
    let there = Process { pid_namespace: Some(1), host: "any".into(), ..this_process() };
    let dying = Dying::claims_as(&pool, there);
    let held = dying.locks_log();
    let mut alike = dying.spawns(&pool, &["hang"]);
    dying.dies();
    let _rescue = Rescuer::Brain.start(&pool);
    until_kept(&pool, id);
    drop(held);
    // Its log is free, but what carries its mark still runs: its output may go elsewhere.
    let reason = || pool.queue(&["why", &id.to_string(), "--json"]).json()["reasons"][0].clone();
    pool.until_true("the process to be named", || reason()["evidence"]["is"] == "suspected");
    assert_eq!(reason()["evidence"]["processes"][0]["pid"], alike.pid());
    assert_eq!(place(&pool, id), "processing a1f0d0");
    assert!(alike.is_running(), "it is left alone");
    drop(alike.kill9());
    until_succeeded(&pool, id);
    assert_eq!(starts(&pool, "runs", id), ["2"]);
}

/// What tells is the lock; where there is none to ask, a person decides.
#[test]
fn without_a_run_log_a_person_may_say_that_it_is_over() {
    let pool = quick_pool("");
    let id = submit(&pool, job(&["mark=runs"]));
    let there = Process { pid_namespace: Some(1), ..this_process() };
    Dying::claims_as(&pool, there).dies();
    let _rescue = Rescuer::Brain.start(&pool);
    until_kept(&pool, id);
    let id_text = id.to_string();
    let ran = pool.queue(&["settle", &id_text]).code(5);
    assert!(
        ran.stdout.contains("not put back: its worker had process numbers of its own"),
        "{ran}"
    );
    let ran = pool.queue(&["settle", &id_text, "--abandon"]).success();
    assert!(ran.stdout.contains("put back; attempt 2 comes next"), "{ran}");
    until_succeeded(&pool, id);
    let said = history(&pool, id)[0]["error_message"].to_string();
    assert!(said.contains("says that its job is over, though its worker had"), "{said}");
    let ran = pool.queue(&["settle", &id_text]).success();
    assert!(ran.stdout.contains("it is over: no dead worker has it"), "{ran}");
}

/// A settler that cannot finish lets go, so the worker of that name comes back.
#[test]
fn the_worker_itself_comes_back_and_goes_on_where_the_brain_cannot() {
    let pool = quick_pool("");
    let id = submit(&pool, job(&["mark=runs"]));
    let there = Process { pid_namespace: Some(1), ..this_process() };
    let dying = Dying::claims_as(&pool, there);
    let held = dying.locks_log();
    dying.dies();
    let _brain = pool.brain(&["--no-spawn"]);
    until_kept(&pool, id);
    drop(held);
    let _worker = cpu_worker(&pool, "dead");
    until_succeeded(&pool, id);
    assert_eq!(starts(&pool, "runs", id), ["2"]);
}
