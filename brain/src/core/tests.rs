//! What the brain decides, as tables of what it sees.

use std::sync::Arc;
use std::time::Duration;

use queue::wire::heartbeat::gpu_state::{Fitness, Quarantine};
use shared::gpu::{GpuFault, GpuReading, Reading};
use shared::id::TaskId;
use shared::quantity::{Bytes, Span};
use shared::settings::{Settings, StallTimeouts};
use shared::task::{Class, TaskName};
use shared::time::Moment;

use super::fixture::{Stage, gpus, name, names, words};
use super::words::command::Command;
use super::words::event::Event;
use super::words::snapshot::{Life, Paused};
use super::words::worker_spec::{WorkerEnd, WorkerExit};

fn stage() -> Stage {
    Stage::new(&Settings::default())
}

#[test]
fn a_heartbeat_that_stands_still_is_reported_in_these_words_and_cleared_when_it_goes_on() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    stage.look();
    assert!(stage.said(59).is_empty());
    let first = stage.pass(1);
    assert_eq!(
        words(&first, "worker.hung"),
        ["Worker worker-1 last heartbeat 60s ago (threshold: 60s)"]
    );
    assert_eq!(stage.core.view().warnings[0].code, "worker.hung");
    let again = stage.pass(60);
    assert_eq!(
        words(&again, "worker.hung"),
        ["Worker worker-1 last heartbeat 120s ago (threshold: 60s)"]
    );
    stage.beat("worker-1", |_same| {});
    assert_eq!(stage.said(1), ["worker.hung_cleared"]);
    assert!(stage.core.view().warnings.is_empty());
}

#[test]
fn nobody_is_called_hung_for_time_in_which_the_brain_did_not_look() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    stage.look();
    stage.now += Duration::from_secs(3_600);
    assert!(stage.said(30).is_empty());
}

#[test]
fn a_heartbeat_that_cannot_be_written_because_the_disk_is_full_is_no_hang() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    stage.seen.free = Some(Bytes(0));
    assert_eq!(stage.said(100), ["disk.low", "disk.low"]);
    stage.seen.free = Some(Bytes(1 << 40));
    stage.beat("worker-1", |_same| {});
    assert_eq!(stage.said(1), ["disk.resumed"]);
}

#[test]
fn the_dead_are_not_hung() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    stage.worker("worker-1").life = Life::Over;
    assert!(stage.said(200).is_empty());
}

#[test]
fn no_progress_for_five_minutes_is_stuck_until_there_is_some() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    let task = stage.runs("worker-1", Some(299.0));
    assert!(stage.said(2).is_empty());
    stage.beat("worker-1", |beat| beat.current[0].quiet_seconds = Some(400.0));
    let said = words(&stage.pass(2), "detect.stuck");
    let short = task.id.short();
    assert_eq!(
        said,
        [format!(
            "Stuck tasks detected: [{{'task_id': '{short}', 'assigned_to': 'worker-1', \
             'elapsed_min': 6, 'name': 'train'}}]"
        )]
    );
    assert_eq!(stage.core.view().stuck[0].task_id, task.id);
    // What is not known now changes nothing: a job that was stopped does not make progress.
    stage.beat("worker-1", |beat| beat.current[0].quiet_seconds = None);
    assert!(stage.said(2).is_empty());
    assert_eq!(stage.core.view().stuck.len(), 1);
    stage.beat("worker-1", |beat| beat.current[0].quiet_seconds = Some(1.0));
    assert_eq!(stage.said(2), ["detect.stuck_cleared"]);
    assert!(stage.core.view().stuck.is_empty());
}

#[test]
fn an_unknown_reading_never_counts_as_stuck() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    stage.runs("worker-1", None);
    for _minute in 0..20 {
        stage.beat("worker-1", |_same| {});
        assert!(stage.said(50).is_empty());
    }
}

#[test]
fn a_long_task_that_makes_progress_is_slow_and_that_is_said_once() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    stage.runs("worker-1", Some(1.0));
    stage.beat("worker-1", |beat| beat.at = Moment::from_unix_millis(301_000));
    assert_eq!(stage.said(50), ["detect.slow"]);
}

