//! Workers that died between two steps: between claim and start, between start and heartbeat,
//! between the ledger's line and what it says. Made by hand through the library, and settled by a
//! real brain or by the next real worker of the name.

use std::fs::{self, File};
use std::process::Command;

use queue::dir::claim::cursor::{Cursor, Pass, Wish};
use queue::dir::claim::one::Claim;
use queue::dir::ledger::append::Ledger;
use queue::dir::presence::lease::{Lease, this_process};
use queue::dir::signal::control::{self, ControlVerb, Message};
use queue::wire::lease_record::{Process, Record};
use queue::wire::ledger_line::{Line, Writer};
use queue::wire::retry::{self, Policy, Verdict};
use serde_json::json;
use shared::id::TaskId;
use shared::outcome::Cause;
use shared::task::{Class, TaskName};
use shared::time::Moment;
use tests::{Pool, Proc, Signal};

use super::death::cpu_worker;
use crate::kit::*;

/// Who settles the affairs of the dead.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rescuer {
    /// A brain, which starts no workers.
    Brain,
    /// The next worker of the same name.
    SameName,
}

impl Rescuer {
    pub(super) const BOTH: [Self; 2] = [Self::Brain, Self::SameName];

    /// Starts it, and where it does not work itself a worker of another name.
    pub(super) fn start(self, pool: &Pool) -> Vec<Proc> {
        match self {
            Self::Brain => vec![pool.brain(&["--no-spawn"]), cpu_worker(pool, "other")],
            Self::SameName => vec![cpu_worker(pool, "dead")],
        }
    }
}

/// A worker that has claimed a task, and can be left dead in any state.
pub(super) struct Dying {
    inside: queue::Pool,
    writer: Writer,
    lease: Lease,
    claim: Box<Claim>,
}

impl Dying {
    /// The worker `dead` takes its lease and claims the only cpu task.
    pub(super) fn claims(pool: &Pool) -> Self {
        Self::claims_as(pool, this_process())
    }

    pub(super) fn claims_as(pool: &Pool, process: Process) -> Self {
        let inside = inside(pool);
        let writer = Writer::new("dead".parse().unwrap());
        let lease = Lease::try_take(&inside, &writer.name).unwrap().unwrap();
        let working = Record::of(writer.name.clone(), process, writer.life.clone(), Moment::now());
        let record = Record { writers: vec![writer.clone()], ..working };
        lease.write(&record).unwrap();
        let ledger = Ledger::new(inside.layout().clone(), writer.clone());
        let mut cursor = Cursor::new(&inside, &writer.name, ledger.into());
        let wish = Wish { classes: &[Class::Cpu], open: &|_lane| true };
        let claim = match cursor.pass(&wish, &mut |_note| {}).unwrap() {
            Pass::Claimed { claim, .. } => claim,
            Pass::Nothing { .. } => panic!("there was a task to claim"),
        };
        Self { inside, writer, lease, claim }
    }

    pub(super) fn name(&self) -> TaskName {
        self.claim.name()
    }

    /// Writes the ledger's line about the attempt, and does not do what it says.
    fn records(&self, verdict: Verdict) {
        let end = retry::next(self.name(), verdict, &Policy::default(), Moment::now(), 0.0);
        let mut line = Line::new(self.claim.task().clone(), self.name(), verdict, end);
        line.worker = Some(self.writer.name.clone());
        Ledger::new(self.inside.layout().clone(), self.writer.clone()).append(&line).unwrap();
    }

    /// Starts the attempt's job, as the worker would, and returns without waiting for it.
    pub(super) fn spawns(&self, pool: &Pool, words: &[&str]) -> Proc {
        let mut command = self.job(pool, words);
        pool.start(&mut command)
    }

    /// Locks its run log, as whoever of its job is left does, and cannot write there.
    pub(super) fn locks_log(&self) -> File {
        let path = self.inside.layout().run_log(self.name().id, self.name().attempt);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        let log = File::open(path).unwrap();
        log.lock().unwrap();
        log
    }

    fn job(&self, pool: &Pool, words: &[&str]) -> Command {
        let mut command = pool.command("fake-job", words);
        command.env("BRAINSTEM_TASK_ID", self.name().id.to_string());
        command.env("BRAINSTEM_ATTEMPT", self.name().attempt.to_string());
        command
    }

    pub(super) fn dies(self) {
        drop(self.claim);
        drop(self.lease);
    }
}

