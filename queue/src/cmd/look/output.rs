//! `queue output`: what a job printed, byte by byte, and with `-f` as it comes. A job's stdout and
//! stderr are its run log, so this reads a file; it ends when the attempt has ended and the log
//! was read to its end, in this order.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use queue::Pool;
use queue::dir::disk::place::Place;
use queue::dir::find::places;
use queue::dir::lookup::{self, Standing};
use queue::dir::runs::read::{self, Piece};
use shared::exit;
use shared::id::TaskId;
use shared::quantity::Bytes;

use super::wait;
use crate::cmd::out::Out;
use crate::cmd::watch::{Deadline, Watch};
use crate::cmd::{App, Stop, end_on_interrupt, note};

/// Print what a job printed
#[derive(Args, Debug)]
pub(crate) struct Output {
    /// The task
    #[arg(value_name = "ID")]
    id: String,
    /// Go on until the attempt has ended; wait for it where it has not begun
    #[arg(short, long)]
    follow: bool,
    /// Which attempt [default: the last one]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
}

impl Output {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        if app.json() {
            let text = "output prints what the job printed, as it is; `queue show ID --json` names the file";
            return Err(Stop::usage(text));
        }
        end_on_interrupt();
        let (pool, _resolved) = app.open()?;
        let id = app.task(&pool, &self.id)?;
        let runs = pool.layout().runs();
        let watch = Watch::on(&[&runs, &pool.layout().ledger()]);
        let attempt = loop {
            if let Some(attempt) = self.pick(&pool, id)? {
                break attempt;
            }
            if !self.follow {
                return Err(Stop::no_match(self.nothing(&pool, id)?));
            }
            if lookup::standing(pool.layout(), id)?
                .is_none_or(|standing| standing.ended().is_some())
            {
                return Err(Stop::no_match(self.nothing(&pool, id)?));
            }
            watch.wait(Deadline::after(None));
        };
        let mut reader = Reader::new(pool, id, attempt);
        if self.follow {
            reader.follow(&mut app.out, &watch)?
        } else {
            reader.all(&mut app.out)?
        }
        Ok(exit::OK)
    }

    /// The attempt whose log to print, once there is one.
    fn pick(&self, pool: &Pool, id: TaskId) -> Result<Option<u32>, Stop> {
        let layout = pool.layout();
        let has_log =
            |attempt: &u32| std::fs::symlink_metadata(layout.run_log(id, *attempt)).is_ok();
        if let Some(attempt) = self.attempt {
            return Ok(Some(attempt).filter(has_log));
        }
        let newest = lookup::standing(layout, id)?.map_or(0, |standing| standing.attempt());
        Ok((1..=newest).rev().find(has_log))
    }

    fn nothing(&self, pool: &Pool, id: TaskId) -> Result<String, Stop> {
        let short = id.short();
        if let Some(attempt) = self.attempt {
            return Ok(format!("{short} has no log of attempt {attempt}"));
        }
        Ok(match lookup::standing(pool.layout(), id)? {
            Some(Standing::There(found)) => {
                // A prompt's log is made when its answer comes.
                let runs = matches!(found.place, Place::Processing { .. });
                let what = if runs { "printed nothing" } else { "not run" };
                format!("{short} has {what} yet: it is {}", found.place.state())
            }
            Some(standing @ Standing::Ended(_)) => {
                format!("{short} has {}, and there is no log of it", standing.state())
            }
            None => format!("no task `{id}`"),
        })
    }
}

/// Where the bytes of a log go.
trait Sink {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Stop>;
    /// All that is there was taken.
    fn flush(&mut self) -> Result<(), Stop>;
}

impl Sink for Out {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.raw(bytes)
    }

    fn flush(&mut self) -> Result<(), Stop> {
        Self::flush(self)
    }
}

/// The file that an answer is written into as it comes.
pub(in crate::cmd) struct Answered {
    path: PathBuf,
    file: File,
}

impl Answered {
    /// Makes the file, or empties the one that is there.
    pub(in crate::cmd) fn create(path: PathBuf) -> Result<Self, Stop> {
        let file = File::create(&path).map_err(|err| not_written(&path, &err))?;
        Ok(Self { path, file })
    }

    /// What an attempt wrote that came to nothing is no part of the answer.
    fn clear(&mut self) -> Result<(), Stop> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.rewind());
        cleared.map_err(|err| not_written(&self.path, &err))
    }
}

impl Sink for Answered {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.file.write_all(bytes).map_err(|err| not_written(&self.path, &err))
    }

    fn flush(&mut self) -> Result<(), Stop> {
        Ok(())
    }
}

/// A file of the person's that cannot be written.
pub(in crate::cmd) fn not_written(path: &std::path::Path, err: &io::Error) -> Stop {
    let text = format!("could not write `{}`: {err}", path.display());
    Stop::Failure(queue::cli::Failure::new(exit::UNEXPECTED, text))
}

