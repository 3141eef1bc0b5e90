//! The files that say what lanes require: content-addressed, read by workers, written before first use.

use std::collections::HashSet;
use std::io;

use serde_json::{Map, Value};

use super::publish::{self, Durability};
use super::{plain_file, reject};
use crate::Error;
use crate::dir::layout::Layout;
use crate::wire::lane::{FIELDS, LaneName, Requirements};

/// Reads what a lane requires, and checks that it is the lane it says.
pub fn read_requirements(layout: &Layout, lane: &LaneName) -> Result<Requirements, Error> {
    let path = layout.lane_file(lane);
    let text = plain_file::read(&path)?.ok_or_else(|| Error::Io {
        what: "read",
        path: path.clone(),
        err: io::ErrorKind::NotFound.into(),
    })?;
    let garbled = |problem| Error::Garbled { path: path.clone(), problem };
    let requirements: Requirements =
        serde_json::from_slice(&text).map_err(|err| garbled(err.to_string()))?;
    if requirements.lane() == *lane {
        Ok(requirements)
    } else {
        Err(garbled("its content belongs to another lane".into()))
    }
}

/// Whether a lane's file is from newer programs, which require what is not known here: then nobody takes
/// from the lane who does not know it, and nothing of it is put right.
pub fn is_newer(layout: &Layout, lane: &LaneName) -> Result<bool, Error> {
    let text = match plain_file::read(&layout.lane_file(lane)) {
        Err(Error::Garbled { .. }) => None,
        text => text?,
    };
    let object = text.and_then(|text| serde_json::from_slice::<Map<String, Value>>(&text).ok());
    Ok(object.is_some_and(|object| !object.keys().all(|key| FIELDS.contains(&key.as_str()))))
}

/// The lane of these requirements; writes its file where this process has not seen it yet.
pub(in crate::dir) fn ensure_lane(
    layout: &Layout,
    requirements: &Requirements,
    known: &mut HashSet<LaneName>,
) -> Result<LaneName, Error> {
    let lane = requirements.lane();
    if known.contains(&lane) {
        return Ok(lane);
    }
    let path = layout.lane_file(&lane);
    let bytes = requirements.to_bytes();
    // Its name is a hash of its content: what differs was garbled, and nobody would take from the
    // lane.
    match plain_file::read(&path) {
        Ok(Some(found)) if found == bytes => {}
        Ok(_) => publish::replace(&path, &bytes, Durability::Flushed)?,
        Err(Error::Garbled { problem, .. }) => {
            reject::reject(layout, &path, &problem)?;
            publish::replace(&path, &bytes, Durability::Flushed)?;
        }
        Err(err) => return Err(err),
    }
    known.insert(lane.clone());
    Ok(lane)
}
