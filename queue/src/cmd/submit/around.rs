//! Warnings of what looks wrong from here: a directory that is not there, a program that is found
//! nowhere. Never more than warnings: the worker's machine may differ.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::Path;

use shared::task::Spec;

use crate::cmd::warn;

/// So many warnings are told for one submit.
const TOLD: usize = 5;
/// So many different commands of one submit are looked for: the tasks of a batch mostly share a few.
const LOOKED_FOR: usize = 1000;

/// What was looked at for the tasks of one submit.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// Programs with their directory and PATH, and directories: as hashes, there may be many.
    seen: HashSet<u64>,
    warnings: Vec<String>,
}

impl Around {
    /// Looks for the directory and the program of one task.
    pub(super) fn look(&mut self, spec: &Spec) {
        let Some(program) = spec.command.as_ref().and_then(|command| command.first()) else {
            return;
        };
        let (cwd, path) = (spec.cwd.as_deref().unwrap_or("/"), spec.env.get("PATH"));
        if self.is_new(&cwd) && !std::fs::metadata(cwd).is_ok_and(|meta| meta.is_dir()) {
            let cwd = cwd.escape_default();
            self.warnings.push(format!("there is no directory `{cwd}` on this machine"));
        }
        if !self.is_new(&(program, cwd, path)) {
            return;
        }
        let path = path.cloned().or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
        if !is_found(program, cwd, &path) {
            let program = program.escape_default();
            self.warnings.push(format!(
                "the command `{program}` is not found from here; the worker may have it"
            ));
        }
    }

    /// Whether this was not looked at yet, and there is room for it.
    fn is_new(&mut self, what: &impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        self.seen.len() < LOOKED_FOR && self.seen.insert(hasher.finish())
    }

    /// Tells what was found to be missing.
    pub(super) fn warn(&self) {
        self.warnings.iter().take(TOLD).for_each(warn);
        if let Some(more) = self.warnings.len().checked_sub(TOLD).filter(|more| *more > 0) {
            warn(format!("{more} more directories or commands are not found from here"));
        }
    }
}

fn is_found(program: &str, cwd: &str, path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |file: &Path| {
        std::fs::metadata(file)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return runs(&Path::new(cwd).join(program));
    }
    std::env::split_paths(path).any(|dir| runs(&Path::new(cwd).join(dir).join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_the_shell_finds_them() {
        assert!(is_found("sh", "/", "/nowhere:/bin"));
        assert!(is_found("./sh", "/bin", ""));
        assert!(!is_found("sh", "/", "/nowhere"));
        assert!(!is_found("/etc/passwd", "/", ""));
    }

    #[test]
    fn what_many_tasks_lack_is_told_once() {
        let spec = |words: &[&str], cwd: &str| Spec {
            command: Some(words.iter().map(|word| (*word).to_owned()).collect()),
            cwd: Some(cwd.to_owned()),
            ..Spec::default()
        };
        let mut around = Around::default();
        for number in ["1", "2", "3"] {
            around.look(&spec(&["no-such-program", number], "/"));
            around.look(&spec(&["sh", number], "/no/such/directory"));
            around.look(&spec(&["sh", number], "/"));
        }
        assert_eq!(around.warnings.len(), 2, "{:?}", around.warnings);
        assert!(around.warnings[0].contains("`no-such-program`"), "{:?}", around.warnings);
        assert!(around.warnings[1].contains("`/no/such/directory`"), "{:?}", around.warnings);
    }
}
