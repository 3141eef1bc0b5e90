//! The night that the project was born from, in virtual time: three workers without a model, 125
//! tasks, and the brain's own core. The same with things going wrong, and with eight models.

use tests::placement::{Arrivals, Fault, SetUp, Sim, Went, batch_of, bound, mixed};

/// A load of 5 s and 125 answers of 0.3 s, on three workers.
fn night() -> SetUp {
    batch_of(3, 125, 300, 5_000)
}

/// The load and a third of the work, in milliseconds.
const IDEAL: u64 = 5_000 + 125 * 300 / 3;

fn went(set_up: &SetUp, faults: &[Fault]) -> Went {
    Sim::new(set_up, faults).run()
}

fn lines<'a>(went: &'a Went, name: &str) -> Vec<&'a str> {
    went.said.iter().filter_map(|line| line.strip_prefix(name)).map(str::trim).collect()
}

#[test]
fn the_night_all_three_workers_load_at_once_and_share_evenly() {
    let went = went(&night(), &[]);
    assert_eq!(went.load_times, [0, 0, 0]);
    assert!(went.tasks.iter().all(|tasks| (40..=43).contains(tasks)), "{:?}", went.tasks);
    assert!(went.ended * 100 <= IDEAL * 115, "{} of {IDEAL} ms", went.ended);
    let said = lines(&went, "models.load_inserted");
    assert_eq!(said.len(), 3);
    let words = "LLM tasks waiting (125) but no models loaded - inserting load_llm task";
    assert!(said.iter().all(|line| line.starts_with(words)), "{said:?}");
}

#[test]
fn the_night_with_a_worker_that_dies_in_its_load() {
    let went = went(&night(), &[Fault::Kill { worker: 1, at: 2_000 }]);
    assert_eq!(lines(&went, "models.withdrawn").len(), 1, "what was asked of the dead");
    assert_eq!(went.load_times.len(), 4, "it loads again when it is back");
    assert!(went.tasks.iter().all(|tasks| *tasks > 25), "{:?}", went.tasks);
    // It is ready 4 s after the others: that is all that is lost, shared by three.
    assert!(went.ended * 100 <= (IDEAL + 4_000 / 3 + 300) * 115, "{}", went.ended);
}

#[test]
fn the_night_with_a_server_that_refuses_to_load() {
    let went = went(&night(), &[Fault::Refuse { worker: 2, until: 3_600_000 }]);
    assert_eq!(went.tasks[2], 0);
    assert_eq!(lines(&went, "models.load_failed").len(), 1, "not asked again and again");
    let ideal = 5_000 + 125 * 300 / 2;
    assert!(went.ended * 100 <= ideal * 115, "{} of {ideal} ms", went.ended);
}

#[test]
fn the_night_with_the_brain_killed_in_the_middle() {
    let before = went(&night(), &[]);
    for at in [50, 2_500, 5_050, 9_000] {
        let after = went(&night(), &[Fault::Brain { at, gap: 3_000 }]);
        assert_eq!(after.decisions, before.decisions, "killed at {at} ms: nothing is doubled");
        assert_eq!(after.ended, before.ended, "killed at {at} ms");
    }
}

#[test]
fn a_brain_that_takes_over_decides_what_the_last_one_would_have() {
    let set_up = mixed(2, 500, Arrivals::Stream(0.7), 60_000);
    let before = went(&set_up, &[]);
    assert!(before.decisions.len() > 10, "there is something to decide");
    for at in [10_000, 60_000, 130_000] {
        let after = went(&set_up, &[Fault::Brain { at, gap: 0 }]);
        assert_eq!(after.decisions, before.decisions, "another brain from {at} ms on");
    }
}

#[test]
fn eight_models_are_batched_and_nothing_waits_longer_than_it_may() {
    for workers in [2, 4] {
        let set_up = mixed(workers, 600, Arrivals::Stream(0.7), 120_000);
        let stream = went(&set_up, &[]);
        // One load of the largest model, an unload, one run, one look.
        let most = 120_000 + 12_000 + 300 + 1_000 + 1_000;
        assert!(stream.longest_wait <= most, "{workers} workers: {}", stream.longest_wait);
        let set_up = mixed(workers, 1_000, Arrivals::Batch, 3_600_000);
        let batch = went(&set_up, &[]);
        let least = bound(&set_up);
        assert!(batch.ended * 100 <= least * 120, "{workers}: {} of {least}", batch.ended);
    }
}

#[test]
fn a_pool_with_too_much_to_do_does_not_swap_itself_to_death() {
    let set_up = mixed(2, 1_000, Arrivals::Batch, 30_000);
    let went = went(&set_up, &[]);
    assert!(went.loads < 40, "{} loads", went.loads);
}
