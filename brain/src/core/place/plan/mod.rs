//! Which models go where: one pure function from the world as it is to what is asked of whom.
//!
//! A place that has work for what it holds goes on with it: a model is served until nothing of it
//! waits (batching by model), because work that waits elsewhere is not done sooner by a swap. So
//! - a free place first goes to work that nobody serves, or that those who serve it cannot do in
//!   time; among several to what is due, then to the higher priority, then to the earlier
//!   deadline, then to the larger work;
//! - a place that has work is taken away only for what is due (`deadline`) or has a higher
//!   priority, or where scripts and models have to share;
//! - a place that is still free helps where one more shortens the end: work/(n+1) + load < work/n.

pub(super) mod choose;
pub(super) mod deadline;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use shared::event::{Placement, Purpose};
use shared::llm::{Loads, ModelVerb};
use shared::name::Name;

use super::Rules;
use super::world::{Demand, Doing, Place, Standing, WorkKind, World};

/// What is asked of a worker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) worker: Name,
    pub(crate) verb: ModelVerb,
    pub(crate) model: String,
    pub(crate) goal: WorkKind,
    pub(crate) placement: Placement,
}

/// What should be asked for now.
pub(crate) fn plan(world: &World, rules: &Rules) -> Vec<Step> {
    // What came of the last request is not seen yet: it may be what is missing.
    if world.places.iter().any(|place| place.standing == Standing::Unclear) {
        return Vec::new();
    }
    let mut planner = Planner::new(world, rules);
    planner.serve();
    planner.share();
    planner.help();
    planner.steps
}

/// Whether one more place for this work is worth its load: always where nobody serves it.
pub(crate) fn would_help(world: &World, place: &Place, demand: &Demand) -> bool {
    let serving = world.places.iter().filter(|other| other.serves(&demand.kind));
    let slots: u64 = serving.map(|other| other.slots).sum();
    slots == 0 || shortens(demand, slots, place)
}

/// Whether the work ends sooner with this place beside so many slots that serve it.
#[expect(clippy::cast_precision_loss, reason = "slots are few")]
fn shortens(demand: &Demand, slots: u64, place: &Place) -> bool {
    let end = |slots: u64| demand.work() / slots as f64;
    demand.most.is_none_or(|most| slots < most)
        && end(slots + place.slots) + demand.load < end(slots)
}

/// What is asked of whom, and for what purpose.
struct Order {
    worker: Name,
    verb: ModelVerb,
    model: String,
    purpose: Purpose,
}

/// The plan as far as it is made.
pub(super) struct Planner<'a> {
    pub(super) world: &'a World,
    pub(super) rules: &'a Rules,
    /// By demand: places that serve it, and how many tasks those do at once.
    pub(super) serving: Vec<u64>,
    pub(super) capacity: Vec<u64>,
    /// By demand: tasks that idle places do not cover.
    pub(super) open: Vec<u64>,
    /// By demand: whether its oldest task must not wait any longer.
    pub(super) due: Vec<bool>,
    /// By place: whether it is idle and no work waits for what it holds; whether this plan uses it.
    pub(super) free: Vec<bool>,
    pub(super) taken: Vec<bool>,
    /// Loads on their way, by host.
    loading: BTreeMap<&'a str, u64>,
    steps: Vec<Step>,
}

