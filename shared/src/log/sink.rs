//! Where lines go: a file of our own that rotates, a file shared in whole lines, stderr.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flexi_logger::writers::{ArcFileLogWriter, FileLogWriter, FileLogWriterHandle};
use flexi_logger::{Cleanup, Criterion, FileSpec, Naming, WriteMode};
use rustix::process::{Resource, getrlimit};

use crate::settings::Settings;
use crate::time::Moment;

/// Whether rotated files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// All but the newest two, which somebody may be reading.
    Older,
    /// None.
    Never,
}

/// When a log file is rotated and what becomes of old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Rotated after exceeding so many bytes.
    pub size: u64,
    /// So many rotated files are kept.
    pub keep: usize,
    /// How they are kept.
    pub compress: Compress,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { size: 100_000_000, keep: 10, compress: Compress::Older }
    }
}

/// Lines kept until there is a file.
const EARLY_LINES: usize = 10_000;

/// Where the JSON lines go.
pub(super) enum Sink {
    /// Nowhere yet: kept until there is a file.
    Early(Vec<Vec<u8>>),
    /// A file of our own.
    File(Box<Rotating>),
    /// A file shared with other processes.
    Append(Appending),
}

impl Sink {
    pub(super) const fn early() -> Self {
        Self::Early(Vec::new())
    }

    pub(super) fn file(dir: &Path, basename: &str, rotation: Rotation) -> io::Result<Self> {
        let path = dir.join(format!("{basename}.jsonl"));
        let mut file =
            Rotating { path, basename: basename.to_owned(), rotation, open: None, torn: true };
        file.open()?;
        Ok(Self::File(Box::new(file)))
    }

    pub(super) fn append(path: &Path, rotation: Rotation) -> io::Result<Self> {
        Appending::open(path, rotation).map(Self::Append)
    }

    pub(super) fn into_early(self) -> Vec<Vec<u8>> {
        match self {
            Self::Early(lines) => lines,
            Self::File(_) | Self::Append(_) => Vec::new(),
        }
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        match self {
            Self::Early(_) => Ok(()),
            Self::File(file) => file.open(),
            Self::Append(file) => {
                Appending::open(&file.path, file.rotation).map(|opened| *file = opened)
            }
        }
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Early(lines) if lines.len() < EARLY_LINES => {
                lines.push(line.to_vec());
                Ok(())
            }
            Self::Early(_) => Err(io::Error::other("too many lines before the file was opened")),
            Self::File(file) => file.write(line),
            Self::Append(file) => file.write(line),
        }
    }
}

/// A file of our own, rotated by size.
pub(super) struct Rotating {
    path: PathBuf,
    basename: String,
    rotation: Rotation,
    open: Option<(ArcFileLogWriter, FileLogWriterHandle)>,
    /// The file may end within a line.
    torn: bool,
}

impl Rotating {
    fn open(&mut self) -> io::Result<()> {
        self.open = None;
        let context = |error: &dyn std::fmt::Display| {
            io::Error::other(format!("open log {}: {error}", self.path.display()))
        };
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let spec = FileSpec::default()
            .directory(dir)
            .basename(&self.basename)
            .suffix("jsonl")
            .suppress_timestamp();
        // The library has no error for a file that cannot be opened later: try it now.
        OpenOptions::new().create(true).append(true).open(&self.path).map_err(|e| context(&e))?;
        let built = FileLogWriter::builder(spec)
            .append()
            .write_mode(WriteMode::Direct)
            .rotate(
                Criterion::Size(within_limit(self.rotation.size)),
                NAMING,
                self.rotation.cleanup(),
            )
            .try_build_with_handle()
            .map_err(|error| context(&error))?;
        self.torn = ends_torn(&self.path);
        self.open = Some(built);
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.open.is_none() {
            self.open()?;
        }
        let (writer, _) = self.open.as_mut().expect("opened just above");
        // When rotating, the library panics if it cannot list the directory (removed, or too
        // many open files). That must cost a line, not the process.
        let written = catch_unwind(AssertUnwindSafe(|| whole(writer, line, self.torn)))
            .unwrap_or_else(|_panic| {
                Err(io::Error::other(format!("rotate log {}", self.path.display())))
            });
        self.torn = written.is_err();
        if written.is_err() {
            self.open = None;
        }
        written
    }
}

