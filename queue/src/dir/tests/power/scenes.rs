//! The scenes: every way in which a task moves, each with the power cut at every moment.

use shared::id::TaskId;
use shared::outcome::{Cause, Next};
use shared::task::Task;
use shared::time::Moment;

use super::{Promise, Scene, Stage, play};
use crate::dir::claim::one::Claim;
use crate::dir::disk::place::Found;
use crate::dir::find::places;
use crate::dir::fixture::{claim, cursor, end_all, ledger};
use crate::dir::ledger::append::Ledger;
use crate::dir::operate::{self, Change, Ender, Reason, ToEnd};
use crate::dir::recover::promote::Promoter;
use crate::dir::signal::control::{self, ControlVerb, Message};
use crate::dir::submit::bulk::Bulk;
use crate::dir::submit::keys::Keys;
use crate::dir::submit::one::Submitter;
use crate::dir::tests::plug::{lease_of, settle};
use crate::dir::{Pool, fault};
use crate::store::contract::{line, task};
use crate::wire::retry::Verdict;

pub(super) const FAILED: Verdict = Verdict::Failed(Cause::ExitCode);
pub(super) const PLAIN: &str = r#"{"shell": "true"}"#;

pub(super) fn submit(stage: &Stage, spec: &str) -> TaskId {
    let id = crate::dir::fixture::submit(&stage.pool, spec);
    stage.promise(Promise::Submitted(vec![id]));
    id
}

pub(super) fn take(stage: &Stage, worker: &str) -> Claim {
    *claim(&mut cursor(&stage.pool, worker)).expect("there is one")
}

pub(super) fn finish(stage: &Stage, claim: Claim, ledger: &Ledger, verdict: Verdict) {
    let (line, name) = (line(claim.task(), claim.name(), verdict), claim.name());
    claim.end(ledger, &line).unwrap();
    stage.ended(&line, name);
}

pub(super) fn look(pool: &Pool, id: TaskId) -> Found {
    places::find(pool.layout(), id).unwrap().expect("it is somewhere")
}

fn promote(stage: &Stage, ledger: &Ledger) {
    let later = Moment::now().plus_millis(600_000);
    assert!(!Promoter::new(&stage.pool).step(ledger, later).unwrap().is_empty());
}

pub(super) fn submit_two(stage: &Stage, spec: &str) {
    let mut submitter = Submitter::new(&stage.pool).unwrap();
    for _ in 0..2 {
        let task = task(spec);
        submitter.submit(&task).unwrap();
        stage.promise(Promise::Submitted(vec![task.id]));
    }
}

#[test]
fn a_submit_that_was_acknowledged_survives() {
    for spec in [
        PLAIN,
        r#"{"shell": "true", "hold": true}"#,
        r#"{"shell": "true", "after": ["0194c3f2-aaaa-7bbb-8ccc-ddddeeeeffff"]}"#,
        r#"{"shell": "true", "at": "2100-01-01T00:00:00Z"}"#,
    ] {
        play(25, &Scene { prepare: &|_stage| (), act: &|stage, ()| submit_two(stage, spec) });
    }
}

#[test]
fn a_bulk_submit_survives_wholly_or_was_never_made() {
    play(200, &Scene { prepare: &|_stage| (), act: &|stage, ()| submit_batch(stage) });
}

pub(super) fn submit_batch(stage: &Stage) {
    let tasks = batch();
    stage.together.replace(tasks.iter().map(|task| task.id).collect());
    let mut bulk = Bulk::new(&stage.pool).unwrap();
    tasks.iter().for_each(|task| bulk.add(task).unwrap());
    bulk.commit().unwrap();
    stage.promise(Promise::Submitted(tasks.iter().map(|task| task.id).collect()));
}

/// One of each kind of place.
pub(super) fn batch() -> Vec<Task> {
    let specs = [
        PLAIN,
        r#"{"shell": "true", "class": "cpu", "priority": 9}"#,
        r#"{"shell": "true", "hold": true}"#,
        r#"{"shell": "true", "at": "2100-01-01T00:00:00Z"}"#,
    ];
    specs.iter().map(|spec| task(spec)).collect()
}

#[test]
fn a_key_names_one_task_after_the_power_went() {
    play(90, &Scene { prepare: &|_stage| (), act: &|stage, ()| submit_keyed(stage) });
}

pub(super) fn submit_keyed(stage: &Stage) {
    let keys = Keys::wait(&stage.pool).unwrap();
    let task = task(PLAIN);
    keys.intend("nightly", task.id).unwrap();
    Submitter::new(&stage.pool).unwrap().submit(&task).unwrap();
    keys.submitted("nightly", task.id).unwrap();
    stage.promise(Promise::Submitted(vec![task.id]));
    stage.promise(Promise::Keyed("nightly", task.id));
}

