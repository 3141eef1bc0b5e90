//! What is asked of whom, as tables of what is seen.

use std::sync::Arc;
use std::time::Duration;

use queue::wire::heartbeat::StandingOrder;
use shared::id::TaskId;
use shared::llm::{FailedLoad, Health, Loads, ModelVerb};
use shared::name::Name;
use shared::outcome::Cause;
use shared::settings::Settings;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use crate::core::fixture::{Stage, name, names, words};
use crate::core::words::command::Command;
use crate::core::words::event::Event;
use crate::core::words::snapshot::{Life, Paused};
use fixture::*;

#[test]
fn every_gpu_that_can_help_is_asked_at_once_in_the_words_of_old() {
    let mut stage = stage(3);
    waits(&mut stage, &[llm("m", 125)]);
    let commands = stage.look();
    assert_eq!(asked(&commands), all_load("m", 3));
    let said = words(&commands, "models.load_inserted");
    for (number, line) in (1..).zip(&said) {
        let start = format!(
            "LLM tasks waiting (125) but no models loaded - inserting load_llm task for worker-{number}: m"
        );
        assert!(line.starts_with(&start), "{line}");
    }
    let written = commands.iter().filter(|c| matches!(c, Command::RecordPlacement(_))).count();
    assert_eq!((said.len(), written), (3, 3));
}

#[test]
fn as_many_workers_as_the_work_is_worth() {
    // Unknown: 5 s for each answer, 10 s for a load.
    for (tasks, workers) in [(1, 1), (4, 1), (5, 2), (12, 2), (13, 3), (125, 3)] {
        let mut stage = stage(3);
        waits(&mut stage, &[llm("m", tasks)]);
        assert_eq!(decide(&mut stage), all_load("m", workers), "{tasks} tasks");
    }
}

#[test]
fn who_is_asked_is_not_asked_again_and_who_restarts_sees_what_was_asked() {
    let mut stage = stage(2);
    waits(&mut stage, &[llm("m", 125)]);
    stage.seen.requests = vec![request("worker-1", ModelVerb::Load, "m", "m")];
    assert_eq!(decide(&mut stage), ["worker-2 load_llm m"]);
    stage.seen.requests.clear();
    for worker in ["worker-1", "worker-2"] {
        stage.seen.processing.push(request(worker, ModelVerb::Load, "m", "m"));
    }
    assert!(decide(&mut stage).is_empty());
}

#[test]
fn a_request_that_could_not_be_written_is_tried_again_after_a_while() {
    let mut stage = stage(1);
    waits(&mut stage, &[llm("m", 10)]);
    assert_eq!(decide(&mut stage).len(), 1);
    assert!(asked(&stage.pass(4)).is_empty());
    assert_eq!(asked(&stage.pass(1)).len(), 1);
}

#[test]
fn who_cannot_be_asked_is_not_asked() {
    type Change = fn(&mut Stage);
    let table: [(&str, Change); 9] = [
        ("down", |stage| set(stage, "worker-1", |server| server.health = Health::Down)),
        ("wedged", |stage| set(stage, "worker-1", |server| server.health = Health::Wedged)),
        ("not asked yet", |stage| set(stage, "worker-1", |server| server.health = Health::Unknown)),
        ("does not know it", |stage| set(stage, "worker-1", |s| s.known = Some(vec!["n".into()]))),
        ("holds what it holds", |stage| set(stage, "worker-1", |s| s.loads = Loads::Fixed)),
        ("draining", |stage| {
            stage.beat("worker-1", |beat| {
                let since = Moment::from_unix_millis(0);
                beat.ability.draining =
                    Some(StandingOrder { by: "ann".into(), since, scope: "worker-1".into() });
            });
        }),
        ("paused", |stage| {
            stage.beat("worker-1", |beat| {
                let since = Moment::from_unix_millis(0);
                beat.ability.paused =
                    Some(StandingOrder { by: "ann".into(), since, scope: "worker-1".into() });
            });
        }),
        ("dead", |stage| stage.worker("worker-1").life = Life::Over),
        ("refused before", |stage| {
            let failed = FailedLoad {
                model: "m:latest".into(),
                cause: Cause::Oom,
                message: String::new(),
                at: Moment::from_unix_millis(0),
            };
            set(stage, "worker-1", |server| server.failed_loads = vec![failed]);
        }),
    ];
    for (why, change) in table {
        let mut stage = stage(2);
        waits(&mut stage, &[llm("m", 125)]);
        change(&mut stage);
        assert_eq!(decide(&mut stage), ["worker-2 load_llm m"], "{why}");
    }
    let mut paused = stage(2);
    waits(&mut paused, &[llm("m", 125)]);
    paused.seen.pool = Paused::Pool;
    assert!(decide(&mut paused).is_empty());
}

