//! A pool of a group, whose users have whatever umask they have.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{getxattr_query, removexattr};
use serde_json::Value;
use tests::Pool;

use super::{ANN, BOB, User, anns};
use crate::kit::steps::{file_of, log_of, until_over};

/// With bells that are not heard nothing would go on within a test's patience.
const GROUPS: &str = "group_pool = true\nidle_poll = \"1h\"";

fn submit(pool: &Pool, user: User, options: &[&str], words: &[&str]) -> String {
    let words = [&["submit", "--class", "cpu"], options, &["--"], words].concat();
    user.queue(pool, &words).id()
}

fn owners(pool: &Pool, user: User) -> Value {
    let answer = user.queue(pool, &["doctor", "--json"]).json();
    let checks = answer["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == "owners").unwrap().clone()
}

#[test]
fn each_may_do_what_the_other_may_whatever_their_umasks() {
    for umask in ["022", "027", "077", "002"] {
        let Some(pool) = anns(GROUPS) else { return };
        let (ann, bob) = (User { umask, ..ANN }, User { umask, ..BOB });
        let words = ["sh", "-c", "umask; id -u"];
        let printed = format!("0{umask}\n{}\n", ANN.uid);
        let anns = submit(&pool, ann, &[], &words);
        let held = submit(&pool, ann, &["--hold"], &["true"]);
        let _worker = pool.start(&mut ann.command(&pool, "worker", &["--cpu", "--name", "a"]));
        until_over(&pool, &anns);
        assert_eq!(log_of(&pool, &anns, 1), printed, "the job has its user's umask");
        let bobs = submit(&pool, bob, &[], &words);
        until_over(&pool, &bobs);
        let output = bob.queue(&pool, &["output", &bobs]).success().stdout;
        assert_eq!(output, printed, "as the worker's user, and Bob reads it");
        bob.queue(&pool, &["release", &held]).success();
        assert_eq!(until_over(&pool, &held)["outcome"], "succeeded");
        let other = submit(&pool, bob, &["--hold"], &["true"]);
        ann.queue(&pool, &["cancel", &other]).success();
        assert_eq!(file_of(&pool, "held", &other), None);
        for user in [ann, bob] {
            let owners = owners(&pool, user);
            assert_eq!(owners["ok"], true, "{owners}");
        }
    }
}

/// A shell between the worker and its jobs would hide why one cannot be started.
#[test]
fn what_cannot_be_started_is_said_as_in_a_pool_of_ones_own() {
    let Some(pool) = anns(&format!("{GROUPS}\nmax_attempts = 1")) else { return };
    let script = pool.home().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    super::chmod(&script, 0o755);
    let id = submit(&pool, ANN, &[], &[script.to_str().unwrap()]);
    let _worker = pool.start(&mut ANN.command(&pool, "worker", &["--cpu", "--name", "a"]));
    let end = until_over(&pool, &id);
    assert_eq!(end["cause"], "spawn_failed", "{end}");
    assert!(end["error_message"].to_string().contains("/no/such/interpreter"), "{end}");
}

/// As one that was made before, or copied without its ACL.
#[test]
fn a_groups_pool_without_a_default_acl_gets_one_from_its_owner() {
    let Some(pool) = anns(GROUPS) else { return };
    submit(&pool, ANN, &["--hold"], &["true"]);
    let acl = "system.posix_acl_default";
    let has = || getxattr_query(pool.dir(), acl).is_ok_and(|length| length > 0);
    if !has() {
        tests::skip("needs a temporary folder on a file system with ACLs");
        return;
    }
    for dir in directories(&pool.dir()) {
        removexattr(dir, acl).unwrap();
    }
    // Bob may not: there the programs see to it, as where there are no ACLs.
    let id = submit(&pool, BOB, &[], &["sh", "-c", "umask; id -u"]);
    let worker = pool.start(&mut BOB.command(&pool, "worker", &["--cpu", "--name", "b"]));
    until_over(&pool, &id);
    let printed = format!("0022\n{}\n", BOB.uid);
    assert_eq!(ANN.queue(&pool, &["output", &id]).success().stdout, printed);
    worker.kill9();
    assert!(!has() && owners(&pool, BOB)["ok"] == true);
    submit(&pool, ANN, &["--hold"], &["true"]);
    assert!(has() && getxattr_query(pool.dir().join("runs"), acl).is_ok());
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = below.filter(|path| path.is_dir()).flat_map(|path| directories(&path));
    below.chain([dir.to_owned()]).collect()
}

#[test]
fn workers_and_brains_of_one_follow_those_of_the_other() {
    let Some(pool) = anns(GROUPS) else { return };
    for user in [ANN, BOB, ANN] {
        let mut brain = pool.start(&mut user.command(&pool, "brain", &["--cpu"]));
        let id = submit(&pool, user, &[], &["sh", "-c", "umask; id -u"]);
        until_over(&pool, &id);
        assert_eq!(log_of(&pool, &id, 1), format!("0022\n{}\n", user.uid));
        brain.term();
        brain.end().success();
    }
}

#[test]
fn who_is_not_in_the_group_is_told_whose_it_is() {
    let Some(pool) = anns(GROUPS) else { return };
    submit(&pool, ANN, &["--hold"], &["true"]);
    let refused = pool.queue(&["submit", "--class", "cpu", "--", "true"]).code(3);
    assert!(refused.stderr.contains("belongs to 64201 and the group 64203"), "{refused}");
}
