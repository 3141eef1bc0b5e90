//! Signals, as messages: the first asks for an orderly end, the second for a quick one.

use crossbeam_channel::Sender;
use queue::cli::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// To end. Its name.
    End(&'static str),
    /// To open the log by its name again, after somebody moved it away.
    Reopen,
}

/// From here on signals go to `tell` instead of ending the process.
pub(crate) fn listen(tell: Sender<Signal>) -> Result<(), Failure> {
    let failed = |err| Failure::at_start("listen for signals", &err);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(failed)?;
    let thread = std::thread::Builder::new().name("signals".into());
    let listening = thread.spawn(move || {
        for signal in &mut signals {
            let asked = match signal {
                SIGUSR1 => Signal::Reopen,
                SIGTERM => Signal::End("SIGTERM"),
                SIGINT => Signal::End("SIGINT"),
                _ => Signal::End("SIGHUP"),
            };
            // Nobody listens any more: the process is about to end.
            let _ = tell.send(asked);
        }
    });
    listening.map(|_runs_until_the_process_ends| ()).map_err(failed)
}
