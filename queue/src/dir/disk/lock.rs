//! Locks that the kernel frees when their holder dies, however it dies.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::publish::make_dirs;
use crate::Error;
use crate::dir::fault::{self, Did};
use crate::error::{At as _, OrGone as _};

/// A locked file. The lock lasts until this value is dropped or the process dies.
///
/// The guard of `fd-lock` borrows its file and would unlock when dropped; here it is forgotten, so
/// that the lock lasts exactly as long as a descriptor of the open file: `file`.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Whether somebody holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A living process holds it.
    Somebody,
    /// The file is there and free.
    Nobody,
    /// There is no such file.
    NoFile,
}

impl Lock {
    /// Takes the lock, making the file where it is missing. `None` when somebody holds it.
    pub fn try_take(path: &Path) -> Result<Option<Self>, Error> {
        if let Some(dir) = path.parent() {
            make_dirs(dir)?;
        }
        loop {
            fault::step("open lock").at("open", path)?;
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o660);
            let file = options.open(path).at("open", path)?;
            fault::did(Did::Made(path));
            let Some(lock) = Self::try_file(file, path)? else {
                return Ok(None);
            };
            // Between open and lock the owner may have unlinked it: then ours is nobody's.
            if lock.is_still_named()? {
                return Ok(Some(lock));
            }
        }
    }

    /// Takes the lock of a file that is there. `None` when somebody holds it or it is gone.
    pub fn try_take_existing(path: &Path) -> Result<Option<Self>, Error> {
        let Some(file) = open_existing(path)? else { return Ok(None) };
        match Self::try_file(file, path)? {
            Some(lock) if lock.is_still_named()? => Ok(Some(lock)),
            Some(_) | None => Ok(None),
        }
    }

    /// Waits for the lock, making the file where it is missing.
    pub fn wait(path: &Path) -> Result<Self, Error> {
        if let Some(dir) = path.parent() {
            make_dirs(dir)?;
        }
        loop {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o660);
            let file = options.open(path).at("open", path)?;
            fault::did(Did::Made(path));
            let lock = Self::wait_file(file, path)?;
            if lock.is_still_named()? {
                return Ok(lock);
            }
        }
    }

    /// Waits for the lock of a file that is there. `None` when it is gone.
    pub fn wait_existing(path: &Path) -> Result<Option<Self>, Error> {
        let Some(file) = open_existing(path)? else { return Ok(None) };
        let lock = Self::wait_file(file, path)?;
        Ok(lock.is_still_named()?.then_some(lock))
    }

    /// Whether somebody holds the lock. Shared, never waits, never makes the file.
    pub fn probe(path: &Path) -> Result<Holder, Error> {
        // What is no plain file is nobody's lock.
        let file = match super::plain_file::open(path) {
            Err(Error::Garbled { .. }) => None,
            opened => opened?,
        };
        let Some((file, _meta)) = file else { return Ok(Holder::NoFile) };
        match fd_lock::RwLock::new(file).try_read() {
            Ok(_free) => Ok(Holder::Nobody),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(Holder::Somebody),
            Err(err) => Err(err).at("probe the lock", path),
        }
    }

    fn try_file(file: File, path: &Path) -> Result<Option<Self>, Error> {
        fault::look("try a lock");
        let kept = file.try_clone().at("duplicate", path)?;
        match fd_lock::RwLock::new(file).try_write() {
            Ok(guard) => std::mem::forget(guard),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(err) => return Err(err).at("lock", path),
        }
        Ok(Some(Self { file: kept, path: path.to_owned() }))
    }

    fn wait_file(file: File, path: &Path) -> Result<Self, Error> {
        fault::wait_until("wait for a lock", || {
            matches!(Self::probe(path), Ok(Holder::Nobody | Holder::NoFile))
        });
        let kept = file.try_clone().at("duplicate", path)?;
        let mut lock = fd_lock::RwLock::new(file);
        loop {
            match lock.write() {
                Ok(guard) => break std::mem::forget(guard),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err).at("wait for the lock", path),
            }
        }
        Ok(Self { file: kept, path: path.to_owned() })
    }

    /// The path that it was taken at; another file may be there by now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still names the file that is locked.
    pub fn is_still_named(&self) -> Result<bool, Error> {
        let held = self.file.metadata().at("look at", &self.path)?;
        let named = std::fs::metadata(&self.path).at("look at", &self.path).or_gone()?;
        Ok(named.is_some_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())))
    }

    /// Writes down who holds it. In place: a lock file must stay the same file. In one step, with
    /// blanks over what was longer before, so that no death leaves a part of each.
    pub fn write_record<T: Serialize>(&self, record: &T) -> Result<(), Error> {
        let mut text = serde_json::to_vec(record).expect("a record has only string keys");
        text.push(b'\n');
        let length = text.len();
        let before = self.file.metadata().at("look at", &self.path)?.len();
        text.resize(length.max(usize::try_from(before).unwrap_or(length)), b'\n');
        fault::step("write lock record").at("write", &self.path)?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))
            .and_then(|_start| file.write_all(&text))
            .at("write", &self.path)?;
        fault::did(Did::Rewrote(&self.path, &text));
        if text.len() == length {
            return Ok(());
        }
        fault::step("cut lock record").at("cut", &self.path)?;
        self.file.set_len(length as u64).at("cut", &self.path)?;
        fault::did(Did::Rewrote(&self.path, &text[..length]));
        Ok(())
    }

    /// Takes back what was written down. In place, as that is.
    pub fn empty(&self) -> Result<(), Error> {
        fault::step("empty lock record").at("empty", &self.path)?;
        self.file.set_len(0).at("empty", &self.path)?;
        fault::did(Did::Rewrote(&self.path, b""));
        Ok(())
    }

    /// Reads what the last holder wrote. `None` where that is nothing that can be understood.
    pub fn record<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let (mut text, mut file) = (Vec::new(), &self.file);
        file.seek(SeekFrom::Start(0))
            .and_then(|_start| file.read_to_end(&mut text))
            .at("read", &self.path)?;
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Changes the file's time of modification: others see that its holder was here just now.
    pub fn touch(&self) -> Result<(), Error> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        fault::step("touch lock").at("touch", &self.path)?;
        futimens(&self.file, &times).map_err(io::Error::from).at("touch", &self.path)
    }

    /// Removes the file, as only its owner may, and then lets go of it.
    pub fn remove(self) -> Result<(), Error> {
        super::publish::remove(&self.path).map(|_removed| ())
    }
}