#[test]
fn workers_with_one_server_are_one_place() {
    let mut stage = stage(3);
    set(&mut stage, "worker-2", |server| server.address = "http://127.0.0.1:11437".into());
    waits(&mut stage, &[llm("m", 125)]);
    assert_eq!(decide(&mut stage), ["worker-1 load_llm m", "worker-3 load_llm m"]);
    for worker in ["worker-1", "worker-2"] {
        holds(&mut stage, worker, "m", 1);
    }
    let line = words(&stage.pass(31), "brain.monitor").pop().unwrap();
    assert!(line.ends_with("Models loaded: 1"), "{line}");
}

#[test]
fn loads_at_once_are_limited_per_host_where_that_is_set() {
    let mut settings = Settings::default();
    settings.loads_at_once = Some(1);
    let mut stage = stage_with(&settings, 3);
    waits(&mut stage, &[llm("m", 125)]);
    assert_eq!(decide(&mut stage), ["worker-1 load_llm m"]);
    stage.seen.processing = vec![request("worker-1", ModelVerb::Load, "m", "m")];
    assert!(decide(&mut stage).is_empty());
    stage.seen.processing.clear();
    holds(&mut stage, "worker-1", "m", 1);
    assert_eq!(decide(&mut stage), ["worker-2 load_llm m"]);
}

#[test]
fn a_model_is_served_until_nothing_of_it_waits() {
    let mut stage = stage(1);
    holds(&mut stage, "worker-1", "a", 100);
    waits(&mut stage, &[llm("a", 3), llm("b", 1_000)]);
    assert!(decide(&mut stage).is_empty());
    waits(&mut stage, &[llm("b", 1)]);
    assert_eq!(decide(&mut stage), ["worker-1 unload_llm a for b"]);
    // It runs the last one: it will be free in a moment.
    let mut running = self::stage(1);
    holds(&mut running, "worker-1", "a", 100);
    waits(&mut running, &[llm("b", 1)]);
    running.runs("worker-1", None);
    running.claimed("worker-1", TaskName::first(TaskId::new()), None);
    assert!(decide(&mut running).is_empty());
}

#[test]
fn a_higher_priority_does_not_wait_for_a_batch() {
    let mut stage = stage(1);
    holds(&mut stage, "worker-1", "a", 100);
    waits(&mut stage, &[llm("a", 1_000), Work(Class::Llm, "b", 1, 1, 8)]);
    assert_eq!(decide(&mut stage), ["worker-1 unload_llm a for b"]);
    // What is taken is what others serve too.
    let mut two = self::stage(2);
    holds(&mut two, "worker-1", "c", 100);
    holds(&mut two, "worker-2", "a", 100);
    waits(&mut two, &[llm("a", 1_000), llm("c", 1), Work(Class::Llm, "b", 1, 1, 8)]);
    assert_eq!(decide(&mut two), ["worker-1 unload_llm c for b"]);
}

#[test]
fn what_came_of_a_request_must_be_seen_before_more_is_asked() {
    let mut stage = stage(1);
    waits(&mut stage, &[llm("m", 125)]);
    let before = stage.at().wall;
    stage.now += Duration::from_secs(10);
    request_ended(&mut stage, "worker-1", "m", None);
    assert!(decide(&mut stage).is_empty(), "its heartbeat is older than the end of its load");
    let now = stage.at().wall;
    assert!(before < now);
    stage.now += Duration::from_secs(10);
    set(&mut stage, "worker-1", |_server| {});
    assert_eq!(decide(&mut stage), ["worker-1 load_llm m"]);
}

