//! Commands that change what becomes of tasks.

pub(super) mod cancel;
pub(super) mod hold;
