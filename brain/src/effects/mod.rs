//! What the brain does to the world: it starts and ends workers, settles what the dead left, asks for
//! loads, and writes what others may read.

pub(super) mod children;
pub(super) mod lease_watch;
pub(super) mod load_requests;
pub(super) mod log_caps;
pub(crate) mod model_servers;
pub(super) mod publish;
pub(super) mod recovery;