impl<'a> Planner<'a> {
    fn new(world: &'a World, rules: &'a Rules) -> Self {
        let (helpers_idle, helpers) = world.helpers;
        let mut serving = Vec::new();
        let mut capacity = Vec::new();
        let mut open = Vec::new();
        for demand in &world.demands {
            let own = world.places.iter().filter(|place| place.serves(&demand.kind));
            let (places, slots) =
                own.fold((0, 0), |(count, slots), place| (count + 1, slots + place.slots));
            let scripts = demand.kind == WorkKind::Scripts;
            let (more, idle) = if scripts { (helpers, helpers_idle) } else { (0, 0) };
            serving.push(places + more);
            capacity.push(slots + more);
            open.push(demand.tasks.saturating_sub(idle));
        }
        let mut loading: BTreeMap<&str, u64> = BTreeMap::new();
        for place in &world.places {
            if let Standing::Moving(Some(WorkKind::Model(_))) = place.standing {
                *loading.entry(&place.host).or_default() += 1;
            }
        }
        let due = deadline::due(world, &serving);
        let (free, taken) = (vec![false; world.places.len()], vec![false; world.places.len()]);
        let steps = Vec::new();
        let mut planner =
            Self { world, rules, serving, capacity, open, due, free, taken, loading, steps };
        planner.find_free();
        planner
    }

    /// An idle place keeps what it has as long as there is a task for it.
    fn find_free(&mut self) {
        for (index, place) in self.world.places.iter().enumerate() {
            let moving = matches!(place.standing, Standing::Moving(_));
            if !moving && (place.standing != Standing::Steady || place.doing == Doing::Something) {
                continue;
            }
            let kept = (0..self.open.len())
                .find(|d| self.open[*d] > 0 && place.serves(&self.world.demands[*d].kind));
            match kept {
                Some(demand) => self.open[demand] = self.open[demand].saturating_sub(place.slots),
                None => self.free[index] = !moving && place.loads == Loads::OnRequest,
            }
        }
    }

    /// What nobody serves gets a place: a free one, room beside another model, or, where it
    /// cannot wait any longer, one that has work. What is served and falls behind gets a free one.
    fn serve(&mut self) {
        let mut order: Vec<usize> = (0..self.serving.len()).collect();
        order.retain(|d| self.serving[*d] == 0 || self.is_behind(*d));
        order.sort_by(|one, other| self.by_urgency(*one, *other));
        for demand in order {
            let reason = if self.due[demand] { Purpose::Due } else { Purpose::Serve };
            let free = self.free_place(demand);
            if self.serving[demand] > 0 {
                if let Some(place) = free.filter(|place| self.is_worth(*place, demand)) {
                    self.assign(place, demand, Purpose::Help);
                }
            } else if let Some(place) = free.or_else(|| self.room_beside(demand)) {
                self.assign(place, demand, reason);
            } else if let Some((place, purpose)) = self.victim(demand) {
                self.assign(place, demand, purpose);
            }
        }
    }

    fn by_urgency(&self, one: usize, other: usize) -> Ordering {
        let (a, b) = (&self.world.demands[one], &self.world.demands[other]);
        let by_due = self.due[other].cmp(&self.due[one]).then(b.priority.cmp(&a.priority));
        let by_deadline = by_due.then(a.slack.total_cmp(&b.slack));
        by_deadline.then(b.work().total_cmp(&a.work())).then(a.kind.cmp(&b.kind))
    }

    /// What is still free helps where that shortens the end, the latest end first.
    fn help(&mut self) {
        loop {
            let mut order: Vec<usize> = (0..self.serving.len()).collect();
            order.retain(|d| self.serving[*d] > 0 && self.open[*d] > 0);
            order.sort_by(|one, other| self.end(*other).total_cmp(&self.end(*one)));
            let helped = order.into_iter().any(|demand| match self.free_place(demand) {
                Some(place) => {
                    self.is_worth(place, demand) && self.assign(place, demand, Purpose::Help)
                }
                None => false,
            });
            if !helped {
                return;
            }
        }
    }

    /// When its work ends with what serves it now.
    #[expect(clippy::cast_precision_loss, reason = "slots are few")]
    pub(super) fn end(&self, demand: usize) -> f64 {
        self.world.demands[demand].work() / self.capacity[demand] as f64
    }

    /// The same with one more place.
    #[expect(clippy::cast_precision_loss, reason = "slots are few")]
    fn end_with(&self, place: &Place, demand: usize) -> f64 {
        let (wanted, slots) = (&self.world.demands[demand], self.capacity[demand] + place.slots);
        wanted.work() / slots as f64 + wanted.load
    }

