//! What a store means, as a suite that every store passes. It is the specification: whoever writes
//! the next store starts with these tests red.

use shared::id::TaskId;
use shared::name::Name;
use shared::outcome::{Cause, Outcome};
use shared::task::{Class, Task, TaskName, parse_spec};
use shared::time::Moment;

use crate::store::{Answer, Claimed, SettleAnswer, State, Store, TaskVerb, Wish};
use crate::wire::ledger_line::Line;
use crate::wire::retry::{self, Policy, Verdict};

/// A task as its submitter writes it, from a spec.
pub(crate) fn task(spec: &str) -> Task {
    Task {
        id: TaskId::new(),
        batch_id: None,
        submitted_at: Moment::now(),
        submitted_by: "ann@host".into(),
        correlation_id: "c0ffee".into(),
        spec: parse_spec(spec.as_bytes()).unwrap(),
    }
}

/// The line of an attempt that ended so.
pub(crate) fn line(task: &Task, name: TaskName, verdict: Verdict) -> Line {
    let policy = Policy::default().of(task);
    Line::new(task.clone(), name, verdict, retry::next(name, verdict, &policy, Moment::now(), 0.0))
}

const FAILED: Verdict = Verdict::Failed(Cause::ExitCode);
const ALL: &[Class] = &[Class::Resource, Class::Script, Class::Cpu, Class::Llm];

/// Runs the whole suite, each part on a store of its own.
pub(crate) fn exercise<S: Store>(make: impl Fn() -> S) {
    let parts: &[fn(&Bench<S>)] = &[
        nothing_is_claimed_from_an_empty_store,
        tasks_of_a_lane_are_claimed_in_the_order_they_came,
        a_higher_priority_comes_first_and_then_the_preferred_class,
        only_what_the_worker_may_take_is_claimed,
        a_claimed_task_is_nobody_elses,
        a_name_has_one_life_at_a_time,
        a_task_that_succeeded_never_comes_back,
        a_failed_task_comes_back_later_as_the_next_attempt,
        the_third_failure_is_the_last,
        what_was_not_ready_or_given_back_counts_nothing,
        a_dead_workers_task_is_put_back_at_once,
        a_task_that_kills_three_workers_is_taken_out,
        what_nobody_runs_can_be_cancelled,
        a_cancel_of_a_running_task_outlives_its_worker,
        a_held_task_is_not_claimed_until_it_is_released,
        a_retried_task_starts_with_a_clean_slate_and_a_new_number,
        a_task_for_later_is_not_early,
        a_dependent_runs_when_what_it_needs_has_ended_so,
        hopeless_tasks_end_and_take_their_dependents_with_them,
        a_retried_dependency_is_open_again,
        a_batch_comes_whole_and_in_order,
        unknown_tasks_are_said_to_be_unknown,
        what_does_not_fit_the_state_is_refused,
    ];
    for part in parts {
        part(&Bench { store: make() });
    }
}

/// A store under test, and what the parts do with it.
struct Bench<S> {
    store: S,
}

fn worker(number: u32) -> Name {
    format!("worker-{number}").parse().unwrap()
}

impl<S: Store> Bench<S> {
    fn submit(&self, spec: &str) -> TaskId {
        let task = task(spec);
        self.store.submit(&task).unwrap();
        task.id
    }

    fn join(&self, number: u32) -> S::Seat {
        self.store.join(&worker(number)).unwrap().expect("the name is free")
    }

    fn claim(&self, seat: &mut S::Seat) -> Option<S::Claim> {
        self.store.claim(seat, &Wish { classes: ALL, open: &|_lane| true }).unwrap()
    }

    fn claim_id(&self, seat: &mut S::Seat) -> Option<TaskId> {
        self.claim(seat).map(|claim| claim.task().id)
    }

    fn end(&self, claim: S::Claim, verdict: Verdict) {
        let line = line(claim.task(), claim.name(), verdict);
        assert!(claim.end(&line).is_ok());
    }

