//! Ending a task whose file cannot be understood. It gets a line like every other end, so that
//! whoever asks for it finds it and whoever waits for it hears of it; then its file is put aside.
//!
//! The line holds nothing of the file, which nobody could trust; it is kept, and the line says
//! under which name. That name is the next attempt's: mended and put back, the task is ended again.

use std::path::Path;

use shared::task::{Task, TaskName};
use shared::time::Moment;

use super::append::Ledger;
use super::carry_out;
use crate::Error;
use crate::dir::Pool;
use crate::wire::ledger_line::Line;
use crate::wire::retry::{AttemptEnd, Verdict};

/// Records that this attempt ended by its file being unreadable, and puts the file at `path` aside.
/// Only for who may end the attempt: the holder of the worker's lease, or of the right to end tasks
/// that nobody runs.
///
/// Whoever dies between the two leaves a line that says where the file goes, to be carried out as
/// every other one is.
pub(in crate::dir) fn end(
    pool: &Pool,
    ledger: &Ledger,
    unreadable: Unreadable<'_>,
) -> Result<(), Error> {
    let Unreadable { path, name, problem } = unreadable;
    let end = AttemptEnd::rejected(name, Moment::now());
    let mut line = Line::new(Task::unreadable(name.id), name, Verdict::Rejected, end);
    line.error_message = Some(problem.to_owned());
    line.written_by = Some(ledger.writer().name.to_string());
    ledger.append(&line)?;
    carry_out::carry_out(pool, path, &line.task, &line)
}

/// A file in the place of a task's that cannot be understood.
#[derive(Clone, Copy, Debug)]
pub(in crate::dir) struct Unreadable<'a> {
    /// Where it is.
    pub(in crate::dir) path: &'a Path,
    /// Which attempt of which task it stands for, as its name says.
    pub(in crate::dir) name: TaskName,
    /// What is wrong with it.
    pub(in crate::dir) problem: &'a str,
}
