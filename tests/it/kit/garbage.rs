//! Things that should not be where they are: names, contents and kinds of files that a row of
//! random numbers makes out of what would be right.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::{fs, io};

use fastrand::Rng;
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Words that numbers, sizes, times and names are tripped up by.
const ODD: [&str; 24] = [
    "",
    "null",
    "-1",
    "0",
    "1e400",
    "18446744073709551616",
    "9223372036854775807",
    "-9223372036854775808",
    "4294967295",
    "NaN",
    "\"\\ud800\"",
    "\"\u{0}\"",
    "[]",
    "{}",
    "true",
    "\"9999-12-31T23:59:59.999Z\"",
    "\"-009999-01-01T00:00:00Z\"",
    "\"99999999999999d\"",
    "\"17179869184TiB\"",
    "[[[[[[[[[[[[[[[[[[[[",
    "..",
    "/",
    "\u{feff}",
    "\u{202e}\u{1f9e0}\n",
];

fn odd(random: &mut Rng) -> &'static str {
    ODD[random.usize(..ODD.len())]
}

/// A text with a few mistakes in it, or none.
pub(crate) fn spoiled(text: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _mistake in 0..random.usize(0..4) {
        let at = random.usize(..=bytes.len());
        match random.u32(0..7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u8(..)),
            2 if at < bytes.len() => bytes[at] = random.u8(..),
            3 => drop(bytes.splice(at..at, odd(random).bytes())),
            4 => {
                let until = random.usize(at..=bytes.len().min(at + 30));
                drop(bytes.drain(at..until));
            }
            5 => bytes = value_replaced(&bytes, odd(random).as_bytes(), random),
            _ => {
                let until = random.usize(at..=bytes.len().min(at + 60));
                let again = bytes[at..until].to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
    }
    bytes
}

/// What stands between a colon and the next comma is exchanged: the text stays JSON for longer.
fn value_replaced(bytes: &[u8], value: &[u8], random: &mut Rng) -> Vec<u8> {
    let colons: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] == b':').collect();
    if colons.is_empty() {
        return value.to_vec();
    }
    let from = colons[random.usize(..colons.len())] + 1;
    let end = bytes[from..].iter().position(|byte| matches!(byte, b',' | b'}' | b'\n'));
    let until = end.map_or(bytes.len(), |end| from + end);
    [&bytes[..from], value, &bytes[until..]].concat()
}

/// A name for a file, spoiled or not; never a path, never hidden, never empty.
pub(crate) fn name(right: &str, random: &mut Rng) -> OsString {
    let mut bytes = match random.u32(0..4) {
        0 => right.as_bytes().to_vec(),
        _ => spoiled(right.as_bytes(), random),
    };
    bytes.retain(|byte| !matches!(byte, 0 | b'/'));
    bytes.truncate(255);
    if bytes.first().is_none_or(|first| *first == b'.') {
        bytes.insert(0, b'x');
        bytes.truncate(255);
    }
    OsString::from_vec(bytes)
}

/// Puts something there. What is there already stays; a folder that the programs have just removed,
/// empty as it was, is an error.
pub(crate) fn drop_at(path: &Path, right: &[u8], random: &mut Rng) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let read_write = Mode::RUSR | Mode::WUSR;
    match random.u32(0..12) {
        0 => {
            fs::create_dir(path)?;
            fs::write(path.join("inside"), spoiled(right, random))
        }
        1 => Ok(mknodat(CWD, path, FileType::Fifo, read_write, 0)?),
        2 => Ok(mknodat(CWD, path, FileType::Socket, read_write, 0)?),
        3 => symlink("/dev/zero", path),
        4 => symlink(path.file_name().unwrap(), path),
        5 => fs::File::create(path)?.set_len(100 << 20),
        6 => fs::write(path, ""),
        _ => fs::write(path, spoiled(right, random)),
    }
}
