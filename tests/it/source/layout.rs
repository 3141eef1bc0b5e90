//! Tests of the source itself: what the compiler cannot insist on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The budget is 400; beyond this a file is about two things.
const MAX_LINES: usize = 500;

const CRATES: [&str; 6] = ["shared", "queue", "brain", "worker", "tests", "fake-nvml"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every source file of the workspace, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for part in ["shared", "queue", "brain", "worker", "tests"] {
        collect(&workspace().join(part), &mut found);
    }
    found
}

fn collect(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(workspace()).unwrap().to_owned(), text));
        }
    }
}

/// Names what offends, all at once.
#[track_caller]
fn none<T: std::fmt::Display>(offenders: impl IntoIterator<Item = T>, what: &str) {
    let list: Vec<_> = offenders.into_iter().map(|one| format!("\n  {one}")).collect();
    assert!(list.is_empty(), "{what}:{}", list.concat());
}

/// The arrows of the design: whoever is not in the list may not be used.
#[test]
fn crates_depend_only_as_the_design_says() {
    for (dir, may_use) in [
        ("shared", &[][..]),
        ("queue", &["shared"]),
        ("brain", &["queue", "shared"]),
        ("worker", &["queue", "shared"]),
        ("tests", &["queue", "shared", "brain", "worker", "fake-nvml"]),
        ("tests/fake-nvml", &[]),
    ] {
        let text = fs::read_to_string(workspace().join(dir).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let used = ["dependencies", "dev-dependencies", "build-dependencies"]
            .into_iter()
            .filter_map(|kind| manifest.get(kind)?.as_table())
            .flat_map(toml::Table::keys);
        let ours = used.filter(|name| CRATES.contains(&name.as_str()));
        let astray = ours.filter(|name| !may_use.contains(&name.as_str()));
        none(astray, &format!("{dir} must not use"));
    }
}

#[test]
fn source_files_start_with_what_they_are_for() {
    let bare = sources().into_iter().filter(|(_, text)| !text.starts_with("//! "));
    none(bare.map(|(path, _)| path.display().to_string()), "files without a heading");
}

#[test]
fn source_files_stay_short() {
    let lengths = sources().into_iter().map(|(path, text)| (path, text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > MAX_LINES);
    let long = long.map(|(path, lines)| format!("{} has {lines} lines", path.display()));
    none(long, &format!("files over {MAX_LINES} lines"));
}

/// Clippy sees what is called; this sees also what is hidden from Clippy.
#[test]
fn nothing_waits_by_sleeping() {
    let sleep = concat!("thread::", "sleep");
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            if line.contains(sleep) && !line.trim_start().starts_with("//") {
                found.push(format!("{}:{number}", path.display()));
            }
        }
    }
    none(found, "wait for the thing, not for time");
}

/// Both panic where the machine gives no thread: `Builder` says so instead.
#[test]
fn the_product_asks_for_threads_and_takes_none_for_granted() {
    let spawns = [concat!("thread::", "spawn("), concat!("scope.", "spawn(")];
    let mut found = Vec::new();
    for (path, text) in sources() {
        let is_test = path.starts_with("tests") || path.to_string_lossy().contains("tests");
        let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (number, line) in (1..).zip(product.lines()).filter(|_line| !is_test) {
            if spawns.iter().any(|spawn| line.contains(spawn)) {
                found.push(format!("{}:{number}", path.display()));
            }
        }
    }
    none(found, "use `std::thread::Builder`");
}

/// What a newcomer types first is there, and the door knows the words.
#[test]
fn the_readme_begins_with_commands_that_exist() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let block = readme.split("```").nth(1).expect("README.md shows commands");
    let mut words = block.lines().filter_map(|line| line.strip_prefix("./run.sh "));
    let mut words = words.by_ref().filter_map(|rest| rest.split_whitespace().next());
    let first: Vec<_> = words.by_ref().take(2).collect();
    assert_eq!(first, ["demo", "test"], "the first commands of README.md");
    let help = Command::new(workspace().join("run.sh")).arg("help").output().unwrap();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    let known = |word: &&str| help.lines().any(|line| line.trim_start().starts_with(*word));
    none(first.into_iter().chain(words).filter(|word| !known(word)), "run.sh does not know");
}
