//! Looking: how the world is drawn from a snapshot of the pool.

mod members;

use std::collections::{BTreeMap, BTreeSet};

use queue::eligible::{self, Candidate};
use queue::wire::heartbeat::Heartbeat;
use queue::wire::lane::Requirements;
use queue::wire::model_stats::ModelStats;
use serde_json::json;
use shared::llm::{Health, HeldState, ModelServer, ModelVerb, bare_name};
use shared::name::Name;
use shared::outcome::{Cause, Outcome};
use shared::task::Class;

use super::Rules;
use super::world::{
    Access, Asked, Demand, Doing, Member, Place, Refusal, Resident, Stage, Standing, StuckLoad,
    WorkKind, World,
};
use crate::core::words::at::At;
use crate::core::words::snapshot::{Held, Lane, Snapshot};

/// How long an answer takes where none was ever measured, in seconds.
const UNKNOWN_ANSWER: f64 = 5.0;
/// How long a load takes where none was ever measured.
const UNKNOWN_LOAD: f64 = 10.0;
/// How long a script runs where none was ever measured.
const UNKNOWN_SCRIPT: f64 = 60.0;
/// What freeing a GPU for scripts costs.
const UNLOAD: f64 = 1.0;

/// A load may take so many times what it was measured to take.
const FACTOR: f64 = 5.0;

/// What the world is drawn from.
pub(super) struct View<'a> {
    pub(super) at: At,
    pub(super) seen: &'a Snapshot,
    pub(super) hung: &'a BTreeSet<Name>,
    pub(super) rules: &'a Rules,
    pub(super) measured: &'a ModelStats,
}

/// What concerns all places.
struct Beside<'a> {
    asked: &'a [Asked],
    script_takers: BTreeSet<Name>,
}