    #[track_caller]
    fn is(&self, id: TaskId, state: State) {
        assert_eq!(self.store.find(id).unwrap().map(|found| found.state), Some(state));
    }

    /// Attempt, failures, deaths.
    fn counters(&self, id: TaskId) -> (u32, u32, u32) {
        let name = self.store.find(id).unwrap().unwrap().name;
        (name.attempt, name.failures, name.deaths)
    }

    #[track_caller]
    fn done(&self, id: TaskId, verb: TaskVerb) {
        assert_eq!(self.store.change(id, verb).unwrap(), Answer::Done);
    }

    /// Promotes until nothing moves, as if it were so much later.
    fn promote_in(&self, seconds: i64) {
        while self.store.promote(Moment::now().plus_millis(seconds * 1000)).unwrap() > 0 {}
    }

    /// The next worker of this number claims it and dies.
    fn die_with(&self, number: u32, id: TaskId) {
        let mut seat = self.join(number);
        let claim = self.claim(&mut seat).unwrap();
        assert_eq!(claim.task().id, id);
        drop(claim);
        drop(seat);
        assert!(self.store.join(&worker(number)).unwrap().is_none(), "not settled yet");
        let settled = self.store.settle(&worker(number)).unwrap();
        assert_eq!(settled, SettleAnswer::Dead { settled: 1, left: 0 });
    }
}

fn nothing_is_claimed_from_an_empty_store<S: Store>(bench: &Bench<S>) {
    assert!(bench.claim(&mut bench.join(1)).is_none());
    assert_eq!(bench.store.promote(Moment::now()).unwrap(), 0);
}

