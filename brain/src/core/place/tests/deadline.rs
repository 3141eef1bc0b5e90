//! What is asked of whom when time presses: deadlines, as tables of what is seen.

use std::sync::Arc;

use shared::quantity::Span;
use shared::task::Class;

use super::fixture::*;

#[test]
fn no_task_waits_longer_than_it_may_and_no_model_leaves_at_once() {
    let old = |age| Work(Class::Llm, "b", 1, age, 5);
    // age of the other work, for how long the model was there, whether it must go
    for (age, resident, goes) in [
        (10, 1_000, false),
        (570, 1_000, false),
        (590, 1_000, true),
        (590, 25, false),
        (601, 25, true),
        (601, 15, false),
    ] {
        let mut stage = stage(1);
        holds(&mut stage, "worker-1", "a", resident);
        waits(&mut stage, &[llm("a", 1_000), old(age)]);
        let expected: &[&str] = if goes { &["worker-1 unload_llm a for b"] } else { &[] };
        assert_eq!(decide(&mut stage), expected, "{age} {resident}");
    }
    // Where all have waited too long, swapping would only make it worse.
    let mut late = stage(1);
    holds(&mut late, "worker-1", "a", 1_000);
    waits(&mut late, &[Work(Class::Llm, "a", 1_000, 900, 5), old(901)]);
    assert!(decide(&mut late).is_empty());
    // A task may say for itself how long it waits.
    let mut own = stage(1);
    holds(&mut own, "worker-1", "a", 1_000);
    waits(&mut own, &[llm("a", 1_000), old(100)]);
    let mut needs = own.seen.lanes[1].needs.as_deref().cloned().unwrap();
    needs.max_wait = Some(Span::seconds(60));
    own.seen.lanes[1].needs = Some(Arc::new(needs));
    assert_eq!(decide(&mut own), ["worker-1 unload_llm a for b"]);
}

#[test]
fn a_free_place_goes_to_the_earliest_deadline_and_deadlines_that_fall_together_are_spread() {
    let work = |model, tasks, age| Work(Class::Llm, model, tasks, age, 5);
    let mut free = stage(1);
    waits(&mut free, &[work("a", 1_000, 10), work("b", 1, 20)]);
    assert_eq!(decide(&mut free), ["worker-1 load_llm b"]);
    // One alone has time until 590 s; of four the first has to begin earlier, so that the last
    // one begins in time.
    for (others, age, goes) in [(0, 560, false), (0, 590, true), (3, 540, false), (3, 560, true)] {
        let mut stage = stage(1);
        holds(&mut stage, "worker-1", "a", 1_000);
        let mut all = vec![llm("a", 1_000), work("b", 1, age + 1)];
        all.extend(["c", "d", "e"].iter().take(others).map(|model| work(model, 1, age)));
        waits(&mut stage, &all);
        let expected: &[&str] = if goes { &["worker-1 unload_llm a for b"] } else { &[] };
        assert_eq!(decide(&mut stage), expected, "{others} {age}");
    }
}

#[test]
fn who_falls_behind_gets_the_next_free_place_in_the_order_of_deadlines() {
    // 50 tasks of 5 s on one worker are done within half of 600 s, 200 are not.
    for (tasks, goes) in [(50, "b"), (200, "a")] {
        let mut stage = stage(2);
        holds(&mut stage, "worker-1", "a", 50);
        waits(&mut stage, &[Work(Class::Llm, "a", tasks, 30, 5), llm("b", 100)]);
        assert_eq!(decide(&mut stage), [format!("worker-2 load_llm {goes}")], "{tasks}");
    }
}

#[test]
fn a_visit_is_cut_short_only_where_that_helps() {
    // With the place taken, c would be too late: only a long visit makes room.
    for (resident, goes) in [(100, false), (250, true)] {
        let mut stage = stage(1);
        holds(&mut stage, "worker-1", "a", resident);
        let late = |model, tasks| Work(Class::Llm, model, tasks, 601, 5);
        waits(&mut stage, &[llm("a", 1_000), late("b", 50), late("c", 1)]);
        let expected: &[&str] = if goes { &["worker-1 unload_llm a for b"] } else { &[] };
        assert_eq!(decide(&mut stage), expected, "{resident}");
    }
}
