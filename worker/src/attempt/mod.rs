//! One attempt, from claim to ledger line: a job, a prompt, or a load or unload of a model, and how it
//! ended.

pub(super) mod ask;
pub mod context;
pub mod environment;
pub mod finished;
pub mod job_run;
pub(super) mod load;

use std::sync::Arc;

use queue::dir::claim::one::Claim;
use queue::wire::retry::Verdict;
use shared::llm::ModelVerb;
use shared::log::{Context, scope};
use shared::outcome::Cause;
use shared::task::Payload;

use crate::job::{Order, Stop};
use crate::models::Models;
use ask::ModelAttempt;
use context::{AttemptContext, AttemptResult, stopped_with_us};
use finished::{Finished, finish};
use job_run::{order, run};

/// Runs a claimed task's job to its end. Calls `meanwhile` when it is about to wait for the rest of
/// a model's answer.
/// `None` where its end is left to whoever settles this worker's affairs.
#[must_use = "its end must be recorded"]
pub fn attempt(
    context: &Arc<AttemptContext>,
    claim: Box<Claim>,
    stop: &Stop,
    meanwhile: &dyn Fn(),
) -> Option<Finished> {
    let (name, task) = (claim.name(), claim.task());
    let _scope = scope(Context {
        task: Some(name.id),
        attempt: Some(name.attempt),
        correlation_id: Some(task.correlation_id.clone()),
        ..Context::default()
    });
    let result = match plan(context, &claim) {
        Ok(Plan::Job(order)) => run(context, &claim, order, stop)?,
        Ok(Plan::Ask { models, model }) => {
            ask::ask(ModelAttempt { context, models, claim: &claim, stop }, model, meanwhile)
        }
        Ok(Plan::Model { models, verb, model }) => {
            load::load_or_unload(ModelAttempt { context, models, claim: &claim, stop }, verb, model)
        }
        Err(message) => AttemptResult {
            message: Some(message),
            ..AttemptResult::new(Verdict::Failed(Cause::SpawnFailed))
        },
    };
    Some(finish(context, claim, stopped_with_us(context, result)))
}

/// What an attempt does.
enum Plan<'a> {
    /// It runs a job.
    Job(Order),
    /// It asks a model.
    Ask { models: &'a Models, model: &'a str },
    /// It loads or unloads one.
    Model { models: &'a Models, verb: ModelVerb, model: &'a str },
}

fn plan<'a>(context: &'a AttemptContext, claim: &'a Claim) -> Result<Plan<'a>, String> {
    let models = || context.models.as_ref().ok_or("this worker has no model server");
    let argv = match claim.task().spec.payload().map_err(|bad| bad.to_string())? {
        Payload::Command(words) => words.iter().map(Into::into).collect(),
        Payload::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.into()],
        Payload::Llm { model, .. } => return Ok(Plan::Ask { models: models()?, model }),
        Payload::Model { verb, model } => {
            return Ok(Plan::Model { models: models()?, verb, model });
        }
    };
    Ok(Plan::Job(order(context, claim, argv)))
}
