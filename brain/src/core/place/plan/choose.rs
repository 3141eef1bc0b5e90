//! Which place is taken for which work.

use shared::event::Purpose;
use shared::llm::Loads;

use super::{Planner, deadline};
use crate::core::place::world::{Demand, Doing, Place, Resident, Standing, WorkKind};

/// Off by so many places, scripts and models are shared anew.
const UNEVEN: f64 = 0.75;

impl Planner<'_> {
    /// The free place that needs the least for it.
    pub(in crate::core::place) fn free_place(&self, demand: usize) -> Option<usize> {
        let wanted = &self.world.demands[demand];
        let mut free: Vec<usize> = self.indices().filter(|place| self.free[*place]).collect();
        free.retain(|place| self.can_have(*place, wanted));
        free.into_iter().min_by_key(|place| {
            let place = &self.world.places[*place];
            // Freeing it costs nothing where nothing is there; and memory is better used up.
            (!self.has_room(place, wanted), place.is_cold(), place.workers.clone())
        })
    }

    fn indices(&self) -> impl Iterator<Item = usize> {
        0..self.world.places.len()
    }

    /// Whether a place that stands still, and was not taken in this plan, could be prepared for it.
    fn can_have(&self, index: usize, wanted: &Demand) -> bool {
        let place = &self.world.places[index];
        let pointless = wanted.kind == WorkKind::Scripts && place.is_cold();
        place.standing == Standing::Steady
            && place.loads == Loads::OnRequest
            && !self.taken[index]
            && !pointless
            && self.world.can_prepare(place, wanted)
    }

    fn has_room(&self, place: &Place, wanted: &Demand) -> bool {
        match &wanted.kind {
            WorkKind::Scripts => false,
            WorkKind::Model(model) => place.is_cold() || self.world.fits_beside(place, model),
        }
    }

    /// A place where the model certainly fits beside another one, which loses nothing.
    pub(in crate::core::place) fn room_beside(&self, demand: usize) -> Option<usize> {
        let wanted = &self.world.demands[demand];
        let WorkKind::Model(model) = &wanted.kind else { return None };
        self.indices().find(|index| {
            let place = &self.world.places[*index];
            let beside = !place.is_cold() && self.world.fits_beside(place, model);
            beside && self.can_have(*index, wanted)
        })
    }

    /// The place that is taken away from other work for this one, if that must be.
    pub(in crate::core::place) fn victim(&self, demand: usize) -> Option<(usize, Purpose)> {
        let wanted = &self.world.demands[demand];
        let candidates = self.indices().filter(|index| self.can_have(*index, wanted));
        let each = candidates.filter_map(|index| {
            let (harm, purpose) = self.harm(&self.world.places[index], demand)?;
            Some((harm, index, purpose))
        });
        let least = each.min_by(|(one, a, _), (other, b, _)| one.total_cmp(other).then(a.cmp(b)));
        least.map(|(_harm, index, purpose)| (index, purpose))
    }

    /// What taking this place would delay, in seconds of work; `None` where it may not be taken.
    fn harm(&self, place: &Place, demand: usize) -> Option<(f64, Purpose)> {
        /// Work that nobody else serves is worth so much more.
        const SOLE: f64 = 1e12;
        let wanted = &self.world.demands[demand];
        let overdue = wanted.slack <= 0.0;
        // Loads may not take more than a third of the time, however much is overdue.
        let least = if overdue { 0.0 } else { self.rules.min_residency };
        let earned = |held: &Resident| held.seconds >= least.max(2.0 * wanted.load);
        if !place.held.iter().all(earned) {
            return None;
        }
        let (mut harm, mut purpose) = (0.0, None);
        for other in (0..self.serving.len()).filter(|other| *other != demand) {
            let theirs = &self.world.demands[other];
            if !place.serves(&theirs.kind) {
                continue;
            }
            let sole = self.serving[other] < 2;
            purpose = Some(self.may_displace(place, demand, other)?);
            harm += theirs.work() + if sole { SOLE } else { 0.0 };
        }
        // Nothing waits for what it does: it will be free in a moment.
        let doing = place.doing == Doing::Something;
        match purpose {
            Some(purpose) => Some((harm, purpose)),
            None if self.due[demand] && doing => Some((0.0, Purpose::Due)),
            None => None,
        }
    }

    /// A model that was loaded a moment ago stays for a while.
    fn has_stayed(&self, place: &Place) -> bool {
        place.held.iter().all(|held| held.seconds >= self.rules.min_residency)
    }

    /// Whether work that nobody serves may take this place from other work: what is due may,
    /// where others serve that too or it can wait for longer than the swaps cost, and where all
    /// the rest is still begun in time or the visit was a long one. So a pool that has too much to
    /// do does not swap itself to death.
    fn may_displace(&self, place: &Place, demand: usize, other: usize) -> Option<Purpose> {
        let (ours, theirs) = (&self.world.demands[demand], &self.world.demands[other]);
        let cost = ours.load + theirs.load;
        let shared = self.serving[other] > 1;
        let long = || place.held.iter().all(|held| held.seconds >= deadline::LONG * cost);
        let may = self.due[demand] && (shared || theirs.slack > ours.slack + 2.0 * cost);
        if may && (long() || self.is_kept(place, demand, other)) {
            return Some(Purpose::Due);
        }
        let higher = ours.priority > theirs.priority && theirs.slack > 0.0;
        higher.then_some(Purpose::Priority)
    }

    /// Scripts and models share the places by the work that waits, each at least one.
    pub(in crate::core::place) fn share(&mut self) {
        let Some(scripts) = self.position(&WorkKind::Scripts) else { return };
        let models: Vec<usize> = (0..self.serving.len()).filter(|d| *d != scripts).collect();
        let work: f64 = models.iter().map(|d| self.world.demands[*d].work()).sum();
        let (for_scripts, places) = (self.script_places(), self.usable());
        if models.is_empty() || places < 2 || self.world.demands[scripts].tasks == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "places are few")]
        let (all, have) = (places as f64, for_scripts as f64);
        let own = self.world.demands[scripts].work();
        let fair = (all * own / (own + work)).clamp(1.0, all - 1.0);
        let none_for_models = models.iter().all(|d| self.serving[*d] == 0);
        if self.serving[scripts] == 0 || fair - have > UNEVEN && self.open[scripts] > 0 {
            self.take_for_scripts(scripts);
        } else if for_scripts > 1 && (none_for_models || have - fair > UNEVEN) {
            self.take_from_scripts(&models);
        }
    }

    fn position(&self, kind: &WorkKind) -> Option<usize> {
        self.world.demands.iter().position(|demand| demand.kind == *kind)
    }

    fn script_places(&self) -> usize {
        let all = self.indices().filter(|index| !self.taken[*index]);
        all.filter(|index| self.world.places[*index].serves(&WorkKind::Scripts)).count()
    }

    fn usable(&self) -> usize {
        let usable = |place: &&Place| {
            place.is_usable() && place.loads == Loads::OnRequest && place.takes_scripts
        };
        self.world.places.iter().filter(usable).count()
    }

    /// The place whose model others serve too, or that has the least to do.
    fn take_for_scripts(&mut self, scripts: usize) {
        let wanted = &self.world.demands[scripts];
        let candidates = self.indices().filter(|index| {
            let place = &self.world.places[*index];
            self.can_have(*index, wanted) && self.has_stayed(place)
        });
        let least = candidates.min_by(|a, b| self.load_on(*a).total_cmp(&self.load_on(*b)));
        if let Some(place) = least {
            self.assign(place, scripts, Purpose::Share);
        }
    }

    /// When the work of what this place holds ends.
    fn load_on(&self, index: usize) -> f64 {
        let place = &self.world.places[index];
        let served = (0..self.serving.len()).filter(|d| place.serves(&self.world.demands[*d].kind));
        let ends = served.map(|demand| {
            let sole = if self.serving[demand] < 2 { 1e12 } else { 0.0 };
            self.end(demand) + sole
        });
        ends.sum()
    }

    fn take_from_scripts(&mut self, models: &[usize]) {
        let mut order = models.to_vec();
        order.retain(|demand| self.open[*demand] > 0);
        // Work that nobody serves never ends: that comes first.
        order.sort_by(|a, b| self.end(*b).total_cmp(&self.end(*a)));
        for demand in order {
            let wanted = &self.world.demands[demand];
            let place = self
                .indices()
                .find(|index| self.can_have(*index, wanted) && self.world.places[*index].is_cold());
            if let Some(place) = place
                && self.assign(place, demand, Purpose::Share)
            {
                return;
            }
        }
    }
}
