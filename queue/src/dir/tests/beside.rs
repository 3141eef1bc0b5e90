//! What is written beside the tasks, cut off before every single change to the disk: heartbeats,
//! messages, what the brain says, and lines into a ledger that is open already.

use serde_json::json;
use shared::id::{Incarnation, TaskId};
use shared::outcome::{Cause, Outcome};
use shared::time::Moment;

use super::plug::{Acted, Scene, lease_of, play};
use crate::Error;
use crate::dir::claim::cursor::Pass;
use crate::dir::find::places;
use crate::dir::fixture::{claim, cursor, end, ledger, name, submit};
use crate::dir::operate::{Ender, Reason};
use crate::dir::presence::heartbeats;
use crate::dir::presence::lease::{Lease, this_process};
use crate::dir::signal::control::{self, ControlVerb, Message};
use crate::dir::{Pool, lookup};
use crate::store::contract::line;
use crate::wire::heartbeat::Heartbeat;
use crate::wire::retry::Verdict;

const PLAIN: &str = r#"{"shell": "true"}"#;

fn heartbeat(seq: u64) -> Heartbeat {
    let (now, nothing) = (Moment::now(), json!(null));
    let ability = json!({"classes": ["cpu"], "gpu": nothing, "gpu_uuid": nothing,
        "gpu_memory": nothing, "gpu_slots": 0, "cpu_slots": 1, "paused": nothing,
        "draining": nothing, "model": nothing});
    let text = json!({"schema": crate::wire::heartbeat::SCHEMA, "worker": "worker-1",
        "process": this_process(), "life": Incarnation::new(), "version": "0", "seq": seq,
        "started_at": now, "at": now, "status": "idle", "ability": ability, "current": [],
        "gpu_reading": nothing, "claim": {"at": nothing, "result": "", "reasons": []},
        "completed": 0, "failed": 0, "lost_races": 0, "idle_since": nothing, "log_seq": 0});
    serde_json::from_value(text).unwrap()
}

#[test]
fn a_heartbeat_is_the_new_one_or_the_one_before() {
    play(&Scene {
        prepare: &|pool, _notes| heartbeats::write(pool, &heartbeat(1)).unwrap(),
        act: &|pool, _ledger, (), _notes| heartbeats::write(pool, &heartbeat(2)),
        check: &|pool, _notes, acted| {
            let seq = heartbeats::read(pool, &name("worker-1")).unwrap().unwrap().seq;
            assert_eq!(seq, if acted == Acted::Through { 2 } else { 1 });
            assert_eq!(heartbeats::workers(pool).unwrap(), [name("worker-1")]);
        },
    });
}

#[test]
fn a_cancel_that_was_asked_of_a_worker_is_heard_or_was_not_asked() {
    play(&Scene {
        prepare: &|pool, notes| {
            let id = submit(pool, PLAIN);
            notes.acknowledged.push(id);
            let lease = lease_of(pool, "worker-1", &ledger(pool, "worker-1"));
            drop(claim(&mut cursor(pool, "worker-1")));
            (id, lease)
        },
        act: &|pool, _ledger, (id, _lease): (TaskId, Lease), _notes| {
            let found = places::find(pool.layout(), id)?.expect("its worker has it");
            let message = Message::new(ControlVerb::Cancel, "ann");
            control::ask_about(pool.layout(), &name("worker-1"), found.name, message)
        },
        check: &|pool, notes, acted| {
            let lines =
                crate::dir::ledger::search::lines_of(pool.layout(), notes.acknowledged[0]).unwrap();
            let outcomes: Vec<_> = lines.iter().map(|line| line.outcome).collect();
            match acted {
                Acted::Through => assert_eq!(outcomes, [Outcome::Cancelled]),
                // A message whose flush failed is there all the same.
                Acted::Died | Acted::Failed => assert_eq!(outcomes.len(), 1),
            }
        },
    });
}

#[test]
fn a_pause_is_read_wholly_or_not_at_all() {
    play(&Scene {
        prepare: &|_pool, _notes| (),
        act: &|pool, _ledger, (), _notes| {
            control::pause_pool(pool.layout(), &Message::new(ControlVerb::Pause, "ann"))
        },
        check: &|pool, _notes, acted| {
            let paused = control::pool_pause(pool.layout()).unwrap().is_some();
            assert!(paused || acted != Acted::Through);
        },
    });
}

#[test]
fn the_list_of_a_batch_is_there_wholly_or_not_at_all() {
    let batch = shared::id::BatchId::new();
    let ids = [TaskId::new(), TaskId::new()];
    play(&Scene {
        prepare: &|_pool, _notes| (),
        act: &|pool, _ledger, (), _notes| lookup::record_batch(pool.layout(), batch, &ids),
        check: &|pool, _notes, acted| {
            let members = lookup::members(pool.layout(), batch).unwrap();
            assert!(members == ids || members.is_empty() && acted != Acted::Through);
        },
    });
}

/// A worker with a ledger that is open: it ends one task after another.
fn end_two(pool: &Pool, worker: &str) -> Result<(), Error> {
    let ledger = ledger(pool, worker);
    let mut cursor = cursor(pool, worker);
    for verdict in [Verdict::Succeeded, Verdict::Failed(Cause::ExitCode)] {
        let pass = cursor.pass(&crate::dir::fixture::ANY, &mut |_note| {})?;
        let Pass::Claimed { claim, .. } = pass else { return Ok(()) };
        let line = line(claim.task(), claim.name(), verdict);
        claim.end(&ledger, &line).map_err(|not| not.error)?;
    }
    Ok(())
}

#[test]
fn each_line_of_an_open_ledger_is_there_once_or_not_at_all() {
    play(&Scene {
        prepare: &|pool, notes| {
            notes.acknowledged.extend([submit(pool, PLAIN), submit(pool, PLAIN)]);
        },
        act: &|pool, _ledger, (), _notes| end_two(pool, "worker-1"),
        check: &|pool, notes, acted| {
            let count = |id: &TaskId| {
                crate::dir::ledger::search::lines_of(pool.layout(), *id).unwrap().len()
            };
            let counts: Vec<_> = notes.acknowledged.iter().map(count).collect();
            assert!(counts.iter().all(|count| *count <= 1), "{counts:?}");
            assert!(acted != Acted::Through || counts == [1, 1]);
        },
    });
}

#[test]
fn a_cancel_goes_on_where_another_process_died_in_it() {
    play(&Scene {
        prepare: &|pool, notes| {
            notes.acknowledged.extend([submit(pool, PLAIN), submit(pool, PLAIN)]);
            let before = ledger(pool, "before");
            end(*claim(&mut cursor(pool, "before")).unwrap(), &before, Verdict::Succeeded);
            // Taken into `ending/`, and nothing said about it.
            let found = places::find(pool.layout(), notes.acknowledged[1]).unwrap().unwrap();
            let ending = pool.layout().ending_task("cancel", found.name);
            crate::dir::disk::publish::move_new(&found.path(pool.layout()), &ending).unwrap();
        },
        act: &|pool, ledger, (), notes| {
            let ender = Ender::wait(pool, ledger)?;
            let found = places::find(pool.layout(), notes.acknowledged[1])?;
            found.map_or(Ok(()), |found| ender.end(&found, Reason::Cancel).map(drop))
        },
        check: &|pool, notes, _acted| {
            let lines =
                crate::dir::ledger::search::lines_of(pool.layout(), notes.acknowledged[1]).unwrap();
            let outcomes: Vec<_> = lines.iter().map(|line| line.outcome).collect();
            assert_eq!(outcomes, [Outcome::Cancelled]);
        },
    });
}
