//! Jobs that behave badly, each in its own directory. They say that they have begun through a
//! FIFO, so nothing here waits for time.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command as Plain;
use std::sync::Mutex;
use std::thread;

use queue::fence::{LogLock, log_lock, stat};

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

struct Home {
    dir: tempfile::TempDir,
    task: TaskId,
}

impl Home {
    fn new() -> Self {
        become_subreaper().unwrap();
        let home = Self { dir: tempfile::tempdir().unwrap(), task: TaskId::new() };
        for name in ["fifo", "gate"] {
            assert!(Plain::new("mkfifo").arg(home.path(name)).status().unwrap().success());
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn order(&self, argv: &[&str]) -> Order {
        let env = |name: &str, value: String| (name.into(), value.into());
        Order {
            argv: argv.iter().map(OsString::from).collect(),
            cwd: self.dir.path().to_owned(),
            env: vec![
                env("PATH", std::env::var("PATH").unwrap()),
                env("BRAINSTEM_TASK_ID", self.task.to_string()),
                env("BRAINSTEM_ATTEMPT", "1".to_owned()),
            ],
            stdin: None,
            log_path: self.path("runs/0194c3f2a/log"),
            task: self.task,
            attempt: 1,
            timeout: None,
            grace: LONG,
        }
    }

    fn shell(&self, script: &str) -> Order {
        self.order(&["sh", "-c", script])
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("runs/0194c3f2a/log")).unwrap()
    }

    fn lock(&self) -> LogLock {
        log_lock(&self.path("runs/0194c3f2a/log")).unwrap()
    }

    /// What the next process says: its number.
    fn told(&self) -> u32 {
        fs::read_to_string(self.path("fifo")).unwrap().trim().parse().unwrap()
    }

    /// Lets a process go on that reads from the gate.
    fn open_gate(&self) {
        OpenOptions::new().write(true).open(self.path("gate")).unwrap().write_all(b"\n").unwrap();
    }
}

fn quiet(_sent: Sent, _ran: Duration) {}

fn started(order: Order) -> Running {
    start(order, &Stop::default()).unwrap()
}

fn run(order: Order) -> End {
    started(order).wait(&quiet)
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.is_over())
}

fn pids(found: &[fence::FoundProcess]) -> Vec<u32> {
    found.iter().map(|found| found.pid).collect()
}

