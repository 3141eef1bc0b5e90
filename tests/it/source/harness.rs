//! The harness itself: what every other test relies on.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tests::{Moment, Pool, Signal};

fn job(pool: &Pool, words: &[&str]) -> tests::Ran {
    pool.start(&mut pool.command("fake-job", words)).end()
}

#[test]
fn a_program_sees_nothing_of_the_machine() {
    let pool = Pool::new();
    let ran = job(&pool, &["cwd", "env=HOME", "env=USER"]).success();
    let home = pool.home();
    let home = home.display();
    assert_eq!(ran.stdout, format!("{home}\nHOME={home}\nUSER=-\n"));
}

#[test]
fn the_fake_job_does_as_it_is_told() {
    let pool = Pool::new();
    let ran = job(&pool, &["say=hello", "err=oops", "bytes=100", "exit=3"]).code(3);
    assert!(ran.stdout.starts_with("hello\nx") && ran.stdout.len() == 106, "{ran}");
    assert_eq!(ran.stderr, "oops\n");
    job(&pool, &["signal=11"]).signalled(Signal::SEGV);
    job(&pool, &["spin=0.01"]).success();
    job(&pool, &["nonsense"]).code(98);
    let again = format!("exit75-until={}:2", pool.at("count"));
    let codes = [0; 3].map(|_| job(&pool, &[&again]).status.code());
    assert_eq!(codes, [Some(75), Some(75), Some(0)]);
}

#[test]
fn a_job_waits_at_a_fifo_until_the_test_lets_go() {
    let pool = Pool::new();
    let fifo = pool.fifo("gate");
    let mark = format!("mark={}", pool.at("marks"));
    let mut waiting = pool.start(&mut pool.command("fake-job", &[&mark, &fifo.word()]));
    let held = fifo.until_reached();
    assert!(waiting.is_running());
    assert_eq!(pool.marks("marks").len(), 1);
    held.release();
    waiting.end().success();
    let marks = pool.marks("marks");
    assert_eq!([marks[0].moment, marks[1].moment], [Moment::Start, Moment::End]);
    assert_eq!((marks[0].pid, &*marks[0].task), (waiting.pid(), "-"));
    assert!(marks[0].at < marks[1].at);
}

#[test]
fn signals_arrive() {
    let pool = Pool::new();
    let start = |words: &[&str]| pool.start(&mut pool.command("fake-job", words));
    let mut stopped = start(&["hang"]);
    stopped.stop();
    assert!(stopped.is_running());
    stopped.cont();
    stopped.term();
    stopped.end().signalled(Signal::TERM);
    let deaf = start(&["ignore-term", "say=ready", "hang"]);
    pool.until_true("the deaf job is ready", || deaf.stdout() == "ready\n");
    deaf.term();
    deaf.kill9().signalled(Signal::KILL);
}

#[test]
fn nothing_outlives_the_pool_however_well_it_hides() {
    let pool = Pool::new();
    let root = pool.home();
    for hidden in ["child", "daemon", "daemon=closed", "daemon=noenv"] {
        job(&pool, &[hidden]).success();
    }
    let pids: Vec<_> = pool.alive().iter().map(|one| one.pid).collect();
    assert_eq!(pids.len(), 4, "{:?}", pool.alive());
    drop(pool);
    for pid in pids {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(command.is_empty(), "{pid} still lives");
    }
    assert!(fs::metadata(root).is_err(), "the house is removed");
}

#[test]
fn a_wait_in_vain_shows_what_was_said() {
    let pool = Pool::with_patience(Duration::from_millis(50));
    let mut quiet = pool.command("fake-job", &["err=I am stuck"]);
    pool.start(&mut quiet).end().success();
    pool.write_toml("# settings\n");
    let scene =
        catch_unwind(AssertUnwindSafe(|| pool.until("nothing", || None::<()>))).unwrap_err();
    let scene = scene.downcast_ref::<String>().unwrap();
    for part in ["waited in vain: nothing", "I am stuck", "pool/pool.toml"] {
        assert!(scene.contains(part), "{part} is missing: {scene}");
    }
}

/// What the predecessor said stands in the same log, and is no answer to what the next one does.
#[test]
fn an_event_of_a_predecessor_is_not_the_one_that_is_waited_for() {
    let pool = Pool::new();
    let lives = [(); 2].map(|()| {
        let mut worker = pool.worker(&["--cpu", "--name", "w"]);
        let started = pool.until_event("worker-w", "worker.starting");
        worker.term();
        worker.end().success();
        started["incarnation"].clone()
    });
    assert_ne!(lives[0], lives[1]);
}