fn tasks_of_a_lane_are_claimed_in_the_order_they_came<S: Store>(bench: &Bench<S>) {
    let ids: Vec<_> = (0..20).map(|_| bench.submit(r#"{"shell": "true"}"#)).collect();
    let mut seat = bench.join(1);
    let claimed: Vec<_> = std::iter::from_fn(|| bench.claim_id(&mut seat)).collect();
    assert_eq!(claimed, ids);
}

fn a_higher_priority_comes_first_and_then_the_preferred_class<S: Store>(bench: &Bench<S>) {
    let low = bench.submit(r#"{"shell": "true", "class": "script", "priority": 1}"#);
    let cpu = bench.submit(r#"{"shell": "true", "class": "cpu"}"#);
    let script = bench.submit(r#"{"shell": "true", "class": "script"}"#);
    let high = bench.submit(r#"{"shell": "true", "class": "cpu", "priority": 10}"#);
    let mut seat = bench.join(1);
    let claimed: Vec<_> = std::iter::from_fn(|| bench.claim_id(&mut seat)).collect();
    assert_eq!(claimed, [high, script, cpu, low]);
}

fn only_what_the_worker_may_take_is_claimed<S: Store>(bench: &Bench<S>) {
    bench.submit(r#"{"shell": "true", "gpu_memory": "8GiB"}"#);
    bench.submit(r#"{"shell": "true", "class": "cpu"}"#);
    let small = bench.submit(r#"{"shell": "true"}"#);
    let mut seat = bench.join(1);
    let wish = Wish { classes: &[Class::Script], open: &|lane| lane.gpu_memory.is_none() };
    let claim = bench.store.claim(&mut seat, &wish).unwrap();
    assert_eq!(claim.map(|claim| claim.task().id), Some(small));
    assert!(bench.store.claim(&mut seat, &wish).unwrap().is_none());
}

fn a_claimed_task_is_nobody_elses<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "true"}"#);
    let (mut first, mut second) = (bench.join(1), bench.join(2));
    let claim = bench.claim(&mut first);
    assert_eq!(claim.as_ref().map(|claim| claim.name()), Some(TaskName::first(id)));
    assert!(bench.claim(&mut second).is_none());
    assert!(bench.claim(&mut first).is_none());
    bench.is(id, State::Processing { worker: worker(1) });
}

fn a_name_has_one_life_at_a_time<S: Store>(bench: &Bench<S>) {
    let seat = bench.join(1);
    assert!(bench.store.join(&worker(1)).unwrap().is_none());
    assert_eq!(bench.store.settle(&worker(1)).unwrap(), SettleAnswer::Living);
    drop(seat);
    assert_eq!(bench.store.settle(&worker(1)).unwrap(), SettleAnswer::Dead { settled: 0, left: 0 });
    drop(bench.join(1));
}

fn a_task_that_succeeded_never_comes_back<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "true"}"#);
    let mut seat = bench.join(1);
    bench.end(bench.claim(&mut seat).unwrap(), Verdict::Succeeded);
    bench.promote_in(1000);
    assert!(bench.claim(&mut seat).is_none());
    bench.is(id, State::Ended(Outcome::Succeeded));
    drop(seat);
    assert_eq!(bench.store.settle(&worker(1)).unwrap(), SettleAnswer::Dead { settled: 0, left: 0 });
    bench.is(id, State::Ended(Outcome::Succeeded));
}

fn a_failed_task_comes_back_later_as_the_next_attempt<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "false"}"#);
    let mut seat = bench.join(1);
    bench.end(bench.claim(&mut seat).unwrap(), FAILED);
    bench.is(id, State::Delayed);
    bench.promote_in(-5);
    assert!(bench.claim(&mut seat).is_none(), "not before the pause is over");
    bench.promote_in(5);
    let again = bench.claim(&mut seat).expect("the pause is over");
    assert_eq!(again.name(), TaskName::first(id).failed());
}

fn the_third_failure_is_the_last<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "false"}"#);
    let mut seat = bench.join(1);
    for _ in 0..3 {
        bench.end(bench.claim(&mut seat).unwrap(), FAILED);
        bench.promote_in(1000);
    }
    bench.is(id, State::Failed);
    assert_eq!(bench.counters(id), (3, 3, 0));
    assert!(bench.claim(&mut seat).is_none());
}

fn what_was_not_ready_or_given_back_counts_nothing<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "exit 75"}"#);
    let mut seat = bench.join(1);
    for _ in 0..5 {
        bench.end(bench.claim(&mut seat).unwrap(), Verdict::NotReady(Cause::ExitCode));
        bench.is(id, State::Delayed);
        bench.promote_in(1000);
    }
    bench.end(bench.claim(&mut seat).unwrap(), Verdict::Returned);
    bench.is(id, State::Pending);
    assert_eq!(bench.counters(id), (7, 0, 0));
}

fn a_dead_workers_task_is_put_back_at_once<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "true"}"#);
    bench.die_with(1, id);
    bench.is(id, State::Pending);
    assert_eq!(bench.counters(id), (2, 0, 1));
    bench.end(bench.claim(&mut bench.join(1)).unwrap(), Verdict::Succeeded);
    bench.is(id, State::Ended(Outcome::Succeeded));
}

fn a_task_that_kills_three_workers_is_taken_out<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "true"}"#);
    for number in 1..=3 {
        bench.die_with(number, id);
    }
    bench.is(id, State::Failed);
    assert_eq!(bench.counters(id), (3, 0, 3));
}