/// Writes what a task prints into a file as it comes, until the task has ended. A new attempt
/// begins the file anew. The exit code is that of `wait`.
pub(in crate::cmd) fn stream(pool: &Pool, id: TaskId, file: &mut Answered) -> Result<u8, Stop> {
    end_on_interrupt();
    let watch = Watch::on(&[&pool.layout().runs(), &pool.layout().ledger()]);
    let mut attempt = 0;
    loop {
        let standing = lookup::standing(pool.layout(), id)?;
        let Some(standing) = standing else {
            return Err(Stop::no_match(format!("no task `{id}`")));
        };
        let newest = (attempt + 1..=standing.attempt()).rev();
        let path = |attempt| pool.layout().run_log(id, attempt);
        let has_log = |attempt: &u32| std::fs::symlink_metadata(path(*attempt)).is_ok();
        if let Some(next) = newest.into_iter().find(has_log) {
            attempt = next;
            file.clear()?;
            Reader::new(pool.clone(), id, attempt).follow(file, &watch)?;
        } else if let Some(outcome) = standing.ended() {
            return Ok(wait::told(id, outcome));
        } else {
            watch.wait(Deadline::after(None));
        }
    }
}

struct Reader {
    pool: Pool,
    id: TaskId,
    attempt: u32,
    path: PathBuf,
    file: Option<File>,
    /// How far it was read.
    offset: u64,
    /// How much of that was cut out of it.
    missing: u64,
    /// How much of that was said.
    told: u64,
}

impl Reader {
    /// Nothing read yet.
    fn new(pool: Pool, id: TaskId, attempt: u32) -> Self {
        let path = pool.layout().run_log(id, attempt);
        Self { pool, id, attempt, path, file: None, offset: 0, missing: 0, told: 0 }
    }

    fn failed(&self, err: &io::Error) -> Stop {
        let text = format!("could not read `{}`: {err}", self.path.display());
        Stop::Failure(queue::cli::Failure::new(exit::UNEXPECTED, text))
    }

    /// Prints what is there and was not printed yet.
    fn all(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(err) => return Err(self.failed(&err)),
            }
        }
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Some(file) = self.file.as_ref() else { return Ok(()) };
            let piece = read::next(file, self.offset, &mut buffer);
            match piece.map_err(|err| self.failed(&err))? {
                Piece::End => break,
                Piece::Read(got) => {
                    sink.take(&buffer[..got])?;
                    self.offset += got as u64;
                }
                Piece::Missing(gone) => {
                    let here = format!("\n[{} of output are missing here]\n", Bytes(gone));
                    sink.take(here.as_bytes())?;
                    self.offset += gone;
                    self.missing += gone;
                }
            }
        }
        sink.flush()?;
        if self.told == 0 {
            self.tell_of_cut();
        }
        Ok(())
    }

    /// Says that the log was cut, and how that is avoided, where that is news.
    fn tell_of_cut(&mut self) {
        if self.missing == self.told {
            return;
        }
        self.told = self.missing;
        let (gone, all, id) = (Bytes(self.missing), Bytes(self.offset), self.id.short());
        note(format!(
            "{gone} of the {all} that {id} printed are missing: its log grew beyond its cap; submit \
             with --log-cap none (or a size) to keep more"
        ));
    }

    fn follow(&mut self, sink: &mut dyn Sink, watch: &Watch) -> Result<(), Stop> {
        let mut told = false;
        loop {
            // Asked before the reading: what the job printed before it ended is all there then.
            let over = self.is_over()?;
            self.all(sink)?;
            if over {
                self.tell_of_cut();
                return Ok(());
            }
            if !told && !self.has_worker()? {
                told = true;
                note(format!(
                    "{}: its worker is dead; waiting for it to be settled",
                    self.id.short()
                ));
            }
            watch.wait(Deadline::after(None));
        }
    }

    fn is_over(&self) -> Result<bool, Stop> {
        let layout = self.pool.layout();
        let Some(found) = places::find(layout, self.id)? else {
            let line = queue::dir::ledger::search::line_of(layout, self.id, self.attempt, None)?;
            return Ok(line.is_some() || lookup::standing(layout, self.id)?.is_none());
        };
        let runs = matches!(found.place, Place::Processing { .. });
        Ok(found.name.attempt != self.attempt || !runs)
    }

    fn has_worker(&self) -> Result<bool, Stop> {
        let layout = self.pool.layout();
        let Some(found) = places::find(layout, self.id)? else { return Ok(true) };
        let Place::Processing { worker } = found.place else { return Ok(true) };
        let holder = queue::dir::presence::lease::probe(layout, &worker)?;
        Ok(holder == queue::dir::disk::lock::Holder::Somebody)
    }
}
