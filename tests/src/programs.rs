//! Finds the programs under test, and insists that they are built from the sources as they are.
//!
//! Cargo builds the test program before the tests, but not `brain`, `worker` and `queue`, which
//! belong to other packages; so a test could pass with yesterday's worker. Cargo leaves a list of
//! its sources beside each program (`worker.d`): none of them may be younger than the program.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs};

/// The folder the running test program was built into (`target/debug`).
pub(crate) fn target() -> PathBuf {
    let mut dir = env::current_exe().expect("a running program knows its file");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir
}

/// A program of this workspace.
///
/// # Panics
///
/// When it was not built, or before its sources changed.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = target().join(name);
    let Ok(built) = fs::metadata(&path).and_then(|meta| meta.modified()) else {
        panic!("{} is not built; run `cargo build --workspace` first", path.display());
    };
    if let Some(source) = younger_source(&path.with_extension("d"), built) {
        panic!("{source} changed after `{name}` was built; run `cargo build --workspace` first");
    }
    path
}

/// `list` is a line as make reads it: `program: source source …`, spaces inside names escaped.
fn younger_source(list: &Path, built: SystemTime) -> Option<String> {
    let text = fs::read_to_string(list).ok()?;
    let (_program, sources) = text.lines().next()?.split_once(": ")?;
    let sources = sources.replace("\\ ", "\0");
    let mut sources = sources.split(' ').map(|source| source.replace('\0', " "));
    sources.find(|source| {
        fs::metadata(source).and_then(|meta| meta.modified()).is_ok_and(|changed| changed > built)
    })
}
