//! Loads that hang, and servers that several workers share.

use std::time::Duration;

use shared::event::Event;
use shared::id::TaskId;
use shared::llm::ModelVerb;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use super::fixture::*;
use crate::core::fixture::{Stage, names, run, words};
use crate::core::words::command::Command;
use crate::core::words::snapshot::Held;

/// The worker is at this request, and has been for so many seconds.
fn is_at(stage: &mut Stage, worker: &str, held: &Held, seconds: i64) {
    let started = stage.at().wall.plus_millis(-seconds * 1_000);
    is_at_since(stage, worker, held, started);
}

fn is_at_since(stage: &mut Stage, worker: &str, held: &Held, started: Moment) {
    let mut run = run(held.name, None);
    (run.started_at, run.class) = (Some(started), Class::Resource);
    stage.beat(worker, |beat| beat.current = vec![run]);
    set(stage, worker, |server| server.error = Some("no token within 5 s".into()));
    stage.seen.processing = vec![held.clone()];
}

#[test]
fn a_load_that_does_not_end_is_said_with_evidence_and_others_are_asked() {
    // A load was measured to take 5 s: five minutes are far too long; an hour is not, where
    // twenty minutes are usual.
    for (usual, seconds, stuck) in [(5, 299, false), (5, 301, true), (1_200, 3_600, false)] {
        let mut stage = stage(2);
        request_ended(&mut stage, "worker-2", "m", None);
        let began = stage.at().wall.plus_millis(-usual * 1_000);
        stage.seen.ended[0].started_at = Some(began);
        stage.look();
        stage.now += Duration::from_secs(1);
        waits(&mut stage, &[llm("m", 1)]);
        for worker in ["worker-1", "worker-2"] {
            set(&mut stage, worker, |_same| {});
        }
        let load = request("worker-1", ModelVerb::Load, "m", "m");
        is_at(&mut stage, "worker-1", &load, seconds);
        let commands = stage.look();
        let expected: &[&str] = if stuck { &["worker-2 load_llm m"] } else { &[] };
        assert_eq!(asked(&commands), expected, "{usual} {seconds}");
        let said = words(&commands, "models.load_stuck");
        let text = "worker-1 has been loading m for 301s (limit 300s) and is not done: its server is asked for nothing else";
        assert_eq!(said, if stuck { vec![text.to_owned()] } else { vec![] });
    }
}

/// Both ends of a request are told by the worker's clock; the brain's may be set otherwise.
#[test]
fn how_long_a_load_takes_does_not_depend_on_the_brains_clock() {
    for (seconds, stuck) in [(299, false), (301, true)] {
        for ahead in [-3_600, 0, 3_600] {
            let mut stage = stage(2);
            waits(&mut stage, &[llm("m", 1)]);
            let load = request("worker-1", ModelVerb::Load, "m", "m");
            let theirs = stage.at().wall.plus_millis(ahead * 1_000);
            is_at_since(&mut stage, "worker-1", &load, theirs.plus_millis(-seconds * 1_000));
            stage.beat("worker-1", |beat| beat.at = theirs);
            let said = words(&stage.look(), "models.load_stuck");
            assert_eq!(said.len(), usize::from(stuck), "{seconds} s, {ahead} s ahead: {said:?}");
        }
    }
}

#[test]
fn what_waits_behind_a_request_that_hangs_is_withdrawn_and_told_why() {
    let about = [
        (ModelVerb::Load, "its model server hangs in a load", "loading a"),
        (ModelVerb::Unload, "its model server hangs in an unload", "unloading a"),
    ];
    for (verb, why, doing) in about {
        let mut stage = stage(1);
        waits(&mut stage, &[llm("m", 1)]);
        is_at(&mut stage, "worker-1", &request("worker-1", verb, "a", "a"), 301);
        stage.seen.requests = vec![request("worker-1", ModelVerb::Load, "m", "m")];
        let commands = stage.look();
        let withdrawn = words(&commands, "models.withdrawn");
        assert!(withdrawn.len() == 1 && withdrawn[0].contains(why), "{withdrawn:?}");
        let told = words(&commands, "models.load_stuck");
        assert!(told.len() == 1 && told[0].contains(doing), "{told:?}");
        // It is through.
        stage.seen.processing.clear();
        let cleared = words(&stage.look(), "models.load_stuck_cleared");
        assert!(cleared.len() == 1 && cleared[0].contains(doing), "{cleared:?}");
    }
}

