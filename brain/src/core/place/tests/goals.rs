//! Goals that are not met, models that nobody can load, loads that wait for scripts: what is said.

use queue::wire::heartbeat::StandingOrder;
use shared::id::TaskId;
use shared::llm::{Busy, Health, HeldModel, HeldState, ModelVerb};
use shared::outcome::Cause;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use super::fixture::*;
use crate::core::fixture::{Stage, names, run, words};

const NAMES: [&str; 3] = ["worker-1", "worker-2", "worker-3"];

/// Lets so many seconds pass, with heartbeats of these workers; what was said of the goals.
fn said(stage: &mut Stage, beating: &[&str], seconds: u64) -> Vec<String> {
    let mut all = Vec::new();
    for _second in 0..seconds {
        for worker in beating {
            set(stage, worker, |_same| {});
        }
        let commands = stage.pass(1);
        all.extend(words(&commands, "models.unconsumed"));
        all.extend(words(&commands, "models.wanted"));
        all.extend(words(&commands, "models.unconsumed_cleared"));
    }
    all
}

fn seed(seconds: u64, workers: &str) -> String {
    format!("load_llm task available for {seconds}s but workers [{workers}] still have no model")
}

fn warned(stage: &Stage) -> Option<String> {
    let mut warnings = stage.core.view().warnings.iter();
    warnings.find(|w| w.code == "model.load_unconsumed").map(|warning| warning.text.clone())
}

/// The night that this project was born from: one worker is stopped, one server is frozen in its
/// load, the third does all the work.
#[test]
fn the_incident_is_said_at_growing_intervals_until_every_worker_has_the_model() {
    let mut stage = stage(3);
    waits(&mut stage, &[llm("m", 500)]);
    stage.look();
    let load = |worker| request(worker, ModelVerb::Load, "m", "m");
    stage.seen.requests = vec![load("worker-1")];
    stage.seen.processing = vec![load("worker-2")];
    holds(&mut stage, "worker-3", "m", 1);
    let mut lines = said(&mut stage, &NAMES[1..], 58);
    assert!(lines.is_empty() && warned(&stage).is_none(), "{lines:?}");
    lines = said(&mut stage, &NAMES[1..], 200);
    let each = "'worker-1', 'worker-2'";
    assert_eq!(lines, [seed(60, each), seed(120, each), seed(180, each)]);
    let text = warned(&stage).unwrap();
    assert!(text.contains("worker-1: asked") && text.contains("and sends no heartbeats"), "{text}");
    // What is stopped is asked all the same: it takes the request when it goes on.
    assert_eq!(stage.seen.requests.len(), 1);
    // One is there: the other one is still waited for.
    stage.seen.processing.clear();
    holds(&mut stage, "worker-2", "m", 1);
    assert!(said(&mut stage, &NAMES[1..], 2).is_empty());
    assert!(warned(&stage).unwrap().starts_with("m is wanted and not loaded: worker-1: asked "));
    stage.seen.requests.clear();
    holds(&mut stage, "worker-1", "m", 1);
    let lines = said(&mut stage, &NAMES, 2);
    assert!(lines.len() == 1 && lines[0].starts_with("m is no longer waited for"), "{lines:?}");
    assert!(warned(&stage).is_none());
}

