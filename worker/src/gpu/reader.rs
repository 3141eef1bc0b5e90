//! Asks the driver about the worker's GPU, about once a second, from a thread of its own: a driver
//! that hangs must hang nobody else. A GPU that is ill is asked more rarely, and the library is
//! opened anew each time: only so it sees a GPU that has come back, and lets go of one that is to be
//! reset.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use shared::gpu::{Examined, GpuFault, Gpus, Which, XidEvents};

/// Between two looks at a GPU that is well: what is claimed by is never older than a second.
const PACE: Duration = Duration::from_millis(900);

/// The GPU that is read: by its name for life as soon as that is known, because numbers move.
#[derive(Clone, Debug)]
pub struct GpuName {
    /// Its number when the worker started.
    pub index: u32,
    /// Its name for life.
    pub uuid: Option<String>,
}

impl GpuName {
    /// How the driver is asked for it.
    #[must_use]
    pub fn which(&self) -> Which<'_> {
        self.uuid.as_deref().map_or(Which::Index(self.index), Which::Uuid)
    }
}

/// What the thread has.
pub(super) struct Reader {
    pub(super) gpus: Gpus,
    pub(super) gpu: GpuName,
    /// Between two looks at a GPU that is ill.
    pub(super) recheck: Duration,
    pub(super) tell: Sender<Examined>,
    /// Closed when the worker ends.
    pub(super) end: Receiver<()>,
}

/// How asking came to an end.
#[derive(PartialEq, Eq)]
enum Asked {
    /// The GPU is ill.
    Ill,
    /// Nobody listens any more.
    Enough,
}

impl Reader {
    /// Looks until nobody listens.
    pub(super) fn run(mut self) {
        while self.ask() == Asked::Ill && !self.is_over(self.recheck) {
            // Where that fails, the next look fails, too, and says so.
            let _closed = self.gpus.reopen();
        }
    }

    fn ask(&mut self) -> Asked {
        let events = self.gpus.xid_events(self.gpu.which());
        let mut heard = None;
        loop {
            let mut look = self.gpus.examine(self.gpu.which());
            look.fault = look.fault.or(heard);
            let is_read = look.reading.as_ref().is_some_and(|gpu| !gpu.sensors().is_none());
            let is_ill = look.fault.is_some() || !is_read;
            let uuid = look.reading.as_ref().and_then(|gpu| gpu.uuid.clone());
            if self.tell.send(look).is_err() {
                return Asked::Enough;
            }
            if self.gpu.uuid.is_none() && uuid.is_some() {
                self.gpu.uuid = uuid;
            }
            if is_ill {
                return Asked::Ill;
            }
            match self.listen(events.as_ref()) {
                Ok(fault) => heard = fault,
                Err(asked) => return asked,
            }
        }
    }

    /// Until the next look is due, or the driver reports an error that speaks against the GPU.
    fn listen(&self, events: Option<&XidEvents<'_>>) -> Result<Option<GpuFault>, Asked> {
        let due = Instant::now() + PACE;
        loop {
            let left = due.saturating_duration_since(Instant::now());
            let xid = events.and_then(|events| events.next(left));
            if let Some(fault) = xid.and_then(GpuFault::of_xid) {
                return Ok(Some(fault));
            }
            // It may come back at once, as where events cannot be had.
            let left = due.saturating_duration_since(Instant::now());
            if xid.is_some() && !left.is_zero() {
                continue;
            }
            return if self.is_over(left) { Err(Asked::Enough) } else { Ok(None) };
        }
    }

    fn is_over(&self, wait: Duration) -> bool {
        self.end.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected)
    }
}
