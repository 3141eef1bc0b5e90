//! The requests that run now, and a load that waits until none does: what changes the GPU's memory
//! must not meet a request half way.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::server::Cancel;

/// Counts the requests that run, and wakes a load that waits until none does.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    running: Mutex<u32>,
    left: Condvar,
}

/// A request that runs.
#[derive(Debug)]
#[must_use = "the request counts for as long as this lives"]
pub struct Asking(Arc<InFlight>);

/// What came of waiting for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// None is left.
    Yes,
    /// It was given up before.
    GivenUp,
}

impl InFlight {
    fn running(&self) -> MutexGuard<'_, u32> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(in_flight: &Arc<Self>) -> Asking {
        *in_flight.running() += 1;
        Asking(in_flight.clone())
    }

    pub(super) fn count(&self) -> u32 {
        *self.running()
    }

    pub(super) fn wait_alone(in_flight: &Arc<Self>, cancel: &Cancel) -> Alone {
        let waiting = in_flight.clone();
        // The lock is taken so that the call cannot fall between the look and the wait.
        let wake = move || {
            let _running = waiting.running();
            waiting.left.notify_all();
        };
        if !cancel.begins(wake) {
            return Alone::GivenUp;
        }
        let mut running = in_flight.running();
        while *running > 0 && !cancel.is_given_up() {
            running = in_flight.left.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        drop(running);
        cancel.ended();
        if cancel.is_given_up() { Alone::GivenUp } else { Alone::Yes }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        *self.0.running() -= 1;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_waits_for_the_requests_before_it() {
        let in_flight = Arc::<InFlight>::default();
        let asking = InFlight::enter(&in_flight);
        let waiting = in_flight.clone();
        let load = std::thread::spawn(move || InFlight::wait_alone(&waiting, &Cancel::default()));
        drop(asking);
        assert_eq!(load.join().unwrap(), Alone::Yes);
    }

    #[test]
    fn a_load_that_is_given_up_waits_for_nobody() {
        let in_flight = Arc::<InFlight>::default();
        let _asking = InFlight::enter(&in_flight);
        let cancel = Cancel::default();
        let (waiting, given_up) = (in_flight.clone(), cancel.clone());
        let load = std::thread::spawn(move || InFlight::wait_alone(&waiting, &given_up));
        cancel.give_up();
        assert_eq!(load.join().unwrap(), Alone::GivenUp);
    }
}