#[test]
fn a_stall_limit_ends_the_job_once_and_only_where_it_is_set() {
    let mut limited = Settings::default();
    limited.stall_timeout = StallTimeouts([(Class::Script, Span::seconds(600))].into());
    for (settings, own, quiet, asked) in [
        (Settings::default(), None, 9_999.0, 0),
        (Settings::default(), Some(20), 19.0, 0),
        (Settings::default(), Some(20), 20.0, 1),
        (limited.clone(), None, 599.0, 0),
        (limited.clone(), None, 600.0, 1),
        (limited.clone(), Some(900), 700.0, 0),
    ] {
        let mut stage = Stage::new(&settings);
        stage.add_worker("worker-1", Some(1));
        let task = stage.runs("worker-1", Some(quiet));
        stage.seen.processing.clear();
        stage.claimed("worker-1", task, own);
        let commands = stage.pass(5);
        let stalls = commands.iter().filter(|c| matches!(c, Command::Stall { .. })).count();
        assert_eq!(stalls, asked, "{own:?} {quiet}");
        assert_eq!(words(&commands, "detect.stall_stop").len(), asked);
    }
}

#[test]
fn a_claimed_task_that_its_worker_does_not_know_counts_from_when_it_was_first_seen() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    stage.claimed("worker-1", TaskName::first(TaskId::new()), None);
    stage.look();
    for _beat in 0..14 {
        stage.beat("worker-1", |_same| {});
        assert!(stage.said(20).is_empty());
    }
    stage.beat("worker-1", |_same| {});
    assert_eq!(stage.said(21), ["detect.stuck"]);
}

#[test]
fn a_task_that_an_idle_worker_could_take_is_unclaimed_after_ten_seconds() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    let task = stage.lane(Class::Script, 3);
    stage.look();
    assert!(stage.said(9).is_empty());
    let said = words(&stage.pass(1), "detect.unclaimed");
    let short = task.short();
    assert_eq!(
        said,
        [format!(
            "Unclaimed script task: {short} is available for 10s but workers ['worker-1'] do not \
             take it"
        )]
    );
    assert_eq!(stage.core.view().warnings[0].code, "claim.stalled");
    stage.seen.lanes.clear();
    assert_eq!(stage.said(1), ["detect.unclaimed_cleared"]);
}

#[test]
fn a_task_is_not_unclaimed_where_nobody_could_take_it_or_somebody_does() {
    type Change = fn(&mut Stage);
    let cases: [(&str, Change); 6] = [
        ("no GPU", |stage| stage.add_worker("worker-1", None)),
        ("dead", |stage| stage.worker("worker-1").life = Life::Over),
        ("busy", |stage| {
            stage.runs("worker-1", Some(1.0));
        }),
        ("pool paused", |stage| stage.seen.pool = Paused::Pool),
        ("limit", |stage| stage.seen.lanes[0].limited = Some("user=ann".into())),
        ("lane moves", |stage| {
            stage.lane(Class::Script, 2);
        }),
    ];
    for (why, change) in cases {
        let mut stage = stage();
        stage.add_worker("worker-1", Some(1));
        stage.lane(Class::Script, 3);
        for _round in 0..3 {
            change(&mut stage);
            assert!(stage.said(9).is_empty(), "{why}");
        }
    }
}

#[test]
fn one_worker_that_takes_all_while_another_is_idle_is_an_imbalance() {
    let mut stage = stage();
    stage.add_worker("worker-1", Some(1));
    stage.add_worker("worker-2", Some(2));
    stage.ended("worker-1", Class::Script, 100);
    stage.look();
    let mut said = Vec::new();
    for second in 0..15 {
        stage.lane(Class::Script, 100 - second);
        stage.beat("worker-1", |beat| beat.completed += 2);
        stage.ended("worker-1", Class::Script, 2);
        said.extend(words(&stage.pass(1), "detect.imbalance"));
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("Imbalance: worker-1 took 1"), "{said:?}");
    assert!(said[0].ends_with("while ['worker-2'] are idle"), "{said:?}");
}

#[test]
fn a_count_that_jumps_is_an_anomaly_and_an_unknown_one_is_not_zero() {
    let mut stage = stage();
    stage.lane(Class::Llm, 500);
    assert!(stage.said(1).is_empty(), "nothing is known of the time before");
    stage.seen.counts = None;
    assert!(stage.said(1).is_empty());
    stage.lane(Class::Llm, 600);
    assert!(stage.said(1).is_empty(), "an unknown count is not 0");
    stage.seen.counts = Some(Arc::default());
    assert!(stage.said(1).is_empty());
    stage.lane(Class::Llm, 10);
    assert_eq!(
        words(&stage.pass(1), "detect.anomaly"),
        ["ANOMALY DETECTED: Task count jumped from 0 to 10"]
    );
}