#[test]
fn the_exit_code_and_the_output_arrive() {
    let home = Home::new();
    let end = run(home.shell("echo out; echo err >&2; pwd; echo $0; exit 7"));
    assert_eq!(end.status, Status::Exited(7));
    assert_eq!(end.ended_by, None);
    assert!(end.leaked.is_empty() && end.unkillable.is_empty() && end.unchecked.is_none());
    let here = home.dir.path().canonicalize().unwrap();
    assert_eq!(home.log(), format!("out\nerr\n{}\nsh\n", here.display()));
    let mode = fs::metadata(home.path("runs/0194c3f2a/log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_signal_that_ended_the_job_is_named() {
    let home = Home::new();
    assert_eq!(run(home.shell("kill -SEGV $$")).status, Status::Signaled(11));
}

#[test]
fn the_environment_is_the_orders_and_nothing_else() {
    let home = Home::new();
    run(home.order(&["env"]));
    let names: Vec<_> =
        home.log().lines().map(|line| line.split('=').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["BRAINSTEM_ATTEMPT", "BRAINSTEM_TASK_ID", "PATH"]);
}

#[test]
fn text_on_stdin_is_read_to_its_end_and_without_text_there_is_none() {
    let home = Home::new();
    let text = vec![b'x'; 1_000_000];
    assert_eq!(
        run(Order { stdin: Some(text), ..home.order(&["wc", "-c"]) }).status,
        Status::Exited(0)
    );
    run(home.order(&["wc", "-c"]));
    assert_eq!(home.log(), "1000000\n0\n");
}

#[test]
fn a_hundred_megabytes_of_output_are_all_in_the_log() {
    let home = Home::new();
    assert_eq!(
        run(home.order(&["head", "-c", "100000000", "/dev/zero"])).status,
        Status::Exited(0)
    );
    assert_eq!(fs::metadata(home.path("runs/0194c3f2a/log")).unwrap().len(), 100_000_000);
}

#[test]
fn a_job_that_ignores_term_is_killed_at_timeout_plus_grace() {
    let home = Home::new();
    let order = home.shell("trap '' TERM; sleep 1000 & sleep 1000; sleep 1000");
    let job = started(Order { timeout: Some(SHORT), grace: SHORT, ..order });
    let told = Mutex::new(Vec::new());
    let end = job.wait(&|sent, ran| told.lock().unwrap().push((sent, ran)));
    assert_eq!((end.status, end.ended_by), (Status::Signaled(9), Some(EndedBy::Timeout)));
    let told = told.into_inner().unwrap();
    let [(Sent::Term(EndedBy::Timeout), term), (Sent::Kill(EndedBy::Timeout), kill)] = told[..]
    else {
        panic!("{told:?}")
    };
    // TERM was told before the grace began, not when all was over.
    assert!(term + SHORT <= kill, "{term:?} {kill:?}");
    assert!(end.wall >= 2 * SHORT && end.wall < LONG, "{:?}", end.wall);
    assert_eq!(home.lock(), LogLock::Free);
}

#[test]
fn a_job_that_stopped_itself_is_ended_by_its_timeout() {
    let home = Home::new();
    let end = run(Order { timeout: Some(SHORT), ..home.shell("kill -STOP $$; sleep 1000") });
    assert_eq!((end.status, end.ended_by), (Status::Signaled(15), Some(EndedBy::Timeout)));
    assert!(end.wall < LONG);
}

#[test]
fn a_command_from_another_thread_ends_the_job_for_that_reason() {
    for why in [Why::Cancelled, Why::Stalled, Why::Returned] {
        let home = Home::new();
        let stop = Stop::default();
        let job =
            start(home.shell("trap 'exit 3' TERM; echo $$ > fifo; read x < gate"), &stop).unwrap();
        let end = thread::scope(|scope| {
            let waiting = scope.spawn(|| job.wait(&quiet));
            home.told();
            stop.ask(why);
            stop.ask(Why::Stalled);
            waiting.join().unwrap()
        });
        assert_eq!((end.status, end.ended_by), (Status::Exited(3), Some(EndedBy::Asked(why))));
    }
}

#[test]
fn a_harder_command_cuts_the_grace_short() {
    let home = Home::new();
    let stop = Stop::default();
    let job = start(home.shell("trap '' TERM; echo $$ > fifo; exec sleep 1000"), &stop).unwrap();
    let end = thread::scope(|scope| {
        let waiting = scope.spawn(|| job.wait(&quiet));
        home.told();
        stop.ask(Why::Returned);
        stop.kill_now(Why::Cancelled);
        waiting.join().unwrap()
    });
    let expected = (Status::Signaled(9), Some(EndedBy::Asked(Why::Returned)));
    assert_eq!((end.status, end.ended_by), expected);
}

#[test]
fn a_daemon_that_holds_the_log_is_reported_and_ended() {
    let home = Home::new();
    let script = "setsid sh -c 'echo $$ > fifo; exec sleep 1000' & read x < gate";
    let job = started(home.shell(script));
    let daemon = home.told();
    home.open_gate();
    let end = job.wait(&quiet);
    assert_eq!((end.status, end.ended_by), (Status::Exited(0), None));
    assert_eq!(pids(&end.leaked), [daemon]);
    assert!(!is_alive(daemon));
    assert_eq!(home.lock(), LogLock::Free);
}

#[test]
fn a_daemon_without_log_or_group_is_ended_and_so_is_one_without_an_environment() {
    for redirect in ["setsid sh -c", "setsid env -i sh -c", "env -i sh -c"] {
        let home = Home::new();
        let output = if redirect.contains("setsid env") { "" } else { ">/dev/null 2>&1" };
        let script =
            format!("{redirect} 'echo $$ > fifo; exec sleep 1000' {output} & read x < gate");
        let job = started(home.shell(&script));
        let daemon = home.told();
        home.open_gate();
        let end = job.wait(&quiet);
        assert_eq!(pids(&end.leaked), [daemon], "{redirect}");
        assert!(stat(daemon).is_none(), "ended and reaped");
    }
}

#[test]
fn what_is_still_writing_when_the_leader_ends_may_finish() {
    let home = Home::new();
    let script = "(read x < gate; sleep 0.1; echo last words) & echo $$ > fifo";
    let job = started(home.shell(script));
    home.told();
    let end = thread::scope(|scope| {
        let waiting = scope.spawn(|| job.wait(&quiet));
        home.open_gate();
        waiting.join().unwrap()
    });
    assert_eq!((end.status, pids(&end.leaked)), (Status::Exited(0), vec![]));
    assert_eq!(home.log(), "last words\n");
}

#[test]
fn the_logs_lock_is_held_while_the_job_lives_and_free_afterwards() {
    let home = Home::new();
    let job = started(home.shell("echo $$ > fifo; read x < gate"));
    assert_eq!(home.told(), job.pid());
    assert_eq!(home.lock(), LogLock::Held);
    let second = start(home.shell("true"), &Stop::default()).unwrap_err();
    let said = second.to_string();
    assert!(said.contains(&format!("still locked by {} (sh -c", job.pid())), "{said}");
    assert_eq!(second.exit_code(), None);
    home.open_gate();
    assert_eq!(job.wait(&quiet).status, Status::Exited(0));
    assert_eq!(home.lock(), LogLock::Free);
}

#[test]
fn jobs_in_several_threads_do_not_reap_each_other() {
    let first = Home::new();
    let job = started(first.shell("echo $$ > fifo; read x < gate; exit 42"));
    first.told();
    thread::scope(|scope| {
        for code in 0..8 {
            scope.spawn(move || {
                for _ in 0..10 {
                    // A log of its own each time: a process that another test starts may hold a
                    // copy of the last one's for the moment before it becomes its program.
                    let home = Home::new();
                    // Each leaves an orphan, so that all of them look for leaks and reap.
                    let end = run(home.shell(&format!("(true &) ; exit {code}")));
                    assert_eq!(end.status, Status::Exited(code));
                }
            });
        }
    });
    first.open_gate();
    assert_eq!(job.wait(&quiet).status, Status::Exited(42));
}

#[test]
fn a_registered_program_is_not_taken_for_a_leak() {
    let home = Home::new();
    let mut server = Plain::new("sh");
    server.args(["-c", "exit 5"]).process_group(0);
    let (mut server, known) = spawn_known(&mut server).unwrap();
    let pid = Pid::from_child(&server);
    let over = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), over).unwrap();
    assert_eq!(run(home.shell("(true &); true")).status, Status::Exited(0));
    assert_eq!(server.wait().unwrap().code(), Some(5));
    drop(known);
}

