//! Without a brain: any worker, also a busy one, releases what is due within a second, and finishes
//! what others left half done. A thread of its own does it, so that neither jobs nor claims wait
//! for it; of several workers one at a time, see [`Deputy`].

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use queue::Error;
use queue::dir::batch::roll_forward;
use queue::dir::operate;
use queue::dir::recover::deputy::{Deputy, PACE, PACE_BESIDE_BRAIN, Turn};
use queue::dir::recover::promote::{Promoter, Promotion};
use queue::dir::recover::strays::{Stray, Strays};
use shared::emit;
use shared::event::{Event, Repeaters, Say};
use shared::time::Moment;

use crate::attempt::context::AttemptContext;
use crate::recorder::Nudge;

/// The thread that looks after the pool where no brain does. It ends when this is dropped.
pub(super) struct WithoutBrain {
    wake: Sender<()>,
}

impl WithoutBrain {
    /// Starts the thread. Whenever it has released something, it nudges.
    pub(super) fn start(context: Arc<AttemptContext>, nudge: Nudge) -> io::Result<Self> {
        let (wake, woken) = bounded(1);
        let layout = context.surroundings.pool.layout();
        let caring = Caring {
            deputy: Deputy::new(layout),
            strays: Strays::new(layout),
            promoter: None,
            failing: Repeaters::default(),
            begun: Instant::now(),
            context,
            nudge,
        };
        let thread = std::thread::Builder::new().name("without brain".to_owned());
        thread.spawn(move || caring.serve(&woken))?;
        Ok(Self { wake })
    }

    /// Something may have ended that others wait for: it need not sleep on.
    pub(super) fn wake(&self) {
        // Full means that it is about to look anyway.
        let _ = self.wake.try_send(());
    }
}

/// What the thread has.
struct Caring {
    context: Arc<AttemptContext>,
    nudge: Nudge,
    deputy: Deputy,
    strays: Strays,
    /// None while there is a brain.
    promoter: Option<Promoter>,
    failing: Repeaters<&'static str>,
    begun: Instant,
}

impl Caring {
    fn serve(mut self, woken: &Receiver<()>) {
        loop {
            let patience = self.step("looking whether a brain is there", Self::look);
            match woken.recv_timeout(patience.unwrap_or(PACE)) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Does what there is to do, where it is this worker's turn; how long to sleep then.
    fn look(&mut self) -> Result<Duration, Error> {
        match self.deputy.turn()? {
            Turn::Brain => {
                self.promoter = None;
                Ok(PACE_BESIDE_BRAIN)
            }
            Turn::Another => Ok(PACE),
            Turn::Ours(_held) => {
                self.care();
                Ok(self.until_due())
            }
        }
    }

    /// Each step stands alone: one that fails is said, and the others go on.
    fn care(&mut self) {
        self.step("moving bulk submits into place", |own| {
            let moved = roll_forward::forward_all(own.context.surroundings.pool.layout())?;
            say_cleaned("unfinished bulk submits", moved);
            Ok(())
        });
        self.step("finishing cancels", |own| {
            let (pool, ledger) = (&own.context.surroundings.pool, &own.context.ledger);
            say_cleaned("unfinished cancels", operate::finish_begun(pool, ledger)?);
            Ok(())
        });
        self.step("putting strays aside", |own| {
            for Stray { path: file, reason } in own.strays.step()? {
                emit!(Event::TaskRejected { file, reason });
            }
            Ok(())
        });
        self.step("keeping the reserve", |own| own.context.surroundings.pool.keep_reserve());
        self.step("releasing what waits", Self::promote);
    }

    fn promote(&mut self) -> Result<(), Error> {
        let mut promoter = match self.promoter.take() {
            Some(promoter) => promoter,
            None => Promoter::new(&self.context.surroundings.pool),
        };
        // One whose step failed is made anew: it may have missed lines of the ledger.
        let done = promoter.step(&self.context.ledger, Moment::now())?;
        self.promoter = Some(promoter);
        if !done.is_empty() {
            self.nudge.nudge();
        }
        done.into_iter().map(Promotion::event).for_each(|event| emit!(event));
        Ok(())
    }

    /// Until the next delay is over, but no longer than a pace.
    fn until_due(&self) -> Duration {
        let next = self.promoter.as_ref().and_then(|promoter| promoter.next_due().ok().flatten());
        let Some(due) = next else { return PACE };
        let left = due.saturating_mul(1000).saturating_sub(Moment::now().unix_millis());
        PACE.min(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// What goes wrong in it is said, at growing intervals, and goes no further.
    fn step<T>(
        &mut self,
        doing: &'static str,
        step: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Option<T> {
        let now = self.begun.elapsed();
        let error = match catch_unwind(AssertUnwindSafe(|| step(self))) {
            Ok(Ok(value)) => {
                self.failing.cleared(&doing, now);
                return Some(value);
            }
            Ok(Err(err)) => err.to_string(),
            Err(_said_by_the_panic_hook) => "it panicked".to_owned(),
        };
        match self.failing.seen(doing, now) {
            Some(Say::First | Say::Again { .. }) => {
                let doing = format!("Without a brain, {doing}");
                emit!(Event::ProcessFailed { doing, error });
            }
            Some(Say::Cleared { .. }) | None => {}
        }
        None
    }
}

fn say_cleaned(what: &str, count: u32) {
    if count > 0 {
        emit!(Event::Cleaned { what: what.to_owned(), count: count.into() });
    }
}
