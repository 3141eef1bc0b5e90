//! What becomes of tasks, whatever dies and whatever lies about.

pub(super) mod bad_files;
pub(super) mod brake;
pub(super) mod changes;
pub(super) mod death;
pub(super) mod dying;
pub(super) mod fuzz;
pub(super) mod hostile;
pub(super) mod night;
pub(super) mod places;
pub(super) mod remains;
pub(super) mod traps;
