//! Finds the program of a job as the job itself would, and says in words why it cannot be run.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::StartError;

/// What execvp(3) uses where there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

pub(super) fn check_cwd(cwd: &Path) -> Result<(), StartError> {
    let wrong = |what: String| Err(StartError::Cwd { cwd: cwd.to_owned(), what });
    match std::fs::metadata(cwd) {
        Ok(meta) if !meta.is_dir() => wrong("is not a directory".to_owned()),
        Ok(_) => access(cwd, Access::EXEC_OK)
            .or_else(|error| wrong(format!("cannot be entered ({error})"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => wrong("does not exist".to_owned()),
        Err(error) => wrong(format!("cannot be read ({error})")),
    }
}

/// The full path of the program, by the job's PATH and from the job's directory. A path that was
/// given is not looked at here.
pub(super) fn find(
    program: &OsStr,
    path: Option<&OsStr>,
    cwd: &Path,
) -> Result<PathBuf, StartError> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Ok(cwd.join(program));
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut refused = None;
    // A part of PATH that is empty means the current directory, and so does `join` with it.
    let places = std::env::split_paths(path).map(|place| cwd.join(place).join(program));
    for file in places.filter(|_| !program.is_empty()) {
        match check(&file) {
            Check::Good => return Ok(file),
            Check::Absent => {}
            Check::Bad(what) => refused = refused.or(Some((file, what))),
        }
    }
    Err(match refused {
        Some((program, what)) => StartError::NotExecutable { program, what },
        None => StartError::NotFound {
            program: program.to_owned(),
            looked: format!("looked in PATH {}", path.display()),
        },
    })
}

/// What is wrong with the `file` that was found for `program`, if anything is.
pub(super) fn recheck(program: &OsStr, file: &Path) -> Result<(), StartError> {
    match check(file) {
        Check::Good => Ok(()),
        Check::Absent => Err(StartError::NotFound {
            program: program.to_owned(),
            looked: format!("there is no `{}`", file.display()),
        }),
        Check::Bad(what) => Err(StartError::NotExecutable { program: file.to_owned(), what }),
    }
}

enum Check {
    Good,
    Absent,
    Bad(String),
}

fn check(file: &Path) -> Check {
    match std::fs::metadata(file) {
        Ok(meta) if meta.is_dir() => Check::Bad("it is a directory".to_owned()),
        Ok(_) => match access(file, Access::EXEC_OK) {
            Ok(()) => Check::Good,
            Err(error) => Check::Bad(error.to_string()),
        },
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Check::Absent
        }
        Err(error) => Check::Bad(error.to_string()),
    }
}

/// Why the system refused to start a program that is there and may be executed.
pub(super) fn explain(program: PathBuf, source: io::Error) -> StartError {
    use rustix::io::Errno;
    let what = match Errno::from_io_error(&source) {
        Some(Errno::NOENT) => {
            return StartError::NotExecutable { what: no_loader(&program), program };
        }
        Some(Errno::NOEXEC) => "it is neither a program for this machine nor a script with `#!`",
        Some(Errno::ACCESS | Errno::PERM) => "permission denied (is it on a noexec mount?)",
        Some(Errno::TOOBIG) => "arguments and environment are too long together",
        Some(Errno::TXTBSY) => "it is open for writing",
        Some(_) | None if source.kind() == io::ErrorKind::InvalidInput => {
            "an argument or a variable contains a zero byte"
        }
        Some(_) | None => return StartError::Spawn { program, source },
    };
    StartError::NotExecutable { program, what: what.to_owned() }
}

/// Which interpreter or loader is missing, as the program's file names it.
fn no_loader(program: &Path) -> String {
    match interpreter(program) {
        Some(name) if name.ends_with('\r') => format!(
            "its interpreter `{}` does not exist: its lines end as on Windows; \
             `sed -i 's/\\r$//' {}` mends that",
            name.escape_debug(),
            program.display(),
        ),
        Some(name) => format!("its interpreter `{}` does not exist", name.escape_debug()),
        None => "the loader that it names does not exist (`file` shows which)".to_owned(),
    }
}

/// The program after a script's `#!`, with what ends the line if that belongs to its name.
fn interpreter(script: &Path) -> Option<String> {
    /// As much as Linux reads.
    const LONGEST: u64 = 256;
    let mut head = Vec::new();
    std::fs::File::open(script).ok()?.take(LONGEST).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = String::from_utf8_lossy(line);
    let name = name.trim_matches([' ', '\t']).split([' ', '\t']).next()?;
    Some(name.to_owned())
}
