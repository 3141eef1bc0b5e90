//! Words that are known to be misspelt, in code and in what people read: found with codespell, whose
//! list needs no network.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::source::Workspace;

/// Words that codespell takes for others.
const MEANT: [(&str, &str); 9] = [
    ("crate", "a package of Rust"),
    ("fro", "as in to and fro"),
    ("inflight", "InFlight is two words"),
    ("metod", "a misspelt field, in a test of what is said about it"),
    ("nin", "a new line, and in"),
    ("nmae", "a misspelt field, in a test"),
    ("objekt", "a word in another language, in a test"),
    ("ser", "short for a serialiser"),
    ("titel", "a misspelt column, in a test of what is said about it"),
];

/// What people read beside the sources.
const TEXTS: [&str; 6] =
    ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "run.sh", ".ci/run", ".demo"];

#[test]
fn no_word_is_known_to_be_misspelt() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
    let files = Workspace::read(root).files().into_iter().chain(TEXTS.map(PathBuf::from));
    let meant = MEANT.map(|(word, _why)| word).join(",");
    let mut command = Command::new("codespell");
    command.current_dir(root).args(["--ignore-words-list", &meant]).args(files);
    match command.output() {
        Ok(output) => {
            let found = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && found.is_empty(), "{found}");
        }
        Err(_not_there) => tests::skip("spelling: codespell is not installed"),
    }
}
