//! A pool of one user: nobody else writes there, root included, whose files the owner could not move.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use serde_json::Value;
use tests::{Pool, Ran};

use super::{ANN, BOB, anns, chmod};

/// Everything below, with owner, mode and last change.
fn all(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let changed = (meta.ctime(), meta.ctime_nsec());
        found.push(format!("{} {} {:o} {changed:?}", path.display(), meta.uid(), meta.mode()));
        if meta.is_dir() {
            found.extend(all(&path));
        }
    }
    found.sort();
    found
}

/// The command in backquotes that a refusal ends with.
fn advice(refused: &Ran) -> String {
    let text = refused.stderr.trim_end().strip_suffix('`').unwrap_or_else(|| panic!("{refused}"));
    text.rsplit_once('`').unwrap().1.to_owned()
}

fn shell(pool: &Pool, command: &str) -> Ran {
    pool.start(&mut pool.foreign("sh", &["-c", command])).end()
}

#[test]
fn root_is_refused_before_anything_is_written_and_told_the_command() {
    let Some(pool) = anns("") else { return };
    ANN.queue(&pool, &["submit", "--class", "cpu", "--hold", "--", "true"]).success();
    let before = all(&pool.dir());
    let words = ["submit", "--class", "cpu", "--hold", "--", "echo", "it's $HOME"];
    let refused = pool.queue(&words).code(3);
    assert!(refused.stderr.contains("belongs to 64201, and you are root"), "{refused}");
    pool.worker(&["--cpu"]).end().code(3);
    pool.brain(&["--no-spawn"]).end().code(3);
    for command in ["pause", "doctor", "ls", "status", "workers", "config"] {
        // What only looks may.
        let ran = pool.queue(&[command]);
        assert_eq!(ran.status.success(), command != "pause", "{ran}");
    }
    assert_eq!(all(&pool.dir()), before, "something was written");
    let id = shell(&pool, &advice(&refused)).id();
    let shown = ANN.queue(&pool, &["show", "--json", &id]).success().json();
    assert_eq!(shown["spec"]["command"], serde_json::json!(["echo", "it's $HOME"]), "{shown}");
}

#[test]
fn another_user_is_told_whose_it_is() {
    let Some(pool) = anns("") else { return };
    ANN.queue(&pool, &["submit", "--class", "cpu", "--hold", "--", "true"]).success();
    for words in [&["submit", "--class", "cpu", "--", "true"][..], &["ls"], &["doctor"]] {
        let refused = BOB.queue(&pool, words);
        assert!(!refused.status.success(), "{refused}");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("belongs to 64201, and you are 64202"), "{said}");
    }
}

#[test]
fn a_batch_that_waits_to_be_moved_is_left_to_the_owner() {
    let Some(pool) = anns("") else { return };
    ANN.queue(&pool, &["submit", "--class", "cpu", "--hold", "--", "true"]).success();
    let batch = pool.dir().join("publishing/01a21dcf-4e76-7294-9532-b08c62223ce1");
    fs::create_dir(&batch).unwrap();
    chown(&batch, Some(ANN.uid), None).unwrap();
    let unknown = pool.queue(&["show", "01a21dcf-4e80-77f9-891f-f5af506f3921"]);
    assert!(!unknown.status.success() && fs::metadata(&batch).is_ok(), "{unknown}");
    let unknown = ANN.queue(&pool, &["show", "01a21dcf-4e80-77f9-891f-f5af506f3921"]);
    assert!(!unknown.status.success() && fs::metadata(&batch).is_err(), "{unknown}");
}

#[test]
fn doctor_finds_what_root_left_anywhere_and_its_repair_works() {
    for settings in ["", "group_pool = true"] {
        let Some(pool) = anns(settings) else { return };
        ANN.queue(&pool, &["submit", "--class", "cpu", "--hold", "--", "true"]).success();
        let left = pool.dir().join("pending/cpu-0123456789ab/05");
        fs::create_dir_all(&left).unwrap();
        // With the ordinary umask, whatever the pool gives to what is made in it.
        chmod(left.parent().unwrap(), 0o755);
        chmod(&left, 0o700);
        chown(&left, Some(0), Some(0)).unwrap();
        fs::write(pool.dir().join("locks/keys.lock"), "").unwrap();
        chmod(&pool.dir().join("locks/keys.lock"), 0o606);
        let owners = |ran: Ran| -> Value {
            let checks = ran.json()["checks"].as_array().unwrap().clone();
            checks.into_iter().find(|check| check["name"] == "owners").unwrap()
        };
        let found = owners(pool.queue(&["doctor", "--json"]));
        assert_eq!(found["ok"], false, "{found}");
        let detail = found["detail"].as_str().unwrap();
        assert!(detail.starts_with("3 of ") && detail.contains("keys.lock` (root:"), "{found}");
        shell(&pool, found["fix"].as_str().unwrap()).success();
        let repaired = owners(pool.queue(&["doctor", "--json"]));
        assert_eq!(repaired["ok"], true, "{repaired}");
    }
}