/// One load stays asked for, nothing is asked in its stead, and others are asked as if it were not.
#[test]
fn a_server_that_is_busy_keeps_its_one_request_and_others_are_asked() {
    let mut stage = stage(2);
    waits(&mut stage, &[llm("m", 1)]);
    stage.seen.requests = vec![request("worker-1", ModelVerb::Load, "m", "m")];
    let busy = |stage: &mut Stage| {
        let (since, until) = (stage.at().wall, stage.at().wall.plus_millis(60_000));
        let (model, message) = ("m".to_owned(), "status 503: server busy".to_owned());
        set(stage, "worker-1", |server| {
            server.busy = vec![Busy { model, since, until, message }];
        });
    };
    set(&mut stage, "worker-2", |_same| {});
    assert_eq!(asked(&stage.look()), [""; 0], "one load is enough for one task");
    busy(&mut stage);
    let commands = stage.look();
    assert_eq!(asked(&commands), ["worker-2 load_llm m"]);
    assert_eq!(names(&commands).iter().filter(|name| **name == "models.withdrawn").count(), 0);
    // The other one is out.
    set(&mut stage, "worker-2", |server| server.health = Health::Down);
    let mut lines = Vec::new();
    for _second in 0..62 {
        busy(&mut stage);
        let commands = stage.pass(1);
        assert_eq!(asked(&commands), [""; 0]);
        lines.extend(words(&commands, "models.unconsumed"));
    }
    assert_eq!(lines, [seed(60, "'worker-1'")]);
    let text = warned(&stage).unwrap();
    assert!(text.contains(", its server is busy: status 503"), "{text}");
}

#[test]
fn a_request_that_failed_or_was_never_possible_leaves_the_goal_and_its_own_words() {
    // What keeps worker-1 from it, its state in the line, whether a request can stand meanwhile.
    type Change = fn(&mut Stage);
    let table: [(Change, &str); 3] = [
        (
            |stage| {
                let at = stage.at().wall;
                set(stage, "worker-1", |server| {
                    server.health = Health::Down;
                    server.health_since = at;
                });
            },
            "worker-1: not asked: http://127.0.0.1:11437 has been down for ",
        ),
        (
            |stage| {
                // The third failure in a row: two minutes.
                for _failure in 0..3 {
                    request_ended(stage, "worker-1", "m", Some(Cause::ServerError));
                }
            },
            "worker-1: the last load failed (server_error), asked again in ",
        ),
        (
            |stage| {
                let at = stage.at().wall;
                let loads = HeldModel {
                    model: "x".into(),
                    state: HeldState::Loading,
                    since: at,
                    size: None,
                    vram: None,
                    error: None,
                };
                set(stage, "worker-2", |server| server.models = vec![loads]);
            },
            "worker-1: not asked: it waits its turn",
        ),
    ];
    for (change, state) in table {
        let mut stage = stage(2);
        // The second one is no help: it is paused.
        stage.beat("worker-2", |beat| {
            let (by, scope) = ("ann".to_owned(), "worker".to_owned());
            beat.ability.paused =
                Some(StandingOrder { by, since: Moment::from_unix_millis(0), scope });
        });
        waits(&mut stage, &[llm("m", 125)]);
        change(&mut stage);
        stage.look();
        let lines = said(&mut stage, &NAMES[..2], 61);
        let start = "m wanted for 60s but workers ['worker-1'] still have no model: ";
        let expected = format!("{start}{state}");
        assert!(lines.len() == 1 && lines[0].starts_with(&expected), "{lines:?} {expected}");
    }
}

/// A brain that is started knows from the tasks, and from the worker, since when.
#[test]
fn a_goal_is_as_old_as_its_tasks_and_as_the_leisure_of_its_worker() {
    for (waited, idle, late) in [(100, 100, true), (100, 5, false), (5, 100, false)] {
        let mut stage = super::stage(0);
        let idle_since = stage.at().wall.plus_millis(-idle * 1_000);
        stage.add_worker("worker-1", Some(1));
        stage.beat("worker-1", |beat| beat.idle_since = Some(idle_since));
        let at = stage.at().wall;
        stage.beat("worker-1", |beat| {
            beat.at = at;
            beat.ability.classes = vec![Class::Resource, Class::Llm];
            beat.ability.server = Some(server(1));
        });
        waits(&mut stage, &[Work(Class::Llm, "m", 125, waited, 5)]);
        let mut fresh = Stage::new(&shared::settings::Settings::default());
        fresh.now = stage.now;
        fresh.seen = stage.seen;
        let said = names(&fresh.look());
        assert_eq!(said.contains(&"models.wanted"), late, "{waited} {idle} {said:?}");
    }
}

