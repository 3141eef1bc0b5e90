//! A worker on which something goes wrong that goes well on others: what failed is tried elsewhere
//! first, and what goes on failing is left to others.

use std::collections::BTreeSet;

use serde_json::json;

use crate::kit::steps::{ids, lines_of, quick, submit_batch, until_over, until_up};

#[test]
fn what_failed_on_one_worker_is_tried_on_another_first() {
    let pool = quick("");
    let _workers =
        ["one", "two"].map(|name| pool.worker(&["--cpu", "--name", name, "--cpu-slots", "8"]));
    ["one", "two"].iter().for_each(|name| until_up(&pool, name));
    let task = |number: usize| {
        let file = pool.at(&format!("ran-{number}"));
        json!({"class": "cpu", "shell": format!("test -e {file} || {{ touch {file}; exit 1; }}")})
    };
    let tasks: Vec<_> = (0..5).map(task).collect();
    for id in ids(&submit_batch(&pool, &tasks)) {
        assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
        let ran: BTreeSet<String> =
            lines_of(&pool, &id).iter().map(|line| line["worker"].to_string()).collect();
        assert_eq!(ran.len(), 2, "{id} was tried on {ran:?} only");
    }
}

#[test]
fn a_worker_on_which_all_fails_that_goes_well_elsewhere_leaves_it_to_others() {
    let pool = quick("");
    let _workers =
        ["bad", "good"].map(|name| pool.worker(&["--cpu", "--name", name, "--cpu-slots", "1"]));
    ["bad", "good"].iter().for_each(|name| until_up(&pool, name));
    let shell = "test $BRAINSTEM_WORKER = good || { echo no libcuda.so; exit 1; }; sleep 0.03";
    let tasks = vec![json!({"class": "cpu", "shell": shell, "max_attempts": 20}); 80];
    let all = ids(&submit_batch(&pool, &tasks));
    let said = pool.until_event("worker-bad", "worker.backs_off");
    assert!(said["message"].to_string().contains("no libcuda.so"), "{said}");
    pool.until_true("it says why", || {
        pool.queue(&["why", "bad", "--json"]).stdout.contains("worker.backs_off")
    });
    for id in &all {
        assert_eq!(until_over(&pool, id)["worker"], "good");
    }
    let failures = all.iter().flat_map(|id| lines_of(&pool, id));
    let failures = failures.filter(|line| line["worker"] == "bad").count();
    assert!(failures < 20, "{failures} attempts went wrong");
}