#[test]
fn workers_are_started_for_all_places_and_the_decision_is_said_first() {
    let mut stage = Stage::with(&Settings::default(), gpus(2));
    let commands = stage.look();
    let said = words(&commands, "scaling.decision");
    assert_eq!(
        said,
        [
            "SCALING DECISION (Cycle #1): Current=0+0, Desired=2, Decision=SCALE UP by 2 (0 queued + 0 active, max 2)"
        ]
    );
    let spawns = commands.iter().filter(|c| matches!(c, Command::Spawn(_))).count();
    assert_eq!(spawns, 2);
    for worker in ["worker-0", "worker-1"] {
        stage.tell(Event::Spawned { worker: name(worker), pid: 9 });
    }
    assert_eq!(words(&stage.pass(5), "scaling.decision").len(), 1, "spawning");
    stage.add_worker("worker-0", Some(0));
    stage.add_worker("worker-1", Some(1));
    let up = words(&stage.pass(5), "scaling.decision");
    assert_eq!(
        up,
        [
            "SCALING DECISION (Cycle #7): Current=2+0, Desired=2, Decision=MAINTAIN (0 queued + 0 active, max 2)"
        ]
    );
}

fn spawned(commands: &[Command]) -> usize {
    commands.iter().filter(|command| matches!(command, Command::Spawn(_))).count()
}

#[test]
fn a_worker_started_by_hand_counts_by_name_and_by_gpu() {
    let mut stage = Stage::with(&Settings::default(), gpus(2));
    stage.add_worker("mine", Some(0));
    stage.add_worker("worker-1", Some(5));
    assert_eq!(spawned(&stage.pass(3)), 0);
}

#[test]
fn a_crashed_worker_is_restarted_after_a_pause_and_after_its_affairs_are_settled() {
    let mut stage = Stage::with(&Settings::default(), gpus(1));
    assert_eq!(spawned(&stage.look()), 1);
    stage.tell(Event::Spawned { worker: name("worker-0"), pid: 9 });
    stage.add_worker("worker-0", Some(0));
    assert_eq!(spawned(&stage.pass(3)), 0);
    stage.worker("worker-0").life = Life::Unsettled;
    let exit = WorkerExit::Signal(9);
    let out = stage.tell(Event::Exited(WorkerEnd { worker: name("worker-0"), pid: 9, exit }));
    assert_eq!(names(&out), ["spawn.exited", "spawn.back_off"]);
    assert_eq!(spawned(&stage.pass(20)), 0, "its affairs are open");
    stage.worker("worker-0").life = Life::Over;
    assert_eq!(spawned(&stage.pass(1)), 1);
}

#[test]
fn a_worker_that_fails_too_often_is_left_alone_for_a_while() {
    let mut stage = Stage::with(&Settings::default(), gpus(1));
    let (mut spawns, mut said) = (0, Vec::new());
    for _second in 0..100 {
        let commands = stage.pass(1);
        said.extend(names(&commands));
        for _spawn in 0..spawned(&commands) {
            spawns += 1;
            stage.tell(Event::Spawned { worker: name("worker-0"), pid: 9 });
            let exit = WorkerExit::Code(1);
            said.extend(names(&stage.tell(Event::Exited(WorkerEnd {
                worker: name("worker-0"),
                pid: 9,
                exit,
            }))));
        }
    }
    assert_eq!(spawns, 5);
    assert_eq!(said.iter().filter(|said| **said == "spawn.breaker_open").count(), 1);
    assert_eq!(stage.core.view().warnings[0].code, "spawn.breaker_open");
    let later = stage.pass(250);
    assert_eq!((names(&later), spawned(&later)), (vec!["spawn.breaker_closed"], 1));
}

#[test]
fn a_drained_worker_stays_away_until_the_drain_is_taken_back() {
    let mut stage = Stage::with(&Settings::default(), gpus(1));
    stage.look();
    stage.tell(Event::Spawned { worker: name("worker-0"), pid: 9 });
    stage.seen.drains.insert(name("worker-0"), "ann".into());
    stage.look();
    let exit = WorkerExit::Code(0);
    let out = stage.tell(Event::Exited(WorkerEnd { worker: name("worker-0"), pid: 9, exit }));
    assert!(out.is_empty(), "it said itself that it drained");
    assert_eq!(spawned(&stage.pass(100)), 0);
    stage.seen.drains.clear();
    assert_eq!(spawned(&stage.pass(2)), 1);
}

#[test]
fn fewer_workers_than_places_follow_the_work_and_idle_ones_retire() {
    let mut settings = Settings::default();
    settings.min_workers = Some(0);
    let mut stage = Stage::with(&settings, gpus(3));
    assert_eq!(spawned(&stage.pass(5)), 0, "nothing to do");
    stage.lane(Class::Script, 1);
    assert_eq!(spawned(&stage.pass(1)), 1);
    stage.tell(Event::Spawned { worker: name("worker-0"), pid: 9 });
    stage.add_worker("worker-0", Some(0));
    stage.seen.pool = Paused::Pool;
    let commands = stage.pass(70);
    let drain = Command::Drain(name("worker-0"));
    assert_eq!(commands.iter().filter(|command| **command == drain).count(), 1);
    let exit = WorkerExit::Code(0);
    let out = stage.tell(Event::Exited(WorkerEnd { worker: name("worker-0"), pid: 9, exit }));
    assert_eq!(names(&out), ["spawn.retired"]);
    assert!(out.contains(&Command::Undrain(name("worker-0"))));
}

