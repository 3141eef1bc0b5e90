//! Where a test may pull the plug, or let one change to the disk fail. Outside tests this is
//! nothing at all.

#[cfg(not(test))]
pub(crate) use nothing::{here, step};
#[cfg(test)]
pub(crate) use plan::{fail_at, here, plug_in, pull_after, step, what_failed};

#[cfg(not(test))]
mod nothing {
    pub(crate) const fn step(_what: &'static str) -> std::io::Result<()> {
        Ok(())
    }

    #[derive(Clone)]
    pub(crate) struct Here;

    pub(crate) const fn here() -> Here {
        Here
    }

    impl Here {
        pub(crate) fn adopt(self) {}
    }
}

#[cfg(test)]
mod plan {
    use std::cell::RefCell;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Debug, Default)]
    enum Plan {
        #[default]
        Works,
        /// So many changes go through; after that nothing works.
        Pulled(u32),
        /// So many changes go through, then one fails with this error, then all work again.
        FailsOnce(u32, i32),
    }

    #[derive(Debug, Default)]
    struct State {
        plan: Plan,
        failed: Option<&'static str>,
    }

    /// What is planned for a thread, and for the threads that it starts.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Here(Arc<Mutex<State>>);

    thread_local! {
        static HERE: RefCell<Here> = RefCell::default();
    }

    /// To be taken along into a new thread.
    pub(crate) fn here() -> Here {
        HERE.with_borrow(Clone::clone)
    }

    impl Here {
        /// What is planned for the thread that it was taken from holds for this one too.
        pub(crate) fn adopt(self) {
            HERE.set(self);
        }
    }

    fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut here().0.lock().unwrap())
    }

    /// Lets `n` more changes through; after that nothing works.
    pub(crate) fn pull_after(n: u32) {
        with(|state| *state = State { plan: Plan::Pulled(n), failed: None });
    }

    /// Lets `n` more changes through; the next one fails with this error, those after it work.
    pub(crate) fn fail_at(n: u32, errno: rustix::io::Errno) {
        let plan = Plan::FailsOnce(n, errno.raw_os_error());
        with(|state| *state = State { plan, failed: None });
    }

    /// Makes everything work again, like a restart.
    pub(crate) fn plug_in() {
        with(|state| state.plan = Plan::Works);
    }

    /// The first change that did not work since the plan was made.
    pub(crate) fn what_failed() -> Option<&'static str> {
        with(|state| state.failed)
    }

    /// To be called before each change to the disk.
    pub(crate) fn step(what: &'static str) -> io::Result<()> {
        with(|state| {
            let error = match &mut state.plan {
                Plan::Works => return Ok(()),
                Plan::Pulled(left) | Plan::FailsOnce(left, _) if *left > 0 => {
                    *left -= 1;
                    return Ok(());
                }
                Plan::Pulled(_) => io::Error::other(format!("the plug was pulled before: {what}")),
                Plan::FailsOnce(_, errno) => {
                    let error = io::Error::from_raw_os_error(*errno);
                    state.plan = Plan::Works;
                    error
                }
            };
            state.failed = state.failed.or(Some(what));
            Err(error)
        })
    }
}
