//! What a storm leaves behind: the ledger's lines, and the marks that the jobs have set themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use queue::wire::ledger_line::Line;
use tests::{Mark, Moment, Pool};

/// The places where a task is that has not ended. What is in `incoming/` is nobody's task yet.
const UNENDED: [&str; 7] =
    ["publishing", "pending", "processing", "delayed", "waiting", "held", "ending"];

/// When the job of an attempt began and ended, by its own marks, in nanoseconds.
#[derive(Clone, Default)]
pub(crate) struct Ran {
    pub(crate) starts: Vec<u64>,
    pub(crate) ends: Vec<u64>,
}

/// Everything that is known about one task.
#[derive(Clone, Default)]
pub(crate) struct Story {
    /// In the order of their attempts.
    pub(crate) lines: Vec<Line>,
    /// By attempt.
    pub(crate) ran: BTreeMap<u32, Ran>,
    /// Places where its file is.
    pub(crate) places: Vec<String>,
}

/// Everything that is known about all tasks, by id.
pub(crate) struct History {
    pub(crate) stories: BTreeMap<String, Story>,
    /// Ledger lines that nobody can read: whoever wrote them died meanwhile.
    pub(crate) torn: u32,
    /// Lines of jobs that were not alone.
    pub(crate) overlaps: Vec<String>,
}

impl Story {
    pub(crate) fn last(&self) -> Option<&Line> {
        self.lines.last()
    }

    /// The whole of it, for people.
    pub(crate) fn tell(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let cause = line.cause.map_or("-", |cause| cause.as_str());
            let worker = line.worker.as_ref().map_or("-", |name| name.as_str());
            text += &format!(
                "\n    a{}: {} {cause} -> {} {} on {worker} ended {} (written by {})",
                line.attempt,
                line.outcome,
                line.next,
                line.next_name,
                line.ended_at,
                line.written_by.as_deref().unwrap_or("the worker"),
            );
        }
        for (attempt, ran) in &self.ran {
            text += &format!("\n    a{attempt}: job marks {:?} to {:?}", ran.starts, ran.ends);
        }
        for place in &self.places {
            text += &format!("\n    is in {place}");
        }
        text
    }
}

impl History {
    pub(crate) fn read(pool: &Pool) -> Self {
        let mut history = Self { stories: BTreeMap::new(), torn: 0, overlaps: Vec::new() };
        for path in pool.files_in("ledger") {
            let text = fs::read(&path).expect("read a ledger file");
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match serde_json::from_slice::<Line>(line) {
                    Ok(line) => history.story(&line.id.to_string()).lines.push(line),
                    Err(_torn) => history.torn += 1,
                }
            }
        }
        for story in history.stories.values_mut() {
            story.lines.sort_by_key(|line| line.attempt);
        }
        for mark in pool.marks("marks") {
            history.mark(&mark);
        }
        for path in places(pool) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = name.split('.').next().unwrap_or_default().to_owned();
            let place = path.strip_prefix(pool.dir()).unwrap_or(&path).display().to_string();
            history.story(&id).places.push(place);
        }
        let overlaps = fs::read_to_string(pool.home().join("alone/overlaps")).unwrap_or_default();
        history.overlaps = overlaps.lines().map(str::to_owned).collect();
        history
    }

    fn story(&mut self, id: &str) -> &mut Story {
        self.stories.entry(id.to_owned()).or_default()
    }

    fn mark(&mut self, mark: &Mark) {
        let attempt = mark.attempt.parse().unwrap_or(0);
        let ran = self.story(&mark.task).ran.entry(attempt).or_default();
        match mark.moment {
            Moment::Start => ran.starts.push(mark.at),
            Moment::End => ran.ends.push(mark.at),
        }
    }

    /// The ids of the tasks that were submitted under each label.
    pub(crate) fn by_label(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (id, story) in &self.stories {
            if let Some(label) = story.last().and_then(|line| line.task.spec.labels.get("storm")) {
                found.entry(label).or_default().insert(id);
            }
        }
        found
    }
}

/// Every task file, wherever it is.
fn places(pool: &Pool) -> Vec<PathBuf> {
    let all = UNENDED.iter().chain(&["failed", "rejected"]);
    all.flat_map(|place| tasks_in(pool, place)).collect()
}

/// Names that begin with a dot are locks.
fn tasks_in(pool: &Pool, place: &str) -> Vec<PathBuf> {
    let mut files = pool.files_in(place);
    let is_hidden = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    files.retain(|path| !is_hidden(path));
    files
}

/// Whether every task has ended.
pub(crate) fn is_quiet(pool: &Pool) -> bool {
    UNENDED.iter().all(|place| tasks_in(pool, place).is_empty())
}

/// Grows with everything that happens.
pub(crate) fn size(pool: &Pool) -> u64 {
    let marks = [pool.home().join("marks")];
    let files = pool.files_in("ledger");
    let all = files.iter().chain(&marks);
    all.filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
}