fn dead_after(pool: &Pool, leave: impl FnOnce(&Dying)) -> TaskId {
    let id = submit(pool, job(&["mark=runs"]));
    let dying = Dying::claims(pool);
    assert_eq!(dying.name().id, id);
    leave(&dying);
    dying.dies();
    id
}

/// 001-B15, B21: a crash between claim and start leaves one file, owned by the dead.
#[test]
fn seed_001_b15_b21_dead_between_claim_and_start() {
    for rescuer in Rescuer::BOTH {
        let pool = quick_pool("");
        let id = dead_after(&pool, |_dying| {});
        assert_eq!(place(&pool, id), "processing a1f0d0");
        let _rescue = rescuer.start(&pool);
        until_succeeded(&pool, id);
        assert_eq!(
            story(&pool, id),
            ["failed worker_died pending", "succeeded - end"],
            "{rescuer:?}"
        );
        assert_eq!(starts(&pool, "runs", id), ["2"], "{rescuer:?}");
    }
}

#[test]
fn dead_between_start_and_heartbeat() {
    for rescuer in Rescuer::BOTH {
        let pool = quick_pool("");
        let mut running = None;
        let id = dead_after(&pool, |dying| {
            running = Some(dying.spawns(&pool, &["say=here", "hang"]));
        });
        let mut running = running.unwrap();
        pool.until_true("the job is there", || running.stdout() == "here\n");
        assert!(pool.heartbeat("dead").is_none());
        let _rescue = rescuer.start(&pool);
        running.end().signalled(Signal::TERM);
        until_succeeded(&pool, id);
        assert_eq!(starts(&pool, "runs", id), ["2"], "{rescuer:?}");
        assert_eq!(history(&pool, id)[0]["leaked"], 1, "it says how many it ended");
    }
}

/// What a recorded end says is carried out, and not decided again: no second line, no second run
/// of what succeeded.
#[test]
fn dead_between_the_ledger_line_and_what_it_says() {
    for rescuer in Rescuer::BOTH {
        for (verdict, lines, runs) in [
            (Verdict::Succeeded, &["succeeded - end"][..], &[][..]),
            (
                Verdict::Failed(Cause::ExitCode),
                &["failed exit_code delayed", "succeeded - end"],
                &["2"],
            ),
            (Verdict::Returned, &["returned - pending", "succeeded - end"], &["2"]),
        ] {
            let pool = quick_pool("");
            let id = dead_after(&pool, |dying| dying.records(verdict));
            let _rescue = rescuer.start(&pool);
            until_place(&pool, id, "gone");
            assert_eq!(story(&pool, id), lines, "{rescuer:?} {verdict:?}");
            assert_eq!(starts(&pool, "runs", id), runs, "{rescuer:?} {verdict:?}");
        }
    }
}

/// Between the line and the rename lies a flush; whoever begins to wait just then must not wait
/// for ever.
#[test]
fn an_end_counts_from_the_moment_it_is_recorded() {
    let pool = quick_pool("");
    let id = submit(&pool, job(&["mark=runs"]));
    let dying = Dying::claims(&pool);
    dying.records(Verdict::Succeeded);
    pool.queue(&["wait", &id.to_string()]).success();
    let after = submit(&pool, with(job(&["mark=runs"]), "after", json!([id.to_string()])));
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = cpu_worker(&pool, "other");
    until_succeeded(&pool, after);
    assert_eq!(place(&pool, id), "processing a1f0d0", "its worker lives and will move it");
    dying.dies();
    until_place(&pool, id, "gone");
    assert_eq!(story(&pool, id), ["succeeded - end"]);
}

#[test]
fn a_recorded_last_failure_ends_in_failed_and_stays_there() {
    for rescuer in Rescuer::BOTH {
        let pool = quick_pool("");
        let id = dead_after(&pool, |dying| dying.records(Verdict::Refused(Cause::SpawnFailed)));
        let _rescue = rescuer.start(&pool);
        until_place(&pool, id, "failed a1f1d0");
        assert_eq!(story(&pool, id), ["failed spawn_failed failed"], "{rescuer:?}");
    }
}

/// A half-written line, as a power cut or a full disk leaves it, is not the end of an attempt.
#[test]
fn a_torn_ledger_line_is_no_line() {
    for rescuer in Rescuer::BOTH {
        let pool = quick_pool("");
        let id = dead_after(&pool, |dying| {
            dying.records(Verdict::Succeeded);
            let path = &pool.files_in("ledger")[0];
            let text = fs::read(path).unwrap();
            fs::write(path, &text[..text.len() / 2]).unwrap();
        });
        let _rescue = rescuer.start(&pool);
        until_place(&pool, id, "gone");
        assert_eq!(starts(&pool, "runs", id), ["2"], "{rescuer:?}");
    }
}

