//! One attempt of a `resource` task: loads a model or unloads it. Loaded means that the server
//! says so *and* that the model has answered one token.

use std::time::Duration;

use queue::wire::retry::Verdict;
use shared::llm::{HeldModel, ModelVerb, is_same_model};
use shared::outcome::Cause;

use super::ask::{Begun, GaveUp, ModelAttempt};
use super::context::AttemptResult;
use crate::models::Alone;
use crate::server::{Again, Failure, Options};

/// Does what the task says, alone on the GPU.
pub(crate) fn load_or_unload(
    work: ModelAttempt<'_>,
    verb: ModelVerb,
    model: &str,
) -> AttemptResult {
    let begun = Begun::new(work);
    let ModelAttempt { context, models, claim, stop } = work;
    let limit = claim.task().spec.timeout.map(|span| span.0);
    let address = models.server().address();
    begun.say(&format!("{verb} {model} at {address}"));
    let (done, gave_up) = begun.within(limit, stop, |_log| {
        if models.alone(stop.cancel()) == Alone::GivenUp {
            return Err(given_up());
        }
        models
            .note(&context.worker_state, |server_state, now| server_state.begins(verb, model, now));
        match verb {
            ModelVerb::Load => load(work, &begun, model),
            ModelVerb::Unload => unload(work, model),
        }
    });
    match done {
        Ok(()) => {
            begun.say(&format!("done after {:.1} s", begun.elapsed().as_secs_f64()));
            begun.result(Verdict::Succeeded, None)
        }
        Err(failure) => {
            remember(work, verb, model, &failure, gave_up);
            once(begun.failed(&failure, gave_up))
        }
    }
}

fn given_up() -> Failure {
    let message = "given up while it waited for the requests before it".to_owned();
    Failure { cause: Cause::Cancelled, again: Again::GivenUp, message, refused: None }
}

fn load(work: ModelAttempt<'_>, begun: &Begun, model: &str) -> Result<(), Failure> {
    let ModelAttempt { context, models, claim, stop } = work;
    let none = Options::new();
    let options = claim.task().spec.options.as_ref().unwrap_or(&none);
    models.server().load(model, options, stop.cancel())?;
    let took = begun.elapsed();
    let held = models.server().held()?;
    begun.say(&describe(&held, model, took));
    if !held.iter().any(|held| is_same_model(&held.model, model)) {
        let address = models.server().address();
        let message = format!("{address} says that it has loaded {model}, and does not list it");
        return Err(Failure {
            cause: Cause::ServerError,
            again: Again::Maybe,
            message,
            refused: None,
        });
    }
    models.note(&context.worker_state, |server_state, now| {
        server_state.holds(held, models.server().loads(), now)
    });
    let canary = models.canary(&context.worker_state, model, Some(took))?;
    begun.say(&format!("one token came within {:.3} s", canary.as_secs_f64()));
    Ok(())
}

/// What the server says of the model that it has just loaded.
fn describe(held: &[HeldModel], model: &str, took: Duration) -> String {
    let found = held.iter().find(|held| is_same_model(&held.model, model));
    let size = found.and_then(|held| held.size);
    let vram = found.and_then(|held| held.vram);
    let took = took.as_secs_f64();
    match (size, vram) {
        (Some(size), Some(vram)) => {
            format!("loaded after {took:.1} s: {size}, of which {vram} in GPU memory")
        }
        (Some(size), None) => format!("loaded after {took:.1} s: {size}"),
        (None, _) => format!("loaded after {took:.1} s"),
    }
}

fn unload(work: ModelAttempt<'_>, model: &str) -> Result<(), Failure> {
    let ModelAttempt { context, models, stop, .. } = work;
    models.server().unload(model, stop.cancel())?;
    models.note(&context.worker_state, |server_state, _now| server_state.unloaded(model));
    // What else it holds now decides what may run.
    models.look(&context.worker_state);
    Ok(())
}

/// A load that failed is not asked for again in vain; one that was given up says nothing.
fn remember(
    work: ModelAttempt<'_>,
    verb: ModelVerb,
    model: &str,
    failure: &Failure,
    gave_up: GaveUp,
) {
    let ModelAttempt { context, models, .. } = work;
    let failed = match (verb, gave_up, failure.again) {
        (ModelVerb::Load, GaveUp::Timeout, _) => Some(Cause::Timeout),
        (ModelVerb::Load, GaveUp::No, Again::Maybe | Again::Never) => Some(failure.cause),
        (ModelVerb::Load, GaveUp::No, Again::Later | Again::GivenUp)
        | (ModelVerb::Load, GaveUp::Asked(_), _)
        | (ModelVerb::Unload, _, _) => None,
    };
    if gave_up == GaveUp::No && failure.again == Again::Later {
        models.busy(&context.worker_state, model, failure);
    }
    models.note(&context.worker_state, |server_state, now| match failed {
        Some(cause) => server_state.load_failed(model, &Failure { cause, ..failure.clone() }, now),
        None => {
            server_state.gave_up(now);
            Vec::new()
        }
    });
    models.look(&context.worker_state);
}

/// Whoever asked for the load decides anew: it is not tried again by itself.
fn once(result: AttemptResult) -> AttemptResult {
    let verdict = match result.verdict {
        Verdict::Failed(cause) | Verdict::NotReady(cause @ Cause::Unauthorized) => {
            Verdict::Refused(cause)
        }
        other @ (Verdict::Succeeded
        | Verdict::Refused(_)
        | Verdict::ProbeFailed { .. }
        | Verdict::Cancelled(_)
        | Verdict::NotReady(_)
        | Verdict::Busy(_)
        | Verdict::Returned
        | Verdict::WorkerDied
        | Verdict::Rejected) => other,
    };
    AttemptResult { verdict, ..result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_failed_is_over_and_one_of_a_busy_server_comes_again() {
        for (verdict, expected) in [
            (Verdict::Failed(Cause::Oom), Verdict::Refused(Cause::Oom)),
            (Verdict::NotReady(Cause::Unauthorized), Verdict::Refused(Cause::Unauthorized)),
            (Verdict::Busy(Cause::ServerError), Verdict::Busy(Cause::ServerError)),
            (Verdict::Returned, Verdict::Returned),
        ] {
            assert_eq!(once(AttemptResult::new(verdict)).verdict, expected, "{verdict:?}");
        }
    }
}
