//! A job that has ended, and a daemon of it that only its owner, root, can find: what `sudo` leaves.

use std::fs;
use std::os::unix::fs::chown;

use serde_json::Value;
use tests::{Pool, Proc, program};

use super::{ANN, anns, chmod};
use crate::kit::steps::lines_of;

/// Ann's worker, which has such a job, and the job's task.
struct Left {
    pool: Pool,
    worker: Proc,
    id: String,
}

impl Left {
    fn new(words: &[&str]) -> Option<Self> {
        let pool = anns("max_attempts = 2")?;
        // A program of root's that everybody may run as root.
        let sudoish = pool.home().join("sudoish");
        fs::copy(program("fake-job"), &sudoish).unwrap();
        chown(&sudoish, Some(0), Some(0)).unwrap();
        chmod(&sudoish, 0o4755);
        let worker = ANN.command(&pool, "worker", &["--cpu", "--name", "w", "--cpu-slots", "1"]);
        let mut worker = worker;
        let worker = pool.start(&mut worker);
        let sudoish = sudoish.to_str().unwrap().to_owned();
        let submit = ["submit", "--class", "cpu", "--", &sudoish];
        let id = ANN.queue(&pool, &[&submit[..], words].concat()).id();
        let left = Self { pool, worker, id };
        left.pool.until_true("why to say so", || left.why()["reasons"][0]["code"] == "job.may_run");
        Some(left)
    }

    fn why(&self) -> Value {
        ANN.queue(&self.pool, &["why", &self.id, "--json"]).json()
    }
}

#[test]
fn it_is_told_and_a_person_may_say_that_it_is_over() {
    let Some(left) = Left::new(&["daemon", "exit=3"]) else { return };
    let why = left.why();
    assert!(why["text"].as_str().unwrap().contains("its job on w has ended"), "{why}");
    let status = ANN.queue(&left.pool, &["status"]).success().stdout;
    assert!(status.contains("has ended, and may still run in part"), "{status}");
    let kept = ANN.queue(&left.pool, &["settle", &left.id]).code(5);
    assert!(kept.stdout.contains("not put back: "), "{kept}");
    let settled = ANN.queue(&left.pool, &["settle", &left.id, "--abandon"]).success();
    assert!(settled.stdout.contains("goes on, on your word"), "{settled}");
    let line = &lines_of(&left.pool, &left.id)[0];
    let said = line["error_message"].as_str().unwrap();
    assert!(
        said.starts_with("exit code 3; ") && said.contains("says that its job is over"),
        "{said}"
    );
}

#[test]
fn it_can_be_cancelled_and_a_worker_that_is_told_to_stop_does_not_wait_for_it() {
    let Some(left) = Left::new(&["daemon", "exit=3"]) else { return };
    ANN.queue(&left.pool, &["cancel", &left.id]).success();
    assert_eq!(lines_of(&left.pool, &left.id)[0]["outcome"], "cancelled");
    let Some(mut other) = Left::new(&["daemon", "exit=3"]) else { return };
    other.worker.term();
    other.worker.wait_exit();
    assert_eq!(lines_of(&other.pool, &other.id), Vec::<Value>::new(), "nobody knows its end yet");
}
