//! `queue results`: what became of a batch, task by task, as a stream: in OpenAI's batch output
//! format, as JSON lines, as a table, or as plain text. Answers are read from history one at a
//! time, so that a batch of a million costs no more memory than its list of ids.

mod form;
mod target;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use queue::Pool;
use queue::dir::find::batch_ends::{BatchEnds, End, Reader, Slot};
use queue::wire::ledger_line::Line;
use shared::exit;
use shared::id::TaskId;
use shared::name::printable;
use shared::outcome::Outcome;
use shared::quantity::{Span, counted};

use super::flaws::Flaws;
use super::wait;
use crate::cmd::watch::{Deadline, Watch};
use crate::cmd::{App, Stop, end_on_interrupt, note};
use form::Form;
use target::Target;

/// Print what became of a batch: its answers, or how its jobs ended
#[derive(Args, Debug)]
#[command(
    after_help = "openai: a line of OpenAI's batch output for every task that succeeded. jsonl, \
                        csv: every task that has ended, with its state. text: the answers, or exit \
                        codes and log files.\n\n\
                        Failures go to --errors, as lines in OpenAI's format; without it they are \
                        told on stderr. Exit code: 0 all succeeded, 100 some did not, 75 some have \
                        not ended."
)]
pub(crate) struct Results {
    /// The batch: its id, any unique beginning or end of it, or the key it was submitted under
    #[arg(value_name = "BATCH|KEY")]
    batch: String,
    /// How to write them [default: openai; for commands, jsonl]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Form>,
    /// In the order of the batch file, or as tasks were completed
    #[arg(long, value_enum, value_name = "ORDER", default_value = "input")]
    order: Order,
    /// Write into this file [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write failures into this file
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Go on until all tasks have ended
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", requires = "wait")]
    timeout: Option<Span>,
}

/// In which order results come.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As in the batch file.
    Input,
    /// As they were completed.
    Completed,
}

impl Results {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        end_on_interrupt();
        let (pool, _resolved) = app.open()?;
        let ids = self.ids(app, &pool)?;
        let deadline = Deadline::after(self.timeout.map(|span| span.0));
        // Before the first look, so that no end falls between the two.
        let watch = Watch::on(&[&pool.layout().ledger()]);
        let mut answers = BatchEnds::of(pool.layout(), ids)?;
        let mut writer = Writer::new(&self, app)?;
        let bar = wait::bar(answers.ids().len() as u64);
        let mut ready = already(&answers);
        loop {
            let waits = self.wait && is_open(&answers) && !deadline.is_over();
            writer.go_on(app, &answers, &mut ready, waits)?;
            if !waits {
                break;
            }
            bar.set_position((answers.ids().len() - answers.open()) as u64);
            watch.wait(deadline);
            ready = answers.poll(pool.layout())?;
        }
        bar.finish_and_clear();
        writer.finish(app, &answers)
    }

    /// The tasks of the batch, in order.
    fn ids(&self, app: &App, pool: &Pool) -> Result<Vec<TaskId>, Stop> {
        Ok(app.named(pool, &self.batch)?.tasks().to_vec())
    }

    fn form(&self, app: &App) -> Option<Form> {
        self.format.or_else(|| app.json().then_some(Form::Jsonl))
    }
}

/// Whether some task may still end.
fn is_open(answers: &BatchEnds) -> bool {
    let open = |index| matches!(answers.slot(index), Slot::Open { .. });
    answers.open() > 0 && (0..answers.ids().len()).any(open)
}

/// The tasks that have ended, in the order in which they did.
fn already(answers: &BatchEnds) -> Vec<usize> {
    let all = 0..answers.ids().len();
    all.filter(|index| matches!(answers.slot(*index), Slot::Ended(_))).collect()
}

/// Writes results as they become ready, and counts.
struct Writer {
    order: Order,
    /// In the order of the batch: the next one to write.
    next: usize,
    form: Option<Form>,
    target: Target,
    errors: Option<Target>,
    reader: Reader,
    counts: Counts,
}

/// What was written, and what was not.
#[derive(Debug, Default)]
struct Counts {
    succeeded: u64,
    failed: u64,
    /// What answers of those that succeeded lack.
    flaws: Flaws,
    /// Tasks that this format cannot show.
    left_out: u64,
}

/// So many failures are told on stderr.
const TOLD: u64 = 10;

impl Writer {
    fn new(results: &Results, app: &App) -> Result<Self, Stop> {
        Ok(Self {
            order: results.order,
            next: 0,
            form: results.form(app),
            target: results.output.clone().map_or(Ok(Target::stdout()), Target::file)?,
            errors: results.errors.clone().map(Target::file).transpose()?,
            reader: Reader::default(),
            counts: Counts::default(),
        })
    }

