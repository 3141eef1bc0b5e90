//! The sentences that people and scripts search for, word by word, and the table as a whole.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;
use crate::name::Name;
use crate::outcome::{Cause, Next, Outcome};
use crate::task::Class;

fn worker() -> Name {
    "worker-1".parse().unwrap()
}

fn task() -> TaskId {
    "0194c3f2-aaaa-7bbb-8ccc-ddddd5de16d7".parse().unwrap()
}

#[test]
fn every_event_has_a_name_of_its_own() {
    let unique: BTreeSet<_> = Event::NAMES.iter().collect();
    assert_eq!(unique.len(), Event::NAMES.len());
    for name in Event::NAMES {
        let fits = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '_');
        assert!(name.chars().all(fits) && name.matches('.').count() == 1, "{name}");
    }
}

#[test]
fn the_worker_speaks_of_its_life_in_the_agreed_words() {
    let worker = worker();
    let (w, gpu, port) = (worker.clone(), Some(1), Some(11437));
    for (event, text) in [
        (
            Event::WorkerInitialized { worker: w.clone(), gpu, port, cpu_slots: 1 },
            "Worker initialized: worker-1 on GPU 1, Ollama port 11437",
        ),
        (Event::WorkerStarting { worker: w.clone() }, "Worker worker-1 starting main loop"),
        (
            Event::WorkerSignal { worker: w.clone(), signal: "TERM".into() },
            "Worker worker-1 received shutdown signal",
        ),
        (
            Event::WorkerCrashed { worker: w.clone(), error: "boom".into() },
            "Worker worker-1 crashed in main loop: boom",
        ),
        (
            Event::WorkerStopped { worker: w.clone(), completed: 42 },
            "Worker worker-1 shutting down - completed 42 tasks",
        ),
        (
            Event::WorkerHeartbeat { worker, status: "idle", idle_seconds: Some(34.2) },
            "Heartbeat sent - status: idle, idle: 34s",
        ),
    ] {
        assert_eq!(event.message(), text);
    }
}

#[test]
fn the_claim_pass_speaks_in_the_agreed_words() {
    let (task, attempt) = (task(), 1);
    let won = Event::ClaimWon {
        task,
        attempt,
        class: Class::Llm,
        task_name: "summarise ch. 3".into(),
        lane: "llm-1".into(),
        waited_seconds: None,
    };
    for (event, text) in [
        (Event::ClaimAttempt { task, attempt }, "Attempting claim: d5de16d7"),
        (Event::ClaimLostRace { task, attempt }, "Lost race: d5de16d7 (claimed by another worker)"),
        (
            Event::ClaimLockTimeout { limit: "user=ann".into(), used: 2, allowed: 2 },
            "Lock timeout: limit user=ann (2 of 2 in use)",
        ),
        (won.clone(), "Claimed llm task: d5de16d7 (summarise ch. 3)"),
    ] {
        assert_eq!(event.message(), text);
    }
    assert_eq!((won.name(), won.level(), won.logger()), ("claim.won", Level::Info, "worker.claim"));
    assert_eq!(won.task(), Some((task, Some(1))));
    let extra = json!({"class": "llm", "task_name": "summarise ch. 3", "lane": "llm-1",
        "waited_seconds": null});
    assert_eq!(serde_json::Value::Object(won.extra()), extra);
}

#[test]
fn the_brain_reports_stuck_and_hung_in_the_agreed_words() {
    let stuck = StuckTask {
        task_id: task(),
        attempt: 1,
        assigned_to: worker(),
        seconds: 400.0,
        name: "add_topics_it's".into(),
        evidence: serde_json::Map::new(),
    };
    assert_eq!(
        Event::StuckTasks { tasks: vec![stuck], count: 1 }.message(),
        "Stuck tasks detected: [{'task_id': 'd5de16d7', 'assigned_to': 'worker-1', \
         'elapsed_min': 6, 'name': \"add_topics_it's\"}]"
    );
    let evidence = serde_json::Map::new();
    let hung = Event::WorkerHung {
        worker: worker(),
        seconds: 90.4,
        threshold_seconds: 60.0,
        count: 1,
        evidence,
    };
    assert_eq!(hung.message(), "Worker worker-1 last heartbeat 90s ago (threshold: 60s)");
}

#[test]
fn the_monitor_and_scaling_lines_are_as_agreed_and_never_call_the_unknown_zero() {
    let queue = BTreeMap::from([(Class::Llm, 123), (Class::Cpu, 0)]);
    let monitor = Monitor {
        gpus_active: Some(2),
        gpus: Some(3),
        workers_alive: 3,
        workers: 3,
        queue: Some(queue),
        processing: Some(2),
        stuck: 0,
        models: Some(1),
    };
    let line = |monitor: Monitor| {
        let statistics = Statistics::new(&monitor, 40);
        Event::MonitorLine { monitor, statistics }
    };
    let extra = line(monitor.clone()).extra();
    let by_worker = json!({"pending": 123, "processing": 2, "completed_last_5min": 40});
    assert_eq!((&extra["total_pending"], &extra["by_worker"]), (&json!(123), &by_worker));
    assert_eq!((&extra["stuck_tasks"], &extra["processing_count"]), (&json!(0), &json!(2)));
    assert_eq!(
        Statistics::new(&monitor, 40).to_string(),
        "123 pending (llm:123), 2 processing, 0 stuck, 40 completed in the last 5 minutes"
    );
    assert_eq!(
        line(monitor).message(),
        "MONITOR: GPUs: 2/3, Workers: 3/3, Queue: 123 (llm:123), Processing: 2, Stuck: 0, \
         Models loaded: 1"
    );
    assert_eq!(
        line(Monitor::default()).message(),
        "MONITOR: GPUs: ?/?, Workers: 0/0, Queue: ?, Processing: ?, Stuck: 0, Models loaded: ?"
    );
    let scaling = Scaling {
        cycle: 638,
        active_workers: 2,
        spawning: 0,
        desired: 2,
        step: Step::Maintain,
        queued: Some(2),
        active: Some(0),
        max: 4,
    };
    let event = Event::ScalingDecision { scaling };
    assert_eq!(
        event.message(),
        "SCALING DECISION (Cycle #638): Current=2+0, Desired=2, Decision=MAINTAIN \
         (2 queued + 0 active, max 4)"
    );
    assert_eq!(event.extra()["cycle"], 638);
}