fn what_nobody_runs_can_be_cancelled<S: Store>(bench: &Bench<S>) {
    let later = (Moment::now().plus_millis(100_000)).to_string();
    let pending = bench.submit(r#"{"shell": "true"}"#);
    let held = bench.submit(r#"{"shell": "true", "hold": true}"#);
    let waiting = bench.submit(&format!(r#"{{"shell": "true", "after": ["{held}"]}}"#));
    let delayed = bench.submit(&format!(r#"{{"shell": "true", "at": "{later}"}}"#));
    for id in [pending, waiting, held, delayed] {
        bench.done(id, TaskVerb::Cancel);
        bench.is(id, State::Ended(Outcome::Cancelled));
        let again = bench.store.change(id, TaskVerb::Cancel).unwrap();
        assert_eq!(again, Answer::NotThere(State::Ended(Outcome::Cancelled)));
    }
    bench.promote_in(1000);
    assert!(bench.claim(&mut bench.join(1)).is_none());
}

fn a_cancel_of_a_running_task_outlives_its_worker<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "true"}"#);
    let mut seat = bench.join(1);
    let claim = bench.claim(&mut seat);
    let asked = bench.store.change(id, TaskVerb::Cancel).unwrap();
    assert_eq!(asked, Answer::Asked { worker: worker(1) });
    bench.is(id, State::Processing { worker: worker(1) });
    drop(claim);
    drop(seat);
    bench.store.settle(&worker(1)).unwrap();
    bench.is(id, State::Ended(Outcome::Cancelled));
}

fn a_held_task_is_not_claimed_until_it_is_released<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "true"}"#);
    let mut seat = bench.join(1);
    bench.done(id, TaskVerb::Hold);
    bench.is(id, State::Held);
    bench.promote_in(1000);
    assert!(bench.claim(&mut seat).is_none());
    bench.done(id, TaskVerb::Release);
    let claim = bench.claim(&mut seat).unwrap();
    assert_eq!(claim.name(), TaskName::first(id), "nothing was counted");
}

fn a_retried_task_starts_with_a_clean_slate_and_a_new_number<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "false", "max_attempts": 1}"#);
    let mut seat = bench.join(1);
    bench.end(bench.claim(&mut seat).unwrap(), FAILED);
    bench.is(id, State::Failed);
    bench.done(id, TaskVerb::Retry);
    bench.is(id, State::Pending);
    assert_eq!(bench.counters(id), (2, 0, 0));
    bench.end(bench.claim(&mut seat).unwrap(), Verdict::Succeeded);
    bench.is(id, State::Ended(Outcome::Succeeded));
}