#[test]
fn a_worker_whose_gpu_is_out_of_use_does_not_count_and_is_not_retired() {
    let mut settings = Settings::default();
    settings.min_workers = Some(0);
    let mut stage = Stage::with(&settings, gpus(3));
    stage.lane(Class::Script, 1);
    assert_eq!(spawned(&stage.pass(1)), 1);
    stage.tell(Event::Spawned { worker: name("worker-0"), pid: 9 });
    stage.add_worker("worker-0", Some(0));
    assert_eq!(spawned(&stage.pass(5)), 0, "it takes it");
    let since = Moment::from_unix_millis(0);
    let quarantine = Quarantine { fault: GpuFault::Missing, since, until: since, times: 1 };
    stage.beat("worker-0", |beat| {
        beat.ability.gpu_state.fitness = Fitness::Quarantined(quarantine);
    });
    assert_eq!(spawned(&stage.pass(5)), 1, "another one does");
    stage.seen.pool = Paused::Pool;
    assert!(!stage.pass(70).contains(&Command::Drain(name("worker-0"))), "it waits for its GPU");
}

#[test]
fn the_first_signal_drains_and_the_second_kills() {
    let signal = || Event::Shutdown { signal: "SIGTERM".into() };
    let running = || {
        let mut stage = Stage::with(&Settings::default(), gpus(1));
        stage.look();
        stage.tell(Event::Spawned { worker: name("worker-0"), pid: 9 });
        stage
    };
    let (terminate, kill) = (Command::Terminate(name("worker-0")), Command::Kill(name("worker-0")));
    let mut stage = running();
    assert!(stage.tell(signal()).contains(&terminate));
    let exit = WorkerExit::Code(0);
    let out = stage.tell(Event::Exited(WorkerEnd { worker: name("worker-0"), pid: 9, exit }));
    assert_eq!(out, [Command::Finish]);
    assert_eq!(spawned(&stage.pass(10)), 0);

    let mut stage = running();
    stage.tell(signal());
    assert_eq!(stage.tell(signal()), [kill.clone(), Command::Finish]);

    let mut stage = running();
    stage.tell(signal());
    assert!(!stage.pass(24).contains(&kill));
    assert_eq!(stage.pass(3).iter().filter(|command| **command == kill).count(), 1);

    let mut nothing = Stage::new(&Settings::default());
    assert!(nothing.tell(signal()).contains(&Command::Finish));
}

#[test]
fn the_monitor_line_is_said_on_change_and_at_intervals() {
    let mut stage = stage();
    let lines = |commands: &[Command]| words(commands, "brain.monitor");
    assert_eq!(
        lines(&stage.look()),
        ["MONITOR: GPUs: 0/0, Workers: 0/0, Queue: 0, Processing: 0, Stuck: 0, Models loaded: 0"]
    );
    stage.lane(Class::Llm, 123);
    assert_eq!(lines(&stage.pass(4)).len(), 0);
    let changed = lines(&stage.pass(1));
    assert!(changed[0].contains("Queue: 123 (llm:123)"), "{changed:?}");
    assert_eq!(lines(&stage.pass(29)).len(), 0);
    assert_eq!(lines(&stage.pass(1)).len(), 1);
}

#[test]
fn a_gpu_that_cannot_be_read_any_more_is_news_and_no_idle_one() {
    let mut stage = stage();
    let reading = |used| GpuReading {
        memory_used: used,
        utilization: used.map(|_bytes| 0),
        ..GpuReading::failed(0, None)
    };
    stage.seen.gpus = Some(vec![reading(Reading::Known(2_000_000_000_u64))]);
    assert_eq!(
        words(&stage.look(), "brain.monitor")[0].split(',').next(),
        Some("MONITOR: GPUs: 1/1")
    );
    stage.seen.gpus = Some(vec![reading(Reading::Failed)]);
    let lost = stage.pass(5);
    assert_eq!(names(&lost), ["gpu.reading_lost"]);
    assert_eq!(words(&lost, "brain.monitor")[0].split(',').next(), Some("MONITOR: GPUs: ?/1"));
    stage.seen.gpus = Some(vec![reading(Reading::Known(0))]);
    assert_eq!(stage.said(1), ["gpu.reading_back"]);
}