fn open_existing(path: &Path) -> Result<Option<File>, Error> {
    OpenOptions::new().read(true).write(true).open(path).at("open", path).or_gone()
}

/// Reads what the holder of a lock wrote, without taking it. `None` where there is nothing.
pub fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    // What is no file says nothing.
    let text = match super::plain_file::read(path) {
        Err(Error::Garbled { .. }) => None,
        text => text?,
    };
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_until_dropped_and_a_probe_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.lock");
        assert_eq!(Lock::probe(&path).unwrap(), Holder::NoFile);
        let lock = Lock::try_take(&path).unwrap().unwrap();
        assert_eq!(Lock::probe(&path).unwrap(), Holder::Somebody);
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(lock);
        assert_eq!(Lock::probe(&path).unwrap(), Holder::Nobody);
        assert!(Lock::try_take_existing(&path).unwrap().is_some());
    }

    #[test]
    fn an_unlinked_lock_is_not_mistaken_for_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.lock");
        let old = Lock::try_take(&path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!old.is_still_named().unwrap());
        assert!(Lock::try_take(&path).unwrap().unwrap().is_still_named().unwrap());
    }

    #[test]
    fn the_record_is_what_was_written_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.lock");
        let lock = Lock::try_take(&path).unwrap().unwrap();
        lock.write_record(&"a long record of the first holder").unwrap();
        lock.write_record(&"short").unwrap();
        assert_eq!(lock.record::<String>().unwrap().as_deref(), Some("short"));
        assert_eq!(read_record::<String>(&path).unwrap().as_deref(), Some("short"));
    }

    #[test]
    fn a_death_between_writing_a_shorter_record_and_cutting_the_file_leaves_that_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.lock");
        let lock = Lock::try_take(&path).unwrap().unwrap();
        lock.write_record(&"a long record of the first holder").unwrap();
        fault::fail_where("cut lock record", rustix::io::Errno::IO);
        lock.write_record(&"short").unwrap_err();
        fault::plug_in();
        assert_eq!(read_record::<String>(&path).unwrap().as_deref(), Some("short"));
        lock.write_record(&"again").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"\"again\"\n");
    }
}
