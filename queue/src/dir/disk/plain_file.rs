//! Reading small files that anybody may have put where they are: a FIFO of the right name must not
//! make its reader wait for ever, nor a device or a huge file fill its memory.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::Error;
use crate::error::{At as _, OrGone as _};

/// More than any file that the pool's own programs write and read whole, but the ledger's.
const MAX_BYTES: u64 = 64 << 20;

/// Opens what should be a plain file, without ever waiting for anybody. `None` when it is not
/// there, [`Error::Garbled`] when it is something else.
pub(crate) fn open(path: &Path) -> Result<Option<(File, Metadata)>, Error> {
    let garbled =
        |problem: &str| Error::Garbled { path: path.to_owned(), problem: problem.to_owned() };
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(err) if is(&err, Errno::LOOP) => return Err(garbled("it is a symbolic link")),
        // A socket cannot be opened at all.
        Err(err) if is(&err, Errno::NXIO) => return Err(garbled("it is a socket")),
        // What it is in has become a file.
        Err(err) if err.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(err) => return Err(err).at("open", path).or_gone(),
    };
    let meta = file.metadata().at("look at", path)?;
    if !meta.is_file() {
        return Err(garbled("it is not a plain file"));
    }
    Ok(Some((file, meta)))
}

/// Reads the whole of a small plain file. `None` when it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let Some((file, meta)) = open(path)? else { return Ok(None) };
    if meta.len() > MAX_BYTES {
        let problem = format!("it has {} bytes, more than it can have", meta.len());
        return Err(Error::Garbled { path: path.to_owned(), problem });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.take(MAX_BYTES).read_to_end(&mut bytes).at("read", path)?;
    Ok(Some(bytes))
}

fn is(err: &io::Error, errno: Errno) -> bool {
    err.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn nothing_but_a_plain_file_is_read_and_nobody_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("plain"), "text").unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        symlink("/dev/zero", at("link")).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        File::create(at("huge")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(read(&at("plain")).unwrap().as_deref(), Some(&b"text"[..]));
        assert_eq!(read(&at("missing")).unwrap(), None);
        assert_eq!(read(&at("plain/inside")).unwrap(), None);
        for other in ["fifo", "link", "socket", "folder", "huge"] {
            let refused = read(&at(other)).unwrap_err();
            assert!(matches!(refused, Error::Garbled { .. }), "{other}: {refused}");
        }
    }
}