#[test]
fn failed_loads_are_remembered_as_long_as_their_cause_lasts() {
    for (cause, after, again) in [
        (Cause::ServerError, 29, false),
        (Cause::ServerError, 31, true),
        (Cause::Timeout, 31, true),
        (Cause::ModelMissing, 29, false),
    ] {
        let mut stage = stage(1);
        waits(&mut stage, &[llm("m", 125)]);
        request_ended(&mut stage, "worker-1", "m", Some(cause));
        let said = words(&stage.look(), "models.load_failed");
        assert_eq!(said.len(), 1, "{said:?}");
        stage.now += Duration::from_secs(after);
        set(&mut stage, "worker-1", |_server| {});
        assert_eq!(decide(&mut stage).len(), usize::from(again), "{cause} {after}");
    }
    // The model was missing, and the server lists it now.
    let mut pulled = stage(1);
    waits(&mut pulled, &[llm("m", 125)]);
    request_ended(&mut pulled, "worker-1", "m", Some(Cause::ModelMissing));
    pulled.look();
    pulled.now += Duration::from_secs(1);
    set(&mut pulled, "worker-1", |server| server.known = Some(vec!["m:latest".into()]));
    assert_eq!(decide(&mut pulled), ["worker-1 load_llm m"]);
}

#[test]
fn a_pause_after_failures_grows() {
    let pauses: Vec<f64> = (1..=7).map(super::history::back_off).collect();
    assert_eq!(pauses, [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]);
}

#[test]
fn a_model_goes_where_it_fits_beside_what_others_use() {
    // GPU memory, used by others, size of the model, whether it is asked for
    for (total, foreign, size, fits) in
        [(8, 0, 7, true), (8, 0, 8, false), (8, 2, 6, false), (8, 2, 5, true)]
    {
        let mut stage = stage(1);
        has_size(&mut stage, "m", size);
        has_memory(&mut stage, "worker-1", total, foreign);
        waits(&mut stage, &[llm("m", 10)]);
        let commands = stage.look();
        assert_eq!(asked(&commands).len(), usize::from(fits), "{total} {foreign} {size}");
        assert_eq!(words(&commands, "models.no_place").len(), usize::from(!fits));
    }
}

#[test]
fn two_models_share_a_gpu_where_both_certainly_fit() {
    for (size, expected) in [(4, "worker-1 load_llm b"), (5, "worker-1 unload_llm a for b")] {
        let mut stage = stage(1);
        has_size(&mut stage, "a", 3);
        has_size(&mut stage, "b", size);
        holds(&mut stage, "worker-1", "a", 100);
        has_memory(&mut stage, "worker-1", 8, 3);
        waits(&mut stage, &[llm("b", 10)]);
        assert_eq!(decide(&mut stage), [expected]);
    }
}

#[test]
fn scripts_get_the_gpu_when_only_they_wait_and_their_share_when_both_do() {
    let mut only = stage(1);
    holds(&mut only, "worker-1", "a", 1);
    waits(&mut only, &[scripts(1)]);
    assert_eq!(decide(&mut only), ["worker-1 unload_llm a for script"]);
    let mut idle = stage(2);
    holds(&mut idle, "worker-1", "a", 1);
    waits(&mut idle, &[scripts(1)]);
    assert!(decide(&mut idle).is_empty(), "a worker without a model is there for it");
    let mut both = stage(3);
    for worker in ["worker-1", "worker-2", "worker-3"] {
        holds(&mut both, worker, "a", 100);
    }
    waits(&mut both, &[llm("a", 1_000), scripts(10)]);
    assert_eq!(decide(&mut both), ["worker-1 unload_llm a for script"]);
    let mut cold = stage(3);
    for worker in ["worker-1", "worker-2", "worker-3"] {
        cold.claimed(worker, TaskName::first(TaskId::new()), None);
    }
    waits(&mut cold, &[llm("a", 125), scripts(500)]);
    assert_eq!(decide(&mut cold), ["worker-1 load_llm a"], "it is taken when a script has ended");
    let mut alone = stage(1);
    holds(&mut alone, "worker-1", "a", 100);
    waits(&mut alone, &[llm("a", 1_000), scripts(10)]);
    assert!(decide(&mut alone).is_empty(), "one GPU: in turn, not to and fro");
    holds(&mut alone, "worker-1", "a", 200);
    waits(&mut alone, &[llm("a", 1_000), Work(Class::Script, "", 10, 601, 5)]);
    assert_eq!(decide(&mut alone), ["worker-1 unload_llm a for script"]);
}

