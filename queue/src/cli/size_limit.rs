//! The limit on the size of files (`ulimit -f`).

use std::sync::Arc;

use signal_hook::consts::SIGXFSZ;

/// A write beyond the limit fails from now on, as one to a full disk does, and does not end the
/// program. The signal is caught, not ignored: what is ignored here would be in jobs, too.
pub fn survive() {
    // Refused for no reason that there is; then it is as it was.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}