pub(super) fn work(stage: &Stage, verdict: Verdict) {
    let ledger = ledger(&stage.pool, "worker-1");
    let _lease = lease_of(&stage.pool, "worker-1", &ledger);
    let claim = take(stage, "worker-1");
    finish(stage, claim, &ledger, verdict);
}

#[test]
fn an_attempt_that_has_ended_is_neither_forgotten_nor_run_again() {
    let verdicts = [
        Verdict::Succeeded,
        FAILED,
        Verdict::Refused(Cause::SpawnFailed),
        Verdict::NotReady(Cause::ExitCode),
        Verdict::Returned,
        Verdict::Cancelled(Cause::Cancelled),
    ];
    for verdict in verdicts {
        play(
            45,
            &Scene {
                prepare: &|stage| _ = submit(stage, PLAIN),
                act: &|stage, ()| work(stage, verdict),
            },
        );
    }
}

#[test]
fn ends_that_are_recorded_together_are_neither_forgotten_nor_run_again() {
    play(
        100,
        &Scene {
            prepare: &|stage| (0..3).for_each(|_n| _ = submit(stage, PLAIN)),
            act: &|stage, ()| work_together(stage),
        },
    );
}

pub(super) fn work_together(stage: &Stage) {
    let ledger = ledger(&stage.pool, "worker-1");
    let _lease = lease_of(&stage.pool, "worker-1", &ledger);
    let mut cursor = cursor(&stage.pool, "worker-1");
    let ends: Vec<_> = [Verdict::Succeeded, FAILED, Verdict::Returned]
        .into_iter()
        .filter_map(|verdict| {
            let claim = claim(&mut cursor)?;
            let line = line(claim.task(), claim.name(), verdict);
            Some((claim, line))
        })
        .collect();
    let said: Vec<_> = ends.iter().map(|(claim, line)| (line.clone(), claim.name())).collect();
    assert!(end_all(&ledger, ends).iter().all(Result::is_ok));
    said.iter().for_each(|(line, name)| stage.ended(line, *name));
}

#[test]
fn a_life_with_a_failure_and_a_death_is_remembered() {
    play(
        300,
        &Scene {
            prepare: &|stage| _ = submit(stage, PLAIN),
            act: &|stage, ()| {
                let ledger = ledger(&stage.pool, "worker-1");
                let lease = lease_of(&stage.pool, "worker-1", &ledger);
                let first = take(stage, "worker-1");
                finish(stage, first, &ledger, FAILED);
                promote(stage, &ledger);
                let second = take(stage, "worker-1");
                let (task, name) = (second.task().clone(), second.name());
                drop(second);
                settle(&stage.pool, &ledger, &lease).unwrap();
                stage.ended(&line(&task, name, Verdict::WorkerDied), name);
                let third = take(stage, "worker-1");
                finish(stage, third, &ledger, Verdict::Succeeded);
            },
        },
    );
}

#[test]
fn a_cancel_that_was_said_to_be_done_is_done() {
    for spec in [PLAIN, r#"{"shell": "true", "hold": true}"#] {
        play(
            15,
            &Scene {
                prepare: &|stage| submit(stage, spec),
                act: &|stage, id| {
                    let ledger = ledger(&stage.pool, "queue");
                    let ender = Ender::wait(&stage.pool, &ledger).unwrap();
                    let found = look(&stage.pool, id);
                    assert_eq!(ender.end(&found, Reason::Cancel).unwrap(), Change::Done);
                    stage.promise(Promise::Ended(found.name, Next::End, found.name));
                },
            },
        );
    }
}

#[test]
fn cancels_that_share_a_flush_and_were_said_to_be_done_are_done() {
    play(
        15,
        &Scene {
            prepare: &|stage| [submit(stage, PLAIN), submit(stage, PLAIN)],
            act: &|stage, ids| {
                let ledger = ledger(&stage.pool, "queue");
                let ender = Ender::wait(&stage.pool, &ledger).unwrap();
                let found = ids.map(|id| look(&stage.pool, id));
                let tasks = [&found[0], &found[1]];
                let tasks = tasks.map(|found| ToEnd { found, reason: Reason::Cancel });
                for change in ender.end_group(&tasks, &mut |_ended| {}).unwrap() {
                    assert_eq!(change.unwrap(), Change::Done);
                }
                for found in found {
                    stage.promise(Promise::Ended(found.name, Next::End, found.name));
                }
            },
        },
    );
}

