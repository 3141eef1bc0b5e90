//! What is done for many tasks at once, cut off before every single change to the disk: several
//! ends recorded with one flush, and batches under keys.

use shared::id::{BatchId, TaskId};
use shared::outcome::Cause;
use shared::task::Task;

use super::plug::{Acted, Notes, Scene, ends, everything, lease_of, play};
use crate::Error;
use crate::dir::Pool;
use crate::dir::batch::members::{self, LineKey, Member};
use crate::dir::claim::one::{Claim, NotEnded};
use crate::dir::find::places;
use crate::dir::fixture::{cursor, ledger, state, submit};
use crate::dir::ledger::append::Ledger;
use crate::dir::presence::lease::Lease;
use crate::dir::submit::bulk::Bulk;
use crate::dir::submit::keys::Keys;
use crate::store::contract::{line, task};
use crate::wire::ledger_line::Line;
use crate::wire::retry::Verdict;

const PLAIN: &str = r#"{"shell": "true"}"#;

/// One of each kind of `next`, those that move a file between those that remove one.
const GROUP: [Verdict; 5] = [
    Verdict::Succeeded,
    Verdict::Failed(Cause::ExitCode),
    Verdict::Returned,
    Verdict::Refused(Cause::SpawnFailed),
    Verdict::Cancelled(Cause::Cancelled),
];

/// A worker, its open ledger, and all that it has to end.
type Group = (Lease, Ledger, Vec<(Box<Claim>, Line)>);

/// All of it claimed. Where the ledger was used before, its file is there already.
fn claimed(pool: &Pool, notes: &mut Notes, used: Option<Verdict>) -> Group {
    let ledger = ledger(pool, "worker-1");
    let lease = lease_of(pool, "worker-1", &ledger);
    let mut cursor = cursor(pool, "worker-1");
    if let Some(verdict) = used {
        notes.acknowledged.push(submit(pool, PLAIN));
        crate::dir::fixture::end(
            *crate::dir::fixture::claim(&mut cursor).unwrap(),
            &ledger,
            verdict,
        );
    }
    notes.acknowledged.extend(GROUP.map(|_verdict| submit(pool, PLAIN)));
    let ends = GROUP.map(|verdict| {
        let claim = crate::dir::fixture::claim(&mut cursor).unwrap();
        let line = line(claim.task(), claim.name(), verdict);
        (claim, line)
    });
    (lease, ledger, ends.into())
}

/// Ends all of it, and once more what did not work, as workers do. The first error comes back.
fn end_all(ledger: &Ledger, ends: Vec<(Box<Claim>, Line)>) -> Result<(), Error> {
    let again = |not: NotEnded| not.try_again(ledger).map_err(|not| not.error);
    let results: Vec<_> = crate::dir::fixture::end_all(ledger, ends)
        .into_iter()
        .map(|result| result.or_else(again))
        .collect();
    results.into_iter().collect()
}

#[test]
fn each_of_several_ends_that_are_recorded_together_is_there_once_or_not_at_all() {
    for used in [None, Some(Verdict::Succeeded)] {
        play(&Scene {
            prepare: &|pool, notes| claimed(pool, notes, used),
            act: &|_pool, _ledger, (_lease, ledger, ends): Group, _notes| end_all(&ledger, ends),
            check: &|pool, notes, acted| {
                let group = &notes.acknowledged[usize::from(used.is_some())..];
                for (id, verdict) in group.iter().zip(GROUP) {
                    ended_once(pool, *id, verdict, acted);
                }
            },
        });
    }
}

/// Where nobody died, so; where its worker did, so or put back.
#[track_caller]
fn ended_once(pool: &Pool, id: TaskId, verdict: Verdict, acted: Acted) {
    let lines = crate::dir::ledger::search::lines_of(pool.layout(), id).unwrap();
    let told: Vec<_> = lines.iter().map(|line| (line.outcome, line.cause)).collect();
    let says = |verdict: Verdict| [(verdict.outcome(), verdict.cause())];
    let lost = acted == Acted::Died && told == says(Verdict::WorkerDied);
    assert!(told == says(verdict) || lost, "{verdict:?} became {told:?}");
    let found = state(pool, id).map(|(state, _name)| state);
    let expected = match (lost, verdict) {
        (true, _) | (_, Verdict::Returned) => Some("pending"),
        (_, Verdict::Refused(Cause::SpawnFailed)) => Some("failed"),
        (_, Verdict::Failed(_)) => Some("delayed"),
        _ => None,
    };
    assert_eq!(found, expected);
}

/// The flush is one for all: with every line written, and none flushed, each is found.
#[test]
fn lines_that_were_written_and_not_flushed_together_count_all() {
    let home = crate::dir::fixture::scratch();
    let pool = crate::dir::fixture::pool_at(&home.path().join("pool"));
    let mut notes = Notes::default();
    let (lease, ledger, ends) = claimed(&pool, &mut notes, Some(Verdict::Succeeded));
    // Each append is two changes to the disk.
    crate::dir::fault::pull_after(2 * u32::try_from(GROUP.len()).unwrap());
    end_all(&ledger, ends).unwrap_err();
    assert_eq!(crate::dir::fault::what_failed(), Some("flush ledger"));
    crate::dir::fault::plug_in();
    super::plug::settle(&pool, &crate::dir::fixture::ledger(&pool, "brain"), &lease).unwrap();
    for (id, verdict) in notes.acknowledged[1..].iter().zip(GROUP) {
        ended_once(&pool, *id, verdict, Acted::Through);
    }
    assert_eq!(self::ends(&pool).len(), GROUP.len() + 1);
}