fn a_task_for_later_is_not_early<S: Store>(bench: &Bench<S>) {
    let at = Moment::now().plus_millis(100_000);
    let id = bench.submit(&format!(r#"{{"shell": "true", "at": "{at}"}}"#));
    bench.promote_in(0);
    bench.is(id, State::Delayed);
    assert!(bench.claim(&mut bench.join(1)).is_none());
}

fn a_dependent_runs_when_what_it_needs_has_ended_so<S: Store>(bench: &Bench<S>) {
    let on = |id, on| {
        bench.submit(&format!(r#"{{"shell": "true", "after": [{{"id": "{id}", "on": "{on}"}}]}}"#))
    };
    let good = bench.submit(r#"{"shell": "true"}"#);
    let bad = bench.submit(r#"{"shell": "false", "max_attempts": 1}"#);
    let (success, any) = (on(good, "success"), on(good, "any"));
    let (failure, any_bad) = (on(bad, "failure"), on(bad, "any"));
    bench.promote_in(0);
    let all = [success, any, failure, any_bad];
    all.iter().for_each(|id| bench.is(*id, State::Waiting));
    let mut seat = bench.join(1);
    bench.end(bench.claim(&mut seat).unwrap(), Verdict::Succeeded);
    bench.end(bench.claim(&mut seat).unwrap(), FAILED);
    bench.promote_in(0);
    all.iter().for_each(|id| bench.is(*id, State::Pending));
    // What has ended long ago is seen too.
    let late = on(good, "success");
    bench.promote_in(0);
    bench.is(late, State::Pending);
}

fn hopeless_tasks_end_and_take_their_dependents_with_them<S: Store>(bench: &Bench<S>) {
    let bad = bench.submit(r#"{"shell": "false", "max_attempts": 1}"#);
    let after = |id| bench.submit(&format!(r#"{{"shell": "true", "after": ["{id}"]}}"#));
    let first = after(bad);
    let second = after(first);
    bench.end(bench.claim(&mut bench.join(1)).unwrap(), FAILED);
    bench.promote_in(0);
    bench.is(first, State::Ended(Outcome::Cancelled));
    bench.is(second, State::Ended(Outcome::Cancelled));
}

fn a_retried_dependency_is_open_again<S: Store>(bench: &Bench<S>) {
    let bad = bench.submit(r#"{"shell": "false", "max_attempts": 1}"#);
    let after = || bench.submit(&format!(r#"{{"shell": "true", "after": ["{bad}"]}}"#));
    let early = after();
    // This one goes on waiting, so the store has reason to remember how the first try ended.
    let held = bench.submit(r#"{"shell": "true", "hold": true}"#);
    let both = format!(r#"[{{"id": "{bad}", "on": "any"}}, "{held}"]"#);
    let patient = bench.submit(&format!(r#"{{"shell": "true", "after": {both}}}"#));
    let mut seat = bench.join(1);
    bench.promote_in(0);
    bench.end(bench.claim(&mut seat).unwrap(), FAILED);
    bench.promote_in(0);
    bench.is(early, State::Ended(Outcome::Cancelled));
    bench.done(bad, TaskVerb::Retry);
    let late = after();
    bench.promote_in(0);
    bench.is(late, State::Waiting);
    bench.end(bench.claim(&mut seat).unwrap(), Verdict::Succeeded);
    bench.promote_in(0);
    bench.is(late, State::Pending);
    bench.is(patient, State::Waiting);
}

fn a_batch_comes_whole_and_in_order<S: Store>(bench: &Bench<S>) {
    let specs = [
        r#"{"shell": "true"}"#,
        r#"{"shell": "true", "class": "cpu"}"#,
        r#"{"shell": "true", "hold": true}"#,
        r#"{"shell": "true"}"#,
    ];
    let tasks: Vec<_> = specs.iter().map(|spec| task(spec)).collect();
    bench.store.submit_all(&tasks).unwrap();
    bench.is(tasks[2].id, State::Held);
    let mut seat = bench.join(1);
    let claimed: Vec<_> = std::iter::from_fn(|| bench.claim_id(&mut seat)).collect();
    assert_eq!(claimed, [tasks[0].id, tasks[3].id, tasks[1].id]);
}

fn unknown_tasks_are_said_to_be_unknown<S: Store>(bench: &Bench<S>) {
    let nobody = TaskId::new();
    assert_eq!(bench.store.find(nobody).unwrap(), None);
    for verb in TaskVerb::ALL {
        assert_eq!(bench.store.change(nobody, *verb).unwrap(), Answer::Unknown);
    }
    let waiting = bench.submit(&format!(r#"{{"shell": "true", "after": ["{nobody}"]}}"#));
    bench.promote_in(0);
    bench.is(waiting, State::Waiting);
}

fn what_does_not_fit_the_state_is_refused<S: Store>(bench: &Bench<S>) {
    let id = bench.submit(r#"{"shell": "true"}"#);
    for verb in [TaskVerb::Release, TaskVerb::Retry] {
        let refused = bench.store.change(id, verb).unwrap();
        assert_eq!(refused, Answer::NotThere(State::Pending));
    }
    let mut seat = bench.join(1);
    let claim = bench.claim(&mut seat);
    let running = State::Processing { worker: worker(1) };
    for verb in [TaskVerb::Hold, TaskVerb::Release, TaskVerb::Retry] {
        assert_eq!(bench.store.change(id, verb).unwrap(), Answer::NotThere(running.clone()));
    }
    bench.end(claim.unwrap(), Verdict::Succeeded);
    for verb in TaskVerb::ALL {
        let ended = Answer::NotThere(State::Ended(Outcome::Succeeded));
        assert_eq!(bench.store.change(id, *verb).unwrap(), ended);
    }
}
