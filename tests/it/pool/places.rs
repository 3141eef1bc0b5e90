//! Where a pool may be, and what happens where it may not: read-only, open to everybody, full.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::{Pool, Ran, program};

use crate::kit::disk::Disk;
use crate::kit::*;

#[track_caller]
fn refused(ran: Ran, code: i32, parts: &[&str]) {
    let ran = ran.code(code);
    for part in parts {
        assert!(ran.stderr.contains(part), "`{part}` is not in {ran}");
    }
}

/// Every program refuses the place, for the same reason and with exit code 3.
#[track_caller]
fn all_refuse(pool: &Pool, parts: &[&str]) {
    refused(pool.queue(&["submit", "--class", "cpu", "--", "true"]), 3, parts);
    refused(pool.worker(&["--cpu"]).end(), 3, parts);
    refused(pool.brain(&["--no-spawn"]).end(), 3, parts);
}

#[test]
fn a_pool_that_everybody_may_write_to_is_refused() {
    let pool = quick_pool("");
    inside(&pool);
    fs::set_permissions(pool.dir(), Permissions::from_mode(0o777)).unwrap();
    let fix = format!("chmod o-w {}", pool.dir().display());
    all_refuse(&pool, &["everybody may write there", &fix]);
    refused(pool.queue(&["ls"]), 3, &[&fix]);
    fs::set_permissions(pool.dir(), Permissions::from_mode(0o700)).unwrap();
    pool.queue(&["ls"]).success();
}

