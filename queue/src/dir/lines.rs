//! Reading a ledger file line by line, however long it is: what is held of it at a time is a
//! quarter of a MiB, or its longest line.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::Path;

use super::fault;
use crate::Error;
use crate::error::At as _;

/// How much is read at a time.
const BUFFER: usize = 1 << 18;

/// Shows each whole line of a file from byte `from` on, with where it begins; its newline is a part
/// of it. Returns where the next look should begin: the writer may be in the middle of a line, and
/// that does not count yet. A file that is gone, or is none, has no lines.
///
/// # Errors
/// When it cannot be opened or read.
pub(crate) fn each_line(
    path: &Path,
    from: u64,
    mut see: impl FnMut(u64, &[u8]),
) -> Result<u64, Error> {
    fault::look("read ledger");
    let Some(mut file) = super::history::open(path)? else { return Ok(from) };
    if file.metadata().at("look at", path)?.len() <= from {
        return Ok(from);
    }
    file.seek(SeekFrom::Start(from)).at("read", path)?;
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let (mut line, mut offset) = (Vec::new(), from);
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).at("read", path)?;
        if line.last() != Some(&b'\n') {
            return Ok(offset);
        }
        see(offset, &line);
        offset += length as u64;
    }
}