/// The lines of a file: each is known by its place.
fn lines(count: usize) -> Vec<LineKey> {
    (0..count).map(|n| LineKey::of(&[b"line", &n.to_le_bytes()])).collect()
}

/// What `queue submit --batch F --key K` does: what is there of the batch before is not submitted
/// again. Returns the batch that the key then stands for.
fn submit_keyed(pool: &Pool, lines: &[LineKey], notes: &mut Notes) -> Result<BatchId, Error> {
    let keys = Keys::wait(pool)?;
    let mut bulk = Bulk::new(pool)?;
    let before = keys.find_batch("night")?;
    let old = before.map_or(Ok(Vec::new()), |batch| members::of_batch(pool.layout(), batch))?;
    let known = |key: &LineKey| old.iter().find(|member| member.key == Some(*key)).copied();
    let new: Vec<(LineKey, Task)> =
        lines.iter().filter(|key| known(key).is_none()).map(|key| (*key, task(PLAIN))).collect();
    let Some((_key, first)) = new.first() else { return Ok(before.expect("all are there")) };
    let batch = bulk.id();
    let made = new.iter().map(|(key, task)| Member { id: task.id, key: Some(*key) });
    members::record(pool.layout(), batch, old.iter().copied().chain(made))?;
    for (_key, task) in &new {
        bulk.add(task)?;
    }
    keys.intend_batch("night", batch, first.id)?;
    notes.together = new.iter().map(|(_key, task)| task.id).collect();
    bulk.commit()?;
    notes.acknowledged.extend(&notes.together);
    keys.submitted_batch("night", batch, first.id)?;
    Ok(batch)
}

/// Submitted once more, the key stands for a batch that has each of the lines once, and nothing
/// else is in the pool.
fn each_line_once(pool: &Pool, lines: &[LineKey]) {
    let batch = submit_keyed(pool, lines, &mut Notes::default()).unwrap();
    let members = members::of_batch(pool.layout(), batch).unwrap();
    let keys: Vec<_> = members.iter().map(|member| member.key.unwrap()).collect();
    assert_eq!(keys, lines);
    let mut there: Vec<_> = everything(pool).iter().map(|found| found.name.id).collect();
    there.sort_unstable();
    assert_eq!(there, members.iter().map(|member| member.id).collect::<Vec<_>>());
    assert_eq!(submit_keyed(pool, lines, &mut Notes::default()).unwrap(), batch);
}

#[test]
fn a_batch_under_a_key_is_submitted_once_however_often_its_submitter_dies() {
    play(&Scene {
        prepare: &|_pool, _notes| (),
        act: &|pool, _ledger, (), notes| submit_keyed(pool, &lines(3), notes).map(drop),
        check: &|pool, _notes, _acted| each_line_once(pool, &lines(3)),
    });
}

#[test]
fn a_batch_that_grows_under_its_key_gets_what_is_missing_and_nothing_twice() {
    play(&Scene {
        prepare: &|pool, notes| {
            submit_keyed(pool, &lines(2), notes).unwrap();
            notes.together.clear();
        },
        act: &|pool, _ledger, (), notes| submit_keyed(pool, &lines(5), notes).map(drop),
        check: &|pool, _notes, _acted| each_line_once(pool, &lines(5)),
    });
}

/// A batch of which some lines have keys of their own.
fn submit_lines(pool: &Pool, notes: &mut Notes) -> Result<Vec<TaskId>, Error> {
    let names = ["first", "second", "third"];
    let keys = Keys::wait(pool)?;
    let mut ids = Vec::new();
    let mut new = Vec::new();
    for name in names {
        let task = task(PLAIN);
        let found = keys.find(name)?;
        ids.push(found.unwrap_or(task.id));
        new.extend(found.is_none().then_some((name, task)));
    }
    let mut bulk = Bulk::new(pool)?;
    for (name, task) in &new {
        bulk.add(task)?;
        keys.intend(name, task.id)?;
    }
    notes.together = new.iter().map(|(_name, task)| task.id).collect();
    if !new.is_empty() {
        bulk.commit()?;
    }
    notes.acknowledged.extend(&notes.together);
    for (name, task) in &new {
        keys.submitted(name, task.id)?;
    }
    Ok(ids)
}

#[test]
fn the_keys_of_a_batchs_lines_name_one_task_each_however_often_its_submitter_dies() {
    play(&Scene {
        prepare: &|_pool, _notes| (),
        act: &|pool, _ledger, (), notes| submit_lines(pool, notes).map(drop),
        check: &|pool, notes, _acted| {
            let ids = submit_lines(pool, &mut Notes::default()).unwrap();
            let mut there: Vec<_> = everything(pool).iter().map(|found| found.name.id).collect();
            there.sort_unstable();
            assert_eq!(there, ids);
            let first = &notes.acknowledged;
            assert!(first.is_empty() || *first == ids, "{first:?} became {ids:?}");
            for id in ids {
                assert!(places::find(pool.layout(), id).unwrap().is_some());
            }
        },
    });
}
