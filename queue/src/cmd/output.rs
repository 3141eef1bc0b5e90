//! `queue output`: what a job printed, byte by byte, and with `-f` as it comes. A job's stdout and
//! stderr are its run log, so this reads a file; it ends when the attempt has ended and the log
//! was read to its end, in this order.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use clap::Args;
use queue::Pool;
use queue::dir::history;
use queue::dir::places::{self, Place};
use queue::lookup::{self, Standing};
use shared::exit;
use shared::id::TaskId;

use super::watch::{Deadline, Watch};
use super::{App, Stop, end_on_interrupt, note};

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
    pub(super) fn run(self, app: &mut App) -> Result<u8, Stop> {
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
        let mut reader = Reader { pool, id, attempt, path: PathBuf::new(), file: None };
        reader.path = reader.pool.layout().run_log(id, attempt);
        if self.follow {
            reader.follow(app, &watch)?
        } else {
            reader.all(app)?
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
                format!("{short} has not run yet: it is {}", found.place.state())
            }
            Some(standing @ Standing::Ended(_)) => {
                format!("{short} has {}, and there is no log of it", standing.state())
            }
            None => format!("no task `{id}`"),
        })
    }
}

struct Reader {
    pool: Pool,
    id: TaskId,
    attempt: u32,
    path: PathBuf,
    file: Option<File>,
}

impl Reader {
    fn failed(&self, err: &io::Error) -> Stop {
        let text = format!("could not read `{}`: {err}", self.path.display());
        Stop::Failure(queue::cli::Failure::new(exit::UNEXPECTED, text))
    }

    /// Prints what is there and was not printed yet.
    fn all(&mut self, app: &mut App) -> Result<(), Stop> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(err) => return Err(self.failed(&err)),
            }
        }
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Some(file) = self.file.as_mut() else { return Ok(()) };
            match file.read(&mut buffer) {
                Ok(0) => return app.out.flush(),
                Ok(got) => app.out.raw(&buffer[..got])?,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(self.failed(&err)),
            }
        }
    }

    fn follow(&mut self, app: &mut App, watch: &Watch) -> Result<(), Stop> {
        let mut told = false;
        loop {
            // Asked before the reading: what the job printed before it ended is all there then.
            let over = self.is_over()?;
            self.all(app)?;
            if over {
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
            let line = history::line_of(layout, self.id, self.attempt, None)?;
            return Ok(line.is_some() || lookup::standing(layout, self.id)?.is_none());
        };
        let runs = matches!(found.place, Place::Processing { .. });
        Ok(found.name.attempt != self.attempt || !runs)
    }

    fn has_worker(&self) -> Result<bool, Stop> {
        let layout = self.pool.layout();
        let Some(found) = places::find(layout, self.id)? else { return Ok(true) };
        let Place::Processing { worker } = found.place else { return Ok(true) };
        let holder = queue::dir::lease::probe(layout, &worker)?;
        Ok(holder == queue::dir::lock::Holder::Somebody)
    }
}
