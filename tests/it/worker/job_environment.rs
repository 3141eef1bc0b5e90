//! The environment of a job is exactly what the design says, whoever started the worker.

use std::collections::BTreeMap;

use serde_json::json;
use tests::Pool;

use crate::kit::steps::{ids, log_of, quick, show, submit_batch, until_over};

/// What a job of this class finds in its environment.
fn environment(pool: &Pool, class: &str) -> (String, BTreeMap<String, String>) {
    let task =
        json!({"class": class, "command": ["env", "-0"], "env": {"MINE": "a=b c", "LANG": "de"}});
    let id = ids(&submit_batch(pool, &[task])).remove(0);
    assert_eq!(until_over(pool, &id)["outcome"], "succeeded");
    let log = log_of(pool, &id, 1);
    let pairs = log.split_terminator('\0').filter_map(|pair| pair.split_once('='));
    (id, pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

#[test]
fn a_job_gets_the_allow_list_the_tasks_and_the_pools_variables_and_no_other() {
    let pool = quick("");
    for (key, value) in [
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("OPENAI_API_KEY", "hush"),
        ("SSH_AUTH_SOCK", "/run/agent"),
        ("WORKER_ID", "hush"),
        ("HF_HOME", "/models"),
        ("NVIDIA_VISIBLE_DEVICES", "all"),
        ("CUDA_VISIBLE_DEVICES", "7"),
        ("OLLAMA_HOST", "elsewhere:1"),
        ("USER", "ann"),
    ] {
        pool.env(key, value);
    }
    let _worker = pool.worker(&["--gpu", "1", "--ollama-port", "11437"]);
    let (id, found) = environment(&pool, "script");
    let dir = pool.dir().canonicalize().unwrap();
    let segment = id.replace('-', "")[..9].to_owned();
    let correlation = show(&pool, &id)["spec"]["correlation_id"].clone();
    let progress = format!("{}/runs/{segment}/{id}.a1.progress", dir.display());
    for (key, value) in [
        ("BRAINSTEM_TASK_ID", &*id),
        ("BRAINSTEM_ATTEMPT", "1"),
        ("BRAINSTEM_WORKER", "worker-1"),
        ("BRAINSTEM_POOL", dir.to_str().unwrap()),
        ("BRAINSTEM_PROGRESS_FILE", &progress),
        ("CUDA_VISIBLE_DEVICES", "1"),
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        ("OLLAMA_HOST", "127.0.0.1:11437"),
        ("MINE", "a=b c"),
        ("LANG", "de"),
        ("HF_HOME", "/models"),
        ("NVIDIA_VISIBLE_DEVICES", "all"),
        ("USER", "ann"),
        ("TZ", "UTC"),
    ] {
        assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(!found["BRAINSTEM_CORRELATION_ID"].is_empty());
    if let Some(correlation) = correlation.as_str() {
        assert_eq!(found["BRAINSTEM_CORRELATION_ID"], correlation);
    }
    let mut rest: Vec<_> = found.keys().map(String::as_str).collect();
    rest.retain(|key| !matches!(*key, "PATH" | "HOME" | "TMPDIR" | "XDG_RUNTIME_DIR"));
    assert_eq!(rest.len(), 15, "and nothing else: {rest:?}");
}

#[test]
fn a_cpu_task_sees_no_gpu() {
    let pool = quick("");
    pool.env("CUDA_VISIBLE_DEVICES", "0");
    let _worker = pool.worker(&["--gpu", "0"]);
    let (_id, found) = environment(&pool, "cpu");
    assert_eq!(found["CUDA_VISIBLE_DEVICES"], "");
    assert!(!found.contains_key("OLLAMA_HOST"), "no model server was named");
}

#[test]
fn a_gpu_that_is_known_is_named_by_its_identity() {
    let pool = quick("");
    let gpus = ["GPU-a", "GPU-b"].map(tests::FakeGpu::new);
    pool.fake_gpus(&gpus);
    let _worker = pool.worker(&["--gpu", "1"]);
    let (id, found) = environment(&pool, "script");
    assert_eq!(found["CUDA_VISIBLE_DEVICES"], "GPU-b");
    assert_eq!(show(&pool, &id)["attempts"][0]["gpu_uuid"], "GPU-b");
}
