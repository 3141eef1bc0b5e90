//! What follows from how the tasks stand that another one waits for. Pure.

use shared::id::TaskId;
use shared::outcome::Outcome;
use shared::task::On;

/// How a dependency stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// It has not ended, or nobody knows it.
    Open,
    /// It ended, in this way.
    Ended(Outcome),
}

/// What follows for a task that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on waiting.
    Wait,
    /// It may run.
    Ready,
    /// It can never run, because of this one.
    Hopeless(TaskId),
}

/// Decides about a task that waits. Pure.
pub fn verdict(after: &[(TaskId, On)], state: impl Fn(TaskId) -> Dependency) -> Verdict {
    let mut verdict = Verdict::Ready;
    for (id, on) in after {
        match (state(*id), on) {
            (Dependency::Open, _) => verdict = Verdict::Wait,
            (Dependency::Ended(Outcome::Succeeded), On::Success | On::Any)
            | (Dependency::Ended(Outcome::Failed | Outcome::Cancelled), On::Failure | On::Any) => {}
            // An attempt that was given back is not the end of a task.
            (Dependency::Ended(Outcome::Returned), _) => verdict = Verdict::Wait,
            (Dependency::Ended(_), On::Success | On::Failure) => return Verdict::Hopeless(*id),
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_how_dependencies_ended() {
        let (a, b) = (TaskId::new(), TaskId::new());
        let ended = |outcome| move |_id| Dependency::Ended(outcome);
        let mixed =
            |id| if id == a { Dependency::Ended(Outcome::Succeeded) } else { Dependency::Open };
        let on = |on| [(a, on), (b, on)];
        assert_eq!(verdict(&on(On::Success), ended(Outcome::Succeeded)), Verdict::Ready);
        assert_eq!(verdict(&on(On::Success), mixed), Verdict::Wait);
        assert_eq!(verdict(&on(On::Success), ended(Outcome::Failed)), Verdict::Hopeless(a));
        assert_eq!(verdict(&on(On::Success), ended(Outcome::Cancelled)), Verdict::Hopeless(a));
        assert_eq!(verdict(&on(On::Failure), ended(Outcome::Cancelled)), Verdict::Ready);
        assert_eq!(verdict(&on(On::Failure), ended(Outcome::Succeeded)), Verdict::Hopeless(a));
        assert_eq!(verdict(&on(On::Any), ended(Outcome::Failed)), Verdict::Ready);
        assert_eq!(verdict(&[], mixed), Verdict::Ready);
    }
}