/// The current file has the plain name; rotated ones carry the moment.
const NAMING: Naming =
    Naming::TimestampsCustomFormat { current_infix: Some(""), format: "r%Y-%m-%d_%H-%M-%S" };

impl Rotation {
    /// As the settings say it.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let (size, keep) = (settings.log_rotate_size.0, settings.log_keep as usize);
        Self { size, keep, compress: Compress::Older }
    }

    /// Moves a file aside that several processes append to, where it has grown too large, and
    /// removes the oldest of those that were moved. None of them is compressed: who has one open
    /// goes on writing there. A file that cannot be moved grows on, which is better than not
    /// logging.
    pub fn set_aside(self, path: &Path) {
        // Nobody is told: this is the log.
        let _unmoved = self.try_set_aside(path);
    }

    fn try_set_aside(self, path: &Path) -> io::Result<()> {
        let file = match File::open(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        if file.metadata()?.len() <= within_limit(self.size) {
            return Ok(());
        }
        // Two processes may have seen that.
        file.lock()?;
        if std::fs::metadata(path)?.ino() != file.metadata()?.ino() {
            return Ok(());
        }
        let millis = Moment::now().unix_millis();
        let aside = path.with_extension(format!("r{millis}-{}.jsonl", std::process::id()));
        #[expect(clippy::disallowed_methods, reason = "no task file, and the name is new")]
        std::fs::rename(path, aside)?;
        self.remove_oldest(path)
    }

    /// Names with the same number of digits are in the order of their times.
    fn remove_oldest(self, path: &Path) -> io::Result<()> {
        let (Some(dir), Some(stem)) = (path.parent(), path.file_stem()) else { return Ok(()) };
        let start = format!("{}.r", stem.to_string_lossy());
        let mut aside: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&start) && name.ends_with(".jsonl") {
                aside.push(path);
            }
        }
        aside.sort();
        for old in &aside[..aside.len().saturating_sub(self.keep)] {
            std::fs::remove_file(old)?;
        }
        Ok(())
    }

    fn cleanup(self) -> Cleanup {
        match self.compress {
            Compress::Never => Cleanup::KeepLogFiles(self.keep),
            Compress::Older => {
                let plain = self.keep.min(2);
                Cleanup::KeepLogAndCompressedFiles(plain, self.keep - plain)
            }
        }
    }
}

/// A file that several processes append whole lines to.
pub(super) struct Appending {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    torn: bool,
}

impl Appending {
    fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        rotation.set_aside(path);
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
            io::Error::new(error.kind(), format!("open log {}: {error}", path.display()))
        })?;
        // While another process is in the middle of a line, the file looks torn.
        file.lock()?;
        let torn = ends_torn(path);
        file.unlock()?;
        Ok(Self { path: path.to_owned(), rotation, file, torn })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.lock()?;
        let written = whole(&mut self.file, line, self.torn);
        self.torn = written.is_err();
        self.file.unlock()?;
        written
    }
}

/// One write for one line, so that lines of several processes do not mix; after a line that was
/// torn a newline goes first.
fn whole(to: &mut impl io::Write, line: &[u8], torn: bool) -> io::Result<()> {
    if torn { to.write_all(&[b"\n", line].concat()) } else { to.write_all(line) }
}

/// Whether the file ends within a line; if it cannot be read, it may.
fn ends_torn(path: &Path) -> bool {
    let look = || -> io::Result<bool> {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
            return Ok(false);
        }
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        Ok(last != *b"\n")
    };
    look().unwrap_or(true)
}

/// A size at which a file is begun anew before it has reached the limit of this process on sizes of
/// files (`ulimit -f`), at which lines would be lost.
fn within_limit(size: u64) -> u64 {
    getrlimit(Resource::Fsize).current.map_or(size, |limit| size.min(limit / 2))
}

/// Stderr, and how often it failed.
#[derive(Default)]
pub(super) struct Stderr {
    lost: AtomicU64,
}

impl Stderr {
    pub(super) fn write(&self, line: &[u8]) {
        if io::stderr().lock().write_all(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