#[test]
fn a_load_that_hangs_stays_an_open_goal_until_it_is_done() {
    let mut stage = stage(1);
    waits(&mut stage, &[llm("m", 125)]);
    let load = request("worker-1", ModelVerb::Load, "m", "m");
    assert_eq!(decide(&mut stage), ["worker-1 load_llm m"]);
    let mut commands = Vec::new();
    for seconds in (0..420).step_by(30) {
        is_at(&mut stage, "worker-1", &load, seconds);
        commands.extend(stage.pass(30));
    }
    let evidence = commands.iter().find_map(|command| {
        let Command::Say(Event::LoadStuck { evidence, .. }) = command else { return None };
        Some(evidence.clone())
    });
    let evidence = evidence.unwrap();
    assert_eq!((&evidence["health"], &evidence["limit_seconds"]), (&"up".into(), &300.0.into()));
    assert_eq!(evidence["error"], "no token within 5 s");
    let warned = |stage: &Stage| {
        let warnings = &stage.core.view().warnings;
        warnings.iter().any(|warning| warning.code == "model.load_unconsumed")
    };
    assert!(warned(&stage), "{:?}", stage.core.view().warnings);
    // It is done after all.
    stage.seen.processing.clear();
    stage.beat("worker-1", |beat| beat.current.clear());
    holds(&mut stage, "worker-1", "m", 1);
    let said = names(&stage.look());
    let cleared = ["models.load_stuck_cleared", "models.unconsumed_cleared"];
    assert!(cleared.iter().all(|name| said.iter().any(|said| said == name)), "{said:?}");
    assert!(!warned(&stage));
}

#[test]
fn a_server_that_two_workers_share_is_asked_once_and_its_memory_counts_once() {
    let shared = |stage: &mut Stage| {
        let address = "http://127.0.0.1:11437";
        set(stage, "worker-2", |server| server.address = address.into());
        set(stage, "worker-1", |server| server.address = address.into());
    };
    let mut one = stage(2);
    shared(&mut one);
    waits(&mut one, &[llm("m", 125), llm("n", 10)]);
    assert_eq!(decide(&mut one).len(), 1, "one load, and not one for each worker");
    // Whoever of them was asked, and whoever is asked next: it is one place.
    for taken in ["worker-1", "worker-2"] {
        let held = request(taken, ModelVerb::Load, "m", "m");
        one.seen.processing = vec![held.clone()];
        assert!(decide(&mut one).is_empty(), "{taken}");
        one.seen.processing.clear();
        one.seen.requests = vec![held];
        assert!(decide(&mut one).is_empty(), "{taken}");
        one.seen.requests.clear();
    }
    // 3 GiB of 8 are used, by one model that both of them speak of: 4 more fit, 5 do not.
    for (size, expected) in [(4, "worker-1 load_llm b"), (5, "worker-1 unload_llm a for b")] {
        let mut full = stage(2);
        has_size(&mut full, "a", 3);
        has_size(&mut full, "b", size);
        shared(&mut full);
        for worker in ["worker-1", "worker-2"] {
            holds(&mut full, worker, "a", 100);
            has_memory(&mut full, worker, 8, 3);
        }
        waits(&mut full, &[llm("b", 10)]);
        assert_eq!(decide(&mut full), [expected]);
    }
    // As long as one of them works with its model, that model is not taken out of the server.
    let mut busy = stage(2);
    shared(&mut busy);
    for worker in ["worker-1", "worker-2"] {
        holds(&mut busy, worker, "a", 100);
    }
    waits(&mut busy, &[llm("b", 10)]);
    busy.claimed("worker-2", TaskName::first(TaskId::new()), None);
    assert!(decide(&mut busy).is_empty());
    busy.seen.processing.clear();
    assert_eq!(decide(&mut busy), ["worker-1 unload_llm a for b"]);
}
