//! What programs left behind, read back: marks of the fake job, log lines, ledger lines.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Which end of a job a mark is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The job got to its word `mark=`.
    Start,
    /// The job ended by itself.
    End,
}

/// A line that the fake job appended at its word `mark=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which end.
    pub moment: Moment,
    /// `$BRAINSTEM_TASK_ID`, or `-`.
    pub task: String,
    /// `$BRAINSTEM_ATTEMPT`, or `-`.
    pub attempt: String,
    /// The job's process number.
    pub pid: u32,
    /// Nanoseconds on the machine's monotonic clock.
    pub at: u64,
}

impl Mark {
    fn read(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let [moment, task, attempt, pid, at] = words[..] else { return None };
        let moment = match moment {
            "start" => Moment::Start,
            "end" => Moment::End,
            _ => return None,
        };
        let (task, attempt) = (task.to_owned(), attempt.to_owned());
        Some(Self { moment, task, attempt, pid: pid.parse().ok()?, at: at.parse().ok()? })
    }
}

/// All marks in a file; none when there is no file.
pub(crate) fn marks(path: &Path) -> Vec<Mark> {
    whole_lines(path)
        .iter()
        .map(|line| Mark::read(line).unwrap_or_else(|| panic!("no mark: {line}")))
        .collect()
}

/// The JSON lines of a file. The last line may still be in the making; any other must be whole.
pub(crate) fn json_lines(path: &Path) -> Vec<Value> {
    parsed(path, &lines(path))
}

/// The whole lines of a file that are not empty.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    whole_lines(path).into_iter().filter(|line| !line.is_empty()).collect()
}

/// Lines of a file as JSON.
pub(crate) fn parsed(path: &Path, lines: &[String]) -> Vec<Value> {
    let value = |line: &String| {
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display()))
    };
    lines.iter().map(value).collect()
}

fn whole_lines(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    lines.map(str::to_owned).collect()
}
