//! Counting history without reading all of it: a ledger line begins with its id and its outcome,
//! so that a million lines are counted by their first 200 bytes each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memchr::memmem;
use shared::id::TaskId;
use shared::outcome::Outcome;

use crate::Error;
use crate::dir::layout::Layout;
use crate::dir::ledger::lines::each_line;
use crate::wire::ledger_line::{self, Brief, HEAD};

const OUTCOME: &[u8] = br#""outcome":""#;
/// Id, attempt and outcome are within so many bytes.
const WINDOW: usize = 200;

/// The ends of tasks that can be told from their outcome alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    /// Tasks that succeeded.
    pub complete: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
}

/// Counts what the ledger says beyond the given offsets (none: all of it).
pub fn count(layout: &Layout, from: &BTreeMap<PathBuf, u64>) -> Result<LedgerCounts, Error> {
    let mut ledger_counts = LedgerCounts::default();
    for path in crate::dir::ledger::search::files_since(layout, "")? {
        let start = from.get(&path).copied().unwrap_or(0);
        each_end(&path, start, |_id, outcome| match outcome {
            Outcome::Succeeded => ledger_counts.complete += 1,
            Outcome::Cancelled => ledger_counts.cancelled += 1,
            Outcome::Failed | Outcome::Returned => {}
        })?;
    }
    Ok(ledger_counts)
}

/// Shows the ids in the ledger; one may come several times.
pub(in crate::dir) fn each_id(layout: &Layout, mut see: impl FnMut(TaskId)) -> Result<(), Error> {
    for path in crate::dir::ledger::search::files_since(layout, "")? {
        each_end(&path, 0, |id, _outcome| id.parse().into_iter().for_each(&mut see))?;
    }
    Ok(())
}

/// Shows what each line of one file says. Those that cannot be read are left out; whoever follows
/// the ledger tells of them.
fn each_end(path: &Path, from: u64, mut see: impl FnMut(&str, Outcome)) -> Result<(), Error> {
    let read = each_line(path, from, |_at, line| {
        if let Some((id, outcome)) = quick(line) {
            see(id, outcome);
        } else if let Ok(brief) = ledger_line::read::<Brief>(line) {
            see(&brief.id.to_string(), brief.outcome);
        }
    });
    read.map(drop)
}

fn quick(line: &[u8]) -> Option<(&str, Outcome)> {
    if !line.ends_with(b"}\n") {
        return None;
    }
    let rest = line.strip_prefix(HEAD)?;
    let id = std::str::from_utf8(rest.get(..36)?).ok()?;
    let window = rest.get(36..)?;
    let window = &window[..window.len().min(WINDOW)];
    let at = memmem::find(window, OUTCOME)? + OUTCOME.len();
    let word = &window[at..];
    let word = &word[..memchr::memchr(b'"', word)?];
    Some((id, std::str::from_utf8(word).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ledger_line::Line;
    use crate::wire::retry::AttemptEnd;
    use crate::wire::retry::Verdict;
    use shared::outcome::Cause;
    use shared::task::{Task, TaskName, parse_spec};
    use shared::time::Moment;

    fn line(verdict: Verdict) -> Vec<u8> {
        let task = Task {
            id: TaskId::new(),
            batch_id: None,
            submitted_at: Moment::now(),
            submitted_by: "ann@host".into(),
            correlation_id: "c".into(),
            spec: parse_spec(br#"{"shell": "echo '\"outcome\":\"failed\"'"}"#).unwrap(),
        };
        let name = TaskName::first(task.id);
        Line::new(task, name, verdict, AttemptEnd::for_good(name, Moment::now())).to_bytes()
    }

    #[test]
    fn the_quick_look_sees_what_is_written() {
        let bytes = line(Verdict::Succeeded);
        let brief: Brief = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(quick(&bytes), Some((brief.id.to_string().as_str(), Outcome::Succeeded)));
    }

    #[test]
    fn torn_lines_and_lines_before_the_offset_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let path = layout.ledger().join("2026-02-07/queue.x.0.jsonl");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let first = line(Verdict::Succeeded);
        let mut text = first.clone();
        text.extend(line(Verdict::Cancelled(Cause::Cancelled)));
        text.extend(b"{\"schema\":\"brainstem.le\n");
        text.extend(line(Verdict::Succeeded));
        text.extend(&line(Verdict::Succeeded)[..300]);
        std::fs::write(&path, text).unwrap();
        let all = count(&layout, &BTreeMap::new()).unwrap();
        assert_eq!(all, LedgerCounts { complete: 2, cancelled: 1 });
        let later = count(&layout, &BTreeMap::from([(path, first.len() as u64)])).unwrap();
        assert_eq!(later, LedgerCounts { complete: 1, cancelled: 1 });
    }
}
