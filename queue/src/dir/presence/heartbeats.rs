//! Heartbeats: what a worker says about itself, in `workers/<name>.json`, replaced atomically. Who
//! is alive is not read from here but from the lease; how a living worker fares is.

use shared::name::Name;
use shared::time::Moment;

use crate::dir::Pool;
use crate::dir::disk::publish::{self, Durability};
use crate::dir::disk::{listing, plain_file, reserve};
use crate::wire::heartbeat::Heartbeat;
use crate::{Error, uptime};

/// Writes a heartbeat, from the reserve where the disk is full. Readers see this one or the one
/// before.
pub fn write(pool: &Pool, heartbeat: &Heartbeat) -> Result<(), Error> {
    let text = serde_json::to_vec(heartbeat).expect("a heartbeat has only string keys");
    let path = pool.layout().heartbeat(&heartbeat.worker);
    let write = || publish::replace(&path, &text, Durability::Atomic);
    match write() {
        Err(err) if err.is_disk_full() && reserve::give_up(pool.layout()) => write(),
        written => written,
    }
}

/// Reads a worker's last heartbeat. `None` where there is none.
pub fn read(pool: &Pool, worker: &Name) -> Result<Option<Heartbeat>, Error> {
    let path = pool.layout().heartbeat(worker);
    let Some(text) = plain_file::read(&path)? else { return Ok(None) };
    let garbled = |err: serde_json::Error| Error::Garbled { path, problem: err.to_string() };
    serde_json::from_slice(&text).map(Some).map_err(garbled)
}

/// The workers that have left a heartbeat.
pub fn workers(pool: &Pool) -> Result<Vec<Name>, Error> {
    let mut found = Vec::new();
    for entry in listing::entries(&pool.layout().workers())? {
        let name = entry.to_str().and_then(|text| text.strip_suffix(".json"));
        found.extend(name.and_then(|name| name.parse::<Name>().ok()));
    }
    found.sort();
    Ok(found)
}

/// How many seconds old a heartbeat is.
#[must_use]
pub fn age(heartbeat: &Heartbeat, now: Moment) -> f64 {
    uptime::age(heartbeat.uptime.as_ref(), heartbeat.at, now)
}
