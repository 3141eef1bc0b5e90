//! Reads a run log around what was cut out of it, also while that happens.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// What comes next in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes were read into the buffer.
    Read(usize),
    /// So many bytes are missing here: they were cut out.
    Missing(u64),
    /// Nothing more is there now.
    End,
}

/// Reads what comes at `offset`.
///
/// # Errors
/// What the file system answers.
pub fn next(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<Piece> {
    loop {
        let data = match seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            // No data from here on: the end, or a hole up to it.
            Err(Errno::NXIO) => file.metadata()?.len().max(offset),
            // A file system without holes.
            Err(Errno::INVAL) => offset,
            Err(err) => return Err(err.into()),
        };
        if data > offset {
            return Ok(Piece::Missing(data - offset));
        }
        let got = match file.read_at(buffer, offset) {
            Ok(0) => return Ok(Piece::End),
            Ok(got) => got,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        // What was cut out meanwhile reads as zeros. A hole is never filled again, so what is data
        // now was data then.
        match seek(file, SeekFrom::Hole(offset)) {
            Ok(hole) if hole <= offset => {}
            Ok(hole) => return Ok(Piece::Read(got.min(at_most(hole - offset)))),
            Err(Errno::INVAL | Errno::NXIO) => return Ok(Piece::Read(got)),
            Err(err) => return Err(err.into()),
        }
    }
}

fn at_most(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// How many bytes of a log are missing.
///
/// # Errors
/// What the file system answers.
pub fn missing(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let (mut offset, mut missing) = (0, 0);
    while offset < size {
        let data = match seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(Errno::NXIO) => size,
            Err(Errno::INVAL) => return Ok(0),
            Err(err) => return Err(err.into()),
        };
        missing += data - offset;
        offset = match seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole,
            Err(Errno::NXIO | Errno::INVAL) => size,
            Err(err) => return Err(err.into()),
        };
    }
    Ok(missing)
}