/// Code and words of an order that cannot be started; the log must say the same.
fn refused(home: &Home, order: Order) -> (Option<i32>, String) {
    let error = start(order, &Stop::default()).unwrap_err();
    let said = error.to_string();
    assert_eq!(home.log(), format!("brainstem: could not start the job: {said}\n"));
    assert_eq!(home.lock(), LogLock::Free);
    (error.exit_code(), said)
}

#[test]
fn a_missing_directory_is_named() {
    let home = Home::new();
    let cwd = home.path("nowhere");
    let (code, said) = refused(&home, Order { cwd: cwd.clone(), ..home.shell("true") });
    assert_eq!((code, said), (Some(125), format!("cwd does not exist: {}", cwd.display())));
}

#[test]
fn a_command_that_is_not_found_says_where_it_was_looked_for() {
    let home = Home::new();
    let mut order = home.order(&["no-such-program"]);
    order.env[0].1 = "/bin:/opt/bin".into();
    let (code, said) = refused(&home, order);
    let expected = "command not found: no-such-program (looked in PATH /bin:/opt/bin)";
    assert_eq!((code, said.as_str()), (Some(127), expected));
}

#[test]
fn the_jobs_path_is_searched_and_not_ours() {
    let home = Home::new();
    fs::create_dir(home.path("bin")).unwrap();
    let program = home.path("bin/only-here");
    fs::write(&program, "#!/bin/sh\necho found\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let mut order = home.order(&["only-here"]);
    order.env[0].1 = "bin:/bin".into();
    run(order);
    assert_eq!(run(home.order(&["bin/only-here"])).status, Status::Exited(0));
    assert_eq!(home.log(), "found\nfound\n");
}

#[test]
fn a_file_that_is_no_program_is_not_executable() {
    let home = Home::new();
    fs::write(home.path("plain"), "text").unwrap();
    let (code, said) = refused(&home, home.order(&["./plain"]));
    assert_eq!(code, Some(126));
    assert!(said.contains("plain: ") && said.contains("ermission"), "{said}");
}

#[test]
fn a_script_whose_interpreter_is_missing_says_so() {
    let home = Home::new();
    fs::write(home.path("script"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(home.path("script"), Permissions::from_mode(0o755)).unwrap();
    let (code, said) = refused(&home, home.order(&["./script"]));
    assert_eq!(code, Some(126));
    assert!(said.contains("its interpreter `/no/such/interpreter` does not exist"), "{said}");
}

#[test]
fn a_script_with_line_ends_of_windows_says_how_to_mend_it() {
    let home = Home::new();
    fs::write(home.path("script"), "#!/bin/sh\r\necho hi\r\n").unwrap();
    fs::set_permissions(home.path("script"), Permissions::from_mode(0o755)).unwrap();
    let (_code, said) = refused(&home, home.order(&["./script"]));
    assert!(said.contains(r"its interpreter `/bin/sh\r` does not exist"), "{said}");
    assert!(said.contains(r"sed -i 's/\r$//'"), "{said}");
}
