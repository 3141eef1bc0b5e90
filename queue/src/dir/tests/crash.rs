//! Every way in which a task moves, cut off before every single change to the disk.

use shared::id::TaskId;
use shared::outcome::{Cause, Outcome};
use shared::task::{Task, TaskName};
use shared::time::Moment;

use super::plug::{Acted, Notes, Scene, everything, lease_of, lines, play, settle};
use crate::Error;
use crate::dir::claim::cursor::Pass;
use crate::dir::claim::one::NotEnded;
use crate::dir::disk::place::Found;
use crate::dir::disk::publish;
use crate::dir::find::places;
use crate::dir::fixture::{claim, cursor, end, ledger, name, pool_at, state, submit};
use crate::dir::ledger::append::Ledger;
use crate::dir::operate::{self, Change, Ender, Reason, ToEnd};
use crate::dir::presence::lease::Lease;
use crate::dir::recover::promote::{Promoter, Promotion};
use crate::dir::recover::reconcile;
use crate::dir::signal::control::{self, Message};
use crate::dir::submit::bulk::Bulk;
use crate::dir::submit::keys::Keys;
use crate::dir::submit::one::Submitter;
use crate::dir::{Pool, fault};
use crate::store::contract::{line, task};
use crate::wire::retry::Verdict;

const FAILED: Verdict = Verdict::Failed(Cause::ExitCode);
const NOTHING_MORE: &dyn Fn(&Pool, &Notes, Acted) = &|_pool, _notes, _acted| {};

#[test]
fn a_submitted_task_is_there_or_was_never_submitted() {
    for spec in [
        r#"{"shell": "true"}"#,
        r#"{"shell": "true", "hold": true}"#,
        r#"{"shell": "true", "after": ["0194c3f2-aaaa-7bbb-8ccc-ddddeeeeffff"]}"#,
        r#"{"shell": "true", "at": "2100-01-01T00:00:00Z"}"#,
    ] {
        play(&Scene {
            prepare: &|_pool, _notes| task(spec),
            act: &|pool, _ledger, task: Task, notes| {
                Submitter::new(pool)?.submit(&task)?;
                notes.acknowledged.push(task.id);
                Ok(())
            },
            check: &|pool, notes, acted| {
                let there = everything(pool).len();
                match acted {
                    Acted::Through => assert_eq!(there, notes.acknowledged.len()),
                    Acted::Died => assert!(there <= 1),
                    Acted::Failed => {
                        assert_eq!(there, 0, "who was told that it failed submits again")
                    }
                }
            },
        });
    }
}

