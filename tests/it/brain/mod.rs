//! The brain: whom it starts, what it sees and says, where it places models.

pub(super) mod absent;
pub(super) mod incident;
pub(super) mod placement;
pub(super) mod ports;
pub(super) mod starts;
pub(super) mod watch;
