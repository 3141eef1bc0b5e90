//! The pool's marker: a file that says that this is a pool, and of which format. It is made before
//! anything else of the pool, so a directory without it is somebody's own, or a pool from before
//! there were markers (format 0).

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::dir::disk::plain_file;
use crate::dir::disk::publish::{self, Durability};
use crate::dir::layout::Layout;

/// The format of the pools that these programs make, and the newest one that they know.
pub const FORMAT: u32 = 1;

/// What the marker says. A newer one may say more.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// Which format the pool has.
    format: u32,
    /// The version of the program that made it so, for people.
    #[serde(default)]
    made_by: String,
}

/// Whether a pool has its marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// It says a format that is known here.
    Yes,
    /// There is none.
    No,
}

/// Reads the marker. [`Error::Newer`] where it says a format that is not known here.
pub(crate) fn read(layout: &Layout) -> Result<Marked, Error> {
    let path = layout.format_file();
    let Some(text) = plain_file::read(&path)? else { return Ok(Marked::No) };
    let marker: Marker = serde_json::from_slice(&text).map_err(|err| {
        let (at, root) = (path.display(), layout.root().display());
        let problem = format!(
            "{err}; it says of which format the pool is: where `{root}` was made by this version, \
             `rm {at}` and the next `queue submit` write it again"
        );
        Error::Garbled { path: path.clone(), problem }
    })?;
    if marker.format > FORMAT {
        let Marker { format, made_by } = marker;
        let path = layout.root().to_owned();
        return Err(Error::Newer { path, format, known: FORMAT, made_by });
    }
    Ok(Marked::Yes)
}

/// Writes the marker; it is on the disk when this returns.
pub(super) fn write(layout: &Layout) -> Result<(), Error> {
    let marker = Marker { format: FORMAT, made_by: env!("CARGO_PKG_VERSION").to_owned() };
    let mut text = serde_json::to_vec(&marker).expect("a marker has only string keys");
    text.push(b'\n');
    publish::replace(&layout.format_file(), &text, Durability::Flushed)
}

/// Whether somebody is just writing a marker, or died doing so.
pub(super) fn is_half_written(name: &str) -> bool {
    name.starts_with(".format.")
}
