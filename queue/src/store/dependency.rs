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
pub enum Readiness {
    /// It goes on waiting.
    Wait,
    /// All that it waits for ended as needed.
    Ready,
    /// It can never run, because of this one.
    Hopeless(TaskId),
}

/// Decides about a task that waits. Pure.
pub fn verdict(after: &[(TaskId, On)], state: impl Fn(TaskId) -> Dependency) -> Readiness {
    let mut verdict = Readiness::Ready;
    for (id, on) in after {
        match (state(*id), on) {
            (Dependency::Open, _) => verdict = Readiness::Wait,
            (Dependency::Ended(Outcome::Succeeded), On::Success | On::Any)
            | (Dependency::Ended(Outcome::Failed | Outcome::Cancelled), On::Failure | On::Any) => {}
            // An attempt that was given back is not the end of a task.
            (Dependency::Ended(Outcome::Returned), _) => verdict = Readiness::Wait,
            (Dependency::Ended(_), On::Success | On::Failure) => return Readiness::Hopeless(*id),
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
        assert_eq!(verdict(&on(On::Success), ended(Outcome::Succeeded)), Readiness::Ready);
        assert_eq!(verdict(&on(On::Success), mixed), Readiness::Wait);
        assert_eq!(verdict(&on(On::Success), ended(Outcome::Failed)), Readiness::Hopeless(a));
        assert_eq!(verdict(&on(On::Success), ended(Outcome::Cancelled)), Readiness::Hopeless(a));
        assert_eq!(verdict(&on(On::Failure), ended(Outcome::Cancelled)), Readiness::Ready);
        assert_eq!(verdict(&on(On::Failure), ended(Outcome::Succeeded)), Readiness::Hopeless(a));
        assert_eq!(verdict(&on(On::Any), ended(Outcome::Failed)), Readiness::Ready);
        assert_eq!(verdict(&[], mixed), Readiness::Ready);
    }
}