impl View<'_> {
    /// What can be seen in this look.
    pub(super) fn world(&self) -> World {
        let asked = self.asked();
        let sizes = self.measured.models.iter();
        let sizes = sizes.filter_map(|(name, model)| Some((name.clone(), model.vram?.0)));
        World {
            places: self.places(&asked),
            demands: self.demands(),
            wanted: self.wanted(),
            helpers: self.helpers(),
            asked,
            sizes: sizes.collect(),
            load_seconds: self.measured_loads(),
            script_seconds: self.measured.scripts.seconds(),
        }
    }

    fn measured_loads(&self) -> BTreeMap<String, f64> {
        let models = self.measured.models.iter();
        models.filter_map(|(name, model)| Some((name.clone(), model.loads.seconds()?))).collect()
    }

    fn asked(&self) -> Vec<Asked> {
        let waiting = self.seen.requests.iter().map(|held| (held, Stage::Waiting));
        let taken = self.seen.processing.iter().map(|held| (held, self.taken(held)));
        let mut all: Vec<Asked> = Vec::new();
        // What was claimed between the two listings is in both: taken is the later truth.
        for (held, stage) in taken.chain(waiting) {
            let Some(task) = &held.task else { continue };
            let (Some(verb), Some(model)) = (task.verb, &task.model) else { continue };
            if all.iter().any(|known| known.name.id == held.name.id) {
                continue;
            }
            let model = bare_name(model).to_owned();
            let goal = task.goal.as_deref().map(WorkKind::of_word);
            let made = i64::try_from(held.name.id.unix_millis()).unwrap_or(i64::MAX);
            let made = shared::time::Moment::from_unix_millis(made);
            all.push(Asked {
                name: held.name,
                worker: held.worker.clone(),
                verb,
                goal: goal.unwrap_or_else(|| WorkKind::Model(model.clone())),
                model,
                stage,
                age: self.at.wall.seconds_since(made),
            });
        }
        all
    }

    /// How a request that was taken stands. One that its worker does not speak of yet has only
    /// just begun; a worker that says nothing at all is hung itself.
    fn taken(&self, held: &Held) -> Stage {
        let own = self.seen.workers.get(&held.worker).and_then(|worker| worker.own_heartbeat());
        let run = own.and_then(|own| own.runs(held.name));
        let begun = Stage::Taken { seconds: 0.0 };
        let (Some(own), Some(run)) = (own, run) else { return begun };
        let Some(started) = run.started_at else { return begun };
        // Both by the worker's clock: ours may be minutes ahead of it, or behind.
        let seconds = own.at.seconds_since(started);
        let model = held.task.as_ref().and_then(|task| task.model.as_deref());
        let measured =
            model.and_then(|model| self.measured.of(model)).and_then(|model| model.loads.seconds());
        let limit = (measured.unwrap_or(0.0) * FACTOR).max(self.rules.stuck_after);
        if seconds <= limit {
            return Stage::Taken { seconds };
        }
        let mut evidence = run.evidence.clone();
        evidence.insert("limit_seconds".into(), json!(limit));
        evidence.insert("measured_load_seconds".into(), json!(measured));
        evidence.insert("last_output_age_seconds".into(), json!(run.last_output_age_seconds));
        if let Some(server) = &own.ability.server {
            evidence.insert("server".into(), json!(server.address));
            evidence.insert("health".into(), json!(server.health));
            evidence.insert("error".into(), json!(server.error));
        }
        Stage::Stuck(StuckLoad { seconds, limit, evidence })
    }

    fn wanted(&self) -> BTreeSet<String> {
        let llm = self.seen.lanes.iter().filter(|lane| lane.count.class == Class::Llm);
        llm.filter_map(|lane| lane.count.model.as_deref().map(bare_name).map(str::to_owned))
            .collect()
    }

    fn heartbeats(&self) -> impl Iterator<Item = &Heartbeat> {
        self.seen.alive().filter_map(|(_name, worker)| worker.own_heartbeat())
    }

    fn is_open(&self, heartbeat: &Heartbeat) -> bool {
        self.access(heartbeat) == Access::Open
    }

    /// The disk says what a worker has: its heartbeat may be a moment old.
    fn uses_gpu(&self, worker: &Name) -> bool {
        self.seen
            .processing
            .iter()
            .filter(|held| held.worker == *worker)
            .any(|held| held.task.as_ref().is_none_or(|task| task.class != Class::Cpu))
    }

    fn helpers(&self) -> (u64, u64) {
        let (mut idle, mut all) = (0, 0);
        for heartbeat in self.heartbeats() {
            let ability = &heartbeat.ability;
            let helps = ability.server.is_none() && ability.gpu.is_some();
            if helps && self.is_open(heartbeat) && ability.classes.contains(&Class::Script) {
                all += 1;
                idle += u64::from(!self.uses_gpu(&heartbeat.worker));
            }
        }
        (idle, all)
    }

    fn demands(&self) -> Vec<Demand> {
        let mut all: BTreeMap<WorkKind, Demand> = BTreeMap::new();
        for lane in self.seen.lanes.iter().filter(|lane| lane.limited.is_none()) {
            let Some(demand) = self.demand(lane) else { continue };
            match all.entry(demand.kind.clone()) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(demand)),
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    join(entry.get_mut(), demand);
                }
            }
        }
        all.into_values().collect()
    }

    fn demand(&self, lane: &Lane) -> Option<Demand> {
        let needs = lane.needs.as_deref();
        let own = |needs: &Requirements| needs.worker.clone().map(|worker| [worker].into());
        let (kind, only) = match (lane.count.class, &lane.count.model, needs) {
            (Class::Llm, Some(model), _) => {
                (WorkKind::Model(bare_name(model).to_owned()), needs.and_then(own))
            }
            (Class::Script, _, Some(needs)) => {
                let able = self.could_take(needs);
                let all = self.take_scripts().count();
                (!able.is_empty()).then_some(())?;
                (WorkKind::Scripts, (able.len() < all).then_some(able))
            }
            (Class::Llm | Class::Script | Class::Cpu | Class::Resource, ..) => return None,
        };
        let (seconds, load) = match &kind {
            WorkKind::Model(model) => (
                self.measured.answer_seconds(model).unwrap_or(UNKNOWN_ANSWER),
                self.measured.load_seconds(model).unwrap_or(UNKNOWN_LOAD),
            ),
            WorkKind::Scripts => {
                (self.measured.scripts.seconds().unwrap_or(UNKNOWN_SCRIPT), UNLOAD)
            }
        };
        let age = lane.count.oldest.map_or(0.0, |oldest| self.at.wall.seconds_since(oldest));
        let own = needs.and_then(|needs| needs.max_wait);
        let max_wait = own.map_or(self.rules.max_wait, |own| own.0.as_secs_f64());
        Some(Demand {
            kind,
            tasks: lane.count.pending,
            seconds,
            load,
            age,
            slack: max_wait - age,
            priority: lane.count.priority_max,
            most: lane.most.map(u64::from),
            only,
        })
    }

    /// Who takes scripts at all.
    fn take_scripts(&self) -> impl Iterator<Item = &Heartbeat> {
        self.heartbeats().filter(|beat| beat.ability.classes.contains(&Class::Script))
    }

    /// Who could take scripts of this lane if no model were in their way. A GPU that somebody else
    /// has filled is not cleared of its models in vain.
    fn could_take(&self, needs: &Requirements) -> BTreeSet<Name> {
        let able =
            self.take_scripts().filter(|beat| eligible::could_take(Candidate::from(*beat), needs));
        able.map(|beat| beat.worker.clone()).collect()
    }

    /// Who could take a script that waits; where none does, all who take scripts.
    fn script_takers(&self) -> BTreeSet<Name> {
        let lanes = self.seen.lanes.iter().filter(|lane| lane.count.class == Class::Script);
        let mut needs = lanes.filter_map(|lane| lane.needs.as_deref()).peekable();
        if needs.peek().is_none() {
            return self.take_scripts().map(|beat| beat.worker.clone()).collect();
        }
        needs.flat_map(|needs| self.could_take(needs)).collect()
    }

    fn places(&self, asked: &[Asked]) -> Vec<Place> {
        let mut members: BTreeMap<(&str, &str), Vec<&Heartbeat>> = BTreeMap::new();
        for heartbeat in self.heartbeats() {
            let Some(server) = &heartbeat.ability.server else { continue };
            let key = (heartbeat.process.host.as_str(), server.address.as_str());
            members.entry(key).or_default().push(heartbeat);
        }
        let beside = Beside { asked, script_takers: self.script_takers() };
        let mut places: Vec<Place> =
            members.into_values().filter_map(|members| self.place(&members, &beside)).collect();
        places.sort_by(|one, other| one.workers.cmp(&other.workers));
        places
    }

    fn place(&self, members: &[&Heartbeat], beside: &Beside<'_>) -> Option<Place> {
        // The one that looked last knows best what their server holds.
        let newest = members.iter().max_by_key(|heartbeat| heartbeat.at)?;
        let server = newest.ability.server.as_ref()?;
        let all: Vec<Member> = members.iter().map(|member| self.member(member, server)).collect();
        let able = members.iter().zip(&all).filter(|(_beat, all)| all.access == Access::Open);
        let mut able: Vec<&Heartbeat> = able.map(|(beat, _all)| *beat).collect();
        able.sort_by_key(|member| (self.uses_gpu(&member.worker), member.worker.clone()));
        let in_use = members.iter().any(|member| self.uses_gpu(&member.worker));
        let held = self.held(newest, server);
        let (room, spare) = self.memory(newest, &held);
        let scripts = able.iter().any(|member| beside.script_takers.contains(&member.worker));
        let standing = match (able.is_empty(), server.health) {
            (false, Health::Up) => self.standing(members, server, beside.asked),
            (true, _) | (false, Health::Unknown | Health::Down | Health::Wedged) => Standing::Out,
        };
        Some(Place {
            host: newest.process.host.clone(),
            address: server.address.clone(),
            health: server.health,
            health_seconds: newest.at.seconds_since(server.health_since),
            members: all,
            workers: able.iter().map(|member| member.worker.clone()).collect(),
            standing,
            loads: server.loads,
            held,
            doing: if in_use { Doing::Something } else { Doing::Nothing },
            slots: able
                .iter()
                .map(|member| u64::from(member.ability.gpu_slots))
                .sum::<u64>()
                .max(1),
            room,
            spare,
            takes_scripts: scripts,
            known: known(server),
            busy: busy(server),
            refused: self.refused(newest, server),
        })
    }

    fn held(&self, heartbeat: &Heartbeat, server: &ModelServer) -> Vec<Resident> {
        let held = server.models.iter().map(|held| Resident {
            model: bare_name(&held.model).to_owned(),
            state: held.state,
            seconds: heartbeat.at.seconds_since(held.since),
        });
        held.collect()
    }

    fn standing(&self, members: &[&Heartbeat], server: &ModelServer, asked: &[Asked]) -> Standing {
        let ours = |worker: &Name| members.iter().any(|member| member.worker == *worker);
        let mut own = asked.iter().filter(|asked| ours(&asked.worker));
        if let Some(stuck) = own.clone().find(|asked| matches!(asked.stage, Stage::Stuck(_))) {
            return Standing::Hung(stuck.verb);
        }
        if let Some(asked) = own.next() {
            // Nobody knows when it will have time: others are asked meanwhile.
            if asked.stage == Stage::Waiting && server.busy_loading().is_some() {
                return Standing::Moving(None);
            }
            return Standing::Moving(Some(asked.goal.clone()));
        }
        // A heartbeat from before the end of the last request does not show yet what came of it.
        for member in members {
            let Some(last) = self.measured.last.get(&member.worker) else { continue };
            if last.at > member.at {
                let loaded = last.verb == ModelVerb::Load && last.outcome == Outcome::Succeeded;
                let towards = || Some(WorkKind::Model(last.model.clone()));
                return if loaded { Standing::Moving(towards()) } else { Standing::Unclear };
            }
        }
        // A load or unload that a worker began by itself.
        let by_itself = server.models.iter().find_map(|held| match held.state {
            HeldState::Loading => Some(Some(WorkKind::Model(bare_name(&held.model).to_owned()))),
            HeldState::Unloading => Some(None),
            HeldState::Loaded | HeldState::Unproven => None,
        });
        by_itself.map_or(Standing::Steady, Standing::Moving)
    }

    /// GPU memory for models: without what other processes use and what is kept free; and what of
    /// it is certainly free now. A value that cannot be read is not zero.
    fn memory(&self, heartbeat: &Heartbeat, held: &[Resident]) -> (Option<u64>, Option<u64>) {
        let Some(total) = heartbeat.ability.gpu_memory else { return (None, None) };
        let usable = total.0.saturating_sub(self.rules.vram_reserve);
        let reading = heartbeat.gpu_reading.as_ref();
        let Some(used) = reading.and_then(|gpu| gpu.memory_used.known()) else {
            return (Some(usable), None);
        };
        let size = |held: &Resident| self.measured.of(&held.model).and_then(|model| model.vram);
        let jobs: u64 = heartbeat.current.iter().filter_map(|run| run.peak_vram_bytes).sum();
        let models: Option<u64> = held.iter().map(|held| size(held).map(|size| size.0)).sum();
        // Of what size our models are is not known: then all that is used may be theirs.
        let Some(models) = models else { return (Some(usable), None) };
        let foreign = used.saturating_sub(models + jobs);
        let room = usable.saturating_sub(foreign);
        (Some(room), Some(room.saturating_sub(models + jobs)))
    }

    /// What its server refused lately. A missing model is not asked for again until the server
    /// lists it, one that is too large until it was loaded after all; others after a while.
    fn refused(&self, heartbeat: &Heartbeat, server: &ModelServer) -> BTreeMap<String, Refusal> {
        let mut refused = BTreeMap::new();
        let lasts = |cause| matches!(cause, Cause::ModelMissing | Cause::Oom);
        for failed in &server.failed_loads {
            if lasts(failed.cause) {
                let refusal = Refusal { cause: failed.cause, again: None };
                refused.insert(bare_name(&failed.model).to_owned(), refusal);
            }
        }
        for (model, measured) in &self.measured.models {
            let Some(failures) = measured.failures.get(&heartbeat.worker) else { continue };
            let listed = failures.cause == Cause::ModelMissing && server.knows(model) == Some(true);
            let waited = self.at.wall.seconds_since(failures.at);
            let left = super::history::back_off(failures.count) - waited;
            if !listed && left > 0.0 {
                let again = (!lasts(failures.cause)).then_some(left);
                refused.insert(model.clone(), Refusal { cause: failures.cause, again });
            }
        }
        refused
    }
}

fn known(server: &ModelServer) -> Option<BTreeSet<String>> {
    let known = server.known.as_ref()?;
    Some(known.iter().map(|model| bare_name(model).to_owned()).collect())
}

fn busy(server: &ModelServer) -> BTreeMap<String, String> {
    let each = server.busy.iter();
    each.map(|said| (bare_name(&said.model).to_owned(), said.message.clone())).collect()
}

/// Adds the work of another lane of the same kind.
fn join(all: &mut Demand, more: Demand) {
    all.tasks += more.tasks;
    all.age = all.age.max(more.age);
    all.slack = all.slack.min(more.slack);
    all.priority = all.priority.max(more.priority);
    all.most = all.most.zip(more.most).map(|(one, other)| one + other);
    all.only = match (all.only.take(), more.only) {
        (Some(mut all), Some(more)) => {
            all.extend(more);
            Some(all)
        }
        (Some(_) | None, _) => None,
    };
}
