//! The night that the project was born from, in virtual time: three workers without a model, 125
//! tasks, and the brain's own core. The same with things going wrong, and with eight models.

use tests::placement::{
    Arrivals, Fault, SetUp, Sim, SimResult, batch_of, bound, has_round, least_wait, mixed, random,
};

/// A load of 5 s and 125 answers of 0.3 s, on three workers.
fn night() -> SetUp {
    batch_of(3, 125, 300, 5_000)
}

/// The load and a third of the work, in milliseconds.
const IDEAL: u64 = 5_000 + 125 * 300 / 3;

fn went(set_up: &SetUp, faults: &[Fault]) -> SimResult {
    Sim::new(set_up, faults).run()
}

fn lines<'a>(went: &'a SimResult, name: &str) -> Vec<&'a str> {
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
fn eight_models_are_batched_and_end_near_the_bound() {
    for workers in [2, 4] {
        let set_up = mixed(workers, 1_000, Arrivals::Batch, 3_600_000);
        let batch = went(&set_up, &[]);
        let least = bound(&set_up);
        assert!(batch.ended * 100 <= least * 120, "{workers}: {} of {least}", batch.ended);
    }
}

#[test]
fn nothing_waits_longer_than_it_may_where_loads_take_all_the_time_that_is_left() {
    for (workers, busy, max_wait) in [(2, 0.7, 120_000), (4, 0.75, 60_000), (2, 0.5, 90_000)] {
        let set_up = mixed(workers, 1_500, Arrivals::Stream(busy), max_wait);
        assert!(!has_round(&set_up), "a plain round would not be enough");
        let (stream, most) = (went(&set_up, &[]), set_up.longest());
        assert!(stream.longest_wait <= most, "{workers}: {} of {most}", stream.longest_wait);
        let least = bound(&set_up);
        assert!(stream.ended * 100 <= least * 120, "{workers}: {} of {least}", stream.ended);
    }
}

#[test]
fn nothing_waits_longer_than_it_may_in_any_pool_where_a_plain_round_would_do() {
    let mut kept = 0;
    for seed in 0..50 {
        let set_up = random(seed, 150);
        if !has_round(&set_up) {
            continue;
        }
        kept += 1;
        let (went, most) = (went(&set_up, &[]), set_up.longest());
        assert!(went.longest_wait <= most, "seed {seed}: {} of {most} ms", went.longest_wait);
    }
    assert!(kept >= 20, "{kept} of them say something");
}

#[test]
fn nobody_stays_below_the_least_wait() {
    for (workers, busy) in [(2, 0.85), (1, 0.8)] {
        let set_up = mixed(workers, 300, Arrivals::Stream(busy), 10_000);
        let least = least_wait(&set_up);
        assert!(least > 0, "{workers} {busy}");
        let went = went(&set_up, &[]);
        assert!(went.longest_wait >= least, "{} beside {least}", went.longest_wait);
    }
    let alone = batch_of(1, 10, 300, 5_000);
    assert!(least_wait(&alone) <= went(&alone, &[]).longest_wait, "the last one waits for nine");
}

#[test]
fn a_pool_with_too_much_to_do_does_not_swap_itself_to_death() {
    let set_up = mixed(2, 1_000, Arrivals::Batch, 30_000);
    let went = went(&set_up, &[]);
    assert!(went.loads < 40, "{} loads", went.loads);
}