    /// Writes what can be written now. `ready` are those that ended since the last time; where
    /// more is waited for, the order of the batch holds later ones back.
    fn go_on(
        &mut self,
        app: &mut App,
        answers: &BatchEnds,
        ready: &mut Vec<usize>,
        waits: bool,
    ) -> Result<(), Stop> {
        match self.order {
            Order::Completed => {
                ready.sort_by_key(|index| match answers.slot(*index) {
                    Slot::Ended(end) => Some((end.at, *index)),
                    Slot::Open { .. } | Slot::Unknown => None,
                });
                for index in ready.drain(..) {
                    self.write(app, answers, index)?;
                }
            }
            Order::Input => {
                while self.next < answers.ids().len() {
                    if waits && matches!(answers.slot(self.next), Slot::Open { .. }) {
                        break;
                    }
                    self.write(app, answers, self.next)?;
                    self.next += 1;
                }
            }
        }
        self.target.flush(app)?;
        self.errors.as_mut().map_or(Ok(()), |errors| errors.flush(app))
    }

    fn write(&mut self, app: &mut App, answers: &BatchEnds, index: usize) -> Result<(), Stop> {
        let Slot::Ended(end) = answers.slot(index) else { return Ok(()) };
        let line = self.line(answers, &end)?;
        // What the batch is decides how it is shown, where nobody said.
        let form = *self.form.get_or_insert_with(|| Form::for_task(&line));
        match end.outcome {
            Outcome::Succeeded => {
                self.counts.succeeded += 1;
                self.flawed(&line);
            }
            Outcome::Failed | Outcome::Cancelled | Outcome::Returned => {
                self.counts.failed += 1;
                if let Some(errors) = &mut self.errors {
                    return errors.write(app, &form::openai_error(&line));
                }
                if self.counts.failed <= TOLD {
                    note(form::failure(&line));
                }
                if !form.shows_failures() {
                    return Ok(());
                }
            }
        }
        match form.bytes(&line, self.target.is_empty()) {
            Some(bytes) => self.target.write(app, &bytes),
            None => {
                self.counts.left_out += 1;
                Ok(())
            }
        }
    }

    /// Says of an answer what it lacks.
    fn flawed(&mut self, line: &Line) {
        let Some(flaw) = line.answer.as_ref().and_then(|answer| answer.flaw) else { return };
        self.counts.flaws.add(flaw);
        if self.counts.flaws.count() <= TOLD {
            let custom_id = line.task.spec.custom_id.as_ref();
            let custom_id = custom_id.map(|id| format!(" {}", printable(id))).unwrap_or_default();
            note(format!("{}{custom_id}: {}", line.id.short(), flaw.sentence()));
        }
    }

    fn line(&mut self, answers: &BatchEnds, end: &End) -> Result<Line, Stop> {
        Ok(self.reader.line(answers, end)?)
    }

    fn finish(mut self, app: &mut App, answers: &BatchEnds) -> Result<u8, Stop> {
        self.target.flush(app)?;
        let counts = self.counts;
        let all = answers.ids().len();
        if counts.failed > TOLD && self.errors.is_none() {
            note(format!("and {} more; --errors FILE writes them all", counts.failed - TOLD));
        }
        if counts.left_out > 0 {
            let tasks = counted(counts.left_out, "task");
            note(format!("{tasks} asked no model, and are not in this format; jsonl shows them"));
        }
        let slots = (0..all).map(|index| answers.slot(index));
        let unknown = slots.filter(|slot| *slot == Slot::Unknown).count();
        let open = answers.open() - unknown;
        if counts.failed > 0 || open > 0 || unknown > 0 || counts.flaws.count() > 0 {
            let gone = match unknown {
                0 => String::new(),
                gone => format!(", {gone} {}", why_unknown(answers)),
            };
            let open = if open > 0 { format!(", {open} not ended") } else { String::new() };
            let (done, failed) = (counts.succeeded, counts.failed);
            let tasks = counted(all, "task");
            let flaws = counts.flaws.in_brackets();
            note(format!("{tasks}: {done} succeeded{flaws}, {failed} did not{open}{gone}"));
        }
        Ok(match (open, counts.failed, unknown) {
            (1.., ..) => exit::TRY_LATER,
            (0, 0, 0) => exit::OK,
            (0, ..) => exit::TASK_FAILED,
        })
    }
}

/// Why it is not known what became of some tasks.
fn why_unknown(answers: &BatchEnds) -> String {
    match answers.all_was_read() {
        Ok(()) => "no longer in history".to_owned(),
        Err(err) => format!("unknown ({err})"),
    }
}