#[test]
fn requests_whose_goal_is_gone_are_withdrawn() {
    type Change = fn(&mut Stage);
    let table: [(&str, ModelVerb, &str, Change); 8] = [
        ("nothing waits", ModelVerb::Load, "m", |stage| waits(stage, &[])),
        ("it is loaded", ModelVerb::Load, "m", |stage| holds(stage, "worker-1", "m", 1)),
        ("dead", ModelVerb::Load, "m", |stage| stage.worker("worker-1").life = Life::Over),
        ("gone", ModelVerb::Load, "m", |stage| drop(stage.seen.workers.remove(&name("worker-1")))),
        ("down", ModelVerb::Load, "m", |stage| {
            set(stage, "worker-1", |server| server.health = Health::Down);
        }),
        ("not held", ModelVerb::Unload, "script", |stage| waits(stage, &[scripts(1)])),
        ("no scripts", ModelVerb::Unload, "script", |stage| holds(stage, "worker-1", "m", 1)),
        ("no other work", ModelVerb::Unload, "b", |stage| holds(stage, "worker-1", "m", 1)),
    ];
    for (why, verb, goal, change) in table {
        let mut stage = stage(1);
        waits(&mut stage, &[llm("m", 5)]);
        let asked = request("worker-1", verb, "m", goal);
        stage.seen.requests = vec![asked.clone()];
        change(&mut stage);
        let commands = stage.look();
        assert!(commands.contains(&Command::Withdraw(asked.name)), "{why}");
        assert_eq!(words(&commands, "models.withdrawn").len(), 1, "{why}");
    }
    let mut goes_on = stage(1);
    waits(&mut goes_on, &[llm("m", 5)]);
    goes_on.seen.requests = vec![request("worker-1", ModelVerb::Load, "m", "m")];
    assert!(names(&goes_on.look()).is_empty());
}

#[test]
fn what_was_measured_is_remembered_and_what_others_measured_counts() {
    let mut stage = stage(1);
    request_ended(&mut stage, "worker-1", "m", None);
    stage.look();
    let measured = stage.core.view().measured.clone();
    assert_eq!(measured.load_seconds("m"), Some(5.0));
    let mut next = self::stage(1);
    next.tell(Event::Remembered(Box::new(measured)));
    waits(&mut next, &[llm("m", 1)]);
    let line = words(&next.look(), "models.load_inserted").pop().unwrap();
    assert!(line.contains("load 5.0s"), "{line}");
}

#[test]
fn only_the_workers_that_tasks_are_addressed_to_are_asked() {
    let mut stage = stage(3);
    waits(&mut stage, &[llm("m", 125)]);
    let mut needs = stage.seen.lanes[0].needs.as_deref().cloned().unwrap();
    needs.worker = Some("worker-2".parse::<Name>().unwrap());
    stage.seen.lanes[0].needs = Some(Arc::new(needs));
    assert_eq!(decide(&mut stage), ["worker-2 load_llm m"]);
}

#[cfg(test)]
pub(super) mod deadline;
#[cfg(test)]
pub(super) mod fixture;
#[cfg(test)]
pub(super) mod goals;
#[cfg(test)]
pub(super) mod stuck_loads;
#[cfg(test)]
pub(super) mod unfit;