/// Cancelled while nobody was there to hear it.
#[test]
fn a_cancel_asked_of_a_dead_worker_is_honoured() {
    for rescuer in Rescuer::BOTH {
        let pool = quick_pool("");
        let mut running = None;
        let id = dead_after(&pool, |dying| {
            running = Some(dying.spawns(&pool, &["hang"]));
            let (worker, ask) = (&dying.writer.name, Message::new(ControlVerb::Cancel, "ann"));
            control::ask_about(dying.inside.layout(), worker, dying.name(), ask).unwrap();
        });
        let _rescue = rescuer.start(&pool);
        running.unwrap().end().signalled(Signal::TERM);
        until_place(&pool, id, "gone");
        assert_eq!(story(&pool, id), ["cancelled cancelled end"], "{rescuer:?}");
        assert_eq!(starts(&pool, "runs", id), Vec::<String>::new(), "{rescuer:?}");
        pool.until_true("the message is used up", || pool.files_in("control").is_empty());
    }
}

/// 001-B23: a message about one attempt does not hit the next, nor any other task.
#[test]
fn seed_001_b23_a_stale_message_hits_nothing_else() {
    let pool = quick_pool("");
    let id = dead_after(&pool, |dying| {
        let stale = dying.name().retried();
        let (worker, ask) = (&dying.writer.name, Message::new(ControlVerb::Cancel, "ann"));
        control::ask_about(dying.inside.layout(), worker, stale, ask).unwrap();
        let other = TaskName::first(TaskId::new());
        let ask = Message::new(ControlVerb::Stall, "brain");
        control::ask_about(dying.inside.layout(), worker, other, ask).unwrap();
    });
    let _next = cpu_worker(&pool, "dead");
    until_succeeded(&pool, id);
    assert_eq!(story(&pool, id), ["failed worker_died pending", "succeeded - end"]);
}

/// After a restart of the machine every process of before is gone; one that looks like it is not.
#[test]
fn the_processes_of_another_boot_are_not_looked_for() {
    for rescuer in Rescuer::BOTH {
        let pool = quick_pool("");
        let id = submit(&pool, job(&["mark=runs"]));
        let before = Process { boot: "another-boot".into(), ..this_process() };
        let dying = Dying::claims_as(&pool, before);
        let mut alike = dying.spawns(&pool, &["hang"]);
        dying.dies();
        let _rescue = rescuer.start(&pool);
        until_succeeded(&pool, id);
        assert!(alike.is_running(), "{rescuer:?}");
        assert_eq!(starts(&pool, "runs", id), ["2"], "{rescuer:?}");
    }
}

/// 001-B42: process numbers of another machine mean nothing here, so the task stays where it is. A
/// host's name decides nothing; here nobody knows on which start of which kernel it ran.
#[test]
fn seed_001_b42_a_job_on_another_host_is_waited_for_and_not_run_twice() {
    let pool = quick_pool("");
    let id = submit(&pool, job(&["mark=runs"]));
    let there = Process { host: "elsewhere".into(), boot: String::new(), ..this_process() };
    Dying::claims_as(&pool, there).dies();
    let mut next = cpu_worker(&pool, "dead");
    let ran = next.end().code(75);
    assert!(ran.stderr.contains("it may still run on elsewhere"), "{ran}");
    let _brain = pool.brain(&["--no-spawn"]);
    pool.until_true("the brain says so", || {
        pool.log("brain").iter().any(|line| line["message"].to_string().contains("elsewhere"))
    });
    let _other = cpu_worker(&pool, "other");
    let after = submit(&pool, job(&["mark=runs"]));
    until_succeeded(&pool, after);
    assert_eq!(place(&pool, id), "processing a1f0d0");
}

/// 001-B21, B22: a file in `processing/` whose worker never was is settled by a brain, and what
/// only looks like a task is not counted as one.
#[test]
fn seed_001_b22_what_a_worker_that_never_was_holds_is_put_back() {
    let pool = quick_pool("");
    let id = dead_after(&pool, |_dying| {});
    fs::remove_file(lock_file(&pool, "dead")).unwrap();
    let beside = pool.dir().join(format!("processing/dead/{id}.heartbeat.json"));
    fs::write(&beside, "{}").unwrap();
    let _rescue = Rescuer::Brain.start(&pool);
    until_succeeded(&pool, id);
    assert_eq!(starts(&pool, "runs", id), ["2"]);
}
