//! The power goes again while what it left behind is put right; and while a pool is made.

use super::scenes::{FAILED, PLAIN, finish, look, submit, submit_two, take};
use super::{Promise, Scene, Stage, play};
use crate::dir::fixture::ledger;
use crate::dir::operate::{Ender, Reason};
use crate::dir::recover::reconcile::ready;
use crate::dir::signal::control::{self, ControlVerb, Message};
use crate::dir::submit::bulk::Bulk;
use crate::dir::tests::plug::{lease_of, put_right};
use crate::dir::{Pool, fault};
use crate::store::contract::line;
use crate::wire::retry::Verdict;

/// Opens the pool as after a restart of the machine, and puts all of it right.
fn restart(stage: &Stage, _prepared: ()) {
    put_right(&ready(stage.pool.clone()).unwrap()).unwrap();
}

fn forget_the_start(pool: &Pool) {
    std::fs::remove_file(pool.layout().reconcile_lock()).unwrap();
}

#[test]
fn an_end_that_was_not_carried_out_survives_a_second_power_cut() {
    for verdict in [Verdict::Succeeded, FAILED, Verdict::Returned] {
        play(
            3,
            &Scene {
                prepare: &|stage| {
                    submit(stage, PLAIN);
                    let ledger = ledger(&stage.pool, "worker-1");
                    let claim = take(stage, "worker-1");
                    let line = line(claim.task(), claim.name(), verdict);
                    ledger.append(&line).unwrap();
                    stage.ended(&line, claim.name());
                    forget_the_start(&stage.pool);
                },
                act: &restart,
            },
        );
    }
}

#[test]
fn a_task_in_two_places_survives_a_second_power_cut() {
    play(
        3,
        &Scene {
            prepare: &|stage| {
                submit(stage, PLAIN);
                let ledger = ledger(&stage.pool, "worker-1");
                let claim = take(stage, "worker-1");
                let before = stage.pool.layout().processing_of(claim.worker());
                let before = before.join(claim.name().file_name());
                let text = std::fs::read(&before).unwrap();
                finish(stage, claim, &ledger, FAILED);
                std::fs::write(&before, text).unwrap();
                forget_the_start(&stage.pool);
            },
            act: &restart,
        },
    );
}

#[test]
fn a_death_and_a_cancel_that_was_heard_survive_a_second_power_cut() {
    for cancel in [false, true] {
        play(
            10,
            &Scene {
                prepare: &|stage| {
                    let id = submit(stage, PLAIN);
                    let ledger = ledger(&stage.pool, "worker-1");
                    drop(lease_of(&stage.pool, "worker-1", &ledger));
                    let claim = take(stage, "worker-1");
                    if cancel {
                        let (layout, worker) = (stage.pool.layout(), claim.worker());
                        let message = Message::new(ControlVerb::Cancel, "ann");
                        control::ask_about(layout, worker, claim.name(), message).unwrap();
                        stage.promise(Promise::CancelHeard(id));
                    }
                    forget_the_start(&stage.pool);
                },
                act: &restart,
            },
        );
    }
}

#[test]
fn a_cancel_that_was_begun_survives_a_second_power_cut() {
    for changes in [1, 5] {
        play(
            3,
            &Scene {
                prepare: &|stage| {
                    let id = submit(stage, PLAIN);
                    let ledger = ledger(&stage.pool, "queue");
                    let found = look(&stage.pool, id);
                    let ender = Ender::wait(&stage.pool, &ledger).unwrap();
                    fault::pull_after(changes);
                    assert!(ender.end(&found, Reason::Cancel).is_err());
                    fault::plug_in();
                    forget_the_start(&stage.pool);
                },
                act: &restart,
            },
        );
    }
}

#[test]
fn a_batch_that_is_half_in_place_survives_a_second_power_cut() {
    play(
        20,
        &Scene {
            prepare: &|stage| {
                let tasks = super::scenes::batch();
                let mut bulk = Bulk::new(&stage.pool).unwrap();
                tasks.iter().for_each(|task| bulk.add(task).unwrap());
                // The commit, its flush, and the way to the first of its places.
                fault::pull_after(6);
                bulk.commit().unwrap();
                fault::plug_in();
                stage.promise(Promise::Submitted(tasks.iter().map(|task| task.id).collect()));
                forget_the_start(&stage.pool);
            },
            act: &restart,
        },
    );
}

#[test]
fn a_pool_that_was_being_made_can_be_made() {
    play(
        100,
        &Scene {
            prepare: &|stage| {
                std::fs::remove_dir_all(stage.pool.root()).unwrap();
                std::fs::create_dir(stage.pool.root()).unwrap();
            },
            act: &|stage, ()| {
                super::pool_at(stage.pool.root());
                submit_two(stage, PLAIN);
            },
        },
    );
}

#[test]
fn a_pool_from_before_there_were_markers_gets_one() {
    play(
        5,
        &Scene {
            prepare: &|stage| {
                submit(stage, PLAIN);
                std::fs::remove_file(stage.pool.layout().format_file()).unwrap();
                forget_the_start(&stage.pool);
            },
            act: &|stage, ()| {
                super::pool_at(stage.pool.root());
                submit_two(stage, PLAIN);
            },
        },
    );
}
