//! Where results are written: stdout, or a file of the person's.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use crate::cmd::look::output::not_written;
use crate::cmd::{App, Stop};

/// Where results are written.
pub(super) struct Target {
    /// `None`: stdout.
    file: Option<(PathBuf, BufWriter<File>)>,
    written: bool,
}

impl Target {
    /// Stdout.
    pub(super) const fn stdout() -> Self {
        Self { file: None, written: false }
    }

    /// A file, made anew.
    pub(super) fn file(path: PathBuf) -> Result<Self, Stop> {
        let file = File::create(&path).map_err(|err| not_written(&path, &err))?;
        let file = BufWriter::with_capacity(1 << 16, file);
        Ok(Self { file: Some((path, file)), written: false })
    }

    /// Whether nothing was written yet.
    pub(super) const fn is_empty(&self) -> bool {
        !self.written
    }

    /// Writes the bytes as they are; others see them after [`Self::flush`] at the latest.
    pub(super) fn write(&mut self, app: &mut App, bytes: &[u8]) -> Result<(), Stop> {
        self.written = true;
        match &mut self.file {
            None => app.out.raw(bytes),
            Some((path, file)) => file.write_all(bytes).map_err(|err| not_written(path, &err)),
        }
    }

    /// What was written so far can be read by others now.
    pub(super) fn flush(&mut self, app: &mut App) -> Result<(), Stop> {
        match &mut self.file {
            None => app.out.flush(),
            Some((path, file)) => file.flush().map_err(|err| not_written(path, &err)),
        }
    }
}