    fn is_worth(&self, place: usize, demand: usize) -> bool {
        let place = &self.world.places[place];
        shortens(&self.world.demands[demand], self.capacity[demand], place)
    }

    /// Asks a place to be prepared for this work. `false` where too much is loaded at once.
    pub(super) fn assign(&mut self, index: usize, demand: usize, purpose: Purpose) -> bool {
        let (world, place) = (self.world, &self.world.places[index]);
        let wanted = &world.demands[demand];
        let (verb, model) = match &wanted.kind {
            WorkKind::Model(model) if self.can_load(place, model) => {
                (ModelVerb::Load, model.clone())
            }
            WorkKind::Model(_) | WorkKind::Scripts => match self.least_wanted(place) {
                Some(model) => (ModelVerb::Unload, model),
                None => return false,
            },
        };
        let most = self.rules.loads_at_once.unwrap_or(u64::MAX);
        let loading = self.loading.entry(&place.host).or_default();
        if wanted.kind != WorkKind::Scripts {
            if *loading >= most {
                return false;
            }
            *loading += 1;
        }
        let named = |worker: &&Name| wanted.only.as_ref().is_none_or(|only| only.contains(worker));
        let Some(worker) = place.workers.iter().find(named).cloned() else { return false };
        let order = Order { worker: worker.clone(), verb, model: model.clone(), purpose };
        let placement = self.sums(place, demand, order);
        self.steps.push(Step { worker, verb, model, goal: wanted.kind.clone(), placement });
        self.count_as_done(index, demand, verb);
        true
    }

    fn can_load(&self, place: &Place, model: &str) -> bool {
        let there = place.held.iter().any(|held| held.model == model);
        place.is_cold() || there || self.world.fits_beside(place, model)
    }

    fn least_wanted(&self, place: &Place) -> Option<String> {
        let work = |model: &str| {
            let kind = WorkKind::Model(model.to_owned());
            let demand = self.world.demands.iter().find(|demand| demand.kind == kind);
            demand.map_or(0.0, Demand::work)
        };
        let least = place.held.iter().min_by(|a, b| work(&a.model).total_cmp(&work(&b.model)));
        least.map(|held| held.model.clone())
    }

    /// Counts a load or unload that is decided as if it were done: later choices build on it.
    fn count_as_done(&mut self, index: usize, demand: usize, verb: ModelVerb) {
        let place = &self.world.places[index];
        self.taken[index] = true;
        self.free[index] = false;
        for other in 0..self.serving.len() {
            let kind = &self.world.demands[other].kind;
            let lost = verb == ModelVerb::Unload || *kind == WorkKind::Scripts;
            if other != demand && lost && place.serves(kind) {
                self.serving[other] = self.serving[other].saturating_sub(1);
                self.capacity[other] = self.capacity[other].saturating_sub(place.slots);
            }
        }
        self.serving[demand] += 1;
        self.capacity[demand] += place.slots;
        self.open[demand] = self.open[demand].saturating_sub(place.slots);
    }

    fn sums(&self, place: &Place, demand: usize, order: Order) -> Placement {
        let Order { worker, verb, model, purpose } = order;
        let (world, wanted) = (self.world, &self.world.demands[demand]);
        Placement {
            worker,
            verb,
            model,
            work: wanted.kind.word().to_owned(),
            purpose,
            waiting: wanted.tasks,
            llm_waiting: world.llm_waiting(),
            loaded: world.loaded(),
            serving: self.serving[demand],
            task_seconds: wanted.seconds,
            work_seconds: wanted.work(),
            load_seconds: wanted.load,
            oldest_seconds: wanted.age,
            end_before: (self.capacity[demand] > 0).then(|| self.end(demand)),
            end_after: self.end_with(place, demand),
        }
    }
}