#[test]
fn each_outcome_is_an_event_of_its_own() {
    let ending = |outcome, cause, next| Ending {
        outcome,
        cause,
        exit_code: Some(3),
        signal: None,
        seconds: Some(2.14),
        next,
        answer: None,
    };
    let say = |ending| Event::ended(task(), 2, "script task: d5de16d7 (train)".into(), ending);
    let failed = say(ending(Outcome::Failed, Some(Cause::ExitCode), Next::Failed));
    assert_eq!(failed.name(), "task.failed");
    assert_eq!(
        failed.message(),
        "Failed script task: d5de16d7 (train), attempt 2: exit code 3 after 2.1s, not tried again"
    );
    assert_eq!(failed.extra()["cause"], "exit_code");
    assert_eq!(say(ending(Outcome::Succeeded, None, Next::End)).name(), "task.completed");
    assert_eq!(say(ending(Outcome::Returned, None, Next::Pending)).name(), "task.returned");
    let stalled = say(ending(Outcome::Failed, Some(Cause::Stalled), Next::Pending));
    assert!(stalled.message().ends_with(": stalled after 2.1s, back in the queue"));
}

#[test]
fn a_message_is_one_line_whatever_its_fields_hold() {
    let event = Event::TaskRejected { file: "a\nb".into(), reason: "\u{1b}[31mred".into() };
    assert_eq!(event.message(), "Rejected a\\nb: \\u{1b}[31mred");
}

#[test]
fn a_load_is_inserted_in_the_words_of_old_with_its_sums() {
    let placement = Placement {
        worker: worker(),
        verb: crate::llm::ModelVerb::Load,
        model: "qwen2.5:7b".into(),
        work: "qwen2.5:7b".into(),
        purpose: Purpose::Serve,
        waiting: 125,
        llm_waiting: 125,
        loaded: 0,
        serving: 0,
        task_seconds: 0.3,
        work_seconds: 37.5,
        load_seconds: 5.0,
        oldest_seconds: 1.0,
        end_before: None,
        end_after: 42.5,
    };
    let text = Event::LoadInserted { placement: placement.clone() }.message();
    assert_eq!(
        text,
        "LLM tasks waiting (125) but no models loaded - inserting load_llm task for worker-1: \
         qwen2.5:7b (serve; 125 x 0.3s = 37.5s of work, load 5.0s, oldest waits 1.0s, ends in 42.5s)"
    );
    let help = Placement { loaded: 1, serving: 1, purpose: Purpose::Help, ..placement };
    assert!(help.to_string().starts_with(
        "LLM tasks waiting (125) for qwen2.5:7b, loaded by 1 - inserting load_llm task for worker-1"
    ));
}

#[test]
fn a_load_that_nobody_takes_is_reported_in_the_agreed_words() {
    let workers = vec![worker(), "worker-3".parse().unwrap()];
    let states = BTreeMap::new();
    let (model, seconds, count) = ("m".to_owned(), 62.3, 1);
    let event = Event::LoadUnconsumed { model, seconds, workers, states, count };
    assert_eq!(
        event.message(),
        "load_llm task available for 62s but workers ['worker-1', 'worker-3'] still have no model"
    );
}

#[test]
fn what_an_answer_took_stands_in_the_line_of_its_completion() {
    let answer = crate::llm::Answer {
        model: "tiny".into(),
        body: json!({}),
        prompt_tokens: Some(7),
        completion_tokens: Some(101),
        load_seconds: None,
        first_token_seconds: Some(0.5),
        seconds: 2.5,
        writing_seconds: None,
        flaw: None,
    };
    let ending = Ending {
        outcome: Outcome::Succeeded,
        cause: None,
        exit_code: None,
        signal: None,
        seconds: Some(2.5),
        next: Next::End,
        answer: Some((&answer).into()),
    };
    let event = Event::ended(task(), 1, "llm task: d5de16d7 (hi)".into(), ending);
    assert_eq!(event.message(), "Completed llm task: d5de16d7 (hi) in 2.5s");
    let extra = event.extra();
    assert_eq!(
        (&extra["completion_tokens"], &extra["tokens_per_second"]),
        (&json!(101), &json!(50.0))
    );
}

#[test]
fn what_happens_to_models_is_said_in_sentences() {
    let (worker, model) = (worker(), "qwen2.5:7b".to_owned());
    let (size, vram) = (crate::quantity::Bytes(4 << 30), crate::quantity::Bytes(3 << 30));
    let loaded = Event::ModelLoaded {
        worker: worker.clone(),
        model: model.clone(),
        seconds: Some(5.2),
        canary_seconds: 0.1,
        size: Some(size),
        vram: Some(size),
    };
    let text = "Loaded qwen2.5:7b on worker-1 in 5.2s: it answers (4 GiB, all of it in GPU memory)";
    assert_eq!(loaded.message(), text);
    let on_cpu = Event::ModelOnCpu { worker, model, size, vram };
    let text =
        "Model qwen2.5:7b on worker-1 is partly on the processor: 3 GiB of 4 GiB are in GPU memory";
    assert_eq!(on_cpu.message(), text);
}