#[test]
fn a_task_that_a_worker_takes_at_once_is_no_error_for_its_submitter() {
    // The worker has removed the directory, empty again, before the submitter flushes it.
    let mut flushes = 0;
    for n in 0.. {
        let home = crate::dir::fixture::scratch();
        let pool = crate::dir::fixture::pool_at(&home.path().join("pool"));
        let mut submitter = Submitter::new(&pool).unwrap();
        fault::fail_at(n, rustix::io::Errno::NOENT);
        let submitted = submitter.submit(&task(r#"{"shell": "true"}"#));
        fault::plug_in();
        match fault::what_failed() {
            Some("flush directory") => {
                flushes += 1;
                // The first one is that of the lane's own file.
                assert!(flushes == 1 || submitted.is_ok(), "{submitted:?}");
            }
            Some(_) => {}
            None => break,
        }
    }
    assert!(flushes >= 3);
}

fn batch() -> Vec<Task> {
    let later = r#"{"shell": "true", "at": "2100-01-01T00:00:00Z"}"#;
    let mut specs = vec![later.to_owned(), later.to_owned()];
    for class in ["cpu", "script"] {
        for extra in ["", r#", "priority": 9"#, r#", "worker": "w-1""#, r#", "hold": true"#] {
            specs.push(format!(r#"{{"shell": "true", "class": "{class}"{extra}}}"#));
        }
    }
    let mut tasks: Vec<_> = specs.iter().map(|spec| task(spec)).collect();
    let first = tasks[2].id;
    tasks.push(task(&format!(r#"{{"shell": "true", "after": ["{first}"]}}"#)));
    tasks
}

#[test]
fn a_bulk_submit_is_there_wholly_or_not_at_all() {
    play(&Scene {
        prepare: &|_pool, notes| {
            let tasks = batch();
            notes.together = tasks.iter().map(|task| task.id).collect();
            tasks
        },
        act: &|pool, _ledger, tasks: Vec<Task>, notes| {
            let mut bulk = Bulk::new(pool)?;
            for task in &tasks {
                bulk.add(task)?;
            }
            bulk.commit()?;
            notes.acknowledged.extend(tasks.iter().map(|task| task.id));
            Ok(())
        },
        check: NOTHING_MORE,
    });
}

/// What `queue submit --key` does.
fn submit_keyed(pool: &Pool, task: &Task) -> Result<TaskId, Error> {
    let keys = Keys::wait(pool)?;
    if let Some(id) = keys.find("nightly")? {
        return Ok(id);
    }
    keys.intend("nightly", task.id)?;
    Submitter::new(pool)?.submit(task)?;
    keys.submitted("nightly", task.id)?;
    Ok(task.id)
}

#[test]
fn a_key_names_one_task_however_often_its_submitter_dies() {
    play(&Scene {
        prepare: &|_pool, _notes| task(r#"{"shell": "true"}"#),
        act: &|pool, _ledger, task: Task, notes| {
            let id = submit_keyed(pool, &task)?;
            notes.acknowledged.push(id);
            Ok(())
        },
        check: &|pool, notes, _acted| {
            let id = submit_keyed(pool, &task(r#"{"shell": "true"}"#)).unwrap();
            let there: Vec<_> = everything(pool).iter().map(|found| found.name.id).collect();
            assert_eq!(there, [id]);
            assert!(notes.acknowledged.iter().all(|first| *first == id));
            let again = submit_keyed(pool, &task(r#"{"shell": "true"}"#)).unwrap();
            assert_eq!(again, id);
        },
    });
}

/// A worker claims the one task and ends it so; after an error it tries once more, as workers do.
pub(in crate::dir) fn work(pool: &Pool, worker: &str, verdict: Verdict) -> Result<(), Error> {
    let ledger = ledger(pool, worker);
    let _lease = lease_of_the_living(pool, worker, &ledger)?;
    let mut cursor = cursor(pool, worker);
    let pass = cursor.pass(&crate::dir::fixture::ANY, &mut |_note| {})?;
    let Pass::Claimed { claim, .. } = pass else { return Ok(()) };
    let line = line(claim.task(), claim.name(), verdict);
    match claim.end(&ledger, &line) {
        Ok(()) => Ok(()),
        Err(NotEnded { claim, .. }) => claim.end(&ledger, &line).map_err(|not| not.error),
    }
}

fn lease_of_the_living(pool: &Pool, worker: &str, ledger: &Ledger) -> Result<Lease, Error> {
    let lease = Lease::try_take(pool, &name(worker))?.expect("nobody else has it");
    lease.write(&crate::dir::fixture::record(&lease, ledger))?;
    Ok(lease)
}

#[test]
fn seed_001_b15_a_crash_between_two_writes_never_doubles_a_task() {
    let verdicts = [
        Verdict::Succeeded,
        FAILED,
        Verdict::Refused(Cause::SpawnFailed),
        Verdict::NotReady(Cause::ExitCode),
        Verdict::Returned,
        Verdict::Cancelled(Cause::Cancelled),
    ];
    for verdict in verdicts {
        play(&Scene {
            prepare: &|pool, notes| notes.acknowledged.push(submit(pool, r#"{"shell": "true"}"#)),
            act: &|pool, _ledger, (), _notes| work(pool, "worker-1", verdict),
            check: &|pool, notes, acted| {
                let lines =
                    crate::dir::ledger::search::lines_of(pool.layout(), notes.acknowledged[0])
                        .unwrap();
                assert!(lines.len() <= 1);
                if acted == Acted::Through && !lines.is_empty() {
                    assert_eq!(lines[0].outcome, verdict.outcome());
                }
            },
        });
    }
}

/// A task in each state that a person's commands are about.
fn cast(pool: &Pool, notes: &mut Notes) -> Vec<TaskId> {
    let failed = submit(pool, r#"{"shell": "false", "max_attempts": 1}"#);
    let worker = ledger(pool, "before");
    end(*claim(&mut cursor(pool, "before")).unwrap(), &worker, FAILED);
    let held = submit(pool, r#"{"shell": "true", "hold": true}"#);
    let waiting = submit(pool, &format!(r#"{{"shell": "true", "after": ["{held}"]}}"#));
    let delayed = submit(pool, r#"{"shell": "true", "at": "2100-01-01T00:00:00Z"}"#);
    let pending = submit(pool, r#"{"shell": "true"}"#);
    let ids = vec![pending, delayed, waiting, held, failed];
    notes.acknowledged.extend(&ids);
    ids
}

fn look(pool: &Pool, id: TaskId) -> Result<Found, Error> {
    Ok(places::find(pool.layout(), id)?.expect("it is somewhere"))
}

#[test]
fn a_cancelled_task_is_cancelled_once_or_not_at_all() {
    for which in 0..4 {
        play(&Scene {
            prepare: &|pool, notes| cast(pool, notes)[which],
            act: &|pool, ledger, id, _notes| {
                let ender = Ender::wait(pool, ledger)?;
                assert_eq!(ender.end(&look(pool, id)?, Reason::Cancel)?, Change::Done);
                Ok(())
            },
            check: &|pool, notes, acted| {
                let id = notes.acknowledged[which];
                let lines = crate::dir::ledger::search::lines_of(pool.layout(), id).unwrap();
                match state(pool, id) {
                    None => assert_eq!(lines[0].outcome, Outcome::Cancelled),
                    Some(_) => assert!(lines.is_empty() && acted != Acted::Through),
                }
            },
        });
    }
}

#[test]
fn of_tasks_cancelled_together_each_is_cancelled_once_or_not_at_all() {
    play(&Scene {
        prepare: &|pool, notes| {
            let mut ids = cast(pool, notes);
            ids.pop();
            ids
        },
        act: &|pool, ledger, ids: Vec<TaskId>, _notes| {
            let found = ids.iter().map(|id| look(pool, *id)).collect::<Result<Vec<_>, _>>()?;
            let tasks = found.iter().map(|found| ToEnd { found, reason: Reason::Cancel });
            let ender = Ender::wait(pool, ledger)?;
            let changes = ender.end_group(&tasks.collect::<Vec<_>>(), &mut |_ended| {})?;
            changes.into_iter().try_for_each(|change| change.map(drop))
        },
        check: &|pool, notes, acted| {
            for id in &notes.acknowledged[..4] {
                let lines = crate::dir::ledger::search::lines_of(pool.layout(), *id).unwrap();
                match state(pool, *id) {
                    None => assert_eq!(lines[0].outcome, Outcome::Cancelled),
                    Some(_) => assert!(lines.is_empty() && acted != Acted::Through),
                }
            }
        },
    });
}

type Command = fn(&Pool, &Found) -> Result<Change, Error>;

#[test]
fn hold_release_and_retry_are_done_or_not_begun() {
    let commands: [(Command, usize, &str); 5] = [
        (operate::hold, 0, "held"),
        (operate::hold, 1, "held"),
        (operate::hold, 2, "held"),
        (operate::release, 3, "pending"),
        (operate::retry, 4, "pending"),
    ];
    for (command, which, after) in commands {
        play(&Scene {
            prepare: &|pool, notes| cast(pool, notes)[which],
            act: &|pool, _ledger, id, _notes| {
                assert_eq!(command(pool, &look(pool, id)?)?, Change::Done);
                Ok(())
            },
            check: &|pool, notes, acted| {
                let (state, name) = state(pool, notes.acknowledged[which]).unwrap();
                assert!(acted != Acted::Through || state == after, "{state}");
                assert_eq!(
                    (name.failures, name.deaths),
                    if state == "failed" { (1, 0) } else { (0, 0) }
                );
                assert_eq!(name.attempt, if which == 4 && state == "pending" { 2 } else { 1 });
            },
        });
    }
}

/// What one step of a promoter does, with its first error.
fn promote(pool: &Pool, ledger: &Ledger, now: Moment) -> Result<u32, Error> {
    let mut moved = 0;
    let mut promoter = Promoter::new(pool);
    for promotion in promoter.step(ledger, now)? {
        match promotion {
            Promotion::Failed(_, err) => return Err(err),
            Promotion::Rejected(path, problem) => panic!("{}: {problem}", path.display()),
            Promotion::Damaged(damaged) => panic!("{damaged}"),
            Promotion::Due(_) | Promotion::Ready { .. } | Promotion::Hopeless { .. } => moved += 1,
        }
    }
    Ok(moved)
}

#[test]
fn what_is_due_ready_or_hopeless_is_promoted_once() {
    play(&Scene {
        prepare: &|pool, notes| {
            let good = submit(pool, r#"{"shell": "true"}"#);
            let bad = submit(pool, r#"{"shell": "true", "max_attempts": 1}"#);
            let again = submit(pool, r#"{"shell": "true"}"#);
            let worker = ledger(pool, "before");
            let mut cursor = cursor(pool, "before");
            end(*claim(&mut cursor).unwrap(), &worker, Verdict::Succeeded);
            end(*claim(&mut cursor).unwrap(), &worker, FAILED);
            end(*claim(&mut cursor).unwrap(), &worker, FAILED);
            let after = |id| submit(pool, &format!(r#"{{"shell": "true", "after": ["{id}"]}}"#));
            notes.acknowledged.extend([good, bad, again, after(good), after(bad)]);
        },
        act: &|pool, ledger, (), _notes| {
            let moved = promote(pool, ledger, Moment::now().plus_millis(10_000))?;
            assert_eq!(moved, 3);
            Ok(())
        },
        check: &|pool, notes, _acted| {
            let ledger = ledger(pool, "check");
            promote(pool, &ledger, Moment::now().plus_millis(10_000)).unwrap();
            let state_of = |index: usize| state(pool, notes.acknowledged[index]).map(|s| s.0);
            assert_eq!(state_of(2), Some("pending"));
            assert_eq!(state_of(3), Some("pending"));
            assert_eq!(state_of(4), None);
        },
    });
}

/// How a worker that died left its task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Running,
    CancelAsked,
    Recorded(Verdict),
}

#[test]
fn seed_001_b18_a_dead_workers_task_is_settled_however_often_the_settler_dies() {
    let ends = [Verdict::Succeeded, FAILED, Verdict::Refused(Cause::SpawnFailed)];
    let recorded = ends.into_iter().map(Left::Recorded);
    for left in recorded.chain([Left::Running, Left::CancelAsked]) {
        play(&Scene {
            prepare: &|pool, notes| {
                notes.acknowledged.push(submit(pool, r#"{"shell": "true"}"#));
                let ledger = ledger(pool, "worker-1");
                let lease = lease_of(pool, "worker-1", &ledger);
                let claim = claim(&mut cursor(pool, "worker-1")).unwrap();
                match left {
                    Left::Running => {}
                    Left::CancelAsked => {
                        let message = Message::new(control::ControlVerb::Cancel, "ann");
                        let (worker, name) = (lease.worker(), claim.name());
                        control::ask_about(pool.layout(), worker, name, message).unwrap();
                    }
                    Left::Recorded(verdict) => {
                        ledger.append(&line(claim.task(), claim.name(), verdict)).unwrap();
                    }
                }
            },
            act: &|pool, ledger, (), _notes| {
                let lease = Lease::try_take(pool, &name("worker-1"))?.expect("it is dead");
                settle(pool, ledger, &lease)
            },
            check: &|pool, notes, _acted| {
                let id = notes.acknowledged[0];
                let first = TaskName::first(id);
                let lines = lines(pool);
                let verdict = match left {
                    Left::Recorded(verdict) => verdict,
                    Left::Running => Verdict::WorkerDied,
                    Left::CancelAsked => Verdict::Cancelled(Cause::Cancelled),
                };
                assert!(lines.iter().all(|brief| brief.outcome == verdict.outcome()));
                assert!(!lines.is_empty());
                let expected = match verdict {
                    Verdict::WorkerDied => Some(("pending", first.died())),
                    FAILED => Some(("delayed", first.failed())),
                    Verdict::Failed(_) | Verdict::Refused(_) => {
                        Some(("failed", TaskName { failures: 1, ..first }))
                    }
                    Verdict::Succeeded
                    | Verdict::Cancelled(_)
                    | Verdict::ProbeFailed { .. }
                    | Verdict::NotReady(_)
                    | Verdict::Busy(_)
                    | Verdict::Returned
                    | Verdict::Rejected => None,
                };
                assert_eq!(state(pool, id), expected);
            },
        });
    }
}

#[test]
fn after_a_power_cut_what_the_last_lines_say_is_done_again() {
    let verdicts =
        [Verdict::Succeeded, FAILED, Verdict::Refused(Cause::SpawnFailed), Verdict::Returned];
    for verdict in verdicts {
        play(&Scene {
            prepare: &|pool, notes| {
                // The line is on the disk; all the renames were lost, that of the claim too.
                let id = submit(pool, r#"{"shell": "true"}"#);
                notes.acknowledged.push(id);
                let task = look(pool, id).unwrap().read(pool.layout()).unwrap().unwrap();
                ledger(pool, "before").append(&line(&task, TaskName::first(id), verdict)).unwrap();
                std::fs::remove_file(pool.layout().reconcile_lock()).unwrap();
            },
            act: &|pool, _ledger, (), _notes| reconcile::ready(pool.clone()).map(|_pool| ()),
            check: &|pool, notes, _acted| {
                let again = reconcile::reconcile(pool).unwrap();
                assert_eq!(again.moved, 0);
                let gone = state(pool, notes.acknowledged[0]).is_none();
                assert_eq!(gone, verdict == Verdict::Succeeded);
            },
        });
    }
}

#[test]
fn a_pool_gets_its_marker_or_is_as_before() {
    play(&Scene {
        prepare: &|pool, notes| {
            notes.acknowledged.push(submit(pool, r#"{"shell": "true"}"#));
            std::fs::remove_file(pool.layout().format_file()).unwrap();
        },
        act: &|pool, _ledger, (), _notes| {
            reconcile::ready(Pool::open(pool.root(), pool.rules().clone())?).map(drop)
        },
        check: &|pool, _notes, _acted| {
            pool_at(pool.root());
            assert!(publish::is_there(&pool.layout().format_file()).unwrap());
        },
    });
}
