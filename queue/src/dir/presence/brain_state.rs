//! What the brain last saw and decided, in `brain/state.json`: written by the brain alone, read by
//! `queue status`, by whoever asks why, and by the next brain, which goes on counting from there.

use std::path::Path;

use crate::Error;
use crate::dir::disk::publish::{self, Durability};
use crate::dir::disk::{lock, plain_file};
use crate::dir::layout::Layout;
use crate::wire::brain_state::{BrainRecord, BrainState};

/// What the brain's lock file says, without taking it.
pub fn brain_record(layout: &Layout) -> Result<Option<BrainRecord>, Error> {
    lock::read_record(&layout.brain_lock())
}

/// Writes it. Readers see this one or the one before.
pub fn write(layout: &Layout, state: &BrainState) -> Result<(), Error> {
    let text = serde_json::to_vec(state).expect("the state has only string keys");
    publish::replace(&layout.brain_state(), &text, Durability::Atomic)
}

/// Reads it. `None` where there is none.
pub fn read(layout: &Layout) -> Result<Option<BrainState>, Error> {
    let path = layout.brain_state();
    let Some(text) = plain_file::read(&path)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|err| garbled(&path, &err))
}

fn garbled(path: &Path, err: &serde_json::Error) -> Error {
    Error::Garbled { path: path.to_owned(), problem: err.to_string() }
}