#[test]
fn a_directory_with_other_things_in_it_does_not_become_a_pool() {
    let pool = Pool::new();
    pool.write_toml("");
    fs::write(pool.dir().join("thesis.tex"), "").unwrap();
    all_refuse(&pool, &["it holds other things (`thesis.tex`)"]);
    let left: Vec<_> = fs::read_dir(pool.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing was made there: {left:?}");
}

#[test]
fn a_place_that_is_no_directory_is_said_with_its_name() {
    let pool = Pool::new();
    fs::write(pool.dir(), "a file").unwrap();
    let name = pool.dir().display().to_string();
    for ran in [
        pool.queue(&["submit", "--class", "cpu", "--", "true"]),
        pool.queue(&["ls"]),
        pool.worker(&["--cpu"]).end(),
    ] {
        refused(ran, 3, &[&name, "it is not a directory"]);
    }
    assert_eq!(fs::read_to_string(pool.dir()).unwrap(), "a file");
}

#[test]
fn without_any_word_on_where_it_is_there_is_no_pool() {
    let pool = Pool::new();
    for variable in ["BRAINSTEM_POOL", "HOME", "XDG_STATE_HOME"] {
        pool.env(variable, "");
    }
    refused(pool.queue(&["ls"]), 3, &["--pool DIR", "BRAINSTEM_POOL"]);
    // And where HOME is known the pool is made where the standard says.
    pool.env("HOME", pool.home());
    pool.queue(&["submit", "--class", "cpu", "--", "true"]).success();
    let made = pool.home().join(".local/state/brainstem");
    assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
}

/// Submits through every kind of path, runs, and reads the output back.
#[track_caller]
fn works_at(pool: &Pool, path: &str, full: &Path) {
    let queue = |words: &[&str]| pool.queue(&[&["--pool", path], words].concat());
    let job = ["--", "fake-job", "env=BRAINSTEM_POOL"];
    let id = queue(&[&["submit", "--class", "cpu"][..], &job].concat()).id();
    let worker = pool.worker(&["--pool", path, "--cpu", "--name", "w"]);
    let mut brain = pool.brain(&["--pool", path, "--no-spawn"]);
    queue(&["wait", &id]).success();
    let output = queue(&["output", &id]).success().stdout;
    assert_eq!(output, format!("BRAINSTEM_POOL={}\n", full.display()));
    let shown = queue(&["show", "--json", &id]).success().json();
    let log = PathBuf::from(shown["attempts"][0]["log_path"].as_str().unwrap());
    assert!(log.starts_with(full) && log.is_file(), "{}", log.display());
    worker.kill9();
    brain.term();
    brain.end().success();
    assert!(full.join("brain/state.json").is_file());
}

#[test]
fn a_pool_may_have_any_name() {
    let pool = Pool::new();
    let name = "my 'pool' \"of\" $HOME;\n\u{1f9e0}";
    works_at(&pool, &pool.at(name), &pool.home().join(name));
}

#[test]
fn a_relative_path_means_the_same_to_everybody() {
    let pool = Pool::new();
    works_at(&pool, "near/by", &pool.home().join("near/by"));
}

#[test]
fn a_pool_may_be_reached_through_a_link() {
    let pool = Pool::new();
    fs::create_dir(pool.home().join("real")).unwrap();
    symlink("real", pool.home().join("link")).unwrap();
    works_at(&pool, &pool.at("link"), &pool.home().join("link"));
}

#[test]
fn two_programs_that_make_the_same_pool_at_once_share_it() {
    for _round in 0..5 {
        let pool = Pool::new();
        let words = ["submit", "--class", "cpu", "--", "true"];
        let mut at_once: Vec<_> =
            (0..4).map(|_| pool.start(&mut pool.command("queue", &words))).collect();
        at_once.push(pool.worker(&["--cpu", "--name", "w"]));
        let ids: Vec<_> = at_once[..4].iter_mut().map(|one| one.end().id()).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        pool.queue(&[&["wait"], &ids[..]].concat()).success();
    }
}

// --- with the help of the kernel, as root ---

/// Submissions are refused before the disk is full; what runs is recorded even when it is, from
/// the reserve; when not even that helps it waits; and all goes on by itself.
#[test]
fn a_full_disk_loses_nothing_and_is_left_behind_when_there_is_room() {
    let pool = Pool::new();
    let Some(disk) = Disk::new(&pool, "16m") else { return };
    quicken(&pool, "reserve_size = \"2MiB\"\ndisk_low = \"3MiB\"\n");
    let brain = pool.brain(&["--no-spawn"]);
    let worker = pool.worker(&["--cpu", "--name", "w", "--cpu-slots", "2"]);
    let gates = ["a", "b"].map(|name| pool.fifo(name));
    // So long that its ledger line does not fit into what is left of a block.
    let pad = json!({"PAD": "x".repeat(9000)});
    let jobs = gates.each_ref().map(|gate| job(&["mark=runs", &gate.word()]));
    let ids = submit_all(&pool, jobs.map(|job| with(job, "env", pad.clone())));
    for id in &ids {
        until_started(&pool, "runs", *id, 1);
    }
    let reserve = pool.dir().join("reserve");
    pool.until_true("the reserve", || fs::metadata(&reserve).is_ok_and(|m| m.len() == 2 << 20));

    disk.fill(1 << 20);
    let words = ["submit", "--class", "cpu", "--", "fake-job", "say=x"];
    refused(pool.queue(&words), 75, &["is nearly full", "nothing was submitted"]);
    let status = pool.queue(&["status", "--json"]).success().json();
    assert_eq!(status["counts"]["processing"], 2);
    pool.until_true("the brain says so", || brain.stderr().contains("Disk low at"));

    disk.fill(0);
    gates[0].release();
    until_succeeded(&pool, ids[0]);
    assert!(!reserve.is_file(), "it was given up for the ledger");
    disk.fill(0);
    gates[1].release();
    pool.until_true("the worker to say it", || worker.stderr().contains("recording the end of"));
    assert_eq!(place(&pool, ids[1]), "processing a1f0d0");
    refused(pool.queue(&words), 75, &["is nearly full"]);

    disk.make_room();
    until_succeeded(&pool, ids[1]);
    let after = pool.queue(&words).id();
    pool.queue(&["wait", &after]).success();
    pool.until_true("the reserve again", || reserve.is_file());
    pool.until_true("the brain says that, too", || brain.stderr().contains("Disk has room again"));
    for id in ids {
        assert_eq!(story(&pool, id), ["succeeded - end"]);
        assert_eq!(starts(&pool, "runs", id), ["1"]);
    }
    let hidden = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
    let left: Vec<_> = ["brain", "workers"].iter().flat_map(|place| pool.files_in(place)).collect();
    assert!(left.iter().filter(|path| hidden(path)).count() <= 1, "half files pile up: {left:?}");
    drop(disk);
}

/// Runs one of the programs where the pool cannot be written to.
fn read_only(pool: &Pool, program: &str, words: &[&str]) -> Ran {
    let plain = pool.command(program, words);
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(pool.dir());
    command.arg(plain.get_program()).args(words);
    command.env_clear().current_dir(pool.home());
    command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    pool.start(&mut command).end()
}

#[test]
fn a_read_only_pool_can_be_looked_at_and_says_what_it_cannot_do() {
    let pool = quick_pool("");
    let id = submit(&pool, job(&["say=x"])).to_string();
    let listed = read_only(&pool, "queue", &["ls", "--json"]);
    let denied = ["unshare:", "mount:"].iter().any(|who| listed.stderr.contains(who));
    if !listed.status.success() && denied {
        tests::skip(&listed.stderr);
        return;
    }
    assert_eq!(listed.success().json()["id"], id);
    for words in [&["status"][..], &["show", &id], &["workers"], &["config"]] {
        read_only(&pool, "queue", words).success();
    }
    read_only(&pool, "queue", &["why", &id]).code(5);
    let reason = "Read-only file system";
    for ran in [
        read_only(&pool, "queue", &["submit", "--class", "cpu", "--", "true"]),
        read_only(&pool, "queue", &["cancel", &id]),
        read_only(&pool, "worker", &["--cpu"]),
        read_only(&pool, "brain", &["--no-spawn"]),
    ] {
        assert!(!ran.status.success(), "{ran}");
        assert!(ran.stderr.contains(reason) && ran.stderr.contains("could not"), "{ran}");
        assert!(ran.stderr.contains(pool.dir().to_str().unwrap()), "it names the file: {ran}");
    }
    let doctor = read_only(&pool, "queue", &["doctor", "--json"]).json();
    let fit = |check: &Value| check["ok"] == true;
    assert!(!doctor["checks"].as_array().unwrap().iter().all(fit), "{doctor}");
    assert_eq!(place(&pool, id.parse().unwrap()), "pending a1f0d0");
}

/// A container's `exec` makes such a process: its group and its session are of outside, and have
/// the number 0 inside.
#[test]
fn a_worker_whose_process_group_is_outside_its_pid_namespace_ends_what_jobs_leave() {
    let pool = quick_pool("");
    let worker = program("worker");
    let words = ["-U", "-r", "-p", "-f", "--mount-proc", "--kill-child"];
    let words = [&words[..], &[worker.to_str().unwrap(), "--cpu", "--name", "w"]].concat();
    let mut inside = pool.start(&mut pool.foreign("unshare", &words));
    let up = pool.until("the worker, or its end", || {
        (pool.heartbeat("w").is_some() || !inside.is_running()).then(|| inside.is_running())
    });
    if !up && inside.stderr().contains("unshare:") {
        tests::skip(&format!("needs namespaces: {}", inside.stderr()));
        return;
    }
    let id = submit(&pool, job(&["child", "daemon", "say=x"]));
    until_succeeded(&pool, id);
    let commands: Vec<_> = pool.alive().into_iter().map(|one| one.command).collect();
    assert!(commands.iter().all(|command| !command.contains("fake-job")), "{commands:?}");
}
