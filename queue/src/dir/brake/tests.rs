//! Brakes between claims and ends: what they hold, what they let through, and what is left of them
//! wherever the process dies.

use shared::id::TaskId;
use shared::outcome::Cause;

use super::*;
use crate::dir::claim::cursor::Pass;
use crate::dir::disk::place::Place;
use crate::dir::find::counts::Counter;
use crate::dir::find::places;
use crate::dir::fixture::{ANY, claim, cursor, end, ledger, pool_at, scratch, state, submit};
use crate::dir::operate;
use crate::dir::recover::promote::Promoter;
use crate::dir::submit::one::Submitter;
use crate::dir::tests::crash::work;
use crate::dir::tests::plug::{Scene, play};
use crate::dir::{Pool, Rules};
use crate::store::contract::task;
use crate::wire::brake::{ATTEMPTS, LONGEST_AWAY, Signature};
use crate::wire::retry::Verdict;

const BAD: &str = r#"{"command": ["bad"], "class": "cpu"}"#;
const GOOD: &str = r#"{"command": ["good"], "class": "cpu"}"#;

fn failure(task: TaskId, at: Moment) -> FailedAtOnce {
    FailedAtOnce {
        key: key(),
        batch: None,
        task,
        worker: "w".parse().unwrap(),
        at,
        signature: Signature::new(Cause::ExitCode, Some(1), None, "no"),
        line: "no".into(),
    }
}

fn key() -> BrakeKey {
    BrakeKey::of(&task(BAD)).unwrap()
}

/// Counts as many failures as it takes, as of so many seconds ago.
fn hold(pool: &Pool, ago: i64) {
    let at = Moment::now().plus_millis(-ago * 1000);
    for number in 1..=ATTEMPTS {
        let (counted, _brake) = pool.brakes().count(failure(TaskId::new(), at)).unwrap();
        assert_eq!(counted == Counted::NowHeld, number == ATTEMPTS);
    }
}

/// Since a day ago, and the last probe has failed just now.
fn hold_for_a_day(pool: &Pool) {
    hold(pool, 24 * 3600);
    let mut brake = pool.brakes().read(&key()).unwrap().unwrap();
    brake.held.as_mut().unwrap().next_probe = Moment::now();
    pool.brakes().write(&brake).unwrap();
}

fn turn_of(pool: &Pool, worker: &str) -> Option<(TaskId, BrakeTurn)> {
    claim(&mut cursor(pool, worker)).map(|claim| (claim.name().id, claim.turn()))
}

const PROBE_FAILED: Verdict =
    Verdict::ProbeFailed { cause: Cause::ExitCode, pause: Duration::from_secs(70) };

#[test]
fn what_is_held_waits_in_a_lane_of_its_own_and_others_go_on() {
    let home = scratch();
    let pool = pool_at(home.path());
    let bad: Vec<TaskId> = (0..3).map(|_task| submit(&pool, BAD)).collect();
    let good = submit(&pool, GOOD);
    hold(&pool, 0);
    assert_eq!(turn_of(&pool, "w"), Some((good, BrakeTurn::Free)));
    match cursor(&pool, "w").pass(&ANY, &mut |_note| {}).unwrap() {
        Pass::Nothing { limited, .. } => assert_eq!(limited[0].1.key, key().as_str()),
        claimed @ Pass::Claimed { .. } => panic!("{claimed:?}"),
    }
    assert!(bad.iter().all(|id| state(&pool, *id).unwrap().0 == "pending"));
    let counts = Counter::default().take(&pool).unwrap();
    assert_eq!((counts.pending, counts.held), (1, 2), "one is tried");
    let ids = bad.iter().copied().collect();
    assert_eq!(operate::brakes_of(&pool, &ids).unwrap()[0].tasks, ids);
    assert!(operate::let_go(&pool, &key()).unwrap().is_some());
    assert_eq!(turn_of(&pool, "w"), Some((bad[0], BrakeTurn::Free)));
    assert!(operate::let_go(&pool, &key()).unwrap().is_none());
}

#[test]
fn one_probe_at_a_time_goes_through_and_counts_as_no_failure() {
    let home = scratch();
    let pool = pool_at(home.path());
    let ids: Vec<TaskId> = (0..3).map(|_task| submit(&pool, BAD)).collect();
    hold(&pool, 31);
    let probe = claim(&mut cursor(&pool, "w")).unwrap();
    assert_eq!(
        (probe.name().id, probe.turn()),
        (ids[0], BrakeTurn::Probe(Duration::from_secs(70)))
    );
    assert_eq!(turn_of(&pool, "other"), None, "it is alone");
    end(*probe, &ledger(&pool, "w"), PROBE_FAILED);
    assert_eq!(turn_of(&pool, "other"), None, "the next one comes after the pause");
    let (place, name) = state(&pool, ids[0]).unwrap();
    assert_eq!((place, name.attempt, name.failures), ("delayed", 2, 0));
    let mut brake = pool.brakes().read(&key()).unwrap().unwrap();
    brake.held.as_mut().unwrap().next_probe = Moment::now();
    pool.brakes().write(&brake).unwrap();
    assert_eq!(turn_of(&pool, "w").map(|(id, _turn)| id), Some(ids[1]), "another task");
}

