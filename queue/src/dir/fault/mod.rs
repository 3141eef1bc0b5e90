//! Where a test may pull the plug, let one change to the disk fail, write down what was changed
//! and flushed, or let somebody else go first. Outside tests this is nothing at all.

use std::path::Path;

#[cfg(not(test))]
pub(crate) use nothing::{did, here, is_own_process, listing, look, step, wait_until};
#[cfg(test)]
mod plan;
#[cfg(test)]
pub(crate) use plan::{
    Done, Gate, Stop, count_looks, did, fail_at, fail_where, here, is_own_process, listing, look,
    mark, obey, plug_in, pull_after, record, recorded, refuse, step, wait_until, what_failed,
};

/// A change to the disk that has just been made, or a flush that has just come back.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "read only where a test writes it down"))]
pub(crate) enum Did<'a> {
    /// A directory was made.
    MadeDir(&'a Path),
    /// An empty file was made, if it was not there.
    Made(&'a Path),
    /// This was written at the end of a file.
    Appended(&'a Path, &'a [u8]),
    /// This is all that a file holds now, written in place.
    Rewrote(&'a Path, &'a [u8]),
    /// A name was moved, perhaps over another.
    Moved(&'a Path, &'a Path),
    /// A file, or an empty directory, was removed.
    Removed(&'a Path),
    /// A directory was removed, with all that was in it.
    RemovedTree(&'a Path),
    /// What was written to this file is on the disk.
    FlushedFile(&'a Path),
    /// The names in this directory are on the disk.
    FlushedDir(&'a Path),
    /// All is on the disk.
    FlushedAll,
}

#[cfg(not(test))]
mod nothing {
    use super::Did;

    #[inline]
    pub(crate) const fn step(_what: &'static str) -> std::io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) const fn listing(_dir: &std::path::Path) -> std::io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) const fn did(_what: Did<'_>) {}

    #[inline]
    pub(crate) const fn look(_what: &'static str) {}

    #[inline]
    pub(crate) fn wait_until(_what: &'static str, _is_free: impl FnMut() -> bool) {}

    #[inline]
    pub(crate) const fn is_own_process() -> bool {
        false
    }

    #[derive(Clone)]
    pub(crate) struct Here;

    pub(crate) const fn here() -> Here {
        Here
    }

    impl Here {
        pub(crate) fn adopt(self) {}
    }
}