#[test]
fn a_cancel_that_a_worker_was_asked_for_is_honoured_after_the_restart() {
    play(
        7,
        &Scene {
            prepare: &|stage| {
                let id = submit(stage, PLAIN);
                let ledger = ledger(&stage.pool, "worker-1");
                drop(lease_of(&stage.pool, "worker-1", &ledger));
                (id, take(stage, "worker-1"))
            },
            act: &|stage, (id, claim)| {
                let message = Message::new(ControlVerb::Cancel, "ann");
                let layout = stage.pool.layout();
                control::ask_about(layout, claim.worker(), claim.name(), message).unwrap();
                stage.promise(Promise::CancelHeard(id));
            },
        },
    );
}

#[test]
fn what_is_held_released_or_retried_is_before_or_after_that() {
    type Command = fn(&Pool, &Found) -> Result<Change, crate::Error>;
    let chains: [&[Command]; 2] =
        [&[operate::hold, operate::release, operate::hold], &[operate::retry]];
    for chain in chains {
        play(
            2,
            &Scene {
                prepare: &|stage| {
                    let id = submit(stage, r#"{"shell": "false", "max_attempts": 1}"#);
                    if chain.len() == 1 {
                        let claim = take(stage, "before");
                        finish(stage, claim, &ledger(&stage.pool, "before"), FAILED);
                    }
                    id
                },
                act: &|stage, id| {
                    for command in chain {
                        let found = look(&stage.pool, id);
                        assert_eq!(command(&stage.pool, &found).unwrap(), Change::Done);
                    }
                },
            },
        );
    }
}

#[test]
fn what_was_promoted_is_before_or_after_that() {
    play(
        20,
        &Scene {
            prepare: &|stage| {
                let (good, bad) = (submit(stage, PLAIN), submit(stage, PLAIN));
                let ledger = ledger(&stage.pool, "before");
                for verdict in [Verdict::Succeeded, Verdict::Refused(Cause::SpawnFailed)] {
                    let claim = take(stage, "before");
                    finish(stage, claim, &ledger, verdict);
                }
                for id in [good, bad] {
                    submit(stage, &format!(r#"{{"shell": "true", "after": ["{id}"]}}"#));
                }
                let at = Moment::now().plus_millis(1000);
                submit(stage, &format!(r#"{{"shell": "true", "at": "{at}"}}"#));
            },
            act: &|stage, ()| promote(stage, &ledger(&stage.pool, "brain")),
        },
    );
}

#[test]
fn a_lane_that_somebody_else_has_just_made_is_there_after_the_restart() {
    // The first submitter dies between the rename of the lane's file and its flush.
    play(
        150,
        &Scene {
            prepare: &|_stage| (),
            act: &|stage, ()| {
                let died = || {
                    let mut submitter = Submitter::new(&stage.pool)?;
                    fault::pull_after(4);
                    submitter.submit(&task(PLAIN))
                };
                assert!(died().is_err());
                assert_eq!(fault::what_failed(), Some("flush directory"));
                fault::plug_in();
                submit(stage, PLAIN);
            },
        },
    );
}

#[test]
fn a_directory_that_was_made_again_is_not_taken_for_the_one_that_was_flushed() {
    play(
        100,
        &Scene {
            prepare: &|_stage| (),
            act: &|stage, ()| {
                let [first, second, third] = of_one_segment();
                let mut submitter = Submitter::new(&stage.pool).unwrap();
                submitter.submit(&first).unwrap();
                stage.promise(Promise::Submitted(vec![first.id]));
                // The directory is emptied and removed ...
                let (ledger, mut cursor) = (ledger(&stage.pool, "w"), cursor(&stage.pool, "w"));
                finish(stage, *claim(&mut cursor).unwrap(), &ledger, Verdict::Succeeded);
                assert!(claim(&mut cursor).is_none());
                // ... and made again by somebody who dies before it is flushed.
                let mut other = Submitter::new(&stage.pool).unwrap();
                fault::pull_after(5);
                assert!(other.submit(&second).is_err());
                assert_eq!(fault::what_failed(), Some("flush directory"));
                fault::plug_in();
                submitter.submit(&third).unwrap();
                stage.promise(Promise::Submitted(vec![third.id]));
            },
        },
    );
}

fn of_one_segment() -> [Task; 3] {
    loop {
        let tasks = [task(PLAIN), task(PLAIN), task(PLAIN)];
        if tasks[0].id.segment() == tasks[2].id.segment() {
            return tasks;
        }
    }
}