#[test]
fn what_was_held_for_a_day_is_claimed_to_be_ended_until_a_person_lets_it_go() {
    let home = scratch();
    let pool = pool_at(home.path());
    let old = || {
        let submitted_at = Moment::now().plus_millis(-25 * 3_600_000);
        let task = Task { submitted_at, ..task(BAD) };
        Submitter::new(&pool).unwrap().submit(&task).unwrap();
        task.id
    };
    let ids = [old(), old(), submit(&pool, BAD), old()];
    hold_for_a_day(&pool);
    assert_eq!(turn_of(&pool, "w"), Some((ids[0], BrakeTurn::Over)));
    operate::let_go(&pool, &key()).unwrap();
    assert_eq!(turn_of(&pool, "w"), Some((ids[1], BrakeTurn::Free)));
    hold_for_a_day(&pool);
    assert_eq!(turn_of(&pool, "w"), Some((ids[2], BrakeTurn::Free)), "it was not held for a day");
    assert_eq!(turn_of(&pool, "w"), Some((ids[3], BrakeTurn::Free)), "with it all begins anew");
}

#[test]
fn a_success_between_begins_the_row_anew_and_who_wants_no_brake_has_none() {
    let home = scratch();
    let pool = pool_at(home.path());
    for _row in 0..3 {
        for _attempt in 1..ATTEMPTS {
            let (counted, _brake) =
                pool.brakes().count(failure(TaskId::new(), Moment::now())).unwrap();
            assert!(matches!(counted, Counted::First | Counted::Yes), "{counted:?}");
        }
        assert_eq!(pool.brakes().end(&key()).unwrap(), None, "it did not hold");
    }
    hold(&pool, 0);
    let off = submit(&pool, r#"{"command": ["bad"], "class": "cpu", "brake": "off"}"#);
    assert_eq!(turn_of(&pool, "w"), Some((off, BrakeTurn::Free)));
}

#[test]
fn a_brake_that_cannot_be_read_is_none() {
    let home = scratch();
    let pool = pool_at(home.path());
    let id = submit(&pool, BAD);
    hold(&pool, 0);
    std::fs::write(pool.layout().brake(&key()), "{\"schema\":").unwrap();
    assert_eq!(turn_of(&pool, "w"), Some((id, BrakeTurn::Free)));
}

/// The last failure holds the rest, all are moved, one is tried, and the brake is taken off.
#[test]
fn wherever_the_process_dies_nothing_is_lost_and_all_goes_on() {
    play(&Scene {
        prepare: &|pool, notes| {
            notes.acknowledged.extend([submit(pool, BAD), submit(pool, GOOD), submit(pool, BAD)]);
            hold(pool, 31);
        },
        act: &|pool, _ledger, (), _notes| {
            work(pool, "worker-1", PROBE_FAILED)?;
            work(pool, "worker-1", Verdict::Succeeded)?;
            pool.brakes().count(failure(TaskId::new(), Moment::now()))?;
            pool.brakes().end(&key())?;
            pool.brakes().count(failure(TaskId::new(), Moment::now()))?;
            Ok(())
        },
        check: &|pool, _notes, _acted| {
            pool.brakes().end(&key()).unwrap();
        },
    });
}

#[test]
fn a_probe_that_failed_stays_away_also_where_that_is_longer_than_any_retry() {
    let home = scratch();
    let pool = pool_at(home.path());
    let id = submit(&pool, BAD);
    let now = Moment::now();
    let away = now.plus_millis(i64::try_from(LONGEST_AWAY.as_millis()).unwrap());
    let found = places::find(pool.layout(), id).unwrap().unwrap();
    let delayed = Place::Delayed { due: away.unix_seconds() }.dir(pool.layout());
    publish::make_dirs(&delayed).unwrap();
    let again = delayed.join(found.name.again().file_name());
    publish::move_new(&found.path(pool.layout()), &again).unwrap();
    let mut promoter = Promoter::new(&pool);
    assert!(promoter.step(&ledger(&pool, "w"), now).unwrap().is_empty());
    let set_back = now.plus_millis(-3_600_000);
    assert_eq!(promoter.step(&ledger(&pool, "w"), set_back).unwrap().len(), 1);
}

#[test]
fn where_the_pool_uses_no_brakes_one_that_is_left_says_and_holds_nothing() {
    let home = scratch();
    let pool = pool_at(home.path());
    let ids = [submit(&pool, BAD), submit(&pool, BAD)];
    hold(&pool, 0);
    let rules = Rules { brake: task::BrakeUse::Off, ..Rules::default() };
    let off = Pool::open(home.path(), rules).unwrap();
    assert_eq!(Counter::default().take(&off).unwrap().held, 0);
    assert!(off.brakes().all().unwrap().is_empty());
    assert!(operate::brakes_of(&off, &ids.into()).unwrap().is_empty());
    assert_eq!(turn_of(&off, "w"), Some((ids[0], BrakeTurn::Free)));
    assert!(operate::let_go(&off, &key()).unwrap().is_some(), "it can be cleared away");
}
