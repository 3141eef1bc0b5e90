//! Who is there: leases, heartbeats, and what the brain writes about itself.

pub mod brain_state;
pub mod heartbeats;
pub mod lease;
