//! Workers without a brain: what is due is released, however busy they all are.

use crate::kit::steps::{file_of, lines_of, quick, submit, until_up};

#[test]
fn busy_workers_release_delays_retries_and_dependents() {
    // Long enough for both workers to be busy when it is over.
    let pool = quick("retry_backoff_first = \"2s\"\nretry_backoff_max = \"2s\"");
    let (one, two, last) = (pool.fifo("one"), pool.fifo("two"), pool.fifo("last"));
    let cpu = ["--class", "cpu"];
    let retried = submit(&pool, &cpu, &["exit=1"]);
    let first = submit(&pool, &cpu, &[&one.word()]);
    submit(&pool, &cpu, &[&two.word()]);
    let _workers = ["a", "b"].map(|name| {
        let worker = pool.worker(&["--cpu", "--cpu-slots", "1", "--name", name]);
        until_up(&pool, name);
        worker
    });
    let (first_job, second_job) = (one.until_reached(), two.until_reached());
    assert_eq!(lines_of(&pool, &retried).len(), 1, "it failed, and both workers are busy");
    let delayed = submit(&pool, &[&cpu[..], &["--in", "1s"]].concat(), &[&last.word()]);
    let dependent = submit(&pool, &[&cpu[..], &["--after", &first]].concat(), &["say=x"]);
    let is_pending = |id: &str| file_of(&pool, "pending", id).is_some();
    pool.until_true("the delay to be over", || is_pending(&delayed));
    pool.until_true("the retry to be due", || is_pending(&retried));
    assert!(!is_pending(&dependent));
    first_job.release();
    let last_job = last.until_reached();
    pool.until_true("the dependent to be released", || is_pending(&dependent));
    drop((second_job, last_job));
}
