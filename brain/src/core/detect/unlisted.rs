//! Directories of tasks that cannot be listed: nobody takes what is in them, and how much that is
//! is unknown. Said while it lasts, for nothing else shows it.

use queue::wire::brain_state::Warning;
use queue::wire::counts::Unlisted;
use shared::event::Event;
use shared::reason::Code;

use super::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::Snapshot;

/// Watches what could not be counted.
#[derive(Clone, Debug, Default)]
pub struct UnlistedDirectories {
    each: Conditions<String>,
}

impl UnlistedDirectories {
    /// Takes in a look.
    pub fn look(&mut self, at: At, seen: &Snapshot, out: &mut Vec<Command>) {
        let Some(counts) = &seen.counts else { return };
        for Unlisted { path, problem, .. } in &counts.unlisted {
            if let Some(count) = self.each.holds(at, path) {
                let (path, error) = (path.clone(), problem.clone());
                say(out, Event::DirectoryUnlisted { path, error, count });
            }
        }
        let lasts = |path: &String| counts.unlisted.iter().any(|now| now.path == *path);
        for (path, seconds) in self.each.keep(at, lasts) {
            say(out, Event::DirectoryListed { path, seconds });
        }
    }

    /// What somebody should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let each = self.each.all().map(|(path, since)| Warning {
            code: Code::DirectoryUnlisted.as_str().to_owned(),
            text: format!("`{path}` cannot be listed: what is in it is unknown"),
            since,
        });
        each.collect()
    }
}
