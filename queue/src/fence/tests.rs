//! With real processes that misbehave the way jobs do. They report through a FIFO, so nothing
//! here waits for time.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

/// A task with a log, and a FIFO on which its processes say their numbers.
struct Run {
    dir: tempfile::TempDir,
    task: TaskId,
}

impl Run {
    fn new() -> Self {
        let run = Self { dir: tempfile::tempdir().unwrap(), task: TaskId::new() };
        File::create(run.log()).unwrap();
        let fifo = Command::new("mkfifo").arg(run.fifo()).status().unwrap();
        assert!(fifo.success());
        run
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn fifo(&self) -> PathBuf {
        self.dir.path().join("fifo")
    }

    fn mark(&self) -> Mark {
        Mark::new(self.task, 1, &self.log()).unwrap()
    }

    /// A shell with the mark of an attempt in its environment, writing to the log.
    fn shell(&self, attempt: u32, script: &str) -> Child {
        let log = OpenOptions::new().append(true).open(self.log()).unwrap();
        self.command(attempt, script).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn command(&self, attempt: u32, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.dir.path()).process_group(0);
        command.env("BRAINSTEM_TASK_ID", self.task.to_string());
        command.env("BRAINSTEM_ATTEMPT", attempt.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// What the next process says: its number.
    fn told(&self) -> u32 {
        fs::read_to_string(self.fifo()).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for attempt in [1, 2] {
            let mark = Mark::new(self.task, attempt, &self.log()).unwrap();
            let _none_left = end(&mark, Duration::ZERO, LONG);
        }
    }
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.is_over())
}

fn ended(ended: Ended) -> Vec<u32> {
    match ended {
        Ended::Gone { ended } => ended.iter().map(|found| found.pid).collect(),
        Ended::Unkillable(left) | Ended::Refused(left) => panic!("still there: {left:?}"),
    }
}

#[test]
fn a_child_that_left_its_session_and_its_log_is_found_by_its_environment() {
    let run = Run::new();
    let script = "setsid sh -c 'echo $$ > fifo; exec sleep 1000' >/dev/null 2>&1 &";
    run.shell(1, script).wait().unwrap();
    let pid = run.told();
    let found = processes(&run.mark()).unwrap();
    assert_eq!(found.iter().map(|f| (f.pid, f.how)).collect::<Vec<_>>(), [(pid, How::Environment)]);
    assert_eq!(ended(end(&run.mark(), LONG, LONG).unwrap()), [pid]);
    assert!(!is_alive(pid));
}

#[test]
fn a_child_without_an_environment_is_found_by_the_log_it_can_write_to() {
    let run = Run::new();
    run.shell(1, "setsid env -i sh -c 'echo $$ > fifo; exec sleep 1000' &").wait().unwrap();
    let pid = run.told();
    let found = processes(&run.mark()).unwrap();
    assert_eq!(found.iter().map(|f| (f.pid, f.how)).collect::<Vec<_>>(), [(pid, How::Log)]);
    assert_eq!(ended(end(&run.mark(), LONG, LONG).unwrap()), [pid]);
    assert!(!is_alive(pid));
}

#[test]
fn a_child_with_neither_is_found_by_its_group() {
    let run = Run::new();
    let script = "env -i sh -c 'echo $$ > fifo; exec sleep 1000' >/dev/null 2>&1 & exec sleep 1000";
    let mut leader = run.command(1, script).spawn().unwrap();
    let pid = run.told();
    let mark = run.mark().with_group(leader.id());
    assert!(members_of_group(leader.id()).unwrap().contains(&pid));
    let found = processes(&mark).unwrap();
    assert!(found.iter().any(|f| (f.pid, f.how) == (pid, How::Group)), "{found:?}");
    let mut all = ended(end(&mark, LONG, LONG).unwrap());
    all.sort_unstable();
    let mut expected = [leader.id(), pid];
    expected.sort_unstable();
    assert_eq!(all, expected);
    leader.wait().unwrap();
}

#[test]
fn one_that_ignores_term_is_killed_after_the_grace() {
    let run = Run::new();
    let mut child = run.shell(1, "trap '' TERM; echo $$ > fifo; exec sleep 1000");
    let pid = run.told();
    let start = Instant::now();
    assert_eq!(ended(end(&run.mark(), SHORT, LONG).unwrap()), [pid]);
    assert!(start.elapsed() >= SHORT && start.elapsed() < LONG);
    assert!(!is_alive(pid), "a zombie is not alive");
    child.wait().unwrap();
}

#[test]
fn a_hurry_cuts_the_grace_short() {
    let run = Run::new();
    let mut child = run.shell(1, "trap '' TERM; echo $$ > fifo; exec sleep 1000");
    let pid = run.told();
    let hurry = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
    let patience =
        EndPatience { settle: LONG, grace: LONG, give_up: LONG, hurry: Some(hurry.as_fd()) };
    assert_eq!(ended(end_patiently(&run.mark(), patience).unwrap()), [pid]);
    child.wait().unwrap();
}

#[test]
fn one_that_ends_by_itself_while_things_settle_is_not_counted() {
    let run = Run::new();
    let mut child = run.shell(1, "echo $$ > fifo; exec sleep 0.2");
    run.told();
    let patience = EndPatience { settle: LONG, grace: LONG, give_up: LONG, hurry: None };
    let none: [u32; 0] = [];
    assert_eq!(ended(end_patiently(&run.mark(), patience).unwrap()), none);
    assert!(child.wait().unwrap().success(), "nobody told it anything");
}

#[test]
fn a_stopped_one_is_recognised_and_woken_to_hear_term() {
    let run = Run::new();
    let mut child = run.shell(1, "echo $$ > fifo; kill -STOP $$; exec sleep 1000");
    let pid = run.told();
    let stopped = WaitId::Pid(proc::raw(pid).unwrap());
    waitid(stopped, WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    assert_eq!(state_of(pid), Some('T'));
    assert!(usage(&[pid]).unwrap().stopped);
    assert_eq!(ended(end(&run.mark(), LONG, LONG).unwrap()), [pid]);
    assert!(!is_alive(pid));
    child.wait().unwrap();
}

#[test]
fn what_the_dying_start_is_ended_too() {
    let run = Run::new();
    let script =
        "trap 'setsid sleep 1000 & exit' TERM; echo $$ > fifo; while :; do sleep 1000 & wait; done";
    let mut child = run.shell(1, script);
    run.told();
    // A copy of a shell that has not yet become another program forgets a TERM: then it is killed.
    let all = ended(end(&run.mark(), SHORT, LONG).unwrap());
    assert!(all.contains(&child.id()), "{all:?}");
    assert_eq!(processes(&run.mark()).unwrap(), []);
    child.wait().unwrap();
}

#[test]
fn who_only_reads_the_log_is_left_alone() {
    let run = Run::new();
    writeln!(File::create(run.log()).unwrap(), "first line").unwrap();
    let mut tail = Command::new("tail")
        .args(["-n", "1", "-f"])
        .arg(run.log())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(tail.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "first line\n", "so it has the log open");
    let mut reader = Command::new("sleep");
    reader.arg("1000").stdin(File::open(run.log()).unwrap());
    let mut reader = reader.spawn().unwrap();
    let log = OpenOptions::new().append(true).open(run.log()).unwrap();

    assert_eq!(processes(&run.mark()).unwrap(), [], "nor are we, although we write");
    assert!(ended(end(&run.mark(), LONG, LONG).unwrap()).is_empty());
    assert!(is_alive(tail.id()) && is_alive(reader.id()));

    drop(log);
    for child in [&mut tail, &mut reader] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn another_attempt_and_another_task_are_left_alone() {
    let (run, other) = (Run::new(), Run::new());
    let silent = "echo $$ > fifo; exec sleep 1000";
    let mut next = run.command(2, silent).spawn().unwrap();
    run.told();
    let mut twelfth = run.command(12, silent).spawn().unwrap();
    run.told();
    let mut stranger = other.shell(1, silent);
    other.told();
    assert!(ended(end(&run.mark(), LONG, LONG).unwrap()).is_empty());
    assert_eq!(run.mark().carried_by(next.id()), Carries::No);
    assert_eq!(other.mark().carried_by(stranger.id()), Carries::Yes);
    assert_eq!(run.mark().carried_by(u32::MAX), Carries::Unreadable);
    for child in [&mut next, &mut twelfth, &mut stranger] {
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn usage_of_the_living_is_known_and_of_the_gone_is_not() {
    let own = usage(&[std::process::id(), u32::MAX]).unwrap();
    assert!(own.read_bytes.is_some() && own.write_bytes.is_some() && !own.stopped);
    assert_eq!(usage(&[u32::MAX]), None);
    assert_eq!(usage(&[]), None);
}

#[test]
fn the_logs_lock_tells_whether_somebody_can_still_write() {
    let run = Run::new();
    assert_eq!(log_lock(&run.log()).unwrap(), LogLock::Free);
    let log = OpenOptions::new().append(true).open(run.log()).unwrap();
    log.try_lock().unwrap();
    let mut child = run.command(1, "echo $$ > fifo; exec sleep 1000").stdout(log).spawn().unwrap();
    run.told();
    assert_eq!(log_lock(&run.log()).unwrap(), LogLock::Held);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(log_lock(&run.log()).unwrap(), LogLock::Free);
    assert_eq!(log_lock(&run.dir.path().join("none")).unwrap(), LogLock::Missing);
}

/// Starts a program and returns as soon as the process has its memory, before it has its
/// environment. Until then it has ours: with a dead worker's lease, so that nobody looks yet.
fn just_begun(command: &mut Command) -> Child {
    let child = command.spawn().unwrap();
    let (own, exe) = (fs::read_link("/proc/self/exe"), format!("/proc/{}/exe", child.id()));
    while fs::read_link(&exe).unwrap() == *own.as_ref().unwrap() {}
    child
}

/// A process is there before its new program's environment is: it is waited for.
#[test]
fn what_begins_just_now_is_found() {
    let run = Run::new();
    let mark = run.mark();
    for _again in 0..300 {
        let mut child = just_begun(&mut run.command(1, "exec sleep 1000"));
        let found = processes(&mark).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.iter().map(|found| found.pid).collect::<Vec<_>>(), [child.id()]);
    }
}

#[test]
fn a_server_that_begins_just_now_is_ended() {
    let mark = format!("{}:just-now", std::process::id());
    for _again in 0..100 {
        let mut child = just_begun(Command::new("sleep").arg("1000").env(SERVER_MARK, &mark));
        let killed = end_server(&mark).unwrap().killed;
        let _of_the_lost = child.kill();
        child.wait().unwrap();
        assert_eq!(killed, 1);
    }
}

/// A program that nobody may read cannot be looked into either, but by root.
#[test]
fn who_cannot_be_looked_into_and_began_in_the_jobs_group_is_ended() {
    use std::os::unix::fs::PermissionsExt as _;
    let run = Run::new();
    let program = run.dir.path().join("closed");
    fs::copy("/bin/sleep", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o111)).unwrap();
    let before = crate::uptime::now().seconds;
    let mut command = run.command(1, "exec ./closed 1000");
    let mut child = command.spawn().unwrap();
    let until = crate::uptime::now().seconds;
    let others = Suspicion { group: Some(1), session: None, from: before, until };
    let suspicion = Suspicion { group: Some(child.id()), ..others };
    let exe = format!("/proc/{}/cmdline", child.id());
    while !fs::read_to_string(&exe).unwrap().starts_with("./closed") {}
    let readable = run.mark().carried_by(child.id()) == Carries::Yes;
    let found = processes(&run.mark().with_suspicion(others)).unwrap();
    assert_eq!(found.is_empty(), !readable, "{found:?}");
    let mark = run.mark().with_suspicion(suspicion);
    assert_eq!(ended(end(&mark, LONG, LONG).unwrap()), [child.id()]);
    child.wait().unwrap();
}
