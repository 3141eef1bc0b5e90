//! Asking a worker to load or unload a model: a `resource` task addressed to it, and the taking
//! back of one that nobody has taken. What was asked for is only in the pool, nowhere else.

use queue::dir::disk::place::Place;
use queue::dir::find::places;
use queue::dir::ledger::append::Ledger;
use queue::dir::operate::{Ender, Reason};
use queue::dir::signal::doorbell;
use queue::dir::submit::one;
use queue::wire::lane::Requirements;
use queue::{Error, Pool};
use shared::id::{Incarnation, TaskId};
use shared::task::{Class, MAX_PRIORITY, Spec, Task, TaskName};
use shared::time::Moment;

use crate::core::words::placement::ModelRequest;
use crate::observe::pool::{GOAL, pending};

/// Asks. A worker that has been asked and has not taken that is not asked again: whoever was the
/// brain before may have done so after this one looked.
pub(crate) fn ask(pool: &Pool, request: &ModelRequest) -> Result<(), Error> {
    let task = task(request);
    let limits = pool.limit_keys();
    let lane = Requirements::of(&task, &limits).lane();
    if !pending(pool.layout(), &lane)?.is_empty() {
        return Ok(());
    }
    one::Submitter::new(pool)?.submit(&task)?;
    doorbell::ring_class(pool.layout(), Class::Resource);
    doorbell::ring_worker(pool.layout(), &request.worker);
    Ok(())
}

fn task(request: &ModelRequest) -> Task {
    let spec = Spec {
        class: Some(Class::Resource),
        name: Some(request.verb.to_string()),
        verb: Some(request.verb),
        model: Some(request.model.clone()),
        worker: Some(request.worker.clone()),
        priority: Some(MAX_PRIORITY),
        max_attempts: Some(1),
        labels: [(GOAL.to_owned(), request.goal.clone())].into(),
        ..Spec::default()
    };
    Task {
        id: TaskId::new(),
        batch_id: None,
        submitted_at: Moment::now(),
        submitted_by: "brain".to_owned(),
        correlation_id: Incarnation::new().as_str().to_owned(),
        spec,
    }
}

/// Takes a request back. One that was taken meanwhile is its worker's to end.
pub(crate) fn withdraw(pool: &Pool, ledger: &Ledger, name: TaskName) -> Result<(), Error> {
    let Some(found) = places::find(pool.layout(), name.id)? else { return Ok(()) };
    let Place::Pending { .. } = found.place else { return Ok(()) };
    // Somebody else ends tasks now: it is seen again in the next look.
    let Some(ender) = Ender::try_new(pool, ledger)? else { return Ok(()) };
    ender.end(&found, Reason::Cancel).map(|_change| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::dir::{Privacy, Rules};
    use queue::wire::ledger_line::Writer;
    use shared::llm::ModelVerb;

    fn request() -> ModelRequest {
        ModelRequest {
            worker: "worker-1".parse().unwrap(),
            verb: ModelVerb::Load,
            model: "m".into(),
            goal: "m".into(),
        }
    }

    #[test]
    fn a_worker_is_asked_once_and_what_nobody_took_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let pool =
            Pool::create(&dir.path().join("pool"), Rules::default(), Privacy::Owner).unwrap();
        ask(&pool, &request()).unwrap();
        ask(&pool, &request()).unwrap();
        let lane = Requirements::of(&task(&request()), &[]).lane();
        let there = pending(pool.layout(), &lane).unwrap();
        assert_eq!(there.len(), 1, "also a brain that saw nothing does not double it");
        let read = there[0].read(pool.layout()).unwrap().unwrap();
        assert_eq!((read.priority(), read.name().as_str()), (MAX_PRIORITY, "load_llm"));
        read.spec.check().unwrap();
        let writer = Writer::new("brain".parse().unwrap());
        let ledger = Ledger::new(pool.layout().clone(), writer);
        withdraw(&pool, &ledger, there[0].name).unwrap();
        assert!(pending(pool.layout(), &lane).unwrap().is_empty());
        withdraw(&pool, &ledger, there[0].name).unwrap();
    }
}
