//! Placing models: which worker should hold which, so that every GPU that can help, helps.
//!
//! - `world`, `observe`: what is decided from, drawn from one look
//! - `plan`: what is asked of whom, a pure function of the world; in it `choose`, and `deadline`: what
//!   must be begun now, so that nothing waits longer than it may
//! - `withdraw`: requests whose goal is gone
//! - `lack`: why a worker does not have a model that is wanted
//! - `goals`: what is expected and does not come
//! - `nowhere`: models that no server can load now
//! - `deferred`: loads that have to wait for scripts
//! - `history`: loads that failed
//! - `stuck_loads`: loads that do not end
//!
//! Requests are `resource` tasks addressed to a worker, at most one outstanding per place. What is
//! outstanding is read from the pool, what is loaded from heartbeats, what was measured from the
//! ledger: a brain that takes over decides as the last one would have.

mod deferred;
mod goals;
mod history;
mod lack;
mod nowhere;
mod observe;
mod plan;
mod stuck_loads;
#[cfg(test)]
mod tests;
mod withdraw;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use queue::wire::brain_state::Warning;
use queue::wire::model_stats::ModelStats;
use shared::event::Event;
use shared::llm::ModelVerb;
use shared::name::Name;
use shared::settings::Settings;
use shared::time::Moment;

use super::words::at::At;
use super::words::command::{Command, say};
use super::words::placement::{ModelRequest, PlacementDecision};
use super::words::snapshot::{Paused, Snapshot};
use deferred::Deferred;
use goals::Goals;
use nowhere::Nowhere;
use observe::View;
use plan::Step;
use stuck_loads::StuckLoads;

/// The settings of placement.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    max_wait: f64,
    min_residency: f64,
    loads_at_once: Option<u64>,
    vram_reserve: u64,
    load_warn: Duration,
    stuck_after: f64,
    interval: Duration,
}

impl Rules {
    fn new(settings: &Settings) -> Self {
        Self {
            max_wait: settings.max_wait.0.as_secs_f64(),
            min_residency: settings.min_residency.0.as_secs_f64(),
            loads_at_once: settings.loads_at_once.map(|most| u64::from(most.max(1))),
            vram_reserve: settings.vram_reserve.0,
            load_warn: settings.load_warn.0,
            stuck_after: settings.stuck_after.0.as_secs_f64(),
            interval: settings.monitor_interval.0,
        }
    }
}

/// A request that was given up by whoever carries out is not made again before this.
const AGAIN_MILLIS: i64 = 5_000;

/// Decides with each look who loads or unloads what, and keeps what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Placer {
    rules: Rules,
    measured: ModelStats,
    goals: Goals,
    nowhere: Nowhere,
    deferred: Deferred,
    stuck_loads: StuckLoads,
    /// When it was last said why nothing is asked for.
    told: Option<Duration>,
    /// When each worker was last asked for something.
    asked: BTreeMap<Name, Moment>,
}

impl Placer {
    /// With the rules of the settings; nothing is measured yet.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            rules: Rules::new(settings),
            measured: ModelStats::default(),
            goals: Goals::default(),
            nowhere: Nowhere::default(),
            deferred: Deferred::default(),
            stuck_loads: StuckLoads::default(),
            told: None,
            asked: BTreeMap::new(),
        }
    }

    /// What the last brain had measured.
    pub(crate) fn remember(&mut self, measured: ModelStats) {
        self.measured = measured;
    }

    /// What was measured so far.
    pub(crate) fn measured(&self) -> &ModelStats {
        &self.measured
    }

    /// Takes in a look. Nothing can be asked of workers that are `hung`.
    pub(crate) fn look(
        &mut self,
        at: At,
        seen: &Snapshot,
        hung: &BTreeSet<Name>,
        out: &mut Vec<Command>,
    ) {
        self.measure(seen, out);
        // What could not be counted is not gone.
        if seen.counts.is_none() {
            return;
        }
        let view = View { at, seen, hung, rules: &self.rules, measured: &self.measured };
        let world = view.world();
        for (asked, why) in withdraw::withdrawals(&world) {
            let (task, worker, model) = (asked.name.id, asked.worker.clone(), asked.model.clone());
            let (verb, why) = (asked.verb, why.to_owned());
            say(out, Event::RequestWithdrawn { task, worker, verb, model, why });
            out.push(Command::Withdraw(asked.name));
        }
        self.stuck_loads.look(at, &world, out);
        let mut steps = match seen.pool {
            Paused::No => plan::plan(&world, &self.rules),
            Paused::Pool => Vec::new(),
        };
        steps.retain(|step| self.may_ask(at, &step.worker));
        for step in &steps {
            self.asked.insert(step.worker.clone(), at.wall);
            tell(at, seen.cycle, step, out);
        }
        if steps.is_empty() && self.told.is_none_or(|told| at.now - told >= self.rules.interval) {
            self.told = Some(at.now);
            say(out, Event::NoLoad { why: world.no_load() });
        }
        self.goals.look(at, &world, self.rules.load_warn, out);
        self.nowhere.look(at, &world, out);
        self.deferred.look(at, &world, out);
    }

    fn measure(&mut self, seen: &Snapshot, out: &mut Vec<Command>) {
        for brief in &seen.past {
            self.measured.ended(brief);
        }
        for brief in &seen.ended {
            self.measured.ended(brief);
            let event = history::told(&self.measured, brief);
            out.extend(event.map(Command::Say));
        }
        for (_name, worker) in seen.alive() {
            let server = worker.own_heartbeat().and_then(|own| own.ability.server.as_ref());
            server
                .iter()
                .flat_map(|server| &server.models)
                .for_each(|held| self.measured.held(held));
        }
    }

    /// What was asked for shows in the next look, or has ended: where it does neither, it could
    /// not be written, and is not tried again with every look.
    fn may_ask(&self, at: At, worker: &Name) -> bool {
        let Some(asked) = self.asked.get(worker) else { return true };
        let last = self.measured.last.get(worker);
        let ended = last.is_some_and(|last| last.at >= *asked);
        ended || at.wall.unix_millis() - asked.unix_millis() >= AGAIN_MILLIS
    }

    /// What somebody should know.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        self.goals.warnings().chain(self.nowhere.warnings()).collect()
    }
}

fn tell(at: At, cycle: u64, step: &Step, out: &mut Vec<Command>) {
    let placement = step.placement.clone();
    say(
        out,
        match step.verb {
            ModelVerb::Load => Event::LoadInserted { placement: placement.clone() },
            ModelVerb::Unload => Event::UnloadInserted { placement: placement.clone() },
        },
    );
    out.push(Command::RecordPlacement(PlacementDecision { timestamp: at.wall, cycle, placement }));
    out.push(Command::Request(ModelRequest {
        worker: step.worker.clone(),
        verb: step.verb,
        model: step.model.clone(),
        goal: step.goal.word().to_owned(),
    }));
}