#[test]
fn nobody_is_late_who_works_is_paused_or_is_kept_for_other_work() {
    type Change = fn(&mut Stage);
    let table: [(&str, Change); 4] = [
        ("busy", |stage| {
            stage.claimed("worker-1", TaskName::first(TaskId::new()), None);
        }),
        ("paused", |stage| {
            stage.beat("worker-1", |beat| {
                let (by, scope) = ("ann".to_owned(), "worker".to_owned());
                let since = Moment::from_unix_millis(0);
                beat.ability.paused = Some(StandingOrder { by, since, scope });
            });
        }),
        ("kept", |stage| {
            holds(stage, "worker-1", "other", 1);
            waits(stage, &[llm("m", 125), llm("other", 125)]);
        }),
        ("nothing waits", |stage| waits(stage, &[])),
    ];
    for (why, change) in table {
        let mut stage = stage(1);
        waits(&mut stage, &[llm("m", 125)]);
        change(&mut stage);
        assert!(said(&mut stage, &NAMES[..1], 70).is_empty(), "{why}");
    }
}

#[test]
fn a_model_that_nobody_can_load_now_is_said_with_each_workers_reason() {
    let mut stage = stage(2);
    waits(&mut stage, &[llm("m", 125)]);
    set(&mut stage, "worker-1", |server| server.health = Health::Down);
    set(&mut stage, "worker-2", |server| server.known = Some(vec!["other".into()]));
    let lines = words(&stage.look(), "models.no_place");
    let expected = "LLM tasks waiting (125) for m, and no server can load it now: worker-1: not \
                    asked: http://127.0.0.1:11437 has been down for ";
    assert!(lines.len() == 1 && lines[0].starts_with(expected), "{lines:?}");
    assert!(lines[0].ends_with("; worker-2: its server does not know the model"), "{lines:?}");
    // A server that hangs in a load answers: nothing else may be said of it.
    let mut hangs = super::stage(1);
    waits(&mut hangs, &[llm("m", 125)]);
    let load = request("worker-1", ModelVerb::Load, "m", "m");
    hangs.seen.processing = vec![load.clone()];
    let started = hangs.at().wall.plus_millis(-301_000);
    hangs.beat("worker-1", |beat| {
        let mut run = run(load.name, None);
        (run.started_at, run.class) = (Some(started), Class::Resource);
        beat.current = vec![run];
    });
    let said = names(&hangs.look());
    assert!(said.contains(&"models.load_stuck") && !said.contains(&"models.no_place"), "{said:?}");
}

#[test]
fn prompts_that_wait_for_scripts_are_said_with_when_a_load_can_come() {
    let mut stage = stage(2);
    // A script was measured to take 100 s.
    for worker in ["worker-1", "worker-2"] {
        let script = stage.runs(worker, None);
        let started = stage.at().wall.plus_millis(-40_000);
        stage.beat(worker, |beat| {
            let mut run = run(script, None);
            run.started_at = Some(started);
            beat.current = vec![run];
        });
    }
    waits(&mut stage, &[llm("m", 125), scripts(10)]);
    let commands = stage.look();
    let lines = words(&commands, "models.deferred");
    assert_eq!(lines.len(), 1, "{:?}", names(&commands));
    let start = "LLM tasks waiting (125) but no models loaded - worker-1, worker-2 are at other \
                 work: a load can come when that ends";
    assert!(lines[0].starts_with(start), "{lines:?}");
    // Scripts and prompts share the GPUs: one is asked, and begins when its script has ended.
    assert_eq!(asked(&commands), ["worker-1 load_llm m"]);
    stage.seen.requests = vec![request("worker-1", ModelVerb::Load, "m", "m")];
    assert!(names(&stage.pass(10)).is_empty(), "it is not said with each look");
    let said = said(&mut stage, &NAMES[..2], 100);
    assert!(said.is_empty(), "no worker is late that has no time: {said:?}");
}
