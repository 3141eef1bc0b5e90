//! Limits: at most n tasks of a key at once. A slot is a lock held for as long as the run lasts,
//! and freed by the kernel, whatever dies.

use std::path::PathBuf;

use super::Pool;
use super::lock::{Holder, Lock};
use crate::Error;

/// One slot of every limit that counts a task.
#[derive(Debug, Default)]
pub struct Slots {
    _held: Vec<Lock>,
}

/// A limit with no slot free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedUp {
    /// Which one, as `user=ann`.
    pub key: String,
    /// How many may run at once.
    pub limit: u32,
}

/// Takes a slot of each, or none at all.
pub fn take(pool: &Pool, keys: &[String]) -> Result<Result<Slots, UsedUp>, Error> {
    let mut slots = Slots::default();
    for key in keys {
        // A limit that was taken out of pool.toml since the task was submitted counts no more.
        let Some(&limit) = pool.rules().limits.get(key) else { continue };
        match take_one(pool, key, limit)? {
            Some(lock) => slots._held.push(lock),
            None => return Ok(Err(UsedUp { key: key.clone(), limit })),
        }
    }
    Ok(Ok(slots))
}

fn take_one(pool: &Pool, key: &str, limit: u32) -> Result<Option<Lock>, Error> {
    for slot in 0..limit {
        if let Some(lock) = Lock::try_take(&slot_file(pool, key, slot))? {
            return Ok(Some(lock));
        }
    }
    Ok(None)
}

/// How many slots of a limit are in use.
pub fn in_use(pool: &Pool, key: &str) -> Result<u32, Error> {
    let mut used = 0;
    for slot in 0..pool.rules().limits.get(key).copied().unwrap_or(0) {
        used += u32::from(Lock::probe(&slot_file(pool, key, slot))? == Holder::Somebody);
    }
    Ok(used)
}

fn slot_file(pool: &Pool, key: &str, slot: u32) -> PathBuf {
    pool.layout().limit_locks().join(escape(key)).join(format!("{slot}.lock"))
}

/// A key as a directory's name: what is not safe in one becomes `+` and hex digits.
fn escape(key: &str) -> String {
    let mut name = String::new();
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'=' | b':' => {
                name.push(char::from(byte));
            }
            _ => name.push_str(&format!("+{byte:02x}")),
        }
    }
    name
}
